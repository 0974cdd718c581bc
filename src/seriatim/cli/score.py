"""`seriatim score`: log p of each row of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import (
    BatchOption,
    ContextOption,
    DeviceOption,
    JsonOption,
    OrdersOption,
    OutOption,
    RowsOrPairsArgument,
    RunArgument,
    SourceOption,
    SplitOption,
    TargetOption,
)
from seriatim.cli.output import csv_text, show_json, show_or_write

HEADER = ("row", "log_prob_nats", "bits_per_dim")


def run(
    path: RunArgument,
    file: RowsOrPairsArgument = None,
    source: SourceOption = None,
    target: TargetOption = None,
    split: SplitOption = None,
    out: OutOption = None,
    context: ContextOption = None,
    orders: OrdersOption = None,
    batch_size: BatchOption = 256,
    device: DeviceOption = "auto",
    per_value: Annotated[
        Path | None, typer.Option("--per-value", metavar="FILE", help="Sequences: log p of each value; .csv or .npy.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score each row of a file: log p in nats (higher is more normal) and bits per dimension, as CSV.

    Of sequences: log p of the values of each, bits per value, and apart from it log p of ending where it ended. Of
    pairs: log p of each target given its source, from one file (source TAB target) or from two, --source and --target.
    """
    from seriatim.cli.loading import contexts, open_run, read_rows
    from seriatim.cli.pairs import one_file
    from seriatim.cli.sequence_rows import of_sequences, refuse_orders
    from seriatim.tasks import bits_per_dim, evaluate

    file = one_file(file, source, target)
    if per_value is not None and per_value == out:
        raise UserError(f"--per-value: expected another file than --out, got {per_value}")
    own = open_run(path, device)
    if of_sequences(own):
        from seriatim.cli.sequence_score import score_sequences

        refuse_orders(orders, own)
        score_sequences(
            own,
            file,
            target=target,
            split=split,
            out=out,
            context=context,
            batch_size=batch_size,
            per_value=per_value,
            json=json,
        )
        return
    if target is not None:
        raise UserError(f"--target: expected a run of pairs, got one of rows: {path}")
    if per_value is not None:
        raise UserError("--per-value: expected a run of sequences, got one of rows: explain has the bits of each value")
    rows = read_rows(own, file, split)
    result = evaluate(own.joint(contexts(own, context, rows), orders), rows.x, batch_size=batch_size, num_resamples=1)
    bits = bits_per_dim(-result.log_prob, result.num_dimensions)
    if json:
        show_json({"run": str(path), "file": file, "log_prob_nats": result.log_prob, "bits_per_dim": bits})
        if out is None:
            return
    table = [(n, f"{p:.6f}", f"{b:.6f}") for n, (p, b) in enumerate(zip(result.log_prob, bits, strict=True))]
    show_or_write(csv_text(HEADER, table), out)
