"""The one door: named sets, files, options, and what it says when it stays shut."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seriatim.data import NAMED, load, load_named, write_csv
from seriatim.data.tables import Table

RNG = np.random.RandomState(0)


def packed(path: Path, width: int, **rows: int) -> dict[str, np.ndarray]:
    """Write an archive of random packed rows; return them unpacked."""
    parts = {key: RNG.randint(0, 2, (num, width)).astype(np.uint8) for key, num in rows.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, d=np.array(width), **{key: np.packbits(x, axis=1) for key, x in parts.items()})
    return parts


def test_digits() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    data, grey = load("digits"), load("digits17")
    assert (data.kind, data.levels, grey.kind, grey.levels) == ("binary", 2, "categorical", 17)
    assert [len(x) for x in data.splits.values()] == [1197, 300, 300]
    for name, x in grey.splits.items():
        np.testing.assert_array_equal(data.splits[name], x >= 8)
    rows = np.concatenate(list(grey.splits.values())).reshape(1797, 64)
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(bunch.data.astype(int), axis=0))
    assert data.labels is not None
    known = {x.tobytes(): y for x, y in zip(bunch.images.astype(np.uint8), bunch.target, strict=True)}
    assert [known[x.tobytes()] for x in grey.test] == data.labels["test"].tolist()
    assert data.digest == load("digits").digest
    assert data.digest != load("digits", split_seed=1).digest


def test_every_set_says_where_the_public_gets_it() -> None:
    assert {"digits", "digits17", "mnist", "binarized_mnist", "caltech101_silhouettes", "freyfaces"} < set(NAMED)
    assert {"nltcs", "plants", "connect4", "ad", "dna", "nips", "mushrooms", "adult"} < set(NAMED)
    for name, entry in NAMED.items():
        assert entry.name == name
        assert entry.source.startswith(("github.com/", "scikit-learn"))
        assert "{name}" not in entry.source


def test_packed_sets_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = packed(tmp_path / "binary" / "nltcs.npz", 16, train=9, valid=3, test=4)
    data = load("nltcs", data_dir=tmp_path)
    for split, x in data.splits.items():
        np.testing.assert_array_equal(x, parts[split])
    assert data.provenance["source"] == NAMED["nltcs"].source
    json.dumps(data.provenance)
    monkeypatch.setenv("SERIATIM_DATA", str(tmp_path))
    assert load("nltcs").digest == data.digest
    with pytest.raises(
        ValueError, match=r"plants: expected one of binary/plants\.npz.* or SERIATIM_DATA.* source: github"
    ):
        load("plants")
    monkeypatch.delenv("SERIATIM_DATA")
    with pytest.raises(ValueError, match=r"nltcs: expected its file binary/nltcs\.npz .* SERIATIM_DATA, got neither"):
        load("nltcs")


def test_rebuilt_and_absent_splits(tmp_path: Path) -> None:
    parts = packed(tmp_path / "connect4.npz", 126, train=9, valid=3, test_rebuilt=4)
    data = load("connect4", data_dir=tmp_path)
    np.testing.assert_array_equal(data.test, parts["test_rebuilt"])
    assert "rebuilt" in data.notes[0]
    packed(tmp_path / "ocr_letters.npz", 128, valid=20, test=7)
    letters = load("ocr_letters", data_dir=tmp_path)
    assert [len(x) for x in letters.splits.values()] == [18, 2, 7]
    packed(tmp_path / "nips.npz", 500, train=20, valid=5)
    assert "no test rows in the file: cut from train at random" in load("nips", data_dir=tmp_path).notes
    packed(tmp_path / "dna.npz", 18, train=5, valid=5, test=5)
    with pytest.raises(ValueError, match=r"dna: expected rows of shape \(180,\), got \(18,\)"):
        load("dna", data_dir=tmp_path)


def test_public_text_layouts(tmp_path: Path) -> None:
    x = RNG.randint(0, 2, (6, 16))
    for split in ("train", "valid", "test"):
        path = tmp_path / "datasets" / "nltcs" / f"nltcs.{split}.data"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(",".join(map(str, row)) + "\n" for row in x))
    np.testing.assert_array_equal(load("nltcs", data_dir=tmp_path).test, x)
    x = RNG.randint(0, 2, (6, 17))
    for split in ("ts", "valid", "test"):
        path = tmp_path / "data" / "generative" / f"msnbc.{split}.data.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(",".join(map(str, row)) + "\n" for row in x).encode()))
    np.testing.assert_array_equal(load("msnbc", data_dir=tmp_path).train, x)
    path.write_bytes(gzip.compress(b"1,0\n1,0\n1,2\n"))
    with pytest.raises(ValueError, match=r"msnbc\.test\.data\.gz, line 3: expected 2 zeros and ones, got b'12'"):
        load("msnbc", data_dir=tmp_path)
    path.write_bytes(gzip.compress(b"1,0\n1,0,1\n"))
    with pytest.raises(ValueError, match="line 2: expected 2 zeros and ones, got 3 characters"):
        load("msnbc", data_dir=tmp_path)
    bits = RNG.randint(0, 2, (4, 784))
    for split in ("train", "valid", "test"):
        text = "".join(" ".join(map(str, row)) + " \n" for row in bits)
        (tmp_path / f"binarized_mnist_{split}.amat").write_text(text)
    np.testing.assert_array_equal(load("binarized_mnist", data_dir=tmp_path).valid, bits.reshape(4, 28, 28))


def test_image_sets(tmp_path: Path) -> None:
    x = RNG.randint(0, 256, (10100, 28, 28)).astype(np.uint8)
    y = np.arange(10100) % 10
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    data = load("mnist", data_dir=tmp_path)
    assert (data.kind, data.levels, len(data.train), len(data.valid)) == ("integer", 256, 100, 10000)
    np.testing.assert_array_equal(data.train, x[:100])
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels["valid"], y[100:])
    assert load("mnist", data_dir=tmp_path, levels=4).train.max() == 3
    dynamic = load("mnist", data_dir=tmp_path, binarise="dynamic")
    assert dynamic.kind == "binary"
    assert (dynamic.redraw(1) != dynamic.train).any()
    with pytest.raises(ValueError, match=r"digits: expected none of size, .* got binarise='sampled'"):
        load("digits", binarise="sampled")
    np.savez(tmp_path / "freyfaces.npz", x=RNG.randint(0, 256, (1965, 28, 20)).astype(np.uint8))
    assert [len(x) for x in load("freyfaces", data_dir=tmp_path).splits.values()] == [1565, 200, 200]
    np.savez(tmp_path / "freyfaces.npz", faces=np.zeros((3, 28, 20)))
    with pytest.raises(ValueError, match=r"freyfaces\.npz: expected the keys x, got faces"):
        load("freyfaces", data_dir=tmp_path)


def test_silhouettes_have_classes(tmp_path: Path) -> None:
    parts = {key: RNG.randint(0, 2, (3, 784)).astype(np.uint8) for key in ("train", "valid", "test")}
    labels = {f"y_{key}": np.array([1, 101, 7]) for key in parts}
    bits = {key: np.packbits(x, axis=1) for key, x in parts.items()}
    names = np.array([f"c{i}" for i in range(1, 102)])
    np.savez(tmp_path / "caltech101_silhouettes_28.npz", d=np.array(784), classnames=names, **bits, **labels)
    data = load("caltech101_silhouettes", data_dir=tmp_path)
    np.testing.assert_array_equal(data.test, parts["test"].reshape(3, 28, 28))
    assert data.labels is not None
    assert data.labels["test"].tolist() == [0, 100, 6]
    assert data.num_classes == 101


def test_files_of_arrays(tmp_path: Path) -> None:
    x = RNG.randint(0, 17, (30, 4))
    x[0, 0] = 16
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(30) % 3)
    data = load(tmp_path / "a.npz")
    assert (data.name, data.kind, data.levels, data.num_classes, len(data.train)) == ("a", "categorical", 17, 3, 24)
    assert data.provenance["cut"] == ["train", "valid", "test"]
    np.save(tmp_path / "t.npy", x[:5])
    given = load(tmp_path / "a.npz", test=tmp_path / "t.npy", fractions=(0.5, 0.25, 0.25))
    np.testing.assert_array_equal(given.test, x[:5])
    assert (len(given.train), len(given.valid), given.labels) == (20, 10, None)
    with pytest.raises(ValueError, match=r"a\.npz: x: expected 0 or 1, got"):
        load(tmp_path / "a.npz", kind="binary")
    np.savez(tmp_path / "s.npz", train=x, test=x[:4])
    assert load(tmp_path / "s.npz").provenance["cut"] == ["train", "valid"]
    with pytest.raises(ValueError, match=r"test: expected none, for .* holds test rows"):
        load(tmp_path / "s.npz", test=tmp_path / "t.npy")
    assert load(tmp_path / "a.npz", binarise="threshold:0.5").kind == "binary"


def test_files_of_tables(tmp_path: Path) -> None:
    rows = Table({"x": RNG.randn(50), "n": RNG.permutation(50), "c": ["p", "q"] * 25})
    write_csv(tmp_path / "t.csv", rows)
    data = load(tmp_path / "t.csv", exclude=["n"], label="c")
    assert (data.kind, data.event_shape, data.class_names) == ("table", (1,), ["p", "q"])
    json.dumps(data.provenance)
    kinds = load(tmp_path / "t.csv", overrides={"n": "categorical"}).schema
    assert kinds is not None
    assert kinds.kinds == {"x": "continuous", "n": "categorical", "c": "categorical"}
    with pytest.raises(ValueError, match=r"t\.csv: label: expected one of x, n, c, got 'k'"):
        load(tmp_path / "t.csv", label="k")
    small = Table({"x": [99.0], "n": [1], "c": ["new"]})
    write_csv(tmp_path / "small.csv", small)
    split = load(tmp_path / "t.csv", valid=tmp_path / "small.csv", test=tmp_path / "small.csv", header=True)
    np.testing.assert_array_equal(split.test, [[99.0, 1.0, 2.0]])


def test_unknown_names_and_misplaced_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got 'digitz' \(close: digits, digits17\)"):
        load("digitz")
    with pytest.raises(ValueError, match="named sets: digits"):
        load("zzzz")
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        load(tmp_path / "none.csv")
    (tmp_path / "a.doc").write_text("")
    with pytest.raises(ValueError, match=r"a\.doc: expected a file ending in \.npy"):
        load(tmp_path / "a.doc")
    with pytest.raises(ValueError, match="overrides: expected for a table only, got it for a named set, digits"):
        load("digits", overrides={})
    with pytest.raises(ValueError, match="key: expected for arrays only"):
        load(tmp_path / "t.csv", key="x")
    with pytest.raises(ValueError, match=r"fractions: expected for arrays or a table or .* only, got it for"):
        load("digits", fractions=(0.8, 0.1, 0.1))
    with pytest.raises(TypeError, match="expected a string or a path, got list"):
        load([1, 2])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name: expected one of digits"):
        load_named("zzzz")


def test_import_is_light() -> None:
    """The package alone, whatever `seriatim` itself imports."""
    code = """if True:
        import importlib.util, sys, types
        package = types.ModuleType("seriatim")
        package.__path__ = list(importlib.util.find_spec("seriatim").submodule_search_locations)
        sys.modules["seriatim"] = package
        import seriatim.data
        heavy = ("torch", "pandas", "pyarrow", "sklearn", "scipy", "soundfile", "tokenizers")
        print([name for name in heavy if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
