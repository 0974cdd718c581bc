"""`Autoregressive` and `rollout`: shapes, rows, noise, search."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch import distributions as td

from seriatim.autoregressive import Autoregressive, evaluating, rollout
from seriatim.context import Labels, Vector
from seriatim.heads import Bernoulli, Categorical, Normal
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, NADE, FullTable, OrderAgnosticMADE
from seriatim.noise import uniforms
from seriatim.order import Order, RandomOrder
from seriatim.testing.case import space
from zoo import ZOO, context_of, model_of, randomised


def conditional_model() -> AutoregressiveModel:
    return randomised(NADE((4,), Categorical(3), hidden_features=5, encoder=Vector(2))).double()


def contexts(*shape: int) -> Tensor:
    return torch.randn(*shape, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def same(got: Tensor, expected: Tensor) -> bool:
    """Equal symbols; real numbers, which depend on the batch in their last digits, within rounding."""
    return bool(torch.isclose(got, expected, rtol=1e-6, atol=1e-9, equal_nan=True).all())


# ---- the distribution


@pytest.mark.parametrize("shape", [(), (2,), (2, 3), (1, 3), (2, 1, 3)])
def test_the_batch_shape_is_that_of_the_context(shape):
    p = conditional_model()(contexts(*shape))
    assert isinstance(p, td.Distribution)
    assert tuple(p.batch_shape) == shape
    assert tuple(p.event_shape) == (4,)
    assert p.sample(seed=0).shape == (*shape, 4)
    assert p.sample((5, 2), seed=0).shape == (5, 2, *shape, 4)
    assert p.log_prob(p.sample(seed=0)).shape == shape
    assert p.log_prob_terms(p.sample((5,), seed=0)).shape == (5, *shape, 4)
    assert p.conditionals(p.sample(seed=0)).batch_shape == (*shape, 4)
    assert not p.has_rsample


def test_values_broadcast_with_contexts_of_a_batch_of_two_axes():
    model, c = conditional_model(), contexts(2, 3)
    x = model.sample((4,), c[0, 0], seed=0)
    log_p = model(c).log_prob(x[:, None, None])
    assert log_p.shape == (4, 2, 3)
    for k, i, j in itertools.product(range(4), range(2), range(3)):
        torch.testing.assert_close(log_p[k, i, j], model(c[i, j]).log_prob(x[k]))
    one = model(c).log_prob(x[0])  # one value under every context
    torch.testing.assert_close(one, log_p[0])
    terms = model(c).log_prob_terms(x[:, None, None])
    torch.testing.assert_close(terms.sum(-1), log_p)


@pytest.mark.parametrize("own, asked", [((), (2, 3)), ((3,), (2, 3)), ((1, 3), (2, 3)), ((2, 1), (4, 2, 3)), ((), ())])
def test_expand(own, asked):
    model, c = conditional_model(), contexts(*own)
    wide = model(c).expand(asked)
    explicit = model(c.expand(*asked, 2))
    assert wide.batch_shape == explicit.batch_shape == asked
    assert torch.equal(wide.sample(seed=4), explicit.sample(seed=4))
    x = explicit.sample(seed=5)
    torch.testing.assert_close(wide.log_prob(x), explicit.log_prob(x))
    assert torch.equal(wide.expand((2, *asked)).sample(seed=1), explicit.expand((2, *asked)).sample(seed=1))


def test_expand_keeps_the_validation():
    for on in (True, False):
        p = Autoregressive(conditional_model(), contexts(), validate_args=on)
        assert p.expand((2,))._validate_args is on


def test_rows_keep_the_validation():
    chosen = torch.tensor([0, 0, 0])
    for p in (Autoregressive(FVSBN((3,)), validate_args=False), Autoregressive(conditional_model(), contexts())):
        p._validate_args = False
        assert p.rows(chosen).batch_shape == (3,)
        assert p.rows(chosen)._validate_args is False


def test_what_cannot_broadcast_is_refused():
    p = conditional_model()(contexts(2, 3))
    with pytest.raises(ValueError, match=r"value: expected a batch shape that broadcasts with \(2, 3\), got \(4,\)"):
        p.log_prob(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"value: expected shape \(\.\.\., 4\), got \(5,\)"):
        p.log_prob(torch.zeros(5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"value: expected shape \(\.\.\., 4\), got \(\)"):
        p.log_prob(torch.tensor(0))


def test_flattened_rows_are_in_row_major_order():
    model, c = conditional_model(), contexts(2, 3)
    p = model(c)
    flat = p.flattened(6)
    assert flat.batch_shape == (6,)
    u = uniforms(0, torch.arange(6), torch.arange(4), 1).flatten(1)
    by_row = torch.stack([model(c.reshape(6, 2)[i]).from_uniforms(u[i]) for i in range(6)])
    assert torch.equal(flat.sample_rows(torch.arange(6), seed=0), by_row)
    assert torch.equal(flat.flattened(6).sample_rows(torch.arange(6), seed=0), by_row)
    assert torch.equal(p.sample(seed=0), by_row.reshape(2, 3, 4))
    assert conditional_model()(contexts()).flattened(5).batch_shape == (5,)
    with pytest.raises(ValueError, match="batch_size: expected 6, got 5"):
        p.flattened(5)
    with pytest.raises(ValueError, match="flattened distribution cannot be expanded"):
        flat.expand((2, 3))


@pytest.mark.parametrize("own, lead", [((2, 3), (2, 3)), ((3,), (2, 3)), ((), (6,)), ((2, 1), (2, 3))])
def test_rows(own, lead):
    model, c = conditional_model(), contexts(*own)
    p = model(c).expand(lead)
    index = torch.tensor([5, 0, 3, 3])
    part = p.rows(index)
    assert part.batch_shape == (4,)
    assert torch.equal(part.sample_rows(index, seed=2), p.sample(seed=2).reshape(6, 4)[index])
    x = p.sample(seed=1).reshape(6, 4)[index]
    torch.testing.assert_close(part.log_prob(x), p.log_prob(p.sample(seed=1)).reshape(6)[index])


def test_rows_without_a_context_keep_the_order():
    model = randomised(OrderAgnosticMADE((4,), hidden_features=(6,)))
    p = model(order=RandomOrder((4,), 3)).expand((6,))
    index = torch.tensor([4, 1])
    assert torch.equal(p.rows(index).sample_rows(index, seed=0), p.sample(seed=0)[index])
    assert torch.equal(p.rows(index).order.permutation, p.order.permutation)


@pytest.mark.parametrize("name", ZOO)
def test_samples_are_functions_of_uniforms(name):
    made = ZOO[name]()
    model, c = model_of(made).double(), context_of(made, 3)
    p = model().expand((3,)) if c is None else model(c)
    lanes = model.head.num_uniforms
    assert p.num_uniforms == model.order.length * lanes
    u = uniforms(9, torch.arange(3), torch.arange(model.order.length), lanes).flatten(1)
    x = p.from_uniforms(u)
    assert same(x, p.sample(seed=9))
    assert x.shape == (3, *model.event_shape)
    again = p.expand((2, 3)).from_uniforms(u)  # uniforms broadcast
    assert same(again[1], x)


def test_the_support_is_that_of_rows():
    p = conditional_model()(contexts(3))
    assert p.support.event_dim == 1
    assert p.support.check(torch.tensor([[0, 1, 2, 2], [0, 1, 2, 3]])).tolist() == [True, False]


@pytest.mark.parametrize(
    "value, message",
    [
        ([0.0, 1.0, 3.0], r"value: expected .*, got 3.0 at \(0, 2\)"),
        ([0.5, 1.0, 1.0], r"value: expected .*, got 0.5 at \(0, 0\)"),
        ([0.0, math.nan, 1.0], r"value: expected .*, got nan at \(0, 1\)"),
    ],
)
def test_a_value_outside_the_support_is_named_with_its_place(value, message):
    with pytest.raises(ValueError, match=message):
        FVSBN((3,)).log_prob(torch.tensor([value]))


def test_an_infinite_value_is_refused_by_a_density():
    with pytest.raises(ValueError, match=r"value: expected a finite real number, got inf at \(1,\)"):
        MADE((2,), Normal(), hidden_features=(3,)).log_prob(torch.tensor([0.0, math.inf]))


def test_validation_can_be_turned_off():
    p = Autoregressive(FVSBN((3,)), validate_args=False)
    assert p.log_prob(torch.full((3,), 0.5)).isfinite()


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64])
def test_values_of_any_dtype(dtype):
    model = randomised(MADE((3,), hidden_features=(4,)))
    x = torch.tensor([[1, 0, 1], [0, 0, 1]])
    torch.testing.assert_close(model.log_prob(x.to(dtype)), model.log_prob(x.float()))
    labels = randomised(MADE((3,), Categorical(2), hidden_features=(4,)))
    torch.testing.assert_close(labels.log_prob(x.to(dtype)), labels.log_prob(x))


@pytest.mark.parametrize(
    "model, x",
    [
        (FVSBN((3,)), torch.zeros(0, 3)),
        (MADE((2, 2), Categorical(3), hidden_features=(4,)), torch.zeros(0, 2, 2, dtype=torch.int64)),
        (OrderAgnosticMADE((3,), hidden_features=(4,)), torch.zeros(0, 3)),
        (FullTable((3,)), torch.zeros(0, 3, dtype=torch.int64)),
    ],
    ids=["fvsbn", "made", "order_agnostic", "full_table"],
)
def test_no_rows_are_rows_too(model, x):
    assert model.log_prob(x).shape == (0,)
    assert model().log_prob_terms(x).shape == x.shape
    assert model.sample((0,)).shape == x.shape
    assert model.sample((2, 0)).shape == (2, *x.shape)


def test_a_context_is_asked_for_or_refused():
    with pytest.raises(ValueError, match="context: expected one for Labels"):
        FVSBN((3,), encoder=Labels(2))()
    with pytest.raises(ValueError, match="context: expected None, for the model has no encoder, got a context"):
        FVSBN((3,))(torch.zeros(2))


def test_an_order_is_refused_by_a_model_with_a_fixed_one():
    with pytest.raises(ValueError, match="order: expected None, for the model has a fixed order, got one"):
        FVSBN((3,))(order=Order((3,)))


def test_short_forms():
    model = conditional_model()
    x = model.sample((2,), contexts(), seed=1)
    assert torch.equal(x, model(contexts()).sample((2,), seed=1))
    torch.testing.assert_close(model.log_prob(x, contexts()), model(contexts()).log_prob(x))


# ---- noise


@pytest.mark.parametrize("name", ZOO)
def test_torchs_seed_decides_where_none_is_given(name):
    made = ZOO[name]()
    model, c = model_of(made), context_of(made, 2)
    torch.manual_seed(7)
    first, second = model.sample((8,), c), model.sample((8,), c)
    torch.manual_seed(7)
    assert same(model.sample((8,), c), first)
    assert not same(first, second)


@pytest.mark.parametrize("name", ZOO)
def test_a_sample_does_not_depend_on_how_many_are_drawn(name):
    made = ZOO[name]()
    model = model_of(made).double()
    c = context_of(made, 1)
    p = model() if c is None else model(c[0])
    many = p.sample((9,), seed=3)
    assert same(p.sample((1,), seed=3), many[:1])
    assert same(p.sample((3, 2), seed=3), many[:6].unflatten(0, (3, 2)))
    assert same(p.sample(seed=3), many[0])


def test_noise_is_made_in_blocks_of_positions():
    """130 positions take three blocks; a row's noise must not change at their edges."""
    model = randomised(FVSBN((130,))).double()
    x = model.sample((3,), seed=2)
    u = uniforms(2, torch.arange(3), torch.arange(130), 1)
    assert torch.equal(model().conditionals(x).from_uniforms(u), x)


