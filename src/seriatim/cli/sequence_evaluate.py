"""`seriatim evaluate` for runs of sequences: nats and bits per value with an interval, ends apart, and baselines."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run
from seriatim.cli.output import say, show, show_json
from seriatim.cli.pairs import BEAMS, given_sequences, of_pairs
from seriatim.cli.pairs_evaluate import Agreement, agreement_of
from seriatim.cli.sequence_contexts import contexts_of
from seriatim.cli.sequence_rows import SequenceRows, kind_of, own_data, rows_of
from seriatim.cli.sequence_score import surprise_of
from seriatim.data import MuLaw, Pcm, Sequences, Standardised, TextCodec
from seriatim.tasks import Baseline, Surprise, sequence_baselines

_FEW = 10  # sequences below which the interval is over blocks


@dataclass(frozen=True)
class SequenceScore:
    """What sequences cost under a run's model, in the units of its data.

    Attributes:
        rows: the sequences.
        found: their score.
        unit: what one value is: "sample", "character", "step".
        num_bytes: of texts, in UTF-8; None for others.
        baselines: on the same sequences.
        log_scale: of measurements: what to add to nats per step for the units of the file.
        agreement: of pairs: how near the targets that a search finds are to those of the data.
    """

    rows: SequenceRows
    found: Surprise
    unit: str
    num_bytes: int | None
    baselines: list[Baseline]
    log_scale: float | None = None
    agreement: Agreement | None = None

    @property
    def bits_interval(self) -> tuple[float, float]:
        """The interval of bits per value."""
        low, high = self.found.interval
        return low / math.log(2), high / math.log(2)

    @property
    def num_values(self) -> int:
        """How many values all sequences have together."""
        return int(self.found.lengths.sum())

    @property
    def bytes_per_value(self) -> float | None:
        """Bytes of a text over its values; None for others, and where a value is a byte."""
        return None if self.num_bytes is None or self.unit == "byte" else self.num_bytes / self.num_values

    @property
    def drawn(self) -> str:
        """What the bootstrap draws."""
        return "sequences" if len(self.rows.values) >= _FEW else "blocks of 500"

    def as_dict(self) -> dict[str, Any]:
        """Return the score for machines; units are in the names."""
        found, size = self.found, self.bytes_per_value
        facts: dict[str, Any] = {
            "unit": self.unit,
            "num_sequences": len(found.values),
            "num_values": self.num_values,
            "nats_per_value": found.nats,
            "nats_interval": list(found.interval),
            "bits_per_value": found.bits,
            "bits_interval": list(self.bits_interval),
            "confidence": found.confidence,
        }
        if self.num_bytes is not None:
            facts |= {"num_bytes": self.num_bytes, "perplexity": _exp(found.nats)}
            facts |= {"nats_per_byte": found.nats / (size or 1.0), "bits_per_byte": found.bits / (size or 1.0)}
        if found.ends is not None:
            facts["end_nats_per_sequence"] = found.end_nats
        if self.log_scale is not None:
            facts["nats_per_value_in_units_of_the_file"] = found.nats + self.log_scale
        if self.agreement is not None:
            facts |= self.agreement.as_dict()
        listed = [(b.name, b.nats, b.bits_per_dim, b.detail) for b in self.baselines]
        names = ("name", "nats_per_value", "bits_per_value", "detail")
        return facts | {"baselines": [dict(zip(names, own, strict=True)) for own in listed]}

    def as_text(self, name: str) -> str:
        """Return the score as a table with units."""
        found, unit, size = self.found, self.unit, self.bytes_per_value
        count = len(found.values)
        width = max([len(name), *(len(b.name) for b in self.baselines)])
        low, high = self.bits_interval
        columns = [f"nats per {unit}", f"bits per {unit}"] + ([] if size is None else ["bits per byte"])
        drawn = f"the interval is a {found.confidence:.0%} bootstrap over {self.drawn}"
        several = high > low  # else all is one block, and there is nothing to draw
        lines = [
            f"{self.rows.source}: {count:,} sequence{'s' if count > 1 else ''} of {self.num_values:,} {unit}s; "
            f"{drawn if several else 'too few for an interval'}",
            "  ".join([f"{'':<{width}}", *columns]),
        ]

        def line(name: str, nats: float | None, detail: str) -> str:
            bits = None if nats is None else nats / math.log(2)
            numbers = [nats, bits] + ([] if size is None else [None if bits is None else bits / size])
            cells = [
                f"{'-' if number is None else format(number, '.4f'):>{len(column)}}"
                for column, number in zip(columns, numbers, strict=True)
            ]
            return "  ".join([f"{name:<{width}}", *cells, detail])

        lines.append(line(name, found.nats, f"[{low:.4f}, {high:.4f}] bits" if several else "").rstrip())
        ordered = sorted(self.baselines, key=lambda b: (b.nats is None, b.nats))
        lines += [line(b.name, b.nats, b.detail) for b in ordered]
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """Return what is told apart from the table."""
        found, notes = self.found, []
        if found.end_nats is not None:
            notes.append(f"ends, apart: {found.end_nats:.4f} nats a sequence for its length")
        if self.num_bytes is not None:
            size = self.bytes_per_value
            per_byte = "" if size is None else f"; {found.nats / size:.4f} nats per byte"
            notes.append(f"perplexity: {_exp(found.nats):.4f} per {self.unit}{per_byte}")
        if self.log_scale is not None:
            raw = found.nats + self.log_scale
            notes.append(f"of densities, in units of the training deviation; in those of the file {raw:.4f} nats")
        return notes + ([] if self.agreement is None else self.agreement.lines())


def _exp(nats: float) -> float:
    return math.exp(min(nats, 700.0))


def evaluate_sequences(
    run: Run,
    *,
    data: str | None,
    target: str | None = None,
    beams: int | None = None,
    split: str | None,
    baselines: bool,
    context: str | None,
    batch_size: int,
    seed: int,
    json: bool,
) -> None:
    """Score test sequences beside baselines fitted to the run's training sequences.

    Of pairs the targets that a search finds are compared with those of the data, unless `beams` is 0.
    """
    if beams is not None and not of_pairs(run):
        raise UserError(f"--beams: expected none, for {run.path} is no model of pairs, got {beams}")
    if target is not None and data is None:
        raise UserError(f"--data: expected the file of the sources beside --target, got none beside {target}")
    if data is None and run.settings is None:
        raise UserError(f"--data: expected a file, for {run.path} is a model without a run, got none")
    own = own_data(run) if data is None or (baselines and run.settings is not None) else None
    if data is not None:
        rows = given_sequences(run, data, target, split)
    else:
        assert own is not None
        rows = rows_of(own, split or "test")
    score = score_of(run, rows, own if baselines else None, context=context, batch_size=batch_size, seed=seed)
    if of_pairs(run) and beams != 0:
        groups = _groups(own, rows) if data is None else None
        agreement = agreement_of(run, rows, num_beams=BEAMS if beams is None else beams, groups=groups)
        score = replace(score, agreement=agreement)
    if json:
        show_json(score.as_dict() | {"run": str(run.path), "sequences": rows.source})
    else:
        show(score.as_text(str(run.path)))


def _groups(data: Sequences | None, rows: SequenceRows) -> list[str] | None:
    """The name of the group of each pair, where the data have one attribute, such as the task of a question."""
    if data is None or rows.labels is None or len(data.attributes) != 1:
        return None
    (names,) = data.attributes.values()
    return [names[number] for number in rows.labels[:, 0].tolist()]


def score_of(
    run: Run,
    rows: SequenceRows,
    data: Sequences | None,
    *,
    context: str | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> SequenceScore:
    """Score sequences, and baselines where the data of the run are given."""
    codec = run.model.codec
    found = surprise_of(run, rows, contexts_of(run, context, rows), batch_size, seed=seed)
    if not found.lengths.sum():
        raise UserError(f"{rows.source}: expected sequences with values, got empty ones")
    size = codec.num_bytes(np.concatenate(rows.values)) if isinstance(codec, TextCodec) else None
    others = [] if data is None else compared(run, data, rows)
    scale = codec.log_scale if isinstance(codec, Standardised) else None
    return SequenceScore(rows, found, codec.unit, size, others, scale)


def compared(run: Run, data: Sequences, rows: SequenceRows) -> list[Baseline]:
    """Return the baselines for sequences of a run: frequencies, the value before, and compressors."""
    codec = run.model.codec
    raw = b"\n".join(map(codec.decode_bytes, rows.values)) if isinstance(codec, TextCodec) else None
    ordered = kind_of(codec) != "text"
    found = sequence_baselines(list(data.train), rows.values, levels=data.levels, ordered=ordered, raw=raw)
    return found + (_flac(codec, rows.values) if isinstance(codec, MuLaw | Pcm) else [])


def _flac(codec: MuLaw | Pcm, sequences: list[np.ndarray]) -> list[Baseline]:
    """FLAC of the values, where they are whole bytes of sound: 8 or 16 bits."""
    import soundfile

    kinds = {1 << 8: ("PCM_S8", 24), 1 << 16: ("PCM_16", 16)}
    if codec.levels not in kinds or "FLAC" not in soundfile.available_formats():
        return []
    subtype, shift = kinds[codec.levels]
    values = np.concatenate(sequences).astype(np.int32) - codec.levels // 2
    samples = values << shift if shift == 24 else values.astype(np.int16)
    stream = io.BytesIO()
    try:
        with soundfile.SoundFile(stream, "w", codec.rate, 1, subtype, format="FLAC", compression_level=1.0) as file:
            file.write(samples)
    except (TypeError, ValueError, soundfile.LibsndfileError) as error:
        say(f"note: no FLAC baseline: {error}")
        return []
    bits = 8 * len(stream.getvalue()) / len(values)
    detail = f"lossless sound, its smallest, all sequences at once: {len(stream.getvalue()):,} bytes"
    return [Baseline("flac", bits * math.log(2), bits, detail)]
