"""The sections of docs/benchmarks.md: each measures, and writes down what it found."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import family
import numpy as np
import passes
import tables
from compiled import ALL_CONTENDERS, BARE
from matplotlib.figure import Figure
from measure import growth_of_memory, of_ranks, seconds_of_import
from models import MODELS
from suite.step import LAYOUTS, OPTIONS, laid_out
from training import (
    BATCHES,
    IN_PLACE,
    NO_STEP,
    ONE_LINER,
    PERCEPTRONS,
    SOLVERS,
    STEPPERS,
    WIDTHS,
    perceptron,
    sklearn_fits,
)

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS, prepared
from fast_momentum._bench.problems import LR, MOMENTUM, Problem, many_arrays, one_array, problem
from fast_momentum._bench.timing import Ratio, Times, interleaved
from fast_momentum._bench.views import COLOURS, bandwidths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fast_momentum._bench.timing import Call

DOCS = Path(__file__).parents[1] / "docs"
SECONDS = 2.5  # for one table row

DENSE = ["C", "Fortran", "transposed"]  # one piece of memory, whatever the order of its dimensions

NUMPY, ONE = "NumPy in place", "NumPy one-liner"
FUSED = "PyTorch fused"

SKLEARN = """Whole fits of an `MLPClassifier` with two hidden layers and 784 inputs, BLAS on all cores, the step on one thread: time, of
the same fit with the class of `fast_momentum.adapters.scikit_learn`. The coefficients are the same, bit for bit; the run
stops if they are not."""


@dataclass
class Section:
    """Text, what the goals need of it, and who was faster at what."""

    lines: list[str] = field(default_factory=list)
    figures: dict[Any, Any] = field(default_factory=dict)
    faster: list[tuple[str, str, Ratio]] = field(default_factory=list)

    def table(self, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
        names = list(header)
        self.lines += [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        self.lines += [f"| {' | '.join(row)} |" for row in rows] + [""]

    def note(self, case: str, times: Times, others: Iterable[str]) -> None:
        """Remember who took less time, so much less that the table shows it."""
        for name in others:
            ratio = times.ratio(name, OURS)
            if round(ratio.median, 2) < 1:
                self.faster.append((case, name, ratio))


def shown(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def unit(seconds: float) -> str:
    for scale, name in ((1e-6, "ns"), (1e-3, "us"), (1, "ms")):
        if seconds < scale:
            return f"{seconds / scale * 1e3:.3g} {name}"
    return f"{seconds:.3g} s"


def timed(given: Problem, seconds: float = SECONDS) -> tuple[Times, list[str]]:
    calls = prepared(given, ALL_CONTENDERS, ALL_CONTENDERS)
    return interleaved(calls, seconds), [name for name in calls if name != OURS]


def contenders_table(section: Section, problems: dict[str, Callable[[], Problem]]) -> dict[str, Times]:
    """A column for each problem, a line for each contender."""
    found: dict[str, Times] = {}
    columns: list[dict[str, str]] = []
    for case, make in problems.items():
        given = make()
        found[case], others = timed(given)
        section.note(case, found[case], others)
        ours = found[case].median(OURS)
        columns.append(
            {f"{OURS}: time": unit(ours), f"{OURS}: GB/s": f"{given.moved_bytes / ours / 1e9:.0f}"}
            | {name: shown(found[case].ratio(name, OURS)) for name in others}
        )
    names = dict.fromkeys(name for column in columns for name in column)
    section.table(["", *problems], ([name, *(column.get(name, "") for column in columns)] for name in names))
    return found


def one_array_section() -> Section:
    section = Section(["## One array", "", "float32, one thread.", ""])
    sizes = [100, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000]
    found = contenders_table(section, {f"{n:,}": functools.partial(one_array, n) for n in sizes})
    section.figures = {"one array": found}
    save_bandwidths(found)
    section.lines += ["![Bandwidth over size](pictures/bandwidth.svg)", "", "float64, one thread.", ""]
    contenders_table(
        section,
        {f"{n:,} of float64": functools.partial(one_array, n, "float64") for n in (100, 100_000, 10_000_000)},
    )
    return section


def save_bandwidths(found: dict[str, Times]) -> None:
    lines: dict[str, list[tuple[int, float]]] = {}
    for case, times in found.items():
        elements = int(case.replace(",", ""))
        for name in times.seconds:
            lines.setdefault(name, []).append((elements, 20 * elements / times.median(name)))
    bandwidths(lines, roofline=BARE).savefig(DOCS / "pictures" / "bandwidth.svg")


def many_arrays_section() -> Section:
    section = Section(["## Many arrays", "", "float32, arrays of 32, one thread; times are of an array.", ""])
    rows = []
    for kind, count in [("list", 10), ("list", 1000), ("list", 10_000), ("dict", 1000), ("dict", 10_000)]:
        times, others = timed(many_arrays([(32,)] * count, kind), 2 * SECONDS)
        case = f"{kind} of {count:,} arrays of 32"
        section.note(case, times, others)
        section.figures[case] = times
        cells = [
            shown(times.ratio(name, OURS)) if name in others else ""
            for name in (NUMPY, FUSED, "numba", "Cython", BARE)
        ]
        rows.append([case, unit(times.median(OURS) / count), *cells])
    section.table(["", OURS, NUMPY, FUSED, "numba", "Cython", BARE], rows)
    return section


def models_section() -> Section:
    """The last row of a model: all of its elements in one array, which is the best that can be hoped for."""
    section = Section(["## Models", "", "float32, the shapes of the parameters, one thread.", ""])
    section.figures |= contenders_table(
        section, {name: functools.partial(many_arrays, shapes) for name, shapes in MODELS.items()}
    )
    rows = []
    for name, shapes in MODELS.items():
        given = many_arrays(shapes)
        flat = one_array(given.elements)
        calls = {OURS: prepared(given, [OURS])[OURS], "flat": prepared(flat, [OURS])[OURS]}
        times = interleaved(calls, SECONDS)
        section.figures[f"{name}, of flat"] = times.ratio("flat", OURS)
        rows.append([name, f"{given.elements:,}", f"{len(shapes)}", shown(times.ratio("flat", OURS))])
    section.table(["", "elements", "arrays", "speed, of one flat array"], rows)
    return section


def options_section() -> Section:
    section = Section(
        ["## Forms and options", "", "float32, 10,000,000 elements, one thread: time, of the plain step.", ""]
    )
    p, g = np.ones(10_000_000, "f4"), np.full(10_000_000, 1e-3, "f4")
    states = {name: fm.init(p, lr=LR, momentum=MOMENTUM, **options) for name, options in OPTIONS.items()}
    calls = {name: functools.partial(fm.step, p, g, state) for name, state in states.items()}
    each = fm.init([p], lr=[LR], momentum=MOMENTUM)
    calls["lr of each array"] = functools.partial(fm.step, [p], [g], each)
    times = interleaved(calls, 4 * SECONDS)
    ratios = {name: times.ratio(name, "plain") for name in calls}
    section.table(["options", "time, of plain"], ([name, shown(ratio)] for name, ratio in ratios.items()))
    section.figures["options"] = ratios
    return section


def layouts_section() -> Section:
    section = Section(
        ["## Layouts", "", "float32, 1500 x 1500, one thread; parameters, then gradients if they differ.", ""]
    )
    rows = []
    for layout in LAYOUTS:
        given = problem(*laid_out(layout))
        times = interleaved(prepared(given, [OURS, NUMPY, ONE]), SECONDS)
        section.note(f"1500 x 1500, {layout}", times, [NUMPY, ONE])
        section.figures[layout] = times
        rows.append(
            [layout, unit(times.median(OURS)), *(shown(times.ratio(name, OURS)) for name in (NUMPY, ONE))]
        )
    section.table(["layout", OURS, NUMPY, ONE], rows)
    in_one_piece = [problem(*laid_out(layout)) for layout in DENSE]
    calls = {layout: prepared(given, [OURS])[OURS] for layout, given in zip(DENSE, in_one_piece, strict=True)}
    section.figures["dense"] = interleaved(calls, SECONDS)
    return section


def threads_section() -> Section:
    section = Section(
        ["## Two threads", "", "float32, away from BLAS; beside it, more than one thread is slower.", ""]
    )
    rows = []
    for n in (1000, 10_000, 30_000, 50_000, 100_000, 300_000, 1_000_000, 10_000_000, 50_000_000):
        given = one_array(n)
        step = prepared(given, [OURS])[OURS]

        def with_threads(threads: int, step: Call = step) -> None:
            if fm.get_num_threads() != threads:  # at the first call of a turn, which is not counted
                fm.set_num_threads(threads)
            step()

        calls = {str(threads): functools.partial(with_threads, threads) for threads in (1, 2)}
        gain = interleaved(calls, SECONDS).ratio("1", "2")
        given.threads = 2
        times = interleaved(prepared(given, [OURS, BARE, FUSED], ALL_CONTENDERS), SECONDS)
        section.note(f"{n:,}, two threads", times, [name for name in times.seconds if name != OURS])
        section.figures[n] = gain, times
        rest = [shown(times.ratio(name, OURS)) if name in times.seconds else "" for name in (BARE, FUSED)]
        rows.append([f"{n:,}", shown(gain), *rest])
    section.table(["elements", "speed, of one thread", f"{BARE}, two threads", f"{FUSED}, two threads"], rows)
    return section


def training_section() -> Section:
    section = Section(
        ["## Training loops", "", "A perceptron in NumPy, BLAS on all cores; the step on one thread.", ""]
    )
    rows = []
    for name in PERCEPTRONS:
        whole, steps = perceptron(name, 2.5 * SECONDS)
        section.figures[name] = whole, steps
        section.note(f"training {name}", whole, [IN_PLACE, ONE_LINER, BARE])
        section.note(f"the step in training {name}", steps, [IN_PLACE, ONE_LINER, BARE])
        ratios = [steps.ratio(IN_PLACE, OURS), steps.ratio(BARE, OURS), whole.ratio(IN_PLACE, OURS), whole.ratio(ONE_LINER, OURS),
                  whole.ratio(IN_PLACE, NO_STEP)]  # fmt: skip
        rows.append([name, unit(steps.median(OURS)), unit(whole.median(OURS)), *map(shown, ratios)])
    section.table(["layers, batch", "step", "iteration", f"step: {IN_PLACE}", f"step: {BARE}", f"iteration: {IN_PLACE}",
                   f"iteration: {ONE_LINER}", "no step at all"], rows)  # fmt: skip
    section.lines += [
        "The last column is what a step that takes no time would reach against NumPy in place.",
        "",
    ]
    save_iterations({name: whole for name, (whole, _) in section.figures.items()})
    section.lines += ["![Time of an iteration](pictures/training.svg)", ""]
    return section


def save_iterations(found: dict[str, Times]) -> None:
    figure = Figure(figsize=(5, 6.5), layout="constrained")
    axes = figure.subplots()
    colors = ("black", COLOURS[1], COLOURS[0], "grey", "lightgrey")  # of NumPy, as in the other picture
    for k, (name, color) in enumerate(zip(STEPPERS, colors, strict=True)):
        lengths = [times.ratio(name, IN_PLACE).median for times in found.values()]
        places = [place + (k - 2) * 0.17 for place in range(len(found))]
        axes.barh(places, lengths, height=0.15, label=name, color=color)
    axes.set_yticks(range(len(found)), [name.replace(", ", "\nbatch ") for name in found])
    axes.invert_yaxis()
    axes.set_xlabel(f"time of an iteration, of {IN_PLACE}", fontsize="large")
    axes.tick_params(axis="x", labelsize="large")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(DOCS / "pictures" / "training.svg")


def sklearn_section() -> Section:
    section = Section(["## scikit-learn", "", SKLEARN, ""])
    rows = []
    for solver, dtype in SOLVERS:
        for width in WIDTHS:
            ratios = [
                sklearn_fits(solver, dtype, width, batch, 5).ratio("scikit-learn", OURS) for batch in BATCHES
            ]
            section.figures |= {
                (solver, dtype, width, batch): ratio for batch, ratio in zip(BATCHES, ratios, strict=True)
            }
            rows.append([solver, dtype, f"{width}", *map(shown, ratios)])
    section.table(["solver", "dtype", "width", *(f"batch {batch}" for batch in BATCHES)], rows)
    return section


ONE_PASS = f"""float32, one array of {passes.ELEMENTS:,} elements: time, of the plain step's, or for the norms of
`fast_momentum.global_norm`'s. The peers scale, clip, check, average and zero in passes of their own. BLAS and PyTorch have
as many threads as said; NumPy's other passes always run on one."""


