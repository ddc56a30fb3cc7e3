"""The half-minute measurement behind `python -m fast_momentum bench`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .contenders import CONTENDERS, OURS, add_passes, numpy_add, prepared
from .problems import Problem, many_arrays, one_array
from .timing import Ratio, interleaved

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUDGET = 20.0  # seconds of timing; imports and compilers of the peers come on top

CASES: dict[str, Callable[[], Problem]] = {
    "100": lambda: one_array(100),
    "1000 x 32": lambda: many_arrays([(32,)] * 1000),
    "10k": lambda: one_array(10_000),
    "100k": lambda: one_array(100_000),
    "1M": lambda: one_array(1_000_000),
    "10M": lambda: one_array(10_000_000),
}

# Below this, what a call costs hides what the memory allows.
LEAST_FOR_ROOFLINE = 100_000

ADD = "np.add"


@dataclass(frozen=True)
class Row:
    """One problem: what a step takes, and how many times as long the others take."""

    case: str
    elements: int
    arrays: int
    seconds: float
    bandwidth: float  # bytes a second
    of_roofline: float | None
    ratios: dict[str, Ratio]


def measured() -> Iterator[Row]:
    """Measure the cases one after the other."""
    for case, make in CASES.items():
        problem = make()
        calls = prepared(problem, CONTENDERS)
        others = [name for name in calls if name != OURS]
        with_roofline = len(problem.arrays) == 1 and problem.elements >= LEAST_FOR_ROOFLINE
        if with_roofline:
            calls[ADD] = numpy_add(problem)
        times = interleaved(calls, BUDGET / len(CASES))
        yield Row(
            case,
            problem.elements,
            len(problem.arrays),
            times.median(OURS),
            problem.moved_bytes / times.median(OURS),
            times.ratio(ADD, OURS).median * add_passes(problem) if with_roofline else None,
            {name: times.ratio(name, OURS) for name in others},
        )
