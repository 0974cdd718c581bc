"""Sound files: wav, flac and ogg, read and written whole or block by block."""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from seriatim.data.checks import existing_file
from seriatim.data.codecs import MuLaw, Pcm
from seriatim.data.files import replacing

SUFFIXES = (".wav", ".flac", ".ogg")
_BLOCK = 1 << 16
_UNKNOWN = 0xFFFFFFFF  # the size in the header of a wav stream whose length is not known
_LAST_PAGE = 4  # flag of the page that ends an ogg stream


def read_audio(path: str | Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read a sound file as one channel.

    Args:
        path: a .wav, .flac or .ogg file; of several channels the mean is taken.
        rate: samples a second to resample to; the file's own if not given.

    Returns:
        The samples, (T,) float32 in [-1, 1], and their rate.

    Raises:
        ValueError: no such file, one that is no sound, cut off or empty (names it), or the extra `audio` is missing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tone.wav"
        >>> write_audio(file, np.sin(np.arange(800)), rate=8000)
        >>> samples, rate = read_audio(file, rate=16000)
        >>> samples.shape, rate
        ((1600,), 16000)
    """
    with _opened(path) as sound:
        samples = np.concatenate(list(_blocks(path, sound, _BLOCK)))
        own = int(sound.samplerate)
    return resample(samples, own, rate or own), rate or own


def read_blocks(path: str | Path, codec: MuLaw | Pcm, *, block: int = _BLOCK) -> Iterator[np.ndarray]:
    """Read a sound file of any length as values of a codec, in memory that does not grow with it.

    The values are those of the whole file: resampling by blocks gives what resampling it whole gives.

    Args:
        path: as in `read_audio`.
        codec: whose values and rate are wanted.
        block: samples of the file that are read at a time.

    Returns:
        Values (n,) of one stretch after the other.

    Raises:
        ValueError: as `read_audio`.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tone.wav"
        >>> write_audio(file, np.sin(np.arange(800)), rate=8000)
        >>> [len(values) for values in read_blocks(file, MuLaw(rate=8000), block=300)]
        [300, 300, 200]
    """
    if block < 1:
        raise ValueError(f"block: expected 1 or more samples, got {block}")
    with _opened(path) as sound:
        for samples in _resampled(_blocks(path, sound, block), int(sound.samplerate), codec.rate):
            yield codec.encode(samples)


def resample(samples: np.ndarray, source: int, target: int) -> np.ndarray:
    """Return samples (T,) at another rate, (ceil(T target / source),) float32, by a polyphase filter.

    Args:
        samples: in [-1, 1]; what overshoots after the filter is clipped.
        source: their rate.
        target: the rate wanted.

    Raises:
        ValueError: a rate that is not positive.

    Example:
        >>> resample(np.ones(100, dtype=np.float32), 8000, 4000).shape
        (50,)
    """
    parts = list(_resampled(iter([samples]), source, target))
    return np.concatenate(parts) if parts else samples[:0]


def write_audio(path: str | Path, samples: np.ndarray | Iterable[np.ndarray], rate: int) -> None:
    """Write a sound file of one channel, whole or not at all.

    A .wav or .flac file holds 16 bits a sample, those of `Pcm(rate)`; .ogg is lossy.

    Args:
        path: the file, ending in .wav, .flac or .ogg.
        samples: (T,) real numbers in [-1, 1], louder ones are clipped; or blocks of such, one after the other.
        rate: samples a second.

    Raises:
        ValueError: another ending, no samples or some that are no numbers, or the extra `audio` is missing.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "two.flac"
        >>> write_audio(file, [np.zeros(10), np.ones(10)], rate=8000)
        >>> read_audio(file)[0].sum().round(2)
        np.float32(10.0)
    """
    with opened_audio(path, rate) as write:
        for block in [samples] if isinstance(samples, np.ndarray) else samples:
            write(block)


@contextmanager
def opened_audio(path: str | Path, rate: int) -> Iterator[Callable[[np.ndarray], None]]:
    """Open a sound file as `write_audio` makes it, and yield what writes the next samples (n,), in [-1, 1].

    The file is there, whole, when the block ends well; else nothing is.

    Args:
        path: the file, ending in .wav, .flac or .ogg.
        rate: samples a second.

    Raises:
        ValueError: as `write_audio`.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "two.wav"
        >>> with opened_audio(file, 8000) as write:
        ...     write(np.zeros(10))
        ...     write(np.ones(10))
        >>> len(read_audio(file)[0]), file.exists()
        (20, True)
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: expected a name ending in {', '.join(SUFFIXES)}, got {path}")
    lossy = path.suffix.lower() == ".ogg"
    codec, soundfile, written = _pcm(rate), _library(), 0
    with replacing(path) as temporary:
        try:
            kind = {"format": path.suffix[1:].upper(), "subtype": "VORBIS" if lossy else "PCM_16"}
            with soundfile.SoundFile(temporary, "w", samplerate=rate, channels=1, **kind) as sound:

                def write(samples: np.ndarray) -> None:
                    nonlocal written
                    for start in range(0, len(samples), _BLOCK):  # libsndfile has overflowed on long ogg writes
                        part = _whole(codec, samples[start : start + _BLOCK], written)
                        sound.write(part / np.float32(1 << 15) if lossy else part)
                        written += len(part)

                yield write
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{path}: cannot be written: {error.error_string}") from None
        if not written:
            raise ValueError("samples: expected one or more, got none")


def stream_audio(out: BinaryIO, blocks: Iterable[np.ndarray], rate: int, *, header: bool = True) -> int:
    """Write sound to a pipe or a file as it is made, each block at once: 16 bits a sample, one channel.

    Args:
        out: to write to, such as `sys.stdout.buffer`.
        blocks: samples (n,) in [-1, 1], one stretch after the other.
        rate: samples a second.
        header: whether a wav header of unknown length goes first; without it the stream is raw (s16le).

    Returns:
        The number of samples written.

    Raises:
        ValueError: samples that are no numbers.

    Example:
        >>> import io
        >>> out = io.BytesIO()
        >>> stream_audio(out, [np.zeros(3), np.ones(2)], rate=8000, header=False), out.getvalue()[-4:]
        (5, b'\\xff\\x7f\\xff\\x7f')
    """
    codec, written = _pcm(rate), 0
    if header:
        size = struct.pack("<I", _UNKNOWN)
        form = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        out.write(b"RIFF" + size + b"WAVEfmt " + form + b"data" + size)
    for samples in blocks:
        out.write(_whole(codec, samples, written).astype("<i2").tobytes())
        out.flush()
        written += len(samples)
    return written


def _pcm(rate: int) -> Pcm:
    if rate < 1:
        raise ValueError(f"rate: expected 1 or more samples a second, got {rate}")
    return Pcm(rate=rate)


def _whole(codec: Pcm, samples: Any, before: int) -> np.ndarray:
    """Samples as int16."""
    x = np.asarray(samples)
    if x.ndim != 1 or x.dtype.kind != "f":
        raise ValueError(f"samples: expected (T,) real numbers in [-1, 1], got {x.dtype} {x.shape}")
    bad = ~np.isfinite(x)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"samples: expected finite numbers, got {x[at]} at sample {before + at}")
    return (codec.encode(x) - (1 << 15)).astype(np.int16)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The file as `soundfile.SoundFile`, known to be there and whole."""
    path, soundfile = existing_file(path), _library()
    try:
        with soundfile.SoundFile(path) as sound:
            _refuse_cut_off(path, sound.format)
            if not sound.frames:
                raise ValueError(f"{path}: expected sound, got no samples")
            yield sound
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: expected a whole wav, flac or ogg file, got: {error.error_string}") from None


def _blocks(path: str | Path, sound: Any, block: int) -> Iterator[np.ndarray]:
    """Samples of a file, the mean of its channels, block by block."""
    read = 0
    while read < sound.frames:
        part = sound.read(block, dtype="float32", always_2d=True)
        samples = part[:, 0] if part.shape[1] == 1 else part.mean(1)
        if not len(samples):
            raise ValueError(f"{path}: expected {sound.frames} samples, got {read}: the file is cut off")
        bad = ~np.isfinite(samples)
        if bad.any():
            raise ValueError(f"{path}: expected finite samples, got {samples[bad][0]} at {read + int(bad.argmax())}")
        read += len(samples)
        yield samples


def _refuse_cut_off(path: Path, form: str) -> None:
    """Refuse a file that lacks its end: libsndfile reads what is there of wav and ogg without a word."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if form in ("WAV", "WAVEX"):
            declared, start = _data_chunk(file)
            if declared not in (0, _UNKNOWN) and start + declared > size:
                raise ValueError(f"{path}: expected {declared} bytes of sound, got {size - start}: the file is cut off")
        elif form == "OGG":
            file.seek(max(0, size - (1 << 17)))  # a page has less than 2^16 bytes
            tail = file.read()
            page = tail.rfind(b"OggS")
            header = tail[page : page + 27]
            lengths = tail[page + 27 : page + 27 + header[26]] if len(header) == 27 else b""
            whole = len(header) == 27 and page + 27 + len(lengths) + sum(lengths) <= len(tail)
            if not whole or not header[5] & _LAST_PAGE:
                raise ValueError(f"{path}: expected the page that ends the sound, got none: the file is cut off")


