"""Tables on the native engine: Bayes nets, symbols, columns, vectors, any order; and the parameters of their heads."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from engine_checks import SEED, agree, caught, changed, drawn, terms_of
from seriatim import engine
from seriatim.causal import CausalSequential
from seriatim.channels import ChannelMixtureOfLogistics
from seriatim.columns import Columns
from seriatim.context import Labels, Vector
from seriatim.engine import samplers
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import Bernoulli, Categorical, Head, MultivariateNormal
from seriatim.layers import CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, LSTM, MADE, NADE, BayesNet, FullTable, OrderAgnosticMADE
from seriatim.order import Order, RandomOrder
from seriatim.symbols import Symbols, SymbolsOrMissing

KINDS = [
    {"kind": "categorical", "num_categories": 4},
    {"kind": "continuous", "mean": 1e6 + 1 / 3, "std": 0.7, "atoms": [0.1, 1e6]},
    {"kind": "integer", "mean": 33.3, "std": 12.7},
    {"kind": "continuous", "mean": -1e-3, "std": 1e-4, "resolution": 1e-5},
    {"kind": "categorical", "num_categories": 1},
    {"kind": "integer", "mean": -2.0, "std": 0.3},
]
ARITIES = [2, 5, 3, 1, 4, 2]


def bayesnet(missing: bool = False) -> AutoregressiveModel:
    arities = [k + 1 for k in ARITIES] if missing else ARITIES
    return drawn(BayesNet((2, 3), arities, [(1, 4), (), (0, 1, 4), (2,), (), (0,)], missing=missing), 1.5)


def large_table() -> AutoregressiveModel:
    # More rows than one float32 part of an offset holds.
    return drawn(BayesNet((17,), 2, [()] * 16 + [tuple(range(16))]), 2.0)


CASES: dict[str, Callable[[], AutoregressiveModel]] = {
    "bayesnet": bayesnet,
    "bayesnet_missing": lambda: bayesnet(missing=True),
    "full_table": lambda: drawn(FullTable((2, 3), ARITIES), 2.0),
    "large_table": large_table,
    "symbols": lambda: drawn(FVSBN((6,), Symbols(ARITIES), order=RandomOrder((6,), 1))),
    "symbols_or_missing": lambda: drawn(
        MADE((6,), SymbolsOrMissing([k + 1 for k in ARITIES]), hidden_features=(20,), order=RandomOrder((6,), 2))
    ),
    "columns": lambda: drawn(MADE((6,), Columns(KINDS, 3), hidden_features=(30,), order=RandomOrder((6,), 3)), 0.2),
    "columns_nade": lambda: drawn(NADE((6,), Columns(KINDS, 2), hidden_features=20, encoder=Labels(2)), 0.2),
    "columns_of_categories": lambda: drawn(FVSBN((3,), Columns([{"kind": "categorical", "num_categories": 4}] * 3))),
    "any_order": lambda: drawn(OrderAgnosticMADE((13,), hidden_features=(30, 30, 30), residual=True)),
    "any_order_labels": lambda: drawn(
        OrderAgnosticMADE((7,), Categorical(4), hidden_features=(30,), encoder=Labels(2), order=RandomOrder((7,), 1))
    ),
    "any_order_columns": lambda: drawn(
        OrderAgnosticMADE((6,), Columns(KINDS, 2), hidden_features=(30,), order=RandomOrder((6,), 4)), 0.2
    ),
    "vectors": lambda: drawn(LSTM((30,), MultivariateNormal(4), hidden_features=9), 0.2),
    "vector_of_one": lambda: drawn(MADE((5,), MultivariateNormal(1), hidden_features=(20,), encoder=Vector(2)), 0.2),
    "channels": lambda: drawn(LSTM((40,), ChannelMixtureOfLogistics(256, 3, channels=3), hidden_features=9), 0.3),
    "four_channels": lambda: drawn(LSTM((30,), ChannelMixtureOfLogistics(7, 2, channels=4), hidden_features=9), 0.3),
    "one_channel": lambda: drawn(LSTM((30,), ChannelMixtureOfLogistics(16, 2, channels=1), hidden_features=9), 0.3),
}


def context_of(model: AutoregressiveModel) -> torch.Tensor | None:
    if model.encoder is None:
        return None
    generator = torch.Generator().manual_seed(5)
    return torch.arange(16) % 2 if isinstance(model.encoder, Labels) else torch.randn(16, 2, generator=generator)


@pytest.mark.parametrize("name", CASES)
def test_samples_and_log_p_are_those_of_the_reference(name):
    model = CASES[name]()
    length = model.order.length
    x = agree(model, context_of(model), prompts=sorted({1, length // 2, length - 1}), tolerance=1e-4, log_p=5e-4)
    assert len(x.flatten(1).unique(dim=0)) > 8


def test_numbers_of_columns_keep_their_digits():
    model = CASES["columns"]()
    native, reference = (model.sample((500,), seed=2, engine=path) for path in ("native", "reference"))
    torch.testing.assert_close(native, reference, rtol=1e-7, atol=0, equal_nan=True)
    kept = native[:, 1]
    assert bool((kept == 0.1).any())  # an atom, as it was given
    assert torch.equal(native[:, 2][~native[:, 2].isnan()] % 1, torch.zeros(int((~native[:, 2].isnan()).sum())))
    assert bool(native.isnan().any())


def test_three_floats_hold_a_double():
    numbers = torch.tensor([1 / 3, -1e-9 / 7, 123456789.123456789, 1e30 / 3, 0.0], dtype=torch.float64)
    assert torch.equal(samplers.exact(numbers).double().sum(-1), numbers)


def test_every_order_has_its_own_program():
    model = CASES["any_order"]()
    for order in (Order((13,)), RandomOrder((13,), 7)):
        p = model(order=order).expand((5,))
        x = p.sample(seed=SEED, engine="native")
        assert torch.equal(x, p.sample(seed=SEED, engine="reference"))
        session = engine.start(p, torch.arange(5), SEED, engine.lower(model, order))
        samples = session.advance(13, log_probs=True)
        torch.testing.assert_close(samples.log_probs, terms_of(p, x), rtol=0, atol=1e-4)
    ensemble = model.ensemble(3)
    found, wanted = (ensemble.sample((20,), seed=1, engine=path) for path in ("native", "reference"))
    assert torch.equal(found, wanted)


# ---- parameters that are no distribution, and what is refused


class Constant(AutoregressiveModel):
    """A model whose parameters do not depend on anything."""

    def __init__(self, head: Head, params: torch.Tensor, length: int = 4) -> None:
        network = CausalSequential(CausalConv1d(head.num_features, head.num_params, 1))
        super().__init__(network, head, Order((length,)))
        nn.init.zeros_(network.layers[0].taps.weight)
        network.layers[0].taps.bias.data.copy_(params)
        self.eval()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize(
    "head",
    [
        Symbols([2, 3, 2, 2]),
        MultivariateNormal(3),
        ChannelMixtureOfLogistics(16, 2, channels=3),
        Columns([{"kind": "integer", "mean": 0.0, "std": 1.0}] * 4, 2),
    ],
    ids=str,
)
def test_parameters_that_are_no_numbers_stop(head, place, bad):
    params = torch.zeros(head.num_params)
    params[place] = bad
    if isinstance(head, Symbols) and place and bad == torch.inf:
        params[1], params[2] = params[2], 0.0  # beyond an arity it does no harm
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 9"):
        engine.sample_rows(Constant(head, params)().expand((1,)), torch.tensor([9]), seed=0)


def test_what_lies_beyond_an_arity_is_never_drawn():
    model = Constant(Symbols([2, 3, 1]), torch.tensor([0.0, 0.0, 9.0]), length=3)
    assert model.sample((50,), seed=0, engine="native").amax(0).tolist() == [1, 2, 0]


def test_an_impossible_symbol_is_never_drawn():
    head = Columns([{"kind": "categorical", "num_categories": 3}] * 4)
    model = Constant(head, torch.tensor([0, -torch.inf, 0, 0, 0]))
    found, wanted = (model.sample((50,), seed=0, engine=path) for path in ("native", "reference"))
    assert torch.equal(found.nan_to_num(-1), wanted.nan_to_num(-1))
    assert sorted(found.nan_to_num(-1).unique().tolist()) == [-1, 0, 2, 3]


def test_what_cannot_be_lowered_says_so():
    head = Columns([{"kind": "integer", "mean": 0.0, "std": 1.0, "atoms": [3]}] * 2)
    with pytest.raises(engine.CannotLower, match="whole numbers of which some are atoms"):
        engine.lower(FVSBN((2,), head))

    class Louder(Bernoulli):
        def encode(self, values, variables=None):
            return 2 * super().encode(values)

    with pytest.raises(engine.CannotLower, match="the Louder head has no sampler"):
        engine.lower(FVSBN((2,), Louder()))

    class Other(Columns):
        def forward(self, params, variables=None):
            return super().forward(2 * params, variables)

    with pytest.raises(engine.CannotLower, match="the Other head has no sampler"):
        engine.lower(FVSBN((2,), Other(KINDS[:2])))


# ---- planted bugs

BUGS = {
    "parents of another position": ("bayesnet", Op.LOOK_UP, 1, 1),
    "arities of other places": ("symbols", Op.CATEGORICAL, 5, 0),
    "the code that is read": ("symbols", Op.CATEGORICAL, 1, 1),
    "the noise of vectors": ("vectors", Op.VECTOR, 2, 1),
    "the channels' noise": ("channels", Op.CHANNELS, 2, 1),
    "one channel too few": ("channels", Op.CHANNELS, 1, 2),
    "one component too few": ("columns", Op.COLUMN, 1, 2),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    name, op, number, value = BUGS[bug]
    model = CASES[name]()
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, program, wanted, 1e-4)
    assert caught(p, changed(program, op, NUMBERS + number, value), wanted, 1e-4)


def test_another_order_is_caught():
    model = CASES["any_order"]()
    p = model(order=RandomOrder((13,), 7)).expand((16,))
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, engine.lower(model, p.order), wanted)
    assert caught(p, engine.lower(model), wanted)
