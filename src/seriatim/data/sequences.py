"""Sequences of different lengths: text, audio, music, series."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, overload

import numpy as np

from seriatim.data.dataset import DISCRETE, KINDS, Kind


class Ragged(Sequence[np.ndarray]):
    """Arrays of different lengths, laid end to end.

    Args:
        values: (sum of lengths, *value_shape).
        lengths: (N,) of each array; one array of all values if None.

    Raises:
        ValueError: lengths that do not add up.

    Example:
        >>> words = Ragged(np.array([3, 1, 4, 1, 5]), [2, 3])
        >>> len(words), words[1].tolist(), words.lengths.tolist()
        (2, [4, 1, 5], [2, 3])
    """

    def __init__(self, values: np.ndarray, lengths: Sequence[int] | np.ndarray | None = None) -> None:
        self.values = values
        self.lengths = np.array([len(values)] if lengths is None else lengths, dtype=np.int64)
        if self.lengths.ndim != 1 or (self.lengths < 0).any() or int(self.lengths.sum()) != len(values):
            raise ValueError(f"lengths: expected whole numbers that add up to {len(values)}, got {self.lengths}")
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])

    @classmethod
    def of(cls, arrays: Sequence[np.ndarray]) -> Ragged:
        """Lay arrays (T_i, *value_shape) end to end.

        Example:
            >>> Ragged.of([np.zeros(2), np.ones(1)]).values
            array([0., 0., 1.])
        """
        if not arrays:
            raise ValueError("arrays: expected one or more, got none")
        return cls(np.concatenate([np.asarray(array) for array in arrays]), [len(array) for array in arrays])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Ragged: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Ragged:
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected -{len(self)} to {len(self) - 1}, got {index}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))

    def take(self, index: Sequence[int] | np.ndarray) -> Ragged:
        """Return some of the arrays.

        Example:
            >>> Ragged(np.arange(5), [2, 3]).take([1, 0]).values
            array([2, 3, 4, 0, 1])
        """
        own = [self[int(i)] for i in index]
        return Ragged.of(own) if own else Ragged(self.values[:0], [])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} arrays, {len(self.values)} values of shape {self.values.shape[1:]})"


class Codec(Protocol):
    """Maps what people have (text, sound) to the values of a sequence and back; kept with the model.

    `decode(encode(raw))` gives raw again, for text exactly and for sound up to the quantisation.
    """

    def encode(self, raw: Any) -> np.ndarray:
        """Return the values (T, *value_shape) of a text or a sound."""
        ...

    def decode(self, values: np.ndarray) -> Any:
        """Return the text or the sound of values (T, *value_shape)."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """Return what `codec_of` makes the codec of: JSON values."""
        ...


@dataclass(frozen=True, eq=False)
class Sequences:
    """Sequences in three splits, of one kind.

    Attributes:
        name: of the data set.
        train: arrays (T_i, *value_shape): uint8 in {0, 1} (binary), whole numbers in 0..levels-1 (categorical,
            integer), float32 (continuous).
        valid: the same, for choosing models and stopping early.
        test: the same, for the final number only.
        kind: "binary", "categorical", "integer" or "continuous".
        levels: number of values (binary: 2; categorical, integer); None otherwise.
        unit: what one position is: "character", "byte", "token", "sample", "step".
        ends: whether a sequence ends by itself (a piece, a word, a sentence); a stream that was cut off does not.
        rate: positions a second, of audio and music; None otherwise.
        codec: between the values and what people have; None where values are what they are.
        labels: split -> (N, A) int64, the number of each attribute's value; None without attributes.
        attributes: the A attributes: name -> names of its values.
        sources: split -> the sequence of whole numbers that each sequence is conditioned on: a sentence to translate,
            a question to answer; None without sources.
        source_codec: between the sources and what people have.
        notes: warnings for the user, a sentence each.
        provenance: where the sequences come from and how they were cut and changed; JSON values.

    Raises:
        ValueError: shapes, kinds or numbers of sequences do not agree.

    Example:
        >>> words = Ragged(np.array([0, 1, 1], dtype=np.uint8), [1, 2])
        >>> Sequences("words", words, words, words, kind="categorical", levels=2, unit="letter").value_shape
        ()
    """

    name: str
    train: Ragged
    valid: Ragged
    test: Ragged
    kind: Kind
    levels: int | None = None
    unit: str = "step"
    ends: bool = True
    rate: float | None = None
    codec: Codec | None = None
    labels: dict[str, np.ndarray] | None = None
    attributes: dict[str, list[str]] = field(default_factory=dict)
    sources: dict[str, Ragged] | None = None
    source_codec: Codec | None = None
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.kind == "table":
            raise ValueError(f"kind: expected binary, categorical, integer or continuous, got {self.kind!r}")
        if (self.levels is not None) != (self.kind in DISCRETE):
            raise ValueError(f"levels: expected a number for discrete kinds only, got {self.levels} ({self.kind})")
        if (self.labels is None) != (not self.attributes):
            raise ValueError(f"labels: expected some where there are attributes only, got {sorted(self.attributes)}")
        for name, own in self.splits.items():
            if own.values.shape[1:] != self.value_shape or not len(own.values):
                raise ValueError(f"{name}: expected values of shape {self.value_shape}, got {own!r}")
            if self.labels is not None and self.labels[name].shape != (len(own), len(self.attributes)):
                wanted = (len(own), len(self.attributes))
                raise ValueError(f"labels[{name!r}]: expected shape {wanted}, got {self.labels[name].shape}")
            if self.sources is not None and len(self.sources[name]) != len(own):
                raise ValueError(f"sources[{name!r}]: expected {len(own)}, one each, got {len(self.sources[name])}")

    @property
    def splits(self) -> Mapping[str, Ragged]:
        """Name -> sequences, for train, valid and test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def value_shape(self) -> tuple[int, ...]:
        """Shape of the value at one position."""
        return self.train.values.shape[1:]

    @cached_property
    def digest(self) -> str:
        """The sha256 of shapes, dtypes, lengths and bytes of the splits, in hexadecimal."""
        sha = hashlib.sha256()
        sources = {f"sources of {name}": own for name, own in (self.sources or {}).items()}
        for name, own in {**self.splits, **sources}.items():
            little = np.ascontiguousarray(own.values, dtype=own.values.dtype.newbyteorder("<"))
            sha.update(f"{name} {own.values.shape} {own.values.dtype.name} {own.lengths.tolist()}\n".encode())
            sha.update(little.data)
        return sha.hexdigest()

    def describe(self) -> str:
        """Return a few lines that say what the data set holds.

        Example:
            >>> words = Ragged(np.array([0, 1, 1], dtype=np.uint8), [1, 2])
            >>> print(Sequences("words", words, words, words, kind="categorical", levels=2, unit="letter").describe())
            words: categorical with 2 levels, sequences that end
            train: 2 of 1 to 2, 3 letters; valid: 2 of 1 to 2, 3 letters; test: 2 of 1 to 2, 3 letters
            sha256: ...
        """
        levels = "" if self.kind not in ("categorical", "integer") else f" with {self.levels} levels"
        shape = "" if not self.value_shape else f", {' x '.join(map(str, self.value_shape))} values a {self.unit}"
        lines = [f"{self.name}: {self.kind}{levels}{shape}, {'sequences that end' if self.ends else 'streams'}"]
        splits = [
            f"{name}: {len(own)} of {own.lengths.min():,} to {own.lengths.max():,}, {len(own.values):,} {self.unit}s"
            for name, own in self.splits.items()
        ]
        lines.append("; ".join(splits))
        if self.rate is not None:
            lines.append(f"rate: {self.rate:g} {self.unit}s a second")
        lines += [f"attribute {name}: {len(values)} values" for name, values in self.attributes.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"sha256: {self.digest}")
        return "\n".join(lines)
