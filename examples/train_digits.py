"""A multilayer perceptron in plain NumPy learns handwritten digits, trained with fast_momentum.

    python examples/train_digits.py
    python examples/train_digits.py --rule adam
    python examples/train_digits.py --resume digits

The last one keeps a checkpoint of each of the last epochs in the folder `digits`, and goes on from there, with the same
bits, when it was stopped.

The 1797 digits are those that scikit-learn ships; a quarter is held out. The same training runs with `fast_momentum.step`,
with the same step in NumPy as one writes it who avoids temporaries, and without momentum, in turns, epoch by epoch. One
table says what share of training the steps are, and what is gained; with and without `fast_momentum` the parameters must end
up bit-identical. Rules other than momentum are held against `fast_momentum.reference`, which is written to be read and not
to be timed. With matplotlib the loss curves are saved as digits_loss.png, with rich there is a bar while it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fast_momentum as fm
from fast_momentum import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Layers = list[dict[str, NDArray[np.float32]]]
    Step = Callable[[Layers, float], object]  # of gradients and lr

SIZES = [64, 256, 256, 10]
BATCH = 32
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
OURS, IN_PLACE, REFERENCE, PLAIN = "fast_momentum", "NumPy in place", "reference", "fast_momentum, momentum 0"
RULES = {row["rule"]: row for row in _core.rules}


def new_layers(rng: np.random.Generator, sizes: list[int] = SIZES) -> Layers:
    """He's initialisation: weights of variance 2 / inputs."""
    return [
        {
            "w": (rng.standard_normal((n_in, n_out)) * np.sqrt(2 / n_in)).astype(np.float32),
            "b": np.zeros(n_out, np.float32),
        }
        for n_in, n_out in itertools.pairwise(sizes)
    ]


