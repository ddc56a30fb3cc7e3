"""The measurement as a table, as a chart in the terminal, as a picture, as JSON."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import textwrap
from typing import TYPE_CHECKING, TypeVar

from .contenders import OURS
from .machine import described, processor, versions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from .quick import Row

T = TypeVar("T")

LEGEND = (
    "Above: float32 elements of one array, or arrays x elements. us: microseconds of a step. GB/s: of the five streams of a "
    "step. of np.add: its share of the bandwidth of np.add(a, b, out=a) over as many bytes, which may exceed 100 %. The "
    f"others: times as long as {OURS} takes. Medians of interleaved repetitions, one thread."
)
MORE = "For progress, a bar chart and --plot: python -m pip install rich matplotlib"

# Of Okabe and Ito: the colour-blind tell them apart, too. Black is for fast_momentum.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
STYLES = (("-", "o"), ("--", "s"), ("-.", "^"))


def is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def title() -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{processor()}; {found}"


def as_json(rows: list[Row]) -> str:
    return json.dumps({"machine": described(), "rows": [dataclasses.asdict(row) for row in rows]}, indent=2)


def cells(rows: list[Row]) -> list[list[str]]:
    """The lines of the table: a column for each problem, a line for each contender."""
    names = dict.fromkeys(name for row in rows for name in row.ratios)
    lines = [
        ["", *(row.case for row in rows)],
        ["us", *(f"{row.seconds * 1e6:,.{2 if row.seconds < 1e-5 else 0}f}" for row in rows)],
        ["GB/s", *(f"{row.bandwidth / 1e9:.1f}" for row in rows)],
        ["of np.add", *(f"{row.of_roofline:.0%}" if row.of_roofline else "-" for row in rows)],
    ]
    for name in names:
        ratios = [row.ratios.get(name) for row in rows]
        lines.append([name, *(f"{ratio.median:.2f}" if ratio else "-" for ratio in ratios)])
    return lines


def print_plainly(rows: list[Row]) -> None:
    lines = cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print("\n".join(textwrap.wrap(title(), 100)))
    for name, *figures in lines:
        print("  ".join([name.ljust(widths[0]), *map(str.rjust, figures, widths[1:])]))
    print("\n".join(textwrap.wrap(LEGEND, 100)))


def print_richly(rows: list[Row]) -> None:
    from rich.bar import Bar
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    header, *lines = cells(rows)
    table = Table(title=title(), box=SIMPLE_HEAD)
    for k, name in enumerate(header):
        table.add_column(name, justify="right" if k else "left", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    console.print(LEGEND, highlight=False)
    row = next(row for row in rows if row.elements == 1_000_000)
    bandwidths = {OURS: row.bandwidth} | {name: row.bandwidth / r.median for name, r in row.ratios.items()}
    chart = Table(title="GB/s at 1,000,000 elements", box=None, show_header=False)
    for name, bandwidth in sorted(bandwidths.items(), key=lambda item: -item[1]):
        bar = Bar(max(bandwidths.values()), 0, bandwidth, width=50, color="green" if name == OURS else "blue")
        chart.add_row(name, bar, f"{bandwidth / 1e9:.1f}")
    console.print(chart)


def with_progress(rows: Iterable[T], total: int) -> list[T]:
    """All of them, with a bar on standard error where rich is installed."""
    if not is_installed("rich"):
        return list(rows)
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return list(track(rows, "measuring", total=total, console=console, transient=True))


def save_plot(rows: list[Row], path: Path) -> None:
    single = [row for row in rows if row.arrays == 1]
    names = dict.fromkeys(name for row in single for name in row.ratios)
    lines = {OURS: [(row.elements, row.bandwidth) for row in single]}
    for name in names:
        lines[name] = [
            (row.elements, row.bandwidth / row.ratios[name].median) for row in single if name in row.ratios
        ]
    figure = bandwidths(lines)
    figure.suptitle("\n".join(textwrap.wrap(title(), 60)), fontsize="x-small")
    figure.savefig(path)


def bandwidths(lines: Mapping[str, Sequence[tuple[int, float]]], roofline: str | None = None) -> Figure:
    """Bandwidth over size, a line for each contender; to be read on a telephone, too."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 6.5), layout="constrained")
    axes = figure.subplots()
    looks = itertools.product(STYLES, COLOURS)
    for name, points in lines.items():
        if name == OURS:
            style, marker, color, width = "-", "o", "black", 3.0
        elif name == roofline:
            style, marker, color, width = ":", "", "black", 2.0
        else:
            (style, marker), color, width = *next(looks), 1.5
        sizes, speeds = zip(*points, strict=True)
        axes.plot(
            sizes,
            [speed / 1e9 for speed in speeds],
            linestyle=style,
            marker=marker,
            color=color,
            linewidth=width,
            markersize=4,
            label=name,
        )
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("elements of one float32 array", fontsize="large")
    axes.set_ylabel("GB/s of the step", fontsize="large")
    axes.tick_params(labelsize="large")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, handlelength=3)
    return figure
