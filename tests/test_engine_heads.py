"""Every head that the tape samples: the values and the log p of the reference, and parameters that are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seriatim import engine
from seriatim.causal import CausalSequential
from seriatim.engine.kernels.quantiles import normal_quantile
from seriatim.heads import (
    Bernoulli,
    Categorical,
    Head,
    Logistic,
    MixtureOfLogistics,
    MixtureOfNormals,
    Normal,
    QuantizedMixtureOfLogistics,
)
from seriatim.layers import CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.order import Order

HEADS: dict[str, Head] = {
    "bernoulli": Bernoulli(),
    "categorical": Categorical(5),
    "normal": Normal(),
    "logistic": Logistic(min_scale=0.1),
    "normals": MixtureOfNormals(3),
    "logistics": MixtureOfLogistics(1),
    "levels": QuantizedMixtureOfLogistics(17, 3),
    "bits": QuantizedMixtureOfLogistics(2, 1),
}


def model_of(head: Head, length: int = 400) -> AutoregressiveModel:
    torch.manual_seed(0)
    network = CausalSequential(
        CausalConv1d(head.num_features, 12, 2), nn.Tanh(), CausalConv1d(12, head.num_params, 3, dilation=4)
    )
    return AutoregressiveModel(network, head, Order((length,))).eval().requires_grad_(False)


@pytest.mark.parametrize("name", HEADS)
def test_values_and_log_p_are_those_of_the_reference(name):
    model = model_of(HEADS[name])
    p = model().expand((6,))
    wanted = p.sample(seed=2, engine="reference")
    found = p.sample(seed=2, engine="native")
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    samples = engine.start(p, torch.arange(6), 2, engine.lower(model)).advance(400, log_probs=True)
    terms = p.log_prob_terms(samples.values)
    torch.testing.assert_close(samples.log_probs, terms, rtol=0, atol=1e-4)
    assert len(wanted.unique()) > 1


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("bernoulli", "categorical")])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, -1])
def test_parameters_that_are_no_numbers_stop(name, bad, place):
    model = model_of(HEADS[name], 20)
    model.network.layers[-1].taps.bias.data[place] = bad
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 3"):
        engine.sample_rows(model().expand((1,)), torch.tensor([3]), seed=0)


def test_an_impossible_component_is_never_drawn():
    model = model_of(HEADS["normals"], 50)
    bias = model.network.layers[-1].taps.bias.data
    bias[1], bias[4] = -float("inf"), 1e6
    found, wanted = (model.sample((20,), seed=0, engine=path) for path in ("native", "reference"))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert found.abs().max() < 1e5


def test_a_wide_scale_is_held_as_by_the_head():
    model = model_of(HEADS["normal"], 20)
    model.network.layers[-1].taps.bias.data[1] = 200.0
    torch.testing.assert_close(
        model.sample((3,), seed=0, engine="native"), model.sample((3,), seed=0, engine="reference")
    )


def test_the_normal_quantile():
    u = torch.cat([torch.logspace(-15, -1, 200, dtype=torch.float64), torch.linspace(0.05, 0.95, 91).double()])
    u = torch.cat([u, 1 - u[u > 1e-10]])
    found = torch.tensor([normal_quantile(float(x)) for x in u], dtype=torch.float64)
    torch.testing.assert_close(found, torch.special.ndtri(u), rtol=1e-11, atol=1e-13)
