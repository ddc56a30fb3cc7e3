"""What a step gains in whole programs: `python -m fast_momentum bench --field`."""

from __future__ import annotations

import dataclasses
import json
import statistics
import textwrap
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm

from .contenders import OURS, Unsuitable
from .machine import described
from .programs import AS_IT_IS, IN_PLACE, PROGRAMS, Watch
from .timing import Ratio, interleaved
from .views import COLOURS, title

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from matplotlib.figure import Figure

    from .programs import Program, Programs

BUDGET = 90.0  # seconds of timing; imports come on top

HEADER = ["program", "as it is", "of that its step", "as it is / with us", "NumPy in place / with us"]
LEGEND = (
    f"Whole programs, their steps made by themselves and by {OURS}, in turns; medians, in brackets the quartiles. Above 1, "
    f"{OURS} is faster. All end with the same bits, or the run would have stopped. More than 1/(1 - share of its step) is not "
    "to be had."
)


@dataclass(frozen=True)
class Row:
    """A program as it is: its time, the share of the step, and how many times as long it takes as with our step."""

    program: str
    what: str
    seconds: float
    share: float
    ratios: dict[str, Ratio]


@dataclass(frozen=True)
class LeftOut:
    program: str
    why: str


class Timed:
    """A program to be called by the harness; it notes the share of its steps, and keeps what it ended with."""

    def __init__(self, program: Program) -> None:
        self.program, self.shares, self.result = program, list[float](), None

    def __call__(self) -> None:
        watch, begin = Watch(), time.perf_counter()
        self.result = self.program(watch)
        self.shares.append(watch.seconds / (time.perf_counter() - begin))


def check_same(results: Mapping[str, Any]) -> None:
    first, *others = results.values()
    for other in others:
        for mine, theirs in zip(other, first, strict=True):
            if not np.array_equal(mine, theirs):
                msg = "a program must end with the same numbers, whoever makes its steps"
                raise AssertionError(msg)


def measured_one(name: str, programs: Programs, what: str, budget: float) -> Row:
    calls = {contender: Timed(program) for contender, program in programs.items()}
    times = interleaved(calls, budget)
    check_same({contender: call.result for contender, call in calls.items()})
    ratios = {other: times.ratio(other, OURS) for other in (AS_IT_IS, IN_PLACE) if other in calls}
    return Row(name, what, times.median(AS_IT_IS), statistics.median(calls[AS_IT_IS].shares), ratios)


def measured(budget: float = BUDGET) -> Iterator[Row | LeftOut]:
    """One program after the other; those whose library is missing are named."""
    fm.set_num_threads(1)
    for name, make in PROGRAMS.items():
        try:
            programs = make()
        except ImportError as error:
            yield LeftOut(name, f"{error.name or error} is not installed")
        except Unsuitable:
            yield LeftOut(name, "this version of the library has no place for the step")
        else:
            yield measured_one(name, programs, (make.__doc__ or "").rstrip("."), budget / len(PROGRAMS))


def shown(ratio: Ratio | None) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "-"


def cells(rows: list[Row]) -> list[list[str]]:
    return [
        [
            row.program,
            f"{row.seconds * 1e3:.3g} ms",
            f"{row.share:.1%}",
            *(shown(row.ratios.get(other)) for other in (AS_IT_IS, IN_PLACE)),
        ]
        for row in rows
    ]


def split(found: list[Row | LeftOut]) -> tuple[list[Row], list[LeftOut]]:
    return [row for row in found if isinstance(row, Row)], [row for row in found if isinstance(row, LeftOut)]


def as_text(found: list[Row | LeftOut]) -> str:
    rows, left_out = split(found)
    lines = [HEADER, *cells(rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    missing = [f"left out: {row.program}, as {row.why}" for row in left_out]
    return "\n".join([*textwrap.wrap(title(), 100), *table, *missing, *textwrap.wrap(LEGEND, 100)])


def as_json(found: list[Row | LeftOut]) -> str:
    rows, left_out = split(found)
    return json.dumps(
        {
            "machine": described(),
            "rows": [dataclasses.asdict(row) for row in rows],
            "left_out": [dataclasses.asdict(row) for row in left_out],
        },
        indent=2,
    )


def picture(found: list[Row | LeftOut]) -> Figure:
    """For each program, what it takes as it is, the share of its step in it, and what it takes with our step."""
    from matplotlib.figure import Figure

    rows, _ = split(found)
    rows = sorted(rows, key=lambda row: row.ratios[AS_IT_IS].median)
    figure = Figure(figsize=(5, 0.75 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    shares = np.array([row.share for row in rows])
    with_us = [1 / row.ratios[AS_IT_IS].median for row in rows]
    axes.barh(places + 0.2, 1 - shares, 0.36, color="#bbbbbb", label="as it is")
    axes.barh(places + 0.2, shares, 0.36, left=1 - shares, color=COLOURS[1], label="of that its step")
    axes.barh(places - 0.2, with_us, 0.36, color=COLOURS[0], label=f"with {OURS}")
    axes.set_yticks(places, [row.program.replace(", ", ",\n") for row in rows])
    axes.set(xlabel="time of the program, as it is = 1", xlim=(0, 1.05 * max(1, *with_us)))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure
