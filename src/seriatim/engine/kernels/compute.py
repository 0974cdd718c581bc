"""What the instructions compute that nearly all models have."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import N0, N1, N2, N3, N4, NIL, NUM_OPERANDS, ROW, get, load, resolve, store
from seriatim.engine.kernels.numbers import HALF, INFINITY, NONE, ONE, RELU, TANH, ZERO, activate, copy, sigmoid, tanh
from seriatim.engine.kernels.tile import (
    NARROW,
    WIDE_COLUMNS,
    bf16_1x16,
    bf16_1x64,
    bf16_4x16,
    narrow,
    tile_1x16,
    tile_1x64,
    tile_4_wide,
    tile_4x16,
)
from seriatim.engine.operands import ALIGN, PANEL, Op, Tap

_LINEAR, _ACTIVATE, _GATE, _ADD, _LSTM, _GRU, _NORM, _EXPAND = (
    int(op) for op in (Op.LINEAR, Op.ACTIVATE, Op.GATE, Op.ADD, Op.LSTM, Op.GRU, Op.NORM, Op.EXPAND)
)
_DENSE, _SELECT, _SUM, _DENSE_BF16 = int(Tap.DENSE), int(Tap.SELECT), int(Tap.ADD), int(Tap.DENSE_BF16)
FOUR = np.int64(4)


@kernel
def _dense(product, w, count, size, rows):
    """Run a product with packed weights (`tile`) for all rows and columns."""
    if size <= NARROW:
        narrow(product, w, size, rows)
        return
    for panel in range(0, size, PANEL):
        width, row = min(PANEL, size - panel), 0
        while row < rows:
            many, c = rows - row >= 4, 0
            while c < width:
                if many and c + WIDE_COLUMNS <= width:
                    tile_4_wide(product, row, panel + c, w + 4 * c, width)
                    c += WIDE_COLUMNS
                elif many:
                    tile_4x16(product, row, panel + c, w + 4 * c, width)
                    c += ALIGN
                elif width == PANEL:
                    tile_1x64(product, row, panel, w, width)
                    c += PANEL
                else:
                    tile_1x16(product, row, panel + c, w + 4 * c, width)
                    c += ALIGN
            row += 4 if many else 1
        w += 4 * count * width


@kernel
def _dense_bf16(product, w, count, size, rows):
    """As `_dense`, with weights of 16 bits."""
    for panel in range(0, size, PANEL):
        width, row = min(PANEL, size - panel), 0
        while row < rows:
            many = rows - row >= 4
            if not many and width == PANEL:
                bf16_1x64(product, row, panel, w, width // 2)
            else:
                for c in range(0, width, ALIGN):
                    if many:
                        bf16_4x16(product, row, panel + c, w + 2 * c, width // 2)
                    else:
                        bf16_1x16(product, row, panel + c, w + 2 * c, width // 2)
            row += 4 if many else 1
        w += 2 * count * width


@kernel
def _add(y, a, b, size):
    for i in range(size):
        store(y, i, load(a, i) + load(b, i))


@kernel
def _select(y, start, w, count, index, size):
    """Write start + column `index` of W into y."""
    for panel in range(0, size, PANEL):
        width = min(PANEL, size - panel)
        w_row = w + 4 * (count * panel + index * width)
        _add(y + 4 * panel, start + 4 * panel, w_row, width)


@kernel
def _linear(at, bases, strides, offsets, operands, rows):
    """Run a LINEAR and its taps; return where the last tap stands."""
    size, act, taps, bits, second = get(at, N0), get(at, N1), get(at, N2), get(at, N3), get(at, N4)
    y, y_stride = get(operands, 0), get(operands, NUM_OPERANDS)
    z, z_stride = NIL, NIL
    if second:
        z, z_stride = get(operands, 1), get(operands, NUM_OPERANDS + 1)
    start, start_stride = get(operands, 1 + second), get(operands, NUM_OPERANDS + 1 + second)
    more, more_stride = NIL, NIL
    last, finished = at + ROW * taps, False
    while at < last:
        at += ROW
        resolve(at, bases, strides, offsets, operands)
        kind, count = get(at, 0), get(at, N0)
        x, x_stride, w = get(operands, 0), get(operands, NUM_OPERANDS), get(operands, 1)
        if kind == _SUM and at < last and get(at + ROW, 0) in (_DENSE, _DENSE_BF16):
            more, more_stride = x, x_stride  # the product that follows starts from both
            continue
        if kind == _SUM:
            for row in range(rows):
                _add(y + 4 * row * y_stride, start + 4 * row * start_stride, x + 4 * row * x_stride, size)
        elif kind == _SELECT:
            for row in range(rows):
                index = int(load(x + 4 * row * x_stride, 0))
                _select(y + 4 * row * y_stride, start + 4 * row * start_stride, w, count, index, size)
        else:
            finished = at == last and act <= RELU
            own_z, relu = (z, act) if finished else (NIL, NIL)
            product = (y, y_stride, own_z, z_stride, start, start_stride, more, more_stride, x, x_stride, count, relu)
            if kind == _DENSE:
                _dense(product, w, count, size, rows)
            else:
                _dense_bf16(product, w, count, size, rows)
            more = NIL
        start, start_stride = y, y_stride
    if not finished:
        for row in range(rows):
            own = y + 4 * row * y_stride
            if act != NONE:
                activate(own, own, size, act, bits)
            if second:
                activate(z + 4 * row * z_stride, own, size, RELU, NIL)
    return last


@kernel
def _gate(y, a, b, size, act):
    if act == TANH:
        for i in range(size):
            store(y, i, tanh(load(a, i)) * sigmoid(load(b, i)))
    else:
        activate(y, a, size, act, NIL)
        for i in range(size):
            store(y, i, load(y, i) * sigmoid(load(b, i)))


@kernel
def _lstm(h, c, before, gates, size):
    i, f, g, o = gates, gates + 4 * size, gates + 8 * size, gates + 12 * size
    for k in range(size):
        cell = sigmoid(load(f, k)) * load(before, k) + sigmoid(load(i, k)) * tanh(load(g, k))
        store(c, k, cell)
        store(h, k, sigmoid(load(o, k)) * tanh(cell))


@kernel
def _gru(h, before, gates, size):
    r, z, a, b = gates, gates + 4 * size, gates + 8 * size, gates + 12 * size
    for k in range(size):
        keep = sigmoid(load(z, k))
        new = tanh(load(a, k) + sigmoid(load(r, k)) * load(b, k))
        store(h, k, new + keep * (load(before, k) - new))


@kernel
def _norm(y, x, constants, size):
    mean, variance = 0.0, 0.0
    for i in range(size):
        mean += np.float64(load(x, i))
    mean /= size
    for i in range(size):
        variance += (np.float64(load(x, i)) - mean) ** 2
    center = np.float32(mean)
    scale = np.float32(1.0 / math.sqrt(variance / size + np.float64(load(constants, 2 * size))))
    for i in range(size):
        store(y, i, (load(x, i) - center) * scale * load(constants, i) + load(constants, size + i))


@kernel
def _expand(y, x, size, one_hot):
    if one_hot:
        index = int(load(x, 0))
        for i in range(size):
            store(y, i, ONE if i == index else ZERO)
    else:
        copy(y, x, size)


@kernel
def _until(y, params, x, size, last, one_hot):
    """Write the parameters; an infinite s comes from the end alone, one of the network is NaN here."""
    copy(y, params, size)
    ended = load(x, 0) == last if one_hot else load(x, last) > HALF
    if ended:
        store(y, 0, INFINITY)
    elif not math.isfinite(load(y, 0)):
        store(y, 0, np.float32(math.nan))


@kernel
def _single(y, y_stride, a, a_stride, b, b_stride, add, relu, rows):
    """Write a, a + b or max(a, 0) of one number in each row: in one loop, for a call for each would take longer."""
    for row in range(rows):
        value = load(a, row * a_stride)
        if add:
            value += load(b, row * b_stride)
        store(y, row * y_stride, ZERO if relu and value < ZERO else value)


@kernel
def compute(op, at, t, bases, strides, offsets, operands, rows, workspace):
    """Run the instruction at `at`, whose operands are resolved, for all rows; return where the next one stands."""
    if op == _LINEAR:
        return _linear(at, bases, strides, offsets, operands, rows) + ROW
    size, n1, n2 = get(at, N0), get(at, N1), get(at, N2)
    y, a, b, d = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    y_stride, a_stride = get(operands, NUM_OPERANDS), get(operands, NUM_OPERANDS + 1)
    b_stride, d_stride = get(operands, NUM_OPERANDS + 2), get(operands, NUM_OPERANDS + 3)
    if size == 1 and (op == _ADD or (op == _ACTIVATE and n1 <= RELU)):
        add = op == _ADD
        _single(y, y_stride, a, a_stride, b, b_stride, add, not add and n1 == RELU, rows)
        return at + ROW
    for _ in range(rows):
        if op == _ACTIVATE:
            activate(y, a, size, n1, n2)
        elif op == _ADD:
            _add(y, a, b, size)
        elif op == _GATE:
            _gate(y, a, b, size, n1)
        elif op == _LSTM:
            _lstm(y, a, b, d, size)
        elif op == _GRU:
            _gru(y, a, b, size)
        elif op == _NORM:
            _norm(y, a, b, size)
        elif op == _EXPAND:
            _expand(y, a, size, n1)
        else:
            _until(y, a, b, size, n1, n2)
        y, a, b, d = y + 4 * y_stride, a + 4 * a_stride, b + 4 * b_stride, d + 4 * d_stride
    return at + ROW
