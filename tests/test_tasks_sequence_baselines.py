"""Baselines of sequences: they are distributions, they know what they say they know, compressors see all values."""

from __future__ import annotations

import itertools
import lzma

import numpy as np
import pytest

from seriatim.tasks import sequence_baselines
from seriatim.tasks.sequence_baselines import fit_mixture

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_symbols_and_numbers_sum_to_one(ordered, length):
    train = [RNG.integers(0, 4, n).astype(np.uint8) for n in (5, 0, 9)]
    every = [np.array(x, dtype=np.uint8) for x in itertools.product(range(4), repeat=length)]
    unigram, other = sequence_baselines(train, every, levels=4, ordered=ordered)[:2]
    assert (unigram.name, other.name) == ("unigram", "previous" if ordered else "bigram")
    for found in (unigram, other):
        assert np.exp(found.log_prob).sum() == pytest.approx(1)
        assert found.nats == pytest.approx(-found.log_prob.sum() / (len(every) * length))


@pytest.mark.parametrize("length", [1, 2])
def test_bits_sum_to_one(length):
    train = [RNG.integers(0, 2, (n, 2)).astype(np.uint8) for n in (6, 3)]
    every = [np.array(x, dtype=np.uint8).reshape(length, 2) for x in itertools.product((0, 1), repeat=2 * length)]
    for found in sequence_baselines(train, every, levels=2)[:2]:
        assert np.exp(found.log_prob).sum() == pytest.approx(1)


def test_real_numbers_have_densities():
    line = np.linspace(-60, 60, 24_001).astype(np.float32)
    train = [RNG.normal(size=400).cumsum().astype(np.float32)]
    unigram, _, *compressors = sequence_baselines(train, [line[n : n + 1] for n in range(len(line))])
    assert np.exp(unigram.log_prob).sum() * (line[1] - line[0]) == pytest.approx(1, abs=1e-3)
    after = sequence_baselines(train, [np.array([2.0, x], dtype=np.float32) for x in line])[1]
    start = sequence_baselines(train, [np.array([2.0], dtype=np.float32)])[1]
    density = np.exp(after.log_prob - start.log_prob[0])
    assert density.sum() * (line[1] - line[0]) == pytest.approx(1, abs=1e-3)
    assert [b.nats for b in compressors] == [None, None]


def test_the_value_before_helps_where_it_says_something():
    walk = np.clip(128 + RNG.integers(-2, 3, 4000).cumsum(), 0, 255).astype(np.uint8)
    unigram, previous, *_ = sequence_baselines([walk[:3000]], [walk[3000:]], levels=256)
    assert previous.bits_per_dim < 3 < unigram.bits_per_dim
    held = np.repeat(RNG.integers(0, 2, (50, 4)), 8, axis=0).astype(np.uint8)
    unigram, previous, *_ = sequence_baselines([held], [held], levels=2)
    assert previous.bits_per_dim < 0.7 * unigram.bits_per_dim


def test_a_sequence_does_not_know_the_one_before_it():
    train = [np.array([0, 1] * 50)]
    together = sequence_baselines(train, [np.array([0, 1]), np.array([1, 0, 1])], levels=2, ordered=False)
    alone = sequence_baselines(train, [np.array([1, 0, 1])], levels=2, ordered=False)
    for one, other in zip(together[:2], alone[:2], strict=True):
        assert one.log_prob[1] == pytest.approx(other.log_prob[0])


def test_unseen_values_stay_possible():
    rare = sequence_baselines([np.zeros(100, int)], [np.array([0, 65535])], levels=65536)
    assert all(np.isfinite(b.nats) for b in rare)
    assert sequence_baselines([np.zeros(100)], [np.array([0.0, 9.0])])[0].nats < np.inf


def test_compressors_see_the_values_or_what_they_are_given():
    values = [np.array([0, 1, 2], dtype=np.uint8), np.array([3], dtype=np.uint8)]
    xz = sequence_baselines(values, values, levels=4)[3]
    size = len(lzma.compress(bytes([0, 1, 2, 3]), preset=9 | lzma.PRESET_EXTREME))
    assert xz.bits_per_dim == pytest.approx(8 * size / 4)
    raw = b"abc" * 1000
    size = len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
    assert sequence_baselines(values, values, levels=4, raw=raw)[3].bits_per_dim == pytest.approx(8 * size / 4)


def test_a_mixture_finds_its_parts():
    x = np.concatenate([RNG.normal(-5, 0.1, 3000), RNG.normal(4, 2, 1000)])
    weights, means, scales = fit_mixture(x, num_components=2)
    order = np.argsort(means[:2])
    np.testing.assert_allclose(weights[:2][order], [0.99 * 0.75, 0.99 * 0.25], atol=0.01)
    np.testing.assert_allclose(means[:2][order], [-5, 4], atol=0.2)
    np.testing.assert_allclose(scales[:2][order], [0.1, 2], rtol=0.1)


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="expected values, got 0 and 2"):
        sequence_baselines([np.zeros(0, int)], [np.array([0, 1])], levels=2)
