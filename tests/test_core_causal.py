"""States, and layers against their textbook formulas under any cut into chunks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional as F

from seriatim.causal import (
    Causal,
    CausalSequential,
    Recompute,
    Residual,
    clone,
    concatenate,
    detach,
    repeat,
    select,
    tree_map,
    write,
)
from seriatim.layers import (
    GRU,
    LSTM,
    RNN,
    CausalConv1d,
    ConditionalTable,
    CrossAttention,
    MaskedConv2d,
    MaskedLinear,
    SelfAttention,
)
from seriatim.layers.linear import degree_counts


class Pair(NamedTuple):
    first: Any
    second: Any


def tree(start: float = 0.0) -> Any:
    a, b = torch.arange(3.0)[:, None] + start, torch.arange(6.0).reshape(3, 2) + start
    return {"a": a, "b": [b, None], "c": (a + 1,), "d": Pair(b * 2, None)}


def leaves(state: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(lambda tensor: (found.append(tensor), tensor)[1], state)
    return found


# ---- states


def test_tree_map_keeps_the_structure():
    mapped = tree_map(lambda tensor: tensor + 1, tree())
    assert isinstance(mapped["b"], list)
    assert isinstance(mapped["c"], tuple)
    assert isinstance(mapped["d"], Pair)
    assert mapped["b"][1] is None
    assert all(torch.equal(m, t + 1) for m, t in zip(leaves(mapped), leaves(tree()), strict=True))


def test_what_is_no_state_is_refused():
    with pytest.raises(TypeError, match="state: expected tensors in dicts, lists and tuples, got int"):
        clone({"a": 3})


def test_clone_and_select_share_no_memory():
    state = tree()
    for copied in (clone(state), select(state, torch.arange(3))):
        for tensor in leaves(copied):
            tensor.fill_(-1)
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), leaves(tree()), strict=True))


def test_select_repeat_and_concatenate_agree():
    state = tree()
    twice = repeat(state, 2)
    assert all(
        torch.equal(a, b)
        for a, b in zip(leaves(twice), leaves(select(state, torch.tensor([0, 0, 1, 1, 2, 2]))), strict=True)
    )
    joined = concatenate([state, tree(5.0)])
    assert isinstance(joined["d"], Pair)
    assert joined["b"][1] is None
    assert all(torch.equal(a[3:], b) for a, b in zip(leaves(joined), leaves(tree(5.0)), strict=True))
    back = select(joined, torch.tensor([3, 0]))
    assert torch.equal(back["a"], torch.tensor([[5.0], [0.0]]))


def test_detach_cuts_the_graph():
    state = {"h": torch.ones(2, requires_grad=True) * 2}
    assert not detach(state)["h"].requires_grad


def test_write_donates_with_gradients_off_and_copies_with_gradients_on():
    buffer = torch.zeros(2, 4)
    with torch.no_grad():
        assert write(buffer, 1, torch.ones(2, 2)) is buffer
    assert buffer.tolist() == [[0, 1, 1, 0]] * 2
    after = write(buffer, 2, torch.full((2, 2), 5.0))
    assert after.tolist() == [[0, 1, 5, 5]] * 2
    assert buffer.tolist() == [[0, 1, 1, 0]] * 2
    values = torch.full((2, 4), 7.0)
    assert torch.equal(write(buffer, 0, values), values)


# ---- layers under any cut


@st.composite
def cuts(draw, length: int) -> list[int]:
    inner = draw(st.sets(st.integers(1, length - 1)))
    edges = [0, *sorted(inner), length]
    return [b - a for a, b in pairwise(edges)]


def in_chunks(layer: Causal, x: Tensor, sizes: list[int], state: Any) -> Tensor:
    outputs = []
    for part in x.split(sizes, dim=1):
        y, state = layer(part, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1)


def draw_x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@given(
    sizes=cuts(12),
    kernel_size=st.integers(1, 4),
    dilation=st.integers(1, 5),
    gradients=st.booleans(),
)
def test_a_causal_convolution_is_torchs_with_zeros_before_it(sizes, kernel_size, dilation, gradients):
    layer = CausalConv1d(3, 2, kernel_size, dilation=dilation).double()
    x = draw_x(2, 12, 3)
    weight = layer.taps.weight.unflatten(1, (kernel_size, 3)).movedim(1, -1)
    past = F.pad(x.transpose(1, 2), (layer.reach, 0))
    expected = F.conv1d(past, weight, layer.taps.bias, dilation=dilation).transpose(1, 2)
    with torch.set_grad_enabled(gradients):
        got = in_chunks(layer, x, sizes, layer.initial_state(2))
    torch.testing.assert_close(got, expected)


def test_a_context_is_added_to_a_convolution():
    layer = CausalConv1d(1, 2, 2, context_features=3).double()
    c, x = draw_x(2, 3), draw_x(2, 5, 1)
    with_context, _ = layer(x, layer.initial_state(2, c))
    without, _ = layer(x, layer.initial_state(2, torch.zeros_like(c)))
    torch.testing.assert_close(with_context - without, layer.context(c)[:, None].expand(2, 5, 2))


@given(sizes=cuts(15), mask=st.sampled_from("AB"), kernel_size=st.sampled_from([1, 3, 5]), gradients=st.booleans())
def test_a_masked_convolution_is_torchs_with_the_masked_kernel(sizes, mask, kernel_size, gradients):
    if (mask, kernel_size) == ("A", 1):
        return
    layer = MaskedConv2d(mask, 2, 3, shape=(3, 5), kernel_size=kernel_size).double()
    centre = kernel_size**2 // 2
    kernel = torch.zeros(3, 2, kernel_size**2, dtype=torch.float64)
    taps = centre if mask == "A" else centre + 1
    kernel[..., :taps] = layer.linear.weight.unflatten(1, (taps, 2)).transpose(1, 2).detach()
    image = draw_x(2, 15, 2)
    expected = F.conv2d(
        image.unflatten(1, (3, 5)).movedim(-1, 1),
        kernel.unflatten(-1, (kernel_size, kernel_size)),
        layer.linear.bias,
        padding=kernel_size // 2,
    )
    # With mask A the layer reads the sequence that the model has shifted by one.
    x = torch.cat([torch.zeros(2, 1, 2), image[:, :-1]], dim=1) if mask == "A" else image
    with torch.set_grad_enabled(gradients):
        got = in_chunks(layer, x, sizes, layer.initial_state(2))
    torch.testing.assert_close(got, expected.flatten(2).transpose(1, 2))


def test_masked_convolutions_refuse_bad_arguments():
    with pytest.raises(ValueError, match="mask: expected 'A' or 'B', got 'C'"):
        MaskedConv2d("C", 1, 1, shape=(2, 2), kernel_size=3)
    with pytest.raises(ValueError, match="kernel_size: expected an odd number, got 4"):
        MaskedConv2d("A", 1, 1, shape=(2, 2), kernel_size=4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("ours, theirs", [(RNN, nn.RNN), (GRU, nn.GRU), (LSTM, nn.LSTM)])
@given(sizes=cuts(7))
def test_recurrent_layers_are_torchs(ours, theirs, layers, sizes):
    layer = ours(3, 4, layers).double()
    reference = theirs(3, 4, layers, batch_first=True).double()
    reference.load_state_dict(layer.rnn.state_dict())
    x = draw_x(2, 7, 3)
    torch.testing.assert_close(in_chunks(layer, x, sizes, layer.initial_state(2)), reference(x)[0])


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor, heads: int, seen: Tensor) -> Tensor:
    parts = []
    for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        scores = (qh @ kh.transpose(1, 2)) / qh.shape[-1] ** 0.5
        parts.append(scores.masked_fill(~seen, -torch.inf).softmax(-1) @ vh)
    return torch.cat(parts, dim=-1)


@given(sizes=cuts(7), max_length=st.sampled_from([None, 3, 7, 20]), gradients=st.booleans())
def test_self_attention_is_the_formula(sizes, max_length, gradients):
    layer = SelfAttention(6, num_heads=2).double()
    x = draw_x(2, 7, 6)
    q, k, v = layer.qkv(x).chunk(3, -1)
    expected = layer.out(attention_by_hand(q, k, v, 2, torch.ones(7, 7, dtype=torch.bool).tril()))
    with torch.set_grad_enabled(gradients):
        got = in_chunks(layer, x, sizes, layer.initial_state(2, max_length=max_length))
    torch.testing.assert_close(got, expected)


@given(sizes=cuts(5))
def test_cross_attention_is_the_formula(sizes):
    layer = CrossAttention(6, num_heads=3).double()
    x, memory = draw_x(2, 5, 6), draw_x(2, 4, 6) + 1
    mask = torch.tensor([[True, True, False, True], [True, False, False, False]])
    k, v = layer.kv(memory).chunk(2, -1)
    expected = layer.out(attention_by_hand(layer.q(x), k, v, 3, mask[:, None]))
    torch.testing.assert_close(in_chunks(layer, x, sizes, layer.initial_state(2, (memory, mask))), expected)


@pytest.mark.parametrize("layer", [SelfAttention, CrossAttention])
def test_heads_divide_the_features(layer):
    with pytest.raises(ValueError, match="num_heads: expected a divisor of 6, got 4"):
        layer(6, num_heads=4)


@given(
    in_counts=st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any),
    out_counts=st.lists(st.integers(0, 3), min_size=4, max_size=4).filter(any),
    sizes=cuts(4),
    gradients=st.booleans(),
)
def test_a_masked_linear_map_is_the_dense_one_with_its_mask(in_counts, out_counts, sizes, gradients):
    layer = MaskedLinear(in_counts, out_counts).double()
    x = draw_x(2, sum(in_counts))
    expected = F.linear(x, layer.weight * layer.mask, layer.bias)
    state, outputs, start = layer.initial_state(2), [], 0
    with torch.set_grad_enabled(gradients):
        for n in sizes:
            width = sum(in_counts[start : start + n])
            before = sum(in_counts[:start])
            y, state = layer(x[:, before : before + width], state, n)
            outputs.append(y)
            start += n
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 3))
def test_degrees_are_spread_evenly(units, positions, first):
    counts = degree_counts(units, positions, first)
    first = min(first, positions - 1)
    assert len(counts) == positions
    assert sum(counts) == units
    assert not any(counts[:first])
    assert max(counts[first:]) - min(counts[first:]) <= 1


def test_a_table_is_looked_up_by_the_values_of_the_parents():
    table = ConditionalTable([(), (0,), (0, 1)], [2, 3, 2])
    nn.init.normal_(table.logits)
    codes = torch.tensor([[1, 2], [0, 1]])
    x = torch.cat([torch.zeros(2, 1), codes], dim=1)[..., None]
    y, _ = table(x)
    for row, (a, b) in enumerate(codes.tolist()):
        torch.testing.assert_close(y[row, 0, :2], table.logits[table.row(0, ())][:2])
        torch.testing.assert_close(y[row, 1], table.logits[table.row(1, (a,))])
        torch.testing.assert_close(y[row, 2, :2], table.logits[table.row(2, (a, b))][:2])
    assert bool((y[:, [0, 2], 2] == -torch.inf).all())
    rows = {table.row(2, (a, b)) for a in range(2) for b in range(3)}
    assert rows == set(range(3, 9))
    with pytest.raises(ValueError, match=r"parents: expected positions before 1, got \(1,\)"):
        ConditionalTable([(), (1,)], [2, 2])


# ---- networks


def test_dependencies_of_a_stack_are_those_of_its_paths():
    stack = CausalSequential(CausalConv1d(2, 2, 2, dilation=2), nn.Tanh(), CausalConv1d(2, 2, 2, dilation=3))
    distance = torch.arange(8)[:, None] - torch.arange(8)
    assert torch.equal(stack.dependencies(8), torch.isin(distance, torch.tensor([0, 2, 3, 5])))
    late = Residual(CausalSequential(CausalConv1d(2, 2, 2), _Delay()))
    assert torch.equal(late.dependencies(4), torch.eye(4).bool() | late.module.dependencies(4))
    attention = CrossAttention(2, 1)
    assert torch.equal(attention.dependencies(3), torch.eye(3, dtype=torch.bool))


class _Delay(Causal):
    """y_t = x_t-1, which does not read x_t."""

    def initial_state(self, batch_size: int, context: Any = None, max_length: int | None = None) -> Tensor:
        return torch.zeros(batch_size, 1, 2)

    def advance(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        seen = torch.cat([state, x], dim=1)
        return seen[:, :-1], seen[:, -1:]

    def dependencies(self, length: int) -> Tensor:
        return torch.eye(length, dtype=torch.bool).roll(1, 0).tril()


def test_a_stack_threads_the_states_of_its_causal_parts():
    stack = CausalSequential(nn.Linear(2, 2), _Delay(), nn.ReLU(), Residual(_Delay()))
    state = stack.initial_state(3)
    assert state[0] is None
    assert state[2] is None
    x = torch.randn(3, 6, 2)
    torch.testing.assert_close(in_chunks(stack, x, [2, 1, 3], state), stack(x)[0])


def test_recompute_is_the_network_again():
    inner = LSTM(2, 3).double()
    x = draw_x(2, 6, 2)
    expected, _ = inner(x)
    torch.testing.assert_close(in_chunks(Recompute(inner), x, [1, 2, 3], None), expected)

    class Parallel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.cumsum(1)

    torch.testing.assert_close(in_chunks(Recompute(Parallel()), x, [1, 2, 3], None), x.cumsum(1))
    with pytest.raises(ValueError, match="context: expected None for a module without an initial state"):
        Recompute(Parallel()).initial_state(2, context=x)


def test_a_causal_module_says_what_is_missing():
    class Empty(Causal):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define initial_state"):
        Empty()(torch.zeros(1, 2, 1))
    with pytest.raises(NotImplementedError, match="Empty must define advance"):
        Empty()(torch.zeros(1, 2, 1), ())


def test_a_state_lives_where_the_weights_do():
    for layer in (LSTM(2, 3), CausalConv1d(2, 3, 2), SelfAttention(2, 1), MaskedLinear([1], [1])):
        dtypes = {t.dtype for t in leaves(layer.double().initial_state(2)) if t.is_floating_point()}
        assert dtypes == {torch.float64}
