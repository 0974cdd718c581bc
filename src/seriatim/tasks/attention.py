"""`attention_maps`: where a Transformer looked while it read a sequence, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim.autoregressive import evaluating
from seriatim.ending import Ending
from seriatim.layers.attention import Attention, CrossAttention, SelfAttention, attention_weights
from seriatim.model import AutoregressiveModel


class AttentionMaps(NamedTuple):
    """Attention weights: each row sums to 1.

    Attributes:
        target: (L, heads, n, n), of position t, which says what comes as x_t, on what was read: the start, x_1, ...
        cross: (L, heads, n, S), of position t on the source; None without a source.
        source: (L', heads, S, S), of the symbols of the source on one another; None without a source.
        log_prob: log p(x | c) of what was read, in nats, the end among it.
    """

    target: np.ndarray
    cross: np.ndarray | None
    source: np.ndarray | None
    log_prob: float

    @property
    def named(self) -> dict[str, np.ndarray]:
        """The maps there are, by name."""
        own = {"cross": self.cross, "target": self.target, "source": self.source}
        return {name: maps for name, maps in own.items() if maps is not None}


@torch.no_grad()
def attention_maps(model: AutoregressiveModel, values: Any, context: Tensor | None = None) -> AttentionMaps:
    """Read one sequence, and return what its attention layers weighed it and its source by.

        a_ts = softmax_s(q_t . k_s / sqrt(d)),    of each head of each layer

    The weights are those of the one pass that scores the sequence.

    Args:
        model: with attention, of positions one after another (`Transformer`).
        values: (n,) the sequence; its end, where the model has one, is read too, so that there are n + 1 positions.
        context: what it is conditioned on, (*context event).

    Raises:
        ValueError: a model without attention or in another order, or values that do not fit.

    Example:
        >>> from seriatim.heads import Tokens
        >>> from seriatim.models import Transformer
        >>> model = Transformer((5,), Tokens(7), hidden_features=8, num_layers=3, num_heads=2)
        >>> attention_maps(model, [1, 6, 0, 2]).target.shape
        (3, 2, 4, 4)
    """
    if len(model.order.shape) != 1 or not model.order.is_natural:
        raise ValueError(f"model: expected positions one after another, got {model.order}")
    x = torch.as_tensor(np.asarray(values))
    if x.ndim != 1:
        raise ValueError(f"values: expected one sequence (n,), got shape {tuple(x.shape)}")
    x = x if x.is_floating_point() else x.long()
    if isinstance(model.head, Ending):
        x = torch.cat([x, x.new_full((1,), model.head.mark)])
    if not len(x):
        raise ValueError("values: expected one value or more, got none")
    with evaluating(model), attention_weights(model) as found:
        joint = model(None if context is None else context[None], length=len(x))
        log_prob = float(joint.log_prob(x[None] if joint.batch_shape else x))
    if not any(isinstance(layer, SelfAttention) for layer, _ in found):
        raise ValueError(f"model: expected attention layers, got {type(model).__name__} without one")
    target, cross = _stacked(found, SelfAttention), _stacked(found, CrossAttention)
    others = [(layer, weights) for layer, weights in found if not isinstance(layer, SelfAttention | CrossAttention)]
    assert target is not None
    return AttentionMaps(target, cross, _stacked(others, object), log_prob)


def _stacked(found: Sequence[tuple[Attention, Tensor]], kind: type) -> np.ndarray | None:
    """The weights of the layers of a kind, (L, heads, n, S)."""
    own = [weights[0].float().cpu().numpy() for layer, weights in found if isinstance(layer, kind)]
    return np.stack(own) if own else None
