"""The figures in the prose of the pages, where no example beside them prints them and no experiment finds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import theory

pytestmark = pytest.mark.python_alone

BEST = theory.optimal(1, 100)


def worst_rate(lr: float, momentum: float, **options: Any) -> float:
    return float(theory.rate([1.0, 100.0], lr=lr, momentum=momentum, **options).max())


# ---- docs/theory/index.md ----


@pytest.mark.parametrize("m", [0.5, 0.9])
def test_gradients_that_change_sign_at_each_step(m: float) -> None:
    p = np.zeros(1)
    state = fm.init(p, lr=1.0, momentum=m)
    for k in range(1001):
        fm.step(p, np.array([(-1.0) ** k]), state)
    assert state.velocity.item() == pytest.approx(1 / (1 + m), rel=1e-12)


def test_a_ball_with_qians_differences() -> None:
    """mass*(x2 - 2*x1 + x0)/dt^2 = -drag*(x2 - x1)/dt - gradient, for a drag that to_physics does not reach."""
    mass, drag, dt = 0.3, 5.0, 0.2
    lr, momentum = dt**2 / (mass + drag * dt), mass / (mass + drag * dt)
    p, path = np.ones(1), [1.0, 1.0]
    state = fm.init(p, lr=lr, momentum=momentum)
    for _ in range(20):
        fm.step(p, p.copy(), state)
        path.append(p.item())
    x0, x1, x2 = np.array(path[:-2]), np.array(path[1:-1]), np.array(path[2:])
    np.testing.assert_allclose(mass * (x2 - 2 * x1 + x0) / dt**2, -drag * (x2 - x1) / dt - x1, atol=1e-12)


def test_the_velocity_of_lr_inside_is_minus_the_displacement() -> None:
    p = np.ones(1)
    state = fm.init(p, lr=0.1, form="lr_inside")
    for _ in range(5):
        before = p.copy()
        fm.step(p, p.copy(), state)
        np.testing.assert_allclose(state.velocity, before - p, rtol=1e-14)


def test_the_error_can_grow_in_a_step() -> None:
    p, path = np.ones(1), []
    state = fm.init(p, lr=3.0)
    for _ in range(6):
        path.append(abs(p.item()))
        fm.step(p, p.copy(), state)
    np.testing.assert_allclose(path, [1, 2, 1.3, 0.37, 1.58, 1.40], atol=0.005)
    assert theory.rate(1.0, lr=3.0) == pytest.approx(0.949, abs=5e-4)


def test_above_the_best_lr_the_critical_momentum_is_none() -> None:
    assert pytest.approx(1.001 * BEST.lr, rel=5e-4) == 0.0331
    for lr, rate, low in [(0.0331, 0.882, BEST.rate), (0.034, 1.16, 1.0)]:
        critical = theory.critical_momentum(1.0, lr=lr)
        assert worst_rate(lr, critical) == pytest.approx(rate, abs=3e-3)
        assert worst_rate(lr, critical) > low
    for lr in (0.5 * BEST.lr, 0.99 * BEST.lr):  # and below it, it is
        critical = theory.critical_momentum(1.0, lr=lr)
        assert worst_rate(lr, critical) == pytest.approx(critical**0.5, abs=1e-6)


def test_the_cliff() -> None:
    limit = theory.stability_limit(100.0, momentum=BEST.momentum)
    assert limit / BEST.lr == pytest.approx(1 + 1 / 100, rel=1e-12)
    for share, times in [(0.5, 3.4), (0.999, 19)]:
        steps = np.log(BEST.rate) / np.log(worst_rate(share * limit, BEST.momentum))
        assert steps == pytest.approx(times, rel=0.03)
    for m in np.linspace(BEST.momentum, 0.99, 20):  # more momentum still converges, by its root
        assert worst_rate(BEST.lr, m) == pytest.approx(m**0.5, abs=1e-6)


def test_nesterov_narrows_the_stable_region() -> None:
    limits = [theory.stability_limit(1.0, momentum=m, nesterov=True) for m in (0.1, 0.5, 0.9, 0.99)]
    assert limits == pytest.approx([1.83, 1.5, 1.36, 1.34], abs=5e-3)


def test_momentum_for_large_condition_numbers() -> None:
    kappa = 1e8
    for method, factor in [("heavy_ball", 4), ("nesterov", 2), ("nesterov_quadratic", 2.31)]:
        tuning = theory.optimal(1, kappa, method=method)
        assert (1 - tuning.momentum) * kappa**0.5 == pytest.approx(factor, rel=1e-3)
    assert 1 - 4 / 16**0.5 == 0


def test_an_effective_lr_that_is_kept_can_diverge() -> None:
    effective = theory.effective_lr(lr=BEST.lr, momentum=BEST.momentum)
    assert effective * 100 == pytest.approx(10, rel=1e-12)
    assert worst_rate(effective * 0.5, 0.5) == pytest.approx(3.35, abs=5e-3)
    assert worst_rate(effective, 0.0) > 1


@pytest.mark.parametrize(("nodes", "percent"), [(10, 8), (40, 2.4)])
def test_condition_number_of_a_path(nodes: int, percent: float) -> None:
    hessian = 2 * np.eye(nodes) - np.eye(nodes, k=1) - np.eye(nodes, k=-1)
    hessian[-1, -1] = 1
    low, *_, high = np.linalg.eigvalsh(hessian)
    assert high / low / (4 * nodes / np.pi) ** 2 - 1 == pytest.approx(percent / 100, abs=2e-3)


@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 0.0, 1e-20), (1.0, 1e-3, 1.0)])
def test_a_floor_needs_noise_that_stays(noise: float, least: float, most: float) -> None:
    """The loss above its minimum of a least-squares fit in batches of 8, in the last half of a run."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    labels = x @ rng.normal(size=5) + noise * rng.normal(size=200)
    solution = np.linalg.lstsq(x, labels)[0]
    w, losses = np.zeros(5), []
    state = fm.init(w, lr=0.02)
    for _ in range(3000):
        batch = rng.integers(200, size=8)
        fm.step(w, x[batch].T @ (x[batch] @ w - labels[batch]) / 8, state)
        losses.append(np.mean((x @ (w - solution)) ** 2) / 2)
    assert least <= np.mean(losses[1500:]) < most


