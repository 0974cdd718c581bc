"""The encoder of a source: a Transformer that reads symbols in both directions, for a decoder to attend to."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.context import Encoder
from seriatim.layers.attention import SourceAttention
from seriatim.layers.positions import sinusoids

Norm = Literal["post", "pre"]
Activation = Literal["relu", "gelu"]
SourcePositions = Literal["sinusoidal", "rotary"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def feed_forward(num_features: int, hidden_features: int, activation: Activation) -> nn.Sequential:
    """Return the map of each position by itself: W_2 max(0, W_1 x + b_1) + b_2.

    Example:
        >>> feed_forward(4, 16, "relu")(torch.zeros(1, 3, 4)).shape
        torch.Size([1, 3, 4])
    """
    activate = _ACTIVATIONS[activation]()
    return nn.Sequential(nn.Linear(num_features, hidden_features), activate, nn.Linear(hidden_features, num_features))


def initialise(body: nn.Module) -> None:
    """Draw the matrices as in the paper's own code (Glorot's uniform), biases zero.

    Example:
        >>> layer = feed_forward(4, 4, "relu")
        >>> initialise(layer)
        >>> float(layer[0].bias.detach().abs().sum()), float(layer[0].weight.detach().abs().max()) <= (6 / 8) ** 0.5
        (0.0, True)
    """
    for module in body.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)


class EncoderLayer(nn.Module):
    """Attention over a whole source, then a map of each symbol, each with a residual and a norm.

        post-norm  x <- norm(x + f(x)),    pre-norm  x <- x + f(norm(x))

    Example:
        >>> EncoderLayer(4, 2, 16)(torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)).shape
        torch.Size([1, 3, 4])
    """

    def __init__(
        self,
        num_features: int,
        num_heads: int,
        feedforward_features: int,
        *,
        activation: Activation = "relu",
        norm: Norm = "post",
        rotary: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention = SourceAttention(num_features, num_heads, rotary=rotary, dropout=dropout)
        self.forwards = feed_forward(num_features, feedforward_features, activation)
        self.norms = nn.ModuleList(nn.LayerNorm(num_features) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, S, F) and the mask (B, S) to (B, S, F)."""
        first, second = self.norms
        if self.norm == "pre":
            x = x + self.dropout(self.attention(first(x), mask))
            return x + self.dropout(self.forwards(second(x)))
        x = first(x + self.dropout(self.attention(x, mask)))
        return second(x + self.dropout(self.forwards(x)))


