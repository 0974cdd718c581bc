"""Completions against enumeration: exact samples and probabilities, observed values untouched, others refused."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from seriatim.columns import Columns
from seriatim.context import Labels
from seriatim.data import from_frame, infer_schema
from seriatim.ending import Ending
from seriatim.heads import Categorical, Normal, QuantizedMixtureOfLogistics
from seriatim.models import FVSBN, LSTM, MADE, BayesNet, GatedPixelCNN, OrderAgnosticMADE, PixelCNN
from seriatim.order import Order, Scan
from seriatim.tasks import complete, log_prob_given, region
from test_tasks import bits, roughened


def enumerated(log_prob, row, mask):
    """List all completions of a row (M, *shape), and log p(missing | observed) of each, by summing the joint."""
    places = mask.flatten().nonzero().squeeze(1).tolist()
    missing = [t for t in range(mask.numel()) if t not in places]
    rows = torch.as_tensor(row).flatten().repeat(2 ** len(missing), 1).double()
    rows[:, missing] = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(missing)))).double()
    rows = rows.reshape(-1, *mask.shape)
    joint = log_prob(rows).detach().double()
    return rows, joint - joint.logsumexp(0)


def assert_follows(samples, rows, log_p):
    """Chi-square of samples (N, *shape) against the probabilities of the listed rows."""
    powers = 2.0 ** torch.arange(rows[0].numel()).double()
    codes = (rows.flatten(1).double() @ powers).long()
    drawn = (samples.flatten(1).double() @ powers).long()
    counts = (drawn[:, None] == codes).sum(0).double()
    assert int(counts.sum()) == len(samples)
    expected = log_p.exp() * len(samples)
    keep = expected >= 5
    observed = torch.cat([counts[keep], counts[~keep].sum()[None]])
    wanted = torch.cat([expected[keep], expected[~keep].sum()[None]])
    used = wanted > 0
    statistic = float(((observed - wanted)[used] ** 2 / wanted[used]).sum())
    assert stats.chi2.sf(statistic, max(1, int(used.sum()) - 1)) > 1e-6


def tree_model():
    parents = [(4,), (0,), (1,), (0,), (), (4,), (3,), (6,), (6,)]
    return BayesNet((3, 3), 2, parents).fit_counts(torch.as_tensor(bits(40, 3, 3)), 0.3)


def any_order_model():
    return roughened(OrderAgnosticMADE((3, 3), hidden_features=(14,)))


@pytest.mark.parametrize("name", ["top", "left", "center"])
@pytest.mark.parametrize("make", [tree_model, any_order_model], ids=["tree", "any_order"])
def test_any_mask_agrees_with_enumeration(make, name):
    model, x = make(), bits(3, 3, 3)
    mask = region(name, (3, 3))
    done = complete(model, x, mask, num=4000, seed=0, batch_size=6000)
    joint = model
    if done.exactness == "exact for this order":
        places = torch.cat([mask.flatten().nonzero(), (~mask).flatten().nonzero()]).squeeze(1)
        joint = model(order=Order((3, 3), places))
    for n in range(3):
        rows, log_p = enumerated(joint.log_prob, x[n], mask)
        assert_follows(done.samples[:, n], rows, log_p)
        for k in range(5):
            which = (rows == done.samples[k, n]).flatten(1).all(1).nonzero().item()
            assert float(done.log_prob[k, n]) == pytest.approx(float(log_p[which]), abs=1e-5)
        own = (rows == torch.as_tensor(x[n])).flatten(1).all(1).nonzero().item()
        assert float(log_prob_given(model, x, mask)[n]) == pytest.approx(float(log_p[own]), abs=1e-5)


@pytest.mark.parametrize(
    "order, name", [(None, "top"), (Scan((3, 3), flip_rows=True), "bottom"), (Scan((3, 3), transpose=True), "left")]
)
def test_prefixes_of_the_own_order_are_exact(order, name):
    model, x = roughened(MADE((3, 3), hidden_features=(16,), order=order)), bits(2, 3, 3)
    done = complete(model, x, name, num=3000, seed=1)
    assert done.exactness == "exact"
    mask = region(name, (3, 3))
    for n in range(2):
        rows, log_p = enumerated(model.log_prob, x[n], mask)
        assert_follows(done.samples[:, n], rows, log_p)
        which = (rows == done.samples[0, n]).flatten(1).all(1).nonzero().item()
        assert float(done.log_prob[0, n]) == pytest.approx(float(log_p[which]), abs=1e-5)
    whole = log_prob_given(model, x, torch.zeros(3, 3, dtype=torch.bool))
    torch.testing.assert_close(whole, model.log_prob(torch.as_tensor(x)).detach())


@pytest.mark.parametrize("name", ["bottom", "left", "center", "border"])
def test_other_patterns_are_refused_with_the_reason(name):
    with pytest.raises(ValueError, match="prefix of the model's order, got place") as error:
        complete(MADE((4, 4), hidden_features=(8,)), bits(1, 4, 4), name)
    assert "e.g. the region top" in str(error.value)
    assert "without place" in str(error.value)


def test_a_net_with_two_parents_takes_prefixes_only():
    net = BayesNet((3,), 2, [(), (), (0, 1)])
    assert complete(net, bits(1, 3), [True, True, False], seed=0).exactness == "exact"
    with pytest.raises(ValueError, match="prefix"):
        complete(net, bits(1, 3), [False, True, True])


def test_observed_values_come_back_bit_for_bit_and_missing_ones_are_not_read():
    model = roughened(MADE((6,), Normal(), hidden_features=(10,)))
    x = np.random.default_rng(0).normal(size=(4, 6))
    mask = np.array([True] * 3 + [False] * 3)
    done = complete(model, x, mask, num=5, seed=0)
    assert done.samples.dtype == torch.float64
    assert np.array_equal(done.samples[:, :, :3].numpy(), np.broadcast_to(x[:, :3], (5, 4, 3)))
    x[:, 3:] = np.nan
    torch.testing.assert_close(complete(model, x, mask, num=5, seed=0).samples, done.samples, rtol=0, atol=0)


def test_a_completion_depends_on_its_number_and_row_only():
    model, x = roughened(MADE((8,), hidden_features=(10,))), bits(5, 8)
    mask = torch.arange(8) < 3
    many = complete(model, x, mask, num=6, seed=2)
    few = complete(model, x[:2], mask, num=3, seed=2, batch_size=1)
    torch.testing.assert_close(few.samples, many.samples[:3, :2])
    torch.testing.assert_close(few.log_prob, many.log_prob[:3, :2])
    assert many.samples.dtype == torch.uint8
    assert not torch.equal(many.samples, complete(model, x, mask, num=6, seed=3).samples)
    assert not torch.equal(many.samples[0], many.samples[1])


def sizes(**more):
    return {"hidden_features": 6, "num_layers": 2, **more}


NATIVE = {
    "made": (lambda: MADE((4, 4), Categorical(3), hidden_features=(20,)), "top"),
    "any order": (lambda: OrderAgnosticMADE((4, 4), hidden_features=(20,)), "border"),
    "image": (lambda: GatedPixelCNN((4, 4), QuantizedMixtureOfLogistics(8, 2), **sizes(encoder=Labels(3))), "top"),
    "scan": (lambda: PixelCNN((4, 4), **sizes(order=Scan((4, 4), transpose=True))), "left"),
    "reals": (lambda: MADE((4, 4), Normal(), hidden_features=(20,)), "top"),
    "ends": (lambda: LSTM((16,), Ending(Categorical(4)), hidden_features=6), torch.arange(16) < 5),
    "nothing given": (lambda: FVSBN((16,)), torch.zeros(16, dtype=torch.bool)),
    "all but one": (lambda: FVSBN((16,)), torch.arange(16) < 15),
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_completions_are_those_of_the_reference(name):
    make, mask = NATIVE[name]
    model = roughened(make())
    if not model.head.discrete:
        for parameter in model.parameters():  # values that do not grow from position to position
            parameter.data.mul_(0.2)
    context = torch.tensor([2, 0, 1]) if model.encoder is not None else None
    x = model(context).sample(() if context is not None else (3,), seed=9)
    options = {"num": 3, "seed": 4, "context": context}
    found, wanted = (complete(model, x, mask, engine=engine, **options) for engine in ("native", "reference"))
    torch.testing.assert_close(found.samples, wanted.samples, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.log_prob, wanted.log_prob, rtol=1e-5, atol=1e-3)
    terms = log_prob_given(model, found.samples[1], mask, context=context)
    torch.testing.assert_close(found.log_prob[1], terms, rtol=1e-5, atol=1e-3)
    parts = complete(model, x, mask, batch_size=2, **options)
    torch.testing.assert_close(parts.samples, found.samples, rtol=1e-4, atol=1e-4)
    assert found.samples.dtype == wanted.samples.dtype == x.dtype


def test_native_is_refused_where_it_cannot_be():
    model = roughened(MADE((4, 4), hidden_features=(5,))).double()
    with pytest.raises(ValueError, match=r"engine: .* natively, but the tape is float32"):
        complete(model, torch.ones(1, 4, 4), "top", engine="native")
    assert complete(model, torch.ones(1, 4, 4), "top").samples.shape == (8, 1, 4, 4)


def test_contexts_go_with_their_rows():
    model = roughened(FVSBN((5,), encoder=Labels(2)))
    x, mask = np.repeat(bits(1, 5), 2, axis=0), torch.arange(5) < 2
    both = complete(model, x, mask, num=4, seed=0, context=[0, 1])
    assert both.log_prob.shape == (4, 2)
    for n in range(2):
        rows, log_p = enumerated(model(torch.tensor(n)).log_prob, x[n], mask)
        which = (rows == both.samples[0, n]).all(1).nonzero().item()
        assert float(both.log_prob[0, n]) == pytest.approx(float(log_p[which]), abs=1e-5)


def test_all_and_nothing_observed():
    model, x = roughened(MADE((4,), hidden_features=(8,))), bits(2, 4)
    done = complete(model, x, torch.ones(4, dtype=torch.bool), num=2, seed=0)
    assert torch.equal(done.samples[1], torch.as_tensor(x))
    assert (done.log_prob == 0).all()
    free = complete(model, x, torch.zeros(4, dtype=torch.bool), num=3, seed=0)
    torch.testing.assert_close(free.log_prob, model.log_prob(free.samples).detach())


@pytest.mark.parametrize(
    "observed, words",
    [
        (torch.ones(3, 3), "True and False"),
        (torch.ones(2, 2, dtype=torch.bool), "shape"),
        ("upper", "top, bottom"),
    ],
)
def test_bad_masks_are_refused(observed, words):
    with pytest.raises(ValueError, match=words):
        complete(MADE((3, 3), hidden_features=(8,)), bits(1, 3, 3), observed)


def test_bad_values_and_models_are_refused():
    model = MADE((3,), hidden_features=(8,))
    with pytest.raises(ValueError, match="value"):
        complete(model, np.array([[2, 0, 0]]), [True, False, False])
    with pytest.raises(ValueError, match="num"):
        complete(model, bits(1, 3), [True, False, False], num=0)
    with pytest.raises(ValueError, match="ensemble"):
        complete(OrderAgnosticMADE((3,), hidden_features=(8,)).ensemble(2), bits(1, 3), [True, False, False])
    with pytest.raises(ValueError, match="rows and columns"):
        region("top", (5,))
    certain = BayesNet((2,), 2, [(), (0,)]).fit_counts(torch.tensor([[0, 0], [1, 1], [0, 0]]), 0)
    certain.parents, certain.table.logits.data[0, 1] = [(), (0,)], -torch.inf
    with pytest.raises(ValueError, match="positive probability"):
        complete(certain, torch.tensor([[0, 1]]), [False, True])


def test_tables_come_as_frames_and_errors_name_the_column():
    frame = {"town": ["Ulm", "Bonn", "Ulm", "Bonn"] * 10, "age": [20.5, 41.0, 22.5, 43.25] * 10}
    schema, _ = infer_schema(from_frame(frame))
    model = roughened(MADE((2,), Columns.of(schema), hidden_features=(4,)))
    model.schema = schema
    rows = {"age": [None, 30.0], "town": ["Ulm", "Kiel"]}  # columns go by name
    observed = torch.tensor([True, False])
    done = complete(model, rows, observed, num=2, seed=0)
    assert torch.equal(done.samples, complete(model, model.schema.encode(rows), observed, num=2, seed=0).samples)
    assert model.schema.decode(done.samples[0].numpy())["town"].tolist() == ["Ulm", "(unseen)"]
    assert log_prob_given(model, pd.DataFrame(frame), observed).shape == (40,)
    with pytest.raises(ValueError, match=r"column 'age' \(position 2 of 2\) without column 'town'"):
        complete(model, rows, ~observed)
    with pytest.raises(ValueError, match=r"at \(0, 'town'\)"):
        complete(model, np.array([[7.0, 1.0]]), observed)
    with pytest.raises(ValueError, match="x: expected an array, for the model has no table schema, got dict"):
        complete(tree_model(), rows, "top")
