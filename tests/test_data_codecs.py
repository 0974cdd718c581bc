"""Codecs: what they read comes back, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequence_checks import VERSE
from seriatim.data import (
    BytePairs,
    Bytes,
    Characters,
    MuLaw,
    Pcm,
    Roll,
    Standardised,
    codec_of,
)

pytest.importorskip("tokenizers")

RNG = np.random.default_rng(0)
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
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
