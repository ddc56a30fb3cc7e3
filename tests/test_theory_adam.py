"""What theory says of Adam, against `step`: the length of steps, and when they are those of another rule."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import theory
from fast_momentum.theory._adaptive import ROWS, AdamHyperparameters

if TYPE_CHECKING:
    from helpers import Array

pytestmark = pytest.mark.python_alone

BETAS = st.floats(0.01, 0.999) | st.just(0.0)


@st.composite
def adams(draw: Any, eps: bool = True) -> dict[str, Any]:
    """Keywords of `adam` on which the length of a step depends."""
    form = draw(st.sampled_from(list(ROWS)))
    beta1 = draw(BETAS)
    return {
        "lr": 10 ** draw(st.floats(-4, 1)),
        "beta1": beta1,
        "beta2": draw(st.floats(0.01, 0.9999)),
        "eps": 10 ** draw(st.floats(-8, 2)) if eps else 0.0,
        "form": form,
        "nesterov": beta1 > 0 and "nesterov" in ROWS[form]["takes"] and draw(st.booleans()),
    }


def displacements(gradients: Any, **options: Any) -> Array:
    """What each of the gradients adds to a parameter."""
    p = np.zeros(1)
    state = fm.adam(p, **options)
    found = []
    for gradient in gradients:
        p[...] = 0  # so that nothing is rounded in a sum
        fm.step(p, np.array([gradient]), state)
        found.append(p.item())
    return np.array(found)


# ---- the length of a step ----


@hypothesis.given(adams(), st.integers(1, 60), st.floats(-4, 4), st.sampled_from([-1, 1]))
def test_step_of_a_gradient_that_stays(options: dict[str, Any], n: int, size: float, sign: int) -> None:
    gradient = sign * 10**size
    measured = displacements([gradient] * n, **options)
    np.testing.assert_allclose(
        theory.adam_step(np.arange(1, n + 1), gradient, **options), measured, rtol=1e-9
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", ["corrected", "folded"])
def test_first_step_has_the_length_lr(dtype: Any, form: str) -> None:
    gradients = np.array([1e-3, -1e-2, 1.0, -1e3, 1e6], dtype)
    p = np.zeros_like(gradients)
    fm.step(p, gradients, fm.adam(p, lr=0.25, form=form))
    np.testing.assert_allclose(p, -0.25 * np.sign(gradients), rtol=4e-4)  # eps of folded is 3.2e-7 here
    np.testing.assert_allclose(p, theory.adam_step(1, gradients, lr=0.25, form=form), rtol=1e-6)


def test_step_in_closed_form() -> None:
    g, eps, b2 = 3e-8, 1e-8, 0.999
    assert theory.adam_step(7, g, lr=1.0) == pytest.approx(-g / (g + eps), rel=1e-12)
    folded = -g / (g + eps / math.sqrt(1 - b2**7))
    assert theory.adam_step(7, g, lr=1.0, form="folded") == pytest.approx(folded, rel=1e-12)
    uncorrected = -(1 - 0.9**7) * g / (math.sqrt(1 - b2**7) * g + eps)
    assert theory.adam_step(7, g, lr=1.0, form="uncorrected") == pytest.approx(uncorrected, rel=1e-12)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0, 4.0])
def test_step_of_a_noisy_gradient(ratio: float) -> None:
    """The mean of 2000 copies over 100 steps, of which 100/19 or so are independent: 0.229/sqrt(2000*5.3) off.

    A right formula fails at 5 times that with a chance of 6e-7, if it is exact. It is not: what is left of the noise in
    the second moment, 1/1999 of its square, makes steps a little longer, by less than a thousandth.
    """
    rng, copies, steps = np.random.default_rng(0), 2000, 4000
    p = np.zeros(copies)
    state = fm.adam(p, lr=1.0)
    found = []
    for t in range(steps):
        p[...] = 0
        fm.step(p, ratio + rng.standard_normal(copies), state)
        if t >= steps - 100:
            found.append(p.copy())
    moved = np.array(found)
    expected = theory.adam_step(steps, ratio, noise=1.0, lr=1.0)
    spread = math.sqrt(theory.variance_reduction(0.9) / (1 + ratio**2))
    error = spread / math.sqrt(copies * 100 / theory.effective_gradients(0.9))
    assert moved.mean() == pytest.approx(expected, abs=5 * error + 1e-3 * abs(expected))
    assert moved.std() == pytest.approx(spread, rel=0.02)  # from 10 000 and more: 0.7 % off


@hypothesis.given(adams(), st.integers(0, 60), st.integers(0, 40), st.floats(-3, 3))
def test_spike(options: dict[str, Any], silence: int, after: int, size: float) -> None:
    gradient = 10**size
    measured = displacements([0.0] * silence + [gradient] + [0.0] * after, **options)[silence:]
    found = theory.adam_spike(np.arange(after + 1), silence, gradient, **options)
    np.testing.assert_allclose(found, measured, rtol=1e-9, atol=1e-300)


def test_spike_after_a_long_silence() -> None:
    found = theory.adam_spike(np.arange(2000), 10**6, lr=1.0, eps=0.0)
    first, ratio = 0.1 / math.sqrt(0.001), 0.9 / math.sqrt(0.999)
    np.testing.assert_allclose(found, -first * ratio ** np.arange(2000), rtol=1e-9)
    assert found.sum() == pytest.approx(-first / (1 - ratio), rel=1e-9)
    assert found.sum() == pytest.approx(-31.8, abs=0.05)


def longest(n: int, **options: Any) -> Array:
    """The gradients whose step n is the longest: each in proportion to its weight in v by that in s."""
    alone = {**options, "eps": 1e200}  # so that a step is in proportion to v
    weights = np.array([displacements(gradients, **alone)[-1] for gradients in np.eye(n)])
    gradients = weights / options["beta2"] ** np.arange(n - 1, -1.0, -1)
    return np.asarray(gradients / abs(gradients).max())


@hypothesis.given(adams(eps=False), st.integers(1, 25))
def test_bound_is_reached(options: dict[str, Any], n: int) -> None:
    measured = displacements(longest(n, **options), **options)[-1]
    assert theory.adam_bound(n, **options) == pytest.approx(measured, rel=1e-8)


@hypothesis.given(
    adams(), st.lists(st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=25)
)
def test_bound_is_not_exceeded(options: dict[str, Any], gradients: list[float]) -> None:
    measured = abs(displacements(gradients, **options))
    bound = theory.adam_bound(np.arange(1, len(gradients) + 1), **options)
    assert (measured <= bound * (1 + 1e-9)).all()


def test_bound_is_not_the_printed_one() -> None:
    """Kingma and Ba have the step after a long silence; gradients that grow make longer ones."""
    growth = 0.999 / 0.9
    measured = displacements(growth ** np.arange(-3000, 1.0), lr=1.0, eps=0.0)[-1]
    printed = 0.1 / math.sqrt(0.001)
    assert abs(measured) > 2 * printed
    assert theory.adam_bound(3001, lr=1.0) == pytest.approx(abs(measured), rel=1e-9)
    assert theory.adam_bound(10**6, lr=1.0) == pytest.approx(printed / math.sqrt(1 - 0.81 / 0.999), rel=1e-9)
    # where they say lr
    assert theory.adam_bound(10**6, lr=1.0, beta2=0.99) == pytest.approx(1 / math.sqrt(1 - 0.81 / 0.99))


def test_bound_at_the_edges() -> None:
    assert theory.adam_bound([1, 2], lr=1.0, beta2=0.0).tolist() == [1.0, math.inf]
    assert theory.adam_bound([1, 2], lr=1.0, beta1=0.0, beta2=0.0).tolist() == [1.0, 1.0]
    equal = theory.adam_bound([1, 100], lr=1.0, beta1=0.5, beta2=0.25, form="uncorrected")
    np.testing.assert_allclose(equal, 0.5 / math.sqrt(0.75) * np.sqrt([1, 100]))
    assert theory.adam_bound(10**6, lr=1.0, beta1=0.9, beta2=0.8) == math.inf  # beyond the largest double


@hypothesis.given(adams(), st.integers(1, 1000))
def test_eps_halves_the_step(options: dict[str, Any], t: int) -> None:
    gradient = theory.adam_eps(t, **options)
    without = theory.adam_step(t, gradient, **{**options, "eps": 0.0})
    assert theory.adam_step(t, gradient, **options) == pytest.approx(without / 2, rel=1e-9)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.999])
def test_memory(beta: float) -> None:
    assert beta ** theory.time_constant(beta) == pytest.approx(1 / math.e, rel=1e-12)
    assert theory.time_constant([0.0, 1.0]).tolist() == [0.0, math.inf]
    for steps in (1, 5, 300):
        weights = theory.velocity_weights(steps, lr=1.0, momentum=beta, form="ema")
        expected = weights.sum() ** 2 / (weights**2).sum()
        assert theory.effective_gradients(beta, steps) == pytest.approx(expected, rel=1e-9)
    assert theory.effective_gradients(beta) == pytest.approx(1 / theory.variance_reduction(beta), rel=1e-12)


# ---- Adam as another rule ----


def bits_of_steps(state: Any, p: Array) -> list[Array]:
    rng, found = np.random.default_rng(0), []
    for _ in range(20):
        fm.step(p, rng.standard_normal(p.shape), state)
        found.append(p.copy())
    return found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda p: fm.adam(p, lr=0.1, beta1=0.0, beta2=0.0, eps=0.0), lambda p: fm.signum(p, lr=0.1, momentum=0.0)),
        (lambda p: fm.lion(p, lr=0.1, beta1=0.9, beta2=0.9), lambda p: fm.signum(p, lr=0.1, momentum=0.9)),
        (lambda p: fm.adam(p, lr=0.1, beta1=0.0, beta2=0.99, form="uncorrected"), lambda p: fm.rmsprop(p, lr=0.1, rho=0.99)),
    ],
    ids=["sign descent", "Lion and Signum", "RMSprop"],
)  # fmt: skip
def test_limits_that_are_exact(one: Any, other: Any) -> None:
    p, q = np.ones(7), np.ones(7)
    np.testing.assert_allclose(bits_of_steps(one(p), p), bits_of_steps(other(q), q), rtol=0, atol=1e-15)


@pytest.mark.parametrize("form", ["corrected", "folded", "uncorrected"])
def test_large_eps_is_momentum(form: str) -> None:
    lr, eps = 0.1, 1e12
    p, q = np.ones(7), np.ones(7)
    options = theory.adam_as_momentum(0.0, lr=lr * eps, eps=eps)
    assert options["lr"] == lr
    adam, momentum = fm.adam(p, lr=lr * eps, eps=eps, form=form), fm.init(q, **options)
    rng = np.random.default_rng(0)
    for t in range(1, 400):
        p[...] = q[...] = 0
        gradient = rng.standard_normal(7)
        fm.step(p, gradient, adam)
        fm.step(q, gradient, momentum)
        factor = {
            "corrected": 1 / (1 - 0.9**t),
            "folded": math.sqrt(1 - 0.999**t) / (1 - 0.9**t),
            "uncorrected": 1,
        }
        np.testing.assert_allclose(p, q * factor[form], rtol=1e-9)


@hypothesis.given(adams(), st.floats(-6, 6), st.floats(-1, 1))
def test_step_with_a_second_moment_that_stays(options: dict[str, Any], size: float, v: float) -> None:
    """So late that nothing is left to correct, and with a gradient whose square is that second moment."""
    gradient, steps = 10**size, 10**6
    hypothesis.assume(options["beta1"] > 0)
    options["beta2"] = min(options["beta2"], 0.999)
    v *= gradient
    p, q = np.zeros(1), np.zeros(1)
    adam = fm.adam(p, **options)
    kept = {"velocity": {"": np.array([v])}, "second_moment": {"": np.array([gradient**2])}}
    adam.load_state_dict(adam.state_dict() | kept | {"steps": {"": steps}})
    momentum = fm.init(q, **theory.adam_as_momentum(gradient**2, **options))
    momentum.load_state_dict(momentum.state_dict() | {"velocity": {"": np.array([v])}, "steps": {"": steps}})
    fm.step(p, np.array([gradient]), adam)
    fm.step(q, np.array([gradient]), momentum)
    # v and the gradient may nearly cancel
    assert p[0] == pytest.approx(q[0], rel=1e-9, abs=1e-12 * momentum.lr * gradient)


# ---- near a minimum ----


def path(curvature: float, steps: int, lr: float, **options: Any) -> tuple[Array, Array]:
    """Parameters and roots of the second moment, with gradients so slightly disturbed that nothing but growth shows."""
    rng = np.random.default_rng(0)
    p = 10 * lr * np.linspace(0.9, 1.1, 8)
    state = fm.adam(p, lr=lr, **options)
    found = []
    for _ in range(steps):
        fm.step(p, curvature * (p + 1e-9 * lr * rng.standard_normal(8)), state)
        found.append((p.copy(), np.sqrt(state.second_moment)))
    params, roots = np.array(found).swapaxes(0, 1)
    return params, roots


@hypothesis.given(st.floats(-3, 3), st.floats(-4, 1), st.floats(0, 0.99), st.floats(0, 0.5), st.booleans())
def test_edge_is_where_the_rate_is_1(
    size: float, lr_size: float, beta1: float, share: float, nesterov: bool
) -> None:
    curvature = 10**size
    options: dict[str, Any] = {
        "lr": 10**lr_size,
        "beta1": beta1,
        "eps": 0.0,
        "nesterov": nesterov and beta1 > 1e-6,
    }
    options["eps"] = share * theory.adam_edge(curvature, **options)
    edge = theory.adam_edge(curvature, **options)
    for factor, above in ((1.001, False), (0.999, True)):
        momentum = theory.adam_as_momentum((factor * edge) ** 2, **options)
        assert (theory.rate(curvature, **momentum) > 1) == above


@pytest.mark.parametrize(
    ("beta1", "beta2"), [(0.0, 0.99), (0.5, 0.99), (0.9, 0.99), (0.9, 0.999), (0.95, 0.99)]
)
@pytest.mark.parametrize(("curvature", "lr"), [(1.0, 0.01), (100.0, 0.001)])
def test_adam_stays_near_the_edge(curvature: float, lr: float, beta1: float, beta2: float) -> None:
    options: dict[str, Any] = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": 0.0}
    params, roots = path(curvature, 12_000, **options)
    late, edge = slice(6000, None), theory.adam_edge(curvature, **options)
    assert 0.99 * edge < np.median(roots[late]) < 1.1 * edge
    assert 0.99 * edge < curvature * np.sqrt((params[late] ** 2).mean()) < 1.1 * edge
    if beta1 == 0:  # as in sign descent, from one side to the other
        np.testing.assert_allclose(abs(params[late]), lr / 2, rtol=1e-6)


def test_adam_comes_to_rest_beyond_the_edge() -> None:
    enough = theory.adam_edge(1.0, lr=0.01, eps=0.0)
    assert enough == pytest.approx(0.01 / 38, rel=1e-12)
    assert theory.adam_edge(1.0, lr=0.01, eps=1.1 * enough) == 0
    resting, _ = path(1.0, 16_000, lr=0.01, eps=1.1 * enough)
    restless, _ = path(1.0, 16_000, lr=0.01, eps=0.9 * enough)
    assert abs(resting[-2000:]).max() < 1e-8
    assert abs(restless[-2000:]).max() > 1e-4


# ---- bad input ----


BAD = [
    (lambda: theory.adam_step(0, 1.0, lr=0.1), ValueError, "step must be an integer >= 1, not 0.0"),
    (lambda: theory.adam_step([1, 1.5], 1.0, lr=0.1), ValueError, "step[1] must be an integer >= 1, not 1.5"),
    (lambda: theory.adam_step(1, np.nan, lr=0.1), ValueError, "gradient must be finite, not nan"),
    (lambda: theory.adam_step(1, 1.0, -1.0, lr=0.1), ValueError, "noise must be finite and >= 0, not -1.0"),
    (lambda: theory.adam_step(1, 1.0, lr=-0.1), ValueError, "lr must be finite and >= 0, not -0.1"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, beta1=1.0), ValueError, "beta1 must be in [0, 1), not 1.0"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, beta2=[0.9, -1]), ValueError, "beta2[1] must be in [0, 1), not -1.0"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, eps=-1e-8), ValueError, "eps must be finite and >= 0, not -1e-08"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, form="paper"), ValueError, "form must be one of 'corrected', 'folded', 'folded_float64', 'uncorrected', not 'paper'"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, nesterov=1), TypeError, "nesterov must be True or False, not int"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, nesterov=True, form="folded"), ValueError, "nesterov must be False in the form folded, not True; only corrected has nesterov"),
    (lambda: theory.adam_step(1, 1.0, lr=0.1, momentum=0.9), TypeError, "adam must have keywords among lr, beta1, beta2, eps, nesterov, form here, not 'momentum'"),
    (lambda: theory.adam_step(1, 1.0), TypeError, "adam must have the keyword lr"),
    (lambda: theory.adam_spike(-1, 0, lr=0.1), ValueError, "age must be an integer >= 0, not -1.0"),
    (lambda: theory.adam_spike(0, 0.5, lr=0.1), ValueError, "silence must be an integer >= 0, not 0.5"),
    (lambda: theory.adam_as_momentum(-1.0, lr=0.1), ValueError, "second_moment must be finite and >= 0, not -1.0"),
    (lambda: theory.adam_as_momentum(0.0, lr=0.1, eps=0.0), ValueError, "second_moment must be above 0, or eps, so that lr is finite, not 0.0"),
    (lambda: theory.adam_edge(0.0, lr=0.1), ValueError, "curvature must be finite and > 0, not 0.0"),
    (lambda: theory.effective_gradients(1.0), ValueError, "beta must be in [0, 1), not 1.0"),
    (lambda: theory.effective_gradients(0.5, -1), ValueError, "steps must be an integer >= 0, or inf, not -1.0"),
    (lambda: theory.effective_gradients(0.5, 0.5), ValueError, "steps must be an integer >= 0, or inf, not 0.5"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=map(str, range(len(BAD))))
def test_bad_input(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def test_defaults_are_those_of_adam() -> None:
    defaults = {name: p.default for name, p in inspect.signature(fm.adam).parameters.items()}
    given = {name: defaults[name] for name in AdamHyperparameters.__annotations__ if name != "lr"}
    for step in (1, 7):
        assert theory.adam_step(step, 1e-8, lr=0.1) == theory.adam_step(step, 1e-8, lr=0.1, **given)
    assert theory.adam_as_momentum(1.0, lr=1.0) == theory.adam_as_momentum(1.0, lr=1.0, **given)


def test_everything_broadcasts() -> None:
    options = {"lr": np.full((3, 1), 0.1), "beta1": np.full(2, 0.9)}
    step = np.ones((4, 1, 1))
    assert theory.adam_step(step, 1.0, **options).shape == (4, 3, 2)
    assert theory.adam_step(1, step, **options).shape == (4, 3, 2)
    assert theory.adam_spike(step, 1, **options).shape == (4, 3, 2)
    assert theory.adam_bound(step, **options).shape == (4, 3, 2)
    assert theory.adam_eps(step, **options).shape == (4, 3, 2)
    assert theory.adam_edge(step, **options).shape == (4, 3, 2)
    assert theory.adam_as_momentum(step, **options)["lr"].shape == (4, 3, 1)
    assert theory.effective_gradients(step / 2, np.ones(2)).shape == (4, 1, 2)
    assert isinstance(theory.adam_step(1, 1, lr=1), float)
    assert isinstance(theory.adam_bound(1, lr=1), float)
