"""The native engine without its sampler: parameters come out, values go in, rows are selected in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from torch import Tensor

from seriatim.engine.cpu import Session
from seriatim.engine.program import NUMBERS, store

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
        """Return the parameters of the next position (B, 1, P), float32; of a program of `ranked` what it hands out.

        Args:
            value: (B, 1, *value_shape) of the position before; None for the first one of a session.

        Raises:
            ValueError: parameters that are NaN, or no position is left.
        """
        if value is not None:
            self._write(value)
        params = self.session.advance(1).values
        if bool(params.isnan().any()):
            row = int(params.isnan().flatten(1).any(-1).nonzero()[0])
            raise ValueError(f"parameters: expected numbers, got NaN at position {self.position - 1} of row {row}")
        return params

    def select(self, rows: Tensor) -> None:
        """Keep some rows (B',), with repetition if wanted."""
        self.session.select(rows)

    def _write(self, value: Tensor) -> None:
        """Write what the network reads of the values of the position before."""
        session = self.session
        variables = self.order.places(session.position - 1, session.position)
        features, source = self.model.cast(self.model.head.encode(value, variables)), session.program.input.buffer
        store(session.state, source.offset, source, features, session.position + 1)


class Best(NamedTuple):
    """The most probable symbols of a position, and the end.

    Attributes:
        log_prob: (B, n) log p in nats of the n most probable symbols where the sequence goes on, the best first.
        symbols: (B, n) int64.
        stop: (B,) the sequence ends with probability sigmoid of it; -infinity where there is no end.
    """

    log_prob: np.ndarray
    symbols: np.ndarray
    stop: np.ndarray


class Ranker(Stepper):
    """A stepper for models of symbols whose position hands out the best of them only, found natively.

    Args:
        distribution: of batch shape (B,), its model in eval mode.
        session: of a program of `Program.ranked`, started for that distribution.
        count: n of that program.

    Example:
        >>> import torch
        >>> from seriatim import engine
        >>> from seriatim.heads import Categorical
        >>> from seriatim.models import LSTM
        >>> joint = LSTM((5,), Categorical(4), hidden_features=4).eval()().expand((2,))
        >>> program = engine.lower(joint.model, draw=False).ranked(3)
        >>> ranker = Ranker(joint, engine.start(joint, torch.arange(2), 0, program), count=3)
        >>> ranker.best().symbols.shape, ranker.best(np.array([1, 0])).log_prob.shape
        ((2, 3), (2, 3))
    """

    def __init__(self, distribution: Autoregressive, session: Session, count: int) -> None:
        super().__init__(distribution, session)
        self.count = count
        self.offset, self.features = session.program.code[-1, NUMBERS + 4 : NUMBERS + 6].tolist()

    def best(self, value: np.ndarray | None = None) -> Best:
        """Return the best symbols of the next position.

        Args:
            value: (B,) symbols of the position before; None for the first one of a session.

        Raises:
            ValueError: parameters that are no distribution, or no position is left.
        """
        if value is not None:
            source, state = self.session.program.input.buffer, self.session.state.numpy()
            first = source.offset + self.session.position % source.slots * source.stride
            state[:, first] = value + self.offset
            state[:, first + 1 : first + self.features] = 0
        return self._best(self.session.advance(1).values.numpy()[:, 0])

    def greedy(self, positions: int) -> Best:
        """Return the best symbol of the next positions, of a program that is greedy: arrays (B, n, 1), (B, n)."""
        return self._best(self.session.advance(positions).values.numpy())

    def _best(self, found: np.ndarray) -> Best:
        count = self.count
        return Best(found[..., :count], found[..., count : 2 * count].astype(np.int64), found[..., 2 * count])
