"""Sequences that end: a head over "a value or the end", and networks for which nothing follows the end.

A row of T positions holds a sequence of at most T values and, after its end, the mark of the end to the last position:
-1 where values are whole numbers (bits too, so that they need a signed dtype), NaN where they are real numbers. A
vector is marked in all its numbers. The end is absorbing, so that such rows are an ordinary distribution:

    p(length < T) + p(no end among the T positions) = 1
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints
from torch.nn import functional as F

from seriatim import distributions as d
from seriatim import vocabulary
from seriatim.autoregressive import Autoregressive
from seriatim.causal import Causal, State
from seriatim.context import Encoder
from seriatim.controls import Controls
from seriatim.distributions import sample_from_torch
from seriatim.engine import loops, samplers
from seriatim.engine.operands import CannotLower
from seriatim.heads import Head
from seriatim.model import AutoregressiveModel
from seriatim.order import Order

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.samplers import Draw
    from seriatim.engine.tape import Tape


class Ending(Head):
    """A value of another head, or the end of the sequence.

        log p(x) = log sigmoid(s)                  if x is the end
        log p(x) = log sigmoid(-s) + log p(v)      if x is a value v

    The first parameter is s, the others are the inner head's. The last feature says whether the sequence has ended;
    the inner features are 0 then.

    Args:
        head: of the values; any but those whose places differ (`Columns`, `Symbols`).

    Raises:
        ValueError: a head whose places differ, or whose values include the mark of the end or exclude 0.

    Example:
        >>> from seriatim.heads import Categorical
        >>> head = Ending(Categorical(3))
        >>> head(torch.zeros(1, 2, 4)).log_prob(torch.tensor([[2, -1]])).exp()
        tensor([[0.1667, 0.5000]])
        >>> head.encode(torch.tensor([[2, -1]]))
        tensor([[[0., 0., 1., 0.],
                 [0., 0., 0., 1.]]])
    """

    def __init__(self, head: Head) -> None:
        super().__init__()
        if head.by_place:
            raise ValueError(f"head: expected one distribution for all places, got {head}")
        self.head, self.discrete, self.value_dtype = head, head.discrete, head.value_dtype
        self.value_shape = head.value_shape
        self.num_features, self.num_params = head.num_features + 1, head.num_params + 1
        self.num_uniforms = head.num_uniforms + 1
        self.mark: float = -1 if head.discrete else math.nan
        allowed = [bool(head.support.check(torch.full(head.value_shape, v)).all()) for v in (float(self.mark), 0.0)]
        if allowed != [False, True]:
            raise ValueError(f"head: expected values with 0 and without {self.mark}, the mark of the end, got {head}")

    def ended(self, values: Tensor) -> Tensor:
        """Return which values (..., *value_shape) are the end, (...) bool."""
        marks = values == self.mark if self.discrete else values.isnan()
        return marks.flatten(values.ndim - len(self.value_shape)).all(-1) if self.value_shape else marks

    def filled(self, values: Tensor) -> Tensor:
        """Return the values with 0 in place of the end: numbers that the inner head can read."""
        return values.masked_fill(self.spread(self.ended(values)), 0)

    def spread(self, ended: Tensor) -> Tensor:
        """Return flags (...) with axes of size 1 for the numbers of a value: (..., 1, ..., 1)."""
        return ended.reshape((*ended.shape, *[1] * len(self.value_shape)))

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        ended = self.ended(values)[..., None]
        features = self.head.encode(self.filled(values), variables)
        return torch.cat([features.masked_fill(ended, 0), ended.to(features.dtype)], dim=-1)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> ValueOrEnd:
        values = self.head(params[..., 1:], variables)
        if isinstance(values, vocabulary.Tokens):
            return TokenOrEnd(self, params, values)
        return ValueOrEnd(self, params[..., 0], values)

    @property
    def is_one_hot(self) -> bool:
        """Whether the features are one-hot vectors: of categories and the end."""
        return samplers.is_one_hot(self.head)

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape."""
        loops.ending(tape, self.head, self.mark, params, place)

    def from_tape(self, numbers: Tensor, variables: Tensor) -> Tensor:
        """Return the values (B, n, *value_shape) whose numbers (B, n, width) the sampler wrote."""
        return samplers.values(self.head, numbers, variables)

    @property
    def support(self) -> Any:
        return _ValuesOrEnd(self)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        ended = self.ended(values)
        stop = torch.logit((ended.sum(0) + 0.5) / (len(values) + 1.0))
        inner = torch.zeros(values.shape[1], self.head.num_params, device=values.device)
        for place in range(values.shape[1]):
            if bool((own := ~ended[:, place]).any()):
                inner[place] = self.head.marginal_params(values[own, place, None], variables)[0]
        return torch.cat([stop[:, None], inner], dim=-1)

    def extra_repr(self) -> str:
        return str(self.head)


