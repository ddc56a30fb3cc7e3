"""Measurements that need a process of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from fast_momentum._bench.timing import Times

IMPORT = "import numpy, time; t = time.perf_counter(); import fast_momentum; print(time.perf_counter() - t)"

GROWTH = """
import numpy as np
import fast_momentum as fm

def peak():  # getrusage() would begin at the peak of the parent
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

p, g = np.ones({n}, "f4"), np.full({n}, 1e-3, "f4")
small = np.ones(1, "f4")
fm.step(small, small.copy(), fm.init(small, lr=1e-3))
before = peak()
state = fm.init(p, lr=1e-3{options})
fm.step(p, g, state)
print((peak() - before) / p.nbytes)
"""


def printed(code: str) -> float:
    """What a fresh Python prints."""
    return float(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


def growth_of_memory(elements: int, velocity_dtype: str | None = None) -> float:
    """By how much init and a step raise the peak of resident memory, as a multiple of the parameters."""
    options = f", velocity_dtype={velocity_dtype!r}" if velocity_dtype else ""
    return printed(GROWTH.format(n=elements, options=options))


def seconds_of_import() -> float:
    """Median of nine, with NumPy imported before."""
    return statistics.median(printed(IMPORT) for _ in range(9))


# That of this environment before one of the system.
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def of_ranks(n_ranks: int, rule: str, elements: int) -> Times | None:
    """What ranks.py measures; None where mpi4py or MPI is missing."""
    if MPIEXEC is None or importlib.util.find_spec("mpi4py") is None:
        return None
    program = [sys.executable, str(Path(__file__).with_name("ranks.py")), rule, str(elements), "json"]
    done = subprocess.run([MPIEXEC, "-n", str(n_ranks), *program], check=True, capture_output=True, text=True)
    return Times(json.loads(done.stdout))
