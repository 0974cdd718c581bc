"""Seeded cuts of rows into train, valid and test."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

SPLITS = ("train", "valid", "test")
FRACTIONS = (0.8, 0.1, 0.1)
STREAM_FRACTIONS = (0.9, 0.05, 0.05)


def random_words(num_words: int, *, seed: int, stream: int = 0) -> np.ndarray:
    """Return 64 random bits per word, a function of (seed, stream) only.

    NumPy promises that the raw bits of a bit generator never change between versions; it promises no such
    thing for shuffles and draws. So splits and binarised images are made from these.

    Args:
        num_words: how many words.
        seed: an integer >= 0; its low 64 bits count.
        stream: which of the seed's independent streams, an integer >= 0.

    Returns:
        (num_words,) uint64.

    Raises:
        ValueError: a negative seed.

    Example:
        >>> bool((random_words(3, seed=1) == random_words(5, seed=1)[:3]).all())
        True
    """
    if seed < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed}")
    mask = (1 << 64) - 1
    generator = np.random.Philox(key=(seed & mask) | (stream & mask) << 64)
    return np.atleast_1d(np.asarray(generator.random_raw(num_words), dtype=np.uint64))


def permutation(n: int, seed: int = 0) -> np.ndarray:
    """Return the numbers 0..n-1 in a seeded random order, (n,) int64.

    Example:
        >>> sorted(permutation(4, seed=7).tolist())
        [0, 1, 2, 3]
    """
    return np.argsort(random_words(n, seed=seed), kind="stable")


def split_indices(
    n: int, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut n rows into train, valid and test by a seeded permutation, none of them empty.

    Args:
        n: number of rows, at least 3.
        fractions: the shares of train, valid and test; three positive numbers that sum to 1.
        seed: decides the permutation.

    Returns:
        Three int64 arrays of row numbers, in random order; each row is in exactly one.

    Raises:
        ValueError: fewer than 3 rows, or shares that are not three positive numbers with sum 1.

    Example:
        >>> [len(rows) for rows in split_indices(10)]
        [8, 1, 1]
    """
    rows = split_rows(n, fractions=fractions, seed=seed)
    return rows["train"], rows["valid"], rows["test"]


def split_rows(
    n: int, *, given: Sequence[str] = (), fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Cut n rows into those of train, valid and test that are not given elsewhere.

    Args:
        n: number of rows.
        given: names of the splits that have rows of their own; the shares of the others are scaled to 1.
        fractions: the shares of train, valid and test.
        seed: decides the permutation.

    Returns:
        Row numbers (int64, in random order) for each split that is not in `given`.

    Raises:
        ValueError: too few rows, or bad shares.

    Example:
        >>> {name: len(rows) for name, rows in split_rows(90, given=["test"]).items()}
        {'train': 80, 'valid': 10}
    """
    wanted, shares = _wanted(n, given, fractions)
    parts = np.split(permutation(n, seed), np.cumsum(_sizes(n, shares))[:-1])
    return dict(zip(wanted, parts, strict=True))


def cut_stream(n: int, *, given: Sequence[str] = (), fractions: Sequence[float] = STREAM_FRACTIONS) -> dict[str, slice]:
    """Cut a stream of n positions into train, valid and test, one after the other, none of them empty.

    Args:
        n: number of positions.
        given: names of the splits that have positions of their own; the shares of the others are scaled to 1.
        fractions: the shares of train, valid and test; a cut is rounded down to a whole position.

    Returns:
        The stretch of each split that is not in `given`.

    Raises:
        ValueError: too few positions, or bad shares.

    Example:
        >>> cut_stream(100)
        {'train': slice(0, 90, None), 'valid': slice(90, 95, None), 'test': slice(95, 100, None)}
    """
    wanted, shares = _wanted(n, given, fractions, what="positions")
    ends = [int(n * share + 1e-9) for share in np.cumsum(shares)[:-1]] + [n]
    for i in range(len(ends) - 1):
        ends[i] = min(max(ends[i], 1 + (ends[i - 1] if i else 0)), n - (len(ends) - 1 - i))
    return {name: slice(start, end) for name, start, end in zip(wanted, [0, *ends], ends, strict=False)}


def _wanted(
    n: int, given: Sequence[str], fractions: Sequence[float], what: str = "rows"
) -> tuple[list[str], np.ndarray]:
    """The splits to be cut from n rows, and their shares."""
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"fractions: expected three positive numbers that sum to 1 (train, valid, test), got {tuple(fractions)}"
        )
    wanted = [name for name in SPLITS if name not in given]
    if n < len(wanted):
        raise ValueError(f"{what}: expected at least {len(wanted)} to make {', '.join(wanted)}, got {n}")
    kept = shares[[SPLITS.index(name) for name in wanted]]
    return wanted, kept / kept.sum()


def cut_rows(
    sizes: Mapping[str, int], *, fractions: Sequence[float] = FRACTIONS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Say which rows of "train" go to the splits that are not there; nothing is moved if all three are.

    Args:
        sizes: split -> number of rows, for those given; "train" is one of them.
        fractions: the shares of train, valid and test.
        seed: decides the permutation.

    Returns:
        As `split_rows`, or an empty dict.

    Example:
        >>> cut_rows({"train": 5, "valid": 2, "test": 2})
        {}
    """
    if set(sizes) == set(SPLITS):
        return {}
    given = [name for name in sizes if name != "train"]
    return split_rows(sizes["train"], given=given, fractions=fractions, seed=seed)


def take_rows(parts: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return train, valid and test: the rows that `cut_rows` takes from "train", and the parts given.

    Example:
        >>> parts = {"train": np.arange(4), "test": np.array([9])}
        >>> {name: len(x) for name, x in take_rows(parts, cut_rows({"train": 4, "test": 1})).items()}
        {'train': 3, 'valid': 1, 'test': 1}
    """
    return {name: parts["train"][rows[name]] if name in rows else parts[name] for name in SPLITS}


def split_provenance(rows: Mapping[str, np.ndarray], fractions: Sequence[float], seed: int) -> dict[str, object]:
    """Say in JSON values how the splits were made: which were cut, and by what.

    Example:
        >>> split_provenance({}, FRACTIONS, 0)
        {'cut': []}
    """
    if not rows:
        return {"cut": []}
    return {"cut": list(rows), "split_seed": seed, "fractions": [float(share) for share in fractions]}


def stream_provenance(cut: Collection[str], fractions: Sequence[float]) -> dict[str, object]:
    """Say in JSON values which splits were cut from a stream, one after the other.

    Example:
        >>> stream_provenance(["train", "valid"], (0.8, 0.1, 0.1))
        {'cut': ['train', 'valid'], 'in_order': True, 'fractions': [0.8, 0.1, 0.1]}
    """
    if not cut:
        return {"cut": []}
    return {"cut": list(cut), "in_order": True, "fractions": [float(share) for share in fractions]}


def _sizes(n: int, shares: np.ndarray) -> np.ndarray:
    """Whole sizes that sum to n, each at least 1, by the largest remainder."""
    exact = n * shares
    sizes = np.maximum(1, np.floor(exact)).astype(np.int64)
    while sizes.sum() < n:
        sizes[np.argmax(exact - sizes)] += 1
    while sizes.sum() > n:
        sizes[np.argmax(sizes)] -= 1
    return sizes
