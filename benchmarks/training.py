"""Whole training loops, where the step finds its data in the caches of other cores, or nowhere."""

from __future__ import annotations

import contextlib
import ctypes
import random
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from compiled import BARE, bare_library

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS
from fast_momentum._bench.timing import Times

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from train_digits import loss_and_gradient, new_layers

if TYPE_CHECKING:
    from collections.abc import Callable

LR, MOMENTUM = 1e-3, 0.9
IN_PLACE, ONE_LINER, NO_STEP = "NumPy in place", "NumPy one-liner", "no step"

# Layers and batch.
PERCEPTRONS = {
    "64-256-256-10, 32": ((64, 256, 256, 10), 32),
    "64-512-512-10, 32": ((64, 512, 512, 10), 32),
    "784-1024-1024-10, 32": ((784, 1024, 1024, 10), 32),
    "784-2048-2048-10, 32": ((784, 2048, 2048, 10), 32),
    "784-2048-2048-10, 256": ((784, 2048, 2048, 10), 256),
}

Stepper: TypeAlias = "Callable[[Any], object]"


def ours(layers: Any) -> Stepper:
    fm.set_num_threads(1)  # more fight with BLAS for the cores
    state = fm.init(layers, lr=LR, momentum=MOMENTUM)
    return lambda grads: fm.step(layers, grads, state)


def in_place(layers: Any) -> Stepper:
    kept = [(layer, {k: np.zeros_like(a) for k, a in layer.items()}, {k: np.empty_like(a) for k, a in layer.items()})
            for layer in layers]  # fmt: skip

    def step(grads: Any) -> None:
        for (layer, velocities, scratch), gradients in zip(kept, grads, strict=True):
            for key, p in layer.items():
                v, t = velocities[key], scratch[key]
                np.multiply(v, np.float32(MOMENTUM), out=v)
                np.add(v, gradients[key], out=v)
                np.multiply(v, np.float32(LR), out=t)
                np.subtract(p, t, out=p)

    return step


def one_liner(layers: Any) -> Stepper:
    kept = [(layer, {k: np.zeros_like(a) for k, a in layer.items()}) for layer in layers]

    def step(grads: Any) -> None:
        for (layer, velocities), gradients in zip(kept, grads, strict=True):
            for key, p in layer.items():
                velocities[key][...] = np.float32(MOMENTUM) * velocities[key] + gradients[key]
                p -= np.float32(LR) * velocities[key]

    return step


def bare(layers: Any) -> Stepper:
    """One loop in C, all operands in turn: what the memory allows here."""
    step = bare_library().bare_float32
    sizes = [{key: ctypes.c_ssize_t(p.size) for key, p in layer.items()} for layer in layers]
    kept = [
        (layer, {k: np.zeros_like(a) for k, a in layer.items()}, n)
        for layer, n in zip(layers, sizes, strict=True)
    ]
    m, lr, threads = ctypes.c_float(MOMENTUM), ctypes.c_float(LR), ctypes.c_int(1)

    def call(grads: Any) -> None:
        for (layer, velocities, n), gradients in zip(kept, grads, strict=True):
            for key, p in layer.items():
                arrays = (ctypes.c_void_p(a.ctypes.data) for a in (p, gradients[key], velocities[key]))
                step(*arrays, n[key], m, lr, threads)

    return call


STEPPERS: dict[str, Callable[[Any], Stepper]] = {
    OURS: ours,
    IN_PLACE: in_place,
    ONE_LINER: one_liner,
    BARE: bare,
    NO_STEP: lambda layers: lambda grads: None,  # noqa: ARG005
}


@dataclass
class Run:
    """One contender trains a network of its own."""

    layers: Any
    step: Stepper
    whole: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    def iterate(self, x: Any, y: Any, iterations: int) -> None:
        inside = 0.0
        begin = time.perf_counter()
        for _ in range(iterations):
            _, grads = loss_and_gradient(self.layers, x, y)
            before = time.perf_counter()
            self.step(grads)
            inside += time.perf_counter() - before
        self.whole.append((time.perf_counter() - begin) / iterations)
        self.steps.append(inside / iterations)


def perceptron(name: str, budget: float) -> tuple[Times, Times]:
    """Seconds of an iteration, and of the step in it; the contenders take turns of a few dozen iterations."""
    widths, batch = PERCEPTRONS[name]
    rng = np.random.default_rng(0)
    x, y = rng.random((batch, widths[0]), dtype=np.float32), rng.integers(0, widths[-1], batch)
    runs = {}
    for contender, stepper in STEPPERS.items():
        layers = new_layers(np.random.default_rng(0), list(widths))
        with contextlib.suppress(ImportError):  # no compiler, no bare loop
            runs[contender] = Run(layers, stepper(layers))
    one = runs[OURS]
    one.iterate(x, y, 3)
    turn = max(3, round(0.05 / one.whole[0]))  # iterations
    shuffled, order = random.Random(0), list(runs)
    end = time.perf_counter() + budget
    for run in runs.values():
        run.whole.clear()
        run.steps.clear()
    while len(one.whole) < 5 or time.perf_counter() < end:
        shuffled.shuffle(order)
        for contender in order:
            runs[contender].iterate(x, y, turn)
    return (Times({contender: run.whole for contender, run in runs.items()}),
            Times({contender: run.steps for contender, run in runs.items()}))  # fmt: skip


# ---- scikit-learn ----

# Solver and dtype.
SOLVERS = [("adam", "float32"), ("adam", "float64"), ("sgd", "float32")]
WIDTHS, BATCHES = [100, 512, 1024, 2048], [32, 200]


def sklearn_fit(module: Any, solver: str, dtype: str, width: int, batch: int) -> tuple[float, list[Any]]:
    """Seconds of a fit with the MLPClassifier of `module`, and the coefficients."""
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(0)
    x = rng.random((40 * batch if batch < 100 else 10 * batch, 784)).astype(dtype)
    y = rng.integers(0, 10, len(x))
    epochs = max(1, 1000 // width)
    model = module.MLPClassifier(
        (width, width), solver=solver, batch_size=batch, max_iter=epochs, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        begin = time.perf_counter()
        model.fit(x, y)
        return time.perf_counter() - begin, [*model.coefs_, *model.intercepts_]


def sklearn_fits(solver: str, dtype: str, width: int, batch: int, rounds: int) -> Times:
    """Seconds of fits with both estimators, in turns; their coefficients must be the same, bit for bit."""
    from sklearn import neural_network

    from fast_momentum.adapters import scikit_learn

    fm.set_num_threads(1)
    seconds: dict[str, list[float]] = {"scikit-learn": [], OURS: []}
    for _ in range(rounds):
        taken, coefficients = sklearn_fit(neural_network, solver, dtype, width, batch)
        seconds["scikit-learn"].append(taken)
        taken, others = sklearn_fit(scikit_learn, solver, dtype, width, batch)
        seconds[OURS].append(taken)
        for mine, theirs in zip(others, coefficients, strict=True):
            assert mine.tobytes() == theirs.tobytes(), "the coefficients must be the same, bit for bit"
    return Times(seconds)
