"""`classify`: the class of a row by Bayes' rule, from all of it or from its first positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seriatim.autoregressive import Autoregressive
from seriatim.context import Labels
from seriatim.model import AutoregressiveModel
from seriatim.tasks.calibration import Quality, as_labels, fit_temperature, log_posterior, log_prior, quality
from seriatim.tasks.rows import Joint, map_rows


def class_log_likelihoods(
    model: AutoregressiveModel, x: Any, *, prefixes: Sequence[int] | None = None, batch_size: int = 256
) -> np.ndarray:
    """Return log p(x | c) of each row under each class, one parallel pass for each class.

        log p(x_1..t | c) = sum_s<=t log p(x_s | x_<s, c)        positions in the model's order

    Args:
        model: with a `Labels` encoder of C classes.
        x: (N, *event_shape), an array or a tensor; a data frame for a model of a table.
        prefixes: numbers of positions t in 0..T, K of them; the whole row if None.
        batch_size: rows at a time.

    Returns:
        Nats, float64: (N, C), or (K, N, C) for prefixes.

    Raises:
        ValueError: a model without classes, no rows, rows that do not fit the model, or a prefix out of range.

    Example:
        >>> from seriatim.models import FVSBN
        >>> model = FVSBN((3,), encoder=Labels(2))
        >>> class_log_likelihoods(model, torch.ones(5, 3), prefixes=[0, 3]).shape
        (2, 5, 2)
    """
    num_classes = classes_of(model)
    lengths = _prefixes([model.order.length] if prefixes is None else prefixes, model.order.length)
    rows = model.as_rows(x)
    if not len(rows):
        raise ValueError("x: expected one row or more, got none")

    def sums(joint: Joint, part: Tensor) -> Tensor:
        assert isinstance(joint, Autoregressive)
        terms = joint.order.to_positions(joint.log_prob_terms(part)).cpu().double()
        whole = torch.cat([torch.zeros(len(terms), 1, dtype=terms.dtype), terms.cumsum(1)], dim=1)
        return whole[:, lengths]

    found = [map_rows(model(torch.tensor(c)), rows, sums, batch_size) for c in range(num_classes)]
    joined = torch.stack(found, dim=-1).transpose(0, 1).numpy()
    return joined[0] if prefixes is None else joined


def class_log_probs(
    model: AutoregressiveModel,
    x: Any,
    prior: Any = None,
    *,
    prefixes: Sequence[int] | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Return the joint log p(x, c) = log p(c) + log p(x | c) of each row and class.

    Args:
        model: with a `Labels` encoder of C classes.
        x: (N, *event_shape).
        prior: (C,) p(c); uniform if None.
        prefixes: numbers of positions t: log p(x_1..t, c).
        batch_size: rows at a time.

    Returns:
        Nats, float64: (N, C), or (K, N, C) for prefixes.

    Raises:
        ValueError: see `class_log_likelihoods`; a prior that is none.

    Example:
        >>> from seriatim.models import FVSBN
        >>> class_log_probs(FVSBN((3,), encoder=Labels(2)), torch.ones(5, 3)).shape
        (5, 2)
    """
    own = log_prior(prior, classes_of(model))
    return own + class_log_likelihoods(model, x, prefixes=prefixes, batch_size=batch_size)


