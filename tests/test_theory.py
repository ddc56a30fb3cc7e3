"""theory against simulation with `step`, against the numbers that texts print, and against what they get wrong."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core, theory
from fast_momentum.theory._conversion import DEFAULTS
from helpers import FORMS, Array

pytestmark = pytest.mark.python_alone

GOLDEN = json.loads((Path(__file__).parent / "data" / "golden.json").read_text())["cases"]

METHODS = ["gradient_descent", "heavy_ball", "nesterov", "nesterov_quadratic"]


@st.composite
def rules(draw: Any, decay: bool = True, dampening: bool = True) -> dict[str, Any]:
    """Keywords of `init` but lr, of every form, with every pair of options that goes together."""
    options: dict[str, Any] = {"form": draw(st.sampled_from(FORMS)), "momentum": draw(st.floats(0.0, 0.999))}
    if options["momentum"] < 1e-6:
        options["momentum"] = 0.0  # with which init refuses the other two
    elif draw(st.booleans()):
        options["nesterov"] = True
    elif dampening and options["form"] == "lr_outside" and draw(st.booleans()):
        options["dampening"] = draw(st.floats(0.01, 0.999))
    if decay and draw(st.booleans()):
        options["weight_decay"] = draw(st.floats(0.01, 0.5))
        options["decoupled_weight_decay"] = draw(st.booleans())
    return options


@st.composite
def quadratics(draw: Any, reach: float = 1.3, **kinds: bool) -> tuple[float, dict[str, Any]]:
    """A curvature, and keywords of `init` with an lr up to `reach` times the limit of stability."""
    curvature = 10 ** draw(st.floats(-3, 3))
    options = draw(rules(**kinds))
    lr = theory.stability_limit(curvature, **options) * draw(st.floats(1e-3, reach))
    return curvature, {"lr": lr, **options}


def run(curvature: float, steps: int, start: float = 1.0, **options: Any) -> tuple[Array, Array]:
    """Params and velocities of `steps` steps, and before them."""
    p = np.array([start])
    state = fm.init(p, **options)
    path = [(start, 0.0)]
    for _ in range(steps):
        fm.step(p, curvature * p, state)
        path.append((p[0], state.velocity[0]))
    params, velocities = np.array(path).T
    return params, velocities


def moved(curvature: float, p: float, v: float, grad: float = 0.0, **options: Any) -> list[float]:
    """(param, velocity) after a step that is not the first one, with `grad` more than the quadratic has."""
    params = np.array([p])
    state = fm.init(params, **options)
    saved = state.state_dict()
    state.load_state_dict(saved | {"velocity": {"": np.array([v])}, "steps": {"": 1}})
    fm.step(params, curvature * params + grad, state)
    return [float(params[0]), float(state.velocity[0])]


# ---- the iteration ----


@hypothesis.given(quadratics(), st.booleans(), st.booleans())
def test_iteration_matrix_and_rate_are_those_of_step(
    quadratic: tuple[float, dict[str, Any]], maximize: bool, saddle: bool
) -> None:
    curvature, options = quadratic
    options["maximize"] = maximize
    curvature = -curvature if saddle else curvature
    measured = np.transpose([moved(curvature, *unit, **options) for unit in np.eye(2)])
    found = theory.iteration_matrix(curvature, **options)
    np.testing.assert_allclose(found, measured, rtol=1e-12, atol=1e-12 * abs(measured).max())
    roots = np.linalg.eigvals(measured)
    assert theory.rate(curvature, **options) == pytest.approx(abs(roots).max(), rel=1e-6)  # a double root
    if abs(roots[0] - roots[1]) > 1e-3 * abs(roots).max():
        assert theory.rate(curvature, **options) == pytest.approx(abs(roots).max(), rel=1e-9)


@hypothesis.given(quadratics(), st.floats(-10, 10).filter(lambda x: abs(x) > 1e-3), st.integers(0, 300))
def test_trajectory_is_that_of_step(
    quadratic: tuple[float, dict[str, Any]], start: float, steps: int
) -> None:
    curvature, options = quadratic
    measured = run(curvature, steps, start, **options)
    each = np.arange(steps + 1)
    # What a perturbation at the start would be after so many steps: the scale on which a step can be right. Below
    # 1e-6 the roundings of the step before are more than that.
    with np.errstate(all="ignore"):
        decay = np.maximum(theory.rate(curvature, **options), 1e-6) ** each
        for found, path in zip(
            theory.trajectory(curvature, each, start=start, **options), measured, strict=True
        ):
            scale = np.maximum(decay * np.nanmax(abs(path) / np.maximum(decay, 1e-290)), 1e-280)
            assert (abs(found - path) <= 1e-9 * scale).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("lr", [1e-4, 0.04, 0.9])
def test_trajectory_at_a_double_root(form: str, nesterov: bool, lr: float) -> None:
    options = {"lr": lr, "form": form, "nesterov": nesterov}
    options["momentum"] = theory.critical_momentum(1.0, **options)
    assert theory.regime(1.0, **options) == "critical"
    found, _ = theory.trajectory(1.0, np.arange(400), **options)
    np.testing.assert_allclose(found, run(1.0, 399, **options)[0], rtol=0, atol=1e-9)


@hypothesis.given(quadratics())
def test_regime_is_that_of_the_roots(quadratic: tuple[float, dict[str, Any]]) -> None:
    curvature, options = quadratic
    roots = np.linalg.eigvals(theory.iteration_matrix(curvature, **options))
    largest = roots[abs(roots).argmax()]
    hypothesis.assume(abs(abs(largest) - 1) > 1e-9)
    hypothesis.assume(abs(roots[0] - roots[1]) > 1e-6)
    if abs(largest) > 1:
        expected = "divergent"
    elif largest.imag:
        expected = "underdamped"
    else:
        expected = "overdamped" if largest.real > 0 else "alternating"
    assert theory.regime(curvature, **options) == expected


@pytest.mark.parametrize(
    ("lr", "momentum", "expected"),
    [
        (0.01, 0.5, "overdamped"), (0.01, 0.81, "critical"), (0.01, 0.9, "underdamped"), (1.0, 0.0, "critical"),
        (1.5, 0.0, "alternating"), (2.0, 0.0, "alternating"), (2.1, 0.0, "divergent"), (3.81, 0.9, "divergent"),
        (0.0, 0.9, "overdamped"), (2.25, 0.25, "critical"),
    ],
)  # fmt: skip
def test_regimes_as_they_are_seen(lr: float, momentum: float, expected: str) -> None:
    assert theory.regime(1.0, lr=lr, momentum=momentum) == expected
    params, _ = run(1.0, 60, lr=lr, momentum=momentum)
    signs = np.sign(params[np.abs(params) > 1e-12])
    if expected == "overdamped":
        assert (signs > 0).all()
    if expected == "alternating":
        assert (signs[1:] == -signs[:-1]).all()
    if expected == "underdamped":
        assert 1 < np.count_nonzero(signs[1:] != signs[:-1]) < 30
    if expected == "divergent":
        assert abs(params[-1]) > 1


@hypothesis.given(quadratics(reach=0.999, decay=False, dampening=False))
def test_period_and_envelope_are_those_of_the_path(quadratic: tuple[float, dict[str, Any]]) -> None:
    curvature, options = quadratic
    steps = np.arange(301)
    path, _ = theory.trajectory(curvature, steps, **options)
    envelope = theory.envelope(curvature, steps, **options)
    period = theory.period(curvature, **options)
    regime = theory.regime(curvature, **options)
    if regime == "underdamped":
        # path = envelope * cos(2*pi*steps/period + phase): turned by the angle of one step each time.
        hypothesis.assume(theory.rate(curvature, **options) ** 300 > 1e-280)
        hypothesis.assume(envelope[0] < 1e3)  # else the angle of a single point is ill-conditioned
        assert (abs(path) <= envelope * (1 + 1e-9)).all()
        cosine = path / envelope
        turned = cosine[2:] + cosine[:-2]
        np.testing.assert_allclose(turned, 2 * math.cos(2 * math.pi / period) * cosine[1:-1], atol=1e-9)
    else:
        assert np.isnan(envelope).all()
        assert period == (2 if regime == "alternating" or path[2] * path[1] < 0 else math.inf)


# ---- limits and optima ----


@hypothesis.given(st.floats(-3, 3), rules())
def test_stability_limit(magnitude: float, options: dict[str, Any]) -> None:
    curvature = 10**magnitude
    limit = theory.stability_limit(curvature, **options)
    assert theory.rate(curvature, lr=limit, **options) == pytest.approx(1, abs=1e-7)
    assert theory.rate(curvature, lr=limit * (1 - 1e-6), **options) < 1
    assert theory.rate(curvature, lr=limit * (1 + 1e-6), **options) > 1
    assert theory.regime(curvature, lr=limit * 1.01, **options) == "divergent"


@hypothesis.given(st.floats(0, 0.999), st.floats(-3, 3), st.floats(0, 0.99))
def test_stability_limit_in_closed_form(m: float, magnitude: float, t: float) -> None:
    curvature = 10**magnitude

    def limit(**options: Any) -> float:
        return float(theory.stability_limit(curvature, momentum=m, **options) * curvature)

    heavy_ball, nesterov = 2 * (1 + m), 2 * (1 + m) / (1 + 2 * m)
    for form in ("lr_outside", "lr_inside"):
        assert limit(form=form) == pytest.approx(heavy_ball, rel=1e-9)
        assert limit(form=form, nesterov=True) == pytest.approx(nesterov, rel=1e-9)
    assert limit(form="ema") == pytest.approx(heavy_ball / (1 - m), rel=1e-9)
    assert limit(form="ema", nesterov=True) == pytest.approx(nesterov / (1 - m), rel=1e-9)
    assert limit(dampening=t) == pytest.approx(heavy_ball / (1 - t), rel=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("nesterov", [False, True])
@hypothesis.given(s=st.floats(1e-3, 0.99), magnitude=st.floats(-3, 3))
def test_critical_momentum_is_the_best(form: str, nesterov: bool, s: float, magnitude: float) -> None:
    curvature = 10**magnitude
    options: dict[str, Any] = {"lr": s / curvature, "form": form, "nesterov": nesterov}
    best = theory.critical_momentum(curvature, **options)
    assert 0 <= best < 1
    r = theory.iteration_matrix(curvature, **options, momentum=best)
    assert np.trace(r) ** 2 == pytest.approx(4 * np.linalg.det(r), abs=1e-12)
    around = best + np.array([-1e-3, 1e-3]) * min(best, 1 - best)
    assert (
        theory.rate(curvature, **options, momentum=around) > theory.rate(curvature, **options, momentum=best)
    ).all()


@pytest.mark.parametrize("decoupled", [False, True])
def test_decay_that_outweighs_a_negative_curvature(decoupled: bool) -> None:
    options = {"momentum": 0.9, "weight_decay": 1.0, "decoupled_weight_decay": decoupled}
    limit = theory.stability_limit(-0.05, **options)
    assert (
        theory.rate(-0.05, lr=limit * 0.999, **options) < 1 < theory.rate(-0.05, lr=limit * 1.001, **options)
    )


def test_critical_momentum_beyond() -> None:
    assert theory.critical_momentum(1.0, lr=2.25) == 0.25
    assert theory.critical_momentum(1.0, lr=0.5, dampening=0.5) == pytest.approx(0.25)
    assert np.isnan(theory.critical_momentum(1.0, lr=4.0))
    assert np.isnan(theory.critical_momentum(1.0, lr=1.01, nesterov=True))
    assert np.isnan(theory.critical_momentum(1.0, lr=1.01, nesterov=True, form="ema"))
    assert theory.critical_momentum(1.0, lr=9.0, form="ema") == pytest.approx(0.64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
@hypothesis.given(magnitude=st.floats(-3, 3), log_kappa=st.floats(0.01, 6))
def test_optimal_reaches_its_rate(method: str, form: str, magnitude: float, log_kappa: float) -> None:
    ends = np.array([1, 10**log_kappa]) * 10**magnitude
    lr, momentum, nesterov, rate = theory.optimal(*ends, method=method, form=form)
    options = {"momentum": momentum, "nesterov": nesterov, "form": form}

    def reached(**options: Any) -> float:
        return float(theory.rate(ends, **options).max())

    # A double root moves by the square root of a rounding error.
    assert reached(lr=lr, **options) == pytest.approx(rate, abs=1e-7)
    if method == "nesterov":
        return  # made for other functions than quadratics
    around = np.array([0.99, 1.01])
    assert (np.array([reached(lr=x, **options) for x in lr * around]) >= rate - 1e-7).all()
    for other in () if method == "gradient_descent" else momentum + (1 - momentum) * np.array([-0.01, 0.01]):
        assert reached(lr=lr, **(options | {"momentum": max(other, 0.0)})) >= rate - 1e-7


def test_optimal_is_best_of_a_fine_grid() -> None:
    lr, momentum = np.meshgrid(np.linspace(0.001, 0.05, 200), np.linspace(0, 0.99, 200))
    ends = np.reshape([1, 100], (2, 1, 1))
    assert theory.rate(ends, lr=lr, momentum=momentum).max(0).min() == pytest.approx(9 / 11, abs=0.01)
    best = theory.optimal(1, 100, method="nesterov_quadratic").rate
    on_grid = theory.rate(ends, lr=lr, momentum=momentum, nesterov=True).max(0).min()
    assert best - 1e-9 <= on_grid <= best + 0.01


@pytest.mark.parametrize("method", METHODS)
def test_optimal_takes_as_many_eachas_it_says(method: str) -> None:
    lr, momentum, nesterov, rate = theory.optimal(1, 100, method=method)
    options = {"lr": lr, "momentum": momentum, "nesterov": nesterov and momentum > 0}
    steps = 300
    path = np.hypot(run(1.0, steps, **options)[0], run(100.0, steps, **options)[0])
    measured = (path[300] / path[200]) ** (1 / 100)
    # At a double root the error shrinks as steps*rate^steps: (300/200)^(1/100) is 1.004.
    assert measured == pytest.approx(rate, rel=0.005)


# ---- memory and signal ----


@hypothesis.given(quadratics(reach=0.9, decay=False), st.integers(1, 40), st.data())
def test_weights_are_those_of_step(
    quadratic: tuple[float, dict[str, Any]], steps: int, data: st.DataObject
) -> None:
    _, options = quadratic
    which = data.draw(st.integers(0, steps - 1))
    p = np.zeros(1)
    state = fm.init(p, **options)
    for t in range(steps):
        fm.step(p, np.array([float(t == which)]), state)
    assert state.velocity[0] == pytest.approx(
        theory.velocity_weights(steps, **options)[which], rel=1e-9, abs=1e-300
    )
    assert -p[0] == pytest.approx(theory.displacement_weights(steps, **options)[which], rel=1e-9)


def test_first_gradient_is_not_damped() -> None:
    options = {"lr": 0.1, "momentum": 0.5, "dampening": 0.25}
    assert theory.velocity_weights(3, **options).tolist() == [0.25, 0.375, 0.75]
    np.testing.assert_allclose(theory.displacement_weights(2, **options), [0.15, 0.075])


@hypothesis.given(quadratics(reach=0.9, decay=False))
def test_effective_lr_is_the_speed_in_the_end(quadratic: tuple[float, dict[str, Any]]) -> None:
    _, options = quadratic
    options["momentum"] = min(options["momentum"], 0.9)
    p = np.zeros(1)
    state = fm.init(p, **options)
    for _ in range(400):
        before = p.copy()
        fm.step(p, np.ones(1), state)
    # Subtracting the positions loses digits: they are some 400 times the difference.
    assert (before - p)[0] == pytest.approx(theory.effective_lr(**options), rel=1e-9)


def test_effective_lr_in_each_form() -> None:
    assert theory.effective_lr(lr=0.1, momentum=0.9) == pytest.approx(1)
    assert theory.effective_lr(lr=0.1, momentum=0.9, form="lr_inside", nesterov=True) == pytest.approx(1)
    assert theory.effective_lr(lr=0.1, momentum=0.9, form="ema", nesterov=True) == pytest.approx(0.1)
    assert theory.effective_lr(lr=0.1, momentum=0.9, dampening=0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("factor", [0.3, 0.9, 0.999])
def test_half_life(factor: float) -> None:
    assert factor ** theory.half_life(factor) == pytest.approx(0.5, rel=1e-9)
    assert theory.half_life([0.0, 1.0, 1.5]).tolist() == [0.0, math.inf, math.inf]


@pytest.mark.parametrize("nesterov", [False, True])
@hypothesis.given(momentum=st.floats(0, 0.95))
def test_variance_reduction_is_that_of_the_weights(nesterov: bool, momentum: float) -> None:
    options: dict[str, Any] = {"lr": 1.0, "momentum": momentum, "nesterov": nesterov}
    # The displacement in the last of many steps, by each gradient.
    weights = theory.displacement_weights(1000, **options)
    weights[:-1] -= theory.displacement_weights(999, **options)
    expected = (weights**2).sum() / weights.sum() ** 2
    assert theory.variance_reduction(momentum, nesterov=nesterov) == pytest.approx(expected, rel=1e-9)


@hypothesis.given(quadratics(reach=0.9, decay=False), st.floats(0, math.pi), st.booleans())
def test_frequency_response_is_that_of_step(
    quadratic: tuple[float, dict[str, Any]], frequency: float, maximize: bool
) -> None:
    _, options = quadratic
    options |= {"momentum": min(options["momentum"], 0.9), "maximize": maximize}
    p = np.zeros(2)
    state = fm.init(p, **options)
    steps = 400
    for t in range(steps):
        fm.step(p, np.array([math.cos(frequency * t), math.sin(frequency * t)]), state)
    phasor = complex(math.cos(frequency * t), math.sin(frequency * t))
    measured = complex(*state.velocity) / phasor
    found = theory.frequency_response(frequency, **options)
    assert abs(measured - found) <= 1e-9 * abs(found)


@hypothesis.given(st.floats(0.18, 0.999))
def test_cutoff_is_where_half_of_the_power_passes(momentum: float) -> None:
    at_cutoff, at_zero = theory.frequency_response(
        [theory.cutoff_frequency(momentum), 0], lr=1, momentum=momentum
    )
    assert abs(at_cutoff / at_zero) ** 2 == pytest.approx(0.5, rel=1e-9)
    textbook = math.acos((4 * momentum - 1 - momentum**2) / (2 * momentum))
    assert theory.cutoff_frequency(momentum) == pytest.approx(textbook, rel=1e-6)


def test_no_cutoff_at_small_momentum() -> None:
    assert np.isnan(theory.cutoff_frequency([0.0, 0.17])).all()


# ---- noise ----


@hypothesis.given(quadratics(reach=0.98))
def test_stationary_covariance_is_a_fixed_point_of_step(quadratic: tuple[float, dict[str, Any]]) -> None:
    curvature, options = quadratic
    hypothesis.assume(theory.rate(curvature, **options) < 0.9999)
    found = theory.stationary_covariance(curvature, 2.0, **options)
    r = np.transpose([moved(curvature, *unit, **options) for unit in np.eye(2)])
    kick = np.array(moved(curvature, 0.0, 0.0, grad=1.0, **options))
    np.testing.assert_allclose(
        r @ found @ r.T + 2 * np.outer(kick, kick), found, rtol=1e-9, atol=1e-9 * found.max()
    )
    assert np.linalg.eigvalsh(found).min() >= -1e-9 * found.max()


@hypothesis.given(st.floats(0, 0.99), st.floats(0.01, 0.99), st.floats(-3, 3), st.floats(0.1, 10))
def test_heavy_ball_variance_is_that_of_the_equation(
    m: float, share: float, magnitude: float, noise: float
) -> None:
    curvature = 10**magnitude
    lr = share * theory.stability_limit(curvature, momentum=m)
    covariance = theory.stationary_covariance(curvature, noise, lr=lr, momentum=m)
    found = theory.heavy_ball_variance(curvature, noise, lr=lr, momentum=m)
    np.testing.assert_allclose(found, covariance.diagonal(), rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
        {"lr": 0.5, "momentum": 0.7, "form": "ema"},
        {"lr": 0.3, "momentum": 0.5, "form": "lr_inside", "nesterov": True},
        {"lr": 0.3, "momentum": 0.8, "dampening": 0.5},
    ],
    ids=str,
)
def test_stationary_variance_is_that_of_noisy_steps(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    n = 40_000
    p = np.zeros(n)
    state = fm.init(p, **options)
    for _ in range(200):
        fm.step(p, 2.0 * p + rng.standard_normal(n), state)
    assert theory.rate(2.0, **options) ** 400 < 1e-9  # what is left of the beginning, in the variance
    # A sample variance of n normal numbers is off by sqrt(2/n) of itself, relatively; four times that for each of ten
    # comparisons leaves a chance of less than 1 in 1 000 that a right formula fails.
    expected = theory.stationary_covariance(2.0, 1.0, **options).diagonal()
    np.testing.assert_allclose([p.var(), state.velocity.var()], expected, rtol=4 * math.sqrt(2 / n))


@pytest.mark.parametrize("l", [1e-100, 1e-12, 1.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
@pytest.mark.parametrize("share", [1e-12, 0.5, 1 - 1e-9])
def test_stationary_covariance_keeps_its_digits(l: float, momentum: float, share: float) -> None:
    lr = share * theory.stability_limit(l, momentum=momentum)
    covariance = theory.stationary_covariance(l, 1.0, lr=lr, momentum=momentum)
    found = theory.heavy_ball_variance(l, 1.0, lr=lr, momentum=momentum)
    # So close to the limit, a rounding of lr is 1e9 times as large in the result.
    np.testing.assert_allclose(covariance.diagonal(), found, rtol=1e-12 if share < 0.9 else 1e-6)


def test_stationary_covariance_at_the_limit() -> None:
    limit = theory.stability_limit(1.0, momentum=0.9)
    found = theory.stationary_covariance(1.0, 1.0, lr=limit * (1 + np.arange(-20, 20) * 1e-16), momentum=0.9)
    assert (found.diagonal(axis1=1, axis2=2) > 1e9).all()


def test_noise_that_is_not_contained() -> None:
    assert np.isinf(theory.stationary_covariance([1.0, 0.0, -1.0], 1.0, lr=4.0)).all()
    assert np.isinf(theory.heavy_ball_variance(1.0, 1.0, lr=3.8, momentum=0.9)).all()
    assert theory.stationary_covariance(np.ones((3, 1)), np.ones(4), lr=0.1).shape == (3, 4, 2, 2)


def weights_of_first_noise(s: float, m: float) -> tuple[float, float, float]:
    """In the param after two steps, per lr: Nesterov's original form, the heavy ball, and nesterov=True."""

    def end(noise: float, method: str) -> float:
        p = np.array([1.0])
        state = fm.init(p, lr=1.0, momentum=m, nesterov=method == "shifted")
        for k in range(2):
            point = fm.lookahead(p, state) if method == "original" else p
            fm.step(p, s * point + noise * (k == 0), state)
        return float(p[0])

    found = [abs(end(1.0, method) - end(0.0, method)) for method in ("original", "heavy ball", "shifted")]
    return found[0], found[1], found[2]


