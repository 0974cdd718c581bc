"""Structure learning: information, trees, scores, search, orders, drawings."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seriatim import structure
from seriatim.structure import (
    bdeu_score,
    bic_score,
    chow_liu,
    draw,
    greedy_order_search,
    mutual_information,
    network_score,
    topological_order,
)


def sample(seed: int, rows: int = 60, arities: tuple[int, ...] = (2, 3, 4, 2)) -> np.ndarray:
    """Dependent columns: each one is a noisy function of the column before it."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(arities[0], size=rows)]
    for k in arities[1:]:
        noise = rng.integers(k, size=rows)
        columns.append(np.where(rng.random(rows) < 0.5, (columns[-1] * rng.integers(1, 4)) % k, noise))
    return np.stack(columns, axis=1)


def binary(seed: int, rows: int, variables: int) -> np.ndarray:
    """Bits of a random net in which each variable has up to two parents among the earlier ones."""
    rng = np.random.default_rng(seed)
    x = np.zeros((rows, variables), dtype=np.int64)
    for d in range(variables):
        parents = rng.permutation(d)[:2]
        table = rng.beta(0.5, 0.5, size=(2, 2))
        code = [x[:, p] for p in parents] + [np.zeros(rows, dtype=np.int64)] * (2 - len(parents))
        x[:, d] = rng.random(rows) < table[code[0], code[1]]
    return x


def information_by_hand(a: np.ndarray, b: np.ndarray, ka: int, kb: int, alpha: float) -> float:
    joint = {(i, j): alpha for i in range(ka) for j in range(kb)}
    for i, j in zip(a.tolist(), b.tolist(), strict=True):
        joint[i, j] += 1
    total = sum(joint.values())
    p = {ij: n / total for ij, n in joint.items()}
    pa = [sum(p[i, j] for j in range(kb)) for i in range(ka)]
    pb = [sum(p[i, j] for i in range(ka)) for j in range(kb)]
    return sum(v * math.log(v / (pa[i] * pb[j])) for (i, j), v in p.items() if v > 0)


@pytest.mark.parametrize("alpha", [0.0, 0.01, 2.0])
def test_information_by_brute_force(alpha: float) -> None:
    arities = (2, 3, 4, 2)
    data = sample(0)
    found = mutual_information(data, arities, alpha)
    expected = [
        [information_by_hand(data[:, i], data[:, j], arities[i], arities[j], alpha) for j in range(4)] for i in range(4)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_information_does_not_depend_on_blocks_or_dtype(monkeypatch: pytest.MonkeyPatch, dtype: type) -> None:
    data, arities = sample(1, rows=97), (2, 3, 4, 2)
    whole = mutual_information(data, arities)
    monkeypatch.setattr(structure, "_BLOCK_COLUMNS", 4)
    monkeypatch.setattr(structure, "_CHUNK_CELLS", 110)  # ten rows at a time
    np.testing.assert_allclose(mutual_information(data.astype(dtype), arities), whole, atol=1e-12)


def test_constant_column_has_no_information() -> None:
    data = np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]])
    found = mutual_information(data, [1, 2, 2], pseudo_count=0)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], 0, atol=1e-15)
    assert found[1, 2] > 0.6


def spanning_trees(count: int) -> list[tuple[tuple[int, int], ...]]:
    """All sets of count - 1 edges that connect everything."""
    trees = []
    for edges in itertools.combinations(itertools.combinations(range(count), 2), count - 1):
        seen = {0}
        for _ in edges:
            seen |= {v for e in edges if seen & set(e) for v in e}
        if len(seen) == count:
            trees.append(edges)
    return trees


@pytest.mark.parametrize("seed", range(8))
def test_tree_is_the_best_of_all_spanning_trees(seed: int) -> None:
    trees = spanning_trees(4)
    assert len(trees) == 16  # Cayley: 4^2
    data = sample(seed)[:, np.random.default_rng(seed).permutation(4)]
    arities = (data.max(axis=0) + 1).tolist()
    info = mutual_information(data, arities)
    tree = chow_liu(data, arities, root=seed % 4)
    assert [len(p) for p in tree].count(0) == 1
    assert tree[seed % 4] == ()
    edges = [(u, v) for v, parents in enumerate(tree) for u in parents]
    topological_order(tree)
    best = max(sum(info[e] for e in t) for t in trees)
    assert sum(info[e] for e in edges) == pytest.approx(best, abs=1e-10)


