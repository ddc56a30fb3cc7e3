"""fast_momentum.minimize: what it returns, what ends it, what it refuses, and SciPy's contract of a method."""

from __future__ import annotations

import functools
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fast_momentum as fm
from helpers import HALVES, leaves, run_python

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.python_alone

CURVATURE = np.array([1.0, 10.0, 100.0])
FIELDS = ["message", "success", "status", "fun", "x", "nit", "jac", "nfev", "njev"]


def quadratic(x: Any) -> tuple[float, Any]:
    """Lowest, -1, at 1."""
    return float(CURVATURE @ (x - 1) ** 2) / 2 - 1, CURVATURE * (x - 1)


def rosenbrock(x: Any) -> float:
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def rosenbrock_gradient(x: Any) -> Any:
    inner = x[1:] - x[:-1] ** 2
    grad = np.zeros_like(x)
    grad[:-1] = -400 * x[:-1] * inner - 2 * (1 - x[:-1])
    grad[1:] += 200 * inner
    return grad


def tree_quadratic(params: Any) -> tuple[float, Any]:
    """`quadratic` of every leaf of containers, lowest at 1, in the same containers but lists for tuples."""
    grads = {"w": [params["w"][0] - 1, 3 * (params["w"][1] - 1)], "b": (10 * (params["b"][0] - 1),)}
    value = sum(
        float(np.sum((np.asarray(g) / c) ** 2)) * c / 2
        for g, c in zip(leaves(grads), (1, 3, 10), strict=True)
    )
    return value, grads


def tree(dtype: Any = np.float64) -> Any:
    return {"w": [np.zeros((2, 3), dtype), np.zeros(2, dtype)], "b": (np.zeros((), dtype),)}


class Recorded:
    """A function that keeps copies of where it was called."""

    def __init__(self, fun: Callable[..., Any] = quadratic) -> None:
        self.fun, self.points, self.flag = fun, [], False
        self.__name__ = "recorded"

    points: list[Any]

    def __call__(self, x: Any, *args: Any) -> Any:
        self.points.append(np.copy(x))
        return self.fun(x, *args)


# ---- what it returns ----


def test_result() -> None:
    start = np.zeros(3)
    fun = Recorded()
    result = fm.minimize(fun, start)
    assert list(result) == FIELDS
    assert isinstance(result, (dict, fm.OptimizeResult))
    assert result.success is True
    assert result.status == 0
    assert result.nit + 1 == result.nfev == result.njev == len(fun.points)
    np.testing.assert_allclose(result.x, 1, atol=1e-4)
    value, grad = quadratic(result.x)
    assert result.fun == value
    np.testing.assert_array_equal(result.jac, grad)
    assert np.abs(grad).max() <= 1e-5
    assert not start.any()
    for k, point in enumerate(fun.points[1:]):
        assert not np.array_equal(point, fun.points[k]), "evaluated twice"


def test_result_is_a_dict_with_attributes() -> None:
    result = fm.OptimizeResult(x=1, message="a\nb")
    assert result.x == result["x"] == 1
    result.nit = 3
    assert result["nit"] == 3
    del result.nit
    assert dir(result) == ["message", "x"]
    assert repr(result) == "      x: 1\nmessage: 'a\\nb'"
    assert repr(fm.OptimizeResult()) == "OptimizeResult()"
    with pytest.raises(AttributeError, match="the result has no hess, but x, message"):
        result.hess  # noqa: B018 - an attribute that is not there
    with pytest.raises(AttributeError):
        del result.hess


