"""The examples run, and reach what they are there to show."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from seriatim.config import Configurable
from seriatim.testing import check

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    """Import an example by its name; the classes that it defines are forgotten again."""
    monkeypatch.setattr(Configurable, "classes", dict(Configurable.classes))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def test_own_model_keeps_the_contract(example):
    report = check(example("own_model").PositionLSTM((3, 2), hidden_features=6))
    assert report.ok, str(report)


def test_classifiers_are_accurate(example, capsys):
    torch.manual_seed(0)
    found = example("classifier").main()
    logistic, mlp = found.values()
    assert logistic >= 0.94
    assert mlp >= 0.95
    assert capsys.readouterr().out.count("% of 300 test digits") == 2


def test_every_example_is_tested():
    assert {file.stem for file in EXAMPLES.glob("*.py")} == {"own_model", "classifier"}
