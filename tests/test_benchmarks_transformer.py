"""The benchmark of training steps of the Transformer, at small sizes: the two sides do the same."""

from __future__ import annotations

import pytest
import torch
from benchmarks.transformer import speed

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
