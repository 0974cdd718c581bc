"""How kernels are compiled: helpers without what Python would call them by, and groups of instructions apart.

A function that calls another is optimised and translated with the other's whole body in it, and so is its own caller.
So the interpreter calls the functions that carry out instructions by their addresses. Each is compiled once, for all
models, when the first tape comes that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

INT = ir.IntType(64)

kernel: Any = partial(njit, no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Of functions that kernels alone call: as `njit`, without a wrapper for Python and one for C, each with their body."""

Make = Callable[[int], Callable[..., int]]
"""Given the fingerprint of all sources, makes a function of whole numbers.

The function must read the fingerprint: what a function closes over is among what numba's disk cache looks it up by.
"""


def _caller(count: int) -> Any:
    """Make a function that calls the one at an address with a tuple of `count` whole numbers."""

    def call(typing, address, numbers):
        def code(context, builder, signature, args):
            kind = ir.FunctionType(INT, [INT] * count)
            place = builder.inttoptr(args[0], kind.as_pointer())
            return builder.call(place, cgutils.unpack_tuple(builder, args[1], count))

        return types.int64(types.int64, types.UniTuple(types.int64, count)), code

    return intrinsic(call)


COMPUTED, DRAWN = 10, 16  # how many numbers a function is told that computes, and one that draws or hands out
call_computing, call_drawing = _caller(COMPUTED), _caller(DRAWN)


@cache
def address(make: Make, count: int, fingerprint: int) -> int:
    """Return where a function of `count` numbers is, compiled now or found in the disk cache."""
    found: Any = cfunc(types.int64(*[types.int64] * count), cache=True)(make(fingerprint))
    return int(found.address)
