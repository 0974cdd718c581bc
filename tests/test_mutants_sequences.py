"""Planted bugs of models of sequences: each must be caught by the check that is named beside it.

Some leave a sound distribution behind, which is only not the one that was meant: the conformance suite cannot see
those, the tests of the models do.
"""

from __future__ import annotations

import pytest
import torch

import test_models_sequences as tests
from seriatim.context import Frames
from seriatim.ending import UntilEnd, ValueOrEnd
from seriatim.layers import CausalConv1d, VariationalDropout
from seriatim.models import GRU
from seriatim.models.wavenet import DilatedStack, Upsampling
from test_mutants import Mutant, assert_caught
from zoo import ZOO, randomised

MUTANTS = {}
MEANINGS = {}


def mutant(make, *caught_by):
    """Enter a bug that the conformance suite catches under the name of its function."""

    def enter(spoil):
        MUTANTS[spoil.__name__] = Mutant(ZOO[make], spoil, caught_by)
        return spoil

    return enter


def meaning(make, test):
    """Enter a bug that a test of the models catches."""

    def enter(spoil):
        MEANINGS[spoil.__name__] = (make, spoil, test)
        return spoil

    return enter


def not_absorbing(self, x, state):
    return self.network(x, state)


@meaning(tests.ending, tests.assert_the_end_is_absorbing)
def end_not_absorbing(model, monkeypatch):
    monkeypatch.setattr(UntilEnd, "advance", not_absorbing)


@meaning(tests.ending, tests.assert_the_end_is_absorbing)
def stop_flag_read_one_late(model, monkeypatch):
    advance = UntilEnd.advance

    def late(self, x, state):
        return advance(self, torch.cat([x[..., :-1], x[..., -1:].roll(1, dims=1)], dim=-1), state)

    monkeypatch.setattr(UntilEnd, "advance", late)


@mutant("lstm_ending", "normalisation", "sample_law")
def values_at_full_probability_beside_the_end(model, monkeypatch):
    def whole(self, value):
        log_value, log_stop = self.log_prob_parts(value)
        return torch.where(self.head.ended(value), log_stop, log_value)

    monkeypatch.setattr(ValueOrEnd, "log_prob", whole)


@mutant("lstm_ending", "sample_law")
def one_uniform_for_the_end_and_the_value(model, monkeypatch):
    from_uniforms = ValueOrEnd.from_uniforms
    monkeypatch.setattr(ValueOrEnd, "from_uniforms", lambda self, u: from_uniforms(self, u[..., :1].expand_as(u)))


@mutant("wavenet_ending", "causality", "normalisation")
def end_told_before_it_comes(model, monkeypatch):
    advance = UntilEnd.advance

    def early(self, x, state):
        return advance(self, torch.cat([x[..., :-1], x[..., -1:].roll(-1, dims=1)], dim=-1), state)

    monkeypatch.setattr(UntilEnd, "advance", early)


@mutant("wavenet", "chunks", "recompute", "forced_rollout")
def dilation_ring_off_by_one(model, monkeypatch):
    advance = CausalConv1d.advance

    def off(self, x, state):
        y, after = advance(self, x, state)
        return y, {**after, "past": after["past"].roll(1, dims=1)} if self.dilation > 1 else after

    monkeypatch.setattr(CausalConv1d, "advance", off)


@mutant("wavenet_frames", "chunks", "recompute", "forced_rollout")
def frames_counted_from_the_chunk(model, monkeypatch):
    heard = DilatedStack._heard

    def counted(self, state, n):
        return heard(self, {**state, "position": torch.zeros_like(state["position"])}, n)

    monkeypatch.setattr(DilatedStack, "_heard", counted)


@meaning(lambda: tests.wavenet(24, encoder=Frames(2, hop=4)), tests.assert_frames_are_heard_at_their_positions)
def frames_shifted_by_one(model, monkeypatch):
    forward = Upsampling.forward
    monkeypatch.setattr(Upsampling, "forward", lambda self, frames: forward(self, frames).roll(1, dims=1))


@meaning(
    lambda: randomised(GRU((6,), hidden_features=8, variational_dropout=0.5)).double(), tests.assert_one_mask_over_time
)
def variational_mask_redrawn_for_each_chunk(model, monkeypatch):
    def redrawn(self, x, state):
        return x * self.initial_state(x.shape[0])["mask"], state

    monkeypatch.setattr(VariationalDropout, "advance", redrawn)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_by_the_named_checks(name, monkeypatch):
    assert_caught(MUTANTS[name], monkeypatch)


@pytest.mark.parametrize("name", MEANINGS)
def test_a_bug_that_leaves_a_distribution_is_caught_by_the_tests_of_the_model(name, monkeypatch):
    make, spoil, test = MEANINGS[name]
    test(make())
    model = make()
    spoil(model, monkeypatch)
    with pytest.raises(AssertionError):
        test(model)
