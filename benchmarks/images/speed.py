"""Speed on one thread: training steps against a peer, the cost of masking, and what the LSTM layers spend time on.

All that a line compares is measured in turns in one run, and a ratio is the median of the ratios of the turns: other
work on the machine slows both sides. The peer is pytorch-generative, imported from the checkout that `--peer` names.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import load_rows, provenance, store, table
from seriatim.causal import Causal
from seriatim.layers.raster import MaskedConv2d
from seriatim.models import DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
from seriatim.models.pixelrnn import PixelRNN

TITLE = "Images: speed of training"
RESULTS = "images-speed"
ABOUT = (
    "One thread, forward and backward of binary 28 x 28 images, without the optimiser. Medians of CPU time; what a "
    "line compares is measured in turns in one run, a ratio is the median of the ratios of the turns. The share of "
    "sgemm counts three multiply-adds for each weight and pixel (forward, gradient of the inputs, gradient of the "
    "weights) over the rate of a 512 x 512 product in the same run. Time is split by the profiler; what is not in "
    "these kernels (Python, views, dispatch) lies between."
)
SHAPE = (28, 28)
REPEATS = 5
TARGET = 0.2

PEERS: dict[str, dict[str, Any]] = {
    "PixelCNN 15x32": {
        "make": lambda: PixelCNN(SHAPE, hidden_features=16, num_layers=15),
        "module": "pixel_cnn",
        "name": "PixelCNN",
        "sizes": {"n_residual": 15, "residual_channels": 16, "head_channels": 32},
        "differs": "Same widths (32, 16 inside a block) and kernels (7 x 7, then 3 x 3). The peer keeps masked weights "
        "as parameters and multiplies them by the mask in every pass, reads no one beside the value, and adds each "
        "block's input twice.",
    },
    "GatedPixelCNN 10x32": {
        "make": lambda: GatedPixelCNN(SHAPE, hidden_features=32, num_layers=10),
        "module": "gated_pixel_cnn",
        "name": "GatedPixelCNN",
        "sizes": {"n_gated": 10, "gated_channels": 32, "head_channels": 32},
        "differs": "Same width and layers, 7 x 7 first, then 3 x 3. The rows above: ours one 2 x 3 convolution; the "
        "peer 1 x 3, then 2 x 1 on a higher image that it crops, and a 1 x 1 beside them. The peer adds to the output "
        "a map of every layer; ours has 64 units before the output, the peer 32.",
    },
}
LSTMS: dict[str, tuple[type[PixelRNN], int]] = {
    f"{kind.__name__} 7x16, batch {batch}": (kind, batch) for kind in (DiagonalBiLSTM, RowLSTM) for batch in (16, 64)
}
MASKING = ("MaskedConv2d 3x3, 32 to 32", "PixelCNN 15x32, the network")
# The kernels of a profile by the start of their names; all else (views, dispatch, Python) lies between them.
GROUPS = {
    "products": ("bmm", "baddbmm", "mm", "addmm", "mkldnn_conv", "convolution", "_slow_conv", "thnn_conv"),
    "copies": ("copy_", "clone", "cat", "stack", "fill_", "zero_", "constant_pad", "flip", "index", "contiguous"),
    "elementwise": ("add", "mul", "sub", "div", "neg", "sigmoid", "tanh", "relu", "threshold", "sum", "mean", "where",
                    "binary_cross", "log"),
}  # fmt: skip


def turns(calls: Mapping[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each call in each turn, {name: {"cpu": ..., "wall": ...}}, after one turn to warm up."""
    seconds: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            if turn:
                seconds[name]["cpu"].append(time.process_time() - cpu)
                seconds[name]["wall"].append(time.perf_counter() - wall)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median milliseconds of CPU and wall time."""
    return {f"{kind}_ms": round(1e3 * statistics.median(values), 2) for kind, values in seconds.items()}


def ratios(over: Mapping[str, list[float]], under: Mapping[str, list[float]]) -> dict[str, float]:
    """Return the median ratio of the turns, of CPU and of wall time."""
    return {
        kind: round(statistics.median(a / b for a, b in zip(over[kind], under[kind], strict=True)), 3) for kind in over
    }


def binary_images(batch: int) -> Tensor:
    """Return random binary images (B, 28, 28)."""
    return (torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0)) < 0.2).float()


def step(parameters: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Run forward and backward, the old gradients dropped."""
    parameters.zero_grad()
    loss().backward()


def gigaflops(call: Callable[[], Any]) -> float:
    """Return the arithmetic of a call as it is run, masked weights included, in GFLOP."""
    with FlopCounterMode(display=False) as counter:
        call()
    return round(counter.get_total_flops() / 1e9, 2)


