r"""
Adam and momentum down a ravine
===============================

The loss :math:`(\kappa x_1^2 + x_2^2)/2` curves :math:`\kappa` times as much across as along. Adam gives each parameter an lr
of its own, so a ravine along the axes is no ravine for it: with eps = 0 the path does not depend on :math:`\kappa` at all.
Turn the ravine by 45 degrees, and each parameter has a share in both directions; one lr for each does not help any more.
Momentum sees no axes: its path turns with the ravine.

Counted are the steps until the loss stays below a millionth of its start, (1, 2) in the coordinates of the ravine, at the
best of 30 constant lr for Adam, from 0.01 to 1, and at the heavy ball's best lr and momentum:

=========== ================= ================= ==========
kappa       Adam, along axes  Adam, at 45       heavy ball
=========== ================= ================= ==========
10          123               121               16
100         121               160               58
1000        121               752               204
10,000      121               2370              708
=========== ================= ================= ==========

So Adam is ahead where the scales of the parameters are what makes the problem hard, from somewhere between a kappa of 100
and one of 1000, and behind where directions between the parameters are. The heavy ball's constants are computed from the
curvatures, which Adam is not told; that Adam was given the best of 30 lr is a like favour. Its numbers at 45 degrees
depend on which lr are tried.

The 121 steps are mostly those of beta1 = 0.9. While the second moment stays, Adam is momentum, and a momentum step that
swings leaves :math:`\sqrt{0.9}` of the error: a thousandth of it after 131 steps.
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

KAPPAS = [10.0, 100.0, 1000.0, 10_000.0]
ANGLES = {"along the axes": 0.0, "at 45 degrees": np.pi / 4}
START = np.array([1.0, 2.0])  # across, along
LRS = np.geomspace(0.01, 1, 30)
STEPS, SHOWN, NEAR = 3200, 60, 1e-6


class Found(NamedTuple):
    adam: dict[str, list[int]]  # by angle, the steps for each of KAPPAS, at the best lr
    lrs: dict[str, list[float]]  # which that is
    heavy_ball: dict[str, list[int]]
    paths: dict[
        str, dict[str, Array]
    ]  # at kappa 100, by angle and method, in the coordinates of the parameters


def turned(angle: float) -> Array:
    """Columns: the directions across and along."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def run(kappa: float, angle: float, state_of: Any, runs: int) -> Array:
    """The points of so many runs, one array of params for each: (STEPS + 1, runs, 2)."""
    basis = turned(angle)
    hessian = basis @ np.diag([kappa, 1.0]) @ basis.T
    params = [basis @ START for _ in range(runs)]
    state = state_of(params)
    points = np.empty((STEPS + 1, runs, 2))
    for row in points:
        row[...] = params
        fm.step(params, list(row @ hessian), state)
    return points


def steps_until_near(points: Array, kappa: float, angle: float) -> NDArray[np.int64]:
    """After which the loss stays below NEAR of its start; STEPS + 1 where it does not."""
    loss = (points @ turned(angle)) ** 2 @ [kappa, 1.0]
    above = ~(loss <= NEAR * loss[0])
    return np.where(above.any(axis=0), len(loss) - above[::-1].argmax(axis=0), 0)


def adam(kappa: float, angle: float) -> tuple[int, float, Array]:
    """The steps of the best lr, that lr, and its path."""
    points = run(kappa, angle, lambda params: fm.adam(params, lr=list(LRS), eps=0.0), len(LRS))
    steps = steps_until_near(points, kappa, angle)
    best = int(steps.argmin())
    return int(steps[best]), float(LRS[best]), points[:, best]


def heavy_ball(kappa: float, angle: float) -> tuple[int, Array]:
    lr, momentum, *_ = theory.optimal(1.0, kappa)
    points = run(kappa, angle, lambda params: fm.init(params, lr=lr, momentum=momentum), 1)
    return int(steps_until_near(points, kappa, angle)[0]), points[:, 0]


def experiment() -> Found:
    ours = {name: [adam(kappa, angle) for kappa in KAPPAS] for name, angle in ANGLES.items()}
    theirs = {name: [heavy_ball(kappa, angle) for kappa in KAPPAS] for name, angle in ANGLES.items()}
    shown = KAPPAS.index(100.0)
    return Found(
        adam={name: [steps for steps, _, _ in found] for name, found in ours.items()},
        lrs={name: [lr for _, lr, _ in found] for name, found in ours.items()},
        heavy_ball={name: [steps for steps, _ in found] for name, found in theirs.items()},
        paths={name: {"Adam": ours[name][shown][2], "heavy ball": theirs[name][shown][1]} for name in ANGLES},
    )


def draw(found: Found) -> Figure:
    figure, (*panels, counts) = plt.subplots(3, 1, figsize=(plot.WIDTH, 12), layout="constrained")
    for axes, (name, angle) in zip(panels, ANGLES.items(), strict=True):
        basis = turned(angle)

        def ravine(x: Array, y: Array, basis: Array = basis) -> Array:
            across, along = np.tensordot(basis.T, [x, y], 1)
            return np.asarray((100 * across**2 + along**2) / 2)

        paths = {method: found.paths[name][method][:SHOWN] for method in ("heavy ball", "Adam")}
        title, limits = f"{name}, {SHOWN} steps", (-4.5, 4.5)
        plot.trajectories(axes, ravine, paths, xlim=limits, ylim=limits, title=title)
        axes.set(xlabel="first parameter", ylabel="second parameter")
    curves = {f"Adam, {name}": (KAPPAS, steps) for name, steps in found.adam.items()}
    curves["heavy ball"] = (KAPPAS, found.heavy_ball["along the axes"])
    plot.loss_curves(counts, curves, xlabel=r"$\kappa$", ylabel="steps to a millionth of the loss")
    counts.set_xscale("log")
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print("kappa    " + "".join(f"Adam, {name:20}" for name in ANGLES) + "heavy ball (at 45 degrees)")
    for k, kappa in enumerate(KAPPAS):
        row = [f"{found.adam[name][k]:5} (lr {found.lrs[name][k]:.3f})" for name in ANGLES]
        balls = [found.heavy_ball[name][k] for name in ANGLES]
        print(f"{kappa:<9g}" + "".join(f"{cell:26}" for cell in row) + f"{balls[0]} ({balls[1]})")
    draw(found).savefig("adam_ravine.png", dpi=150)
    print("Picture: adam_ravine.png")


if __name__ == "__main__":
    main()
