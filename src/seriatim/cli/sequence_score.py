"""`seriatim score` for runs of sequences: what each costs, and each of its values, in memory that does not grow."""

from __future__ import annotations

import csv
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim import data as data_module
from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run, same_source
from seriatim.cli.output import csv_text, ending, say, show_json, show_or_write
from seriatim.cli.pairs import given_sequences, of_pairs
from seriatim.cli.sequence_contexts import contexts_of
from seriatim.cli.sequence_rows import SequenceRows, kind_of, shown_values, sound_labels, sound_paths
from seriatim.data.files import replacing
from seriatim.ending import Ending
from seriatim.tasks import Surprise, read_parts, surprise

_AT_ONCE = 1 << 17  # values of a batch that are read together
_BLOCK = 1 << 13  # samples of a long sound file that are read together
_SHORT = 1 << 19  # bytes of a sound file below which it is read with others
PER_VALUE = (".csv", ".npy")


class Piece(NamedTuple):
    """Values of a sequence, one stretch after the other, with what they cost.

    Attributes:
        sequence: which.
        values: (n, *value_shape).
        terms: (n,) log p of each, in nats.
        stops: log p of going on before them, and after the last of having ended; 0 where no end is modelled.
    """

    sequence: int
    values: np.ndarray
    terms: np.ndarray
    stops: float


