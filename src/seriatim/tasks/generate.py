"""`generate`: samples in batches, each a function of its number and the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive, OrderEnsemble
from seriatim.model import AutoregressiveModel
from seriatim.noise import random_seed, uniforms
from seriatim.tasks.grow import check_temperature, steps
from seriatim.tasks.rows import Joint, as_joint, in_eval_mode, take

if TYPE_CHECKING:
    from seriatim.engine import Engine

Progress = Callable[[int, int], None]
"""Called with the number of samples done and the number wanted."""


@torch.no_grad()
def generate(
    model: AutoregressiveModel | Joint,
    num: int,
    context: Any = None,
    *,
    seed: int | None = None,
    first_row: int = 0,
    batch_size: int = 256,
    engine: Engine = "auto",
    temperature: float = 1.0,
    progress: Progress | None = None,
) -> Tensor:
    """Draw samples in batches; sample r depends on (seed, r) and its context only, not on the batches.

        x_r ~ p(x | c_r),    r = first_row, ..., first_row + num - 1

    Args:
        model: a model, or a distribution of one (an ensemble of orders too) of batch shape () or (num,).
        num: how many.
        context: one for all samples, (*context event), or one for each, (num, *context event).
        seed: drawn from torch's generator if None.
        first_row: the number of the first sample, to go on where an earlier call ended.
        batch_size: samples at a time.
        engine: "auto", "native" or "reference", as for `Autoregressive.sample`: the samples are the same.
        temperature: of each conditional (`temper`); at any but 1 `rollout` draws, and not from p.
        progress: called after each batch with (samples done, num).

    Returns:
        (num, *event_shape).

    Raises:
        ValueError: a negative number, contexts that are not one or `num`, "native" for a model without it or at a
            temperature, or a temperature for values that are no bits or levels.

    Example:
        >>> from seriatim.models import FVSBN
        >>> model = FVSBN((3,))
        >>> ten = generate(model, 10, seed=0, batch_size=4)
        >>> bool((ten[7:] == generate(model, 3, seed=0, first_row=7)).all())
        True
    """
    joint = as_joint(model, context)
    if num < 0 or first_row < 0 or batch_size < 1:
        raise ValueError(
            f"expected num >= 0, first_row >= 0 and batch_size >= 1, got {num}, {first_row} and {batch_size}"
        )
    if joint.batch_shape and joint.batch_shape[0] not in (1, num):
        raise ValueError(f"context: expected one, or one for each of {num} samples, got {joint.batch_shape[0]}")
    check_temperature(temperature)
    if temperature != 1 and engine == "native":
        raise ValueError(f"engine: expected 'auto' or 'reference' at temperature {temperature}, got 'native'")
    seed = random_seed() if seed is None else seed
    parts = []
    with in_eval_mode(joint):
        for index in torch.arange(num).split(batch_size) if num else [torch.arange(0)]:
            parts.append(sample_rows(take(joint, index), index + first_row, seed, engine, temperature))
            if progress is not None:
                progress(sum(len(part) for part in parts), num)
    return torch.cat(parts)


def sample_rows(joint: Joint, rows: Tensor, seed: int, engine: Engine = "auto", temperature: float = 1.0) -> Tensor:
    """Draw the samples (B, *event_shape) whose noise has the given row numbers (B,), for a batch shape of (B,).

    Of an ensemble of orders each row first picks its order.

    Example:
        >>> from seriatim.models import FVSBN
        >>> sample_rows(FVSBN((3,))().expand((2,)), torch.tensor([0, 5]), seed=0).shape
        torch.Size([2, 3])
    """
    if isinstance(joint, Autoregressive):
        if temperature == 1 or not len(rows):
            return joint.sample_rows(rows.to(joint.model.device), seed, engine)
        drawn = [step.value for step in steps(joint, rows, seed, temperature)]
        return joint.order.to_data(torch.cat(drawn, dim=1))
    assert isinstance(joint, OrderEnsemble)
    length = joint.members[0].order.length
    # As in `OrderEnsemble.sample`: the position after the last has no value, and its noise picks the order.
    u = uniforms(seed, rows, torch.tensor([length]), 1).flatten()
    picked = (u * len(joint.members)).long()
    parts, places = [], []
    for k, member in enumerate(joint.members):
        mine = (picked == k).nonzero().squeeze(1)
        parts.append(sample_rows(take(member, mine), rows[mine], seed, engine, temperature))
        places.append(mine)
    return torch.cat(parts)[torch.cat(places).argsort()]
