"""`grow`: samples while they are drawn, position by position; and conditionals at a temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import constraints

from seriatim import distributions as d
from seriatim.autoregressive import Autoregressive, Step, rollout
from seriatim.heads import Head
from seriatim.model import AutoregressiveModel
from seriatim.noise import random_seed, uniforms
from seriatim.tasks.rows import Joint, as_joint, in_eval_mode, take


class Growth(NamedTuple):
    """Samples on their way.

    Attributes:
        values: (num, *event_shape), 0 where nothing is drawn yet.
        drawn: (num, *order shape) bool, the places that have their value.
    """

    values: Tensor
    drawn: Tensor


@torch.no_grad()
def grow(
    model: AutoregressiveModel | Joint,
    num: int,
    context: Any = None,
    *,
    seed: int | None = None,
    batch_size: int = 256,
    temperature: float = 1.0,
) -> Iterator[Growth]:
    """Draw samples and show them after each position; the last are those of `generate` with the same seed.

        x_t ~ p(x_t | x_<t, c),    t = 1, ..., T

    Args:
        model: a model, or one order of it, of batch shape () or (num,).
        num: how many.
        context: one for all samples, (*context event), or one for each, (num, *context event).
        seed: drawn from torch's generator if None.
        batch_size: samples that grow at a time, one batch after another.
        temperature: of each conditional (`temper`).

    Yields:
        A `Growth` for each position of each batch; its tensors are copies.

    Raises:
        ValueError: an ensemble, whose samples have different orders, or a number out of its range.

    Example:
        >>> from seriatim.models import FVSBN
        >>> [int(g.drawn.sum()) for g in grow(FVSBN((3,)), 2, seed=0)]
        [2, 4, 6]
    """
    joint = as_joint(model, context)
    if not isinstance(joint, Autoregressive):
        raise ValueError("model: expected a model or one order of it, got an ensemble of orders")
    if num < 1 or batch_size < 1:
        raise ValueError(f"expected num >= 1 and batch_size >= 1, got {num} and {batch_size}")
    if joint.batch_shape and joint.batch_shape[0] not in (1, num):
        raise ValueError(f"context: expected one, or one for each of {num} samples, got {joint.batch_shape[0]}")
    seed = random_seed() if seed is None else seed
    head, order = joint.model.head, joint.order
    values = torch.zeros(num, order.length, *head.value_shape, dtype=head.value_dtype or joint.model.dtype)
    drawn = torch.zeros(num, order.length, dtype=torch.bool)
    with in_eval_mode(joint):
        for index in torch.arange(num).split(batch_size):
            own = take(joint, index)
            assert isinstance(own, Autoregressive)
            for step in steps(own, index, seed, temperature):
                values[index, step.position] = step.value[:, 0].cpu().to(values.dtype)
                drawn[index, step.position] = True
                yield Growth(order.to_data(values).clone(), order.to_data(drawn).clone())


def steps(joint: Autoregressive, rows: Tensor, seed: int, temperature: float = 1.0) -> Iterator[Step]:
    """Sample position by position, with the noise that `generate` gives to the rows (B,), at a temperature.

    Example:
        >>> from seriatim.models import FVSBN
        >>> cold = steps(FVSBN((3,))().expand((2,)), torch.arange(2), seed=0, temperature=0.5)
        >>> [step.position for step in cold]
        [0, 1, 2]
    """
    head, device = joint.model.head, joint.model.device
    check_temperature(temperature)
    count = num_values(head) if temperature != 1 else 0
    rows = rows.to(device)

    def choose(position: int, conditional: Any) -> Tensor:
        u = uniforms(seed, rows, torch.tensor([position]), head.num_uniforms)
        if not count:
            value: Tensor = conditional.from_uniforms(u)
            return value
        chosen = temper(conditional, count, temperature).from_uniforms(u[..., :1])
        return chosen.to(head.value_dtype or joint.model.dtype)

    return rollout(joint, choose)


def temper(conditional: Any, count: int, temperature: float) -> d.Categorical:
    """Return a conditional over 0..count-1 made sharper (T < 1) or flatter (T > 1).

        q(x) = p(x)^(1/T) / sum_x' p(x')^(1/T)

    A row drawn from conditionals at T != 1 is no sample of the model, nor of its joint at that temperature.

    Args:
        conditional: a distribution of values 0..count-1, batch shape (B, n).
        count: how many values there are.
        temperature: T > 0.

    Example:
        >>> temper(d.Bernoulli(logits=torch.tensor([1.0])), 2, 0.5).logits.diff().round(decimals=3)
        tensor([[2.]], dtype=torch.float64)
    """
    check_temperature(temperature)
    batch = conditional.batch_shape
    values = torch.arange(count).reshape(-1, *[1] * len(batch)).expand(count, *batch)
    log_p = conditional.log_prob(values.to(_device(conditional))).double().movedim(0, -1)
    # The largest becomes 0 first: near T = 0 all others may go to -inf, but not all.
    return d.Categorical(logits=(log_p - log_p.amax(-1, keepdim=True)) / temperature, validate_args=False)


def check_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is a positive number.

    Example:
        >>> check_temperature(0)
        Traceback (most recent call last):
        ...
        ValueError: temperature: expected a number above 0, got 0
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")


def num_values(head: Head) -> int:
    """Return how many values 0..K-1 a place can take.

    Raises:
        ValueError: a head of other values, which have no conditional at a temperature.

    Example:
        >>> from seriatim.heads import Bernoulli, QuantizedMixtureOfLogistics
        >>> num_values(Bernoulli()), num_values(QuantizedMixtureOfLogistics(16))
        (2, 16)
    """
    support = head.support
    if support is constraints.boolean:
        return 2
    if isinstance(support, constraints.integer_interval) and support.lower_bound == 0:
        return int(support.upper_bound) + 1
    raise ValueError(f"temperature: expected 1 for a model whose places hold no bits or levels, but {head}")


def _device(conditional: Any) -> torch.device:
    for name in ("logits", "loc"):
        if isinstance(own := getattr(conditional, name, None), Tensor):
            return own.device
    return torch.device("cpu")