def one_pass_section() -> Section:
    section = Section(["## The whole update in one pass", "", ONE_PASS, ""])
    rows = []
    for case, contenders in passes.CASES.items():
        first = next(iter(contenders))
        columns: dict[str, list[str]] = {}
        for threads in (1, 2):
            times = passes.measured(passes.calls_of(case, threads), threads, 2 * SECONDS)
            section.figures[case, threads] = times
            columns.setdefault(first, []).append(unit(times.median(first)))
            for name in times.seconds.keys() - {first}:
                columns.setdefault(name, []).append(shown(times.ratio(name, first)))
            if OURS in contenders:
                others = times.seconds.keys() - {OURS, passes.PLAIN}
                section.note(f"{case}, threads: {threads}", times, sorted(others))
        rows += [[case, name, *columns[name]] for name in contenders if name in columns]
    section.table(["", "", "one thread", "two threads"], rows)
    growth = {name: growth_of_memory(10_000_000, name) for name in ("float32", "bfloat16", "int8")}
    section.figures["growth"] = growth
    section.table(
        ["velocity", "resident memory after init and a step"],
        ([name, f"{value:.3f} x the parameters"] for name, value in growth.items()),
    )
    return section


FAMILY = """float32, one array; the form corrected of Adam, with both moments."""


