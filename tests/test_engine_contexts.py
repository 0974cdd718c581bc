"""Contexts along a length of their own on the native engine: frames beside the positions, and sources to attend to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from engine_checks import SEED, agree, caught, drawn
from seriatim import engine
from seriatim.causal import CausalSequential, Residual
from seriatim.context import Encoder, Frames, Vector
from seriatim.ending import Ending, SequenceModel
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import Bernoulli, Categorical, MixtureOfLogistics
from seriatim.layers import CausalConv1d, CrossAttention, SelfAttention
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, WaveNet
from seriatim.nested import Nested
from seriatim.order import Order

WAVES = {"num_blocks": 2, "layers_per_block": 3, "residual_features": 9, "gate_features": 8, "skip_features": 7}


class Source(Encoder):
    """Symbols 1..K, anywhere among zeros that stand for none: (memory (B, S, F), mask (B, S))."""

    event_dim = 1

    def __init__(self, num_symbols: int, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.embedding = nn.Embedding(num_symbols + 1, num_features)

    def forward(self, context):
        return self.embedding(context), context != 0


def sources(longest: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    symbols = torch.randint(1, 7, (16, longest), generator=generator)
    symbols[:8] *= torch.arange(longest) < 1 + torch.arange(8)[:, None]  # padded behind
    symbols[8:] *= torch.rand(8, longest, generator=generator) < 0.6  # with gaps
    symbols[8:, 2] = 3
    return symbols


def translator(head, length: int = 60) -> AutoregressiveModel:
    def block(module: nn.Module) -> Residual:
        return Residual(CausalSequential(nn.LayerNorm(24), module))

    network = CausalSequential(
        CausalConv1d(head.num_features, 24, 3),
        *(block(SelfAttention(24, num_heads=3)), block(CrossAttention(24, num_heads=4)), block(nn.GELU())),
        *(block(CrossAttention(24, num_heads=1)), nn.Linear(24, head.num_params)),
    )
    model = drawn(SequenceModel(network, head, Order((length,)), Source(6, 24)), 0.3)
    model.network.output_bias.zero_()
    return model


@pytest.mark.parametrize("hop, head", [(1, Bernoulli()), (4, Categorical(5)), (7, Ending(Categorical(20)))], ids=str)
def test_frames(hop, head):
    model = drawn(WaveNet((60,), head, kernel_size=3, **WAVES, encoder=Frames(3, hop)))
    frames = torch.randn(16, 62, 3, generator=torch.Generator().manual_seed(2))
    x = agree(model, frames, prompts=(1, 33))
    assert not torch.equal(x, model(frames.flip(1)).sample(seed=SEED, engine="native"))


def test_frames_with_real_numbers():
    model = drawn(WaveNet((60,), MixtureOfLogistics(2), **WAVES, encoder=Frames(17, hop=5)), 0.2)
    agree(model, torch.randn(16, 12, 17, generator=torch.Generator().manual_seed(2)), prompts=(10,), tolerance=1e-4)


def test_frames_over_another_length():
    model = drawn(WaveNet((10,), Categorical(5), **WAVES, encoder=Frames(3, hop=4)))
    frames = torch.randn(3, 40, 3)
    found, wanted = (model(frames, length=150).sample(seed=1, engine=path) for path in ("native", "reference"))
    assert torch.equal(found, wanted)
    with pytest.raises(ValueError, match="context: expected frames for 150 positions or more, got frames for 40"):
        model(frames[:, :10], length=150).sample(seed=1)
    short = engine.lower(model, Order((161,)))
    with pytest.raises(ValueError, match="state: expected one of 161 positions or more, got 150"):
        engine.start(model(frames, length=150), torch.arange(3), 0, short)


@pytest.mark.parametrize("head", [Bernoulli(), Categorical(7), Ending(Categorical(7))], ids=str)
def test_sources_of_different_lengths(head):
    model = translator(head)
    x = agree(model, sources(), prompts=(1, 40))
    assert not torch.equal(x, model(sources().flip(0)).sample(seed=SEED, engine="native"))


def test_padding_does_not_matter():
    model = translator(Categorical(7))
    padded = nn.functional.pad(sources(), (0, 5))
    both = [model(context).sample(seed=SEED, engine="native") for context in (sources(), padded)]
    assert torch.equal(*both)
    single = torch.tensor([[5]])
    found, wanted = (model(single).sample((4,), seed=SEED, engine=path) for path in ("native", "reference"))
    assert torch.equal(found, wanted)


def test_a_source_of_nothing_but_padding():
    model = translator(Categorical(7))
    found, wanted = (model(torch.zeros(2, 4).long()).sample(seed=1, engine=path) for path in ("native", "reference"))
    assert torch.equal(found, wanted)


def test_a_bad_number_in_a_source_stops_its_own_row_only():
    model = translator(Categorical(7))
    model.encoder.embedding.weight.data[6] = torch.nan
    context = sources().clone()
    context[context == 6] = 5
    context[4, 0] = 6
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 4"):
        model(context).sample(seed=0, engine="native")
    context[4, 0] = 0
    assert model(context).sample(seed=0, engine="native").numel()


def test_inside_a_position_they_are_refused():
    inner = WaveNet((5,), Bernoulli(), **WAVES, encoder=Frames(4, hop=2))
    head = Nested(WaveNet((5,), Bernoulli(), **WAVES, encoder=Vector(4)))
    head.model.network = inner.network
    with pytest.raises(engine.CannotLower, match="contexts along a length of their own"):
        engine.lower(LSTM((5,), head, hidden_features=4))


# ---- planted bugs


def test_planted_bugs_of_frames_are_caught():
    model = drawn(WaveNet((60,), Categorical(5), **WAVES, encoder=Frames(3, hop=4)))
    p, program = model(torch.randn(16, 15, 3)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, program, wanted)
    session = engine.start(p, torch.arange(16), SEED, program)
    session.memories = [memory.roll(1, 0) for memory in session.memories]  # each row reads another's frames
    assert not torch.equal(session.advance(60).values, wanted)
    place = (program.cursors[:, 0] > 2**30).nonzero().flatten()
    assert len(place) == 1
    for column, change in ((1, -16), (2, 1)):  # the numbers of a position, and how many positions ago
        if column == 2:
            change = -1  # a position ahead
        cursors = program.cursors.clone()
        cursors[place, column] += change
        assert caught(p, replace(program, cursors=cursors), wanted)


def test_planted_bugs_of_sources_are_caught():
    model = translator(Categorical(7))
    p, program = model(sources()), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, program, wanted)
    code = program.code.clone()
    first = int((code[:, 0] == Op.ATTEND_SOURCE).nonzero()[0])
    code[first, NUMBERS + 1] = 2  # heads
    assert caught(p, replace(program, code=code), wanted)
    session = engine.start(p, torch.arange(16), SEED, program)
    session.memories[0][:, 0] = 9  # padding is attended to
    assert not torch.equal(session.advance(60).values, wanted)
