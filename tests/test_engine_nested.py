"""Models inside a position on the native engine: chords, channels and models in models, as `rollout` samples them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from engine_checks import SEED, agree, caught, changed, drawn
from seriatim import engine
from seriatim.causal import CausalSequential
from seriatim.context import Labels, Vector
from seriatim.ending import Ending
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import Bernoulli, Categorical, MixtureOfLogistics, Normal, QuantizedMixtureOfLogistics
from seriatim.independent import Independent
from seriatim.layers import LSTM as LSTMLayer
from seriatim.layers import CausalConv1d
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, GRU, LSTM, MADE, NADE, GatedPixelCNN, NeuralConditionals, PixelSNAIL, WaveNet
from seriatim.nested import Nested
from seriatim.order import Order, RandomOrder

T = 20
P = 7
WAVES = {"num_blocks": 1, "layers_per_block": 3, "residual_features": 9, "gate_features": 8, "skip_features": 7}
CONTEXT = Vector(P)


def over_time(inner: AutoregressiveModel, length: int = T, std: float = 0.4) -> AutoregressiveModel:
    return drawn(LSTM((length,), Nested(inner), hidden_features=8), std)


def ending_chords() -> AutoregressiveModel:
    model = drawn(LSTM((T,), Ending(Nested(NADE((11,), hidden_features=20, encoder=CONTEXT))), hidden_features=8))
    model.network.output_bias[0] = -2
    return model


INNER: dict[str, Callable[[], AutoregressiveModel]] = {
    "nade": lambda: NADE((11,), hidden_features=20, encoder=CONTEXT, order=RandomOrder((11,), 1)),
    "nade_relu_levels": lambda: NADE(
        (5,), QuantizedMixtureOfLogistics(5, 2), hidden_features=17, activation="relu", encoder=CONTEXT
    ),
    "one_value": lambda: NADE((1,), Categorical(4), hidden_features=3, encoder=CONTEXT),
    "fvsbn_categories": lambda: FVSBN((2, 3), Categorical(3), encoder=CONTEXT, order=RandomOrder((2, 3), 2)),
    "made_deep": lambda: MADE((9,), hidden_features=(30, 30, 30), residual=True, encoder=CONTEXT),
    "neural_conditionals": lambda: NeuralConditionals((6,), Categorical(20), hidden_features=(9,), encoder=CONTEXT),
    "lstm_ending": lambda: LSTM((6,), Ending(Categorical(3)), hidden_features=6, encoder=CONTEXT),
    "gru_ending_bits": lambda: GRU((6,), Ending(Bernoulli()), hidden_features=6, encoder=CONTEXT),
    "wavenet": lambda: WaveNet((9,), Categorical(3), **WAVES, encoder=CONTEXT),
    "image": lambda: GatedPixelCNN((4, 5), Categorical(3), hidden_features=6, num_layers=2, encoder=CONTEXT),
    "attention": lambda: PixelSNAIL((3, 4), hidden_features=8, num_blocks=1, num_heads=2, encoder=CONTEXT),
    "lstm_of_chords": lambda: LSTM(
        (4,), Nested(NADE((3,), hidden_features=4, encoder=Vector(5))), hidden_features=6, encoder=CONTEXT
    ),
}


@pytest.mark.parametrize("name", INNER)
def test_samples_and_log_p_are_those_of_the_reference(name):
    x = agree(over_time(INNER[name]()), prompts=(1, T - 1))
    assert len(x.flatten(2).unique(dim=0)) == len(x)


@pytest.mark.parametrize("inner", [Normal(), MixtureOfLogistics(2)], ids=str)
def test_real_numbers(inner):
    agree(over_time(MADE((5,), inner, hidden_features=(20,), encoder=CONTEXT), std=0.15), prompts=(9,), tolerance=1e-4)


def test_ends_and_chords():
    model = ending_chords()
    x = agree(model, prompts=(1, 12))
    assert 0.2 < model.head.ended(x).float().mean() < 0.9
    assert bool((x == -1).all(2).eq((x == -1).any(2)).all())


def test_chords_of_88_notes():
    model = drawn(LSTM((14,), Nested(NADE((88,), hidden_features=150, encoder=Vector(50))), hidden_features=30), 0.1)
    agree(model, prompts=(5,))


@pytest.mark.parametrize("name", ["waves", "convolution", "image", "labels", "head of its own"])
def test_other_networks_around(name):
    head = Nested(NADE((3,), Categorical(3), hidden_features=9, encoder=CONTEXT))
    model = {
        "waves": lambda: WaveNet((T,), head, **WAVES),
        "convolution": lambda: AutoregressiveModel(CausalConv1d(9, P, 3, dilation=2), head, Order((T,))),
        "image": lambda: GatedPixelCNN((4, 5), head, hidden_features=6, num_layers=2),
        "labels": lambda: GRU((T,), head, hidden_features=6, encoder=Labels(2)),
        "head of its own": lambda: LSTM((T,), Nested(MADE((2,), head, hidden_features=(6,), encoder=CONTEXT))),
    }[name]()
    agree(drawn(model), torch.arange(16) % 2 if name == "labels" else None, prompts=(3,))


SIDE_BY_SIDE: dict[str, Callable[[], AutoregressiveModel]] = {
    "notes": lambda: LSTM((T,), Independent(Bernoulli(), (11,)), hidden_features=8),
    "categories": lambda: WaveNet((T,), Independent(Categorical(3), (2, 3)), **WAVES),
    "that end": lambda: LSTM((T,), Ending(Independent(Categorical(3), (2, 3))), hidden_features=8),
    "each of which may end": lambda: LSTM((T,), Independent(Ending(Categorical(3)), (4,)), hidden_features=8),
    "real": lambda: LSTM((T,), Independent(MixtureOfLogistics(2), (2,)), hidden_features=8),
    "chords": lambda: LSTM(
        (T,), Independent(Nested(NADE((3,), hidden_features=4, encoder=Vector(5))), (3,)), hidden_features=8
    ),
    "inside a position": lambda: LSTM(
        (T,), Nested(LSTM((3,), Independent(Categorical(4), (2,)), hidden_features=4, encoder=CONTEXT))
    ),
    "straight from a recurrent layer": lambda: AutoregressiveModel(
        LSTMLayer(4, 4), Independent(Bernoulli(), (4,)), Order((T,))
    ),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_independent_values(name):
    agree(drawn(SIDE_BY_SIDE[name](), 0.2 if name == "real" else 0.4), prompts=(7,), tolerance=1e-4)


# ---- what stops, and what is refused


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["around", "inside"])
def test_parameters_that_are_no_numbers_stop(bad, where):
    model = over_time(INNER["nade"]())
    if where == "around":
        model.network.output_bias[3] = bad
    else:
        model.head.model.network.output_bias[4] = bad
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 9"):
        engine.sample_rows(model().expand((2,)), torch.tensor([9, 3]), seed=0)


def test_the_position_of_a_bad_parameter_is_named():
    model = over_time(NADE((5,), hidden_features=6, activation="relu", encoder=CONTEXT))
    x = model().expand((1,)).sample_rows(torch.arange(1), 0)
    note = next(n for n in range(4) if not x[0, 0, n] and x[0, :, n].any())
    first = int(x[0, :, note].nonzero()[0])
    network = model.head.model.network
    network.weight[note + 1, 0, 0] = network.output_weight[note + 1, 0, 0] = 3e38  # too much where the note sounds
    with pytest.raises(ValueError, match=f"at position {first}, row 0"):
        engine.sample_rows(model().expand((1,)), torch.arange(1), seed=0)


class Squared(LSTM):
    """An inner model whose initial state is no affine function of its context."""

    def __init__(self, event_shape, encoder):
        super().__init__(event_shape, hidden_features=4, encoder=encoder)
        self.network.layers[0].context = nn.Sequential(self.network.layers[0].context, nn.Tanh())


def test_what_cannot_be_lowered_says_so():
    with pytest.raises(engine.CannotLower, match="no affine function of its context"):
        engine.lower(over_time(Squared((3,), CONTEXT)))
    inner = AutoregressiveModel(
        CausalSequential(CausalConv1d(1, 1, 2, context_features=P), nn.Hardtanh()), Bernoulli(), Order((3,)), CONTEXT
    )
    with pytest.raises(engine.CannotLower, match="Hardtanh has no lower method"):
        engine.lower(over_time(inner))


# ---- planted bugs

BUGS = {
    "all inner positions share one uniform": (Op.AGAIN, 2, 0),
    "values over one another": (Op.AGAIN, 3, 0),
    "an inner position too few": (Op.AGAIN, 4, 10),
    "the features of the chord": (Op.EXPAND, 0, 0),
    "an input that is not set again": (Op.ACTIVATE, 0, 0),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    model = over_time(INNER["nade"]())
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    op, number, value = BUGS[bug]
    assert not caught(p, program, wanted)
    assert caught(p, changed(program, op, NUMBERS + number, value), wanted)


def test_bugs_of_ends_around_chords_are_caught():
    model = ending_chords()
    p, program = model().expand((16,)), engine.lower(model)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not caught(p, program, wanted)
    for op, number, value in ((Op.MARK, 1, 10), (Op.BERNOULLI, 2, 0), (Op.BERNOULLI, 4, 0), (Op.STOP, 1, 0)):
        try:
            found = caught(p, changed(program, op, NUMBERS + number, value), wanted)
        except ValueError:
            found = True  # an infinite s that is not certain
        assert found, op
