"""Torch's own modules on the native engine: the numbers of torch, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine_checks import agree, drawn
from seriatim import engine
from seriatim.causal import CausalSequential
from seriatim.engine.kernels import numbers
from seriatim.heads import Categorical, Normal
from seriatim.layers import CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.order import Order

ACTIVATIONS = [
    nn.ReLU(),
    nn.Tanh(),
    nn.Sigmoid(),
    nn.ELU(),
    nn.ELU(alpha=0.3),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.SiLU(),
    nn.Softplus(),
    nn.LeakyReLU(),
    nn.LeakyReLU(0.3),
]


def model_of(head, *modules: nn.Module) -> AutoregressiveModel:
    network = CausalSequential(CausalConv1d(head.num_features, 21, 2), *modules, nn.Linear(21, head.num_params))
    return AutoregressiveModel(network, head, Order((50,)))


@pytest.mark.parametrize("module", ACTIVATIONS, ids=str)
def test_activations(module):
    agree(drawn(model_of(Categorical(6), module)), prompts=(20,))
    apart = (nn.LayerNorm(21), module, CausalConv1d(21, 21, 2, dilation=3))  # where no product applies it
    agree(drawn(model_of(Normal(), *apart), 0.2), tolerance=1e-4)


@pytest.mark.parametrize(
    "ours, theirs", [(numbers.erf, torch.erf), (numbers.sigmoid, torch.sigmoid)], ids=["erf", "sigmoid"]
)
def test_functions_of_one_number(ours, theirs):
    grid = torch.cat([torch.linspace(-9, 9, 1501), torch.tensor([-1e-6, 1e-6, 300.0, -300.0, torch.inf, -torch.inf])])
    found = torch.tensor([ours(np.float32(x)) for x in grid], dtype=torch.float64)
    assert (found - theirs(grid.double())).abs().max() < 4e-7
    assert np.isnan(ours(np.float32("nan")))


@pytest.mark.parametrize("module", ACTIVATIONS, ids=str)
def test_nan_goes_through(module):
    model = drawn(model_of(Categorical(6), module))
    model.network.layers[0].taps.bias[3] = torch.nan
    with pytest.raises(ValueError, match="at position 0, row 0"):
        model.sample((1,), seed=0, engine="native")


def test_what_cannot_be_lowered_says_so():
    for module, reason in (
        (nn.Softplus(beta=2), "Softplus with beta 2"),
        (nn.Softsign(), "Softsign has no lower method"),
        (nn.LayerNorm(21, elementwise_affine=False), "without weights"),
    ):
        with pytest.raises(engine.CannotLower, match=reason):
            engine.lower(model_of(Categorical(6), module))
