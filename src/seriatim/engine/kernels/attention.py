"""Attention of one query, and what its keys are turned by."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import NIL, load, store
from seriatim.engine.kernels.numbers import ONE, ZERO, copy, exp32
from seriatim.engine.kernels.tile import LANES, narrow_1x8, narrow_1x16, tile_1x64
from seriatim.engine.operands import ALIGN, PANEL


@kernel
def _weighed(y, size, x, w, w_stride, count):
    """Write sum_i x[i] w[i, :], the columns in whole tiles; those that are left over stay as they are."""
    product = (y, NIL, NIL, NIL, y, NIL, NIL, NIL, x, NIL, count, NIL)
    for i in range(size):
        store(y, i, ZERO)
    c = 0
    while c + LANES <= size:
        if c + PANEL <= size:
            tile_1x64(product, 0, c, w + 4 * c, w_stride)
            c += PANEL
        elif c + ALIGN <= size:
            narrow_1x16(product, 0, c, w + 4 * c, w_stride)
            c += ALIGN
        else:
            narrow_1x8(product, 0, c, w + 4 * c, w_stride)
            c += LANES
    for i in range(count):
        own, row = load(x, i), w + 4 * i * w_stride
        for k in range(c, size):
            store(y, k, load(y, k) + own * load(row, k))


@kernel
def _largest(x, count):
    """Return the largest number; of more than one chain, for a comparison waits for the one before."""
    a = b = c = d = load(x, 0)
    for s in range(0, count - 3, 4):
        p, q, r, t = load(x, s), load(x, s + 1), load(x, s + 2), load(x, s + 3)
        a, b, c, d = p if p > a else a, q if q > b else b, r if r > c else c, t if t > d else d
    for s in range(count - count % 4, count):
        p = load(x, s)
        a = p if p > a else a
    a, c = b if b > a else a, d if d > c else c
    return c if c > a else a


@kernel(fastmath={"contract", "reassoc"})
def _shares(scores, count, scale, highest):
    """Write exp(scale score - highest) and return their sum: NaN if one is."""
    total = ZERO
    for s in range(count):
        share = exp32(load(scores, s) * scale - highest)
        store(scores, s, share)
        total += share
    return total


@kernel(error_model="numpy")
def _mix(y, query, keys, values, size, heads, stride, count, scores):
    """Write the values of `count` keys, weighed by what the query makes of them; zeros where there are none.

    Number i of key s lies at i * stride + s, that of value s at s * size + i.
    """
    width = size // heads
    scale = np.float32(1.0 / math.sqrt(width))
    for head in range(0, size, width):
        _weighed(scores, count, query + 4 * head, keys + 4 * head * stride, stride, width)
        total = _shares(scores, count, scale, _largest(scores, count) * scale) if count else ONE
        _weighed(y + 4 * head, width, scores, values + 4 * head, size, count)
        for i in range(head, head + width):
            store(y, i, load(y, i) / total)


@kernel
def attend(y, qkv, keys, values, size, heads, length, t, scores):
    """Keep the key and the value of position t, and attend from its query to all positions up to t."""
    for i in range(size):
        store(keys, i * length + t, load(qkv, size + i))
        store(values, t * size + i, load(qkv, 2 * size + i))
    _mix(y, qkv, keys, values, size, heads, length, t + 1, scores)


@kernel
def attend_source(y, query, memory, owner, size, heads, scores):
    """Attend to the source of a row: how many symbols it has, how many the longest has, keys and values."""
    longest = int(load(memory, 1))
    own = memory + 4 * int(load(owner, 0)) * (ALIGN + 2 * size * longest)
    count, keys = int(load(own, 0)), own + 4 * ALIGN
    _mix(y, query, keys, keys + 4 * size * longest, size, heads, longest, count, scores)


@kernel
def rotate(y, x, turns, size, turned, width):
    """Turn pairs of numbers by angles whose cosines and sines lie one after another."""
    copy(y, x, size)
    for first in range(0, turned, width):
        for i in range(0, width, 2):
            cos, sin = load(turns, i), load(turns, i + 1)
            a, b = load(x, first + i), load(x, first + i + 1)
            store(y, first + i, a * cos - b * sin)
            store(y, first + i + 1, a * sin + b * cos)
