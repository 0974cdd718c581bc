"""What a tape keeps: the weights of all rows, and what each row remembers from position to position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seriatim.engine.operands import ENDLESS, Arena, Buffer, Instruction, Load, Memory, Operand, padded


@dataclass
class Common:
    """What a tape shares with the tapes of the models nested in it.

    Attributes:
        weights: of all, one after another.
        size: how many there are.
        memories: of all.
        clocks: how many there are.
        bf16: whether the weights of products are kept in 16 bits.
    """

    weights: list[Tensor] = field(default_factory=list)
    size: int = 0
    memories: list[Memory] = field(default_factory=list)
    clocks: int = 0
    bf16: bool = False


class Storage:
    """The arenas of a tape, and the list of its instructions.

    Args:
        length: T, the number of positions, for layers that keep something of each.
        by_pixel: whether the context is a map, that tells each pixel its own.
        common: what it shares with others.
    """

    def __init__(self, length: int, by_pixel: bool = False, common: Common | None = None) -> None:
        self.length, self.by_pixel = length, by_pixel
        self.common = Common() if common is None else common
        self.clock = self.common.clocks
        self.common.clocks += 1
        self.instructions: list[Instruction] = []
        self.path: tuple[Any, ...] = ()

    @contextmanager
    def at(self, key: Any) -> Iterator[None]:
        """Say that what is lowered inside finds its own state under `key` of the current one."""
        outer, self.path = self.path, (*self.path, key)
        try:
            yield
        finally:
            self.path = outer

    def fresh(self, size: int) -> Operand:
        """Return an operand that is read before an instruction writes it: a map that an LSTM fills."""
        return Operand(Buffer(size), size)

    def constant(self, size: int, load: Load, turns: int = 1) -> Operand:
        """Return numbers that differ from row to row but not by position, such as a context's share of a bias.

        Args:
            size: F.
            load: reads them, (B, turns, F), from the state of the layer being lowered.
            turns: position t reads those of t mod turns.
        """
        buffer = Buffer(size, arena=Arena.STATE, load=load, path=self.path, reach=turns - 1, steady=True)
        return Operand(buffer, size)

    def sequence(self, size: int, load: Load, every: int = 1) -> Operand:
        """Return what a row is told at each position.

        Args:
            size: F.
            load: reads it, (B, T, F) or more positions, from the state of the layer being lowered.
            every: so many positions are told the same.
        """

        def padded_load(state: Any) -> Tensor:
            return nn.functional.pad(load(state), (0, padded(size) - size))

        return Operand(self._memory(size, padded_load, every), size)

    def told(self, size: int, load: Load, *, channels: int = 1, pixels: int = 1) -> Operand:
        """Return what the context tells: all pixels the same, or each its own where it is a map.

        Args:
            size: F.
            load: reads it, (B, 1, C F) or (B, H W, C F), from the state of the layer being lowered.
            channels: C, the positions of a pixel, each of which is told its own.
            pixels: of how many positions a pixel is, which are told the same.
        """

        def by_position(state: Any) -> Tensor:
            return load(state).unflatten(-1, (channels, size)).flatten(1, 2)

        if self.by_pixel:
            return self.sequence(size, by_position, pixels)
        return self.constant(size, by_position, channels)

    def _memory(self, width: int, load: Load, every: int) -> Buffer:
        self.common.memories.append(Memory(load, self.path, every))
        number = len(self.common.memories) - 1
        return Buffer(
            width, arena=Arena.MEMORY, offset=0, reach=ENDLESS - 1 if every else 0, memory=number, every=every or 1
        )

    def weight(self, values: Tensor) -> Operand:
        """Put numbers into the weights."""
        flat = values.detach().to(torch.float32).reshape(-1)
        operand = Operand(Buffer(flat.numel(), arena=Arena.WEIGHTS, offset=self.common.size), flat.numel())
        self.common.weights.append(nn.functional.pad(flat, (0, padded(flat.numel()) - flat.numel())))
        self.common.size += padded(flat.numel())
        return operand

    def table(self, values: Tensor) -> Operand:
        """Return row t of values (T, F) at position t."""
        width = values.shape[1]
        whole = self.weight(nn.functional.pad(values, (0, padded(width) - width)))
        return Operand(Buffer(width, arena=Arena.WEIGHTS, offset=whole.buffer.offset, reach=len(values) - 1), width)
