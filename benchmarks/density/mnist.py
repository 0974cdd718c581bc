"""Table 4: fixed binarised MNIST (Larochelle's split 50,000 / 10,000 / 10,000), mean test -log p in nats.

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
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, NADE, OrderAgnosticMADE
from seriatim.training import TrainConfig, train

TITLE = "Fixed binarised MNIST"
RESULTS = "density-mnist"
ABOUT = (
    "Larochelle's fixed binarisation, 50,000 / 10,000 / 10,000 rows; test -log p in nats of the weights of the best "
    "validation epoch, the whole test split scored once. An ensemble over orders averages joint probabilities. "
    "Of the rows of FVSBN the one best on validation counts; L1 is a Laplace prior on its weights."
)
D = 784


class Entry(NamedTuple):
    """A row of the table: the model, how it is trained, over how many orders it is scored, the target."""

    make: Callable[[], AutoregressiveModel]
    config: TrainConfig
    orders: tuple[int, ...] = ()
    target: float | None = None


ENTRIES = {
    "FVSBN": Entry(
        lambda: FVSBN((D,)),
        TrainConfig(epochs=30, learning_rate=3e-3, weight_decay=0.003, ema_decay=0.999, gradient_clip=10.0),
        target=97.45,
    ),
    **{
        f"FVSBN, L1 {l1:g}": Entry(
            lambda: FVSBN((D,)),
            TrainConfig(epochs=30, learning_rate=5e-3, weight_decay=0, l1=l1, ema_decay=0.999),
            target=97.45,
        )
        for l1 in (5e-5, 1e-4, 2e-4)
    },
    "NADE 500, ReLU": Entry(
        lambda: NADE((D,), hidden_features=500, activation="relu"),
        TrainConfig(epochs=16, learning_rate=2e-3, weight_decay=0.01, ema_decay=0.999, gradient_clip=10.0),
        target=88.9,
    ),
    "MADE 3x1000 residual, dropout": Entry(
        lambda: MADE((D,), hidden_features=(1000, 1000, 1000), residual=True, dropout=0.3),
        TrainConfig(epochs=60, learning_rate=1e-3, weight_decay=0.01, ema_decay=0.999, gradient_clip=10.0),
    ),
    "order-agnostic MADE 3x1000 residual": Entry(
        lambda: OrderAgnosticMADE((D,), hidden_features=(1000, 1000, 1000), residual=True, dropout=0.1),
        TrainConfig(epochs=60, learning_rate=1e-3, weight_decay=0.01, ema_decay=0.999, gradient_clip=10.0),
        orders=(1, 8, 32),
    ),
}


@torch.no_grad()
def scores(model: AutoregressiveModel, x: np.ndarray, num_orders: int | None = None) -> np.ndarray:
    """Return -log p of every row in nats, (N,)."""
    joint = model() if num_orders is None else model.ensemble(num_orders)
    return np.concatenate([-joint.log_prob(part).numpy() for part in torch.from_numpy(x).split(500)])


def interval(values: np.ndarray, seed: int = 0) -> list[float]:
    """Return the 95 % bootstrap interval of a mean over rows."""
    generator = np.random.default_rng(seed)
    means = [values[generator.integers(0, len(values), len(values))].mean() for _ in range(1000)]
    return [round(float(q), 3) for q in np.quantile(means, [0.025, 0.975])]


def measure(data: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """Train (or go on training) one entry and score its test split."""
    entry = ENTRIES[name]
    folder = WORK / "mnist" / name.replace(" ", "_").replace(",", "")
    torch.manual_seed(entry.config.seed)
    model = entry.make()
    start = time.perf_counter()
    result = train(
        model, (data["train"], data["valid"]), entry.config, folder, resume=(folder / "config.yaml").exists()
    )
    row: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "valid_nats": round(float(result.valid_nats or np.nan), 3),
        "train_seconds": round(result.seconds),
        "wall_seconds": round(time.perf_counter() - start),
        "config": entry.config.model_dump(mode="json"),
        "seed": entry.config.seed,
        "model": model.config,
    }
    for orders in entry.orders or (None,):
        nats = scores(model, data["test"], orders)
        key = "test_nats" if orders is None else f"test_nats_{orders}_orders"
        row[key], row[f"{key}_interval"] = round(float(nats.mean()), 3), interval(nats)
    return row


def run(folder: Path, only: list[str]) -> None:
    """Measure all entries (or some) and print the table."""
    torch.set_num_threads(1)
    data = unpacked(folder, "images/binarized_mnist.npz")
    for name in only or ENTRIES:
        row = measure(data, name)
        store(RESULTS, {name: {**row, "provenance": provenance()}})
        print(render(), flush=True)


def render() -> str:
    """Return the table of what is stored."""
    rows = []
    for name, entry in ENTRIES.items():
        stored = load_rows(RESULTS).get(name)
        if stored is None:
            rows.append([name, "not run", "", "", "", entry.target or ""])
            continue
        for orders in entry.orders or (None,):
            key = "test_nats" if orders is None else f"test_nats_{orders}_orders"
            label = name if orders is None else f"{name}, {orders} {'order' if orders == 1 else 'orders'}"
            low, high = stored[f"{key}_interval"]
            cells = [label, f"{stored[key]:.2f}", f"{low:.2f} to {high:.2f}", f"{stored['valid_nats']:.2f}"]
            rows.append(
                [*cells, f"{stored['train_seconds'] / 60:.0f} min, {stored['epochs']} epochs", entry.target or ""]
            )
    return table(["model", "test nats", "95 % interval", "valid nats", "training, 1 thread", "target"], rows)
