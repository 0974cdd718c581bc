"""The public conformance suite: proof that a model is causal, normalised, exact, and the same on every path.

`check(model)` runs it on any model, in float64 on a copy, and returns a report; `parametrize_with_checks` makes a
pytest test of each check on each model.
"""

from seriatim.testing.suite import CHECKS, CheckFailed, Report, Result, check, parametrize_with_checks

__all__ = ["CHECKS", "CheckFailed", "Report", "Result", "check", "parametrize_with_checks"]
