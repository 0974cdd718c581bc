"""The interpreter: one function that reads any tape."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seriatim.engine.kernels.compiled import call_computing, call_drawing, kernel
from seriatim.engine.kernels.memory import (
    N0,
    N1,
    N2,
    N3,
    N4,
    N5,
    NIL,
    NUM_OPERANDS,
    ROW,
    get,
    load,
    place,
    put,
    resolve,
    store64,
)
from seriatim.engine.kernels.samplers import mark, write_end
from seriatim.engine.kernels.sources import FINGERPRINT
from seriatim.engine.operands import Op
from seriatim.engine.program import CURSOR, OPERAND, OPERANDS

OK, STALE = -1, -2
ENDED = -2  # what hands out symbols says so where all rows have ended
_ROW, _LOOP, _AGAIN, _MARK = (int(op) for op in (Op.ROW, Op.LOOP, Op.AGAIN, Op.MARK))
_SAVED = 3  # what is kept of the position around a loop: the position, the lane and the column


def memory_size(num_cursors: int, num_clocks: int) -> int:
    """Return how many integers a run works with."""
    return 2 * NUM_OPERANDS + _SAVED * num_clocks + num_cursors


@kernel
def _row_loop(functions, at, t, cursors, first, last, bases, strides, offsets, operands, rows, workspace):
    """Run the instructions of a ROW for each pixel of the row that begins at t, if one does; return the next one."""
    end, length, flags, channels = at + ROW * (1 + get(at, N0)), get(at, N1), get(at, N2), get(at, N3)
    if t % length or (flags & 2 and t < length):
        return end
    for step in range(0, length, channels):
        pixel = t + (length - channels - step if flags & 1 else step)
        place(cursors, first, last, pixel, offsets)
        own = at + ROW
        while own < end:
            numbers = (functions, own, end, pixel, bases, strides, offsets, operands, rows, workspace)
            own = call_computing(get(functions, get(own, 0)), numbers)
    place(cursors, first, last, t, offsets)
    return end


@kernel
def _enter(at, operands, rows):
    """Look at the parameters of a LOOP: return a row in which they are no numbers, -1, or -2 if all have ended."""
    params, ended = get(operands, 1), get(operands, 2)
    params_stride, ended_stride = 4 * get(operands, NUM_OPERANDS + 1), 4 * get(operands, NUM_OPERANDS + 2)
    size, flagged, found = get(at, N2), get(at, N3), -2
    for row in range(rows):
        if not (flagged and load(ended + row * ended_stride, 0) > 0):
            found = -1
            for k in range(size):
                if not math.isfinite(load(params + row * params_stride, k)):
                    return row
    return found


@kernel
def _fill(at, cursors, offsets, operands, rows, values, width, step, left):
    """Write ends for the positions that are left of rows that have all ended, and into all that is read of them."""
    index = get(at, OPERANDS + OPERAND - 1)
    read, constants, cursor = get(operands, 0) - 4 * get(offsets, index), get(operands, 2), cursors + 8 * CURSOR * index
    slots, stride = get(cursor, 0), 4 * get(cursor, 1)
    features, count, column, one_hot = get(at, N0), get(at, N1), get(at, N3), get(at, N4)
    for row in range(rows):
        for slot in range(slots):
            write_end(read + 4 * row * get(operands, NUM_OPERANDS) + slot * stride, features, one_hot)
        for position in range(left):
            for k in range(count):
                store64(values, row * width + position * step + column + k, np.float64(load(constants, 0)))


@njit(cache=True, nogil=True)
def run(
    fingerprint, functions, code, length, cursors, spans, num_clocks, bases, strides, memory, rows, num_rows,
    key0, key1, start, stop_at, values, width, step, scores, score_width, workspace,
):  # fmt: skip
    """Run a tape for positions start .. stop_at - 1 of a block of rows. Arrays are given by their addresses.

    Args:
        fingerprint: that of the kernels' source.
        functions: (number of an instruction,) int64, the address of what carries it out, as `groups.functions` finds.
        code: (length, COLUMNS) int64.
        cursors: (num_cursors, CURSOR) int64.
        spans: (num_clocks + 1,) int64, where the cursors of each clock begin.
        bases: int64, the addresses of the arenas, those of the block's first row.
        strides: int64, floats between rows in each arena; 0 for the weights.
        memory: int64, `memory_size` numbers to work with.
        rows: (num_rows,) int64, the row numbers of the noise.
        key0, key1: the seed.
        start, stop_at: positions.
        values: float64, where the first row's numbers at `start` go; `width` numbers from row to row, `step` from
            position to position.
        scores: float64, zeros that log p and log q of each position are added to, `score_width` numbers from row to
            row; 0 if they are not asked for.
        workspace: float64.

    Returns:
        (OK, 0), (STALE, 0), or the position and the row in the block whose parameters are no distribution.
    """
    if fingerprint != FINGERPRINT:
        return STALE, 0
    operands = memory
    saved = operands + 16 * NUM_OPERANDS
    offsets = saved + 8 * _SAVED * num_clocks
    end = code + ROW * length
    for t in range(start, stop_at):
        place(cursors, get(spans, 0), get(spans, 1), t, offsets)
        # The position of the clock that counts, and the lanes and columns that its loop adds.
        clock, now, lane, column, bad, at = NIL, t, NIL, NIL, -1, code
        while at < end:
            op = get(at, 0)
            first, last = get(spans, clock), get(spans, clock + 1)
            if op == _ROW:
                at = _row_loop(
                    functions, at, now, cursors, first, last, bases, strides, offsets, operands, num_rows, workspace
                )
                continue
            if op == _AGAIN:
                now += 1
                if now < get(at, N4):
                    lane, column = lane + get(at, N2), column + get(at, N3)
                    place(cursors, first, last, now, offsets)
                    at -= ROW * get(at, N0)
                else:
                    own = saved + 8 * _SAVED * clock
                    now, lane, column, clock = get(own, 0), get(own, 1), get(own, 2), get(at, N5)
                    at += ROW
                continue
            if op < _ROW:  # and the instructions that follow, of the same function
                numbers = (functions, at, end, now, bases, strides, offsets, operands, num_rows, workspace)
                at = call_computing(get(functions, op), numbers)
                continue
            resolve(at, bases, strides, offsets, operands)
            if op == _LOOP:
                bad = _enter(at, operands, num_rows)
                if bad == -2:
                    at += ROW * (1 + get(at, N0))
                else:
                    clock = get(at, N1)
                    own = saved + 8 * _SAVED * clock
                    put(own, 0, now)
                    put(own, 1, lane)
                    put(own, 2, column)
                    now = NIL
                    place(cursors, get(spans, clock), get(spans, clock + 1), now, offsets)
            elif op == _MARK:
                if mark(at, operands, num_rows, values + 8 * column, width) and get(at, N2) and not clock:
                    _fill(at, cursors, offsets, operands, num_rows, values + 8 * step, width, step, stop_at - t - 1)
                    return OK, 0
            else:
                bad = call_drawing(
                    get(functions, op),
                    (
                        op, at, t, lane, operands, rows, num_rows, key0, key1, values + 8 * column, width,
                        scores, score_width, step, stop_at - t - 1, workspace,
                    ),
                )  # fmt: skip
                if bad == ENDED:
                    return OK, 0
            if bad >= 0:
                return t, bad
            at += ROW
        values += 8 * step
        scores += 16 if scores else 0
    return OK, 0