def score_sequences(
    run: Run,
    file: str,
    *,
    target: str | None = None,
    split: str | None,
    out: Path | None,
    context: str | None,
    batch_size: int,
    per_value: Path | None,
    json: bool,
) -> None:
    """Score each sequence of a file: one line each, and one number for each value where asked for."""
    if per_value is not None:
        ending(per_value, PER_VALUE, "--per-value")
    names, pieces = scored(run, file, split, context, batch_size, target=target)
    totals = np.zeros((len(names), 4))  # values, bytes, log p, log p of the end
    with _each_value(run, names, per_value) as add:
        for piece in pieces:
            size = run.model.codec.num_bytes(piece.values) if kind_of(run.model.codec) == "text" else 0
            log_prob = piece.terms.sum(dtype=np.float64)
            totals[piece.sequence] += [len(piece.terms), size, log_prob, piece.stops]
            add(piece)
    table = _table(run, names, totals)
    if json:
        named = {"file": file} if target is None else {"source": file, "target": target}
        show_json({"run": str(run.path), **named, **table})
        if out is None:
            return
    rows = zip(*table.values(), strict=True)
    cells = [[f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    show_or_write(csv_text(list(table), cells), out)


def _table(run: Run, names: list[str], totals: np.ndarray) -> dict[str, list[Any]]:
    """The columns of the scores; units are in their names."""
    codec, kind = run.model.codec, kind_of(run.model.codec)
    lengths, sizes, log_prob, ends = totals.T
    per_value = -log_prob / np.maximum(1, lengths)
    table: dict[str, list[Any]] = {"sequence": names, f"{codec.unit}s": lengths.astype(int).tolist()}
    if kind == "sound":
        table["seconds"] = (lengths / codec.rate).tolist()
    table["log_prob_nats"] = log_prob.tolist()
    if kind in ("music", "series"):
        table[f"nats_per_{codec.unit}"] = per_value.tolist()
    else:
        table[f"bits_per_{codec.unit}"] = (per_value / math.log(2)).tolist()
    if kind == "text" and codec.unit != "byte":
        table["bytes"] = sizes.astype(int).tolist()
        table["bits_per_byte"] = (-log_prob / np.maximum(1, sizes) / math.log(2)).tolist()
    if isinstance(run.model.head, Ending):
        table["end_log_prob_nats"] = ends.tolist()
    if of_pairs(run):
        table["total_log_prob_nats"] = (log_prob + ends).tolist()
    return table


def scored(
    run: Run, file: str, split: str | None, context: str | None, batch_size: int, *, target: str | None = None
) -> tuple[list[str], Iterator[Piece]]:
    """Return the names of the sequences of a file, and what they cost piece by piece.

    Sound files are read as they are scored: short ones in lots, long ones block by block, so that memory does not grow
    with their length.
    """
    own = run.settings is not None and same_source(file, run.settings.data.source) and split is not None
    sound = kind_of(run.model.codec) == "sound" and target is None
    if sound and not own and file not in data_module.NAMED and Path(file).exists():
        paths = sound_paths(run, Path(file))
        names = [path.relative_to(file).as_posix() if Path(file).is_dir() else path.name for path in paths]
        rows = SequenceRows([np.zeros(0)] * len(paths), names, file, *sound_labels(run, Path(file), paths))
        return names, _of_files(run, paths, contexts_of(run, context, rows), batch_size)
    rows = given_sequences(run, file, target, split)
    found = surprise_of(run, rows, contexts_of(run, context, rows), batch_size)
    return rows.names, _of_surprise(found, rows.values, range(len(rows.values)))


def surprise_of(run: Run, rows: SequenceRows, contexts: Tensor | None, batch_size: int, **options: Any) -> Surprise:
    """Score sequences that are in memory; what is computed at a time does not grow with the batch."""
    if not rows.values:
        raise UserError(f"{rows.source}: expected sequences, got none")
    chunk = max(32, _AT_ONCE // min(batch_size, len(rows.values)))
    options |= {"batch_size": batch_size, "chunk_length": min(chunk, _BLOCK)}
    # Of targets of one length those go together whose sources are of like length too.
    order = np.arange(len(rows.values)) if rows.sources is None else np.argsort([len(own) for own in rows.sources])
    back, ordered = np.argsort(order), None if contexts is None else contexts[torch.from_numpy(order)]
    try:
        found = surprise(run.model, [rows.values[row] for row in order], ordered, **options)
    except ValueError as error:
        raise UserError(f"{rows.source}: {error}") from None
    return replace(
        found,
        values=[found.values[place] for place in back],
        ends=None if found.ends is None else found.ends[back],
    )


def _of_surprise(found: Surprise, values: list[np.ndarray], numbers: range) -> Iterator[Piece]:
    for place, number in enumerate(numbers):
        stops = 0.0 if found.ends is None else float(found.ends[place])
        yield Piece(number, values[place], found.values[place], stops)


def _of_files(run: Run, paths: list[Path], contexts: Tensor | None, batch_size: int) -> Iterator[Piece]:
    """Score sound files: those that are short side by side, a long one block by block."""
    for lot in _lots(paths, batch_size):
        own = None if contexts is None else contexts[lot.start : lot.stop]
        if len(lot) == 1:
            blocks = data_module.read_blocks(paths[lot[0]], run.model.codec, block=_BLOCK)
            yield from _along(run, blocks, None if own is None else own[0], lot[0])
        else:
            values = [np.concatenate([*data_module.read_blocks(paths[i], run.model.codec)]) for i in lot]
            found = surprise_of(run, SequenceRows(values, [], str(paths[0])), own, batch_size, num_resamples=1)
            yield from _of_surprise(found, values, lot)


def _lots(paths: list[Path], batch_size: int) -> Iterator[range]:
    """Ranges of neighbouring short files, so many at most; a long file stands alone."""
    first = 0
    while first < len(paths):
        stop = first
        while stop < len(paths) and stop - first < batch_size and paths[stop].stat().st_size < _SHORT:
            stop += 1
        yield range(first, max(stop, first + 1))
        first = max(stop, first + 1)


def _along(run: Run, blocks: Iterator[np.ndarray], context: Tensor | None, number: int) -> Iterator[Piece]:
    """Score a sequence block by block; its end has no values."""
    kept: list[np.ndarray] = []

    def passing() -> Iterator[np.ndarray]:
        for block in blocks:
            kept.append(block)
            yield block

    for terms, stops in read_parts(run.model, passing(), context):
        values = kept.pop() if kept else np.zeros(0, dtype=np.int64)
        yield Piece(number, values, terms, float(stops.sum(dtype=np.float64)))


@contextmanager
def _each_value(run: Run, names: list[str], out: Path | None) -> Iterator[Callable[[Piece], None]]:
    """Give a function that writes the terms of pieces as they come: a table, or an array of log p in nats."""
    if out is None:
        yield lambda piece: None
        return
    with replacing(out) as temporary:
        write = _csv_of_values(run, names, temporary) if out.suffix.lower() == ".csv" else _npy_of_values(temporary)
        with write as add:
            yield add
    say(f"wrote {out}")


@contextmanager
def _csv_of_values(run: Run, names: list[str], file: Path) -> Iterator[Callable[[Piece], None]]:
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("sequence", run.model.codec.unit, "value", "log_prob_nats"))
        done = dict.fromkeys(range(len(names)), 0)

        def add(piece: Piece) -> None:
            start = done[piece.sequence]
            shown = zip(shown_values(run.model.codec, piece.values), piece.terms.tolist(), strict=True)
            for place, (value, term) in enumerate(shown, start):
                writer.writerow((names[piece.sequence], place, value, f"{term:.6f}"))
            done[piece.sequence] += len(piece.terms)

        yield add


@contextmanager
def _npy_of_values(file: Path) -> Iterator[Callable[[Piece], None]]:
    """Write (sum of lengths,) float32; the header, which has the length, comes at the end."""
    count = 0
    with tempfile.TemporaryFile() as raw:

        def add(piece: Piece) -> None:
            nonlocal count
            raw.write(piece.terms.astype("<f4").tobytes())
            count += len(piece.terms)

        yield add
        raw.seek(0)
        with open(file, "wb") as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(stream, header)
            shutil.copyfileobj(raw, stream)
