r"""
A worked example, and formulas that fail it
===========================================

Minimise :math:`J(\theta) = \theta^2` from :math:`\theta_0 = 5` with lr 0.1 and momentum :math:`m = 0.9`, the lr inside
the velocity (``form="lr_inside"``):

.. math:: v_{t+1} = m v_t + lr \, g_t, \qquad \theta_{t+1} = \theta_t - v_{t+1}, \qquad g_t = 2 \theta_t.

By hand, the velocity is 1, 1.7, 1.99 and theta 4, 2.3, 0.31. Since :math:`v_t = \theta_{t-1} - \theta_t`, the velocity
can be eliminated. There are three right ways to write what is left, which agree with `step`:

.. math::

   \theta_{t+1} &= \theta_t + m (\theta_t - \theta_{t-1}) - lr \, g_t \\
   \theta_{t+1} &= \theta_t - lr \sum_{j=0}^t m^{t-j} g_j \\
   \theta_{t+1} &= \theta_0 - lr \sum_{j=0}^t \frac{1 - m^{t-j+1}}{1 - m} g_j

Two wrong ways are met in print or nearly so, and three steps are enough to refute them:

- with the sign of the difference turned round, :math:`\theta_t - m (\theta_t - \theta_{t-1}) - lr \, g_t`, momentum
  works against the motion: the second step leads back up, from 4 to 4.1;
- the second sum subtracted from :math:`\theta_0` instead of :math:`\theta_t` counts the last displacement alone and
  forgets the others. In the third formula an early gradient weighs the most, because it has been in every velocity
  since; in the second it weighs the least.

On six random gradients, from 1, the right ways agree as well, and the wrong ones do not.

The example does not show that momentum helps. With one curvature there is no ravine, and lr 0.1 forbids nothing: gradient
descent keeps 0.8 of the error per step and is within 0.05 for good after 21 steps; momentum 0.9 keeps 0.949 in the long
run, swings to -3.54, and needs 84. The best momentum for this lr is the critical one, 0.306, with a rate of 0.553: 11 steps.
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
    Gradient = Callable[[int, float], float]  # of the step and theta
    Formula = Callable[[list[float], list[float]], float]  # of all theta and all gradients so far

LR, MOMENTUM = 0.1, 0.9
STEPS, LONG = 30, 100
NEAR = 0.05
BEST = float(theory.critical_momentum(2.0, lr=LR))  # for this lr


class Found(NamedTuple):
    theta: Array  # by `step`, (STEPS + 1,)
    velocity: Array
    right: dict[str, Array]
    wrong: dict[str, Array]
    methods: dict[str, Array]  # theta, of gradient descent and the heavy ball
    random: dict[str, float]  # theta after six random gradients, "step" and every formula


def difference(sign: int) -> Formula:
    def formula(theta: list[float], grads: list[float]) -> float:
        before = theta[-2] if len(theta) > 1 else theta[-1]
        return theta[-1] + sign * MOMENTUM * (theta[-1] - before) - LR * grads[-1]

    return formula


def last_velocity(grads: list[float]) -> float:
    weights = theory.velocity_weights(len(grads), lr=LR, momentum=MOMENTUM, form="lr_inside")
    return float(weights @ grads)


def whole_displacement(grads: list[float]) -> float:
    weights = theory.displacement_weights(len(grads), lr=LR, momentum=MOMENTUM, form="lr_inside")
    return float(weights @ grads)


RIGHT: dict[str, Formula] = {
    "from the last difference": difference(+1),
    "theta_t - last velocity": lambda theta, grads: theta[-1] - last_velocity(grads),
    "theta_0 - all displacements": lambda theta, grads: theta[0] - whole_displacement(grads),
}
WRONG: dict[str, Formula] = {
    "difference with the wrong sign": difference(-1),
    "theta_0 - last velocity": lambda theta, grads: theta[0] - last_velocity(grads),
}


def by_formula(formula: Formula, start: float, gradient: Gradient, steps: int) -> Array:
    theta, grads = [start], list[float]()
    for t in range(steps):
        grads.append(gradient(t, theta[-1]))
        theta.append(formula(theta, grads))
    return np.array(theta)


def by_step(start: float, gradient: Gradient, steps: int, momentum: float = MOMENTUM) -> tuple[Array, Array]:
    p = np.array([start])
    state = fm.init(p, lr=LR, momentum=momentum, form="lr_inside")
    theta, velocity = [start], [0.0]
    for t in range(steps):
        fm.step(p, np.array([gradient(t, p[0])]), state)
        theta.append(p[0])
        velocity.append(state.velocity[0])
    return np.array(theta), np.array(velocity)


def slope(_: int, theta: float) -> float:
    return 2 * theta


def experiment() -> Found:
    theta, velocity = by_step(5.0, slope, STEPS)
    right = {name: by_formula(formula, 5.0, slope, STEPS) for name, formula in RIGHT.items()}
    wrong = {name: by_formula(formula, 5.0, slope, STEPS) for name, formula in WRONG.items()}
    drawn = np.random.default_rng(0).normal(size=6)
    ends = {"step": by_step(1.0, lambda t, _: drawn[t], 6)[0][-1]}
    for name, formula in {**RIGHT, **WRONG}.items():
        ends[name] = by_formula(formula, 1.0, lambda t, _: drawn[t], 6)[-1]
    methods = {
        "gradient descent": by_step(5.0, slope, LONG, 0.0)[0],
        f"heavy ball, momentum {MOMENTUM}": by_step(5.0, slope, LONG)[0],
        f"heavy ball, momentum {BEST:.3f}": by_step(5.0, slope, LONG, BEST)[0],
    }
    return Found(theta, velocity, right, wrong, methods, ends)


def draw(found: Found) -> Figure:
    figure, (methods, formulas, right) = plt.subplots(3, 1, figsize=(plot.WIDTH, 10), layout="constrained")
    plot.loss_curves(
        methods, found.methods, ylabel=r"$\theta$", log=False, title=r"$J = \theta^2$ from 5, lr 0.1"
    )
    methods.set_xlim(-2, 60)
    wrong = {name.replace("theta_0", r"$\theta_0$"): theta for name, theta in found.wrong.items()}
    curves = {"heavy ball: step, each right formula": found.theta, **wrong}
    plot.loss_curves(formulas, curves, ylabel=r"$\theta$", log=False, title=f"the same, momentum {MOMENTUM}")
    formulas.plot([1, 2, 3], found.theta[1:4], "o", color=plot.METHODS["heavy ball"]["color"], markersize=5)
    for t in (1, 2, 3):
        formulas.annotate(
            f"{found.theta[t]:.3g}",
            (t, found.theta[t]),
            textcoords="offset points",
            xytext=(-4, -12),
            ha="right",
        )
    chosen: dict[str, Any] = {"lr": LR, "momentum": MOMENTUM, "form": "lr_inside"}
    weights = {
        r"in $\theta_0 - \theta$": theory.displacement_weights(STEPS, **chosen),
        "in the last velocity": theory.velocity_weights(STEPS, **chosen),
    }
    plot.loss_curves(
        right, weights, xlabel="gradient, the oldest first", ylabel=f"weight after {STEPS} steps", log=False
    )
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print("theta:   ", ", ".join(f"{value:.4g}" for value in found.theta[:4]))
    print("velocity:", ", ".join(f"{value:.4g}" for value in found.velocity[:4]))
    for kind, results in (("right", found.right), ("wrong", found.wrong)):
        for name, theta in results.items():
            shown = ", ".join(f"{value:.4g}" for value in theta[:4])
            print(
                f"{kind}: {name:31} {shown}; off by {abs(theta - found.theta).max():.1g} at most in {STEPS} steps"
            )
    print("after six random gradients, from 1:")
    for name, end in found.random.items():
        print(f"  {name:31} {end:.3f}")
    draw(found).savefig("worked_example.png", dpi=150)
    print("Picture: worked_example.png")


if __name__ == "__main__":
    main()
