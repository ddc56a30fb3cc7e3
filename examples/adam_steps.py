r"""
How long a step of Adam is
==========================

Adam divides a mean of gradients by the root of a mean of their squares, so the unit of the gradient cancels, and lr is a
length in the unit of the parameters. What is found, with the usual betas of 0.9 and 0.999, and as
`fast_momentum.theory` predicts it:

- **A gradient that stays** makes steps of length lr from the first one on, whatever its size. In the form ``uncorrected``
  the first step has 3.2 times that length, and the longest, the twelfth, 6.6 times: the second moment is slower to fill
  than the first. In ``folded`` eps counts for more at first: the first step of a gradient of 1e-7 is 0.24 lr, against
  0.91 lr in ``corrected``.
- **A single gradient after a long silence** makes a step of 3.2 lr, and 31.8 lr in all, as the first moment lasts longer
  than one step and the second moment hardly falls in the meantime.
- **No step is longer than 7.27 lr.** The paper has 3.16 lr for "the most severe case", which is the silence; gradients that
  grow by 11 % a step are worse. The corrections hold early steps below that: step 10 to 1.04 lr.
- **Noise makes steps shorter.** On average they have the length :math:`lr\,|\mu|/\sqrt{\mu^2 + \sigma^2}`: Adam slows down
  where gradients contradict each other. Where all is noise, a single step still has a length of 0.23 lr (root mean square).

D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, 2015.
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

BETA1, BETA2 = 0.9, 0.999
FORMS = ["corrected", "folded", "uncorrected"]
SIZES = {"gradient 1": 1.0, "gradient 1e-7": 1e-7}
STEPS = 4000
SILENCE, AFTER = 10_000, 60
PRINTED = (1 - BETA1) / np.sqrt(1 - BETA2)  # the bound of the paper, per lr
LENGTHS = np.array([1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000])  # of sequences
RATIOS = np.geomspace(0.1, 30, 12)  # of mean to standard deviation
COPIES, LAST = 500, 200  # of which the mean is taken


class Found(NamedTuple):
    constant: dict[str, dict[str, Array]]  # by size and form, the length of each step per lr
    spike: Array  # from the gradient on
    longest: Array  # the last step of the worst sequence of each of LENGTHS
    noisy: Array  # mean length, for each of RATIOS
    spread: float  # standard deviation of a step of noise alone


def lengths(grads: Array, **options: Any) -> Array:
    """How far a step goes down with each row of `grads`, per lr."""
    p = np.zeros(grads.shape[1:])
    state = fm.adam(p, lr=1.0, **options)
    found = np.empty_like(grads)
    for row, grad in zip(found, grads, strict=True):
        p[...] = 0
        fm.step(p, grad, state)
        row[...] = -p
    return found


def growing(n: int) -> Array:
    """The gradients with the longest step n: in proportion to the weight of each in v by that in s."""
    return (BETA2 / BETA1) ** np.arange(1.0 - n, 1)[:, None]


def noisy() -> tuple[Array, float]:
    """The mean length in the steps after STEPS, and the spread without a mean."""
    rng = np.random.default_rng(0)
    ratios = np.append(RATIOS, 0.0)
    shape = (len(ratios), COPIES)
    p = np.zeros(shape)
    state = fm.adam(p, lr=1.0)
    found = []
    for t in range(STEPS + LAST):
        p[...] = 0
        fm.step(p, ratios[:, None] + rng.standard_normal(shape), state)
        if t >= STEPS:
            found.append(-p)
    steps = np.array(found)
    return steps.mean(axis=(0, 2))[:-1], float(steps[:, -1].std())


def experiment() -> Found:
    constant = {
        name: {form: lengths(np.full((STEPS, 1), size), form=form)[:, 0] for form in FORMS}
        for name, size in SIZES.items()
    }
    silence = np.zeros((SILENCE + 1 + AFTER, 1))
    silence[SILENCE] = 1.0
    mean, spread = noisy()
    return Found(
        constant=constant,
        spike=lengths(silence)[SILENCE:, 0],
        longest=np.array([lengths(growing(n), eps=0.0)[-1, 0] for n in LENGTHS]),
        noisy=mean,
        spread=spread,
    )


def draw(found: Found) -> Figure:
    figure, (steady, spike, worst, noise) = plt.subplots(4, 1, figsize=(plot.WIDTH, 12), layout="constrained")
    figure.suptitle("lines predicted, markers measured", fontsize="small")
    t = np.arange(1, STEPS + 1)
    shown = {
        "corrected": ("gradient 1", "corrected"),
        "folded, gradient 1e-7": ("gradient 1e-7", "folded"),
        "uncorrected": ("gradient 1", "uncorrected"),
    }
    curves = {
        label: (t, found.constant[name][form], -theory.adam_step(t, SIZES[name], lr=1.0, form=form))
        for label, (name, form) in shown.items()
    }
    plot.predictions(steady, curves, ylabel="length of the step / lr", title="a gradient that stays")
    steady.set_xscale("log")
    age = np.arange(AFTER + 1)
    plot.predictions(
        spike,
        {"Adam": (age, found.spike, -theory.adam_spike(age, SILENCE, lr=1.0))},
        xlabel="steps after the gradient",
        ylabel="length of the step / lr",
        title="one gradient after a long silence",
    )
    plot.predictions(
        worst,
        {"gradients that grow": (LENGTHS, found.longest, theory.adam_bound(LENGTHS, lr=1.0))},
        ylabel="length of the last step / lr",
        title="the longest step",
    )
    worst.axhline(PRINTED, color="0.4", linewidth=1)
    worst.text(1, PRINTED, "bound of the paper", va="bottom", fontsize="small")
    worst.set_xscale("log")
    plot.predictions(
        noise,
        {"Adam": (RATIOS, found.noisy, -theory.adam_step(STEPS, RATIOS, noise=1.0, lr=1.0))},
        xlabel="mean / standard deviation of the gradient",
        ylabel="mean length of a step / lr",
        title="noise",
    )
    noise.set(xscale="log", yscale="log")
    for axes in figure.axes:
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for name, forms in found.constant.items():
        for form, each in forms.items():
            print(
                f"{name:13} {form:11}: step 1 {each[0]:.3f}, longest {each.max():.3f} at {each.argmax() + 1}, "
                f"step {STEPS} {each[-1]:.3f} lr"
            )
    print(f"one gradient after {SILENCE} of 0: {found.spike[0]:.3f}, in all {found.spike.sum():.1f} lr")
    print(
        "longest step: "
        + ", ".join(f"{n}: {found.longest[n == LENGTHS].item():.3f}" for n in (1, 10, 100, 1000))
        + f"; of all {theory.adam_bound(10**6, lr=1.0):.3f}, the paper's {PRINTED:.3f} lr"
    )
    print(f"noise alone: {found.spread:.3f} (predicted {np.sqrt(theory.variance_reduction(BETA1)):.3f}) lr")
    draw(found).savefig("adam_steps.png", dpi=150)
    print("Picture: adam_steps.png")


if __name__ == "__main__":
    main()
