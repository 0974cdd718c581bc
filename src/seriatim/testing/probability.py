"""Checks of the probabilities: they sum to 1, samples follow them, noise is addressed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from seriatim import engine
from seriatim.autoregressive import Autoregressive
from seriatim.controls import EXACT, Controls
from seriatim.ending import ValueOrEnd
from seriatim.independent import SideBySide
from seriatim.noise import uniforms
from seriatim.testing.case import Case, CheckFailed, NotApplicable, space
from seriatim.testing.law import assert_close

NUM_SAMPLES = 20_000
MIN_P_VALUE = 1e-6
MAX_Z = 6.0
TIE = 1e-6
CONTROLS = (Controls(1.8, top_p=0.7), Controls(0.6, top_k=2, min_p=0.2), Controls(0.5))
"""What the native engine is held to where values take controls: the temperature first, so that all may differ."""
FLOAT32 = 1e-4  # of log p in nats, and of parameters, which float32 rounds
DENSITY = 1e-3  # of log densities, which move with the rounding of a value over its scale


@torch.no_grad()
def normalisation(case: Case) -> None:
    """exp(log_prob) sums to 1 over the whole space, or every conditional integrates to 1."""
    rows = space(case.model)
    if rows is not None:
        x = torch.stack(rows)
        for row in range(2 if case.context is not None else 1):
            context = None if case.context is None else case.context[row]
            total = case.model(context).log_prob(x).exp().sum()
            assert_close("sum of p over the space", total, torch.ones_like(total))
        return
    mass = total_mass(case.joint.conditionals(case.x))
    assert_close("mass of each conditional", mass, torch.ones_like(mass), 1e-5)


def total_mass(conditional: Any) -> Tensor:
    """Return the total probability of distributions of one position: a sum, or an integral by the trapezoid rule.

    A distribution that knows better (a mixed one) has a method `total_mass` of its own.
    """
    if hasattr(conditional, "total_mass"):
        return conditional.total_mass()
    if isinstance(conditional, ValueOrEnd):
        stop, inner = conditional.stop[..., None], total_mass(conditional.values)
        return stop.sigmoid() + (-stop).sigmoid() * inner.reshape(*conditional.stop.shape, -1)
    if isinstance(conditional, SideBySide):
        return total_mass(conditional.values).prod(-1)
    support = conditional.support
    if isinstance(conditional, Autoregressive):
        rows = space(conditional.model)
        if rows is None:  # then every conditional inside the position has mass 1, for some of its values
            return total_mass(conditional.conditionals(conditional.sample(seed=0))).flatten(1)
        values = torch.stack(rows).reshape(-1, *[1] * len(conditional.batch_shape), *conditional.event_shape)
        return conditional.log_prob(values).exp().sum(0)
    if support.is_discrete:
        first, last = (0, 1) if support is constraints.boolean else (support.lower_bound, support.upper_bound)
        values = torch.arange(first, last + 1)
        return conditional.log_prob(values.reshape(-1, *[1] * len(conditional.batch_shape))).exp().sum(0)
    if support.event_dim:
        return _gaussian_mass(conditional)
    return _integral(conditional)


def _integral(conditional: Any) -> Tensor:
    """Integrate a scalar density by the trapezoid rule on a grid laid around each of its components."""
    parts = getattr(conditional, "components", None)
    loc = conditional.loc[..., None] if parts is None else parts.loc
    scale = conditional.scale[..., None] if parts is None else parts.scale
    # Dense in the middle, out to 60 scales: sinh spaces the points.
    z = torch.sinh(torch.linspace(-1, 1, 3001, dtype=loc.dtype) * 5) / math.sinh(5) * 60
    grid = (loc[..., None] + scale[..., None] * z).flatten(-2).sort(-1).values.movedim(-1, 0)
    return torch.trapezoid(conditional.log_prob(grid).exp(), grid, dim=0)


def _gaussian_mass(conditional: Any) -> Tensor:
    """Integrate a density over vectors of two dimensions on a grid in units of its own scale."""
    if conditional.event_shape != (2,):
        raise NotApplicable(f"an integral over {conditional.event_shape[0]} dimensions is too large for a grid")
    z = torch.linspace(-9, 9, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(z, z).reshape(-1, *[1] * len(conditional.batch_shape), 2)
    x = conditional.loc + (conditional.scale_tril @ grid[..., None]).squeeze(-1)
    area = conditional.scale_tril.diagonal(dim1=-2, dim2=-1).prod(-1) * (z[1] - z[0]) ** 2
    return conditional.log_prob(x).exp().sum(0) * area


@torch.no_grad()
def sample_law(case: Case) -> None:
    """20,000 samples follow exp(log_prob): chi-square over the space, or the uniformity of F(x_t | x_<t)."""
    context = None if case.context is None else case.context[0]
    joint = case.model(context)
    rows = space(case.model)
    x = joint.sample((NUM_SAMPLES,), seed=11)
    if rows is None:
        return _uniform_transform(case, joint, x)
    # NaN (missing) is a value like others; no code is -1.
    table, x = (values.double().nan_to_num(nan=-1.0).flatten(1) for values in (torch.stack(rows), x))
    weights = torch.tensor([math.pi ** (i % 37) + i for i in range(table.shape[1])], dtype=torch.float64)
    keys, drawn = (table @ weights).numpy(), (x @ weights).numpy()
    order = np.argsort(keys)
    found = np.searchsorted(keys[order], drawn - 1e-6)
    counts = np.bincount(order[np.minimum(found, len(order) - 1)], minlength=len(keys))
    expected = joint.log_prob(torch.stack(rows)).exp().numpy() * NUM_SAMPLES
    common = expected >= 5
    observed_cells = np.append(counts[common], counts[~common].sum())
    expected_cells = np.append(expected[common], expected[~common].sum())
    if expected_cells[-1] < 5:
        keep = expected_cells[-1] > 0 or observed_cells[-1] == 0
        if not keep or observed_cells[-1] > 40:
            raise CheckFailed(f"{observed_cells[-1]} samples fell where {expected_cells[-1]:.2g} are expected")
        observed_cells, expected_cells = observed_cells[:-1], expected_cells[:-1]
    if len(observed_cells) < 2:
        return None
    statistic = float(((observed_cells - expected_cells) ** 2 / expected_cells).sum())
    p_value = float(stats.chi2.sf(statistic, len(observed_cells) - 1))
    if p_value < MIN_P_VALUE:
        raise CheckFailed(f"chi-square {statistic:.1f} over {len(observed_cells)} cells, p = {p_value:.1e}")
    return None


def _uniform_transform(case: Case, joint: Autoregressive, x: Tensor) -> None:
    u = _uniforms_behind(joint.conditionals(x), case.positions(x)).flatten(1)
    for t, column in enumerate(u.T):
        p_value = float(stats.kstest(column.numpy(), "uniform").pvalue)
        if p_value < MIN_P_VALUE:
            raise CheckFailed(f"F(x_t | x_<t) of coordinate {t} is not uniform: KS p = {p_value:.1e}")
    # Uniform each is not enough: noise that two coordinates share shows in their correlation.
    correlation = torch.corrcoef(u.T).reshape(u.shape[1], -1).fill_diagonal_(0) * math.sqrt(len(u))
    if not bool((correlation.abs() < MAX_Z).all()):
        s, t = (int(i) for i in torch.unravel_index(correlation.abs().argmax(), correlation.shape))
        raise CheckFailed(f"the noise of coordinates {s} and {t} is correlated: z = {float(correlation[s, t]):.1f}")


def _uniforms_behind(conditionals: Any, values: Tensor) -> Tensor:
    """Return F(x) of values under the conditionals they were drawn from, one or more coordinates for each."""
    if isinstance(conditionals, td.MultivariateNormal):
        centred = (values - conditionals.loc)[..., None]
        white = torch.linalg.solve_triangular(conditionals.scale_tril, centred, upper=False)
        return torch.special.ndtr(white.squeeze(-1))
    if isinstance(conditionals, Autoregressive):
        order, lead = conditionals.order, conditionals.batch_shape
        inside = order.to_positions(values.reshape(-1, *conditionals.event_shape)).unflatten(0, lead)
        return _uniforms_behind(conditionals.conditionals(values), inside)
    if isinstance(conditionals, ValueOrEnd):
        return _uniforms_behind_ending(conditionals, values)
    if hasattr(conditionals, "randomized_cdf"):
        return conditionals.randomized_cdf(values)
    support = conditionals.support
    if support is constraints.boolean or hasattr(support, "upper_bound"):
        return _randomized_cdf(conditionals, values)
    try:
        return conditionals.cdf(values)
    except NotImplementedError as error:
        raise NotApplicable("the space is too large for a chi-square and the head has no cdf") from error


def _uniforms_behind_ending(conditionals: ValueOrEnd, values: Tensor) -> Tensor:
    """Return the uniform that decided on the end and those of the value; where there is none, they are drawn."""
    ended, p = conditionals.head.ended(values), conditionals.stop.sigmoid()
    inside = torch.rand(ended.shape, dtype=torch.float64)
    decided = torch.where(ended, inside * p, p + inside * (1 - p))
    inner = _uniforms_behind(conditionals.values, conditionals.head.filled(values))
    inner = inner.reshape(*ended.shape, -1)
    inner = torch.where(ended[..., None], torch.rand(inner.shape, dtype=torch.float64), inner)
    return torch.cat([decided[..., None], inner], dim=-1)


def _randomized_cdf(conditionals: Any, values: Tensor) -> Tensor:
    """Return F(x) of discrete values, drawn uniformly over its jump at x."""
    support = conditionals.support
    first, last = (0, 1) if support is constraints.boolean else (support.lower_bound, support.upper_bound)
    below, mass = torch.zeros(values.shape, dtype=torch.float64), conditionals.log_prob(values).exp()
    for value in range(first, last):
        smaller = conditionals.log_prob(torch.full_like(values, value)).exp()
        below += torch.where(values > value, smaller, 0.0)
    return below + mass * torch.rand(values.shape, dtype=torch.float64)


@torch.no_grad()
def addressed_noise(case: Case) -> None:
    """Sample r depends on (seed, r) and its context only: not on how many are drawn, nor on the neighbours."""
    joint = case.distribution(case.rows, case.context)
    whole = joint.sample(seed=5)
    half = case.rows // 2
    part = joint.rows(torch.arange(half, case.rows)).sample_rows(torch.arange(half, case.rows), seed=5)
    assert_close("the second half of the rows drawn alone", part, whole[half:], equal_nan=True)
    # A model may be nearly sure of every value: several seeds are tried.
    if case.length > 8 and all(torch.equal(joint.sample(seed=seed), whole) for seed in range(6, 14)):
        raise CheckFailed("another seed gives the same samples")


@torch.no_grad()
def inverse_transform(case: Case) -> None:
    """Each sampled value is what its own uniform, within rounding, gives under the parallel form's conditional."""
    assert_explained(case, case.joint.sample(seed=7), seed=7)


