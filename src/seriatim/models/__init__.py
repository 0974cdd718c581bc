"""Models, one file a paper, and their registry.

`MODELS` maps the names of the command line to classes: `MODELS["made"]((64,), hidden_features=(256,))`.
"""

from seriatim.model import AutoregressiveModel
from seriatim.models.bayesnet import BayesNet, FullTable
from seriatim.models.fvsbn import FVSBN
from seriatim.models.gated_pixelcnn import GatedPixelCNN
from seriatim.models.made import MADE, OrderAgnosticMADE
from seriatim.models.nade import NADE
from seriatim.models.neural_conditionals import NeuralConditionals

MODELS: dict[str, type[AutoregressiveModel]] = {
    "full_table": FullTable,
    "bayesnet": BayesNet,
    "fvsbn": FVSBN,
    "neural_conditionals": NeuralConditionals,
    "nade": NADE,
    "made": MADE,
    "order_agnostic_made": OrderAgnosticMADE,
    "gated_pixelcnn": GatedPixelCNN,
}

__all__ = [
    "FVSBN",
    "MADE",
    "MODELS",
    "NADE",
    "BayesNet",
    "FullTable",
    "GatedPixelCNN",
    "NeuralConditionals",
    "OrderAgnosticMADE",
]
