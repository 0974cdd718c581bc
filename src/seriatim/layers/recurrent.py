"""Recurrent layers on torch's own kernels: a chunk in one call, the state threaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State
from seriatim.engine.operands import Act

if TYPE_CHECKING:
    from seriatim.engine.operands import Load, Operand
    from seriatim.engine.tape import Tape

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Recurrent(Causal):
    """torch's recurrent modules, batch first, with the state batch first too."""

    any_length = True
    kernel: type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]
    num_states = 1

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        *,
        dropout: float = 0.0,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        self.in_features, self.hidden_features, self.num_layers = in_features, hidden_features, num_layers
        self.rnn = self.kernel(in_features, hidden_features, num_layers, dropout=dropout, batch_first=True)
        size = num_layers * hidden_features * self.num_states
        self.context = nn.Linear(context_features, size) if context_features else None

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        shape = (batch_size, self.num_states, self.num_layers, self.hidden_features)
        if self.context is None:
            return {"h": next(self.rnn.parameters()).new_zeros(shape)}
        return {"h": self.context(context).view(shape)}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        # (B, states, L, H) outside, a tuple of (L, B, H) inside.
        inner = tuple(part.transpose(0, 1).contiguous() for part in state["h"].unbind(1))
        y, after = self.rnn(x, inner if self.num_states > 1 else inner[0])
        after = after if self.num_states > 1 else (after,)
        return y, {"h": torch.stack([part.transpose(0, 1) for part in after], dim=1)}


class RNN(_Recurrent):
    """The simple recurrent layer.

        h_t = tanh(W x_t + U h_t-1 + b)

    Shapes: x (B, n, F) -> h (B, n, H). A context vector (B, C) sets h_0 through a linear map.

    Reference: Finding structure in time (Elman, 1990).

    Example:
        >>> RNN(2, 8)(torch.zeros(1, 5, 2))[0].shape
        torch.Size([1, 5, 8])
    """

    kernel = nn.RNN

    def lower(self, tape: Tape, x: Operand) -> Operand:
        for layer in range(self.num_layers):
            w, u, b, d = (getattr(self.rnn, f"{name}_l{layer}") for name in _NAMES)
            h = tape.recurrent(self.hidden_features, _before(0, layer))
            tape.into(h, tape.linear([(x, w), (h.lag(1), u)], b + d, Act.TANH))
            x = h
        return x


class GRU(_Recurrent):
    """The gated recurrent unit.

        r, z = sigmoid(...),  n = tanh(W x_t + r * (U h_t-1 + b)),  h_t = (1 - z) n + z h_t-1

    Reference: Learning Phrase Representations using RNN Encoder-Decoder (Cho et al., 2014).

    Example:
        >>> GRU(2, 8)(torch.zeros(1, 5, 2))[0].shape
        torch.Size([1, 5, 8])
    """

    kernel = nn.GRU

    def lower(self, tape: Tape, x: Operand) -> Operand:
        size = self.hidden_features
        for layer in range(self.num_layers):
            # The candidate's two shares stay apart, for r multiplies the second only.
            w, u, b, d = (getattr(self.rnn, f"{name}_l{layer}").split(size) for name in _NAMES)
            none = torch.zeros_like
            h = tape.recurrent(size, _before(0, layer))
            inputs, hidden = torch.cat([*w, none(w[2])]), torch.cat([u[0], u[1], none(u[2]), u[2]])
            bias = torch.cat([b[0] + d[0], b[1] + d[1], b[2], d[2]])
            tape.gru(tape.linear([(x, inputs), (h.lag(1), hidden)], bias), h.lag(1), h)
            x = h
        return x


class LSTM(_Recurrent):
    """Long short-term memory.

        i, f, o = sigmoid(W x_t + U h_t-1 + b),  c_t = f c_t-1 + i tanh(...),  h_t = o tanh(c_t)

    Shapes: x (B, n, F) -> h (B, n, H). A context vector (B, C) sets h_0 and c_0 through a linear map.

    Reference: Long Short-Term Memory (Hochreiter, Schmidhuber, 1997).

    Example:
        >>> y, state = LSTM(2, 8)(torch.zeros(1, 5, 2))
        >>> y.shape, state["h"].shape
        (torch.Size([1, 5, 8]), torch.Size([1, 2, 1, 8]))
    """

    kernel = nn.LSTM
    num_states = 2

    def lower(self, tape: Tape, x: Operand) -> Operand:
        for layer in range(self.num_layers):
            hidden, cell = (tape.recurrent(self.hidden_features, _before(part, layer)) for part in range(2))
            w, u, b, d = (getattr(self.rnn, f"{name}_l{layer}") for name in _NAMES)
            gates = tape.linear([(x, w), (hidden.lag(1), u)], b + d)
            tape.lstm(gates, cell.lag(1), hidden, cell)
            x = hidden
        return x


def _before(part: int, layer: int) -> Load:
    """How a tape reads a layer's h (part 0) or c (part 1) before the first position: (B, 1, H)."""
    return lambda state: state["h"][:, part, layer, None]
