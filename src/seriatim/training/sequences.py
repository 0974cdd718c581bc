"""Sequences in memory, and the parts of them that steps learn from: a function of (seed, epoch, step), as for rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from seriatim.data.sequences import Ragged, Sequences
from seriatim.ending import Ending
from seriatim.training.config import TrainConfig
from seriatim.training.data import Batch, Part, Position, Transform, address, as_values, check_support

if TYPE_CHECKING:
    from seriatim.model import AutoregressiveModel

_GRID = 1.1  # lengths within this ratio count as alike
_MARGINAL_VALUES = 1 << 20

Context = Tensor | Ragged | None
"""What sequences are conditioned on: (N, *context event), or N sequences of whole numbers."""


class SequenceData:
    """The sequences to train on and to validate with, as `TrainingData` is for rows.

    A step takes a group of sequences of like length, or a part of them: with `chunk_length` set a group is read part by
    part, and the state goes from step to step (truncated back-propagation). Streams that do not end are first cut into
    `batch_size` lanes. Without `carry_state` every part is a sequence of its own, cut at random.

    Args:
        train: (T_i, *value_shape) each.
        valid: the same; None to train without validation.
        train_context: what each training sequence is conditioned on, or None.
        valid_context: the same for `valid`.
        ends: whether an end is modelled, one term after the values of each sequence.
        unit: what one position is called.
        facts: for the model card.
        codec: between values and what people have, kept beside the model.
        source_codec: the same for contexts that are sequences.

    Example:
        >>> data = SequenceData(Ragged(np.arange(5), [2, 3]), None, ends=True)
        >>> batches = data.batches(TrainConfig(batch_size=2))
        >>> [(batch.x.shape, batch.num_rows) for batch in batches]
        [(torch.Size([2, 4]), 7)]
    """

    schema = None

    def __init__(
        self,
        train: Ragged,
        valid: Ragged | None = None,
        *,
        train_context: Context = None,
        valid_context: Context = None,
        ends: bool,
        unit: str = "step",
        facts: Mapping[str, str | int | float | None] | None = None,
        codec: Any = None,
        source_codec: Any = None,
    ) -> None:
        self.train, self.valid = train, valid
        self.train_context, self.valid_context = train_context, valid_context
        for name, rows, context in (("train", train, train_context), ("valid", valid, valid_context)):
            if rows is not None and (not len(rows) or not len(rows.values)):
                raise ValueError(f"{name}: expected sequences with values, got {rows}")
            if rows is not None and context is not None and len(context) != len(rows):
                raise ValueError(f"{name}_context: expected {len(rows)}, one for each sequence, got {len(context)}")
        self.ends, self.unit, self.facts = ends, unit, dict(facts or {})
        self.codec, self.source_codec = codec, source_codec

    @classmethod
    def of(cls, data: Sequences, model: AutoregressiveModel) -> SequenceData:
        """Take the sequences of a data set, with what the model's encoder reads: the sources, or the labels."""
        context: Mapping[str, Any] = {}
        if model.encoder is not None:
            context = data.sources or {name: torch.from_numpy(own) for name, own in (data.labels or {}).items()}
        return cls(
            data.train,
            data.valid,
            train_context=context.get("train"),
            valid_context=context.get("valid"),
            ends=isinstance(model.head, Ending),
            unit=data.unit,
            facts={"name": data.name, "sha256 of train, valid and test": data.digest},
            codec=data.codec,
            source_codec=data.source_codec,
        )

    def num_dimensions(self, model: AutoregressiveModel) -> int:
        """What bits per dimension divide by: nats are those of one position already."""
        return 1

    @cached_property
    def sha256(self) -> str:
        """The hash of all sequences and contexts, in hexadecimal."""
        sha = hashlib.sha256()
        for part in (self.train, self.valid, self.train_context, self.valid_context):
            rows = part if not isinstance(part, Tensor) else Ragged(part.numpy())
            sha.update(f"{None if rows is None else (rows.values.shape, str(rows.values.dtype))}\n".encode())
            if rows is not None:
                sha.update(rows.offsets.data)
                sha.update(np.ascontiguousarray(rows.values).data)
        return sha.hexdigest()

    @property
    def sizes(self) -> dict[str, int]:
        """How much there is, for the card."""
        held = 0 if self.valid is None else len(self.valid.values)
        return {f"training {self.unit}s": len(self.train.values), f"validation {self.unit}s": held}

    def marginal_rows(self, model: AutoregressiveModel, transform: Transform | None, seed: int) -> Tensor:
        """Return sequences to set output biases by: (N, n, *value_shape), padded with the mark of the end."""
        if not self.ends:
            return torch.from_numpy(np.ascontiguousarray(self.train.values[None, :_MARGINAL_VALUES]))
        order = np.random.default_rng(address(seed, "marginals")).permutation(len(self.train))
        fitting = np.cumsum(self.train.lengths[order]) <= _MARGINAL_VALUES
        own = self.train.take(order[: max(1, int(fitting.sum()))])
        return _padded(own, 0, int(own.lengths.max()) + 1, model.head)

    def check(self, model: AutoregressiveModel, transform: Transform | None) -> None:
        """Refuse sequences and contexts that do not fit the model, once, so that no step has to.

        Raises:
            ValueError: names the split, what was expected and what came.
        """
        if transform is not None:
            raise ValueError("transform: expected None for sequences, got one")
        head = model.head.head if isinstance(model.head, Ending) else model.head
        splits = (("train", self.train, self.train_context), ("valid", self.valid, self.valid_context))
        for name, rows, context in splits:
            if rows is None:
                continue
            if rows.values.shape[1:] != tuple(head.value_shape):
                raise ValueError(
                    f"{name}: expected values of shape {tuple(head.value_shape)} for {head}, "
                    f"got {rows.values.shape[1:]}"
                )
            for start in range(0, len(rows.values), _MARGINAL_VALUES):
                block = torch.from_numpy(np.ascontiguousarray(rows.values[start : start + _MARGINAL_VALUES]))
                check_support(head, name, as_values(model, block), start, "value")
            if (context is None) != (model.encoder is None):
                wants = "none, for the model has no encoder" if model.encoder is None else f"one for {model.encoder!r}"
                raise ValueError(f"{name}_context: expected {wants}, got {'none' if context is None else 'one'}")
            if model.encoder is not None and context is not None:
                model.encoder.check(_contexts(context, np.arange(len(rows))))

    def num_batches(self, config: TrainConfig) -> int:
        """How many steps an epoch has."""
        return self._parts(config, "train").num_batches

    def batches(
        self, config: TrainConfig, *, position: Position = lambda: 0, rank: int = 0, transform: Transform | None = None
    ) -> Parts:
        """Return the steps of the epoch that `position()` is in, from there on."""
        return self._parts(config, "train", position=position, rank=rank, seed=config.seed)

    def valid_batches(self, config: TrainConfig, *, rank: int = 0) -> Parts:
        """Return the validation sequences."""
        return self._parts(config, "valid", rank=rank)

    def _parts(self, config: TrainConfig, split: str, **options: Any) -> Parts:
        rows, context = (self.train, self.train_context) if split == "train" else (self.valid, self.valid_context)
        assert rows is not None
        if not self.ends and config.chunk_length is not None and config.carry_state:
            rows, context = in_lanes(rows, context, config.batch_size)
        return Parts(rows, context, config, ends=self.ends, **options)


