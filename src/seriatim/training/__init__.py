"""Training by gradient descent on Lightning's Trainer, which is imported when training starts."""

from seriatim.training.config import TrainConfig
from seriatim.training.data import TrainingData
from seriatim.training.errors import Diverged, Interrupted
from seriatim.training.estimate import Estimate, estimate
from seriatim.training.loop import TrainResult, train
from seriatim.training.sequences import SequenceData

__all__ = [
    "Diverged",
    "Estimate",
    "Interrupted",
    "SequenceData",
    "TrainConfig",
    "TrainResult",
    "TrainingData",
    "estimate",
    "train",
]
