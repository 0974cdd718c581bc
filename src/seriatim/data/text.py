"""Text files: one long stream, or a sequence a line."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seriatim.data.checks import existing_file
from seriatim.data.sequences import Ragged, Sequences
from seriatim.data.splits import (
    FRACTIONS,
    SPLITS,
    STREAM_FRACTIONS,
    cut_rows,
    cut_stream,
    split_provenance,
    stream_provenance,
)
from seriatim.data.text_codecs import BytePairs, Bytes, Characters, TextCodec

SUFFIXES = (".txt", ".md", ".txt.gz", ".md.gz")
_ANY = '; tokens="bytes" takes any file'


def text_sequences(
    path: str | Path,
    *,
    tokens: str = "bytes",
    lines: bool = False,
    fractions: Sequence[float] | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    split_seed: int = 0,
) -> Sequences:
    """Read a text file as one stream, or as sequences that end: its lines.

    A stream is cut in order, at the same characters whatever the tokens are, so that bits per byte compare. Lines are
    cut at random; empty ones are left out.

    Args:
        path: the file; gzip if the name ends in `.gz`.
        tokens: "bytes", "characters" or "bpe:N" (byte pairs with N values, learnt from train); the last two want UTF-8.
        lines: whether each line is a sequence.
        fractions: shares of train, valid and test; (0.9, 0.05, 0.05) of a stream, (0.8, 0.1, 0.1) of lines.
        valid: the file of the validation text; cut from `path` if not given.
        test: the same for the test.
        split_seed: cuts the lines.

    Returns:
        The sequences, categorical, with the codec.

    Raises:
        ValueError: a file that is not there, damaged, empty or no UTF-8 (names the place), or unknown tokens.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "rows.txt"
        >>> _ = file.write_text("to be or not to be\\n" * 10)
        >>> data = text_sequences(file, tokens="characters")
        >>> data.levels, data.codec.decode(data.test[0])
        (8, 'not to be\\n')
    """
    path = Path(path)
    files = {"train": path, "valid": valid, "test": test}
    given = {split: read_bytes(file) for split, file in files.items() if file is not None}
    if tokens != "bytes":
        for split, raw in given.items():
            decode_text(raw, files[split] or path)  # the error names the place in the whole file
    shares, notes = fractions or (FRACTIONS if lines else STREAM_FRACTIONS), list[str]()
    try:
        if lines:
            rows, empty = _lines(given)
            parts, cut = _cut_lines(rows, shares, split_seed)
            notes += [f"{empty} empty lines are left out"] if empty else []
        else:
            parts, cut = _cut_stream(given, shares)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    provenance = {**cut, "path": str(path), "valid": _name(valid), "test": _name(test)}
    return encode_texts(path.name.split(".")[0], parts, tokens, ends=lines, notes=notes, provenance=provenance)


def encode_texts(
    name: str,
    parts: Mapping[str, Sequence[bytes]],
    tokens: str,
    *,
    ends: bool,
    notes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Sequences:
    """Make a data set of texts in three splits.

    Args:
        name: of the data set.
        parts: "train", "valid" and "test" -> texts in UTF-8.
        tokens: as in `text_sequences`.
        ends: whether the texts end by themselves.
        notes: for the user.
        provenance: added to what is written here.

    Raises:
        ValueError: unknown tokens.

    Example:
        >>> encode_texts("ab", {"train": [b"abba"], "valid": [b"a"], "test": [b"b"]}, "characters", ends=True).levels
        2
    """
    texts: dict[str, list[Any]] = {
        split: list(own) if tokens == "bytes" else [text.decode() for text in own] for split, own in parts.items()
    }
    codec, more = text_codec(tokens, texts)
    encoded = {split: Ragged.of(codec.encode_all(own)) for split, own in texts.items()}
    return Sequences(
        name=name,
        train=encoded["train"],
        valid=encoded["valid"],
        test=encoded["test"],
        kind="categorical",
        levels=codec.levels,
        unit=codec.unit,
        ends=ends,
        codec=codec,
        notes=[*notes, *more],
        provenance={**(provenance or {}), "tokens": tokens},
    )


def text_codec(tokens: str, texts: Mapping[str, Sequence[Any]]) -> tuple[TextCodec, list[str]]:
    """Return the codec of some texts, and notes for the user.

    Args:
        tokens: "bytes", "characters" (the alphabet is that of all splits) or "bpe:N" (learnt from train).
        texts: split -> texts.

    Raises:
        ValueError: unknown tokens.

    Example:
        >>> text_codec("characters", {"train": ["ab"], "valid": ["a"], "test": ["c"]})
        (Characters(codec='characters', symbols='abc'), ["1 of 3 characters occur in valid or test only: 'c'"])
    """
    kind, _, number = tokens.partition(":")
    if tokens == "bytes":
        return Bytes(), []
    if tokens == "characters":
        codec = Characters.of(text for own in texts.values() for text in own)
        new = "".join(sorted(set(codec.symbols) - set().union(*texts["train"])))
        note = f"{len(new)} of {codec.levels} characters occur in valid or test only: {new[:20]!r}"
        return codec, [note] if new else []
    if kind != "bpe" or not number.isdecimal():
        raise ValueError(f"tokens: expected bytes, characters or bpe:N, got {tokens!r}")
    pairs = BytePairs.of(texts["train"], levels=int(number))
    few = f"the text gives {pairs.levels} tokens, less than the {number} asked for"
    return pairs, [few] if pairs.levels < int(number) else []


def read_bytes(path: str | Path) -> bytes:
    """Return what a file holds, unpacked if its name ends in `.gz`.

    Raises:
        ValueError: no such file, a damaged or an empty one.

    Example:
        >>> read_bytes("no/such.txt")
        Traceback (most recent call last):
        ...
        ValueError: no/such.txt: no such file
    """
    path = existing_file(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if not raw:
        raise ValueError(f"{path}: expected text, got an empty file")
    return raw


def decode_text(raw: bytes, path: str | Path, *, hint: str = _ANY) -> str:
    """Return the text of bytes in UTF-8; errors end in a hint.

    Raises:
        ValueError: bytes that are no UTF-8; names the file, the place and the byte.

    Example:
        >>> decode_text(b"one\\ntw\\xff", "a.txt")
        Traceback (most recent call last):
        ...
        ValueError: a.txt, line 2: expected UTF-8, got byte 0xff at offset 6; tokens="bytes" takes any file
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: expected UTF-8, got byte {raw[error.start]:#04x} at offset {error.start}{hint}"
        ) from None


