"""The distributions of one position: masses that sum to one, one monotone transform from uniforms, stable tails."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch import distributions as td

from seriatim.distributions import (
    Bernoulli,
    Categorical,
    FromUniforms,
    Logistic,
    Mixture,
    MultivariateNormal,
    Normal,
    QuantizedLogistic,
    finite,
    integer,
    sample_from_torch,
)

# 10,001 quantiles from 5e-5 to 1 - 5e-5, and the outermost uniforms there are.
GRID = torch.tensor([2.0**-53, *((k + 0.5) / 10_000 for k in range(10_000)), 1 - 2.0**-53], dtype=torch.float64)
EPS = 1e-10
LOGITS = st.lists(st.floats(-40, 40), min_size=1, max_size=6)
LOC, LOG_SCALE = st.floats(-20, 20), st.floats(-6, 6)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def make(family: type, loc: float, log_scale: float, levels: int | None = None) -> td.Distribution:
    arguments = (double(loc)[0], double(log_scale)[0].exp())
    return family(*arguments, levels) if family is QuantizedLogistic else family(*arguments)


def interval_of(masses: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The uniforms between which a discrete value lies, for the masses of 0, 1, 2, ..."""
    upper = masses.cumsum(0)
    return upper[x] - masses[x], upper[x]


@pytest.mark.parametrize("distribution", [Bernoulli, Categorical, Normal, Logistic, QuantizedLogistic, Mixture])
def test_every_distribution_has_the_transform(distribution):
    assert hasattr(distribution, "from_uniforms")
    assert isinstance(Normal(torch.zeros(1), torch.ones(1)), FromUniforms)


@given(st.floats(-60, 60))
def test_bernoulli_is_an_inverse_cdf(logit):
    p = Bernoulli(logits=double(logit)[0])
    x = p.from_uniforms(GRID[:, None]).long()
    low, high = interval_of(p.log_prob(torch.arange(2)).exp(), x)
    assert bool(((low - EPS <= GRID) & (high + EPS >= GRID)).all())
    assert bool((x.diff() >= 0).all())


@pytest.mark.parametrize("logit, x", [(1e4, 1.0), (-1e4, 0.0)])
def test_a_certain_bit_is_certain(logit, x):
    p = Bernoulli(logits=torch.tensor(logit))
    assert set(p.from_uniforms(GRID[:, None]).tolist()) == {x}
    assert float(p.log_prob(torch.tensor(1 - x))) == -1e4


@given(LOGITS)
def test_categorical_is_an_inverse_cdf(logits):
    p = Categorical(logits=double(*logits))
    x = p.from_uniforms(GRID[:, None])
    low, high = interval_of(p.log_prob(torch.arange(len(logits))).exp(), x)
    assert bool(((low - EPS <= GRID) & (high + EPS >= GRID)).all())
    assert bool((x.diff() >= 0).all())


@given(LOGITS, st.integers(0, 6), st.integers(0, 6))
def test_a_category_of_probability_zero_is_never_drawn(logits, before, after):
    nothing = -float("inf")
    p = Categorical(logits=double(*[nothing] * before, *logits, *[nothing] * after))
    x = p.from_uniforms(GRID[:, None])
    assert before <= int(x.min())
    assert int(x.max()) < before + len(logits)
    assert not bool(p.log_prob(torch.arange(before + len(logits) + after)).isnan().any())


def test_categorical_broadcasts_values_against_logits():
    p = Categorical(logits=torch.randn(2, 1, 4).double())
    values = torch.arange(3)[:, None, None].expand(3, 1, 5)
    expected = td.Categorical(logits=p.logits).log_prob(values)
    torch.testing.assert_close(p.log_prob(values), expected)


@pytest.mark.parametrize("family", [Normal, Logistic])
@given(loc=LOC, log_scale=LOG_SCALE)
def test_a_real_family_is_an_inverse_cdf(family, loc, log_scale):
    p = make(family, loc, log_scale)
    x = p.from_uniforms(GRID[:, None])
    assert bool(x.isfinite().all())
    assert bool((x.diff() >= 0).all())
    torch.testing.assert_close(p.cdf(x[1:-1]), GRID[1:-1], rtol=0, atol=1e-8)


@given(loc=LOC, log_scale=LOG_SCALE, value=st.floats(-50, 50))
def test_logistic_is_torchs(loc, log_scale, value):
    p, x = make(Logistic, loc, log_scale), double(value)[0]
    base = td.Uniform(double(0)[0], double(1)[0])
    transforms = [td.SigmoidTransform().inv, td.AffineTransform(p.loc, p.scale)]
    reference = td.TransformedDistribution(base, transforms, validate_args=False)
    z = abs(float((x - p.loc) / p.scale))
    if z < 15:  # further out torch's own runs out of digits
        torch.testing.assert_close(p.log_prob(x), reference.log_prob(x), rtol=1e-6, atol=1e-6)
    assert float(p.log_prob(x)) <= -z - log_scale + 1e-9


