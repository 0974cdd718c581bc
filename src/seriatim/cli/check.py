"""`seriatim check`: the conformance suite on a run, a saved model, or a registered model in a tiny size."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seriatim.cli.errors import FAILED, UserError, unknown_name
from seriatim.cli.options import JsonOption
from seriatim.cli.output import say, show, show_json

if TYPE_CHECKING:
    from seriatim.model import AutoregressiveModel


def run(
    target: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run, a saved model, or a name in `models`.")],
    only: Annotated[str | None, typer.Option("--only", metavar="A,B", help="Names of checks, if not all.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the data and contexts drawn.")] = 0,
    json: JsonOption = False,
) -> None:
    """Check that a model keeps its contract: causal, normalised, the same on every path. Exit status 1 if it fails.

    A run is checked in its own size, where large sums are left out; a name from `seriatim models` in a tiny size, where
    all is summed.
    """
    from seriatim.testing import check
    from seriatim.testing.suite import CHECKS

    names = None if only is None else [name.strip() for name in only.split(",") if name.strip()]
    for name in names or []:
        if name not in CHECKS:
            raise UserError(f"--only: {unknown_name(name, list(CHECKS))}")
    model = _model(target)
    say(f"checking {type(model).__name__} with {sum(p.numel() for p in model.parameters()):,} parameters")
    report = check(model, only=names, seed=seed)
    if json:
        results = [vars(result) for result in report.results]
        show_json({"target": target, "model": report.model, "ok": report.ok, "results": results})
    else:
        show(str(report))
    if not report.ok:
        raise typer.Exit(FAILED)


def _model(target: str) -> AutoregressiveModel:
    from seriatim.cli.loading import open_run
    from seriatim.models import MODELS

    if target in MODELS and not Path(target).exists():
        return tiny(target)
    if not Path(target).exists():
        problem = "no such folder" if "/" in target or "\\" in target else unknown_name(target, list(MODELS))
        raise UserError(f"RUN|MODEL: {target}: {problem}")
    return open_run(Path(target), "cpu").model


def tiny(name: str) -> AutoregressiveModel:
    """Return a registered model of four bits, or of an image of six, with random weights.

    Example:
        >>> tiny("made").event_shape, tiny("pixelcnn").event_shape
        ((4,), (2, 3))
    """
    import torch

    from seriatim.models import MODELS, BayesNet

    kind = MODELS[name]
    if kind is BayesNet:
        model: AutoregressiveModel = BayesNet((4,), 2, [(), (0,), (0, 1), (2,)])
    else:
        known = inspect.signature(kind).parameters
        several = "hidden_features" in known and not isinstance(known["hidden_features"].default, int)
        small = {"hidden_features": (8,) if several else 8, "num_layers": 1, "num_blocks": 1, "layers_per_block": 2}
        small |= {"residual_features": 4, "gate_features": 4, "skip_features": 4}
        sizes = {option: size for option, size in small.items() if option in known}
        shape = (2, 3) if "first_kernel_size" in known else (4,)
        model = kind(shape, **sizes)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
    return model
