"""The LSTM cell of the image layers, and its scans of an image: down the rows, and along the diagonals."""

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


def row_scan(x: Tensor, told: Tensor, inputs: Tensor, above: Tensor) -> Tensor:
    """Run an LSTM down the rows of images: each pixel reads hidden states of the row above.

        gates_hw = sum_j W_j x_h(w-j) + told_hw + sum_j V_j h_(h-1)(w+j)
        c_hw = f c_(h-1)w + i g,    h_hw = o tanh(c_hw)

    A row is one step, and its products are done while it lies in the cache. The gradient is written out: in a graph of
    slices the gradient of each slice is a whole image.

    Args:
        x: (B, H, W, F) the features of each pixel.
        told: (1 or H, 4 Q, 1 or B, 1 or W) what else the gates are told.
        inputs: (4 Q, J, F) from the J - 1 pixels to the left and x itself, left to right, to the gates o, f, i, g.
        above: (4 Q, K, Q) from the K pixels of the row above that lie around x, left to right; K is odd.

    Returns:
        The hidden states (B, H, W, Q).

    Example:
        >>> row_scan(torch.zeros(2, 3, 4, 5), torch.zeros(1, 8, 1, 1), torch.zeros(8, 2, 5), torch.zeros(8, 3, 2)).shape
        torch.Size([2, 3, 4, 2])
    """
    with torch.autocast(x.device.type, enabled=False):  # a cell adds up over the rows: in the precision of the weights
        kind = above.dtype
        hidden: Tensor = _RowScan.apply(x.to(kind), told.to(kind), inputs, above)
    return hidden


def diagonal_scan(x: Tensor, told: Tensor, weight: Tensor) -> Tensor:
    """Run two LSTM along the diagonals of images, one to the right and one to the left, from the upper corners down.

        gates_hw = W x_hw + told_hw + U h_h(w-1) + V h_(h-1)w,    c_hw = f c_h(w-1) + i g,    h_hw = o tanh(c_hw)

    and w + 1 instead of w - 1 for the one to the left. A diagonal is one step, all its pixels of both directions at
    once: one matrix product of what they read. The gradient is written out, because a graph of so many small steps
    costs several times their arithmetic.

    Args:
        x: (B, H, W, F) the features of each pixel.
        told: (2, 4 Q, P, N) what else the gates are told: P is 1 or H W (of each pixel), N is 1 or B (of each image).
        weight: (2, 4 Q, F + 2 Q) from x, the hidden state beside and the one above to the gates o, f, i, g.

    Returns:
        The hidden states (2, B, H, W, Q), to the right and to the left.

    Example:
        >>> diagonal_scan(torch.zeros(2, 3, 4, 5), torch.zeros(2, 8, 1, 1), torch.zeros(2, 8, 9)).shape
        torch.Size([2, 2, 3, 4, 2])
    """
    with torch.autocast(x.device.type, enabled=False):  # a cell adds up over the image: in the precision of the weights
        kind = weight.dtype
        hidden: Tensor = _DiagonalScan.apply(x.to(kind).contiguous(), told.to(kind), weight.contiguous())
    return hidden


_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