def _lines(given: Mapping[str, bytes]) -> tuple[dict[str, list[bytes]], int]:
    """The lines of each split that are not empty, without their ends, and how many are."""
    lines = {split: [line.removesuffix(b"\r") for line in raw.split(b"\n")] for split, raw in given.items()}
    lines = {split: own if own[-1] else own[:-1] for split, own in lines.items()}  # a last line that has an end
    kept = {split: [line for line in own if line] for split, own in lines.items()}
    return kept, sum(map(len, lines.values())) - sum(map(len, kept.values()))


def _cut_lines(
    raw: Mapping[str, list[bytes]], fractions: Sequence[float], seed: int
) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    for split, own in raw.items():
        if not own:
            raise ValueError(f"{split}: expected lines that are not empty, got none")
    rows = cut_rows({split: len(own) for split, own in raw.items()}, fractions=fractions, seed=seed)
    parts = {split: [raw["train"][i] for i in rows[split]] if split in rows else raw[split] for split in SPLITS}
    return parts, split_provenance(rows, fractions, seed)


def _cut_stream(raw: Mapping[str, bytes], fractions: Sequence[float]) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
    """The three stretches of text, none of which begins within a character."""
    text, given = raw["train"], [split for split in raw if split != "train"]
    if len(given) == 2:
        return {split: [own] for split, own in raw.items()}, {"cut": []}
    cut = cut_stream(len(text), given=given, fractions=fractions)
    starts = {split: _start(text, own.start) for split, own in cut.items()}
    ends = [*list(starts.values())[1:], len(text)]
    parts = {split: [text[start:end]] for (split, start), end in zip(starts.items(), ends, strict=True)}
    for split in given:
        parts[split] = [raw[split]]
    return {split: parts[split] for split in SPLITS}, stream_provenance(cut, fractions)


def _start(text: bytes, at: int) -> int:
    """The first place from `at` on where a character begins."""
    return next((i for i in range(at, min(at + 4, len(text))) if text[i] & 0xC0 != 0x80), at)


def _name(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
