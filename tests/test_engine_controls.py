"""Controls on the native engine: every value is what its uniform gives under the reference's q, log p and log q too."""

from __future__ import annotations

import pytest
import torch

from engine_checks import changed, drawn
from seriatim import engine
from seriatim.context import Labels, Vector
from seriatim.controls import Controls
from seriatim.ending import Ending
from seriatim.engine.operands import Op
from seriatim.engine.program import NUMBERS
from seriatim.heads import (
    Bernoulli,
    Categorical,
    Logistic,
    MixtureOfNormals,
    MultivariateNormal,
    Normal,
    QuantizedMixtureOfLogistics,
    Tokens,
)
from seriatim.independent import Independent
from seriatim.models import GRU, LSTM, MADE, NADE, BayesNet, Transformer
from seriatim.nested import Nested
from seriatim.noise import uniforms
from seriatim.symbols import SymbolsOrMissing
from seriatim.tasks import beam_search, generate, generate_scored
from test_engine_endings import seldom

LENGTH = 1024
SEED = 5
TIE = 1e-6  # a uniform this near to a CDF boundary may fall on either side
LOG_P = 1e-4  # nats per position

CUTS = [
    Controls(0.7),
    Controls(2.5),
    Controls(top_k=3),
    Controls(top_p=0.6),
    Controls(min_p=0.3),
    Controls(0.5, top_p=0.8),
    Controls(1.5, top_k=4, top_p=0.9, min_p=0.05),
]
WARM = [Controls(0.5), Controls(3.0)]


def lstm(head, length=LENGTH, **options):
    return drawn(LSTM((length,), head, hidden_features=8, **options))


def transformer():
    sizes = {"hidden_features": 8, "num_layers": 1, "num_heads": 2}
    return seldom(Transformer((60,), Ending(Tokens(30)), **sizes), -4.0)


def tables():
    return drawn(BayesNet((4,), arities=[2, 5, 3, 4], parents=[[], [0], [0, 1], [2]]))


def samples_of(model, controls, rows, context=None):
    """Values and scores of the engine, (B, T, ...)."""
    p = model().expand((rows,)) if context is None else model(context[:rows])
    program = engine.lower(model, controls=controls)
    return p, engine.start(p, torch.arange(rows), SEED, program).advance(p.order.length, log_probs=True)


def assert_exact(p, samples, controls):
    """Force samples through the reference: each lies between what its uniform, moved by 1e-6, gives under q."""
    rows, head, x = len(samples.values), p.model.head, samples.values
    u = uniforms(SEED, torch.arange(rows), torch.arange(p.order.length), head.num_uniforms)
    with torch.no_grad():
        conditional = p.conditionals(p.order.to_data(x))
        q = controls.apply(conditional)
        near = torch.stack([q.from_uniforms((u + step).clamp(1e-12, 1 - 1e-12)) for step in (-TIE, 0, TIE)]).double()
        rounding = 0 if head.discrete else 2e-5 * (1 + near[1].abs())
        low, high = near.amin(0) - rounding, near.amax(0) + rounding
        outside = ~((x >= low) & (x <= high)) & ~(x.isnan() & near[1].isnan())
        assert not bool(outside.any()), f"{int(outside.sum())} values are not those of their uniforms"
        for found, wanted in ((samples.log_probs, conditional), (samples.log_q, q)):
            torch.testing.assert_close(found.double(), wanted.log_prob(x).double(), rtol=1e-5, atol=LOG_P)


CASES = {
    "bits": (lambda: lstm(Bernoulli()), CUTS),
    "categories": (lambda: lstm(Categorical(17), encoder=Labels(2)), CUTS),
    "levels": (lambda: lstm(QuantizedMixtureOfLogistics(16, 3)), CUTS),
    "categories or the end": (lambda: seldom(lstm(Ending(Categorical(9))), -2.5), CUTS),
    "bits or the end": (lambda: seldom(lstm(Ending(Bernoulli())), -2.0), CUTS),
    "levels or the end": (lambda: seldom(lstm(Ending(QuantizedMixtureOfLogistics(7, 2))), -2.5), CUTS),
    "tokens or the end": (transformer, CUTS),
    "symbols": (tables, CUTS),
    "normal": (lambda: lstm(Normal()), WARM),
    "vectors": (lambda: lstm(MultivariateNormal(3), 200), WARM),
}


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_the_reference(name):
    make, settings = CASES[name]
    model = make()
    context = None if model.encoder is None else torch.arange(16) % 2
    plain, others = samples_of(model, Controls(), 16, context)[1].values, 0
    for k, controls in enumerate(settings):
        p, samples = samples_of(model, controls, (1, 3, 16)[k % 3], context)
        assert_exact(p, samples, controls)
        others += not torch.equal(samples.values, plain[: len(samples.values)])
    assert others >= min(3, len(settings))
    for controls in (settings[0], settings[-1]):
        p, samples = samples_of(model, controls, 16, context)
        assert_exact(p, samples, controls)


