"""The whole update: what `fast_momentum` makes in one pass over memory, and others in a pass for each thing.

The contenders of a case work on the same parameters, gradients, averages, and velocities if these are float32. But those
that scale the gradients in place have gradients of their own, so that something is left to be clipped by the others.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS, prepared, torch_optimizer
from fast_momentum._bench.problems import LR, MOMENTUM, Problem, one_array, writable
from fast_momentum._bench.timing import interleaved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fast_momentum._bench.contenders import Contender
    from fast_momentum._bench.timing import Call, Times

ELEMENTS = 33_000_000

PLAIN = "plain step"
PASSES = "NumPy, plain step"
TORCH = "PyTorch, fused"

CLIP, SCALE, DECAY = 0.5, 0.999, 0.99

OFF: dict[str, Any] = {"clip_norm": None, "nonfinite": "propagate", "average_decay": None}
# What the state is told for a case, and what the step is told.
SETTINGS: dict[str, dict[str, Any]] = {
    "clip by norm": {"clip_norm": CLIP},
    "unscale, check": {"nonfinite": "skip"},
    "average": {"average_decay": DECAY},
}
ARGUMENTS: dict[str, dict[str, Any]] = {"unscale, check": {"grad_scale": SCALE}, "zero": {"zero_grads": True}}

# Of the states of their own.
STORAGES: dict[str, dict[str, Any]] = {
    "velocity bfloat16": {"velocity_dtype": "bfloat16"},
    "velocity and gradient bfloat16": {"velocity_dtype": "bfloat16"},
    "velocity float16": {"velocity_dtype": "float16"},
    "velocity int8": {"velocity_dtype": "int8"},
    "compensated": {"compensated": True},
}


def stepping(case: str = PLAIN) -> Contender:
    """The step of `fast_momentum` with all that belongs to the case."""
    settings, arguments = OFF | SETTINGS.get(case, {}), ARGUMENTS.get(case, {})

    def contender(problem: Problem) -> Call:
        def call() -> None:
            for name, value in settings.items():
                setattr(state, name, value)
            fm.step(params, grads, state, **arguments)

        fm.set_num_threads(problem.threads)
        params, grads, state = problem.params, problem.grads, problem.state
        return call

    return contender


def with_own_gradients(problem: Problem) -> Problem:
    return dataclasses.replace(problem, grads=problem.grads.copy())


def average_of(problem: Problem) -> NDArray[Any]:
    return writable(problem.state.average)


def clipped_by_numpy(problem: Problem) -> Call:
    problem = with_own_gradients(problem)
    grads, step = problem.grads, stepping()(problem)

    def call() -> None:
        norm = math.sqrt(np.vdot(grads, grads))
        np.multiply(grads, problem.dtype(min(1, CLIP / norm)), out=grads)
        step()

    return call


def clipped_by_torch(problem: Problem) -> Call:
    optimizer = torch_optimizer(with_own_gradients(problem), fused=True)
    clip = importlib.import_module("torch").nn.utils.clip_grad_norm_
    params = optimizer.param_groups[0]["params"]

    def call() -> None:
        clip(params, CLIP)
        optimizer.step()

    return call


def unscaled_by_numpy(problem: Problem) -> Call:
    problem = with_own_gradients(problem)
    grads, step = problem.grads, stepping()(problem)

    def call() -> None:
        np.multiply(grads, problem.dtype(SCALE), out=grads)
        if np.isfinite(grads).all():
            step()

    return call


def averaged_by_numpy(problem: Problem) -> Call:
    params, average, step = problem.params, average_of(problem), stepping()(problem)
    scratch = np.empty_like(params)

    def call() -> None:
        step()
        np.multiply(average, problem.dtype(DECAY), out=average)
        np.multiply(params, problem.dtype(1 - DECAY), out=scratch)
        np.add(average, scratch, out=average)

    return call


def averaged_by_torch(problem: Problem) -> Call:
    optimizer = torch_optimizer(problem, fused=True)
    average = importlib.import_module("torch").from_numpy(average_of(problem))
    param = optimizer.param_groups[0]["params"][0].detach()

    def call() -> None:
        optimizer.step()
        average.lerp_(param, 1 - DECAY)

    return call


def zeroed_by_numpy(problem: Problem) -> Call:
    step = stepping()(problem)

    def call() -> None:
        step()
        problem.grads.fill(0)

    return call


def stored(name: str) -> Contender:
    def contender(problem: Problem) -> Call:
        params, grads = problem.params, problem.grads
        state = fm.init(params, lr=LR, momentum=MOMENTUM, **STORAGES[name])
        if "gradient" in name:
            grads = grads.astype(importlib.import_module("ml_dtypes").bfloat16)
        fm.set_num_threads(problem.threads)
        return lambda: fm.step(params, grads, state)

    return contender


def norm_of_ours(problem: Problem) -> Call:
    fm.set_num_threads(problem.threads)
    return lambda: fm.global_norm(problem.grads)


def norm_of_torch(problem: Problem) -> Call:
    torch = importlib.import_module("torch")
    torch.set_num_threads(problem.threads)
    grads = torch.from_numpy(problem.grads)
    return lambda: torch.linalg.vector_norm(grads).item()


# The first of a case is what the others are compared with.
CASES: dict[str, dict[str, Contender]] = {
    "clip by norm": {
        PLAIN: stepping(),
        OURS: stepping("clip by norm"),
        PASSES: clipped_by_numpy,
        TORCH: clipped_by_torch,
    },
    "unscale, check": {
        PLAIN: stepping(),
        OURS: stepping("unscale, check"),
        PASSES: unscaled_by_numpy,
    },
    "average": {
        PLAIN: stepping(),
        OURS: stepping("average"),
        PASSES: averaged_by_numpy,
        TORCH: averaged_by_torch,
    },
    "zero": {PLAIN: stepping(), OURS: stepping("zero"), PASSES: zeroed_by_numpy},
    "storage": {PLAIN: stepping(), **{name: stored(name) for name in STORAGES}},
    "norm": {
        OURS: norm_of_ours,
        "np.linalg.norm": lambda problem: lambda: np.linalg.norm(problem.grads),
        "np.vdot": lambda problem: lambda: math.sqrt(np.vdot(problem.grads, problem.grads)),
        "PyTorch": norm_of_torch,
    },
}


def problem_of(case: str, elements: int = ELEMENTS, threads: int = 1) -> Problem:
    problem = one_array(elements, threads=threads, **SETTINGS.get(case, {}))
    if case == "zero":
        problem.grads.fill(0)  # from the beginning: velocities that fade would be subnormal in the end
    return problem


def calls_of(case: str, threads: int, *names: str) -> dict[str, Call]:
    """Of all contenders of the case, or of these; those that are not installed are missing."""
    return prepared(problem_of(case, threads=threads), names or CASES[case], CASES[case])


def measured(calls: dict[str, Call], threads: int, seconds: float) -> Times:
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(threads, "blas"):
        return interleaved(calls, seconds)