def test_a_seed_leaves_torchs_generator_alone():
    model, before = FVSBN((3,)), torch.get_rng_state()
    model.sample((2,), seed=1)
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(0, 2**63 - 1))
def test_any_seed_will_do(seed):
    assert FVSBN((2,)).sample(seed=seed).shape == (2,)


# ---- the loop


def test_a_rollout_goes_on_after_a_prefix():
    model = randomised(MADE((5,), Categorical(3), hidden_features=(8,), order=RandomOrder((5,), 1))).double()
    p, x = model().expand((4,)), model.sample((4,), seed=0)
    positions = model.order.to_positions(x)
    for k in range(6):
        steps = list(rollout(p, lambda t, _: positions[:, t : t + 1], prefix=positions[:, :k]))
        assert [step.position for step in steps] == list(range(k, 5))
        got = [step.conditional.log_prob(step.value).squeeze(1) for step in steps]
        if got:
            expected = model.order.to_positions(p.log_prob_terms(x))[:, k:]
            torch.testing.assert_close(torch.stack(got, dim=1), expected)


def test_a_rollout_needs_one_batch_axis():
    with pytest.raises(ValueError, match=r"distribution: expected batch shape \(B,\), got \(\)"):
        next(rollout(FVSBN((2,))(), lambda t, p: p.sample()))