def assert_explained(case: Case, x: Tensor, seed: int, controls: Controls = EXACT) -> None:
    """Fail unless every value lies between what its uniform, moved by 1e-6 down and up, gives under the controls."""
    lanes = case.model.head.num_uniforms
    u = uniforms(seed, torch.arange(case.rows), torch.arange(case.length), lanes)
    conditionals, values = controls.apply(case.joint.conditionals(x)), case.positions(x).double()
    nearby = [conditionals.from_uniforms((u + step).clamp(1e-12, 1 - 1e-12)).double() for step in (-TIE, 0.0, TIE)]
    exact = torch.stack(nearby)
    # Real numbers in float32 carry the rounding of their parameters, relative to their size.
    exactly = case.model.dtype is torch.float64 or case.model.head.discrete
    rounding = 1e-6 if exactly else 1e-5 * (1 + exact[1].abs())
    low, high = exact.amin(0) - rounding, exact.amax(0) + rounding
    outside = ~((values >= low) & (values <= high)) & ~(values.isnan() & exact[1].isnan())
    if outside.any():
        place = tuple(int(i) for i in outside.nonzero()[0])
        raise CheckFailed(f"the value at {place} is {float(values[place])}, its uniform gives {float(exact[1][place])}")


@torch.no_grad()
def native_engine(case: Case) -> None:
    """The native engine gives, in float32, what the parallel form gives: values, under controls too, and parameters."""
    single = Case(case.model, case._draw_context, dtype=torch.float32)
    choice = engine.choose(single.model, single.rows)
    if choice.program is None:
        raise NotApplicable(f"sampled by rollout: {choice.reason}")
    assert_explained(single, single.joint.sample(seed=7, engine="native"), seed=7)
    for controls in CONTROLS:
        _assert_controlled(single, controls)
    _assert_stepped(single)


