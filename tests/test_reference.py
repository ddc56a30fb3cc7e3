"""reference.py: numbers worked by hand, and the cases of other projects, which the kernels must meet too."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import fast_momentum as fm
from fast_momentum import reference
from helpers import (
    FORMAT,
    FORMS,
    LAYOUTS,
    NAN_PATTERNS,
    OPTIONS,
    Array,
    as_float32,
    assert_bits,
    bfloat16_cases,
    copied,
    float16_cases,
    make,
    option_id,
    random_like,
)

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


def square_root(x: Fraction, dtype: Any) -> Fraction:
    """Rounded to nearest; a root of so many bits is never halfway between two numbers unless it is exact."""
    shift = 4 * np.finfo(dtype).nmant + 60
    bits = shift + 2 * max(0, -math.frexp(float(x))[1])
    root = math.isqrt(x.numerator * 4**bits // x.denominator)
    found = Fraction(root, 2**bits)
    if found * found != x:
        found += Fraction(1, 2 ** (bits + 1))
    return rounded(found, dtype)


Slots = dict[str, Fraction]


class Textbook:
    """One element by exact arithmetic, each operation rounded by itself: no floating point is involved."""

    def __init__(self, dtype: Any, options: dict[str, Any]) -> None:
        self.dtype, self.o = dtype, options
        self.form = options.get("form", options.get("rule", "lr_outside"))

    def c(self, value: float) -> Fraction:
        return rounded(Fraction(value), self.dtype)

    def add(self, a: Fraction, b: Fraction) -> Fraction:
        return rounded(a + b, self.dtype)

    def mul(self, a: Fraction, b: Fraction) -> Fraction:
        return rounded(a * b, self.dtype)

    def average(self, decay: float, old: Fraction, new: Fraction) -> Fraction:
        return self.add(self.mul(self.c(decay), old), self.mul(self.c(1 - decay), new))

    def step(self, p: Fraction, g: Fraction, slots: Slots, t: int) -> Fraction:
        """The new parameter; `slots` are made new. It is step t, the first one being 1."""
        o = self.o
        w = o.get("weight_decay", 0.0)
        d = -g if o.get("maximize") else g
        if w and not o.get("decoupled_weight_decay"):
            d = self.add(d, self.mul(self.c(w), p))
        rule = o.get("rule", "momentum")
        displacement = getattr(self, "linear" if rule in ("momentum", "qhm") else rule)(d, slots, t)
        wide = np.float64 if self.form == "folded_float64" else self.dtype
        if w and o.get("decoupled_weight_decay"):
            displacement = rounded(displacement + self.mul(self.c(o["lr"] * w), p), wide)
        after = rounded(rounded(p - displacement, wide), self.dtype)
        return self.advance(after, slots) if rule == "accelerated" else after

    def accelerated(self, d: Fraction, _slots: Slots, _t: int) -> Fraction:
        return self.mul(self.c(self.o["lr"]), d)

    def advance(self, z: Fraction, slots: Slots) -> Fraction:
        """Without a restart, which looks at all elements."""
        rest = self.add(abs(z), -self.c(self.o["lr"] * self.o.get("l1", 0.0)))
        found = max(rest, Fraction(0)) * (1 if z > 0 else -1)
        sequence, at = self.o.get("sequence", "fista"), float(slots.pop("position", Fraction(1)))
        if sequence == "fista":
            following = (1 + math.sqrt(1 + 4 * at * at)) / 2
            b = (at - 1) / following
        else:
            following, b = at + 1, (at - 1) / (at + 2) if sequence == "nesterov" else sequence
        change = self.add(found, -slots["iterate"])
        slots["iterate"], slots["position"] = found, Fraction(following)
        return self.add(found, self.mul(self.c(b), change))

    def linear(self, d: Fraction, slots: Slots, t: int) -> Fraction:
        o, form, add, mul, c = self.o, self.form, self.add, self.mul, self.c
        m, lr, nu = o["momentum"], o["lr"], o.get("nu", 0.7)
        gain = {"lr_outside": 1 - o.get("dampening", 0.0), "lr_inside": lr, "ema": 1 - m, "qhm": 1 - m}[form]
        direct = {"lr_outside": 1.0, "lr_inside": lr, "ema": 1 - m, "qhm": 1 - nu}[form]
        v = d if t == 1 and form == "lr_outside" else add(mul(c(m), slots["velocity"]), mul(c(gain), d))
        carried = nu if form == "qhm" else m
        u = add(mul(c(direct), d), mul(c(carried), v)) if o.get("nesterov") or form == "qhm" else v
        slots["velocity"] = v
        return u if form == "lr_inside" else mul(c(lr), u)

    def adam(self, d: Fraction, slots: Slots, t: int) -> Fraction:
        o, form, add, mul, c = self.o, self.form, self.add, self.mul, self.c
        b1, b2, lr = o.get("beta1", 0.9), o.get("beta2", 0.999), o["lr"]
        v = slots["velocity"] = self.average(b1, slots["velocity"], d)
        s = slots["second_moment"] = self.average(b2, slots["second_moment"], mul(d, d))
        q = s
        if o.get("amsgrad"):
            q = slots["second_moment_maximum"] = max(s, slots["second_moment_maximum"])
        size = {
            "corrected": lr / (1 - b1**t),
            "folded": lr * math.sqrt(1 - b2**t) / (1 - b1**t),
            "uncorrected": lr,
        }[form.removesuffix("_float64")]
        u = v
        if o.get("nesterov"):
            size, direct, carried = lr, (1 - b1) / (1 - b1**t), b1 / (1 - b1 ** (t + 1))
            if (decay := o.get("momentum_decay")) is not None:
                beta = {k: b1 * (1 - 0.5 * 0.96 ** (k * decay)) for k in range(1, t + 2)}
                product = math.prod(beta[k] for k in range(1, t + 1))
                direct, carried = (1 - beta[t]) / (1 - product), beta[t + 1] / (1 - product * beta[t + 1])
            u = add(mul(c(direct), d), mul(c(carried), v))
        correction = 1 / math.sqrt(1 - b2**t) if form == "corrected" else 1.0
        below = add(mul(square_root(q, self.dtype), c(correction)), c(o.get("eps", 1e-8)))
        wide = np.float64 if form == "folded_float64" else self.dtype
        return rounded(rounded(rounded(Fraction(size), wide) * u, wide) / below, wide)

    def lion(self, d: Fraction, slots: Slots, _t: int) -> Fraction:
        u = self.average(self.o.get("beta1", 0.9), slots["velocity"], d)
        slots["velocity"] = self.average(self.o.get("beta2", 0.99), slots["velocity"], d)
        return self.c(self.o["lr"]) * ((u > 0) - (u < 0))

    def signum(self, d: Fraction, slots: Slots, _t: int) -> Fraction:
        v = slots["velocity"] = self.average(self.o.get("momentum", 0.9), slots["velocity"], d)
        return self.c(self.o["lr"]) * ((v > 0) - (v < 0))

    def rmsprop(self, d: Fraction, slots: Slots, _t: int) -> Fraction:
        o, add, mul, c = self.o, self.add, self.mul, self.c
        rho, eps = o.get("rho", 0.99), c(o.get("eps", 1e-8))
        q = slots["second_moment"] = self.average(rho, slots["second_moment"], mul(d, d))
        if o.get("centered"):
            a = slots["mean"] = self.average(rho, slots["mean"], d)
            q = add(q, -mul(a, a))
        inside = self.form == "lr_inside"
        below = square_root(add(q, eps), self.dtype) if inside else add(square_root(q, self.dtype), eps)
        v = rounded((mul(c(o["lr"]), d) if inside else d) / below, self.dtype)
        if o.get("momentum"):
            v = slots["velocity"] = add(mul(c(o["momentum"]), slots["velocity"]), v)
        return v if inside else mul(c(o["lr"]), v)


@pytest.mark.parametrize("options", OPTIONS, ids=option_id)
def test_each_operation_rounds_once(options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> None:
    p, grads = rng.normal(size=6).astype(dtype), rng.normal(size=(4, 6)).astype(dtype)
    exact_p = [exact(x) for x in p]
    if "restart" in options:
        options = {**options, "restart": None}
    state = make(reference, p, **options)
    slots = [
        {name: exact(p[i]) if name == "iterate" else Fraction(0) for name in state.keeps} for i in range(6)
    ]
    formula = Textbook(dtype.type, {"momentum": getattr(state, "momentum", 0), **options})
    for t, g in enumerate(grads):
        reference.step(p, g, state)
        for i in range(6):
            exact_p[i] = formula.step(exact_p[i], exact(g[i]), slots[i], t + 1)
            assert exact(p[i]) == exact_p[i]
            for name in state.keeps:
                assert exact(getattr(state, name)[i]) == slots[i][name]


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


# ---- what a narrower dtype stores ----


FLOATS = st.floats(width=32, allow_subnormal=True)
LARGEST = float(np.finfo(np.float32).max)


def test_float16_rounds_to_nearest_even() -> None:
    """Every half, every midpoint of two, and their neighbours in float32: ties by hand, all of it as NumPy casts."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)  # from 0 to infinity
    finite = halves[:-1]
    midpoints = (finite + np.append(finite[1:], np.float32(65536))) / 2
    even = np.where(np.arange(finite.size) % 2 == 0, finite, halves[1:])
    assert_bits(reference.round_to(midpoints, "float16"), even)
    assert_bits(reference.round_to(halves, "float16"), halves)
    values = float16_cases()
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(np.float16).astype(np.float32)
    assert_bits(reference.round_to(values, "float16"), cast)
    edge = np.array([65504, np.nextafter(np.float32(65520), np.float32(0)), 65520, 1e30, -65520], np.float32)
    assert reference.round_to(edge, "float16").tolist() == [65504, 65504, math.inf, math.inf, -math.inf]


