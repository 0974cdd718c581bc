"""Numeric series on a page: the values, the surprise of each step below them, and anomalous stretches shaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seriatim.report.charts import ticks
from seriatim.report.figures import Figure
from seriatim.report.page import Table
from seriatim.report.panels import AXIS, GAP, TITLE, Panel, along, checked, framed, numbered, surprise_panel, thinned

MAX_COLUMNS = 8
"""Columns of a series that a figure shows."""


class Stretch(NamedTuple):
    """Steps start, ..., stop - 1 of a series, and their mean bits."""

    start: int
    stop: int
    mean_bits: float


def stretches(bits: np.ndarray, threshold: float, merge: int = 0) -> list[Stretch]:
    """Return the anomalous stretches of a series: consecutive steps that cost more bits than a threshold.

    Args:
        bits: (T,), -log2 p of each step, or a moving mean of it.
        threshold: in bits; a step is anomalous above it.
        merge: stretches with so many usual steps or fewer between them are one; the mean is over all of its steps.

    Returns:
        Stretches in order of time; none overlap.

    Raises:
        ValueError: no bits, NaN, a threshold that is NaN, or `merge` below 0.

    Example:
        >>> stretches(np.array([1.0, 9.0, 7.0, 1.0, 9.0, 1.0, 1.0, 8.0]), threshold=5, merge=1)
        [Stretch(start=1, stop=5, mean_bits=6.5), Stretch(start=7, stop=8, mean_bits=8.0)]
    """
    bits = checked("bits", bits)
    if np.isnan(threshold):
        raise ValueError("threshold: expected a number of bits, got NaN")
    if merge < 0:
        raise ValueError(f"merge: expected 0 or more steps, got {merge}")
    change = np.diff(np.concatenate([[0], (bits > threshold).astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    if not len(starts):
        return []
    apart = starts[1:] - stops[:-1] > merge
    starts, stops = starts[np.concatenate([[True], apart])], stops[np.concatenate([apart, [True]])]
    pairs = zip(starts.tolist(), stops.tolist(), strict=True)
    return [Stretch(start, stop, float(bits[start:stop].mean())) for start, stop in pairs]


def series_figure(
    values: np.ndarray,
    bits: np.ndarray,
    *,
    names: Sequence[str] = (),
    found: Sequence[Stretch] = (),
    threshold: float | None = None,
    window: int = 1,
) -> Figure:
    """Draw a series, each column in a panel of its own, and the surprise of each step below; stretches are shaded.

    Args:
        values: (T,) or (T, D), D at most `MAX_COLUMNS`; NaN, a missing value, is a gap.
        bits: (T,), -log2 p of each step.
        names: of the columns, with their units; none: "value", or x1, x2, ...
        found: what is shaded, as `stretches` returns it.
        threshold: drawn over the surprise.
        window: of the moving mean of the bits, in steps.

    Raises:
        ValueError: another shape, bits or names of another length, bits of NaN, or a window below 1.

    Example:
        >>> svg = series_figure(np.arange(9.0), np.ones(9), found=[Stretch(3, 5, 9.0)]).svg()
        >>> "bits per step" in svg, svg.count('class="stretch"')
        (True, 2)
    """
    values = np.asarray(values, dtype=np.float64)
    columns = values[:, None] if values.ndim == 1 else values
    if columns.ndim != 2 or not columns.size or columns.shape[1] > MAX_COLUMNS:
        raise ValueError(f"values: expected (T,) or (T, 1 to {MAX_COLUMNS}), got shape {values.shape}")
    length, count = columns.shape
    bits = checked("bits", bits, length=length)
    names = list(names) or (["value"] if count == 1 else [f"x{d + 1}" for d in range(count)])
    if len(names) != count:
        raise ValueError(f"names: expected {count}, got {len(names)}")
    if window < 1:
        raise ValueError(f"window: expected 1 step or more, got {window}")
    each = 150 if count == 1 else 84
    figure = Figure(count * (TITLE + each + GAP) + TITLE + 110 + AXIS, f"{', '.join(names)} over surprise")
    top = float(TITLE)
    for name, column in zip(names, columns.T, strict=True):
        _shade(figure, found, length, top, each)
        _column(figure, column, name, top, each)
        top += each + GAP + TITLE
    title = "surprise, bits per step" + (f", mean over {window:,} steps" if window > 1 else "")
    title += "" if threshold is None else f"; threshold {threshold:g}".replace("-", "−")
    _shade(figure, found, length, top, 110)
    panel = surprise_panel(figure, (top, 110), (0, length), bits, title, window, np.inf)
    if threshold is not None and panel.y_low <= threshold <= panel.y_high:
        at = float(panel.y(np.array(threshold)))
        figure.line(np.array([[panel.left, at], [panel.left + panel.width, at]]), "limit")
    along(figure, panel, "step", whole=True)
    return figure


def stretch_table(found: Sequence[Stretch], *, most: int = 20, times: Sequence[str] | None = None) -> Table:
    """Return stretches as a table, those of the most mean bits first.

    Args:
        found: as `stretches` returns it.
        most: rows of the table.
        times: (T,), when each step was; None: steps are counted from 0.

    Example:
        >>> stretch_table([Stretch(3, 5, 9.0)]).rows
        [['3', '4', '2', '9.00']]
    """
    ordered = sorted(found, key=lambda s: -s.mean_bits)[:most]

    def when(step: int) -> str:
        return f"{step:,}" if times is None else str(times[step])

    rows = [
        [when(s.start), when(s.stop - 1), f"{s.stop - s.start:,}", f"{s.mean_bits:.2f}".replace("-", "−")]
        for s in ordered
    ]
    left_out = f" {len(found) - most:,} more are not shown." if len(found) > most else ""
    caption = f"Anomalous stretches: {len(found):,}.{left_out}"
    return Table(("first step", "last step", "steps", "mean bits"), rows, caption, numeric=range(4))


def _column(figure: Figure, column: np.ndarray, name: str, top: float, height: float) -> None:
    finite = column[np.isfinite(column)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    pad = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    panel = Panel(top, height, 0, len(column), low - pad, high + pad)
    framed(figure, panel, name, numbered(ticks(panel.y_low, panel.y_high, 4)))
    middles = np.arange(len(column)) + 0.5
    shown = np.where(np.isfinite(column), column, np.nan)
    figure.line(panel.points(*thinned(middles, shown, round(panel.width))), "trace")


def _shade(figure: Figure, found: Sequence[Stretch], length: int, top: float, height: float) -> None:
    panel = Panel(top, height, 0, length, 0, 1)
    for start, stop, _ in found:
        left, right = panel.x(np.array([start, stop]))
        figure.boxes(np.array([[left, top, max(right - left, 1.5), height]]), "stretch")
