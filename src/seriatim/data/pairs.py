"""Pairs of texts: a source, and the target that is conditioned on it, such as a translation or an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.sequences import Ragged, Sequences
from seriatim.data.splits import FRACTIONS, SPLITS, cut_rows, split_provenance
from seriatim.data.text import decode_text, read_bytes, text_codec

Texts = tuple[list[str], list[str]]
"""Sources, and as many targets."""


def pair_sequences(
    path: str | Path,
    target: str | Path | None = None,
    *,
    tokens: str = "bytes",
    source_tokens: str | None = None,
    joint: bool = False,
    fractions: Sequence[float] = FRACTIONS,
    valid: str | Path | None = None,
    valid_target: str | Path | None = None,
    test: str | Path | None = None,
    test_target: str | Path | None = None,
    split_seed: int = 0,
) -> Sequences:
    """Read pairs: two files whose lines belong together, or one of lines "source TAB target".

    Args:
        path: the file of the sources, or of both; UTF-8, gzip if the name ends in `.gz`.
        target: the file of the targets, a line for each source.
        tokens: of the targets: "bytes", "characters" or "bpe:N" (byte pairs with N values, learnt from train).
        source_tokens: of the sources; as `tokens` if not given.
        joint: whether sources and targets share one codec, learnt from both.
        fractions: shares of train, valid and test.
        valid: the file of the validation sources, or of both; cut from train at random if not given.
        valid_target: the file of the validation targets.
        test: the same for the test.
        test_target: the same for the test.
        split_seed: cuts the pairs.

    Returns:
        The targets as sequences that end, with their sources.

    Raises:
        ValueError: no UTF-8, an empty line, files of unequal lengths (names file and line), unknown tokens.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "plus.tsv"
        >>> _ = file.write_text("".join(f"{a}+{b}\\t{a + b}\\n" for a in range(5) for b in range(5)))
        >>> data = pair_sequences(file)
        >>> data.source_codec.decode(data.sources["train"][0]), data.codec.decode(data.train[0])
        ('0+0', '0')
    """
    files = {"train": (path, target), "valid": (valid, valid_target), "test": (test, test_target)}
    given = dict[str, Texts]()
    for split, (sources, targets) in files.items():
        if sources is None and targets is not None:
            raise ValueError(f"{split}: expected the file of the sources beside {split}_target, got none")
        if sources is not None:
            if (targets is None) != (target is None):
                wanted = "none, as for train" if target is None else "a file, as for train"
                raise ValueError(f"{split}_target: expected {wanted}, got {targets}")
            given[split] = read_pairs(sources, targets)
    try:
        rows = cut_rows({s: len(own[0]) for s, own in given.items()}, fractions=fractions, seed=split_seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    parts = {split: take_pairs(given["train"], rows[split]) if split in rows else given[split] for split in SPLITS}
    named = {key: None if value is None else str(value) for key, value in _flat(files).items()}
    return text_pairs(
        Path(path).name.split(".")[0],
        parts,
        tokens=tokens,
        source_tokens=source_tokens,
        joint=joint,
        provenance={**split_provenance(rows, fractions, split_seed), **named},
    )


def text_pairs(
    name: str,
    parts: Mapping[str, Texts],
    *,
    tokens: str = "bytes",
    source_tokens: str | None = None,
    joint: bool = False,
    labels: dict[str, np.ndarray] | None = None,
    attributes: dict[str, list[str]] | None = None,
    notes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Sequences:
    """Make a data set of pairs of texts in three splits.

    Args:
        name: of the data set.
        parts: "train", "valid" and "test" -> sources and targets.
        tokens: as in `pair_sequences`.
        source_tokens: as in `pair_sequences`.
        joint: as in `pair_sequences`.
        labels: of the pairs, as in `Sequences`.
        attributes: the names of the labels.
        notes: for the user.
        provenance: added to what is written here.

    Raises:
        ValueError: unknown tokens, or source_tokens together with joint.

    Example:
        >>> pair = (["2+2"], ["4"])
        >>> text_pairs("sums", {"train": pair, "valid": pair, "test": pair}, joint=True).levels
        256
    """
    if joint and source_tokens not in (None, tokens):
        raise ValueError(f"source_tokens: expected none with joint, whose tokens are {tokens}, got {source_tokens}")
    sources = {split: own[0] for split, own in parts.items()}
    targets = {split: own[1] for split, own in parts.items()}
    if joint:
        codec, found = text_codec(tokens, {split: [*own[0], *own[1]] for split, own in parts.items()})
        source_codec = codec
    else:
        codec, found = text_codec(tokens, targets)
        source_codec, more = text_codec(source_tokens or tokens, sources)
        found = [f"targets: {note}" for note in found] + [f"sources: {note}" for note in more]
    encoded = {split: Ragged.of(codec.encode_all(own)) for split, own in targets.items()}
    return Sequences(
        name=name,
        train=encoded["train"],
        valid=encoded["valid"],
        test=encoded["test"],
        kind="categorical",
        levels=codec.levels,
        unit=codec.unit,
        ends=True,
        codec=codec,
        labels=labels,
        attributes=attributes or {},
        sources={split: Ragged.of(source_codec.encode_all(own)) for split, own in sources.items()},
        source_codec=source_codec,
        notes=[*notes, *found],
        provenance={
            **(provenance or {}),
            "tokens": tokens,
            "source_tokens": tokens if joint else source_tokens or tokens,
            "joint": joint,
        },
    )


def read_pairs(sources: str | Path, targets: str | Path | None = None) -> Texts:
    """Read pairs from two files of lines, or from one of lines "source TAB target".

    Raises:
        ValueError: as `pair_sequences`.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "words.tsv"
        >>> _ = file.write_text("Hund\\tdog\\nKatze\\tcat\\n")
        >>> read_pairs(file)
        (['Hund', 'Katze'], ['dog', 'cat'])
    """
    lines = read_lines(sources)
    if targets is not None:
        others = read_lines(targets)
        if len(others) != len(lines):
            raise ValueError(f"{targets}: expected {len(lines)} lines as in {sources}, got {len(others)}")
        return lines, others
    pairs = [line.split("\t") for line in lines]
    for number, fields in enumerate(pairs, 1):
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise ValueError(f"{sources}, line {number}: expected source TAB target, got {lines[number - 1][:60]!r}")
    return [source for source, _ in pairs], [target for _, target in pairs]


def read_lines(path: str | Path) -> list[str]:
    """Return the lines of a text in UTF-8, without their ends; none may be empty.

    Raises:
        ValueError: no UTF-8, or an empty line; names file and line.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.txt"
        >>> _ = file.write_text("one\\n\\nthree")
        >>> read_lines(file)
        Traceback (most recent call last):
        ...
        ValueError: .../a.txt, line 2: expected text, got an empty line
    """
    text = decode_text(read_bytes(path), path, hint="")
    lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"{path}, line {number}: expected text, got an empty line")
    return lines


def take_pairs(texts: Texts, rows: Sequence[int] | np.ndarray) -> Texts:
    """Return some of the pairs.

    Example:
        >>> take_pairs((["a", "b"], ["A", "B"]), [1])
        (['b'], ['B'])
    """
    return [texts[0][i] for i in rows], [texts[1][i] for i in rows]


def _flat(files: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """The options that name the files."""
    flat = {"path": files["train"][0], "target": files["train"][1]}
    for split in ("valid", "test"):
        flat |= {split: files[split][0], f"{split}_target": files[split][1]}
    return flat
