"""`seriatim translate`: the most probable target of each source line, for models of pairs."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import DeviceOption, JsonOption, OutOption, RunArgument
from seriatim.cli.output import say, show, show_json, write_file

if TYPE_CHECKING:
    from seriatim.cli.loading import Run
    from seriatim.tasks import Hypothesis

_BLOCK = 256  # lines that are read before the first is written


class Options(NamedTuple):
    """How targets are searched for."""

    num_beams: int
    length_penalty: float
    max_length: int
    n_best: int
    batch_size: int


class Line(NamedTuple):
    """A source and its targets, the best first: none for an empty line."""

    number: int
    source: str
    targets: list[tuple[str, Hypothesis]]


def run(
    path: RunArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Sources, a line each; - is stdin.")] = "-",
    out: OutOption = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Width of the search; 1 is greedy.")] = 5,
    length_penalty: Annotated[
        float, typer.Option("--length-penalty", help="0 ranks by log p, more favours longer targets.")
    ] = 0.6,
    n_best: Annotated[int, typer.Option("--n-best", min=1, help="Targets for each source, with log p.")] = 1,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Of a target, its end among it; the model's if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sources at a time.")] = 32,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Translate lines, or answer them: the most probable target of each source that a beam search finds.

    A line out for each line in, in their order, as soon as a block of them is done; an empty line stays empty. With
    --n-best the targets of a source follow one another, each after its line number and log p in nats.
    """
    if n_best > beams:
        raise UserError(f"--n-best: expected {beams} at most, the width of --beams, got {n_best}")
    from seriatim.cli.loading import open_run

    own = open_run(path, device)
    if own.model.codec is None or own.model.source_codec is None:
        raise UserError(f"RUN: expected a model of pairs, which turns a source into a target, got {path}")
    options = Options(beams, length_penalty, max_length or own.model.event_shape[0], n_best, batch_size)
    lines = translated(own, read_lines(file), options)
    if json:
        found = [as_dict(line) for line in lines]
        show_json({"run": str(path), **options._asdict(), "lines": found})
    elif out is None:
        for line in lines:
            show("\n".join(as_text(line, n_best)))
    else:
        write_file(out, lambda target: target.write_text(_joined(lines, n_best), encoding="utf-8"))


def read_lines(file: str) -> Iterator[str]:
    """Yield the lines of a file or of stdin, without their ends.

    Raises:
        UserError: no such file, or bytes that are no UTF-8; names the line.
    """
    if file != "-" and not Path(file).is_file():
        raise UserError(f"FILE: {file}: no such file")
    with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as stream:
        for number, raw in enumerate(stream, 1):
            try:
                yield raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise UserError(f"{file}, line {number}: expected UTF-8, got byte {raw[error.start]:#04x}") from None


def translated(run: Run, lines: Iterable[str], options: Options) -> Iterator[Line]:
    """Yield each line with its targets, in order, block by block; what was cut or left out is said."""
    numbered = enumerate(lines, 1)
    while block := list(itertools.islice(numbered, _BLOCK)):
        found = _searched(run, block, options)
        for (number, source), targets in zip(block, found, strict=True):
            if not source.strip():
                say(f"line {number}: empty, left empty")
            elif targets and not targets[0][1].finished:
                say(f"line {number}: cut at --max-length {options.max_length}, before its end")
            yield Line(number, source, targets)


def _searched(run: Run, block: list[tuple[int, str]], options: Options) -> list[list[tuple[str, Hypothesis]]]:
    """Return the targets of each line of a block; sources of like length are searched side by side."""
    import numpy as np
    import torch

    from seriatim.tasks import beam_search

    model, values = run.model, {}
    for place, (number, source) in enumerate(block):
        if source.strip():
            try:
                values[place] = model.source_codec.encode(source)
            except ValueError as error:
                raise UserError(f"line {number}: {error}") from None
    places = sorted(values, key=lambda place: len(values[place]))
    targets: list[list[tuple[str, Hypothesis]]] = [[] for _ in block]
    if not places:
        return targets
    padded = np.full((len(places), len(values[places[-1]])), -1, dtype=np.int64)
    for row, place in enumerate(places):
        padded[row, : len(values[place])] = values[place]
    found = beam_search(model, torch.from_numpy(padded), **options._asdict())
    for place, own in zip(places, found, strict=True):
        targets[place] = [(model.codec.decode(one.values.cpu().numpy()), one) for one in own]
    return targets


def as_text(line: Line, n_best: int) -> list[str]:
    """Return what is written for a line: its target, or its targets with their scores."""
    if n_best == 1:
        return [line.targets[0][0] if line.targets else ""]
    return [f"{line.number}\t{one.log_prob:.4f}\t{text}" for text, one in line.targets] or [f"{line.number}\t\t"]


def as_dict(line: Line) -> dict[str, Any]:
    """Return a line and its targets for machines."""
    targets = [
        {"target": text, "log_prob_nats": one.log_prob, "score": one.score, "finished": one.finished}
        for text, one in line.targets
    ]
    return {"line": line.number, "source": line.source, "targets": targets}


def _joined(lines: Iterable[Line], n_best: int) -> str:
    return "".join(text + "\n" for line in lines for text in as_text(line, n_best))
