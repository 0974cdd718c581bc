"""The sections of a report on sequences, made from what the tasks return and from what people hear, see and read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from seriatim.data.sequences import Sequences
from seriatim.report.audio import clips, player, surprise_figure
from seriatim.report.music import roll_figure, synthesise
from seriatim.report.page import Bar, Bars, Block, Facts, Headline, Html, Section, Table
from seriatim.report.series import MAX_COLUMNS, Stretch, series_figure, stretch_table
from seriatim.report.text import coloured_tokens, visible
from seriatim.tasks import Baseline, Surprise

_PLAYED = 16000  # samples a second of a piano roll that is played


@dataclass(frozen=True)
class ScoredSequences:
    """A model with its score on the test sequences, as a report shows it.

    Attributes:
        name: of the model.
        found: the score.
        baselines: on the same sequences.
        unit: what one value is.
        in_bits: whether bits per value are the usual number, as for sound and text, or nats.
        num_bytes: of texts; None for others.
        drawn: what the bootstrap draws.
        detail: what stands beside the model in the table.
        notes: what is told below the table.
    """

    name: str
    found: Surprise
    baselines: Sequence[Baseline]
    unit: str
    in_bits: bool
    num_bytes: int | None = None
    drawn: str = "sequences"
    detail: str = ""
    notes: Sequence[str] = ()

    @property
    def number(self) -> str:
        """The unit of the usual number."""
        return f"{'bits' if self.in_bits else 'nats'} per {self.unit}"

    def usual(self, nats: float) -> float:
        """Return nats per value as the usual number."""
        return nats / math.log(2) if self.in_bits else nats

    @property
    def best(self) -> Baseline | None:
        """The best of the baselines that apply."""
        return min((b for b in self.baselines if b.nats is not None), key=lambda b: b.nats or 0.0, default=None)


def sequence_headlines(scored: ScoredSequences, speed: Headline | None = None) -> list[Headline]:
    """Return the numbers at the top: nats or bits per value, the same by size, the gain over the best baseline.

    Example:
        >>> found = Surprise([np.log([0.5, 0.5])], None, (0.6, 0.8), 0.95)
        >>> [h.value for h in sequence_headlines(ScoredSequences("LSTM", found, [], "sample", True))]
        ['1.000', '0.693']
    """
    found = scored.found
    low, high = (scored.usual(end) for end in found.interval)
    note = f"95 % interval {low:.3f} to {high:.3f}" if high > low else f"{found.lengths.sum():,} {scored.unit}s"
    shown = [Headline(f"{scored.usual(found.nats):.3f}", scored.number, "Test score, −log p", note)]
    if scored.num_bytes is not None and scored.unit != "byte":
        bits = found.bits * float(found.lengths.sum()) / scored.num_bytes
        shown.append(Headline(f"{bits:.3f}", "bits per byte", "The same by size", f"{scored.num_bytes:,} bytes"))
    elif scored.in_bits:
        shown.append(Headline(f"{found.nats:.3f}", f"nats per {scored.unit}", "The same in nats"))
    else:
        shown.append(Headline(f"{found.bits:.3f}", f"bits per {scored.unit}", "The same in bits"))
    if scored.best is not None and scored.best.nats is not None:
        gain = scored.usual(scored.best.nats - found.nats)
        note = f"{scored.usual(scored.best.nats):.3f} {scored.number}"
        shown.append(Headline(_signed(gain), scored.number, f"Gained over {scored.best.name}", note))
    return shown + ([] if speed is None else [speed])


def sequence_score_section(scored: ScoredSequences, source: str) -> Section:
    """Return the bars and the table of a model beside baselines, best first.

    Example:
        >>> found = Surprise([np.log([0.5, 0.5])], None, (0.6, 0.8), 0.95)
        >>> scored = ScoredSequences("LSTM", found, [Baseline("xz", 1.5, 2.16, "")], "sample", True)
        >>> sequence_score_section(scored, "tones, test").blocks[1].rows[1]
        ['xz', '1.5000', '2.1640', '', '']
    """
    found, usual = scored.found, scored.usual
    applicable = [b for b in scored.baselines if b.nats is not None]
    bars = [Bar(b.name, usual(b.nats or 0.0), f"{usual(b.nats or 0.0):.3f}", detail=b.detail) for b in applicable]
    own = usual(found.nats)
    low, high = (usual(end) for end in found.interval)
    bars.append(Bar(scored.name, own, f"{own:.3f}", (low, high) if high > low else None, True, scored.detail))
    kept = f"{len(found.values):,} test sequence{'s' if len(found.values) > 1 else ''}"
    caption = f"Mean of {found.lengths.sum():,} {scored.unit}s of {kept} in {scored.number}: shorter is better."
    if high > low:
        caption += f" The whisker is a {found.confidence:.0%} bootstrap interval over {scored.drawn}."
    rows: list[tuple[float, list[str]]] = [
        (b.nats or 0.0, [b.name, *_numbers(b.nats), "", b.detail]) for b in applicable
    ]
    rows += [(math.inf, [b.name, "–", "–", "", b.detail]) for b in scored.baselines if b.nats is None]
    interval = f"{low:.4f} to {high:.4f} {'bits' if scored.in_bits else 'nats'}" if high > low else ""
    rows.append((found.nats, [scored.name, *_numbers(found.nats), interval, scored.detail]))
    header = ["", f"nats per {scored.unit}", f"bits per {scored.unit}", "95 % interval", "what it is"]
    notes = " ".join(note[:1].upper() + note[1:] + "." for note in scored.notes)
    cells = [cells for _, cells in sorted(rows, key=lambda row: row[0])]
    table = Table(header, cells, notes, numeric=(1, 2, 3))
    blocks: list[Block] = [Bars(sorted(bars, key=lambda bar: bar.value), caption)]
    positive = all(bar.value >= 0 for bar in bars)
    lead = f"Exact likelihoods of what the model has not seen ({source}), beside what knows less."
    return Section("How good is it?", [*(blocks if positive else []), table], lead)


def _numbers(nats: float | None) -> list[str]:
    return [f"{nats or 0.0:.4f}", f"{(nats or 0.0) / math.log(2):.4f}"]


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


class Example(NamedTuple):
    """A sequence that is shown: its name, what people have (samples, a text, a roll, measurements), and its bits."""

    name: str
    raw: np.ndarray | str
    bits: np.ndarray | None = None


def sound_samples(real: Sequence[Example], sampled: Sequence[Example], rate: int, caption: str) -> Section:
    """Return clips of training and of the model side by side, each a spectrogram over a player.

    Example:
        >>> clip = Example("a click", np.eye(1, 800)[0])
        >>> section = sound_samples([clip], [clip], 8000, "Drawn from WaveNet.")
        >>> section.blocks[0].html.count("<audio")
        2
    """
    items = [(f"{what}: {one.name}", np.asarray(one.raw)) for what, own in _both(real, sampled) for one in own]
    return _samples([Html(clips(items, rate, lines=[len(real)]), caption)])


def roll_samples(
    real: Sequence[Example], sampled: Sequence[Example], rate: float, lowest: int, caption: str
) -> Section:
    """Return piano rolls of training and of the model, each over a player.

    Example:
        >>> roll = Example("a tune", np.eye(4, 88, 40))
        >>> len(roll_samples([roll], [roll], 2.0, 21, "Drawn from LSTM.").blocks)
        2
    """
    blocks: list[Block] = []
    for what, own in _both(real, sampled):
        for one in own:
            roll = np.asarray(one.raw)
            figure = roll_figure(roll, steps_per_second=rate, lowest=lowest).svg()
            heard = player(synthesise(roll, rate, _PLAYED, lowest=lowest), _PLAYED, f"{what}: {one.name}")
            blocks.append(Html(figure + heard))
    blocks[-1] = Html(blocks[-1].html, caption) if isinstance(blocks[-1], Html) else blocks[-1]
    return _samples(blocks)


def series_samples(real: Sequence[Example], sampled: Sequence[Example], names: Sequence[str], caption: str) -> Section:
    """Return stretches of training and of the model over what each step costs.

    Example:
        >>> line = Example("a ramp", np.arange(9.0), np.ones(9))
        >>> len(series_samples([line], [line], ["volts"], "Drawn from LSTM.").blocks)
        2
    """
    blocks: list[Block] = []
    for what, own in _both(real, sampled):
        for one in own:
            shown = _columns(np.asarray(one.raw))
            assert one.bits is not None
            figure = series_figure(shown, one.bits, names=list(names)[:MAX_COLUMNS])
            blocks.append(Html(figure.svg(), f"{what[:1].upper()}{what[1:]}: {one.name}."))
    last = blocks[-1]
    blocks[-1] = Html(last.html, f"{last.caption} {caption}") if isinstance(last, Html) else last
    return _samples(blocks)


def text_samples(real: Sequence[Example], sampled: Sequence[Example], caption: str) -> Section:
    """Return texts of training and of the model: short ones as a table of lines, long ones one after the other.

    Example:
        >>> section = text_samples([Example("line 1", "to be")], [Example("0", "or <not>")], "Drawn from GRU.")
        >>> section.blocks[0].rows
        [['to be', 'or <not>']]
    """
    texts = [str(one.raw) for one in real]
    if max(map(len, texts)) <= _LINE and not any("\n" in text for text in texts):
        lines = [str(one.raw).replace("\n", "↵") for one in sampled]
        rows = [list(pair) for pair in zip(texts, lines, strict=False)]
        return _samples([Table(("from training", "sampled"), rows, caption, mono=(0, 1))])
    blocks: list[Block] = []
    for what, own in _both(real, sampled):
        blocks += [Html(_lines(str(one.raw)), f"{what[:1].upper()}{what[1:]}: {one.name}.") for one in own]
    last = blocks[-1]
    blocks[-1] = Html(last.html, f"{last.caption} {caption}") if isinstance(last, Html) else last
    return _samples(blocks)


_LINE = 160  # characters of a text that fits into a table


def pair_samples(rows: Sequence[tuple[str, str, str]], caption: str) -> Section:
    """Return sources of the test with what the data and what the model say.

    Example:
        >>> pair_samples([("Hund", "dog", "dig")], "Drawn from Transformer.").blocks[0].header
        ('source', 'target', 'sampled')
    """
    return _samples([Table(("source", "target", "sampled"), [list(row) for row in rows], caption, mono=(1, 2))])


def _both(real: Sequence[Example], sampled: Sequence[Example]) -> list[tuple[str, Sequence[Example]]]:
    return [("real", real), ("sampled", sampled)]


def _samples(blocks: Sequence[Block]) -> Section:
    return Section("What does it imagine?", blocks, "Exact samples, none picked, beside what it learned from.")


def _lines(text: str) -> Markup:
    body = Markup("").join(Markup("<div>{}</div>").format(visible(line)) for line in text.split("\n"))
    return Markup('<div class="tokens plain">{}</div>').format(body)


def _columns(values: np.ndarray) -> np.ndarray:
    return values.reshape(len(values), -1)[:, :MAX_COLUMNS]


def sound_surprise(examples: Sequence[Example], rate: int) -> Section:
    """Return test clips over their surprise, each with a player.

    Example:
        >>> section = sound_surprise([Example("a click", np.eye(1, 800)[0], np.ones(800))], 8000)
        >>> "<audio" in section.blocks[0].html
        True
    """
    blocks = [
        Html(surprise_figure(np.asarray(one.raw), _bits(one), rate).svg() + player(np.asarray(one.raw), rate, one.name))
        for one in examples
    ]
    return _surprise(blocks, "sample")


def roll_surprise(examples: Sequence[Example], rate: float, lowest: int) -> Section:
    """Return test pieces over their surprise; `bits` of an example may be those of each note.

    Example:
        >>> len(roll_surprise([Example("a tune", np.eye(4, 88, 40), np.ones(4))], 2.0, 21).blocks)
        1
    """
    blocks = [
        Html(
            roll_figure(np.asarray(one.raw), one.bits, steps_per_second=rate, lowest=lowest).svg(),
            f"{one.name[:1].upper()}{one.name[1:]}.",
        )
        for one in examples
    ]
    return _surprise(blocks, "step")


def text_surprise(tokens: Sequence[str], bits: np.ndarray, unit: str, caption: str) -> Section:
    """Return a test text whose tokens have the colour of their bits.

    Example:
        >>> text_surprise(["a", "b"], np.ones(2), "character", "").title
        'What surprises it?'
    """
    return _surprise([Html(coloured_tokens(tokens, bits, unit=unit), caption)], unit)


def series_surprise(
    example: Example, names: Sequence[str], found: Sequence[Stretch], threshold: float, caption: str
) -> Section:
    """Return a test series over its surprise, anomalous stretches shaded and in a table.

    Example:
        >>> one = Example("test", np.arange(9.0), np.ones(9))
        >>> len(series_surprise(one, ["volts"], [Stretch(3, 5, 9.0)], 4.0, "").blocks)
        2
    """
    shown = _columns(np.asarray(example.raw))
    figure = series_figure(shown, _bits(example), names=list(names)[:MAX_COLUMNS], found=found, threshold=threshold)
    caption += "" if found else " No step is."
    return _surprise([Html(figure.svg(), caption), *([stretch_table(found)] if found else [])], "step")


def _bits(example: Example) -> np.ndarray:
    assert example.bits is not None
    return example.bits


def _surprise(blocks: Sequence[Block], unit: str) -> Section:
    return Section("What surprises it?", blocks, f"Where the bits go: −log₂ p of each {unit} given those before it.")


def sequence_card(data: Sequences) -> Facts:
    """Return what is known of a data set of sequences.

    Example:
        >>> from seriatim.data import Ragged
        >>> words = Ragged(np.array([0, 1, 1], dtype=np.uint8), [1, 2])
        >>> data = Sequences("words", words, words, words, kind="categorical", levels=2, unit="letter")
        >>> sequence_card(data).facts[1]
        ('one value', 'a letter, categorical, 2 levels')
    """
    levels = f", {data.levels:,} levels" if data.levels and data.kind != "binary" else ""
    shape = "" if not data.value_shape else f" of {' × '.join(map(str, data.value_shape))} values"
    facts = [("name", data.name), ("one value", f"a {data.unit}{shape}, {data.kind}{levels}")]
    for name, own in data.splits.items():
        lengths = f" of {own.lengths.min():,} to {own.lengths.max():,}" if len(own) > 1 else ""
        several = "s" if len(own) > 1 else ""
        what = f"sequence{several} that end{'' if several else 's'}" if data.ends else f"stream{several}"
        facts.append((name, f"{len(own):,} {what}{lengths}, {len(own.values):,} {data.unit}s"))
    if data.rate is not None:
        seconds = sum(len(own.values) for own in data.splits.values()) / data.rate
        facts.append(("rate", f"{data.rate:g} {data.unit}s a second, {seconds:,.1f} seconds in all"))
    facts += [(f"attribute {name}", _listed(values)) for name, values in data.attributes.items()]
    facts += [("note", note) for note in data.notes]
    source = data.provenance.get("source") or data.provenance.get("path")
    facts += [("source", str(source))] if source else []
    return Facts([*facts, ("sha256", data.digest)])


def _listed(values: Sequence[str], most: int = 12) -> str:
    return ", ".join(values[:most]) + (f" and {len(values) - most} more" if len(values) > most else "")
