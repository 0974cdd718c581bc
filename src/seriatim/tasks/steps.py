"""The loop over positions for those who choose the values: `rollout`, its network run natively where it can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from seriatim import engine as native_engine
from seriatim.autoregressive import Autoregressive, Choose, Step, rollout

if TYPE_CHECKING:
    from seriatim.engine import Program


def steps(joint: Autoregressive, choose: Choose, program: Program | None) -> Iterator[Step]:
    """Do as `rollout` does, with parameters from a program; without one it is `rollout`.

        params_t = network(encode(x_1), ..., encode(x_t-1))_t;    x_t = choose(t, head(params_t))

    Args:
        joint: of batch shape (B,), its model in eval mode.
        choose: as for `rollout`.
        program: of the model, lowered with `draw=False`, or None.

    Yields:
        A `Step` for each position.

    Raises:
        ValueError: parameters that are NaN.

    Example:
        >>> from seriatim import engine
        >>> from seriatim.models import FVSBN
        >>> joint = FVSBN((3,)).eval()().expand((2,))
        >>> greedy = lambda position, conditional: (conditional.probs > 0.5).float()
        >>> program = engine.lower(joint.model, draw=False)
        >>> [step.value.shape for step in steps(joint, greedy, program)]
        [torch.Size([2, 1]), torch.Size([2, 1]), torch.Size([2, 1])]
    """
    return rollout(joint, choose) if program is None else _native(joint, choose, program)


def _native(joint: Autoregressive, choose: Choose, program: Program) -> Iterator[Step]:
    model, order, value = joint.model, joint.order, None
    session = native_engine.start(joint, torch.zeros(joint.batch_shape, dtype=torch.int64), 0, program)
    stepper = native_engine.Stepper(joint, session)
    for position in range(order.length):
        conditional = model.head(stepper.advance(value), order.places(position, position + 1))
        chosen = choose(position, conditional)
        if isinstance(chosen, tuple):
            value, rows = chosen
            stepper.select(rows)
        else:
            value = chosen
        yield Step(position, conditional, value)