@hypothesis.given(st.floats(0.01, 0.99), st.floats(0.05, 3))
def test_nesterov_threshold(m: float, s: float) -> None:
    original, heavy_ball, shifted = weights_of_first_noise(s, m)
    assert original == pytest.approx(abs((1 + m) * (1 - s)), abs=1e-12)
    assert heavy_ball == pytest.approx(abs(1 + m - s), abs=1e-12)
    threshold = theory.nesterov_threshold(1.0, m)
    assert threshold == pytest.approx(2 * (1 + m) / (2 + m))
    hypothesis.assume(abs(s - threshold) > 1e-6)
    hypothesis.assume(s < 1 + m)
    assert (original < heavy_ball) == (s < threshold)
    # The params of nesterov=True are other points, of which it is not true.
    assert shifted == pytest.approx(abs(1 + m + m**2 - s * (1 + m) ** 2), abs=1e-12)


# ---- physics ----


@hypothesis.given(st.floats(1e-4, 10), st.floats(0, 0.999), st.floats(0.1, 10))
def test_physics_and_back(lr: float, momentum: float, mass: float) -> None:
    ball = theory.to_physics(lr, momentum, mass)
    assert theory.from_physics(*ball) == pytest.approx((lr, momentum), rel=1e-9, abs=1e-12)


