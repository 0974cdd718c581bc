"""Dropout whose mask is the same at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seriatim.causal import Causal, State

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class VariationalDropout(Causal):
    """Dropout with one mask for a whole sequence.

        y_t = x_t m / (1 - rate),    m ~ Bernoulli(1 - rate), drawn once for each row and feature

    The mask lives in the state: it is drawn in `initial_state` while training, and is ones otherwise. So the law of
    chunks holds in training too.

    Shapes: x (B, n, F) -> y (B, n, F).

    Args:
        num_features: F.
        rate: the probability that a feature is dropped, 0 <= rate < 1.

    Raises:
        ValueError: another rate.

    Reference: A Theoretically Grounded Application of Dropout in Recurrent Neural Networks (Gal, Ghahramani, 2016).

    Example:
        >>> VariationalDropout(3, 0.5).eval()(torch.ones(1, 2, 3))[0].sum()
        tensor(6.)
    """

    any_length = True
    ones: Tensor

    def __init__(self, num_features: int, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate: expected a number from 0 to below 1, got {rate}")
        self.rate = rate
        self.register_buffer("ones", torch.ones(num_features), persistent=False)

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        mask = self.ones.expand(batch_size, 1, -1).clone()
        return {"mask": mask.bernoulli_(1 - self.rate) / (1 - self.rate) if self.training else mask}

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        return x * state["mask"], state

    def lower(self, tape: Tape, x: Operand) -> Operand:
        return x  # sampling is done in eval mode

    def dependencies(self, length: int) -> Tensor:
        return torch.eye(length, dtype=torch.bool)
