"""Positions: vectors added to each position, and rotations of queries and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State
from seriatim.wide import wide

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape

BASE = 10_000.0  # wavelengths go from 2 pi to nearly 2 pi BASE positions


def angles(start: int, n: int, num_features: int, device: torch.device | None = None) -> Tensor:
    """Return t / 10000^(2i/F) for the positions t = start, ..., start + n - 1 and pairs i: (n, F/2) float64.

    Example:
        >>> angles(3, 1, 4)
        tensor([[3.0000, 0.0300]], dtype=torch.float64)
    """
    place = None if device is None else wide(device)
    position = torch.arange(start, start + n, dtype=torch.float64, device=place)
    even = torch.arange(0, num_features, 2, dtype=torch.float64, device=place)
    return position[:, None] * BASE ** (-even / num_features)


def sinusoids(start: int, n: int, num_features: int, device: torch.device | None = None) -> Tensor:
    """Return the sinusoidal code of the positions start, ..., start + n - 1: (n, F) float64.

        p_t,2i = sin(t / 10000^(2i/F)),    p_t,2i+1 = cos(t / 10000^(2i/F))

    Reference: Attention Is All You Need (Vaswani et al., 2017).

    Example:
        >>> sinusoids(0, 2, 4)
        tensor([[0.0000, 1.0000, 0.0000, 1.0000],
                [0.8415, 0.5403, 0.0100, 1.0000]], dtype=torch.float64)
    """
    turned = angles(start, n, num_features, device)
    return torch.stack([turned.sin(), turned.cos()], dim=-1).flatten(1)[:, :num_features]


def rotate(x: Tensor, start: int) -> Tensor:
    """Turn each pair of features by an angle that grows with the position, so that q . k knows their distance only.

        (x_2i, x_2i+1) turned by t / 10000^(2i/F)

    Args:
        x: (B, n, heads, F) at the positions start, ..., start + n - 1, F even.
        start: the first position.

    Reference: RoFormer: Enhanced Transformer with Rotary Position Embedding (Su et al., 2021).

    Example:
        >>> q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> near, far = ((rotate(q, t + 3) * rotate(k, t)).sum() for t in (0, 100))
        >>> bool(torch.isclose(near, far, atol=1e-5))
        True
    """
    turned = angles(start, x.shape[1], x.shape[-1], x.device)[:, None]
    cos, sin = turned.cos().to(x), turned.sin().to(x)
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


class _Added(Causal):
    """A vector p_t added at each position; a subclass says which."""

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return torch.zeros(batch_size, dtype=torch.int64, device=self._device)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return x + self.vectors(int(state[0]), x.shape[1]).to(x.dtype), state + x.shape[1]

    def vectors(self, start: int, n: int) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define vectors")

    @property
    def _device(self) -> torch.device:
        raise NotImplementedError(f"{type(self).__name__} must define _device")

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return tape.add(x, tape.table(self.vectors(0, tape.length).to(torch.float32)))

    def dependencies(self, length: int) -> Tensor:
        return torch.eye(length, dtype=torch.bool)


class SinusoidalPositions(_Added):
    """Sines and cosines of the position added to each position (`sinusoids`).

        y_t = x_t + p_t

    Shapes: x (B, n, F) -> y (B, n, F). It has no weights, and runs over any length.

    Reference: Attention Is All You Need (Vaswani et al., 2017).

    Example:
        >>> SinusoidalPositions(4)(torch.zeros(1, 2, 4))[0]
        tensor([[[0.0000, 1.0000, 0.0000, 1.0000],
                 [0.8415, 0.5403, 0.0100, 0.9999]]])
    """

    any_length = True
    zero: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # it knows the device

    @property
    def _device(self) -> torch.device:
        return self.zero.device

    def vectors(self, start: int, n: int) -> Tensor:
        """Return p_start, ..., p_start+n-1: (n, F) float64."""
        return sinusoids(start, n, self.num_features, self._device)


class LearnedPositions(_Added):
    """A learned vector added at each position.

        y_t = x_t + p_t

    Shapes: x (B, n, F) -> y (B, n, F), of at most `num_positions` positions.

    Raises:
        ValueError: a position beyond the last.

    Example:
        >>> LearnedPositions(5, 4)(torch.zeros(1, 5, 4))[0].shape
        torch.Size([1, 5, 4])
    """

    def __init__(self, num_positions: int, num_features: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(num_positions, num_features))

    @property
    def _device(self) -> torch.device:
        return self.table.device

    def vectors(self, start: int, n: int) -> Tensor:
        """Return p_start, ..., p_start+n-1: (n, F)."""
        if start + n > len(self.table):
            raise ValueError(f"x: expected at most {len(self.table)} positions, got {start + n}")
        return self.table[start : start + n]
