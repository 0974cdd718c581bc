"""Heads on the tape: each lowers its own sampling, the one transform from uniforms to a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seriatim import heads
from seriatim.engine.operands import CannotLower, Family, Instruction, Op, Operand
from seriatim.engine.tape import Tape, describes


@dataclass(frozen=True)
class Draw:
    """Where a sampler finds its noise, and puts what it draws.

    Attributes:
        read: what the network reads of the value at the next position.
        lane: the first lane of the noise.
        column: the first of the value's numbers among those of the position.
        ended: for which rows nothing is drawn, as 0 or 1.
    """

    read: Operand
    lane: int = 0
    column: int = 0
    ended: Operand | None = None

    def after(self, lanes: int, read: Operand, ended: Operand) -> Draw:
        """Return it for a value that takes so many lanes less, and is drawn only where a sequence has not ended."""
        return replace(self, read=read, lane=self.lane + lanes, ended=ended)


def draw(tape: Tape, head: heads.Head, params: Operand, place: Draw) -> None:
    """Append the sampler of a head.

    Raises:
        CannotLower: it has none.
    """
    own = getattr(head, "lower", None)
    if type(head) in _SAMPLERS:
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


def sample(tape: Tape, op: Op, params: Operand, place: Draw, *numbers: int, constants: Operand | None = None) -> None:
    """Append a sampler instruction.

    Args:
        tape: where to.
        op: the sampler.
        params: the head's parameters.
        place: where it finds its noise, and puts what it draws.
        numbers: two: the number of categories or components, and what else the sampler needs.
        constants: what it needs besides.
    """
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
    constants = None if counts is None else tape.table(counts[:, None].float())
    sample(tape, Op.CATEGORICAL, params, place, count, offset, constants=constants)


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


def _real(family: Family) -> Sampler:
    def append(tape: Tape, head: Any, params: Operand, place: Draw) -> None:
        numbers = [head.min_scale, getattr(head, "half_range", 0.0), getattr(head, "levels", 0)]
        constants = tape.weight(torch.tensor(numbers))
        sample(tape, Op.REAL, params, place, getattr(head, "num_components", 0), family, constants=constants)

    return append


def _vector(tape: Tape, head: heads.MultivariateNormal, params: Operand, place: Draw) -> None:
    constants = tape.weight(torch.tensor([head.min_scale]))
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