class SourceEncoder(Encoder):
    """A source of symbols 0..K-1, padded with -1, through a Transformer that reads it in both directions.

        v_s = sqrt(F) E[c_s] + p_s,    memory = layers(v_s + sum_j w_j * v_s+j)

    Rotary positions add no p_s: attention turns queries and keys instead (`rotate`), and so knows distances only.

    The sum over the nearest symbols, one weight for each feature and distance, is there with a kernel above 1. It tells
    every symbol of its phrase before the first attention, which layers of attention by themselves learn late.

    Padding is left out of every sum: a padded source gives what it gives alone.

    Shapes: sources (B, S) -> memory (B, S', F) and its mask (B, S'), S' the length of the longest.

    Args:
        num_symbols: K.
        num_features: F.
        num_layers: of attention and a map of each symbol.
        num_heads: of attention, a divisor of F.
        feedforward_features: inside the map of each symbol; 4 F if None.
        activation: inside that map.
        norm: "post", after each residual, or "pre", before what it adds, and once at the end.
        positions: "sinusoidal" or "rotary".
        dropout: the rate on vectors of symbols, on attention weights and on what each residual adds, in training.
        kernel_size: symbols that the sum sees, the own one in the middle, an odd number; 1 for no sum.

    Raises:
        ValueError: sizes or rates out of their ranges.

    Reference: Attention Is All You Need (Vaswani et al., 2017). A convolution before the layers: wav2vec 2.0 (Baevski,
    Zhou, Mohamed, Auli, 2020).

    Example:
        >>> memory, mask = SourceEncoder(10, 8, num_layers=1, num_heads=2)(torch.tensor([[3, 1, 4], [2, -1, -1]]))
        >>> memory.shape, mask.sum(1)
        (torch.Size([2, 3, 8]), tensor([3, 1]))
    """

    event_dim = 1
    is_memory = True

    def __init__(
        self,
        num_symbols: int,
        num_features: int = 256,
        *,
        num_layers: int = 3,
        num_heads: int = 4,
        feedforward_features: int | None = None,
        activation: Activation = "relu",
        norm: Norm = "post",
        positions: SourcePositions = "sinusoidal",
        dropout: float = 0.0,
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        check_options(num_layers, norm, activation, dropout)
        if num_symbols < 1:
            raise ValueError(f"num_symbols: expected 1 or more, got {num_symbols}")
        if positions not in ("sinusoidal", "rotary"):
            raise ValueError(f"positions: expected 'sinusoidal' or 'rotary', got {positions!r}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, 1 or more, got {kernel_size}")
        self.num_symbols, self.num_features, self.positions = num_symbols, num_features, positions
        inside = feedforward_features or 4 * num_features
        shared: dict[str, Any] = {"activation": activation, "norm": norm, "dropout": dropout}
        self.layers = nn.ModuleList(
            EncoderLayer(num_features, num_heads, inside, rotary=positions == "rotary", **shared)
            for _ in range(num_layers)
        )
        initialise(self.layers)
        self.table = nn.Parameter(torch.randn(num_symbols, num_features) / math.sqrt(num_features))
        alike: dict[str, Any] = {"padding": kernel_size // 2, "groups": num_features, "bias": False}
        self.nearest = nn.Conv1d(num_features, num_features, kernel_size, **alike) if kernel_size > 1 else None
        self.last = nn.LayerNorm(num_features) if norm == "pre" else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def check(self, context: Tensor) -> None:
        if context.is_floating_point() or context.is_complex() or context.ndim < 1:
            raise ValueError(f"context: expected integer symbols (..., S), got {context.dtype} {tuple(context.shape)}")
        if not context.numel():
            return
        low, high = int(context.min()), int(context.max())
        if low < -1 or high >= self.num_symbols:
            raise ValueError(f"context: expected symbols in 0..{self.num_symbols - 1} or -1, got {low}..{high}")
        present = context >= 0
        if not bool(present[..., 0].all()):
            raise ValueError("context: expected one symbol or more in every source, got -1 as the first")
        if bool((present[..., 1:] & ~present[..., :-1]).any()):
            raise ValueError("context: expected -1 after the symbols of a source only, got a symbol after -1")

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map sources (B, S) to the memory and its mask."""
        mask = context >= 0
        longest = int(mask.sum(1).max()) if len(mask) else 0
        context, mask = context[:, :longest], mask[:, :longest]
        x = math.sqrt(self.num_features) * F.embedding(context.clamp_min(0).long(), self.table)
        if self.positions == "sinusoidal":
            x = x + sinusoids(0, longest, self.num_features, x.device).to(x)
        x = self.dropout(self._with_nearest(x, mask))
        for layer in self.layers:
            x = layer(x, mask)
        return self.last(x), mask

    def _with_nearest(self, x: Tensor, mask: Tensor) -> Tensor:
        """Add to the vectors (B, S, F) the sum over the nearest that are no padding."""
        if self.nearest is None:
            return x
        return x + self.nearest((x * mask[..., None]).transpose(1, 2)).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.num_symbols}, {self.num_features}"


def check_options(num_layers: int, norm: str, activation: str, dropout: float) -> None:
    """Refuse options out of their ranges, by name.

    Raises:
        ValueError: names the option.

    Example:
        >>> check_options(0, "pre", "relu", 0.1)
        Traceback (most recent call last):
        ValueError: num_layers: expected 1 or more, got 0
    """
    if num_layers < 1:
        raise ValueError(f"num_layers: expected 1 or more, got {num_layers}")
    if norm not in ("post", "pre"):
        raise ValueError(f"norm: expected 'post' or 'pre', got {norm!r}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(map(repr, _ACTIVATIONS))}, got {activation!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a rate from 0 to below 1, got {dropout}")
