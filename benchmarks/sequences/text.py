"""Tiny Shakespeare, characters: validation -log p in nats per character, within twenty minutes of one core each.

The text is read in 32 lanes whose states go from step to step. The validation text, the last tenth, is scored whole, as
one sequence from its first character, with the weights of the best epoch.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.common import WORK, load_rows, store, table, told_time
from benchmarks.training import trained
from seriatim.data import Ragged
from seriatim.data.codecs import Characters
from seriatim.heads import Categorical
from seriatim.model import AutoregressiveModel
from seriatim.models import GRU, LSTM, RNN, WaveNet
from seriatim.tasks import surprise
from seriatim.training import SequenceData, TrainConfig

TITLE = "Text: tiny Shakespeare"
RESULTS = "sequences-text"
ABOUT = (
    "1,115,394 characters, 65 distinct; the first 90 % for training, the last 10 % for validation, which also chose "
    "the epoch, as in the published figures. Nats per character of the whole validation text, read once from its first "
    "character. Seconds are of one core. nanoGPT (A. Karpathy, its README): 1.4697 for 10.65 million parameters on a "
    "GPU, 1.88 for 0.80 million on a CPU."
)
MINUTES = 20


class Entry(NamedTuple):
    """A row of the table: what makes the model, how it is trained, the target in nats."""

    make: Callable[[int], AutoregressiveModel]
    config: TrainConfig
    target: float | None = None


def config(epochs: int, learning_rate: float, **changes: Any) -> TrainConfig:
    """Return the settings that all rows share, and those given."""
    shared: dict[str, Any] = {"batch_size": 32, "chunk_length": 128, "gradient_clip": 1.0, "weight_decay": 0.01}
    return TrainConfig(epochs=epochs, learning_rate=learning_rate, ema_decay=0.995, **{**shared, **changes})


def _wavenet(symbols: int) -> AutoregressiveModel:
    sizes = {"residual_features": 128, "gate_features": 128, "skip_features": 256}
    return WaveNet((256,), Categorical(symbols), num_blocks=2, layers_per_block=6, **sizes)


ENTRIES = {
    "LSTM 512": Entry(lambda k: LSTM((256,), Categorical(k), hidden_features=512, dropout=0.3), config(9, 3e-3), 1.60),
    "GRU 512": Entry(lambda k: GRU((256,), Categorical(k), hidden_features=512, dropout=0.3), config(10, 2e-3), 1.60),
    "RNN 512": Entry(lambda k: RNN((256,), Categorical(k), hidden_features=512, dropout=0.1), config(16, 5e-4)),
    "WaveNet 2x6x128": Entry(_wavenet, config(8, 2e-3, precision="bf16-mixed")),
}


def read(folder: Path) -> tuple[Ragged, Ragged, Characters]:
    """Return the training and validation text, a stream each, and the codec."""
    with gzip.open(folder / "text" / "tinyshakespeare.txt.gz", "rt", encoding="utf8") as file:
        text = file.read()
    codec = Characters(symbols="".join(sorted(set(text))))
    values, cut = codec.encode(text), int(0.9 * len(text))
    return Ragged(values[:cut]), Ragged(values[cut:]), codec


def measure(data: tuple[Ragged, Ragged, Characters], name: str, entry: Entry) -> dict[str, Any]:
    """Train (or go on training) one entry and score the validation text."""
    training, valid, codec = data
    torch.manual_seed(entry.config.seed)
    model = entry.make(codec.levels)
    folder = WORK / RESULTS / name.replace(" ", "_")
    rows = SequenceData(training, valid, ends=False, unit=codec.unit, codec=codec)
    _, facts = trained(model, rows, entry.config, folder)
    found = surprise(model, list(valid))
    text = codec.decode(model(length=600).sample((1,), seed=1)[0].numpy())
    return {
        "valid_nats": round(found.nats, 4),
        "interval": [round(end, 4) for end in found.interval],
        "sample": text,
        **facts,
    }


def run(folder: Path, only: list[str]) -> None:
    """Measure all entries (or some) and print the table."""
    torch.set_num_threads(1)
    data = read(folder)
    for name in only or ENTRIES:
        if name not in load_rows(RESULTS):
            row = measure(data, name, ENTRIES[name])
            store(RESULTS, {name: row})
            print(f"{name}: {row['valid_nats']:.4f} nats per character, {row['cpu_seconds']} s", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored, and what the best model writes."""
    stored, rows = load_rows(RESULTS), []
    for name, entry in ENTRIES.items():
        row, target = stored.get(name), entry.target or ""
        if row is None:
            rows.append([name, "not run", "", "", "", target])
            continue
        low, high = row["interval"]
        cells = [name, f"{row['valid_nats']:.3f}", f"{low:.3f} to {high:.3f}", f"{row['parameters']:,}"]
        rows.append([*cells, told_time(row), target])
    header = ["model", "nats per character", "95 % interval", "parameters", "core time", "target"]
    shown = table(header, rows)
    if not stored:
        return shown
    best = min(stored, key=lambda name: stored[name]["valid_nats"])
    lines = "\n".join("    " + line for line in stored[best]["sample"].splitlines())
    return f"{shown}\n\nWhat the {best} writes (seed 1, temperature 1):\n\n{lines}"
