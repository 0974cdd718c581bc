"""Classes of MNIST by Bayes' rule: a class-conditional GatedPixelCNN, binarised at grey value 128.

Runs are resumable: a run that was stopped goes on from its last save when the command is given again. The model is the
one of the best validation epoch. The temperature is fitted on the validation rows; the test split is scored once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, provenance, store, table
from benchmarks.density.mnist import interval
from benchmarks.images.entries import config
from seriatim.context import Labels
from seriatim.data.files import replacing
from seriatim.model import AutoregressiveModel
from seriatim.models import GatedPixelCNN
from seriatim.report.classes import progress_curve
from seriatim.report.curve_files import write_curve
from seriatim.tasks import Classification, Quality, calibrate, classify
from seriatim.tasks.evaluate import bootstrap_interval
from seriatim.training import TrainConfig, TrainingData, TrainResult, train

TITLE = "Images: classes of MNIST by Bayes' rule"
RESULTS = "images-classify"
ABOUT = (
    "A model of p(image | digit) as a classifier: p(digit | image) by Bayes' rule over the 10 digits, equally probable "
    "before. Labelled MNIST, binarised by a fixed threshold (a pixel is 1 if its grey value is 128 or more): this is "
    "not the binarisation of the other tables, so nats do not compare with theirs. The last 10,000 training rows are "
    "for validation; on them one temperature of the log-likelihoods is fitted. All 10,000 test rows. ECE over 15 bins."
)
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "classes-of-mnist.svg"
TARGET = 0.97
THRESHOLD = 128
NUM_VALID = 10_000
CLASSES = 10


class Entry(NamedTuple):
    """A row of the table: the model of images of a shape, and how it is trained."""

    make: Callable[[tuple[int, int]], AutoregressiveModel]
    config: TrainConfig


ENTRIES: dict[str, dict[str, Entry]] = {
    "cpu": {
        "GatedPixelCNN 5x24": Entry(
            lambda shape: GatedPixelCNN(shape, hidden_features=24, num_layers=5, encoder=Labels(CLASSES), dropout=0.1),
            config(4, 25, 2e-3),
        ),
    },
    "cuda": {},
}


class Split(NamedTuple):
    """Binary images (N, H, W) and their classes (N,)."""

    x: np.ndarray
    y: np.ndarray


def splits(file: Path, num_valid: int = NUM_VALID) -> dict[str, Split]:
    """Read labelled images, 1 where the grey value is THRESHOLD or more; the last training rows are for validation."""
    with np.load(file, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in ("x_train", "y_train", "x_test", "y_test")}
    cut = len(arrays["x_train"]) - num_valid
    x, y = (arrays["x_train"] >= THRESHOLD).astype(np.uint8), arrays["y_train"].astype(np.int64)
    test = Split((arrays["x_test"] >= THRESHOLD).astype(np.uint8), arrays["y_test"].astype(np.int64))
    return {"train": Split(x[:cut], y[:cut]), "valid": Split(x[cut:], y[cut:]), "test": test}


def trained(data: dict[str, Split], entry: Entry, device: str, folder: Path) -> TrainResult:
    """Train an entry, or go on training it."""
    torch.manual_seed(entry.config.seed)
    rows = TrainingData(data["train"].x, data["valid"].x, train_context=data["train"].y, valid_context=data["valid"].y)
    settings = entry.config.model_copy(update={"device": device})
    model = entry.make(data["train"].x.shape[1:])
    return train(model, rows, settings, folder, resume=(folder / "config.yaml").exists())


def measured(data: dict[str, Split], entry: Entry, device: str, work: Path) -> tuple[dict[str, Any], Classification]:
    """Train (or go on training) one entry, classify its test split, and return what is stored."""
    start = time.perf_counter()
    result = trained(data, entry, device, work)
    model, scored = result.model.to(device), time.perf_counter()
    temperature = calibrate(model, *data["valid"], batch_size=50)
    found = classify(model, *data["test"], temperature=temperature, batch_size=50)
    y = data["test"].y
    nats, right = -found.log_likelihood[np.arange(len(y)), y], found.log_likelihood.argmax(1) == y
    assert found.after is not None
    row = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "valid_nats": round(float(result.valid_nats or np.nan), 3),
        "train_seconds": round(result.seconds),
        "score_seconds": round(time.perf_counter() - scored),
        "wall_seconds": round(time.perf_counter() - start),
        "config": entry.config.model_copy(update={"device": device}).model_dump(mode="json"),
        "seed": entry.config.seed,
        "rows": {name: len(split.y) for name, split in data.items()},
        "test_nats": round(float(nats.mean()), 3),
        "interval": interval(nats),
        "accuracy_interval": [round(end, 5) for end in bootstrap_interval(right.astype(np.float64))],
        "temperature": round(temperature, 4),
        "uncalibrated": rounded(found.before),
        "calibrated": rounded(found.after),
        "progressive": [{"positions": int(t), **rounded(q)} for t, q in zip(found.prefixes, found.curve, strict=True)],
        "provenance": provenance(),
    }
    return row, found


def rounded(quality: Quality) -> dict[str, float]:
    """Return a quality as it is stored."""
    return {name: round(value, 5) for name, value in quality._asdict().items()}


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all entries (or some), draw the curve of the last and print the table."""
    torch.set_num_threads(threads)
    data = splits(folder / "images/mnist.npz")
    for name in only or ENTRIES[device]:
        work = WORK / "images" / device / f"classify_{name.replace(' ', '_')}"
        row, found = measured(data, ENTRIES[device][name], device, work)
        store(RESULTS, {device: {**load_rows(RESULTS).get(device, {}), name: row}})
        with replacing(PICTURE) as temporary:
            write_curve(temporary, progress_curve(found))
        print(render(), flush=True)


