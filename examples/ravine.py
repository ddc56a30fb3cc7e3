r"""
Down a ravine
=============

The function :math:`f(x_1, x_2) = 50 x_1^2 + 0.5 x_2^2` curves a hundred times as much across as along. From (0.5, 10),
gradient descent jumps from side to side: an lr that suits the flat direction is almost too large for the steep one. Its
best lr for curvatures from :math:`l_{min}` to :math:`l_{max}` is :math:`2/(l_{min} + l_{max})`, a compromise at which
each step leaves 0.98 of the error in both directions.

What is found:

- **At one lr**, the best of gradient descent, the heavy ball damps the oscillation across and is faster along: after 30
  steps the swing is 160 times smaller, and 1.4 is left along the ravine, against 5.5. Nesterov's method with the same
  momentum m cannot take part: it diverges from the lr :math:`2(1 + m)/((1 + 2m) l_{max})` on, and that is less.
- **At the best lr and momentum of each**, a step of the heavy ball leaves 0.818 of the error in the long run, one of
  Nesterov's method 0.885. At first both are worse across: the heavy ball swings out to nearly four times the distance
  at which it began, and needs 20 steps to get below gradient descent.

Every point of every path is the one that the closed form gives.

B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964. For Nesterov's constants:
L. Lessard, B. Recht, A. Packard, Analysis and design of optimization algorithms via integral quadratic constraints,
2016.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CURVATURE = np.array([100.0, 1.0])  # across, along
START = np.array([0.5, 10.0])
STEPS = 60
ONE_LR, BEST = "one lr, the best of gradient descent", "each at its best lr and momentum"


class Run(NamedTuple):
    lr: float
    momentum: float
    rate: float  # predicted, of the slower direction
    path: Array  # (STEPS + 1, 2): across, along
    predicted: Array

    def sign_changes(self) -> int:
        return int((self.path[1:, 0] * self.path[:-1, 0] < 0).sum())

    def swing(self) -> Array:
        """The largest distance across from each step on."""
        return np.maximum.accumulate(abs(self.path[::-1, 0]))[::-1]


class Found(NamedTuple):
    lr: float  # the best of gradient descent
    runs: dict[str, dict[str, Run]]
    nesterov_limit: float  # of the lr, with the momentum of the heavy ball


def ravine(across: Any, along: Any) -> Any:
    return (CURVATURE[0] * across**2 + CURVATURE[1] * along**2) / 2


def run(lr: float, momentum: float, nesterov: bool = False) -> Run:
    chosen: dict[str, Any] = {"lr": lr, "momentum": momentum, "nesterov": nesterov}
    p = START.copy()
    state = fm.init(p, **chosen)
    path = [p.copy()]
    for _ in range(STEPS):
        fm.step(p, CURVATURE * p, state)
        path.append(p.copy())
    n = np.arange(STEPS + 1)
    ways = zip(CURVATURE, START, strict=True)
    predicted = [theory.trajectory(curvature, n, start=start, **chosen)[0] for curvature, start in ways]
    rate = max(theory.rate(curvature, **chosen) for curvature in CURVATURE)
    return Run(lr, momentum, rate, np.array(path), np.transpose(predicted))


def experiment() -> Found:
    l_max, l_min = CURVATURE
    descent = theory.optimal(l_min, l_max, method="gradient_descent")
    heavy = theory.optimal(l_min, l_max, method="heavy_ball")
    nesterov = theory.optimal(l_min, l_max, method="nesterov_quadratic")
    plain = run(descent.lr, 0.0)
    runs = {
        ONE_LR: {"gradient descent": plain, "heavy ball": run(descent.lr, heavy.momentum)},
        BEST: {
            "gradient descent": plain,
            "heavy ball": run(heavy.lr, heavy.momentum),
            "Nesterov": run(nesterov.lr, nesterov.momentum, nesterov=True),
        },
    }
    return Found(descent.lr, runs, theory.stability_limit(l_max, momentum=heavy.momentum, nesterov=True))


def draw(found: Found) -> Figure:
    figure, (*paths, both, best) = plt.subplots(
        4, 1, figsize=(plot.WIDTH, 11), layout="constrained", height_ratios=[1, 1, 1.3, 1.3]
    )
    for axes, (name, run) in zip(paths, found.runs[ONE_LR].items(), strict=True):
        shown = {f"{name}, 30 steps": run.path[:31, ::-1]}
        plot.trajectories(axes, lambda x, y: ravine(y, x), shown, xlim=(-2, 11), ylim=(-0.75, 0.75))
        axes.set(xlabel="$x_2$, along the ravine", ylabel="$x_1$, across")
    left = {}
    for name, run in found.runs[ONE_LR].items():
        left[f"{name}, across"] = run.swing()
        left[f"{name}, along"] = abs(run.path[:, 1])
    plot.loss_curves(both, left, ylabel="distance still to come", title=f"lr {found.lr:.4f} for both")
    distances = {name: np.linalg.norm(run.path, axis=1) for name, run in found.runs[BEST].items()}
    plot.loss_curves(best, distances, ylabel="distance from the minimum", title=BEST)
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for title, runs in found.runs.items():
        print(f"{title}:")
        for name, run in runs.items():
            print(
                f"  {name:16} lr {run.lr:.4f}, momentum {run.momentum:.3f}: {run.sign_changes()} sign changes across, "
                f"swing after step 30 {run.swing()[30]:.2g}; left along {abs(run.path[30, 1]):.2g}; rate {run.rate:.3f}"
            )
    print(f"  Nesterov with the momentum of the heavy ball diverges from lr {found.nesterov_limit:.4f} on")
    draw(found).savefig("ravine.png", dpi=150)
    print("Picture: ravine.png")


if __name__ == "__main__":
    main()
