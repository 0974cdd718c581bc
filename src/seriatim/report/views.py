"""How rows of data are shown: images as tiles, tables and short vectors as tables, long vectors as stripes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from seriatim.report.page import Block, Table, Tile, TileRow, Tiles
from seriatim.report.pictures import data_uri, grey_colours, heat_gradient, heat_uri, image_uri, png_bytes

MAX_COLUMNS = 12
_TILE, _STRIPE = 60, 640


class View:
    """Shows rows of one kind of data.

    Args:
        event_shape: of a row.
        levels: number of values 0..levels-1 of an entry; None for real numbers and tables.
        schema: of a table (`seriatim.data.Schema`); None otherwise.

    Example:
        >>> View((8, 8), 2).is_image, View((5,), 2).is_image
        (True, False)
    """

    def __init__(self, event_shape: Sequence[int], levels: int | None = None, schema: Any = None) -> None:
        self.event_shape, self.levels, self.schema = tuple(event_shape), levels, schema
        colour = len(self.event_shape) == 3 and self.event_shape[2] == 3
        self.is_image = levels is not None and (len(self.event_shape) == 2 or colour)
        self.num_places = int(np.prod(self.event_shape))

    @property
    def noun(self) -> str:
        """What one row is called."""
        return "image" if self.is_image else "row"

    @property
    def tile_width(self) -> int:
        """The width of a tile in CSS pixels."""
        return min(112, max(_TILE, self.event_shape[1])) if self.is_image else _STRIPE

    def names(self) -> list[str]:
        """Return the names of the places in row-major order."""
        if self.schema is not None:
            return list(self.schema.names)
        if len(self.event_shape) == 1:
            return [f"x{d + 1}" for d in range(self.num_places)]
        return [str(tuple(int(i) for i in place)) for place in np.ndindex(*self.event_shape)]

    def tile(self, row: np.ndarray, caption: str = "", *, observed: np.ndarray | None = None, alt: str = "") -> Tile:
        """Return an image as a tile; places that are not observed are hatched."""
        mask = None if observed is None else np.asarray(observed.reshape(*self.event_shape[:2], -1).all(-1))
        return Tile(image_uri(row, self.levels or 2, mask), caption, alt or caption, mask is not None, self.levels == 2)

    def heat(self, bits: np.ndarray, largest: float, caption: str = "") -> Tile:
        """Return bits per place of an image as a tile."""
        flat = bits if bits.ndim == 2 else bits.reshape(*self.event_shape[:2], -1).sum(-1)
        return Tile(heat_uri(flat, largest), caption, f"surprise, {caption}")

    def rows(self, groups: Sequence[tuple[str, np.ndarray]], caption: str) -> Block:
        """Show groups of rows, each with its label."""
        if self.is_image:
            shown = [TileRow(label, [self.tile(row, alt=label) for row in rows]) for label, rows in groups]
            return Tiles(shown, caption, self.tile_width)
        if self.levels is not None and self.num_places > MAX_COLUMNS:
            tiles = [TileRow(label, [self._stripes(rows, label)]) for label, rows in groups]
            return Tiles(tiles, f"{caption} One line is one row, one pixel one value.", _STRIPE)
        return self._table([(label, row) for label, rows in groups for row in rows], caption)

    def surprise(
        self, rows: np.ndarray, bits: np.ndarray, labels: Sequence[str], caption: str, largest: float
    ) -> Block:
        """Show rows (N, *event_shape) with the bits of their places: tiles, stripes, or shaded cells.

        Args:
            rows: what is shown.
            bits: (N, *order shape).
            labels: of the rows.
            caption: below the picture.
            largest: the bits at the bright end of the colour scale.
        """
        legend = ("0", f"{largest:.1f}", "bits per place")
        if self.is_image:
            shown = [self.tile(row, alt=label) for row, label in zip(rows, labels, strict=True)]
            heats = [self.heat(b, largest, label) for b, label in zip(bits, labels, strict=True)]
            pairs = [TileRow("rows", shown), TileRow("their bits", heats, joined=True)]
            return Tiles(pairs, caption, self.tile_width, legend, heat_gradient())
        flat = bits.reshape(len(bits), -1)
        if self.levels is not None and self.num_places > MAX_COLUMNS:
            tile = Tile(heat_uri(flat, largest), "", "surprise of each value")
            return Tiles([TileRow("rows by surprise", [tile])], caption, _STRIPE, legend, heat_gradient())
        table = self._table(list(zip(labels, rows, strict=True)), caption)
        own = min(self.num_places, MAX_COLUMNS)
        # Few bits are no news: shades begin at two.
        shades = [[0.0, *np.clip((b[:own] - 2) / 8, 0, 0.75).tolist()] for b in flat]
        return replace(table, shades=shades)

    def _stripes(self, rows: np.ndarray, label: str) -> Tile:
        colours = grey_colours(rows.reshape(len(rows), -1), self.levels or 2)
        return Tile(data_uri(png_bytes(colours)), "", label, ink=self.levels == 2)

    def _table(self, rows: Sequence[tuple[str, np.ndarray]], caption: str) -> Table:
        names = self.names()[:MAX_COLUMNS]
        if self.schema is not None:
            decoded = self.schema.decode(np.stack([row for _, row in rows]))
            cells = [[_cell(decoded[name][i]) for name in names] for i in range(len(rows))]
        else:
            cells = [[_cell(value) for value in row.reshape(-1)[:MAX_COLUMNS].tolist()] for _, row in rows]
        left_out = self.num_places - len(names)
        if left_out > 0:
            caption = f"{caption} {left_out} more columns are not shown."
        body = [[label, *own] for (label, _), own in zip(rows, cells, strict=True)]
        return Table(["", *names], body, caption, numeric=range(1, len(names) + 1))


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
