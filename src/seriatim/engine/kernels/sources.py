"""What the kernels were compiled from.

numba's disk cache looks at the file of the compiled function alone, so `run` compares the fingerprint of all sources
with the one that it was compiled with, and is compiled again where they differ.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from seriatim.engine import program


def checksum(folder: Path, layout: int) -> int:
    """Return a number that changes with any source file of a folder, and with the layout of the code."""
    total = layout
    for path in sorted(folder.glob("*.py")):
        total = zlib.crc32(path.name.encode() + path.read_bytes(), total)
    return total


FINGERPRINT = checksum(Path(__file__).parent, program.LAYOUT)
