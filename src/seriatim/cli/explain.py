"""`seriatim explain`: which values of a row surprise the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from seriatim.cli.output import csv_text, ending, say, show, show_json, write_file

if TYPE_CHECKING:
    import numpy as np

    from seriatim.cli.loading import Run
    from seriatim.tasks import Explanation

ENDINGS = (".png", ".csv", ".npy")


def run(
    path: RunArgument,
    file: RowsOrPairsArgument = None,
    source: SourceOption = None,
    target: TargetOption = None,
    split: SplitOption = None,
    rows: Annotated[int | None, typer.Option("--rows", min=1, help="Rows of the file at most.")] = None,
    out: OutOption = None,
    context: ContextOption = None,
    orders: OrdersOption = None,
    sequence: Annotated[
        int | None, typer.Option("--sequence", metavar="N", help="Of sequences: this one alone, counted from 0.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Of series: bits above which a step is anomalous; from validation if none."),
    ] = None,
    attention: Annotated[
        Path | None,
        typer.Option("--attention", metavar="FILE", help="Of a Transformer: its attention as a picture; .png or .svg."),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option("--layer", min=1, help="With --attention: the heads of this layer, not the mean of each layer's."),
    ] = None,
    batch_size: BatchOption = 256,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Explain rows: the bits that each value costs given those before it.

    Results: a heat map (.png: each row beside its bits), a table by column (.csv; stdout) or all bits (.npy). Of
    sequences: what surprises most (stdout), a page of coloured text (.html), a picture of sound, music or a series over
    its surprise (.png, .svg; of several the most surprising), the bits of each value (.csv, .npy). Of pairs: as in
    score; --attention draws where the target looked in itself and in the source, of the first pair or of --sequence.
    """
    from seriatim.cli.loading import Rows, contexts, open_run, read_rows
    from seriatim.cli.pairs import one_file
    from seriatim.cli.sequence_rows import of_sequences, refuse_orders
    from seriatim.report.views import View
    from seriatim.tasks import explain

    file = one_file(file, source, target)
    own = open_run(path, device)
    if of_sequences(own):
        from seriatim.cli.sequence_explain import explain_sequences

        refuse_orders(orders, own)
        explain_sequences(
            own,
            file,
            target=target,
            attention=attention,
            layer=layer,
            split=split,
            rows=rows,
            out=out,
            context=context,
            batch_size=batch_size,
            sequence=sequence,
            threshold=threshold,
            json=json,
        )
        return
    others = {"--sequence": sequence, "--threshold": threshold, "--target": target, "--attention": attention}
    for name, value in (others | {"--layer": layer}).items():
        if value is not None:
            raise UserError(f"{name}: expected a run of sequences, got one of rows")
    suffix = ".csv" if out is None else ending(out, ENDINGS)
    read = read_rows(own, file, split)
    read = Rows(read.x[:rows], None if read.labels is None else read.labels[:rows], read.source)
    found = explain(own.joint(contexts(own, context, read), orders), read.x, batch_size=batch_size)
    names = View(own.model.event_shape, own.kind[1], own.schema).names()
    if found.bits[0].size != len(names):
        names = [f"x{t + 1}" for t in range(found.bits[0].size)]
    say(f"note: {found.note}")
    if json:
        columns = [column._asdict() for column in found.columns(names)]
        show_json({"run": str(path), "file": file, "note": found.note, "columns": columns, "bits": found.bits})
    if out is not None:
        write_file(out, lambda target: _write(own, read.x, found, names, target, suffix))
    elif not json:
        show(_table(found, names))


def _table(found: Explanation, names: list[str]) -> str:
    header = ["column", "mean_bits", "std_bits", "max_bits", "max_row"]
    return csv_text(
        header,
        [
            (c.name, f"{c.mean_bits:.6f}", f"{c.std_bits:.6f}", f"{c.max_bits:.6f}", c.max_row)
            for c in found.columns(names)
        ],
    )


def _write(run: Run, x: np.ndarray, found: Explanation, names: list[str], file: Path, suffix: str) -> None:
    import numpy as np

    if suffix == ".png":
        from PIL import Image

        Image.fromarray(heat_map(run, x, found.bits)).save(file, format="PNG")
    elif suffix == ".npy":
        with open(file, "wb") as stream:
            np.save(stream, found.bits)
    else:
        file.write_text(_table(found, names), encoding="utf-8")


def heat_map(run: Run, x: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return images beside their bits, eight pairs in a line; rows that are no images as lines of bits."""
    import numpy as np

    from seriatim.report.pictures import grey_colours, grid, heat_colours
    from seriatim.report.views import View

    view = View(run.model.event_shape, run.kind[1])
    bits = view.per_pixel(bits) if view.is_image else bits
    largest = max(1.0, float(np.quantile(bits, 0.995)))
    say(f"colours: dark is 0 bits or less, pale yellow {largest:.2f} bits and more")
    if not view.is_image:
        return heat_colours(bits.reshape(len(bits), -1), largest).repeat(8, axis=0).repeat(8, axis=1)
    tiles = []
    for row, own in zip(x, bits, strict=False):
        tiles += [grey_colours(row, view.levels or 256), heat_colours(own, largest)]
    return grid(tiles, columns=min(16, len(tiles)), scale=max(1, 48 // x.shape[1]))
