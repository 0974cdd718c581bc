"""Where results and messages go: results to stdout or a file, everything else to stderr."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from seriatim.cli.errors import UserError


def say(message: str) -> None:
    """Tell the user something that is no result, on stderr."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def engine_told() -> Iterator[None]:
    """Say how values are drawn, and why so, each way once."""
    said: set[str] = set()

    def told(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message not in said:
            said.add(message)
            say(f"engine: {message}")
        return False

    logger = logging.getLogger("seriatim.engine")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addFilter(told)
    try:
        yield
    finally:
        logger.removeFilter(told)
        logger.setLevel(level)


def show(text: str) -> None:
    """Print a result on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def show_json(result: Any) -> None:
    """Print a result as JSON on stdout; numbers that JSON lacks become null."""
    show(json.dumps(_plain(result), indent=1))  # ASCII: stdout may not be UTF-8


def show_json_line(result: Any) -> None:
    """Print a result as one line of JSON on stdout, at once: one of many that come over time."""
    show(json.dumps(_plain(result)))
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV text.

    Example:
        >>> csv_text(["row", "log_prob_nats"], [(0, -1.5)])
        'row,log_prob_nats\\n0,-1.5\\n'
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def write_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, move it to `path`, and say so."""
    from seriatim.data.files import replacing

    with replacing(path) as temporary:
        write(temporary)
    say(f"wrote {path}")


def show_or_write(text: str, out: Path | None) -> None:
    """Print a text on stdout, or write it to a file."""
    if out is None:
        show(text)
    else:
        write_file(out, lambda file: file.write_text(text, encoding="utf-8"))


def ending(out: Path, allowed: Sequence[str], option: str = "--out") -> str:
    """Return the ending of a file name, one of those allowed.

    Raises:
        UserError: another ending.
    """
    suffix = out.suffix.lower()
    if suffix not in allowed:
        raise UserError(f"{option}: expected a name ending in {', '.join(allowed)}, got {out}")
    if out.is_dir():
        raise UserError(f"{option}: expected a file, got the folder {out}")
    return suffix


def progress(what: str) -> Callable[[int, int], None]:
    """Return a function that shows how much is done, on a terminal only."""

    def show_progress(done: int, wanted: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == wanted else ""
            print(f"\r{what}: {done} of {wanted}", end=end, file=sys.stderr, flush=True)

    return show_progress
