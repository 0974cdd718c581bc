"""Models and runs on disk: what is written comes back bit by bit, and nothing else is taken for a model."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from seriatim.cards import Card
from seriatim.causal import CausalSequential
from seriatim.data import Column, Schema
from seriatim.heads import Bernoulli
from seriatim.layers import LSTM
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE
from seriatim.order import Order
from seriatim.runs import RunFolder, load, read_config, save
from zoo import ZOO, context_of, model_of


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    return save(MADE((4,), hidden_features=(8,)), tmp_path / "model", card={"data": {"name": "coins"}})


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("name", ZOO)
def test_load_gives_the_same_log_prob_bitwise(name, tmp_path):
    made = ZOO[name]()
    model, context = model_of(made).eval(), context_of(made, 5)
    x = model(context).sample((5,) if context is None else (), seed=0)
    loaded = load(save(model, tmp_path))
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(loaded(context).log_prob(x), model(context).log_prob(x))


def test_load_keeps_double_precision(tmp_path):
    model = MADE((4,), hidden_features=(8,)).double()
    x = torch.ones(2, 4, dtype=torch.float64)
    loaded = load(save(model, tmp_path))
    assert loaded.dtype == torch.float64
    assert torch.equal(loaded.log_prob(x), model.log_prob(x))


def test_load_takes_the_run_folder_and_needs_only_model(tmp_path):
    save(FVSBN((2,)), tmp_path / "run" / "model")
    assert isinstance(load(tmp_path / "run"), FVSBN)
    assert sorted(p.name for p in (tmp_path / "run" / "model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_load_leaves_the_generator_alone(folder):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load(folder)
    assert torch.equal(torch.rand(3), expected)


def test_saving_again_replaces(folder):
    model = FVSBN((3,))
    save(model, folder)
    assert torch.equal(load(folder).network.linear.weight, model.network.linear.weight)


def test_card_and_schema_are_kept(tmp_path):
    card = Card(name="coins", numbers={"test": (0.25, "bits/dim")}, data={"sha256": "abc"})
    schema = Schema(columns=[Column(name="side", kind="categorical", categories=["head", "tail"])])
    save(FVSBN((2,)), tmp_path, card=card, schema=schema)
    config = read_config(tmp_path)
    assert load(tmp_path).schema == schema
    assert load(save(load(tmp_path), tmp_path / "again")).schema == schema
    assert config["card"]["numbers"] == {"test": [0.25, "bits/dim"]}
    text = (tmp_path / "README.md").read_text()
    for part in ("# coins", "| test | 0.25 | bits/dim |", "sha256: abc", "parameters: 6", "torch 2", "seriatim.load("):
        assert part in text


def test_unknown_facts_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="colour"):
        save(FVSBN((2,)), tmp_path / "model", card={"colour": "red"})
    assert not (tmp_path / "model").exists()


def test_a_model_of_parts_without_config_is_refused_before_anything_is_written(tmp_path):
    network = CausalSequential(LSTM(1, 3), nn.Linear(3, 1))
    with pytest.raises(TypeError, match="CausalSequential"):
        save(AutoregressiveModel(network, Bernoulli(), Order((3,))), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_truncated_file_of_weights_is_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors: expected weights"):
        load(folder)


def test_weights_with_a_flipped_bit_are_refused(folder):
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: expected the weights that config\.json"):
        load(folder)


def test_weights_of_another_run_are_refused(folder, tmp_path):
    other = save(MADE((4,), hidden_features=(8,)), tmp_path / "other")
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="got others"):
        load(folder)


def test_missing_weights_are_named(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors: no such file"):
        load(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w | {"extra": torch.zeros(1)}, "'extra' in model.safetensors but not in config.json"),
        (lambda w: {k: v for k, v in w.items() if k != "network.output.bias"}, "in config.json but not in"),
        (lambda w: w | {"network.output.bias": torch.zeros(1)}, r"of shape \(4,\) and torch.float32, got \(1,\)"),
        (lambda w: w | {"network.output.bias": torch.zeros(4).long()}, "got .* torch.int64"),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    from seriatim.runs import _sha256

    file = folder / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file)
    edit_config(folder, weights_sha256=_sha256(file))
    with pytest.raises(ValueError, match=message):
        load(folder)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected JSON"),
        ("{", "expected JSON"),
        ("\xff\xfe", "expected"),
        ("[]", "written by seriatim"),
        ('{"architectures": ["Llama"]}', "written by seriatim"),
        ('{"format": 99, "model": {}, "seriatim": "9.0"}', "format 1 or older, got 99"),
    ],
)
def test_foreign_configurations_are_refused(folder, text, message):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        load(folder)


@pytest.mark.parametrize(
    "model",
    [
        {"class": "os.system", "arguments": {}},
        {"class": "MADE", "arguments": {"shape": [4]}},
        {"class": "MADE", "arguments": {"event_shape": "four"}},
        {"class": "MADE", "arguments": [4]},
        {"class": "Bernoulli", "arguments": {}},
        "MADE",
        None,
    ],
)
def test_configurations_of_no_model_are_refused(folder, model):
    edit_config(folder, model=model)
    with pytest.raises(ValueError, match=r"config\.json: expected the configuration of a model"):
        load(folder)


def test_a_foreign_schema_is_refused(folder):
    edit_config(folder, schema={"fields": []})
    with pytest.raises(ValueError, match=r"config\.json: expected the schema"):
        load(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"expected a folder with config\.json"):
            load(path)


def test_a_run_folder_in_use_is_refused_unless_resumed(tmp_path):
    run = RunFolder.create(tmp_path / "a" / "run", {"seed": 3, "shape": (2, 2), "path": tmp_path})
    assert RunFolder.resume(run.path).config == {"seed": 3, "shape": [2, 2], "path": str(tmp_path)}
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        RunFolder.create(run.path, {})
    assert RunFolder.resume(run.path).config["seed"] == 3
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", {})
    with pytest.raises(ValueError, match="expected the folder of a run"):
        RunFolder.resume(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file"):
        save(FVSBN((2,)), tmp_path / "file")
    with pytest.raises(ValueError, match="file"):
        RunFolder.create(tmp_path / "file" / "run", {})


def test_a_damaged_config_yaml_is_named(tmp_path):
    run = RunFolder.create(tmp_path / "run", {"seed": 0})
    run.config_file.write_text("a: [1")
    with pytest.raises(ValueError, match=r"config\.yaml: expected YAML"):
        _ = run.config


def test_only_the_first_process_of_many_refuses(tmp_path, monkeypatch):
    RunFolder.create(tmp_path / "run", {"seed": 0})
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert RunFolder.create(tmp_path / "run", {"seed": 1}).config == {"seed": 0}
