"""`Nested`: a head that is itself an autoregressive model of the values inside one position."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import constraints

from seriatim.autoregressive import Autoregressive
from seriatim.context import Vector
from seriatim.heads import Head
from seriatim.model import AutoregressiveModel


class Nested(Head):
    """The values inside a position given by an inner model, conditioned on the network's output.

        p(x_t | x_<t) = inner(x_t | a_t) = prod_i p(x_ti | x_t1, ..., x_t(i-1), a_t)

    A chord of 88 notes a time step, the three channels of a pixel. `encode` lays the inner features side by side.

    Args:
        model: the inner model; its encoder is a `Vector(P)`, and P becomes the number of parameters.

    Reference: Modeling Temporal Dependencies in High-Dimensional Sequences (Boulanger-Lewandowski, Bengio,
    Vincent, 2012).

    Example:
        >>> import torch
        >>> from seriatim.models import NADE
        >>> chord = Nested(NADE((3,), hidden_features=4, encoder=Vector(8)))
        >>> chord(torch.zeros(2, 5, 8)).log_prob(torch.ones(2, 5, 3)).shape
        torch.Size([2, 5])
    """

    def __init__(self, model: AutoregressiveModel) -> None:
        super().__init__()
        if not isinstance(model.encoder, Vector):
            raise ValueError(f"model: expected an inner model with a Vector encoder, got {model.encoder}")
        self.model = model
        self.value_shape = model.event_shape
        self.num_params = model.encoder.num_features
        self.num_features = model.order.length * model.head.num_features
        self.num_uniforms = model.order.length * model.head.num_uniforms
        self.discrete = model.head.discrete
        self.value_dtype = model.head.value_dtype

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        inner = self.model.order.to_positions(values.flatten(0, 1))
        return self.model.head.encode(inner, self.model.order.permutation).flatten(1).unflatten(0, values.shape[:2])

    def forward(self, params: Tensor, variables: Tensor | None = None) -> Autoregressive:
        return Autoregressive(self.model, params, validate_args=False)

    @property
    def support(self) -> Any:
        inner = self.model.head.support
        return constraints.independent(inner, len(self.value_shape) - inner.event_dim)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        # The inner model has biases of its own: set those, and let the context start silent.
        self.model.initialise_output(values.flatten(0, 1))
        return super().marginal_params(values)

    def extra_repr(self) -> str:
        return type(self.model).__name__
