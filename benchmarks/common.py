"""What all benchmarks share: the data folder, provenance, stored results, tables."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
WORK = Path(__file__).parent / "work"


def data_folder(given: str | None) -> Path:
    """Return the data folder of `--data` or SERIATIM_DATA, or stop with a plain message."""
    folder = given or os.environ.get("SERIATIM_DATA")
    if not folder or not Path(folder).is_dir():
        sys.exit(f"benchmarks: --data or SERIATIM_DATA: expected the folder of the data sets, got {folder!r}")
    return Path(folder)


def unpacked(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Load a packed binary set: train, valid and test as uint8 arrays (N, D)."""
    with np.load(folder / name, allow_pickle=False) as file:
        width = int(file["d"])
        splits = {"train": "train", "valid": "valid", "test": "test" if "test" in file else "test_rebuilt"}
        return {
            split: np.unpackbits(file[key], axis=1, count=width) for split, key in splits.items() if key in file.files
        }


def provenance() -> dict[str, Any]:
    """Return date, versions, hardware and command, to be stored beside every number."""
    import seriatim

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m", "benchmarks." + Path(sys.argv[0]).parent.name, *_public(sys.argv[1:])]),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "seriatim": seriatim.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _public(arguments: Sequence[str]) -> list[str]:
    """Leave the paths of folders out of what is stored."""
    hidden = {
        "--data": "DATA",
        "--peer": "PEER",
        "--peer-wavenet": "PEER",
        "--peer-fast": "PEER",
        "--peer-images": "PEER",
    }
    shown, name = [], ""
    for argument in arguments:
        option, given, _ = argument.partition("=")
        shown.append(f"{option}={hidden[option]}" if given and option in hidden else hidden.get(name, argument))
        name = argument
    return shown


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def epochs_done(folder: Path) -> int:
    """Return how many epochs a run has behind it, 0 for one that has not begun."""
    file = folder / "metrics.csv"
    return max(0, len(file.read_text().splitlines()) - 1) if file.exists() else 0


def training_time(seconds: float, before: int, epochs: int) -> dict[str, Any]:
    """Return the processor's seconds for all epochs, from those that this process ran after `before` others.

    Example:
        >>> training_time(50.0, before=4, epochs=9)
        {'cpu_seconds': 90, 'epochs_timed': 5}
    """
    timed = max(1, epochs - before)
    return {"cpu_seconds": round(seconds * epochs / timed), "epochs_timed": timed}


def told_epochs(row: Mapping[str, Any]) -> str:
    """Return how many epochs a model was trained for, and whether in less than full precision, as words.

    Example:
        >>> told_epochs({"epochs": 9, "config": {"precision": "bf16-mixed"}})
        '9 epochs in bf16-mixed'
    """
    precision = row.get("config", {}).get("precision", "32-true")
    return f"{row['epochs']} epochs" + ("" if precision == "32-true" else f" in {precision}")


def told_time(row: Mapping[str, Any], device: str = "cpu") -> str:
    """Return the time of a training as words: minutes, epochs, and of how many of them it is known.

    Example:
        >>> told_time({"cpu_seconds": 2455, "epochs": 9, "epochs_timed": 5})
        '41 min, 9 epochs (timed over 5)'
    """
    minutes = row["cpu_seconds" if device == "cpu" else "wall_seconds"] / 60
    part = row.get("epochs_timed", row["epochs"]) < row["epochs"]
    return f"{minutes:.0f} min, {told_epochs(row)}" + (f" (timed over {row['epochs_timed']})" if part else "")


def store(name: str, rows: Mapping[str, Any]) -> Path:
    """Merge rows into benchmarks/results/NAME.json, by a temporary file."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update(rows)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)
    return path


def load_rows(name: str) -> dict[str, Any]:
    """Return the stored rows of a table, or nothing."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table.

    Example:
        >>> print(table(["set", "nats"], [["nltcs", 6.01]]))
        | set | nats |
        |---|---|
        | nltcs | 6.01 |
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])
