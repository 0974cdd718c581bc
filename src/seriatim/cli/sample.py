"""`seriatim sample`: draw samples from a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import (
    BatchOption,
    ContextOption,
    DeviceOption,
    JsonOption,
    OrdersOption,
    OutOption,
    PrecisionOption,
    RunArgument,
    SeedOption,
    VerboseOption,
)
from seriatim.cli.output import csv_text, ending, engine_told, progress, say, show, show_json, write_file

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from seriatim.cli.loading import Run
    from seriatim.controls import Controls
    from seriatim.tasks import Growth
    from seriatim.tasks.rows import Joint

ENDINGS = (".png", ".npy", ".csv")
OPTIONS = ("temperature", "top_k", "top_p", "min_p", "length", "precision")
"""Arguments of the library that are options here."""


class Asked(NamedTuple):
    """What is to be drawn: so many rows of a distribution, and the class of each where every class takes its turn."""

    joint: Joint
    num: int
    classes: Tensor | None


class Drawn(NamedTuple):
    """Rows (N, *event_shape), their log p and log q in nats where these are known, and the class of each or None."""

    x: np.ndarray
    log_prob: Tensor | None = None
    log_q: Tensor | None = None
    classes: Tensor | None = None


def run(
    call: typer.Context,
    path: RunArgument,
    num: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--num",
            min=1,
            help="How many (16, of sequences 1); of each class where a model of classes is given none.",
        ),
    ] = None,
    out: OutOption = None,
    context: ContextOption = None,
    orders: OrdersOption = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of each conditional: below 1 sharper, above 1 flatter; 1 is exact.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Then keep the K most probable values.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", metavar="P", help="Then the fewest values that have probability P.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", metavar="P", help="Then those P times as probable as the first, or more.")
    ] = None,
    length: Annotated[
        int | None, typer.Option("--length", metavar="N", help="Of sequences, for networks that run over any length.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="The same in seconds, of sound and music.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT|FILE", help="What sequences begin with.")
    ] = None,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Write while it is made: a picture again and again, text and sound bit by bit."),
    ] = False,
    batch_size: BatchOption = 256,
    seed: SeedOption = 0,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Draw exact samples: a picture (.png, for images), an array (.npy) or a table (.csv; also on stdout); of sequences
    text (.txt; also on stdout), sound (.wav, .flac, .ogg), a table (.csv) or values and lengths (.npz).

    Sample r depends on the seed and r only, not on how many are drawn. Without --context a model of classes draws of
    every class in turn; a picture then has one row for each class. With --temperature, --top-k, --top-p or --min-p,
    which act in this order, samples are no longer from the model: --json then tells log q beside log p.
    """
    controls = controls_of(temperature, top_k, top_p, min_p)
    from seriatim.cli.loading import open_run

    if verbose:
        call.with_resource(engine_told())
    own = open_run(path, device)
    if own.model.codec is not None:
        from seriatim.cli import sample_sequences as sequences

        sequences.refuse_orders(orders, own)
        given = (num or 1, out, context, length, seconds, prompt, stream, seed, batch_size, controls, precision, json)
        with options_named():
            sequences.sample_sequences(own, sequences.Asked(*given))
        return
    if seconds is not None or prompt is not None:
        raise UserError(f"{'--prompt' if seconds is None else '--seconds'}: expected a run of sequences, got {path}")
    suffix = ".csv" if out is None else ending(out, tuple(WRITERS))
    check_stream(stream, suffix, out, orders)
    if suffix == ".png":
        require_images(own)
    asked = asked_of(own, num or 16, context, orders, length)
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "controls": controls, "precision": precision}
    with options_named():
        drawn = grown(own, asked, out, options) if stream and out is not None else draw(asked, json, options)
    if json:
        show_json({"run": str(path), "seed": seed, **asdict(controls), "length": length, **facts(own, drawn)})
    if out is not None:
        write_file(out, lambda file: WRITERS[suffix](own, drawn, file))
    elif not json:
        show(rows_csv(own, drawn.x, drawn.classes))


@contextmanager
def options_named() -> Iterator[None]:
    """Let errors of the library name the option, not the argument."""
    try:
        yield
    except ValueError as error:
        name, colon, rest = str(error).partition(":")
        if not colon or name not in OPTIONS:
            raise
        raise UserError(f"--{name.replace('_', '-')}:{rest}") from None


def controls_of(temperature: float, top_k: int | None, top_p: float | None, min_p: float | None) -> Controls:
    """Return the controls that the options ask for.

    Raises:
        UserError: a number out of its range; names the option.
    """
    from seriatim.controls import Controls

    with options_named():
        return Controls(temperature, top_k, top_p, min_p)


