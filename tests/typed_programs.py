"""Not run: ten typical programs, which mypy and pyright take in strict mode; `nox -s types` checks them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fast_momentum as fm
from fast_momentum import theory, tuning

Array = NDArray[np.float32]


def one_array(w: NDArray[np.float64]) -> float:
    state = fm.init(w, lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(10):
        fm.step(w, 2 * w, state)
    return fm.global_norm(w)


def dict_of_arrays(x: Array, y: Array) -> dict[str, Array]:
    params = {"w": np.zeros(3, np.float32), "b": np.zeros(1, np.float32)}
    state = fm.init(params, lr=0.05, weight_decay={"w": 1e-4, "b": 0.0})
    for t in range(100):
        error = x @ params["w"] + params["b"] - y
        state.lr = 0.1 / (1 + t)
        fm.step(params, {"w": x.T @ error, "b": error.sum(keepdims=True)}, state, grad_scale=0.01)
    return fm.lookahead(params, state)


class Dense:
    def __init__(self) -> None:
        self.W: Array = np.zeros((4, 2), np.float32)
        self.dW: Array = np.zeros((4, 2), np.float32)


def layers_as_objects(layers: list[Dense]) -> int:
    params = [{"W": layer.W} for layer in layers]
    state = fm.init(params, lr=0.1, form="lr_inside")
    fm.step(params, [{"W": layer.dW} for layer in layers], state)
    return state.step_count


@dataclass
class Line:
    w: Array
    b: Array


def dataclasses(line: Line, grads: Line) -> Line:
    state = fm.adam(line, lr=1e-3)
    fm.step(line, grads, state)
    ahead: Line = fm.lookahead(line, state)
    return ahead


def frozen_and_sparse(table: Array, head: Array) -> None:
    params = [table, head]
    state = fm.adam(params, lr=1e-3, amsgrad=True)
    rows = fm.Rows(np.array([1, 3]), np.ones((2, 8), np.float32))
    fm.step(params, [rows, None], state)


def whole_update(params: list[Array], grads: list[Array]) -> float | None:
    state = fm.init(
        params, lr=0.1, clip_norm=1.0, nonfinite="skip", average_decay=0.99, velocity_dtype="bfloat16"
    )
    fm.step(params, grads, state, zero_grads=True)
    state.swap_average(params)
    return state.grad_norm


def checkpoints(folder: Path, params: dict[str, Array]) -> None:
    state = fm.init(params, lr=0.1)
    kept = fm.Checkpoints(folder, keep=3)
    extra = kept.restore(params, state)
    kept.save(params, state, {"epoch": 1, "before": extra is not None})
    fm.save(folder / "run.npz", params, state)
    _, resumed, _ = fm.load(folder / "run.npz")
    state.load_state_dict(resumed.state_dict())


def tuned(curvature: NDArray[np.float64]) -> bool | None:
    params = {"w": np.ones_like(curvature)}
    state = fm.init(params, lr=1e-5)
    tuner = tuning.AutoTuner(state)
    for _ in range(10):
        grads = {"w": curvature * params["w"]}
        tuner(params, grads)
        fm.step(params, grads, state)
    best = theory.optimal(1, 100)
    schedule = tuning.cosine(float(best.lr), 100)
    state.lr = schedule(3)
    return tuner.noisy


def minimised(x0: NDArray[np.float64]) -> float:
    def fun(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return float(x @ x), 2 * x

    result = fm.minimize(fun, x0, rule=fm.init, bounds=(0, None), maxiter=100)
    return float(result.fun)


def errors(params: list[Array], grads: list[Array], state: fm.State) -> str:
    try:
        fm.step(params, grads, state)
    except (fm.NonFiniteGradientError, fm.ConcurrentStepError) as error:
        return str(error)
    return state.rule
