"""Devices without float64: what runs there stays in the model's own precision, the rest on the CPU.

No such device is at hand where tests run. So float64 numbers are looked for where they could not be made, and a CPU of
another name stands for the place where they can.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seriatim import autoregressive
from seriatim.layers import positions
from seriatim.wide import placed, wide
from zoo import ZOO, model_of, of_three_rows

OTHER = torch.device("cpu", 0)
REAL_ANGLES = positions.angles


class Float64(TorchDispatchMode):
    """Counts the float64 tensors that torch makes."""

    def __init__(self) -> None:
        super().__init__()
        self.found, self.paused = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.dtype is torch.float64]
        self.found += 0 if self.paused else len(made)
        return result


def narrow_angles(*args: Any) -> torch.Tensor:
    return REAL_ANGLES(*args).float()  # the CPU makes them where the device cannot


def names() -> list[str]:
    """The models of the zoo whose values are no float64 numbers."""
    return [name for name in ZOO if model_of(ZOO[name]()).head.value_dtype is not torch.float64]


@pytest.mark.parametrize("name", names())
def test_a_likelihood_makes_no_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = of_three_rows(name)
    x = p.sample(seed=0, engine="reference")
    seen = Float64()

    def paused(*args: Any) -> torch.Tensor:
        seen.paused = True
        turned = narrow_angles(*args)
        seen.paused = False
        return turned

    monkeypatch.setattr(positions, "angles", paused)
    with torch.no_grad(), seen:
        terms = p.log_prob_terms(x)
    assert terms.dtype is torch.float32
    assert seen.found == 0
    with seen:
        terms.double()
    assert seen.found == 1  # it would have been seen


@contextmanager
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.device]]:
    """Let values be drawn on a CPU of another name, and tell which places were asked for."""
    asked: list[torch.device] = []

    def other(device: torch.device) -> torch.device:
        asked.append(device)
        return OTHER

    with monkeypatch.context() as patch:
        patch.setattr(autoregressive, "wide", other)
        yield asked


@pytest.mark.parametrize(
    "name", ["made_residual_scan", "lstm_ending", "wavenet", "transformer_source", "gated_pixelcnn_nested_vector"]
)
def test_values_drawn_elsewhere_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = of_three_rows(name)
    wanted = p.sample(seed=1, engine="reference")
    heads = set()
    p.model.head.register_forward_hook(lambda module, args, output: heads.add(id(module)))
    with elsewhere(monkeypatch) as asked:
        found = p.sample(seed=1, engine="reference")
    assert asked
    assert torch.equal(found, wanted)
    assert found.device == p.model.device
    assert id(p.model.head) not in heads  # a copy of the head stood there


def test_where_float64_is() -> None:
    assert wide(torch.device("mps")) == torch.device("cpu")
    assert wide(torch.device("cuda", 0)) == torch.device("cuda", 0)
    assert placed(torch.zeros(2), torch.device("meta")).device.type == "meta"
    assert placed(torch.zeros(2).double(), torch.device("mps")).device.type == "cpu"
    assert angles_on("mps").device.type == "cpu"


def angles_on(device: str) -> torch.Tensor:
    return REAL_ANGLES(0, 3, 4, torch.device(device))
