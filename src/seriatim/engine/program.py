"""A finished tape: integers and floats that an interpreter can run, and where the state of each row goes."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seriatim.causal import State
from seriatim.engine.operands import (
    ALIGN,
    PANEL,
    Act,
    Arena,
    Buffer,
    Family,
    Instruction,
    Map,
    Op,
    Operand,
    Tap,
    padded,
)
from seriatim.engine.tape import Tape

# A row of code: the opcode (of a tap: its kind), six numbers, and four operands of three integers each.
NUMBERS = 1
OPERANDS = 7
OPERAND = 3  # arena, offset in floats, cursor
COLUMNS = OPERANDS + 4 * OPERAND

CURSOR = 6  # slots, stride, delay, width, column stride, shift

_KINDS = (Op, Tap, Act, Arena, Family)
LAYOUT = zlib.crc32(
    repr(
        (NUMBERS, OPERANDS, OPERAND, CURSOR, ALIGN, PANEL, *({k.name: k.value for k in kind} for kind in _KINDS))
    ).encode()
)
"""Changes with the meaning of the code."""


@dataclass(frozen=True)
class Program:
    """A tape ready to run.

    Attributes:
        code: (N, COLUMNS) int64.
        cursors: (C, 6) int64, (slots, stride, delay, width, column stride, shift): at position t, with u = t - shift,
            the cursor stands at ((u div width - delay) mod slots) * stride + (u mod width) * column stride, and after
            all slots where u < 0. Of a ring the width is 1. Cursor 0 stands still. Computed once for each position,
            shared by operands of equal geometry.
        weights: float32.
        state_size: floats of state in a row.
        scratch_size: floats of scratch in a row.
        input: what the network reads at the current position.
        kept: the buffers whose past, or constant, is read from a state.
        workspace_size: float64 numbers that the sampler needs.
    """

    code: Tensor
    cursors: Tensor
    weights: Tensor
    state_size: int
    scratch_size: int
    input: Operand
    kept: tuple[Buffer, ...]
    workspace_size: int

    @torch.no_grad()
    def load(self, state: State, x: Tensor, position: int = 0) -> Tensor:
        """Return the state arena (B, state_size) of rows that stand before `position`.

        Args:
            state: the network's state after it has read the inputs before `position`.
            x: (B, 1, F) the input at `position`.
            position: how many positions have been read.
        """
        arena = torch.zeros(x.shape[0], self.state_size)
        for buffer in self.kept:
            own = _follow(state, buffer.path)
            if buffer.map is not None:
                _store_map(arena, buffer, buffer.map, *buffer.map.load(own, position), position)
            elif buffer.load is not None:
                _store(arena, buffer, buffer.load(own), position)
        _store(arena, self.input.buffer, x, position + 1)
        return arena


def finish(tape: Tape) -> Program:
    """Place the buffers of a tape in their arenas and write its instructions as integers."""
    instructions = _fuse(tape.instructions)
    _check(instructions, tape.input.buffer)
    buffers: dict[Buffer, None] = {tape.input.buffer: None}
    for instruction in instructions:
        buffers.update((operand.buffer, None) for operand in instruction.writes + instruction.all_reads)
    state_size = 0
    for buffer in buffers:
        if buffer.arena is Arena.STATE:
            buffer.offset, state_size = state_size, state_size + padded(buffer.slots * buffer.stride)
    scratch_size = _place_scratch(instructions)
    cursors: dict[Geometry, int] = {(1, 0, 0, 1, 0, 0): 0}
    code = _with_lengths([row for instruction in instructions for row in _encode(instruction, cursors)])
    return Program(
        code=torch.tensor(code, dtype=torch.int64),
        cursors=torch.tensor(list(cursors), dtype=torch.int64),
        weights=torch.cat(tape.weights) if tape.weights else torch.zeros(1),
        state_size=_spread(state_size),
        scratch_size=_spread(scratch_size),
        input=tape.input,
        kept=tuple(buffer for buffer in buffers if buffer.load is not None or buffer.map is not None),
        workspace_size=max(map(_workspace, instructions), default=0),
    )


def _workspace(instruction: Instruction) -> int:
    if instruction.op is Op.ATTEND:
        return instruction.numbers[2]
    return instruction.numbers[0] if instruction.op in (Op.CATEGORICAL, Op.REAL) else 0


def _check(instructions: list[Instruction], source: Buffer) -> None:
    """Refuse a tape that reads what is not there: the mistake of a layer's `lower`."""
    written = {source}
    for instruction in instructions:
        for operand in instruction.all_reads:
            buffer = operand.buffer
            given = buffer in written or buffer.arena is Arena.WEIGHTS or (buffer.load is not None and not buffer.reach)
            if buffer.map is not None:  # its rows and columns are read before and after they are written
                beyond = operand.delay >= buffer.map.rows
                if beyond:
                    raise ValueError(f"{instruction.op.name}: expected a row that is kept, got {operand}")
            elif operand.delay > buffer.reach or (operand.delay == 0 and not given):
                raise ValueError(f"{instruction.op.name}: expected operands written before and kept, got {operand}")
        written.update(operand.buffer for operand in instruction.writes)