def test_tied_weights_take_the_smallest_index_under_the_first_to_join() -> None:
    cube = np.array(list(itertools.product((0, 1), repeat=4)))  # every pair is independent
    assert chow_liu(cube, [2] * 4) == [(), (0,), (0,), (0,)]
    assert chow_liu(cube, [2] * 4, root=2) == [(2,), (2,), (), (2,)]


@pytest.mark.parametrize("seed", range(10))
def test_rounding_does_not_break_ties(seed: int) -> None:
    a, b = np.random.default_rng(seed).integers(3, size=(2, 30))
    data = np.stack([b, (a + 1) % 3, (a + 2) % 3, a], axis=1)  # one variable under three names
    assert chow_liu(data, [3] * 4) == [(), (0,), (1,), (1,)]


def test_pseudo_count_reaches_the_tree() -> None:
    rng = np.random.default_rng(1)
    data = (rng.random((30, 3)) < rng.random(3)).astype(int)  # weak dependences, some in rare cells
    assert chow_liu(data, [2] * 3) == chow_liu(data, [2] * 3, pseudo_count=0.01) == [(), (2,), (0,)]
    assert chow_liu(data, [2] * 3, pseudo_count=5.0) == [(), (0,), (0,)]


def test_bic_by_hand() -> None:
    data = np.array([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1]])
    fit = 2 * math.log(2 / 3) + math.log(1 / 3)  # b given a = 0; given a = 1 it is certain
    assert bic_score(data, [2, 2], 1, [0]) == pytest.approx(fit - 0.5 * math.log(5) * 2)
    fit = 2 * math.log(2 / 5) + 3 * math.log(3 / 5)
    assert bic_score(data, [2, 2], 1, []) == pytest.approx(fit - 0.5 * math.log(5))
    assert bic_score(data, [4, 3], 1, [0]) == pytest.approx(bic_score(data, [2, 2], 1, [0]) - 0.5 * math.log(5) * 6)


@pytest.mark.parametrize("size", [0.5, 10.0])
def test_bdeu_is_the_product_of_predictive_probabilities(size: float) -> None:
    data, arities = sample(2, rows=30), (2, 3, 4, 2)
    seen: Counter[tuple[int, ...]] = Counter()
    total = 0.0
    for row in data.tolist():
        j, k = (row[0], row[3]), row[1]
        total += math.log((seen[*j, k] + size / 12) / (seen[j] + size / 4))
        seen.update([j, (*j, k)])
    assert bdeu_score(data, arities, 1, [0, 3], equivalent_sample_size=size) == pytest.approx(total)
    assert bdeu_score(data, arities, 1, [3, 0], equivalent_sample_size=size) == pytest.approx(total)


@given(seed=st.integers(0, 1000), size=st.floats(0.1, 50))
@settings(max_examples=30, deadline=None)
def test_bdeu_is_equal_for_equivalent_networks(seed: int, size: float) -> None:
    data = sample(seed, rows=25, arities=(2, 3, 4))

    def score(parents: list[tuple[int, ...]]) -> float:
        return network_score(data, (2, 3, 4), parents, "bdeu", equivalent_sample_size=size)

    assert score([(), (0,), ()]) == pytest.approx(score([(1,), (), ()]))
    chain = score([(), (0,), (1,)])
    assert chain == pytest.approx(score([(1,), (), (1,)]))
    assert chain == pytest.approx(score([(1,), (2,), ()]))


def test_bdeu_tells_a_chain_from_a_v_structure() -> None:
    data = sample(0, arities=(2, 3, 4))
    chain, collider = ([(), (0,), (1,)], [(), (0, 2), ()])
    scores = [network_score(data, (2, 3, 4), parents, "bdeu") for parents in (chain, collider)]
    assert abs(scores[0] - scores[1]) > 1


