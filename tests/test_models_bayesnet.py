"""Bayes nets and the full table against counts made by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import stats
from torch import Tensor

from seriatim.fitting import fit
from seriatim.models import BayesNet, FullTable
from seriatim.runs import load, save
from seriatim.tasks import complete
from seriatim.testing import CHECKS, check

ARITIES = [2, 3, 2, 4]
PARENTS = [(2,), (0, 3), (), (2,)]


def rows(count: int, seed: int = 0) -> Tensor:
    """Rows in which the variables depend on each other."""
    generator = np.random.default_rng(seed)
    c = generator.integers(2, size=count)
    a = np.where(generator.random(count) < 0.8, c, 1 - c)
    d = (c + generator.integers(3, size=count)) % 4
    b = (a + d) % 3
    return torch.tensor(np.stack([a, b, c, d], axis=1))


def by_hand(data: Tensor, row: tuple[int, ...], alpha: float) -> float:
    """log p of a row under PARENTS, from counts in a loop."""
    table = [tuple(r) for r in data.tolist()]
    total = 0.0
    for v, parents in enumerate(PARENTS):
        given_parents = [r for r in table if all(r[p] == row[p] for p in parents)]
        same = sum(r[v] == row[v] for r in given_parents)
        p = (same + alpha) / (len(given_parents) + alpha * ARITIES[v])
        total += math.log(p) if p else -math.inf
    return total


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_a_fit_is_the_smoothed_frequency_of_each_row_of_the_tables(alpha):
    data = rows(60)
    net = BayesNet((4,), ARITIES, PARENTS).double().fit_counts(data, pseudo_count=alpha)
    for row in itertools.product(*(range(k) for k in ARITIES)):
        assert net.log_prob(torch.tensor(row)).item() == pytest.approx(by_hand(data, row, alpha), abs=1e-9)


@given(st.integers(0, 50), st.floats(0, 3))
def test_a_fit_sums_to_one(seed, alpha):
    net = BayesNet((4,), ARITIES, PARENTS).double().fit_counts(rows(8, seed), pseudo_count=alpha)
    space = torch.tensor(list(itertools.product(*(range(k) for k in ARITIES))))
    assert net.log_prob(space).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_a_row_of_a_table_never_seen_is_uniform_without_a_pseudo_count():
    data = torch.tensor([[0, 0], [0, 1], [0, 1]])
    net = BayesNet((2,), [2, 3], [(), (0,)]).double().fit_counts(data, pseudo_count=0)
    seen = net.log_prob(torch.tensor([[0, 0], [0, 1], [0, 2]])).exp()
    torch.testing.assert_close(seen, torch.tensor([1 / 3, 2 / 3, 0]).double())
    assert net.log_prob(torch.tensor([1, 0])).item() == -math.inf
    forced = net().conditionals(torch.tensor([[1, 0]])).probs[0, 1]
    torch.testing.assert_close(forced, torch.full((3,), 1 / 3).double())


def test_the_fit_does_not_depend_on_how_places_are_laid_out():
    data = rows(50)
    flat = BayesNet((4,), ARITIES, PARENTS).double().fit_counts(data)
    square = BayesNet((2, 2), ARITIES, PARENTS).double().fit_counts(data.reshape(-1, 2, 2))
    torch.testing.assert_close(flat.log_prob(data), square.log_prob(data.reshape(-1, 2, 2)))
    assert square.sample((3,), seed=0).shape == (3, 2, 2)
    assert torch.equal(square.sample((9,), seed=0).flatten(1), flat.sample((9,), seed=0))


def test_arrays_and_tensors_fit_alike():
    data = rows(30)
    a = BayesNet((4,), ARITIES, PARENTS).fit_counts(data.numpy().astype(np.uint8))
    b = BayesNet((4,), ARITIES, PARENTS).fit_counts(data)
    assert torch.equal(a.table.logits, b.table.logits)


def test_samples_of_a_net_have_the_frequencies_it_was_fitted_to():
    net = BayesNet((4,), ARITIES, PARENTS).double().fit_counts(rows(200))
    again = BayesNet((4,), ARITIES, PARENTS).double().fit_counts(net.sample((20_000,), seed=0), pseudo_count=0)
    space = torch.tensor(list(itertools.product(*(range(k) for k in ARITIES))))
    torch.testing.assert_close(again.log_prob(space).exp(), net.log_prob(space).exp(), rtol=0, atol=0.01)


def test_the_full_table_is_the_empirical_distribution():
    data = rows(40)
    table = FullTable((4,), ARITIES).double().fit_counts(data, pseudo_count=0)
    counts = Counter(tuple(row) for row in data.tolist())
    for row in itertools.product(*(range(k) for k in ARITIES)):
        expected = math.log(counts[row] / 40) if counts[row] else -math.inf
        got = table.log_prob(torch.tensor(row)).item()
        assert got == expected or got == pytest.approx(expected, abs=1e-9)


def test_samples_of_the_empirical_distribution_are_rows_of_the_data():
    data = rows(20)
    table = FullTable((4,), ARITIES).fit_counts(data, pseudo_count=0)
    drawn = {tuple(row) for row in table.sample((500,), seed=0).tolist()}
    assert drawn <= {tuple(row) for row in data.tolist()}
    assert len(drawn) > 5


def test_a_full_table_too_large_says_what_it_would_need():
    with pytest.raises(ValueError, match=r"event_shape: expected tables of at most 67,108,864 cells, got 134,217,726 "):
        FullTable((26,))
    assert FullTable((12,)).table.logits.shape == (2**12 - 1, 2)


def test_tables_too_large_are_refused_before_they_are_made():
    with pytest.raises(ValueError, match=r"parents: expected tables of at most 67,108,864 cells, got .* cells"):
        BayesNet((40,), 2, [()] * 39 + [tuple(range(39))])


@pytest.mark.parametrize(
    "parents, names, message",
    [
        ([(1,), (0,)], None, r"parents must have no cycle, got (0 -> 1 -> 0|1 -> 0 -> 1)"),
        ([(1,), (0,)], ["rain", "grass"], r"no cycle, got (rain -> grass -> rain|grass -> rain -> grass)"),
        ([(0,), ()], None, r"distinct.*got 0 and \[0\]"),
        ([(2,), ()], None, r"distinct.* 0..1, got 0 and \[2\]"),
        ([(1, 1), ()], None, r"distinct.*got 0 and \[1, 1\]"),
        ([()], None, r"parents: expected one for each of 2 places, got 1"),
        ([(), ()], ["rain"], r"names: expected one for each of 2 places, got 1"),
    ],
)
def test_a_bad_graph_is_refused(parents, names, message):
    with pytest.raises(ValueError, match=message):
        BayesNet((2,), 2, parents, names=names)


def test_a_long_cycle_is_named():
    parents = [((v + 1) % 6,) for v in range(6)]
    with pytest.raises(ValueError, match="no cycle, got") as error:
        BayesNet((6,), 2, parents)
    assert len(set(str(error.value).split("got ")[1].split(" -> "))) == 6


@pytest.mark.parametrize("alpha", [-1.0, math.nan])
def test_a_bad_pseudo_count_is_refused(alpha):
    with pytest.raises(ValueError, match="pseudo_count: expected a number >= 0, got"):
        BayesNet((4,), ARITIES, PARENTS).fit_counts(rows(5), pseudo_count=alpha)


def test_data_outside_the_arities_is_refused():
    data = rows(5)
    data[3, 1] = 3
    with pytest.raises(ValueError, match=r"value: expected codes .*, got 3 at \(3, 1\)"):
        BayesNet((4,), ARITIES, PARENTS).fit_counts(data)


def test_independent_places_where_no_parents_are_given():
    data = rows(100)
    net = BayesNet((4,), ARITIES).double().fit_counts(data, pseudo_count=0)
    expected = sum(math.log(float((data[:, v] == data[0, v]).double().mean())) for v in range(4))
    assert net.log_prob(data[0]).item() == pytest.approx(expected)


def test_learning_finds_the_tree():
    generator = np.random.default_rng(0)
    a = generator.integers(2, size=2000)
    noisy = [np.where(generator.random(2000) < p, a, 1 - a) for p in (0.95, 0.9)]
    chain = np.where(generator.random(2000) < 0.9, noisy[0], 1 - noisy[0])
    net = BayesNet.learn(np.stack([a, *noisy, chain], axis=1))
    assert net.parents == [(), (0,), (0,), (1,)]
    assert BayesNet.learn(np.stack([a, *noisy], axis=1), method="independent").parents == [(), (), ()]
    with pytest.raises(ValueError, match="method: expected 'chow_liu', 'search' or 'independent', got 'magic'"):
        BayesNet.learn(np.stack([a, a], axis=1), method="magic")


def test_learning_finds_what_no_tree_can_hold():
    generator = np.random.default_rng(0)
    a, b = generator.integers(2, size=(2, 1000))
    data = np.stack([a, b, np.where(generator.random(1000) < 0.95, a & b, generator.integers(2, size=1000))], axis=1)
    tree, net = (BayesNet.learn(data, method=method) for method in ("chow_liu", "search"))
    assert max(len(parents) for parents in net.parents) == 2
    x = torch.tensor(data)
    assert net.log_prob(x).mean().item() > tree.log_prob(x).mean().item() + 0.05


def test_the_arities_are_those_given_or_seen():
    data = np.array([[0, 2], [1, 0]])
    assert BayesNet.learn(data).arities == [2, 3]
    assert BayesNet.learn(data, 4).arities == [4, 4]
    assert BayesNet.learn(data, [2, 5]).arities == [2, 5]


def test_a_net_reads_as_tables():
    net = BayesNet((2,), [2, 3], [(1,), ()], names=["wet", "sky"])
    text = str(net.fit_counts(torch.tensor([[0, 0], [0, 0], [1, 2], [0, 2]]), pseudo_count=0))
    assert text.splitlines() == [
        "p(sky)",
        "       0      1      2",
        "  0.5000 0.0000 0.5000",
        "p(wet | sky)",
        "  sky |      0      1",
        "    0 | 1.0000 0.0000",
        "    1 | 0.5000 0.5000",
        "    2 | 0.5000 0.5000",
    ]
    assert net.draw().splitlines() == ["sky", "└── wet"]


def weather() -> BayesNet:
    """A net of a table with gaps: wet if it rains, unknown if the rain is."""
    frame = {"rain": ["no", "yes", None, "no"] * 25, "ground": ["dry", "wet", None, "dry"] * 25}
    return fit(frame, "bayesnet", pseudo_count=0)


def test_a_net_of_a_table_shows_the_names_of_its_categories():
    assert str(weather()).splitlines() == [
        "p(rain)",
        "      no    yes (unseen) (missing)",
        "  0.5000 0.2500   0.0000    0.2500",
        "p(ground | rain)",
        "       rain |    dry    wet (unseen) (missing)",
        "         no | 1.0000 0.0000   0.0000    0.0000",
        "        yes | 0.0000 1.0000   0.0000    0.0000",
        "   (unseen) | 0.2500 0.2500   0.2500    0.2500",
        "  (missing) | 0.0000 0.0000   0.0000    1.0000",
    ]


def test_a_missing_value_is_a_symbol_of_a_table(tmp_path):
    net = load(save(weather(), tmp_path))
    gap = {"rain": [None, "no"], "ground": [None, None]}
    np.testing.assert_allclose(net.score_samples(gap), [math.log(1 / 4), -math.inf], rtol=1e-6)
    drawn = net.schema.decode(net.sample((200,), seed=0).numpy())
    assert set(zip(drawn["rain"], drawn["ground"], strict=True)) == {("no", "dry"), ("yes", "wet"), (None, None)}
    for observed in ([True, False], [False, True]):  # a prefix, and a sweep of the tree
        done = complete(net, {"rain": [None], "ground": [None]}, np.array(observed), num=3, seed=0)
        assert done.samples.isnan().all()
        torch.testing.assert_close(done.log_prob, torch.zeros_like(done.log_prob))
    assert fit({"a": ["x", None] * 20}, "full_table").score_samples({"a": [None]})[0] == pytest.approx(-0.69, abs=0.02)


def test_a_net_with_missing_values_keeps_the_contract():
    net = BayesNet((3,), [3, 4, 3], [(), (0,), (0, 1)], missing=True)
    torch.nn.init.normal_(net.table.logits, generator=torch.Generator().manual_seed(0))
    report = check(net, only=[name for name in CHECKS if name not in ("point_mass", "gradients")])
    assert report.ok, str(report)
    with pytest.raises(ValueError, match=r"expected codes .* or NaN .missing., got 2.0 at \(0, 2\)"):
        net.log_prob(torch.tensor([[0.0, torch.nan, 2.0]]))
    conditionals = net().conditionals(net.sample((4000,), seed=1))
    u = conditionals.randomized_cdf(net.sample((4000,), seed=1))
    assert stats.kstest(u[:, 2].detach().numpy(), "uniform").pvalue > 1e-6


def test_a_long_table_is_cut():
    net = BayesNet((3,), [6, 6, 2], [(), (), (0, 1)])
    lines = str(net).splitlines()
    assert lines[-1] == "  ... 20 more rows"
    assert len(lines[6:]) == 2 + 16 + 1


def test_labels_of_a_table_are_the_values_of_its_parents():
    data = rows(60)
    net = BayesNet((4,), ARITIES, PARENTS).fit_counts(data, pseudo_count=0)
    text = str(net).split("p(x2 | x1, x4)")[1].splitlines()[2:10]
    for line in text:
        label, cells = line.split("|")
        x1, x4 = (int(value) for value in label.split())
        own = data[(data[:, 0] == x1) & (data[:, 3] == x4), 1]
        expected = torch.bincount(own, minlength=3) / max(len(own), 1) if len(own) else torch.full((3,), 1 / 3)
        assert [float(cell) for cell in cells.split()] == pytest.approx(expected.tolist(), abs=1e-4)


def test_no_joint_table_is_built():
    """A hundred variables of ten values in a chain: 10^100 states, a thousand rows of tables."""
    net = BayesNet((100,), 10, [(), *((v - 1,) for v in range(1, 100))])
    data = net.sample((50,), seed=0)
    assert net.fit_counts(data).log_prob(data).isfinite().all()
    assert net.table.logits.shape == (1 + 99 * 10, 10)


def test_gradients_fit_what_counts_fit():
    data = rows(200)
    counted = BayesNet((4,), ARITIES, PARENTS).double().fit_counts(data, pseudo_count=0.01)
    trained = BayesNet((4,), ARITIES, PARENTS).double()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss = -trained.log_prob(data).mean()
        loss.backward()
        optimizer.step()
    assert -trained.log_prob(data).mean().item() == pytest.approx(-counted.log_prob(data).mean().item(), abs=0.01)