def test_a_step_of_lr_inside_is_one_of_the_ball() -> None:
    """mass*(x_new - 2x + x_old)/dt^2 = -drag*(x - x_old)/dt - gradient"""
    mass, drag, dt, curvature = 2.0, 0.3, 0.1, 3.0
    lr, momentum = theory.from_physics(mass, drag, dt)
    x, velocities = run(curvature, 50, lr=lr, momentum=momentum, form="lr_inside")
    force = -drag * (x[1:-1] - x[:-2]) / dt - curvature * x[1:-1]
    np.testing.assert_allclose(mass * (x[2:] - 2 * x[1:-1] + x[:-2]) / dt**2, force, atol=1e-9)
    np.testing.assert_allclose(-np.diff(x), velocities[1:], atol=1e-12)


@hypothesis.given(st.floats(-3, 20), st.floats(0, 9), st.floats(-3, 3), st.floats(-3, 3))
def test_continuous_trajectory_obeys_its_equation(
    l: float, drag: float, start: float, velocity: float
) -> None:
    # The exponential of the matrix of the equation, by its series, on a step of 0.05.
    a = np.array([[0.0, 1.0], [-l, -drag]]) * 0.05
    step, term = np.eye(2), np.eye(2)
    for k in range(1, 25):
        term = term @ a / k
        step = step + term
    state, path = np.array([start, velocity]), []
    for _ in range(41):
        path.append(state[0])
        state = step @ state
    found = theory.continuous_trajectory(l, 0.05 * np.arange(41), drag=drag, start=start, velocity=velocity)
    np.testing.assert_allclose(found, path, rtol=0, atol=1e-9 * (1 + np.abs(path).max()))


