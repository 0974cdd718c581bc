"""`seriatim report`: one HTML page about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seriatim.cli.options import DeviceOption, JsonOption, OrdersOption, RunArgument, SeedOption
from seriatim.cli.output import ending, say, show, show_json


def run(
    path: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.html", help="Where to; RUN/report.html if not given.")
    ] = None,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Run the conformance suite.")] = True,
    orders: OrdersOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page about a run.

    It shows the data and the model, the test score beside baselines, the training curve, samples (of sound with
    players and spectrograms), completions, surprise maps, the conformance report, and what it takes to make it again.
    """
    target = out if out is not None else path / "report.html"
    ending(target, (".html", ".htm"))
    from seriatim.cli.loading import open_run
    from seriatim.cli.reporting import page_of
    from seriatim.cli.sequence_rows import own_data, refuse_orders
    from seriatim.report import write_report
    from seriatim.runs import read_config

    if read_config(path).get("codec") is not None:
        from seriatim.cli.sequence_report import page_of_sequences

        own = open_run(path, device)
        refuse_orders(orders, own)
        page, found = page_of_sequences(own, own_data(own), check=check, seed=seed)
        write_report(target, page)
        if json:
            show_json({"report": str(target), **found.as_dict()})
            return
        say(f"test: {found.found.nats:.4f} nats per {found.unit}, {found.found.bits:.4f} bits per {found.unit}")
        show(str(target))
        return
    content, score = page_of(path, check=check, orders=orders, seed=seed, device=device)
    write_report(target, content)
    if json:
        show_json({"report": str(target), "nats_per_row": score.nats, "bits_per_dim": score.bits_per_dim})
        return
    say(f"test: {score}")
    show(str(target))
