"""The optimizers of autograd and ours on the same problems."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum.adapters import autograd as adapter
from helpers import FORMS, assert_bits, copied, least_squares, leaves, numerical_gradient

autograd = pytest.importorskip("autograd")

import autograd.numpy as anp
from autograd.builtins import isinstance as isinstance_boxed
from autograd.misc import optimizers

X0: dict[str, Any] = {
    "array": lambda rng: rng.normal(size=7),
    "matrix": lambda rng: rng.normal(size=(4, 3)),
    "Fortran": lambda rng: np.asfortranarray(rng.normal(size=(4, 3))),
    "number": lambda rng: 1.5,
    "list of numbers": lambda rng: [1.0, -2.0],
    "tuple": lambda rng: (rng.normal(size=3), rng.normal(size=())),
    "nested": lambda rng: {"z": [rng.normal(size=(2, 2)), 0.25], "a": (rng.normal(size=5), {"b": rng.normal(size=1)})},
    "network": lambda rng: [(rng.normal(size=(3, 2)), rng.normal(size=2)), (rng.normal(size=(2, 1)), rng.normal(size=1))],
}  # fmt: skip


def loss(x: Any, i: int) -> Any:
    """Not a quadratic, with other numbers in each iteration."""
    if isinstance_boxed(x, dict):
        return sum(loss(x[k], i) for k in sorted(x))
    if isinstance_boxed(x, (list, tuple)):
        return sum(loss(branch, i) for branch in x)
    return anp.sum(anp.cos(x * (1 + 0.01 * i)) + 0.1 * x**2)


@pytest.mark.parametrize(
    "options", [{}, {"num_iters": 7, "step_size": 0.5, "mass": 0.3}, {"mass": 0.0}], ids=str
)
@pytest.mark.parametrize("kind", X0)
def test_sgd(kind: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    x0 = X0[kind](rng)
    before = copied(x0)
    gradient = autograd.grad(loss)
    seen: list[list[Any]] = [[], []]
    results = [
        sgd(gradient, x0, lambda x, i, g, k=k: seen[k].append(([x], i, [g])), **options)
        for k, sgd in enumerate([adapter.sgd, optimizers.sgd])
    ]
    assert_bits(*results)
    assert_bits([x0], [before])
    assert len(seen[0]) == len(seen[1]) == options.get("num_iters", 200)
    for (x, i, g), (x_there, i_there, g_there) in zip(*seen, strict=True):
        assert i == i_there
        assert_bits(x, x_there)
        assert_bits(g, g_there)


def assert_close(ours: Any, theirs: Any) -> None:
    """Where operations come in another order."""
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {}),
        ("adam", {"num_iters": 30, "step_size": 0.05, "b1": 0.5, "b2": 0.9, "eps": 1e-3}),
        ("rmsprop", {"num_iters": 10}),
        ("rmsprop", {"num_iters": 7, "step_size": 0.05, "gamma": 0.5, "eps": 1e-3}),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", X0)
def test_adam_and_rmsprop(kind: str, name: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    x0 = X0[kind](rng)
    before = copied(x0)
    gradient = autograd.grad(loss)
    seen: list[list[Any]] = [[], []]
    results = [
        getattr(package, name)(gradient, x0, lambda x, i, g, k=k: seen[k].append((i, [x, g])), **options)
        for k, package in enumerate([adapter, optimizers])
    ]
    assert_close(*results)
    assert_bits([x0], [before])
    assert len(seen[0]) == len(seen[1]) == options.get("num_iters", 100)
    for (i, ours), (i_there, theirs) in zip(*seen, strict=True):
        assert i == i_there
        assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_step_agrees_to_some_units_in_the_last_place(name: str, rng: np.random.Generator) -> None:
    g = rng.normal(size=10_000) * 10.0 ** rng.integers(-9, 9, size=10_000)
    ours, theirs = (
        getattr(package, name)(lambda x, i: g, np.zeros_like(g), num_iters=1)
        for package in (adapter, optimizers)
    )
    np.testing.assert_array_max_ulp(ours, theirs, maxulp=4)


@pytest.mark.parametrize(
    ("name", "numbers"), [("sgd", (0.2, 0.5)), ("adam", (0.2, 0.5, 0.75, 0.1)), ("rmsprop", (0.2, 0.5, 0.1))]
)
def test_positional_arguments(name: str, numbers: tuple[float, ...]) -> None:
    gradient = autograd.grad(loss)
    arguments = (gradient, np.ones(3), None, 20, *numbers)
    assert_close(getattr(adapter, name)(*arguments), getattr(optimizers, name)(*arguments))


@pytest.mark.parametrize("x0", [3.0, np.arange(1, 4), np.float64(2.5)], ids=repr)
def test_numbers_and_a_gradient_by_hand(x0: Any) -> None:
    ours, theirs = (sgd(lambda x, i: 0.3 * x - 1, x0, num_iters=9) for sgd in (adapter.sgd, optimizers.sgd))
    assert_bits(ours, theirs)
    assert ours.shape == np.shape(x0)


def test_a_gradient_may_be_a_number_of_python() -> None:
    ours, theirs = (sgd(lambda x, i: 0.5, 2.0, num_iters=9) for sgd in (adapter.sgd, optimizers.sgd))
    assert_bits(ours, theirs)


@pytest.mark.parametrize(("name", "iterations"), [("sgd", 200), ("adam", 100), ("rmsprop", 5)])
def test_float32_stays_float32(name: str, iterations: int, rng: np.random.Generator) -> None:
    x0 = {"w": rng.normal(size=(4, 3)).astype(np.float32)}
    ours, theirs = (
        getattr(package, name)(autograd.grad(loss), x0, num_iters=iterations)
        for package in (adapter, optimizers)
    )
    assert ours["w"].dtype == np.float32
    np.testing.assert_allclose(ours["w"], theirs["w"], rtol=1e-5, atol=1e-5)


def test_the_result_shares_no_memory_with_x0() -> None:
    x0 = np.ones(3)
    assert not np.shares_memory(adapter.sgd(lambda x, i: 2 * x, x0, num_iters=0), x0)


def test_lookahead_is_nesterovs_original_form(rng: np.random.Generator) -> None:
    x0, matrix = rng.normal(size=3), np.diag([1.0, 3.0, 10.0])
    points: list[Any] = []

    def gradient(x: Any, i: int) -> Any:
        points.append(x.copy())
        return matrix @ x

    result = adapter.sgd(gradient, x0, num_iters=30, step_size=0.2, mass=0.8, lookahead=True)
    x, v = x0.copy(), np.zeros(3)
    for point in points:
        np.testing.assert_allclose(point, x - 0.2 * 0.8 * v, rtol=1e-14, atol=1e-15)
        v = 0.8 * v + (1 - 0.8) * (matrix @ point)
        x = x - 0.2 * v
    np.testing.assert_array_equal(result, x)
    assert not np.array_equal(result, adapter.sgd(gradient, x0, num_iters=30, step_size=0.2, mass=0.8))


def test_the_gradient_of_a_complex_array_is_the_conjugate_of_what_a_step_takes(
    rng: np.random.Generator,
) -> None:
    """df/dx - i df/dy, as docs/howto/images.md says: with it as it is, the steps leave the minimum."""
    matrix, data, solution = least_squares(rng)
    gradient = autograd.grad(lambda z, i: anp.sum(anp.abs(anp.dot(matrix, z) - data) ** 2))
    z = np.zeros(5, complex)
    expected = numerical_gradient(lambda z: np.sum(abs(matrix @ z - data) ** 2), z)
    np.testing.assert_allclose(np.conj(gradient(z, 0)), expected, rtol=1e-5, atol=1e-6)
    lr = 0.5 / np.linalg.norm(matrix, 2) ** 2
    right = adapter.sgd(lambda z, i: np.conj(gradient(z, i)), z, None, 1000, lr, 0.5)
    np.testing.assert_allclose(right, solution, rtol=1e-9)
    wrong = adapter.sgd(gradient, z, None, 50, lr, 0.5)
    assert np.linalg.norm(wrong - solution) > np.linalg.norm(solution)  # further away than at the start


def test_sgd_of_complex_numbers_is_that_of_autograd(rng: np.random.Generator) -> None:
    """As autograd is handed the same gradient."""
    x0 = {"z": rng.normal(size=(3, 2)) + 1j, "number": 2 - 1j}
    ours, theirs = (
        sgd(lambda x, i: {"z": (0.3 + 0.1j) * x["z"], "number": complex(x["number"])}, x0, num_iters=9)
        for sgd in (adapter.sgd, optimizers.sgd)
    )
    for a, b in zip(leaves(ours), leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_complex_numbers_are_stepped_as_pairs_of_reals(name: str, rng: np.random.Generator) -> None:
    """By autograd's steps of the two reals."""
    z = rng.normal(size=4) + 1j * rng.normal(size=4)
    ours = getattr(adapter, name)(lambda z, i: 3 * z, z, num_iters=10)
    theirs = getattr(optimizers, name)(lambda x, i: 3 * x, z.view(float), num_iters=10)
    assert_close(ours.view(float), theirs)


