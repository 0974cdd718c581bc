"""Codecs: between texts, sounds, rolls and measurements, and the values of a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from seriatim.data.text_codecs import BytePairs, Bytes, Characters, checked_values, discrete_dtype


class _Sound(BaseModel):
    """Samples in [-1, 1] as whole numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int = Field(gt=0, description="samples a second")

    @property
    def unit(self) -> str:
        """What one value is."""
        return "sample"


class MuLaw(_Sound):
    """Sound in few levels, fine near silence and coarse where it is loud.

        q = floor((f(x) + 1) / 2 mu + 1/2),   f(x) = sgn(x) log(1 + mu |x|) / log(1 + mu),   mu = levels - 1

    Args:
        rate: samples a second.
        levels: number of values, 2 to 65536.

    Reference: Recommendation G.711, Pulse code modulation of voice frequencies (ITU-T, 1988), its continuous law.

    Example:
        >>> codec = MuLaw(rate=8000)
        >>> codec.encode(np.array([-1.0, -0.01, 0.0, 0.01, 1.0]))
        array([  0,  98, 128, 157, 255], dtype=uint8)
        >>> codec.decode([0, 128, 255]).round(3)
        array([-1.,  0.,  1.], dtype=float32)
    """

    codec: Literal["mu-law"] = "mu-law"
    levels: int = Field(default=256, ge=2, le=1 << 16, description="number of values")

    def encode(self, raw: Any) -> np.ndarray:
        """Return the values (T,) of samples (T,) in [-1, 1]; louder ones are clipped."""
        x, mu = _samples(raw), self.levels - 1
        y = np.sign(x) * np.log1p(mu * np.abs(x)) / math.log1p(mu)
        return np.floor((y + 1) / 2 * mu + 0.5).astype(discrete_dtype(self.levels))

    def decode(self, values: Any) -> np.ndarray:
        """Return the samples (T,) float32 of values (T,)."""
        mu = self.levels - 1
        y = 2 * checked_values(values, self.levels).astype(np.float64) / mu - 1
        return (np.sign(y) * np.expm1(np.abs(y) * math.log1p(mu)) / mu).astype(np.float32)


class Pcm(_Sound):
    """Sound in equal steps: signed whole numbers as in a WAV file, moved up to begin at 0.

        q = round(2^(bits - 1) x) + 2^(bits - 1)

    Args:
        rate: samples a second.
        bits: of a sample, 2 to 16.

    Example:
        >>> codec = Pcm(rate=16000)
        >>> codec.encode(np.array([-1.0, 0.0, 0.5, 1.0])), codec.decode([0, 32768])
        (array([    0, 32768, 49152, 65535], dtype=int32), array([-1.,  0.], dtype=float32))
    """

    codec: Literal["pcm"] = "pcm"
    bits: int = Field(default=16, ge=2, le=16, description="of a sample")

    @property
    def levels(self) -> int:
        """Number of values."""
        return 1 << self.bits

    def encode(self, raw: Any) -> np.ndarray:
        """Return the values (T,) of samples (T,) in [-1, 1]; louder ones are clipped."""
        half = self.levels // 2
        whole = np.clip(np.round(_samples(raw) * half), -half, half - 1)
        return (whole + half).astype(discrete_dtype(self.levels))

    def decode(self, values: Any) -> np.ndarray:
        """Return the samples (T,) float32 of values (T,)."""
        half = self.levels // 2
        return ((checked_values(values, self.levels).astype(np.float64) - half) / half).astype(np.float32)


class Standardised(BaseModel):
    """Measurements less their mean, in units of their standard deviation.

        z = (x - mean) / scale,     log p(x) = log p(z) - sum of log scale

    Args:
        mean: of each channel.
        scale: of each channel, > 0.
        names: of the channels.

    Example:
        >>> codec = Standardised(mean=[20.0], scale=[5.0], names=["temperature"])
        >>> codec.encode([15.0, 20.0, 30.0]), codec.decode([0.0, 1.0])
        (array([-1.,  0.,  2.], dtype=float32), array([20., 25.]))
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["standardised"] = "standardised"
    mean: tuple[float, ...] = Field(min_length=1, description="of each channel")
    scale: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="of each channel")
    names: tuple[str, ...] = Field(description="of the channels")

    @model_validator(mode="after")
    def _agree(self) -> Standardised:
        if not len(self.mean) == len(self.scale) == len(self.names):
            raise ValueError(
                f"mean, scale, names: expected one each for every channel, got {len(self.mean)}, {len(self.scale)} "
                f"and {len(self.names)}"
            )
        return self

    @property
    def unit(self) -> str:
        """What one value is."""
        return "step"

    @property
    def levels(self) -> None:
        """Number of values: real numbers have none."""
        return None

    @property
    def log_scale(self) -> float:
        """Sum of the channels' log scales: what to take from the log density of each step to have it in raw units."""
        return sum(math.log(scale) for scale in self.scale)

    def encode(self, raw: Any) -> np.ndarray:
        """Return the values, float32 (T,) of one channel or (T, C) of several, of measurements of that shape."""
        x = self._shaped("raw", raw)
        if not np.isfinite(x).all():
            raise ValueError(f"raw: expected finite numbers, got {x[~np.isfinite(x)][0]} at step {_first(x)}")
        return ((x - self._of(self.mean)) / self._of(self.scale)).astype(np.float32)

    def decode(self, values: Any) -> np.ndarray:
        """Return the measurements, float64 (T,) or (T, C), of values of that shape."""
        return self._shaped("values", values) * self._of(self.scale) + self._of(self.mean)

    def _shaped(self, name: str, x: Any) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        wanted = () if len(self.names) == 1 else (len(self.names),)
        if not x.ndim or x.shape[1:] != wanted:
            raise ValueError(f"{name}: expected shape (T, {', '.join(map(str, wanted))}), got {x.shape}")
        return x

    def _of(self, numbers: tuple[float, ...]) -> Any:
        return numbers[0] if len(numbers) == 1 else np.array(numbers)


