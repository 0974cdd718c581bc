"""Heads on the tape: each lowers its own sampling, the one transform from uniforms to a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seriatim import heads
from seriatim.controls import EXACT, TIE, Controls
from seriatim.engine.operands import CannotLower, Family, Finite, Instruction, Op, Operand
from seriatim.engine.tape import Tape, describes


@dataclass(frozen=True)
class Draw:
    """Where a sampler finds its noise, and puts what it draws.

    Attributes:
        read: what the network reads of the value at the next position.
        lane: the first lane of the noise.
        column: the first of the value's numbers among those of the position.
        ended: for which rows nothing is drawn, as 0 or 1.
        controls: under which values are drawn.
    """

    read: Operand
    lane: int = 0
    column: int = 0
    ended: Operand | None = None
    controls: Controls = EXACT

    def after(self, lanes: int, read: Operand, ended: Operand) -> Draw:
        """Return it for a value that takes so many lanes less, and is drawn only where a sequence has not ended."""
        return replace(self, read=read, lane=self.lane + lanes, ended=ended)


def draw(tape: Tape, head: heads.Head, params: Operand, place: Draw) -> None:
    """Append the sampler of a head.

    Raises:
        CannotLower: it has none.
    """
    own = getattr(head, "lower", None)
    if not place.controls.neutral and type(head) in _FINITE:
        controlled(tape, values_of(head, place), params, place)
    elif type(head) in _SAMPLERS:
        _SAMPLERS[type(head)](tape, head, params, place)
    elif own is not None and describes(type(head), "forward", "encode"):
        own(tape, params, place)
    else:
        raise CannotLower(f"the {type(head).__name__} head has no sampler on the tape")


def width(head: heads.Head) -> int:
    """Return how many numbers the sampler of a head writes at a position."""
    return int(getattr(head, "tape_width", torch.Size(head.value_shape).numel()))


def values(head: heads.Head, numbers: Tensor, variables: Tensor) -> Tensor:
    """Return the values (B, n, *value_shape) whose numbers (B, n, width) a sampler wrote, in the dtype of the data."""
    own = getattr(head, "from_tape", None)
    if own is not None:
        found: Tensor = own(numbers, variables)
        return found
    return numbers.reshape(*numbers.shape[:2], *head.value_shape).to(head.value_dtype or torch.float32)


def is_one_hot(head: heads.Head) -> bool:
    """Whether a network reads one-hot vectors: of categories, or of the end beside them."""
    return bool(getattr(head, "is_one_hot", type(head) is heads.Categorical))


def offset(head: heads.Head) -> int:
    """Return what is added to a symbol that is read."""
    return int(type(getattr(head, "head", head)) is heads.Tokens)


def sample(tape: Tape, op: Op, params: Operand, place: Draw, *numbers: int, constants: Operand | None = None) -> None:
    """Append a sampler instruction, of a value without controls.

    Args:
        tape: where to.
        op: the sampler.
        params: the head's parameters.
        place: where it finds its noise, and puts what it draws.
        numbers: two: the number of categories or components, and what else the sampler needs.
        constants: what it needs besides.

    Raises:
        CannotLower: there are controls.
    """
    if not place.controls.neutral:
        raise CannotLower(f"controls of a {op.name} sampler have no tape form")
    others = [params if operand is None else operand for operand in (constants, place.ended)]
    full = (*numbers, place.lane, place.column, int(place.ended is not None), int(constants is not None))
    tape.instructions.append(Instruction(op, [place.read], [params, *others], full))


def categories(
    tape: Tape, count: int, params: Operand, place: Draw, *, offset: int = 0, counts: Tensor | None = None
) -> None:
    """Append a sampler of categories that are read as numbers.

    Args:
        tape: where to.
        count: how many categories there are at most.
        params: their logits.
        place: where noise is found and values are put.
        offset: what is added to a category that is read.
        counts: (T,) how many there are at each position.
    """
    if not place.controls.neutral:
        controlled(tape, Values(Finite.LOGITS, count, offset=offset), params, place, counts=counts)
    else:
        constants = None if counts is None else tape.table(counts[:, None].float())
        sample(tape, Op.CATEGORICAL, params, place, count, offset, constants=constants)


@dataclass(frozen=True)
class Values:
    """Finitely many values 0..K-1.

    Attributes:
        kind: how parameters give their probabilities.
        count: K.
        num_components: M of a mixture.
        offset: what is added to a value that is read.
        half_range: of values that are read as x / half_range - 1; 0 for others.
        min_scale: of a mixture.
    """

    kind: Finite
    count: int
    num_components: int = 0
    offset: int = 0
    half_range: float = 0.0
    min_scale: float = 0.0


def values_of(head: heads.Head, place: Draw) -> Values:
    """Return the values of a head that controls can cut natively.

    Raises:
        CannotLower: there are none.
    """
    if type(head) is heads.Bernoulli:
        return Values(Finite.BIT, 2)
    if type(head) is heads.Categorical and place.read.one_hot:
        return Values(Finite.LOGITS, head.num_categories)
    if type(head) is heads.Tokens:
        return Values(Finite.LOGITS, head.num_categories, offset=1)
    if type(head) is heads.QuantizedMixtureOfLogistics:
        sizes = head.levels, head.num_components
        return Values(Finite.LEVELS, *sizes, half_range=head.half_range, min_scale=head.min_scale)
    raise CannotLower(f"controls of the {type(head).__name__} head have no tape form")


def controlled(
    tape: Tape,
    values: Values,
    params: Operand,
    place: Draw,
    *,
    counts: Tensor | None = None,
    ended: Operand | None = None,
    certain: bool = False,
) -> None:
    """Append the sampler of one of finitely many values, or the end, under controls.

    Args:
        tape: where to.
        values: which there are.
        params: what gives their probabilities; with an end s comes first.
        place: where noise is found and values are put.
        counts: (T,) how many values there are at each position; K if None.
        ended: where it is put whether the sequence ends here, 0 or 1; None where there is no end.
        certain: whether s is infinite after an end.

    Raises:
        CannotLower: a number of the controls that three float32 numbers do not hold.
    """
    own, none = place.controls, 2.0
    enough = none if own.top_p in (None, 1) else own.top_p - TIE
    least = math.log(own.min_p) - TIE if own.min_p else none
    numbers = torch.tensor([own.temperature, enough, least], dtype=torch.float64)
    held = exact(numbers)
    if not torch.equal(held.double().sum(-1), numbers):
        raise CannotLower(f"{own} has no tape form")
    top_k = 0 if own.top_k is None else min(own.top_k, values.count + 1)
    shape = [values.min_scale, values.half_range, values.kind, values.count, values.offset, top_k]
    table = torch.cat([torch.tensor(shape), held.flatten()])
    if counts is not None:
        table = table.repeat(len(counts), 1)
        table[:, 3] = counts
    writes = [place.read, place.read if ended is None else ended]
    constants = tape.weight(table) if counts is None else tape.table(table)
    ending = 0 if ended is None else 1 + int(certain)
    full = (values.count, values.num_components, place.lane, place.column, ending)
    tape.instructions.append(Instruction(Op.CONTROLLED, writes, [params, constants], full))


def exact(numbers: Tensor) -> Tensor:
    """Return float64 numbers (...) as three float32 numbers each that add up to them, (..., 3)."""
    parts, left = [], numbers.double()
    for _ in range(3):
        parts.append(left.float())
        left = left - parts[-1].double()
    return torch.stack(parts, dim=-1)


Sampler = Callable[[Tape, Any, Operand, Draw], None]


def _bernoulli(tape: Tape, head: heads.Bernoulli, params: Operand, place: Draw) -> None:
    sample(tape, Op.BERNOULLI, params, place, 1, 0)


def _categorical(tape: Tape, head: heads.Categorical, params: Operand, place: Draw) -> None:
    if not place.read.one_hot:
        raise CannotLower("one-hot vectors beside other features have no tape form")
    sample(tape, Op.CATEGORICAL, params, place, head.num_categories, 0)


def _tokens(tape: Tape, head: heads.Tokens, params: Operand, place: Draw) -> None:
    categories(tape, head.num_categories, params, place, offset=1)


def _widening(head: heads.Head, place: Draw) -> tuple[float, Draw]:
    """Return by how much a temperature widens a normal distribution, and the place without it."""
    if place.controls != Controls(place.controls.temperature):
        raise CannotLower(f"{place.controls} of the {type(head).__name__} head have no tape form")
    return math.sqrt(place.controls.temperature), replace(place, controls=EXACT)


def _real(family: Family) -> Sampler:
    def append(tape: Tape, head: Any, params: Operand, place: Draw) -> None:
        factor = 1.0
        if type(head) is heads.Normal:
            factor, place = _widening(head, place)
        numbers = [head.min_scale, getattr(head, "half_range", 0.0), getattr(head, "levels", 0), factor]
        constants = tape.weight(torch.tensor(numbers))
        sample(tape, Op.REAL, params, place, getattr(head, "num_components", 0), family, constants=constants)

    return append


def _vector(tape: Tape, head: heads.MultivariateNormal, params: Operand, place: Draw) -> None:
    factor, place = _widening(head, place)
    constants = tape.weight(torch.tensor([head.min_scale, factor]))
    sample(tape, Op.VECTOR, params, place, head.num_dimensions, 0, constants=constants)


_SAMPLERS: dict[type[heads.Head], Sampler] = {
    heads.Bernoulli: _bernoulli,
    heads.Categorical: _categorical,
    heads.Tokens: _tokens,
    heads.Normal: _real(Family.NORMAL),
    heads.Logistic: _real(Family.LOGISTIC),
    heads.MixtureOfNormals: _real(Family.NORMAL),
    heads.MixtureOfLogistics: _real(Family.LOGISTIC),
    heads.QuantizedMixtureOfLogistics: _real(Family.QUANTIZED_LOGISTIC),
    heads.MultivariateNormal: _vector,
}
"""Heads by exact class: a subclass may encode or sample otherwise."""

_FINITE = {heads.Bernoulli, heads.Categorical, heads.Tokens, heads.QuantizedMixtureOfLogistics}
"""Of these, those whose values controls can cut."""