def family_section() -> Section:
    section = Section(["## Adam and the other rules", "", FAMILY, ""])
    names = [name for name in family.ADAM if name != OURS]
    rows = []
    for n in (100, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000):
        times = interleaved(prepared(family.adam_problem(n), family.ADAM, family.ADAM), SECONDS)
        section.figures[n] = times
        ratios = [shown(times.ratio(name, OURS)) if name in times.seconds else "" for name in names]
        rows.append([f"{n:,}", unit(times.median(OURS)), *ratios])
        section.note(f"adam, {n:,} elements", times, [name for name in names if name in times.seconds])
    section.table(["elements", OURS, *names], rows)
    many = interleaved(prepared(family.adam_problem(32, arrays=10_000), [OURS], family.ADAM), SECONDS)
    section.figures["many"] = many
    section.lines += [f"Of 10,000 arrays of 32, each takes {unit(many.median(OURS) / 10_000)}.", ""]
    rules = section.figures["rules"] = interleaved(family.rule_calls(33_000_000), 4 * SECONDS)
    section.table(
        ["rule, 33,000,000 elements", "time", f"of {family.NESTEROV}"],
        (
            [name, unit(rules.median(name)), shown(rules.ratio(name, family.NESTEROV))]
            for name in rules.seconds
        ),
    )
    return section


