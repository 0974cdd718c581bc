"""Spoken digits (FSDD, 8 kHz): bits per sample of WaveNet and LSTM, against coders; and what they say.

The official split: takes 0 to 4 of every speaker and digit for the test; takes 5 to 9 for validation. Clips are whole
sequences: training reads them in parts of 4,000 samples whose states go on. Runs go on where they stopped.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, provenance, store, table, told_time
from benchmarks.training import trained
from seriatim.context import Attributes
from seriatim.data import Ragged, Sequences
from seriatim.data.codecs import MuLaw, Pcm
from seriatim.heads import Categorical, Head, QuantizedMixtureOfLogistics
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, WaveNet
from seriatim.tasks import surprise
from seriatim.training import SequenceData, TrainConfig

TITLE = "Sound: spoken digits"
RESULTS = "sequences-audio"
ABOUT = (
    "Free Spoken Digit Dataset, 8 kHz, six speakers; test takes 0 to 4 (300 clips), validation takes 5 to 9 (300), "
    "training the other 2,400. Models know digit and speaker (5.9 bits a clip). mu-law: 256 levels of ITU-T "
    "G.711's law; xz is that of the same levels, all test clips end to end. 16 bits: FLAC at its best level, a "
    "file for each clip, container left in. One thread of a shared machine; seconds are of one core."
)
RATE = 8000
SHAPE = (RATE,)
COMPLEXITY = 1.0  # FLAC's compression level in soundfile, 0 to 1


class Entry(NamedTuple):
    """A row of the table: what makes the model of an encoder, the values, how it is trained."""

    make: Callable[[Attributes], AutoregressiveModel]
    encoding: str
    config: TrainConfig


def config(epochs: int, **changes: Any) -> TrainConfig:
    """Return the settings that all rows share, and those given."""
    shared: dict[str, Any] = {"batch_size": 6, "chunk_length": 4000, "gradient_clip": 1.0, "weight_decay": 1e-4}
    shared |= {"learning_rate": 2e-3, "ema_decay": 0.998}
    return TrainConfig(epochs=epochs, **{**shared, **changes})


def _head(encoding: str) -> Head:
    return Categorical(256) if encoding == "mu-law" else QuantizedMixtureOfLogistics(1 << 16, num_components=10)


def _wavenet(encoder: Attributes, *, encoding: str, blocks: int, layers: int) -> AutoregressiveModel:
    sizes = {"residual_features": 32, "gate_features": 32, "skip_features": 128}
    return WaveNet(SHAPE, _head(encoding), num_blocks=blocks, layers_per_block=layers, encoder=encoder, **sizes)


def _lstm(encoder: Attributes, *, hidden_features: int) -> AutoregressiveModel:
    return LSTM(SHAPE, _head("mu-law"), hidden_features=hidden_features, encoder=encoder)


ENTRIES = {
    "WaveNet 2x9x32": Entry(partial(_wavenet, encoding="mu-law", blocks=2, layers=9), "mu-law", config(3)),
    "18 convolutions x 32, undilated": Entry(
        partial(_wavenet, encoding="mu-law", blocks=18, layers=1), "mu-law", config(3)
    ),
    "LSTM 128": Entry(partial(_lstm, hidden_features=128), "mu-law", config(3, chunk_length=1000, batch_size=24)),
    "WaveNet 2x9x32, 16 bits": Entry(partial(_wavenet, encoding="16-bit", blocks=2, layers=9), "16-bit", config(3)),
}


def codec_of(encoding: str) -> MuLaw | Pcm:
    """Return the codec of an encoding."""
    return MuLaw(rate=RATE) if encoding == "mu-law" else Pcm(rate=RATE)


def read(folder: Path, encoding: str) -> Sequences:
    """Return the clips with their digits and speakers."""
    with np.load(folder / "audio" / "fsdd.npz", allow_pickle=False) as file:
        samples, offsets, digit, take = (file[key] for key in ("samples", "offsets", "digit", "take"))
        speaker, speakers = file["speaker"], [str(name) for name in file["speakers"]]
    codec = codec_of(encoding)
    clips = Ragged(codec.encode(samples / 32768.0), np.diff(offsets))
    which = {"train": take >= 10, "valid": (take >= 5) & (take < 10), "test": take < 5}
    rows = {split: np.flatnonzero(own) for split, own in which.items()}
    labels = {split: np.stack([digit[own], speaker[own]], 1).astype(np.int64) for split, own in rows.items()}
    return Sequences(
        "fsdd",
        *(clips.take(rows[split]) for split in ("train", "valid", "test")),
        kind="categorical" if encoding == "mu-law" else "integer",
        levels=codec.levels,
        unit="sample",
        ends=False,
        rate=RATE,
        codec=codec,
        labels=labels,
        attributes={"digit": [str(d) for d in range(10)], "speaker": speakers},
    )


def model_of(name: str, data: Sequences) -> AutoregressiveModel:
    """Return an entry's model with its first weights."""
    torch.manual_seed(ENTRIES[name].config.seed)
    return ENTRIES[name].make(Attributes(data.attributes))


