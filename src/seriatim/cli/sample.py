"""`seriatim sample`: draw samples from a run."""

from __future__ import annotations

import math
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
from seriatim.cli.output import csv_text, ending, progress, say, show, show_json, write_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from seriatim.cli.loading import Run
    from seriatim.tasks import Growth

ENDINGS = (".png", ".npy", ".csv")


def run(
    path: RunArgument,
    num: Annotated[
        int, typer.Option("-n", "--num", min=1, help="How many; of each class where a model of classes is given none.")
    ] = 16,
    out: OutOption = None,
    context: ContextOption = None,
    orders: OrdersOption = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of each conditional: below 1 sharper, above 1 flatter; 1 is exact.")
    ] = 1.0,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write the picture again and again while it grows (--out FILE.png).")
    ] = False,
    batch_size: BatchOption = 256,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Draw exact samples: a picture (.png, for images), an array (.npy) or a table (.csv; also on stdout).

    Sample r depends on the seed and r only, not on how many are drawn. Without --context a model of classes draws of
    every class in turn; a picture then has one row for each class.
    """
    suffix = ".csv" if out is None else ending(out, ENDINGS)
    if stream and suffix != ".png":
        raise UserError(f"--stream: expected --out with a name ending in .png, got {out or 'none'}")
    if not 0 < temperature < math.inf:
        raise UserError(f"--temperature: expected a number above 0, got {temperature:g}")
    if stream and orders is not None:
        raise UserError("--stream: expected one order, got --orders: each sample has another one")
    from seriatim.cli.loading import contexts, every_class, open_run
    from seriatim.tasks import generate

    own = open_run(path, device)
    if suffix == ".png":
        require_images(own)
    classes = every_class(own, num) if context is None else None
    joint = own.joint(contexts(own, context, None) if classes is None else classes, orders)
    total = num if classes is None else len(classes)
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "temperature": temperature}
    if stream and out is not None:
        drawn = grown(own, joint, total, out, None if classes is None else num, options)
    else:
        drawn = generate(joint, total, progress=progress("samples"), **options)
    x = drawn.cpu().numpy()
    if json:
        score = joint.log_prob(drawn).detach().double().cpu().tolist()
        names = None if classes is None else [own.class_names[int(k)] for k in classes]
        facts = {"run": str(path), "seed": seed, "temperature": temperature, "classes": names}
        show_json(facts | {"samples": x, "log_prob_nats": score})
    if out is not None:
        write_file(out, lambda file: write_rows(own, x, file, suffix, classes))
    elif not json:
        show(rows_csv(own, x, classes))


def grown(run: Run, joint: Any, num: int, out: Path, columns: int | None, options: dict[str, Any]) -> Tensor:
    """Draw samples, write their picture about a hundred times on the way, and return them."""
    from PIL import Image

    from seriatim.data.files import replacing
    from seriatim.tasks import grow

    turns = run.model.order.length * -(-num // options["batch_size"])
    every, tenth, growth = max(1, turns // 100), max(1, turns // 10), None
    for turn, growth in enumerate(grow(joint, num, **options), 1):
        if turn % every == 0 and turn < turns:
            with replacing(out) as temporary:
                Image.fromarray(growing_picture(run, growth, columns)).save(temporary, format="PNG")
        if turn % tenth == 0 or turn == turns:
            say(f"stream: {int(growth.drawn.sum()):,} of {growth.drawn.numel():,} values")
    assert growth is not None
    return growth.values


def growing_picture(run: Run, growth: Growth, columns: int | None) -> np.ndarray:
    """Return samples on their way side by side, tinted where nothing is drawn yet."""
    import numpy as np

    from seriatim.data.images import square
    from seriatim.report.pictures import grid, tinted

    x, levels = by_class(growth.values.numpy(), columns), run.kind[1] or 256
    drawn = np.asarray(by_class(growth.drawn.numpy(), columns).reshape(*x.shape[:3], -1).all(-1))
    grey = np.round(x.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    colours = grey if grey.ndim == 4 else grey[..., None].repeat(3, axis=-1)
    tiles = [tinted(own, mask) for own, mask in zip(colours, drawn, strict=True)]
    return grid(tiles, columns=columns or square(len(x)), scale=scale_of(x))


def by_class(x: np.ndarray, columns: int | None) -> np.ndarray:
    """Return rows whose classes go round, (columns * classes, ...), class by class; others as they are."""
    if columns is None:
        return x
    return x.reshape(columns, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def require_images(run: Run) -> None:
    """Refuse a picture of rows that are no images.

    Raises:
        UserError: names the shape and the endings that fit.
    """
    from seriatim.report.views import View

    if not View(run.model.event_shape, run.kind[1]).is_image:
        shape = " x ".join(map(str, run.model.event_shape))
        raise UserError(f"--out: expected .npy or .csv for rows of {shape} values that are no images, got .png")


def write_rows(run: Run, x: np.ndarray, file: Path, suffix: str, classes: Tensor | None = None) -> None:
    """Write rows as a picture, an array or a table; of every class in turn as a picture of one line a class."""
    import numpy as np

    from seriatim.data import save_grid

    if suffix == ".png":
        columns = None if classes is None else len(x) // (int(classes.max()) + 1)
        save_grid(file, by_class(x, columns), levels=run.kind[1] or 256, columns=columns, scale=scale_of(x), pad=2)
    elif suffix == ".npy":
        with open(file, "wb") as stream:
            np.save(stream, x)
    else:
        file.write_text(rows_csv(run, x, classes), encoding="utf-8")


def scale_of(x: np.ndarray) -> int:
    """Return the side of the square that one pixel of images (N, H, W, ...) becomes: 64 or more for an image."""
    return max(1, 64 // x.shape[1])


def rows_csv(run: Run, x: np.ndarray, classes: Tensor | None = None) -> str:
    """Return rows as CSV, the columns of a table by name and in its own values, after the class where there is one."""
    names, rows = cells(run, x)
    if classes is None:
        return csv_text(names, rows)
    label = run.settings.data.label if run.settings is not None else None
    known = [run.class_names[int(k)] for k in classes]
    return csv_text([label or "class", *names], [[own, *row] for own, row in zip(known, rows, strict=True)])


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
