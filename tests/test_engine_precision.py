"""Weights of 16 bits: the samples of a model whose matrices are rounded, never without being asked for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from engine_checks import SEED, agree, close, drawn, terms_of
from seriatim import engine
from seriatim.context import Vector
from seriatim.heads import Categorical, Normal
from seriatim.model import AutoregressiveModel
from seriatim.models import GRU, LSTM, BayesNet, OrderAgnosticMADE, PixelCNN, Transformer, WaveNet
from seriatim.nested import Nested
from seriatim.tasks import beam_search, complete, follow, generate, generate_scored, grow, stream

ROWS = 16
LOOKED_UP = {"lstm_symbols": "rnn.weight_ih_l0", "wavenet": "first", "transformer": "table"}  # by symbols: no products


def wavenet() -> AutoregressiveModel:
    sizes = {"residual_features": 24, "gate_features": 16, "skip_features": 70}
    return WaveNet((300,), Categorical(70), num_blocks=2, layers_per_block=3, **sizes)


MODELS: dict[str, Callable[[], AutoregressiveModel]] = {
    "lstm_bits": lambda: LSTM((300,), hidden_features=20, num_layers=2),
    "lstm_symbols": lambda: LSTM((300,), Categorical(5), hidden_features=72),
    "gru_normal": lambda: GRU((300,), Normal(), hidden_features=9),
    "wavenet": wavenet,
    "transformer": lambda: Transformer((100,), Categorical(9), hidden_features=24, num_layers=2, num_heads=3),
    "image": lambda: PixelCNN((6, 6), hidden_features=9, num_layers=2),
    "channels": lambda: PixelCNN((5, 5, 3), Categorical(4), hidden_features=6, num_layers=2),
    "nested": lambda: LSTM((40,), Nested(LSTM((3,), hidden_features=6, encoder=Vector(5))), hidden_features=8),
}


def rounded(model: AutoregressiveModel, looked_up: str | None) -> AutoregressiveModel:
    """Round the matrices that are multiplied."""
    model = copy.deepcopy(model)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and not (looked_up and looked_up in name):
            parameter.copy_(parameter.to(torch.bfloat16))
    return model


@pytest.mark.parametrize("name", MODELS)
def test_samples_are_those_of_a_rounded_model(name):
    model = drawn(MODELS[name](), std=0.3)
    near = rounded(model, LOOKED_UP.get(name))
    wanted = agree(near)
    for batch in (1, 3, ROWS):
        close(model.sample((batch,), seed=SEED, precision="bf16-weights"), wanted[:batch], 1e-5)
    p, program = near().expand((ROWS,)), engine.lower(model, precision="bf16-weights")
    samples = engine.start(model().expand((ROWS,)), torch.arange(ROWS), SEED, program).advance(
        program.length, log_probs=True
    )
    close(samples.log_probs, terms_of(p, wanted), 1e-4)
    assert not torch.equal(samples.log_probs, terms_of(model().expand((ROWS,)), wanted))
    assert program.weights.numel() < engine.lower(model).weights.numel()


def test_every_job_takes_it():
    model = drawn(MODELS["lstm_symbols"](), std=0.3)
    near = rounded(model, LOOKED_UP["lstm_symbols"])
    options = {"seed": SEED, "precision": "bf16-weights"}
    wanted = near.sample((4,), seed=SEED)
    assert not torch.equal(wanted, model.sample((4,), seed=SEED))
    assert torch.equal(generate(model, 4, batch_size=3, **options), wanted)
    assert torch.equal(torch.cat(list(stream(model, 4, chunk=70, **options)), dim=1), wanted)
    assert torch.equal([growth.values for growth in grow(model, 4, **options)][-1], wanted)
    scored = generate_scored(model, 4, **options)
    torch.testing.assert_close(scored.log_prob, near.log_prob(wanted).double(), rtol=0, atol=1e-3)
    free = OrderAgnosticMADE((9,), hidden_features=(6,)).ensemble(2)
    assert free.sample((3,), seed=0, precision="bf16-weights").shape == (3, 9)


def test_search_following_and_completion_take_it():
    model = drawn(MODELS["lstm_symbols"](), std=0.3)
    near = rounded(model, LOOKED_UP["lstm_symbols"])
    half: dict[str, Any] = {"precision": "bf16-weights"}
    found, wanted = (
        beam_search(own, num_beams=3, max_length=40, **options)[0][0] for own, options in ((model, half), (near, {}))
    )
    assert torch.equal(found.values, wanted.values)
    assert found.log_prob == pytest.approx(wanted.log_prob, abs=1e-3)
    assert found.log_prob != beam_search(model, num_beams=3, max_length=40)[0][0].log_prob
    values = near.sample((2,), seed=SEED)[:, :30]
    terms = list(follow(model, values.T, num=2, **half))
    torch.testing.assert_close(
        torch.tensor(np.stack(terms, axis=1)), near(length=30).log_prob_terms(values), rtol=0, atol=1e-4
    )
    image = drawn(MODELS["image"](), std=0.3)
    rows, exact = torch.ones(1, 6, 6), rounded(image, None)
    done, other = (
        complete(own, rows, "top", num=4, seed=0, **options) for own, options in ((image, half), (exact, {}))
    )
    # The pixels that are given are read in full, so that only most of what is drawn is that of the rounded model.
    assert (done.samples == other.samples).float().mean() > 0.9
    tree = BayesNet((3,), 2, [(), (0,), (1,)])
    with pytest.raises(ValueError, match="precision: expected 'float32' for a tree that is swept, got 'bf16-weights'"):
        complete(tree, torch.zeros(1, 3), torch.tensor([False, True, False]), **half)


def test_it_is_refused_where_nothing_is_rounded():
    model = LSTM((5,), hidden_features=4)
    with pytest.raises(ValueError, match="precision: expected 'float32' or 'bf16-weights', got 'bf16'"):
        model.sample((2,), precision="bf16")
    with pytest.raises(ValueError, match=r"precision: .* step by step in PyTorch \(asked for\), got 'bf16-weights'"):
        generate(model, 2, engine="reference", precision="bf16-weights")
    with pytest.raises(ValueError, match=r"precision: .*float64"):
        model.double().sample((2,), precision="bf16-weights")
    assert generate(model, 0, precision="bf16-weights").shape == (0, 5)


def test_weights_without_numbers_stop():
    model = drawn(LSTM((30,), hidden_features=4))
    model.network.get_submodule("layers.0.rnn").weight_hh_l0[2, 3] = torch.nan
    with pytest.raises(ValueError, match="at position 0, row 0"):
        model.sample((2,), seed=0, precision="bf16-weights")
