"""What tests of the native engine share: large random weights, and samples held to those of `rollout`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seriatim import engine
from seriatim.autoregressive import Autoregressive
from seriatim.model import AutoregressiveModel

SEED = 3
ROWS = 16


def drawn(model: AutoregressiveModel, std: float = 0.4) -> AutoregressiveModel:
    """Draw large weights, so that every value matters to those after it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=std)
    return model.eval().requires_grad_(False)


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Values of the same kind: equal where they are whole numbers, near where they are real."""
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def terms_of(p: Autoregressive, x: Tensor) -> Tensor:
    """The log p of each position (B, T), positions in order."""
    terms = p.order.to_positions(p.log_prob_terms(x))
    return terms.flatten(2).sum(-1) if terms.ndim > 2 else terms


def agree(
    model: AutoregressiveModel,
    context: Tensor | None = None,
    *,
    prompts: Sequence[int] = (),
    tolerance: float = 1e-5,
    log_p: float = 1e-4,
) -> Tensor:
    """Hold the engine to `rollout`: 1, 3 and 16 rows, log p, prompts, streams and forks. Return the rows of both."""
    p = model().expand((ROWS,)) if context is None else model(context)
    wanted = p.sample(seed=SEED, engine="reference")
    program = engine.lower(model)
    for batch in (1, 3, ROWS):
        rows = torch.arange(batch)
        close(p.rows(rows).sample_rows(rows, SEED, "native"), wanted[:batch], tolerance)
    rows, positions, length = torch.arange(ROWS), p.order.to_positions(wanted), p.order.length
    samples = engine.start(p, rows, SEED, program).advance(length, log_probs=True)
    close(samples.values, positions, tolerance)
    close(samples.log_probs, terms_of(p, wanted), log_p)
    for k in prompts:
        session = engine.start(p, rows, SEED, program, prefix=positions[:, :k])
        close(session.advance(length - k).values, positions[:, k:], tolerance)
    session = engine.start(p, rows, SEED, program)
    parts = [session.advance(count).values for count in (1, length // 3, 0)]
    close(torch.cat(parts, 1), positions[:, : 1 + length // 3], tolerance)
    session.select(torch.tensor([4, 0, 0]))
    left = length - 1 - length // 3
    close(session.advance(left).values, positions[[4, 0, 0], -left:] if left else positions[[4, 0, 0], :0], tolerance)
    return wanted


def changed(program: engine.Program, op: int, column: int, number: int, which: int = 0) -> engine.Program:
    """Plant a bug: another number in one instruction of a kind."""
    from dataclasses import replace

    code = program.code.clone()
    place = int((code[:, 0] == op).nonzero()[which])
    assert code[place, column] != number
    code[place, column] = number
    return replace(program, code=code)


def caught(p: Autoregressive, program: engine.Program, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether the samples of a program with a bug differ from those wanted, or their log p."""
    try:
        samples = engine.start(p, torch.arange(len(wanted)), SEED, program).advance(p.order.length, log_probs=True)
    except ValueError:  # memory read at the wrong place may hold no numbers
        return True
    try:
        close(samples.values, p.order.to_positions(wanted), tolerance)
        close(samples.log_probs, terms_of(p, wanted), 1e-4)
    except AssertionError:
        return True
    return False
