"""What a tape without its sampler hands out: the parameters of a position, or the most probable of its symbols."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import (
    FLOAT,
    INT,
    N0,
    N1,
    N2,
    N3,
    N4,
    N5,
    NUM_OPERANDS,
    get,
    load,
    load64,
    store,
    store64,
)
from seriatim.engine.kernels.numbers import INFINITY, ONE, ZERO, copy, exp32
from seriatim.engine.kernels.tile import LANES

BLOCK = 64  # symbols whose greatest number is kept, so that the next best one is found in few of them


def _largest_of_block():
    """Make the largest of `BLOCK` numbers, compared in vectors; of NaN it says nothing."""
    vector, parts = ir.VectorType(FLOAT, LANES), BLOCK // LANES

    def code(context, builder, signature, args):
        x = builder.inttoptr(args[0], FLOAT.as_pointer())

        def read(part):
            place = builder.gep(x, [INT(part * LANES)])
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=4)

        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def joined(values):
            while len(values) > 1:
                values = [larger(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
            return values[0]

        whole = joined([read(part) for part in range(parts)])
        return joined([builder.extract_element(whole, ir.IntType(32)(lane)) for lane in range(LANES)])

    def largest(typing, x):
        return types.float32(types.int64), code

    return intrinsic(largest)


_whole_block = _largest_of_block()


@kernel
def _top(x, first, count):
    """Return the largest number of the block that begins at `first`."""
    if count - first >= BLOCK:
        return _whole_block(x + 4 * first)
    top = load(x, first)
    for k in range(first + 1, count):
        number = load(x, k)
        top = number if number > top else top
    return top


@kernel(fastmath={"contract", "reassoc"})
def _mass(x, count, highest):
    """Return the sum of exp(x - highest): NaN if one is."""
    total = ZERO
    for k in range(count):
        total += exp32(load(x, k) - highest)
    return total


@kernel
def _best(params, count, most, out, workspace):
    """Write log p of the `most` most probable of `count` symbols, then their numbers; return whether there are any."""
    tops, own = workspace, workspace + 4 * (count // BLOCK + 1)
    copy(own, params, count)
    highest = -INFINITY
    for first in range(0, count, BLOCK):
        top = _top(own, first, count)
        store(tops, first // BLOCK, top)
        highest = top if top > highest else highest
    total = _mass(own, count, highest)
    if not math.isfinite(highest) or not math.isfinite(total):
        return False
    log_total = np.float64(highest) + math.log(np.float64(total))
    for j in range(most):
        block, top = 0, load(tops, 0)
        for b in range(1, (count + BLOCK - 1) // BLOCK):
            if load(tops, b) > top:
                block, top = b, load(tops, b)
        symbol = block * BLOCK
        while load(own, symbol) != top:
            symbol += 1
        store64(out, j, np.float64(top) - log_total)
        store64(out, most + j, np.float64(symbol))
        store(own, symbol, -INFINITY)
        store(tops, block, _top(own, block * BLOCK, count))
    return True


@kernel
def _take(read, symbol, ends, features, offset):
    """Write what the network reads of a symbol, or of the end: the last feature, or index."""
    for k in range(features):
        store(read, k, ZERO)
    if not ends:
        store(read, 0, np.float32(symbol + offset))
    elif features > 1:
        store(read, features - 1, ONE)


@kernel
def show(at, operands, num_rows, values, width, step, left, workspace):
    """Hand out the parameters of each row, or the best symbols; return a row that has none, -1, or -2 if all end.

    The numbers of the instruction: how many parameters there are, how many of the symbols are asked for (0: the
    parameters), whether the first parameter is that of the end, which is handed out as it is, whether the best is taken
    for the next position, and then what is added to a symbol that is read, and of how many numbers. Where all rows have
    ended, an infinite parameter of the end is handed out for the `left` positions that follow, `step` numbers apart.
    """
    read, params = get(operands, 0), get(operands, 1)
    read_stride, stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    size, most, ending, taken, offset, features = (
        get(at, N0), get(at, N1), get(at, N2), get(at, N3), get(at, N4), get(at, N5),
    )  # fmt: skip
    none = True
    for row in range(num_rows):
        own, out = params + row * stride, values + 8 * row * width
        if not most:
            for k in range(size):
                store64(out, k, np.float64(load(own, k)))
            continue
        end = np.float64(load(own, 0)) if ending else -math.inf
        if end != end or not _best(own + 4 * ending, size - ending, most, out, workspace):
            return row
        store64(out, 2 * most, end)
        if taken:
            ends = end > load64(out, 0)
            none &= ends
            _take(read + row * read_stride, int(load64(out, most)), ends, features, offset)
    if not (taken and none):
        return -1
    for row in range(num_rows):
        for position in range(1, left + 1):
            store64(values, row * width + position * step + 2 * most, math.inf)
    return -2
