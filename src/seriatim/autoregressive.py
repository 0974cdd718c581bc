"""`Autoregressive`, the joint distribution, and `rollout`, the only sequential loop.

log p(x | c) = sum_t log p(x_t | x_<t, c)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from seriatim import engine as native_engine
from seriatim.causal import State, select, tree_map
from seriatim.controls import EXACT, Controls
from seriatim.distributions import broadcast
from seriatim.engine.program import walk
from seriatim.noise import by_position, random_seed
from seriatim.order import Order
from seriatim.wide import placed, wide

if TYPE_CHECKING:
    from seriatim.engine import Engine, Precision
    from seriatim.model import AutoregressiveModel


class Scanned(NamedTuple):
    """The context of an order-agnostic network: which variable stands at each position, and the context proper."""

    variables: Tensor
    context: Any


class Step(NamedTuple):
    """One turn of `rollout`: the position, its conditional (batch shape (B, 1)) and the value chosen (B, 1, ...)."""

    position: int
    conditional: Any
    value: Tensor


Choose = Callable[[int, Any], "Tensor | tuple[Tensor, Tensor]"]


class Autoregressive(td.Distribution):
    """The joint distribution of a model given a context.

        log p(x | c) = sum_t log p(x_t | x_<t, c)

    The batch shape is that of the context, the event shape that of the data.

    Args:
        model: the model.
        context: (*batch_shape, *context event) or None.
        order: the order of the variables, for order-agnostic models; the model's own if None.

    Raises:
        ValueError: a context where the model takes none or the reverse, or one that does not fit.

    Example:
        >>> from seriatim.models import MADE
        >>> p = MADE((4,), hidden_features=(8,))()
        >>> x = p.sample((3,), seed=0)
        >>> p.log_prob(x).shape, p.log_prob_terms(x).shape
        (torch.Size([3]), torch.Size([3, 4]))
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(
        self,
        model: AutoregressiveModel,
        context: Tensor | None = None,
        order: Order | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.model, self.context = model, context
        self.order = model.order if order is None else order
        batch_shape = torch.Size()
        if model.encoder is None:
            if context is not None:
                raise ValueError("context: expected None, for the model has no encoder, got a context")
        else:
            if context is None:
                raise ValueError(f"context: expected one for {model.encoder}, got None")
            model.encoder.check(context)
            batch_shape = context.shape[: context.ndim - model.encoder.event_dim]
        self._context_shape = self._rows_shape = batch_shape
        event_shape = torch.Size((*self.order.shape, *model.head.value_shape))
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        head = self.model.head
        return constraints.independent(head.support, len(self.event_shape) - head.support.event_dim)

    @property
    def num_uniforms(self) -> int:
        """How many uniforms stand behind one sample: T times those of a position."""
        return self.order.length * self.model.head.num_uniforms

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        new = self._get_checked_instance(Autoregressive, _instance)
        new.model, new.order, new.context = self.model, self.order, self.context
        new._context_shape, new._rows_shape = self._context_shape, torch.Size(batch_shape)
        if self._rows_shape != self.batch_shape:
            raise ValueError("batch_shape: a flattened distribution cannot be expanded")
        super(Autoregressive, new).__init__(new._rows_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def flattened(self, batch_size: int) -> Autoregressive:
        """Return the distribution with batch shape (B,): its batch axes flattened, or B copies if it has none."""
        is_flat = self._rows_shape != self.batch_shape
        new = self if is_flat else self.expand(self.batch_shape or (batch_size,))
        if math.prod(new.batch_shape) != batch_size:
            raise ValueError(f"batch_size: expected {math.prod(new.batch_shape)}, got {batch_size}")
        new._batch_shape = torch.Size((batch_size,))
        return new

    def rows(self, index: Tensor) -> Autoregressive:
        """Return the distribution of some rows (B,) of the flattened batch."""
        if self.context is None:
            return Autoregressive(self.model, None, self.order, self._validate_args).expand((len(index),))
        event = self.context.shape[len(self._context_shape) :]
        contexts = self.context.expand((*self._rows_shape, *event)).reshape(-1, *event)
        return Autoregressive(self.model, contexts[index], self.order, self._validate_args)

    def initial_state(self, lead: torch.Size | None = None) -> State:
        """Return the network's state before the first position, one row for each element of the batch shape."""
        lead = self._rows_shape if lead is None else lead
        return self.model.network.initial_state(math.prod(lead), self.encoded(lead), self.order.length)

    def encoded(self, lead: torch.Size | None = None) -> Any:
        """Return what the network's initial state takes as its context, one row for each element of the batch."""
        lead = self._rows_shape if lead is None else lead
        model, own, encoded = self.model, self._context_shape, None
        if model.encoder is not None and self.context is not None:
            contexts = self.context.reshape(math.prod(own), *self.context.shape[len(own) :])
            encoded = tree_map(model.cast, model.encoder(model.cast(contexts)))
            if model.encoder.is_map:
                encoded = self.order.to_pixels(encoded)
            if own != lead:  # each context is encoded once, what came out is repeated
                encoded = tree_map(
                    lambda t: t.unflatten(0, own or (1,)).expand(*lead, *t.shape[1:]).reshape(-1, *t.shape[1:]),
                    encoded,
                )
        if model.network.order_agnostic:
            encoded = Scanned(self.order.permutation.to(model.device).expand(math.prod(lead), -1), encoded)
        return encoded

    def _lead(self, value: Tensor) -> torch.Size:
        if value.shape[value.ndim - len(self.event_shape) :] != self.event_shape or value.ndim < len(self.event_shape):
            raise ValueError(
                f"value: expected shape (..., {', '.join(map(str, self.event_shape))}), got {tuple(value.shape)}"
            )
        own = value.shape[: value.ndim - len(self.event_shape)]
        try:
            return broadcast(own, self.batch_shape)
        except ValueError:
            raise ValueError(
                f"value: expected a batch shape that broadcasts with {tuple(self.batch_shape)}, got {tuple(own)}"
            ) from None

    def _validate_sample(self, value: Tensor) -> None:
        """Raise ValueError with the first place whose value is outside the support."""
        self._lead(value)
        support = self.model.head.support
        if not bool((ok := support.check(value)).all()):
            place = tuple(int(i) for i in (~ok).nonzero()[0])
            raise ValueError(f"value: expected {support}, got {value[place].tolist()} at {self.model.named(place)}")

    def _params(self, value: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Return the values in positions (*lead, T, ...), the parameters (*lead, T, P) and the lead shape."""
        if self._validate_args:
            self._validate_sample(value)
        lead = self._lead(value)
        rows = value.expand(*lead, *self.event_shape).reshape(-1, *self.event_shape)
        x = self.order.to_positions(rows.to(self.model.device))
        if len(x):
            y, _ = self.model.network(self.model.shifted(x, self.order), self.initial_state(lead))
            y = self.model.cast(y)  # mixed precision ends here: log p is a long sum
        else:  # no row, so no state to read a position from
            y = torch.zeros(*x.shape[:2], self.model.head.num_params, dtype=self.model.dtype, device=x.device)
        return x.unflatten(0, lead or (1,)), y.unflatten(0, lead or (1,)), lead

    def conditionals(self, value: Tensor) -> Any:
        """Return p(x_t | x_<t, c) for all t: one distribution of batch shape (*lead, T), positions in order."""
        _, params, lead = self._params(value)
        return self.model.head(params if lead else params[0], self.order.permutation)

    def log_prob_terms(self, value: Tensor) -> Tensor:
        """Return log p(x_t | x_<t, c) in nats, one term for each place of the data: (*lead, *order.shape)."""
        x, params, lead = self._params(value)
        terms = self.model.head(params, self.order.permutation).log_prob(x)
        data = self.order.to_data(terms.reshape(-1, self.order.length))
        return data.unflatten(0, lead) if lead else data[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x | c) in nats, shape: the batch shape of x broadcast with that of the context."""
        x, params, lead = self._params(value)
        total = self.model.head(params, self.order.permutation).log_prob(x).sum(-1)
        return total if lead else total[0]

    def sample(
        self,
        sample_shape: Any = (),
        *,
        seed: int | None = None,
        engine: Engine = "auto",
        precision: Precision = "float32",
    ) -> Tensor:
        """Draw samples (*sample_shape, *batch_shape, *event_shape), exactly from p.

        Row r of the flattened result depends on (seed, r) and its context only. Without a seed one is drawn from
        torch's generator. `engine` is "auto" (the native engine where the model's layers lower, else `rollout`),
        "native" or "reference" (`rollout`): the samples are the same. With `precision="bf16-weights"`, natively only,
        they are those of a model whose matrices are rounded to bfloat16, sooner.
        """
        lead = torch.Size(sample_shape) + self.batch_shape
        seed = random_seed() if seed is None else seed
        rows = torch.arange(math.prod(lead), device=self.model.device)
        return (
            self.expand((*lead,))
            .sample_rows(rows, seed, engine, precision)
            .unflatten(0, lead or (1,))
            .reshape(*lead, *self.event_shape)
        )

    @torch.no_grad()
    def sample_rows(self, rows: Tensor, seed: int, engine: Engine = "auto", precision: Precision = "float32") -> Tensor:
        """Draw the samples whose noise has the given row numbers: (B,) -> (B, *event_shape).

        The batch shape, flattened, has B rows or is ().
        """
        flat = self.flattened(rows.shape[0])
        with evaluating(self.model):
            native = native_engine.sample_rows(flat, rows, seed, engine=engine, precision=precision)
        if native is not None:
            return native
        noise = by_position(seed, rows, self.model.head.num_uniforms)
        return flat._collect(lambda position, conditional: conditional.from_uniforms(noise(position)))

    @torch.no_grad()
    def from_uniforms(self, u: Tensor, controls: Controls = EXACT) -> Tensor:
        """Turn uniforms (*batch_shape, num_uniforms) into samples (*batch_shape, *event_shape), under controls."""
        lead = broadcast(u.shape[:-1], self.batch_shape)
        grid = u.expand(*lead, -1).reshape(-1, self.order.length, self.model.head.num_uniforms)
        flat = self.expand(lead).flattened(math.prod(lead))
        x = flat._collect(lambda t, conditional: controls.apply(conditional).from_uniforms(grid[:, t, None]))
        return x.reshape(*lead, *self.event_shape)

    def _collect(self, choose: Choose) -> Tensor:
        batch = self.batch_shape[0]
        if batch == 0:
            return torch.zeros(0, *self.event_shape, dtype=self.model.head.value_dtype, device=self.model.device)
        with evaluating(self.model):
            values = torch.cat([step.value for step in rollout(self, choose)], dim=1)
        return placed(self.order.to_data(values), self.model.device)


def rollout(distribution: Autoregressive, choose: Choose, *, prefix: Tensor | None = None) -> Iterator[Step]:
    """The only sequential loop: state, conditional, choose a value, feed it back.

        y, state = network(encode(x_t-1), state);    x_t = choose(t, head(y))

    Sampling, completion, stepwise scoring, greedy search and decoding of a code stream differ only in `choose`. Beam
    search and resampling return (value, rows) from it: the state is then `select`ed by rows (B',) first, and `value`
    has B' rows.

    Args:
        distribution: of batch shape (B,).
        choose: maps (position, conditional of batch shape (B, 1)) to the value (B, 1, *value_shape).
        prefix: values of the first k positions (B, k, *value_shape), read as one chunk.

    Yields:
        A `Step` for each position from k on.

    Example:
        >>> from seriatim.models import MADE
        >>> p = MADE((4,), hidden_features=(8,))().expand((2,))
        >>> greedy = lambda position, conditional: (conditional.probs > 0.5).float()
        >>> [step.position for step in rollout(p, greedy)]
        [0, 1, 2, 3]
    """
    if len(distribution.batch_shape) != 1:
        raise ValueError(f"distribution: expected batch shape (B,), got {tuple(distribution.batch_shape)}")
    model, order = distribution.model, distribution.order
    place, head = wide(model.device), model.head
    if place != model.device:
        head = copy.deepcopy(head).to(place)
    x = model.start(distribution.batch_shape[0])
    position = 0
    if prefix is not None and prefix.shape[1]:
        position = prefix.shape[1]
        if position >= order.length:
            return
        x = torch.cat([x, model.cast(model.head.encode(prefix, order.places(0, position)))], dim=1)
    state = distribution.initial_state()
    while True:
        y, state = model.network(x, state)
        if bool(y[:, -1].isnan().any()):
            row = int(y[:, -1].isnan().any(-1).nonzero()[0])
            raise ValueError(f"parameters: expected numbers, got NaN at position {position} of row {row}")
        variables = order.places(position, position + 1)
        conditional = head(y[:, -1:].to(place), variables)
        value = choose(position, conditional)
        if isinstance(value, tuple):
            value, rows = value
            state = select(state, rows.to(model.device))
        value = value.to(place)
        yield Step(position, conditional, value)
        if position + 1 == order.length:
            return
        x = model.cast(head.encode(value, variables))
        position += 1


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put a model into eval mode and give it back as it was: the law of chunks holds without dropout.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Dropout(0.5)).train()
        >>> with evaluating(model):
        ...     model(torch.ones(3))
        tensor([1., 1., 1.])
        >>> model.training
        True
    """
    training = [module for module in walk(model) if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:  # each as it was: a part may have been frozen
            module.training = True
