"""The benchmark of sampling at sizes that take a moment: what it counts, and that it measures all kinds of models."""

from __future__ import annotations

import pytest
import torch
from benchmarks.sampling import cuda, table
from benchmarks.sampling.cases import CASES, by_position, by_row, numbers
from benchmarks.sampling.measure import measure

from seriatim.heads import Categorical
from seriatim.models import FVSBN, LSTM, MADE


def test_weights_that_are_masked_are_not_counted():
    fvsbn = FVSBN((5,))
    assert by_row(fvsbn, 784).macs == numbers(fvsbn)
    assert numbers(fvsbn) == 5 * 6 // 2  # the start symbol and the values before
    made = MADE((5,), hidden_features=(7,))
    dense = sum(p.numel() for p in made.parameters() if p.ndim > 1)
    assert 0 < numbers(made) < dense


def test_a_symbol_looks_its_column_up():
    model = LSTM((6,), Categorical(3), hidden_features=4)
    whole = by_position(model, 6)
    less = by_position(model, 6, looked_up="network.layers.0.rnn.weight_ih_l0")
    assert whole.macs - less.macs == 6 * 16 * 3
    assert by_position(model, 6, attended=10).macs == whole.macs + 10 * 21


@pytest.mark.parametrize("name", ["FVSBN", "LSTM 1x512", "encoder-decoder 3+3 x 256"])
def test_a_line_is_measured(name, monkeypatch):
    case = CASES[name]
    short = {
        "FVSBN": case,
        "LSTM 1x512": case._replace(positions=24, passed=8, steps=4),
        "encoder-decoder 3+3 x 256": case._replace(positions=12, passed=6, steps=4),
    }
    monkeypatch.setitem(CASES, name, short[name])
    row = measure(name, 1, {}, repeats=1)
    assert row["equal"] == 1.0
    assert row["tax"] > 0
    assert {"native", "rollout", "passes"} <= set(row["per_s"])
    assert row["binds"] in ("arithmetic", "reading")


def test_the_tables_say_what_was_met_and_what_was_not_run(monkeypatch):
    row = {
        "positions": 784, "per_s": {"native": 784.0, "rollout": 8.0, "passes": 2.0, "peer": 1.0}, "tax": 2.0,
        "ratios": {"rollout": 98.0, "passes": 392.0, "peer": 5000.0}, "two_threads": 1.6, "equal": 1.0, "peer": "other",
        "binds": "reading", "lowering_ms": 3.0, "load_average": 0.5,
    }  # fmt: skip
    stored = {"PixelCNN 15x32, batch 16": row}
    monkeypatch.setattr(table, "load_rows", lambda name: stored)
    shown = table.render()
    assert "| PixelCNN 15x32, batch 16 | 4,500x pytorch-generative | 5,000x | met |" in shown
    assert "| PixelCNN 15x32, batch 16 | 65 % of the limit: tax 1.54 | 2.00 | missed |" in shown
    assert "| MADE 500, batch 1 | 300x naive | not run |  |" in shown
    assert "| PixelCNN 15x32, batch 16 | 0.00255 images/s | 0.0102 images/s | 1 images/s | 392x |" in table.newcomer(
        stored
    )


def test_the_rows_of_a_gpu_run_on_the_cpu_too():
    row = cuda.measure("GRU 1x512", 2, device="cpu", positions=6)
    assert row["equal"] == 1.0
    assert row["ratio"] > 0
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="no CUDA device"):
            cuda.run()
