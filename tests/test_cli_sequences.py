"""score, explain, evaluate and report on runs of sequences: text, sound, piano rolls, series and pairs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from seriatim import runs
from seriatim.cli import app
from seriatim.cli.building_sequences import build_sequences
from seriatim.cli.settings import resolve
from seriatim.data import load, read_audio, resample, write_audio
from seriatim.layers import CrossAttention
from seriatim.tasks import surprise
from test_cli import ok, refused

pytest.importorskip("soundfile")

TEXT = "To bé, or not to be: that is the question.\nWhether 'tis nobler\n" * 40
WAVENET = {"name": "wavenet", "num_blocks": 1, "layers_per_block": 3}
WAVENET |= {"residual_features": 4, "gate_features": 4, "skip_features": 4}
GRU = {"name": "gru", "hidden_features": 6}
RATE = 2000


def made(folder: Path, name: str, model: dict, source: str, **data) -> Path:
    """Write a run as `train` does, with random weights."""
    config = resolve({"model": model, "data": {**data, "source": str(folder / source)}})
    own = load(config.data.source, **config.data.load_options)
    net, generator = build_sequences(config, own), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        if own.ends:
            net.network.output_bias[..., 0] -= 4  # ends are rare
    run = runs.RunFolder.create(folder / name, config.model_dump(mode="json"))
    runs.save(net, run.model, card={"data": {"name": own.name, "sha256 of train, valid and test": own.digest}})
    run.metrics.write_text("epoch,train_nats,valid_nats\n1,3.5,3.4\n2,3.2,3.3\n")
    return run.path


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with data of every kind and a run of each."""
    folder, rng = tmp_path_factory.mktemp("sequences"), np.random.default_rng(0)
    (folder / "text.txt").write_text(TEXT)
    (folder / "pairs.tsv").write_text("".join(f"{n}+{n}\t{2 * n}\n" for n in range(20)))
    (folder / "clips").mkdir()
    for n in range(20):
        tone = 0.3 * np.sin(np.arange(80 + 10 * n) / (3 + n % 3)) + 0.05 * rng.normal(size=80 + 10 * n)
        write_audio(folder / "clips" / f"{n % 3}_{'ann' if n % 2 else 'bob'}_{n}.wav", tone, RATE)
    write_audio(folder / "long.wav", 0.2 * np.sin(np.arange(3000) / 7) + 0.02 * rng.normal(size=3000), RATE)
    np.savez(folder / "rolls.npz", train=rng.random((150, 88)) < 0.04, train_len=[10] * 15)
    warm, cold = np.sin(np.arange(400) / 9) * 5 + 20, rng.normal(size=400)
    warm[388] = 90.0  # in the test part
    rows = [f"2024-01-{1 + n // 24:02} {n % 24:02}:00:00,{warm[n]:.3f},{cold[n]:.3f}" for n in range(400)]
    (folder / "room.csv").write_text("time,warm,cold\n" + "\n".join(rows) + "\n")
    made(folder, "text", GRU, "text.txt", tokens="characters")
    made(folder, "bytes", GRU, "text.txt")
    made(folder, "lines", GRU, "text.txt", lines=True)
    made(folder, "words", GRU, "text.txt", lines=True, tokens="characters")
    pattern = {"pattern": "{digit}_{speaker}_{_take}"}
    made(folder, "clips-run", WAVENET, "clips", context="labels", **pattern)
    made(folder, "sound", WAVENET, "long.wav")
    tiny = WAVENET | {"layers_per_block": 1, "residual_features": 1, "gate_features": 1, "skip_features": 1}
    made(folder, "tiny", tiny, "long.wav", encoding="mu-law:2")
    made(folder, "music", GRU | {"inside": "independent"}, "rolls.npz")
    made(folder, "series", GRU, "room.csv", read_as="series")
    small = {"name": "transformer", "hidden_features": 8, "num_layers": 1, "num_heads": 2}
    made(folder, "pairs", small, "pairs.tsv", read_as="pairs")
    return folder


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def score(*arguments) -> list[dict[str, str]]:
    return rows_of(ok("score", *arguments).stdout)


