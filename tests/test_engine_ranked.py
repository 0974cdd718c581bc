"""The best symbols of a position, found natively: which they are, log p, the greedy loop, and sources that stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seriatim import engine
from seriatim.ending import Ending
from seriatim.heads import Bernoulli, Categorical, Tokens
from seriatim.models import FVSBN, LSTM, SourceEncoder, Transformer
from seriatim.tasks import beam_search
from zoo import randomised


def told(params: torch.Tensor, count: int, *, ending: bool = False) -> engine.Best:
    """What a position hands out whose parameters are given, row by row: (B, P)."""
    size, found = params.shape[1], []
    model = LSTM((2,), Ending(Tokens(size - 1)) if ending else Tokens(size), hidden_features=2).eval()
    joint = model().expand((1,))
    for row in params:  # the bias is what is added last, here to nothing
        with torch.no_grad():
            for own in model.network.parameters():
                own.zero_()
            model.network.output_bias.copy_(row)
        program = engine.lower(model, draw=False).ranked(count, ending=ending)
        session = engine.start(joint, torch.zeros(1, dtype=torch.int64), 0, program)
        found.append(engine.Ranker(joint, session, count).best())
    return engine.Best(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


@pytest.mark.parametrize("size", [1, 5, 16, 63, 64, 65, 128, 200, 4001])
def test_the_best_symbols_are_those_of_a_sort(size):
    params = 3 * torch.randn(3, size, generator=torch.Generator().manual_seed(size))
    params[1] = params[1].sort().values  # the best comes last
    params[2] = 0.5  # all as probable: the first symbols
    count = min(7, size)
    best = told(params, count)
    order = params[:2].argsort(dim=1, descending=True)[:, :count].numpy()
    assert (best.symbols[:2] == order).all()
    assert best.symbols[2].tolist() == list(range(count))
    log_p = params.double().log_softmax(1)
    torch.testing.assert_close(
        torch.from_numpy(best.log_prob), log_p.gather(1, torch.from_numpy(best.symbols)), atol=3e-6, rtol=0
    )
    assert (best.stop == -np.inf).all()


def test_symbols_that_cannot_be_come_last_and_the_end_is_told_apart():
    params = torch.tensor([[7.0, -torch.inf, 2.0, -torch.inf, 1.0], [-3.0, 0.0, -torch.inf, -torch.inf, -torch.inf]])
    best = told(params, 3, ending=True)
    assert best.stop.tolist() == [7.0, -3.0]
    assert best.symbols[:, 0].tolist() == [1, 0]
    assert best.symbols[0, 1] == 3
    assert np.isneginf(best.log_prob).tolist() == [[False, False, True], [False, True, True]]
    assert best.log_prob[0, 0] == pytest.approx(float(F.logsigmoid(torch.tensor(1.0))), abs=1e-6)
    assert best.log_prob[1, 0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("place", [0, 3, 70])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_parameters_that_are_no_distribution_are_refused(place, number):
    params = torch.zeros(1, 80)
    params[0, place] = number
    if place or number != torch.inf:  # an end may be certain
        with pytest.raises(ValueError, match="expected finite numbers, got NaN or infinity at position 0, row 0"):
            told(params, 2, ending=True)
    with pytest.raises(ValueError, match="expected finite numbers"):
        told(torch.full((1, 80), -torch.inf), 2)


def test_what_cannot_be_ranked_is_refused():
    model = LSTM((3,), Categorical(4), hidden_features=3)
    with pytest.raises(ValueError, match="ranked: expected a program lowered with draw=False, got one that draws"):
        engine.lower(model).ranked(2)
    program = engine.lower(model, draw=False)
    for count in (0, 5):
        with pytest.raises(ValueError, match=f"count: expected 1 to 4, got {count}"):
            program.ranked(count)
    with pytest.raises(ValueError, match="count: expected 1 to 3, got 4"):
        program.ranked(4, ending=True)
    with pytest.raises(ValueError, match="expected symbols"):
        beam_search(FVSBN((3,), Bernoulli()))


def translator(length: int = 12, stop: float = 0.0) -> Transformer:
    sizes = {"num_layers": 1, "num_heads": 2}
    encoder = SourceEncoder(6, 8, **sizes)
    model = randomised(Transformer((length,), Ending(Tokens(9)), hidden_features=8, **sizes, encoder=encoder), 52)
    with torch.no_grad():
        model.network.output_bias[0] = stop
    return model.float().eval()


SOURCES = torch.tensor([[0, 1, 2, 5], [3, -1, -1, -1], [2, 2, -1, -1], [1, 0, -1, -1], [0, 0, 3, -1], [4, 4, 4, 4]])


def test_the_greedy_loop_is_the_choice_position_by_position():
    model = translator()
    joint, count = model(SOURCES), len(SOURCES)
    program = engine.lower(model, draw=False)
    rows = torch.zeros(count, dtype=torch.int64)
    stepped = engine.Ranker(joint, engine.start(joint, rows, 0, program.ranked(1, ending=True)), 1)
    looped = engine.Ranker(joint, engine.start(joint, rows, 0, program.ranked(1, ending=True, greedy=True)), 1)
    best, value = [], None
    for _ in range(12):
        best.append(stepped.best(value))
        value = best[-1].symbols[:, 0]
    parts = [looped.greedy(n) for n in (5, 7)]
    log_prob, symbols, stop = (np.concatenate(column, axis=1) for column in zip(*parts, strict=True))
    wanted = np.stack([own.stop for own in best], axis=1)
    alive = (wanted > np.stack([own.log_prob[:, 0] for own in best], axis=1)).cumsum(1) == 0
    assert alive[:, 0].all()
    assert not alive[:, -1].all()
    seen = np.concatenate([np.ones((count, 1), bool), alive[:, :-1]], axis=1)  # up to the end and with it
    assert (stop[seen] == wanted[seen]).all()
    assert (log_prob[..., 0] == np.stack([own.log_prob[:, 0] for own in best], axis=1))[seen].all()
    assert (symbols[..., 0] == np.stack([own.symbols[:, 0] for own in best], axis=1))[alive].all()
    assert (stop[:, 1:] == np.inf)[~alive[:, :-1]].all()  # nothing but ends follows an end


def test_rows_that_are_selected_read_their_own_source_which_stays():
    model = translator()
    joint, rows = model(SOURCES), torch.tensor([4, 1, 1, 5, 0, 3, 2])
    program = engine.lower(model, draw=False).ranked(3, ending=True)
    stepper = engine.Ranker(joint, engine.start(joint, torch.zeros(6, dtype=torch.int64), 0, program), 3)
    before = [memory.data_ptr() for memory in stepper.session.memories]
    stepper.best()
    stepper.select(rows)
    stepper.best(np.zeros(7, np.int64))
    stepper.select(torch.tensor([6, 2, 0]))
    found = stepper.best(np.ones(3, np.int64))
    assert [memory.data_ptr() for memory in stepper.session.memories] == before
    with torch.no_grad():
        x = torch.zeros(3, 12, dtype=torch.int64)
        x[:, 1] = 1
        wanted = model(SOURCES[[2, 1, 4]]).conditionals(x)
    log_prob, symbols = wanted.values.logits[:, 2].sort(descending=True)
    assert (found.symbols == symbols[:, :3].numpy()).all()
    torch.testing.assert_close(torch.from_numpy(found.log_prob).float(), log_prob[:, :3], atol=1e-5, rtol=0)
