"""How a line is measured: everything that it compares in turns, in one run.

limit = max(2 B MACs / sgemm rate, 4 weights / rate of reading)    seconds for a batch of B rows
tax   = seconds to draw the batch / limit
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.images.speed import turns
from benchmarks.sampling.cases import CASES, Case, numbers, sources
from benchmarks.sequences.speed import machine
from seriatim import engine
from seriatim.autoregressive import Autoregressive
from seriatim.engine import Program
from seriatim.model import AutoregressiveModel
from seriatim.tasks.sampler import Sampler, as_prompt

SHARES = {1: 1, 16: 4, 64: 8}  # of the positions of a sequence that a row of a batch draws a call
SHORTEST = 0.1  # seconds that the engine draws in a turn
NUMBERS = 3 * 10**8  # read in a call that measures the machine


class Drawn(NamedTuple):
    """A way to draw: the call, and how many positions of all rows it draws."""

    call: Callable[[], Any]
    amount: float


def joint_of(model: AutoregressiveModel, case: Case, batch: int, positions: int) -> Autoregressive:
    """Return the distribution of B rows of so many positions."""
    length = None if case.unit in ("images", "rows") else positions
    if case.sources:
        return model(sources(batch), length=length)
    joint = model() if length is None else model(length=length)
    return joint.expand((batch,))


def stepped(joint: Autoregressive, values: Tensor, steps: int, turns_: int) -> Iterator[Tensor]:
    """Yield blocks of values that rollout draws in the middle of rows whose values are known, one a turn."""
    length = values.shape[1]
    first = max(0, (length - steps * turns_) // 2)
    prompt = as_prompt(values[:, :first] if first else None, joint, len(values))
    rows = torch.arange(len(values))
    for block in Sampler(seed=0, engine="reference").blocks(joint, rows, steps, prompt):
        yield block.values


@torch.no_grad()
def passes(model: AutoregressiveModel, joint: Autoregressive, x: Tensor) -> Callable[[], Any]:
    """Return a pass of the whole network over the values x (B, T, ...), as every position takes without a state."""
    state, order = joint.initial_state(), joint.order

    @torch.no_grad()
    def call() -> Any:
        return model.head(model.network(model.shifted(x, order), state)[0][:, -1:], order.places(0, 1))

    return call


def measure(name: str, batch: int, peers: Mapping[str, Path], *, repeats: int = 5) -> dict[str, Any]:
    """Measure a model on one thread, and the engine on two as well.

    The engine draws from a program that was lowered before; how long that took is told apart.

    Args:
        name: of `CASES`.
        batch: B.
        peers: checkouts of others.
        repeats: turns.
    """
    case = CASES[name]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    whole = case.unit in ("images", "rows")
    positions = case.positions if whole or case.sources else case.positions // SHARES[batch]
    model = case.make(positions).eval()
    work = case.work(model, positions)
    joint = joint_of(model, case, batch, positions)
    started = time.perf_counter()
    program = engine.lower(model, joint.order)
    lowering = time.perf_counter() - started

    @torch.no_grad()
    def draw() -> Tensor:
        return engine.start(joint, torch.arange(batch), 0, program).advance(positions).values

    values = draw()
    blocks = stepped(joint, values, steps := min(case.steps, positions // (repeats + 1)), repeats + 1)
    seen: list[Tensor] = []

    started = time.perf_counter()
    draw()
    again = 1 + int(SHORTEST / (time.perf_counter() - started))  # short samples are drawn again and again

    def native(threads: int) -> None:
        torch.set_num_threads(threads)
        for _ in range(again):
            draw()
        torch.set_num_threads(1)

    def halved() -> None:
        with torch.no_grad():
            for _ in range(again):
                engine.start(joint, torch.arange(batch), 0, rounded).advance(positions)

    other = None if case.peer is None else case.peer[1](peers, batch)
    short = joint_of(model, case, batch, min(case.passed, positions if whole else case.passed))
    window = short.order.length
    seeds = values if whole else values.repeat(1, -(-window // positions), *[1] * (values.ndim - 2))[:, :window]
    ways = {
        "native": Drawn(lambda: native(1), again * batch * positions),
        "two threads": Drawn(lambda: native(2), again * batch * positions),
        "rollout": Drawn(lambda: seen.append(next(blocks)), batch * steps),
    }
    if batch < max(SHARES):  # whole passes over a large batch take too long to be of use
        ways["passes"] = Drawn(passes(model, short, seeds), batch)
    if batch == 1:
        rounded = engine.lower(model, joint.order, precision="bf16-weights")
        ways["bf16"] = Drawn(halved, again * positions)
    if other is not None:
        count = 2 if whole else 50
        ways["peer"] = Drawn(lambda: other(count), batch * count)
    rulers = machine(numbers(model), NUMBERS)  # reading is as fast as the cache that holds the weights
    calls = {key: way.call for key, way in ways.items()} | {key: call for key, (call, _) in rulers.items()}
    load = round(os.getloadavg()[0], 2)  # above the number of cores: the machine had other work
    seconds = turns(calls, repeats)
    cpu = {key: way.amount / np.array(seconds[key]["cpu"]) for key, way in ways.items()}
    rates = {key: amount / np.array(seconds[key]["cpu"]) for key, (_, amount) in rulers.items()}
    arithmetic, reading = 2 * batch * work.macs / rates["sgemm"], 4 * work.weights / rates["reading"]
    limit = np.maximum(arithmetic, reading)
    first, found = max(0, (positions - steps * (repeats + 1)) // 2), torch.cat(seen, dim=1)
    same = (found == values[:, first : first + found.shape[1]]).double()
    return {
        "batch": batch,
        "positions": positions,
        "macs": work.macs,
        "weights": work.weights,
        "per_s": {key: median(rate) for key, rate in cpu.items()},
        "ratios": {
            key: median(cpu["native"] / cpu[key]) for key in cpu if key not in ("native", "two threads", "bf16")
        },
        "two_threads": median(np.array(seconds["native"]["wall"]) / np.array(seconds["two threads"]["wall"])),
        "lowering_ms": median(np.array([1e3 * lowering])),
        "machine": {key: median(rate / 1e9) for key, rate in rates.items()},
        "binds": "arithmetic" if np.median(arithmetic) >= np.median(reading) else "reading",
        "tax": median(np.array(seconds["native"]["cpu"]) / (again * limit)),
        "equal": float(same.mean()),
        "bf16": rounding(joint, rounded) | {"ratio": median(cpu["bf16"] / cpu["native"])} if batch == 1 else None,
        "load_average": load,
        "peer": case.peer[0] if case.peer and other is not None else None,
    }


@torch.no_grad()
def rounding(joint: Autoregressive, rounded: Program) -> dict[str, float]:
    """Return how far log p of the model and that of the rounded one are apart, in nats a position, of its samples."""
    drawn = engine.start(joint, torch.arange(1), 0, rounded).advance(rounded.length, log_probs=True)
    exact = joint.order.to_positions(joint.log_prob_terms(joint.order.to_data(drawn.values)))
    assert drawn.log_probs is not None
    apart = (exact.reshape(drawn.log_probs.shape) - drawn.log_probs).abs().numpy()
    return {"mean_nats": median(np.array([apart.mean()])), "largest_nats": median(np.array([apart.max()]))}


def median(values: np.ndarray) -> float:
    """Return the median with four digits that count."""
    return float(f"{np.median(values):.4g}")
