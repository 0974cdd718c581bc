"""Heads: from data values to numbers the network reads, and from its outputs to a distribution.

A head knows the values at one position: a bit, a symbol, a real number, a vector. `encode` turns values into
features (B, n, F); calling the head turns parameters (B, n, P) into a distribution of batch shape (B, n). Networks
know nothing of values, heads nothing of networks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributions as td
from torch.distributions import constraints
from torch.nn import functional as F

from seriatim import distributions as d
from seriatim import vocabulary
from seriatim.config import Configurable


class Head(Configurable, nn.Module):
    """The values of one position.

        encode: values (B, n, *value_shape) -> features (B, n, F)
        forward: parameters (B, n, P) -> a distribution, batch shape (B, n), event shape value_shape

    `variables` (n,) names the place in the data of each position of the chunk; only a head whose places differ
    (`Columns`) reads it, all others take None.

    Attributes:
        value_shape: () for scalars.
        num_features: F.
        num_params: P.
        num_uniforms: how many uniforms behind one value.
        discrete: True if log p is the log of a probability, False if of a density.
        value_dtype: the dtype of sampled values; None stands for that of the parameters.
        by_place: True if places differ, so that `variables` are read.

    Example:
        >>> class Laplace(Head):
        ...     num_params = 2
        ...     def encode(self, values, variables=None):
        ...         return values[..., None]
        ...     def forward(self, params, variables=None):
        ...         return td.Laplace(params[..., 0], params[..., 1].exp())
        >>> Laplace()(torch.zeros(1, 1, 2)).log_prob(torch.zeros(1, 1))
        tensor([[-0.6931]])
    """

    value_shape: tuple[int, ...] = ()
    num_features: int = 1
    num_params: int = 1
    num_uniforms: int = 1
    discrete: bool = True
    value_dtype: torch.dtype | None = None
    by_place: bool = False

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        """Turn values into features, in the default floating dtype where the values are integers."""
        raise NotImplementedError(f"{type(self).__name__} must define encode")

    def forward(self, params: Tensor, variables: Tensor | None = None) -> Any:
        """Turn parameters into the distribution of the values."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    @property
    def support(self) -> Any:
        """The constraint that values fulfil."""
        raise NotImplementedError(f"{type(self).__name__} must define support")

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        """Return the parameters (n, P) whose distributions fit each position's values (N, n, *value_shape) alone.

        They become the output biases before training, which then starts at the factorised model.
        """
        return torch.zeros(values.shape[1], self.num_params)

    def extra_repr(self) -> str:
        return ", ".join(f"{v}" for v in self._arguments.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _float(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


class Bernoulli(Head):
    """Bits: P(x = 1) = sigmoid(a).

    Example:
        >>> Bernoulli()(torch.zeros(1, 3, 1)).log_prob(torch.ones(1, 3)).exp()
        tensor([[0.5000, 0.5000, 0.5000]])
    """

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return _float(values)[..., None]

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Bernoulli:
        return d.Bernoulli(logits=params.squeeze(-1), validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.boolean

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return torch.logit((_float(values).sum(0) + 0.5) / (values.shape[0] + 1.0))[..., None]


class Categorical(Head):
    """Symbols 0..K-1: P(x = k) = softmax(a)_k, read as one-hot features.

    Example:
        >>> Categorical(3).encode(torch.tensor([[2]]))
        tensor([[[0., 0., 1.]]])
    """

    value_dtype = torch.int64

    def __init__(self, num_categories: int) -> None:
        super().__init__()
        if num_categories < 1:
            raise ValueError(f"num_categories: expected 1 or more, got {num_categories}")
        self.num_categories = self.num_features = self.num_params = num_categories

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return F.one_hot(values.long(), self.num_categories).to(torch.get_default_dtype())

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Categorical:
        return d.Categorical(logits=params, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.integer_interval(0, self.num_categories - 1)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        codes = values.long().T
        counts = torch.zeros(len(codes), self.num_categories, device=values.device)
        counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=counts.dtype))
        return torch.log((counts + 0.5) / (values.shape[0] + 0.5 * self.num_categories))


class Tokens(Categorical):
    """Symbols 0..K-1 of a large vocabulary, read as codes: 1 + x, and 0 where there is none.

    P(x = k) = softmax(a)_k, as for `Categorical`. A one-hot vector of 8,000 symbols costs more than the network that
    reads it; a code is one number, for networks that look it up in a table of vectors (`Transformer`).

    Example:
        >>> Tokens(8000).encode(torch.tensor([[2, 7999]]))
        tensor([[[3.0000e+00],
                 [8.0000e+03]]])
    """

    def __init__(self, num_categories: int) -> None:
        super().__init__(num_categories)
        self.num_features = 1

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return _float(values + 1)[..., None]

    def forward(self, params: Tensor, variables: Tensor | None = None) -> vocabulary.Tokens:
        return vocabulary.Tokens(params)


class _Continuous(Head):
    discrete = False

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return _float(values)[..., None]

    @property
    def support(self) -> Any:
        return d.finite


class Normal(_Continuous):
    """Real numbers: N(mu, sigma^2) with (mu, log(sigma - min_scale)) = a. Log densities are per unit of the value.

    Args:
        min_scale: added to sigma, so that repeated values cannot make the density infinite.

    Example:
        >>> Normal()(torch.zeros(1, 1, 2)).log_prob(torch.zeros(1, 1))
        tensor([[-0.9199]])
    """

    num_params = 2

    def __init__(self, min_scale: float = 1e-3) -> None:
        super().__init__()
        self.min_scale = _positive("min_scale", min_scale)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Normal:
        return d.Normal(params[..., 0], _scale(params[..., 1], self.min_scale), validate_args=False)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return torch.stack([_float(values).mean(0), _log_std(values)], dim=-1)


class Logistic(Normal):
    """Real numbers: the logistic distribution with (location, log scale) = a.

    Example:
        >>> Logistic()(torch.zeros(1, 1, 2)).log_prob(torch.zeros(1, 1))
        tensor([[-1.3873]])
    """

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Logistic:  # type: ignore[override]
        return d.Logistic(params[..., 0], _scale(params[..., 1], self.min_scale), validate_args=False)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return super().marginal_params(values) - torch.tensor([0.0, math.log(math.pi / math.sqrt(3))])


class _Mixture(_Continuous):
    """M components with (logits, locations, log scales) = a, each of M numbers."""

    num_uniforms = 2

    def __init__(self, num_components: int = 10, min_scale: float = 1e-3) -> None:
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components: expected 1 or more, got {num_components}")
        self.num_components, self.min_scale = num_components, _positive("min_scale", min_scale)
        self.num_params = 3 * num_components

    def components(self, loc: Tensor, scale: Tensor) -> td.Distribution:
        raise NotImplementedError

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.Mixture:
        logits, loc, log_scale = params.chunk(3, dim=-1)
        return d.Mixture(logits, self.components(loc, _scale(log_scale, self.min_scale)), validate_args=False)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return torch.cat(mixture_marginal(_float(values), self.num_components), dim=-1)


def mixture_marginal(values: Tensor, num_components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spread M components over the quantiles of each position: logits, locations, log scales, each (n, M).

    Args:
        values: (N, n) real numbers.
        num_components: M.

    Example:
        >>> logits, loc, log_scale = mixture_marginal(torch.linspace(0, 1, 101)[:, None], 2)
        >>> loc
        tensor([[0.2500, 0.7500]])
    """
    levels = (torch.arange(num_components, dtype=values.dtype) + 0.5) / num_components
    # torch.quantile has a size limit, sorting has none.
    ordered = values.sort(dim=0).values
    loc = ordered[((ordered.shape[0] - 1) * levels).round().long()].T
    log_scale = (_log_std(values) - 0.75 * math.log(num_components))[:, None].expand_as(loc)
    return torch.zeros_like(loc), loc, log_scale


class MixtureOfNormals(_Mixture):
    """Real numbers: p(x) = sum_m pi_m N(x; mu_m, sigma_m^2).

    Reference: RNADE: The real-valued neural autoregressive density-estimator (Uria, Murray, Larochelle, 2013).

    Example:
        >>> MixtureOfNormals(3)(torch.zeros(1, 1, 9)).log_prob(torch.zeros(1, 1))
        tensor([[-0.9199]])
    """

    def components(self, loc: Tensor, scale: Tensor) -> d.Normal:
        return d.Normal(loc, scale, validate_args=False)


class MixtureOfLogistics(_Mixture):
    """Real numbers: p(x) = sum_m pi_m Logistic(x; mu_m, s_m).

    Example:
        >>> MixtureOfLogistics(3)(torch.zeros(1, 1, 9)).log_prob(torch.zeros(1, 1))
        tensor([[-1.3873]])
    """

    def components(self, loc: Tensor, scale: Tensor) -> d.Logistic:
        return d.Logistic(loc, scale, validate_args=False)


class QuantizedMixtureOfLogistics(_Mixture):
    """Integers 0..levels-1: a mixture of logistics on [-1, 1] cut into bins, the edge bins holding the tails.

        P(x) = sum_m pi_m (F_m(x + 1/2) - F_m(x - 1/2)),  F_m a logistic CDF; the probabilities sum to 1

    Args:
        levels: the number of values, e.g. 256 for an 8-bit pixel, 65536 for a 16-bit sample.
        num_components: M.

    Reference: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood (Salimans, Karpathy,
    Chen, Kingma, 2017).

    Example:
        >>> head = QuantizedMixtureOfLogistics(16, 2)
        >>> head(torch.zeros(1, 1, 6)).log_prob(torch.arange(16)[:, None, None]).exp().sum()
        tensor(1.0000)
    """

    discrete = True
    value_dtype = torch.int64

    def __init__(self, levels: int, num_components: int = 10, min_scale: float = 1e-4) -> None:
        super().__init__(num_components, min_scale)
        if levels < 2:
            raise ValueError(f"levels: expected 2 or more, got {levels}")
        self.levels = levels
        self.half_range = (levels - 1) / 2

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return (_float(values) / self.half_range - 1)[..., None]

    def components(self, loc: Tensor, scale: Tensor) -> d.QuantizedLogistic:
        return d.QuantizedLogistic(
            (loc + 1) * self.half_range, scale * self.half_range, self.levels, validate_args=False
        )

    @property
    def support(self) -> Any:
        return constraints.integer_interval(0, self.levels - 1)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return super().marginal_params(_float(values) / self.half_range - 1)


class MultivariateNormal(Head):
    """Real vectors: N(mu, L L^T) with (mu, log diagonal of L, below-diagonal of L) = a; full covariance.

    Args:
        num_dimensions: the size of the vector at one position.

    Example:
        >>> MultivariateNormal(2)(torch.zeros(1, 1, 5)).log_prob(torch.zeros(1, 1, 2))
        tensor([[-1.8399]])
    """

    discrete = False

    def __init__(self, num_dimensions: int, min_scale: float = 1e-3) -> None:
        super().__init__()
        if num_dimensions < 1:
            raise ValueError(f"num_dimensions: expected 1 or more, got {num_dimensions}")
        self.min_scale = _positive("min_scale", min_scale)
        self.num_dimensions = self.num_features = self.num_uniforms = num_dimensions
        self.value_shape = (num_dimensions,)
        self.num_params = num_dimensions * (num_dimensions + 3) // 2

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return _float(values)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> d.MultivariateNormal:
        n = self.num_dimensions
        loc, log_diagonal, below = params.split([n, n, self.num_params - 2 * n], dim=-1)
        diagonal = torch.diag_embed(_scale(log_diagonal, self.min_scale))
        rows, columns = torch.tril_indices(n, n, offset=-1, device=params.device)
        # One-hot matrices place the entries below the diagonal: a sum, so gradients and vmap need no special case; no
        # product of matrices, which mixed precision would round.
        places = F.one_hot(rows * n + columns, n * n).to(params.dtype)
        scale_tril = diagonal + (below[..., None] * places).sum(-2).unflatten(-1, (n, n))
        return d.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(d.finite, 1)

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        values = _float(values)
        below = torch.zeros(values.shape[1], self.num_params - 2 * self.num_dimensions)
        return torch.cat([values.mean(0), _log_std(values), below], dim=-1)


def _scale(log_scale: Tensor, least: float) -> Tensor:
    return log_scale.clamp(max=30.0).exp() + least


def _log_std(values: Tensor) -> Tensor:
    return _float(values).std(0, unbiased=False).clamp_min(1e-3).log()


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name}: expected a positive number, got {value}")
    return value
