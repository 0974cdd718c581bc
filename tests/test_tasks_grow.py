"""Samples that grow position by position, and conditionals at a temperature."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from seriatim.context import Labels
from seriatim.heads import Bernoulli, Categorical, Normal, QuantizedMixtureOfLogistics
from seriatim.models import FVSBN, MADE, OrderAgnosticMADE
from seriatim.order import Order
from seriatim.tasks import generate, grow
from seriatim.tasks.grow import num_values, temper
from test_tasks import roughened


def model(head=None, **options):
    order = Order((2, 3), [5, 4, 3, 2, 1, 0])
    return roughened(MADE((2, 3), head, hidden_features=(12,), order=order, **options))


@pytest.mark.parametrize("head", [Bernoulli(), Categorical(5), QuantizedMixtureOfLogistics(9, 2), Normal()], ids=str)
def test_what_has_grown_is_what_generate_draws(head):
    own = model(head)
    stages = list(grow(own, 5, seed=3, batch_size=2))
    assert len(stages) == 3 * 6
    expected = generate(own, 5, seed=3)
    assert stages[-1].values.dtype == expected.dtype
    torch.testing.assert_close(stages[-1].values, expected)
    assert stages[-1].drawn.all()
    for before, after in itertools.pairwise(stages):
        assert (after.drawn | before.drawn).sum() == after.drawn.sum() > before.drawn.sum()
        assert (after.values[before.drawn] == before.values[before.drawn]).all()
        assert (before.values[~before.drawn] == 0).all()
    assert stages[0].drawn[:2, 1, 2].all()  # the order begins at the last place
    assert stages[0].drawn.sum() == 2


def test_contexts_and_temperatures_grow_alike():
    own = model(encoder=Labels(3))
    labels = torch.tensor([2, 0, 1, 1])
    *_, last = grow(own, 4, labels, seed=1, temperature=0.2)
    assert (last.values == generate(own, 4, labels, seed=1, temperature=0.2)).all()
    assert (last.values != generate(own, 4, labels, seed=1)).any()


def test_temper_raises_probabilities_to_a_power():
    logits = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0))
    p = Categorical(4)(logits)
    for temperature in (0.5, 1.0, 3.0):
        expected = p.probs.double() ** (1 / temperature)
        expected /= expected.sum(-1, keepdim=True)
        torch.testing.assert_close(temper(p, 4, temperature).probs, expected, atol=1e-6, rtol=0)
    assert (temper(p, 4, 1e-310).probs.argmax(-1) == logits.argmax(-1)).all()  # no NaN near 0
    mixture = QuantizedMixtureOfLogistics(7, 2)(torch.randn(2, 1, 6))
    mass = torch.stack([mixture.log_prob(torch.full((2, 1), v)).exp() for v in range(7)], -1).double() ** 2
    torch.testing.assert_close(temper(mixture, 7, 0.5).probs, mass / mass.sum(-1, keepdim=True), atol=1e-5, rtol=0)


def test_samples_follow_the_temperature():
    bit = FVSBN((1,))
    with torch.no_grad():
        bit.network.output_bias.fill_(1.0)
    drawn = generate(bit, 4000, seed=0, batch_size=4000, temperature=0.5)
    assert float(drawn.mean()) == pytest.approx(1 / (1 + math.exp(-2.0)), abs=0.03)
    free = OrderAgnosticMADE((3,), hidden_features=(8,))
    assert generate(free.ensemble(2), 5, seed=0, temperature=0.5).shape == (5, 3)


def test_wrong_numbers_are_refused():
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature: expected a number above 0"):
            generate(model(), 2, temperature=wrong)
        with pytest.raises(ValueError, match="temperature: expected a number above 0"):
            next(grow(model(), 2, temperature=wrong))
    with pytest.raises(ValueError, match="hold no bits or levels, but Normal"):
        generate(model(Normal()), 2, temperature=0.5)
    with pytest.raises(ValueError, match="engine: expected 'auto' or 'reference' at temperature"):
        generate(model(), 2, temperature=0.5, engine="native")
    with pytest.raises(ValueError, match="got an ensemble"):
        next(grow(OrderAgnosticMADE((3,), hidden_features=(8,)).ensemble(2), 2))
    with pytest.raises(ValueError, match="num >= 1"):
        next(grow(model(), 0))
    with pytest.raises(ValueError, match="one for each of 2 samples, got 3"):
        next(grow(model(encoder=Labels(3)), 2, torch.arange(3)))
    assert num_values(Categorical(5)) == 5
