r"""
Out of small minima, and out of good ones
=========================================

"Momentum escapes from local minima" is half of the truth: it leaves good ones as well. Here both are counted,
in bowls with wells,

.. math:: f(x) = \tfrac{a}{2} x^2 - \sum_j d_j\, e^{-(x - c_j)^2 / (2 w_j^2)},

from 1000 random starts between -8 and 8, the same for every momentum. A start counts if it is in the basin of
the global minimum in the end. The third landscape has a plateau instead of a second minimum and the starts
between 2 and 8; there a start counts if it is near the minimum after 400 steps and stays there. The bands are
Wilson's 95 % intervals. "Lost" are the starts that gradient descent brings to the goal and the heavy ball
does not.

A step with momentum goes :math:`1/(1 - m)` times as far in the long run, so that momentum is tried with the
same lr and with the same effective lr, :math:`\text{lr}/(1 - m)`. What is found:

- Momenta up to 0.7 change nothing about the minima: the heavy ball ends where gradient descent ends. Whether
  a ball leaves a minimum depends on its drag :math:`c = (1 - m)/\sqrt{\text{lr}}` (see
  :doc:`continuous_limit`), not on lr or momentum alone: the curves of the two ways to choose lr nearly fall
  on each other. Below a drag of about 0.7 the balls begin to move out.
- With the small minimum on one side, less drag is better, up to a point: from 61 % to 93 %, then less again,
  as balls that would have stayed in the good basin roll out of it into the small minimum.
- With the good minimum on one side, momentum first does worse, 17 % instead of 41 % at 0.9 and the same lr.
  With still less drag it does about as well as gradient descent, but from other starts: it loses about as
  many as it gains.
- It coasts over the plateau, also with the same effective lr: 97.5 % instead of 9.3 % are there in time with
  momentum 0.97. With 0.99 it is 23 %, with 0.995 none, as the ball still swings around the minimum. With the
  same lr 0.8 is enough for 100 %, but so is gradient descent with the lr that this is in effect, 0.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class Landscape(NamedTuple):
    wells: tuple[tuple[float, float, float], ...]  # depth, centre, width
    goal: tuple[float, float]  # to be between these from the deadline on
    deadline: int
    starts: tuple[float, float]  # uniform between these


BOWL = 0.1  # its curvature
LANDSCAPES = {
    "small minimum on one side": Landscape(((1.5, 0, 0.6), (0.4, 3, 0.4)), (-9, 2.16), 3000, (-8, 8)),
    "good minimum on one side": Landscape(((0.6, 0, 0.8), (1.4, 3, 0.5)), (1.76, 9), 3000, (-8, 8)),
    "plateau": Landscape(((0.166, 3, 0.4),), (-0.5, 0.5), 400, (2, 8)),
}
STEPS = 4000
STARTS = 1000
LR = 0.1
MOMENTA = np.array([0, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995])
RUNS = {"same lr": np.full_like(MOMENTA, LR), "same effective lr": LR * (1 - MOMENTA)}
Z = 1.96  # standard deviations in a confidence of 95 %


class Count(NamedTuple):
    reached: NDArray[np.int64]  # of STARTS, for each of MOMENTA
    lost: NDArray[np.int64]  # reached by gradient descent, but not with this momentum


class Found(NamedTuple):
    counts: dict[str, dict[str, Count]]  # by landscape and run
    drag: dict[str, Array]  # by run, for each of MOMENTA
    slope: float  # the largest where a start has ended: near 0 if all have come to rest


def value(landscape: Landscape, x: Array) -> Array:
    wells = sum(d * np.exp(-(((x - c) / w) ** 2) / 2) for d, c, w in landscape.wells)
    return np.asarray(BOWL / 2 * x**2 - wells)


def gradient(landscape: Landscape, x: Array) -> Array:
    wells = sum(d * (x - c) / w**2 * np.exp(-(((x - c) / w) ** 2) / 2) for d, c, w in landscape.wells)
    return np.asarray(BOWL * x + wells)


def wilson(successes: NDArray[np.int64], trials: int) -> tuple[Array, Array]:
    """Wilson's interval for a share: it also holds near 0 and 1."""
    share = successes / trials
    centre = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * np.sqrt(share * (1 - share) / trials + (Z / (2 * trials)) ** 2)
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)