def test_bfloat16_rounds_to_nearest_even() -> None:
    values = bfloat16_cases()
    pattern = values.view(np.uint32).astype(np.uint64)
    pattern = pattern + 0x7FFF + (pattern >> 16 & 1)  # whose carry makes the next exponent, or infinity
    pattern &= 0xFFFF0000
    expected = np.where(np.isnan(values), values, as_float32(pattern))
    assert np.isinf(expected).sum() > np.isinf(values).sum()
    assert_bits(reference.round_to(values, "bfloat16"), expected)


def test_bfloat16_rounds_as_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes, which has bfloat16, is not installed")
    values = bfloat16_cases()
    with np.errstate(invalid="ignore"):  # from NaNs that signal
        cast = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert_bits(reference.round_to(values, "bfloat16"), cast)


def rounded_up(x: Fraction, n_bits: int) -> Fraction:
    _, exponent = math.frexp(float(x))
    scale = Fraction(2) ** (n_bits - exponent)
    return math.ceil(x * scale) / scale


def textbook_int8(values: list[float]) -> list[Fraction]:
    """One block of finite numbers by exact arithmetic, of which only what is said to round does."""
    a = max(abs(exact(v)) for v in values)
    s = rounded(a / 127, np.float32)
    if s < Fraction(2) ** -126:
        return [Fraction(0)] * len(values)
    s = rounded_up(s, 16)
    inverse = rounded(1 / s, np.float32)
    return [round(rounded(exact(v) * inverse, np.float32)) * s for v in values]


