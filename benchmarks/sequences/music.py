"""Polyphonic music: piano rolls of 88 notes, test -log p in nats per time step.

Notes independent of one another given the past (`Independent`), as in the published figures of LSTM and TCN, and an
autoregressive model inside the chord (`Nested`), as in RNN-NADE. Training pieces are repeated in other keys, moved by
up to six semitones where all notes stay on the keyboard. Runs go on where they stopped; the model is the one of the
best validation epoch, and the test split is scored once, piece by piece from its first step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, provenance, store, table
from seriatim.context import Vector
from seriatim.data.sequences import Ragged
from seriatim.ending import Ending
from seriatim.heads import Bernoulli, Head
from seriatim.independent import Independent
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, MADE, NADE, Transformer, WaveNet
from seriatim.nested import Nested
from seriatim.tasks import Surprise, surprise
from seriatim.training import SequenceData, TrainConfig, train

TITLE = "Music"
RESULTS = "sequences-music"
ABOUT = (
    "Piano rolls of 88 notes, splits of Boulanger-Lewandowski et al. (2012). Test -log p in nats per time step: sums "
    "over all steps of all pieces by their number. The published code of LSTM and TCN does not score the first step "
    "of a piece, hence the column without it. Where pieces end is modelled and stands apart, in nats a piece. Training "
    "pieces are repeated in other keys. One thread of a shared machine."
)
NOTES = 88
SETS = {"jsb": "jsb_chorales", "nottingham": "nottingham", "piano": "piano_midi"}
# Nats per step: LSTM and TCN, of independent notes, in Bai, Kolter, Koltun (2018), table 1; RNN-NADE in
# Boulanger-Lewandowski, Bengio, Vincent (2012), table 1.
PUBLISHED = {
    "jsb": "LSTM 8.45, TCN 8.10; RNN-NADE 5.56",
    "nottingham": "LSTM 3.29, TCN 3.07; RNN-NADE 2.31",
    "piano": "RNN-NADE 7.05",
}
TARGETS = {
    ("jsb", "LSTM, independent"): 8.45,
    ("nottingham", "LSTM, independent"): 3.29,
    ("jsb", "WaveNet, independent"): 8.10,
    ("nottingham", "WaveNet, independent"): 3.07,
    ("jsb", "LSTM, MADE"): 5.6,
    ("nottingham", "LSTM, MADE"): 2.4,
    ("jsb", "LSTM, NADE"): 5.6,
    ("nottingham", "LSTM, NADE"): 2.4,
}


class Sizes(NamedTuple):
    """What differs between the sets: units, dropout, keys on each side, epochs, pieces or values a step."""

    units: int
    dropout: float
    keys: int
    epochs: int
    chunk: int | None = None
    batch: int = 16


SIZES = {
    "jsb": Sizes(256, 0.5, 5, 24),
    "nottingham": Sizes(256, 0.3, 2, 10, chunk=200),
    "piano": Sizes(256, 0.4, 3, 12, chunk=200),
}
# Dropout lets the convolutions learn for longer; ten epochs leave independent notes of Nottingham unfinished.
EPOCHS = {
    ("jsb", "WaveNet, independent"): 48,
    ("nottingham", "LSTM, independent"): 30,
    ("nottingham", "WaveNet, independent"): 30,
}


def independent() -> Head:
    """Return the head of notes that know the past only."""
    return Independent(Bernoulli(), (NOTES,))


def made(features: int = 128) -> Head:
    """Return a chord whose notes know those before them, by a masked autoencoder."""
    return Nested(MADE((NOTES,), hidden_features=(256,), encoder=Vector(features)))


def nade(features: int = 128) -> Head:
    """Return the same by a NADE."""
    return Nested(NADE((NOTES,), hidden_features=100, encoder=Vector(features)))


def lstm(head: Callable[[], Head]) -> Callable[[Sizes], AutoregressiveModel]:
    """Return what makes an LSTM over time."""
    return lambda sizes: LSTM((100,), Ending(head()), hidden_features=sizes.units, dropout=sizes.dropout)


def wavenet(head: Callable[[], Head]) -> Callable[[Sizes], AutoregressiveModel]:
    """Return what makes dilated convolutions over time."""
    shape = {"residual_features": 96, "gate_features": 96, "skip_features": 192}
    return lambda sizes: WaveNet((100,), Ending(head()), num_blocks=1, layers_per_block=5, dropout=0.3, **shape)


def transformer(head: Callable[[], Head]) -> Callable[[Sizes], AutoregressiveModel]:
    """Return what makes a decoder over time, by itself."""
    shape: dict[str, Any] = {"hidden_features": 128, "num_layers": 2, "num_heads": 4, "positions": "rotary"}
    return lambda sizes: Transformer((100,), Ending(head()), norm="pre", dropout=min(0.3, sizes.dropout), **shape)


MODELS: dict[str, Callable[[Sizes], AutoregressiveModel]] = {
    "LSTM, independent": lstm(independent),
    "WaveNet, independent": wavenet(independent),
    "LSTM, MADE": lstm(made),
    "LSTM, NADE": lstm(nade),
    "Transformer, MADE": transformer(made),
}


def read(folder: Path, name: str) -> dict[str, Ragged]:
    """Return the pieces of the three splits."""
    with np.load(folder / "music" / f"{SETS[name]}.npz", allow_pickle=False) as file:
        return {
            split: Ragged(np.unpackbits(file[split], axis=1, count=NOTES), file[f"{split}_len"])
            for split in ("train", "valid", "test")
        }


def transposed(pieces: Ragged, keys: int) -> Ragged:
    """Return pieces with copies of them in other keys, up and down so many semitones.

    Example:
        >>> transposed(Ragged(np.eye(4, 88, k=40, dtype=np.uint8), [4]), 1).lengths.tolist()
        [4, 4, 4]
    """
    found = []
    for piece in pieces:
        played = np.flatnonzero(piece.any(0))
        low, high = (int(played.min()), NOTES - 1 - int(played.max())) if len(played) else (0, 0)
        found += [np.roll(piece, shift, axis=1) for shift in range(-min(keys, low), min(keys, high) + 1)]
    return Ragged.of(found)


def measure(data: dict[str, Ragged], name: str, label: str, sizes: Sizes) -> dict[str, Any]:
    """Train (or go on training) one model on one set and score its test pieces."""
    settings = TrainConfig(
        epochs=EPOCHS.get((name, label), sizes.epochs),
        batch_size=sizes.batch,
        chunk_length=sizes.chunk,
        learning_rate=2e-3,
        weight_decay=0.01,
        gradient_clip=1.0,
        ema_decay=0.99,
        patience=5,
    )
    torch.manual_seed(settings.seed)
    model = MODELS[label](sizes)
    folder = WORK / RESULTS / f"{name}_{label.replace(', ', '_')}"
    rows = SequenceData(transposed(data["train"], sizes.keys), data["valid"], ends=True)
    start = time.perf_counter()
    result = train(model, rows, settings, folder, resume=(folder / "config.yaml").exists())
    test = surprise(model, list(data["test"]))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "train_seconds": round(result.seconds),
        "wall_seconds": round(time.perf_counter() - start),
        "valid_nats": round(surprise(model, list(data["valid"])).nats, 3),
        "test_nats": round(test.nats, 3),
        "interval": [round(end, 3) for end in test.interval],
        "test_nats_without_first": round(after_first(test), 3),
        "end_nats": round(test.end_nats or 0.0, 3),
        "config": settings.model_dump(mode="json"),
        "sizes": sizes._asdict(),
        "seed": settings.seed,
        "provenance": provenance(),
    }


def after_first(found: Surprise) -> float:
    """Return nats per step when the first step of each piece is left out."""
    return -float(sum(own[1:].sum(dtype=np.float64) for own in found.values)) / int((found.lengths - 1).sum())


def run(folder: Path, only: list[str]) -> None:
    """Measure all models on all sets (or on some) and print the table."""
    torch.set_num_threads(1)
    names = [name for name in SETS if not only or name in only or not set(only) & set(SETS)]
    labels = [label for label in MODELS if not only or label in only or not set(only) & set(MODELS)]
    for name in names:
        data = read(folder, name)
        for label in labels:
            if label not in load_rows(RESULTS).get(name, {}):
                row = measure(data, name, label, SIZES[name])
                store(RESULTS, {name: {**load_rows(RESULTS).get(name, {}), label: row}})
                print(f"{name}, {label}: test {row['test_nats']:.3f} nats per step", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    stored, rows = load_rows(RESULTS), []
    for name in SETS:
        for label in MODELS:
            row, target = stored.get(name, {}).get(label), TARGETS.get((name, label), "")
            if row is None:
                rows.append([SETS[name], label, "not run", "", "", "", "", "", target, PUBLISHED[name]])
                continue
            low, high = row["interval"]
            cells = [SETS[name], label, f"{row['test_nats']:.2f}", f"{low:.2f} to {high:.2f}"]
            cells += [f"{row['test_nats_without_first']:.2f}", f"{row['valid_nats']:.2f}", f"{row['end_nats']:.1f}"]
            training = f"{row['train_seconds'] / 60:.0f} min, {row['epochs']} epochs, {row['parameters']:,} parameters"
            rows.append([*cells, training, target, PUBLISHED[name]])
    header = ["set", "model", "nats per step", "95 % interval", "without first steps", "valid", "end, nats a piece"]
    return table([*header, "training", "target", "published"], rows)
