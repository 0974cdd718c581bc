"""Bayes nets with conditional probability tables, and the one table that assumes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from seriatim import structure
from seriatim.layers.table import ConditionalTable
from seriatim.model import AutoregressiveModel
from seriatim.order import Order
from seriatim.symbols import Symbols, SymbolsOrMissing

MAX_CELLS = 2**26
_SHOWN_ROWS = 16


class BayesNet(AutoregressiveModel):
    """A Bayesian network: one conditional probability table for each variable given its parents.

        p(x) = prod_d p(x_d | x_parents(d)),    p(x_d = k | row) = (n_k,row + alpha) / (n_row + alpha K_d)

    Any acyclic graph and any arity; the positions follow a topological order. Tables are fitted in closed form by
    `fit_counts`, or by gradient as any other model. Only the tables are stored, never a joint table.

    Args:
        event_shape: the shape of the places of the data.
        arities: K_d of each place, or one number for all.
        parents: for each place the flat places of its parents; None for independent places.
        names: of the variables, for `str(model)` and `draw()`.
        missing: the last symbol of each place stands for a missing value, which data hold as NaN.

    Raises:
        ValueError: a cycle (named), parents that are no places, or tables of more than 2^26 cells.

    Reference: Probabilistic Reasoning in Intelligent Systems (Pearl, 1988).

    Example:
        >>> rain = BayesNet((2,), 2, [(), (0,)], names=["rain", "wet"])
        >>> data = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1]])
        >>> print(rain.fit_counts(data, pseudo_count=0))
        p(rain)
               0      1
          0.7500 0.2500
        p(wet | rain)
          rain |      0      1
             0 | 0.6667 0.3333
             1 | 0.0000 1.0000
    """

    head: Symbols

    def __init__(
        self,
        event_shape: Sequence[int],
        arities: int | Sequence[int] = 2,
        parents: Sequence[Sequence[int]] | None = None,
        *,
        names: Sequence[str] | None = None,
        missing: bool = False,
    ) -> None:
        places = math.prod(event_shape)
        arities = [arities] * places if isinstance(arities, int) else list(arities)
        parents = [()] * places if parents is None else [tuple(p) for p in parents]
        for what, given in (("arities", arities), ("parents", parents), ("names", names)):
            if given is not None and len(given) != places:
                raise ValueError(f"{what}: expected one for each of {places} places, got {len(given)}")
        permutation = structure.topological_order(parents, names)
        cells = sum(math.prod([k, *(arities[p] for p in own)]) for k, own in zip(arities, parents, strict=True))
        if cells > MAX_CELLS:
            raise ValueError(f"parents: expected tables of at most {MAX_CELLS:,} cells, got {_size(cells)}")
        position = {variable: t for t, variable in enumerate(permutation)}
        in_positions = [tuple(position[p] for p in parents[v]) for v in permutation]
        table = ConditionalTable(in_positions, [arities[v] for v in permutation])
        super().__init__(table, _head(arities, event_shape, missing), Order(event_shape, permutation))
        self.table, self.parents, self.arities = table, parents, arities
        self.names = [f"x{i + 1}" for i in range(places)] if names is None else list(names)

    @torch.no_grad()
    def fit_counts(self, data: Any, pseudo_count: float = 0.1) -> Self:
        """Set every table to the smoothed frequencies of the data, and return the model.

            p(x_d = k | row) = (n_k,row + alpha) / (n_row + alpha K_d)

        Args:
            data: (N, *event_shape) codes, NaN where missing is a symbol.
            pseudo_count: alpha, added to every cell; a row never seen is uniform where alpha is 0.
        """
        if not pseudo_count >= 0:
            raise ValueError(f"pseudo_count: expected a number >= 0, got {pseudo_count}")
        x = torch.as_tensor(np.asarray(data)) if not isinstance(data, Tensor) else data
        self()._validate_sample(x)
        codes = self.order.to_positions(self.head.codes(x))
        table = self.table
        num_rows, width = table.logits.shape
        counts = torch.zeros(num_rows * width, dtype=torch.float64)
        for block in codes.split(max(1, 2**24 // codes.shape[1])):
            rows = table.offsets[:-1] + (block[:, table.sources] * table.strides).sum(-1)
            counts += torch.bincount((rows * width + block).flatten(), minlength=num_rows * width)
        real = ~table.beyond.repeat_interleave(table.offsets.diff(), dim=0)
        cells = counts.reshape(num_rows, width) + pseudo_count * real.double()
        cells = torch.where(cells.sum(1, keepdim=True) > 0, cells, real.double())
        table.logits.copy_((cells / cells.sum(1, keepdim=True)).log().masked_fill(~real, 0.0))
        return self

    @classmethod
    def learn(
        cls,
        data: Any,
        arities: int | Sequence[int] | None = None,
        *,
        method: str = "chow_liu",
        max_parents: int = 3,
        score: str = "bic",
        pseudo_count: float = 0.1,
        names: Sequence[str] | None = None,
        seed: int = 0,
        missing: bool = False,
    ) -> BayesNet:
        """Learn the structure from data (N, *event_shape), then fit the tables.

        Args:
            data: codes; arities are the greatest code plus one where none are given.
            arities: K_d of each place, or one number for all.
            method: "chow_liu" (the best tree), "search" (greedy search over orders) or "independent".
            max_parents: of each variable, in the search.
            score: "bic" or "bdeu", what the search maximises.
            pseudo_count: alpha of `fit_counts`, and of the mutual information of the tree.
            names: of the variables.
            seed: of the search.
            missing: the last symbol of each place stands for a missing value, NaN in the data.

        Example:
            >>> data = torch.tensor([[0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]])
            >>> BayesNet.learn(data).parents
            [(), (0,), (0,)]
        """
        x = torch.as_tensor(np.asarray(data))
        x = x if x.is_floating_point() else x.long()  # bits too
        if arities is None:
            arities = (x.flatten(1).amax(0).long() + 1).tolist()
        sizes = [arities] * math.prod(x.shape[1:]) if isinstance(arities, int) else list(arities)
        flat = _head(sizes, x.shape[1:], missing).codes(x).flatten(1).numpy()
        parents: Sequence[Sequence[int]] | None = None
        if method == "chow_liu":
            parents = structure.chow_liu(flat, sizes, pseudo_count=pseudo_count)
        elif method == "search":
            parents = structure.greedy_order_search(flat, sizes, max_parents=max_parents, score=score, seed=seed)
        elif method != "independent":
            raise ValueError(f"method: expected 'chow_liu', 'search' or 'independent', got {method!r}")
        return BayesNet(x.shape[1:], sizes, parents, names=names, missing=missing).fit_counts(x, pseudo_count)

    def draw(self) -> str:
        """Draw the graph as text."""
        return structure.draw(self.parents, self.names)

    def __str__(self) -> str:
        return "\n".join(self._table_of(int(v), t) for t, v in enumerate(self.order.permutation))

    def _symbols(self, variable: int) -> list[str]:
        """The names of a variable's values: those of the categories of a table, else their codes."""
        arity = self.arities[variable]
        return list(map(str, range(arity))) if self.schema is None else self.schema.columns[variable].symbols[:arity]

    def _table_of(self, variable: int, position: int) -> str:
        """Return one table as text, at most 16 rows of it."""
        own = self.parents[variable]
        start, stop = (int(self.table.offsets[position + i]) for i in (0, 1))
        arity = self.arities[variable]
        probabilities = torch.softmax(self.table.logits[start:stop, :arity].double(), -1).tolist()
        given = [self.names[p] for p in own]
        title = f"p({self.names[variable]}{' | ' + ', '.join(given) if own else ''})"
        symbols = [self._symbols(v) for v in (variable, *own)]
        cells = [max(6, len(symbol)) for symbol in symbols[0]]
        labels = [max(map(len, (name, *known))) for name, known in zip(given, symbols[1:], strict=True)]
        lines = [title, "  " + _line(given, labels, symbols[0], cells)]
        for row, numbers in enumerate(probabilities[:_SHOWN_ROWS]):
            digits = _digits(row, [self.arities[p] for p in own])
            values = [known[v] for known, v in zip(symbols[1:], digits, strict=True)]
            lines.append("  " + _line(values, labels, [f"{p:.4f}" for p in numbers], cells))
        if stop - start > _SHOWN_ROWS:
            lines.append(f"  ... {stop - start - _SHOWN_ROWS:,} more rows")
        return "\n".join(lines)


