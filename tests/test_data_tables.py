"""Reading tables: what is recognised, what is refused, and by which words."""

from __future__ import annotations

import builtins
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from seriatim.data import Table, from_frame, read_table, write_csv


def write(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8"))
    return path


def columns(table: Table) -> dict[str, list[object]]:
    """Columns as lists, NaN as None so that they compare."""
    return {name: [None if v != v else v for v in table[name].tolist()] for name in table}


def test_types_missing_values_and_quotes(tmp_path: Path) -> None:
    text = 'n,x,town,flag\n1,0.5,"Ulm, Donau",yes\n-2, 1e3 ,?,no\n3,NA,"a ""b""",\n'
    table = read_table(write(tmp_path, text))
    assert columns(table) == {
        "n": [1, -2, 3],
        "x": [0.5, 1000.0, None],
        "town": ["Ulm, Donau", None, 'a "b"'],
        "flag": ["yes", "no", None],
    }
    assert [table[name].dtype.kind for name in table] == ["i", "f", "O", "O"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    path = write(tmp_path, delimiter.join("ab") + "\n" + delimiter.join(["1", '"x y"']) + "\n")
    assert columns(read_table(path)) == {"a": [1], "b": ["x y"]}


def test_a_semicolon_inside_text_is_no_delimiter(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a,b\n1,p;q\n2,r\n"))["b"].tolist() == ["p;q", "r"]


def test_commas_inside_semicolons_are_text(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "1;x,y\n2;z,w\n"))["column_2"].tolist() == ["x,y", "z,w"]


def test_byte_order_mark_gzip_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress("\ufeffä,b\r\n1,2\r\n".encode()))
    assert columns(read_table(path)) == {"ä": [1], "b": [2]}


def test_header_is_recognised_or_asked_for(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "1,2\n3,4\n")).names == ["column_1", "column_2"]
    assert read_table(write(tmp_path, "name,age\nIda,3\nJon,4\n")).names == ["name", "age"]
    letters = write(tmp_path, "p,x\ne,s\np,x\ne,y\n")  # a value of the first line occurs again: no header
    assert len(read_table(letters)) == 4
    unclear = write(tmp_path, "a,b\nc,d\ne,f\n")
    with pytest.raises(ValueError, match=r"t\.csv, line 1: .*pass header=True or header=False"):
        read_table(unclear)
    assert len(read_table(unclear, header=False)) == 3
    assert read_table(unclear, header=True).names == ["a", "b"]


def test_text_above_numbers_beside_a_number_is_unclear(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="may be either"):
        read_table(write(tmp_path, "weight,2019\n1,2\n3,4\n"))


def test_an_unnamed_index_column_gets_a_name(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, ",a\n0,1.5\n1,2.5\n")).names == ["column_1", "a"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("a,b\n1,2\n3\n", r"t\.csv, line 3: expected 2 fields as in line 1, got 1"),
        ('a,b\n"1\n1",2\n3,4,5\n', r"line 4: expected 2 fields"),
        ('a,b\n1,"2\n', r"line 2: expected well-formed fields"),
        ("a,a\n1,2\n", "expected different column names, got 'a' as columns 1 and 2"),
        ("  \n", "got an empty file"),
        ("a,b\n", "may be either"),
        ("a\n1\n2\ninf\n", r"line 4, column 'a': expected a number .* got 'inf'"),
    ],
)
def test_bad_text_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path, text))


def test_a_word_among_many_numbers_is_a_slip(tmp_path: Path) -> None:
    path = write(tmp_path, "id,age\n" + "".join(f"r,{i}\n" for i in range(40)) + "r,4O\n")
    with pytest.raises(ValueError, match=r"line 42, column 'age': expected a number .* got '4O'"):
        read_table(path)
    assert read_table(path, kinds={"age": "categorical"})["age"][-1] == "4O"
    with pytest.raises(ValueError, match="line 2, column 'id': expected a number, got 'r'"):
        read_table(path, kinds={"age": "categorical", "id": "integer"})


def test_codes_with_leading_zeros_and_long_numbers_stay_text(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "zip,long,n\n007,12345678901234567890,1\n112,3,2\n"))
    assert columns(table) == {"zip": ["007", "112"], "long": ["12345678901234567890", "3"], "n": [1, 2]}


