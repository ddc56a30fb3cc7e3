r"""
What changing lr does in each form
==================================

While lr is constant the three forms trace one path (``ema`` with lr :math:`/(1 - m)`). When lr changes they
part, for the velocity of ``lr_inside`` contains lr:

.. math:: \text{lr\_outside: } v = m v + g,\; p = p - \text{lr}\, v \qquad
   \text{lr\_inside: } v = m v + \text{lr}\, g,\; p = p - v

With gradients of 1, momentum 0.9 and an lr that falls from 0.1 to 0.01 after one step, the parameters are
-0.1, -0.119 in ``lr_outside`` and -0.1, -0.2 in ``lr_inside``: the first obeys at once, the second coasts on.
``ema`` does as ``lr_outside``. ``state.set_lr(lr, rescale_velocity=True)`` multiplies the velocity of
``lr_inside`` by the ratio of the new lr to the old; then it follows ``lr_outside``, to rounding.

Neither is wrong, but they are not the same. On :math:`x^2/2` with noisy gradients lr is divided by ten and,
200 steps later, multiplied by ten again:

- After the drop the mean loss of ``lr_inside`` *rises* first, to more than three times of what it was,
  because the velocity still has the size of the old noise and the small lr is slow to call it back. It takes
  23 steps to be below the old loss again. In ``lr_outside`` the loss falls from the first step.
- After the restart ``lr_outside`` multiplies what it has gathered by ten at once and is at the large loss
  after five steps, around which it swings for a while. ``lr_inside`` gathers speed again, and is at 94 % of it after 25.

Both are predicted by the theory, from the covariance of parameter and velocity.
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

MOMENTUM = 0.9
LARGE, SMALL = 0.1, 0.01
WAYS: dict[str, Any] = {
    "lr_outside": "lr_outside",
    "ema": "ema",
    "lr_inside": "lr_inside",
    "lr_inside, rescaled": "lr_inside",
}
SCHEDULE = np.array([LARGE] * 50 + [SMALL] * 200 + [LARGE] * 150)
SETTLE = 250  # steps with LARGE before the schedule of the noisy runs
RUNS = 4000


class Found(NamedTuple):
    example: dict[str, Array]  # the parameter after each of two steps
    lengths: dict[str, Array]  # of the steps of SCHEDULE, for a gradient of 1
    loss: dict[str, Array]  # with SCHEDULE on x^2/2, gradient noise of variance 1: mean over RUNS
    predicted: dict[str, Array]  # the same, for the two ways that differ


def new_state(way: str, x: Array) -> fm.State:
    state = fm.init(x, lr=LARGE, momentum=MOMENTUM, form=WAYS[way])
    set_lr(way, state, LARGE)
    return state


def set_lr(way: str, state: fm.State, lr: float) -> None:
    if way == "ema":
        state.lr = lr / (1 - MOMENTUM)
    elif way == "lr_inside, rescaled":
        state.set_lr(lr, rescale_velocity=True)
    else:
        state.lr = lr


def steady(way: str, schedule: Array) -> Array:
    """The parameter after each step, from 0, with gradients of 1."""
    x = np.zeros(1)
    state = new_state(way, x)
    path = []
    for lr in schedule:
        set_lr(way, state, lr)
        fm.step(x, np.ones(1), state)
        path.append(x.item())
    return np.array(path)


def noisy_loss(way: str) -> Array:
    rng = np.random.default_rng(0)
    x = np.zeros(RUNS)
    state = new_state(way, x)
    losses = []
    for lr in np.concatenate([np.full(SETTLE, LARGE), SCHEDULE]):
        set_lr(way, state, lr)
        fm.step(x, x + rng.standard_normal(RUNS), state)
        losses.append(np.mean(x**2) / 2)
    return np.array(losses[SETTLE:])


def predicted_loss(form: Any) -> Array:
    """From the covariance of (parameter, velocity): R C R^T, and what the noise of a step adds."""
    covariance = theory.stationary_covariance(1.0, 1.0, lr=LARGE, momentum=MOMENTUM, form=form)
    losses = []
    for lr in SCHEDULE:
        r = theory.iteration_matrix(1.0, lr=lr, momentum=MOMENTUM, form=form)
        noise = np.array([-lr, lr if form == "lr_inside" else 1.0])
        covariance = r @ covariance @ r.T + np.outer(noise, noise)
        losses.append(covariance[0, 0] / 2)
    return np.array(losses)


def experiment() -> Found:
    return Found(
        example={way: steady(way, np.array([LARGE, SMALL])) for way in WAYS},
        lengths={way: -np.diff(steady(way, SCHEDULE), prepend=0.0) for way in WAYS},
        loss={way: noisy_loss(way) for way in WAYS},
        predicted={way: predicted_loss(WAYS[way]) for way in ("lr_outside", "lr_inside")},
    )


def draw(found: Found) -> Figure:
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(plot.WIDTH, 7.5), sharex=True, layout="constrained")
    labels = {"lr_outside": "lr_outside, ema, lr_inside rescaled", "lr_inside": "lr_inside"}
    lengths = {label: found.lengths[way] for way, label in labels.items()}
    plot.loss_curves(top, lengths, ylabel="length of the step, gradients of 1")
    losses = {label: found.loss[way] for way, label in labels.items()}
    plot.loss_curves(bottom, losses, ylabel=f"mean loss of {RUNS} noisy runs")
    for way, label in zip(labels, ["predicted", "_"], strict=True):
        bottom.plot(found.predicted[way], color="0.6", linewidth=4, alpha=0.6, zorder=1, label=label)
    for k in np.flatnonzero(np.diff(SCHEDULE)) + 1:
        for axes in (top, bottom):
            axes.axvline(k, color="0.4", linewidth=1)
        top.text(k, 3.5, f" lr = {SCHEDULE[k]:g}", va="center", fontsize="small")
    top.set_ylim(0.05, 5)
    for axes in (top, bottom):
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print(f"gradients of 1, lr {LARGE:g}, then {SMALL:g}; the parameter after each step:")
    for way, path in found.example.items():
        print(f"  {way}: " + ", ".join(f"{x:.4g}" for x in path))
    drop = int(np.argmax(SCHEDULE == SMALL))
    print(
        f"noisy quadratic, mean loss of {RUNS} runs and predicted, when lr falls from {LARGE:g} to {SMALL:g}:"
    )
    for way in found.predicted:
        for after in (0, 10, 20, 40):
            measured, predicted = found.loss[way][drop + after - 1], found.predicted[way][drop + after - 1]
            print(f"  {way}, {after:2d} steps later: {measured:.3f}, {predicted:.3f}")
    draw(found).savefig("changing_lr.png", dpi=150)
    print("Picture: changing_lr.png")


if __name__ == "__main__":
    main()
