"""The instructions in groups that are compiled together, and the function of each."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from seriatim.engine.kernels.best import show
from seriatim.engine.kernels.compiled import COMPUTED, DRAWN, address
from seriatim.engine.kernels.compute import compute
from seriatim.engine.kernels.controlled import controlled
from seriatim.engine.kernels.further import further
from seriatim.engine.kernels.memory import get, resolve
from seriatim.engine.kernels.samplers import draw
from seriatim.engine.kernels.several import several
from seriatim.engine.kernels.sources import FINGERPRINT
from seriatim.engine.operands import Op

_FURTHER = {Op.ATTEND, Op.ATTEND_SOURCE, Op.ROTATE, Op.RAGGED, Op.DOT, Op.LOOK_UP}
_SEVERAL = {Op.VECTOR, Op.CHANNELS, Op.COLUMN}

# Every group names what it calls. One maker that is told what to call would close over a compiled function, which has
# another identity in every process: the disk cache looks groups up by what they close over, and would never find one.


def _computing(fingerprint):
    def computing(functions, at, end, t, bases, strides, offsets, operands, rows, workspace):
        own = get(functions, get(at, 0))
        if own == fingerprint:
            return end
        while at < end and get(functions, get(at, 0)) == own:
            resolve(at, bases, strides, offsets, operands)
            at = compute(get(at, 0), at, t, bases, strides, offsets, operands, rows, workspace)
        return at

    return computing


def _computing_further(fingerprint):
    def computing_further(functions, at, end, t, bases, strides, offsets, operands, rows, workspace):
        own = get(functions, get(at, 0))
        if own == fingerprint:
            return end
        while at < end and get(functions, get(at, 0)) == own:
            resolve(at, bases, strides, offsets, operands)
            at = further(get(at, 0), at, t, bases, strides, offsets, operands, rows, workspace)
        return at

    return computing_further


def _drawing(fingerprint):
    def drawing(
        op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, step, left, workspace
    ):
        if op == fingerprint:
            return -1
        return draw(
            op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace
        )

    return drawing


def _drawing_several(fingerprint):
    def drawing_several(
        op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, step, left, workspace
    ):
        if op == fingerprint:
            return -1
        return several(
            op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace
        )

    return drawing_several


def _drawing_controlled(fingerprint):
    def drawing_controlled(
        op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, step, left, workspace
    ):
        if op == fingerprint:
            return -1
        return controlled(
            at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace
        )

    return drawing_controlled


def _showing(fingerprint):
    def showing(
        op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, step, left, workspace
    ):
        if op == fingerprint:
            return -1
        return show(at, operands, num_rows, values, width, step, left, workspace)

    return showing


def functions(ops: Iterable[Op]) -> np.ndarray:
    """Return the addresses of the functions that carry out some instructions, each at the number of its own; else 0."""
    table = np.zeros(max(Op) + 1, np.int64)
    for op in ops:
        if op < Op.ROW:
            table[op] = address(_computing_further if op in _FURTHER else _computing, COMPUTED, FINGERPRINT)
        elif op is Op.PARAMS:
            table[op] = address(_showing, DRAWN, FINGERPRINT)
        elif op is Op.CONTROLLED:
            table[op] = address(_drawing_controlled, DRAWN, FINGERPRINT)
        elif op >= Op.BERNOULLI and op is not Op.MARK:
            table[op] = address(_drawing_several if op in _SEVERAL else _drawing, DRAWN, FINGERPRINT)
    return table