@pytest.mark.parametrize("rule", [None, fm.init, functools.partial(fm.init, nesterov=True, momentum=0.5)])
def test_rosenbrock(rule: Any) -> None:
    result = fm.minimize(rosenbrock, [1.35, 0.9, 0.8, 1.1, 1.2], jac=rosenbrock_gradient, rule=rule)
    assert result.success
    np.testing.assert_allclose(result.x, 1, atol=1e-4)


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (fm.init, {"lr": 0.01}), (fm.qhm, {"lr": 0.01, "momentum": 0.9}), (fm.adam, {"lr": 0.1}),
        (fm.rmsprop, {"lr": lambda t: 0.1 / (1 + t) ** 0.7}), (fm.accelerated, {"lr": 0.01, "restart": "gradient"}),
    ],
)  # fmt: skip
def test_other_rules_and_lrs(rule: Any, more: Any) -> None:
    result = fm.minimize(quadratic, np.zeros(3), rule=rule, tol=1e-3, **more)
    assert result.success, result
    np.testing.assert_allclose(result.x, 1, atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rule", [None, fm.init])
def test_containers_come_back(rule: Any, dtype: Any) -> None:
    result = fm.minimize(tree_quadratic, tree(dtype), rule=rule, tol=1e-4)
    assert result.success, result
    assert isinstance(result.x["b"], tuple)
    for leaf in leaves(result.x):
        assert leaf.dtype == dtype
        np.testing.assert_allclose(leaf, 1, atol=1e-3)
    assert [g.shape for g in leaves(result.jac)] == [(2, 3), (2,), ()]


def test_fun_gets_the_containers_of_x0() -> None:
    Model = namedtuple("Model", ["w", "b"])  # noqa: PYI024 - as a user has it
    seen = []

    def fun(model: Any) -> Any:
        seen.append(type(model))
        return float(model.w @ model.w + model.b @ model.b) / 2, (model.w.copy(), model.b.copy())

    result = fm.minimize(fun, Model(np.ones(3), np.ones((4, 2))[:, 0]))
    assert set(seen) == {type(result.x)} == {Model}


@pytest.mark.parametrize(
    "start", [[0, 0, 0], (0.0, 0.0, 0.0), np.zeros(3, int), np.zeros(6)[::2], np.zeros(3, np.float32), [np.float64(0)] * 3]
)  # fmt: skip
def test_what_x0_may_be(start: Any) -> None:
    result = fm.minimize(lambda x: (quadratic(x)[0], list(quadratic(x)[1])), start, tol=1e-3)
    assert result.success, result
    assert result.x.dtype == (np.float32 if getattr(start, "dtype", None) == np.float32 else np.float64)


def test_one_number() -> None:
    result = fm.minimize(lambda x: (float(x - 2) ** 2, 2 * (x - 2)), 0)
    assert result.x.shape == ()
    np.testing.assert_allclose(result.x, 2, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("more", [{}, {"jac": None}, {"rule": fm.init}])
def test_complex(dtype: Any, more: Any) -> None:
    target = np.array([1 + 2j, -3j, 0.5], dtype)

    def fun(z: Any) -> Any:
        value = float(np.sum(np.abs(z - target) ** 2)) / 2
        return value if "jac" in more else (value, z - target)

    result = fm.minimize(fun, np.zeros(3, dtype), tol=1e-2 if dtype == np.complex64 else 1e-6, **more)
    assert result.success, result
    np.testing.assert_allclose(result.x, target, atol=2e-2)


@pytest.mark.parametrize("slope", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_gradients(dtype: Any, slope: float) -> None:
    """They show no curvature, by which lr could be set: it grows as fast as a bit for each step."""
    result = fm.minimize(
        lambda x: (-slope * float(x.sum()), np.full(3, -slope, dtype)), np.ones(3, dtype), bounds=(-1, 2)
    )
    assert result.success, result
    assert result.nit < 60
    np.testing.assert_array_equal(result.x, 2)


def test_constant_gradients_without_an_end() -> None:
    result = fm.minimize(lambda x: (-float(x[0]), -np.ones(1)), np.ones(1))
    assert (result.success, result.status) == (False, 2)
    assert result.fun < -1e300


@pytest.mark.parametrize(("size", "works"), [(1e15, True), (1e30, False)])
def test_large_gradients_in_float32(size: float, works: bool) -> None:
    """What has no norm there is said to have none, rather than that no step were of any use."""

    def fun(x: Any) -> Any:
        return size / 2 * float((x - 1) @ (x - 1)), np.float32(size) * (x - 1)

    result = fm.minimize(fun, np.zeros(3, np.float32), tol=size * 1e-5)
    assert result.success is works, result
    if not works:
        assert result.message == (
            "the norm of the gradient was inf in float32 (scale fun, or give lr) after 0 steps; "
            "x is the best point before. A lower lr may help."
        )
        given = fm.minimize(fun, np.zeros(3, np.float32), tol=size * 1e-5, lr=0.5 / size)
        assert given.success, given


def test_args_and_jac() -> None:
    for args in ((2.0,), 2.0):
        result = fm.minimize(
            lambda x, a: float((x - a) @ (x - a)), np.zeros(2), args=args, jac=lambda x, a: 2 * (x - a)
        )
        np.testing.assert_allclose(result.x, 2, atol=1e-5)
        assert result.njev == result.nfev


@pytest.mark.parametrize("jac", [None, False, "2-point"])
def test_differences(jac: Any) -> None:
    start = {"a": np.zeros((2, 2), order="F"), "b": [np.zeros(1)]}
    result = fm.minimize(
        lambda p: float(np.sum((p["a"] - [[1, 2], [3, 4]]) ** 2) + (p["b"][0][0] - 5) ** 2), start, jac=jac
    )
    assert result.success
    np.testing.assert_allclose(result.x["a"], [[1, 2], [3, 4]], atol=1e-5)
    assert result.nfev == 6 * result.njev


@pytest.mark.parametrize("whether", [True, False])
def test_jac_may_be_a_bool_of_numpy(whether: bool) -> None:
    fun = quadratic if whether else lambda x: quadratic(x)[0]
    result = fm.minimize(fun, np.zeros(3), jac=np.bool_(whether), maxiter=3)
    assert result.nfev == (4 if whether else 16)


def test_options_are_keywords() -> None:
    options = {"rule": fm.adam, "lr": 0.1, "beta1": 0.5, "maxiter": 7, "tol": 1e-3}
    one = fm.minimize(quadratic, np.zeros(3), options=options)
    other = fm.minimize(quadratic, np.zeros(3), **options)
    assert one.nit == other.nit == 7
    np.testing.assert_array_equal(one.x, other.x)


# ---- what ends it ----


def test_tol_is_the_largest_element_of_the_gradient() -> None:
    loose, tight = (fm.minimize(quadratic, np.zeros(3), tol=tol) for tol in (1e-1, 1e-9))
    assert loose.nit < tight.nit
    assert np.abs(tight.jac).max() <= 1e-9 < np.abs(loose.jac).max() <= 1e-1


def test_start_at_the_minimum() -> None:
    result = fm.minimize(quadratic, np.ones(3), callback=lambda x: pytest.fail("there is no step"))
    assert (result.nit, result.nfev, result.success) == (0, 1, True)


@pytest.mark.parametrize("maxiter", [0, 1, 5])
def test_maxiter(maxiter: int) -> None:
    result = fm.minimize(quadratic, np.zeros(3), maxiter=maxiter)
    assert (result.nit, result.nfev, result.success, result.status) == (maxiter, maxiter + 1, False, 1)
    assert result.message.startswith(f"maxiter, {maxiter}, steps were made; ")


@given(st.integers(0, 40), st.sampled_from([0.001, 0.01, 0.021, 0.05]))
def test_x_is_the_lowest_point(maxiter: int, lr: float) -> None:
    """Also where steps diverge: lr 0.021 and 0.05 are above the limit without momentum."""
    fun = Recorded()
    result = fm.minimize(fun, np.zeros(3), rule=fm.init, lr=lr, momentum=0.0, maxiter=maxiter)
    values = [quadratic(x)[0] for x in fun.points]
    assert result.fun == min(values)
    np.testing.assert_array_equal(result.x, fun.points[int(np.argmin(values))])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["value", "gradient"])
def test_not_finite(bad: float, where: str) -> None:
    calls = Recorded()

    def fun(x: Any) -> Any:
        value, grad = calls(x)
        if len(calls.points) == 4:
            return (bad, grad) if where == "value" else (value, grad + np.array([0, bad, 0]))
        return value, grad

    result = fm.minimize(fun, np.zeros(3), lr=0.001)
    assert (result.status, result.success, result.nit, result.nfev) == (2, False, 3, 4)
    what = f"fun was {bad}" if where == "value" else f"the gradient had an element of {bad}"
    assert result.message == f"{what} after 3 steps; x is the best point before. A lower lr may help."
    np.testing.assert_array_equal(result.x, calls.points[2])


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"jac": None},
        {"l1": 0.1},
        {"noisy": True, "lr": 0.1},
        {"noisy": True, "lr": 0.1, "average_decay": 0.9},
    ],
)
@pytest.mark.parametrize(("value", "factor"), [(np.nan, 1.0), (np.inf, 1.0), (-np.inf, 1.0), (5.0, np.nan)])
def test_not_finite_at_x0(value: float, factor: float, more: Any) -> None:
    """The value that was measured is that of the result."""
    fun = (lambda x: value if x[0] == 3 else np.inf) if "jac" in more else (lambda x: (value, factor * x))
    result = fm.minimize(fun, np.full(2, 3.0), **more)
    assert (result.status, result.nit, result.jac) == (2, 0, None)
    np.testing.assert_array_equal(result.x, [3, 3])
    np.testing.assert_equal(result.fun, value)


