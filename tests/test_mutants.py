"""Planted bugs: each must be caught by the check that is named beside it.

A check that nothing can fail proves nothing. Every mutant is a sound model of the zoo with one bug put in; the named
checks pass before and fail after. Every check of the suite catches at least one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from seriatim import distributions, engine, noise
from seriatim.autoregressive import Autoregressive
from seriatim.context import Labels
from seriatim.controls import EXACT, Controls
from seriatim.distributions import Mixture
from seriatim.engine import loops, samplers
from seriatim.heads import Bernoulli, Categorical, Normal
from seriatim.layers import GRU, LSTM, CausalConv1d, MaskedConv2d, MaskedLinear, attention, linear
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE
from seriatim.models.fvsbn import TriangularLinear
from seriatim.order import Order
from seriatim.testing import CHECKS, check, contract, law
from zoo import ZOO, Positions, model_of, randomised

Spoil = Callable[[AutoregressiveModel, pytest.MonkeyPatch], None]


class Mutant(NamedTuple):
    """A bug: the model it is put into, how, and the checks that must fail."""

    make: Callable[[], Any]
    spoil: Spoil
    caught_by: tuple[str, ...]


def failing(made: Any, only: tuple[str, ...] | None = None) -> set[str]:
    model, context = made if isinstance(made, tuple) else (made, None)
    return {result.name for result in check(model, context=context, only=only).results if result.status == "failed"}


def assert_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The named checks pass on the sound model and fail on the spoiled one."""
    assert failing(mutant.make(), mutant.caught_by) == set(), "the sound model passes"
    made = mutant.make()
    mutant.spoil(model_of(made), monkeypatch)
    assert failing(made, mutant.caught_by) == set(mutant.caught_by)


MUTANTS: dict[str, Mutant] = {}


def mutant(make: str | Callable[[], Any], *caught_by: str) -> Callable[[Spoil], Spoil]:
    """Enter a bug into the table under the name of its function."""

    def enter(spoil: Spoil) -> Spoil:
        made = ZOO[make] if isinstance(make, str) else make
        MUTANTS[spoil.__name__] = Mutant(made, spoil, caught_by)
        return spoil

    return enter


# ---- masks and receptive fields


def masked(model: AutoregressiveModel) -> Iterator[tuple[MaskedLinear, Tensor, Tensor]]:
    """Each masked layer with the position that owns each of its inputs, and each of its outputs."""
    for layer in model.modules():
        if isinstance(layer, MaskedLinear):
            owners = []
            for ends in (layer.in_ends, layer.out_ends):
                counts = torch.tensor(ends).diff()
                owners.append(torch.arange(len(counts)).repeat_interleave(counts))
            yield layer, owners[0], owners[1][:, None]


def made_without_direct() -> AutoregressiveModel:
    """A MADE whose hidden units alone carry every dependency."""
    model = randomised(MADE((4,), hidden_features=(24, 24)))
    nn.init.zeros_(model.network.direct.weight)
    return model


@mutant("made_residual_scan", "causality", "normalisation", "chunks")
def mask_forgotten(model, monkeypatch):
    for layer, _, _ in masked(model):
        layer.mask.fill_(True)


@mutant("fvsbn", "causality")
def degree_too_permissive(model, monkeypatch):
    for layer, reads, writes in masked(model):
        layer.mask.copy_(reads <= writes + 1)


@mutant(made_without_direct, "causality")
def hidden_degree_too_permissive(model, monkeypatch):
    layer, reads, writes = list(masked(model))[1]
    layer.mask.copy_(reads <= writes + 1)


@mutant("fvsbn", "receptive_field")
def degree_too_strict(model, monkeypatch):
    for layer, reads, writes in masked(model):
        layer.mask.copy_(reads < writes)


@mutant(made_without_direct, "receptive_field")
def hidden_degree_too_strict(model, monkeypatch):
    layer, reads, writes = list(masked(model))[1]
    layer.mask.copy_(reads < writes)


@mutant("masked_images", "causality")
def mask_b_in_the_first_layer(model, monkeypatch):
    layer = MaskedConv2d("B", 1, 6, shape=(3, 3), kernel_size=3)
    layer.mask = "A"  # the taps of B, the bookkeeping of A: the centre is the value to predict
    model.network.layers[0] = layer


