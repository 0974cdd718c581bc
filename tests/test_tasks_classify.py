"""Bayes' rule over classes against brute force; prefixes, calibration and its error by hand; the verb `classify`."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import seriatim
from seriatim.causal import CausalSequential
from seriatim.cli import app
from seriatim.context import Labels, Vector
from seriatim.layers import LSTM
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, GatedPixelCNN
from seriatim.nested import Nested
from seriatim.order import Order, RandomOrder
from seriatim.tasks import (
    calibrate,
    calibration_error,
    class_frequencies,
    class_log_likelihoods,
    class_log_probs,
    classify,
    fit_temperature,
    log_posterior,
    posterior,
    progressive,
    quality,
)

PRIOR = np.array([0.5, 0.2, 0.3])


def roughened(model, scale=1.0):
    """Give a fresh model weights that make its conditionals far from uniform."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


MODELS = {
    "fvsbn": lambda: FVSBN((4,), encoder=Labels(3)),
    "fvsbn, permuted": lambda: FVSBN((2, 2), encoder=Labels(3), order=Order((2, 2), [2, 0, 3, 1])),
    "made, permuted": lambda: MADE((4,), hidden_features=(9,), encoder=Labels(3), order=RandomOrder((4,), seed=3)),
    "image": lambda: GatedPixelCNN((2, 2), hidden_features=3, num_layers=1, encoder=Labels(3)),
}


