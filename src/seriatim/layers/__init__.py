"""Layers: `Causal` modules from which networks are built, each obeying the law of chunks."""

from seriatim.layers.attention import CrossAttention, SelfAttention, SourceAttention
from seriatim.layers.convolution import CausalConv1d
from seriatim.layers.dropout import VariationalDropout
from seriatim.layers.linear import MaskedLinear
from seriatim.layers.positions import LearnedPositions, SinusoidalPositions
from seriatim.layers.raster import MaskedConv2d, RasterPositions, RowConv2d, WithOne
from seriatim.layers.recurrent import GRU, LSTM, RNN
from seriatim.layers.table import ConditionalTable

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "CausalConv1d",
    "ConditionalTable",
    "CrossAttention",
    "LearnedPositions",
    "MaskedConv2d",
    "MaskedLinear",
    "RasterPositions",
    "RowConv2d",
    "SelfAttention",
    "SinusoidalPositions",
    "SourceAttention",
    "VariationalDropout",
    "WithOne",
]
