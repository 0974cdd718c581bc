"""Generation speed of WaveNet and LSTM on one thread: from whole passes to the limit of the machine.

    limit = max(2 B MACs / sgemm rate, weight bytes / rate of reading)   seconds for one position of B streams

All that a line compares is measured in turns in one run, and a ratio is the median of the ratios of the turns: other
work on the machine slows all sides.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import load_rows, provenance, store, table
from benchmarks.images.speed import turns
from benchmarks.sequences.peers import Generator, Sizes, pytorch_wavenet, stepped_lstm, wavenet_vocoder
from seriatim.engine import Engine
from seriatim.heads import Categorical
from seriatim.model import AutoregressiveModel
from seriatim.models import LSTM, WaveNet
from seriatim.noise import uniforms

TITLE = "Sequences: speed of generation"
RESULTS = "sequences-speed"
SYMBOLS, PREFIX = 128, 128
ABOUT = (
    "One thread, one or 16 streams, float32, the weights that models start with; Categorical(256) for WaveNet, 128 "
    "symbols for LSTM. Rates are positions of all streams in a second of **CPU time**, medians of the turns: the "
    "machine had other work, which does not count there, but shares caches and memory. What a line compares is "
    "measured in turns in one run, and a ratio is the median of the ratios of the turns. *Whole passes* is our own "
    "network run again for every position, over its whole receptive field (3,071 and 2,048 positions), or over the "
    f"prefix (LSTM: {PREFIX} symbols, the mean of a sample of {2 * PREFIX}); two positions are timed a turn, and a "
    "pass over 16 streams is slower by the sample than 16 passes over one. *rollout* is our cached step in PyTorch "
    '(`engine="reference"`), *native* the sampling engine, timed as a user calls it: lowering, memory and noise '
    "included, one second of 16 kHz audio or 2,000 symbols a call, a quarter of it for each of 16 streams; its values "
    "are those of rollout. Peers are cached generators at the same sizes: `incremental_forward` of "
    "r9y9/wavenet_vocoder without its weight normalisation (16 streams are given as `test_inputs`, for without "
    "conditioning it knows one), and `generate_fast` of vincentherrmann/pytorch-wavenet, one stream only, made to run "
    "on today's torch by an empty `librosa` where there is none and a queue that squeezes what it stores; gradients "
    "are off. *nn.LSTM by steps* is the loop that users write: one position a call, linear map, `torch.multinomial`. "
    "The limit of a position is its multiply-adds (tables that a symbol looks up apart) at the rate of a 512 x 512 "
    "product, or one reading of its weights at the rate at which torch sums as many numbers, whichever takes longer; "
    "torch's product of matrix and vector (GEMV) reads more slowly, and the share of a limit by its rate stands "
    "beside. The 21 MB of LSTM 3x512 stay in the shared cache only while other work leaves room: a share above 100 % "
    "is due to that."
)


class Counts(NamedTuple):
    """How many positions a turn draws with each, and how many numbers it reads from memory."""

    native: int
    rollout: int = 200
    passes: int = 2
    peer: int = 100
    numbers: int = 10**9


class Case(NamedTuple):
    """A model to measure; `window` is the length of a whole pass, `looked_up` the weights that symbols look up."""

    model: AutoregressiveModel
    window: int
    looked_up: Tensor
    counts: Counts


class Target(NamedTuple):
    """The least of a number in a row: `kind` names a ratio, "audio" samples/s of a stream, "limit" a share of it."""

    row: str
    kind: str
    least: float


WAVENETS = {"WaveNet 30x32": Sizes(), "WaveNet 20x64": Sizes(blocks=2, width=64)}
LSTMS = {"LSTM 1x512": 1, "LSTM 3x512": 3}
BATCHES = (1, 16)
LINES = {f"{name}, batch {batch}": (name, batch) for name in (*WAVENETS, *LSTMS) for batch in BATCHES}
WAYS = {"passes": "whole passes", "rollout": "rollout"}
PEERS = {"wavenet_vocoder": "r9y9/wavenet_vocoder", "pytorch-wavenet": "vincentherrmann/pytorch-wavenet"}
TARGETS = (
    Target("WaveNet 30x32, batch 1", "passes", 1500),
    Target("WaveNet 30x32, batch 16", "passes", 3000),
    Target("WaveNet 30x32, batch 1", "wavenet_vocoder", 120),
    Target("WaveNet 30x32, batch 1", "audio", 16000),
    Target("WaveNet 20x64, batch 1", "limit", 0.8),
    Target("LSTM 1x512, batch 1", "nn.LSTM", 15),
)


def wavenet(sizes: Sizes, counts: Counts) -> Case:
    """Return a WaveNet of these sizes."""
    model = WaveNet(
        (16000,),
        Categorical(sizes.levels),
        num_blocks=sizes.blocks,
        layers_per_block=sizes.layers,
        residual_features=sizes.width,
        gate_features=sizes.width,
        skip_features=sizes.skip,
    )
    first: Any = model.network.first
    return Case(model.eval(), model.receptive_field, first.taps.weight, counts)


def lstm(layers: int, counts: Counts, units: int = 512) -> Case:
    """Return an LSTM over symbols."""
    model = LSTM((2000,), Categorical(SYMBOLS), hidden_features=units, num_layers=layers)
    first: Any = model.get_submodule("network.layers.0.rnn")
    return Case(model.eval(), PREFIX, first.weight_ih_l0, counts)


@torch.no_grad()
def whole_passes(model: AutoregressiveModel, batch: int, window: int, positions: int) -> Tensor:
    """Draw positions (B, n) with a pass over `window` values for each."""
    joint = model(length=window).expand((batch,))
    x, rows = torch.zeros(batch, window, dtype=torch.int64), torch.arange(batch)
    for position in range(positions):
        y, _ = model.network(model.cast(model.head.encode(x)), joint.initial_state())
        u = uniforms(0, rows, torch.tensor([position]), model.head.num_uniforms)
        x = torch.cat([x[:, 1:], model.head(y[:, -1:]).from_uniforms(u)], dim=1)
    return x[:, -positions:]


def machine(macs: int, numbers: int) -> dict[str, tuple[Callable[[], Any], float]]:
    """Return what measures the machine, and its FLOP or bytes: a product, a reading of the weights, a GEMV of them.

    Args:
        macs: how many weights.
        numbers: how many are read in a call; the products take about as long.
    """
    a, weights, vector = torch.randn(512, 512), torch.randn(max(1, macs // 512), 512), torch.randn(512)
    repeats = max(1, numbers // weights.numel())
    read, again = 4.0 * weights.numel() * repeats, weights.expand(repeats, -1, -1)
    products = max(1, numbers // 512**2 // 120)
    return {
        "sgemm": (lambda: [a @ a for _ in range(products)], products * 2 * 512.0**3),
        "reading": (lambda: again.sum(), read),
        "gemv": (lambda: [weights @ vector for _ in range(repeats)], read),
    }


def draws(
    case: Case, batch: int, others: Mapping[str, Generator], drawn: dict[str, Tensor]
) -> dict[str, tuple[Callable[[], Any], float]]:
    """Return ways to generate, and how many values a call draws; our own leave them in `drawn`."""
    model, counts = case.model, case.counts

    def sample(engine: Engine, positions: int) -> None:
        drawn[engine] = model(length=positions).sample((batch,), seed=0, engine=engine)

    return {
        "native": (lambda: sample("native", counts.native), batch * counts.native),
        "rollout": (lambda: sample("reference", counts.rollout), batch * counts.rollout),
        "passes": (lambda: whole_passes(model, batch, case.window, counts.passes), batch * counts.passes),
        **{name: (partial(other, counts.peer), batch * counts.peer) for name, other in others.items()},
    }


def measure(case: Case, batch: int, others: Mapping[str, Generator], *, repeats: int = 7) -> dict[str, Any]:
    """Measure our ways to generate, those of others and the machine, in turns.

    Args:
        case: the model and how much to draw.
        batch: B.
        others: draw so many positions of B streams.
        repeats: turns.
    """
    drawn: dict[str, Tensor] = {}
    macs = sum(p.numel() for p in case.model.parameters() if p.ndim > 1) - case.looked_up.numel()
    ways, rulers = draws(case, batch, others, drawn), machine(macs, case.counts.numbers)
    work = {**ways, **rulers}
    seconds = turns({name: call for name, (call, _) in work.items()}, repeats)
    rates = {name: np.array([amount / s for s in seconds[name]["cpu"]]) for name, (_, amount) in work.items()}
    arithmetic = rates["sgemm"] / (2 * macs)  # positions of all streams a second
    traffic = {name: batch * rates[name] / (4 * macs) for name in ("reading", "gemv")}
    limit = np.minimum(arithmetic, traffic["reading"])
    both = min(case.counts.native, case.counts.rollout)
    return {
        "batch": batch,
        "macs": macs,
        "per_s": {name: _median(rates[name]) for name in ways},
        "ratios": {name: _median(rates["native"] / rates[name]) for name in ways if name != "native"},
        "machine": {name: _median(rates[name] / 1e9) for name in rulers},
        "limit_per_s": _median(limit),
        "binds": "arithmetic" if _median(arithmetic) < _median(traffic["reading"]) else "reading",
        "of_limit": _median(rates["native"] / limit),
        "of_gemv_limit": _median(rates["native"] / np.minimum(arithmetic, traffic["gemv"])),
        "equal": float((drawn["native"][:, :both] == drawn["reference"][:, :both]).double().mean()),
    }


def _median(values: np.ndarray) -> float:
    return round(float(np.median(values)), 3)


def case_of(name: str, batch: int, peers: Mapping[str, Path]) -> tuple[Case, dict[str, Generator]]:
    """Return the model of a line and the generators of others that can be run beside it."""
    torch.manual_seed(0)
    share = 1 if batch == 1 else 4
    if name in LSTMS:
        return lstm(LSTMS[name], Counts(2000 // share)), {"nn.LSTM": stepped_lstm(SYMBOLS, 512, LSTMS[name], batch)}
    sizes, others = WAVENETS[name], dict[str, Generator]()
    if "wavenet_vocoder" in peers:
        others["wavenet_vocoder"] = wavenet_vocoder(peers["wavenet_vocoder"], sizes, batch)
    if "pytorch-wavenet" in peers and batch == 1:
        others["pytorch-wavenet"] = pytorch_wavenet(peers["pytorch-wavenet"], sizes)
    return wavenet(sizes, Counts(16000 // share)), others


def run(peers: Mapping[str, Path], only: list[str], threads: int) -> None:
    """Measure all lines (or some) and print the tables; `peers` are checkouts by the names of `PEERS`."""
    torch.set_num_threads(threads)
    if unknown := [line for line in only if line not in LINES]:
        sys.exit(f"benchmarks: --only: expected one of {', '.join(map(repr, LINES))}, got {unknown[0]!r}")
    for line in only or LINES:
        name, batch = LINES[line]
        load = round(os.getloadavg()[0], 2)  # above the number of cores: the machine had other work
        case, others = case_of(name, batch, peers)
        row = measure(case, batch, others)
        store(RESULTS, {line: {**row, "load_average": load, "provenance": provenance()}})
        print(f"{line}: {row['per_s']['native']:.0f} a second", file=sys.stderr, flush=True)
    print(render())


def render() -> str:
    """Return the tables of what is stored."""
    stored = load_rows(RESULTS)
    loads = [row["load_average"] for row in stored.values()]
    busy = f"Load average of the machine when the lines were measured: {min(loads)} to {max(loads)}." if loads else ""
    audio, text = ([line for line, (name, _) in LINES.items() if name in names] for names in (WAVENETS, LSTMS))
    parts = [
        _rates("samples/s", stored, audio, WAYS | PEERS),
        _seconds(stored, audio),
        _rates("symbols/s", stored, text, WAYS | {"nn.LSTM": "nn.LSTM by steps"}),
        _limits(stored),
        _targets(stored),
        busy,
    ]
    return "\n\n".join(parts).rstrip()


def _cell(line: str, way: str, row: dict[str, Any], unit: str = "") -> str:
    if way == "pytorch-wavenet" and LINES[line][1] > 1:
        return "one stream only"
    if way not in row:
        return "not run"
    return (f"{row[way]:,.0f}" if row[way] >= 100 else f"{row[way]:.3g}") + unit


def _rates(unit: str, stored: dict[str, Any], lines: Sequence[str], ways: Mapping[str, str]) -> str:
    header = [unit, *ways.values(), "native", *(f"native / {title}" for title in ways.values())]
    rows = []
    for line in lines:
        row = stored.get(line, {"per_s": {}, "ratios": {}})
        rates = [_cell(line, way, row["per_s"]) for way in [*ways, "native"]]
        rows.append([line, *rates, *(_cell(line, way, row["ratios"], "x") for way in ways)])
    return table(header, rows)


def _seconds(stored: dict[str, Any], lines: Sequence[str]) -> str:
    ways = WAYS | PEERS | {"native": "native"}
    times = ("16 kHz in real time", "24 kHz in real time")
    header = ["seconds for one second of 16 kHz audio of every stream", *ways.values(), *times]
    rows = []
    for line in lines:
        row = stored.get(line, {"per_s": {}, "batch": 1})
        seconds = {way: 16000 * row["batch"] / rate for way, rate in row["per_s"].items()}
        keeps = [f"{'yes' if seconds['native'] * k <= 1 else 'no'}" for k in (1, 1.5)] if seconds else ["", ""]
        rows.append([line, *(_cell(line, way, seconds) for way in ways), *keeps])
    return table(header, rows)


def _limits(stored: dict[str, Any]) -> str:
    header = [
        "",
        "million MACs",
        "sgemm, GFLOP/s",
        "reading, GB/s",
        "limit, a second",
        "binds",
        "native",
        "of the limit",
    ]
    header += ["GEMV, GB/s", "of the limit by GEMV", "values as rollout's"]
    rows = []
    for line in LINES:
        row = stored.get(line)
        if row is None:
            rows.append([line, "not run", *("" for _ in header[2:])])
            continue
        sgemm, reading, gemv = (f"{row['machine'][name]:.1f}" for name in ("sgemm", "reading", "gemv"))
        limit = [f"{row['limit_per_s']:,.0f}", row["binds"], f"{row['per_s']['native']:,.0f}", f"{row['of_limit']:.0%}"]
        equal = f"{row['equal']:.2%}"
        rows.append(
            [line, f"{row['macs'] / 1e6:.2f}", sgemm, reading, *limit, gemv, f"{row['of_gemv_limit']:.0%}", equal]
        )
    return table(header, rows)


def _targets(stored: dict[str, Any]) -> str:
    rows = []
    for line, kind, least in TARGETS:
        wanted, number = f"{least:,g}x {(WAYS | PEERS).get(kind, kind)}", "{:,.4g}x"
        row = stored.get(line, {"ratios": {}})
        found = row["ratios"].get(kind)
        if kind == "limit":
            wanted, number, found = f"{least:.0%} of the limit", "{:.0%}", row.get("of_limit")
        elif kind == "audio":
            wanted, number = "16 kHz in real time on one core", "{:,.0f} samples/s"
            found = row["per_s"]["native"] / row["batch"] if "batch" in row else None
        shown = ["not run", ""] if found is None else [number.format(found), "met" if found >= least else "missed"]
        rows.append([line, wanted, *shown])
    return table(["", "target: at least", "measured", ""], rows)
