"""Transformers on the native engine: positions, norms, codes of symbols, sources, as `rollout` samples them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine_checks import SEED, agree, caught, changed, drawn
from seriatim import engine
from seriatim.context import Labels, Vector
from seriatim.ending import Ending
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import Bernoulli, Categorical, Normal, Tokens
from seriatim.layers.source import SourceEncoder
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, NADE, Transformer
from seriatim.nested import Nested
from seriatim.order import RandomOrder

SIZES = {"hidden_features": 24, "num_layers": 2, "num_heads": 3}


def drawn_softly(model: AutoregressiveModel, std: float = 0.25) -> AutoregressiveModel:
    model = drawn(model, std)
    next(part for part in model.modules() if hasattr(part, "tied")).output.bias.zero_()
    return model


def sources() -> torch.Tensor:
    symbols = torch.randint(0, 7, (16, 9), generator=torch.Generator().manual_seed(1))
    return symbols.masked_fill(torch.arange(9) >= 1 + torch.arange(16)[:, None] % 9, -1)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
@pytest.mark.parametrize("norm, activation, tied", [("post", "relu", False), ("pre", "gelu", True)])
def test_decoders(positions, norm, activation, tied):
    options = {"positions": positions, "norm": norm, "activation": activation, "tied": tied}
    for head in (Categorical(11), Ending(Categorical(11)), Tokens(11), Ending(Tokens(11))):
        x = agree(drawn_softly(Transformer((40,), head, **SIZES, **options)), prompts=(1, 25))
        assert len(x.unique()) > 3


@pytest.mark.parametrize("norm, positions, tied", [("post", "sinusoidal", True), ("pre", "rotary", False)])
@pytest.mark.parametrize("head", [Ending(Tokens(70)), Categorical(11)], ids=str)
def test_encoder_decoders(head, norm, positions, tied):
    source = SourceEncoder(7, 18, num_layers=1, num_heads=2, norm=norm, activation="gelu")
    model = drawn_softly(Transformer((40,), head, **SIZES, norm=norm, positions=positions, tied=tied, encoder=source))
    x = agree(model, sources(), prompts=(1, 12))
    assert not torch.equal(x, model(sources().flip(0)).sample(seed=SEED, engine="native"))


@pytest.mark.parametrize("encoder, context", [(Labels(2), torch.arange(16) % 2), (Vector(3), torch.randn(16, 3))])
def test_contexts(encoder, context):
    agree(drawn_softly(Transformer((20,), Tokens(9), **SIZES, encoder=encoder)), context, prompts=(4,))


def test_images_chords_and_real_numbers():
    agree(drawn_softly(Transformer((4, 5, 2), Bernoulli(), **SIZES, positions="raster")), prompts=(9,))
    agree(drawn_softly(Transformer((12,), Bernoulli(), **SIZES, order=RandomOrder((12,), 1))), prompts=(9,))
    chords = Ending(Nested(NADE((5,), hidden_features=7, encoder=Vector(6))))
    agree(drawn_softly(Transformer((20,), chords, **SIZES, positions="rotary")), prompts=(9,))
    agree(drawn_softly(Transformer((20,), Normal(), **SIZES), 0.15), prompts=(9,), tolerance=1e-4)


def test_a_thousand_positions_and_longer_ones():
    model = drawn_softly(Transformer((1024,), Tokens(13), hidden_features=16, num_layers=1, num_heads=2))
    agree(model, prompts=(800,))
    found, wanted = (model(length=1100).sample((2,), seed=4, engine=path) for path in ("native", "reference"))
    assert torch.equal(found, wanted)


def test_large_vocabularies():
    model = drawn_softly(Transformer((20,), Ending(Tokens(3000)), **SIZES, tied=True), 0.1)
    model.network.output_bias[0] = -3
    assert len(agree(model, prompts=(6,)).unique()) > 100


def test_codes_read_as_numbers():
    # A network that does not look codes up reads them as numbers.
    agree(drawn(LSTM((20,), Tokens(5), hidden_features=6), 0.2), prompts=(6,))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_parameters_that_are_no_numbers_stop(bad):
    model = drawn_softly(Transformer((20,), Tokens(5), **SIZES))
    x = model.sample((1,), seed=0, engine="native")
    symbol = next(k for k in range(5) if (x == k).any() and x[0, 0] != k)
    first = int((x[0] == symbol).nonzero()[0])
    model.network.table[symbol] = bad  # read after the symbol was drawn
    assert first < 19
    with pytest.raises(ValueError, match=f"at position {first + 1}, row 0"):
        model.sample((1,), seed=0, engine="native")


# ---- planted bugs

BUGS = {
    "the code that is read": (Op.CATEGORICAL, 1, 0),
    "queries alone are turned": (Op.ROTATE, 1, 24),
    "pairs of another width": (Op.ROTATE, 2, 4),
    "heads of the source": (Op.ATTEND_SOURCE, 1, 1),
    "heads": (Op.ATTEND, 1, 1),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    source = SourceEncoder(7, 18, num_layers=1, num_heads=2)
    model = drawn_softly(Transformer((40,), Tokens(11), **SIZES, positions="rotary", encoder=source))
    p, program = model(sources()), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    op, number, value = BUGS[bug]
    assert not caught(p, program, wanted)
    assert caught(p, changed(program, op, NUMBERS + number, value), wanted)


def test_positions_without_their_offset_are_caught():
    model = drawn_softly(Transformer((40,), Tokens(11), **SIZES))
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    cursors = program.cursors.clone()
    tables = cursors[:, 0] == 40
    assert tables.any()
    cursors[tables, 2] = 1
    assert caught(p, replace(program, cursors=cursors), wanted)
