"""bAbI question answering: one model of p(answer | story and question) for all tasks, accuracy per task.

A pair is a story with its question, and the answer; the answer given is the greedy one. The epoch is chosen on
validation rows, whole stories cut from the training rows; a run goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, store, table, told_time
from benchmarks.training import trained
from seriatim.data import Ragged, Sequences, load
from seriatim.data.named_sequences import BABI_TASKS
from seriatim.ending import Ending
from seriatim.heads import Tokens
from seriatim.layers.source import SourceEncoder
from seriatim.models.transformer import Transformer
from seriatim.tasks import beam_search
from seriatim.training import TrainConfig

TITLE = "Transformer: bAbI questions"
RESULTS = "transformer-babi"
ABOUT = (
    "One joint model of 18 tasks, v1.2, 10,000 training rows each (qa3: 1,000), of which the last tenth is for "
    "validation; joint byte pairs, learnt from the training rows; the encoder first sums the seven nearest "
    "tokens. Accuracy of the greedy answer on the 1,000 test rows "
    "of each task, the whole answer right; *unseen* leaves out test rows whose story and question occur among all "
    "training rows. *Majority* is the commonest answer in training. One thread of a shared machine. The published "
    "figures are of a model for each task; attention: an encoder and a decoder with attention, 10,000 training rows "
    "(Yu et al., 2015); MemN2N (Sukhbaatar et al., 2015) and LSTM (Weston et al., 2015): 1,000 rows."
)
TOKENS = 1000
NEAREST = 7  # tokens: about a sentence of a story
TARGETS = dict.fromkeys(("qa1", "qa6", "qa9", "qa10", "qa11", "qa13", "qa20"), 0.95)
# Accuracy, of a model for each task: an encoder and a decoder with attention, 10,000 training rows (Yu et al., 2015,
# arXiv:1510.07526, table 1, j); MemN2N, 3 hops, position encoding, 1,000 (Sukhbaatar et al., 2015); LSTM, 1,000
# (Weston et al., 2015). Blank: not looked up.
PUBLISHED: dict[str, tuple[float | str, float | str, float | str]] = {
    "qa1": (0.996, 0.999, 0.50),
    "qa2": (0.984, 0.784, 0.20),
    "qa3": (0.971, 0.358, 0.20),
    "qa4": (0.998, 0.962, 0.61),
    "qa6": (0.789, 0.921, 0.48),
    "qa7": (0.937, 0.784, 0.49),
    "qa8": (0.552, 0.874, 0.45),
    "qa9": (0.866, 0.767, 0.64),
    "qa10": (0.795, 0.826, 0.44),
    "qa11": (0.979, 0.957, 0.62),
    "qa13": ("", 0.901, 0.94),
    "qa14": ("", 0.982, 0.27),
    "qa15": ("", 1.0, 0.21),
    "qa16": ("", 0.479, 0.23),
    "qa17": ("", 0.499, 0.51),
    "qa18": ("", 0.864, ""),
    "qa19": ("", 0.126, ""),
    "qa20": ("", 1.0, ""),
}


class Entry(NamedTuple):
    """A row: the sizes, the rate of dropout, how it is trained; the encoder first sums the nearest tokens."""

    sizes: dict[str, Any]
    dropout: float
    config: TrainConfig


def config(epochs: int, **changes: Any) -> TrainConfig:
    """Return the settings that all entries share, and those given."""
    shared: dict[str, Any] = {"batch_values": 2000, "learning_rate": 2e-3, "warmup_steps": 1000, "weight_decay": 1e-3}
    shared |= {"gradient_clip": 10.0, "ema_decay": 0.998}
    return TrainConfig(epochs=epochs, **{**shared, **changes})


SMALL: dict[str, Any] = {"hidden_features": 64, "num_layers": 3, "num_heads": 4, "feedforward_features": 128}
LARGE: dict[str, Any] = {"hidden_features": 256, "num_layers": 4, "num_heads": 8, "feedforward_features": 512}
ENTRIES = {
    "cpu": Entry(SMALL, 0.0, config(18)),
    "cuda": Entry(LARGE, 0.1, config(30, batch_values=16000, learning_rate=1e-3, device="cuda")),
}


def model_of(entry: Entry, data: Sequences) -> Transformer:
    """Return the model of an entry with its first weights."""
    torch.manual_seed(entry.config.seed)
    shared = {"dropout": entry.dropout, "norm": "pre"}
    size = entry.sizes["hidden_features"]
    inner = {name: value for name, value in entry.sizes.items() if name != "hidden_features"}
    assert data.codec is not None
    encoder = SourceEncoder(data.codec.levels, size, **inner, **shared, kernel_size=NEAREST)
    longest = int(max(own.lengths.max() for own in data.splits.values())) + 1
    head = Ending(Tokens(data.codec.levels))
    return Transformer((longest,), head, hidden_features=size, **inner, **shared, encoder=encoder)


def read(folder: Path, tasks: list[str]) -> Sequences:
    """Return the pairs of some tasks."""
    data = load("babi", data_dir=folder, tokens=f"bpe:{TOKENS}", joint=True)
    assert isinstance(data, Sequences)
    return data


def padded(sources: Ragged, rows: np.ndarray) -> torch.Tensor:
    """Return some sources, padded with -1."""
    own = [sources[int(row)] for row in rows]
    table = np.full((len(own), max(map(len, own))), -1, dtype=np.int64)
    for row, values in enumerate(own):
        table[row, : len(values)] = values
    return torch.from_numpy(table)


def answered(model: Transformer, data: Sequences, split: str) -> np.ndarray:
    """Return which of a split's questions the greedy answer meets, (N,) bool."""
    assert data.sources is not None
    sources, targets = data.sources[split], data.splits[split]
    right = np.zeros(len(targets), dtype=bool)
    order = np.argsort(sources.lengths, kind="stable")
    for rows in np.array_split(order, max(1, len(order) // 64)):
        found = beam_search(model, padded(sources, rows), num_beams=1)
        for row, own in zip(rows, found, strict=True):
            right[row] = bool(own) and np.array_equal(own[0].values.cpu().numpy(), targets[int(row)])
    return right


def majority(data: Sequences, number: int) -> float:
    """Return the test accuracy of a task's commonest training answer."""
    assert data.labels is not None
    answers = {
        split: [
            own.tobytes()
            for own, label in zip(data.splits[split], data.labels[split][:, 0], strict=True)
            if label == number
        ]
        for split in ("train", "test")
    }
    names, counts = np.unique(np.array(answers["train"], dtype=object), return_counts=True)
    return float(np.mean([answer == names[counts.argmax()] for answer in answers["test"]]))


def seen(data: Sequences) -> np.ndarray:
    """Return which test rows have a source that occurs in train or valid, (N,) bool."""
    assert data.sources is not None
    known = {own.tobytes() for split in ("train", "valid") for own in data.sources[split]}
    return np.array([own.tobytes() in known for own in data.sources["test"]])


def measure(folder: Path, device: str, entry: Entry) -> dict[str, Any]:
    """Train (or go on training) the joint model, and answer the questions of every task."""
    tasks = list(BABI_TASKS)
    data = read(folder, tasks)
    assert data.labels is not None
    model, where = model_of(entry, data), WORK / RESULTS / device
    result, facts = trained(model, data, entry.config, where)
    model.to(device)
    right = {split: answered(model, data, split) for split in ("valid", "test")}
    copies, of_test, of_valid = seen(data), data.labels["test"][:, 0], data.labels["valid"][:, 0]
    accuracy = {}
    for number, task in enumerate(tasks):
        own = right["test"][of_test == number]
        accuracy[task] = {
            "test": round(float(own.mean()), 4),
            "unseen": round(float(own[~copies[of_test == number]].mean()), 4),
            "overlap": int(copies[of_test == number].sum()),
            "valid": round(float(right["valid"][of_valid == number].mean()), 4),
            "majority": round(majority(data, number), 4),
        }
    return {
        "tasks": accuracy,
        "test_accuracy": round(float(right["test"].mean()), 4),
        "valid_nats": None if result.valid_nats is None else round(result.valid_nats, 4),
        "sizes": entry.sizes,
        **facts,
    }


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure the model of a device and print the table."""
    torch.set_num_threads(threads)
    if device not in load_rows(RESULTS):
        row = measure(folder, device, ENTRIES[device])
        store(RESULTS, {device: row})
        print(f"{device}: {row['test_accuracy']:.4f} of all test questions, {row['cpu_seconds']} s", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    stored, rows, facts = load_rows(RESULTS), [], []
    for device in ENTRIES:
        if (row := stored.get(device)) is None:
            facts.append(f"{device}: not run.")
            continue
        facts.append(
            f"{device}: {row['test_accuracy']:.1%} of all test questions; {row['parameters']:,} parameters, "
            f"{told_time(row, device)}, the best {row['best_epoch']}."
        )
    for task, name in BABI_TASKS.items():
        cells = []
        for device in ENTRIES:
            own = stored.get(device, {}).get("tasks", {}).get(task)
            cells += ["not run", ""] if own is None else [f"{own['test']:.3f}", f"{own['unseen']:.3f}"]
        known = next((row["tasks"][task] for row in stored.values() if task in row["tasks"]), None)
        about = ["", ""] if known is None else [known["overlap"], f"{known['majority']:.3f}"]
        rows.append([f"{task} {name}", *cells, *about, TARGETS.get(task, ""), *PUBLISHED[task]])
    header = ["task", *(f"{device}{what}" for device in ENTRIES for what in ("", ", unseen"))]
    header += ["overlap of 1,000", "majority", "target", "attention", "MemN2N", "LSTM"]
    return table(header, rows) + "\n\n" + " ".join(facts)
