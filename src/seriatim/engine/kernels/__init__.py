"""The compiled interpreter: the only modules that import numba."""

from __future__ import annotations

from seriatim.engine.kernels.groups import functions
from seriatim.engine.kernels.interpreter import OK, STALE, memory_size, run
from seriatim.engine.kernels.sources import FINGERPRINT

__all__ = ["FINGERPRINT", "OK", "STALE", "functions", "memory_size", "run"]
