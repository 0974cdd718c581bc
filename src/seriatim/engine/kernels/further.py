"""What the instructions compute that some models have: attention, weights of each position, and look-ups."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from seriatim.engine.kernels.attention import attend, attend_source, rotate
from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import N0, N1, N2, N3, NIL, NUM_OPERANDS, ROW, get, load, resolve, store
from seriatim.engine.kernels.numbers import ZERO, copy
from seriatim.engine.kernels.tile import LANES, NARROW_ROWS, dot_1, dot_rows, narrow
from seriatim.engine.operands import CUT, DOT, SPAN, Op

_ATTEND, _ATTEND_SOURCE, _LOOK_UP, _RAGGED, _DOT = (
    int(op) for op in (Op.ATTEND, Op.ATTEND_SOURCE, Op.LOOK_UP, Op.RAGGED, Op.DOT)
)


@kernel
def _dot(y, y_stride, x, x_stride, w, count, rows):
    """Add the product of x and w to one number of each row."""
    row = 0
    while row < rows:
        y_row, x_row = y + 4 * row * y_stride, x + 4 * row * x_stride
        if rows - row >= NARROW_ROWS:
            dot_rows(y_row, y_stride, x_row, x_stride, w, count)
            row += NARROW_ROWS
        else:
            dot_1(y_row, y_stride, x_row, x_stride, w, count)
            row += 1


@kernel
def _copy_rows(y, y_stride, x, x_stride, count, rows):
    """Write x into y; few numbers one after another, for a loop over them would take longer than they do."""
    if count < LANES:
        for k in range(count):
            for row in range(rows):
                store(y, row * y_stride + k, load(x, row * x_stride + k))
    else:
        for row in range(rows):
            copy(y + 4 * row * y_stride, x + 4 * row * x_stride, count)


@kernel
def _ragged(operands, size, positions, inner, num_kept, t, rows):
    """Keep the inputs of position t, and write the outputs that it owns; zeros where others own more."""
    y, x, kept, table = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    y_stride, x_stride = get(operands, NUM_OPERANDS), get(operands, NUM_OPERANDS + 1)
    kept_stride = get(operands, NUM_OPERANDS + 2)
    own = table + 4 * SPAN * t
    first, last, begin, end = int(load(own, 0)), int(load(own, 1)), int(load(own, 2)), int(load(own, 3))
    seen, place, columns = int(load(own, 4)), int(load(own, 5)) * CUT + int(load(own, 6)), int(load(own, 7))
    _copy_rows(kept + 4 * first, kept_stride, x, x_stride, last - first, rows)
    panel, w = begin, table + 4 * place  # of a block that begins here
    while columns > 0:
        width = min(columns, DOT)
        sums = kept + 4 * (num_kept + panel)
        narrow((sums, kept_stride, NIL, NIL, sums, kept_stride, NIL, NIL, kept, kept_stride, seen, NIL), w, width, rows)
        panel, w, columns = panel + width, w + 4 * seen * width, columns - width
    _copy_rows(y, y_stride, kept + 4 * (num_kept + begin), kept_stride, end - begin, rows)
    for k in range(end - begin, size):
        for row in range(rows):
            store(y, row * y_stride + k, ZERO)
    count = (last - seen + LANES - 1) // LANES * LANES  # what is not there yet is 0
    if count > 0:
        w = table + 4 * (SPAN * positions + begin * inner)
        for k in range(end - begin):
            _dot(y + 4 * k, y_stride, kept + 4 * seen, kept_stride, w + 4 * k * inner, count, rows)


@kernel
def _products(operands, size, count, rows):
    """Write the product of x with some vectors, and a bias for each."""
    y, x, bias, w = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    y_stride, x_stride = get(operands, NUM_OPERANDS), get(operands, NUM_OPERANDS + 1)
    for row in range(rows):
        copy(y + 4 * row * y_stride, bias, size)
    for k in range(size):
        _dot(y + 4 * k, y_stride, x, x_stride, w + 4 * k * count, count, rows)


@kernel
def _look_up(at, t, bases, strides, offsets, operands, rows):
    """Keep the code of the position before, and write a row of a table."""
    size, sources = get(at, N0), get(at, N1)
    y, x, table = get(operands, 0), get(operands, 1), get(operands, 2)
    y_stride, x_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    resolve(at + ROW, bases, strides, offsets, operands)
    kept, logits, kept_stride = get(operands, 0), get(operands, 1), 4 * get(operands, NUM_OPERANDS)
    high = table + 4 * sources
    for row in range(rows):
        own = kept + row * kept_stride
        if t:
            store(own, t - 1, load(x + row * x_stride, 0))
        index = int(load(high, 0)) * CUT + int(load(high, 1))
        for j in range(sources):
            stride = int(load(high, 2 + j)) * CUT + int(load(high, 2 + sources + j))
            index += stride * int(load(own, int(load(table, j))))
        copy(y + row * y_stride, logits + 4 * index * size, size)


@kernel
def further(op, at, t, bases, strides, offsets, operands, rows, workspace):
    """Run the instruction at `at`, whose operands are resolved, for all rows; return where the next one stands."""
    if op == _LOOK_UP:
        _look_up(at, t, bases, strides, offsets, operands, rows)
        return at + 2 * ROW
    size, n1, n2 = get(at, N0), get(at, N1), get(at, N2)
    if op == _RAGGED:
        _ragged(operands, size, n1, n2, get(at, N3), t, rows)
        return at + ROW
    if op == _DOT:
        _products(operands, size, n1, rows)
        return at + ROW
    y, a, b, d = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    y_stride, a_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    b_stride, d_stride = 4 * get(operands, NUM_OPERANDS + 2), 4 * get(operands, NUM_OPERANDS + 3)
    for _ in range(rows):
        if op == _ATTEND:
            attend(y, a, b, d, size, n1, n2, t, workspace)
        elif op == _ATTEND_SOURCE:
            attend_source(y, a, b, d, size, n1, workspace)
        else:
            rotate(y, a, b, size, n1, n2)
        y, a, b, d = y + y_stride, a + a_stride, b + b_stride, d + d_stride
    return at + ROW