@pytest.mark.parametrize("decade", [-38, -35, -20, 0, 7, 38])
def test_int8_is_the_textbook(decade: int, rng: np.random.Generator) -> None:
    values = np.asarray(rng.normal(size=600) * 0.3 * 10.0**decade, np.float32)
    values[256:512] *= np.float32(1e-3)
    read_back = reference.round_to(values, "int8")
    expected = [x for k in range(0, 600, 256) for x in textbook_int8(values[k : k + 256].tolist())]
    assert [exact(x) for x in read_back] == expected
    assert len(set(expected)) > 100 or decade == -38


def test_int8_ties_go_to_even() -> None:
    """The scale of a block with 127 is 1, so that halves are ties."""
    values = np.append(np.arange(-126.5, 127), 127).astype(np.float32)
    expected = [round(v) for v in values.tolist()]
    assert {-2, 0, 2, 126} <= set(expected)
    assert 1 not in expected
    for power in (1.0, 2.0**-126, 2.0**-30, 2.0**120):
        read_back = reference.round_to(values * np.float32(power), "int8")
        assert_bits(read_back, np.array(expected, np.float32) * np.float32(power))


def test_int8_has_no_negative_zero() -> None:
    values = np.array([-0.0, 0.0, -0.3, 0.3, -127], np.float32)
    assert_bits(reference.round_to(values, "int8"), np.array([0, 0, 0, 0, -127], np.float32))
    assert_bits(reference.round_to(-np.zeros(300, np.float32), "int8"), np.zeros(300, np.float32))


def test_int8_blocks_are_alone() -> None:
    """A zero block, one too small for a scale, and a last short one, each beside large numbers."""
    values = np.zeros(5 * 256 + 3, np.float32)
    values[256:512] = 1e30
    values[512:768] = 126 * 2.0**-126  # of which a 127th is subnormal
    values[768:1024] = 127 * 2.0**-126
    values[1024:1280] = -1e30
    values[1280:] = [127, 126, -1]
    expected = values.copy()
    expected[512:768] = 0
    read_back = reference.round_to(values, "int8")
    np.testing.assert_allclose(read_back, expected, rtol=2**-15)
    assert_bits(read_back[:256], expected[:256])
    assert_bits(read_back[512:1024], expected[512:1024])
    assert_bits(read_back[1280:], expected[1280:])
    assert reference.round_to(values[:0], "int8").shape == (0,)
    assert_bits(reference.round_to(np.array(np.float32(254)), "int8"), np.array(np.float32(254)))


