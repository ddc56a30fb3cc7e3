r"""
The two phases of stochastic descent
====================================

Minimise :math:`l p^2 / 2` with gradients that carry independent noise of variance :math:`n`. At first the gradient is
much larger than the noise: in this phase, the transient, the mean of :math:`p` shrinks by the rate with each step, as
without noise. Later :math:`p` is about as large as what the noise keeps alive. In the second phase, of fine-tuning, the
loss stays at a floor. For momentum :math:`m`, the variance of :math:`p` is then

.. math:: \frac{lr \, n (1 + m)}{l (1 - m) (2 (1 + m) - lr \, l)}

and the mean loss is :math:`l / 2` times that, close to :math:`lr \, n / (4 (1 - m))`: proportional to lr.

Ten thousand parameters with :math:`l = n = 1` start from 10, each with noise of its own, so that their mean loss is
close to the expected one. The momentum is 0.9.

What is found: mean losses and floors are the predicted ones, within the statistical error.

- From lr 0.1 to 0.01 the floor falls to a tenth, and the transient lasts 74 steps instead of 50. That is cheap: both are
  underdamped, where the rate is :math:`\sqrt m` for every lr. From 0.01 to 0.001, which is overdamped, the next tenth
  costs a transient of 454 steps.
- A large lr first and a small one after its transient reaches the low floor after 320 steps.
- Momentum by itself lowers no floor: gradient descent with :math:`lr / (1 - m)` has the same one within half a percent,
  after nearly the same transient.

L. Bottou, F. E. Curtis, J. Nocedal, Optimization methods for large-scale machine learning, 2018, has the two phases for
gradient descent; G. Goh, Why momentum really works, Distill, 2017, with momentum.
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

CURVATURE, NOISE, START = 1.0, 1.0, 10.0
MOMENTUM, LRS = 0.9, (0.1, 0.01, 0.001)
COPIES, STEPS = 10_000, 1200
TAIL = 400  # steps at the end over which the floor is measured
DROP = 100  # the step at which a schedule goes from the largest to the smallest lr


class Run(NamedTuple):
    lr: float  # at the end
    losses: Array  # the mean over all copies, before and after each step
    errors: Array  # the standard errors of `losses`
    expected: Array
    floor: float  # the mean over the tail, too
    floor_error: float
    floor_predicted: float

    def transient(self) -> int:
        """Count the steps after which the loss stays below twice the floor."""
        return int(np.flatnonzero(self.losses > 2 * self.floor_predicted)[-1]) + 1


def run(lrs: Array, momentum: float) -> Run:
    """Make a step with each of `lrs`."""
    rng = np.random.default_rng(0)
    p = np.full(COPIES, START)
    state = fm.init(p, lr=lrs[0], momentum=momentum)
    losses, errors, tail = [CURVATURE / 2 * START**2], [0.0], np.zeros(COPIES)
    for t, lr in enumerate(lrs):
        state.lr = lr
        fm.step(p, CURVATURE * p + rng.normal(scale=NOISE**0.5, size=COPIES), state)
        loss = CURVATURE / 2 * p**2
        losses.append(float(loss.mean()))
        errors.append(float(loss.std()) / COPIES**0.5)
        if t >= STEPS - TAIL:
            tail += loss / TAIL
    floor = float(tail.mean()), float(tail.std()) / COPIES**0.5
    variance, _ = theory.heavy_ball_variance(CURVATURE, NOISE, lr=lrs[-1], momentum=momentum)
    expected = expected_losses(lrs, momentum)
    return Run(lrs[-1], np.array(losses), np.array(errors), expected, *floor, CURVATURE / 2 * variance)


def expected_losses(lrs: Array, momentum: float) -> Array:
    """Follow the second moments of (param, velocity), to which each gradient adds noise."""
    moments = np.diag([START**2, 0.0])
    losses = [CURVATURE / 2 * START**2]
    for lr in lrs:
        matrix = theory.iteration_matrix(CURVATURE, lr=lr, momentum=momentum)
        moments = matrix @ moments @ matrix.T + NOISE * np.outer([-lr, 1], [-lr, 1])
        losses.append(CURVATURE / 2 * moments[0, 0])
    return np.array(losses)


def experiment() -> dict[str, Run]:
    runs = {f"lr {lr}": run(np.full(STEPS, lr), MOMENTUM) for lr in LRS}
    schedule = np.where(np.arange(STEPS) < DROP, LRS[0], LRS[-1])
    runs[f"lr {LRS[0]}, from step {DROP} on {LRS[-1]}"] = run(schedule, MOMENTUM)
    runs["gradient descent, lr 0.01"] = run(np.full(STEPS, LRS[-1] / (1 - MOMENTUM)), 0.0)
    return runs


def draw(found: dict[str, Run]) -> Figure:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.5), layout="constrained", gridspec_kw={"width_ratios": [1.6, 1]}
    )
    plot.loss_curves(left, {name: run.losses[:801] for name, run in found.items()}, ylabel="mean loss")
    for run in list(found.values())[: len(LRS)]:
        left.axhline(run.floor_predicted, color="0.5", linewidth=0.8, zorder=0)
    left.annotate(
        "predicted floors",
        (620, found["lr 0.1"].floor_predicted),
        (620, 1.5),
        arrowprops={"arrowstyle": "->"},
    )
    lr = np.geomspace(LRS[-1] / 2, LRS[0] * 2, 50)
    for momentum, linestyle in ((MOMENTUM, "-"), (0.0, "--")):
        variance, _ = theory.heavy_ball_variance(CURVATURE, NOISE, lr=lr, momentum=momentum)
        label = f"predicted, momentum {momentum:g}"
        right.loglog(
            lr, CURVATURE / 2 * variance, color="black", linestyle=linestyle, linewidth=1, label=label
        )
    for (name, run), style in zip(found.items(), plot.STYLES, strict=False):
        right.loglog(run.lr, run.floor, markersize=8, label=name, **{**style, "linestyle": "none"})
    right.set(xlabel="lr at the end", ylabel="noise floor")
    right.legend(fontsize="small")
    return figure


def main() -> None:
    found = experiment()
    for name, run in found.items():
        print(
            f"{name:30} transient {run.transient():4} steps, floor {run.floor:.5f} +- {run.floor_error:.5f} "
            f"(predicted {run.floor_predicted:.5f})"
        )
    away = max(abs((run.losses - run.expected)[1:] / run.errors[1:]).max() for run in found.values())
    print(f"no mean loss is more than {away:.1f} standard errors away from the expected one")
    draw(found).savefig("two_phases.png", dpi=150)
    print("Picture: two_phases.png")


if __name__ == "__main__":
    main()