@pytest.mark.parametrize("form", FORMS)
def test_step(form: str, rng: np.random.Generator) -> None:
    gradient = autograd.grad(loss)
    params: Any = {"w": rng.normal(size=(4, 3)), "b": np.array(0.5)}
    expected = copied(params)
    state, expected_state = (fm.init(p, lr=0.1, momentum=0.8, form=form) for p in (params, expected))
    for i in range(10):
        g = gradient(fm.lookahead(expected, expected_state), i)
        fm.step(expected, g, expected_state)
        assert_bits(adapter.step(gradient, params, state, i), g)
        assert_bits(params, expected)
    plain = {"w": params["w"] - state.velocity["w"], "b": params["b"]}
    assert not np.array_equal(adapter.step(gradient, params, state, 0)["w"], gradient(plain, 0)["w"])


def test_what_is_refused() -> None:
    def trained(step_size: float) -> Any:
        return anp.sum(adapter.sgd(autograd.grad(loss), anp.ones(3) * step_size))

    with pytest.raises(TypeError) as info:
        autograd.grad(trained)(0.1)
    assert str(info.value) == (
        "x0 must have numbers, not ArrayBox; autograd.misc.optimizers can be differentiated, a step in place cannot"
    )
    with pytest.raises(ValueError, match="lr must"):
        adapter.sgd(autograd.grad(loss), np.ones(3), step_size=-0.1)
    for make, options, message in [
        (adapter.adam, {"b1": 1.0}, "beta1 must"),
        (adapter.adam, {"eps": -1.0}, "eps must"),
        (adapter.rmsprop, {"gamma": 1.0}, "rho must"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(autograd.grad(loss), np.ones(3), **options)
    with pytest.raises(ValueError, match="must not share memory|share"):
        adapter.sgd(lambda x, i: x, np.ones(3))
    with pytest.raises(ValueError, match="nesterov"):
        adapter.step(autograd.grad(loss), np.ones(3), fm.init(np.ones(3), lr=0.1, nesterov=True), 0)


def test_docstrings() -> None:
    results = doctest.testmod(adapter)
    assert results.failed == 0
    assert results.attempted > 0
