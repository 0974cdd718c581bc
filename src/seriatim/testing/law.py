"""Checks of the network: chunks, causality, the declared receptive field, rows that stay apart."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from seriatim.autoregressive import rollout
from seriatim.causal import Recompute, State, clone, select
from seriatim.testing.case import Case, CheckFailed, NotApplicable

TOLERANCE = 1e-9


def assert_close(
    what: str, got: Tensor, expected: Tensor, tolerance: float = TOLERANCE, *, equal_nan: bool = False
) -> None:
    """Fail with the largest difference and its place unless two tensors agree."""
    if got.shape != expected.shape:
        raise CheckFailed(f"{what}: expected shape {tuple(expected.shape)}, got {tuple(got.shape)}")
    got, expected = got.detach().double(), expected.detach().double()
    # Equal infinities agree: a table may hold probability 0.
    same = (got == expected) | (got.isnan() & expected.isnan() if equal_nan else False)
    difference = torch.where(same, 0.0, (got - expected).abs() / (1 + expected.abs()))
    if difference.numel() and not bool((difference <= tolerance).all()):
        worst = difference.nan_to_num(nan=torch.inf)
        place = tuple(int(i) for i in torch.unravel_index(worst.argmax(), worst.shape))
        raise CheckFailed(f"{what}: differs at {place}: expected {float(expected[place])}, got {float(got[place])}")


def run_chunks(case: Case, u: Tensor, sizes: list[int]) -> Tensor:
    """Run the network over chunks of the given sizes."""
    state, outputs, start = case.joint.initial_state(), [], 0
    for size in sizes:
        y, state = case.model.network(u[:, start : start + size], state)
        outputs.append(y)
        start += size
    return torch.cat(outputs, dim=1)


def random_sizes(case: Case) -> list[int]:
    """Cut T positions into chunks at random."""
    cuts = torch.rand(case.length - 1, generator=case.generator) < 0.5
    edges = [0, *(int(i) + 1 for i in cuts.nonzero().flatten()), case.length]
    return [b - a for a, b in pairwise(edges)]


def chunks(case: Case) -> None:
    """Any split into chunks gives the outputs and gradients of one chunk, with gradients on and off."""
    u = case.features(case.x).requires_grad_()
    whole, _ = case.model.network(u, case.joint.initial_state())
    weights = torch.randn(whole.shape, generator=case.generator, dtype=whole.dtype)
    finite = torch.isfinite(whole)
    parameters = [p for p in case.model.network.parameters() if p.requires_grad]
    wanted = torch.autograd.grad((whole * weights)[finite].sum(), [u, *parameters], allow_unused=True)
    half = case.length // 2
    halves = [half, case.length - half] if half else [case.length]
    for sizes in ([1] * case.length, halves, random_sizes(case), random_sizes(case)):
        parts = run_chunks(case, u, sizes)
        assert_close(f"chunks of {sizes}", parts, whole)
        found = torch.autograd.grad((parts * weights)[finite].sum(), [u, *parameters], allow_unused=True)
        for g, w in zip(found, wanted, strict=True):
            if (g is None) != (w is None):
                raise CheckFailed(f"chunks of {sizes}: a gradient exists in one form only")
            if g is not None and w is not None:
                assert_close(f"gradient, chunks of {sizes}", g, w)
        with torch.no_grad():
            assert_close(f"chunks of {sizes}, gradients off", run_chunks(case, u.detach(), sizes), whole)


@torch.no_grad()
def recompute(case: Case) -> None:
    """The step form equals the network run again over the whole prefix at every position."""
    u = case.features(case.x)
    oracle, state = Recompute(case.model.network), None
    encoded = case.joint.encoded()
    state, expected = oracle.initial_state(case.rows, encoded, case.length), []
    for t in range(case.length):
        y, state = oracle(u[:, t : t + 1], state)
        expected.append(y)
    assert_close("one position at a time", run_chunks(case, u, [1] * case.length), torch.cat(expected, dim=1))


@torch.no_grad()
def causality(case: Case) -> None:
    """Changing x_s changes no conditional at a position up to s."""
    before = case.outputs(case.x)
    for s in range(case.length):
        after = case.outputs(case.replaced(s))
        changed = ~torch.isclose(after, before, rtol=0, atol=1e-12, equal_nan=True)[:, : s + 1].flatten(2).all(-1)
        if changed.any():
            t = int(changed.nonzero()[0, 1])
            raise CheckFailed(f"the conditional of position {t} depends on the value of position {s}")


@torch.no_grad()
def receptive_field(case: Case) -> None:
    """Position t depends on exactly the positions that the network declares."""
    declared = case.model.network.dependencies(case.length)
    declared = torch.cat([declared[:, 1:], torch.zeros(case.length, 1, dtype=torch.bool)], dim=1).tril(-1)
    found = torch.zeros_like(declared)
    for trial in range(6):
        trial_case = case if trial == 0 else Case(case.model, case._draw_context, seed=trial + 100)
        before = trial_case.outputs(trial_case.x)
        for s in range(case.length - 1):
            after = trial_case.outputs(trial_case.replaced(s))
            found[:, s] |= (after != before).flatten(2).any(-1).any(0)
        if torch.equal(found, declared):
            return
    for t, s in (found != declared).nonzero().tolist():
        reads = "reads" if found[t, s] else "never reads"
        says = "declares that it does not" if found[t, s] else "declares that it does"
        raise CheckFailed(f"position {t} {reads} position {s}, but the network {says}")


def fork(case: Case) -> None:
    """Two branches of one state, continued in turn, give what fresh runs give: they share no memory."""
    if case.length < 2:
        raise NotApplicable("one position has no prefix")
    half, rows = case.length // 2, torch.tensor([1, 0, 1, case.rows - 1])
    u, other = case.features(case.x), case.features(case.other)
    # One branch goes on with its own row, the other with the values of another.
    v = torch.cat([u[:, :half], other[:, half:]], dim=1)
    expected = [case.model.network(w, case.joint.initial_state())[0][rows, half:].detach() for w in (u, v)]
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            _, state = case.model.network(u[:, :half], case.joint.initial_state())
            one = select(state, rows)
            # With gradients on nobody writes into a state, so that it serves twice without a copy.
            branches: list[State] = [one, one if gradients else clone(one)]
            outputs: list[list[Tensor]] = [[], []]
            for t in range(half, case.length):
                for k, w in enumerate((u, v)):
                    y, branches[k] = case.model.network(w[rows, t : t + 1], branches[k])
                    outputs[k].append(y)
            for k in range(2):
                what = f"branch {k + 1} of a state, gradients {'on' if gradients else 'off'}"
                assert_close(what, torch.cat(outputs[k], dim=1), expected[k])


@torch.no_grad()
def rows_alone(case: Case) -> None:
    """A batch of n rows gives what n batches of one row give."""
    whole = case.joint.log_prob(case.x)
    for row in range(case.rows):
        context = None if case.context is None else case.context[row : row + 1]
        assert_close(f"row {row} alone", case.model(context).log_prob(case.x[row : row + 1]), whole[row : row + 1])


@torch.no_grad()
def rows_apart(case: Case) -> None:
    """Other values, or a NaN, in one row do not reach another."""
    u = case.features(case.x)
    clean, _ = case.model.network(u.clone(), case.joint.initial_state())
    changed, poisoned = u.clone(), u.clone()
    changed[0] = case.features(case.other)[0]
    for sizes in ([case.length], [1] * case.length):
        assert_close("rows beside another", run_chunks(case, changed, sizes)[1:], clean[1:])
    poisoned[0] = torch.nan
    for sizes in ([case.length], [1] * case.length):
        try:
            y = run_chunks(case, poisoned, sizes)
        except (IndexError, RuntimeError) as error:
            raise NotApplicable(f"the network reads symbols, not numbers ({type(error).__name__})") from error
        assert_close("rows beside a NaN", y[1:], clean[1:])


@torch.no_grad()
def forced_rollout(case: Case) -> None:
    """Stepwise scoring of given values equals `log_prob_terms`, from the start and after a prefix."""
    x = case.positions(case.x)
    terms = case.positions(case.joint.log_prob_terms(case.x))
    for prefix in {0, case.length // 2}:
        steps = rollout(case.joint, lambda t, _: x[:, t : t + 1], prefix=x[:, :prefix])
        got = torch.cat([step.conditional.log_prob(step.value) for step in steps], dim=1)
        assert_close(f"forced rollout after {prefix} values", got, terms[:, prefix:])
