"""`seriatim complete`: fill in what is missing, exactly or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seriatim.cli.errors import UserError, unknown_name
from seriatim.cli.options import (
    BatchOption,
    ContextOption,
    DeviceOption,
    JsonOption,
    OutOption,
    PrecisionOption,
    RowsArgument,
    RunArgument,
    SeedOption,
    SplitOption,
    VerboseOption,
)
from seriatim.cli.output import csv_text, ending, engine_told, show, show_json, write_file
from seriatim.cli.sample import ENDINGS, cells, require_images

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from seriatim.cli.loading import Rows, Run
    from seriatim.tasks import Completion
    from seriatim.tasks.rows import Joint

HEADER = ("row", "completion", "log_prob_missing_nats", "exactness")


def run(
    call: typer.Context,
    path: RunArgument,
    file: RowsArgument,
    region: Annotated[
        str | None,
        typer.Option("--region", metavar="top|bottom|left|right|center|border", help="The part of the image given."),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option("--mask", metavar="MASK.npy", help="True (or 1) where a value is given.")
    ] = None,
    given: Annotated[
        str | None, typer.Option("--given", metavar="A,B", help="The columns of a table that are given.")
    ] = None,
    num: Annotated[int, typer.Option("-n", "--num", min=1, help="Completions of each row.")] = 8,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Rows of the file at most.")] = 8,
    split: SplitOption = None,
    out: OutOption = None,
    context: ContextOption = None,
    batch_size: BatchOption = 256,
    precision: PrecisionOption = "float32",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Complete rows of which a part is given: exact samples of p(missing | given) and their log p in nats.

    Exact are prefixes of the model's order, any part for order-agnostic models and for trees; other patterns are
    refused with the reason. Results: a picture (.png), an array (.npy: completion, row, ...) or a table (.csv; stdout);
    beside a picture or an array stdout lists log p. What stands at hidden places is not read; NaN there is no truth.
    """
    suffix = ".csv" if out is None else ending(out, ENDINGS)
    if sum(option is not None for option in (region, mask, given)) != 1:
        raise UserError("--region: expected exactly one of --region, --mask and --given, got none or several")
    from seriatim.cli.loading import contexts, open_run, read_rows
    from seriatim.tasks import complete

    if verbose:
        call.with_resource(engine_told())
    own = open_run(path, device)
    if suffix == ".png":
        require_images(own)
    observed = observed_mask(own, region, mask, given)
    read = read_rows(own, file, split, hidden_values(own, observed)).first(rows)
    joint = own.joint(contexts(own, context, read))
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "precision": precision}
    done = complete(joint, read.x, observed, num=num, **options)
    truth = true_log_prob(joint, read, observed) if json or suffix in (".png", ".npy") else []
    if json:
        facts = {"run": str(path), "file": file, "exactness": done.exactness, "seed": seed, "observed": observed}
        show_json(facts | {"samples": done.samples, "log_prob_nats": done.log_prob, "truth_log_prob_nats": truth})
    if out is not None:
        write_file(out, lambda target: write_completion(own, read, done, target, suffix))
    if not json and out is None:
        show(completion_csv(own, done))
    elif not json and suffix != ".csv":
        show(log_prob_csv(done, truth))


def hidden_values(run: Run, observed: Tensor) -> np.ndarray:
    """Return the mask of the values of a row (*event shape) that are not given."""
    extra = len(run.model.event_shape) - observed.ndim
    return ~observed.reshape(*observed.shape, *[1] * extra).expand(run.model.event_shape).numpy()


def true_log_prob(joint: Joint, rows: Rows, observed: Tensor) -> list[float | None]:
    """Return log p of what stands at the hidden places of each row, None where that is not known."""
    from seriatim.tasks import log_prob_given

    found = log_prob_given(joint, rows.x, observed).tolist()
    known = [True] * len(found) if rows.known is None else rows.known.tolist()
    return [value if own else None for value, own in zip(found, known, strict=True)]


