"""The tape: a network's step at one position as a short list of primitive instructions.

A layer lowers itself by calling the methods of `Tape` in its own `lower(tape, x) -> Operand`, the way `advance` calls
torch: they return operands, and append instructions. Nothing here knows the machine that will read the tape.

**Buffers and lags.** An operand is a buffer at a lag: `x` is the value at the position being computed, `x.lag(j)` the
one j positions before. A buffer that is read at a lag becomes a ring in the row's state; no instruction moves it, for
its producer writes straight into the ring. So recurrence, dilation and caches are one thing, and the whole state of
a network is the past of its buffers.

**Maps.** A buffer over an image keeps the last rows, with columns of zeros on both sides: what lies outside is read as
zero, and the pixels of one row lie side by side, so that a kernel's row is one tap. Within `rows` instructions run once
for each pixel of a row, when the row begins.

**Arenas.** Weights (shared by all rows), state (one contiguous vector for each row, kept between positions) and
scratch (per row, forgotten). A row of the state arena is self-contained: beams and forks copy rows.

**Handing over.** `history` and `constant` say how to read their values from the state of the eager layer, so a tape can
start from any state: the initial one with its context, or the one after a prompt was read in the parallel form.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seriatim.engine.instructions import Instructions
from seriatim.engine.modules import MODULES
from seriatim.engine.operands import Act, Arena, Buffer, CannotLower, Operand
from seriatim.engine.storage import Common
from seriatim.order import Order

__all__ = ["Act", "CannotLower", "Operand", "Tape"]


class Tape(Instructions):
    """Collects the instructions, weights and state of one network.

    Args:
        num_features: F of the network's input.
        one_hot: whether the input is a one-hot vector.
        length: T, the number of positions, for layers that keep something of each.
        order: which variable stands at each position; that of their numbers if None.
        by_pixel: whether the context is a map, that tells each pixel its own.
        common: what it shares with the tape that it is nested in.

    Example:
        >>> tape = Tape(num_features=3)
        >>> y = tape.lower(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), tape.input)
        >>> [instruction.op.name for instruction in tape.instructions], y.size
        (['LINEAR', 'ACTIVATE'], 2)
    """

    def __init__(
        self,
        num_features: int,
        one_hot: bool = False,
        length: int = 1,
        *,
        order: Order | None = None,
        by_pixel: bool = False,
        common: Common | None = None,
    ) -> None:
        super().__init__(length, by_pixel, common)
        self.order = order
        # The input outlives its position: the sampler writes it for the next one.
        self.input = Operand(Buffer(1 if one_hot else num_features, one_hot, Arena.STATE), num_features)

    @property
    def variables(self) -> Tensor:
        """The variable at each position, (T,)."""
        return torch.arange(self.length) if self.order is None else self.order.places(0, self.length)

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
            if not describes(type(module), "advance", "forward"):
                raise CannotLower(f"{name} redefines advance or forward below the class that defines lower")
            result = own(self, x)
        elif type(module) in MODULES:
            result = MODULES[type(module)](self, module, x)
        else:
            raise CannotLower(f"{name} has no lower method")
        if not isinstance(result, Operand):
            raise TypeError(f"{name}.lower: expected an Operand, got {type(result).__name__}")
        return result


def describes(kind: type, *others: str) -> bool:
    """Whether `lower` was written for this class's arithmetic: nothing below it redefines any of the others."""
    for base in kind.__mro__:
        if "lower" in vars(base):
            return True
        if any(name in vars(base) for name in others):
            return False
    return False
