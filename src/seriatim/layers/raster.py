"""Layers over images in raster order: masked convolutions, and convolutions over the rows above.

A position is a pixel, or one channel of a pixel: t = (h W + w) C + c. The model has shifted the inputs by one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import Causal, State, write
from seriatim.order import Raster

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class MaskedConv2d(Causal):
    """A convolution over an image, masked to the pixels before (A) or up to (B) the centre in raster order.

        mask A   1 1 1     mask B   1 1 1        centre, channels R G B:   A  . . .     B  1 . .    (rows: outputs)
                 1 . .              1 1 .                                     1 . .        1 1 .
                 . . .              . . .                                     1 1 .        1 1 1

    The layer sees a raster sequence x (B, n, F) -> y (B, n, P), t = (h W + w) C + c. The model has already shifted the
    inputs by one, so with mask A the input at position t is the value at t-1: it is written there, and the output at t
    reads the values before t around its pixel. With mask B the input at t belongs to t. Where channels are positions
    (C > 1) each has weights of its own, reads all channels of the pixels before and those before (A) or up to (B) its
    own at the centre.

    Shapes: a whole image goes through one convolution, any other chunk through its pixels' own taps.

    Args:
        mask: "A" or "B".
        in_features: F, of one position.
        out_features: P, of one position.
        shape: (H, W).
        kernel_size: an odd number, or two: rows and columns. Of one row it reads the pixels to the left only.
        channels: C, the positions of one pixel.
        context_features: of a context vector (B, S) or of a map (B, H W, S) in scan order, added to every output
            through weights of its own.

    Reference: Pixel Recurrent Neural Networks (van den Oord, Kalchbrenner, Kavukcuoglu, 2016).

    Example:
        >>> MaskedConv2d("A", 1, 4, shape=(5, 6), kernel_size=3)(torch.zeros(1, 30, 1))[0].shape
        torch.Size([1, 30, 4])
    """

    sources: Tensor
    weight_mask: Tensor

    def __init__(
        self,
        mask: Literal["A", "B"],
        in_features: int,
        out_features: int,
        *,
        shape: tuple[int, int],
        kernel_size: int | tuple[int, int],
        channels: int = 1,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        if mask not in ("A", "B"):
            raise ValueError(f"mask: expected 'A' or 'B', got {mask!r}")
        height, width = kernel_size if isinstance(kernel_size, tuple) else (kernel_size, kernel_size)
        if height % 2 == 0 or width % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {kernel_size}")
        self.mask, self.shape, self.kernel_size = mask, tuple(shape), (height, width)
        self.in_features, self.out_features, self.channels = in_features, out_features, channels
        # The kernel in raster order up to its centre; without channels mask A leaves the centre out altogether.
        self.num_taps = height * width // 2 + (0 if mask == "A" and channels == 1 else 1)
        self.register_buffer("sources", self._sources(), persistent=False)
        self.register_buffer("weight_mask", self._weight_mask(), persistent=False)
        self.linear = nn.Linear(self.num_taps * channels * in_features, channels * out_features)
        self.context = nn.Linear(context_features, channels * out_features, bias=False) if context_features else None

    def _sources(self) -> Tensor:
        """Return the pixel behind each tap of each pixel, (H W, taps); H W stands for the zero outside."""
        height, width = self.shape
        taps = torch.arange(self.num_taps)
        h, w = torch.arange(height)[:, None, None], torch.arange(width)[None, :, None]
        rows = h + taps // self.kernel_size[1] - self.kernel_size[0] // 2
        columns = w + taps % self.kernel_size[1] - self.kernel_size[1] // 2
        inside = (rows >= 0) & (columns >= 0) & (columns < width)
        return torch.where(inside, rows * width + columns, height * width).flatten(0, 1)

    def _reads(self) -> Tensor:
        """Return which channels of each tap each output channel reads, (C, taps, C) bool."""
        channel = torch.arange(self.channels)
        centre = channel[:, None] > channel if self.mask == "A" else channel[:, None] >= channel
        reads = torch.ones(self.channels, self.num_taps, self.channels, dtype=torch.bool)
        if self.num_taps > self.kernel_size[0] * self.kernel_size[1] // 2:
            reads[:, -1] = centre
        return reads

    def _weight_mask(self) -> Tensor:
        rows = self._reads().flatten(1).repeat_interleave(self.in_features, dim=1)
        return rows.repeat_interleave(self.out_features, dim=0)

    @property
    def weight(self) -> Tensor:
        """The masked weights, (C P, taps C F)."""
        return self.linear.weight if self.channels == 1 else self.linear.weight * self.weight_mask

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        height, width = self.shape
        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.linear.weight.device),
            # One pixel more: the zero outside. It takes no memory until it is written.
            "map": self.linear.weight.new_zeros(1, 1, 1).expand(
                batch_size, (height * width + 1) * self.channels, self.in_features
            ),
            "context": None if self.context is None else self.context(of_pixels(context)),
        }

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state["position"][0]), x.shape[1]
        values = x if self.mask == "B" else (x[:, 1:] if start == 0 else x)
        first = start if self.mask == "B" else max(start - 1, 0)
        stored = write(state["map"], first, values) if values.shape[1] else state["map"]
        height, width = self.shape
        if n == height * width * self.channels:
            y = self._whole(stored[:, :n])
        else:
            y = self._pixels(stored, start, n)
        if state["context"] is not None:
            y = y + self._heard(state["context"], start, n)
        return y, {**state, "position": state["position"] + n, "map": stored}

    def _heard(self, context: Tensor, start: int, n: int) -> Tensor:
        """Return what the context (B, 1 or H W, C P) says to positions start..start+n-1: (B, n, P)."""
        if context.shape[1] > 1:
            return context.unflatten(-1, (self.channels, -1)).flatten(1, 2)[:, start : start + n]
        channel = torch.arange(start, start + n, device=context.device) % self.channels
        return context.unflatten(-1, (self.channels, -1))[:, 0, channel]

    def _pixels(self, stored: Tensor, start: int, n: int) -> Tensor:
        """Return the outputs at positions start..start+n-1 from the map, by the taps of their pixels."""
        c = self.channels
        pixel, stop = start // c, (start + n - 1) // c + 1
        patches = stored.unflatten(1, (-1, c))[:, self.sources[pixel:stop]].flatten(2)
        if stop - pixel > 1 or c == 1:
            y = F.linear(patches, self.weight, self.linear.bias).unflatten(-1, (c, -1)).flatten(1, 2)
            return y[:, start - pixel * c :][:, :n]
        own = slice((start - pixel * c) * self.out_features, (start - pixel * c + n) * self.out_features)
        return F.linear(patches, self.weight[own], self.linear.bias[own]).unflatten(-1, (n, -1)).flatten(1, 2)

    def _whole(self, values: Tensor) -> Tensor:
        """Return the outputs of a whole image (B, T, F)."""
        rows, columns = self.kernel_size
        image = values.unflatten(1, (*self.shape, self.channels)).flatten(3).movedim(-1, 1)
        kernel = self.weight.unflatten(1, (self.num_taps, -1)).transpose(1, 2)
        if rows == 1:
            padded = F.pad(image, (columns // 2, self.num_taps - 1 - columns // 2))
            y = F.conv2d(padded, kernel[:, :, None], self.linear.bias)
        else:
            kernel = F.pad(kernel, (0, rows * columns - self.num_taps)).unflatten(-1, (rows, columns))
            y = F.conv2d(image, kernel, self.linear.bias, padding=(rows // 2, columns // 2))
        return y.movedim(1, -1).unflatten(-1, (self.channels, -1)).flatten(1, 3)

    @property
    def kernel(self) -> list[tuple[int, int, int]]:
        """The taps as runs of pixels: (rows above, first column, count), in raster order."""
        rows, columns = self.kernel_size
        half, left = columns // 2, self.num_taps - rows // 2 * columns
        runs = [(above, -half, columns) for above in range(rows // 2, 0, -1)]
        return [*runs, (0, -half, left)] if left else runs

    def taps(self, tape: Tape, x: Operand) -> list[tuple[Operand, Tensor]]:
        """Return the kernel's taps on a tape; x becomes a map."""
        length = math.prod(self.shape) * self.channels
        kept = tape.image(
            x,
            self.shape[1],
            lambda state, position: (state["map"][:, :length], 0),
            above=self.kernel_size[0] // 2,
            halo=self.kernel_size[1] // 2,
            shift=1 if self.mask == "A" else 0,
            channels=self.channels,
        )
        return tape.window(kept, self._in_turn(self.weight.unflatten(1, (self.num_taps, -1))), self.kernel)

    def bias(self, tape: Tape) -> Tensor | Operand:
        """Return what is added to the taps on a tape: the biases, or what the context makes of them."""
        if self.context is None:
            return self._in_turn(self.linear.bias)
        return tape.told(self.out_features, lambda state: state["context"] + self.linear.bias, channels=self.channels)

    def _in_turn(self, outputs: Tensor) -> Tensor:
        """Split the outputs (C P, ...) by the channels that own them, (C, P, ...); one channel needs no split."""
        return outputs if self.channels == 1 else outputs.unflatten(0, (self.channels, -1))

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return tape.linear(self.taps(tape, x), self.bias(tape))

    def dependencies(self, length: int) -> Tensor:
        pixels, c = self.shape[0] * self.shape[1], self.channels
        reads = torch.zeros(pixels, c, pixels + 1, c, dtype=torch.bool)
        pixel = torch.arange(pixels)[:, None].expand(-1, self.num_taps)
        # The outside, pixel H W, is written more than once; it is cut off.
        reads[pixel, :, self.sources.cpu()] = self._reads().transpose(0, 1).expand(pixels, -1, -1, -1)
        square = reads[:, :, :pixels].flatten(2).flatten(0, 1)
        # With mask A the input at position s is the value at s - 1.
        return (square.roll(1, dims=1) if self.mask == "A" else square)[:length, :length]