def test_not_utf8_and_unknown_endings(tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("a\nMünchen\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.csv: expected UTF-8 text, got byte 0xfc at offset 3"):
        read_table(path)
    with pytest.raises(ValueError, match="expected a file ending in"):
        read_table(write(tmp_path, "a\n1\n", "t.xls"))
    with pytest.raises(ValueError, match=r"none\.csv: no such file"):
        read_table(tmp_path / "none.csv")


def test_exclude_leaves_out_and_refuses_unknown_names(tmp_path: Path) -> None:
    path = write(tmp_path, "age,town\n1,x\n2,y\n")
    assert read_table(path, exclude=["town"]).names == ["age"]
    with pytest.raises(ValueError, match=r"exclude: expected one of age, town, got 'twon' \(close: town\)"):
        read_table(path, exclude=["twon"])


def test_table_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(ValueError, match="'b': expected 2 rows as in 'a', got 1"):
        Table({"a": [1, 2], "b": [1]})
    with pytest.raises(ValueError, match="'a': expected finite numbers, got -inf at row 1"):
        Table({"a": [0.0, -np.inf]})
    with pytest.raises(ValueError, match="'a': expected numbers, text or booleans, got int and str"):
        Table({"a": [1, "x"]})
    with pytest.raises(ValueError, match="datetime64"):
        Table({"a": np.array(["2020-01-01"], dtype="datetime64[D]")})
    with pytest.raises(ValueError, match="one value per row"):
        Table({"a": np.zeros((2, 2))})


def test_minus_zero_is_zero_and_mixed_numbers_are_floats() -> None:
    table = Table({"a": [-0.0, 1], "b": [None, 2], "c": [True, None]})
    assert not np.signbit(table["a"]).any()
    assert columns(table) == {"a": [0.0, 1.0], "b": [None, 2.0], "c": ["True", None]}


FRAME = {
    "n": [1, 2, 3],
    "x": [0.5, None, 2.0],
    "town": ["Ulm", None, "Bonn"],
    "ok": [True, False, True],
    "maybe": [1, None, 3],
}


def pandas_frame() -> pd.DataFrame:
    frame = pd.DataFrame({key: pd.array(values) for key, values in FRAME.items()}, index=[7, 5, 6])
    frame["grade"] = pd.Categorical([3, 1, None], categories=[1, 2, 3])
    return frame


EXPECTED = {
    "n": [1, 2, 3],
    "x": [0.5, None, 2.0],
    "town": ["Ulm", None, "Bonn"],
    "ok": [True, False, True],
    "maybe": [1.0, None, 3.0],
    "grade": ["3", "1", None],
}


def without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", fake)


def test_frames_with_and_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pandas_frame()
    assert columns(from_frame(frame)) == EXPECTED
    without_pyarrow(monkeypatch)
    assert columns(from_frame(frame)) == EXPECTED


def test_frames_of_plain_numpy_columns() -> None:
    frame = pd.DataFrame(np.array([[1.0, np.nan], [2.5, 3.0]]))
    assert columns(from_frame(frame)) == {"0": [1.0, 2.5], "1": [None, 3.0]}
    assert columns(from_frame({"a": np.array([1, 2], dtype=np.uint8)})) == {"a": [1, 2]}


def test_frames_refused() -> None:
    with pytest.raises(ValueError, match="expected different names, got 'a' twice"):
        from_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    dates = pd.DataFrame({"when": pd.to_datetime(["2020-01-01"]), "a": [1]})
    with pytest.raises(ValueError, match=r"'when': expected numbers, text or booleans, got timestamp"):
        from_frame(dates)
    assert from_frame(dates, exclude=["when"]).names == ["a"]
    with pytest.raises(ValueError, match="'a': expected numbers, text or booleans, got int and str"):
        from_frame(pd.DataFrame({"a": [1, "x"]}, dtype=object))
    with pytest.raises(TypeError, match="expected a data frame"):
        from_frame(np.zeros((2, 2)))


def test_parquet_round_trip_and_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(pa.table(FRAME), path)
    assert columns(read_table(path, exclude=["maybe"])) == {k: EXPECTED[k] for k in ("n", "x", "town", "ok")}
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"broken\.parquet: expected a Parquet file"):
        read_table(broken)
    without_pyarrow(monkeypatch)
    with pytest.raises(ValueError, match=r"pip install 'seriatim\[tables\]'"):
        read_table(path)


def test_csv_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "out.csv"
    write_csv(path, Table({"old": [1]}))  # a file that is there is replaced
    write_csv(path, Table({"n": [1.0, None], "x": [0.1, 2.0], "t": ['a,"b"', None]}))
    assert path.read_text() == 'n,x,t\n1,0.1,"a,""b"""\n,2.0,\n'
    before = path.read_text()
    monkeypatch.setattr("seriatim.data.tables._fields", lambda values: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_csv(path, Table({"n": [1]}))
    assert path.read_text() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["out.csv"]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Cs"]), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-(2**53), 2**53),
            st.none() | TEXT.map(lambda text: "_" + text),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, ...]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    table = Table(dict(zip(["x", "n", "t"], map(list, zip(*rows, strict=True)), strict=True)))
    write_csv(path, table)
    kinds = {"x": "continuous", "n": "integer", "t": "categorical"}
    again = read_table(path, kinds=kinds, header=True, delimiter=",")
    want = columns(table)
    want["x"] = [None if v is None else float(v) for v in want["x"]]  # type: ignore[arg-type]
    assert columns(again) == want