def test_network_score_is_the_sum_of_local_scores() -> None:
    data, arities = sample(3), (2, 3, 4, 2)
    parents = [(), (0,), (1, 0), ()]
    local = sum(bic_score(data, arities, v, parents[v]) for v in range(4))
    assert network_score(data, arities, parents) == pytest.approx(local)
    local = sum(bdeu_score(data, arities, v, parents[v], equivalent_sample_size=3) for v in range(4))
    assert network_score(data, arities, parents, "bdeu", equivalent_sample_size=3) == pytest.approx(local)


@pytest.mark.parametrize("score", ["bic", "bdeu"])
def test_sparse_counts_equal_dense_counts(monkeypatch: pytest.MonkeyPatch, score: str) -> None:
    data, arities, parents = sample(4), (2, 3, 4, 2), [(1, 2, 3), (2, 3), (3,), ()]
    dense = network_score(data, arities, parents, score)
    monkeypatch.setattr(structure, "_DENSE_CELLS", 5)
    assert network_score(data, arities, parents, score) == pytest.approx(dense)


def test_huge_arities_need_no_table() -> None:
    data = np.random.default_rng(0).integers(60_000, size=(50, 6))
    score = bdeu_score(data, [60_000] * 6, 0, [1, 2, 3, 4, 5])  # 60000^6 cells, beyond 64 bits
    assert score == pytest.approx(-50 * math.log(60_000), rel=1e-6)


def best_network_score(data: np.ndarray, arities: list[int], max_parents: int, score: str) -> float:
    """The highest score of all networks: over all orders and all parent sets."""
    names = range(len(arities))
    local = {
        (v, frozenset(ps)): (bic_score if score == "bic" else bdeu_score)(data, arities, v, ps)
        for v in names
        for k in range(max_parents + 1)
        for ps in itertools.combinations([u for u in names if u != v], k)
    }
    return max(
        sum(max(s for (v, ps), s in local.items() if v == order[i] and ps <= set(order[:i])) for i in names)
        for order in itertools.permutations(names)
    )


