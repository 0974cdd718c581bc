"""Sound as sequences: one long file is a stream, a folder of clips are sequences that end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.audio_files import SUFFIXES, read_audio
from seriatim.data.checks import existing_file
from seriatim.data.codecs import MuLaw, Pcm
from seriatim.data.images import split_folders
from seriatim.data.infer import sort_labels
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


@dataclass(frozen=True, eq=False)
class Clips:
    """Recordings with what is said of each.

    Attributes:
        samples: of each clip, (T_i,) float32 in [-1, 1].
        rate: samples a second.
        values: of each clip, the value of each attribute.
        names: of the attributes.
    """

    samples: Sequence[np.ndarray]
    rate: int
    values: Sequence[tuple[str, ...]] = ()
    names: tuple[str, ...] = ()

    def take(self, rows: Sequence[int] | np.ndarray) -> Clips:
        """Return some of the clips."""
        values = [self.values[i] for i in rows] if self.names else []
        return Clips([self.samples[i] for i in rows], self.rate, values, self.names)


def audio_sequences(
    path: str | Path,
    *,
    rate: float | None = None,
    encoding: str = "mu-law",
    pattern: str | None = None,
    fractions: Sequence[float] | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    split_seed: int = 0,
) -> Sequences:
    """Read a sound file as a stream, cut in order, or a folder of clips as sequences that end, cut at random.

    Subfolders called train, valid (or val) and test are the splits. Other subfolders are the clips' attribute
    "class", unless a pattern says what their names tell.

    Args:
        path: a .wav, .flac or .ogg file, or a folder of such.
        rate: samples a second to resample to; that of the files if not given.
        encoding: "mu-law" (256 levels), "mu-law:LEVELS" (both categorical) or "16-bit" (integer; 2 to 16 bits).
        pattern: what the names of clips tell, endings apart, such as "{digit}_{speaker}_{_take}"; parts whose names
            begin with "_" are no attributes. With a "/" it is the path below the folder that is matched.
        fractions: shares of train, valid and test; (0.9, 0.05, 0.05) of a stream, (0.8, 0.1, 0.1) of clips.
        valid: the file or folder of the validation sound; cut from `path` if not given.
        test: the same for the test.
        split_seed: cuts the clips.

    Returns:
        The sequences with their codec, rate and attributes.

    Raises:
        ValueError: a file that is no sound or is cut off, clips of two rates, a name that the pattern does not fit.

    Example:
        >>> import tempfile
        >>> from seriatim.data.audio_files import write_audio
        >>> folder = Path(tempfile.mkdtemp())
        >>> for take in range(10):
        ...     write_audio(folder / f"{take % 2}_ann_{take}.wav", np.zeros(100 + take), rate=8000)
        >>> data = audio_sequences(folder, pattern="{digit}_{speaker}_{_take}")
        >>> data.attributes, len(data.train), data.labels["train"].shape
        ({'digit': ['0', '1'], 'speaker': ['ann']}, 8, (8, 2))
    """
    path, target = Path(path), None if rate is None else whole_rate(rate)
    clips = path.is_dir()
    if pattern is not None and not clips:
        raise ValueError(f"pattern: expected for folders of clips only, got it for {path}")
    files: dict[str, Path] = dict(split_folders(path)) if clips else {"train": existing_file(path)}
    for split, file in (("valid", valid), ("test", test)):
        if file is not None:
            if split in files:
                raise ValueError(f"{split}: expected none, for {path} holds a folder {split}, got {file}")
            if Path(file).is_dir() != clips:
                raise ValueError(f"{split}: expected a {'folder' if clips else 'file'} as {path}, got {file}")
            files[split] = Path(file)
    given = {
        split: read_clips(file, pattern, rate=target) if clips else _stream(file, target)
        for split, file in files.items()
    }
    _refuse_two_rates(files, given)
    try:
        parts, cut = (_cut_clips if clips else _cut_stream)(given, fractions, split_seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    provenance = {**cut, "path": str(path), "valid": str(valid or "") or None, "test": str(test or "") or None}
    provenance |= {"resampled_to": target, "pattern": pattern}
    return sound_sequences(path.name.split(".")[0], parts, encoding, ends=clips, provenance=provenance)


def sound_sequences(
    name: str,
    parts: Mapping[str, Clips],
    encoding: str = "mu-law",
    *,
    ends: bool,
    notes: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Sequences:
    """Make a data set of recordings in three splits.

    Args:
        name: of the data set.
        parts: "train", "valid" and "test" -> clips, of one rate and the same attributes.
        encoding: as in `audio_sequences`.
        ends: whether the clips end by themselves.
        notes: for the user.
        provenance: added to what is written here.

    Raises:
        ValueError: an unknown encoding.

    Example:
        >>> clips = Clips([np.zeros(3)], 8000)
        >>> data = sound_sequences("silence", {"train": clips, "valid": clips, "test": clips}, "16-bit", ends=False)
        >>> data.kind, data.levels, data.train[0].tolist()
        ('integer', 65536, [32768, 32768, 32768])
    """
    train = parts["train"]
    codec = sound_codec(encoding, train.rate)
    encoded = {split: Ragged.of([codec.encode(own) for own in clips.samples]) for split, clips in parts.items()}
    attributes, labels, notes = dict[str, list[str]](), dict[str, np.ndarray](), list(notes)
    for i, attribute in enumerate(train.names):
        every = sort_labels({values[i] for clips in parts.values() for values in clips.values})
        attributes[attribute] = every
        new = sorted(set(every) - {values[i] for values in train.values})
        notes += [f"{attribute}: expect little of {', '.join(new)}, which train does not have"] if new else []
    for split, clips in parts.items():
        number = [{value: n for n, value in enumerate(own)} for own in attributes.values()]
        rows = [[number[i][value] for i, value in enumerate(values)] for values in clips.values]
        labels[split] = np.array(rows, dtype=np.int64).reshape(len(clips.samples), len(attributes))
    return Sequences(
        name=name,
        train=encoded["train"],
        valid=encoded["valid"],
        test=encoded["test"],
        kind="categorical" if isinstance(codec, MuLaw) else "integer",
        levels=codec.levels,
        unit=codec.unit,
        ends=ends,
        rate=codec.rate,
        codec=codec,
        labels=labels if attributes else None,
        attributes=attributes,
        notes=notes,
        provenance={**(provenance or {}), "encoding": encoding},
    )


def sound_codec(encoding: str, rate: int) -> MuLaw | Pcm:
    """Return the codec that an encoding names.

    Raises:
        ValueError: an unknown encoding.

    Example:
        >>> sound_codec("mu-law:64", 8000), sound_codec("12-bit", 8000).levels
        (MuLaw(rate=8000, codec='mu-law', levels=64), 4096)
    """
    law, linear = re.fullmatch(r"mu-law(?::(\d+))?", encoding), re.fullmatch(r"(\d+)-bit", encoding)
    if law is not None and 2 <= int(law[1] or 256) <= 1 << 16:
        return MuLaw(rate=rate, levels=int(law[1] or 256))
    if linear is not None and 2 <= int(linear[1]) <= 16:
        return Pcm(rate=rate, bits=int(linear[1]))
    raise ValueError(f"encoding: expected mu-law, mu-law:LEVELS (2 to 65536) or BITS-bit (2 to 16), got {encoding!r}")


def read_clips(path: str | Path, pattern: str | None = None, *, rate: int | None = None) -> Clips:
    """Read the sound files of a folder and of those below it; hidden files and other endings are passed over.

    Args:
        path: the folder.
        pattern: as in `audio_sequences`; without one, subfolders are the attribute "class".
        rate: to resample to.

    Raises:
        ValueError: no sound files, one that is damaged, two rates, or a name that the pattern does not fit.

    Example:
        >>> read_clips(".git")
        Traceback (most recent call last):
        ...
        ValueError: .git: expected .wav, .flac or .ogg files in the folder, got none
    """
    path = Path(path)
    files = sound_files(path)
    if not files:
        raise ValueError(f"{path}: expected .wav, .flac or .ogg files in the folder, got none")
    names, values = attributes_of(path, files, pattern)
    samples, rates = list[np.ndarray](), dict[int, Path]()
    for file in files:
        sound, own = read_audio(file, rate)
        samples.append(sound)
        rates.setdefault(own, file)
    if len(rates) > 1:
        (first, a), (second, b) = list(rates.items())[:2]
        raise ValueError(
            f"{path}: expected clips of one rate, got {first} a second in {a.name} and {second} in {b.name}; "
            "rate= resamples all"
        )
    return Clips(samples, next(iter(rates)), values, names)


def sound_files(path: str | Path) -> list[Path]:
    """Return the sound files below a folder, sorted by their paths.

    Example:
        >>> sound_files("src")
        []
    """
    path = Path(path)
    found = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    shown = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    return sorted(shown, key=lambda file: file.relative_to(path).as_posix())


def attributes_of(
    path: Path, files: Sequence[Path], pattern: str | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the names of the attributes that files in a folder tell, and the values of each file.

    Args:
        path: the folder.
        files: below it.
        pattern: as in `audio_sequences`.

    Raises:
        ValueError: a name that the pattern does not fit, or files beside subfolders without one.

    Example:
        >>> attributes_of(Path("clips"), [Path("clips/7_ann_0.wav")], "{digit}_{speaker}_{_take}")
        (('digit', 'speaker'), [('7', 'ann')])
    """
    below = [file.relative_to(path) for file in files]
    if pattern is None:
        flat = [file.name for file in below if len(file.parts) == 1]
        if len(flat) == len(below):
            return (), []
        if flat:
            raise ValueError(
                f"{path}: expected clips either in the folder or in subfolders (their class), got both: {flat[0]} and "
                f"{next(file for file in below if len(file.parts) > 1)}; pattern= names what files tell"
            )
        return ("class",), [(file.parts[0],) for file in below]
    matcher = _matcher(pattern)
    kept = tuple(name for name in matcher.groupindex if not name.startswith("_"))
    values = []
    for file in below:
        text = file.with_suffix("").as_posix() if "/" in pattern else file.stem
        found = matcher.fullmatch(text)
        if found is None:
            raise ValueError(f"{path / file}: expected a name like {pattern!r}, got {text!r}")
        values.append(tuple(found[name] for name in kept))
    return kept, values


