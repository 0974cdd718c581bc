"""`evaluate`: how probable a model makes data it has not seen, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from seriatim.model import AutoregressiveModel
from seriatim.tasks.rows import Joint, as_joint, as_rows, map_rows

_BLOCK = 1 << 22  # draws of the bootstrap at a time


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The score of a model on rows of data.

        nats = -1/N sum_n log p(x_n | c_n),    bits per dimension = nats / (D log 2)

    Attributes:
        log_prob: (N,) float64, log p of each row in nats.
        num_dimensions: D, the number of values of one row.
        interval: of `nats`, a percentile bootstrap interval over rows.
        confidence: of the interval, e.g. 0.95.

    Example:
        >>> Evaluation(np.array([-2.0, -4.0]), 3, (2.0, 4.0), 0.95).nats
        3.0
    """

    log_prob: np.ndarray
    num_dimensions: int
    interval: tuple[float, float]
    confidence: float

    @property
    def nats(self) -> float:
        """The mean of -log p(x), in nats per row."""
        return -float(self.log_prob.mean())

    @property
    def bits_per_dim(self) -> float:
        """The mean of -log2 p(x) / D, in bits per dimension."""
        return float(bits_per_dim(self.nats, self.num_dimensions))

    @property
    def bits_per_dim_interval(self) -> tuple[float, float]:
        """The interval of `bits_per_dim`."""
        low, high = (float(bits_per_dim(end, self.num_dimensions)) for end in self.interval)
        return low, high

    def __str__(self) -> str:
        (low, high), (lower, upper) = self.interval, self.bits_per_dim_interval
        return (
            f"{self.nats:.3f} nats per row [{low:.3f}, {high:.3f}], "
            f"{self.bits_per_dim:.4f} bits per dimension [{lower:.4f}, {upper:.4f}] "
            f"({len(self.log_prob)} rows, {self.confidence:.0%} bootstrap interval)"
        )


def evaluate(
    model: AutoregressiveModel | Joint,
    x: Any,
    context: Any = None,
    *,
    batch_size: int = 256,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Evaluation:
    """Score rows under a model: mean nats and bits per dimension, with a bootstrap interval over rows.

        nats = -1/N sum_n log p(x_n | c_n)

    Args:
        model: a model, or a distribution of one (an ensemble of orders too) of batch shape () or (N,).
        x: (N, *event_shape), an array or a tensor; a data frame or `Table` for a model of a table.
        context: (N, *context event) for a conditional model.
        batch_size: rows at a time.
        num_resamples: how many times the rows are drawn anew, with replacement.
        confidence: of the interval.
        seed: of the bootstrap.

    Raises:
        ValueError: no rows, a wrong shape, or values that the model's head refuses.

    Example:
        >>> import torch
        >>> from seriatim.models import FVSBN
        >>> result = evaluate(FVSBN((3,)), torch.ones(10, 3))
        >>> result.log_prob.shape, result.num_dimensions
        ((10,), 3)
    """
    joint = as_joint(model, context)
    rows = as_rows(x, joint)
    if not len(rows):
        raise ValueError("x: expected one row or more, got none")
    log_prob = map_rows(joint, rows, lambda p, part: p.log_prob(part), batch_size).double().numpy()
    interval = bootstrap_interval(-log_prob, num_resamples=num_resamples, confidence=confidence, seed=seed)
    return Evaluation(log_prob, math.prod(joint.event_shape), interval, confidence)


def bits_per_dim(nats: Any, num_dimensions: int) -> Any:
    """Turn nats per row into bits per dimension, nats / (D log 2).

    Example:
        >>> round(bits_per_dim(8 * math.log(2), 8), 12)
        1.0
    """
    return nats / (num_dimensions * math.log(2))


def bootstrap_interval(
    values: np.ndarray, *, num_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of values (N,).

    Args:
        values: (N,) numbers, N >= 1.
        num_resamples: how many times N of them are drawn with replacement.
        confidence: in (0, 1).
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: no values, or a number out of its range.

    Reference: An Introduction to the Bootstrap (Efron, Tibshirani, 1993).

    Example:
        >>> bootstrap_interval(np.full(5, 2.0))
        (2.0, 2.0)
    """
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values: expected shape (N,) with N >= 1, got {values.shape}")
    if num_resamples < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"expected num_resamples >= 1 and confidence in (0, 1), got num_resamples={num_resamples}, "
            f"confidence={confidence}"
        )
    generator = np.random.Generator(np.random.Philox(seed))
    means = np.empty(num_resamples)
    step = max(1, _BLOCK // len(values))
    for first in range(0, num_resamples, step):
        stop = min(first + step, num_resamples)
        means[first:stop] = values[generator.integers(len(values), size=(stop - first, len(values)))].mean(1)
    # No interpolation: between two infinities there is none.
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


def paired_difference(
    log_prob: np.ndarray, other: np.ndarray, *, num_resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Return how many nats per row a model gains over another on the same rows, and the interval of the gain.

        gain = 1/N sum_n (log p(x_n) - log q(x_n))

    Rows are drawn in pairs, so what makes a row hard for both drops out; two intervals that overlap may still hide
    a sure difference.

    Args:
        log_prob: (N,) log p of each row, nats.
        other: (N,) log q of the same rows.

    Raises:
        ValueError: different numbers of rows.

    Example:
        >>> paired_difference(np.array([-1.0, -5.0]), np.array([-2.0, -6.0]))
        (1.0, (1.0, 1.0))
    """
    if log_prob.shape != other.shape:
        raise ValueError(f"other: expected the same rows, {log_prob.shape}, got {other.shape}")
    gain = np.asarray(log_prob, dtype=np.float64) - other
    return float(gain.mean()), bootstrap_interval(gain, num_resamples=num_resamples, confidence=confidence, seed=seed)
