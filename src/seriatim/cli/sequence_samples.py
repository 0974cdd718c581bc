"""The samples of a report on sequences, what stands beside them, and what one value takes to draw."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seriatim import engine
from seriatim.cli.loading import Run
from seriatim.cli.sequence_contexts import contexts_of
from seriatim.cli.sequence_rows import SequenceRows, kind_of, rows_of
from seriatim.context import Attributes
from seriatim.data import Sequences, Standardised
from seriatim.ending import Ending, SequenceModel
from seriatim.model import AutoregressiveModel
from seriatim.tasks import generate, stream

_CLIPS, _TEXTS, _ROLLS, _SERIES = 3, 2, 2, 1  # samples of a page
LINES = 12  # of a table
_MOST_LABELS = 10  # clips of a model of labels
_SECONDS = 2.0  # of a sampled clip at most
_LONGEST = {"text": 600, "music": 96, "series": 500}  # positions of a sample at most
_TIMED, _MOST_TIMED = 0.5, 100  # seconds, and sequences, that are timed


@dataclass(frozen=True)
class Imagined:
    """Samples of a page, the sequences of the data beside them, and what sampling took.

    Attributes:
        sampled: the values of each.
        real: training sequences, or test ones where each sample has the context of one.
        names: of both, what they are conditioned on.
        seconds_per_value: of one sequence alone.
        how: by what.
    """

    sampled: list[np.ndarray]
    real: list[np.ndarray]
    names: list[str]
    contexts: Tensor | None
    seconds_per_value: float
    how: str


def imagine(run: Run, data: Sequences, seed: int) -> Imagined:
    """Draw the samples of a page, and time one sequence alone."""
    model, kind = run.model, kind_of(run.model.codec)
    rows, names = _shown(run, data, kind)
    contexts = contexts_of(run, None, rows)
    length = _length(run, data, kind)
    options: dict[str, Any] = {"seed": seed, "length": length, "chunk": 256}
    count = {"text": _TEXTS, "sound": _CLIPS, "series": _SERIES, "music": _ROLLS}[kind]
    count = len(rows.values) if contexts is not None or data.ends else count
    sampled = torch.cat(list(stream(model, count, contexts, **options)), dim=1)
    one = None if contexts is None else contexts[:1]
    each, path = seconds_per_value(model, one, length)
    threads = torch.get_num_threads()
    where = f"{model.device.type}, {threads} thread{'s' if threads > 1 else ''}"
    how = f"one sequence alone, {path}, {where}"
    made = [_values(model, row) for row in sampled]
    return Imagined(made, rows.values, names, contexts, each, how)


@torch.no_grad()
def seconds_per_value(model: AutoregressiveModel, context: Tensor | None, length: int) -> tuple[float, str]:
    """Return what one position of one sequence takes, without what is done once for all, and by what.

    Sequences are drawn one after another, for a second or so; those that end early count as far as they went.
    """
    joint = model(context, length=length)
    joint = joint if joint.batch_shape else joint.expand((1,))
    choice = engine.choose(model, 1, "auto", joint.order)
    positions, spent = 0, 0.0
    for row in range(_MOST_TIMED):
        rows = torch.tensor([row])
        session = None if choice.program is None else engine.start(joint, rows, 0, choice.program)
        started = time.perf_counter()
        x = generate(joint, 1, seed=0, first_row=row) if session is None else session.advance(length).values
        took = time.perf_counter() - started
        if row:  # the first one pays for what is compiled or loaded
            positions, spent = positions + min(length, len(_values(model, x[0])) + 1), spent + took
        if row and spent > _TIMED:
            break
    return spent / positions, choice.path


def _values(model: AutoregressiveModel, row: Tensor) -> np.ndarray:
    """The values of a sampled row before its end, as the codec reads them."""
    length = len(row)
    if isinstance(model.head, Ending) and isinstance(model, SequenceModel):
        length = int(model.lengths(row[None])[0])
    values = row[:length].cpu().numpy()
    return values.astype(np.float64) if isinstance(model.codec, Standardised) else values.astype(np.int64)


def _shown(run: Run, data: Sequences, kind: str) -> tuple[SequenceRows, list[str]]:
    """The sequences of the data beside the samples: each value of the first attribute in turn, or evenly spaced."""
    if data.sources is not None:
        rows = rows_of(data, "test")
        own = np.linspace(0, len(rows.values) - 1, min(LINES, len(rows.values))).astype(int).tolist()
        return rows.take(own), [rows.names[i] for i in own]
    rows = rows_of(data, "train")
    if isinstance(run.model.encoder, Attributes) and rows.labels is not None:
        encoder, labels = run.model.encoder, rows.labels
        first = [np.flatnonzero(labels[:, 0] == value) for value in range(encoder.sizes[0])][:_MOST_LABELS]
        # Other attributes take turns too, as far as the data go.
        own = [
            int(places[(2 * k + 1) * len(places) // (2 * len(first))]) for k, places in enumerate(first) if len(places)
        ]
        named = [
            ", ".join(f"{name} {values[labels[i, a]]}" for a, (name, values) in enumerate(encoder.attributes.items()))
            for i in own
        ]
        return rows.take(own), named
    wanted = {"sound": _CLIPS, "text": LINES if data.ends else 1, "music": _ROLLS, "series": _SERIES}[kind]
    if not data.ends:
        return _stretches(run, data, kind, wanted)
    own = np.linspace(0, len(rows.values) - 1, min(wanted, len(rows.values))).astype(int).tolist()
    return rows.take(own), [f"number {i} of train" for i in own]


def _stretches(run: Run, data: Sequences, kind: str, count: int) -> tuple[SequenceRows, list[str]]:
    """Stretches of the longest stream, evenly spaced."""
    longest = max(data.train, key=len)
    length = _length(run, data, kind)
    starts = np.unique(np.linspace(0, max(0, len(longest) - length), count).astype(int)).tolist()
    names = [f"from {data.unit} {start:,} of train" for start in starts]
    return SequenceRows([longest[start : start + length] for start in starts], names, data.name), names


def _length(run: Run, data: Sequences, kind: str) -> int:
    """How many positions a sample has at most."""
    usual = int(run.model.event_shape[0])
    if kind == "sound":
        most = round(_SECONDS * run.model.codec.rate)
        return min(usual, most) if data.ends else most // 2
    return min(usual, _LONGEST[kind]) if data.ends else _LONGEST[kind]
