"""Draw docs/_static/ravine.svg, which `theory/movable.md` shows where a browser runs no scripts. conf.py calls it."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CURVATURE, START, STEPS = np.array([1.0, 25.0]), np.array([9.0, 1.0]), 60
BEST = theory.optimal(*CURVATURE)
DESCENT = theory.optimal(*CURVATURE, method="gradient_descent")
PATHS = {
    "without momentum": (DESCENT.lr, 0.0),
    "over-damped along": (0.03, 0.5),
    "the best of both": (BEST.lr, BEST.momentum),
    "diverging": (1.02 * float(theory.stability_limit(25.0, momentum=0.5)), 0.5),
}


def path_of(lr: float, momentum: float) -> NDArray[np.float64]:
    p = START.copy()
    state = fm.init(p, lr=lr, momentum=momentum)
    points = [p.copy()]
    for _ in range(STEPS):
        fm.step(p, CURVATURE * p, state)
        points.append(p.copy())
    return np.array(points)


def ravine(x: Any, y: Any) -> Any:
    return (CURVATURE[0] * x**2 + CURVATURE[1] * y**2) / 2


def save(path: Path) -> None:
    figure = Figure(figsize=(plot.WIDTH, 7), layout="constrained")
    for axes, (name, (lr, momentum)) in zip(figure.subplots(len(PATHS), 1), PATHS.items(), strict=True):
        title = f"{name}: lr {lr:.3f}, momentum {momentum:.3f}"
        plot.trajectories(axes, ravine, {name: path_of(lr, momentum)}, xlim=(-10, 10), ylim=(-2, 2),
                          levels=6, xlabel="along", ylabel="across", title=title)  # fmt: skip
        axes.get_legend().remove()
    drawn = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "ravine"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    path.write_text(shortened(drawn.getvalue()), encoding="utf-8")


def shortened(svg: str) -> str:
    """With a digit after the point in what is drawn, it is a fifth of the size."""

    def rounded(path: re.Match[str]) -> str:
        return re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", path[0])

    return re.sub(r' d="[^"]*"', rounded, svg)
