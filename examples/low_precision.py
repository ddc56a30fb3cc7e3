r"""
Velocities in 16 and in 8 bits
==============================

A step is bound by memory, and the velocity is two fifths of what it moves. Stored in bfloat16 or int8 it is a
half or a quarter of that. What does the rounding do to a training? Measured on two problems, ten seeds each,
the same starts and batches for every storage:

- **digits**: a perceptron, 64-128-128-10 with tanh, learns the 1797 handwritten digits of scikit-learn in 10
  epochs of batches of 32. Loss: the mean cross-entropy over all of them at the end.
- **GPT-shaped**: two blocks as in a GPT, without biases and layer norms: causal attention with one head, and a
  perceptron of four times the width with tanh, each added to its input. Width 32, 16 positions. In 50 steps,
  each on 16 new sequences of normal random numbers, it is fitted to the outputs of another such network with
  random weights. Loss: the mean square over 256 sequences at the end.

The rounding makes no difference that can be told from chance: the mean losses differ by less than two standard
errors of that difference, and by less than a hundredth of the deviation between seeds. Both trainings are small
and short, and say nothing about long ones. One rounding to bfloat16 is off by up to :math:`2^{-9}` of the
velocity, one to int8 by up to 1/254 of the largest velocity among 256 neighbours: there, small velocities among
large ones become 0.

In the last picture, what rounding of the *parameters* does: 200 000 steps with a gradient of 1 and lr
:math:`10^{-9}`, from 1. Each is far less than half the distance from 1 to the next float32, and plain
float32 loses all of them. With ``compensated=True`` none is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fast_momentum as fm
from fast_momentum import plot

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"  # of float32, or of labels

STORAGES = ["float32", "bfloat16", "int8"]
SEEDS = range(10)
TINY, TINY_STEPS, EVERY = 1e-9, 200_000, 2000
WIDTH, POSITIONS = 32, 16


class Task(NamedTuple):
    params: list[Array]
    loss: Callable[[list[Array], Array, Any], tuple[float, list[Array]]]  # and its gradient
    batches: list[tuple[Array, Any]]
    whole: tuple[Array, Any]  # what the loss at the end is of
    lr: float


class Found(NamedTuple):
    losses: dict[str, dict[str, NDArray[np.float64]]]  # at the end, by task and storage, for each of SEEDS
    tiny: dict[bool, NDArray[np.float64]]  # the distance from 1 after every EVERY steps, by `compensated`


def matrices(rng: np.random.Generator, *shapes: tuple[int, int]) -> list[Array]:
    """Of variance 1 / inputs."""
    return [(rng.standard_normal(shape) / np.sqrt(shape[0])).astype("f4") for shape in shapes]


def softmax(x: Array) -> Array:
    exponentials: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return exponentials


def cross_entropy(params: list[Array], x: Array, labels: NDArray[np.int64]) -> tuple[float, list[Array]]:
    """Of a perceptron; its parameters are weights and biases by turns."""
    layers = list(zip(params[::2], params[1::2], strict=True))
    outputs = [x]
    for w, b in layers[:-1]:
        outputs.append(np.tanh(outputs[-1] @ w + b))
    w, b = layers[-1]
    probabilities = softmax(outputs[-1] @ w + b)
    right = np.arange(len(x)), labels
    loss = -np.log(probabilities[right]).mean()
    delta = probabilities
    delta[right] -= 1
    delta /= np.float32(len(x))
    grads: list[Array] = []
    for (w, _), output in zip(reversed(layers), reversed(outputs), strict=True):
        grads = [output.T @ delta, delta.sum(axis=0), *grads]
        delta = (delta @ w.T) * (1 - output**2)
    return float(loss), grads


def digits(rng: np.random.Generator) -> Task:
    data = load_digits()
    x, labels = (data.data / 16).astype("f4"), data.target
    weights = matrices(rng, (64, 128), (128, 128), (128, 10))
    params = [array for w in weights for array in (w, np.zeros(w.shape[1], "f4"))]
    rows = [batch for _ in range(10) for batch in np.array_split(rng.permutation(len(x)), len(x) // 32)]
    return Task(params, cross_entropy, [(x[batch], labels[batch]) for batch in rows], (x, labels), 0.02)


MASK = np.triu(np.full((POSITIONS, POSITIONS), -np.inf, "f4"), 1)  # no position looks at a later one
SCALE = np.float32(WIDTH**-0.5)
BLOCK = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]


def transformer(params: list[Array], x: Array) -> tuple[Array, list[tuple[Array, ...]]]:
    """The output, and of each block the matrices and what else its gradient needs."""
    kept: list[tuple[Array, ...]] = []
    for first in range(0, len(params), len(BLOCK)):
        inside, out, up, down = params[first : first + len(BLOCK)]
        queries, keys, values = np.split(x @ inside, 3, axis=-1)
        attention = softmax(SCALE * (queries @ keys.mT) + MASK)
        mixed = attention @ values
        middle = x + mixed @ out
        hidden = np.tanh(middle @ up)
        kept.append((inside, out, up, down, x, queries, keys, values, attention, mixed, middle, hidden))
        x = middle + hidden @ down
    return x, kept


def times(inputs: Array, delta: Array) -> Array:
    """The gradient of a matrix with which `inputs` were multiplied."""
    return inputs.reshape(-1, inputs.shape[-1]).T @ delta.reshape(-1, delta.shape[-1])


def mean_square(params: list[Array], x: Array, wanted: Array) -> tuple[float, list[Array]]:
    """Of a transformer."""
    output, kept = transformer(params, x)
    delta = (output - wanted) * np.float32(2 / output.size)
    grads: list[Array] = []
    for inside, out, up, down, given, queries, keys, values, attention, mixed, middle, hidden in kept[::-1]:
        d_hidden = delta @ down.T * (1 - hidden**2)
        d_middle = delta + d_hidden @ up.T
        d_mixed = d_middle @ out.T
        d_attention = d_mixed @ values.mT
        d_scores = SCALE * attention * (d_attention - (d_attention * attention).sum(axis=-1, keepdims=True))
        d_inside = np.concatenate([d_scores @ keys, d_scores.mT @ queries, attention.mT @ d_mixed], axis=-1)
        pairs = (given, d_inside), (mixed, d_middle), (middle, d_hidden), (hidden, delta)
        grads = [*(times(*pair) for pair in pairs), *grads]
        delta = d_middle + d_inside @ inside.T
    return float(np.mean((output - wanted) ** 2)), grads


def gpt(rng: np.random.Generator) -> Task:
    params, goal = matrices(rng, *BLOCK * 2), matrices(rng, *BLOCK * 2)
    inputs = [rng.standard_normal((n, POSITIONS, WIDTH), "f4") for n in [16] * 50 + [256]]
    *batches, whole = [(x, transformer(goal, x)[0]) for x in inputs]
    return Task(params, mean_square, batches, whole, 0.1)


def loss_at_the_end(task: Task, storage: str) -> float:
    state = fm.init(task.params, lr=task.lr, momentum=0.9, velocity_dtype=storage)
    for x, wanted in task.batches:
        fm.step(task.params, task.loss(task.params, x, wanted)[1], state)
    return task.loss(task.params, *task.whole)[0]


def tiny_steps(compensated: bool) -> NDArray[np.float64]:
    p, g = np.ones(1, "f4"), np.ones(1, "f4")
    state = fm.init(p, lr=TINY, momentum=0.0, compensated=compensated)
    distances = []
    for done in range(1, TINY_STEPS + 1):
        fm.step(p, g, state)
        if done % EVERY == 0:
            distances.append(1 - float(p[0]))
    return np.array(distances)


TASKS = {"digits": digits, "GPT-shaped": gpt}


def losses(task: Callable[[np.random.Generator], Task], storage: str) -> NDArray[np.float64]:
    return np.array([loss_at_the_end(task(np.random.default_rng(seed)), storage) for seed in SEEDS])


def experiment() -> Found:
    return Found(
        losses={
            name: {storage: losses(task, storage) for storage in STORAGES} for name, task in TASKS.items()
        },
        tiny={compensated: tiny_steps(compensated) for compensated in (False, True)},
    )


def draw(found: Found) -> Figure:
    figure, axes = plt.subplots(3, 1, figsize=(plot.WIDTH, 10), layout="constrained")
    for ax, (name, by_storage) in zip(axes, found.losses.items(), strict=False):
        table = np.array(list(by_storage.values()))
        mean, deviation = table.mean(axis=1), table.std(axis=1, ddof=1)
        ax.plot(STORAGES, table, color="0.75", linewidth=0.8)
        ax.errorbar(STORAGES, mean, deviation, fmt="o", color="black", capsize=6)
        ax.margins(x=0.2)
        ax.set(title=f"{name}: mean, deviation, ten seeds", xlabel="velocity_dtype", ylabel="loss at the end")
    steps = np.arange(EVERY, TINY_STEPS + 1, EVERY)
    curves = {f"compensated={compensated}": (steps, way) for compensated, way in found.tiny.items()}
    plot.loss_curves(axes[2], curves, ylabel="way from 1", log=False, title=f"float32, steps of {TINY:g}")
    axes[2].set_xticks([0, TINY_STEPS // 2, TINY_STEPS], ["0", f"{TINY_STEPS // 2:,}", f"{TINY_STEPS:,}"])
    plot.direct_labels(axes[2])
    return figure


def main() -> None:
    found = experiment()
    print("loss at the end, mean and deviation over ten seeds; difference to float32 and its standard error:")
    for name, by_storage in found.losses.items():
        for storage, values in by_storage.items():
            difference = values - by_storage["float32"]
            print(
                f"{name:10s} {storage:8s} {values.mean():.4f} +- {values.std(ddof=1):.4f}   "
                f"{difference.mean():+.6f} +- {difference.std(ddof=1) / np.sqrt(len(values)):.6f}"
            )
    for compensated, way in found.tiny.items():
        print(f"{TINY_STEPS:,} steps of {TINY:g}, compensated={compensated}: {way[-1]:.7f} from 1")
    draw(found).savefig("low_precision.png", dpi=150)
    print("Picture: low_precision.png")


if __name__ == "__main__":
    main()
