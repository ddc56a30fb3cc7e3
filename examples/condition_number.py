r"""
The price of a condition number
===============================

On a quadratic whose curvatures lie between :math:`l_{min}` and :math:`l_{max}`, the condition number
:math:`\kappa = l_{max}/l_{min}` decides how many steps are needed. With the best lr and momentum of each method, the
factors per step to which the error shrinks in the long run are

.. math::

   \frac{\kappa - 1}{\kappa + 1} \text{ for gradient descent}, \quad
   \frac{\sqrt{\kappa} - 1}{\sqrt{\kappa} + 1} \text{ for the heavy ball}, \quad
   1 - \frac{2}{\sqrt{3 \kappa + 1}} \text{ for Nesterov's method}.

For large kappa, gradient descent needs a number of steps that grows with kappa, momentum one that grows with its square
root. At kappa 100 the rates are 0.980 and 0.818.

Fifty directions have curvatures spread evenly on a logarithmic scale, and the steps are counted until the distance from
the minimum is a millionth of what it was.

What is found: gradient descent takes 10 to 12 % fewer steps than :math:`\log 10^{-6} / \log rate`, from kappa 10 on,
because only two of the fifty directions are the slow ones. The heavy ball takes up to 41 % more, Nesterov's method 6 %:
the best tuning puts a double root into the slowest direction, and the error is then the rate to the power of n times a
number that grows with n. The closed form of the path has that factor, and foretells every count exactly. At kappa
10,000 the heavy ball is 63 times as fast as gradient descent; at kappa 1, where one step is enough for all, there is
nothing to gain.
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

KAPPAS = np.array([1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0])
METHODS = {
    "gradient descent": "gradient_descent",
    "heavy ball": "heavy_ball",
    "Nesterov": "nesterov_quadratic",
}
ACCURACY = 1e-6
DIRECTIONS = 50
MOST_STEPS = 100_000  # more than any needs; an lr that is too large would go on for ever


class Count(NamedTuple):
    rate: float  # predicted
    measured: int  # steps to the accuracy
    by_rate: float  # log(accuracy) / log(rate)
    exact: tuple[float, float]  # the closed form's distance after `measured` - 1 and `measured` steps
    distances: Array  # measured, relative to the start


class Found(NamedTuple):
    counts: dict[str, list[Count]]  # for each of KAPPAS


def count(kappa: float, method: str) -> Count:
    curvature = np.geomspace(1.0, kappa, DIRECTIONS)
    tuning = theory.optimal(1.0, kappa, method=method)
    chosen: dict[str, Any] = {
        "lr": tuning.lr,
        "momentum": tuning.momentum,
        "nesterov": tuning.nesterov and kappa > 1,
    }
    p = np.full(DIRECTIONS, DIRECTIONS**-0.5)
    state = fm.init(p, **chosen)
    distances = [1.0]
    while distances[-1] > ACCURACY and len(distances) <= MOST_STEPS:
        fm.step(p, curvature * p, state)
        distances.append(float(np.linalg.norm(p)))
    n = len(distances) - 1
    ends = [theory.trajectory(curvature, steps, start=DIRECTIONS**-0.5, **chosen)[0] for steps in (n - 1, n)]
    exact = float(np.linalg.norm(ends[0])), float(np.linalg.norm(ends[1]))
    by_rate = np.log(ACCURACY) / np.log(tuning.rate) if tuning.rate > 0 else 1.0
    return Count(tuning.rate, n, float(by_rate), exact, np.array(distances))


def experiment() -> Found:
    return Found({name: [count(kappa, method) for kappa in KAPPAS] for name, method in METHODS.items()})


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(plot.WIDTH, 7.5), layout="constrained")
    at_100 = list(KAPPAS).index(100)
    curves = {
        f"{name}, rate {counts[at_100].rate:.3f}": counts[at_100].distances[:301]
        for name, counts in found.counts.items()
    }
    plot.loss_curves(top, curves, ylabel="distance from the minimum", title=r"$\kappa = 100$")
    steps = {name: (KAPPAS, [count.measured for count in counts]) for name, counts in found.counts.items()}
    title = "markers counted, thin lines log(accuracy) / log(rate)"
    plot.loss_curves(bottom, steps, xlabel=r"$\kappa$", ylabel=f"steps to {ACCURACY:g} of the distance")
    bottom.set_title(title, fontsize="small")
    for (name, counts), line in zip(found.counts.items(), list(bottom.lines), strict=True):
        line.set_markevery(1)  # these points were counted
        colour = plot.METHODS[name]["color"]
        bottom.plot(KAPPAS, [count.by_rate for count in counts], color=colour, linewidth=0.8)
    bottom.set_xscale("log")
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print(f"steps to {ACCURACY:g} of the distance, measured (foretold by the rate alone):")
    print("   kappa" + "".join(f"{name:>26}" for name in found.counts))
    for kappa, *row in zip(KAPPAS, *found.counts.values(), strict=True):
        print(f"{kappa:8,.0f}" + "".join(f"{count.measured:16,} ({count.by_rate:7,.0f})" for count in row))
    at_100 = list(KAPPAS).index(100)
    print(
        "rates at kappa 100:", ", ".join(f"{name} {c[at_100].rate:.3f}" for name, c in found.counts.items())
    )
    draw(found).savefig("condition_number.png", dpi=150)
    print("Picture: condition_number.png")


if __name__ == "__main__":
    main()
