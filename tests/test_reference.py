"""reference.py: numbers worked by hand, and the cases of other projects, which the kernels must meet too."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import reference
from helpers import FORMS, OPTIONS, Array, option_id

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden.json").read_text())["cases"]
STEPPERS = {"kernels": fm, "reference": reference}


def exact(x: Any) -> Fraction:
    return Fraction(*x.as_integer_ratio())


def rounded(x: Fraction, dtype: Any) -> Fraction:
    """`x` rounded to nearest even. Its exponent is found in double, which is exact enough for these numbers."""
    _, exponent = math.frexp(float(x))
    if x == 0:
        return x
    scale = Fraction(2) ** (np.finfo(dtype).nmant + 1 - exponent)
    return Fraction(round(x * scale)) / scale  # round() of a Fraction goes to even


def textbook(p: Any, g: Any, v: Any, first: bool, dtype: Any, o: dict[str, Any]) -> tuple[Fraction, Fraction]:
    """One element by exact arithmetic, each operation rounded by itself: no floating point is involved."""

    def c(value: float) -> Fraction:
        return rounded(Fraction(value), dtype)

    def add(a: Fraction, b: Fraction) -> Fraction:
        return rounded(a + b, dtype)

    def mul(a: Fraction, b: Fraction) -> Fraction:
        return rounded(a * b, dtype)

    form, m, lr, w = o["form"], o["momentum"], o["lr"], o.get("weight_decay", 0.0)
    d = -g if o.get("maximize") else g
    if w and not o.get("decoupled_weight_decay"):
        d = add(d, mul(c(w), p))
    gain = {"lr_outside": 1 - o.get("dampening", 0.0), "lr_inside": lr, "ema": 1 - m}[form]
    direct = {"lr_outside": 1.0, "lr_inside": lr, "ema": 1 - m}[form]
    v = d if first and form == "lr_outside" else add(mul(c(m), v), mul(c(gain), d))
    u = add(mul(c(direct), d), mul(c(m), v)) if o.get("nesterov") else v
    displacement = u if form == "lr_inside" else mul(c(lr), u)
    if w and o.get("decoupled_weight_decay"):
        displacement = add(displacement, mul(c(lr * w), p))
    return add(p, -displacement), v


@pytest.mark.parametrize("options", OPTIONS, ids=option_id)
def test_each_operation_rounds_once(options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> None:
    options = {"momentum": 0.9, **options}
    p, grads = rng.normal(size=6).astype(dtype), rng.normal(size=(4, 6)).astype(dtype)
    exact_p, exact_v = [exact(x) for x in p], [Fraction(0)] * 6
    state = reference.init(p, **options)
    for t, g in enumerate(grads):
        reference.step(p, g, state)
        for i in range(6):
            exact_p[i], exact_v[i] = textbook(
                exact_p[i], exact(g[i]), exact_v[i], t == 0, dtype.type, options
            )
            assert exact(p[i]) == exact_p[i]
            assert exact(state.velocity[i]) == exact_v[i]


def hyperparameters_at(case: dict[str, Any], t: int) -> dict[str, Any]:
    given = case["hyperparameters"]
    names = {"lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize"}
    return {k: v[min(t, len(v) - 1)] if isinstance(v, list) else v for k, v in given.items() if k in names}


def per_step_cases() -> list[Any]:
    """The cases of this form of interface; the others are about features that there are not (yet)."""
    return [
        case
        for case in GOLDEN
        if case["convention"] in FORMS
        and isinstance(case["grads"], list)
        and case["expected_params"] is not None
        and case.get("expected_is") == "per_step"
    ]


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("case", per_step_cases(), ids=lambda case: case["id"])
def test_golden(case: dict[str, Any], stepper: str) -> None:
    package = STEPPERS[stepper]
    for name in case["dtypes"]:
        if name not in ("float32", "float64"):
            continue
        params = [np.array(p, name) for p in case["params"]]
        options = hyperparameters_at(case, 0)
        if options["momentum"] == 0:  # Keras' own test has nesterov with momentum 0, which we refuse
            options.pop("nesterov", None)
        state = package.init(params, form=case["convention"], **options)
        tolerance = {k: v for k, v in case["tolerance"].items() if k in ("rtol", "atol")}
        tolerance["rtol"] = max(tolerance.get("rtol", 0), 1e-6 if name == "float32" else 0)
        sign = -1 if case["convention"] == "lr_inside" else 1  # see the file's "about"
        for t, grads in enumerate(case["grads"]):
            state.lr = hyperparameters_at(case, t)["lr"]
            package.step(params, [np.array(g, name) for g in grads], state)
            for p, expected in zip(params, case["expected_params"][t], strict=True):
                np.testing.assert_allclose(p, np.array(expected), **tolerance)
            if "expected_state" in case:
                for v, expected in zip(state.velocity, case["expected_state"][t], strict=True):
                    np.testing.assert_allclose(v, sign * np.array(expected), **tolerance)


def test_golden_has_cases() -> None:
    assert len(per_step_cases()) >= 14


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def torch_baseline_gradient(params: list[Array]) -> list[Array]:
    """Of the sum of outputs of the 2-3-1 network in PyTorch's test."""
    w1, b1, w2, b2 = params
    x = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    h = sigmoid(x @ w1.T + b1)
    o = sigmoid(h @ w2.T + b2)
    delta2 = o * (1 - o)
    delta1 = delta2 @ w2 * h * (1 - h)
    return [delta1.T @ x, delta1.sum(0), delta2.T @ h, delta2.sum(0)]


