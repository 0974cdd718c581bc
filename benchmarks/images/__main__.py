"""Image benchmarks: `python -m benchmarks.images TABLE [--data DIR] [--peer DIR] [--device cpu|cuda] [--only ...]`."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.common import data_folder

TABLES = {
    "mnist": "fixed binarised MNIST: all image models, on the CPU or a GPU",
    "caltech": "Caltech 101 silhouettes: FVSBN and PixelCNN",
    "cifar": "a subset of CIFAR-10: ways to model colour, against PNG and WebP",
    "small": "digits and Frey faces: all models, the same budget",
    "classify": "labelled MNIST: classes by Bayes' rule, before and after calibration",
    "speed": "training steps against a peer, the cost of masking, LSTM layers; no data",
}


def peer_folder(parser: argparse.ArgumentParser, given: str | None) -> Path | None:
    """Return the checkout of `--peer`, or None if none is given."""
    if given and not (Path(given) / "pytorch_generative").is_dir():
        parser.error(f"--peer: expected a checkout of pytorch-generative, got {given!r}")
    return Path(given) if given else None


def main() -> None:
    """Run one table, or print it from what is stored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=__doc__)
    parser.add_argument("table", choices=TABLES, help="; ".join(f"{k}: {v}" for k, v in TABLES.items()))
    parser.add_argument("--data", help="the folder of the data sets; SERIATIM_DATA if not given")
    parser.add_argument("--peer", help="speed: a checkout of pytorch-generative (EugenHotaj), or its cells are not run")
    parser.add_argument("--only", nargs="*", default=[], help="some rows of the table")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the rows for a GPU")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--render", action="store_true", help="print the stored table, measure nothing")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.images.{arguments.table.replace('-', '_')}")
    if arguments.render:
        print(module.render())
        return
    folder = peer_folder(parser, arguments.peer) if arguments.table == "speed" else data_folder(arguments.data)
    module.run(folder, arguments.only, arguments.device, arguments.threads)


if __name__ == "__main__":
    main()
