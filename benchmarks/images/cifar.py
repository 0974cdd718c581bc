"""CIFAR-10, a subset of 5,000 images: channels as positions and channels in a mixture, against PNG and WebP.

The subset (the first 4,000 training and 1,000 test images) is far too small for published figures: rows compare among
themselves. Every model is conditional on the class.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.common import WORK, load_rows, provenance, store, table, told_epochs
from benchmarks.density.mnist import interval
from benchmarks.images.entries import config
from seriatim.channels import ChannelMixtureOfLogistics
from seriatim.context import Labels, Vector
from seriatim.data.files import replacing
from seriatim.data.splits import permutation
from seriatim.heads import Categorical, QuantizedMixtureOfLogistics
from seriatim.model import AutoregressiveModel
from seriatim.models import NADE, GatedPixelCNN
from seriatim.nested import Nested
from seriatim.training import TrainConfig, TrainingData, train

TITLE = "Images: a subset of CIFAR-10"
RESULTS = "images-cifar"
SEED = 0
LEVELS, CLASSES, NUM_VALID = 256, 10, 400
PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "classes-of-cifar.png"
ABOUT = (
    f"32 x 32 RGB, the first 4,000 training images ({NUM_VALID} of them, by seed {SEED}, for validation) and the first "
    "1,000 test images. Bits/dim = -log2 p / 3072. Far too few images for published figures: rows compare among "
    "themselves. `Sub-pixel`: every channel is a position (R, G, B); the others have a pixel at a position, whose "
    "channels depend on each other inside the head. PNG and WebP (lossless, best effort) code the same 1,000 test "
    "images one by one, their headers counted. One thread."
)


def subpixel(shape: tuple[int, ...]) -> AutoregressiveModel:
    """Return a model with a position for each channel, and logistics for values."""
    head = QuantizedMixtureOfLogistics(LEVELS, 5)
    return GatedPixelCNN(shape, head, hidden_features=12, num_layers=4, dropout=0.1, encoder=Labels(CLASSES))


def subpixel_categories(shape: tuple[int, ...]) -> AutoregressiveModel:
    """Return a model with a position for each channel, and a probability for each level."""
    head = Categorical(LEVELS)
    return GatedPixelCNN(shape, head, hidden_features=12, num_layers=4, dropout=0.1, encoder=Labels(CLASSES))


def channel_mixture(shape: tuple[int, ...]) -> AutoregressiveModel:
    """Return a model with a position for each pixel, and a mixture whose channels depend on each other."""
    head = ChannelMixtureOfLogistics(LEVELS, 10, 3)
    return GatedPixelCNN(shape[:2], head, hidden_features=36, num_layers=4, dropout=0.1, encoder=Labels(CLASSES))


def nested(shape: tuple[int, ...]) -> AutoregressiveModel:
    """Return a model with a position for each pixel, and a NADE over its channels."""
    inner = NADE(
        (3,), QuantizedMixtureOfLogistics(LEVELS, 5), hidden_features=32, activation="relu", encoder=Vector(64)
    )
    return GatedPixelCNN(
        shape[:2], Nested(inner), hidden_features=36, num_layers=4, dropout=0.1, encoder=Labels(CLASSES)
    )


ENTRIES: dict[str, tuple[Callable[[tuple[int, ...]], AutoregressiveModel], TrainConfig]] = {
    "GatedPixelCNN, sub-pixel, logistics": (subpixel, config(8, 16, 2e-3, gradient_clip=2000.0, ema_decay=0.99)),
    "GatedPixelCNN, sub-pixel, 256 categories": (
        subpixel_categories,
        config(8, 16, 2e-3, gradient_clip=2000.0, ema_decay=0.99, precision="bf16-mixed"),
    ),
    "GatedPixelCNN, channel mixture": (channel_mixture, config(12, 16, 2e-3, gradient_clip=2000.0, ema_decay=0.99)),
    "GatedPixelCNN, nested NADE": (nested, config(12, 16, 2e-3, gradient_clip=2000.0, ema_decay=0.99)),
}


def read(folder: Path) -> tuple[TrainingData, np.ndarray, np.ndarray]:
    """Return training and validation images with classes, and the test images and classes."""
    with np.load(folder / "images" / "cifar10_5000.npz", allow_pickle=False) as file:
        x, y = file["x_train"].astype(np.int64), file["y_train"].astype(np.int64)
        test = file["x_test"].astype(np.int64), file["y_test"].astype(np.int64)
    order = permutation(len(x), SEED)
    held, kept = order[:NUM_VALID], order[NUM_VALID:]
    return TrainingData(x[kept], x[held], train_context=y[kept], valid_context=y[held]), *test


def coded_bits(x: np.ndarray, form: str, **options: Any) -> np.ndarray:
    """Return the bits per dimension of each image in an image format, (N,)."""
    sizes = []
    for image in x.astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, form, **options)
        sizes.append(8 * buffer.tell() / image.size)
    return np.array(sizes)


def measure(
    data: TrainingData, x: np.ndarray, y: np.ndarray, name: str, settings: TrainConfig, folder: Path
) -> tuple[dict[str, Any], AutoregressiveModel]:
    """Train (or go on training) one entry and score its test split."""
    start = time.perf_counter()
    torch.manual_seed(SEED)
    model = ENTRIES[name][0](x.shape[1:])
    result = train(model, data, settings, folder, resume=(folder / "config.yaml").exists())
    bits = -model.score_samples(x, y, batch_size=20) / (math.log(2) * x[0].size)
    row = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        "valid_bits_per_dim": round(float(result.valid_nats or math.nan) / (math.log(2) * x[0].size), 4),
        "test_bits_per_dim": round(float(bits.mean()), 4),
        "interval": [round(end, 4) for end in interval(bits)],
        "train_seconds": round(result.seconds),
        "wall_seconds": round(time.perf_counter() - start),
        "config": settings.model_dump(mode="json"),
        "seed": SEED,
        "provenance": provenance(),
    }
    return row, model


def run(folder: Path, only: list[str], device: str, threads: int) -> None:
    """Measure all entries (or some), what is stored apart, and print the table."""
    torch.set_num_threads(threads)
    data, x, y = read(folder)
    if "PNG" not in load_rows(RESULTS):
        for name, bits in (
            ("PNG", coded_bits(x, "PNG", optimize=True)),
            ("WebP, lossless", coded_bits(x, "WEBP", lossless=True, quality=100, method=6)),
        ):
            row = {"test_bits_per_dim": round(float(bits.mean()), 4), "interval": interval(bits)}
            store(RESULTS, {name: {**row, "provenance": provenance()}})
    for name in [name for name in only or ENTRIES if name not in load_rows(RESULTS)]:
        settings = ENTRIES[name][1].model_copy(update={"device": device})
        work = WORK / RESULTS / device / name.replace(" ", "_").replace(",", "")
        row, model = measure(data, x, y, name, settings, work)
        store(RESULTS, {name: row})
        print(f"{name}: test {row['test_bits_per_dim']:.3f} bits/dim", flush=True)
        if name == "GatedPixelCNN, channel mixture":
            draw(model)
    print(render())


def draw(model: AutoregressiveModel, per_class: int = 8) -> None:
    """Write samples of the ten classes, a row each."""
    classes = torch.arange(CLASSES).repeat_interleave(per_class)
    x = model.sample((), classes, seed=SEED).numpy().astype(np.uint8)
    rows = x.reshape(CLASSES, per_class, *x.shape[1:]).transpose(0, 2, 1, 3, 4)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with replacing(PICTURE) as temporary:
        Image.fromarray(rows.reshape(CLASSES * x.shape[1], -1, 3)).save(temporary, "PNG")


def render() -> str:
    """Return the table of what is stored."""
    rows = []
    for name in (*ENTRIES, "PNG", "WebP, lossless"):
        row = load_rows(RESULTS).get(name)
        if row is None:
            rows.append([name, "not run", "", "", ""])
            continue
        low, high = row["interval"]
        trained = f"{row['train_seconds'] / 60:.0f} min, {told_epochs(row)}" if "epochs" in row else ""
        parameters = f"{row['parameters']:,}" if "parameters" in row else ""
        rows.append([name, f"{row['test_bits_per_dim']:.3f}", f"{low:.3f} to {high:.3f}", parameters, trained])
    text = table(["model", "test bits/dim", "95 % interval", "parameters", "training"], rows)
    picture = f"\n\n![Samples, one row a class](pictures/{PICTURE.name})" if PICTURE.exists() else ""
    return text + picture
