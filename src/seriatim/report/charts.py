"""Line charts as inline SVG: they take the page's colours, so one picture reads in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from seriatim.report.page import Curve

WIDTH, HEIGHT = 720, 260
MARGINS = _LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 40


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers between two ends, about `count` of them.

    Example:
        >>> ticks(0, 100)
        [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


class Frame(NamedTuple):
    """Where the points of a chart lie on the page: the ends of both axes, and the numbers that stand at them."""

    x_low: float
    x_span: float
    y_low: float
    y_high: float
    across: list[float]
    up: list[float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point in pixels, from the left and from the top."""
        across = (x - self.x_low) / self.x_span
        up = (min(y, self.y_high) - self.y_low) / (self.y_high - self.y_low)
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)


def frame_of(curve: Curve) -> Frame | None:
    """Return the frame of a chart, None where there is no point; the first epochs, which dwarf the rest, are cut.

    Example:
        >>> frame_of(Curve({"train": [(1, 3.0), (2, 2.0)]}, "epoch", "nats", "")).across
        [1.0, 2.0]
    """
    points = [point for line in curve.lines.values() for point in line if math.isfinite(point[1])]
    if not points:
        return None
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), _top([y for _, y in points])
    pad = 0.05 * (y_high - y_low) or 1.0
    y_low, y_high = y_low - 4 * pad, y_high + pad  # the mark's words stand below the line
    across = [x for x in ticks(x_low, x_high, 8) if x == int(x)] or [x_low]
    return Frame(x_low, (x_high - x_low) or 1.0, y_low, y_high, across, ticks(y_low, y_high, 6))


def curve_svg(curve: Curve) -> Markup:
    """Draw lines over a common axis; the first epochs, which dwarf the rest, may be cut at the top.

    Example:
        >>> svg = curve_svg(Curve({"train": [(1, 3.0), (2, 2.0)]}, "epoch", "nats", ""))
        >>> svg.startswith("<svg"), "polyline" in svg
        (True, True)
    """
    frame = frame_of(curve)
    if frame is None:
        return Markup("")
    parts = [_grid(curve, frame)]
    for index, (name, line) in enumerate(curve.lines.items()):
        drawn = " ".join("{:.1f},{:.1f}".format(*frame.place(x, y)) for x, y in line if math.isfinite(y))
        parts.append(f'<polyline class="line line-{index}" points="{drawn}"><title>{escape(name)}</title></polyline>')
    if curve.mark is not None:
        x, y = frame.place(*curve.mark[:2])
        anchor = "end" if x > 0.7 * WIDTH else "start"
        shift = 22 if _is_lowest(curve, *curve.mark[:2]) else -12  # away from the other lines
        parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(
            f'<text class="mark-text" x="{x:.1f}" y="{y + shift:.1f}" text-anchor="{anchor}">'
            f"{escape(curve.mark[2])}</text>"
        )
    label = escape(f"{', '.join(curve.lines)}: {curve.y_label} over {curve.x_label}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return Markup(svg)


def _grid(curve: Curve, frame: Frame) -> str:
    parts = []
    for y in frame.up:
        _, at = frame.place(frame.x_low, y)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in frame.across:
        at, _ = frame.place(x, frame.y_low)
        parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(curve.x_label)}</text>'
        f'<text class="axis" x="14" y="{HEIGHT / 2 - 10}" text-anchor="middle" '
        f'transform="rotate(-90 14 {HEIGHT / 2 - 10})">{escape(curve.y_label)}</text>'
    )
    return "".join(parts)


def _is_lowest(curve: Curve, x: float, y: float) -> bool:
    """Whether no line lies below a point at its place."""
    return all(min(line, key=lambda point: abs(point[0] - x))[1] >= y for line in curve.lines.values())


def _top(values: Sequence[float]) -> float:
    """Where to cut the axis: the largest value, or what leaves room for the rest where a few are far above."""
    ordered = sorted(values)
    low, most = ordered[0], ordered[int(0.95 * (len(ordered) - 1))]
    return min(ordered[-1], low + 1.6 * (most - low)) if most > low else ordered[-1]
