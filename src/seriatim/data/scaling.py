"""Images to one size, and to grey or colour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from seriatim.data.dataset import Dataset


def height_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a size as (height, width); None stays None.

    Raises:
        ValueError: no side, or a side below 1.

    Example:
        >>> height_width(28), height_width((28, 20))
        ((28, 28), (28, 20))
    """
    shape = (size, size) if isinstance(size, int) else size
    if shape is not None and (len(shape) != 2 or min(shape) < 1):
        raise ValueError(f"size: expected a side or (height, width) of at least 1, got {size}")
    return shape


def fit_image(image: Image.Image, grey: bool, size: tuple[int, int] | None) -> np.ndarray:
    """Return an image as bytes (H, W) or (H, W, 3), scaled smoothly (Pillow's bilinear filter) where a size is given.

    Example:
        >>> fit_image(Image.new("L", (4, 6), 7), False, (2, 3)).shape
        (2, 3, 3)
    """
    image = image.convert("L" if grey else "RGB")
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def scale_images(
    x: np.ndarray, *, size: int | tuple[int, int] | None = None, grey: bool | None = None, name: str = "x"
) -> np.ndarray:
    """Scale an array of images, and change their channels, as `load_image_folder` does.

    Args:
        x: (N, H, W) or (N, H, W, 3), whole numbers 0..255.
        size: side, or (height, width); as they are if None.
        grey: True: one channel, False: three; as they are if None.
        name: what the errors call the array.

    Returns:
        (N, H, W) or (N, H, W, 3) bytes.

    Raises:
        ValueError: another shape, or numbers that are no bytes.

    Example:
        >>> scale_images(np.zeros((5, 8, 8, 3), dtype=np.uint8), size=4, grey=True).shape
        (5, 4, 4)
    """
    if size is None and grey is None:
        return x
    shape = height_width(size)
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] != 3) or not len(x):
        raise ValueError(f"{name}: expected images (N, H, W) or (N, H, W, 3) to scale, got {x.shape}")
    whole = x.dtype.kind in "iu" or (x.dtype.kind == "f" and bool((x == np.floor(x)).all()))
    if not whole or x.min() < 0 or x.max() > 255:
        raise ValueError(f"{name}: expected whole numbers 0..255 to scale, got {x.min():g}..{x.max():g}, {x.dtype}")
    grey = x.ndim == 3 if grey is None else grey
    return np.stack([fit_image(Image.fromarray(image), grey, shape) for image in x.astype(np.uint8)])


def scale(data: Dataset, *, size: int | tuple[int, int] | None = None, grey: bool | None = None) -> Dataset:
    """Return a data set of byte images at another size, or in other channels; its provenance says so.

    Raises:
        ValueError: a data set of other values.

    Example:
        >>> x = np.zeros((3, 8, 8), dtype=np.uint8)
        >>> scale(Dataset("x", x, x, x, kind="integer", levels=256), size=(4, 2)).event_shape
        (4, 2)
    """
    if size is None and grey is None:
        return data
    if data.levels != 256:
        raise ValueError(f"size: expected images of 256 levels to scale, got {data.name} with {data.levels}")
    parts: dict[str, Any] = {split: scale_images(x, size=size, grey=grey) for split, x in data.splits.items()}
    shape = list(parts["train"].shape[1:3]) if size is not None else None
    return replace(data, **parts, provenance={**data.provenance, "resize": shape, "grey": parts["train"].ndim == 3})
