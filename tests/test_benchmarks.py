"""The benchmarks' own code, at small sizes: the rows for a GPU are run here on the CPU, so that they are ready."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from benchmarks import common
from benchmarks.images import mnist
from benchmarks.images.entries import measure, mixed
from benchmarks.sequences import __main__ as sequences
from benchmarks.sequences import peers, speed
from benchmarks.training import trained

from seriatim.autoregressive import rollout
from seriatim.models import FVSBN
from seriatim.noise import uniforms
from seriatim.training import TrainConfig


@pytest.mark.parametrize(
    ("device", "name"), [("cpu", "GatedPixelCNN 8x32"), ("cuda", "PixelSNAIL 4x64, 4 scans"), ("cuda", "RowLSTM 7x32")]
)
def test_a_row_is_trained_scored_and_resumed(device, name, tmp_path):
    data = {
        split: np.random.default_rng(i).integers(0, 2, (12, 4, 4)) for i, split in enumerate(("train", "valid", "test"))
    }
    entry = mnist.ENTRIES[device][name]
    small = entry._replace(
        config=entry.config.model_copy(update={"epochs": 1, "batch_size": 6}), scans=min(2, entry.scans)
    )
    row = measure(data, "cpu", name, small, tmp_path)
    assert 8 < row["test_nats"] < 14  # 16 fair bits are 11.1 nats
    assert len(list(tmp_path.iterdir())) == small.scans
    again = measure(data, "cpu", name, small, tmp_path)
    assert again["test_nats"] == row["test_nats"]
    assert row["interval"][0] <= row["test_nats"] <= row["interval"][1]


def test_the_time_of_a_training_that_went_on_is_that_of_all_its_epochs(tmp_path):
    rows = np.random.default_rng(0).integers(0, 2, (40, 3))
    for epochs in (2, 5):
        model = FVSBN((3,))
        result, facts = trained(
            model, (rows[:30], rows[30:]), TrainConfig(epochs=epochs, batch_size=5), tmp_path / "run"
        )
        assert len(result.history) == facts["epochs"] == epochs
    assert facts["epochs_timed"] == 3
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["provenance"]["threads"] == torch.get_num_threads()


def test_scans_are_averaged_as_joint_probabilities():
    nats = mixed([np.array([1.0, 5.0]), np.array([3.0, 5.0])])
    np.testing.assert_allclose(nats, -np.log((np.exp([-1.0, -5.0]) + np.exp([-3.0, -5.0])) / 2))


SMALL = peers.Sizes(blocks=2, layers=2, width=8, skip=16, levels=5)
FEW = speed.Counts(native=20, rollout=12, passes=1, peer=4, numbers=10**4)


def test_generation_is_measured_beside_the_machine():
    asked = []
    row = speed.measure(speed.wavenet(SMALL, FEW), 3, {"wavenet_vocoder": asked.append}, repeats=1)
    assert row["equal"] == 1
    assert asked == [4, 4]  # one turn to warm up
    # Four layers of two taps, their skips, residuals of all but the last, two maps; none of the first, a look-up.
    macs = 4 * (2 * 16 * 8 + 8 * 16) + 3 * 8 * 8 + 16 * 16 + 16 * 5
    assert row["macs"] == macs
    gigas, rates = row["machine"], row["per_s"]
    limit = 1e9 * min(gigas["sgemm"] / (2 * macs), 3 * gigas["reading"] / (4 * macs))
    assert row["limit_per_s"] == pytest.approx(limit, rel=0.01)
    assert row["of_limit"] == pytest.approx(rates["native"] / limit, rel=0.01, abs=6e-4)  # three digits are kept
    assert row["ratios"]["rollout"] == pytest.approx(rates["native"] / rates["rollout"], rel=0.01, abs=6e-4)
    assert set(rates) == {"native", "rollout", "passes", "wavenet_vocoder"}


def test_a_recurrent_layer_is_measured_against_steps_of_torch():
    case = speed.lstm(2, FEW, units=16)
    steps = peers.stepped_lstm(speed.SYMBOLS, 16, 2, batch=2)
    row = speed.measure(case, 2, {"nn.LSTM": steps}, repeats=1)
    assert row["macs"] == 3 * 64 * 16 + 16 * speed.SYMBOLS
    assert row["equal"] == 1
    assert steps(7).shape == (2, 7)


def test_whole_passes_draw_what_steps_draw():
    case = speed.wavenet(SMALL, FEW)
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.mul_(3)
    before = torch.zeros(2, case.window, dtype=torch.int64)
    joint = case.model(length=case.window + 4).expand((2,))

    def choose(position, conditional):
        return conditional.from_uniforms(uniforms(0, torch.arange(2), torch.tensor([position - case.window]), 1))

    with torch.no_grad():
        stepped = torch.cat([step.value for step in rollout(joint, choose, prefix=before)], dim=1)
    assert torch.equal(speed.whole_passes(case.model, 2, case.window, 4), stepped)


VOCODER = """
class WaveNet:
    def __init__(self, **sizes):
        self.sizes = sizes
    def eval(self):
        return self
    def make_generation_fast_(self):
        self.fast = True
    def incremental_forward(self, test_inputs, T, softmax, quantize):
        return self.sizes, self.fast, tuple(test_inputs.shape), T
