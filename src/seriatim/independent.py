"""`Independent`: several values at a position, independent of one another given the past."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from seriatim.controls import Controls
from seriatim.distributions import sample_from_torch
from seriatim.engine import loops, samplers
from seriatim.heads import Head

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.samplers import Draw
    from seriatim.engine.tape import Tape


class Independent(Head):
    """Values of another head side by side: 88 notes of a chord, the channels of a recording.

        p(x_t | x_<t) = prod_i p(x_ti | x_<t)

    What the values of one position have to do with one another is lost; `Nested` keeps it.

    Args:
        head: of each value; any but those whose places differ.
        shape: of the values at a position.

    Raises:
        ValueError: a head whose places differ, or no values.

    Example:
        >>> from seriatim.heads import Bernoulli
        >>> notes = Independent(Bernoulli(), (3,))
        >>> notes(torch.zeros(1, 2, 3)).log_prob(torch.ones(1, 2, 3)).exp()
        tensor([[0.1250, 0.1250]])
    """

    def __init__(self, head: Head, shape: Sequence[int]) -> None:
        super().__init__()
        if head.by_place:
            raise ValueError(f"head: expected one distribution for all places, got {head}")
        if not shape or min(shape) < 1:
            raise ValueError(f"shape: expected sizes of 1 or more, got {tuple(shape)}")
        self.head, self.shape, self.count = head, tuple(shape), math.prod(shape)
        self.value_shape = (*self.shape, *head.value_shape)
        self.num_features, self.num_params = self.count * head.num_features, self.count * head.num_params
        self.num_uniforms = self.count * head.num_uniforms
        self.discrete, self.value_dtype = head.discrete, head.value_dtype

    def spread(self, values: Tensor) -> Tensor:
        """Return values (B, n, *value_shape) as positions of the inner head, (B, n D, ...)."""
        return values.reshape(values.shape[0], -1, *self.head.value_shape)

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return self.head.encode(self.spread(values)).reshape(*values.shape[:2], self.num_features)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> SideBySide:
        return SideBySide(self, self.head(params.unflatten(-1, (self.count, self.head.num_params))))

    @property
    def tape_width(self) -> int:
        """How many numbers its sampler on a tape writes."""
        return self.count * samplers.width(self.head)

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape: that of the inner head, value by value."""
        loops.independent(tape, self.head, self.count, params, place)

    def from_tape(self, numbers: Tensor, variables: Tensor) -> Tensor:
        """Return the values (B, n, *value_shape) whose numbers (B, n, width) the sampler wrote."""
        batch, n = numbers.shape[:2]
        inner = numbers.reshape(batch, n * self.count, samplers.width(self.head))
        return samplers.values(self.head, inner, variables).reshape(batch, n, *self.value_shape)

    @property
    def support(self) -> Any:
        return constraints.independent(self.head.support, len(self.shape))

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        inner = values.reshape(values.shape[0], -1, *self.head.value_shape)
        return self.head.marginal_params(inner).reshape(values.shape[1], self.num_params)

    def extra_repr(self) -> str:
        return f"{self.head}, {self.shape}"


class SideBySide(td.Distribution):
    """Independent values of one position.

    Args:
        head: whose values these are.
        values: the distribution of each, batch shape (..., D).

    Example:
        >>> from seriatim.heads import Bernoulli
        >>> Independent(Bernoulli(), (2,))(torch.zeros(1, 1, 2)).from_uniforms(torch.tensor([[[0.4, 0.6]]]).double())
        tensor([[[0., 1.]]])
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, head: Independent, values: Any) -> None:
        self.head, self.values, self.num_uniforms = head, values, head.num_uniforms
        super().__init__(values.batch_shape[:-1], torch.Size(head.value_shape), validate_args=False)

    @property
    def support(self) -> Any:
        return self.head.support

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p in nats, in the dtype of the parameters."""
        lead = value.shape[: value.ndim - len(self.head.value_shape)]
        own: Tensor = self.log_prob_terms(value).reshape(*lead, self.head.count).sum(-1)
        return own

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Return log p of each value in nats, (*lead, *shape)."""
        lead = value.shape[: value.ndim - len(self.head.value_shape)]
        inner = value.reshape(*lead, self.head.count, *self.head.head.value_shape)
        own: Tensor = self.values.log_prob(inner)
        return own.reshape(*lead, *self.head.shape)

    def controlled(self, controls: Controls) -> SideBySide:
        """Return what is sampled under controls of each value.

        Raises:
            ValueError: values that are not finitely many.
        """
        return SideBySide(self.head, controls.apply(self.values))

    def from_uniforms(self, u: Tensor) -> Tensor:
        """Turn uniforms (*batch_shape, num_uniforms) into values."""
        own: Tensor = self.values.from_uniforms(u.unflatten(-1, (self.head.count, self.head.head.num_uniforms)))
        return own.reshape(*u.shape[:-1], *self.head.value_shape)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return sample_from_torch(self, sample_shape)
