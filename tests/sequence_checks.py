"""What tests of sequences as data share: a tone, a verse, and readers of what was loaded."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from seriatim.data import Sequences, load

TONE = (0.5 * np.sin(np.arange(4000) / 7)).astype(np.float32)
VERSE = "Who's there?\nNay, answer me: stand, and unfold yourself.\n" * 20


def sequences(*args: Any, **options: Any) -> Sequences:
    """Load sequences, whose provenance can be written."""
    data = load(*args, **options)
    assert isinstance(data, Sequences)
    json.dumps(data.provenance)
    return data


def texts_of(data: Sequences, split: str) -> list[str]:
    """The texts of a split."""
    assert data.codec is not None
    return [data.codec.decode(values) for values in data.splits[split]]


def pairs_of(data: Sequences, split: str) -> list[tuple[str, str]]:
    """The pairs of texts of a split."""
    assert data.source_codec is not None
    assert data.sources is not None
    sources = [data.source_codec.decode(values) for values in data.sources[split]]
    return list(zip(sources, texts_of(data, split), strict=True))
