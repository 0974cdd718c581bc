"""Recognising what the columns of a table hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np

from seriatim.data.checks import refuse_unknown
from seriatim.data.schema import UNSEEN, Column, ColumnKind, Schema
from seriatim.data.tables import from_frame, labels_of

FEW = 24  # at most so many different numbers make a categorical column
ROWS_PER_VALUE = 10  # and each stands for so many rows, on average
ATOM_SHARE = 0.05
ATOM_CONTRAST = 3  # an atom is so many times as frequent as any other value: rounding makes no such peaks
MAX_ATOMS = 4
_ID_ROWS = 20  # fewer rows than this are no evidence of an ID
_EXACT = 2.0**53
_CONSTANT = "constant in train: it adds nothing; leave it out with exclude="
_ROUNDED = "rounded (ten or more rows for each different value): the density depends on how narrow it may be"


def infer_schema(
    table: Any, *, overrides: Mapping[str, str] | None = None, max_categories: int = 256
) -> tuple[Schema, list[str]]:
    """Recognise the columns of a table; give it the training rows only, for its statistics are learned.

    The rules, the first that fits:

    1. `overrides` decides.
    2. Text and booleans are categorical.
    3. Numbers with one value, or with two whole ones, are categorical.
    4. Numbers with at most 24 different values, each in 10 rows or more on average, are categorical: a density
       of such a column would grow without bound.
    5. Whole numbers, however stored, are integer.
    6. Other numbers are continuous. Values in more than 5 % of the rows are atoms (four at most) if each is
       three times as frequent as any value that is none, of which there must be more than 24: so a spike is an
       atom, and the peaks of rounded values are not.

    Categories are sorted: as numbers if all of them are, else as text. Beyond `max_categories` the rarest fold
    into the reserved code for unseen ones.

    Args:
        table: a `Table`, a dict of columns, or a data frame.
        overrides: column name -> "categorical", "integer" or "continuous".
        max_categories: how many categories a column may have.

    Returns:
        The schema, and notes for the user: constant columns, columns that look like row numbers or names, folded
        categories, rounded values.

    Raises:
        ValueError: no rows, an unknown column or kind, or values that an override does not fit.

    Example:
        >>> from seriatim.data import Table
        >>> schema, notes = infer_schema(Table({"smoker": [0, 1, 1], "weight": [70.5, 81.0, 66.25]}))
        >>> schema.kinds, notes
        ({'smoker': 'categorical', 'weight': 'continuous'}, [])
    """
    table = from_frame(table)
    overrides = overrides or {}
    refuse_unknown("overrides", overrides, table.names)
    for name, kind in overrides.items():
        refuse_unknown(f"overrides[{name!r}]", [kind], ["categorical", "integer", "continuous"])
    if not len(table):
        raise ValueError("table: expected at least one row, got none")
    if max_categories < 1:
        raise ValueError(f"max_categories: expected at least 1, got {max_categories}")
    columns: list[Column] = []
    notes: dict[str, list[str]] = {}
    for name in table:
        values = table[name]
        kind = overrides.get(name) or _recognise(values)
        if kind == "categorical":
            column, found = _categorical(name, values, max_categories)
        else:
            column, found = _numeric(name, values, kind)
        columns.append(column)
        for note in [*found, *_id_note(values)]:
            notes.setdefault(note, []).append(name)
    return Schema(columns=columns), [f"{_listed(names)}: {note}" for note, names in notes.items()]


def _listed(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"column {shown}" if len(names) == 1 else f"columns {shown}"


def _recognise(values: np.ndarray) -> ColumnKind:
    if values.dtype.kind in "bO":
        return "categorical"
    present = values[~np.isnan(values)]
    distinct = np.unique(present)
    whole = bool((distinct == np.floor(distinct)).all()) and bool((np.abs(distinct) <= _EXACT).all())
    if len(distinct) <= 1 or (whole and len(distinct) == 2):
        return "categorical"
    if len(distinct) <= FEW and len(present) >= ROWS_PER_VALUE * len(distinct):
        return "categorical"
    return "integer" if whole else "continuous"


def _categorical(name: str, values: np.ndarray, max_categories: int) -> tuple[Column, list[str]]:
    labels = labels_of(values).tolist()
    counts = Counter(label for label in labels if label is not None and label != UNSEEN)
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    kept, folded = ranked[:max_categories], ranked[max_categories:]
    num_present = sum(counts.values())
    notes = []
    if folded:
        share = 100 * sum(counts[label] for label in folded) / num_present
        notes.append(
            f"{len(ranked)} categories; the rarest {len(folded)} ({share:.2g} % of the rows) count as unseen: "
            f"max_categories={max_categories} may be raised, or the column left out with exclude="
        )
    if values.dtype == np.float64 and not all(map(_is_whole, ranked)):
        notes.append(
            f"only {len(ranked)} different numbers: categorical, so that a value between them counts as unseen "
            "(the override 'continuous' makes it a density)"
        )
    missing = None in labels
    constant = len(ranked) + missing <= 1
    if constant:
        notes.append(_CONSTANT if ranked else "without any value: leave it out with exclude=")
    column = Column(
        name=name,
        kind="categorical",
        categories=sort_labels(kept),
        missing=missing,
        constant=constant,
    )
    return column, notes


def _is_whole(label: str) -> bool:
    return float(label).is_integer()


def sort_labels(labels: Collection[str]) -> list[str]:
    """Sort labels as numbers where all are numbers, else as text.

    Example:
        >>> sort_labels(["10", "9"]), sort_labels(["b", "10"])
        (['9', '10'], ['10', 'b'])
    """
    try:
        return sorted(labels, key=lambda label: (float(label), label))
    except ValueError:
        return sorted(labels)


def _numeric(name: str, values: np.ndarray, kind: str) -> tuple[Column, list[str]]:
    column = Column(name=name, kind=cast(ColumnKind, kind))
    numbers = column.encode(values)
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        raise ValueError(f"column {name!r}: expected numbers, got only missing values")
    distinct, counts = np.unique(present, return_counts=True)
    gaps = np.diff(distinct)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(present.mean()), float(present.std())
    if not np.isfinite(std):
        raise ValueError(f"column {name!r}: expected numbers of a usual size, got {np.abs(distinct).max():g}")
    missing = len(present) < len(numbers)
    constant = len(distinct) == 1
    atoms = _atoms(distinct, counts) if kind == "continuous" else []
    notes = [_CONSTANT] if constant and not missing else []
    if kind == "continuous" and len(present) >= ROWS_PER_VALUE * len(distinct) > ROWS_PER_VALUE:
        notes.append(_ROUNDED)
    column = Column(
        name=name,
        kind=column.kind,
        missing=missing,
        low=float(distinct[0]),
        high=float(distinct[-1]),
        mean=mean,
        std=std,
        resolution=float(gaps.min()) if len(gaps) else None,
        atoms=atoms,
        constant=constant and not missing,
    )
    return column, notes


def _atoms(distinct: np.ndarray, counts: np.ndarray) -> list[float]:
    """The most frequent values, as many as stand out from the next one."""
    ranked = np.argsort(-counts, kind="stable")
    ranked_counts = counts[ranked]
    for num in range(min(MAX_ATOMS, len(counts) - FEW - 1), 0, -1):
        least = ranked_counts[num - 1]
        if least > ATOM_SHARE * counts.sum() and least >= ATOM_CONTRAST * ranked_counts[num]:
            return [float(value) for value in distinct[ranked[:num]]]
    return []


def _id_note(values: np.ndarray) -> list[str]:
    """A note if no two rows share a value and the values are texts or a dense run of whole numbers."""
    if len(values) < _ID_ROWS:
        return []
    advice = "it looks like an ID and would dominate log p; leave it out with exclude="
    if values.dtype == object:
        if None not in values.tolist() and len(set(values.tolist())) == len(values):
            return [f"a different text in each row: {advice}"]
    elif values.dtype.kind in "if" and not np.isnan(values).any():
        # Part of a run 1, 2, 3, ... is enough: the training rows are a random part of the table.
        dense = float(values.max()) - float(values.min()) < 2 * len(values)
        if dense and (values == np.floor(values)).all() and len(np.unique(values)) == len(values):
            return [f"row numbers, or whole numbers that never repeat: {advice}"]
    return []