def in_lanes(rows: Ragged, context: Context, num_lanes: int) -> tuple[Ragged, Context]:
    """Cut streams into parts of equal length, about so many in all; each has the context of its stream.

    Example:
        >>> in_lanes(Ragged(np.arange(10)), None, 3)[0].lengths.tolist()
        [4, 4, 2]
    """
    length = max(1, math.ceil(len(rows.values) / num_lanes))
    lengths = [[min(length, n - start) for start in range(0, n, length)] for n in rows.lengths.tolist()]
    origin = np.repeat(np.arange(len(rows)), [len(own) for own in lengths])
    cut = Ragged(rows.values, [n for own in lengths for n in own])
    return cut, None if context is None else context[origin] if isinstance(context, Tensor) else context.take(origin)


class Parts:
    """The steps of one epoch over sequences; each iteration starts where `position()` says.

    Sequences are sorted by length, alike ones in an order decided by (seed, epoch), and cut into groups whose number
    and lengths are the same in every epoch; the order of the groups is decided by (seed, epoch) too. A pair that is
    read whole is as long as the longer of its source and its target.

    Args:
        rows: the sequences.
        context: what each is conditioned on, or None.
        config: `batch_size` or `batch_values`, `chunk_length`, `carry_state`.
        ends: whether one term for the end follows the values.
        position: returns how many steps have been taken since epoch 0.
        seed: of all orders and cuts; None: by length, cuts at multiples of the length of a part.
        rank: the number of this process.

    Raises:
        ValueError: fewer sequences in a group than processes.
    """

    def __init__(
        self,
        rows: Ragged,
        context: Context,
        config: TrainConfig,
        *,
        ends: bool,
        position: Position = lambda: 0,
        seed: int | None = None,
        rank: int = 0,
    ) -> None:
        self.rows, self.context, self.ends = rows, context, ends
        self.chunk, self.carry = config.chunk_length, config.carry_state
        self.position, self.seed, self.rank, self.world_size = position, seed, rank, config.world_size
        self.windows = None if self.chunk is None or self.carry else _windows(rows.lengths + ends, self.chunk)
        lengths = rows.lengths + ends if self.windows is None else self.windows[:, 2]
        # The lengths that groups are made by: rounded up, so that groups do not depend on the order of alike ones.
        if self.chunk is not None:
            self.keys = -(-lengths // self.chunk) * self.chunk
        else:  # sources are padded too: the answers to a thousand long stories would not fit into memory
            self.keys = _rounded(np.maximum(lengths, context.lengths) if isinstance(context, Ragged) else lengths)
        self.bounds = _bounds(np.sort(self.keys)[::-1], config)
        if min(stop - start for start, stop in self.bounds) < self.world_size:
            raise ValueError(f"batch_size: expected a sequence for each of {self.world_size} processes, got fewer")
        longest = np.sort(self.keys)[::-1][[start for start, _ in self.bounds]]
        carried = self.chunk is not None and self.carry
        self.steps = -(-longest // self.chunk) if carried else np.ones(len(longest), dtype=np.int64)
        self.num_batches = int(self.steps.sum())

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = divmod(self.position(), self.num_batches)
        rng = None if self.seed is None else np.random.default_rng(address(self.seed, "order", epoch))
        within = np.arange(len(self.keys)) if rng is None else rng.permutation(len(self.keys))
        order = within[np.argsort(-self.keys[within], kind="stable")]
        groups = np.arange(len(self.bounds)) if rng is None else rng.permutation(len(self.bounds))
        shift = rng if rng is not None and self.windows is not None else None
        starts, lengths = self._cut(shift)
        index = 0
        for group in groups:
            start, stop = self.bounds[group]
            for part in range(int(self.steps[group])):
                if index >= first:
                    yield self._batch(order[start:stop], part, starts, lengths)
                index += 1

    def _cut(self, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
        """Return where each sequence, or window of one, begins within `rows.values`, and its length with the end."""
        if self.windows is None:
            return self.rows.offsets[:-1], self.rows.lengths + self.ends
        row, start, length = self.windows.T
        if rng is not None and self.chunk is not None:
            total = (self.rows.lengths + self.ends)[row]
            moved = start + rng.integers(-self.chunk // 2, self.chunk // 2 + 1, len(start))
            start = np.clip(moved, 0, np.maximum(total - length, 0))
        return self.rows.offsets[row] + start, length

    def _batch(self, group: np.ndarray, part: int, starts: np.ndarray, lengths: np.ndarray) -> Batch:
        carried = self.chunk is not None and self.carry
        done = part * self.chunk if carried and self.chunk is not None else 0
        width = self.chunk if carried else None
        # Longest first: those that are still alive are the first ones.
        group = group[np.argsort(-lengths[group], kind="stable")]
        left = np.maximum(lengths[group] - done, 0)
        terms = left if width is None else np.minimum(left, width)
        own = slice(self.rank, None, self.world_size)
        alive = max(1, int((left[own] > 0).sum()))
        mine, counts = group[own][:alive], terms[own][:alive]
        rows = mine if self.windows is None else self.windows[mine, 0]
        total = self.rows.offsets[rows + 1]
        n = int(counts.max())
        x = np.zeros((len(mine), max(n, 1), *self.rows.values.shape[1:]), self.rows.values.dtype)
        values = np.zeros(len(mine), dtype=np.int64)  # how many of the terms are values, not the end
        for k, start in enumerate(starts[mine] + done):
            piece = self.rows.values[start : min(start + counts[k], total[k])]
            x[k, : len(piece)] = piece
            values[k] = len(piece)
        context = None if self.context is None else _contexts(self.context, rows)
        return Batch(
            torch.from_numpy(x),
            context,
            num_rows=int(terms.sum()),
            num_units=int(values.sum()),
            part=Part(torch.from_numpy(values), torch.from_numpy(counts.copy()), part == 0),
        )


def _windows(lengths: np.ndarray, chunk: int) -> np.ndarray:
    """Return (row, start, length) of the parts of all sequences."""
    own = [(row, start, min(chunk, n - start)) for row, n in enumerate(lengths) for start in range(0, n, chunk)]
    return np.array(own, dtype=np.int64)


def _rounded(lengths: np.ndarray) -> np.ndarray:
    """Return lengths rounded up to a grid whose steps are a tenth.

    Example:
        >>> _rounded(np.array([1, 5, 100])).tolist()
        [1, 6, 107]
    """
    power = np.ceil(np.log(np.maximum(lengths, 1)) / math.log(_GRID) - 1e-9)
    return np.maximum(lengths, np.ceil(_GRID**power - 1e-9).astype(np.int64))


def _bounds(keys: np.ndarray, config: TrainConfig) -> list[tuple[int, int]]:
    """Return where groups of sequences begin and end, for lengths in descending order."""
    if config.batch_values is None:
        count = max(1, min(math.ceil(len(keys) / config.batch_size), len(keys) // config.world_size))
        edges = [part[0] for part in np.array_split(np.arange(len(keys)), count)]
    else:
        edges, first = [0], 0
        for index, longest in enumerate(keys):
            width = keys[first] if config.chunk_length is None else min(keys[first], config.chunk_length)
            if (index - first + 1) * width > max(config.batch_values, longest):
                edges.append(index)
                first = index
    return list(zip(edges, [*edges[1:], len(keys)], strict=True))


def _contexts(context: Tensor | Ragged, rows: np.ndarray) -> Tensor:
    """Return the contexts of some sequences; those that are sequences padded with -1."""
    if isinstance(context, Tensor):
        return context[rows]
    own = context.take(rows)
    padded = np.full((len(own), max(1, int(own.lengths.max()))), -1, dtype=np.int64)
    for k, values in enumerate(own):
        padded[k, : len(values)] = values
    return torch.from_numpy(padded)


def _padded(rows: Ragged, start: int, length: int, head: Any) -> Tensor:
    """Return sequences as rows (N, length, ...), what follows them filled with the mark of the end."""
    signed = np.float32 if not head.discrete else np.int64
    x = np.full((len(rows), length, *rows.values.shape[1:]), head.mark, dtype=signed)
    for k, values in enumerate(rows):
        x[k, : len(values)] = values
    return torch.from_numpy(x)
