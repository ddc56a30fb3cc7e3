r"""
The two phases of stochastic descent
====================================

Minimise :math:`l p^2 / 2` with gradients that carry independent noise of variance :math:`n`. At first the gradient is
much larger than the noise: in this phase, the transient, the mean of :math:`p` goes the way that it goes
without noise. Later :math:`p` is about as large as what the noise keeps alive. In the second phase, of fine-tuning, the
loss stays at a floor. For momentum :math:`m`, the variance of :math:`p` is then

.. math:: \frac{lr \, n (1 + m)}{l (1 - m) (2 (1 + m) - lr \, l)}

and the mean loss is :math:`l / 2` times that, close to :math:`lr \, n / (4 (1 - m))` as long as :math:`lr \, l` is small
beside :math:`2 (1 + m)`: proportional to lr. The noise is added to the gradient and has the same variance everywhere; that
of mini-batches is so only near a minimum that does not fit all examples.

The expected loss is the sum of two parts. The bias is what a run without noise has, the loss of the mean; the noise is what a
run that starts at the minimum has. The transient ends where the second becomes the larger one. A single run follows the mean
in the first phase, and wanders around the minimum in the second.

Ten thousand parameters with :math:`l = n = 1` start from 10, each with noise of its own, so that their mean loss is
close to the expected one. The momentum is 0.9.

What is found: mean losses and floors are the predicted ones, within the statistical error.

- From lr 0.1 to 0.01 the floor falls to a tenth, and the transient lasts 74 steps instead of 50. That is cheap: both are
  underdamped, where the rate is :math:`\sqrt m` for every lr. From 0.01 to 0.001, which is overdamped, the next tenth
  costs a transient of 454 steps.
- A large lr first and a small one after its transient reaches the low floor after 320 steps.
- Momentum by itself lowers no floor here: gradient descent with :math:`lr / (1 - m) = 0.01` has the same one as lr 0.001
  within half a percent, after nearly the same transient. That is so where :math:`lr \, l / (1 - m)` is small.

L. Bottou, F. E. Curtis, J. Nocedal, Optimization methods for large-scale machine learning, 2018, has the two phases for
gradient descent; G. Goh, Why momentum really works, Distill, 2017, with momentum.
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

CURVATURE, NOISE, START = 1.0, 1.0, 10.0
MOMENTUM, LRS = 0.9, (0.1, 0.01, 0.001)
COPIES, STEPS = 10_000, 1200
TAIL = 400  # steps at the end over which the floor is measured
SHOWN = "lr 0.01"
DROP = 100  # the step at which a schedule goes from the largest to the smallest lr


class Run(NamedTuple):
    lr: float  # at the end
    momentum: float
    losses: Array  # the mean over all copies, before and after each step
    errors: Array  # the standard errors of `losses`
    sample: Array  # the losses of one copy
    bias: Array  # the expected loss of the mean: what there is without noise
    noise: Array  # the rest of the expected loss: what there is from the minimum
    floor: float  # the mean over the tail, too
    floor_error: float
    floor_predicted: float

    @property
    def expected(self) -> Array:
        return self.bias + self.noise

    def meet(self) -> int:
        """The step from which on the noise is the larger part."""
        return int(np.flatnonzero(self.bias > self.noise)[-1]) + 1

    def transient(self) -> int:
        """Count the steps after which the loss stays below twice the floor."""
        return int(np.flatnonzero(self.losses > 2 * self.floor_predicted)[-1]) + 1


def run(lrs: Array, momentum: float) -> Run:
    """Make a step with each of `lrs`."""
    rng = np.random.default_rng(0)
    p = np.full(COPIES, START)
    state = fm.init(p, lr=lrs[0], momentum=momentum)
    losses, errors, tail = [CURVATURE / 2 * START**2], [0.0], np.zeros(COPIES)
    sample = [losses[0]]
    for t, lr in enumerate(lrs):
        state.lr = lr
        fm.step(p, CURVATURE * p + rng.normal(scale=NOISE**0.5, size=COPIES), state)
        loss = CURVATURE / 2 * p**2
        losses.append(float(loss.mean()))
        sample.append(float(loss[0]))
        errors.append(float(loss.std()) / COPIES**0.5)
        if t >= STEPS - TAIL:
            tail += loss / TAIL
    floor = float(tail.mean()), float(tail.std()) / COPIES**0.5
    variance, _ = theory.heavy_ball_variance(CURVATURE, NOISE, lr=lrs[-1], momentum=momentum)
    parts = expected_losses(lrs, momentum)
    measured = np.array(losses), np.array(errors), np.array(sample)
    return Run(lrs[-1], momentum, *measured, *parts, *floor, CURVATURE / 2 * variance)


def expected_losses(lrs: Array, momentum: float) -> tuple[Array, Array]:
    """Follow the mean of (param, velocity), and its covariance, to which each gradient adds noise."""
    mean, covariance = np.array([START, 0.0]), np.zeros((2, 2))
    losses = [(mean[0] ** 2, 0.0)]
    for lr in lrs:
        matrix = theory.iteration_matrix(CURVATURE, lr=lr, momentum=momentum)
        mean = matrix @ mean
        covariance = matrix @ covariance @ matrix.T + NOISE * np.outer([-lr, 1], [-lr, 1])
        losses.append((mean[0] ** 2, covariance[0, 0]))
    bias, noise = CURVATURE / 2 * np.transpose(losses)
    return bias, noise


def experiment() -> dict[str, Run]:
    runs = {f"lr {lr}": run(np.full(STEPS, lr), MOMENTUM) for lr in LRS}
    schedule = np.where(np.arange(STEPS) < DROP, LRS[0], LRS[-1])
    runs[f"lr {LRS[0]}, from step {DROP} on {LRS[-1]}"] = run(schedule, MOMENTUM)
    runs["gradient descent, lr 0.01"] = run(np.full(STEPS, LRS[-1] / (1 - MOMENTUM)), 0.0)
    return runs


def draw(found: dict[str, Run]) -> Figure:
    figure, (phases, means, floors) = plt.subplots(
        3, 1, figsize=(plot.WIDTH, 11), layout="constrained", height_ratios=[1.2, 1, 1]
    )
    draw_phases(phases, found[SHOWN])
    labels = [
        name if run.momentum == 0 else f"heavy ball, {name.replace('from step 100 on', 'then')}"
        for name, run in found.items()
    ]
    losses = {label: run.losses[:801] for label, run in zip(labels, found.values(), strict=True)}
    plot.loss_curves(means, losses, ylabel="mean loss")
    for run in list(found.values())[: len(LRS)]:
        means.axhline(run.floor_predicted, color="0.5", linewidth=0.8, zorder=0)
    means.set_title("grey: the predicted floors", fontsize="small")
    lr = np.geomspace(LRS[-1] / 2, LRS[0] * 2, 50)
    for name, momentum in (("heavy ball", MOMENTUM), ("gradient descent", 0.0)):
        variance, _ = theory.heavy_ball_variance(CURVATURE, NOISE, lr=lr, momentum=momentum)
        line = {**plot.METHODS[name], "marker": "", "label": f"{name}, predicted"}
        floors.loglog(lr, CURVATURE / 2 * variance, linewidth=1, **line)
    for run in found.values():
        style = plot.METHODS["gradient descent" if run.momentum == 0 else "heavy ball"]
        floors.loglog(run.lr, run.floor, markersize=7, **{**style, "linestyle": "none"})
    floors.set(xlabel="lr at the end", ylabel="floor of the loss")
    floors.set_title("markers: the measured floors", fontsize="small")
    for axes in (means, floors):
        plot.direct_labels(axes)
    return figure


def draw_phases(axes: Any, run: Run) -> None:
    steps, colour = np.arange(801), plot.METHODS["heavy ball"]["color"]
    axes.semilogy(run.sample[:801] + 1e-9, color="0.7", linewidth=0.7, label="one run")
    axes.semilogy(run.losses[:801], color=colour, linewidth=2.2, label=f"mean of {COPIES:,} runs")
    axes.semilogy(run.bias[:801] + 1e-9, "--", color="black", linewidth=1, label="bias: no noise")
    axes.semilogy(
        steps[1:], run.noise[1:801], ":", color="black", linewidth=1.4, label="noise: from the minimum"
    )
    meet = run.meet()
    axes.axvline(meet, color="0.4", linewidth=1)
    for x, side, name in ((meet - 5, "right", "transient"), (meet + 5, "left", "fluctuation")):
        axes.text(x, 150, name, ha=side, va="center", weight="bold")
    axes.set(
        xlabel="step", ylabel="loss", xlim=(-10, 400), ylim=(1e-6, 500), title=f"heavy ball, lr {run.lr}"
    )
    plot.direct_labels(axes)


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
