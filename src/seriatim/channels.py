"""Pixels as positions: a head for vectors of whole numbers whose entries depend on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from seriatim import distributions as d
from seriatim.engine import samplers
from seriatim.engine.operands import Op
from seriatim.heads import QuantizedMixtureOfLogistics

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.samplers import Draw
    from seriatim.engine.tape import Tape


class ChannelMixtureOfLogistics(QuantizedMixtureOfLogistics):
    """The C channels of a pixel, integers 0..levels-1: a mixture in which each channel moves the means of the next.

        p(x) = sum_m pi_m prod_c P(x_c | mean_mc + sum_{d<c} tanh(a_mcd) x_d, scale_mc),  x on [-1, 1] in the means

    P puts on x_c the mass of a logistic on its bin, the edge bins holding the tails, so p sums to 1 over levels^C. A
    component speaks for the whole pixel, which is one position: a sample takes a step for each pixel, not for each
    channel, and the network makes M (1 + 2 C + C (C - 1) / 2) numbers a step. With C = 1 it is
    `QuantizedMixtureOfLogistics`.

    Args:
        levels: the number of values of a channel, e.g. 256 for 8 bits.
        num_components: M.
        channels: C, the size of the last axis of the data.
        min_scale: added to each scale, in units of [-1, 1].

    Raises:
        ValueError: a number out of its range.

    Reference: PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood (Salimans, Karpathy,
    Chen, Kingma, 2017).

    Example:
        >>> head = ChannelMixtureOfLogistics(4, 2, channels=2)
        >>> pixels = torch.cartesian_prod(torch.arange(4), torch.arange(4))[:, None, None]
        >>> head(torch.zeros(1, 1, head.num_params)).log_prob(pixels).exp().sum().round(decimals=4)
        tensor(1.)
    """

    def __init__(self, levels: int, num_components: int = 5, channels: int = 3, min_scale: float = 1e-4) -> None:
        super().__init__(levels, num_components, min_scale)
        if channels < 1:
            raise ValueError(f"channels: expected 1 or more, got {channels}")
        self.channels = self.num_features = channels
        self.value_shape = (channels,)
        self.num_uniforms = 1 + channels
        self.sizes = [num_components * n for n in (1, channels, channels, channels * (channels - 1) // 2)]
        self.num_params = sum(self.sizes)

    def encode(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        return super().encode(values).squeeze(-1)

    def forward(self, params: Tensor, variables: Tensor | None = None) -> ChannelMixture:  # type: ignore[override]
        logits, *parts = params.split(self.sizes, dim=-1)
        means, log_scales, a = (part.unflatten(-1, (-1, self.num_components)) for part in parts)
        scales = log_scales.clamp(max=30.0).exp() + self.min_scale
        return ChannelMixture(logits, means, scales, a.tanh(), self.levels, validate_args=False)

    def lower(self, tape: Tape, params: Operand, place: Draw) -> None:
        """Append the sampler to a tape."""
        constants = tape.weight(torch.tensor([self.min_scale, self.half_range, self.levels]))
        samplers.sample(tape, Op.CHANNELS, params, place, self.num_components, self.channels, constants=constants)

    @property
    def support(self) -> Any:
        return constraints.independent(super().support, 1)

    def another(self, values: Tensor, place: int) -> Tensor:
        """Return another possible value of a pixel than the given ones, for tests."""
        return (values + 1) % self.levels

    def marginal_params(self, values: Tensor, variables: Tensor | None = None) -> Tensor:
        # A component takes the same quantile of every channel, as dark and bright pixels do; the coefficients are 0.
        marginal = super().marginal_params
        logits, means, log_scales = zip(*(marginal(own).chunk(3, dim=-1) for own in values.unbind(-1)), strict=True)
        a = torch.zeros(values.shape[1], self.sizes[-1], dtype=means[0].dtype)
        return torch.cat([logits[0], *means, *log_scales, a], dim=-1)


class ChannelMixture(td.Distribution):
    """C whole numbers 0..levels-1: a mixture of M chains of quantised logistics.

        p(x) = sum_m pi_m prod_c P(x_c | mean_mc + sum_{d<c} a_mcd x_d, scale_mc)

    Args:
        logits: (*batch_shape, M).
        means: (*batch_shape, C, M), on [-1, 1].
        scales: (*batch_shape, C, M), in the same unit.
        coefficients: (*batch_shape, C (C - 1) / 2, M), of the pairs (c, d) = (1, 0), (2, 0), (2, 1), (3, 0), ...
        levels: the number of values of a channel.

    Example:
        >>> p = ChannelMixture(torch.zeros(1), torch.zeros(2, 1), torch.full((2, 1), 0.01), torch.ones(1, 1), 256)
        >>> p.from_uniforms(torch.tensor([0.5, 0.999, 0.5]).double())  # the second channel follows the first
        tensor([136, 136])
    """

    arg_constraints: dict[str, Any] = {}
    has_rsample = False

    def __init__(
        self,
        logits: Tensor,
        means: Tensor,
        scales: Tensor,
        coefficients: Tensor,
        levels: int,
        validate_args: bool | None = None,
    ) -> None:
        self.logits = logits.log_softmax(-1)
        self.means, self.scales, self.coefficients, self.levels = means, scales, coefficients, levels
        self.num_uniforms = 1 + means.shape[-2]
        super().__init__(means.shape[:-2], means.shape[-2:-1], validate_args=validate_args)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), 1)

    def given(self, value: Tensor) -> d.QuantizedLogistic:
        """Return each channel's distribution (..., C, M) given the channels before it in `value` (..., C, M or 1)."""
        half_range = (self.levels - 1) / 2
        x = value.to(self.means.dtype) / half_range - 1
        pairs = self.coefficients.split(list(range(self.means.shape[-2])), dim=-2)
        moved = torch.stack([(a * x[..., :c, :]).sum(-2) for c, a in enumerate(pairs)], dim=-2)
        return d.QuantizedLogistic(
            (self.means + moved + 1) * half_range, self.scales * half_range, self.levels, validate_args=False
        )

    def log_prefixes(self, value: Tensor) -> Tensor:
        """Return log pi_m P_m(x_1, ..., x_c) for c = 0..C: (..., C + 1, M)."""
        value = value[..., None]
        log_p = self.given(value).log_prob(value).cumsum(-2)
        weights = self.logits[..., None, :].expand(*log_p.shape[:-2], 1, -1)
        return torch.cat([weights, weights + log_p], dim=-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p in nats, in the dtype of the parameters."""
        return self.log_prefixes(value)[..., -1, :].logsumexp(-1)

    def from_uniforms(self, u: Tensor) -> Tensor:
        """Turn uniforms (..., 1 + C) into values (..., C): the component, then each channel given those before."""
        chosen = d.Categorical(logits=self.logits, validate_args=False).from_uniforms(u)
        value = torch.zeros_like(u[..., 1:, None], dtype=torch.int64)
        for _ in range(self.event_shape[0]):  # each turn makes one more channel final
            value = self.given(value).from_uniforms(u[..., 1:, None, None])
        return value.gather(-1, chosen[..., None, None].expand(*value.shape[:-1], 1)).squeeze(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return d.sample_from_torch(self, sample_shape)

    def randomized_cdf(self, value: Tensor) -> Tensor:
        """Return F(x_c | x_<c) (..., C), drawn uniformly over its jump: uniform if x follows the distribution."""
        log_p, given, x = self.log_prefixes(value), self.given(value[..., None]), value[..., None]
        before, after = log_p[..., :-1, :], log_p[..., 1:, :]
        below = torch.sigmoid((x - 0.5 - given.loc) / given.scale)
        below = (before.softmax(-1) * torch.where(x > 0, below, 0.0)).sum(-1)
        mass = (after.logsumexp(-1) - before.logsumexp(-1)).exp()
        return below + mass * torch.rand(mass.shape, dtype=mass.dtype, device=mass.device)

    def total_mass(self) -> Tensor:
        """Return the mass of each channel's conditional (*batch_shape, C), given channels that are drawn."""
        value = self.sample()
        total = torch.zeros(value.shape, dtype=torch.float64, device=value.device)
        for channel in range(self.event_shape[0]):
            before = self.log_prefixes(value)[..., channel, :].logsumexp(-1)
            for level in range(self.levels):
                other = value.clone()
                other[..., channel] = level
                after = self.log_prefixes(other)[..., channel + 1, :].logsumexp(-1)
                total[..., channel] += (after - before).exp()
        return total
