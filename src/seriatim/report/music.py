"""Piano rolls on a page: as pictures, with the surprise of each step below, and as sound."""

from __future__ import annotations

import numpy as np

from seriatim.report.charts import WIDTH
from seriatim.report.figures import Figure
from seriatim.report.panels import AXIS, GAP, LEFT, RIGHT, TITLE, Panel, along, framed, surprise_panel
from seriatim.report.pictures import grey_colours, heat_colours

LOWEST = 21
"""MIDI number of the first note of a roll: A0, the lowest key of a piano."""

NEWS = 6.0
"""Bits from which a note is drawn as a surprise: p = 1/64."""

_PARTIALS, _DECAY = 8, 2.2  # of a note; the decay of its lowest partial per second
_ATTACK, _RELEASE = 0.006, 0.08  # seconds
_LANE = 4.5  # pixels of a note in height, at most
_HEIGHT = 260  # pixels of a roll, at most


def roll_picture(roll: np.ndarray, bits: np.ndarray | None = None, *, scale: int = 1) -> np.ndarray:
    """Return a piano roll as colours, time to the right, pitch upward: its notes light on dark, or the bits of each.

    Args:
        roll: (T, N) of 0 and 1, lowest note first (88 for a piano).
        bits: (T, N), -log2 p of each note, sounding or silent; None: draw the notes.
        scale: side of the square that one value becomes.

    Returns:
        (N * scale, T * scale, 3) uint8; with bits the brightest colour stands for the largest of them, 1 or more.

    Raises:
        ValueError: a roll of another shape or with other values, or bits of another shape.

    Example:
        >>> roll_picture(np.array([[1, 0], [0, 0]]))[:, :, 0].tolist()
        [[24, 24], [244, 24]]
    """
    roll = _checked_roll(roll)
    if bits is None:
        colours = grey_colours(roll.T[::-1].astype(np.uint8), 2)
    else:
        bits = _checked_bits(bits, roll)
        if bits.ndim != 2:
            raise ValueError(f"bits: expected {roll.shape}, one for each note, got {bits.shape}")
        colours = heat_colours(bits.T[::-1], max(1.0, float(bits[np.isfinite(bits)].max(initial=0))))
    return colours.repeat(scale, axis=0).repeat(scale, axis=1)


def roll_figure(
    roll: np.ndarray,
    bits: np.ndarray | None = None,
    *,
    steps_per_second: float | None = None,
    lowest: int = LOWEST,
    window: int = 1,
) -> Figure:
    """Draw a piano roll, and the surprise of each step below it.

    Only the octaves that sound are drawn. Bits of single notes (T, N) are summed for the lower part, and notes that
    cost `NEWS` bits or more are drawn in the colour of surprise.

    Args:
        roll: (T, N) of 0 and 1, lowest note first.
        bits: (T,) of each step, or (T, N) of each note; None: the roll alone.
        steps_per_second: makes the axis one of seconds; None: of steps.
        lowest: MIDI number of the first note.
        window: of the moving mean of the bits, in steps.

    Raises:
        ValueError: a roll of another shape or with other values, bits of another shape or NaN, or a rate or window
            that is not above 0.

    Example:
        >>> roll = np.zeros((16, 88))
        >>> roll[:8, 39] = 1
        >>> svg = roll_figure(roll, np.ones(16)).svg()
        >>> "C4" in svg, "bits per step" in svg
        (True, True)
    """
    if window < 1:
        raise ValueError(f"window: expected 1 step or more, got {window}")
    roll = _checked_roll(roll)
    bits = None if bits is None else _checked_bits(bits, roll)
    if steps_per_second is not None and not steps_per_second > 0:
        raise ValueError(f"steps_per_second: expected a number above 0, got {steps_per_second}")
    per_note = bits if bits is not None and bits.ndim == 2 else None
    per_step = per_note.sum(1) if per_note is not None else bits
    span = len(roll) / (steps_per_second or 1)
    low, high = _octaves(roll, lowest)
    lanes = high - low
    height = min(_HEIGHT, round(lanes * _LANE))
    figure = Figure(
        TITLE + height + (0 if per_step is None else GAP + TITLE + 100) + AXIS,
        f"piano roll of {len(roll):,} steps" + ("" if per_step is None else " over its surprise"),
    )
    panel = Panel(TITLE, height, 0, span, low, high)
    _draw_notes(figure, panel, roll, per_note, lowest)
    if per_step is not None:
        title = "surprise, bits per step" + (f", mean over {window:,} steps" if window > 1 else "")
        panel = surprise_panel(figure, (panel.bottom + GAP + TITLE, 100), (0, span), per_step, title, window)
    along(figure, panel, "step" if steps_per_second is None else "time, s", whole=steps_per_second is None)
    return figure


