"""Values of finitely many, or the end, under controls: p of all of them, what is cut, and the choice."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import (
    N0,
    N1,
    N2,
    N3,
    N4,
    NUM_OPERANDS,
    add64,
    get,
    load,
    load64,
    put,
    store,
    store64,
)
from seriatim.engine.kernels.noise import uniform
from seriatim.engine.kernels.numbers import ONE, ZERO, exp64
from seriatim.engine.kernels.quantiles import QUANTIZED, log_add, log_density, log_sigmoid, sum_of_three
from seriatim.engine.kernels.samplers import component
from seriatim.engine.operands import Finite

_BIT, _LEVELS = np.int64(Finite.BIT), np.int64(Finite.LEVELS)
_RAREST, _HOT = 1e-200, 8.0  # masses below are too small for a sum, and matter at temperatures above only
# The constants of an instruction, as `samplers.controlled` writes them.
_SCALE, _HALF, _KIND, _COUNT, _OFFSET, _TOP_K, _TEMPERATURE, _ENOUGH, _LEAST = (
    np.int64(place) for place in (0, 1, 2, 3, 4, 5, 6, 9, 12)
)


@kernel
def _log_sum(params, count):
    """Return the log of the sum of exp of logits; NaN for those of no distribution."""
    highest, known, total = load(params, 0), True, 0.0
    for k in range(count):
        logit = load(params, k)
        known &= logit == logit
        highest = logit if logit > highest else highest
    if not known or math.isinf(highest):  # single values may be impossible, with a logit of -inf
        return math.nan
    for k in range(count):
        total += exp64(np.float64(load(params, k)) - np.float64(highest))
    return np.float64(highest) + math.log(total)


@kernel(error_model="numpy")  # a check for division by zero keeps loops scalar
def _add_component(masses, levels, share, loc, scale):
    """Add a component's share of the probability of each level."""
    inside = -share * math.expm1(-1 / scale)
    for k in range(1, levels - 1):
        upper, lower = (k + 0.5 - loc) / scale, (loc - k + 0.5) / scale
        a, b = exp64(-abs(upper)), exp64(-abs(lower))
        a, b = (1.0 if upper > 0 else a) / (1.0 + a), (1.0 if lower > 0 else b) / (1.0 + b)
        store64(masses, k, load64(masses, k) + inside * a * b)
    add64(masses, 0, share * math.exp(log_sigmoid((0.5 - loc) / scale)))
    add64(masses, levels - 1, share * math.exp(log_sigmoid((loc - levels + 1.5) / scale)))


@kernel
def _levels(params, log_p, levels, mixed, constants):
    """Write log p of the levels of a mixture; return whether it is a distribution."""
    places, total = params + 4 * mixed, _log_sum(params, mixed)
    known = not math.isnan(total)
    for i in range(2 * mixed):
        known &= math.isfinite(load(places, i))
    if not known:
        return False
    for k in range(levels):
        store64(log_p, k, 0.0)
    for m in range(mixed):
        loc, scale = component(places, m, mixed, QUANTIZED, constants)
        _add_component(log_p, levels, math.exp(np.float64(load(params, m)) - total), loc, scale)
    hot = sum_of_three(constants, _TEMPERATURE) > _HOT
    for k in range(levels):
        mass, far = load64(log_p, k), -math.inf
        if mass > _RAREST:
            store64(log_p, k, math.log(mass))
        else:
            if hot:
                for m in range(mixed):
                    loc, scale = component(places, m, mixed, QUANTIZED, constants)
                    share = np.float64(load(params, m)) - total
                    far = log_add(far, share + log_density(QUANTIZED, float(k), loc, scale, float(levels)))
            store64(log_p, k, far)
    return True


@kernel
def _masses(params, log_p, count, given, mixed, constants):
    """Write log p of all values; return whether they are a distribution."""
    kind = int(load(constants, _KIND))
    if kind == _LEVELS:
        return _levels(params, log_p, count, mixed, constants)
    if kind == _BIT:
        logit = np.float64(load(params, 0))
        store64(log_p, 0, log_sigmoid(-logit))
        store64(log_p, 1, log_sigmoid(logit))
        return math.isfinite(logit)
    total = _log_sum(params, count)
    for k in range(count):
        store64(log_p, k, np.float64(load(params, k)) - total)
    for k in range(count, given):  # what no value has may be anything but NaN
        logit = load(params, k)
        total = total if logit == logit else math.nan
    return not math.isnan(total)


@kernel
def _before(log_q, a, b):
    """Whether value a is more probable than b, or as probable and smaller."""
    own, other = load64(log_q, a), load64(log_q, b)
    return own > other or (own == other and a < b)


@kernel
def _split(ranks, log_q, weights, first, last):
    """Put what comes before the last of ranks first .. last - 1 before it; return its new place and their weight."""
    pivot, place, weight = get(ranks, last - 1), first, 0.0
    for i in range(first, last - 1):
        value = get(ranks, i)
        if _before(log_q, value, pivot):
            put(ranks, i, get(ranks, place))
            put(ranks, place, value)
            place += 1
            weight += load64(weights, value)
    put(ranks, last - 1, get(ranks, place))
    put(ranks, place, pivot)
    return place, weight


