r"""
Initialisation and momentum
===========================

Sutskever, Martens, Dahl and Hinton (2013) trained deep networks, which had been thought to need second-order methods, by
momentum alone, and said what it takes: an initialisation that neither fades nor saturates, and a large momentum. This is
that experiment, redone small: perceptrons with five hidden layers of 20 tanh learn the handwritten digits of scikit-learn
for 120 batches of 200. Weights are drawn with a standard deviation of a scale by the root of the inputs. For each scale and
momentum the best lr of a grid counts, by the mean training loss of three seeds.

What is found:

- **Neither is enough.** At scale 0.25, signals fade from layer to layer: gradient descent stays at :math:`\log 10 = 2.30`,
  the loss of guessing, and the best momentum comes to 1.5 only. At scale 1, gradient descent comes to 0.11 and momentum
  0.9 to 0.04.
- **How much momentum is best depends on the start.** At scale 2, where gradients are larger, 0.5 is the best of the four.
- **0.97 is too much here**: its velocity takes a third of a hundred steps to fill, and there are 120. The paper makes some
  750,000, and lets momentum rise to 0.99 and above.

I. Sutskever, J. Martens, G. Dahl, G. Hinton, On the importance of initialization and momentum in deep learning, ICML 2013.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fast_momentum as fm
from fast_momentum import plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

SCALES = (0.25, 0.5, 1.0, 2.0)
MOMENTA = (0.0, 0.5, 0.9, 0.97)
EFFECTIVE_LRS = 0.05 * 3.0 ** np.arange(5)  # lr / (1 - momentum)
SIZES = (64, 20, 20, 20, 20, 20, 10)
SEEDS, BATCH, STEPS = 3, 200, 120


class Found(NamedTuple):
    losses: NDArray[np.float64]  # (scale, momentum, lr, seed)

    def best(self) -> NDArray[np.float64]:
        return np.asarray(self.losses.mean(axis=-1).min(axis=-1))


def forward(weights: list[Array], x: Array) -> list[Array]:
    outputs = [x]
    for k, w in enumerate(weights):
        z = outputs[-1] @ w
        outputs.append(z if k == len(weights) - 1 else np.tanh(z))
    return outputs


def losses_and_grads(weights: list[Array], x: Array, y: NDArray[np.int64]) -> tuple[Array, list[Array]]:
    """Of all networks at once, which are along the first axis."""
    outputs = forward(weights, x)
    delta = np.exp(outputs[-1] - outputs[-1].max(axis=-1, keepdims=True))
    delta /= delta.sum(axis=-1, keepdims=True)
    rows = np.arange(len(y))
    losses = -np.log(np.maximum(delta[:, rows, y], 1e-30)).mean(axis=-1)
    delta[:, rows, y] -= 1
    delta /= np.float32(len(y))
    grads = []
    for w, inputs in zip(reversed(weights), reversed(outputs[:-1]), strict=True):
        grads.append(inputs.swapaxes(-1, -2) @ delta)
        delta = (delta @ w.swapaxes(-1, -2)) * (1 - inputs**2)
    return losses, grads[::-1]


def experiment() -> Found:
    digits = load_digits()
    x, y = (digits.data / 8 - 1).astype(np.float32), digits.target
    found = np.empty((len(SCALES), len(MOMENTA), len(EFFECTIVE_LRS), SEEDS))
    for i, scale in enumerate(SCALES):
        found[i] = train(scale, x, y)
    return Found(found)


def train(scale: float, x: Array, y: NDArray[np.int64]) -> Array:
    """All momenta, lrs and seeds at one scale."""
    shape = (len(MOMENTA), len(EFFECTIVE_LRS), SEEDS)
    weights: list[Array] = []
    for n_in, n_out in itertools.pairwise(SIZES):
        drawn = [
            np.random.default_rng([seed, n_in, len(weights)]).standard_normal((n_in, n_out))
            for seed in range(SEEDS)
        ]
        drawn = scale * np.array(drawn) / n_in**0.5
        weights.append(
            np.broadcast_to(drawn, (*shape, n_in, n_out)).reshape(-1, n_in, n_out).astype(np.float32)
        )
    momenta, effective, _ = np.meshgrid(MOMENTA, EFFECTIVE_LRS, range(SEEDS), indexing="ij")
    parts = [list(w) for w in weights]  # views: an array of one network each
    lrs, ms = (effective * (1 - momenta)).ravel().tolist(), momenta.ravel().tolist()
    state = fm.init(parts, lr=[lrs] * len(parts), momentum=[ms] * len(parts))
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        chosen = rng.choice(len(x), BATCH, replace=False)
        _, grads = losses_and_grads(weights, x[chosen], y[chosen])
        fm.step(parts, [list(g) for g in grads], state)
    return losses_and_grads(weights, x, y)[0].reshape(shape)


def draw(found: Found) -> Figure:
    figure, axes = plt.subplots(figsize=(plot.WIDTH, 4), layout="constrained")
    curves = {
        ("gradient descent" if m == 0 else f"heavy ball, momentum {m:g}"): (SCALES, found.best()[:, k])
        for k, m in enumerate(MOMENTA)
    }
    plot.loss_curves(
        axes, curves, xlabel="scale of the initial weights", ylabel="training loss after 120 steps"
    )
    axes.set_xscale("log")
    axes.set_xticks(SCALES, [f"{scale:g}" for scale in SCALES])
    axes.minorticks_off()
    plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    for k, m in enumerate(MOMENTA):
        shown = ", ".join(
            f"{loss:.3f} at {scale:g}" for scale, loss in zip(SCALES, found.best()[:, k], strict=True)
        )
        print(f"momentum {m:4}: training loss {shown}")
    draw(found).savefig("initialisation.png", dpi=150)
    print("Picture: initialisation.png")


if __name__ == "__main__":
    main()
