"""The samplers of several numbers at a position, row by row."""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

from seriatim.engine.kernels.compiled import kernel
from seriatim.engine.kernels.memory import N0, N1, N2, N3, N4, NUM_OPERANDS, add64, get, load
from seriatim.engine.kernels.vectors import channels, column, vector
from seriatim.engine.operands import Op

_VECTOR, _CHANNELS = (int(op) for op in (Op.VECTOR, Op.CHANNELS))


@kernel
def several(op, at, t, lane, operands, rows, num_rows, key0, key1, values, width, scores, score_width, workspace):
    """Sample a value for each row; return a row whose parameters are no distribution, or -1.

    Arguments as for `samplers.draw`.
    """
    read, params, constants, ended = get(operands, 0), get(operands, 1), get(operands, 2), get(operands, 3)
    read_stride, params_stride = 4 * get(operands, NUM_OPERANDS), 4 * get(operands, NUM_OPERANDS + 1)
    ended_stride = 4 * get(operands, NUM_OPERANDS + 3)
    size, other, flagged = get(at, N0), get(at, N1), get(at, N4)
    lane, values, scored = lane + get(at, N2), values + 8 * get(at, N3), scores != 0
    for row in range(num_rows):
        if not (flagged and load(ended + row * ended_stride, 0) > 0):
            own, seen, out = params + row * params_stride, read + row * read_stride, values + 8 * row * width
            own_row, log_q = get(rows, row), 0.0
            if op == _VECTOR:
                log_prob, log_q = vector(
                    own, seen, out, size, constants, key0, key1, own_row, t, lane, workspace, scored
                )
            elif op == _CHANNELS:
                log_prob = channels(
                    own, seen, out, size, other, constants, key0, key1, own_row, t, lane, workspace, scored
                )
            else:
                log_prob = column(
                    own, seen, out, size, other, constants, key0, key1, own_row, t, lane, workspace, scored
                )
            if math.isnan(log_prob):
                return row
            if scored:
                add64(scores, row * score_width, log_prob)
                add64(scores, row * score_width + 1, log_q if op == _VECTOR else log_prob)
    return -1
