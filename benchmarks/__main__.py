"""Write the pages of the benchmarks and a table of the README from what is stored: `python -m benchmarks`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import load_rows
from benchmarks.density import binary_sets, chow_liu, mnist, rnade, sampling_tax
from benchmarks.images import caltech, cifar, classify, small, speed
from benchmarks.images import mnist as image_mnist
from benchmarks.sampling import table as sampling
from benchmarks.sequences import audio, hour, listen, music, text
from benchmarks.sequences import speed as generation
from benchmarks.transformer import babi, decoding, multi30k, shakespeare
from benchmarks.transformer import speed as training_steps

HEADER = """# Benchmarks

Every number here was printed by a command of this repository and is stored in `benchmarks/results/` with seed,
versions, hardware and date. `DATA` is a folder with the data sets; [the data page](data.md) says where the public gets
each. This page is written by `python -m benchmarks`; what is about speed stands under [performance](performance.md).

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
    "sequences music --data DATA": music,
    "sequences text --data DATA": text,
    "sequences audio --data DATA": audio,
    "sequences listen --data DATA": listen,
    "sequences hour --data DATA": hour,
    "transformer multi30k --data DATA": multi30k,
    "transformer babi --data DATA": babi,
    "transformer shakespeare --data DATA": shakespeare,
}
PERFORMANCE = """# Performance

Sampling is the known weakness of autoregressive models: one value after another, and in most code a pass of the whole
network for each. Here a model keeps what it has computed (its state), so a sample costs about one pass of arithmetic in
all; and the loop over positions runs in one compiled interpreter, not in Python (see [sampling](sampling.md) and
[the design](design.md)). Both draw the same values from the same noise.

What to expect: time for a position does not grow with the length, where the naive way grows; one stream is bound by how
fast the weights are read from memory, a batch by how fast the machine multiplies; and a call pays some milliseconds to
lower the model first (hand on a lowered program where that matters). Threads, weights in 16 bits and CUDA graphs are
told in [sampling](sampling.md).

Every number was printed by a command of this repository and is stored in `benchmarks/results/` with seed, versions,
hardware and date. PEER is the reader's own checkout of the code that ours is measured beside. Targets that were missed
are said to be.
"""
SPEEDS = {
    "sampling --peer-wavenet PEER --peer-images PEER": sampling,
    "sequences speed --peer-wavenet PEER --peer-fast PEER": generation,
    "transformer decoding": decoding,
    "transformer speed": training_steps,
    "images speed --peer PEER": speed,
}
ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- python -m benchmarks: sampling -->", "<!-- end -->"


def provenances(rows: Any) -> Iterator[dict[str, Any]]:
    """Find every provenance in a stored table."""
    if isinstance(rows, dict):
        for key, value in rows.items():
            if key == "provenance":
                yield value
            else:
                yield from provenances(value)


def page(header: str, tables: Mapping[str, Any]) -> str:
    """Return a page: a section for each table, with its command, what it is about and what was found."""
    parts = [header]
    for command, module in tables.items():
        known = sorted(provenances(load_rows(module.RESULTS)), key=lambda p: p["date"])
        last = known[-1] if known else None
        where = (
            f"{last['processor']}, torch {last['torch']}, Python {last['python']}, {last['date']}."
            if last
            else "Not run yet."
        )
        parts.append(f"## {module.TITLE}\n\n    python -m benchmarks.{command}\n\n{module.ABOUT} {where}\n")
        parts.append(module.render() + "\n")
    return "\n".join(parts)


def main() -> None:
    """Write the pages, and the table between two marks of the README."""
    for name, header, tables in (("benchmarks", HEADER, TABLES), ("performance", PERFORMANCE, SPEEDS)):
        path = ROOT / "docs" / f"{name}.md"
        path.write_text(page(header, tables))
        print(f"wrote docs/{path.name}")
    readme = ROOT / "README.md"
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"benchmarks: README.md: expected {BEGIN!r} and {END!r}")
    readme.write_text(f"{before}{BEGIN}\n\n{sampling.newcomer(load_rows(sampling.RESULTS))}\n\n{END}{after}")
    print("wrote a table of README.md")


if __name__ == "__main__":
    main()
