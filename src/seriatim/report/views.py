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
        ink = self.levels == 2 and len(self.event_shape) == 2  # colours are never inverted
        return Tile(image_uri(row, self.levels or 2, mask), caption, alt or caption, mask is not None, ink)

    def heat(self, bits: np.ndarray, largest: float, caption: str = "") -> Tile:
        """Return bits per pixel (H, W) of an image as a tile."""
        return Tile(heat_uri(bits, largest), caption, f"surprise, {caption}")

    def per_pixel(self, bits: np.ndarray) -> np.ndarray:
        """Return the bits of images (N, *order shape) by pixel (N, H, W): the channels of a colour are summed.

        Example:
            >>> View((1, 1, 3), 8).per_pixel(np.ones((2, 1, 1, 3))).tolist()
            [[[3.0]], [[3.0]]]
        """
        return bits if bits.ndim == 3 else bits.reshape(len(bits), *self.event_shape[:2], -1).sum(-1)

    def rows(self, groups: Sequence[tuple[str, np.ndarray]], caption: str) -> Block:
        """Show groups of rows, each with its label."""
        if self.is_image:
            shown = [TileRow(label, [self.tile(row, alt=label) for row in rows]) for label, rows in groups]
            return Tiles(shown, caption, self.tile_width)
        if self.levels is not None and self.num_places > MAX_COLUMNS:
            tiles = [TileRow(label, [self._stripes(rows, label)]) for label, rows in groups]
            return Tiles(tiles, f"{caption} One line is one row, one pixel one value.", _STRIPE)
        rows_ = [(label if i == 0 else "", row) for label, rows in groups for i, row in enumerate(rows)]
        return self.table(rows_, caption)

    def surprise(
        self, rows: np.ndarray, bits: np.ndarray, labels: Sequence[str], caption: str, every: np.ndarray
    ) -> Block:
        """Show rows (N, *event_shape) with the bits of their places: tiles, stripes, or shaded cells.

        Args:
            rows: what is shown.
            bits: (N, *order shape), of these rows.
            labels: of the rows.
            caption: below the picture.
            every: (M, *order shape), the bits of all rows, which set the scale.
        """
        if self.is_image:
            bits, every = self.per_pixel(bits), self.per_pixel(every)
        # A few extreme places must not make all others dark.
        largest = max(1.0, float(np.quantile(every, 0.999)))
        legend = ("0", f"{largest:.1f}", "bits per pixel" if self.is_image else "bits per place")
        if self.is_image:
            shown = [self.tile(row, alt=label) for row, label in zip(rows, labels, strict=True)]
            heats = [self.heat(b, largest, label) for b, label in zip(bits, labels, strict=True)]
            pairs = [TileRow("rows", shown), TileRow("their bits", heats, joined=True)]
            return Tiles(pairs, caption, self.tile_width, legend, heat_gradient())
        flat = bits.reshape(len(bits), -1)
        if self.levels is not None and self.num_places > MAX_COLUMNS:
            tile = Tile(heat_uri(flat, largest), "", "surprise of each value")
            return Tiles([TileRow("one line, one row", [tile])], caption, _STRIPE, legend, heat_gradient())
        usual = every.reshape(len(every), -1)
        caption = f"{caption} Shaded: values that cost more bits than is usual in their column, by standard deviations."
        table = self.table(list(zip(labels, rows, strict=True)), caption)
        unusual = (flat - usual.mean(0)) / (usual.std(0) + 1e-9)
        shades = np.clip((unusual[:, :MAX_COLUMNS] - 1) / 4, 0, 0.8)
        return replace(table, shades=[[0.0, *own] for own in shades.tolist()])

    def _stripes(self, rows: np.ndarray, label: str) -> Tile:
        colours = grey_colours(rows.reshape(len(rows), -1), self.levels or 2)
        return Tile(data_uri(png_bytes(colours)), "", label, ink=self.levels == 2)

    def table(self, rows: Sequence[tuple[str, np.ndarray]], caption: str, hidden: np.ndarray | None = None) -> Table:
        """Return labelled rows as a table of their first places; of each that is `hidden` (N, D) a question mark."""
        names = self.names()[:MAX_COLUMNS]
        numeric = list(range(1, len(names) + 1))
        if self.schema is not None:
            decoded = self.schema.decode(np.stack([row for _, row in rows]))
            cells = [[_cell(decoded[name][i]) for name in names] for i in range(len(rows))]
            kinds = [column.kind for column in self.schema.columns[:MAX_COLUMNS]]
            numeric = [j for j in numeric if kinds[j - 1] != "categorical"]
        else:
            cells = [[_cell(value) for value in row.reshape(-1)[:MAX_COLUMNS].tolist()] for _, row in rows]
        left_out = self.num_places - len(names)
        if left_out > 0:
            caption = f"{caption} {left_out} more columns are not shown."
        if hidden is not None:
            cells = [
                ["?" if h else c for c, h in zip(own, mask, strict=False)]
                for own, mask in zip(cells, hidden, strict=True)
            ]
        body = [[label, *own] for (label, _), own in zip(rows, cells, strict=True)]
        return Table(["", *names], body, caption, numeric=numeric)


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "missing"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
