"""The tape: a network's step at one position as a short list of primitive instructions.

A layer lowers itself by calling the methods of `Tape` in its own `lower(tape, x) -> Operand`, the way `advance` calls
torch: they return operands, and append instructions. Nothing here knows the machine that will read the tape.

**Buffers and lags.** An operand is a buffer at a lag: `x` is the value at the position being computed, `x.lag(j)` the
one j positions before. A buffer that is read at a lag becomes a ring in the row's state; no instruction moves it, for
its producer writes straight into the ring. So recurrence, dilation and caches are one thing, and the whole state of
a network is the past of its buffers.

**Arenas.** Weights (shared by all rows), state (one contiguous vector for each row, kept between positions) and
scratch (per row, forgotten). A row of the state arena is self-contained: beams and forks copy rows.

**Handing over.** `history` and `constant` say how to read their values from the state of the eager layer, so a tape can
start from any state: the initial one with its context, or the one after a prompt was read in the parallel form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

Load = Callable[[Any], Tensor]
"""Reads (B, n, F) past values, oldest first, from the state of the layer that is being lowered."""

ALIGN = 16  # floats: a cache line, and the width of the narrowest matrix tile
PANEL = 64  # columns of a packed weight panel


class Op(IntEnum):
    """What an instruction does. Its operands, in order: those written, then those read."""

    LINEAR = 1  # y = act(bias + sum of taps);   y, bias, then a row for each tap
    ACTIVATE = 2  # y = act(x)
    GATE = 3  # y = act(a) sigmoid(b)
    ADD = 4  # y = a + b
    LSTM = 5  # h, c from gates and the cell before
    BERNOULLI = 6  # value from logit; the value is the next input
    CATEGORICAL = 7  # value from logits; the value is the next input


class Tap(IntEnum):
    """How a tap of LINEAR reads its input."""

    DENSE = 0  # W x
    SELECT = 1  # the column of W that an index names: W times a one-hot vector


class Act(IntEnum):
    """Activations; NaN stays NaN."""

    NONE = 0
    RELU = 1
    TANH = 2
    SIGMOID = 3


class Arena(IntEnum):
    """Where a buffer lives."""

    WEIGHTS = 0
    STATE = 1
    SCRATCH = 2


class CannotLower(Exception):
    """A module has no tape form; the message says which and why."""


def padded(size: int) -> int:
    """Round a number of floats up to whole cache lines."""
    return -(-size // ALIGN) * ALIGN


@dataclass(eq=False)
class Buffer:
    """Memory for one quantity: `slots` values of `width` floats, one for each of the last positions.

    A one-hot vector is kept as an index, of width 1; the number of categories stands for the zero vector.
    """

    width: int
    one_hot: bool = False
    arena: Arena = Arena.SCRATCH
    offset: int = -1  # within the arena, in floats; that of state and scratch is set when the tape is finished
    reach: int = 0  # how many positions before the current one are read
    load: Load | None = None
    path: tuple[Any, ...] = ()

    @property
    def slots(self) -> int:
        return self.reach + 1

    @property
    def stride(self) -> int:
        # LINEAR writes whole tiles; indices are never its output.
        return 1 if self.one_hot else padded(self.width)


@dataclass(frozen=True)
class Operand:
    """`size` features of a buffer from `start` on, `delay` positions ago."""

    buffer: Buffer
    size: int
    start: int = 0
    delay: int = 0

    @property
    def one_hot(self) -> bool:
        return self.buffer.one_hot

    def lag(self, positions: int) -> Operand:
        """Return the value so many positions before; `Tape.history` must keep it."""
        return replace(self, delay=self.delay + positions)

    def part(self, start: int, size: int) -> Operand:
        """Return some of the numbers."""
        return replace(self, start=self.start + start, size=size)


@dataclass
class Instruction:
    """One primitive; `taps` only for LINEAR: (kind, x, W)."""

    op: Op
    writes: list[Operand]
    reads: list[Operand]
    numbers: tuple[int, ...]
    taps: list[tuple[Tap, Operand, Operand]] = field(default_factory=list)

    @property
    def all_reads(self) -> list[Operand]:
        return self.reads + [x for _, x, _ in self.taps]


class Tape:
    """Collects the instructions, weights and state of one network.

    Args:
        num_features: F of the network's input.
        one_hot: whether the input is a one-hot vector.

    Example:
        >>> tape = Tape(num_features=3)
        >>> y = tape.lower(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), tape.input)
        >>> [instruction.op.name for instruction in tape.instructions], y.size
        (['LINEAR', 'ACTIVATE'], 2)
    """

    def __init__(self, num_features: int, one_hot: bool = False) -> None:
        self.instructions: list[Instruction] = []
        self.weights: list[Tensor] = []
        self.weights_size = 0
        self.path: tuple[Any, ...] = ()
        # The input outlives its position: the sampler writes it for the next one.
        self.input = Operand(Buffer(1 if one_hot else num_features, one_hot, Arena.STATE), num_features)

    @contextmanager
    def at(self, key: Any) -> Iterator[None]:
        """Say that what is lowered inside finds its own state under `key` of the current one."""
        outer, self.path = self.path, (*self.path, key)
        try:
            yield
        finally:
            self.path = outer

    def lower(self, module: nn.Module, x: Operand) -> Operand:
        """Lower a module, by its own `lower` or, for torch's position-wise modules, here.

        Raises:
            CannotLower: it has none.
        """
        name = type(module).__name__
        if any(inner._forward_hooks or inner._forward_pre_hooks for inner in module.modules()):
            raise CannotLower(f"{name} has forward hooks, or a module inside it has")
        own = getattr(module, "lower", None)
        if own is not None:
            if not _describes(type(module)):
                raise CannotLower(f"{name} redefines advance or forward below the class that defines lower")
            result = own(self, x)
        elif type(module) in _TORCH_MODULES:
            result = _TORCH_MODULES[type(module)](self, module, x)
        else:
            raise CannotLower(f"{name} has no lower method")
        if not isinstance(result, Operand):
            raise TypeError(f"{name}.lower: expected an Operand, got {type(result).__name__}")
        return result

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

    def recurrent(self, size: int, load: Load) -> Operand:
        """Return a new operand h whose `h.lag(1)` is read before an instruction writes h; `load` as in `history`."""
        return self.history(Operand(Buffer(size), size), 1, load)

    def constant(self, size: int, load: Load) -> Operand:
        """Return numbers that differ from row to row but not by position, such as a context's share of a bias.

        Args:
            size: F.
            load: reads them, (B, 1, F), from the state of the layer being lowered.
        """
        return Operand(Buffer(size, arena=Arena.STATE, load=load, path=self.path), size)

    def weight(self, values: Tensor) -> Operand:
        """Put numbers into the weights."""
        flat = values.detach().to(torch.float32).reshape(-1)
        operand = Operand(Buffer(flat.numel(), arena=Arena.WEIGHTS, offset=self.weights_size), flat.numel())
        self.weights.append(torch.nn.functional.pad(flat, (0, padded(flat.numel()) - flat.numel())))
        self.weights_size += padded(flat.numel())
        return operand

    def linear(
        self, taps: Sequence[tuple[Operand, Tensor]], bias: Tensor | Operand | None, act: Act = Act.NONE
    ) -> Operand:
        """Append y = act(bias + sum_i W_i x_i).

        Args:
            taps: pairs of x_i and W_i (P, F_i); the product with a one-hot x_i is a look-up.
            bias: (P,), an operand for one that differs by row, or None.
        """
        size = taps[0][1].shape[0]
        for x, weight in taps:
            if weight.shape != (size, x.size):
                raise ValueError(f"taps: expected a weight of shape {(size, x.size)}, got {tuple(weight.shape)}")
        start = bias if isinstance(bias, Operand) else self.weight(torch.zeros(size) if bias is None else bias)
        if start.size != size:
            raise ValueError(f"bias: expected size {size}, got {start.size}")
        packed = [
            (Tap.SELECT if x.one_hot else Tap.DENSE, x, self.weight(_panels(weight, zero_row=x.one_hot)))
            for x, weight in taps
        ]
        y = Operand(Buffer(size), size)
        self.instructions.append(Instruction(Op.LINEAR, [y], [start], (padded(size), act, len(taps)), packed))
        return y

    def activation(self, x: Operand, act: Act) -> Operand:
        """Append y = act(x)."""
        return self._append(Op.ACTIVATE, x.size, [self.dense(x)], act)

    def gate(self, a: Operand, b: Operand, act: Act = Act.NONE) -> Operand:
        """Append y = act(a) sigmoid(b): the gated unit; with TANH that of WaveNet and PixelCNN."""
        return self._append(Op.GATE, a.size, [a, b], act)

    def add(self, a: Operand, b: Operand) -> Operand:
        """Append y = a + b."""
        if a.size != b.size:
            raise ValueError(f"b: expected size {a.size}, got {b.size}")
        return self._append(Op.ADD, a.size, [self.dense(a), self.dense(b)])

    def lstm(self, gates: Operand, cell_before: Operand, hidden: Operand, cell: Operand) -> None:
        """Append c = f c' + i g, h = o tanh(c), with gates (i, f, g, o) before their activations."""
        self.instructions.append(Instruction(Op.LSTM, [hidden, cell], [cell_before, gates], (hidden.size,)))

    def copy(self, x: Operand) -> Operand:
        """Append y = x."""
        width = 1 if x.one_hot else x.size
        y = Operand(Buffer(width, x.one_hot), x.size)
        self.instructions.append(Instruction(Op.ACTIVATE, [y], [x], (width, Act.NONE)))
        return y

    def dense(self, x: Operand) -> Operand:
        """Turn a one-hot operand into the vector it stands for; any other is returned as it is."""
        return self.linear([(x, torch.eye(x.size))], None) if x.one_hot else x

    def sample(self, op: Op, params: Operand, lane: int = 0) -> None:
        """Append the sampler: it reads the parameters, and writes the value into the input of the next position."""
        self.instructions.append(Instruction(op, [self.input.lag(-1)], [params], (params.size, lane)))

    def _append(self, op: Op, size: int, reads: list[Operand], *numbers: int) -> Operand:
        y = Operand(Buffer(size), size)
        self.instructions.append(Instruction(op, [y], reads, (size, *numbers)))
        return y


