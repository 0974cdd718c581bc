"""What the sampling benchmarks print."""

from __future__ import annotations

from typing import Any, NamedTuple

from benchmarks.common import load_rows, table
from benchmarks.sampling import cuda
from benchmarks.sampling.cases import CASES

TITLE = "Sampling"
RESULTS = "sampling"
BATCHES = (1, 16, 64)
ABOUT = (
    "Every model at one size, random first weights, float32: how many positions (or whole images and rows) of all "
    "streams are drawn in a second of CPU time on one thread, medians of the turns of one run; a ratio is the median "
    "of the ratios of the turns, so that other work on the machine slows both sides. *Naive* runs our own network over "
    "the whole image, row or receptive field (of sequences without one: half their length) for every position; "
    "*eager* is our cached step in PyTorch, in the middle of the sample; *engine* draws from a program that was "
    "lowered before, which takes the milliseconds of the last column once; short samples are drawn again and again. "
    "*Tax* is the time of the engine over the limit: the multiply-adds that are needed at the rate of a 512 x 512 "
    "product, or one reading of the weights for every position (of models whose weights belong to positions: one in "
    "all), whichever takes longer. The noise, the sigmoids (of NADE one for every hidden unit and "
    "position) and the choice of bits are left out of the limit; FVSBN, NADE and MADE have few multiply-adds beside "
    "them. Peers: r9y9/wavenet_vocoder's "
    "`incremental_forward`, a whole pass of pytorch-generative's PixelCNN and GatedPixelCNN for every pixel (as its "
    "`sample` does), `nn.LSTM` called for one position. *Two threads* compares wall time of the engine on two threads "
    "and on one: it tells something only where the machine has no other work."
)


class Target(NamedTuple):
    """A number that a line should reach; `kind` is a ratio, "tax" or "two_threads"; `text` what it says."""

    line: str
    kind: str
    wanted: float
    text: str


def lines() -> list[str]:
    """Return all lines: a model and a batch."""
    return [f"{name}, batch {batch}" for name in CASES for batch in BATCHES]


_CONVOLUTIONS = ("WaveNet 30x32", "WaveNet 20x64", "PixelCNN 15x32", "GatedPixelCNN 10x32")
TARGETS = (
    Target("WaveNet 30x32, batch 1", "passes", 1500, "1,500x naive"),
    Target("WaveNet 30x32, batch 16", "passes", 3000, "3,000x naive"),
    Target("WaveNet 30x32, batch 1", "peer", 120, "120x r9y9/wavenet_vocoder"),
    Target("WaveNet 20x64, batch 1", "tax", 1.25, "80 % of the limit: tax 1.25"),
    Target("PixelCNN 15x32, batch 16", "peer", 4500, "4,500x pytorch-generative"),
    Target("PixelCNN 15x32, batch 16", "tax", 1 / 0.65, "65 % of the limit: tax 1.54"),
    Target("GatedPixelCNN 10x32, batch 16", "peer", 1500, "1,500x pytorch-generative"),
    Target("LSTM 1x512, batch 1", "peer", 15, "15x nn.LSTM by steps"),
    Target("MADE 500, batch 1", "passes", 300, "300x naive"),
    Target("FVSBN, batch 1", "passes", 300, "300x naive"),
    Target("NADE 500, batch 1", "rollout", 50, "50x eager"),
    Target("RowLSTM 7x16, batch 16", "passes", 500, "500x naive"),
    Target("DiagonalBiLSTM 7x16, batch 16", "passes", 500, "500x naive"),
    Target("WaveNet 30x32, batch 16", "two_threads", 1.5, "1.5x on two threads"),
    Target("PixelCNN 15x32, batch 16", "two_threads", 1.5, "1.5x on two threads"),
    Target("LSTM 1x512, batch 16", "two_threads", 1.5, "1.5x on two threads"),
    *(Target(f"{name}, batch 64", "tax", 1.8, "tax 1.8") for name in _CONVOLUTIONS),
    Target("Transformer 6x384, batch 64", "tax", 2.5, "tax 2.5"),
    Target("encoder-decoder 3+3 x 256, batch 64", "tax", 2.5, "tax 2.5"),
    *(
        Target(f"{name}, batch 64", "tax", 4.0, "tax 4")
        for name in CASES
        if name not in (*_CONVOLUTIONS, "Transformer 6x384", "encoder-decoder 3+3 x 256")
    ),
)


