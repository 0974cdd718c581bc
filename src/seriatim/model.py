"""`AutoregressiveModel`: an order, a network, a head, and an encoder where there is a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from seriatim.autoregressive import Autoregressive, evaluating
from seriatim.causal import Causal
from seriatim.config import Configurable
from seriatim.context import Encoder
from seriatim.heads import Head
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision


class AutoregressiveModel(Configurable, nn.Module):
    """A family of joint distributions, one for each context: `model(context)` is a `torch` distribution.

        log p(x | c) = sum_t log p(x_t | x_<t, c)

    The model shifts the inputs once: the network reads (start, x_1, ..., x_T-1) and is causal, never strictly causal.

    Args:
        network: maps features (B, n, F) to parameters (B, n, P).
        head: the values of one position.
        order: the places of the data as positions.
        encoder: turns a context into what the network's initial state takes; None for unconditional models.

    Example:
        >>> from seriatim.heads import Bernoulli
        >>> from seriatim.layers import LSTM
        >>> from seriatim.causal import CausalSequential
        >>> model = AutoregressiveModel(CausalSequential(LSTM(1, 8), nn.Linear(8, 1)), Bernoulli(), Order((5,)))
        >>> model().log_prob(torch.ones(2, 5)).shape
        torch.Size([2])
    """

    schema: Any = None  # of the table the model was fitted to (`seriatim.data.Schema`)
    codec: Any = None  # of the sequences it was fitted to (`seriatim.data.Codec`)
    source_codec: Any = None  # of the sources that they are conditioned on

    def __init__(self, network: Causal, head: Head, order: Order, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.network, self.head, self.order, self.encoder = network, head, order, encoder

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one data row."""
        return (*self.order.shape, *self.head.value_shape)

    @property
    def device(self) -> torch.device:
        """The device of the first parameter."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first parameter."""
        return next(self.parameters()).dtype

    def cast(self, tensor: Tensor) -> Tensor:
        """Move a tensor to the model's device, and to its dtype where it holds real numbers."""
        return tensor.to(self.device, self.dtype) if tensor.is_floating_point() else tensor.to(self.device)

    def forward(
        self, context: Tensor | None = None, *, order: Order | None = None, length: int | None = None
    ) -> Autoregressive:
        """Return the distribution given a context; its batch shape is that of the context.

        Args:
            context: (*batch_shape, *context event), None for unconditional models.
            order: of the variables, for order-agnostic models; the model's own if None.
            length: of the sequences, where the network runs over any length; that of the model if None.

        Raises:
            ValueError: an order or a length for a model whose own is fixed.
        """
        if order is not None and not self.network.order_agnostic:
            raise ValueError("order: expected None, for the model has a fixed order, got one")
        return Autoregressive(self, context, order if length is None else self._of_length(length))

    def _of_length(self, length: int) -> Order:
        """Return the order of sequences of so many positions."""
        fixed = ""
        if not self.network.any_length:
            fixed = f"weights of {type(self.network).__name__} belong to positions"
        elif self.head.by_place:
            fixed = f"{type(self.head).__name__} has a distribution for each place"
        elif len(self.order.shape) != 1 or not self.order.is_natural:
            fixed = f"the positions of {self.order} are no plain sequence"
        if fixed:
            raise ValueError(f"length: expected None, for {fixed}, got {length}")
        if length < 1:
            raise ValueError(f"length: expected 1 or more, got {length}")
        return Order((length,))

    def training_distribution(self, context: Tensor | None = None) -> Any:
        """Return the distribution whose -log p one training step minimises; order-agnostic models draw an order."""
        return self(context)

    def log_prob(self, value: Tensor, context: Tensor | None = None) -> Tensor:
        """Return log p(x | c) in nats: short for `model(context).log_prob(value)`."""
        return self(context).log_prob(value)

    def sample(
        self,
        sample_shape: Any = (),
        context: Tensor | None = None,
        *,
        seed: int | None = None,
        engine: Engine = "auto",
        precision: Precision = "float32",
    ) -> Tensor:
        """Draw samples: short for `model(context).sample(sample_shape)`."""
        return self(context).sample(sample_shape, seed=seed, engine=engine, precision=precision)

    def as_rows(self, x: Any, name: str = "x") -> Tensor:
        """Return rows as a tensor (N, *event_shape), a data frame or `Table` encoded by the schema of the model.

        Args:
            x: (N, *event_shape) array or tensor; a data frame or `Table` for a model that was fitted to a table.
            name: what errors call it.

        Raises:
            ValueError: another shape, a data frame for a model of arrays, or one that the schema refuses.
        """
        if not isinstance(x, Tensor | np.ndarray | list):
            if self.schema is None:
                raise ValueError(
                    f"{name}: expected an array, for the model has no table schema, got {type(x).__name__}"
                )
            x = self.schema.encode(x)
        rows = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
        if tuple(rows.shape[1:]) != self.event_shape or rows.ndim != 1 + len(self.event_shape):
            wanted = ", ".join(map(str, self.event_shape))
            raise ValueError(f"{name}: expected shape (N, {wanted}), got {tuple(rows.shape)}")
        return rows

    def named(self, place: tuple[int, ...]) -> tuple[int | str, ...]:
        """Return an index (row, ..., d) into rows, of a table with the name of the column in place of d."""
        return place if self.schema is None else (*place[:-1], self.schema.names[place[-1]])

    @torch.no_grad()
    def score_samples(self, X: Any, context: Any = None, *, batch_size: int = 1024) -> np.ndarray:
        """Return log p of each row in nats, (N,) float64: higher is more normal, as in scikit-learn.

            log p(x_n | c_n)

        Args:
            X: (N, *event_shape) array or tensor; a data frame or `Table` for a model that was fitted to a table.
            context: (N, *context event), what each row is conditioned on.
            batch_size: rows at a time.

        Raises:
            ValueError: rows that do not fit the model, or a data frame for a model of arrays.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        rows = self.as_rows(X, "X")
        contexts = None if context is None else torch.as_tensor(np.asarray(context))
        if contexts is not None and len(contexts) != len(rows):
            raise ValueError(f"context: expected one for each of {len(rows)} rows, got {len(contexts)}")
        scores = np.zeros(len(rows))
        with evaluating(self):
            for first in range(0, len(rows), batch_size):
                own = slice(first, first + batch_size)
                joint = self(None if contexts is None else contexts[own])
                scores[own] = joint.log_prob(rows[own]).cpu().double().numpy()
        return scores

    def start(self, batch_size: int) -> Tensor:
        """Return the start symbol (B, 1, F), what the network reads before x_1: zeros."""
        return torch.zeros(batch_size, 1, self.head.num_features, device=self.device, dtype=self.dtype)

    def shifted(self, x: Tensor, order: Order) -> Tensor:
        """Return the network's input for values in positions (B, T, ...): (start, x_1, ..., x_T-1) encoded."""
        features = self.cast(self.head.encode(x[:, :-1], order.permutation[:-1]))
        return torch.cat([self.start(x.shape[0]), features], dim=1)

    @torch.no_grad()
    def initialise_output(self, data: Tensor) -> None:
        """Set the output biases to the marginals of the data (N, *event_shape): training starts factorised."""
        bias = getattr(self.network, "output_bias", None)
        if bias is None:
            return
        # Biases belong to positions, in order-agnostic models to variables.
        order = Order(self.order.shape) if self.network.order_agnostic else self.order
        x, variables = order.to_positions(data), order.permutation
        if bias.shape != (self.order.length, self.head.num_params):  # one bias for all positions
            x, variables = x.flatten(0, 1)[:, None], variables[:1]
        bias.copy_(self.head.marginal_params(x, variables).reshape(bias.shape))