ROWS = """float32, momentum; the indices drawn so that some rows are there twice, the dense step with a gradient that is there
already. What sorted indices save is the sort, and reading the values here and there."""


def rows_section() -> Section:
    section = Section(["## Rows of a table", "", ROWS, ""])
    others = [name for name in tables.CONTENDERS if name != OURS]
    rows = []
    for case in (tables.TEN, tables.FEW, tables.MANY):
        here = [name for name in others if case != tables.MANY or name != tables.DENSE]  # it takes a second
        times = section.figures[case] = interleaved(tables.calls_of(case, OURS, *here), 2 * SECONDS)
        ratios = [shown(times.ratio(name, OURS)) if name in here else "" for name in others]
        rows.append([f"{case}", unit(times.median(OURS)), *ratios])
        section.note(f"rows, {case}", times, sorted({tables.NUMPY_ON_ROWS, tables.DENSE} & {*here}))
    section.table(["indices", OURS, *others], rows)
    return section


RANKS = """float32, one array, MPI on the cores of this machine: time, of `Allreduce` and a step of everything on each rank. Spread:
each rank keeps and steps a share; in order: the same with the sum in the order of ranks; whole: each keeps all."""


def ranks_section() -> Section:
    section = Section(["## Many ranks", "", RANKS, ""])
    ways = ["spread", "in order", "whole"]
    rows = []
    for n_ranks in (2, 4):
        for rule in ("init", "adam"):
            for n in (1000, 100_000, 1_000_000, 10_000_000):
                times = of_ranks(n_ranks, rule, n)
                if times is None:
                    section.lines += ["Not measured: mpi4py or MPI is missing.", ""]
                    return section
                section.figures[n_ranks, rule, n] = times
                cells = [shown(times.ratio(way, "allreduce")) for way in ways]
                rows.append([f"{n_ranks}", rule, f"{n:,}", unit(times.median("allreduce")), *cells])
    section.table(["ranks", "rule", "elements", "allreduce and step", *ways], rows)
    return section


def process_section() -> Section:
    section = Section(["## Memory, import, first step", ""])
    growth, imported = growth_of_memory(10_000_000), seconds_of_import()
    p, g = np.ones(10_000_000, "f4"), np.full(10_000_000, 1e-3, "f4")

    def first_numpy() -> None:
        v = np.zeros_like(p)
        np.multiply(v, np.float32(MOMENTUM), out=v)
        np.add(v, g, out=v)
        np.subtract(p, np.float32(LR) * v, out=p)

    calls = {OURS: lambda: fm.step(p, g, fm.init(p, lr=LR, momentum=MOMENTUM)), NUMPY: first_numpy}
    times = interleaved(calls, SECONDS)
    section.table(["figure", ""], [
        ["peak of resident memory after init and a step, 10,000,000 elements", f"{growth:.4f} x the velocities"],
        ["import, when NumPy has been imported", unit(imported)],
        ["init and first step, 10,000,000 elements", unit(times.median(OURS))],
        ["the same in NumPy", f"{shown(times.ratio(NUMPY, OURS))} x"],
    ])  # fmt: skip
    section.figures = {"growth": growth, "import": imported}
    return section


SECTIONS: dict[str, Callable[[], Section]] = {
    "one array": one_array_section,
    "many arrays": many_arrays_section,
    "models": models_section,
    "options": options_section,
    "layouts": layouts_section,
    "threads": threads_section,
    "training": training_section,
    "scikit-learn": sklearn_section,
    "family": family_section,
    "one pass": one_pass_section,
    "rows": rows_section,
    "ranks": ranks_section,
    "process": process_section,
}
