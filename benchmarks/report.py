"""Measure everything, against every peer that is installed, and write docs/benchmarks.md and its pictures.

    nox -s report

Seven minutes. Each section runs in a process of its own: the threads of one library disturb the next.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import multiprocessing
import multiprocessing.connection
import time
from typing import TYPE_CHECKING

import family
import passes
import tables
from compiled import BARE
from sections import DENSE, DOCS, FUSED, NUMPY, ONE, SECTIONS, Section, shown
from training import IN_PLACE, PERCEPTRONS

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS
from fast_momentum._bench.machine import cpus, processor, system, versions

if TYPE_CHECKING:
    from fast_momentum._bench.timing import Ratio, Times

HOW = f"""All contenders make the same step, in turns, in an order that is drawn anew for each round, and on the same memory;
but JAX, optax and scikit-learn keep arrays of their own, and in training loops each contender has its own network. JAX
and optax may use all cores. Figures are medians, in brackets the quartiles. Unless said otherwise they are times as
long as `{OURS}` takes: above 1, `{OURS}` is faster. The {BARE} is the roofline: a loop in C with the traffic of a step
and nothing else, compiled with the flags of the kernels; it is called by way of ctypes, which costs some 400 ns an
array."""

PHASES = """The machine is shared and has fast and slow phases: only ratios carry over to others, and what differs by a few
percent differs the other way in the next run."""

NAVIGATION = """```{toctree}
:hidden:

Benchmarks <self>
In the field <field>
```"""

DTYPES = ("dtypes", "float32 stored as")  # of which no figure depends

# The sections under each question; the tables are folded.
QUESTIONS = {
    "What does a program gain?": ["training", "scikit-learn"],
    "How fast is one step?": ["one array", "many arrays", "models", "layouts", "threads"],
    "What do options and other rules cost?": ["options", "family", "one pass", "rows", "ranks"],
    "What else does it take?": ["process"],
}
FIELD = "[In the field](field.md) has whole programs, from scikit-learn to an evolution strategy, with and without our step."

SHORT = [NUMPY, FUSED]
IN_SHORT = (
    f"`{NUMPY}` is `np.multiply` and `np.add` with `out=`; in these cases the usual line takes longer still."
)
FASTER = "Every case of this run whose median is less than 1.00 at two digits; and then the roofline, the {}."
LOOPS = (
    f"Whole training loops of perceptrons in NumPy take {{:.2f}} to {{:.2f}} times as long with `{NUMPY}`."
)

# Fits of scikit-learn; 1 in all other cases.
FITS = {
    ("adam", "float32", 100, 32): 1.4,
    ("adam", "float32", 512, 32): 1.7,
    ("adam", "float32", 1024, 32): 3.2,
    ("adam", "float32", 2048, 32): 2.5,
    ("adam", "float64", 100, 32): 1.3,
    ("adam", "float64", 512, 32): 1.5,
    ("adam", "float64", 2048, 32): 2.0,
    ("sgd", "float32", 2048, 32): 1.3,
}

# The whole update, at most of the plain step; narrower storage, at least as many times as fast.
ONE_PASS = {"clip by norm": 1.4, "unscale, check": 1.4, "average": 1.4, "zero": 1.15}
NARROW = {"velocity bfloat16": 1.2, "velocity and gradient bfloat16": 1.5, "velocity int8": 1.3}
# Steps of many ranks; whole and at most twice as long in all other cases.
RANKS = {
    ("init", 1_000_000): ("spread", 1.0),
    ("adam", 1_000_000): ("spread", 1.0),
    ("init", 10_000_000): ("spread", 0.65),
    ("adam", 10_000_000): ("spread", 0.55),
}


def goals(found: dict[str, Section]) -> list[list[str]]:
    """Each goal, what was measured, and whether it was reached."""
    rows: list[list[str]] = []

    def goal(case: str, wanted: str, text: str, reached: bool) -> None:
        rows.append([case, wanted, text, "yes" if reached else "**no**"])

    def least(case: str, limit: float, value: Ratio, name: str) -> None:
        goal(case, f"at least {limit:.2f} {name}", shown(value), value.median >= limit)

    def within(case: str, limit: float, value: Ratio, name: str) -> None:
        goal(case, f"at most {limit:.2f} {name}", shown(value), value.median <= limit)

    def ratio(case: str, limit: float, times: Times, other: str) -> None:
        if other in times.seconds:
            least(case, limit, times.ratio(other, OURS), f"x {other}")

    def most(case: str, limit: float, value: float, name: str) -> None:
        goal(case, f"at most {limit:g} {name}", f"{value:.3g} {name}", value <= limit)

    one = found["one array"].figures["one array"]
    most("one array of 100", 250, one["100"].median(OURS) * 1e9, "ns")
    ratio("one array of 100", 13, one["100"], NUMPY)
    ratio("one array of 100", 90, one["100"], FUSED)
    many = found["many arrays"].figures
    listed, keyed = many["list of 10,000 arrays of 32"], many["dict of 10,000 arrays of 32"]
    most("10,000 arrays of 32, each", 60, listed.median(OURS) / 10_000 * 1e9, "ns")
    ratio("10,000 arrays of 32", 35, listed, NUMPY)
    ratio("10,000 arrays of 32", 30, listed, FUSED)
    most("the same as a dict", 2.5, keyed.median(OURS) / listed.median(OURS), "x the list")
    ratio("100,000 elements", 1.8, one["100,000"], NUMPY)
    ratio("100,000 elements", 1, one["100,000"], FUSED)
    ratio("50,000,000 elements", 0.95, one["50,000,000"], BARE)
    ratio("50,000,000 elements", 1.9, one["50,000,000"], NUMPY)
    ratio("50,000,000 elements", 3.7, one["50,000,000"], ONE)
    ratio("50,000,000 elements", 1, one["50,000,000"], FUSED)
    models = found["models"].figures
    for name in ("ResNet-50", "GPT-2"):
        least(name, 0.88, models[f"{name}, of flat"], "of one flat array")
        ratio(name, 1.8, models[name], NUMPY)
        ratio(name, 1, models[name], FUSED)
    options = found["options"].figures["options"]
    slowest = max(options, key=lambda name: options[name].median)
    most(f"any options; the slowest: {slowest}", 1.07, options[slowest].median, "x plain")
    layouts = found["layouts"].figures
    dense = layouts.pop("dense")
    for name in DENSE[1:]:
        least(f"{name} against C", 0.95, dense.ratio("C", name), "of its speed")
    for name in layouts:
        if name not in DENSE:
            ratio(f"1500 x 1500, {name}", 1, layouts[name], NUMPY)
    training = found["training"].figures
    for name, limit in zip(PERCEPTRONS, (1.4, 1.7, 1.9), strict=False):
        ratio(f"the step in training {name}", limit, training[name][1], IN_PLACE)
    for name, limit in zip(PERCEPTRONS, (1.1, 1.1, 1.18, 1.3, 1.04), strict=True):
        ratio(f"training {name}", limit, training[name][0], IN_PLACE)
    for (solver, dtype, width, batch), fit in found["scikit-learn"].figures.items():
        limit = FITS.get((solver, dtype, width, batch), 1.0)
        least(
            f"scikit-learn, {solver}, {dtype}, layers of {width}, batch {batch}", limit, fit, "x scikit-learn"
        )
    for n, (gain, times) in found["threads"].figures.items():
        least(f"two threads, {n:,}", 0.95, gain, "of one thread")
        if n >= 100_000:
            ratio(f"two threads, {n:,}", 0.7 if n < 10_000_000 else 0.85, times, BARE)
    adam = found["family"].figures
    for n, limit in {100: 18, 10_000: 5, 100_000: 5, 1_000_000: 4, 10_000_000: 3.8, 50_000_000: 3.8}.items():
        ratio(f"adam, {n:,} elements", limit, adam[n], NUMPY)
    for n, limit in {100_000: 8, 10_000_000: 8, 50_000_000: 8}.items():
        ratio(f"adam, {n:,} elements", limit, adam[n], family.USUAL)
    for n, limit in {100: 65, 100_000: 3, 1_000_000: 1.4, 10_000_000: 0.97, 50_000_000: 0.97}.items():
        ratio(f"adam, {n:,} elements", limit, adam[n], FUSED)
    most("adam, 10,000 arrays of 32, each", 90, adam["many"].median(OURS) / 10_000 * 1e9, "ns")
    for rule in ("qhm", "lion", "signum"):
        share = adam["rules"].ratio(rule, family.NESTEROV)
        within(rule, 1.07, share, f"x {family.NESTEROV}")
    least("adam, bfloat16", 1.3, adam["rules"].ratio("adam", "adam, bfloat16"), "x as fast as float32")
    one_pass = found["one pass"].figures
    for threads in (1, 2):
        on = f"threads: {threads}"
        for case, limit in ONE_PASS.items():
            share = one_pass[case, threads].ratio(OURS, passes.PLAIN)
            within(f"{case} and step, {on}", limit, share, f"x the {passes.PLAIN}")
        ratio(f"clip by norm and step, {on}", 1.4, one_pass["clip by norm", threads], passes.TORCH)
        storage = one_pass["storage", threads]
        for name in [name for name in NARROW if name in storage.seconds]:
            least(f"{name}, {on}", NARROW[name], storage.ratio(passes.PLAIN, name), "x as fast as float32")
    for name, limit in {"bfloat16": 0.51, "int8": 0.26}.items():
        most(f"memory of the state, velocity in {name}", limit, one_pass["growth"][name], "x the parameters")
    of_rows = found["rows"].figures
    for of_table, limit in {tables.FEW: 8, tables.MANY: 5}.items():
        ratio(f"rows, {of_table}", limit, of_rows[of_table], tables.NUMPY_ON_ROWS)
    ratio(f"rows, {tables.FEW}", 50, of_rows[tables.FEW], tables.DENSE)
    most(f"rows, {tables.TEN}", 3, of_rows[tables.TEN].median(OURS) * 1e6, "us")
    within(f"rows, {tables.FEW}: adam", 2, of_rows[tables.FEW].ratio(tables.ADAM, OURS), "x momentum")
    unsorted = of_rows[tables.MANY].ratio(tables.SORTED, OURS)
    least(f"rows, {tables.MANY}: sorted indices", 0.5, unsorted, "x as they come")
    for (n_ranks, rule, n), times in found["ranks"].figures.items():
        case = f"{n_ranks} ranks, {rule}, {n:,} elements"
        way, limit = RANKS.get((rule, n), ("whole", 2.0))
        within(f"{case}, {way}", limit, times.ratio(way, "allreduce"), "x allreduce and step")
        if n == 10_000_000:
            within(f"{case}, in order", 1.5, times.ratio("in order", "spread"), "x spread")
    process = found["process"].figures
    most("resident memory grows by", 1.01, process["growth"], "x the velocities")
    most("import beyond NumPy's", 20, process["import"] * 1e3, "ms")
    return rows


def in_short(found: dict[str, Section]) -> list[list[str]]:
    """What the first page of the documentation shows: times as long, in a few cases."""
    one, many = found["one array"].figures["one array"], found["many arrays"].figures
    cases: dict[str, Times] = {
        "one array of 100": one["100"],
        "one array of 100,000": one["100,000"],
        "one array of 10,000,000": one["10,000,000"],
        "one array of 50,000,000": one["50,000,000"],
        "10,000 arrays of 32": many["list of 10,000 arrays of 32"],
        "the 161 arrays of ResNet-50": found["models"].figures["ResNet-50"],
    }
    return [
        [case, *(f"{times.ratio(name, OURS).median:.3g} x" for name in SHORT)]
        for case, times in cases.items()
    ]


def folded(lines: list[str]) -> list[str]:
    """The tables behind a line that opens them."""
    found: list[str] = []
    for is_table, group in itertools.groupby(lines, lambda line: line.startswith("|")):
        rows = list(group)
        if is_table:
            found += [
                "<details>",
                f"<summary>Table of {len(rows) - 2} rows</summary>",
                "",
                *rows,
                "",
                "</details>",
            ]
        else:
            found += rows
    return found


def document(found: dict[str, Section], seconds: float) -> str:
    config = {name: value for name, value in fm.show_config("dicts").items() if name not in DTYPES}
    found_versions = ", ".join(f"{name} {version}" for name, version in versions().items())
    short = Section()
    short.table([f"float32, one thread: times as long as `{OURS}`", *SHORT], in_short(found))
    loops = [times.ratio(IN_PLACE, OURS).median for times, _ in found["training"].figures.values()]
    short.lines += [IN_SHORT, LOOPS.format(min(loops), max(loops))]
    faster = Section()
    entries = [entry for section in found.values() for entry in section.faster]
    faster.table(
        ["case", "who", f"time, of `{OURS}`"],
        ([case, who, shown(r)] for case, who, r in entries if who != BARE),
    )
    faster.table(
        ["case", f"time of the {BARE}, of `{OURS}`"],
        ([case, shown(r)] for case, who, r in entries if who == BARE),
    )
    reached = Section()
    reached.table(["case", "goal", "measured", "reached"], goals(found))
    made = [
        f"Made by `nox -s report` in one run of {seconds / 60:.0f} minutes on {dt.datetime.now(dt.UTC):%Y-%m-%d}.",
        "",
        f"- {processor()}, {cpus()} CPUs, {system()}",
        f"- {found_versions}",
        f"- {'; '.join(f'{name}: {value}' for name, value in config.items())}",
    ]
    return arranged(short, found, faster, reached, made)


def arranged(
    short: Section, found: dict[str, Section], faster: Section, reached: Section, made: list[str]
) -> str:
    """The page, by question: what is asked first comes first, and how it was measured last."""
    lines = ["# Benchmarks", "", *short.lines, "", FIELD, ""]
    for question, names in QUESTIONS.items():
        lines += [f"## {question}", ""]
        for name in names:
            lines += [line.replace("## ", "### ", 1) for line in folded(found[name].lines)]
    lines += ["## Where is someone else faster?", "", FASTER.format(BARE), "", *folded(faster.lines)]
    lines += ["## What was to be reached?", "", *folded(reached.lines)]
    lines += ["## How was it measured?", "", HOW, "", PHASES, "", *made, "", NAVIGATION]
    return "\n".join(lines) + "\n"


def measured(name: str, result: multiprocessing.connection.Connection) -> None:
    result.send(SECTIONS[name]())


def run_alone(name: str) -> Section:
    """In a fresh process."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=measured, args=(name, sender))
    process.start()
    sender.close()
    section: Section = receiver.recv()
    process.join()
    return section


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    (DOCS / "pictures").mkdir(exist_ok=True)
    begin = time.perf_counter()
    found = {}
    for name in SECTIONS:
        print(name, flush=True)
        found[name] = run_alone(name)
    (DOCS / "benchmarks.md").write_text(document(found, time.perf_counter() - begin), encoding="utf-8")
    print(DOCS / "benchmarks.md")


if __name__ == "__main__":
    main()