@pytest.mark.parametrize("l", [1e-2, 1e-6, 1e-14, 1e-20])
def test_continuous_trajectory_that_creeps(l: float) -> None:
    """The slow root is close to -l/drag; its exponent must not be a difference of large numbers."""
    slow = (3 - math.sqrt(9 - 4 * l)) / 2 if l > 1e-6 else l / 3 * (1 + l / 9)
    found = theory.continuous_trajectory(l, 3 / l, drag=3.0)
    fast = 3 - slow
    assert found == pytest.approx(fast / (fast - slow) * math.exp(-slow * 3 / l), rel=1e-9)


def errors_of_the_limit(lrs: Array, time_of: Any, momentum_of: Any) -> list[float]:
    errors = []
    for lr in lrs:
        steps = round(4 / time_of(lr))
        path, _ = run(2.0, steps, lr=lr, momentum=momentum_of(lr))
        exact = theory.continuous_trajectory(2.0, time_of(lr) * np.arange(steps + 1), drag=0.5)
        errors.append(float(np.abs(path - exact).max()))
    return errors


def test_eachtend_to_the_equation() -> None:
    """With dt = sqrt(lr) and (1-m)/sqrt(lr) kept, the error falls as sqrt(lr); with dt = lr it does not fall."""
    lrs = np.array([1e-3, 1e-3 / 4, 1e-3 / 16])
    right = errors_of_the_limit(lrs, math.sqrt, lambda lr: 1 - 0.5 * math.sqrt(lr))
    np.testing.assert_allclose(np.divide(right[1:], right[:-1]), 0.5, atol=0.02)
    wrong = errors_of_the_limit(lrs, float, lambda lr: 1 - 0.5 * lr)
    assert min(wrong) > 0.9


