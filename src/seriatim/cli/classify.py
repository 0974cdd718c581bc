"""`seriatim classify`: the classes of rows by Bayes' rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import BatchOption, DeviceOption, JsonOption, OutOption, RunArgument, SplitOption
from seriatim.cli.output import csv_text, say, show, show_json, write_file

if TYPE_CHECKING:
    import numpy as np

    from seriatim.cli.loading import Rows, Run
    from seriatim.tasks import Classification, Quality

PRIORS = ("uniform", "frequencies")
CURVE_ENDINGS = (".png", ".svg", ".csv")
CURVE_HEADER = ("positions", "share", "accuracy", "mean_p_true", "log_loss_nats", "calibration_error")


def run(
    path: RunArgument,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Rows to classify; if not given, those of the run's data.")
    ] = None,
    split: SplitOption = None,
    prior: Annotated[
        str, typer.Option("--prior", metavar="uniform|frequencies", help="p(class): equal, or as in the training rows.")
    ] = "uniform",
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Divides log p(x | class); if not given, fitted on the validation rows."),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            "--progressive", metavar="FILE", help="Write quality against the share of positions seen: .png, .svg, .csv."
        ),
    ] = None,
    out: OutOption = None,
    batch_size: BatchOption = 256,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Classify rows by Bayes' rule, with a model of p(x | class): p(class | x) = p(class) p(x | class) / p(x).

    Without FILE: accuracy, log-loss and calibration error on the run's test rows, as they are and calibrated. With
    FILE: its classes and their calibrated probabilities, as CSV.
    """
    _check_options(prior, temperature, curve)
    from seriatim.cli.loading import open_run, own_rows, read_rows
    from seriatim.tasks import class_log_likelihoods, classify, log_posterior

    own = open_run(path, device)
    _require_classes(own, alone=file is None)
    rows = own_rows(own, split or "test") if file is None else read_rows(own, file, split)
    if curve is not None and rows.labels is None:
        raise UserError(f"--progressive: expected rows with their classes, got none in {rows.source}")
    shares = prior_of(own, prior)
    hot = temperature if temperature is not None else _fitted(own, shares, batch_size)
    if rows.labels is None:
        found, scores = None, class_log_likelihoods(own.model, rows.x, batch_size=batch_size)
    else:
        found = classify(own.model, rows.x, rows.labels, temperature=hot, prior=shares, batch_size=batch_size)
        scores = found.log_likelihood
    log_p = log_posterior(scores, shares, hot or 1.0)
    _show(own, file, rows, found, log_p, prior, out, json)
    if curve is not None and found is not None:
        _write_curve(curve, found)


def _check_options(prior: str, temperature: float | None, curve: Path | None) -> None:
    if prior not in PRIORS:
        raise UserError(f"--prior: expected {' or '.join(PRIORS)}, got {prior!r}")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise UserError(f"--temperature: expected a positive number, got {temperature}")
    if curve is not None and (curve.suffix.lower() not in CURVE_ENDINGS or curve.is_dir()):
        raise UserError(f"--progressive: expected a name ending in {', '.join(CURVE_ENDINGS)}, got {curve}")


def _require_classes(own: Run, alone: bool) -> None:
    from seriatim.context import Labels

    if not isinstance(own.model.encoder, Labels):
        raise UserError(
            f"{own.path}: expected a model of p(x | class), made by train --context labels, got one "
            + ("without a context" if own.model.encoder is None else f"conditioned on {own.model.encoder}")
        )
    if alone and own.settings is None:
        raise UserError(f"FILE: expected rows, for {own.path} is a model without a run, got none")


def prior_of(own: Run, name: str) -> np.ndarray | None:
    """Return p(class), None for equal probabilities."""
    if name == "uniform":
        return None
    from seriatim.tasks.classify import class_frequencies, classes_of

    if own.settings is None or own.data.labels is None:
        raise UserError(f"--prior: expected uniform, for {own.path} is a model without a run, got {name}")
    return class_frequencies(own.data.labels["train"], classes_of(own.model))


