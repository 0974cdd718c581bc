"""Attention of a Transformer as a picture: where it looked in the text before, and in the source."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run
from seriatim.cli.output import say
from seriatim.cli.pairs import of_pairs
from seriatim.cli.sequence_rows import SequenceRows
from seriatim.ending import Ending
from seriatim.models.transformer import Transformer
from seriatim.report.attention import Tokens, attention_figure
from seriatim.report.figures import Figure
from seriatim.tasks import attention_maps

MOST = 48  # tokens that are read: more are not to be made out
_END = "(end)"


def check_attention(run: Run) -> None:
    """Refuse runs without attention to draw.

    Raises:
        UserError: another model.
    """
    if not isinstance(run.model, Transformer):
        raise UserError(f"--attention: expected a Transformer, got {type(run.model).__name__}")


def draw_attention(run: Run, rows: SequenceRows, contexts: Any, number: int, layer: int | None) -> Figure:
    """Draw the attention of one sequence: the mean of the heads of each layer, or the heads of one layer.

    Args:
        run: of a Transformer that reads text.
        rows: the sequences.
        contexts: of each, or None.
        number: which is drawn.
        layer: from 1; None for all layers.

    Raises:
        UserError: an empty sequence without an end, or no such layer.
    """
    codec, values = run.model.codec, rows.values[number]
    ends = isinstance(run.model.head, Ending)
    if not len(values) and not ends:
        raise UserError(f"{rows.source}: expected a sequence with values, got an empty one")
    context = None if contexts is None else contexts[number]
    if len(values) > MOST:
        say(f"note: the first {MOST} of {len(values):,} {codec.unit}s are read and drawn")
        values = values[:MOST]
    source = rows.sources[number] if of_pairs(run) and rows.sources is not None else None
    if source is not None and len(source) > MOST:
        say(
            f"note: the first {MOST} of {len(source):,} {run.model.source_codec.unit}s of the source are read and drawn"
        )
        source = source[:MOST]
    if source is not None:
        context = torch.from_numpy(source.astype(np.int64))
    found = attention_maps(run.model, values.astype(np.int64), context)
    pieces = codec.pieces(values)
    coming = [*pieces, _END] if ends else pieces
    tokens = {"target": Tokens(coming, ["(start)", *coming[:-1]])}
    if source is not None:
        words = run.model.source_codec.pieces(source)
        tokens |= {"cross": Tokens(coming, words), "source": Tokens(words, words)}
    return attention_figure(
        {name: _shown(name, own, layer) for name, own in found.named.items()},
        tokens,
        each="layer" if layer is None else f"layer {layer}, head",
    )


def _shown(name: str, maps: np.ndarray, layer: int | None) -> np.ndarray:
    """The mean of the heads of each layer (L, n, S), or the heads of one layer (heads, n, S)."""
    if layer is None:
        return maps.mean(1)
    if layer > len(maps):
        raise UserError(f"--layer: expected 1 to {len(maps)}, the layers of {name}, got {layer}")
    return maps[layer - 1]
