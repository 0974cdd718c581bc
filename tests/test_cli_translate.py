"""`seriatim translate`: a toy language, trained from the command line, and what the verb refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from seriatim.cli import app

LETTERS = "abcd"


def seriatim(*arguments, given=None):
    return CliRunner().invoke(app, [*map(str, arguments)], input=given)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that turns words into capitals backwards, after a short training."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list(LETTERS), rng.integers(1, 4))) for _ in range(600)]
    (folder / "words.tsv").write_text("".join(f"{word}\t{word[::-1].upper()}\n" for word in words))
    sizes = ["hidden_features=32", "num_layers=1", "num_heads=2", "feedforward_features=64", "norm=pre"]
    changes = ["batch_values=150", "epochs=12", "learning_rate=0.005", "label_smoothing=0.0", "ema_decay=0.9"]
    options = [word for size in sizes for word in ("--set", f"model.{size}")]
    options += [word for change in changes for word in ("--set", f"training.{change}")]
    result = seriatim("train", folder / "words.tsv", "--as", "pairs", "--tokens", "characters", "--out",
                      folder / "run", *options, "--set", "training.warmup_steps=20")  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_lines_come_out_in_their_order(run, tmp_path):
    sources = ["abc", "", "d", "ca", "bb", "dab"]
    result = seriatim("translate", run, given="\n".join(sources) + "\n")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert lines[1] == ""
    assert "line 2: empty, left empty" in result.stderr
    right = sum(line == source[::-1].upper() for line, source in zip(lines, sources, strict=True))
    assert right >= 5, lines
    (tmp_path / "in.txt").write_text("\n".join(sources))
    assert seriatim("translate", run, tmp_path / "in.txt", "--out", tmp_path / "out.txt").exit_code == 0
    assert (tmp_path / "out.txt").read_text() == result.stdout


def test_a_batch_is_its_lines_one_by_one(run):
    sources = ["abc", "d", "ca", "ddb"]
    together = seriatim("translate", run, "--batch-size", 4, given="\n".join(sources)).stdout.splitlines()
    alone = [seriatim("translate", run, given=source).stdout.strip() for source in sources]
    assert together == alone


def test_n_best_have_scores_that_score_gives_too(run, tmp_path):
    result = seriatim("translate", run, "--n-best", 3, given="abc\nd\n")
    fields = [line.split("\t") for line in result.stdout.splitlines()]
    assert [number for number, *_ in fields] == ["1", "1", "1", "2", "2", "2"]
    found = json.loads(seriatim("translate", run, "--n-best", 3, "--json", given="abc\nd\n").stdout)
    for line in found["lines"]:
        scores = [target["score"] for target in line["targets"]]
        assert scores == sorted(scores, reverse=True)
    best = found["lines"][0]["targets"][0]
    (tmp_path / "pair.tsv").write_text(f"abc\t{best['target']}\n")
    scored = json.loads(seriatim("score", run, tmp_path / "pair.tsv", "--json").stdout)
    total = scored["log_prob_nats"][0] + scored["end_log_prob_nats"][0]
    assert total == pytest.approx(best["log_prob_nats"], abs=1e-3)


def test_a_limit_is_said(run):
    result = seriatim("translate", run, "--max-length", 1, "--beams", 2, given="abc\n")
    assert result.exit_code == 0, result.output
    assert "cut at --max-length 1" in result.stderr or result.stdout == "\n"


@pytest.mark.parametrize(
    "arguments, given, message",
    [
        (["--n-best", 9], "a\n", "--n-best: expected 5 at most"),
        (["no.txt"], None, "FILE: no.txt: no such file"),
        ([], "a\nxyz\n", "line 2"),
        ([], b"a\n\xff\n", "line 2: expected UTF-8, got byte 0xff"),
    ],
)
def test_what_does_not_fit_is_refused(run, arguments, given, message):
    result = seriatim("translate", run, *arguments, given=given)
    assert result.exit_code == 2, result.output
    assert message in result.output
