"""Schemas: recognition rules, codes and back, notes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seriatim.data import UNSEEN, Column, Schema, Table, infer_schema, table_dataset

RNG = np.random.RandomState(0)


def column(values: object, **options: object) -> Column:
    schema, _ = infer_schema({"a": values}, **options)  # type: ignore[arg-type]
    return schema.columns[0]


@pytest.mark.parametrize(
    "values, kind",
    [
        (["x", "y"], "categorical"),
        ([True, False], "categorical"),
        ([0, 1, 1], "categorical"),
        ([0.0, 1.0, None], "categorical"),
        ([5, 5, 5], "categorical"),
        ([1.5, 1.5], "categorical"),
        ([0, 1, 2], "integer"),  # too few rows to be names
        ([0, 1, 2] * 10, "categorical"),
        (list(range(24)) * 10, "categorical"),
        (list(range(25)) * 10, "integer"),
        ([1.0, 7.0, 30.0], "integer"),
        ([0.5, 1.5, 2.5], "continuous"),
        ([0.5, 1.5, 2.5] * 10, "categorical"),
        (RNG.randn(50), "continuous"),
        ([1e100, 1.0, 2.0], "continuous"),  # whole, but no integer that float64 counts to
    ],
)
def test_recognition(values: object, kind: str) -> None:
    assert column(values).kind == kind


def test_overrides_decide_and_are_checked() -> None:
    table = {"a": [0, 1, 2, 0], "b": ["1.5", "2", None, "1e1"]}
    schema, _ = infer_schema(table, overrides={"a": "categorical", "b": "continuous"})
    assert schema.columns[0].categories == ["0", "1", "2"]
    assert (schema.columns[1].low, schema.columns[1].high, schema.columns[1].missing) == (1.5, 10.0, True)
    with pytest.raises(ValueError, match="overrides: expected one of a, b, got 'c'"):
        infer_schema(table, overrides={"c": "integer"})
    with pytest.raises(ValueError, match=r"overrides\['a'\]: expected one of categorical, .* got 'text'"):
        infer_schema(table, overrides={"a": "text"})
    with pytest.raises(ValueError, match=r"column 'b': expected whole numbers, got 1.5 at row 0"):
        infer_schema(table, overrides={"b": "integer"})
    with pytest.raises(ValueError, match="column 'c': expected a number, got 'x' at row 1"):
        infer_schema({"c": ["1", "x"]}, overrides={"c": "integer"})


def test_categories_are_sorted_as_numbers_where_they_are() -> None:
    assert column([10, 9, 2] * 10).categories == ["2", "9", "10"]
    assert column(["10", "9", "b"]).categories == ["10", "9", "b"]
    assert column([True, False]).categories == ["False", "True"]


def test_statistics() -> None:
    numbers = column([1.0, 2.5, None, 5.5])
    assert (numbers.low, numbers.high, numbers.mean, numbers.resolution) == (1.0, 5.5, 3.0, 1.5)
    assert numbers.std == pytest.approx(np.std([1.0, 2.5, 5.5]))
    assert numbers.missing
    assert not column([1.0, 2.5]).missing


def test_a_spike_is_an_atom_and_rounding_is_not() -> None:
    smooth = RNG.randn(300)
    assert column(np.concatenate([smooth, np.zeros(100)])).atoms == [0.0]
    assert column(np.concatenate([smooth, np.zeros(100), np.full(60, 5.0)])).atoms == [0.0, 5.0]
    assert column(np.concatenate([smooth, np.zeros(15)])).atoms == []  # 4.8 % of the rows
    six = np.concatenate([smooth, np.repeat([1.5, 2.5, 3.5, 4.5, 5.5], 100)])
    assert column(six).atoms == []  # five peaks: a grid, not spikes
    assert column(np.round(RNG.randn(2000), 1)).atoms == []
    few = np.concatenate([np.arange(10) + 0.5, np.zeros(50)])
    assert column(few).atoms == []  # too few other values


def notes_of(table: object, **options: object) -> str:
    return "\n".join(infer_schema(table, **options)[1])  # type: ignore[arg-type]


def test_notes() -> None:
    n = 40
    table = {
        "always": [3] * n,
        "also": ["x"] * n,
        "gaps": ["x", None] * (n // 2),
        "name": [f"r{i}" for i in range(n)],
        "row": RNG.permutation(n) + 1,
        "part": np.arange(2 * n)[RNG.permutation(2 * n)[:n]],
        "count": RNG.randint(0, 1000, n) * 7,
        "x": RNG.randn(n),
    }
    schema, notes = infer_schema(table)
    text = "\n".join(notes)
    assert "columns 'always', 'also': constant" in text
    assert "column 'name': a different text in each row" in text
    assert "columns 'row', 'part': row numbers" in text
    assert "gaps" not in text
    assert "'x'" not in text
    assert "count" not in text
    assert [c.constant for c in schema.columns] == [True, True] + [False] * 6
    assert "rounded" in notes_of({"a": np.round(RNG.rand(400), 1) + 0.05 * RNG.randint(0, 4, 400)})
    assert "without any value" in notes_of({"a": [None, None]})
    assert "only 3 different numbers" in notes_of({"a": [0.5, 1.5, 2.5] * 10})


def test_rare_categories_fold_into_unseen() -> None:
    table = {"a": ["p"] * 5 + ["q"] * 3 + ["r", "s"]}
    schema, notes = infer_schema(table, max_categories=2)
    assert schema.columns[0].categories == ["p", "q"]
    assert notes == [
        "column 'a': 4 categories; the rarest 2 (20 % of the rows) count as unseen: "
        "max_categories=2 may be raised, or the column left out with exclude="
    ]
    assert schema.encode(table)[-3:, 0].tolist() == [1.0, 2.0, 2.0]


def test_encode_and_decode() -> None:
    train = {"t": ["b", "a", None], "n": [10, 20, 50], "x": [0.5, None, -0.0]}
    schema, _ = infer_schema(train)
    new = Table({"t": ["a", "new", None], "n": [None, 7, -3], "x": [9.0, None, 0.25], "extra": [1, 2, 3]})
    codes = schema.encode(new)
    np.testing.assert_array_equal(codes, [[0, np.nan, 9.0], [2, 7, np.nan], [np.nan, -3, 0.25]])
    back = schema.decode(codes)
    assert back["t"].tolist() == ["a", UNSEEN, None]
    np.testing.assert_array_equal(schema.encode(back), codes)
    assert schema.decode(schema.encode(Table(train)))["n"].dtype == np.int64
    assert not np.signbit(schema.encode(train)[2, 2])


def test_numbers_as_categories_do_not_depend_on_their_type() -> None:
    schema, _ = infer_schema({"a": [1, 2, 1]})
    for values in ([1, 2], [1.0, 2.0], ["1", "2"], ["1.0", "2.00"]):
        assert schema.encode({"a": values}).tolist() == [[0.0], [1.0]]
    twice, _ = infer_schema({"a": ["007", "07"]})
    assert twice.encode({"a": [7]})[:, 0].tolist() == [0.0]  # the first of two that are the same number
    padded, _ = infer_schema({"a": ["007", "7", "08"]})
    assert padded.encode({"a": ["007", "7", "08"]})[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert padded.encode({"a": [8, 9]})[:, 0].tolist() == [2.0, 3.0]


def test_encode_and_decode_refuse() -> None:
    schema, _ = infer_schema({"t": ["a", "b"], "n": [1, 2]}, overrides={"n": "integer"})
    with pytest.raises(ValueError, match="expected a column 'n', got t"):
        schema.encode({"t": ["a"]})
    with pytest.raises(ValueError, match=r"column 'n': expected whole numbers, got 1.5 at row 1"):
        schema.encode({"t": ["a", "b"], "n": [1, 1.5]})
    with pytest.raises(ValueError, match="column 'n': expected a number, got 'x' at row 0"):
        schema.encode({"t": ["a"], "n": ["x"]})
    with pytest.raises(ValueError, match=r"expected codes 0..2 in column 't', got 3 at row 1"):
        schema.decode(np.array([[2.0, 1.0], [3.0, 1.0]]))
    with pytest.raises(ValueError, match=r"column 't': expected whole numbers, got 0.5 at row 0"):
        schema.decode(np.array([[0.5, 1.0]]))
    with pytest.raises(ValueError, match=r"expected shape \(N, 2\), got \(2,\)"):
        schema.decode(np.zeros(2))


def test_schema_is_json() -> None:
    schema, _ = infer_schema({"t": ["ä", None], "x": np.array([0.1, 1e-300]), "n": [1, 5]})
    assert Schema.model_validate_json(schema.model_dump_json()) == schema
    with pytest.raises(ValueError, match="of a usual size"):
        infer_schema({"x": [1e300, 1.5, -1e300]})
    with pytest.raises(ValueError, match="kind"):
        Column(name="a", kind="text")  # type: ignore[arg-type]


VALUES = {
    "t": st.none() | st.sampled_from(["a", "b", "Ω", "1", "NA", " "]),
    "n": st.none() | st.integers(-(2**53), 2**53),
    "x": st.none() | st.floats(-1e100, 1e100),
}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.fixed_dictionaries(VALUES), min_size=2, max_size=12), st.integers(1, 12))
def test_decode_inverts_encode(rows: list[dict[str, object]], cut: int) -> None:
    def columns(part: list[dict[str, object]]) -> dict[str, list[object]]:
        return {name: [row[name] for row in part] for name in VALUES}

    kinds = {"t": "categorical", "n": "integer", "x": "continuous"}
    train = rows[:cut]
    if all(row["n"] is None for row in train) or all(row["x"] is None for row in train):
        return
    schema, _ = infer_schema(columns(train), overrides=kinds)
    codes = schema.encode(columns(rows))
    back = schema.decode(codes)
    np.testing.assert_array_equal(schema.encode(back), codes)
    for i, row in enumerate(rows):
        assert back["t"][i] in (row["t"], UNSEEN)
        if i < cut:
            assert back["t"][i] == row["t"]
        for name in ("n", "x"):
            value = back[name][i]
            assert (row[name] is None and np.isnan(value)) or value == row[name]


def test_table_dataset_learns_from_train_only() -> None:
    frame = pd.DataFrame({"x": np.arange(100) / 7, "y": ["p", "q"] * 50, "label": ["no", "yes"] * 50})
    data = table_dataset(frame, split_seed=3, label="label")
    assert data.schema is not None
    assert data.schema.names == ["x", "y"]
    assert data.schema.columns[0].high == data.train[:, 0].max()
    assert data.schema.columns[0].mean == pytest.approx(data.train[:, 0].mean())
    assert data.class_names == ["no", "yes"]
    assert data.labels is not None
    for split, x in data.splits.items():
        np.testing.assert_array_equal(data.labels[split], x[:, 1])  # label and y go together
    seen = np.sort(np.concatenate([x[:, 0] for x in data.splits.values()]))
    np.testing.assert_array_equal(seen, np.arange(100) / 7)


def test_table_dataset_with_given_splits() -> None:
    train, test = {"a": ["p", "q"] * 5, "x": np.arange(10) / 3}, {"a": ["new"], "x": [99.5]}
    data = table_dataset(train, valid=test, test=test)
    np.testing.assert_array_equal(data.test, [[2.0, 99.5]])
    np.testing.assert_array_equal(data.train[:, 1], train["x"])  # nothing is cut, nothing is moved
    with pytest.raises(ValueError, match="test rows: table: expected a column 'x'"):
        table_dataset(train, valid=test, test={"a": ["p"]})
    with pytest.raises(ValueError, match="label: expected a class in each row"):
        table_dataset({"a": [1.5, 2.5, 3.5], "c": ["u", None, "v"]}, label="c")


def test_repeated_rows_are_noted() -> None:
    x = np.tile(np.arange(30) / 7, 2)
    assert any("repeat another" in note for note in table_dataset({"x": x}).notes)
    assert not any("repeat another" in note for note in table_dataset({"x": np.arange(60) / 7}).notes)
