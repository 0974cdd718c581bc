"""Controls of sampling against enumeration: each alone, all together, in their order, for every kind of values."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from seriatim import controls as module
from seriatim import distributions as d
from seriatim.context import Vector
from seriatim.controls import EXACT, Controls, num_values
from seriatim.ending import Ending
from seriatim.heads import (
    Bernoulli,
    Categorical,
    Logistic,
    MixtureOfNormals,
    MultivariateNormal,
    Normal,
    QuantizedMixtureOfLogistics,
)
from seriatim.independent import Independent
from seriatim.models import NADE
from seriatim.nested import Nested
from seriatim.symbols import SymbolsOrMissing
from test_tasks import roughened

SETTINGS = [
    Controls(temperature=0.4),
    Controls(temperature=2.5),
    Controls(top_k=1),
    Controls(top_k=3),
    Controls(top_k=100),
    Controls(top_p=1e-9),
    Controls(top_p=0.55),
    Controls(top_p=0.999),
    Controls(min_p=0.3),
    Controls(min_p=1),
    Controls(0.7, top_k=4, top_p=0.8, min_p=0.2),
    Controls(1.5, top_k=3, top_p=0.6),
    Controls(3.0, top_p=0.7, min_p=0.5),
]


def enumerated(p: list[float], c: Controls) -> list[float]:
    """Controls written down once more, value by value."""
    q = {x: own ** (1 / c.temperature) for x, own in enumerate(p)}
    ranked = sorted(q, key=lambda x: (-q[x], x))
    if c.top_k is not None:
        ranked = ranked[: c.top_k]
    if c.top_p is not None:
        total = sum(q[x] for x in ranked)
        sizes = [n for n in range(1, len(ranked) + 1) if sum(q[x] for x in ranked[:n]) / total >= c.top_p - 1e-6]
        ranked = ranked[: min(sizes)]
    if c.min_p is not None:
        ranked = [x for x in ranked if q[x] >= c.min_p * q[ranked[0]] * (1 - 1e-6)]
    total = sum(q[x] for x in ranked)
    return [q[x] / total if x in ranked else 0.0 for x in range(len(p))]


def masses(p, values) -> torch.Tensor:
    """The probabilities of values (K,) under a distribution of batch shape (B, 1), (B, K)."""
    batch = p.batch_shape
    own = [p.log_prob(value.expand(*batch, *value.shape)) for value in values]
    return torch.stack(own, dim=-1).double().exp()[:, 0]


def values_of(head) -> torch.Tensor:
    if isinstance(head, Ending):
        return torch.cat([values_of(head.head), torch.tensor([-1])])
    return torch.arange(2 if isinstance(head, Bernoulli) else head.support.upper_bound + 1)


HEADS = [
    Bernoulli(),
    Categorical(6),
    Categorical(1),
    QuantizedMixtureOfLogistics(7, 2),
    Ending(Bernoulli()),
    Ending(Categorical(4)),
    Ending(QuantizedMixtureOfLogistics(5, 3)),
]


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("controls", SETTINGS, ids=str)
def test_every_value_has_the_probability_that_enumeration_gives(head, controls):
    params = torch.randn(20, 1, head.num_params, generator=torch.Generator().manual_seed(1))
    p, values = head(params), values_of(head)
    found = masses(controls.apply(p), values)
    expected = torch.tensor([enumerated(row, controls) for row in masses(p, values).tolist()])
    torch.testing.assert_close(found, expected.double(), atol=2e-6, rtol=0)
    torch.testing.assert_close(found.sum(-1), torch.ones(20).double(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_uniforms_give_each_value_its_share(head):
    params = torch.randn(1, 1, head.num_params, generator=torch.Generator().manual_seed(3))
    p, values = head(params), values_of(head)
    grid = (torch.arange(200).double() + 0.5) / 200
    pairs = torch.cartesian_prod(grid, grid)[:, None]  # the end has a uniform of its own, before that of the value
    for controls in (Controls(0.5), Controls(top_k=2), Controls(2.0, top_p=0.8)):
        q = controls.apply(p)
        drawn = q.from_uniforms(torch.cat([pairs, pairs.new_full((*pairs.shape[:2], 8), 0.5)], dim=-1))
        shares = torch.stack([(drawn == value).double().mean() for value in values])
        torch.testing.assert_close(shares, masses(q, values)[0], atol=6e-3, rtol=0)


def test_the_end_is_decided_by_the_first_uniform_as_without_controls():
    p = Ending(Categorical(3))(torch.tensor([[[0.0, 2.0, 1.0, 0.0]]]))
    cold = Controls(0.5).apply(p)
    end = float(masses(cold, torch.tensor([-1])))
    for u in (end - 1e-9, end + 1e-9):
        drawn = cold.from_uniforms(torch.tensor([[[u, 0.01]]], dtype=torch.float64))
        assert (drawn.item() == -1) == (u < end)


@pytest.mark.parametrize(
    "values", [Independent(Bernoulli(), (2,)), Nested(NADE((2,), hidden_features=3, encoder=Vector(4)))]
)
def test_the_end_of_several_values_is_a_choice_of_two(values):
    head = Ending(values)
    p = head(torch.tensor([1.0, *[0.3, -0.6, 0.2, 0.9][: values.num_params]])[None, None])
    rows = torch.tensor([[[[0.0, 0]]], [[[0, 1]]], [[[1, 0]]], [[[1, 1]]], [[[-1, -1]]]])
    end, cold = torch.tensor(1.0).sigmoid().double(), Controls(0.5).apply(p)
    found = torch.cat([cold.log_prob(row).detach().exp().double().reshape(1) for row in rows])
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)
    assert float(found[-1]) == pytest.approx(float(end**2 / (end**2 + (1 - end) ** 2)), abs=1e-6)
    alive = torch.cat(
        [Controls(0.5).apply(p.values).log_prob(row).detach().exp().double().reshape(1) for row in rows[:4]]
    )
    torch.testing.assert_close(found[:4], (1 - found[-1]) * alive)
    greedy = Controls(top_k=1).apply(p)
    assert bool((greedy.from_uniforms(torch.full((1, 1, 3), 0.999).double()) == -1).all())


def test_operations_act_in_the_documented_order():
    p = d.Categorical(probs=torch.tensor([0.4, 0.3, 0.2, 0.1]))

    def kept(**numbers):
        return (Controls(**numbers).apply(p).probs > 0).sum().item()

    assert kept(top_p=0.45) == 2
    assert kept(temperature=0.5, top_p=0.45) == 1  # 0.16 of 0.30: the temperature comes first
    assert kept(top_k=2, top_p=0.5) == 1  # 0.4 of 0.7: what top_k leaves is made to sum to 1
    assert kept(top_p=0.5, min_p=0.6) == 2  # after min_p 0.4 of 0.7 would be enough
    assert kept(temperature=0.5, min_p=0.6) == 1  # 0.09 / 0.16, not 0.3 / 0.4


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    generator = torch.Generator().manual_seed(0)
    for top_p in (0.3, 0.6, 0.9, 0.99):
        logits = 2 * torch.randn(300, 12, generator=generator)
        probs = d.Categorical(logits=logits).probs.double()
        kept = Controls(top_p=top_p).apply(d.Categorical(logits=logits)).probs > 0
        mass = torch.where(kept, probs, 0).sum(-1)
        least = torch.where(kept, probs, 1).amin(-1)
        assert bool((mass >= top_p - 1e-6).all())
        assert bool((mass - least < top_p).all())  # without its least probable value it is too small
        assert bool((torch.where(kept, 0, probs).amax(-1) <= least).all())
        assert kept.sum(-1).unique().numel() > 1


def test_of_equal_values_the_smaller_come_first_and_the_end_last():
    flat = d.Categorical(logits=torch.zeros(10))
    for controls, expected in (
        (Controls(top_k=3), 3),
        (Controls(top_p=0.9), 9),  # though nine times 0.1 is less than 0.9 in floating point
        (Controls(top_p=0.85), 9),
        (Controls(min_p=1), 10),
    ):
        assert controls.apply(flat).probs.nonzero().flatten().tolist() == list(range(expected))
    half = d.Categorical(probs=torch.tensor([0.25, 0.5, 0.25]))
    assert Controls(min_p=0.5).apply(half).probs.tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert Controls(top_k=2).apply(half).probs.tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert Controls(top_k=1).apply(d.Bernoulli(logits=torch.zeros(1))).probs.tolist() == [[1, 0]]
    third = Ending(Categorical(2))(torch.tensor([[[-math.log(2), 0.0, 0.0]]]))  # two values and the end, 1/3 each
    found = masses(Controls(top_k=2).apply(third), torch.tensor([0, 1, -1]))
    assert found[0].tolist() == pytest.approx([0.5, 0.5, 0])


def test_without_controls_the_conditional_itself_is_sampled():
    p = Categorical(3)(torch.zeros(1, 1, 3))
    for neutral in (EXACT, Controls(), Controls(1, None, 1.0, 0.0)):
        assert neutral.neutral
        assert neutral.apply(p) is p
    for other in SETTINGS:
        assert not other.neutral
        assert other.apply(p) is not p


def test_extremes_stay_numbers():
    logits = torch.randn(5, 1, 4, generator=torch.Generator().manual_seed(0))
    impossible = logits.clone()
    impossible[..., 1] = -torch.inf
    for own in (logits, 100 * logits, impossible):
        for controls in (Controls(1e-310), Controls(1e10), Controls(1e-3, 2, 0.5, 0.5)):
            q = controls.apply(Categorical(4)(own))
            assert bool((q.probs.sum(-1) - 1).abs().max() < 1e-9)
        assert torch.equal(Controls(1e-310).apply(Categorical(4)(own)).probs.argmax(-1), own.argmax(-1))
    assert bool((Controls(1e10).apply(Categorical(4)(impossible)).probs[..., 1] == 0).all())
    certain = Ending(Categorical(3))(torch.tensor([[[torch.inf, 0.0, 0.0, 0.0]]]))  # what follows an end
    for controls in SETTINGS:
        q = controls.apply(certain)
        assert masses(q, torch.tensor([-1, 0, 1, 2]))[0].tolist() == [1, 0, 0, 0]
        assert q.from_uniforms(torch.tensor([[[0.999999, 0.5]]], dtype=torch.float64)).item() == -1


def test_sixty_five_thousand_levels(monkeypatch):
    head = QuantizedMixtureOfLogistics(65536, 3)
    params = torch.randn(2, 1, head.num_params, generator=torch.Generator().manual_seed(0))
    controls = Controls(0.8, top_p=0.9, min_p=1e-4)
    q = controls.apply(head(params))
    assert q.probs.sum(-1).flatten().tolist() == pytest.approx([1, 1])
    assert 1 < int((q.probs[0] > 0).sum()) < 65536
    monkeypatch.setattr(module, "_BLOCK", 100)  # some values at a time, a row at a time
    small = QuantizedMixtureOfLogistics(300, 3)
    blocked = controls.apply(small(params)).probs
    monkeypatch.undo()
    assert torch.equal(blocked, controls.apply(small(params)).probs)


def test_a_temperature_of_normals_is_exact():
    x = torch.linspace(-3, 3, 7)
    p = Normal()(torch.tensor([[0.3, 0.5]]))
    for temperature in (0.25, 4.0):
        q = Controls(temperature).apply(p)
        ratio = q.log_prob(x) - p.log_prob(x) / temperature
        assert float(ratio.max() - ratio.min()) == pytest.approx(0, abs=1e-5)
        u = torch.tensor([[0.9]], dtype=torch.float64)
        widened = (q.from_uniforms(u) - q.loc) / (p.from_uniforms(u) - p.loc)
        assert float(widened) == pytest.approx(math.sqrt(temperature), rel=1e-5)
    vector = MultivariateNormal(2)(torch.randn(1, 5, generator=torch.Generator().manual_seed(0)).double())
    points = torch.cartesian_prod(x, x).double()
    ratio = Controls(2.0).apply(vector).log_prob(points) - vector.log_prob(points) / 2
    assert float(ratio.max() - ratio.min()) == pytest.approx(0, abs=1e-4)


def test_values_inside_a_position_are_controlled_one_by_one():
    inner = roughened(NADE((3,), Categorical(3), hidden_features=4, encoder=Vector(5)))
    p = Nested(inner)(torch.randn(1, 1, 5, generator=torch.Generator().manual_seed(0)))
    space = torch.tensor(list(itertools.product(range(3), repeat=3)))
    for controls in (Controls(0.5), Controls(top_k=2), Controls(2.0, top_p=0.7)):
        q = controls.apply(p)
        found = masses(q, space)[0].detach()
        expected = []
        for row in space:
            probs = p.conditionals(row[None, None]).probs[0, 0].tolist()
            expected.append(math.prod(enumerated(own, controls)[int(x)] for own, x in zip(probs, row, strict=True)))
        assert found.tolist() == pytest.approx(expected, abs=1e-5)
        assert float(found.sum()) == pytest.approx(1)
        u = torch.rand(4000, 1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        drawn = q.from_uniforms(u).long().reshape(-1, 3) @ torch.tensor([9, 3, 1])
        shares = torch.bincount(drawn, minlength=27) / 4000
        torch.testing.assert_close(shares.double(), found, atol=0.03, rtol=0)


def test_values_side_by_side_are_controlled_each_by_itself():
    p = Independent(Categorical(3), (2,))(torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(0)))
    space = torch.tensor(list(itertools.product(range(3), repeat=2)))
    probs = p.values.probs[0, 0].tolist()
    for controls in SETTINGS:
        q = controls.apply(p)
        q_of = [enumerated(own, controls) for own in probs]
        expected = [q_of[0][int(first)] * q_of[1][int(second)] for first, second in space]
        assert masses(q, space)[0].tolist() == pytest.approx(expected, abs=1e-6)
        u = torch.rand(3000, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        shares = torch.bincount(q.from_uniforms(u).reshape(-1, 2) @ torch.tensor([3, 1]), minlength=9) / 3000
        torch.testing.assert_close(shares.double(), masses(q, space)[0], atol=0.04, rtol=0)
    vector = Independent(Normal(), (2,))(torch.zeros(1, 1, 4))
    assert torch.allclose(Controls(4.0).apply(vector).values.scale, 2 * vector.values.scale)
    with pytest.raises(ValueError, match="top_k: expected None for Normal"):
        Controls(top_k=2).apply(vector)


def test_a_missing_value_is_a_symbol_under_controls_too():
    head = SymbolsOrMissing([3, 2])  # the last symbol of each place stands for a missing value
    p = head(torch.tensor([[[0.0, 1.0, 2.0], [0.0, 1.0, 5.0]]]), torch.arange(2))
    q = Controls(top_k=1).apply(p)
    drawn = q.from_uniforms(torch.full((1, 2, 1), 0.5).double())
    assert bool(drawn.isnan().all())
    assert q.log_prob(drawn).tolist() == [[0, 0]]
    assert Controls(0.5).apply(p).log_prob(torch.tensor([[1.0, 0.0]])).exp()[0].tolist() == pytest.approx(
        [math.exp(2) / (1 + math.exp(2) + math.exp(4)), 1 / (1 + math.exp(2))]
    )


def test_numbers_out_of_range_are_refused():
    refused = {
        "temperature: expected a number above 0": [{"temperature": t} for t in (0, -1.0, math.nan, math.inf)],
        "top_k: expected a whole number, 1 or more": [{"top_k": k} for k in (0, -3, 2.5, math.nan)],
        "top_p: expected a number above 0, up to 1": [{"top_p": p} for p in (0, -0.1, 1.01, math.nan)],
        "min_p: expected a number from 0 to 1": [{"min_p": p} for p in (-0.1, 1.01, math.nan)],
    }
    for message, cases in refused.items():
        for numbers in cases:
            with pytest.raises(ValueError, match=message):
                Controls(**numbers)


REAL = [Logistic(), MixtureOfNormals(2), Ending(Normal()), Nested(NADE((2,), Logistic(), encoder=Vector(3)))]


@pytest.mark.parametrize("head", REAL, ids=str)
def test_values_that_are_not_finitely_many_are_refused_by_the_name_of_the_control(head):
    p = head(torch.zeros(1, 1, head.num_params))
    for name, value in (("temperature", 0.5), ("top_k", 2), ("top_p", 0.5), ("min_p", 0.1)):
        wanted = 1 if name == "temperature" else None
        with pytest.raises(ValueError, match=rf"^{name}: expected {wanted} for \w+, .* no bits or levels, got {value}"):
            Controls(**{name: value}).apply(p)
    with pytest.raises(ValueError, match="top_k: expected None for Normal"):
        Controls(0.5, top_k=2).apply(Normal()(torch.zeros(1, 1, 2)))
    assert num_values(p) is None
