"""Attention of one query, and what its keys are turned by."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seriatim.engine.kernels.memory import load, load64, store, store64
from seriatim.engine.kernels.numbers import ZERO, copy, exp64
from seriatim.engine.operands import ALIGN


@njit
def _mix(y, query, keys, values, size, heads, stride, count, scores):
    """Write the values of `count` keys, weighed by what the query makes of them; zeros where there are none.

    Number i of key s lies at i * stride + s, that of value s at s * size + i.
    """
    width = size // heads
    scale = 1.0 / math.sqrt(width)
    for i in range(size):
        store(y, i, ZERO)
    for head in range(0, size, width):
        for s in range(count):
            store64(scores, s, 0.0)
        for i in range(head, head + width):
            q, row = np.float64(load(query, i)) * scale, keys + 4 * i * stride
            for s in range(count):
                store64(scores, s, load64(scores, s) + q * np.float64(load(row, s)))
        highest, known = load64(scores, 0), True
        for s in range(count):
            score = load64(scores, s)
            known &= score == score
            highest = score if score > highest else highest
        total = 0.0
        for s in range(count):
            score = exp64(load64(scores, s) - highest)
            store64(scores, s, score)
            total += score
        total = total if known else math.nan
        for s in range(count):
            share, row = np.float32(load64(scores, s) / total), values + 4 * s * size
            for i in range(head, head + width):
                store(y, i, load(y, i) + share * load(row, i))


@njit
def attend(y, qkv, keys, values, size, heads, length, t, scores):
    """Keep the key and the value of position t, and attend from its query to all positions up to t."""
    for i in range(size):
        store(keys, i * length + t, load(qkv, size + i))
        store(values, t * size + i, load(qkv, 2 * size + i))
    _mix(y, qkv, keys, values, size, heads, length, t + 1, scores)


@njit
def attend_source(y, query, memory, size, heads, scores):
    """Attend to a source: how many symbols it has, how many the longest has, keys and values."""
    count, longest = int(load(memory, 0)), int(load(memory, 1))
    keys = memory + 4 * ALIGN
    _mix(y, query, keys, keys + 4 * size * longest, size, heads, longest, count, scores)


@njit
def rotate(y, x, turns, size, turned, width):
    """Turn pairs of numbers by angles whose cosines and sines lie one after another."""
    copy(y, x, size)
    for first in range(0, turned, width):
        for i in range(0, width, 2):
            cos, sin = load(turns, i), load(turns, i + 1)
            a, b = load(x, first + i), load(x, first + i + 1)
            store(y, first + i, a * cos - b * sin)
            store(y, first + i + 1, a * sin + b * cos)