def folder_of(name: str) -> Path:
    """Return where an entry is trained."""
    return WORK / RESULTS / name.replace(",", "").replace(" ", "_")


def measure(data: Sequences, name: str, entry: Entry) -> dict[str, Any]:
    """Train (or go on training) one entry and score the test clips."""
    model, folder = model_of(name, data), folder_of(name)
    assert data.labels is not None
    labels = {split: torch.from_numpy(own) for split, own in data.labels.items()}
    rows = SequenceData(
        data.train, data.valid, train_context=labels["train"], valid_context=labels["valid"], ends=False, unit="sample"
    )
    rows.codec = data.codec
    result, facts = trained(model, rows, entry.config, folder)
    found = surprise(model, list(data.test), labels["test"], batch_size=32)
    return {
        "bits_per_sample": round(found.bits, 4),
        "interval": [round(end / np.log(2), 4) for end in found.interval],
        "valid_bits": round((result.valid_bits_per_dim or 0.0), 4),
        "receptive_field": getattr(model, "receptive_field", None),
        **facts,
    }


def xz_bits(clips: Ragged) -> float:
    """Return bits per value of xz over all values end to end, a byte each."""
    packed = lzma.compress(clips.values.astype(np.uint8).tobytes(), preset=9 | lzma.PRESET_EXTREME)
    return 8 * len(packed) / len(clips.values)


def flac_bits(clips: Ragged) -> float:
    """Return bits per sample of FLAC, a file for each clip of 16-bit values 0..65535."""
    import soundfile

    total = 0
    for clip in clips:
        file = io.BytesIO()
        samples = (clip.astype(np.int64) - 32768).astype(np.int16)
        soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16", compression_level=COMPLEXITY)
        total += len(file.getvalue())
    return 8 * total / len(clips.values)


def run(folder: Path, only: list[str]) -> None:
    """Measure all entries (or some) and the coders, and print the table."""
    torch.set_num_threads(1)
    data = {encoding: read(folder, encoding) for encoding in ("mu-law", "16-bit")}
    if "coders" not in load_rows(RESULTS):
        bits = {"xz": round(xz_bits(data["mu-law"].test), 4), "flac": round(flac_bits(data["16-bit"].test), 4)}
        store(RESULTS, {"coders": {**bits, "provenance": provenance()}})
    for name in only or ENTRIES:
        if name not in load_rows(RESULTS):
            row = measure(data[ENTRIES[name].encoding], name, ENTRIES[name])
            store(RESULTS, {name: row})
            print(f"{name}: {row['bits_per_sample']:.4f} bits per sample, {row['cpu_seconds']} s", flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    stored = load_rows(RESULTS)
    coders = stored.get("coders")
    rows = []
    for name, entry in ENTRIES.items():
        row = stored.get(name)
        label, key = ("xz", "xz") if entry.encoding == "mu-law" else ("FLAC", "flac")
        coder = "" if coders is None else f"{label} {coders[key]:.2f}"
        if row is None:
            rows.append([name, entry.encoding, "not run", "", coder, "", "", ""])
            continue
        low, high = row["interval"]
        sight = row["receptive_field"]
        seen = "all" if sight is None else f"{sight:,} samples, {sight / RATE:.3f} s"
        cells = [name, entry.encoding, f"{row['bits_per_sample']:.3f}", f"{low:.3f} to {high:.3f}", coder, seen]
        rows.append([*cells, f"{row['parameters']:,}", told_time(row)])
    header = ["model", "values", "bits per sample", "95 % interval", "coder", "sees", "parameters", "core time"]
    return table(header, rows)