TORCH = [case for case in GOLDEN if case["id"].startswith("torch_cpp")]


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("case", TORCH, ids=lambda case: case["id"])
def test_torch_baselines(case: dict[str, Any], stepper: str) -> None:
    package = STEPPERS[stepper]
    given = case["hyperparameters"]
    w1, b1, w2, b2 = (np.array(p) for p in case["params"])
    params = [w1.reshape(3, 2), b1, w2.reshape(1, 3), b2]
    options = {"nesterov": True} if given["nesterov"] else {}
    state = package.init(
        params, lr=given["lr"], momentum=given["momentum"], weight_decay=given["weight_decay"], **options
    )
    expected = iter(case["expected_params"])
    for t in range(1001):
        package.step(params, torch_baseline_gradient(params), state)
        if t % 100 == 0:
            for p, e in zip(params, next(expected), strict=True):
                np.testing.assert_allclose(p.ravel(), e, rtol=0, atol=1e-12)
    assert next(expected, None) is None


SKLEARN = next(case for case in GOLDEN if case["id"] == "sklearn_sgd_formula")


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", np.arange(0.5, 0.9, 0.1))
@pytest.mark.parametrize("stepper", STEPPERS)
def test_sklearn_formula(stepper: str, momentum: float, nesterov: bool, rng: np.random.Generator) -> None:
    assert SKLEARN["hyperparameters"]["momentum"] == "np.arange(0.5,0.9,0.1)"
    package, lr = STEPPERS[stepper], SKLEARN["hyperparameters"]["lr"]
    shapes = [(4, 6), (6, 8), (7, 8, 9)]
    params = [np.zeros(shape) for shape in shapes]
    state = package.init(params, lr=lr, momentum=momentum, nesterov=nesterov, form="lr_inside")
    package.step(params, [rng.random(shape) for shape in shapes], state)  # velocities that are not zero
    velocities = [-v.copy() for v in state.velocity]
    before = [p.copy() for p in params]
    grads = [rng.random(shape) for shape in shapes]
    package.step(params, grads, state)
    for p, old, v, g in zip(params, before, velocities, grads, strict=True):
        update = momentum * v - lr * g
        if nesterov:
            update = momentum * update - lr * g
        np.testing.assert_array_equal(p, old + update)