class WithoutTap(nn.Module):
    """A kernel without the pixel above to the right: no other tap leads there, so it is never seen."""

    def forward(self, weight: Tensor) -> Tensor:
        seen = torch.ones_like(weight)
        seen[:, 2] = 0
        return weight * seen


@mutant("masked_images", "receptive_field")
def blind_spot(model, monkeypatch):
    parametrize.register_parametrization(model.network.layers[0].linear, "weight", WithoutTap())


@mutant("masked_images_scan", "causality")
def image_read_in_another_order_than_written(model, monkeypatch):
    def from_the_end(self, x, state):
        y, state = advance(self, x, state)
        return (y.flip(1) if x.shape[1] == 8 else y), state

    advance = MaskedConv2d.advance
    monkeypatch.setattr(MaskedConv2d, "advance", from_the_end)


# ---- the shift and the order


@mutant("gru_permuted", "causality", "normalisation")
def start_shift_missing(model, monkeypatch):
    def unshifted(self, x, order):
        return self.cast(self.head.encode(x, order.permutation))

    monkeypatch.setattr(AutoregressiveModel, "shifted", unshifted)


@mutant("fvsbn_labels_permuted", "sample_law", "forced_rollout")
def order_inverted_wrongly(model, monkeypatch):
    def to_data(self, sequence):
        return sequence.index_select(1, self.permutation).unflatten(1, self.shape)

    monkeypatch.setattr(Order, "to_data", to_data)


@mutant("gru_permuted", "forced_rollout")
def terms_left_in_positions(model, monkeypatch):
    def log_prob_terms(self, value):
        x, params, _ = self._params(value)
        return self.model.head(params, self.order.permutation).log_prob(x).unflatten(-1, self.order.shape)

    monkeypatch.setattr(Autoregressive, "log_prob_terms", log_prob_terms)


@mutant("made_columns", "forced_rollout")
def head_told_positions_for_variables(model, monkeypatch):
    def rollout(distribution, choose, *, prefix=None):
        head, order = distribution.model.head, distribution.order
        inner = type(head).forward
        with monkeypatch.context() as patch:
            patch.setattr(
                type(head), "forward", lambda self, p, v=None: inner(self, p, v if len(v) > 1 else order.inverse[v])
            )
            yield from real(distribution, choose, prefix=prefix)

    real = law.rollout
    monkeypatch.setattr(law, "rollout", rollout)


# ---- states


@mutant("dilated_labels", "chunks", "recompute", "forced_rollout")
def conv_buffer_late(model, monkeypatch):
    def late(self, x, state):
        seen = torch.cat([state["past"], x], dim=1)
        y, after = advance(self, x, state)
        return y, {**after, "past": seen[:, x.shape[1] - 1 : -1]}

    advance = CausalConv1d.advance
    monkeypatch.setattr(CausalConv1d, "advance", late)


@mutant("dilated_labels", "chunks", "recompute", "forced_rollout")
def conv_buffer_too_short(model, monkeypatch):
    def short(self, x, state):
        y, after = advance(self, x, state)
        return y, {**after, "past": F.pad(after["past"][:, 1:], (0, 0, 1, 0))}

    advance = CausalConv1d.advance
    monkeypatch.setattr(CausalConv1d, "advance", short)


@mutant("decoder", "chunks", "forced_rollout", "sample_law")
def position_without_offset(model, monkeypatch):
    monkeypatch.setattr(Positions, "advance", lambda self, x, state: (x + self.table[: x.shape[1]], state))


@mutant("lstm_vector", "chunks", "fork")
def state_dropped(model, monkeypatch):
    def forgetful(self, x, state):
        return advance(self, x, {"h": torch.zeros_like(state["h"])})

    advance = LSTM.advance
    monkeypatch.setattr(LSTM, "advance", forgetful)


@mutant("lstm_two_layers", "chunks")
def state_of_the_second_layer_dropped(model, monkeypatch):
    def forgetful(self, x, state):
        y, after = advance(self, x, state)
        return y, {"h": torch.cat([after["h"][:, :, :1], torch.zeros_like(after["h"][:, :, 1:])], dim=2)}

    advance = LSTM.advance
    monkeypatch.setattr(LSTM, "advance", forgetful)


@mutant("gru_permuted", "chunks")
def state_cut_from_the_gradient(model, monkeypatch):
    def cut(self, x, state):
        y, after = advance(self, x, state)
        return y, {"h": after["h"].detach()}

    advance = GRU.advance
    monkeypatch.setattr(GRU, "advance", cut)


