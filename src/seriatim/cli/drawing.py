"""The samples of a report: drawn once, timed, and of every class where the model is one of classes."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

from seriatim import engine
from seriatim.cli.loading import Run, every_class
from seriatim.report.page import TileRow
from seriatim.report.views import View
from seriatim.tasks import generate
from seriatim.tasks.rows import Joint

NUM_SAMPLES = 10
_OF_EACH, _MOST_CLASSES = 5, 10


class Drawn(NamedTuple):
    """Samples (N, *event_shape), a line of pictures for each class, and what one sample took, in words."""

    samples: np.ndarray
    classes: list[TileRow]
    time: str


def drawn(run: Run, joint: Joint, view: View, seed: int, orders: int | None) -> Drawn:
    """Draw the samples of a report; `joint` is the distribution of a model without classes."""
    classes = every_class(run, 1)
    if classes is None:
        samples, took = timed(run, joint, NUM_SAMPLES, seed)
        return Drawn(samples, [], took)
    shown = classes[:_MOST_CLASSES]
    each = _OF_EACH if view.is_image else 1
    each = max(each, -(-NUM_SAMPLES // len(shown)))
    samples, took = timed(run, run.joint(shown.repeat(each), orders), each * len(shown), seed)
    if not view.is_image:
        return Drawn(samples[:NUM_SAMPLES], [], took)
    lines = [
        TileRow(run.class_names[k], [view.tile(row, alt=f"a sample of {run.class_names[k]}") for row in own])
        for k, own in enumerate(samples.reshape(each, len(shown), *samples.shape[1:]).swapaxes(0, 1))
    ]
    return Drawn(samples[:NUM_SAMPLES], lines, took)


def timed(run: Run, joint: Joint, num: int, seed: int) -> tuple[np.ndarray, str]:
    """Draw samples, and say how long one took."""
    choice = engine.choose(run.model, num)
    if choice.program is not None:  # what is compiled first is not the samples' time
        generate(run.joint(None if run.model.encoder is None else torch.tensor(0)), 1, seed=seed)
    started = time.perf_counter()
    samples = generate(joint, num, seed=seed).cpu().numpy()
    each = (time.perf_counter() - started) / num
    shown = f"{each:.2g} s" if each >= 0.1 else f"{1000 * each:.2g} ms"
    device = run.model.device.type
    threads = torch.get_num_threads()
    where = f"{device}, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device
    return samples, f"{shown} per sample, {num} at once, {choice.path}, {where}"
