"""Density benchmarks: `python -m benchmarks.density TABLE [--data DIR] [--only NAME ...]`."""

from __future__ import annotations

import argparse
import importlib

from benchmarks.common import data_folder

TABLES = {
    "chow-liu": "the Chow-Liu tree against check values, all binary sets",
    "binary-sets": "the UCI and density sets, hyper-parameters chosen on validation",
    "mnist": "fixed binarised MNIST",
    "rnade": "continuous tables, ten-fold",
    "sampling-tax": "time to sample over the arithmetic limit",
}


def main() -> None:
    """Run one table, or print it from what is stored."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.density", description=__doc__)
    parser.add_argument("table", choices=TABLES, help="; ".join(f"{k}: {v}" for k, v in TABLES.items()))
    parser.add_argument("--data", help="the folder of the data sets; SERIATIM_DATA if not given")
    parser.add_argument("--only", nargs="*", default=[], help="some rows of the table")
    parser.add_argument("--render", action="store_true", help="print the stored table, measure nothing")
    arguments = parser.parse_args()
    module = importlib.import_module(f"benchmarks.density.{arguments.table.replace('-', '_')}")
    if arguments.render:
        print(module.render())
        return
    folder = None if arguments.table == "sampling-tax" else data_folder(arguments.data)
    module.run(folder, arguments.only)


if __name__ == "__main__":
    main()
