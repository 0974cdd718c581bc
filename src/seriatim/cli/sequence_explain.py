"""`seriatim explain` for runs of sequences: coloured text, surprise under sound and music, anomalous stretches."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from seriatim.cli.attention import check_attention, draw_attention
from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run
from seriatim.cli.output import csv_text, ending, say, show, show_json, write_file
from seriatim.cli.pairs import given_sequences
from seriatim.cli.sequence_contexts import contexts_of
from seriatim.cli.sequence_rows import SequenceRows, kind_of, own_data, rows_of, shown_values
from seriatim.cli.sequence_score import surprise_of
from seriatim.data import Bytes, TextCodec
from seriatim.report.audio import surprise_figure
from seriatim.report.figures import Figure
from seriatim.report.music import note_name, roll_figure
from seriatim.report.series import MAX_COLUMNS, Stretch, series_figure, stretches
from seriatim.report.text import characters, text_page
from seriatim.tasks import Surprise, surprise_inside

ENDINGS = {"text": (".html", ".csv", ".npy")} | dict.fromkeys(
    ("sound", "music", "series"), (".png", ".svg", ".csv", ".npy")
)
PICTURES = (".png", ".svg")
QUANTILE = 0.999
MERGE = 5  # usual steps within an anomalous stretch
_MOST = 10  # places in the table
_WINDOW = 0.02  # seconds of sound that are one place
_BEFORE = 30  # characters of context

Table = tuple[list[str], list[Sequence[Any]]]
"""Names of columns, and rows."""


class Explained(NamedTuple):
    """Sequences, what they are conditioned on, what they cost, and the bits of each value."""

    rows: SequenceRows
    contexts: Tensor | None
    found: Surprise
    bits: list[np.ndarray]


def explain_sequences(
    run: Run,
    file: str,
    *,
    target: str | None = None,
    attention: Path | None = None,
    layer: int | None = None,
    split: str | None,
    rows: int | None,
    out: Path | None,
    context: str | None,
    batch_size: int,
    sequence: int | None,
    threshold: float | None,
    json: bool,
) -> None:
    """Explain sequences: a table of what surprises most, and a page, a picture or all bits."""
    kind = kind_of(run.model.codec)
    suffix = None if out is None else ending(out, ENDINGS[kind])
    if threshold is not None and kind != "series":
        raise UserError(f"--threshold: expected for series only, got it for {kind}")
    if layer is not None and attention is None:
        raise UserError(f"--layer: expected --attention beside it, got {layer}")
    if attention is not None:
        check_attention(run)
        ending(attention, PICTURES, "--attention")
    read = given_sequences(run, file, target, split).first(rows)
    if sequence is not None:
        if not 0 <= sequence < len(read.values):
            raise UserError(f"--sequence: expected 0 to {len(read.values) - 1}, got {sequence}")
        read = read.take([sequence])
    contexts = contexts_of(run, context, read)
    found = surprise_of(run, read, contexts, batch_size, num_resamples=1)
    own = Explained(read, contexts, found, [-terms.astype(np.float64) / math.log(2) for terms in found.values])
    if kind == "series":
        say("note: bits are of densities, in units of the standard deviation of train: they may be below 0")
        threshold = threshold_of(run, own, batch_size) if threshold is None else threshold
    table = _TABLES[kind](run, own, threshold)
    if json:
        header, cells = table
        places = [dict(zip(header, row, strict=True)) for row in cells]
        facts: dict[str, Any] = {"run": str(run.path), "file": file, "places": places, "bits": own.bits}
        show_json(facts if threshold is None else facts | {"threshold_bits": threshold})
    if out is not None and suffix is not None:
        write_file(out, lambda target: _write(run, own, threshold, target, suffix))
    if attention is not None:
        if len(read.values) > 1:
            say(f"attention: of {read.names[0]}, the first of {len(read.values)}; --sequence N takes another")
        drawn = draw_attention(run, read, contexts, 0, layer)
        write_file(attention, lambda file: _write_figure(drawn, file, attention.suffix.lower()))
    if not json:
        show(csv_text(table[0], [[_written(cell) for cell in row] for row in table[1]]))


def _written(cell: Any) -> Any:
    return f"{cell:.6f}" if isinstance(cell, float) else cell


def _write(run: Run, own: Explained, threshold: float | None, file: Path, suffix: str) -> None:
    if suffix == ".npy":
        with open(file, "wb") as stream:
            np.save(stream, np.concatenate(own.bits))
    elif suffix == ".csv":
        unit = run.model.codec.unit
        lines = (
            (name, place, value, f"{cost:.6f}")
            for name, values, bits in zip(own.rows.names, own.rows.values, own.bits, strict=True)
            for place, (value, cost) in enumerate(zip(shown_values(run.model.codec, values), bits, strict=True))
        )
        file.write_text(csv_text(("sequence", unit, "value", "bits"), lines), encoding="utf-8")
    elif suffix == ".html":
        file.write_text(page_of_text(run, own), encoding="utf-8")
    else:
        which = most_surprising(own)
        if len(own.rows.values) > 1:
            name = own.rows.names[which]
            named = "" if name == str(which) else f" ({name})"
            say(f"drawn: sequence {which}{named}, the most surprising of {len(own.rows.values)}")
        _write_figure(figure_of(run, own, which, threshold), file, suffix)


def _write_figure(figure: Figure, file: Path, suffix: str) -> None:
    if suffix == ".svg":
        file.write_text(figure.svg_file(), encoding="utf-8")
    else:
        file.write_bytes(figure.png())


def most_surprising(own: Explained) -> int:
    """Return the number of the sequence that costs most bits per value."""
    return int(np.argmax([bits.mean() if len(bits) else -np.inf for bits in own.bits]))


def figure_of(run: Run, own: Explained, which: int, threshold: float | None = None) -> Figure:
    """Draw one sequence of sound, music or measurements over its surprise."""
    codec, values, bits = run.model.codec, own.rows.values[which], own.bits[which]
    if not len(values):
        raise UserError(f"{own.rows.source}: expected a sequence with values, got an empty one")
    kind = kind_of(codec)
    if kind == "sound":
        return surprise_figure(codec.decode(values), bits, codec.rate)
    if kind == "music":
        context = None if own.contexts is None else own.contexts[which]
        inside = -surprise_inside(run.model, values, context).astype(np.float64) / math.log(2)
        return roll_figure(values, inside, steps_per_second=codec.rate, lowest=codec.lowest)
    shown = codec.decode(values).reshape(len(values), -1)
    if shown.shape[1] > MAX_COLUMNS:
        say(f"note: the first {MAX_COLUMNS} of {shown.shape[1]} columns are drawn; the bits are of all")
    names = list(codec.names)[:MAX_COLUMNS]
    found = () if threshold is None else stretches(bits, threshold, MERGE)
    return series_figure(shown[:, :MAX_COLUMNS], bits, names=names, found=found, threshold=threshold)


def threshold_of(run: Run, own: Explained, batch_size: int) -> float:
    """Return the bits that one validation step in a thousand costs more than; of the file itself without a run."""
    if run.settings is None:
        bits, whose = np.concatenate(own.bits), "of these values themselves: the model has no run with validation data"
    else:
        valid = rows_of(own_data(run), "valid")
        found = surprise_of(run, valid, contexts_of(run, None, valid), batch_size, num_resamples=1)
        bits, whose = -np.concatenate(found.values).astype(np.float64) / math.log(2), "of the run's validation steps"
    threshold = float(np.quantile(bits, QUANTILE))
    say(f"threshold: {threshold:.4f} bits, the {QUANTILE:g}-quantile {whose} ({len(bits):,})")
    return threshold


def _top(own: Explained, window: int = 1) -> list[tuple[int, int, int, float]]:
    """The stretches of so many values that cost most: sequence, start, stop, mean bits."""
    places = []
    for number, bits in enumerate(own.bits):
        starts = np.arange(0, len(bits), window)
        if len(starts):
            means = np.add.reduceat(bits, starts) / np.diff(np.append(starts, len(bits)))
            best = np.argsort(-means, kind="stable")[:_MOST]
            places += [(number, int(starts[k]), int(min(starts[k] + window, len(bits))), float(means[k])) for k in best]
    return sorted(places, key=lambda place: -place[3])[:_MOST]


def _text_table(run: Run, own: Explained, _: float | None) -> Table:
    header = ["sequence", run.model.codec.unit, "after", "came", "bits"]
    rows: list[Sequence[Any]] = []
    for number, start, stop, bits in _top(own):
        values = own.rows.values[number]
        # A character of several bytes stands at the last of them: look at some more.
        before = _on_one_line(run.model.codec.decode(values[max(0, start - 4 * _BEFORE) : start])[-_BEFORE:])
        came = _on_one_line(run.model.codec.decode(values[start:stop]))
        rows.append((own.rows.names[number], start, before, came, bits))
    return header, rows


def _on_one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")


def _sound_table(run: Run, own: Explained, _: float | None) -> Table:
    rate = run.model.codec.rate
    places = _top(own, max(1, round(_WINDOW * rate)))
    return ["sequence", "from_seconds", "to_seconds", "mean_bits"], [
        (own.rows.names[number], start / rate, stop / rate, bits) for number, start, stop, bits in places
    ]


def _music_table(run: Run, own: Explained, _: float | None) -> Table:
    codec, rows = run.model.codec, list[Sequence[Any]]()
    for number, start, stop, bits in _top(own):
        (pitches,) = codec.decode(own.rows.values[number][start:stop])
        notes = " ".join(note_name(pitch) for pitch in pitches)
        rows.append((own.rows.names[number], start, start / codec.rate, notes, bits))
    return ["sequence", "step", "seconds", "notes", "bits"], rows


def _series_table(run: Run, own: Explained, threshold: float | None) -> Table:
    found: list[Stretch] = stretches(own.bits[0], math.inf if threshold is None else threshold, MERGE)
    several = "stretch" if len(found) == 1 else "stretches"
    say(f"anomalous: {len(found)} {several} of steps above {threshold:.4f} bits, up to {MERGE} others within")
    times = own.rows.times
    header = ["first_step", "last_step", "steps", "mean_bits", *(["first_time", "last_time"] if times else [])]
    rows: list[Sequence[Any]] = []
    for stretch in sorted(found, key=lambda own: -own.mean_bits):
        first, last = stretch.start, stretch.stop - 1
        when = (times[first], times[last]) if times else ()
        rows.append((first, last, stretch.stop - first, stretch.mean_bits, *when))
    return header, rows


_TABLES: dict[str, Callable[[Run, Explained, float | None], Table]] = {
    "text": _text_table,
    "sound": _sound_table,
    "music": _music_table,
    "series": _series_table,
}


def tokens_of(run: Run, own: Explained) -> tuple[list[str], np.ndarray, str]:
    """Return the tokens of texts with their bits, and what a token is; a line break stands for each end."""
    codec: TextCodec = run.model.codec
    tokens, bits = list[str](), list[np.ndarray]()
    unit = "character" if isinstance(codec, Bytes) else codec.unit
    for number, (values, costs) in enumerate(zip(own.rows.values, own.bits, strict=True)):
        parts = codec.pieces(values)
        if isinstance(codec, Bytes):
            parts, costs = characters(codec.decode_bytes(values), costs)
        tokens += parts
        bits.append(costs)
        if own.found.ends is not None:
            tokens.append("\n")
            bits.append(np.array([-own.found.ends[number] / math.log(2)]))
    return tokens, np.concatenate(bits), unit


def page_of_text(run: Run, own: Explained) -> str:
    """Return the page of coloured tokens."""
    tokens, bits, unit = tokens_of(run, own)
    note = f"Under {type(run.model).__name__} of {run.path}."
    if own.found.ends is not None:
        note += " ↵ is what it cost that a line ended where it did, and no earlier."
    return text_page(tokens, bits, title=f"What surprised in {own.rows.source}", unit=unit, note=note)
