"""Caltech 101 silhouettes, 28 x 28 (4,100 / 2,264 / 2,307), mean test -log p in nats.

Runs are resumable: a run that was stopped goes on from its last save when the command is given again. The model is the
one of the best validation epoch; the test split is scored once, whole.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.common import load_rows, unpacked
from benchmarks.images.entries import Entry, config, gated, pixelcnn, rendered, run_entries
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN
from seriatim.order import Order

TITLE = "Images: Caltech 101 silhouettes"
RESULTS = "images-caltech"
ABOUT = (
    "28 x 28, 4,100 / 2,264 / 2,307 rows, as in the original file (0 is the object); 11 test rows also occur in train. "
    "Test -log p in nats of the weights of the best validation epoch; one thread. Of the rows of FVSBN the one best on "
    "validation counts. L1 is a Laplace prior on its weights: the published figure (Gan, Henao, Carlson, Carin, 2015) "
    "is of priors that encourage sparse weights. Flipped: half of the training images are seen "
    "left and right exchanged, drawn anew each time."
)
SHAPE = (28, 28)


def fvsbn(order: Order) -> AutoregressiveModel:
    """Return a FVSBN in a scan."""
    return FVSBN(order.shape, order=order)


ENTRIES: dict[str, dict[str, Entry]] = {
    "cpu": {
        "FVSBN, weight decay 0.01": Entry(
            fvsbn, config(60, 50, 3e-3, weight_decay=0.01, patience=12, ema_decay=0.99), target=96.40
        ),
        **{
            f"FVSBN, L1 {w:g}": Entry(fvsbn, config(150, 100, 5e-3, weight_decay=0, l1=w, ema_decay=0.99), target=96.40)
            for w in (0.0005, 0.0008, 0.0012)
        },
        "FVSBN, L1 0.0009, 300 epochs": Entry(
            fvsbn, config(300, 100, 5e-3, weight_decay=0, l1=0.0009, ema_decay=0.99), target=96.40
        ),
        "PixelCNN 6x24, dropout 0.3": Entry(pixelcnn(24, 6, 0.3), config(30, 25, 2e-3, patience=6), target=89.3),
        "PixelCNN 6x24, dropout 0.1, flipped": Entry(
            pixelcnn(24, 6, 0.1), config(40, 25, 2e-3, patience=8), target=89.3, flipped=True
        ),
        "GatedPixelCNN 5x24, dropout 0.3": Entry(gated(24, 5, 0.3), config(30, 25, 2e-3, patience=6), target=89.3),
    },
    "cuda": {
        "GatedPixelCNN 8x64, dropout 0.5": Entry(gated(64, 8, 0.5), config(150, 64, 2e-3, patience=20), target=89.3),
    },
}


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all entries (or some) and print the table."""
    torch.set_num_threads(threads)
    packed = unpacked(folder, "images/caltech101_silhouettes_28.npz")
    data = {key: rows.reshape(-1, *SHAPE) for key, rows in packed.items()}
    names = [name for name in only or ENTRIES[device] if name not in load_rows(RESULTS).get(device, {})]
    if names:
        run_entries(RESULTS, ENTRIES, data, names, device)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    return rendered(RESULTS, ENTRIES)
