"""The one door to data: a name, a file, a folder, an array or a data frame in, a `Dataset` or `Sequences` out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from seriatim.data.arrays import array_dataset
from seriatim.data.audio import audio_sequences, sound_files
from seriatim.data.audio_files import SUFFIXES as _SOUND_SUFFIXES
from seriatim.data.checks import refuse_unknown
from seriatim.data.dataset import Dataset
from seriatim.data.images import coarsen, image_folder_dataset
from seriatim.data.music import holds_music, music_sequences
from seriatim.data.named import NAMED, load_named
from seriatim.data.numpy_files import load_parts
from seriatim.data.pairs import pair_sequences
from seriatim.data.scaling import scale_images
from seriatim.data.sequences import Sequences
from seriatim.data.series import series_sequences
from seriatim.data.splits import FRACTIONS
from seriatim.data.tables import Table, is_frame, read_table
from seriatim.data.tabular import table_dataset
from seriatim.data.text import SUFFIXES as _TEXT_SUFFIXES
from seriatim.data.text import text_sequences

_ARRAY_SUFFIXES = (".npy", ".npz")
_TABLE_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet")

_TABLE_OPTIONS = ("valid", "test", "header", "delimiter", "overrides", "exclude", "label", "max_categories")
_TOKENS = ("tokens", "source_tokens", "joint")
_OPTIONS = {
    "a named set": ("data_dir", "size", "grey", "levels", "binarise", *_TOKENS, "rate", "encoding"),
    "arrays": ("fractions", "valid", "test", "key", "kind", "size", "grey", "levels", "binarise"),
    "a table": ("fractions", *_TABLE_OPTIONS),
    "a folder of images": ("fractions", "size", "grey", "levels", "binarise"),
    "a text": ("fractions", "valid", "test", "tokens", "lines"),
    "pairs of texts": ("fractions", "valid", "test", "target", "valid_target", "test_target", *_TOKENS),
    "sound": ("fractions", "valid", "test", "rate", "encoding", "pattern"),
    "music": ("fractions", "valid", "test", "rate"),
    "a series": ("fractions", "valid", "test", "header", "delimiter", "exclude"),
}
_READ_AS = {"pairs": "pairs of texts", "music": "music", "series": "a series"}


def load(
    name_or_path: str | Path,
    *,
    data_dir: str | Path | None = None,
    split_seed: int = 0,
    fractions: Sequence[float] | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    key: str | None = None,
    kind: str | None = None,
    levels: int | None = None,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    binarise: str | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    overrides: Mapping[str, str] | None = None,
    exclude: Collection[str] | None = None,
    label: str | None = None,
    max_categories: int | None = None,
    tokens: str | None = None,
    lines: bool | None = None,
    read_as: str | None = None,
    target: str | Path | None = None,
    valid_target: str | Path | None = None,
    test_target: str | Path | None = None,
    source_tokens: str | None = None,
    joint: bool | None = None,
    rate: float | None = None,
    encoding: str | None = None,
    pattern: str | None = None,
) -> Dataset | Sequences:
    """Load a data set by its name or from a file or folder.

    Args:
        name_or_path: a name in `NAMED`; a file of an ending that `docs/data.md` lists; a folder of images or of sound.
        data_dir: named sets: the folder of their files (else the environment variable SERIATIM_DATA).
        split_seed: cuts the splits that are not given, and draws sampled binarisations.
        fractions: shares of train, valid and test where they are cut; if not given (0.8, 0.1, 0.1), of a stream
            (0.9, 0.05, 0.05).
        valid: files: that of the validation rows or sequences; a folder of clips beside a folder.
        test: the same for the test.
        key: .npz: the array that holds all rows.
        kind: arrays: "binary", "categorical", "integer" or "continuous"; recognised if not given.
        levels: arrays: number of values of an entry; images: number of grey levels to quantise to.
        size: folders, arrays and named sets of images with 256 levels: side or (height, width) to scale to.
        grey: the same: one channel (True) or three (False).
        binarise: grey images and integer arrays: "threshold:T", "sampled" or "dynamic" (`coarsen`).
        header: text tables: whether line 1 holds the column names; recognised if not given.
        delimiter: text tables: found if not given.
        overrides: tables: column name -> "categorical", "integer" or "continuous".
        exclude: tables: columns to leave out.
        label: tables: the column that holds the class of each row; it is no part of x.
        max_categories: tables: categories beyond these many fold into unseen ones; 256 if not given.
        tokens: texts: "bytes" (if not given), "characters" or "bpe:N" (`text_sequences`).
        lines: texts: whether each line is a sequence that ends.
        read_as: what a file holds where its name does not say it: "series" (a table in time order), "pairs" (lines
            "source TAB target") or "music" (an array of steps and notes).
        target: pairs (`pair_sequences`): the file of the targets; `name_or_path`, `valid` and `test` are sources then.
        valid_target: pairs: the file of the validation targets.
        test_target: pairs: the file of the test targets.
        source_tokens: pairs: the tokens of the sources; as `tokens` if not given.
        joint: pairs: whether sources and targets share one codec.
        rate: sound (`audio_sequences`): samples a second to resample to; music: steps a second.
        encoding: sound: "mu-law" (if not given), "mu-law:LEVELS" or "16-bit".
        pattern: folders of sound: what names of files tell, such as "{digit}_{speaker}_{_take}".

    Returns:
        The data set: rows of one shape, or sequences.

    Raises:
        ValueError: an unknown name (with close ones), an option that does not fit, a damaged file.

    Example:
        >>> load("digits").describe().splitlines()[:2]
        ['digits: binary, 8 x 8 entries per row', 'rows: train 1197, valid 300, test 300']
    """
    given = {name: value for name, value in locals().items() if value is not None}
    return _dispatch(given.pop("name_or_path"), given)


def _dispatch(name_or_path: str | Path, options: dict[str, Any]) -> Dataset | Sequences:
    """Refuse options that the kind of data does not have, and call its reader with the others."""
    what = _what(name_or_path, options.pop("read_as", None), "target" in options)
    for option in options.keys() - {"split_seed"} - set(_OPTIONS[what]):
        takers = " or ".join(kind for kind, known in _OPTIONS.items() if option in known)
        raise ValueError(f"{option}: expected for {takers} only, got it for {what}, {name_or_path}")
    if what == "a named set":
        return load_named(str(name_or_path), **options)
    if what == "a series":
        del options["split_seed"]  # a series is cut in order
    return _READERS[what](Path(name_or_path), **options)


def _what(name_or_path: str | Path, read_as: str | None, has_target: bool) -> str:
    """Which of the kinds of data it is."""
    if not isinstance(name_or_path, str | Path):
        raise TypeError(f"name_or_path: expected a string or a path, got {type(name_or_path).__name__}")
    if str(name_or_path) in NAMED:
        if read_as is not None:
            raise ValueError(f"read_as: expected none for a named set, got {read_as!r} for {name_or_path}")
        return "a named set"
    if read_as is not None:
        refuse_unknown("read_as", [read_as], list(_READ_AS))
    if read_as is not None or has_target:
        return _READ_AS[read_as or "pairs"]
    path = Path(name_or_path)
    if path.is_dir():
        return "sound" if sound_files(path) else "a folder of images"
    name = path.name.lower()
    if name.endswith(_ARRAY_SUFFIXES):
        return "music" if holds_music(path) else "arrays"
    for suffixes, what in ((_TABLE_SUFFIXES, "a table"), (_TEXT_SUFFIXES, "a text"), (_SOUND_SUFFIXES, "sound")):
        if name.endswith(suffixes):
            return what
    endings = ", ".join([*_ARRAY_SUFFIXES, *_TABLE_SUFFIXES, *_TEXT_SUFFIXES, *_SOUND_SUFFIXES])
    if path.exists():
        raise ValueError(f"{path}: expected a file ending in {endings}, or a folder of images or sound")
    close = difflib.get_close_matches(str(name_or_path), NAMED)
    raise ValueError(
        f"data: expected a named set, a file ending in {endings}, or a folder, got {str(name_or_path)!r}"
        + (f" (close: {', '.join(close)})" if close else f" (named sets: {', '.join(NAMED)})")
    )


def _load_arrays(
    path: Path,
    *,
    split_seed: int,
    fractions: Sequence[float] = FRACTIONS,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    key: str | None = None,
    kind: str | None = None,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    levels: int | None = None,
    binarise: str | None = None,
) -> Dataset:
    parts = load_parts(path, key)
    arrays, labels = dict(parts.arrays), dict(parts.labels or {})
    for split, file in (("valid", valid), ("test", test)):
        if file is None:
            continue
        if split in arrays:
            raise ValueError(f"{split}: expected none, for {path} holds {split} rows, got {file}")
        more = load_parts(file, key)
        arrays[split] = more.arrays["train"]
        labels |= {split: more.labels["train"]} if more.labels else {}
    complete = bool(labels) and set(labels) == set(arrays)
    try:
        arrays = {split: scale_images(x, size=size, grey=grey, name=split) for split, x in arrays.items()}
        data = array_dataset(
            arrays["train"],
            valid=arrays.get("valid"),
            test=arrays.get("test"),
            labels=labels if complete else None,
            class_names=parts.class_names if complete else None,
            kind=kind,
            levels=levels,
            fractions=fractions,
            split_seed=split_seed,
            name=path.stem,
            provenance={
                "path": str(path),
                "valid": str(valid or "") or None,
                "test": str(test or "") or None,
                "resize": None if size is None else list(arrays["train"].shape[1:3]),
                "grey": grey,
            },
        )
        return coarsen(data, binarise=binarise, seed=split_seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{path}: {error}") from None


def _load_table(
    path: Path,
    *,
    split_seed: int,
    fractions: Sequence[float] = FRACTIONS,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    overrides: Mapping[str, str] | None = None,
    exclude: Collection[str] = (),
    label: str | None = None,
    max_categories: int = 256,
) -> Dataset:
    def read(file: str | Path) -> Table:
        return read_table(file, header=header, delimiter=delimiter, kinds=overrides, exclude=exclude)

    more = {split: None if file is None else read(file) for split, file in (("valid", valid), ("test", test))}
    table = read(path)
    try:
        return table_dataset(
            table,
            valid=more["valid"],
            test=more["test"],
            overrides=overrides,
            label=label,
            max_categories=max_categories,
            fractions=fractions,
            split_seed=split_seed,
            name=path.name.split(".")[0],
            provenance={
                "path": str(path),
                "valid": str(valid or "") or None,
                "test": str(test or "") or None,
                "exclude": list(exclude),
            },
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


_READERS: dict[str, Callable[..., Dataset | Sequences]] = {
    "arrays": _load_arrays,
    "a table": _load_table,
    "a folder of images": image_folder_dataset,
    "a text": text_sequences,
    "pairs of texts": pair_sequences,
    "sound": audio_sequences,
    "music": music_sequences,
    "a series": series_sequences,
}


def as_dataset(data: Any, *, name: str | None = None, **options: Any) -> Dataset:
    """Make a data set of what a user has in memory.

    Args:
        data: a `Dataset` (returned as it is), an array (`array_dataset`), or a data frame, dict of columns or
            `Table` (`table_dataset`).
        name: of the data set.
        options: those of the function that makes it.

    Returns:
        The data set.

    Raises:
        TypeError: an object of another kind, or an option that its kind does not have.
        ValueError: as that function.

    Example:
        >>> import numpy as np
        >>> as_dataset(np.eye(10)).kind, as_dataset({"a": [0.5, 1.5, 2.0]}).kind
        ('binary', 'table')
    """
    if isinstance(data, Dataset):
        if options or name:
            raise TypeError(f"data: expected no options with a Dataset, got {', '.join(options) or 'name'}")
        return data
    if is_frame(data):
        return table_dataset(data, name=name or "table", **options)
    if isinstance(data, str | Path | bytes) or (not hasattr(data, "__array__") and not isinstance(data, list | tuple)):
        raise TypeError(f"data: expected an array, a data frame or a Dataset, got {type(data).__name__}")
    return array_dataset(data, name=name or "array", **options)
