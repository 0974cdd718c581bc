"""What sequences of a run are conditioned on: labels by name, or a source."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run, refuse_context
from seriatim.cli.sequence_rows import SequenceRows, encoded
from seriatim.context import Attributes
from seriatim.layers.source import SourceEncoder


def contexts_of(run: Run, given: str | None, rows: SequenceRows) -> Tensor | None:
    """Return what each sequence is conditioned on, (N, *context event): what the user gave, else their own.

    Raises:
        UserError: a context for an unconditional model, none for a conditional one, or one that does not fit.
    """
    encoder, count = run.model.encoder, len(rows.values)
    if encoder is None or given is not None:
        one = context_of(run, given)
        return None if one is None else one.expand(count, *one.shape)
    if isinstance(encoder, SourceEncoder) and rows.sources is not None:
        return padded(rows.sources)
    if isinstance(encoder, Attributes) and rows.labels is not None:
        return torch.as_tensor(rows.labels)
    why = f": {rows.unlabelled}" if rows.unlabelled else ""
    raise UserError(f"--context: expected {_asked(encoder)}, for {run.path} is conditional, got none{why}")


def context_of(run: Run, given: str | None) -> Tensor | None:
    """Return one context (*context event) of what the user gave: NAME=VALUE,NAME=VALUE, or the text of a source.

    Raises:
        UserError: as `contexts_of`.
    """
    encoder = run.model.encoder
    if encoder is None:
        refuse_context(run, given)
        return None
    if given is None:
        raise UserError(f"--context: expected {_asked(encoder)}, for {run.path} is conditional, got none")
    if isinstance(encoder, SourceEncoder):
        return torch.from_numpy(encoded(run.model.source_codec, given, "--context").astype(np.int64))
    if not isinstance(encoder, Attributes):
        raise UserError(f"--context: expected a model conditioned on labels or a source, got {encoder}")
    parts = [part.partition("=") for part in given.split(",")]
    if len(encoder.attributes) == 1 and len(parts) == 1 and not parts[0][1]:
        parts = [(next(iter(encoder.attributes)), "=", given)]
    if not all(equals for _, equals, _ in parts):
        raise UserError(f"--context: expected {_asked(encoder)}, got {given!r}")
    names = [name.strip() for name, _, _ in parts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--context: expected {twice[0]} once, got {given!r}")
    try:
        return encoder.numbers({name.strip(): value.strip() for name, _, value in parts})
    except ValueError as error:
        raise UserError(f"--{error}") from None


def _asked(encoder: Any) -> str:
    """What --context must be, in words."""
    if isinstance(encoder, Attributes):
        return ",".join(f"{name}=VALUE" for name in encoder.attributes)
    return "the text of a source" if isinstance(encoder, SourceEncoder) else "one"


def padded(sources: list[np.ndarray]) -> Tensor:
    """Return sources (S_i,) side by side, (N, S), padded with -1."""
    table = np.full((len(sources), max(1, *map(len, sources))), -1, dtype=np.int64)
    for row, own in enumerate(sources):
        table[row, : len(own)] = own
    return torch.from_numpy(table)
