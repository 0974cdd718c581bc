"""Heads: features, parameters, supports, and the marginals that training starts from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from seriatim.channels import ChannelMixtureOfLogistics
from seriatim.columns import Columns
from seriatim.context import Encoder, Labels, Vector
from seriatim.heads import (
    Bernoulli,
    Categorical,
    Head,
    Logistic,
    MixtureOfLogistics,
    MixtureOfNormals,
    MultivariateNormal,
    Normal,
    QuantizedMixtureOfLogistics,
    mixture_marginal,
)
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, NADE, NeuralConditionals, OrderAgnosticMADE
from seriatim.nested import Nested
from seriatim.order import Order
from seriatim.symbols import Symbols
from zoo import ZOO, model_of

ROWS = 400


def real_rows(*shape: int) -> Tensor:
    """Rows whose positions differ in mean and spread."""
    x = torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(0))
    scale = torch.arange(1, x[0].numel() + 1).reshape(shape)
    return x * scale + 3 * scale


def integer_rows(levels: int, *shape: int) -> Tensor:
    p = torch.rand(math.prod(shape), levels, generator=torch.Generator().manual_seed(1)) + 0.05
    rows = torch.multinomial(p, ROWS, replacement=True, generator=torch.Generator().manual_seed(2))
    return rows.T.reshape(ROWS, *shape)


HEADS: dict[str, tuple[Head, Tensor]] = {
    "bernoulli": (Bernoulli(), integer_rows(2, 3).float()),
    "categorical": (Categorical(4), integer_rows(4, 3)),
    "normal": (Normal(), real_rows(3)),
    "logistic": (Logistic(), real_rows(3)),
    "mixture_of_normals": (MixtureOfNormals(3), real_rows(3)),
    "mixture_of_logistics": (MixtureOfLogistics(3), real_rows(3)),
    "quantized": (QuantizedMixtureOfLogistics(16, 3), (integer_rows(16, 3))),
    "multivariate_normal": (MultivariateNormal(2), real_rows(3, 2)),
    "channels": (ChannelMixtureOfLogistics(16, 3, channels=2), integer_rows(16, 3, 2)),
}


@pytest.mark.parametrize("name", HEADS)
def test_shapes_and_dtypes(name):
    head, data = HEADS[name]
    features = head.encode(data[:5])
    assert features.shape == (5, 3, head.num_features)
    assert features.dtype == torch.float32
    conditional = head(torch.zeros(5, 3, head.num_params))
    assert tuple(conditional.batch_shape) == (5, 3)
    assert tuple(conditional.event_shape) == head.value_shape
    assert conditional.num_uniforms == head.num_uniforms
    value = conditional.from_uniforms(torch.full((5, 3, head.num_uniforms), 0.3).double())
    assert value.shape == (5, 3, *head.value_shape)
    assert value.dtype == (head.value_dtype or torch.float32)
    assert bool(head.support.check(value).all())
    assert conditional.log_prob(value).shape == (5, 3)
    assert repr(head).startswith(type(head).__name__)


@pytest.mark.parametrize("name", HEADS)
def test_features_tell_values_apart(name):
    head, data = HEADS[name]
    values, features = data[:, :1].unflatten(0, (-1, 1)), head.encode(data[:, :1])[:, 0]
    for i in range(0, 40, 2):
        same = torch.equal(values[i], values[i + 1])
        assert torch.equal(features[i], features[i + 1]) == same


def test_integers_are_read_in_the_default_dtype():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert Categorical(3).encode(torch.tensor([[1]])).dtype == torch.float64
        assert QuantizedMixtureOfLogistics(4, 1).encode(torch.tensor([[1]])).dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_what_each_head_reads():
    assert Bernoulli().encode(torch.tensor([[1, 0]])).tolist() == [[[1.0], [0.0]]]
    assert Categorical(3).encode(torch.tensor([[2, 0]])).tolist() == [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    assert QuantizedMixtureOfLogistics(5, 1).encode(torch.tensor([[0, 2, 4]])).flatten().tolist() == [-1, 0, 1]
    assert Symbols([2, 4]).encode(torch.tensor([[1, 3]])).tolist() == [[[1.0], [3.0]]]
    assert MultivariateNormal(2).encode(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[1.0, 2.0]]]


def test_nested_lays_the_inner_features_side_by_side():
    inner = NADE((3,), Categorical(2), hidden_features=2, encoder=Vector(5), order=Order((3,), [2, 0, 1]))
    head = Nested(inner)
    assert (head.value_shape, head.num_params, head.num_features, head.num_uniforms) == ((3,), 5, 6, 3)
    features = head.encode(torch.tensor([[[0, 1, 1]]]))
    assert features.tolist() == [[[0.0, 1.0, 1.0, 0.0, 0.0, 1.0]]]  # places 2, 0, 1, one-hot


def test_nested_needs_an_inner_vector():
    with pytest.raises(ValueError, match="model: expected an inner model with a Vector encoder, got None"):
        Nested(NADE((3,), hidden_features=2))


def test_symbols_know_the_arity_of_each_place():
    head = Symbols([2, 3, 2, 4], (2, 2))
    assert head.support.check(torch.tensor([[1, 2], [2, 3]])).tolist() == [[True, True], [False, True]]
    assert not bool(head.support.check(torch.tensor([[0.5, -1.0], [0.0, 4.0]]))[0].any())
    assert [len(head.values_at(place)) for place in range(4)] == [2, 3, 2, 4]
    with pytest.raises(ValueError, match="arities: expected one positive number or more, got"):
        Symbols([2, 0])


@pytest.mark.parametrize(
    "make, argument",
    [
        (lambda: Categorical(0), "num_categories"),
        (lambda: Normal(0.0), "min_scale"),
        (lambda: Logistic(-1.0), "min_scale"),
        (lambda: MixtureOfNormals(0), "num_components"),
        (lambda: MixtureOfLogistics(2, min_scale=math.nan), "min_scale"),
        (lambda: QuantizedMixtureOfLogistics(1), "levels"),
        (lambda: MultivariateNormal(0), "num_dimensions"),
        (lambda: Labels(0), "num_classes"),
        (lambda: Vector(0), "num_features"),
        (lambda: NADE((3,), activation="tanh"), "activation"),
        (lambda: MADE((3,), hidden_features=()), "hidden_features"),
        (lambda: MADE((3,), hidden_features=(4, 4), residual=True), "hidden_features"),
        (lambda: NeuralConditionals((3,), hidden_features=()), "hidden_features"),
    ],
)
def test_bad_arguments_name_themselves(make, argument):
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*, got "):
        make()


@pytest.mark.parametrize(
    "encoder, context, message",
    [
        (Labels(3), torch.tensor([0, 3]), r"context: expected labels in 0..2, got 0..3"),
        (Labels(3), torch.tensor([-1]), r"context: expected labels in 0..2, got -1..-1"),
        (Labels(3), torch.tensor([0.5]), r"context: expected integer labels, got torch.float32"),
        (Vector(2), torch.zeros(4, 3), r"context: expected vectors of size 2, got \(4, 3\)"),
        (Vector(2), torch.tensor(1.0), r"context: expected vectors of size 2, got \(\)"),
        (Vector(1), torch.tensor([math.nan]), r"context: expected finite numbers, got NaN or infinity"),
    ],
)
def test_bad_contexts_are_refused(encoder, context, message):
    with pytest.raises(ValueError, match=message):
        FVSBN((2,), encoder=encoder)(context)


def test_an_empty_batch_of_labels_is_a_context():
    Labels(3).check(torch.zeros(0, dtype=torch.int64))
    assert Labels(3)(torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


def test_abstract_classes_say_what_is_missing():
    for call in (
        lambda: Head().encode(torch.zeros(1)),
        lambda: Head()(torch.zeros(1)),
        lambda: Head().support,
        lambda: Encoder()(torch.zeros(1)),
    ):
        with pytest.raises(NotImplementedError, match="must define"):
            call()


# ---- the marginals


def silenced(model: AutoregressiveModel) -> AutoregressiveModel:
    """Set every weight to zero, so that the output biases speak alone."""
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def check_marginals(head: Head, conditional: torch.distributions.Distribution, x: Tensor) -> None:
    """Compare conditionals of batch shape (T,) with the values (N, T, ...) at each position."""
    x = x.double()
    if isinstance(head, Bernoulli):
        torch.testing.assert_close(conditional.probs.double(), (x.sum(0) + 0.5) / (ROWS + 1), rtol=0, atol=1e-5)
    elif isinstance(head, Categorical):
        k = head.num_categories
        counts = nn.functional.one_hot(x.long(), k).sum(0)
        expected = (counts + 0.5) / (ROWS + 0.5 * k)
        torch.testing.assert_close(conditional.probs.double(), expected.double(), rtol=0, atol=1e-5)
    elif isinstance(head, QuantizedMixtureOfLogistics):
        support = torch.cartesian_prod(*[torch.arange(head.levels)] * getattr(head, "channels", 1))
        support = support.reshape(-1, 1, *head.value_shape)
        probs = conditional.log_prob(support).exp().reshape(-1, x.shape[1], *[1] * len(head.value_shape))
        mean = (probs * support).sum(0).double()
        torch.testing.assert_close(mean, x.mean(0), rtol=0, atol=0.5)
        spread = ((probs * support**2).sum(0) - mean**2).sqrt().double()
        torch.testing.assert_close(spread, x.std(0), rtol=0.2, atol=0)
    else:
        mixture = hasattr(head, "num_components")
        mean, spread = conditional.mean.double(), conditional.variance.double().sqrt()
        torch.testing.assert_close(mean, x.mean(0), rtol=0.05 if mixture else 1e-4, atol=0)
        torch.testing.assert_close(spread, x.std(0, unbiased=False), rtol=0.15 if mixture else 1e-2, atol=0)


@pytest.mark.parametrize("make", [FVSBN, MADE, NADE, NeuralConditionals, OrderAgnosticMADE])
@pytest.mark.parametrize("name", HEADS)
def test_training_starts_at_the_marginals(name, make):
    head, data = HEADS[name]
    options = {} if make is FVSBN else {"hidden_features": 8 if make is NADE else (8,)}
    model = silenced(make((3,), head, order=Order((3,), [1, 2, 0]), **options))
    model.initialise_output(data)
    conditional = model().conditionals(data[0])
    check_marginals(head, conditional, model.order.to_positions(data))


def test_an_order_agnostic_model_starts_at_the_marginals_in_any_order():
    head, data = HEADS["normal"]
    model = silenced(OrderAgnosticMADE((3,), head, hidden_features=(8,), order=Order((3,), [1, 2, 0])))
    model.initialise_output(data)
    for permutation in ([0, 1, 2], [2, 0, 1]):
        order = Order((3,), permutation)
        check_marginals(head, model(order=order).conditionals(data[0]), order.to_positions(data))


@pytest.mark.parametrize("make", [FVSBN, MADE, NADE, NeuralConditionals, OrderAgnosticMADE])
def test_a_fresh_model_is_near_the_factorised_one(make):
    data = HEADS["bernoulli"][1]
    torch.manual_seed(0)
    model = make((3,))
    model.initialise_output(data)
    p = (data.mean(0)).clamp(1e-3, 1 - 1e-3)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum()
    with torch.no_grad():
        assert float(-model.log_prob(data).mean()) == pytest.approx(float(entropy), abs=0.05)


def test_one_bias_for_all_positions_takes_the_values_of_all():
    class Shared(nn.Module):
        order_agnostic = False

        def __init__(self):
            super().__init__()
            self.output_bias = nn.Parameter(torch.zeros(1))

    model = AutoregressiveModel(Shared(), Bernoulli(), Order((3,)))
    data = torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    model.initialise_output(data)
    assert torch.sigmoid(model.network.output_bias).item() == pytest.approx(5.5 / 7)


def test_a_nested_model_starts_at_its_own_marginals():
    inner = NADE((2,), hidden_features=3, encoder=Vector(4))
    model = silenced(FVSBN((3,), Nested(inner)))
    data = integer_rows(2, 3, 2).float()
    model.initialise_output(data)
    p = model().conditionals(data[0])
    expected = (data.flatten(0, 1).sum(0) + 0.5) / (3 * ROWS + 1)
    for bits in (torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])):
        mass = torch.where(bits > 0, expected, 1 - expected).prod()
        torch.testing.assert_close(p.log_prob(bits).exp(), mass.expand(3))


def test_columns_start_at_the_frequencies_of_their_symbols():
    head = Columns([{"kind": "categorical", "num_categories": 3}, {"kind": "continuous", "mean": 2.0, "std": 3.0}], 2)
    codes = integer_rows(3, 1).double()
    numbers = real_rows(1).double()
    numbers[:40] = math.nan
    data = torch.cat([codes, numbers], dim=1)
    model = silenced(FVSBN((2,), head))
    model.initialise_output(data)
    p = model().conditionals(data[0])
    frequencies = torch.bincount(codes.flatten().long(), minlength=3) / ROWS
    for k in range(3):
        mass = p.log_prob(torch.tensor([k, 0.0]).double())[0].exp().item()
        assert mass == pytest.approx(float(frequencies[k]), abs=0.01)
    missing = p.log_prob(torch.tensor([0.0, math.nan]).double())[1].exp().item()
    assert missing == pytest.approx(0.1, abs=0.01)


def test_constant_values_do_not_make_a_marginal_infinite():
    for head in (Normal(), Logistic(), MixtureOfNormals(2), MixtureOfLogistics(2)):
        params = head.marginal_params(torch.ones(10, 2))
        assert bool(params.isfinite().all())
        assert bool(head(params[None]).log_prob(torch.ones(1, 2)).isfinite().all())


def test_mixture_components_are_spread_over_the_quantiles():
    values = torch.linspace(0, 1, 1001)[:, None].repeat(1, 2)
    logits, loc, log_scale = mixture_marginal(values, 4)
    torch.testing.assert_close(loc, torch.tensor([0.125, 0.375, 0.625, 0.875]).expand(2, 4), rtol=0, atol=2e-3)
    assert not bool(logits.any())
    assert log_scale.shape == (2, 4)


def test_a_model_without_output_biases_is_left_alone():
    model = model_of(ZOO["bayesnet"]())
    before = model.table.logits.clone()
    model.initialise_output(model.sample((5,), seed=0))
    assert torch.equal(model.table.logits, before)


def test_a_covariance_is_that_of_its_factor():
    head = MultivariateNormal(3, min_scale=0.1)
    params = torch.arange(9.0)[None, None] / 10
    p = head(params)
    factor = p.scale_tril[0, 0]
    expected = torch.tensor([[math.exp(0.3), 0, 0], [0.6, math.exp(0.4), 0], [0.7, 0.8, math.exp(0.5)]])
    torch.testing.assert_close(factor, expected + 0.1 * torch.eye(3))
    torch.testing.assert_close(p.loc[0, 0], torch.tensor([0.0, 0.1, 0.2]))


def test_parameters_of_any_size_keep_log_prob_finite():
    for name, (head, data) in HEADS.items():
        for size in (-1e4, 1e4):
            params = torch.full((4, 3, head.num_params), size, requires_grad=True)
            log_p = head(params).log_prob(data[:4].float() if head.value_dtype is None else data[:4])
            assert not bool(log_p.isnan().any()), (name, size)