@kernel
def _select(ranks, log_q, weights, count, most, enough):
    """Put the first n of `count` values before the others, and return n: `most`, or as few as have weight enough."""
    first, last, ahead, noise = 0, count, 0.0, 1
    while first < last:
        noise = (noise * 1103515245 + 12345) & 0x7FFFFFFF  # any order of values is as good as another
        chosen = first + (noise >> 8) % (last - first)
        value = get(ranks, chosen)
        put(ranks, chosen, get(ranks, last - 1))
        put(ranks, last - 1, value)
        place, weight = _split(ranks, log_q, weights, first, last)
        # A value is needed if those before it are not enough; the first one is in any case.
        if place < most and (place == 0 or ahead + weight < enough):
            first, ahead = place + 1, ahead + weight + load64(weights, value)
        else:
            last = place
    return first


@kernel
def _rank(log_q, ranks, weights, count, top_k, enough):
    """Cut what `top_k` leaves out of values whose greatest log q is 0, then what those before make up for."""
    kept = count
    for i in range(count):
        put(ranks, i, i)
        store64(weights, i, exp64(load64(log_q, i)))
    if top_k:
        kept = _select(ranks, log_q, weights, count, min(top_k, count), math.inf)
    if enough < 1.0:
        total = 0.0
        for i in range(kept):
            total += load64(weights, get(ranks, i))
        kept = _select(ranks, log_q, weights, kept, kept, enough * total)
    for i in range(kept, count):
        store64(log_q, get(ranks, i), -math.inf)


@kernel
def _cut(log_p, log_q, ranks, weights, count, constants):
    """Write log q of all values, up to a constant, as `Controls.truncated` does."""
    highest = load64(log_p, 0)
    for k in range(count):
        highest = max(highest, load64(log_p, k))
    temperature = sum_of_three(constants, _TEMPERATURE)
    for k in range(count):
        store64(log_q, k, (load64(log_p, k) - highest) / temperature)
    top_k, enough = int(load(constants, _TOP_K)), sum_of_three(constants, _ENOUGH)
    if top_k or enough < 1.0:
        _rank(log_q, ranks, weights, count, top_k, enough)
    least = sum_of_three(constants, _LEAST)
    if least <= 0.0:
        for k in range(count):
            if load64(log_q, k) < least:
                store64(log_q, k, -math.inf)


@kernel
def _choose(log_q, weights, count, u):
    """Return the value of a uniform, and the log of the sum of q of all values."""
    highest = load64(log_q, 0)
    for k in range(count):
        highest = max(highest, load64(log_q, k))
    total = 0.0
    for k in range(count):
        weight = exp64(load64(log_q, k) - highest)
        store64(weights, k, weight)
        total += weight
    cumulative, value = 0.0, count - 1
    for k in range(count):
        cumulative += load64(weights, k)
        if cumulative > u * total:
            value = k
            break
    return value, highest + math.log(total)


@kernel
def _log_total(log_q, count):
    """Return the log of the sum of q of the values, -inf where none is left."""
    highest = -math.inf
    for k in range(count):
        highest = max(highest, load64(log_q, k))
    if math.isinf(highest):
        return highest
    total = 0.0
    for k in range(count):
        total += exp64(load64(log_q, k) - highest)
    return highest + math.log(total)


@kernel
def _with_end(params, log_p, count):
    """Make log p that of values or the end, which comes after them."""
    s = np.float64(load(params, 0))
    for k in range(count):
        store64(log_p, k, log_sigmoid(-s) + load64(log_p, k))
    store64(log_p, count, log_sigmoid(s))


@kernel
def controlled(at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace):
    """Draw a value for each row, or whether it ends; return a row whose parameters are no distribution, or -1.

    Arguments as for `samplers.draw`.
    """
    read, ended, params, constants = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    read_stride, ended_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    params_stride = 4 * get(operands, NUM_OPERANDS + 2)
    given, mixed, ending = get(at, N0), get(at, N1), get(at, N4)
    lane, values = lane + get(at, N2), values + 8 * get(at, N3)
    count, half, offset = int(load(constants, _COUNT)), load(constants, _HALF), load(constants, _OFFSET)
    for row in range(num_rows):
        own, own_row = params + row * params_stride, get(rows, row)
        log_p = workspace
        log_q = log_p + 8 * (count + 1)
        ranks = log_q + 8 * (count + 1)
        weights = ranks + 8 * (count + 1)
        ends = False
        if ending:
            s = np.float64(load(own, 0))
            if ending == 2 and s == math.inf:  # what follows an end: log p and log q are 0
                store(ended + row * ended_stride, 0, ONE)
                continue
            if not math.isfinite(s) or not _masses(own + 4, log_p, count, given, mixed, constants):
                return row
            _with_end(own, log_p, count)
            _cut(log_p, log_q, ranks, weights, count + 1, constants)
            alive = _log_total(log_q, count)
            cut = load64(log_q, count) - alive if alive > -math.inf else math.inf
            ends = uniform(key0, key1, own_row, t, lane) < 1 / (1 + math.exp(-cut))
            store(ended + row * ended_stride, 0, ONE if ends else ZERO)
            score_p, score_q = load64(log_p, count), log_sigmoid(cut if ends else -cut)
        elif not _masses(own, log_p, count, given, mixed, constants):
            return row
        else:
            _cut(log_p, log_q, ranks, weights, count, constants)
            score_p = score_q = 0.0
        if not ends:
            u = uniform(key0, key1, own_row, t, lane + (1 if ending else 0))
            value, total = _choose(log_q, weights, count, u)
            store(
                read + row * read_stride, 0, np.float32(value) / half - ONE if half > 0 else np.float32(value) + offset
            )
            store64(values, row * width, np.float64(value))
            score_p, score_q = load64(log_p, value), score_q + load64(log_q, value) - total
        if scores:
            add64(scores, row * score_width, score_p)
            add64(scores, row * score_width + 1, score_q)
    return -1
