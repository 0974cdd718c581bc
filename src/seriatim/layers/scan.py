"""The LSTM cell of the image layers, and its scan along the diagonals of an image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Return the hidden state and the cell after one step.

        i, f, o = sigmoid(gates),  c <- f c + i tanh(g),  h = o tanh(c)

    Shapes: gates (..., 4 H) in the order o, f, i, g; cell (..., H).

    Example:
        >>> hidden, cell = lstm_cell(torch.zeros(1, 8), torch.ones(1, 2))
        >>> cell
        tensor([[0.5000, 0.5000]])
    """
    size = cell.shape[-1]
    o, f, i = gates[..., : 3 * size].sigmoid().chunk(3, dim=-1)
    cell = f * cell + i * gates[..., 3 * size :].tanh()
    return o * cell.tanh(), cell


def diagonal_scan(gates: Tensor, recurrent: Tensor) -> Tensor:
    """Run LSTM along the diagonals of images: each pixel reads the pixel to its left and the pixel above.

        gates_hw + [h_h(w-1), h_(h-1)w] U,    c_hw = f c_h(w-1) + i g

    All pixels of a diagonal (h + w = d) are one step, of all directions at once.

    Args:
        gates: (D, B, H, W, C, 4 F) what the inputs say, D directions, C channels of a pixel.
        recurrent: (D, 2 C F, 4 C F) from the pixel to the left, then the pixel above.

    Returns:
        The hidden states (D, B, H, W, C, F).

    Example:
        >>> diagonal_scan(torch.zeros(1, 2, 3, 4, 1, 8), torch.zeros(1, 4, 8)).shape
        torch.Size([1, 2, 3, 4, 1, 2])
    """
    directions, batch, height, width, channels, size = gates.shape
    size //= 4
    skewed = _skew(gates.flatten(4).permute(2, 3, 0, 1, 4))  # by diagonal and row: (N, H, D, B, 4 C F)
    hidden = gates.new_zeros(0, directions, batch, channels * size)
    cell, first, diagonals = hidden, 0, []
    for d in range(height + width - 1):
        low, high = max(0, d - width + 1), min(height, d + 1)
        # Of the diagonal before: the same row is the pixel to the left, the row before it the pixel above.
        beside = _rows(hidden, low - first, high - first)
        above = _rows(hidden, low - first - 1, high - first - 1)
        seen = torch.cat([beside, above], dim=-1).transpose(0, 1).flatten(1, 2)
        told = torch.bmm(seen, recurrent).unflatten(1, (-1, batch)).transpose(0, 1)
        total = (skewed[d, low:high] + told).unflatten(-1, (channels, -1))
        before = _rows(cell, low - first, high - first).unflatten(-1, (channels, -1))
        h, c = lstm_cell(total, before)
        hidden, cell, first = h.flatten(3), c.flatten(3), low
        diagonals.append(F.pad(hidden, (0, 0, 0, 0, 0, 0, low, height - high)))
    return _unskew(torch.stack(diagonals), width).permute(2, 3, 0, 1, 4).unflatten(-1, (channels, -1))


def _rows(x: Tensor, low: int, high: int) -> Tensor:
    """Return rows low..high-1, zeros where there are none."""
    inside = x[max(0, low) : max(0, min(high, len(x)))]
    return F.pad(inside, (0, 0, 0, 0, 0, 0, max(0, -low), max(0, high - max(len(x), low))))


def _skew(x: Tensor) -> Tensor:
    """Shift row h of (H, W, ...) right by h, and put the diagonals first: (H + W - 1, H, ...)."""
    height, width = x.shape[:2]
    padded = F.pad(x.flatten(2), (0, 0, 0, height))  # (H, W + H, ...), then one place less a row
    shifted = padded.flatten(0, 1)[: height * (width + height - 1)].unflatten(0, (height, width + height - 1))
    return shifted.transpose(0, 1).unflatten(-1, x.shape[2:])


def _unskew(x: Tensor, width: int) -> Tensor:
    """Undo `_skew`: (H + W - 1, H, ...) to (H, W, ...)."""
    height = x.shape[1]
    rows = x.flatten(2).transpose(0, 1).flatten(0, 1)
    padded = F.pad(rows, (0, 0, 0, height)).unflatten(0, (height, width + height))
    return padded[:, :width].unflatten(-1, x.shape[2:])
