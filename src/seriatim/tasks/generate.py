"""`generate`: samples in batches, each a function of its number and the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from seriatim.controls import EXACT, Controls
from seriatim.ensemble import OrderEnsemble
from seriatim.model import AutoregressiveModel
from seriatim.noise import random_seed, uniforms
from seriatim.tasks.rows import Joint, take
from seriatim.tasks.sampler import Sampler, as_prompt, joint_of, one_order
from seriatim.wide import wide

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision

Progress = Callable[[int, int], None]
"""Called with the number of samples done and the number wanted."""


class Generated(NamedTuple):
    """Samples and how probable each is.

    Attributes:
        samples: (num, *event_shape).
        log_prob: (num,) log p(x | c) under the model in nats, float64; after a prompt of what follows it, given it.
        log_q: (num,) the same under what was sampled: log p where there are no controls.
    """

    samples: Tensor
    log_prob: Tensor
    log_q: Tensor


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
    precision: Precision = "float32",
    controls: Controls = EXACT,
    length: int | None = None,
    prompt: Any = None,
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
        precision: "bf16-weights" draws sooner from a model whose matrices are rounded to bfloat16, natively only; log p
            is that model's, too, and a prompt is read in float32.
        controls: temperature and truncations of each conditional; with any of them samples are not from p.
        length: of sequences, where the network runs over any length; the model's own if None.
        prompt: values of the first positions, (k, *value_shape) or (num, k, *value_shape), kept as they are.
        progress: called after each batch with (samples done, num).

    Returns:
        (num, *event_shape).

    Raises:
        ValueError: a negative number, contexts that are not one or `num`, a length or a prompt that does not fit the
            model, "native" for a model without it, or controls of values that are not finitely many.

    Example:
        >>> from seriatim.models import FVSBN
        >>> model = FVSBN((3,))
        >>> ten = generate(model, 10, seed=0, batch_size=4)
        >>> bool((ten[7:] == generate(model, 3, seed=0, first_row=7)).all())
        True
        >>> generate(model, 2, seed=0, controls=Controls(top_k=1), prompt=[1])[:, 0]
        tensor([1., 1.])
    """
    joint, sampler = joint_of(model, num, context, length), _sampler(seed, engine, controls, precision)
    return torch.cat([part for part, *_ in _parts(joint, num, sampler, first_row, batch_size, prompt, progress)])


@torch.no_grad()
def generate_scored(
    model: AutoregressiveModel | Joint,
    num: int,
    context: Any = None,
    *,
    seed: int | None = None,
    first_row: int = 0,
    batch_size: int = 256,
    engine: Engine = "auto",
    precision: Precision = "float32",
    controls: Controls = EXACT,
    length: int | None = None,
    prompt: Any = None,
    progress: Progress | None = None,
) -> Generated:
    """Draw the samples of `generate`, and say how probable each is under the model and under what was sampled.

        log p(x) = sum_t log p(x_t | x_<t),    log q(x) = sum_t log q(x_t | x_<t)

    exp(log p - log q) weighs samples under controls as samples of p, but for what controls leave out.

    Args:
        model: a model, or one order of it, of batch shape () or (num,); the rest as for `generate`.

    Raises:
        ValueError: as `generate`, or an ensemble, whose samples have different orders.

    Example:
        >>> from seriatim.models import FVSBN
        >>> greedy = generate_scored(FVSBN((3,)), 4, seed=0, controls=Controls(top_k=1))
        >>> greedy.log_prob.shape, greedy.log_q
        (torch.Size([4]), tensor([0., 0., 0., 0.], dtype=torch.float64))
    """
    joint, sampler = (
        one_order(joint_of(model, num, context, length)),
        _sampler(seed, engine, controls, precision, scored=True),
    )
    columns = zip(*_parts(joint, num, sampler, first_row, batch_size, prompt, progress), strict=True)
    return Generated(*(torch.cat(column) for column in columns))


def _sampler(
    seed: int | None, engine: Engine, controls: Controls, precision: Precision, scored: bool = False
) -> Sampler:
    return Sampler(random_seed() if seed is None else seed, engine, controls, scored, precision)


def _parts(
    joint: Joint, num: int, sampler: Sampler, first_row: int, batch_size: int, prompt: Any, progress: Progress | None
) -> Iterator[Generated]:
    """Yield samples batch by batch."""
    if num < 0 or first_row < 0 or batch_size < 1:
        raise ValueError(
            f"expected num >= 0, first_row >= 0 and batch_size >= 1, got {num}, {first_row} and {batch_size}"
        )
    sampler.check(joint)
    given = None if isinstance(joint, OrderEnsemble) and prompt is None else as_prompt(prompt, one_order(joint), num)
    for index in torch.arange(num).split(batch_size) if num else [torch.arange(0)]:
        own = None if given is None else given[index.to(given.device)]
        yield _rows(take(joint, index), index + first_row, sampler, own)
        if progress is not None:
            progress(int(index[-1]) + 1 if num else 0, num)


def _rows(joint: Joint, rows: Tensor, sampler: Sampler, prompt: Tensor | None) -> Generated:
    """Draw the samples whose noise has the given row numbers (B,), for a batch shape of (B,)."""
    if isinstance(joint, OrderEnsemble):
        return _of_ensemble(joint, rows, sampler)
    given = as_prompt(None, joint, len(rows)) if prompt is None else prompt
    blocks = list(sampler.blocks(joint, rows, joint.order.length, given))
    values = torch.cat([given, *(block.values for block in blocks)], dim=1)
    samples = joint.order.to_data(values) if len(rows) else values.new_zeros(0, *joint.event_shape)
    total = torch.zeros(len(rows), dtype=torch.float64, device=wide(values.device))
    log_prob = sum((block.log_prob.double().sum(1) for block in blocks if block.log_prob is not None), total)
    log_q = sum((block.log_q.double().sum(1) for block in blocks if block.log_q is not None), total)
    return Generated(samples, log_prob, log_q)


def _of_ensemble(joint: OrderEnsemble, rows: Tensor, sampler: Sampler) -> Generated:
    """Draw as `_rows`: each row first picks its order. What is scored are the members, not the mixture."""
    length = joint.members[0].order.length
    # As in `OrderEnsemble.sample`: the position after the last has no value, and its noise picks the order.
    u = uniforms(sampler.seed, rows, torch.tensor([length]), 1).flatten()
    picked = (u * len(joint.members)).long()
    parts, places = [], []
    for k, member in enumerate(joint.members):
        mine = (picked == k).nonzero().squeeze(1)
        parts.append(_rows(take(member, mine), rows[mine], sampler, None))
        places.append(mine)
    back = torch.cat(places).argsort()
    return Generated(*(torch.cat(column)[back] for column in zip(*parts, strict=True)))
