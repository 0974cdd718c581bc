"""`seriatim score`: log p of each row of a file."""

from __future__ import annotations

from seriatim.cli.options import (
    BatchOption,
    ContextOption,
    DeviceOption,
    JsonOption,
    OrdersOption,
    OutOption,
    RowsArgument,
    RunArgument,
    SplitOption,
)
from seriatim.cli.output import csv_text, show_json, show_or_write

HEADER = ("row", "log_prob_nats", "bits_per_dim")


def run(
    path: RunArgument,
    file: RowsArgument,
    split: SplitOption = None,
    out: OutOption = None,
    context: ContextOption = None,
    orders: OrdersOption = None,
    batch_size: BatchOption = 256,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score each row of a file: log p in nats (higher is more normal) and bits per dimension, as CSV."""
    from seriatim.cli.loading import contexts, open_run, read_rows
    from seriatim.tasks import bits_per_dim, evaluate

    own = open_run(path, device)
    rows = read_rows(own, file, split)
    result = evaluate(own.joint(contexts(own, context, rows), orders), rows.x, batch_size=batch_size, num_resamples=1)
    bits = bits_per_dim(-result.log_prob, result.num_dimensions)
    if json:
        show_json({"run": str(path), "file": file, "log_prob_nats": result.log_prob, "bits_per_dim": bits})
        if out is None:
            return
    table = [(n, f"{p:.6f}", f"{b:.6f}") for n, (p, b) in enumerate(zip(result.log_prob, bits, strict=True))]
    show_or_write(csv_text(HEADER, table), out)