def synthesise(roll: np.ndarray, steps_per_second: float, rate: int = 16000, *, lowest: int = LOWEST) -> np.ndarray:
    """Return a piano roll as sound: each note a decaying sum of partials, as of a plucked string.

    x(t) = sum_k exp(-2.2 k^(1/2) t) / k sin(2 pi k f t), f = 440 * 2^((m - 69) / 12) Hz, partials below half the rate.
    A roll does not tell a long note from one that is struck again, so neighbouring steps are one note.

    Args:
        roll: (T, N) of 0 and 1, lowest note first.
        steps_per_second: how fast it is played.
        rate: samples per second.
        lowest: MIDI number of the first note.

    Returns:
        (samples,) float32 in [-0.9, 0.9]; a little longer than the roll, so that the last notes die away.

    Raises:
        ValueError: a roll of another shape or with other values, or a rate that is not above 0.

    Example:
        >>> roll = np.zeros((4, 88))
        >>> roll[:2, 48] = 1
        >>> sound = synthesise(roll, 2.0, 8000)
        >>> spectrum = np.abs(np.fft.rfft(sound[:8000]))
        >>> len(sound), int(spectrum.argmax())
        (16640, 440)
    """
    roll = _checked_roll(roll)
    if not steps_per_second > 0:
        raise ValueError(f"steps_per_second: expected a number above 0, got {steps_per_second}")
    if not rate >= 1:
        raise ValueError(f"rate: expected samples per second, 1 or more, got {rate}")
    step = rate / steps_per_second
    release = round(_RELEASE * rate)
    sound = np.zeros(round(len(roll) * step) + release)
    for note, start, stop in _runs(roll):
        first, last = round(start * step), round(stop * step)
        frequency = 440 * 2 ** ((lowest + note - 69) / 12)
        sound[first : last + release] += _tone(frequency, last - first, release, rate)
    peak = float(np.abs(sound).max())
    return (sound * (0.9 / peak if peak > 0 else 1.0)).astype(np.float32)


def note_name(pitch: int) -> str:
    """Return the name of a MIDI pitch.

    Example:
        >>> note_name(60), note_name(70)
        ('C4', 'A#4')
    """
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    return f"{names[pitch % 12]}{pitch // 12 - 1}"


def _tone(frequency: float, length: int, release: int, rate: int) -> np.ndarray:
    time = np.arange(length + release) / rate
    tone = np.zeros(len(time))
    for k in range(1, _PARTIALS + 1):
        if k * frequency < rate / 2:
            tone += np.exp(-_DECAY * k**0.5 * time) / k * np.sin(2 * np.pi * k * frequency * time)
    attack = np.minimum(1, time / _ATTACK)
    fade = np.minimum(1, (len(time) - np.arange(len(time))) / release) ** 2
    return tone * attack * fade


def _runs(roll: np.ndarray) -> np.ndarray:
    """Return the notes that sound (R, 3): which, its first step, and the step after its last."""
    padded = np.pad(roll.T.astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(padded, axis=1)
    note, start = np.nonzero(change == 1)
    _, stop = np.nonzero(change == -1)  # row by row, so in the order of the starts
    return np.stack([note, start, stop], axis=1)


def _draw_notes(figure: Figure, panel: Panel, roll: np.ndarray, bits: np.ndarray | None, lowest: int) -> None:
    low, high = int(panel.y_low), int(panel.y_high)
    octaves = [n for n in range(low, high + 1) if (lowest + n) % 12 == 0]
    title = "notes" if bits is None else f"notes; those of {NEWS:g} bits or more stand out"
    framed(figure, panel, title, [(n, f"C{(lowest + n) // 12 - 1}") for n in octaves])
    lane = panel.height / (high - low)
    per_step = (WIDTH - LEFT - RIGHT) / len(roll)
    runs = _runs(roll)

    def boxes(notes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        gap = min(0.8, 0.2 * per_step)  # so that a note ends before the next one begins
        width = np.maximum((stops - starts) * per_step - gap, 0.4)
        left, top = panel.left + starts * per_step, panel.bottom - (notes - low + 1) * lane
        return np.stack([left, top + 0.06 * lane, width, np.full(len(notes), 0.88 * lane)], axis=1)

    figure.boxes(boxes(*runs.T), "note")
    if bits is not None:
        step, note = np.nonzero(roll & (bits >= NEWS))
        figure.boxes(boxes(note, step, step + 1), "note-news")


def _octaves(roll: np.ndarray, lowest: int) -> tuple[int, int]:
    """Return the first note that is drawn and the one after the last: whole octaves that hold all that sounds."""
    sounding = np.flatnonzero(roll.any(0))
    if not len(sounding):
        return 0, roll.shape[1]
    low = (int(sounding[0]) + lowest) // 12 * 12 - lowest
    high = -(-(int(sounding[-1]) + 1 + lowest) // 12) * 12 - lowest
    return max(0, low), min(roll.shape[1], high)


def _checked_roll(roll: np.ndarray) -> np.ndarray:
    roll = np.asarray(roll)
    if roll.ndim != 2 or not roll.size:
        raise ValueError(f"roll: expected (steps, notes), one or more of each, got shape {roll.shape}")
    if not np.isin(roll, (0, 1)).all():
        raise ValueError(f"roll: expected 0 and 1, got values from {roll.min()} to {roll.max()}")
    return roll.astype(bool)


def _checked_bits(bits: np.ndarray, roll: np.ndarray) -> np.ndarray:
    bits = np.asarray(bits, dtype=np.float64)
    if bits.shape not in (roll.shape, roll.shape[:1]):
        raise ValueError(f"bits: expected {roll.shape[:1]} or {roll.shape}, got {bits.shape}")
    if np.isnan(bits).any() or np.isneginf(bits).any():
        raise ValueError("bits: expected numbers, got NaN or minus infinity")
    return bits
