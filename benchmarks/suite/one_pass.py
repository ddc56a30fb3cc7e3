"""The whole update in one pass, and narrower storage, at 33 million elements."""

from __future__ import annotations

from passes import CASES, measured

from .figures import BUDGET


class OnePass:
    """As a multiple of the plain step's time, a norm of `fast_momentum.global_norm`'s."""

    unit = "times"
    param_names = ["case", "threads"]
    params = [
        [f"{case}: {name}" for case, contenders in CASES.items() for name in list(contenders)[1:]],
        [1, 2],
    ]

    def track_ratio(self, case_and_name: str, threads: int) -> float:
        case, _, name = case_and_name.partition(": ")
        first = next(iter(CASES[case]))
        times = measured(case, threads, BUDGET, first, name)
        if name not in times.seconds:
            raise NotImplementedError  # asv's word for a combination that is left out: it is not installed
        return times.ratio(name, first).median
