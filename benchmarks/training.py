"""What the trainings of benchmarks share: they go on where they stopped, and tell what they took."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.common import epochs_done, provenance, training_time
from seriatim.model import AutoregressiveModel
from seriatim.training import TrainConfig, TrainResult, train


def trained(
    model: AutoregressiveModel, data: Any, config: TrainConfig, folder: Path
) -> tuple[TrainResult, dict[str, Any]]:
    """Train a model, or go on training it in its folder; return the result and what is stored of every training.

    The processor's time of epochs that an earlier process ran is scaled from those of this one.
    """
    before, started = epochs_done(folder), time.process_time()
    result = train(model, data, config, folder, resume=(folder / "config.yaml").exists())
    seconds = time.process_time() - started
    return result, {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        **training_time(seconds, before, len(result.history)),
        "wall_seconds": round(result.seconds),
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "provenance": provenance(),
    }
