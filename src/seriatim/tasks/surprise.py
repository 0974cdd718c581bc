"""`surprise`: log p of every value of sequences of different lengths, and what they cost on average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from seriatim.autoregressive import evaluating
from seriatim.ending import Ending
from seriatim.model import AutoregressiveModel
from seriatim.reading import Reading

_BLOCK = 500  # values of a stream that the bootstrap draws together: neighbours resemble each other


@dataclass(frozen=True, eq=False)
class Surprise:
    """What sequences cost, value by value.

    Attributes:
        values: log p(x_t | x_<t, c) of each value, in nats: one array (T_i,) a sequence.
        ends: log p of ending after the last value and of going on before it, in nats, (N,): what the lengths cost;
            None where no end is modelled.
        interval: of `nats`, a percentile bootstrap interval over sequences, or over blocks of streams.
        confidence: of the interval.

    Example:
        >>> found = Surprise([np.array([-1.0, -2.0]), np.array([-3.0])], np.array([-0.5, -0.5]), (1.5, 3.0), 0.95)
        >>> found.nats, found.log_prob.tolist()
        (2.0, [-3.5, -3.5])
    """

    values: list[np.ndarray]
    ends: np.ndarray | None
    interval: tuple[float, float]
    confidence: float

    @cached_property
    def lengths(self) -> np.ndarray:
        """How many values each sequence has, (N,)."""
        return np.array([len(own) for own in self.values])

    @property
    def nats(self) -> float:
        """-log p per value, in nats: all values together over their number, what ends cost left out."""
        return -float(sum(own.sum(dtype=np.float64) for own in self.values)) / max(1, int(self.lengths.sum()))

    @property
    def bits(self) -> float:
        """-log2 p per value."""
        return self.nats / math.log(2)

    @property
    def log_prob(self) -> np.ndarray:
        """log p of each sequence, its end included, in nats, (N,)."""
        own = np.array([values.sum(dtype=np.float64) for values in self.values])
        return own if self.ends is None else own + self.ends

    @property
    def end_nats(self) -> float | None:
        """What a sequence costs on average for its length, in nats; None where no end is modelled."""
        return None if self.ends is None else -float(self.ends.mean())


@torch.no_grad()
def surprise(
    model: AutoregressiveModel,
    sequences: Sequence[np.ndarray],
    contexts: Tensor | None = None,
    *,
    batch_size: int = 64,
    chunk_length: int = 2048,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Surprise:
    """Score sequences of different lengths, each as if it were alone, in memory that does not grow with their length.

        log p(x_t | x_<t, c) for all t,    nats = -sum of all terms / number of values

    Args:
        model: a model of positions one after another, over any length.
        sequences: (T_i, *value_shape) each.
        contexts: (N, *context event) for a conditional model.
        batch_size: sequences at a time, those of like length together.
        chunk_length: values of each that are read at a time.
        num_resamples: draws of the bootstrap; of fewer than ten sequences it draws blocks of 500 values.
        confidence: of the interval.
        seed: of the bootstrap.

    Raises:
        ValueError: no sequences, values that the model's head refuses, or a model of fixed length that is shorter.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.models import LSTM
        >>> found = surprise(LSTM((5,), Categorical(3), hidden_features=4), [np.array([0, 2, 1]), np.array([1])])
        >>> found.lengths.tolist(), found.ends is None
        ([3, 1], True)
    """
    if not len(sequences) or min(batch_size, chunk_length) < 1:
        raise ValueError(
            f"expected a sequence or more, batch_size >= 1 and chunk_length >= 1, got {len(sequences)}, "
            f"{batch_size} and {chunk_length}"
        )
    values: list[list[np.ndarray]] = [[] for _ in sequences]
    ends = np.zeros(len(sequences)) if isinstance(model.head, Ending) else None
    order = np.argsort([-len(own) for own in sequences], kind="stable")
    with evaluating(model):
        for rows in np.array_split(order, math.ceil(len(order) / batch_size)):
            context = None if contexts is None else contexts[torch.from_numpy(rows)]
            for alive, terms, stops in _read(model, [sequences[row] for row in rows], context, chunk_length):
                for row, own in zip(rows[:alive], terms, strict=True):
                    values[row].append(own)
                if ends is not None:
                    ends[rows[:alive]] += stops
    joined = [np.concatenate(own) if own else np.zeros(0, np.float32) for own in values]
    interval = _interval(joined, num_resamples, confidence, seed)
    return Surprise(joined, ends, interval, confidence)


def _read(
    model: AutoregressiveModel, sequences: list[np.ndarray], context: Tensor | None, chunk: int
) -> Iterator[tuple[int, list[np.ndarray], np.ndarray]]:
    """Read sequences, longest first, side by side: yield how many are alive, their terms, and what ends cost them."""
    head, ending = model.head, isinstance(model.head, Ending)
    joint = model(context)
    reading = Reading(joint if joint.batch_shape else joint.expand((len(sequences),)))
    lengths = torch.tensor([len(own) + ending for own in sequences])
    for start in range(0, int(lengths.max()), chunk):
        alive = int((lengths > start).sum())
        n = min(chunk, int(lengths.max()) - start)
        parts = [own[start : start + n] for own in sequences[:alive]]
        x = torch.zeros(alive, n, *head.value_shape, dtype=_dtype(model))
        counts = torch.tensor([len(part) for part in parts])
        for row, part in enumerate(parts):
            x[row, : len(part)] = torch.as_tensor(part)
        is_value = torch.arange(n) < counts[:, None]
        _check(model, x, is_value, start)
        if isinstance(head, Ending):
            x = x.masked_fill(head.spread(~is_value), head.mark)
        if alive < len(reading.input):
            reading.select(torch.arange(alive))
        conditional = reading.read(x.to(model.device))
        stops = torch.zeros(alive, n)
        if isinstance(head, Ending):
            terms, stops = (part.cpu() for part in conditional.log_prob_parts(x.to(model.device)))
        else:
            terms = conditional.log_prob(x.to(model.device)).cpu()
        counted = torch.arange(n) < (lengths[:alive, None] - start)
        own = [row[:count].float().numpy() for row, count in zip(terms, counts.tolist(), strict=True)]
        yield alive, own, torch.where(counted, stops, 0).double().sum(1).numpy()


def _dtype(model: AutoregressiveModel) -> torch.dtype:
    return torch.int64 if model.head.discrete else model.dtype


def _check(model: AutoregressiveModel, x: Tensor, is_value: Tensor, start: int) -> None:
    """Refuse values outside the support; the padding is 0, which every head takes that is read here or is masked."""
    inner = model.head.head if isinstance(model.head, Ending) else model.head
    ok = inner.support.check(x) | ~is_value
    if not bool(ok.all()):
        row, place = (int(i) for i in (~ok).nonzero()[0][:2])
        raise ValueError(
            f"sequences: expected {inner.support}, got {x[row, place].tolist()} at position {start + place}"
        )


def _interval(values: list[np.ndarray], num_resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    """Return the bootstrap interval of nats per value: sums over lengths, for sequences or blocks drawn anew."""
    parts = values
    if len(values) < 10:
        parts = [part for own in values for part in np.array_split(own, max(1, len(own) // _BLOCK))]
    sums = np.array([-part.sum(dtype=np.float64) for part in parts])
    counts = np.array([len(part) for part in parts], dtype=np.float64)
    generator = np.random.Generator(np.random.Philox(seed))
    means = np.empty(num_resamples)
    for k in range(num_resamples):
        drawn = generator.integers(len(parts), size=len(parts))
        means[k] = sums[drawn].sum() / max(1.0, counts[drawn].sum())
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


@torch.no_grad()
def read_along(
    model: AutoregressiveModel, blocks: Iterable[np.ndarray], context: Tensor | None = None
) -> Iterator[np.ndarray]:
    """Score one sequence that comes in blocks, and give the terms of each block before the next one is taken.

        log p(x_t | x_<t, c) for the t of the block, in nats

    Memory is that of a block, however long the sequence is: an hour of sound, a log that never ends. With an `Ending`
    head the terms are those of values and of going on.

    Args:
        model: a model of positions one after another, over any length.
        blocks: (n, *value_shape) each.
        context: of the sequence, (*context event).

    Yields:
        (n,) float32.

    Raises:
        ValueError: values that the model's head refuses.

    Example:
        >>> from seriatim.models import LSTM
        >>> model = LSTM((5,), hidden_features=4)
        >>> [len(terms) for terms in read_along(model, [np.zeros(3), np.ones(2)])]
        [3, 2]
    """
    for values, stops in read_parts(model, blocks, context):
        if len(values):
            yield values + stops


@torch.no_grad()
def read_parts(
    model: AutoregressiveModel, blocks: Iterable[np.ndarray], context: Tensor | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score one sequence that comes in blocks as `read_along` does, with what its end costs apart.

        log p(x) = sum of all terms of values + sum of all terms of the end

    Args:
        model: a model of positions one after another, over any length.
        blocks: (n, *value_shape) each.
        context: of the sequence, (*context event).

    Yields:
        For each block the terms of its values and of going on before them, (n,) float32 each, in nats; after the last
        block, where an end is modelled, no terms of values and that of ending, (0,) and (1,).

    Raises:
        ValueError: values that the model's head refuses.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.models import LSTM
        >>> model = LSTM((5,), Ending(Categorical(3)), hidden_features=4)
        >>> [(len(values), len(stops)) for values, stops in read_parts(model, [np.zeros(3), np.ones(2)])]
        [(3, 3), (2, 2), (0, 1)]
    """
    position, head = 0, model.head
    with evaluating(model):
        joint = model(None if context is None else context[None])
        reading = Reading(joint if joint.batch_shape else joint.expand((1,)))
        for block in blocks:
            x = torch.as_tensor(np.ascontiguousarray(block)).to(_dtype(model))[None]
            if not x.shape[1]:
                continue
            _check(model, x, torch.ones(1, x.shape[1], dtype=torch.bool), position)
            position += x.shape[1]
            conditional = reading.read(x)
            if isinstance(head, Ending):
                values, stops = conditional.log_prob_parts(x.to(model.device))
            else:
                values = conditional.log_prob(x.to(model.device))
                stops = torch.zeros_like(values)
            yield values[0].float().cpu().numpy(), stops[0].float().cpu().numpy()
        if isinstance(head, Ending):
            end = torch.full((1, 1, *head.value_shape), head.mark, dtype=_dtype(model))
            _, stops = reading.read(end).log_prob_parts(end.to(model.device))
            yield np.zeros(0, dtype=np.float32), stops[0].float().cpu().numpy()