def every_row(model):
    """All binary rows, (16, *event_shape), and log p(x | c) of each under each class, (16, 3)."""
    x = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, *model.event_shape)
    with torch.no_grad():
        tables = [model.log_prob(x, torch.full((16,), c)) for c in range(3)]
    return x, torch.stack(tables, 1).double().numpy()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_posterior_is_bayes_rule_over_the_whole_table(make):
    model = roughened(make())
    x, table = every_row(model)
    np.testing.assert_allclose(class_log_probs(model, x, PRIOR, batch_size=5), np.log(PRIOR) + table, atol=1e-5)
    for prior in (None, PRIOR):
        joint = np.exp(table) * (1 / 3 if prior is None else prior)
        np.testing.assert_allclose(posterior(model, x, prior), joint / joint.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_prefix_posteriors_are_sums_over_the_rest(make):
    """p(x_1..t, c) by summing the whole table over all rows that agree on the first t positions of the order."""
    model = roughened(make())
    x, table = every_row(model)
    flat, read = x.flatten(1).numpy(), model.order.permutation.numpy()
    found = progressive(model, x, [3, 0, 1, 2, 4], PRIOR, batch_size=7)
    for row, t in itertools.product(range(16), range(5)):
        agree = (flat[:, read[:t]] == flat[row, read[:t]]).all(1)
        joint = PRIOR * np.exp(table[agree]).sum(0)
        np.testing.assert_allclose(found[[3, 0, 1, 2, 4].index(t), row], joint / joint.sum(), atol=1e-5)
    np.testing.assert_allclose(found[4], posterior(model, x, PRIOR), atol=1e-6)


def test_positions_may_hold_vectors():
    head = Nested(FVSBN((2,), encoder=Vector(3)))
    network = CausalSequential(LSTM(head.num_features, 4, context_features=2), nn.Linear(4, head.num_params))
    model = roughened(AutoregressiveModel(network, head, Order((3,)), Labels(2)), 0.5)
    x = torch.randint(2, (5, 3, 2), generator=torch.Generator().manual_seed(0)).float()
    whole = class_log_likelihoods(model, x)
    with torch.no_grad():
        direct = torch.stack([model.log_prob(x, torch.full((5,), c)) for c in range(2)], 1)
    np.testing.assert_allclose(whole, direct, atol=1e-5)
    assert progressive(model, x).shape == (4, 5, 2)


def test_classes_are_scored_without_dropout_and_the_mode_is_kept():
    model = roughened(MADE((4,), hidden_features=(20,), dropout=0.5, encoder=Labels(3))).train()
    x = every_row(model)[0]
    np.testing.assert_array_equal(posterior(model, x), posterior(model, x, batch_size=16))
    assert model.training


def test_rows_may_be_a_data_frame():
    generator = np.random.default_rng(0)
    y = generator.integers(2, size=80)
    frame = {"size": generator.normal(3 * y), "kind": np.where(generator.random(80) < 0.2 + 0.6 * y, "a", "b").tolist()}
    training = {"epochs": 2, "learning_rate": 0.05}
    model = seriatim.fit(frame, "fvsbn", labels=y, training=training)
    found = classify(model, frame, y, temperature=calibrate(model, frame, y))
    np.testing.assert_allclose(np.exp(log_posterior(found.log_likelihood)), posterior(model, frame), atol=1e-6)
    assert found.log_likelihood.shape == (80, 2)
    assert len(found.curve) == 3


def overconfident(rows=4000, sharpness=5.0, seed=0):
    """Log-likelihoods `sharpness` times too large, and classes drawn from the true posteriors."""
    generator = np.random.default_rng(seed)
    true = generator.normal(size=(rows, 4)) * 2
    p = np.exp(log_posterior(true))
    y = (p.cumsum(1) < generator.random((rows, 1))).sum(1).clip(max=3)
    return sharpness * true, y


@pytest.mark.parametrize("sharpness", [5.0, 0.2])
def test_the_temperature_found_is_the_one_that_was_hidden(sharpness):
    scores, y = overconfident(sharpness=sharpness)
    temperature = fit_temperature(scores, y)
    assert temperature == pytest.approx(sharpness, rel=0.1)
    before, after = quality(log_posterior(scores), y), quality(log_posterior(scores, None, temperature), y)
    assert after.log_loss < before.log_loss
    assert after.calibration_error < before.calibration_error
    assert after.accuracy == before.accuracy
    around = [quality(log_posterior(scores, None, t), y).log_loss for t in (temperature * 0.99, temperature * 1.01)]
    assert after.log_loss < min(around)


def test_a_temperature_is_fitted_beside_a_prior():
    scores, y = overconfident()
    prior = np.array([0.4, 0.3, 0.2, 0.1])
    best = fit_temperature(scores, y, prior)
    grid = np.geomspace(0.5, 50, 200)
    losses = [quality(log_posterior(scores, prior, t), y).log_loss for t in grid]
    assert best == pytest.approx(grid[int(np.argmin(losses))], rel=0.03)


def test_the_prior_is_not_tempered():
    scores = np.array([[-3.0, -1.0, -2.0], [0.0, 0.0, 0.0]])
    joint = PRIOR * np.exp(scores / 2)
    np.testing.assert_allclose(np.exp(log_posterior(scores, PRIOR, 2)), joint / joint.sum(1, keepdims=True))


def test_temperatures_at_the_ends():
    assert fit_temperature(np.array([[5.0, 0.0], [0.0, 5.0]]), [0, 1]) == 1.0  # every row right
    assert fit_temperature(np.array([[5.0, 0.0], [0.0, 5.0]]), [1, 0]) == pytest.approx(
        1e6, rel=1e-3
    )  # worse than none
    assert fit_temperature(np.array([[0.0, -np.inf], [-1.0, 0.0], [0.0, -2.0]]), [0, 1, 1]) > 0
    with pytest.raises(ValueError, match="row 1"):
        fit_temperature(np.array([[0.0, 0.0], [0.0, -np.inf]]), [0, 1])


def test_calibrate_fits_the_scores_of_the_model():
    model = roughened(FVSBN((4,), encoder=Labels(3)), 2.0)
    x, table = every_row(model)
    y = np.arange(16) % 3
    temperature = calibrate(model, x, y, batch_size=4)
    assert temperature == pytest.approx(fit_temperature(table, y), rel=1e-4)
    found = classify(model, x, y, temperature=temperature, prefixes=[0, 2, 4])
    assert found.after.log_loss < found.before.log_loss
    assert found.after.accuracy == found.before.accuracy
    assert found.curve[2] == found.before
    assert found.curve[0].true_probability == pytest.approx(1 / 3)
    assert found.shares == [0, 0.5, 1]
    assert classify(model, x, y).after is None


def test_calibration_error_by_hand():
    p = np.array([[0.95, 0.05], [0.85, 0.15], [0.35, 0.65], [0.4, 0.6], [0.5, 0.5]])
    y = [0, 1, 1, 0, 0]
    # Of ten bins: (.9, 1] is right once at .95; (.8, .9] wrong at .85; (.6, .7] right at .65; (.5, .6] wrong at .6;
    # (.4, .5] right at .5.
    assert calibration_error(p, y, 10) == pytest.approx((0.05 + 0.85 + 0.35 + 0.6 + 0.5) / 5)
    # Of two bins, (.5, 1]: 2 of 4 right, mean confidence .7625; (0, .5]: 1 of 1 at .5.
    assert calibration_error(p, y, 2) == pytest.approx(4 / 5 * (0.7625 - 0.5) + 1 / 5 * 0.5)


def test_quality_by_hand():
    found = quality(np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]), [2, 1])
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx(-(math.log(0.25) + math.log(0.8)) / 2)
    assert found.true_probability == pytest.approx(0.525)


