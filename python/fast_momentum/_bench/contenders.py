"""The same plain step (lr_outside, no options) as others make it. What is not installed does not take part."""

from __future__ import annotations

import importlib
import os
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

import fast_momentum as fm

from .problems import LR, MOMENTUM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .problems import Problem
    from .timing import Call

Contender: TypeAlias = "Callable[[Problem], Call]"

OURS = "fast_momentum"

# A function of as many arguments as a large model has arrays takes minutes to compile.
MOST_ARRAYS_TO_COMPILE = 200


class Unsuitable(Exception):
    """A contender does not take part in this problem."""


def ours(problem: Problem) -> Call:
    def call() -> None:
        fm.step(params, grads, state)

    params, grads, state = problem.params, problem.grads, problem.state
    fm.set_num_threads(problem.threads)
    return call


def numpy_one_liner(problem: Problem) -> Call:
    m, lr = problem.dtype(MOMENTUM), problem.dtype(LR)
    triples = list(zip(problem.arrays, problem.gradients, problem.velocities, strict=True))

    def call() -> None:
        for p, g, v in triples:
            v[...] = m * v + g
            p -= lr * v

    return call


def numpy_in_place(problem: Problem) -> Call:
    """What one writes who avoids temporaries."""
    m, lr = problem.dtype(MOMENTUM), problem.dtype(LR)
    scratch = {array.shape: np.empty_like(array) for array in problem.arrays}
    quadruples = [
        (p, g, v, scratch[p.shape])
        for p, g, v in zip(problem.arrays, problem.gradients, problem.velocities, strict=True)
    ]

    def call() -> None:
        for p, g, v, t in quadruples:
            np.multiply(v, m, out=v)
            np.add(v, g, out=v)
            np.multiply(v, lr, out=t)
            np.subtract(p, t, out=p)

    return call


def numpy_add(problem: Problem) -> Call:
    """Not a step: one pass of NumPy over as much memory, the roofline of who has no compiler."""
    n = problem.elements * 3 // 2
    a, b = np.ones(n, problem.dtype), np.zeros(n, problem.dtype)
    return lambda: np.add(a, b, out=a)


