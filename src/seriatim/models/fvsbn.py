"""FVSBN: every conditional a logistic regression on all values before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from seriatim.causal import Causal, State
from seriatim.context import Encoder
from seriatim.heads import Bernoulli, Head
from seriatim.layers.linear import MaskedLinear
from seriatim.model import AutoregressiveModel
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class TriangularLinear(Causal):
    """A full triangular linear map: position t reads every feature up to t.

        y_t = b_t + sum_(s<=t) W_ts x_s

    Shapes: x (B, n, F) -> y (B, n, P).

    Example:
        >>> import torch
        >>> TriangularLinear(4, 1, 2)(torch.zeros(3, 4, 1))[0].shape
        torch.Size([3, 4, 2])
    """

    def __init__(self, num_positions: int, in_features: int, out_features: int, context_features: int = 0) -> None:
        super().__init__()
        self.out_features = out_features
        counts = [in_features] * num_positions, [out_features] * num_positions
        self.linear = MaskedLinear(*counts, context_features)
        self.linear.reset_parameters(gain=0.01)  # training starts near the factorised model

    @property
    def output_bias(self) -> Tensor:
        """The biases, (T, P)."""
        return self.linear.bias.data.unflatten(0, (-1, self.out_features))

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return self.linear.initial_state(batch_size, context)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.linear(x.flatten(1), state, x.shape[1])
        return y.unflatten(1, (x.shape[1], -1)), state

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return tape.lower(self.linear, x)


class FVSBN(AutoregressiveModel):
    """The fully visible sigmoid belief network.

        p(x_t = 1 | x_<t) = sigmoid(b_t + sum_(s<t) W_ts x_s);    the first factor is a table, b_1

    With another head the same linear map gives its parameters: softmax regression for `Categorical`, a linear
    Gaussian model for `Normal`. One position with a context, `FVSBN((1,), encoder=Vector(F))`, is logistic regression.

    Args:
        event_shape: the shape of the places of the data.
        head: the values of one place.
        encoder: the context, which enters every conditional linearly.
        order: the order of the places; row-major if None.

    Reference: Does the wake-sleep algorithm produce good density estimators? (Frey, Hinton, Dayan, 1996).

    Example:
        >>> import torch
        >>> model = FVSBN((3,))
        >>> model().log_prob(torch.ones(2, 3)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        head: Head | None = None,
        *,
        encoder: Encoder | None = None,
        order: Order | None = None,
    ) -> None:
        head, order = head or Bernoulli(), order or Order(event_shape)
        context_features = encoder.num_features if encoder else 0
        network = TriangularLinear(order.length, head.num_features, head.num_params, context_features)
        super().__init__(network, head, order, encoder)
