"""Recurrent networks as models of sequences: `RNN`, `GRU` and `LSTM`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from seriatim import layers
from seriatim.causal import Causal, CausalSequential
from seriatim.context import Encoder
from seriatim.ending import SequenceModel
from seriatim.heads import Bernoulli, Head
from seriatim.order import Order


class RecurrentModel(SequenceModel):
    """What `RNN`, `GRU` and `LSTM` share: recurrent layers one on another, and a linear map to the parameters.

        h^0_t = x_t-1,    h^l_t = layer(h^(l-1)_t, h^l_t-1),    a_t = V h^L_t

    No weight belongs to a position, so that `model(length=n)` runs over any length. A subclass names its layer:
    `layer_class(in_features, hidden_features, context_features=...)`.

    Args:
        event_shape: the shape of the places of the data, of the usual length.
        head: the values of one place; within `Ending`, sequences end by themselves.
        hidden_features: units of a layer.
        num_layers: recurrent layers.
        dropout: the rate on the outputs of every layer, in training, drawn anew at every position.
        variational_dropout: the same with one mask for the whole sequence.
        norm: normalise the outputs of every layer, position by position.
        encoder: the context, which sets the state before the first position through linear maps.
        order: of the places; row-major if None.

    Raises:
        ValueError: a size below 1, or a rate that is no probability below 1.

    Example:
        >>> from seriatim.models import LSTM
        >>> isinstance(LSTM((5,), hidden_features=4), RecurrentModel)
        True
    """

    layer_class: Any = Causal

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 128,
        num_layers: int = 1,
        dropout: float = 0.0,
        variational_dropout: float = 0.0,
        norm: bool = False,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        if min(hidden_features, num_layers) < 1:
            raise ValueError(
                f"hidden_features, num_layers: expected 1 or more, got hidden_features {hidden_features}, "
                f"num_layers {num_layers}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout: expected a rate from 0 to below 1, got {dropout}")
        head, order = head or Bernoulli(), order or Order(event_shape)
        modules: list[nn.Module] = []
        size = head.num_features
        for _ in range(num_layers):
            context = encoder.num_features if encoder else 0
            modules.append(self.layer_class(size, hidden_features, context_features=context))
            modules += [nn.LayerNorm(hidden_features)] if norm else []
            modules += [layers.VariationalDropout(hidden_features, variational_dropout)] if variational_dropout else []
            modules += [nn.Dropout(dropout)] if dropout else []
            size = hidden_features
        output = nn.Linear(size, head.num_params)
        nn.init.normal_(output.weight, std=0.01)  # training starts near the factorised model
        super().__init__(CausalSequential(*modules, output), head, order, encoder)


class RNN(RecurrentModel):
    """The simple recurrent network.

        h_t = tanh(W x_t-1 + U h_t-1 + b)

    Arguments as for `RecurrentModel`.

    Reference: Finding structure in time (Elman, 1990).

    Example:
        >>> import torch
        >>> RNN((5,), hidden_features=4)().log_prob(torch.ones(2, 5)).shape
        torch.Size([2])
    """

    layer_class = layers.RNN


class GRU(RecurrentModel):
    """The network of gated recurrent units.

        r, z = sigmoid(...),  n = tanh(W x_t-1 + r * (U h_t-1 + b)),  h_t = (1 - z) n + z h_t-1

    Arguments as for `RecurrentModel`.

    Reference: Learning Phrase Representations using RNN Encoder-Decoder (Cho et al., 2014).

    Example:
        >>> import torch
        >>> GRU((5,), hidden_features=4)(length=7).sample((2,), seed=0).shape
        torch.Size([2, 7])
    """

    layer_class = layers.GRU


class LSTM(RecurrentModel):
    """The network of long short-term memory.

        i, f, o = sigmoid(W x_t-1 + U h_t-1 + b),  c_t = f c_t-1 + i tanh(...),  h_t = o tanh(c_t)

    Arguments as for `RecurrentModel`.

    References: Long Short-Term Memory (Hochreiter, Schmidhuber, 1997); Generating Sequences With Recurrent Neural
    Networks (Graves, 2013).

    Example:
        >>> import torch
        >>> LSTM((5,), hidden_features=4, num_layers=2)().log_prob(torch.ones(2, 5)).shape
        torch.Size([2])
    """

    layer_class = layers.LSTM
