"""The matrix products: blocks of sums held in registers, in LLVM's own vectors.

`contract` allows fused multiply-add and nothing else: NaN and infinity must survive to the sampler, which reports them.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from seriatim.engine.kernels.memory import FLOAT, INT
from seriatim.engine.operands import ALIGN, PANEL

_LANES = 8  # floats of the vectors that the tile asks for; LLVM splits or joins them to what the machine has
_FMA = ("contract",)


def _tile(rows: int, columns: int):
    """Make y[r, c] += sum_i x[r, i] w[i, c] for a fixed block of r and c, the sums held in registers.

    Each sum runs over i in order whatever the block, so a row's result does not depend on the rows beside it.
    """
    vector = ir.VectorType(FLOAT, _LANES)
    splat = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    parts = columns // _LANES

    def code(context, builder, signature, args):
        y, y_stride, x, x_stride, w, w_stride, count = args
        y, x, w = (builder.inttoptr(address, FLOAT.as_pointer()) for address in (y, x, w))

        def at(pointer, index):
            return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())

        places = [
            builder.add(builder.mul(y_stride, INT(row)), INT(part * _LANES))
            for row in range(rows)
            for part in range(parts)
        ]
        starts = [builder.load(at(y, place), align=4) for place in places]
        x_rows = [builder.mul(x_stride, INT(row)) for row in range(rows)]
        before = builder.block
        head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(INT)
        i.add_incoming(INT(0), before)
        sums = [builder.phi(vector) for _ in starts]
        for total, start in zip(sums, starts, strict=True):
            total.add_incoming(start, before)
        builder.cbranch(builder.icmp_signed("<", i, count), body, after)
        builder.position_at_end(body)
        w_row = builder.mul(i, w_stride)
        weights = [builder.load(at(w, builder.add(w_row, INT(p * _LANES))), align=4) for p in range(parts)]
        for row in range(rows):
            value = builder.load(builder.gep(x, [builder.add(x_rows[row], i)]))
            spread = builder.insert_element(undefined, value, ir.IntType(32)(0))
            spread = builder.shuffle_vector(spread, undefined, splat)
            for part in range(parts):
                total = sums[row * parts + part]
                product = builder.fmul(spread, weights[part], flags=_FMA)
                total.add_incoming(builder.fadd(total, product, flags=_FMA), body)
        i.add_incoming(builder.add(i, INT(1)), body)
        builder.branch(head)
        builder.position_at_end(after)
        for total, place in zip(sums, places, strict=True):
            builder.store(total, at(y, place), align=4)
        return context.get_dummy_value()

    def tile(typing, y, y_stride, x, x_stride, w, w_stride, count):
        return types.void(*[types.int64] * 7), code

    return intrinsic(tile)


tile_1x64 = _tile(1, PANEL)
tile_1x16 = _tile(1, ALIGN)
tile_4x16 = _tile(4, ALIGN)


def _sums(typing, x, w, count):
    """Return sum_i x[i] w[i], in four vectors of sums and a rest."""
    vector = ir.VectorType(FLOAT, _LANES)
    step, parts = 4 * _LANES, 4

    def code(context, builder, signature, args):
        x, w = (builder.inttoptr(address, FLOAT.as_pointer()) for address in args[:2])
        count, before = args[2], builder.block
        names = ("head", "body", "rest", "tail", "after")
        head, body, rest, tail, after = (builder.append_basic_block(name) for name in names)
        builder.branch(head)
        builder.position_at_end(head)
        i = builder.phi(INT)
        i.add_incoming(INT(0), before)
        sums = [builder.phi(vector) for _ in range(parts)]
        for total in sums:
            total.add_incoming(ir.Constant(vector, [0.0] * _LANES), before)
        end = builder.add(i, INT(step))
        builder.cbranch(builder.icmp_signed("<=", end, count), body, rest)
        builder.position_at_end(body)
        for part, total in enumerate(sums):
            place = builder.add(i, INT(part * _LANES))
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
        j, scalar = builder.phi(INT), builder.phi(FLOAT)
        j.add_incoming(i, rest)
        scalar.add_incoming(lanes[0], rest)
        more = builder.append_basic_block("more")
        builder.cbranch(builder.icmp_signed("<", j, count), more, after)
        builder.position_at_end(more)
        a, b = (builder.load(builder.gep(p, [j])) for p in (x, w))
        scalar.add_incoming(builder.fadd(scalar, builder.fmul(a, b, flags=_FMA), flags=_FMA), more)
        j.add_incoming(builder.add(j, INT(1)), more)
        builder.branch(tail)
        builder.position_at_end(after)
        return scalar

    return types.float32(types.int64, types.int64, types.int64), code


dot = intrinsic(_sums)
