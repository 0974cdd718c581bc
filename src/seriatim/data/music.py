"""Piano rolls as sequences: a step is a vector of notes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.arrays import check_array
from seriatim.data.codecs import Roll
from seriatim.data.numpy_files import load_archive, load_array
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

_KEYS = {"train": ("train", "x", "arr_0"), "valid": ("valid", "val"), "test": ("test",)}
_LENGTHS = "_len"


def music_sequences(
    path: str | Path,
    *,
    rate: float = 4.0,
    fractions: Sequence[float] | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    split_seed: int = 0,
) -> Sequences:
    """Read piano rolls: pieces that end, or a stream of steps.

    An archive holds, for each split, all pieces one after another as `train` (steps, notes) in {0, 1}, and their
    numbers of steps as `train_len`; rows may be packed bits with their width `d`. Without lengths a split is a stream,
    and so is a .npy file (steps, notes).

    Args:
        path: a .npz or .npy file.
        rate: steps a second, for playing.
        fractions: shares of train, valid and test; (0.8, 0.1, 0.1) of pieces, (0.9, 0.05, 0.05) of a stream.
        valid: the file of the validation pieces; if not given and not in `path`, cut from train.
        test: the same for the test.
        split_seed: cuts the pieces.

    Returns:
        The sequences, binary, with the codec `Roll`: the first of 88 notes is the lowest A of a piano (MIDI 21), that
        of 128 is MIDI 0.

    Raises:
        ValueError: a damaged file, lengths that do not add up, or numbers that are neither 0 nor 1.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tunes.npz"
        >>> np.savez(file, train=np.eye(88), train_len=[8] * 11)
        >>> data = music_sequences(file)
        >>> data.value_shape, len(data.train), data.codec.decode(data.train[0])[0]
        ((88,), 9, (21,))
    """
    path = Path(path)
    given = _read(path)
    for split, file in (("valid", valid), ("test", test)):
        if file is not None:
            if split in given:
                raise ValueError(f"{split}: expected none, for {path} holds {split} pieces, got {file}")
            given[split] = _read(Path(file))["train"]
    try:
        return roll_sequences(
            path.name.split(".")[0],
            given,
            rate=rate,
            fractions=fractions,
            split_seed=split_seed,
            provenance={"path": str(path), "valid": str(valid or "") or None, "test": str(test or "") or None},
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def roll_sequences(
    name: str,
    given: Mapping[str, tuple[np.ndarray, np.ndarray | None]],
    *,
    rate: float = 4.0,
    fractions: Sequence[float] | None = None,
    split_seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
) -> Sequences:
    """Make a data set of piano rolls.

    Args:
        name: of the data set.
        given: "train" and other splits -> steps (sum of lengths, notes) and the lengths of the pieces, or None.
        rate: steps a second, for playing.
        fractions: as in `music_sequences`.
        split_seed: cuts the pieces.
        provenance: added to what is written here.

    Raises:
        ValueError: splits of different widths, one with lengths and another without, or what `music_sequences` says.

    Example:
        >>> steps = np.zeros((40, 88))
        >>> roll_sequences("rests", {"train": (steps, None)}).describe().splitlines()[0]
        'rests: binary, 88 values a step, streams'
    """
    ends = given["train"][1] is not None
    parts = dict[str, Ragged]()
    for split, (steps, lengths) in given.items():
        if (lengths is not None) != ends:
            raise ValueError(f"{split}_len: expected lengths {'as' if ends else 'for none, as'} for train")
        shape = given["train"][0].shape[1:]
        values = check_array(steps, kind="binary", event_shape=shape, name=split)
        parts[split] = _pieces(split, values, lengths)
    if ends:
        shares = fractions or FRACTIONS
        rows = cut_rows({split: len(own) for split, own in parts.items()}, fractions=shares, seed=split_seed)
        parts |= {split: parts["train"].take(own) for split, own in rows.items()}
        how = split_provenance(rows, shares, split_seed)
    elif len(parts) < len(SPLITS):
        shares, whole = fractions or STREAM_FRACTIONS, parts["train"].values
        cut = cut_stream(len(whole), given=[split for split in parts if split != "train"], fractions=shares)
        parts |= {split: Ragged(whole[own]) for split, own in cut.items()}
        how = stream_provenance(cut, shares)
    else:
        how = stream_provenance([], ())
    notes = parts["train"].values.shape[1]
    codec = Roll(notes=notes, lowest=0 if notes == 128 else 21, rate=rate)
    return Sequences(
        name=name,
        train=parts["train"],
        valid=parts["valid"],
        test=parts["test"],
        kind="binary",
        levels=2,
        unit=codec.unit,
        ends=ends,
        rate=codec.rate,
        codec=codec,
        provenance={**how, **(provenance or {})},
    )


def read_rolls(path: str | Path) -> dict[str, Ragged]:
    """Read the piano rolls of a file as they are, split by split; those of a file without splits are "train".

    Args:
        path: as in `music_sequences`.

    Raises:
        ValueError: a damaged file, lengths that do not add up, or numbers that are neither 0 nor 1.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "roll.npy"
        >>> np.save(file, np.eye(88))
        >>> read_rolls(file)["train"].lengths
        array([88])
    """
    found = dict[str, Ragged]()
    for split, (steps, lengths) in _read(Path(path)).items():
        try:
            values = check_array(steps, kind="binary", event_shape=steps.shape[1:], name=split)
            found[split] = _pieces(split, values, lengths)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return found


def holds_music(path: str | Path) -> bool:
    """Tell whether a file is an archive with lengths of pieces.

    Example:
        >>> holds_music("no/such.npz")
        False
    """
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.lower().endswith(f"{_LENGTHS}.npy") for name in archive.namelist())


def _read(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Split -> steps, and the lengths of its pieces where the file has them."""
    if path.name.lower().endswith(".npy"):
        return {"train": (load_array(path), None)}
    arrays = {key.lower(): x for key, x in load_archive(path).items()}
    found = {split: next((key for key in keys if key in arrays), None) for split, keys in _KEYS.items()}
    if found["train"] is None:
        raise ValueError(f"{path}: expected an array 'train' or 'x', got the keys {', '.join(arrays)}")
    return {split: (arrays[key], arrays.get(f"{key}{_LENGTHS}")) for split, key in found.items() if key is not None}


def _pieces(split: str, values: np.ndarray, lengths: np.ndarray | None) -> Ragged:
    if values.ndim != 2:
        raise ValueError(f"{split}: expected shape (steps, notes), got {values.shape}")
    if lengths is None:
        return Ragged(values)
    whole = lengths.ndim == 1 and lengths.dtype.kind in "iu"
    if not whole or (lengths < 1).any() or int(lengths.sum()) != len(values):
        got = f"{lengths.dtype} {lengths.shape} with sum {lengths.sum():g}"
        raise ValueError(f"{split}_len: expected whole numbers from 1 that add up to {len(values)}, got {got}")
    return Ragged(values, lengths)
