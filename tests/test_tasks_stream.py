"""Values block by block: what `generate` draws, as soon as it is made, in memory that does not grow."""

from __future__ import annotations

import itertools

import pytest
import torch

from seriatim.context import Labels, Vector
from seriatim.controls import Controls
from seriatim.ending import Ending
from seriatim.heads import Categorical, MixtureOfLogistics, Normal, QuantizedMixtureOfLogistics
from seriatim.models import LSTM, MADE, NADE, OrderAgnosticMADE, WaveNet
from seriatim.nested import Nested
from seriatim.order import Order
from seriatim.tasks import generate, stream
from test_tasks import roughened

CUT = Controls(0.7, top_k=3, top_p=0.9)


def lstm(head=None, length=9, **options):
    return roughened(LSTM((length,), head or Categorical(4), hidden_features=6, **options))


def wavenet(length=9):
    sizes = {"residual_features": 4, "gate_features": 4, "skip_features": 4}
    head = QuantizedMixtureOfLogistics(16, 2)
    return roughened(WaveNet((length,), head, num_blocks=1, layers_per_block=3, **sizes, encoder=Labels(3)))


def whole(blocks):
    return torch.cat(list(blocks), dim=1)


@pytest.fixture
def steps(monkeypatch):
    """The lengths of the chunks that an LSTM layer has read."""
    lengths = []
    forward = torch.nn.LSTM.forward

    def counted(self, x, *rest):
        lengths.append(x.shape[1])
        return forward(self, x, *rest)

    monkeypatch.setattr(torch.nn.LSTM, "forward", counted)
    return lengths


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("controls", [Controls(), CUT], ids=["exact", "cut"])
@pytest.mark.parametrize(
    "own",
    [
        lstm(),
        lstm(Normal()),
        wavenet(),
        lstm(Nested(NADE((2,), hidden_features=3, encoder=Vector(4)))),
        roughened(MADE((2, 3), hidden_features=(8,), order=Order((2, 3), [5, 0, 4, 1, 3, 2]))),
    ],
    ids=["lstm", "reals", "wavenet", "chords", "made"],
)
def test_blocks_together_are_what_generate_draws(own, controls, engine):
    if isinstance(own.head, Normal):
        controls = Controls(controls.temperature)
    context = None if own.encoder is None else torch.tensor([2, 0, 1, 1])
    expected = own.order.to_positions(generate(own, 4, context, seed=3, controls=controls))
    for chunk in (1, 2, 4, 100):
        blocks = list(stream(own, 4, context, seed=3, controls=controls, engine=engine, chunk=chunk))
        assert [b.shape[1] for b in blocks[:-1]] == [chunk] * (len(blocks) - 1)
        assert blocks[0].dtype == expected.dtype
        torch.testing.assert_close(torch.cat(blocks, dim=1), expected)


@pytest.mark.parametrize("controls", [Controls(), CUT], ids=["exact", "cut"])
def test_a_stream_has_its_own_row_of_noise(controls):
    own = wavenet()
    context = torch.tensor([2, 0, 1, 1])
    together = whole(stream(own, 4, context, seed=3, first_row=10, controls=controls))
    for r in range(4):
        alone = whole(stream(own, 1, context[r], seed=3, first_row=10 + r, controls=controls, chunk=2))
        assert torch.equal(alone[0], together[r])
    assert not torch.equal(together, whole(stream(own, 4, context, seed=3, controls=controls)))
    both = zip(  # two streams of one model at once
        stream(own, 1, context[0], seed=3, first_row=10, controls=controls, chunk=3),
        stream(own, 1, context[1], seed=3, first_row=11, controls=controls, chunk=3),
        strict=True,
    )
    assert torch.equal(torch.cat([torch.cat(pair) for pair in both], dim=1), together[:2])


def test_the_first_block_comes_after_its_own_steps(steps):
    for chunk, controls in ((1, Controls()), (5, CUT)):
        steps.clear()
        blocks = stream(lstm(), 2, seed=0, chunk=chunk, controls=controls, engine="reference")
        assert steps == []
        next(blocks)
        assert steps == [1] * chunk
        next(blocks)
        assert len(steps) == min(2 * chunk, 9)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("controls", [Controls(), CUT], ids=["exact", "cut"])
