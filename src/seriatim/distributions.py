"""The distributions of one position: torch's own, with one transform each from uniforms to a value.

Every class is a `torch.distributions.Distribution` with two things more:

- `num_uniforms`: how many uniforms behind one value;
- `from_uniforms(u)`: the value, a function of u (*batch_shape, num_uniforms) in (0, 1), each coordinate by an inverse
  CDF. `rollout` and the native engine share it, so one seed gives one sample on every path.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints
from torch.nn import functional as F


@runtime_checkable
class FromUniforms(Protocol):
    """A distribution that turns uniforms into a value."""

    num_uniforms: int

    def from_uniforms(self, u: Tensor) -> Tensor: ...


def broadcast(*shapes: torch.Size) -> torch.Size:
    """Return the shape that the given ones broadcast to; torch's own function loads sympy, which takes seconds.

    Example:
        >>> broadcast(torch.Size((4, 1)), torch.Size((3,)))
        torch.Size([4, 3])
    """
    return torch.Size(np.broadcast_shapes(*shapes))


class Bernoulli(td.Bernoulli):
    """A binary value, x = 1 with probability sigmoid(logits).

        x = [u >= 1 - p]

    Example:
        >>> Bernoulli(logits=torch.zeros(2)).from_uniforms(torch.tensor([[0.3], [0.7]]).double())
        tensor([0., 1.])
    """

    num_uniforms = 1

    def log_prob(self, value: Tensor) -> Tensor:
        # In the dtype of the logits, whatever that of the value.
        return -F.softplus((1 - 2 * value.to(self.logits.dtype)) * self.logits)

    def from_uniforms(self, u: Tensor) -> Tensor:
        return (u[..., 0] >= torch.sigmoid(-self.logits.double())).to(self.logits.dtype)


class Categorical(td.Categorical):
    """A value in 0..K-1 with probabilities softmax(logits).

        x = min {k : p_0 + ... + p_k > u}

    Example:
        >>> Categorical(logits=torch.zeros(2, 4)).from_uniforms(torch.tensor([[0.3], [0.99]]).double())
        tensor([1, 3])
    """

    num_uniforms = 1

    def from_uniforms(self, u: Tensor) -> Tensor:
        return _categorical_from_uniform(self.logits, u[..., 0])

    def log_prob(self, value: Tensor) -> Tensor:
        # torch's own expands the logits to the value's shape; a gather is enough, and keeps -inf cells from NaN.
        value = value.long()
        shape = broadcast(value.shape, self.logits.shape[:-1])
        logits = self.logits.expand(*shape, self.logits.shape[-1])
        return logits.gather(-1, value.expand(shape)[..., None]).squeeze(-1)


def _categorical_from_uniform(logits: Tensor, u: Tensor) -> Tensor:
    cumulative = torch.softmax(logits.double(), dim=-1).cumsum(-1)
    # Rounding may leave the last sum below 1: scale u by it, so that no category of probability 0 is drawn.
    return (cumulative <= (u * cumulative[..., -1])[..., None]).sum(-1).clamp(max=logits.shape[-1] - 1)


class Normal(td.Normal):
    """A real value, N(loc, scale^2).

        x = loc + scale * Phi^-1(u)

    Example:
        >>> Normal(torch.zeros(1), torch.ones(1)).from_uniforms(torch.tensor([[0.5]]).double())
        tensor([0.])
    """

    num_uniforms = 1

    def from_uniforms(self, u: Tensor) -> Tensor:
        z = torch.special.ndtri(u[..., 0])
        return (self.loc.double() + self.scale.double() * z).to(self.loc.dtype)


class Logistic(td.Distribution):
    """A real value of the logistic distribution.

        F(x) = sigmoid((x - loc) / scale),    x = loc + scale * logit(u)

    Example:
        >>> d = Logistic(torch.tensor(1.0), torch.tensor(2.0))
        >>> d.log_prob(torch.tensor(1.0)).exp()
        tensor(0.1250)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = False
    num_uniforms = 1

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (self.scale * math.pi) ** 2 / 3

    def cdf(self, value: Tensor) -> Tensor:
        return torch.sigmoid((value - self.loc) / self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        return F.logsigmoid(z) + F.logsigmoid(-z) - self.scale.log()

    def from_uniforms(self, u: Tensor) -> Tensor:
        z = torch.logit(u[..., 0])
        return (self.loc.double() + self.scale.double() * z).to(self.loc.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return sample_from_torch(self, sample_shape)


class QuantizedLogistic(td.Distribution):
    """An integer with the mass that a logistic puts on its bin; with `levels`, the edge bins hold the tails.

        P(x) = F(x + 1/2) - F(x - 1/2),    P(0) = F(1/2),    P(levels - 1) = 1 - F(levels - 3/2)

    It sums to 1 over 0..levels-1, or over all integers if `levels` is None. `loc` and `scale` are in bins.

    Reference: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood (Salimans, Karpathy,
    Chen, Kingma, 2017).

    Example:
        >>> d = QuantizedLogistic(torch.tensor(1.3), torch.tensor(0.7), levels=4)
        >>> d.log_prob(torch.arange(4)).exp().sum()
        tensor(1.)
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    has_rsample = False
    num_uniforms = 1

    def __init__(
        self, loc: Tensor, scale: Tensor, levels: int | None = None, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return integer if self.levels is None else constraints.integer_interval(0, self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        value = value.to(self.loc.dtype)
        upper = (value + 0.5 - self.loc) / self.scale
        lower = (value - 0.5 - self.loc) / self.scale
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)): no cancellation in either tail.
        inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-1 / self.scale))
        if self.levels is None:
            return inside
        if self.levels == 1:
            return torch.zeros_like(inside)
        edge = torch.where(value <= 0, F.logsigmoid(upper), F.logsigmoid(-lower))
        return torch.where((value <= 0) | (value >= self.levels - 1), edge, inside)

    def from_uniforms(self, u: Tensor) -> Tensor:
        z = self.loc.double() + self.scale.double() * torch.logit(u[..., 0])
        value = torch.floor(z + 0.5)
        return (value if self.levels is None else value.clamp(0, self.levels - 1)).long()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return sample_from_torch(self, sample_shape)


class Mixture(td.Distribution):
    """A mixture of M components of one family.

        p(x) = sum_m pi_m p_m(x);    the first uniform chooses m, the others x given m

    Args:
        logits: (*batch_shape, M).
        components: a distribution of batch shape (*batch_shape, M), with `from_uniforms`.

    Example:
        >>> d = Mixture(torch.zeros(2), Normal(torch.tensor([-9.0, 9.0]), torch.ones(2)))
        >>> d.from_uniforms(torch.tensor([0.7, 0.5]).double())
        tensor(9.)
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(self, logits: Tensor, components: Any, validate_args: bool | None = None) -> None:
        self.logits = logits.log_softmax(-1)
        self.components = components
        self.num_uniforms = 1 + components.num_uniforms
        super().__init__(components.batch_shape[:-1], components.event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return self.components.support

    @property
    def variance(self) -> Tensor:
        second = (self.logits.exp() * (self.components.variance + self.components.mean**2)).sum(-1)
        return second - self.mean**2

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.logsumexp(self.logits + self.components.log_prob(value[..., None]), dim=-1)

    def cdf(self, value: Tensor) -> Tensor:
        return (self.logits.exp() * self.components.cdf(value[..., None])).sum(-1)

    @property
    def mean(self) -> Tensor:
        return (self.logits.exp() * self.components.mean).sum(-1)

    def from_uniforms(self, u: Tensor) -> Tensor:
        chosen = _categorical_from_uniform(self.logits, u[..., 0])
        rest = u[..., None, 1:].expand(*u.shape[:-1], self.logits.shape[-1], self.components.num_uniforms)
        return self.components.from_uniforms(rest).gather(-1, chosen[..., None]).squeeze(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return sample_from_torch(self, sample_shape)


class MultivariateNormal(td.MultivariateNormal):
    """A real vector, N(loc, L L^T).

        x = loc + L Phi^-1(u)

    Example:
        >>> d = MultivariateNormal(torch.zeros(2), scale_tril=torch.eye(2))
        >>> d.from_uniforms(torch.full((2,), 0.5).double())
        tensor([0., 0.])
    """

    @property
    def num_uniforms(self) -> int:
        return self.event_shape[0]

    def from_uniforms(self, u: Tensor) -> Tensor:
        z = torch.special.ndtri(u)
        x = self.loc.double() + (self.scale_tril.double() @ z[..., None]).squeeze(-1)
        return x.to(self.loc.dtype)


class _Integer(constraints.Constraint):
    is_discrete = True
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return value == value.floor()

    def __repr__(self) -> str:
        return "Integer()"


class _Finite(constraints.Constraint):
    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return value.isfinite()

    def __repr__(self) -> str:
        return "a finite real number"


finite = _Finite()
"""The constraint of real numbers, without NaN and infinity (torch's `real` lets infinity pass)."""

integer = _Integer()
"""The constraint of all integers, negative ones too."""


def sample_from_torch(distribution: Any, sample_shape: Any = ()) -> Tensor:
    """Draw values by `from_uniforms`, the uniforms from torch's generator.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> sample_from_torch(Logistic(torch.zeros(3), torch.ones(3)), (2,)).shape
        torch.Size([2, 3])
    """
    shape = torch.Size(sample_shape) + distribution.batch_shape
    u = torch.rand(*shape, distribution.num_uniforms, dtype=torch.float64)
    with torch.no_grad():
        return distribution.from_uniforms(u.clamp(2.0**-53, 1 - 2.0**-53))
