"""Rows in memory, and the batches of an epoch as a function of (seed, epoch, batch): nothing to save or restore."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim.data.dataset import Dataset

if TYPE_CHECKING:
    from seriatim.heads import Head
    from seriatim.model import AutoregressiveModel
    from seriatim.training.config import TrainConfig

Transform = Callable[[Tensor, torch.Generator], Tensor]
"""Maps a batch of training rows to what the model sees, with randomness from the generator only."""

Position = Callable[[], int]
"""Returns how many steps have been taken since epoch 0."""

_HASH_ROWS = 1 << 12
_MARGINAL_ENTRIES = 1 << 26
_NARROW = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64, torch.bool: torch.uint8}


def address(*parts: int | str) -> int:
    """Return the seed at an address: 63 bits that depend on every part.

    Randomness in training is addressed, not drawn: a step seeds the generators from (seed, step, rank), so a resumed
    run needs no generator state, and the processes of a distributed run need not hand over theirs.

    Example:
        >>> address(0, "step", 1) == address(0, "step", 1), address(0, "step", 1) == address(0, "step", 2)
        (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class TrainingData:
    """The rows to train on and to validate with.

    Args:
        train: (N, *event_shape) tensor or array; small integer dtypes are kept until a batch is made.
        valid: the same; None to train without validation.
        train_context: what each training row is conditioned on, (N, *context event), or None.
        valid_context: the same for `valid`.
        redraw: epoch -> the training rows of that epoch, where they are drawn anew (dynamic binarisation).
        facts: for the model card, e.g. {"name": ..., "split": ...}.
        schema: of a table, kept beside the model.

    Raises:
        ValueError: no rows, or different numbers of them.

    Example:
        >>> data = TrainingData(np.zeros((5, 2), dtype=np.uint8), np.ones((2, 2), dtype=np.uint8))
        >>> data.train.dtype, len(data.valid)
        (torch.uint8, 2)
    """

    unit = "row"
    codec = source_codec = None

    def __init__(
        self,
        train: Any,
        valid: Any = None,
        *,
        train_context: Any = None,
        valid_context: Any = None,
        redraw: Callable[[int], Any] | None = None,
        facts: Mapping[str, str | int | float | None] | None = None,
        schema: Any = None,
    ) -> None:
        self.train, self.train_context = _rows("train", train), _context("train", train, train_context)
        self.valid = None if valid is None else _rows("valid", valid)
        self.valid_context = None if valid is None else _context("valid", valid, valid_context)
        self.redraw, self.facts, self.schema = redraw, dict(facts or {}), schema

    @classmethod
    def of(cls, data: Any, model: AutoregressiveModel) -> TrainingData:
        """Make one of a `seriatim.data.Dataset` (its classes are the context of a conditional model), an array or a
        pair (train, valid).
        """
        if isinstance(data, Dataset):
            labels = data.labels if model.encoder is not None else None
            return cls(
                data.train,
                data.valid,
                train_context=None if labels is None else labels["train"],
                valid_context=None if labels is None else labels["valid"],
                redraw=None if data.grey is None else data.redraw,
                facts={"name": data.name, "sha256 of train, valid and test": data.digest},
                schema=data.schema,
            )
        return cls(*data) if isinstance(data, tuple) else cls(data)

    @cached_property
    def sha256(self) -> str:
        """The hash of all rows and contexts, in hexadecimal."""
        sha = hashlib.sha256()
        for part in (self.train, self.valid, self.train_context, self.valid_context):
            sha.update(f"{None if part is None else (tuple(part.shape), str(part.dtype))}\n".encode())
            for rows in () if part is None else part.split(_HASH_ROWS):
                sha.update(np.ascontiguousarray(rows.numpy()).data)
        return sha.hexdigest()

    def num_dimensions(self, model: AutoregressiveModel) -> int:
        """D, what the nats of a row are divided by for bits per dimension."""
        return math.prod(model.event_shape)

    @property
    def sizes(self) -> dict[str, int]:
        """How much there is, for the card."""
        return {"training rows": len(self.train), "validation rows": 0 if self.valid is None else len(self.valid)}

    def num_batches(self, config: TrainConfig) -> int:
        """How many steps an epoch has."""
        return num_batches(len(self.train), config.batch_size, config.world_size)

    def batches(
        self, config: TrainConfig, *, position: Position = lambda: 0, rank: int = 0, transform: Transform | None = None
    ) -> Batches:
        """Return the steps of the epoch that `position()` is in, from there on."""
        return Batches(
            self.train,
            self.train_context,
            config.batch_size,
            position=position,
            seed=config.seed,
            redraw=self.redraw,
            transform=transform,
            rank=rank,
            world_size=config.world_size,
        )

    def valid_batches(self, config: TrainConfig, *, rank: int = 0) -> Batches:
        """Return the validation rows."""
        assert self.valid is not None
        return Batches(self.valid, self.valid_context, config.batch_size, rank=rank, world_size=config.world_size)

    def check(self, model: AutoregressiveModel, transform: Transform | None) -> None:
        """Refuse rows and contexts that do not fit the model, once, so that no step has to.

        Raises:
            ValueError: names the split, what was expected, what was found and where.
        """
        shape = tuple(model.event_shape)
        splits = (("train", self.train, self.train_context), ("valid", self.valid, self.valid_context))
        for name, rows, context in splits:
            if rows is None:
                continue
            blocks: tuple[Tensor, ...] = rows.split(_HASH_ROWS)
            if transform is not None and name == "train":  # what comes out is known by trying
                blocks = (transform(blocks[0], torch.Generator().manual_seed(0)),)
            for start, block in enumerate(blocks):
                if tuple(block.shape[1:]) != shape:
                    wanted = ", ".join(map(str, shape))
                    raise ValueError(f"{name}: expected shape (N, {wanted}), got {tuple(rows.shape)}")
                check_support(model.head, name, as_values(model, block), start * _HASH_ROWS)
            if (context is None) != (model.encoder is None):
                wants = "none, for the model has no encoder" if model.encoder is None else f"one for {model.encoder!r}"
                raise ValueError(f"{name}_context: expected {wants}, got {'none' if context is None else 'one'}")
            if model.encoder is not None and context is not None:
                model.encoder.check(context)

    def marginal_rows(self, model: AutoregressiveModel, transform: Transform | None, seed: int) -> Tensor:
        """Return training rows, all of them or evenly spaced ones, as the model sees them."""
        every = max(1, math.ceil(self.train.numel() / _MARGINAL_ENTRIES))
        rows = self.train[::every]
        if transform is not None:
            rows = transform(rows, torch.Generator().manual_seed(address(seed, "marginals")))
        return rows


class Part(NamedTuple):
    """What of a batch of sequences is new.

    Attributes:
        values: (B,) how many values each sequence has in it; what follows is padding.
        terms: (B,) how many terms of log p: the values, and the end where it is in it.
        first: whether the sequences begin here; if not, the state of the step before goes on.
    """

    values: Tensor
    terms: Tensor
    first: bool


class Batch(NamedTuple):
    """What one step learns from: this process's share.

    Attributes:
        x: rows (B, *event_shape), or values of sequences (B, n, *value_shape).
        context: of each row, or None.
        num_rows: how many rows, or terms of sequences, all processes have together: what the loss is divided by.
        num_units: how many rows, or values of sequences, are in x: what nats are reported for.
        part: of sequences; None for rows.
    """

    x: Tensor
    context: Tensor | None
    num_rows: int
    num_units: int
    part: Part | None = None


class Batches:
    """The batches of one epoch, from a position on; each iteration starts where `position()` says.

    An epoch takes each row once, in an order decided by (seed, epoch), in ceil(N / batch_size) batches whose sizes
    differ by one at most. Each process takes its share of every batch, so the step of k processes is that of one.
    There is deliberately no `len`: it would be that of a whole epoch.

    Args:
        x: (N, ...) rows.
        context: (N, ...) or None.
        batch_size: over all processes.
        position: returns how many batches have been taken since epoch 0.
        seed: of shuffling and transform; None: in the order of the rows.
        rank: the number of this process.
        world_size: how many processes there are.
        redraw: epoch -> rows.
        transform: see `Transform`.

    Raises:
        ValueError: fewer rows in a batch than processes.

    Example:
        >>> batches = Batches(torch.arange(5)[:, None], None, 2, position=lambda: 1)
        >>> [batch.x.flatten().tolist() for batch in batches]
        [[2, 3], [4]]
    """

    def __init__(
        self,
        x: Tensor,
        context: Tensor | None,
        batch_size: int,
        *,
        position: Callable[[], int] = lambda: 0,
        seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        redraw: Callable[[int], Any] | None = None,
        transform: Transform | None = None,
    ) -> None:
        if min(batch_size, len(x)) < world_size:
            raise ValueError(
                f"batch_size: expected at least a row for each of {world_size} processes, got {batch_size}"
            )
        self.x, self.context, self.position, self.seed = x, context, position, seed
        self.rank, self.world_size, self.redraw, self.transform = rank, world_size, redraw, transform
        self.num_batches = num_batches(len(x), batch_size, world_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = divmod(self.position(), self.num_batches)
        x = self.x if self.redraw is None else _rows("redraw", self.redraw(epoch))
        if x.shape != self.x.shape:
            raise ValueError(f"redraw: expected rows of shape {tuple(self.x.shape)}, got {tuple(x.shape)}")
        order = torch.arange(len(x))
        if self.seed is not None:
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(address(self.seed, "order", epoch)))
        for index, batch in enumerate(order.tensor_split(self.num_batches)[first:], first):
            rows = batch.tensor_split(self.world_size)[self.rank]
            taken = x.index_select(0, rows)
            if self.transform is not None:
                where = address(self.seed or 0, "transform", epoch, index, self.rank)
                taken = self.transform(taken, torch.Generator().manual_seed(where))
            context = None if self.context is None else self.context.index_select(0, rows)
            yield Batch(taken, context, len(batch), len(taken))


def num_batches(num_rows: int, batch_size: int, world_size: int = 1) -> int:
    """Return the number of batches in an epoch, each with a row for every process.

    Example:
        >>> num_batches(1000, 100), num_batches(1001, 100), num_batches(3, 2, world_size=2)
        (10, 11, 1)
    """
    return max(1, min(math.ceil(num_rows / batch_size), num_rows // world_size))


def as_values(model: AutoregressiveModel, rows: Tensor) -> Tensor:
    """Return rows in the dtype that the model's head takes.

    Example:
        >>> from seriatim.models import FVSBN
        >>> as_values(FVSBN((2,)), torch.zeros(1, 2, dtype=torch.uint8)).dtype
        torch.int64
    """
    if model.head.value_dtype is not None:
        return rows.to(model.head.value_dtype)
    return rows.to(model.dtype) if rows.is_floating_point() else rows.long()


def check_support(head: Head, name: str, rows: Tensor, first: int, one: str = "row") -> None:
    """Refuse values that a head does not know; `first` is the number of the first row.

    Raises:
        ValueError: names the first such value and its place.
    """
    ok = head.support.check(rows)
    if not bool(ok.all()):
        row, *place = (int(i) for i in (~ok).nonzero()[0])
        value = rows[(row, *place)].tolist()
        where = f"{one} {first + row}" + (f", position {tuple(place)}" if place else "")
        raise ValueError(f"{name}: expected {head.support}, got {value} at {where}")


def _rows(name: str, rows: Any) -> Tensor:
    if not isinstance(rows, Tensor):
        array = np.asarray(rows)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name}: expected an array of numbers, got dtype {array.dtype}")
        with warnings.catch_warnings():  # a read-only memory map is read only
            warnings.simplefilter("ignore", UserWarning)
            rows = torch.as_tensor(array)
    rows = rows.detach().cpu()
    if rows.ndim < 2 or not rows.numel():
        raise ValueError(f"{name}: expected shape (N, ...) with rows and entries, got {tuple(rows.shape)}")
    return rows.to(_NARROW.get(rows.dtype, rows.dtype))


def _context(name: str, rows: Any, context: Any) -> Tensor | None:
    if context is None:
        return None
    tensor = torch.as_tensor(context).detach().cpu()
    if tensor.ndim < 1 or len(tensor) != len(rows):
        raise ValueError(f"{name}_context: expected one for each of {len(rows)} rows, got {tuple(tensor.shape)}")
    return tensor
