"""Sequences: codecs that come back, files of many kinds, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat
from scipy.signal import resample_poly

from seriatim.data import (
    BytePairs,
    Bytes,
    Characters,
    MuLaw,
    Pcm,
    Roll,
    Sequences,
    Standardised,
    TextCodec,
    codec_of,
    load,
    read_audio,
    read_blocks,
    stream_audio,
    write_audio,
)
from seriatim.data.named_sequences import BABI_TASKS

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("tokenizers")

RNG = np.random.default_rng(0)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VERSE = "Who's there?\nNay, answer me: stand, and unfold yourself.\n" * 20
PAIRS = BytePairs.of([VERSE], levels=280)
CODECS: list[Any] = [
    Bytes(),
    Characters(symbols="añ𝄞\n"),
    PAIRS,
    MuLaw(rate=8000, levels=64),
    Pcm(rate=16000, bits=12),
    Standardised(mean=(1.0, 2.0), scale=(3.0, 0.5), names=("a", "b")),
    Roll(notes=12, lowest=60, rate=2.0),
]


def sequences(*args: Any, **options: Any) -> Sequences:
    data = load(*args, **options)
    assert isinstance(data, Sequences)
    json.dumps(data.provenance)
    return data


# --- codecs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.codec)
def test_a_codec_is_made_again_from_its_fields(codec):
    fields = json.loads(json.dumps(codec.model_dump()))
    assert codec_of(fields) == codec
    assert (codec_of(fields).levels, codec_of(fields).unit) == (codec.levels, codec.unit)
    with pytest.raises(ValueError, match="frozen"):
        codec.codec = "other"
    with pytest.raises(ValueError, match=r"colour: .*got 3"):
        codec_of({**fields, "colour": 3})


def test_codecs_that_are_none():
    with pytest.raises(ValueError, match=r"codec: .*'morse'.*expected tags.*'bytes'"):
        codec_of({"codec": "morse"})
    with pytest.raises(ValueError, match=r"mu-law.rate: Input should be greater than 0, got 0"):
        codec_of({"codec": "mu-law", "rate": 0})
    with pytest.raises(ValueError, match="one each for every channel, got 1, 2 and 1"):
        Standardised(mean=(0.0,), scale=(1.0, 2.0), names=("a",))
    with pytest.raises(ValueError, match="different characters, got 'b' more than once"):
        Characters(symbols="abcb")
    with pytest.raises(ValueError, match="tokenizer: expected byte pairs"):
        _ = BytePairs(tokenizer="{}").levels


@given(UNICODE)
def test_text_comes_back(text):
    for codec in (Bytes(), Characters.of([text or "a"]), PAIRS):
        values = codec.encode(text)
        assert values.ndim == 1
        assert values.dtype == (np.uint8 if codec.levels <= 256 else np.int32)
        assert codec.decode(values) == text
        assert codec.decode_bytes(values) == text.encode()
        assert codec.num_bytes(values) == len(text.encode())
        pieces = codec.pieces(values)
        assert len(pieces) == len(values)
        assert "".join(pieces) == text
    assert [len(piece) for piece in Characters.of([text or "a"]).pieces(values[:0])] == []


@given(st.lists(st.integers(0, 279), max_size=30), st.binary(max_size=30))
def test_any_values_have_a_text(tokens, raw):
    """Models make values that are no UTF-8: they are shown, and the bytes are kept."""
    for codec, values in ((PAIRS, tokens), (Bytes(), list(raw))):
        shown = codec.decode(values)
        assert shown == codec.decode_bytes(values).decode("utf-8", "replace")
        assert "".join(codec.pieces(values)) == shown
    assert Bytes().decode_bytes(Bytes().encode(raw)) == raw


def test_odd_text_in_byte_pairs():
    assert PAIRS.levels == 280
    for odd in ("", " ", "\n\n \t\r\n", "\x00\x7f", "e\u0301", "\ufeffx", "👩‍👩‍👧", "  two  blanks  ", "<|endoftext|>"):
        assert PAIRS.decode(PAIRS.encode(odd)) == odd
    assert len(PAIRS.encode(VERSE)) < 0.6 * len(VERSE)
    assert BytePairs.of([VERSE], levels=280) == PAIRS
    with pytest.raises(ValueError, match=r"levels: expected 256 or more, .*got 255"):
        BytePairs.of([VERSE], levels=255)


@given(st.lists(st.sampled_from(["Who's", " there", "?", ".", " ", "  ", "\n", "answer", " me", ":", "unfold", "é"])))
def test_sentences_that_come_again_are_read_once(words):
    text = "".join(words)
    alone, again = PAIRS.encode_all([text, text + " me"])
    np.testing.assert_array_equal(alone, PAIRS.encode(text))
    np.testing.assert_array_equal(again, PAIRS.encode(text + " me"))


def test_places_of_unknown_characters_and_values():
    assert Characters(symbols="ca\nb").encode("abc\n").tolist() == [1, 3, 0, 2]
    codec = Characters.of(["abc\n"])
    with pytest.raises(ValueError, match=r"one of 4 characters, got '€' \(U\+20AC\) at line 2, character 3"):
        codec.encode("abc\nab€c")
    with pytest.raises(ValueError, match=r"whole numbers 0..3, got -1 at position 1"):
        codec.decode([0, -1])
    with pytest.raises(ValueError, match=r"whole numbers 0..3, got 4 at position 0"):
        codec.pieces([4])
    with pytest.raises(ValueError, match=r"values: expected shape \(T,\), got \(1, 2\)"):
        codec.num_bytes([[1, 2]])
    with pytest.raises(ValueError, match=r"whole numbers 0..255, got float64"):
        Bytes().decode([0.5])
    for text_codec in (Bytes(), codec, PAIRS):
        with pytest.raises(ValueError, match=r"'\\ud800' \(U\+D800\) at line 1, character 2"):
            text_codec.encode("a\ud800")


@pytest.mark.parametrize("levels", [2, 3, 16, 255, 256, 1024, 65536])
def test_mu_law_and_its_inverse(levels):
    codec, every = MuLaw(rate=8000, levels=levels), np.arange(levels)
    x = codec.decode(every)
    assert x.dtype == np.float32
    assert (np.diff(x) > 0).all()
    assert (x[0], x[-1]) == (-1.0, 1.0)
    np.testing.assert_allclose(x, -x[::-1], atol=1e-7)
    np.testing.assert_array_equal(codec.encode(x), every)


@given(st.floats(-1, 1))
def test_mu_law_is_the_formula(x):
    codec = MuLaw(rate=8000)
    f = np.sign(x) * np.log(1 + 255 * abs(x)) / np.log(256)
    assert codec.encode(np.array([x]))[0] == int(np.floor((f + 1) / 2 * 255 + 0.5))
    back = float(codec.decode(codec.encode(np.array([x])))[0])
    assert abs(back - x) <= np.log(256) / 255 * (1 / 255 + max(abs(x), abs(back)))  # a step of the code


def test_pcm_is_what_files_hold():
    whole = np.array([-32768, -1, 0, 1, 32767], dtype=np.int16)
    codec = Pcm(rate=8000)
    values = codec.encode(whole / 32768)
    np.testing.assert_array_equal(values, whole.astype(int) + 32768)
    np.testing.assert_array_equal(codec.decode(values) * 32768, whole)
    for bits in (2, 8, 16):
        every = np.arange(1 << bits)
        np.testing.assert_array_equal(Pcm(rate=1, bits=bits).encode(Pcm(rate=1, bits=bits).decode(every)), every)
    assert codec.encode(np.array([-7.0, 7.0])).tolist() == [0, 65535]


@pytest.mark.parametrize("codec", [MuLaw(rate=8000), Pcm(rate=8000)], ids=lambda codec: codec.codec)
def test_samples_that_are_none(codec):
    with pytest.raises(ValueError, match="finite samples, got nan at sample 2"):
        codec.encode(np.array([0.0, 0.0, np.nan]))
    with pytest.raises(ValueError, match=r"real numbers in \[-1, 1\], got int16 \(3,\)"):
        codec.encode(np.zeros(3, dtype=np.int16))
    with pytest.raises(ValueError, match=r"got float64 \(2, 2\)"):
        codec.encode(np.zeros((2, 2)))


def test_standardised_measurements():
    codec = Standardised(mean=(1.0, -2.0), scale=(2.0, 0.25), names=("a", "b"))
    raw = RNG.normal(size=(7, 2))
    assert codec.encode(raw).dtype == np.float32
    np.testing.assert_allclose(codec.encode(raw), (raw - [1, -2]) / [2, 0.25], rtol=1e-6)
    np.testing.assert_allclose(codec.decode(codec.encode(raw)), raw, atol=1e-6)
    assert codec.log_scale == pytest.approx(np.log(0.5))
    with pytest.raises(ValueError, match=r"raw: expected shape \(T, 2\), got \(7,\)"):
        codec.encode(raw[:, 0])
    with pytest.raises(ValueError, match="finite numbers, got inf at step 1"):
        codec.encode([[0, 0], [0, np.inf]])


@given(st.lists(st.sets(st.integers(21, 108)), max_size=5))
def test_rolls(chords):
    values = Roll().encode(chords)
    assert (values.shape, values.dtype) == ((len(chords), 88), np.uint8)
    assert Roll().decode(values) == [tuple(sorted(chord)) for chord in chords]
    middle = Roll(notes=12, lowest=60)
    assert middle.encode([[60, 71]])[0].tolist() == [1, *[0] * 10, 1]
    assert middle.decode(middle.encode([[62]])) == [(62,)]


def test_notes_that_are_none():
    with pytest.raises(ValueError, match=r"pitches 21..108, got 109 at step 1"):
        Roll().encode([[21], [109]])
    with pytest.raises(ValueError, match=r"whole numbers 0..1, got 2"):
        Roll(notes=2).decode([[0, 2]])
    with pytest.raises(ValueError, match=r"shape \(T, 88\), got \(3, 87\)"):
        Roll().decode(np.zeros((3, 87)))


# --- text -----------------------------------------------------------------------------------------------------------


def texts_of(data: Sequences, split: str) -> list[str]:
    assert data.codec is not None
    return [data.codec.decode(values) for values in data.splits[split]]


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


# --- sound ----------------------------------------------------------------------------------------------------------

TONE = (0.5 * np.sin(np.arange(4000) / 7)).astype(np.float32)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_sound_files_come_back(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"tone.{ending}"
    write_audio(file, TONE, rate=8000)
    samples, rate = read_audio(file)
    assert (rate, samples.dtype, samples.shape) == (8000, np.float32, TONE.shape)
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]
    if ending == "ogg":
        assert np.abs(samples - TONE).mean() < 0.02
        return
    codec = Pcm(rate=8000)
    values = codec.encode(TONE)
    np.testing.assert_array_equal(codec.encode(samples), values)
    write_audio(file, (codec.decode(part) for part in np.split(values, 10)), rate=8000)  # block by block
    np.testing.assert_array_equal(codec.encode(read_audio(file)[0]), values)
    extremes = np.array([-2.0, -1.0, 1.0, 2.0])
    write_audio(file, extremes, rate=8000)
    np.testing.assert_array_equal(codec.encode(read_audio(file)[0]), codec.encode(extremes))


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_sound_files_that_are_cut_off(tmp_path: Path, ending: str) -> None:
    file, cut = tmp_path / f"tone.{ending}", tmp_path / f"cut.{ending}"
    write_audio(file, RNG.uniform(-1, 1, 40000), rate=8000)  # noise: several pages of ogg
    raw = file.read_bytes()
    pages = [raw.rfind(b"OggS")] if ending == "ogg" else []  # whole pages, but for the last
    for size in (10, 60, len(raw) // 2, len(raw) - 1, *pages):
        cut.write_bytes(raw[:size])
        with pytest.raises(ValueError, match=rf"cut\.{ending}: expected"):
            read_audio(cut)
        with pytest.raises(ValueError, match=rf"cut\.{ending}: expected"):
            list(read_blocks(cut, MuLaw(rate=8000)))


def test_sound_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_text("a letter, not a sound " * 9)
    with pytest.raises(ValueError, match=r"x\.wav: expected a whole wav, flac or ogg file, got: "):
        load(tmp_path / "x.wav")
    with pytest.raises(ValueError, match=r"no\.wav: no such file"):
        load(tmp_path / "no.wav")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 8000)
    with pytest.raises(ValueError, match=r"none\.wav: expected sound, got no samples"):
        load(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.array([0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"nan\.wav: expected finite samples, got nan at 1"):
        load(tmp_path / "nan.wav")
    with pytest.raises(ValueError, match=r"path: expected a name ending in \.wav, \.flac, \.ogg, got .*x\.mp3"):
        write_audio(tmp_path / "x.mp3", TONE, 8000)
    with pytest.raises(ValueError, match="samples: expected finite numbers, got inf at sample 4001"):
        write_audio(tmp_path / "y.wav", [TONE, np.array([0, np.inf])], 8000)
    with pytest.raises(ValueError, match="samples: expected one or more, got none"):
        write_audio(tmp_path / "y.wav", [], 8000)
    with pytest.raises(ValueError, match=r"samples: expected \(T,\) real numbers in \[-1, 1\], got int64 \(2,\)"):
        write_audio(tmp_path / "y.wav", np.arange(2), 8000)
    with pytest.raises(ValueError, match="rate: expected 1 or more samples a second, got 0"):
        write_audio(tmp_path / "y.wav", TONE, 0)
    assert not (tmp_path / "y.wav").exists()
    assert not list(tmp_path.glob(".y*"))
    with pytest.raises(ValueError, match="block: expected 1 or more samples, got 0"):
        list(read_blocks(tmp_path / "x.wav", MuLaw(rate=8000), block=0))


@pytest.mark.parametrize("source, target", [(8000, 8000), (8000, 16000), (16000, 8000), (11025, 8000), (3, 7)])
def test_blocks_are_the_whole(tmp_path: Path, source: int, target: int) -> None:
    """Reading by blocks gives the values of the whole file, bit for bit, whatever the rates and blocks are."""
    x = np.clip(RNG.normal(size=2500) / 3, -1, 1)
    soundfile.write(tmp_path / "x.wav", x, source, subtype="FLOAT")
    codec = Pcm(rate=target)
    up, down = (rate // math.gcd(source, target) for rate in (target, source))
    held = x.astype(np.float32).astype(np.float64)
    whole = np.clip(held if up == down else resample_poly(held, up, down), -1, 1)
    wanted = codec.encode(whole.astype(np.float32))
    np.testing.assert_array_equal(codec.encode(read_audio(tmp_path / "x.wav", target)[0]), wanted)
    for block in (13, 999, 5000):
        parts = list(read_blocks(tmp_path / "x.wav", codec, block=block))
        np.testing.assert_array_equal(np.concatenate(parts), wanted)
        assert len(parts) > 2500 / block / 2


def test_sound_as_it_is_made(tmp_path: Path) -> None:
    whole = io.BytesIO()
    assert stream_audio(whole, np.split(TONE, 4), 8000) == 4000
    (tmp_path / "s.wav").write_bytes(whole.getvalue())
    np.testing.assert_array_equal(Pcm(rate=8000).encode(read_audio(tmp_path / "s.wav")[0]), Pcm(rate=8000).encode(TONE))
    raw = io.BytesIO()
    stream_audio(raw, [TONE], 8000, header=False)
    assert whole.getvalue().endswith(raw.getvalue())
    assert len(raw.getvalue()) == 8000
    seen = []

    class Pipe(io.BytesIO):
        def flush(self) -> None:
            seen.append(len(self.getvalue()))

    stream_audio(Pipe(), np.split(TONE, 4), 8000, header=False)
    assert seen == [2000, 4000, 6000, 8000]
    with pytest.raises(ValueError, match="got nan at sample 1"):
        stream_audio(io.BytesIO(), [np.array([0.0, np.nan])], 8000)


def test_one_sound_is_a_stream(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.stack([TONE, -TONE / 2], axis=1), 8000, subtype="FLOAT")
    data = sequences(tmp_path / "two.wav")
    assert (data.kind, data.levels, data.unit, data.ends, data.rate) == ("categorical", 256, "sample", False, 8000)
    assert [own.lengths.tolist() for own in data.splits.values()] == [[3600], [200], [200]]
    values = np.concatenate([own[0] for own in data.splits.values()])
    np.testing.assert_array_equal(values, MuLaw(rate=8000).encode(TONE / 4))  # the mean of two channels
    data = sequences(tmp_path / "two.wav", encoding="12-bit", rate=4000, fractions=(0.5, 0.25, 0.25))
    assert (data.kind, data.levels, data.rate) == ("integer", 4096, 4000)
    assert data.codec == Pcm(rate=4000, bits=12)
    assert [own.lengths.tolist() for own in data.splits.values()] == [[1000], [500], [500]]
    data = sequences(tmp_path / "two.wav", test=tmp_path / "two.wav", encoding="mu-law:16")
    assert [len(own.values) for own in data.splits.values()] == [3789, 211, 4000]
    for encoding in ("mu-law:", "mu-law:1", "mu-law:65537", "1-bit", "17-bit", "alaw"):
        with pytest.raises(ValueError, match=r"encoding: expected mu-law, .*got"):
            load(tmp_path / "two.wav", encoding=encoding)
    for rate in (0, 0.5, 8000.5):
        with pytest.raises(ValueError, match="rate: expected a whole number of samples a second"):
            load(tmp_path / "two.wav", rate=rate)
    with pytest.raises(ValueError, match="pattern: expected for folders of clips only"):
        load(tmp_path / "two.wav", pattern="{a}")
    with pytest.raises(ValueError, match="test: expected a file as"):
        load(tmp_path / "two.wav", test=tmp_path)


def clip(path: Path, length: int, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, TONE[:length], rate)


def test_a_folder_of_clips(tmp_path: Path) -> None:
    for i in range(20):
        clip(tmp_path / ("yes", "no")[i % 2] / f"{i}.wav", 100 + i)
    clip(tmp_path / "no" / ".hidden.wav", 7)
    data = sequences(tmp_path)
    assert data.ends
    assert [len(own) for own in data.splits.values()] == [16, 2, 2]
    assert data.attributes == {"class": ["no", "yes"]}
    assert data.labels is not None
    for split, own in data.splits.items():
        assert data.labels[split].tolist() == [[int(length % 2 == 0)] for length in own.lengths]
        for values in own:
            np.testing.assert_array_equal(
                values, MuLaw(rate=8000).encode(np.round(TONE[: len(values)] * 32768) / 32768)
            )
    clip(tmp_path / "odd" / "slow.flac", 50, rate=4000)
    with pytest.raises(ValueError, match=r"clips of one rate, got 8000 a second in 1\.wav and 4000 in slow\.flac"):
        load(tmp_path)
    assert sequences(tmp_path, rate=4000).rate == 4000
    clip(tmp_path / "loose.ogg", 500)
    with pytest.raises(ValueError, match=r"got both: loose\.ogg and no/1\.wav; pattern="):
        load(tmp_path)


def test_what_names_of_clips_tell(tmp_path: Path) -> None:
    for digit in (7, 10):
        for speaker in ("jo", "al"):
            for take in range(3):
                clip(tmp_path / f"{digit}_{speaker}_{take}.wav", 10 * digit + take)
    data = sequences(tmp_path, pattern="{digit}_{speaker}_{_take}", fractions=(0.5, 0.25, 0.25))
    assert data.attributes == {"digit": ["7", "10"], "speaker": ["al", "jo"]}
    assert data.labels is not None
    for split, own in data.splits.items():
        assert data.labels[split][:, 0].tolist() == [int(length >= 100) for length in own.lengths]
    with pytest.raises(ValueError, match=r"10_al_0\.wav: expected a name like '\{digit\}-\{speaker\}', got '10_al_0'"):
        load(tmp_path, pattern="{digit}-{speaker}")
    for pattern in ("digit", "{digit", "{1}", "{a}_{a}"):
        with pytest.raises(ValueError, match="pattern: expected"):
            load(tmp_path, pattern=pattern)


def test_folders_of_clips_that_are_splits(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        for name in ("a", "b") if split == "train" else ("a", "c"):
            clip(tmp_path / split / name / "1.wav", 50)
    data = sequences(tmp_path)
    assert [len(own) for own in data.splits.values()] == [2, 2, 2]
    assert data.notes == ["class: expect little of c, which train does not have"]
    deep = sequences(tmp_path / "train", valid=tmp_path / "val", test=tmp_path / "test", pattern="{letter}/{_take}")
    assert deep.attributes == {"letter": ["a", "b", "c"]}
    with pytest.raises(ValueError, match=r"test: expected none, for .* holds a folder test"):
        load(tmp_path, test=tmp_path / "test")
    clip(tmp_path / "val" / "a" / "2.wav", 50, rate=4000)
    with pytest.raises(ValueError, match=r"val: expected clips of one rate"):
        load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="expected images"):
        load(tmp_path / "empty")


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


def pairs_of(data: Sequences, split: str) -> list[tuple[str, str]]:
    assert data.codec is not None
    assert data.source_codec is not None
    assert data.sources is not None
    sources = [data.source_codec.decode(values) for values in data.sources[split]]
    return list(zip(sources, texts_of(data, split), strict=True))


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


# --- named sets -----------------------------------------------------------------------------------------------------


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
    np.testing.assert_array_equal(archived.labels["train"], data.labels["train"])  # type: ignore[index]
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


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("tokenizers", "soundfile"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"tokenizers, which is not installed: pip install 'seriatim\[text\]'"):
        BytePairs.of(["a"], levels=256)
    with pytest.raises(ValueError, match=r"soundfile, which is not installed: pip install 'seriatim\[audio\]'"):
        write_audio(tmp_path / "a.wav", TONE, 8000)
    assert PAIRS.model_copy().decode([104, 105]) == PAIRS.decode([104, 105])  # reading needs no library
