"""`seriatim demo`: the whole job on handwritten digits that come with the installation, in about a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seriatim.cli.errors import FAILED
from seriatim.cli.options import JsonOption, SeedOption
from seriatim.cli.output import show, show_json


def run(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder, or that of an earlier demo to replace.")
    ] = Path("runs/demo"),
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Of the MADE; fewer are faster.")] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Run the conformance suite.")] = True,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Train two models on handwritten digits, compare, sample, complete, explain and check them, and write a report.

    A Chow-Liu Bayes net takes a second, a MADE less than a minute. Everything lands in one folder; a second demo
    replaces the first one's folder when it has succeeded, and leaves any other folder alone.
    """
    from seriatim.cli.demonstration import demonstrate, replacing_folder, summary

    with replacing_folder(out):
        result = demonstrate(out, epochs=epochs, check=check, seed=seed)
    if json:
        show_json(result)
    else:
        show(summary(result))
    if result["checks"]["failed"]:
        raise typer.Exit(FAILED)
