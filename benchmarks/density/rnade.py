"""Table 5: continuous tables of the RNADE paper, ten-fold, mean test log p in nats per row in normalised units.

Preprocessing: the columns named below are dropped; rows are shuffled once (seed 0) and cut into ten folds; of the nine
training folds one is for validation; mean and standard deviation of the training folds normalise all. No noise is
added.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import load_rows, provenance, store, table
from seriatim.heads import MixtureOfNormals
from seriatim.model import AutoregressiveModel
from seriatim.models import MADE, NADE
from seriatim.training import TrainConfig, train

TITLE = "Continuous tables"
RESULTS = "density-rnade"
ABOUT = "Ten-fold, normalised by the training folds, mixtures of ten Gaussians, hyper-parameters not searched."
FOLDS = 10


class Source(NamedTuple):
    """A file, the columns dropped, and how the choice is described."""

    file: str
    dropped: Sequence[int]
    note: str


SOURCES = {
    "red wine": Source("winequality-red.csv", (11,), "quality dropped, 11 columns"),
    "white wine": Source("winequality-white.csv", (11,), "quality dropped, 11 columns"),
    "ionosphere": Source("ionosphere.csv", (0, 1, 34), "the two discrete columns and the class dropped, 32 columns"),
    "boston housing": Source(
        "housing.csv", (1, 3, 8, 9), "ZN, CHAS, RAD and TAX dropped, 10 columns; the paper names no choice"
    ),
}


def read(folder: Path, name: str) -> np.ndarray:
    """Read a table without header and drop columns, (N, D) float32."""
    with (folder / "continuous" / SOURCES[name].file).open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    kept = [i for i in range(len(rows[0])) if i not in SOURCES[name].dropped]
    return np.array([[float(row[i]) for i in kept] for row in rows])


def make(family: str, width: int) -> AutoregressiveModel:
    """Make a model with mixture-of-Gaussian conditionals."""
    head = MixtureOfNormals(10, min_scale=1e-2)
    if family == "RNADE-MoG":
        return NADE((width,), head, hidden_features=100, activation="relu")
    return MADE((width,), head, hidden_features=(100, 100), dropout=0.1)


def config(num_rows: int) -> TrainConfig:
    """Return the settings, the same for all sets: about 4,000 steps, stopped where the validation stops."""
    epochs = max(30, 4000 * 100 // num_rows)
    return TrainConfig(
        epochs=epochs,
        batch_size=100,
        learning_rate=2e-3,
        weight_decay=0.1,
        gradient_clip=5.0,
        ema_decay=0.99,
        patience=max(10, epochs // 6),
    )


def fold(x: np.ndarray, family: str, k: int) -> tuple[float, float]:
    """Train on eight folds, stop on one, score one: mean log p in nats of the last and of the validation fold."""
    parts = np.array_split(x, FOLDS)
    valid_index = (k + 1) % FOLDS
    rest = np.concatenate([part for i, part in enumerate(parts) if i not in (k, valid_index)])
    known = np.concatenate([rest, parts[valid_index]])
    mean, std = known.mean(0), known.std(0)
    train_rows, valid, test = (((p - mean) / std).astype(np.float32) for p in (rest, parts[valid_index], parts[k]))
    torch.manual_seed(k)
    model = make(family, x.shape[1])
    result = train(model, (train_rows, valid), config(len(train_rows)), progress=False)
    return float(model.score_samples(test).mean()), -float(result.valid_nats or np.nan)


def run(folder: Path, only: list[str]) -> None:
    """Measure all sets (or some) and print the table."""
    torch.set_num_threads(1)
    for name in only or SOURCES:
        x = read(folder, name)
        x = x[np.random.default_rng(0).permutation(len(x))]
        for family in ("RNADE-MoG", "MADE-MoG"):
            start = time.perf_counter()
            found = [fold(x, family, k) for k in range(FOLDS)]
            row: dict[str, Any] = {
                "test": [round(t, 4) for t, _ in found],
                "valid_mean": round(float(np.mean([v for _, v in found])), 4),
                "mean": round(float(np.mean([t for t, _ in found])), 4),
                "standard_error": round(float(np.std([t for t, _ in found], ddof=1) / np.sqrt(FOLDS)), 4),
                "columns": SOURCES[name].note,
                "rows": len(x),
                "seconds": round(time.perf_counter() - start),
                "provenance": provenance(),
            }
            store(RESULTS, {name: {**load_rows(RESULTS).get(name, {}), family: row}})
            print(f"{name}, {family}: {row['mean']:.3f} +- {row['standard_error']:.3f} nats", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    rows = []
    for name, families in load_rows(RESULTS).items():
        for family, r in families.items():
            rows.append([name, family, f"{r['mean']:.2f} ± {r['standard_error']:.2f}", r["rows"], r["columns"]])
    return table(["set", "model", "test log p, nats (10 folds, ± standard error)", "rows", "columns"], rows)
