"""Models of sequences: any length, ends, recurrent networks, WaveNet."""

from __future__ import annotations

import math

import pytest
import torch

from seriatim.causal import Recompute, detach
from seriatim.columns import Columns
from seriatim.config import from_config
from seriatim.context import Frames, Labels, Vector
from seriatim.ending import Ending, UntilEnd
from seriatim.heads import Bernoulli, Categorical, MixtureOfNormals, Normal
from seriatim.layers import VariationalDropout
from seriatim.model import AutoregressiveModel
from seriatim.models import GRU, LSTM, MADE, MODELS, RNN, WaveNet
from seriatim.nested import Nested
from seriatim.order import Order, Scan
from seriatim.testing.case import space
from zoo import CATEGORIES, Assembled, randomised


def assembled(network, head=None, length=4, **options):
    return randomised(Assembled(network, head or Categorical(3), Order((length,)), **options)).double().eval()


# ---- any length


@pytest.mark.parametrize("network", ["rnn", "lstm2", "dilated"])
def test_a_distribution_over_another_length_is_that_of_a_model_of_that_length(network):
    short, long = assembled(network, encoder=Labels(2)), assembled(network, encoder=Labels(2), length=9)
    labels = torch.tensor([0, 1])
    p = short(labels, length=9)
    x = p.sample((3,), seed=0)
    assert p.event_shape == (9,)
    assert torch.equal(x, long(labels).sample((3,), seed=0))
    assert torch.equal(p.log_prob(x), long(labels).log_prob(x))
    assert p.log_prob_terms(x).shape == (3, 2, 9)


def test_the_first_values_of_a_long_sequence_have_the_terms_of_a_short_one():
    model = assembled("gru")
    x = model(length=7).sample((5,), seed=1)
    torch.testing.assert_close(model(length=7).log_prob_terms(x)[:, :4], model().log_prob_terms(x[:, :4]))
    torch.testing.assert_close(model(length=1).log_prob(x[:, :1]), model().log_prob_terms(x[:, :4])[:, 0])


def test_a_length_is_refused_where_it_has_no_meaning():
    refused = {
        "weights of MaskedAutoencoder belong to positions, got 5": MADE((4,), hidden_features=(4,)),
        r"Columns has a distribution for each place, got 5": assembled("rnn", Columns(CATEGORIES), length=3),
        r"the positions of Order\(\(2, 2\)\) are no plain": Assembled("rnn", Bernoulli(), Order((2, 2))),
        r"the positions of Order\(\(2,\), \[1, 0\]\) are": Assembled("rnn", Bernoulli(), Order((2,), [1, 0])),
        "weights of Recompute belong": AutoregressiveModel(Recompute(torch.nn.Identity()), Bernoulli(), Order((2,))),
    }
    for message, model in refused.items():
        with pytest.raises(ValueError, match=f"length: expected None, for {message}"):
            model(length=5)
    with pytest.raises(ValueError, match="length: expected 1 or more, got 0"):
        assembled("rnn")(length=0)


# ---- ends


def ending(kind=LSTM, length=4, head=None, **options):
    head = Ending(head or Categorical(2))
    return randomised(kind((length,), head, hidden_features=4, **options)).double().eval()


def chords():
    return Nested(MADE((2,), hidden_features=(3,), encoder=Vector(3)))


def absorbed(model):
    """The rows of the space whose values after an end are ends, and the others."""
    x = torch.stack(space(model))
    ended = model.head.ended(x)
    sound = (ended.cumsum(1).clamp(max=1) == ended).all(1)
    return x[sound], x[~sound]


def assert_the_end_is_absorbing(model):
    sound, other = absorbed(model)
    p = model().log_prob(sound).exp()
    ended = model.lengths(sound) < model.order.length
    assert (p[ended].sum() + p[~ended].sum()).item() == pytest.approx(1, abs=1e-9)
    assert 0.01 < p[~ended].sum() < 0.99
    assert bool((model().log_prob(other) == -math.inf).all())
    after = model.head.ended(sound).cumsum(1) > 1
    assert bool((model().log_prob_terms(sound)[after] == 0).all())


