"""What a report says of classes: how often Bayes' rule is right, how sure it is, and how soon."""

from __future__ import annotations

from seriatim.report.page import Curve, Section, Table
from seriatim.tasks import Classification

QUALITY_HEADER = ("", "accuracy", "log-loss, nats", "calibration error")


def quality_rows(found: Classification) -> list[list[str]]:
    """Return the quality before and after calibration as rows of text, under `QUALITY_HEADER`."""
    judged = [("Bayes' rule", found.before)]
    if found.after is not None:
        judged.append((f"calibrated, T = {found.temperature:.3g}", found.after))
    return [[name, f"{q.accuracy:.4f}", f"{q.log_loss:.4f}", f"{q.calibration_error:.4f}"] for name, q in judged]


def progress_curve(found: Classification, caption: str = "") -> Curve:
    """Return accuracy and mean p(true class) over the share of positions seen, both in percent."""
    lines = {
        "accuracy": [q.accuracy for q in found.curve],
        "mean p(true class)": [q.true_probability for q in found.curve],
    }
    points = {
        name: [(100 * share, 100 * value) for share, value in zip(found.shares, values, strict=True)]
        for name, values in lines.items()
    }
    return Curve(points, "share of the positions seen, %", "%", caption)


def classes_section(found: Classification, source: str) -> Section:
    """Return how well a model tells classes apart: quality before and after calibration, and prefix by prefix.

    Args:
        found: of the rows that `source` names.
        source: "2,000 test rows".
    """
    caption = (
        f"{source}, all classes equally probable before. Log-loss is the mean −log p(true class); the calibration "
        "error is how far confidence is from the share that is right, over 15 bins."
    )
    if found.after is not None:
        caption += " T divides the log-likelihoods of the classes; it was fitted on validation rows."
    lead = "Classes by Bayes' rule, p(c | x) ∝ p(c) p(x | c): nothing was trained to classify."
    drawn = progress_curve(found, "What is known of the class after the first positions, in the order of the model.")
    table = Table(QUALITY_HEADER, quality_rows(found), caption, numeric=(1, 2, 3))
    return Section("Can it tell the classes apart?", [table, drawn], lead)