@pytest.mark.parametrize("score", ["bic", "bdeu"])
@pytest.mark.parametrize("max_parents", [0, 1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_search_finds_the_best_of_all_small_networks(seed: int, max_parents: int, score: str) -> None:
    data, arities = binary(seed, 300, 5)[:, [3, 1, 4, 0, 2]], [2] * 5
    found = greedy_order_search(data, arities, max_parents=max_parents, score=score)
    assert max(map(len, found)) <= max_parents
    expected = best_network_score(data, arities, max_parents, score)
    assert network_score(data, arities, found, score) == pytest.approx(expected, abs=1e-5)


def test_v_structure_is_recovered() -> None:
    rng = np.random.default_rng(0)
    a, c, flip = rng.random((3, 4000)) < [[0.4], [0.7], [0.1]]
    data = np.stack([a ^ False, (a | c) ^ flip, c], axis=1).astype(np.int64)
    for score in ("bic", "bdeu"):
        assert greedy_order_search(data, [2, 2, 2], score=score) == [(), (0, 2), ()]


def test_a_certain_child_is_not_pruned() -> None:
    copies = np.array([[0, 0], [1, 1]] * 2)  # given its parent the child reaches the bound of its score
    assert sum(map(len, greedy_order_search(copies, [2, 2]))) == 1


def test_parity_is_found_without_pairwise_information() -> None:
    bits = np.random.default_rng(0).integers(2, size=(500, 5))
    bits[:, 4] = bits[:, 0] ^ bits[:, 1] ^ bits[:, 2]
    found = greedy_order_search(bits, [2] * 5)
    assert sorted(map(len, found)) == [0, 0, 0, 0, 3]
    assert max(map(len, greedy_order_search(bits, [2] * 5, max_parents=2))) < 3


@given(
    seed=st.integers(0, 10_000),
    variables=st.integers(1, 7),
    max_parents=st.integers(0, 4),
    candidates=st.integers(0, 6),
    restarts=st.integers(0, 3),
    score=st.sampled_from(["bic", "bdeu"]),
)
@settings(max_examples=60, deadline=None)
def test_search_invariants(
    seed: int, variables: int, max_parents: int, candidates: int, restarts: int, score: str
) -> None:
    data, arities = binary(seed, 40, variables), [2] * variables

    def search() -> list[tuple[int, ...]]:
        return greedy_order_search(
            data,
            arities,
            max_parents=max_parents,
            score=score,
            seed=seed,
            restarts=restarts,
            candidates=candidates,
        )

    found = search()
    assert sorted(topological_order(found)) == list(range(variables))  # raises on a cycle
    assert all(len(p) <= max_parents and list(p) == sorted(p) for p in found)
    assert found == search()
    floor = chow_liu(data, arities) if max_parents > 0 else [()] * variables
    assert network_score(data, arities, found, score) >= network_score(data, arities, floor, score) - 1e-5


def test_restarts_and_candidates_only_help() -> None:
    data, arities = binary(15, 400, 14), [2] * 14
    scores = [
        network_score(data, arities, greedy_order_search(data, arities, restarts=r, candidates=c, seed=1))
        for r, c in ((0, 0), (0, 13), (20, 13))
    ]
    assert scores[0] < scores[1] < scores[2]


def test_order_takes_the_smallest_free_index() -> None:
    assert topological_order([(), (), ()]) == [0, 1, 2]
    assert topological_order([(3,), (), (1,), ()]) == [1, 2, 3, 0]
    assert topological_order([(), (2,), (0,), (1, 2)]) == [0, 2, 1, 3]
    assert topological_order([(), (), (0,), ()]) == [0, 1, 2, 3]  # 2 becomes free before 1 is taken
    assert topological_order([]) == []


def test_cycle_is_named() -> None:
    with pytest.raises(ValueError, match=r"no cycle, got (a -> b -> a|b -> a -> b)$"):
        topological_order([(1,), (0,), (1,)], names=["a", "b", "c"])
    with pytest.raises(ValueError, match="got") as caught:
        topological_order([(), (0, 3), (1,), (2,), (3,)])
    with pytest.raises(ValueError, match="no cycle, got"):
        network_score(GOOD, [2, 2], [(1,), (0,)])
    path = str(caught.value).split("got ")[1].split(" -> ")
    assert path[0] == path[-1]
    assert set(itertools.pairwise(path)) == {("1", "2"), ("2", "3"), ("3", "1")}  # parent -> child


@pytest.mark.parametrize(
    "parents, message",
    [
        ([(), (2,)], r"distinct and in 0\.\.1, got 1 and \[2\]"),
        ([(), (-1,)], r"in 0\.\.1, got 1 and \[-1\]"),
        ([(), (1,)], r"distinct .* got 1 and \[1\]"),
        ([(), (), (0, 1, 0)], r"distinct .* got 2 and \[0, 1, 0\]"),
    ],
)
def test_bad_parents_are_refused(parents: list[tuple[int, ...]], message: str) -> None:
    data = np.zeros((3, len(parents)), dtype=int)
    with pytest.raises(ValueError, match=message):
        topological_order(parents)
    with pytest.raises(ValueError, match=message):
        draw(parents)
    with pytest.raises(ValueError, match=message):
        network_score(data, [2] * len(parents), parents)
    for local in (bic_score, bdeu_score):
        with pytest.raises(ValueError, match=message):
            local(data, [2] * len(parents), len(parents) - 1, parents[-1])


GOOD = np.array([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    "data, arities, message",
    [
        (GOOD.astype(float), [2, 2], r"integer array \(N, D\), got float64"),
        (GOOD[0], [2, 2], r"integer array \(N, D\), got int64 of shape \(2,\)"),
        (GOOD[:0], [2, 2], r"non-empty .* shape \(0, 2\)"),
        (GOOD[:, :0], [], r"non-empty .* shape \(2, 0\)"),
        (GOOD, [2, 2, 2], r"arities must be 2 integers >= 1.*got \[2, 2, 2\]"),
        (GOOD, [2, 0], r"arities must be 2 integers >= 1"),
        (GOOD, [2.0, 2.0], r"arities must be 2 integers >= 1"),
        (GOOD + 1, [3, 2], r"data\[0, 1\] must be in 0\.\.1, got 2"),
        (GOOD - 1, [2, 2], r"data\[0, 0\] must be in 0\.\.1, got -1"),
    ],
)
def test_bad_data_are_refused(data: np.ndarray, arities: list[int], message: str) -> None:
    calls = [
        lambda: mutual_information(data, arities),
        lambda: chow_liu(data, arities),
        lambda: bic_score(data, arities, 0, []),
        lambda: bdeu_score(data, arities, 0, []),
        lambda: network_score(data, arities, [(), ()]),
        lambda: greedy_order_search(data, arities),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_bad_options_are_refused() -> None:
    for pseudo_count in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="pseudo_count must be a finite number >= 0, got"):
            mutual_information(GOOD, [2, 2], pseudo_count)
        with pytest.raises(ValueError, match="pseudo_count must be a finite number >= 0, got"):
            chow_liu(GOOD, [2, 2], pseudo_count=pseudo_count)
    with pytest.raises(ValueError, match=r"root must be in 0\.\.1, got 2"):
        chow_liu(GOOD, [2, 2], root=2)
    with pytest.raises(ValueError, match=r"in 0\.\.1, got 5 and \[0\]"):
        bic_score(GOOD, [2, 2], 5, [0])
    with pytest.raises(ValueError, match="score must be 'bic' or 'bdeu', got 'aic'"):
        network_score(GOOD, [2, 2], [(), ()], "aic")
    with pytest.raises(ValueError, match="parents must have 2 entries, one per column, got 1"):
        network_score(GOOD, [2, 2], [()])
    with pytest.raises(ValueError, match="score must be 'bic' or 'bdeu', got 'aic'"):
        greedy_order_search(GOOD, [2, 2], score="aic")
    for name in ("max_parents", "restarts", "candidates"):
        with pytest.raises(ValueError, match=f"{name} must be >= 0, got -1"):
            greedy_order_search(GOOD, [2, 2], **{name: -1})
    for size in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="equivalent_sample_size must be a finite number > 0, got"):
            bdeu_score(GOOD, [2, 2], 0, [], equivalent_sample_size=size)
    for function in (topological_order, draw):
        with pytest.raises(ValueError, match="names must have 2 entries, one per variable, got 1"):
            function([(), (0,)], ["a"])


def test_drawing_of_a_forest() -> None:
    parents = [(), (0,), (0,), (1,), (1,), (), (5,)]
    assert draw(parents, list("abcdefg")).splitlines() == [
        "a",
        "├── b",
        "│   ├── d",
        "│   └── e",
        "└── c",
        "f",
        "└── g",
    ]


def test_drawing_of_a_graph_names_the_further_parents() -> None:
    assert draw([(), (), (1, 0), (2, 0, 1)], ["A", "B", "C", "D"]).splitlines() == [
        "A",
        "B",
        "└── C  (+ A)",
        "    └── D  (+ A, B)",
    ]
    assert draw([(1,), ()]) == "1\n└── 0"


def test_drawing_of_a_deep_chain_stays_narrow() -> None:
    names = [f"x{v}" for v in range(64)]
    text = draw([(), *((v,) for v in range(63))], names)
    assert max(map(len, text.splitlines())) <= 80
    shown = [line.replace("└── ", "").strip() for line in text.splitlines()]
    assert [name for name in shown if not name.endswith(" ...")] == [
        f"... {name}" if f"{name} ..." in shown else name for name in names
    ]


def test_cut_branches_follow_at_the_end() -> None:
    parents = [(), *((v,) for v in range(18)), (14,), (0,), ()]  # a chain of 19, leaves 19 and 20, a second root
    lines = draw(parents).splitlines()
    assert [line.strip("│ ") for line in lines[14:]] == [
        *("└── 14", "├── 15", "└── 16 ...", "└── 19", "└── 20"),
        *("21", "... 16", "└── 17", "└── 18"),
    ]


@given(seed=st.integers(0, 10_000), variables=st.integers(1, 64))
@settings(max_examples=30, deadline=None)
def test_drawing_shows_each_variable_once(seed: int, variables: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(variables)
    parents: list[tuple[int, ...]] = [()] * variables
    for i, v in enumerate(order):
        parents[v] = tuple(rng.permutation(order[:i])[: rng.integers(4)].tolist())
    lines = draw(parents).splitlines()
    heads = [line.split("  (+")[0].lstrip("│├└─ .") for line in lines if not line.endswith(" ...")]
    assert sorted(heads, key=int) == [str(v) for v in range(variables)]
    further = Counter(line.count(",") + 1 for line in lines if "(+" in line and not line.endswith(" ..."))
    assert further == Counter(len(p) - 1 for p in parents if len(p) > 1)
