"""Figures of shapes: as inline SVG in the colours of the page, as an SVG file with its own, and as a PNG."""

from __future__ import annotations

import io
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup, escape

from seriatim.report.charts import WIDTH
from seriatim.report.pictures import data_uri, png_bytes

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

_PAPER = "#ffffff"


class Paint(NamedTuple):
    """How a kind of shape looks on white paper; the page has its own colours under the same name."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    opacity: float = 1.0


PAINTS = {
    "grid": Paint(stroke="#e5e2da"),
    "tick": Paint(fill="#6b707d"),
    "axis": Paint(fill="#5d6270"),
    "news": Paint(stroke="#b4451f", width=1.4),
    "news-area": Paint(fill="#b4451f", opacity=0.14),
    "limit": Paint(stroke="#b4451f", opacity=0.6),
    "mean": Paint(stroke="#8b909d"),
    "wave": Paint(fill="#2f6f8f"),
    "trace": Paint(stroke="#2f6f8f", width=1.2),
    "note": Paint(fill="#2f6f8f"),
    "note-news": Paint(fill="#b4451f"),
    "stretch": Paint(fill="#b4451f", opacity=0.16),
}
"""The kinds of shapes; `page.html` has a class for each."""


class _Line(NamedTuple):
    points: np.ndarray
    kind: str


class _Area(NamedTuple):
    points: np.ndarray
    kind: str


class _Boxes(NamedTuple):
    boxes: np.ndarray
    kind: str


class _Words(NamedTuple):
    x: float
    y: float
    words: str
    kind: str
    anchor: str
    turned: bool


class _Raster(NamedTuple):
    colours: np.ndarray
    box: tuple[float, float, float, float]


class Figure:
    """Shapes on paper, in pixels from the left and from the top.

    Args:
        height: of the paper in pixels.
        label: what it shows, for those who cannot see it.
        width: of the paper in pixels.

    Example:
        >>> figure = Figure(40, "a line")
        >>> figure.line(np.array([[0.0, 0.0], [720.0, 40.0]]), "news")
        >>> figure.svg()[:5], figure.png()[1:4]
        (Markup('<svg '), b'PNG')
    """

    def __init__(self, height: int, label: str, width: int = WIDTH) -> None:
        self.width, self.height, self.label = width, height, _printable(label)
        self._shapes: list[_Line | _Area | _Boxes | _Words | _Raster] = []

    def line(self, points: np.ndarray, kind: str) -> None:
        """Draw a line through points (N, 2); it is broken where one is not finite."""
        finite = np.isfinite(points).all(1)
        for part in np.split(points, np.flatnonzero(~finite)):
            part = part[np.isfinite(part).all(1)]
            if len(part) == 1:  # a lone point would be invisible
                part = part + np.array([[0.0, 0.0], [0.8, 0.0]])
            if len(part):
                self._shapes.append(_Line(part, kind))

    def area(self, points: np.ndarray, kind: str) -> None:
        """Fill a polygon of points (N, 2)."""
        self._shapes.append(_Area(points, kind))

    def boxes(self, boxes: np.ndarray, kind: str) -> None:
        """Fill boxes (N, 4) of left, top, width and height."""
        if len(boxes):
            self._shapes.append(_Boxes(np.asarray(boxes, dtype=np.float64), kind))

    def text(
        self, x: float, y: float, words: str, kind: str = "axis", anchor: str = "start", turned: bool = False
    ) -> None:
        """Write words on the base line y; `anchor` is "start", "middle" or "end". Turned, they go up the line x."""
        self._shapes.append(_Words(x, y, _printable(words), kind, anchor, turned))

    def picture(self, colours: np.ndarray, box: tuple[float, float, float, float]) -> None:
        """Stretch colours (H, W, 3) uint8 over a box of left, top, width and height."""
        self._shapes.append(_Raster(colours, box))

    def svg(self) -> Markup:
        """Return the figure as SVG whose colours are those of the page it stands on."""
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.label)}">'
        return Markup(f"{head}{''.join(_svg(shape) for shape in self._shapes)}</svg>")

    def svg_file(self) -> str:
        """Return the figure as the text of an SVG file with its own colours."""
        inner = str(self.svg()).partition(">")[2]
        rules = "".join(
            f".{kind}{{fill:{p.fill or 'none'};stroke:{p.stroke or 'none'};"
            f"stroke-width:{p.width:g};opacity:{p.opacity:g}}}"
            for kind, p in PAINTS.items()
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}"><title>{escape(self.label)}</title><style>text{{font:12px sans-serif}}{rules}'
            f'</style><rect width="100%" height="100%" fill="{_PAPER}"/>{inner}\n'
        )

    def png(self, scale: int = 2) -> bytes:
        """Return the figure as the bytes of a PNG file.

        Args:
            scale: pixels for each pixel of the SVG.
        """
        from PIL import Image, ImageDraw

        fine = 2 * scale  # shapes are drawn twice as large and shrunk, for Pillow leaves edges hard
        canvas = Image.new("RGB", (self.width * fine, self.height * fine), _PAPER)
        for shape in self._shapes:
            if isinstance(shape, _Raster):
                left, top, width, height = (round(v * fine) for v in shape.box)
                picture = Image.fromarray(np.ascontiguousarray(shape.colours))
                canvas.paste(picture.resize((max(1, width), max(1, height)), Image.Resampling.BICUBIC), (left, top))
            elif isinstance(shape, _Words) and shape.turned:
                _paint_turned(canvas, shape, fine)
            else:
                _paint(ImageDraw.Draw(canvas, "RGBA"), shape, fine)
        canvas = canvas.resize((self.width * scale, self.height * scale), Image.Resampling.BOX)
        stream = io.BytesIO()
        canvas.save(stream, format="PNG", optimize=True)
        return stream.getvalue()


def _svg(shape: _Line | _Area | _Boxes | _Words | _Raster) -> str:
    if isinstance(shape, _Words):
        turned = f' transform="rotate(-90 {shape.x:.1f} {shape.y:.1f})"' if shape.turned else ""
        return (
            f'<text class="{shape.kind}" x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}"{turned}>'
            f"{escape(shape.words)}</text>"
        )
    if isinstance(shape, _Raster):
        left, top, width, height = shape.box
        return (
            f'<image x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" '
            f'preserveAspectRatio="none" href="{data_uri(png_bytes(shape.colours))}"/>'
        )
    if isinstance(shape, _Boxes):
        path = "".join(f"M{x:.2f} {y:.2f}h{w:.2f}v{h:.2f}h{-w:.2f}z" for x, y, w, h in shape.boxes)
        return f'<path class="{shape.kind}" d="{path}"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
    return f'<{"polyline" if isinstance(shape, _Line) else "polygon"} class="{shape.kind}" points="{points}"/>'


def _paint(draw: ImageDraw.ImageDraw, shape: _Line | _Area | _Boxes | _Words, fine: int) -> None:
    from PIL import ImageColor, ImageFont

    paint = PAINTS[shape.kind]
    colour = (*ImageColor.getrgb(paint.fill or paint.stroke)[:3], round(255 * paint.opacity))
    if isinstance(shape, _Words):
        font = ImageFont.load_default(12 * fine)
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        draw.text((shape.x * fine, shape.y * fine), _plain(shape.words), fill=colour, font=font, anchor=anchor)
    elif isinstance(shape, _Boxes):
        for x, y, w, h in shape.boxes * fine:
            draw.rectangle((x, y, max(x, x + w - 1), max(y, y + h - 1)), fill=colour)
    else:
        points = [(float(x), float(y)) for x, y in shape.points * fine]
        if isinstance(shape, _Line):
            draw.line(points, fill=colour, width=max(1, round(paint.width * fine)), joint="curve")
        else:
            draw.polygon(points, fill=colour)


def _paint_turned(canvas: Image.Image, words: _Words, fine: int) -> None:
    """Write words upwards: on a line of their own, which is turned."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(12 * fine)
    ascent, descent = 12 * fine, 4 * fine
    length = max(1, round(font.getlength(_plain(words.words))))
    line = Image.new("L", (length, ascent + descent))
    ImageDraw.Draw(line).text((0, ascent), _plain(words.words), fill=255, font=font, anchor="ls")
    line = line.rotate(90, expand=True)
    start = {"start": length, "middle": length // 2, "end": 0}[words.anchor]
    corner = (round(words.x * fine) - ascent, round(words.y * fine) - start)
    canvas.paste(PAINTS[words.kind].fill, (*corner, corner[0] + line.width, corner[1] + line.height), line)


def _printable(words: str) -> str:
    """Return words without the control characters that XML does not allow."""
    return "".join(c if c.isprintable() else " " for c in words)


def _plain(words: str) -> str:
    """Return words in the letters that Pillow's own font has."""
    words = words.translate({0x2212: "-", 0x2013: "-", 0x2265: ">=", 0x221E: "inf", 0x03BC: "u"})
    kept = [c for c in unicodedata.normalize("NFKD", words) if not unicodedata.combining(c)]
    return "".join(kept).encode("ascii", "replace").decode("ascii")