def direct(run: Path, values: np.ndarray, context: torch.Tensor | None = None):
    return surprise(runs.load(run), [values], context)


def test_text_costs_bits_per_character_and_per_byte(work):
    (line,) = score(work / "text", work / "text.txt")
    found = direct(work / "text", runs.load(work / "text").codec.encode(TEXT))
    assert int(line["characters"]) == len(TEXT)
    assert int(line["bytes"]) == len(TEXT.encode()) > len(TEXT)
    assert float(line["log_prob_nats"]) == pytest.approx(found.log_prob[0], rel=1e-5)
    assert float(line["bits_per_character"]) == pytest.approx(found.bits, rel=1e-5)
    assert float(line["bits_per_byte"]) == pytest.approx(found.bits * len(TEXT) / len(TEXT.encode()), rel=1e-5)
    piped = CliRunner().invoke(app, ["score", str(work / "text"), "-"], input=TEXT)
    assert rows_of(piped.stdout) == [{**line, "sequence": "stdin"}]
    (raw,) = score(work / "bytes", work / "text.txt")
    assert set(raw) == {"sequence", "bytes", "log_prob_nats", "bits_per_byte"}


def test_lines_end_and_the_end_is_told_apart(work, tmp_path):
    (tmp_path / "three.txt").write_text("one\n\ntwo bé\r\nthree")
    lines = score(work / "lines", tmp_path / "three.txt")
    assert [line["sequence"] for line in lines] == ["line 1", "line 3", "line 4"]
    assert [int(line["bytes"]) for line in lines] == [3, 7, 5]
    for line, text in zip(lines, ("one", "two bé", "three"), strict=True):
        found = direct(work / "lines", np.array([*text.encode()]))
        both = float(line["log_prob_nats"]) + float(line["end_log_prob_nats"])
        assert both == pytest.approx(found.log_prob[0], rel=1e-4)
        assert float(line["end_log_prob_nats"]) == pytest.approx(found.ends[0], rel=1e-4)


def test_clips_of_a_folder_take_their_labels_from_their_names(work):
    lines = score(work / "clips-run", work / "clips")
    lines = lines[1:]
    assert lines[0]["sequence"] == "0_ann_3.wav"
    model = runs.load(work / "clips-run")
    samples, _ = read_audio(work / "clips" / "0_ann_3.wav")
    found = direct(work / "clips-run", model.codec.encode(samples), torch.tensor([[0, 0]]))
    assert float(lines[0]["log_prob_nats"]) == pytest.approx(found.values[0].sum(), rel=1e-4)
    assert float(lines[0]["end_log_prob_nats"]) == pytest.approx(found.ends[0], rel=1e-4)
    assert float(lines[0]["seconds"]) == 110 / RATE
    (alone,) = score(work / "clips-run", work / "clips" / "0_ann_3.wav")
    assert alone == lines[0]
    (strange := work / "strange").mkdir()
    (strange / "7_eve_1.wav").write_bytes((work / "clips" / "0_ann_3.wav").read_bytes())
    refused("score", work / "clips-run", strange, words=["--context", "got none", "digit among 0, 1, 2, got 7"])
    assert score(work / "clips-run", strange, "--context", "digit=0,speaker=ann")[0]["samples"] == alone["samples"]
    given = ["--context", "speaker=bob,digit=2"]
    assert score(work / "clips-run", work / "clips", *given)[1]["log_prob_nats"] != alone["log_prob_nats"]
    own = score(work / "clips-run", work / "clips", "--split", "test")
    assert len(own) == 2


