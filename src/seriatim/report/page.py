"""The report page: what stands on it, and how it becomes one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import ClassVar

from markupsafe import Markup

from seriatim.data.files import replacing

_STATUS_WORDS = (("passed", "passed"), ("failed", "failed"), ("skipped", "not applicable"))


@dataclass(frozen=True)
class Headline:
    """A number that stands at the top: its value, unit and name, and what to know about it."""

    value: str
    unit: str
    label: str
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: a name and a value, with an interval where there is one; `strong` marks our own."""

    name: str
    value: float
    text: str
    interval: tuple[float, float] | None = None
    strong: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars that begin at 0, with the sentence that says what they measure."""

    kind: ClassVar[str] = "bars"
    bars: Sequence[Bar]
    caption: str

    @property
    def scale(self) -> float:
        """What stands at the right end: the largest value or end of an interval."""
        ends = [max(bar.value, *(bar.interval or ())) if bar.interval else bar.value for bar in self.bars]
        return max([end for end in ends if end < float("inf")], default=1.0) or 1.0


@dataclass(frozen=True)
class Tile:
    """A small picture (a data URI), what stands below it, and words for those who cannot see it.

    Behind a hatched one shows a pattern where it is transparent; one of ink is dark on light where the page is light.
    """

    src: str
    caption: str = ""
    alt: str = ""
    hatched: bool = False
    ink: bool = False


@dataclass(frozen=True)
class TileRow:
    """Tiles side by side after a label; a joined row belongs to the one above it."""

    label: str
    tiles: Sequence[Tile]
    joined: bool = False


@dataclass(frozen=True)
class Tiles:
    """Rows of tiles; `width` is that of a tile in CSS pixels, `legend` the ends of a colour scale."""

    kind: ClassVar[str] = "tiles"
    rows: Sequence[TileRow]
    caption: str
    width: int = 56
    legend: tuple[str, str, str] | None = None
    gradient: str = ""


@dataclass(frozen=True)
class Table:
    """A table; `numeric` columns are set to the right, `mono` ones in a fixed width, `shades` are of the cells."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric: Sequence[int] = ()
    mono: Sequence[int] = ()
    shades: Sequence[Sequence[float]] | None = None


@dataclass(frozen=True)
class Facts:
    """Names and values, one below the other."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Curve:
    """Lines over epochs: name -> points (x, y), where the best lies, and the names of the axes."""

    kind: ClassVar[str] = "curve"
    lines: Mapping[str, Sequence[tuple[float, float]]]
    x_label: str
    y_label: str
    caption: str
    mark: tuple[float, float, str] | None = None


@dataclass(frozen=True)
class Checks:
    """Results of conformance checks on a model: (status, name, detail), and what was checked in words."""

    kind: ClassVar[str] = "checks"
    model: str
    results: Sequence[tuple[str, str, str]]
    what: str = ""

    @property
    def counts(self) -> str:
        """How many passed, failed and did not apply."""
        found = [(sum(r[0] == status for r in self.results), word) for status, word in _STATUS_WORDS]
        return ", ".join(f"{count} {word}" for count, word in found if count)

    def of(self, status: str) -> list[tuple[str, str]]:
        """The checks of one status, with their details."""
        return [(name, detail) for own, name, detail in self.results if own == status]


@dataclass(frozen=True)
class Listing:
    """Text in a fixed-width face that opens on a click on its caption."""

    kind: ClassVar[str] = "listing"
    text: str
    caption: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Html:
    """Markup that is trusted as it is, such as a figure, a player or coloured tokens, and what stands below it."""

    kind: ClassVar[str] = "html"
    html: Markup
    caption: str = ""


Block = Bars | Tiles | Table | Facts | Curve | Checks | Listing | Text | Html


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True)
class Content:
    """All that stands on a report.

    Example:
        >>> Content("made on digits", sections=[Section("Notes", [Text("None.")])]).sections[0].title
        'Notes'
    """

    title: str
    subtitle: str = ""
    headlines: Sequence[Headline] = ()
    sections: Sequence[Section] = field(default_factory=list)
    footer: str = ""


def write_report(path: str | Path, content: Content) -> Path:
    """Write a report as one HTML file, whole or not at all; it holds its pictures and asks no network for anything.

    Args:
        path: the file, ending in .html.
        content: what stands on it.

    Returns:
        The path.

    Raises:
        ValueError: another ending, or a path that cannot be written to.

    Example:
        >>> import tempfile
        >>> file = write_report(Path(tempfile.mkdtemp()) / "report.html", Content("made on <digits>"))
        >>> "made on &lt;digits&gt;" in file.read_text()
        True
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path: expected a name ending in .html, got {path}")
    html = render(content)
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render(content: Content) -> str:
    """Return the HTML of a report."""
    import jinja2

    from seriatim.report.charts import curve_svg

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["curve_svg"] = curve_svg
    source = resources.files("seriatim.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(content=content)
