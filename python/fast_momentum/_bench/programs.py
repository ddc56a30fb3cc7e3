"""Whole programs of the kind that step parameters in NumPy, each with its own step and with ours.

A program is a loop written here, as it is in courses and papers, or a library beside its adapter. It is handed a `Watch`, runs
once, and returns what it ends with, which must not depend on who makes the steps.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias
from unittest.mock import patch

import numpy as np

import fast_momentum as fm

from .contenders import OURS, Unsuitable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Step = Callable[[Sequence[Array]], object]

AS_IT_IS, IN_PLACE = "as it is", "NumPy in place"


class Watch:
    """How long the steps of a program take: all of some functions, less others that these call."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def step(self, function: Callable[..., Any], sign: int = 1) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += sign * (time.perf_counter() - begin)

        return timed

    def rest(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Not of the step, though it is called within it."""
        return self.step(function, -1)

    @contextlib.contextmanager
    def on(self, owner: Any, name: str, sign: int = 1) -> Iterator[None]:
        """Time a method of a library."""
        with patch.object(owner, name, self.step(getattr(owner, name), sign)):
            yield


Program: TypeAlias = "Callable[[Watch], Any]"
Programs: TypeAlias = "dict[str, Program]"


# ---- the step of a loop that one writes oneself ----


def usual(params: Sequence[Array], lr: float, momentum: float) -> Step:
    velocities = [np.zeros_like(p) for p in params]

    def step(grads: Sequence[Array]) -> None:
        for p, v, g in zip(params, velocities, grads, strict=True):
            v[...] = momentum * v + g
            p -= lr * v

    return step


def in_place(params: Sequence[Array], lr: float, momentum: float) -> Step:
    kept = [(p, np.zeros_like(p), np.empty_like(p)) for p in params]

    def step(grads: Sequence[Array]) -> None:
        for (p, v, scratch), g in zip(kept, grads, strict=True):
            np.multiply(v, momentum, out=v)
            np.add(v, g, out=v)
            np.multiply(v, lr, out=scratch)
            np.subtract(p, scratch, out=p)

    return step


def ours(params: Sequence[Array], lr: float, momentum: float) -> Step:
    state = fm.init(params, lr=lr, momentum=momentum)
    return lambda grads: fm.step(params, grads, state)


STEPPERS = {AS_IT_IS: usual, IN_PLACE: in_place, OURS: ours}


def loop(
    start: Sequence[Array], grads: Callable[[int, list[Array]], list[Array]], steps: int, lr: float
) -> Programs:
    """The same loop with each of the steps; `grads` is handed the number of the step and the parameters."""

    def program(stepper: Callable[..., Step]) -> Program:
        def run(watch: Watch) -> list[Array]:
            params = [p.copy() for p in start]
            step = watch.step(stepper(params, lr, 0.9))
            for k in range(steps):
                step(grads(k, params))
            return params

        return run

    return {name: program(stepper) for name, stepper in STEPPERS.items()}


# ---- loops ----


def course_regression() -> Programs:
    """The optimizers of d2l.ai, chapter 12: linear regression on 1500 examples of 5 features, batches of 10."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 1)) + rng.normal(0, 0.1, (1500, 1))).astype(np.float32)

    def grads(k: int, params: list[Array]) -> list[Array]:
        w, b = params
        rows = slice(10 * (k % 150), 10 * (k % 150) + 10)
        error = (x[rows] @ w + b - y[rows]) / np.float32(10)
        return [x[rows].T @ error, error.sum(axis=0)]

    return loop([np.zeros((5, 1), np.float32), np.zeros(1, np.float32)], grads, 1500, 0.02)


def course_perceptron() -> Programs:
    """The perceptron of d2l.ai, chapter 5: 784-256-10, batches of 256."""
    rng = np.random.default_rng(0)
    x, labels = rng.random((2560, 784), dtype=np.float32), rng.integers(0, 10, 2560)
    start = [
        rng.normal(0, 0.01, shape).astype(np.float32) for shape in ((784, 256), (256,), (256, 10), (10,))
    ]

    def grads(k: int, params: list[Array]) -> list[Array]:
        w, b, u, c = params
        rows = slice(256 * (k % 10), 256 * (k % 10) + 256)
        hidden = np.maximum(x[rows] @ w + b, 0)
        logits = hidden @ u + c
        delta = np.exp(logits - logits.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(256), labels[rows]] -= 1
        delta /= np.float32(256)
        back = (delta @ u.T) * (hidden > 0)
        return [x[rows].T @ back, back.sum(axis=0), hidden.T @ delta, delta.sum(axis=0)]

    return loop(start, grads, 20, 0.1)


def ptychography() -> Programs:
    """A complex image of 1024 x 1024 and its whole update from 16 spots of 256 x 256."""
    rng = np.random.default_rng(0)
    beam = np.exp(-(np.linspace(-2, 2, 256)[:, None] ** 2) - np.linspace(-2, 2, 256) ** 2).astype(
        np.complex64
    )
    magnitudes = rng.random((16, 256, 256), dtype=np.float32)
    corners = rng.integers(0, 1024 - 256, (16, 2))

    def grads(_: int, params: list[Array]) -> list[Array]:
        gradient = np.zeros_like(params[0])
        for (row, column), wanted in zip(corners, magnitudes, strict=True):
            spot = (slice(row, row + 256), slice(column, column + 256))
            wave = np.fft.fft2(beam * params[0][spot], norm="ortho")
            wave *= 1 - wanted / np.maximum(abs(wave), np.float32(1e-6))
            gradient[spot] += beam * np.fft.ifft2(wave, norm="ortho")
        return [gradient]

    return loop([np.ones((1024, 1024), np.complex64)], grads, 2, 0.1)


def evolution() -> Programs:
    """An evolution strategy (Salimans and others, 2017): 100 000 parameters, 16 mirrored perturbations from a table of noise."""
    rng = np.random.default_rng(0)
    table, target = rng.standard_normal(4_000_000, dtype=np.float32), np.float32(1)
    places = rng.integers(0, len(table) - 100_000, (10, 16))
    sigma = np.float32(0.02)

    def grads(k: int, params: list[Array]) -> list[Array]:
        gradient = np.zeros_like(params[0])
        for place in places[k]:
            noise = table[place : place + 100_000]
            up, down = (np.mean((params[0] + s * noise - target) ** 2) for s in (sigma, -sigma))
            gradient += (up - down) * noise
        gradient /= 2 * sigma * np.float32(16)
        return [gradient]

    return loop([np.zeros(100_000, np.float32)], grads, 10, 0.1)


# ---- libraries ----


def sklearn_perceptron() -> Programs:
    """`MLPClassifier`, with its default solver: Adam, layers of 784-512-512-10, batches of 32."""
    from sklearn import neural_network
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import _stochastic_optimizers as theirs

    from fast_momentum.adapters import scikit_learn

    rng = np.random.default_rng(0)
    x, y = rng.random((160, 784), dtype=np.float32), rng.integers(0, 10, 160)

    def program(module: Any, owner: Any) -> Program:
        def run(watch: Watch) -> Any:
            model = module.MLPClassifier((512, 512), batch_size=32, max_iter=2, random_state=0)
            with watch.on(owner, "update_params"), warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(x, y)
            return model.coefs_

        return run

    return {
        AS_IT_IS: program(neural_network, theirs.BaseOptimizer),
        OURS: program(scikit_learn, scikit_learn._InPlace),
    }


def sklearn_tsne() -> Programs:
    """`TSNE` of 150 digits, the exact method: its gains stay outside, the step is ours."""
    from sklearn.datasets import load_digits
    from sklearn.manifold import TSNE, _t_sne

    if not hasattr(_t_sne, "_gradient_descent"):
        raise Unsuitable
    x = load_digits().data[:150]

    def program(descent: Callable[..., Any]) -> Program:
        def run(watch: Watch) -> Any:
            def timed(objective: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
                return watch.step(descent)(watch.rest(objective), *args, **kwargs)

            with patch.object(_t_sne, "_gradient_descent", timed):
                model = TSNE(method="exact", max_iter=250, init="random", learning_rate=200.0, random_state=0)
                return [model.fit_transform(x)]

        return run

    return {AS_IT_IS: program(_t_sne._gradient_descent), OURS: program(descent_with_gains)}


def descent_with_gains(
    objective: Callable[..., tuple[float, Array]], p0: Array, it: int, max_iter: int, **options: Any
) -> tuple[Array, float, int]:
    """scikit-learn's, which prints besides."""
    p, gains = p0.copy().ravel(), np.ones_like(p0.ravel())
    state = fm.init(p, lr=options["learning_rate"], momentum=options["momentum"], form="lr_inside")
    error = least = float(np.finfo(float).max)
    found = i = it
    for i in range(it, max_iter):
        looks = (i + 1) % options["n_iter_check"] == 0
        error, grad = objective(
            p, *options["args"], **options["kwargs"], compute_error=looks or i == max_iter - 1
        )
        turned = state.velocity * grad > 0
        gains[turned] += 0.2
        gains[~turned] *= 0.8
        np.maximum(gains, 0.01, out=gains)  # its `min_gain`
        grad *= gains
        fm.step(p, grad, state)
        if looks:
            if error < least:
                least, found = error, i
            stuck = i - found > options["n_iter_without_progress"]
            if stuck or np.linalg.norm(grad) <= options["min_grad_norm"]:
                break
    return p, error, i


def autograd_training() -> Programs:
    """`autograd.misc.optimizers.sgd` on a perceptron of 256-256-10, batches of 32."""
    import autograd.numpy as anp
    from autograd import grad
    from autograd.misc import optimizers

    from fast_momentum.adapters import autograd

    rng = np.random.default_rng(0)
    x, labels = rng.random((32, 256)), np.eye(10)[rng.integers(0, 10, 32)]
    start = [(rng.normal(0, 0.05, (256, 256)), np.zeros(256)), (rng.normal(0, 0.05, (256, 10)), np.zeros(10))]

    def loss(params: Any, _: int) -> Any:
        (w, b), (u, c) = params
        logits = anp.tanh(x @ w + b) @ u + c
        logits = logits - anp.max(logits, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(logits), axis=1)) - anp.sum(logits * labels, axis=1))

    gradient = grad(loss)

    def program(sgd: Callable[..., Any]) -> Program:
        def run(watch: Watch) -> Any:
            found = watch.step(sgd)(watch.rest(gradient), start, num_iters=20, step_size=0.5, mass=0.9)
            return [array for layer in found for array in layer]

        return run

    return {AS_IT_IS: program(optimizers.sgd), OURS: program(autograd.sgd)}


