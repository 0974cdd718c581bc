"""What `seriatim demo` does: two models on handwritten digits, from data to report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seriatim.cli.building import build
from seriatim.cli.drawing import NUM_SAMPLES
from seriatim.cli.errors import UserError
from seriatim.cli.loading import Run, load_rows, open_run
from seriatim.cli.output import csv_text, say, write_file
from seriatim.cli.reporting import footer, quick_checks, read_history, spread
from seriatim.cli.sample import Drawn, write_picture
from seriatim.cli.settings import DataConfig, RunConfig, resolve
from seriatim.data import Dataset
from seriatim.model import AutoregressiveModel
from seriatim.models import MADE, BayesNet
from seriatim.report.page import Content, Facts, Section, Table, write_report
from seriatim.report.sections import (
    Scored,
    checks_section,
    completion_section,
    curve_section,
    data_card,
    headlines,
    reproducibility_section,
    samples_section,
    score_section,
    surprise_section,
)
from seriatim.report.views import View
from seriatim.tasks import Completion, Evaluation, baselines, complete, evaluate, explain, generate, log_prob_given
from seriatim.testing import check as run_checks
from seriatim.testing.suite import Report

MARKER = "demo.txt"
_MARK = "Made by `seriatim demo`; the next demo into this folder replaces it.\n"
# Chosen on the validation rows: the width, the dropout and the learning rate.
MADE_OPTIONS = {"hidden_features": [512, 512, 512], "residual": True, "dropout": 0.5}
TRAINING = {"epochs": 60, "learning_rate": 8e-3, "ema_decay": 0.995, "weight_decay": 0.05, "gradient_clip": 5.0}


@contextmanager
def replacing_folder(out: Path) -> Iterator[None]:
    """Put an earlier demo aside while a new one is made: gone when that succeeds, back when it does not.

    Raises:
        UserError: a folder with files that are not those of a demo.
    """
    before = out.with_name(f".{out.name}.before")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: expected a folder, got the file {out}")
    if before.is_dir() and not out.exists():  # an earlier demo was killed between two moves
        before.rename(out)
    earlier = out.is_dir() and any(out.iterdir())
    if earlier and not (out / MARKER).is_file():
        raise UserError(f"--out: expected a new folder or that of an earlier demo, got {out} with other files in it")
    if earlier:
        if before.is_dir():
            shutil.rmtree(before)
        out.rename(before)
        say(f"demo: replaces the earlier one in {out}")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text(_MARK, encoding="utf-8")
    try:
        yield
    except BaseException:
        shutil.rmtree(out)
        if earlier:
            before.rename(out)
        raise
    if earlier:
        shutil.rmtree(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: matrices this small gain nothing from more, and lose much on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def demonstrate(out: Path, *, epochs: int | None = None, check: bool = True, seed: int = 0) -> dict[str, Any]:
    """Do the whole job in a folder, and return its numbers."""
    started = time.monotonic()
    data = load_rows(DataConfig.model_validate({"source": "digits"}))
    view = View(data.event_shape, data.levels)
    say("demo: 1 of 5, a Chow-Liu Bayes net (in closed form)")
    tree, tree_seconds = _train(out / "chow-liu", {"name": "bayesnet"}, {}, data, seed)
    say("demo: 2 of 5, a MADE (by gradients)")
    training = TRAINING | ({} if epochs is None else {"epochs": epochs})
    made, made_seconds = _train(out / "made", {"name": "made", **MADE_OPTIONS}, training, data, seed)
    say("demo: 3 of 5, scores and baselines on the test rows")
    models = [
        _scored("MADE", made, data, seed, f"trained in {made_seconds:.0f} s"),
        _scored("Chow-Liu tree", tree, data, seed, f"fitted in {max(tree_seconds, 0.1):.1f} s"),
    ]
    others = baselines(data.train, data.test, num_values=2, only=["factorised", "zlib", "xz"])
    tree_baseline = baselines(data.train, data.test, num_values=2, only=["chow-liu"])
    write_file(out / "scores.csv", lambda file: file.write_text(_scores_csv(models[0].evaluation), encoding="utf-8"))
    sections = [score_section(models, others, view.noun, len(data.test), data.binarisation)]
    say("demo: 4 of 5, samples, completions and surprise")
    sections += _pictures(out, made, tree, data, view, seed)
    sections.append(curve_section(read_history(out / "made" / "metrics.csv"), "MADE"))
    sections.append(_cards(data, made, tree))
    say("demo: 5 of 5, conformance suite" if check else "demo: 5 of 5, report (no conformance suite)")
    reports = _checks(made.model, tree.model, data, seed) if check else []
    if reports:
        sections.append(checks_section(reports))
    seconds = time.monotonic() - started
    sections += [_next(out), reproducibility_section(_command(out, epochs, check, seed), seed, _extra(data, seconds))]
    subtitle = (
        f"{len(data.train):,} handwritten digits of 8 × 8 bits to learn from, {len(data.test)} to be judged by; two "
        f"models with exact likelihoods, from raw data to this page in {seconds:.0f} seconds."
    )
    numbers = headlines(models[0], [*tree_baseline, *others], view.noun)
    content = Content("Handwritten digits, one bit after another", subtitle, numbers, sections, footer())
    report = write_report(out / "report.html", content)
    counts = {s: sum(r.status == s for rep, _ in reports for r in rep.results) for s in ("passed", "failed", "skipped")}
    return {
        "report": str(report),
        "data": data.name,
        "num_test_rows": len(data.test),
        "models": [_numbers(m) for m in models],
        "baselines": [{"name": b.name, "nats_per_row": b.nats, "bits_per_dim": b.bits_per_dim} for b in others],
        "checks": counts,
        "seconds": seconds,
    }


def summary(result: dict[str, Any]) -> str:
    """Return the headline numbers and where the report is."""
    lines = [f"{'test rows: ' + str(result['num_test_rows']):<16}  nats per image  bits/dim"]
    for entry in sorted([*result["models"], *result["baselines"]], key=lambda entry: entry["nats_per_row"]):
        line = f"{entry['name']:<16}  {entry['nats_per_row']:14.3f}  {entry['bits_per_dim']:8.4f}"
        if "nats_interval" in entry:
            low, high = entry["nats_interval"]
            line += f"  95 % interval {low:.3f} to {high:.3f} nats"
        lines.append(line)
    counts = result["checks"]
    if any(counts.values()):
        lines.append(f"conformance: {', '.join(f'{count} {status}' for status, count in counts.items())}")
    return "\n".join([*lines, f"report: {result['report']}  ({result['seconds']:.0f} s)"])


def _train(
    folder: Path, model: dict[str, Any], training: dict[str, Any], data: Dataset, seed: int
) -> tuple[Run, float]:
    """Train a model as `seriatim train` does, and open its run."""
    from seriatim.cli.train import fit_run
    from seriatim.runs import RunFolder
    from seriatim.training import Interrupted

    config: RunConfig = resolve(
        {"model": model, "data": {"source": data.name}, "training": {**training, "seed": seed, "device": "cpu"}}
    )
    started = time.monotonic()
    own = RunFolder.create(folder, config.model_dump(mode="json"))
    try:
        fit_run(build(config, data), data, config, own, resume=False)
    except Interrupted:
        raise KeyboardInterrupt from None
    seconds = time.monotonic() - started
    return open_run(folder, "cpu"), seconds


def _scored(name: str, run: Run, data: Dataset, seed: int, detail: str) -> Scored:
    parameters = sum(p.numel() for p in run.model.parameters())
    return Scored(name, evaluate(run.model, data.test, seed=seed), f"{parameters:,} parameters, {detail}")


def _numbers(scored: Scored) -> dict[str, Any]:
    score = scored.evaluation
    return {
        "name": scored.name,
        "nats_per_row": score.nats,
        "nats_interval": list(score.interval),
        "bits_per_dim": score.bits_per_dim,
    }


def _scores_csv(score: Evaluation) -> str:
    rows = [(n, f"{p:.6f}") for n, p in enumerate(score.log_prob)]
    return csv_text(["row", "log_prob_nats"], rows)


def _pictures(out: Path, made: Run, tree: Run, data: Dataset, view: View, seed: int) -> list[Section]:
    """Return the sections with pictures, and write the pictures beside the report."""
    from PIL import Image

    from seriatim.cli.complete import picture
    from seriatim.cli.explain import heat_map

    many = generate(made.model, 64, seed=seed).numpy()
    write_file(out / "samples.png", lambda file: write_picture(made, Drawn(many), file))
    sections = [samples_section(view, many[:NUM_SAMPLES], data.train, "the MADE")]
    rows = spread(data.test, 4)
    half: Completion = complete(made.model, rows, "top", num=8, seed=seed)
    truth = log_prob_given(made.model, rows, "top").numpy()
    write_file(
        out / "completions.png", lambda file: Image.fromarray(picture(made, rows, half)).save(file, format="PNG")
    )
    first = completion_section(view, rows, half, truth, "the MADE", "Given: the top half, which it reads first.")
    side = complete(tree.model, rows, "left", num=8, seed=seed)
    truth = log_prob_given(tree.model, rows, "left").numpy()
    second = completion_section(
        view, rows, side, truth, "the Chow-Liu tree", "Given: the left half. In a tree any part can be given."
    )
    sections.append(Section(first.title, [*first.blocks, *second.blocks], first.lead))
    found = explain(made.model, data.test)
    strange = np.argsort(found.log_prob, kind="stable")[:32]
    heat = heat_map(made, data.test[strange], found.bits[strange])
    write_file(out / "surprise.png", lambda file: Image.fromarray(heat).save(file, format="PNG"))
    return [*sections, surprise_section(view, data.test, found, "the MADE")]


def _cards(data: Dataset, made: Run, tree: Run) -> Section:
    models = [
        (
            title,
            f"{type(run.model).__name__}, {sum(p.numel() for p in run.model.parameters()):,} parameters, "
            + ", ".join(f"{k} {v}" for k, v in options.items()),
        )
        for title, run, options in (
            ("MADE", made, {**MADE_OPTIONS, **TRAINING}),
            ("Chow-Liu tree", tree, {"pseudo_count": 0.1}),
        )
    ]
    return Section("Data and models", [data_card(data), Facts(models)])


def _checks(made: AutoregressiveModel, tree: AutoregressiveModel, data: Dataset, seed: int) -> list[tuple[Report, str]]:
    """Run the whole suite on small copies, and what is quick on the trained models."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        small = MADE((3, 3), hidden_features=(24, 24, 24), residual=True, dropout=0.5)
    corner = data.train[:, 2:5, 3:6]
    small_tree = BayesNet.learn(corner, 2)
    quick = quick_checks()  # the long ones say more on the small copies, where every sum is exact
    return [
        (
            run_checks(small, seed=seed),
            "in small, 3 × 3 bits: all 512 images are summed, 20,000 samples counted.",
        ),
        (run_checks(small_tree, seed=seed), "in small, the tree of the middle of the digits: the same."),
        (run_checks(made, only=quick, seed=seed), "as trained above, in its own size."),
        (run_checks(tree, only=quick, seed=seed), "the Chow-Liu tree above, in its own size."),
    ]


def _next(out: Path) -> Section:
    """Return commands to go on with."""
    made = out / "made"
    rows = [
        (f"seriatim sample {made} -n 64 --out samples.png", "more samples"),
        (f"seriatim complete {made} digits --region top --out completions.png", "fill in the lower half"),
        (f"seriatim explain {made} digits --rows 32 --out heat.png", "surprise maps"),
        (f"seriatim score {made} rows.npy", "log p of your own 8 × 8 images"),
        ("seriatim train table.csv --model made --out runs/mine", "your own data: a table, an array, images"),
    ]
    return Section("What next?", [Table(["command", "what it does"], rows, mono=(0,))])


def _command(out: Path, epochs: int | None, check: bool, seed: int) -> str:
    words = ["seriatim demo", f"--out {out}", f"--epochs {epochs}" if epochs else "", "" if check else "--no-check"]
    return " ".join([*(word for word in words if word), *([f"--seed {seed}"] if seed else [])])


def _extra(data: Dataset, seconds: float) -> dict[str, str]:
    return {"data digest": data.digest, "time": f"{seconds:.0f} s from data to page"}
