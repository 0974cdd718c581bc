"""Jobs on images from the command line: train, sample by class, stream, complete, report."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seriatim.data.files
from seriatim import runs
from seriatim.data import load
from seriatim.report.pictures import HIDDEN, heat_colours
from seriatim.report.sections import nearest
from seriatim.report.views import View
from seriatim.tasks import evaluate, generate
from test_cli import ok, refused

SMALL = ["--model", "gated_pixelcnn", "--epochs", "1", "--set", "training.batch_size=20"]
SMALL += [word for name in ("hidden_features=4", "num_layers=1") for word in ("--set", f"model.{name}")]


def paint(folder: Path, seed: int = 0, count: int = 12, shape: tuple[int, ...] = (3, 4, 3)) -> Path:
    """Write a folder of two classes: blue skies and yellow suns."""
    rng = np.random.default_rng(seed)
    for name, colour in {"sky": (40, 90, 220), "sun": (230, 200, 40)}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = rng.normal(0, 20, shape)
            image = np.clip(np.array(colour if len(shape) == 3 else colour[1]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder of images, a run of its colours by class, and one of its dynamic bits, read column by column."""
    folder = tmp_path_factory.mktemp("images")
    paint(folder / "pictures")
    ok("train", folder / "pictures", *SMALL, "--context", "labels", "--levels", 8, "--out", folder / "colours")
    bits = ["--grey", "--resize", "4x3", "--binarise", "dynamic", "--set", "data.split_seed=5"]
    ok("train", folder / "pictures", *SMALL, *bits, "--set", "model.order=scan:transpose", "--out", folder / "bits")
    return folder


def test_the_options_of_the_data_are_in_the_config(work):
    config = runs.RunFolder.resume(work / "bits").config["data"]
    assert {name: config[name] for name in ("size", "grey", "binarise", "split_seed")} == {
        "size": [4, 3],
        "grey": True,
        "binarise": "dynamic",
        "split_seed": 5,
    }
    assert runs.load(work / "bits").event_shape == (4, 3)
    colours = runs.load(work / "colours")
    assert colours.event_shape == (3, 4, 3)  # every channel is a position
    assert colours.order.length == 36
    assert runs.RunFolder.resume(work / "colours").config["data"]["levels"] == 8


def test_numbers_of_bits_say_how_they_were_drawn(work, tmp_path):
    stated = "dynamic (train drawn anew each epoch, valid and test once, seed 5)"
    assert f"\nbinarised: {stated}\n" in ok("evaluate", work / "bits").stdout
    found = json.loads(ok("evaluate", work / "bits", "--no-baselines", "--json").stdout)
    assert found["binarised"] == stated
    data = load(work / "pictures", size=(4, 3), grey=True, binarise="dynamic", split_seed=5)
    assert found["nats_per_row"] == pytest.approx(evaluate(runs.load(work / "bits"), data.test).nats, abs=1e-5)
    assert f"binarised: {stated}" in data.describe()
    others = json.loads(ok("evaluate", work / "bits", "--data", work / "pictures", "--no-baselines", "--json").stdout)
    assert others["binarised"] == "dynamic (these rows drawn once, seed 5)"
    plain = ok("evaluate", work / "colours", "--no-baselines").stdout
    assert "binarised" not in plain
    fixed = [*SMALL, "--grey", "--binarise", "threshold:0.4", "--out", tmp_path / "run"]
    ok("train", work / "pictures", *fixed)
    assert "\nbinarised: threshold:0.4\n" in ok("evaluate", tmp_path / "run", "--no-baselines").stdout


def test_arrays_and_named_sets_are_scaled_too(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "rgb.npz", x=x)
    run = tmp_path / "run"
    ok("train", tmp_path / "rgb.npz", "--resize", "3x4", "--grey", "--model", "fvsbn", "--epochs", 1, "--out", run)
    assert runs.load(run).event_shape == (3, 4)
    np.save(tmp_path / "scaled.npy", load(tmp_path / "rgb.npz", size=(3, 4), grey=True, fractions=(0.8, 0.1, 0.1)).test)
    assert len(ok("score", run, tmp_path / "rgb.npz").stdout.splitlines()) == 21
    own = json.loads(ok("evaluate", run, "--no-baselines", "--json").stdout)["nats_per_row"]
    again = json.loads(ok("score", run, tmp_path / "scaled.npy", "--json").stdout)["log_prob_nats"]
    assert -np.mean(again) == pytest.approx(own, abs=1e-4)
    np.save(tmp_path / "flat.npy", np.zeros((20, 5), dtype=np.uint8))
    refused("train", tmp_path / "flat.npy", "--resize", 4, words=["flat.npy", "(N, H, W)", "(20, 5)"])
    np.savez(tmp_path / "freyfaces.npz", x=np.zeros((30, 28, 20), dtype=np.uint8) + 90)
    monkeypatch.setenv("SERIATIM_DATA", str(tmp_path))
    assert "integer with 4 levels, 7 x 5" in ok("data", "freyfaces", "--set", "size=[7,5]", "--set", "levels=4").stdout


