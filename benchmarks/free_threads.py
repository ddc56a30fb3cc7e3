"""Eight threads that each step a state of 40 000 elements: the time with the GIL over that without, by a Python that has none."""

import os
import statistics
import subprocess
import sys
import threading
import time

THREADS, ELEMENTS, STEPS, ROUNDS = 8, 40_000, 2000, 15


def seconds() -> float:
    import numpy as np

    import fast_momentum as fm

    def work() -> None:
        params, grads = (np.ones(ELEMENTS, np.float32) for _ in range(2))
        state = fm.init(params, lr=1e-3)
        barrier.wait()
        for _ in range(STEPS):
            fm.step(params, grads, state)
        barrier.wait()

    passed: list[float] = []  # when all had begun, and when all were done
    barrier = threading.Barrier(THREADS, action=lambda: passed.append(time.perf_counter()))
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return passed[1] - passed[0]


def timed(gil: str) -> float:
    environment = os.environ | {"PYTHON_GIL": gil}
    return float(subprocess.check_output([sys.executable, __file__, "once"], env=environment))


if __name__ == "__main__":
    if sys.argv[1:] == ["once"]:
        print(seconds())
    else:
        print(statistics.quantiles([timed("1") / timed("0") for _ in range(ROUNDS)], n=4))