def test_sound_in_blocks_costs_what_it_costs_whole(work, tmp_path, monkeypatch):
    import seriatim.cli.sequence_score as module

    whole = score(work / "sound", work / "long.wav")
    monkeypatch.setattr(module, "_BLOCK", 700)
    (line,) = score(work / "sound", work / "long.wav", "--per-value", tmp_path / "v.npy")
    assert float(line["log_prob_nats"]) == pytest.approx(float(whole[0]["log_prob_nats"]), rel=1e-5)
    terms = np.load(tmp_path / "v.npy")
    samples, _ = read_audio(work / "long.wav")
    codes = runs.load(work / "sound").codec.encode(samples)
    np.testing.assert_allclose(terms, direct(work / "sound", codes).values[0], atol=1e-4)
    ok("score", work / "sound", work / "long.wav", "--per-value", tmp_path / "v.csv")
    rows = rows_of((tmp_path / "v.csv").read_text())
    assert [int(row["value"]) for row in rows] == codes.tolist()
    assert [int(row["sample"]) for row in rows] == [*range(3000)]
    write_audio(tmp_path / "fast.wav", resample(samples, RATE, 3 * RATE), 3 * RATE)
    (other,) = score(work / "sound", tmp_path / "fast.wav")
    assert other["samples"] == line["samples"]  # at the rate of the model
    assert float(other["bits_per_sample"]) == pytest.approx(float(line["bits_per_sample"]), rel=0.05)
    # Files that are short are read side by side, with the same result.
    both = [score(work / "clips-run", work / "clips", "--batch-size", size) for size in (1, 4)]
    for one, few in zip(*both, strict=True):
        assert float(one["log_prob_nats"]) == pytest.approx(float(few["log_prob_nats"]), rel=1e-5)
        assert float(one["end_log_prob_nats"]) == pytest.approx(float(few["end_log_prob_nats"]), rel=1e-4)