# ---- conversions of hyperparameters ----


@hypothesis.given(quadratics(reach=0.9), st.sampled_from(FORMS))
def test_convert(quadratic: tuple[float, dict[str, Any]], to_form: str) -> None:
    curvature, options = quadratic
    steps = 60
    path, velocities = run(curvature, steps, **options)
    converted = theory.convert(to_form, **options)
    factor = theory.velocity_factor(to_form, **options)
    assert set(converted) == {
        "lr", "momentum", "dampening", "nesterov", "weight_decay", "decoupled_weight_decay", "maximize", "form",
    }  # fmt: skip
    assert converted["form"] == to_form
    if options.get("dampening") and to_form != "lr_outside":
        # The first step is not damped: start after it.
        p, v = path[1], velocities[1]
        p, v = moved(curvature, p, v * factor, **converted)
        assert (p, v) == pytest.approx(
            (path[2], velocities[2] * factor), rel=1e-9, abs=1e-12 * abs(path).max()
        )
        return
    other_path, other_velocities = run(curvature, steps, **converted)
    np.testing.assert_allclose(other_path, path, rtol=0, atol=1e-9 * abs(path).max())
    np.testing.assert_allclose(
        other_velocities, velocities * factor, rtol=0, atol=1e-9 * abs(velocities * factor).max()
    )