def test_memory_does_not_grow_with_the_length(controls, engine):
    for own, context in ((lstm(), None), (wavenet(), 1)):
        blocks = stream(own, 2, context, seed=1, length=1 << 32, chunk=20, controls=controls, engine=engine)
        first = whole(itertools.islice(blocks, 2))  # the permutation of 2^32 places would take 32 GiB
        assert torch.equal(first, generate(own, 2, context, seed=1, length=40, controls=controls))


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("controls", [Controls(), CUT], ids=["exact", "cut"])
def test_a_prompt_is_read_at_once_and_gone_on_from(steps, controls, engine):
    own = lstm()
    expected = generate(own, 3, seed=5, controls=controls)
    for k in (1, 4, 8):
        options = {"seed": 5, "controls": controls, "engine": engine, "prompt": expected[:, :k]}
        steps.clear()
        blocks = stream(own, 3, chunk=2, **options)
        first = next(blocks)
        assert steps[0] == k + (engine == "reference")  # or it is handed over before its last
        assert torch.equal(torch.cat([first, *blocks], dim=1), expected[:, k:])
    assert list(stream(own, 3, seed=5, prompt=expected)) == []


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("controls", [Controls(), Controls(1.3, top_k=3)], ids=["exact", "cut"])
def test_a_stream_stops_where_all_its_sequences_have_ended(controls, engine):
    own = lstm(Ending(Categorical(3)), length=200)
    with torch.no_grad():
        own.network.output_bias[0] -= 1.0  # ends come late enough to differ
    expected = generate(own, 5, seed=2, controls=controls)
    lengths = own.lengths(expected)
    last = int(lengths.max())
    assert lengths.unique().numel() > 1
    assert 3 < last < 199
    for chunk in (1, 4, 1000):
        drawn = whole(stream(own, 5, seed=2, chunk=chunk, controls=controls, engine=engine))
        assert torch.equal(drawn, expected[:, : last + 1])  # the end itself is the last value
    assert list(stream(own, 2, seed=0, prompt=[1, -1])) == []
    gone_on = whole(stream(own, 5, seed=2, prompt=expected[:, :2], controls=controls, engine=engine))
    assert torch.equal(gone_on, expected[:, 2 : last + 1])


def test_between_blocks_the_model_is_the_callers():
    own = lstm(dropout=0.9)
    expected = generate(own, 2, seed=0, controls=CUT)
    own.train()
    blocks = []
    for block in stream(own, 2, seed=0, controls=CUT, chunk=2):
        assert own.training
        assert torch.is_grad_enabled()
        blocks.append(block)
    assert torch.equal(torch.cat(blocks, dim=1), expected)


def test_what_is_wrong_is_refused_at_the_call():
    own = lstm()
    for numbers in ({"num": 0}, {"first_row": -1}, {"chunk": 0}):
        with pytest.raises(ValueError, match="expected num >= 1, first_row >= 0 and chunk >= 1"):
            stream(own, **numbers)
    with pytest.raises(ValueError, match=r"length: expected 4294967296 at most, got 4294967297"):
        stream(own, length=(1 << 32) + 1)
    with pytest.raises(ValueError, match="length: expected 1 or more, got 0"):
        stream(own, length=0)
    with pytest.raises(ValueError, match="got an ensemble"):
        stream(OrderAgnosticMADE((3,), hidden_features=(8,)).ensemble(2))
    with pytest.raises(ValueError, match=r"top_k: expected None for Mixture, .*, got 2"):
        stream(lstm(MixtureOfLogistics(2)), controls=Controls(top_k=2))
    with pytest.raises(ValueError, match="prompt: expected 9 values at most, got 10"):
        stream(own, prompt=[0] * 10)
    with pytest.raises(ValueError, match="one for each of 2 samples, got 3"):
        stream(wavenet(), 2, torch.arange(3))
