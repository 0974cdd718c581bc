"""Small pictures as data URIs: images, images with holes, heat maps."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

_HEAT = (
    (0.0, (18, 20, 33)),
    (0.15, (48, 22, 84)),
    (0.35, (122, 30, 108)),
    (0.55, (190, 55, 84)),
    (0.75, (237, 105, 37)),
    (0.9, (251, 180, 26)),
    (1.0, (252, 245, 190)),
)
"""Anchors of the colour scale, from no surprise (dark) to the most (pale yellow)."""

HIDDEN = (120, 92, 150)
"""The violet of what is hidden or not drawn yet."""

_DARK, _LIGHT = np.array([24.0, 27.0, 38.0]), np.array([244.0, 242.0, 236.0])


def heat_colours(values: np.ndarray, largest: float) -> np.ndarray:
    """Return the colours (..., 3) uint8 of values: dark at 0 and below, pale yellow at `largest` and above.

    Example:
        >>> heat_colours(np.array([0.0, 9.0]), 9.0).tolist()
        [[18, 20, 33], [252, 245, 190]]
    """
    share = np.clip(np.asarray(values, dtype=np.float64) / max(largest, 1e-12), 0, 1)
    stops, colours = [stop for stop, _ in _HEAT], np.array([colour for _, colour in _HEAT], dtype=np.float64)
    channels = [np.interp(share, stops, colours[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_gradient() -> str:
    """Return the colour scale as a CSS gradient."""
    stops = ", ".join(f"rgb({r} {g} {b}) {100 * stop:g}%" for stop, (r, g, b) in _HEAT)
    return f"linear-gradient(to right, {stops})"


def grey_colours(image: np.ndarray, levels: int) -> np.ndarray:
    """Return the colours (H, W, 3) uint8 of an image (H, W) or (H, W, 3) with values 0..levels-1.

    Example:
        >>> grey_colours(np.array([[0, 1]]), 2).tolist()
        [[[24, 27, 38], [244, 242, 236]]]
    """
    share = np.clip(np.asarray(image, dtype=np.float64) / max(levels - 1, 1), 0, 1)
    if image.ndim == 3:
        return (share * 255).round().astype(np.uint8)
    return (_DARK + share[..., None] * (_LIGHT - _DARK)).round().astype(np.uint8)


def tinted(colours: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) with `HIDDEN`, which is no grey, at the places (H, W) that are not observed.

    Example:
        >>> tinted(np.zeros((1, 2, 3), dtype=np.uint8), np.array([[True, False]])).tolist()
        [[[0, 0, 0], [120, 92, 150]]]
    """
    return np.where(observed[..., None], colours, np.array(HIDDEN, dtype=np.uint8))


def png_bytes(colours: np.ndarray, observed: np.ndarray | None = None, scale: int = 1) -> bytes:
    """Return a PNG of colours (H, W, 3); places that are not observed (H, W) are transparent.

    Args:
        colours: (H, W, 3) uint8.
        observed: (H, W) bool; None: all.
        scale: side of the square that one value becomes.
    """
    from PIL import Image

    if observed is not None:
        alpha = np.where(observed, 255, 0).astype(np.uint8)
        colours = np.concatenate([colours, alpha[..., None]], axis=-1)
    colours = colours.repeat(scale, axis=0).repeat(scale, axis=1)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def data_uri(png: bytes) -> str:
    """Return a PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def image_uri(image: np.ndarray, levels: int, observed: np.ndarray | None = None) -> str:
    """Return an image with values 0..levels-1 as a data URI, see `png_bytes`."""
    return data_uri(png_bytes(grey_colours(image, levels), observed))


def heat_uri(bits: np.ndarray, largest: float) -> str:
    """Return a heat map (H, W) as a data URI, see `heat_colours`."""
    return data_uri(png_bytes(heat_colours(bits, largest)))


def grid(tiles: Sequence[np.ndarray], columns: int, scale: int = 1, pad: int = 2) -> np.ndarray:
    """Lay pictures (H, W, 3) of one size side by side, row by row, on grey: (rows, columns, 3) uint8.

    Example:
        >>> grid([np.zeros((2, 3, 3), dtype=np.uint8)] * 4, columns=2, pad=1).shape
        (7, 9, 3)
    """
    height, width = tiles[0].shape[0] * scale, tiles[0].shape[1] * scale
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), 128, dtype=np.uint8)
    for i, tile in enumerate(tiles):
        top, left = pad + i // columns * (height + pad), pad + i % columns * (width + pad)
        canvas[top : top + height, left : left + width] = tile.repeat(scale, axis=0).repeat(scale, axis=1)
    return canvas
