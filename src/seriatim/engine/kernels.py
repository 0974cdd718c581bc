"""The interpreter: one numba function that reads any tape. The only module that imports numba.

Every compiled function is in this file, for numba's disk cache looks at no other: a change elsewhere that alters the
meaning of the code changes `FINGERPRINT`, which `run` compares with the one it was compiled with.

Memory is addressed by integers, as a tape's operands are. `fastmath` allows fused multiply-add and nothing else: NaN
and infinity must survive to the sampler, which reports them.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from seriatim.engine import program
from seriatim.engine.operands import ALIGN, PANEL, Act, Family, Op, Tap

FINGERPRINT = program.FINGERPRINT
OK, STALE = -1, -2

_NUMBERS, _A = program.NUMBERS, program.OPERANDS
_B, _C, _D = _A + program.OPERAND, _A + 2 * program.OPERAND, _A + 3 * program.OPERAND
(
    _LINEAR,
    _ACTIVATE,
    _GATE,
    _ADD,
    _LSTM,
    _BERNOULLI,
    _CATEGORICAL,
    _ROW,
    _,
    _REAL,
    _GRU,
    _NORM,
    _ATTEND,
    _RAGGED,
    _DOT,
) = map(int, Op)
_SELECT, _SUM, _NORMAL, _QUANTIZED = int(Tap.SELECT), int(Tap.ADD), int(Family.NORMAL), int(Family.QUANTIZED_LOGISTIC)
_NONE, _RELU, _TANH, _, _ELU = map(int, Act)

_FLOAT, _INT = ir.FloatType(), ir.IntType(64)
_LANES = 8  # floats of the vectors that the tile asks for; LLVM splits or joins them to what the machine has
_FMA = ("contract",)


@intrinsic
def _load(typing, address, index):
    """Read float `index` at an address."""

    def code(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _FLOAT.as_pointer())
        return builder.load(builder.gep(pointer, [args[1]], inbounds=True))

    return types.float32(types.int64, types.int64), code


@intrinsic
def _store(typing, address, index, value):
    """Write float `index` at an address."""

    def code(context, builder, signature, args):
        pointer = builder.inttoptr(args[0], _FLOAT.as_pointer())
        builder.store(args[2], builder.gep(pointer, [args[1]], inbounds=True))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32), code


def _tile(rows: int, columns: int):
    """Make y[r, c] += sum_i x[r, i] w[i, c] for a fixed block of r and c, the sums held in registers.

    Each sum runs over i in order whatever the block, so a row's result does not depend on the rows beside it.
    """
    vector = ir.VectorType(_FLOAT, _LANES)
    splat = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    parts = columns // _LANES

    def code(context, builder, signature, args):
        y, y_stride, x, x_stride, w, w_stride, count = args
        y, x, w = (builder.inttoptr(address, _FLOAT.as_pointer()) for address in (y, x, w))

        def at(pointer, index):
            return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())

        places = [
            builder.add(builder.mul(y_stride, _INT(row)), _INT(part * _LANES))
            for row in range(rows)
            for part in range(parts)
        ]
        starts = [builder.load(at(y, place), align=4) for place in places]
        x_rows = [builder.mul(x_stride, _INT(row)) for row in range(rows)]
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(_INT)
        i.add_incoming(_INT(0), before)
        sums = [builder.phi(vector) for _ in starts]
        for total, start in zip(sums, starts, strict=True):
            total.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", i, count), body, after)
        builder.position_at_end(body)
        w_row = builder.mul(i, w_stride)
        weights = [builder.load(at(w, builder.add(w_row, _INT(p * _LANES))), align=4) for p in range(parts)]
        for row in range(rows):
            value = builder.load(builder.gep(x, [builder.add(x_rows[row], i)]))
            spread = builder.insert_element(undefined, value, ir.IntType(32)(0))
            spread = builder.shuffle_vector(spread, undefined, splat)
            for part in range(parts):
                total = sums[row * parts + part]
                product = builder.fmul(spread, weights[part], flags=_FMA)
                total.add_incoming(builder.fadd(total, product, flags=_FMA), body)
        i.add_incoming(builder.add(i, _INT(1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for total, place in zip(sums, places, strict=True):
            builder.store(total, at(y, place), align=4)
        return context.get_dummy_value()

    def tile(typing, y, y_stride, x, x_stride, w, w_stride, count):
        return types.void(*[types.int64] * 7), code

    return intrinsic(tile)


_tile_1x64 = _tile(1, PANEL)
_tile_1x16 = _tile(1, ALIGN)
_tile_4x16 = _tile(4, ALIGN)


@intrinsic
def _dot(typing, x, w, count):
    """Return sum_i x[i] w[i], in four vectors of sums and a rest."""
    vector = ir.VectorType(_FLOAT, _LANES)
    step, parts = 4 * _LANES, 4

    def code(context, builder, signature, args):
        x, w = (builder.inttoptr(address, _FLOAT.as_pointer()) for address in args[:2])
        count, before = args[2], builder.block
        names = ("head", "body", "rest", "tail", "after")
        head, body, rest, tail, after = (builder.append_basic_block(name) for name in names)
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(_INT)
        i.add_incoming(_INT(0), before)
        sums = [builder.phi(vector) for _ in range(parts)]
        for total in sums:
            total.add_incoming(ir.Constant(vector, [0.0] * _LANES), before)
        end = builder.add(i, _INT(step))
        builder.cbranch(builder.icmp_signed("<=", end, count), body, rest)
        builder.position_at_end(body)
        for part, total in enumerate(sums):
            place = builder.add(i, _INT(part * _LANES))
            a, b = (
                builder.load(builder.bitcast(builder.gep(p, [place]), vector.as_pointer()), align=4) for p in (x, w)
            )
            total.add_incoming(builder.fadd(total, builder.fmul(a, b, flags=_FMA), flags=_FMA), body)
        i.add_incoming(end, body)
        builder.branch(head)
        builder.position_at_end(rest)
        whole = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
        lanes = [builder.extract_element(whole, ir.IntType(32)(lane)) for lane in range(_LANES)]
        while len(lanes) > 1:
            lanes = [builder.fadd(a, b) for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
        builder.branch(tail)
        builder.position_at_end(tail)
        j, scalar = builder.phi(_INT), builder.phi(_FLOAT)
        j.add_incoming(i, rest)
        scalar.add_incoming(lanes[0], rest)
        more = builder.append_basic_block("more")
        builder.cbranch(builder.icmp_signed("<", j, count), more, after)
        builder.position_at_end(more)
        a, b = (builder.load(builder.gep(p, [j])) for p in (x, w))
        scalar.add_incoming(builder.fadd(scalar, builder.fmul(a, b, flags=_FMA), flags=_FMA), more)
        j.add_incoming(builder.add(j, _INT(1)), more)
        builder.branch(tail)
        builder.position_at_end(after)
        return scalar

    return types.float32(types.int64, types.int64, types.int64), code


# ---- the noise ----


@njit
def _round(c0, c1, c2, c3, k0, k1):
    # As in `seriatim.noise`: the product of two 32-bit words wraps in int64, but its bits are the unsigned product's.
    p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
    mask = 0xFFFFFFFF
    return ((p1 >> 32) & mask) ^ c1 ^ k0, p1 & mask, ((p0 >> 32) & mask) ^ c3 ^ k1, p0 & mask


@njit(cache=True)
def uniform(key0, key1, row, position, lane):
    """Return the uniform of an address, bit for bit that of `seriatim.noise.uniforms`."""
    c0, c1, c2, c3 = lane >> 1, position & 0xFFFFFFFF, row & 0xFFFFFFFF, row >> 32
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1)
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    high, low = (c2, c3) if lane & 1 else (c0, c1)
    return (float((high >> 6) << 26 | (low >> 6)) + 0.5) * 2.0**-52


# ---- functions of one number; written so that LLVM vectorises a loop over them ----

_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND32, _ROUND64 = np.float32(1.5 * 2**23), 1.5 * 2.0**52  # adding it leaves the nearest integer in the low bits
_F1, _F2, _F3, _F4, _F5, _F6, _F7 = (np.float32(1 / math.factorial(k)) for k in range(1, 8))
_LOWEST32, _HIGHEST32, _ONE, _TWO, _ZERO = (np.float32(value) for value in (-87, 88, 1, 2, 0))


@njit(fastmath={"contract"})
def _exp32(x):
    x = _LOWEST32 if x < _LOWEST32 else x
    x = _HIGHEST32 if x > _HIGHEST32 else x
    t = x * _LOG2E + _ROUND32
    n = t - _ROUND32
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((((_F7 * r + _F6) * r + _F5) * r + _F4) * r + _F3) * r + _F2) * r + _F1) * r + _ONE
    return p * np.int32((np.float32(t).view(np.int32) << 23) + (127 << 23)).view(np.float32)


_D1, _D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13 = (1 / math.factorial(k) for k in range(1, 14))


@njit(fastmath={"contract"})
def _exp64(x):
    """exp of a number that is not positive; below e-300 it is 0."""
    y = -690.0 if x < -690.0 else x
    t = y * 1.4426950408889634 + _ROUND64
    n = t - _ROUND64
    r = y - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10
    p = ((((((_D13 * r + _D12) * r + _D11) * r + _D10) * r + _D9) * r + _D8) * r + _D7) * r
    p = ((((((p + _D6) * r + _D5) * r + _D4) * r + _D3) * r + _D2) * r + _D1) * r + 1.0
    p = p * np.int64((np.float64(t).view(np.int64) << 52) + (1023 << 52)).view(np.float64)
    return 0.0 if x < -690.0 else p


@njit(fastmath={"contract"})
def _sigmoid(x):
    return _ONE / (_ONE + _exp32(-x))


@njit(fastmath={"contract"})
def _tanh(x):
    return _TWO / (_ONE + _exp32(-_TWO * x)) - _ONE


@njit
def _activate(y, x, size, act):
    if act == _NONE:
        for i in range(size):
            _store(y, i, _load(x, i))
    elif act == _RELU:
        for i in range(size):
            value = _load(x, i)
            _store(y, i, _ZERO if value < _ZERO else value)
    elif act == _TANH:
        for i in range(size):
            _store(y, i, _tanh(_load(x, i)))
    elif act == _ELU:
        for i in range(size):
            value = _load(x, i)
            _store(y, i, value if value > _ZERO else _exp32(value) - _ONE)
    else:
        for i in range(size):
            _store(y, i, _sigmoid(_load(x, i)))


# ---- the instructions ----


@njit
def _address(code, pc, column, bases, offsets):
    return bases[code[pc, column]] + 4 * (code[pc, column + 1] + offsets[code[pc, column + 2]])


@njit
def _dense(y, y_stride, x, x_stride, w, count, size, rows):
    for panel in range(0, size, PANEL):
        width = min(PANEL, size - panel)
        row = 0
        while row + 4 <= rows:
            for c in range(0, width, ALIGN):
                y_tile = y + 4 * (row * y_stride + panel + c)
                _tile_4x16(y_tile, y_stride, x + 4 * row * x_stride, x_stride, w + 4 * c, width, count)
            row += 4
        while row < rows:
            y_row, x_row = y + 4 * (row * y_stride + panel), x + 4 * row * x_stride
            if width == PANEL:
                _tile_1x64(y_row, y_stride, x_row, x_stride, w, width, count)
            else:
                for c in range(0, width, ALIGN):
                    _tile_1x16(y_row + 4 * c, y_stride, x_row, x_stride, w + 4 * c, width, count)
            row += 1
        w += 4 * count * width


@njit
def _select(y, y_stride, x, x_stride, w, count, size, rows):
    for row in range(rows):
        index = int(_load(x + 4 * row * x_stride, 0))
        for panel in range(0, size, PANEL):
            width = min(PANEL, size - panel)
            w_row, y_row = w + 4 * (count * panel + index * width), y + 4 * (row * y_stride + panel)
            for i in range(width):
                _store(y_row, i, _load(y_row, i) + _load(w_row, i))


@njit
def _linear(code, pc, bases, strides, offsets, rows):
    size, act, taps = code[pc, _NUMBERS], code[pc, _NUMBERS + 1], code[pc, _NUMBERS + 2]
    y, y_stride = _address(code, pc, _A, bases, offsets), strides[code[pc, _A]]
    bias, bias_stride = _address(code, pc, _B, bases, offsets), strides[code[pc, _B]]
    for row in range(rows):
        _activate(y + 4 * row * y_stride, bias + 4 * row * bias_stride, size, _NONE)
    for tap in range(pc + 1, pc + 1 + taps):
        x, x_stride = _address(code, tap, _A, bases, offsets), strides[code[tap, _A]]
        w, count = _address(code, tap, _B, bases, offsets), code[tap, _NUMBERS]
        if code[tap, 0] == _SELECT:
            _select(y, y_stride, x, x_stride, w, count, size, rows)
        elif code[tap, 0] == _SUM:
            for row in range(rows):
                y_row, x_row = y + 4 * row * y_stride, x + 4 * row * x_stride
                for i in range(count):
                    _store(y_row, i, _load(y_row, i) + _load(x_row, i))
        else:
            _dense(y, y_stride, x, x_stride, w, count, size, rows)
    if act != _NONE:
        for row in range(rows):
            _activate(y + 4 * row * y_stride, y + 4 * row * y_stride, size, act)


@njit
def _gate(y, a, b, size, act):
    if act == _TANH:
        for i in range(size):
            _store(y, i, _tanh(_load(a, i)) * _sigmoid(_load(b, i)))
    else:
        _activate(y, a, size, act)
        for i in range(size):
            _store(y, i, _load(y, i) * _sigmoid(_load(b, i)))


@njit
def _lstm(h, c, before, gates, size):
    i, f, g, o = gates, gates + 4 * size, gates + 8 * size, gates + 12 * size
    for k in range(size):
        cell = _sigmoid(_load(f, k)) * _load(before, k) + _sigmoid(_load(i, k)) * _tanh(_load(g, k))
        _store(c, k, cell)
        _store(h, k, _sigmoid(_load(o, k)) * _tanh(cell))


@njit
def _gru(h, before, gates, size):
    r, z, a, b = gates, gates + 4 * size, gates + 8 * size, gates + 12 * size
    for k in range(size):
        keep = _sigmoid(_load(z, k))
        new = _tanh(_load(a, k) + _sigmoid(_load(r, k)) * _load(b, k))
        _store(h, k, new + keep * (_load(before, k) - new))


@njit
def _norm(y, x, constants, size):
    mean, variance = 0.0, 0.0
    for i in range(size):
        mean += float(_load(x, i))
    mean /= size
    for i in range(size):
        variance += (float(_load(x, i)) - mean) ** 2
    center = np.float32(mean)
    scale = np.float32(1.0 / math.sqrt(variance / size + float(_load(constants, 2 * size))))
    for i in range(size):
        _store(y, i, (_load(x, i) - center) * scale * _load(constants, i) + _load(constants, size + i))


@njit
def _attend(y, qkv, keys, values, size, heads, length, t, scores):
    """Keep the key and the value of position t, and attend from its query to all positions up to t."""
    width = size // heads
    for i in range(size):
        _store(keys, i * length + t, _load(qkv, size + i))
        _store(values, t * size + i, _load(qkv, 2 * size + i))
        _store(y, i, _ZERO)
    scale = 1.0 / math.sqrt(width)
    for head in range(0, size, width):
        for s in range(t + 1):
            scores[s] = 0.0
        for i in range(head, head + width):
            q, row = float(_load(qkv, i)) * scale, keys + 4 * i * length
            for s in range(t + 1):
                scores[s] += q * float(_load(row, s))
        highest, known = scores[0], True
        for s in range(t + 1):
            known &= scores[s] == scores[s]
            highest = scores[s] if scores[s] > highest else highest
        total = 0.0
        for s in range(t + 1):
            scores[s] = _exp64(scores[s] - highest)
            total += scores[s]
        total = total if known else math.nan
        for s in range(t + 1):
            share, row = np.float32(scores[s] / total), values + 4 * s * size
            for i in range(head, head + width):
                _store(y, i, _load(y, i) + share * _load(row, i))


@njit
def _ragged(y, x, kept, table, size, positions, features, t):
    """Keep the inputs of position t, and write the outputs that it owns; zeros where others own more."""
    ends = table + 4 * (positions + 1)
    first, last = int(_load(table, t)), int(_load(table, t + 1))
    begin, end = int(_load(ends, t)), int(_load(ends, t + 1))
    weights = ends + 4 * (positions + 1)
    for i in range(last - first):
        _store(kept, first + i, _load(x, i))
    for k in range(size):
        if begin + k < end:
            row = weights + 4 * (begin + k) * features
            _store(y, k, _load(kept, features + begin + k) + _dot(kept, row, last))
        else:
            _store(y, k, _ZERO)


@njit
def _owned(op, code, pc, t, bases, strides, offsets, rows):
    size, a_number, b_number = code[pc, _NUMBERS], code[pc, _NUMBERS + 1], code[pc, _NUMBERS + 2]
    y, y_stride = _address(code, pc, _A, bases, offsets), 4 * strides[code[pc, _A]]
    a, a_stride = _address(code, pc, _B, bases, offsets), 4 * strides[code[pc, _B]]
    b, b_stride = _address(code, pc, _C, bases, offsets), 4 * strides[code[pc, _C]]
    d = _address(code, pc, _D, bases, offsets)
    for _ in range(rows):
        if op == _RAGGED:
            _ragged(y, a, b, d, size, a_number, b_number, t)
        else:
            for k in range(size):
                _store(y, k, _load(b, k) + _dot(a, d + 4 * k * a_number, a_number))
        y, a, b = y + y_stride, a + a_stride, b + b_stride


@njit
def _attention(code, pc, t, bases, strides, offsets, rows, workspace):
    size, heads, length = code[pc, _NUMBERS], code[pc, _NUMBERS + 1], code[pc, _NUMBERS + 2]
    y, y_stride = _address(code, pc, _A, bases, offsets), 4 * strides[code[pc, _A]]
    a, a_stride = _address(code, pc, _B, bases, offsets), 4 * strides[code[pc, _B]]
    b, b_stride = _address(code, pc, _C, bases, offsets), 4 * strides[code[pc, _C]]
    d, d_stride = _address(code, pc, _D, bases, offsets), 4 * strides[code[pc, _D]]
    for _ in range(rows):
        _attend(y, a, b, d, size, heads, length, t, workspace)
        y, a, b, d = y + y_stride, a + a_stride, b + b_stride, d + d_stride


@njit
def _elementwise(op, code, pc, bases, strides, offsets, rows):
    size, act = code[pc, _NUMBERS], code[pc, _NUMBERS + 1]
    y, y_stride = _address(code, pc, _A, bases, offsets), 4 * strides[code[pc, _A]]
    a, a_stride = _address(code, pc, _B, bases, offsets), 4 * strides[code[pc, _B]]
    b, b_stride = _address(code, pc, _C, bases, offsets), 4 * strides[code[pc, _C]]
    d, d_stride = _address(code, pc, _D, bases, offsets), 4 * strides[code[pc, _D]]
    for _ in range(rows):
        if op == _ACTIVATE:
            _activate(y, a, size, act)
        elif op == _ADD:
            for i in range(size):
                _store(y, i, _load(a, i) + _load(b, i))
        elif op == _GATE:
            _gate(y, a, b, size, act)
        elif op == _LSTM:
            _lstm(y, a, b, d, size)
        elif op == _GRU:
            _gru(y, a, b, size)
        elif op == _NORM:
            _norm(y, a, b, size)
        y, a, b, d = y + y_stride, a + a_stride, b + b_stride, d + d_stride


# ---- the samplers: (value, log p); NaN stands for parameters that are no distribution ----


@njit
def _bernoulli(params, u):
    logit = float(_load(params, 0))
    if not math.isfinite(logit):
        return math.nan, 0.0
    tail = math.log1p(math.exp(-abs(logit)))
    if u >= 1 / (1 + math.exp(logit)):
        return 1.0, min(logit, 0.0) - tail
    return 0.0, min(-logit, 0.0) - tail


@njit
def _chosen(params, count, u, workspace):
    """Return the category of a uniform and the log of the sum of all; -1 for logits that are no distribution."""
    highest, known = _load(params, 0), True
    for k in range(count):
        logit = _load(params, k)
        known &= logit == logit
        highest = logit if logit > highest else highest
    if not known or math.isinf(highest):  # single categories may be impossible, with a logit of -inf
        return -1, 0.0
    for k in range(count):
        workspace[k] = _exp64(float(_load(params, k)) - float(highest))
    total = 0.0
    for k in range(count):
        total += workspace[k]
    cumulative, value = 0.0, count - 1
    for k in range(count):
        cumulative += workspace[k]
        if cumulative > u * total:
            value = k
            break
    return value, float(highest) + math.log(total)


@njit
def _categorical(params, count, u, workspace):
    value, total = _chosen(params, count, u, workspace)
    if value < 0:
        return math.nan, 0.0
    return float(value), float(_load(params, value)) - total


# Wichura, Algorithm AS 241: The Percentage Points of the Normal Distribution, 1988. Numerators and denominators of the
# middle, the flanks and the tails, the highest power first.
def _table(numbers: str) -> np.ndarray:
    return np.array(numbers.split(), np.float64).reshape(2, 8)


_MIDDLE = _table("""
    2509.0809287301226727 33430.575583588128105 67265.770927008700853 45921.953931549871457
    13731.693765509461125 1971.5909503065514427 133.14166789178437745 3.3871328727963666080
    5226.4952788528545610 28729.085735721942674 39307.895800092710610 21213.794301586595867
    5394.1960214247511077 687.18700749205790830 42.313330701600911252 1