def load_peer(checkout: Path, module: str) -> Any:
    """Import one model file of the peer; its packages are not initialised, for they need what we do not have."""
    root = checkout / "pytorch_generative"
    for name, folder in (("pytorch_generative", root), ("pytorch_generative.models", root / "models")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules.setdefault(name, package)
    return importlib.import_module(f"pytorch_generative.models.autoregressive.{module}")


def against_peer(name: str, checkout: Path | None) -> dict[str, Any]:
    """Measure a training step of ours and of the peer, batch 32."""
    entry, x = PEERS[name], binary_images(32)
    torch.manual_seed(0)
    ours = entry["make"]()
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: step(ours, lambda: -ours().log_prob(x).mean())}
    sizes = {"ours": ours}
    if checkout is not None:
        peer = getattr(load_peer(checkout, entry["module"]), entry["name"])(**entry["sizes"])

        def nats() -> Tensor:
            return F.binary_cross_entropy_with_logits(peer(x[:, None])[:, 0], x, reduction="sum") / len(x)

        calls["peer"], sizes["peer"] = lambda: step(peer, nats), peer
    seconds = turns(calls)
    row: dict[str, Any] = {
        side: {
            **medians(seconds[side]),
            "parameters": sum(p.numel() for p in sizes[side].parameters()),
            "gigaflops": gigaflops(calls[side]),
        }
        for side in calls
    }
    if checkout is not None:
        row["ratio"] = ratios(seconds["ours"], seconds["peer"])
    return row


class Block(nn.Sequential):
    """Modules whose input is added to their output."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x and what the modules make of it."""
        return x + super().forward(x)


def plain_stack(wide: int = 32, inner: int = 16, blocks: int = 15) -> nn.Sequential:
    """Return the network of PixelCNN from unmasked convolutions."""

    def block() -> Block:
        inside = nn.Conv2d(inner, inner, 3, padding=1)
        return Block(nn.ReLU(), nn.Conv2d(wide, inner, 1), nn.ReLU(), inside, nn.ReLU(), nn.Conv2d(inner, wide, 1))

    last = nn.ReLU(), nn.Conv2d(wide, wide, 1), nn.ReLU(), nn.Conv2d(wide, 1, 1)
    return nn.Sequential(nn.Conv2d(2, wide, 7, padding=3), *(block() for _ in range(blocks)), *last)


def masking(name: str) -> dict[str, Any]:
    """Measure forward and backward of what is masked and of plain convolutions of the same sizes, batch 32."""
    torch.manual_seed(0)
    if name == MASKING[0]:
        masked: Causal = MaskedConv2d("B", 32, 32, shape=SHAPE, kernel_size=3)
        plain: nn.Module = nn.Conv2d(32, 32, 3, padding=1)
        x = torch.randn(32, SHAPE[0] * SHAPE[1], 32)
        maps = x.mT
    else:
        masked, plain = PixelCNN(SHAPE, hidden_features=16, num_layers=15).network, plain_stack()
        x = torch.randn(32, SHAPE[0] * SHAPE[1], 1)
        maps = F.pad(x, (0, 1), value=1.0).mT  # the network puts the one there itself
    x.requires_grad_()
    first = maps.unflatten(2, SHAPE).contiguous().requires_grad_()
    last = first.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    calls = {
        "masked": lambda: step(masked, lambda: masked(x)[0].sum()),
        "plain": lambda: step(plain, lambda: plain(first).sum()),
        "plain, channels last": lambda: step(plain, lambda: plain(last).sum()),
    }
    seconds = turns(calls)
    over = {f"over {side}": ratios(seconds["masked"], seconds[side]) for side in list(calls)[1:]}
    return {**{side: medians(seconds[side]) for side in calls}, **over}


