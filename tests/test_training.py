"""Training: each step is what it says, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import copy
import csv
import importlib.util
import json
import logging
import math
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from seriatim.context import Labels
from seriatim.data import array_dataset
from seriatim.models import FVSBN, MADE, OrderAgnosticMADE
from seriatim.runs import RunFolder, load
from seriatim.training import Diverged, Interrupted, TrainConfig, TrainingData, estimate, train
from seriatim.training.config import learning_rate_factor
from seriatim.training.data import Batches

GENERATOR = torch.Generator().manual_seed(0)
ROWS = (torch.rand(40, 5, generator=GENERATOR) < torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])).to(torch.uint8)
VALID = ROWS[:10] ^ 1
CONFIG = TrainConfig(
    epochs=3, batch_size=10, learning_rate=0.05, warmup_steps=3, ema_decay=0.9, save_every=0, patience=None, seed=1
)


def dropped_out(seed=0):
    """A model that draws both an order and dropout masks in a step."""
    torch.manual_seed(seed)
    return OrderAgnosticMADE((5,), hidden_features=(8,), dropout=0.3)


def flipped(batch, generator):
    """A transform that draws too."""
    return batch ^ (torch.rand(batch.shape, generator=generator) < 0.1).to(batch.dtype)


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class PowerCut(BaseException):
    """Ends a run like kill -9: nobody saves anything."""


class At:
    """A transform that does something when a new run takes its n-th batch: two calls more look at rows before."""

    def __init__(self, n, action):
        self.n, self.action, self.calls = n, action, 0

    def __call__(self, batch, generator):
        self.calls += 1
        if self.calls == self.n + 2:
            self.action()
        return flipped(batch, generator)


def cut():
    raise PowerCut


def without_seconds(file):
    with open(file) as lines:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(lines)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return train(dropped_out(), (ROWS, VALID), CONFIG, folder, progress=False, transform=flipped)


# --- what a step does -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l1", [0.0, 0.02])
def test_training_is_the_loop_written_out(l1):
    """Batches, warm-up and cosine, AdamW without decay on biases, clipping, the average of the weights: all by hand."""
    config = CONFIG.model_copy(update={"gradient_clip": 0.1, "weight_decay": 0.1, "l1": l1, "epochs": 2})
    torch.manual_seed(0)
    model = MADE((5,), hidden_features=(8,))
    twin = copy.deepcopy(model)
    result = train(model, (ROWS, VALID), config, progress=False)

    twin.initialise_output(ROWS.long())
    named = dict(twin.named_parameters())
    biases = [p for name, p in named.items() if name.endswith("bias")]
    matrices = [p for name, p in named.items() if name.endswith("weight")]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}])
    average, history, step = {name: p.detach().clone() for name, p in named.items()}, [], 0
    for epoch in range(2):
        total = 0.0
        for x, *_ in Batches(ROWS, None, 10, position=lambda epoch=epoch: 4 * epoch, seed=1):
            for group in optimizer.param_groups:
                warm, rest = (step + 1) / 3, 0.5 * (1 + math.cos(math.pi * (step - 3) / 5))
                group["lr"] = 0.05 * (warm if step < 3 else rest)
            nats = -twin.log_prob(x.long())
            optimizer.zero_grad()
            nats.mean().backward()
            torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
            for p in matrices:
                p.grad += l1 * p.detach().sign()
            optimizer.step()
            total, step = total + nats.sum().item(), step + 1
            decay = min(0.9, (1 + step) / (10 + step))
            average = {name: decay * average[name] + (1 - decay) * p.detach() for name, p in named.items()}
        averaged = copy.deepcopy(twin)
        averaged.load_state_dict(average)
        history.append((total / 40, -averaged.log_prob(VALID.long()).mean().item()))

    got = [(row["train_nats"], row["valid_nats"]) for row in result.history]
    np.testing.assert_allclose(got, history, rtol=1e-5)
    assert history[1][1] != history[0][1]
    best = min(range(2), key=lambda epoch: history[epoch][1])
    assert result.best_epoch == best + 1
    if best == 1:
        torch.testing.assert_close(weights(model), weights(averaged), rtol=1e-4, atol=1e-6)


def test_a_laplace_prior_finds_its_optimum_with_zeros_in_it():
    """At the optimum of nats + l1 sum |w| the gradient of the nats is -l1 sign(w), and at most l1 where w is 0."""
    rng, l1 = np.random.default_rng(0), 0.03
    x = rng.integers(0, 2, (200, 6))
    x[:, 5] = np.where(rng.random(200) < 0.9, x[:, 0], x[:, 5])  # one real dependence
    torch.manual_seed(0)
    model = FVSBN((6,))
    config = TrainConfig(epochs=1500, batch_size=200, learning_rate=0.05, weight_decay=0, l1=l1)
    train(model, x, config, progress=False)
    weight = model.network.linear.weight
    (gradient,) = torch.autograd.grad(-model.log_prob(torch.from_numpy(x)).mean(), weight)
    there = weight.abs() > 0.02
    assert 1 <= int(there.sum()) <= 6
    torch.testing.assert_close(gradient[there], -l1 * weight[there].sign(), rtol=0, atol=2e-3)
    assert float(gradient[~there].abs().max()) < l1 + 2e-3


def test_numbers_of_an_epoch(uninterrupted):
    row = uninterrupted.history[-1]
    assert (row["epoch"], row["step"]) == (3, 12)
    assert row["train_bits_per_dim"] == pytest.approx(row["train_nats"] / 5 / math.log(2))
    assert uninterrupted.valid_bits_per_dim == pytest.approx(uninterrupted.valid_nats / 5 / math.log(2))
    assert uninterrupted.valid_nats == min(row["valid_nats"] for row in uninterrupted.history)


def test_learning_rates_warm_up_and_follow_the_schedule():
    config = TrainConfig(warmup_steps=4)

    def rates(**changes):
        changed = config.model_copy(update=changes)
        return [round(learning_rate_factor(changed, step, 20), 4) for step in (0, 1, 3, 4, 12, 19)]

    assert rates() == [0.25, 0.5, 1.0, 1.0, 0.5, round(0.5 * (1 + math.cos(math.pi * 15 / 16)), 4)]
    assert rates(schedule="constant") == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]
    assert rates(schedule="inverse_sqrt") == [
        0.25,
        0.5,
        1.0,
        round((4 / 5) ** 0.5, 4),
        round((4 / 13) ** 0.5, 4),
        0.4472,
    ]
    assert rates(warmup_steps=0)[0] == 1.0
    assert learning_rate_factor(TrainConfig(warmup_steps=100), 9, 20) == 1.0  # half of all steps at most


def test_learning_rates_are_recorded():
    config = TrainConfig(epochs=3, batch_size=20, learning_rate=0.1, warmup_steps=2)
    result = train(FVSBN((5,)), ROWS, config, progress=False)
    expected = [0.1 * learning_rate_factor(config, step, 6) for step in (1, 3, 5)]
    assert [row["learning_rate"] for row in result.history] == pytest.approx(expected)


def test_training_starts_at_the_marginals():
    model = FVSBN((5,))
    with torch.no_grad():
        model.network.linear.weight.zero_()
    train(model, ROWS, TrainConfig(epochs=1, learning_rate=1e-12), progress=False)
    p = (ROWS.sum(0) + 0.5) / 41
    torch.testing.assert_close(model.network.linear.bias.detach(), torch.logit(p))
    untouched = FVSBN((5,))
    train(untouched, ROWS, TrainConfig(epochs=1, learning_rate=1e-12, start_at_marginals=False), progress=False)
    assert untouched.network.linear.bias.abs().max().item() < 1e-6


def test_early_stopping_keeps_the_best_epoch():
    config = TrainConfig(
        epochs=50, batch_size=40, learning_rate=0.1, schedule="constant", warmup_steps=0, start_at_marginals=False
    )
    torch.manual_seed(0)
    once, stopped = FVSBN((5,)), FVSBN((5,))
    stopped.load_state_dict(once.state_dict())
    worse = 1 - ROWS  # the better the fit of the rows, the worse that of their complement
    result = train(stopped, (ROWS, worse), config.model_copy(update={"patience": 4}), progress=False)
    assert (result.best_epoch, len(result.history)) == (1, 5)
    train(once, (ROWS, worse), config.model_copy(update={"epochs": 1}), progress=False)
    assert torch.equal(weights(stopped), weights(once))
    assert -stopped.log_prob(worse).mean().item() == pytest.approx(result.valid_nats, rel=1e-5)


def test_contexts_of_a_data_set_reach_a_conditional_model():
    labels = np.arange(40) % 2
    rows = np.tile(labels[:, None], (1, 3))  # each row says its class
    data = array_dataset(rows, labels=labels)
    model = FVSBN((3,), encoder=Labels(2))
    result = train(model, data, TrainConfig(epochs=60, batch_size=8, learning_rate=0.3), progress=False)
    assert result.valid_nats < 0.2 < math.log(2)


def test_a_single_position_with_nan_free_floats_in_double():
    """Rows in double precision train a model in single precision."""
    from seriatim.heads import Normal

    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = MADE((2,), Normal(), hidden_features=(4,))
    result = train(model, rows, TrainConfig(epochs=2, batch_size=10), progress=False)
    assert model.dtype == torch.float32
    assert math.isfinite(result.history[-1]["train_nats"])


# --- stopping and going on ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 6, 8, 9, 12])
def test_resume_after_a_kill_is_exact(uninterrupted, tmp_path, batch):
    folder = tmp_path / "run"
    with pytest.raises(PowerCut):
        train(dropped_out(), (ROWS, VALID), CONFIG, folder, progress=False, transform=At(batch, cut))
    assert not (folder / "model").exists()
    model = dropped_out(seed=9)  # its weights are those of the checkpoint, not its own
    result = train(model, (ROWS, VALID), CONFIG, folder, resume=True, progress=False, transform=flipped)
    assert torch.equal(weights(model), weights(uninterrupted.model))
    assert without_seconds(folder / "metrics.csv") == without_seconds(uninterrupted.folder / "metrics.csv")
    assert (result.steps, result.best_epoch) == (uninterrupted.steps, uninterrupted.best_epoch)


def test_a_run_killed_before_its_first_save_starts_over(uninterrupted, tmp_path):
    with pytest.raises(PowerCut):
        train(dropped_out(), (ROWS, VALID), CONFIG, tmp_path / "run", progress=False, transform=At(1, cut))
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    model = dropped_out()
    train(model, (ROWS, VALID), CONFIG, tmp_path / "run", resume=True, progress=False, transform=flipped)
    assert torch.equal(weights(model), weights(uninterrupted.model))


def test_resume_after_a_kill_replays_the_steps_since_the_last_save(uninterrupted, tmp_path):
    config = CONFIG.model_copy(update={"save_every": 1e9})  # only the start is saved
    with pytest.raises(PowerCut):
        train(dropped_out(), (ROWS, VALID), config, tmp_path / "run", progress=False, transform=At(7, cut))
    model = dropped_out(seed=9)
    train(model, (ROWS, VALID), config, tmp_path / "run", resume=True, progress=False, transform=flipped)
    assert torch.equal(weights(model), weights(uninterrupted.model))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_names_the_resume_command(uninterrupted, tmp_path, number):
    config = CONFIG.model_copy(update={"save_every": 1e9})
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt = At(6, lambda: signal.raise_signal(number))
    with pytest.raises(SystemExit) as stop:
        train(dropped_out(), (ROWS, VALID), config, tmp_path / "run", progress=False, transform=interrupt)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert isinstance(stop.value, Interrupted)
    # Batch 6 is taken from the loader one step ahead.
    assert str(stop.value) == f"stopped after step 5, saved; resume with: seriatim train --resume {tmp_path / 'run'}"
    seen = At(99, cut)
    model = dropped_out(seed=9)
    train(model, (ROWS, VALID), config, tmp_path / "run", resume=True, progress=False, transform=seen)
    assert seen.calls == 1 + 12 - 5  # one to look at rows, then no batch twice
    assert torch.equal(weights(model), weights(uninterrupted.model))


def test_an_interrupt_in_the_last_step_of_an_epoch_waits_for_its_validation(uninterrupted, tmp_path):
    model = dropped_out()
    steps, original = [], model.training_distribution

    def training_distribution(context=None):
        steps.extend([1] * model.training)
        if len(steps) == 4 and model.training:
            signal.raise_signal(signal.SIGINT)
        return original(context)

    model.training_distribution = training_distribution
    with pytest.raises(Interrupted) as stop:
        train(model, (ROWS, VALID), CONFIG, tmp_path / "run", progress=False, transform=flipped)
    assert stop.value.step == 4
    assert len(without_seconds(tmp_path / "run" / "metrics.csv")) == 1
    again = dropped_out(seed=9)
    train(again, (ROWS, VALID), CONFIG, tmp_path / "run", resume=True, progress=False, transform=flipped)
    assert torch.equal(weights(again), weights(uninterrupted.model))


def test_an_interrupt_without_a_folder_is_a_keyboard_interrupt():
    interrupt = At(3, lambda: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(dropped_out(), ROWS, CONFIG, progress=False, transform=interrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_rows_drawn_anew_each_epoch_are_those_of_the_epoch_after_a_resume(tmp_path):
    drawn = []

    def redraw(epoch):
        drawn.append(epoch)
        return ROWS ^ (epoch % 2)

    def data():
        return TrainingData(ROWS, VALID, redraw=redraw)

    whole, part = dropped_out(), dropped_out()
    train(whole, data(), CONFIG, progress=False, transform=flipped)
    assert sorted(set(drawn)) == [0, 1, 2]
    with pytest.raises(PowerCut):
        train(part, data(), CONFIG, tmp_path / "run", progress=False, transform=At(7, cut))
    train(part, data(), CONFIG, tmp_path / "run", resume=True, progress=False, transform=flipped)
    assert torch.equal(weights(part), weights(whole))


def test_a_finished_run_resumes_to_the_same_model_without_a_step(uninterrupted):
    model = dropped_out(seed=9)
    refuse = At(0, cut)  # rows are looked at once where a run is resumed
    result = train(model, (ROWS, VALID), CONFIG, uninterrupted.folder, resume=True, progress=False, transform=refuse)
    assert torch.equal(weights(model), weights(uninterrupted.model))
    assert (result.steps, result.valid_nats) == (uninterrupted.steps, uninterrupted.valid_nats)
    assert result.history == uninterrupted.history


def test_a_run_that_stopped_early_stays_stopped_and_more_epochs_go_on(tmp_path):
    config = TrainConfig(epochs=9, batch_size=40, learning_rate=0.1, warmup_steps=0, patience=2, save_every=0)
    worse = 1 - ROWS
    first = train(FVSBN((5,)), (ROWS, worse), config, tmp_path / "run", progress=False)
    assert first.steps < 9
    again = train(FVSBN((5,)), (ROWS, worse), config, tmp_path / "run", resume=True, progress=False)
    assert again.steps == first.steps
    patient = config.model_copy(update={"patience": 4})
    longer = train(FVSBN((5,)), (ROWS, worse), patient, tmp_path / "run", resume=True, progress=False)
    assert longer.steps == first.steps + 2


def test_resuming_refuses_another_run(uninterrupted, tmp_path):
    def resume(model=None, rows=ROWS, folder=uninterrupted.folder, **changes):
        config = CONFIG.model_copy(update=changes)
        train(model or dropped_out(), (rows, VALID), config, folder, resume=True, progress=False)

    with pytest.raises(ValueError, match=r"learning_rate: expected 0.05 as in .*last.ckpt, got 0.1"):
        resume(learning_rate=0.1)
    with pytest.raises(ValueError, match=r"data: expected the rows"):
        resume(rows=ROWS ^ 1)
    with pytest.raises(ValueError, match=r"model: expected that of"):
        resume(model=MADE((5,)))
    with pytest.raises(ValueError, match=r"expected the folder of a run"):
        resume(folder=tmp_path)
    with pytest.raises(ValueError, match=r"resume: expected False without a folder"):
        resume(folder=None)


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    train(dropped_out(), (ROWS, VALID), CONFIG.model_copy(update={"epochs": 1}), tmp_path / "run", progress=False)
    file = tmp_path / "run" / "checkpoints" / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{name}: expected"):
        train(dropped_out(), (ROWS, VALID), CONFIG, tmp_path / "run", resume=True, progress=False)


def test_a_folder_in_use_is_refused_before_the_model_changes(uninterrupted):
    model = dropped_out()
    before = weights(model)
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        train(model, (ROWS, VALID), CONFIG, uninterrupted.folder, progress=False)
    assert torch.equal(weights(model), before)


# --- what a run leaves ----------------------------------------------------------------------------------------------


def test_a_run_leaves_its_files(uninterrupted):
    run = RunFolder(uninterrupted.folder)
    assert run.config["training"]["learning_rate"] == 0.05
    assert len(without_seconds(run.metrics)) == 3
    best = torch.load(run.best, weights_only=True)
    assert best["epoch"] == uninterrupted.best_epoch
    torch.load(run.last, weights_only=True)  # plain types only
    loaded = load(run.path)
    x = ROWS[:5].long()
    assert torch.equal(loaded.log_prob(x), uninterrupted.model.log_prob(x))
    facts = json.loads((run.model / "config.json").read_text())["card"]
    assert facts["numbers"]["validation, -log p"] == [uninterrupted.valid_nats, "nats per row"]
    assert facts["data"]["training rows"] == 40
    assert len(facts["data"]["sha256 of the rows"]) == 64
    assert [p.name for p in run.checkpoints.iterdir() if p.name.startswith(".")] == []
    if importlib.util.find_spec("tensorboard") is not None:
        assert any((run.path / "tensorboard").iterdir())


def test_training_is_a_function_of_the_seed(uninterrupted):
    same, other = dropped_out(), dropped_out()
    torch.manual_seed(123)  # what the caller's generator holds makes no difference
    train(same, (ROWS, VALID), CONFIG, progress=False, transform=flipped)
    train(other, (ROWS, VALID), CONFIG.model_copy(update={"seed": 2}), progress=False, transform=flipped)
    assert torch.equal(weights(same), weights(uninterrupted.model))
    assert not torch.equal(weights(other), weights(uninterrupted.model))


def test_training_leaves_the_callers_world_as_it_was():
    model = dropped_out()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    level = logging.getLogger("lightning.pytorch").level
    train(model, ROWS, CONFIG, progress=True, transform=flipped)
    assert torch.equal(torch.rand(2), expected)
    assert logging.getLogger("lightning.pytorch").level == level
    assert torch.is_grad_enabled()


def test_what_is_shown(capfd, tmp_path):
    train(dropped_out(), (ROWS, VALID), CONFIG, tmp_path / "run", transform=flipped)
    out, err = capfd.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("estimate: ")
    assert "per epoch of 4 steps" in lines[0]
    assert "memory" in lines[0]
    assert lines[-1].startswith("epoch 3/3  train ")
    assert lines[-1].count(" nats ") == lines[-1].count(" bits/dim") == 2
    assert len(lines) <= 1 + 3  # nothing of Lightning's


def test_the_bar_of_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(dropped_out(), (ROWS, VALID), CONFIG)
    assert "epoch 3/3  train " in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_with_step_and_learning_rate(tmp_path):
    config = CONFIG.model_copy(update={"optimizer": "sgd", "learning_rate": 1e38, "warmup_steps": 0})
    with pytest.raises(Diverged, match=r"got nan at step [23] with learning rate [\d.]+e\+37|1e\+38"):
        train(MADE((5,), hidden_features=(8,)), (ROWS, VALID), config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "model").exists()


def test_the_estimate_changes_nothing_and_grows_with_the_batch():
    model, data = dropped_out(), TrainingData(ROWS, VALID)
    before = weights(model)
    torch.manual_seed(3)
    small = estimate(model, data, CONFIG.model_copy(update={"batch_size": 10}))
    large = estimate(model, data, CONFIG.model_copy(update={"batch_size": 20}))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(weights(model), before)
    assert all(parameter.grad is None for parameter in model.parameters())
    count = sum(parameter.numel() for parameter in model.parameters())
    assert small.parameter_bytes == 2 * 4 * count
    assert 3 * 4 * count <= small.optimizer_bytes <= 3 * 4 * count + 64  # two moments and the average, and counters
    assert 1.5 * small.activation_bytes < large.activation_bytes < 2.5 * small.activation_bytes
    assert (small.num_steps, large.num_steps) == (4, 2)
    assert small.seconds_per_epoch > small.seconds_per_validation > 0


# --- rows -----------------------------------------------------------------------------------------------------------


def test_an_epoch_takes_each_row_once_in_an_order_of_its_own():
    rows = torch.arange(23)[:, None]

    def epoch(number, **options):
        batches = Batches(rows, rows[:, 0], 5, position=lambda: 5 * number, seed=4, **options)
        return list(batches)

    first, again, second = epoch(0), epoch(0), epoch(1)
    assert [len(batch.x) for batch in first] == [5, 5, 5, 4, 4]
    assert sorted(torch.cat([batch.x for batch in first]).flatten().tolist()) == list(range(23))
    assert all(torch.equal(batch.x[:, 0], batch.context) for batch in first)
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.x, b.x) for a, b in zip(first, second, strict=True))
    shares = [epoch(0, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, left, right in zip(first, *shares, strict=True):
        assert torch.equal(whole.x, torch.cat([left.x, right.x]))
        assert left.num_rows == right.num_rows == len(whole.x)


def test_batches_go_on_from_a_position():
    def taken(position):
        return [batch.x for batch in Batches(ROWS, None, 10, position=lambda: position, seed=0, transform=flipped)]

    whole, rest = taken(4), taken(6)
    assert len(rest) == 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


@pytest.mark.parametrize(
    "data, message",
    [
        (
            ROWS.float().index_fill(0, torch.tensor([7]), torch.nan),
            r"train: expected Boolean\(\), got nan at row 7, position \(0,\)",
        ),
        ((ROWS, VALID + 1), r"valid: expected Boolean\(\), got 2 at row "),
        (ROWS[:, :4], r"train: expected shape \(N, 5\), got \(40, 4\)"),
        (ROWS[:0], "train: expected shape"),
        (np.array([["a"]]), "train: expected an array of numbers"),
        (TrainingData(ROWS, train_context=torch.zeros(40).long()), "train_context: expected none"),
    ],
)
def test_rows_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        train(FVSBN((5,)), data, TrainConfig(epochs=1), progress=False)


def test_contexts_that_do_not_fit_are_refused():
    model = FVSBN((5,), encoder=Labels(2))
    for context, message in (
        (None, "train_context: expected one for"),
        (torch.full((40,), 2), r"labels in 0\.\.1"),
        (torch.zeros(39).long(), "expected one for each of 40 rows"),
    ):
        with pytest.raises(ValueError, match=message):
            train(model, TrainingData(ROWS, train_context=context), TrainConfig(epochs=1), progress=False)


def test_settings_that_make_no_sense_are_refused():
    for changes in ({"epochs": 0}, {"batchsize": 3}, {"device": "tpu"}, {"strategy": "ddp_spawn"}, {"ema_decay": 1.0}):
        with pytest.raises(ValidationError):
            TrainConfig(**changes)
    with pytest.raises(ValueError, match="patience: expected None without validation"):
        train(FVSBN((5,)), ROWS, TrainConfig(patience=2), progress=False)
    with pytest.raises(ValueError, match="device: expected cpu"):
        train(FVSBN((5,)), ROWS, TrainConfig(device="mps"), progress=False)


# --- more than one process ------------------------------------------------------------------------------------------

DISTRIBUTED = """
    import json, sys, torch
    from seriatim.models import MADE
    from seriatim.training import TrainConfig, train

    if __name__ == "__main__":
        torch.manual_seed(0)
        model = MADE((5,), hidden_features=(8,))
        rows = (torch.rand(41, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
        config = TrainConfig(
            epochs=3, batch_size=10, learning_rate=0.05, warmup_steps=2, ema_decay=0.9, devices=int(sys.argv[1]),
            strategy=sys.argv[2], device="cpu", save_every=0,
        )
        result = train(model, (rows, rows[:11]), config, sys.argv[3], progress=False)
        print(json.dumps([[row["train_nats"], row["valid_nats"]] for row in result.history]))
"""


def test_two_processes_train_as_one_does(tmp_path):
    script = tmp_path / "distributed.py"
    script.write_text(textwrap.dedent(DISTRIBUTED))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "2", "ddp", str(tmp_path / "two")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    histories = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    assert len(histories) == 2  # a process each
    assert histories[0] == histories[1]

    torch.manual_seed(0)
    model = MADE((5,), hidden_features=(8,))
    rows = (torch.rand(41, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    config = TrainConfig(epochs=3, batch_size=10, learning_rate=0.05, warmup_steps=2, ema_decay=0.9)
    alone = train(model, (rows, rows[:11]), config, progress=False)
    expected = [[row["train_nats"], row["valid_nats"]] for row in alone.history]
    np.testing.assert_allclose(histories[0], expected, rtol=1e-5)
    torch.testing.assert_close(weights(load(tmp_path / "two")), weights(model), rtol=1e-3, atol=1e-5)
