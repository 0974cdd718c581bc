"""The choice among categories."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import load, load64, store64
from seriatim.engine.kernels.numbers import exp64


@kernel
def category(params, count, given, u, workspace):
    """Return the category of a uniform, of `count`, and the log of the sum of all; -1 for no distribution.

    Of logits that no category has, up to `given`, none may be NaN.
    """
    highest, known = load(params, 0), True
    for k in range(count, given):
        logit = load(params, k)
        known &= logit == logit
    for k in range(count):
        logit = load(params, k)
        known &= logit == logit
        highest = logit if logit > highest else highest
    if not known or math.isinf(highest):  # single categories may be impossible, with a logit of -inf
        return -1, 0.0
    for k in range(count):
        store64(workspace, k, exp64(np.float64(load(params, k)) - np.float64(highest)))
    total = 0.0
    for k in range(count):
        total += load64(workspace, k)
    cumulative, value = 0.0, count - 1
    for k in range(count):
        cumulative += load64(workspace, k)
        if cumulative > u * total:
            value = k
            break
    return value, np.float64(highest) + math.log(total)