def _fuse(instructions: list[Instruction]) -> list[Instruction]:
    """Let a LINEAR apply the activation, or make the sum, that alone reads its output next."""
    readers: dict[Buffer, int] = defaultdict(int)
    for instruction in instructions:
        for operand in instruction.all_reads:
            readers[operand.buffer] += 1
    fused: list[Instruction] = []
    for instruction in instructions:
        before = fused[-1] if fused else None
        joined = None
        if before is not None and before.op is Op.LINEAR and before.numbers[1] == Act.NONE:
            y = before.writes[0]
            if y.buffer.reach == 0 and y.buffer.map is None and readers[y.buffer] == 1:
                joined = _with_activation(before, instruction) or _with_sum(before, instruction)
        if joined is None:
            fused.append(instruction)
        else:
            fused[-1] = joined
    return fused


def _with_activation(linear: Instruction, after: Instruction) -> Instruction | None:
    if after.op is not Op.ACTIVATE or after.reads != linear.writes:
        return None
    size, _, num_taps = linear.numbers
    return replace(linear, writes=after.writes, numbers=(size, after.numbers[1], num_taps))


def _with_sum(linear: Instruction, after: Instruction) -> Instruction | None:
    """Start from the other summand, and add the bias as a tap; of whole tiles only, for LINEAR writes no others."""
    y = linear.writes[0]
    if after.op is not Op.ADD or y not in after.reads or y.size % ALIGN:
        return None
    other = next(operand for operand in after.reads if operand != y)
    size, act, num_taps = linear.numbers
    bias = (Tap.ADD, linear.reads[0], linear.reads[0])
    return replace(
        linear, writes=after.writes, reads=[other], numbers=(size, act, num_taps + 1), taps=[*linear.taps, bias]
    )


def _place_scratch(instructions: list[Instruction]) -> int:
    """Place buffers that live within one position, sharing memory between those that do not live at once."""
    last: dict[Buffer, int] = {}
    ends = _ends(instructions)
    for time, instruction in enumerate(instructions):
        # What a loop over a row touches lives until the loop ends, for the loop comes back to it.
        end = ends.get(time, time)
        last.update((operand.buffer, end) for operand in instruction.writes + instruction.all_reads)
    at_end: dict[int, list[Buffer]] = defaultdict(list)
    for buffer, end in last.items():
        if buffer.arena is Arena.SCRATCH:
            at_end[end].append(buffer)
    free: dict[int, list[int]] = defaultdict(list)
    size = 0
    for time, instruction in enumerate(instructions):
        for operand in instruction.writes:
            buffer = operand.buffer
            if buffer.arena is Arena.SCRATCH:
                if free[buffer.stride]:
                    buffer.offset = free[buffer.stride].pop()
                else:
                    buffer.offset, size = size, size + padded(buffer.stride)
        for buffer in at_end[time]:
            free[buffer.stride].append(buffer.offset)
    return size


