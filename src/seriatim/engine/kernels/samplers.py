"""The samplers: a value, and its log p where it is asked for, from the parameters of a head and the addressed noise.

A sampler writes the value, and what the network reads of it. It returns log p, 0 where that is not asked for, and NaN
for parameters that are no distribution; besides log q of what was sampled, where controls may make it another one.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from seriatim.engine.kernels.chosen import category
from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import (
    N0,
    N1,
    N2,
    N3,
    N4,
    N5,
    NUM_OPERANDS,
    add64,
    get,
    load,
    load64,
    store,
    store64,
)
from seriatim.engine.kernels.noise import uniform, uniforms
from seriatim.engine.kernels.numbers import ONE, ZERO, exp64
from seriatim.engine.kernels.quantiles import (
    NORMAL,
    QUANTIZED,
    log_add,
    log_density,
    log_sigmoid,
    normal_quantile,
    scale_of,
)
from seriatim.engine.operands import Op

_BERNOULLI, _CATEGORICAL, _REAL, _STOP = (int(op) for op in (Op.BERNOULLI, Op.CATEGORICAL, Op.REAL, Op.STOP))


@kernel
def _bernoulli(params, read, value, u):
    logit = np.float64(load(params, 0))
    if not math.isfinite(logit):
        return math.nan
    tail = math.log1p(math.exp(-abs(logit)))
    bit = 1.0 if u >= 1 / (1 + math.exp(logit)) else 0.0
    store(read, 0, np.float32(bit))
    store64(value, 0, bit)
    return min(logit if bit else -logit, 0.0) - tail


@kernel(error_model="numpy")
def _choose_bits(logits, noise, num_rows):
    """Write 0 or 1 in place of each logit; return how many are no numbers."""
    bad = 0
    for row in range(num_rows):
        logit = load64(logits, row)
        bad += 0 if math.isfinite(logit) else 1
        small = exp64(-abs(logit))
        zero = (small if logit > 0 else 1.0) / (1.0 + small)
        store64(logits, row, 1.0 if load64(noise, row) >= zero else 0.0)
    return bad


@kernel
def _bits(params, params_stride, read, read_stride, values, width, num_rows, noise, logits):
    """Sample a bit for each row without its log p; return a row whose logit is no number, or -1.

    The arithmetic stands in a loop over what lies side by side, which LLVM vectorises.
    """
    for row in range(num_rows):
        store64(logits, row, np.float64(load(params + row * params_stride, 0)))
    bad = _choose_bits(logits, noise, num_rows)
    for row in range(num_rows):
        bit = load64(logits, row)
        if bad and not math.isfinite(load(params + row * params_stride, 0)):
            return row
        store(read + row * read_stride, 0, np.float32(bit))
        store64(values, row * width, bit)
    return -1


@kernel
def _categorical(params, read, value, count, given, offset, u, workspace):
    chosen, total = category(params, count, given, u, workspace)
    if chosen < 0:
        return math.nan
    store(read, 0, np.float32(chosen + offset))
    store64(value, 0, float(chosen))
    return np.float64(load(params, chosen)) - total


@kernel
def component(params, m, count, family, constants):
    """Return the location and the scale of component m of `count`, of whole numbers in their own unit."""
    loc, log_scale = load(params, m), load(params, count + m)
    scale = scale_of(log_scale) + load(constants, 0)
    if family == QUANTIZED:
        half = load(constants, 1)
        return float((loc + ONE) * half), float(scale * half)
    return float(loc), float(scale)


@kernel
def _real(params, read, out, mixed, family, constants, u0, u1, workspace, scored):
    """Sample a location-scale distribution (mixed = 0), or a mixture of as many; whole numbers if it is quantised.

    A temperature widens a normal. Return log p and log q.
    """
    count, chosen, total, places = max(mixed, 1), 0, 0.0, params + 4 * mixed
    for i in range(2 * count):
        if not math.isfinite(load(places, i)):
            return math.nan, 0.0
    if mixed:  # single components may be impossible, with a logit of -inf
        chosen, total = category(params, mixed, mixed, u0, workspace)
        if chosen < 0:
            return math.nan, 0.0
    loc, scale = component(places, chosen, count, family, constants)
    scale *= load(constants, 3)
    u, levels = u1 if mixed else u0, np.float64(load(constants, 2))
    z = normal_quantile(u) if family == NORMAL else math.log(u / (1.0 - u))
    value = loc + scale * z
    if family == QUANTIZED:
        value = min(max(math.floor(value + 0.5), 0.0), levels - 1)
        store(read, 0, np.float32(value) / load(constants, 1) - ONE)
    else:
        value = float(np.float32(value))
        store(read, 0, np.float32(value))
    store64(out, 0, value)
    log_prob = -math.inf
    if not scored:
        return 0.0, 0.0
    for m in range(count):
        own_loc, own_scale = component(places, m, count, family, constants)
        term = log_density(family, value, own_loc, own_scale, levels)
        if mixed:
            term += np.float64(load(params, m)) - total
        log_prob = log_add(log_prob, term)
    return log_prob, log_prob if load(constants, 3) == ONE else log_density(family, value, loc, scale, levels)


@kernel
def _stop(at, t, lane, operands, rows, num_rows, key0, key1, scores, score_width):
    """Decide for each row whether its sequence ends here; return a row whose s is no number, or -1."""
    ended, params = get(operands, 0), get(operands, 1)
    ended_stride, params_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    certain, lane = get(at, N1), lane + get(at, N2)
    for row in range(num_rows):
        s = np.float64(load(params + row * params_stride, 0))
        if not math.isfinite(s) and not (certain and s > 0):
            return row
        ends = uniform(key0, key1, get(rows, row), t, lane) < 1 / (1 + math.exp(-s))
        store(ended + row * ended_stride, 0, ONE if ends else ZERO)
        if scores:
            log_prob = log_sigmoid(s if ends else -s)
            add64(scores, row * score_width, log_prob)
            add64(scores, row * score_width + 1, log_prob)
    return -1


@kernel
def draw(op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace):
    """Sample a value for each row, or whether it ends; return a row whose parameters are no distribution, or -1.

    Args:
        op: the instruction at `at`, whose operands are resolved.
        t, lane: the address of the noise, but for the lanes that the instruction adds.
        rows: the row numbers of the noise.
        values: where the first row's numbers go; `width` numbers from row to row.
        scores: where log p and log q of the first row are added up, or 0; `score_width` numbers from row to row.
    """
    if op == _STOP:
        return _stop(at, t, lane, operands, rows, num_rows, key0, key1, scores, score_width)
    read, params, constants, ended = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    read_stride, params_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    ended_stride = 4 * get(operands, NUM_OPERANDS + 3)
    size, other, flagged = get(at, N0), get(at, N1), get(at, N4)
    lane, values, scored = lane + get(at, N2), values + 8 * get(at, N3), scores != 0
    noise, workspace = workspace, workspace + 8 * num_rows
    uniforms(noise, rows, num_rows, key0, key1, t, lane)
    if op == _BERNOULLI and not (scored or flagged):
        return _bits(params, params_stride, read, read_stride, values, width, num_rows, noise, workspace)
    for row in range(num_rows):
        if not (flagged and load(ended + row * ended_stride, 0) > 0):
            own, seen, out = params + row * params_stride, read + row * read_stride, values + 8 * row * width
            u, log_q = load64(noise, row), 0.0
            if op == _BERNOULLI:
                log_prob = _bernoulli(own, seen, out, u)
            elif op == _CATEGORICAL:
                count = int(load(constants, 0)) if get(at, N5) else size
                log_prob = _categorical(own, seen, out, count, size, other, u, workspace)
            else:
                second = uniform(key0, key1, get(rows, row), t, lane + 1) if size else u
                log_prob, log_q = _real(own, seen, out, size, other, constants, u, second, workspace, scored)
            if math.isnan(log_prob):
                return row
            if scored:
                own_score = row * score_width
                add64(scores, own_score, log_prob)
                add64(scores, own_score + 1, log_q if op == _REAL else log_prob)
    return -1


@kernel
def mark(at, operands, num_rows, values, width):
    """Put the mark of the end in place of the values that rows have not; return whether no row has one."""
    read, ended, constants = get(operands, 0), get(operands, 1), get(operands, 2)
    read_stride, ended_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    features, count, one_hot = get(at, N0), get(at, N1), get(at, N4)
    values += 8 * get(at, N3)
    none = True
    for row in range(num_rows):
        ends = load(ended + row * ended_stride, 0) > 0
        none &= ends
        seen = read + row * read_stride
        if ends:
            write_end(seen, features, one_hot)
            for k in range(count):
                store64(values, row * width + k, np.float64(load(constants, 0)))
        elif not one_hot:
            store(seen, features - 1, ZERO)
    return none


@kernel
def write_end(read, features, one_hot):
    """Write what a network reads of an end: the last of its features, or the index of that one."""
    if one_hot:
        store(read, 0, np.float32(features - 1))
    else:
        for k in range(features):
            store(read, k, ONE if k == features - 1 else ZERO)
