"""What happens inside a position: the end of a sequence, and models nested in a position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seriatim.causal import State
from seriatim.engine import samplers
from seriatim.engine.operands import ALIGN, Act, Arena, Buffer, CannotLower, Instruction, Op, Operand, padded
from seriatim.engine.program import load, store
from seriatim.engine.samplers import Draw
from seriatim.engine.tape import Tape
from seriatim.heads import Head

if TYPE_CHECKING:
    from seriatim.model import AutoregressiveModel

_UNIT = 2.0**24
"""Contexts of this size drown what an initial state holds without one, so that differences keep their precision."""


def ending(tape: Tape, head: Head, mark: float, params: Operand, place: Draw) -> None:
    """Append the samplers of a value of `head` or the end, whose parameters are s and those of the value.

    Under controls one sampler draws both, for the end is cut with the values.

    Args:
        tape: where to.
        head: of the values.
        mark: what stands for the end among the values.
        params: s, then the parameters of the value.
        place: where noise is found and values are put.
    """
    read, absorbing = place.read, int(params == tape.certain)
    if place.ended is not None:
        raise CannotLower("ends inside a position that may be an end have no tape form")
    ended = Operand(Buffer(1), 1)
    features = read if read.one_hot else read.part(0, read.size - 1)
    if not place.controls.neutral:
        own = replace(place, read=features)
        samplers.controlled(tape, samplers.values_of(head, own), params, own, ended=ended, certain=bool(absorbing))
    else:
        stop = (0, absorbing, place.lane, place.column)
        tape.instructions.append(Instruction(Op.STOP, [ended], [params.part(0, 1)], stop))
        samplers.draw(tape, head, params.part(1, params.size - 1), place.after(1, features, ended))
    marks = tape.weight(torch.tensor([mark]))
    marking = (read.size, samplers.width(head), absorbing, place.column, int(read.one_hot))
    tape.instructions.append(Instruction(Op.MARK, [read], [ended, marks], marking))


def nested(
    tape: Tape, model: AutoregressiveModel, params: Operand, place: Draw, states: Callable[[Tensor], State]
) -> None:
    """Append the sampling of a model inside the position, position by inner position.

    Its initial state is computed on the tape as well: it must be an affine function of its context, the parameters.

    Args:
        tape: where to.
        model: of the values inside.
        params: its context.
        place: where noise is found and values are put.
        states: maps contexts (B, P) to the initial states of its network.

    Raises:
        CannotLower: it does not lower, or its initial state is no affine function.
    """
    head, length = model.head, model.order.length
    params = tape.dense(params)
    inner = Tape(head.num_features, samplers.is_one_hot(head), length, order=model.order, common=tape.common)
    # Inner features side by side are what the network reads of this position.
    size = length * head.num_features
    features = Operand(Buffer(size), size)
    outputs = inner.dense(inner.lower(model.network, inner.input))
    if outputs.size != head.num_params:
        raise CannotLower(f"the network has {outputs.size} outputs, the head {head.num_params} parameters")
    samplers.draw(inner, head, outputs, replace(place, read=inner.input.lag(-1)))
    inner.expand(inner.input.lag(-1), _one_of(features, head.num_features, length))
    _reset(tape, params, _settle(inner), inner.input, states)
    _repeat(tape, inner, head, features, params, place)


def independent(tape: Tape, head: Head, count: int, params: Operand, place: Draw) -> None:
    """Append the sampling of several values, side by side as their parameters and features are.

    Args:
        tape: where to.
        head: of each value.
        count: how many values.
        params: of all of them.
        place: where noise is found and values are put.
    """
    params = tape.copy(tape.dense(params))
    inner = Tape(head.num_features, samplers.is_one_hot(head), count, common=tape.common)
    features = Operand(Buffer(count * head.num_features), count * head.num_features)
    seen = _one_of(features, head.num_features, count)
    read = inner.input if inner.input.one_hot else seen
    samplers.draw(inner, head, _one_of(params, head.num_params, count), replace(place, read=read))
    if inner.input.one_hot:
        inner.expand(inner.input, seen)
    _settle(inner)
    _repeat(tape, inner, head, features, params.part(0, 0), place)


def _one_of(whole: Operand, size: int, count: int) -> Operand:
    """Return the part of a vector that belongs to the inner position."""
    return Operand(Buffer(size, reach=count - 1, packed=True, host=whole.buffer, offset=0), size)


def _repeat(tape: Tape, inner: Tape, head: Head, features: Operand, checked: Operand, place: Draw) -> None:
    """Append the instructions of an inner tape as a loop over its positions, and what is read of all its values.

    The numbers in `checked` must be finite.
    """
    outside = checked if place.ended is None else place.ended
    loop = (0, inner.clock, checked.size, int(place.ended is not None))
    tape.instructions.append(Instruction(Op.LOOP, [features], [checked, outside], loop))
    tape.instructions += inner.instructions
    again = (0, inner.clock, head.num_uniforms, samplers.width(head), inner.length, tape.clock)
    tape.instructions.append(Instruction(Op.AGAIN, [], [], again))
    tape.instructions.append(Instruction(Op.ACTIVATE, [place.read], [features], (features.size, Act.NONE, 0)))


def _settle(inner: Tape) -> list[Buffer]:
    """Let the buffers of an inner tape count its positions, and return those that are kept between them, in one host.

    They live in the scratch of the position around them.
    """
    kept: dict[Buffer, None] = {inner.input.buffer: None}
    for instruction in inner.instructions:
        for operand in instruction.operands:
            buffer = operand.buffer
            if buffer.arena is Arena.MEMORY:
                raise CannotLower("contexts along a length of their own have no tape form inside a position")
            buffer.clock = buffer.clock or inner.clock
            if buffer.arena is Arena.STATE:
                kept[buffer] = None
    host = Buffer(0)
    for buffer in kept:
        buffer.arena, buffer.host, buffer.offset = Arena.SCRATCH, host, host.width
        host.width += buffer.size
    return list(kept)


def _reset(tape: Tape, params: Operand, kept: list[Buffer], source: Operand, states: Callable[[Tensor], State]) -> None:
    """Append what gives the buffers of an inner tape their values before its first position.

    values = b + A params
    """
    host = kept[0].root

    def image(context: Tensor) -> Tensor:
        arena, state = torch.zeros(len(context), host.width), states(context)
        for buffer in kept:
            load(arena, buffer.offset, buffer, state, 0)
        store(arena, source.buffer.offset, source.buffer, torch.zeros(len(context), 1, source.size), 1)
        return arena

    b = image(torch.zeros(1, params.size))
    a = (image(_UNIT * torch.eye(params.size)) - b) / _UNIT
    some = torch.randn(2, params.size, generator=torch.Generator().manual_seed(0))
    if not torch.allclose(image(some), b + some @ a, rtol=1e-4, atol=1e-4):
        raise CannotLower(
            "an initial state that is no affine function of its context has no tape form inside a position"
        )
    whole = Operand(host, host.width)
    tape.instructions.append(Instruction(Op.ACTIVATE, [whole], [tape.weight(b)], (host.width, Act.NONE, 0)))
    for buffer in kept:
        own = slice(buffer.offset, buffer.offset + buffer.size)
        moved = a[:, own].any(0).nonzero().flatten()
        if len(moved):
            first, last = int(moved[0]) // ALIGN * ALIGN, padded(int(moved[-1]) + 1)
            tape.linear([(params, a[:, own][:, first:last].T)], b[0, own][first:last])
            tape.into(whole.part(buffer.offset + first, last - first), tape.instructions[-1].writes[0])
