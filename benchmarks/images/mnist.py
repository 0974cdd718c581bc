"""Fixed binarised MNIST (Larochelle's split 50,000 / 10,000 / 10,000), mean test -log p in nats, all image models.

Runs are resumable: a run that was stopped goes on from its last save when the command is given again. The model is the
one of the best validation epoch; the test split is scored once, whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, provenance, store, table, unpacked
from benchmarks.density.mnist import interval
from seriatim.model import AutoregressiveModel
from seriatim.models import GatedPixelCNN
from seriatim.training import TrainConfig, train

TITLE = "Images: fixed binarised MNIST"
RESULTS = "images-mnist"
ABOUT = (
    "Larochelle's fixed binarisation, 50,000 / 10,000 / 10,000 rows; test -log p in nats of the weights of the best "
    "validation epoch, the whole test split scored once."
)
SHAPE = (28, 28)


class Entry(NamedTuple):
    """A row of the table: the model, how it is trained, the target in nats."""

    make: Callable[[], AutoregressiveModel]
    config: TrainConfig
    target: float | None = None


def config(epochs: int, batch_size: int, learning_rate: float, **changes: Any) -> TrainConfig:
    """Return the settings that all rows share, and those given."""
    shared: dict[str, Any] = {"weight_decay": 1e-4, "gradient_clip": 50.0, "ema_decay": 0.999, "warmup_steps": 300}
    return TrainConfig(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, **{**shared, **changes})


ENTRIES: dict[str, dict[str, Entry]] = {
    "cpu": {
        "GatedPixelCNN 8x32": Entry(
            lambda: GatedPixelCNN(SHAPE, hidden_features=32, num_layers=8), config(6, 25, 2e-3), target=84.5
        ),
    },
    "cuda": {},
}


@torch.no_grad()
def scores(model: AutoregressiveModel, x: np.ndarray) -> np.ndarray:
    """Return -log p of every row in nats, (N,)."""
    return -model.score_samples(x, batch_size=250)


def measure(data: dict[str, np.ndarray], device: str, name: str) -> dict[str, Any]:
    """Train (or go on training) one entry and score its test split."""
    entry = ENTRIES[device][name]
    folder = WORK / "images" / device / name.replace(" ", "_").replace(",", "")
    torch.manual_seed(entry.config.seed)
    model = entry.make()
    start = time.perf_counter()
    settings = entry.config.model_copy(update={"device": device})
    result = train(model, (data["train"], data["valid"]), settings, folder, resume=(folder / "config.yaml").exists())
    nats = scores(model.to(device), data["test"])
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "valid_nats": round(float(result.valid_nats or np.nan), 3),
        "train_seconds": round(result.seconds),
        "wall_seconds": round(time.perf_counter() - start),
        "config": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "test_nats": round(float(nats.mean()), 3),
        "interval": interval(nats),
        "provenance": provenance(),
    }


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all entries (or some) and print the table."""
    torch.set_num_threads(threads)
    data = {key: rows.reshape(-1, *SHAPE) for key, rows in unpacked(folder, "images/binarized_mnist.npz").items()}
    for name in only or ENTRIES[device]:
        row = measure(data, device, name)
        store(RESULTS, {device: {**load_rows(RESULTS).get(device, {}), name: row}})
        print(render(), flush=True)


def render() -> str:
    """Return the table of what is stored."""
    rows = []
    for device, entries in ENTRIES.items():
        stored = load_rows(RESULTS).get(device, {})
        for name, entry in entries.items():
            row, target = stored.get(name), entry.target or ""
            if row is None:
                rows.append([name, device, "not run", "", "", "", "", target])
                continue
            low, high = row["interval"]
            cells = [name, device, f"{row['test_nats']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['valid_nats']:.2f}"]
            time_taken = f"{row['train_seconds'] / 60:.0f} min, {row['epochs']} epochs"
            rows.append([*cells, f"{row['parameters']:,}", time_taken, target])
    header = ["model", "device", "test nats", "95 % interval", "valid nats", "parameters", "training", "target"]
    return table(header, rows)