class FullTable(BayesNet):
    """The chain rule with no assumption: every variable's table has a row for every prefix.

        p(x) = prod_d p(x_d | x_1, ..., x_(d-1)),    prod_(s<=d) K_s cells for variable d

    Args:
        event_shape: the shape of the places of the data.
        arities: K_d of each place, or one number for all.
        names: of the variables.
        missing: as for `BayesNet`.

    Raises:
        ValueError: more than 2^26 cells; the error says how many it would need.

    Example:
        >>> FullTable((40,))
        Traceback (most recent call last):
        ...
        ValueError: event_shape: expected tables of at most 67,108,864 cells, got 2,199,023,255,550 cells (8.0 TiB)
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        arities: int | Sequence[int] = 2,
        *,
        names: Sequence[str] | None = None,
        missing: bool = False,
    ) -> None:
        places = math.prod(event_shape)
        sizes = [arities] * places if isinstance(arities, int) else list(arities)
        cells, rows = 0, 1
        for k in sizes:
            rows *= k
            cells += rows
        if cells > MAX_CELLS:
            raise ValueError(f"event_shape: expected tables of at most {MAX_CELLS:,} cells, got {_size(cells)}")
        parents = [tuple(range(v)) for v in range(places)]
        super().__init__(event_shape, arities, parents, names=names, missing=missing)


def _head(arities: Sequence[int], event_shape: Sequence[int], missing: bool) -> Symbols:
    return (SymbolsOrMissing if missing else Symbols)(arities, event_shape)


def _line(left: Sequence[str], labels: Sequence[int], right: Sequence[str], cells: Sequence[int]) -> str:
    """A line of a table: the values of the parents, a bar, and what stands in the columns, right-aligned."""
    bar = " | " if left else ""
    return " ".join(map(str.rjust, left, labels)) + bar + " ".join(map(str.rjust, right, cells))


def _size(cells: int) -> str:
    power = min(max(0, (4 * cells).bit_length() - 1) // 10, 8)
    unit = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"][power]
    return f"{cells:,} cells ({4 * cells / 1024**power:.1f} {unit})"


def _digits(row: int, arities: Sequence[int]) -> list[int]:
    """Return the values of the parents behind a row of a table: its digits in mixed radix."""
    digits = []
    for k in reversed(arities):
        row, digit = divmod(row, k)
        digits.append(digit)
    return digits[::-1]