def test_grey_arrays_are_binarised_as_those_of_the_run(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 17, (40, 3, 3)).astype(np.uint8)
    np.savez(tmp_path / "grey.npz", x=x, y=rng.integers(2, size=40))
    ok("train", tmp_path / "grey.npz", *SMALL, "--binarise", "threshold:0.5", "--out", tmp_path / "run")
    grey = ok("score", tmp_path / "run", tmp_path / "grey.npz").stdout
    np.save(tmp_path / "bits.npy", (x >= 8).astype(np.uint8))
    assert ok("score", tmp_path / "run", tmp_path / "bits.npy").stdout == grey
    np.save(tmp_path / "wide.npy", x.astype(int) * 2)
    refused("score", tmp_path / "run", tmp_path / "wide.npy", words=["wide.npy", "0..16"])


def test_archives_train_by_class(tmp_path):
    rng = np.random.default_rng(0)
    parts = {split: rng.integers(0, 256, (n, 3, 3, 3)).astype(np.uint8) for split, n in (("train", 20), ("test", 6))}
    labels = {f"y_{split}": rng.integers(2, size=len(x)) for split, x in parts.items()}
    np.savez(tmp_path / "rgb.npz", **{f"x_{split}": x for split, x in parts.items()}, **labels)
    ok("train", tmp_path / "rgb.npz", *SMALL, "--context", "labels", "--out", tmp_path / "rgb")
    assert runs.load(tmp_path / "rgb").encoder.num_features == 2
    found = json.loads(ok("evaluate", tmp_path / "rgb", "--no-baselines", "--json").stdout)
    assert found["num_rows"] == 6