def check_stream(stream: bool, suffix: str, out: Path | None, orders: int | None) -> None:
    """Refuse to stream what is no picture, or rows of different orders."""
    if stream and suffix != ".png":
        raise UserError(f"--stream: expected --out with a name ending in .png, got {out or 'none'}")
    if stream and orders is not None:
        raise UserError("--stream: expected one order, got --orders: each sample has another one")


def asked_of(run: Run, num: int, context: str | None, orders: int | None, length: int | None) -> Asked:
    """Return what the user asked for: of every class in turn where a model of classes is given none.

    Raises:
        UserError: a context, orders or a length that do not fit the model.
    """
    from seriatim.cli.loading import contexts, every_class

    classes = every_class(run, num) if context is None else None
    given = contexts(run, context, None) if classes is None else classes
    if length is not None and orders is not None:
        raise UserError("--length: expected none with --orders, whose models have weights for each place")
    with options_named():
        joint = run.joint(given, orders) if length is None else run.model(given, length=length)
    return Asked(joint, num if classes is None else len(classes), classes)


def draw(asked: Asked, scored: bool, options: dict[str, Any]) -> Drawn:
    """Draw samples; scored, they come with log p under the model and log q of what was sampled."""
    from seriatim.ensemble import OrderEnsemble
    from seriatim.tasks import generate, generate_scored

    options = options | {"progress": progress("samples")}
    if scored and not isinstance(asked.joint, OrderEnsemble):
        x, log_prob, log_q = generate_scored(asked.joint, asked.num, **options)
        return Drawn(x.cpu().numpy(), log_prob, log_q, asked.classes)
    x = generate(asked.joint, asked.num, **options)
    if not scored:
        return Drawn(x.cpu().numpy(), classes=asked.classes)
    log_prob = asked.joint.log_prob(x).detach().double()
    # Under controls a mixture of orders is sampled from a mixture of its own, which is not summed here.
    return Drawn(x.cpu().numpy(), log_prob, log_prob if options["controls"].neutral else None, asked.classes)


def grown(run: Run, asked: Asked, out: Path, options: dict[str, Any]) -> Drawn:
    """Draw samples, write their picture about a hundred times on the way, and return them."""
    from PIL import Image

    from seriatim.data.files import replacing
    from seriatim.tasks import grow

    turns = run.model.order.length * -(-asked.num // options["batch_size"])
    every, tenth, growth = max(1, turns // 100), max(1, turns // 10), None
    columns = columns_of(asked.classes)
    for turn, growth in enumerate(grow(asked.joint, asked.num, **options), 1):
        if turn % every == 0 and turn < turns:
            with replacing(out) as temporary:
                Image.fromarray(growing_picture(run, growth, columns)).save(temporary, format="PNG")
        if turn % tenth == 0 or turn == turns:
            say(f"stream: {int(growth.drawn.sum()):,} of {growth.drawn.numel():,} values")
    assert growth is not None
    return Drawn(growth.values.numpy(), growth.log_prob, growth.log_q, asked.classes)


def facts(run: Run, drawn: Drawn) -> dict[str, Any]:
    """Return what --json tells of rows: their classes by name, the rows, log p and log q."""
    names = None if drawn.classes is None else [run.class_names[int(k)] for k in drawn.classes]
    scores = {"log_prob_nats": drawn.log_prob, "log_q_nats": drawn.log_q}
    return {"classes": names, "samples": drawn.x, **scores}


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


def columns_of(classes: Tensor | None) -> int | None:
    """Return how many rows there are of each class, where classes take turns."""
    return None if classes is None else len(classes) // (int(classes.max()) + 1)


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


def write_picture(run: Run, drawn: Drawn, file: Path) -> None:
    """Write images side by side; of every class in turn as a picture of one line a class."""
    from seriatim.data import save_grid

    x, columns = drawn.x, columns_of(drawn.classes)
    save_grid(file, by_class(x, columns), levels=run.kind[1] or 256, columns=columns, scale=scale_of(x), pad=2)


def write_array(run: Run, drawn: Drawn, file: Path) -> None:
    """Write rows as an array."""
    import numpy as np

    with open(file, "wb") as stream:
        np.save(stream, drawn.x)


def write_table(run: Run, drawn: Drawn, file: Path) -> None:
    """Write rows as a table."""
    file.write_text(rows_csv(run, drawn.x, drawn.classes), encoding="utf-8")


WRITERS: dict[str, Callable[[Run, Drawn, Path], None]] = {
    ".png": write_picture,
    ".npy": write_array,
    ".csv": write_table,
}
"""What `--out` writes, by the ending of its name."""


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
