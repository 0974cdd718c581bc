"""Maps between units sorted by degree: blocks of positions, whatever numbers of units the positions own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from engine_checks import ROWS, SEED, agree, drawn
from seriatim import engine
from seriatim.context import Vector
from seriatim.engine.operands import CUT, DOT, SPAN
from seriatim.engine.ragged import Ragged, ragged
from seriatim.heads import Categorical, MixtureOfNormals
from seriatim.model import AutoregressiveModel
from seriatim.models import FVSBN, MADE, OrderAgnosticMADE
from seriatim.order import Order, RandomOrder

LONG = 100  # positions: three blocks of single outputs, and a rest


def ends_of(*counts: int) -> list[int]:
    return torch.tensor([0, *counts]).cumsum(0).tolist()


def whole(own: Ragged, num_inputs: int, num_outputs: int, num_positions: int) -> Tensor:
    """Read a layout as the kernel does: the weights (P, F) that each output is multiplied with."""
    spans = own.table[: num_positions * SPAN].unflatten(0, (-1, SPAN)).long()
    rows = own.table[num_positions * SPAN :][: num_outputs * own.inner].view(num_outputs, own.inner)
    found = torch.zeros(num_outputs + DOT, num_inputs + own.inner)
    for first, last, begin, end, seen, high, low, columns in spans.tolist():
        place, output = high * CUT + low, begin
        while columns > 0:
            width = min(columns, DOT)
            found[output : output + width, :seen] += own.table[place : place + seen * width].unflatten(0, (-1, width)).T
            place, output, columns = place + seen * width, output + width, columns - width
        assert first <= last
        found[begin:end, seen : seen + own.inner] += rows[begin:end]
    return found[:num_outputs, :num_inputs]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([1] * 70, [1] * 70),
        ([0, 3, 0, 2] * 9, [2, 0, 1, 0] * 9),
        ([1, 1, 1], [70, 5, 40]),
        ([40, 0, 7], [0, 0, 1]),
        ([2], [3]),
    ],
    ids=["ones", "uneven", "many outputs", "many inputs", "one position"],
)
def test_a_layout_holds_each_weight_once(inputs: list[int], outputs: list[int]) -> None:
    ends = ends_of(*inputs), ends_of(*outputs)
    position = torch.arange(len(inputs))
    mask = (
        position.repeat_interleave(torch.tensor(inputs)) <= position.repeat_interleave(torch.tensor(outputs))[:, None]
    )
    weight = torch.randn(sum(outputs), sum(inputs)) * mask
    own = ragged(weight, ends)
    torch.testing.assert_close(whole(own, sum(inputs), sum(outputs), len(inputs)), weight, rtol=0, atol=0)
    assert own.num_kept >= sum(inputs) + own.inner  # a last dot product reads zeros behind the inputs


MODELS: dict[str, Callable[[], AutoregressiveModel]] = {
    "fvsbn": lambda: FVSBN((LONG,)),
    "fvsbn_categories": lambda: FVSBN((20,), Categorical(9), order=RandomOrder((20,), 1)),
    "made_few_units": lambda: MADE((LONG,), hidden_features=(40,)),
    "made_many_units": lambda: MADE((9,), hidden_features=(400, 300)),
    "made_mixture": lambda: MADE((LONG,), MixtureOfNormals(2), hidden_features=(130, 130, 130), residual=True),
    "made_any_order": lambda: OrderAgnosticMADE((70,), hidden_features=(90,)),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_prompt_may_end_anywhere_in_a_block(name: str) -> None:
    model = drawn(MODELS[name](), std=0.03 if name == "made_mixture" else 0.1)  # sums of many values grow
    length = model.order.length
    agree(model, prompts=[k for k in (1, 7, 31, 32, 33, 63, 64, 65, 96) if k < length] + [length - 1])


def test_a_context_enters_the_sums_of_a_block() -> None:
    torch.manual_seed(0)
    model = drawn(MADE((70,), hidden_features=(90,), encoder=Vector(3)), std=0.1)
    agree(model, torch.randn(ROWS, 3), prompts=(5, 40))


def test_values_of_another_order() -> None:
    model = drawn(OrderAgnosticMADE((70,), hidden_features=(90,)), std=0.1)
    order = RandomOrder((70,), 5)
    p: Any = model(order=order).expand((ROWS,))
    rows = torch.arange(ROWS)
    wanted = p.sample(seed=SEED, engine="reference")
    assert not torch.equal(wanted, model(order=Order((70,))).expand((ROWS,)).sample(seed=SEED, engine="reference"))
    torch.testing.assert_close(p.rows(rows).sample_rows(rows, SEED, "native"), wanted, rtol=0, atol=0)


def test_sums_that_a_prompt_leaves_out_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from seriatim.engine import instructions

    real = instructions.kept

    def forgetful(own: Ragged, *others: Any) -> Any:
        return real(own._replace(blocks=[0]), *others)

    monkeypatch.setattr(instructions, "kept", forgetful)
    model = drawn(FVSBN((LONG,)), std=0.4)
    p = model().expand((ROWS,))
    values = p.order.to_positions(p.sample(seed=SEED, engine="reference"))
    program, rows = engine.lower(model), torch.arange(ROWS)
    rest = engine.start(p, rows, SEED, program, prefix=values[:, :40]).advance(LONG - 40).values
    assert not torch.equal(rest, values[:, 40:])
    rest = engine.start(p, rows, SEED, program, prefix=values[:, :32]).advance(LONG - 32).values
    assert torch.equal(rest, values[:, 32:])
