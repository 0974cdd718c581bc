"""Structure of discrete Bayesian networks: learn who is whose parent, order the variables, draw the net.

A structure is a list with one tuple per variable: the indexes of its parents. In every function `data` is an integer
array (N, D) with the codes 0..K_d-1 in column d, `arities` holds the D numbers K_d, and scores and information are in
nats. Bad data (not two-dimensional, not integer, empty, a code out of range) are a ValueError.
"""

from __future__ import annotations

import graphlib
import heapq
import itertools
import math
from collections.abc import Sequence

import numpy as np

Ints = Sequence[int]
Parents = list[tuple[int, ...]]

_BLOCK_COLUMNS = 2048  # one-hot columns of the variables counted with all others at a time
_CHUNK_CELLS = 1 << 24  # one-hot cells at a time; float32 counts up to 2^24 are exact
_DENSE_CELLS = 1 << 16  # larger tables of counts are kept sparse
_GRID = 2.0**24  # the search rounds scores to multiples of 1/_GRID nats, so that it adds them without error
_MAX_INDENT = 64  # columns; a deeper branch is drawn in a block of its own


def mutual_information(data: np.ndarray, arities: Ints, pseudo_count: float = 0.01) -> np.ndarray:
    """Return the mutual information of every pair of variables.

        p(a, b) = (n_ab + alpha) / (N + alpha K_i K_j)
        I[i, j] = sum_ab p(a, b) log( p(a, b) / (p(a) p(b)) )

    alpha is the pseudo-count of each cell of a pair's table. The marginals are summed from the smoothed joint:
    p(a) = (n_a + alpha K_j) / (N + alpha K_i K_j). Returns (D, D) float64, symmetric; with alpha = 0 the diagonal is
    the entropy. Raises ValueError for bad data or a negative pseudo-count.

    Reference: Approximating discrete probability distributions with dependence trees (Chow, Liu, 1968).

    Example:
        >>> mutual_information(np.array([[0, 0], [1, 1]]), [2, 2], pseudo_count=0).round(3).tolist()
        [[0.693, 0.693], [0.693, 0.693]]
    """
    codes, sizes = _checked_data(data, arities)
    if not (math.isfinite(pseudo_count) and pseudo_count >= 0):
        raise ValueError(f"pseudo_count must be a finite number >= 0, got {pseudo_count}")
    ends = np.cumsum(sizes)
    starts, step = ends - sizes, max(1, _CHUNK_CELLS // int(ends[-1]))
    info = np.empty((len(sizes), len(sizes)))
    for block in np.split(np.arange(len(sizes)), np.flatnonzero(np.diff(ends // _BLOCK_COLUMNS)) + 1):
        first, last = starts[block[0]], ends[block[-1]]
        joint = np.full((last - first, ends[-1]), pseudo_count, dtype=np.float64)
        for row in range(0, len(codes), step):
            hot = np.zeros((len(codes[row : row + step]), ends[-1]), dtype=np.float32)
            np.put_along_axis(hot, codes[row : row + step] + starts, 1, axis=1)
            joint += hot[:, first:last].T @ hot
        mass = len(codes) + pseudo_count * np.multiply.outer(sizes[block], sizes)
        joint /= mass.repeat(sizes[block], axis=0).repeat(sizes, axis=1)
        rows = starts[block] - first
        of_rows, of_columns = np.add.reduceat(joint, starts, axis=1), np.add.reduceat(joint, rows, axis=0)
        for p in (joint, of_rows, of_columns):
            p *= np.log(np.where(p > 0, p, 1))
        info[block] = np.add.reduceat(np.add.reduceat(joint, starts, axis=1) - of_rows, rows, axis=0)
        info[block] -= np.add.reduceat(of_columns, starts, axis=1)
    return np.maximum(np.triu(info) + np.triu(info, 1).T, 0)


def chow_liu(data: np.ndarray, arities: Ints, *, pseudo_count: float = 0.01, root: int = 0) -> Parents:
    """Return the tree of highest likelihood: the maximum spanning tree of the mutual information.

        argmax over trees of sum over edges (i, j) of I[i, j],   edges directed away from the root

    `pseudo_count` is the alpha of `mutual_information`. The tables that belong to the tree add the same alpha to each
    cell of child and parent: p(b | a) = (n_ab + alpha) / (n_a + alpha K_b). Of weights that agree to 12 decimals the
    variable of smallest index joins the tree, under the one that joined first. Returns D tuples of one parent, none for
    the root. Raises ValueError for bad data, a negative pseudo-count or a root outside 0..D-1.

    Reference: Approximating discrete probability distributions with dependence trees (Chow, Liu, 1968).

    Example:
        >>> data = np.array([[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 1, 0], [1, 0, 1, 1], [1, 0, 0, 0]])
        >>> chow_liu(data, [2, 2, 2, 2])
        [(), (0,), (3,), (0,)]
    """
    weights = mutual_information(data, arities, pseudo_count).round(12)
    if not 0 <= root < len(weights):
        raise ValueError(f"root must be in 0..{len(weights) - 1}, got {root}")
    parent = np.full(len(weights), root)
    best = weights[root].copy()
    outside = np.arange(len(weights)) != root
    while outside.any():  # Prim's algorithm
        new = int(np.argmax(np.where(outside, best, -np.inf)))
        outside[new] = False
        closer = outside & (weights[new] > best)
        best[closer], parent[closer] = weights[new, closer], new
    return [() if v == root else (int(parent[v]),) for v in range(len(weights))]


def bic_score(data: np.ndarray, arities: Ints, child: int, parents: Ints) -> float:
    """Return the Bayesian information criterion of one variable given its parents; higher is better.

        sum_jk n_jk log(n_jk / n_j) - (log N) / 2 * (K - 1) q,   q = product of the parents' arities

    n_jk counts value k of the child with values j of the parents. Raises ValueError for bad data, or an index that is
    out of range, repeated or the child's own.

    Reference: Estimating the Dimension of a Model (Schwarz, 1978).

    Example:
        >>> data = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
        >>> round(bic_score(data, [2, 2], 1, []), 3), round(bic_score(data, [2, 2], 1, [0]), 3)
        (-3.466, -1.386)
    """
    return _LocalScore(data, arities, "bic")(child, parents)


def bdeu_score(
    data: np.ndarray, arities: Ints, child: int, parents: Ints, *, equivalent_sample_size: float = 10.0
) -> float:
    """Return the log marginal likelihood of one variable given its parents under a uniform Dirichlet prior.

        sum_j log G(s/q) / G(s/q + n_j) + sum_jk log G(s/(q K) + n_jk) / G(s/(q K)),   G the gamma function

    s is the equivalent sample size, the weight of the prior in rows; n and q are those of `bic_score`. Networks that
    imply the same independences score the same. Raises ValueError as `bic_score`, and for s <= 0.

    Reference: Learning Bayesian Networks: The Combination of Knowledge and Statistical Data
        (Heckerman, Geiger, Chickering, 1995).

    Example:
        >>> data = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
        >>> round(bdeu_score(data, [2, 2], 1, [], equivalent_sample_size=2), 3)  # log 1 2 1 2 / (2 3 4 5)
        -3.401
    """
    return _LocalScore(data, arities, "bdeu", equivalent_sample_size)(child, parents)


def network_score(
    data: np.ndarray,
    arities: Ints,
    parents: Sequence[Ints],
    score: str = "bic",
    *,
    equivalent_sample_size: float = 10.0,
) -> float:
    """Return the score of a whole network, the sum of its local scores.

        score(network) = sum_d score(d | parents[d]),   score "bic" or "bdeu"

    `parents` holds D sequences of indexes, `equivalent_sample_size` is the s of `bdeu_score`. Raises ValueError for bad
    data, a cycle or a bad index in parents, an unknown score or s <= 0.

    Reference: Learning Bayesian Networks: The Combination of Knowledge and Statistical Data
        (Heckerman, Geiger, Chickering, 1995).

    Example:
        >>> data = np.array([[0, 0], [0, 0], [1, 1], [1, 1]])
        >>> round(network_score(data, [2, 2], [(), (0,)]) - network_score(data, [2, 2], [(1,), ()]), 9)
        0.0
    """
    local = _LocalScore(data, arities, score, equivalent_sample_size)
    if len(parents) != len(local.sizes):
        raise ValueError(f"parents must have {len(local.sizes)} entries, one per column, got {len(parents)}")
    return sum(local(child, parents[child]) for child in topological_order(parents))


def greedy_order_search(
    data: np.ndarray,
    arities: Ints,
    *,
    max_parents: int = 3,
    score: str = "bic",
    equivalent_sample_size: float = 10.0,
    seed: int = 0,
    restarts: int = 16,
    candidates: int = 16,
) -> Parents:
    """Return a network of high score, found by hill climbing over the orders of the variables.

        max over orders of sum_d max { score(d | U) : U among the predecessors of d, |U| <= max_parents }

    U is chosen among the `candidates` variables of highest mutual information with d and its Chow-Liu parent; each such
    set is scored once: D sum_k binomial(candidates, k) counts. The climb starts from the Chow-Liu order and moves one
    variable at a time to its best place; `restarts` times it is repeated from a copy of the best order perturbed by
    `seed`. With max_parents >= 1 the result scores no less than the Chow-Liu tree; scores are those of `network_score`.
    Returns D ascending tuples. Raises ValueError for bad data, an unknown score, a number < 0 or a sample size <= 0.

    Reference: Ordering-Based Search: A Simple and Effective Algorithm for Learning Bayesian Networks
        (Teyssier, Koller, 2005).

    Example:
        >>> a, b = np.random.default_rng(0).integers(2, size=(2, 400))
        >>> greedy_order_search(np.stack([a, a & b, b], axis=1), [2, 2, 2])
        [(), (0, 2), ()]
    """
    for name, number in (("max_parents", max_parents), ("restarts", restarts), ("candidates", candidates)):
        if number < 0:
            raise ValueError(f"{name} must be >= 0, got {number}")
    local = _LocalScore(data, arities, score, equivalent_sample_size)
    tree = chow_liu(data, arities)
    info = mutual_information(data, arities).round(12)
    np.fill_diagonal(info, -1)
    ranked = np.argsort(-info, axis=1, kind="stable")[:, :-1][:, :candidates].tolist()
    families = [_Family(local, v, [*dict.fromkeys([*ranked[v], *tree[v]])], max_parents) for v in range(len(tree))]
    order = topological_order(tree)
    best, chosen = _climb(order, families)
    generator = np.random.default_rng(seed)
    for _ in range(restarts):
        jitter = generator.normal(scale=2 + len(order) / 8, size=len(order))
        trial = [order[i] for i in np.argsort(np.arange(len(order)) + jitter)]
        reached, masks = _climb(trial, families)
        if reached > best:
            order, best, chosen = trial, reached, masks
    return [tuple(u for u in range(len(order)) if chosen[v] >> u & 1) for v in range(len(order))]


def topological_order(parents: Sequence[Ints], names: Sequence[str] | None = None) -> list[int]:
    """Return the variables with every parent before its children, the smallest free index first.

        position(u) < position(v) for every u in parents[v]

    `parents` holds D sequences of indexes, `names` the D names for errors (the indexes by default). Raises
    ValueError for a cycle, which it names, and for an index that is out of range, repeated or the child's own.

    Reference: Topological sorting of large networks (Kahn, 1962).

    Example:
        >>> topological_order([(2,), (), (1,)])
        [1, 2, 0]
        >>> topological_order([(1,), (0,)], names=["rain", "grass"])
        Traceback (most recent call last):
        ValueError: parents must have no cycle, got rain -> grass -> rain
    """
    labels = [str(name) for name in (range(len(parents)) if names is None else names)]
    if len(labels) != len(parents):
        raise ValueError(f"names must have {len(parents)} entries, one per variable, got {len(labels)}")
    sorter: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for v, family in enumerate(parents):
        _check_family(v, family, len(parents))
        sorter.add(v, *family)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise ValueError(f"parents must have no cycle, got {' -> '.join(labels[v] for v in error.args[1])}") from None
    order: list[int] = []
    ready = sorted(sorter.get_ready())
    while ready:
        order.append(int(heapq.heappop(ready)))
        sorter.done(order[-1])
        for v in sorter.get_ready():
            heapq.heappush(ready, v)
    return order


def draw(parents: Sequence[Ints], names: Sequence[str] | None = None) -> str:
    """Return a drawing of the network as text: each variable once, under its first parent.

        child  (+ a, b)     the child has the further parents a and b
        v ...               the branch goes on in a block below, headed `... v` (past 16 levels)

    `parents` holds D sequences of indexes, `names` the D names (the indexes by default). Siblings stand in the
    order of their indexes. Raises ValueError as `topological_order`.

    Example:
        >>> print(draw([(), (0,), (0,), (1, 2)], names=["cloudy", "rain", "sprinkler", "grass"]))
        cloudy
        ├── rain
        │   └── grass  (+ sprinkler)
        └── sprinkler
    """
    topological_order(parents, names)
    labels = [str(name) for name in (range(len(parents)) if names is None else names)]
    children: dict[int, list[int]] = {v: [] for v in range(-1, len(parents))}
    for v, family in enumerate(parents):
        children[family[0] if len(family) > 0 else -1].append(v)
    stack = [(v, "", "") for v in reversed(children[-1])]
    lines = []
    while stack:
        v, indent, branch = stack.pop()
        below = indent + {"├── ": "│   ", "└── ": "    "}.get(branch, "")
        extra = f"  (+ {', '.join(labels[u] for u in parents[v][1:])})" if len(parents[v]) > 1 else ""
        cut = len(below) >= _MAX_INDENT and len(children[v]) > 0
        lines.append(f"{indent}{branch}{labels[v]}{extra}{' ...' if cut else ''}")
        if cut:
            stack.insert(0, (v, "", "... "))
        else:
            stack += [(u, below, "└── " if u == children[v][-1] else "├── ") for u in reversed(children[v])]
    return "\n".join(lines)


def _checked_data(data: np.ndarray, arities: Ints) -> tuple[np.ndarray, np.ndarray]:
    codes, sizes = np.asarray(data), np.asarray(arities)
    if codes.ndim != 2 or codes.size == 0 or codes.dtype.kind not in "iub":
        raise ValueError(f"data must be a non-empty integer array (N, D), got {codes.dtype} of shape {codes.shape}")
    if sizes.shape != codes.shape[1:] or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        raise ValueError(f"arities must be {codes.shape[1]} integers >= 1, one per column, got {arities}")
    for row, column in np.argwhere((codes < 0) | (codes >= sizes))[:1].tolist():
        raise ValueError(f"data[{row}, {column}] must be in 0..{sizes[column] - 1}, got {codes[row, column]}")
    return codes.astype(np.min_scalar_type(sizes.max())), sizes.astype(np.int64)


def _check_family(child: int, parents: Ints, count: int) -> None:
    family = {child, *parents}
    if len(family) <= len(parents) or not all(v in range(count) for v in family):
        raise ValueError(f"child and parents must be distinct and in 0..{count - 1}, got {child} and {list(parents)}")


class _LocalScore:
    """The score of a variable given its parents, on the distinct rows and how often each occurs."""

    def __init__(self, data: np.ndarray, arities: Ints, score: str, prior: float = 1.0) -> None:
        codes, sizes = _checked_data(data, arities)
        if score not in ("bic", "bdeu"):
            raise ValueError(f"score must be 'bic' or 'bdeu', got {score!r}")
        if not (math.isfinite(prior) and prior > 0):
            raise ValueError(f"equivalent_sample_size must be a finite number > 0, got {prior}")
        distinct, repeats = np.unique(codes, axis=0, return_counts=True)
        self.columns = np.ascontiguousarray(distinct.T, dtype=np.int64)
        self.weights, self.total = repeats.astype(np.float64), len(codes)
        self.sizes, self.score, self.prior = sizes.tolist(), score, prior

    def append(self, codes: np.ndarray, size: int, variable: int) -> tuple[np.ndarray, int]:
        """Append a digit to mixed-radix codes below `size`; renumber them when most of the range is empty."""
        codes = codes * self.sizes[variable] + self.columns[variable]
        if (size := size * self.sizes[variable]) > _DENSE_CELLS:
            found, codes = np.unique(codes, return_inverse=True)
            size = len(found)
        return codes, size

    def __call__(self, child: int, parents: Ints, floor: float = -math.inf) -> float:
        """Return the score, or -inf without counting when it cannot exceed the floor."""
        _check_family(child, parents, len(self.sizes))
        configurations = math.prod(self.sizes[u] for u in parents)
        penalty = 0.5 * math.log(self.total) * (self.sizes[child] - 1) * configurations
        if (-penalty if self.score == "bic" else 0.0) <= floor:
            return -math.inf
        codes, size = np.zeros(len(self.weights), dtype=np.int64), 1
        for u in parents:
            codes, size = self.append(codes, size, u)
        totals = np.bincount(codes, self.weights, size)
        cells = np.bincount(self.append(codes, size, child)[0], self.weights)
        totals, cells = totals[totals > 0], cells[cells > 0]
        if self.score == "bic":
            return float(cells @ np.log(cells) - totals @ np.log(totals)) - penalty
        a, b = self.prior / configurations, self.prior / (configurations * self.sizes[child])
        gain = sum(map(math.lgamma, (cells + b).tolist())) - len(cells) * math.lgamma(b)
        return gain - sum(map(math.lgamma, (totals + a).tolist())) + len(totals) * math.lgamma(a)


class _Family:
    """A variable's parent sets and their scores, best first, without sets no better than one of their subsets."""

    def __init__(self, local: _LocalScore, child: int, candidates: list[int], max_parents: int) -> None:
        self.pool = sum(1 << u for u in candidates)
        self.memo: dict[int, tuple[float, int]] = {}
        reached: dict[int, float] = {}
        entries = []
        for size in range(min(max_parents, len(candidates)) + 1):
            for parents in itertools.combinations(candidates, size):
                mask = sum(1 << u for u in parents)
                below = max((reached[mask ^ 1 << u] for u in parents), default=-math.inf)
                value = float(np.rint(local(child, parents, floor=below) * _GRID)) / _GRID
                if value > below:
                    entries.append((value, mask))
                reached[mask] = max(value, below)
        self.entries = sorted(entries, key=lambda entry: -entry[0])

    def best(self, earlier: int) -> tuple[float, int]:
        """Return the highest score and its parents, as bits, when the parents must be among `earlier`."""
        key = earlier & self.pool
        if key not in self.memo:
            self.memo[key] = next(entry for entry in self.entries if entry[1] & key == entry[1])
        return self.memo[key]


def _climb(order: list[int], families: list[_Family]) -> tuple[float, dict[int, int]]:
    """Move the variables in turn until no move gains; return the score and each variable's parents, as bits."""
    while sum(_move(v, order, families) for v in range(len(order))):
        pass
    earlier = itertools.accumulate((1 << v for v in order), initial=0)
    best = {v: families[v].best(mask) for v, mask in zip(order, earlier, strict=False)}
    return sum(score for score, _ in best.values()), {v: mask for v, (_, mask) in best.items()}


def _move(v: int, order: list[int], families: list[_Family]) -> bool:
    """Move v to its best place, if that gains; only v and its possible children are rescored."""
    own, rest, bit, earlier = families[v], [u for u in order if u != v], 1 << v, 0
    scores, lost = [own.best(0)[0]], [0.0]
    for u in rest:
        other = families[u]
        lost.append(other.best(earlier | bit)[0] - other.best(earlier)[0] if other.pool & bit else 0.0)
        earlier |= 1 << u
        scores.append(own.best(earlier)[0] if own.pool >> u & 1 else scores[-1])
    totals = np.array(scores) - np.cumsum(lost)
    place = int(np.argmax(totals))
    if totals[place] <= totals[order.index(v)]:
        return False
    order[:] = [*rest[:place], v, *rest[place:]]
    return True