def pennylane_training() -> Programs:
    """`MomentumOptimizer` on a circuit of four qubits and two layers."""
    import pennylane as qml

    from fast_momentum.adapters import pennylane

    def circuit(weights: Any) -> Any:
        qml.StronglyEntanglingLayers(weights, wires=range(4))
        return qml.expval(qml.PauliZ(0))

    cost = qml.QNode(circuit, qml.device("default.qubit", wires=4))
    start = np.random.default_rng(0).uniform(0, 1, (2, 4, 3))

    def program(module: Any) -> Program:
        def run(watch: Watch) -> Any:
            optimizer = module.MomentumOptimizer(0.1, 0.9)
            weights = qml.numpy.array(start, requires_grad=True)
            with watch.on(module.MomentumOptimizer, "apply_grad"):
                for _ in range(3):
                    weights = optimizer.step(cost, weights)
            return [np.asarray(weights)]

        return run

    return {AS_IT_IS: program(qml), OURS: program(pennylane)}


def flower_round() -> Programs:
    """The server's round of `FedAvgM`: a million parameters, four clients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
        from flwr.server.strategy import fedavgm

        from fast_momentum.adapters import flower

    rng = np.random.default_rng(0)

    def model() -> Any:
        shapes = [(784, 1024), (1024,), (1024, 256), (256,)]
        return ndarrays_to_parameters([rng.standard_normal(shape, dtype=np.float32) for shape in shapes])

    start, status = model(), Status(Code.OK, "")
    replies: list[Any] = [(None, FitRes(status, model(), 10, {})) for _ in range(4)]

    def program(strategy: Callable[..., Any]) -> Program:
        def run(watch: Watch) -> Any:
            server = strategy(
                initial_parameters=start,
                server_momentum=0.9,
                server_learning_rate=0.5,
                fit_metrics_aggregation_fn=lambda _: {},
            )
            with contextlib.ExitStack() as stack:
                for name in ("aggregate", "parameters_to_ndarrays", "ndarrays_to_parameters"):
                    stack.enter_context(watch.on(fedavgm, name, -1))
                for server_round in (1, 2):
                    parameters, _ = watch.step(server.aggregate_fit)(server_round, replies, [])
            return parameters_to_ndarrays(parameters)

        return run

    return {AS_IT_IS: program(fedavgm.FedAvgM), OURS: program(flower.ServerFedAvgM)}


PROGRAMS: dict[str, Callable[[], Programs]] = {
    "scikit-learn, MLPClassifier": sklearn_perceptron,
    "perceptron in NumPy, as in d2l": course_perceptron,
    "regression in NumPy, as in d2l": course_regression,
    "ptychography, one update": ptychography,
    "evolution strategy": evolution,
    "autograd, sgd": autograd_training,
    "Flower, FedAvgM": flower_round,
    "scikit-learn, TSNE": sklearn_tsne,
    "PennyLane, MomentumOptimizer": pennylane_training,
}
