"""Every model of the zoo keeps the contract, and the zoo covers everything there is."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
import sys

import pytest
import torch
from torch import nn

import seriatim
from seriatim import layers
from seriatim.causal import CausalSequential, Recompute, Residual
from seriatim.context import Encoder
from seriatim.heads import Bernoulli, Head
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MODELS
from seriatim.order import Order
from seriatim.testing import CHECKS, check, parametrize_with_checks
from zoo import ZOO, Assembled, model_of


@parametrize_with_checks(ZOO)
def test_conformance(model, check):
    check(model)


@pytest.fixture(scope="module")
def zoo() -> list[AutoregressiveModel]:
    return [model_of(make()) for make in ZOO.values()]


@pytest.fixture(scope="module")
def kinds(zoo: list[AutoregressiveModel]) -> set[type]:
    """The class of every module of every model: networks, layers, heads, encoders, inner models."""
    return {type(module) for model in zoo for module in model.modules()}


def public_subclasses(base: type) -> set[type]:
    """Return the public subclasses of a class that the library defines, wherever in the core they stand."""
    for name in ("models", "layers"):
        package = importlib.import_module(f"seriatim.{name}")
        for module in pkgutil.iter_modules(package.__path__, f"seriatim.{name}."):
            importlib.import_module(module.name)
    for module in pkgutil.iter_modules(seriatim.__path__, "seriatim."):
        if not module.ispkg and module.name != "seriatim.runs":
            importlib.import_module(module.name)
    found, left = set(), [base]
    while left:
        for cls in left.pop().__subclasses__():
            left.append(cls)
            # A class in a doctest says that it is of the library's module, but does not stand in it.
            defined = getattr(sys.modules.get(cls.__module__), cls.__name__, None) is cls
            if defined and cls.__module__.startswith("seriatim.") and not cls.__name__.startswith("_"):
                found.add(cls)
    return found


def test_the_zoo_covers_the_registry(zoo):
    assert set(MODELS.values()) <= {type(model) for model in zoo}


def test_the_zoo_covers_every_head(kinds):
    heads = public_subclasses(Head)
    assert len(heads) >= 11
    assert heads <= kinds


def test_the_zoo_covers_every_order(zoo):
    orders = [model.order for model in zoo]
    assert public_subclasses(Order) <= {type(order) for order in orders}
    plain = [order for order in orders if type(order) is Order]
    assert {order.is_natural for order in plain} == {True, False}
    assert {len(order.shape) for order in plain} >= {1, 2}


def test_the_zoo_covers_every_kind_of_context(zoo, kinds):
    assert public_subclasses(Encoder) <= kinds
    assert any(model.encoder is None for model in zoo)
    # A user's own encoder, whose features are more than one vector.
    assert any(model.encoder and not type(model.encoder).__module__.startswith("seriatim.") for model in zoo)


def test_the_zoo_covers_every_layer(zoo, kinds):
    assert {getattr(layers, name) for name in layers.__all__} <= kinds
    assert {CausalSequential, Residual, Recompute} <= kinds
    deep = [m for model in zoo for m in model.modules() if isinstance(m, layers.LSTM) and m.num_layers > 1]
    assert deep
    dilated = [m for model in zoo for m in model.modules() if isinstance(m, layers.CausalConv1d) and m.dilation > 1]
    assert dilated
    masks = {m.mask for model in zoo for m in model.modules() if isinstance(m, layers.MaskedConv2d)}
    assert masks == {"A", "B"}


@pytest.mark.parametrize("cls", MODELS.values(), ids=MODELS)
def test_the_zoo_covers_the_context_and_order_of_each_model(cls, zoo):
    own = [model for model in zoo if type(model) is cls]
    arguments = inspect.signature(cls).parameters
    if "encoder" in arguments:
        assert any(model.encoder is not None for model in own)
    if "order" in arguments:
        assert any(not model.order.is_natural for model in own)


def test_every_weight_of_the_zoo_is_drawn(zoo):
    for model in zoo:
        for name, parameter in model.named_parameters():
            assert parameter.abs().min() > 0, (type(model).__name__, name)


class Leaky(FVSBN):
    """A model that reads the value it predicts."""

    def shifted(self, x: torch.Tensor, order: Order) -> torch.Tensor:
        return self.cast(self.head.encode(x, order.permutation))


def leaky() -> FVSBN:
    model = Leaky((3,))
    nn.init.normal_(model.network.linear.weight)
    return model


def test_a_report_reads_as_text():
    report = check(FVSBN((3,)), only=["causality", "context"])
    assert report.ok
    lines = str(report).splitlines()
    assert lines[0] == "conformance of FVSBN"
    assert lines[1].startswith("ok   causality")
    assert lines[2].startswith("-    context")
    assert lines[2].endswith("the model is unconditional")
    assert lines[3] == "1 passed, 0 failed, 1 skipped"


def test_a_model_that_rollout_samples_is_noted_not_blamed():
    (result,) = check(Assembled("recomputed", Bernoulli(), Order((4,))), only=["native_engine"]).results
    assert (result.status, result.detail) == ("skipped", "sampled by rollout: Recompute has no lower method")


def test_a_report_names_what_failed():
    report = check(leaky(), only=["causality", "rows_alone"])
    assert not report.ok
    assert [result.status for result in report.results] == ["failed", "passed"]
    assert "FAIL causality" in str(report)
    assert "the conditional of position 0 depends on the value of position 0" in str(report)


def test_a_crash_is_a_failure_and_the_other_checks_still_run(monkeypatch):
    def crash(case):
        raise KeyError("lost")

    monkeypatch.setitem(CHECKS, "chunks", crash)
    report = check(FVSBN((3,)), only=["chunks", "rows_alone"])
    assert [result.status for result in report.results] == ["failed", "passed"]
    assert report.results[0].detail == "KeyError: 'lost'"


def test_only_names_existing_checks():
    with pytest.raises(ValueError, match=r"only: expected names among chunks, .*, got nonsense"):
        check(FVSBN((3,)), only=["causality", "nonsense"])


def test_all_checks_run_where_none_are_named():
    report = check(FVSBN((2,)))
    assert [result.name for result in report.results] == list(CHECKS)
    assert report.ok


def test_every_check_says_what_it_promises():
    for name, function in CHECKS.items():
        assert (function.__doc__ or "").strip(), name


def test_a_check_leaves_the_model_and_the_generator_alone():
    model = FVSBN((3,)).train()
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_encoder_without_a_context_function_is_refused():
    model = model_of(ZOO["encoder_decoder"]())
    with pytest.raises(ValueError, match=r"context: expected a function that draws contexts for Source"):
        check(model)
