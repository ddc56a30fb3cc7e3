r"""
Where momentum gains, and where it does not
===========================================

A quadratic with ten curvatures from 1 to :math:`\kappa`, a start at distance 1 in each direction, and gradients with
independent noise of standard deviation :math:`\sigma`, which is also its ratio to the gradient of the flattest
direction at the start. How many steps until the expected squared distance is, and stays, a hundredth of that at the
start? Gradient descent at its best constant lr against the heavy ball at its best constant lr and momentum: the ratio
of the two counts is the gain.

Nothing is drawn at random here. The second moments of parameter and velocity follow a linear recursion, whose matrix
is made of `iteration_matrix`; its powers are taken for counts of steps that grow by a third each time, and the count
is interpolated between two of them.

What is found:

- **Without noise** the gain grows with the condition number, from 1.8 at 10 to 44 at 10,000: a little less than half of
  :math:`\sqrt\kappa`.
- **Noise takes it away**, once it forces an lr that is small for the flattest direction as well. From there on the count
  hardly depends on the condition number, and momentum gains 10 to 20 %. A larger batch has less noise, and brings the
  gain back.
- **Even without either** it is not less than 1, as momentum 0 is the gradient descent that it is compared with, and
  1.1 to 1.2 is no average of the noise: at the same floor, critical damping forgets the start faster. A schedule of lr
  may take that, too; none is tried here.

The noise is additive, independent and of constant variance, which that of mini-batches is not quite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

KAPPAS = 10 ** np.arange(0.5, 4.1, 0.25)
NOISES = 10 ** np.arange(-1.5, 0.6, 0.25)
DIRECTIONS = 10
NEAR = 0.01
MOMENTA = 1 - np.geomspace(1, 1e-3, 31)[1:]
# lr in units of the limit of stability, which the best one comes close to.
SHARES = np.concatenate([np.geomspace(1e-6, 0.5, 56), 1 - np.geomspace(0.45, 1e-2, 8)])
SHARES_PLAIN = np.concatenate([np.geomspace(1e-4, 0.5, 300), 1 - np.geomspace(0.49, 1e-4, 100)])
MOST = 100_000


class Found(NamedTuple):
    plain: Array  # steps of gradient descent: (noise, kappa)
    heavy: Array  # of the heavy ball

    def gain(self) -> Array:
        return self.plain / self.heavy


def counts() -> list[int]:
    """1, 2, 3, 4, 5, 7, 9, 12, ...: each is the sum of two before it, so that its power is a product of two."""
    steps = [1, 1, 1]
    while steps[-1] < MOST:
        steps.append(steps[-2] + steps[-3])
    return steps


def moments(curvature: Array, lr: Array, momentum: Array) -> Array:
    """The matrix that takes E(p*p), E(p*v), E(v*v) and 1 one step further, where noise has variance 1."""
    (a, b), (c, d) = np.moveaxis(
        theory.iteration_matrix(curvature, lr=lr, momentum=momentum), (-2, -1), (0, 1)
    )
    zero, one = np.zeros_like(a), np.ones_like(a)
    lrs = lr * one
    rows = [
        [a * a, 2 * a * b, b * b, lrs**2],
        [a * c, a * d + b * c, b * d, -lrs],
        [c * c, 2 * c * d, d * d, one],
        [zero, zero, zero, one],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def distances(kappa: float, momenta: Array, shares: Array) -> tuple[Array, Array]:
    """Mean squared distance by steps, momentum and lr: what is left of the start, and of noise of variance 1."""
    momentum, share = np.meshgrid(momenta, shares, indexing="ij")
    lr = share * theory.stability_limit(kappa, momentum=momentum)
    curvature = kappa ** np.linspace(0, 1, DIRECTIONS)[:, None, None]
    power = moments(curvature, lr, momentum)
    powers, start, noise = [power] * 3, [], []
    for _ in counts()[2:]:
        start.append(powers[-1][..., 0, 0].mean(axis=0))
        noise.append(powers[-1][..., 0, 3].mean(axis=0))
        powers = [*powers[1:], powers[1] @ powers[0]]
    return np.array(start), np.array(noise)


def steps_until_near(distance: Array) -> float:
    """At the best momentum and lr."""
    steps = np.array(counts()[2:], float)
    to_come = np.maximum.accumulate(distance[::-1])[::-1]  # it has to stay near
    least = to_come.min(axis=(1, 2))
    k = int(np.flatnonzero(least <= NEAR)[0])
    ends = slice(k - 1, k + 1)
    return float(np.exp(np.interp(-np.log(NEAR), -np.log(least[ends]), np.log(steps[ends]))))


def experiment() -> Found:
    found = []
    for momenta, shares in ((np.zeros(1), SHARES_PLAIN), (MOMENTA, SHARES)):
        columns = [distances(kappa, momenta, shares) for kappa in KAPPAS]
        found.append([[steps_until_near(start + n**2 * noise) for start, noise in columns] for n in NOISES])
    return Found(*map(np.array, found))


def draw(found: Found) -> Figure:
    figure, axes = plt.subplots(figsize=(plot.WIDTH, 5.5), layout="constrained")
    levels = [1, 1.5, 2, 3, 5, 10, 20, 50]
    filled = axes.contourf(KAPPAS, NOISES, found.gain(), levels, cmap="cividis", norm="log")
    lines = axes.contour(KAPPAS, NOISES, found.gain(), levels, colors="white", linewidths=0.8)
    axes.clabel(lines, fmt="%g times")
    axes.set(xscale="log", yscale="log", xlabel="condition number",
             ylabel="noise / flattest gradient at the start")  # fmt: skip
    figure.colorbar(filled, ax=axes, ticks=levels, format="%g",
                    label="steps of gradient descent / of the heavy ball")  # fmt: skip
    return figure


def main() -> None:
    found = experiment()
    shown = range(2, len(KAPPAS), 4)
    print("noise   " + "".join(f"{f'kappa {KAPPAS[k]:,.0f}':>24}" for k in shown))
    for row in range(0, len(NOISES), 2):
        counted = [(found.plain[row, k], found.heavy[row, k]) for k in shown]
        cells = [f"{plain:,.0f} / {heavy:,.0f} = {plain / heavy:.1f}" for plain, heavy in counted]
        print(f"{NOISES[row]:<8.3g}" + "".join(f"{cell:>24}" for cell in cells))
    draw(found).savefig("momentum_map.png", dpi=150)
    print("Picture: momentum_map.png")


if __name__ == "__main__":
    main()
