r"""
Down a chain of saddle points
=============================

The function

.. math::

   f(x, y) = \frac{\sin 2 \pi x + \sin 2 \pi y}{2 \pi} - x - y + \frac{1}{4} (\cos 2 \pi x - \cos 2 \pi y)
   (\cos \pi x \cos \pi y + 10^{-4} \sin \pi x \sin \pi y)

is a staircase: (0, 0), (1, 0), (1, 1), (2, 1), (2, 2) and so on are saddle points, each lower than the one before by 1.
The curvature at each is :math:`\pi^2` in the direction from which a path comes and :math:`-\pi^2` in that in which it
leaves. The small last term keeps paths on one side of the saddles.

Close to a saddle the gradient is almost zero, and a path has to wait until its distance :math:`\delta` from the stable
direction has grown to some radius :math:`R`. Each step multiplies it by the rate of the negative curvature, which is
above 1, so the crossing takes :math:`\log(R / \delta) / \log(rate)` steps.

What is found, with :math:`R = 0.02`:

- Every crossing time is the predicted one within 2 %. Gradient descent crosses in 492 to 553 steps, momentum 0.9 with
  the same lr in 94 to 99; the whole chain takes 14,084 steps and 1,605.
- Between the saddles, the gradients that the velocity sums up agree in direction: its norm is what it would be if all
  pointed the same way, and momentum works like an lr ten times as large. At a saddle this coherence falls to a tenth,
  as the path overshoots and turns, and comes back before the path leaves. Gradient descent does not overshoot, and its
  gradients, summed up with the same weights, agree all the time.
- That is also all it does here. Gradient descent with that lr, :math:`lr / (1 - m)`, crosses in 53 steps, and is
  through the chain after 1,412. Momentum pays where another direction forbids such an lr, as in the ravine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SADDLES = np.array([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)])
CURVATURE = math.pi**2
RADIUS = 0.02
START = (1e-4, -0.3)
LR, MOMENTUM = 5e-4, 0.9


class Crossing(NamedTuple):
    enters: int  # the step at which the path comes within the radius
    steps: int  # until it is out again
    predicted: float


class Run(NamedTuple):
    path: Array  # (steps + 1, 2)
    rate: float  # predicted, of the distance from the stable direction
    crossings: list[Crossing]
    coherence: Array  # of the gradients met, weighted as in the velocity: 1 if all point the same way


def staircase(x: Any, y: Any) -> Any:
    waves = np.cos(np.pi * x) * np.cos(np.pi * y) + 1e-4 * np.sin(np.pi * x) * np.sin(np.pi * y)
    slope = (np.sin(2 * np.pi * x) + np.sin(2 * np.pi * y)) / (2 * np.pi) - x - y
    return slope + (np.cos(2 * np.pi * x) - np.cos(2 * np.pi * y)) * waves / 4


def gradient(x: float, y: float) -> tuple[float, float]:
    sx, cx, sy, cy = (
        math.sin(math.pi * x),
        math.cos(math.pi * x),
        math.sin(math.pi * y),
        math.cos(math.pi * y),
    )
    waves, difference = cx * cy + 1e-4 * sx * sy, 2 * (sy**2 - sx**2)
    return (
        math.pi * (difference * (1e-4 * cx * sy - sx * cy) / 4 - sx * cx * waves) - 2 * sx**2,
        math.pi * (difference * (1e-4 * sx * cy - cx * sy) / 4 + sy * cy * waves) - 2 * sy**2,
    )


def run(lr: float, momentum: float) -> Run:
    p, g = np.array(START), np.empty(2)
    state = fm.init(p, lr=lr, momentum=momentum)
    path, coherence, total, norms = [START], [], np.zeros(2), 0.0
    while p.sum() < SADDLES[-1].sum() + 0.6:
        g[:] = gradient(*p.tolist())
        fm.step(p, g, state)
        path.append((p[0], p[1]))
        total, norms = MOMENTUM * total + g, MOMENTUM * norms + math.hypot(*g)
        coherence.append(math.hypot(*total) / norms)
    rate = theory.rate(-CURVATURE, lr=lr, momentum=momentum)
    points = np.array(path)
    crossings = [crossing(points, k, rate) for k in range(len(SADDLES))]
    return Run(points, rate, crossings, np.array(coherence))


def crossing(path: Array, k: int, rate: float) -> Crossing:
    """The path leaves the saddles by turns along x and along y."""
    away = abs(path - SADDLES[k])
    within = np.flatnonzero(away.max(axis=1) < RADIUS)
    enters, leaves = int(within[0]), int(within[-1]) + 1
    return Crossing(enters, leaves - enters, math.log(RADIUS / away[enters, k % 2]) / math.log(rate))


def experiment() -> dict[str, Run]:
    return {
        f"gradient descent, lr {LR}": run(LR, 0.0),
        f"heavy ball, lr {LR}": run(LR, MOMENTUM),
        f"gradient descent, lr {LR * 10}": run(LR / (1 - MOMENTUM), 0.0),
    }


def draw(found: dict[str, Run]) -> Figure:
    figure, (top, middle, bottom) = plt.subplots(
        3, 1, figsize=(plot.WIDTH, 11), layout="constrained", height_ratios=[1.5, 1, 1]
    )
    plain, heavy, _ = found.values()
    paths = dict(zip(list(found)[:2], (plain.path[::50], heavy.path[::50]), strict=True))
    levels = list(np.arange(-7, 2, 0.5))
    plot.trajectories(top, staircase, paths, levels=levels, xlabel="$x$", ylabel="$y$")
    top.plot(*SADDLES.T, "x", color="black", markersize=9, label="saddle points")
    heights = {name: (np.arange(1, len(run.path)), staircase(*run.path[1:].T)) for name, run in found.items()}
    plot.loss_curves(middle, heights, ylabel="$f$", log=False)
    middle.set_xscale("log")
    middle.set_xlim(100, 20_000)
    coherence = {"heavy ball": heavy.coherence, "gradient descent": plain.coherence[: len(heavy.coherence)]}
    plot.loss_curves(bottom, coherence, ylabel="coherence of the gradients", log=False)
    for one in heavy.crossings:
        bottom.axvspan(one.enters, one.enters + one.predicted, color="0.85", zorder=0)
    bottom.set_title("grey: the heavy ball at a saddle, as predicted", fontsize="small")
    bottom.set_ylim(0, 1.1)
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for name, run in found.items():
        crossings = ", ".join(f"{one.steps} ({one.predicted:.0f})" for one in run.crossings)
        print(f"{name}: {len(run.path) - 1:,} steps; crossings, measured (predicted): {crossings}")
    heavy = list(found.values())[1]
    share = (heavy.coherence > 0.99).mean()
    print(
        f"coherence of the gradients: above 0.99 in {share:.0%} of the steps, {heavy.coherence.min():.2f} at least"
    )
    draw(found).savefig("saddle_chain.png", dpi=150)
    print("Picture: saddle_chain.png")


if __name__ == "__main__":
    main()
