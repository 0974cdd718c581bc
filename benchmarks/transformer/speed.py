"""Training steps of the Transformer on one thread, against torch's own layers of the same size.

All that a line compares is measured in turns in one run, and a ratio is the median of the ratios of the turns: other
work on the machine slows both sides.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import load_rows, provenance, store, table
from benchmarks.images.speed import gigaflops, medians, ratios, step, turns
from seriatim.ending import Ending
from seriatim.heads import Categorical, Tokens
from seriatim.layers.positions import sinusoids
from seriatim.models import SourceEncoder, Transformer

TITLE = "Transformer: speed of training"
RESULTS = "transformer-speed"
ABOUT = (
    "One thread, forward and backward of one batch, float32, without the optimiser: 64 pairs of sources and targets "
    "of 16 to 32 symbols, padded to 32, or 8 texts of 256 symbols. The peer is `nn.Transformer` (or its layers with "
    "a causal mask) of the same width, layers and heads, with `nn.Embedding`, the same sinusoids, `nn.Linear` and "
    "`F.cross_entropy`; its end of a sequence is one more symbol. A dropout of 0.1 drops attention weights of both "
    "sides, and of the peer also what is inside the maps by position. Medians of CPU time; a ratio is that of the "
    "rates, above 1 where ours is faster. The split of the time is the profiler's: *products* of matrices, "
    "*attention* in torch's fused kernel (on a CPU it has none with dropout: products and the rest), *norms*; all "
    "else (activations, the softmax over the symbols, copies, Python) is the rest."
)
REPEATS = 5
TARGET = 1.0
# The kernels of a profile by what their names hold.
GROUPS = {
    "products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "attention": ("aten::_scaled_dot_product",),
    "norms": ("aten::native_layer_norm",),
}


class Case(NamedTuple):
    """A model to train: its vocabulary, whether it has a source, its sizes, and the batch and length of its data."""

    symbols: int
    source: bool
    features: int
    layers: int
    heads: int
    batch: int
    length: int
    dropout: float = 0.0
    one_hot: bool = False


PAIRS = Case(8000, True, 256, 3, 4, 64, 32)
CASES = {
    "3+3 layers x 256, 8,000 symbols": PAIRS,
    "the same, dropout 0.1": PAIRS._replace(dropout=0.1),
    "the same, symbols as one-hot vectors": PAIRS._replace(one_hot=True),
    "decoder, 6 layers x 384, 96 characters": Case(96, False, 384, 6, 6, 8, 256),
}


class Plain(nn.Module):
    """Torch's layers of the same size, between tables of symbols and the output."""

    pe: Tensor

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, size = case, case.features
        options = {"dim_feedforward": 4 * size, "dropout": case.dropout, "batch_first": True}
        self.target = nn.Embedding(case.symbols + 1, size)  # one more: the start, and of pairs the end
        if case.source:
            self.source = nn.Embedding(case.symbols, size)
            self.layers: nn.Module = nn.Transformer(size, case.heads, case.layers, case.layers, **options)
        else:
            layer = nn.TransformerEncoderLayer(size, case.heads, **options)
            self.layers = nn.TransformerEncoder(layer, case.layers)
        self.dropout = nn.Dropout(case.dropout)
        self.output = nn.Linear(size, case.symbols + int(case.source))
        self.register_buffer("pe", sinusoids(0, case.length, size).float(), persistent=False)

    def read(self, table: nn.Module, symbols: Tensor) -> Tensor:
        """Return the vectors of symbols at their positions."""
        vectors: Tensor = self.dropout(table(symbols) * math.sqrt(self.case.features) + self.pe)
        return vectors

    def forward(self, read: Tensor, source: Tensor | None) -> Tensor:
        """Return the logits of the symbols after those that were read."""
        causal = nn.Transformer.generate_square_subsequent_mask(read.shape[1])
        if source is None:
            h = self.layers(self.read(self.target, read), mask=causal, is_causal=True)
        else:
            padding = source < 0
            h = self.layers(
                self.read(self.source, source.clamp_min(0)),
                self.read(self.target, read),
                tgt_mask=causal,
                src_key_padding_mask=padding,
                memory_key_padding_mask=padding,
                tgt_is_causal=True,
            )
        logits: Tensor = self.output(h)
        return logits


def make(case: Case) -> Transformer:
    """Return our model of a case."""
    sizes: dict[str, Any] = {"num_layers": case.layers, "num_heads": case.heads, "dropout": case.dropout}
    head = (Categorical if case.one_hot or not case.source else Tokens)(case.symbols)
    encoder = SourceEncoder(case.symbols, case.features, **sizes) if case.source else None
    return Transformer(
        (case.length,),
        Ending(head) if case.source else head,
        hidden_features=case.features,
        **sizes,
        encoder=encoder,
    )


