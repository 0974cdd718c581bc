"""What a step minimises: -log p of rows, or of the next part of sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seriatim.ending import Ending, ValueOrEnd
from seriatim.model import AutoregressiveModel
from seriatim.reading import Reading
from seriatim.training.data import Batch, as_values


class Loss:
    """-log p of batches in nats; of sequences that are read part by part, it keeps the reading.

    Args:
        model: whose likelihood it is.
        label_smoothing: the share e of the smoothed target that is spread over all K categories, in training only:

            (1 - e) (-log p(x_t)) - e / K sum_k log p(k)

    Example:
        >>> from seriatim.models import FVSBN
        >>> loss = Loss(FVSBN((3,)))
        >>> loss(Batch(torch.ones(2, 3), None, 2, 2)).shape
        torch.Size([])
    """

    def __init__(self, model: AutoregressiveModel, label_smoothing: float = 0.0) -> None:
        self.model, self.label_smoothing = model, label_smoothing
        self.reading: Reading | None = None

    def __call__(self, batch: Batch) -> Tensor:
        """Return -log p, summed over the rows or the terms of the batch."""
        return self.parts(batch)[1]

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what training minimises and -log p, both summed; they differ by the smoothing of labels alone."""
        x = as_values(self.model, batch.x)
        if batch.part is None:
            distribution = self.model.training_distribution(batch.context)
            distribution._validate_args = False  # the data were checked before the first step
            nats = -distribution.log_prob(x).sum()
            return nats, nats
        x = x.to(self.model.device)
        place = torch.arange(x.shape[1], device=x.device)
        values, counted = (place < number.to(x.device)[:, None] for number in (batch.part.values, batch.part.terms))
        if isinstance(self.model.head, Ending):
            x = x.masked_fill(self.model.head.spread(~values), self.model.head.mark)
        conditional = self._reading(batch).read(x)
        nats = -torch.where(counted, conditional.log_prob(x), 0).sum()
        if not self.label_smoothing:
            return nats, nats
        spread = torch.where(values, mean_log_prob(conditional), 0).sum()
        kept = torch.where(values, value_log_prob(conditional, x), 0).sum()
        return nats + self.label_smoothing * (kept - spread), nats

    def _reading(self, batch: Batch) -> Reading:
        assert batch.part is not None
        if batch.part.first or self.reading is None:
            joint = self.model.training_distribution(batch.context)
            self.reading = Reading(joint if joint.batch_shape else joint.expand((len(batch.x),)))
        else:
            self.reading.detach()
            if len(batch.x) != len(self.reading.input):  # the shortest sequences, the last ones, are over
                self.reading.select(torch.arange(len(batch.x)))
        return self.reading


def mean_log_prob(conditional: Any) -> Tensor:
    """Return the mean of log p(k) over the K categories, batch shape.

    Raises:
        ValueError: values that are no categories.

    Example:
        >>> from seriatim.heads import Categorical
        >>> mean_log_prob(Categorical(4)(torch.zeros(1, 2, 4)))
        tensor([[-1.3863, -1.3863]])
    """
    own = conditional.values if isinstance(conditional, ValueOrEnd) else conditional
    logits = getattr(own, "logits", None)
    if logits is None or logits.ndim != len(own.batch_shape) + 1:
        raise ValueError(f"label_smoothing: expected 0 for values that are no categories, got {type(own).__name__}")
    return F.log_softmax(logits, dim=-1).mean(-1)


def value_log_prob(conditional: Any, x: Tensor) -> Tensor:
    """Return log p of the values without the terms of the end, batch shape; 0 where x is the end."""
    if isinstance(conditional, ValueOrEnd):
        return conditional.log_prob_parts(x)[0]
    own: Tensor = conditional.log_prob(x)
    return own
