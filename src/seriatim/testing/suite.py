"""The list of checks, their report, and their form as pytest tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seriatim.model import AutoregressiveModel
from seriatim.testing import contract, law, probability
from seriatim.testing.case import Case, CheckFailed, NotApplicable, require_contexts

CHECKS: dict[str, Callable[[Case], None]] = {
    "chunks": law.chunks,
    "recompute": law.recompute,
    "causality": law.causality,
    "receptive_field": law.receptive_field,
    "normalisation": probability.normalisation,
    "sample_law": probability.sample_law,
    "inverse_transform": probability.inverse_transform,
    "native_engine": probability.native_engine,
    "addressed_noise": probability.addressed_noise,
    "forced_rollout": law.forced_rollout,
    "fork": law.fork,
    "rows_alone": law.rows_alone,
    "rows_apart": law.rows_apart,
    "completion": contract.completion,
    "distribution": contract.distribution_contract,
    "context": contract.context_matters,
    "gradients": contract.gradients,
    "point_mass": contract.point_mass,
    "storage": contract.storage,
    "bad_input": contract.bad_input,
}
"""Every check by name; the first sentence of its docstring says what it promises."""


@dataclass(frozen=True)
class Result:
    """What one check found: "passed", "failed" or "skipped", why, and in how many seconds."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    detail: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The results of all checks on one model."""

    model: str
    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """True if no check failed."""
        return all(result.status != "failed" for result in self.results)

    def __str__(self) -> str:
        marks = {"passed": "ok  ", "failed": "FAIL", "skipped": "-   "}
        lines = [f"{marks[r.status]} {r.name:<18} {r.seconds:6.2f} s  {r.detail}".rstrip() for r in self.results]
        counts = {s: sum(r.status == s for r in self.results) for s in ("passed", "failed", "skipped")}
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        return "\n".join([f"conformance of {self.model}", *lines, summary])


def check(
    model: AutoregressiveModel,
    *,
    context: Callable[[int], Tensor] | None = None,
    only: Iterable[str] | None = None,
    seed: int = 0,
) -> Report:
    """Check that a model keeps the contract: exact, causal, normalised, the same on every path.

    The model is copied and checked in float64; use small sizes, for normalisation sums over the whole space. A check
    that cannot apply (a sum over too large a space) is reported as skipped, with the reason.

    Args:
        model: any model.
        context: draws B contexts, (B, ...); needed for encoders other than `Labels` and `Vector`.
        only: names of checks to run; all of `CHECKS` if None.
        seed: of the data and contexts drawn.

    Raises:
        ValueError: `only` names a check that does not exist, or the encoder needs a context function.

    Example:
        >>> from seriatim.models import FVSBN
        >>> check(FVSBN((3,)), only=["causality", "normalisation"]).ok
        True
    """
    names = list(CHECKS if only is None else only)
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise ValueError(f"only: expected names among {', '.join(CHECKS)}, got {', '.join(unknown)}")
    require_contexts(model, context)
    return Report(type(model).__name__, tuple(_run(name, model, context, seed) for name in names))


def _apply(name: str, model: AutoregressiveModel, context: Callable[[int], Tensor] | None, seed: int) -> None:
    """Run a check from a seed of its own, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CHECKS[name](Case(model, context, seed))


def _run(name: str, model: AutoregressiveModel, context: Callable[[int], Tensor] | None, seed: int) -> Result:
    start = time.perf_counter()
    status: Literal["passed", "failed", "skipped"] = "passed"
    detail = ""
    try:
        _apply(name, model, context, seed)
    except NotApplicable as reason:
        status, detail = "skipped", str(reason)
    except CheckFailed as failure:
        status, detail = "failed", str(failure)
    except Exception as error:  # a crash is a failure of the model, and the other checks still run
        status, detail = "failed", f"{type(error).__name__}: {error}"
    return Result(name, status, detail, time.perf_counter() - start)


def parametrize_with_checks(zoo: Mapping[str, Callable[[], Any]]) -> Any:
    """Return a pytest decorator that gives a test every (model, check) pair of a zoo.

    Args:
        zoo: name -> a function without arguments that makes a model, or a pair (model, context function).

    Example:
        >>> from seriatim.models import FVSBN
        >>> @parametrize_with_checks({"fvsbn": lambda: FVSBN((3,))})
        ... def test_conformance(model, check):
        ...     check(model)
    """
    import pytest

    cases = [pytest.param(make, _raising(name), id=f"{label}-{name}") for label, make in zoo.items() for name in CHECKS]
    return pytest.mark.parametrize("model, check", cases)


def _raising(name: str) -> Callable[[Any], None]:
    def run(make: Any) -> None:
        import pytest

        made = make() if callable(make) and not isinstance(make, AutoregressiveModel) else make
        model, context = made if isinstance(made, tuple) else (made, None)
        try:
            _apply(name, model, context, seed=0)
        except NotApplicable as reason:
            pytest.skip(str(reason))

    run.__name__ = name
    return run
