"""Running a program on the CPU: the memory of its rows, and the calls of the interpreter."""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim.causal import State
from seriatim.engine.program import Program

BLOCK_ROWS = 64  # rows that go through an instruction together: they share one read of the weights
_CHUNK = 1024  # positions between two looks at Ctrl-C


@cache
def kernels() -> ModuleType | None:
    """Return the compiled interpreter, or None with one warning where numba cannot be loaded."""
    try:
        from seriatim.engine import kernels
    except Exception as error:  # a broken LLVM library raises anything from ImportError to OSError
        warnings.warn(
            f"numba cannot be loaded ({error}): sampling falls back to PyTorch, with the same samples but slower",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels


class Samples(NamedTuple):
    """Values (B, n, *value_shape) of the positions a session went through, and log p (B, n) in nats if asked for."""

    values: Tensor
    log_probs: Tensor | None


class Session:
    """Rows being sampled: their state arena and position, kept between calls.

    Args:
        program: the lowered network and head.
        state: the network's state, eager, before `position`.
        x: (B, 1, F) the network's input at `position`: the start symbol, or the encoded value before it.
        rows: (B,) the row numbers of the noise.
        seed: the seed of the noise.
        position: how many positions have been read: 0, or the length of a prompt.

    Example:
        >>> from seriatim import engine
        >>> from seriatim.causal import CausalSequential
        >>> from seriatim.heads import Bernoulli
        >>> from seriatim.layers import LSTM
        >>> from seriatim.model import AutoregressiveModel
        >>> from seriatim.order import Order
        >>> net = CausalSequential(LSTM(1, 8), torch.nn.Linear(8, 1))
        >>> model = AutoregressiveModel(net, Bernoulli(), Order((6,)))
        >>> session = Session(engine.lower(model), net.initial_state(2), model.start(2), torch.arange(2), seed=0)
        >>> session.advance(4).values.shape, session.advance(2).values.shape
        (torch.Size([2, 4]), torch.Size([2, 2]))
    """

    def __init__(
        self, program: Program, state: State, x: Tensor, rows: Tensor, seed: int, *, position: int = 0
    ) -> None:
        self.program, self.seed, self.position = program, seed, position
        self.rows = rows.to("cpu", torch.int64).contiguous()
        self.state, self.memories = program.load(state, x, position), program.load_memories(state)

    def select(self, index: Tensor) -> None:
        """Keep some rows (B',), with repetition if wanted. A row takes its noise with it."""
        self.state, self.rows = self.state[index], self.rows[index]
        self.memories = [memory[index] for memory in self.memories]

    def advance(self, count: int, *, log_probs: bool = False) -> Samples:
        """Sample the next `count` positions.

        Raises:
            ValueError: a position's parameters are NaN or infinite, or there are not so many positions.
        """
        program, first = self.program, self.position
        if not 0 <= count <= program.length - first:
            raise ValueError(f"count: expected 0 to {program.length - first}, the positions that are left, got {count}")
        module = kernels()
        if module is None:
            raise RuntimeError("engine: expected numba, but it cannot be loaded")
        numbers = np.empty((len(self.rows), count, program.width))
        scores = np.zeros((len(self.rows), count if log_probs else 0))
        for start in range(0, len(self.rows), BLOCK_ROWS):
            block = slice(start, min(start + BLOCK_ROWS, len(self.rows)))
            self._run(module, block, numbers[block], scores[block])
        self.position += count
        values = program.decode(torch.from_numpy(numbers), first)
        return Samples(values, torch.from_numpy(scores).float() if log_probs else None)

    def _workspace_size(self) -> int:
        """Return how many numbers attention and samplers work with."""
        pairs = zip(self.program.memories, self.memories, strict=True)
        sources = [int(rows[0, 1]) for memory, rows in pairs if memory.is_source]
        return max(self.program.workspace_size, *sources, 1)

    def _run(self, module: ModuleType, block: slice, numbers: np.ndarray, scores: np.ndarray) -> None:
        program, rows = self.program, self.rows[block]
        scratch, workspace = torch.empty(len(rows), program.scratch_size), np.empty(self._workspace_size())
        num_cursors, num_clocks = len(program.cursors), len(program.spans) - 1
        memory = np.zeros(module.memory_size(num_cursors, num_clocks), np.int64)
        own = [self.state[block], scratch, *(memory[block] for memory in self.memories)]
        bases = np.array([program.weights.data_ptr(), *(rows.data_ptr() for rows in own)], np.int64)
        strides = np.array([0, *(rows.shape[1] for rows in own)], np.int64)
        end = self.position + numbers.shape[1]
        for start in range(self.position, end, _CHUNK):
            done = start - self.position
            arguments = (
                *(program.code.data_ptr(), len(program.code), program.cursors.data_ptr(), program.spans.data_ptr()),
                *(num_clocks, bases.ctypes.data, strides.ctypes.data, memory.ctypes.data, rows.data_ptr(), len(rows)),
                *(self.seed & 0xFFFFFFFF, (self.seed >> 32) & 0xFFFFFFFF, start, min(start + _CHUNK, end)),
                *(numbers.ctypes.data + 8 * program.width * done, numbers[0].size, program.width),
                *(scores.ctypes.data + 8 * done if scores.size else 0, scores.shape[1], workspace.ctypes.data),
            )
            position, row = module.run(module.FINGERPRINT, *arguments)
            if position == module.STALE:  # compiled from other sources, and found in the disk cache
                module.run.recompile()
                position, row = module.run(module.FINGERPRINT, *arguments)
            if position != module.OK:
                raise ValueError(
                    f"parameters: expected finite numbers, got NaN or infinity at position {position}, "
                    f"row {int(rows[row])}"
                )
