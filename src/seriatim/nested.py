"""`Nested`: a head that is itself an autoregressive model of the values inside one position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from seriatim.autoregressive import Autoregressive
from seriatim.context import Vector
from seriatim.controls import Controls
from seriatim.engine import loops, samplers
from seriatim.heads import Head
from seriatim.model import AutoregressiveModel

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.samplers import Draw
    from seriatim.engine.tape import Tape


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

    def forward(self, params: Tensor, variables: Tensor | None = None) -> NestedValues:
        return NestedValues(self.model, params, validate_args=False)

    @property
    def tape_width(self) -> int:
        """How many numbers its sampler on a tape writes."""
        return self.model.order.length * samplers.width(self.model.head)

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape: the inner model, position by position."""
        loops.nested(tape, self.model, params, place, lambda context: self(context).initial_state())

    def from_tape(self, numbers: Tensor, variables: Tensor) -> Tensor:
        """Return the values (B, n, *value_shape) whose numbers (B, n, width) the sampler wrote."""
        order = self.model.order
        inner = numbers.flatten(0, 1).unflatten(1, (order.length, -1))
        values = samplers.values(self.model.head, inner, order.places(0, order.length))
        return order.to_data(values).unflatten(0, numbers.shape[:2])

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


class NestedValues(Autoregressive):
    """The values inside a position: an inner model's distribution.

    Example:
        >>> import torch
        >>> from seriatim.models import NADE
        >>> chord = Nested(NADE((3,), hidden_features=4, encoder=Vector(8)))(torch.zeros(2, 1, 8))
        >>> isinstance(chord, NestedValues), chord.num_uniforms
        (True, 3)
    """

    def controlled(self, controls: Controls) -> ControlledValues:
        """Return what is sampled under controls of each value inside.

        Raises:
            ValueError: values that are not finitely many.
        """
        return ControlledValues(self, controls)


class ControlledValues(td.Distribution):
    """The values inside a position under controls of each.

        q(x) = prod_i q(x_i | x_1, ..., x_i-1)

    Args:
        joint: the values without controls.
        controls: of their conditionals.

    Example:
        >>> import torch
        >>> from seriatim.models import NADE
        >>> chord = Nested(NADE((3,), hidden_features=4, encoder=Vector(8)))
        >>> q = Controls(top_k=1).apply(chord(torch.zeros(2, 1, 8)))
        >>> bool((q.log_prob(q.from_uniforms(torch.full((2, 1, 3), 0.5).double())) == 0).all())
        True
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, joint: Autoregressive, controls: Controls) -> None:
        self.joint, self.controls, self.num_uniforms = joint, controls, joint.num_uniforms
        inner, order = joint.model, joint.order
        zeros = torch.zeros(1, 1, inner.head.num_params, device=inner.device, dtype=inner.dtype)
        controls.apply(inner.head(zeros, order.places(0, 1)))  # refused here, before anything is drawn
        super().__init__(joint.batch_shape, joint.event_shape, validate_args=False)

    def from_uniforms(self, u: Tensor) -> Tensor:
        """Turn uniforms (*batch_shape, num_uniforms) into values."""
        return self.joint.from_uniforms(u, self.controls)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q in nats."""
        lead = value.shape[: value.ndim - len(self.event_shape)]
        x = self.joint.order.to_positions(value.reshape(-1, *self.event_shape)).unflatten(0, lead)
        return self.controls.apply(self.joint.conditionals(value)).log_prob(x).sum(-1)
