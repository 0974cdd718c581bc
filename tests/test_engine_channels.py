"""Channels as positions and maps as context on the native engine, with every network over images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine_checks import SEED, agree, caught, drawn
from seriatim import engine
from seriatim.causal import CausalSequential, Residual
from seriatim.context import Labels, SpatialMap, Vector
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import Bernoulli, Categorical, QuantizedMixtureOfLogistics
from seriatim.layers import MaskedConv2d
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, PixelSNAIL, RowLSTM
from seriatim.nested import Nested
from seriatim.order import Order, Scan

NETWORKS = {
    PixelCNN: {"num_layers": 2, "first_kernel_size": 5},
    GatedPixelCNN: {"num_layers": 2, "first_kernel_size": 5},
    RowLSTM: {"num_layers": 2, "first_kernel_size": 3},
    DiagonalBiLSTM: {"num_layers": 2, "first_kernel_size": 3},
    PixelSNAIL: {"num_blocks": 1, "layers_per_block": 1, "num_heads": 2, "first_kernel_size": 3},
}


def over_image(kind: type, shape: tuple[int, ...], head=None, std: float = 0.25, **options) -> AutoregressiveModel:
    return drawn(kind(shape, head or Categorical(3), hidden_features=8, **NETWORKS[kind], **options), std)


def given(encoder) -> torch.Tensor | None:
    generator = torch.Generator().manual_seed(1)
    if isinstance(encoder, Labels):
        return torch.arange(16) % 2
    shape = (*encoder.shape, encoder.num_features) if isinstance(encoder, SpatialMap) else (3,)
    return torch.randn(16, *shape, generator=generator)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("channels", [2, 3])
def test_channels_as_positions(kind, channels):
    model = over_image(kind, (4, 5, channels))
    length, row = 20 * channels, 5 * channels
    x = agree(model, prompts=(1, channels, row - 1, row, row + 1, 2 * row + channels - 1, length - 1))
    assert len(x.flatten(1).unique(dim=0)) == 16


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3)], ids=str)
@pytest.mark.parametrize("encoder", [Labels(2), Vector(3), SpatialMap((4, 5), 2)], ids=str)
def test_contexts(kind, shape, encoder):
    model = over_image(kind, shape, Bernoulli(), encoder=encoder)
    context = given(encoder)
    x = agree(model, context, prompts=(7,))
    assert not torch.equal(x, model(context.roll(1, 0)).sample(seed=SEED, engine="native"))


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN, RowLSTM, DiagonalBiLSTM])
def test_scans(kind):
    scan = Scan((3, 6, 2), flip_rows=True, flip_columns=True, transpose=True)
    encoder = SpatialMap((3, 6), 2)
    agree(over_image(kind, (3, 6, 2), encoder=encoder, order=scan), given(encoder), prompts=(5, 6, 20))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 6, 2), (6, 1, 2), (2, 5, 4)], ids=str)
@pytest.mark.parametrize("kind", NETWORKS)
def test_odd_shapes(kind, shape):
    model = over_image(kind, shape)
    native, reference = (model.sample((16,), seed=SEED, engine=path) for path in ("native", "reference"))
    assert torch.equal(native, reference)


def test_many_positions():
    model = over_image(GatedPixelCNN, (18, 20, 3), QuantizedMixtureOfLogistics(256, 2), std=0.15)
    agree(model, prompts=(500,))


def test_hidden_features_that_fill_no_cache_line():
    for kind in (RowLSTM, DiagonalBiLSTM, GatedPixelCNN):
        for hidden in (1, 5, 17):
            model = drawn(kind((3, 4, 2), Bernoulli(), hidden_features=hidden, num_layers=1))
            assert torch.equal(
                model.sample((9,), seed=1, engine="native"), model.sample((9,), seed=1, engine="reference")
            )


def test_a_layer_that_hears_no_map():
    # Of two convolutions one is told the map, the other nothing.
    def conv(mask, a, b, context):
        return MaskedConv2d(mask, a, b, shape=(4, 5), kernel_size=3, channels=2, context_features=context)

    network = CausalSequential(conv("A", 1, 6, 2), Residual(conv("B", 6, 6, 0)), torch.nn.Linear(6, 1))
    encoder = SpatialMap((4, 5), 2)
    model = drawn(AutoregressiveModel(network, Bernoulli(), Order((4, 5, 2)), encoder))
    agree(model, given(encoder), prompts=(9,))


def test_an_image_inside_a_position():
    inner = GatedPixelCNN((3, 2, 2), hidden_features=5, num_layers=1, encoder=Vector(4))
    agree(drawn(LSTM((5,), Nested(inner), hidden_features=6)), prompts=(2,))


# ---- planted bugs


@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN, RowLSTM, DiagonalBiLSTM])
def test_check_finds_pixels_taken_for_positions(kind):
    model = over_image(kind, (4, 5, 3))
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, program, wanted)
    for column, change in ((6, -1), (5, 1)):
        cursors = program.cursors.clone()
        place = (cursors[:, column] > (1 if column == 6 else 0)).nonzero().flatten()
        cursors[place, column] -= change if column == 5 else 1
        assert caught(p, replace(program, cursors=cursors), wanted)


def test_check_finds_weights_of_another_channel():
    model = over_image(PixelCNN, (4, 5, 3))
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    cursors = program.cursors.clone()
    turns = (cursors[:, 0] == 3) & (cursors[:, 3] == 1)  # which of three weights a channel uses
    assert turns.any()
    cursors[turns, 2] += 1
    assert caught(p, replace(program, cursors=cursors), wanted)


@pytest.mark.parametrize("kind", [GatedPixelCNN, RowLSTM, DiagonalBiLSTM])
def test_check_finds_pixels_of_a_row_left_out(kind):
    model = over_image(kind, (4, 5, 3))
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    code = program.code.clone()
    for place in (code[:, 0] == Op.ROW).nonzero().flatten().tolist():
        assert code[place, NUMBERS + 3] == 3
        code[place, NUMBERS + 3] = 15
    assert caught(p, replace(program, code=code), wanted)


def test_check_finds_the_map_of_another_pixel():
    encoder = SpatialMap((4, 5), 2)
    model = over_image(GatedPixelCNN, (4, 5, 3), encoder=encoder)
    p, program = model(given(encoder)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, program, wanted)
    session = engine.start(p, torch.arange(16), SEED, program)
    session.memories = [memory.flip(0) for memory in session.memories]
    assert not torch.equal(session.advance(60).values, p.order.to_positions(wanted))