@pytest.mark.parametrize("case", [c for c in GOLDEN if c["id"].endswith("sgdtest")], ids=lambda c: c["id"])
def test_ensmallen_function(case: dict[str, Any]) -> None:
    """Momentum finds the minimum of a sum of three functions, one at a time, that plain descent does not."""
    given = case["hyperparameters"]
    lr, momentum = given["lr"], given["momentum"]
    x = np.array(case["params"][0])
    state = fm.init(x, lr=lr, momentum=momentum, nesterov=given["nesterov"], form="lr_inside")
    # From x0 down a gradient of exp(-x0), at an effective rate of lr/(1 - momentum), every third step.
    rounds = int(1.1 * math.exp(x[0]) * (1 - momentum) / lr)
    grads = [np.zeros(3), np.zeros(3), np.zeros(3)]
    order = np.random.default_rng(0).permuted(np.tile(np.arange(3), (rounds, 1)), axis=1).ravel().tolist()
    for f in order:
        g = grads[f]
        if f == 0:
            g[0] = math.copysign(math.exp(-abs(x[0])), x[0])
        elif f == 1:
            g[1] = 2 * x[1]
        else:
            g[2] = 4 * x[2] ** 3 + 6 * x[2]
        fm.step(x, g, state)
    np.testing.assert_allclose(x, case["expected_params"][0], atol=0.01)


@pytest.mark.parametrize("case", [c for c in GOLDEN if "rosenbrock" in c["id"]], ids=lambda c: c["id"])
def test_ensmallen_rosenbrock(case: dict[str, Any]) -> None:
    """The generalised Rosenbrock function, one of its terms at a time, in a fraction of the steps of the source."""
    given = case["hyperparameters"]
    dimensions, steps = 10, 500_000
    x = np.where(np.arange(dimensions) % 2 == 0, 1.0, -1.2)
    state = fm.init(
        x, lr=given["lr"], momentum=given["momentum"], nesterov=given["nesterov"], form=case["convention"]
    )
    rounds = np.tile(np.arange(dimensions - 1), (steps // (dimensions - 1), 1))
    g, last = np.zeros(dimensions), 0
    for p in np.random.default_rng(0).permuted(rounds, axis=1).ravel().tolist():
        g[last] = g[last + 1] = 0
        a, b = x[p], x[p + 1]
        g[p], g[p + 1], last = 400 * (a**3 - a * b) + 2 * (a - 1), 200 * (b - a**2), p
        fm.step(x, g, state)
    np.testing.assert_allclose(x, 1, atol=1e-6)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_optax_moving_average(stepper: str) -> None:
    case = next(case for case in GOLDEN if case["id"] == "optax_ema_no_debias")
    package, p = STEPPERS[stepper], np.zeros(1, np.float32)
    state = package.init(p, lr=1.0, momentum=case["hyperparameters"]["decay"], form=case["convention"])
    for g, expected in zip(case["grads"], case["expected_outputs"], strict=True):
        package.step(p, np.full(1, g, np.float32), state)
        np.testing.assert_allclose(state.velocity, expected, rtol=1e-6)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_optax_example(stepper: str) -> None:
    case = next(case for case in GOLDEN if case["id"] == "optax_sgd_doc_example")
    package, p = STEPPERS[stepper], np.array(case["params"][0], np.float32)
    state = package.init([p], form=case["convention"], **case["hyperparameters"])
    objectives = [float(p @ p)]
    for _ in range(5):
        package.step([p], [2 * p], state)
        objectives.append(float(p @ p))
    assert objectives[0] == 14
    printed = " ".join(f"{objective:.2E}" for objective in objectives[1:])
    assert printed in case["expected"]


def test_worked_example() -> None:
    """J = theta**2 from 5: theta = 4, 2.3, 0.31 and v = 1, 1.7, 1.99."""
    for package in STEPPERS.values():
        theta = np.array([5.0])
        state = package.init(theta, lr=0.1, form="lr_inside")
        for expected, velocity in [(4, 1), (2.3, 1.7), (0.31, 1.99)]:
            package.step(theta, 2 * theta, state)
            np.testing.assert_allclose((theta[0], state.velocity[0]), (expected, velocity), rtol=1e-12)


def test_golden_file_says_where_it_is_from() -> None:
    assert all(case["source"]["repo"] for case in GOLDEN)
