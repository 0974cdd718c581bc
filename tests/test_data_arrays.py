"""NumPy files, kinds of arrays, splits."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seriatim.data import (
    Dataset,
    array_dataset,
    as_dataset,
    check_array,
    load,
    load_archive,
    load_array,
    load_parts,
    recognise_array,
    split_indices,
)

BITS = np.random.RandomState(0).randint(0, 2, (10, 11)).astype(np.uint8)


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_npy_and_npz(tmp_path: Path) -> None:
    x = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", x)
    np.testing.assert_array_equal(load_array(tmp_path / "a.npy"), x)
    path = npz(tmp_path / "a.npz", x=x, y=np.arange(4))
    np.testing.assert_array_equal(load_array(path), x)  # the only one with rows
    np.testing.assert_array_equal(load_array(path, "y"), np.arange(4))
    with pytest.raises(ValueError, match=r"a\.npz: key: expected one of x, y, got 'z'"):
        load_array(path, "z")
    with pytest.raises(ValueError, match=r"expected key= with one of p, q, got none"):
        load_array(npz(tmp_path / "b.npz", p=x, q=x))
    with pytest.raises(ValueError, match=r"key: expected none, .* got 'x'"):
        load_array(tmp_path / "a.npy", "x")
    with pytest.raises(ValueError, match="expected an archive"):
        load_archive(tmp_path / "a.npy")


def test_packed_bits_are_unpacked(tmp_path: Path) -> None:
    path = npz(tmp_path / "p.npz", train=np.packbits(BITS, axis=1), d=np.array(11), y_train=np.arange(10))
    z = load_archive(path)
    assert set(z) == {"train", "y_train"}
    np.testing.assert_array_equal(z["train"], BITS)
    np.testing.assert_array_equal(load_array(path, "train"), BITS)
    plain = npz(tmp_path / "q.npz", train=BITS, d=np.array(11))  # bytes already, though a width is stated
    np.testing.assert_array_equal(load_array(plain, "train"), BITS)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was run')",)


def damaged_files(folder: Path) -> dict[str, bytes]:
    whole = io.BytesIO()
    np.savez_compressed(whole, x=np.random.RandomState(0).rand(200, 5))
    raw = whole.getvalue()
    one = io.BytesIO()
    np.save(one, np.random.RandomState(0).rand(200, 5))
    objects = io.BytesIO()
    np.save(objects, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    inside = io.BytesIO()
    np.savez(inside, x=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0xFF
    return {
        "cut.npz": raw[:-300],
        "flipped.npz": bytes(flipped),
        "garbled.npz": raw[:100] + b"\xff" * 40 + raw[140:],
        "cut.npy": one.getvalue()[:-8],
        "header.npy": one.getvalue()[:20],
        "pickle.npy": pickle.dumps(Bomb()),
        "objects.npy": objects.getvalue(),
        "inside.npz": inside.getvalue(),
        "text.npy": b"1,2,3\n",
        "zip.npz": b"PK\x03\x04" + b"nonsense" * 9,
        "empty.npz": b"",
    }


@pytest.mark.parametrize("name", sorted(damaged_files(Path())))
def test_damaged_and_foreign_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(damaged_files(tmp_path)[name])
    message = "got a pickle|pickled objects" if name in ("pickle.npy", "objects.npy", "inside.npz") else "expected"
    with pytest.raises(ValueError, match=f"{name}: .*({message})"):
        load_array(tmp_path / name)
    with pytest.raises(ValueError, match=name):
        load(tmp_path / name)


def test_parts_are_recognised(tmp_path: Path) -> None:
    x, y = np.zeros((4, 3)), np.arange(4)
    parts = load_parts(
        npz(tmp_path / "a.npz", X_train=x, Y_train=y, x_val=x[:2], y_val=y[:2], classnames=np.array(["p"]))
    )
    assert set(parts.arrays) == {"train", "valid"}
    assert parts.labels is not None
    assert set(parts.labels) == {"train", "valid"}
    assert parts.class_names == ["p"]
    assert load_parts(npz(tmp_path / "b.npz", train=x, test=x, y_train=y)).labels is None  # not for all parts
    assert set(load_parts(npz(tmp_path / "c.npz", anything=x)).arrays) == {"train"}
    with pytest.raises(ValueError, match=r"expected an array 'train' or 'x' or key=, got the keys p, q"):
        load_parts(npz(tmp_path / "d.npz", p=x, q=x))


@pytest.mark.parametrize(
    "x, kind, levels",
    [
        (np.eye(3), "binary", 2),
        (np.eye(3, dtype=bool), "binary", 2),
        (np.array([[0, 16]]), "categorical", 17),
        (np.array([[0, 31]], dtype=np.uint8), "categorical", 32),
        (np.array([[0, 32]]), "integer", 33),
        (np.array([[0, 32]], dtype=np.uint8), "integer", 256),
        (np.array([[0.0, 200.0]]), "integer", 201),
        (np.array([[0.5, 1.0]]), "continuous", None),
        (np.array([[-1.0, 1.0]]), "continuous", None),
        (np.array([[0.0, 256.0]]), "continuous", None),
    ],
)
def test_kinds_of_arrays(x: np.ndarray, kind: str, levels: int | None) -> None:
    assert recognise_array([x])[:2] == (kind, levels)


def test_kind_and_levels_can_be_said() -> None:
    x = np.array([[0, 3]] * 4)
    assert array_dataset(x, levels=7).levels == 7
    assert array_dataset(x, kind="integer").kind == "integer"
    assert array_dataset(x, kind="continuous").train.dtype == np.float64
    assert array_dataset(x.astype(np.float32) / 7).train.dtype == np.float32
    assert array_dataset(x * 200, levels=1000).train.dtype == np.int64
    with pytest.raises(ValueError, match=r"x: expected whole numbers 0..2, got 3 at row 0, column 1"):
        array_dataset(x, levels=3)
    with pytest.raises(ValueError, match=r"whole numbers in 0..255, got -1..1; pass levels="):
        array_dataset(np.array([[-1, 1]] * 4))
    with pytest.raises(ValueError, match="kind: expected 'continuous'"):
        array_dataset(x / 7, kind="integer")
    with pytest.raises(ValueError, match="kind: expected one of binary"):
        array_dataset(x, kind="table")
    with pytest.raises(ValueError, match="levels: expected none for kind='continuous'"):
        array_dataset(x, kind="continuous", levels=4)


def test_positions_of_bad_entries() -> None:
    x = np.zeros((5, 4))
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"x: expected finite numbers, got nan at row 3, column 2"):
        array_dataset(x)
    images = np.zeros((6, 2, 2))
    images[4, 1, 0] = np.inf
    with pytest.raises(ValueError, match=r"test: expected finite numbers, got inf at row 4, position \(1, 0\)"):
        array_dataset(np.zeros((6, 2, 2)), test=images)
    with pytest.raises(ValueError, match=r"x: expected 0 or 1, got 0.5 at row 0, column 1"):
        check_array(np.array([[1, 0.5]]), kind="binary")
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 3\), got \(1, 2\)"):
        check_array(np.zeros((1, 2)), kind="binary", event_shape=(3,))
    with pytest.raises(ValueError, match=r"expected shape \(N, ...\)"):
        array_dataset(np.zeros(4))
    with pytest.raises(TypeError, match="expected an array of numbers, got dtype <U1"):
        array_dataset(np.array([["a"]]))


def test_levels_hold_for_all_splits() -> None:
    data = array_dataset(np.array([[0, 3]] * 4), test=np.array([[9, 0]]))
    assert data.levels == 10
    with pytest.raises(ValueError, match=r"test: expected shape \(N, 2\)"):
        array_dataset(np.zeros((4, 2)), test=np.zeros((1, 3)))


@given(st.integers(3, 60), st.integers(0, 2**64), st.tuples(*[st.integers(1, 50)] * 3))
def test_splits_partition_and_are_never_empty(n: int, seed: int, weights: tuple[int, int, int]) -> None:
    fractions = [weight / sum(weights) for weight in weights]
    parts = split_indices(n, fractions, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert min(map(len, parts)) >= 1
    for part, share in zip(parts, fractions, strict=True):
        assert len(part) == 1 or abs(len(part) - n * share) < 2


def test_splits_are_fixed_for_all_time() -> None:
    fixed = [[0, 2, 9, 1, 8, 5, 4, 3], [6], [7]]
    assert [part.tolist() for part in split_indices(10, seed=0)] == fixed
    assert [part.tolist() for part in split_indices(10, seed=1)] != fixed


def test_splits_refused() -> None:
    with pytest.raises(ValueError, match="rows: expected at least 3 to make train, valid, test, got 2"):
        split_indices(2)
    with pytest.raises(ValueError, match=r"fractions: .* got \(0.8, 0.2, 0.0\)"):
        split_indices(9, (0.8, 0.2, 0.0))
    with pytest.raises(ValueError, match="sum to 1"):
        split_indices(9, (0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match="seed: expected an integer >= 0, got -1"):
        split_indices(9, seed=-1)


def test_labels_follow_their_rows() -> None:
    x = np.arange(20).reshape(20, 1)
    data = array_dataset(x, labels=[f"c{i % 3}" for i in range(20)], levels=20)
    assert data.class_names == ["c0", "c1", "c2"]
    assert data.labels is not None
    for split, rows in data.splits.items():
        np.testing.assert_array_equal(data.labels[split], rows[:, 0] % 3)
    ones = array_dataset(x, labels=np.arange(20) % 2 + 1, class_names=["p", "q"])
    assert ones.labels is not None
    assert sorted(set(ones.labels["train"].tolist())) == [0, 1]
    with pytest.raises(ValueError, match="labels: expected 20 labels for train, got"):
        array_dataset(x, labels=[1, 2])
    with pytest.raises(ValueError, match=r"labels: expected integers 0..1 or 1..2"):
        array_dataset(x, labels=np.arange(20), class_names=["p", "q"])
    with pytest.raises(ValueError, match="labels: expected 3 labels for test, got none"):
        array_dataset(x, test=x[:3], labels=np.arange(20))


def test_digest_says_what_the_rows_are() -> None:
    x = np.arange(40).reshape(20, 2) % 4
    same = array_dataset(x).digest
    assert array_dataset(x.copy()).digest == same
    assert array_dataset(x.astype(">i4")).digest == same  # stored bytes, not memory layout
    assert array_dataset(np.asfortranarray(x)).digest == same
    assert array_dataset(x, split_seed=1).digest != same
    halves = np.arange(40.0).reshape(20, 2) / 8
    assert array_dataset(halves).digest == "271a7e820741567d8cdd424608ad62595d96e7d6d54ca39e31265a1a6a040693"
    changed = x.copy()
    changed[0, 0] = 3
    assert array_dataset(changed).digest != same


def test_constant_entries_are_noted() -> None:
    x = np.random.RandomState(0).rand(30, 3)
    x[:, 1] = 0.5
    assert array_dataset(x).notes == ["1 of 3 entries are constant in train (numbers 1)"]


def test_dataset_refuses_what_does_not_agree() -> None:
    x = np.zeros((4, 2), dtype=np.uint8)
    with pytest.raises(ValueError, match="valid: expected shape"):
        Dataset("a", x, x[:, :1], x, kind="binary", levels=2)
    with pytest.raises(ValueError, match="test: expected shape"):
        Dataset("a", x, x, x[:0], kind="binary", levels=2)
    with pytest.raises(ValueError, match="levels: expected a number for discrete kinds only"):
        Dataset("a", x, x, x, kind="binary")
    with pytest.raises(ValueError, match="schema: expected one for tables only"):
        Dataset("a", x, x, x, kind="table")
    with pytest.raises(ValueError, match=r"labels\['train'\]: expected 4 classes"):
        Dataset("a", x, x, x, kind="binary", levels=2, labels=dict.fromkeys(["train", "valid", "test"], np.zeros(3)))


def test_as_dataset() -> None:
    data = array_dataset(BITS)
    assert as_dataset(data) is data
    assert as_dataset(torch.eye(9)).kind == "binary"
    assert as_dataset(BITS.tolist()).digest == data.digest
    assert as_dataset({"a": [0.5, 1.5, 2.5]}).kind == "table"
    with pytest.raises(TypeError, match="expected an array, a data frame or a Dataset, got str"):
        as_dataset("digits")
    with pytest.raises(TypeError, match="no options"):
        as_dataset(data, split_seed=1)
    with pytest.raises(TypeError, match="sizes"):
        as_dataset(BITS, sizes=3)
