"""Tables of measurements as series: rows in time order, columns as channels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.codecs import Standardised
from seriatim.data.sequences import Ragged, Sequences
from seriatim.data.splits import FRACTIONS, SPLITS, cut_stream, stream_provenance
from seriatim.data.tables import Table, read_table

_TIMES = ("time", "timestamp", "date", "datetime", "t")


def series_sequences(
    path: str | Path,
    *,
    header: bool | None = None,
    delimiter: str | None = None,
    exclude: Collection[str] = (),
    fractions: Sequence[float] = FRACTIONS,
    valid: str | Path | None = None,
    test: str | Path | None = None,
) -> Sequences:
    """Read a table of numbers as a series of real values, cut in time order and standardised by train.

    A column of times is found by its ISO dates, or by its name where it holds rising numbers, and kept out of the
    values.

    Args:
        path: a .csv, .tsv (or .gz) or .parquet file.
        header: as in `read_table`.
        delimiter: as in `read_table`.
        exclude: columns to leave out.
        fractions: shares of train, valid and test.
        valid: the file of the validation series, with the same columns; cut from `path` if not given.
        test: the same for the test.

    Returns:
        The series, continuous, of value shape () for one channel or (C,) for several, with the codec `Standardised`;
        the times are in the provenance.

    Raises:
        ValueError: text where numbers should be, or gaps; names the place.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "room.csv"
        >>> rows = [f"2024-01-01 {hour:02}:00:00,{20 + hour / 8}" for hour in range(20)]
        >>> _ = file.write_text("time,celsius\\n" + "\\n".join(rows))
        >>> data = series_sequences(file)
        >>> data.value_shape, len(data.train.values), data.provenance["time"]["step"]
        ((), 16, 3600.0)
    """
    path = Path(path)
    files = {"train": path} | {s: Path(f) for s, f in (("valid", valid), ("test", test)) if f is not None}
    channels, times = dict[str, dict[str, np.ndarray]](), dict[str, dict[str, Any] | None]()
    for split, file in files.items():
        table = read_table(file, header=header, delimiter=delimiter, exclude=exclude)
        try:
            channels[split], times[split] = _channels(table)
            if list(channels[split]) != list(channels["train"]):
                wanted = ", ".join(channels["train"])
                raise ValueError(f"expected the columns {wanted} as in {path}, got {', '.join(channels[split])}")
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    names, time = list(channels["train"]), times["train"]
    raw = {split: np.stack(list(own.values()), axis=1) for split, own in channels.items()}
    cut = dict[str, slice]()
    if len(raw) < len(SPLITS):
        cut = cut_stream(len(raw["train"]), given=[split for split in raw if split != "train"], fractions=fractions)
        raw |= {split: raw["train"][own] for split, own in cut.items()}
    codec, notes = _standardise(raw["train"], names)
    if time is not None and time["irregular"]:
        steps = f"{time['irregular']} of {time['rows'] - 1} steps of {time['column']}"
        notes.append(f"{steps} are not {time['step']:g} long")
        notes += [f"{time['backward']} of them go back: rows are taken as they stand"] if time["backward"] else []
    parts = {split: Ragged(codec.encode(x[:, 0] if len(names) == 1 else x)) for split, x in raw.items()}
    return Sequences(
        name=path.name.split(".")[0],
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        kind="continuous",
        unit=codec.unit,
        ends=False,
        codec=codec,
        notes=notes,
        provenance={
            **stream_provenance(cut, fractions),
            "path": str(path),
            "valid": str(valid or "") or None,
            "test": str(test or "") or None,
            "exclude": list(exclude),
            "time": time,
        },
    )


def _channels(table: Table) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """The columns of numbers, and what is known of the column of times."""
    time: dict[str, Any] | None = None
    channels = dict[str, np.ndarray]()
    for name in table.names:
        column = table[name]
        seconds = seconds_of(name, column) if time is None else None
        if seconds is not None:
            time = _describe_time(name, column, seconds)
            continue
        if column.dtype.kind not in "biuf":
            text = next(value for value in column.tolist() if value is not None)
            raise ValueError(f"column {name!r}: expected numbers, got {text!r}; exclude= leaves a column out")
        values = column.astype(np.float64)
        gaps = np.isnan(values)
        if gaps.any():
            raise ValueError(
                f"column {name!r}: expected a number in every row, got none in row {int(gaps.argmax()) + 1} and "
                f"{int(gaps.sum()) - 1} more; fill the gaps first"
            )
        channels[name] = values
    if not channels:
        raise ValueError("expected columns of numbers, got none")
    return channels, time


def seconds_of(name: str, column: np.ndarray) -> np.ndarray | None:
    """Return the times of a column, of dates in seconds; None if it holds no times.

    Example:
        >>> seconds_of("day", np.array(["2024-01-01", "2024-01-02"], dtype=object))
        array([    0., 86400.])
    """
    if column.dtype.kind in "iuf":
        rising = len(column) > 1 and bool((np.diff(column) > 0).all())
        return column.astype(np.float64) if rising and name.lower() in _TIMES else None
    if column.dtype.kind != "O" or None in column.tolist():
        return None
    try:
        dates = [datetime.fromisoformat(text) for text in column.tolist()]
        start = dates[0]
        return np.array([(date - start).total_seconds() for date in dates])
    except (TypeError, ValueError):  # no date, or a zone for some dates only
        return None


def _describe_time(name: str, column: np.ndarray, seconds: np.ndarray) -> dict[str, Any]:
    steps = np.diff(seconds)
    step = float(np.median(steps)) if len(steps) else 0.0
    irregular = int((np.abs(steps - step) > 1e-6 * abs(step)).sum())
    first, last = (str(column[i]) for i in (0, -1))
    return {
        "column": name,
        "rows": len(column),
        "first": first,
        "last": last,
        "step": step,
        "irregular": irregular,
        "backward": int((steps < 0).sum()),
    }


def _standardise(train: np.ndarray, names: Sequence[str]) -> tuple[Standardised, list[str]]:
    mean, scale = train.mean(0), train.std(0)
    constant = scale <= 1e-12 * np.maximum(1.0, np.abs(mean))
    scale[constant] = 1.0
    notes = [f"{name} is constant in train: a density may fit it without bound" for name in np.array(names)[constant]]
    return Standardised(mean=tuple(mean.tolist()), scale=tuple(scale.tolist()), names=tuple(names)), notes
