"""Named sets of sequences, from the layouts that they come in."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from sequence_checks import TONE, VERSE, pairs_of, sequences, texts_of
from seriatim.data import (
    Bytes,
    load,
    write_audio,
)
from seriatim.data.named_sequences import BABI_TASKS

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("tokenizers")

RNG = np.random.default_rng(0)


def test_tiny_shakespeare(tmp_path: Path) -> None:
    (tmp_path / "tinyshakespeare.txt.gz").write_bytes(gzip.compress(VERSE.encode()))
    data = sequences("tinyshakespeare", data_dir=tmp_path)
    cut = int(0.9 * len(VERSE))
    assert [texts_of(data, split) for split in data.splits] == [[VERSE[:cut]], [VERSE[cut:]], [VERSE[cut:]]]
    assert data.unit == "character"
    assert "valid and test are the same text" in data.notes[0]
    assert sequences("tinyshakespeare", data_dir=tmp_path, tokens="bytes").levels == 256
    with pytest.raises(ValueError, match=r"tinyshakespeare: expected none of size, .*, got rate=3"):
        load("tinyshakespeare", data_dir=tmp_path, rate=3)


def test_spoken_digits_from_both_layouts(tmp_path: Path) -> None:
    told = [(digit, speaker, take) for digit in (0, 1) for speaker in ("al", "jo") for take in range(12)]
    clips = [(TONE[: 40 + 7 * i] * 32768).astype(np.int16) for i in range(len(told))]
    for (digit, speaker, take), samples in zip(told, clips, strict=True):
        (tmp_path / "recordings").mkdir(exist_ok=True)
        soundfile.write(tmp_path / "recordings" / f"{digit}_{speaker}_{take}.wav", samples, 8000)
    data = sequences("fsdd", data_dir=tmp_path, encoding="16-bit")
    assert [len(own) for own in data.splits.values()] == [8, 20, 20]
    assert data.attributes == {"digit": ["0", "1"], "speaker": ["al", "jo"]}
    np.testing.assert_array_equal(data.test[7], clips[14].astype(int) + 32768)  # digit 0, jo, take 2
    assert data.labels is not None
    assert data.labels["test"][7].tolist() == [0, 1]
    np.savez(
        tmp_path / "fsdd.npz",
        samples=np.concatenate(clips),
        offsets=np.cumsum([0, *map(len, clips)]),
        digit=[digit for digit, _, _ in told],
        speaker=[("al", "jo").index(speaker) for _, speaker, _ in told],
        take=[take for _, _, take in told],
        speakers=["al", "jo"],
        sample_rate=8000,
    )
    archived = sequences("fsdd", data_dir=tmp_path, encoding="16-bit")
    assert archived.provenance["path"].endswith("fsdd.npz")
    assert archived.digest == data.digest
    assert archived.labels is not None
    assert data.labels is not None
    np.testing.assert_array_equal(archived.labels["train"], data.labels["train"])
    half = sequences("fsdd", data_dir=tmp_path, rate=4000)
    assert (half.rate, half.train.lengths[0]) == (4000, -(-len(clips[10]) // 2))


def test_three_utterances(tmp_path: Path) -> None:
    whole = (np.tile(TONE, 3) * 32768).astype(np.int16)
    names = ["3436-172162-0000", "5703-47212-0000", "198-209-0000"]
    np.savez(tmp_path / "librispeech_3clips_16k.npz", samples=whole, offsets=[0, 4000, 9000, 12000], names=names)
    data = sequences("librispeech3", data_dir=tmp_path)
    assert (data.ends, data.rate, data.attributes) == (False, 16000, {"speaker": ["198", "3436", "5703"]})
    assert [own.lengths.tolist() for own in data.splits.values()] == [
        [3600, 4500, 2700],
        [200, 250, 150],
        [200, 250, 150],
    ]
    (tmp_path / "audio").mkdir()
    for name in names:
        write_audio(tmp_path / "audio" / f"{name}.hq.ogg", TONE, 16000)
    (tmp_path / "librispeech_3clips_16k.npz").unlink()
    assert sequences("librispeech3", data_dir=tmp_path).train.lengths.tolist() == [3600] * 3


def test_music_from_both_layouts(tmp_path: Path) -> None:
    steps = RNG.integers(0, 2, (12, 88)).astype(np.uint8)
    arrays = {split: np.packbits(steps, axis=1) for split in ("train", "valid", "test")}
    lengths = {f"{split}_len": np.array([5, 7]) for split in arrays}
    (tmp_path / "music").mkdir()
    np.savez(tmp_path / "music" / "jsb_chorales.npz", d=88, **arrays, **lengths)
    data = sequences("jsb_chorales", data_dir=tmp_path)
    np.testing.assert_array_equal(data.train[1], steps[5:])
    assert data.name == "jsb_chorales"
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = steps[:5], steps[5:]
    folder = tmp_path / "clone" / "TCN" / "poly_music" / "mdata"
    folder.mkdir(parents=True)
    savemat(folder / "JSB_Chorales.mat", {f"{split}data": cells for split in arrays})
    assert sequences("jsb_chorales", data_dir=tmp_path / "clone").digest == data.digest
    (folder / "Nottingham.mat").write_text("not of MATLAB")
    with pytest.raises(ValueError, match=r"Nottingham\.mat: expected a MATLAB file, got"):
        load("nottingham", data_dir=tmp_path / "clone")


def test_captions_in_two_languages(tmp_path: Path) -> None:
    folder = tmp_path / "multi30k_en_de"
    folder.mkdir()
    for split, rows in {"train": 9, "val": 2, "test_2016_flickr": 1}.items():
        for language, text in {"en": "a dog runs", "de": "ein Hund rennt"}.items():
            lines = "".join(f"{text} {i}\n" for i in range(rows))
            (folder / f"{split}.{language}.gz").write_bytes(gzip.compress(lines.encode()))
    data = sequences("multi30k_de_en", data_dir=tmp_path)
    assert pairs_of(data, "test") == [("ein Hund rennt 0", "a dog runs 0")]
    assert data.codec == data.source_codec
    assert [len(own) for own in data.splits.values()] == [9, 2, 1]
    back = sequences("multi30k_en_de", data_dir=tmp_path, tokens="characters", source_tokens="bytes")
    assert pairs_of(back, "test") == [("a dog runs 0", "ein Hund rennt 0")]
    assert back.source_codec == Bytes()


def test_questions_from_both_layouts(tmp_path: Path) -> None:
    """Fourteen stories of three questions each; validation begins with a story, not with the last tenth."""
    rows, plain = [], []
    for i in range(14):
        story: list[str] = []
        for k in range(3):
            story.append(f"{'ABCDEFGHIJKLMN'[i]} went to {k}.")
            plain += [f"{2 * k + 1} {story[-1]}", f"{2 * k + 2} Where is it? \t{k}\t{2 * k + 1}"]
            rows.append(f"{' '.join(story)} Where is it?\t{k}")
    for task in BABI_TASKS:
        for split, some in {"train": rows, "test": rows[:3]}.items():
            file = tmp_path / "babi" / f"{task}_x" / f"{split}.tsv.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(gzip.compress(("\n".join(some) + "\n").encode()))
    one = sequences("babi:qa7", data_dir=tmp_path, tokens="bytes")
    assert (one.labels, [len(own) for own in one.splits.values()]) == (None, [36, 6, 3])
    assert pairs_of(one, "valid")[0] == ("M went to 0. Where is it?", "0")
    assert one.notes == ["qa7: 3 of 3 test rows also occur in train or valid"]
    every = sequences("babi", data_dir=tmp_path)
    assert [len(own) for own in every.splits.values()] == [36 * 18, 6 * 18, 3 * 18]
    assert every.attributes == {"task": list(BABI_TASKS)}
    assert every.labels is not None
    assert every.labels["test"].ravel().tolist() == sorted([*range(18)] * 3)
    assert pairs_of(every, "test")[:3] == pairs_of(one, "test")
    folder = tmp_path / "source" / "tasks_1-20_v1-2" / "en-10k"
    folder.mkdir(parents=True)
    (folder / "qa7_x_train.txt").write_text("\n".join(plain) + "\n")
    (folder / "qa7_x_test.txt").write_text("\n".join(plain[:6]) + "\n")
    assert sequences("babi:qa7", data_dir=tmp_path / "source", tokens="bytes").digest == one.digest
    with pytest.raises(ValueError, match=r"expected qa8_\*/train\.tsv\.gz or qa8_\*_train\.txt, got neither"):
        load("babi:qa8", data_dir=tmp_path / "source")
    (folder / "qa7_x_test.txt").write_text("1 A.\nB.\n")
    with pytest.raises(ValueError, match=r"qa7_x_test\.txt, line 2: expected NUMBER SENTENCE or .* got 'B\.'"):
        load("babi:qa7", data_dir=tmp_path / "source")
