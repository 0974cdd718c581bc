"""Attention from one query to the keys and values of all positions so far."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seriatim.engine.kernels.memory import load, load64, store, store64
from seriatim.engine.kernels.numbers import ZERO, exp64


@njit
def attend(y, qkv, keys, values, size, heads, length, t, scores):
    """Keep the key and the value of position t, and attend from its query to all positions up to t."""
    width = size // heads
    for i in range(size):
        store(keys, i * length + t, load(qkv, size + i))
        store(values, t * size + i, load(qkv, 2 * size + i))
        store(y, i, ZERO)
    scale = 1.0 / math.sqrt(width)
    for head in range(0, size, width):
        for s in range(t + 1):
            store64(scores, s, 0.0)
        for i in range(head, head + width):
            q, row = float(load(qkv, i)) * scale, keys + 4 * i * length
            for s in range(t + 1):
                store64(scores, s, load64(scores, s) + q * float(load(row, s)))
        highest, known = load64(scores, 0), True
        for s in range(t + 1):
            score = load64(scores, s)
            known &= score == score
            highest = score if score > highest else highest
        total = 0.0
        for s in range(t + 1):
            score = exp64(load64(scores, s) - highest)
            store64(scores, s, score)
            total += score
        total = total if known else math.nan
        for s in range(t + 1):
            share, row = np.float32(load64(scores, s) / total), values + 4 * s * size
            for i in range(head, head + width):
                store(y, i, load(y, i) + share * load(row, i))