def _panels(weight: Tensor, zero_row: bool) -> Tensor:
    """Pack W (P, F) for sequential reads: panels of 64 outputs, in each the outputs of one input side by side.

    P is padded with zeros to whole tiles; `zero_row` adds an input of zeros, which stands for "no category".
    """
    weight = weight.detach().to(torch.float32)
    weight = nn.functional.pad(weight, (0, int(zero_row), 0, padded(weight.shape[0]) - weight.shape[0]))
    return torch.cat([panel.t().reshape(-1) for panel in weight.split(PANEL)])


def _describes(kind: type) -> bool:
    """Whether `lower` was written for this class's arithmetic: nothing below it redefines `advance` or `forward`."""
    for base in kind.__mro__:
        if "lower" in vars(base):
            return True
        if "advance" in vars(base) or "forward" in vars(base):
            return False
    return False


def _glu(tape: Tape, module: Any, x: Operand) -> Operand:
    if module.dim not in (-1, 2):
        raise CannotLower(f"GLU over axis {module.dim}")
    x, half = tape.dense(x), x.size // 2
    return tape.gate(x.part(0, half), x.part(half, half))


def _sequential(tape: Tape, module: Any, x: Operand) -> Operand:
    for layer in module:
        x = tape.lower(layer, x)
    return x


_TORCH_MODULES: dict[type, Callable[[Tape, Any, Operand], Operand]] = {
    nn.Linear: lambda tape, module, x: tape.linear([(x, module.weight)], module.bias),
    nn.ReLU: lambda tape, module, x: tape.activation(x, Act.RELU),
    nn.Tanh: lambda tape, module, x: tape.activation(x, Act.TANH),
    nn.Sigmoid: lambda tape, module, x: tape.activation(x, Act.SIGMOID),
    nn.GLU: _glu,
    nn.Identity: lambda tape, module, x: x,
    nn.Dropout: lambda tape, module, x: x,  # sampling is done in eval mode
    nn.Sequential: _sequential,
}
"""Torch's own position-wise modules, by exact class: a subclass may compute something else."""
