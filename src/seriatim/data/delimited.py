"""Reading text tables: which delimiter, is there a header, and what does each column hold."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from seriatim.data.checks import existing_file, refuse_unknown

MISSING = frozenset({"", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "?"})
_DELIMITERS = ("\t", ";", ",")  # commas last: they also occur inside numbers and text
_SAMPLE = 50  # records looked at to find the delimiter
_FEW = 24  # so many different numbers may stand among words without looking like a slip
_EXACT = 2**53  # whole numbers beyond this are not all float64 values
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"[+-]?\d+")
_PADDED = re.compile(r"[+-]?0\d+")
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)


def is_number(field: str) -> bool:
    """Tell whether a field is a finite decimal number.

    Example:
        >>> [is_number(field) for field in ("-1.5e3", "7", "1,5", "inf", "")]
        [True, True, False, False, False]
    """
    return _NUMBER.fullmatch(field) is not None and abs(float(field)) != float("inf")


def read_delimited(
    path: str | Path,
    *,
    delimiter: str | None = None,
    header: bool | None = None,
    kinds: Mapping[str, str] | None = None,
    exclude: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Read a table of text fields, UTF-8 with or without a byte-order mark, gzip if the name ends in `.gz`.

    Fields are stripped of spaces at their ends; MISSING lists the fields that mean "no value". A column of
    whole numbers becomes int64 (float64 with NaN where values are missing), of numbers float64, of anything
    else text (object: str, or None where missing). Codes with leading zeros and whole numbers beyond 2^53
    stay text. A few words among many different numbers are taken for a slip and refused.

    Args:
        path: the file.
        delimiter: one character; found among comma, semicolon and tab if not given.
        header: whether the first line holds the names; recognised if not given. Without a header the columns
            are called column_1, column_2, ...
        kinds: column name -> kind, for columns whose kind is known: "categorical" keeps the text, "integer"
            and "continuous" insist on numbers. Names that are not in the file are ignored.
        exclude: names of columns to leave out; unknown ones are refused.

    Returns:
        Column name -> (N,) array, in the order of the file.

    Raises:
        ValueError: what is wrong, with file, line and column.
    """
    path = existing_file(path)
    kinds = kinds or {}
    text = _read_text(path)
    rows, lines = _records(path, text, delimiter or _sniff(path, text))
    if header is None:
        header = _has_header(path, rows, kinds)
    names = _names(path, rows[0], header)
    _refuse_excluded(path, exclude, names)
    rows, lines = rows[header:], lines[header:]
    if not rows:
        raise ValueError(f"{path}: expected rows of values, got only the header")
    return {
        name: _typed(path, name, fields, lines, kinds.get(name))
        for name, fields in zip(names, zip(*rows, strict=True), strict=True)
        if name not in exclude
    }


