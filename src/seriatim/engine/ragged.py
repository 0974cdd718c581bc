"""The weights of a map between units sorted by degree, as the engine reads them.

Positions are cut into blocks. When the first position of a block comes, what the outputs of the whole block owe to the
inputs seen by then is one matrix product; from there on a position adds what it owes to the other inputs of the block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seriatim.engine.operands import ALIGN, CUT, DOT, SPAN, Load, padded

LoadSums = Callable[[Any], tuple[int, Tensor, Tensor]]
"""Reads the next position, the inputs so far (B, F) and what the outputs start from (B, P), from a layer's state."""


class Ragged(NamedTuple):
    """A map (P, F) of which an output reads the inputs of its own position and of those before.

    Attributes:
        table: SPAN numbers for each position, then `inner` weights for each output, then those of whole blocks.
        inner: how many inputs of a block come after those of its first position, at most, whole dot products.
        num_kept: how many numbers the inputs take, the zeros behind them included.
        size: how many numbers inputs and sums take.
        blocks: where each block begins, and the end.
    """

    table: Tensor
    inner: int
    num_kept: int
    size: int
    blocks: list[int]


def ragged(weight: Tensor, ends: tuple[Sequence[int], Sequence[int]]) -> Ragged:
    """Lay out a map.

    Args:
        weight: (P, F); a row is read up to the inputs of its position.
        ends: (T + 1,) where the inputs of each position end, and its outputs.

    Example:
        >>> ragged(torch.ones(40, 40).tril(), (range(41), range(41))).blocks
        [0, 32, 40]
    """
    in_ends, out_ends = ends
    blocks = _blocks(out_ends)
    pairs = list(pairwise(blocks))
    inner = -(-max(in_ends[end] - in_ends[first + 1] for first, end in pairs) // DOT) * DOT
    spans = torch.zeros(len(in_ends) - 1, SPAN)
    spans[:, :4] = torch.tensor([in_ends[:-1], in_ends[1:], out_ends[:-1], out_ends[1:]]).T
    rows, panels = weight.new_zeros(len(weight), inner), []
    place = spans.numel() + rows.numel()
    for first, end in pairs:
        seen, outputs = in_ends[first + 1], slice(out_ends[first], out_ends[end])
        own = weight[outputs, seen : in_ends[end]]
        rows[outputs, : own.shape[1]] = own
        panel = F.pad(weight[outputs, :seen], (0, 0, 0, padded(len(own)) - len(own)))
        spans[first:end, 4] = seen
        spans[first, 5:] = torch.tensor([place // CUT, place % CUT, len(panel)])
        panels += [part.T.reshape(-1) for part in panel.split(DOT)]
        place += panel.numel()
    table = torch.cat([spans.flatten(), rows.flatten(), *panels])
    num_kept = padded(weight.shape[1] + inner)
    size = num_kept + padded(len(weight) + ALIGN)  # tiles write whole lines
    return Ragged(table, inner, num_kept, size, blocks)


def _blocks(out_ends: Sequence[int]) -> list[int]:
    """Return where blocks begin, and the end: as many positions as own a tile of outputs, or one that owns more."""
    found, num_positions = [0], len(out_ends) - 1
    for t in range(1, num_positions):
        if out_ends[t + 1] - out_ends[found[-1]] > DOT:
            found.append(t)
    return [*found, num_positions]


def kept(own: Ragged, weight: Tensor, ends: tuple[Sequence[int], Sequence[int]], load: LoadSums) -> Load:
    """Return what reads the inputs so far, and the sums of the outputs as far as their blocks have begun, (B, 1, ...).

    Args:
        own: the layout.
        weight, ends: those it was made of.
        load: reads the state of the layer.
    """
    in_ends, out_ends = ends

    def read(state: Any) -> Tensor:
        position, inputs, sums = load(state)
        inside = [(a, b) for a, b in pairwise(own.blocks) if a < position < b]
        for first, end in inside:
            seen, outputs = in_ends[first + 1], slice(out_ends[first], out_ends[end])
            sums = sums.clone()
            sums[:, outputs] += inputs[:, :seen] @ weight[outputs, :seen].T
        num_inputs, num_outputs = inputs.shape[1], sums.shape[1]
        whole = sums.new_zeros(len(sums), own.size)
        whole[:, :num_inputs], whole[:, own.num_kept : own.num_kept + num_outputs] = inputs, sums
        return whole[:, None]

    return read
