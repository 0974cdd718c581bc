"""Options that several verbs share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, or of a saved model.")]
_ROWS = (
    "Rows: .npy, .npz, .csv, .parquet, a folder of images, or a named set; sequences: a text (- is stdin), sound or a "
    "folder of it, a piano roll, a table in time order."
)
RowsArgument = Annotated[str, typer.Argument(metavar="FILE", help=_ROWS)]
RowsOrPairsArgument = Annotated[str | None, typer.Argument(metavar="FILE", help=f"{_ROWS} Of pairs or --source.")]
SourceOption = Annotated[
    str | None, typer.Option("--source", metavar="FILE", help="Of pairs, with --target: a source a line; - is stdin.")
]
TargetOption = Annotated[
    str | None, typer.Option("--target", metavar="FILE", help="Of pairs: the targets, a line for each of the sources.")
]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write here instead of stdout.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Of everything random; the same seed, the same result.")]
DeviceOption = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="Where to compute.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Rows at a time.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say whether values are drawn by the native engine, and why.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="float32|bf16-weights",
        help="bf16-weights: sooner, from a model whose matrices are rounded to 16 bits.",
    ),
]
OrdersOption = Annotated[
    int | None,
    typer.Option("--orders", min=1, help="Order-agnostic models: average p(x) over so many random orders."),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="VALUE",
        help="Conditional models: one context for all rows, 7 or label=7, of sequences digit=7,speaker=ann; if not "
        "given, the labels of the rows.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="train|valid|test",
        help="Which rows of data that has splits, or of the run's own data; all rows of a plain file if not given.",
    ),
]
ResizeOption = Annotated[
    str | None, typer.Option("--resize", metavar="HEIGHTxWIDTH", help="Of images: scale all of them.")
]
GreyOption = Annotated[
    bool | None, typer.Option("--grey/--colour", help="Of images: one channel or three; as they are if not given.")
]
LevelsOption = Annotated[int | None, typer.Option("--levels", help="Of images: grey levels, 2 to 256.")]
BinariseOption = Annotated[
    str | None,
    typer.Option("--binarise", metavar="RULE", help="Of images: threshold:T, sampled (once) or dynamic (each epoch)."),
]
