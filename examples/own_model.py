"""Your own model in one file: a recurrent model that knows where it is. `python examples/own_model.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seriatim import AutoregressiveModel, Causal, CausalSequential, Order
from seriatim.causal import State
from seriatim.context import Encoder
from seriatim.heads import Bernoulli, Head
from seriatim.layers import LSTM
from seriatim.testing import check


class WithPosition(Causal):
    """Put a learned vector for the position beside the input: y_t = (x_t, e_t)."""

    def __init__(self, num_positions: int, num_features: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.1 * torch.randn(num_positions, num_features))

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        # All that a step must know from the past: how many positions came before. Batch first, like every state.
        return torch.zeros(batch_size, dtype=torch.int64, device=self.table.device)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state[0]), x.shape[1]
        own = self.table[start : start + n].expand(x.shape[0], -1, -1)
        return torch.cat([x, own], dim=-1), state + n


class PositionLSTM(AutoregressiveModel):
    """p(x_t | x_<t, c) = head(V h_t), h_t = LSTM((x_t-1, e_t), h_t-1), h_0 = U c."""

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: int = 64,
        encoder: Encoder | None = None,
    ) -> None:
        head, order = head or Bernoulli(), Order(event_shape)
        context_features = encoder.num_features if encoder else 0
        network = CausalSequential(
            WithPosition(order.length, 8),
            LSTM(head.num_features + 8, hidden_features, context_features=context_features),
            nn.Linear(hidden_features, head.num_params),
        )
        super().__init__(network, head, order, encoder)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(check(PositionLSTM((3, 2), hidden_features=6)))