def test_long_rows_do_not_underflow():
    np.testing.assert_allclose(log_posterior(np.array([[-9000.0, -9005.0]])), [[0, -5]], atol=0.01)
    assert quality(log_posterior(np.array([[-9000.0, -19000.0]])), [1]).log_loss == pytest.approx(10000)


def test_frequencies_are_a_prior():
    assert class_frequencies([0, 0, 2, 0], 4).tolist() == [0.75, 0, 0.25, 0]
    p = np.exp(log_posterior(np.zeros((1, 4)), class_frequencies([0, 0, 2, 0], 4)))
    np.testing.assert_allclose(p, [[0.75, 0, 0.25, 0]])


def test_nonsense_is_refused():
    model, x = FVSBN((4,), encoder=Labels(3)), torch.ones(2, 4)
    with pytest.raises(ValueError, match=r"model: expected one of p.* unconditional"):
        posterior(FVSBN((4,)), x)
    with pytest.raises(ValueError, match="x: expected shape"):
        posterior(model, torch.ones(2, 5))
    with pytest.raises(ValueError, match="x: expected one row"):
        posterior(model, torch.ones(0, 4))
    for prior in ([0.5, 0.5], [0.5, 0.2, 0.2], [1.5, -0.5, 0.0]):
        with pytest.raises(ValueError, match="prior: expected 3 probabilities"):
            posterior(model, x, prior)
    for prefixes in ([5], [-1], [], [0.5]):
        with pytest.raises(ValueError, match="prefixes: expected"):
            progressive(model, x, prefixes)
    for y in ([0, 3], [0], [0.5, 1.0], [-1, 0]):
        with pytest.raises(ValueError, match="y: expected"):
            classify(model, x, y)
    with pytest.raises(ValueError, match="temperature"):
        posterior(model, x, temperature=0)
    with pytest.raises(ValueError, match="row 1"):
        log_posterior(np.array([[0.0, 0.0], [-np.inf, -np.inf]]))


# --- the verb -------------------------------------------------------------------------------------------------------


def program(*arguments):
    """Run the program; its exit status, stdout and stderr."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ok(*arguments):
    result = program(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*arguments, words):
    """A wrong input: exit status 2, one line on stderr that holds the words, nothing on stdout."""
    result = program(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Runs on 3 x 3 images of three classes: p(x | class), and p(x)."""
    folder = tmp_path_factory.mktemp("classes")
    generator = np.random.default_rng(0)
    y = generator.integers(3, size=150)
    x = (generator.random((150, 3, 3)) < (0.2 + 0.3 * y)[:, None, None]).astype(np.uint8)
    np.savez(folder / "images.npz", x=x, y=y)
    common = ["--model", "fvsbn", "--epochs", 3, "--set", "training.learning_rate=0.1"]
    ok("train", folder / "images.npz", "--out", folder / "classes", "--context", "labels", *common)
    ok("train", folder / "images.npz", "--out", folder / "plain", "--model", "bayesnet")
    return folder


