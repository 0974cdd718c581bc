"""The command line on tiny runs: every verb's happy path, its JSON, and one line for each wrong input."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import seriatim.cli
from seriatim import runs
from seriatim.cli import app
from seriatim.tasks import evaluate, explain

SMALL = ["--set", "model.hidden_features=[12]", "--set", "training.batch_size=20"]


def seriatim_cli(*arguments):
    """Run the program; its exit status, stdout and stderr."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


def ok(*arguments):
    result = seriatim_cli(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def refused(*arguments, words):
    """A wrong input: exit status 2, one line on stderr that holds the words, nothing on stdout."""
    result = seriatim_cli(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr)
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("note:", "estimate:"))]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("seriatim: error: ")
    assert result.stdout == ""
    for word in [words] if isinstance(words, str) else words:
        assert word in lines[0], lines[0]
    return lines[0]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data and runs: binary 4 x 4 images with classes, and a mixed table."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=160)
    images = (rng.random((160, 4, 4)) < (0.2 + 0.25 * labels)[:, None, None]).astype(np.uint8)
    images[:, 1] = images[:, 0]  # something to learn
    np.savez(folder / "images.npz", x=images, y=labels)
    rows = [
        f"{town},{age},{age * 0.5 + rng.normal():.2f}"
        for town, age in zip("UBK" * 40, rng.integers(18, 80, 120), strict=True)
    ]
    (folder / "table.csv").write_text("town,age,income\n" + "\n".join(rows) + "\n")
    common = ["--epochs", "2", *SMALL]
    ok("train", folder / "images.npz", "--out", folder / "made", *common)
    ok("train", folder / "images.npz", "--out", folder / "classes", "--context", "labels", *common)
    ok("train", folder / "images.npz", "--out", folder / "any", "--model", "order_agnostic_made", *common)
    ok("train", folder / "images.npz", "--out", folder / "tree", "--model", "bayesnet")
    ok("train", folder / "table.csv", "--out", folder / "table", *common)
    return folder


def test_import_is_light_and_help_fast():
    heavy = "('torch', 'lightning', 'matplotlib', 'numpy')"
    code = f"import sys, seriatim.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    before = os.times()
    shown = subprocess.run(
        [sys.executable, "-c", "from seriatim.cli import main; main()", "--help"], capture_output=True, text=True
    )
    after = os.times()
    assert shown.returncode == 0
    assert all(verb in shown.stdout for verb in ("train", "evaluate", "complete", "explain", "demo"))
    # Processor time, for other processes may slow the clock; it is 0.5 s on a calm machine.
    took = after.children_user + after.children_system - before.children_user - before.children_system
    assert took < 1.2


@pytest.mark.parametrize("verb", list(seriatim.cli.app.registered_commands), ids=lambda c: c.name)
def test_every_verb_has_help(verb):
    shown = ok(verb.name, "--help").stdout
    assert "Usage" in shown
    assert len(shown) > 200
    assert "`__" not in shown


