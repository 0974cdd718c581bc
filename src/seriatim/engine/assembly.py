"""Finishing a tape: its buffers find their places, and its instructions become integers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from seriatim.engine.operands import ALIGN, Act, Arena, Buffer, Instruction, Op, Operand, Tap, padded
from seriatim.engine.program import COLUMNS, NUMBERS, OPERAND, OPERANDS, Program
from seriatim.engine.tape import Tape

Geometry = tuple[int, int, int, int, int, int, int, int]
"""Of a cursor: the clock it belongs to, then the columns of `Program.cursors`."""

_STILL: Geometry = (0, 1, 0, 0, 1, 0, 0, 1)


def finish(
    tape: Tape, decode: Callable[[Tensor, int], Tensor], width: int, made_from: tuple[tuple[int, int], ...] = ()
) -> Program:
    """Place the buffers of a tape in their arenas and write its instructions as integers.

    Args:
        tape: with its sampler.
        decode: as in `Program`.
        width: how many numbers the samplers write at a position.
        made_from: as in `Program`.
    """
    instructions = _fuse(tape.instructions)
    _check(instructions, tape.input.buffer)
    buffers: dict[Buffer, None] = {tape.input.buffer: None}
    for instruction in instructions:
        buffers.update((operand.buffer, None) for operand in instruction.operands)
    state_size = 0
    for buffer in buffers:
        if buffer.arena is Arena.STATE:
            buffer.offset, state_size = state_size, state_size + buffer.size
    scratch_size = _place_scratch(instructions)
    code, cursors, spans = _encode(instructions, tape.common.clocks)
    return Program(
        code=torch.tensor(code, dtype=torch.int64),
        cursors=torch.tensor(cursors, dtype=torch.int64),
        spans=torch.tensor(spans, dtype=torch.int64),
        weights=torch.cat(tape.common.weights) if tape.common.weights else torch.zeros(1),
        state_size=_spread(state_size),
        scratch_size=_spread(scratch_size),
        input=tape.input,
        kept=tuple(b for b in buffers if b.arena is Arena.STATE and (b.load is not None or b.map is not None)),
        memories=tuple(tape.common.memories),
        workspace_size=max(map(_workspace, instructions), default=0),
        length=tape.length,
        width=width,
        decode=decode,
        made_from=made_from,
        ops=frozenset(instruction.op for instruction in instructions),
    )


def _workspace(instruction: Instruction) -> int:
    if instruction.op is Op.ATTEND:
        return instruction.numbers[2]
    if instruction.op is Op.CONTROLLED:  # log p, log q, rank and weight of each value and of the end
        return 4 * (instruction.numbers[0] + 1)
    return sum(instruction.numbers[:2]) if instruction.op >= Op.BERNOULLI else 0


def _check(instructions: list[Instruction], source: Buffer) -> None:
    """Refuse a tape that reads what is not there: the mistake of a layer's `lower`."""
    written = {source}
    for instruction in instructions:
        for operand in instruction.all_reads:
            buffer = operand.buffer
            given = buffer in written or buffer.host is not None or buffer.arena in (Arena.WEIGHTS, Arena.MEMORY)
            given |= buffer.steady
            if buffer.map is not None:  # its rows and columns are read before and after they are written
                beyond = operand.delay >= buffer.map.rows
                if beyond:
                    raise ValueError(f"{instruction.op.name}: expected a row that is kept, got {operand}")
            elif operand.delay > buffer.reach or (operand.delay == 0 and not given):
                raise ValueError(f"{instruction.op.name}: expected operands written before and kept, got {operand}")
        written.update(operand.buffer for operand in instruction.writes)


def _fuse(instructions: list[Instruction]) -> list[Instruction]:
    """Let a LINEAR apply the activation, or make the sum, that alone reads its output next; or write its ReLU too."""
    readers: dict[Buffer, int] = defaultdict(int)
    for instruction in instructions:
        for operand in instruction.all_reads:
            readers[operand.buffer] += 1
    fused: list[Instruction] = []
    for instruction in instructions:
        before = fused[-1] if fused else None
        joined = None
        if before is not None and before.op is Op.LINEAR:
            y = before.writes[0]
            alone = y.buffer.reach == 0 and y.buffer.map is None and readers[y.buffer] == 1
            if alone and before.numbers[1] == Act.NONE and len(before.writes) == 1:
                joined = _with_activation(before, instruction) or _with_sum(before, instruction)
            joined = joined or _with_second(before, instruction)
        if joined is None:
            fused.append(instruction)
        else:
            fused[-1] = joined
    return fused


def _with_activation(linear: Instruction, after: Instruction) -> Instruction | None:
    if after.op is not Op.ACTIVATE or after.reads != linear.writes:
        return None
    size, _, num_taps, *_ = linear.numbers
    return replace(linear, writes=after.writes, numbers=(size, after.numbers[1], num_taps, *after.numbers[2:], 0))


def _with_sum(linear: Instruction, after: Instruction) -> Instruction | None:
    """Start from the other summand, and add the bias as a tap; of whole tiles only, for LINEAR writes no others."""
    y = linear.writes[0]
    if after.op is not Op.ADD or y not in after.reads or y.size % ALIGN:
        return None
    other = next(operand for operand in after.reads if operand != y)
    size, act, num_taps, parameter, second = linear.numbers
    bias = (Tap.ADD, linear.reads[0], linear.reads[0])
    numbers = (size, act, num_taps + 1, parameter, second)
    return replace(linear, writes=after.writes, reads=[other], numbers=numbers, taps=[bias, *linear.taps])


