"""Tables of columns of different kinds as data sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from seriatim.data.checks import refuse_unknown
from seriatim.data.dataset import Dataset
from seriatim.data.infer import infer_schema, sort_labels
from seriatim.data.schema import Schema
from seriatim.data.splits import FRACTIONS, cut_rows, split_provenance
from seriatim.data.tables import Table, from_frame, labels_of

_COPIES = 0.01  # a share of repeated rows worth a note


def table_dataset(
    table: Any,
    *,
    valid: Any = None,
    test: Any = None,
    overrides: Mapping[str, str] | None = None,
    exclude: Collection[str] = (),
    label: str | None = None,
    max_categories: int = 256,
    fractions: Sequence[float] = FRACTIONS,
    split_seed: int = 0,
    name: str = "table",
    provenance: Mapping[str, Any] | None = None,
) -> Dataset:
    """Make a data set of tables, cutting the splits that are not given from the first one.

    The columns are recognised, and their statistics taken, from the training rows only.

    Args:
        table: a `Table`, a dict of columns or a data frame: the training rows, or all rows.
        valid: the same for validation; cut from `table` if not given.
        test: the same for the test; cut from `table` if not given.
        overrides: column name -> kind (`infer_schema`).
        exclude: columns to leave out.
        label: the column that holds the class of each row; it is no part of x.
        max_categories: as in `infer_schema`.
        fractions: shares of train, valid and test.
        split_seed: decides the cut.
        name: of the data set.
        provenance: added to what is written here.

    Returns:
        The data set, of kind "table" with its schema.

    Raises:
        ValueError: an unknown column, too few rows, or valid or test rows that do not fit the columns of train.

    Example:
        >>> data = table_dataset({"size": ["S", "L"] * 10, "weight": [i / 7 for i in range(20)]})
        >>> data.event_shape, data.schema.kinds
        ((2,), {'size': 'categorical', 'weight': 'continuous'})
    """
    splits, cut = _split_tables({"train": table, "valid": valid, "test": test}, exclude, fractions, split_seed)
    splits, labels, class_names = _take_labels(splits, label)
    schema, notes = infer_schema(splits["train"], overrides=overrides, max_categories=max_categories)
    encoded = _encode(schema, splits)
    notes += _copies_note(schema, encoded["train"])
    return Dataset(
        name=name,
        train=encoded["train"],
        valid=encoded["valid"],
        test=encoded["test"],
        kind="table",
        labels=labels,
        class_names=class_names,
        schema=schema,
        notes=notes,
        provenance={**cut, "overrides": dict(overrides or {}), "label": label, **(provenance or {})},
    )


def _split_tables(
    given: Mapping[str, Any], exclude: Collection[str], fractions: Sequence[float], seed: int
) -> tuple[dict[str, Table], dict[str, Any]]:
    """Train, valid and test as tables, and how they were made."""
    tables = {split: from_frame(part, exclude=exclude) for split, part in given.items() if part is not None}
    rows = cut_rows({split: len(part) for split, part in tables.items()}, fractions=fractions, seed=seed)
    splits = {split: tables["train"].take(rows[split]) if split in rows else tables[split] for split in given}
    return splits, {**split_provenance(rows, fractions, seed), "exclude": list(exclude)}


def _encode(schema: Schema, splits: Mapping[str, Table]) -> dict[str, np.ndarray]:
    encoded = {}
    for split, part in splits.items():
        try:
            encoded[split] = schema.encode(part)
        except ValueError as error:
            raise ValueError(f"{split} rows: {error}") from None
    return encoded


def _take_labels(
    splits: dict[str, Table], label: str | None
) -> tuple[dict[str, Table], dict[str, np.ndarray] | None, list[str] | None]:
    """The tables without the column of classes, the classes 0..C-1, and their names."""
    if label is None:
        return splits, None, None
    refuse_unknown("label", [label], splits["train"].names)
    texts = {split: labels_of(part[label]).tolist() for split, part in splits.items()}
    for split, text in texts.items():
        if None in text:
            raise ValueError(f"label: expected a class in each row, got none in {split} at row {text.index(None)}")
    names = sort_labels({name for text in texts.values() for name in text})
    index = {name: i for i, name in enumerate(names)}
    labels = {split: np.array([index[name] for name in text], dtype=np.int64) for split, text in texts.items()}
    return {split: part.without([label]) for split, part in splits.items()}, labels, names


def _copies_note(schema: Schema, train: np.ndarray) -> list[str]:
    rows = np.ascontiguousarray(train).view(np.dtype((np.void, train.shape[1] * train.itemsize)))
    copies = len(train) - len(np.unique(rows))
    if copies < _COPIES * len(train) or "continuous" not in schema.kinds.values():
        return []
    return [f"{copies} of {len(train)} training rows repeat another: a density may fit them without bound"]