def test_named_sets_train_by_class_and_in_bits(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    parts = {split: rng.integers(2, size=(8, 784)).astype(np.uint8) for split in ("train", "valid", "test")}
    labels = {f"y_{split}": 1 + np.arange(8) % 2 for split in parts}
    np.savez(tmp_path / "caltech101_silhouettes_28.npz", classnames=["ant", "anchor"], **parts, **labels)
    np.savez(tmp_path / "freyfaces.npz", x=rng.integers(0, 256, (30, 28, 20)).astype(np.uint8))
    monkeypatch.setenv("SERIATIM_DATA", str(tmp_path))
    options = ["--model", "fvsbn", "--epochs", 1]
    ok("train", "caltech101_silhouettes", *options, "--context", "labels", "--out", tmp_path / "classes")
    assert ok("sample", tmp_path / "classes", "-n", 1).stdout.splitlines()[2].startswith("anchor,")
    run = tmp_path / "faces"
    ok("train", "freyfaces", *options, "--binarise", "sampled", "--out", run)
    assert "sampled (each split drawn once, seed 0)" in ok("evaluate", run, "--no-baselines").stdout
    done = json.loads(ok("complete", run, "freyfaces", "--region", "top", "-n", 1, "--rows", 1, "--json").stdout)
    assert np.array(done["samples"]).max() == 1  # the named set, in the run's own bits


def test_every_class_has_a_row_of_the_grid(work, tmp_path):
    ok("sample", work / "colours", "-n", 3, "--out", tmp_path / "grid.png", "--seed", 2)
    drawn = np.asarray(Image.open(tmp_path / "grid.png"))
    scale, pad = 64 // 3, 2
    assert drawn.shape == (2 * (3 * scale + pad) + pad, 3 * (4 * scale + pad) + pad, 3)
    model = runs.load(work / "colours")
    expected = generate(model, 6, torch.tensor([0, 1] * 3), seed=2).numpy()
    for row in (0, 1):
        for column in range(3):
            top, left = pad + row * (3 * scale + pad), pad + column * (4 * scale + pad)
            tile = drawn[top : top + 3 * scale : scale, left : left + 4 * scale : scale]
            np.testing.assert_array_equal(tile, np.round(expected[2 * column + row] * 255 / 7))
    lines = ok("sample", work / "colours", "-n", 3, "--seed", 2).stdout.splitlines()
    assert lines[0].startswith("class,x1,x2")
    assert [line.split(",")[0] for line in lines[1:]] == ["sky", "sun"] * 3
    fewer = ok("sample", work / "colours", "-n", 2, "--seed", 2).stdout.splitlines()
    assert fewer == lines[:5]  # sample r does not depend on how many are drawn
    found = json.loads(ok("sample", work / "colours", "-n", 1, "--json").stdout)
    assert found["classes"] == ["sky", "sun"]
    one = ok("sample", work / "colours", "-n", 2, "--context", "sun").stdout
    assert one.startswith("x1,")


def test_a_stream_ends_in_the_same_picture(work, tmp_path, monkeypatch):
    moved = []
    replace = seriatim.data.files.os.replace

    def watched(source, target):
        if Path(target).name == "grown.png":
            moved.append(np.asarray(Image.open(source).convert("RGB")))
        replace(source, target)

    for run, count in (("colours", 36), ("bits", 12)):
        for temperature in (1.0, 0.5):
            options = ["-n", 2, "--seed", 4, "--temperature", temperature, "--out"]
            ok("sample", work / run, *options, tmp_path / "whole.png")
            moved.clear()
            with monkeypatch.context() as patch:
                patch.setattr(seriatim.data.files.os, "replace", watched)
                told = ok("sample", work / run, "--stream", *options, tmp_path / "grown.png").stderr
            assert (tmp_path / "grown.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
            assert len(moved) == count
            open_parts = [int((picture == np.array(HIDDEN)).all(-1).sum()) for picture in moved]
            assert open_parts == sorted(open_parts, reverse=True)
            assert open_parts[0] > open_parts[-2] > open_parts[-1] == 0
            total = count * 2 * (2 if run == "colours" else 1)
            assert f"stream: {total} of {total} values" in told
            assert len(told.splitlines()) > 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grown.png", "whole.png"]
    plain, cold = (ok("sample", work / "colours", "-n", 4, *more).stdout for more in ([], ["--temperature", 0.1]))
    assert plain != cold


def test_completions_stand_between_given_and_truth(work, tmp_path):
    options = ["-n", 3, "--rows", 2, "--seed", 1]
    shown = ok(
        "complete", work / "colours", work / "pictures", "--region", "top", *options, "--out", tmp_path / "c.png"
    )
    lines = [line.split(",") for line in shown.stdout.splitlines()]
    assert lines[0] == ["row", "completion", "log_prob_missing_nats", "exactness"]
    assert [line[1] for line in lines[1:]] == ["0", "1", "2", "truth"] * 2
    done = json.loads(ok("complete", work / "colours", work / "pictures", "--region", "top", *options, "--json").stdout)
    printed = np.array([[float(line[2]) for line in lines[1:]][n * 4 : n * 4 + 3] for n in range(2)]).T
    np.testing.assert_allclose(printed, done["log_prob_nats"], atol=1e-4)
    assert len({str(sample) for sample in done["samples"]}) == 3  # diverse
    picture = np.asarray(Image.open(tmp_path / "c.png"))
    scale = 64 // 3
    assert picture.shape[1] == 5 * (4 * scale + 2) + 2
    images = load(work / "pictures", levels=8)
    row = np.asarray(Image.open(work / "pictures" / "sky" / "00.png")).astype(int) * 8 // 256
    first = picture[2 : 2 + 3 * scale : scale, 2 : 2 + 4 * scale : scale]
    np.testing.assert_array_equal(first[:1], np.round(row[:1] * 255 / 7))
    assert (first[1:] == np.array(HIDDEN)).all()
    left = 2 + 4 * (4 * scale + 2)
    np.testing.assert_array_equal(picture[2 : 2 + 3 * scale : scale, left:-2:scale], np.round(row * 255 / 7))
    assert images.event_shape == (3, 4, 3)


def test_the_hole_must_come_last_in_the_order_of_the_model(work, tmp_path):
    for run, exact, other in (("colours", "top", "left"), ("bits", "left", "top")):
        assert ok("complete", work / run, work / "pictures", "--region", exact, "-n", 1, "--rows", 1).stdout
        out = tmp_path / "c.png"
        refused(
            "complete",
            work / run,
            work / "pictures",
            "--region",
            other,
            "--out",
            out,
            words=["prefix", f"region {exact}"],
        )
        assert not out.exists()


def test_gaps_have_no_truth(work, tmp_path):
    x = np.random.default_rng(0).integers(2, size=(2, 4, 3)).astype(float)
    np.save(tmp_path / "whole.npy", x)
    x[0, 1, 2] = np.nan
    np.save(tmp_path / "gap.npy", x)
    options = ["--region", "left", "-n", 2, "--json"]
    found, whole = (
        json.loads(ok("complete", work / "bits", tmp_path / f"{name}.npy", *options).stdout)
        for name in ("gap", "whole")
    )
    assert found["truth_log_prob_nats"][0] is None
    assert found["truth_log_prob_nats"][1] == pytest.approx(whole["truth_log_prob_nats"][1], abs=1e-5)
    assert found["samples"] == whole["samples"]
    ok("complete", work / "bits", tmp_path / "gap.npy", *options[:-1], "--out", tmp_path / "gap.png")
    scale = 64 // 4
    tile = np.asarray(Image.open(tmp_path / "gap.png"))[2 : 2 + 4 * scale, -2 - 3 * scale : -2]
    assert (tile[:, -1] == np.array(HIDDEN)).all()  # of the truth, the gap stays open
    x[1, 0, 0] = np.nan
    np.save(tmp_path / "gap.npy", x)
    refused("complete", work / "bits", tmp_path / "gap.npy", *options, words=["finite", "row 1, position (0, 0)"])


def test_a_mask_of_pixels_covers_their_channels(work, tmp_path):
    mask = np.zeros((3, 4), dtype=bool)
    mask[0, :2] = True
    np.save(tmp_path / "mask.npy", mask)
    options = ["--mask", tmp_path / "mask.npy", "-n", 1, "--rows", 1, "--json"]
    found = json.loads(ok("complete", work / "colours", work / "pictures", *options).stdout)
    assert np.array(found["observed"]).sum() == 6


def test_wrong_images_are_one_line(work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures = paint(tmp_path / "pictures", count=4)
    before = sorted(tmp_path.rglob("*"))
    common = [*SMALL, "--context", "labels"]
    refused("train", pictures, *common, "--binarise", "dynamc", words=["binarise", "'dynamc'"])
    refused("train", pictures, *common, "--levels", 1, words=["levels: expected 2..256", "got 1"])
    refused("train", pictures, *common, "--resize", "4x", words=["--resize", "28x20", "'4x'"])
    refused("train", pictures, *common, "--resize", "0", words="--resize")
    refused("train", pictures / "sky", *common, words=["--context", "labels"])
    refused("train", "digits", *common, "--resize", "4", words=["digits", "size=4", "expected none of"])
    assert sorted(tmp_path.rglob("*")) == before
    (pictures / "moon").mkdir()
    refused("train", pictures, *common, words=["moon", "expected images of the class 'moon', got none"])
    (pictures / "moon").rmdir()
    Image.new("RGB", (9, 7)).save(pictures / "sun" / "zz.png")
    refused("train", pictures, *common, words=["zz.png", "expected 3 x 4 pixels", "got 7 x 9", "--resize"])
    ok("train", pictures, *common, "--resize", 3, "--out", tmp_path / "run")
    splits = tmp_path / "splits"
    for split, names in (("train", ["a"]), ("test", ["a", "b"])):
        for name in names:
            (splits / split / name).mkdir(parents=True)
            Image.new("L", (3, 3)).save(splits / split / name / "0.png")
    refused("train", splits, *common, words=["train", "expected images of the class 'b'", "as in test"])


def test_wrong_samples_are_one_line_and_leave_nothing(work, tmp_path):
    out, run = tmp_path / "x.png", work / "colours"
    for temperature in ("0", "-1", "nan", "inf"):
        refused("sample", run, "--temperature", temperature, "--out", out, words=["--temperature", "above 0"])
    refused("sample", run, "--stream", words=["--stream", ".png", "got none"])
    refused("sample", run, "--stream", "--out", tmp_path / "x.npy", words=["--stream", "x.npy"])
    refused("sample", run, "--stream", "--out", out, "--orders", 2, words=["--stream", "--orders"])
    np.save(tmp_path / "real.npy", np.random.default_rng(0).normal(size=(30, 2)))
    ok("train", tmp_path / "real.npy", "--model", "fvsbn", "--epochs", 1, "--out", tmp_path / "real")
    refused("sample", tmp_path / "real", "--temperature", 0.5, words=["temperature", "no bits or levels"])
    refused("sample", tmp_path / "real", "--stream", "--out", out, words=["--out", "no images"])
    assert not out.exists()


def test_splits_of_a_folder_are_read_as_such(tmp_path):
    for seed, split in enumerate(("train", "val", "test")):
        paint(tmp_path / "all" / split, seed, count=6)
    ok("train", tmp_path / "all", *SMALL, "--context", "labels", "--levels", 4, "--out", tmp_path / "run")
    for split in ("train", "valid", "test"):
        own = ok("score", tmp_path / "run", tmp_path / "all", "--split", split).stdout
        folder = tmp_path / "all" / ("val" if split == "valid" else split)
        assert own == ok("score", tmp_path / "run", folder).stdout
    other = paint(tmp_path / "new" / "train", 7).parent
    paint(other / "test", 8, count=2)
    assert len(ok("score", tmp_path / "run", other).stdout.splitlines()) == 5  # the test split
    refused("score", tmp_path / "run", other, "--split", "valid", words=["--split", "train, test", "valid"])


def test_a_report_of_colours_shows_every_job(work, tmp_path):
    ok("report", work / "colours", "--no-check", "--out", tmp_path / "colours.html")
    html = (tmp_path / "colours.html").read_text()
    for title in ("What does it imagine?", "Can it fill in what is missing?", "What surprises it?"):
        assert title in html
    parameters = sum(p.numel() for p in runs.load(work / "colours").parameters())
    for shown in ("nats per image", "bits/dim", "95 % interval", f"{parameters:,} parameters", "bits per pixel"):
        assert shown in html
    assert re.search(r"[\d.]+ m?s per sample, 10 at once, native engine, cpu, \d+ thread", html)
    assert html.count('alt="a sample of sky"') == html.count('alt="a sample of sun"') == 5
    tiles = [decoded(uri) for uri in re.findall(r'src="data:image/png;base64,([^"]+)" alt="training rows"', html)]
    train = load(work / "pictures", levels=8).train
    assert len(tiles) == 10
    for tile, row in zip(tiles, train, strict=False):
        np.testing.assert_array_equal(tile, np.round(row * (255 / 7)))  # in colour
    assert "binarised" not in html.split("config.yaml")[0]


def decoded(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def test_a_report_of_bits_says_how_they_were_drawn(work, tmp_path):
    ok("report", work / "bits", "--no-check", "--out", tmp_path / "bits.html")
    html = (tmp_path / "bits.html").read_text()
    stated = "dynamic (train drawn anew each epoch, valid and test once, seed 5)"
    assert html.count(stated) == 3  # under the title, below the table, in the card of the data
    assert "Given: the left." in html  # what comes last in the model's order


def test_surprise_of_colours_is_by_pixel(work, tmp_path):
    view = View((3, 4, 3), 8)
    bits = np.random.default_rng(0).random((2, 3, 4, 3)) * 9
    shown = view.surprise(np.zeros((2, 3, 4, 3)), bits, ["a", "b"], "", bits)
    assert shown.legend[1:] == (f"{np.quantile(bits.sum(-1), 0.999):.1f}", "bits per pixel")
    largest = np.array([252, 245, 190])  # the end of the scale
    for tile, own in zip(shown.rows[1].tiles, bits.sum(-1), strict=True):
        colours = decoded(tile.src.split(",")[1])
        expected = heat_colours(own, float(np.quantile(bits.sum(-1), 0.999)))
        np.testing.assert_array_equal(colours, expected)
        assert (colours == largest).all(-1).sum() <= 1
    ok("explain", work / "colours", work / "pictures", "--rows", 2, "--out", tmp_path / "heat.png")
    assert Image.open(tmp_path / "heat.png").mode == "RGB"


def test_nearest_rows_are_found_in_pieces():
    rng = np.random.default_rng(0)
    rows, known = rng.integers(0, 256, (4, 2, 3)).astype(np.uint8), rng.integers(0, 256, (30, 2, 3)).astype(np.uint8)
    distances = np.abs(rows[:, None].astype(int) - known).sum((2, 3))
    which, least = nearest(rows, known, chunk=7)
    np.testing.assert_array_equal(which, distances.argmin(1))
    np.testing.assert_array_equal(least, distances.min(1))
