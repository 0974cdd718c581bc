"""Image models on the native engine: the samples of `rollout`, prompts within a row, odd shapes, planted bugs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from seriatim import engine
from seriatim.context import Labels, Vector
from seriatim.engine.operands import Op
from seriatim.engine.program import CURSOR
from seriatim.heads import Bernoulli, Categorical
from seriatim.model import AutoregressiveModel
from seriatim.models import DiagonalBiLSTM, GatedPixelCNN, PixelCNN, PixelSNAIL, RowLSTM
from seriatim.order import Scan
from test_engine import LENGTH, SEED, case, check_equal, check_exact, expected, native

SHAPE = (32, 32)


def drawn(model: AutoregressiveModel) -> AutoregressiveModel:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.12)
    return model


def pixelcnn() -> AutoregressiveModel:
    sizes = {"hidden_features": 10, "num_layers": 2, "first_kernel_size": 5}
    return drawn(PixelCNN(SHAPE, Categorical(3), **sizes, encoder=Labels(3)))


def gated() -> AutoregressiveModel:
    return drawn(GatedPixelCNN(SHAPE, hidden_features=20, num_layers=2, first_kernel_size=5, kernel_size=5))


def gated_scan() -> AutoregressiveModel:
    scan = Scan((16, 64), flip_columns=True, transpose=True)
    sizes = {"hidden_features": 9, "num_layers": 3, "first_kernel_size": 3}
    return drawn(GatedPixelCNN((16, 64), Categorical(4), **sizes, encoder=Vector(3), order=scan))


def row_lstm() -> AutoregressiveModel:
    return drawn(RowLSTM(SHAPE, Bernoulli(), hidden_features=10, num_layers=2, encoder=Labels(3)))


def diagonal_bilstm() -> AutoregressiveModel:
    return drawn(DiagonalBiLSTM((64, 16), Categorical(3), hidden_features=10, num_layers=2, encoder=Vector(3)))


def pixelsnail() -> AutoregressiveModel:
    return drawn(PixelSNAIL((64, 16), hidden_features=12, num_blocks=1, layers_per_block=1, encoder=Labels(3)))


MODELS: list[Callable[[], AutoregressiveModel]] = [pixelcnn, gated, gated_scan, row_lstm, diagonal_bilstm, pixelsnail]


@pytest.mark.parametrize("make", MODELS)
def test_engine_equals_rollout(make):
    wanted = expected(make).float()
    assert min((wanted[:, k::7] != wanted[:, :1]).float().mean() for k in range(7)) > 0.05  # not one value all along
    for batch in (1, 3, 16):
        p, rows = case(make).rows(torch.arange(batch)), torch.arange(batch)
        samples = native(p, rows)
        check_exact(p, rows, samples)
        check_equal(p, rows, samples.values, wanted[:batch])


@pytest.mark.parametrize("make", MODELS)
def test_prompts_that_end_anywhere_in_a_row(make):
    p, rows = case(make).rows(torch.arange(3)), torch.arange(3)
    program = engine.lower(p.model)
    whole = native(p, rows, program).values
    width = p.order.raster.width
    for length in (1, width - 1, width, width + 1, 5 * width, 5 * width + 3, LENGTH - 1):
        session = engine.start(p, rows, SEED, program, prefix=whole[:, :length])
        check_equal(p, rows, torch.cat([whole[:, :length], session.advance(LENGTH - length).values], 1), whole)
    session = engine.start(p, rows, SEED, program)
    parts = [session.advance(count).values for count in (width + 5, 1, 2 * width)]
    session.select(torch.tensor([2, 0]))
    assert torch.equal(torch.cat(parts, 1), whole[:, : 3 * width + 6])
    assert torch.equal(session.advance(7).values, whole[[2, 0], 3 * width + 6 : 3 * width + 13])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 5), (5, 3)], ids=str)
@pytest.mark.parametrize("kind", [PixelCNN, GatedPixelCNN, RowLSTM, DiagonalBiLSTM])
def test_odd_shapes(kind, shape):
    torch.manual_seed(0)
    model = drawn(kind(shape, Categorical(3), hidden_features=5, num_layers=2)).eval()
    p = model().expand((40,))
    assert torch.equal(p.sample(seed=1, engine="native"), p.sample(seed=1, engine="reference"))


# ---- planted bugs


@pytest.mark.parametrize("make", [gated, row_lstm, diagonal_bilstm])
@pytest.mark.parametrize("column", [2, 3, 5], ids=["rows above", "width", "shift"])
def test_check_finds_a_map_read_in_the_wrong_place(make, column):
    p, rows = case(make).rows(torch.arange(3)), torch.arange(3)
    program = engine.lower(p.model)
    assert program.cursors.shape[1] == CURSOR
    images = (program.cursors[:, 3] > 1) & (program.cursors[:, 5] > 0 if column == 5 else program.cursors[:, 2] > 0)
    change = torch.zeros_like(program.cursors)
    change[images, column] = -1
    with pytest.raises(AssertionError, match=r"outside|differs"):
        check_exact(p, rows, native(p, rows, replace(program, cursors=program.cursors + change)))


@pytest.mark.parametrize("make", [gated, row_lstm, diagonal_bilstm])
def test_check_finds_rows_that_are_never_begun(make):
    p, rows = case(make).rows(torch.arange(3)), torch.arange(3)
    program = engine.lower(p.model)
    code = program.code.clone()
    for place in (code[:, 0] == Op.ROW).nonzero().flatten().tolist():
        code[place, 2] = LENGTH + 1  # a width that no position reaches
    with pytest.raises(AssertionError, match=r"outside|differs"):
        check_exact(p, rows, native(p, rows, replace(program, code=code)))


@pytest.mark.parametrize("make", MODELS)
def test_check_finds_maps_lost_between_calls(make):
    p, rows = case(make).rows(torch.arange(3)), torch.arange(3)
    session, parts = engine.start(p, rows, SEED, engine.lower(p.model)), []
    for _ in range(2):
        parts.append(session.advance(LENGTH // 2, log_probs=True))
        session.state[:, : session.program.state_size // 2] = 0
    samples = engine.Samples(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))
    with pytest.raises(AssertionError, match=r"outside|differs"):
        check_exact(p, rows, samples)