def posterior(
    model: AutoregressiveModel, x: Any, prior: Any = None, *, temperature: float = 1.0, batch_size: int = 256
) -> np.ndarray:
    """Return p(c | x) of each row, (N, C), by Bayes' rule.

        p(c | x) = p(c) p(x | c)^(1/T) / sum_c' p(c') p(x | c')^(1/T)

    Args:
        model: with a `Labels` encoder of C classes.
        x: (N, *event_shape).
        prior: (C,) p(c); uniform if None.
        temperature: T, 1 for Bayes' rule as it is; see `calibrate`.
        batch_size: rows at a time.

    Raises:
        ValueError: see `class_log_probs`; a temperature that is not positive.

    Example:
        >>> from seriatim.models import FVSBN
        >>> posterior(FVSBN((3,), encoder=Labels(2)), torch.ones(5, 3)).sum(1).round(6).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    return np.exp(log_posterior(class_log_likelihoods(model, x, batch_size=batch_size), prior, temperature))


def progressive(
    model: AutoregressiveModel,
    x: Any,
    prefixes: Sequence[int] | None = None,
    prior: Any = None,
    *,
    temperature: float = 1.0,
    batch_size: int = 256,
) -> np.ndarray:
    """Return p(c | x_1..t) of each row for some t, (K, N, C): what is believed after the first t positions.

    All prefixes cost what one costs: the terms of a row are computed once and cumulated.

    Args:
        model: with a `Labels` encoder of C classes.
        x: (N, *event_shape).
        prefixes: numbers of positions t in 0..T; `even_prefixes(T)` if None.
        prior: (C,) p(c); uniform if None.
        temperature: as in `posterior`.
        batch_size: rows at a time.

    Raises:
        ValueError: see `posterior`; a prefix out of range.

    Example:
        >>> from seriatim.models import FVSBN
        >>> curve = progressive(FVSBN((3,), encoder=Labels(2)), torch.ones(5, 3))
        >>> curve.shape, curve[0, 0].round(6).tolist()
        ((4, 5, 2), [0.5, 0.5])
    """
    lengths = even_prefixes(model.order.length) if prefixes is None else prefixes
    found = class_log_likelihoods(model, x, prefixes=lengths, batch_size=batch_size)
    return np.exp(log_posterior(found, prior, temperature))


def calibrate(model: AutoregressiveModel, x: Any, y: Any, prior: Any = None, *, batch_size: int = 256) -> float:
    """Return the temperature of the class log-likelihoods that minimises the log-loss of rows with known classes.

    Fit it on validation rows: not on those that the model learned from, nor on those that it is judged by. With a
    uniform prior no prediction changes.

    Args:
        model: with a `Labels` encoder of C classes.
        x: (N, *event_shape).
        y: (N,) their classes.
        prior: (C,) p(c); uniform if None.
        batch_size: rows at a time.

    Returns:
        T, see `fit_temperature`.

    Raises:
        ValueError: see `class_log_probs`; classes that do not fit.

    Example:
        >>> from seriatim.models import FVSBN
        >>> model = FVSBN((3,), encoder=Labels(2))
        >>> calibrate(model, torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 1]]), [1, 0, 0]) > 0
        True
    """
    num_classes, rows = classes_of(model), model.as_rows(x)
    labels = as_labels(y, len(rows), num_classes)
    return fit_temperature(class_log_likelihoods(model, rows, batch_size=batch_size), labels, prior)


@dataclass(frozen=True, eq=False)
class Classification:
    """How well a model tells classes apart by Bayes' rule.

    Attributes:
        log_likelihood: (N, C) log p(x | c), nats.
        before: the quality of the posteriors as they are, T = 1.
        temperature: T of the calibrated posteriors; None where they were not calibrated.
        after: the quality at that temperature.
        num_positions: T.
        prefixes: (K,) numbers of positions t.
        curve: the quality of p(c | x_1..t) at T = 1, one for each t.

    Example:
        >>> q = Quality(0.9, 0.3, 0.02, 0.85)
        >>> Classification(np.zeros((1, 2)), q, None, None, 4, np.array([1]), [q]).shares
        [0.25]
    """

    log_likelihood: np.ndarray
    before: Quality
    temperature: float | None
    after: Quality | None
    num_positions: int
    prefixes: np.ndarray
    curve: list[Quality]

    @property
    def shares(self) -> list[float]:
        """Which share of the positions each prefix is."""
        return [int(t) / self.num_positions for t in self.prefixes]


def classify(
    model: AutoregressiveModel,
    x: Any,
    y: Any,
    *,
    temperature: float | None = None,
    prior: Any = None,
    prefixes: Sequence[int] | None = None,
    batch_size: int = 256,
) -> Classification:
    """Classify rows by Bayes' rule and judge the posteriors: whole rows, calibrated, and prefix by prefix.

    Args:
        model: with a `Labels` encoder of C classes.
        x: (N, *event_shape).
        y: (N,) their classes.
        temperature: what `calibrate` found on other rows; None: not calibrated.
        prior: (C,) p(c); uniform if None.
        prefixes: numbers of positions t of the curve; `even_prefixes(T)` if None.
        batch_size: rows at a time.

    Raises:
        ValueError: see `posterior`; classes that do not fit.

    Example:
        >>> from seriatim.models import FVSBN
        >>> model = FVSBN((3,), encoder=Labels(2))
        >>> found = classify(model, torch.ones(4, 3), [0, 1, 1, 0])
        >>> found.before.accuracy, found.prefixes.tolist()
        (0.5, [0, 1, 2, 3])
    """
    num_classes, rows, length = classes_of(model), model.as_rows(x), model.order.length
    labels = as_labels(y, len(rows), num_classes)
    lengths = list(even_prefixes(length) if prefixes is None else prefixes)
    found = class_log_likelihoods(model, rows, prefixes=[*lengths, length], batch_size=batch_size)
    whole = found[-1]
    return Classification(
        log_likelihood=whole,
        before=quality(log_posterior(whole, prior), labels),
        temperature=temperature,
        after=None if temperature is None else quality(log_posterior(whole, prior, temperature), labels),
        num_positions=length,
        prefixes=np.array(lengths),
        curve=[quality(log_posterior(part, prior), labels) for part in found[:-1]],
    )


def even_prefixes(length: int, count: int = 20) -> list[int]:
    """Return numbers of positions from none to all, `count` steps apart at most.

    Example:
        >>> even_prefixes(784, 4), even_prefixes(2)
        ([0, 196, 392, 588, 784], [0, 1, 2])
    """
    return np.unique(np.linspace(0, length, min(count, length) + 1).round().astype(np.int64)).tolist()


def class_frequencies(y: Any, num_classes: int) -> np.ndarray:
    """Return the share of each class among labels (N,), a prior.

    Example:
        >>> class_frequencies([0, 1, 1, 1], 3).tolist()
        [0.25, 0.75, 0.0]
    """
    labels = as_labels(y, len(y), num_classes)
    return np.bincount(labels, minlength=num_classes) / len(labels)


def classes_of(model: AutoregressiveModel) -> int:
    """Return how many classes a model of p(x | class) knows.

    Raises:
        ValueError: a model that is not conditioned on classes.

    Example:
        >>> from seriatim.models import FVSBN
        >>> classes_of(FVSBN((3,), encoder=Labels(2)))
        2
    """
    encoder = getattr(model, "encoder", None)
    if not isinstance(encoder, Labels):
        what = "an unconditional model" if encoder is None else str(encoder)
        raise ValueError(f"model: expected one of p(x | class), with a Labels encoder, got {what}")
    return encoder.num_features


def _prefixes(prefixes: Sequence[int], length: int) -> Tensor:
    lengths = np.asarray(prefixes)
    if lengths.ndim != 1 or not len(lengths) or lengths.dtype.kind not in "iu":
        raise ValueError(f"prefixes: expected a list of numbers of positions, got {prefixes}")
    if lengths.min() < 0 or lengths.max() > length:
        raise ValueError(f"prefixes: expected 0..{length} positions, got {lengths.min()}..{lengths.max()}")
    return torch.as_tensor(lengths.astype(np.int64))
