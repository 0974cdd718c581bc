"""Table 6: the sampling tax, time to sample a batch over the arithmetic or bandwidth limit of one parallel pass.

    tax = seconds to sample B rows / max(2 B MACs / sgemm rate, weight bytes / bandwidth)

MACs counts the weights that are not masked, so a parallel pass over a masked matrix is not flattered.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import load_rows, provenance, store, table
from seriatim.layers import MaskedLinear
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, NADE
from seriatim.models.nade import NADENetwork

TITLE = "Sampling tax, before the engine covers these models"
RESULTS = "density-sampling-tax"
ABOUT = (
    "784 bits, 64 rows, one thread, stepping in PyTorch. The limit is the arithmetic of one parallel pass at the "
    "measured sgemm rate, or the traffic of its weights, whichever binds. The last columns run the whole network for "
    "each position."
)
D, BATCH, REPEATS = 784, 64, 5
MODELS: dict[str, Callable[[], AutoregressiveModel]] = {
    "FVSBN": lambda: FVSBN((D,)),
    "NADE 500": lambda: NADE((D,), hidden_features=500),
    "MADE 500": lambda: MADE((D,), hidden_features=(500,)),
    "MADE 3x500 residual": lambda: MADE((D,), hidden_features=(500, 500, 500), residual=True),
}


def median_seconds(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the median of some timed calls after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def macs(model: AutoregressiveModel) -> int:
    """Return the multiply-adds of one row's parallel pass: one for each weight that is not masked."""
    total = 0
    for module in model.modules():
        if isinstance(module, MaskedLinear):
            total += int(module.mask.sum())
        elif isinstance(module, NADENetwork):
            total += module.weight.numel() + module.output_weight.numel()
    return total


def limits(weight_bytes: int) -> tuple[float, float]:
    """Measure the sgemm rate (FLOP/s, 1024 cubed) and the bandwidth (bytes/s) of a GEMV over so many bytes."""
    a = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / median_seconds(lambda: a @ a, 9)
    columns = 512
    matrix, vector = torch.randn(max(1, weight_bytes // (4 * columns)), columns), torch.randn(columns)
    return rate, matrix.numel() * 4 / median_seconds(lambda: matrix @ vector, 25)


@torch.no_grad()
def naive(model: AutoregressiveModel, batch: int, positions: int) -> float:
    """Return the seconds to sample a batch with a whole parallel pass at every position, from a few positions."""
    joint, x = model().expand((batch,)), torch.zeros(batch, D)
    u = model.shifted(x, model.order)
    return median_seconds(lambda: model.network(u, joint.initial_state()), positions) * D


@torch.no_grad()
def measure(name: str) -> dict[str, Any]:
    """Measure one model on one thread."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.02)
    count = macs(model)
    rate, bandwidth = limits(4 * count)
    limit = max(2 * BATCH * count / rate, 4 * count / bandwidth)
    seconds = median_seconds(lambda: model.sample((BATCH,), seed=0))
    slow = naive(model, BATCH, 3)
    return {
        "macs": count,
        "sgemm_gflops": round(rate / 1e9, 1),
        "gemv_gb_per_s": round(bandwidth / 1e9, 1),
        "limit_ms": round(limit * 1e3, 2),
        "sample_ms": round(seconds * 1e3, 1),
        "tax": round(seconds / limit, 1),
        "naive_ms": round(slow * 1e3),
        "naive_over_ours": round(slow / seconds, 1),
    }


def run(folder: Path | None, only: list[str]) -> None:
    """Measure all models (or some) on one thread and print the table."""
    torch.set_num_threads(1)
    for name in only or MODELS:
        row = measure(name)
        store(RESULTS, {name: {**row, "batch": BATCH, "provenance": provenance()}})
        print(f"{name}: tax {row['tax']}, {row['sample_ms']} ms for {BATCH} rows", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    header = ["model", "million MACs", "limit, ms", "sample 64, ms", "sampling tax", "D whole passes, ms", "ratio"]
    rows = []
    for name in MODELS:
        if (r := load_rows(RESULTS).get(name)) is not None:
            cells = [name, f"{r['macs'] / 1e6:.2f}", r["limit_ms"], r["sample_ms"], r["tax"], r["naive_ms"]]
            rows.append([*cells, f"{r['naive_over_ours']}x"])
    return table(header, rows)
