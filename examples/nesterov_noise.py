r"""
Nesterov's method and the noise of the first gradient
=====================================================

On a quadratic with curvature :math:`\lambda`, let noise :math:`\varepsilon` disturb the first gradient alone.
How far does it move the second iterate? With momentum :math:`b` and :math:`s = \text{lr}\,\lambda`, the
weights of :math:`-\text{lr}\,\varepsilon` are

==================================================  ====================================
heavy ball                                          :math:`1 + b - s`
Nesterov, original form (``fm.lookahead``)          :math:`(1 + b)(1 - s)`
Nesterov, ``nesterov=True``                         :math:`1 + b + b^2 - s (1 + b)^2`
==================================================  ====================================

so that the original form passes on less of it than the heavy ball for lr below

.. math:: a_{\text{crit}} = \frac{2 (1 + b)}{\lambda (2 + b)}.

The weights are measured as the difference of two runs, with and without the disturbance, and agree to
rounding; the lr at which the two are equal is the threshold. It lies below the lr at which Nesterov's method
stops converging, :math:`2(1 + b)/(\lambda(1 + 2b))`: 1.31 against 1.36, times :math:`1/\lambda`, for the
momentum 0.9. For ``nesterov=True``, whose parameters are the points of the look-ahead, the threshold does not
hold: they pass on *more* below :math:`s = b/(2 + b)`, less between there and 1, and more again above. Small
steps are the first case.

The look-ahead has to be where the velocity carries the parameters, :math:`\theta - \text{lr}\,b\,v`. One also
reads :math:`\theta - b\,v`, with a :math:`v` that is free of lr. The determinant of its iteration is
:math:`b(1 - \lambda)`, without lr: it diverges for every :math:`\lambda > 1 + 1/b`, however small lr is. In
the second picture it is measured; with lr = 0.1 it diverges from 2 on already.
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

MOMENTUM = 0.9
CURVATURE = 2.0
LR = np.linspace(0.01, 1.0, 100) / CURVATURE * 1.5
METHODS = ["heavy ball", "Nesterov, original form", "Nesterov, nesterov=True"]

WRONG_LR = [1e-1, 1e-3, 1e-5]
CURVATURES = np.linspace(1.5, 2.5, 51)
STEPS = 400


class Found(NamedTuple):
    weights: dict[str, Array]  # of the first gradient's noise in the second iterate, for each of LR
    crossing: float  # the lr at which those of heavy ball and of Nesterov's original form are equal
    threshold: float  # the same, predicted
    growth: dict[float, Array]  # per step with the wrong look-ahead: WRONG_LR by CURVATURES
    growth_right: Array  # with the right one and the largest of WRONG_LR


def second_iterate(method: str, noise: float) -> Array:
    """Of as many runs from 1 as LR has entries."""
    x = [np.ones(1) for _ in LR]
    state = fm.init(x, lr=LR.tolist(), momentum=MOMENTUM, nesterov=method == METHODS[2])
    for disturbance in (noise, 0.0):
        points = fm.lookahead(x, state) if method == "Nesterov, original form" else x
        fm.step(x, [CURVATURE * point + disturbance for point in points], state)
    return np.concatenate(x)


def growth(lr: float, reach: float) -> Array:
    """The factor per step, by curvature, in the second half of a run that looks ahead to x - reach * v."""
    x = np.ones_like(CURVATURES)
    state = fm.init(x, lr=lr, momentum=MOMENTUM)
    sizes = []
    for _ in range(STEPS):
        fm.step(x, CURVATURES * (x - reach * state.velocity), state)
        sizes.append(np.hypot(x, state.velocity))
    half = STEPS // 2
    return np.asarray((sizes[-1] / sizes[-1 - half]) ** (1 / half))


def experiment() -> Found:
    weights = {method: (second_iterate(method, 0) - second_iterate(method, 1)) / LR for method in METHODS}
    excess = np.abs(weights["Nesterov, original form"]) - np.abs(weights["heavy ball"])
    k = int(np.flatnonzero(excess < 0)[-1])
    return Found(
        weights=weights,
        crossing=float(np.interp(0, excess[k : k + 2], LR[k : k + 2])),
        threshold=float(theory.nesterov_threshold(CURVATURE, MOMENTUM)),
        growth={lr: growth(lr, MOMENTUM) for lr in WRONG_LR},
        growth_right=growth(WRONG_LR[0], WRONG_LR[0] * MOMENTUM),
    )


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(plot.WIDTH, 8), layout="constrained")
    curves = {method: (LR * CURVATURE, np.abs(weight)) for method, weight in found.weights.items()}
    plot.loss_curves(
        top, curves, xlabel=r"$\mathrm{lr}\,\lambda$", ylabel="weight of the first noise", log=False
    )
    limit = theory.stability_limit(CURVATURE, momentum=MOMENTUM, nesterov=True)
    for lr, name, side, height in [
        (found.threshold, "threshold ", "right", 0.2),
        (limit, " Nesterov diverges", "left", 1.6),
    ]:
        top.axvline(lr * CURVATURE, color="0.4", linewidth=1)
        top.text(lr * CURVATURE, height, name, rotation=90, va="center", ha=side, fontsize="small")

    wrong = {rf"to $\theta - b v$, lr {lr:g}": (CURVATURES, rate) for lr, rate in found.growth.items()}
    good = {rf"to $\theta - \mathrm{{lr}}\,b v$, lr {WRONG_LR[0]:g}": (CURVATURES, found.growth_right)}
    plot.loss_curves(bottom, wrong | good, xlabel=r"curvature $\lambda$", ylabel="factor per step", log=False)
    bottom.axhline(1, color="0.4", linewidth=1)
    bottom.axvline(1 + 1 / MOMENTUM, color="0.4", linewidth=1)
    bottom.text(1 + 1 / MOMENTUM, 0.8, " $1 + 1/b$", va="center")
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print(f"weight of the first gradient's noise in the second iterate (momentum {MOMENTUM}):")
    for k in range(12, len(LR), 29):
        weights = ", ".join(f"{method} {abs(weight[k]):.3f}" for method, weight in found.weights.items())
        print(f"lr times curvature {LR[k] * CURVATURE:.3f}: {weights}")
    print(f"equal at lr = {found.crossing:.6f}, predicted {found.threshold:.6f}")
    print(
        f"wrong look-ahead, factor per step at curvature {CURVATURES[40]:g}, "
        f"above 1 + 1/b = {1 + 1 / MOMENTUM:.3f}:"
    )
    print(", ".join(f"lr = {lr:g}: {rate[40]:.3f}" for lr, rate in found.growth.items()))
    draw(found).savefig("nesterov_noise.png", dpi=150)
    print("Picture: nesterov_noise.png")


if __name__ == "__main__":
    main()
