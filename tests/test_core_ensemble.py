"""Models of any order, and `OrderEnsemble`, the mean of their joint probabilities."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from scipy import stats
from torch import Tensor

from seriatim.autoregressive import Scanned
from seriatim.context import Labels
from seriatim.ensemble import OrderEnsemble
from seriatim.models import OrderAgnosticMADE
from seriatim.order import Order
from zoo import randomised


def agnostic() -> OrderAgnosticMADE:
    return randomised(OrderAgnosticMADE((4,), hidden_features=(8, 8))).double()


def all_bits(places: int) -> Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=places)), dtype=torch.float64)


@given(st.permutations(range(4)))
def test_every_order_of_an_agnostic_model_is_a_distribution(permutation):
    p = agnostic()(order=Order((4,), permutation))
    assert p.log_prob(all_bits(4)).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_orders_differ():
    model, x = agnostic(), all_bits(4)
    a, b = (model(order=Order((4,), order)).log_prob(x) for order in ([0, 1, 2, 3], [2, 0, 3, 1]))
    assert (a - b).abs().max().item() > 0.01


def test_rows_of_different_orders_in_one_batch_equal_one_by_one():
    model = agnostic()
    orders = [Order((4,), permutation) for permutation in ([3, 1, 0, 2], [0, 1, 2, 3], [2, 0, 3, 1], [0, 1, 2, 3])]
    x = torch.stack([order.to_positions(row[None])[0] for order, row in zip(orders, all_bits(4)[5:9], strict=True)])
    u = torch.cat([torch.zeros(4, 1, 1).double(), x[:, :-1, None]], dim=1)
    scanned = Scanned(torch.stack([order.permutation for order in orders]), None)
    whole, _ = model.network(u, model.network.initial_state(4, scanned))
    state, steps = model.network.initial_state(4, scanned), []
    for t in range(4):
        y, state = model.network(u[:, t : t + 1], state)
        steps.append(y)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)
    for i, order in enumerate(orders):
        alone, _ = model.network(u[i : i + 1], model(order=order).expand((1,)).initial_state())
        torch.testing.assert_close(whole[i : i + 1], alone)


def test_an_agnostic_network_needs_an_order():
    with pytest.raises(ValueError, match="context: expected a Scanned with the order of the variables, got None"):
        agnostic().network.initial_state(2)


def test_an_ensemble_is_a_mixture_of_joints():
    model = agnostic()
    ensemble, x = model.ensemble(num_orders=5), all_bits(4)
    joints = torch.stack([member.log_prob(x).exp() for member in ensemble.members])
    torch.testing.assert_close(ensemble.log_prob(x).exp(), joints.mean(0))
    assert ensemble.log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert len({tuple(member.order.permutation.tolist()) for member in ensemble.members}) > 1
    terms = ensemble.log_prob_terms(x)
    assert terms.shape == (16, 4)
    assert bool((terms.sum(-1) <= ensemble.log_prob(x) + 1e-12).all())


def test_samples_of_an_ensemble_follow_it():
    ensemble = agnostic().ensemble(num_orders=3)
    x = ensemble.sample((20_000,), seed=0)
    codes = (x @ torch.tensor([8.0, 4, 2, 1]).double()).long()
    counts = torch.bincount(codes, minlength=16).numpy()
    expected = ensemble.log_prob(all_bits(4)).exp().detach().numpy() * len(x)
    assert stats.chisquare(counts, expected, sum_check=False).pvalue > 1e-6
    single = ensemble.members[0].log_prob(all_bits(4)).exp().detach().numpy() * len(x)
    assert stats.chisquare(counts, single, sum_check=False).pvalue < 1e-6  # the test can tell


def test_samples_of_an_ensemble_are_addressed():
    model = randomised(OrderAgnosticMADE((4,), hidden_features=(6,), encoder=Labels(3)))
    ensemble = model.ensemble(4, torch.tensor([2, 0]))
    assert ensemble.batch_shape == (2,)
    assert ensemble.sample(seed=0).shape == (2, 4)
    x = ensemble.sample((5,), seed=3)
    assert x.shape == (5, 2, 4)
    assert torch.equal(ensemble.sample((3,), seed=3), x[:3])
    torch.manual_seed(1)
    first = ensemble.sample((5,))
    torch.manual_seed(1)
    assert torch.equal(ensemble.sample((5,)), first)
    assert bool(ensemble.support.check(x).all())


def test_an_ensemble_is_sampled_by_the_engine_asked_for():
    ensemble = agnostic().ensemble(num_orders=2)
    assert torch.equal(ensemble.sample((5,), seed=0, engine="reference"), ensemble.sample((5,), seed=0))
    with pytest.raises(ValueError, match="sampled natively"):
        ensemble.sample((5,), seed=0, engine="native")


def test_an_ensemble_needs_members():
    with pytest.raises(ValueError, match="members: expected one or more distributions, got none"):
        OrderEnsemble([])


def test_training_draws_an_order_from_torch():
    model = agnostic()
    torch.manual_seed(0)
    drawn = [model.training_distribution().order.permutation for _ in range(4)]
    torch.manual_seed(0)
    assert torch.equal(model.training_distribution().order.permutation, drawn[0])
    assert len({tuple(order.tolist()) for order in drawn}) > 1


def test_an_ensemble_given_one_label_samples_one_row():
    model = OrderAgnosticMADE((3,), hidden_features=(4,), encoder=Labels(2))
    assert model.ensemble(2, torch.tensor(1)).sample((), seed=0).shape == (3,)
    assert model(torch.tensor(1)).rows(torch.tensor([0])).batch_shape == (1,)
