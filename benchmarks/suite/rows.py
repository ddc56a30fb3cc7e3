"""Steps of some rows of a table, beside what others do in their place."""

from __future__ import annotations

from tables import CONTENDERS, FEW, TEN, Case, calls_of

from fast_momentum._bench.contenders import OURS
from fast_momentum._bench.timing import interleaved

from .figures import BUDGET

CASES = {str(case): case for case in (TEN, FEW, Case(1_000_000, 16, 1_000_000))}


class Rows:
    """Times as long as `fast_momentum` takes for a step of momentum on the rows, in the order in which they come."""

    unit = "times"
    param_names = ["case", "contender"]
    params = [[*CASES], [name for name in CONTENDERS if name != OURS]]

    def setup(self, case: str, contender: str) -> None:
        self.calls = calls_of(CASES[case], OURS, contender)

    def track_ratio(self, _: str, contender: str) -> float:
        return interleaved(self.calls, BUDGET).ratio(contender, OURS).median