def greedy(position: int, conditional: td.Distribution) -> Tensor:
    return conditional.probs.argmax(-1)


def test_greedy_choice_is_the_mode_of_each_conditional():
    model = conditional_model()
    p = model(contexts(3))
    x = torch.cat([step.value for step in rollout(p, greedy)], dim=1)
    assert torch.equal(p.conditionals(x).probs.argmax(-1), x)


class Beams:
    """Beam search as a `choose`: the states follow the rows that it returns."""

    def __init__(self, width: int) -> None:
        self.width, self.values, self.scores = width, torch.zeros(1, 0, dtype=torch.int64), torch.zeros(1)

    def __call__(self, position: int, conditional: td.Categorical) -> tuple[Tensor, Tensor]:
        total = self.scores[:, None] + conditional.logits[:, 0]
        self.scores, best = total.flatten().topk(min(self.width, total.numel()))
        rows, value = best // total.shape[1], best % total.shape[1]
        self.values = torch.cat([self.values[rows], value[:, None]], dim=1)
        return value[:, None], rows


BEAM_MODELS = ["rnn_labels", "order_agnostic_made_labels", "decoder", "encoder_decoder", "masked_images_scan"]


@pytest.mark.parametrize("name", BEAM_MODELS)
def test_a_full_beam_finds_the_most_probable_row(name):
    made = ZOO[name]()
    model, c = model_of(made).double(), context_of(made, 3)
    p = model().expand((1,)) if c is None else model(c[2:3])
    everything = torch.stack(space(model))
    log_p = p.log_prob(everything)
    beams = Beams(width=len(everything))
    with torch.no_grad():
        list(rollout(p, beams))
    assert len(beams.values) == len(everything)
    found = model.order.to_data(beams.values)
    torch.testing.assert_close(beams.scores.double(), p.log_prob(found).detach(), rtol=0, atol=1e-5)
    assert torch.equal(found[0], everything[log_p.argmax()])
    torch.testing.assert_close(beams.scores.double(), log_p.sort(descending=True).values.detach(), rtol=0, atol=1e-5)


