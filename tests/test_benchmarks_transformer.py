"""The benchmarks of the Transformer at small sizes: the sides compared do the same, and what is counted is right."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from benchmarks.transformer import babi, decoding, shakespeare, speed

from seriatim.data.pairs import text_pairs
from seriatim.heads import Tokens
from seriatim.models import Transformer
from seriatim.tasks import Hypothesis

SMALL = {
    "pairs": speed.Case(9, True, 8, 1, 2, 3, 6),
    "text": speed.Case(9, False, 8, 1, 2, 3, 6),
}


@pytest.mark.parametrize("name", SMALL)
def test_ours_and_the_peer_are_of_one_size(name, monkeypatch):
    monkeypatch.setattr(speed, "CASES", SMALL)
    monkeypatch.setattr(speed, "REPEATS", 1)
    row = speed.compare(name)
    assert {*row["ratio"]} == {"cpu", "wall"}
    # Ours has one vector for the start; the peer's pairs have norms at the end of either stack, and a symbol more.
    assert abs(row["ours"]["parameters"] - row["peer"]["parameters"]) <= 5 * 8
    assert row["ours"]["gigaflops"] == row["peer"]["gigaflops"]
    assert sum(row["ours"]["split"].values()) == pytest.approx(1, abs=0.01)


def test_sequences_are_padded_behind_their_end():
    x = speed.symbols(SMALL["pairs"], seed=0)
    assert x.shape == (3, 6)
    lengths = (x >= 0).sum(1)
    assert lengths[0] == 6
    assert bool((lengths >= 3).all())
    assert torch.equal(x >= 0, torch.arange(6) < lengths[:, None])
    assert int(speed.symbols(SMALL["text"], seed=0).min()) >= 0


def test_a_table_without_results_says_so(monkeypatch):
    monkeypatch.setattr(speed, "load_rows", lambda name: {})
    assert speed.render().count("not run") == 2 * len(speed.CASES)


# ---- decoding


@pytest.mark.parametrize("beams", [0, 1, 2])
def test_every_way_writes_as_many_tokens_as_it_is_asked_for(beams, monkeypatch):
    case = decoding.Case(9, beams > 0, 8, 1, 2, 8, 5, beams, 3)
    monkeypatch.setattr(decoding, "CASES", {"small": case})
    monkeypatch.setattr(decoding, "REPEATS", 1)
    for way in decoding.ours(case).values():
        found = way()
        lengths = [len(own[0].values) for own in found] if beams else [len(row) for row in found]
        assert lengths == [5, 5, 5]
    row = decoding.compare("small")
    assert {"native", "eager"} <= {*row} <= {*decoding.NAMES}
    assert row["native"]["ours_over_it"] == {"cpu": 1.0, "wall": 1.0}


def test_peers_that_are_not_installed_are_said_to_be(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    assert decoding.hugging_face(decoding.PAIRS) == decoding.ctranslate(decoding.PAIRS) == {}
    times = {"cpu_ms": 1.0, "wall_ms": 1.0, "tokens_per_second": 2.0, "ours_over_it": {"cpu": 1.0, "wall": 1.0}}
    name = next(iter(decoding.CASES))
    stored = {name: {"native": times, "eager": times, "load_average": 0.1}}
    monkeypatch.setattr(decoding, "load_rows", lambda _: stored)
    line = next(line for line in decoding.render().splitlines() if name in line)
    assert line == f"| {name} | 2 | 2 (1.00) | not installed | not installed | not installed |"


# ---- questions


def answers():
    pairs = (["A b?", "C d?", "A b? e", "C c?"], ["x", "y", "x", "x,y"])
    test = (["A b?", "d d?", "C c?"], ["x", "x", "y"])
    labels = {"train": [0, 0, 1, 1], "valid": [0, 0, 1, 1], "test": [0, 0, 1]}
    return text_pairs(
        "toy",
        {"train": pairs, "valid": pairs, "test": test},
        labels={split: np.array(own)[:, None] for split, own in labels.items()},
        attributes={"task": ["qa1", "qa2"]},
        joint=True,
    )


def test_questions_seen_in_training_and_the_commonest_answer_are_counted():
    data = answers()
    assert babi.seen(data).tolist() == [True, False, True]
    assert [babi.majority(data, number) for number in (0, 1)] == [1.0, 0.0]


def test_an_answer_is_right_only_as_a_whole(monkeypatch):
    given = []

    def x_for_all(model, sources, num_beams):
        given.extend(sources.tolist())
        return [[Hypothesis(torch.tensor([ord("x")]), -1.0, -1.0, True)] for _ in sources]

    monkeypatch.setattr(babi, "beam_search", x_for_all)
    data = answers()
    assert babi.answered(None, data, "train").tolist() == [True, False, True, False]
    assert [data.source_codec.decode([k for k in own if k >= 0]) for own in given] == ["A b?", "C d?", "C c?", "A b? e"]


# ---- text


def test_overlapping_windows_count_each_character_once(monkeypatch):
    monkeypatch.setattr(shakespeare, "WINDOW", 8)
    monkeypatch.setattr(shakespeare, "SEEN", 3)
    torch.manual_seed(0)
    model = Transformer((8,), Tokens(5), hidden_features=8, num_layers=1, num_heads=2, positions="rotary").eval()
    for length in (5, 8, 20, 23, 25):
        text = np.random.default_rng(0).integers(0, 5, length)
        x, total = torch.from_numpy(text), 0.0
        with torch.no_grad():
            for place in range(length):
                # The window whose part behind the first three (in the first one: behind nothing) holds the place.
                start = 0 if place < 8 else 5 * ((place - 3) // 5)
                start = max(0, min(start, length - 8))
                seen = x[start : place + 1]
                total -= float(model(length=len(seen)).log_prob_terms(seen)[-1])
        assert shakespeare.overlapping_nats(model, text, batch_size=2) == pytest.approx(total / length, abs=1e-5)


@pytest.mark.parametrize("module", [babi, decoding, shakespeare])
def test_tables_without_results_say_so(module, monkeypatch):
    monkeypatch.setattr(module, "load_rows", lambda name: {})
    assert "not run" in module.render()
