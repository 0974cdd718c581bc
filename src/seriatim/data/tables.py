"""Tables of named columns, from CSV, Parquet and data frames."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.checks import existing_file, place, refuse_unknown
from seriatim.data.delimited import read_delimited
from seriatim.data.files import replacing

_EXACT = 2**53
_TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


class Table:
    """An ordered set of named columns of N rows each.

    A column is bool, int64, float64 (NaN: missing; -0.0 becomes 0.0) or text (object: str, or None: missing).
    Whole numbers beyond 2^53 become text, since float64 would change them; so do booleans with gaps.

    Args:
        columns: name -> N values, a sequence or an array.

    Raises:
        ValueError: no columns, unequal lengths, an infinite value, a column of mixed or unknown types.
        TypeError: a column name that is not a string.

    Example:
        >>> table = Table({"age": [31, 45], "town": ["Ulm", None]})
        >>> table.names, len(table), table["age"].dtype.name
        (['age', 'town'], 2, 'int64')
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        if not columns:
            raise ValueError("columns: expected at least one, got none")
        self._columns = {name: _column(name, values) for name, values in columns.items()}
        lengths = {name: len(values) for name, values in self._columns.items()}
        first = next(iter(lengths))
        for name, length in lengths.items():
            if length != lengths[first]:
                raise ValueError(f"column {name!r}: expected {lengths[first]} rows as in {first!r}, got {length}")

    @property
    def names(self) -> list[str]:
        """The column names, in order."""
        return list(self._columns)

    def __getitem__(self, name: str) -> np.ndarray:
        refuse_unknown("column", [name], self.names)
        return self._columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self._columns.values())))

    def __repr__(self) -> str:
        columns = ", ".join(f"{name}: {values.dtype}" for name, values in self._columns.items())
        return f"Table({len(self)} rows; {columns})"

    def take(self, rows: np.ndarray) -> Table:
        """Return the table of the given row numbers."""
        return Table({name: values[rows] for name, values in self._columns.items()})

    def without(self, names: Collection[str]) -> Table:
        """Return the table without some columns; a name that is not a column is a ValueError."""
        refuse_unknown("exclude", names, self.names)
        return Table({name: values for name, values in self._columns.items() if name not in names})


def read_table(
    path: str | Path,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    kinds: Mapping[str, str] | None = None,
    exclude: Collection[str] = (),
) -> Table:
    """Read a table from .csv, .tsv (also .gz) or .parquet.

    Args:
        path: the file; text must be UTF-8. Empty fields, NA, N/A, nan, null and ? are missing values.
        header: text only: whether line 1 holds the names; recognised if not given, refused where unclear.
        delimiter: text only: found among comma, semicolon and tab if not given.
        kinds: column name -> kind, where known (`Schema.kinds`, or the user's overrides): a "categorical"
            column is kept as text, an "integer" or "continuous" one must hold numbers.
        exclude: names of columns to leave out; unknown ones are refused.

    Returns:
        The table.

    Raises:
        ValueError: an unknown ending, a damaged or ragged file, a field that does not fit; names file, line
            and column.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "t.csv").write_text("town,age\\nUlm,31\\nBonn,?\\n")
        >>> read_table(folder / "t.csv")["age"].tolist()
        [31.0, nan]
    """
    path = existing_file(path)
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _from_parquet(path, exclude)
    if not name.endswith(_TEXT_SUFFIXES):
        raise ValueError(f"{path}: expected a file ending in .csv, .tsv, .csv.gz, .tsv.gz or .parquet")
    columns = read_delimited(path, delimiter=delimiter, header=header, kinds=kinds, exclude=exclude)
    try:
        return Table(columns)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def is_frame(data: object) -> bool:
    """Tell whether `data` is a table of some kind: a `Table`, a dict of columns, or a data frame.

    Example:
        >>> is_frame({"a": [1, 2]}), is_frame(np.zeros((2, 3)))
        (True, False)
    """
    return isinstance(data, Table | Mapping) or hasattr(data, "columns")


