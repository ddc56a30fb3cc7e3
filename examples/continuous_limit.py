r"""
The continuous limit is a damped oscillator
===========================================

The heavy ball is a mass with drag, followed in small steps of time. As lr goes to 0 its iterates tend to

.. math:: \ddot x + c\,\dot x + \nabla f(x) = 0, \qquad
   \Delta t = \sqrt{\text{lr}}, \quad \frac{1 - \text{momentum}}{\sqrt{\text{lr}}} = c, \quad t = k\,\Delta t,

because the step says :math:`(x_{k+1} - 2 x_k + x_{k-1}) / \text{lr} + (1 - \text{momentum}) (x_k - x_{k-1}) /
\text{lr} + \nabla f(x_k) = 0`. The second difference, of the drag, is one-sided and wrong by
:math:`O(\Delta t)`, so the iterates should be wrong by :math:`O(\sqrt{\text{lr}})`.

That is what is measured, on quadratics with the curvatures 0.1 (overdamped), 1 and 4 (underdamped) and
:math:`c = 1`: the order of the error in lr is 0.5.

One also reads that the time is :math:`t = k\,\text{lr}` and that :math:`(1 - \text{momentum}) / \text{lr}`
has to stay constant. With this scaling the iterates do not converge. In the time :math:`t` their frequency
grows like :math:`1/\sqrt{\text{lr}}`, while their envelope stays :math:`e^{-ct/2}`, because drag against
inertia, :math:`(1 - \text{momentum}) / \sqrt{\text{lr}} = c \sqrt{\text{lr}}`, vanishes. The error does not
fall. (With the momentum itself kept, :math:`t = k\,\text{lr}` is right, and the limit is gradient flow with
:math:`\text{lr}/(1 - \text{momentum})`: N. B. Kovachki, A. M. Stuart, Continuous time analysis of momentum methods, 2021.)

The limit is that of B. T. Polyak, *Some methods of speeding up the convergence of iteration methods*, USSR
Computational Mathematics and Mathematical Physics 4(5), 1964; its numbers are those of
:func:`fast_momentum.theory.from_physics`.
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

CURVATURES = np.array([0.1, 1.0, 4.0])
DRAG = 1.0
END = 10.0  # of the time
LRS = 4.0 ** -np.arange(2, 8)
SCALINGS = {
    "right": r"$\Delta t = \sqrt{\mathrm{lr}}$",
    "wrong": r"$\Delta t = \mathrm{lr}$, which has no limit",
}


class Found(NamedTuple):
    paths: dict[str, list[Array]]  # for each scaling and each of LRS: step by curvature
    errors: dict[str, Array]  # the largest until END: lr by curvature
    order: Array  # of the error in lr with the right scaling, between neighbouring LRS


def time_step(scaling: str, lr: float) -> float:
    return {"right": float(np.sqrt(lr)), "wrong": lr}[scaling]


def times(scaling: str, lr: float) -> Array:
    dt = time_step(scaling, lr)
    return np.asarray(np.arange(round(END / dt) + 1) * dt)


def path(scaling: str, lr: float) -> Array:
    """From rest at 1, one row per step."""
    x = np.ones_like(CURVATURES)
    state = fm.init(x, lr=lr, momentum=1 - DRAG * time_step(scaling, lr))
    rows = [x.copy()]
    for _ in times(scaling, lr)[1:]:
        fm.step(x, CURVATURES * x, state)
        rows.append(x.copy())
    return np.array(rows)


def exact(time: Array) -> Array:
    return np.asarray(theory.continuous_trajectory(CURVATURES, time[:, None], drag=DRAG))


def experiment() -> Found:
    paths = {scaling: [path(scaling, lr) for lr in LRS] for scaling in SCALINGS}
    errors = {
        scaling: np.array(
            [
                np.abs(rows - exact(times(scaling, lr))).max(axis=0)
                for rows, lr in zip(found, LRS, strict=True)
            ]
        )
        for scaling, found in paths.items()
    }
    order = np.log(errors["right"][:-1] / errors["right"][1:]) / np.log(LRS[:-1] / LRS[1:])[:, None]
    return Found(paths, errors, order)


def draw(found: Found) -> Figure:
    figure, panels = plt.subplots(4, 1, figsize=(plot.WIDTH, 12), layout="constrained")
    shown = [2, 1, 0]  # the slowest on top
    fine = np.linspace(0, END, 400)
    for scaling, axes in zip(SCALINGS, panels[::2], strict=True):
        curves = {
            f"lr = 1/{1 / LRS[k]:.0f}": (times(scaling, LRS[k]), found.paths[scaling][k][:, 1]) for k in shown
        }
        title = SCALINGS[scaling]
        plot.loss_curves(axes, curves, xlabel="time", ylabel="$x$ (curvature 1)", log=False, title=title)
        axes.plot(fine, exact(fine)[:, 1], color="0.5", linewidth=4, zorder=1, label="differential equation")
        axes.set_ylim(-1.05, 1.05)
    for scaling, axes in zip(SCALINGS, panels[1::2], strict=True):
        errors = found.errors[scaling].T
        by_lr = {f"curvature {c:g}": (LRS, error) for c, error in zip(CURVATURES, errors, strict=True)}
        plot.loss_curves(axes, by_lr, xlabel="lr", ylabel=f"largest error until time {END:g}")
        axes.set_xscale("log")
        axes.set_ylim(5e-4, 4)
    panels[1].plot(LRS, np.sqrt(LRS), color="0.5", linewidth=4, zorder=1, label=r"$\sqrt{\mathrm{lr}}$")
    for axes in panels:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print("largest error with dt = sqrt(lr), and with dt = lr, which is wrong (curvature 1):")
    for lr, right, wrong in zip(LRS, found.errors["right"][:, 1], found.errors["wrong"][:, 1], strict=True):
        print(f"lr = 1/{1 / lr:<5.0f} {right:.5f}  {wrong:.5f}")
    print("order in lr with dt = sqrt(lr): " + ", ".join(f"{order:.3f}" for order in found.order[:, 1]))
    draw(found).savefig("continuous_limit.png", dpi=150)
    print("Picture: continuous_limit.png")


if __name__ == "__main__":
    main()