def row_of(position: int, width: int) -> int:
    """Return the first pixel of the row that a state before `position` has begun; before all rows at the start.

    Example:
        >>> row_of(5, width=4), row_of(4, width=4), row_of(0, width=4)
        (4, 0, -4)
    """
    return (position - 1) // width * width


def of_pixels(context: Tensor) -> Tensor:
    """Return a context vector (B, S) as one for all pixels, (B, 1, S); a map (B, H W, S) as it is.

    Example:
        >>> of_pixels(torch.zeros(3, 2)).shape, of_pixels(torch.zeros(3, 20, 2)).shape
        (torch.Size([3, 1, 2]), torch.Size([3, 20, 2]))
    """
    return context[:, None] if context.ndim == 2 else context


class WithOne(nn.Module):
    """Put a one beside every position's features, so that a convolution tells the border from dark pixels.

    Example:
        >>> WithOne()(torch.zeros(1, 1, 2))
        tensor([[[0., 0., 1.]]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n, F) to (B, n, F + 1)."""
        return F.pad(x, (0, 1), value=1.0)

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return tape.join([x, tape.weight(torch.ones(1))])


class RasterPositions(Causal):
    """Learned vectors of the row, the column and the channel, added to each position.

        y_t = x_t + r_h + s_w + u_c

    Shapes: x (B, n, F) -> y (B, n, F).

    Example:
        >>> RasterPositions(Raster(4, 5, 1), 8)(torch.zeros(2, 20, 8))[0].shape
        torch.Size([2, 20, 8])
    """

    def __init__(self, raster: Raster, num_features: int) -> None:
        super().__init__()
        self.raster = raster
        self.tables = nn.ParameterList(nn.Parameter(0.02 * torch.randn(size, num_features)) for size in raster)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return torch.zeros(batch_size, dtype=torch.int64, device=self.tables[0].device)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        _, width, channels = self.raster
        position = int(state[0]) + torch.arange(x.shape[1], device=x.device)
        rows, columns, channel = self.tables
        pixel = position // channels
        return x + rows[pixel // width] + columns[pixel % width] + channel[position % channels], state + x.shape[1]

    def lower(self, tape: Tape, x: Operand) -> Operand:
        zeros = torch.zeros(1, math.prod(self.raster), self.tables[0].shape[1])
        return tape.add(x, tape.table(self.advance(zeros, self.initial_state(1))[0][0]))

    def dependencies(self, length: int) -> Tensor:
        return torch.eye(length, dtype=torch.bool)


class RowConv2d(nn.Module):
    """A convolution over the rows up to the present one, all columns: a causal convolution whose positions are rows.

        kernel 2 x 3   1 1 1
                       1 1 1   <- the row of the output

    Shapes: x (B, r, W, F) -> y (B, r, W, P), r rows; the state (B, k-1, W, F) holds the rows before, zeros at first.

    Reference: Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016).

    Example:
        >>> conv = RowConv2d(1, 4, width=6, kernel_size=(2, 3))
        >>> conv(torch.zeros(1, 5, 6, 1), conv.initial_state(1))[0].shape
        torch.Size([1, 5, 6, 4])
    """

    def __init__(
        self, in_features: int, out_features: int, *, width: int, kernel_size: tuple[int, int], bias: bool = True
    ) -> None:
        super().__init__()
        if kernel_size[1] % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number of columns, got {kernel_size}")
        self.width, self.kernel_size = width, kernel_size
        self.conv = nn.Conv2d(in_features, out_features, self.kernel_size, padding=(0, kernel_size[1] // 2), bias=bias)

    def initial_state(self, batch_size: int) -> Tensor:
        """Return the rows before the first, zeros."""
        return self.conv.weight.new_zeros(batch_size, self.kernel_size[0] - 1, self.width, self.conv.in_channels)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows (B, r, W, F) to (B, r, W, P), and the rows before them to the rows before the next."""
        if not x.shape[1]:  # a chunk within a row
            return x.new_zeros(*x.shape[:3], self.conv.out_channels), state
        seen = torch.cat([state, x], dim=1)
        y = self.conv(seen.movedim(-1, 1)).movedim(1, -1)
        return y, seen[:, x.shape[1] :]

    @property
    def taps_weight(self) -> Tensor:
        """The weights (P, taps, F), row by row."""
        return self.conv.weight.flatten(2).transpose(1, 2)

    def taps(
        self, tape: Tape, x: Operand, *, above: int = 0, weight: Tensor | None = None
    ) -> list[tuple[Operand, Tensor]]:
        """Return the kernel's taps over a map whose present row lies `above` rows above.

        Args:
            tape: where to.
            x: the map.
            above: how many rows.
            weight: (P', taps, F'), in place of the layer's own, where outputs or inputs lie in another way.
        """
        rows, columns = self.kernel_size
        runs = [(above + row, -(columns // 2), columns) for row in range(rows - 1, -1, -1)]
        return tape.window(x, self.taps_weight if weight is None else weight, runs)

    def dependencies(self, height: int) -> Tensor:
        """Return which pixels of the input each pixel of the output depends on, (H W, H W) bool."""
        row, column = torch.arange(height * self.width) // self.width, torch.arange(height * self.width) % self.width
        down, across = row[:, None] - row, (column[:, None] - column).abs()
        return (down >= 0) & (down < self.kernel_size[0]) & (across <= self.kernel_size[1] // 2)
