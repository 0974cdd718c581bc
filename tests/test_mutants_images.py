"""Planted bugs of image models: each must be caught by the check that is named beside it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seriatim.channels import ChannelMixture
from seriatim.distributions import QuantizedLogistic
from seriatim.layers.image_lstm import DiagonalBiLSTMLayer, RowLSTMLayer
from seriatim.layers.raster import MaskedConv2d
from seriatim.layers.scan import diagonal_scan, row_scan
from seriatim.models import DiagonalBiLSTM, GatedPixelCNN
from seriatim.models.gated_pixelcnn import GatedStacks, Stacks
from test_mutants import Mutant, assert_caught
from zoo import ZOO, randomised

MUTANTS = {}


def mutant(make, *caught_by):
    """Enter a bug into the table under the name of its function."""

    def enter(spoil):
        MUTANTS[spoil.__name__] = Mutant(ZOO[make] if isinstance(make, str) else make, spoil, caught_by)
        return spoil

    return enter


@mutant("diagonal_bilstm", "causality", "normalisation")
def right_hand_map_not_shifted(model, monkeypatch):
    def unshifted(x, pad):
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, 1)) if pad == (0, 0, 0, 0, 0, 0, 1, 0) else F.pad(x, pad)

    class Unshifted:
        pad = staticmethod(unshifted)

    monkeypatch.setattr("seriatim.layers.image_lstm.F", Unshifted)


@mutant("diagonal_bilstm", "chunks", "recompute", "forced_rollout")
def right_hand_map_one_row_late(model, monkeypatch):
    def late(self, gates, above):
        return above

    monkeypatch.setattr(DiagonalBiLSTMLayer, "_right", late)


@mutant("diagonal_bilstm_subpixel_vector", "chunks", "recompute")
def pixel_beside_taken_from_the_row_above(model, monkeypatch):
    left = DiagonalBiLSTMLayer._left

    def confused(self, gates, place, above, row):
        return left(self, gates, place, above, {**row, "left": above})

    monkeypatch.setattr(DiagonalBiLSTMLayer, "_left", confused)


@mutant(lambda: randomised(DiagonalBiLSTM((4, 4), hidden_features=3, num_layers=1)), "receptive_field")
def left_direction_alone(model, monkeypatch):
    alone = torch.tensor([1.0, 0.0])[:, None, None, None, None]
    monkeypatch.setattr("seriatim.layers.image_lstm.diagonal_scan", lambda *read: diagonal_scan(*read) * alone)
    seven = model.network.layers[1].branches[0].linear.weight
    seven.data[:] = 0  # the first layer's window hides the loss in so small an image


@mutant("row_lstm", "chunks", "recompute", "forced_rollout")
def cells_of_the_row_above_dropped_in_the_step(model, monkeypatch):
    advance = RowLSTMLayer.advance

    def dropped(self, x, state):
        y, after = advance(self, x, state)
        return y, {**after, "above": {**after["above"], "cell": torch.zeros_like(after["above"]["cell"])}}

    monkeypatch.setattr(RowLSTMLayer, "advance", dropped)


@mutant("row_lstm", "causality")
def row_lstm_reads_to_the_right(model, monkeypatch):
    def ahead(x, *read):
        return row_scan(x + F.pad(x[:, :, 1:], (0, 0, 0, 1)), *read)

    monkeypatch.setattr("seriatim.layers.image_lstm.row_scan", ahead)


@mutant("gated_pixelcnn", "causality", "normalisation")
def vertical_stack_sees_its_own_row(model, monkeypatch):
    rows = GatedStacks._rows

    def own_row(self, x, pending, start):
        above, waiting = rows(self, x, pending, start)
        return above.roll(-1, dims=1), waiting

    monkeypatch.setattr(GatedStacks, "_rows", own_row)


@mutant(lambda: randomised(GatedPixelCNN((4, 5), hidden_features=3, num_layers=2)), "receptive_field")
def vertical_stack_not_linked(model, monkeypatch):
    for module in model.modules():
        if isinstance(module, Stacks):
            nn.init.zeros_(module.link.weight)


@mutant("gated_pixelcnn", "chunks", "recompute", "forced_rollout")
def message_within_a_row_off_by_one(model, monkeypatch):
    forward = Stacks.forward

    def off(self, v, h, state, start):
        return forward(self, v, h, {**state, "message": state["message"].roll(1, dims=1)}, start)

    monkeypatch.setattr(Stacks, "forward", off)


@mutant("gated_pixelcnn", "causality")
def mask_b_in_the_first_layer_of_the_row(model, monkeypatch):
    first = model.network.first.row
    first.mask = "B"  # reads the input at t, the value at t - 1, as that of its own pixel: the next value at t + 1
    monkeypatch.setattr(first, "advance", lambda x, state: MaskedConv2d.advance(first, x.roll(-1, dims=1), state))


@mutant("gated_pixelcnn_subpixel_labels", "causality", "normalisation")
def channels_that_see_each_other(model, monkeypatch):
    for module in model.modules():
        if isinstance(module, MaskedConv2d):
            module.weight_mask.fill_(True)


@mutant("pixelcnn_subpixel_map_scan", "receptive_field")
def channels_predicted_independently(model, monkeypatch):
    for module in model.modules():
        if isinstance(module, MaskedConv2d):
            width = module.channels * module.in_features
            module.weight_mask[:, -width:] &= torch.block_diag(
                *[torch.ones(module.out_features, module.in_features) * (module.mask == "B")] * module.channels
            ).bool()


@mutant("pixelsnail", "chunks", "recompute")
def row_and_column_counted_from_the_chunk(model, monkeypatch):
    positions = model.network.layers[2]
    advance = positions.advance
    monkeypatch.setattr(positions, "advance", lambda x, state: (advance(x, torch.zeros_like(state))[0], state))


@mutant("gated_pixelcnn_channel_mixture", "normalisation", "sample_law")
def a_channel_that_moves_its_own_mean(model, monkeypatch):
    given = ChannelMixture.given
    monkeypatch.setattr(ChannelMixture, "given", lambda self, value: given(self, value.roll(-1, dims=-2)))


@mutant("pixelcnn_channel_mixture_labels", "sample_law")
def coefficients_of_the_wrong_channel_in_samples(model, monkeypatch):
    from_uniforms = ChannelMixture.from_uniforms

    def confused(self, u):
        other = ChannelMixture(self.logits, self.means, self.scales, self.coefficients.roll(1, dims=-2), self.levels)
        return from_uniforms(other, u)

    monkeypatch.setattr(ChannelMixture, "from_uniforms", confused)


@mutant("pixelcnn_channel_mixture_labels", "normalisation")
def channels_without_their_tails(model, monkeypatch):
    given = ChannelMixture.given

    def without(self, value):
        bins = given(self, value)
        return QuantizedLogistic(bins.loc, bins.scale)

    monkeypatch.setattr(ChannelMixture, "given", without)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_by_the_named_checks(name, monkeypatch):
    assert_caught(MUTANTS[name], monkeypatch)