def observed_mask(run: Run, region: str | None, mask: Path | None, given: str | None) -> Tensor:
    """Return the mask (*order shape) that the options name.

    Raises:
        UserError: a region, a file or a column that does not fit.
    """
    import torch

    from seriatim import tasks
    from seriatim.data import load_array

    shape = run.model.order.shape
    if region is not None:
        if region not in tasks.REGIONS:
            raise UserError(f"--region: {unknown_name(region, tasks.REGIONS)}")
        return tasks.region(region, shape)
    if mask is not None:
        values = load_array(mask)
        if len(shape) == 3 and values.shape == tuple(shape[:2]):  # one answer for all channels of a pixel
            values = values[..., None].repeat(shape[2], axis=-1)
        if values.shape != tuple(shape):
            raise UserError(f"--mask: expected shape {tuple(shape)} in {mask}, got {values.shape}")
        if not ((values == 0) | (values == 1)).all():
            raise UserError(f"--mask: expected True and False (or 1 and 0) in {mask}, got other values")
        return torch.as_tensor(values.astype(bool))
    assert given is not None
    if run.schema is None:
        raise UserError("--given: expected a model of a table, got one of an array; give --region or --mask")
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in run.schema.names:
            raise UserError(f"--given: {unknown_name(name, run.schema.names)}")
    return torch.tensor([name in names for name in run.schema.names])


def write_completion(run: Run, rows: Rows, done: Completion, file: Path, suffix: str) -> None:
    """Write completions as a picture (given, completions, truth in each line), an array or a table."""
    import numpy as np

    if suffix == ".png":
        from PIL import Image

        Image.fromarray(picture(run, rows.x, done, rows.known)).save(file, format="PNG")
    elif suffix == ".npy":
        with open(file, "wb") as stream:
            np.save(stream, done.samples.numpy())
    else:
        file.write_text(completion_csv(run, done), encoding="utf-8")


def picture(run: Run, x: np.ndarray, done: Completion, known: np.ndarray | None = None) -> np.ndarray:
    """Return one line for each row: what was given (the rest tinted), the completions, and the row itself if known."""
    import numpy as np

    from seriatim.report.pictures import grey_colours, grid, tinted

    levels, num = run.kind[1] or 256, len(done.samples)
    observed = np.asarray(done.observed.numpy().reshape(*x.shape[1:3], -1).all(-1))
    truths = [True] * len(x) if known is None else known.tolist()
    tiles = []
    for n, row in enumerate(x):
        given = tinted(grey_colours(row, levels), observed)
        tiles += [given, *(grey_colours(done.samples[k, n].numpy(), levels) for k in range(num))]
        if any(truths):
            tiles.append(grey_colours(row, levels) if truths[n] else given)
    return grid(tiles, columns=num + 1 + any(truths), scale=max(1, 64 // x.shape[1]))


def log_prob_csv(done: Completion, truth: list[float | None]) -> str:
    """Return log p in nats of each completion, and of the truth of each row where it is known."""
    lines: list[tuple[Any, ...]] = []
    for n, true in enumerate(truth):
        drawn = [(n, k, f"{float(own):.6f}", done.exactness) for k, own in enumerate(done.log_prob[:, n])]
        lines += [*drawn, *([] if true is None else [(n, "truth", f"{true:.6f}", done.exactness)])]
    return csv_text(HEADER, lines)


def completion_csv(run: Run, done: Completion) -> str:
    """Return one line for each completion: row, completion, log p in nats, how exact, and the values."""
    num, rows = done.samples.shape[:2]
    names, values = cells(run, done.samples.transpose(0, 1).flatten(0, 1).numpy())
    keys: list[tuple[Any, ...]] = [
        (n, k, f"{float(done.log_prob[k, n]):.6f}", done.exactness) for n in range(rows) for k in range(num)
    ]
    return csv_text([*HEADER, *names], [[*key, *own] for key, own in zip(keys, values, strict=True)])