def forward(layers: Layers, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """The input, each hidden layer after its ReLU, and the logits."""
    outputs = [x]
    for k, layer in enumerate(layers):
        z = outputs[-1] @ layer["w"] + layer["b"]
        outputs.append(z if k == len(layers) - 1 else np.maximum(z, 0))
    return outputs


def loss_and_gradient(
    layers: Layers, x: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[float, Layers]:
    """Mean cross-entropy, and its gradient in containers like `layers`."""
    outputs = forward(layers, x)
    logits = outputs[-1] - outputs[-1].max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = -np.log(probabilities[rows, labels]).mean()
    delta = probabilities
    delta[rows, labels] -= 1
    delta /= np.float32(len(x))
    grads: Layers = []
    for layer, inputs in zip(reversed(layers), reversed(outputs[:-1]), strict=True):
        grads.append({"w": inputs.T @ delta, "b": delta.sum(axis=0)})
        delta = (delta @ layer["w"].T) * (inputs > 0)
    return float(loss), grads[::-1]


def accuracy(layers: Layers, x: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float((forward(layers, x)[-1].argmax(axis=1) == labels).mean())


def in_place(layers: Layers) -> Step:
    """Nesterov's momentum and weight decay in NumPy, without temporaries; one rounding for each operation, as `fm.step`."""
    arrays = [(name, p, np.zeros_like(p), np.empty_like(p)) for layer in layers for name, p in layer.items()]
    m, decay = np.float32(MOMENTUM), np.float32(WEIGHT_DECAY)

    def step(grads: Layers, lr: float) -> None:
        flat = (g for layer in grads for g in layer.values())
        for (_, p, v, scratch), g in zip(arrays, flat, strict=True):
            np.multiply(p, decay, out=scratch)
            np.add(g, scratch, out=g)
            np.multiply(v, m, out=v)
            np.add(v, g, out=v)
            np.multiply(v, m, out=scratch)
            np.add(g, scratch, out=scratch)
            np.multiply(scratch, np.float32(lr), out=scratch)
            np.subtract(p, scratch, out=p)

    return step


def stepping(package: Any, layers: Layers, state: Any) -> Step:
    def step(grads: Layers, lr: float) -> None:
        state.lr = lr
        package.step(layers, grads, state)

    return step


@dataclass
class Run:
    """One contender trains a network of its own, an epoch at a time."""

    layers: Layers
    step: Step
    lr: float
    epochs: int
    state: Any = None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    losses: list[float] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)  # of each epoch, and of the steps in it

    @property
    def done(self) -> int:
        return len(self.losses)

    def epoch(self, x: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        lr = self.lr * (1 - self.done / self.epochs)
        losses, inside, begin = [], 0.0, time.perf_counter()
        for batch in np.array_split(self.rng.permutation(len(x)), len(x) // BATCH):
            loss, grads = loss_and_gradient(self.layers, x[batch], labels[batch])
            before = time.perf_counter()
            self.step(grads, lr)
            inside += time.perf_counter() - before
            losses.append(loss)
        self.seconds.append([time.perf_counter() - begin, inside])
        self.losses.append(float(np.mean(losses)))

    def save(self, checkpoints: fm.Checkpoints) -> None:
        extra = {"losses": self.losses, "seconds": self.seconds, "rng": self.rng.bit_generator.state}
        checkpoints.save(self.layers, self.state, extra)

    def restore(self, checkpoints: fm.Checkpoints) -> None:
        if saved := checkpoints.restore(self.layers, self.state):
            self.losses, self.seconds = saved["losses"], saved["seconds"]
            self.rng.bit_generator.state = saved["rng"]
            print(f"{OURS}: resumed after epoch {self.done}, step {self.state.step_count}", flush=True)


def new_runs(rule: str, lr: float, epochs: int) -> dict[str, Run]:
    def run(package: Any, lr: float, **options: Any) -> Run:
        layers = new_layers(np.random.default_rng(1))
        state = getattr(package, RULES[rule]["made_by"])(layers, lr=lr, weight_decay=WEIGHT_DECAY, **options)
        return Run(layers, stepping(package, layers, state), lr, epochs, state)

    if rule != "momentum":
        return {OURS: run(fm, lr), REFERENCE: run(fm.reference, lr)}
    layers = new_layers(np.random.default_rng(1))
    return {
        OURS: run(fm, lr, momentum=MOMENTUM, nesterov=True),
        IN_PLACE: Run(layers, in_place(layers), lr, epochs),
        PLAIN: run(fm, lr / (1 - MOMENTUM), momentum=0.0),  # which goes as far along a gradient that stays
    }


def with_bar(epochs: Iterable[int], total: int) -> Iterable[int]:
    if importlib.util.find_spec("rich") is None:
        return epochs
    from rich.console import Console
    from rich.progress import track

    return track(epochs, "epochs", total=total, console=Console(stderr=True), transient=True)


def train(runs: dict[str, Run], data: Any, checkpoints: fm.Checkpoints | None) -> None:
    """In turns: what disturbs one disturbs all."""
    x, _, labels, _ = data
    shuffled, order, epochs = random.Random(0), list(runs.values()), runs[OURS].epochs
    for epoch in with_bar(range(epochs), epochs):
        shuffled.shuffle(order)
        for run in order:
            if run.done == epoch:  # and not resumed after it
                run.epoch(x, labels)
                if checkpoints and run is runs[OURS]:
                    run.save(checkpoints)


def print_table(runs: dict[str, Run], data: Any) -> None:
    _, x_test, _, labels_test = data
    print(f"{'':26}{'lr':>7}{'an epoch':>10}{'of that steps':>15}{'loss':>9}{'held out':>10}")
    for name, run in runs.items():
        epoch = statistics.median(whole for whole, _ in run.seconds)
        share = statistics.median(steps / whole for whole, steps in run.seconds)
        time_of = "" if name == REFERENCE else f"{epoch * 1e3:7.1f} ms{share:15.1%}"
        held_out = accuracy(run.layers, x_test, labels_test)
        print(f"{name:26}{run.lr:7.3g}{time_of:>25}{run.losses[-1]:9.4f}{held_out:10.2%}")


def times_as_long(slower: Run, faster: Run, what: int) -> str:
    """Epoch by epoch: median and quartiles."""
    ratios = [a[what] / b[what] for a, b in zip(slower.seconds, faster.seconds, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def save_picture(runs: dict[str, Run], file: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("(no picture: matplotlib is not installed)")
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, run in runs.items():
        axes.plot(range(1, run.done + 1), run.losses, label=name, linestyle="--" if name == IN_PLACE else "-")
    axes.set(xlabel="epochs", ylabel="training loss", yscale="log", title="Handwritten digits")
    axes.legend()
    figure.savefig(file, dpi=150)
    print(f"Loss curves: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rule", choices=RULES, default="momentum")
    parser.add_argument(
        "--lr",
        type=float,
        help="0.05 by default; 0.001 where the rule is not linear, so that it is the size of a step",
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--picture", default="digits_loss.png")
    parser.add_argument(
        "--resume", metavar="FOLDER", help="keep checkpoints there, and go on from the newest one"
    )
    arguments = parser.parse_args()
    rule = arguments.rule
    lr = (0.05 if RULES[rule]["linear"] else 0.001) if arguments.lr is None else arguments.lr

    digits = load_digits()
    data = train_test_split(
        (digits.data / 16).astype(np.float32),
        digits.target,
        test_size=0.25,
        random_state=0,
        stratify=digits.target,
    )
    runs = new_runs(rule, lr, arguments.epochs)
    checkpoints = fm.Checkpoints(arguments.resume) if arguments.resume else None
    if checkpoints:
        runs[OURS].restore(checkpoints)
    train(runs, data, checkpoints)

    print_table(runs, data)
    ours, other = itertools.islice(runs.values(), 2)
    if IN_PLACE in runs:
        training, steps = (times_as_long(other, ours, what) for what in (0, 1))
        print(f"{IN_PLACE} takes {training} times as long to train, and {steps} times for its steps")
    pairs = zip(ours.layers, other.layers, strict=True)
    identical = all(a[name].tobytes() == b[name].tobytes() for a, b in pairs for name in a)
    print(f"Final parameters bit-identical: {'yes' if identical else 'NO'}")
    save_picture(runs, arguments.picture)
    if not identical:
        sys.exit(1)


if __name__ == "__main__":
    main()
