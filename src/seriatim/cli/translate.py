"""`seriatim translate`: targets of source lines, the most probable ones or samples, for models of pairs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from seriatim.cli.errors import UserError
from seriatim.cli.options import DeviceOption, JsonOption, OutOption, PrecisionOption, RunArgument, SeedOption
from seriatim.cli.output import say, show, show_json, write_file

if TYPE_CHECKING:
    import numpy as np

    from seriatim.cli.loading import Run
    from seriatim.controls import Controls

_BATCHES = 8  # batches of lines that are read before the first is written: lines of like length go together
_LONGEST = 1024  # tokens of a source


@dataclass(frozen=True)
class Search:
    """The most probable targets that a beam search finds."""

    num_beams: int
    length_penalty: float
    n_best: int

    @property
    def num_targets(self) -> int:
        """How many targets a source has at most."""
        return self.n_best

    def facts(self) -> dict[str, Any]:
        """Return the settings for machines."""
        return asdict(self)


@dataclass(frozen=True)
class Sampling:
    """Samples of p(target | source), or of what controls make of it."""

    num: int
    seed: int
    controls: Controls

    @property
    def num_targets(self) -> int:
        """How many targets a source has."""
        return self.num

    def facts(self) -> dict[str, Any]:
        """Return the settings for machines."""
        return {"num": self.num, "seed": self.seed, **asdict(self.controls)}


class Limits(NamedTuple):
    """How long sources and targets may be, in tokens, how many sources go together, and the precision of matrices."""

    max_source: int
    max_length: int
    batch_size: int
    precision: str = "float32"


class Target(NamedTuple):
    """A target: its text, log p in nats, what it is ranked by (a sample: log q), and whether it came to its end."""

    text: str
    log_prob: float
    score: float
    finished: bool


class Line(NamedTuple):
    """A source and its targets, the best first: none for an empty line."""

    number: int
    source: str
    targets: list[Target]


def run(
    path: RunArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Sources, a line each; - is stdin.")] = "-",
    out: OutOption = None,
    beams: Annotated[
        int | None, typer.Option("--beams", min=1, help="Width of the search; 1 is greedy; 5 if not given.")
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option("--length-penalty", help="0 ranks by log p, more favours longer targets; 0.6 if not given."),
    ] = None,
    n_best: Annotated[
        int | None, typer.Option("--n-best", min=1, help="Targets for each source, with log p; 1 if not given.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw targets in place of the search.")] = False,
    num: Annotated[
        int | None, typer.Option("-n", "--num", min=1, help="With --sample: targets for each source, with log p.")
    ] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="With --sample: below 1 sharper, above 1 flatter; 1 is exact.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help="Then keep the K most probable tokens.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", metavar="P", help="Then the fewest tokens that have probability P.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option("--min-p", metavar="P", help="Then those P times as probable as the first, or more.")
    ] = None,
    seed: SeedOption = 0,
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Of a target, its end among it; the model's if not given.")
    ] = None,
    max_source: Annotated[
        int, typer.Option("--max-source", min=1, help="Tokens of a source; what is longer is cut, and said.")
    ] = _LONGEST,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Sources at a time.")] = 32,
    precision: PrecisionOption = "float32",
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Translate lines, or answer them: the most probable target of each source that a beam search finds, or samples.

    A line out for each line in, in their order, as soon as a block of eight batches is done, or all that has come yet;
    with --batch-size 1 each by itself. An empty line stays empty. With --n-best or --num the targets of a source follow
    one another, each after its line number and log p in nats. Samples depend on the seed, the line and --num only.
    """
    from seriatim.cli.sample import controls_of

    controls = controls_of(temperature, top_k, top_p, min_p)
    searching = {"--beams": beams, "--length-penalty": length_penalty, "--n-best": n_best}
    how = _sampling(num, seed, controls, searching) if sample else _search(searching, num, controls)
    from seriatim.cli.loading import open_run
    from seriatim.cli.pairs import of_pairs

    own = open_run(path, device)
    if not of_pairs(own):
        raise UserError(f"RUN: expected a model of pairs, which turns a source into a target, got {path}")
    limits = Limits(max_source, max_length or own.model.event_shape[0], batch_size, precision)
    lines = translated(own, read_lines(file), how, limits)
    if json:
        found = [as_dict(line, how) for line in lines]
        show_json({"run": str(path), **how.facts(), **limits._asdict(), "lines": found})
    elif out is None:
        for line in lines:
            show("\n".join(as_text(line, how.num_targets)))
    else:
        write_file(out, lambda target: target.write_text(_joined(lines, how.num_targets), encoding="utf-8"))


def _search(given: dict[str, Any], num: int | None, controls: Controls) -> Search:
    """The search that the options ask for."""
    from seriatim.cli.pairs import BEAMS, LENGTH_PENALTY

    if num is not None or not controls.neutral:
        raise UserError("--num, --temperature, --top-k, --top-p, --min-p: expected --sample beside them, got none")
    beams, penalty, n_best = given.values()
    beams = BEAMS if beams is None else beams
    if n_best is not None and n_best > beams:
        raise UserError(f"--n-best: expected {beams} at most, the width of --beams, got {n_best}")
    return Search(beams, LENGTH_PENALTY if penalty is None else penalty, n_best or 1)


def _sampling(num: int | None, seed: int, controls: Controls, searching: dict[str, Any]) -> Sampling:
    for name, value in searching.items():
        if value is not None:
            hint = ": --num says how many samples" if name == "--n-best" else ""
            raise UserError(f"{name}: expected none with --sample, which does not search, got {value}{hint}")
    return Sampling(num or 1, seed, controls)


