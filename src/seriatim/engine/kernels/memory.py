"""Memory by address: single numbers, and the operands of an instruction.

A tape's operands are addresses, so the kernels take addresses, and not arrays: they compile sooner and cost nothing to
hand on.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from seriatim.engine import program
from seriatim.engine.kernels.compiled import kernel

FLOAT, DOUBLE, INT = ir.FloatType(), ir.DoubleType(), ir.IntType(64)

# Of numpy's own type, for numba compiles a function anew for every value of a Python number that is handed to it.
ROW = np.int64(8 * program.COLUMNS)  # bytes from one instruction to the next
NIL: Any = np.int64(0)
N0, N1, N2, N3, N4, N5 = (np.int64(program.NUMBERS + k) for k in range(6))
NUM_OPERANDS = 4


def _reader(element: Any, result: Any) -> Any:
    """Make a function that reads number `index` at an address."""

    def read(typing, address, index):
        def code(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], element.as_pointer())
            return builder.load(builder.gep(pointer, [args[1]], inbounds=True))

        return result(types.int64, types.int64), code

    return intrinsic(read)


def _writer(element: Any, value: Any) -> Any:
    """Make a function that writes number `index` at an address."""

    def write(typing, address, index, number):
        def code(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], element.as_pointer())
            builder.store(args[2], builder.gep(pointer, [args[1]], inbounds=True))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, value), code

    return intrinsic(write)


load, store = _reader(FLOAT, types.float32), _writer(FLOAT, types.float32)
load64, store64 = _reader(DOUBLE, types.float64), _writer(DOUBLE, types.float64)
get, put = _reader(INT, types.int64), _writer(INT, types.int64)


@kernel
def add64(address, index, number):
    """Add to number `index` at an address."""
    store64(address, index, load64(address, index) + number)


@kernel
def resolve(at, bases, strides, offsets, operands):
    """Write where the operands of the instruction at `at` lie: four addresses, then four numbers from row to row."""
    for k in range(NUM_OPERANDS):
        place = program.OPERANDS + k * program.OPERAND
        arena = get(at, place)
        put(operands, k, get(bases, arena) + 4 * (get(at, place + 1) + get(offsets, get(at, place + 2))))
        put(operands, NUM_OPERANDS + k, get(strides, arena))


@kernel
def place(cursors, first, last, t, offsets):
    """Set cursors first .. last - 1 to position t."""
    width, shift, every, row, column = -1, 0, 0, 0, 0
    for c in range(first, last):
        own = cursors + 8 * program.CURSOR * c
        if get(own, 3) != width or get(own, 5) != shift or get(own, 6) != every:
            # Most share an image: one division serves them all.
            width, shift, every = get(own, 3), get(own, 5), get(own, 6)
            entry = (t - shift) // every
            row = entry // width
            column = entry - row * width
        slots, stride = get(own, 0), get(own, 1)
        if t < shift:
            put(offsets, c, slots * stride)
        else:
            put(offsets, c, (row - get(own, 2)) % slots * stride + column * get(own, 4))
