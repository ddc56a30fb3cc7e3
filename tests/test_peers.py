"""Other implementations as live oracles, where they are installed: scikit-learn bit for bit, PyTorch and optax to
rounding (their bits depend on the machine)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import reference
from helpers import assert_bits, random_like

SHAPES: list[tuple[int, ...]] = [(64, 33), (33,), (1,), (7, 3, 5), (1000,)]
STEPPERS = {"kernels": fm, "reference": reference}


def tensors(rng: np.random.Generator, dtype: Any) -> list[Any]:
    return [random_like(shape, dtype, rng) for shape in SHAPES]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("stepper", STEPPERS)
def test_sklearn(stepper: str, nesterov: bool, dtype: Any, rng: np.random.Generator) -> None:
    optimizers = pytest.importorskip("sklearn.neural_network._stochastic_optimizers")
    package = STEPPERS[stepper]
    ours = tensors(rng, dtype)
    theirs = [p.copy() for p in ours]
    state = package.init(ours, lr=0.05, momentum=0.9, nesterov=nesterov, form="lr_inside")
    sgd = optimizers.SGDOptimizer(theirs, learning_rate_init=0.05, momentum=0.9, nesterov=nesterov)
    for _ in range(20):
        grads = tensors(rng, dtype)
        package.step(ours, grads, state)
        sgd.update_params(theirs, grads)
        assert_bits(ours, theirs)
        assert_bits(list(state.velocity), [-v for v in sgd.velocities])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.0},
        {"nesterov": True},
        {"dampening": 0.3},
        {"weight_decay": 0.01},
        {"weight_decay": 0.01, "maximize": True},
        {"maximize": True, "dampening": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_torch(stepper: str, options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    package = STEPPERS[stepper]
    options = {"momentum": 0.9, **options}
    ours = tensors(rng, dtype)
    theirs = [torch.tensor(p, requires_grad=True) for p in ours]
    state = package.init(ours, lr=0.05, **options)
    sgd = torch.optim.SGD(theirs, lr=0.05, **options)
    tolerance = 50 * float(np.finfo(dtype).eps)
    for t in range(20):
        grads: list[Any] = tensors(rng, dtype)
        if t % 5 == 2:
            grads[t % 3] = None  # a frozen array; and one that makes its first step later
        if t < 4:
            grads[4] = None
        for p, g in zip(theirs, grads, strict=True):
            p.grad = None if g is None else torch.tensor(g)
        if t == 10:
            state.lr = sgd.param_groups[0]["lr"] = 0.01
        package.step(ours, grads, state)
        sgd.step()
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=20 * tolerance)
    if options["momentum"]:
        for v, p in zip(state.velocity, theirs, strict=True):
            buffer = sgd.state[p]["momentum_buffer"].numpy()
            np.testing.assert_allclose(v, buffer, rtol=tolerance, atol=20 * tolerance)


@pytest.mark.parametrize("nesterov", [False, True])
def test_optax(nesterov: bool, rng: np.random.Generator) -> None:
    optax = pytest.importorskip("optax")
    ours = tensors(rng, np.float32)
    theirs = [p.copy() for p in ours]
    state = fm.init(ours, lr=0.05, momentum=0.9, nesterov=nesterov)
    sgd = optax.sgd(0.05, momentum=0.9, nesterov=nesterov)
    sgd_state = sgd.init(theirs)
    for _ in range(20):
        grads = tensors(rng, np.float32)
        fm.step(ours, grads, state)
        updates, sgd_state = sgd.update(grads, sgd_state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, np.asarray(b), rtol=1e-5, atol=1e-5)


def test_optax_moving_average(rng: np.random.Generator) -> None:
    optax = pytest.importorskip("optax")
    ours = tensors(rng, np.float32)
    state = fm.init(ours, lr=0.05, momentum=0.9, form="ema")
    ema = optax.ema(0.9, debias=False)
    ema_state = ema.init(ours)
    for _ in range(10):
        grads = tensors(rng, np.float32)
        fm.step(ours, grads, state)
        averages, ema_state = ema.update(grads, ema_state)
        for v, b in zip(state.velocity, averages, strict=True):
            np.testing.assert_allclose(v, np.asarray(b), rtol=1e-5, atol=1e-6)
