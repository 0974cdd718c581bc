"""`seriatim translate`: a toy language, trained from the command line, and what the verb refuses."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import sacrebleu
import torch
from typer.testing import CliRunner

from seriatim.cli import app, translate
from seriatim.cli.loading import open_run
from seriatim.cli.pairs_evaluate import Agreement

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
    changes = ["batch_values=150", "epochs=9", "learning_rate=0.005", "label_smoothing=0.0", "ema_decay=0.9"]
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


def test_rounded_matrices_are_asked_for(run):
    def log_p(*options):
        given = seriatim("translate", run, "--n-best", 2, *options, given="abc\n")
        assert given.exit_code == 0, given.output
        return [float(line.split("\t")[1]) for line in given.stdout.splitlines()]

    exact, half = log_p(), log_p("--precision", "bf16-weights")
    assert exact != half
    np.testing.assert_allclose(exact, half, atol=0.5)
    drawn = seriatim("translate", run, "--sample", "--num", 2, "--precision", "bf16-weights", given="abc\n")
    assert len(drawn.stdout.splitlines()) == 2
    refused = seriatim("translate", run, "--precision", "int8", given="abc\n")
    assert refused.exit_code == 2
    assert "precision: expected 'float32' or 'bf16-weights', got 'int8'" in refused.output


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


def texts_of(found):
    return [target["target"] for line in found["lines"] for target in line["targets"]]


def test_samples_are_of_the_model_and_depend_on_no_batch(run):
    given = "abc\n\nd\nca\n"
    options = ["--sample", "--num", 3, "--temperature", 1.5, "--json"]
    found = json.loads(seriatim("translate", run, *options, "--seed", 4, given=given).stdout)
    alone = json.loads(seriatim("translate", run, *options, "--seed", 4, "--batch-size", 1, given=given).stdout)
    assert [len(line["targets"]) for line in found["lines"]] == [3, 0, 3, 3]
    assert texts_of(found) == texts_of(alone)
    assert len({*texts_of(found)}) > 3
    other = json.loads(seriatim("translate", run, *options, "--seed", 5, given=given).stdout)
    assert texts_of(other) != texts_of(found)
    named = [(line["source"], target) for line in found["lines"] for target in line["targets"]]
    source, sample = next(pair for pair in named if pair[1]["finished"])
    total = scored(run, [source], [sample["target"]])["total_log_prob_nats"][0]
    assert total == pytest.approx(sample["log_prob_nats"], abs=1e-3)
    assert sample["log_q_nats"] != pytest.approx(sample["log_prob_nats"], abs=1e-3)


def test_samples_of_the_most_probable_token_are_the_greedy_search(run):
    given = "abc\nd\nbb\n"
    greedy = seriatim("translate", run, "--beams", 1, given=given).stdout
    assert seriatim("translate", run, "--sample", "--top-k", 1, given=given).stdout == greedy
    lines = seriatim("translate", run, "--sample", "--top-k", 1, "--num", 2, given=given).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["1", "1", "2", "2", "3", "3"]
    assert lines[0] == lines[1]


def test_a_source_that_is_too_long_is_cut_and_said(run):
    result = seriatim("translate", run, "--max-source", 2, given="abc\nab\n")
    assert result.stderr.splitlines()[0] == "line 1: a source of 3 characters, cut to --max-source 2"
    first, second = result.stdout.splitlines()
    assert first == second


def test_lines_come_out_before_the_next_ones_are_read(run):
    """What has come is translated at once; nothing waits for more lines, or for the end."""
    own = open_run(run)
    asked = []

    def parts():
        for part in (["abc", "d"], [""], ["ca", "bb", "a"]):
            asked.append(part)
            yield part

    lines = translate.translated(own, parts(), translate.Search(1, 0.0, 1), translate.Limits(9, 5, 32))
    assert [next(lines).number for _ in range(2)] == [1, 2]
    assert asked == [["abc", "d"]]
    assert [line.source for line in lines] == ["", "ca", "bb", "a"]


def test_lines_are_cut_where_they_end(tmp_path, monkeypatch):
    raw = "zwei\r\n\nÖl".encode() * 40000
    (tmp_path / "long.txt").write_bytes(raw)
    parts = list(translate.read_lines(str(tmp_path / "long.txt")))
    assert len(parts) > 1
    wanted = [line.rstrip("\r") for line in raw.decode().split("\n")]
    assert [line for part in parts for line in part] == wanted


# ---- pairs from two files


def scored(run, sources, targets, *options):
    folder = run.parent
    for name, lines in (("a.txt", sources), ("b.txt", targets)):
        (folder / name).write_text("".join(line + "\n" for line in lines))
    files = ["--source", folder / "a.txt", "--target", folder / "b.txt"]
    result = seriatim("score", run, *files, "--json", *options)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_two_files_score_as_one_of_pairs(run, tmp_path):
    found = scored(run, ["abc", "", "d"], ["CBA", "", ""])
    assert found["sequence"] == ["line 1", "line 3"]
    assert found["characters"] == [3, 0]
    (tmp_path / "pair.tsv").write_text("abc\tCBA\n")
    other = json.loads(seriatim("score", run, tmp_path / "pair.tsv", "--json").stdout)
    for name in ("log_prob_nats", "bits_per_character", "end_log_prob_nats", "total_log_prob_nats"):
        assert other[name][0] == pytest.approx(found[name][0], abs=1e-4)
    own = open_run(run).model
    x = torch.tensor([*own.codec.encode("CBA").tolist(), -1])
    total = own(torch.from_numpy(own.source_codec.encode("abc").astype("int64")), length=4).log_prob(x)
    assert found["total_log_prob_nats"][0] == pytest.approx(total.item(), abs=1e-4)
    assert found["total_log_prob_nats"][1] == found["end_log_prob_nats"][1] < 0


@pytest.mark.parametrize(
    "sources, targets, message",
    [
        ("ab\nc\n", "B\n", "b.txt: expected 2 lines as in "),
        ("ab\n\n", "B\nC\n", "a.txt, line 2: expected a source, got an empty line"),
        ("\n", "\n", "a.txt: expected pairs, got empty lines"),
        ("ab\nxyz\n", "B\nC\n", "line 2, character 1"),
        ("ab\n", "B", None),
    ],
)
def test_pairs_that_do_not_fit_are_refused(run, tmp_path, sources, targets, message):
    (tmp_path / "a.txt").write_text(sources)
    (tmp_path / "b.txt").write_text(targets)
    result = seriatim("score", run, "--source", tmp_path / "a.txt", "--target", tmp_path / "b.txt")
    assert result.exit_code == (0 if message is None else 2), result.output
    assert (message or "sequence,") in result.output


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "FILE: expected a file, or --source and --target, got none"),
        (["--source", "a.txt"], "--target: expected the file of the targets beside --source"),
        (["a.tsv", "--source", "a.txt", "--target", "b.txt"], "--source: expected none beside FILE a.tsv"),
        (["a.tsv", "--target", "b.txt", "--split", "test"], "--split: expected none with --target"),
        (["--source", "no.txt", "--target", "b.txt"], "--source: no.txt: no such file"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(run, arguments, message):
    result = seriatim("score", run, *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


# ---- how near the targets found are to those of the data


def test_evaluate_compares_the_targets_found_with_those_of_the_data(run, tmp_path):
    words = ["abc", "d", "ca", "bb", "dab"]
    lines = seriatim("translate", run, "--beams", 1, given="\n".join(words) + "\n").stdout.splitlines()
    references = [lines[0], "A", *lines[2:]]
    for name, own in (("a.txt", words), ("b.txt", references)):
        (tmp_path / name).write_text("\n".join(own))
    files = ["--data", tmp_path / "a.txt", "--target", tmp_path / "b.txt", "--no-baselines", "--beams", 1]
    result = seriatim("evaluate", run, *files, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["exact_match"] == 0.8
    metric = sacrebleu.metrics.BLEU()
    assert found["bleu"] == pytest.approx(metric.corpus_score(lines, [references]).score)
    assert found["bleu_signature"] == str(metric.get_signature())
    assert found["nats_per_value"] == pytest.approx(
        -sum(scored(run, words, references)["log_prob_nats"]) / sum(map(len, references)), rel=1e-4
    )
    assert found["nats_per_byte"] == found["nats_per_value"]
    text = seriatim("evaluate", run, *files).stdout
    assert f"sacreBLEU: {found['bleu']:.2f} (greedy; {found['bleu_signature']})" in text
    assert "exact match: 0.8000 of 5 targets (greedy)" in text


def test_without_sacrebleu_the_rest_is_printed(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    result = seriatim("evaluate", run, "--beams", 1, "--no-baselines")
    assert result.exit_code == 0, result.output
    assert "sacrebleu is not installed: pip install 'seriatim[text]'" in result.stderr
    assert "exact match: " in result.stdout
    assert "perplexity: " in result.stdout
    assert "sacreBLEU" not in result.stdout


def test_no_search_where_none_is_wanted(run):
    result = seriatim("evaluate", run, "--beams", 0, "--no-baselines")
    assert result.exit_code == 0, result.output
    assert "exact match" not in result.stdout
    assert "perplexity" in result.stdout


def test_answers_are_counted_for_each_group_of_questions():
    own = Agreement(1, np.array([True, False, True]), 0, None, None, ["qa1", "qa2", "qa1"])
    assert own.by_group == {"qa1": 1.0, "qa2": 0.0}
    assert own.lines() == ["exact match: 0.6667 of 3 targets (greedy)", "  qa1: 1.0000", "  qa2: 0.0000"]
    assert own.as_dict()["exact_match_by_group"] == own.by_group


# ---- explain


def pair_files(folder, sources="abc\ndd\n", targets="CBA\nDD\n"):
    (folder / "a.txt").write_text(sources)
    (folder / "b.txt").write_text(targets)
    return ["--source", folder / "a.txt", "--target", folder / "b.txt"]


def test_explain_of_two_files_is_that_of_pairs(run, tmp_path):
    (tmp_path / "pairs.tsv").write_text("abc\tCBA\ndd\tDD\n")
    found = json.loads(seriatim("explain", run, *pair_files(tmp_path), "--json").stdout)
    other = json.loads(seriatim("explain", run, tmp_path / "pairs.tsv", "--json").stdout)
    np.testing.assert_allclose(np.concatenate(found["bits"]), np.concatenate(other["bits"]), atol=1e-5)
    assert [len(own) for own in found["bits"]] == [3, 2]


def test_attention_is_drawn_with_the_tokens_beside_it(run, tmp_path):
    result = seriatim("explain", run, *pair_files(tmp_path), "--attention", tmp_path / "maps.svg", "--sequence", 1)
    assert result.exit_code == 0, result.output
    svg = (tmp_path / "maps.svg").read_text()
    assert svg.count("<image ") == 3
    for title in ("cross, layer 1", "target, layer 1", "source, layer 1", "(start)", "(end)"):
        assert title in svg
    assert svg.count(">d<") == 2 + 2 + 2  # columns of cross, rows and columns of source
    heads = seriatim("explain", run, *pair_files(tmp_path), "--attention", tmp_path / "maps.png", "--layer", 1)
    assert "attention: of line 1, the first of 2" in heads.stderr
    assert (tmp_path / "maps.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--attention", "maps.pdf"], "--attention: expected a name ending in .png, .svg, got maps.pdf"),
        (["--attention", "maps.png", "--layer", 2], "--layer: expected 1 to 1, the layers of cross, got 2"),
        (["--layer", 1], "--layer: expected --attention beside it, got 1"),
    ],
)
def test_attention_that_cannot_be_drawn_is_refused(run, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    result = seriatim("explain", run, *pair_files(tmp_path), *options)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "maps.png").exists()


@pytest.mark.parametrize(
    "arguments, given, message",
    [
        (["--n-best", 9], "a\n", "--n-best: expected 5 at most"),
        (["--sample", "--n-best", 2], "a\n", "--n-best: expected none with --sample"),
        (["--sample", "--beams", 2], "a\n", "--beams: expected none with --sample"),
        (["--sample", "--temperature", 0], "a\n", "--temperature: expected a number above 0, got 0.0"),
        (["--top-k", 3], "a\n", "expected --sample beside them"),
        (["--num", 3], "a\n", "expected --sample beside them"),
        (["no.txt"], None, "FILE: no.txt: no such file"),
        ([], "a\nxyz\n", "line 2"),
        ([], b"a\n\xff\n", "line 2: expected UTF-8, got byte 0xff"),
    ],
)
def test_what_does_not_fit_is_refused(run, arguments, given, message):
    result = seriatim("translate", run, *arguments, given=given)
    assert result.exit_code == 2, result.output
    assert message in result.output
