"""Checks of the contract: torch's distribution rules, training, storage, errors."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor

from seriatim.autoregressive import evaluating, rollout
from seriatim.testing.case import Case, CheckFailed, NotApplicable
from seriatim.testing.law import assert_close

POINT_MASS = 0.05  # nats a position


@torch.no_grad()
def distribution_contract(case: Case) -> None:
    """Shapes, broadcasting and terms behave as in torch.distributions."""
    context = None if case.context is None else case.context[0]
    single = case.model(context)
    event = tuple(case.model.event_shape)
    for what, got, expected in (
        ("event_shape", tuple(single.event_shape), event),
        ("batch_shape", tuple(single.batch_shape), ()),
        ("sample((2, 3)).shape", tuple(single.sample((2, 3), seed=0).shape), (2, 3, *event)),
        ("log_prob of one row", tuple(single.log_prob(case.x[0]).shape), ()),
        ("log_prob of (2, 3) rows", tuple(single.log_prob(case.x.reshape(2, -1, *event)).shape), (2, case.rows // 2)),
    ):
        if got != expected:
            raise CheckFailed(f"{what}: expected {expected}, got {got}")
    terms = case.joint.log_prob_terms(case.x)
    if tuple(terms.shape) != (case.rows, *case.model.order.shape):
        raise CheckFailed(f"log_prob_terms: expected {(case.rows, *case.model.order.shape)}, got {tuple(terms.shape)}")
    assert_close("sum of the terms", terms.flatten(1).sum(1), case.joint.log_prob(case.x))
    stacked = torch.stack([case.x, case.other])
    assert_close("broadcast over a sample axis", case.joint.log_prob(stacked)[1], case.joint.log_prob(case.other))
    expanded = single.expand((2, 3))
    if tuple(expanded.sample(seed=0).shape) != (2, 3, *event):
        raise CheckFailed(f"expand((2, 3)).sample(): got shape {tuple(expanded.sample(seed=0).shape)}")
    if not bool(single.support.check(single.sample((5,), seed=1)).all()):
        raise CheckFailed("a sample lies outside the support")


@torch.no_grad()
def completion(case: Case) -> None:
    """Values given as a prefix come back unchanged, and the rest are samples under the same noise."""
    if case.length < 2:
        raise NotApplicable("one position has no prefix")
    half = case.length // 2
    x, other = case.positions(case.x), case.positions(case.other)
    with evaluating(case.model):
        steps = list(rollout(case.joint, lambda t, _: other[:, t : t + 1], prefix=x[:, :half]))
    if [step.position for step in steps] != list(range(half, case.length)):
        raise CheckFailed(f"positions after a prefix of {half}: got {[step.position for step in steps]}")
    completed = torch.cat([x[:, :half], *[step.value for step in steps]], dim=1)
    terms = torch.cat([step.conditional.log_prob(step.value) for step in steps], dim=1)
    whole = case.positions(case.joint.log_prob_terms(case.model.order.to_data(completed)))
    assert_close("log p of the completion", terms, whole[:, half:])


def context_matters(case: Case) -> None:
    """Another context gives another distribution."""
    if case.context is None:
        raise NotApplicable("the model is unconditional")
    own = case.joint.log_prob(case.x)
    swapped = case.model(case.context.flip(0)).log_prob(case.x)
    if torch.equal(own, swapped):
        raise CheckFailed("log_prob is the same under another context")


def gradients(case: Case) -> None:
    """Every parameter gets a finite gradient, somewhere not zero."""
    model = case.model
    model.zero_grad()
    loss = -torch.stack([case.joint.log_prob(x).mean() for x in (case.x, case.other)]).mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            raise CheckFailed(f"{name}: the gradient is missing")
        # The only position of a model reads the start symbol, zeros: what multiplies it gets no gradient.
        if case.length > 1 and not bool((parameter.grad != 0).any()):
            raise CheckFailed(f"{name}: the gradient is zero everywhere")
        if not bool(torch.isfinite(parameter.grad).all()):
            raise CheckFailed(f"{name}: the gradient is not finite")


def point_mass(case: Case) -> None:
    """200 Adam steps on one example reach less than 0.05 nats a position: no saturated or doubled head."""
    if not case.model.head.discrete:
        raise NotApplicable("a density has no greatest value to reach")
    nats = _memorised(case, case.x[:1])
    if not nats < POINT_MASS:
        # Where a window of values repeats with another value after it, a network that sees no more cannot learn the
        # row by heart. Rows of one value it can.
        nats = max((_memorised(case, row) for row in _constant_rows(case)), default=nats)
    if not nats < POINT_MASS:
        raise CheckFailed(f"{nats:.3f} nats a position after 200 steps on one example, expected < {POINT_MASS}")


def _memorised(case: Case, x: Tensor) -> float:
    """Train on one row (1, *event_shape) and return what remains, in nats a position."""
    model = copy.deepcopy(case.model).train()
    context = None if case.context is None else case.context[:1]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = -model(context).log_prob(x).mean()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(-model.eval()(context).log_prob(x).mean()) / case.length


def _constant_rows(case: Case) -> list[Tensor]:
    """Return rows (1, *event_shape) of two values that occur, the same at all positions, where that is possible."""
    values = torch.cat([case.positions(case.x), case.positions(case.other)]).flatten(0, 1)
    first = values[0]
    differs = (values != first).reshape(len(values), -1).any(1).nonzero().flatten()
    rows = []
    for value in (first, values[differs[0]]) if len(differs) else (first,):
        row = case.model.order.to_data(value.expand(1, case.length, *value.shape))
        if bool(case.joint.support.check(row).all()):
            rows.append(row)
    return rows


@torch.no_grad()
def storage(case: Case) -> None:
    """A saved model loads with the same log_prob."""
    from seriatim import runs

    with tempfile.TemporaryDirectory() as folder:
        runs.save(case.model, folder)
        loaded = runs.load(folder)
    assert_close(
        "log_prob after loading", loaded.double()(case.context).log_prob(case.x), case.joint.log_prob(case.x), 0.0
    )


def bad_input(case: Case) -> None:
    """Wrong shapes, values and contexts raise ValueError that names argument, expected and got."""
    joint = case.joint
    _refused("value of a wrong shape", lambda: joint.log_prob(torch.cat([case.x, case.x], -1)), "value")
    poisoned = case.x.clone().double()
    poisoned.reshape(case.rows, -1)[0, 0] = torch.inf
    _refused("an infinite value", lambda: joint.log_prob(poisoned), "value")
    if case.model.encoder is None:
        _refused("a context for an unconditional model", lambda: case.model(torch.zeros(2)), "context")
    else:
        _refused("no context for a conditional model", lambda: case.model(), "context")


def _refused(what: str, call: Callable[[], object], argument: str) -> None:
    try:
        call()
    except ValueError as error:
        message = str(error)
        if not (re.search(rf"\b{argument}\b", message) and "expected" in message and "got" in message):
            raise CheckFailed(f"{what}: the error names no argument, expected and got: {message!r}") from error
        return
    raise CheckFailed(f"{what}: accepted without an error")
