"""Digits (8 x 8, 17 levels) and Frey faces (28 x 20, 256 levels): every image and vector model, the same budget.

Every model is trained for the same time on one thread: a few steps are timed, and the number of epochs follows. All
have the same head, a mixture of five quantised logistics, so that what differs is the network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import load_rows, provenance, store, table
from benchmarks.density.mnist import interval
from seriatim.data import load
from seriatim.data.splits import permutation
from seriatim.heads import QuantizedMixtureOfLogistics
from seriatim.model import AutoregressiveModel
from seriatim.models import (
    FVSBN,
    MADE,
    NADE,
    DiagonalBiLSTM,
    GatedPixelCNN,
    OrderAgnosticMADE,
    PixelCNN,
    PixelSNAIL,
    RowLSTM,
    Transformer,
)
from seriatim.training import TrainConfig, TrainingData, estimate, train

TITLE = "Images: digits and Frey faces"
RESULTS = "images-small"
SEED = 0
ORDERS = 8
BUDGET = {"digits": 120, "frey": 600}  # seconds of training
ABOUT = (
    f"Digits: 8 x 8, 17 levels, scikit-learn's, split by seed {SEED} (1,197 / 300 / 300). Frey faces: 28 x 20, 256 "
    f"levels, 1,965 frames of one video, split by seed {SEED} (1,565 / 200 / 200): neighbouring frames fall on both "
    "sides, so these figures are of interpolation. Test bits/dim of the weights of the best validation epoch; training "
    f"{BUDGET['digits'] // 60} and {BUDGET['frey'] // 60} minutes each, one thread. Order-agnostic MADE averages "
    f"{ORDERS} orders."
)


class Data(NamedTuple):
    """Images (N, H, W) of a number of levels."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    levels: int


def digits(folder: Path) -> Data:
    """Return scikit-learn's digits with all their levels."""
    found = load("digits17", split_seed=SEED)
    return Data(found.train, found.valid, found.test, 17)


def frey(folder: Path) -> Data:
    """Return the Frey faces, split at random."""
    with np.load(folder / "images" / "freyfaces.npz", allow_pickle=False) as file:
        x = file["x"].astype(np.int64)
    order = permutation(len(x), SEED)
    return Data(x[order[400:]], x[order[:200]], x[order[200:400]], 256)


_RASTER = {"positions": "raster", "norm": "pre", "activation": "gelu"}
SETS: dict[str, Callable[[Path], Data]] = {"digits": digits, "frey": frey}
MODELS: dict[str, tuple[Callable[..., AutoregressiveModel], dict[str, Any], float]] = {
    "FVSBN": (FVSBN, {}, 2e-3),
    "NADE 100": (NADE, {"hidden_features": 100, "activation": "relu"}, 2e-3),
    "MADE 500": (MADE, {"hidden_features": (500,), "dropout": 0.2}, 2e-3),
    "order-agnostic MADE 500": (OrderAgnosticMADE, {"hidden_features": (500,), "dropout": 0.1}, 2e-3),
    "PixelCNN 5x24": (PixelCNN, {"hidden_features": 24, "num_layers": 5, "dropout": 0.1}, 3e-3),
    "GatedPixelCNN 4x24": (GatedPixelCNN, {"hidden_features": 24, "num_layers": 4, "dropout": 0.1}, 3e-3),
    "RowLSTM 3x16": (RowLSTM, {"hidden_features": 16, "num_layers": 3, "dropout": 0.1}, 4e-3),
    "DiagonalBiLSTM 2x16": (DiagonalBiLSTM, {"hidden_features": 16, "num_layers": 2, "dropout": 0.1}, 4e-3),
    "PixelSNAIL 2x24": (PixelSNAIL, {"hidden_features": 24, "num_blocks": 2, "dropout": 0.1}, 3e-3),
    "Transformer 4x64": (Transformer, _RASTER | {"hidden_features": 64, "num_layers": 4, "dropout": 0.1}, 3e-3),
}


def measure(data: Data, name: str, budget: float) -> dict[str, Any]:
    """Train a model for about `budget` seconds, and score the test rows."""
    kind, options, learning_rate = MODELS[name]
    torch.manual_seed(SEED)
    model = kind(data.train.shape[1:], QuantizedMixtureOfLogistics(data.levels, 5), **options)
    settings = TrainConfig(
        epochs=1, batch_size=25, learning_rate=learning_rate, ema_decay=0.99, gradient_clip=500.0, seed=SEED
    )
    wall, cpu = time.perf_counter(), time.process_time()
    cost = estimate(model, TrainingData(data.train, data.valid), settings)
    # Of a shared machine's time only a share is ours: what counts is that of the processor.
    share = min(1.0, (time.process_time() - cpu) / (time.perf_counter() - wall))
    epochs = max(2, math.floor(budget / (share * cost.seconds_per_epoch)))
    settings = settings.model_copy(update={"epochs": epochs, "patience": max(5, epochs // 5)})
    start = time.perf_counter()
    result = train(model, (data.train, data.valid), settings, progress=False)
    bits = 1 / (math.log(2) * data.test[0].size)
    with torch.no_grad():
        joint = model.ensemble(ORDERS) if isinstance(model, OrderAgnosticMADE) else model()
        parts = torch.from_numpy(data.test).split(50)
        nats = np.concatenate([-joint.log_prob(part).numpy() for part in parts])
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "valid_bits_per_dim": round(float(result.valid_nats or math.nan) * bits, 4),
        "test_nats": round(float(nats.mean()), 3),
        "test_bits_per_dim": round(float(nats.mean()) * bits, 4),
        "interval": [round(end, 4) for end in interval(nats * bits)],
        "seconds": round(time.perf_counter() - start),
        "config": settings.model_dump(mode="json"),
        "seed": SEED,
        "provenance": provenance(),
    }


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all models on both sets (or on some), what is stored apart, and print the tables."""
    torch.set_num_threads(threads)
    for set_name in only or SETS:
        data = SETS[set_name](folder)
        for name in MODELS:
            known = load_rows(RESULTS).get(set_name, {})
            if name not in known:
                row = measure(data, name, BUDGET[set_name])
                store(RESULTS, {set_name: {**known, name: row}})
                print(f"{set_name}, {name}: test {row['test_bits_per_dim']:.3f} bits/dim", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    rows = []
    for name in MODELS:
        cells: list[str] = []
        for set_name in SETS:
            row = load_rows(RESULTS).get(set_name, {}).get(name)
            cells += (
                ["not run", "", ""]
                if row is None
                else [
                    f"{row['test_bits_per_dim']:.3f}",
                    f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f}",
                    f"{row['parameters']:,}",
                ]
            )
        rows.append([name, *cells])
    header = ["model", *(f"{s}, {c}" for s in SETS for c in ("bits/dim", "95 % interval", "parameters"))]
    return table(header, rows)