@mutant("decoder", "causality")
def attention_mask_forgotten(model, monkeypatch):
    def unmasked(q, k, v, num_heads, *, causal_from=None, mask=None):
        return attend(q, k, v, num_heads, mask=mask)

    attend = attention._attend
    monkeypatch.setattr(attention, "_attend", unmasked)


@mutant("decoder", "chunks")
def attention_mask_forgotten_in_prefill(model, monkeypatch):
    def unmasked(q, k, v, num_heads, *, causal_from=None, mask=None):
        return attend(q, k, v, num_heads, causal_from=causal_from if causal_from == 0 else None, mask=mask)

    attend = attention._attend
    monkeypatch.setattr(attention, "_attend", unmasked)


@mutant("decoder", "chunks")
def attention_mask_without_offset(model, monkeypatch):
    def from_zero(q, k, v, num_heads, *, causal_from=None, mask=None):
        if causal_from:
            mask = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril()
        return attend(q, k, v, num_heads, causal_from=0 if causal_from == 0 else None, mask=mask)

    attend = attention._attend
    monkeypatch.setattr(attention, "_attend", from_zero)


@mutant("fvsbn", "fork")
def state_written_with_gradients_on(model, monkeypatch):
    def in_place(buffer, start, values):
        buffer[:, start : start + values.shape[1]] = values
        return buffer

    monkeypatch.setattr(linear, "write", in_place)


@mutant("fvsbn", "fork")
def branches_of_one_buffer(model, monkeypatch):
    monkeypatch.setattr(law, "clone", lambda state: state)


@mutant("gru_permuted", "fork")
def state_hidden_in_the_module(model, monkeypatch):
    def initial_state(self, *args, **kwargs):
        self.hidden = initial(self, *args, **kwargs)
        return self.hidden

    def advance(self, x, state):
        if self.hidden["h"].shape != state["h"].shape:
            self.hidden = state
        y, self.hidden = real(self, x, self.hidden)
        return y, self.hidden

    initial, real = GRU.initial_state, GRU.advance
    monkeypatch.setattr(GRU, "initial_state", initial_state)
    monkeypatch.setattr(GRU, "advance", advance)


# ---- rows of a batch


@mutant("fvsbn", "rows_alone", "rows_apart")
def statistics_of_the_batch(model, monkeypatch):
    def normalised(self, x, state):
        y, state = advance(self, x, state)
        return y - y.mean(0), state

    advance = TriangularLinear.advance
    monkeypatch.setattr(TriangularLinear, "advance", normalised)


@mutant("fvsbn", "rows_apart")
def zero_times_the_neighbours(model, monkeypatch):
    def touched(self, x, state):
        y, state = advance(self, x, state)
        return y + 0 * x.sum(), state

    advance = TriangularLinear.advance
    monkeypatch.setattr(TriangularLinear, "advance", touched)


# ---- heads and noise


@mutant("fvsbn", "point_mass")
def sigmoid_twice(model, monkeypatch):
    def doubled(self, params, variables=None):
        return forward(self, torch.sigmoid(params), variables)

    forward = Bernoulli.forward
    monkeypatch.setattr(Bernoulli, "forward", doubled)
    monkeypatch.delitem(engine.samplers._SAMPLERS, Bernoulli)  # the native engine has a sampler of its own


@mutant("rnn_labels", "point_mass")
def softmax_twice(model, monkeypatch):
    def doubled(self, params, variables=None):
        return forward(self, torch.softmax(params, -1), variables)

    forward = Categorical.forward
    monkeypatch.setattr(Categorical, "forward", doubled)
    monkeypatch.delitem(engine.samplers._SAMPLERS, Categorical)  # the native engine has a sampler of its own


@mutant("lstm_vector", "normalisation")
def log_scale_forgotten(model, monkeypatch):
    def unscaled(self, value):
        return log_prob(self, value) + self.scale.log()

    log_prob = distributions.Logistic.log_prob
    monkeypatch.setattr(distributions.Logistic, "log_prob", unscaled)


@mutant("nade_mixture_random", "normalisation")
def mixture_weights_not_normalised(model, monkeypatch):
    def init(self, logits, components, validate_args=None):
        real(self, logits, components, validate_args)
        self.logits = logits

    real = Mixture.__init__
    monkeypatch.setattr(Mixture, "__init__", init)


