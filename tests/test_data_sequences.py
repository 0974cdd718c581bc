"""Sequences: texts, music, series and pairs from files of many kinds, and what is refused."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sequence_checks import TONE, VERSE, pairs_of, sequences, texts_of
from seriatim.data import (
    BytePairs,
    Bytes,
    Roll,
    Standardised,
    TextCodec,
    load,
    write_audio,
)

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("tokenizers")

RNG = np.random.default_rng(0)
PAIRS = BytePairs.of([VERSE], levels=280)


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens, unit", [("bytes", "byte"), ("characters", "character"), ("bpe:300", "token")])
def test_a_text_is_a_stream_cut_in_order(tmp_path: Path, tokens: str, unit: str) -> None:
    text = "".join(f"{i}: là-bas, 𝄞\n" for i in range(60))
    (tmp_path / "verse.txt").write_text(text, encoding="utf-8")
    data = sequences(tmp_path / "verse.txt", tokens=tokens)
    assert (data.name, data.kind, data.ends, data.value_shape, data.rate) == ("verse", "categorical", False, (), None)
    assert data.unit == unit
    parts = {split: texts_of(data, split) for split in data.splits}
    assert [len(own) for own in parts.values()] == [1, 1, 1]
    assert parts["train"][0] + parts["valid"][0] + parts["test"][0] == text
    sizes = [len(own[0].encode()) for own in parts.values()]
    assert abs(sizes[0] - 0.9 * sum(sizes)) < 5
    assert abs(sizes[1] - sizes[2]) < 8
    other = sequences(tmp_path / "verse.txt", tokens="bytes")
    assert parts == {split: texts_of(other, split) for split in data.splits}  # so bits per byte compare
    (tmp_path / "clefs.txt").write_text("𝄞" * 31, encoding="utf-8")  # 0.9 of its bytes lie within a character
    clefs = sequences(tmp_path / "clefs.txt", tokens=tokens)
    assert [len(texts_of(clefs, split)[0]) for split in clefs.splits] == [28, 2, 1]
    halves = sequences(tmp_path / "verse.txt", tokens=tokens, fractions=(0.5, 0.25, 0.25))
    assert abs(len(texts_of(halves, "train")[0].encode()) - sum(sizes) / 2) < 5
    assert data.digest == sequences(tmp_path / "verse.txt", tokens=tokens, split_seed=3).digest != halves.digest


def test_lines_are_sequences_that_end(tmp_path: Path) -> None:
    lines = [f"line {i}" for i in range(50)]
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress(("\r\n".join(lines) + "\r\n\r\n\n").encode()))
    data = sequences(tmp_path / "lines.txt.gz", lines=True, tokens="characters")
    assert data.ends
    assert [len(own) for own in data.splits.values()] == [40, 5, 5]
    assert sorted(text for split in data.splits for text in texts_of(data, split)) == sorted(lines)
    assert data.notes == ["2 empty lines are left out"]
    assert texts_of(sequences(tmp_path / "lines.txt.gz", lines=True, split_seed=1), "test") != texts_of(data, "test")


def test_texts_of_their_own_for_valid_and_test(tmp_path: Path) -> None:
    for name, text in {"a": "abcab" * 20, "b": "abba", "c": "cabx"}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = {"valid": tmp_path / "b.txt", "test": tmp_path / "c.txt"}
    data = sequences(tmp_path / "a.txt", tokens="characters", **files)
    assert [texts_of(data, split) for split in data.splits] == [["abcab" * 20], ["abba"], ["cabx"]]
    assert data.provenance["cut"] == []
    assert data.notes == ["1 of 4 characters occur in valid or test only: 'x'"]
    data = sequences(tmp_path / "a.txt", test=tmp_path / "c.txt", fractions=(0.6, 0.2, 0.2))
    assert [len(own.values) for own in data.splits.values()] == [75, 25, 4]
    (tmp_path / "c.txt").write_text("zoo zoo zoo zoo")
    data = sequences(tmp_path / "a.txt", tokens="bpe:1000", **files)
    assert data.codec == BytePairs.of(["abcab" * 20], levels=1000)
    assert "less than the 1000 asked for" in data.notes[0]


def test_texts_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\xff\n" * 9)
    with pytest.raises(ValueError, match=r'a\.txt, line 2: expected UTF-8, got byte 0xff at offset 7; tokens="bytes"'):
        load(tmp_path / "a.txt", tokens="characters")
    data = sequences(tmp_path / "a.txt")
    assert isinstance(data.codec, TextCodec)
    assert b"".join(data.codec.decode_bytes(own[0]) for own in data.splits.values()) == b"one\ntwo\xff\n" * 9
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match=r"empty\.txt: expected text, got an empty file"):
        load(tmp_path / "empty.txt")
    (tmp_path / "blank.txt").write_text("\n\n")
    with pytest.raises(ValueError, match=r"blank\.txt: train: expected lines that are not empty, got none"):
        load(tmp_path / "blank.txt", lines=True)
    with pytest.raises(ValueError, match=r"blank\.txt: positions: expected at least 3 to make train, valid, test"):
        load(tmp_path / "blank.txt")
    (tmp_path / "damaged.txt.gz").write_bytes(gzip.compress(b"text" * 99)[:-9])
    with pytest.raises(ValueError, match=r"damaged\.txt\.gz: cannot be read"):
        load(tmp_path / "damaged.txt.gz")
    with pytest.raises(ValueError, match=r"no\.txt: no such file"):
        load(tmp_path / "no.txt")
    for tokens in ("words", "bpe", "bpe:many", "bytes:3"):
        with pytest.raises(ValueError, match=f"tokens: expected bytes, characters or bpe:N, got '{tokens}'"):
            load(tmp_path / "blank.txt", tokens=tokens, fractions=(0.4, 0.3, 0.3), valid=tmp_path / "blank.txt")
    with pytest.raises(ValueError, match="label: expected for a table only, got it for a text"):
        load(tmp_path / "a.txt", label="x")
    with pytest.raises(ValueError, match="three positive numbers that sum to 1"):
        load(tmp_path / "a.txt", fractions=(0.9, 0.2, 0.1))


# --- music ----------------------------------------------------------------------------------------------------------


def test_piano_rolls(tmp_path: Path) -> None:
    steps = RNG.integers(0, 2, (60, 88)).astype(np.uint8)
    packed, lengths = np.packbits(steps, axis=1), np.arange(1, 11) + 1
    lengths[-1] -= lengths.sum() - 60
    np.savez(tmp_path / "a.npz", d=88, **dict.fromkeys(("train", "test"), packed), train_len=lengths, test_len=[59, 1])
    data = sequences(tmp_path / "a.npz")
    assert (data.kind, data.levels, data.value_shape, data.ends, data.unit) == ("binary", 2, (88,), True, "step")
    assert [len(own) for own in data.splits.values()] == [9, 1, 2]
    np.testing.assert_array_equal(data.test.values, steps)
    assert data.codec == Roll()
    assert sorted(data.train.lengths.tolist() + data.valid.lengths.tolist()) == sorted(lengths.tolist())
    first = data.codec.decode(data.test[1])
    assert first == [tuple(21 + np.flatnonzero(steps[59]))]
    np.savez(tmp_path / "plain.npz", x=steps.astype(float), x_len=lengths)
    given = sequences(tmp_path / "plain.npz", valid=tmp_path / "a.npz", test=tmp_path / "plain.npz", rate=2.5)
    assert [len(own) for own in given.splits.values()] == [10, 10, 10]
    assert given.rate == 2.5
    np.save(tmp_path / "b.npy", steps)
    stream = sequences(tmp_path / "b.npy", read_as="music")
    assert (stream.ends, [len(own.values) for own in stream.splits.values()]) == (False, [54, 3, 3])
    assert load(tmp_path / "b.npy").train.shape == (48, 88)
    np.save(tmp_path / "wide.npy", np.eye(128))
    assert sequences(tmp_path / "wide.npy", read_as="music").codec == Roll(notes=128, lowest=0)


def test_music_that_is_refused(tmp_path: Path) -> None:
    steps = np.zeros((9, 88), dtype=int)
    for lengths in ([4, 4], [9, 0], [4.5, 4.5], [[9]]):
        np.savez(tmp_path / "a.npz", train=steps, train_len=lengths)
        with pytest.raises(ValueError, match=r"a\.npz: train_len: expected whole numbers from 1 that add up to 9"):
            load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", train=steps, train_len=[3, 6], test=steps)
    with pytest.raises(ValueError, match="test_len: expected lengths as for train"):
        load(tmp_path / "a.npz")
    steps[4, 7] = 2
    np.savez(tmp_path / "a.npz", train=steps, train_len=[3, 3, 3])
    with pytest.raises(ValueError, match=r"a\.npz: train: expected 0 or 1, got 2 at row 4, column 7"):
        load(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", notes=steps, notes_len=[9])
    with pytest.raises(ValueError, match=r"a\.npz: expected an array 'train' or 'x', got the keys notes, notes_len"):
        load(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", np.zeros((4, 3, 2)))
    with pytest.raises(ValueError, match=r"b\.npy: train: expected shape \(steps, notes\), got \(4, 3, 2\)"):
        load(tmp_path / "b.npy", read_as="music")


# --- series ---------------------------------------------------------------------------------------------------------


def test_series(tmp_path: Path) -> None:
    values = RNG.normal(5, 3, (100, 2))
    rows = [f"2024-03-{1 + i // 24:02} {i % 24:02}:00,{a},{b}" for i, (a, b) in enumerate(values)]
    (tmp_path / "s.csv").write_text("when,a,b\n" + "\n".join(rows))
    data = sequences(tmp_path / "s.csv", read_as="series")
    assert (data.kind, data.levels, data.ends, data.value_shape, data.unit) == ("continuous", None, False, (2,), "step")
    assert [own.lengths.tolist() for own in data.splits.values()] == [[80], [10], [10]]
    assert data.train.values.dtype == np.float32
    np.testing.assert_allclose(data.train.values.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(data.train.values.std(0), 1, atol=1e-6)
    assert isinstance(data.codec, Standardised)
    assert data.codec.names == ("a", "b")
    np.testing.assert_allclose(data.codec.decode(data.test[0]), values[90:], atol=1e-5)
    time = data.provenance["time"]
    assert (time["column"], time["step"], time["irregular"]) == ("when", 3600.0, 0)
    one = sequences(tmp_path / "s.csv", read_as="series", exclude=["b"], fractions=(0.5, 0.25, 0.25))
    assert (one.value_shape, one.train.lengths.tolist()) == ((), [50])
    held = sequences(tmp_path / "s.csv", read_as="series", test=tmp_path / "s.csv")
    np.testing.assert_allclose(held.codec.decode(held.test[0]), values, atol=1e-5)
    assert [len(own.values) for own in held.splits.values()] == [88, 12, 100]


def test_times_and_constants(tmp_path: Path) -> None:
    numbers = [*range(10), 20, 21, 22]
    (tmp_path / "t.csv").write_text("t,x,c\n" + "\n".join(f"{n},{n * n / 7},3" for n in numbers))
    data = sequences(tmp_path / "t.csv", read_as="series")
    assert data.notes == [
        "c is constant in train: a density may fit it without bound",
        "1 of 12 steps of t are not 1 long",
    ]
    assert data.value_shape == (2,)
    dates = [f"2024-01-0{day},{day}.5" for day in (1, 2, 4, 3, 5)]
    (tmp_path / "back.csv").write_text("day,x\n" + "\n".join(dates))
    assert "1 of them go back: rows are taken as they stand" in sequences(tmp_path / "back.csv", read_as="series").notes


def test_series_that_are_refused(tmp_path: Path) -> None:
    def refused(text: str, match: str, **options: Any) -> None:
        (tmp_path / "s.csv").write_text(text)
        with pytest.raises(ValueError, match=match):
            load(tmp_path / "s.csv", read_as="series", **options)

    rows = "\n".join(f"{i},{i / 3}" for i in range(9))
    refused(f"x,y\n{rows}\n,1\n2,\n3,\n", r"s\.csv: column 'x': expected a number .* got none in row 10 and 0 more")
    refused("x,y\n1,a\n2,b\n3,a\n", r"s\.csv: column 'y': expected numbers, got 'a'; exclude= leaves")
    refused("when\n2024-01-01\n2024-01-02\n2024-01-03\n", "expected columns of numbers, got none", header=True)
    refused("x\n1\n2\n", "positions: expected at least 3 to make train, valid, test, got 2", header=True)
    (tmp_path / "other.csv").write_text("x,z\n1,2\n")
    refused(f"x,y\n{rows}\n", r"other\.csv: expected the columns x, y as in .*, got x, z", test=tmp_path / "other.csv")
    with pytest.raises(ValueError, match="label: expected for a table only, got it for a series"):
        load(tmp_path / "s.csv", read_as="series", label="x")
    with pytest.raises(ValueError, match=r"read_as: expected one of pairs, music, series, got 'serie' \(close: series"):
        load(tmp_path / "s.csv", read_as="serie")
    with pytest.raises(ValueError, match="read_as: expected none for a named set"):
        load("digits", read_as="series")


# --- pairs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", ["bytes", "characters", "bpe:270"])
@pytest.mark.parametrize("joint", [False, True])
def test_pairs_of_texts(tmp_path: Path, tokens: str, joint: bool) -> None:
    pairs = [(f"{i} Hände. Und {i * i}?", f"{i} hands") for i in range(1, 31)]
    (tmp_path / "a.tsv").write_text("".join(f"{source}\t{target}\r\n" for source, target in pairs), encoding="utf-8")
    (tmp_path / "a.de").write_text("\n".join(source for source, _ in pairs), encoding="utf-8")
    (tmp_path / "a.en.gz").write_bytes(gzip.compress("\n".join(target for _, target in pairs).encode()))
    one = sequences(tmp_path / "a.tsv", read_as="pairs", tokens=tokens, joint=joint)
    two = sequences(tmp_path / "a.de", target=tmp_path / "a.en.gz", tokens=tokens, joint=joint)
    assert one.digest == two.digest
    assert (one.kind, one.ends, one.codec == one.source_codec) == ("categorical", True, joint or tokens == "bytes")
    assert [len(own) for own in one.splits.values()] == [24, 3, 3]
    assert sorted(pair for split in one.splits for pair in pairs_of(one, split)) == sorted(pairs)
    files = {"valid": tmp_path / "a.de", "valid_target": tmp_path / "a.en.gz"}
    files |= {"test": tmp_path / "a.de", "test_target": tmp_path / "a.en.gz"}
    given = sequences(tmp_path / "a.de", target=tmp_path / "a.en.gz", tokens=tokens, **files)
    assert pairs_of(given, "train") == pairs_of(given, "test") == pairs
    mixed = sequences(tmp_path / "a.tsv", read_as="pairs", tokens="characters", source_tokens="bytes")
    assert (mixed.unit, mixed.source_codec) == ("character", Bytes())


def test_pairs_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.de").write_text("eins\nzwei\n\nvier\n")
    (tmp_path / "a.en").write_text("one\ntwo\nthree\nfour\n")
    (tmp_path / "b.en").write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"a\.de, line 3: expected text, got an empty line"):
        load(tmp_path / "a.de", target=tmp_path / "a.en")
    (tmp_path / "blank.en").write_text("one\n \nthree\n")
    with pytest.raises(ValueError, match=r"blank\.en, line 2: expected text, got an empty line"):
        load(tmp_path / "b.en", target=tmp_path / "blank.en")
    with pytest.raises(ValueError, match=r"b\.en: expected 4 lines as in .*a\.en, got 2"):
        load(tmp_path / "a.en", target=tmp_path / "b.en")
    with pytest.raises(ValueError, match=r"test_target: expected a file, as for train, got None"):
        load(tmp_path / "a.en", target=tmp_path / "a.en", test=tmp_path / "b.en")
    with pytest.raises(ValueError, match=r"valid: expected the file of the sources beside valid_target, got none"):
        load(tmp_path / "a.en", target=tmp_path / "a.en", valid_target=tmp_path / "b.en")
    for line in ("no tab", "two\ttabs\there", "\tone", "one\t "):
        (tmp_path / "a.tsv").write_text(f"a\tb\n{line}\n")
        with pytest.raises(ValueError, match=r"a\.tsv, line 2: expected source TAB target, got"):
            load(tmp_path / "a.tsv", read_as="pairs")
    (tmp_path / "a.tsv").write_bytes(b"a\tb\nc\t\xff\n")
    with pytest.raises(ValueError, match=r"a\.tsv, line 2: expected UTF-8, got byte 0xff at offset 6$"):
        load(tmp_path / "a.tsv", read_as="pairs")
    (tmp_path / "a.tsv").write_text("a\tb\n" * 9)
    with pytest.raises(ValueError, match="source_tokens: expected none with joint"):
        load(tmp_path / "a.tsv", read_as="pairs", joint=True, source_tokens="characters")
    with pytest.raises(ValueError, match="lines: expected for a text only, got it for pairs of texts"):
        load(tmp_path / "a.tsv", read_as="pairs", lines=True)


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("tokenizers", "soundfile"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"tokenizers, which is not installed: pip install 'seriatim\[text\]'"):
        BytePairs.of(["a"], levels=256)
    with pytest.raises(ValueError, match=r"soundfile, which is not installed: pip install 'seriatim\[audio\]'"):
        write_audio(tmp_path / "a.wav", TONE, 8000)
    assert PAIRS.model_copy().decode([104, 105]) == PAIRS.decode([104, 105])  # reading needs no library
