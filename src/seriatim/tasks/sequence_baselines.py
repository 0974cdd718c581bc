"""Baselines of sequences: frequencies, the value before, and compressors, on the same values as the model."""

from __future__ import annotations

import lzma
import math
import zlib
from collections.abc import Sequence

import numpy as np

from seriatim.tasks.baselines import Baseline, packed_bytes

_TIED = 20.0  # counts of the unigram that stand behind each row of the bigram
_FEW = 0.01  # share of all counts that is added at most, and of the wide normal
_FITTED = 50_000  # numbers that a mixture is fitted to


def sequence_baselines(
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    *,
    levels: int | None = None,
    ordered: bool = True,
    raw: bytes | None = None,
) -> list[Baseline]:
    """Score sequences under models that know less: no past, or the value before only; and compress them.

        unigram:   prod_t p(x_t)
        bigram:    prod_t p(x_t | x_t-1), of symbols
        previous:  prod_t p(x_t - x_t-1), of numbers, cut to their range; of bits each given the same one before

    All are fitted to the training sequences, smoothed, and sum to 1. The first value of a sequence has the unigram's.

    Args:
        train: (T_i, *value_shape) each: whole numbers 0..levels-1, or real numbers.
        test: the same, to be scored.
        levels: of whole numbers; None for real ones.
        ordered: whether neighbouring numbers are alike, as in sound; symbols of a text are not.
        raw: what compressors are given; the values of all sequences, one after the other, if None.

    Returns:
        "unigram", "previous" or "bigram", "zlib" and "xz", with nats and bits per value (a vector is one value), and
        log p of each sequence; compressors of real numbers do not apply.

    Raises:
        ValueError: no values.

    Example:
        >>> words = [np.array([0, 1] * 20)]
        >>> found = sequence_baselines(words, words, levels=2, ordered=False)
        >>> [b.name for b in found], found[1].nats < found[0].nats
        (['unigram', 'bigram', 'zlib', 'xz'], True)
    """
    if not sum(map(len, train)) or not sum(map(len, test)):
        raise ValueError(f"train, test: expected values, got {sum(map(len, train))} and {sum(map(len, test))}")
    if levels is None:
        terms = {"unigram": _mixture(train, test), "previous": _moved_mixture(train, test)}
        details = ["a mixture of normals, fitted to train", "a mixture of normals around the value before"]
    elif test[0].ndim > 1:
        terms = {"unigram": _bits(train, test), "previous": _bits_before(train, test)}
        details = ["how often each is 1 in train", "each given the same one a step before"]
    elif ordered:
        terms = {"unigram": _counted(train, test, levels), "previous": _moved(train, test, levels)}
        details = ["frequencies of train", "frequencies of the difference to the value before"]
    else:
        terms = {"unigram": _counted(train, test, levels), "bigram": _pairs(train, test, levels)}
        details = ["frequencies of train", "frequencies after each symbol"]
    found = [_scored(name, own, test, detail) for (name, own), detail in zip(terms.items(), details, strict=True)]
    return found + [_compressed(name, test, levels, raw) for name in ("zlib", "xz")]


def _scored(name: str, terms: np.ndarray, test: Sequence[np.ndarray], detail: str) -> Baseline:
    """Of log p (sum of lengths,) of all values."""
    ends = np.cumsum([len(own) for own in test])
    sums = np.array([part.sum() for part in np.split(terms, ends[:-1])])
    nats = -float(terms.mean())
    return Baseline(name, nats, nats / math.log(2), detail, sums)