@mutant("made_quantized_labels", "normalisation")
def edge_bins_without_tails(model, monkeypatch):
    def log_prob(self, value):
        return distributions.QuantizedLogistic(self.loc, self.scale).log_prob(value)

    real = distributions.QuantizedLogistic.log_prob
    monkeypatch.setattr(
        distributions.QuantizedLogistic,
        "log_prob",
        lambda self, value: real(self, value) if self.levels is None else log_prob(self, value),
    )


@mutant("made_gaussian_vectors", "normalisation")
def covariance_forgotten(model, monkeypatch):
    def log_prob(self, value):
        return torch.distributions.Normal(self.loc, self.variance.sqrt()).log_prob(value).sum(-1) * 0.9

    monkeypatch.setattr(distributions.MultivariateNormal, "log_prob", log_prob)


@mutant("fvsbn", "sample_law")
def complement_sampled(model, monkeypatch):
    def flipped(self, u):
        return (u[..., 0] < torch.sigmoid(-self.logits)).to(self.logits.dtype)

    monkeypatch.setattr(distributions.Bernoulli, "from_uniforms", flipped)


@mutant("lstm_vector", "sample_law")
def samples_too_narrow(model, monkeypatch):
    def narrow(self, u):
        return self.loc + 0.9 * self.scale * torch.logit(u[..., 0])

    monkeypatch.setattr(distributions.Logistic, "from_uniforms", narrow)


@mutant("lstm_vector", "sample_law", "inverse_transform")
def noise_shared_by_positions(model, monkeypatch):
    def uniforms(seed, rows, positions, num_lanes):
        return real(seed, rows, torch.zeros_like(positions), num_lanes)

    real = noise.uniforms
    monkeypatch.setattr(noise, "uniforms", uniforms)


@mutant("fvsbn", "addressed_noise", "inverse_transform")
def noise_drawn_not_addressed(model, monkeypatch):
    def uniforms(seed, rows, positions, num_lanes):
        return torch.rand(len(rows), len(positions), num_lanes, dtype=torch.float64)

    monkeypatch.setattr(noise, "uniforms", uniforms)


@mutant("fvsbn", "addressed_noise")
def noise_of_the_place_in_the_batch(model, monkeypatch):
    def uniforms(seed, rows, positions, num_lanes):
        return real(seed, torch.arange(len(rows)), positions, num_lanes)

    real = noise.uniforms
    monkeypatch.setattr(noise, "uniforms", uniforms)


# ---- the contract


@mutant("gru_permuted", "completion")
def prefix_forgotten(model, monkeypatch):
    def rollout(distribution, choose, *, prefix=None):
        return real(distribution, choose, prefix=torch.zeros_like(prefix))

    real = contract.rollout
    monkeypatch.setattr(contract, "rollout", rollout)


@mutant("rnn_labels", "distribution")
def terms_are_not_the_whole(model, monkeypatch):
    def log_prob(self, value):
        return real(self, value) + 1e-3

    real = Autoregressive.log_prob
    monkeypatch.setattr(Autoregressive, "log_prob", log_prob)


@mutant("rnn_labels", "context")
def context_ignored(model, monkeypatch):
    forward = Labels.forward
    monkeypatch.setattr(Labels, "forward", lambda self, context: torch.zeros_like(forward(self, context)))


@mutant("made_quantized_labels", "gradients")
def parameter_without_use(model, monkeypatch):
    model.network.forgotten = nn.Parameter(torch.zeros(3))


@mutant("nade_labels", "gradients")
def output_detached_from_a_weight(model, monkeypatch):
    def start(self, batch_size, context=None, max_length=None):
        state = initial_state(self, batch_size, context, max_length)
        return {**state, "sum": state["sum"].detach()}

    cls = type(model.network)
    initial_state = cls.initial_state
    monkeypatch.setattr(cls, "initial_state", start)


class Drawn(FVSBN):
    """A model with a number that is drawn in its constructor and not saved."""

    def __init__(self, event_shape: tuple[int, ...]) -> None:
        super().__init__(event_shape)
        self.drawn = float(torch.rand(()))

    def shifted(self, x: Tensor, order: Order) -> Tensor:
        return super().shifted(x, order) * (self.drawn if Drawn.counts else 1.0)

    counts = False


@mutant(lambda: randomised(Drawn((4,))), "storage")
def number_not_saved(model, monkeypatch):
    monkeypatch.setattr(Drawn, "counts", True)


@mutant("fvsbn", "bad_input")
def values_not_validated(model, monkeypatch):
    monkeypatch.setattr(Autoregressive, "_validate_sample", lambda self, value: None)