@pytest.mark.parametrize("call", [1, 2, 9])
def test_interrupt_gives_the_best_point(call: int) -> None:
    calls = Recorded()

    def fun(x: Any) -> Any:
        found = calls(x)
        if len(calls.points) == call:
            raise KeyboardInterrupt
        return found

    result = fm.minimize(fun, np.zeros(3), rule=fm.init, lr=0.001)
    assert (result.status, result.success, result.nit) == (130, False, call - 1)
    assert result.message.startswith(f"Interrupted (KeyboardInterrupt) after {call - 1} steps; ")
    values = [quadratic(x)[0] for x in calls.points[: max(call - 1, 1)]]
    np.testing.assert_array_equal(result.x, calls.points[int(np.argmin(values))])


def test_interrupts_at_any_line_leave_a_whole_point() -> None:
    """Interrupted between any two lines of Python, the arrays of x are those of one point."""
    code = """
        import sys
        import numpy as np
        import fast_momentum as fm
        from fast_momentum._minimize import _run

        points = {(0.0, 0.0)}

        def fun(x):
            points.add((float(x[0][0]), float(x[1][0])))
            return float(x[0][0] - 1) ** 2 + float(x[1][0] - 1) ** 2, [2 * (x[0] - 1), 2 * (x[1] - 1)]

        def interrupted(line):
            lines = 0
            def trace(frame, event, argument):
                nonlocal lines
                if frame.f_code.co_filename != _run.__file__ or frame.f_code.co_name not in wanted:
                    return None
                if event == "line":
                    lines += 1
                    if lines == line:
                        raise KeyboardInterrupt
                return trace
            sys.settrace(trace)
            try:
                return fm.minimize(fun, [np.zeros(1), np.zeros(1)], rule=fm.init, lr=[0.1, 0.2], maxiter=3)
            finally:
                sys.settrace(None)

        wanted = {"advance", "_evaluate", "_keep", "offer", "copy_into", "_step", "_copied"}
        statuses = []
        for line in range(1, 200):
            result = interrupted(line)
            assert (float(result.x[0][0]), float(result.x[1][0])) in points, (line, result)
            statuses.append(result.status)
        assert statuses.count(130) > 30 and statuses[-1] == 1, statuses
    """
    run_python(code)


def test_errors_of_fun_are_the_users() -> None:
    def fun(x: Any) -> Any:
        message = "of fun"
        raise StopIteration(message)

    with pytest.raises(StopIteration, match="of fun"):
        fm.minimize(fun, np.zeros(3))


# ---- callbacks and progress ----


def test_callback_of_the_point() -> None:
    fun, seen = Recorded(), []
    result = fm.minimize(fun, np.zeros(3), callback=seen.append, maxiter=4)
    np.testing.assert_array_equal(seen, fun.points[1:])
    assert len(seen) == result.nit


def test_callback_of_the_intermediate_result() -> None:
    fun, seen = Recorded(), []

    def callback(*, intermediate_result: Any) -> None:
        seen.append(intermediate_result)

    fm.minimize(fun, np.zeros(3), callback=callback, maxiter=4)
    assert [list(found) for found in seen] == [["x", "fun", "nit"]] * 4
    assert [found.fun for found in seen] == [quadratic(x)[0] for x in fun.points[1:]]
    assert [found.nit for found in seen] == [1, 2, 3, 4]


@pytest.mark.parametrize("builtin", [max, min, dict.fromkeys, np.sum])
def test_callback_without_a_signature(builtin: Any) -> None:
    result = fm.minimize(quadratic, np.zeros(3), callback=builtin, maxiter=4)
    assert result.nit == 4


def test_disp(capsys: pytest.CaptureFixture[str]) -> None:
    fm.minimize(quadratic, np.zeros(3))
    assert capsys.readouterr() == ("", "")
    result = fm.minimize(quadratic, np.zeros(3), disp=True)
    printed = capsys.readouterr().out
    assert printed == f"{result.message}\n{result.nit} steps, {result.nfev} values, fun {result.fun!r}\n"


def test_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich")
    fm.minimize(quadratic, np.zeros(3), maxiter=3, disp=True)
    assert "3/3 fun " in capsys.readouterr().err