def test_logistic_moments():
    p = make(Logistic, 1.5, 0.3)
    x = p.from_uniforms(GRID[1:-1, None])
    assert float(p.mean) == 1.5
    assert float(x.mean()) == pytest.approx(1.5, abs=1e-6)
    assert float(x.var()) == pytest.approx(float(p.variance), rel=5e-3)


@given(loc=st.floats(-5, 20), log_scale=st.floats(-8, 6), levels=st.integers(1, 16))
def test_quantised_masses_sum_to_one(loc, log_scale, levels):
    p = make(QuantizedLogistic, loc, log_scale, levels)
    masses = p.log_prob(torch.arange(levels)).exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-9)
    x = p.from_uniforms(GRID[:, None])
    assert bool(p.support.check(x).all())
    assert bool((x.diff() >= 0).all())
    low, high = interval_of(masses, x)
    assert bool(((low - 1e-9 <= GRID) & (high + 1e-9 >= GRID)).all())


@given(loc=st.floats(-5, 5), log_scale=st.floats(-6, 3))
def test_quantised_masses_over_all_integers_sum_to_one(loc, log_scale):
    p = make(QuantizedLogistic, loc, log_scale)
    assert float(p.log_prob(torch.arange(-1000, 1001)).exp().sum()) == pytest.approx(1, abs=1e-9)
    x = p.from_uniforms(GRID[:, None])
    assert x.dtype == torch.int64
    assert bool(((p.loc + p.scale * torch.logit(GRID) - x).abs() <= 0.5 + 1e-9).all())


@settings(deadline=None)
@given(weights=st.lists(st.floats(-3, 3), min_size=1, max_size=4), seed=st.integers(0, 99))
@pytest.mark.parametrize("family", [Normal, Logistic])
def test_a_mixture_is_the_weighted_sum(family, weights, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = double(*weights)
    loc = torch.randn(len(weights), generator=generator, dtype=torch.float64) * 3
    scale = torch.rand(len(weights), generator=generator, dtype=torch.float64) + 0.1
    p = Mixture(logits, family(loc, scale))
    x = torch.linspace(-5, 5, 7).double()
    pi = logits.softmax(0)
    parts = family(loc, scale)
    torch.testing.assert_close(p.log_prob(x).exp(), (pi * parts.log_prob(x[:, None]).exp()).sum(-1))
    torch.testing.assert_close(p.cdf(x), (pi * parts.cdf(x[:, None])).sum(-1))
    torch.testing.assert_close(p.mean, (pi * loc).sum())
    torch.testing.assert_close(p.variance, (pi * (parts.variance + loc**2)).sum() - (pi * loc).sum() ** 2)


@pytest.mark.parametrize("family", [Normal, Logistic])
def test_samples_of_a_mixture_follow_its_cdf(family):
    p = Mixture(double(0.5, -1, 0), family(double(-2, 0, 4), double(0.5, 1, 0.2)))
    side = (torch.arange(300) + 0.5) / 300
    x = p.from_uniforms(torch.cartesian_prod(side, side).double()).sort().values
    ranks = (torch.arange(len(x)) + 0.5) / len(x)
    assert float((p.cdf(x) - ranks).abs().max()) < 0.005


def test_the_second_uniform_of_a_mixture_is_monotone():
    p = Mixture(double(0.5, -1), Logistic(double(-2, 3), double(0.5, 1)))
    for first in (0.1, 0.95):
        u = torch.stack([torch.full_like(GRID, first), GRID], dim=-1)
        assert bool((p.from_uniforms(u).diff() >= 0).all())


def test_a_quantised_mixture_sums_to_one_and_follows_its_masses():
    p = Mixture(double(0.5, -1), QuantizedLogistic(double(1.2, 4.0), double(0.4, 1.5), levels=6))
    masses = p.log_prob(torch.arange(6)).exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-12)
    side = (torch.arange(400) + 0.5) / 400
    x = p.from_uniforms(torch.cartesian_prod(side, side).double())
    torch.testing.assert_close(torch.bincount(x, minlength=6) / len(x), masses.float(), rtol=0, atol=0.005)


def test_a_gaussian_vector_is_whitened_by_its_cholesky_factor():
    scale_tril = torch.tensor([[1.5, 0, 0], [-0.4, 0.3, 0], [2.0, 1.0, 0.7]]).double()
    p = MultivariateNormal(double(1, -2, 3), scale_tril=scale_tril)
    assert p.num_uniforms == 3
    u = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)).double().clamp(1e-6, 1 - 1e-6)
    white = torch.linalg.solve_triangular(scale_tril, (p.from_uniforms(u) - p.loc)[..., None], upper=False)
    torch.testing.assert_close(torch.special.ndtr(white.squeeze(-1)), u)


