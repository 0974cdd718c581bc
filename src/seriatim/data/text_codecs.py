"""Codecs of text: bytes, characters, and byte pairs learnt from a text."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

_SENTENCES = re.compile(r"(?<=[.?!])(?= \w)")


def discrete_dtype(levels: int) -> type[np.generic]:
    """Return the dtype of values in 0..levels-1: one byte where that is enough.

    Example:
        >>> discrete_dtype(256).__name__, discrete_dtype(4000).__name__
        ('uint8', 'int32')
    """
    return np.uint8 if levels <= 256 else np.int32


def checked_values(values: Any, levels: int) -> np.ndarray:
    """Return values (T,) as an array of whole numbers once they are known to be in 0..levels-1.

    Raises:
        ValueError: another shape, or a number that is none of these; names its position.

    Example:
        >>> checked_values([0, 2], 2)
        Traceback (most recent call last):
        ...
        ValueError: values: expected whole numbers 0..1, got 2 at position 1
    """
    x = np.asarray(values)
    if x.ndim != 1:
        raise ValueError(f"values: expected shape (T,), got {x.shape}")
    if x.dtype.kind not in "biu" and x.size:
        raise ValueError(f"values: expected whole numbers 0..{levels - 1}, got {x.dtype}")
    bad = (x < 0) | (x >= levels)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"values: expected whole numbers 0..{levels - 1}, got {x[at]} at position {at}")
    return x.astype(np.int64)


class TextCodec(BaseModel):
    """A codec of text, whose values each stand for some bytes of UTF-8.

    Subclasses say which bytes (`table`) and how a text is cut (`encode`).

    Example:
        >>> codec = Bytes()
        >>> codec.decode(codec.encode("naïve")), codec.num_bytes(codec.encode("naïve"))
        ('naïve', 6)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    def table(self) -> list[bytes]:
        """The bytes that each value stands for."""
        raise NotImplementedError

    @property
    def unit(self) -> str:
        """What one value is: "byte", "character" or "token"."""
        raise NotImplementedError

    @property
    def levels(self) -> int:
        """Number of values."""
        return len(self.table)

    def encode(self, raw: str) -> np.ndarray:
        """Return the values (T,) of a text: uint8, or int32 beyond 256 levels."""
        raise NotImplementedError

    def encode_all(self, texts: Iterable[Any]) -> list[np.ndarray]:
        """Return the values of each of some texts.

        Example:
            >>> [values.tolist() for values in Characters(symbols="ab").encode_all(["a", "ba"])]
            [[0], [1, 0]]
        """
        return [self.encode(text) for text in texts]

    def decode_bytes(self, values: Any) -> bytes:
        """Return the bytes that values (T,) stand for."""
        table = self.table
        return b"".join([table[value] for value in checked_values(values, len(table)).tolist()])

    def decode(self, values: Any) -> str:
        """Return the text of values (T,); bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(values).decode("utf-8", errors="replace")

    def pieces(self, values: Any) -> list[str]:
        """Return the text of each of the values (T,); joined they are `decode(values)`.

        A character whose bytes are of several values stands at the last of them, and the others are empty.

        Example:
            >>> Bytes().pieces(Bytes().encode("Öl"))
            ['', 'Ö', 'l']
        """
        table, decoder = self.table, codecs.getincrementaldecoder("utf-8")(errors="replace")
        whole = checked_values(values, len(table)).tolist()
        return [decoder.decode(table[value], final=i == len(whole) - 1) for i, value in enumerate(whole)]

    def num_bytes(self, values: Any) -> int:
        """Return how many bytes values (T,) stand for: what bits per byte divides by.

        Example:
            >>> Characters(symbols="lÖ").num_bytes([1, 0])
            3
        """
        sizes = np.array([len(own) for own in self.table])
        return int(sizes[checked_values(values, len(sizes))].sum())


class Bytes(TextCodec):
    """The bytes of a text in UTF-8: 256 values, and any text or file has them.

    Example:
        >>> Bytes().encode("Öl")
        array([195, 150, 108], dtype=uint8)
    """

    codec: Literal["bytes"] = "bytes"

    @property
    def table(self) -> list[bytes]:
        """The bytes that each value stands for: itself."""
        return [bytes([value]) for value in range(256)]

    @property
    def unit(self) -> str:
        """What one value is."""
        return "byte"

    def encode(self, raw: str | bytes) -> np.ndarray:
        """Return the values (T,) uint8 of a text, or of bytes."""
        return np.frombuffer(bytearray(raw if isinstance(raw, bytes) else _utf8(raw)), dtype=np.uint8)

    def decode_bytes(self, values: Any) -> bytes:
        """Return the bytes that values (T,) are."""
        return checked_values(values, 256).astype(np.uint8).tobytes()


class Characters(TextCodec):
    """Characters of an alphabet.

    Args:
        symbols: the characters, all different; the value of a character is its place here.

    Example:
        >>> codec = Characters.of(["hello"])
        >>> codec.symbols, codec.encode("hello")
        ('ehlo', array([1, 0, 2, 2, 3], dtype=uint8))
        >>> codec.encode("hullo")
        Traceback (most recent call last):
        ...
        ValueError: text: expected one of 4 characters, got 'u' (U+0075) at line 1, character 2
    """

    codec: Literal["characters"] = "characters"
    symbols: str = Field(min_length=1, description="the alphabet")

    @field_validator("symbols")
    @classmethod
    def _different(cls, symbols: str) -> str:
        _utf8(symbols)
        if len(set(symbols)) < len(symbols):
            double = next(symbol for symbol in symbols if symbols.count(symbol) > 1)
            raise ValueError(f"symbols: expected different characters, got {double!r} more than once")
        return symbols

    @classmethod
    def of(cls, texts: Iterable[str]) -> Characters:
        """Return the codec of all characters in some texts, in the order of Unicode."""
        return cls(symbols="".join(sorted(set().union(*texts))))

    @property
    def table(self) -> list[bytes]:
        """The bytes that each value stands for."""
        return [symbol.encode() for symbol in self.symbols]

    @property
    def unit(self) -> str:
        """What one value is."""
        return "character"

    @property
    def levels(self) -> int:
        """Number of values."""
        return len(self.symbols)

    def encode(self, raw: str) -> np.ndarray:
        """Return the values (T,) of a text.

        Raises:
            ValueError: a character that is not in the alphabet; names it and its place.
        """
        points, known = _code_points(raw), _code_points(self.symbols)
        order = np.argsort(known)
        found = order[np.minimum(np.searchsorted(known, points, sorter=order), len(known) - 1)]
        strange = known[found] != points
        if strange.any():
            raise ValueError(f"text: expected one of {len(known)} characters, got {_where(raw, int(strange.argmax()))}")
        return found.astype(discrete_dtype(len(known)))


class BytePairs(TextCodec):
    """Pieces of text that are learnt: bytes, and the pairs of pieces that were most frequent, joined again and again.

    No text is unknown to it, and every text comes back exactly.

    Args:
        tokenizer: as the library `tokenizers` writes it, in JSON.

    Reference: Neural Machine Translation of Rare Words with Subword Units (Sennrich, Haddow, Birch, 2016); on bytes,
    Language Models are Unsupervised Multitask Learners (Radford et al., 2019).

    Example:
        >>> codec = BytePairs.of(["low lower lowest"] * 3, levels=262)
        >>> codec.levels, codec.pieces(codec.encode("lowest slow"))
        (262, ['low', 'e', 'st', ' ', 's', 'low'])
    """

    codec: Literal["byte-pairs"] = "byte-pairs"
    tokenizer: str = Field(description="JSON of the library tokenizers")

    @classmethod
    def of(cls, texts: Iterable[str], *, levels: int) -> BytePairs:
        """Return the codec with the most frequent pairs of some texts.

        Args:
            texts: to learn from.
            levels: number of values, at least 256; fewer come where no pair occurs twice.

        Raises:
            ValueError: too few levels, or the extra `text` is not installed.
        """
        if levels < 256:
            raise ValueError(f"levels: expected 256 or more, the bytes among them, got {levels}")
        tokenizers = _library()
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        learner.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=levels, min_frequency=2, initial_alphabet=alphabet, show_progress=False
        )
        learner.train_from_iterator(texts, trainer)
        return cls(tokenizer=learner.to_str())

    @property
    def table(self) -> list[bytes]:
        """The bytes that each value stands for."""
        return self._table

    @cached_property
    def _table(self) -> list[bytes]:
        try:
            fields = json.loads(self.tokenizer)
            vocabulary = {number: token for token, number in fields["model"]["vocab"].items()}
            tokens = [vocabulary[number] for number in range(len(vocabulary))]
            stand_for = {symbol: byte for byte, symbol in enumerate(_byte_symbols())}
            return [bytes([stand_for[symbol] for symbol in token]) for token in tokens]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"tokenizer: expected byte pairs, as tokenizers writes them, got: {error!r}") from None

    @property
    def unit(self) -> str:
        """What one value is."""
        return "token"

    @cached_property
    def _encoder(self) -> Any:
        return _library().Tokenizer.from_str(self.tokenizer)

    def encode(self, raw: str) -> np.ndarray:
        """Return the values (T,) of a text.

        Raises:
            ValueError: text that is no Unicode, or the extra `text` is not installed.
        """
        _utf8(raw)
        return np.array(self._encoder.encode(raw).ids, dtype=discrete_dtype(self.levels))

    def encode_all(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Return the values of each of some texts, reading a sentence that comes again but once.

        Example:
            >>> codec = BytePairs.of(["one two. three"] * 3, levels=260)
            >>> (codec.encode_all(["one two. three"])[0] == codec.encode("one two. three")).all()
            np.True_
        """
        known: dict[str, np.ndarray] = {}
        encoded = []
        for text in texts:
            # No pair is joined across a blank between two words, so the parts have the values of the whole.
            parts = _SENTENCES.split(text)
            for part in parts:
                if part not in known:
                    known[part] = self.encode(part)
            encoded.append(np.concatenate([known[part] for part in parts]))
        return encoded


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text: expected Unicode, got half a pair: {_where(text, error.start)}") from None


def _where(text: str, at: int) -> str:
    """A character of a text and its place, for people: from 1."""
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"{text[at]!r} (U+{ord(text[at]):04X}) at line {line}, character {column}"


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")


def _byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a file of byte pairs: itself, or one from U+0100 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise ValueError("byte pairs need tokenizers, which is not installed: pip install 'seriatim[text]'") from None
    return tokenizers
