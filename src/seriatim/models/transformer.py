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
from seriatim.layers.attention import CrossAttention, SelfAttention
from seriatim.layers.positions import LearnedPositions, SinusoidalPositions
from seriatim.layers.raster import RasterPositions
from seriatim.layers.source import Activation, Norm, check_options, feed_forward, initialise
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape

Positions = Literal["sinusoidal", "learned", "rotary", "raster"]


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
        >>> from seriatim.models import SourceEncoder
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
        check_options(num_layers, norm, activation, dropout)
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
        initialise(nn.ModuleList(body))
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
