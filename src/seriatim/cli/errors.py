"""Errors as one line: what was wrong, what was expected, what was got."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any

WRONG_INPUT = 2
INTERRUPTED = 130
FAILED = 1


class UserError(ValueError):
    """An input that the user can put right; its message names the argument, what was expected and what was got."""


def as_line(error: BaseException) -> tuple[str | None, int]:
    """Return the line that tells a user of an error and the exit status, or (None, 1) for a bug of ours.

    Example:
        >>> as_line(UserError("n: expected 1 or more, got 0"))
        ('seriatim: error: n: expected 1 or more, got 0', 2)
        >>> as_line(MemoryError("Unable to allocate 711 PiB"))
        ('seriatim: error: memory: expected work that fits, got Unable to allocate 711 PiB', 1)
    """
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # what the parser of the command line raises
        context = getattr(error, "ctx", None)
        where = f" (see {context.command_path} --help)" if context is not None else ""
        return _line(f"{error.format_message().rstrip('.')}{where}"), WRONG_INPUT
    if isinstance(error, SystemExit):
        return _of_exit(error)
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(error, pydantic.ValidationError):
        return _line(of_validation(error)), WRONG_INPUT
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return _line(f"{error.filename}: no such file or folder"), WRONG_INPUT
    if isinstance(error, OSError) and error.filename is not None:
        return _line(f"{error.filename}: {(error.strerror or 'cannot be used').lower()}"), WRONG_INPUT
    if isinstance(error, ValueError | ImportError) or (isinstance(error, TypeError) and ": expected " in str(error)):
        return _line(str(error)), WRONG_INPUT
    if isinstance(error, MemoryError):
        return _line(f"memory: expected work that fits, got {str(error) or 'more'}"), FAILED
    if isinstance(error, ArithmeticError):  # training diverged
        return _line(str(error)), FAILED
    return None, FAILED


def _of_exit(error: SystemExit) -> tuple[str | None, int]:
    if hasattr(error, "folder"):  # training was interrupted and saved
        return f"seriatim: {error}", INTERRUPTED
    return None, error.code if isinstance(error.code, int) else FAILED


def of_validation(error: Any, known: Sequence[str] = (), prefix: str = "") -> str:
    """Say in one line what a pydantic model refused first, with names that are close to an unknown one."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal[")))
    where = f"{prefix}{place}"
    if first["type"] == "extra_forbidden":
        return f"{where}: {unknown_name(str(first['loc'][-1]), known)}"
    message = re.sub(r"^(Value error, |Input should be )", "", first["msg"])
    message = message if message.startswith("expected ") else f"expected {message}"
    return f"{where}: {message}, got {first['input']!r}"


def unknown_name(name: str, known: Sequence[str]) -> str:
    """Say that a name is unknown, and which known ones are close to it, or else all of them.

    Example:
        >>> unknown_name("epoch", ["epochs", "seed"])
        "unknown name 'epoch' (did you mean epochs?)"
    """
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"unknown name {name!r} (did you mean {' or '.join(close)}?)"
    return f"unknown name {name!r}" + (f" (known: {', '.join(known)})" if known else "")


def _line(message: str) -> str:
    return f"seriatim: error: {' '.join(message.split())}"
