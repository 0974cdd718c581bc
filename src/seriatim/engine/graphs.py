"""Sampling on CUDA: one step of a model, captured in a CUDA graph and replayed for every position.

A step of a small network launches many kernels that each take less time than their launch; a graph launches them all at
once. It holds addresses, so the state lies in buffers that stay where they are, and the position is a number on the
device. That fits networks whose state keeps its shape and whose code does not look at the position: recurrent networks
and dilated convolutions. The noise is the same as everywhere, and so are the samples.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seriatim.causal import State
from seriatim.noise import uniforms

if TYPE_CHECKING:
    from seriatim.autoregressive import Autoregressive

_LOGGER = logging.getLogger(__name__)
_WARM_UP = 3  # steps before a capture, as torch's documentation asks


def fits(distribution: Autoregressive) -> bool:
    """Whether a step of a distribution can be captured: no part of its state or head depends on the position.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.models import LSTM, MADE
        >>> [fits(model().expand((2,))) for model in (LSTM((5,), Categorical(3), hidden_features=4), MADE((5,)))]
        [True, False]
    """
    with torch.no_grad():
        return not distribution.model.head.by_place and _is_steady(distribution.initial_state())


def _is_steady(state: State) -> bool:
    if isinstance(state, dict):
        return "position" not in state and all(_is_steady(part) for part in state.values())
    if isinstance(state, list | tuple):
        return all(_is_steady(part) for part in state)
    return state is None or isinstance(state, Tensor)


def _tensors(state: State) -> Iterator[Tensor]:
    """Yield the tensors of a state, in one order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict | list | tuple):
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)


def _copied(state: State) -> State:
    if isinstance(state, Tensor):
        return state.clone(memory_format=torch.contiguous_format)
    if isinstance(state, dict):
        return {key: _copied(part) for key, part in state.items()}
    return type(state)(_copied(part) for part in state) if isinstance(state, list | tuple) else state


class StaticStep:
    """The step of sampling over buffers that stay where they are.

        y, h = network(encode(x_t-1), h);    x_t = head(y).from_uniforms(u_t);    t = t + 1

    Args:
        distribution: of batch shape (B,), for which `fits` is true.
        rows: (B,) the row numbers of the noise.
        seed: of the noise.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.models import LSTM
        >>> model = LSTM((5,), Categorical(3), hidden_features=4).eval()
        >>> with torch.no_grad():
        ...     values = StaticStep(model().expand((2,)), torch.arange(2), seed=0).sample()
        >>> bool((values == model.sample((2,), seed=0, engine="reference")).all())
        True
    """

    def __init__(self, distribution: Autoregressive, rows: Tensor, seed: int) -> None:
        model, device = distribution.model, distribution.model.device
        self.distribution, self.rows, self.seed = distribution, rows.to(device), seed
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.bad = torch.full((len(rows),), -1, dtype=torch.int64, device=device)
        self.x = model.start(len(rows)).clone()
        self.state = _copied(distribution.initial_state())
        shape = (len(rows), distribution.order.length, *model.head.value_shape)
        self.values = torch.zeros(shape, dtype=model.head.value_dtype or model.dtype, device=device)

    def step(self) -> None:
        """Sample one position, in place."""
        model = self.distribution.model
        places = self.distribution.order.places(0, 1)  # the head does not look at it
        y, after = model.network(self.x, self.state)
        self.bad.copy_(torch.where((self.bad < 0) & y[:, -1].isnan().any(-1), self.position, self.bad))
        u = uniforms(self.seed, self.rows, self.position, model.head.num_uniforms)
        value = model.head(y[:, -1:], places).from_uniforms(u)
        self.values.index_copy_(1, self.position, value.to(self.values.dtype))
        self.x.copy_(model.cast(model.head.encode(value, places)))
        for kept, new in zip(_tensors(self.state), _tensors(after), strict=True):
            if kept is not new:
                kept.copy_(new)
        self.position += 1

    def sample(self) -> Tensor:
        """Return the values of all positions (B, T, *value_shape).

        Raises:
            ValueError: a position's parameters are NaN.
        """
        step = self._captured() if self.x.is_cuda else self.step
        for _ in range(self.distribution.order.length):
            step()
        if bool((self.bad >= 0).any()):
            row = int((self.bad >= 0).nonzero()[0])
            raise ValueError(f"parameters: expected numbers, got NaN at position {int(self.bad[row])} of row {row}")
        return self.values

    def _captured(self) -> Callable[[], None]:
        """Return the replay of a captured step, with the buffers as they were."""
        buffers = [self.position, self.bad, self.x, *_tensors(self.state)]
        first = [buffer.clone() for buffer in buffers]

        def reset() -> None:
            for buffer, before in zip(buffers, first, strict=True):
                buffer.copy_(before)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self.step()
                reset()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        reset()
        _LOGGER.info("in a CUDA graph: the state keeps its shape from position to position")
        replay: Callable[[], None] = graph.replay
        return replay


def sample_rows(distribution: Autoregressive, rows: Tensor, seed: int) -> Tensor:
    """Draw the samples whose noise has the given row numbers, (B, *event_shape), by replays of a captured step.

    Example:
        >>> from seriatim.heads import Categorical
        >>> from seriatim.models import GRU
        >>> model = GRU((5,), Categorical(3), hidden_features=4).eval()
        >>> sample_rows(model().expand((2,)), torch.arange(2), seed=0).shape
        torch.Size([2, 5])
    """
    with torch.no_grad():
        return distribution.order.to_data(StaticStep(distribution, rows, seed).sample())