def run(landscape: Landscape, lr: Array) -> tuple[Count, float]:
    starts = np.random.default_rng(0).uniform(*landscape.starts, STARTS)
    x = np.tile(starts, (len(MOMENTA), 1))
    rows = list(x)
    state = fm.init(rows, lr=lr.tolist(), momentum=MOMENTA.tolist())
    there = np.ones(x.shape, bool)
    for k in range(STEPS):
        fm.step(rows, list(gradient(landscape, x)), state)
        if k + 1 >= landscape.deadline:
            there &= (landscape.goal[0] < x) & (x < landscape.goal[1])
    count = Count(there.sum(axis=1), (there[0] & ~there).sum(axis=1))
    return count, float(np.abs(gradient(landscape, x)).max())


def experiment() -> Found:
    runs = {
        name: {label: run(landscape, lr) for label, lr in RUNS.items()}
        for name, landscape in LANDSCAPES.items()
    }
    return Found(
        counts={name: {label: count for label, (count, _) in row.items()} for name, row in runs.items()},
        drag={label: (1 - MOMENTA) / np.sqrt(lr) for label, lr in RUNS.items()},
        slope=max(slope for row in runs.values() for _, slope in row.values()),
    )


def draw(found: Found) -> Figure:
    figure, panels = plt.subplots(
        6, 1, figsize=(plot.WIDTH, 14), layout="constrained", height_ratios=[0.8, 1.3] * 3
    )
    for above, below, (name, landscape) in zip(panels[::2], panels[1::2], LANDSCAPES.items(), strict=True):
        x = np.linspace(-8, 8, 801)
        above.plot(x, value(landscape, x), color="black")
        left, right = max(landscape.goal[0], -8), min(landscape.goal[1], 8)
        above.axvspan(left, right, color="0.85")
        above.text((left + right) / 2, 2.2, "goal", ha="center", fontsize="small")
        above.set(title=name, xlabel="$x$", ylabel="$f$", xlim=(-8, 8))
        counts = found.counts[name]
        curves = {label: (found.drag[label], count.reached / STARTS) for label, count in counts.items()}
        lost = {f"lost, {label}": (found.drag[label], count.lost / STARTS) for label, count in counts.items()}
        plot.loss_curves(
            below, curves | lost, xlabel="drag (less to the right)", ylabel="share of starts", log=False
        )
        for label, style in zip(curves, plot.STYLES, strict=False):
            low, high = wilson(counts[label].reached, STARTS)
            below.fill_between(found.drag[label], low, high, color=style["color"], alpha=0.25)
        below.set_xscale("log")
        below.invert_xaxis()
        below.xaxis.set_major_formatter("{x:g}")
        below.set_ylim(-0.03, 1.03)
        plot.direct_labels(below)
    return figure


def main() -> None:
    found = experiment()
    shown = [0, 4, 6, 9, 11, 12]
    print(f"reached the goal, of {STARTS} starts (95 % interval), and lost, by momentum")
    for name, counts in found.counts.items():
        for label, count in counts.items():
            print(f"{name}, {label}:")
            low, high = wilson(count.reached, STARTS)
            for k in shown:
                interval = f"({STARTS * low[k]:.0f} to {STARTS * high[k]:.0f})"
                print(f"  {MOMENTA[k]:<5g} {count.reached[k]:4d} {interval:14s} lost {count.lost[k]}")
    draw(found).savefig("escape.png", dpi=150)
    print("Picture: escape.png")


if __name__ == "__main__":
    main()
