"""FVSBN, NADE, MADE and the neural conditionals against their equations, and what their sampling costs."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seriatim.context import Labels, Vector
from seriatim.heads import Categorical, MixtureOfNormals, Normal
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, NADE, NeuralConditionals, OrderAgnosticMADE
from seriatim.order import Order, RandomOrder
from seriatim.testing import check
from zoo import randomised


def bits(rows: int, places: int) -> Tensor:
    return torch.randint(2, (rows, places), generator=torch.Generator().manual_seed(0)).double()


# ---- equations


def test_fvsbn_is_a_logistic_regression_a_position():
    order = Order((4,), [2, 0, 3, 1])
    model = randomised(FVSBN((4,), order=order)).double()
    weight, bias = model.network.linear.weight, model.network.linear.bias
    x = bits(5, 4)
    inputs = x[:, order.permutation]
    for t in range(4):
        # Column s + 1 reads the value at position s: inputs are shifted by one.
        logits = bias[t] + inputs[:, :t] @ weight[t, 1 : t + 1]
        torch.testing.assert_close(model().conditionals(x).logits[:, t], logits)
    assert torch.equal(model().conditionals(x).logits[:, 0], bias[0].expand(5))  # the first factor is a table


def test_nade_is_its_equation():
    model = randomised(NADE((4,), hidden_features=5, encoder=Vector(2))).double()
    net, x, c = model.network, bits(3, 4), torch.randn(3, 2).double()
    for t in range(4):
        hidden = net.bias + net.context(c)
        for s in range(t):
            hidden = hidden + x[:, s, None] * net.weight[s + 1, 0]
        logits = torch.sigmoid(hidden) @ net.output_weight[t] + net.output_bias[t]
        torch.testing.assert_close(model(c).conditionals(x).logits[:, t], logits[:, 0])


def test_neural_conditionals_share_nothing():
    model = randomised(NeuralConditionals((3,), hidden_features=(4, 5))).double()
    net, x = model.network, bits(6, 3)
    first, last = net.weights
    for t in range(3):
        own = slice(4 * t, 4 * t + 4)
        h = net.input.bias[own] + x[:, :t] @ net.input.weight[own, 1 : t + 1].T
        h = torch.relu(h) @ first[t] + net.biases[0][t]
        logits = torch.relu(h) @ last[t] + net.biases[1][t]
        torch.testing.assert_close(model().conditionals(x).logits[:, t], logits[:, 0])


@pytest.mark.parametrize("residual", [False, True])
def test_made_is_a_masked_feed_forward_net(residual):
    model = randomised(MADE((4,), hidden_features=(7,) * 5, residual=residual)).double().eval()
    net, x = model.network, bits(5, 4)
    shifted = torch.cat([torch.zeros(5, 1).double(), x[:, :-1]], dim=1)

    def dense(layer: nn.Module, inputs: Tensor) -> Tensor:
        return inputs @ (layer.weight * layer.mask).T + layer.bias

    h = dense(net.input, shifted)
    if residual:
        for first, second in (net.hidden[:2], net.hidden[2:]):
            h = h + dense(second, torch.relu(dense(first, torch.relu(h))))
    else:
        for layer in net.hidden:
            h = dense(layer, torch.relu(h))
    y = dense(net.output, torch.relu(h)) + dense(net.direct, shifted)
    torch.testing.assert_close(model().conditionals(x).logits, y)


@given(st.permutations(range(4)))
def test_weights_of_an_order_agnostic_made_belong_to_variables(order):
    model = randomised(OrderAgnosticMADE((4,), hidden_features=(9,))).double()
    net, x = model.network, bits(5, 4)
    owners = torch.arange(4).repeat_interleave(torch.tensor(net.input.out_ends).diff())
    logits = model(order=Order((4,), order)).conditionals(x).logits
    for t, variable in enumerate(order):
        hidden = net.input.bias.expand(5, -1)
        logit = net.output.bias[variable].expand(5)
        for s, earlier in enumerate(order[:t]):
            read = torch.stack([x[:, earlier], torch.ones(5).double()], dim=1)  # the value, and that it is known
            columns = slice(2 * earlier, 2 * earlier + 2)
            hidden = hidden + (read @ net.input.weight[:, columns].T) * (owners > s)
            logit = logit + read @ net.direct.weight[variable, columns]
        logit = logit + net.direct.bias[variable] + torch.relu(hidden) * (owners <= t) @ net.output.weight[variable]
        torch.testing.assert_close(logits[:, t], logit)


def test_the_hidden_units_of_made_carry_every_dependency():
    """Without the direct connections the hidden path alone reaches every earlier value, in every order."""
    for make in (MADE, OrderAgnosticMADE):
        model = randomised(make((5,), hidden_features=(40, 40), order=RandomOrder((5,), 1)))
        nn.init.zeros_(model.network.direct.weight)
        assert check(model, only=["receptive_field", "causality"]).ok


def test_logistic_regression_is_a_model_of_one_position():
    model = randomised(FVSBN((1,), encoder=Vector(3))).double()
    c = torch.randn(4, 3).double()
    logits = model.network.linear.context(c) + model.network.linear.bias
    torch.testing.assert_close(model(c).log_prob(torch.ones(4, 1)), torch.sigmoid(logits).log()[:, 0])


def test_a_classifier_is_a_model_of_one_position():
    """p(y | x) learns a boundary that no linear map has."""
    torch.manual_seed(0)
    c = torch.rand(400, 2) * 2 - 1
    y = (c.prod(1) > 0).long()[:, None]
    model = NeuralConditionals((1,), Categorical(2), hidden_features=(16,), encoder=Vector(2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -model(c).log_prob(y).mean()
        loss.backward()
        optimizer.step()
    predicted = model(c).conditionals(y).probs.argmax(-1)
    assert float((predicted == y).double().mean()) > 0.95


def test_dropout_acts_in_training_only():
    model = randomised(MADE((5,), hidden_features=(30,), dropout=0.5))
    x = bits(4, 5)
    assert not torch.equal(model.train().log_prob(x), model.log_prob(x))
    assert torch.equal(model.eval().log_prob(x), model.log_prob(x))


@pytest.mark.parametrize("make", [FVSBN, NADE, MADE, OrderAgnosticMADE, NeuralConditionals])
def test_more_positions_than_a_block_of_any_layer(make):
    """Sizes of the zoo are tiny; here chunks, blocks of sums and blocks of noise have edges to go wrong at."""
    model = randomised(make((70,)) if make is FVSBN else make((70,), hidden_features=6 if make is NADE else (6,)))
    report = check(model, only=["chunks", "causality", "forced_rollout", "inverse_transform", "addressed_noise"])
    assert report.ok, str(report)


@given(st.integers(1, 4), st.integers(1, 9))
def test_made_of_any_width(places, width):
    model = randomised(MADE((places,), hidden_features=(width, width))).double()
    everything = torch.tensor(list(itertools.product((0.0, 1.0), repeat=places))).double()
    assert model.log_prob(everything).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_gradients_reach_every_order():
    """An order-agnostic model trained on drawn orders comes to know all of them."""
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0, 0], [1, 1, 1]]).repeat(20, 1)
    model = OrderAgnosticMADE((3,), hidden_features=(16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -model.training_distribution().log_prob(x).mean()
        loss.backward()
        optimizer.step()
    for permutation in itertools.permutations(range(3)):
        nats = -model(order=Order((3,), permutation)).log_prob(x).mean().item()
        assert nats < 0.75  # log 2 = 0.693 is the least


# ---- cost


def flops(run) -> int:
    """Multiply-adds times two of all matrix products, whatever calls them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


