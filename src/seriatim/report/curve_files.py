"""Line charts as files of their own: an SVG with its own colours, and the same chart as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

from markupsafe import escape

from seriatim.report.charts import HEIGHT, MARGINS, WIDTH, Frame, curve_svg, frame_of
from seriatim.report.page import Curve

LINES = ("#8b909d", "#b4451f", "#2f6f8f")
_PAPER, _RULE, _TICK, _AXIS = "#ffffff", "#e5e2da", "#6b707d", "#5d6270"
_KEY = 26  # pixels above the chart, for the names of the lines
_STYLE = (
    f"text{{font-family:sans-serif;font-size:12px}}.grid{{stroke:{_RULE}}}.tick{{fill:{_TICK}}}.axis{{fill:{_AXIS}}}"
    ".line{fill:none;stroke-width:2.2;stroke-linejoin:round}"
    + "".join(f".line-{k}{{stroke:{colour}}}" for k, colour in enumerate(LINES))
)


def svg_file(curve: Curve) -> str:
    """Return a chart as the text of an SVG file, with the names of its lines above it.

    Example:
        >>> text = svg_file(Curve({"train": [(1, 3.0), (2, 2.0)]}, "epoch", "nats", ""))
        >>> text.startswith('<svg xmlns="http://www.w3.org/2000/svg"'), "train" in text
        (True, True)
    """
    inner = str(curve_svg(curve)).partition(">")[2].removesuffix("</svg>")
    keys = [
        f'<line class="line line-{k}" x1="{x}" x2="{x + 20}" y1="14" y2="14"/>'
        f'<text class="axis" x="{x + 27}" y="18">{escape(name)}</text>'
        for k, (x, name) in enumerate(zip(_key_places(curve), curve.lines, strict=True))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + _KEY}" width="{WIDTH}" '
        f'height="{HEIGHT + _KEY}"><style>{_STYLE}</style><rect width="100%" height="100%" fill="{_PAPER}"/>'
        f'{"".join(keys)}<g transform="translate(0 {_KEY})">{inner}</g></svg>\n'
    )


def png_file(curve: Curve, scale: int = 2) -> bytes:
    """Return a chart as the bytes of a PNG file.

    Args:
        curve: at most three lines.
        scale: pixels for each pixel of the SVG.

    Example:
        >>> png_file(Curve({"train": [(1, 3.0), (2, 2.0)]}, "epoch", "nats", ""))[1:4]
        b'PNG'
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (WIDTH * scale, (HEIGHT + _KEY) * scale), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12 * scale)
    frame = frame_of(curve)

    def text(x: float, y: float, words: str, colour: str, anchor: str) -> None:
        draw.text((x * scale, y * scale), words, fill=colour, font=font, anchor=anchor)

    def line(points: list[tuple[float, float]], colour: str, width: float) -> None:
        draw.line([(x * scale, y * scale) for x, y in points], fill=colour, width=round(width * scale), joint="curve")

    for x, name, colour in zip(_key_places(curve), curve.lines, LINES, strict=False):
        line([(x, 14), (x + 20, 14)], colour, 2.2)
        text(x + 27, 14, name, _AXIS, "lm")
    if frame is not None:
        _axes(curve, frame, line, text)
        for values, colour in zip(curve.lines.values(), LINES, strict=False):
            line([_below_key(frame.place(x, y)) for x, y in values if math.isfinite(y)], colour, 2.2)
    stream = io.BytesIO()
    canvas.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def write_curve(file: Path, curve: Curve) -> None:
    """Write a chart to a file whose name ends in .svg or .png.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "curve.svg"
        >>> write_curve(file, Curve({"train": [(1, 3.0), (2, 2.0)]}, "epoch", "nats", ""))
        >>> file.stat().st_size > 100
        True
    """
    file.write_bytes(png_file(curve) if file.suffix.lower() == ".png" else svg_file(curve).encode())


def _axes(curve: Curve, frame: Frame, line: Callable[..., None], text: Callable[..., None]) -> None:
    left, right, _, bottom = MARGINS
    for y in frame.up:
        _, at = _below_key(frame.place(frame.x_low, y))
        line([(left, at), (WIDTH - right, at)], _RULE, 1)
        text(left - 8, at, f"{y:g}", _TICK, "rm")
    for x in frame.across:
        at, _ = frame.place(x, frame.y_low)
        text(at, HEIGHT + _KEY - bottom + 14, f"{x:g}", _TICK, "mm")
    text((left + WIDTH - right) / 2, HEIGHT + _KEY - 8, curve.x_label, _AXIS, "mm")
    text(WIDTH - right, 14, curve.y_label, _AXIS, "rm")


def _below_key(place: tuple[float, float]) -> tuple[float, float]:
    return place[0], place[1] + _KEY


def _key_places(curve: Curve) -> list[int]:
    """Return where the name of each line begins, about seven pixels to a letter."""
    places, x = [], MARGINS[0]
    for name in curve.lines:
        places.append(x)
        x += 50 + 7 * len(name)
    return places