@torch.no_grad()
def surprise_inside(
    model: AutoregressiveModel, sequence: np.ndarray, context: Tensor | None = None, *, chunk_length: int = 2048
) -> np.ndarray:
    """Score each number of the vectors of a sequence: the notes of chords, the channels of a recording.

        log p(x_ti | x_<t, x_t1, ..., x_t(i-1), c),    in nats; the sum over i is log p(x_t | x_<t, c)

    Args:
        model: a model of vectors whose head is `Nested` or `Independent`, within `Ending` or not.
        sequence: (T, *value_shape).
        context: of the sequence, (*context event).
        chunk_length: positions that are read at a time.

    Returns:
        (T, *value_shape) float32.

    Raises:
        ValueError: a head that does not tell the numbers of a vector apart, or values that it refuses.

    Example:
        >>> from seriatim.heads import Bernoulli
        >>> from seriatim.independent import Independent
        >>> from seriatim.models import LSTM
        >>> model = LSTM((5,), Independent(Bernoulli(), (3,)), hidden_features=4)
        >>> surprise_inside(model, np.ones((7, 3))).shape
        (7, 3)
    """
    parts = []
    with evaluating(model):
        joint = model(None if context is None else context[None])
        reading = Reading(joint if joint.batch_shape else joint.expand((1,)))
        for start in range(0, len(sequence), chunk_length):
            block = np.ascontiguousarray(sequence[start : start + chunk_length])
            x = torch.as_tensor(block).to(_dtype(model))[None]
            _check(model, x, torch.ones(1, x.shape[1], dtype=torch.bool), start)
            conditional = reading.read(x)
            if isinstance(model.head, Ending):
                conditional = conditional.values
            if not hasattr(conditional, "log_prob_terms"):
                raise ValueError(f"model: expected a head of vectors, Nested or Independent, got {model.head}")
            parts.append(conditional.log_prob_terms(x.to(model.device))[0].float().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros(sequence.shape, dtype=np.float32)