def _fitted(own: Run, prior: Any, batch_size: int) -> float | None:
    """Return the temperature fitted on the run's validation rows, None where there are none."""
    from seriatim.cli.loading import own_rows
    from seriatim.tasks.classify import calibrate

    if own.settings is None:
        say("note: not calibrated, for a model without a run has no validation rows; --temperature takes a number")
        return None
    valid = own_rows(own, "valid")
    if not len(valid.x) or valid.labels is None:
        say("note: not calibrated, for the run has no validation rows with classes")
        return None
    found = calibrate(own.model, valid.x, valid.labels, prior, batch_size=batch_size)
    say(f"temperature: {found:.4g}, fitted on {len(valid.x)} validation rows")
    return found


def _show(
    own: Run,
    file: str | None,
    rows: Rows,
    found: Classification | None,
    log_p: np.ndarray,
    prior: str,
    out: Path | None,
    json: bool,
) -> None:
    table = predictions(own.class_names, log_p, rows.labels)
    if json:
        facts = {"run": str(own.path), "rows": rows.source, "num_rows": len(rows.x), "prior": prior}
        told: dict[str, Any] = {} if file is None else {"classes": own.class_names, "log_posterior_nats": log_p}
        show_json(facts | ({} if found is None else as_dict(found)) | told)
    elif file is None and found is not None:
        show(as_text(found, rows.source, len(own.class_names), prior))
    elif found is not None:
        say(as_text(found, rows.source, len(own.class_names), prior))
    if out is not None:
        write_file(out, lambda target: target.write_text(table, encoding="utf-8"))
    elif file is not None and not json:
        show(table)


def predictions(names: list[str], log_p: np.ndarray, labels: np.ndarray | None) -> str:
    """Return the most probable class of each row and all probabilities as CSV, beside the true class where known.

    Example:
        >>> import numpy as np
        >>> predictions(["cat", "dog"], np.log([[0.25, 0.75]]), np.array([0]))
        'row,class,p,true,p_cat,p_dog\\n0,dog,0.750000,cat,0.250000,0.750000\\n'
    """
    import numpy as np

    p = np.exp(log_p)
    best = p.argmax(1)
    known = [[] if labels is None else [names[k]] for k in (best if labels is None else labels)]
    lines = [
        [n, names[k], f"{own[k]:.6f}", *true, *(f"{value:.6f}" for value in own)]
        for n, (k, own, true) in enumerate(zip(best, p, known, strict=True))
    ]
    header = ["row", "class", "p", *([] if labels is None else ["true"]), *(f"p_{name}" for name in names)]
    return csv_text(header, lines)


def as_dict(found: Classification) -> dict[str, Any]:
    """Return the qualities for machines; units are in the names."""
    return {
        "uncalibrated": _plain(found.before),
        "temperature": found.temperature,
        "calibrated": None if found.after is None else _plain(found.after),
        "progressive": [
            {"positions": int(t), "share": share, **_plain(q)}
            for t, share, q in zip(found.prefixes, found.shares, found.curve, strict=True)
        ],
    }


def _plain(q: Quality) -> dict[str, float]:
    return dict(zip(CURVE_HEADER[2:], (q.accuracy, q.true_probability, q.log_loss, q.calibration_error), strict=True))


def as_text(found: Classification, source: str, num_classes: int, prior: str) -> str:
    """Return the qualities as a table with units."""
    from seriatim.report.classes import QUALITY_HEADER, quality_rows

    table = [list(QUALITY_HEADER), *quality_rows(found)]
    widths = [max(len(row[k]) for row in table) for k in range(4)]
    lines = [f"{source}: {len(found.log_likelihood)} rows, {num_classes} classes, {prior} prior"]
    for row in table:
        lines.append(row[0].ljust(widths[0]) + "".join(f"  {row[k]:>{widths[k]}}" for k in (1, 2, 3)))
    return "\n".join(lines)


def _write_curve(file: Path, found: Classification) -> None:
    from seriatim.report.classes import progress_curve
    from seriatim.report.curve_files import write_curve

    if file.suffix.lower() == ".csv":
        lines = [
            [t, f"{share:.6f}", *(f"{value:.6f}" for value in _plain(q).values())]
            for t, share, q in zip(found.prefixes, found.shares, found.curve, strict=True)
        ]
        write_file(file, lambda target: target.write_text(csv_text(CURVE_HEADER, lines), encoding="utf-8"))
    else:
        write_file(file, lambda target: write_curve(target, progress_curve(found)))
