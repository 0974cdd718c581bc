"""What the tables of image models share: entries, training in one or several scans, scoring, the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import WORK, load_rows, provenance, store, table, told_epochs
from benchmarks.density.mnist import interval
from seriatim.model import AutoregressiveModel
from seriatim.models import GatedPixelCNN, PixelCNN, PixelSNAIL
from seriatim.models.pixelrnn import PixelRNN
from seriatim.order import Order, scans
from seriatim.training import TrainConfig, train


class Entry(NamedTuple):
    """A row of the table: the model in a scan, how it is trained, the target in nats, the number of scans averaged,
    and whether half of the training images are seen left and right exchanged.
    """

    make: Callable[[Order], AutoregressiveModel]
    config: TrainConfig
    target: float | None = None
    scans: int = 1
    flipped: bool = False


def config(epochs: int, batch_size: int, learning_rate: float, **changes: Any) -> TrainConfig:
    """Return the settings that all rows share, and those given."""
    shared: dict[str, Any] = {"weight_decay": 1e-4, "gradient_clip": 50.0, "ema_decay": 0.999, "warmup_steps": 300}
    return TrainConfig(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, **{**shared, **changes})


def gated(features: int, layers: int, dropout: float = 0.0) -> Callable[[Order], AutoregressiveModel]:
    """Return what makes a GatedPixelCNN in a scan."""
    return lambda order: GatedPixelCNN(
        order.shape, hidden_features=features, num_layers=layers, dropout=dropout, order=order
    )


def pixelcnn(features: int, layers: int, dropout: float = 0.0) -> Callable[[Order], AutoregressiveModel]:
    """Return what makes a PixelCNN in a scan."""
    return lambda order: PixelCNN(
        order.shape, hidden_features=features, num_layers=layers, dropout=dropout, order=order
    )


def pixelrnn(kind: type[PixelRNN], features: int, layers: int, dropout: float = 0.0) -> Callable[..., PixelRNN]:
    """Return what makes a RowLSTM or DiagonalBiLSTM in a scan."""
    return lambda order: kind(order.shape, hidden_features=features, num_layers=layers, dropout=dropout, order=order)


def snail(features: int, blocks: int, dropout: float, heads: int = 4) -> Callable[[Order], AutoregressiveModel]:
    """Return what makes a PixelSNAIL in a scan."""
    return lambda order: PixelSNAIL(
        order.shape, hidden_features=features, num_blocks=blocks, num_heads=heads, dropout=dropout, order=order
    )


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (B, H, W), each left and right exchanged or not with the same chance.

    Example:
        >>> flip(torch.arange(6).reshape(2, 1, 3), torch.Generator().manual_seed(0)).tolist()
        [[[2, 1, 0]], [[3, 4, 5]]]
    """
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None], images.flip(2), images)


def mixed(nats: list[np.ndarray]) -> np.ndarray:
    """Return -log of the mean of the joint probabilities behind several -log p, (N,)."""
    return np.log(len(nats)) - np.logaddexp.reduce(-np.stack(nats), axis=0)


def measure(data: dict[str, np.ndarray], device: str, name: str, entry: Entry, work: Path) -> dict[str, Any]:
    """Train (or go on training) one entry in each of its scans and score its test split."""
    settings, start = entry.config.model_copy(update={"device": device}), time.perf_counter()
    nats, valid, results, parameters = [], [], [], 0
    for k, scan in enumerate(scans(data["train"].shape[1:], entry.scans)):
        # One folder a scan: entries that differ in the number of scans only share their members.
        member = name.removesuffix(f", {entry.scans} scans").replace(",", "").replace(" ", "_")
        folder = work / (f"{member}-scan{k}" if k else member)
        torch.manual_seed(settings.seed + k)
        model = entry.make(scan)
        resume = (folder / "config.yaml").exists()
        splits, transform = (data["train"], data["valid"]), flip if entry.flipped else None
        results.append(train(model, splits, settings, folder, resume=resume, transform=transform))
        model.to(device)
        nats.append(-model.score_samples(data["test"], batch_size=250))
        valid.append(-model.score_samples(data["valid"], batch_size=250))
        parameters += sum(p.numel() for p in model.parameters())
    joint = mixed(nats)
    return {
        "parameters": parameters,
        "epochs": len(results[0].history),
        "best_epoch": [result.best_epoch for result in results],
        "valid_nats": round(float(mixed(valid).mean()), 3),
        "train_seconds": round(sum(result.seconds for result in results)),
        "wall_seconds": round(time.perf_counter() - start),
        "config": settings.model_dump(mode="json"),
        "seed": settings.seed,
        "test_nats": round(float(joint.mean()), 3),
        "interval": interval(joint),
        "provenance": provenance(),
    }


Table = Mapping[str, Mapping[str, Entry]]
"""Entries by device and name."""


def run_entries(results: str, entries: Table, data: dict[str, np.ndarray], only: list[str], device: str) -> None:
    """Measure all entries of a device (or some), and store each as it comes."""
    for name in only or entries[device]:
        row = measure(data, device, name, entries[device][name], WORK / results / device)
        store(results, {device: {**load_rows(results).get(device, {}), name: row}})
        print(f"{name}: test {row['test_nats']:.2f} nats, valid {row['valid_nats']:.2f}", flush=True)


def rendered(results: str, entries: Table) -> str:
    """Return the table of what is stored."""
    rows = []
    for device, own in entries.items():
        stored = load_rows(results).get(device, {})
        for name, entry in own.items():
            row, target = stored.get(name), entry.target or ""
            if row is None:
                rows.append([name, device, "not run", "", "", "", "", target])
                continue
            low, high = row["interval"]
            cells = [name, device, f"{row['test_nats']:.2f}", f"{low:.2f} to {high:.2f}", f"{row['valid_nats']:.2f}"]
            time_taken = f"{row['train_seconds'] / 60:.0f} min, {told_epochs(row)}"
            rows.append([*cells, f"{row['parameters']:,}", time_taken, target])
    header = ["model", "device", "test nats", "95 % interval", "valid nats", "parameters", "training", "target"]
    return table(header, rows)
