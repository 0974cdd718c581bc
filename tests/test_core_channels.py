"""`ChannelMixtureOfLogistics`: its law, its samples, extreme parameters, and models of colours with it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch import Tensor

from seriatim import runs
from seriatim.channels import ChannelMixture, ChannelMixtureOfLogistics
from seriatim.config import from_config
from seriatim.fitting import fit
from seriatim.heads import QuantizedMixtureOfLogistics
from seriatim.models import GatedPixelCNN
from seriatim.testing import check
from test_cli import ok, refused
from test_cli_images import SMALL, paint
from zoo import randomised


def params_of(head: ChannelMixtureOfLogistics, *batch: int, size: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(*batch, head.num_params, generator=generator, dtype=torch.float64)


def pixels(levels: int, channels: int) -> Tensor:
    """All values of a pixel (levels^C, C)."""
    return torch.tensor(list(itertools.product(range(levels), repeat=channels)))


def plain_log_prob(levels: int, params: list[float], pixel: list[int]) -> float:
    """The formula once more, in loops: two components, three channels."""
    logits, means, log_scales, a = params[:2], params[2:8], params[8:14], params[14:]
    half, pairs, total = (levels - 1) / 2, {(1, 0): 0, (2, 0): 1, (2, 1): 2}, 0.0
    for m in range(2):
        p = np.exp(logits[m]) / np.exp(logits).sum()
        for c in range(3):
            mean = means[2 * c + m]
            mean += sum(np.tanh(a[2 * pairs[c, d] + m]) * (pixel[d] / half - 1) for d in range(c))
            scale = np.exp(log_scales[2 * c + m]) + 1e-4
            low, high = ((v / half - 1 - mean) / scale for v in (pixel[c] - 0.5, pixel[c] + 0.5))
            below = 0.0 if pixel[c] == 0 else 1 / (1 + np.exp(-low))
            above = 1.0 if pixel[c] == levels - 1 else 1 / (1 + np.exp(-high))
            p *= above - below
        total += p
    return float(np.log(total))


def test_the_law_is_the_formula():
    head = ChannelMixtureOfLogistics(4, 2)
    params, values = params_of(head), pixels(4, 3)
    expected = [plain_log_prob(4, params.tolist(), pixel) for pixel in values.tolist()]
    torch.testing.assert_close(head(params).log_prob(values), torch.tensor(expected, dtype=torch.float64))
    assert head.num_params == 2 * (1 + 2 * 3 + 3)


@pytest.mark.parametrize("size", [0.5, 3.0, 20.0])
def test_probabilities_sum_to_one(size):
    head = ChannelMixtureOfLogistics(4, 3)
    p = head(params_of(head, 2, 5, size=size))
    torch.testing.assert_close(p.log_prob(pixels(4, 3)[:, None, None]).exp().sum(0), torch.ones(2, 5).double())
    torch.testing.assert_close(p.total_mass(), torch.ones(2, 5, 3).double())


def test_one_channel_is_the_scalar_head():
    head, scalar = ChannelMixtureOfLogistics(9, 3, channels=1), QuantizedMixtureOfLogistics(9, 3)
    params = params_of(head, 2, 4)
    values = torch.arange(9)[:, None, None].expand(9, 2, 4)
    torch.testing.assert_close(head(params).log_prob(values[..., None]), scalar(params).log_prob(values))
    u = torch.rand(50, 2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(head(params).from_uniforms(u)[..., 0], scalar(params).from_uniforms(u))
    assert torch.equal(head.encode(values[..., None]), scalar.encode(values))
    rows = torch.randint(9, (30, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(head.marginal_params(rows[..., None]), scalar.marginal_params(rows))


def two_channels(a: float) -> ChannelMixture:
    """One component of 16 levels whose second channel is moved by `a` times the first."""
    one = torch.ones(2, 1, dtype=torch.float64)
    return ChannelMixture(torch.zeros(1).double(), 0 * one, 0.2 * one, torch.full((1, 1), a).double(), 16)


@pytest.mark.parametrize("a", [-0.8, 0.0, 0.8])
def test_channels_depend_on_each_other(a):
    p = two_channels(a)
    joint = p.log_prob(pixels(16, 2)).exp().unflatten(0, (16, 16))
    given = joint / joint.sum(1, keepdim=True)  # p(x_2 | x_1), a line for each x_1
    moved = float((given[12] - given[3]) @ torch.arange(16).double())
    assert moved == pytest.approx(9 * a, abs=1.0 if a else 1e-9)
    torch.manual_seed(0)
    drawn = p.sample((4000,)).double()
    correlation = float(torch.corrcoef(drawn.T)[0, 1])
    assert abs(correlation) < 0.06 if a == 0 else np.sign(a) * correlation > 0.4


def test_values_are_the_inverse_transform_of_their_uniforms():
    head = ChannelMixtureOfLogistics(6, 3)
    p = head(params_of(head))
    u = torch.rand(500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = p.from_uniforms(u)
    steps = p.logits.exp().cumsum(0)
    component = (steps <= u[:, :1]).sum(1)
    assert len(component.unique()) == 3
    for c in range(3):
        below = torch.zeros(500, dtype=torch.float64)
        for value in range(6):
            other = x.clone()
            other[:, c] = value
            mass = p.given(other[..., None]).log_prob(other[..., None]).exp()[:, c].gather(1, component[:, None])[:, 0]
            own = x[:, c] == value
            assert bool(((below <= u[:, 1 + c] + 1e-9) & (u[:, 1 + c] <= below + mass + 1e-9))[own].all())
            below += mass


@pytest.mark.parametrize("size", [30.0, 1e4])
def test_extreme_parameters_are_finite_in_float32(size):
    head = ChannelMixtureOfLogistics(256)
    params = params_of(head, 40, size=size).float().requires_grad_()
    values = torch.randint(256, (20, 40, 3), generator=torch.Generator().manual_seed(0))
    values[0], values[1] = 0, 255
    log_p = head(params).log_prob(values)
    log_p.sum().backward()
    assert bool(log_p.isfinite().all())
    assert bool(params.grad.isfinite().all())
    assert bool(head.support.check(head(params).sample((3,))).all())


def test_float32_agrees_with_float64_at_256_levels():
    head = ChannelMixtureOfLogistics(256)
    params = params_of(head, 200)
    params[:, 20:35] -= 4  # scales of a few levels
    torch.manual_seed(0)
    values = head(params).sample((5,))
    single, double = head(params.float()).log_prob(values), head(params).log_prob(values)
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-3)


def test_randomized_cdfs_are_uniform_and_catch_another_law():
    head = ChannelMixtureOfLogistics(256)
    p, other = head(params_of(head)), head(params_of(head, seed=1))
    torch.manual_seed(0)
    u, wrong = (q.randomized_cdf(p.sample((3000,))).sort(0).values for q in (p, other))
    even = torch.linspace(0, 1, 3000)[:, None]
    assert float((u - even).abs().max()) < 0.04
    assert float((wrong - even).abs().max()) > 0.1


def test_a_pixel_with_too_many_values_to_list_is_checked_by_its_conditionals():
    model = randomised(GatedPixelCNN((1, 2), ChannelMixtureOfLogistics(30, 2), hidden_features=3, num_layers=1))
    report = check(model, only=["normalisation", "sample_law", "causality", "receptive_field", "inverse_transform"])
    assert [result.status for result in report.results] == ["passed"] * 5


@pytest.mark.parametrize("make, argument", [({"levels": 1}, "levels"), ({"levels": 4, "channels": 0}, "channels")])
def test_bad_arguments_name_themselves(make, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*, got "):
        ChannelMixtureOfLogistics(**make)


def test_values_that_do_not_fit_are_refused():
    model = GatedPixelCNN((2, 2), ChannelMixtureOfLogistics(4), hidden_features=3, num_layers=1)
    with pytest.raises(ValueError, match=r"value: expected shape \(\.\.\., 2, 2, 3\), got \(1, 2, 2, 2\)"):
        model.log_prob(torch.zeros(1, 2, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"value: expected .*got \[4, 4, 4\] at \(0, 0, 0\)"):
        model.log_prob(torch.full((1, 2, 2, 3), 4))


def test_a_head_is_made_again_from_json():
    head = ChannelMixtureOfLogistics(16, 3, channels=2, min_scale=1e-3)
    again = from_config(json.loads(json.dumps(head.config)))
    assert repr(again) == repr(head)
    assert again.num_params == head.num_params == 3 * (1 + 4 + 1)


def test_one_component_learns_that_channels_agree():
    rng = np.random.default_rng(0)
    x = torch.as_tensor(np.clip(rng.integers(0, 30, (300, 1)) + rng.integers(0, 2, (300, 2)), 0, 31))
    head = ChannelMixtureOfLogistics(32, 1, channels=2)
    params = head.marginal_params(x[:, None]).requires_grad_()
    optimizer = torch.optim.Adam([params], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -head(params).log_prob(x[:, None]).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < np.log(30) + 2  # two channels apart need 2 log 30 = 6.8
    assert params[0, -1].tanh().item() > 0.8


def test_fit_takes_it_for_rows_that_end_in_channels():
    x = np.random.default_rng(0).integers(0, 8, (20, 2, 3, 3))
    options = {"hidden_features": 3, "num_layers": 1, "training": {"epochs": 1}, "valid": 0}
    model = fit(x, "gated_pixelcnn", head=ChannelMixtureOfLogistics(8, 3), **options)
    assert (model.order.shape, model.event_shape) == ((2, 3), (2, 3, 3))
    assert np.isfinite(model.score_samples(x)).all()
    with pytest.raises(ValueError, match=r"^head: expected rows whose last axes are \(2,\) .*, got \(2, 3, 3\)"):
        fit(x, "gated_pixelcnn", head=ChannelMixtureOfLogistics(8, channels=2), **options)


def test_the_command_line_takes_it_with_the_levels_of_the_data(tmp_path):
    paint(tmp_path / "pictures", count=6)
    run, head = tmp_path / "run", ["--set", "model.head=ChannelMixtureOfLogistics"]
    ok("train", tmp_path / "pictures", *SMALL, *head, "--levels", 8, "--out", run)
    model = runs.load(run)
    assert isinstance(model.head, ChannelMixtureOfLogistics)
    assert (model.head.levels, model.order.shape) == (8, (3, 4))
    assert "bits/dim" in ok("evaluate", run, "--no-baselines").stdout
    ok("complete", run, tmp_path / "pictures", "--region", "top", "--rows", "1", "--out", tmp_path / "done.png")
    ok("explain", run, tmp_path / "pictures", "--rows", "2", "--out", tmp_path / "bits.png")
    wrong = ["train", tmp_path / "pictures", *SMALL, *head, "--out", tmp_path / "none"]
    refused(*wrong, "--grey", words=["head", "(3,)", "(3, 4)"])
    refused(*wrong, "--set", "model.head_options={chanels: 3}", words=["head_options", "chanels"])
    assert not (tmp_path / "none").exists()
