"""Sequence benchmarks: `python -m benchmarks.sequences TABLE [--data DIR] [--peer-wavenet DIR] [--peer-fast DIR]
[--only ...]`.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.common import data_folder

TABLES = {
    "music": "piano rolls: independent notes, and models inside the chord",
    "text": "tiny Shakespeare, characters",
    "audio": "spoken digits: bits per sample, against coders",
    "listen": "what the models say: a second of each digit, and speech",
    "hour": "an hour of sound scored in bounded memory",
    "speed": "generation by WaveNet and LSTM, against public generators and the limit of the machine; no data",
}
WITH_DATA = ("music", "text", "audio", "listen", "hour")


def checkout(parser: argparse.ArgumentParser, option: str, given: str | None, file: str) -> Path | None:
    """Return the checkout of a peer, which has a certain file, or None if none is given."""
    if given and not (Path(given) / file).is_file():
        parser.error(f"{option}: expected a checkout with {file}, got {given!r}")
    return Path(given) if given else None


def main() -> None:
    """Run one table, or print it from what is stored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences", description=__doc__, allow_abbrev=False)
    parser.add_argument("table", choices=TABLES, help="; ".join(f"{k}: {v}" for k, v in TABLES.items()))
    parser.add_argument("--data", help="the folder of the data sets; SERIATIM_DATA if not given")
    parser.add_argument("--peer-wavenet", help="speed: a checkout of r9y9/wavenet_vocoder, or its cells are not run")
    parser.add_argument("--peer-fast", help="speed: one of vincentherrmann/pytorch-wavenet, or its cells are not run")
    parser.add_argument("--only", nargs="*", default=[], help="some rows of the table")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--render", action="store_true", help="print the stored table, measure nothing")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.sequences.{arguments.table.replace('-', '_')}")
    if arguments.render:
        print(module.render())
        return
    if arguments.table in WITH_DATA:
        module.run(data_folder(arguments.data), arguments.only)
        return
    peers = {
        "wavenet_vocoder": checkout(parser, "--peer-wavenet", arguments.peer_wavenet, "wavenet_vocoder/wavenet.py"),
        "pytorch-wavenet": checkout(parser, "--peer-fast", arguments.peer_fast, "wavenet_model.py"),
    }
    module.run({name: path for name, path in peers.items() if path is not None}, arguments.only, arguments.threads)


if __name__ == "__main__":
    main()
