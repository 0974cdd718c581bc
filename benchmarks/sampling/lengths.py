"""The picture: time for a position against the length of what is sampled."""

from __future__ import annotations

import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import provenance, store
from benchmarks.sampling.cases import CASES
from benchmarks.sampling.measure import passes
from benchmarks.sampling.table import RESULTS
from seriatim.data.files import replacing
from seriatim.report.curve_files import write_curve
from seriatim.report.page import Curve

LENGTHS = (16, 64, 256, 1024, 4096)
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "time-over-length.svg"
REPEATS = 3


def measure(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    """Return the microseconds of CPU time for a position of one stream, {way: [of each length]}."""
    torch.manual_seed(0)
    us: dict[str, list[float]] = {"naive": [], "eager": [], "engine": []}
    model = CASES["LSTM 1x512"].make(max(lengths)).eval()
    for length in lengths:
        joint = model(length=length).expand((1,))
        values = joint.sample(seed=0)
        half = model(length=max(1, length // 2)).expand((1,))  # what a whole pass reads on average
        one_pass = passes(model, half, values[:, : half.order.length])
        us["naive"].append(_microseconds(one_pass, 1))
        us["eager"].append(_microseconds(partial(joint.sample, seed=0, engine="reference"), length))
        us["engine"].append(_microseconds(partial(joint.sample, seed=0, engine="native"), length))
    return {"lengths": list(lengths), "us": us}


def _microseconds(call: Any, positions: int) -> float:
    call()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return round(1e6 * float(np.median(seconds)) / positions, 2)


def run() -> None:
    """Measure, store and draw."""
    row = measure()
    store(RESULTS, {"lengths": {**row, "provenance": provenance()}})
    points = {
        way: [(math.log2(n), math.log10(us)) for n, us in zip(row["lengths"], times, strict=True)]
        for way, times in row["us"].items()
    }
    curve = Curve(points, "log2 of the length", "log10 of microseconds for a position", "")
    with replacing(PICTURE) as temporary:
        write_curve(temporary, curve)
