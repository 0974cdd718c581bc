"""Rows of zeros and ones in text files."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

_BITS = bytes.maketrans(b"01", b"\x00\x01")


def read_bits(path: str | Path) -> np.ndarray:
    """Read rows of zeros and ones from text: one row a line, commas, blanks or nothing between (.data, .amat).

    Args:
        path: the file; gzip if the name ends in `.gz`.

    Returns:
        (N, D) uint8 in {0, 1}.

    Raises:
        ValueError: another character, or lines of two lengths; names the line.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "set.train.data"
        >>> _ = file.write_text("0,1,1\\n1,0,0\\n")
        >>> read_bits(file)
        array([[0, 1, 1],
               [1, 0, 0]], dtype=uint8)
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    lines = [line.translate(None, b", \t\r") for line in raw.rstrip().split(b"\n")]
    width = len(lines[0])
    for number, line in enumerate(lines, 1):
        if len(line) != width or not width or line.strip(b"01"):
            got = f"{len(line)} characters" if len(line) != width else repr(line[:20])
            raise ValueError(f"{path}, line {number}: expected {width or 'some'} zeros and ones, got {got}")
    return np.frombuffer(b"".join(lines).translate(_BITS), dtype=np.uint8).reshape(len(lines), width)