def test_a_narrow_beam_keeps_rows_and_states_together():
    model = model_of(ZOO["decoder"]()).double()
    beams = Beams(width=4)
    with torch.no_grad():
        list(rollout(model().expand((1,)), beams))
    torch.testing.assert_close(beams.scores.double(), model.log_prob(beams.values).detach(), rtol=0, atol=1e-5)
    assert len(beams.values.unique(dim=0)) == 4


# ---- the model is left as it was


def test_evaluating_gives_every_part_back_as_it_was():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5))).train()
    model[1].eval()
    expected = [module.training for module in model.modules()]
    assert expected == [True, True, False, False]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == expected

    def fail():
        with evaluating(model):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in model.modules()] == expected


def test_sampling_ignores_dropout_and_keeps_the_mode():
    model = randomised(MADE((5,), hidden_features=(16,), dropout=0.5)).train()
    x = model.sample((20,), seed=0)
    assert model.training
    assert torch.equal(model.eval().sample((20,), seed=0), x)


def attributes(model: nn.Module) -> Iterator[tuple[str, str, int]]:
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key not in ("_parameters", "_buffers", "_modules"):
                yield name, key, id(value)


@pytest.mark.parametrize("name", ZOO)
def test_running_a_model_changes_nothing_in_it(name, capsys):
    """No caches in attributes, no prints, the same weights, gradients as they were."""
    made = ZOO[name]()
    model, c = model_of(made), context_of(made, 2)
    before, weights = set(attributes(model)), copy.deepcopy(model.state_dict())
    p = model().expand((2,)) if c is None else model(c)
    x = p.sample(seed=0)
    p.log_prob(x).sum().backward()
    p.conditionals(x)
    list(rollout(p, lambda t, q: q.from_uniforms(torch.full((2, 1, model.head.num_uniforms), 0.5).double())))
    changed = {entry[:2] for entry in set(attributes(model)) ^ before} - {("", "training")}
    assert not changed
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ZOO)
def test_float32_is_close_to_float64(name):
    made = ZOO[name]()
    model, c = model_of(made).eval(), context_of(made, 3)
    exact = copy.deepcopy(model).double()
    p, q = ((m().expand((3,)) if c is None else m(c)) for m in (model, exact))
    x = q.sample((10,), seed=0)
    with torch.no_grad():
        got, expected = p.log_prob(x), q.log_prob(x)
        assert expected.dtype == torch.float64
        # Wild weights make wild numbers, whose digits float32 cannot hold.
        tame = (x.double().nan_to_num().abs().flatten(2).amax(-1) < 30) & (expected > -50)
        assert bool(tame.any())
        torch.testing.assert_close(got.double()[tame], expected[tame], rtol=1e-3, atol=1e-3)
        sampled = p.sample(seed=0)
    assert sampled.dtype == (model.head.value_dtype or torch.float32)


def test_an_encoder_runs_once_a_context():
    """Expanding over samples repeats what an encoder made, not its work."""

    class Counted(Vector):
        rows = 0

        def forward(self, context: Tensor) -> Tensor:
            Counted.rows += len(context)
            return context

    model = FVSBN((2,), encoder=Counted(2)).double()
    p = model(contexts(2, 3))
    p.sample((50,), seed=0)
    assert Counted.rows == 6
    p.log_prob(torch.zeros(50, 1, 1, 2))
    assert Counted.rows == 12


def test_the_start_symbol_is_zero_for_every_head():
    model = AutoregressiveModel(FVSBN((3,)).network, Bernoulli(), Order((3,)))
    x = torch.tensor([[1.0, 0, 1]])
    assert model.shifted(x, model.order).flatten().tolist() == [0, 1, 0]
