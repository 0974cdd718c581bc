"""Fixed binarised MNIST (Larochelle's split 50,000 / 10,000 / 10,000), mean test -log p in nats, all image models.

Runs are resumable: a run that was stopped goes on from its last save when the command is given again. The model is the
one of the best validation epoch; the test split is scored once, whole.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.common import unpacked
from benchmarks.images.entries import Entry, config, gated, pixelcnn, pixelrnn, rendered, run_entries, snail
from seriatim.models import DiagonalBiLSTM, RowLSTM

TITLE = "Images: fixed binarised MNIST"
RESULTS = "images-mnist"
ABOUT = (
    "Larochelle's fixed binarisation, 50,000 / 10,000 / 10,000 rows; test -log p in nats of the weights of the best "
    "validation epoch, the whole test split scored once. Rows of several scans average joint probabilities. On the CPU "
    "one thread of a busy machine, so training times are upper bounds (the estimate before GatedPixelCNN was trained "
    "was 87 minutes); the rows for a GPU (`--device cuda`) are ready to run."
)
SHAPE = (28, 28)

ENTRIES: dict[str, dict[str, Entry]] = {
    "cpu": {
        "GatedPixelCNN 8x32": Entry(gated(32, 8), config(6, 25, 2e-3), target=84.5),
        # Mixed precision halves the time of its steps; the recurrent ones gain nothing.
        "PixelCNN 8x32": Entry(pixelcnn(32, 8), config(10, 25, 2e-3, precision="bf16-mixed")),
        "RowLSTM 5x16": Entry(pixelrnn(RowLSTM, 16, 5), config(8, 25, 5e-3)),
        "DiagonalBiLSTM 3x16": Entry(pixelrnn(DiagonalBiLSTM, 16, 3), config(10, 25, 5e-3)),
        # One head: each costs a pass over all pairs of pixels, with four most of the time of a step on a CPU.
        "PixelSNAIL 2x24": Entry(snail(24, 2, 0.0, heads=1), config(4, 16, 3e-3)),
    },
    # Each sized for ten minutes of one large GPU a scan.
    "cuda": {
        "PixelCNN 12x64": Entry(pixelcnn(64, 12, 0.1), config(40, 128, 2e-3), target=81.30),
        "GatedPixelCNN 10x64": Entry(gated(64, 10, 0.2), config(40, 128, 2e-3), target=80.10),
        "RowLSTM 7x32": Entry(pixelrnn(RowLSTM, 32, 7, 0.2), config(40, 128, 2e-3), target=80.54),
        "DiagonalBiLSTM 7x16": Entry(pixelrnn(DiagonalBiLSTM, 16, 7, 0.1), config(40, 256, 4e-3), target=79.20),
        "PixelSNAIL 4x64": Entry(snail(64, 4, 0.3), config(40, 128, 1e-3), target=79.0),
        "PixelSNAIL 4x64, 4 scans": Entry(snail(64, 4, 0.3), config(40, 128, 1e-3), target=79.0, scans=4),
    },
}


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all entries (or some) and print the table."""
    torch.set_num_threads(threads)
    data = {key: rows.reshape(-1, *SHAPE) for key, rows in unpacked(folder, "images/binarized_mnist.npz").items()}
    run_entries(RESULTS, ENTRIES, data, only, device)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    return rendered(RESULTS, ENTRIES)
