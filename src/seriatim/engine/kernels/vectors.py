"""The samplers of several numbers at a position: vectors, the channels of a pixel, a column of a table."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from seriatim.engine.kernels.chosen import category
from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import load, load64, store, store64
from seriatim.engine.kernels.noise import uniform
from seriatim.engine.kernels.numbers import ONE, ZERO
from seriatim.engine.kernels.quantiles import (
    LOGISTIC,
    QUANTIZED,
    log_add,
    log_density,
    log_sigmoid,
    normal_quantile,
    scale_of,
    sum_of_three,
)


@kernel
def _finite(numbers, count):
    known = True
    for k in range(count):
        known &= math.isfinite(load(numbers, k))
    return known


@kernel
def vector(params, read, out, size, constants, key0, key1, row, t, lane, workspace, scored):
    """Sample mu + w L z, L given by its log diagonal and what is below it, w by a temperature; return log p, log q."""
    if not _finite(params, size * (size + 3) // 2):
        return math.nan, 0.0
    widening = np.float64(load(constants, 1))
    diagonal, below = params + 4 * size, params + 8 * size
    for i in range(size):
        z = widening * normal_quantile(uniform(key0, key1, row, t, lane + i))
        store64(workspace, i, z)
        value = np.float64(load(params, i)) + np.float64(scale_of(load(diagonal, i)) + load(constants, 0)) * z
        for j in range(i):
            value += np.float64(load(below, i * (i - 1) // 2 + j)) * load64(workspace, j)
        store(read, i, np.float32(value))
        store64(out, i, np.float64(np.float32(value)))
    if not scored:
        return 0.0, 0.0
    squares, logs = 0.0, 0.9189385332046727 * size
    for i in range(size):  # of the rounded values
        z = load64(out, i) - np.float64(load(params, i))
        for j in range(i):
            z -= np.float64(load(below, i * (i - 1) // 2 + j)) * load64(workspace, j)
        scale = np.float64(scale_of(load(diagonal, i)) + load(constants, 0))
        store64(workspace, i, z / scale)
        squares += 0.5 * (z / scale) ** 2
        logs += math.log(scale)
    return -squares - logs, -squares / widening**2 - logs - size * math.log(widening)


@kernel
def _channel(params, out, m, c, mixed, num_channels, constants):
    """Return location and scale of channel c in component m given the channels before it, in units of the values."""
    half = load(constants, 1)
    means = params + 4 * mixed
    log_scales, a = means + 4 * mixed * num_channels, means + 8 * mixed * num_channels
    moved = ZERO
    for d in range(c):
        x = np.float32(load64(out, d)) / half - ONE
        moved += np.float32(math.tanh(np.float64(load(a, (c * (c - 1) // 2 + d) * mixed + m)))) * x
    loc = (load(means, c * mixed + m) + moved + ONE) * half
    scale = (scale_of(load(log_scales, c * mixed + m)) + load(constants, 0)) * half
    return np.float64(loc), np.float64(scale)


@kernel
def channels(params, read, out, mixed, num_channels, constants, key0, key1, row, t, lane, workspace, scored):
    """Sample the channels of a pixel: a component, then each channel given those before."""
    count = num_channels + num_channels + num_channels * (num_channels - 1) // 2
    if not _finite(params + 4 * mixed, count * mixed):
        return math.nan
    chosen, total = category(params, mixed, mixed, uniform(key0, key1, row, t, lane), workspace)
    if chosen < 0:
        return math.nan
    half, levels = load(constants, 1), np.float64(load(constants, 2))
    for c in range(num_channels):
        loc, scale = _channel(params, out, chosen, c, mixed, num_channels, constants)
        u = uniform(key0, key1, row, t, lane + 1 + c)
        value = min(max(math.floor(loc + scale * math.log(u / (1.0 - u)) + 0.5), 0.0), levels - 1)
        store(read, c, np.float32(value) / half - ONE)
        store64(out, c, value)
    if not scored:
        return 0.0
    log_prob = -math.inf
    for m in range(mixed):
        term = np.float64(load(params, m)) - total
        for c in range(num_channels):
            loc, scale = _channel(params, out, m, c, mixed, num_channels, constants)
            term += log_density(QUANTIZED, load64(out, c), loc, scale, levels)
        log_prob = log_add(log_prob, term)
    return log_prob


@kernel
def column(params, read, out, slots, mixed, constants, key0, key1, row, t, lane, workspace, scored):
    """Sample a symbol, or a number from a mixture of logistics.

    The constants of a column: how many symbols, "a number" included, the place of that or -1, whether numbers are
    whole, then mean, unit and least scale as three numbers each. Out come the symbol and the number.
    """
    weights, locs, log_scales = params + 4 * slots, params + 4 * (slots + mixed), params + 4 * (slots + 2 * mixed)
    if not _finite(locs, 2 * mixed):
        return math.nan
    symbol, total = category(params, int(load(constants, 0)), slots, uniform(key0, key1, row, t, lane), workspace)
    if symbol < 0:
        return math.nan
    log_prob = np.float64(load(params, symbol)) - total
    for k in range(slots):
        store(read, k, ONE if k == symbol else ZERO)
    store64(out, 0, np.float64(symbol))
    store64(out, 1, 0.0)
    if not mixed:
        return log_prob
    store(read, slots, ZERO)
    store(read, slots + 1, ZERO)
    if symbol != int(load(constants, 1)):
        return log_prob
    chosen, total = category(weights, mixed, mixed, uniform(key0, key1, row, t, lane + 1), workspace)
    if chosen < 0:
        return math.nan
    whole, mean, unit = load(constants, 2) > 0, sum_of_three(constants, 3), sum_of_three(constants, 6)
    least = sum_of_three(constants, 9)
    u = uniform(key0, key1, row, t, lane + 2)
    scale = unit * (np.float64(scale_of(load(log_scales, chosen))) + least)
    value = mean + unit * np.float64(load(locs, chosen)) + scale * math.log(u / (1.0 - u))
    if whole:
        value = math.floor(value + 0.5)
    store64(out, 1, value)
    z = (value - mean) / unit
    store(read, slots, np.float32(min(max(z, -4.0), 4.0)))
    store(read, slots + 1, np.float32(math.asinh(z)))
    if not scored:
        return log_prob
    density = -math.inf
    for m in range(mixed):
        loc = mean + unit * np.float64(load(locs, m))
        scale = unit * (np.float64(scale_of(load(log_scales, m))) + least)
        if whole:
            upper, lower = (value + 0.5 - loc) / scale, (value - 0.5 - loc) / scale
            term = log_sigmoid(upper) + log_sigmoid(-lower) + math.log(-math.expm1(-1 / scale))
        else:
            term = log_density(LOGISTIC, value, loc, scale, 0.0)
        density = log_add(density, np.float64(load(weights, m)) - total + term)
    return log_prob + density