def test_train_writes_a_whole_run(work):
    run = work / "made"
    assert {p.name for p in (run / "model").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert (run / "metrics.csv").read_text().count("\n") == 3
    config = (run / "config.yaml").read_text()
    for line in ("name: made", "hidden_features:", "epochs: 2", "batch_size: 20", "split_seed: 0"):
        assert line in config
    assert runs.load(run).event_shape == (4, 4)
    assert "schema" in runs.read_config(work / "table")


def test_config_of_a_run_makes_the_same_run(work, tmp_path):
    result = ok("train", "--config", work / "made" / "config.yaml", "--out", tmp_path / "again", "--json")
    again = json.loads(result.stdout)
    x = torch.ones(2, 4, 4)
    torch.testing.assert_close(runs.load(tmp_path / "again").log_prob(x), runs.load(work / "made").log_prob(x))
    assert again["epochs"] == 2
    assert again["run"] == str(tmp_path / "again")


def test_settings_have_their_order_of_precedence(work, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {name: nade, hidden_features: 5}\ntraining: {epochs: 7, batch_size: 30}\n")
    data = work / "images.npz"
    ok("train", data, "--config", file, "--epochs", 1, "--set", "training.batch_size=40", "--out", tmp_path / "run")
    config = runs.RunFolder.resume(tmp_path / "run").config
    assert config["model"]["name"] == "nade"
    assert config["model"]["hidden_features"] == 5
    assert config["training"]["epochs"] == 1
    assert config["training"]["batch_size"] == 40
    assert config["data"]["source"] == str(data)


def test_an_order_is_chosen_by_name(work, tmp_path):
    data = work / "images.npz"
    for order, name in (("random:3", "RandomOrder"), ("scan:flip_rows+transpose", "Scan")):
        run = tmp_path / name
        ok("train", data, "--model", "fvsbn", "--epochs", 1, "--set", f"model.order={order}", "--out", run)
        assert type(runs.load(run).order).__name__ == name
        assert runs.RunFolder.resume(run).config["model"]["order"] == order
    assert runs.load(tmp_path / "Scan").order.permutation[:4].tolist() == [12, 8, 4, 0]
    assert "evaluate" in ok("train", "--config", run / "config.yaml", "--out", tmp_path / "again").stderr
    for order in ("randm:3", "random:x", "scan:flip", "scan:transpose+transpose", "3"):
        wrong = ["train", data, "--out", tmp_path / "none", "--set", f"model.order={order}"]
        refused(*wrong, words=["order", order])
    refused("train", work / "table.csv", "--set", "model.order=scan:transpose", words=["order", "(3,)"])
    assert not (tmp_path / "none").exists()


def test_resume_goes_on(work, tmp_path):
    data = work / "images.npz"
    ok("train", data, "--epochs", 1, *SMALL, "--set", "training.schedule=constant", "--out", tmp_path / "run")
    ok("train", "--resume", tmp_path / "run", "--epochs", 3)
    assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == 4
    assert runs.RunFolder.resume(tmp_path / "run").config["training"]["epochs"] == 3
    refused("train", "--resume", tmp_path / "run", "--set", "training.learning_rate=0.5", words="learning_rate")
    refused("train", "--resume", work / "tree", words="bayesnet")
    refused("train", "--resume", tmp_path / "none", words="none")
    refused("train", "--resume", tmp_path / "run", "--out", tmp_path / "x", words="--out")


def test_ctrl_c_prints_the_resume_command_and_exits_130(work, tmp_path, monkeypatch):
    import seriatim.training
    from seriatim.training import Interrupted

    def stopped(model, data, config, folder, **options):
        raise Interrupted(folder.path, 7)

    monkeypatch.setattr(seriatim.training, "train", stopped)
    result = seriatim_cli("train", work / "images.npz", "--out", tmp_path / "run", *SMALL)
    assert result.exit_code == 130
    assert f"seriatim train --resume {tmp_path / 'run'}" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_without_a_name_gets_a_fresh_one(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("images-bayesnet", "images-bayesnet-2"):
        assert f"run: runs/{expected}" in ok("train", work / "images.npz", "--model", "bayesnet").stdout


def test_a_run_finds_its_data_from_any_folder(work, tmp_path, monkeypatch):
    data, run, elsewhere = tmp_path / "rows.npz", tmp_path / "run", tmp_path / "elsewhere"
    data.write_bytes((work / "images.npz").read_bytes())
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    ok("train", "rows.npz", "--epochs", 1, *SMALL, "--out", "run")
    own = ok("score", "run", "rows.npz", "--split", "test").stdout
    assert len(own.splitlines()) == 17  # of 160 rows those of the run's own test split
    monkeypatch.chdir(elsewhere)
    assert "nats per row" in ok("evaluate", "../run", "--no-baselines").stdout
    assert ok("score", run, "../rows.npz", "--split", "test").stdout == own
    ok("train", "--resume", run, "--epochs", 1)
    data.rename(tmp_path / "moved.npz")
    for verb in (["evaluate", run], ["report", run], ["train", "--resume", run]):
        refused(*verb, words=[str(data), "no such file", "config.yaml (data.source)"])


def test_bayesnet_is_fitted_to_training_rows_only(work):
    from seriatim.data import load
    from seriatim.models import BayesNet

    data = load(work / "images.npz")
    expected = BayesNet.learn(data.train, 2)
    found = runs.load(work / "tree")
    assert found.parents == expected.parents
    torch.testing.assert_close(found.table.logits, expected.table.logits)


def test_evaluate_agrees_with_the_task(work):
    from seriatim.data import load

    found = json.loads(ok("evaluate", work / "made", "--json").stdout)
    expected = evaluate(runs.load(work / "made"), load(work / "images.npz").test)
    assert found["nats_per_row"] == pytest.approx(expected.nats, abs=1e-5)
    assert found["bits_per_dim"] == pytest.approx(expected.bits_per_dim, abs=1e-6)
    assert found["nats_interval"] == pytest.approx(list(expected.interval), abs=1e-4)
    assert [b["name"] for b in found["baselines"]] == ["factorised", "chow-liu", "zlib", "xz"]
    text = ok("evaluate", work / "made").stdout
    assert "nats per row" in text
    assert "bits/dim" in text
    assert f"{expected.nats:.4f}" in text
    valid = json.loads(ok("evaluate", work / "made", "--split", "valid", "--no-baselines", "--json").stdout)
    assert valid["nats_per_row"] != found["nats_per_row"]
    assert valid["baselines"] == []


def test_evaluate_other_rows_orders_and_contexts(work, tmp_path):
    np.save(tmp_path / "rows.npy", np.ones((3, 4, 4), dtype=np.uint8))
    ones = json.loads(ok("evaluate", work / "made", "--data", tmp_path / "rows.npy", "--json").stdout)
    model = runs.load(work / "made")
    assert ones["nats_per_row"] == pytest.approx(-float(model.log_prob(torch.ones(4, 4)).detach()), abs=1e-4)
    both = [
        json.loads(ok("evaluate", work / "any", "--json", "--no-baselines", *orders).stdout)["nats_per_row"]
        for orders in ([], ["--orders", 4])
    ]
    assert both[0] != both[1]
    own = json.loads(ok("evaluate", work / "classes", "--json", "--no-baselines").stdout)["nats_per_row"]
    everything = ["--data", work / "images.npz", "--json", "--no-baselines"]
    found = json.loads(ok("evaluate", work / "classes", *everything).stdout)
    data = np.load(work / "images.npz")
    labels = torch.as_tensor(data["y"])
    direct = runs.load(work / "classes").log_prob(torch.as_tensor(data["x"]), labels).detach()
    assert found["num_rows"] == 160
    assert found["nats_per_row"] == pytest.approx(-float(direct.mean()), abs=1e-4)
    one = json.loads(ok("evaluate", work / "classes", "--json", "--no-baselines", "--context", "2").stdout)
    assert one["nats_per_row"] != own
    table = json.loads(ok("evaluate", work / "table", "--json").stdout)
    assert [b["nats_per_row"] is None for b in table["baselines"]] == [False, True, True, True]


def test_sample_writes_pictures_arrays_and_tables(work, tmp_path):
    ok("sample", work / "made", "-n", 6, "--out", tmp_path / "x.png", "--seed", 3)
    assert Image.open(tmp_path / "x.png").size[0] > 3 * 64
    ok("sample", work / "made", "-n", 6, "--out", tmp_path / "x.npy", "--seed", 3)
    x = np.load(tmp_path / "x.npy")
    expected = runs.load(work / "made").sample((6,), seed=3)
    np.testing.assert_array_equal(x, expected.numpy())
    lines = ok("sample", work / "made", "-n", 4, "--seed", 3).stdout.splitlines()
    assert lines[0].startswith("x1,x2,")
    assert [int(v) for v in lines[1].split(",")] == x[0].reshape(-1).astype(int).tolist()
    table = ok("sample", work / "table", "-n", 5).stdout.splitlines()
    assert table[0] == "town,age,income"
    assert len(table) == 6
    assert table[1].split(",")[0] in ("U", "B", "K", "(unseen)", "")
    found = json.loads(ok("sample", work / "made", "-n", 2, "--json").stdout)
    assert np.array(found["samples"]).shape == (2, 4, 4)
    assert len(found["log_prob_nats"]) == 2


def test_sample_given_a_class(work):
    by_name = ok("sample", work / "classes", "-n", 3, "--context", "label=2").stdout
    assert by_name == ok("sample", work / "classes", "-n", 3, "--context", "2").stdout
    assert by_name != ok("sample", work / "classes", "-n", 3, "--context", "0").stdout
    every = ok("sample", work / "classes", "-n", 2).stdout.splitlines()
    assert [line.split(",")[0] for line in every] == ["class", "0", "1", "2", "0", "1", "2"]
    refused("sample", work / "classes", "--context", "foo=2", words=["--context", "label=VALUE", "'foo=2'"])
    refused("sample", work / "classes", "--context", "9", words=["--context", "expected 0, 1, 2", "'9'"])
    refused("sample", work / "made", "--context", "1", words=["--context", "unconditional"])


def test_score_gives_log_p_of_each_row(work, tmp_path):
    rows = np.random.default_rng(1).integers(2, size=(5, 4, 4)).astype(np.uint8)
    np.save(tmp_path / "rows.npy", rows)
    lines = ok("score", work / "made", tmp_path / "rows.npy").stdout.splitlines()
    assert lines[0] == "row,log_prob_nats,bits_per_dim"
    expected = runs.load(work / "made").log_prob(torch.as_tensor(rows)).detach().numpy()
    found = np.array([[float(v) for v in line.split(",")] for line in lines[1:]])
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-4)
    np.testing.assert_allclose(found[:, 2], -expected / 16 / np.log(2), atol=1e-5)
    ok("score", work / "made", tmp_path / "rows.npy", "--out", tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines() == lines
    np.save(tmp_path / "flat.npy", rows.reshape(5, 16))
    assert ok("score", work / "made", tmp_path / "flat.npy").stdout.splitlines() == lines
    table = ok("score", work / "table", work / "table.csv").stdout.splitlines()
    assert len(table) == 121
    found = json.loads(ok("score", work / "made", tmp_path / "rows.npy", "--json").stdout)
    np.testing.assert_allclose(found["log_prob_nats"], expected, atol=1e-4)


def test_complete_keeps_what_is_given(work, tmp_path):
    data = work / "images.npz"
    common = ["-n", 3, "--rows", 2, "--seed", 1]
    ok("complete", work / "made", data, "--region", "top", *common, "--out", tmp_path / "c.npy")
    test, done = np.load(data)["x"][:2], np.load(tmp_path / "c.npy")
    assert done.shape == (3, 2, 4, 4)
    np.testing.assert_array_equal(done[:, :, :2], np.broadcast_to(test[:, :2], (3, 2, 2, 4)))
    lines = ok("complete", work / "made", data, "--region", "top", *common).stdout.splitlines()
    assert lines[0].startswith("row,completion,log_prob_missing_nats,exactness,x1,")
    assert len(lines) == 7
    assert lines[1].split(",")[3] == "exact"
    ok("complete", work / "any", data, "--region", "center", *common, "--out", tmp_path / "c.png")
    assert Image.open(tmp_path / "c.png").size[1] > 2 * 64
    mask = np.zeros((4, 4), dtype=bool)
    mask[3, 3] = True
    np.save(tmp_path / "mask.npy", mask)
    found = json.loads(ok("complete", work / "any", data, "--mask", tmp_path / "mask.npy", *common, "--json").stdout)
    assert found["exactness"] == "exact for this order"
    tree = json.loads(ok("complete", work / "tree", data, "--mask", tmp_path / "mask.npy", *common, "--json").stdout)
    assert tree["exactness"] == "exact"
    table = ok("complete", work / "table", work / "table.csv", "--given", "town", *common).stdout.splitlines()
    assert table[1].split(",")[4] == "U"


def test_complete_refuses_what_is_not_exact(work, tmp_path):
    data = work / "images.npz"
    out = tmp_path / "c.png"
    refused("complete", work / "made", data, "--region", "bottom", "--out", out, words=["prefix", "region top"])
    assert not out.exists()
    refused("complete", work / "made", data, "--region", "topp", words="did you mean top")
    refused("complete", work / "made", data, words="exactly one of --region")
    refused("complete", work / "made", data, "--given", "a", words="--given")
    refused("complete", work / "table", work / "table.csv", "--given", "twon", words="did you mean town")
    np.save(tmp_path / "mask.npy", np.ones((2, 2)))
    refused("complete", work / "made", data, "--mask", tmp_path / "mask.npy", words=["--mask", "(4, 4)", "(2, 2)"])


def test_explain_gives_bits(work, tmp_path):
    data = work / "images.npz"
    lines = ok("explain", work / "made", data).stdout.splitlines()
    assert lines[0] == "column,mean_bits,std_bits,max_bits,max_row"
    assert len(lines) == 17
    ok("explain", work / "made", data, "--out", tmp_path / "bits.npy")
    bits = np.load(tmp_path / "bits.npy")
    assert len(bits) == 160
    score = json.loads(ok("evaluate", work / "made", "--data", data, "--no-baselines", "--json").stdout)
    assert bits.sum((1, 2)).mean() * np.log(2) == pytest.approx(score["nats_per_row"], abs=1e-4)
    ok("explain", work / "made", data, "--rows", 4, "--out", tmp_path / "heat.png")
    assert Image.open(tmp_path / "heat.png").size[0] > 8 * 48
    table = ok("explain", work / "table", work / "table.csv").stdout.splitlines()
    assert [line.split(",")[0] for line in table[1:]] == ["town", "age", "income"]
    ensemble = ok("explain", work / "any", data, "--orders", 3)
    assert "3 orders" in ensemble.stderr


def test_explain_reads_no_more_rows_than_asked_for(work, tmp_path, monkeypatch):
    from seriatim import tasks

    given = []
    monkeypatch.setattr(tasks, "explain", lambda joint, x, **options: given.append(x) or explain(joint, x, **options))
    ok("explain", work / "classes", work / "images.npz", "--rows", 4, "--out", tmp_path / "bits.npy")
    whole = explain(runs.load(work / "classes"), np.load(work / "images.npz")["x"], np.load(work / "images.npz")["y"])
    assert len(given[0]) == 4
    np.testing.assert_allclose(np.load(tmp_path / "bits.npy"), whole.bits[:4], rtol=1e-5)


def test_check_prints_the_report_and_its_status(work, monkeypatch):
    shown = ok("check", work / "tree", "--only", "causality,fork").stdout
    assert "conformance of BayesNet" in shown
    assert "2 passed" in shown
    found = json.loads(ok("check", "fvsbn", "--only", "normalisation", "--json").stdout)
    assert found["ok"]
    assert found["results"][0]["name"] == "normalisation"
    import seriatim.testing.suite as suite
    from seriatim.testing.case import CheckFailed

    def broken(case):
        raise CheckFailed("position 1 depends on position 2")

    monkeypatch.setitem(suite.CHECKS, "causality", broken)
    result = seriatim_cli("check", "made", "--only", "causality")
    assert result.exit_code == 1
    assert "position 1 depends on position 2" in result.stdout
    refused("check", "mad", words="did you mean made")
    refused("check", "made", "--only", "causalty", words="did you mean causality")


def test_models_and_data_are_listed(work):
    names = [entry["name"] for entry in json.loads(ok("models", "--json").stdout)]
    assert {"made", "bayesnet", "nade"} <= set(names)
    assert "hidden_features" in ok("models", "made").stdout
    assert json.loads(ok("models", "bayesnet", "--json").stdout)["options"]["method"] == "chow_liu"
    refused("models", "mde", words="did you mean made")
    assert "digits" in ok("data").stdout
    described = json.loads(ok("data", work / "table.csv", "--json").stdout)
    assert described["kind"] == "table"
    assert [c["name"] for c in described["columns"]] == ["town", "age", "income"]
    changed = ok("data", work / "table.csv", "--set", "overrides.age=continuous").stdout
    assert "age: continuous" in changed


def test_report_is_one_page_that_needs_nothing(work, tmp_path):
    for run in ("made", "table", "classes"):
        ok("report", work / run, "--out", tmp_path / f"{run}.html", "--no-check")
        html = (tmp_path / f"{run}.html").read_text()
        assert not re.search(r"""(src|href)=["'](?!data:)""", html)
        assert "url(http" not in html
        assert "nats per" in html
        assert "sha256" in html
        assert "config.yaml" in html
    html = (tmp_path / "made.html").read_text()
    assert html.count("data:image/png;base64,") > 30
    assert "fill in what is missing" in html
    found = json.loads(ok("report", work / "made", "--no-check", "--json").stdout)
    assert Path(found["report"]) == work / "made" / "report.html"
    refused("report", work / "made", "--out", tmp_path / "x.pdf", words=["--out", ".html"])


def test_vectors_and_tables_of_categories_have_reports_too(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "wide.npy", rng.integers(2, size=(60, 30)).astype(np.uint8))
    rows = [f"{'abc'[i]},{'xy'[i % 2]}" for i in rng.integers(3, size=80)]
    (tmp_path / "names.csv").write_text("first,second\n" + "\n".join(rows) + "\n")
    for name in ("wide.npy", "names.csv"):
        run = tmp_path / name.split(".")[0]
        ok("train", tmp_path / name, "--model", "bayesnet", "--out", run)
        ok("report", run, "--no-check")
        html = (run / "report.html").read_text()
        assert "What surprises it?" in html
        assert "The columns that cost the most bits" in html
        found = json.loads(ok("evaluate", run, "--json").stdout)
        assert [b["name"] for b in found["baselines"]] == ["factorised", "zlib", "xz"]  # the tree is the model itself
    done = ok("complete", tmp_path / "names", tmp_path / "names.csv", "--given", "second", "-n", 2, "--rows", 1)
    assert done.stdout.splitlines()[1].split(",")[3:] in (
        ["exact", first, "xy"["abc".index(first) % 2]] for first in "abc"
    )
    ok("explain", tmp_path / "wide", tmp_path / "wide.npy", "--out", tmp_path / "heat.png")
    assert Image.open(tmp_path / "heat.png").size == (30 * 8, 60 * 8)


def test_a_baseline_that_is_the_model_is_not_listed_twice(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{'abc'[i]},{('x', 'y', '')[i]}" for i in rng.integers(3, size=80)]
    (tmp_path / "gaps.csv").write_text("first,second\n" + "\n".join(rows) + "\n")
    scores = []
    for count, names in ((0.1, {"factorised", "zlib", "xz"}), (0.2, {"factorised", "chow-liu", "zlib", "xz"})):
        run = tmp_path / str(count)
        ok("train", tmp_path / "gaps.csv", "--model", "bayesnet", "--set", f"model.pseudo_count={count}", "--out", run)
        found = json.loads(ok("evaluate", run, "--json").stdout)
        others = {b["name"]: b["nats_per_row"] for b in found["baselines"]}
        assert set(others) == names
        assert others["factorised"] > found["nats_per_row"] + 0.5
        scores.append(found["nats_per_row"])
    assert others["chow-liu"] == pytest.approx(scores[0], abs=1e-4)  # the first run


def test_rows_may_be_a_folder_of_images(work, tmp_path):
    images = np.load(work / "images.npz")["x"][:3]
    (tmp_path / "pictures").mkdir()
    for n, image in enumerate(images):
        Image.fromarray(image * 255).save(tmp_path / "pictures" / f"{n}.png")
    found = ok("score", work / "made", tmp_path / "pictures").stdout
    np.save(tmp_path / "rows.npy", images)
    assert found == ok("score", work / "made", tmp_path / "rows.npy").stdout
    (tmp_path / "pictures" / "1.png").write_bytes(b"not a picture")
    refused("score", work / "made", tmp_path / "pictures", words="1.png")


def test_a_table_with_a_label_column_is_conditional(tmp_path):
    rng = np.random.default_rng(0)
    rows = [f"{kind},{rng.normal() + 3 * (kind == 'b'):.3f}" for kind in rng.choice(["a", "b"], 90)]
    (tmp_path / "t.csv").write_text("kind,size\n" + "\n".join(rows) + "\n")
    run = tmp_path / "run"
    options = ["--set", "data.label=kind", "--context", "labels", "--epochs", 1, *SMALL]
    ok("train", tmp_path / "t.csv", "--out", run, *options)
    own = ok("score", run, tmp_path / "t.csv").stdout.splitlines()
    for_b = ok("score", run, tmp_path / "t.csv", "--context", "kind=b").stdout.splitlines()
    same = [a == b for a, b in zip(own, for_b, strict=True)][1:]
    assert same == [row.startswith("b") for row in rows]
    refused("sample", run, "--context", "kind=c", words=["expected a, b", "'c'"])
    refused("sample", run, "--context", "size=b", words="kind=VALUE")
    (tmp_path / "new.csv").write_text("kind,size\na,1.5\nc,2.0\n")
    refused("score", run, tmp_path / "new.csv", words=["a, b", "'c' in row 1"])
    (tmp_path / "t.csv").write_text("kind,size\n" + "\n".join(reversed(rows)) + "\n")
    refused("evaluate", run, words=["t.csv", "trained on", "sha256"])
    assert len(ok("score", run, tmp_path / "t.csv").stdout.splitlines()) == 91


WRONG = [
    (["train"], "DATA"),
    (["train", "nofile.csv"], "nofile.csv"),
    (["train", "digist"], "close: digits"),
    (["train", "digits", "--model", "mad"], "did you mean made"),
    (["train", "digits", "--set", "model.hidden_feature=3"], "did you mean hidden_features"),
    (["train", "digits", "--set", "training.epoch=3"], "did you mean epochs"),
    (["train", "digits", "--set", "data.levles=3"], "did you mean levels"),
    (["train", "digits", "--set", "trainning.epochs=3"], "did you mean training"),
    (["train", "digits", "--set", "training.epochs=0"], ["training.epochs", "got 0"]),
    (["train", "digits", "--epochs", "x"], "--epochs"),
    (["train", "digits", "--set", "epochs"], "--set"),
    (["train", "digits", "--config", "none.yaml"], "none.yaml"),
    (["train", "digits", "--set", "model.head=Nomal"], "did you mean Normal"),
    (["train", "digits", "--set", "model.head=Normal"], "grows without bound"),
    (["train", "digits", "--model", "full_table"], "cells"),
    (["train", "digits", "--context", "label"], "context"),
    (["train", "digits", "--device", "gpu"], "device"),
    (["train", "digits", "--foo"], "--foo"),
    (["evaluate", "norun"], "norun"),
    (["evaluate"], "RUN"),
    (["sampel"], "sample"),
]


@pytest.mark.parametrize("arguments, words", WRONG, ids=lambda a: "_".join(a)[:40] if isinstance(a, list) else "")
def test_wrong_input_is_one_line_and_writes_nothing(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(*arguments, words=words)
    assert list(tmp_path.iterdir()) == []


def test_wrong_rows_are_named(work, tmp_path):
    run = work / "made"
    nan = np.ones((3, 4, 4))
    nan[1, 2, 3] = np.nan
    np.save(tmp_path / "nan.npy", nan)
    refused("score", run, tmp_path / "nan.npy", words=["nan.npy", "row 1, position (2, 3)"])
    np.save(tmp_path / "two.npy", np.full((3, 4, 4), 2))
    refused("score", run, tmp_path / "two.npy", words=["0 or 1", "got 2"])
    np.save(tmp_path / "shape.npy", np.ones((3, 5, 5)))
    refused("score", run, tmp_path / "shape.npy", words=["4, 4", "5, 5"])
    (tmp_path / "cut.npy").write_bytes((tmp_path / "two.npy").read_bytes()[:150])
    refused("score", run, tmp_path / "cut.npy", words="cut.npy")
    (tmp_path / "x.txt").write_text("hello")
    refused("score", run, tmp_path / "x.txt", words="x.txt")
    (tmp_path / "t.csv").write_text("town,age\nU,3\n")
    refused("score", work / "table", tmp_path / "t.csv", words=["t.csv", "income"])
    refused("score", run, work / "images.npz", "--split", "tset", words="--split")


def test_damaged_runs_are_refused(work, tmp_path):
    import shutil

    shutil.copytree(work / "made", tmp_path / "run")
    weights = tmp_path / "run" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    refused("evaluate", tmp_path / "run", words="model.safetensors")
    (tmp_path / "run" / "model" / "config.json").write_text("{")
    refused("evaluate", tmp_path / "run", words="config.json")


def test_outputs_are_whole_or_absent(work, tmp_path):
    refused("sample", work / "table", "--out", tmp_path / "x.png", words=["--out", ".npy or .csv"])
    refused("sample", work / "made", "--out", tmp_path / "x.jpg", words=["--out", ".png"])
    refused("sample", work / "made", "-n", 0, words="-n")
    (tmp_path / "file").write_text("kept")
    refused("sample", work / "made", "--out", tmp_path / "file" / "x.npy", words="folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_run_folder_with_files_is_left_alone(work):
    before = sorted(p.name for p in (work / "made").iterdir())
    refused("train", work / "images.npz", "--out", work / "made", *SMALL, words=["new or empty folder", "made"])
    assert sorted(p.name for p in (work / "made").iterdir()) == before


def test_a_model_without_a_run_can_be_used(work, tmp_path):
    import shutil

    shutil.copytree(work / "made" / "model", tmp_path / "model")
    assert "x1" in ok("sample", tmp_path / "model", "-n", 1).stdout
    assert "row" in ok("score", tmp_path / "model", work / "images.npz").stdout
    refused("evaluate", tmp_path / "model", words="--data")
    refused("report", tmp_path / "model", words="expected a run")
    found = json.loads(ok("evaluate", tmp_path / "model", "--data", work / "images.npz", "--json").stdout)
    assert found["baselines"] == []


def test_bugs_of_ours_keep_their_traceback(work, monkeypatch):
    import seriatim.tasks

    def broken(*arguments, **options):
        raise KeyError("a bug")

    monkeypatch.setattr(seriatim.tasks, "generate", broken)
    result = seriatim_cli("sample", work / "made")
    assert isinstance(result.exception, KeyError)
