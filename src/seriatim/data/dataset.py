"""A data set: three arrays, what they hold, and where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from seriatim.data.grey import binarise, how_binarised
from seriatim.data.schema import Schema
from seriatim.data.splits import SPLITS

Kind = Literal["binary", "categorical", "integer", "continuous", "table"]
KINDS: tuple[Kind, ...] = ("binary", "categorical", "integer", "continuous", "table")
DISCRETE = ("binary", "categorical", "integer")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Rows in three splits, of one kind and one shape.

    Attributes:
        name: of the data set.
        train: (N, *event_shape): uint8 in {0, 1} (binary), uint8 or int64 in 0..levels-1 (categorical, integer),
            float32 or float64 (continuous), float64 with codes and NaN for missing values (table, see `Schema`).
        valid: the same, for choosing models and stopping early.
        test: the same, for the final number only.
        kind: "binary", "categorical", "integer", "continuous" or "table".
        levels: number of values an entry can take (binary: 2; categorical, integer); None otherwise.
        labels: split -> (N,) int64 class of each row in 0..C-1; None without classes.
        class_names: the C names; None without classes.
        schema: of a table's columns; None otherwise.
        notes: warnings for the user, a sentence each.
        provenance: where the rows come from and how they were cut and changed; JSON values.
        grey: (N, *event_shape) grey training images in 0..grey_levels-1 if they are binarised anew each epoch
            (see `redraw`); None otherwise.
        grey_levels: number of grey levels behind `grey`.

    Raises:
        ValueError: shapes, kinds or numbers of rows do not agree.

    Example:
        >>> x = np.zeros((4, 2), dtype=np.uint8)
        >>> Dataset("zeros", x, x[:1], x[:1], kind="binary", levels=2).event_shape
        (2,)
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    kind: Kind
    levels: int | None = None
    labels: dict[str, np.ndarray] | None = None
    class_names: list[str] | None = None
    schema: Schema | None = None
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    grey: np.ndarray | None = None
    grey_levels: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if (self.levels is not None) != (self.kind in DISCRETE):
            raise ValueError(f"levels: expected a number for discrete kinds only, got {self.levels} ({self.kind})")
        if (self.schema is not None) != (self.kind == "table"):
            raise ValueError(f"schema: expected one for tables only, got {self.schema} ({self.kind})")
        for name, x in self.splits.items():
            if x.ndim < 2 or x.shape[1:] != self.event_shape or not len(x):
                raise ValueError(f"{name}: expected shape (N >= 1, *{self.event_shape}), got {x.shape}")
            if self.labels is not None and self.labels[name].shape != (len(x),):
                raise ValueError(f"labels[{name!r}]: expected {len(x)} classes, got {self.labels[name].shape}")
        if self.grey is not None and self.grey.shape != self.train.shape:
            raise ValueError(f"grey: expected shape {self.train.shape} as train, got {self.grey.shape}")

    @property
    def splits(self) -> Mapping[str, np.ndarray]:
        """Name -> array, for train, valid and test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.train.shape[1:]

    @property
    def num_dimensions(self) -> int:
        """Number of entries D of one row: what bits per dimension divides by."""
        return int(np.prod(self.event_shape, dtype=np.int64))

    @property
    def num_classes(self) -> int:
        """Number of classes C, 0 without labels."""
        if self.class_names is not None:
            return len(self.class_names)
        return 0 if self.labels is None else 1 + max(int(y.max()) for y in self.labels.values())

    @property
    def binarisation(self) -> str | None:
        """How grey values became bits, to stand beside every number; None where they were not changed.

        Example:
            >>> x = np.zeros((4, 2), dtype=np.uint8)
            >>> bits = Dataset("x", x, x, x, kind="binary", levels=2, provenance={"binarise": "threshold:0.5"})
            >>> bits.binarisation
            'threshold:0.5'
        """
        rule = self.provenance.get("binarise")
        return None if rule is None else how_binarised(rule, int(self.provenance.get("binarise_seed", 0)))

    @cached_property
    def digest(self) -> str:
        """The sha256 of names, shapes, dtypes and bytes of the splits, in hexadecimal."""
        sha = hashlib.sha256()
        for name, x in self.splits.items():
            little = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("<"))
            sha.update(f"{name} {x.shape} {x.dtype.name}\n".encode())
            sha.update(little.data)
        return sha.hexdigest()

    def redraw(self, epoch: int) -> np.ndarray:
        """Return the training rows of one epoch: binarised anew for "dynamic", `train` itself otherwise.

        A function of the seed in `provenance["binarise_seed"]` and the epoch, so a resumed run sees the same rows.

        Args:
            epoch: >= 0; epoch 0 is `train`.

        Raises:
            ValueError: a negative epoch.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected an integer >= 0, got {epoch}")
        if self.grey is None or self.grey_levels is None or epoch == 0:
            return self.train
        seed = int(self.provenance.get("binarise_seed", 0))
        stream = len(SPLITS) + epoch
        return binarise(self.grey, "dynamic", levels=self.grey_levels, seed=seed, stream=stream)

    def describe(self) -> str:
        """Return a few lines that say what the data set holds.

        Example:
            >>> x = np.zeros((4, 2), dtype=np.uint8)
            >>> print(Dataset("zeros", x, x[:1], x[:1], kind="binary", levels=2).describe())
            zeros: binary, 2 entries per row
            rows: train 4, valid 1, test 1
            sha256: ...
        """
        shape = " x ".join(map(str, self.event_shape))
        levels = "" if self.levels in (None, 2) else f" with {self.levels} levels"
        lines = [f"{self.name}: {self.kind}{levels}, {shape} entries per row"]
        lines.append("rows: " + ", ".join(f"{name} {len(x)}" for name, x in self.splits.items()))
        if self.labels is not None:
            lines.append(f"classes: {self.num_classes}")
        if self.binarisation is not None:
            lines.append(f"binarised: {self.binarisation}")
        if self.schema is not None:
            lines += [f"column {column.describe()}" for column in self.schema.columns]
        lines += [f"note: {note}" for note in self.notes]
        lines.append(f"sha256: {self.digest}")
        return "\n".join(lines)
