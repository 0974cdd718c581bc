"""Sampling benchmarks: `python -m benchmarks.sampling [--peer-wavenet DIR] [--peer-images DIR] [--only ...]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from benchmarks.common import load_rows, provenance, store
from benchmarks.sampling import cuda, first_use, lengths
from benchmarks.sampling.measure import measure
from benchmarks.sampling.table import RESULTS, lines, newcomer, render
from benchmarks.sequences.__main__ import checkout


def main() -> None:
    """Measure all lines (or some) and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__, allow_abbrev=False)
    parser.add_argument("--peer-wavenet", help="a checkout of r9y9/wavenet_vocoder, or its cells are not run")
    parser.add_argument("--peer-images", help="one of pytorch-generative (EugenHotaj), or its cells are not run")
    parser.add_argument(
        "--only", nargs="*", default=[], help='some lines ("PixelCNN 15x32, batch 16"), "lengths" or "first use"'
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: captured steps against eager")
    parser.add_argument("--missing", action="store_true", help="only lines that are not stored")
    parser.add_argument("--render", action="store_true", help="print the stored tables, measure nothing")
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        cuda.run()
        return
    known = [*lines(), "lengths", "first use"]
    if unknown := [line for line in arguments.only if line not in known]:
        parser.error(f"--only: expected one of {', '.join(map(repr, known))}, got {unknown[0]!r}")
    peers = {
        "wavenet_vocoder": checkout(parser, "--peer-wavenet", arguments.peer_wavenet, "wavenet_vocoder/wavenet.py"),
        "pytorch-generative": checkout(
            parser, "--peer-images", arguments.peer_images, "pytorch_generative/models/autoregressive/pixel_cnn.py"
        ),
    }
    given: dict[str, Path] = {name: path for name, path in peers.items() if path is not None}
    torch.set_num_threads(1)
    for line in [] if arguments.render else arguments.only or known:
        if arguments.missing and line in load_rows(RESULTS):
            continue
        if line == "lengths":
            lengths.run()
            continue
        if line == "first use":
            first_use.run(RESULTS)
            continue
        name, _, batch = line.rpartition(", batch ")
        row = measure(name, int(batch), given)
        store(RESULTS, {line: {**row, "provenance": provenance()}})
        print(f"{line}: tax {row['tax']:.2f}", file=sys.stderr, flush=True)
    print(render())
    print("\n" + newcomer(load_rows(RESULTS)))


if __name__ == "__main__":
    main()
