"""What a check is given: a float64 copy of the model, contexts, and data it can produce."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from seriatim.autoregressive import Autoregressive
from seriatim.context import Attributes, Frames, Labels, SpatialMap, Vector
from seriatim.ending import Ending
from seriatim.model import AutoregressiveModel

MAX_ENUMERATED = 20_000


class CheckFailed(AssertionError):
    """A check found the model to be wrong."""


class NotApplicable(Exception):
    """A check has nothing to say about this model; the message says why."""


class Case:
    """A model under test with rows of data and contexts, all in float64.

    Args:
        model: any model; it is copied, and its weights are left alone.
        context: draws B contexts; made for the encoders of `seriatim.context` if None.
        seed: of everything drawn here.
        dtype: of the copy; the native engine works in float32.
    """

    rows = 6

    def __init__(
        self,
        model: AutoregressiveModel,
        context: Callable[[int], Tensor] | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.model = copy.deepcopy(model).to("cpu", dtype).eval()
        self.generator = torch.Generator().manual_seed(seed)
        self._draw_context = context
        self.context = self.contexts(self.rows)
        self.length = self.model.order.length
        self.x = self.distribution(self.rows).sample(seed=seed)
        self.other = self.distribution(self.rows).sample(seed=seed + 1)

    def contexts(self, batch_size: int) -> Tensor | None:
        """Draw B contexts, or None for an unconditional model."""
        require_contexts(self.model, self._draw_context)
        encoder = self.model.encoder
        if self._draw_context is not None:
            return self._draw_context(batch_size)
        if isinstance(encoder, Labels):
            return torch.arange(batch_size) % encoder.num_features
        if isinstance(encoder, Attributes):
            return torch.arange(batch_size)[:, None] % torch.tensor(encoder.sizes)
        if isinstance(encoder, Vector | SpatialMap | Frames):
            places = encoder.shape if isinstance(encoder, SpatialMap) else ()
            places = (-(-self.model.order.length // encoder.hop),) if isinstance(encoder, Frames) else places
            event = (*places, encoder.num_features)
            return torch.randn(batch_size, *event, generator=self.generator, dtype=torch.float64)
        return None

    def distribution(self, batch_size: int, context: Tensor | None = None) -> Autoregressive:
        """Return the distribution of B rows, each with its context."""
        if self.model.encoder is None:
            return self.model().expand((batch_size,))
        context = self.contexts(batch_size) if context is None else context
        return self.model(context)

    @property
    def joint(self) -> Autoregressive:
        """The distribution of the case's own rows and contexts."""
        return self.model(self.context) if self.context is not None else self.model().expand((self.rows,))

    def features(self, x: Tensor) -> Tensor:
        """Return the network's input for data x (B, *event_shape): shifted features (B, T, F)."""
        return self.model.shifted(self.model.order.to_positions(x), self.model.order)

    def outputs(self, x: Tensor) -> Tensor:
        """Return the network's outputs (B, T, P) for data x, in one chunk."""
        y, _ = self.model.network(self.features(x), self.joint.initial_state())
        return y

    def positions(self, x: Tensor) -> Tensor:
        """Return data x in positions (B, T, ...)."""
        return self.model.order.to_positions(x)

    def replaced(self, position: int) -> Tensor:
        """Return x with the value at one position replaced by another possible value."""
        x = self.positions(self.x).clone()
        own, other = x[:, position], self.positions(self.other)[:, position]
        same = ((own == other) | (own.isnan() & other.isnan())).reshape(len(own), -1).all(1)
        same = same.reshape(-1, *[1] * (own.ndim - 1))
        x[:, position] = torch.where(same, self._different(own, position), other)
        return self.model.order.to_data(x)

    def _different(self, value: Tensor, position: int) -> Tensor:
        """Return another value of the support, where two samples agree."""
        head: Any = self.model.head
        if hasattr(head, "another"):
            return head.another(value, int(self.model.order.permutation[position]))
        support = value_support(self.model, position)
        if support is None:
            return value.nan_to_num() + 0.5
        code = torch.tensor(
            [next(i for i, s in enumerate(support) if torch.equal(torch.as_tensor(s), v)) for v in value.unbind(0)]
        )
        return torch.stack([support[(int(i) + 1) % len(support)] for i in code]).to(value.dtype)


def require_contexts(model: AutoregressiveModel, context: Callable[[int], Tensor] | None) -> None:
    """Raise ValueError where a model needs a function that draws its contexts, and there is none."""
    if context is None and not (
        model.encoder is None or isinstance(model.encoder, Labels | Attributes | Vector | SpatialMap | Frames)
    ):
        raise ValueError(f"context: expected a function that draws contexts for {model.encoder}, got None")


def value_support(model: AutoregressiveModel, position: int = 0) -> list[Tensor] | None:
    """List all values that one position can take, or None where they are infinitely or too many."""
    return _values_of(model.head, int(model.order.permutation[position]))


def _values_of(head: Any, place: int) -> list[Tensor] | None:
    """List all values that a head gives to a place of the data, or None."""
    if isinstance(head, Ending):
        inner = _values_of(head.head, place)
        return None if inner is None else [torch.full_like(inner[0], head.mark), *inner]
    if hasattr(head, "values_at"):
        return head.values_at(place)
    inner = getattr(head, "model", None)
    if isinstance(inner, AutoregressiveModel):
        return space(inner)
    support = head.support
    if head.value_shape:
        return _vectors(_listed(getattr(support, "base_constraint", support)), head.value_shape)
    return _listed(support)


def _listed(support: Any) -> list[Tensor] | None:
    """List the numbers that fulfil a constraint, or None where they are infinitely many."""
    if getattr(support, "is_discrete", False) and hasattr(support, "upper_bound"):
        return [torch.tensor(v) for v in range(support.lower_bound, support.upper_bound + 1)]
    if support is constraints.boolean:
        return [torch.tensor(0.0), torch.tensor(1.0)]
    return None


def _vectors(entries: list[Tensor] | None, shape: tuple[int, ...]) -> list[Tensor] | None:
    """List the arrays of a shape with such entries, or None where they are more than 20,000."""
    size = math.prod(shape)
    if entries is None or len(entries) ** size > MAX_ENUMERATED:
        return None
    return [torch.stack(row).reshape(shape) for row in itertools.product(entries, repeat=size)]


def space(model: AutoregressiveModel) -> list[Tensor] | None:
    """List every possible data row, or None if the space is infinite or larger than 20,000."""
    supports = [value_support(model, t) for t in range(model.order.length)]
    if any(s is None for s in supports):
        return None
    lists = [s for s in supports if s is not None]
    if math.prod(len(s) for s in lists) > MAX_ENUMERATED:
        return None
    sequences = torch.stack([torch.stack(row) for row in itertools.product(*lists)])
    return list(model.order.to_data(sequences))
