"""Planted bugs of the Transformer and of beam search: each must be caught by the check or test named beside it.

Bugs that leave a sound distribution behind, only not the one that was meant, are invisible to the conformance suite:
the tests of the model catch those.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import test_models_transformer as tests
import test_tasks_beam as beams
from seriatim import autoregressive, vocabulary
from seriatim.heads import Categorical, Tokens
from seriatim.layers import (
    CrossAttention,
    LearnedPositions,
    SelfAttention,
    SinusoidalPositions,
    SourceAttention,
    attention,
    positions,
)
from seriatim.layers.source import SourceEncoder
from seriatim.models.transformer import Decoder
from seriatim.tasks import beam
from test_mutants import Mutant, assert_caught
from zoo import ZOO

MUTANTS = {}
MEANINGS = {}


def mutant(make, *caught_by):
    """Enter a bug that the conformance suite catches under the name of its function."""

    def enter(spoil):
        MUTANTS[spoil.__name__] = Mutant(ZOO[make], spoil, caught_by)
        return spoil

    return enter


def meaning(test, *makes):
    """Enter a bug that a test catches, given what the functions make."""

    def enter(spoil):
        MEANINGS[spoil.__name__] = (test, makes, spoil)
        return spoil

    return enter


# ---- the conformance suite


@mutant("transformer_source", "causality", "normalisation")
def mask_forgotten(model, monkeypatch):
    attend = attention._attend

    def unmasked(q, k, v, num_heads, *, causal_from=None, mask=None):
        return attend(q, k, v, num_heads, mask=mask)

    monkeypatch.setattr(attention, "_attend", unmasked)


def without_offset(layer, monkeypatch):
    vectors = layer.vectors
    monkeypatch.setattr(layer, "vectors", lambda self, start, n: vectors(self, 0, n))


@mutant("transformer_permuted", "chunks", "recompute", "forced_rollout")
def sinusoids_without_offset(model, monkeypatch):
    without_offset(SinusoidalPositions, monkeypatch)


@mutant("transformer_learned_tokens", "chunks", "recompute", "forced_rollout")
def learned_positions_without_offset(model, monkeypatch):
    without_offset(LearnedPositions, monkeypatch)


@mutant("transformer_rotary_tied", "chunks", "recompute", "forced_rollout")
def rotation_without_offset(model, monkeypatch):
    monkeypatch.setattr(attention, "rotate", lambda x, start: positions.rotate(x, 0))


@mutant("transformer_permuted", "chunks", "recompute", "forced_rollout")
def start_symbol_at_every_chunk(model, monkeypatch):
    advance = Decoder.advance

    def started(self, x, state):
        y, after = advance(self, x, {**state, "position": torch.zeros_like(state["position"])})
        return y, after

    monkeypatch.setattr(Decoder, "advance", started)


@mutant("transformer_source", "rows_alone")
def padding_of_the_source_read_by_the_encoder(model, monkeypatch):
    forward = SourceAttention.forward
    monkeypatch.setattr(SourceAttention, "forward", lambda self, x, mask: forward(self, x, torch.ones_like(mask)))


@mutant("transformer_source_rotary_tied", "rows_alone")
def padding_of_the_source_summed_with_the_nearest(model, monkeypatch):
    summed = SourceEncoder._with_nearest
    monkeypatch.setattr(SourceEncoder, "_with_nearest", lambda self, x, mask: summed(self, x, torch.ones_like(mask)))


@mutant("transformer_source", "rows_alone")
def padding_of_the_source_read_by_the_decoder(model, monkeypatch):
    initial_state = CrossAttention.initial_state

    def unmasked(self, batch_size, context=None, max_length=None):
        return initial_state(self, batch_size, (context[0], torch.ones_like(context[1])), max_length)

    monkeypatch.setattr(CrossAttention, "initial_state", unmasked)


@mutant("transformer_source", "fork")
def keys_and_values_not_reordered(model, monkeypatch):
    """They are kept in the layer, where `select` does not reach them."""

    def initial_state(self, *args):
        state = first(self, *args)
        self.kept = {name: state.pop(name) for name in ("keys", "values")}
        return state

    def hidden(self, x, state):
        y, after = advance(self, x, {**state, **self.kept})
        self.kept = {name: after.pop(name) for name in ("keys", "values")}
        return y, after

    first, advance = SelfAttention.initial_state, SelfAttention.advance
    monkeypatch.setattr(SelfAttention, "initial_state", initial_state)
    monkeypatch.setattr(SelfAttention, "advance", hidden)


@mutant("transformer_permuted", "fork")
def keys_written_in_place_with_gradients_on(model, monkeypatch):
    def in_place(buffer, start, values):
        buffer.data[:, start : start + values.shape[1]] = values.data
        return buffer

    monkeypatch.setattr(attention, "_append", in_place)


@mutant("transformer_learned_tokens", "gradients")
def gradient_of_tokens_lost(model, monkeypatch):
    terms = vocabulary.token_terms
    monkeypatch.setattr(vocabulary, "token_terms", lambda params, *given, **options: terms(params.detach(), *given))


@mutant("transformer_source", "normalisation", "sample_law")
def token_before_the_one_meant(model, monkeypatch):
    def before(params, value, ended=None, *, mean=False):
        return terms(params, (value - 1).clamp_min(0), ended)

    terms = vocabulary.token_terms
    monkeypatch.setattr(vocabulary, "token_terms", before)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_by_the_named_checks(name, monkeypatch):
    assert_caught(MUTANTS[name], monkeypatch)


# ---- the tests of the model and of the search


@meaning(tests.assert_padding_never_leaks, tests.translator)
def padding_leaks_in_both_attentions(model, monkeypatch):
    padding_of_the_source_read_by_the_encoder(model, monkeypatch)
    padding_of_the_source_read_by_the_decoder(model, monkeypatch)


@meaning(tests.assert_padding_never_leaks, tests.translator)
def padding_read_as_the_first_symbol(model, monkeypatch):
    forward = SourceEncoder.forward
    monkeypatch.setattr(SourceEncoder, "forward", lambda self, context: forward(self, context.clamp_min(0)))


def one_model_in_two_codes():
    return tuple(tests.transformer(6, head, tied=True) for head in (Tokens(4), Categorical(4)))


@meaning(lambda pair: tests.assert_the_same_model(*pair), one_model_in_two_codes)
def codes_off_by_one(pair, monkeypatch):
    encode = Tokens.encode
    monkeypatch.setattr(Tokens, "encode", lambda self, values, variables=None: encode(self, values - 1).clamp_min(0))


@meaning(beams.assert_exhaustive, beams.translator)
def hypotheses_not_reordered(model, monkeypatch):
    go_on = beam._Search.go_on

    def stuck(self, position, best):
        before = self.values
        value, rows = go_on(self, position, best)
        if rows is not None and len(rows):
            self.values = np.concatenate([before[np.sort(rows)], value[:, None]], axis=1)
        return value, rows

    monkeypatch.setattr(beam._Search, "go_on", stuck)


@meaning(beams.assert_exhaustive, beams.translator)
def state_not_reordered(model, monkeypatch):
    select = autoregressive.select
    monkeypatch.setattr(autoregressive, "select", lambda state, rows: select(state, rows.sort().values))


@meaning(beams.assert_exhaustive, beams.translator)
def end_without_its_price(model, monkeypatch):
    ranked = beam._Search._ranked

    def free(self, best):
        log_prob, rows, values, source = ranked(self, best)
        return np.where(values < 0, self.log_prob[rows], log_prob), rows, values, source

    monkeypatch.setattr(beam._Search, "_ranked", free)


@meaning(beams.assert_exhaustive, beams.translator)
def penalty_of_the_values_alone(model, monkeypatch):
    penalty = beam._Search._penalty
    monkeypatch.setattr(beam._Search, "_penalty", lambda self, length: penalty(self, length - 1))


@meaning(beams.assert_exhaustive, beams.translator)
def search_stopped_by_the_penalty_of_the_present_length(model, monkeypatch):
    settled = beam._Search._settled

    def early(self, source, best, position):
        length, self.length = self.length, position + 1
        done = settled(self, source, best, position - 1)
        self.length = length
        return done

    monkeypatch.setattr(beam._Search, "_settled", early)


@pytest.mark.parametrize("name", MEANINGS)
def test_a_bug_that_leaves_a_distribution_is_caught_by_the_named_test(name, monkeypatch):
    test, (make,), spoil = MEANINGS[name]
    test(make())
    model = make()
    spoil(model, monkeypatch)
    with pytest.raises(AssertionError):
        test(model)
