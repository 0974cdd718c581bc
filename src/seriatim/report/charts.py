"""Line charts as inline SVG: they take the page's colours, so one picture reads in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from seriatim.report.page import Curve

_WIDTH, _HEIGHT = 720, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 40


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


def curve_svg(curve: Curve) -> Markup:
    """Draw lines over a common axis; the first epochs, which dwarf the rest, may be cut at the top.

    Example:
        >>> svg = curve_svg(Curve({"train": [(1, 3.0), (2, 2.0)]}, "epoch", "nats", ""))
        >>> svg.startswith("<svg"), "polyline" in svg
        (True, True)
    """
    points = [point for line in curve.lines.values() for point in line if math.isfinite(point[1])]
    if not points:
        return Markup("")
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), _top([y for _, y in points])
    pad = 0.05 * (y_high - y_low) or 1.0
    y_low, y_high = y_low - 4 * pad, y_high + pad  # the mark's words stand below the line
    x_span, y_span = (x_high - x_low) or 1.0, y_high - y_low

    def place(x: float, y: float) -> tuple[float, float]:
        y = min(y, y_high)
        across, up = (x - x_low) / x_span, (y - y_low) / y_span
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_grid(curve, place, [x for x in ticks(x_low, x_high, 8) if x == int(x)] or [x_low], ticks(y_low, y_high))]
    for index, (name, line) in enumerate(curve.lines.items()):
        drawn = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line if math.isfinite(y))
        parts.append(f'<polyline class="line line-{index}" points="{drawn}"><title>{escape(name)}</title></polyline>')
    if curve.mark is not None:
        x, y = place(*curve.mark[:2])
        anchor = "end" if x > 0.7 * _WIDTH else "start"
        shift = 22 if _is_lowest(curve, *curve.mark[:2]) else -12  # away from the other lines
        parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(
            f'<text class="mark-text" x="{x:.1f}" y="{y + shift:.1f}" text-anchor="{anchor}">'
            f"{escape(curve.mark[2])}</text>"
        )
    label = escape(f"{', '.join(curve.lines)}: {curve.y_label} over {curve.x_label}")
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return Markup(svg)


def _grid(curve: Curve, place: object, across: Sequence[float], up: Sequence[float]) -> str:
    assert callable(place)
    parts = []
    for y in up:
        _, at = place(across[0], y)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in across:
        at, _ = place(x, up[0])
        parts.append(f'<text class="tick" x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(curve.x_label)}</text>'
        f'<text class="axis" x="14" y="{_HEIGHT / 2 - 10}" text-anchor="middle" '
        f'transform="rotate(-90 14 {_HEIGHT / 2 - 10})">{escape(curve.y_label)}</text>'
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
