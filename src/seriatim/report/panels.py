"""Panels of figures: parts with axes of their own, one below the other over the same time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seriatim.report.charts import WIDTH, ticks
from seriatim.report.figures import Figure
from seriatim.report.pictures import heat_colours

LEFT, RIGHT, AXIS, TITLE, GAP = 56, 16, 40, 20, 16
"""Pixels left and right of a panel, below the last one, for the title of each, and between two."""

_STAIRS = 160  # steps up to which a line has stairs


class Panel(NamedTuple):
    """A part of a figure with axes of its own: its box in pixels, and the numbers at its ends."""

    top: float
    height: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: float = LEFT
    width: float = WIDTH - LEFT - RIGHT

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width and height in pixels."""
        return self.left, self.top, self.width, self.height

    @property
    def bottom(self) -> float:
        """Where it ends, in pixels."""
        return self.top + self.height

    def x(self, values: np.ndarray) -> np.ndarray:
        """Return how far from the left values stand, in pixels."""
        return self.left + (np.asarray(values) - self.x_low) / ((self.x_high - self.x_low) or 1) * self.width

    def y(self, values: np.ndarray) -> np.ndarray:
        """Return how far from the top values stand, in pixels; what is above or below the axis stands at its end."""
        share = (np.asarray(values) - self.y_low) / ((self.y_high - self.y_low) or 1)
        return self.top + (1 - np.clip(share, 0, 1)) * self.height

    def points(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the places (N, 2) of points in pixels."""
        return np.stack([self.x(x), self.y(y)], axis=-1)


def framed(figure: Figure, panel: Panel, title: str, up: Sequence[tuple[float, str]], *, lines: bool = True) -> None:
    """Draw what stands around a panel: its title above it, numbers and lines at heights `up`.

    Example:
        >>> figure = Figure(100, "")
        >>> framed(figure, Panel(20, 60, 0, 1, 0, 5), "surprise, bits", [(0, "0"), (5, "5")])
        >>> figure.svg().count("<text")
        3
    """
    figure.text(panel.left, panel.top - 7, title)
    for value, words in up:
        at = float(panel.y(np.array(value)))
        if lines:
            figure.line(np.array([[panel.left, at], [panel.left + panel.width, at]]), "grid")
        figure.text(panel.left - 8, at + 4, words, "tick", "end")


def numbered(values: Sequence[float]) -> list[tuple[float, str]]:
    """Return numbers with how they are written.

    Example:
        >>> numbered([-1.0, 0.5])
        [(-1.0, '−1'), (0.5, '0.5')]
    """
    return [(value, f"{value:g}".replace("-", "−")) for value in values]


def along(figure: Figure, panel: Panel, label: str, *, whole: bool = False) -> None:
    """Draw the horizontal axis below a panel; `whole` leaves out what is no whole number.

    Example:
        >>> figure = Figure(100, "")
        >>> along(figure, Panel(20, 40, 0, 1, 0, 5), "time, s")
        >>> "time, s" in figure.svg(), "0.4" in figure.svg()
        (True, True)
    """
    for value, words in numbered(ticks(panel.x_low, panel.x_high, 8)):
        if not whole or value == int(value):
            figure.text(float(panel.x(np.array(value))), panel.bottom + 17, words, "tick", "middle")
    figure.text(panel.left + panel.width / 2, panel.bottom + 34, label, "axis", "middle")


def scale_of_colours(figure: Figure, base: float, low: str, high: str) -> None:
    """Draw the scale of the heat colours at the right end of a panel's title, with words at both ends.

    Example:
        >>> figure = Figure(40, "")
        >>> scale_of_colours(figure, 20, "0", "8 bits")
        >>> "8 bits" in figure.svg(), "<image" in figure.svg()
        (True, True)
    """
    across, after = 72, 6 + 5.8 * len(high)  # about what the words take
    left = WIDTH - RIGHT - after - across
    figure.text(left - 6, base, low, "tick", "end")
    figure.picture(heat_colours(np.arange(64)[None], 63), (left, base - 8, across, 7))
    figure.text(left + across + 6, base, high, "tick")


def thinned(x: np.ndarray, y: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a long line by the smallest and the largest value of each of `columns` parts, so that no peak is lost.

    Args:
        x: (N,) places.
        y: (N,) values; short lines are returned as they are.
        columns: of pixels.

    Example:
        >>> x, y = thinned(np.arange(1000), np.eye(1, 1000, 700)[0], 10)
        >>> len(y), float(y.max())
        (20, 1.0)
    """
    if len(y) <= 3 * columns:
        return x, y
    low, high = envelope(y, columns)
    edges = np.linspace(0, len(y), columns + 1).astype(np.int64)
    middle = x[(edges[:-1] + edges[1:]) // 2]
    return middle.repeat(2), np.stack([low, high], axis=1).reshape(-1)


def envelope(y: np.ndarray, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value of each of `columns` equal parts of a sequence.

    Example:
        >>> [ends.tolist() for ends in envelope(np.array([1.0, 5.0, 2.0, 0.0]), 2)]
        [[1.0, 0.0], [5.0, 2.0]]
    """
    starts = np.linspace(0, len(y), columns + 1).astype(np.int64)[:-1]
    return np.fmin.reduceat(y, starts), np.fmax.reduceat(y, starts)  # NaN only where there is nothing else


def smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of a sequence over a window around each place, of the part of it that there is at the ends.

    Args:
        values: (T,) finite.
        window: number of places, 1 or more.

    Example:
        >>> smoothed(np.array([0.0, 3.0, 0.0, 3.0]), 3).tolist()
        [1.5, 1.0, 2.0, 1.5]
    """
    length, back, ahead = len(values), (window - 1) // 2, window // 2
    sums = np.pad(np.cumsum(values, dtype=np.float64), (back + 1, ahead), mode="edge")
    sums[: back + 1] = 0
    found = sums[window:] - sums[:length]
    found /= window
    for t in {*range(min(back, length)), *range(max(0, length - ahead), length)}:  # where the window ends early
        found[t] *= window / (min(length, t + ahead + 1) - max(0, t - back))
    return found


def checked(name: str, values: np.ndarray, *, length: int | None = None) -> np.ndarray:
    """Return a sequence (T,) of float64 that holds numbers, or infinity for what was impossible.

    Raises:
        ValueError: another shape, nothing at all, another length, NaN, or minus infinity.

    Example:
        >>> checked("bits", [1, 2]).tolist()
        [1.0, 2.0]
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"{name}: expected a sequence (T,) of one or more, got shape {values.shape}")
    if length is not None and len(values) != length:
        raise ValueError(f"{name}: expected one value for each of {length:,} steps, got {len(values):,}")
    bad = np.isnan(values) | np.isneginf(values)
    if bad.any():
        raise ValueError(f"{name}: expected numbers, got {values[bad][0]} at step {int(bad.argmax())}")
    return values


def surprise_panel(
    figure: Figure,
    place: tuple[float, float],
    span: tuple[float, float],
    bits: np.ndarray,
    title: str,
    window: int,
    lowest: float = 0.0,
) -> Panel:
    """Draw surprise over time: its moving mean as a line over an area, and the mean of all as a thin line.

    Impossible values (infinite bits) are left out of the means, drawn as bars of the full height, and counted in the
    title.

    Args:
        figure: what to draw on.
        place: top and height in pixels.
        span: numbers on the horizontal axis at the beginning of the first and at the end of the last step.
        bits: (T,).
        title: with the unit.
        window: of the moving mean, in steps.
        lowest: where the axis begins, unless a value is lower; infinity: at the lowest value.

    Example:
        >>> figure = Figure(100, "")
        >>> panel = surprise_panel(figure, (20, 60), (0, 4), np.array([1.0, 2.0, 9.0, 2.0]), "bits per step", 1)
        >>> panel.y_low, panel.y_high > 9, "mean 3.50" in figure.svg()
        (0.0, True, True)
    """
    impossible = np.isinf(bits)
    mean = float(bits[~impossible].mean()) if not impossible.all() else 0.0
    shown = smoothed(np.where(impossible, mean, bits), window)
    low, high = min(lowest, float(shown.min())), float(shown.max())
    high += 0.06 * (high - low) or 1.0
    panel = Panel(*place, *span, low, high)
    step = (span[1] - span[0]) / len(bits)
    if len(bits) <= _STAIRS:  # each step as wide as it lasts
        x, y = span[0] + np.arange(len(bits) + 1).repeat(2)[1:-1] * step, shown.repeat(2)
    else:
        x, y = thinned(span[0] + (np.arange(len(bits)) + 0.5) * step, shown, round(panel.width))
    words = title if not impossible.any() else f"{title}; {impossible.sum():,} impossible"
    framed(figure, panel, words, numbered(ticks(low, high)))
    line = panel.points(x, y)
    ends = np.array([[line[-1, 0], panel.bottom], [line[0, 0], panel.bottom]])
    figure.area(np.concatenate([line, ends]), "news-area")
    bars = panel.x(span[0] + np.flatnonzero(impossible) * step)
    width = max(0.8, step / (span[1] - span[0]) * panel.width)
    bars = np.unique(bars.round(1))
    figure.boxes(np.array([[at, panel.top, width, panel.height] for at in bars]), "note-news")
    at = float(panel.y(np.array(mean)))
    figure.line(np.array([[panel.left, at], [panel.left + panel.width, at]]), "mean")
    figure.line(line, "news")
    figure.text(panel.left + panel.width, panel.top - 7, f"mean {mean:.2f}".replace("-", "−"), "axis", "end")
    return panel
