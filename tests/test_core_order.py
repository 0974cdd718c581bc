"""Orders are bijections between the places of the data and the positions."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from seriatim.order import Order, RandomOrder, Scan, scans

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=3)


@st.composite
def orders(draw) -> Order:
    shape = draw(SHAPES)
    return Order(shape, draw(st.permutations(range(math.prod(shape)))))


@given(orders(), st.lists(st.integers(1, 3), max_size=2))
def test_there_and_back_again(order, value_shape):
    data = torch.arange(2 * order.length * math.prod(value_shape)).reshape(2, *order.shape, *value_shape)
    sequence = order.to_positions(data)
    assert sequence.shape == (2, order.length, *value_shape)
    assert torch.equal(order.to_data(sequence), data)


@given(orders())
def test_position_t_holds_the_place_that_the_permutation_names(order):
    data = torch.arange(order.length).reshape(1, *order.shape)
    assert torch.equal(order.to_positions(data)[0], order.permutation)
    assert torch.equal(order.permutation[order.inverse], torch.arange(order.length))


@given(orders())
def test_natural_means_row_major(order):
    assert order.is_natural == (order.permutation.tolist() == list(range(order.length)))


def test_the_order_is_row_major_where_none_is_given():
    order = Order((2, 3))
    assert order.is_natural
    assert order.permutation.tolist() == [0, 1, 2, 3, 4, 5]
    assert repr(order) == "Order((2, 3))"
    assert repr(Order((3,), [2, 0, 1])) == "Order((3,), [2, 0, 1])"


@pytest.mark.parametrize("permutation", [[0, 1, 1], [0, 1], [0, 1, 3], [-1, 0, 1], [0, 1, 2, 3], []])
def test_what_is_no_permutation_is_refused(permutation):
    with pytest.raises(ValueError, match=r"permutation: expected each of 0..2 once, got"):
        Order((3,), permutation)


@pytest.mark.parametrize("shape", [(), (0,), (2, -1)])
def test_an_empty_shape_is_refused(shape):
    with pytest.raises(ValueError, match="shape: expected one or more positive sizes, got"):
        Order(shape)


def test_a_random_order_is_that_of_its_seed():
    drawn = [tuple(RandomOrder((6,), seed).permutation.tolist()) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 3
    before = torch.get_rng_state()
    RandomOrder((6,), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_eight_scans_are_flips_and_transposes():
    image = torch.arange(6).reshape(2, 3)
    seen = set()
    for rows, columns, transpose in itertools.product((False, True), repeat=3):
        scan = Scan((2, 3), flip_rows=rows, flip_columns=columns, transpose=transpose)
        expected = image.flip([axis for axis, flip in enumerate((rows, columns)) if flip])
        expected = expected.T if transpose else expected
        assert scan.raster[:2] == tuple(expected.shape)
        assert torch.equal(scan.to_positions(image[None])[0], expected.flatten())
        seen.add(tuple(scan.permutation.tolist()))
    assert len(seen) == 8


def test_channels_keep_their_order_within_a_scanned_pixel():
    scan = Scan((2, 3, 2), flip_columns=True, transpose=True)
    assert scan.raster == (3, 2, 2)
    assert scan.permutation.tolist() == [4, 5, 10, 11, 2, 3, 8, 9, 0, 1, 6, 7]
    assert [scan.raster[:2] for scan in scans((2, 3), 5)] == [(2, 3)] * 4 + [(3, 2)]
    assert len({tuple(scan.permutation.tolist()) for scan in scans((2, 3))}) == 8


def test_only_raster_scans_have_a_raster():
    assert Order((4, 5, 3)).raster == (4, 5, 3)
    for order in (Order((6,)), Order((2, 2), [3, 2, 1, 0]), Order((2, 2, 2, 2))):
        with pytest.raises(ValueError, match="order: expected a raster scan"):
            _ = order.raster


def test_a_scan_needs_an_image():
    with pytest.raises(ValueError, match=r"shape: expected \(height, width\) or .*, got \(6,\)"):
        Scan((6,))
