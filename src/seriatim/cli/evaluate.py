"""`seriatim evaluate`: the score of a run on test rows, with an interval and baselines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import (
    BatchOption,
    ContextOption,
    DeviceOption,
    JsonOption,
    OrdersOption,
    RunArgument,
    SeedOption,
    SplitOption,
    TargetOption,
)
from seriatim.cli.output import say, show, show_json

if TYPE_CHECKING:
    from seriatim.cli.loading import Rows, Run
    from seriatim.tasks import Baseline, Evaluation


def run(
    path: RunArgument,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Rows to score; if not given, those of the run's data.")
    ] = None,
    target: TargetOption = None,
    split: SplitOption = None,
    baselines: Annotated[bool, typer.Option("--baselines/--no-baselines", help="Score simpler models too.")] = True,
    beams: Annotated[
        int | None,
        typer.Option("--beams", min=0, help="Of pairs: width of the search for targets; 0 for none, 5 if not given."),
    ] = None,
    orders: OrdersOption = None,
    context: ContextOption = None,
    batch_size: BatchOption = 256,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Score a run on test rows: nats per row and bits per dimension, with a 95 % bootstrap interval and baselines.

    Baselines, fitted to the run's training rows: factorised, Chow-Liu where values are discrete and few, zlib and xz of
    the same rows. Sequences are scored per value (and byte of text), apart from their ends; their baselines are
    frequencies, the value before, zlib, xz and FLAC. Of pairs, targets are searched for and compared with those of the
    data: sacreBLEU with its signature, and the share that is the same.
    """
    from seriatim.cli.loading import contexts, open_run, own_rows, read_rows
    from seriatim.cli.sequence_rows import of_sequences, refuse_orders
    from seriatim.tasks import evaluate

    own = open_run(path, device)
    if of_sequences(own):
        from seriatim.cli.sequence_evaluate import evaluate_sequences

        refuse_orders(orders, own)
        evaluate_sequences(
            own,
            data=data,
            target=target,
            beams=beams,
            split=split,
            baselines=baselines,
            context=context,
            batch_size=batch_size,
            seed=seed,
            json=json,
        )
        return
    if target is not None or beams is not None:
        name = "--target" if target is not None else "--beams"
        raise UserError(f"{name}: expected a run of pairs, got one of rows: {path}")
    if data is None and own.settings is None:
        raise UserError(f"--data: expected a file, for {path} is a model without a run, got none")
    rows = read_rows(own, data, split) if data is not None else own_rows(own, split or "test")
    joint = own.joint(contexts(own, context, rows), orders)
    result = evaluate(joint, rows.x, batch_size=batch_size, seed=seed)
    others = compared(own, rows.x) if baselines and own.settings is not None else []
    if json:
        show_json(as_dict(result, others) | {"run": str(path), "rows": rows.source, "binarised": rows.binarised})
    else:
        if not own.model.head.discrete:
            say("note: real numbers have densities, per unit of each column or entry: nats shift with the unit")
        show(as_text(result, others, str(path), rows))


def compared(run: Run, test: Any) -> list[Baseline]:
    """Return the baselines for a run, fitted to its training rows, but the one that is the run's own model."""
    import numpy as np

    from seriatim.symbols import Symbols
    from seriatim.tasks import baselines
    from seriatim.tasks.baselines import BASELINES

    data = run.data
    head = None if isinstance(run.model.head, Symbols) else run.model.head
    others = [name for name in BASELINES if name != _itself(run)]
    if data.schema is None:
        return baselines(data.train, test, num_values=data.levels, head=head, only=others)
    columns = data.schema.columns
    if any(column.kind != "categorical" for column in columns):
        return baselines(data.train, test, head=head, only=others)
    # Codes of the symbols of each column, of which the last stands for a missing value.
    arities = [len(column.symbols) for column in columns]
    train, codes = (np.where(np.isnan(x), np.array(arities) - 1, x) for x in (data.train, test))
    return baselines(train, codes, num_values=arities, head=head, only=others)


def _itself(run: Run) -> str | None:
    """The baseline that the run's model is, if it is one."""
    options = {} if run.settings is None else run.settings.model
    own = (options.get("name"), options.get("method"), options.get("pseudo_count"))
    known: dict[tuple[Any, ...], str] = {
        ("bayesnet", "chow_liu", 0.1): "chow-liu",
        ("bayesnet", "independent", 0.5): "factorised",
    }
    return known.get(own)


def as_dict(result: Evaluation, others: list[Baseline]) -> dict[str, Any]:
    """Return a score and its baselines for machines; units are in the names."""
    return {
        "nats_per_row": result.nats,
        "nats_interval": list(result.interval),
        "bits_per_dim": result.bits_per_dim,
        "bits_per_dim_interval": list(result.bits_per_dim_interval),
        "confidence": result.confidence,
        "num_rows": len(result.log_prob),
        "num_dimensions": result.num_dimensions,
        "baselines": [
            {"name": b.name, "nats_per_row": b.nats, "bits_per_dim": b.bits_per_dim, "detail": b.detail} for b in others
        ],
    }


def as_text(result: Evaluation, others: list[Baseline], name: str, rows: Rows) -> str:
    """Return a score and its baselines as a table with units."""
    low, high = result.interval
    width = max([len(name), *(len(b.name) for b in others)])
    lines = [
        f"{rows.source}: {len(result.log_prob)} rows of {result.num_dimensions} values; "
        f"the interval is a {result.confidence:.0%} bootstrap over rows",
        *([] if rows.binarised is None else [f"binarised: {rows.binarised}"]),
        f"{'':<{width}}  nats per row  bits/dim",
        f"{name:<{width}}  {result.nats:12.4f}  {result.bits_per_dim:8.4f}  [{low:.4f}, {high:.4f}] nats",
    ]
    for b in sorted(others, key=lambda b: (b.nats is None, b.nats)):
        numbers = "           -         -" if b.nats is None else f"{b.nats:12.4f}  {b.bits_per_dim:8.4f}"
        lines.append(f"{b.name:<{width}}  {numbers}  {b.detail}")
    return "\n".join(lines)
