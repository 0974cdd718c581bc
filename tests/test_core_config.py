"""A model can be written down, made again, copied and pickled."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
import torch

from seriatim.config import Configurable, from_config
from seriatim.context import Labels
from seriatim.heads import Categorical, Head, QuantizedMixtureOfLogistics
from seriatim.model import AutoregressiveModel
from seriatim.models import MADE, NADE
from seriatim.order import Order, Scan
from zoo import ZOO, context_of, model_of


def log_probs(model: AutoregressiveModel, c: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval().log_prob(x, c)


@pytest.mark.parametrize("name", ZOO)
def test_a_model_is_made_again_from_json(name):
    made = ZOO[name]()
    model, c = model_of(made), context_of(made, 4)
    again = from_config(json.loads(json.dumps(model.config)))
    assert type(again) is type(model)
    assert again.config == model.config
    assert torch.equal(again.order.permutation, model.order.permutation)
    assert again.event_shape == model.event_shape
    again.load_state_dict(model.state_dict())
    x = model.eval().sample((2,), c, seed=0) if c is None else model.eval().sample((), c, seed=0)
    assert torch.equal(log_probs(again, c, x), log_probs(model, c, x))


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deep", "pickle"]
)
@pytest.mark.parametrize("name", ZOO)
def test_a_copy_is_a_model_of_its_own(name, copied):
    made = ZOO[name]()
    model, c = model_of(made).eval(), context_of(made, 4)
    twin = copied(model)
    x = model.sample((), c, seed=0) if c is not None else model.sample((4,), seed=0)
    before = log_probs(model, c, x)
    assert torch.equal(log_probs(twin, c, x), before)
    assert twin.config == model.config
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.5)
    assert torch.equal(log_probs(model, c, x), before)
    assert not torch.equal(log_probs(twin, c, x), before)


def test_arguments_are_remembered_by_name():
    head = QuantizedMixtureOfLogistics(16, min_scale=1e-2)
    assert head.config == {"class": "QuantizedMixtureOfLogistics", "arguments": {"levels": 16, "min_scale": 1e-2}}
    assert from_config(head.config).num_components == head.num_components


def test_arguments_may_be_arrays_and_tensors():
    permutation = [2, 0, 1]
    for given in (torch.tensor(permutation), np.array(permutation), tuple(permutation)):
        order = Order(np.array([3]), given)
        assert json.loads(json.dumps(order.config))["arguments"] == {"shape": [3], "permutation": permutation}


def test_nested_objects_are_made_inside_out():
    model = MADE((2, 3), Categorical(3), hidden_features=(4,), encoder=Labels(2), order=Scan((2, 3), flip_rows=True))
    again = from_config(model.config)
    assert isinstance(again.order, Scan)
    assert again.head.num_categories == 3
    assert again.encoder.num_features == 2


def test_a_subclass_is_written_down_as_itself():
    class Small(NADE):
        def __init__(self, places: int) -> None:
            super().__init__((places,), hidden_features=2)

    assert Small(4).config == {"class": "Small", "arguments": {"places": 4}}
    assert from_config(Small(4).config).order.length == 4


def test_a_class_without_a_constructor_has_no_arguments():
    class Plain(Configurable):
        pass

    assert Plain().config == {"class": "Plain", "arguments": {}}


@pytest.mark.parametrize(
    "config, message",
    [
        ({"class": "Nonsense", "arguments": {}}, "config: expected the name of an imported class, got 'Nonsense'"),
        (
            {"class": "Categorical", "arguments": {"num_categories": 3, "levels": 3}},
            "Categorical: got an unexpected .*'levels'",
        ),
        ({"class": "Categorical", "arguments": {}}, "config: arguments of Categorical: missing .*num_categories"),
        ({"class": "os.system", "arguments": {"command": "true"}}, "expected the name of an imported class"),
    ],
)
def test_a_bad_config_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        from_config(config)


def test_what_cannot_be_written_down_is_refused():
    class Odd(Head):
        def __init__(self, function) -> None:
            super().__init__()

    with pytest.raises(TypeError, match="config: expected plain values, tensors or configurable objects, got function"):
        _ = Odd(log_probs).config


def test_wrong_arguments_are_reported_by_the_constructor():
    with pytest.raises(TypeError, match="hidden"):
        MADE((3,), hidden=3)
    with pytest.raises(TypeError, match="event_shape"):
        MADE()


def test_names_of_configurable_classes_are_unique():
    """A config names a class by its bare name: no two classes of the library may share one."""
    seen: dict[str, type] = {}
    left: list[type] = [Configurable]
    while left:
        for cls in left.pop().__subclasses__():
            left.append(cls)
            if cls.__module__.startswith("seriatim."):
                assert seen.setdefault(cls.__name__, cls) is cls


def test_a_class_of_the_same_name_elsewhere_does_not_take_its_place():
    from seriatim import heads

    own = type("Bernoulli", (heads.Bernoulli,), {"__module__": "elsewhere"})
    assert type(from_config(heads.Bernoulli().config)) is heads.Bernoulli
    assert own().config["class"] == "elsewhere.Bernoulli"
    assert type(from_config(own().config)) is own
    del heads.Bernoulli.classes["elsewhere.Bernoulli"]