def _with_second(linear: Instruction, after: Instruction) -> Instruction | None:
    """Write max(y, 0) beside y; whole tiles only, for LINEAR writes no others."""
    if after.op is not Op.ACTIVATE or after.numbers[1] != Act.RELU or after.reads != linear.writes:
        return None
    z = after.writes[0]
    if z.size != linear.writes[0].size or z.size % ALIGN:
        return None
    return replace(linear, writes=[*linear.writes, z], numbers=(*linear.numbers[:4], 1))


def _place_scratch(instructions: list[Instruction]) -> int:
    """Place buffers that live within one position, sharing memory between those that do not live at once."""
    born: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for time, instruction in enumerate(instructions):
        for operand in instruction.operands:
            buffer = operand.buffer.root
            if buffer.arena is Arena.SCRATCH:
                born.setdefault(buffer, time)
                last[buffer] = time
    for start, end in _loops(instructions):
        for buffer, time in born.items():
            # What stands before a loop that reads it lives until the loop ends, for the loop comes back to it.
            if time <= start <= last[buffer] <= end:
                last[buffer] = end
    begins, ends = (_by_time(times) for times in (born, last))
    free: dict[int, list[int]] = defaultdict(list)
    size = 0
    for time in range(len(instructions)):
        for buffer in begins[time]:
            if free[buffer.size]:
                buffer.offset = free[buffer.size].pop()
            else:
                buffer.offset, size = size, size + buffer.size
        for buffer in ends[time]:
            free[buffer.size].append(buffer.offset)
    return size


def _by_time(times: dict[Buffer, int]) -> dict[int, list[Buffer]]:
    found: dict[int, list[Buffer]] = defaultdict(list)
    for buffer, time in times.items():
        found[time].append(buffer)
    return found


def _loops(instructions: list[Instruction]) -> list[tuple[int, int]]:
    """Return where loops begin and end, those inside before those around them."""
    loops, open_ones = [], []
    for time, instruction in enumerate(instructions):
        if instruction.op in (Op.ROW, Op.LOOP):
            open_ones.append(time)
        elif instruction.op in (Op.END, Op.AGAIN):
            loops.append((open_ones.pop(), time))
    return loops


def _encode(
    instructions: list[Instruction], num_clocks: int
) -> tuple[list[list[int]], list[tuple[int, ...]], list[int]]:
    """Return the code, its cursors sorted by clock, and where the cursors of each clock begin."""
    cursors: dict[Geometry, int] = {_STILL: 0}
    code = _with_lengths([row for instruction in instructions for row in _rows(instruction, cursors)])
    ordered = sorted(cursors, key=lambda geometry: geometry[0])  # stable: the cursor that stands still is the first
    moved = {cursors[geometry]: index for index, geometry in enumerate(ordered)}
    for row in code:
        for column in range(OPERANDS + OPERAND - 1, COLUMNS, OPERAND):
            row[column] = moved[row[column]]
    clocks = [geometry[0] for geometry in ordered]
    return (
        code,
        [geometry[1:] for geometry in ordered],
        [sum(c < clock for c in clocks) for clock in range(num_clocks + 1)],
    )


def _rows(instruction: Instruction, cursors: dict[Geometry, int]) -> list[list[int]]:
    used = [(operand, True) for operand in instruction.writes] + [(operand, False) for operand in instruction.reads]
    rows = [_row(instruction.op, instruction.numbers, used, cursors)]
    for kind, x, weight in instruction.taps:
        rows.append(_row(kind, (x.size + x.one_hot,), [(x, False), (weight, False)], cursors))
    return rows


def _with_lengths(code: list[list[int]]) -> list[list[int]]:
    """Tell each loop how many rows of code it spans, and drop the ENDs."""
    kept: list[list[int]] = []
    begun: list[int] = []
    for row in code:
        if row[0] in (Op.ROW, Op.LOOP):
            begun.append(len(kept))
        elif row[0] in (Op.END, Op.AGAIN):
            start = begun.pop()
            kept[start][NUMBERS] = row[NUMBERS] = len(kept) - start - 1
            if row[0] == Op.END:
                continue
        kept.append(row)
    return kept


def _row(
    head: int, numbers: tuple[int, ...], operands: list[tuple[Operand, bool]], cursors: dict[Geometry, int]
) -> list[int]:
    row = [int(head), *(int(number) for number in numbers)]
    row += [0] * (OPERANDS - len(row))
    for operand, written in operands:
        buffer, start = operand.buffer, operand.start
        geometry = _STILL
        if buffer.map is not None:
            kept = buffer.map
            start += kept.halo * buffer.stride
            group = kept.group if operand.aligned else 1
            columns = kept.width // group, group * buffer.stride
            row_size = kept.row_slots * buffer.stride
            shift = kept.shift if written else 0
            geometry = (buffer.clock, kept.rows, row_size, operand.delay, *columns, shift, kept.every * group)
        elif buffer.slots > 1:
            # The value for the next position (delay -1) goes where the oldest one, no longer needed, stands.
            geometry = (buffer.clock, buffer.slots, buffer.stride, operand.delay, 1, 0, 0, buffer.every)
        cursor = cursors.setdefault(geometry, len(cursors))
        row += [int(buffer.arena) + buffer.memory, buffer.place + start, cursor]
    return row + [0] * (COLUMNS - len(row))


def _spread(size: int) -> int:
    """Make the row length an odd number of cache lines: rows a power of two apart would share cache sets."""
    return (padded(max(size, 1)) // ALIGN | 1) * ALIGN
