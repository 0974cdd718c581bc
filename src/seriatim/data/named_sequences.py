"""Readers of the named sets that are sequences: text, speech, music, translations and questions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.data.audio import Clips, read_clips, sound_sequences, whole_rate
from seriatim.data.audio_files import read_audio, resample
from seriatim.data.music import music_sequences, roll_sequences
from seriatim.data.numpy_files import load_archive, need_keys
from seriatim.data.pairs import Texts, read_lines, read_pairs, take_pairs, text_pairs
from seriatim.data.sequences import Sequences
from seriatim.data.splits import SPLITS, STREAM_FRACTIONS, cut_stream
from seriatim.data.text import encode_texts, read_bytes

BABI_TASKS = {
    "qa1": "single supporting fact",
    "qa2": "two supporting facts",
    "qa3": "three supporting facts",
    "qa4": "two arg relations",
    "qa6": "yes no questions",
    "qa7": "counting",
    "qa8": "lists sets",
    "qa9": "simple negation",
    "qa10": "indefinite knowledge",
    "qa11": "basic coreference",
    "qa13": "compound coreference",
    "qa14": "time reasoning",
    "qa15": "basic deduction",
    "qa16": "basic induction",
    "qa17": "positional reasoning",
    "qa18": "size reasoning",
    "qa19": "path finding",
    "qa20": "agents motivations",
}
"""Task -> what it asks for; those of which both splits are at hand."""

_SPEECH = ("3436-172162-0000", "5703-47212-0000", "198-209-0000")
_TEST_TAKES, _VALID_TAKES = range(5), range(5, 10)


def read_shakespeare(path: Path, provenance: Mapping[str, Any], *, tokens: str = "characters") -> Sequences:
    """Read tiny Shakespeare: train is the first 90 %, valid and test both the last 10 %."""
    raw = read_bytes(path)
    cut = int(0.9 * len(raw))
    parts = {"train": [raw[:cut]], "valid": [raw[cut:]], "test": [raw[cut:]]}
    note = "the customary split: valid and test are the same text, the last 10 %"
    return encode_texts("tinyshakespeare", parts, tokens, ends=False, notes=[note], provenance=provenance)


def read_fsdd(
    path: Path, provenance: Mapping[str, Any], *, rate: float | None = None, encoding: str = "mu-law"
) -> Sequences:
    """Read spoken digits, from one archive or from the folder of recordings."""
    if path.is_dir():
        clips = read_clips(path, "{digit}_{speaker}_{take}")
    else:
        z = need_keys(load_archive(path), ["samples", "offsets", "digit", "speaker", "take", "speakers"], path)
        samples, speakers = z["samples"].astype(np.float32) / (1 << 15), z["speakers"].tolist()
        told = zip(z["digit"].tolist(), z["speaker"].tolist(), z["take"].tolist(), strict=True)
        values = [(str(digit), speakers[speaker], str(take)) for digit, speaker, take in told]
        own = int(z["sample_rate"]) if "sample_rate" in z else 8000
        clips = Clips(np.split(samples, z["offsets"][1:-1]), own, values, ("digit", "speaker", "take"))
    order = sorted(range(len(clips.values)), key=lambda i: (*clips.values[i][:2], int(clips.values[i][2])))
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}
    for i in order:
        take = int(clips.values[i][2])
        rows["test" if take in _TEST_TAKES else "valid" if take in _VALID_TAKES else "train"].append(i)
    if not all(rows.values()):
        raise ValueError(f"{path}: expected takes 0-4 (test), 5-9 (valid) and later ones, got {len(order)} recordings")
    told_values = [values[:2] for values in clips.values]
    whole = Clips(
        _at_rate(clips.samples, clips.rate, rate), whole_rate(rate or clips.rate), told_values, clips.names[:2]
    )
    parts = {split: whole.take(own) for split, own in rows.items()}
    note = "the official split: takes 0-4 are test; valid is takes 5-9"
    return sound_sequences("fsdd", parts, encoding, ends=True, notes=[note], provenance=provenance)


def read_librispeech(
    path: Path, provenance: Mapping[str, Any], *, rate: float | None = None, encoding: str = "mu-law"
) -> Sequences:
    """Read three utterances, each cut in order, from one archive or from the files of the source."""
    if path.suffix == ".npz":
        z = need_keys(load_archive(path), ["samples", "offsets", "names"], path)
        samples = np.split(z["samples"].astype(np.float32) / (1 << 15), z["offsets"][1:-1])
        own, names = int(z["sample_rate"]) if "sample_rate" in z else 16000, z["names"].tolist()
    else:
        names, read = list(_SPEECH), [read_audio(path.with_name(f"{name}.hq.ogg"), 16000) for name in _SPEECH]
        samples, own = [samples for samples, _ in read], 16000
    streams = _at_rate(samples, own, rate)
    cuts = [cut_stream(len(x), fractions=STREAM_FRACTIONS) for x in streams]
    values = [(name.partition("-")[0],) for name in names]
    parts = {}
    for split in SPLITS:
        samples = [x[cut[split]] for x, cut in zip(streams, cuts, strict=True)]
        parts[split] = Clips(samples, whole_rate(rate or own), values, ("speaker",))
    note = "45 seconds in all: expect over-fitting; each utterance is cut in order, 90 %, 5 %, 5 %"
    return sound_sequences("librispeech3", parts, encoding, ends=False, notes=[note], provenance=provenance)


def read_music(path: Path, provenance: Mapping[str, Any]) -> Sequences:
    """Read chorales, folk tunes or piano pieces, from an archive or from the MATLAB file of the source."""
    name = str(provenance["set"])
    if path.suffix != ".mat":
        data = music_sequences(path)
        given = {split: (own.values, own.lengths) for split, own in data.splits.items()}
        return roll_sequences(name, given, provenance=provenance)
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        read = loadmat(path)
    except (MatReadError, OSError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path}: expected a MATLAB file, got: {error}") from None
    cells = need_keys(read, ["traindata", "validdata", "testdata"], path)
    pieces = {split: [np.asarray(piece) for piece in cells[f"{split}data"][0]] for split in SPLITS}
    given = {split: (np.concatenate(own), np.array([len(piece) for piece in own])) for split, own in pieces.items()}
    return roll_sequences(name, given, provenance=provenance)


def read_multi30k(
    path: Path,
    provenance: Mapping[str, Any],
    *,
    languages: tuple[str, str],
    tokens: str = "bpe:8000",
    source_tokens: str | None = None,
    joint: bool | None = None,
) -> Sequences:
    """Read captions of pictures in two languages."""
    files = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    source, target = languages
    parts: dict[str, Texts] = {
        split: read_pairs(path / f"{file}.{source}.gz", path / f"{file}.{target}.gz") for split, file in files.items()
    }
    return text_pairs(
        str(provenance["set"]),
        parts,
        tokens=tokens,
        source_tokens=source_tokens,
        joint=source_tokens is None if joint is None else joint,
        provenance=provenance,
    )


def read_babi(
    path: Path,
    provenance: Mapping[str, Any],
    *,
    tasks: Sequence[str],
    tokens: str = "bpe:1000",
    source_tokens: str | None = None,
    joint: bool | None = None,
) -> Sequences:
    """Read stories with questions and answers; of each task's training rows the last 10 % are valid, by whole stories.

    The folder holds `qa1_.../train.tsv.gz` of lines "story and question TAB answer", or the files of the source,
    `qa1_..._train.txt`, of numbered lines.
    """
    parts: dict[str, tuple[list[str], list[str]]] = {split: ([], []) for split in SPLITS}
    labels: dict[str, list[int]] = {split: [] for split in SPLITS}
    notes = list[str]()
    for number, task in enumerate(tasks):
        train, test = (_read_task(path, task, split) for split in ("train", "test"))
        cut = story_start(train[0], len(train[0]) - len(train[0]) // 10)
        own = {
            "train": take_pairs(train, range(cut)),
            "valid": take_pairs(train, range(cut, len(train[0]))),
            "test": test,
        }
        for split, (sources, targets) in own.items():
            parts[split][0].extend(sources)
            parts[split][1].extend(targets)
            labels[split] += [number] * len(sources)
        known = set(train[0])
        if copies := sum(source in known for source in test[0]):
            notes.append(f"{task}: {copies} of {len(test[0])} test rows also occur in train or valid")
    several = len(tasks) > 1
    return text_pairs(
        str(provenance["set"]),
        parts,
        tokens=tokens,
        source_tokens=source_tokens,
        joint=source_tokens is None if joint is None else joint,
        labels={split: np.array(own, dtype=np.int64)[:, None] for split, own in labels.items()} if several else None,
        attributes={"task": list(tasks)} if several else None,
        notes=notes,
        provenance=provenance,
    )


def story_start(texts: Sequence[str], at: int) -> int:
    """Return the first row, from `at` backwards, whose story does not continue that of the row before.

    Example:
        >>> rows = ["A cat. Who?", "A dog. Who?", "A dog. It sat. Who?", "A dog. It sat. It ran. Who?"]
        >>> story_start(rows, 3)
        1
    """
    while 0 < at < len(texts) and texts[at].startswith(_story(texts[at - 1])):
        at -= 1
    return at


def _story(text: str) -> str:
    """What is told before the question: all sentences but the last."""
    return text[: text.rstrip("?").rfind(". ") + 1]


def _read_task(path: Path, task: str, split: str) -> Texts:
    archived = sorted(path.glob(f"{task}_*/{split}.tsv.gz"))
    if archived:
        return read_pairs(archived[0])
    plain = sorted(path.glob(f"{task}_*_{split}.txt"))
    if not plain:
        raise ValueError(f"{path}: expected {task}_*/{split}.tsv.gz or {task}_*_{split}.txt, got neither")
    sources, targets, story = list[str](), list[str](), list[str]()
    for number, line in enumerate(read_lines(plain[0]), 1):
        found = re.fullmatch(r"(\d+) ([^\t]+)(?:\t([^\t]+)(?:\t[\d ]*)?)?", line)
        if found is None:
            wanted = "NUMBER SENTENCE or NUMBER QUESTION TAB ANSWER"
            raise ValueError(f"{plain[0]}, line {number}: expected {wanted}, got {line[:60]!r}")
        if found[1] == "1":
            story = []
        if found[3] is None:
            story.append(found[2].strip())
        else:
            sources.append(" ".join([*story, found[2].strip()]))
            targets.append(found[3])
    return sources, targets


def _at_rate(samples: Sequence[np.ndarray], own: int, rate: float | None) -> list[np.ndarray]:
    if rate is None or rate == own:
        return list(samples)
    return [resample(x, own, whole_rate(rate)) for x in samples]
