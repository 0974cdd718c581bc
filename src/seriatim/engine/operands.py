"""What a tape is made of: instructions, and operands that lie in the buffers of three arenas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from torch import Tensor

Load = Callable[[Any], Tensor]
"""Reads (B, n, F) past values, oldest first, from the state of the layer that is being lowered."""

LoadMap = Callable[[Any, int], tuple[Tensor, int]]
"""Reads (B, n, F) values of consecutive pixels and the place of the first, from that state, before a position."""

LoadSource = Callable[[Any], tuple[Tensor, Tensor, Tensor]]
"""Reads keys and values (B, S, F) and a mask (B, S), from that state."""

ENDLESS = 2**40
"""As many positions as a row of a memory may have."""

ALIGN = 16  # floats: a cache line, and the width of the narrowest matrix tile
PANEL = 64  # columns of a packed weight panel
DOT = 32  # numbers that a product of two vectors takes at once
SPAN = 8  # numbers that tell a position which inputs and outputs are its own
CUT = 2**14  # where large whole numbers are cut in two, so that both parts are exact in float32


class Op(IntEnum):
    """What an instruction does. Its operands, in order: those written, then those read."""

    LINEAR = 1  # y = act(bias + sum of taps);   y, bias, then a row for each tap
    ACTIVATE = 2  # y = act(x)
    GATE = 3  # y = act(a) sigmoid(b)
    ADD = 4  # y = a + b
    LSTM = 5  # h, c from gates and the cell before
    GRU = 6  # h from gates and the h before
    NORM = 7  # y = w (x - mean) / deviation + b, over the numbers of x
    ATTEND = 8  # y from a query and all keys and values so far; the new ones are kept
    RAGGED = 9  # the outputs that a position owns, from all inputs so far; the new ones are kept
    DOT = 10  # y = bias + W x, a dot product for each of a few outputs
    EXPAND = 11  # y = x, a one-hot x as the vector it stands for
    UNTIL = 12  # y = x, but y_0 = infinity where the input says that the sequence has ended
    ATTEND_SOURCE = 13  # y from a query and the keys and values of a memory, as many as the row's source has
    LOOK_UP = 15  # y = the row of a table that the codes of some positions before name; the newest code is kept
    ROTATE = 14  # y = x, its first numbers turned in pairs by the angles of the position

    # Loops.
    ROW = 40  # the instructions up to END, for each pixel of the row that begins; else they are skipped
    END = 41  # of a ROW; it becomes no code
    LOOP = 42  # the instructions up to AGAIN, for each position inside this one; parameters that are no numbers stop
    AGAIN = 43  # of a LOOP

    # Samplers: what they write is read at the next position.
    BERNOULLI = 60  # value from logit
    CATEGORICAL = 61  # value from logits
    REAL = 62  # value from a location and a scale, or from a mixture of them
    STOP = 63  # whether the sequence ends here
    VECTOR = 65  # a vector from its mean, log diagonal and what is below the diagonal
    CHANNELS = 66  # the channels of a pixel from a mixture in which each moves the means of the next
    COLUMN = 67  # a symbol from logits, or a number from a mixture, as the column of the position says
    MARK = 64  # the mark of the end in place of the value, where it does
    PARAMS = 69  # the parameters or the best symbols: whoever runs the tape chooses, and writes what is read of it
    CONTROLLED = 68  # a value of finitely many, or whether the sequence ends here, under controls


class Tap(IntEnum):
    """How a tap of LINEAR reads its input."""

    DENSE = 0  # W x
    SELECT = 1  # the column of W that an index names: W times a one-hot vector
    ADD = 2  # x itself
    DENSE_BF16 = 3  # W x with W in 16 bits


class Act(IntEnum):
    """Activations; NaN stays NaN."""

    NONE = 0
    RELU = 1
    TANH = 2
    SIGMOID = 3
    ELU = 4  # with its alpha
    GELU = 5
    GELU_TANH = 6
    SILU = 7
    SOFTPLUS = 8
    LEAKY_RELU = 9  # with its slope


class Family(IntEnum):
    """What a REAL samples from."""

    NORMAL = 0
    LOGISTIC = 1
    QUANTIZED_LOGISTIC = 2


class Finite(IntEnum):
    """What a CONTROLLED reads the probabilities of its values from."""

    LOGITS = 0  # one for each value
    BIT = 1  # one logit
    LEVELS = 2  # a mixture of quantised logistics


class Arena(IntEnum):
    """Where a buffer lives."""

    WEIGHTS = 0
    STATE = 1
    SCRATCH = 2
    MEMORY = 3  # one for each memory, from this number on


class CannotLower(Exception):
    """A module has no tape form; the message says which and why."""


def padded(size: int) -> int:
    """Round a number of floats up to whole cache lines."""
    return -(-size // ALIGN) * ALIGN


@dataclass(frozen=True)
class Map:
    """How a buffer lies over an image: `rows` rows of `width` entries, and `halo` of zeros on both sides.

    An entry belongs to `every` positions: to one, or to all channels of a pixel. A write at position t goes to the
    entry of t - `shift`; before the first it goes nowhere. `group` entries make a pixel.
    """

    width: int
    rows: int
    halo: int
    shift: int
    load: LoadMap
    group: int
    every: int

    @property
    def row_slots(self) -> int:
        return self.width + 2 * self.halo


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
    map: Map | None = None
    every: int = 1  # positions that share a slot
    steady: bool = False  # its slots are what the positions in turn are told, and not their past
    packed: bool = False  # its slots lie side by side, without padding
    clock: int = 0  # whose positions it counts: those of the rows, or those of a loop inside a position
    host: Buffer | None = None  # it lies within another buffer, from `offset` on
    memory: int = 0  # which memory it is

    @property
    def root(self) -> Buffer:
        """The buffer that memory is found for: the outermost one that it lies in."""
        return self if self.host is None else self.host.root

    @property
    def place(self) -> int:
        """Where it begins in its arena."""
        return self.offset if self.host is None else self.host.place + self.offset

    @property
    def slots(self) -> int:
        # The last slots of a map take what is written before the first pixel.
        return self.reach + 1 if self.map is None else self.map.rows * self.map.row_slots + 1 + 2 * self.map.halo

    @property
    def stride(self) -> int:
        # LINEAR writes whole tiles; indices are never its output.
        return self.width if self.one_hot or self.packed else padded(self.width)

    @property
    def size(self) -> int:
        """How many floats it takes, whole cache lines."""
        return padded(self.slots * self.stride)


@dataclass(frozen=True)
class Operand:
    """`size` features of a buffer from `start` on, `delay` positions ago; of a map, `delay` rows above.

    Of a map it belongs to the position's entry, or, where `aligned`, to the first entry of its pixel.
    """

    buffer: Buffer
    size: int
    start: int = 0
    delay: int = 0
    is_code: bool = False
    aligned: bool = False

    @property
    def one_hot(self) -> bool:
        return self.buffer.one_hot

    def code(self, count: int) -> Operand:
        """Return a number 0..count-1 as the one-hot vector of so many that it stands for."""
        return replace(self, size=count, is_code=True)

    def lag(self, positions: int) -> Operand:
        """Return the value so many positions before; `Tape.history` must keep it."""
        return replace(self, delay=self.delay + positions)

    def pixels(self, above: int, first: int, count: int) -> Operand:
        """Return `count` pixels of a map side by side, the first `first` columns away, so many rows above."""
        stride = self.buffer.stride * self._group
        return replace(self, delay=above, start=first * stride, size=count * stride, aligned=True)

    def entry(self, channel: int, column: int = 0) -> Operand:
        """Return one entry of a pixel so many columns away."""
        start = (column * self._group + channel) * self.buffer.stride
        return replace(self, start=start, size=self.buffer.width, aligned=True)

    def beside(self, column: int) -> Operand:
        """Return the entry of the same channel of a pixel so many columns away."""
        return replace(self, start=column * self._group * self.buffer.stride)

    @property
    def _group(self) -> int:
        return 1 if self.buffer.map is None else self.buffer.map.group

    def part(self, start: int, size: int) -> Operand:
        """Return some of the numbers."""
        return replace(self, start=self.start + start, size=size)


@dataclass(frozen=True)
class Memory:
    """What each row is conditioned on along a length of its own: read, never written.

    Attributes:
        load: reads it, (B, n, F) one after another, or (B, n) for a source, whose second number is its length.
        path: where the state is that it is read from.
        every: positions that share a part; 0 for a source, which attention reads.
    """

    load: Load
    path: tuple[Any, ...]
    every: int

    @property
    def is_source(self) -> bool:
        """Whether attention reads it, rather than each position its own part."""
        return not self.every


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
        """What it reads, weights of taps apart."""
        return self.reads + [x for _, x, _ in self.taps]

    @property
    def operands(self) -> list[Operand]:
        """All that it reads and writes."""
        return self.writes + self.all_reads + [weight for _, _, weight in self.taps]
