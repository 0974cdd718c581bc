"""Grey values to fewer levels, and to black and white."""

from __future__ import annotations

import numpy as np

from seriatim.data.splits import random_words

_BLOCK = 1 << 22  # pixels drawn at a time: bounds the memory


def quantise(x: np.ndarray, levels: int) -> np.ndarray:
    """Map grey values onto `levels` equal steps.

        q = floor(levels * v),   v = x / 256 for uint8,   v = x (and 1 counts as just below 1) for floats

    Args:
        x: any shape; uint8 in 0..255, or floats in [0, 1].
        levels: number of steps, 2..256.

    Returns:
        uint8 of the same shape, in 0..levels-1.

    Raises:
        ValueError: levels outside 2..256, or floats outside [0, 1].
        TypeError: any other dtype.

    Example:
        >>> quantise(np.array([0, 127, 128, 255], dtype=np.uint8), 4).tolist()
        [0, 1, 2, 3]
    """
    if not 2 <= levels <= 256:
        raise ValueError(f"levels: expected 2..256, got {levels}")
    if x.dtype == np.uint8:
        return (x.astype(np.uint16) * levels // 256).astype(np.uint8)
    if x.dtype.kind != "f":
        raise TypeError(f"x: expected uint8 or floats, got {x.dtype}")
    if x.size and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"x: expected floats in [0, 1], got {x.min():g}..{x.max():g}")
    return np.minimum(np.floor(x * levels), levels - 1).astype(np.uint8)


def parse_binarise(how: str) -> float | None:
    """Return the threshold in "threshold:T", or None for "sampled" and "dynamic".

    Raises:
        ValueError: anything else, or a threshold outside (0, 1].

    Example:
        >>> parse_binarise("threshold:0.5"), parse_binarise("dynamic")
        (0.5, None)
    """
    if how in ("sampled", "dynamic"):
        return None
    word, _, number = how.partition(":")
    try:
        threshold = float(number)
    except ValueError:
        threshold = -1.0
    if word != "threshold" or not 0 < threshold <= 1:
        raise ValueError(
            "binarise: expected 'threshold:T' with T in (0, 1], 'sampled' (one seeded draw) or 'dynamic' "
            f"(drawn anew each epoch), got {how!r}"
        )
    return threshold


def binarise(x: np.ndarray, how: str, *, levels: int, seed: int = 0, stream: int = 0) -> np.ndarray:
    """Turn grey values into black and white.

        "threshold:T":           b = [x / (levels - 1) >= T]
        "sampled" or "dynamic":  b ~ Bernoulli(x / (levels - 1)), a function of (seed, stream)

    Args:
        x: integers in 0..levels-1, any shape.
        how: the rule; "sampled" and "dynamic" differ only in who calls again.
        levels: number of grey levels.
        seed: of the draw.
        stream: one per split and epoch, so that draws differ.

    Returns:
        uint8 in {0, 1}, of the same shape.

    Raises:
        ValueError: an unknown rule.

    Example:
        >>> binarise(np.array([0, 7, 8, 15]), "threshold:0.5", levels=16).tolist()
        [0, 0, 1, 1]
    """
    threshold = parse_binarise(how)
    if threshold is not None:
        return (x >= threshold * (levels - 1)).astype(np.uint8)
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty(flat.shape, dtype=np.uint8)
    for block, start in enumerate(range(0, len(flat), _BLOCK)):
        part = flat[start : start + _BLOCK]
        words = random_words(len(part), seed=seed, stream=(stream << 32) + block)
        uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        out[start : start + _BLOCK] = uniform * (levels - 1) < part
    return out.reshape(x.shape)


def how_binarised(how: str, seed: int) -> str:
    """Say how a data set was binarised: the rule, what is drawn when, and the seed of the draws.

    Example:
        >>> how_binarised("dynamic", 3)
        'dynamic (train drawn anew each epoch, valid and test once, seed 3)'
    """
    if parse_binarise(how) is not None:
        return how
    drawn = "each split drawn once" if how == "sampled" else "train drawn anew each epoch, valid and test once"
    return f"{how} ({drawn}, seed {seed})"


def how_drawn(how: str, seed: int) -> str:
    """Say how the rows of a file were binarised: the rule, and the seed of the one draw.

    Example:
        >>> how_drawn("dynamic", 3), how_drawn("threshold:0.5", 3)
        ('dynamic (these rows drawn once, seed 3)', 'threshold:0.5')
    """
    return how if parse_binarise(how) is not None else f"{how} (these rows drawn once, seed {seed})"
