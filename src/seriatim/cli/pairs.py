"""Pairs on the command line: sources and targets from two files, and the targets that a search finds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run
from seriatim.cli.output import say
from seriatim.cli.sequence_contexts import padded
from seriatim.cli.sequence_rows import STDIN, SequenceRows, encoded, read_sequences
from seriatim.data.text import decode_text, read_bytes

if TYPE_CHECKING:
    from seriatim.tasks import Hypothesis

BEAMS, LENGTH_PENALTY = 5, 0.6
"""The search whose targets are shown and evaluated where nothing is said; the penalty is that of the paper."""


def of_pairs(run: Run) -> bool:
    """Whether a run is one of pairs: its model turns a source into a target."""
    return run.model.codec is not None and run.model.source_codec is not None


def one_file(file: str | None, source: str | None, target: str | None) -> str:
    """Return the file that FILE or --source names.

    Raises:
        UserError: neither or both, or --source without --target.

    Example:
        >>> one_file("pairs.tsv", None, None), one_file(None, "a.txt", "b.txt")
        ('pairs.tsv', 'a.txt')
    """
    if source is not None and file is not None:
        raise UserError(f"--source: expected none beside FILE {file}, got {source}")
    if source is not None and target is None:
        raise UserError("--target: expected the file of the targets beside --source, got none")
    if source is None and file is None:
        raise UserError("FILE: expected a file, or --source and --target, got none")
    return str(file if source is None else source)


def given_sequences(run: Run, source: str, target: str | None, split: str | None = None) -> SequenceRows:
    """Read what a user gave: two files of pairs where there is a target, else as `read_sequences`.

    Raises:
        UserError: a target for a model that takes none, or files that do not fit.
    """
    if target is None:
        return read_sequences(run, source, split)
    if split is not None:
        raise UserError(f"--split: expected none with --target, whose files are taken whole, got {split}")
    return pair_rows(run, source, target)


def pair_rows(run: Run, source: str, target: str) -> SequenceRows:
    """Read pairs from two files whose lines belong together; "-" is stdin.

    A line that is empty in both is left out, and said; an empty target is one that ends at once.

    Raises:
        UserError: no model of pairs, another number of lines, a target without a source, or no pairs.
    """
    if not of_pairs(run):
        raise UserError(
            f"--target: expected none, for {run.path} is no model of pairs, which turns a source into a target, "
            f"got {target}"
        )
    sources, targets = _lines(source, "--source"), _lines(target, "--target")
    if len(sources) != len(targets):
        raise UserError(f"{target}: expected {len(sources)} lines as in {source}, got {len(targets)}")
    kept = [n for n, (own, other) in enumerate(zip(sources, targets, strict=True)) if own.strip() or other.strip()]
    for number in kept:
        if not sources[number].strip():
            raise UserError(f"{source}, line {number + 1}: expected a source, got an empty line")
    if not kept:
        raise UserError(f"{source}: expected pairs, got empty lines")
    if left := len(sources) - len(kept):
        say(f"{left} line{'s' if left > 1 else ''} empty in both files, left out")
    codec, other = run.model.codec, run.model.source_codec
    return SequenceRows(
        [encoded(codec, targets[n], target, n + 1) for n in kept],
        [f"line {n + 1}" for n in kept],
        f"{source} -> {target}",
        sources=[encoded(other, sources[n], source, n + 1) for n in kept],
    )


def _lines(file: str, option: str) -> list[str]:
    """The lines of a file or of stdin, without their ends."""
    if file != STDIN and not Path(file).is_file():
        raise UserError(f"{option}: {file}: no such file")
    raw, name = (sys.stdin.buffer.read(), "stdin") if file == STDIN else (read_bytes(file), file)
    text = decode_text(raw, name, hint="")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def search(run: Run, sources: list[np.ndarray], **options: Any) -> list[list[Hypothesis]]:
    """Return the targets that `beam_search` finds for each source (S_i,); those of like length are searched together.

    Args:
        run: of pairs.
        sources: each of one symbol or more.
        options: of `beam_search`.
    """
    from seriatim.tasks import beam_search

    order = np.argsort([len(own) for own in sources], kind="stable")
    if not len(order):
        return []
    results = beam_search(run.model, padded([sources[row] for row in order]), **options)
    found: list[list[Hypothesis]] = [[] for _ in sources]
    for row, own in zip(order, results, strict=True):
        found[row] = own
    return found