def test_without_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    fm.minimize(quadratic, np.zeros(3), maxiter=3, disp=True)
    assert capsys.readouterr().err == ""


# ---- bounds and proximal maps ----


class Bounds:
    """As SciPy's, which may not be installed."""

    def __init__(self, lb: Any, ub: Any) -> None:
        self.lb, self.ub = lb, ub


@pytest.mark.parametrize("rule", [{}, {"rule": fm.init}, {"rule": fm.adam, "lr": 0.1}])
@pytest.mark.parametrize(
    "bounds",
    [(None, 0.5), Bounds(-np.inf, 0.5), Bounds(-1, np.full(3, 0.5)), [(None, 0.5)] * 3, [[-1, 0.5]] * 3],
)
def test_bounds(bounds: Any, rule: Any) -> None:
    fun = Recorded()
    result = fm.minimize(fun, np.zeros(3), bounds=bounds, **rule)
    assert result.success, result
    np.testing.assert_array_equal(result.x, 0.5)
    assert max(x.max() for x in fun.points) <= 0.5


def test_bounds_that_differ_within_an_array() -> None:
    for bounds in ([(None, 2), (0, 0.25), (0, 0)], (np.array([-9, 0, 0]), np.array([2.0, 0.25, 0.0]))):
        fun = Recorded()
        result = fm.minimize(fun, np.zeros(3), bounds=bounds)
        assert result.success, result
        np.testing.assert_allclose(result.x, [1, 0.25, 0], atol=1e-4)
        assert all((x <= [2, 0.25, 0]).all() for x in fun.points)


def test_bounds_of_containers() -> None:
    result = fm.minimize(
        tree_quadratic, tree(), bounds=({"w": -1, "b": None}, {"w": [0.5, None], "b": [0.25]})
    )
    assert result.success, result
    np.testing.assert_array_equal(result.x["w"][0], 0.5)
    np.testing.assert_allclose(result.x["w"][1], 1, atol=1e-5)
    assert result.x["b"][0] == 0.25


def test_bounds_of_two_numbers_are_pairs_as_in_scipy() -> None:
    result = fm.minimize(
        lambda x: (-float(x.sum()), -np.ones(2)), np.zeros(2), bounds=[(0, 1), (0, 2)], lr=0.1
    )
    np.testing.assert_array_equal(result.x, [1, 2])


@pytest.mark.parametrize("within", [list, tuple])
@pytest.mark.parametrize("dtype", [float, int])
def test_bounds_of_two_numbers_that_are_arrays_are_lower_and_upper(within: Any, dtype: Any) -> None:
    bounds = within([np.array([0, -1], dtype), np.array([1, 2], dtype)])
    for sign, best in ((-1, [1, 2]), (1, [0, -1])):
        result = fm.minimize(
            lambda x, sign=sign: (sign * float(x.sum()), sign * np.ones(2)),
            np.zeros(2),
            bounds=bounds,
            lr=0.1,
        )
        np.testing.assert_array_equal(result.x, best)


@pytest.mark.parametrize("dtype", [*HALVES, np.float32])
def test_bounds_beyond_the_numbers_of_the_dtype_are_none(dtype: Any) -> None:
    start, target = np.ones(2, dtype), np.array([-3, 3], dtype)
    for bounds in ((0.5, 1e300), [(0.5, 1e300), (-1e300, 9)]):
        result = fm.minimize(
            lambda x: (float(np.sum((x - target) ** 2)) / 2, x - target),
            start,
            bounds=bounds,
            lr=0.5,
            tol=1e-2,
        )
        assert result.success, result
        np.testing.assert_allclose(result.x, [0.5, 3], atol=1e-2)


def lasso(matrix: Any, data: Any) -> Callable[[Any], Any]:
    def fun(x: Any) -> Any:
        error = matrix @ x - data
        return float(error @ error) / 2, matrix.T @ error

    return fun


def test_l1(rng: np.random.Generator) -> None:
    matrix = rng.normal(size=(30, 60))
    data = matrix[:, :3].sum(1)
    result = fm.minimize(lasso(matrix, data), np.zeros(60), l1=2.0, tol=1e-8)
    assert result.success, result
    grad = matrix.T @ (matrix @ result.x - data)
    np.testing.assert_array_equal(result.jac, grad)
    assert result.fun == lasso(matrix, data)(result.x)[0]
    assert 0 < (result.x != 0).sum() < 20
    on = result.x != 0
    np.testing.assert_allclose(grad[on], -2.0 * np.sign(result.x[on]), atol=1e-6)
    assert np.abs(grad[~on]).max() <= 2.0 + 1e-6
    assert result.nfev == result.nit + 1


def test_prox() -> None:
    """The projection onto the unit ball."""

    def prox(x: Any) -> None:
        x /= max(1.0, float(np.linalg.norm(x)))

    seen = []

    def callback(intermediate_result: Any) -> None:
        assert intermediate_result.fun == quadratic(intermediate_result.x)[0]
        seen.append(float(np.linalg.norm(intermediate_result.x)))

    result = fm.minimize(quadratic, np.zeros(3), prox=prox, tol=1e-8, callback=callback)
    assert result.success, result
    assert max(seen) <= 1 + 1e-15
    # On the sphere, the gradient points inwards.
    np.testing.assert_allclose(np.cross(result.jac, result.x), 0, atol=1e-6)


def test_l1_where_the_gradient_is_0() -> None:
    result = fm.minimize(quadratic, np.ones(3), l1=0.5)
    assert result.success, result
    np.testing.assert_allclose(result.x, 1 - 0.5 / CURVATURE, atol=1e-4)
    still = fm.minimize(quadratic, np.ones(3), l1=0.5, lr=0.0, maxiter=3)
    assert (still.success, still.nit) == (False, 3)


