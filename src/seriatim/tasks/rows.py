"""Rows of data and of distributions, batch by batch: what every task does first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive, evaluating
from seriatim.ensemble import OrderEnsemble
from seriatim.model import AutoregressiveModel

Joint = Autoregressive | OrderEnsemble
"""The distributions that tasks take: of one model, or of an ensemble of its orders."""


def as_joint(model: AutoregressiveModel | Joint, context: Any = None) -> Joint:
    """Return the distribution behind a model and a context, or the distribution given.

    Args:
        model: a model, or a distribution of batch shape () or (N,).
        context: of the rows, (N, *context event), or of all of them; None with a distribution.

    Raises:
        TypeError: neither a model nor a distribution of one.
        ValueError: a context beside a distribution, or of more than one batch axis.

    Example:
        >>> from seriatim.models import FVSBN
        >>> as_joint(FVSBN((3,))).event_shape
        torch.Size([3])
    """
    if isinstance(model, AutoregressiveModel):
        joint: Joint = model(None if context is None else torch.as_tensor(context))
    elif isinstance(model, Autoregressive | OrderEnsemble):
        if context is not None:
            raise ValueError("context: expected None with a distribution, which has its own, got one")
        joint = model
    else:
        raise TypeError(f"model: expected a model or a distribution of one, got {type(model).__name__}")
    if len(joint.batch_shape) > 1:
        raise ValueError(f"context: expected one batch axis at most, got batch shape {tuple(joint.batch_shape)}")
    return joint


def as_rows(x: Any, joint: Joint, name: str = "x") -> Tensor:
    """Return data as a tensor (N, *event_shape); data frames and tables are encoded by the schema of the model.

    Raises:
        ValueError: another shape, as many rows as there are no contexts, or a data frame that the model does not know.

    Example:
        >>> from seriatim.models import FVSBN
        >>> as_rows([[0, 0, 0], [0, 0, 1]], FVSBN((3,))()).shape
        torch.Size([2, 3])
    """
    rows = models_of(joint)[0].as_rows(x, name)
    if joint.batch_shape and joint.batch_shape[0] not in (1, len(rows)):
        raise ValueError(f"{name}: expected {joint.batch_shape[0]} rows, one for each context, got {len(rows)}")
    return rows


def take(joint: Joint, index: Tensor) -> Joint:
    """Return the distribution of rows (B,) of a distribution of batch shape () or (N,).

    Example:
        >>> from seriatim.models import FVSBN
        >>> take(FVSBN((3,))(), torch.arange(5)).batch_shape
        torch.Size([5])
    """
    if isinstance(joint, OrderEnsemble):
        return OrderEnsemble([_take(member, index) for member in joint.members])
    return _take(joint, index)


def _take(member: Autoregressive, index: Tensor) -> Autoregressive:
    return member.expand((len(index),)) if member.batch_shape in ((), (1,)) else member.rows(index)


def models_of(joint: Joint) -> list[AutoregressiveModel]:
    """List the models behind a distribution, each once."""
    members = joint.members if isinstance(joint, OrderEnsemble) else [joint]
    return list({id(member.model): member.model for member in members}.values())


@contextmanager
def in_eval_mode(joint: Joint) -> Iterator[None]:
    """Put the models behind a distribution into eval mode, and give them back as they were."""
    with ExitStack() as stack:
        for model in models_of(joint):
            stack.enter_context(evaluating(model))
        yield


@torch.no_grad()
def map_rows(
    joint: Joint, x: Tensor, function: Callable[[Joint, Tensor], Tensor], batch_size: int, name: str = "batch_size"
) -> Tensor:
    """Apply a function to batches of rows and their distributions, and join what it returns on the CPU.

    Args:
        joint: of batch shape () or (N,).
        x: (N, *event_shape).
        function: maps (distribution of batch shape (B,), rows (B, *event_shape)) to (B, ...).
        batch_size: B at most.
        name: what an error calls the batch size.

    Example:
        >>> from seriatim.models import FVSBN
        >>> map_rows(FVSBN((3,))(), torch.ones(5, 3), lambda p, x: p.log_prob(x), batch_size=2).shape
        torch.Size([5])
    """
    if batch_size < 1:
        raise ValueError(f"{name}: expected 1 or more, got {batch_size}")
    with in_eval_mode(joint):
        parts = [function(take(joint, index), x[index]).cpu() for index in torch.arange(len(x)).split(batch_size)]
    return torch.cat(parts) if parts else torch.zeros(0)
