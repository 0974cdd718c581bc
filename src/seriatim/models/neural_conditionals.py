"""NeuralConditionals: every conditional an MLP of its own, the neural model of the classical account."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State
from seriatim.context import Encoder
from seriatim.engine.operands import Act
from seriatim.heads import Bernoulli, Head
from seriatim.layers.linear import MaskedLinear
from seriatim.model import AutoregressiveModel
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class PositionwiseMLPs(Causal):
    """T multi-layer perceptrons, the t-th reading every feature up to position t.

        h_t = relu(A_t x_1..t + c_t),    y_t = V_t h_t + b_t

    Shapes: x (B, n, F) -> y (B, n, P).

    Example:
        >>> PositionwiseMLPs(4, 1, (8,), 2)(torch.zeros(3, 4, 1))[0].shape
        torch.Size([3, 4, 2])
    """

    def __init__(
        self,
        num_positions: int,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        counts = [in_features] * num_positions, [hidden_features[0]] * num_positions
        self.input = MaskedLinear(*counts, context_features)
        sizes = [*hidden_features, out_features]
        self.weights = nn.ParameterList(
            torch.empty(num_positions, i, o).uniform_(-1, 1) / math.sqrt(i) for i, o in pairwise(sizes)
        )
        self.biases = nn.ParameterList(torch.zeros(num_positions, o) for o in sizes[1:])
        with torch.no_grad():
            self.weights[-1].mul_(0.01)  # training starts near the factorised model

    @property
    def output_bias(self) -> Tensor:
        """The biases, (T, P)."""
        return self.biases[-1].data

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return self.input.initial_state(batch_size, context)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state["position"][0]), x.shape[1]
        h, state = self.input(x.flatten(1), state, n)
        h = h.unflatten(1, (n, -1))
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = torch.einsum("bnh,nho->bno", torch.relu(h), weight[start : start + n]) + bias[start : start + n]
        return h, state

    def lower(self, tape: Tape, x: Operand) -> Operand:
        h = tape.lower(self.input, x)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = tape.by_position(tape.activation(h, Act.RELU), weight.transpose(1, 2), bias)
        return h


class NeuralConditionals(AutoregressiveModel):
    """A Bayes net without structure whose conditionals are neural networks that share nothing.

        p(x_t | x_<t) = head(MLP_t(x_<t))

    It has T times the weights of a MADE; NADE and MADE are the same idea with weights shared. One position with a
    context, `NeuralConditionals((1,), encoder=Vector(F))`, is an MLP classifier.

    Args:
        event_shape: the shape of the places of the data.
        head: the values of one place.
        hidden_features: the hidden sizes of each MLP.
        encoder: the context, read by the first layer of each MLP.
        order: the order of the places; row-major if None.

    Reference: Modeling High-Dimensional Discrete Data with Multi-Layer Neural Networks (Bengio, Bengio, 2000).

    Example:
        >>> NeuralConditionals((3,), hidden_features=(4,))().log_prob(torch.ones(2, 3)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: Sequence[int] = (16,),
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        if not hidden_features:
            raise ValueError("hidden_features: expected one size or more, got none")
        context_features = encoder.num_features if encoder else 0
        sizes = (order.length, head.num_features, hidden_features, head.num_params, context_features)
        super().__init__(PositionwiseMLPs(*sizes), head, order, encoder)
