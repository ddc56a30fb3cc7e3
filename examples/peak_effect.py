r"""
The peak before the rate
========================

A rate is what remains of the error per step *in the long run*. The matrix of a momentum step is not normal, so the error
may grow at first. At the heavy ball's best lr and momentum for the condition number :math:`\kappa` both roots of the
steepest direction are :math:`-r`, with :math:`r = (\sqrt\kappa - 1)/(\sqrt\kappa + 1)`, and from a fresh state

.. math:: |p_n| = r^n\,\bigl(1 + n (1 + r)\bigr)\,|p_0|.

Its largest value is close to :math:`\sqrt\kappa/e = 0.368\sqrt\kappa` times the start, after :math:`\sqrt\kappa/2` steps.

What is found, as predicted:

- In the steepest direction the error grows to 3.7 times its start at :math:`\kappa = 100`, and to 36.8 times at
  :math:`10^4`.
- With fifty directions from 1 to :math:`10^4`, all as far from the minimum, the distance grows to 5.2 times the start, and
  is below it from step 202 on. The loss, to which the steepest directions give most, grows to 232 times its start.
- Gradient descent at its best lr has no such peak: each direction shrinks in each step. Nor have, in this example,
  Nesterov's method at its best constants for quadratics, and the heavy ball with half of its best lr. In the long run both
  are slower; up to step 400 both are ahead.

M. Danilova, A. Kulakova, B. Polyak, Non-monotone behavior of the heavy ball method, 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KAPPAS = [100.0, 10_000.0]
CURVATURES = np.geomspace(1.0, KAPPAS[-1], 50)
METHODS = {
    "gradient descent": "gradient_descent",
    "heavy ball": "heavy_ball",
    "Nesterov": "nesterov_quadratic",
}
HALF = "heavy ball, lr halved"
STEPS = 400


class Found(NamedTuple):
    steepest: dict[float, Array]  # by kappa, the distance in the steepest direction
    predicted: dict[float, Array]
    distances: dict[str, Array]  # of all directions, relative to the start
    losses: dict[str, Array]


def path(curvature: Array, tuning: theory.Tuning, share: float = 1.0) -> Array:
    """From 1 in each direction, a row for each step, with this share of the lr."""
    p = np.ones_like(curvature)
    state = fm.init(p, lr=share * tuning.lr, momentum=tuning.momentum, nesterov=tuning.nesterov)
    rows = [p.copy()]
    for _ in range(STEPS):
        fm.step(p, curvature * p, state)
        rows.append(p.copy())
    return np.array(rows)


def peak(kappa: float) -> Array:
    """The distance in the steepest direction."""
    r, n = theory.optimal(1.0, kappa).rate, np.arange(STEPS + 1)
    return np.asarray(r**n * (1 + n * (1 + r)))


def experiment() -> Found:
    steepest = {kappa: abs(path(np.array([kappa]), theory.optimal(1.0, kappa)))[:, 0] for kappa in KAPPAS}
    tunings = {name: theory.optimal(1.0, KAPPAS[-1], method=method) for name, method in METHODS.items()}
    paths = {name: path(CURVATURES, tuning) for name, tuning in tunings.items()}
    paths[HALF] = path(CURVATURES, tunings["heavy ball"], 0.5)
    return Found(
        steepest=steepest,
        predicted={kappa: peak(kappa) for kappa in KAPPAS},
        distances={name: np.sqrt(np.mean(rows**2, axis=1)) for name, rows in paths.items()},
        losses={name: rows**2 @ CURVATURES / CURVATURES.sum() for name, rows in paths.items()},
    )


def draw(found: Found) -> Figure:
    figure, (one, distance, loss) = plt.subplots(3, 1, figsize=(plot.WIDTH, 10), layout="constrained")
    shown = slice(0, 201)
    curves = {rf"heavy ball, $\kappa$ = {kappa:,.0f}": path[shown] for kappa, path in found.steepest.items()}
    plot.loss_curves(one, curves, ylabel="distance / start", title="the steepest direction")
    for kappa in KAPPAS:
        rate = theory.optimal(1.0, kappa).rate
        one.plot(rate ** np.arange(201), color="0.5", linewidth=1, label=f"${rate:.3f}^n$")
    one.set_ylim(1e-4, 100)
    title = r"50 directions, $\kappa$ = 10,000"
    plot.loss_curves(distance, found.distances, ylabel="distance / start", title=title)
    plot.loss_curves(loss, found.losses, ylabel="loss / start", title=title)
    for axes in figure.axes:
        axes.axhline(1, color="0.4", linewidth=1)
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for kappa, steepest in found.steepest.items():
        n = int(steepest.argmax())
        print(
            f"steepest direction, kappa {kappa:,.0f}: up to {steepest[n]:.2f} times the start, at step {n}; "
            f"0.368 sqrt(kappa) = {np.sqrt(kappa) / np.e:.2f}"
        )
    for name, distances in found.distances.items():
        late = np.flatnonzero(np.append(1.0, distances[1:]) >= 1)[-1] + 1
        print(
            f"{name}: distance up to {distances.max():.2f}, below the start from step {late} on; "
            f"loss up to {found.losses[name].max():.0f}"
        )
    draw(found).savefig("peak_effect.png", dpi=150)
    print("Picture: peak_effect.png")


if __name__ == "__main__":
    main()
