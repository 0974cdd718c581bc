"""Training on sequences: groups, parts with a state that goes on, lanes, windows, and what a step minimises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seriatim.context import Labels
from seriatim.data.sequences import Ragged, Sequences
from seriatim.ending import Ending
from seriatim.heads import Categorical, Normal, Tokens
from seriatim.models import GRU, LSTM, RNN, Transformer, WaveNet
from seriatim.reading import Reading
from seriatim.training import SequenceData, TrainConfig, train
from seriatim.training.data import Batch, Part
from seriatim.training.loss import Loss, smoothing_terms
from seriatim.training.sequences import Parts, in_lanes

LENGTHS = [7, 1, 12, 3, 3, 9, 5, 2, 12, 4]
RNG = np.random.default_rng(0)
WORDS = Ragged(RNG.integers(0, 3, sum(LENGTHS)).astype(np.uint8), LENGTHS)


def model_of(ends=True, kind=LSTM, **options):
    torch.manual_seed(3)
    head = Ending(Categorical(3)) if ends else Categorical(3)
    return kind((8,), head, hidden_features=5, **options).double().eval()


def one_by_one(model, words=WORDS):
    """-log p of every sequence by itself, with its end where ends are modelled."""
    total = 0.0
    for word in words:
        x = torch.from_numpy(word).long()[None]
        if isinstance(model.head, Ending):
            x = torch.cat([x, torch.full((1, 1), -1)], dim=1)
        total -= float(model(length=x.shape[1]).log_prob(x).detach())
    return total


# ---- what a batch costs


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size": 4, "chunk_length": 5}, {"batch_values": 20}])
def test_batches_cost_what_their_sequences_cost_one_by_one(ends, options):
    """Padding never leaks: neither into a sequence, nor from one part to the next."""
    model, data = model_of(ends), SequenceData(WORDS, WORDS, ends=ends)
    config = TrainConfig(**options)
    if not ends and config.chunk_length:  # lanes: parts of sequences, each a sequence of its own
        words = in_lanes(WORDS, None, config.batch_size)[0]
    else:
        words = WORDS
    for batches in (data.batches(config), data.valid_batches(config)):
        loss, total, units = Loss(model), 0.0, 0
        with torch.no_grad():
            for batch in batches:
                total, units = total + float(loss(batch)), units + batch.num_units
        assert units == sum(LENGTHS)
        assert total == pytest.approx(one_by_one(model, words), abs=1e-6)


def test_gradients_of_a_batch_are_those_of_its_sequences():
    model, batch = model_of(), next(iter(SequenceData(WORDS, ends=True).batches(TrainConfig(batch_size=10))))
    Loss(model)(batch).backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for word in WORDS:
        x = torch.cat([torch.from_numpy(word).long(), torch.tensor([-1])])[None]
        (-model(length=x.shape[1]).log_prob(x)).sum().backward()
    for own, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(own, parameter.grad)


def test_what_follows_a_sequence_does_not_matter():
    model = model_of()
    x = torch.tensor([[1, 2, 0, 0], [2, 1, 1, 2]])
    part = Part(torch.tensor([2, 4]), torch.tensor([3, 4]), True)
    other = torch.tensor([[1, 2, 2, 1], [2, 1, 1, 2]])
    assert torch.equal(Loss(model)(Batch(x, None, 7, 6, part)), Loss(model)(Batch(other, None, 7, 6, part)))


def test_gradients_stop_between_parts_and_the_state_does_not():
    model = model_of(ends=False)
    x = torch.randint(3, (2, 8), generator=torch.Generator().manual_seed(1))
    whole = -model(length=8).log_prob_terms(x)
    loss = Loss(model)
    counts = torch.tensor([4, 4])
    first = loss(Batch(x[:, :4], None, 8, 8, Part(counts, counts, True)))
    second = loss(Batch(x[:, 4:], None, 8, 8, Part(counts, counts, False)))
    torch.testing.assert_close(second, whole[:, 4:].sum())
    second.backward()  # the graph of the first part is not needed, nor reached
    assert first.requires_grad
    first.backward()


def test_an_epoch_is_a_function_of_seed_and_epoch_and_goes_on_anywhere():
    data, config = SequenceData(WORDS, ends=True), TrainConfig(batch_size=3, chunk_length=4, seed=5)
    steps = data.num_batches(config)
    whole = [b for epoch in range(2) for b in data.batches(config, position=lambda epoch=epoch: epoch * steps)]
    assert len(whole) == 2 * steps
    for position in (0, 3, steps - 1, steps + 2):
        rest = list(data.batches(config, position=lambda position=position: position))
        expected = whole[position : (position // steps + 1) * steps]
        assert [b.x.tolist() for b in rest] == [b.x.tolist() for b in expected]
    assert [b.x.tolist() for b in whole[:steps]] != [b.x.tolist() for b in whole[steps:]]


def test_processes_share_every_group():
    config = TrainConfig(batch_size=4, devices=2)
    data = SequenceData(WORDS, ends=True)
    both = [list(data.batches(config, rank=rank)) for rank in (0, 1)]
    for one, other in zip(*both, strict=True):
        assert one.num_rows == other.num_rows == int(one.part.terms.sum() + other.part.terms.sum())
    assert sum(b.num_units for own in both for b in own) == sum(LENGTHS)


def test_groups_hold_so_many_values_at_most():
    batches = list(Parts(WORDS, None, TrainConfig(batch_values=24), ends=True))
    assert all(b.x.shape[0] == 1 or b.x.numel() <= 24 for b in batches)
    assert len(batches) < len(WORDS)


def test_groups_of_pairs_hold_so_many_values_of_sources_too():
    rng = np.random.default_rng(1)
    sources, targets = rng.integers(1, 60, 80), rng.integers(1, 4, 80)
    rows, context = (Ragged(np.arange(sum(own)) % 3, own) for own in (targets, sources))
    data = SequenceData(rows, train_context=context, ends=True)
    seen = 0
    for batch in data.batches(TrainConfig(batch_values=200)):
        assert batch.x.shape[0] * max(batch.x.shape[1], batch.context.shape[1]) <= 200
        assert bool((batch.context >= 0).sum(1).min() * 2 > batch.context.shape[1] - 8)  # those of like length
        seen += len(batch.x)
    assert seen == 80


def test_lanes_cut_streams_and_keep_their_contexts():
    stream, labels = Ragged(np.arange(23), [15, 8]), torch.tensor([[4], [6]])
    cut, context = in_lanes(stream, labels, 4)
    assert cut.lengths.tolist() == [6, 6, 3, 6, 2]
    assert context.flatten().tolist() == [4, 4, 4, 6, 6]
    assert np.concatenate(list(cut)).tolist() == list(range(23))


def test_windows_are_cut_at_random_in_training_and_in_order_in_validation():
    stream = Ragged(np.arange(100) % 3, [100])
    config = TrainConfig(batch_size=5, chunk_length=10, carry_state=False)
    data = SequenceData(stream, stream, ends=False)
    drawn = [list(data.batches(config, position=lambda e=e: 2 * e)) for e in (0, 1)]
    assert [len(own) for own in drawn] == [2, 2]
    assert all(batch.part.first and batch.x.shape == (5, 10) for own in drawn for batch in own)
    assert drawn[0][0].x.tolist() != drawn[1][0].x.tolist()
    held = torch.cat([batch.x.flatten() for batch in data.valid_batches(config)])
    assert sorted(held.tolist()) == sorted((np.arange(100) % 3).tolist())


# ---- training


class PowerCut(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 5])
def test_a_stopped_run_goes_on_in_the_middle_of_a_sequence(tmp_path, monkeypatch, step):
    """The state between parts is saved too: the weights are those of a run that was not stopped, bit by bit."""
    stream = Ragged(RNG.integers(0, 3, 300).astype(np.uint8))
    config = TrainConfig(epochs=2, batch_size=4, chunk_length=10, learning_rate=0.01, save_every=0, warmup_steps=2)
    data = SequenceData(stream, stream[:1], ends=False)

    def fresh():
        torch.manual_seed(0)
        return GRU((8,), Categorical(3), hidden_features=4, variational_dropout=0.3)

    whole = train(fresh(), data, config, progress=False).model
    calls, real = [], Loss.parts

    def failing(self, batch):
        calls.append(1)
        if len(calls) == step + 1:
            raise PowerCut
        return real(self, batch)

    monkeypatch.setattr(Loss, "parts", failing)
    with pytest.raises(PowerCut):
        train(fresh(), data, config, tmp_path / "run", progress=False)
    monkeypatch.setattr(Loss, "parts", real)
    resumed = train(fresh(), data, config, tmp_path / "run", resume=True, progress=False).model
    for own, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(own, other)


def test_words_are_learned_with_their_ends_and_labels():
    """Two languages: in one words are 0 1 2 0 1 ..., in the other 2 1 0 2 1 ...; half of the words go on each time."""
    rng = np.random.default_rng(1)
    lengths = rng.geometric(0.5, 300)
    labels = rng.integers(0, 2, 300)
    words = [(np.arange(n) if k == 0 else 2 - np.arange(n)) % 3 for n, k in zip(lengths, labels, strict=True)]
    ragged, y = Ragged.of(words), labels[:, None]
    labels_of = {"train": y, "valid": y[:50], "test": y[:50]}
    about = {"kind": "categorical", "levels": 3, "labels": labels_of, "attributes": {"language": ["a", "b"]}}
    data = Sequences("words", ragged, ragged[:50], ragged[:50], **about)

    class OneLabel(Labels):
        event_dim = 1

        def check(self, context):
            super().check(context[..., 0])

        def forward(self, context):
            return super().forward(context[..., 0])

    torch.manual_seed(0)
    model = LSTM((4,), Ending(Categorical(3)), hidden_features=8, encoder=OneLabel(2))
    config = TrainConfig(epochs=8, batch_size=40, learning_rate=0.06, warmup_steps=10)
    result = train(model, data, config, progress=False)
    # A word costs log 2 for each of its n ends and goings on; the first value is always known from the language.
    expected = math.log(2) * lengths[:50].sum() / lengths[:50].sum()
    assert result.valid_nats == pytest.approx(expected, abs=0.25)
    drawn = model(torch.tensor([[0], [1]]), length=6).sample((100,), seed=0)
    assert (drawn[:, 0, 0] == 0).float().mean() > 0.9
    assert (drawn[:, 1, 0] == 2).float().mean() > 0.9


def test_real_signals_and_wavenets_are_read_in_parts_too():
    wave = np.sin(np.arange(4000) * 0.3).astype(np.float32)
    torch.manual_seed(0)
    sizes = {"residual_features": 8, "gate_features": 8, "skip_features": 16}
    model = WaveNet((8,), Normal(), num_blocks=1, layers_per_block=3, **sizes)
    config = TrainConfig(epochs=6, batch_size=4, chunk_length=100, learning_rate=0.01, warmup_steps=5)
    result = train(model, SequenceData(Ragged(wave), Ragged(wave[:500]), ends=False), config, progress=False)
    assert result.valid_nats < -0.5  # a marginal of the same spread costs 1.07 nats
    reading, wave = Reading(model().expand((1,))), torch.from_numpy(wave)[None]
    with torch.no_grad():
        parts = [reading.read(part).log_prob(part) for part in wave.split(700, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(length=4000).log_prob_terms(wave), atol=1e-4, rtol=1e-3)


def test_smoothed_labels_are_minimised_and_not_reported():
    model = model_of(ends=False, kind=RNN)
    x = torch.tensor([[0, 1, 2]])
    loss, nats = Loss(model, 0.2).parts(Batch(x, None, 3, 3, Part(torch.tensor([3]), torch.tensor([3]), True)))
    logits = model(length=3).conditionals(x).logits[0]
    target = 0.8 * F.one_hot(x[0], 3) + 0.2 / 3
    torch.testing.assert_close(loss, -(target * F.log_softmax(logits, -1)).sum())
    torch.testing.assert_close(nats, F.cross_entropy(logits, x[0], reduction="sum"))


def test_smoothing_leaves_the_end_alone():
    conditional = Ending(Categorical(3))(torch.tensor([[[0.3, 1.0, 2.0, 0.5]]]))
    log_p = F.log_softmax(torch.tensor([1.0, 2.0, 0.5]), 0)
    of_value, mean, of_end = smoothing_terms(conditional, torch.tensor([[1]]))
    assert [float(of_value), float(mean)] == pytest.approx([float(log_p[1]), float(log_p.mean())])
    assert float(of_end) == pytest.approx(float(F.logsigmoid(torch.tensor(-0.3))))
    assert float(smoothing_terms(conditional, torch.tensor([[-1]]))[0]) == 0
    with pytest.raises(ValueError, match="label_smoothing: expected 0 for values that are no categories"):
        smoothing_terms(Normal()(torch.zeros(1, 1, 2)), torch.zeros(1, 1))


@pytest.mark.parametrize("ends", [True, False])
def test_tokens_are_smoothed_as_categories_are(ends):
    """What `Tokens` computes together is the same loss, with the same gradients."""
    found = []
    for kind in (Categorical, Tokens):
        torch.manual_seed(3)
        sizes = {"hidden_features": 8, "num_layers": 1, "num_heads": 2}
        model = Transformer((6,), Ending(kind(7)) if ends else kind(7), **sizes).double()
        x = torch.tensor([[0, 1, 6, 3, 2], [5, 5, 1, 0, 0]])
        lengths = torch.tensor([5, 3])
        part = Part(lengths, lengths + ends, True)
        batch = Batch(F.pad(x, (0, int(ends))), None, 2, int(lengths.sum()), part)
        loss, nats = Loss(model, 0.2).parts(batch)
        loss.backward()
        found.append((loss.detach(), nats.detach(), [parameter.grad for parameter in model.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)
    assert found[0][0] != found[0][1]


def test_what_does_not_fit_is_refused():
    model, config = model_of(), TrainConfig(epochs=1)
    bad = {
        "train: expected .*, got 5 at value 2": SequenceData(Ragged(np.array([0, 1, 5])), ends=True),
        r"train: expected values of shape \(\)": SequenceData(Ragged(np.zeros((3, 2))), ends=True),
        "train_context: expected none": SequenceData(WORDS, train_context=torch.zeros(10, 1), ends=True),
    }
    for message, data in bad.items():
        with pytest.raises(ValueError, match=message):
            train(model, data, config, progress=False)
    with pytest.raises(ValueError, match="train: expected sequences with values"):
        SequenceData(Ragged(np.zeros(0), []), ends=True)
    with pytest.raises(ValueError, match="train_context: expected 10, one for each sequence, got 3"):
        SequenceData(WORDS, train_context=torch.zeros(3, 1), ends=True)
    with pytest.raises(ValueError, match="transform: expected None for sequences"):
        train(model, SequenceData(WORDS, ends=True), config, progress=False, transform=lambda x, g: x)
    with pytest.raises(ValueError, match="a sequence for each of 2 processes"):
        SequenceData(WORDS[:1], ends=True).batches(TrainConfig(devices=2))