def add_passes(problem: Problem) -> float:
    """How many times `numpy_add` moves what a step moves: it reads two arrays and writes one."""
    return problem.moved_bytes / (3 * (problem.elements * 3 // 2) * problem.arrays[0].itemsize)


def torch_optimizer(problem: Problem, **options: bool) -> Any:
    torch = importlib.import_module("torch")
    torch.set_num_threads(problem.threads)
    params = [torch.from_numpy(array).requires_grad_() for array in problem.arrays]
    optimizer = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that broadcast or read-only gradients are not writable
        for param, grad, velocity in zip(params, problem.gradients, problem.velocities, strict=True):
            param.grad = torch.from_numpy(grad)
            optimizer.state[param]["momentum_buffer"] = torch.from_numpy(velocity)
    return optimizer


def torch_step(problem: Problem, **options: bool) -> Call:
    return torch_optimizer(problem, **options).step  # type: ignore[no-any-return]  # the types of torch say Any


def torch_loop(problem: Problem) -> Call:
    return torch_step(problem, foreach=False, fused=False)


def torch_foreach(problem: Problem) -> Call:
    return torch_step(problem, foreach=True)


def torch_fused(problem: Problem) -> Call:
    return torch_step(problem, fused=True)


@cache
def compiled_with_numba() -> Any:
    def step(p: Any, g: Any, v: Any, m: Any, lr: Any) -> None:
        for i in range(p.size):
            v[i] = m * v[i] + g[i]
            p[i] -= lr * v[i]

    return importlib.import_module("numba").njit(step)


def serial_loop(problem: Problem, step: Callable[..., object]) -> Call:
    """Call a compiled step(p, g, v, m, lr), which works on flat arrays in one thread, for each array."""
    if problem.threads > 1:
        raise Unsuitable
    m, lr = problem.dtype(MOMENTUM), problem.dtype(LR)
    triples = [
        (p.reshape(-1), g.reshape(-1), v.reshape(-1))
        for p, g, v in zip(problem.arrays, problem.gradients, problem.velocities, strict=True)
    ]

    def call() -> None:
        for p, g, v in triples:
            step(p, g, v, m, lr)

    return call


def numba_serial(problem: Problem) -> Call:
    return serial_loop(problem, compiled_with_numba())


def numexpr_evaluate(problem: Problem) -> Call:
    numexpr = importlib.import_module("numexpr")
    numexpr.set_num_threads(problem.threads)
    m, lr = problem.dtype(MOMENTUM), problem.dtype(LR)
    triples = list(zip(problem.arrays, problem.gradients, problem.velocities, strict=True))

    def call() -> None:
        for p, g, v in triples:
            numexpr.evaluate("m*v + g", {"m": m, "v": v, "g": g}, out=v)
            numexpr.evaluate("p - lr*v", {"p": p, "lr": lr, "v": v}, out=p)

    return call


@cache
def jax_cpu() -> Any:
    """JAX on the CPU, with float64. It has no setting for the number of threads that would hold."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def jax_arrays(problem: Problem) -> tuple[Any, list[Any], list[Any], list[Any]]:
    """Its arrays cannot be written to: it has its own, and calls return the new parameters."""
    if len(problem.arrays) > MOST_ARRAYS_TO_COMPILE or problem.threads > 1:
        raise Unsuitable
    jax = jax_cpu()
    copies = ([jax.numpy.array(a) for a in arrays] for arrays in
              (problem.arrays, problem.gradients, problem.velocities))  # fmt: skip
    return (jax, *copies)


def jax_donated(problem: Problem) -> Call:
    jax, params, grads, velocities = jax_arrays(problem)

    def step(params: list[Any], velocities: list[Any], grads: list[Any]) -> tuple[list[Any], list[Any]]:
        velocities = [MOMENTUM * v + g for v, g in zip(velocities, grads, strict=True)]
        return [p - LR * v for p, v in zip(params, velocities, strict=True)], velocities

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def call() -> Any:
        nonlocal params, velocities
        params, velocities = compiled(params, velocities, grads)
        jax.block_until_ready((params, velocities))
        return params

    return call


def optax_sgd(problem: Problem) -> Call:
    jax, params, grads, _ = jax_arrays(problem)
    optax = importlib.import_module("optax")
    optimizer = optax.sgd(LR, MOMENTUM)
    state = optimizer.init(params)

    def step(params: list[Any], state: Any, grads: list[Any]) -> tuple[list[Any], Any]:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def call() -> Any:
        nonlocal params, state
        params, state = compiled(params, state, grads)
        jax.block_until_ready((params, state))
        return params

    return call


def sklearn_sgd(problem: Problem) -> Call:
    module = importlib.import_module("sklearn.neural_network._stochastic_optimizers")
    optimizer = module.SGDOptimizer(problem.arrays, LR, momentum=MOMENTUM, nesterov=False)
    optimizer.velocities = [velocity.copy() for velocity in problem.velocities]
    return lambda: optimizer.update_params(problem.arrays, problem.gradients)


CONTENDERS: dict[str, Contender] = {
    OURS: ours,
    "NumPy one-liner": numpy_one_liner,
    "NumPy in place": numpy_in_place,
    "PyTorch loop": torch_loop,
    "PyTorch foreach": torch_foreach,
    "PyTorch fused": torch_fused,
    "numba": numba_serial,
    "numexpr": numexpr_evaluate,
    "JAX jit, donated": jax_donated,
    "optax": optax_sgd,
    "scikit-learn": sklearn_sgd,
}


def prepared(
    problem: Problem, names: Iterable[str], contenders: dict[str, Contender] = CONTENDERS
) -> dict[str, Call]:
    """Those that are installed and suit the problem, ready to be called."""
    calls: dict[str, Call] = {}
    for name in names:
        try:
            calls[name] = contenders[name](problem)
        except (ImportError, Unsuitable):
            continue
    return calls