class ValueOrEnd(td.Distribution):
    """The end with probability sigmoid(s), or a value.

        the first uniform decides on the end, the others give the value

    Args:
        head: whose values these are.
        stop: s, of the batch shape.
        values: the distribution of the values.

    Example:
        >>> from seriatim.heads import Normal
        >>> p = Ending(Normal())(torch.zeros(2, 3))
        >>> p.from_uniforms(torch.tensor([[0.4, 0.5], [0.6, 0.5]]).double())
        tensor([nan, 0.])
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, head: Ending, stop: Tensor, values: Any) -> None:
        self.head, self.stop, self.values = head, stop, values
        self.num_uniforms = head.num_uniforms
        super().__init__(values.batch_shape, values.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.head.support

    def log_prob_parts(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Return log p(v), 0 for the end, and the log probability of having ended or not, in nats."""
        ended = self.head.ended(value)
        log_value = self.values.log_prob(self.head.filled(value))
        return torch.where(ended, 0.0, log_value), F.logsigmoid(torch.where(ended, self.stop, -self.stop))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p in nats, in the dtype of the parameters."""
        log_value, log_stop = self.log_prob_parts(value)
        return log_value + log_stop

    def from_uniforms(self, u: Tensor) -> Tensor:
        """Turn uniforms (*batch_shape, num_uniforms) into values."""
        ended = u[..., 0] < torch.sigmoid(self.stop.double())
        return self.values.from_uniforms(u[..., 1:]).masked_fill(self.head.spread(ended), self.head.mark)

    def controlled(self, controls: Controls) -> ValueOrEnd:
        """Return what is sampled under controls: the end counts as one more value, after all others.

        Values that say themselves how they are controlled (several at a position) stand apart from it: whether the
        sequence ends is then a choice of two, under the same controls.

        Raises:
            ValueError: values that are not finitely many.
        """
        stop = self.stop.double()[..., None]
        if hasattr(self.values, "controlled"):
            going, ending = controls.truncated(torch.cat([F.logsigmoid(-stop), F.logsigmoid(stop)], dim=-1)).unbind(-1)
            return ValueOrEnd(self.head, ending - going, controls.apply(self.values))
        log_p = controls.log_masses(self.values)
        log_q = controls.truncated(torch.cat([F.logsigmoid(-stop) + log_p, F.logsigmoid(stop)], dim=-1))
        alive = log_q[..., :-1].logsumexp(-1)
        # Where the end alone is left the values never come, but a distribution they must be.
        log_q = torch.where(alive[..., None].isinf(), 0.0, log_q)
        values = d.Categorical(logits=log_q[..., :-1], validate_args=False)
        return ValueOrEnd(self.head, log_q[..., -1] - alive, values)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return sample_from_torch(self, sample_shape)


class TokenOrEnd(ValueOrEnd):
    """The end or a value of a large vocabulary: its log p and gradient are computed together (`token_terms`).

    Args:
        head: whose values these are.
        params: s and the numbers of the vocabulary, (*batch_shape, 1 + K).
        values: the distribution of the values.

    Example:
        >>> from seriatim.heads import Tokens
        >>> Ending(Tokens(8000))(torch.zeros(1, 8001)).log_prob(torch.tensor([-1])).exp()
        tensor([0.5000])
    """

    def __init__(self, head: Ending, params: Tensor, values: vocabulary.Tokens) -> None:
        super().__init__(head, params[..., 0], values)
        self.params = params

    def terms(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return log p of the values, the mean of log p over all K values, both 0 for the end, and log p of the end."""
        return vocabulary.token_terms(self.params, self.head.filled(value), self.head.ended(value), mean=True)

    def log_prob_parts(self, value: Tensor) -> tuple[Tensor, Tensor]:
        ended = self.head.ended(value)
        log_value, _, log_stop = vocabulary.token_terms(self.params, self.head.filled(value), ended)
        return log_value, log_stop


class _ValuesOrEnd(constraints.Constraint):
    def __init__(self, head: Ending) -> None:
        self.head, self.inner = head, head.head.support
        self.is_discrete, self.event_dim = self.inner.is_discrete, self.inner.event_dim
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.head.ended(value) | self.inner.check(self.head.filled(value))

    def __repr__(self) -> str:
        return f"{self.inner}, or {self.head.mark} for the end"