def symbols(case: Case, seed: int) -> Tensor:
    """Return random symbols (B, T), of pairs padded with -1 behind a random length from half of T on."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(case.symbols, (case.batch, case.length), generator=generator)
    if not case.source:
        return drawn
    lengths = torch.randint(case.length // 2, case.length + 1, (case.batch, 1), generator=generator)
    lengths[0] = case.length
    return drawn.masked_fill(torch.arange(case.length) >= lengths, -1)


def split(call: Callable[[], Any]) -> dict[str, float]:
    """Return the shares of a call's time in the kernels of each group, and in all others."""
    shares: dict[str, list[float]] = {group: [] for group in GROUPS}
    for _ in range(3):
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            call()
        events = seen.key_averages()
        whole = sum(event.self_cpu_time_total for event in events)
        for group, names in GROUPS.items():
            own = sum(event.self_cpu_time_total for event in events if event.key.startswith(names))
            shares[group].append(own / whole)
    found = {group: statistics.median(own) for group, own in shares.items()}
    return {**{group: round(share, 3) for group, share in found.items()}, "rest": round(1 - sum(found.values()), 3)}


def compare(name: str) -> dict[str, Any]:
    """Measure a training step of ours and of the peer."""
    case = CASES[name]
    torch.manual_seed(0)
    ours, plain = make(case), Plain(case)
    x, source = symbols(case, 0), symbols(case, 1) if case.source else None
    filled = x.masked_fill(x < 0, case.symbols)
    read = torch.cat([torch.full((case.batch, 1), case.symbols), filled[:, :-1]], dim=1)
    # One end of each sequence is scored, as ours does; what follows is left out.
    wanted = filled.masked_fill(((x < 0).cumsum(1) > 1), -100)

    def nats() -> Tensor:
        distribution = ours(source)
        distribution._validate_args = False  # as in training, where the data were checked before
        return -distribution.log_prob(x).sum()

    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: step(ours, nats),
        "peer": lambda: step(
            plain, lambda: F.cross_entropy(plain(read, source).flatten(0, 1), wanted.flatten(), reduction="sum")
        ),
    }
    seconds = turns(calls, REPEATS)
    counted = int((wanted >= 0).sum())
    row: dict[str, Any] = {}
    for side, model in (("ours", ours), ("peer", plain)):
        times = medians(seconds[side])
        row[side] = {
            **times,
            "symbols_per_second": round(counted / times["cpu_ms"] * 1e3),
            "parameters": sum(p.numel() for p in model.parameters()),
            "gigaflops": gigaflops(calls[side]),
            "split": split(calls[side]),
        }
    return {**row, "ratio": ratios(seconds["peer"], seconds["ours"])}


def run(only: list[str], threads: int) -> None:
    """Measure all lines (or some) and print the table."""
    if unknown := [name for name in only if name not in CASES]:
        sys.exit(f"benchmarks: --only: expected one of {', '.join(map(repr, CASES))}, got {unknown[0]!r}")
    torch.set_num_threads(threads)
    for name in only or CASES:
        load = round(os.getloadavg()[0], 2)  # above the number of cores: the machine had other work
        store(RESULTS, {name: {**compare(name), "load_average": load, "provenance": provenance()}})
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(render())


def render() -> str:
    """Return the table of what is stored."""
    stored, groups = load_rows(RESULTS), [*GROUPS, "rest"]
    header = ["training step", "", "CPU ms", "symbols/s", "ours / peer", "target", "parameters", "GFLOP", *groups]
    rows = []
    for name in CASES:
        for side in ("ours", "peer"):
            row = stored.get(name, {})
            of, ratio, target = row.get(side), "", ""
            if of is None:
                rows.append([name, side, "not run", *[""] * (len(header) - 3)])
                continue
            if side == "ours":
                ratio, target = f"{row['ratio']['cpu']:.2f} (wall {row['ratio']['wall']:.2f})", f"{TARGET:.1f}"
            cells = [f"{of['cpu_ms']:.0f}", f"{of['symbols_per_second']:,}", ratio, target]
            shares = [f"{of['split'][group]:.0%}" for group in groups]
            rows.append([name, side, *cells, f"{of['parameters']:,}", of["gigaflops"], *shares])
    loads = [row["load_average"] for row in stored.values()]
    busy = f"Load average of the machine when the lines were measured: {min(loads)} to {max(loads)}." if loads else ""
    return "\n\n".join([table(header, rows), busy]).rstrip()
