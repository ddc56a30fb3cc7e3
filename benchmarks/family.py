"""Adam as others make it, and a step of each other rule, for the suite and the report.

The contenders work on the memory of one state of `fast_momentum.adam`, in the form corrected: parameters, gradients and
both moments.
"""

from __future__ import annotations

import importlib
import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS, Unsuitable, ours
from fast_momentum._bench.problems import LR, Problem, writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fast_momentum._bench.contenders import Contender
    from fast_momentum._bench.timing import Call

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
USUAL, IN_PLACE, FUSED, NUMBA = "NumPy, the usual lines", "NumPy in place", "PyTorch fused", "numba"


def adam_problem(elements: int, threads: int = 1, arrays: int = 1, **options: Any) -> Problem:
    params = [np.ones(elements, np.float32) for _ in range(arrays)]
    grads = [np.full(elements, 1e-3, np.float32) for _ in range(arrays)]
    if arrays == 1:
        return Problem(params[0], grads[0], fm.adam(params[0], lr=LR, **options), threads)
    return Problem(params, grads, fm.adam(params, lr=LR, **options), threads)


def moments(problem: Problem) -> tuple[Any, Any, Any, Any]:
    """Parameter, gradient and both moments of a problem with one array."""
    if len(problem.arrays) > 1:
        raise Unsuitable
    second_moment = writable(problem.state.second_moment)
    return problem.arrays[0], problem.gradients[0], problem.velocities[0], second_moment


def corrections(t: int) -> tuple[float, float]:
    return LR / (1 - BETA1**t), 1 / math.sqrt(1 - BETA2**t)


def numpy_usual(problem: Problem) -> Call:
    p, g, m, s = moments(problem)
    t = 0

    def call() -> None:
        nonlocal t
        t += 1
        m[...] = BETA1 * m + (1 - BETA1) * g
        s[...] = BETA2 * s + (1 - BETA2) * g**2
        p[...] -= LR * (m / (1 - BETA1**t)) / (np.sqrt(s / (1 - BETA2**t)) + EPS)

    return call


def numpy_in_place(problem: Problem) -> Call:
    """What one writes who avoids temporaries, and keeps two arrays for it."""
    p, g, m, s = moments(problem)
    a, b = np.empty_like(p), np.empty_like(p)
    t = 0

    def call() -> None:
        nonlocal t
        t += 1
        size, correction = corrections(t)
        np.multiply(m, BETA1, out=m)
        np.multiply(g, 1 - BETA1, out=a)
        np.add(m, a, out=m)
        np.multiply(s, BETA2, out=s)
        np.multiply(g, g, out=a)
        np.multiply(a, 1 - BETA2, out=a)
        np.add(s, a, out=s)
        np.sqrt(s, out=a)
        np.multiply(a, correction, out=a)
        np.add(a, EPS, out=a)
        np.multiply(m, size, out=b)
        np.divide(b, a, out=b)
        np.subtract(p, b, out=p)

    return call


def torch_fused(problem: Problem) -> Call:
    torch = importlib.import_module("torch")
    torch.set_num_threads(problem.threads)
    p, g, m, s = moments(problem)
    param = torch.from_numpy(p).requires_grad_()
    param.grad = torch.from_numpy(g)
    optimizer = torch.optim.Adam([param], lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True)
    optimizer.state[param] = {
        "step": torch.tensor(0.0),
        "exp_avg": torch.from_numpy(m),
        "exp_avg_sq": torch.from_numpy(s),
    }
    return optimizer.step  # type: ignore[no-any-return]  # the types of torch say Any


@cache
def compiled_with_numba() -> Any:
    def step(p: Any, g: Any, m: Any, s: Any, b1: Any, c1: Any, b2: Any, c2: Any, size: Any, root: Any, eps: Any) -> None:  # fmt: skip
        for i in range(p.size):
            m[i] = b1 * m[i] + c1 * g[i]
            s[i] = b2 * s[i] + c2 * (g[i] * g[i])
            p[i] -= size * m[i] / (np.sqrt(s[i]) * root + eps)

    return importlib.import_module("numba").njit(step, error_model="numpy")


def numba_serial(problem: Problem) -> Call:
    step, arrays, t = compiled_with_numba(), moments(problem), 0
    constants = [np.float32(x) for x in (BETA1, 1 - BETA1, BETA2, 1 - BETA2)]

    def call() -> None:
        nonlocal t
        t += 1
        step(*arrays, *constants, *map(np.float32, corrections(t)), np.float32(EPS))

    return call


ADAM: dict[str, Contender] = {
    OURS: ours,
    USUAL: numpy_usual,
    IN_PLACE: numpy_in_place,
    FUSED: torch_fused,
    NUMBA: numba_serial,
}

# A step of each rule, beside that of momentum with Nesterov.
NESTEROV = "momentum with Nesterov"
RULES: dict[str, Callable[[Any], fm.State]] = {
    NESTEROV: lambda p: fm.init(p, lr=LR, nesterov=True),
    "qhm": lambda p: fm.qhm(p, lr=LR),
    "lion": lambda p: fm.lion(p, lr=LR),
    "signum": lambda p: fm.signum(p, lr=LR),
    "rmsprop": lambda p: fm.rmsprop(p, lr=LR),
    "adam": lambda p: fm.adam(p, lr=LR),
    "adam, bfloat16": lambda p: fm.adam(p, lr=LR, velocity_dtype="bfloat16"),
    "adam, float16": lambda p: fm.adam(p, lr=LR, velocity_dtype="float16"),
}


def rule_calls(elements: int) -> dict[str, Call]:
    params, grads = np.ones(elements, np.float32), np.full(elements, 1e-3, np.float32)

    def stepping(state: fm.State) -> Call:
        return lambda: fm.step(params, grads, state)

    return {name: stepping(make(params)) for name, make in RULES.items()}
