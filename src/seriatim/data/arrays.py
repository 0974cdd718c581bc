"""What the entries of an array are, and data sets made of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from seriatim.data.checks import place, refuse_unknown
from seriatim.data.dataset import DISCRETE, KINDS, Dataset, Kind
from seriatim.data.splits import FRACTIONS, cut_rows, split_provenance, take_rows

MAX_CATEGORICAL = 32  # integers with more levels than this are ordered quantities, not names
_MAX_LEVELS = 1 << 16


def check_array(
    x: Any, *, kind: Kind, levels: int | None = None, event_shape: Sequence[int] | None = None, name: str = "x"
) -> np.ndarray:
    """Return an array in the dtype of its kind once its shape and every entry are known to fit.

    Args:
        x: (N, ...) numbers.
        kind: "binary", "categorical", "integer" or "continuous".
        levels: number of values of a categorical or integer entry.
        event_shape: the shape that a row must have.
        name: what the errors call the array.

    Returns:
        uint8 (binary, and up to 256 levels), int64 (more levels), or float32 / float64 (continuous).

    Raises:
        TypeError: not an array of numbers.
        ValueError: a wrong shape, or an entry that is not finite or not a value of the kind; names its position.

    Example:
        >>> check_array(np.array([[0.0, 1.0], [1.0, 3.0]]), kind="binary")
        Traceback (most recent call last):
        ...
        ValueError: x: expected 0 or 1, got 3 at row 1, column 1
    """
    x = _numeric(x, name)
    if event_shape is not None and x.shape[1:] != tuple(event_shape):
        raise ValueError(f"{name}: expected shape (N, {', '.join(map(str, event_shape))}), got {x.shape}")
    if x.dtype.kind == "f":
        _refuse(name, x, ~np.isfinite(x), "finite numbers")
    if kind == "continuous":
        return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
    refuse_unknown("kind", [kind], DISCRETE)
    top = 1 if kind == "binary" else _check_levels(levels) - 1
    if x.dtype.kind != "b":
        wanted = "0 or 1" if kind == "binary" else f"whole numbers 0..{top}"
        bad = (x < 0) | (x > top)
        if x.dtype.kind == "f":
            bad |= x != np.floor(x)
        _refuse(name, x, bad, wanted)
    return x.astype(np.uint8 if top < 256 else np.int64)


def recognise_array(arrays: Sequence[np.ndarray]) -> tuple[Kind, int | None, list[str]]:
    """Say what the entries of some arrays are: kind, levels, and notes for the user.

    Only zeros and ones are binary. Whole numbers in 0..255 are categorical with up to 32 levels and integer
    above, with max + 1 levels, or 256 if they are bytes beyond 32 levels; they may be stored as floats. Other
    floats are continuous.

    Args:
        arrays: the splits, numbers of any dtype, all finite.

    Raises:
        ValueError: whole numbers below 0 or above 255, whose levels must be given.

    Example:
        >>> recognise_array([np.array([[0, 16], [3, 4]])])[:2]
        ('categorical', 17)
    """
    floats = arrays[0].dtype.kind == "f"
    if floats and not all((x == np.floor(x)).all() for x in arrays):
        return "continuous", None, []
    low = min(int(x.min()) for x in arrays)
    high = max(int(x.max()) for x in arrays)
    if low < 0 or high > 255:
        if floats:
            return "continuous", None, ["whole numbers beyond 0..255: continuous; levels= makes them discrete"]
        raise ValueError(
            f"x: expected whole numbers in 0..255, got {low}..{high}; pass levels= (for 0..levels-1) or "
            "kind='continuous'"
        )
    notes = ["whole numbers stored as floats, taken as such; kind='continuous' makes them a density"]
    if high <= 1:
        return "binary", 2, []
    levels = 256 if arrays[0].dtype == np.uint8 and high >= MAX_CATEGORICAL else high + 1
    return "categorical" if levels <= MAX_CATEGORICAL else "integer", levels, notes if floats else []


def array_dataset(
    x: Any,
    *,
    valid: Any = None,
    test: Any = None,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    kind: str | None = None,
    levels: int | None = None,
    fractions: Sequence[float] = FRACTIONS,
    split_seed: int = 0,
    name: str = "array",
    notes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Dataset:
    """Make a data set of arrays, cutting the splits that are not given from the first one.

    Args:
        x: (N, ...) numbers: the training rows, or all rows.
        valid: rows for validation; cut from `x` if not given.
        test: rows for the test; cut from `x` if not given.
        labels: (N,) classes of the rows of `x`, or split -> classes ("train" being those of `x`).
        class_names: names of the classes 0..C-1 (or 1..C); the sorted distinct labels if not given.
        kind: "binary", "categorical", "integer" or "continuous"; recognised if not given (`recognise_array`).
        levels: number of values of an entry; recognised if not given.
        fractions: shares of train, valid and test.
        split_seed: decides the cut.
        name: of the data set.
        notes: for the user, before those found here.
        provenance: added to what is written here.

    Returns:
        The data set.

    Raises:
        TypeError: not arrays of numbers.
        ValueError: bad shapes, too few rows, NaN or infinite entries, or entries that `kind` and `levels` exclude.

    Example:
        >>> data = array_dataset(np.eye(10, dtype=int))
        >>> data.kind, len(data.train), len(data.valid), len(data.test)
        ('binary', 8, 1, 1)
    """
    checked, found_kind, found_levels, found = _check_given(x, valid, test, kind, levels)
    rows = cut_rows({key: len(part) for key, part in checked.items()}, fractions=fractions, seed=split_seed)
    classes, names = _classes(labels, checked, class_names)
    splits = take_rows(checked, rows)
    return Dataset(
        name=name,
        train=splits["train"],
        valid=splits["valid"],
        test=splits["test"],
        kind=found_kind,
        levels=found_levels,
        labels=take_rows(classes, rows) if classes else None,
        class_names=names,
        notes=[*notes, *found, *_constant_note(splits["train"])],
        provenance={**split_provenance(rows, fractions, split_seed), **(provenance or {})},
    )


def _check_given(
    x: Any, valid: Any, test: Any, kind: str | None, levels: int | None
) -> tuple[dict[str, np.ndarray], Kind, int | None, list[str]]:
    """The given splits in the dtype of their kind, the kind, its levels, and notes."""
    if kind is not None:
        refuse_unknown("kind", [kind], [k for k in KINDS if k != "table"])
    given = {"train": _numeric(x, "x")}
    given |= {key: _numeric(part, key) for key, part in (("valid", valid), ("test", test)) if part is not None}
    for key, part in given.items():
        if part.dtype.kind == "f":
            _refuse("x" if key == "train" else key, part, ~np.isfinite(part), "finite numbers")
    found_kind, found_levels, found = _settle(list(given.values()), cast(Kind | None, kind), levels)
    event_shape = given["train"].shape[1:]
    checked = {
        key: check_array(
            part, kind=found_kind, levels=found_levels, event_shape=event_shape, name="x" if key == "train" else key
        )
        for key, part in given.items()
    }
    return checked, found_kind, found_levels, found


def _numeric(x: Any, name: str) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{name}: expected an array of numbers, got dtype {x.dtype}")
    if x.ndim < 2 or not x.size:
        raise ValueError(f"{name}: expected shape (N, ...) with at least one row and one entry, got {x.shape}")
    return x


def _refuse(name: str, x: np.ndarray, bad: np.ndarray, wanted: str) -> None:
    if bad.any():
        index = np.unravel_index(int(bad.argmax()), x.shape)
        raise ValueError(f"{name}: expected {wanted}, got {x[index]:g} at {place(index)}")


def _check_levels(levels: int | None) -> int:
    if levels is None or not 2 <= levels <= _MAX_LEVELS:
        raise ValueError(f"levels: expected 2..{_MAX_LEVELS}, got {levels}")
    return levels


def _settle(arrays: Sequence[np.ndarray], kind: Kind | None, levels: int | None) -> tuple[Kind, int | None, list[str]]:
    """Kind and levels as asked for, the rest recognised."""
    if kind in ("binary", "continuous"):
        if levels not in (None, 2 if kind == "binary" else None):
            raise ValueError(f"levels: expected none for kind={kind!r}, got {levels}")
        return kind, 2 if kind == "binary" else None, []
    if levels is not None:
        _check_levels(levels)
        found: Kind = "binary" if levels == 2 else "categorical" if levels <= MAX_CATEGORICAL else "integer"
        return kind or found, levels, []
    found, levels, notes = recognise_array(arrays)
    if kind is None:
        return found, levels, notes
    if levels is None:
        raise ValueError(f"kind: expected 'continuous' for numbers that are not whole, got {kind!r}")
    return kind, levels, []


def _classes(
    labels: Any, parts: Mapping[str, np.ndarray], class_names: Sequence[str] | None
) -> tuple[dict[str, np.ndarray] | None, list[str] | None]:
    """Labels as int64 classes 0..C-1 for each given part, and the names of the classes."""
    if labels is None:
        return None, None
    given = labels if isinstance(labels, Mapping) else {"train": labels}
    given = {key: np.asarray(y) for key, y in given.items()}
    for key, part in parts.items():
        if key not in given or given[key].shape != (len(part),):
            got = given[key].shape if key in given else "none"
            raise ValueError(f"labels: expected {len(part)} labels for {key}, got {got}")
    if class_names is None:
        distinct, codes = np.unique(np.concatenate([given[key] for key in parts]), return_inverse=True)
        ends = np.cumsum([len(part) for part in parts.values()])[:-1]
        classes = dict(zip(parts, np.split(codes.astype(np.int64), ends), strict=True))
        return classes, [str(value) for value in distinct.tolist()]
    num = len(class_names)
    start = 1 if all(y.dtype.kind in "iu" and y.min() > 0 for y in given.values()) else 0
    start = start if any(y.max() == num for y in given.values()) else 0
    for key in parts:
        y = given[key]
        if y.dtype.kind not in "iu" or y.min() < start or y.max() >= num + start:
            raise ValueError(f"labels: expected integers 0..{num - 1} or 1..{num}, got {y[:3]}... for {key}")
    classes = {key: given[key].astype(np.int64) - start for key in parts}
    return classes, [str(name) for name in class_names]


def _constant_note(train: np.ndarray) -> list[str]:
    flat = train.reshape(len(train), -1)
    constant = np.flatnonzero((flat == flat[:1]).all(axis=0))
    if not len(constant) or len(train) < 2:
        return []
    which = ", ".join(map(str, constant[:5])) + (", ..." if len(constant) > 5 else "")
    return [f"{len(constant)} of {flat.shape[1]} entries are constant in train (numbers {which})"]
