"""The whole update in one pass, and narrower storage, at 33 million elements."""

from __future__ import annotations

from passes import CASES, calls_of, measured

from .figures import BUDGET


class OnePass:
    """As a multiple of the plain step's time, a norm of `fast_momentum.global_norm`'s."""

    unit = "times"
    param_names = ["case", "threads"]
    params = [
        [f"{case}: {name}" for case, contenders in CASES.items() for name in list(contenders)[1:]],
        [1, 2],
    ]

    def setup(self, case_and_name: str, threads: int) -> None:
        case, _, self.name = case_and_name.partition(": ")
        self.first = next(iter(CASES[case]))
        self.calls = calls_of(case, threads, self.first, self.name)
        if self.name not in self.calls:
            raise NotImplementedError  # asv's word for a combination that is left out: it is not installed

    def track_ratio(self, _: str, threads: int) -> float:
        return measured(self.calls, threads, BUDGET).ratio(self.name, self.first).median
