"""Tiny Shakespeare, characters: a decoder by itself, beside the recurrent models of the same budget.

Training reads windows cut at random. The validation text, the last tenth, is scored in windows that overlap: each
character is given at least `SEEN` characters before it, but those at the beginning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, store, table, told_time
from benchmarks.sequences import text as recurrent
from benchmarks.training import trained
from seriatim.data import Ragged
from seriatim.data.codecs import Characters
from seriatim.heads import Categorical
from seriatim.models import Transformer
from seriatim.training import SequenceData, TrainConfig

TITLE = "Transformer: tiny Shakespeare"
RESULTS = "transformer-shakespeare"
WINDOW, SEEN = 256, 128
ABOUT = (
    "65 characters; the first 90 % for training, the last 10 % for validation, which also chose the epoch. Nats per "
    f"character of the whole validation text, read in windows of {WINDOW} characters that overlap: each is predicted "
    f"from {SEEN} or more before it. The rows of other models are those of the table of texts: read once from the "
    "first character, 20 minutes of one core. Minutes are of one core, or of a GPU. nanoGPT (A. Karpathy, its "
    "README): 1.4697 for 10.65 million parameters on a GPU, 1.88 for 0.80 million on a CPU."
)


class Entry(NamedTuple):
    """A row of the table: the sizes, the dropout, how it is trained, the target in nats."""

    sizes: dict[str, Any]
    dropout: float
    config: TrainConfig
    target: float


def config(epochs: int, learning_rate: float, **changes: Any) -> TrainConfig:
    """Return the settings that all rows share, and those given."""
    shared: dict[str, Any] = {"batch_size": 16, "chunk_length": WINDOW, "carry_state": False, "gradient_clip": 1.0}
    shared |= {"weight_decay": 0.1, "warmup_steps": 100, "ema_decay": 0.995}
    return TrainConfig(epochs=epochs, learning_rate=learning_rate, **{**shared, **changes})


SMALL: dict[str, Any] = {"hidden_features": 128, "num_layers": 4, "num_heads": 4}
LARGE: dict[str, Any] = {"hidden_features": 384, "num_layers": 6, "num_heads": 6}
ENTRIES = {
    "cpu": Entry(SMALL, 0.0, config(8, 3e-3, batch_size=8), 1.60),
    "cuda": Entry(LARGE, 0.2, config(20, 1e-3, batch_size=64, device="cuda"), 1.47),
}


def model_of(entry: Entry, symbols: int) -> Transformer:
    """Return the model of an entry with its first weights."""
    torch.manual_seed(entry.config.seed)
    shared: dict[str, Any] = {"dropout": entry.dropout, "norm": "pre", "activation": "gelu", "positions": "rotary"}
    return Transformer((WINDOW,), Categorical(symbols), **entry.sizes, **shared)


@torch.no_grad()
def overlapping_nats(model: Transformer, text: np.ndarray, batch_size: int = 32) -> float:
    """Return nats per character of a text (T,), each predicted from `SEEN` characters or more, where there are."""
    device = model.device
    x = torch.from_numpy(text.astype(np.int64))
    starts = torch.arange(0, max(1, len(x) - SEEN), WINDOW - SEEN)
    total = 0.0
    was_training = model.training
    model.eval()
    for part in starts.split(batch_size):
        # The last window is moved back, so that all are of one length; what it repeats is not counted.
        first = (part.clamp(max=max(0, len(x) - WINDOW)))[:, None]
        place = torch.arange(min(WINDOW, len(x)))
        terms = model(length=len(place)).log_prob_terms(x[first + place].to(device)).double().cpu()
        counted = (first + place >= part[:, None] + SEEN) | (part[:, None] == 0)
        total -= float(torch.where(counted, terms, 0).sum())
    model.train(was_training)
    return total / len(x)


def measure(data: tuple[Ragged, Ragged, Characters], device: str, entry: Entry) -> dict[str, Any]:
    """Train (or go on training) one entry and score the validation text."""
    training, valid, codec = data
    model, folder = model_of(entry, codec.levels), WORK / RESULTS / device
    rows = SequenceData(training, valid, ends=False, unit=codec.unit, codec=codec)
    result, facts = trained(model, rows, entry.config, folder)
    model.to(device)
    nats = overlapping_nats(model, valid[0])
    text = codec.decode(model(length=600).sample((1,), seed=1)[0].cpu().numpy())
    return {
        "valid_nats": round(nats, 4),
        "window_nats": None if result.valid_nats is None else round(result.valid_nats, 4),
        "sample": text,
        "sizes": entry.sizes,
        **facts,
    }


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure the row of a device and print the table."""
    torch.set_num_threads(threads)
    if device not in load_rows(RESULTS):
        row = measure(recurrent.read(folder), device, ENTRIES[device])
        store(RESULTS, {device: row})
        print(f"{device}: {row['valid_nats']:.4f} nats per character, {row['cpu_seconds']} s", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored, those of the recurrent models among it, and what the best model writes."""
    stored, rows = load_rows(RESULTS), []
    for device, entry in ENTRIES.items():
        row = stored.get(device)
        size = "{num_layers} layers x {hidden_features}".format(**entry.sizes)
        if row is None:
            rows.append([f"Transformer, {size}", device, "not run", "", "", entry.target])
            continue
        cells = [f"Transformer, {size}", device, f"{row['valid_nats']:.3f}", f"{row['parameters']:,}"]
        rows.append([*cells, told_time(row, device), entry.target])
    for name, row in load_rows(recurrent.RESULTS).items():
        cells = [name, "cpu", f"{row['valid_nats']:.3f}", f"{row['parameters']:,}"]
        rows.append([*cells, told_time(row), ""])
    shown = table(["model", "device", "nats per character", "parameters", "time", "target"], rows)
    if not stored:
        return shown
    best = min(stored, key=lambda device: stored[device]["valid_nats"])
    lines = "\n".join("    " + line for line in stored[best]["sample"].splitlines())
    return f"{shown}\n\nWhat the Transformer writes ({best}, seed 1, temperature 1):\n\n{lines}"