@pytest.mark.parametrize(
    "head",
    [
        Nested(NADE((3,), Categorical(4), hidden_features=4, encoder=Vector(5))),
        Nested(LSTM((3,), Ending(Categorical(3)), hidden_features=4, encoder=Vector(5))),
        Nested(MADE((2, 2), QuantizedMixtureOfLogistics(5, 2), hidden_features=(6,), encoder=Vector(5))),
        Independent(Bernoulli(), (4,)),
        Independent(Categorical(3), (2, 2)),
    ],
    ids=["nade", "ending", "levels", "bits", "symbols"],
)
def test_values_inside_a_position(head):
    model = lstm(head, 12)
    for controls in CUTS[:4] + CUTS[-1:]:
        found, wanted = (
            generate_scored(model, 9, seed=2, controls=controls, engine=path) for path in ("native", "reference")
        )
        assert torch.equal(found.samples, wanted.samples)
        torch.testing.assert_close(found.log_prob, wanted.log_prob, rtol=0, atol=LOG_P)
        torch.testing.assert_close(found.log_q, wanted.log_q, rtol=0, atol=LOG_P)


def test_a_missing_value_is_a_symbol_like_others():
    head = SymbolsOrMissing([3, 4])
    net = drawn(BayesNet((2,), arities=[3, 4], parents=[[], [0]]))
    net.head = head
    found, wanted = (
        generate(net, 200, seed=0, controls=Controls(1.3, top_k=3), engine=path) for path in ("native", "reference")
    )
    torch.testing.assert_close(found, wanted, equal_nan=True)
    assert 0 < float(found.isnan().float().mean()) < 1
    assert bool((found[:, 0].nan_to_num(0) < 2).all())


def test_many_levels_and_symbols():
    """Of 65536 levels, and of 8000 tokens of which many are equal, the same ones are left as in the reference."""
    for head in (QuantizedMixtureOfLogistics(65536, 3), Ending(Tokens(8000))):
        if isinstance(head, Ending):
            model = Transformer((6,), head, hidden_features=8, num_layers=1, num_heads=2).eval()
        else:
            model = lstm(head, 3)
        for controls in (Controls(0.8, top_p=0.5), Controls(top_k=50), Controls(min_p=0.9)):
            p, samples = samples_of(model, controls, 2)
            assert_exact(p, samples, controls)


@pytest.mark.parametrize("head", [Categorical(6), QuantizedMixtureOfLogistics(6, 2), Ending(Categorical(5))], ids=str)
def test_equal_values_are_ranked_as_in_the_reference(head):
    model = LSTM((40,), head, hidden_features=3)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    if isinstance(head, QuantizedMixtureOfLogistics):
        model.network.output_bias.data[2:4] = -1.1  # skewed: levels on both sides of the middle differ
    for controls in (Controls(top_k=3), Controls(top_p=0.5), Controls(1.7, top_p=0.34), Controls(min_p=1)):
        found, wanted = (generate(model, 5, seed=1, controls=controls, engine=e) for e in ("native", "reference"))
        assert torch.equal(found, wanted)


def test_values_that_are_impossible_and_far_apart():
    model = lstm(Categorical(5), 50)
    model.network.output_bias[:] = torch.tensor([0.0, -torch.inf, 200.0, 198.0, -torch.inf])
    for controls in (Controls(1e-30), Controls(1e5), Controls(60.0, top_p=0.99), Controls(top_k=4)):
        p, samples = samples_of(model, controls, 16)
        assert_exact(p, samples, controls)
        assert not bool(((samples.values == 1) | (samples.values == 4)).any())
    narrow = lstm(QuantizedMixtureOfLogistics(16, 2), 30)
    narrow.network.output_bias[4:] = -6.5  # a hundredth of a level: those not near one of two have e^-400 and less
    for controls in (Controls(1.0, top_k=2), Controls(20.0), Controls(300.0), Controls(7.9)):
        p, samples = samples_of(narrow, controls, 16)
        assert_exact(p, samples, controls)


def test_an_end_is_followed_by_ends_alone():
    model = seldom(lstm(Ending(Categorical(4)), 80), -1.5)
    for controls in (Controls(1.5), Controls(top_k=2), Controls(min_p=0.5)):
        _, samples = samples_of(model, controls, 16)
        ended = model.head.ended(samples.values)
        assert bool((ended[:, 1:] >= ended[:, :-1]).all())
        after = ended[:, 1:] & ended[:, :-1]
        assert bool((samples.log_probs[:, 1:][after] == 0).all() and (samples.log_q[:, 1:][after] == 0).all())
        assert bool(after.any()) == (controls.top_k is None)  # of two values none is the end: it is too rare