def test_the_verb_judges_the_test_split(work, tmp_path):
    from seriatim import runs
    from seriatim.data import load

    data, model = load(work / "images.npz"), runs.load(work / "classes")
    temperature = calibrate(model, data.valid, data.labels["valid"])
    expected = classify(model, data.test, data.labels["test"], temperature=temperature)
    result = ok("classify", work / "classes")
    assert f"temperature: {temperature:.4g}" in result.stderr
    assert f"{expected.before.log_loss:.4f}" in result.stdout
    assert f"{expected.after.log_loss:.4f}" in result.stdout
    found = json.loads(ok("classify", work / "classes", "--json").stdout)
    assert found["uncalibrated"]["accuracy"] == pytest.approx(expected.before.accuracy)
    assert found["calibrated"]["calibration_error"] == pytest.approx(expected.after.calibration_error)
    assert [point["positions"] for point in found["progressive"]] == list(range(10))
    assert found["progressive"][-1]["log_loss_nats"] == pytest.approx(expected.before.log_loss)
    by_train = json.loads(ok("classify", work / "classes", "--prior", "frequencies", "--json").stdout)
    shares = class_frequencies(data.labels["train"], 3)
    assert by_train["progressive"][0]["accuracy"] == pytest.approx((data.labels["test"] == shares.argmax()).mean())


def test_the_verb_draws_the_curve(work, tmp_path):
    for ending in ("png", "svg", "csv"):
        ok("classify", work / "classes", "--temperature", 2, "--progressive", tmp_path / f"c.{ending}")
    assert Image.open(tmp_path / "c.png").size[0] == 1440
    assert "mean p(true class)" in (tmp_path / "c.svg").read_text()
    lines = (tmp_path / "c.csv").read_text().splitlines()
    assert lines[0].startswith("positions,share,accuracy,mean_p_true")
    assert lines[1].startswith("0,0.000000,")
    assert lines[1].split(",")[3] == "0.333333"
    assert len(lines) == 11


def test_the_verb_predicts_the_rows_of_a_file(work, tmp_path):
    from seriatim import runs

    x = np.random.default_rng(1).integers(2, size=(4, 3, 3)).astype(np.uint8)
    np.save(tmp_path / "rows.npy", x)
    lines = ok("classify", work / "classes", tmp_path / "rows.npy", "--temperature", 3).stdout.splitlines()
    assert lines[0] == "row,class,p,p_0,p_1,p_2"
    p = posterior(runs.load(work / "classes"), x, temperature=3)
    rows = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
    np.testing.assert_allclose(rows[:, 3:], p, atol=1e-5)
    np.testing.assert_array_equal(rows[:, 1], p.argmax(1))
    np.testing.assert_allclose(rows[:, 2], p.max(1), atol=1e-5)
    known = ok("classify", work / "classes", work / "images.npz", "--out", tmp_path / "p.csv")
    assert "accuracy" in known.stderr
    assert (tmp_path / "p.csv").read_text().startswith("row,class,p,true,p_0")
    found = json.loads(ok("classify", work / "classes", tmp_path / "rows.npy", "--temperature", 3, "--json").stdout)
    np.testing.assert_allclose(np.exp(found["log_posterior_nats"]), p, atol=1e-5)


def test_a_model_alone_is_not_calibrated(work, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((1, 3, 3), dtype=np.uint8))
    result = ok("classify", work / "classes" / "model", tmp_path / "rows.npy")
    assert "not calibrated" in result.stderr
    refused("classify", work / "classes" / "model", words=["FILE", "without a run"])
    refused("classify", work / "classes" / "model", tmp_path / "rows.npy", "--prior", "frequencies", words=["--prior"])


def test_the_verb_refuses_nonsense(work, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((1, 3, 3), dtype=np.uint8))
    curve = tmp_path / "c.png"
    refused("classify", work / "plain", words=["p(x | class)", "without a context"])
    refused("classify", work / "classes", "--prior", "flat", words=["--prior", "uniform or frequencies", "flat"])
    refused("classify", work / "classes", "--temperature", 0, words=["--temperature", "positive"])
    refused("classify", work / "classes", "--progressive", tmp_path / "c.pdf", words=["--progressive", ".png"])
    refused("classify", work / "classes", tmp_path / "rows.npy", "--progressive", curve, words=["with their classes"])
    assert not curve.exists()


def test_the_report_of_a_model_of_classes_shows_them(work):
    ok("report", work / "classes", "--no-check")
    html = (work / "classes" / "report.html").read_text()
    assert "Can it tell the classes apart?" in html
    assert "mean p(true class)" in html
    ok("report", work / "plain", "--no-check")
    assert "tell the classes apart" not in (work / "plain" / "report.html").read_text()