def _assert_controlled(case: Case, controls: Controls) -> None:
    """Hold samples under controls, their log p and their log q to the reference, where values take such controls."""
    order, head = case.model.order, case.model.head
    try:
        controls.apply(head(torch.zeros(1, 1, head.num_params), order.places(0, 1)))
    except ValueError:
        return
    program = engine.choose(case.model, case.rows, controls=controls).program
    if program is None:
        return
    session = engine.start(case.joint, torch.arange(case.rows), 7, program)
    samples = session.advance(case.length, log_probs=True)
    assert samples.log_probs is not None
    assert samples.log_q is not None
    x = order.to_data(samples.values)
    assert_explained(case, x, 7, controls)
    p = case.joint.conditionals(x)
    tolerance = FLOAT32 if head.discrete else DENSITY
    for name, found, own in (("p", samples.log_probs, p), ("q", samples.log_q, controls.apply(p))):
        assert_close(f"native log {name} under {controls}", found, own.log_prob(samples.values), tolerance)


def _assert_stepped(case: Case) -> None:
    """Hold the parameters that are handed out position by position, for values that are given, to the parallel form."""
    program = engine.lower(case.model, draw=False)
    stepper = engine.Stepper(case.joint, engine.start(case.joint, torch.arange(case.rows), 0, program))
    values = [None, *case.positions(case.x).split(1, dim=1)[:-1]]
    params = torch.cat([stepper.advance(value) for value in values], dim=1)
    assert_close("parameters handed out natively", params, case.outputs(case.x), FLOAT32)