FAR = [-1e6, -1e3, 1e3, 1e6]


@pytest.mark.parametrize("value", FAR)
@pytest.mark.parametrize("log_scale", [-9.0, 0.0, 9.0])
@pytest.mark.parametrize(
    "family",
    [
        lambda loc, scale: Logistic(loc, scale),
        lambda loc, scale: QuantizedLogistic(loc, scale),
        lambda loc, scale: Mixture(torch.zeros(2), Logistic(torch.stack([loc, loc + 1]), torch.stack([scale] * 2))),
        lambda loc, scale: Mixture(torch.zeros(2), Normal(torch.stack([loc, loc + 1]), torch.stack([scale] * 2))),
        lambda loc, scale: Mixture(
            torch.zeros(2), QuantizedLogistic(torch.stack([loc, loc + 1]), torch.stack([scale] * 2))
        ),
    ],
    ids=["logistic", "quantised", "logistics", "normals", "quantised_logistics"],
)
def test_float32_is_finite_far_out(family, log_scale, value):
    loc, log_s = torch.zeros((), requires_grad=True), torch.tensor(log_scale, requires_grad=True)
    log_p = family(loc, log_s.exp()).log_prob(torch.tensor(value))
    log_p.backward()
    assert log_p.dtype == torch.float32
    assert bool(log_p.isfinite())
    assert bool(loc.grad.isfinite())
    assert bool(log_s.grad.isfinite())


@pytest.mark.parametrize("value", [0.0, 3.0, 7.0])
@pytest.mark.parametrize("loc", [-1e4, -3.0, 3.5, 1e4])
@pytest.mark.parametrize("log_scale", [-9.0, 0.0, 9.0])
def test_float32_bins_are_exact_and_finite(log_scale, loc, value):
    where, log_s = torch.tensor(loc, requires_grad=True), torch.tensor(log_scale, requires_grad=True)
    log_p = QuantizedLogistic(where, log_s.exp(), levels=8).log_prob(torch.tensor(value))
    log_p.backward()
    exact = QuantizedLogistic(double(loc)[0], double(log_scale)[0].exp(), levels=8).log_prob(double(value)[0])
    torch.testing.assert_close(log_p.detach().double(), exact, rtol=1e-4, atol=1e-4)
    assert bool(where.grad.isfinite())
    assert bool(log_s.grad.isfinite())


def test_a_narrow_bin_in_the_tail_keeps_its_digits():
    """F(x + 1/2) - F(x - 1/2) is 0 in floating point here; its logarithm is not."""
    p = QuantizedLogistic(torch.tensor(0.0), torch.tensor(1.0))
    assert float(torch.sigmoid(torch.tensor(30.5)) - torch.sigmoid(torch.tensor(29.5))) == 0
    assert float(p.log_prob(torch.tensor(30))) == pytest.approx(-30 + 0.041325, abs=1e-4)


def test_float32_samples_come_from_float64_transforms():
    u = GRID[:, None]
    assert bool(Normal(torch.zeros(()), torch.ones(())).from_uniforms(u).isfinite().all())
    assert bool(Logistic(torch.zeros(()), torch.ones(())).from_uniforms(u).isfinite().all())
    assert Normal(torch.zeros(()), torch.ones(())).from_uniforms(u).dtype == torch.float32


@pytest.mark.parametrize(
    "distribution",
    [
        Logistic(torch.zeros(3), torch.ones(3)),
        QuantizedLogistic(torch.zeros(3), torch.ones(3), levels=4),
        Mixture(torch.zeros(3, 2), Logistic(torch.zeros(3, 2), torch.ones(3, 2))),
    ],
    ids=["logistic", "quantised", "mixture"],
)
def test_they_are_torch_distributions(distribution):
    torch.manual_seed(0)
    x = distribution.sample((2, 5))
    assert x.shape == (2, 5, 3)
    assert not x.requires_grad
    torch.manual_seed(0)
    assert torch.equal(distribution.sample((2, 5)), x)
    assert distribution.log_prob(x).shape == (2, 5, 3)
    assert bool(distribution.support.check(x).all())


def test_bad_parameters_are_refused_where_validation_is_on():
    with pytest.raises(ValueError, match="scale"):
        Logistic(torch.zeros(2), torch.tensor([1.0, -1.0]), validate_args=True)


def test_sampling_from_torch_never_meets_0_or_1(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, dtype: torch.zeros(shape, dtype=dtype))
    assert bool(sample_from_torch(Logistic(torch.zeros(2), torch.ones(2))).isfinite().all())


def test_constraints():
    values = torch.tensor([0.0, 1.5, -2.0, torch.inf, torch.nan])
    assert finite.check(values).tolist() == [True, True, True, False, False]
    assert integer.check(values[:3]).tolist() == [True, False, True]
    assert repr(finite) == "a finite real number"
