r"""
The gradient of a policy
========================

A bandit with ten arms: arm a pays :math:`r_a` plus noise of variance 1, and which one pays best is not known. The policy
draws arm a with the probability :math:`p_a`, the softmax of its parameters, and learns from what it was paid: REINFORCE
[Williams, 1992] steps along

.. math:: (r - \bar r) (e_a - p),

an unbiased but very noisy gradient of the expected payment; :math:`\bar r` is the mean of what was paid so far. The loss
is not convex, and a policy that has chosen too early is on a plateau. Each of 1000 policies has its own bandit.

What is found: at each one's best lr of a grid, gradient descent and momentum 0.9 lose the same within the statistical
error, and both lose more with twice or half of it: noise rules. At equal lr they do not compare: momentum moves ten times
as far, and more policies settle on a wrong arm.
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

POLICIES, ARMS, STEPS = 1000, 10, 500
MOMENTA = (0.0, 0.9)
EFFECTIVE_LRS = 0.1 * 2.0 ** np.arange(6)  # lr / (1 - momentum)


class Run(NamedTuple):
    lrs: NDArray[np.floating]
    regrets: Array  # what the best arm pays more, mean over steps: (lr, policy)

    def best(self) -> int:
        return int(self.regrets.mean(axis=1).argmin())


def regret(lr: float, momentum: float) -> Array:
    rng = np.random.default_rng(0)
    pays = rng.standard_normal((POLICIES, ARMS))
    each = np.arange(POLICIES)
    logits, baseline, lost = np.zeros((POLICIES, ARMS)), np.zeros(POLICIES), np.zeros(POLICIES)
    state = fm.init(logits, lr=lr, momentum=momentum, maximize=True)
    for t in range(STEPS):
        policy = np.exp(logits - logits.max(axis=1, keepdims=True))
        policy /= policy.sum(axis=1, keepdims=True)
        arms = (policy.cumsum(axis=1) < rng.random((POLICIES, 1))).sum(axis=1).clip(max=ARMS - 1)
        paid = pays[each, arms] + rng.standard_normal(POLICIES)
        gradient = -policy * (paid - baseline)[:, None]
        gradient[each, arms] += paid - baseline
        fm.step(logits, gradient, state)
        baseline += (paid - baseline) / (t + 1)
        lost += pays.max(axis=1) - pays[each, arms]
    return lost / STEPS


def experiment() -> dict[float, Run]:
    runs = {}
    for momentum in MOMENTA:
        lrs = EFFECTIVE_LRS * (1 - momentum)
        runs[momentum] = Run(lrs, np.array([regret(lr, momentum) for lr in lrs.tolist()]))
    return runs


def draw(found: dict[float, Run]) -> Figure:
    figure, axes = plt.subplots(figsize=(plot.WIDTH, 4), layout="constrained")
    curves = {
        ("heavy ball" if m else "gradient descent"): (EFFECTIVE_LRS, run.regrets.mean(axis=1))
        for m, run in found.items()
    }
    plot.loss_curves(
        axes, curves, xlabel="lr / (1 - momentum)", ylabel="regret, mean of 500 steps", log=False
    )
    axes.set_xscale("log")
    plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for momentum, run in found.items():
        best = run.regrets[run.best()]
        error = best.std() / POLICIES**0.5
        print(
            f"momentum {momentum}: best lr {run.lrs[run.best()]:.3g}, regret {best.mean():.3f} +- {error:.3f} a step"
        )
    draw(found).savefig("bandit.png", dpi=150)
    print("Picture: bandit.png")


if __name__ == "__main__":
    main()
