"""Functions of one number, written so that LLVM vectorises a loop over them.

`fastmath` allows fused multiply-add and nothing else: NaN and infinity must survive to the sampler, which reports them.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import load, store
from seriatim.engine.operands import Act

NONE, RELU, TANH, SIGMOID, ELU, GELU, GELU_TANH, SILU, SOFTPLUS, LEAKY_RELU = (np.int64(act) for act in Act)
ONE, TWO, ZERO, HALF, INFINITY = (np.float32(value) for value in (1, 2, 0, 0.5, math.inf))

_LOG2E, _LN2_HIGH, _LN2_LOW = np.float32(1.4426950408889634), np.float32(0.693359375), np.float32(-2.12194440e-4)
_ROUND32, _ROUND64 = np.float32(1.5 * 2**23), 1.5 * 2.0**52  # adding it leaves the nearest integer in the low bits
_F1, _F2, _F3, _F4, _F5, _F6, _F7 = (np.float32(1 / math.factorial(k)) for k in range(1, 8))
_LOWEST32, _HIGHEST32 = np.float32(-87), np.float32(88)


@kernel(fastmath={"contract"})
def exp32(x):
    """Return exp(x), held between e-38 and e38."""
    x = _LOWEST32 if x < _LOWEST32 else x
    x = _HIGHEST32 if x > _HIGHEST32 else x
    t = x * _LOG2E + _ROUND32
    n = t - _ROUND32
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    p = ((((((_F7 * r + _F6) * r + _F5) * r + _F4) * r + _F3) * r + _F2) * r + _F1) * r + ONE
    return p * np.int32((np.float32(t).view(np.int32) << 23) + (127 << 23)).view(np.float32)


_D1, _D2, _D3, _D4, _D5, _D6, _D7, _D8, _D9, _D10, _D11, _D12, _D13 = (1 / math.factorial(k) for k in range(1, 14))


@njit(fastmath={"contract"})
def exp64(x):
    """Return exp of a number that is not positive; below e-300 it is 0."""
    y = -690.0 if x < -690.0 else x
    t = y * 1.4426950408889634 + _ROUND64
    n = t - _ROUND64
    r = y - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10
    p = ((((((_D13 * r + _D12) * r + _D11) * r + _D10) * r + _D9) * r + _D8) * r + _D7) * r
    p = ((((((p + _D6) * r + _D5) * r + _D4) * r + _D3) * r + _D2) * r + _D1) * r + 1.0
    p = p * np.int64((np.float64(t).view(np.int64) << 52) + (1023 << 52)).view(np.float64)
    return 0.0 if x < -690.0 else p


@njit(fastmath={"contract"}, error_model="numpy")  # a check for division by zero keeps loops scalar
def sigmoid(x):
    """Return 1 / (1 + exp(-x))."""
    return ONE / (ONE + exp32(-x))


@njit(fastmath={"contract"}, error_model="numpy")  # a check for division by zero keeps loops scalar
def tanh(x):
    """Return tanh(x), to about 2e-7."""
    return TWO / (ONE + exp32(-TWO * x)) - ONE


@kernel
def copy(y, x, size):
    """Write x into y."""
    for i in range(size):
        store(y, i, load(x, i))


# As in Eigen: a ratio of polynomials for |x| < 4, beyond which erf is 1 in float32.
_E1, _E3, _E5, _E7, _E9, _E11, _E13 = (
    np.float32(x)
    for x in (
        *(-1.60960333262415e-02, -2.95459980854025e-03, -7.34990630326855e-04, -5.69250639462346e-05),
        *(-2.10102402082508e-06, 2.77068142495902e-08, -2.72614225801306e-10),
    )
)
_G0, _G2, _G4, _G6, _G8 = (
    np.float32(x)
    for x in (
        -1.42647390514189e-02,
        -7.37332916720468e-03,
        -1.68282697438203e-03,
        -2.13374055278905e-04,
        -1.45660718464996e-05,
    )
)
_FOUR, _ROOT_HALF, _ROOT_2_BY_PI, _CUBIC = (np.float32(x) for x in (4, 0.5**0.5, (2 / math.pi) ** 0.5, 0.044715))


@njit(fastmath={"contract"}, error_model="numpy")
def erf(x):
    """Return erf(x), to about 4e-7."""
    x = _FOUR if x > _FOUR else x
    x = -_FOUR if x < -_FOUR else x
    z = x * x
    above = ((((((_E13 * z + _E11) * z + _E9) * z + _E7) * z + _E5) * z + _E3) * z + _E1) * x
    return above / ((((_G8 * z + _G6) * z + _G4) * z + _G2) * z + _G0)


@kernel(fastmath={"contract"})
def _gelu(x):
    return HALF * x * (ONE + erf(x * _ROOT_HALF))


@kernel(fastmath={"contract"})
def _gelu_tanh(x):
    return HALF * x * (ONE + tanh(_ROOT_2_BY_PI * (x + _CUBIC * x * x * x)))


@kernel
def _softplus(x):
    return np.float32(max(x, ZERO) + math.log1p(math.exp(-abs(float(x)))))


@kernel
def activate(y, x, size, act, bits):
    """Write act(x) into y; `bits` are those of its parameter."""
    parameter = np.int32(bits).view(np.float32)
    if act == NONE:
        copy(y, x, size)
    elif act == RELU:
        for i in range(size):
            value = load(x, i)
            store(y, i, ZERO if value < ZERO else value)
    elif act == TANH:
        for i in range(size):
            store(y, i, tanh(load(x, i)))
    elif act == SIGMOID:
        for i in range(size):
            store(y, i, sigmoid(load(x, i)))
    elif act == ELU:
        for i in range(size):
            value = load(x, i)
            store(y, i, value if value > ZERO else parameter * (exp32(value) - ONE))
    elif act == GELU:
        for i in range(size):
            store(y, i, _gelu(load(x, i)))
    elif act == GELU_TANH:
        for i in range(size):
            store(y, i, _gelu_tanh(load(x, i)))
    elif act == SILU:
        for i in range(size):
            store(y, i, load(x, i) * sigmoid(load(x, i)))
    elif act == SOFTPLUS:
        for i in range(size):
            store(y, i, _softplus(load(x, i)))
    else:
        for i in range(size):
            value = load(x, i)
            store(y, i, parameter * value if value < ZERO else value)
