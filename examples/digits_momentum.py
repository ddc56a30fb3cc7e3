r"""
Digits with and without momentum
================================

A perceptron with one hidden layer learns the handwritten digits of scikit-learn, ten times: each seed draws the initial
weights and the order of the digits. The lr is constant. For momentum 0 and 0.9, each lr of a grid is tried, each twice
the one before, and that with the least mean training loss is the best one. The two are compared at their best: the
best lr of one would be a handicap for the other.

What is found:

- With batches of 32, momentum ends at a mean training loss of 0.09, gradient descent at 0.14, and some seeds of it at more:
  the best lr is near the largest one with which it still trains. With batches of 256 it is 0.08 against 0.22.
- Where `lr/(1 - momentum)` is small, both curves are one: it is the effective lr that counts. Momentum's go on where
  gradient descent's end. This is where its gain is from.
- The accuracy on digits that were held out is 95 to 96 % with momentum and 94 to 95 % without; the ranges of the seeds
  overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fast_momentum as fm
from fast_momentum import plot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float32]
    Params = dict[str, Array]  # with the seeds along the first axis

SEEDS, HIDDEN = 10, 32
STEPS = {32: 210, 256: 50}  # by batch size: 5 and 10 epochs
MOMENTA = (0.0, 0.9)
EFFECTIVE_LRS = 0.1 * 2.0 ** np.arange(7)  # lr / (1 - momentum)


class Run(NamedTuple):
    lrs: Array
    losses: Array  # of all training digits in the end: (lr, seed)
    accuracies: Array  # of those held out

    def best(self) -> int:
        return int(np.argmin(self.losses.mean(axis=1)))


def batches(n: int, size: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """The indices of a batch, for each seed."""
    rngs = [np.random.default_rng(seed) for seed in range(SEEDS)]
    each = n // size
    for step in range(steps):
        if step % each == 0:
            orders = np.stack([rng.permutation(n) for rng in rngs])
        yield orders[:, step % each * size :][:, :size]


def new_params() -> Params:
    rngs = [np.random.default_rng(100 + seed) for seed in range(SEEDS)]
    first = [rng.standard_normal((64, HIDDEN)) * (2 / 64) ** 0.5 for rng in rngs]
    second = [rng.standard_normal((HIDDEN, 10)) * (2 / HIDDEN) ** 0.5 for rng in rngs]
    offsets = {"b": np.zeros((SEEDS, 1, HIDDEN), np.float32), "c": np.zeros((SEEDS, 1, 10), np.float32)}
    return {"w": np.array(first, np.float32), "u": np.array(second, np.float32), **offsets}


def forward(params: Params, x: Array) -> tuple[Array, Array]:
    hidden = np.maximum(x @ params["w"] + params["b"], 0)
    return hidden, hidden @ params["u"] + params["c"]


def loss_and_grads(params: Params, x: Array, y: NDArray[np.int64]) -> tuple[Array, Params]:
    hidden, logits = forward(params, x)
    delta = np.exp(logits - logits.max(axis=-1, keepdims=True))
    delta /= delta.sum(axis=-1, keepdims=True)
    picked = np.take_along_axis(delta, y[..., None], axis=-1)
    losses = -np.log(np.maximum(picked, 1e-30)).mean(axis=(1, 2))
    np.put_along_axis(delta, y[..., None], picked - 1, axis=-1)
    delta /= np.float32(y.shape[-1])
    back = (delta @ params["u"].swapaxes(1, 2)) * (hidden > 0)
    grads = {"w": x.swapaxes(-1, -2) @ back, "b": back.sum(axis=1, keepdims=True),
             "u": hidden.swapaxes(1, 2) @ delta, "c": delta.sum(axis=1, keepdims=True)}  # fmt: skip
    return losses, grads


def run(batch: int, momentum: float, data: Any) -> Run:
    x, x_test, y, y_test = data
    params = [new_params() for _ in EFFECTIVE_LRS]
    lrs = EFFECTIVE_LRS * (1 - momentum)
    state = fm.init(params, lr=[dict.fromkeys("wbuc", lr) for lr in lrs.tolist()], momentum=momentum)
    for chosen in batches(len(x), batch, STEPS[batch]):
        fm.step(params, [loss_and_grads(each, x[chosen], y[chosen])[1] for each in params], state)
    everything = np.broadcast_to(y, (SEEDS, len(y)))
    losses = [loss_and_grads(each, x, everything)[0] for each in params]
    right = [(forward(each, x_test)[1].argmax(axis=-1) == y_test).mean(axis=1) for each in params]
    return Run(lrs, np.array(losses), np.array(right))


def experiment() -> dict[int, dict[float, Run]]:
    digits = load_digits()
    pixels = (digits.data / 16).astype(np.float32)
    data = train_test_split(pixels, digits.target, random_state=0, stratify=digits.target)
    return {batch: {momentum: run(batch, momentum, data) for momentum in MOMENTA} for batch in STEPS}


def draw(found: dict[int, dict[float, Run]]) -> Figure:
    figure, row = plt.subplots(len(found), 1, figsize=(plot.WIDTH, 8), layout="constrained")
    for axes, (batch, runs) in zip(row, found.items(), strict=True):
        curves = {
            name: (EFFECTIVE_LRS, run.losses.mean(axis=1))
            for name, run in zip(plot.METHODS, runs.values(), strict=False)
        }
        plot.loss_curves(axes, curves, xlabel="lr / (1 - momentum)", ylabel="training loss in the end",
                         title=f"batches of {batch}: mean and range of ten seeds")  # fmt: skip
        for line, run in zip(list(axes.lines), runs.values(), strict=True):
            least, most = run.losses.min(axis=1), run.losses.max(axis=1)
            axes.fill_between(EFFECTIVE_LRS, least, most, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_xscale("log")
        plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for batch, runs in found.items():
        for momentum, run in runs.items():
            k = run.best()
            loss, accuracy = run.losses[k], run.accuracies[k]
            print(
                f"batches of {batch:3}, momentum {momentum:3}: best lr {run.lrs[k]:.3g}, "
                f"loss {loss.mean():.4f} +- {loss.std(ddof=1):.4f}, "
                f"held-out accuracy {accuracy.mean():.2%} +- {accuracy.std(ddof=1):.2%}"
            )
    draw(found).savefig("digits_momentum.png", dpi=150)
    print("Picture: digits_momentum.png")


if __name__ == "__main__":
    main()
