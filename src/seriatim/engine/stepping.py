"""The native engine without its sampler: parameters come out, values go in, rows are selected in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from seriatim.engine.cpu import Session
from seriatim.engine.program import store

if TYPE_CHECKING:
    from seriatim.autoregressive import Autoregressive


class Stepper:
    """A network run natively one position at a time, for those who choose the values: beam search, stepwise scoring.

        params_t = network(encode(x_1), ..., encode(x_t-1))_t

    Args:
        distribution: of batch shape (B,), its model in eval mode.
        session: of a program lowered with `draw=False`, started for that distribution.

    Example:
        >>> import torch
        >>> from seriatim import engine
        >>> from seriatim.models import LSTM
        >>> joint = LSTM((5,), hidden_features=4).eval()().expand((2,))
        >>> program = engine.lower(joint.model, draw=False)
        >>> stepper = Stepper(joint, engine.start(joint, torch.arange(2), 0, program))
        >>> stepper.advance().shape, stepper.advance(torch.ones(2, 1)).shape
        (torch.Size([2, 1, 1]), torch.Size([2, 1, 1]))
        >>> stepper.select(torch.tensor([1, 1, 0]))
        >>> stepper.advance(torch.ones(3, 1)).shape
        torch.Size([3, 1, 1])
    """

    def __init__(self, distribution: Autoregressive, session: Session) -> None:
        self.model, self.order, self.session = distribution.model, distribution.order, session

    @property
    def position(self) -> int:
        """How many positions are behind."""
        return self.session.position

    def advance(self, value: Tensor | None = None) -> Tensor:
        """Return the parameters of the next position (B, 1, P), float32.

        Args:
            value: (B, 1, *value_shape) of the position before; None for the first one of a session.

        Raises:
            ValueError: parameters that are NaN, or no position is left.
        """
        session = self.session
        if value is not None:
            variables = self.order.places(session.position - 1, session.position)
            features, source = self.model.cast(self.model.head.encode(value, variables)), session.program.input.buffer
            store(session.state, source.offset, source, features, session.position + 1)
        params = session.advance(1).values
        if bool(params.isnan().any()):
            row = int(params.isnan().flatten(1).any(-1).nonzero()[0])
            raise ValueError(f"parameters: expected numbers, got NaN at position {session.position - 1} of row {row}")
        return params

    def select(self, rows: Tensor) -> None:
        """Keep some rows (B',), with repetition if wanted."""
        self.session.select(rows)
