"""The LSTM cell of the image layers, and its scan along the diagonals of an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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

    All pixels of a diagonal (h + w = d) are one step, of all directions at once. Its gradient is written out: a graph
    of so many small steps costs several times their arithmetic.

    Args:
        gates: (D, B, H, W, C, 4 F) what the inputs say, in the order o, f, i, g; D directions, C channels of a pixel.
        recurrent: (D, 2 C F, 4 C F) from the pixel to the left, then the pixel above, to the gates of each channel.

    Returns:
        The hidden states (D, B, H, W, C, F).

    Example:
        >>> diagonal_scan(torch.zeros(1, 2, 3, 4, 1, 8), torch.zeros(1, 4, 8)).shape
        torch.Size([1, 2, 3, 4, 1, 2])
    """
    channels = gates.shape[4]
    # Gates first and the batch last: the four gates of a diagonal are then four blocks of memory.
    by_gate = gates.unflatten(-1, (4, -1)).permute(0, 5, 4, 6, 2, 3, 1).flatten(1, 3)
    weight = recurrent.unflatten(-1, (channels, 4, -1)).transpose(2, 3).flatten(2, 4).transpose(1, 2)
    hidden = _DiagonalScan.apply(by_gate.contiguous(), weight.contiguous())
    return hidden.unflatten(1, (channels, -1)).permute(0, 5, 3, 4, 1, 2)


class _DiagonalScan(torch.autograd.Function):
    """gates (D, 4 Q, H, W, B), weight (D, 4 Q, 2 Q) -> hidden (D, Q, H, W, B)."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor) -> Tensor:
        directions, _, height, width, batch = gates.shape
        size = weight.shape[2] // 2
        # The newest hidden state of each row, after a row of zeros, and the newest cell.
        hidden = gates.new_zeros(directions, size, height + 1, batch)
        cell = gates.new_zeros(directions, size, height, batch)
        out = gates.new_empty(directions, size, height, width, batch)
        keep = any(ctx.needs_input_grad)
        saved: list[tuple[Tensor, ...]] = []
        for d in range(height + width - 1):
            low, high = _rows(d, height, width)
            z = _diagonal(gates, d).flatten(2)
            before = hidden[:, :, low : high + 1].clone()
            z = torch.baddbmm(z, weight[:, :, :size], before[:, :, 1:].flatten(2))
            z = torch.baddbmm(z, weight[:, :, size:], before[:, :, :-1].flatten(2))
            z[:, : 3 * size].sigmoid_()
            z[:, 3 * size :].tanh_()
            o, f, i, g = z.split(size, dim=1)
            old = cell[:, :, low:high].flatten(2).clone()
            new = torch.addcmul(f * old, i, g)
            squashed = new.tanh()
            h = (o * squashed).unflatten(2, (-1, batch))
            hidden[:, :, low + 1 : high + 1] = h
            cell[:, :, low:high] = new.view_as(h)
            _diagonal(out, d).copy_(h)
            if keep:
                saved.append((z, before, old, squashed))
        ctx.steps, ctx.shape = saved, gates.shape
        ctx.save_for_backward(weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (weight,) = ctx.saved_tensors
        directions, _, height, width, batch = ctx.shape
        size = weight.shape[2] // 2
        grad = grad.contiguous()
        # Of the newest hidden state of each row, after one of zeros that nobody asks for, and of the newest cell.
        of_hidden = grad.new_zeros(directions, size, height + 1, batch)
        of_cell = grad.new_zeros(directions, size, height, batch)
        of_gates, of_weight = grad.new_empty(ctx.shape), torch.zeros_like(weight)
        left, above = weight[:, :, :size].transpose(1, 2), weight[:, :, size:].transpose(1, 2)
        for d in range(height + width - 2, -1, -1):
            low, high = _rows(d, height, width)
            z, before, old, squashed = ctx.steps[d]
            o, f, i, g = z.split(size, dim=1)
            dh = (_diagonal(grad, d) + of_hidden[:, :, low + 1 : high + 1]).flatten(2)
            dc = torch.addcmul(of_cell[:, :, low:high].flatten(2), dh * o, 1 - squashed * squashed)
            outer = torch.cat([dh * squashed, dc * old, dc * g, dc * i], dim=1)
            slope = torch.cat([z[:, : 3 * size] * (1 - z[:, : 3 * size]), 1 - g * g], dim=1)
            dz = outer.mul_(slope)
            _diagonal(of_gates, d).copy_(dz.unflatten(2, (-1, batch)))
            of_weight[:, :, :size].baddbmm_(dz, before[:, :, 1:].flatten(2).transpose(1, 2))
            of_weight[:, :, size:].baddbmm_(dz, before[:, :, :-1].flatten(2).transpose(1, 2))
            of_cell[:, :, low:high] = (dc * f).unflatten(2, (-1, batch))
            of_hidden[:, :, low + 1 : high + 1] = torch.bmm(left, dz).unflatten(2, (-1, batch))
            of_hidden[:, :, low:high] += torch.bmm(above, dz).unflatten(2, (-1, batch))
        return of_gates, of_weight


def _rows(d: int, height: int, width: int) -> tuple[int, int]:
    """Return the first row of diagonal d and the one after its last."""
    return max(0, d - width + 1), min(height, d + 1)


def _diagonal(x: Tensor, d: int) -> Tensor:
    """Return diagonal d of contiguous maps (D, K, H, W, B) as a view (D, K, rows, B)."""
    directions, maps, height, width, batch = x.shape
    low, high = _rows(d, height, width)
    first = x.storage_offset() + (low * width + d - low) * batch
    return x.as_strided(
        (directions, maps, high - low, batch), (x.stride(0), x.stride(1), (width - 1) * batch, 1), first
    )
