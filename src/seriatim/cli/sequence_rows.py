"""Files as sequences for a run's model: through its codec, with what each is conditioned on."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seriatim import data as data_module
from seriatim.cli.errors import UserError, unknown_name
from seriatim.cli.loading import SPLITS, Run, load_again, same_source
from seriatim.cli.settings import DataConfig
from seriatim.context import Attributes
from seriatim.data import MuLaw, Pcm, Roll, Sequences, Standardised, TextCodec
from seriatim.data.audio import attributes_of, sound_files
from seriatim.data.audio_files import SUFFIXES as SOUND
from seriatim.data.music import read_rolls
from seriatim.data.series import seconds_of
from seriatim.data.text import decode_text, read_bytes
from seriatim.ending import Ending

STDIN = "-"
_OTHERS = (*SOUND, ".npy", ".npz", ".parquet", ".png", ".jpg", ".jpeg")  # files that are no text


@dataclass(frozen=True)
class SequenceRows:
    """Sequences for a model.

    Attributes:
        values: of each, (T_i, *value_shape).
        names: what each is called: a file, a line, or its number.
        source: where they are from.
        labels: (N, A) the number of each attribute's value, where they are known.
        unlabelled: why there are no labels, where something tells of them that the model does not know.
        sources: the sequence that each is conditioned on, in a model of pairs.
        times: of a series, when each step was, where the file says it.
    """

    values: list[np.ndarray]
    names: list[str]
    source: str
    labels: np.ndarray | None = None
    unlabelled: str = ""
    sources: list[np.ndarray] | None = None
    times: list[str] | None = None

    def first(self, count: int | None) -> SequenceRows:
        """Return the first sequences, all of them if None."""
        return self if count is None else self.take(range(min(count, len(self.values))))

    def take(self, rows: range | list[int]) -> SequenceRows:
        """Return some of the sequences."""
        return replace(
            self,
            values=[self.values[i] for i in rows],
            names=[self.names[i] for i in rows],
            labels=None if self.labels is None else self.labels[list(rows)],
            sources=None if self.sources is None else [self.sources[i] for i in rows],
        )


def of_sequences(run: Run) -> bool:
    """Whether a run is one of sequences: its model keeps the codec of its values."""
    return run.model.codec is not None


def kind_of(codec: Any) -> str:
    """Return what a codec reads: "text", "sound", "music" or "series"."""
    if isinstance(codec, TextCodec):
        return "text"
    if isinstance(codec, MuLaw | Pcm):
        return "sound"
    return "music" if isinstance(codec, Roll) else "series"


def shown_values(codec: Any, values: np.ndarray) -> list[str]:
    """Return how the values of a sequence are written: text, samples as whole numbers, pitches, measurements.

    Example:
        >>> shown_values(Roll(), Roll().encode([[60, 64], []]))
        ['60 64', '']
    """
    if isinstance(codec, TextCodec):
        return codec.pieces(values)
    if isinstance(codec, Roll):
        return [" ".join(map(str, pitches)) for pitches in codec.decode(values)]
    if isinstance(codec, Standardised):
        return [" ".join(f"{number:g}" for number in np.atleast_1d(step)) for step in codec.decode(values)]
    return [str(value) for value in values.tolist()]


def refuse_orders(orders: int | None, run: Run) -> None:
    """Refuse --orders, which models of sequences do not have.

    Raises:
        UserError: one is given.
    """
    if orders is not None:
        raise UserError(f"--orders: expected an order-agnostic model, got {type(run.model).__name__}")


def own_data(run: Run) -> Sequences:
    """Load the sequences that a run was trained on.

    Raises:
        UserError: a model without a run, or data that are not what they were.
    """
    if run.settings is None:
        raise UserError(f"{run.path}: expected a run, with config.yaml that names its data, got a model alone")
    source = run.settings.data.source
    data = load_again(run.settings.data, run.path)
    if not isinstance(data, Sequences):
        raise UserError(f"{source}: expected sequences, as {run.path} was trained on, got rows of one shape")
    digest = run.card.get("data", {}).get("sha256 of train, valid and test", data.digest)
    if digest != data.digest:
        raise UserError(
            f"{source}: expected the sequences that {run.path} was trained on (sha256 {digest[:12]}...), got others "
            f"({data.digest[:12]}...): which were for training is not known; give a file of your own instead"
        )
    return data


def rows_of(data: Sequences, split: str) -> SequenceRows:
    """Return one split of a data set.

    Raises:
        UserError: an unknown split.
    """
    _check_split(split)
    own = data.splits[split]
    return SequenceRows(
        list(own),
        [str(number) for number in range(len(own))],
        f"{data.name}, {split}",
        None if data.labels is None else data.labels[split],
        sources=None if data.sources is None else list(data.sources[split]),
    )


def read_sequences(run: Run, source: str, split: str | None = None) -> SequenceRows:
    """Read sequences for a run's model.

    Args:
        run: whose codec turns what people have into values.
        source: a named set; an archive with splits; else a file, a folder of sounds, or "-" for text from stdin, all
            of which is taken.
        split: "train", "valid" or "test" (the default where there are splits); of the run's own data its splits.

    Raises:
        ValueError: an unknown source, a damaged file, or one that the codec cannot read; names file and place.
    """
    if split is not None:
        _check_split(split)
    own = run.settings is not None and same_source(source, run.settings.data.source)
    if own and (split is not None or source in data_module.NAMED):
        return rows_of(own_data(run), split or "test")
    if source in data_module.NAMED:
        return _of_named(run, source, split or "test")
    codec, path = run.model.codec, Path(source)
    if source != STDIN and not path.exists():
        plain = "." not in path.name and "/" not in source
        raise UserError(
            f"FILE: {source}: {unknown_name(source, [*data_module.NAMED]) if plain else 'no such file or folder'}"
        )
    kind = kind_of(codec)
    if kind != "text" and source == STDIN:
        raise UserError(f"FILE: expected {_wanted(codec)}, for {run.path} is no model of text, got - (stdin)")
    if kind == "text":
        return _of_text(run, source)
    if kind == "sound":
        return _of_sound(run, path)
    return _of_rolls(run, path, split or "test") if kind == "music" else _of_series(run, path)


def _wanted(codec: Any) -> str:
    """The files that a codec reads, in words."""
    return {
        "text": "a text file",
        "sound": f"a sound file ({', '.join(SOUND)}) or a folder of such",
        "music": ".npz or .npy with a piano roll",
        "series": "a table (.csv, .tsv, .parquet)",
    }[kind_of(codec)]


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f"--split: expected {', '.join(SPLITS)}, got {split}")


def _of_named(run: Run, name: str, split: str) -> SequenceRows:
    """A named set that is not the run's own, in the run's codec."""
    codec = run.model.codec
    options: dict[str, Any] = {"source": name}
    if isinstance(codec, MuLaw):
        options |= {"rate": codec.rate, "encoding": f"mu-law:{codec.levels}"}
    elif isinstance(codec, Pcm):
        options |= {"rate": codec.rate, "encoding": f"{codec.bits}-bit"}
    elif isinstance(codec, TextCodec):
        options["tokens"] = "bytes"
    config = DataConfig.model_validate(options)
    try:
        data = data_module.load(config.source, **config.load_options)
    except ValueError as error:
        if "expected none of" not in str(error):  # what is not an option of sets of another kind
            raise
        data = None
    if not isinstance(data, Sequences) or kind_of(data.codec) != kind_of(codec):
        kind = kind_of(codec)
        raise UserError(f"FILE: expected {_wanted(codec)}, for {run.path} is a model of {kind}, got the set {name}")
    rows = rows_of(data, split)
    if isinstance(codec, TextCodec) and data.codec is not None:
        decode = data.codec.decode
        rows = replace(rows, values=[encoded(codec, decode(own), name) for own in rows.values])
        if rows.sources is not None and run.model.source_codec is not None and data.source_codec is not None:
            given = [data.source_codec.decode(own) for own in rows.sources]
            rows = replace(rows, sources=[encoded(run.model.source_codec, own, name) for own in given])
    if data.labels is None:
        return rows
    names = list(data.attributes)
    told = [
        {name: data.attributes[name][number] for name, number in zip(names, own, strict=True)}
        for own in data.labels[split]
    ]
    labels, unlabelled = _labels(run, told)
    return replace(rows, labels=labels, unlabelled=unlabelled)


def _labels(run: Run, told: list[dict[str, str]]) -> tuple[np.ndarray | None, str]:
    """The numbers of the attributes that are told of each sequence, or why the model does not know them."""
    encoder = run.model.encoder
    if not isinstance(encoder, Attributes) or not told or set(encoder.attributes) - set(told[0]):
        return None, ""
    try:
        rows = [encoder.numbers({name: own[name] for name in encoder.attributes}).numpy() for own in told]
    except ValueError as error:
        return None, str(error).removeprefix("context: ")
    return np.stack(rows), ""


def _of_text(run: Run, source: str) -> SequenceRows:
    codec, sources = run.model.codec, run.model.source_codec
    if source != STDIN and (Path(source).is_dir() or source.lower().endswith(_OTHERS)):
        raise UserError(f"FILE: expected a text file, for {run.path} is a model of text, got {source}")
    raw = sys.stdin.buffer.read() if source == STDIN else read_bytes(source)
    name = "stdin" if source == STDIN else source
    if not raw:
        raise UserError(f"{name}: expected text, got nothing")
    if sources is None and not isinstance(run.model.head, Ending):
        return SequenceRows([encoded(codec, raw, name)], [name], name)
    # Lines as in training: without their ends, empty ones left out.
    lines = [(number, line.removesuffix(b"\r")) for number, line in enumerate(raw.split(b"\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    names = [f"line {number}" for number, _ in lines]
    if sources is None:
        return SequenceRows([encoded(codec, line, name, n) for n, line in lines], names, name)
    pairs = [line.split(b"\t") for _, line in lines]
    for (number, line), fields in zip(lines, pairs, strict=True):
        if len(fields) != 2:
            raise UserError(f"{name}, line {number}: expected source TAB target, got {line[:60]!r}")
    values = [encoded(codec, target, name, n) for (n, _), (_, target) in zip(lines, pairs, strict=True)]
    given = [encoded(sources, own, name, n) for (n, _), (own, _) in zip(lines, pairs, strict=True)]
    return SequenceRows(values, names, name, sources=given)


def encoded(codec: Any, text: str | bytes, name: str, line: int | None = None) -> np.ndarray:
    """Return the values of a text, or of one line of it.

    Raises:
        UserError: no UTF-8, or what the codec does not know; names the file and the place.
    """
    try:
        if isinstance(text, bytes) and not isinstance(codec, data_module.Bytes):
            text = decode_text(text, name, hint=f"; this model reads {codec.unit}s of UTF-8")
        values: np.ndarray = codec.encode(text)
    except ValueError as error:
        words = str(error).removeprefix("text: ")
        if line is not None:
            words = words.replace("line 1,", f"line {line},")  # the codec counts the lines of what it is given
        raise UserError(words if words.startswith(name) else f"{name}: {words}") from None
    return values


def sound_paths(run: Run, path: Path) -> list[Path]:
    """Return the sound files that a file or a folder stands for.

    Raises:
        UserError: no sound file.
    """
    files = sound_files(path) if path.is_dir() else [path]
    if not files or any(file.suffix.lower() not in SOUND for file in files):
        got = f"the folder {path} without one" if path.is_dir() else path
        raise UserError(f"FILE: expected {_wanted(run.model.codec)}, for {run.path} is a model of sound, got {got}")
    return files


def sound_labels(run: Run, path: Path, files: list[Path]) -> tuple[np.ndarray | None, str]:
    """Return what the names of files tell of the attributes of a run's model, as the run's own pattern reads them, or
    why it tells nothing.
    """
    pattern = None if run.settings is None else run.settings.data.pattern
    if not isinstance(run.model.encoder, Attributes) or (pattern is None and not path.is_dir()):
        return None, ""
    try:
        names, values = attributes_of(path if path.is_dir() else path.parent, files, pattern)
    except ValueError as error:
        return None, str(error)
    return _labels(run, [dict(zip(names, own, strict=True)) for own in values])


def _of_sound(run: Run, path: Path) -> SequenceRows:
    files = sound_paths(run, path)
    values = [np.concatenate([*data_module.read_blocks(file, run.model.codec)]) for file in files]
    names = [file.relative_to(path).as_posix() if path.is_dir() else file.name for file in files]
    return SequenceRows(values, names, str(path), *sound_labels(run, path, files))


def _of_rolls(run: Run, path: Path, split: str) -> SequenceRows:
    codec = run.model.codec
    if path.is_dir() or not path.name.lower().endswith((".npz", ".npy")):
        raise UserError(f"FILE: expected {_wanted(codec)}, for {run.path} is a model of music, got {path}")
    parts = read_rolls(path)
    name = split if split in parts else "train"
    pieces = parts[name]
    if pieces.values.shape[1:] != (codec.notes,):
        raise UserError(f"{path}: expected steps of {codec.notes} notes, got shape {pieces.values.shape}")
    where = f"{path}{f', {name}' if len(parts) > 1 else ''}"
    return SequenceRows(list(pieces), [str(number) for number in range(len(pieces))], where)


def _of_series(run: Run, path: Path) -> SequenceRows:
    codec: Standardised = run.model.codec
    settings = run.settings.data if run.settings is not None else DataConfig.model_validate({"source": str(path)})
    try:
        table = data_module.read_table(path, header=settings.header, delimiter=settings.delimiter)
    except ValueError as error:
        raise UserError(f"FILE: {error}" if path.is_dir() else str(error)) from None
    columns = []
    for name in codec.names:
        if name not in table:
            raise UserError(f"{path}: expected the columns {', '.join(codec.names)}, got {', '.join(table.names)}")
        values = table[name]
        if values.dtype.kind not in "biuf":
            raise UserError(f"{path}: expected numbers in column {name!r}, got text")
        gaps = np.isnan(values.astype(np.float64))
        if gaps.any():
            raise UserError(f"{path}: expected a number in each row of {name!r}, got none in row {gaps.argmax() + 1}")
        columns.append(values.astype(np.float64))
    raw = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    others = [name for name in table.names if name not in codec.names and seconds_of(name, table[name]) is not None]
    times = [str(time) for time in table[others[0]].tolist()] if others else None
    return SequenceRows([codec.encode(raw)], [path.name], str(path), times=times)
