"""Write docs/benchmarks.md from what is stored: `python -m benchmarks`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import load_rows
from benchmarks.density import binary_sets, chow_liu, mnist, rnade, sampling_tax
from benchmarks.images import caltech, cifar, classify, small, speed
from benchmarks.images import mnist as image_mnist
from benchmarks.sequences import audio, hour, music, text
from benchmarks.sequences import speed as generation
from benchmarks.transformer import babi, decoding, multi30k, shakespeare
from benchmarks.transformer import speed as training_steps

HEADER = """# Benchmarks

Every number here was printed by a command of this repository and is stored in `benchmarks/results/` with seed,
versions, hardware and date. `DATA` is a folder with the data sets; [the data page](data.md) says where the public gets
each. This page is written by `python -m benchmarks`.

All runs below used one thread of a shared machine: training times are upper bounds.
"""
TABLES = {
    "density chow-liu --data DATA": chow_liu,
    "density mnist --data DATA": mnist,
    "density binary-sets --data DATA": binary_sets,
    "density rnade --data DATA": rnade,
    "density sampling-tax": sampling_tax,
    "images mnist --data DATA": image_mnist,
    "images classify --data DATA": classify,
    "images caltech --data DATA": caltech,
    "images small --data DATA": small,
    "images cifar --data DATA": cifar,
    "images speed --peer PEER": speed,
    "sequences music --data DATA": music,
    "sequences text --data DATA": text,
    "sequences audio --data DATA": audio,
    "sequences hour --data DATA": hour,
    "transformer multi30k --data DATA": multi30k,
    "transformer babi --data DATA": babi,
    "transformer shakespeare --data DATA": shakespeare,
    "transformer speed": training_steps,
    "transformer decoding": decoding,
    "sequences speed --peer-wavenet PEER --peer-fast PEER": generation,
}


def provenances(rows: Any) -> Iterator[dict[str, Any]]:
    """Find every provenance in a stored table."""
    if isinstance(rows, dict):
        for key, value in rows.items():
            if key == "provenance":
                yield value
            else:
                yield from provenances(value)


def main() -> None:
    """Write the page."""
    parts = [HEADER]
    for command, module in TABLES.items():
        known = sorted(provenances(load_rows(module.RESULTS)), key=lambda p: p["date"])
        last = known[-1] if known else None
        where = (
            f"{last['processor']}, torch {last['torch']}, Python {last['python']}, {last['date']}."
            if last
            else "Not run yet."
        )
        parts.append(f"## {module.TITLE}\n\n    python -m benchmarks.{command}\n\n{module.ABOUT} {where}\n")
        parts.append(module.render() + "\n")
    path = Path(__file__).parent.parent / "docs" / "benchmarks.md"
    path.write_text("\n".join(parts))
    print(f"wrote docs/{path.name}")


if __name__ == "__main__":
    main()
