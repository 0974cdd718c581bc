"""Listenable evidence: a second of each spoken digit by the trained WaveNet, and spectrograms beside recorded ones.

Clips go to docs/audio and the picture to docs/pictures, for the page of the benchmarks. The speech example is a WaveNet
of 16 kHz trained on the 45 seconds of three LibriSpeech utterances: it over-fits, and babbles in three voices.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import WORK, load_rows, provenance, store, table
from benchmarks.sequences.audio import RATE, folder_of, read
from benchmarks.training import trained
from seriatim import load
from seriatim.data import Sequences, load_named
from seriatim.data.audio_files import write_audio
from seriatim.data.files import replacing
from seriatim.heads import Categorical
from seriatim.models import WaveNet
from seriatim.report.audio import spectrogram, spectrogram_picture
from seriatim.report.pictures import png_bytes
from seriatim.training import TrainConfig

TITLE = "Sound: what the models say"
RESULTS = "sequences-listen"
MODEL, SPEAKER, SEED = "WaveNet 2x9x32", "jackson", 0
ABOUT = (
    f"One second of each digit by the {MODEL} of the table above, speaker {SPEAKER}, seed {SEED}, temperature 1, not "
    "chosen; the spectrograms show recorded test clips above and sampled ones below, 0 to 4 kHz upward, one second "
    "across, one scale of loudness. After 24 minutes of one core the model makes bursts as loud as speech and in its "
    "rhythm, not yet words: what a sampled digit is cannot be told by ear. The speech is 16 kHz, from a WaveNet "
    "trained on 45 seconds of three LibriSpeech utterances: it over-fits, as the bits of its held-out ends say."
)
DOCS = Path(__file__).parents[2] / "docs"
PICTURE = DOCS / "pictures" / "spoken-digits.png"
SPEECH_RATE, SPEECH_SECONDS = 16000, 3
SPEECH = TrainConfig(epochs=12, batch_size=8, chunk_length=4000, learning_rate=2e-3, gradient_clip=1.0, ema_decay=0.998)


def digits(data: Sequences) -> dict[str, Any]:
    """Write a second of each digit, and the spectrograms of recorded and sampled ones."""
    model, codec = load(folder_of(MODEL)), data.codec
    assert data.labels is not None
    assert codec is not None
    speaker = data.attributes["speaker"].index(SPEAKER)
    context = torch.tensor([[digit, speaker] for digit in range(10)])
    started = time.perf_counter()
    sampled = model(context, length=RATE).sample(seed=SEED).numpy()
    seconds = time.perf_counter() - started
    recorded = [
        codec.decode(data.test[int(np.flatnonzero((data.labels["test"] == own.numpy()).all(1))[0])]) for own in context
    ]
    made = [codec.decode(values) for values in sampled]
    for digit, samples in enumerate(made):
        write_audio(DOCS / "audio" / f"digit-{digit}.flac", samples, RATE)
    with replacing(PICTURE) as temporary:
        temporary.write_bytes(png_bytes(gallery(recorded, made)))
    return {"seconds": round(seconds, 2), "speaker": SPEAKER, "seed": SEED}


def gallery(recorded: list[np.ndarray], made: list[np.ndarray]) -> np.ndarray:
    """Return the spectrograms of clips, a second each: one row of recorded ones, one of those made."""
    rows = []
    for clips in (recorded, made):
        shown = [spectrogram(np.pad(clip[:RATE], (0, max(0, RATE - len(clip)))), RATE, hop=0.01) for clip in clips]
        rows.append([np.pad(part, ((2, 2), (2, 2)), constant_values=-120) for part in shown])
    decibels = np.concatenate([np.concatenate(row, axis=1) for row in rows[::-1]])  # the lowest frequency comes first
    return spectrogram_picture(decibels)


def speech(folder: Path) -> dict[str, Any]:
    """Train (or go on training) the WaveNet of speech, and write what it says."""
    data: Any = load_named("librispeech3", data_dir=folder)
    torch.manual_seed(SEED)
    sizes: dict[str, Any] = {"residual_features": 32, "gate_features": 32, "skip_features": 128}
    model = WaveNet((SPEECH_RATE,), Categorical(256), num_blocks=3, layers_per_block=9, **sizes)
    run = WORK / RESULTS / "speech"
    result, facts = trained(model, data, SPEECH, run)
    values = model(length=SPEECH_SECONDS * SPEECH_RATE).sample(seed=SEED).numpy()
    write_audio(DOCS / "audio" / "speech.flac", data.codec.decode(values), SPEECH_RATE)
    last = result.history[-1]
    return {
        "train_bits": round(float(last["train_bits_per_dim"]), 3),
        "valid_bits": round(float(last["valid_bits_per_dim"]), 3),
        **facts,
    }


def run(folder: Path, only: list[str]) -> None:
    """Make both (or one) and print what the page says."""
    torch.set_num_threads(1)
    (DOCS / "audio").mkdir(exist_ok=True)
    for name in only or ("digits", "speech"):
        row = digits(read(folder, "mu-law")) if name == "digits" else speech(folder)
        store(RESULTS, {name: {**row, "provenance": provenance()}})
    print(render())


def render() -> str:
    """Return links to the clips, and the picture."""
    stored = load_rows(RESULTS)
    if "digits" not in stored:
        return "not run"
    links = [f"[{digit}](audio/digit-{digit}.flac)" for digit in range(10)]
    row = stored["digits"]
    parts = [
        table(["digit", *map(str, range(10))], [["clip", *links]]),
        f"All ten together took {row['seconds']} s.",
        f"![spectrograms of recorded and sampled digits](pictures/{PICTURE.name})",
    ]
    if (own := stored.get("speech")) is not None:
        parts.append(
            f"[Speech](audio/speech.flac), {SPEECH_SECONDS} s: {own['train_bits']:.2f} bits per sample on its training "
            f"parts and {own['valid_bits']:.2f} on the held-out ends, {own['epochs']} epochs, "
            f"{own['cpu_seconds'] / 60:.0f} core minutes."
        )
    return "\n\n".join(parts)
