r"""
Saddle points outnumber minima
==============================

At a point where the gradient vanishes, the signs of the curvatures say what it is: a minimum if none is negative. If the
Hessian of n parameters were a random symmetric matrix, half of its eigenvalues would be negative on average, and all of
them positive with a probability that falls like :math:`\exp(-n^2 \log(3) / 4)` [Dean and Majumdar]. This is an argument
about random functions; a loss is not one. So the second half of the experiment counts the negative curvatures of a real,
if small, network: 70 parameters, tanh, fitted to points of a sine, with the Hessian by differences of the gradient.

What is found:

- **Random matrices.** All eigenvalues are positive in 50, 15, 2.5 and 0.2 % of the cases for n = 1 to 4, and in none of
  20,000 for n = 10, while half of all eigenvalues are negative at every n.
- **The network.** Of its curvatures 44 % are clearly negative at the start, and still a third at a loss of 0.00002. What
  falls with the loss is their size: the most negative one is half of the largest positive one at first, and 0.00002 of it
  in the end. Nine of ten curvatures are then below a thousandth of the largest, of either sign. What training ends at is neither
  a minimum with all curvatures positive nor a random saddle: it is nearly flat in most directions.

D. Dean, S. Majumdar, Large deviations of extreme eigenvalues of random matrices, Physical Review Letters, 2006. Y. Dauphin
and others, Identifying and attacking the saddle point problem in high-dimensional non-convex optimization, 2014; A. Bray,
D. Dean, 2007, for random landscapes, in which the share of negative curvatures falls with the height.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

SIZES, MATRICES = (1, 2, 3, 4, 5, 7, 10), 20_000
HIDDEN, STEPS, SEEDS = 7, 3000, 5
LOOKED_AT = (0, 30, 100, 300, 1000, 3000)
X = np.linspace(-1, 1, 40)[:, None]
Y = np.sin(3 * X[:, 0])


FLAT = 1e-8  # of the largest curvature: below, differences say nothing of the sign


class Found(NamedTuple):
    minima: Array  # the share of random matrices without a negative eigenvalue, by SIZES
    negative: Array  # the share of negative eigenvalues
    losses: Array  # of the network: (seed, time)
    spectra: Array  # eigenvalues of its Hessian: (seed, time, parameter)

    def below(self) -> Array:
        """The share of its curvatures that are clearly negative, by time."""
        return np.asarray((self.spectra < -FLAT * self.spectra[..., -1:]).mean(axis=(0, 2)))


def layers(w: Array) -> tuple[Array, Array, Array, Array]:
    """Of a network 1 - 7 - 7 - 1, with offsets in the first layer alone."""
    h = HIDDEN
    return w[:h], w[h : 2 * h], w[2 * h : 2 * h + h * h].reshape(h, h), w[2 * h + h * h :]


def loss_and_gradient(w: Array) -> tuple[float, Array]:
    a, b, middle, out = layers(w)
    first = np.tanh(X * a + b)
    second = np.tanh(first @ middle)
    error = second @ out - Y
    back = np.outer(error, out) * (1 - second**2) / len(X)
    deep = back @ middle.T * (1 - first**2)
    parts = [(deep * X).sum(axis=0), deep.sum(axis=0), (first.T @ back).ravel(), second.T @ error / len(X)]
    return float(error @ error) / (2 * len(X)), np.concatenate(parts)


def hessian(w: Array) -> Array:
    """By central differences of the gradient, made symmetric."""
    h = 1e-5
    rows = [
        (loss_and_gradient(w + h * e)[1] - loss_and_gradient(w - h * e)[1]) / (2 * h) for e in np.eye(len(w))
    ]
    found = np.array(rows)
    return (found + found.T) / 2


def train(seed: int) -> tuple[list[float], list[Any]]:
    rng = np.random.default_rng(seed)
    w = np.concatenate(
        [rng.standard_normal(2 * HIDDEN), rng.standard_normal(HIDDEN * (HIDDEN + 1)) / HIDDEN**0.5]
    )
    state = fm.init(w, lr=0.05, momentum=0.9)
    losses: list[float] = []
    spectra: list[Any] = []
    for t in range(STEPS + 1):
        loss, gradient = loss_and_gradient(w)
        if t in LOOKED_AT:
            losses.append(loss)
            spectra.append(np.linalg.eigvalsh(hessian(w)))
        fm.step(w, gradient, state)
    return losses, spectra


def experiment() -> Found:
    rng = np.random.default_rng(0)
    minima, negative = [], []
    for n in SIZES:
        square = rng.standard_normal((MATRICES, n, n))
        eigenvalues = np.linalg.eigvalsh(square + square.swapaxes(1, 2))
        minima.append((eigenvalues[:, 0] > 0).mean())
        negative.append((eigenvalues < 0).mean())
    losses, spectra = zip(*[train(seed) for seed in range(SEEDS)], strict=True)
    return Found(np.array(minima), np.array(negative), np.array(losses), np.array(spectra))


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(plot.WIDTH, 8), layout="constrained")
    plot.loss_curves(top, {"all positive (minima)": (SIZES, found.minima), "negative, of all": (SIZES, found.negative)},
                     xlabel="size of a random symmetric matrix", ylabel="share of eigenvalues or matrices")  # fmt: skip
    for k, style in zip((0, 3, 5), plot.STYLES, strict=False):
        spectrum = np.sort(found.spectra[:, k].ravel())
        share = np.arange(1, len(spectrum) + 1) / len(spectrum)
        bottom.plot(
            spectrum, share, color=style["color"], linestyle=style["linestyle"], label=f"step {LOOKED_AT[k]}"
        )
    bottom.set_xscale("symlog", linthresh=1e-4)
    bottom.set_xticks([-1, -1e-2, 0, 1e-2, 1])
    bottom.axvline(0, color="0.4", linewidth=1)
    bottom.set(xlabel="curvature of the network's loss", ylabel="share of curvatures below")
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for n, minima, negative in zip(SIZES, found.minima, found.negative, strict=True):
        print(
            f"random matrices of size {n:2}: all positive {minima:.4f}, negative eigenvalues {negative:.3f}"
        )
    for k, t in enumerate(LOOKED_AT):
        spectra = found.spectra[:, k]
        worst = (-spectra[:, 0] / spectra[:, -1]).max()
        print(f"network, step {t:4}: loss {found.losses[:, k].mean():.5f}, negative {found.below()[k]:.2f}, below a "
              f"thousandth of the largest in size {(abs(spectra) < 1e-3 * spectra[:, -1:]).mean():.2f}, most negative {worst:.1g}")  # fmt: skip
    draw(found).savefig("saddle_counts.png", dpi=150)
    print("Picture: saddle_counts.png")


if __name__ == "__main__":
    main()