class UntilEnd(Causal):
    """A network for an `Ending` head, for which nothing follows the end.

        s_t = infinity if x_t-1 is the end

    The end is then certain, its log p is 0 and it sends no gradient; a value after an end has probability 0. The last
    feature of the input tells the end. No memory is needed: what follows an end is an end, and so on.

    Args:
        network: maps features (B, n, F) to parameters (B, n, P), the first of them s.

    Raises:
        TypeError: the network is no `Causal`.

    Example:
        >>> from seriatim.layers import CausalConv1d
        >>> net = UntilEnd(CausalConv1d(2, 3, kernel_size=2))
        >>> net(torch.tensor([[[0.0, 0.0], [0.5, 0.0], [0.0, 1.0]]]))[0][0, :, 0].isinf()
        tensor([False, False,  True])
    """

    def __init__(self, network: Causal) -> None:
        super().__init__()
        if not isinstance(network, Causal):
            raise TypeError(f"network: expected a Causal module, got {type(network).__name__}")
        self.network = network
        self.any_length = network.any_length

    @property
    def output_bias(self) -> Tensor | None:
        """The output biases of the network, where it has some."""
        return getattr(self.network, "output_bias", None)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return self.network.initial_state(batch_size, context, max_length)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, state = self.network(x, state)
        return _CertainEnd.apply(y, x[..., -1] > 0.5), state

    def lower(self, tape: Tape, x: Operand) -> Operand:
        if x != tape.input:
            raise CannotLower("ends told by other features than those of the input have no tape form")
        return tape.until_end(tape.lower(self.network, x))

    def dependencies(self, length: int) -> Tensor:
        return self.network.dependencies(length) | torch.eye(length, dtype=torch.bool)


class _CertainEnd(torch.autograd.Function):
    """s = infinity where a sequence has ended; written out, for slices of large parameters have costly gradients."""

    @staticmethod
    def forward(ctx: Any, params: Tensor, ended: Tensor) -> Tensor:
        ctx.save_for_backward(ended)
        params = params.clone()
        params[..., 0].masked_fill_(ended, torch.inf)
        return params

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (ended,) = ctx.saved_tensors
        if bool((ended & (grad[..., 0] != 0)).any()):  # only of values after an end, which have probability 0
            grad = grad.clone()
            grad[..., 0] = grad[..., 0].masked_fill(ended, 0)
        return grad, None


class SequenceModel(AutoregressiveModel):
    """A model of sequences: with an `Ending` head they end by themselves, and any network learns when.

    Args:
        network: maps features (B, n, F) to parameters (B, n, P); wrapped in `UntilEnd` for an `Ending` head.
        head: the values of one position.
        order: the places of the data as positions.
        encoder: turns a context into what the network's initial state takes; None for unconditional models.

    Raises:
        ValueError: an `Ending` head and an order that is no plain sequence.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.layers import CausalConv1d
        >>> model = SequenceModel(CausalConv1d(4, 4, kernel_size=2), Ending(Categorical(3)), Order((5,)))
        >>> model.lengths(torch.tensor([[2, 0, -1, -1, -1], [0, 1, 2, 1, 0]]))
        tensor([2, 5])
    """

    def __init__(self, network: Causal, head: Head, order: Order, encoder: Encoder | None = None) -> None:
        if isinstance(head, Ending) and (len(order.shape) != 1 or not order.is_natural):
            raise ValueError(f"order: expected positions one after another for a head with an end, got {order}")
        super().__init__(UntilEnd(network) if isinstance(head, Ending) else network, head, order, encoder)

    def lengths(self, value: Tensor) -> Tensor:
        """Return how many values stand before the end in rows (..., n, *value_shape), n for those without one.

        Raises:
            ValueError: the head has no end.
        """
        return (self._ending.ended(value).cumsum(-1) == 0).sum(-1)

    def log_prob_parts(self, value: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the terms of the values and those of ending or not, in nats: two tensors (*lead, n).

            log_prob_terms = terms of the values + terms of the end

        Args:
            value: (..., n, *value_shape), of any number of positions where the network runs over any length.
            context: what they are conditioned on.

        Raises:
            ValueError: the head has no end, or rows or a context that do not fit.
        """
        n = value.shape[self._ending.ended(value).ndim - 1]
        joint: Autoregressive = self(context, length=None if n == self.order.length else n)
        values, stops = joint.conditionals(value).log_prob_parts(value.to(self.device))
        return values, stops

    @property
    def _ending(self) -> Ending:
        if not isinstance(self.head, Ending):
            raise ValueError(f"head: expected an Ending, got {self.head}")
        return self.head

    @torch.no_grad()
    def initialise_output(self, data: Tensor) -> None:
        """Set the output biases to the marginals of the data (N, *event_shape), what follows an end left out."""
        bias = getattr(self.network, "output_bias", None)
        if isinstance(self.head, Ending) and bias is not None:
            certain = self.head.ended(data).cumsum(1).roll(1, dims=1) > 0
            certain[:, 0] = False
            bias.copy_(self.head.marginal_params(data[~certain][:, None])[0])
        else:
            super().initialise_output(data)
