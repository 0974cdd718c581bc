"""Attention on torch's fused kernel: over what came before, over all of a sequence, and over an encoded source."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import Causal, State, write
from seriatim.layers.positions import angles, rotate

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class SelfAttention(Causal):
    """Masked multi-head self-attention.

        y_t = W_o concat_h softmax(q_t . K_1..t / sqrt(d)) V_1..t

    Shapes: x (B, n, F) -> y (B, n, F). The state keeps the keys and values of all positions so far, (B, S, F) each,
    preallocated for `max_length` positions.

    Args:
        num_features: F.
        num_heads: a divisor of F.
        rotary: turn queries and keys by their positions (`rotate`); heads then have an even size.
        dropout: the rate on attention weights, in training.

    Raises:
        ValueError: heads of unequal size, or of an odd size that cannot turn.

    Reference: Attention Is All You Need (Vaswani et al., 2017).

    Example:
        >>> layer = SelfAttention(8, num_heads=2)
        >>> layer(torch.zeros(1, 5, 8), layer.initial_state(1, max_length=5))[0].shape
        torch.Size([1, 5, 8])
    """

    any_length = True

    def __init__(self, num_features: int, num_heads: int, *, rotary: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        _divides(num_features, num_heads, rotary=rotary)
        self.num_features, self.num_heads, self.rotary, self.dropout = num_features, num_heads, rotary, dropout
        self.qkv = nn.Linear(num_features, 3 * num_features)
        self.out = nn.Linear(num_features, num_features)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        shape = (batch_size, max_length or 0, self.num_features)
        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.out.weight.device),
            "keys": self.out.weight.new_zeros(shape),
            "values": self.out.weight.new_zeros(shape),
        }

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state["position"][0]), x.shape[1]
        q, k, v = self._projected(x, start)
        keys, values = _append(state["keys"], start, k), _append(state["values"], start, v)
        stop, rate = start + n, self.dropout if self.training else 0.0
        y = _attend(q, keys[:, :stop], values[:, :stop], self.num_heads, causal_from=start, dropout=rate)
        return self.out(y), {"position": state["position"] + n, "keys": keys, "values": values}

    def weights(self, x: Tensor, state: State = None) -> Tensor:
        """Return what `forward` weighs the values of x (B, n, F) and of what came before by: (B, heads, n, S)."""
        state = self.initial_state(len(x)) if state is None else state
        start = int(state["position"][0])
        q, k, _ = self._projected(x, start)
        keys = torch.cat([state["keys"][:, :start], k], dim=1)
        return _weights(q, keys, self.num_heads, causal_from=start)

    def _projected(self, x: Tensor, start: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of a chunk that begins at a position."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.rotary:
            q, k = (_turned(t, start, self.num_heads) for t in (q, k))
        return q, k, v

    def lower(self, tape: Tape, x: Operand) -> Operand:
        qkv = tape.linear([(x, self.qkv.weight)], self.qkv.bias)
        if self.rotary:
            turns = angles(0, tape.length, self.num_features // self.num_heads)
            qkv = tape.rotate(qkv, turns, 2 * self.num_features)
        return tape.lower(self.out, tape.attend(qkv, self.num_heads, _filled))


class CrossAttention(Causal):
    """Attention over an encoded source, whose keys and values are projected once, into the initial state.

        y_t = W_o concat_h softmax(q_t . K / sqrt(d)) V,    K, V from the context (B, S, M)

    The context is (memory, mask): (B, S, M) and (B, S), True where the source has a symbol.

    Args:
        num_features: F.
        num_heads: a divisor of F.
        memory_features: M; F if None.
        dropout: the rate on attention weights, in training.

    Reference: Attention Is All You Need (Vaswani et al., 2017).

    Example:
        >>> layer = CrossAttention(8, num_heads=2)
        >>> memory, mask = torch.zeros(1, 7, 8), torch.ones(1, 7, dtype=torch.bool)
        >>> layer(torch.zeros(1, 5, 8), layer.initial_state(1, (memory, mask)))[0].shape
        torch.Size([1, 5, 8])
    """

    any_length = True

    def __init__(
        self, num_features: int, num_heads: int, memory_features: int | None = None, *, dropout: float = 0.0
    ) -> None:
        super().__init__()
        _divides(num_features, num_heads)
        self.num_heads, self.dropout = num_heads, dropout
        self.q = nn.Linear(num_features, num_features)
        self.kv = nn.Linear(memory_features or num_features, 2 * num_features)
        self.out = nn.Linear(num_features, num_features)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        memory, mask = context
        keys, values = self.kv(memory).chunk(2, dim=-1)
        return {"keys": keys, "values": values, "mask": mask}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        mask, rate = state["mask"][:, None, None], self.dropout if self.training else 0.0
        y = _attend(self.q(x), state["keys"], state["values"], self.num_heads, mask=mask, dropout=rate)
        return self.out(y), state

    def weights(self, x: Tensor, state: State) -> Tensor:
        """Return what `forward` weighs the values of the source by: (B, heads, n, S), 0 at its padding."""
        return _weights(self.q(x), state["keys"], self.num_heads, mask=state["mask"][:, None, None])

    def lower(self, tape: Tape, x: Operand) -> Operand:
        query = tape.lower(self.q, x)
        y = tape.attend_source(query, self.num_heads, lambda state: (state["keys"], state["values"], state["mask"]))
        return tape.lower(self.out, y)

    def dependencies(self, length: int) -> Tensor:
        return torch.eye(length, dtype=torch.bool)


class SourceAttention(nn.Module):
    """Multi-head attention of every symbol of a source to all of them, padding left out.

        y_s = W_o concat_h softmax(q_s . K / sqrt(d)) V

    Shapes: x (B, S, F), mask (B, S), True where the source has a symbol -> y (B, S, F).

    Args:
        num_features: F.
        num_heads: a divisor of F.
        rotary: turn queries and keys by their positions (`rotate`); heads then have an even size.
        dropout: the rate on attention weights, in training.

    Raises:
        ValueError: heads of unequal size, or of an odd size that cannot turn.

    Reference: Attention Is All You Need (Vaswani et al., 2017).

    Example:
        >>> SourceAttention(8, num_heads=2)(torch.zeros(1, 7, 8), torch.ones(1, 7, dtype=torch.bool)).shape
        torch.Size([1, 7, 8])
    """

    def __init__(self, num_features: int, num_heads: int, *, rotary: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        _divides(num_features, num_heads, rotary=rotary)
        self.num_heads, self.rotary, self.dropout = num_heads, rotary, dropout
        self.qkv = nn.Linear(num_features, 3 * num_features)
        self.out = nn.Linear(num_features, num_features)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, S, F) to (B, S, F)."""
        q, k, v = self._projected(x)
        rate = self.dropout if self.training else 0.0
        return self.out(_attend(q, k, v, self.num_heads, mask=mask[:, None, None], dropout=rate))

    def weights(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return what `forward` weighs the values of the source by: (B, heads, S, S), 0 at its padding."""
        q, k, _ = self._projected(x)
        return _weights(q, k, self.num_heads, mask=mask[:, None, None])

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of a source."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.rotary:
            q, k = (_turned(t, 0, self.num_heads) for t in (q, k))
        return q, k, v


Attention = SelfAttention | CrossAttention | SourceAttention


@contextmanager
def attention_weights(module: nn.Module) -> Iterator[list[tuple[Attention, Tensor]]]:
    """Collect the weights of all attention layers of a module while it runs: (layer, (B, heads, n, S)) in their order.

    They are computed from what a layer is given, by its own projections; the fused kernel makes no table of them.

    Example:
        >>> layer = SelfAttention(8, num_heads=2)
        >>> with attention_weights(layer) as found:
        ...     y, _ = layer(torch.zeros(1, 3, 8))
        >>> [(own is layer, weights[0, 0].tolist()[1]) for own, weights in found]
        [(True, [0.5, 0.5, 0.0])]
    """
    found: list[tuple[Attention, Tensor]] = []

    def collect(layer: Attention, given: tuple[Any, ...], _: Any) -> None:
        found.append((layer, layer.weights(*given)))

    with ExitStack() as stack:
        for layer in module.modules():
            if isinstance(layer, Attention):
                handle = layer.register_forward_hook(collect)
                stack.callback(handle.remove)
        yield found


def _append(buffer: Tensor, start: int, values: Tensor) -> Tensor:
    """Write into a preallocated buffer; let one that is too short grow."""
    missing = start + values.shape[1] - buffer.shape[1]
    if missing > 0:
        buffer = torch.cat([buffer, buffer.new_zeros(buffer.shape[0], missing, buffer.shape[2])], dim=1)
    return write(buffer, start, values)


def _filled(state: State) -> tuple[Tensor, Tensor]:
    """Return the keys and values of the positions that have been read."""
    stop = int(state["position"][0])
    return state["keys"][:, :stop], state["values"][:, :stop]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    num_heads: int,
    *,
    causal_from: int | None = None,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    q, k, v = (_heads(t, num_heads) for t in (q, k, v))
    if causal_from is not None and q.shape[2] > 1 and causal_from > 0:
        mask = _causal_mask(q, k, causal_from)
    is_causal = causal_from == 0 and q.shape[2] > 1
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, dropout_p=dropout)
    return y.transpose(1, 2).flatten(-2)


def _weights(
    q: Tensor, k: Tensor, num_heads: int, *, causal_from: int | None = None, mask: Tensor | None = None
) -> Tensor:
    """Return the weights of `_attend`, (B, heads, n, S)."""
    q, k = (_heads(t, num_heads) for t in (q, k))
    mask = mask if causal_from is None else _causal_mask(q, k, causal_from)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """Map (B, n, F) to (B, heads, n, F / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _causal_mask(q: Tensor, k: Tensor, start: int) -> Tensor:
    """Return which of the keys each query sees, (n, S), the queries beginning at a position."""
    return torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(start)


def _turned(x: Tensor, start: int, num_heads: int) -> Tensor:
    """Turn the heads of (B, n, F) by their positions, the first being `start`."""
    return rotate(x.unflatten(-1, (num_heads, -1)), start).flatten(-2)


def _divides(num_features: int, num_heads: int, *, rotary: bool = False) -> None:
    if num_features % num_heads:
        raise ValueError(f"num_heads: expected a divisor of {num_features}, got {num_heads}")
    if rotary and num_features // num_heads % 2:
        raise ValueError(f"rotary: expected heads of an even size, got {num_features // num_heads}")