def _refuse_excluded(path: Path, exclude: Collection[str], names: Sequence[str]) -> None:
    try:
        refuse_unknown("exclude", exclude, names)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read_text(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got byte {raw[error.start]:#04x} at offset {error.start}"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if not text.strip():
        raise ValueError(f"{path}: expected a table, got an empty file")
    return text


def _sniff(path: Path, text: str) -> str:
    """The delimiter that cuts the first records into equally many fields, two at least."""
    widths = {}
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
        try:
            widths[delimiter] = [len(record) for record in itertools.islice(reader, _SAMPLE) if record]
        except csv.Error:
            widths[delimiter] = [1]
    for delimiter in _DELIMITERS:
        if widths[delimiter][0] > 1 and len(set(widths[delimiter])) == 1:
            return delimiter
    # Ragged whatever the delimiter: the reader will name the line. A file of one column ends here too.
    best = max(_DELIMITERS, key=lambda delimiter: widths[delimiter][0])
    return best if widths[best][0] > 1 else ","


def _records(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], list[int]]:
    """All non-blank records and the number of the line each begins at."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    line = 1
    try:
        for record in reader:
            if record:
                if rows and len(record) != len(rows[0]):
                    raise ValueError(
                        f"{path}, line {line}: expected {len(rows[0])} fields as in line {lines[0]}, "
                        f"got {len(record)} (delimiter {delimiter!r})"
                    )
                rows.append([field.strip() for field in record])
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {line}: expected well-formed fields, got: {error}") from error
    return rows, lines


def _has_header(path: Path, rows: Sequence[Sequence[str]], kinds: Mapping[str, str]) -> bool:
    """Decide whether the first record holds names, or refuse to guess.

    Names are not numbers and not empty (but for the first, the index column of a spreadsheet), stand above
    columns of numbers (mostly: a slip is found later), and do not occur again below.
    """
    first, body = rows[0], rows[1:]
    if kinds and set(kinds) <= set(first):
        return True
    unclear = ValueError(
        f"{path}, line 1: expected column names or values, got {', '.join(map(repr, first[:4]))}"
        f"{', ...' if len(first) > 4 else ''}, which may be either; pass header=True or header=False"
    )
    numbers = [is_number(field) for field in first]
    if not body and not all(numbers):
        raise unclear
    columns = [[field for field in column if field not in MISSING] for column in zip(*body, strict=True)]
    above_numbers = [2 * sum(map(is_number, column)) > len(column) for column in columns]
    named = [not number and field not in MISSING for number, field in zip(numbers, first, strict=True)]
    if any(numbers):
        if any(name and below for name, below in zip(named, above_numbers, strict=False)):
            raise unclear
        return False
    if not all(named[1:]):
        return False
    if any(above_numbers):
        return True
    if any(name in column for name, column in zip(first, columns, strict=True) if name not in MISSING):
        return False
    if any(len(set(column)) < len(column) for column in columns):
        return True
    raise unclear


def _names(path: Path, first: Sequence[str], header: bool) -> list[str]:
    numbered = [f"column_{i + 1}" for i in range(len(first))]
    if not header:
        return numbered
    names = [field or number for field, number in zip(first, numbered, strict=True)]
    for name, count in Counter(names).items():
        if count > 1:
            i = names.index(name)
            raise ValueError(
                f"{path}, line 1: expected different column names, got {name!r} as columns {i + 1} and "
                f"{names.index(name, i + 1) + 1}"
            )
    return names


def _typed(path: Path, name: str, fields: Sequence[str], lines: Sequence[int], kind: str | None) -> np.ndarray:
    """The fields of one column as numbers if they are numbers, else as text."""
    counts = Counter(fields)
    present = [field for field in counts if field not in MISSING]
    words = {field for field in present if not is_number(field)}
    if kind in ("integer", "continuous"):
        if words:
            raise _not_a_number(path, name, fields, lines, words, "a number")
        return _numbers(fields, present)
    if kind == "categorical" or not present:
        return _text(fields)
    if words:
        rows_of_words = sum(counts[field] for field in words)
        share = 1 - rows_of_words / sum(counts[field] for field in present)
        slip = len(present) - len(words) > _FEW and share >= 0.9
        if slip or (len(words) < len(present) and all(map(_INFINITE.fullmatch, words))):
            raise _not_a_number(path, name, fields, lines, words, f"a number as in {100 * share:.4g} % of the rows")
        return _text(fields)
    whole = [field for field in present if _WHOLE.fullmatch(field)]
    if len(whole) == len(present) and any(_PADDED.fullmatch(field) or abs(int(field)) > _EXACT for field in whole):
        return _text(fields)
    return _numbers(fields, present)


def _text(fields: Sequence[str]) -> np.ndarray:
    out = np.empty(len(fields), dtype=object)
    out[:] = [None if field in MISSING else field for field in fields]
    return out


def _numbers(fields: Sequence[str], present: Sequence[str]) -> np.ndarray:
    whole = all(_WHOLE.fullmatch(field) and abs(int(field)) <= _EXACT for field in present)
    if whole and not any(field in MISSING for field in set(fields)):
        return np.array([int(field) for field in fields], dtype=np.int64)
    value = {field: float(field) for field in present}
    return np.array([value.get(field, np.nan) for field in fields], dtype=np.float64)


def _not_a_number(
    path: Path, name: str, fields: Sequence[str], lines: Sequence[int], words: Collection[str], expected: str
) -> ValueError:
    row = next(i for i, field in enumerate(fields) if field in words)
    return ValueError(
        f"{path}, line {lines[row]}, column {name!r}: expected {expected}, got {fields[row]!r}; "
        f"leave the field empty if the value is missing, or take the column as text with "
        f"overrides={{{name!r}: 'categorical'}}"
    )
