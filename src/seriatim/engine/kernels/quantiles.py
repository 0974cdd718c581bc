"""Quantiles and log densities in float64."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import load
from seriatim.engine.operands import Family

NORMAL, LOGISTIC, QUANTIZED = (np.int64(family) for family in Family)


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


@kernel
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


@kernel
def log_sigmoid(x):
    """Return log sigmoid(x)."""
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@kernel
def log_add(a, b):
    """Return log(exp(a) + exp(b))."""
    high, low = max(a, b), min(a, b)
    return high + math.log1p(math.exp(low - high)) if high > -math.inf else high


@kernel
def log_density(family, value, loc, scale, levels):
    """Return the log density of a location-scale family, or the log mass of one of `levels` whole numbers."""
    if family == NORMAL:
        z = (value - loc) / scale
        return -0.5 * z * z - math.log(scale) - 0.9189385332046727
    if family != QUANTIZED:
        z = (value - loc) / scale
        return log_sigmoid(z) + log_sigmoid(-z) - math.log(scale)
    upper, lower = (value + 0.5 - loc) / scale, (value - 0.5 - loc) / scale
    if value <= 0:
        return log_sigmoid(upper)
    if value >= levels - 1:
        return log_sigmoid(-lower)
    return log_sigmoid(upper) + log_sigmoid(-lower) + math.log(-math.expm1(-1 / scale))


@kernel
def scale_of(log_scale):
    """Return exp of a log scale, held as by the heads."""
    return np.float32(math.exp(min(np.float64(log_scale), 30.0)))


@kernel
def sum_of_three(numbers, first):
    """Return a float64 number that is kept as three float32 numbers."""
    high, middle, low = load(numbers, first), load(numbers, first + 1), load(numbers, first + 2)
    return np.float64(high) + np.float64(middle) + np.float64(low)