def _matcher(pattern: str) -> re.Pattern[str]:
    """The pattern as a regular expression: each {name} stands for some characters."""
    parts = re.split(r"\{(\w+)\}", pattern)
    names, texts = parts[1::2], parts[::2]
    if not names or any("{" in text or "}" in text for text in texts) or any(name[0].isdigit() for name in names):
        raise ValueError(f"pattern: expected names in braces, such as '{{digit}}_{{speaker}}', got {pattern!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"pattern: expected different names, got {pattern!r}")
    groups = [f"(?P<{name}>[^/]+?)" for name in names] + [""]
    return re.compile("".join(re.escape(text) + group for text, group in zip(texts, groups, strict=True)))


def _stream(path: Path, rate: int | None) -> Clips:
    samples, own = read_audio(path, rate)
    return Clips([samples], own)


def _refuse_two_rates(files: Mapping[str, Path], given: Mapping[str, Clips]) -> None:
    for split, clips in given.items():
        if clips.rate != given["train"].rate:
            raise ValueError(
                f"{files[split]}: expected {given['train'].rate} samples a second as in {files['train']}, got "
                f"{clips.rate}; rate= resamples all"
            )


def _cut_clips(
    given: Mapping[str, Clips], fractions: Sequence[float] | None, seed: int
) -> tuple[dict[str, Clips], dict[str, Any]]:
    shares = fractions or FRACTIONS
    if len({clips.names for clips in given.values()}) > 1:
        names = {split: ", ".join(clips.names) or "none" for split, clips in given.items()}
        raise ValueError(f"expected the same attributes in all splits, got {names}")
    rows = cut_rows({split: len(clips.samples) for split, clips in given.items()}, fractions=shares, seed=seed)
    parts = {split: given["train"].take(rows[split]) if split in rows else given[split] for split in SPLITS}
    return parts, split_provenance(rows, shares, seed)


def _cut_stream(
    given: Mapping[str, Clips], fractions: Sequence[float] | None, seed: int
) -> tuple[dict[str, Clips], dict[str, Any]]:
    """Each stream of "train" cut in order; the seed has no part in it."""
    if len(given) == len(SPLITS):
        return dict(given), stream_provenance([], ())
    shares, train = fractions or STREAM_FRACTIONS, given["train"]
    own = [split for split in given if split != "train"]
    cuts = [cut_stream(len(samples), given=own, fractions=shares) for samples in train.samples]
    parts = dict(given)
    for split in cuts[0]:
        samples = [x[cut[split]] for x, cut in zip(train.samples, cuts, strict=True)]
        parts[split] = Clips(samples, train.rate, train.values, train.names)
    return parts, stream_provenance(cuts[0], shares)


def whole_rate(rate: float) -> int:
    """Return a rate of sound as a whole number.

    Raises:
        ValueError: it is none, or below 1.

    Example:
        >>> whole_rate(8000.0)
        8000
    """
    if rate < 1 or rate != int(rate):
        raise ValueError(f"rate: expected a whole number of samples a second, 1 or more, got {rate:g}")
    return int(rate)