class _RowScan(torch.autograd.Function):
    """The scan and its gradient.

    Gates and hidden states have the features first, (Q, B, W) of a row: each gate is then one block of memory. What a
    product reads is gathered row by row, in the cache, and again for the gradient of the weights.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, told: Tensor, inputs: Tensor, above: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        size = above.shape[0] // 4
        z, cells = x.new_empty(height, 4 * size, batch, width), x.new_zeros(height + 1, size, batch, width)
        squashed, hidden = x.new_empty(2, height, size, batch, width)
        seen, seen_taps = _seen(x, inputs)
        heard, heard_taps = _heard(hidden, above)
        own, parts = z.flatten(2).unbind(), zip(*(gate.unbind() for gate in z.split(size, dim=1)), strict=True)
        for h, (o, f, i, g) in enumerate(parts):
            _gather(seen_taps, h)
            torch.mm(inputs.flatten(1), seen.mT, out=own[h])
            z[h] += told[h % len(told)]
            if h:
                _gather(heard_taps, h - 1)
                torch.addmm(own[h], above.flatten(1), heard, out=own[h])  # FlopCounterMode does not count addmm_
            z[h, : 3 * size].sigmoid_()
            g.tanh_()
            torch.mul(cells[h], f, out=cells[h + 1]).addcmul_(i, g)
            torch.tanh(cells[h + 1], out=squashed[h])
            torch.mul(o, squashed[h], out=hidden[h])
        ctx.told_shape = told.shape
        ctx.save_for_backward(x, inputs, above, z, cells, squashed, hidden)
        return hidden.permute(2, 0, 3, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, inputs, above, z, cells, squashed, hidden = ctx.saved_tensors
        of_x, of_told, of_hidden = torch.zeros_like(x), grad.new_zeros(ctx.told_shape), grad.permute(1, 3, 0, 2)
        of_hidden = of_hidden.contiguous()
        of_inputs, of_above = torch.zeros_like(inputs.flatten(1)), torch.zeros_like(above.flatten(1))
        (seen, seen_taps), (of_seen, of_seen_taps) = _seen(x, inputs), _seen(of_x, inputs)
        (heard, heard_taps), (of_heard, of_heard_taps) = _heard(hidden, above), _heard(of_hidden, above)
        of_cell, dz = torch.zeros_like(cells[0]), torch.empty_like(z[0])
        flat = dz.flatten(1)
        for h in range(len(hidden) - 1, -1, -1):
            _cell_gradient(of_hidden[h], of_cell, z[h], cells[h], squashed[h], dz)
            part = of_told[h % len(of_told)]
            part += dz.sum_to_size(part.shape)
            _gather(seen_taps, h)
            of_inputs.addmm_(flat, seen)
            torch.mm(flat.mT, inputs.flatten(1), out=of_seen)
            _scatter(of_seen_taps, h)
            if h:
                _gather(heard_taps, h - 1)
                of_above.addmm_(flat, heard.mT)
                torch.mm(above.flatten(1).mT, flat, out=of_heard)
                _scatter(of_heard_taps, h - 1)
        return of_x, of_told, of_inputs.view_as(inputs), of_above.view_as(above)


_Taps = list[tuple[Tensor, tuple[Tensor, ...]]]
"""The place of each tap of a product, and the part of every row that it reads."""


def _seen(x: Tensor, inputs: Tensor) -> tuple[Tensor, _Taps]:
    """Return what a row's product reads of x, zeros (B W, J F), and its taps."""
    seen = x.new_zeros(x.shape[0], x.shape[2], *inputs.shape[1:])
    return seen.view(-1, inputs[0].numel()), _taps(seen.permute(2, 0, 3, 1), x.permute(1, 0, 3, 2), 1 - inputs.shape[1])


