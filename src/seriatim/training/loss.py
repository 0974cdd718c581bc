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
        if not self.label_smoothing:
            nats = -torch.where(counted, conditional.log_prob(x), 0).sum()
            return nats, nats
        of_value, mean, of_end = smoothing_terms(conditional, x)
        nats = -torch.where(counted, of_value + of_end, 0).sum()
        return nats + self.label_smoothing * torch.where(values, of_value - mean, 0).sum(), nats

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


def smoothing_terms(conditional: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p of the values, the mean of log p(k) over the K categories, and log p of ending or not; batch shape.

    The first is 0 where x is the end, the last where no end is modelled. A distribution may have `terms(x)`, which
    computes them together (`vocabulary.Tokens`).

    Raises:
        ValueError: values that are no categories.

    Example:
        >>> from seriatim.heads import Categorical
        >>> smoothing_terms(Categorical(4)(torch.zeros(1, 1, 4)), torch.tensor([[2]]))
        (tensor([[-1.3863]]), tensor([[-1.3863]]), tensor([[0.]]))
    """
    if hasattr(conditional, "terms"):
        of_value, mean, *of_end = conditional.terms(x)
        return of_value, mean, of_end[0] if of_end else torch.zeros_like(of_value)
    own = conditional.values if isinstance(conditional, ValueOrEnd) else conditional
    logits = getattr(own, "logits", None)
    if logits is None or logits.ndim != len(own.batch_shape) + 1:
        raise ValueError(f"label_smoothing: expected 0 for values that are no categories, got {type(own).__name__}")
    mean = F.log_softmax(logits, dim=-1).mean(-1)
    if isinstance(conditional, ValueOrEnd):
        of_value, stop = conditional.log_prob_parts(x)
        return of_value, mean, stop
    of_value = conditional.log_prob(x)
    return of_value, mean, torch.zeros_like(of_value)