@mutant("rnn_labels", "bad_input")
def missing_context_taken_for_zeros(model, monkeypatch):
    def init(self, model, context=None, order=None, validate_args=None):
        if context is None and model.encoder is not None:
            context = torch.zeros((), dtype=torch.int64)
        real(self, model, context, order, validate_args)

    real = Autoregressive.__init__
    monkeypatch.setattr(Autoregressive, "__init__", init)


# ---- the native engine


def convolution() -> AutoregressiveModel:
    """A model that lowers to the engine: a dilated convolution over symbols."""
    return randomised(AutoregressiveModel(CausalConv1d(3, 3, 2, dilation=2), Categorical(3), Order((6,))))


@mutant(convolution, "native_engine")
def taps_lowered_in_the_wrong_order(model, monkeypatch):
    def lower(layer, tape, x):
        x = tape.history(x, layer.reach, lambda state: state["past"])
        weights = layer.taps.weight.split(layer.in_features, dim=1)
        return tape.linear([(x.lag(0), weights[0]), (x.lag(layer.reach), weights[1])], layer.taps.bias)

    monkeypatch.setattr(CausalConv1d, "lower", lower)


def other_controls(monkeypatch: pytest.MonkeyPatch, change: Callable[[Controls], Controls]) -> None:
    """Put other controls on the tape than those that were asked for."""

    def controlled(tape, values, params, place, **options):
        real(tape, values, params, replace(place, controls=change(place.controls)), **options)

    real = samplers.controlled
    monkeypatch.setattr(samplers, "controlled", controlled)


@mutant(convolution, "native_engine")
def temperature_forgotten_on_the_tape(model, monkeypatch):
    other_controls(monkeypatch, lambda own: Controls(1.0, own.top_k, own.top_p, own.min_p))


@mutant(convolution, "native_engine")
def one_value_too_many_kept_on_the_tape(model, monkeypatch):
    other_controls(monkeypatch, lambda own: replace(own, top_k=own.top_k and own.top_k + 1))


@mutant("rnn_ending", "native_engine")
def end_left_out_of_the_cut_on_the_tape(model, monkeypatch):
    def ending(tape, head, mark, params, place):
        with pytest.MonkeyPatch.context() as inner:
            draw = samplers.draw
            inner.setattr(samplers, "draw", lambda *own: draw(*own[:3], replace(own[3], controls=place.controls)))
            real(tape, head, mark, params, replace(place, controls=EXACT))

    real = loops.ending
    monkeypatch.setattr(loops, "ending", ending)


def reals() -> AutoregressiveModel:
    """A model of real numbers that lowers to the engine."""
    return randomised(AutoregressiveModel(CausalConv1d(1, 2, 2), Normal(), Order((6,))))


@mutant(reals, "native_engine")
def widened_by_the_temperature_and_not_its_root(model, monkeypatch):
    def widening(head, place):
        factor, place = real(head, place)
        return factor**2, place

    real = samplers._widening
    monkeypatch.setattr(samplers, "_widening", widening)


@mutant(convolution, "native_engine")
def values_told_to_a_stepper_one_position_late(model, monkeypatch):
    def late(self, value=None):
        value, self.before = getattr(self, "before", None), value
        return advance(self, value)

    advance = engine.Stepper.advance
    monkeypatch.setattr(engine.Stepper, "advance", late)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_caught_by_the_named_checks(name, monkeypatch):
    assert_caught(MUTANTS[name], monkeypatch)


def test_every_check_catches_a_planted_bug():
    assert {name for bug in MUTANTS.values() for name in bug.caught_by} == set(CHECKS)


@pytest.mark.parametrize("name", ["sigmoid_twice", "softmax_twice"])
def test_only_the_point_mass_finds_a_double_link(name, monkeypatch):
    make, spoil, _ = MUTANTS[name]
    model = make()
    spoil(model, monkeypatch)
    assert failing(model) == {"point_mass"}


@pytest.mark.parametrize(
    "name", ["conv_buffer_late", "conv_buffer_too_short", "position_without_offset", "state_dropped"]
)
def test_causality_and_normalisation_miss_a_bug_of_the_step_form(name, monkeypatch):
    make, spoil, _ = MUTANTS[name]
    model = make()
    spoil(model, monkeypatch)
    assert failing(model, ("causality", "normalisation", "receptive_field")) == set()
