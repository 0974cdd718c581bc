"""Samples under controls, of any length, after a prompt, and what they say of their probability."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from seriatim.context import Labels, Vector
from seriatim.controls import Controls
from seriatim.ending import Ending
from seriatim.heads import (
    Bernoulli,
    Categorical,
    Logistic,
    MixtureOfLogistics,
    MultivariateNormal,
    Normal,
    QuantizedMixtureOfLogistics,
)
from seriatim.layers import SelfAttention
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, GRU, LSTM, MADE, NADE, BayesNet, OrderAgnosticMADE, WaveNet
from seriatim.nested import Nested
from seriatim.order import Order
from seriatim.tasks import generate, generate_scored
from test_tasks import roughened

CUT = Controls(0.7, top_k=3, top_p=0.9, min_p=0.05)


def lstm(head=None, length=6, **options):
    return roughened(LSTM((length,), head or Categorical(4), hidden_features=6, **options))


def wavenet(head, length=12, **options):
    sizes = {"residual_features": 4, "gate_features": 4, "skip_features": 4}
    return roughened(WaveNet((length,), head, num_blocks=1, layers_per_block=3, **sizes, **options))


def sequential_q(joint, x, controls):
    """log q of rows (N, *event_shape) in the parallel form: controls of all conditionals at once."""
    conditionals = controls.apply(joint.conditionals(x))
    return conditionals.log_prob(joint.order.to_positions(x)).sum(-1).detach()


# ---- controls


@pytest.mark.parametrize("head", [Bernoulli(), Categorical(3), Ending(Categorical(2))], ids=str)
def test_samples_follow_q_over_the_whole_space(head):
    own = lstm(head, length=3)
    values = [-1, 0, 1] if isinstance(head, Ending) else list(range(2 if isinstance(head, Bernoulli) else 3))
    space = torch.tensor(list(itertools.product(values, repeat=3)))
    for controls in (Controls(0.5), Controls(1.5, top_p=0.8), Controls(0.7, top_k=2, min_p=0.2)):
        q = sequential_q(own(), space, controls).exp()
        assert float(q.sum()) == pytest.approx(1, abs=1e-5)
        drawn = generate(own, 4000, seed=1, batch_size=4000, controls=controls)
        counts = torch.stack([(drawn == row).all(1).sum() for row in space]).double()
        assert counts.sum() == 4000
        assert bool((counts[q == 0] == 0).all())
        expected = 4000 * q
        tested = expected > 5
        chi = ((counts - expected)[tested] ** 2 / expected[tested]).sum()
        freedom = int(tested.sum()) - 1
        assert float(chi) < freedom + 4 * math.sqrt(2 * freedom) + 4
        assert float((drawn == generate(own, 4000, seed=1)).double().mean()) < 0.999


@pytest.mark.parametrize(
    "head",
    [Bernoulli(), Categorical(4), QuantizedMixtureOfLogistics(9, 2), Ending(Categorical(3)), Normal(), Logistic()],
    ids=str,
)
def test_without_controls_samples_are_those_of_the_model(head):
    own = lstm(head)
    for neutral in (Controls(), Controls(top_p=1.0, min_p=0)):
        drawn = generate(own, 7, seed=5, batch_size=3, controls=neutral, engine="reference")
        assert torch.equal(drawn.nan_to_num(9), own.sample((7,), seed=5, engine="reference").nan_to_num(9))
        assert drawn.dtype == own.sample((7,), seed=5).dtype


def test_one_seed_under_many_temperatures_moves_samples_little():
    own, values = wavenet(QuantizedMixtureOfLogistics(64, 2)), []
    for temperature in (0.8, 0.9):
        values.append(generate(own, 20, seed=0, controls=Controls(temperature)).double())
    assert float((values[0][:, 0] - values[1][:, 0]).abs().mean()) < 4  # of 64 levels: the first has the same uniform


def test_samples_under_controls_do_not_depend_on_the_batch():
    own = lstm(Ending(QuantizedMixtureOfLogistics(8, 2)), encoder=Labels(3))
    labels = torch.arange(11) % 3
    whole = generate(own, 11, labels, seed=2, controls=CUT)
    assert whole.dtype == torch.int64
    for batch_size in (1, 4):
        assert torch.equal(generate(own, 11, labels, seed=2, controls=CUT, batch_size=batch_size), whole)
    assert torch.equal(generate(own, 4, labels[7:], seed=2, controls=CUT, first_row=7), whole[7:])


def test_a_vector_of_values_is_controlled_value_by_value():
    chords = Nested(NADE((3,), hidden_features=4, encoder=Vector(5)))
    own = lstm(chords)
    greedy = generate_scored(own, 5, seed=0, controls=Controls(top_k=1))
    assert greedy.samples.shape == (5, 6, 3)
    assert greedy.samples.dtype == torch.float32
    assert bool((greedy.samples == greedy.samples[0]).all())
    assert bool((greedy.log_q == 0).all())
    cold = generate_scored(own, 5, seed=0, controls=Controls(0.5))
    torch.testing.assert_close(cold.log_prob, own().log_prob(cold.samples).detach().double(), atol=1e-4, rtol=0)


def test_an_ensemble_of_orders_takes_controls():
    free = roughened(OrderAgnosticMADE((3,), hidden_features=(8,)))
    p = free.ensemble(3)
    greedy = generate(p, 40, seed=0, controls=Controls(top_k=1))
    assert torch.equal(greedy, generate(p, 40, seed=0, batch_size=7, controls=Controls(top_k=1)))
    modes = torch.stack([generate(member, 1, seed=0, controls=Controls(top_k=1))[0] for member in p.members])
    assert bool((greedy[:, None] == modes).all(-1).any(-1).all())
    assert torch.equal(generate(p, 9, seed=4), p.sample((9,), seed=4))


# ---- log p and log q


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize(
    "head",
    [Bernoulli(), Categorical(4), QuantizedMixtureOfLogistics(9, 2), Ending(Categorical(3)), Normal()],
    ids=str,
)
def test_scores_are_those_of_the_model_and_of_what_was_sampled(head, engine):
    own = lstm(head, encoder=Labels(2))
    labels = torch.arange(9) % 2
    for controls in (Controls(), Controls(0.6)) + (() if isinstance(head, Normal) else (CUT, Controls(top_k=1))):
        x, log_prob, log_q = generate_scored(own, 9, labels, seed=3, batch_size=4, controls=controls, engine=engine)
        assert torch.equal(x, generate(own, 9, labels, seed=3, controls=controls, engine=engine))
        assert log_prob.dtype == log_q.dtype == torch.float64
        torch.testing.assert_close(log_prob, own(labels).log_prob(x).detach().double(), atol=1e-4, rtol=0)
        expected = sequential_q(own(labels), x, controls).double()
        torch.testing.assert_close(log_q, expected, atol=2e-4, rtol=0)
        if controls.neutral:
            torch.testing.assert_close(log_q, log_prob)


def test_weights_turn_samples_under_controls_into_samples_of_the_model():
    own = lstm(Bernoulli(), length=4)
    space = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4)))
    exact = float((own().log_prob(space).detach().exp() * space.sum(1)).sum())
    x, log_prob, log_q = generate_scored(own, 5000, seed=0, batch_size=5000, controls=Controls(2.0))
    weights = (log_prob - log_q).exp()
    assert float(weights.mean()) == pytest.approx(1, abs=0.05)
    assert float((weights * x.sum(1)).mean()) == pytest.approx(exact, abs=0.1)
    assert abs(float(x.sum(1).mean()) - exact) > 0.02 or exact == pytest.approx(2, abs=0.3)


# ---- length and prompts


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_any_length(engine):
    own = lstm()
    for length in (1, 6, 15):
        drawn = generate(own, 3, seed=1, length=length, engine=engine)
        assert torch.equal(drawn, own(length=length).sample((3,), seed=1, engine="reference"))
    layer = SelfAttention(4, num_heads=2)  # which keeps something of each position
    attentive = roughened(AutoregressiveModel(layer, Categorical(4), Order((3,))))
    expected = attentive(length=20).sample((3,), seed=1, engine="reference")
    assert torch.equal(generate(attentive, 3, seed=1, length=20, engine=engine), expected)
    assert torch.equal(attentive(length=20).sample((3,), seed=1, engine=engine), expected)
    with pytest.raises(ValueError, match="length: expected None, for weights of"):
        generate(MADE((4,), hidden_features=(4,)), 2, length=5)
    with pytest.raises(ValueError, match="length: expected None with a distribution"):
        generate(own(), 2, length=5)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("controls", [Controls(), CUT], ids=["exact", "cut"])
@pytest.mark.parametrize(
    "own",
    [
        lstm(),
        lstm(Ending(Categorical(3)), encoder=Labels(2)),
        wavenet(QuantizedMixtureOfLogistics(16, 2)),
        roughened(MADE((2, 3), hidden_features=(8,), order=Order((2, 3), [5, 0, 4, 1, 3, 2]))),
        roughened(GRU((6,), Nested(NADE((2,), hidden_features=3, encoder=Vector(4))), hidden_features=4)),
    ],
    ids=["lstm", "ending", "wavenet", "made", "chords"],
)
def test_a_prompt_is_kept_and_gone_on_from(own, controls, engine):
    context = None if own.encoder is None else torch.tensor([0, 1, 1, 0, 1])
    options = {"seed": 7, "controls": controls, "engine": engine}
    whole = generate(own, 5, context, **options)
    values = own.order.to_positions(whole)
    for k in (0, 1, 4, values.shape[1]):  # its own beginning leads each sample to its own end
        again = generate_scored(own, 5, context, prompt=values[:, :k], batch_size=2, **options)
        assert torch.equal(again.samples, whole)
        terms = own.order.to_positions(own(context).log_prob_terms(whole).detach())[:, k:].double()
        torch.testing.assert_close(again.log_prob, terms.sum(1), atol=1e-4, rtol=0)
    shared = generate(own, 5, context, prompt=values[0, :3].tolist(), **options)
    assert bool((own.order.to_positions(shared)[:, :3] == values[:1, :3]).all())
    assert torch.equal(shared[0], whole[0])
    assert shared.dtype == whole.dtype


def test_prompts_of_tables_and_arrays():
    net = BayesNet((3,), arities=[2, 3, 2], parents=[[], [0], [1]])
    drawn = generate(net, 4, seed=0, prompt=np.array([1, 2]))
    assert drawn[:, :2].tolist() == [[1, 2]] * 4
    with pytest.raises(ValueError, match=r"prompt: expected .*, got 2 at position 0 of sample 0"):
        generate(net, 4, seed=0, prompt=[2, 2])


def test_wrong_prompts_are_refused():
    own = lstm()
    refused = [
        (own, [[1, 2, 3]] * 3, r"expected shape \(k\) or \(2, k\), got \(3, 3\)"),
        (own, 1, r"expected shape \(k\) or \(2, k\), got \(\)"),
        (own, [1] * 7, "expected 6 values at most, got 7"),
        (own, [0, 4], r"expected IntegerInterval.*, got 4 at position 1 of sample 0"),
        (own, [[0, 1], [1.5, 0]], r"got 1.5 at position 0 of sample 1"),
        (lstm(Normal()), [0.5, math.nan], "expected a finite real number, got nan at position 1 of sample 0"),
        (lstm(Ending(Categorical(3))), [1, -1, 2], "nothing but ends after an end, got 2 at position 2 of sample 0"),
        (lstm(MultivariateNormal(2)), [0.5, 1.0], r"expected shape \(k, 2\) or \(2, k, 2\), got \(2,\)"),
        (OrderAgnosticMADE((3,), hidden_features=(8,)).ensemble(2), [1], "got an ensemble of orders"),
    ]
    for model, prompt, message in refused:
        with pytest.raises(ValueError, match=message):
            generate(model, 2, seed=0, prompt=prompt)


def test_an_ended_prompt_stays_ended():
    own = lstm(Ending(Categorical(3)))
    assert generate(own, 2, seed=0, prompt=[1, -1]).tolist() == [[1, -1, -1, -1, -1, -1]] * 2


# ---- what is refused


def test_wrong_numbers_are_refused():
    for head in (MixtureOfLogistics(2), Logistic()):
        with pytest.raises(ValueError, match=r"temperature: expected 1 for .* no bits or levels, got 0.5"):
            generate(lstm(head), 2, controls=Controls(0.5))
    with pytest.raises(ValueError, match=r"engine: .* natively, but Controls\(temperature=1e-310.* has no tape form"):
        generate(lstm(), 2, controls=Controls(1e-310), engine="native")
    with pytest.raises(ValueError, match="engine: expected 'auto', 'native' or 'reference', got 'fast'"):
        generate(lstm(), 2, engine="fast")
    with pytest.raises(ValueError, match="got an ensemble"):
        generate_scored(OrderAgnosticMADE((3,), hidden_features=(8,)).ensemble(2), 2)
    for numbers in ({"num": -1}, {"num": 1, "first_row": -1}, {"num": 1, "batch_size": 0}):
        with pytest.raises(ValueError, match="expected num >= 0, first_row >= 0 and batch_size >= 1"):
            generate(FVSBN((3,)), **numbers)
    with pytest.raises(ValueError, match="one for each of 2 samples, got 3"):
        generate(lstm(encoder=Labels(3)), 2, torch.arange(3))


def test_nothing_is_drawn_of_no_samples():
    assert generate(lstm(), 0, seed=0, controls=CUT).shape == (0, 6)
    x, log_prob, log_q = generate_scored(lstm(), 0, seed=0, prompt=[1])
    assert (x.shape, log_prob.shape, log_q.shape) == ((0, 6), (0,), (0,))


def test_a_model_in_training_is_sampled_without_dropout_and_given_back():
    own = lstm(dropout=0.9).train()
    drawn = generate(own, 4, seed=0, controls=CUT)
    assert own.training
    assert torch.equal(drawn, generate(own.eval(), 4, seed=0, controls=CUT))
