"""A step of many ranks, beside an allreduce and a step of everything on each.

    mpiexec -n 2 python benchmarks/ranks.py adam 1e7
    mpiexec -n 2 python benchmarks/ranks.py model

Interleaved in one run; medians, and of the ratios, too. `MPI.COMM_WORLD` should not have more ranks than there are idle cores.
The second one measures the parts of a step with arrays that stay in the caches, and with some that do not, and prints what the
model of docs/howto/many_machines.md makes of them at other sizes, beside what is measured there. With `json` at the end the first one
prints the seconds of all rounds, for measure.py.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from mpi4py import MPI

import fast_momentum as fm
from fast_momentum import mpi
from fast_momentum.mpi._exchange import gather

if TYPE_CHECKING:
    from collections.abc import Callable

COMM = MPI.COMM_WORLD
# Elements at which the parts are measured, and those to which that is held.
CALIBRATED_AT = {1_000_000: (500_000, 2_000_000), 16_000_000: (8_000_000, 32_000_000)}
MOVED = {"init": 5, "adam": 7}  # bytes that a step moves, of those of the parameters


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


def parts(n: int) -> dict[str, Callable[[], None]]:
    """What a step is made of, for the model; each with memory of its own."""
    few = np.zeros(3, np.int64)
    share = np.ones(n // COMM.size, np.float32)
    values = [np.ones(share.size * COMM.size, np.float32) for _ in range(6)]
    state = fm.init(values[4], lr=1e-3)
    return {
        "meeting": lambda: COMM.Allreduce(MPI.IN_PLACE, few, MPI.MIN),
        "allreduce": lambda: COMM.Allreduce(values[0], values[1]),
        "reduce": lambda: COMM.Reduce_scatter_block(values[2], share),
        "gather": lambda: gather(COMM, np.split(values[3], COMM.size)),
        "step": lambda: fm.step(values[4], values[5], state),
    }


def seconds(call: Callable[[], None]) -> float:
    COMM.Barrier()
    begin = time.perf_counter()
    call()
    COMM.Barrier()
    return time.perf_counter() - begin


def in_turns(compared: dict[str, Callable[[], None]], repetitions: int) -> dict[str, list[float]]:
    rounds = [{name: seconds(call) for name, call in compared.items()} for _ in range(repetitions + 2)][2:]
    return {name: [of_one[name] for of_one in rounds] for name in compared}


def measured(rule: str, n: int) -> dict[str, list[float]]:
    return in_turns(ways(rule, n), max(15, min(500, 20_000_000 // n)))


def predicted(rule: str, times_as_many: float, of_parts: dict[str, float]) -> dict[str, float]:
    """By bandwidths, which do not depend on the size, and a latency that does not, either."""
    part = {name: value * times_as_many for name, value in of_parts.items()}
    step = part["step"] * MOVED[rule] / MOVED["init"]
    return {
        "allreduce": part["allreduce"] + step,
        "spread": part["reduce"] + part["gather"] + step / COMM.size + of_parts["meeting"],
    }


def show_model() -> None:
    for calibrated_at, sizes in CALIBRATED_AT.items():
        of_parts = {
            name: statistics.median(times) for name, times in in_turns(parts(calibrated_at), 25).items()
        }
        of_each = ", ".join(f"{name} {1e3 * value:.3f} ms" for name, value in of_parts.items())
        show(f"{calibrated_at} elements, {COMM.size} ranks: {of_each}")
        for rule, n in itertools.product(MOVED, sizes):
            times = measured(rule, n)
            for name, expected in predicted(rule, n / calibrated_at, of_parts).items():
                found = statistics.median(times[name])
                show(
                    f"{rule}, {n} elements, {name}: predicted {1e3 * expected:.2f} ms, measured {1e3 * found:.2f} ms, "
                    f"{expected / found:.2f}"
                )


def show_ratios(rule: str, n: int) -> None:
    times = measured(rule, n)
    for name, of_one in times.items():
        ratio = statistics.median(a / b for a, b in zip(of_one, times["allreduce"], strict=True))
        milliseconds = 1e3 * statistics.median(of_one)
        show(
            f"{rule}, {n} elements, {COMM.size} ranks, {name}: {milliseconds:.3f} ms, {ratio:.2f} of allreduce"
        )


def show(text: str) -> None:
    if COMM.rank == 0:
        print(text, flush=True)


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "model":
        show_model()
    elif rest[1:] == ["json"]:
        show(json.dumps(measured(what, int(float(rest[0])))))
    else:
        show_ratios(what, int(float(rest[0])))


if __name__ == "__main__":
    main()
