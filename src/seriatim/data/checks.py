"""Refusals that every reader shares."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np


def existing_file(path: str | Path) -> Path:
    """Return `path` as a `Path` once it is known to be a readable file's name.

    Raises:
        ValueError: there is no such file, or it is a folder.

    Example:
        >>> existing_file("no/such.csv")
        Traceback (most recent call last):
        ...
        ValueError: no/such.csv: no such file
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: expected a file, got a folder")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    return path


def refuse_unknown(argument: str, names: Collection[str], known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones, with those that are close to it.

    Raises:
        ValueError: names the argument, what is known and what was given.

    Example:
        >>> refuse_unknown("exclude", ["aeg"], ["age", "town"])
        Traceback (most recent call last):
        ...
        ValueError: exclude: expected one of age, town, got 'aeg' (close: age)
    """
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known)
            some = [*known[:12], "..."] if len(known) > 12 else known
            raise ValueError(
                f"{argument}: expected one of {', '.join(some)}, got {name!r}"
                + (f" (close: {', '.join(close)})" if close else "")
            )


def place(index: Sequence[int | np.integer]) -> str:
    """Say where an entry stands, counting from 0.

    Example:
        >>> place((3, 7)), place((3, 7, 1))
        ('row 3, column 7', 'row 3, position (7, 1)')
    """
    row, *rest = (int(i) for i in index)
    if not rest:
        return f"row {row}"
    return f"row {row}, column {rest[0]}" if len(rest) == 1 else f"row {row}, position {tuple(rest)}"