def _ends(instructions: list[Instruction]) -> dict[int, int]:
    """Map the instructions inside loops over a row to the ends of the loops."""
    ends, start = {}, 0
    for time, instruction in enumerate(instructions):
        if instruction.op is Op.ROW:
            start = time
        elif instruction.op is Op.END:
            ends.update(dict.fromkeys(range(start, time), time))
    return ends


Geometry = tuple[int, int, int, int, int, int]


def _encode(instruction: Instruction, cursors: dict[Geometry, int]) -> list[list[int]]:
    used = [(operand, True) for operand in instruction.writes] + [(operand, False) for operand in instruction.reads]
    rows = [_row(instruction.op, instruction.numbers, used, cursors)]
    for kind, x, weight in instruction.taps:
        rows.append(_row(kind, (x.size + (kind is Tap.SELECT),), [(x, False), (weight, False)], cursors))
    return rows


def _with_lengths(code: list[list[int]]) -> list[list[int]]:
    """Tell each ROW how many rows of code it spans, and drop the ENDs."""
    kept: list[list[int]] = []
    start = 0
    for row in code:
        if row[0] == Op.END:
            kept[start][NUMBERS] = len(kept) - start - 1
            continue
        if row[0] == Op.ROW:
            start = len(kept)
        kept.append(row)
    return kept


def _row(
    head: int, numbers: tuple[int, ...], operands: list[tuple[Operand, bool]], cursors: dict[Geometry, int]
) -> list[int]:
    row = [int(head), *(int(number) for number in numbers)]
    row += [0] * (OPERANDS - len(row))
    for operand, written in operands:
        buffer, start = operand.buffer, operand.start
        geometry: Geometry = (1, 0, 0, 1, 0, 0)
        if buffer.map is not None:
            kept = buffer.map
            start += kept.halo * buffer.stride
            shift = kept.shift if written else 0
            geometry = (kept.rows, kept.row_slots * buffer.stride, operand.delay, kept.width, buffer.stride, shift)
        elif buffer.slots > 1:
            # The value for the next position (delay -1) goes where the oldest one, no longer needed, stands.
            geometry = (buffer.slots, buffer.stride, operand.delay, 1, 0, 0)
        cursor = cursors.setdefault(geometry, len(cursors))
        row += [int(buffer.arena), buffer.offset + start, cursor]
    return row + [0] * (COLUMNS - len(row))


def _spread(size: int) -> int:
    """Make the row length an odd number of cache lines: rows a power of two apart would share cache sets."""
    return (padded(max(size, 1)) // ALIGN | 1) * ALIGN


def _store(arena: Tensor, buffer: Buffer, values: Tensor, end: int) -> None:
    """Write the values (B, n, F) of positions end-n .. end-1 into their slots."""
    if buffer.one_hot:
        values = torch.where(values.any(-1), values.argmax(-1), values.shape[-1])[..., None]
    n = values.shape[1]
    slots = torch.arange(end - n, end) % buffer.slots
    ring = arena[:, buffer.offset : buffer.offset + buffer.slots * buffer.stride]
    ring.unflatten(1, (buffer.slots, buffer.stride))[:, slots, : buffer.width] = values.to(arena)


def _store_map(arena: Tensor, buffer: Buffer, kept: Map, values: Tensor, first: int, position: int) -> None:
    """Write the values (B, n, F) of pixels first .. first+n-1 into the rows that are kept before `position`."""
    newest = position // kept.width
    pixel = torch.arange(first, first + values.shape[1])
    row, column = pixel // kept.width, pixel % kept.width
    held = (pixel >= 0) & (row > newest - kept.rows) & (row <= newest)
    slots = (row % kept.rows * kept.row_slots + kept.halo + column)[held]
    maps = arena[:, buffer.offset : buffer.offset + buffer.slots * buffer.stride]
    maps.unflatten(1, (buffer.slots, buffer.stride))[:, slots, : buffer.width] = values[:, held].to(arena)


def _follow(state: State, path: tuple[object, ...]) -> State:
    for key in path:
        state = state[key]
    return state
