"""`Order`: which value comes first, second, third."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from seriatim.config import Configurable


class Raster(NamedTuple):
    """An image as a raster-bound network sees it: rows, columns, and the positions (channels) of one pixel."""

    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    @property
    def row_length(self) -> int:
        """The positions of one row, W C."""
        return self.width * self.channels


class Order(Configurable):
    """A bijection between the places of the data and the positions 1..T.

        x_t = data[permutation[t]]        t = 1..T, places counted in row-major order

    Args:
        shape: the shape of the places, e.g. (D,) for a table or (H, W) for an image. A place may hold a vector: those
            axes come after `shape` in the data and are not part of the order.
        permutation: (T,) the flat place at each position; row-major (raster) if None.

    Raises:
        ValueError: the permutation is none.

    Example:
        >>> order = Order((2, 2), permutation=[3, 2, 1, 0])
        >>> order.to_positions(torch.tensor([[[1, 2], [3, 4]]]))
        tensor([[4, 3, 2, 1]])
        >>> order.to_data(torch.tensor([[4, 3, 2, 1]]))
        tensor([[[1, 2],
                 [3, 4]]])
    """

    def __init__(self, shape: Sequence[int], permutation: Sequence[int] | Tensor | None = None) -> None:
        self.shape = tuple(int(size) for size in shape)
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape: expected one or more positive sizes, got {tuple(shape)}")
        self.length = math.prod(self.shape)
        self.is_natural, self._given = True, None
        if permutation is not None:
            natural, self._given = torch.arange(self.length), torch.as_tensor(permutation, dtype=torch.int64)
            if self._given.shape != (self.length,) or not torch.equal(self._given.sort().values, natural):
                raise ValueError(f"permutation: expected each of 0..{self.length - 1} once, got {_short(self._given)}")
            self.is_natural = torch.equal(self._given, natural)

    # Made when first asked for: the order of an hour of sound, which nobody permutes, takes no memory.
    @cached_property
    def permutation(self) -> Tensor:
        """The flat place at each position, (T,)."""
        return torch.arange(self.length) if self._given is None else self._given

    @cached_property
    def inverse(self) -> Tensor:
        """The position of each flat place, (T,)."""
        return torch.argsort(self.permutation)

    def places(self, start: int, stop: int) -> Tensor:
        """Return the flat places at positions start .. stop - 1, counted from 0."""
        return torch.arange(start, stop) if self.is_natural else self.permutation[start:stop]

    @property
    def raster(self) -> Raster:
        """The image in scan order; refused where the order is no raster scan of (H, W) or (H, W, C)."""
        if not self.is_natural or len(self.shape) not in (2, 3):
            raise ValueError(
                "order: expected a raster scan of (H, W) or (H, W, C), or one of its flips and transposes (`Scan`), "
                f"got {self}"
            )
        return Raster(self.shape[0], self.shape[1], 1 if len(self.shape) == 2 else self.shape[2])

    def to_positions(self, data: Tensor) -> Tensor:
        """Map data (B, *shape, ...) to a sequence (B, T, ...)."""
        flat = data.flatten(1, len(self.shape)) if len(self.shape) > 1 else data
        return flat if self.is_natural else flat.index_select(1, self.permutation.to(data.device))

    def to_pixels(self, image: Tensor) -> Tensor:
        """Map numbers of the pixels (B, H, W, S), in the layout of the data, to scan order (B, H W, S)."""
        channels = self.raster.channels
        pixels = image.flatten(1, 2)
        return pixels if self.is_natural else pixels[:, self.permutation[::channels].to(image.device) // channels]

    def to_data(self, sequence: Tensor) -> Tensor:
        """Map a sequence (B, T, ...) to data (B, *shape, ...)."""
        flat = sequence if self.is_natural else sequence.index_select(1, self.inverse.to(sequence.device))
        return flat.unflatten(1, self.shape)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape}{'' if self.is_natural else f', {_short(self.permutation)}'})"


class RandomOrder(Order):
    """An order drawn at random, the same for the same seed on every machine.

    Example:
        >>> RandomOrder((4,), seed=1).permutation.tolist() == RandomOrder((4,), seed=1).permutation.tolist()
        True
    """

    def __init__(self, shape: Sequence[int], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        super().__init__(shape, torch.randperm(math.prod(shape), generator=generator))


class Scan(Order):
    """One of the eight flips and transposes of an image's raster scan, which a raster-bound network can take.

        place of position t = (h, w) after flips; columns before rows if transposed

    Args:
        shape: (H, W), or (H, W, C) where every channel is a position: channels keep their order.
        flip_rows: read from the bottom row up.
        flip_columns: read each row from right to left.
        transpose: read column by column; the network then sees an image of W x H.

    Example:
        >>> Scan((2, 3), flip_columns=True).permutation.tolist()
        [2, 1, 0, 5, 4, 3]
        >>> Scan((2, 3), transpose=True).permutation.tolist()
        [0, 3, 1, 4, 2, 5]
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        flip_rows: bool = False,
        flip_columns: bool = False,
        transpose: bool = False,
    ) -> None:
        if len(shape) not in (2, 3):
            raise ValueError(f"shape: expected (height, width) or (height, width, channels), got {tuple(shape)}")
        places = torch.arange(math.prod(shape)).reshape(tuple(shape))
        flipped = [axis for axis, flip in enumerate((flip_rows, flip_columns)) if flip]
        places = places.flip(flipped) if flipped else places
        places = places.transpose(0, 1) if transpose else places
        self._raster = Raster(places.shape[0], places.shape[1], 1 if places.ndim == 2 else places.shape[2])
        super().__init__(shape, places.reshape(-1))

    @property
    def raster(self) -> Raster:
        """The image in scan order."""
        return self._raster


def scans(shape: Sequence[int], count: int = 8) -> list[Scan]:
    """Return the first of the eight scans of an image: raster order, its flips, then their transposes.

    Example:
        >>> [scan.raster.height for scan in scans((2, 3))]
        [2, 2, 2, 2, 3, 3, 3, 3]
    """
    if not 1 <= count <= 8:
        raise ValueError(f"count: expected 1 to 8 scans, got {count}")
    flips = [(t, r, c) for t in (False, True) for r in (False, True) for c in (False, True)]
    return [Scan(shape, flip_rows=r, flip_columns=c, transpose=t) for t, r, c in flips[:count]]


def _short(values: Tensor) -> str:
    listed = ", ".join(str(v) for v in values.flatten()[:8].tolist())
    return f"[{listed}{', ...' if values.numel() > 8 else ''}]"
