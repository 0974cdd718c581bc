"""`stream`: blocks of values as they are drawn, for sequences too long to keep or to wait for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive
from seriatim.controls import EXACT, Controls
from seriatim.ending import Ending
from seriatim.model import AutoregressiveModel
from seriatim.noise import MOST_POSITIONS, random_seed
from seriatim.tasks.rows import Joint, take
from seriatim.tasks.sampler import Sampler, as_prompt, joint_of, one_order

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision


def stream(
    model: AutoregressiveModel | Joint,
    num: int = 1,
    context: Any = None,
    *,
    chunk: int = 256,
    seed: int | None = None,
    first_row: int = 0,
    engine: Engine = "auto",
    precision: Precision = "float32",
    controls: Controls = EXACT,
    length: int | None = None,
    prompt: Any = None,
) -> Iterator[Tensor]:
    """Draw samples side by side and yield their values block by block, as soon as a block is made.

        x_1..n, x_n+1..2n, ...    of x_r ~ p(x | c_r),    r = first_row, ..., first_row + num - 1

    Together the blocks are the samples of `generate` with the same seed, whatever the chunk and the number of streams:
    stream r depends on (seed, r) and its context only. The past is kept as far as the network keeps it, so that
    recurrent and convolutional networks run in memory that does not grow with the length.

    Args:
        model: a model, or one order of it, of batch shape () or (num,).
        num: how many streams.
        context: one for all streams, (*context event), or one for each, (num, *context event).
        chunk: n, positions in a block; with 1 each value comes as soon as it is drawn.
        seed: drawn from torch's generator if None.
        first_row: the number of the first stream: a seed of its own for each.
        engine: "auto", "native" or "reference", as for `Autoregressive.sample`: the samples are the same.
        precision: as for `generate`.
        controls: temperature and truncations of each conditional.
        length: of sequences, where the network runs over any length, 2**32 at most; the model's own if None.
        prompt: values of the first positions, (k, *value_shape) or (num, k, *value_shape): blocks begin after them.

    Returns:
        An iterator of blocks (num, n, *value_shape) in the order of the positions. The last may be shorter. Sequences
        that end (`Ending`) stop with the position where the last of them has ended.

    Raises:
        ValueError: at the call, what `generate` refuses, an ensemble, or a chunk below 1.

    Example:
        >>> from seriatim.models import LSTM
        >>> model = LSTM((8,), hidden_features=4)
        >>> blocks = stream(model, 2, seed=0, length=1_000_000, chunk=3)
        >>> first = torch.cat([next(blocks), next(blocks)], dim=1)
        >>> bool((first == model(length=6).sample((2,), seed=0)).all())
        True
    """
    joint = one_order(joint_of(model, num, context, length))
    if num < 1 or first_row < 0 or chunk < 1:
        raise ValueError(f"expected num >= 1, first_row >= 0 and chunk >= 1, got {num}, {first_row} and {chunk}")
    if joint.order.length > MOST_POSITIONS:
        raise ValueError(f"length: expected {MOST_POSITIONS} at most, got {joint.order.length}")
    sampler = Sampler(random_seed() if seed is None else seed, engine, controls, precision=precision)
    sampler.check(joint)
    given = as_prompt(prompt, joint, num)
    own = take(joint, torch.arange(num))
    assert isinstance(own, Autoregressive)
    return _blocks(own, torch.arange(first_row, first_row + num), sampler, chunk, given)


@torch.no_grad()
def _blocks(joint: Autoregressive, rows: Tensor, sampler: Sampler, chunk: int, prompt: Tensor) -> Iterator[Tensor]:
    head = joint.model.head
    if isinstance(head, Ending) and prompt.shape[1] and bool(head.ended(prompt[:, -1]).all()):
        return
    for block in sampler.blocks(joint, rows, chunk, prompt):
        if isinstance(head, Ending) and bool((over := head.ended(block.values).all(0)).any()):
            yield block.values[:, : int(over.int().argmax()) + 1]
            return
        yield block.values
