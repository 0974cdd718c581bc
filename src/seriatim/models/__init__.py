"""Models, one file a paper, and their registry.

`MODELS` maps the names of the command line to classes: `MODELS["made"]((64,), hidden_features=(256,))`.
"""

from seriatim.layers.source import SourceEncoder
from seriatim.model import AutoregressiveModel
from seriatim.models.bayesnet import BayesNet, FullTable
from seriatim.models.fvsbn import FVSBN
from seriatim.models.gated_pixelcnn import GatedPixelCNN
from seriatim.models.made import MADE, OrderAgnosticMADE
from seriatim.models.nade import NADE
from seriatim.models.neural_conditionals import NeuralConditionals
from seriatim.models.pixelcnn import PixelCNN
from seriatim.models.pixelrnn import DiagonalBiLSTM, RowLSTM
from seriatim.models.pixelsnail import PixelSNAIL
from seriatim.models.rnn import GRU, LSTM, RNN
from seriatim.models.transformer import Transformer
from seriatim.models.wavenet import WaveNet

MODELS: dict[str, type[AutoregressiveModel]] = {
    "full_table": FullTable,
    "bayesnet": BayesNet,
    "fvsbn": FVSBN,
    "neural_conditionals": NeuralConditionals,
    "nade": NADE,
    "made": MADE,
    "order_agnostic_made": OrderAgnosticMADE,
    "pixelcnn": PixelCNN,
    "gated_pixelcnn": GatedPixelCNN,
    "row_lstm": RowLSTM,
    "diagonal_bilstm": DiagonalBiLSTM,
    "pixelsnail": PixelSNAIL,
    "rnn": RNN,
    "gru": GRU,
    "lstm": LSTM,
    "wavenet": WaveNet,
    "transformer": Transformer,
}

__all__ = [
    "FVSBN",
    "GRU",
    "LSTM",
    "MADE",
    "MODELS",
    "NADE",
    "RNN",
    "BayesNet",
    "DiagonalBiLSTM",
    "FullTable",
    "GatedPixelCNN",
    "NeuralConditionals",
    "OrderAgnosticMADE",
    "PixelCNN",
    "PixelSNAIL",
    "RowLSTM",
    "SourceEncoder",
    "Transformer",
    "WaveNet",
]
