"""`Columns`: the head of mixed tables, one distribution for each column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints
from torch.nn import functional as F

from seriatim import distributions as d
from seriatim.engine import samplers
from seriatim.engine.operands import CannotLower, Op
from seriatim.heads import Head, mixture_marginal

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.samplers import Draw
    from seriatim.engine.tape import Tape

KINDS = ("categorical", "integer", "continuous")


class Columns(Head):
    """Categories, whole numbers and real numbers side by side, with missing and unseen values as symbols.

        log p(v) = log P(symbol)                         if v is a category, "unseen", missing or an atom
        log p(v) = log P(number) + log p(v | number)     else

    A number has a mixture of M logistics: its mass on the bin of v for whole numbers, its density for real ones. The
    base measure is counting for symbols and whole numbers and the column's own unit for real numbers; `log_units`
    converts to units of the training standard deviation.

    Values are float64: a category is its code 0..K-1, K stands for an unseen one, NaN for missing. All columns share
    one layout of features and parameters, as wide as the widest.

    Args:
        columns: for each a mapping with `kind`; `num_categories` (categorical); `mean`, `std` and optionally `atoms`
            and `resolution` (numbers).
        num_components: M.

    Raises:
        ValueError: an unknown kind, or a number of categories or a standard deviation that is not positive.

    Example:
        >>> head = Columns([{"kind": "categorical", "num_categories": 2}, {"kind": "continuous", "mean": 0, "std": 1}])
        >>> rows = torch.tensor([[1.0, 0.3], [torch.nan, torch.nan]], dtype=torch.float64)
        >>> p = head(torch.zeros(2, 2, head.num_params), torch.arange(2))
        >>> p.log_prob(rows).shape
        torch.Size([2, 2])
    """

    num_uniforms = 3
    value_dtype = torch.float64
    by_place = True
    mean: Tensor
    std: Tensor
    min_scale: Tensor
    whole: Tensor
    numeric: Tensor
    symbols: Tensor
    real: Tensor

    def __init__(self, columns: Sequence[Mapping[str, Any]], num_components: int = 10) -> None:
        super().__init__()
        if not columns:
            raise ValueError("columns: expected one or more, got none")
        for index, column in enumerate(columns):
            _check(index, column)
        self.columns = [dict(column) for column in columns]
        self.discrete = all(column["kind"] != "continuous" for column in columns)
        self.num_components = num_components if any(c["kind"] != "categorical" for c in columns) else 0
        # Symbols of a column, in order: its categories and "unseen", or its atoms; then missing; then "a number".
        lists = [[*_symbols(column), math.nan] for column in self.columns]
        numeric = [column["kind"] != "categorical" for column in self.columns]
        self.num_slots = max(len(own) + is_number for own, is_number in zip(lists, numeric, strict=True))
        table = torch.full((len(columns), self.num_slots), math.inf, dtype=torch.float64)
        real = torch.zeros(len(columns), self.num_slots, dtype=torch.bool)
        for row, own in enumerate(lists):
            table[row, : len(own)] = torch.tensor(own, dtype=torch.float64)
            real[row, : len(own) + numeric[row]] = True
        self.register_buffer("symbols", table, persistent=False)
        self.register_buffer("real", real, persistent=False)
        self.register_buffer("numeric", torch.tensor(numeric), persistent=False)
        self.register_buffer("whole", torch.tensor([c["kind"] == "integer" for c in columns]), persistent=False)
        for name, default in (("mean", 0.0), ("std", 1.0)):
            values = torch.tensor([float(c.get(name) or default) for c in columns], dtype=torch.float64)
            self.register_buffer(name, values, persistent=False)
        # Rounded values would let a density grow without bound: it is no narrower than a quarter of their gap.
        gaps = torch.tensor([float(c.get("resolution") or 0.0) for c in columns], dtype=torch.float64)
        least = torch.where(self.whole, 1e-3, (0.25 * gaps / self.std).clamp_min(1e-3))
        self.register_buffer("min_scale", least, persistent=False)
        self.num_features = self.num_slots + (2 if self.num_components else 0)
        self.num_params = self.num_slots + 3 * self.num_components

    @classmethod
    def of(cls, schema: Any, num_components: int = 10) -> Columns:
        """Make the head of a table's schema (`seriatim.data.Schema`, or anything with the same attributes)."""
        columns = []
        for column in schema.columns:
            if column.kind == "categorical":
                columns.append({"kind": "categorical", "num_categories": max(1, column.num_categories)})
                continue
            own = {"kind": column.kind, "mean": column.mean or 0.0, "std": column.std or 1.0}
            if column.kind == "continuous":
                own |= {"atoms": list(column.atoms), "resolution": column.resolution or 0.0}
            columns.append(own)
        return cls(columns, num_components)

    @property
    def log_units(self) -> Tensor:
        """What to add to a row's log p to measure real columns in units of their training standard deviation."""
        return self.std.log()[self.numeric & ~self.whole].sum()

    def slots(self, values: Tensor, variables: Tensor) -> Tensor:
        """Return the index of each value's symbol, or of "a number", among the slots of its column."""
        table = self.symbols[variables]
        same = (values[..., None] == table) | (values[..., None].isnan() & table.isnan())
        number = self.real[variables].sum(-1) - 1
        return torch.where(same.any(-1), same.to(torch.int8).argmax(-1), number.expand(values.shape))

    def standardised(self, values: Tensor, variables: Tensor) -> Tensor:
        """Return numbers in standard deviations from the mean of their column, 0 for symbols."""
        z = (values - self.mean[variables]) / self.std[variables]
        is_number = self.slots(values, variables) == self.real[variables].sum(-1) - 1
        return torch.where(is_number & self.numeric[variables], z, 0.0)

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        variables = self._named(variables)
        one_hot = F.one_hot(self.slots(values, variables), self.num_slots).to(values.dtype)
        if not self.num_components:
            return one_hot
        z = self.standardised(values, variables)[..., None]
        # Two views of a number: linear near the middle, logarithmic far out.
        return torch.cat([one_hot, z.clamp(-4, 4), torch.asinh(z)], dim=-1)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> ColumnValues:
        return ColumnValues(self, params, self._named(variables))

    @property
    def tape_width(self) -> int:
        """How many numbers its sampler on a tape writes: the symbol, and the number."""
        return 2

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape.

        Raises:
            CannotLower: whole numbers of which some are symbols.
        """
        if bool((self.whole & (self.symbols.isfinite().any(-1))).any()):
            raise CannotLower("whole numbers of which some are atoms have no tape form")
        number = torch.where(self.numeric, self.real.sum(-1) - 1, -1)
        plain = torch.stack([self.real.sum(-1), number, self.whole], dim=-1).float()
        scales = torch.stack([self.mean, self.std, self.min_scale], dim=-1)
        constants = torch.cat([plain, samplers.exact(scales).flatten(1)], dim=1)[tape.variables]
        sizes = self.num_slots, self.num_components
        samplers.sample(tape, Op.COLUMN, params, place, *sizes, constants=tape.table(constants))

    def from_tape(self, numbers: Tensor, variables: Tensor) -> Tensor:
        """Return the values (B, n) whose symbols and numbers (B, n, 2) the sampler wrote."""
        slots, table = numbers[..., 0].long(), self.symbols[variables]
        value = table.expand(*slots.shape, -1).gather(-1, slots[..., None]).squeeze(-1)
        is_number = self.numeric[variables] & (slots == self.real[variables].sum(-1) - 1)
        return torch.where(is_number, numbers[..., 1], value)

    def _named(self, variables: Tensor | None) -> Tensor:
        if variables is None:
            raise ValueError("variables: expected the column of each position, got None")
        return variables.to(self.mean.device)

    @property
    def support(self) -> Any:
        return _Rows(self)

    def another(self, values: Tensor, place: int) -> Tensor:
        """Return another possible value of a column than the given ones, for tests."""
        if self.numeric[place]:
            return torch.where(values.isnan(), 0.0, values + 1)
        return torch.where(values.isnan(), 0.0, (values + 1) % self.columns[place]["num_categories"])

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        variables = self._named(variables)
        slots = self.slots(values, variables)
        counts = F.one_hot(slots, self.num_slots).sum(0) + 0.5
        logits = (counts / counts.sum(-1, keepdim=True)).log()
        if not self.num_components:
            return logits
        z = self.standardised(values, variables)
        parts = [logits]
        fitted = [self._marginal_of(z[:, j], slots[:, j], int(v)) for j, v in enumerate(variables)]
        parts += [torch.stack(part) for part in zip(*fitted, strict=True)]
        return torch.cat(parts, dim=-1)

    def _marginal_of(self, z: Tensor, slots: Tensor, variable: int) -> tuple[Tensor, Tensor, Tensor]:
        own = z[slots == self.real[variable].sum() - 1]
        own = own if len(own) and self.numeric[variable] else z.new_tensor([-1.0, 0.0, 1.0])
        logits, loc, log_scale = mixture_marginal(own[:, None], self.num_components)
        return logits[0], loc[0], log_scale[0] - math.log(math.pi / math.sqrt(3))

    def extra_repr(self) -> str:
        kinds = [column["kind"] for column in self.columns]
        return ", ".join(f"{kinds.count(kind)} {kind}" for kind in KINDS if kind in kinds)


class ColumnValues(td.Distribution):
    """The values of columns: a symbol, or a number with a mixture of logistics.

    Args:
        head: the columns.
        params: (..., n, P).
        variables: (n,) the column of each position.

    Example:
        >>> head = Columns([{"kind": "integer", "mean": 3.0, "std": 2.0}])
        >>> p = head(torch.zeros(1, head.num_params), torch.tensor([0]))
        >>> bool((p.total_mass() - 1).abs() < 1e-6)
        True
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False
    num_uniforms = 3

    def __init__(self, head: Columns, params: Tensor, variables: Tensor) -> None:
        self.head, self.variables = head, variables
        logits = params[..., : head.num_slots].masked_fill(~head.real[variables], -torch.inf)
        self.symbol = d.Categorical(logits=logits, validate_args=False)
        self.centre, self.unit = head.mean[variables], head.std[variables]
        self.whole, self.numeric = head.whole[variables], head.numeric[variables]
        self.number_slot = head.real[variables].sum(-1) - 1
        if head.num_components:
            weights, loc, log_scale = params[..., head.num_slots :].chunk(3, dim=-1)
            scale = log_scale.clamp(max=30.0).exp() + head.min_scale[variables, None]
            self.weights = weights
            # In the columns' own units.
            self.loc = self.centre[:, None] + self.unit[:, None] * loc
            self.scale = self.unit[:, None] * scale
        super().__init__(params.shape[:-1], validate_args=False)

    @property
    def support(self) -> Any:
        return _Rows(self.head)

    @property
    def _density(self) -> d.Mixture:
        return d.Mixture(self.weights, d.Logistic(self.loc, self.scale, validate_args=False), validate_args=False)

    @property
    def _mass(self) -> d.Mixture:
        parts = d.QuantizedLogistic(self.loc, self.scale, validate_args=False)
        return d.Mixture(self.weights, parts, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p in nats, in the dtype of the parameters."""
        slots = self.head.slots(value, self.variables)
        log_p = self.symbol.log_prob(slots)
        if not self.head.num_components:
            return log_p
        is_number = self.numeric & (slots == self.number_slot)
        number = torch.where(is_number, value, self.centre)
        log_number = torch.where(self.whole, self._mass.log_prob(number), self._density.log_prob(number))
        return log_p + torch.where(is_number, log_number, 0.0).to(log_p.dtype)

    def from_uniforms(self, u: Tensor) -> Tensor:
        """Turn uniforms (..., n, 3) into values: the symbol, then a number's component, then the number."""
        slots = self.symbol.from_uniforms(u[..., :1])
        table = self.head.symbols[self.variables].expand(*slots.shape, -1)
        value = table.gather(-1, slots[..., None]).squeeze(-1)
        if not self.head.num_components:
            return value
        real = self._density.from_uniforms(u[..., 1:])
        number = torch.where(self.whole, torch.floor(real + 0.5), real)
        return torch.where(self.numeric & (slots == self.number_slot), number, value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return d.sample_from_torch(self, sample_shape)

    def randomized_cdf(self, value: Tensor) -> Tensor:
        """Return F(v), drawn uniformly over the jump where v has a mass: uniform if v follows the distribution."""
        slots = self.head.slots(value, self.variables)
        probabilities = self.symbol.probs.expand(*slots.shape, -1)
        mass = probabilities.gather(-1, slots[..., None]).squeeze(-1)
        below = probabilities.cumsum(-1).gather(-1, slots[..., None]).squeeze(-1) - mass
        inside = torch.rand(slots.shape, dtype=mass.dtype)
        if self.head.num_components:
            is_number = self.numeric & (slots == self.number_slot)
            number = torch.where(is_number, value, self.centre)
            low, high = self._density.cdf(number - 0.5), self._density.cdf(number + 0.5)
            within = torch.where(self.whole, low + inside * (high - low), self._density.cdf(number))
            inside = torch.where(is_number, within, inside)
        return below + mass * inside

    def total_mass(self) -> Tensor:
        """Return the probability of all symbols plus that of all numbers, summed or integrated."""
        table = self.head.symbols[self.variables]
        total = torch.zeros(self.batch_shape, dtype=torch.float64)
        for slot in range(table.shape[-1]):
            values = table[:, slot].expand(self.batch_shape)
            total = total + torch.where(values.isinf(), 0.0, self.log_prob(values).exp())
        if self.head.num_components:
            total = total + torch.where(self.numeric, self._mass_of_numbers(), 0.0)
        return total

    def _mass_of_numbers(self) -> Tensor:
        z = torch.sinh(torch.linspace(-1, 1, 2001, dtype=torch.float64) * 5) / math.sinh(5) * 60
        grid = (self.loc[..., None] + self.scale[..., None] * z).flatten(-2).sort(-1).values.movedim(-1, 0)
        p_number = self.symbol.probs.gather(-1, self.number_slot.expand(self.batch_shape)[..., None]).squeeze(-1)
        integral = torch.trapezoid(self._density.log_prob(grid).exp(), grid, dim=0)
        reach = float((self.scale.amax() * 40).clamp(max=20_000)) if bool(self.whole.any()) else 0.0
        steps = torch.arange(-reach, reach + 1, dtype=torch.float64).reshape(-1, *[1] * len(self.batch_shape))
        middle = self.loc.mean(-1).round()
        summed = self._mass.log_prob(middle + steps).exp().sum(0)
        return p_number * torch.where(self.whole, summed, integral)


class _Rows(constraints.Constraint):
    """Rows of a table: codes, whole numbers, finite numbers, and NaN for missing."""

    is_discrete = False
    event_dim = 0

    def __init__(self, head: Columns) -> None:
        self.head = head
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        numeric, whole = self.head.numeric, self.head.whole
        last = torch.tensor([float(c.get("num_categories", 0)) for c in self.head.columns], device=value.device)
        integral = value == value.floor()
        code = integral & (value >= 0) & (value <= last)
        number = value.isfinite() & (integral | ~whole)
        return value.isnan() | torch.where(numeric, number, code)

    def __repr__(self) -> str:
        return "a code, a whole number, a finite number or NaN (missing), as its column says"


def _check(index: int, column: Mapping[str, Any]) -> None:
    if column.get("kind") not in KINDS:
        raise ValueError(f"columns[{index}]: expected a kind among {', '.join(KINDS)}, got {column.get('kind')!r}")
    if column["kind"] == "categorical":
        if int(column.get("num_categories", 0)) < 1:
            raise ValueError(f"columns[{index}]: expected num_categories >= 1, got {column.get('num_categories')}")
    elif not float(column.get("std", 0.0)) > 0:
        raise ValueError(f"columns[{index}]: expected std > 0, got {column.get('std')}")


def _symbols(column: Mapping[str, Any]) -> list[float]:
    if column["kind"] == "categorical":
        return [float(code) for code in range(int(column["num_categories"]) + 1)]
    return [float(atom) for atom in column.get("atoms") or ()]
