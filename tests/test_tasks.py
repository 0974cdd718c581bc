"""Evaluation, baselines, explanation and generation against hand counts and brute force."""

from __future__ import annotations

import lzma
import math
import zlib

import numpy as np
import pytest
import torch

from seriatim.context import Labels
from seriatim.fitting import fit
from seriatim.heads import Normal
from seriatim.models import FVSBN, MADE, BayesNet, OrderAgnosticMADE
from seriatim.tasks import Baseline, baselines, evaluate, explain, generate, paired_difference
from seriatim.tasks.baselines import packed_bytes
from seriatim.tasks.evaluate import bootstrap_interval


def roughened(model, scale=0.7):
    """Give a fresh model weights that make its conditionals far from uniform."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def bits(*shape, seed=0):
    return np.random.default_rng(seed).integers(2, size=shape).astype(np.uint8)


def test_evaluate_agrees_with_log_prob_whatever_the_batches():
    model, x = roughened(MADE((3, 3), hidden_features=(12,))), bits(11, 3, 3)
    expected = model.log_prob(torch.as_tensor(x)).detach().double().numpy()
    for batch_size in (1, 4, 100):
        result = evaluate(model, x, batch_size=batch_size)
        np.testing.assert_allclose(result.log_prob, expected, atol=1e-5)
    assert result.num_dimensions == 9
    assert result.nats == pytest.approx(-expected.mean(), abs=1e-5)
    assert result.bits_per_dim == pytest.approx(-expected.mean() / 9 / math.log(2), abs=1e-6)
    assert result.bits_per_dim_interval[0] == pytest.approx(result.interval[0] / 9 / math.log(2))
    assert "nats per row" in str(result)
    assert "bits per dimension" in str(result)


def test_evaluate_pairs_each_row_with_its_context():
    model = roughened(FVSBN((4,), encoder=Labels(3)))
    x, context = bits(6, 4), torch.tensor([0, 1, 2, 2, 1, 0])
    result = evaluate(model, x, context, batch_size=4)
    own = [float(model(c).log_prob(torch.as_tensor(row)).detach()) for row, c in zip(x, context, strict=True)]
    np.testing.assert_allclose(result.log_prob, own, atol=1e-5)
    single = evaluate(model(torch.tensor(1)), x, batch_size=4)
    np.testing.assert_allclose(single.log_prob, model(torch.tensor(1)).log_prob(torch.as_tensor(x)).detach(), atol=1e-5)


def test_evaluate_leaves_dropout_out_and_the_mode_as_it_was():
    model = roughened(MADE((6,), hidden_features=(20,), dropout=0.5)).train()
    x = bits(5, 6)
    np.testing.assert_array_equal(evaluate(model, x).log_prob, evaluate(model, x).log_prob)
    assert model.training


def test_evaluate_takes_ensembles():
    model, x = roughened(OrderAgnosticMADE((4,), hidden_features=(8,))), bits(5, 4)
    ensemble = model.ensemble(3)
    result = evaluate(ensemble, x, batch_size=2)
    np.testing.assert_allclose(result.log_prob, ensemble.log_prob(torch.as_tensor(x)).detach(), atol=1e-5)


@pytest.mark.parametrize("x", [np.zeros((0, 4)), np.zeros((2, 5)), np.full((2, 4), 2)])
def test_evaluate_refuses_bad_rows(x):
    with pytest.raises(ValueError, match="expected"):
        evaluate(FVSBN((4,)), x)


def test_bootstrap_interval_has_the_width_of_the_normal_theory_and_covers():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values, num_resamples=4000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    assert (low, high) == bootstrap_interval(values, num_resamples=4000)
    assert (low, high) != bootstrap_interval(values, num_resamples=4000, seed=1)
    draws = [np.random.default_rng(100 + i).exponential(size=60) for i in range(200)]
    covered = [low <= 1 <= high for low, high in (bootstrap_interval(d, num_resamples=300) for d in draws)]
    assert 0.85 <= np.mean(covered) <= 0.99


def test_bootstrap_survives_infinite_rows():
    assert bootstrap_interval(np.array([np.inf, np.inf, 1.0, 2.0]))[1] == np.inf


def test_paired_difference_sees_what_two_intervals_hide():
    hard = np.random.default_rng(0).normal(-50, 20, size=200)
    gain, (low, high) = paired_difference(hard + 0.5 + 0.1 * np.sin(np.arange(200)), hard)
    assert gain == pytest.approx(0.5, abs=0.02)
    assert 0 < low < gain < high
    with pytest.raises(ValueError, match="same rows"):
        paired_difference(hard, hard[:-1])


def test_factorised_baseline_by_hand():
    train = np.array([[0, 1], [0, 1], [1, 1]])
    test = np.array([[0, 1], [1, 0]])
    (found,) = baselines(train, test, num_values=2, only=["factorised"])
    # p(x1 = 1) = (1 + .5) / 4, p(x2 = 1) = (3 + .5) / 4
    expected = -np.mean([math.log(2.5 / 4 * 3.5 / 4), math.log(1.5 / 4 * 0.5 / 4)])
    assert found.nats == pytest.approx(expected, abs=1e-5)
    assert found.bits_per_dim == pytest.approx(expected / 2 / math.log(2), abs=1e-5)


def test_factorised_baseline_of_real_numbers_has_the_head_s_base_measure():
    x = np.random.default_rng(0).normal(5, 3, size=(500, 2))
    (found,) = baselines(x, x, head=Normal(), only=["factorised"])
    entropy = sum(0.5 * math.log(2 * math.pi * math.e * x[:, d].var()) for d in range(2))
    assert found.nats == pytest.approx(entropy, rel=1e-3)
    others = baselines(x, x, head=Normal(), only=["chow-liu", "zlib", "xz"])
    assert all(b.nats is None and "discrete" in b.detail for b in others)


def test_chow_liu_baseline_is_the_learned_tree():
    rng = np.random.default_rng(0)
    train, test = (np.repeat(rng.integers(3, size=(n, 1)), 4, axis=1) for n in (60, 20))
    (found,) = baselines(train, test, num_values=3, only=["chow-liu"])
    net = BayesNet.learn(train, arities=3, pseudo_count=0.1)
    assert found.nats == pytest.approx(-float(net.log_prob(torch.as_tensor(test)).detach().mean()), abs=1e-5)
    (wide,) = baselines(train, test, num_values=1000, only=["chow-liu"])
    assert wide.nats is None


def test_compressors_count_the_bytes_of_the_concatenation():
    test = bits(40, 5)
    found = {b.name: b for b in baselines(test, test, num_values=2, only=["zlib", "xz"])}
    raw = np.packbits(test.reshape(-1)).tobytes()
    assert found["zlib"].nats == pytest.approx(len(zlib.compress(raw, 9)) * 8 * math.log(2) / 40)
    assert found["xz"].bits_per_dim == pytest.approx(
        len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) * 8 / (40 * 5)
    )
    assert packed_bytes(np.array([[1, 256]]), 257) == b"\x01\x00\x00\x01"
    assert packed_bytes(np.array([[1, 255]]), 256) == b"\x01\xff"


def test_baselines_refuse_nonsense():
    with pytest.raises(ValueError, match="gzip"):
        baselines(bits(3, 2), bits(3, 2), num_values=2, only=["gzip"])
    with pytest.raises(ValueError, match="test"):
        baselines(bits(3, 2), bits(3, 3), num_values=2)
    assert isinstance(baselines(bits(3, 2), bits(2, 2), num_values=2)[0], Baseline)


def test_explain_gives_the_bits_of_each_conditional():
    model, x = roughened(MADE((2, 3), hidden_features=(9,))), bits(7, 2, 3)
    found = explain(model, x, batch_size=3)
    # p(x_t | x_<t) by sums over all suffixes.
    flat = torch.as_tensor(x).flatten(1)
    for row in range(7):
        mass = [1.0]
        for t in range(1, 7):
            tails = (
                torch.cartesian_prod(*[torch.arange(2)] * (6 - t)).reshape(-1, 6 - t) if t < 6 else torch.zeros(1, 0)
            )
            whole = torch.cat([flat[row, :t].expand(len(tails), -1), tails], dim=1).reshape(-1, 2, 3)
            mass.append(float(model.log_prob(whole).detach().exp().sum()))
        expected = [-math.log2(mass[t + 1] / mass[t]) for t in range(6)]
        np.testing.assert_allclose(found.bits[row].reshape(-1), expected, atol=1e-4)
    np.testing.assert_allclose(found.bits.sum((1, 2)) * math.log(2), -found.log_prob, atol=1e-4)
    assert "sum to" in found.note


def test_explain_names_columns_and_says_what_an_ensemble_adds_up_to():
    model, x = roughened(OrderAgnosticMADE((3,), hidden_features=(8,))), bits(6, 3)
    found = explain(model.ensemble(4), x)
    assert "at least" in found.note
    assert (found.bits.sum(1) * math.log(2) >= -found.log_prob - 1e-5).all()
    columns = found.columns(["a", "b", "c"])
    assert [c.name for c in columns] == ["a", "b", "c"]
    assert columns[1].max_bits == found.bits[columns[1].max_row, 1] == found.bits[:, 1].max()
    assert columns[2].mean_bits == pytest.approx(found.bits[:, 2].mean())
    with pytest.raises(ValueError, match="names"):
        found.columns(["a"])


def test_explain_takes_a_table_and_names_its_columns():
    frame = {"rain": ["no", "yes"] * 20, "wet": ["no", "yes"] * 20}
    model = fit(frame, "bayesnet")
    found = explain(model, {"wet": ["yes"], "rain": ["no"]})
    np.testing.assert_array_equal(found.bits, explain(model, np.array([[0, 1]])).bits)
    assert [column.name for column in found.columns()] == ["rain", "wet"]
    assert evaluate(model, frame).nats == pytest.approx(evaluate(model, model.schema.encode(frame)).nats)


@pytest.mark.parametrize("ensemble", [False, True])
def test_samples_do_not_depend_on_batches(ensemble):
    model = roughened(OrderAgnosticMADE((5,), hidden_features=(8,)))
    source = model.ensemble(3) if ensemble else model
    whole = generate(source, 13, seed=3, batch_size=100)
    calls = []
    torch.testing.assert_close(
        generate(source, 13, seed=3, batch_size=4, progress=lambda done, wanted: calls.append((done, wanted))), whole
    )
    assert calls == [(4, 13), (8, 13), (12, 13), (13, 13)]
    torch.testing.assert_close(generate(source, 5, seed=3, first_row=8), whole[8:])
    reference = source.sample((13,), seed=3)
    torch.testing.assert_close(whole, reference)
    assert not torch.equal(whole, generate(source, 13, seed=4))


@pytest.mark.parametrize("ensemble", [False, True])
def test_generate_samples_by_the_engine_asked_for(ensemble):
    model = roughened(OrderAgnosticMADE((5,), hidden_features=(8,)))
    source = model.ensemble(3) if ensemble else model
    reference = generate(source, 5, seed=3, engine="reference")
    for engine in ("auto", "native"):
        torch.testing.assert_close(generate(source, 5, seed=3, engine=engine), reference)
    model = model.double()
    source = model.ensemble(3) if ensemble else model
    with pytest.raises(ValueError, match="sampled natively, but the tape is float32"):
        generate(source, 5, seed=3, engine="native")


def test_generate_gives_each_sample_its_context():
    model = roughened(FVSBN((4,), encoder=Labels(2)), scale=3.0)
    context = torch.tensor([0, 1] * 5)
    mixed = generate(model, 10, context, seed=0, batch_size=3)
    torch.testing.assert_close(mixed[::2], generate(model, 10, torch.tensor(0), seed=0)[::2])
    torch.testing.assert_close(mixed[1::2], generate(model, 10, torch.tensor(1), seed=0)[1::2])
    assert generate(model, 0, torch.tensor(1)).shape == (0, 4)
    with pytest.raises(ValueError, match="context"):
        generate(model, 3, context)
    with pytest.raises(ValueError, match="num"):
        generate(model, -1, torch.tensor(0))
