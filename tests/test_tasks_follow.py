"""Values scored one at a time, natively and not: the terms of the parallel form, each before the next value."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine_checks import drawn, terms_of
from seriatim.causal import CausalSequential
from seriatim.context import Labels, Vector
from seriatim.ending import Ending
from seriatim.engine import Stepper
from seriatim.heads import Bernoulli, Categorical, Normal, QuantizedMixtureOfLogistics, Tokens
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, MADE, NADE, BayesNet, OrderAgnosticMADE, PixelCNN, Transformer, WaveNet
from seriatim.nested import Nested
from seriatim.order import Order
from seriatim.tasks import follow

WAVENET = {"num_blocks": 2, "layers_per_block": 4, "residual_features": 9}
TRANSFORMER = {"hidden_features": 8, "num_layers": 2, "num_heads": 2}

CASES = {
    "bits": lambda: (LSTM((60,), Bernoulli(), hidden_features=6, num_layers=2), None),
    "levels": lambda: (WaveNet((60,), QuantizedMixtureOfLogistics(16, 2), **WAVENET, encoder=Labels(3)), 2),
    "reals": lambda: (LSTM((60,), Normal(), hidden_features=6, encoder=Vector(2)), [0.5, -1.0]),
    "an end": lambda: (LSTM((60,), Ending(Categorical(5)), hidden_features=6), None),
    "tokens": lambda: (Transformer((60,), Ending(Tokens(9)), **TRANSFORMER), None),
    "chords": lambda: (LSTM((20,), Nested(NADE((3,), hidden_features=4, encoder=Vector(5))), hidden_features=6), None),
    "image": lambda: (PixelCNN((4, 5), Bernoulli(), hidden_features=4, num_layers=2), None),
    "any order": lambda: (
        MADE((6,), Categorical(3), hidden_features=(9,), order=Order((6,), [3, 5, 0, 1, 4, 2])),
        None,
    ),
}


def case(name):
    model, context = CASES[name]()
    model = drawn(model, 0.25)
    context = None if context is None else torch.tensor(context)
    p = model(context).expand((4,))
    return model, context, p, p.sample(seed=1, engine="reference")


@pytest.mark.parametrize("engine", ["native", "reference", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_terms_are_those_of_the_parallel_form(name, engine):
    model, context, p, x = case(name)
    values = p.order.to_positions(x)
    found = np.stack(list(follow(model, values.unbind(1), 4, context, engine=engine)), axis=1)
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), terms_of(p, x), rtol=1e-5, atol=1e-4)
    alone = list(follow(p.rows(torch.tensor([2])), list(values[2].numpy()), engine=engine))
    np.testing.assert_allclose(np.concatenate(alone), found[2], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_a_term_comes_before_the_next_value_is_taken(engine):
    taken = []

    def source():
        for value in (1, 0, 1):
            taken.append(value)
            yield value

    terms = follow(drawn(LSTM((9,), hidden_features=4)), source(), engine=engine)
    for count in (1, 2, 3):
        next(terms)
        assert len(taken) == count
    assert list(terms) == []


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_a_sequence_goes_on_as_long_as_is_asked_for(engine):
    model = drawn(LSTM((5,), Categorical(3), hidden_features=4))
    x = model(length=300).sample((1,), seed=0)
    found = np.concatenate(list(follow(model, x[0], length=2**32, engine=engine)))
    torch.testing.assert_close(torch.from_numpy(found), model(length=300).log_prob_terms(x)[0], rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="values: expected 5 at most, got more"):
        list(follow(model, x[0], engine=engine))


def test_nothing_follows_an_end():
    model = drawn(LSTM((9,), Ending(Categorical(3)), hidden_features=4))
    for engine in ("native", "reference"):
        terms = np.concatenate(list(follow(model, [1, -1, -1, 2], engine=engine)))
        assert terms[2] == 0
        assert terms[3] == -np.inf


def test_between_values_the_model_is_the_callers():
    model = LSTM((5,), hidden_features=4, dropout=0.5, num_layers=2).train()
    terms = follow(model, [1, 0, 1])
    for _ in range(3):
        next(terms)
        assert model.training


def test_values_that_do_not_fit_are_refused():
    model = drawn(LSTM((5,), Categorical(3), hidden_features=4))
    refused = [
        ([0, 3], {}, r"values: expected IntegerInterval.*, got 3 at position 1"),
        ([[0, 1]], {}, r"values: expected shape \(1,\), got \(2,\) at position 0"),
        ([[0, 1], [1]], {"num": 2}, r"values: expected shape \(2,\), got \(1,\) at position 1"),
        ([0], {"num": 0}, "num: expected 1 or more, got 0"),
        ([0], {"engine": "fast"}, "engine: expected 'auto', 'native' or 'reference', got 'fast'"),
    ]
    for values, options, message in refused:
        with pytest.raises(ValueError, match=message):
            list(follow(model, values, **options))
    with pytest.raises(ValueError, match="model: expected one distribution for all places"):
        follow(BayesNet((2,), arities=[2, 3], parents=[[], [0]]), [0])
    with pytest.raises(ValueError, match="got an ensemble of orders"):
        follow(OrderAgnosticMADE((3,), hidden_features=(4,)).ensemble(2), [0])
    odd = AutoregressiveModel(CausalSequential(nn.Linear(3, 3), nn.Softsign()), Categorical(3), Order((5,)))
    assert len(list(follow(odd, [0, 1]))) == 2
    with pytest.raises(ValueError, match="natively, but Softsign has no lower method"):
        follow(odd, [0, 1], engine="native")


def test_values_written_at_another_position_are_caught(monkeypatch):
    model, context, p, x = case("levels")
    advance = Stepper.advance

    def late(self, value=None):
        return advance(self, None if self.position == 7 else value)

    monkeypatch.setattr(Stepper, "advance", late)
    found = np.stack(list(follow(model, x.unbind(1), 4, context, engine="native")), axis=1)
    wrong = np.abs(found - terms_of(p, x).numpy()) > 1e-3
    assert not wrong[:, :7].any()
    assert wrong[:, 7:].any()
