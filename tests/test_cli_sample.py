"""`seriatim sample` with controls and lengths, on saved models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from seriatim import runs
from seriatim.context import Labels
from seriatim.controls import Controls
from seriatim.ending import Ending
from seriatim.engine import cpu
from seriatim.heads import Categorical, MixtureOfLogistics
from seriatim.models import LSTM, MADE, OrderAgnosticMADE
from seriatim.tasks import complete, generate, generate_scored
from test_cli import ok, refused
from test_tasks import roughened

FLAGS = ["--temperature", 0.8, "--top-k", 3, "--top-p", 0.9, "--min-p", 0.05]
CUT = Controls(0.8, 3, 0.9, 0.05)


def made(head=None):
    return MADE((2, 3), head, hidden_features=(8,))


MODELS = {
    "sequence": lambda: LSTM((5,), Categorical(4), hidden_features=4),
    "ending": lambda: LSTM((5,), Ending(Categorical(4)), hidden_features=4),
    "classes": lambda: LSTM((5,), Categorical(4), hidden_features=4, encoder=Labels(2)),
    "bits": made,
    "real": lambda: made(MixtureOfLogistics(2)),
    "free": lambda: OrderAgnosticMADE((4,), hidden_features=(6,)),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        runs.save(roughened(make()), folder / name)
    return folder


def lines(*arguments):
    return ok("sample", *arguments).stdout.splitlines()


@pytest.mark.parametrize("name", ["sequence", "ending", "bits"])
def test_the_options_are_controls(work, tmp_path, name):
    own = runs.load(work / name)
    ok("sample", work / name, "-n", 9, "--seed", 2, *FLAGS, "--out", tmp_path / "x.npy")
    expected = generate(own, 9, seed=2, controls=CUT)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected.numpy())
    assert not torch.equal(expected, generate(own, 9, seed=2))
    greedy = lines(work / name, "-n", 3, "--top-k", 1)
    assert len(set(greedy[1:])) == 1


def test_json_tells_log_p_and_log_q_and_what_was_asked_for(work):
    found = json.loads(ok("sample", work / "sequence", "-n", 3, "--seed", 1, *FLAGS, "--json").stdout)
    samples, log_prob, log_q = generate_scored(runs.load(work / "sequence"), 3, seed=1, controls=CUT)
    assert found["samples"] == samples.tolist()
    assert found["log_prob_nats"] == pytest.approx(log_prob.tolist(), abs=1e-5)
    assert found["log_q_nats"] == pytest.approx(log_q.tolist(), abs=1e-5)
    assert [found[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed")] == [0.8, 3, 0.9, 0.05, 1]
    plain = json.loads(ok("sample", work / "sequence", "-n", 2, "--json").stdout)
    assert plain["log_q_nats"] == pytest.approx(plain["log_prob_nats"])


def test_json_of_a_mixture_of_orders_and_of_a_stream(work, tmp_path):
    mixed = json.loads(ok("sample", work / "free", "-n", 2, "--orders", 3, "--json").stdout)
    joint = runs.load(work / "free").ensemble(3)
    expected = joint.log_prob(torch.tensor(mixed["samples"])).tolist()
    assert mixed["log_prob_nats"] == pytest.approx(expected, abs=1e-5)
    assert mixed["log_q_nats"] == mixed["log_prob_nats"]
    cold = json.loads(ok("sample", work / "free", "-n", 2, "--orders", 3, "--top-k", 1, "--json").stdout)
    assert cold["log_q_nats"] is None
    options = ["-n", 2, "--top-p", 0.8, "--json"]
    whole, grown = (
        json.loads(ok("sample", work / "bits", *options, *more, "--out", tmp_path / "x.png").stdout)
        for more in ([], ["--stream"])
    )
    assert grown["samples"] == whole["samples"]
    for name in ("log_prob_nats", "log_q_nats"):
        assert grown[name] == pytest.approx(whole[name], abs=1e-5)
    assert whole["log_q_nats"] != pytest.approx(whole["log_prob_nats"], abs=1e-3)


def test_sequences_of_any_length(work):
    for length in (3, 12):
        header, *rows = lines(work / "sequence", "-n", 2, "--length", length, *FLAGS)
        assert header.count(",") == length - 1
        drawn = generate(runs.load(work / "sequence"), 2, seed=0, length=length, controls=CUT)
        assert rows == [",".join(map(str, row)) for row in drawn.tolist()]
    every = lines(work / "classes", "-n", 2, "--length", 7)
    assert [line.split(",")[0] for line in every] == ["class", "0", "1", "0", "1"]
    assert every[0].endswith("x7")
    one = lines(work / "classes", "-n", 2, "--length", 7, "--context", 1)
    assert [line.count(",") for line in one] == [6, 6, 6]


def test_refusals_name_the_option(work, tmp_path):
    out = tmp_path / "x.npy"
    refusals = [
        ("sequence", ["--temperature", 0], ["--temperature: expected a number above 0, got 0"]),
        ("sequence", ["--top-k", 0], ["--top-k: expected a whole number, 1 or more, got 0"]),
        ("sequence", ["--top-p", 1.5], ["--top-p: expected a number above 0, up to 1, got 1.5"]),
        ("sequence", ["--min-p", "-0.1"], ["--min-p: expected a number from 0 to 1, got -0.1"]),
        ("sequence", ["--length", 0], ["--length: expected 1 or more, got 0"]),
        ("bits", ["--length", 4], ["--length: expected None, for", "got 4"]),
        ("free", ["--orders", 2, "--length", 4], ["--length: expected none with --orders"]),
        ("real", ["--temperature", 0.5], ["--temperature: expected 1 for Mixture", "no bits or levels, got 0.5"]),
        ("real", ["--top-k", 2], ["--top-k: expected None for Mixture", "got 2"]),
        ("sequence", ["--top-k", "many"], ["--top-k", "integer"]),
    ]
    for name, options, words in refusals:
        refused("sample", work / name, *options, "--out", out, words=words)
    assert not out.exists()


def test_verbose_tells_the_path_once(work, tmp_path, monkeypatch):
    native = "engine: native engine: faster than PyTorch for every kind of model and batch size that was measured\n"
    many = ("-n", 5, "--batch-size", 2, "--verbose")
    assert ok("sample", work / "bits", *many).stderr.count(native) == 1
    assert ok("sample", work / "sequence", *many, "--out", tmp_path / "x.npy").stderr.startswith(native)
    assert "engine" not in ok("sample", work / "bits", "-n", 2).stderr
    np.save(tmp_path / "x.npy", np.zeros((1, 2, 3)))
    assert native in ok("complete", work / "bits", tmp_path / "x.npy", "--region", "top", "--verbose").stderr
    monkeypatch.setattr(cpu, "kernels", lambda: None)
    assert ok("sample", work / "bits", *many).stderr == "engine: step by step in PyTorch: numba cannot be loaded\n"


def test_precision_is_asked_for(work, tmp_path):
    own = runs.load(work / "sequence")
    ok("sample", work / "sequence", "-n", 9, "--precision", "bf16-weights", "--out", tmp_path / "x.npy")
    expected = generate(own, 9, seed=0, precision="bf16-weights")
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected.numpy())
    bits = runs.load(work / "bits")
    rows = np.zeros((1, *bits.event_shape))
    np.save(tmp_path / "bits.npy", rows)
    half = tmp_path / "bits.npy", "--region", "top", "-n", 3, "--precision", "bf16-weights"
    ok("complete", work / "bits", *half, "--out", tmp_path / "done.npy")
    done = complete(bits, rows, "top", num=3, seed=0, precision="bf16-weights")
    np.testing.assert_array_equal(np.load(tmp_path / "done.npy"), done.samples.numpy())
    refused("sample", work / "sequence", "--precision", "int8", words="--precision: expected 'float32' or 'bf16-w")
