"""`Reading`: a distribution read along sequences part by part, in memory that does not grow with their length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive
from seriatim.causal import detach, select


class Reading:
    """Sequences being read: the network's state after what was read, and the input that comes next.

        log p(x | c) = sum over parts of log p(x_part | what was read before, c)

    The law of chunks makes the terms those of the whole sequence, wherever it is cut. So an hour of sound is scored in
    the memory of a second, and a network learns from long sequences by truncated back-propagation (`detach` between
    parts). Networks of any length read on without end.

    Args:
        distribution: of batch shape (B,) and positions one after another.

    Raises:
        ValueError: another batch shape, or places in another order.

    Example:
        >>> from seriatim.models import LSTM
        >>> model = LSTM((100,), hidden_features=4).eval()
        >>> x = model.sample((2,), seed=0)
        >>> reading = Reading(model().expand((2,)))
        >>> parts = [reading.read(part).log_prob(part).sum(1) for part in x.split(30, dim=1)]
        >>> torch.allclose(sum(parts), model.log_prob(x), atol=1e-4)
        True
    """

    def __init__(self, distribution: Autoregressive) -> None:
        if len(distribution.batch_shape) != 1:
            raise ValueError(f"distribution: expected batch shape (B,), got {tuple(distribution.batch_shape)}")
        order, self.model = distribution.order, distribution.model
        if len(order.shape) != 1 or not order.is_natural or self.model.network.order_agnostic:
            raise ValueError(f"distribution: expected positions one after another, got {order}")
        self.position = 0
        self.length = None if self._endless else order.length
        self.state = self._initial_state(distribution)
        self.input = self.model.start(distribution.batch_shape[0])

    @property
    def _endless(self) -> bool:
        return self.model.network.any_length and not self.model.head.by_place

    def _initial_state(self, distribution: Autoregressive) -> Any:
        lead = distribution.batch_shape
        return self.model.network.initial_state(lead[0], distribution.encoded(lead), self.length)

    def read(self, values: Tensor) -> Any:
        """Read the next n values (B, n, *value_shape), and return their conditionals, batch shape (B, n).

        Raises:
            ValueError: more values than the model has positions.
        """
        n = values.shape[1]
        if self.length is not None and self.position + n > self.length:
            raise ValueError(f"values: expected {self.length - self.position} more at most, got {n}")
        places = torch.arange(self.position, self.position + n) if self.model.head.by_place else None
        features = self.model.cast(self.model.head.encode(values.to(self.model.device), places))
        y, self.state = self.model.network(torch.cat([self.input, features[:, :-1]], dim=1), self.state)
        self.input = features[:, -1:]
        self.position += n
        return self.model.head(self.model.cast(y), places)  # mixed precision ends here: log p is a long sum

    def detach(self) -> None:
        """Cut what was read from the gradient graph."""
        self.state, self.input = detach(self.state), self.input.detach()

    def select(self, rows: Tensor) -> None:
        """Keep some rows (B',), with repetition if wanted."""
        self.state, self.input = select(self.state, rows), self.input.index_select(0, rows.to(self.input.device))
