"""What docs/theory/errata.md says of five texts, for more numbers than its examples have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import theory

if TYPE_CHECKING:
    from helpers import Array

pytestmark = pytest.mark.python_alone

MOMENTA = [0.1, 0.5, 0.9, 0.99]
MOMENTUM = st.floats(0.01, 0.99)


def path_of(grads: Array, lr: float, momentum: float) -> Array:
    p = np.array([1.0])
    state = fm.init(p, lr=lr, momentum=momentum)
    path = [1.0]
    for grad in grads:
        fm.step(p, np.array([grad]), state)
        path.append(p.item())
    return np.array(path)


def steps_until_within(curvature: float, radius: float, **options: float) -> int:
    """For good, from 1."""
    params, _ = theory.trajectory(curvature, np.arange(2000), **options)
    return int(np.flatnonzero(abs(params) > radius)[-1]) + 1


def test_gradient_descent_is_faster_on_one_curvature() -> None:
    counts = [steps_until_within(2.0, 0.01, lr=0.1, momentum=m) for m in (0.0, 0.9)]
    assert counts == [21, 84]
    best = theory.critical_momentum(2.0, lr=0.1)
    assert best == pytest.approx(0.3056, abs=5e-5)
    assert theory.rate(2.0, lr=0.1, momentum=best) == pytest.approx(0.5528, abs=5e-5)


@hypothesis.given(st.floats(0.001, 1.0), MOMENTUM, st.integers(0, 2**32 - 1))
def test_two_steps_at_once(lr: float, m: float, seed: int) -> None:
    g = np.random.default_rng(seed).standard_normal(12)
    theta = path_of(g, lr, m)
    t = np.arange(2, 12)
    two = (1 + m + m * m) * theta[t - 1] - m * (1 + m) * theta[t - 2] - lr * (1 + m) * g[t - 1] - lr * g[t]
    np.testing.assert_allclose(two, theta[t + 1], rtol=0, atol=1e-12)


@hypothesis.given(st.floats(0.001, 1.0), MOMENTUM, st.integers(0, 2**32 - 1))
def test_the_general_formula(lr: float, m: float, seed: int) -> None:
    g = np.random.default_rng(seed).standard_normal(12)
    theta = path_of(g, lr, m)
    weights = (1 - m ** np.arange(12, 0, -1)) / (1 - m)
    assert theta[-1] == pytest.approx(1 - lr * weights @ g, abs=1e-11)


@hypothesis.given(st.floats(0.01, 1.0), st.floats(1.0, 100.0), st.floats(0.01, 3.0))
def test_the_rate_of_gradient_descent_has_absolute_values(low: float, kappa: float, share: float) -> None:
    high = low * kappa
    lr = share / high
    both = theory.rate([low, high], lr=lr, momentum=0.0).max()
    assert both == pytest.approx(max(abs(1 - lr * low), abs(1 - lr * high)), rel=1e-12)


@pytest.mark.parametrize("momentum", [0.0, *MOMENTA])
def test_a_flat_direction_keeps_what_it_began_with(momentum: float) -> None:
    A = np.array([[2.0, -1.0, -1.0], [-1.0, 2.0, -1.0], [-1.0, -1.0, 2.0]])  # the ones are its null space
    p = np.array([5.0, 1.0, 0.0])
    b = A @ np.array([1.0, 0.0, -1.0])
    solution = np.array([1.0, 0.0, -1.0]) + 2.0  # the one that is nearest to the start: with the same mean
    state = fm.init(p, lr=0.1, momentum=momentum)
    for _ in range(6000):
        fm.step(p, A @ p - b, state)
    np.testing.assert_allclose(p, solution, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, *MOMENTA])
@pytest.mark.parametrize("distance", [1e-2, 1e-12])
def test_leaving_a_saddle_takes_the_logarithm_of_the_distance(momentum: float, distance: float) -> None:
    rate = theory.rate(-1.0, lr=0.01, momentum=momentum)
    params, _ = theory.trajectory(-1.0, np.arange(4000), start=distance, lr=0.01, momentum=momentum)
    left = np.flatnonzero(abs(params) > 1)[0]
    assert left - np.log(1 / distance) / np.log(rate) == pytest.approx(0, abs=12)


def heavy_and_nesterov(s: Array, m: float) -> tuple[Array, Array]:
    """Long-run variances at curvature 1 by simulating the second moments, Nesterov's in its original form."""
    found = []
    for ahead in (0.0, 1.0):
        k = m * (1 - ahead * s)  # the gradient is taken at x - ahead*s*m*v
        matrix = np.moveaxis(np.array([[1 - s, -s * k], [np.ones_like(s), k]]), -1, 0)
        kick = np.stack([-s, np.ones_like(s)], axis=-1)
        system = np.eye(4) - np.einsum("...ij,...kl->...ikjl", matrix, matrix).reshape(-1, 4, 4)
        noise = np.einsum("...i,...j->...ij", kick, kick).reshape(-1, 4, 1)
        found.append(np.linalg.solve(system, noise)[:, 0, 0])
    return found[0], found[1]


@pytest.mark.parametrize("m", MOMENTA)
def test_the_ranges_in_which_nesterov_has_less_noise(m: float) -> None:
    limit = theory.stability_limit(1.0, momentum=m, nesterov=True)
    s = np.linspace(0, limit, 2001)[1:-1]
    heavy, nesterov = heavy_and_nesterov(s, m)
    y = theory.stationary_covariance(1.0, 1.0, lr=s, momentum=m, nesterov=True)
    shifted = y[..., 0, 0] + 2 * s * m * y[..., 0, 1] + (s * m) ** 2 * y[..., 1, 1]
    np.testing.assert_allclose(shifted, nesterov, rtol=1e-6)
    less = nesterov < heavy
    changes = np.flatnonzero(np.diff(less))
    assert less[0]
    assert len(changes) == 1  # from 0 to one border
    assert theory.nesterov_threshold(1.0, m) < s[changes[0]] < limit
    expected = {0.5: 1.286, 0.9: 1.332}
    if m in expected:
        assert s[changes[0]] == pytest.approx(expected[m], abs=1e-3)


@pytest.mark.parametrize("m", MOMENTA)
def test_the_range_in_which_the_mean_of_nesterov_is_ahead(m: float) -> None:
    for factor, is_less in ((0.999, True), (1.001, False)):
        for sign in (-1, 1):
            s = 1 + sign * factor * (m / (2 + m)) ** 0.5
            heavy, _ = theory.trajectory(1.0, 2, lr=s, momentum=m)
            y, v = theory.trajectory(1.0, 2, lr=s, momentum=m, nesterov=True)
            assert (abs(y + s * m * v) < abs(heavy)) == is_less


@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_velocity_saturates(momentum: float) -> None:
    p = np.zeros(1)
    state = fm.init(p, lr=0.0, momentum=momentum)
    velocities = [state.velocity.item()]
    for _ in range(5000):
        fm.step(p, np.ones(1), state)
        velocities.append(state.velocity.item())
    assert (np.diff(velocities) >= 0).all()
    assert velocities[-1] == pytest.approx(1 / (1 - momentum), rel=1e-12)
