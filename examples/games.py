r"""
A game of two players
=====================

One player moves x to make :math:`x y` small, the other y to make it large. The only point at which neither gains is
(0, 0). Gradient steps turn around it, and momentum carries each further along the turn. Steps may be simultaneous, or
alternating, where y answers to the new x.

Positive momentum diverges in both. *Negative* momentum, which goes back a part of the last step, damps the turn: with
alternating steps it converges, as Gidel and others have proved; with simultaneous steps nothing in this family does.
`init` refuses it: on a loss to be minimised it gains nothing over gradient descent, and a negative number there is a slip
in almost every case. The matrix of a step is linear in momentum, so `theory` has all that is needed:
:math:`M(m) = M(0) + m (M(1/2) - M(0)) / (1/2)`, and the same goes for a matrix of curvatures, that of the game among them.

What is found: runs are the powers of these matrices. With alternating steps of lr 0.5 the rate is
0.963 at momentum -0.5, 1 at 0 and 1.56 at 0.9; with simultaneous steps it is above 1 for every momentum and lr of a grid.

G. Gidel and others, Negative momentum for improved game dynamics, AISTATS 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LR, STEPS = 0.5, 60
MOMENTA = np.linspace(-0.9, 0.9, 37)
SHOWN = (-0.5, 0.0, 0.5)
GAME = np.array([[0.0, 1.0], [-1.0, 0.0]])  # the gradients of x and y: y, and -x as y wants more


class Found(NamedTuple):
    rates: dict[str, Array]  # over MOMENTA
    paths: dict[str, Array]  # alternating: (STEPS + 1, 2)
    least_simultaneous: float  # over a grid of lr and momentum


def one_direction(curvature: float, lr: float, momentum: float) -> Array:
    """The matrix of a step on (param, velocity), which is linear in curvature and in momentum, each at a time."""

    def at(m: float) -> Any:
        flat, bent = (theory.iteration_matrix(c, lr=lr, momentum=m) for c in (0.0, 1.0))
        return flat + curvature * (bent - flat)

    return np.asarray(at(0.0) + momentum * (at(0.5) - at(0.0)) / 0.5)


def simultaneous(lr: float, momentum: float) -> Array:
    """On (x, y, vx, vy)."""
    flat, bent = (one_direction(c, lr, momentum) for c in (0.0, 1.0))
    # Each entry of the 2 x 2 matrix becomes a block: what it was at curvature 0, and what the game takes in its place.
    return np.asarray(np.kron(flat, np.eye(2)) + np.kron(bent - flat, GAME), np.float64)


def alternating(lr: float, momentum: float) -> Array:
    flat, bent = (one_direction(c, lr, momentum) for c in (0.0, 1.0))
    both = np.eye(4)
    for player in (0, 1):
        half = np.eye(4)
        rows = [player, 2 + player]
        half[np.ix_(rows, rows)] = flat
        half[np.ix_(rows, [1 - player])] = (bent - flat)[:, :1] * GAME[player, 1 - player]
        both = half @ both
    return both


def run(momentum: float, alternate: bool, steps: int) -> Array:
    x, y, vx, vy = 1.0, 1.0, 0.0, 0.0
    path = [(x, y)]
    for _ in range(steps):
        vx = momentum * vx + y
        new = x - LR * vx
        vy = momentum * vy - (new if alternate else x)
        x, y = new, y - LR * vy
        path.append((x, y))
    return np.array(path)


def rate(matrix: Array) -> float:
    return float(abs(np.linalg.eigvals(matrix)).max())


def experiment() -> Found:
    kinds = {"simultaneous": simultaneous, "alternating": alternating}
    rates = {name: np.array([rate(kind(LR, m)) for m in MOMENTA]) for name, kind in kinds.items()}
    paths = {f"momentum {m:g}": run(m, alternate=True, steps=STEPS) for m in SHOWN}
    grid = [rate(simultaneous(lr, m)) for lr in np.geomspace(0.01, 2, 8) for m in MOMENTA]
    return Found(rates, paths, min(grid))


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(plot.WIDTH, 9), layout="constrained", height_ratios=[1.4, 1]
    )
    paths = {name: path[:20] for name, path in found.paths.items()}
    plot.trajectories(
        top, lambda x, y: x * y, paths, xlim=(-3, 3), ylim=(-3, 3), title="alternating steps of lr 0.5"
    )
    top.set_aspect("equal")
    rates = {name: (MOMENTA, rate) for name, rate in found.rates.items()}
    plot.loss_curves(bottom, rates, xlabel="momentum", ylabel="rate (factor per step)", log=False)
    bottom.axhline(1, color="0.4", linewidth=1)
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for name, rates in found.rates.items():
        shown = ", ".join(
            f"{rates[np.argmin(abs(MOMENTA - m))]:.3f} at {m:g}" for m in (-0.5, -0.1, 0.0, 0.1, 0.9)
        )
        print(f"{name:12}: rate {shown}")
    print(
        f"simultaneous: on a grid of lr and momentum the rate is above 1 by {found.least_simultaneous - 1:.0e} at least"
    )
    draw(found).savefig("games.png", dpi=150)
    print("Picture: games.png")


if __name__ == "__main__":
    main()
