"""Scores of sequences: equal to those of each sequence alone, in memory that does not grow."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from seriatim.context import Labels, Vector
from seriatim.ending import Ending
from seriatim.heads import Bernoulli, Categorical, Normal
from seriatim.independent import Independent
from seriatim.models import LSTM, MADE, NADE, WaveNet
from seriatim.nested import Nested
from seriatim.tasks import read_along, read_parts, surprise, surprise_inside

RNG = np.random.default_rng(0)
WORDS = [RNG.integers(0, 3, n) for n in (4, 11, 0, 7, 23, 1)]


def lstm(head, **options):
    torch.manual_seed(0)
    return LSTM((6,), head, hidden_features=5, **options).double()


@pytest.mark.parametrize("batch_size, chunk_length", [(1, 5), (4, 3), (6, 100)])
def test_sequences_cost_what_they_cost_alone(batch_size, chunk_length):
    model = lstm(Ending(Categorical(3)), encoder=Labels(2))
    labels = torch.tensor([0, 1, 1, 0, 0, 1])
    found = surprise(model, WORDS, labels, batch_size=batch_size, chunk_length=chunk_length)
    model.eval()
    for word, label, own, end, total in zip(WORDS, labels, found.values, found.ends, found.log_prob, strict=True):
        x = torch.cat([torch.from_numpy(word), torch.tensor([-1])])[None]
        values, stops = (part.detach()[0] for part in model.log_prob_parts(x, label[None]))
        np.testing.assert_allclose(own, values[:-1].numpy(), rtol=1e-5)
        assert end == pytest.approx(float(stops.sum()), rel=1e-6)
        assert total == pytest.approx(float(values.sum() + stops.sum()), rel=1e-6)
    assert found.nats == pytest.approx(-sum(own.sum() for own in found.values) / 46, rel=1e-6)
    assert found.interval[0] <= found.nats <= found.interval[1]


def test_a_stream_in_blocks_costs_what_it_costs_whole():
    torch.manual_seed(0)
    sizes = {"residual_features": 6, "gate_features": 6, "skip_features": 8}
    model = WaveNet((8,), Normal(), num_blocks=1, layers_per_block=4, **sizes)
    wave = RNG.normal(size=300).astype(np.float32)
    whole = surprise(model, [wave], chunk_length=1000)
    parts = np.concatenate(list(read_along(model, np.array_split(wave, 7))))
    np.testing.assert_allclose(parts, whole.values[0], atol=1e-5)
    np.testing.assert_allclose(surprise(model, [wave], chunk_length=17).values[0], whole.values[0], atol=1e-5)


@pytest.mark.parametrize("head", [Ending(Categorical(3)), Ending(Normal())])
def test_what_an_end_costs_comes_apart(head):
    model = lstm(head, encoder=Labels(2))
    values = RNG.integers(0, 3, 20) if head.discrete else RNG.normal(size=20)
    label = torch.tensor(1)
    whole = surprise(model, [values], label[None])
    parts = list(read_parts(model, [values[:7], values[:0], values[7:]], label))
    assert [len(terms) for terms, _ in parts] == [7, 13, 0]
    np.testing.assert_allclose(np.concatenate([terms for terms, _ in parts]), whole.values[0], rtol=1e-4)
    assert sum(stops.sum() for _, stops in parts) == pytest.approx(whole.ends[0], rel=1e-5)
    along = list(read_along(model, [values[:7], values[7:]], label))
    np.testing.assert_allclose(along[0], parts[0][0] + parts[0][1], rtol=1e-5)
    assert sum(map(len, along)) == 20


@pytest.mark.parametrize("ends", [False, True])
def test_the_notes_of_a_chord_add_up(ends):
    nested = Nested(NADE((4,), Bernoulli(), hidden_features=3, encoder=Vector(6)))
    roll = RNG.integers(0, 2, (9, 4))
    for head in (nested, Independent(Bernoulli(), (4,))):
        model = lstm(Ending(head) if ends else head)
        inside = surprise_inside(model, roll, chunk_length=4)
        assert inside.shape == (9, 4)
        np.testing.assert_allclose(inside.sum(1), surprise(model, [roll]).values[0], rtol=1e-4)
    with pytest.raises(ValueError, match=r"model: expected a head of vectors, .*, got Categorical"):
        surprise_inside(lstm(Categorical(3)), np.zeros(4, int))


def test_chords_are_values_of_their_own():
    model = lstm(Ending(Nested(NADE((4,), Bernoulli(), hidden_features=3, encoder=Vector(6)))))
    rolls = [RNG.integers(0, 2, (n, 4)) for n in (3, 8)]
    found = surprise(model, rolls, chunk_length=4)
    assert found.lengths.tolist() == [3, 8]
    x = torch.full((1, 4, 4), -1)
    x[0, :3] = torch.from_numpy(rolls[0])
    assert found.log_prob[0] == pytest.approx(float(model.eval()(length=4).log_prob(x)[0].detach()), rel=1e-5)


def test_memory_does_not_grow_with_the_sequence():
    model = WaveNet((8,), Categorical(4), num_blocks=1, layers_per_block=3, residual_features=4, gate_features=4,
                    skip_features=4)  # fmt: skip

    def held():
        """The bytes of all tensors that are alive."""
        tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    along = read_along(model, (np.zeros(500, int) for _ in range(40)))
    sizes = [held() for _ in along]
    assert len(sizes) == 40
    assert max(sizes[2:]) == sizes[2]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"sequences: expected .*, got 7 at position 2"):
        surprise(lstm(Categorical(3)), [np.array([0, 1, 7])])
    with pytest.raises(ValueError, match="expected a sequence or more"):
        surprise(lstm(Categorical(3)), [])
    with pytest.raises(ValueError, match="values: expected 4 more at most, got 5"):
        surprise(MADE((4,), hidden_features=(4,)), [np.zeros(5)])
