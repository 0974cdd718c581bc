"""Symbols whose number differs from place to place, with or without missing ones: the values of Bayes nets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import constraints

from seriatim import distributions as d
from seriatim.controls import Controls
from seriatim.engine import samplers
from seriatim.heads import Head

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.samplers import Draw
    from seriatim.engine.tape import Tape


class Symbols(Head):
    """Symbols whose number differs from place to place, read as their codes 0..K_d-1.

    Args:
        arities: K_d of each place, in row-major order.
        event_shape: the shape of the places; (D,) if None.

    Example:
        >>> Symbols([2, 3]).support.check(torch.tensor([[1, 2], [2, 2]]))
        tensor([[ True,  True],
                [False,  True]])
    """

    value_dtype = torch.int64
    by_place = True

    def __init__(self, arities: Sequence[int], event_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        if not arities or min(arities) < 1:
            raise ValueError(f"arities: expected one positive number or more, got {list(arities)[:8]}")
        self.arities = [int(k) for k in arities]
        self.num_params = max(self.arities)
        self._limits = torch.tensor(self.arities).reshape(tuple(event_shape or (len(self.arities),)))

    def codes(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        """Return the codes of values, int64; of whole rows (N, *event_shape) where no variables are named."""
        return values.long()

    def values(self, codes: Tensor) -> Tensor:
        """Return the values of codes (N, *event_shape), the inverse of `codes`."""
        return codes

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return self.codes(values, variables).to(torch.get_default_dtype())[..., None]

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Categorical:
        return d.Categorical(logits=self._masked(params, variables), validate_args=False)

    def _masked(self, params: Tensor, variables: Tensor | None) -> Tensor:
        if variables is None:
            return params
        # A network that knows nothing of arities gives all places equally many logits.
        beyond = torch.arange(self.num_params, device=params.device) >= self._arity(variables, params)[:, None]
        return params.masked_fill(beyond, -torch.inf)

    def _arity(self, variables: Tensor | None, like: Tensor) -> Tensor:
        limits = self._limits if variables is None else self._limits.flatten()[variables.cpu()]
        return limits.to(like.device)

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape."""
        samplers.categories(tape, self.num_params, params, place, counts=self._limits.flatten()[tape.variables])

    def from_tape(self, numbers: Tensor, variables: Tensor) -> Tensor:
        """Return the values (B, n) whose codes (B, n, 1) the sampler wrote."""
        return numbers[..., 0].long()

    @property
    def support(self) -> Any:
        return _Codes(self._limits)

    def values_at(self, place: int) -> list[Tensor]:
        """Return the values that one place can take."""
        return list(torch.arange(self.arities[place]))

    def extra_repr(self) -> str:
        return f"{len(self.arities)} places, {min(self.arities)} to {max(self.arities)} values"


class _Codes(constraints.Constraint):
    is_discrete = True
    event_dim = 0

    def __init__(self, limits: Tensor, *, or_missing: bool = False) -> None:
        self.limits, self.or_missing = limits, or_missing
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        code = (value >= 0) & (value < self.limits.to(value.device)) & (value == value.floor())
        return code | value.isnan() if self.or_missing else code

    def __repr__(self) -> str:
        missing = ", or NaN (missing)" if self.or_missing else ""
        return f"codes from 0 to the arity of their place less 1 (at most {int(self.limits.max()) - 1}){missing}"


class SymbolsOrMissing(Symbols):
    """Symbols of a table, the last of each place for a missing value: NaN in the data, as in `Columns`.

    Example:
        >>> head = SymbolsOrMissing([3, 3])
        >>> head.codes(torch.tensor([[1.0, torch.nan]]))
        tensor([[1, 2]])
    """

    value_dtype = torch.float64

    def codes(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return torch.where(values.isnan(), self._arity(variables, values) - 1, values).long()

    def values(self, codes: Tensor) -> Tensor:
        return codes.double().masked_fill(codes == self._arity(None, codes) - 1, torch.nan)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Categorical:
        return _OrMissing(self._masked(params, variables), self._arity(variables, params) - 1)

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape."""
        super().lower(tape, params, place)

    def from_tape(self, numbers: Tensor, variables: Tensor) -> Tensor:
        """Return the values (B, n) whose codes (B, n, 1) the sampler wrote."""
        codes = numbers[..., 0]
        return codes.masked_fill(codes == self._arity(variables, codes) - 1, torch.nan)

    @property
    def support(self) -> Any:
        return _Codes(self._limits - 1, or_missing=True)

    def values_at(self, place: int) -> list[Tensor]:
        return [*torch.arange(self.arities[place] - 1).double(), torch.tensor(torch.nan, dtype=torch.float64)]

    def another(self, values: Tensor, place: int) -> Tensor:
        """Return another possible value of a place than the given ones, for tests."""
        return torch.where(values.isnan(), 0.0, (values + 1) % (self.arities[place] - 1))


class _OrMissing(d.Categorical):
    """Codes of which the last of each place is given and drawn as NaN."""

    def __init__(self, logits: Tensor, last: Tensor) -> None:
        self._last = last
        super().__init__(logits=logits, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(torch.where(value.isnan(), self._last, value))

    def controlled(self, controls: Controls) -> _OrMissing:
        return _OrMissing(controls.truncated(controls.log_masses(self)), self._last)

    def from_uniforms(self, u: Tensor) -> Tensor:
        codes = super().from_uniforms(u)
        return codes.double().masked_fill(codes == self._last, torch.nan)

    def randomized_cdf(self, value: Tensor) -> Tensor:
        """Return F(v), drawn uniformly over the jump at v."""
        codes = torch.where(value.isnan(), self._last, value).long()[..., None]
        probs = self.probs.expand(*codes.shape[:-1], -1)
        mass = probs.gather(-1, codes).squeeze(-1)
        return probs.cumsum(-1).gather(-1, codes).squeeze(-1) - mass * torch.rand(mass.shape, dtype=mass.dtype)