@pytest.mark.parametrize("to_form", FORMS)
def test_convert_there_and_back(to_form: str) -> None:
    options = {
        "lr": 0.2,
        "momentum": 0.7,
        "weight_decay": 0.1,
        "decoupled_weight_decay": True,
        "form": "lr_inside",
    }
    back = theory.convert("lr_inside", **theory.convert(to_form, **options))
    assert back == pytest.approx({**back, **options})


def test_convert_takes_arrays() -> None:
    found = theory.convert("ema", lr=[0.1, 0.2], momentum=[[0.5], [0.9]])
    np.testing.assert_allclose(found["lr"], [[0.2, 0.4], [1.0, 2.0]])
    np.testing.assert_allclose(theory.velocity_factor("ema", lr=0.1, momentum=[0.5, 0.9]), [0.5, 0.1])


@pytest.mark.parametrize(
    ("to_form", "options"),
    [
        ("lr_outside", {"lr": 0.0, "form": "lr_inside"}),
        ("ema", {"lr": 0.0, "form": "lr_inside"}),
        ("ema", {"lr": 0.1, "dampening": 1.0}),
        ("lr_inside", {"lr": 0.1, "dampening": 1.0, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ],
)
def test_convert_where_no_velocity_would_do(to_form: str, options: dict[str, Any]) -> None:
    what = "dampening" if options.get("dampening") else "lr"
    with pytest.raises(ValueError, match=f"^{what} must be .* to convert .* the form {to_form}"):
        theory.convert(to_form, **options)


def test_convert_at_lr_zero_where_it_can_be() -> None:
    assert theory.velocity_factor("ema", lr=0.0, momentum=0.75) == 0.25
    assert theory.velocity_factor("lr_outside", lr=0.0, momentum=0.75, form="ema") == 4
    assert theory.velocity_factor("lr_inside", lr=0.0) == 0
    found = theory.convert("ema", lr=0.0, momentum=0.75, weight_decay=0.4, decoupled_weight_decay=True)
    assert (found["lr"], found["weight_decay"]) == (0.0, 0.1)


# ---- describe ----


def test_describe() -> None:
    state = fm.init(np.zeros(2), lr=0.01, momentum=0.9)
    found = theory.describe(state, curvature=(1, 100))
    assert found.regime == ("underdamped", "underdamped")
    assert found.rate == pytest.approx(math.sqrt(0.9))
    assert found.half_life == pytest.approx(theory.half_life(math.sqrt(0.9)))
    assert found.memory == pytest.approx(6.5788, abs=1e-4)
    assert found.effective_lr == pytest.approx(0.1)
    assert found.stability_limit == pytest.approx(0.038)
    assert found.distance_to_limit == pytest.approx(3.8)
    assert found.optimal == theory.optimal(1, 100)
    assert len(str(found).splitlines()) == 8
    assert "divergent at 100" in str(theory.describe(fm.init(np.zeros(2), lr=0.05), (1, 100)))


def test_describe_follows_the_options_of_the_state() -> None:
    state = fm.init(
        np.zeros(2), lr=0.1, momentum=0.5, form="ema", nesterov=True, maximize=True, weight_decay=0.5
    )
    found = theory.describe(state, (1, 10))
    assert found.rate == max(theory.rate([1.5, 10.5], lr=0.1, momentum=0.5, form="ema", nesterov=True))
    assert found.optimal == theory.optimal(1.5, 10.5, method="nesterov_quadratic", form="ema")
    state.lr = 0.0
    assert theory.describe(state, (1, 10)).distance_to_limit == math.inf


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"form": "ema"},
        {"form": "lr_inside", "nesterov": True},
        {"dampening": 0.5},
        {"weight_decay": 50.0},
        {"weight_decay": 50.0, "nesterov": True, "form": "ema"},
    ],
    ids=str,
)
def test_what_describe_calls_optimal_has_that_rate(options: dict[str, Any]) -> None:
    state = fm.init(np.zeros(2), lr=0.01, **options)
    best = theory.describe(state, (1, 100)).optimal
    state.lr, state.momentum = best.lr, best.momentum
    assert theory.describe(state, (1, 100)).rate == pytest.approx(best.rate, abs=1e-7)
    state.lr *= 1.05
    assert theory.describe(state, (1, 100)).rate > best.rate + 1e-4


def test_describe_beyond_the_limit() -> None:
    state = fm.init(np.zeros(2), lr=0.076, momentum=0.9)
    assert "0.076, 2 times above the limit 0.038" in str(theory.describe(state, (1, 100)))


# ---- numbers that the texts print ----


def test_the_golden_numbers() -> None:
    (case,) = [case for case in GOLDEN if case["id"] == "theory_seed001"]
    given, expected = case["hyperparameters"], case["expected"]
    heavy_ball = theory.optimal(given["lambda_min"], given["lambda_max"])
    gradient_descent = theory.optimal(given["lambda_min"], given["lambda_max"], method="gradient_descent")
    found = {
        "alpha": heavy_ball.lr,
        "beta": heavy_ball.momentum,
        "rate_momentum": heavy_ball.rate,
        "rate_gd": gradient_descent.rate,
        "hb_lr_limit_beta09": theory.stability_limit(1.0, momentum=0.9),
        "nag_lr_limit_beta09": theory.stability_limit(1.0, momentum=0.9, nesterov=True),
    }
    assert found == pytest.approx(expected, rel=1e-12)


