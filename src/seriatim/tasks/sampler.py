"""Blocks of values as they are drawn: what `generate`, `grow` and `stream` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim import engine as native_engine
from seriatim.autoregressive import Autoregressive, evaluating, rollout
from seriatim.controls import EXACT, Controls
from seriatim.ending import Ending
from seriatim.model import AutoregressiveModel
from seriatim.noise import by_position
from seriatim.tasks.rows import Joint, as_joint, models_of
from seriatim.wide import placed

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision, Program, Session


class Block(NamedTuple):
    """Values of positions one after another.

    Attributes:
        position: of the first, counted from 0.
        values: (B, n, *value_shape).
        log_prob: (B, n) log p(x_t | x_<t) of the model in nats, where asked for.
        log_q: (B, n) log q(x_t | x_<t) of what was sampled, under controls.
    """

    position: int
    values: Tensor
    log_prob: Tensor | None
    log_q: Tensor | None


@dataclass(frozen=True)
class Sampler:
    """How values are drawn.

    Attributes:
        seed: of the noise.
        engine: "auto", "native" or "reference", as for `Autoregressive.sample`.
        controls: of each conditional.
        scored: whether blocks come with log p and log q.
        precision: "float32" or "bf16-weights", as for `engine.lower`; a prompt is read in float32.
    """

    seed: int
    engine: Engine = "auto"
    controls: Controls = EXACT
    scored: bool = False
    precision: Precision = "float32"

    def check(self, joint: Joint) -> None:
        """Raise ValueError unless the values of a distribution can be drawn under the controls."""
        if self.controls.neutral:
            return
        for model in models_of(joint):
            zeros = torch.zeros(1, 1, model.head.num_params, device=model.device, dtype=model.dtype)
            self.controls.apply(model.head(zeros, model.order.places(0, 1)))

    def blocks(self, joint: Autoregressive, rows: Tensor, chunk: int, prompt: Tensor) -> Iterator[Block]:
        """Yield the values after a prompt, so many positions at a time.

        While a block is made the model is in eval mode; between blocks it is the caller's.

        Args:
            joint: of batch shape (B,).
            rows: (B,) the row numbers of the noise.
            chunk: n, positions in a block; the last block may be shorter.
            prompt: (B, k, *value_shape), with k = 0 for none.

        Example:
            >>> from seriatim.models import FVSBN
            >>> pair = FVSBN((5,))().expand((2,))
            >>> blocks = Sampler(seed=0).blocks(pair, torch.arange(2), chunk=3, prompt=as_prompt(None, pair, 2))
            >>> [(block.position, *block.values.shape) for block in blocks]
            [(0, 2, 3), (3, 2, 2)]
        """
        if not len(rows) or prompt.shape[1] >= joint.order.length:
            return iter(())
        with evaluating(joint.model):
            program = self._program(joint, len(rows))
            if program is None:
                return self._stepped(joint, rows, chunk, prompt)
            return self._native(native_engine.start(joint, rows, self.seed, program, prefix=prompt), joint, chunk)

    def _program(self, joint: Autoregressive, batch_size: int) -> Program | None:
        asked = joint.order, self.controls
        return native_engine.choose(joint.model, batch_size, self.engine, *asked, precision=self.precision).program

    def _native(self, session: Session, joint: Autoregressive, chunk: int) -> Iterator[Block]:
        while (position := session.position) < joint.order.length:
            count = min(chunk, joint.order.length - position)
            values, log_prob, log_q = session.advance(count, log_probs=self.scored)
            yield Block(position, values.to(_dtype(joint.model)), log_prob, log_q)

    def _stepped(self, joint: Autoregressive, rows: Tensor, chunk: int, prompt: Tensor) -> Iterator[Block]:
        model, position = joint.model, prompt.shape[1]
        noise = by_position(self.seed, rows.to(model.device), model.head.num_uniforms)
        scores: list[tuple[Tensor, Tensor]] = []

        def choose(position: int, conditional: Any) -> Tensor:
            sampled = self.controls.apply(conditional)
            value: Tensor = sampled.from_uniforms(noise(position)).to(_dtype(model))
            if self.scored:
                scores.append((conditional.log_prob(value), sampled.log_prob(value)))
            return value

        steps = rollout(joint, choose, prefix=prompt)
        while position < joint.order.length:
            with evaluating(model):
                values = placed(torch.cat([step.value for step in islice(steps, chunk)], dim=1), model.device)
            log_prob, log_q = (torch.cat(part, dim=1) for part in zip(*scores, strict=True)) if scores else (None, None)
            scores.clear()
            yield Block(position, values, log_prob, log_q)
            position += values.shape[1]


def _dtype(model: AutoregressiveModel) -> torch.dtype:
    return model.head.value_dtype or model.dtype


def joint_of(model: AutoregressiveModel | Joint, num: int, context: Any = None, length: int | None = None) -> Joint:
    """Return the distribution of `num` samples, over another length than the model's own if one is given.

    Raises:
        ValueError: contexts that are not one or `num`, a length beside a distribution, or one that the model refuses.

    Example:
        >>> from seriatim.models import LSTM
        >>> joint_of(LSTM((5,), hidden_features=4), 3, length=7).event_shape
        torch.Size([7])
    """
    if length is None:
        joint = as_joint(model, context)
    elif isinstance(model, AutoregressiveModel):
        joint = as_joint(model(None if context is None else torch.as_tensor(context), length=length))
    else:
        raise ValueError(f"length: expected None with a distribution, which has its own, got {length}")
    if joint.batch_shape and joint.batch_shape[0] not in (1, num):
        raise ValueError(f"context: expected one, or one for each of {num} samples, got {joint.batch_shape[0]}")
    return joint


def one_order(joint: Joint) -> Autoregressive:
    """Return a distribution that has one order.

    Raises:
        ValueError: an ensemble, whose samples have different orders.
    """
    if not isinstance(joint, Autoregressive):
        raise ValueError("model: expected a model or one order of it, got an ensemble of orders")
    return joint


def as_prompt(prompt: Any, joint: Autoregressive, num: int) -> Tensor:
    """Return the values of the first k positions, (num, k, *value_shape).

    Args:
        prompt: (k, *value_shape), the same for all samples, or (num, k, *value_shape), in the order of the positions;
            None for k = 0.
        joint: of what they are the first values.
        num: how many samples.

    Raises:
        ValueError: another shape, more values than positions, or values that no sample has.

    Example:
        >>> from seriatim.models import FVSBN
        >>> as_prompt([1, 0], FVSBN((5,))(), num=3).shape
        torch.Size([3, 2])
    """
    head, length = joint.model.head, joint.order.length
    if prompt is None:
        return torch.zeros(num, 0, *head.value_shape, dtype=_dtype(joint.model), device=joint.model.device)
    values = prompt if isinstance(prompt, Tensor) else torch.as_tensor(np.asarray(prompt))
    shared = values.ndim == 1 + len(head.value_shape)
    batch = values[None].expand(num, *values.shape) if shared else values
    if batch.ndim != 2 + len(head.value_shape) or batch.shape[2:] != head.value_shape or len(batch) != num:
        inner = "".join(f", {size}" for size in head.value_shape)
        raise ValueError(f"prompt: expected shape (k{inner}) or ({num}, k{inner}), got {tuple(values.shape)}")
    if batch.shape[1] > length:
        raise ValueError(f"prompt: expected {length} values at most, got {batch.shape[1]}")
    if batch.shape[1] and not bool((possible := _possible(batch, joint)).all()):
        row, position = (int(i) for i in (~possible).nonzero()[0][:2])
        support = "nothing but ends after an end" if _after_end(batch, joint)[row, position] else head.support
        got = batch[row, position].tolist()
        raise ValueError(f"prompt: expected {support}, got {got} at position {position} of sample {row}")
    return batch.to(joint.model.device, _dtype(joint.model))


def _possible(prompt: Tensor, joint: Autoregressive) -> Tensor:
    """Return which values of a prompt (B, k, ...) are in the support, (B, k) bool."""
    head, k = joint.model.head, prompt.shape[1]
    if head.by_place:  # a check of whole rows: what is missing is 0
        rest = prompt.new_zeros(len(prompt), joint.order.length - k, *head.value_shape)
        ok = joint.order.to_positions(head.support.check(joint.order.to_data(torch.cat([prompt, rest], 1))))[:, :k]
    else:
        ok = head.support.check(prompt)
    return ok.flatten(2).all(-1) & ~_after_end(prompt, joint) if ok.ndim > 2 else ok & ~_after_end(prompt, joint)


def _after_end(prompt: Tensor, joint: Autoregressive) -> Tensor:
    """Return which values stand after an end and are none, (B, k) bool."""
    head = joint.model.head
    if not isinstance(head, Ending):
        return torch.zeros(prompt.shape[:2], dtype=torch.bool, device=prompt.device)
    ended = head.ended(prompt)
    return (ended.cumsum(1) > 0) & ~ended
