"""The test zoo: a covering array of models for the conformance suite.

Every registered model, every head, every kind of order and context and every layer stands here at least once, in tiny
sizes; `test_conformance.py` asserts it. Weights are drawn with a standard deviation of 0.7, so that every dependency is
large enough to be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seriatim import models
from seriatim.causal import Causal, CausalSequential, Recompute, Residual, State
from seriatim.channels import ChannelMixtureOfLogistics
from seriatim.columns import Columns
from seriatim.context import Attributes, Encoder, Frames, Labels, SpatialMap, Vector
from seriatim.ending import Ending
from seriatim.heads import (
    Bernoulli,
    Categorical,
    Head,
    Logistic,
    MixtureOfLogistics,
    MixtureOfNormals,
    MultivariateNormal,
    Normal,
    QuantizedMixtureOfLogistics,
    Tokens,
)
from seriatim.independent import Independent
from seriatim.layers import GRU, LSTM, RNN, CausalConv1d, CrossAttention, MaskedConv2d, SelfAttention
from seriatim.model import AutoregressiveModel
from seriatim.models import (
    FVSBN,
    MADE,
    NADE,
    BayesNet,
    DiagonalBiLSTM,
    FullTable,
    GatedPixelCNN,
    NeuralConditionals,
    OrderAgnosticMADE,
    PixelCNN,
    PixelSNAIL,
    RowLSTM,
)
from seriatim.nested import Nested
from seriatim.order import Order, RandomOrder, Scan
from seriatim.symbols import Symbols, SymbolsOrMissing

Made = AutoregressiveModel | tuple[AutoregressiveModel, Callable[[int], Tensor]]

WEIGHT_STD = 0.7

COLUMNS = [
    {"kind": "categorical", "num_categories": 2},
    {"kind": "continuous", "mean": 1.0, "std": 2.0, "atoms": [0.0]},
    {"kind": "integer", "mean": 3.0, "std": 1.5},
]
WAVENET = {"residual_features": 3, "gate_features": 4, "skip_features": 5}
TRANSFORMER = {"hidden_features": 4, "num_layers": 1, "num_heads": 2, "feedforward_features": 6}
CATEGORIES = [{"kind": "categorical", "num_categories": k} for k in (1, 3, 2)]


def randomised(model: AutoregressiveModel, seed: int = 0) -> AutoregressiveModel:
    """Draw every parameter from N(0, 0.7^2), leaving torch's generator as it was."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.normal_(0, WEIGHT_STD)
    return model


class Positions(Causal):
    """A learned vector added at each position, counted from the start of the sequence, not of the chunk."""

    def __init__(self, num_positions: int, num_features: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_positions, num_features))

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return torch.zeros(batch_size, dtype=torch.int64, device=self.table.device)

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state[0]), x.shape[1]
        return x + self.table[start : start + n], state + n

    def dependencies(self, length: int) -> Tensor:
        return torch.eye(length, dtype=torch.bool)