def _data_chunk(file: BinaryIO) -> tuple[int, int]:
    """The size that a wav file gives for its sound, and where the sound begins."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        declared = int.from_bytes(head[4:], "little")
        if head[:4] == b"data":
            return declared, file.tell()
        file.seek(declared + declared % 2, os.SEEK_CUR)
    return 0, file.tell()


def _resampled(blocks: Iterator[np.ndarray], source: int, target: int) -> Iterator[np.ndarray]:
    """Samples at another rate, block by block; what they are does not depend on the blocks.

    The filter reaches `half` places to both sides at the rate up times the source. So an output is made once all
    inputs in its reach are there, and inputs are kept while outputs to come reach them.
    """
    if source < 1 or target < 1:
        raise ValueError(f"rate: expected 1 or more samples a second, got {min(source, target)}")
    if source == target:
        yield from blocks
        return
    from scipy.signal import firwin, resample_poly

    up, down = target // math.gcd(source, target), source // math.gcd(source, target)
    half = 10 * max(up, down)
    window = firwin(2 * half + 1, 1 / max(up, down), window=("kaiser", 5.0))
    kept, first, done = np.zeros(0), 0, 0  # inputs from number `first` on, a multiple of `down`; outputs given
    for samples in itertools.chain(blocks, [None]):  # None: the end
        if samples is not None:
            kept = np.concatenate([kept, samples])
        end = first + len(kept)
        ready = max(done, ((end - 1) * up - half) // down + 1) if samples is not None else -(-end * up // down)
        if ready > done:
            offset = first // down * up
            made = resample_poly(kept, up, down, window=window)[done - offset : ready - offset]
            yield np.clip(made, -1.0, 1.0).astype(np.float32)
            done = ready
        needed = max(0, -((half - done * down) // up))
        drop = max(first, needed // down * down) - first
        kept, first = kept[drop:], first + drop


def _library() -> Any:
    try:
        import soundfile
    except ImportError:
        raise ValueError("sound files need soundfile, which is not installed: pip install 'seriatim[audio]'") from None
    return soundfile
