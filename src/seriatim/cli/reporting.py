"""From a run to the content of its report."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seriatim.cli.drawing import Drawn, drawn
from seriatim.cli.errors import UserError
from seriatim.cli.evaluate import compared
from seriatim.cli.loading import Rows, Run, contexts, open_run, own_rows
from seriatim.cli.output import say
from seriatim.context import Labels
from seriatim.ensemble import OrderEnsemble
from seriatim.report.classes import classes_section
from seriatim.report.page import Block, Content, Facts, Listing, Section
from seriatim.report.sections import (
    Scored,
    checks_section,
    completion_section,
    curve_section,
    data_card,
    headlines,
    reproducibility_section,
    samples_section,
    score_section,
    surprise_section,
)
from seriatim.report.views import MAX_COLUMNS, View
from seriatim.tasks import (
    REGIONS,
    Evaluation,
    calibrate,
    classify,
    complete,
    evaluate,
    explain,
    log_prob_given,
)
from seriatim.tasks import region as region_mask
from seriatim.tasks.rows import Joint, take

_COMPLETED_ROWS, _COMPLETIONS = 4, 8
_CLASSIFIED_ROWS = 2000


def page_of(
    path: Path, *, check: bool = True, orders: int | None = None, seed: int = 0, device: str = "auto"
) -> tuple[Content, Evaluation]:
    """Return the content of the report on a run, and its test score.

    Raises:
        UserError: a model without a run, whose data are not known.
    """
    run = open_run(path, device)
    if run.settings is None:
        raise UserError(f"{path}: expected a run, with config.yaml that names its data, got a model alone")
    rows = own_rows(run, "test")
    joint = run.joint(contexts(run, None, rows) if run.model.encoder is not None else None, orders)
    name = type(run.model).__name__ + (f", {orders} orders" if orders else "")
    say("report: score and baselines")
    score = evaluate(joint, rows.x, seed=seed)
    others = compared(run, rows.x)
    view = View(run.model.event_shape, run.kind[1], run.schema)
    scored = Scored(name, score, f"{sum(p.numel() for p in run.model.parameters()):,} parameters")
    sections = [score_section([scored], others, view.noun, len(rows.x), rows.binarised)]
    say("report: samples, completions, surprise")
    imagined = drawn(run, joint, view, seed, orders)
    sections += pictures(run, joint, rows.x, view, name, seed, imagined)
    if orders is None and isinstance(run.model.encoder, Labels):
        say("report: classes")
        sections.append(_classes(run, rows))
    history = read_history(path / "metrics.csv")
    if len(history) > 1:
        sections.append(curve_section(history, name))
    sections.append(cards(run, {"time": imagined.time}))
    if check:
        say("report: conformance suite")
        sections.append(_conformance(run))
    command = f"seriatim train --config {path}/config.yaml"
    sections.append(reproducibility_section(command, run.settings.training.seed, {"data digest": run.data.digest}))
    data = run.data
    subtitle = f"{_one_row(data)}; {len(data.train):,} rows to learn from, {len(rows.x):,} to be judged by."
    return Content(f"{name} on {data.name}", subtitle, headlines(scored, others, view.noun), sections, footer()), score


def pictures(
    run: Run, joint: Joint, test: np.ndarray, view: View, name: str, seed: int, imagined: Drawn
) -> list[Section]:
    """Return samples, completions (where a region is exact) and surprise."""
    train = run.data.train
    context = None if run.model.encoder is None or run.data.labels is None else run.data.labels["test"]
    sections = [samples_section(view, imagined.samples, train, name, imagined.classes, imagined.time)]
    own = run.joint(None if context is None else spread(context, _COMPLETED_ROWS))
    completed = _completion(own, spread(test, _COMPLETED_ROWS), view, name, seed)
    sections += [] if completed is None else [completed]
    return [*sections, surprise_section(view, test, explain(joint, test), name)]


def _completion(own: Joint, rows: np.ndarray, view: View, name: str, seed: int) -> Section | None:
    """Return completions given the first region that is exact; of rows that are no images, given the first half."""
    order = own.members[0].order if isinstance(own, OrderEnsemble) else own.order
    if view.is_image:
        masks = {f"the {region}": region_mask(region, order.shape) for region in REGIONS}
    elif view.num_places < 2 or view.num_places > MAX_COLUMNS:
        return None
    else:
        given = order.permutation[: order.length // 2]
        mask = torch.zeros(order.length, dtype=torch.bool)
        mask[given] = True
        masks = {", ".join(view.names()[int(d)] for d in given): mask.reshape(order.shape)}
        rows = rows[:3]
        own = take(own, torch.arange(len(rows))) if own.batch_shape else own
    for what, mask in masks.items():
        try:
            done = complete(own, rows, mask, num=_COMPLETIONS if view.is_image else 3, seed=seed)
        except ValueError:  # not exact for this model
            continue
        return completion_section(view, rows, done, log_prob_given(own, rows, mask).numpy(), name, f"Given: {what}.")
    return None


def _classes(run: Run, rows: Rows) -> Section:
    """Return how well classes are told apart, on test rows evenly spaced, calibrated on as many validation rows."""
    valid = own_rows(run, "valid")
    temperature = None
    if len(valid.x) and valid.labels is not None:
        few = spread(valid.x, _CLASSIFIED_ROWS), spread(valid.labels, _CLASSIFIED_ROWS)
        temperature = calibrate(run.model, *few)
    assert rows.labels is not None
    x, y = spread(rows.x, _CLASSIFIED_ROWS), spread(rows.labels, _CLASSIFIED_ROWS)
    return classes_section(classify(run.model, x, y, temperature=temperature), f"{len(x):,} test rows")


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return some rows evenly spaced over all, for test sets may be sorted."""
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def cards(run: Run, measured: Mapping[str, str]) -> Section:
    """Return the cards of the data and the model, what was measured for this page, and the run's configuration."""
    model = run.model
    facts = [
        ("class", type(model).__name__),
        ("values", repr(model.head)),
        ("parameters", f"{sum(p.numel() for p in model.parameters()):,}"),
    ]
    if model.encoder is not None:
        facts.append(("conditioned on", repr(model.encoder)))
    facts += [(name, f"{value:.5g} {unit}") for name, (value, unit) in run.card.get("numbers", {}).items()]
    facts += measured.items()
    blocks: list[Block] = [data_card(run.data), Facts(facts)]
    config = run.path / "config.yaml"
    if config.is_file():
        blocks.append(Listing(config.read_text(encoding="utf-8"), "config.yaml of the run; --config takes it again."))
    return Section("Data and model", blocks)


def _conformance(run: Run) -> Section:
    from seriatim.testing import check

    return checks_section([(check(run.model, only=quick_checks()), "as trained, in its own size.")])


def quick_checks() -> list[str]:
    """Return the checks that are quick in any size: not those that draw 20,000 samples or take 200 steps."""
    from seriatim.testing.suite import CHECKS

    return [name for name in CHECKS if name not in ("sample_law", "point_mass")]


def read_history(file: Path) -> list[dict[str, str]]:
    """Return the rows of `metrics.csv`, none where there is no such file."""
    if not file.is_file():
        return []
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _one_row(data: Any) -> str:
    if data.schema is not None:
        return f"A table of {len(data.schema)} columns"
    how = "" if data.binarisation is None else f", binarised: {data.binarisation}"
    return f"{' × '.join(map(str, data.event_shape))} {data.kind} values{how}"


def footer() -> str:
    """Return the line at the end of a page."""
    return "log p(x) = Σ log p(xₜ | x₁ … xₜ₋₁). Made with seriatim; this page holds all it needs."
