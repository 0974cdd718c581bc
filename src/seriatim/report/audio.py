"""Audio on a page: players, waveforms, spectrograms, and surprise on the same time axis."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Collection, Sequence

import numpy as np
from markupsafe import Markup, escape

from seriatim.report.charts import WIDTH, ticks
from seriatim.report.figures import Figure
from seriatim.report.panels import (
    AXIS,
    GAP,
    LEFT,
    RIGHT,
    TITLE,
    Panel,
    along,
    checked,
    envelope,
    framed,
    numbered,
    scale_of_colours,
    surprise_panel,
)
from seriatim.report.pictures import data_uri, heat_colours, png_bytes

RANGE = 70.0
"""Decibels from the darkest to the brightest colour of a spectrogram."""

_QUIETEST = -120.0  # dB: silence is not minus infinity
_BLOCK = 2048  # frames that are transformed at once
_INNER = WIDTH - LEFT - RIGHT


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """Return audio as the bytes of a WAV file: 16-bit PCM, one channel.

    Args:
        samples: (T,) in [-1, 1]; what lies outside is clipped.
        rate: samples per second.

    Raises:
        ValueError: another shape, NaN, or a rate below 1.

    Example:
        >>> data = wav_bytes(np.array([0.0, 1.0, -1.0]), 8000)
        >>> data[:4], len(data), np.frombuffer(data[44:], dtype="<i2").tolist()
        (b'RIFF', 50, [0, 32767, -32767])
    """
    samples = _checked_samples(samples, rate)
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(int(rate))
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return stream.getvalue()


def player(samples: np.ndarray, rate: int, label: str = "") -> Markup:
    """Return a player for audio that holds its sound as a data URI.

    Args:
        samples: (T,) in [-1, 1].
        rate: samples per second.
        label: what is heard; shown below.

    Raises:
        ValueError: as `wav_bytes`.

    Example:
        >>> html = player(np.zeros(80), 8000, "a <click>")
        >>> "data:audio/wav;base64," in html, "a &lt;click&gt;" in html
        (True, True)
    """
    uri = "data:audio/wav;base64," + base64.b64encode(wav_bytes(samples, rate)).decode("ascii")
    caption = f"<figcaption>{escape(label)}</figcaption>" if label else ""
    name = escape(label or "audio")
    return Markup(
        f'<figure class="player"><audio controls preload="metadata" aria-label="{name}" src="{uri}"></audio>'
        f"{caption}</figure>"
    )


def spectrogram(samples: np.ndarray, rate: int, *, window: float = 0.032, hop: float | None = None) -> np.ndarray:
    """Return the power of audio over frequency and time, in decibels: a full-scale sine reads 0 dB.

    X_kn = 2 / sum(w) |sum_t w_t x_(n h + t) exp(-2 pi i k t / L)|, in 20 log10; w is a Hann window of L samples centred
    on n h, h the hop. Row k stands for k / L times the rate, column n for n h / rate seconds. Beyond its ends
    the audio is silent. A hop wider than the window looks at parts only: a picture of an hour needs no more columns
    than pixels.

    Args:
        samples: (T,) in [-1, 1].
        rate: samples per second.
        window: length of the window in seconds.
        hop: seconds from column to column; None: a quarter of the window.

    Returns:
        (L // 2 + 1, columns) in dB, -120 and more, lowest frequency first.

    Raises:
        ValueError: no samples, NaN, or a rate, window or hop that is not above 0.

    Example:
        >>> tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
        >>> found = spectrogram(tone, 8000)
        >>> found.shape, int(found[:, 60].argmax() * 8000 / 256), round(float(found[:, 60].max()), 1)
        ((129, 126), 1000, -6.0)
    """
    samples = _checked_samples(samples, rate)
    for name, value in (("window", window), ("hop", hop)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}: expected seconds above 0, got {value}")
    length = max(4, round(window * rate / 2) * 2)
    step = max(1, round(rate * hop)) if hop is not None else max(1, length // 4)
    weights = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    padded = np.pad(samples, length // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, length)[::step]
    blocks = [
        np.abs(np.fft.rfft(frames[start : start + _BLOCK] * weights, axis=1)) for start in range(0, len(frames), _BLOCK)
    ]
    amplitude = np.concatenate(blocks).T * (2 / weights.sum())
    return np.asarray(20 * np.log10(np.maximum(amplitude, 10 ** (_QUIETEST / 20))))


def spectrogram_picture(decibels: np.ndarray, loudest: float | None = None) -> np.ndarray:
    """Return a spectrogram as colours (F, T, 3) uint8, high frequencies above: dark is silent, pale yellow is loud.

    Args:
        decibels: (F, T), lowest frequency first, as `spectrogram` returns it.
        loudest: dB of the brightest colour, `RANGE` above the darkest; None: the largest of these. Pictures that are
            to be compared need the same.

    Raises:
        ValueError: not two axes.

    Example:
        >>> spectrogram_picture(np.array([[-70.0], [0.0]])).tolist()
        [[[252, 245, 190]], [[18, 20, 33]]]
    """
    if decibels.ndim != 2:
        raise ValueError(f"decibels: expected (frequencies, times), got shape {decibels.shape}")
    top = float(decibels.max()) if loudest is None else loudest
    return heat_colours(decibels[::-1] - (top - RANGE), RANGE)


def waveform_figure(samples: np.ndarray, rate: int) -> Figure:
    """Draw a waveform over seconds.

    Args:
        samples: (T,) in [-1, 1].
        rate: samples per second.

    Raises:
        ValueError: no samples, NaN, or a rate below 1.

    Example:
        >>> waveform_figure(np.sin(np.arange(800) / 9), 8000).svg()[:4]
        Markup('<svg')
    """
    samples = _checked_samples(samples, rate)
    figure = Figure(TITLE + 90 + AXIS, f"waveform of {_length(samples, rate)}")
    along(figure, _wave_panel(figure, samples, rate, TITLE, 90), "time, s")
    return figure


def spectrogram_figure(samples: np.ndarray, rate: int, *, seconds: float | None = None) -> Figure:
    """Draw a spectrogram over seconds.

    Args:
        samples: (T,) in [-1, 1].
        rate: samples per second.
        seconds: length of the time axis; None: that of the audio.

    Raises:
        ValueError: no samples, NaN, a rate below 1, or audio that is longer than `seconds`.

    Example:
        >>> "kHz" in spectrogram_figure(np.sin(np.arange(800) / 9), 8000).svg()
        True
    """
    samples = _checked_samples(samples, rate)
    if seconds is not None and len(samples) > seconds * rate * 1.001:
        raise ValueError(f"seconds: expected {len(samples) / rate:.3f} or more, got {seconds}")
    figure = Figure(TITLE + 150 + AXIS, f"spectrogram of {_length(samples, rate)}")
    along(figure, _spectrogram_panel(figure, samples, rate, TITLE, 150, seconds), "time, s")
    return figure


def surprise_figure(samples: np.ndarray, bits: np.ndarray, rate: int, *, window: float = 0.02) -> Figure:
    """Draw the surprise of audio under its waveform and its spectrogram, over the same seconds.

    `figure.svg()` is for a page, `figure.png()` and `figure.svg_file()` are files of their own.

    Args:
        samples: (T,) in [-1, 1].
        bits: (T,), -log2 p of each sample given those before it.
        rate: samples per second.
        window: of the moving mean of the bits, in seconds.

    Raises:
        ValueError: no samples, NaN, bits of another length, or a rate or window that is not above 0.

    Example:
        >>> figure = surprise_figure(np.sin(np.arange(800) / 9), np.ones(800), 8000)
        >>> "bits per sample, mean over 20 ms" in figure.svg(), figure.png()[1:4]
        (True, b'PNG')
    """
    samples = _checked_samples(samples, rate)
    bits = checked("bits", bits, length=len(samples))
    if not window > 0:
        raise ValueError(f"window: expected seconds above 0, got {window}")
    tops = np.cumsum([TITLE, 90 + TITLE + GAP, 150 + TITLE + GAP])
    figure = Figure(int(tops[-1]) + 130 + AXIS, f"surprise of {_length(samples, rate)} under its spectrogram")
    _wave_panel(figure, samples, rate, float(tops[0]), 90)
    _spectrogram_panel(figure, samples, rate, float(tops[1]), 150, None)
    steps = max(1, round(window * rate))
    title = f"surprise, bits per sample, mean over {1000 * window:g} ms"
    panel = surprise_panel(figure, (float(tops[2]), 130), (0, len(samples) / rate), bits, title, steps)
    along(figure, panel, "time, s")
    return figure


def clips(items: Sequence[tuple[str, np.ndarray]], rate: int, *, lines: Collection[int] = ()) -> Markup:
    """Return clips side by side, each a spectrogram over a player; time and loudness have one scale in all.

    Args:
        items: label and samples (T,) of each.
        rate: samples per second.
        lines: numbers of those that begin a new line.

    Raises:
        ValueError: no clips, or as `player`.

    Example:
        >>> html = clips([("real", np.zeros(800)), ("sampled", np.ones(400))], 8000)
        >>> html.count("<audio"), html.count("<img")
        (2, 2)
    """
    if not items:
        raise ValueError("items: expected one clip or more, got none")
    longest = max(len(samples) for _, samples in items)
    found = [spectrogram(samples, rate, hop=_hop(longest / rate, 480)) for _, samples in items]
    loudest = max(float(decibels.max()) for decibels in found)
    shown = []
    for number, ((label, samples), decibels) in enumerate(zip(items, found, strict=True)):
        uri = data_uri(png_bytes(spectrogram_picture(decibels, loudest)))
        start = ' style="grid-column-start:1"' if number in lines else ""
        shown.append(
            f'<div class="clip"{start}><div class="strip"><img src="{uri}" alt="spectrogram, {escape(label)}" '
            f'style="width:{100 * len(samples) / longest:.1f}%"></div>{player(samples, rate, label)}</div>'
        )
    scale = (
        f"Spectrograms: 0 to {rate / 2000:g} kHz upward, {longest / rate:.2f} s across, colours from "
        f"{loudest - RANGE:.0f} to {loudest:.0f} dB of full scale."
    ).replace("-", "−")
    return Markup(f'<div class="clips">{"".join(shown)}</div><p class="caption">{scale}</p>')


def _wave_panel(figure: Figure, samples: np.ndarray, rate: int, top: float, height: float) -> Panel:
    largest = max(float(np.abs(samples).max()), 1e-3)
    panel = Panel(top, height, 0, len(samples) / rate, -largest, largest)
    framed(figure, panel, "waveform", numbered([float(f"{-largest:.2g}"), 0, float(f"{largest:.2g}")]))
    columns = min(len(samples), round(panel.width))
    low, high = envelope(samples, columns)
    x = (np.arange(columns) + 0.5) / columns * panel.x_high
    upper, lower = panel.points(x, high), panel.points(x, low)
    upper[:, 1] -= 0.4  # a line of no thickness would be invisible
    lower[:, 1] += 0.4
    figure.area(np.concatenate([upper, lower[::-1]]), "wave")
    return panel


def _spectrogram_panel(
    figure: Figure, samples: np.ndarray, rate: int, top: float, height: float, seconds: float | None
) -> Panel:
    own = len(samples) / rate
    panel = Panel(top, height, 0, seconds or own, 0, rate / 2000)
    decibels = spectrogram(samples, rate, hop=_hop(panel.x_high, 2 * _INNER))
    colours = spectrogram_picture(decibels)
    framed(figure, panel, "spectrogram, kHz", numbered(ticks(0, panel.y_high, 4)), lines=False)
    left, _, width, _ = panel.box
    figure.picture(colours, (left, top, width * own / panel.x_high, height))
    loudest = float(decibels.max())
    words = f"{loudest - RANGE:.0f} dB".replace("-", "−"), f"{loudest:.0f} dB of full scale".replace("-", "−")
    scale_of_colours(figure, top - 7, *words)
    return panel


def _hop(seconds: float, columns: int) -> float:
    """Seconds from column to column of a picture that is about so many columns wide."""
    return max(0.002, seconds / columns)


def _length(samples: np.ndarray, rate: int) -> str:
    return f"{len(samples) / rate:.3g} s of audio"


def _checked_samples(samples: np.ndarray, rate: float) -> np.ndarray:
    samples = checked("samples", samples)
    if np.isinf(samples).any():
        raise ValueError(f"samples: expected numbers, got inf at sample {int(np.isinf(samples).argmax())}")
    if not rate >= 1:
        raise ValueError(f"rate: expected samples per second, 1 or more, got {rate}")
    return samples