def split(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Return the shares of a call's CPU time without the profiler in the kernels of each group, and between them."""
    turns_seen = [kernel_seconds(call) for _ in range(3)]
    shares = {group: statistics.median(turn[group] for turn in turns_seen) / seconds for group in GROUPS}
    return {**{g: round(s, 3) for g, s in shares.items()}, "between": round(1 - sum(shares.values()), 3)}


def kernel_seconds(call: Callable[[], Any]) -> dict[str, float]:
    """Return the CPU seconds of one call in the kernels of each group."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        running = (time.process_time() - cpu) / (time.perf_counter() - wall)  # the profiler's times are wall times
    seconds = dict.fromkeys(GROUPS, 0.0)
    for event in seen.key_averages():
        kernel = event.key.removeprefix("aten::")
        group = next((g for g, names in GROUPS.items() if event.key != kernel and kernel.startswith(names)), None)
        if group is not None:
            seconds[group] += event.self_cpu_time_total / 1e6 * running
    return seconds


def lstm(name: str) -> dict[str, Any]:
    """Measure a training step of an LSTM over images, its share of the sgemm rate and where its time goes."""
    kind, batch = LSTMS[name]
    torch.manual_seed(0)
    model, x, a = kind(SHAPE), binary_images(batch), torch.randn(512, 512)
    calls: dict[str, Callable[[], Any]] = {
        "step": lambda: step(model, lambda: -model().log_prob(x).mean()),
        "sgemm": lambda: [a @ a for _ in range(4)],
    }
    seconds = turns(calls)
    rate = 4 * 2 * 512**3 / statistics.median(seconds["sgemm"]["cpu"])
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1)  # each once for every pixel
    flops = 3 * 2 * weights * SHAPE[0] * SHAPE[1] * batch
    taken = statistics.median(seconds["step"]["cpu"])
    return {
        **medians(seconds["step"]),
        "steps_per_second": round(1 / taken, 2),
        "gigaflops": round(flops / 1e9, 2),
        "sgemm_gflops_per_s": round(rate / 1e9, 1),
        "share_of_sgemm": round(flops / taken / rate, 3),
        "split": split(calls["step"], taken),
    }


def run(peer: Path | None, only: list[str], device: str, threads: int) -> None:
    """Measure all lines (or some) and print the tables; `peer` is a checkout of pytorch-generative."""
    if device != "cpu":
        sys.exit(f"benchmarks: --device: expected cpu for this table, got {device!r}")
    torch.set_num_threads(threads)
    lines = [*PEERS, *MASKING, *LSTMS]
    if unknown := [name for name in only if name not in lines]:
        sys.exit(f"benchmarks: --only: expected one of {', '.join(map(repr, lines))}, got {unknown[0]!r}")
    for name in only or lines:
        load = round(os.getloadavg()[0], 2)  # above the number of cores: the machine had other work
        row = against_peer(name, peer) if name in PEERS else masking(name) if name in MASKING else lstm(name)
        store(RESULTS, {name: {**row, "load_average": load, "provenance": provenance()}})
        print(f"{name}: done", file=sys.stderr, flush=True)
    print(render())


def render() -> str:
    """Return the tables of what is stored."""
    stored = load_rows(RESULTS)
    loads = [row["load_average"] for row in stored.values()]
    busy = f"Load average of the machine when the lines were measured: {min(loads)} to {max(loads)}." if loads else ""
    return "\n\n".join([_peers_table(stored), _masking_table(stored), _lstm_table(stored), busy]).rstrip()


def _peers_table(stored: dict[str, Any]) -> str:
    header = [
        "training step, batch 32",
        "",
        "CPU ms",
        "wall ms",
        "ours / peer",
        "parameters",
        "GFLOP as run",
        "what differs",
    ]
    rows = []
    for name, entry in PEERS.items():
        for side in ("ours", "peer"):
            row = stored.get(name, {})
            of, ratio = row.get(side), ""
            if side == "ours" and "ratio" in row:
                ratio = f"{row['ratio']['cpu']:.2f} (wall {row['ratio']['wall']:.2f})"
            differs = entry["differs"] if side == "ours" else ""
            cells = ["not run", "", "", "", ""]
            if of is not None:
                cells = [f"{of['cpu_ms']:.0f}", f"{of['wall_ms']:.0f}", ratio, f"{of['parameters']:,}", of["gigaflops"]]
            rows.append([name, side, *cells, differs])
    return table(header, rows)


def _masking_table(stored: dict[str, Any]) -> str:
    plain = ("plain", "plain, channels last")
    header = ["forward and backward, batch 32", "masked, CPU ms", *plain, *(f"masked / {side}" for side in plain)]
    rows = []
    for name in MASKING:
        row = stored.get(name)
        if row is None:
            rows.append([name, "not run", "", "", "", ""])
            continue
        times = [f"{row[side]['cpu_ms']:.1f}" for side in ("masked", *plain)]
        over = [row[f"over {side}"] for side in plain]
        rows.append([name, *times, *(f"{r['cpu']:.2f} (wall {r['wall']:.2f})" for r in over)])
    return table(header, rows)


def _lstm_table(stored: dict[str, Any]) -> str:
    groups = ["products", "elementwise", "copies", "between"]
    header = ["training step", "CPU ms", "wall ms", "steps/s", "GFLOP", "share of sgemm", "target", *groups]
    rows = []
    for name, (kind, _) in LSTMS.items():
        target = f"{TARGET:.0%}" if kind is DiagonalBiLSTM else ""
        row = stored.get(name)
        if row is None:
            rows.append([name, "not run", "", "", "", "", target, *("" for _ in groups)])
            continue
        times = [f"{row['cpu_ms']:.0f}", f"{row['wall_ms']:.0f}", f"{row['steps_per_second']:.2f}", row["gigaflops"]]
        share = f"{row['share_of_sgemm']:.0%} of {row['sgemm_gflops_per_s']:.0f} GFLOP/s"
        rows.append([name, *times, share, target, *(f"{row['split'][group]:.0%}" for group in groups)])
    return table(header, rows)