def render() -> str:
    """Return the tables of what is stored: the models, and how soon each is right."""
    parts, rows = [], []
    for device, entries in ENTRIES.items():
        stored = load_rows(RESULTS).get(device, {})
        for name in entries:
            row = stored.get(name)
            if row is None:
                rows.append([name, device, "not run", *[""] * 8, f"{TARGET:.0%}"])
                continue
            rows.append(_cells(name, device, row))
            parts.append(_progress(name, row))
    header = ["model", "device", "test nats", "accuracy", "95 % interval", "log-loss", "ECE", "T"]
    header += ["log-loss at T", "ECE at T", "training + scoring", "target accuracy"]
    return "\n\n".join([table(header, rows), *parts])


def _cells(name: str, device: str, row: dict[str, Any]) -> list[str]:
    before, after = row["uncalibrated"], row["calibrated"]
    low, high = row["accuracy_interval"]
    verdict = "met" if before["accuracy"] >= TARGET else "missed"
    took = f"{row['train_seconds'] / 60:.0f} min, {row['epochs']} epochs + {row['score_seconds'] / 60:.0f} min"
    judged = [f"{before['accuracy']:.2%}", f"{low:.2%} to {high:.2%}"]
    judged += [f"{before['log_loss']:.4f}", f"{before['calibration_error']:.4f}", f"{row['temperature']:.2f}"]
    judged += [f"{after['log_loss']:.4f}", f"{after['calibration_error']:.4f}"]
    return [name, device, f"{row['test_nats']:.2f}", *judged, took, f"{TARGET:.0%}, {verdict}"]


def _progress(name: str, row: dict[str, Any]) -> str:
    """Return how much is known after some of the positions, every second prefix."""
    points = row["progressive"][::2]
    whole = row["progressive"][-1]["positions"]
    header = ["share of the pixels seen", *(f"{point['positions'] / whole:.0%}" for point in points)]
    lines = [
        [words, *(f"{point[key]:.1%}" for point in points)]
        for words, key in (("accuracy", "accuracy"), ("mean p(true digit)", "true_probability"))
    ]
    picture = f"![accuracy over the share of pixels seen](pictures/{PICTURE.name})"
    return f"{name}, from the top row down:\n\n{table(header, lines)}\n\n{picture}"
