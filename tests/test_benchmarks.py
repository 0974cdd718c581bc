"""The benchmarks' own code, at small sizes: the rows for a GPU are run here on the CPU, so that they are ready."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.images import mnist
from benchmarks.images.entries import measure, mixed


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


def test_scans_are_averaged_as_joint_probabilities():
    nats = mixed([np.array([1.0, 5.0]), np.array([3.0, 5.0])])
    np.testing.assert_allclose(nats, -np.log((np.exp([-1.0, -5.0]) + np.exp([-3.0, -5.0])) / 2))
