"""The Transformer: a decoder by itself, or one that attends to an encoded source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import Causal, CausalSequential, Residual, State
from seriatim.context import Encoder, Frames
from seriatim.ending import Ending, SequenceModel
from seriatim.heads import Bernoulli, Categorical, Head, Tokens
from seriatim.layers.attention import CrossAttention, SelfAttention, SourceAttention
from seriatim.layers.positions import LearnedPositions, SinusoidalPositions, sinusoids
from seriatim.layers.raster import RasterPositions
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape

Norm = Literal["post", "pre"]
Positions = Literal["sinusoidal", "learned", "rotary", "raster"]
Activation = Literal["relu", "gelu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def feed_forward(num_features: int, hidden_features: int, activation: Activation) -> nn.Sequential:
    """Return the map of each position by itself: W_2 max(0, W_1 x + b_1) + b_2.

    Example:
        >>> feed_forward(4, 16, "relu")(torch.zeros(1, 3, 4)).shape
        torch.Size([1, 3, 4])
    """
    activate = _ACTIVATIONS[activation]()
    return nn.Sequential(nn.Linear(num_features, hidden_features), activate, nn.Linear(hidden_features, num_features))


def _initialise(body: nn.Module) -> None:
    """Draw the matrices as in the paper's own code (Glorot's uniform), biases zero."""
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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.attention = SourceAttention(num_features, num_heads, dropout=dropout)
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
        dropout: float = 0.0,
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        _check_options(num_layers, norm, activation, dropout)
        if num_symbols < 1:
            raise ValueError(f"num_symbols: expected 1 or more, got {num_symbols}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, 1 or more, got {kernel_size}")
        self.num_symbols, self.num_features = num_symbols, num_features
        inside = feedforward_features or 4 * num_features
        self.layers = nn.ModuleList(
            EncoderLayer(num_features, num_heads, inside, activation=activation, norm=norm, dropout=dropout)
            for _ in range(num_layers)
        )
        _initialise(self.layers)
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
        x = x + sinusoids(0, longest, self.num_features, x.device).to(x.dtype)
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


class Decoder(Causal):
    """The network of `Transformer`: vectors of the values before, layers, and a linear map to the parameters.

        h_t = sqrt(F) E[x_t-1] + V c (+ s at the first position),    y = W layers(h) + b

    Values that are no symbols come in by a linear map of their features.

    Shapes: x (B, n, features of the head) -> y (B, n, P).

    Args:
        head: tells symbols from numbers, and P.
        num_features: F.
        layers: maps (B, n, F) to (B, n, F); takes the context.
        context_features: of a context vector (B, C) added to every position; 0 for none.
        tied: E is the part of W that belongs to the symbols.

    Raises:
        ValueError: tied, and the values are no symbols.

    Example:
        >>> Decoder(Tokens(5), 4, CausalSequential(SelfAttention(4, 2)))(torch.zeros(1, 3, 1))[0].shape
        torch.Size([1, 3, 5])
    """

    def __init__(
        self, head: Head, num_features: int, layers: Causal, *, context_features: int = 0, tied: bool = False
    ) -> None:
        super().__init__()
        values = head.head if isinstance(head, Ending) else head
        self.codes, self.num_inputs = isinstance(values, Tokens), values.num_features
        self.num_symbols = values.num_categories if isinstance(values, Categorical) else 0
        self.num_features, self.any_length, self.tied = num_features, layers.any_length, tied
        if tied and not self.num_symbols:
            raise ValueError(f"tied: expected a head of symbols, got {values}")
        std = num_features**-0.5
        self.input = None if self.num_symbols else nn.Linear(self.num_inputs, num_features)
        table = self.num_symbols and not tied
        self.table = nn.Parameter(std * torch.randn(self.num_symbols, num_features)) if table else None
        self.start = nn.Parameter(torch.randn(num_features))
        self.context = nn.Linear(context_features, num_features, bias=False) if context_features else None
        self.layers = layers
        self.output = nn.Linear(num_features, head.num_params)
        # Untied, training starts near the factorised model.
        nn.init.normal_(self.output.weight, std=std if tied else 0.01)
        nn.init.zeros_(self.output.bias)

    @property
    def output_bias(self) -> Tensor:
        """The biases of the parameters, (P,): they may start at the marginals."""
        return self.output.bias.data

    @property
    def symbols(self) -> Tensor:
        """The vectors of the symbols, (K, F), without their scale."""
        return self.output.weight[-self.num_symbols :] if self.table is None else self.table

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.start.device),
            "context": None if self.context is None else self.context(context)[:, None],
            "layers": self.layers.initial_state(batch_size, context, max_length),
        }

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = self._vectors(x)
        if int(state["position"][0]) == 0:
            h = h + F.pad(self.start[None], (0, 0, 0, x.shape[1] - 1))
        if state["context"] is not None:
            h = h + state["context"]
        h, layers = self.layers(h, state["layers"])
        return self.output(h), {**state, "position": state["position"] + x.shape[1], "layers": layers}

    def _vectors(self, x: Tensor) -> Tensor:
        """Return the vectors (B, n, F) of what was read; where nothing was (the start, after an end), zeros."""
        if self.input is not None:
            return self.input(x[..., : self.num_inputs])
        scale = math.sqrt(self.num_features)
        if not self.codes:
            return scale * (x[..., : self.num_inputs] @ self.symbols)
        if self.num_symbols > 2 / torch.finfo(x.dtype).eps:
            raise ValueError(f"dtype: expected one that holds codes up to {self.num_symbols}, got {x.dtype}")
        code = x[..., 0].long()
        found = F.embedding((code - 1).clamp_min(0), self.symbols)
        return found * (scale * (code > 0).to(found.dtype)[..., None])

    def lower(self, tape: Tape, x: Operand) -> Operand:
        weight: Tensor
        bias: Tensor
        if self.input is not None:
            weight, bias = self.input.weight, self.input.bias
        else:
            weight, bias = math.sqrt(self.num_features) * self.symbols.T, torch.zeros_like(self.start)
        if self.codes:
            x, weight = x.part(0, 1).code(self.num_symbols + 1), F.pad(weight, (1, 0))
        starts = F.pad(self.start[None], (0, 0, 0, tape.length - 1)) + bias
        # The end among the inputs is not read.
        h = tape.linear([(x, F.pad(weight, (0, x.size - weight.shape[1])))], tape.table(starts))
        if self.context is not None:
            h = tape.add(h, tape.constant(self.num_features, lambda state: state["context"]))
        with tape.at("layers"):
            h = tape.lower(self.layers, h)
        return tape.lower(self.output, h)

    def dependencies(self, length: int) -> Tensor:
        return self.layers.dependencies(length)


class Transformer(SequenceModel):
    """Layers of masked self-attention, of attention to a source where there is one, and of maps by position.

        h <- norm(h + attention(h)),    h <- norm(h + attention(h, source)),    h <- norm(h + W_2 max(0, W_1 h))

    Without a source it is a decoder by itself; a label or a vector as context is added to every position. With a
    source, whose `SourceEncoder` is its encoder, each layer attends to it too; keys and values of the source are
    computed once, in the initial state. No weight belongs to a position, but those of learned and raster positions.

    Args:
        event_shape: the shape of the places of the data, of the usual length.
        head: the values of one place; within `Ending`, sequences end by themselves. Large vocabularies are `Tokens`.
        hidden_features: F, of a position.
        num_layers: layers of the decoder.
        num_heads: of attention, a divisor of F.
        feedforward_features: inside the map of each position; 4 F if None.
        activation: inside that map.
        norm: "post", after each residual as in the paper, or "pre", before what it adds, and once at the end.
        positions: "sinusoidal", "learned" (up to the usual length), "rotary", or "raster": learned row, column and
            channel of an image.
        dropout: the rate on vectors of values, on attention weights and on what each residual adds, in training.
        tied: vectors of symbols are the weights of the output.
        encoder: the context: `Labels`, `Vector` or another vector, or a source (`SourceEncoder`).
        order: of the places; row-major if None.

    Raises:
        ValueError: sizes, rates or names out of their ranges, another kind of context, or tied numbers.

    Reference: Attention Is All You Need (Vaswani et al., 2017).

    Example:
        >>> source = SourceEncoder(10, 8, num_layers=1, num_heads=2)
        >>> model = Transformer((5,), Ending(Tokens(7)), hidden_features=8, num_layers=1, num_heads=2, encoder=source)
        >>> model(torch.tensor([[3, 1, 4], [2, -1, -1]])).log_prob(torch.tensor([5, 6, -1, -1, -1])).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 256,
        num_layers: int = 3,
        num_heads: int = 4,
        feedforward_features: int | None = None,
        activation: Activation = "relu",
        norm: Norm = "post",
        positions: Positions = "sinusoidal",
        dropout: float = 0.0,
        tied: bool = False,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        _check_options(num_layers, norm, activation, dropout)
        if encoder is not None and (encoder.is_map or isinstance(encoder, Frames)):
            raise ValueError(f"encoder: expected one of a vector or of a source, got {type(encoder).__name__}")
        head, order, size = head or Bernoulli(), order or Order(event_shape), hidden_features
        memory = encoder.num_features if encoder is not None and encoder.is_memory else 0
        inside = feedforward_features or 4 * size

        def sublayer(module: nn.Module) -> list[nn.Module]:
            if norm == "pre":
                return [Residual(CausalSequential(nn.LayerNorm(size), module, nn.Dropout(dropout)))]
            return [Residual(CausalSequential(module, nn.Dropout(dropout))), nn.LayerNorm(size)]

        body: list[nn.Module] = [nn.Dropout(dropout)]
        for _ in range(num_layers):
            body += sublayer(SelfAttention(size, num_heads, rotary=positions == "rotary", dropout=dropout))
            body += sublayer(CrossAttention(size, num_heads, memory, dropout=dropout)) if memory else []
            body += sublayer(feed_forward(size, inside, activation))
        body += [nn.LayerNorm(size)] if norm == "pre" else []
        _initialise(nn.ModuleList(body))
        network = Decoder(
            head,
            size,
            CausalSequential(*_positions(positions, order, size), *body),
            context_features=encoder.num_features if encoder is not None and not memory else 0,
            tied=tied,
        )
        super().__init__(network, head, order, encoder)


def _positions(kind: str, order: Order, num_features: int) -> list[Causal]:
    """Return the layer that adds positions; none for rotary ones, which attention itself turns."""
    if kind == "sinusoidal":
        return [SinusoidalPositions(num_features)]
    if kind == "learned":
        return [LearnedPositions(order.length, num_features)]
    if kind == "raster":
        return [RasterPositions(order.raster, num_features)]
    if kind != "rotary":
        raise ValueError(f"positions: expected 'sinusoidal', 'learned', 'rotary' or 'raster', got {kind!r}")
    return []


def _check_options(num_layers: int, norm: str, activation: str, dropout: float) -> None:
    if num_layers < 1:
        raise ValueError(f"num_layers: expected 1 or more, got {num_layers}")
    if norm not in ("post", "pre"):
        raise ValueError(f"norm: expected 'post' or 'pre', got {norm!r}")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(map(repr, _ACTIVATIONS))}, got {activation!r}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a rate from 0 to below 1, got {dropout}")
