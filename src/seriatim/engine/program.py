"""A finished tape: integers and floats that an interpreter can run, and where the state of each row goes."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from seriatim.causal import State
from seriatim.controls import EXACT, Controls
from seriatim.engine.operands import (
    ALIGN,
    PANEL,
    Act,
    Arena,
    Buffer,
    Family,
    Finite,
    Map,
    Memory,
    Op,
    Operand,
    Tap,
)

# A row of code: the opcode (of a tap: its kind), six numbers, and four operands of three integers each.
NUMBERS = 1
OPERANDS = 7
OPERAND = 3  # arena, offset in floats, cursor
COLUMNS = OPERANDS + 4 * OPERAND

_LINE = 64  # bytes of a cache line

CURSOR = 7  # slots, stride, delay, width, column stride, shift, every

_KINDS = (Op, Tap, Act, Arena, Family, Finite)
LAYOUT = zlib.crc32(
    repr(
        (NUMBERS, OPERANDS, OPERAND, CURSOR, ALIGN, PANEL, *({k.name: k.value for k in kind} for kind in _KINDS))
    ).encode()
)
"""Changes with the meaning of the code."""


@dataclass(frozen=True)
class Program:
    """A tape ready to run.

    Attributes:
        code: (N, COLUMNS) int64.
        cursors: (C, 7) int64, (slots, stride, delay, width, column stride, shift, every): at position t, with
            u = (t - shift) div every, the cursor stands at ((u div width - delay) mod slots) * stride + (u mod width) *
            column stride, and after all slots where t < shift. Of a ring the width is 1. Cursor 0 stands still.
            Computed once for each position, shared by operands of equal geometry.
        spans: (clocks + 1,) int64, where the cursors of each clock begin: that of the positions, then those of loops
            inside a position.
        weights: float32.
        state_size: floats of state in a row.
        scratch_size: floats of scratch in a row.
        input: what the network reads at the current position.
        kept: the buffers whose past, or constant, is read from a state.
        memories: what rows are conditioned on along a length of their own.
        workspace_size: float64 numbers that a run works with, besides as many as the longest source has symbols.
        length: how many positions there are.
        width: how many numbers the samplers write at a position.
        ops: which instructions there are.
        decode: maps those of positions first .. first+n-1, (B, n, width), to values (B, n, *value_shape).
        made_from: addresses and versions of the tensors that were lowered, as `versions` tells them.
        controls: under which it draws.
        draws: whether it draws; if not, it hands out parameters.
    """

    code: Tensor
    cursors: Tensor
    spans: Tensor
    weights: Tensor
    state_size: int
    scratch_size: int
    input: Operand
    kept: tuple[Buffer, ...]
    memories: tuple[Memory, ...]
    workspace_size: int
    length: int
    width: int
    decode: Callable[[Tensor, int], Tensor]
    made_from: tuple[tuple[int, int], ...] = ()
    ops: frozenset[Op] = frozenset()
    controls: Controls = EXACT
    draws: bool = True

    @torch.no_grad()
    def load(self, state: State, x: Tensor, position: int = 0) -> Tensor:
        """Return the state arena (B, state_size) of rows that stand before `position`.

        Args:
            state: the network's state after it has read the inputs before `position`.
            x: (B, 1, F) the input at `position`.
            position: how many positions have been read.
        """
        arena = _zeros(x.shape[0], self.state_size)
        for buffer in self.kept:
            load(arena, buffer.offset, buffer, state, position)
        store(arena, self.input.buffer.offset, self.input.buffer, x, position + 1)
        return arena

    @torch.no_grad()
    def load_memories(self, state: State) -> list[Tensor]:
        """Return each memory of the rows, (B, n) float32.

        Raises:
            ValueError: a row is not told of as many positions as there are.
        """
        loaded = []
        for memory in self.memories:
            rows = memory.load(_follow(state, memory.path))
            if not memory.is_source and rows.shape[1] * memory.every < self.length:
                raise ValueError(f"state: expected one of {self.length} positions or more, got {rows.shape[1]}")
            loaded.append(rows.flatten(1).to("cpu", torch.float32).contiguous())
        return loaded

    def ranked(self, count: int, *, ending: bool = False, greedy: bool = False) -> Program:
        """Return a program that hands out the most probable symbols of each position in place of all parameters.

        It writes log p of each, the best first, then the symbols, then the parameter of the end (-infinity if none).

        Args:
            count: how many, of as many as there are at most.
            ending: whether the first parameter is that of the end, and the others are logits; else all are.
            greedy: whether the most probable symbol, or the end, is what the next position reads; it may go on then.
                After an end its symbols mean nothing.

        Raises:
            ValueError: the program draws, or there are not so many symbols.

        Example:
            >>> from seriatim import engine
            >>> from seriatim.heads import Categorical
            >>> from seriatim.models import LSTM
            >>> program = engine.lower(LSTM((5,), Categorical(4), hidden_features=4), draw=False)
            >>> program.width, program.ranked(2).width
            (4, 5)
        """
        symbols = self.width - int(ending)
        if self.draws:
            raise ValueError("ranked: expected a program lowered with draw=False, got one that draws")
        if not 1 <= count <= symbols:
            raise ValueError(f"count: expected 1 to {symbols}, got {count}")
        code = self.code.clone()
        code[-1, NUMBERS + 1 : NUMBERS + 4] = torch.tensor([count, ending, greedy])
        return replace(self, code=code, width=2 * count + 1, decode=_numbers)


def _numbers(numbers: Tensor, first: int) -> Tensor:
    return numbers


def walk(module: nn.Module) -> list[nn.Module]:
    """Return a module and all inside it, one that is there twice twice.

    `modules` makes a name for each first: for a large network that takes longer than a token does.

    Example:
        >>> len(walk(nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
        3
    """
    found = [module]
    for own in found:  # grows meanwhile
        found += [inner for inner in own._modules.values() if inner is not None]
    return found


def versions(module: nn.Module) -> tuple[tuple[int, int], ...]:
    """Return where each parameter and buffer of a module lies, and how often it was written in place.

    Example:
        >>> linear = nn.Linear(2, 1)
        >>> before = versions(linear)
        >>> with torch.no_grad():
        ...     _ = linear.bias.fill_(3)
        >>> versions(linear) == before
        False
    """
    found = [part.values() for own in walk(module) for part in (own._parameters, own._buffers)]
    return tuple((tensor.data_ptr(), tensor._version) for part in found for tensor in part if tensor is not None)


def store(arena: Tensor, offset: int, buffer: Buffer, values: Tensor, end: int) -> None:
    """Write the values (B, n, F) of positions end-n .. end-1 into their slots of a buffer that begins at an offset."""
    if buffer.one_hot:
        values = torch.where(values.any(-1), values.argmax(-1), values.shape[-1])[..., None]
    count, first = values.shape[1], (end - values.shape[1]) % buffer.slots
    ring = arena[:, offset : offset + buffer.slots * buffer.stride].unflatten(1, (buffer.slots, buffer.stride))
    if first + count <= buffer.slots:
        ring[:, first : first + count, : buffer.width] = values
    else:
        ring[:, torch.arange(first, first + count) % buffer.slots, : buffer.width] = values.to(arena)


def store_map(arena: Tensor, offset: int, buffer: Buffer, kept: Map, values: Tensor, first: int, position: int) -> None:
    """Write the values (B, n, F) of entries first .. first+n-1 into the rows that are kept before `position`."""
    newest = position // kept.every // kept.width
    begin = max(first, 0, (newest + 1 - kept.rows) * kept.width)
    end = min(first + values.shape[1], (newest + 1) * kept.width)
    if begin >= end or (not any(values.stride()) and not values[0, 0].any()):  # a memory that was never written
        return
    pixel = torch.arange(begin, end)
    slots = pixel // kept.width % kept.rows * kept.row_slots + kept.halo + pixel % kept.width
    maps = arena[:, offset : offset + buffer.slots * buffer.stride].unflatten(1, (buffer.slots, buffer.stride))
    maps[:, slots, : buffer.width] = values[:, begin - first : end - first].to(arena)


def load(arena: Tensor, offset: int, buffer: Buffer, state: State, position: int) -> None:
    """Write what a buffer holds before `position`, by the state of the whole network, from an offset on."""
    state = _follow(state, buffer.path)
    if buffer.map is not None:
        store_map(arena, offset, buffer, buffer.map, *buffer.map.load(state, position), position)
    elif buffer.load is not None:
        values = buffer.load(state)
        if values.shape[1]:  # of a cache that is empty there is nothing to write, and memory is touched when it fills
            store(arena, offset, buffer, values, 0 if buffer.steady else position)


def _zeros(num_rows: int, size: int) -> Tensor:
    """Return zeros (B, size) that begin a cache line, pages of which come when they are written.

    torch fills large tensors on several threads, and those then keep cores busy for a while: the ones that are to
    sample.

    Example:
        >>> zeros = _zeros(3, 5)
        >>> zeros.shape, float(zeros.abs().sum()), zeros.data_ptr() % 64
        (torch.Size([3, 5]), 0.0, 0)
    """
    numbers = np.zeros(num_rows * size + _LINE // 4, np.float32)
    first = -numbers.ctypes.data % _LINE // 4
    return torch.from_numpy(numbers[first : first + num_rows * size]).view(num_rows, size)


def _follow(state: State, path: tuple[object, ...]) -> State:
    for key in path:
        state = state[key]
    return state