def from_frame(data: Any, *, exclude: Collection[str] = ()) -> Table:
    """Make a table of a data frame (pandas, polars, pyarrow, ...) or of a dict of columns.

    No data frame library is imported: a frame is whatever has `columns` and either `__arrow_c_stream__` (used
    where pyarrow is installed) or `frame[name].to_numpy()`. A frame's index is not a column. Categories
    become text.

    Args:
        data: the frame; a `Table` is returned as it is.
        exclude: names of columns to leave out; unknown ones are refused.

    Returns:
        The table.

    Raises:
        TypeError: `data` is no frame.
        ValueError: two columns of one name, or a column that is neither numbers, text nor booleans.

    Example:
        >>> from_frame({"a": [1, 2], "b": ["x", "y"]}, exclude=["b"]).names
        ['a']
    """
    if not is_frame(data):
        raise TypeError(f"data: expected a data frame or a dict of columns, got {type(data).__name__}")
    if isinstance(data, Table):
        return data.without(exclude) if exclude else data
    keys = list(data if isinstance(data, Mapping) else getattr(data, "column_names", data.columns))
    names = [str(key) for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"columns: expected different names, got {name!r} twice")
    refuse_unknown("exclude", exclude, names)
    kept = [(name, key) for name, key in zip(names, keys, strict=True) if name not in exclude]
    arrow = _arrow(data)
    if arrow is not None:
        return _from_arrow(arrow.select([name for name, _ in kept]))
    return Table({name: _plain(data[key]) for name, key in kept})


