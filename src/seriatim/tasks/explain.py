"""`explain`: which places of a row surprise the model, in bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from seriatim.ensemble import OrderEnsemble
from seriatim.model import AutoregressiveModel
from seriatim.tasks.rows import Joint, as_joint, as_rows, map_rows, models_of


class ColumnSurprise(NamedTuple):
    """The bits of one place over all rows: their mean and standard deviation, the largest and its row."""

    name: str
    mean_bits: float
    std_bits: float
    max_bits: float
    max_row: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """The surprise of each place of each row.

        bits[n, t] = -log2 p(x_nt | x_n,<t, c_n)

    Attributes:
        bits: (N, *order shape) float64; below 0 where a density is above 1.
        log_prob: (N,) log p of each row, nats.
        note: how the bits add up to log p: exactly, or for an ensemble to at least -log2 p.
        names: of the columns of a table; None for arrays.

    Example:
        >>> Explanation(np.array([[1.0, 3.0]]), np.array([-2.77]), "").columns(["a", "b"])[1].mean_bits
        3.0
    """

    bits: np.ndarray
    log_prob: np.ndarray
    note: str
    names: list[str] | None = None

    def columns(self, names: Sequence[str] | None = None) -> list[ColumnSurprise]:
        """Return a table of the places, in row-major order, those of a flat row by name.

        Args:
            names: of the places; those of the columns of a table, else x1, x2, ..., if None.

        Raises:
            ValueError: another number of names than of places.
        """
        flat = self.bits.reshape(len(self.bits), -1)
        names = list(names or self.names or [f"x{t + 1}" for t in range(flat.shape[1])])
        if len(names) != flat.shape[1]:
            raise ValueError(f"names: expected {flat.shape[1]}, one for each place, got {len(names)}")
        return [
            ColumnSurprise(name, float(b.mean()), float(b.std()), float(b.max()), int(b.argmax()))
            for name, b in zip(names, flat.T, strict=True)
        ]


def explain(model: AutoregressiveModel | Joint, x: Any, context: Any = None, *, batch_size: int = 256) -> Explanation:
    """Say how many bits each place of each row costs given the places before it.

        bits[n, t] = -log2 p(x_nt | x_n,<t, c_n),    sum_t bits[n, t] = -log2 p(x_n | c_n)

    An ensemble of orders has no conditionals of its own: its bits are the mean over the members' terms, whose sum is
    at least -log2 p(x); `note` says so.

    Args:
        model: a model, or a distribution of one (an ensemble of orders too) of batch shape () or (N,).
        x: (N, *event_shape), an array or a tensor; a data frame or `Table` for a model of a table.
        context: (N, *context event) for a conditional model.
        batch_size: rows at a time.

    Raises:
        ValueError: no rows, a wrong shape, or values that the model's head refuses.

    Example:
        >>> import torch
        >>> from seriatim.models import FVSBN
        >>> explain(FVSBN((2, 2)), torch.ones(3, 2, 2)).bits.shape
        (3, 2, 2)
    """
    joint = as_joint(model, context)
    rows = as_rows(x, joint)
    if not len(rows):
        raise ValueError("x: expected one row or more, got none")
    terms = map_rows(joint, rows, lambda p, part: p.log_prob_terms(part), batch_size).double().numpy()
    if isinstance(joint, OrderEnsemble):
        log_prob = map_rows(joint, rows, lambda p, part: p.log_prob(part), batch_size).double().numpy()
        note = (
            f"mean over the terms of {len(joint.members)} orders: an explanation, whose sum is at least −log₂ p(x), "
            "the score of the mixture"
        )
    else:
        log_prob, note = terms.reshape(len(terms), -1).sum(1), "the bits of a row sum to −log₂ p(x)"
    schema = models_of(joint)[0].schema
    return Explanation(-terms / math.log(2), log_prob, note, None if schema is None else schema.names)