def test_rates_at_kappa_100() -> None:
    assert round(theory.optimal(1, 100, method="gradient_descent").rate, 3) == 0.980
    assert round(theory.optimal(1, 100).rate, 3) == 0.818


def test_worked_example() -> None:
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "form": "lr_inside"}
    for theta, v in (theory.trajectory(2.0, range(4), start=5.0, **options), run(2.0, 3, 5.0, **options)):
        np.testing.assert_allclose(theta, [5, 4, 2.3, 0.31], atol=1e-12)
        np.testing.assert_allclose(v, [0, 1, 1.7, 1.99], atol=1e-12)


def test_limits_at_momentum_0_9() -> None:
    assert theory.stability_limit(1.0, momentum=0.9) == pytest.approx(3.8)
    assert theory.stability_limit(1.0, momentum=0.9, nesterov=True) == pytest.approx(1.357, abs=5e-4)


# ---- what the texts get wrong ----


def test_lookahead_without_lr_diverges() -> None:
    """``theta - b*v`` with v free of lr: the roots are those of another problem, and one is beyond -1."""
    b = 0.9
    for curvature, diverges in [((1 + 1 / b) * 1.01, True), ((1 + 1 / b) * 0.99, False)]:
        p, v, lr = 1.0, 0.0, 1e-4
        for _ in range(2000):
            v = b * v + curvature * (p - b * v)
            p -= lr * v
        assert (abs(v) > 1e3) == diverges


def test_printed_power_of_the_matrix_has_its_terms_swapped() -> None:
    r = theory.iteration_matrix(1.0, lr=0.01, momentum=0.5)
    one, two = np.sort(np.linalg.eigvals(r))
    first, second = (r - one * np.eye(2)) / (one - two), (r - two * np.eye(2)) / (one - two)
    for k in range(5):
        right = one**k * second - two**k * first
        np.testing.assert_allclose(right, np.linalg.matrix_power(r, k), atol=1e-12)
    np.testing.assert_allclose(one**0 * first - two**0 * second, -np.eye(2), atol=1e-12)


def test_displacement_as_a_sum_of_gradients() -> None:
    rng = np.random.default_rng(4)
    gradients = rng.standard_normal(6)
    theta = np.array([1.0])
    state = fm.init(theta, lr=0.1, momentum=0.9, form="lr_inside")
    path = [1.0]
    for gradient in gradients:
        fm.step(theta, np.array([gradient]), state)
        path.append(theta[0])
    weights = theory.displacement_weights(6, lr=0.1, momentum=0.9, form="lr_inside")
    assert path[-1] == pytest.approx(1 - weights @ gradients, abs=1e-12)
    right = path[-2] - 0.1 * gradients[-1] + 0.9 * (path[-2] - path[-3])
    printed = path[-2] - 0.1 * gradients[-1] - 0.9 * (path[-2] - path[-3])
    assert path[-1] == pytest.approx(right, abs=1e-12)
    assert abs(path[-1] - printed) > 0.01


# ---- bad input ----


