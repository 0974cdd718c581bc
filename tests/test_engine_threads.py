"""Rows are shared out over threads: the same samples, the same errors, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from engine_checks import SEED, close, drawn, terms_of
from seriatim import engine
from seriatim.causal import CausalSequential
from seriatim.context import Vector
from seriatim.ending import Ending
from seriatim.engine import cpu, pace
from seriatim.engine.pace import Pace
from seriatim.heads import Categorical
from seriatim.layers import CausalConv1d, SelfAttention
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, PixelCNN
from seriatim.order import Order


@pytest.fixture
def noted(monkeypatch) -> Iterator[list[int]]:
    """Let two threads be tried at once, whatever they save; how many are used is noted."""
    monkeypatch.setattr(pace, "THREADS_PAY", 0.0)
    monkeypatch.setattr(pace, "MEASURABLE", 0.0)
    counts, before, run = [], torch.get_num_threads(), cpu._advance

    def advance(blocks, start, numbers, scores, threads):
        counts.append(threads)
        run(blocks, start, numbers, scores, threads)

    monkeypatch.setattr(cpu, "_advance", advance)
    torch.set_num_threads(2)
    yield counts
    torch.set_num_threads(before)


def attentive() -> AutoregressiveModel:
    convolution = CausalConv1d(6, 24, 3, dilation=7, context_features=3)
    network = CausalSequential(convolution, SelfAttention(24, num_heads=3), nn.Linear(24, 6))
    return drawn(AutoregressiveModel(network, Categorical(6), Order((1024,)), Vector(3)))


def ending() -> AutoregressiveModel:
    model = drawn(LSTM((1024,), Ending(Categorical(5)), hidden_features=17))
    model.network.output_bias[0] = -3
    return model


def image() -> AutoregressiveModel:
    return drawn(PixelCNN((32, 32), hidden_features=4, num_layers=2), std=0.2)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("make", [attentive, ending, image])
def test_samples_do_not_depend_on_threads(make: Callable[[], AutoregressiveModel], batch, noted):
    model = make()
    p = model().expand((batch,)) if model.encoder is None else model(torch.linspace(-1, 1, 3 * batch).reshape(batch, 3))
    program = engine.lower(model)

    def sampled(threads: int) -> engine.Samples:
        torch.set_num_threads(threads)
        return engine.start(p, torch.arange(batch), SEED, program).advance(p.order.length, log_probs=True)

    one = sampled(1)
    assert set(noted) == {1}
    two = sampled(2)
    assert max(noted) == min(batch, 2)
    close(two.values, one.values, 0.0)
    close(two.log_probs, one.log_probs, 0.0)
    close(two.log_probs, terms_of(p, p.order.to_data(two.values)), 1e-4)
    assert len(one.values.unique(dim=0)) > batch // 2


def test_parts_and_forks_on_two_threads(noted):
    p, rows = attentive()(torch.linspace(-1, 1, 48).reshape(16, 3)), torch.arange(16)
    whole = p.sample(seed=SEED)
    session = engine.start(p, rows, SEED, engine.lower(p.model))
    parts = [session.advance(count).values for count in (1, 0, 299)]
    session.select(torch.tensor([4, 4, 15]))
    parts = [part[[4, 4, 15]] for part in parts]
    assert torch.equal(torch.cat([*parts, session.advance(724).values], 1), whole[[4, 4, 15]])
    assert max(noted) == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_first_position_without_numbers_is_named(threads, noted):
    torch.set_num_threads(threads)
    model, rows = drawn(LSTM((1024,), Categorical(50), hidden_features=17), std=0.1), torch.arange(100, 116)
    x = model().expand((16,)).rows(rows - 100).sample_rows(rows, SEED)
    value, position, row = _seen_late(x)
    assert (x == value).any(1).all()  # the other rows would stop later
    model.network.get_submodule("layers.0.rnn").weight_ih_l0.data[:, value] = torch.nan
    with pytest.raises(ValueError, match=f"at position {position + 1}, row {row + 100}$"):
        model().expand((16,)).rows(rows - 100).sample_rows(rows, SEED)


def _seen_late(x: torch.Tensor) -> tuple[int, int, int]:
    """A value that no row has at once, the first position where one has it, and the first such row."""
    firsts = [(int((x == value).any(0).float().argmax()), int(value)) for value in x.unique()]
    position, value = max(firsts)
    assert position
    return value, position, int((x[:, position] == value).nonzero()[0])


def test_ctrl_c_stops_all_threads(noted):
    model = drawn(LSTM((10_000_000,), Categorical(5), hidden_features=64))
    session = engine.start(model().expand((4,)), torch.arange(4), SEED, engine.lower(model))
    session.advance(2)
    before, handler = threading.active_count(), signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        started = time.perf_counter()
        with pytest.raises(KeyboardInterrupt):
            session.advance(1_000_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert time.perf_counter() - started < 5
    while threading.active_count() > before and time.perf_counter() - started < 5:  # one may end its chunk
        time.sleep(0.01)
    assert threading.active_count() == before
    assert max(noted) == 2
    assert 0 < session.position < 1_000_000


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 6, 16, 64, 65, 100, 300])
def test_each_row_is_in_one_block(num_rows, threads):
    blocks = cpu.cut(num_rows, threads)
    assert [row for block in blocks for row in range(num_rows)[block]] == list(range(num_rows))
    sizes = [block.stop - block.start for block in blocks]
    assert max(sizes) <= cpu.BLOCK_ROWS
    assert len(blocks) <= threads * -(-num_rows // (threads * cpu.BLOCK_ROWS))


def test_threads_are_kept_only_while_they_are_faster():
    pace = Pace()
    for _ in range(3):  # too short to be measured
        assert pace.plan(8, 1000, most=2)[0] == 1
        pace.learn(8, 1, pace.trial, 1e-5)
    pace.learn(8, 1, 100, seconds=0.08)
    assert pace.plan(8, 1, most=2) == (1, 1)  # too short to be shared out
    assert pace.plan(8, 1000, most=2)[0] == 2
    pace.learn(8, 2, 100, seconds=0.2)
    slow = 0
    while pace.plan(8, 1000, most=2)[0] == 1:
        pace.learn(8, 1, 100, seconds=0.08)
        slow += 1
    assert 10 < slow < 30  # tried again after a while
    pace.learn(8, 2, 100, seconds=0.05)
    assert pace.plan(8, 1000, most=2)[0] == 2


def test_threads_serve_single_positions_that_take_long():
    pace = Pace()
    pace.learn(8, 1, 1, seconds=3.0)  # compiled
    assert pace.plan(8, 1, most=2) == (1, 1)
    pace.learn(8, 1, 1, seconds=0.02)
    assert pace.plan(8, 1, most=2) == (2, 1)


def test_on_one_thread_a_short_sample_is_two_calls():
    pace = Pace()
    assert pace.plan(8, 700, most=1) == (1, 1)
    pace.learn(8, 1, 1, seconds=1e-4)
    assert pace.plan(8, 700, most=1) == (1, 700)
    assert pace.plan(8, 700, most=2) == (1, 8)  # where threads may help their worth is measured first
    slow = Pace()
    slow.learn(8, 1, 1, seconds=0.05)
    assert slow.plan(8, 700, most=1) == (1, 8)
    slow.learn(8, 1, 1, seconds=0.0)
    assert slow.plan(8, 700, most=1)[0] == 1