def test_streams_forks_and_prompts():
    model = lstm(Categorical(6), 60)
    controls = Controls(0.8, top_k=4)
    p, whole = samples_of(model, controls, 4)
    program = engine.lower(model, controls=controls)
    session = engine.start(p, torch.arange(4), SEED, program)
    assert torch.equal(session.advance(20).values, whole.values[:, :20])
    session.select(torch.tensor([2, 0, 0]))
    again = session.advance(40, log_probs=True)
    assert torch.equal(again.values, whole.values[[2, 0, 0], 20:])
    assert torch.equal(again.log_q, whole.log_q[[2, 0, 0], 20:])
    session = engine.start(p, torch.arange(4), SEED, program, prefix=whole.values[:, :7])
    assert torch.equal(session.advance(53).values, whole.values[:, 7:])


def test_without_controls_log_q_is_log_p():
    for head in (Categorical(4), Normal(), MultivariateNormal(2), Ending(Bernoulli())):
        _, samples = samples_of(lstm(head, 30), Controls(), 3)
        assert torch.equal(samples.log_q, samples.log_probs)


# ---- what has no native form


@pytest.mark.parametrize("head", [Logistic(), MixtureOfNormals(2), Ending(Normal())], ids=str)
def test_real_numbers_are_refused(head):
    with pytest.raises(engine.CannotLower, match=r"have no tape form"):
        engine.lower(lstm(head, 5), controls=Controls(0.5))
    with pytest.raises(engine.CannotLower, match=r"top_k=2.* of the Normal head have no tape form"):
        engine.lower(lstm(Normal(), 5), controls=Controls(top_k=2))


def test_numbers_that_the_tape_does_not_hold_are_left_to_the_reference():
    model, tiny = lstm(Categorical(4), 6), Controls(1e-310)
    assert "temperature=1e-310" in engine.choose(model, 2, controls=tiny).reason
    assert torch.equal(
        generate(model, 3, seed=0, controls=tiny), generate(model, 3, seed=0, controls=Controls(top_k=1))
    )
    with pytest.raises(ValueError, match=r"natively, but Controls\(temperature=1e-310.*\) has no tape form"):
        generate(model, 3, controls=tiny, engine="native")


def test_a_program_is_handed_on_where_it_does_what_is_asked():
    model, controls = lstm(Categorical(4), 6), Controls(0.5, top_k=3)
    program, steps = engine.lower(model, controls=controls), engine.lower(model, draw=False)
    wanted = generate(model, 3, seed=0, controls=controls)
    assert torch.equal(generate(model, 3, seed=0, controls=controls, engine=program), wanted)
    assert torch.equal(
        beam_search(model, engine=steps)[0][0].values, beam_search(model, engine="reference")[0][0].values
    )
    for other in (program, steps):
        with pytest.raises(ValueError, match="engine: expected a program lowered with draw=True and Controls"):
            model.sample((3,), seed=0, engine=other)
        with pytest.raises(ValueError, match="engine: expected a program lowered with draw=True and Controls"):
            generate(model, 3, controls=Controls(0.5), engine=other)
    with pytest.raises(ValueError, match=r"engine: expected a program lowered with draw=False and .* got draw=True"):
        beam_search(model, engine=program)


@pytest.mark.parametrize("place, bad", [(0, float("nan")), (0, float("inf")), (2, float("nan")), (2, float("inf"))])
@pytest.mark.parametrize("head", [Ending(Categorical(4)), Ending(QuantizedMixtureOfLogistics(4, 2))], ids=str)
def test_parameters_that_are_no_numbers_stop(head, place, bad):
    model = seldom(GRU((20,), head, hidden_features=3), -20.0)
    model.network.output_bias[place] = bad
    program = engine.lower(model, controls=Controls(0.5))
    with pytest.raises(ValueError, match=r"parameters: .* at position 0, row 9"):
        engine.start(model().expand((2,)), torch.tensor([9, 3]), 0, program).advance(20)


# ---- planted bugs

BUGS = {
    "the lane": (Op.CONTROLLED, 2, 1),
    "an end that is forgotten": (Op.CONTROLLED, 4, 0),
    "what is read of an end": (Op.MARK, 0, 3),
}


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    model, controls = seldom(lstm(Ending(Categorical(6)), 200), -2.0), Controls(1.3, top_k=5)
    p, program = model().expand((16,)), engine.lower(model, controls=controls)
    op, number, value = BUGS[bug]
    assert_exact(p, engine.start(p, torch.arange(16), SEED, program).advance(200, log_probs=True), controls)
    bad = engine.start(p, torch.arange(16), SEED, changed(program, op, NUMBERS + number, value))
    with pytest.raises((AssertionError, RuntimeError, IndexError)):
        assert_exact(p, bad.advance(200, log_probs=True), controls)


@pytest.mark.parametrize("other", [Controls(1.4, top_p=0.7), Controls(1.3, top_p=0.72), Controls(1.3), Controls()])
def test_other_controls_than_those_asked_for_are_caught(other):
    model, controls = lstm(Categorical(12), 400), Controls(1.3, top_p=0.7)
    p, samples = samples_of(model, other, 16)
    with pytest.raises(AssertionError):
        assert_exact(p, samples, controls)
    assert_exact(p, samples, other)
