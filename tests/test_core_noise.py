"""Addressed noise: Philox against its published vectors, uniforms that are functions of their address."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from scipy import stats

from seriatim.noise import philox, random_seed, uniforms

# Random123's kat_vectors: philox 4x32, 10 rounds. Counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("counter, key, result", KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_vectors(counter, key, result):
    made = philox(tuple(torch.tensor(word) for word in words(counter)), tuple(words(key)))
    assert [int(word) for word in made] == words(result)


def test_philox_works_word_by_word_on_tensors():
    counters = torch.tensor([words(counter) for counter, key, _ in KNOWN[:1]] * 3).T
    made = torch.stack(philox(tuple(counters), (0, 0)))
    assert torch.equal(made, torch.tensor([words(KNOWN[0][2])] * 3).T)


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """The generator again in Python's own integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


WORD = st.integers(0, 2**32 - 1)


@given(st.lists(WORD, min_size=4, max_size=4), st.lists(WORD, min_size=2, max_size=2))
def test_philox_in_int64_equals_unbounded_integers(counter, key):
    made = philox(tuple(torch.tensor(word) for word in counter), tuple(key))
    assert [int(word) for word in made] == scalar_philox(counter, key)


@given(seed=st.integers(-(2**63), 2**64 - 1), row=WORD, position=WORD, lane=st.integers(0, 5))
def test_a_uniform_is_52_bits_of_its_address(seed, row, position, lane):
    u = uniforms(seed, torch.tensor([row]), torch.tensor([position]), lane + 1)[0, 0, lane]
    block = scalar_philox([lane // 2, position, row, 0], [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF])
    high, low = block[2 * (lane % 2)], block[2 * (lane % 2) + 1]
    assert float(u) == (((high >> 6) << 26 | (low >> 6)) + 0.5) / 2**52


@given(
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**32 - 50),
    start=st.integers(0, 2**32 - 50),
    lanes=st.integers(1, 7),
)
def test_a_block_is_the_same_cut_in_any_way(seed, first, start, lanes):
    rows, positions = torch.arange(first, first + 5), torch.arange(start, start + 4)
    whole = uniforms(seed, rows, positions, lanes)
    assert whole.shape == (5, 4, lanes)
    assert whole.dtype == torch.float64
    assert torch.equal(uniforms(seed, rows[3:4], positions[1:3], lanes), whole[3:4, 1:3])
    assert torch.equal(uniforms(seed, rows.flip(0), positions, lanes), whole.flip(0))
    assert torch.equal(uniforms(seed, rows, positions, lanes + 3)[..., :lanes], whole)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**64 - 1))
def test_uniforms_lie_in_the_open_interval(seed):
    u = uniforms(seed, torch.arange(50), torch.arange(20), 3)
    assert 0 < float(u.min())
    assert float(u.max()) < 1


@pytest.mark.parametrize("word, bound", [(0, 0.0), (0xFFFFFFFF, 1.0)])
def test_the_outermost_uniforms_are_inside_the_interval(word, bound, monkeypatch):
    monkeypatch.setattr("seriatim.noise.philox", lambda counter, key: (torch.full_like(counter[0], word),) * 4)
    u = float(uniforms(0, torch.arange(1), torch.arange(1), 1))
    assert 0 < u < 1
    assert abs(u - bound) < 2**-52


def test_uniforms_are_uniform_and_independent():
    u = uniforms(3, torch.arange(4000), torch.arange(3), 3).flatten(1)
    for column in u.T:
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-6
    correlation = torch.corrcoef(u.T).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 6 / 4000**0.5


def test_seeds_rows_positions_and_lanes_all_count():
    def u(seed: int, row: int, position: int, lane: int) -> float:
        return float(uniforms(seed, torch.tensor([row]), torch.tensor([position]), 4)[0, 0, lane])

    addresses = [(0, 0, 0, 0), (1, 0, 0, 0), (2**32, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 2)]
    assert len({u(*address) for address in addresses}) == len(addresses)


def test_a_seed_is_drawn_from_torch():
    torch.manual_seed(5)
    first, second = random_seed(), random_seed()
    torch.manual_seed(5)
    assert (random_seed(), random_seed()) == (first, second)
    assert first != second
    generator = torch.Generator().manual_seed(1)
    assert random_seed(generator) == random_seed(torch.Generator().manual_seed(1))