@pytest.mark.parametrize("head", [Categorical(2), Bernoulli(), chords()], ids=str)
@pytest.mark.parametrize("kind", [RNN, LSTM])
def test_sequences_that_ended_and_sequences_that_have_not_share_all_probability(kind, head):
    assert_the_end_is_absorbing(ending(kind, 3, head))


def test_the_probability_of_a_length_is_the_mass_of_its_rows():
    model = ending()
    sound, _ = absorbed(model)
    lengths = model.lengths(sound)
    drawn = model.lengths(model.sample((4000,), seed=0))
    for length in range(5):
        mass = model().log_prob(sound[lengths == length]).exp().sum().item()
        assert (drawn == length).double().mean().item() == pytest.approx(mass, abs=4 * math.sqrt(0.25 / 4000))


@pytest.mark.parametrize("head", [Categorical(3), Normal()], ids=str)
def test_a_padded_batch_is_the_rows_one_by_one_without_their_padding(head):
    model = ending(GRU, 8, head, encoder=Labels(2))
    labels = torch.arange(10) % 2
    x = model(labels).sample(seed=3)
    lengths = model.lengths(x)
    assert 0 < lengths.min() + 1 < lengths.max()
    whole, values = model(labels).log_prob(x), model.log_prob_parts(x, labels)[0].sum(1)
    for row, length in enumerate(lengths.tolist()):
        n = min(length + 1, 8)  # the values and one end
        own = x[row : row + 1, :n]
        assert model(labels[row : row + 1], length=n).log_prob(own).item() == pytest.approx(whole[row].item())
        parts = model.log_prob_parts(own, labels[row : row + 1])
        assert parts[0].sum().item() == pytest.approx(values[row].item())


@pytest.mark.parametrize("head", [Categorical(3), Normal(), MixtureOfNormals(2), chords()], ids=str)
def test_padding_sends_no_gradient(head):
    model, found = ending(LSTM, 6, head), []
    mark = model.head.mark
    x = torch.full((1, 6, *model.head.value_shape), mark, dtype=model.head.value_dtype or torch.float64)
    x[:, :2] = 1
    for n in (3, 6):
        model.zero_grad()
        (-model(length=n).log_prob(x[:, :n])).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert bool(found[0].isfinite().all())
    assert bool((found[0] != 0).any())
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-14)


def test_terms_are_those_of_the_values_and_those_of_the_end():
    model = ending()
    x = torch.tensor([[1, 0, -1, -1], [0, 1, 1, 0], [-1, -1, -1, -1]])
    values, stops = model.log_prob_parts(x)
    torch.testing.assert_close(values + stops, model().log_prob_terms(x))
    assert (values != 0).sum(1).tolist() == [2, 4, 0]
    assert (stops != 0).sum(1).tolist() == [3, 4, 1]
    assert model.lengths(x).tolist() == [2, 4, 0]
    assert model.lengths(x[None]).tolist() == [[2, 4, 0]]


