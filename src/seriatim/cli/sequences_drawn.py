"""What `seriatim sample` asks for and gets where a run is of sequences."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from seriatim.cli.loading import Run
from seriatim.cli.output import say
from seriatim.cli.sequence_rows import kind_of
from seriatim.context import Attributes
from seriatim.controls import Controls
from seriatim.data import Standardised
from seriatim.ending import Ending, SequenceModel


class Asked(NamedTuple):
    """What the user asked for.

    Attributes:
        num: how many sequences.
        out: the file; "-" for stdout; None for text and tables on stdout.
        context: as given; None draws of every combination of labels in turn.
        length: positions in all, the prompt's among them; None for the usual length.
        seconds: the same in seconds.
        prompt: a text, or a file of what the model reads.
        stream: show values as they are made.
        seed: of the noise.
        batch_size: sequences at a time.
        controls: of the conditionals.
        precision: of the matrices.
        json: results as JSON.
    """

    num: int
    out: Path | None
    context: str | None
    length: int | None
    seconds: float | None
    prompt: str | None
    stream: bool
    seed: int
    batch_size: int
    controls: Controls
    precision: str
    json: bool


class Made(NamedTuple):
    """One sequence: its values (T, *value_shape), whether it ended by itself, and its labels."""

    values: np.ndarray
    ended: bool
    labels: str | None


def made_of(run: Run, row: Tensor, context: Tensor | None) -> Made:
    """Return one drawn row without what follows its end."""
    model, encoder, length = run.model, run.model.encoder, len(row)
    if isinstance(model.head, Ending) and isinstance(model, SequenceModel):
        length = int(model.lengths(row[None])[0])
    values = row[:length].cpu().numpy()
    labels = None
    if isinstance(encoder, Attributes) and context is not None:
        named = zip(encoder.attributes.items(), context.tolist(), strict=True)
        labels = ",".join(f"{name}={known[number]}" for (name, known), number in named)
    return Made(typed(run, values), length < len(row), labels)


def typed(run: Run, values: np.ndarray) -> np.ndarray:
    """Values in the dtype that the codec reads."""
    return values.astype(np.float64) if isinstance(run.model.codec, Standardised) else values.astype(np.int64)


def tell_speed(run: Run, count: int, seconds: float) -> None:
    """Say how long so many positions took, and of sound how many times faster than real time that is."""
    codec = run.model.codec
    rate = getattr(codec, "rate", None)
    real = f", {count / rate / max(seconds, 1e-9):.2f} times real time" if rate and kind_of(codec) == "sound" else ""
    say(f"{count:,} {codec.unit}s in {seconds:.1f} s{real}")