def _compressed(name: str, test: Sequence[np.ndarray], levels: int | None, raw: bytes | None) -> Baseline:
    if levels is None and raw is None:
        return Baseline(name, None, None, "needs discrete values: bytes of real numbers are no density")
    data = raw if raw is not None else packed_bytes(np.concatenate(list(test)), levels or 2)
    packed = zlib.compress(data, 9) if name == "zlib" else lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    bits = 8 * len(packed) / sum(map(len, test))
    level = "level 9" if name == "zlib" else "preset 9e"
    return Baseline(name, bits * math.log(2), bits, f"{level}, all sequences at once: {len(packed):,} bytes")


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Frequencies of counts (..., K), half a count added to each, or less where that would be too much."""
    total = counts.sum(-1, keepdims=True)
    added = np.minimum(0.5, np.maximum(1.0, _FEW * total) / counts.shape[-1])
    return (counts + added) / (total + added * counts.shape[-1])


def _counted(train: Sequence[np.ndarray], test: Sequence[np.ndarray], levels: int) -> np.ndarray:
    counts = sum(np.bincount(own, minlength=levels) for own in train)
    return np.log(_smoothed(np.asarray(counts, dtype=np.float64)))[np.concatenate(list(test))]


def _moved(train: Sequence[np.ndarray], test: Sequence[np.ndarray], levels: int) -> np.ndarray:
    """p(x | before) = h[x - before] over the sum of h of all differences that stay within 0..levels-1."""
    counts = np.zeros(2 * levels - 1)
    for own in train:
        counts += np.bincount(np.diff(own.astype(np.int64)) + levels - 1, minlength=len(counts))
    h = _smoothed(counts)
    below = np.concatenate([[0.0], np.cumsum(h)])
    terms, first = _counted(train, test, levels), _firsts(test)
    x = np.concatenate(list(test)).astype(np.int64)
    before = np.roll(x, 1)
    within = below[2 * levels - 1 - before] - below[levels - 1 - before]
    return np.where(first, terms, np.log(h[x - before + levels - 1]) - np.log(within))


def _pairs(train: Sequence[np.ndarray], test: Sequence[np.ndarray], levels: int) -> np.ndarray:
    """p(x | before) = (n(before, x) + a p(x)) / (n(before) + a)."""
    symbols, unigram, first = np.concatenate(list(train)).astype(np.int64), _counted(train, test, levels), _firsts(test)
    codes = (np.roll(symbols, 1) * levels + symbols)[~_firsts(train)]
    known, counts = np.unique(codes, return_counts=True)
    befores = np.bincount(codes // levels, minlength=levels)
    x = np.concatenate(list(test)).astype(np.int64)
    before = np.roll(x, 1)
    place = np.minimum(np.searchsorted(known, before * levels + x), max(0, len(known) - 1))
    seen = np.where(known[place] == before * levels + x, counts[place], 0) if len(known) else np.zeros(len(x))
    return np.where(first, unigram, np.log(seen + _TIED * np.exp(unigram)) - np.log(befores[before] + _TIED))


def _bits(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.concatenate(list(train)).reshape(sum(map(len, train)), -1)
    ones = (rows.sum(0) + 0.5) / (len(rows) + 1.0)
    x = np.concatenate(list(test)).reshape(-1, len(ones))
    return np.asarray(np.where(x == 1, np.log(ones), np.log1p(-ones)).sum(1))


def _bits_before(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> np.ndarray:
    def stepped(own: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        rows = np.concatenate(list(own)).reshape(sum(map(len, own)), -1).astype(np.int64)
        return np.roll(rows, 1, axis=0), rows

    before, rows = stepped(train)
    later, width = ~_firsts(train), rows.shape[1]
    counts = np.zeros((width, 2, 2))
    for value in (0, 1):
        for old in (0, 1):
            counts[:, old, value] = ((before == old) & (rows == value))[later].sum(0)
    log_p = np.log((counts + 0.5) / (counts.sum(-1, keepdims=True) + 1.0))
    before, x = stepped(test)
    return np.where(_firsts(test), _bits(train, test), log_p[np.arange(width), before, x].sum(1))


def _mixture(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> np.ndarray:
    return _of_mixture(np.concatenate(list(train)), np.concatenate(list(test)))


def _moved_mixture(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> np.ndarray:
    steps = [np.diff(own, axis=0) for own in train]
    if not sum(map(len, steps)):
        return _mixture(train, test)
    x = np.concatenate(list(test))
    moved = _of_mixture(np.concatenate(steps), x - np.roll(x, 1, axis=0))
    return np.where(_firsts(test), _mixture(train, test), moved)


def _of_mixture(fitted: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log p (T,) of real numbers, one mixture for each number of a vector."""
    columns = zip(fitted.reshape(len(fitted), -1).T, x.reshape(len(x), -1).T, strict=True)
    return np.asarray(sum(_log_mixture(own, *fit_mixture(column)) for column, own in columns))


def fit_mixture(x: np.ndarray, num_components: int = 8, num_steps: int = 50) -> tuple[np.ndarray, ...]:
    """Fit a mixture of normals to numbers by expectation and maximisation, and a wide normal with a hundredth of all.

    Args:
        x: (N,); of more than 50,000 as many, evenly spaced.
        num_components: without the wide one.
        num_steps: of the fit, from quantiles.

    Returns:
        Weights, means and standard deviations, (num_components + 1,) each.

    Reference: Maximum Likelihood from Incomplete Data via the EM Algorithm (Dempster, Laird, Rubin, 1977).

    Example:
        >>> weights, means, scales = fit_mixture(np.array([0.0, 0.1, 9.9, 10.0] * 50), num_components=2)
        >>> means[:2].round(2).tolist(), float(weights.sum())
        ([0.05, 9.95], 1.0)
    """
    x = x[np.linspace(0, len(x) - 1, min(len(x), _FITTED)).astype(int)].astype(np.float64)
    spread = float(x.std()) or 1.0
    weights = np.full(num_components, 1 / num_components)
    means = np.quantile(x, (np.arange(num_components) + 0.5) / num_components)
    scales = np.full(num_components, spread / num_components**0.5)
    for _ in range(num_steps):
        log_p = _log_normals(x, weights, means, scales)
        share = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
        sizes = share.sum(0) + 1e-9
        weights, means = sizes / sizes.sum(), share.T @ x / sizes
        scales = np.sqrt((share * (x[:, None] - means) ** 2).sum(0) / sizes)
        scales = np.maximum(scales, 1e-3 * spread)  # repeated numbers must not have an infinite density
    weights = np.append((1 - _FEW) * weights, _FEW)
    return weights, np.append(means, x.mean()), np.append(scales, 3 * spread)


def _log_mixture(x: np.ndarray, weights: np.ndarray, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    blocks = np.array_split(x.astype(np.float64), max(1, len(x) // _FITTED))
    parts = [np.logaddexp.reduce(_log_normals(block, weights, means, scales), axis=1) for block in blocks]
    return np.concatenate(parts)


def _log_normals(x: np.ndarray, weights: np.ndarray, means: np.ndarray, scales: np.ndarray) -> np.ndarray:
    constant = np.log(weights) - np.log(scales) - 0.5 * math.log(2 * math.pi)
    return np.asarray(constant - 0.5 * ((x[:, None] - means) / scales) ** 2)


def _firsts(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """Which of all values begin a sequence."""
    first = np.zeros(sum(map(len, sequences)), dtype=bool)
    starts = np.cumsum([0, *(len(own) for own in sequences)])[:-1]
    first[starts[[len(own) > 0 for own in sequences]]] = True
    return first