def test_rows_are_checked_and_a_vector_ends_in_all_its_numbers():
    model = ending(RNN, 2, chords())
    with pytest.raises(ValueError, match=r"value: expected .*, or -1 for the end, got .* at \(0, 1\)"):
        model().log_prob(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
    with pytest.raises(ValueError, match="value: expected"):
        ending().log_prob(torch.tensor([[0, 2, 0, 0]]))


def test_heads_and_orders_that_cannot_end_are_refused():
    with pytest.raises(ValueError, match=r"head: expected one distribution for all places, got Columns"):
        Ending(Columns(CATEGORIES))
    with pytest.raises(ValueError, match=r"head: expected values with 0 and without -1, .*, got Ending"):
        Ending(Ending(Categorical(2)))
    for order in (Order((3,), [2, 0, 1]), Scan((2, 2))):
        with pytest.raises(ValueError, match="order: expected positions one after another"):
            LSTM(order.shape, Ending(Bernoulli()), hidden_features=2, order=order)
    with pytest.raises(ValueError, match=r"head: expected an Ending, got Bernoulli"):
        LSTM((3,), hidden_features=2).lengths(torch.zeros(1, 3))
    with pytest.raises(TypeError, match="network: expected a Causal module, got Linear"):
        UntilEnd(torch.nn.Linear(2, 2))


def test_output_biases_start_at_the_rate_of_ends_and_the_shares_of_values():
    model = LSTM((4,), Ending(Categorical(2)), hidden_features=4)
    x = torch.tensor([[1, 1, 0, -1], [1, -1, -1, -1], [1, 1, 1, 1]])
    model.initialise_output(x)
    bias = model.network.output_bias
    assert bias[0].sigmoid().item() == pytest.approx((2 + 0.5) / (10 + 1), abs=1e-6)  # 2 ends among 8 values
    assert bias[1:].softmax(0)[1].item() == pytest.approx((7 + 0.5) / (8 + 1), abs=1e-6)


# ---- recurrent networks


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm"])
def test_a_model_and_a_layer_of_one_name_are_told_apart_in_files(name):
    model = MODELS[name]((3,), Ending(Categorical(2)), hidden_features=2, norm=True, variational_dropout=0.5)
    assert model.config["class"] == name.upper()
    again = from_config(model.config)
    assert type(again) is MODELS[name]
    again.load_state_dict(model.state_dict())
    x = model.eval().sample((3,), seed=0)
    assert torch.equal(again.eval().log_prob(x), model.log_prob(x))


def test_sizes_and_rates_are_checked():
    with pytest.raises(ValueError, match="num_layers: expected 1 or more, got hidden_features 2, num_layers 0"):
        RNN((3,), hidden_features=2, num_layers=0)
    with pytest.raises(ValueError, match=r"dropout: expected a rate from 0 to below 1, got 1\.0"):
        RNN((3,), hidden_features=2, dropout=1.0)
    with pytest.raises(ValueError, match=r"rate: expected a number from 0 to below 1, got -0\.1"):
        VariationalDropout(2, -0.1)


def in_chunks(network, x, state, size, cut=lambda state: state):
    outputs = []
    for part in x.split(size, dim=1):
        y, state = network(part, cut(state))
        outputs.append(y)
    return torch.cat(outputs, dim=1)


def assert_one_mask_over_time(model):
    network = model.train().network
    x = torch.randn(3, 6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = network.initial_state(3)
        torch.testing.assert_close(in_chunks(network, x, state, 2), network(x, state)[0], rtol=1e-9, atol=1e-9)


def test_a_variational_mask_stays_the_same_over_a_sequence_and_differs_between_sequences():
    model = randomised(GRU((6,), hidden_features=8, num_layers=2, variational_dropout=0.5)).double()
    assert_one_mask_over_time(model)
    x = torch.ones(4, 6)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = model.log_prob(x), model.log_prob(x)
    assert len({*first.tolist(), *second.tolist()}) == 8
    assert torch.equal(model.eval().log_prob(x), model.log_prob(x))


def test_a_mask_keeps_the_mean():
    layer = VariationalDropout(10_000, 0.25)
    y, _ = layer(torch.ones(1, 2, 10_000))
    assert torch.equal(y[:, 0], y[:, 1])
    assert sorted(set(y.flatten().tolist())) == [0.0, pytest.approx(4 / 3)]
    assert y.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [RNN, LSTM, WaveNet])
def test_scoring_in_chunks_with_the_state_cut_is_one_pass(kind):
    model = ending(kind, 12) if kind is not WaveNet else wavenet(12, Ending(Categorical(2)))
    x = model.sample((5,), seed=0)
    u, network = model.shifted(x, model.order), model.network
    y = in_chunks(network, u, network.initial_state(5), 5, detach)
    torch.testing.assert_close(model.head(y).log_prob(x).sum(1), model().log_prob(x), rtol=1e-12, atol=1e-12)


# ---- WaveNet


def wavenet(length, head=None, **options):
    sizes = {"num_blocks": 1, "layers_per_block": 2, "residual_features": 3, "gate_features": 4, "skip_features": 4}
    return randomised(WaveNet((length,), head, **{**sizes, **options})).double().eval()


@pytest.mark.parametrize(
    ("num_blocks", "layers_per_block", "kernel_size", "field"), [(1, 1, 2, 3), (1, 3, 2, 9), (2, 2, 2, 8), (1, 2, 3, 9)]
)
def test_the_receptive_field_is_where_gradients_come_from(num_blocks, layers_per_block, kernel_size, field):
    sizes = {"num_blocks": num_blocks, "layers_per_block": layers_per_block, "kernel_size": kernel_size}
    model = wavenet(14, **sizes)
    x = torch.randn(4, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y, _ = model.network(model.shifted(x, model.order))
    y[:, -1].sum().backward()
    assert (x.grad != 0).any(0).nonzero().flatten().tolist() == list(range(13 - field, 13))
    assert model.receptive_field == field
    assert WaveNet((14,), Ending(Bernoulli()), **sizes).receptive_field == field


def test_wavenet_runs_over_any_length_with_a_context_of_that_length():
    model, long = (wavenet(n, Categorical(3), encoder=Frames(2, hop=4)) for n in (8, 13))
    frames = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    x = model(frames, length=13).sample(seed=0)
    assert torch.equal(x, long(frames).sample(seed=0))
    torch.testing.assert_close(
        model(frames).log_prob(x[:, :8]), model(frames, length=13).log_prob_terms(x)[:, :8].sum(1)
    )
    with pytest.raises(ValueError, match="context: expected frames for 17 positions or more, got frames for 16"):
        model(frames, length=17).log_prob(torch.zeros(2, 17))
    with pytest.raises(ValueError, match=r"context: expected \(\.\.\., frames, 2\), got \(2, 4, 3\)"):
        model(torch.zeros(2, 4, 3))


def assert_frames_are_heard_at_their_positions(model):
    """Frame f of hop h reaches positions f h - h/2 .. (f + 1) h + h/2 - 1, and those that see what is heard there."""
    hop, length = model.encoder.hop, model.order.length
    frames = torch.randn(32, length // hop, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    frames.requires_grad_()
    # Frames enter at each gate, so that the first convolution and that before the first gate carry them nowhere.
    sight = model.receptive_field - model.network.first.reach - model.network.convs[0].reach
    start = model.network.initial_state(32, frames, length)
    y, _ = model.network(torch.zeros(32, length, 1, dtype=torch.float64), start)
    for t in range(length):
        frames.grad = None
        y[:, t].sum().backward(retain_graph=True)
        heard = (frames.grad != 0).any(-1).any(0).nonzero().flatten().tolist()
        oldest = max(t + 1 - sight, 0)
        first = max((oldest - hop + hop // 2) // hop, 0)
        last = min((t + hop // 2) // hop, length // hop - 1)
        assert heard == list(range(first, last + 1)), t


def test_frames_are_heard_at_their_positions():
    assert_frames_are_heard_at_their_positions(wavenet(24, encoder=Frames(2, hop=4)))
    assert_frames_are_heard_at_their_positions(wavenet(9, encoder=Frames(2, hop=1)))


def test_sizes_of_wavenet_are_checked():
    with pytest.raises(ValueError, match="kernel_size: expected 2 or more, got 1"):
        wavenet(4, kernel_size=1)
    with pytest.raises(ValueError, match="num_blocks, layers_per_block: expected 1 or more, got num_blocks 0"):
        wavenet(4, num_blocks=0)
    with pytest.raises(ValueError, match="num_features, hop: expected 1 or more, got num_features 2, hop 0"):
        Frames(2, hop=0)
    with pytest.raises(ValueError, match=r"dropout: expected a rate from 0 to below 1, got 1\.0"):
        wavenet(4, dropout=1.0)


def test_dropout_of_wavenet_silences_units_in_training_only():
    model = wavenet(5, dropout=0.5).train()
    x = torch.ones(4, 5, dtype=torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = model.log_prob(x), model.log_prob(x)
    assert len({*first.tolist(), *second.tolist()}) == 8
    alike = wavenet(5).eval()
    alike.load_state_dict(model.state_dict())
    assert torch.equal(model.eval().log_prob(x), alike.log_prob(x))


def test_wavenet_with_a_label_is_another_distribution_for_each_and_native_samples_are_those_of_the_loop():
    model = wavenet(9, Categorical(3), encoder=Labels(2)).float()
    p = model(torch.tensor([0, 1]))
    x = p.sample((50,), seed=0, engine="native")
    assert (x == p.sample((50,), seed=0, engine="reference")).double().mean() > 0.99  # apart from ties
    assert not torch.equal(x[:, 0], x[:, 1])
