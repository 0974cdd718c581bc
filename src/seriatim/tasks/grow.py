"""`grow`: samples while they are drawn, position by position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive
from seriatim.controls import EXACT, Controls
from seriatim.model import AutoregressiveModel
from seriatim.noise import random_seed
from seriatim.tasks.rows import Joint, take
from seriatim.tasks.sampler import Sampler, as_prompt, joint_of, one_order

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision


class Growth(NamedTuple):
    """Samples on their way.

    Attributes:
        values: (num, *event_shape), 0 where nothing is drawn yet.
        drawn: (num, *order shape) bool, the places that have their value.
        log_prob: (num,) log p of what is drawn, under the model in nats, float64.
        log_q: (num,) the same under what is sampled, with controls.
    """

    values: Tensor
    drawn: Tensor
    log_prob: Tensor
    log_q: Tensor


@torch.no_grad()
def grow(
    model: AutoregressiveModel | Joint,
    num: int,
    context: Any = None,
    *,
    seed: int | None = None,
    batch_size: int = 256,
    engine: Engine = "auto",
    precision: Precision = "float32",
    controls: Controls = EXACT,
) -> Iterator[Growth]:
    """Draw samples and show them after each position; the last are those of `generate` with the same seed.

        x_t ~ p(x_t | x_<t, c),    t = 1, ..., T

    Args:
        model: a model, or one order of it, of batch shape () or (num,).
        num: how many.
        context: one for all samples, (*context event), or one for each, (num, *context event).
        seed: drawn from torch's generator if None.
        batch_size: samples that grow at a time, one batch after another.
        engine: "auto", "native" or "reference", as for `Autoregressive.sample`: the samples are the same.
        precision: as for `generate`.
        controls: temperature and truncations of each conditional.

    Yields:
        A `Growth` for each position of each batch; its tensors are copies.

    Raises:
        ValueError: an ensemble, whose samples have different orders, or a number out of its range.

    Example:
        >>> from seriatim.models import FVSBN
        >>> [int(g.drawn.sum()) for g in grow(FVSBN((3,)), 2, seed=0)]
        [2, 4, 6]
    """
    joint = one_order(joint_of(model, num, context))
    if num < 1 or batch_size < 1:
        raise ValueError(f"expected num >= 1 and batch_size >= 1, got {num} and {batch_size}")
    sampler = Sampler(random_seed() if seed is None else seed, engine, controls, True, precision)
    sampler.check(joint)
    head, order = joint.model.head, joint.order
    values = torch.zeros(num, order.length, *head.value_shape, dtype=head.value_dtype or joint.model.dtype)
    drawn = torch.zeros(num, order.length, dtype=torch.bool)
    log_prob, log_q = torch.zeros(2, num, dtype=torch.float64)
    for index in torch.arange(num).split(batch_size):
        own = take(joint, index)
        assert isinstance(own, Autoregressive)
        for block in sampler.blocks(own, index, 1, as_prompt(None, own, len(index))):
            values[index, block.position] = block.values[:, 0].to(values)
            drawn[index, block.position] = True
            if block.log_prob is not None and block.log_q is not None:
                log_prob[index] += block.log_prob[:, 0].to(log_prob)
                log_q[index] += block.log_q[:, 0].to(log_q)
            shown = order.to_data(values).clone(), order.to_data(drawn).clone()
            yield Growth(*shown, log_prob.clone(), log_q.clone())
