"""Reports: one HTML page that shows what a model is, how good it is, and how it was made."""

from seriatim.report.page import (
    Bar,
    Bars,
    Checks,
    Content,
    Curve,
    Facts,
    Headline,
    Html,
    Listing,
    Section,
    Table,
    Text,
    Tile,
    TileRow,
    Tiles,
    write_report,
)

__all__ = [
    "Bar",
    "Bars",
    "Checks",
    "Content",
    "Curve",
    "Facts",
    "Headline",
    "Html",
    "Listing",
    "Section",
    "Table",
    "Text",
    "Tile",
    "TileRow",
    "Tiles",
    "write_report",
]
