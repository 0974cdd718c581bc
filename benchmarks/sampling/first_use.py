"""The first use of the engine, which compiles it, and later ones, which find it in the disk cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import provenance, store

_TEXT: dict[str, Any] = {"capture_output": True, "text": True, "check": True}

CODE = """
import time
from seriatim.models import FVSBN
model = FVSBN((3,))
start = time.process_time()
model.sample((2,), seed=0, engine="native")
print(time.process_time() - start)
"""
ALL = """
import time
start = time.process_time()
from seriatim.engine import kernels
from seriatim.engine.operands import Op
kernels.functions(Op)
print(time.process_time() - start)
"""


def measure() -> dict[str, Any]:
    """Return the CPU seconds of a first sample, in a process of its own, without and with the cache.

    A model needs some of the groups that instructions are compiled in; how long the others take is told apart.
    """
    with tempfile.TemporaryDirectory() as cache:
        source = str(Path(__file__).parents[2] / "src")
        environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # Python's default: what is imported is compiled once
        compiled, cached, others = (
            round(float(subprocess.run([sys.executable, "-c", code], env=environment, **_TEXT).stdout), 2)
            for code in (CODE, CODE, ALL)
        )
    return {"compiled_s": compiled, "cached_s": cached, "others_s": others}


def run(results: str) -> None:
    """Measure and store."""
    store(results, {"first use": {**measure(), "provenance": provenance()}})
