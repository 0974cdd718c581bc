"""An hour of sound scored in bounded memory: peak memory of a process that scores one minute, and of one for sixty.

The clips of spoken digits come one after another, again and again, block by block, as from a file. Every length is
scored in a process of its own, whose greatest resident memory the system tells.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import load_rows, provenance, store, table
from benchmarks.sequences.audio import RATE, folder_of, model_of, read
from seriatim import load, save
from seriatim.tasks import read_along

TITLE = "Sound: an hour in bounded memory"
RESULTS = "sequences-hour"
ABOUT = (
    "A WaveNet of 18 layers (2x9x32) scores 8 kHz sound, digits one after another, block by block of 8,000 samples. "
    "The weights are those of the table of spoken digits where it was run, else random: memory does not depend on "
    "them. Peak resident memory of a process of its own; at 0 minutes it holds the library, the model and the clips. "
    "One thread."
)
MODEL = "WaveNet 2x9x32"
MINUTES = (0, 1, 10, 60)
BLOCK = 8000


def blocks(values: np.ndarray, samples: int) -> Iterator[np.ndarray]:
    """Repeat values up to so many samples, a block at a time."""
    for start in range(0, samples, BLOCK):
        yield values.take(range(start, min(start + BLOCK, samples)), mode="wrap")


def peak_mib() -> float:
    """Return the greatest resident memory of this program since it began, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes on macOS
    # Not getrusage: on Linux its maximum is handed down from the process that started this one.
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def score(model_path: Path, clips: Path, minutes: int) -> dict[str, Any]:
    """Score so many minutes in this process."""
    torch.set_num_threads(1)
    model, values = load(model_path), np.load(clips)
    total, count, started = 0.0, 0, time.process_time()
    context = torch.tensor([0, 0])
    for terms in read_along(model, blocks(values, 60 * RATE * minutes), context):
        total, count = total - float(terms.sum(dtype=np.float64)), count + len(terms)
    return {
        "minutes": minutes,
        "samples": count,
        "bits_per_sample": round(total / count / math.log(2), 4) if count else None,
        "cpu_seconds": round(time.process_time() - started, 1),
        "peak_mib": round(peak_mib(), 1),
    }


def run(folder: Path, only: list[str]) -> None:
    """Measure every length in a process of its own and print the table."""
    data = read(folder, "mu-law")
    trained = (folder_of(MODEL) / "model").is_dir()
    with tempfile.TemporaryDirectory() as work:
        clips, found = Path(work) / "clips.npy", Path(work) / "found.json"
        np.save(clips, data.test.values)
        model = folder_of(MODEL) if trained else save(model_of(MODEL, data), Path(work) / "model")
        for minutes in MINUTES:
            if only and str(minutes) not in only:
                continue
            command = [sys.executable, "-m", "benchmarks.sequences.hour", *map(str, (model, clips, minutes, found))]
            subprocess.run(command, check=True)
            row = json.loads(found.read_text())
            store(RESULTS, {str(minutes): {**row, "trained": trained, "provenance": provenance()}})
            print(f"{minutes} minutes: peak {row['peak_mib']} MiB, {row['cpu_seconds']} s", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    stored, rows = load_rows(RESULTS), []
    for minutes in MINUTES:
        row = stored.get(str(minutes))
        if row is None:
            rows.append([minutes, "not run", "", "", ""])
            continue
        speed = f"{row['samples'] / RATE / row['cpu_seconds']:.1f}" if row["samples"] else ""
        bits = "" if row["bits_per_sample"] is None or not row["trained"] else f"{row['bits_per_sample']:.3f}"
        rows.append([minutes, f"{row['samples']:,}", f"{row['peak_mib']:.0f}", bits, speed])
    return table(["minutes", "samples", "peak memory, MiB", "bits per sample", "times real time"], rows)


if __name__ == "__main__":
    model_path, clips, minutes, found = sys.argv[1:]
    Path(found).write_text(json.dumps(score(Path(model_path), Path(clips), int(minutes))))