""")
_FLANK = _table("""
    7.74545014278341407640e-4 0.0227238449892691845833 0.241780725177450611770 1.27045825245236838258
    3.64784832476320460504 5.76949722146069140550 4.63033784615654529590 1.42343711074968357734
    1.05075007164441684324e-9 5.47593808499534494600e-4 0.0151986665636164571966 0.148103976427480074590
    0.689767334985100004550 1.67638483018380384940 2.05319162663775882187 1
""")
_TAIL = _table("""
    2.01033439929228813265e-7 2.71155556874348757815e-5 1.24266094738807843860e-3 0.0265321895265761230930
    0.296560571828504891230 1.78482653991729133580 5.46378491116411436990 6.65790464350110377720
    2.04426310338993978564e-15 1.42151175831644588870e-7 1.84631831751005468180e-5 7.86869131145613259100e-4
    0.0148753612908506148525 0.136929880922735805310 0.599832206555887937690 1
""")


@njit
def _ratio(x, polynomials):
    above = below = 0.0
    for k in range(8):
        above = above * x + polynomials[0, k]
        below = below * x + polynomials[1, k]
    return above / below


@njit
def normal_quantile(u):
    """Return z with Phi(z) = u, to about 1e-15."""
    q = u - 0.5
    if abs(q) <= 0.425:
        return q * _ratio(0.180625 - q * q, _MIDDLE)
    r = math.sqrt(-math.log(u if q < 0 else 1.0 - u))
    z = _ratio(r - 1.6, _FLANK) if r <= 5.0 else _ratio(r - 5.0, _TAIL)
    return -z if q < 0 else z


@njit
def _log_sigmoid(x):
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@njit
def _log_density(family, value, loc, scale, levels):
    if family == _NORMAL:
        z = (value - loc) / scale
        return -0.5 * z * z - math.log(scale) - 0.9189385332046727
    if family != _QUANTIZED:
        z = (value - loc) / scale
        return _log_sigmoid(z) + _log_sigmoid(-z) - math.log(scale)
    upper, lower = (value + 0.5 - loc) / scale, (value - 0.5 - loc) / scale
    if value <= 0:
        return _log_sigmoid(upper)
    if value >= levels - 1:
        return _log_sigmoid(-lower)
    return _log_sigmoid(upper) + _log_sigmoid(-lower) + math.log(-math.expm1(-1 / scale))


@njit
def _component(params, m, count, family, constants):
    """Return the location and the scale of component m of `count`, of whole numbers in their own unit."""
    loc, log_scale = _load(params, m), _load(params, count + m)
    scale = np.float32(math.exp(min(float(log_scale), 30.0))) + _load(constants, 0)
    if family == _QUANTIZED:
        half = _load(constants, 1)
        return float((loc + _ONE) * half), float(scale * half)
    return float(loc), float(scale)


@njit
def _real(params, mixed, family, constants, u0, u1, workspace, scored):
    """Sample a location-scale distribution (mixed = 0), or a mixture of as many; whole numbers if it is quantised."""
    count, chosen, total, places = max(mixed, 1), 0, 0.0, params + 4 * mixed
    for i in range(2 * count):
        if not math.isfinite(_load(places, i)):
            return math.nan, 0.0
    if mixed:  # single components may be impossible, with a logit of -inf
        chosen, total = _chosen(params, mixed, u0, workspace)
        if chosen < 0:
            return math.nan, 0.0
    loc, scale = _component(places, chosen, count, family, constants)
    u, levels = u1 if mixed else u0, float(_load(constants, 2))
    z = normal_quantile(u) if family == _NORMAL else math.log(u / (1.0 - u))
    value = loc + scale * z
    if family == _QUANTIZED:
        value = min(max(math.floor(value + 0.5), 0.0), levels - 1)
    else:
        value = float(np.float32(value))
    if not scored:
        return value, 0.0
    log_prob = -math.inf
    for m in range(count):
        own_loc, own_scale = _component(places, m, count, family, constants)
        term = _log_density(family, value, own_loc, own_scale, levels)
        if mixed:
            term += float(_load(params, m)) - total
        high, low = max(log_prob, term), min(log_prob, term)
        log_prob = high + math.log1p(math.exp(low - high)) if high > -math.inf else high
    return value, log_prob


@njit
def _sample(code, pc, t, bases, strides, offsets, rows, key0, key1, workspace, values, log_probs, column):
    """Sample a value for each row into its input and a column; return a row without a distribution, or -1."""
    op, scored = code[pc, 0], log_probs.shape[1] > 0
    target, target_stride = _address(code, pc, _A, bases, offsets), strides[code[pc, _A]]
    params, params_stride = _address(code, pc, _B, bases, offsets), strides[code[pc, _B]]
    constants = _address(code, pc, _C, bases, offsets)
    for row in range(len(rows)):
        u = uniform(key0, key1, rows[row], t, 0)
        own = params + 4 * row * params_stride
        if op == _BERNOULLI:
            value, log_prob = _bernoulli(own, u)
        elif op == _CATEGORICAL:
            value, log_prob = _categorical(own, code[pc, _NUMBERS], u, workspace)
        else:
            mixed, family = code[pc, _NUMBERS], code[pc, _NUMBERS + 1]
            second = uniform(key0, key1, rows[row], t, 1) if mixed else u
            value, log_prob = _real(own, mixed, family, constants, u, second, workspace, scored)
        if math.isnan(value):
            return row
        read = np.float32(value)
        if op == _REAL and code[pc, _NUMBERS + 1] == _QUANTIZED:
            read = read / _load(constants, 1) - _ONE
        _store(target + 4 * row * target_stride, 0, read)
        values[row, column] = value
        if scored:
            log_probs[row, column] = log_prob
    return -1


@njit
def _place(cursors, t, offsets):
    """Set the cursors to position t."""
    width, shift, row, column = -1, 0, 0, 0
    for c in range(len(cursors)):
        if cursors[c, 3] != width or cursors[c, 5] != shift:  # most share an image: one division serves them all
            width, shift = cursors[c, 3], cursors[c, 5]
            row = (t - shift) // width
            column = t - shift - row * width
        if t < shift:
            offsets[c] = cursors[c, 0] * cursors[c, 1]
        else:
            offsets[c] = (row - cursors[c, 2]) % cursors[c, 0] * cursors[c, 1] + column * cursors[c, 4]


@njit
def _span(code, pc, stop, bases, strides, offsets, rows):
    """Run instructions pc .. stop - 1, among which there is no loop and no sampler."""
    while pc < stop:
        if code[pc, 0] == _LINEAR:
            _linear(code, pc, bases, strides, offsets, rows)
            pc += code[pc, _NUMBERS + 2]
        else:
            _elementwise(code[pc, 0], code, pc, bases, strides, offsets, rows)
        pc += 1


@njit
def _row_loop(code, pc, t, cursors, bases, strides, offsets, rows):
    """Run the instructions of a ROW for each pixel of the row that begins at t, if one does."""
    count, width, flags = code[pc, _NUMBERS], code[pc, _NUMBERS + 1], code[pc, _NUMBERS + 2]
    if t % width or (flags & 2 and t < width):
        return
    for step in range(width):
        _place(cursors, t + (width - 1 - step if flags & 1 else step), offsets)
        _span(code, pc + 1, pc + 1 + count, bases, strides, offsets, rows)
    _place(cursors, t, offsets)


@njit(cache=True, nogil=True)
def run(code, cursors, bases, strides, rows, key0, key1, start, stop, first, values, log_probs, workspace, fingerprint):
    """Run a tape for positions start .. stop - 1 of a block of rows.

    Args:
        code: (N, COLUMNS) int64.
        cursors: (C, CURSOR) int64.
        bases: (3,) int64, the addresses of the arenas, those of the block's first row.
        strides: (3,) int64, floats between rows in each arena; 0 for the weights.
        rows: (B,) int64, the row numbers of the noise.
        key0, key1: the seed.
        start, stop: positions.
        first: the position of the first column of values.
        values: (B, n) float32, written.
        log_probs: (B, n) float32, written, or (B, 0).
        workspace: float64.
        fingerprint: that of the code.

    Returns:
        (OK, 0), (STALE, 0), or the position and the row in the block whose parameters are no distribution.
    """
    if fingerprint != FINGERPRINT:
        return STALE, 0
    offsets = np.zeros(len(cursors), np.int64)
    for t in range(start, stop):
        _place(cursors, t, offsets)
        pc = 0
        while pc < len(code):
            op = code[pc, 0]
            if op == _LINEAR:
                _linear(code, pc, bases, strides, offsets, len(rows))
                pc += code[pc, _NUMBERS + 2]
            elif op == _ROW:
                _row_loop(code, pc, t, cursors, bases, strides, offsets, len(rows))
                pc += code[pc, _NUMBERS]
            elif op in (_BERNOULLI, _CATEGORICAL, _REAL):
                memory = (code, pc, t, bases, strides, offsets, rows, key0, key1, workspace)
                bad = _sample(*memory, values, log_probs, t - first)
                if bad >= 0:
                    return t, bad
            elif op in (_RAGGED, _DOT):
                _owned(op, code, pc, t, bases, strides, offsets, len(rows))
            elif op == _ATTEND:
                _attention(code, pc, t, bases, strides, offsets, len(rows), workspace)
            else:
                _elementwise(op, code, pc, bases, strides, offsets, len(rows))
            pc += 1
    return OK, 0
