"""One position with a context is p(y | x): logistic regression and an MLP. `python examples/classifier.py`."""

from __future__ import annotations

import torch

from seriatim import AutoregressiveModel
from seriatim.context import Vector
from seriatim.data import load
from seriatim.heads import Categorical
from seriatim.models import FVSBN, NeuralConditionals
from seriatim.training import TrainConfig, TrainingData, train


def accuracy(model: AutoregressiveModel, pixels: torch.Tensor, classes: torch.Tensor) -> float:
    """Return the share of rows whose class is the most probable one of p(y | x)."""
    with torch.no_grad():
        predicted = model(pixels).conditionals(torch.zeros(len(pixels), 1)).probs.argmax(-1)[:, 0]
    return float((predicted == classes).float().mean())


def main() -> dict[str, float]:
    """Train both on the embedded digits (8x8, 17 levels) and return their test accuracies."""
    digits = load("digits17")
    pixels = {name: torch.from_numpy(x).flatten(1).float() / 16 for name, x in digits.splits.items()}
    classes = {name: torch.from_numpy(y) for name, y in (digits.labels or {}).items()}
    rows = TrainingData(
        classes["train"][:, None],
        classes["valid"][:, None],
        train_context=pixels["train"],
        valid_context=pixels["valid"],
    )
    config = TrainConfig(epochs=60, learning_rate=1e-2, weight_decay=0.1)
    models: dict[str, AutoregressiveModel] = {
        "logistic regression, FVSBN((1,))": FVSBN((1,), Categorical(10), encoder=Vector(64)),
        "MLP, NeuralConditionals((1,))": NeuralConditionals(
            (1,), Categorical(10), hidden_features=(128,), encoder=Vector(64)
        ),
    }
    found = {}
    for name, model in models.items():
        train(model, rows, config, progress=False)
        found[name] = accuracy(model, pixels["test"], classes["test"])
        print(f"{name}: {100 * found[name]:.1f} % of {len(classes['test'])} test digits")
    return found


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
