"""Posteriors of classes as arrays: Bayes' rule, how good they are, and one temperature that makes them honest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

MAX_TEMPERATURE = 1e6
_MIN_TEMPERATURE = 1e-3


def log_posterior(log_likelihood: np.ndarray, prior: Any = None, temperature: float = 1.0) -> np.ndarray:
    """Return log p(c | x) from log p(x | c) by Bayes' rule.

        log p(c | x) = log p(c) + log p(x | c) / T - log sum_c' p(c') p(x | c')^(1/T)

    The prior is not tempered: before the first position the posterior is the prior, whatever T.

    Args:
        log_likelihood: (..., C) nats.
        prior: (C,) p(c); uniform if None.
        temperature: T > 0.

    Raises:
        ValueError: a prior that is none, a temperature that is not positive, or a row that no class can have made.

    Example:
        >>> np.exp(log_posterior(np.log([[0.2, 0.6]]))).round(6).tolist()
        [[0.25, 0.75]]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature: expected a positive number, got {temperature}")
    joint = log_prior(prior, log_likelihood.shape[-1]) + np.asarray(log_likelihood, dtype=np.float64) / temperature
    best = joint.max(-1, keepdims=True)
    if not np.isfinite(best).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(best[..., 0]))[0])
        raise ValueError(f"x: expected rows that some class makes possible, got none for row {place[-1]}")
    joint = joint - best
    return np.asarray(joint - np.log(np.exp(joint).sum(-1, keepdims=True)))


class Quality(NamedTuple):
    """How good posteriors are: share right, mean -log p(true class) in nats, ECE, and mean p(true class)."""

    accuracy: float
    log_loss: float
    calibration_error: float
    true_probability: float


def quality(log_p: np.ndarray, y: Any) -> Quality:
    """Judge log p(c | x) (N, C) by the true classes (N,).

        log-loss = -1/N sum_n log p(y_n | x_n)

    Raises:
        ValueError: classes that do not fit.

    Example:
        >>> found = quality(np.log([[0.25, 0.75], [0.25, 0.75]]), [1, 0])
        >>> found.accuracy, found.true_probability
        (0.5, 0.5)
    """
    labels = as_labels(y, *log_p.shape)
    own = log_p[np.arange(len(labels)), labels]
    right = float((log_p.argmax(1) == labels).mean())
    return Quality(right, -float(own.mean()), calibration_error(np.exp(log_p), labels), float(np.exp(own).mean()))


def calibration_error(p: np.ndarray, y: Any, num_bins: int = 15) -> float:
    """Return the expected calibration error: how far confidence is from the share that is right, over bins.

        ECE = sum_b n_b / N |share right in b - mean confidence in b|

    The confidence of a row is the probability of its most probable class; bins are of equal width, open at the left.

    Args:
        p: (N, C) p(c | x).
        y: (N,) true classes.
        num_bins: of confidence between 0 and 1.

    Raises:
        ValueError: classes that do not fit, or no bins.

    Reference: On Calibration of Modern Neural Networks (Guo, Pleiss, Sun, Weinberger, 2017).

    Example:
        >>> round(calibration_error(np.array([[0.1, 0.9], [0.1, 0.9]]), [1, 0]), 6)
        0.4
    """
    labels = as_labels(y, *p.shape)
    if num_bins < 1:
        raise ValueError(f"num_bins: expected 1 or more, got {num_bins}")
    confidence, right = p.max(1), (p.argmax(1) == labels).astype(np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(log_likelihood: np.ndarray, y: Any, prior: Any = None) -> float:
    """Return the temperature that minimises the log-loss of log p(x | c) (N, C), which is convex in 1/T.

        d loss / d(1/T) = 1/N sum_n (sum_c p_T(c | x_n) log p(x_n | c) - log p(x_n | y_n))

    The derivative only rises with 1/T, so halving an interval of log T finds its root.

    Args:
        log_likelihood: (N, C) nats.
        y: (N,) true classes.
        prior: (C,) p(c); uniform if None.

    Returns:
        T in 1e-3..1e6: the largest where the likelihoods say nothing of the classes; 1 where every row is right by the
        likelihoods alone, for then no temperature is best and a colder one would trust luck.

    Raises:
        ValueError: classes that do not fit, or a row whose own class cannot have made it.

    Reference: On Calibration of Modern Neural Networks (Guo, Pleiss, Sun, Weinberger, 2017).

    Example:
        >>> log_likelihood = np.log([[0.1, 0.9]] * 4)  # sure of class 1, which is right three times in four
        >>> temperature = fit_temperature(log_likelihood, [1, 1, 1, 0])
        >>> np.exp(log_posterior(log_likelihood, temperature=temperature))[0].round(4).tolist()
        [0.25, 0.75]
    """
    scores = np.asarray(log_likelihood, dtype=np.float64)
    labels = as_labels(y, *scores.shape)
    own = scores[np.arange(len(labels)), labels]
    if not np.isfinite(own).all():
        raise ValueError(
            f"y: expected classes that can have made their rows, got another in row {int(np.argmin(np.isfinite(own)))}"
        )
    rivals = (np.arange(scores.shape[1]) != labels[:, None]) & np.isfinite(log_prior(prior, scores.shape[1]))
    others = np.where(rivals, scores, -np.inf).max(1)
    if (own > others).all():
        return 1.0
    finite = np.where(np.isneginf(scores), 0.0, scores)  # a class of probability 0 adds nothing: 0 x -inf is not NaN

    def slope(temperature: float) -> float:
        p = np.exp(log_posterior(scores, prior, temperature))
        return float(((p * finite).sum(1) - own).mean())

    cold, hot = np.log(_MIN_TEMPERATURE), np.log(MAX_TEMPERATURE)
    for _ in range(60):
        middle = (cold + hot) / 2
        cold, hot = (middle, hot) if slope(np.exp(middle)) > 0 else (cold, middle)
    return float(np.exp((cold + hot) / 2))


def log_prior(prior: Any, num_classes: int) -> np.ndarray:
    """Return log p(c), (C,); uniform if None.

    Raises:
        ValueError: no probabilities.

    Example:
        >>> np.exp(log_prior(None, 2)).tolist()
        [0.5, 0.5]
    """
    p = np.full(num_classes, 1 / num_classes) if prior is None else np.asarray(prior, dtype=np.float64)
    if p.shape != (num_classes,) or not (p >= 0).all() or abs(p.sum() - 1) > 1e-6:
        raise ValueError(f"prior: expected {num_classes} probabilities that sum to 1, got {p.tolist()}")
    with np.errstate(divide="ignore"):
        return np.log(p)


def as_labels(y: Any, num_rows: int, num_classes: int) -> np.ndarray:
    """Return the classes of N rows as int64 (N,).

    Raises:
        ValueError: another number of them than of rows, none, or numbers out of 0..C-1.

    Example:
        >>> as_labels([1, 0], 2, 2).tolist()
        [1, 0]
    """
    labels = np.asarray(y)
    if labels.shape != (num_rows,) or not num_rows or labels.dtype.kind not in "iu":
        raise ValueError(
            f"y: expected the class of each of {num_rows} rows, got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"y: expected classes in 0..{num_classes - 1}, got {labels.min()}..{labels.max()}")
    return labels.astype(np.int64)