BAD = [
    (lambda: theory.rate(1.0, lr=0.1, momentum=1.0), ValueError, "momentum must be in [0, 1), not 1.0"),
    (lambda: theory.rate(1.0, lr=-0.1), ValueError, "lr must be finite and >= 0, not -0.1"),
    (lambda: theory.rate(1.0, lr=[0.1, np.nan]), ValueError, "lr[1] must be finite and >= 0, not nan"),
    (lambda: theory.rate(1.0, lr=[[0.1], [np.inf]]), ValueError, "lr[1, 0] must be finite and >= 0, not inf"),
    (lambda: theory.rate(np.inf, lr=0.1), ValueError, "curvature must be finite, not inf"),
    (lambda: theory.rate("1", lr=0.1), TypeError, "curvature must be a real number or an array of them, not str"),
    (lambda: theory.rate(True, lr=0.1), TypeError, "curvature must be a real number or an array of them, not bool"),
    (lambda: theory.rate(1.0, lr=[1j]), TypeError, "lr must be a real number or an array of them, not an array of complex128"),
    (lambda: theory.rate(1.0, lr=0.1, nesterov=1), TypeError, "nesterov must be True or False, not int"),
    (lambda: theory.rate(1.0, lr=0.1, form="keras"), ValueError, "form must be one of 'lr_outside', 'lr_inside', 'ema', not 'keras'"),
    (lambda: theory.rate(1.0, lr=0.1, form="ema", dampening=0.1), ValueError, "dampening must be 0 in the form ema, not 0.1"),
    (lambda: theory.rate(1.0, lr=0.1, nesterov=True, dampening=0.1), ValueError, "dampening must be 0 where nesterov is True, not 0.1"),
    (lambda: theory.rate(1.0, lr=0.1, dampening=1.1), ValueError, "dampening must be in [0, 1], not 1.1"),
    (lambda: theory.rate(1.0, lr=0.1, weight_decay=-1), ValueError, "weight_decay must be finite and >= 0, not -1.0"),
    (lambda: theory.trajectory(1.0, 1.5, lr=0.1), ValueError, "steps must be an integer >= 0, not 1.5"),
    (lambda: theory.velocity_weights(-1, lr=0.1), ValueError, "steps must be an integer >= 0, not -1.0"),
    (lambda: theory.stability_limit(-1.0), ValueError, "curvature must be >= 0, if no decay outweighs it, as no lr converges otherwise, not -1.0"),
    (lambda: theory.stability_limit(1.0, maximize=True), ValueError, "curvature must be <= 0 where maximize is True, if no decay outweighs it, as no lr converges otherwise, not 1.0"),
    (lambda: theory.critical_momentum(-1.0, lr=0.1), ValueError, "curvature must be finite and >= 0, not -1.0"),
    (lambda: theory.critical_momentum(1.0, lr=0.1, dampening=0.5, form="ema"), ValueError, "dampening must be 0 in the form ema, not 0.5"),
    (lambda: theory.optimal(2, 1), ValueError, "l_max must be at least l_min, not 1.0"),
    (lambda: theory.optimal(0, 1), ValueError, "l_min must be finite and > 0, not 0.0"),
    (lambda: theory.optimal(1, 2, method="adam"), ValueError, "method must be one of 'gradient_descent', 'heavy_ball', 'nesterov', 'nesterov_quadratic', not 'adam'"),
    (lambda: theory.velocity_weights([3, 4], lr=0.1), TypeError, "steps must be one number, not an array of 2"),
    (lambda: theory.optimal(1e-300, 1e300), ValueError, "l_max must be at most 1e30 times l_min, not 1e+300"),
    (lambda: theory.rate(1.0, lr=0.1, form=np.array(["ema"])), ValueError, "form must be one of 'lr_outside', 'lr_inside', 'ema', not array(['ema'], dtype='<U3')"),
    (lambda: theory.describe(3, (1, 2)), TypeError, "state must be a State, not int"),
    (lambda: theory.describe(fm.init(np.ones(1), lr=0.1), ([1, 2], 3)), TypeError, "l_min must be one number, not an array of 2"),
    (lambda: theory.half_life(-1), ValueError, "rate must be finite and >= 0, not -1.0"),
    (lambda: theory.variance_reduction(1.0), ValueError, "momentum must be in [0, 1), not 1.0"),
    (lambda: theory.variance_reduction(0.5, nesterov=0), TypeError, "nesterov must be True or False, not int"),
    (lambda: theory.cutoff_frequency(-0.1), ValueError, "momentum must be in [0, 1), not -0.1"),
    (lambda: theory.stationary_covariance(1.0, -1.0, lr=0.1), ValueError, "noise must be finite and >= 0, not -1.0"),
    (lambda: theory.heavy_ball_variance(-1.0, 1.0, lr=0.1), ValueError, "curvature must be finite and > 0, not -1.0"),
    (lambda: theory.nesterov_threshold(0.0, 0.5), ValueError, "curvature must be finite and > 0, not 0.0"),
    (lambda: theory.to_physics(0.0, 0.5), ValueError, "lr must be finite and > 0, not 0.0"),
    (lambda: theory.from_physics(1.0, 2.0, 1.0), ValueError, "momentum = 1 - drag*time_step/mass must be in [0, 1), not -1.0"),
    (lambda: theory.continuous_trajectory(1.0, -1.0, drag=0.0), ValueError, "time must be finite and >= 0, not -1.0"),
    (lambda: theory.convert("keras", lr=0.1), ValueError, "to_form must be one of 'lr_outside', 'lr_inside', 'ema', not 'keras'"),
    (lambda: theory.describe(fm.init(np.ones(1), lr=0.1), 3), TypeError, "curvature must be a pair (l_min, l_max), not 3"),
    (lambda: theory.describe(fm.init(np.ones(1), lr=0.1), (3, 1)), ValueError, "l_max must be at least l_min, not 1.0"),
    (lambda: theory.describe(fm.init([np.ones(1)], lr=[0.1]), (1, 2)), TypeError, "state.lr must be one number, not one per array; call theory.rate with the numbers of an array"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=map(str, range(len(BAD))))
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_defaults_are_those_of_init() -> None:
    defaults = {name: p.default for name, p in inspect.signature(fm.init).parameters.items()}
    assert {name: defaults.get(name) for name in DEFAULTS} == DEFAULTS
    of_a_whole_update = {
        name
        for name, row in _core.settings.items()
        if row["of_every_rule"] and (row["fixed"] or row["kind"] in ("option", "bound", "choice"))
    }
    assert set(defaults) == {"params", "lr", *DEFAULTS, *of_a_whole_update}


def test_missing_and_unknown_keywords() -> None:
    with pytest.raises(TypeError, match="keyword first"):
        theory.rate(1.0, lr=0.1, first=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="must be called without lr"):
        theory.stability_limit(1.0, lr=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^rate\(\) must be given lr, not nothing"):
        theory.rate(1.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^rate\(\) must not have the keyword mometum; use momentum"):
        theory.rate(1.0, lr=0.1, mometum=0.5)  # type: ignore[call-arg]


def test_everything_broadcasts() -> None:
    curvature, lr, momentum = np.ones((4, 1, 1)), np.full((3, 1), 0.1), np.full(2, 0.9)
    options = {"lr": lr, "momentum": momentum}
    for function in (theory.rate, theory.regime, theory.period):
        assert function(curvature, **options).shape == (4, 3, 2)
    assert theory.iteration_matrix(curvature, **options).shape == (4, 3, 2, 2, 2)
    assert theory.stationary_covariance(curvature, 1.0, **options).shape == (4, 3, 2, 2, 2)
    assert theory.trajectory(curvature, np.arange(2), **options)[0].shape == (4, 3, 2)
    assert theory.envelope(curvature, np.arange(2), **options).shape == (4, 3, 2)
    assert theory.critical_momentum(curvature, lr=lr).shape == (4, 3, 1)
    assert theory.stability_limit(curvature, momentum=momentum).shape == (4, 1, 2)
    assert theory.effective_lr(**options).shape == (3, 2)
    assert theory.velocity_weights(5, **options).shape == (3, 2, 5)
    assert theory.optimal(np.ones(3), 5.0).lr.shape == (3,)
    assert isinstance(theory.rate(1, lr=1), float)
