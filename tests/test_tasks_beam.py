"""Beam search against all sequences there are, row by row, at its limits, and with bad input."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from seriatim.autoregressive import rollout
from seriatim.context import Labels
from seriatim.ending import Ending
from seriatim.engine import Ranker, cpu
from seriatim.heads import Bernoulli, Categorical, Tokens
from seriatim.models import LSTM, MADE, OrderAgnosticMADE, SourceEncoder, Transformer, WaveNet
from seriatim.order import Order, RandomOrder, Scan
from seriatim.tasks import beam_search
from seriatim.testing.case import space
from zoo import randomised

SIZES = {"hidden_features": 4, "num_layers": 1, "num_heads": 2}
SOURCES = torch.tensor([[0, 1, 2], [3, -1, -1], [2, 2, -1], [1, 0, -1], [0, 0, 3]])


def translator(length=4, num_symbols=3, seed=1, stop=0.0):
    """A model of short targets given sources; a lower `stop` makes them longer."""
    encoder = SourceEncoder(4, 4, num_layers=1, num_heads=2)
    model = Transformer((length,), Ending(Tokens(num_symbols)), **SIZES, encoder=encoder)
    randomised(model, seed).double().eval()
    with torch.no_grad():
        model.network.network.output.bias[0] = stop
    return model


def possible(model):
    """All rows, but those with values after an end."""
    x = torch.stack(space(model)).long()
    if not isinstance(model.head, Ending):
        return x
    ended = model.head.ended(x)
    return x[(ended.cumsum(1).clamp(max=1) == ended).all(1)]


def assert_exhaustive(model):
    x = possible(model)
    lengths = model.lengths(x)
    with torch.no_grad():
        log_prob = model(SOURCES).log_prob(x[:, None])  # (rows, sources)
    for penalty in (0.0, 0.6, 6.0, -1.0):
        positions = torch.minimum(lengths + 1, torch.tensor(model.order.length)).double()
        score, order = (log_prob / ((5 + positions[:, None]) / 6) ** penalty).sort(0, descending=True)
        found = beam_search(model, SOURCES, num_beams=200, n_best=30, length_penalty=penalty)
        first = beam_search(model, SOURCES, num_beams=200, length_penalty=penalty)
        assert len(found) == len(first) == len(SOURCES)
        for source, own in enumerate(found):
            rows = order[:30, source]
            assert len(own) == 30
            assert first[source][0].values.tolist() == own[0].values.tolist()
            assert [h.values.tolist() for h in own] == [x[row, : lengths[row]].tolist() for row in rows]
            assert [h.finished for h in own] == (lengths[rows] < model.order.length).tolist()
            assert [h.log_prob for h in own] == pytest.approx(log_prob[rows, source].tolist(), abs=1e-9)
            assert [h.score for h in own] == pytest.approx(score[:30, source].tolist(), abs=1e-9)


def test_a_wide_search_finds_what_a_list_of_all_sequences_gives():
    assert_exhaustive(translator())


def test_one_beam_is_the_greedy_choice():
    model = translator(6)
    p = model(SOURCES)

    def greedy(position, conditional):
        log_prob = torch.stack([conditional.log_prob(torch.full((5, 1), value)) for value in (-1, 0, 1, 2)], dim=-1)
        return log_prob.argmax(-1) - 1

    with torch.no_grad():
        rows = torch.cat([step.value for step in rollout(p, greedy)], dim=1)
        log_prob = p.log_prob(rows)
    for own, row, wanted in zip(beam_search(p, num_beams=1), rows, log_prob, strict=True):
        assert own[0].values.tolist() == row[row >= 0].tolist()
        assert own[0].log_prob == pytest.approx(wanted.item(), abs=1e-9)
        assert own[0].finished == bool((row < 0).any())


def test_a_greedy_search_that_ends_early_reads_no_memory_that_was_never_written(monkeypatch):
    model = translator(8, seed=1).float()
    with torch.no_grad():
        model.network.output_bias[0] = 30.0  # all sequences end at once

    def filled(shape, *args, **kwargs):
        return np.full(shape, np.nan)

    monkeypatch.setattr(cpu.np, "empty", filled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = beam_search(model, SOURCES, num_beams=1, engine="native")
    assert [len(own[0].values) for own in found] == [0] * len(SOURCES)


@pytest.mark.parametrize("num_beams", [2, 3])
def test_a_batch_is_its_sources_one_by_one(num_beams):
    model = translator(8, num_symbols=5, seed=1)
    sources = SOURCES.repeat(3, 1)
    options = {"num_beams": num_beams, "length_penalty": 0.6, "n_best": 2}
    together = beam_search(model, sources, **options)
    parts = beam_search(model, sources, **options, batch_size=4)
    for row, source in enumerate(sources):
        (alone,) = beam_search(model, source[source >= 0], **options)
        for other in (together[row], parts[row]):
            assert [h.values.tolist() for h in other] == [h.values.tolist() for h in alone]
            assert [h.log_prob for h in other] == pytest.approx([h.log_prob for h in alone], abs=1e-9)
            assert [h.finished for h in other] == [h.finished for h in alone]


def test_log_p_is_that_of_the_model_and_no_width_beats_the_best():
    model = translator(8, num_symbols=5, seed=2)
    best = [own[0].log_prob for own in beam_search(model, SOURCES, num_beams=5000)]
    for num_beams in (1, 2, 4):
        for source, own, top in zip(SOURCES, beam_search(model, SOURCES, num_beams=num_beams), best, strict=True):
            row = torch.full((8,), -1)
            row[: len(own[0].values)] = own[0].values
            assert own[0].log_prob == pytest.approx(model(source).log_prob(row).item(), abs=1e-9)
            assert own[0].log_prob <= top + 1e-9


def unending(length=5):
    model = translator(length, stop=-30)
    with torch.no_grad():
        model.network.network.output.weight[0] = 0
    return model


def test_a_sequence_without_an_end_is_returned_at_the_limit_only_and_said_to_be_cut():
    for own in beam_search(unending(), SOURCES, num_beams=3, n_best=3):
        assert [(len(h.values), h.finished) for h in own] == [(5, False)] * 3
    model = translator(6)
    for max_length in (1, 2, 9):
        for own in beam_search(model, SOURCES, num_beams=3, n_best=3, max_length=max_length):
            assert all(h.finished == (len(h.values) < max_length) for h in own)
            assert all(len(h.values) <= max_length for h in own)


def test_another_limit_is_that_of_a_distribution_of_that_length():
    model = translator(4)
    for a, b in zip(
        beam_search(model, SOURCES, num_beams=3, max_length=7),
        beam_search(model(SOURCES, length=7), num_beams=3),
        strict=True,
    ):
        assert a[0].values.tolist() == b[0].values.tolist()
        assert a[0].log_prob == pytest.approx(b[0].log_prob)
    with pytest.raises(ValueError, match="length: expected None, for weights of"):
        beam_search(MADE((4,), Categorical(3), hidden_features=(4,)), max_length=5)


def read(model, monkeypatch):
    """Count the rows that the network reads at each position."""
    rows = []
    forward = type(model.network).forward

    def counting(self, x, state=None):
        rows.append(len(x))
        return forward(self, x, state)

    monkeypatch.setattr(type(model.network), "forward", counting)
    return rows


def test_rows_that_have_ended_are_dropped_and_a_search_stops_when_all_have(monkeypatch):
    model = translator(50, num_symbols=5, seed=3, stop=1.0)
    rows = read(model, monkeypatch)
    found = beam_search(model, SOURCES, num_beams=3)
    assert all(own[0].finished for own in found)
    assert rows[0] == 5
    assert max(rows) <= 15
    assert rows[-1] < 10
    assert len(rows) < 25


@pytest.mark.parametrize(
    "model",
    [
        LSTM((3, 2), Categorical(3), hidden_features=4, order=Scan((3, 2), flip_columns=True, transpose=True)),
        MADE((5,), Categorical(3), hidden_features=(6,), order=Order((5,), [3, 1, 4, 0, 2])),
        Transformer((4,), Tokens(4), **SIZES),
    ],
    ids=lambda model: type(model).__name__,
)
def test_rows_of_one_length_are_found_in_any_order(model):
    randomised(model).double().eval()
    x = possible(model)
    best = model.log_prob(x).detach().sort(descending=True)
    (found,) = beam_search(model, num_beams=729, n_best=5)
    for hypothesis, row, value in zip(found, x[best.indices], best.values, strict=False):
        assert torch.equal(hypothesis.values, row)
        assert hypothesis.finished
        assert hypothesis.log_prob == pytest.approx(value.item(), abs=1e-9)


def test_there_may_be_fewer_sequences_than_are_asked_for():
    model = translator(1, num_symbols=2)
    assert [len(own) for own in beam_search(model, SOURCES, num_beams=9, n_best=9)] == [3] * 5
    assert beam_search(model, SOURCES[:0]) == []


def test_the_model_is_left_in_the_mode_it_was():
    model = translator().train()
    beam_search(model, SOURCES)
    assert model.training


# ---- the native engine


def ending_at(s, seed, model):
    """The model with random weights; a lower s lets its sequences end later."""
    randomised(model, seed)
    with torch.no_grad():
        model.network.output_bias[0] = s
    return model


def wider():
    encoder = SourceEncoder(4, 16, num_layers=1, num_heads=2)
    sizes = {"hidden_features": 16, "num_layers": 1, "num_heads": 2}
    return ending_at(-5.0, 29, Transformer((9,), Ending(Tokens(7)), **sizes, encoder=encoder))


def labelled():
    return ending_at(-2.0, 38, LSTM((8,), Ending(Categorical(4)), hidden_features=5, num_layers=2, encoder=Labels(3)))


SEARCHED = {
    "source": lambda: (wider(), SOURCES),
    "decoder": lambda: (ending_at(-2.0, 2, Transformer((7,), Ending(Tokens(12)), **SIZES)), None),
    "rotary": lambda: (randomised(Transformer((7,), Tokens(5), **SIZES, norm="pre", positions="rotary")), None),
    "labels": lambda: (labelled(), torch.arange(5) % 3),
    "wavenet": lambda: (
        randomised(WaveNet((9,), Categorical(6), num_blocks=1, layers_per_block=3, residual_features=4)),
        None,
    ),
    "order": lambda: (randomised(MADE((5,), Categorical(3), hidden_features=(6,), order=RandomOrder((5,), 3))), None),
}


def searched(model, context, **options):
    found = beam_search(model, context, **options)
    log_prob = torch.tensor([h.log_prob for own in found for h in own])
    return [[(h.values.tolist(), h.finished) for h in own] for own in found], log_prob


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3, "n_best": 2}, {"num_beams": 20, "n_best": 20}])
def test_a_native_search_finds_what_the_reference_finds(name, options):
    model, context = SEARCHED[name]()
    model = model.float().eval()
    options = {**options, "length_penalty": 0.6}
    found, log_prob = searched(model, context, engine="native", **options)
    wanted, log_p = searched(model, context, engine="reference", **options)
    assert found == wanted
    torch.testing.assert_close(log_prob, log_p, rtol=0, atol=1e-4)
    assert searched(model, context, **options)[0] == wanted
    if context is not None:  # a batch is its rows one by one, in batches of any size
        alone = [searched(model, own[own >= 0], engine="native", **options)[0][0] for own in context]
        assert alone == wanted
        assert searched(model, context, engine="native", batch_size=2, **options)[0] == wanted


def test_a_native_search_drops_the_rows_that_have_ended(monkeypatch):
    model, rows = translator(50, num_symbols=5, seed=3, stop=1.0).float(), []
    best = Ranker.best

    def counting(self, value=None):
        rows.append(len(self.session.rows))
        return best(self, value)

    monkeypatch.setattr(Ranker, "best", counting)
    assert all(own[0].finished for own in beam_search(model, SOURCES, num_beams=3, engine="native"))
    assert rows[0] == 5
    assert max(rows) <= 15
    assert rows[-1] < 10
    assert len(rows) < 25


def test_a_search_that_selects_other_rows_is_caught(monkeypatch):
    model, context = SEARCHED["source"]()
    model = model.float().eval()
    wanted = searched(model, context, num_beams=3, engine="reference")[0]
    assert searched(model, context, num_beams=3, engine="native")[0] == wanted
    select = Ranker.select
    monkeypatch.setattr(Ranker, "select", lambda self, rows: select(self, rows.roll(1)))
    assert searched(model, context, num_beams=3, engine="native")[0] != wanted


def test_what_is_not_native_is_refused_or_left_to_the_reference():
    model = translator()  # float64
    assert searched(model, SOURCES)[0] == searched(model, SOURCES, engine="reference")[0]
    with pytest.raises(ValueError, match="natively, but the tape is float32"):
        beam_search(model, SOURCES, engine="native")
    with pytest.raises(ValueError, match="engine: expected 'auto', 'native' or 'reference', got 'fast'"):
        beam_search(model, SOURCES, engine="fast")
    broken = translator().float()
    with torch.no_grad():
        broken.network.network.output.bias[2] = torch.nan
    for engine in ("native", "reference"):
        with pytest.raises(ValueError, match=r"parameters: expected .*numbers, got NaN"):
            beam_search(broken, SOURCES, engine=engine)


def test_bad_input_is_refused():
    model = translator()
    refused = {
        r"num_beams, batch_size: expected 1 or more, got 0 and 64": {"num_beams": 0},
        r"num_beams, batch_size: expected 1 or more, got 4 and 0": {"batch_size": 0},
        r"n_best: expected 1 to num_beams \(2\), got 3": {"num_beams": 2, "n_best": 3},
        r"n_best: expected 1 to num_beams \(4\), got 0": {"n_best": 0},
        r"length: expected 1 or more, got 0": {"max_length": 0},
        r"length_penalty: expected a finite number, got nan": {"length_penalty": math.nan},
    }
    for message, options in refused.items():
        with pytest.raises(ValueError, match=message):
            beam_search(model, SOURCES, **options)
    with pytest.raises(ValueError, match=r"model: expected symbols \(Categorical, Tokens\), .*, got Bernoulli"):
        beam_search(LSTM((3,), Bernoulli(), hidden_features=2))
    with pytest.raises(ValueError, match="model: expected a model or one order of it, got an ensemble"):
        beam_search(OrderAgnosticMADE((3,), Categorical(2), hidden_features=(4,)).ensemble(num_orders=2))
    with pytest.raises(ValueError, match="context: expected one for"):
        beam_search(model)


def test_a_label_is_a_context_too():
    model = randomised(LSTM((4,), Ending(Categorical(3)), hidden_features=4, encoder=Labels(2))).double()
    found = beam_search(model, torch.tensor([0, 1]), num_beams=200)
    for label, own in enumerate(found):
        log_prob = model(torch.tensor(label)).log_prob(possible(model))
        assert own[0].log_prob == pytest.approx(log_prob.max().item(), abs=1e-9)
