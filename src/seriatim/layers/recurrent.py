"""Recurrent layers on torch's own kernels: a chunk in one call, the state threaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State

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


class GRU(_Recurrent):
    """The gated recurrent unit.

        r, z = sigmoid(...),  n = tanh(W x_t + r * (U h_t-1 + b)),  h_t = (1 - z) n + z h_t-1

    Reference: Learning Phrase Representations using RNN Encoder-Decoder (Cho et al., 2014).

    Example:
        >>> GRU(2, 8)(torch.zeros(1, 5, 2))[0].shape
        torch.Size([1, 5, 8])
    """

    kernel = nn.GRU


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
