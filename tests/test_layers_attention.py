"""Attention: the weights that are told are those that `forward` uses, and dropout of them in training alone."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seriatim.causal import clone
from seriatim.ending import Ending
from seriatim.heads import Tokens
from seriatim.layers import CrossAttention, SelfAttention, SourceAttention
from seriatim.layers.attention import Attention, attention_weights
from seriatim.models import LSTM, SourceEncoder, Transformer
from seriatim.report.attention import CELL, attention_figure
from seriatim.report.attention import Tokens as Words
from seriatim.tasks import attention_maps

SOURCES = torch.tensor([[0, 1, 2, 3, 4], [4, 2, -1, -1, -1]])
TARGETS = torch.tensor([[0, 2, 1, -1, -1], [1, 1, 1, 1, 1]])


def translator(**options):
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_heads": 2, **options}
    positions = {"positions": sizes.pop("positions")} if "positions" in sizes else {}
    encoder = SourceEncoder(5, 8, **sizes)
    model = Transformer((5,), Ending(Tokens(3)), hidden_features=8, encoder=encoder, **sizes, **positions)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.4)
    return model.double().eval()


def weighed(layer, weights, values):
    """The output of a layer for given weights (B, heads, n, S) and values (B, S, F)."""
    values = values.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    return layer.out((weights @ values).transpose(1, 2).flatten(-2))


def outputs_of(model):
    """What every attention layer was given and gave, in order."""
    seen = []
    for layer in model.modules():
        if isinstance(layer, Attention):
            layer.register_forward_hook(lambda own, given, out: seen.append((own, given, out)))
    return seen


@pytest.mark.parametrize("options", [{}, {"norm": "pre", "positions": "rotary"}])
def test_the_weights_told_give_what_the_layers_gave(options):
    model = translator(**options)
    plain = model(SOURCES).log_prob(TARGETS)
    seen = outputs_of(model)
    with attention_weights(model) as found:
        assert torch.equal(model(SOURCES).log_prob(TARGETS), plain)
    assert [type(layer) for layer, _ in found] == 2 * [SourceAttention] + 2 * [SelfAttention, CrossAttention]
    for (layer, weights), (own, given, out) in zip(found, seen, strict=True):
        assert layer is own
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        if isinstance(layer, CrossAttention):
            values, out = given[1]["values"], out[0]
        elif isinstance(layer, SelfAttention):
            values, out = out[1]["values"], out[0]
            assert not bool(weights.triu(1).any())
        else:
            values = layer.qkv(given[0]).chunk(3, dim=-1)[2]
        torch.testing.assert_close(weighed(layer, weights, values), out, rtol=1e-9, atol=1e-9)
    for layer, weights in found:
        if not isinstance(layer, SelfAttention):  # the second source has two symbols
            assert not bool(weights[1, ..., 2:].any())
    model(SOURCES).log_prob(TARGETS)
    assert len(found) == 6  # nothing is collected after the block, and no hook is left
    assert sum(len(module._forward_hooks) for module in model.modules()) == len(seen) // 2


def test_weights_of_chunks_are_rows_of_the_whole():
    layer = SelfAttention(8, 2, rotary=True).double().eval()
    x = torch.randn(2, 7, 8, dtype=torch.float64)
    whole = layer.weights(x)
    with torch.no_grad():
        _, state = layer(x[:, :4], layer.initial_state(2, max_length=7))
        found = layer.weights(x[:, 4:], clone(state))
        torch.testing.assert_close(found, whole[:, :, 4:])
        with attention_weights(layer) as collected:  # the state is written into before the weights are asked for
            layer(x[:, 4:], state)
    torch.testing.assert_close(collected[0][1], whole[:, :, 4:])


# ---- dropout


@pytest.mark.parametrize("kind", [SelfAttention, CrossAttention, SourceAttention])
def test_weights_are_dropped_in_training_alone(kind):
    torch.manual_seed(0)
    layer, x, mask = kind(4, 1, dropout=0.25).double(), torch.randn(1, 1, 4).double(), torch.ones(1, 1).bool()

    def output():
        if kind is SourceAttention:
            return layer(x, mask)
        return layer(x, layer.initial_state(1, (x, mask)))[0]

    drawn, bias = torch.cat([output() for _ in range(400)]).detach(), layer.out.bias.detach()
    layer.eval()
    kept = output().detach()
    assert torch.equal(kept, output())
    dropped = (drawn - bias).abs().amax(-1) < 1e-12
    # One weight, 1: it is dropped whole, or raised to 1 / 0.75.
    assert 0.18 < float(dropped.double().mean()) < 0.32
    raised = drawn[~dropped]
    torch.testing.assert_close(raised, (bias + (kept[0] - bias) / 0.75).expand_as(raised))


def test_every_attention_of_the_transformer_has_the_rate_and_no_new_parameter():
    with_rate, without = translator(dropout=0.3), translator(dropout=0.0)
    rates = [module.dropout for module in with_rate.modules() if isinstance(module, Attention)]
    assert rates == 6 * [0.3]
    shapes = [{name: own.shape for name, own in model.state_dict().items()} for model in (with_rate, without)]
    assert shapes[0] == shapes[1]
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in shapes[0] if "attention" in name} == {"qkv", "out"}


def test_a_model_without_attention_has_none_to_tell():
    with attention_weights(nn.Linear(2, 2)) as found:
        nn.Linear(2, 2)(torch.zeros(1, 2))
    assert found == []


# ---- maps of a sequence, and their picture


@pytest.mark.parametrize("number", [0, 1])
def test_maps_are_those_of_the_pass_that_scores(number):
    model = translator(norm="pre")
    x, source = TARGETS[number], SOURCES[number]
    values = x[: int(model.lengths(x[None]))]
    maps = attention_maps(model, values.numpy(), source)
    n, s = len(values) + 1, int((source >= 0).sum())
    assert maps.target.shape == (2, 2, n, n)
    assert maps.cross.shape == (2, 2, n, s)
    assert maps.source.shape == (2, 2, s, s)
    padded = torch.cat([values, torch.tensor([-1])])
    assert maps.log_prob == pytest.approx(model(source, length=n).log_prob(padded).item())
    with attention_weights(model) as found:
        model(source[None], length=n).log_prob(padded[None])
    cross = [weights[0] for layer, weights in found if isinstance(layer, CrossAttention)]
    torch.testing.assert_close(torch.from_numpy(maps.cross), torch.stack(cross).float())


def test_maps_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="model: expected attention layers, got LSTM without one"):
        attention_maps(LSTM((4,), hidden_features=3), [1, 0])
    with pytest.raises(ValueError, match=r"values: expected one sequence \(n,\), got shape \(1, 2\)"):
        attention_maps(translator(), [[1, 0]], SOURCES[0])
    with pytest.raises(ValueError, match="model: expected positions one after another"):
        attention_maps(Transformer((2, 2), hidden_features=8, num_layers=1, num_heads=2), [1, 0])
    with pytest.raises(ValueError, match="values: expected one value or more, got none"):
        attention_maps(Transformer((4,), Tokens(3), hidden_features=8, num_layers=1, num_heads=2), [])


def test_each_map_is_drawn_with_a_cell_for_each_weight():
    weights = np.zeros((2, 2, 3))
    weights[1, 0, 2] = 1
    figure = attention_figure({"cross": weights}, {"cross": Words(["a", "\n"], [" b", "c", "d" * 20])}, each="head")
    svg = figure.svg()
    assert svg.count("<image") == 2
    for shown in ("cross, head 2", ">_b<", ">\\n<", f">{'d' * 10}..<", 'transform="rotate(-90'):
        assert shown in svg
    left, top = (float(value) for value in re.findall(r'<image x="([\d.]+)" y="([\d.]+)"', svg)[1])
    picture = np.asarray(Image.open(io.BytesIO(figure.png(scale=1))))

    def cell(row, column):
        return picture[round(top + (row + 0.5) * CELL), round(left + (column + 0.5) * CELL)].tolist()

    assert cell(0, 2) == [252, 245, 190]
    assert cell(1, 2) == cell(0, 1) == [18, 20, 33]
    labels = picture[round(top) - 40 : round(top) - 2, round(left) : round(left) + 3 * CELL]
    assert (labels.min((0, 2)) < 200).reshape(3, CELL).any(1).all()  # words over every column
    with pytest.raises(ValueError, match=r"maps: expected cross of shape \(M, 1, 3\), got \(2, 2, 3\)"):
        attention_figure({"cross": weights}, {"cross": Words(["a"], ["b", "c", "d"])})