@pytest.mark.parametrize("pattern", [*NAN_PATTERNS, 0x7F800000, 0xFF800000], ids=hex)
@pytest.mark.parametrize("position", [0, 17, 255, 256, 511, 519])
def test_int8_block_with_nan_or_infinity(position: int, pattern: int) -> None:
    """It reads back as NaN as a whole, whatever the payload, and its neighbours do not."""
    values = np.ones(520, np.float32)
    values.view(np.uint32)[position] = pattern
    expected = np.arange(520) // 256 == position // 256
    np.testing.assert_array_equal(np.isnan(reference.round_to(values, "int8")), expected)


def test_int8_overflows_next_to_the_largest_number() -> None:
    """As the scale is rounded up, 127 of it may be above the largest float32: then it is infinite."""
    assert reference.round_to(np.array([LARGEST, 1, -LARGEST], np.float32), "int8").tolist() == [
        math.inf,
        0,
        -math.inf,
    ]
    kept = np.float32(LARGEST * (1 - 2.0**-15))
    assert np.isfinite(reference.round_to(np.array([kept, -kept]), "int8")).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_blocks_follow_the_memory(layout: str, rng: np.random.Generator) -> None:
    """In the order of memory of a dense array like the one given, and so with any strides."""
    decades = (10.0 ** rng.integers(-3, 3, (9, 10, 11))).astype(np.float32)
    values = LAYOUTS[layout](random_like((9, 10, 11), np.float32, rng) * decades)
    dense = np.empty_like(values)
    dense[...] = values
    raw = as_strided(dense, (dense.size,), (4,))  # its memory as it lies there
    expected = np.concatenate([reference.round_to(raw[k : k + 256], "int8") for k in range(0, raw.size, 256)])
    read_back = reference.round_to(values, "int8")
    assert read_back.strides == dense.strides
    assert_bits(as_strided(read_back, (dense.size,), (4,)), expected)
    assert_bits(reference.round_to(dense, "int8"), read_back)


@given(hnp.arrays(np.float32, st.integers(0, 600), elements=FLOATS, fill=FLOATS))
def test_rounding_again_changes_nothing(values: Array) -> None:
    for name in ("float16", "bfloat16", "float32"):
        once = reference.round_to(values, name)
        assert_bits(reference.round_to(once, name), once)
    small_enough = np.clip(values, -LARGEST * (1 - 2.0**-15), LARGEST * (1 - 2.0**-15))
    once = reference.round_to(small_enough, "int8")
    assert_bits(reference.round_to(once, "int8"), once)