def render() -> str:
    """Return the tables of what is stored."""
    stored = load_rows(RESULTS)
    loads = [row["load_average"] for line, row in stored.items() if line in lines()]
    busy = f"Load average of the machine when the lines were measured: {min(loads)} to {max(loads)}." if loads else ""
    picture = "![time for a position over the length](pictures/time-over-length.svg)" if "lengths" in stored else ""
    parts = [_rates(stored), _targets(stored), _first_use(stored), _rounded(stored), _lengths(stored), picture, busy]
    return "\n\n".join([*parts, cuda.render()]).rstrip()


def newcomer(stored: dict[str, Any]) -> str:
    """Return the five rows that tell most, for the README."""
    rows = []
    for line in (
        "WaveNet 30x32, batch 1",
        "PixelCNN 15x32, batch 16",
        "LSTM 1x512, batch 1",
        "Transformer 6x384, batch 1",
        "MADE 500, batch 16",
    ):
        row, case = stored.get(line), CASES[line.rpartition(",")[0]]
        if row is None:
            rows.append([line, "not run", "", "", ""])
            continue
        rates = [_number(_per_unit(row, case.unit, way)) for way in ("passes", "rollout", "native")]
        rows.append([line, *(f"{rate} {case.unit}/s" for rate in rates), f"{row['ratios']['passes']:,.0f}x"])
    return table(["one thread", "naive", "eager, cached", "engine", "engine / naive"], rows)


def _per_unit(row: dict[str, Any], unit: str, way: str) -> float:
    return row["per_s"][way] / (row["positions"] if unit in ("images", "rows") else 1)


def _rate(row: dict[str, Any], unit: str, way: str) -> str:
    return _number(_per_unit(row, unit, way)) if way in row["per_s"] else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rates(stored: dict[str, Any]) -> str:
    header = ["", "a second", "naive", "eager", "engine", "/ naive", "/ eager", "/ peer", "tax", "binds"]
    header += ["two threads", "values as eager's", "lowering, ms"]
    rows = []
    for line in lines():
        row, case = stored.get(line), CASES[line.rpartition(",")[0]]
        if row is None:
            rows.append([line, case.unit, "not run", *[""] * (len(header) - 3)])
            continue
        rates = [_rate(row, case.unit, way) for way in ("passes", "rollout", "native")]
        ratios = [
            f"{_number(row['ratios'][way])}x" if way in row["ratios"] else "" for way in ("passes", "rollout", "peer")
        ]
        last = [
            f"{row['tax']:.2f}",
            row["binds"],
            f"{row['two_threads']:.2f}x",
            f"{row['equal']:.2%}",
            row["lowering_ms"],
        ]
        rows.append([line, case.unit, *rates, *ratios, *last])
    return table(header, rows)


def _targets(stored: dict[str, Any]) -> str:
    rows = []
    for line, kind, wanted, text in TARGETS:
        row = stored.get(line)
        found = None if row is None else row["ratios"].get(kind, row.get(kind))
        if found is None:
            rows.append([line, text, "not run", ""])
            continue
        reached = found <= wanted if kind == "tax" else found >= wanted
        rows.append(
            [line, text, f"{found:.2f}" if kind == "tax" else f"{_number(found)}x", "met" if reached else "missed"]
        )
    return table(["", "target", "reached", ""], rows)


def _rounded(stored: dict[str, Any]) -> str:
    header = [
        "weights in 16 bits, batch 1",
        "samples in the same time",
        "log p apart, mean",
        "largest, nats a position",
    ]
    rows = []
    for name in CASES:
        row = stored.get(f"{name}, batch 1")
        if row is not None and row.get("bf16") is not None:
            own = row["bf16"]
            rows.append([name, f"{own['ratio']:.2f}x", f"{own['mean_nats']:.2g}", f"{own['largest_nats']:.2g}"])
    return table(header, rows) if rows else "Weights in 16 bits: not run."


def _first_use(stored: dict[str, Any]) -> str:
    row = stored.get("first use")
    if row is None:
        return "First use: not run."
    others = f" What other models need besides: {row['others_s']:.1f} s in all." if "others_s" in row else ""
    return (
        f"The first sample in a new process: {row['compiled_s']:.1f} s of CPU time where the engine is compiled "
        f"(target 15), {row['cached_s']:.1f} s where the disk cache has it (target 1).{others}"
    )


def _lengths(stored: dict[str, Any]) -> str:
    row = stored.get("lengths")
    if row is None:
        return "Time over length: not run."
    header = ["LSTM 1x512, microseconds for a position, by the length", *(f"{n:,}" for n in row["lengths"])]
    return table(header, [[way, *(f"{us:,.0f}" for us in row["us"][way])] for way in row["us"]])
