"""The interpreter: one function that reads any tape."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from numba import njit

from seriatim.engine.kernels.compute import compute
from seriatim.engine.kernels.memory import N0, N1, N2, NUM_OPERANDS, ROW, get, place, resolve
from seriatim.engine.kernels.samplers import draw
from seriatim.engine.kernels.sources import FINGERPRINT
from seriatim.engine.operands import Op

OK, STALE = -1, -2
MEMORY = 2 * NUM_OPERANDS  # integers that a run works with, beside one for each cursor
_ROW, _FIRST_SAMPLER = int(Op.ROW), int(Op.BERNOULLI)


@njit
def _row_loop(at, t, cursors, num_cursors, bases, strides, offsets, operands, rows, workspace):
    """Run the instructions of a ROW for each pixel of the row that begins at t, if one does; return the next one."""
    end, width, flags = at + ROW * (1 + get(at, N0)), get(at, N1), get(at, N2)
    if t % width or (flags & 2 and t < width):
        return end
    for step in range(width):
        pixel = t + (width - 1 - step if flags & 1 else step)
        place(cursors, 0, num_cursors, pixel, offsets)
        own = at + ROW
        while own < end:
            resolve(own, bases, strides, offsets, operands)
            own = compute(get(own, 0), own, pixel, bases, strides, offsets, operands, rows, workspace)
    place(cursors, 0, num_cursors, t, offsets)
    return end


@njit(cache=True, nogil=True)
def run(
    fingerprint, code, length, cursors, num_cursors, bases, strides, memory, rows, num_rows, key0, key1,
    start, stop, values, width, scores, score_width, workspace,
):  # fmt: skip
    """Run a tape for positions start .. stop - 1 of a block of rows. Arrays are given by their addresses.

    Args:
        fingerprint: that of the kernels' source.
        code: (length, COLUMNS) int64.
        cursors: (num_cursors, CURSOR) int64.
        bases: int64, the addresses of the arenas, those of the block's first row.
        strides: int64, floats between rows in each arena; 0 for the weights.
        memory: int64, `num_cursors` + MEMORY numbers to work with.
        rows: (num_rows,) int64, the row numbers of the noise.
        key0, key1: the seed.
        start, stop: positions.
        values: float64, where the first row's value at `start` goes; `width` numbers from row to row.
        scores: float64, zeros that log p is added to, as `values`; 0 if it is not asked for.
        workspace: float64.

    Returns:
        (OK, 0), (STALE, 0), or the position and the row in the block whose parameters are no distribution.
    """
    if fingerprint != FINGERPRINT:
        return STALE, 0
    operands, offsets = memory, memory + 8 * MEMORY
    end = code + ROW * length
    for t in range(start, stop):
        place(cursors, 0, num_cursors, t, offsets)
        at = code
        while at < end:
            op = get(at, 0)
            if op == _ROW:
                at = _row_loop(at, t, cursors, num_cursors, bases, strides, offsets, operands, num_rows, workspace)
                continue
            resolve(at, bases, strides, offsets, operands)
            if op < _FIRST_SAMPLER:
                at = compute(op, at, t, bases, strides, offsets, operands, num_rows, workspace)
                continue
            bad = draw(
                op, at, t, 0, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace
            )
            if bad >= 0:
                return t, bad
            at += ROW
        values += 8
        scores += 8 if scores else 0
    return OK, 0