def _heard(hidden: Tensor, above: Tensor) -> tuple[Tensor, _Taps]:
    """Return what a row's product reads of the hidden states of the row above, zeros (K Q, B W), and its taps."""
    heard = hidden.new_zeros(above.shape[1], *hidden.shape[1:])
    return heard.view(above[0].numel(), -1), _taps(heard, hidden, -(above.shape[1] // 2))


def _taps(places: Tensor, rows: Tensor, first: int) -> _Taps:
    """Return the taps (J, ..., W) of rows (H, ..., W); tap j reads the column `first + j` to its right, if there is."""
    width, taps = rows.shape[-1], []
    for by, place in enumerate(places, first):
        count = max(width - abs(by), 0)
        to, source = max(-by, 0), max(by, 0)
        taps.append((place[..., to : to + count], rows[..., source : source + count].unbind()))
    return taps


def _gather(taps: _Taps, row: int) -> None:
    """Write a row into its taps."""
    for place, rows in taps:
        place.copy_(rows[row])


def _scatter(taps: _Taps, row: int) -> None:
    """Add the taps to their row."""
    for place, rows in taps:
        rows[row].add_(place)


class _DiagonalScan(torch.autograd.Function):
    """The scan and its gradient.

    What a product reads has the features last, so that a pixel is one copy; what it says to the gates has them first,
    (2, 4 Q, rows, B): each gate is then one block of memory. The hidden states of the newest diagonal lie by row, after
    a row of zeros above the image; a row that has not begun is zero too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, told: Tensor, weight: Tensor) -> Tensor:
        batch, height, width, features = x.shape
        size = weight.shape[1] // 4
        out = x.new_empty(2, batch, height, width, size)
        pixels, outs = _by_pixel(x), [_by_pixel(y) for y in out]
        hidden = x.new_zeros(2, height + 1, batch, size)
        cell = x.new_zeros(2, size, height, batch)
        keep = any(ctx.needs_input_grad)
        saved: list[tuple[Tensor, ...]] = []
        for d in range(height + width - 1):
            low, high, places = _diagonal(d, height, width)
            read = x.new_empty(2, high - low, batch, features + 2 * size)
            for k in (0, 1):
                read[k, ..., :features] = pixels[places[k]]
            read[..., features : features + size] = hidden[:, low + 1 : high + 1]
            read[..., features + size :] = hidden[:, low:high]
            z = torch.bmm(weight, read.flatten(1, 2).mT).unflatten(2, (-1, batch))
            z += _told(told, places)
            z[:, : 3 * size].sigmoid_()
            z[:, 3 * size :].tanh_()
            o, f, i, g = z.split(size, dim=1)
            cells, newest = cell[:, :, low:high], hidden[:, low + 1 : high + 1]
            old = cells.clone()
            squashed = cells.mul_(f).addcmul_(i, g).tanh()
            newest.copy_((o * squashed).permute(0, 2, 3, 1))
            for k in (0, 1):
                outs[k][places[k]] = newest[k]
            if keep:
                saved.append((read, z, old, squashed))
        ctx.steps, ctx.shape, ctx.told_shape = saved, x.shape, told.shape
        ctx.save_for_backward(weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (weight,) = ctx.saved_tensors
        batch, height, width, features = ctx.shape
        size = weight.shape[1] // 4
        of_x, of_told, of_weight = grad.new_zeros(ctx.shape), grad.new_zeros(ctx.told_shape), torch.zeros_like(weight)
        of_pixels, of_outs = _by_pixel(of_x), [_by_pixel(y) for y in grad]
        of_hidden = grad.new_zeros(2, height + 1, batch, size)
        of_cell = grad.new_zeros(2, size, height, batch)
        for d in range(height + width - 2, -1, -1):
            low, high, places = _diagonal(d, height, width)
            read, z, old, squashed = ctx.steps[d]
            newest = of_hidden[:, low + 1 : high + 1]
            for k in (0, 1):
                newest[k] += of_outs[k][places[k]]
            dh = newest.permute(0, 3, 1, 2).contiguous()
            dz = _cell_gradient(dh, of_cell[:, :, low:high], z, old, squashed, torch.empty_like(z))
            _add_told(of_told, dz, places)
            flat = dz.flatten(2)
            of_weight.baddbmm_(flat, read.flatten(1, 2))
            of_read = torch.bmm(flat.mT, weight).view_as(read)
            for k in (0, 1):
                of_pixels[places[k]] += of_read[k, ..., :features]
            newest.copy_(of_read[..., features : features + size])
            of_hidden[:, low:high] += of_read[..., features + size :]
        return of_x, of_told, of_weight


def _cell_gradient(dh: Tensor, dc: Tensor, z: Tensor, old: Tensor, squashed: Tensor, dz: Tensor) -> Tensor:
    """Write into dz the gradient of the gates before their functions; dc, of the new cell, becomes that of the old one.

    Shapes: gates (..., 4 Q, N, M), the others (..., Q, N, M).
    """
    size = old.shape[-3]
    o, f, i, g = z.split(size, dim=-3)
    do, df, di, dg = dz.split(size, dim=-3)
    through = dh * o
    dc += _tanh_backward(through, squashed, grad_input=through)
    torch.mul(dh, squashed, out=do)
    torch.mul(dc, old, out=df)
    torch.mul(dc, g, out=di)
    torch.mul(dc, i, out=dg)
    dc *= f
    gates = dz.narrow(-3, 0, 3 * size)
    _sigmoid_backward(gates, z.narrow(-3, 0, 3 * size), grad_input=gates)
    _tanh_backward(dg, g, grad_input=dg)
    return dz


def _by_pixel(x: Tensor) -> Tensor:
    """Return images (B, H, W, F) as a view (H W, B, F)."""
    return x.flatten(1, 2).transpose(0, 1)


def _diagonal(d: int, height: int, width: int) -> tuple[int, int, tuple[slice, slice]]:
    """Return the first row of diagonal d, the one after its last, and its pixels to the right and to the left."""
    low, high = max(0, d - width + 1), min(height, d + 1)
    column, count = d - low, high - low  # the column of the first row, from the corner
    to_right = _every(low * width + column, width - 1, count)
    to_left = _every(low * width + width - 1 - column, width + 1, count)
    return low, high, (to_right, to_left)


def _every(first: int, step: int, count: int) -> slice:
    """Return `count` places from the first on, a step apart; of one place the step does not matter."""
    return slice(first, first + (count - 1) * step + 1, step or 1)


def _told(told: Tensor, places: tuple[slice, slice]) -> Tensor:
    """Return what the pixels of a diagonal are told, (2, 4 Q, 1 or rows, 1 or B)."""
    if told.shape[2] == 1:
        return told
    return torch.stack([told[k][:, places[k]] for k in (0, 1)])


def _add_told(of_told: Tensor, dz: Tensor, places: tuple[slice, slice]) -> None:
    """Add the gradient of a diagonal's gates to that of what they are told."""
    if of_told.shape[2] == 1:
        of_told += dz.sum_to_size(of_told.shape)
        return
    for k in (0, 1):
        part = of_told[k][:, places[k]]
        part += dz[k].sum_to_size(part.shape)
