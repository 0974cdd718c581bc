"""From a run of sequences to the content of its report."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run
from seriatim.cli.output import say
from seriatim.cli.reporting import footer, quick_checks, read_history
from seriatim.cli.sequence_contexts import contexts_of
from seriatim.cli.sequence_evaluate import SequenceScore, score_of
from seriatim.cli.sequence_explain import MERGE, Explained, most_surprising, threshold_of, tokens_of
from seriatim.cli.sequence_rows import SequenceRows, kind_of, rows_of
from seriatim.cli.sequence_samples import LINES, Imagined, imagine
from seriatim.cli.sequence_score import surprise_of
from seriatim.config import from_config
from seriatim.context import Attributes
from seriatim.data import Sequences
from seriatim.model import AutoregressiveModel
from seriatim.report.page import Block, Content, Facts, Headline, Listing, Section
from seriatim.report.sections import checks_section, curve_section, reproducibility_section
from seriatim.report.sequences import (
    Example,
    ScoredSequences,
    pair_samples,
    roll_samples,
    roll_surprise,
    sequence_card,
    sequence_headlines,
    sequence_score_section,
    series_samples,
    series_surprise,
    sound_samples,
    sound_surprise,
    text_samples,
    text_surprise,
)
from seriatim.report.series import stretches
from seriatim.tasks import surprise_inside

_TOKENS, _STEPS, _SECONDS = 4000, 160, 4.0  # of an example of the test at most
_CHECKED, _CHECKED_VECTORS = 12, 4  # positions of the model that is checked


def page_of_sequences(run: Run, data: Sequences, *, check: bool = True, seed: int = 0) -> tuple[Content, SequenceScore]:
    """Return the content of the report on a run of sequences, and its test score.

    Raises:
        UserError: a model without a run, whose data are not known.
    """
    if run.settings is None:
        raise UserError(f"{run.path}: expected a run, with config.yaml that names its data, got a model alone")
    name, codec = type(run.model).__name__, run.model.codec
    rows = rows_of(data, "test")
    say("report: score and baselines")
    score = score_of(run, rows, data, seed=seed)
    scored = ScoredSequences(
        name,
        score.found,
        score.baselines,
        score.unit,
        kind_of(codec) in ("text", "sound"),
        score.num_bytes,
        score.drawn,
        f"{_parameters(run.model):,} parameters",
        score.notes(),
    )
    say("report: samples")
    imagined = imagine(run, data, seed)
    say("report: surprise")
    sections = [
        sequence_score_section(scored, rows.source),
        samples_section(run, data, imagined, name),
        surprise_section(run, rows, score, seed),
    ]
    history = read_history(run.path / "metrics.csv")
    if len(history) > 1:
        sections.append(curve_section(history, name, data.unit))
    sections.append(cards(run, data, imagined))
    if check:
        say("report: conformance suite")
        sections.append(conformance(run, rows))
    command = f"seriatim train --config {run.path}/config.yaml"
    sections.append(reproducibility_section(command, run.settings.training.seed, {"data digest": data.digest}))
    number = sum(len(own.values) for own in (data.train,))
    subtitle = f"{number:,} {data.unit}s to learn from, {score.num_values:,} to be judged by."
    speed = _speed(run, data, imagined)
    return Content(f"{name} on {data.name}", subtitle, sequence_headlines(scored, speed), sections, footer()), score


def _parameters(model: AutoregressiveModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def samples_section(run: Run, data: Sequences, imagined: Imagined, name: str) -> Section:
    """Return samples beside training sequences, as they are heard, seen or read."""
    codec, kind = run.model.codec, kind_of(run.model.codec)
    caption = f"Drawn from {name}: exact samples, none picked."
    if data.sources is not None and data.source_codec is not None:
        own = rows_of(data, "test")
        places = np.linspace(0, len(own.values) - 1, min(LINES, len(own.values))).astype(int)
        sources = [data.source_codec.decode(data.sources["test"][int(i)]) for i in places]
        decoded = ([codec.decode(values) for values in group] for group in (imagined.real, imagined.sampled))
        return pair_samples(list(zip(sources, *decoded, strict=True)), caption)
    conditional = isinstance(run.model.encoder, Attributes)
    names = imagined.names if conditional else [f"number {k + 1}" for k in range(len(imagined.sampled))]
    if kind != "text" and (empty := sum(not len(values) for values in imagined.sampled)):
        caption += f" {empty} of {len(imagined.sampled)} ended at once and cannot be shown."
    if kind == "music":
        real = [Example(*own) for own in zip(imagined.names, imagined.real, strict=True)]
        sampled = [Example(*own) for own in zip(names, imagined.sampled, strict=True) if len(own[1])]
        return roll_samples(real, sampled, codec.rate, codec.lowest, caption)
    if kind == "series":
        real, sampled = (
            [Example(name, codec.decode(values), bits) for name, values, bits in zip(*own, strict=True)]
            for own in (
                (imagined.names, imagined.real, _costs(run, imagined.real, imagined.contexts)),
                (names, imagined.sampled, _costs(run, imagined.sampled, imagined.contexts)),
            )
        )
        return series_samples(real, sampled, codec.names, caption)
    real = [Example(own, codec.decode(values)) for own, values in zip(imagined.names, imagined.real, strict=True)]
    sampled = [
        Example(own, codec.decode(v))
        for own, v in zip(names, imagined.sampled, strict=True)
        if len(v) or kind == "text"
    ]
    if kind == "text":
        return text_samples(real, sampled, caption)
    return sound_samples(real, sampled, codec.rate, caption)


def _costs(run: Run, values: list[np.ndarray], contexts: Tensor | None) -> list[np.ndarray]:
    rows = SequenceRows([own.astype(np.float32) for own in values], [], "samples")
    found = surprise_of(run, rows, contexts, len(values), num_resamples=1)
    return [-terms.astype(np.float64) / math.log(2) for terms in found.values]


def surprise_section(run: Run, rows: SequenceRows, score: SequenceScore, seed: int) -> Section:
    """Return where test sequences surprise the model: a typical one, and the most surprising."""
    codec, kind = run.model.codec, kind_of(run.model.codec)
    contexts = contexts_of(run, None, rows)
    bits = [-terms.astype(np.float64) / math.log(2) for terms in score.found.values]
    own = Explained(rows, contexts, score.found, bits)
    if kind == "text":
        most = _TOKENS
        fitting = np.cumsum([len(values) + 1 for values in rows.values]) <= most
        few = _taken(own, range(max(1, int(fitting.sum()))))
        tokens, costs, unit = tokens_of(run, few)
        what = "The first test lines" if score.found.ends is not None else "The beginning of the test text"
        return text_surprise(tokens[:most], costs[:most], unit, f"{what}; colours are fixed, so that pages compare.")
    if kind == "series":
        threshold = threshold_of(run, own, 64)
        values, costs = rows.values[0], bits[0]
        found = stretches(costs, threshold, MERGE)
        caption = f"The test series. Shaded: steps above {threshold:.2f} bits, the 0.999-quantile of validation."
        return series_surprise(Example("test", codec.decode(values), costs), codec.names, found, threshold, caption)
    chosen = {"a typical test sequence": _typical(bits), "the most surprising test sequence": most_surprising(own)}
    if len(bits) == 1:
        chosen = {"the beginning of the test sequence": 0}
    examples = []
    for what, which in chosen.items():
        values, name = rows.values[which], f"{what} ({_called(run, rows, which)})"
        if kind == "music":
            values = values[:_STEPS]
            context = None if contexts is None else contexts[which]
            inside = -surprise_inside(run.model, values, context).astype(np.float64) / math.log(2)
            examples.append(Example(name, values, inside))
        else:
            first = slice(0, round(_SECONDS * codec.rate))
            examples.append(Example(name, codec.decode(values[first]), bits[which][first]))
    if kind == "music":
        return roll_surprise(examples, codec.rate, codec.lowest)
    return sound_surprise(examples, codec.rate)


def _taken(own: Explained, which: range) -> Explained:
    return Explained(own.rows.take(which), own.contexts, own.found, [own.bits[i] for i in which])


def _typical(bits: list[np.ndarray]) -> int:
    """The sequence whose bits per value are the median."""
    means = np.array([own.mean() if len(own) else np.inf for own in bits])
    return int(np.argsort(means, kind="stable")[(len(means) - 1) // 2])


def _called(run: Run, rows: SequenceRows, which: int) -> str:
    encoder = run.model.encoder
    if isinstance(encoder, Attributes) and rows.labels is not None:
        named = zip(encoder.attributes.items(), rows.labels[which], strict=True)
        return ", ".join(f"{name} {values[number]}" for (name, values), number in named)
    return f"number {rows.names[which]}"


def _speed(run: Run, data: Sequences, imagined: Imagined) -> Headline:
    """What sampling takes, as a number at the top."""
    each = imagined.seconds_per_value
    if kind_of(run.model.codec) == "sound" and data.rate:
        return Headline(f"{each * data.rate:.2f}", "seconds", "To make one second of audio", imagined.how)
    return Headline(f"{1 / each:,.0f}", f"{data.unit}s a second", "Speed of sampling", imagined.how)


def cards(run: Run, data: Sequences, imagined: Imagined) -> Section:
    """Return the cards of the data and the model, what was measured for this page, and the run's configuration."""
    model, each = run.model, imagined.seconds_per_value
    facts = [("class", type(model).__name__), ("values", repr(model.head)), ("codec", _codec(run))]
    if (field := getattr(model, "receptive_field", None)) is not None:
        seconds = f", {field / data.rate:.3g} seconds" if data.rate else ""
        facts.append(("receptive field", f"{field:,} {data.unit}s{seconds}"))
    elif model.network.any_length:
        facts.append(("receptive field", "all that came before"))
    facts.append(("parameters", f"{_parameters(model):,}"))
    if isinstance(model.encoder, Attributes):
        facts.append(("conditioned on", ", ".join(model.encoder.attributes)))
    facts += [(name, f"{value:.5g} {unit}") for name, (value, unit) in run.card.get("numbers", {}).items()]
    shown = f"{1000 * each:.3g} ms" if each >= 1e-3 else f"{1e6 * each:.3g} µs"
    facts.append(("sampling", f"{shown} per {data.unit}, {imagined.how}"))
    if kind_of(model.codec) == "sound" and data.rate:
        facts.append(("one second of audio", f"takes {each * data.rate:.3g} seconds to make"))
    blocks: list[Block] = [sequence_card(data), Facts(facts)]
    config = run.path / "config.yaml"
    blocks.append(Listing(config.read_text(encoding="utf-8"), "config.yaml of the run; --config takes it again."))
    return Section("Data and model", blocks)


