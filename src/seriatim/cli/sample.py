"""`seriatim sample`: draw samples from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import (
    BatchOption,
    ContextOption,
    DeviceOption,
    JsonOption,
    OrdersOption,
    OutOption,
    RunArgument,
    SeedOption,
)
from seriatim.cli.output import csv_text, ending, progress, show, show_json, write_file

if TYPE_CHECKING:
    import numpy as np

    from seriatim.cli.loading import Run

ENDINGS = (".png", ".npy", ".csv")


def run(
    path: RunArgument,
    num: Annotated[int, typer.Option("-n", "--num", min=1, help="How many.")] = 16,
    out: OutOption = None,
    context: ContextOption = None,
    orders: OrdersOption = None,
    batch_size: BatchOption = 256,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Draw exact samples: a picture (.png, for images), an array (.npy) or a table (.csv; also on stdout).

    Sample r depends on the seed and r only, not on how many are drawn.
    """
    suffix = ".csv" if out is None else ending(out, ENDINGS)
    from seriatim.cli.loading import contexts, open_run
    from seriatim.tasks import generate

    own = open_run(path, device)
    if suffix == ".png":
        require_images(own)
    joint = own.joint(contexts(own, context, None), orders)
    drawn = generate(joint, num, seed=seed, batch_size=batch_size, progress=progress("samples"))
    x = drawn.cpu().numpy()
    if json:
        score = joint.log_prob(drawn).detach().double().cpu().tolist()
        show_json({"run": str(path), "seed": seed, "samples": x, "log_prob_nats": score})
    if out is not None:
        write_file(out, lambda file: write_rows(own, x, file, suffix))
    elif not json:
        show(rows_csv(own, x))


def require_images(run: Run) -> None:
    """Refuse a picture of rows that are no images.

    Raises:
        UserError: names the shape and the endings that fit.
    """
    from seriatim.report.views import View

    if not View(run.model.event_shape, run.kind[1]).is_image:
        shape = " x ".join(map(str, run.model.event_shape))
        raise UserError(f"--out: expected .npy or .csv for rows of {shape} values that are no images, got .png")


def write_rows(run: Run, x: np.ndarray, file: Path, suffix: str) -> None:
    """Write rows as a picture, an array or a table."""
    import numpy as np

    from seriatim.data import save_grid

    if suffix == ".png":
        size = x.shape[1]
        save_grid(file, x, levels=run.kind[1] or 256, scale=max(1, 64 // size), pad=2)
    elif suffix == ".npy":
        with open(file, "wb") as stream:
            np.save(stream, x)
    else:
        file.write_text(rows_csv(run, x), encoding="utf-8")


def rows_csv(run: Run, x: np.ndarray) -> str:
    """Return rows as CSV, the columns of a table by name and in its own values."""
    names, rows = cells(run, x)
    return csv_text(names, rows)


def cells(run: Run, x: np.ndarray) -> tuple[list[str], list[list[Any]]]:
    """Return the names of the columns and the rows as they are written."""
    if run.schema is not None:
        table = run.schema.decode(x)
        columns = [["" if v is None or v != v else v for v in table[name].tolist()] for name in table.names]
        return table.names, [list(row) for row in zip(*columns, strict=True)]
    flat = x.reshape(len(x), -1)
    if run.kind[1] is not None:
        flat = flat.astype("int64")
    return [f"x{d + 1}" for d in range(flat.shape[1])], flat.tolist()
