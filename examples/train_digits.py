"""A multilayer perceptron in plain NumPy learns handwritten digits, trained with fast_momentum.

    python examples/train_digits.py
    python examples/train_digits.py --rule adam
    python examples/train_digits.py --resume digits

The last one keeps a checkpoint of each of the last epochs in the folder `digits`, and goes on from there, with the same
bits, when it was stopped.

The 1797 digits are those that scikit-learn ships; a quarter is held out. The same training runs twice, once with
`fast_momentum.step` and once with the plain NumPy reference: the parameters must end up bit-identical, and the time
that the steps took is compared. If matplotlib is there, both loss curves are saved as digits_loss.png.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fast_momentum as fm
from fast_momentum import _core

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Layers = list[dict[str, NDArray[np.float32]]]

SIZES = [64, 256, 256, 10]
BATCH = 32
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


def new_state(package: Any, layers: Layers, rule: str, lr: float) -> Any:
    """From `package.init`, `package.adam` and so on."""
    options = {"nesterov": True} if rule == "momentum" else {}
    return getattr(package, RULES[rule]["made_by"])(layers, lr=lr, weight_decay=1e-4, **options)


def train(
    package: Any,
    name: str,
    rule: str,
    lr: float,
    epochs: int,
    data: Any,
    checkpoints: fm.Checkpoints | None = None,
) -> tuple[Layers, float, list[list[float]]]:
    """Train with `rule` and `package.step`; return parameters, seconds in steps, and [time, loss]."""
    x, x_test, y, y_test = data
    rng = np.random.default_rng(0)
    layers = new_layers(rng)
    state = new_state(package, layers, rule, lr)
    done, stepping, curve = 0, 0.0, []
    if checkpoints and (saved := checkpoints.restore(layers, state)):
        done, stepping, curve = saved["epochs"], saved["stepping"], saved["curve"]
        rng.bit_generator.state = saved["rng"]
        print(f"{name}: resumed after epoch {done}, step {state.step_count}", flush=True)
    begin = time.perf_counter() - (curve[-1][0] if curve else 0)
    for epoch in range(done, epochs):
        state.lr = lr * (1 - epoch / epochs)
        losses = []
        for batch in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
            loss, grads = loss_and_gradient(layers, x[batch], y[batch])
            before = time.perf_counter()
            package.step(layers, grads, state)
            stepping += time.perf_counter() - before
            losses.append(loss)
        curve.append([time.perf_counter() - begin, float(np.mean(losses))])
        if checkpoints:
            extra = {
                "epochs": epoch + 1,
                "stepping": stepping,
                "curve": curve,
                "rng": rng.bit_generator.state,
            }
            checkpoints.save(layers, state, extra)
        held_out = accuracy(layers, x_test, y_test)
        end = "\n" if epoch + 1 == epochs else "\r" if sys.stdout.isatty() else ""
        line = f"{name}: epoch {epoch + 1:3d}/{epochs}, loss {curve[-1][1]:.4f}, held-out accuracy {held_out:.2%}"
        if end or (epoch + 1) % 10 == 0:
            print(line, end=end or "\n", flush=True)
    return layers, stepping, curve


def save_picture(curves: dict[str, list[list[float]]], file: str) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("(no picture: matplotlib is not installed)")
        return
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), label=name)
    axes.set(xlabel="seconds", ylabel="training loss", yscale="log", title="Handwritten digits")
    axes.legend()
    figure.savefig(file, dpi=150)
    print(f"Both loss curves: {file}")


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
    packages = {"fast_momentum": fm, "NumPy reference": fm.reference}
    checkpoints = fm.Checkpoints(arguments.resume) if arguments.resume else None
    runs = {
        name: train(package, name, rule, lr, arguments.epochs, data, checkpoints if package is fm else None)
        for name, package in packages.items()
    }

    (ours, seconds, _), (theirs, reference_seconds, _) = runs.values()
    print(f"Held-out accuracy: {accuracy(ours, data[1], data[3]):.2%}")
    print(
        f"All steps took {seconds:.2f} s with fast_momentum and {reference_seconds:.2f} s with the NumPy reference, "
        f"{reference_seconds / seconds:.1f} times as long"
    )
    identical = all(
        a[name].tobytes() == b[name].tobytes() for a, b in zip(ours, theirs, strict=True) for name in a
    )
    print(f"Final parameters bit-identical: {'yes' if identical else 'NO'}")
    save_picture({name: curve for name, (_, _, curve) in runs.items()}, arguments.picture)
    if not identical:
        sys.exit(1)


if __name__ == "__main__":
    main()
