r"""
Convex, but not strongly
========================

With a smallest curvature above 0, errors shrink by a factor in each step. Without one, loss falls as a power of the
number of steps k. For all convex losses with curvatures up to L, and a start at a distance R from a minimum, gradient
descent with :math:`lr = 1/L` has

.. math:: f(x_k) - f^* \le \frac{L R^2}{2 k}

and Nesterov's method with the momentum :math:`(k - 1)/(k + 2)`, which grows towards 1,

.. math:: f(x_k) - f^* \le \frac{2 L R^2}{(k + 1)^2}.

The loss here has 161 curvatures from :math:`10^{-8}` to 1, evenly spaced on a logarithmic scale, and a start at
distance 1 in each direction: until step :math:`10^8` nothing tells it from a loss without strong convexity.

What is found:

- **Powers.** From step 100 to 10,000 the loss of gradient descent falls as :math:`k^{-1.00}`, and Nesterov's as
  :math:`k^{-2.05}`; both stay below their bounds.
- **Restart.** Where there is a smallest curvature, a thousandth of the largest here, the growing momentum becomes too
  large, and the loss falls in waves. Setting k back to 1 whenever the gradient points along the last displacement
  [O'Donoghue and Candes] brings back the factor per step: a loss of :math:`10^{-19}` after 1000 steps, against
  :math:`2 \cdot 10^{-8}`. It knows neither curvature. The constant momentum of who knows both is faster still.
- **A cycle of the heavy ball.** Its best constants for quadratics with curvatures from 1 to 25 are lr 1/9 and momentum
  4/9. On a function of one variable with those curvatures, 25 below 1 and above 2 and 1 between, it runs into three
  points for ever, from 3.3 on [Lessard, Recht and Packard]. Gradient descent with its own best lr, 2/26, and Nesterov's
  method with lr 1/25 and momentum 2/3 converge, as they do for all functions with such curvatures.

Y. Nesterov, A method of solving a convex programming problem with convergence rate O(1/k^2), 1983; the constants of the
bound and of :math:`(k-1)/(k+2)` are those of W. Su, S. Boyd, E. Candes, A differential equation for modeling Nesterov's
accelerated gradient method, 2016. B. O'Donoghue, E. Candes, Adaptive restart for accelerated gradient schemes, 2015.
L. Lessard, B. Recht, A. Packard, Analysis and design of optimization algorithms via integral quadratic constraints, 2016,
section 4.6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SMALLEST, DIRECTIONS, STEPS = 1e-8, 161, 10_000
KAPPA, STEPS_STRONG = 1e3, 1000
CURVATURES = (1.0, 25.0)
START = 3.3


class Found(NamedTuple):
    convex: dict[str, Array]  # losses
    bounds: dict[str, Array]
    strong: dict[str, Array]
    restarts: list[int]
    cycle: dict[str, Array]  # points


def losses(
    curvature: Array, steps: int, momentum: Callable[[int], float], restart: bool = False
) -> tuple[Array, list[int]]:
    """Of a start at distance 1 in each direction, with lr one by the largest curvature."""
    lr = 1 / curvature.max()
    x = y = np.ones_like(curvature)
    found, restarts, k = [curvature @ x**2 / 2], list[int](), 0
    for step in range(1, steps + 1):
        k += 1
        gradient = curvature * y
        new = y - lr * gradient
        if restart and gradient @ (new - x) > 0:
            k = 1
            restarts.append(step)
        x, y = new, new + momentum(k) * (new - x)
        found.append(curvature @ x**2 / 2)
    return np.array(found), restarts


def growing(k: int) -> float:
    return (k - 1) / (k + 2)


def slope(x: float) -> float:
    low, high = CURVATURES
    if x < 1:
        return high * x
    return low * x + 24 if x < 2 else high * x - 24


def path(start: float, steps: int, **options: Any) -> Array:
    p = np.array([start])
    state = fm.init(p, **options)
    points = [start]
    for _ in range(steps):
        fm.step(p, np.array([slope(p.item())]), state)
        points.append(p.item())
    return np.array(points)


def experiment() -> Found:
    flat = np.geomspace(SMALLEST, 1, DIRECTIONS)
    convex = {
        "gradient descent": losses(flat, STEPS, lambda _: 0.0)[0],
        "Nesterov, (k - 1)/(k + 2)": losses(flat, STEPS, growing)[0],
    }
    k = np.arange(1, STEPS + 1)
    bounds = {"L R^2 / (2 k)": DIRECTIONS / (2 * k), "2 L R^2 / (k + 1)^2": 2 * DIRECTIONS / (k + 1) ** 2}
    curvature = np.geomspace(1 / KAPPA, 1, 41)
    known = theory.optimal(1 / KAPPA, 1.0, method="nesterov").momentum
    restarted, restarts = losses(curvature, STEPS_STRONG, growing, restart=True)
    strong = {
        "gradient descent": losses(curvature, STEPS_STRONG, lambda _: 0.0)[0],
        "Nesterov, (k - 1)/(k + 2)": losses(curvature, STEPS_STRONG, growing)[0],
        "Nesterov, with restarts": restarted,
        f"Nesterov, momentum {known:.3f}": losses(curvature, STEPS_STRONG, lambda _: known)[0],
    }
    methods = {"gradient descent": "gradient_descent", "heavy ball": "heavy_ball", "Nesterov": "nesterov"}
    cycle = {}
    for name, method in methods.items():
        best = theory.optimal(*CURVATURES, method=method)
        cycle[name] = path(START, 300, lr=best.lr, momentum=best.momentum, nesterov=best.nesterov)
    return Found(convex, bounds, strong, restarts, cycle)


def draw(found: Found) -> Figure:
    figure, (left, middle, right) = plt.subplots(3, 1, figsize=(plot.WIDTH, 11), layout="constrained")
    k = np.arange(1, STEPS + 1)
    plot.loss_curves(
        left, {name: (k, loss[1:]) for name, loss in found.convex.items()}, title="curvatures down to 1e-8"
    )
    for (name, bound), style in zip(
        found.bounds.items(), (plot.METHODS["gradient descent"], plot.METHODS["Nesterov"]), strict=True
    ):
        left.plot(k, bound, color=style["color"], linewidth=0.8, label=f"bound, {name}")
    left.set(xscale="log")
    plot.loss_curves(middle, found.strong, title="curvatures down to 1e-3")
    plot.loss_curves(right, {name: points[:31] for name, points in found.cycle.items()}, ylabel="x", log=False,
                     title="one variable, curvatures 1 and 25")  # fmt: skip
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for name, loss in found.convex.items():
        k = np.arange(100, STEPS + 1)
        power = np.polyfit(np.log(k), np.log(loss[k]), 1)[0]
        print(
            f"{name:25} falls as k^{power:.2f}; loss {loss[100]:.2g} at step 100, {loss[STEPS]:.2g} at {STEPS:,}"
        )
    for name, loss in found.strong.items():
        print(f"kappa 1000: {name:28} loss {loss[-1]:.1g} at step {STEPS_STRONG}")
    print("restarts at", ", ".join(map(str, found.restarts)))
    for name, points in found.cycle.items():
        print(f"curvatures 1 and 25: {name:17}", ", ".join(f"{point:.3f}" for point in points[-6:]))
    draw(found).savefig("convex_rates.png", dpi=150)
    print("Picture: convex_rates.png")


if __name__ == "__main__":
    main()
