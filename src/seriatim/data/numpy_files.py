"""NumPy files: .npy, and .npz archives with splits, labels and packed bits, without pickles."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seriatim.data.checks import existing_file, refuse_unknown

_NPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK\x03\x04", b"\x80"
_KEYS = {
    "train": ("train", "x_train", "x", "arr_0"),
    "valid": ("valid", "x_valid", "val", "x_val", "validation", "x_validation"),
    "test": ("test", "x_test"),
}
_LABELS = {
    "train": ("y_train", "y"),
    "valid": ("y_valid", "y_val", "y_validation"),
    "test": ("y_test",),
}


def load_array(path: str | Path, key: str | None = None) -> np.ndarray:
    """Read one array from a .npy or .npz file, without running pickles.

    In an archive with a width `d`, byte rows of width ceil(d / 8) are packed bits (`np.packbits(x, axis=1)`) and
    come back as (N, d) uint8 in {0, 1}.

    Args:
        path: the file.
        key: which array of an archive; may be left out if there is only one.

    Returns:
        The array, as stored.

    Raises:
        ValueError: the file is absent, damaged, pickled or of another kind, or the key is unclear.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "x.npy", np.eye(2))
        >>> load_array(folder / "x.npy").shape
        (2, 2)
    """
    path = existing_file(path)
    arrays = _read(path)
    if set(arrays) == {""}:
        if key is not None:
            raise ValueError(f"key: expected none, for {path} holds a single array, got {key!r}")
        return arrays[""]
    if key is None:
        keys = [name for name, x in arrays.items() if x.ndim > 1]
        if len(keys) != 1:
            raise ValueError(f"{path}: expected key= with one of {', '.join(arrays)}, got none")
        key = keys[0]
    refuse_unknown(f"{path}: key", [key], list(arrays))
    return arrays[key]


def load_archive(path: str | Path) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz file, packed bits unpacked, without running pickles.

    Args:
        path: the file.

    Returns:
        Key -> array.

    Raises:
        ValueError: the file is absent, damaged, pickled or of another kind; names the file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.savez(folder / "x.npz", bits=np.packbits(np.eye(9, dtype=np.uint8), axis=1), d=9)
        >>> load_archive(folder / "x.npz")["bits"].shape
        (9, 9)
    """
    path = existing_file(path)
    arrays = _read(path)
    if set(arrays) == {""}:
        raise ValueError(f"{path}: expected an archive of named arrays (.npz), got a single array (.npy)")
    return arrays


@dataclass(frozen=True)
class Parts:
    """What an archive holds.

    Attributes:
        arrays: "train" (or all rows), and "valid" and "test" where the archive has them.
        labels: the same keys -> (N,) labels, where the archive has them for all of its arrays; else None.
        class_names: as stored; else None.
    """

    arrays: dict[str, np.ndarray]
    labels: dict[str, np.ndarray] | None
    class_names: list[str] | None


def load_parts(path: str | Path, key: str | None = None) -> Parts:
    """Read the splits and labels of a .npy or .npz file.

    Recognised keys: train, valid (or val, validation) and test, with or without `x_` before them; x for all rows;
    y_train, y_valid, y_test and y for labels; classnames. Capitals do not matter.

    Args:
        path: the file.
        key: the array that holds all rows, where the names do not say it.

    Returns:
        The parts.

    Raises:
        ValueError: the file is absent, damaged, pickled or of another kind, or no key is recognised.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.savez(folder / "x.npz", x_train=np.zeros((5, 2)), x_test=np.ones((1, 2)))
        >>> sorted(load_parts(folder / "x.npz").arrays)
        ['test', 'train']
    """
    path = existing_file(path)
    if key is not None:
        return Parts({"train": load_array(path, key)}, None, None)
    arrays = _read(path)
    if set(arrays) == {""}:
        return Parts({"train": arrays[""]}, None, None)
    lower = {name.lower(): x for name, x in arrays.items()}

    def find(names: tuple[str, ...]) -> np.ndarray | None:
        return next((lower[name] for name in names if name in lower), None)

    parts = {split: x for split, names in _KEYS.items() if (x := find(names)) is not None}
    if "train" not in parts:
        if len(arrays) == 1:
            return Parts({"train": next(iter(arrays.values()))}, None, None)
        raise ValueError(f"{path}: expected an array 'train' or 'x' or key=, got the keys {', '.join(arrays)}")
    labels = {split: y for split in parts if (y := find(_LABELS[split])) is not None and y.ndim == 1}
    names = find(("classnames", "class_names"))
    return Parts(
        parts,
        labels if set(labels) == set(parts) else None,
        None if names is None else [str(name) for name in names.tolist()],
    )


def need_keys(arrays: dict[str, np.ndarray], keys: Sequence[str], path: Path | None) -> dict[str, np.ndarray]:
    """Return the arrays of a file once all keys are known to be there.

    Raises:
        ValueError: one is not; names the keys that are.

    Example:
        >>> need_keys({"x": np.eye(2)}, ["y"], Path("a.npz"))
        Traceback (most recent call last):
        ...
        ValueError: a.npz: expected the keys y, got x
    """
    if any(key not in arrays for key in keys):
        raise ValueError(f"{path}: expected the keys {', '.join(keys)}, got {', '.join(arrays) or 'none'}")
    return arrays


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; a .npy file is the archive of one array with an empty name."""
    with open(path, "rb") as file:
        magic = file.read(6)
    if not magic.startswith((_NPY, _ZIP)):
        what = "a pickle, which may run code" if magic.startswith(_PICKLE) else f"bytes {magic!r} at the start"
        raise ValueError(f"{path}: expected a NumPy file (.npy or .npz), got {what}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error):
            raise ValueError(f"{path}: expected arrays of numbers, got pickled objects, which may run code") from None
        raise ValueError(f"{path}: expected a whole NumPy file, got: {error}") from None
    except (OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole NumPy file, got: {error}") from None
    if not arrays or not all(isinstance(x, np.ndarray) for x in arrays.values()):
        raise ValueError(f"{path}: expected an archive of NumPy arrays, got: {', '.join(arrays) or 'nothing'}")
    return _unpack(arrays)


def _unpack(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Unpack rows of bits where the archive states their width d."""
    if "d" not in arrays or arrays["d"].shape != () or arrays["d"].dtype.kind not in "iu":
        return arrays
    width = int(arrays["d"])
    return {
        name: np.unpackbits(x, axis=1, count=width)
        if x.dtype == np.uint8 and x.ndim == 2 and x.shape[1] == -(-width // 8)
        else x
        for name, x in arrays.items()
        if name != "d"
    }
