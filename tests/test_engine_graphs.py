"""What a CUDA graph would hold, run step by step on the CPU; on CUDA itself where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine_checks import drawn
from seriatim.causal import CausalSequential
from seriatim.context import Labels
from seriatim.ending import Ending
from seriatim.engine import graphs
from seriatim.heads import Bernoulli, Categorical, MixtureOfLogistics, Normal
from seriatim.layers import CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.models import GRU, LSTM, MADE, RNN, PixelCNN, Transformer, WaveNet
from seriatim.order import Order

T = 300
MODELS = {
    "rnn": lambda: RNN((T,), Bernoulli(), hidden_features=6),
    "gru": lambda: GRU((T,), Normal(), hidden_features=5, num_layers=2),
    "lstm, ending": lambda: LSTM((T,), Ending(Categorical(5)), hidden_features=6),
    "lstm, labels": lambda: LSTM((T,), Categorical(5), hidden_features=6, encoder=Labels(3)),
    "wavenet": lambda: WaveNet((T,), MixtureOfLogistics(2), num_blocks=1, layers_per_block=4, residual_features=6,
                               gate_features=6, skip_features=8),
    "convolution": lambda: AutoregressiveModel(
        CausalSequential(CausalConv1d(4, 8, 3, dilation=5), nn.Tanh(), nn.Linear(8, 4)), Categorical(4), Order((T,))
    ),
}  # fmt: skip
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def joint_of(model: AutoregressiveModel, batch: int):
    if model.encoder is None:
        return model().expand((batch,))
    return model(torch.arange(batch, device=model.device) % 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_steps_over_static_buffers_draw_what_rollout_draws(name, batch, device):
    model = drawn(MODELS[name]()).to(device)
    p, rows = joint_of(model, batch), torch.arange(batch, device=device) + 7
    assert graphs.fits(p)
    found = graphs.sample_rows(p, rows, seed=3)
    wanted = p.sample_rows(rows, 3, "reference")
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    if batch > 1:
        assert not torch.equal(found[0], found[1])


def test_what_looks_at_the_position_does_not_fit():
    models = [
        MADE((5,)),
        PixelCNN((4, 4), hidden_features=4, num_layers=1),
        Transformer((6,), Categorical(3), hidden_features=8, num_layers=1, num_heads=2),
    ]
    assert not any(graphs.fits(model().expand((2,))) for model in models)


def test_nan_is_told_with_its_position_and_row():
    model = drawn(LSTM((6,), Categorical(3), hidden_features=4))
    step = graphs.StaticStep(model().expand((2,)), torch.arange(2), seed=0)
    with torch.no_grad():
        for _ in range(2):
            step.step()
        next(iter(graphs._tensors(step.state)))[1].fill_(torch.nan)
        step.step()
        assert step.bad.tolist() == [-1, 2]
        step.position.zero_()
        with pytest.raises(ValueError, match="expected numbers, got NaN at position 2 of row 1"):
            step.sample()


def test_the_state_stays_where_it_is():
    model = drawn(LSTM((6,), Categorical(3), hidden_features=4))
    step = graphs.StaticStep(model().expand((2,)), torch.arange(2), seed=0)
    before = [tensor.data_ptr() for tensor in (step.x, step.values, *graphs._tensors(step.state))]
    with torch.no_grad():
        step.sample()
    assert [tensor.data_ptr() for tensor in (step.x, step.values, *graphs._tensors(step.state))] == before
    assert int(step.position) == 6
