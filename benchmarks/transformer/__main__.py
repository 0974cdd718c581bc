"""Transformer benchmarks: `python -m benchmarks.transformer TABLE [--data DIR] [--device cpu|cuda] [--only ...]`."""

from __future__ import annotations

import argparse
import importlib

from benchmarks.common import data_folder

TABLES = {
    "multi30k": "translation of captions, German and English: sacreBLEU, perplexity",
    "babi": "questions about stories: accuracy of one joint model per task",
    "shakespeare": "tiny Shakespeare, characters: nats, beside recurrent models",
    "speed": "training steps against nn.Transformer; no data",
    "decoding": "tokens a second against Hugging Face and CTranslate2, where they are installed; no data",
}
WITHOUT_DATA: tuple[str, ...] = ("speed", "decoding")


def main() -> None:
    """Run one table, or print it from what is stored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transformer", description=__doc__, allow_abbrev=False)
    parser.add_argument("table", choices=TABLES, help="; ".join(f"{k}: {v}" for k, v in TABLES.items()))
    parser.add_argument("--data", help="the folder of the data sets; SERIATIM_DATA if not given")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: the rows for a GPU")
    parser.add_argument("--only", nargs="*", default=[], help="some rows of the table")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--render", action="store_true", help="print the stored table, measure nothing")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.transformer.{arguments.table}")
    if arguments.render:
        print(module.render())
    elif arguments.table in WITHOUT_DATA:
        module.run(arguments.only, arguments.threads)
    else:
        module.run(data_folder(arguments.data), arguments.only, arguments.device, arguments.threads)


if __name__ == "__main__":
    main()
