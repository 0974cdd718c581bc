"""NADE: conditionals that share one hidden layer, whose activation is carried along."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State
from seriatim.context import Encoder
from seriatim.engine.operands import Act
from seriatim.heads import Bernoulli, Head
from seriatim.model import AutoregressiveModel
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape

_BLOCK = 16  # positions whose sums are one matrix product: n^2 work, but in fast kernels and in cache


class NADENetwork(Causal):
    """One hidden layer for all positions: its pre-activation is a running sum.

        a_t = a_(t-1) + W_t x_t,    h_t = f(a_t),    y_t = V_t h_t + b_t

    Shapes: x (B, n, F) -> y (B, n, P). The state is the running sum, (B, H), so T steps cost one pass.

    Example:
        >>> NADENetwork(4, 1, 8, 2)(torch.zeros(3, 4, 1))[0].shape
        torch.Size([3, 4, 2])
    """

    def __init__(
        self,
        num_positions: int,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        activation: Literal["sigmoid", "relu"] = "sigmoid",
        context_features: int = 0,
    ) -> None:
        super().__init__()
        if activation not in ("sigmoid", "relu"):
            raise ValueError(f"activation: expected 'sigmoid' or 'relu', got {activation!r}")
        self.activation = torch.sigmoid if activation == "sigmoid" else torch.relu
        # A unit's sum grows with t, so the weights start small enough for the last position.
        self.weight = nn.Parameter(torch.empty(num_positions, in_features, hidden_features))
        self.bias = nn.Parameter(torch.zeros(hidden_features))
        self.output_weight = nn.Parameter(torch.empty(num_positions, hidden_features, out_features))
        self.output_bias = nn.Parameter(torch.zeros(num_positions, out_features))
        self.context = nn.Linear(context_features, hidden_features, bias=False) if context_features else None
        nn.init.uniform_(self.weight, -1 / math.sqrt(num_positions), 1 / math.sqrt(num_positions))
        nn.init.uniform_(self.output_weight, -0.01, 0.01)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        total = self.bias.expand(batch_size, -1)
        if self.context is not None:
            total = total + self.context(context)
        position = torch.zeros(batch_size, dtype=torch.int64, device=self.bias.device)
        return {"position": position, "sum": total}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state["position"][0]), x.shape[1]
        total, outputs = state["sum"], []
        for first in range(0, n, _BLOCK):
            part = x[:, first : first + _BLOCK]
            own = slice(start + first, start + first + part.shape[1])
            sums = total + self._running_sums(part, own)
            total = sums[-1]
            outputs.append(self.activation(sums) @ self.output_weight[own])
        y = torch.cat(outputs).transpose(0, 1) + self.output_bias[start : start + n]
        return y, {"position": state["position"] + n, "sum": total}

    def lower(self, tape: Tape, x: Operand) -> Operand:
        total = tape.recurrent(self.bias.shape[0], lambda state: state["sum"][:, None])
        tape.add_to(total, x, self.weight.transpose(1, 2))
        act = Act.RELU if self.activation is torch.relu else Act.SIGMOID
        return tape.by_position(tape.activation(total, act), self.output_weight.transpose(1, 2), self.output_bias)

    def _running_sums(self, x: Tensor, own: slice) -> Tensor:
        """Return sum_(s<=t) W_s x_s for the positions of a block, (n, B, H), as one matrix product."""
        n = x.shape[1]
        lower = torch.ones(n, n, dtype=x.dtype, device=x.device).tril()
        masked = lower[:, None, :, None] * x  # positions first, so that the output weights' product needs no copy
        return (masked.flatten(2).flatten(0, 1) @ self.weight[own].flatten(0, 1)).unflatten(0, (n, -1))


class NADE(AutoregressiveModel):
    """The neural autoregressive distribution estimator; with a continuous head, RNADE.

        h_t = f(c + W_<t x_<t),    p(x_t | x_<t) = head(V_t h_t + b_t)

    Args:
        event_shape: the shape of the places of the data.
        head: the values of one place.
        hidden_features: H.
        activation: f, "sigmoid" or "relu".
        encoder: the context, added to the hidden layer.
        order: the order of the places; row-major if None.

    References: The Neural Autoregressive Distribution Estimator (Larochelle, Murray, 2011); RNADE: The real-valued
    neural autoregressive density-estimator (Uria, Murray, Larochelle, 2013).

    Example:
        >>> NADE((3,), hidden_features=4)().log_prob(torch.ones(2, 3)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 500,
        activation: Literal["sigmoid", "relu"] = "sigmoid",
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        network = NADENetwork(
            order.length,
            head.num_features,
            hidden_features,
            head.num_params,
            activation=activation,
            context_features=encoder.num_features if encoder else 0,
        )
        super().__init__(network, head, order, encoder)
