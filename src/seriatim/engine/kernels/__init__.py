"""The compiled interpreter: the only modules that import numba."""

from __future__ import annotations

from seriatim.engine.kernels.interpreter import MEMORY, OK, STALE, run
from seriatim.engine.kernels.sources import FINGERPRINT

__all__ = ["FINGERPRINT", "MEMORY", "OK", "STALE", "run"]