# ---- docs/theory/adam.md ----


def test_sign_descent_stays_within_lr() -> None:
    p = np.linspace(-0.05, 0.05, 11)
    state = fm.signum(p, lr=0.01, momentum=0.0)
    for _ in range(100):
        fm.step(p, p.copy(), state)
    assert (abs(p) <= 0.01).all()


# ---- docs/theory/errors.md, docs/howto ----


def test_momentum_lowers_the_variance_at_equal_effective_lr() -> None:
    for effective in (0.01, 0.5, 1.0, 1.9):
        for m in (0.0, 0.5, 0.9):
            variance, _ = theory.heavy_ball_variance(2.0, 3.0, lr=effective / 2 * (1 - m), momentum=m)
            closed = effective / 2 * 3.0 / (2.0 * (2 - effective * (1 - m) / (1 + m)))
            assert variance == pytest.approx(closed, rel=1e-12)


def test_mean_of_squared_gradient_norms_is_the_trace() -> None:
    """Of the likelihood of a normal distribution: of one example, gradient = H*(mean - x), with covariance H."""
    curvatures = np.geomspace(1, 100, 10)
    assert curvatures.sum() == pytest.approx(248, abs=0.5)
    gradients = np.random.default_rng(0).normal(size=(200_000, 10)) * curvatures**0.5
    assert np.mean((gradients**2).sum(axis=1)) == pytest.approx(248, rel=0.01)


def test_bfloat16_moves_by_steps_above_a_256th_to_a_512th() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for value in np.linspace(1, 1.99, 50):
        p = np.float32(value).astype(ml_dtypes.bfloat16).astype("f4")
        for share in (1 / 255, 1 / 513):
            moved = (p - p * np.float32(share)).astype(ml_dtypes.bfloat16) != p.astype(ml_dtypes.bfloat16)
            assert bool(moved) or share < 1 / 256
            assert not moved or share > 1 / 513


# ---- docs/family.md ----


def test_second_moments_in_bfloat16() -> None:
    """The root of the second moment over what it should be, 8000 steps after the gradients have become ten times smaller."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(0)
    w = np.zeros(500, "f4")
    states = {name: fm.adam(w, lr=0.0, velocity_dtype=name) for name in ("float32", "bfloat16")}
    nearest = np.zeros(500, ml_dtypes.bfloat16)
    for t in range(12_000):
        g = (rng.standard_normal(500) * (1.0 if t < 4000 else 0.1)).astype("f4")
        for state in states.values():
            fm.step(w, g, state)
        nearest = (np.float32(0.999) * nearest.astype("f4") + np.float32(0.001) * g * g).astype(nearest.dtype)
    moments = [*(state.second_moment for state in states.values()), nearest.astype("f4")]
    for moment, mean, spread in zip(moments, [1.016, 1.015, 11.9], [0.016, 0.023, 0.24], strict=True):
        root = np.sqrt(moment) / 0.1
        assert root.mean() == pytest.approx(mean, rel=0.01)
        assert root.std() == pytest.approx(spread, rel=0.1)