def test_prox_of_containers_with_an_lr_for_each_array() -> None:
    """The soft threshold of lr, each array with its own."""
    lr = {"w": 0.5, "b": [0.25]}

    def prox(params: Any) -> None:
        for x, rate in ((params["w"], 0.5), (params["b"][0], 0.25)):
            x[...] = np.sign(x) * np.maximum(np.abs(x) - rate, 0)

    def fun(params: Any) -> Any:
        grads = {"w": params["w"] - [3, 0.5], "b": [2 * (params["b"][0] + 4)]}
        return float(grads["w"] @ grads["w"] / 2 + grads["b"][0] @ grads["b"][0] / 4), grads

    result = fm.minimize(fun, {"w": np.zeros(2), "b": [np.zeros(1)]}, prox=prox, lr=lr, tol=1e-9)
    assert result.success, result
    np.testing.assert_allclose(result.x["w"], [2, 0], atol=1e-8)
    np.testing.assert_allclose(result.x["b"][0], [-3.5], atol=1e-8)


def test_prox_that_breaks_off() -> None:
    calls = 0

    def prox(x: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 5:
            x[1] = np.nan

    result = fm.minimize(quadratic, np.zeros(3), prox=prox, lr=0.001)
    assert (result.status, result.nit, result.success) == (2, 5, False)
    assert np.isfinite(result.x).all()
    assert result.fun == quadratic(result.x)[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("array", ["a", "b", "c"])
def test_prox_that_is_not_finite_in_any_array(array: str, bad: float) -> None:
    """Not even where it comes at the first step, and the gradient there is finite."""

    def prox(params: Any) -> None:
        params[array][-1] = bad

    start = {"a": np.zeros(2), "b": np.ones(2), "c": np.zeros(1)}
    result = fm.minimize(
        lambda p: (0.0, {k: np.zeros_like(x) for k, x in p.items()}), start, prox=prox, lr=0.1
    )
    assert (result.success, result.status, result.nit) == (False, 2, 1)
    assert result.message.startswith(f"a step changed an element by {bad} after 1 steps; ")
    for key, x in start.items():
        np.testing.assert_array_equal(result.x[key], x)


@pytest.mark.parametrize("lr", [[0.5, 0.0], [0.0, 0.5], lambda t: [0.0, 0.5 if t < 30 else 0.0]])
@pytest.mark.parametrize("more", [{"l1": 0.1}, {"prox": lambda params: None}])
def test_proximal_steps_where_some_lrs_are_0(lr: Any, more: Any) -> None:
    """The arrays that are held do not hide what the others gain; a schedule may end at 0."""
    result = fm.minimize(
        lambda p: (sum(float((x - 1) @ (x - 1)) / 2 for x in p), [x - 1 for x in p]),
        [np.zeros(2), np.zeros(2)], lr=lr, maxiter=60, tol=0.0 if callable(lr) else None, **more,
    )  # fmt: skip
    moved = 0 if isinstance(lr, list) and lr[0] else 1
    np.testing.assert_array_equal(result.x[1 - moved], 0)
    np.testing.assert_allclose(result.x[moved], 0.9 if "l1" in more else 1, atol=1e-4)
    assert result.success or callable(lr)


def test_proximal_steps_where_all_lrs_are_0() -> None:
    """The answer is the last iterate, to which the map has been applied."""

    def at_most_2(x: Any) -> None:
        np.minimum(x, 2, out=x)

    result = fm.minimize(quadratic, np.full(3, 5.0), prox=at_most_2, lr=0.0, maxiter=3)
    assert (result.success, result.nit) == (False, 3)
    np.testing.assert_array_equal(result.x, 2)


# ---- noise ----


def noisy(rng: np.random.Generator) -> Callable[[Any], Any]:
    return lambda x: (quadratic(x)[0] + float(rng.normal()), quadratic(x)[1] + rng.normal(size=3))


@pytest.mark.parametrize(
    "more", [{}, {"lr": 0.001}, {"lr": lambda t: 0.02 / (10 + t), "rule": fm.adam}, {"bounds": (None, 5)}]
)
def test_noisy(rng: np.random.Generator, more: Any) -> None:
    fun = Recorded(noisy(rng))
    result = fm.minimize(fun, np.full(3, 0.5), noisy=True, maxiter=400, **more)
    assert (result.success, result.status, result.nit) == (True, 1, 400)
    np.testing.assert_array_equal(result.x, fun.points[-1])


def test_noisy_average() -> None:
    """The average that a loop by hand has after as many steps."""
    found = fm.minimize(
        noisy(np.random.default_rng(0)), np.zeros(3), noisy=True, maxiter=50, lr=0.001, average_decay=0.9
    )
    fun, params = noisy(np.random.default_rng(0)), np.zeros(3)
    state = fm.init(params, lr=0.001, average_decay=0.9)
    for _ in range(50):
        fm.step(params, fun(params)[1], state)
    np.testing.assert_array_equal(found.x, state.average)
    assert (found.nit, found.nfev) == (50, 52)
    assert found.message == "maxiter, 50, steps were made."


# ---- what is refused ----

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fun": 3}, TypeError, "fun must be a function, not int"),
    ({"jac": "3-point"}, ValueError, "jac must be True, a function, None or '2-point', not '3-point'; "
     "a function may form other differences"),
    ({"jac": np.ones(2)}, ValueError, "jac must be True, a function, None or '2-point', not array([1., 1.]); "
     "a function may form other differences"),
    ({"jac": 1}, ValueError, "jac must be True, a function, None or '2-point', not 1; "
     "a function may form other differences"),
    ({"x0": np.array(["a"])}, TypeError, None),
    ({"x0": {"w": np.zeros(2, int)}}, TypeError, None),
    ({"x0": {"w": np.zeros(2, np.float16)}}, TypeError, "x0['w'] must be of float32, float64 or their complex ones "
     "where lr is None, not float16; give lr"),
    ({"x0": np.zeros(2, np.float16), "rule": fm.init}, TypeError, "x0 must be of float32, float64 or their complex "
     "ones where lr is None, not float16; give lr"),
    ({"tol": -1}, ValueError, None),
    ({"tol": "small"}, TypeError, "tol must be a real number or an array of them, not str"),
    ({"maxiter": 1.5}, ValueError, "maxiter must be an integer >= 0, not 1.5"),
    ({"maxiter": -1}, ValueError, "maxiter must be an integer >= 0, not -1.0"),
    ({"callback": 1}, TypeError, "callback must be a function, not int"),
    ({"prox": 1}, TypeError, "prox must be a function, not int"),
    ({"rule": "adam"}, TypeError, "rule must be a function, not str"),
    ({"rule": lambda params, lr: 1}, TypeError, "rule must make a State, as fast_momentum.adam does, not int"),
    ({"rule": fm.adam}, TypeError,
     "lr must be a number or a schedule with adam, not None; init and accelerated are tuned"),
    ({"lr": -1}, ValueError, None),
    ({"momentum": 0.9}, TypeError, None),
    ({"noisy": 1}, TypeError, "noisy must be True or False, not int"),
    ({"disp": 1}, TypeError, "disp must be True or False, not int"),
    ({"noisy": True, "tol": 1e-3}, ValueError,
     "tol must be None with noisy, not 0.001, as the gradient of a sample does not vanish; give maxiter"),
    ({"noisy": True, "rule": fm.accelerated, "l1": 1.0}, ValueError,
     "noisy must be False with a proximal map, as accelerated amplifies noise; use init, and l1 in fun"),
    ({"rule": fm.init, "average_decay": 0.9}, ValueError,
     "average_decay must be None, not 0.9; with noisy=True the average is the answer"),
    ({"maximize": True}, TypeError, "maximize must not be given to minimize; negate fun and its gradient"),
    ({"lower": 0}, TypeError, "lower must not be given to minimize; give bounds"),
    ({"weight_decay": 0.1}, TypeError,
     "weight_decay must not be given to minimize; add it to fun and its gradient"),
    ({"nonfinite": "skip"}, TypeError,
     "nonfinite must not be given to minimize; what is not finite ends the run, and the best point before is returned"),
    ({"hess": rosenbrock}, ValueError,
     "hess must be None, as no Hessian is used; method='trust-krylov' of scipy.optimize uses it"),
    ({"constraints": {"type": "eq", "fun": rosenbrock}}, ValueError,
     "constraints must be (), as there are bounds and prox alone; project by prox, or take method='SLSQP' or "
     "'trust-constr' of scipy.optimize"),
    ({"options": {"lr": 0.1}, "lr": 0.2}, TypeError, "lr must be given once, not as a keyword and in options"),
    ({"options": {"l1": 0.1}, "l1": 0.2}, TypeError, "l1 must be given once, not as a keyword and in options"),
    ({"bounds": 3}, ValueError, "bounds must be SciPy's Bounds, a pair (lower, upper), or a pair for each element "
     "of a vector, not int"),
    ({"bounds": [(0, 1)] * 4}, ValueError, "bounds must be SciPy's Bounds, a pair (lower, upper), or a pair for "
     "each element of a vector, not 4 items"),
    ({"bounds": (1, 0)}, ValueError, "bounds: lower must not be above upper"),
    ({"bounds": (1, 2)}, ValueError, "x0 must be within bounds, not 0.0 at (0,); np.clip(x0, lower, upper) is"),
    ({"bounds": (np.nan, 2)}, ValueError, "bounds: lower must not be nan; None is no limit"),
    ({"bounds": ("a", 2)}, TypeError, "bounds: lower must be a real number or an array of them, not 'a'"),
    ({"bounds": (np.zeros(2), 2)}, ValueError, "bounds: lower must be a number or have shape (3,), not (2,)"),
    ({"bounds": (0, 1), "x0": np.zeros(3, complex)}, TypeError,
     "bounds: lower must be None for an array of complex128, which has no order; bound its modulus by prox"),
    ({"bounds": ({"w": 0}, {"w": 1}), "x0": {"w": np.zeros(1), "b": np.zeros(1)}}, ValueError,
     "bounds: lower['b'] must be given, or be None; lower is a number for all arrays or has the structure of x0"),
    ({"bounds": ({"w": 0, "c": 0}, 1), "x0": {"w": np.zeros(1)}}, ValueError,
     "bounds: lower['c'] must be left out, as x0 has nothing there; lower is a number for all arrays or has the "
     "structure of x0"),
    ({"bounds": (0, {"w": {"b": 1}, "a": [1]}), "x0": {"w": np.zeros(1), "a": np.zeros(1)}}, TypeError,
     "bounds: upper['w'] must be a real number or an array of them, not {'b': 1}"),
    ({"bounds": (0, [1, None, 2]), "x0": [np.zeros(1), np.zeros(1)]}, ValueError,
     "bounds: upper[2] must be left out, as x0 has nothing there; upper is a number for all arrays or has the "
     "structure of x0"),
    ({"bounds": ([0, 0], 1), "x0": {"w": np.zeros(1), "b": np.zeros(1)}}, ValueError,
     "bounds: lower[0] must be left out, as x0 has nothing there; lower is a number for all arrays or has the "
     "structure of x0"),
    ({"bounds": ({"w": 0}, 1), "x0": [np.zeros(1)]}, ValueError,
     "bounds: lower['w'] must be left out, as x0 has nothing there; lower is a number for all arrays or has the "
     "structure of x0"),
    ({"bounds": np.zeros((2, 2)), "x0": np.zeros(2)}, ValueError,
     "bounds of two elements must be two arrays, lower and upper, or two lists or tuples, a pair for each element, "
     "not one array; scipy.optimize.Bounds(lower, upper) says which"),
    ({"bounds": (np.zeros(2), [0, 1]), "x0": np.zeros(2)}, ValueError,
     "bounds of two elements must be two arrays, lower and upper, or two lists or tuples, a pair for each element, "
     "not an array and a list or tuple; scipy.optimize.Bounds(lower, upper) says which"),
    ({"bounds": [(0, 1), (0, 2), (0, 3)], "rule": fm.init}, ValueError,
     "bounds that differ within an array must come with rule accelerated, not momentum, as it is its proximal map"),
    ({"prox": np.negative, "rule": fm.init}, ValueError,
     "prox must come with rule accelerated, not momentum, as it is its proximal map"),
    ({"prox": np.negative, "l1": 0.1}, ValueError,
     "prox must be the whole proximal map, not come with l1 or bounds; let prox do these"),
    ({"prox": np.negative, "bounds": (0, 1)}, ValueError,
     "prox must be the whole proximal map, not come with l1 or bounds; let prox do these"),
    ({"l1": 0.1, "bounds": [(0, 1), (0, 2), (0, 3)]}, ValueError,
     "bounds must be one pair for each array with l1, not differ within an array; let prox do both"),
]  # fmt: skip


@pytest.mark.parametrize(("keywords", "error", "message"), REFUSED)
def test_refused_before_the_first_evaluation(keywords: Any, error: Any, message: str | None) -> None:
    called = []

    def fun(x: Any) -> Any:
        called.append(x)
        return quadratic(x)

    with pytest.raises(error) as raised:
        fm.minimize(**{"fun": fun, "x0": np.zeros(3), **keywords})
    assert not called
    assert message is None or str(raised.value) == message


@pytest.mark.parametrize(
    ("found", "more", "message"),
    [
        (1.0, {}, "fun must return its value and its gradient, as jac is True, not float; "
         "give the function of the gradient as jac"),
        ((1j, np.zeros(3)), {}, "fun must return a real number, not complex"),
        ((np.zeros(2), np.zeros(3)), {}, "fun must return a real number, not an array of shape (2,) and float64"),
        (None, {"jac": rosenbrock_gradient}, "fun must return a real number, not NoneType"),
        ((1.0, np.ones(3)), {"jac": rosenbrock_gradient}, "fun must return a real number, not 2 items"),
    ],
)  # fmt: skip
def test_what_fun_must_return(found: Any, more: Any, message: str | None) -> None:
    start = np.zeros(3)
    with pytest.raises((TypeError, ValueError)) as raised:
        fm.minimize(lambda x: found, start, **more)
    assert message is None or str(raised.value) == message
    assert not start.any()


NOT_LIKE: list[tuple[Any, Any, type[Exception], str]] = [
    (np.ones(3), lambda x: np.ones(4), ValueError, "the gradient must have the shape of x0, (3,), not (4,)"),
    (np.ones(3), lambda x: [x, np.ones(2)], ValueError,
     "the gradient must have the shape of x0, (3,), not be 2 items of several shapes"),
    (np.ones(3), lambda x: x + 0j, TypeError, "the gradient must be of real floats, as x0 is, not complex128"),
    (np.ones(3), lambda x: x.astype(object), TypeError, "the gradient must be of real floats, as x0 is, not object"),
    (np.ones(3), lambda x: {"w": x.copy()}, ValueError,
     "the gradient must have the same structure as x0, not lack a single array"),
    (np.ones(3), lambda x: None, TypeError, "the gradient must be an array, as x0 is, not NoneType"),
    (np.ones((3, 2)), lambda x: fm.Rows(np.array([0]), x[:1].copy()), TypeError,
     "the gradient must be a whole array, not Rows; add them up in an array of zeros, with numpy.add.at()"),
    ([np.ones(3)], lambda x: [fm.Rows(np.array([0]), np.ones(1))], TypeError,
     "the gradient[0] must be a whole array, not Rows; add them up in an array of zeros, with numpy.add.at()"),
    ({"w": np.ones(3)}, lambda x: {}, ValueError,
     "the gradient must have the same structure as x0, not lack ['w']"),
    ({"w": np.ones(3)}, lambda x: {"w": x["w"].copy(), "b": np.ones(1)}, ValueError,
     "the gradient must have the same structure as x0, not have ['b']"),
    ({"w": np.ones(3)}, lambda x: None, ValueError,
     "the gradient must have the same structure as x0, not lack ['w']"),
    ({"w": np.ones(3)}, lambda x: {"w": x["w"] + 0j}, TypeError,
     "the gradient['w'] must be of real floats, as x0['w'] is, not complex128"),
    ({"w": np.ones(3)}, lambda x: {"w": np.ones(3, int)}, TypeError,
     "the gradient['w'] must be of real floats, as x0['w'] is, not int64"),
    ({"w": np.ones(3, complex)}, lambda x: {"w": x["w"].real.copy()}, TypeError,
     "the gradient['w'] must be complex, as x0['w'] is, not float64"),
    ({"w": np.ones(())}, lambda x: {"w": 1.0}, TypeError,
     "the gradient['w'] must be an array, as x0['w'] is, not float"),
    ({"w": np.ones(3)}, lambda x: {"w": np.ones((3, 1))}, ValueError,
     "the gradient['w'] must have the shape of x0['w'], (3,), not (3, 1)"),
]  # fmt: skip


@pytest.mark.parametrize(
    "more", [{}, {"tol": 10.0}, {"prox": lambda p: None}, {"bounds": (None, 3)}, {"noisy": True}]
)
@pytest.mark.parametrize(("start", "gradient", "error", "message"), NOT_LIKE)
def test_gradients_that_are_not_like_x0(
    start: Any, gradient: Any, error: Any, message: str, more: Any
) -> None:
    """They are refused in the same words wherever they come, also where tol is met."""
    if "bounds" in more and any(x.dtype.kind == "c" for x in leaves(start)):
        more = {}  # these have none
    with pytest.raises(error) as raised:
        fm.minimize(lambda x: (1.0, gradient(x)), start, **more)
    assert str(raised.value) == message


def test_an_array_of_a_container_may_have_no_gradient() -> None:
    result = fm.minimize(lambda p: (float(p[0] @ p[0]), [2 * p[0], None]), [np.ones(2), np.ones(3)])
    assert result.success, result
    np.testing.assert_array_equal(result.x[1], 1)


def test_a_gradient_of_a_container_is_checked_by_step() -> None:
    with pytest.raises(TypeError, match="float32"):
        fm.minimize(lambda p: (1.0, {"w": np.ones(3)}), {"w": np.zeros(3, np.float32)})


# ---- SciPy ----


def scipy_minimize(*arguments: Any, **keywords: Any) -> Any:
    return pytest.importorskip("scipy.optimize").minimize(*arguments, method=fm.minimize, **keywords)


def test_scipy_method() -> None:
    """After TestOptimizeSimple.test_custom."""
    start = [1.35, 0.9, 0.8, 1.1, 1.2]
    for point, keywords in ((start, {"jac": rosenbrock_gradient}), (start[:2], {})):
        result = scipy_minimize(rosenbrock, point, **keywords)
        assert result.success
        np.testing.assert_allclose(result.x, 1, atol=1e-4)
    both = scipy_minimize(lambda x: (rosenbrock(x), rosenbrock_gradient(x)), start, jac=True)
    np.testing.assert_array_equal(both.x, scipy_minimize(rosenbrock, start, jac=rosenbrock_gradient).x)
    np.testing.assert_array_equal(both.x, fm.minimize(rosenbrock, start, jac=rosenbrock_gradient).x)


def test_scipy_hands_all_keywords_over() -> None:
    """After TestOptimizeSimple.test_gh10771: nothing is standardised on the way."""
    optimize = pytest.importorskip("scipy.optimize")
    for bounds in ([(-2, 0.5), (0, 3)], optimize.Bounds([-2, 0], [0.5, 3]), optimize.Bounds(-2, 0.5)):
        result = scipy_minimize(rosenbrock, [0, 0], jac=rosenbrock_gradient, bounds=bounds, tol=1e-7)
        np.testing.assert_allclose(result.x, [0.5, 0.25], atol=1e-6)
    with pytest.raises(ValueError, match="constraints must be"):
        scipy_minimize(rosenbrock, [0, 0], jac=rosenbrock_gradient, constraints="constraints")
    with pytest.raises(ValueError, match="hess must be None"):
        scipy_minimize(rosenbrock, [0, 0], jac=rosenbrock_gradient, hess=rosenbrock)


def test_scipy_tol_and_options() -> None:
    """After TestOptimizeSimple.test_minimize_tol_parameter."""
    loose, tight = (scipy_minimize(quadratic, np.zeros(3), jac=True, tol=tol) for tol in (0.1, 1e-8))
    assert loose.nit < tight.nit
    result = scipy_minimize(
        quadratic, np.zeros(3), jac=True, options={"maxiter": 3, "rule": fm.adam, "lr": 0.1}
    )
    assert result.nit == 3


@pytest.mark.parametrize("kind", ["function", "object", "x"])
def test_scipy_stop_iteration(kind: str) -> None:
    """After TestOptimizeSimple.test_callback_stopiteration: it ends as if maxiter had been reached."""
    stopped = False
    count = 0

    def fun(x: Any) -> float:
        assert not stopped
        return rosenbrock(x)

    def one_more() -> None:
        nonlocal count, stopped
        count += 1
        if count == 5:
            stopped = True
            raise StopIteration

    def function(*, intermediate_result: Any) -> None:
        assert intermediate_result.fun == rosenbrock(intermediate_result.x)
        one_more()

    class Callback:
        def __call__(self, intermediate_result: Any) -> None:
            assert intermediate_result.fun == rosenbrock(intermediate_result.x)
            one_more()

    callback = {"function": function, "object": Callback(), "x": lambda xk, *args: one_more()}[kind]
    result = scipy_minimize(fun, [1.1] * 5, jac=rosenbrock_gradient, callback=callback)
    limited = scipy_minimize(rosenbrock, [1.1] * 5, jac=rosenbrock_gradient, options={"maxiter": 5})
    assert result.message.startswith("`callback` raised `StopIteration`")
    assert result.status == 99
    assert result.nit == limited.nit == 5
    assert result.fun == limited.fun
    np.testing.assert_array_equal(result.x, limited.x)


def test_scipy_fixed_variables() -> None:
    """After test_equal_bounds: where lower is upper, fun sees that alone."""
    low, high = np.array([0, 2, -1, -1.0]), np.array([3, 2, 2, -1.0])

    def fun(x: Any) -> Any:
        assert (x[[1, 3]] == [2, -1]).all()
        return rosenbrock(x), rosenbrock_gradient(x)

    result = scipy_minimize(fun, [1, 2, 0.5, -1], jac=True, bounds=list(zip(low, high, strict=True)))
    optimize = pytest.importorskip("scipy.optimize")
    best = optimize.minimize(
        rosenbrock, [1, 2, 0.5, -1], jac=rosenbrock_gradient, bounds=optimize.Bounds(low, high)
    )
    assert result.success
    np.testing.assert_allclose(result.x, best.x, rtol=1e-3)


def test_scipy_takes_it_as_a_local_minimizer() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    found = optimize.basinhopping(
        lambda x: (float(np.sum(x**2 + 3 * np.cos(3 * x))), 2 * x - 9 * np.sin(3 * x)), [3.0], niter=5, rng=0,
        minimizer_kwargs={"method": fm.minimize, "jac": True},
    )  # fmt: skip
    assert abs(found.x[0]) == pytest.approx(0.9, abs=0.2)
    assert found.success
