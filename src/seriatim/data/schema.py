"""What the columns of a table hold, and the numbers that stand for them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from seriatim.data.checks import place
from seriatim.data.tables import Table, from_frame, labels_of, number_label

UNSEEN, MISSING = "(unseen)", "(missing)"
ColumnKind = Literal["categorical", "integer", "continuous"]


class Column(BaseModel):
    """What one column of a table holds, as learned from the training rows.

    Attributes:
        name: of the column.
        kind: "categorical", "integer" or "continuous".
        categories: of a categorical column, in the order of their codes; None for numbers.
        missing: whether training rows lack a value here.
        low: smallest training value of a column of numbers.
        high: largest.
        mean: of the training values, in the column's unit.
        std: their standard deviation (dividing by N), in the column's unit.
        resolution: the smallest gap between two different training values, in the column's unit; a density must
            not be narrower than a part of it, since rounded values would make it grow without bound.
        atoms: values of a continuous column that hold a point mass, most frequent first.
        constant: whether all training rows hold the same value (or none).

    Example:
        >>> column = Column(name="size", kind="categorical", categories=["L", "S"])
        >>> column.encode(np.array(["S", "XL", None], dtype=object)).tolist()
        [1.0, 2.0, nan]
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: ColumnKind
    categories: list[str] | None = None
    missing: bool = False
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    resolution: float | None = None
    atoms: list[float] = []
    constant: bool = False

    @property
    def num_categories(self) -> int:
        """Number of categories K without the reserved code for unseen ones; 0 for numbers."""
        return len(self.categories or ())

    @property
    def symbols(self) -> list[str]:
        """The categories, and what stands for an unseen one and for a missing value."""
        return [*(self.categories or ()), UNSEEN, MISSING]

    def describe(self) -> str:
        """Return a line that says what the column holds."""
        text = f"{self.name}: {self.kind}"
        if self.categories is not None:
            names = ", ".join(self.categories[:6]) + (", ..." if self.num_categories > 6 else "")
            text += f", {self.num_categories} categories ({names})"
        elif self.low is not None:
            text += f", {self.low:g} to {self.high:g}, mean {self.mean:g}, standard deviation {self.std:g}"
        if self.atoms:
            text += f", point mass at {', '.join(f'{atom:g}' for atom in self.atoms)}"
        return text + (", some missing" if self.missing else "")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return the numbers of a `Table` column, (N,) float64.

        A category becomes its index 0..K-1, an unseen one K, a number itself, a missing value NaN.

        Raises:
            ValueError: text in a column of numbers, or a fraction in a column of whole numbers; names the row.
        """
        if self.kind == "categorical":
            return self._codes(labels_of(values))
        numbers = to_numbers(self.name, values)
        if self.kind == "integer":
            _refuse_fractions(self.name, numbers)
        return numbers

    def decode(self, numbers: np.ndarray) -> np.ndarray:
        """Return the `Table` column of the given numbers, the inverse of `encode`.

        Whole numbers become int64 where none is missing; the code K becomes "(unseen)".

        Raises:
            ValueError: a number that `encode` cannot have produced; names the row.
        """
        absent = np.isnan(numbers)
        if self.kind == "continuous":
            return numbers.copy()
        _refuse_fractions(self.name, numbers)
        if self.kind == "integer":
            return numbers.copy() if absent.any() else numbers.astype(np.int64)
        names = np.array([*(self.categories or ()), UNSEEN, None], dtype=object)
        bad = (numbers < 0) | (numbers > self.num_categories)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"array: expected codes 0..{self.num_categories} in column {self.name!r}, got {numbers[row]:g} "
                f"at row {row}"
            )
        return names[np.where(absent, self.num_categories + 1, numbers).astype(np.int64)]

    def _codes(self, labels: np.ndarray) -> np.ndarray:
        """Codes of text: the category itself, else the category that is the same number, else K."""
        categories = self.categories or []
        exact: dict[str | None, float] = {label: float(i) for i, label in enumerate(categories)}
        same = {_canonical(label): float(i) for i, label in reversed(list(enumerate(categories)))}
        unseen = float(len(categories))
        exact[None] = np.nan
        for label in set(labels.tolist()) - exact.keys():
            exact[label] = unseen if label == UNSEEN else same.get(_canonical(label), unseen)
        return np.array([exact[label] for label in labels.tolist()], dtype=np.float64)


class Schema(BaseModel):
    """The columns of a table, and the maps between its values and numbers.

    It is JSON: `Schema.model_validate_json(schema.model_dump_json()) == schema`.

    Attributes:
        columns: one `Column` for each, in order.

    Example:
        >>> from seriatim.data import infer_schema
        >>> schema, notes = infer_schema(Table({"town": ["Ulm", "Bonn", None], "age": [31.5, 40.0, 28.25]}))
        >>> rows = schema.encode(Table({"town": ["Ulm", "Kiel"], "age": [33.0, None]}))
        >>> rows.tolist()
        [[1.0, 33.0], [2.0, nan]]
        >>> schema.decode(rows)["town"].tolist()
        ['Ulm', '(unseen)']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: list[Column]

    def __len__(self) -> int:
        """Number of columns D."""
        return len(self.columns)

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> dict[str, str]:
        """Column name -> kind, as `read_table(path, kinds=...)` takes it."""
        return {column.name: column.kind for column in self.columns}

    def encode(self, table: Any) -> np.ndarray:
        """Return the numbers of a table.

        Args:
            table: a `Table`, a dict of columns or a data frame of N rows; columns that the schema does not know
                are ignored.

        Returns:
            (N, D) float64: a categorical column as codes 0..K-1 (K: unseen), numbers as they are, NaN: missing.

        Raises:
            ValueError: a column is absent, or holds what its kind cannot; names column and row.
        """
        table = from_frame(table)
        for name in self.names:
            if name not in table:
                raise ValueError(f"table: expected a column {name!r}, got {', '.join(table.names)}")
        return np.column_stack([column.encode(table[column.name]) for column in self.columns])

    def decode(self, array: np.ndarray) -> Table:
        """Return the table of an array of numbers, the inverse of `encode`.

        Args:
            array: (N, D) numbers.

        Returns:
            A table of N rows; unseen categories read "(unseen)".

        Raises:
            ValueError: another shape, or a code that no category has.
        """
        array = np.asarray(array, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(self):
            raise ValueError(f"array: expected shape (N, {len(self)}), got {array.shape}")
        return Table({column.name: column.decode(array[:, j]) for j, column in enumerate(self.columns)})


def to_numbers(name: str, values: np.ndarray) -> np.ndarray:
    """Return a `Table` column as float64, NaN where missing; text must hold numbers.

    Raises:
        ValueError: a text that is no finite number; names column and row.

    Example:
        >>> to_numbers("age", np.array(["31", None], dtype=object)).tolist()
        [31.0, nan]
    """
    if values.dtype != object:
        return values.astype(np.float64)
    known: dict[str | None, float] = {None: np.nan}
    for label in set(values.tolist()) - {None}:
        try:
            known[label] = float(label) + 0.0
        except ValueError:
            known[label] = np.inf
        if not np.isfinite(known[label]):
            row = values.tolist().index(label)
            raise ValueError(f"column {name!r}: expected a number, got {label!r} at {place([row])}")
    return np.array([known[label] for label in values.tolist()], dtype=np.float64)


def _canonical(label: str) -> str:
    try:
        return number_label(float(label)) or label
    except ValueError:
        return label


def _refuse_fractions(name: str, numbers: np.ndarray) -> None:
    bad = np.flatnonzero(numbers != np.floor(numbers))
    bad = bad[~np.isnan(numbers[bad])]
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"column {name!r}: expected whole numbers, got {numbers[row]:g} at {place([row])}; "
            f"overrides={{{name!r}: 'continuous'}} at training takes fractions"
        )
