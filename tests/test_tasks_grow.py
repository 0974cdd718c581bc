"""Samples that grow position by position."""

from __future__ import annotations

import itertools

import pytest
import torch

from seriatim.context import Labels
from seriatim.controls import Controls
from seriatim.heads import Bernoulli, Categorical, MixtureOfNormals, Normal, QuantizedMixtureOfLogistics
from seriatim.models import MADE, OrderAgnosticMADE
from seriatim.order import Order
from seriatim.tasks import generate, generate_scored, grow
from test_tasks import roughened


def model(head=None, **options):
    order = Order((2, 3), [5, 4, 3, 2, 1, 0])
    return roughened(MADE((2, 3), head, hidden_features=(12,), order=order, **options))


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("head", [Bernoulli(), Categorical(5), QuantizedMixtureOfLogistics(9, 2), Normal()], ids=str)
def test_what_has_grown_is_what_generate_draws(head, engine):
    own = model(head)
    stages = list(grow(own, 5, seed=3, batch_size=2, engine=engine))
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


def test_contexts_and_controls_grow_alike():
    own = model(encoder=Labels(3))
    labels = torch.tensor([2, 0, 1, 1])
    cold = Controls(0.2)
    *_, last = grow(own, 4, labels, seed=1, controls=cold)
    assert (last.values == generate(own, 4, labels, seed=1, controls=cold)).all()
    assert (last.values != generate(own, 4, labels, seed=1)).any()


def test_each_stage_tells_how_probable_it_is():
    own, controls = model(Categorical(4)), Controls(0.7, top_k=3)
    stages = list(grow(own, 3, seed=2, batch_size=3, controls=controls))
    whole = generate_scored(own, 3, seed=2, controls=controls)
    torch.testing.assert_close(stages[-1].log_prob, whole.log_prob)
    torch.testing.assert_close(stages[-1].log_q, whole.log_q)
    terms = own().log_prob_terms(whole.samples).detach().double()
    for stage in stages:
        torch.testing.assert_close(stage.log_prob, (terms * stage.drawn).sum((1, 2)), atol=1e-5, rtol=0)


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match=r"temperature: expected 1 for Mixture, .* no bits or levels, got 0.5"):
        next(grow(model(MixtureOfNormals(2)), 2, controls=Controls(0.5)))
    with pytest.raises(ValueError, match="got an ensemble"):
        next(grow(OrderAgnosticMADE((3,), hidden_features=(8,)).ensemble(2), 2))
    with pytest.raises(ValueError, match="num >= 1"):
        next(grow(model(), 0))
    with pytest.raises(ValueError, match="one for each of 2 samples, got 3"):
        next(grow(model(encoder=Labels(3)), 2, torch.arange(3)))
