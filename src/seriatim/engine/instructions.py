"""The instructions of a tape: each method appends one or a few, and returns what they write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from seriatim.engine.operands import (
    ALIGN,
    CUT,
    PANEL,
    Act,
    Arena,
    Buffer,
    Instruction,
    Load,
    LoadMap,
    LoadSource,
    Map,
    Op,
    Operand,
    Tap,
    padded,
)
from seriatim.engine.ragged import LoadSums, kept, ragged
from seriatim.engine.storage import Storage


class Instructions(Storage):
    """A tape without what it knows of modules and heads."""

    input: Operand
    certain: Operand | None = None  # parameters by which an end is certain to be followed by an end

    def history(self, x: Operand, reach: int, load: Load) -> Operand:
        """Keep the last `reach` values of x, so that `x.lag(1)` .. `x.lag(reach)` can be read.

        Args:
            x: an operand that an instruction writes, before or after, or the input.
            reach: how many positions back.
            load: reads them, (B, reach, F) and oldest first, from the state of the layer being lowered.

        Returns:
            x, or a copy of it where another layer keeps x already.
        """
        if reach == 0:
            return x
        whole = x.delay == 0 and (x.one_hot or x.size == x.buffer.width)
        if not whole or x.buffer.load is not None:
            # A second layer that keeps the same values may start from others: an LSTM's h_0 is no convolution's past.
            x = self.copy(x)
        x.buffer.reach, x.buffer.load, x.buffer.path = reach, load, self.path
        x.buffer.arena = Arena.STATE
        return x

    def image(
        self,
        x: Operand,
        width: int,
        load: LoadMap,
        *,
        above: int = 0,
        halo: int = 0,
        shift: int = 0,
        channels: int = 1,
        pixels: bool = False,
    ) -> Operand:
        """Keep x over an image, so that `pixels` and, for one entry, `lag(rows)` can be read.

        Args:
            x: an operand that an instruction writes, before or after.
            width: W.
            load: reads it from the state of the layer being lowered.
            above: how many rows above the present one are read.
            halo: how many columns to either side are read.
            shift: how many positions before the present one x belongs to.
            channels: C, the positions of a pixel.
            pixels: whether x belongs to a pixel, not to a position.
        """
        x = self.dense(x)
        buffer = x.buffer
        kept = buffer.arena is not Arena.SCRATCH or x.size != buffer.width or x.delay or x.start
        if kept or shift:
            x = self.copy(x)
        group, every = (1, channels) if pixels else (channels, 1)
        x.buffer.map = Map(width * group, above + 1, halo * group, shift, load, group, every)
        x.buffer.path, x.buffer.arena = self.path, Arena.STATE
        return x

    def recurrent(self, size: int, load: Load) -> Operand:
        """Return a new operand h whose `h.lag(1)` is read before an instruction writes h; `load` as in `history`."""
        return self.history(Operand(Buffer(size), size), 1, load)

    def linear(
        self,
        taps: Sequence[tuple[Operand, Tensor]],
        bias: Tensor | Operand | None,
        act: Act = Act.NONE,
    ) -> Operand:
        """Append y = act(bias + sum_i W_i x_i).

        Args:
            taps: pairs of x_i and W_i (P, F_i), or (n, P, F_i), of which position t uses number t mod n; the product
                with a one-hot x_i, or a code, is a look-up.
            bias: (P,) or (n, P), an operand for one that differs by row, or None.
        """
        size = taps[0][1].shape[-2]
        y = Operand(Buffer(size), size)
        self._linear_into(y, taps, bias, act)
        return y

    def _linear_into(
        self, y: Operand, taps: Sequence[tuple[Operand, Tensor]], bias: Tensor | Operand | None, act: Act = Act.NONE
    ) -> None:
        for x, weight in taps:
            if weight.shape[-2:] != (y.size, x.size):
                raise ValueError(f"taps: expected a weight of shape {(y.size, x.size)}, got {tuple(weight.shape)}")
        if not isinstance(bias, Operand):
            bias = torch.zeros(y.size) if bias is None else bias
            bias = self.weight(bias) if bias.ndim == 1 else self.table(bias)
        if bias.size != y.size:
            raise ValueError(f"bias: expected size {y.size}, got {bias.size}")
        packed, dense = [], Tap.DENSE_BF16 if self.common.bf16 else Tap.DENSE
        for x, weight in taps:
            kind = Tap.SELECT if x.one_hot or x.is_code else dense
            panels = _panels(weight, zero_row=x.one_hot)
            if kind is Tap.DENSE_BF16:
                panels = _halves(panels)
            packed.append((kind, x, self.weight(panels) if weight.ndim == 2 else self.table(panels)))
        numbers = (padded(y.size), act, len(taps), 0, 0)
        self.instructions.append(Instruction(Op.LINEAR, [y], [bias], numbers, packed))

    def activation(self, x: Operand, act: Act, parameter: float = 0.0) -> Operand:
        """Append y = act(x), with the parameter of those that have one."""
        bits = int(torch.tensor(parameter).view(torch.int32))
        return self._append(Op.ACTIVATE, x.size, [self.dense(x)], act, bits)

    def gate(self, a: Operand, b: Operand, act: Act = Act.NONE) -> Operand:
        """Append y = act(a) sigmoid(b): the gated unit; with TANH that of WaveNet and PixelCNN."""
        return self._append(Op.GATE, a.size, [a, b], act)

    def add(self, a: Operand, b: Operand) -> Operand:
        """Append y = a + b."""
        if a.size != b.size:
            raise ValueError(f"b: expected size {a.size}, got {b.size}")
        return self._append(Op.ADD, a.size, [self.dense(a), self.dense(b)])

    def window(
        self, x: Operand, weight: Tensor, kernel: Sequence[tuple[int, int, int]]
    ) -> list[tuple[Operand, Tensor]]:
        """Return the taps of a kernel over a map.

        Args:
            x: a map.
            weight: (..., taps, C F), the taps in the order of `kernel`, the entries of a pixel side by side.
            kernel: runs of pixels: (rows above, first column, count).
        """
        parts = spread(weight, x.buffer.width).split([count for *_, count in kernel], dim=-2)
        return [(x.pixels(*run), part.flatten(-2)) for run, part in zip(kernel, parts, strict=True)]

    def lstm(self, gates: Operand, cell_before: Operand, hidden: Operand, cell: Operand) -> None:
        """Append c = f c' + i g, h = o tanh(c), with gates (i, f, g, o) before their activations."""
        self.instructions.append(Instruction(Op.LSTM, [hidden, cell], [cell_before, gates], (hidden.size,)))

    def gru(self, gates: Operand, before: Operand, hidden: Operand) -> None:
        """Append h = (1 - z) tanh(a + r b) + z h', with gates (r, z) before their activations, a and b side by side."""
        self.instructions.append(Instruction(Op.GRU, [hidden], [before, gates], (hidden.size,)))

    def by_position(self, x: Operand, weight: Tensor, bias: Tensor) -> Operand:
        """Append y = b_t + W_t x with weights (T, P, F) and biases (T, P) of each position."""
        x, size, features = self.dense(x), weight.shape[1], weight.shape[2]
        if size >= ALIGN:
            return self.linear([(x, weight)], bias)
        return self._append(Op.DOT, size, [x, self.table(bias), self.table(weight.flatten(1))], features)

    def add_to(self, total: Operand, x: Operand, weight: Tensor) -> None:
        """Append s_t = s_t-1 + W_t x for an operand s of `recurrent`, with weights (T, P, F) of each position."""
        self._linear_into(total, [(self.dense(x), weight)], total.lag(1))

    def ragged(self, x: Operand, weight: Tensor, ends: tuple[Sequence[int], Sequence[int]], load: LoadSums) -> Operand:
        """Append y = the outputs owned by the position: start + W times all inputs so far, the new x among them.

        Args:
            x: as many numbers as a position owns inputs, at most.
            weight: (P, F) of all positions; a row is read up to the inputs seen.
            ends: (T + 1,) where the inputs of each position end, and its outputs.
            load: reads the inputs so far and what the outputs start from, from the layer's state.
        """
        own, most = ragged(weight, ends), max(b - a for a, b in pairwise(ends[1]))
        before = self.constant(own.size, kept(own, weight, ends, load))
        reads = [self.dense(x), before, self.weight(own.table)]
        return self._append(Op.RAGGED, max(most, 1), reads, len(ends[0]) - 1, own.inner, own.num_kept)

    def look_up(
        self, x: Operand, logits: Tensor, offsets: Tensor, sources: Tensor, strides: Tensor, load: Load
    ) -> Operand:
        """Append y = row o_t + sum_j stride_tj code_(source tj) of a table, where x is the code of the position before.

        Args:
            x: a number.
            logits: (R, P).
            offsets: (T,) o_t.
            sources: (T, n) positions.
            strides: (T, n).
            load: reads the codes of all positions, (B, 1, T), from the state of the layer being lowered.
        """
        kept = self.constant(self.length, load)
        # Numbers that float32 cannot hold are cut in two.
        cut = [part for whole in (offsets[:, None], strides) for part in (whole // CUT, whole % CUT)]
        table = self.table(torch.cat([sources, *cut], dim=1).float())
        y = Operand(Buffer(logits.shape[1]), logits.shape[1])
        numbers = (y.size, sources.shape[1], 1)
        taps = [(Tap.DENSE, kept, self.weight(logits))]
        self.instructions.append(Instruction(Op.LOOK_UP, [y], [self.dense(x), table], numbers, taps))
        return y

    def norm(self, x: Operand, weight: Tensor, bias: Tensor, eps: float) -> Operand:
        """Append y = weight (x - mean) / sqrt(variance + eps) + bias."""
        constants = self.weight(torch.cat([weight, bias, torch.tensor([eps])]))
        return self._append(Op.NORM, x.size, [self.dense(x), constants])

    def attend(self, qkv: Operand, num_heads: int, load: Callable[[Any], tuple[Tensor, Tensor]]) -> Operand:
        """Append y = concat_h softmax(q . K_1..t / sqrt(d)) V_1..t, keeping the new key and value.

        Args:
            qkv: query, key and value side by side.
            num_heads: of equal size.
            load: reads keys and values (B, S, F) of the S positions before, from the state of the layer being lowered.
        """
        size = qkv.size // 3

        def kept(part: int) -> Load:
            def read(state: Any) -> Tensor:
                cache = load(state)[part]
                if not cache.shape[1]:
                    return cache
                cache = nn.functional.pad(cache, (0, 0, 0, self.length - cache.shape[1]))
                # Keys lie feature by feature, so that the scores of all positions are sums of rows.
                return (cache.transpose(1, 2) if part == 0 else cache).flatten(1)[:, None]

            return read

        keys, values = (self.constant(self.length * size, kept(part)) for part in range(2))
        return self._append(Op.ATTEND, size, [qkv, keys, values], num_heads, self.length)

    def attend_source(self, query: Operand, num_heads: int, load: LoadSource) -> Operand:
        """Append y = concat_h softmax(q . K / sqrt(d)) V over the symbols of a source that its mask does not leave out.

        Args:
            query: of the position.
            num_heads: of equal size.
            load: reads keys, values and mask from the state of the layer being lowered.
        """

        def packed(state: Any) -> Tensor:
            keys, values, mask = load(state)
            if not bool(mask.all()):
                left_out = ~mask
                first = left_out.to(torch.int8).argsort(dim=1, stable=True)[
                    ..., None
                ]  # symbols before what is left out
                cut = left_out[..., None]
                keys, values = (part.masked_fill(cut, 0).take_along_dim(first, 1) for part in (keys, values))
            head = torch.zeros(len(mask), ALIGN)
            head[:, 0], head[:, 1] = mask.sum(1), mask.shape[1]
            return torch.cat([head, keys.transpose(1, 2).flatten(1), values.flatten(1)], dim=1)

        memory = Operand(self._memory(query.size, packed, every=0), query.size)
        # Which source a row has goes with the row, so that rows that are selected leave the sources where they are.
        owner = self.constant(1, lambda state: torch.arange(len(load(state)[2]), dtype=torch.float32)[:, None, None])
        return self._append(Op.ATTEND_SOURCE, query.size, [self.dense(query), memory, owner], num_heads)

    def rotate(self, x: Operand, angles: Tensor, size: int) -> Operand:
        """Append y = x, whose first numbers are turned in pairs by the angles of the position, again and again.

        Args:
            x: the numbers.
            angles: (T, n) of n pairs.
            size: how many numbers are turned, a multiple of 2 n.
        """
        turned = torch.stack([angles.cos(), angles.sin()], dim=-1).flatten(1).to(torch.float32)
        return self._append(Op.ROTATE, x.size, [x, self.table(turned)], size, turned.shape[1])

    @contextmanager
    def rows(
        self, width: int, *, channels: int = 1, reverse: bool = False, from_second: bool = False
    ) -> Iterator[None]:
        """Run what is lowered inside for each pixel of a row when it begins.

        Args:
            width: W.
            channels: C, the positions of a pixel.
            reverse: from right to left.
            from_second: not for the first row.
        """
        flags = int(reverse) + 2 * int(from_second)
        self.instructions.append(Instruction(Op.ROW, [], [], (0, width * channels, flags, channels)))
        yield
        self.instructions.append(Instruction(Op.END, [], [], ()))

    def join(self, parts: Sequence[Operand]) -> Operand:
        """Append copies of several operands into one."""
        parts = [self.dense(part) for part in parts]
        y = Operand(Buffer(sum(part.size for part in parts)), sum(part.size for part in parts))
        start = 0
        for part in parts:
            self.instructions.append(
                Instruction(Op.ACTIVATE, [y.part(start, part.size)], [part], (part.size, Act.NONE, 0))
            )
            start += part.size
        return y

    def copy(self, x: Operand) -> Operand:
        """Append y = x."""
        width = 1 if x.one_hot else x.size
        y = Operand(Buffer(width, x.one_hot), x.size)
        self.instructions.append(Instruction(Op.ACTIVATE, [y], [x], (width, Act.NONE, 0)))
        return y

    def into(self, y: Operand, x: Operand) -> None:
        """Write x, which an instruction has just made, into y instead: an operand of `recurrent` or `fresh`."""
        last = self.instructions[-1]
        if last.writes != [x] or x.buffer.arena is not Arena.SCRATCH:
            raise ValueError(f"x: expected what the last instruction wrote, got {x}")
        last.writes[0] = y

    def dense(self, x: Operand) -> Operand:
        """Turn a one-hot operand into the vector it stands for; any other is returned as it is."""
        return self.linear([(x, torch.eye(x.size))], None) if x.one_hot else x

    def expand(self, x: Operand, y: Operand) -> None:
        """Write x into y, a one-hot x as the vector it stands for."""
        self.instructions.append(Instruction(Op.EXPAND, [y], [x], (y.size, int(x.one_hot))))

    def show(self, params: Operand, offset: int = 0) -> None:
        """Append what hands out the parameters of a position, or, in a program of `Program.ranked`, the best symbols.

        Args:
            params: of the head.
            offset: what is added to a symbol that is read.
        """
        features = 1 if self.input.one_hot else self.input.size
        numbers = (params.size, 0, 0, 0, offset, features)
        self.instructions.append(Instruction(Op.PARAMS, [self.input.lag(-1)], [self.dense(params)], numbers))

    def until_end(self, params: Operand) -> Operand:
        """Append y = params, but y_0 = infinity where the last feature of the input says that a sequence has ended."""
        x, params = self.input, self.dense(params)
        self.certain = self._append(Op.UNTIL, params.size, [params, x], x.size - 1, int(x.one_hot))
        return self.certain

    def _append(self, op: Op, size: int, reads: list[Operand], *numbers: int) -> Operand:
        y = Operand(Buffer(size), size)
        self.instructions.append(Instruction(op, [y], reads, (size, *numbers)))
        return y


def spread(numbers: Tensor, size: int) -> Tensor:
    """Put zeros behind every `size` of the last axis, as entries of a map lie.

    Example:
        >>> spread(torch.ones(1, 4), 2).shape
        torch.Size([1, 32])
    """
    entries = numbers.unflatten(-1, (-1, size))
    return nn.functional.pad(entries, (0, padded(size) - size)).flatten(-2)


def _panels(weight: Tensor, zero_row: bool) -> Tensor:
    """Pack W (..., P, F) for sequential reads: panels of 64 outputs, in each the outputs of one input side by side.

    P is padded with zeros to whole tiles; `zero_row` adds an input of zeros, which stands for "no category".
    """
    weight = weight.detach().to(torch.float32)
    weight = nn.functional.pad(weight, (0, int(zero_row), 0, padded(weight.shape[-2]) - weight.shape[-2]))
    return torch.cat([panel.mT.flatten(-2) for panel in weight.split(PANEL, dim=-2)], dim=-1)


def _halves(panels: Tensor) -> Tensor:
    """Round packed weights to bfloat16, two in the place of a float: of 16 columns the first 8 in the low halves."""
    halves = panels.to(torch.bfloat16).view(torch.int16).to(torch.int32).unflatten(-1, (-1, 2, ALIGN // 2))
    low, high = halves.unbind(-2)
    return ((low & 0xFFFF) | (high << 16)).flatten(-2).view(torch.float32)