"""
FAST = """
import librosa
import torch
class Queue:
    def __init__(self, channels):
        self.data = torch.zeros(channels, 3)
    def enqueue(self, input):
        self.data[:, 0] = input
class WaveNetModel:
    def __init__(self, **sizes):
        self.sizes, self.dilated_queues = sizes, [Queue(sizes["residual_channels"])]
    def generate_fast(self, positions):
        print("so many seconds")
        self.dilated_queues[0].enqueue(torch.ones(self.sizes["residual_channels"], 1))
        return self.sizes, self.dilated_queues[0].data[:, 0].tolist(), positions, torch.is_grad_enabled()
"""


@pytest.fixture
def checkouts(tmp_path, monkeypatch):
    for name in ("wavenet_vocoder", "wavenet_model", "librosa"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    path = list(sys.path)
    for file, text in (("wavenet_vocoder.py", VOCODER), ("wavenet_model.py", FAST)):
        (tmp_path / file).write_text(text)
    yield tmp_path
    assert sys.path == path
    for name in ("wavenet_vocoder", "wavenet_model", "librosa"):
        sys.modules.pop(name, None)


def test_peers_get_the_sizes_of_our_model(checkouts, capsys):
    sizes, fast, shape, positions = peers.wavenet_vocoder(checkouts, SMALL, 3)(6)
    assert (fast, shape, positions) == (True, (3, 5, 1), 6)
    assert (sizes["layers"], sizes["stacks"], sizes["residual_channels"], sizes["gate_channels"]) == (4, 2, 8, 16)
    sizes, queued, positions, gradients = peers.pytorch_wavenet(checkouts, SMALL)(6)
    assert (queued, positions, gradients) == ([1.0] * 8, 6, False)
    assert (sizes["layers"], sizes["blocks"], sizes["dilation_channels"], sizes["classes"]) == (2, 2, 8, 5)
    assert capsys.readouterr().out == ""


def test_tables_of_generation_say_what_is_met_and_what_was_not_run(monkeypatch):
    row = {
        "batch": 1,
        "macs": 10**6,
        "per_s": {"native": 20000.0, "rollout": 400.0, "passes": 10.0, "wavenet_vocoder": 200.0},
        "ratios": {"rollout": 50.0, "passes": 2000.0, "wavenet_vocoder": 100.0},
        "machine": {"sgemm": 90.0, "reading": 60.0, "gemv": 50.0},
        "limit_per_s": 25000.0,
        "binds": "reading",
        "of_limit": 0.8,
        "of_gemv_limit": 0.9,
        "equal": 1.0,
        "load_average": 2.0,
    }
    monkeypatch.setattr(speed, "load_rows", lambda name: {"WaveNet 30x32, batch 1": row})
    lines = speed.render().splitlines()
    assert "| WaveNet 30x32, batch 1 | 10 | 400 | 200 | not run | 20,000 | 2,000x | 50x | 100x | not run |" in lines
    assert "| WaveNet 30x32, batch 1 | 1,600 | 40 | 80 | not run | 0.8 | yes | no |" in lines
    assert "| WaveNet 30x32, batch 1 | 1,500x whole passes | 2,000x | met |" in lines
    assert "| WaveNet 30x32, batch 1 | 120x r9y9/wavenet_vocoder | 100x | missed |" in lines
    assert "| WaveNet 30x32, batch 1 | 16 kHz in real time on one core | 20,000 samples/s | met |" in lines
    assert "| WaveNet 20x64, batch 1 | 80% of the limit | not run |  |" in lines


def test_a_peer_that_is_none_is_refused_and_paths_are_not_stored(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["sequences", "speed", "--peer-fast", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        sequences.main()
    assert stopped.value.code == 2
    assert "--peer-fast: expected a checkout with wavenet_model.py" in capsys.readouterr().err
    shown = common._public(["speed", "--peer-fast", "/a", "--peer-wavenet=/b"])
    assert shown == ["speed", "--peer-fast", "PEER", "--peer-wavenet=PEER"]
