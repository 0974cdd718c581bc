"""`seriatim demo` from start to report, in few epochs."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from seriatim import runs
from seriatim.cli.demonstration import MARKER, replacing_folder
from test_cli import ok, refused, seriatim_cli


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "demo"
    result = ok("demo", "--out", out, "--epochs", 2, "--no-check", "--json")
    return out, json.loads(result.stdout)


def test_demo_makes_runs_pictures_and_a_report(demo):
    out, found = demo
    assert found["report"] == str(out / "report.html")
    html = (out / "report.html").read_text()
    for words in ("How good is it?", "What does it imagine?", "fill in what is missing", "What surprises it?"):
        assert words in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    for picture in ("samples.png", "completions.png", "surprise.png"):
        assert Image.open(out / picture).size[0] > 100
    assert runs.load(out / "made").event_shape == runs.load(out / "chow-liu").event_shape == (8, 8)
    numbers = {entry["name"]: entry["nats_per_row"] for entry in [*found["models"], *found["baselines"]]}
    assert numbers["Chow-Liu tree"] == pytest.approx(20.92, abs=0.1)
    assert numbers["Chow-Liu tree"] < numbers["factorised"] < numbers["xz"]
    assert numbers["MADE"] < 26


def test_runs_of_the_demo_work_with_the_other_verbs(demo):
    out, found = demo
    score = json.loads(ok("evaluate", out / "made", "--no-baselines", "--json").stdout)
    assert score["nats_per_row"] == pytest.approx(found["models"][0]["nats_per_row"], abs=1e-4)


def test_a_second_demo_replaces_the_first_and_nothing_else(demo):
    out, _ = demo
    (out / "left over").write_text("of the first demo")
    result = ok("demo", "--out", out, "--epochs", 1, "--no-check")
    assert "replaces the earlier one" in result.stderr
    assert not (out / "left over").exists()
    assert str(out / "report.html") in result.stdout
    assert [p.name for p in out.parent.iterdir()] == ["demo"]


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    refused("demo", "--out", tmp_path, words=["--out", "other files"])
    refused("demo", "--out", tmp_path / "mine.txt", words=["--out", "file"])
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_demo_that_fails_gives_the_earlier_one_back(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    with replacing_folder(out):
        (out / "report.html").write_text("first")

    import seriatim.cli.demonstration as demonstration

    def stopped(*arguments, **options):
        (out / "half.txt").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(demonstration, "demonstrate", stopped)
    result = seriatim_cli("demo", "--out", out)
    assert result.exit_code == 130
    assert sorted(p.name for p in out.iterdir()) == [MARKER, "report.html"]
    assert (out / "report.html").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_small_copies_pass_the_conformance_suite():
    from seriatim.cli.demonstration import _checks
    from seriatim.data import load
    from seriatim.models import FVSBN, BayesNet

    data = load("digits")
    reports = _checks(FVSBN((2,)), BayesNet((2,), 2), data, 0)
    assert all(report.ok for report, _ in reports), [str(report) for report, _ in reports]