class Roll(BaseModel):
    """Piano rolls: a step is a set of notes that sound together.

    Args:
        notes: how many notes a step tells of.
        lowest: the MIDI pitch of the first; 21 is the lowest A of a piano, 60 the middle C.
        rate: steps a second, for playing: archives of rolls do not tell their tempo.

    Example:
        >>> roll = Roll()
        >>> values = roll.encode([[60, 64, 67], []])
        >>> values.shape, roll.decode(values)
        ((2, 88), [(60, 64, 67), ()])
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["roll"] = "roll"
    notes: int = Field(default=88, ge=1, description="notes a step tells of")
    lowest: int = Field(default=21, ge=0, le=127, description="MIDI pitch of the first")
    rate: float = Field(default=4.0, gt=0, description="steps a second")

    @property
    def unit(self) -> str:
        """What one value is."""
        return "step"

    @property
    def levels(self) -> int:
        """Number of values of a note: it sounds or not."""
        return 2

    def encode(self, raw: Sequence[Iterable[int]]) -> np.ndarray:
        """Return the values (T, notes) uint8 of T sets of MIDI pitches."""
        values = np.zeros((len(raw), self.notes), dtype=np.uint8)
        for step, pitches in enumerate(raw):
            for pitch in pitches:
                if not self.lowest <= pitch < self.lowest + self.notes:
                    top = self.lowest + self.notes - 1
                    raise ValueError(f"raw: expected pitches {self.lowest}..{top}, got {pitch} at step {step}")
                values[step, pitch - self.lowest] = 1
        return values

    def decode(self, values: Any) -> list[tuple[int, ...]]:
        """Return the MIDI pitches of each step of values (T, notes)."""
        x = np.asarray(values)
        if x.ndim != 2 or x.shape[1] != self.notes:
            raise ValueError(f"values: expected shape (T, {self.notes}), got {x.shape}")
        checked_values(x.ravel(), 2)
        return [tuple((np.flatnonzero(step) + self.lowest).tolist()) for step in x]


AnyCodec = Bytes | Characters | BytePairs | MuLaw | Pcm | Standardised | Roll
_CODECS: TypeAdapter[AnyCodec] = TypeAdapter(Annotated[AnyCodec, Field(discriminator="codec")])


def codec_of(fields: Mapping[str, Any]) -> AnyCodec:
    """Make a codec again of what its `model_dump` returned.

    Raises:
        ValueError: an unknown codec, or fields that do not fit.

    Example:
        >>> codec_of({"codec": "mu-law", "rate": 8000})
        MuLaw(rate=8000, codec='mu-law', levels=256)
        >>> codec_of(Characters(symbols="ab").model_dump()).encode("abba")
        array([0, 1, 1, 0], dtype=uint8)
    """
    try:
        return _CODECS.validate_python(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "codec"
        raise ValueError(f"{place}: {first['msg']}, got {first['input']!r}") from None


def _samples(raw: Any) -> np.ndarray:
    """Samples as float64 within [-1, 1]."""
    x = np.asarray(raw)
    if x.ndim != 1 or x.dtype.kind != "f":
        raise ValueError(f"raw: expected samples (T,) that are real numbers in [-1, 1], got {x.dtype} {x.shape}")
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"raw: expected finite samples, got {x[~np.isfinite(x)][0]} at sample {_first(x)}")
    return np.clip(x, -1.0, 1.0)


def _first(x: np.ndarray) -> int:
    """The step of the first number that is not finite."""
    return int(np.argwhere(~np.isfinite(x))[0][0])
