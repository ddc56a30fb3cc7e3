r"""
A map of the rate
=================

How fast does the heavy ball converge, for every lr and momentum? On a quadratic with curvatures from
:math:`l_{min}` to :math:`l_{max}` each eigendirection evolves by itself, and after a while the error shrinks by one
factor per step, the rate: the larger spectral radius of the two iteration matrices. Its least value,
:math:`(\sqrt{\kappa} - 1)/(\sqrt{\kappa} + 1)` with :math:`\kappa = l_{max}/l_{min}`, is reached at one point,

.. math::

   lr = \left(\frac{2}{\sqrt{l_{min}} + \sqrt{l_{max}}}\right)^2, \qquad
   m = \left(\frac{\sqrt{\kappa} - 1}{\sqrt{\kappa} + 1}\right)^2.

Here, :math:`\kappa = 10`. Above, `step` was run for every point, and the rate measured as the slope of the
logarithm of the norm of parameters and velocity together; a ratio of successive errors would be useless where they
oscillate. Below is the prediction, with the regime of the slower direction: overdamped where the flat direction
creeps, underdamped where both oscillate (the rate is then :math:`\sqrt{m}`, whatever the lr), alternating where the
steep direction changes sides with each step, divergent beyond :math:`lr = 2(1 + m)/l_{max}`.

What is found: the maps agree within 0.011; they differ most where two roots nearly meet, since 300 steps
are few there. The optimum is a corner in which the regimes meet. It lies close to the
edge of stability, and towards it the rate rises steeply: on quadratics it is safer to take too small an lr with too large
a momentum. On other functions more momentum can do harm.

G. Goh, Why momentum really works, Distill, 2017, shows such a map for one direction.
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

CURVATURE = np.array([0.1, 1.0])
LR, MOMENTUM = np.linspace(0.02, 4.1, 103), np.linspace(0.0, 0.98, 99)
STEPS = 300  # the first half is left out of the slope


class Found(NamedTuple):
    measured: Array  # (momentum, lr)
    predicted: Array
    regimes: NDArray[np.str_]
    optimum: theory.Tuning


def measure(lr: Array, momentum: Array) -> Array:
    """Return the rate for each pair of an lr and a momentum: all are stepped together, as arrays of one state."""
    points = np.ones((len(lr), len(CURVATURE)))
    grads = np.empty_like(points)
    params, gradients = list(points), list(grads)  # rows, which share the memory
    state = fm.init(params, lr=lr.tolist(), momentum=momentum.tolist())
    norms = np.empty((STEPS, len(lr)))
    for t in range(STEPS):
        np.multiply(points, CURVATURE, out=grads)
        fm.step(params, gradients, state)
        norms[t] = np.hypot(np.linalg.norm(points, axis=1), np.linalg.norm(state.velocity, axis=1))
    slope = np.polyfit(np.arange(STEPS // 2), np.log(norms[STEPS // 2 :]), 1)[0]
    return np.asarray(np.exp(slope))


def experiment() -> Found:
    lr, momentum = np.meshgrid(LR, MOMENTUM)
    measured = measure(lr.ravel(), momentum.ravel()).reshape(lr.shape)
    rates = theory.rate(CURVATURE[:, None, None], lr=lr, momentum=momentum)
    flat, steep = theory.regime(CURVATURE[:, None, None], lr=lr, momentum=momentum)
    regimes = np.where(rates[0] > rates[1], flat, steep)
    return Found(measured, rates.max(axis=0), regimes, theory.optimal(*CURVATURE))


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(plot.WIDTH, 8), layout="constrained")
    best = found.optimum.lr, found.optimum.momentum
    plot.rate_map(top, LR, MOMENTUM, found.measured, optimum=best, title="measured")
    title = "predicted, and the regimes"
    plot.rate_map(
        bottom,
        LR,
        MOMENTUM,
        found.predicted,
        regimes=found.regimes,
        optimum=best,
        colorbar=False,
        title=title,
    )
    return figure


def main() -> None:
    found = experiment()
    row, column = np.unravel_index(np.argmin(found.measured), found.measured.shape)
    off = abs(found.measured - found.predicted).max()
    print(
        f"{found.measured.size} pairs of lr and momentum: measured and predicted rates differ by {off:.4f} at most"
    )
    print(
        f"best measured: rate {found.measured[row, column]:.3f} at lr {LR[column]:.2f}, momentum {MOMENTUM[row]:.2f}; "
        f"best predicted: rate {found.optimum.rate:.3f} at lr {found.optimum.lr:.3f}, "
        f"momentum {found.optimum.momentum:.3f}"
    )
    stable = (found.measured < 1).mean()
    print(f"measured to converge: {stable:.1%} of the map; predicted: {(found.predicted < 1).mean():.1%}")
    draw(found).savefig("rate_map.png", dpi=150)
    print("Picture: rate_map.png")


if __name__ == "__main__":
    main()
