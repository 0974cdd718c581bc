"""The native engine draws the samples that `rollout` draws, and its exactness check finds planted bugs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from seriatim import engine, models
from seriatim.autoregressive import Autoregressive, rollout
from seriatim.causal import CausalSequential, Residual
from seriatim.context import Labels, Vector
from seriatim.controls import Controls
from seriatim.engine import cpu, pace
from seriatim.heads import Bernoulli, Categorical, Tokens
from seriatim.layers import GRU, LSTM, RNN, CausalConv1d, SelfAttention
from seriatim.layers.source import SourceEncoder
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN
from seriatim.nested import Nested
from seriatim.noise import uniforms
from seriatim.order import Order, RandomOrder

LENGTH = 1024
SEED = 7
TIE = 1e-6  # a uniform this near to a CDF boundary may fall on either side
TOLERANCE = 1e-4  # nats per position


def lstm() -> AutoregressiveModel:
    return AutoregressiveModel(CausalSequential(LSTM(7, 20), nn.Linear(20, 7)), Categorical(7), Order((LENGTH,)))


def stacked_lstm() -> AutoregressiveModel:
    network = CausalSequential(LSTM(1, 24, num_layers=2, context_features=3), nn.Linear(24, 1))
    return AutoregressiveModel(network, Bernoulli(), Order((LENGTH,)), Vector(3))


def gated_convolutions() -> AutoregressiveModel:
    def block(kernel_size: int, dilation: int) -> Residual:
        convolution = CausalConv1d(32, 64, kernel_size, dilation=dilation, context_features=3)
        return Residual(CausalSequential(convolution, nn.GLU(), nn.Linear(32, 32)))

    blocks = [block(*geometry) for geometry in ((2, 1), (2, 4), (3, 16), (2, 100))]
    last = (nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 70))
    network = CausalSequential(CausalConv1d(70, 32, 2), *blocks, *last)
    return AutoregressiveModel(network, Categorical(70), Order((LENGTH,)), Labels(3))


def recurrent() -> AutoregressiveModel:
    network = CausalSequential(GRU(5, 18, num_layers=2, context_features=3), RNN(18, 9, num_layers=2), nn.Linear(9, 5))
    return AutoregressiveModel(network, Categorical(5), Order((LENGTH,)), Vector(3))


def attentive() -> AutoregressiveModel:
    def block() -> list[nn.Module]:
        attention = CausalSequential(nn.LayerNorm(24), SelfAttention(24, num_heads=3))
        return [Residual(attention), Residual(CausalSequential(nn.ELU(), nn.Linear(24, 48), nn.GLU()))]

    network = CausalSequential(CausalConv1d(6, 24, 3, context_features=3), *block(), nn.Linear(24, 6))
    return AutoregressiveModel(network, Categorical(6), Order((LENGTH,)), Vector(3))


def bits_in_any_order() -> AutoregressiveModel:
    network = CausalSequential(
        *(CausalConv1d(1, 13, 3, dilation=5), nn.Tanh(), CausalConv1d(13, 1, 2), nn.Sigmoid()),
        *(CausalConv1d(1, 5, 1), nn.ReLU(), nn.Linear(5, 1, bias=False)),
    )
    return AutoregressiveModel(network, Bernoulli(), RandomOrder((32, LENGTH // 32), seed=1))


def mixed_layers() -> AutoregressiveModel:
    # A skip around a one-hot input; one value kept by two layers; a convolution whose past is not the LSTM's h_0.
    network = CausalSequential(
        Residual(CausalSequential(CausalConv1d(5, 5, 3, dilation=2), nn.Identity())),
        Residual(CausalConv1d(5, 5, 2)),
        LSTM(5, 17, context_features=3),
        CausalConv1d(17, 9, 2, dilation=3, context_features=3),
        nn.Sequential(nn.ReLU(), nn.Linear(9, 5)),
    )
    return AutoregressiveModel(network, Categorical(5), Order((LENGTH,)), Vector(3))


MODELS: list[Callable[[], AutoregressiveModel]] = [
    lstm,
    stacked_lstm,
    gated_convolutions,
    recurrent,
    attentive,
    bits_in_any_order,
    mixed_layers,
]


@cache
def case(make: Callable[[], AutoregressiveModel]) -> Autoregressive:
    """A model with large random weights, so that every value matters to those after it, for 16 contexts."""
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(2)
    if model.encoder is None:
        return model().expand((16,))
    return model(torch.arange(16) % 3 if isinstance(model.encoder, Labels) else torch.randn(16, 3))


@cache
def expected(make: Callable[[], AutoregressiveModel]) -> Tensor:
    return reference(case(make), torch.arange(16))


def reference(p: Autoregressive, rows: Tensor, length: int = LENGTH) -> Tensor:
    """Sample by `rollout`: (B, length), positions in order."""
    u = uniforms(SEED, rows, torch.arange(length), 1)
    steps = rollout(p, lambda position, conditional: conditional.from_uniforms(u[:, position, None]))
    with torch.no_grad():
        return torch.cat([next(steps).value for _ in range(length)], dim=1)


def native(p: Autoregressive, rows: Tensor, program: engine.Program | None = None) -> engine.Samples:
    """Sample by the engine: (B, T) values and log p, positions in order."""
    session = engine.start(p, rows, SEED, program or engine.lower(p.model))
    return session.advance(p.order.length, log_probs=True)


def interval(conditional, x: Tensor) -> tuple[Tensor, Tensor]:
    """The values of the CDF between which a uniform chooses x."""
    if isinstance(conditional, torch.distributions.Bernoulli):
        threshold = torch.sigmoid(-conditional.logits.double())
        return torch.where(x > 0, threshold, 0.0), torch.where(x > 0, 1.0, threshold)
    cumulative = torch.softmax(conditional.logits.double(), -1).cumsum(-1)
    cumulative = nn.functional.pad(cumulative, (1, 0))
    return tuple(cumulative.gather(-1, (x.long() + k)[..., None]).squeeze(-1) for k in range(2))


def check_exact(p: Autoregressive, rows: Tensor, samples: engine.Samples) -> None:
    """Force samples through the reference: each uniform must choose its value there, with the same log p."""
    conditional = p.conditionals(p.order.to_data(samples.values))
    low, high = interval(conditional, samples.values)
    u = uniforms(SEED, rows, torch.arange(p.order.length), 1)[..., 0]
    outside = torch.maximum(low - u, u - high).max()
    assert outside <= TIE, f"a uniform lies {float(outside):.2g} outside the interval of its value"
    error = (samples.log_probs - conditional.log_prob(samples.values)).abs().max()
    assert error <= TOLERANCE, f"log p differs by {float(error):.2g} nats"


def check_equal(p: Autoregressive, rows: Tensor, samples: Tensor, wanted: Tensor) -> None:
    """Two samples of a row are equal up to a tie; after one they may go different ways."""
    u = uniforms(SEED, rows, torch.arange(p.order.length), 1)[..., 0]
    low, high = interval(p.conditionals(p.order.to_data(wanted)), wanted)
    near = torch.minimum(u - low, high - u)
    for row in (samples != wanted).any(1).nonzero().flatten():
        first = int((samples[row] != wanted[row]).nonzero()[0])
        assert near[row, first] <= TIE, f"row {int(row)} differs at position {first}"


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("make", MODELS)
def test_engine_equals_rollout(make, batch):
    p, rows = case(make).rows(torch.arange(batch)), torch.arange(batch)
    samples = native(p, rows)
    check_exact(p, rows, samples)
    check_equal(p, rows, samples.values, expected(make)[:batch].float())


@pytest.mark.parametrize("make", MODELS)
def test_row_does_not_depend_on_batch(make):
    p, rows = case(make), torch.arange(16)
    program = engine.lower(p.model)
    together = native(p, rows, program)
    for row in (0, 5, 15):
        own = rows[row : row + 1]
        alone = engine.start(p, rows, SEED, program)
        alone.select(own)  # bit for bit, once the state is given: torch's own product with the context is not
        samples = alone.advance(LENGTH, log_probs=True)
        assert torch.equal(samples.values[0], together.values[row])
        assert torch.equal(samples.log_probs[0], together.log_probs[row])
        check_equal(p.rows(own), own, native(p.rows(own), own, program).values, together.values[own])


def test_rows_beyond_one_block(monkeypatch):
    p, rows = case(lstm), torch.arange(16)
    whole = native(p, rows)
    monkeypatch.setattr(cpu, "BLOCK_ROWS", 5)
    monkeypatch.setattr(pace, "CHUNK", 100)
    assert torch.equal(native(p, rows).values, whole.values)


def test_sample_rows_gives_data():
    p, rows = case(bits_in_any_order), torch.tensor([4, 2**31, 4])
    x = engine.sample_rows(p.rows(torch.arange(3)), rows, SEED)
    assert x.shape == (3, 32, 32)
    assert x.dtype == torch.float32
    assert torch.equal(x[0], x[2])
    wanted = reference(p.rows(torch.arange(3)), rows, length=50)
    assert torch.equal(p.order.to_positions(x)[:, :50], wanted)
    assert engine.sample_rows(case(lstm).rows(rows[:1]), rows[:1], SEED).dtype == torch.int64
    assert engine.sample_rows(p.rows(rows[:0]), rows[:0], SEED) is None


@pytest.mark.parametrize("make", [stacked_lstm, recurrent, attentive, gated_convolutions, mixed_layers])
def test_streaming_forking_and_prompts(make):
    p, rows = case(make).rows(torch.arange(3)), torch.arange(3)
    program = engine.lower(p.model)
    whole = native(p, rows, program).values
    session = engine.start(p, rows, SEED, program)
    parts = [session.advance(count).values for count in (1, 7, 100)]
    assert torch.equal(torch.cat(parts, 1), whole[:, :108])
    session.select(torch.tensor([2, 0, 0, 1]))
    assert torch.equal(session.advance(20).values, whole[[2, 0, 0, 1], 108:128])
    for length in (1, 37, 150):
        session = engine.start(p, rows, SEED, program, prefix=whole[:, :length])
        check_equal(p, rows, torch.cat([whole[:, :length], session.advance(LENGTH - length).values], 1), whole)


# ---- planted bugs ----


def test_check_finds_ring_off_by_one():
    p, rows = case(gated_convolutions).rows(torch.arange(3)), torch.arange(3)
    program = engine.lower(p.model)
    for slots, delay in ((101, 100), (33, 16)):
        place = (program.cursors[:, [0, 2]] == torch.tensor([slots, delay])).all(1)
        assert place.sum() == 1
        bad = replace(program, cursors=program.cursors + place[:, None] * torch.tensor([0, 0, 1, 0, 0, 0, 0]))
        with pytest.raises(AssertionError, match="outside"):
            check_exact(p, rows, native(p, rows, bad))


@pytest.mark.parametrize("make", [stacked_lstm, recurrent, attentive, gated_convolutions, mixed_layers])
def test_check_finds_state_dropped(make):
    p, rows = case(make).rows(torch.arange(3)), torch.arange(3)
    bad = replace(engine.lower(p.model), kept=())
    with pytest.raises(AssertionError, match=r"outside|differs"):
        check_exact(p, rows, native(p, rows, bad))


def test_check_finds_state_dropped_between_positions():
    p, rows = case(lstm).rows(torch.arange(3)), torch.arange(3)
    session, parts = engine.start(p, rows, SEED, engine.lower(p.model)), []
    for _ in range(LENGTH // 128):
        parts.append(session.advance(128, log_probs=True))
        session.state[:, session.program.state_size // 2 :] = 0
    samples = engine.Samples(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))
    with pytest.raises(AssertionError, match="outside"):
        check_exact(p, rows, samples)


def test_check_finds_noise_of_another_position():
    p, rows = case(lstm).rows(torch.arange(3)), torch.arange(3)
    session = engine.start(p, rows, SEED, replace(engine.lower(p.model), length=LENGTH + 1))
    session.position = 1
    with pytest.raises(AssertionError, match="outside"):
        check_exact(p, rows, session.advance(LENGTH, log_probs=True))


# ---- parameters that are no distribution ----


def small(head, bias: list[float] | None = None) -> AutoregressiveModel:
    torch.manual_seed(0)
    k = head.num_params
    model = AutoregressiveModel(CausalSequential(CausalConv1d(k, k, 2), nn.ReLU(), nn.Linear(k, k)), head, Order((50,)))
    if bias is not None:
        model.network.layers[2].bias.data.copy_(torch.tensor(bias))
    return model.eval()


@pytest.mark.parametrize(
    "head, bias",
    [
        (Bernoulli(), [float("nan")]),
        (Bernoulli(), [float("inf")]),
        (Categorical(3), [0.0, float("nan"), 0.0]),
        (Categorical(3), [0.0, float("inf"), 0.0]),
        (Categorical(3), [-float("inf")] * 3),
    ],
)
def test_bad_parameters_stop(head, bias):
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 9"):
        engine.sample_rows(small(head, bias)().expand((2,)), torch.tensor([9, 3]), seed=0)


def test_nan_weight_names_the_position():
    model = small(Categorical(3))
    x = engine.sample_rows(model().expand((1,)), torch.arange(1), seed=0)
    first = int((x[0] == 2).nonzero()[0])
    assert 0 < first < 49
    model.network.layers[0].taps.weight.data[:, 3 + 2] = torch.nan  # read where the value before is a 2
    with pytest.raises(ValueError, match=f"at position {first + 1}, row 0"):
        engine.sample_rows(model().expand((1,)), torch.arange(1), seed=0)


def test_impossible_categories_are_never_drawn():
    model = small(Categorical(4), [0.0, -float("inf"), 0.0, -float("inf")])
    x = engine.sample_rows(model().expand((40,)), torch.arange(40), seed=0)
    assert set(x.flatten().tolist()) == {0, 2}


# ---- the choice of path ----


def test_choice(caplog):
    model = small(Categorical(3))
    caplog.set_level("INFO", "seriatim.engine")
    for asked, wanted in (("auto", "faster than PyTorch"), ("native", "asked for")):
        choice = engine.choose(model, 1, asked)
        assert choice.program is not None
        assert choice.reason.startswith(wanted)
    assert engine.choose(model, 1, "reference") == engine.Choice(None, "asked for")
    assert engine.choose(model, 0) == engine.Choice(None, "there is nothing to sample")
    told = [record.getMessage().split(": ") for record in caplog.records]
    assert [path for path, _ in told] == ["native engine"] * 2 + ["step by step in PyTorch"] * 2
    assert [reason for _, reason in told[1:]] == ["asked for", "asked for", "there is nothing to sample"]
    with pytest.raises(ValueError, match="engine: expected 'auto', 'native' or 'reference', got 'fast'"):
        engine.choose(model, 1, "fast")
    cannot = AutoregressiveModel(CausalSequential(nn.Linear(3, 3), nn.Softsign()), Categorical(3), Order((5,)))
    assert engine.choose(cannot, 1) == engine.Choice(None, "Softsign has no lower method")
    assert not engine.can_lower(cannot)
    assert engine.sample_rows(cannot().expand((2,)), torch.arange(2), seed=0) is None
    with pytest.raises(ValueError, match="natively, but Softsign has no lower method"):
        engine.choose(cannot, 1, "native")


def test_without_numba_there_is_one_notice(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in [name for name in sys.modules if name.startswith("seriatim.engine.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(engine, "kernels", raising=False)
    cpu.kernels.cache_clear()
    try:
        p = small(Categorical(3))().expand((2,))
        with pytest.warns(RuntimeWarning, match="numba cannot be loaded"):
            assert engine.sample_rows(p, torch.arange(2), seed=0) is None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert engine.sample_rows(p, torch.arange(2), seed=0) is None
        assert engine.choose(p.model, 2).reason == "numba cannot be loaded"
        with pytest.raises(ValueError, match="numba"):
            engine.choose(p.model, 2, "native")
    finally:
        cpu.kernels.cache_clear()


def test_a_program_draws_again_and_again_until_the_weights_change():
    model = FVSBN((6,))
    program = engine.lower(model)
    for seed in range(3):
        assert torch.equal(model.sample((20,), seed=seed, engine=program), model.sample((20,), seed=seed))
    assert model.sample((0,), engine=program).shape == (0, 6)
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    with pytest.raises(ValueError, match="engine: expected a program of this model's weights as they are now"):
        model.sample((20,), engine=program)
    with pytest.raises(ValueError, match="engine: expected a program of this model's weights"):
        FVSBN((6,)).sample((20,), engine=program)


def test_a_program_is_made_from_the_network_and_the_head_and_not_from_the_encoder():
    chords = models.LSTM((4,), Nested(FVSBN((3,), encoder=Vector(5))), hidden_features=6).eval()
    program = engine.lower(chords)
    with torch.no_grad():
        next(chords.head.parameters()).add_(1.0)
    with pytest.raises(ValueError, match="weights as they are now"):
        chords.sample((2,), engine=program)
    encoder = SourceEncoder(5, 8, num_layers=1, num_heads=2)
    translator = models.Transformer(
        (4,), Tokens(6), hidden_features=8, num_layers=1, num_heads=2, encoder=encoder
    ).eval()
    p, program = translator(torch.tensor([[1, 2], [3, 4]])), engine.lower(translator)
    with torch.no_grad():
        encoder.table.mul_(5.0)
    values = p.sample((20,), seed=0, engine=program)
    assert torch.equal(values, p.sample((20,), seed=0, engine="reference"))


def test_a_program_of_another_length_or_under_controls_is_refused():
    model = FVSBN((6,))
    with pytest.raises(ValueError, match="engine: expected a program of 6 positions, got one of 5"):
        model.sample((2,), engine=engine.lower(FVSBN((5,))))
    with pytest.raises(ValueError, match="engine: expected a program lowered with draw=True and Controls"):
        engine.choose(model, 2, engine.lower(model), controls=Controls(temperature=0.5))
