"""`follow`: log p of values that come one at a time, each told before the next one is taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seriatim import engine as native_engine
from seriatim.autoregressive import Autoregressive, evaluating
from seriatim.model import AutoregressiveModel
from seriatim.tasks.rows import Joint, take
from seriatim.tasks.sampler import joint_of, one_order
from seriatim.tasks.steps import steps

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision, Program


def follow(
    model: AutoregressiveModel | Joint,
    values: Iterable[Any],
    num: int = 1,
    context: Any = None,
    *,
    length: int | None = None,
    engine: Engine = "auto",
    precision: Precision = "float32",
) -> Iterator[np.ndarray]:
    """Score sequences side by side while they come, value by value: a machine that is watched, a game that is played.

        log p(x_t | x_<t, c),    in nats, as soon as x_t is known

    Memory is that of the network's state. Of values that come in blocks `read_along` is faster, for it reads a block at
    once.

    Args:
        model: a model, or one order of it, of batch shape () or (num,); its places are the same for all values.
        values: (num, *value_shape) each, or (*value_shape) for num = 1, in the order of the positions.
        num: how many sequences.
        context: one for all sequences, (*context event), or one for each, (num, *context event).
        length: how many values at most, where the network runs over any length; the model's own if None.
        engine: as for `Autoregressive.sample`, a program being one lowered with `draw=False`: the terms are the same.
        precision: "bf16-weights" scores sooner, by a model whose matrices are rounded to bfloat16, natively only.

    Yields:
        (num,) float32 for each value.

    Raises:
        ValueError: at the call, an ensemble, a head whose places differ, or "native" for a model without it; while
            reading, a value of another shape, one that the head refuses, or more values than positions.

    Example:
        >>> from seriatim.models import LSTM
        >>> terms = follow(LSTM((100,), hidden_features=4), iter([1, 0, 1]))
        >>> [term.shape for term in terms]
        [(1,), (1,), (1,)]
    """
    joint = one_order(joint_of(model, num, context, length))
    if num < 1:
        raise ValueError(f"num: expected 1 or more, got {num}")
    if joint.model.head.by_place:
        raise ValueError(f"model: expected one distribution for all places, got {joint.model.head}")
    own = take(joint, torch.arange(num))
    assert isinstance(own, Autoregressive)
    with evaluating(own.model):
        program = native_engine.choose(own.model, num, engine, own.order, draw=False, precision=precision).program
    return _terms(own, values, program)


@torch.no_grad()
def _terms(joint: Autoregressive, values: Iterable[Any], program: Program | None) -> Iterator[np.ndarray]:
    taken: list[Tensor] = []
    loop = steps(joint, lambda position, conditional: taken.pop(), program)
    for position, value in enumerate(values):
        if position == joint.order.length:
            raise ValueError(f"values: expected {position} at most, got more")
        taken.append(_checked(joint, value, position))
        # A program keeps the weights and the mode of its start: what a network of many modules would be asked anew.
        with evaluating(joint.model) if program is None or not position else nullcontext():
            step = next(loop)
        term: Tensor = step.conditional.log_prob(step.value)
        yield term[:, 0].float().cpu().numpy()


def _checked(joint: Autoregressive, value: Any, position: int) -> Tensor:
    """Return the values of a position (B, 1, *value_shape)."""
    head, num = joint.model.head, joint.batch_shape[0]
    given = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    shape = torch.Size((num, *head.value_shape))
    x = given[None] if num == 1 and given.ndim == len(head.value_shape) else given
    if x.shape != shape:
        raise ValueError(f"values: expected shape {tuple(shape)}, got {tuple(given.shape)} at position {position}")
    if not bool((ok := head.support.check(x)).all()):
        row = int((~ok).nonzero()[0, 0])
        raise ValueError(f"values: expected {head.support}, got {x[row].tolist()} at position {position}")
    return x[:, None].to(joint.model.device, head.value_dtype or joint.model.dtype)
