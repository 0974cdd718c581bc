"""Running a program on the CPU: the memory of its rows, and the calls of the interpreter."""

from __future__ import annotations

import os
import time
import warnings
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seriatim.causal import State
from seriatim.engine.pace import Pace
from seriatim.engine.program import Program

BLOCK_ROWS = 64  # most rows that go through an instruction together: they share one read of the weights
_FEWEST_ROWS = 8
_CACHE = 3 << 20  # bytes of states that stay near while weights that also do are read
_LINE = 16  # numbers of 8 bytes: two cache lines, for they are fetched in pairs
_TILE_ROWS = 4  # rows of the matrix product's block


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


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    """Return threads beside the one that asks. They stay: a new one first runs on the core of its maker for a while."""
    return ThreadPoolExecutor(count, thread_name_prefix="seriatim")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # threads do not go with a fork


class Samples(NamedTuple):
    """What a session went through.

    Attributes:
        values: (B, n, *value_shape).
        log_probs: (B, n) log p of the model in nats, if asked for.
        log_q: (B, n) log q of what was sampled, under controls another one.
    """

    values: Tensor
    log_probs: Tensor | None
    log_q: Tensor | None


class Session:
    """Rows being sampled: their state arena and position, kept between calls.

    Rows are cut into blocks for the threads of `torch.get_num_threads()` where there is enough to do; what is sampled
    does not depend on how they are cut.

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
        self._spare: list[Tensor] = []
        self._blocks: dict[int, list[_Block]] = {}  # of the present rows, by the number of threads
        self._pace = Pace()

    def select(self, index: Tensor) -> None:
        """Keep some rows (B',), with repetition if wanted. A row takes its noise with it.

        Sources stay where they are, for a row's state tells which is its own.
        """
        moved = [k for k, memory in enumerate(self.program.memories) if not memory.is_source]
        own, spare = [self.state, *(self.memories[k] for k in moved)], self._spare
        if not spare or len(spare[0]) < len(index):
            spare = [rows.new_empty(len(index), rows.shape[1]) for rows in own]
        # Memory that is new for each position would cost more than the copy.
        free = [rows if len(rows) == len(index) else rows[: len(index)] for rows in spare]
        self.state, *others = (torch.index_select(a, 0, index, out=b) for a, b in zip(own, free, strict=True))
        for k, rows in zip(moved, others, strict=True):
            self.memories[k] = rows
        if len(index) != len(self.rows):
            self._blocks = {}
        self.rows, self._spare = self.rows[index], own

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
        numbers = np.zeros((len(self.rows), count, program.width))  # rows that have ended leave the rest as it is
        scores = np.zeros((len(self.rows), count if log_probs else 0, 2))
        self._sample(module, numbers, scores)
        values = program.decode(torch.from_numpy(numbers), first)
        log_p, log_q = torch.from_numpy(scores).float().unbind(-1)
        return Samples(values, log_p, log_q) if log_probs else Samples(values, None, None)

    def _sample(self, module: ModuleType, numbers: np.ndarray, scores: np.ndarray) -> None:
        """Sample as many positions as `numbers` has, chunk by chunk."""
        num_rows, first = len(self.rows), self.position
        end = first + numbers.shape[1]
        for block in (block for blocks in self._blocks.values() for block in blocks):
            block.bind(self)
        while self.position < end and num_rows:
            most = min(torch.get_num_threads(), num_rows)
            threads, count = self._pace.plan(num_rows, end - self.position, most)
            if threads not in self._blocks:
                cuts = cut(num_rows, threads, block_rows(self.program))
                self._blocks[threads] = [_Block(self, module, rows) for rows in cuts]
            started = time.perf_counter()
            done = self.position - first
            own = numbers[:, done : done + count], scores[:, done : done + count]
            _advance(self._blocks[threads], self.position, *own, threads)
            self._pace.learn(num_rows, threads, count, time.perf_counter() - started)
            self.position += count


class _Block:
    """Some rows of a session, and what the interpreter is told of them.

    Args:
        session: whose rows they are.
        module: the compiled interpreter.
        block: which rows.
    """

    def __init__(self, session: Session, module: ModuleType, block: slice) -> None:
        program = session.program
        self.module, self.first = module, block.start
        num_rows, num_cursors, num_clocks = block.stop - block.start, len(program.cursors), len(program.spans) - 1
        scratch = torch.empty(num_rows, program.scratch_size)
        # Uniforms and logits of all rows come first.
        workspace = _apart(2 * num_rows + _workspace_size(session), np.float64)
        memory = _apart(module.memory_size(num_cursors, num_clocks), np.int64)
        self.bases = np.zeros(3 + len(program.memories), np.int64)
        self.bases[0], self.bases[2] = program.weights.data_ptr(), scratch.data_ptr()
        told = zip(program.memories, session.memories, strict=True)
        # Each row looks for its own source, from the first one on.
        widths = [0 if memory.is_source else rows.shape[1] for memory, rows in told]
        self.strides = np.array([0, session.state.shape[1], scratch.shape[1], *widths], np.int64)
        functions = module.functions(program.ops)
        self.kept = program, scratch, workspace, memory, functions  # as long as their addresses are in use
        self.before = (
            functions.ctypes.data,
            *(program.code.data_ptr(), len(program.code), program.cursors.data_ptr(), program.spans.data_ptr()),
            *(num_clocks, self.bases.ctypes.data, self.strides.ctypes.data, memory.ctypes.data),
        )
        self.after = num_rows, session.seed & 0xFFFFFFFF, (session.seed >> 32) & 0xFFFFFFFF
        self.workspace = workspace.ctypes.data
        self.bind(session)

    def bind(self, session: Session) -> None:
        """Find the rows where they lie now."""
        for number, arena in enumerate([session.state, *session.memories]):
            place = number + 1 + (number > 0)  # the scratch lies between
            self.bases[place] = arena.data_ptr() + 4 * self.first * int(self.strides[place])
        self.rows = session.rows

    def advance(self, start: int, numbers: np.ndarray, scores: np.ndarray) -> tuple[int, int] | None:
        """Sample positions from `start` on; return the position and the row whose parameters are no distribution.

        Args:
            start: the first position.
            numbers: (B, n, width) of all rows, where the values of n positions go.
            scores: (B, n, 2) of all rows, or (B, 0, 2).
        """
        first, end = self.first, start + numbers.shape[1]
        arguments = (
            *(*self.before, self.rows.data_ptr() + 8 * first, *self.after, start, end),
            *(_address(numbers, first), numbers.strides[0] // 8, numbers.shape[2]),
            *(_address(scores, first) if scores.size else 0, scores.strides[0] // 8, self.workspace),
        )
        position, row = self.module.run(self.module.FINGERPRINT, *arguments)
        if position == self.module.STALE:  # compiled from other sources, and found in the disk cache
            self.module.run.recompile()
            position, row = self.module.run(self.module.FINGERPRINT, *arguments)
        return None if position == self.module.OK else (position, int(self.rows[first + row]))


def block_rows(program: Program) -> int:
    """Return how many rows go through an instruction together, at most.

    Large weights are read once for as many rows as may be; of small ones the rows' states are what fills the cache.

    Example:
        >>> from seriatim import engine
        >>> from seriatim.models import FVSBN, PixelCNN
        >>> [block_rows(engine.lower(model)) for model in (FVSBN((4,)), PixelCNN((28, 28), num_layers=15))]
        [64, 24]
    """
    if 4 * program.weights.numel() > 2 * _CACHE:
        return BLOCK_ROWS
    fit = _CACHE // (4 * program.state_size) // _FEWEST_ROWS * _FEWEST_ROWS
    return max(_FEWEST_ROWS, min(fit, BLOCK_ROWS))


def cut(num_rows: int, threads: int, most: int = BLOCK_ROWS) -> list[slice]:
    """Cut rows into equal blocks, as many for each thread, but of whole tiles where a block has more than half of one.

    Args:
        num_rows: B.
        threads: how many share them.
        most: rows in a block.

    Example:
        >>> cut(16, threads=2), cut(3, threads=2)
        ([slice(0, 8, None), slice(8, 16, None)], [slice(0, 2, None), slice(2, 3, None)])
    """
    turns = max(1, -(-num_rows // (threads * most)))
    size = max(1, -(-num_rows // (threads * turns)))
    if size > _TILE_ROWS // 2:
        size = min(-(-size // _TILE_ROWS) * _TILE_ROWS, most)
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def _workspace_size(session: Session) -> int:
    """Return how many numbers attention and samplers work with."""
    pairs = zip(session.program.memories, session.memories, strict=True)
    sources = [int(rows[0, 1]) for memory, rows in pairs if memory.is_source]
    return max(session.program.workspace_size, *sources, 1)


def _apart(size: int, dtype: type) -> np.ndarray:
    """Return zeros of 8 bytes that share no cache line with what another thread writes."""
    return np.zeros(size + 2 * _LINE, dtype)[_LINE:-_LINE]


def _address(rows: np.ndarray, first: int) -> int:
    address: int = rows.ctypes.data
    return address + first * rows.strides[0]


def _advance(blocks: list[_Block], start: int, numbers: np.ndarray, scores: np.ndarray, threads: int) -> None:
    """Sample positions from `start` on of all blocks, as `_Block.advance` does.

    Raises:
        ValueError: a position's parameters are NaN or infinite: the first position, and its first row.
    """

    def sample(share: list[_Block]) -> list[tuple[int, int] | None]:
        return [block.advance(start, numbers, scores) for block in share]

    shares = [blocks[k::threads] for k in range(threads)]
    if threads == 1:
        found = sample(blocks)
    else:
        others = [_workers(threads - 1).submit(sample, share) for share in shares[1:]]
        try:
            found = sample(shares[0])
        finally:
            wait(others)  # they write into what belongs to this call
        found = sum((other.result() for other in others), found)
    if bad := [place for place in found if place is not None]:
        position, row = min(bad, key=lambda place: place[0])
        raise ValueError(f"parameters: expected finite numbers, got NaN or infinity at position {position}, row {row}")
