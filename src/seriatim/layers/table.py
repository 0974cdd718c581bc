"""Conditional probability tables: the look-up of a Bayes net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seriatim.causal import Causal, State, write

if TYPE_CHECKING:
    from seriatim.engine.operands import Operand
    from seriatim.engine.tape import Tape


class ConditionalTable(Causal):
    """One table of logits for each position, looked up by the values of its parents.

        y_t = table_t[x_parents(t)],    row = sum_j stride_j x_parent_j (mixed radix)

    Shapes: x (B, n, 1), the code of the value before (0 at the start); y (B, n, K), K the greatest arity, -inf beyond
    the arity of a position. The state keeps the codes so far.

    Args:
        parents: for each position the positions of its parents, all smaller.
        arities: (T,) how many values each position takes.

    Example:
        >>> table = ConditionalTable([(), (0,)], [2, 3])
        >>> table(torch.zeros(1, 2, 1))[0].exp()
        tensor([[[1., 1., 0.],
                 [1., 1., 1.]]], grad_fn=...)
    """

    sources: Tensor
    strides: Tensor
    offsets: Tensor
    beyond: Tensor

    def __init__(self, parents: Sequence[Sequence[int]], arities: Sequence[int]) -> None:
        super().__init__()
        self.parents = [tuple(p) for p in parents]
        self.arities = list(arities)
        width = max([1, *(len(p) for p in self.parents)])
        sources = torch.zeros(len(self.parents), width, dtype=torch.int64)
        strides = torch.zeros(len(self.parents), width, dtype=torch.int64)
        rows = []
        for t, own in enumerate(self.parents):
            if any(not 0 <= p < t for p in own):
                raise ValueError(f"parents: expected positions before {t}, got {own}")
            stride = 1
            for j, p in reversed(list(enumerate(own))):
                sources[t, j], strides[t, j] = p, stride
                stride *= self.arities[p]
            rows.append(stride)
        self.register_buffer("sources", sources, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("offsets", torch.tensor([0, *rows]).cumsum(0), persistent=False)
        beyond = torch.arange(max(self.arities)) >= torch.tensor(self.arities)[:, None]
        self.register_buffer("beyond", beyond, persistent=False)
        self.logits = nn.Parameter(torch.zeros(sum(rows), max(self.arities)))

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> State:
        return {
            "position": torch.zeros(batch_size, dtype=torch.int64, device=self.logits.device),
            "codes": torch.zeros(batch_size, len(self.parents), dtype=torch.int64, device=self.logits.device),
        }

    def advance(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        start, n = int(state["position"][0]), x.shape[1]
        # The model has shifted the inputs by one: the code at position t is that of position t - 1.
        codes = x[..., 0].round().long()
        codes, first = (codes[:, 1:], 0) if start == 0 else (codes, start - 1)
        stored = write(state["codes"], first, codes) if codes.shape[1] else state["codes"]
        own = slice(start, start + n)
        rows = self.offsets[own] + (stored[:, self.sources[own]] * self.strides[own]).sum(-1)
        y = self.logits[rows].masked_fill(self.beyond[own], -torch.inf)
        return y, {"position": state["position"] + n, "codes": stored}

    def lower(self, tape: Tape, x: Operand) -> Operand:
        beyond = self.beyond.repeat_interleave(self.offsets.diff(), dim=0)
        logits = self.logits.masked_fill(beyond, -torch.inf)
        tables = self.offsets[:-1], self.sources, self.strides
        return tape.look_up(x, logits, *tables, lambda state: state["codes"][:, None].float())

    def dependencies(self, length: int) -> Tensor:
        reads = torch.zeros(length, length, dtype=torch.bool)
        for t, own in enumerate(self.parents[:length]):
            reads[t, [p + 1 for p in own]] = True  # the input at position s is the code of position s - 1
        return reads

    def row(self, position: int, values: Sequence[int]) -> int:
        """Return the row of the table for the given values of a position's parents."""
        strides = self.strides[position, : len(values)].tolist()
        return int(self.offsets[position]) + sum(s * v for s, v in zip(strides, values, strict=True))
