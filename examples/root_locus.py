r"""
Momentum as a control loop
==========================

An engineer reads a step as a feedback loop: the gradient :math:`l p` is measured, and a controller moves p against it.
From gradient to parameter the step has the transfer function

.. math:: C(z) = \frac{lr \, z}{(z - 1)(z - m)},

a sum (the pole at 1, which takes the error to 0) and the low-pass filter of the velocity (the pole at m). The loop is
closed by the curvature, so its poles are the roots of :math:`(z - 1)(z - m) + s z = 0` with :math:`s = lr \, l`: the
eigenvalues of `theory.iteration_matrix`.

**The root locus over m**, at a fixed s: real, and apart, while m is below :math:`(1 - \sqrt s)^2`, overdamped; double
there, critical; then they leave the axis and run along a circle around 1 of radius :math:`\sqrt s`, underdamped,
towards the unit circle, on which they arrive at m = 1. That it is a circle: the product of the roots is m, their sum
:math:`1 + m - s`, so :math:`|z - 1|^2 = m - (1 + m - s) + 1 = s`.

**The phase margin** is by how much the loop could lag behind, in angle, before it swings for ever: 180 degrees more than
the phase of :math:`l \, C(e^{i \omega})` where its size is 1. A delay of the gradient by k steps takes :math:`k \omega` of
it. This is why asynchronous gradients want less momentum.

What is found: the measured poles are the predicted ones; the margin at lr 0.01 falls from 90 degrees to 53 as m goes from
0 to 0.9, and the longest delay that it allows, from 156 steps to 11, is the longest with which a run still converges.

B. Hu, L. Lessard, Control interpretations for first-order optimization methods, 2017, for the loop and its margins; that
stale gradients act like momentum: I. Mitliagkas and others, Asynchrony begets momentum, 2016.
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

S = 0.04  # lr times curvature, of the locus
MOMENTA = np.linspace(0, 0.999, 1000)
LR = 0.01
MARGIN_MOMENTA = (0.0, 0.5, 0.8, 0.9, 0.95)


class Margin(NamedTuple):
    frequency: float  # radians per step, where the gain of the loop is 1
    degrees: float
    allowed: int  # steps of delay, from the margin
    survived: int  # steps of delay with which a run still converges


class Found(NamedTuple):
    roots: NDArray[np.complex128]  # (momentum, 2)
    margins: dict[float, Margin]


def loop(frequency: Array, lr: float, momentum: float) -> NDArray[np.complex128]:
    """The gain of the open loop at curvature 1."""
    z = np.exp(1j * frequency)
    return np.asarray(lr * z / ((z - 1) * (z - momentum)))


def converges(delay: int, momentum: float, steps: int = 6000) -> bool:
    p = np.ones(1)
    state = fm.init(p, lr=LR, momentum=momentum)
    seen = [1.0] * (delay + 1)
    sizes = []
    for _ in range(steps):
        fm.step(p, np.array([seen[-delay - 1]]), state)
        seen.append(p.item())
        sizes.append(abs(p.item()))
    return max(sizes[-steps // 4 :]) < max(sizes[steps // 4 : steps // 2])


def margin(momentum: float) -> Margin:
    frequency = np.geomspace(1e-4, np.pi, 400_001)
    k = int(np.flatnonzero(abs(loop(frequency, LR, momentum)) > 1)[-1])
    at = float(frequency[k])
    angle = np.pi + float(np.angle(loop(frequency[k : k + 1], LR, momentum))[0])
    allowed = int(angle / at)
    survived = max(delay for delay in range(max(0, allowed - 2), allowed + 3) if converges(delay, momentum))
    return Margin(at, float(np.degrees(angle)), allowed, survived)


def experiment() -> Found:
    roots = np.linalg.eigvals(theory.iteration_matrix(1.0, lr=S, momentum=MOMENTA)).astype(complex)
    return Found(roots, {m: margin(m) for m in MARGIN_MOMENTA})


def draw(found: Found) -> Figure:
    figure, axes = plt.subplots(figsize=(plot.WIDTH, 4), layout="constrained")
    angle = np.linspace(0, 2 * np.pi, 400)
    axes.plot(np.cos(angle), np.sin(angle), color="0.6", linewidth=1)
    arrow = {"arrowstyle": "->"}
    axes.annotate("unit circle", (np.cos(0.35), np.sin(0.35)), (0.55, 0.4), arrowprops=arrow)
    swings = abs(found.roots[:, 0].imag) > 1e-9
    for regime, style in {False: ("#0072B2", "overdamped"), True: ("#D55E00", "underdamped")}.items():
        chosen = found.roots[swings == regime]
        axes.plot(chosen.real.ravel(), chosen.imag.ravel(), ".", markersize=3, color=style[0], label=style[1])
    critical = theory.critical_momentum(1.0, lr=S)
    axes.plot(critical**0.5, 0, "o", color="black", label=f"critical, m = {critical:.2f}")
    for m, at in ((0.0, (0.05, -0.2)), (0.0, (1.02, -0.25)), (0.9, (0.6, 0.25))):
        roots = found.roots[np.argmin(abs(MOMENTA - m))]
        root = min(roots, key=lambda z: abs(z - complex(*at)))
        axes.annotate(f"m = {m:g}", (root.real, root.imag), at, arrowprops=arrow)
    axes.set(xlabel="real part", ylabel="imaginary part", xlim=(-0.1, 1.2), ylim=(-0.4, 0.5), aspect="equal")
    plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    swings = found.roots[abs(found.roots[:, 0].imag) > 1e-9]
    off = abs(abs(swings - 1) - S**0.5).max()
    print(
        f"s = {S}: critical at m = {theory.critical_momentum(1.0, lr=S):.2f}; off the circle by {off:.0e} at the most"
    )
    for m, one in found.margins.items():
        print(
            f"lr {LR}, momentum {m:4}: phase margin {one.degrees:.0f} degrees at {one.frequency:.3f} per step, "
            f"{one.allowed} steps of delay; converges with {one.survived}"
        )
    draw(found).savefig("root_locus.png", dpi=150)
    print("Picture: root_locus.png")


if __name__ == "__main__":
    main()
