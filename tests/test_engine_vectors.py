"""Vector models on the native engine: each position has weights of its own, and reads all that came before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from seriatim import engine
from seriatim.context import Labels
from seriatim.heads import Categorical, MixtureOfNormals, Normal
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, NADE, NeuralConditionals
from seriatim.order import RandomOrder

D = 61
CASES: dict[str, Callable[[], AutoregressiveModel]] = {
    "fvsbn": lambda: FVSBN((D,)),
    "fvsbn_labels": lambda: FVSBN((D,), Categorical(3), encoder=Labels(2), order=RandomOrder((D,), 1)),
    "fvsbn_one": lambda: FVSBN((1,), Categorical(3), encoder=Labels(2)),
    "nade": lambda: NADE((D,), hidden_features=37),
    "rnade_labels": lambda: NADE((D,), MixtureOfNormals(7), hidden_features=20, activation="relu", encoder=Labels(2)),
    "made": lambda: MADE((D,), hidden_features=(50,)),
    "made_residual": lambda: MADE((D,), Normal(), hidden_features=(90,) * 3, residual=True, encoder=Labels(2)),
    "made_few_units": lambda: MADE((7,), Categorical(2), hidden_features=(2, 3)),
    "neural_conditionals": lambda: NeuralConditionals((D,), hidden_features=(8, 20)),
    "neural_conditionals_labels": lambda: NeuralConditionals(
        (D,), Categorical(3), hidden_features=(8,), encoder=Labels(2)
    ),
}


def drawn(name: str):
    torch.manual_seed(0)
    model = CASES[name]().eval().requires_grad_(False)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1 if "made_r" in name or "rnade" in name else 0.4)
    return model(torch.tensor([0, 1, 1, 0, 1])) if model.encoder else model().expand((5,))


@pytest.mark.parametrize("name", CASES)
def test_samples_and_log_p_are_those_of_the_reference(name):
    p = drawn(name)
    wanted, program = p.sample(seed=3, engine="reference"), engine.lower(p.model)
    torch.testing.assert_close(p.sample(seed=3, engine="native"), wanted, rtol=1e-4, atol=1e-4)
    samples = engine.start(p, torch.arange(5), 3, program).advance(p.order.length, log_probs=True)
    terms = p.order.to_positions(p.log_prob_terms(p.order.to_data(samples.values)))
    torch.testing.assert_close(samples.log_probs, terms, rtol=0, atol=1e-4)
    assert len(wanted.unique()) > 1


@pytest.mark.parametrize("name", CASES)
def test_prompts(name):
    p = drawn(name)
    program, values = engine.lower(p.model), p.order.to_positions(p.sample(seed=3, engine="reference"))
    for length in {1, p.order.length // 2, p.order.length - 1} - {0, p.order.length}:
        session = engine.start(p, torch.arange(5), 3, program, prefix=values[:, :length])
        found = session.advance(p.order.length - length).values
        torch.testing.assert_close(found, values[:, length:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made", "neural_conditionals"])
def test_lost_inputs_are_noticed(name):
    p = drawn(name)
    wanted = p.sample(seed=3, engine="reference")
    session = engine.start(p, torch.arange(5), 3, engine.lower(p.model))
    first = session.advance(30).values
    session.state[:, :] = engine.start(p, torch.arange(5), 3, engine.lower(p.model)).state
    assert not torch.equal(torch.cat([first, session.advance(D - 30).values], 1), wanted)
