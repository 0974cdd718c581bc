"""Sequences that end, on the native engine: the samples of `rollout`, ends that stay ends, planted bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from engine_checks import SEED, agree, caught, changed, drawn
from seriatim import engine
from seriatim.causal import CausalSequential
from seriatim.context import Labels
from seriatim.ending import Ending, UntilEnd
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import Bernoulli, Categorical, MixtureOfNormals, Normal, QuantizedMixtureOfLogistics
from seriatim.layers import LSTM as LSTMLayer
from seriatim.layers import CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.models import GRU, LSTM, RNN, WaveNet
from seriatim.order import Order

LENGTH = 70
SIZES = {"num_blocks": 2, "layers_per_block": 3, "residual_features": 9, "gate_features": 8, "skip_features": 7}


def seldom(model: AutoregressiveModel, s: float = -3.0, std: float = 0.4) -> AutoregressiveModel:
    """Let ends be seldom, so that rows are long and of different lengths."""
    model = drawn(model, std)
    model.network.output_bias[0] = s
    return model


def gapped() -> AutoregressiveModel:
    """An end that is not absorbing: the network does not look at it."""
    network = CausalSequential(LSTMLayer(4, 8), torch.nn.Linear(8, 4))
    return drawn(AutoregressiveModel(network, Ending(Categorical(3)), Order((LENGTH,))))


def wavenet_without_bias() -> AutoregressiveModel:
    model = drawn(WaveNet((LENGTH,), Ending(Categorical(5)), **SIZES))
    model.network.network.output.bias[0] = -3
    return model


CASES: dict[str, Callable[[], tuple[AutoregressiveModel, torch.Tensor | None]]] = {
    "rnn_bits": lambda: (seldom(RNN((LENGTH,), Ending(Bernoulli()), hidden_features=9)), None),
    "lstm_categories": lambda: (
        seldom(LSTM((LENGTH,), Ending(Categorical(70)), hidden_features=9, num_layers=2)),
        None,
    ),
    "gru_normal_labels": lambda: (
        seldom(GRU((LENGTH,), Ending(Normal()), hidden_features=9, norm=True, encoder=Labels(2)), std=0.3),
        torch.arange(16) % 2,
    ),
    "lstm_mixture": lambda: (seldom(LSTM((LENGTH,), Ending(MixtureOfNormals(3)), hidden_features=5), std=0.3), None),
    "gru_levels": lambda: (seldom(GRU((LENGTH,), Ending(QuantizedMixtureOfLogistics(9, 2)), hidden_features=5)), None),
    "wavenet": lambda: (wavenet_without_bias(), None),
    "not_absorbing": lambda: (gapped(), None),
}


@pytest.mark.parametrize("name", CASES)
def test_samples_and_log_p_are_those_of_the_reference(name):
    model, context = CASES[name]()
    x = agree(model, context, prompts=(1, LENGTH // 2, LENGTH - 1), tolerance=1e-4)
    ended = model.head.ended(x)
    assert 0.1 < ended.float().mean() < 0.95
    follows = ended[:, 1:] >= ended[:, :-1]
    assert bool(follows.all()) == (name != "not_absorbing")


@pytest.mark.parametrize("make", [CASES["wavenet"], CASES["lstm_categories"], CASES["rnn_bits"]])
def test_rows_that_have_all_ended_stay_ended(make):
    model, _ = make()
    p = model().expand((16,))
    x = p.sample(seed=SEED, engine="reference")
    ended = model.head.ended(x)
    short = (ended.sum(1) > LENGTH // 2).nonzero().flatten()[:3]  # these rows end early: the loop leaves
    assert len(short) == 3
    session = engine.start(p.rows(short), short, SEED, engine.lower(model))
    parts = [session.advance(count, log_probs=True) for count in (LENGTH // 2, 5, 1, LENGTH - LENGTH // 2 - 6)]
    assert torch.equal(torch.cat([part.values for part in parts], 1), x[short])
    torch.testing.assert_close(
        torch.cat([part.log_probs for part in parts], 1), p.log_prob_terms(x)[short], rtol=0, atol=1e-4
    )
    session = engine.start(p.rows(short), short, SEED, engine.lower(model), prefix=x[short, : LENGTH // 2])
    assert torch.equal(session.advance(LENGTH // 2).values, x[short, LENGTH // 2 :])


def test_any_length_that_is_asked_for():
    model = seldom(LSTM((5,), Ending(Categorical(4)), hidden_features=6), s=-6.0)
    found, wanted = (model(length=300).sample((3,), seed=1, engine=path) for path in ("native", "reference"))
    assert torch.equal(found, wanted)
    assert found.shape == (3, 300)
    assert not model.head.ended(found[:, 5]).all()


@pytest.mark.parametrize(
    "place, bad", [(0, float("nan")), (0, float("inf")), (0, -float("inf")), (1, float("nan")), (2, float("inf"))]
)
def test_parameters_that_are_no_numbers_stop(place, bad):
    model = seldom(LSTM((LENGTH,), Ending(Normal()), hidden_features=3), s=-20.0)
    model.network.output_bias[place] = bad
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 9"):
        engine.sample_rows(model().expand((2,)), torch.tensor([9, 3]), seed=0)


def test_the_position_of_a_bad_parameter_is_named():
    model = seldom(WaveNet((LENGTH,), Ending(Categorical(3)), **SIZES), s=-20.0)
    x = model().expand((1,)).sample_rows(torch.arange(1), 0)
    first = int((x[0] == 2).nonzero()[0])
    assert 0 < first < LENGTH - 1
    model.network.network.first.taps.weight[:, 4 + 2] = torch.nan  # read where the value before is a 2
    with pytest.raises(ValueError, match=f"at position {first + 1}, row 0"):
        engine.sample_rows(model().expand((1,)), torch.arange(1), seed=0)


def test_what_cannot_be_lowered_says_so():
    inner = UntilEnd(CausalConv1d(4, 4, 2))
    model = AutoregressiveModel(CausalSequential(torch.nn.Linear(4, 4), inner), Ending(Categorical(3)), Order((5,)))
    with pytest.raises(engine.CannotLower, match="ends told by other features than those of the input"):
        engine.lower(model)


def test_an_end_that_is_changed_afterwards_is_not_certain():
    network = CausalSequential(UntilEnd(CausalConv1d(2, 2, 2)), torch.nn.Tanh())
    model = drawn(AutoregressiveModel(network, Ending(Bernoulli()), Order((30,))))
    ended = model.head.ended(agree(model))
    assert not bool((ended[:, 1:] >= ended[:, :-1]).all())


# ---- planted bugs

BUGS = {
    "the end's own lane": (Op.STOP, 2, 1),
    "the value's lane": (Op.CATEGORICAL, 2, 0),
    "values of rows that have ended": (Op.CATEGORICAL, 4, 0),
    "where the input tells the end": (Op.UNTIL, 1, 0),
    "what is read of an end": (Op.MARK, 0, 3),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    model, _ = CASES["lstm_categories"]()
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    op, number, value = BUGS[bug]
    assert not caught(p, program, wanted)
    assert caught(p, changed(program, op, NUMBERS + number, value), wanted)


def test_check_finds_state_dropped():
    model, _ = CASES["wavenet"]()
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    session = engine.start(p, torch.arange(16), SEED, program, prefix=wanted[:, :9])
    bad = engine.start(p, torch.arange(16), SEED, replace(program, kept=()), prefix=wanted[:, :9])
    assert torch.equal(session.advance(LENGTH - 9).values, wanted[:, 9:])
    assert not torch.equal(bad.advance(LENGTH - 9).values, wanted[:, 9:])