def test_two_results_are_not_written_to_one_file(work, tmp_path):
    both = "--per-value", tmp_path / "v.csv", "--out", tmp_path / "v.csv"
    refused("score", work / "sound", work / "long.wav", *both, words="--per-value: expected another file than --out")
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_length_of_a_file(work, tmp_path):
    if not Path("/proc/self/status").exists():
        pytest.skip("resident memory is read from /proc")
    noise = 0.1 * np.random.default_rng(0).normal(size=1 << 16).astype(np.float32)
    for name, blocks in (("short.wav", 2), ("long.wav", 14)):
        write_audio(tmp_path / name, (noise for _ in range(blocks)), RATE)
    code = f"""
from typer.testing import CliRunner
from seriatim.cli import app

for name in ("short.wav", "long.wav"):
    out = ["--per-value", {str(tmp_path)!r} + "/values.npy"]
    found = CliRunner().invoke(app, ["score", {str(work / "tiny")!r}, {str(tmp_path)!r} + "/" + name, *out])
    assert found.exit_code == 0, found.stderr
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    short, long = (int(kib) / 1024 for kib in result.stdout.split())
    assert long - short < 12  # MiB; 786,432 samples more are 6 MiB as numbers of 64 bits, and some times that at work
    assert len(np.load(tmp_path / "values.npy", mmap_mode="r")) == 14 << 16


def test_values_one_by_one(work, tmp_path):
    ok("score", work / "series", work / "room.csv", "--per-value", tmp_path / "v.csv")
    rows = rows_of((tmp_path / "v.csv").read_text())
    assert len(rows) == 400
    assert [float(v) for v in rows[0]["value"].split()] == pytest.approx([20.0, float(rows[0]["value"].split()[1])])
    (line,) = score(work / "series", work / "room.csv")
    assert sum(float(row["log_prob_nats"]) for row in rows) == pytest.approx(float(line["log_prob_nats"]), abs=0.01)
    assert float(line["nats_per_step"]) == pytest.approx(-float(line["log_prob_nats"]) / 400, abs=1e-5)
    ok("score", work / "music", work / "rolls.npz", "--split", "valid", "--per-value", tmp_path / "m.csv")
    assert {len(row["value"].split()) for row in rows_of((tmp_path / "m.csv").read_text())} >= {1, 3}
    found = json.loads(ok("score", work / "music", work / "rolls.npz", "--json").stdout)
    assert found["steps"] == [10] * 15
    assert len(found["end_log_prob_nats"]) == 15


def test_pairs_are_scored_given_their_sources(work, tmp_path):
    (tmp_path / "two.tsv").write_text("3+3\t6\n3+3\t7\n")
    lines = score(work / "pairs", tmp_path / "two.tsv")
    codec, source = runs.load(work / "pairs").codec, torch.tensor([[51, 43, 51]])
    for line, target in zip(lines, "67", strict=True):
        found = direct(work / "pairs", codec.encode(target), source)
        assert float(line["log_prob_nats"]) == pytest.approx(found.values[0].sum(), rel=1e-4)
    other = score(work / "pairs", tmp_path / "two.tsv", "--context", "9+9")
    assert other[0]["log_prob_nats"] != lines[0]["log_prob_nats"]


def test_a_named_set_is_read_through_the_codec_of_the_run(work, tmp_path, monkeypatch):
    (tmp_path / "tinyshakespeare.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    monkeypatch.setenv("SERIATIM_DATA", str(tmp_path))
    (line,) = score(work / "text", "tinyshakespeare")
    raw = TEXT.encode()
    assert int(line["bytes"]) == len(raw) - int(0.9 * len(raw))
    (tmp_path / "tinyshakespeare.txt.gz").write_bytes(gzip.compress((TEXT + "Ω" * 200).encode()))
    refused("score", work / "text", "tinyshakespeare", words=["tinyshakespeare", "'Ω' (U+03A9)", "line"])


def test_explaining_text_gives_places_a_page_and_all_bits(work, tmp_path):
    codec = runs.load(work / "text").codec
    bits = -direct(work / "text", codec.encode(TEXT)).values[0] / math.log(2)
    result = ok("explain", work / "text", work / "text.txt", "--out", tmp_path / "page.html")
    places = rows_of(result.stdout)
    assert len(places) == 10
    first = int(places[0]["character"])
    assert float(places[0]["bits"]) == pytest.approx(bits.max(), rel=1e-4)
    assert bits[first] == pytest.approx(bits.max(), rel=1e-4)
    assert places[0]["came"].replace("\\n", "\n") == TEXT[first]
    assert TEXT[:first].endswith(places[0]["after"].replace("\\n", "\n"))
    page = (tmp_path / "page.html").read_text()
    assert page.count('<i class="c') > len(TEXT)
    assert "bits per character" in page
    ok("explain", work / "text", work / "text.txt", "--out", tmp_path / "bits.npy")
    np.testing.assert_allclose(np.load(tmp_path / "bits.npy"), bits, atol=1e-4)
    ok("explain", work / "text", work / "text.txt", "--out", tmp_path / "bits.csv")
    rows = rows_of((tmp_path / "bits.csv").read_text())
    assert "".join(row["value"] for row in rows) == TEXT
    # Bytes of one character are one token of the page, and an end is a line break.
    ok("explain", work / "lines", work / "text.txt", "--rows", 2, "--out", tmp_path / "lines.html")
    lines = (tmp_path / "lines.html").read_text()
    assert "é</i>" in lines
    assert lines.count('<u class="break">') == 2


def test_explaining_sound_and_music_draws_a_picture(work, tmp_path):
    result = ok("explain", work / "clips-run", work / "clips", "--out", tmp_path / "s.png")
    assert Image.open(tmp_path / "s.png").size[0] == 1440
    costs = [float(line["bits_per_sample"]) for line in score(work / "clips-run", work / "clips")]
    assert f"drawn: sequence {np.argmax(costs)} (" in result.stderr
    places = rows_of(result.stdout)
    assert list(places[0]) == ["sequence", "from_seconds", "to_seconds", "mean_bits"]
    means = [float(place["mean_bits"]) for place in places]
    assert means == sorted(means, reverse=True)
    ok("explain", work / "clips-run", work / "clips", "--sequence", 1, "--out", tmp_path / "one.npy")
    assert len(np.load(tmp_path / "one.npy")) == 80 + 10 * 3  # 0_ann_3.wav
    ok("explain", work / "clips-run", work / "clips", "--sequence", 19, "--out", tmp_path / "last.npy")
    assert np.load(tmp_path / "last.npy").mean() == pytest.approx(costs[19], rel=1e-4)  # with its own labels
    ok("explain", work / "music", work / "rolls.npz", "--rows", 2, "--out", tmp_path / "m.svg")
    assert "notes; those of 6 bits or more stand out" in (tmp_path / "m.svg").read_text()
    (first, *_) = rows_of(ok("explain", work / "music", work / "rolls.npz", "--rows", 2).stdout)
    roll = load(work / "rolls.npz").codec
    rolls = np.load(work / "rolls.npz")["train"][: 2 * 10].astype(np.uint8)
    at = 10 * int(first["sequence"]) + int(first["step"])
    assert len(first["notes"].split()) == len(roll.decode(rolls[at : at + 1])[0])


def test_explaining_a_series_finds_the_planted_stretch(work, tmp_path):
    result = ok("explain", work / "series", work / "room.csv", "--out", tmp_path / "s.svg")
    assert re.search(r"threshold: [\d.]+ bits, the 0.999-quantile of the run's validation steps \(40\)", result.stderr)
    found = rows_of(result.stdout)
    assert int(found[0]["first_step"]) <= 388 <= int(found[0]["last_step"])
    assert found[0]["first_time"].startswith("2024-01-17")
    picture = (tmp_path / "s.svg").read_text()
    assert picture.count('class="stretch"') == 3 * len(found)
    assert "warm" in picture
    none = ok("explain", work / "series", work / "room.csv", "--threshold", 1e9)
    assert rows_of(none.stdout) == []
    alone = ok("explain", work / "series" / "model", work / "room.csv")
    assert "of these values themselves" in alone.stderr


def test_evaluate_tells_bits_ends_and_baselines(work):
    found = json.loads(ok("evaluate", work / "clips-run", "--json").stdout)
    data = load(work / "clips", pattern="{digit}_{speaker}_{_take}")
    expected = surprise(runs.load(work / "clips-run"), list(data.test), torch.as_tensor(data.labels["test"]))
    assert found["bits_per_value"] == pytest.approx(expected.bits, rel=1e-5)
    assert found["nats_interval"] == pytest.approx(list(expected.interval), rel=1e-4)
    assert found["end_nats_per_sequence"] == pytest.approx(expected.end_nats, rel=1e-5)
    assert found["unit"] == "sample"
    assert [b["name"] for b in found["baselines"]] == ["unigram", "previous", "zlib", "xz", "flac"]
    assert all(b["bits_per_value"] > 0 for b in found["baselines"])
    text = json.loads(ok("evaluate", work / "text", "--json").stdout)
    raw = runs.load(work / "text").codec.decode(load(work / "text.txt", tokens="characters").test[0]).encode()
    zlibs = next(b["bits_per_value"] for b in text["baselines"] if b["name"] == "zlib")
    assert zlibs == pytest.approx(8 * len(zlib.compress(raw, 9)) / text["num_values"])
    assert text["num_bytes"] == len(raw)
    text = ok("evaluate", work / "text").stdout
    assert re.search(r"bits per character +bits per byte", text)
    assert "perplexity: " in text
    assert "bigram" in text
    few = ok("evaluate", work / "lines", "--no-baselines", "--split", "valid").stdout
    assert "ends, apart: " in few
    assert "xz" not in few
    series = json.loads(ok("evaluate", work / "series", "--json").stdout)
    scale = runs.load(work / "series").codec.log_scale
    assert series["nats_per_value_in_units_of_the_file"] == pytest.approx(series["nats_per_value"] + scale)
    assert [b["name"] for b in series["baselines"] if b["nats_per_value"] is None] == ["zlib", "xz"]
    other = json.loads(ok("evaluate", work / "music", "--data", work / "rolls.npz", "--json").stdout)
    assert other["num_sequences"] == 15
    alone = json.loads(ok("evaluate", work / "text" / "model", "--data", work / "text.txt", "--json").stdout)
    assert alone["baselines"] == []


@pytest.mark.parametrize(
    ("run", "parts"),
    [
        ("clips-run", ["To make one second of audio", "sampled: digit 0, speaker", "a typical test sequence"]),
        ("music", ["piano roll of", "data:audio/wav", "steps a second"]),
        ("series", ["0.999-quantile of validation", "Sampled: number 1"]),
        ("lines", ["from training", "bits per byte", "Ends, apart"]),
        ("text", ["Real: from character 0 of train", "Sampled: number 2"]),
        ("pairs", ["<th>source</th>", "Transformer on pairs"]),
    ],
)
def test_the_report_shows_what_there_is_to_hear_see_and_read(work, tmp_path, run, parts):
    page = tmp_path / "report.html"
    shown = ok("report", work / run, "--no-check", "--out", page)
    assert shown.stdout.strip() == str(page)
    html = page.read_text()
    for part in [*parts, "How good is it?", "What surprises it?", "How did it learn?", "receptive field", "unigram"]:
        assert part in html, part
    assert not re.search(r'(src|href)="(?!data:)', html)
    if run == "clips-run":
        assert html.count("<audio") == 2 * 3 + 2
        assert html.count("grid-column-start:1") == 1  # samples begin on a line of their own
        assert re.search(r"receptive field</dt>\s*<dd>9 samples, 0.0045 seconds", html)


def test_the_report_checks_the_model_over_a_few_positions(work, tmp_path):
    page = tmp_path / "report.html"
    found = json.loads(ok("report", work / "sound", "--out", page, "--json").stdout)
    assert found["unit"] == "sample"
    html = page.read_text()
    assert "over 12 positions: no weight belongs to one" in html
    assert re.search(r"1\d passed, \d+ not applicable", html)


def test_wrong_files_are_refused_by_kind_and_place(work, tmp_path):
    text, sound, music, series = (work / name for name in ("text", "sound", "music", "series"))
    refused("score", text, work / "long.wav", words=["expected a text file", "model of text", "long.wav"])
    refused("score", sound, work / "text.txt", words=["expected a sound file", "text.txt"])
    refused("score", sound, "-", words=["sound file", "no model of text", "stdin"])
    refused("score", music, work / "room.csv", words=["piano roll", "room.csv"])
    refused("score", series, work / "long.wav", words=["long.wav", ".csv"])
    refused("score", sound, tmp_path, words=["sound file", str(tmp_path)])
    refused("score", sound, "tinyshakespeare", words=["sound file", "model of sound", "the set tinyshakespeare"])
    refused("score", text, tmp_path / "none.txt", words=["none.txt", "no such file"])
    (tmp_path / "odd.txt").write_text("To be\nor # not")
    refused("score", text, tmp_path / "odd.txt", words=["odd.txt", "'#' (U+0023) at line 2, character 4"])
    refused("score", work / "words", tmp_path / "odd.txt", words=["odd.txt", "'#' (U+0023) at line 2, character 4"])
    (tmp_path / "raw.txt").write_bytes(b"To be\n\xff")
    refused("score", text, tmp_path / "raw.txt", words=["raw.txt, line 2", "UTF-8", "0xff"])
    (tmp_path / "odd.wav").write_bytes((work / "long.wav").read_bytes()[:500])
    refused("score", sound, tmp_path / "odd.wav", words=["odd.wav", "cut off"])
    np.savez(tmp_path / "narrow.npz", train=np.zeros((8, 12)), train_len=[8])
    refused("score", music, tmp_path / "narrow.npz", words=["narrow.npz", "88 notes"])
    (tmp_path / "other.csv").write_text("warm,wet\n" + "1,2\n" * 9)
    refused("score", series, tmp_path / "other.csv", words=["other.csv", "warm, cold", "warm, wet"])
    (tmp_path / "gap.csv").write_text("warm,cold\n1,2\n,3\n")
    refused("score", series, tmp_path / "gap.csv", words=["gap.csv", "'warm'", "row 2"])
    (tmp_path / "half.tsv").write_text("1+1\t2\n3+3\n")
    refused("score", work / "pairs", tmp_path / "half.tsv", words=["half.tsv, line 2", "source TAB target"])
    piped = CliRunner().invoke(app, ["score", str(text), "-"], input="")
    assert piped.exit_code == 2
    assert "stdin: expected text, got nothing" in piped.stderr


def test_the_encoder_of_a_source_may_have_options_of_its_own(work, tmp_path):
    small = {"name": "transformer", "hidden_features": 8, "num_layers": 2, "num_heads": 2}
    own = {"num_layers": 1, "kernel_size": 3}
    path = made(tmp_path, "own", {**small, "source_options": own}, str(work / "pairs.tsv"), read_as="pairs")
    model = runs.load(path)
    assert len(model.encoder.layers) == 1
    assert model.encoder.nearest.kernel_size == (3,)
    assert sum(isinstance(layer, CrossAttention) for layer in model.modules()) == 2
    for wrong, words in {
        "kernel_sise=3": ["model.source_options.kernel_sise", "kernel_size"],
        "kernel_size=2": ["model.source_options.kernel_size: expected an odd number", "got 2"],
        "kernel_size=wide": ["model.source_options.kernel_size: expected", "integer", "got 'wide'"],
    }.items():
        train = ("train", work / "pairs.tsv", "--as", "pairs", "--out", tmp_path / "wrong")
        refused(*train, "--set", f"model.source_options.{wrong}", words=words)
    train = ("train", work / "text.txt", "--model", "gru", "--out", tmp_path / "wrong")
    refused(*train, "--set", "model.source_options.kernel_size=3", words=["source_options", "without a source"])
    refused(
        "train",
        "digits",
        "--out",
        tmp_path / "wrong",
        "--set",
        "model.source_options.kernel_size=3",
        words=["without a source"],
    )


def test_wrong_options_are_refused(work, tmp_path):
    clips, text = work / "clips-run", work / "text"
    wav = tmp_path / "nameless.wav"
    write_audio(wav, np.zeros(90), RATE)
    refused("score", clips, wav, words=["--context", "digit=VALUE,speaker=VALUE", "got none"])
    refused("score", clips, wav, "--context", "digit=2", words=["--context", "digit, speaker", "got digit"])
    refused("score", clips, wav, "--context", "digit=2,speaker=eve", words=["--context", "ann, bob", "eve"])
    refused("score", clips, wav, "--context", "2", words=["--context", "digit=VALUE"])
    refused("score", text, work / "text.txt", "--context", "digit=2", words=["--context", "unconditional"])
    refused("score", text, work / "text.txt", "--orders", 3, words=["--orders", "GRU"])
    refused("score", text, work / "text.txt", "--split", "best", words=["--split", "best"])
    refused("score", text, work / "text.txt", "--per-value", tmp_path / "v.txt", words=["--per-value", ".csv, .npy"])
    refused("explain", text, work / "text.txt", "--out", tmp_path / "x.png", words=["--out", ".html"])
    refused("explain", text, work / "text.txt", "--threshold", 3, words=["--threshold", "series"])
    refused("explain", text, work / "text.txt", "--sequence", 1, words=["--sequence", "0 to 0", "got 1"])
    refused("evaluate", text / "model", words=["--data", "without a run"])
    refused("report", text / "model", words=["model", "expected a run"])
    (tmp_path / "own.txt").write_text(TEXT)
    moved = made(tmp_path, "run", GRU, "own.txt")
    (tmp_path / "own.txt").write_text("other words")
    refused("evaluate", moved, words=["own.txt", "sha256"])
    refused("explain", moved, tmp_path / "own.txt", "--split", "test", words=["own.txt", "sha256"])


def test_rows_have_no_options_of_sequences(work, tmp_path):
    np.save(tmp_path / "bits.npy", np.eye(4, dtype=np.uint8).repeat(8, axis=0))
    from seriatim.models import MADE

    runs.save(MADE((4,), hidden_features=(4,)), tmp_path / "made")
    refused("score", tmp_path / "made", tmp_path / "bits.npy", "--per-value", tmp_path / "v.npy", words="--per-value")
    refused("explain", tmp_path / "made", tmp_path / "bits.npy", "--sequence", 0, words="--sequence")
    refused("explain", tmp_path / "made", tmp_path / "bits.npy", "--threshold", 1, words="--threshold")
