"""The addressed noise of `seriatim.noise`, bit for bit."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from numba import njit

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import get, store64


@kernel
def _round(c0, c1, c2, c3, k0, k1):
    # As in `seriatim.noise`: the product of two 32-bit words wraps in int64, but its bits are the unsigned product's.
    p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
    mask = 0xFFFFFFFF
    return ((p1 >> 32) & mask) ^ c1 ^ k0, p1 & mask, ((p0 >> 32) & mask) ^ c3 ^ k1, p0 & mask


@kernel(forceinline=True)
def _uniform(key0, key1, row, position, lane):
    c0, c1, c2, c3 = lane >> 1, position & 0xFFFFFFFF, row & 0xFFFFFFFF, row >> 32
    for _ in range(10):
        c0, c1, c2, c3 = _round(c0, c1, c2, c3, key0, key1)
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    high, low = (c2, c3) if lane & 1 else (c0, c1)
    return (float((high >> 6) << 26 | (low >> 6)) + 0.5) * 2.0**-52


@njit(cache=True)
def uniform(key0, key1, row, position, lane):
    """Return the uniform of an address, bit for bit that of `seriatim.noise.uniforms`."""
    return _uniform(key0, key1, row, position, lane)


@kernel
def uniforms(out, rows, num_rows, key0, key1, position, lane):
    """Write the uniform of each row: a loop with nothing to call in it, which LLVM vectorises."""
    for row in range(num_rows):
        store64(out, row, _uniform(key0, key1, get(rows, row), position, lane))
