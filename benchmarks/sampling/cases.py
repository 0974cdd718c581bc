"""What is measured: a model of every kind, at the sizes that the tables name, and the least work of drawing from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.images.speed import PEERS as IMAGE_PEERS
from benchmarks.images.speed import load_peer
from benchmarks.sequences.peers import Generator, Sizes, stepped_lstm, wavenet_vocoder
from seriatim.context import Vector
from seriatim.ending import Ending
from seriatim.heads import Bernoulli, Categorical, Tokens
from seriatim.layers import MaskedLinear
from seriatim.model import AutoregressiveModel
from seriatim.models import (
    FVSBN,
    GRU,
    LSTM,
    MADE,
    NADE,
    RNN,
    DiagonalBiLSTM,
    GatedPixelCNN,
    NeuralConditionals,
    PixelCNN,
    PixelSNAIL,
    RowLSTM,
    SourceEncoder,
    Transformer,
    WaveNet,
)
from seriatim.models.nade import NADENetwork
from seriatim.nested import Nested

BITS, SHAPE, SYMBOLS = 784, (28, 28), 128
NOTES, WORDS, SOURCE = 88, 8000, 20


class Work(NamedTuple):
    """The least that drawing a row takes: multiply-adds of a row, and how many weights a batch reads."""

    macs: int
    weights: int


class Case(NamedTuple):
    """A model to measure.

    Attributes:
        make: the model with its first weights, of T positions.
        work: of its T positions.
        positions: T; of sequences a batch of 16 draws a quarter and one of 64 an eighth of it.
        unit: what is counted: "images" and "rows" are whole, others are positions.
        passed: over how many positions a whole pass goes; the largest prefix that the network sees, or half of T.
        steps: how many positions are drawn by rollout in a turn.
        sources: whether rows are conditioned on a source of symbols.
        peer: draws so many positions of so many rows with the code of others; takes their checkouts.
    """

    make: Callable[[int], AutoregressiveModel]
    work: Callable[[AutoregressiveModel, int], Work]
    positions: int
    unit: str
    passed: int
    steps: int = 16
    sources: bool = False
    peer: tuple[str, Callable[[Mapping[str, Path], int], Generator | None]] | None = None


def numbers(module: torch.nn.Module) -> int:
    """Return how many weights a pass multiplies by: those of matrices and kernels that are not masked."""
    masked = [m for m in module.modules() if isinstance(m, MaskedLinear)]
    own = {id(m.weight) for m in masked}
    dense = sum(p.numel() for p in module.parameters() if p.ndim > 1 and id(p) not in own)
    return dense + sum(int(m.mask.sum()) for m in masked)


def by_position(model: AutoregressiveModel, positions: int, *, looked_up: str = "", attended: int = 0) -> Work:
    """Return the work of a model whose weights all serve at every position.

    Args:
        model: the model.
        positions: T.
        looked_up: the name of a matrix of which a symbol looks up one column: it is not multiplied by.
        attended: the numbers that a position keeps to be attended to, keys and values of all layers.
    """
    used = numbers(model.network) + numbers(model.head)
    if looked_up:
        used -= model.get_parameter(looked_up).numel()
    return Work(used * positions + attended * positions * (positions + 1) // 2, used * positions)


def by_row(model: AutoregressiveModel, positions: int) -> Work:
    """Return the work of a model whose every weight serves one position, or is read once as values come."""
    used = numbers(model.network)
    assert positions == BITS or isinstance(model.network, NADENetwork)
    return Work(used, used)


def of_pairs(model: AutoregressiveModel, positions: int) -> Work:
    """Return the work of an encoder-decoder: its encoder and the projection of its memory serve a source symbol."""
    assert model.encoder is not None
    projected = sum(p.numel() for name, p in model.network.named_parameters() if ".kv." in name and p.ndim > 1)
    table = {id(p) for name, p in model.named_parameters() if name.endswith("table")}
    tables = [sum(p.numel() for p in part.parameters() if id(p) in table) for part in (model.encoder, model.network)]
    encoder, decoder = numbers(model.encoder) - tables[0], numbers(model.network) - tables[1] - projected
    layers, features = 3, 256
    attended = 2 * features * layers * (positions * (positions + 1) // 2 + positions * SOURCE + SOURCE * SOURCE)
    macs = decoder * positions + (projected + encoder) * SOURCE + attended
    return Work(macs, decoder * positions + projected + encoder)


def _wavenet(blocks: int, width: int, positions: int) -> AutoregressiveModel:
    sizes: dict[str, Any] = {"residual_features": width, "gate_features": width, "skip_features": 256}
    return WaveNet((positions,), Categorical(256), num_blocks=blocks, layers_per_block=10, **sizes)


def _vocoder(sizes: Sizes, peers: Mapping[str, Path], batch: int) -> Generator | None:
    return wavenet_vocoder(peers["wavenet_vocoder"], sizes, batch) if "wavenet_vocoder" in peers else None


def _pixels(name: str, peers: Mapping[str, Path], batch: int) -> Generator | None:
    """Return whole passes of the peer, as its `sample` makes for every pixel."""
    if "pytorch-generative" not in peers:
        return None
    entry = IMAGE_PEERS[name]
    module = load_peer(peers["pytorch-generative"], entry["module"])
    model = getattr(module, entry["name"])(**entry["sizes"]).eval()
    x = torch.zeros(batch, 1, *SHAPE)

    @torch.no_grad()
    def generate(positions: int) -> Any:
        for _ in range(positions):
            x.copy_(torch.bernoulli(model(x).sigmoid()))

    return generate


def _steps(layers: int, peers: Mapping[str, Path], batch: int) -> Generator | None:
    return stepped_lstm(SYMBOLS, 512, layers, batch)


def _transformer(positions: int) -> AutoregressiveModel:
    sizes: dict[str, Any] = {"hidden_features": 384, "num_layers": 6, "num_heads": 6}
    return Transformer((positions,), Tokens(SYMBOLS), **sizes)


def _translator(positions: int) -> AutoregressiveModel:
    sizes: dict[str, Any] = {"num_layers": 3, "num_heads": 4}
    encoder = SourceEncoder(WORDS, 256, **sizes)
    model = Transformer((positions,), Ending(Tokens(WORDS)), hidden_features=256, encoder=encoder, **sizes)
    with torch.no_grad():
        assert model.network.output_bias is not None
        model.network.output_bias[0] = -30.0  # sequences do not end, so that all positions are drawn
    return model


def _chords(positions: int) -> AutoregressiveModel:
    return LSTM((positions,), Nested(MADE((NOTES,), hidden_features=(128,), encoder=Vector(256))), hidden_features=256)


def sources(batch: int) -> Tensor:
    """Return random sources of symbols (B, S)."""
    return torch.randint(WORDS, (batch, SOURCE), generator=torch.Generator().manual_seed(1))


def _image(kind: Any, work: Callable[..., Work] = by_position, **sizes: Any) -> Case:
    return Case(lambda _: kind(SHAPE, **sizes), work, BITS, "images", BITS)


def _bits(kind: Any, **sizes: Any) -> Case:
    return Case(lambda _: kind((BITS,), Bernoulli(), **sizes), by_row, BITS, "rows", BITS, steps=64)


def _symbols(kind: Any, layers: int, looked_up: str, **more: Any) -> Case:
    def make(positions: int) -> AutoregressiveModel:
        return kind((positions,), Categorical(SYMBOLS), hidden_features=512, num_layers=layers)

    return Case(make, partial(by_position, looked_up=looked_up), 1024, "symbols", 128, **more)


_INPUT = "network.layers.0.rnn.weight_ih_l0"
_FIRST = "network.first.taps.weight"
CASES: dict[str, Case] = {
    "WaveNet 30x32": Case(
        partial(_wavenet, 3, 32), partial(by_position, looked_up=_FIRST), 8000, "samples", 3071,
        peer=("wavenet_vocoder", partial(_vocoder, Sizes())),
    ),
    "WaveNet 20x64": Case(
        partial(_wavenet, 2, 64), partial(by_position, looked_up=_FIRST), 8000, "samples", 2048,
        peer=("wavenet_vocoder", partial(_vocoder, Sizes(blocks=2, width=64))),
    ),
    "PixelCNN 15x32": _image(PixelCNN, hidden_features=16, num_layers=15)._replace(
        peer=("pytorch-generative", partial(_pixels, "PixelCNN 15x32"))
    ),
    "GatedPixelCNN 10x32": _image(GatedPixelCNN, hidden_features=32, num_layers=10)._replace(
        peer=("pytorch-generative", partial(_pixels, "GatedPixelCNN 10x32"))
    ),
    "RowLSTM 7x16": _image(RowLSTM, hidden_features=16, num_layers=7),
    "DiagonalBiLSTM 7x16": _image(DiagonalBiLSTM, hidden_features=16, num_layers=7),
    "PixelSNAIL": _image(PixelSNAIL, partial(by_position, attended=3 * 2 * 32)),
    "RNN 1x512": _symbols(RNN, 1, _INPUT),
    "GRU 1x512": _symbols(GRU, 1, _INPUT),
    "LSTM 1x512": _symbols(LSTM, 1, _INPUT, peer=("nn.LSTM by steps", partial(_steps, 1))),
    "LSTM 3x512": _symbols(LSTM, 3, _INPUT, peer=("nn.LSTM by steps", partial(_steps, 3))),
    "LSTM 256, MADE in a chord of 88": Case(_chords, by_position, 256, "chords", 64),
    "Transformer 6x384": Case(
        _transformer, partial(by_position, looked_up="network.table", attended=2 * 384 * 6), 256, "symbols", 128
    ),
    "encoder-decoder 3+3 x 256": Case(_translator, of_pairs, 24, "symbols", 12, steps=8, sources=True),
    "FVSBN": _bits(FVSBN),
    "NeuralConditionals 16": _bits(NeuralConditionals),
    "NADE 500": _bits(NADE, hidden_features=500),
    "MADE 500": _bits(MADE, hidden_features=(500,)),
    "MADE 3x500 residual": _bits(MADE, hidden_features=(500, 500, 500), residual=True),
}  # fmt: skip