@given(hnp.arrays(np.float32, st.integers(1, 256), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_int8_error_is_half_a_scale(values: Array) -> None:
    """The scale is at most a part in 2**15 above a/127. Its inverse and the product are rounded too, which can move a
    quotient of up to 127 by less than 2**-15 across a tie."""
    a = float(np.abs(values).max())
    scale = a / 127 * (1 + 2.0**-15) if a / 127 >= 2.0**-126 else 2 * a
    error = np.abs(reference.round_to(values, "int8").astype(float) - values)
    assert error.max() <= (0.5 + 2.0**-15) * scale


# ---- the norm ----


def textbook_sum_of_squares(arrays: list[Array], scale: float = 1.0) -> float:
    """In loops over Python's floats, which are doubles."""
    sums = []
    for array in arrays:
        x = [float(e) * scale for e in array.tolist()]
        for begin in range(0, len(x), 4096):
            block = x[begin : begin + 4096]
            lanes = [0.0] * 16
            for i, e in enumerate(block):
                lanes[i % 16] += e * e
            for half in (8, 4, 2, 1):
                lanes = [lanes[j] + lanes[j + half] for j in range(half)]
            sums.append(lanes[0])
    while len(sums) > 1:
        sums = [sum(sums[k : k + 2]) for k in range(0, len(sums), 2)]
    return sums[0] if sums else 0.0


@pytest.mark.parametrize("sizes", [[], [0], [1], [15], [16, 17], [255], [4095, 4096, 4097], [0, 13000, 0, 1, 4096], [1] * 11])  # fmt: skip
def test_global_norm_is_the_textbook(sizes: list[int], dtype: Any, rng: np.random.Generator) -> None:
    arrays = [np.asarray(rng.normal(size=n) * 10.0 ** rng.integers(-9, 9, n), dtype) for n in sizes]
    assert reference.global_norm(arrays) == math.sqrt(textbook_sum_of_squares(arrays))
    assert type(reference.global_norm(arrays)) is float


@pytest.mark.parametrize("exponent", [-1060, -1000, -530, -510, -481, -479, 0, 479, 481, 510, 1000, 1015])
def test_global_norm_neither_overflows_nor_underflows(exponent: int, rng: np.random.Generator) -> None:
    x = np.ldexp(rng.uniform(0.5, 1, 10_000), exponent)
    assert reference.global_norm(x) == pytest.approx(math.hypot(*x), rel=300 * 2**-53)
    plain = textbook_sum_of_squares([x])
    scale = 1.0 if 2.0**-960 <= plain <= 2.0**960 else 2.0 ** math.copysign(600, -exponent)
    assert reference.global_norm(x) == math.sqrt(textbook_sum_of_squares([x], scale)) / scale


def test_global_norm_over_many_decades(rng: np.random.Generator) -> None:
    """Against fsum, which is exact. Each square passes through at most 256 + 4 + 3 rounded additions here."""
    for decades in (1, 10, 150):
        arrays = [10.0 ** rng.uniform(-decades, decades, n) for n in (1, 300, 5000, 20_000)]
        norm = math.sqrt(math.fsum(float(x) ** 2 for array in arrays for x in array))
        assert reference.global_norm(arrays) == pytest.approx(norm, rel=270 * 2**-53)
    assert reference.global_norm(np.array([1e300, 1e-300, 5e-324])) == 1e300
    assert reference.global_norm(np.array([3e-320, 4e-320])) == pytest.approx(5e-320, rel=1e-3)


def test_global_norm_of_what_is_special() -> None:
    assert (
        reference.global_norm(None)
        == reference.global_norm({})
        == reference.global_norm([np.zeros(5), None])
        == 0
    )
    assert reference.global_norm([np.float32(3), (np.array(4.0),)]) == 5
    assert math.isnan(reference.global_norm([np.array([1.0, math.nan]), np.array([math.inf])]))
    assert reference.global_norm(np.array([1, -math.inf], np.float32)) == math.inf
    assert reference.global_norm(np.full(4, 1e308)) == math.inf  # 2e308 is no double
    assert reference.global_norm(np.full(2, LARGEST, np.float32)) == pytest.approx(
        math.hypot(LARGEST, LARGEST)
    )
    assert reference.global_norm(np.full(2, 1e-45, np.float32)) == pytest.approx(
        math.hypot(2.0**-149, 2.0**-149)
    )


def test_global_norm_of_halves(half: Any) -> None:
    assert reference.global_norm({"a": np.array([3], half), "b": np.array([4])}) == 5


def test_global_norm_pads_with_zeros(rng: np.random.Generator) -> None:
    x = rng.normal(size=5000)
    whole = reference.global_norm(x)
    assert whole == reference.global_norm([x[:4096], np.zeros(0), x[4096:]])
    assert whole == reference.global_norm(np.append(x, np.zeros(8192 - 5000)))
    moved = rng.permutation(x)
    assert whole != reference.global_norm(
        moved
    )  # an order there is: this one happens to round in another way
    assert whole == pytest.approx(reference.global_norm(moved), rel=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_global_norm_reads_in_one_order(layout: str, rng: np.random.Generator) -> None:
    """That of a step with it, too. Several times, as two orders may happen to round alike."""
    for _ in range(8):
        values = rng.normal(size=(19, 20, 21))
        x = LAYOUTS[layout](values)
        in_order = values.T if layout == "F" else values
        norm = math.sqrt(textbook_sum_of_squares([in_order.ravel()]))
        assert reference.global_norm(x) == norm
        state = reference.init(values, lr=0.1, clip_norm=1.0)
        reference.step(np.zeros_like(values), x, state)
        assert state.grad_norm == norm


# ---- the whole update ----


def test_order_of_operations() -> None:
    """Scaled, then measured, then clipped; then sign and decay; the average sees the new parameter; zeroes last."""
    p, g = np.array([1.0]), np.array([8.0])
    state = reference.init(
        p, lr=0.5, momentum=0.5, weight_decay=0.25, clip_norm=2.0, average_decay=0.75, maximize=True
    )
    reference.step(p, g, state, grad_scale=0.5, zero_grads=True)
    assert state.grad_norm == 4  # of 8 * 0.5, which is clipped to 2
    assert state.velocity.tolist() == [-2 + 0.25]
    assert p.tolist() == [1 + 0.5 * 1.75]
    assert state.average.tolist() == [0.75 + 0.25 * 1.875]
    assert_bits(g, np.zeros(1))
    assert (state.step_count, state.skipped_steps) == (1, 0)


@pytest.mark.parametrize(
    ("clip_norm", "norm", "clipped"),
    [
        (5.0, 5.0, [3, 4]),
        (10.0, 5.0, [3, 4]),
        (2.5, 5.0, [1.5, 2]),
        (math.inf, 5.0, [3, 4]),
        (None, None, [3, 4]),
    ],
)
def test_clip_by_norm(clip_norm: float | None, norm: float | None, clipped: list[float]) -> None:
    p = [np.zeros(1), np.zeros(1, np.float32)]
    state = reference.init(p, lr=1.0, clip_norm=clip_norm)
    reference.step(p, [np.array([3.0]), np.array([4], np.float32)], state)
    assert state.grad_norm == norm
    assert np.concatenate(state.velocity).tolist() == clipped


def test_clip_coefficient_is_formed_in_double_and_rounded_once(dtype: Any, rng: np.random.Generator) -> None:
    """And the scale too, each product by itself."""
    clip_norm, scale = float(np.float32(0.1)), rounded(exact(0.3), dtype)
    g, p = rng.normal(size=30).astype(dtype), np.zeros(30, dtype)
    state = reference.init(p, lr=1.0, clip_norm=np.float32(0.1))
    reference.step(p, g, state, grad_scale=0.3)
    scaled = [rounded(scale * exact(x), dtype) for x in g]
    assert state.grad_norm == reference.global_norm(np.array([float(x) for x in scaled]))
    coefficient = rounded(exact(clip_norm / state.grad_norm), dtype)
    assert [exact(v) for v in state.velocity] == [rounded(coefficient * x, dtype) for x in scaled]


def test_clip_by_norm_of_what_is_not_finite() -> None:
    for bad, clip_norm, expected in [
        (math.nan, 1.0, [math.nan, math.nan]), (math.inf, 1.0, [math.nan, 0]), (math.inf, math.inf, [math.inf, 1]),
    ]:  # fmt: skip
        p = np.zeros(2, np.float32)
        state = reference.init(p, lr=1.0, clip_norm=clip_norm)
        reference.step(p, np.array([bad, 1], np.float32), state)
        np.testing.assert_array_equal(state.velocity, np.array(expected, np.float32))
        assert math.isnan(state.grad_norm) if math.isnan(bad) else state.grad_norm == bad


def test_clip_by_value() -> None:
    p = np.zeros(6, np.float32)
    state = reference.init(p, lr=1.0, clip_value=0.5)
    reference.step(
        p, np.array([-3, 0.25, 0.75, math.inf, -math.inf, math.nan], np.float32), state, grad_scale=2.0
    )
    np.testing.assert_array_equal(state.velocity, [-0.5, 0.5, 0.5, 0.5, -0.5, math.nan])


def test_gradients_of_sixteen_bits_are_widened_exactly(half: Any) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(half)
    with np.errstate(invalid="ignore"):
        prepared = reference.prepare(every, np.float32)
        assert prepared.dtype == np.float32
        assert_bits(prepared, np.array([float(x) for x in every], np.float32))
    p = np.zeros(4, np.float32)
    reference.step(p, np.array([1, 2, -3, 0.5], half), reference.init(p, lr=0.5))
    assert p.tolist() == [-0.5, -1, 1.5, -0.25]


@pytest.mark.parametrize(
    ("bad", "scale", "clip", "norm"),
    [
        (math.nan, 1.0, {}, None),
        (1e38, 1e3, {"clip_norm": 1.0}, math.inf),
        (math.inf, 1.0, {"clip_value": 1.0}, None),
    ],
)
def test_skipped_steps_change_nothing(
    bad: float, scale: float, clip: dict[str, float], norm: float | None
) -> None:
    """Also where it is the scale that makes a gradient infinite; clipping comes too late to help."""
    p = [np.ones(2, np.float32), np.ones(3, np.float32)]
    state = reference.init(p, lr=0.1, nonfinite="skip", average_decay=0.5, **clip)
    grads = [np.ones(2, np.float32), np.ones(3, np.float32)]
    reference.step(p, grads, state)
    before, kept = state.state_dict(), copied(p)
    grads[1][2] = bad
    reference.step(p, grads, state, grad_scale=scale, zero_grads=True)
    after = state.state_dict()
    for name in ("velocity", "average"):
        assert_bits(after.pop(name), before.pop(name))
    assert after == {**before, "skipped_steps": 1, "grad_norm": norm}
    assert_bits(p, kept)
    assert_bits(grads, [np.zeros(2, np.float32), np.zeros(3, np.float32)])
    reference.step(p, grads, state)
    assert (state.step_count, state.skipped_steps) == (2, 1)


def test_raising_changes_nothing_at_all() -> None:
    p, g = np.ones(2), np.array([1.0, math.inf])
    state = reference.init(p, lr=0.1, nonfinite="raise", clip_norm=1.0)
    with pytest.raises(FloatingPointError):
        reference.step(p, g, state, zero_grads=True)
    assert (p.tolist(), g.tolist(), state.velocity.tolist()) == ([1, 1], [1, math.inf], [0, 0])
    assert (state.grad_norm, state.step_count, state.skipped_steps) == (None, 0, 0)


def test_nothing_but_none() -> None:
    p = [np.ones(2)]
    state = reference.init(p, lr=0.1, nonfinite="skip", clip_norm=1.0, average_decay=0.5)
    reference.step(p, [None], state, zero_grads=True)
    assert (state.grad_norm, state.step_count, p[0].tolist()) == (0.0, 1, [1, 1])


def test_average(dtype: Any, rng: np.random.Generator) -> None:
    """By exact arithmetic: two products and a sum, each rounded; also of an array without a gradient."""
    decay = 0.9
    p = [rng.normal(size=5).astype(dtype), rng.normal(size=3).astype(dtype)]
    state = reference.init(p, lr=0.1, average_decay=decay)
    kept, rest = rounded(exact(decay), dtype), rounded(exact(1 - decay), dtype)
    expected = [[exact(x) for x in q] for q in p]
    for _ in range(4):
        reference.step(p, [rng.normal(size=5).astype(dtype), None], state)
        for k, q in enumerate(p):
            expected[k] = [
                rounded(rounded(kept * a, dtype) + rounded(rest * exact(x), dtype), dtype)
                for a, x in zip(expected[k], q, strict=True)
            ]
            assert [exact(a) for a in state.average[k]] == expected[k]
    assert state.average[0].dtype == dtype


def test_average_is_switched_on_and_off() -> None:
    p, one = np.zeros(1), np.ones(1)
    state = reference.init(p, lr=1.0, momentum=0.0)
    reference.step(p, one, state)
    assert state.average is None
    state.average_decay = 0.5
    reference.step(p, one, state)
    assert state.average.tolist() == [-1.5]  # it began with the parameter before this step
    state.average_decay = None
    reference.step(p, one, state)
    assert state.average.tolist() == [-1.5]
    state.average_decay = 0.75
    reference.step(p, one, state)
    assert state.average.tolist() == [0.75 * -1.5 + 0.25 * -4]
    state = reference.init(p, lr=1.0)
    state.average_decay = 0.0
    reference.step(p, one, state)
    assert state.average.tolist() == p.tolist() == [-5]


def test_swapping_twice_gives_the_old_bits(dtype: Any, rng: np.random.Generator) -> None:
    p = {"w": random_like((3, 4), dtype, rng)}
    state = reference.init(p, lr=0.1, average_decay=0.9)
    reference.step(p, {"w": random_like((3, 4), dtype, rng)}, state)
    before, average = copied(p), copied(state.average)
    state.swap_average(p)
    assert_bits(p, average)
    assert_bits(state.average, before)
    assert state.state_dict()["swapped"]
    state.swap_average(p)
    assert_bits(p, before)
    assert_bits(state.average, average)
    assert not state.state_dict()["swapped"]


@pytest.mark.parametrize("name", ["float16", "bfloat16", "int8"])
def test_the_parameter_sees_the_velocity_before_it_is_stored(name: str, rng: np.random.Generator) -> None:
    for nesterov in (False, True):
        g = rng.normal(size=(2, 300)).astype(np.float32)
        p, plain = np.zeros(300, np.float32), np.zeros(300, np.float32)
        state = reference.init(p, lr=0.1, velocity_dtype=name, nesterov=nesterov)
        exact_state = reference.init(plain, lr=0.1, nesterov=nesterov)
        reference.step(p, g[0], state)
        reference.step(plain, g[0], exact_state)
        assert_bits(p, plain)
        assert_bits(state.velocity, reference.round_to(exact_state.velocity, name))
        assert not np.array_equal(state.velocity, exact_state.velocity)
        exact_state.velocity = state.velocity.copy()  # the next one begins with what was stored
        reference.step(p, g[1], state)
        reference.step(plain, g[1], exact_state)
        assert_bits(p, plain)


def test_master_copies(half: Any, rng: np.random.Generator) -> None:
    """Parameters of 16 bits are those of 32, rounded after each step; what the user changes is taken up."""
    p = random_like((50,), half, rng)
    wide = p.astype(np.float32)
    state, other = reference.init(p, lr=1e-3), reference.init(wide, lr=1e-3)
    for t in range(12):
        g = random_like((50,), half, rng)
        reference.step(p, g, state)
        reference.step(wide, g.astype(np.float32), other)
        assert_bits(p, wide.astype(half))
        assert_bits(state.master[()], wide)
        if t == 5:
            p[7] = wide[7] = 3.5
    assert_bits(
        reference.lookahead(p, state), (p.astype(np.float32) - np.float32(9e-4) * state.velocity).astype(half)
    )


def test_average_of_master_copies(half: Any, rng: np.random.Generator) -> None:
    """It averages and exchanges the master copies, of which the parameters are a rounding."""
    p = random_like((50,), half, rng)
    wide = p.astype(np.float32)
    state = reference.init(p, lr=1e-3, average_decay=0.5)
    other = reference.init(wide, lr=1e-3, average_decay=0.5)
    for _ in range(3):
        g = random_like((50,), half, rng)
        reference.step(p, g, state)
        reference.step(wide, g.astype(np.float32), other)
    assert_bits(state.average, other.average)
    before = p.copy()
    state.swap_average(p)
    assert_bits(p, other.average.astype(half))
    assert_bits(state.master[()], other.average)
    assert_bits(state.average, wide)
    state.swap_average(p)
    assert_bits(p, before)
    assert_bits(state.master[()], wide)


def test_compensation_loses_nothing(dtype: Any) -> None:
    """Updates far below half a unit in the last place: plain steps lose all of them, compensated ones none. What is
    stored and the compensation together are even exact here. (200 000 of them are for the kernels, in test_update.py.)
    """
    steps, tiny = 3000, float(np.finfo(dtype).eps) / 16
    plain, p, g = np.ones(3, dtype), np.ones(3, dtype), np.array([tiny, -tiny, 0], dtype)
    state = reference.init(p, lr=1.0, momentum=0.0, compensated=True)
    without = reference.init(plain, lr=1.0, momentum=0.0)
    for _ in range(steps):
        reference.step(plain, g, without)
        reference.step(p, g, state)
    assert plain.tolist() == [1, 1, 1]
    for x, c, direction in zip(p, state.compensation[()], (-1, 1, 0), strict=True):
        assert exact(x) - exact(c) == 1 + direction * steps * exact(tiny)
        assert abs(exact(c)) <= exact(np.finfo(dtype).eps) / 2


def test_compensated_halves(half: Any) -> None:
    p = np.array([1, -1, 256], half)
    state = reference.init(p, lr=1.0, momentum=0.0, compensated=True)
    g = np.array([2.0**-16, 2.0**-16, 2.0**-8], half)
    for _ in range(256):
        reference.step(p, g, state)
    assert p.dtype == state.compensation[()].dtype == half
    exactly = np.array([1 - 2.0**-8, -1 - 2.0**-8, 256 - 1])
    assert_bits(p.astype(float) - state.compensation[()].astype(float), exactly)
    assert not state.master


def test_state_dict_has_everything(rng: np.random.Generator) -> None:
    p = {"a": random_like((3,), np.float16, rng), "b": random_like((2,), np.float32, rng)}
    state = reference.init(p, lr=0.1, velocity_dtype=np.int8, clip_norm=1, average_decay=0.5)
    found = state.state_dict()
    assert (found["format"], found["velocity_dtype"], found["compensated"]) == (FORMAT, "int8", False)
    assert found["hyperparameters"]["clip_norm"] == 1.0
    assert found["hyperparameters"]["nonfinite"] == "propagate"
    assert found["hyperparameters"]["clip_value"] is None
    assert list(found["master"]) == ["['a']"]
    assert list(found["average"]) == ["['a']", "['b']"]
    assert found["compensation"] == {}
    assert {a.dtype for name in ("velocity", "average", "master") for a in found[name].values()} == {
        np.dtype("f4")
    }
    compensated = reference.init(p, lr=0.1, compensated=True).state_dict()
    assert [c.dtype for c in compensated["compensation"].values()] == [np.float32, np.float32]
    assert compensated["master"] == compensated["average"] == {}
