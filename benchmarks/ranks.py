"""A step of many ranks, beside an allreduce and a step of everything on each.

    mpiexec -n 2 python benchmarks/ranks.py adam 1e7

Interleaved in one run; medians, and of the ratios, too. `MPI.COMM_WORLD` should not have more ranks than there are idle cores.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from mpi4py import MPI

import fast_momentum as fm
from fast_momentum import mpi

if TYPE_CHECKING:
    from collections.abc import Callable

COMM = MPI.COMM_WORLD
REPETITIONS = 15


def ways(rule: str, n: int) -> dict[str, Callable[[], None]]:
    """What is compared, each with parameters of its own. The first is what the others are divided by."""
    gradient = np.random.default_rng(COMM.rank).standard_normal(n).astype(np.float32)
    mean = np.empty_like(gradient)
    params = {name: np.ones(n, np.float32) for name in ("allreduce", "spread", "in order", "whole")}
    one = getattr(fm, rule)(params["allreduce"], lr=1e-3)

    def allreduce() -> None:
        COMM.Allreduce(gradient, mean)
        fm.step(params["allreduce"], mean, one, grad_scale=1 / COMM.size)

    def many(name: str, **options: bool) -> Callable[[], None]:
        state = getattr(mpi, rule)(params[name], COMM, lr=1e-3, **options)
        return lambda: mpi.step(params[name], gradient, state)

    return {
        "allreduce": allreduce,
        "spread": many("spread", sharded=True),
        "in order": many("in order", sharded=True, deterministic=True),
        "whole": many("whole", sharded=False),
    }


def seconds(call: Callable[[], None]) -> float:
    COMM.Barrier()
    begin = time.perf_counter()
    call()
    COMM.Barrier()
    return time.perf_counter() - begin


def main() -> None:
    rule, n = sys.argv[1], int(float(sys.argv[2]))
    compared = ways(rule, n)
    times = [{name: seconds(call) for name, call in compared.items()} for _ in range(REPETITIONS + 1)][1:]
    if COMM.rank == 0:
        for name in compared:
            ratio = statistics.median(of_one[name] / of_one["allreduce"] for of_one in times)
            milliseconds = 1e3 * statistics.median(of_one[name] for of_one in times)
            print(
                f"{rule}, {n} elements, {COMM.size} ranks, {name}: {milliseconds:.3f} ms, {ratio:.2f} of allreduce"
            )


if __name__ == "__main__":
    main()