def read_lines(file: str) -> Iterator[list[str]]:
    """Yield the lines of a file or of stdin, without their ends, as many together as have come.

    Raises:
        UserError: no such file, or bytes that are no UTF-8; names the line.
    """
    if file != "-" and not Path(file).is_file():
        raise UserError(f"FILE: {file}: no such file")
    number, rest = 0, b""
    with contextlib.ExitStack() as stack:
        stream: Any = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))
        while part := stream.read1(1 << 16):
            *lines, rest = (rest + part).split(b"\n")
            if lines:
                yield [_decoded(line, file, number + n) for n, line in enumerate(lines, 1)]
            number += len(lines)
    if rest:
        yield [_decoded(rest, file, number + 1)]


def _decoded(raw: bytes, file: str, number: int) -> str:
    try:
        return raw.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        name = "stdin" if file == "-" else file
        raise UserError(f"{name}, line {number}: expected UTF-8, got byte {raw[error.start]:#04x}") from None


def translated(run: Run, parts: Iterable[list[str]], how: Search | Sampling, limits: Limits) -> Iterator[Line]:
    """Yield each line with its targets, in order, block by block; what was cut or left out is said."""
    size = _BATCHES * limits.batch_size if limits.batch_size > 1 else 1
    read, done = 0, 0  # lines, and those that are not empty
    for part in parts:
        for start in range(0, len(part), size):
            block = list(enumerate(part[start : start + size], read + 1))
            values = _encoded(run, block, limits.max_source)
            sources = [own for own in values if own is not None]
            if isinstance(how, Search):
                found = iter(_searched(run, sources, how, limits))
            else:
                found = iter(_sampled(run, sources, how, limits, done))
            for (number, source), own in zip(block, values, strict=True):
                targets = [] if own is None else next(found)
                _tell(number, targets, own is None, limits.max_length)
                yield Line(number, source, targets)
            read, done = read + len(block), done + len(sources)


def _tell(number: int, targets: list[Target], empty: bool, max_length: int) -> None:
    """Say what became of a line that is no ordinary one."""
    cut = sum(not target.finished for target in targets)
    which = "" if len(targets) < 2 else f" in {cut} of {len(targets)} targets"
    if empty:
        say(f"line {number}: empty, left empty")
    elif cut:
        say(f"line {number}: cut at --max-length {max_length}, before its end{which}")


def _encoded(run: Run, block: list[tuple[int, str]], max_source: int) -> list[np.ndarray | None]:
    """Return the values of each source, None for an empty one; a source that is too long is cut."""
    values: list[np.ndarray | None] = []
    for number, source in block:
        if not source.strip():
            values.append(None)
            continue
        try:
            own = run.model.source_codec.encode(source)
        except ValueError as error:
            raise UserError(f"line {number}: {error}") from None
        if len(own) > max_source:
            unit = run.model.source_codec.unit
            say(f"line {number}: a source of {len(own):,} {unit}s, cut to --max-source {max_source}")
        values.append(own[:max_source])
    return values


def _searched(run: Run, sources: list[np.ndarray], how: Search, limits: Limits) -> list[list[Target]]:
    """Return the most probable targets of each source."""
    from seriatim.cli.pairs import search

    options = {"max_length": limits.max_length, "batch_size": limits.batch_size, "precision": limits.precision}
    decode = run.model.codec.decode
    return [
        [Target(decode(one.values.cpu().numpy()), one.log_prob, one.score, one.finished) for one in own]
        for own in search(run, sources, **how.facts(), **options)
    ]


def _sampled(run: Run, sources: list[np.ndarray], how: Sampling, limits: Limits, done: int) -> list[list[Target]]:
    """Return samples for each source, whose noise is that of the rows from `done` on."""
    if not sources:
        return []
    from seriatim.cli.sequence_contexts import padded
    from seriatim.ending import SequenceModel
    from seriatim.tasks import generate_scored

    model = run.model
    assert isinstance(model, SequenceModel)
    options: dict[str, Any] = {"batch_size": limits.batch_size, "precision": limits.precision}
    x, log_prob, log_q = generate_scored(
        model,
        len(sources) * how.num,
        padded(sources).repeat_interleave(how.num, dim=0),
        seed=how.seed,
        first_row=done * how.num,
        controls=how.controls,
        length=limits.max_length,
        **options,
    )
    lengths = model.lengths(x).tolist()
    found = [
        Target(model.codec.decode(row[:length].cpu().numpy()), p, q, length < limits.max_length)
        for row, length, p, q in zip(x, lengths, log_prob.tolist(), log_q.tolist(), strict=True)
    ]
    return [found[row : row + how.num] for row in range(0, len(found), how.num)]


def as_text(line: Line, num_targets: int) -> list[str]:
    """Return what is written for a line: its target, or its targets with their log p."""
    if num_targets == 1:
        return [_one_line(line.targets[0].text) if line.targets else ""]
    return [f"{line.number}\t{one.log_prob:.4f}\t{_one_line(one.text)}" for one in line.targets] or [
        f"{line.number}\t\t"
    ]


def _one_line(text: str) -> str:
    """A target as one line: a model of bytes may make ends of lines."""
    return text.replace("\r", " ").replace("\n", " ")


def as_dict(line: Line, how: Search | Sampling) -> dict[str, Any]:
    """Return a line and its targets for machines."""
    ranked = "score" if isinstance(how, Search) else "log_q_nats"
    targets = [
        {"target": one.text, "log_prob_nats": one.log_prob, ranked: one.score, "finished": one.finished}
        for one in line.targets
    ]
    return {"line": line.number, "source": line.source, "targets": targets}


def _joined(lines: Iterable[Line], num_targets: int) -> str:
    return "".join(text + "\n" for line in lines for text in as_text(line, num_targets))
