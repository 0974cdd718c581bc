"""`fit` and `score_samples`: the right head, the right rows, and log p of each."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from seriatim.columns import Columns
from seriatim.data import UNSEEN
from seriatim.fitting import Rows, choose_head, fit, score_samples
from seriatim.heads import Bernoulli, Categorical, MixtureOfNormals, Normal, QuantizedMixtureOfLogistics
from seriatim.models import MADE, BayesNet, FullTable
from seriatim.order import Order, RandomOrder, Scan
from seriatim.runs import load, save

RANDOM = np.random.default_rng(0)
BITS = (RANDOM.random((60, 3)) < [0.2, 0.5, 0.8]).astype(np.uint8)
QUICK = {"epochs": 2, "patience": None}


def quick(X, **options):
    return fit(X, "made", hidden_features=(4,), training=QUICK, **options)


@pytest.mark.parametrize(
    "values, head",
    [
        (lambda: BITS, Bernoulli),
        (lambda: BITS.astype(bool), Bernoulli),
        (lambda: BITS.astype(float), Bernoulli),
        (lambda: np.arange(60).reshape(20, 3) % 17, Categorical),
        (lambda: np.arange(120).reshape(40, 3) % 100, QuantizedMixtureOfLogistics),
        (lambda: RANDOM.normal(size=(40, 3)), MixtureOfNormals),
        (lambda: {"a": RANDOM.normal(size=40), "b": ["x", "y"] * 20}, Columns),
    ],
)
def test_the_kind_of_values_chooses_the_head(values, head):
    model = quick(values())
    assert type(model.head) is head
    assert not model.training


def test_levels_of_the_head():
    assert choose_head(Rows(BITS, None, "categorical", 17)).num_categories == 17
    assert choose_head(Rows(BITS, None, "integer", 100)).levels == 100
    rows = np.array([[0, 31], [5, 6]] * 10)
    assert quick(rows).head.num_categories == 32
    rows[0, 0] = 32
    assert quick(rows).head.levels == 33


def test_a_head_of_ones_own():
    assert isinstance(quick(RANDOM.normal(size=(40, 3)), head=Normal()).head, Normal)


def test_an_order_is_given_as_itself_or_by_name():
    images = BITS[:40].repeat(2, axis=1).reshape(-1, 2, 3)
    for order in (Scan((2, 3), flip_rows=True, flip_columns=True), "scan:flip_rows+flip_columns"):
        assert quick(images, order=order).order.permutation.tolist() == [5, 4, 3, 2, 1, 0]
    assert quick(BITS, order="natural").order.is_natural
    assert quick(BITS, order="random:1").config == quick(BITS, order=RandomOrder((3,), seed=1)).config
    for order, words in (("random", "got 'random'"), ("scan:transpose", r"places \(3,\)"), (Order((4,)), r"\(3,\)")):
        with pytest.raises(ValueError, match=f"^order: expected .*{words}"):
            quick(BITS, order=order)


def test_images_keep_their_shape():
    assert quick(BITS.reshape(-1, 3, 3)).event_shape == (3, 3)


def test_scores_are_log_p_of_each_row_in_any_batches():
    model = quick(BITS)
    scores = score_samples(model, BITS)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, model.log_prob(torch.as_tensor(BITS).long()).detach(), rtol=1e-6)
    np.testing.assert_allclose(score_samples(model, BITS, batch_size=7), scores, rtol=1e-5)


def test_a_fit_is_better_than_its_start():
    rows = BITS[:, :1].repeat(4, axis=1)
    model = fit(rows, "made", hidden_features=(8,), valid=rows, training={"epochs": 60, "learning_rate": 0.02})
    factorised = 4 * score_samples(fit(rows[:, :1], "bayesnet"), rows[:, :1]).mean()
    assert score_samples(model, rows).mean() > factorised + 0.5


def test_a_fit_is_a_function_of_the_seed():
    torch.manual_seed(1)
    one = quick(BITS, seed=3)
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    two, three = quick(BITS, seed=3), quick(BITS, seed=4)
    assert torch.equal(drawn, torch.rand(1))
    assert np.array_equal(score_samples(one, BITS), score_samples(two, BITS))
    assert not np.array_equal(score_samples(one, BITS), score_samples(three, BITS))


def test_labels_condition_the_model():
    labels = np.arange(60) % 2
    rows = labels[:, None].repeat(3, axis=1)
    options = {"hidden_features": (8,), "training": {"epochs": 150, "learning_rate": 0.05, "warmup_steps": 5}}
    model = fit(rows, "made", labels=labels, **options)
    assert score_samples(model, rows, labels=labels).mean() > score_samples(model, rows, labels=1 - labels).mean() + 3
    with pytest.raises(ValueError, match="context"):
        score_samples(model, rows)


def test_a_table_is_scored_by_its_own_schema_also_after_saving(tmp_path):
    frame = pd.DataFrame({"size": RANDOM.normal(50, 10, 80), "town": ["Ulm", "Bonn"] * 40})
    model = quick(frame)
    scores = score_samples(model, frame)
    assert np.isfinite(scores).all()
    swapped = frame[["town", "size"]]
    assert np.array_equal(score_samples(model, swapped), scores)  # columns go by name
    assert np.array_equal(score_samples(load(save(model, tmp_path)), frame), scores)
    unseen = score_samples(model, pd.DataFrame({"size": [50.0, None], "town": ["Kiel", UNSEEN]}))
    assert np.isfinite(unseen).all()
    assert unseen.max() < np.median(scores)
    with pytest.raises(ValueError, match="expected a column 'town'"):
        score_samples(model, frame[["size"]])
    with pytest.raises(ValueError, match="X: expected an array"):
        score_samples(quick(BITS), frame)


def test_tables_of_counts_are_fitted_in_closed_form_to_all_rows():
    rows = np.array([[0, 0], [1, 1], [1, 1], [0, 1]] * 10)
    model = fit(rows, "full_table", pseudo_count=0)
    assert isinstance(model, FullTable)
    np.testing.assert_allclose(np.exp(score_samples(model, [[0, 0], [1, 1], [0, 1], [1, 0]])), [0.25, 0.5, 0.25, 0])
    tree = fit({"a": ["x", "y"] * 20, "b": ["u", "v"] * 20}, "bayesnet", pseudo_count=0)
    assert isinstance(tree, BayesNet)
    assert tree.names == ["a", "b"]
    np.testing.assert_allclose(score_samples(tree, {"a": ["x"], "b": ["u"]}), np.log(0.5), rtol=1e-6)
    with pytest.raises(ValueError, match=r"columns of categories for BayesNet, got column 'a'"):
        fit({"a": RANDOM.normal(size=40), "b": ["u", "v"] * 20}, "bayesnet")
    with pytest.raises(ValueError, match=r"whole numbers for BayesNet"):
        fit(RANDOM.normal(size=(40, 2)), "bayesnet")
    with pytest.raises(ValueError, match=r"labels: expected None for BayesNet"):
        fit(rows, "bayesnet", labels=np.zeros(40, dtype=int))


def test_rows_are_held_out_by_share(monkeypatch):
    from seriatim import fitting

    seen = []

    def train(model, data, config, progress):
        seen.append((data, config))

    monkeypatch.setattr(fitting, "train", train)
    numbered = np.stack([np.arange(60), np.arange(60)], axis=1)
    labels = np.arange(60)
    for valid, sizes in ((None, (54, 6)), (0.5, (30, 30)), (0, (60, 0)), (numbered[:9], (60, 9))):
        fit(numbered, "made", valid=valid, labels=labels, valid_labels=labels[:9] if len(np.shape(valid)) else None)
        data, config = seen[-1]
        assert (len(data.train), 0 if data.valid is None else len(data.valid)) == sizes
        assert torch.equal(data.train[:, 0].long(), data.train_context)
        if data.valid is None:
            assert config.patience is None
        else:
            assert torch.equal(data.valid[:, 0].long(), data.valid_context)
    fit(BITS[:20], "made")
    assert seen[-1][0].valid is None  # too few to spare any
    assert seen[-1][1].seed == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": "mdae"}, r"model: expected one of .*close: made"),
        ({"hidden_featurs": (4,)}, r"options of made: .*close: hidden_features"),
        ({"training": {"epoch": 3}}, r"training: .*close: epochs"),
        ({"X": np.array([[0.5, np.nan]] * 9)}, "X: expected finite numbers, got nan at row 0, column 1"),
        ({"X": np.array([0.5, 1.5])}, "X: expected shape"),
        ({"labels": ["a"] * 60}, r"labels: expected 60 whole numbers 0\.\.C-1"),
        ({"labels": [0] * 59}, r"labels: expected 60 whole"),
        ({"valid": BITS, "labels": [0] * 60}, "valid_labels: expected classes"),
        ({"valid_labels": [0] * 60}, "valid_labels: expected None"),
        ({"valid": 1.5}, r"valid: expected rows, or a share"),
        ({"valid": BITS[:, :2]}, r"valid: expected shape \(N, 3\)"),
        ({"valid": BITS * np.nan}, "valid: expected finite"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(**({"X": BITS} | arguments))


def test_numbers_far_from_unit_size_are_warned_about():
    with pytest.warns(UserWarning, match=r"1 of 3 entries are far from unit size \(numbers 1\): standardise"):
        quick(RANDOM.normal(size=(40, 3)) * [1, 100, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(RANDOM.normal(size=(40, 3)))


def test_notes_on_columns_are_warnings():
    with pytest.warns(UserWarning, match=r"column 'id': .*ID"):
        quick({"id": np.arange(60), "bit": BITS[:, 0]})


def test_a_model_that_was_not_fitted_is_scored():
    assert score_samples(MADE((3,)), BITS).shape == (60,)