def write_csv(path: str | Path, table: Table) -> None:
    """Write a table as CSV (UTF-8, commas, a header line), whole or not at all.

    Missing values are empty fields. A column of whole numbers is written without decimal points; other
    numbers with the digits that give the same float64 when read back.

    Args:
        path: the file to write.
        table: the table.

    Raises:
        ValueError: `path` cannot be a file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_csv(folder / "t.csv", Table({"town": ["Ulm", None], "age": [31, 40]}))
        >>> (folder / "t.csv").read_text()
        'town,age\\nUlm,31\\n,40\\n'
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.names)
        writer.writerows(zip(*(_fields(table[name]) for name in table), strict=True))


def labels_of(values: np.ndarray) -> np.ndarray:
    """Return a table column as text, None where missing; whole numbers have no decimal point.

    Example:
        >>> labels_of(np.array([1.0, 2.5, np.nan])).tolist()
        ['1', '2.5', None]
    """
    if values.dtype == object:
        return values
    out = np.empty(len(values), dtype=object)
    distinct, inverse = np.unique(values, return_inverse=True)
    out[:] = np.array([number_label(value) for value in distinct.tolist()], dtype=object)[inverse]
    return out


def number_label(value: float) -> str | None:
    """Return the text of a number (or boolean) as a category, None for NaN."""
    if isinstance(value, bool | int):
        return str(value)
    if value != value:
        return None
    return str(int(value)) if value.is_integer() and abs(value) <= _EXACT else repr(value)


def _column(name: str, values: Any) -> np.ndarray:
    if not isinstance(name, str):
        raise TypeError(f"column name: expected a string, got {name!r}")
    if isinstance(values, list | tuple):
        array = np.empty(len(values), dtype=object)
        array[:] = values
    else:
        array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"column {name!r}: expected one value per row, got shape {array.shape}")
    if array.dtype.kind in "OU":
        array = _column_of_objects(name, array)
    if array.dtype.kind in "iu":
        if array.size and max(-int(array.min()), int(array.max())) > _EXACT:
            return _objects(str(value) for value in array.tolist())
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        array = array.astype(np.float64) + 0.0  # -0.0 becomes 0.0
        if np.isinf(array).any():
            row = int(np.flatnonzero(np.isinf(array))[0])
            raise ValueError(f"column {name!r}: expected finite numbers, got {array[row]} at {place([row])}")
    elif array.dtype.kind not in "bO":
        raise _unfit(name, array.dtype)
    return array


def _column_of_objects(name: str, array: np.ndarray) -> np.ndarray:
    """Python values as bool, int64, float64 or text; empty text is missing."""
    values: list[Any] = [None if _is_missing(value) else value for value in array.tolist()]
    present = [value for value in values if value is not None]
    types = sorted({type(value) for value in present}, key=lambda kind: kind.__name__)
    if all(issubclass(kind, str) for kind in types):
        return _objects(str(value) if value is not None else None for value in values)
    if all(issubclass(kind, bool | np.bool_) for kind in types):
        if len(present) == len(values):
            return np.array(values, dtype=bool)
        return _objects(str(bool(value)) if value is not None else None for value in values)
    if all(hasattr(kind, "__float__") and not issubclass(kind, bool) for kind in types):
        whole = all(hasattr(kind, "__index__") for kind in types)
        if whole and any(abs(int(value)) > _EXACT for value in present):
            return _objects(None if value is None else str(int(value)) for value in values)
        if whole and len(present) == len(values):
            return np.array([int(value) for value in values], dtype=np.int64)
        return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)
    raise _unfit(name, " and ".join(kind.__name__ for kind in types))


def _unfit(name: str, got: object) -> ValueError:
    return ValueError(
        f"column {name!r}: expected numbers, text or booleans, got {got}; turn it into one of them or "
        f"leave it out with exclude=[{name!r}]"
    )


def _objects(values: Iterator[Any] | Any) -> np.ndarray:
    values = list(values)
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def _is_missing(value: object) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return not value
    return isinstance(value, float | np.floating) and bool(value != value)


def _category(value: object) -> str | None:
    """The text of a category; one library stores categories 1, 2 with a gap as 1.0, 2.0, NaN."""
    if _is_missing(value):
        return None
    return number_label(value) if isinstance(value, float) else str(value)


def _plain(column: Any) -> np.ndarray:
    """One column of a frame without pyarrow."""
    if not hasattr(column, "to_numpy"):
        return column
    values = column.to_numpy()
    if str(getattr(column, "dtype", "")).lower().startswith(("category", "categorical", "enum")):
        return _objects(map(_category, values.tolist()))
    return values


def _arrow(data: Any) -> Any | None:
    """The frame as an arrow table, or None where pyarrow is absent or refuses it."""
    if not hasattr(data, "__arrow_c_stream__"):
        return None
    try:
        import pyarrow
    except ImportError:
        return None
    try:
        return pyarrow.table(data)
    except pyarrow.lib.ArrowException:
        return None  # such as an object column of mixed types: the plain path says which


def _from_arrow(table: Any) -> Table:
    from pyarrow import types

    columns: dict[str, Any] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind = column.type
        if types.is_dictionary(kind):
            columns[name] = _objects(map(_category, column.to_pylist()))
        elif types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            columns[name] = column.to_numpy() if column.null_count == 0 else column.to_pylist()
        elif "string" in str(kind) or types.is_null(kind) or types.is_decimal(kind):
            columns[name] = column.to_pylist()
        else:
            raise _unfit(name, kind)
    return Table(columns)


def _from_parquet(path: Path, exclude: Collection[str]) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ValueError(
            f"{path}: reading Parquet needs pyarrow, which is not installed: pip install 'seriatim[tables]'"
        ) from None
    try:
        with open(path, "rb") as file:
            arrow = parquet.read_table(file)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise ValueError(f"{path}: expected a Parquet file, got: {error}") from None
    try:
        return from_frame(arrow, exclude=exclude)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _fields(values: np.ndarray) -> list[str]:
    """The CSV fields of one column."""
    if values.dtype != np.float64:
        return ["" if value is None else str(value) for value in values.tolist()]
    present = values[~np.isnan(values)]
    if len(present) and (present == np.floor(present)).all() and np.abs(present).max() <= _EXACT:
        return ["" if value != value else str(int(value)) for value in values.tolist()]
    return ["" if value != value else repr(value) for value in values.tolist()]
