"""The matrix products: blocks of sums held in registers, in LLVM's own vectors.

`contract` allows fused multiply-add and nothing else: NaN and infinity must survive to the sampler, which reports them.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import FLOAT, INT
from seriatim.engine.operands import ALIGN, PANEL

LANES = 8  # floats of the vectors that the tile asks for; LLVM splits or joins them to what the machine has
_FMA = ("contract",)
_MANY = bool(binding.get_host_cpu_features().get("avx512vl"))  # 32 vector registers, where others have 16

PRODUCT = 12  # numbers that describe a product to a tile

# Narrow products have few sums: two chains of additions for each hide the time that one addition takes.
NARROW = 2 * ALIGN
NARROW_ROWS, WIDE_COLUMNS, WIDE_LANES = (4, PANEL, 2 * LANES) if _MANY else (2, ALIGN, LANES)


def _tile(rows: int, columns: int, chains: int = 1, *, lanes: int = LANES, bf16: bool = False):
    """Make y = max(start + more + sum_i x_i w_i, 0) for a block of rows and columns, the sums held in registers.

    There is no `more` where its address is 0, the maximum is taken where `relu` is not 0, and a second output
    z = max(y, 0) is written where its address is not 0. Number i is added to chain i mod `chains`, in order, whatever
    the block: a row's result does not depend on the rows beside it. NaN stays NaN.

    The tile takes a product: the addresses of (y, z, start, more, x), each with the floats from row to row, the count
    of i, and `relu`. Then its first row and column, the address of the first weight, and the floats from i to i.

    Weights of 16 bits lie in pairs in the place of a float: those of 8 columns in the low halves of 8 floats, those of
    the next 8 in the high ones.
    """
    vector = ir.VectorType(FLOAT, lanes)
    splat = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    undefined, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * lanes)
    words = ir.VectorType(ir.IntType(32), lanes)
    sixteen, high = ir.Constant(words, [16] * lanes), ir.Constant(words, [0xFFFF0000] * lanes)
    parts = columns // lanes

    def code(context, builder, signature, args):
        numbers = list(cgutils.unpack_tuple(builder, args[0], PRODUCT))
        pairs, (count, relu), (row, column) = numbers[:-2], numbers[-2:], args[1:3]
        has_z, has_more = (builder.icmp_signed("!=", pairs[k], INT(0)) for k in (2, 6))

        def first(k):
            shift = builder.add(builder.mul(row, pairs[k + 1]), INT(0) if k == 8 else column)
            return builder.inttoptr(builder.add(pairs[k], builder.mul(shift, INT(4))), FLOAT.as_pointer())

        y, z, start, more, x = (first(k) for k in range(0, 10, 2))
        y_stride, z_stride, start_stride, more_stride, x_stride = pairs[1:10:2]
        w, w_stride = builder.inttoptr(args[3], FLOAT.as_pointer()), args[4]

        def at(pointer, index):
            return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())

        def places(stride):
            begins = [builder.mul(stride, INT(row)) for row in range(rows)]
            return [builder.add(first, INT(part * lanes)) for first in begins for part in range(parts)]

        def everywhere(value):
            single = builder.insert_element(undefined, value, ir.IntType(32)(0))
            return builder.shuffle_vector(single, undefined, splat)

        def above(total, least):  # where neither is more, as with NaN, the sum stays
            return builder.select(builder.fcmp_ordered("<", total, least), least, total)

        def weights_of(i):
            w_row = builder.mul(i, w_stride)
            if not bf16:
                return [builder.load(at(w, builder.add(w_row, INT(p * lanes))), align=4) for p in range(parts)]
            halves = []
            for p in range(parts // 2):
                place = builder.bitcast(at(w, builder.add(w_row, INT(p * lanes))), words.as_pointer())
                both = builder.load(place, align=4)
                halves += [builder.shl(both, sixteen), builder.and_(both, high)]
            return [builder.bitcast(half, vector) for half in halves]

        def added(sums, i):
            weights = weights_of(i)
            totals = []
            for row in range(rows):
                spread = everywhere(builder.load(builder.gep(x, [builder.add(x_rows[row], i)])))
                products = [builder.fmul(spread, weight, flags=_FMA) for weight in weights]
                own = sums[row * parts : (row + 1) * parts]
                totals += [builder.fadd(s, product, flags=_FMA) for s, product in zip(own, products, strict=True)]
            return totals

        names = ("longer", "before", "head", "body", "rest", "one", "out", "second", "after")
        longer, before, head, body, rest, one, out, second, after = (builder.append_basic_block(n) for n in names)
        x_rows = [builder.mul(x_stride, INT(row)) for row in range(rows)]
        firsts = [builder.load(at(start, place), align=4) for place in places(start_stride)]
        entry = builder.block
        builder.cbranch(has_more, longer, before)
        builder.position_at_end(longer)
        summands = [builder.load(at(more, place), align=4) for place in places(more_stride)]
        both = [builder.fadd(a, b) for a, b in zip(firsts, summands, strict=True)]
        builder.branch(before)
        builder.position_at_end(before)
        starts = [builder.phi(vector) for _ in firsts]
        for total, first, summed in zip(starts, firsts, both, strict=True):
            total.add_incoming(first, entry)
            total.add_incoming(summed, longer)
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(INT)
        i.add_incoming(INT(0), before)
        sums = [[builder.phi(vector) for _ in starts] for _ in range(chains)]
        for chain, totals in enumerate(sums):
            for total, first in zip(totals, starts, strict=True):
                total.add_incoming(zeros if chain else first, before)
        end = builder.add(i, INT(chains))
        builder.cbranch(builder.icmp_signed("<=", end, count), body, rest)
        builder.position_at_end(body)
        for chain, totals in enumerate(sums):
            for total, summed in zip(totals, added(totals, builder.add(i, INT(chain))), strict=True):
                total.add_incoming(summed, body)
        i.add_incoming(end, body)
        builder.branch(head)
        builder.position_at_end(rest)  # of two chains, a last number belongs to the first
        results = sums[0]
        if chains > 1:
            builder.cbranch(builder.icmp_signed("<", i, count), one, out)
            builder.position_at_end(one)
            added_last = added(results, i)
            builder.branch(out)
            builder.position_at_end(out)
            ends = [builder.phi(vector) for _ in results]
            for total, short, long in zip(ends, results, added_last, strict=True):
                total.add_incoming(short, rest)
                total.add_incoming(long, one)
            results = [builder.fadd(a, b) for a, b in zip(ends, sums[1], strict=True)]
        else:
            builder.branch(out)
            builder.position_at_end(one)
            builder.unreachable()
            builder.position_at_end(out)
        lowest = ir.Constant(vector, [-math.inf] * lanes)
        least = builder.select(builder.icmp_signed("!=", relu, INT(0)), zeros, lowest)
        results = [above(total, least) for total in results]
        for result, place in zip(results, places(y_stride), strict=True):
            builder.store(result, at(y, place), align=4)
        builder.cbranch(has_z, second, after)
        builder.position_at_end(second)
        for result, place in zip(results, places(z_stride), strict=True):
            builder.store(above(result, zeros), at(z, place), align=4)
        builder.branch(after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    def tile(typing, product, row, column, w, w_stride):
        return types.void(types.UniTuple(types.int64, PRODUCT), *[types.int64] * 4), code

    return intrinsic(tile)


tile_1x64 = _tile(1, PANEL)
tile_1x16 = _tile(1, ALIGN)
tile_4x16 = _tile(4, ALIGN)
tile_4_wide = _tile(4, WIDE_COLUMNS, lanes=WIDE_LANES)
narrow_1x8 = _tile(1, LANES, chains=2)
narrow_1x16 = _tile(1, ALIGN, chains=2)
narrow_1x32 = _tile(1, 2 * ALIGN, chains=2)
narrow_rows = _tile(NARROW_ROWS, ALIGN, chains=2, lanes=WIDE_LANES)
bf16_1x64 = _tile(1, PANEL, bf16=True)
bf16_1x16 = _tile(1, ALIGN, bf16=True)
bf16_4x16 = _tile(4, ALIGN, bf16=True)


@kernel
def narrow(product, w, size, rows):
    """Run a product with packed weights, of one or two tiles of columns, for all rows."""
    row = 0
    while row < rows:
        many = rows - row >= NARROW_ROWS
        if not many and size == NARROW:
            narrow_1x32(product, row, 0, w, size)
        else:
            for c in range(0, size, ALIGN):
                if many:
                    narrow_rows(product, row, c, w + 4 * c, size)
                else:
                    narrow_1x16(product, row, c, w + 4 * c, size)
        row += NARROW_ROWS if many else 1


def _dots(rows: int):
    """Make y[r] += sum_i x[r, i] w[i] for a block of rows, each in four vectors of sums, one more, and a rest.

    Takes the addresses of (y, x), each with the floats from row to row, that of w, and the count of i.
    """
    vector, parts = ir.VectorType(FLOAT, LANES), 4
    zeros = ir.Constant(vector, [0.0] * LANES)

    def code(context, builder, signature, args):
        y, x, w = (builder.inttoptr(args[k], FLOAT.as_pointer()) for k in (0, 2, 4))
        y_stride, x_stride, count = args[1], args[3], args[5]
        x_rows = [builder.gep(x, [builder.mul(x_stride, INT(row))]) for row in range(rows)]

        def read(pointer, index):
            return builder.load(builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer()), align=4)

        def plus(total, a, b):
            return builder.fadd(total, builder.fmul(a, b, flags=_FMA), flags=_FMA)

        def loop(first, starts, step, body):
            """Run `body(i, totals)` as long as a whole step is left; return where it ends, and the totals."""
            before = builder.block
            head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
            builder.branch(head)
            builder.position_at_end(head)
            i = builder.phi(INT)
            i.add_incoming(first, before)
            totals = [builder.phi(start.type) for start in starts]
            for total, start in zip(totals, starts, strict=True):
                total.add_incoming(start, before)
            end = builder.add(i, INT(step))
            builder.cbranch(builder.icmp_signed("<=", end, count), inside, after)
            builder.position_at_end(inside)
            for total, more in zip(totals, body(i, totals), strict=True):
                total.add_incoming(more, builder.block)
            i.add_incoming(end, builder.block)
            builder.branch(head)
            builder.position_at_end(after)
            return i, totals

        def four(i, totals):
            places = [builder.add(i, INT(part * LANES)) for part in range(parts)]
            weights = [read(w, place) for place in places]
            pairs = [
                (read(own, place), weight) for own in x_rows for place, weight in zip(places, weights, strict=True)
            ]
            return [plus(total, *pair) for total, pair in zip(totals, pairs, strict=True)]

        def one(i, totals):
            weight = read(w, i)
            return [plus(total, read(own, i), weight) for total, own in zip(totals, x_rows, strict=True)]

        def single(i, totals):
            weight = builder.load(builder.gep(w, [i]))
            numbers = [builder.load(builder.gep(own, [i])) for own in x_rows]
            return [plus(total, number, weight) for total, number in zip(totals, numbers, strict=True)]

        def joined(values):
            while len(values) > 1:
                values = [builder.fadd(a, b) for a, b in zip(values[::2], values[1::2], strict=True)]
            return values[0]

        i, sums = loop(INT(0), [zeros] * (rows * parts), parts * LANES, four)
        i, wholes = loop(i, [joined(sums[row * parts : (row + 1) * parts]) for row in range(rows)], LANES, one)
        lanes = [[builder.extract_element(whole, ir.IntType(32)(lane)) for lane in range(LANES)] for whole in wholes]
        _, totals = loop(i, [joined(own) for own in lanes], 1, single)
        for row, total in enumerate(totals):
            place = builder.gep(y, [builder.mul(y_stride, INT(row))])
            builder.store(builder.fadd(builder.load(place), total), place)
        return context.get_dummy_value()

    def dots(typing, y, y_stride, x, x_stride, w, count):
        return types.void(*[types.int64] * 6), code

    return intrinsic(dots)


dot_1 = _dots(1)
dot_rows = _dots(NARROW_ROWS)
