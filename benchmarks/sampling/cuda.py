"""On a GPU: a captured step, replayed for every position, against our cached step launched kernel by kernel."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.common import load_rows, provenance, store, table
from benchmarks.sampling.cases import CASES
from benchmarks.sampling.measure import median

RESULTS = "sampling-cuda"
NAMES = ("WaveNet 30x32", "WaveNet 20x64", "GRU 1x512", "LSTM 1x512", "LSTM 3x512")
BATCHES = (1, 16, 256)
POSITIONS, REPEATS = 500, 5


def measure(name: str, batch: int, device: str = "cuda", positions: int = POSITIONS) -> dict[str, Any]:
    """Measure both, in turns; the capture counts."""
    torch.manual_seed(0)
    model = CASES[name].make(positions).to(device).eval()
    joint = model(length=positions).expand((batch,))
    ways: dict[str, Callable[[], Any]] = {
        "graph": lambda: joint.sample(seed=0),
        "eager": lambda: joint.sample(seed=0, engine="reference"),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(REPEATS + 1):
        for way, call in ways.items():
            start = time.perf_counter()
            call().cpu()  # waits for the device
            if turn:
                rates[way].append(batch * positions / (time.perf_counter() - start))
    found = {way: np.array(own) for way, own in rates.items()}
    equal = float((ways["graph"]() == ways["eager"]()).double().mean())
    per_s = {way: median(own) for way, own in found.items()}
    return {"per_s": per_s, "ratio": median(found["graph"] / found["eager"]), "equal": equal}


def run() -> None:
    """Measure all lines, store them and print the table."""
    if not torch.cuda.is_available():
        sys.exit("benchmarks: --device: expected 'cpu' on this machine, which has no CUDA device, got 'cuda'")
    for name in NAMES:
        for batch in BATCHES:
            row = measure(name, batch)
            store(RESULTS, {f"{name}, batch {batch}": {**row, "provenance": provenance()}})
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    stored, rows = load_rows(RESULTS), []
    for line in (f"{name}, batch {batch}" for name in NAMES for batch in BATCHES):
        row = stored.get(line)
        if row is None:
            rows.append([line, "not run", "", "", ""])
            continue
        rates = [f"{row['per_s'][way]:,.0f}" for way in ("eager", "graph")]
        rows.append([line, *rates, f"{row['ratio']:.2f}x", f"{row['equal']:.2%}"])
    return table(["positions/s on CUDA", "eager", "graph", "ratio", "equal values"], rows)