class Source(Encoder):
    """A sequence of symbols 1..K padded with 0, embedded: (memory (B, S, F), mask (B, S))."""

    event_dim = 1

    def __init__(self, num_symbols: int, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
        self.embedding = nn.Embedding(num_symbols + 1, num_features)

    def check(self, context: Tensor) -> None:
        low, high = int(context.min()), int(context.max())
        if low < 0 or high >= self.embedding.num_embeddings:
            raise ValueError(f"context: expected symbols in 0..{self.embedding.num_embeddings - 1}, got {low}..{high}")

    def forward(self, context: Tensor) -> tuple[Tensor, Tensor]:
        return self.embedding(context), context != 0


def sources(batch_size: int) -> Tensor:
    """Draw source sentences of 1 to 4 symbols out of 1..3, padded with 0 to length 4."""
    generator = torch.Generator().manual_seed(batch_size)
    symbols = torch.randint(1, 4, (batch_size, 4), generator=generator)
    lengths = 1 + torch.arange(batch_size) % 4
    return symbols * (torch.arange(4) < lengths[:, None])


def padded_sources(batch_size: int) -> Tensor:
    """Draw the same sentences as symbols 0..2, padded with -1."""
    return sources(batch_size) - 1


def _recurrent(layer: type, num_layers: int = 1) -> Callable[..., Causal]:
    def network(num_features: int, num_params: int, order: Order, context: int) -> Causal:
        return CausalSequential(layer(num_features, 5, num_layers, context_features=context), nn.Linear(5, num_params))

    return network


def _dilated(num_features: int, num_params: int, order: Order, context: int) -> Causal:
    return CausalSequential(
        CausalConv1d(num_features, 5, kernel_size=2, context_features=context),
        Residual(CausalSequential(nn.Tanh(), CausalConv1d(5, 5, kernel_size=2, dilation=2))),
        nn.Tanh(),
        nn.Linear(5, num_params),
    )


def _masked_images(num_features: int, num_params: int, order: Order, context: int) -> Causal:
    shape = order.raster[:2]
    return CausalSequential(
        MaskedConv2d("A", num_features, 6, shape=shape, kernel_size=3),
        nn.Tanh(),
        Residual(CausalSequential(MaskedConv2d("B", 6, 6, shape=shape, kernel_size=3), nn.Tanh())),
        nn.Linear(6, num_params),
    )


def _decoder(num_features: int, num_params: int, order: Order, context: int) -> Causal:
    return CausalSequential(
        nn.Linear(num_features, 4),
        Positions(order.length, 4),
        Residual(SelfAttention(4, num_heads=2)),
        nn.Linear(4, num_params),
    )


def _encoder_decoder(num_features: int, num_params: int, order: Order, context: int) -> Causal:
    return CausalSequential(
        nn.Linear(num_features, context),
        Positions(order.length, context),
        Residual(SelfAttention(context, num_heads=2)),
        Residual(CrossAttention(context, num_heads=2)),
        nn.Tanh(),
        nn.Linear(context, num_params),
    )


def _recomputed(num_features: int, num_params: int, order: Order, context: int) -> Causal:
    return Recompute(_recurrent(RNN)(num_features, num_params, order, context))


NETWORKS: dict[str, Callable[[int, int, Order, int], Causal]] = {
    "rnn": _recurrent(RNN),
    "gru": _recurrent(GRU),
    "lstm": _recurrent(LSTM),
    "lstm2": _recurrent(LSTM, num_layers=2),
    "dilated": _dilated,
    "masked_images": _masked_images,
    "decoder": _decoder,
    "encoder_decoder": _encoder_decoder,
    "recomputed": _recomputed,
}


class Assembled(AutoregressiveModel):
    """A model put together from layers, as a user would; `network` names one of `NETWORKS`."""

    def __init__(self, network: str, head: Head, order: Order, encoder: Encoder | None = None) -> None:
        context_features = encoder.num_features if encoder else 0
        super().__init__(
            NETWORKS[network](head.num_features, head.num_params, order, context_features), head, order, encoder
        )


def _entry(make: Callable[[], AutoregressiveModel], context: Callable[[int], Tensor] | None = None) -> Any:
    def made() -> Made:
        model = randomised(make())
        return model if context is None else (model, context)

    return made


ZOO: dict[str, Callable[[], Made]] = {
    # The registered models: natural, permuted, random and scanned orders; no context, labels, vectors.
    "full_table": _entry(lambda: FullTable((3,), [2, 3, 2])),
    "bayesnet": _entry(lambda: BayesNet((2, 2), [2, 3, 2, 2], [(1,), (), (0, 1), (2,)])),
    "fvsbn": _entry(lambda: FVSBN((2, 3))),
    "fvsbn_labels_permuted": _entry(
        lambda: FVSBN((4,), Categorical(3), encoder=Labels(3), order=Order((4,), [2, 0, 3, 1]))
    ),
    "fvsbn_symbols": _entry(lambda: FVSBN((3,), Symbols([2, 4, 3]), order=Order((3,), [2, 0, 1]))),
    "fvsbn_symbols_or_missing": _entry(lambda: FVSBN((3,), SymbolsOrMissing([3, 4, 3]))),
    "fvsbn_one_position": _entry(lambda: FVSBN((1,), Categorical(3), encoder=Vector(3))),
    "neural_conditionals": _entry(
        lambda: NeuralConditionals(
            (3,), Normal(), hidden_features=(4, 4), encoder=Vector(2), order=RandomOrder((3,), seed=1)
        )
    ),
    "nade_labels": _entry(lambda: NADE((5,), hidden_features=4, encoder=Labels(2))),
    "nade_mixture_random": _entry(
        lambda: NADE((4,), MixtureOfNormals(2), hidden_features=6, activation="relu", order=RandomOrder((4,), seed=2))
    ),
    "made_residual_scan": _entry(
        lambda: MADE(
            (2, 3),
            hidden_features=(6, 6, 6),
            residual=True,
            dropout=0.2,
            order=Scan((2, 3), flip_columns=True, transpose=True),
        )
    ),
    "made_few_units": _entry(lambda: MADE((5,), hidden_features=(2, 3))),
    "made_logistics_vector": _entry(lambda: MADE((3,), MixtureOfLogistics(2), hidden_features=(6,), encoder=Vector(2))),
    "made_quantized_labels": _entry(
        lambda: MADE((3,), QuantizedMixtureOfLogistics(5, 2), hidden_features=(6, 6), encoder=Labels(2))
    ),
    "made_gaussian_vectors": _entry(lambda: MADE((3,), MultivariateNormal(2), hidden_features=(6,))),
    "order_agnostic_made": _entry(lambda: OrderAgnosticMADE((4,), hidden_features=(6,))),
    "order_agnostic_made_labels": _entry(
        lambda: OrderAgnosticMADE(
            (3,),
            Categorical(3),
            hidden_features=(6, 6, 6),
            residual=True,
            encoder=Labels(2),
            order=Order((3,), [1, 2, 0]),
        )
    ),
    "made_columns": _entry(lambda: MADE((3,), Columns(COLUMNS, 2), hidden_features=(6,), order=Order((3,), [2, 0, 1]))),
    "fvsbn_columns_of_categories": _entry(lambda: FVSBN((3,), Columns(CATEGORIES), encoder=Labels(2))),
    "order_agnostic_made_columns": _entry(
        lambda: OrderAgnosticMADE((3,), Columns(COLUMNS, 2), hidden_features=(6,), order=Order((3,), [1, 2, 0]))
    ),
    # Images: wider and narrower than the kernels, channels as positions and nested, scans, labels, vectors, maps.
    "gated_pixelcnn": _entry(
        lambda: GatedPixelCNN((3, 4), hidden_features=4, num_layers=2, first_kernel_size=3, dropout=0.2)
    ),
    "gated_pixelcnn_subpixel_labels": _entry(
        lambda: GatedPixelCNN(
            (2, 2, 2), Categorical(2), hidden_features=4, num_layers=1, first_kernel_size=3, encoder=Labels(3)
        )
    ),
    "gated_pixelcnn_map_scan": _entry(
        lambda: GatedPixelCNN(
            (3, 2),
            hidden_features=4,
            num_layers=1,
            first_kernel_size=3,
            encoder=SpatialMap((3, 2), 2),
            order=Scan((3, 2), flip_rows=True, transpose=True),
        )
    ),
    "pixelcnn": _entry(lambda: PixelCNN((3, 4), hidden_features=3, num_layers=1, first_kernel_size=3, dropout=0.2)),
    "pixelcnn_subpixel_map_scan": _entry(
        lambda: PixelCNN(
            (2, 3, 2),
            hidden_features=3,
            num_layers=1,
            first_kernel_size=3,
            encoder=SpatialMap((2, 3), 2),
            order=Scan((2, 3, 2), flip_columns=True, transpose=True),
        )
    ),
    "row_lstm": _entry(lambda: RowLSTM((4, 3), hidden_features=3, num_layers=1, first_kernel_size=3)),
    "row_lstm_subpixel_labels": _entry(
        lambda: RowLSTM(
            (2, 2, 2),
            Categorical(2),
            hidden_features=3,
            num_layers=2,
            encoder=Labels(2),
            order=Scan((2, 2, 2), flip_rows=True),
        )
    ),
    "diagonal_bilstm": _entry(lambda: DiagonalBiLSTM((3, 4), hidden_features=3, num_layers=1, first_kernel_size=3)),
    "diagonal_bilstm_subpixel_vector": _entry(
        lambda: DiagonalBiLSTM(
            (2, 3, 2), hidden_features=3, num_layers=2, encoder=Vector(2), order=Scan((2, 3, 2), transpose=True)
        )
    ),
    "pixelsnail": _entry(
        lambda: PixelSNAIL(
            (3, 3), Categorical(2), hidden_features=4, num_blocks=1, layers_per_block=1, num_heads=2, dropout=0.2
        )
    ),
    "pixelsnail_subpixel_labels": _entry(
        lambda: PixelSNAIL(
            (2, 3, 2),
            hidden_features=4,
            num_blocks=1,
            layers_per_block=1,
            num_heads=1,
            encoder=Labels(2),
            order=Scan((2, 3, 2), transpose=True),
        )
    ),
    "gated_pixelcnn_channel_mixture": _entry(
        lambda: GatedPixelCNN((2, 2), ChannelMixtureOfLogistics(2, 2, channels=2), hidden_features=4, num_layers=1)
    ),
    "pixelcnn_channel_mixture_labels": _entry(
        lambda: PixelCNN(
            (2, 2),
            ChannelMixtureOfLogistics(2, 2, channels=3),
            hidden_features=3,
            num_layers=1,
            first_kernel_size=3,
            encoder=Labels(2),
        )
    ),
    "gated_pixelcnn_nested_vector": _entry(
        lambda: GatedPixelCNN(
            (2, 3),
            Nested(MADE((2,), Categorical(2), hidden_features=(4,), encoder=Vector(4))),
            hidden_features=4,
            num_layers=1,
            encoder=Vector(2),
        )
    ),
    # Sequences: heads that end and heads that do not, stacks, dropout, norms, permuted orders.
    "rnn_model": _entry(lambda: models.RNN((5,), hidden_features=4, norm=True, order=Order((5,), [3, 1, 4, 0, 2]))),
    "lstm_attributes": _entry(
        lambda: models.LSTM((4,), Categorical(2), hidden_features=5, encoder=Attributes({"a": "xy", "b": "xyz"}))
    ),
    "gru_independent": _entry(lambda: models.GRU((3,), Independent(Categorical(2), (2,)), hidden_features=5)),
    "rnn_ending_independent": _entry(
        lambda: models.RNN((3,), Ending(Independent(Bernoulli(), (2,))), hidden_features=4, encoder=Labels(2))
    ),
    "lstm_independent_normal": _entry(
        lambda: Assembled("lstm", Independent(Normal(), (2,)), Order((3,), [2, 0, 1]), Vector(2))
    ),
    "rnn_ending": _entry(lambda: models.RNN((4,), Ending(Bernoulli()), hidden_features=5, encoder=Labels(2))),
    "gru_ending_normal": _entry(lambda: models.GRU((4,), Ending(Normal()), hidden_features=5, encoder=Vector(2))),
    "gru_permuted_quantized": _entry(
        lambda: models.GRU(
            (3,), QuantizedMixtureOfLogistics(5, 2), hidden_features=5, num_layers=2, order=Order((3,), [2, 0, 1])
        )
    ),
    "lstm_ending": _entry(
        lambda: models.LSTM(
            (4,), Ending(Categorical(3)), hidden_features=4, num_layers=2, dropout=0.2, variational_dropout=0.2
        )
    ),
    "lstm_ending_chords": _entry(
        lambda: models.LSTM(
            (3,),
            Ending(Nested(NADE((2,), hidden_features=3, encoder=Vector(4)))),
            hidden_features=5,
            norm=True,
            encoder=Labels(2),
        )
    ),
    "lstm_permuted": _entry(lambda: models.LSTM((2, 3), hidden_features=4, order=Scan((2, 3), flip_rows=True))),
    "wavenet": _entry(
        lambda: models.WaveNet((9,), Categorical(3), num_blocks=2, layers_per_block=2, **WAVENET, encoder=Labels(2))
    ),
    "wavenet_short_sight": _entry(
        lambda: models.WaveNet((8,), num_blocks=1, layers_per_block=2, dropout=0.2, **WAVENET)
    ),
    "wavenet_frames": _entry(
        lambda: models.WaveNet(
            (7,), Bernoulli(), num_blocks=1, layers_per_block=2, kernel_size=3, **WAVENET, encoder=Frames(2, hop=3)
        )
    ),
    "wavenet_ending": _entry(
        lambda: models.WaveNet(
            (5,), Ending(Categorical(3)), num_blocks=1, layers_per_block=1, **{**WAVENET, "gate_features": 5}
        )
    ),
    "wavenet_quantized_vector": _entry(
        lambda: models.WaveNet(
            (4,), QuantizedMixtureOfLogistics(5, 2), num_blocks=1, layers_per_block=2, **WAVENET, encoder=Vector(2)
        )
    ),
    # Transformers: each kind of position, both places of the norm, alone and with a source, images, chords.
    "transformer_permuted": _entry(
        lambda: models.Transformer((5,), norm="pre", dropout=0.05, **TRANSFORMER, order=Order((5,), [3, 1, 4, 0, 2]))
    ),
    "transformer_ending_tied": _entry(
        lambda: models.Transformer(
            (4,), Ending(Categorical(3)), norm="pre", tied=True, **TRANSFORMER, encoder=Labels(2)
        )
    ),
    "transformer_rotary_tied": _entry(
        lambda: models.Transformer(
            (5,), Categorical(3), positions="rotary", activation="gelu", tied=True, **TRANSFORMER
        )
    ),
    "transformer_learned_tokens": _entry(
        lambda: models.Transformer(
            (4,), Tokens(3), positions="learned", norm="pre", **{**TRANSFORMER, "num_layers": 2}, encoder=Vector(2)
        )
    ),
    "transformer_raster": _entry(
        lambda: models.Transformer(
            (2, 3), positions="raster", norm="pre", **TRANSFORMER, order=Scan((2, 3), flip_rows=True, transpose=True)
        )
    ),
    "transformer_ending_chords": _entry(
        lambda: models.Transformer(
            (3,),
            Ending(Nested(NADE((2,), hidden_features=3, encoder=Vector(4)))),
            positions="rotary",
            **TRANSFORMER,
        )
    ),
    "transformer_source": _entry(
        lambda: models.Transformer(
            (4,),
            Ending(Tokens(3)),
            **TRANSFORMER,
            encoder=models.SourceEncoder(3, 6, num_layers=1, num_heads=2, feedforward_features=5, dropout=0.2),
        ),
        padded_sources,
    ),
    "transformer_source_rotary_tied": _entry(
        lambda: models.Transformer(
            (4,),
            Ending(Tokens(3)),
            norm="pre",
            positions="rotary",
            tied=True,
            **TRANSFORMER,
            encoder=models.SourceEncoder(
                3, 4, num_layers=2, num_heads=1, activation="gelu", norm="pre", positions="rotary", kernel_size=3
            ),
        ),
        padded_sources,
    ),
    # The layers, one family each.
    "rnn_labels": _entry(lambda: Assembled("rnn", Categorical(3), Order((4,)), Labels(2))),
    "gru_permuted": _entry(lambda: Assembled("gru", Bernoulli(), Order((5,), [3, 1, 4, 0, 2]))),
    "lstm_vector": _entry(lambda: Assembled("lstm", Logistic(), Order((4,)), Vector(2))),
    "lstm_two_layers": _entry(lambda: Assembled("lstm2", Categorical(2), Order((2, 3)), Labels(2))),
    "lstm_chords": _entry(
        lambda: Assembled("lstm", Nested(NADE((2,), hidden_features=3, encoder=Vector(4))), Order((3,)))
    ),
    "gru_nested_normals": _entry(
        lambda: Assembled(
            "gru", Nested(MADE((2,), Normal(), hidden_features=(4,), encoder=Vector(4))), Order((3,), [2, 0, 1])
        )
    ),
    "dilated_labels": _entry(lambda: Assembled("dilated", Bernoulli(), Order((7,)), Labels(2))),
    "dilated_quantized": _entry(lambda: Assembled("dilated", QuantizedMixtureOfLogistics(3, 2), Order((5,)))),
    "masked_images": _entry(lambda: Assembled("masked_images", Bernoulli(), Order((3, 3)))),
    "masked_images_scan": _entry(
        lambda: Assembled("masked_images", Categorical(2), Scan((2, 4), flip_rows=True, transpose=True))
    ),
    "decoder": _entry(lambda: Assembled("decoder", Categorical(3), Order((5,)))),
    "encoder_decoder": _entry(lambda: Assembled("encoder_decoder", Categorical(3), Order((4,)), Source(3, 4)), sources),
    "recomputed": _entry(lambda: Assembled("recomputed", Bernoulli(), Order((4,)), Vector(2))),
}


def model_of(made: Made) -> AutoregressiveModel:
    """Return the model of a zoo entry, with or without its context function."""
    return made[0] if isinstance(made, tuple) else made


def context_of(made: Made, batch_size: int) -> Tensor | None:
    """Draw contexts for a zoo entry, None for an unconditional model."""
    from seriatim.testing.case import Case

    model, draw = made if isinstance(made, tuple) else (made, None)
    return Case(model, draw).contexts(batch_size)


def of_three_rows(name: str) -> Any:
    """The distribution of a model of the zoo in float32, of batch shape (3,)."""
    made = ZOO[name]()
    model, context = model_of(made).float().eval(), context_of(made, 3)
    if context is None:
        return model().expand((3,))
    return model(context.float() if context.is_floating_point() else context)
