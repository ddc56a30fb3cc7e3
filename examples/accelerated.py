r"""
Accelerated steps: two powers, restart, no cycle
================================================

`accelerated` has Nesterov's method with a momentum that grows with the number of steps k: :math:`(k - 1)/(k + 2)` as
``sequence="nesterov"``, that of FISTA, which differs little, or a constant.

What is found, on a point of light that a Gaussian blur has spread over a line, starting from black at the distance R = 1:

- **Two powers.** With a blur so wide that curvatures go from 1 down to :math:`10^{-12}`, nothing tells the loss from one
  that is convex and not strongly. From step 100 to 3000 gradient descent, the sequence 0, falls as :math:`k^{-1.06}`, and
  both growing sequences as :math:`k^{-2.06}`, below their bounds :math:`L R^2/(2k)` and :math:`2 L R^2/(k + 1)^2`.
- **Restart.** With a smaller blur, and a smallest curvature of 1/100, the growing momentum becomes too large: it carries the
  image past the minimum, and the loss falls as a power still. ``restart="gradient"`` sets k back to 1 where a step goes
  against the one before, and brings back a factor per step.
- **No cycle.** In one variable with the curvature 25 below 1 and above 2, and 1 between, from 3.3, the heavy ball with its
  best constants for quadratics goes round three points for ever. Nesterov's method with its own, lr 1/25 and the sequence
  2/3, converges, and so does the growing one.

Y. Nesterov, A method of solving a convex programming problem with convergence rate O(1/k^2), 1983; W. Su, S. Boyd, E. Candes,
A differential equation for modeling Nesterov's accelerated gradient method, 2016, has the bound of :math:`(k - 1)/(k + 2)`;
B. O'Donoghue, E. Candes, Adaptive restart for accelerated gradient schemes, 2015; L. Lessard, B. Recht, A. Packard, Analysis
and design of optimization algorithms via integral quadratic constraints, 2016, section 4.6, the cycle.
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

N = 512  # pixels of a line
STEPS, STEPS_STRONG, STEPS_CYCLE = 3000, 500, 300
SMALLEST, SMALLEST_STRONG = 1e-12, 1e-2  # curvatures; the largest is 1
WAYS: dict[str, dict[str, Any]] = {
    "gradient descent": {"sequence": 0.0},
    "Nesterov, (k - 1)/(k + 2)": {"sequence": "nesterov"},
    "Nesterov, as in FISTA": {"sequence": "fista"},
}
RESTARTED = {**WAYS, "Nesterov, with restarts": {"sequence": "nesterov", "restart": "gradient"}}


class Found(NamedTuple):
    convex: dict[str, Array]  # losses
    strong: dict[str, Array]
    bounds: dict[str, Array]  # of the convex losses, from step 1 on
    cycle: dict[str, Array]  # points


def losses(smallest: float, steps: int, **options: Any) -> Array:
    """Half the squared difference of what is seen and a blurred image, from a black one."""
    share = 2 * np.fft.rfftfreq(N)  # of the highest frequency
    factors = smallest ** (share**2 / 2)  # a Gaussian blur
    point = np.zeros(N)
    point[0] = 1

    def filtered(image: Array, factors: Array) -> Array:
        return np.fft.irfft(factors * np.fft.rfft(image), N)

    y = np.zeros(N)
    state = fm.accelerated(y, lr=1.0, **options)
    found = []
    for _ in range(steps):
        found.append((filtered(state.iterate - point, factors) ** 2).sum() / 2)
        fm.step(y, filtered(y - point, factors**2), state)
    return np.array(found)


def slope(x: float) -> float:
    """With the curvatures 25, 1 and 25."""
    if x < 1:
        return 25 * x
    return x + 24 if x < 2 else 25 * x - 24


def path(state: fm.State, p: Array) -> Array:
    points = [p.item()]
    for _ in range(STEPS_CYCLE):
        fm.step(p, np.array([slope(p.item())]), state)
        points.append(p.item())
    return np.array(points)


def experiment() -> Found:
    k = np.arange(1, STEPS)
    bounds = {"gradient descent": 1 / (2 * k), "Nesterov": 2 / (k + 1) ** 2}
    heavy, nesterov = (theory.optimal(1, 25, method=method) for method in ("heavy_ball", "nesterov"))
    cycle = {}
    p = np.array([3.3])
    cycle["heavy ball"] = path(fm.init(p, lr=heavy.lr, momentum=heavy.momentum), p)
    for name, sequence in [("Nesterov, 2/3", nesterov.momentum), ("Nesterov, (k - 1)/(k + 2)", "nesterov")]:
        p = np.array([3.3])
        cycle[name] = path(fm.accelerated(p, lr=nesterov.lr, sequence=sequence), p)
    return Found(
        {name: losses(SMALLEST, STEPS, **options) for name, options in WAYS.items()},
        {name: losses(SMALLEST_STRONG, STEPS_STRONG, **options) for name, options in RESTARTED.items()},
        bounds,
        cycle,
    )


def power(values: Array) -> float:
    """Of the step, from 100 on."""
    k = np.arange(100, len(values))
    return float(np.polyfit(np.log(k), np.log(values[k]), 1)[0])


def draw(found: Found) -> Figure:
    figure, (convex, strong, cycle) = plt.subplots(3, 1, figsize=(plot.WIDTH, 11), layout="constrained")
    k = np.arange(1, STEPS)
    curves = {name: (k, values[1:]) for name, values in found.convex.items()}
    plot.loss_curves(convex, curves, title=f"curvatures down to {SMALLEST:g}")
    convex.set(xscale="log")
    plot.loss_curves(strong, found.strong, title=f"curvatures down to {SMALLEST_STRONG:g}")
    plot.loss_curves(cycle, {name: points[:31] for name, points in found.cycle.items()}, ylabel="x", log=False,
                     title="one variable, curvatures 1 and 25")  # fmt: skip
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for name, values in found.convex.items():
        print(f"curvatures down to {SMALLEST:g}: {name:26} falls as k^{power(values):.2f}")
    for name, values in found.strong.items():
        print(
            f"curvatures down to {SMALLEST_STRONG:g}: {name:26} loss {values[-1]:.1g} at step {STEPS_STRONG - 1}"
        )
    for name, points in found.cycle.items():
        print(f"curvatures 1 and 25: {name:26}", ", ".join(f"{point:.3f}" for point in points[-3:] + 0.0))
    draw(found).savefig("accelerated.png", dpi=150)
    print("Picture: accelerated.png")


if __name__ == "__main__":
    main()