D, B = 48, 8
MODELS = {
    "fvsbn": lambda: FVSBN((D,)),
    "fvsbn_categorical": lambda: FVSBN((D,), Categorical(3), encoder=Labels(2)),
    "nade": lambda: NADE((D,), hidden_features=64),
    "rnade": lambda: NADE((D,), MixtureOfNormals(3), hidden_features=64),
    "made": lambda: MADE((D,), hidden_features=(96, 96)),
    "made_residual": lambda: MADE((D,), Normal(), hidden_features=(96,) * 3, residual=True),
    "neural_conditionals": lambda: NeuralConditionals((D,), hidden_features=(8, 8)),
    "order_agnostic_made": lambda: OrderAgnosticMADE((D,), hidden_features=(96,), order=RandomOrder((D,), 0)),
}


def dense_pass(model: AutoregressiveModel) -> int:
    """The matrix products of one pass that masks but does not skip: every weight once for every row."""
    weights = [p for name, p in model.named_parameters() if "weight" in name]
    return 2 * B * sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("name", MODELS)
def test_sampling_all_positions_costs_about_one_pass(name):
    model = MODELS[name]().eval().requires_grad_(False)
    c = torch.zeros(B, dtype=torch.int64) if model.encoder else None
    p = model().expand((B,)) if c is None else model(c)
    x = p.sample(seed=0)
    sampling, parallel = flops(lambda: p.sample(seed=0, engine="reference")), flops(lambda: p.log_prob(x))
    assert sampling <= 1.1 * dense_pass(model)
    assert parallel >= sampling / 1.1
    assert sampling > 0


def test_the_count_would_see_a_pass_a_position():
    from seriatim.causal import Recompute

    model = MODELS["made"]().eval()
    slow = AutoregressiveModel(Recompute(model.network), model.head, model.order)
    assert flops(lambda: slow().sample((B,), seed=0, engine="reference")) > 5 * dense_pass(model)
