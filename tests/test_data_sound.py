"""Sound: files that come back, blocks that are the whole, folders of clips."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import resample_poly

from sequence_checks import TONE, sequences
from seriatim.data import (
    MuLaw,
    Pcm,
    load,
    read_audio,
    read_blocks,
    stream_audio,
    write_audio,
)

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("tokenizers")

RNG = np.random.default_rng(0)


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
