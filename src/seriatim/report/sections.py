"""The sections of a report, made from what the tasks return."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seriatim.report.page import (
    Bar,
    Bars,
    Block,
    Checks,
    Curve,
    Facts,
    Headline,
    Section,
    Table,
    TileRow,
    Tiles,
)
from seriatim.report.views import View
from seriatim.tasks import Baseline, Completion, Evaluation, Explanation, paired_difference

_MAX_LISTED = 24  # columns


@dataclass(frozen=True)
class Scored:
    """A model with its score on the test rows, as a report shows it."""

    name: str
    evaluation: Evaluation
    detail: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def headlines(best: Scored, baselines: Sequence[Baseline], noun: str) -> list[Headline]:
    """Return the numbers at the top: nats, bits per dimension, and the gain over the best baseline."""
    result = best.evaluation
    low, high = result.interval
    lower, upper = result.bits_per_dim_interval
    shown = [
        Headline(
            f"{result.nats:.2f}", f"nats per {noun}", "Test score, −log p(x)", f"95 % interval {low:.2f} to {high:.2f}"
        ),
        Headline(
            f"{result.bits_per_dim:.4f}", "bits/dim", "The same per value", f"95 % interval {lower:.4f} to {upper:.4f}"
        ),
    ]
    rivals = [b for b in baselines if b.log_prob is not None and b.nats is not None]
    if rivals:
        rival = min(rivals, key=lambda b: b.nats or math.inf)
        assert rival.log_prob is not None
        gain, (least, most) = paired_difference(result.log_prob, rival.log_prob)
        note = f"paired 95 % interval {least:+.2f} to {most:+.2f}".replace("-", "−")
        shown.append(Headline(f"{gain:+.2f}".replace("-", "−"), "nats", f"Gained over {rival.name}", note))
    compressors = [b for b in baselines if b.log_prob is None and b.nats is not None]
    if compressors:
        rival = min(compressors, key=lambda b: b.nats or math.inf)
        assert rival.nats is not None
        note = f"{rival.nats:.1f} nats per {noun}, over all test rows at once"
        shown.append(Headline(f"{rival.nats / result.nats:.1f} ×", "", f"Smaller than {rival.name}", note))
    return shown


def score_section(
    models: Sequence[Scored], baselines: Sequence[Baseline], noun: str, num_rows: int, binarised: str | None = None
) -> Section:
    """Return the bars and the table of models beside baselines, best first, and how grey values became bits."""
    bars = [
        Bar(m.name, m.evaluation.nats, f"{m.evaluation.nats:.2f} nats", m.evaluation.interval, True, m.detail)
        for m in models
    ]
    applicable = [b for b in baselines if b.nats is not None and math.isfinite(b.nats)]
    bars += [Bar(b.name, b.nats or 0.0, f"{b.nats:.2f} nats", detail=b.detail) for b in applicable]
    ordered = sorted(bars, key=lambda bar: bar.value)
    positive = all(bar.value >= 0 for bar in bars)
    caption = (
        f"Mean −log p(x) of {num_rows:,} test rows in nats per {noun}: shorter is better. Whiskers are 95 % bootstrap "
        "intervals over rows."
    )
    if any(b.log_prob is None for b in applicable):
        caption += " Compressors see the same rows as packed bytes, all at once."
    blocks: list[Block] = [Bars(ordered, caption)] if positive else []
    blocks.append(_score_table(models, baselines, "" if binarised is None else f"Bits from grey: {binarised}."))
    return Section(
        "How good is it?", blocks, "Exact likelihoods of rows that no model has seen, beside what knows less."
    )


def _score_table(models: Sequence[Scored], baselines: Sequence[Baseline], caption: str) -> Table:
    rows: list[tuple[float, list[str]]] = []
    for m in models:
        low, high = m.evaluation.interval
        cells = [f"{m.evaluation.nats:.3f}", f"{low:.3f} to {high:.3f}", f"{m.evaluation.bits_per_dim:.4f}"]
        rows.append((m.evaluation.nats, [m.name, *cells, m.detail]))
    for b in baselines:
        if b.nats is None or b.bits_per_dim is None:
            rows.append((math.inf, [b.name, "–", "", "–", b.detail]))
        else:
            rows.append((b.nats, [b.name, f"{b.nats:.3f}", "", f"{b.bits_per_dim:.4f}", b.detail]))
    header = ["", "nats per row", "95 % interval", "bits/dim", "what it is"]
    return Table(header, [cells for _, cells in sorted(rows, key=lambda row: row[0])], caption, numeric=(1, 2, 3))


def samples_section(
    view: View, samples: np.ndarray, train: np.ndarray, model: str, classes: Sequence[TileRow] = (), time: str = ""
) -> Section:
    """Return samples beside training rows, each above the training row that is nearest to it; then rows by class."""
    groups = [("samples", samples)]
    caption = f"Drawn from {model}: exact samples, none picked.{time and f' {time}.'}"
    if view.levels is not None:
        which, distances = nearest(samples, train)
        groups.append(("nearest training rows", train[which]))
        copies = int((distances == 0).sum())
        caption += (
            f" Below each its nearest training row (least total difference): {copies} of {len(samples)} samples "
            f"repeat one. The last line is training rows as they come."
        )
    groups.append(("training rows", train[: len(samples)]))
    blocks = [view.rows(groups, caption)]
    if classes:
        blocks.append(Tiles(classes, "Drawn given the class that stands before the line.", view.tile_width))
    return Section("What does it imagine?", blocks, "Samples, beside the rows it learned from.")


def nearest(rows: np.ndarray, known: np.ndarray, chunk: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    """Return which known row is nearest to each row by total difference of whole numbers, and how far it is.

    Example:
        >>> nearest(np.array([[3, 0]]), np.array([[9, 9], [3, 1]], dtype=np.uint8))
        (array([1]), array([1]))
    """
    flat = rows.reshape(len(rows), -1).astype(np.int32)
    parts = [known[first : first + chunk] for first in range(0, len(known), chunk)]
    wide = (part.reshape(len(part), -1).astype(np.int32) for part in parts)
    distances = np.concatenate([np.stack([np.abs(part - row).sum(1) for row in flat]) for part in wide], axis=1)
    return distances.argmin(1), distances.min(1)


def completion_section(
    view: View, x: np.ndarray, done: Completion, truth: np.ndarray, model: str, what: str
) -> Section:
    """Return completions of images with their log p, between what was given and what was true."""
    observed = done.observed.numpy()
    lead = "Exact samples of p(missing | observed): not one guess, but the spread of what is possible."
    if not view.is_image:
        return Section("Can it fill in what is missing?", [_completion_table(view, x, done, truth, what)], lead)
    rows = []
    for n, row in enumerate(x):
        tiles = [view.tile(row, "given", observed=observed)]
        for k in range(len(done.samples)):
            tiles.append(view.tile(done.samples[k, n].numpy(), _signed(float(done.log_prob[k, n])), alt="a completion"))
        tiles.append(view.tile(row, f"truth {_signed(truth[n])}"))
        rows.append(TileRow("", tiles))
    caption = (
        f"{what} The hatched part was hidden from {model}; below each completion stands log p(missing | observed) in "
        f"nats ({done.exactness}), below the last tile that of the truth. Observed values are returned bit for bit."
    )
    return Section("Can it fill in what is missing?", [Tiles(rows, caption, view.tile_width + 14)], lead)


def _completion_table(view: View, x: np.ndarray, done: Completion, truth: np.ndarray, what: str) -> Table:
    """Return completions of rows as a table: what was given, the completions, the truth."""
    observed = done.observed.numpy().reshape(-1)
    rows, hidden = [], []
    for n, row in enumerate(x):
        rows.append(("given", row))
        rows += [(f"{_signed(float(p))} nats", done.samples[k, n].numpy()) for k, p in enumerate(done.log_prob[:, n])]
        rows.append((f"truth {_signed(truth[n])} nats", row))
        hidden += [~observed, *[np.zeros_like(observed)] * (len(done.samples) + 1)]
    caption = f"{what} Beside each completion stands log p(missing | observed) ({done.exactness})."
    return view.table(rows, caption, np.stack(hidden))


def _signed(number: float) -> str:
    return f"{number:.1f}".replace("-", "−")


def surprise_section(view: View, test: np.ndarray, explanation: Explanation, model: str, count: int = 10) -> Section:
    """Return where typical and the most surprising test rows surprise the model."""
    order = np.argsort(-explanation.log_prob, kind="stable")
    middle = len(order) // 2
    start = max(0, middle - count // 2)
    blocks: list[Block] = []
    for what, rows in (
        ("Typical test rows", order[start : start + count]),
        ("The most surprising", order[::-1][:count]),
    ):
        labels = [f"{-explanation.log_prob[r] / math.log(2):.1f} bits" for r in rows]
        caption = f"{what}: −log₂ p of each value given those before it, under {model}; {explanation.note}."
        blocks.append(view.surprise(test[rows], explanation.bits[rows], labels, caption, explanation.bits))
    if not view.is_image:
        columns = sorted(explanation.columns(view.names()), key=lambda c: -c.mean_bits)[:12]
        cells = [
            [c.name, f"{c.mean_bits:.3f}", f"{c.std_bits:.3f}", f"{c.max_bits:.2f}", str(c.max_row)] for c in columns
        ]
        header = ["column", "mean bits", "standard deviation", "largest", "in test row"]
        blocks.append(Table(header, cells, "The columns that cost the most bits.", numeric=(1, 2, 3, 4)))
    lead = "Where the bits go: dark is expected, bright is news." if view.is_image else "Where the bits go."
    return Section("What surprises it?", blocks, lead)


def curve_section(history: Sequence[Mapping[str, Any]], model: str, unit: str = "row") -> Section:
    """Return the training curve, in nats per unit."""
    lines = {
        name: [(float(r["epoch"]), float(r[key])) for r in history if r.get(key) not in (None, "")]
        for name, key in (("training", "train_nats"), ("validation", "valid_nats"))
    }
    lines = {name: line for name, line in lines.items() if line}
    mark = None
    if lines.get("validation"):
        x, y = min(lines["validation"], key=lambda point: point[1])
        mark = (x, y, f"kept: {y:.2f} at epoch {x:.0f}")
    caption = (
        f"{model}. Training is measured while learning, with dropout where there is any, so it may lie above "
        "validation; the weights kept are those of the best validation."
    )
    return Section("How did it learn?", [Curve(lines, "epoch", f"nats per {unit}", caption, mark)])


def checks_section(reports: Sequence[tuple[Any, str]]) -> Section:
    """Return conformance reports, each with the sentence that says what was checked."""
    blocks: list[Block] = []
    for report, what in reports:
        results = [
            (r.status, r.name.replace("_", " "), r.detail if r.status != "passed" else "") for r in report.results
        ]
        blocks.append(Checks(report.model, results, what))
    lead = (
        "The conformance suite proves that a model is what it says: causal, normalised, the same in one pass and step "
        "by step, its samples those of its probabilities."
    )
    return Section("Is it right?", blocks, lead)


def data_card(data: Any) -> Facts:
    """Return what is known of a data set (`seriatim.data.Dataset`)."""
    levels = f", {data.levels} levels" if data.levels and data.kind != "binary" else ""
    facts = [
        ("name", data.name),
        ("one row", f"{' × '.join(map(str, data.event_shape))} values, {data.kind}{levels}"),
        ("rows", ", ".join(f"{name} {len(x):,}" for name, x in data.splits.items())),
    ]
    if data.num_classes:
        facts.append(("classes", str(data.num_classes)))
    if data.binarisation is not None:
        facts.append(("binarised", data.binarisation))
    if data.schema is not None:
        facts += [("column", column.describe()) for column in data.schema.columns[:_MAX_LISTED]]
        if len(data.schema) > _MAX_LISTED:
            facts.append(("", f"and {len(data.schema) - _MAX_LISTED} more columns"))
    facts += [("note", note) for note in data.notes]
    source = data.provenance.get("source") or data.provenance.get("path")
    facts += [("source", str(source))] if source else []
    return Facts([*facts, ("sha256", data.digest)])


def reproducibility_section(command: str, seed: int | str, extra: Mapping[str, str] | None = None) -> Section:
    """Return what somebody needs to make the same page: command, seed, versions, hardware."""
    import torch

    from seriatim import __version__

    now = datetime.datetime.now(datetime.UTC)
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    facts = [
        ("command", command),
        ("seed", str(seed)),
        (
            "versions",
            f"seriatim {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
            f"NumPy {np.__version__}",
        ),
        (
            "machine",
            f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads",
        ),
        ("GPU", device),
        *(extra or {}).items(),
        ("written", now.strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return Section("Can I make it again?", [Facts(facts)])
