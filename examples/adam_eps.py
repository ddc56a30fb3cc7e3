r"""
eps between sign descent and momentum
=====================================

eps is a gradient: the size below which Adam no longer makes all steps equally long. In the first step

.. math:: p = p - \text{lr}\,\frac{g}{|g| + \text{eps}}

a gradient far above eps counts by its sign alone, as in sign descent, and one far below it in proportion, as in momentum
with an lr of lr/eps. Above is the step that gradients from 1e-8 to 1e4 make, for four eps.

Below is the loss :math:`p^2/2`, with lr 0.01. Near the minimum the second moment falls, and the lr of the momentum
step that Adam makes, :math:`\text{lr}/(\sqrt{s} + \text{eps})`, grows, until that step diverges. What is found:

- With eps = 0 Adam stays at this edge: p keeps a distance of lr/36 (root mean square) in bursts of up to a quarter of lr.
  Predicted is lr/38, and 38 is the limit of stability for a momentum of 0.9 in the form ``ema``.
- With an eps a tenth below the edge the same begins later, in smaller bursts; with one a tenth above it Adam comes to rest.
- With eps = 1e6 and an lr 1e6 times as large, Adam in the form ``uncorrected`` makes the steps of momentum in the form
  ``ema``, to within 1e-8 of the distance from which they start.

The gradients are disturbed by 1e-9 of lr, without which the iteration would come to rest at a gradient that is exactly 0.

J. M. Cohen et al., Adaptive gradient methods at the edge of stability, 2022.
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

EPS = [1e-8, 1e-4, 1.0, 100.0]
GRADIENTS = np.geomspace(1e-8, 1e4, 61)
LR = 0.01
EDGE = theory.adam_edge(1.0, lr=LR, eps=0.0)
LARGE, AS_MOMENTUM = 1e6, "eps 1e6, lr 1e6 times as large"
START = 10 * LR
STEPS = 12_000
LATE = slice(-4000, None)


class Found(NamedTuple):
    first: dict[float, Array]  # by eps, the length of the first step per lr, for each of GRADIENTS
    distance: dict[str, Array]  # from the minimum, after each of STEPS
    momentum: Array  # the same, with the keywords of adam_as_momentum

    def rms(self, name: str) -> float:
        """In the end, per lr."""
        return float(np.sqrt((self.distance[name][LATE] ** 2).mean())) / LR


def first_step(eps: float) -> Array:
    p = np.zeros_like(GRADIENTS)
    fm.step(p, GRADIENTS, fm.adam(p, lr=1.0, eps=eps))
    return -p


def path(p: Array, state: fm.State) -> Array:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(STEPS):
        found.append(p.item())
        fm.step(p, p + 1e-9 * LR * rng.standard_normal(1), state)
    return np.array(found)


def adam(lr: float, **options: Any) -> Array:
    p = np.array([START])
    return path(p, fm.adam(p, lr=lr, **options))


def experiment() -> Found:
    p = np.array([START])
    options = theory.adam_as_momentum(0.0, lr=LR * LARGE, eps=LARGE)
    return Found(
        first={eps: first_step(eps) for eps in EPS},
        distance={
            "eps 0": adam(LR, eps=0.0),
            "eps 0.9 of the edge": adam(LR, eps=0.9 * EDGE),
            "eps 1.1 of the edge": adam(LR, eps=1.1 * EDGE),
            AS_MOMENTUM: adam(LR * LARGE, eps=LARGE, form="uncorrected"),
        },
        momentum=path(p, fm.init(p, **options)),
    )


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(plot.WIDTH, 8), layout="constrained")
    curves = {
        f"eps {eps:g}": (GRADIENTS, length, -theory.adam_step(1, GRADIENTS, lr=1.0, eps=eps))
        for eps, length in found.first.items()
    }
    plot.predictions(top, curves, xlabel="gradient", ylabel="length of the first step / lr")
    top.set(xscale="log", yscale="log")
    top.set_title("lines predicted, markers measured", fontsize="small")
    k = np.arange(0, STEPS, 10)
    distances = {name: (k, abs(distance[k]) + 1e-30) for name, distance in found.distance.items()}
    plot.loss_curves(bottom, distances, ylabel="distance from the minimum")
    bottom.axhline(EDGE, color="0.4", linewidth=1)
    bottom.text(STEPS, EDGE, "lr/38", va="bottom", ha="right", fontsize="small")
    bottom.set_ylim(1e-13, 100)
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for eps, length in found.first.items():
        print(f"eps {eps:g}: first step {np.interp(eps, GRADIENTS, length):.3f} lr by a gradient of eps")
    for name, distance in found.distance.items():
        print(
            f"{name}: distance in the end {found.rms(name):.2g} lr, at most {abs(distance[LATE]).max() / LR:.2g} lr"
        )
    print(f"predicted for eps 0: 1/{LR / EDGE:.0f} = {EDGE / LR:.3f} lr")
    largest = abs(found.distance[AS_MOMENTUM] - found.momentum).max() / START
    print(f"{AS_MOMENTUM}: from the path of momentum by {largest:.0e} of the start")
    draw(found).savefig("adam_eps.png", dpi=150)
    print("Picture: adam_eps.png")


if __name__ == "__main__":
    main()