def _codec(run: Run) -> str:
    fields = run.model.codec.model_dump()
    return ", ".join([str(fields.pop("codec")), *(f"{k} {v}" for k, v in fields.items() if isinstance(v, int | float))])


def conformance(run: Run, rows: SequenceRows) -> Section:
    """Return the conformance suite on the model, over a few positions where its network runs over any length."""
    from seriatim.testing import check

    model, context = _short(run.model), None
    if not isinstance(model.encoder, Attributes | None):
        given = contexts_of(run, None, rows)
        assert given is not None

        def context(count: int) -> Tensor:
            return given[torch.arange(count) % len(given)]

    length = model.order.length
    what = (
        f"as trained, over {length} positions: no weight belongs to one." if model is not run.model else "as trained."
    )
    return checks_section([(check(model, context=context, only=quick_checks()), what)])


def _short(model: AutoregressiveModel) -> AutoregressiveModel:
    """The same weights over a few positions."""
    if not model.network.any_length:
        return model
    length = min(int(model.event_shape[0]), _CHECKED if not model.head.value_shape else _CHECKED_VECTORS)
    config = model.config
    arguments = {**config["arguments"], "event_shape": [length]}
    short = from_config({**config, "arguments": arguments})
    assert isinstance(short, AutoregressiveModel)
    short.load_state_dict(model.state_dict())
    return short.eval()
