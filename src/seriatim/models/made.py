"""MADE: one masked autoencoder for all conditionals, with the natural order or any order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.autoregressive import Autoregressive, Scanned
from seriatim.causal import Causal, State, concatenate, select
from seriatim.context import Encoder
from seriatim.engine.operands import Act
from seriatim.ensemble import OrderEnsemble
from seriatim.heads import Bernoulli, Head
from seriatim.layers.linear import MaskedLinear, degree_counts
from seriatim.model import AutoregressiveModel
from seriatim.order import Order, RandomOrder

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class MaskedAutoencoder(Causal):
    """A deep network of masked linear maps whose hidden units are sorted by degree.

        h_0 = A x,    h_l = B_l relu(h_(l-1))  or  h_(l-1) + C_l relu(B_l relu(h_(l-1))),    y = V relu(h_L) + D x

    Every map is masked, so output t reads inputs up to t. Shapes: x (B, n, F) -> y (B, n, P).

    Args:
        num_positions: T.
        in_features: F.
        hidden_features: the sizes of the hidden layers; equal ones if residual.
        out_features: P.
        residual: skip connections around pairs of hidden layers, the first layer apart.
        dropout: the rate on hidden units, in training.
        context_features: the size of a context vector, read by the first layer and the output.

    Example:
        >>> MaskedAutoencoder(4, 1, (8, 8), 2)(torch.zeros(3, 4, 1))[0].shape
        torch.Size([3, 4, 2])
    """

    def __init__(
        self,
        num_positions: int,
        in_features: int,
        hidden_features: Sequence[int],
        out_features: int,
        *,
        residual: bool = False,
        dropout: float = 0.0,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        if not hidden_features or min(hidden_features) < 1:
            raise ValueError(f"hidden_features: expected one positive size or more, got {tuple(hidden_features)}")
        if residual and (len(set(hidden_features)) > 1 or len(hidden_features) % 2 == 0):
            raise ValueError(
                "hidden_features: expected an odd number of equal sizes (a first layer and pairs) where residual, "
                f"got {tuple(hidden_features)}"
            )
        self.out_features, self.residual = out_features, residual
        # Position 0 reads the start symbol only: it owns hidden units where a context gives them something to do.
        first = 0 if context_features else 1
        counts = [degree_counts(size, num_positions, first) for size in hidden_features]
        features, params = [in_features] * num_positions, [out_features] * num_positions
        self.input = MaskedLinear(features, counts[0], context_features)
        self.hidden = nn.ModuleList(MaskedLinear(a, b) for a, b in pairwise(counts))
        self.output = MaskedLinear(counts[-1], params, context_features)
        self.direct = MaskedLinear(features, params)
        self.dropout = nn.Dropout(dropout)
        self.output.reset_parameters(gain=0.01)  # training starts near the factorised model
        self.direct.reset_parameters(gain=0.01)

    @property
    def output_bias(self) -> Tensor:
        """The biases, (T, P)."""
        return self.output.bias.data.unflatten(0, (-1, self.out_features))

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return {
            "input": self.input.initial_state(batch_size, context),
            "hidden": [layer.initial_state(batch_size) for layer in self._hidden()],
            "output": self.output.initial_state(batch_size, context),
            "direct": self.direct.initial_state(batch_size),
        }

    def _hidden(self) -> list[MaskedLinear]:
        return [layer for layer in self.hidden if isinstance(layer, MaskedLinear)]

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return self.advance_in_order(x, state, None, None)

    def advance_in_order(
        self, x: Tensor, state: State, read: Tensor | None, predicted: Tensor | None
    ) -> tuple[Tensor, State]:
        """Advance with the variable read (T,) and the variable predicted (T,) at each position; None: the position."""
        n, flat = x.shape[1], x.flatten(1)
        h, after_input = self.input(flat, state["input"], n, in_variables=read)
        after_hidden, skip = [], h
        for index, (layer, before) in enumerate(zip(self._hidden(), state["hidden"], strict=True)):
            h, after = layer(self.dropout(torch.relu(h)), before, n)
            if self.residual and index % 2:
                h = skip = skip + h
            after_hidden.append(after)
        y, after_output = self.output(self.dropout(torch.relu(h)), state["output"], n, out_variables=predicted)
        skipped, after_direct = self.direct(flat, state["direct"], n, in_variables=read, out_variables=predicted)
        state = {"input": after_input, "hidden": after_hidden, "output": after_output, "direct": after_direct}
        return (y + skipped).unflatten(1, (n, -1)), state

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return self.lower_in_order(tape, x, None, None)

    def lower_in_order(self, tape: Tape, x: Operand, read: Tensor | None, predicted: Tensor | None) -> Operand:
        """Append the network to a tape; variables as for `advance_in_order`."""
        x = tape.dense(x)
        with tape.at("input"):
            h = skip = self.input.lower(tape, x, in_variables=read)
        for index, layer in enumerate(self.hidden):
            with tape.at("hidden"), tape.at(index):
                h = tape.lower(layer, tape.activation(h, Act.RELU))
            if self.residual and index % 2:
                h = skip = tape.add(skip, h)
        with tape.at("output"):
            y = self.output.lower(tape, tape.activation(h, Act.RELU), out_variables=predicted)
        with tape.at("direct"):
            return tape.add(y, self.direct.lower(tape, x, in_variables=read, out_variables=predicted))


class MADE(AutoregressiveModel):
    """The masked autoencoder for distribution estimation, in one fixed order; with a continuous head, MADE-MoG.

        p(x_t | x_<t) = head(y_t),    y = masked network(start, x_1, ..., x_T-1)

    Args:
        event_shape: the shape of the places of the data.
        head: the values of one place.
        hidden_features: the sizes of the hidden layers.
        residual: skip connections around pairs of hidden layers (an odd number of equal sizes).
        dropout: the rate on hidden units, in training.
        encoder: the context, read by the first layer and the output.
        order: the order of the places; row-major if None.

    Reference: MADE: Masked Autoencoder for Distribution Estimation (Germain, Gregor, Murray, Larochelle, 2015).

    Example:
        >>> MADE((3,), hidden_features=(4,))().log_prob(torch.ones(2, 3)).shape
        torch.Size([2])
    """

    network_class: type[MaskedAutoencoder] = MaskedAutoencoder

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        hidden_features: Sequence[int] = (500,),
        residual: bool = False,
        dropout: float = 0.0,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        network = self.network_class(
            order.length,
            head.num_features,
            hidden_features,
            head.num_params,
            residual=residual,
            dropout=dropout,
            context_features=encoder.num_features if encoder else 0,
        )
        super().__init__(network, head, order, encoder)


class OrderAgnosticAutoencoder(MaskedAutoencoder):
    """A masked autoencoder whose first and last weights belong to variables; the order rides in the initial state.

    Beside the value of each variable the network reads whether it has been seen, for 0 is a value too. The context is
    a `Scanned`. Rows of a batch may have different orders; those of one order are run together.

    Example:
        >>> net = OrderAgnosticAutoencoder(3, 1, (8,), 1)
        >>> state = net.initial_state(2, Scanned(torch.tensor([[2, 0, 1], [0, 1, 2]]), None))
        >>> net(torch.zeros(2, 3, 1), state)[0].shape
        torch.Size([2, 3, 1])
    """

    order_agnostic = True

    def __init__(self, num_positions: int, in_features: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(num_positions, in_features + 1, *args, **kwargs)

    def initial_state(self, batch_size: int, context: Scanned | None = None, max_length: int | None = None) -> State:
        if context is None:
            raise ValueError("context: expected a Scanned with the order of the variables, got None")
        return {"variables": context.variables, **super().initial_state(batch_size, context.context)}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        variables = state["variables"]
        if not bool((variables == variables[:1]).all()):
            return self._advance_groups(x, state)
        positions = state["direct"]["position"][:, None] + torch.arange(x.shape[1], device=x.device)
        seen = (positions > 0).to(x.dtype)[..., None]
        predicted = variables[0]
        # Inputs are shifted by one: position t reads the variable before it; position 0 reads the start symbol, zeros.
        read = predicted.roll(1)
        y, after = self.advance_in_order(torch.cat([x, seen], dim=-1), state, read, predicted)
        return y, {"variables": variables, **after}

    def lower(self, tape: Tape, x: Operand) -> Operand:
        seen = tape.table((torch.arange(tape.length) > 0).float()[:, None])
        predicted = tape.variables
        return self.lower_in_order(tape, tape.join([x, seen]), predicted.roll(1), predicted)

    def _advance_groups(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        _, group = torch.unique(state["variables"], dim=0, return_inverse=True)
        rows = [(group == g).nonzero().squeeze(1) for g in range(int(group.max()) + 1)]
        results = [self.advance(x[own], select(state, own)) for own in rows]
        back = torch.cat(rows).argsort()
        return select(concatenate(results), back)


class OrderAgnosticMADE(MADE):
    """MADE trained on all orders at once: one network, a distribution for every order, and their ensemble.

        p(x) = 1/K sum_k prod_t p(x_(o_k(t)) | x_(o_k(<t)))

    `model(order=o)` is the distribution in one order, `ensemble` the mixture of several. Arguments as for `MADE`; the
    order given to the constructor is that of `model()`.

    References: MADE: Masked Autoencoder for Distribution Estimation (Germain, Gregor, Murray, Larochelle, 2015); A Deep
    and Tractable Density Estimator (Uria, Murray, Larochelle, 2014).

    Example:
        >>> model = OrderAgnosticMADE((3,), hidden_features=(4,))
        >>> model(order=Order((3,), [2, 0, 1])).log_prob(torch.ones(2, 3)).shape
        torch.Size([2])
    """

    network_class = OrderAgnosticAutoencoder

    def training_distribution(self, context: Tensor | None = None) -> Autoregressive:
        """Return the distribution in an order drawn from torch's generator."""
        return self(context, order=Order(self.order.shape, torch.randperm(self.order.length)))

    def ensemble(self, num_orders: int, context: Tensor | None = None, *, seed: int = 0) -> OrderEnsemble:
        """Return the mixture of the joint distributions under orders seed, seed + 1, ..."""
        orders = [RandomOrder(self.order.shape, seed + k) for k in range(num_orders)]
        return OrderEnsemble([self(context, order=order) for order in orders])
