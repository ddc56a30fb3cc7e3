"""accelerated: sequences, restart, the soft threshold and the box; the user's own proximal map; and bounds for all rules."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import pickle
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_momentum as fm
from fast_momentum import _containers, _core, reference
from helpers import (
    DTYPES,
    HALVES,
    ISAS,
    KINDS,
    LAYOUTS,
    Array,
    assert_bits,
    copied,
    isa_in_use,
    leaves,
    make,
    option_id,
    random_like,
    snapshot,
    storable,
    threads_in_use,
)

if TYPE_CHECKING:
    from collections.abc import Callable

SEQUENCES: list[Any] = ["fista", "nesterov", 0.0, 0.9]


def model(rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Any]:
    return {"w": random_like((7, 80), dtype, rng), "b": [random_like((), dtype, rng), random_like((1300,), dtype, rng)]}  # fmt: skip


# ---- sequences and restart ----


@pytest.mark.parametrize("dtype", [*DTYPES, *HALVES], ids=str)
@pytest.mark.parametrize("restart", [None, "gradient"])
@pytest.mark.parametrize("sequence", SEQUENCES)
def test_equals_the_reference(sequence: Any, restart: Any, dtype: Any, rng: np.random.Generator) -> None:
    """Also with arrays that have no gradient in some steps, which are at another place of the sequence."""
    params = model(rng, dtype)
    expected = copied(params)
    options: dict[str, Any] = {"lr": 0.3, "sequence": sequence, "restart": restart, "l1": 0.01, "upper": 1.5}
    state, other = fm.accelerated(params, **options), reference.accelerated(expected, **options)
    restarts = 0
    for t in range(30):
        # Of a quadratic with curvatures from 0.5 to 3, so that there are restarts.
        grads = _containers.mapped(
            lambda p: (np.linspace(0.5, 3, p.size).reshape(p.shape) * p).astype(p.dtype), params
        )
        if t in (3, 4):
            grads["b"][1] = None
        before = dict(other.histories)
        fm.step(params, grads, state)
        reference.step(expected, grads, other)
        restarts += set(other.histories.values()) == {1.0} and before != other.histories
        assert_bits(params, expected)
        assert_bits(state.iterate, other.iterate)
        assert state.state_dict()["sequence_positions"] == other.state_dict()["sequence_positions"]
    assert (restarts > 0) == (restart is not None and sequence in ("fista", "nesterov"))


def test_restarts_are_the_same_for_any_number_of_threads_and_instruction_set(
    rng: np.random.Generator,
) -> None:
    params = [random_like((n,), np.float32, rng) for n in (70_000, 5_000, 1)]
    found = []
    for isa in ISAS:
        for threads in (1, 2, 3):
            mine = copied(params)
            state = fm.accelerated(mine, lr=0.4, restart="gradient")
            with isa_in_use(isa), threads_in_use(threads):
                for _ in range(15):
                    fm.step(mine, [np.linspace(0.1, 2, p.size, dtype=p.dtype) * p for p in mine], state)
            found.append([mine, state.iterate, state.state_dict()["sequence_positions"]["[0]"]])
    for other in found[1:]:
        assert_bits(other[:2], found[0][:2])
        assert other[2] == found[0][2]


def test_sequences_are_those_of_the_papers() -> None:
    """A gradient that makes the next iterate one more each time shows b."""
    for sequence, expected in [
        ("fista", [0.0, 0.2817535, 0.4340428]),
        ("nesterov", [0.0, 0.25, 0.4]),
        (0.3, [0.3, 0.3, 0.3]),
    ]:
        y = np.zeros(1)
        state = fm.accelerated(y, lr=1.0, sequence=sequence)
        for k, b in enumerate(expected):
            fm.step(y, y - (k + 1), state)
            assert state.iterate == k + 1
            assert y - state.iterate == pytest.approx(b, rel=1e-6)


def test_reset_begins_at_the_parameters(rng: np.random.Generator) -> None:
    y = rng.normal(size=5)
    state = fm.accelerated(y, lr=0.1, sequence=0.5)
    fm.step(y, np.ones(5), state)
    iterate = state.iterate.copy()
    state.reset()
    assert_bits(state.iterate, iterate)
    y[:] = 3
    fm.step(y, np.ones(5), state)
    assert (state.iterate == 2.9).all()
    np.testing.assert_allclose(y, 2.9 + 0.5 * (2.9 - 3))


def test_converges_as_proved() -> None:
    """f(x_k) - f* is at most 2 |x_0 - x*|^2/(lr (k+1)^2) on a convex function that is not strongly convex [Beck]_."""
    curvature = 1.0 / np.arange(1, 401) ** 2
    for sequence in ("fista", "nesterov"):
        y = np.ones(400)
        state = fm.accelerated(y, lr=1.0, sequence=sequence)
        for k in range(1, 300):
            fm.step(y, curvature * y, state)
            value = 0.5 * (curvature * state.iterate**2).sum()
            assert value <= 2 * 400 / (k + 1) ** 2 * 1.01


# ---- bounds, for all rules ----


@pytest.mark.parametrize("more", [{}, {"compensated": True}, {"average_decay": 0.5}, {"velocity_dtype": "bfloat16"}, {"clip_norm": 1.0}], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", [{}, {"form": "ema", "nesterov": True}, *KINDS], ids=option_id)
def test_bounds(kind: dict[str, Any], more: dict[str, Any], rng: np.random.Generator) -> None:
    for dtype in [np.dtype("float32"), *HALVES, *([] if "velocity_dtype" in more else [np.dtype("float64")])]:
        if dtype in HALVES and "compensated" in more and "average_decay" in more:
            continue
        params = model(rng, dtype)
        params["b"][1] = LAYOUTS["every second"](random_like((3, 4, 50), dtype, rng))
        expected = copied(params)
        options = storable(
            {"lr": 0.1, "lower": {"w": -0.5, "b": [None, -0.75]}, "upper": 0.3, **kind, **more}
        )
        state, other = make(fm, params, **options), make(reference, expected, **options)
        for _ in range(3):
            grads = _containers.mapped(lambda p: random_like(p.shape, p.dtype, rng), params)
            fm.step(params, grads, state)
            reference.step(expected, grads, other)
            assert_bits(params, expected)
        held = state.iterate if state.rule == "accelerated" else params
        for array, (low, high) in zip(leaves(held), [(-0.5, 0.3), (-np.inf, 0.3), (-0.75, 0.3)], strict=True):
            assert (array >= array.dtype.type(low)).all()
            assert (array <= array.dtype.type(high)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bounds_with_threads_and_layouts(layout: str, rng: np.random.Generator) -> None:
    values, grad = random_like((40, 50, 60), np.float32, rng), random_like((40, 50, 60), np.float32, rng)
    found = []
    for threads in (1, 2):
        w = LAYOUTS[layout](values)
        with threads_in_use(threads):
            fm.step(w, grad, fm.init(w, lr=0.5, lower=-1.0, upper=1.0))
        found.append(w)
    assert_bits(found[0], found[1])
    assert_bits(found[0], np.clip(values - np.float32(0.5) * grad, np.float32(-1), np.float32(1)))


def test_nan_and_signed_zero_stay() -> None:
    w = np.array([np.nan, -0.0, 0.0, -np.inf, np.inf, -3.0])
    fm.step(w, np.zeros(6), fm.init(w, lr=0.1, lower=0.0, upper=2.0))
    assert_bits(w, np.array([np.nan, -0.0, 0.0, 0.0, 2.0, 0.0]))
    y = np.array([np.nan, -0.0, 0.0, -0.5, 0.5])
    state = fm.accelerated(y, lr=1.0, l1=1.0)
    fm.step(y, np.zeros(5), state)
    assert_bits(state.iterate, np.array([np.nan, -0.0, 0.0, -0.0, 0.0]))


def test_bounds_can_be_set_and_are_read_back() -> None:
    params = {"w": np.ones(2), "b": np.ones(1)}
    state = fm.init(params, lr=0.1, upper={"w": 1, "b": None})
    assert state.lower is None
    assert dict(state.upper) == {"w": 1.0, "b": None}
    state.lower = -math.inf
    assert state.lower == -math.inf
    state.upper = 0.5
    fm.step(params, {"w": np.zeros(2), "b": None}, state)
    assert_bits(params, {"w": np.full(2, 0.5), "b": np.ones(1)})
    for other in (copy.copy(state), pickle.loads(pickle.dumps(state))):
        assert (other.lower, other.upper) == (-math.inf, 0.5)
    assert "upper=0.5" in repr(state)
    assert "lower=-inf" in repr(state)


# fmt: off
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"lower": 1.0, "upper": 0.5}, ValueError, "lower must be at most upper, 0.5 for params['c'], not 1.0"),
    ({"lower": {"c": None, "w": 2.0}, "upper": {"c": 0.0, "w": 1.0}}, ValueError, "lower must be at most upper, 1.0 for params['w'], not 2.0"),
    ({"lower": math.nan}, ValueError, "lower must be a number below inf, or None for no bound, not nan"),
    ({"lower": math.inf}, ValueError, "lower must be a number below inf, or None for no bound, not inf"),
    ({"upper": -math.inf}, ValueError, "upper must be a number above -inf, or None for no bound, not -inf"),
    ({"upper": "1"}, TypeError, "upper must be a real number, not str"),
    ({"upper": 1j}, TypeError, "upper must be a real number, not complex"),
    ({"upper": {"c": 1}}, ValueError, "upper must have the same keys as in params, not lack 'w'"),
    ({"upper": np.ones(2)}, TypeError, "upper must be a real number, not numpy.ndarray of shape (2,); for a number per array, pass a list or dict like params"),
    ({"lower": 1e300}, ValueError, "lower must stay finite when rounded to float32, the dtype of params['w'], not be 1e+300; use a float64 array or another value"),
]
OF_ACCELERATED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"sequence": "fist"}, ValueError, "sequence must be one of 'fista', 'nesterov', not 'fist'"),
    ({"sequence": 1.0}, ValueError, "sequence must be in [0, 1), not 1.0"),
    ({"sequence": None}, TypeError, "sequence must be a real number, not None"),
    ({"restart": "speed"}, ValueError, "restart must be one of 'gradient', not 'speed'"),
    ({"restart": True}, TypeError, "restart must be a string, not bool"),
    ({"l1": -1.0}, ValueError, "l1 must be finite and >= 0, not -1.0"),
    ({"l1": None}, TypeError, "l1 must be a real number, not None"),
    ({"l1": 1e-30, "lr": 1e-30}, ValueError, "lr * l1 must stay above 0 when rounded to float32, the dtype of params['w'], not be 1e-30 * 1e-30; use a float64 array or other values"),
]
# fmt: on


@pytest.mark.parametrize("maker", [fm.init, fm.adam, fm.accelerated])
@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=range(len(BAD)))
def test_bad_bounds(options: dict[str, Any], error: type[Exception], message: str, maker: Any) -> None:
    with pytest.raises(error) as raised:
        maker({"c": np.ones(2), "w": np.ones(2, np.float32)}, lr=0.1, **options)
    assert str(raised.value) == message


@pytest.mark.parametrize(("options", "error", "message"), OF_ACCELERATED, ids=range(len(OF_ACCELERATED)))
def test_bad_settings(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        fm.accelerated({"c": np.ones(2), "w": np.ones(2, np.float32)}, **{"lr": 0.1, **options})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("name", "value", "none"), [("lower", 0.0, "None"), ("upper", 1.0, "None"), ("l1", 0.5, "0")]
)
def test_complex_arrays_have_no_order(name: str, value: float, none: str) -> None:
    params = {"c": np.ones(2, complex), "w": np.ones(2)}
    message = f"{name} must be {none} where an array is complex128, as params['c'] is, not {value}; complex numbers have no order"
    with pytest.raises(ValueError, match=re.escape(message)):
        fm.accelerated(params, lr=0.1, **{name: value})
    state = fm.accelerated(params, lr=0.1, **{name: {"w": value, "c": None if none == "None" else 0}})
    fm.step(params, copied(params), state)
    with pytest.raises(ValueError, match=re.escape(message)):
        setattr(state, name, value)


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_a_bound_that_16_bits_cannot_hold_is_refused(half: Any) -> None:
    most = float(np.finfo(half).max) if half == np.float16 else 3.39e38
    params = [np.ones(2, np.float32), np.ones(2, half)]
    fm.init(params, lr=0.1, lower=-most, upper=most)
    message = rf"^lower must stay finite when rounded to {half.name}, the dtype of params\[1\], not be -?{re.escape(repr(most * 1.003))}; "
    with pytest.raises(ValueError, match=message):
        fm.init(params, lr=0.1, lower=-most * 1.003)


@pytest.mark.parametrize("dtype", [np.dtype("float32"), *HALVES], ids=str)
def test_what_rounding_took_is_forgotten_at_a_bound(dtype: Any) -> None:
    """Else the next step would take the parameter off the bound, or further than its gradient."""
    w = np.full(4, 100, dtype)
    expected = w.copy()
    options: dict[str, Any] = {"lr": 1.0, "momentum": 0.0, "lower": 0.0, "upper": 1.0, "compensated": True}
    state, other = fm.init(w, **options), reference.init(expected, **options)
    for grad in (np.full(4, 3.3, dtype), np.array([1e-3, 0, 0.3, -0.3], dtype)):
        fm.step(w, grad, state)
        reference.step(expected, grad, other)
        assert_bits(w, expected)
        assert_bits(state.state_dict()["compensation"], other.state_dict()["compensation"])
        if grad[0] > 1:
            assert not state.state_dict()["compensation"][""].any()
    state.lower = state.upper = None
    before = w.copy()
    fm.step(w[:4], np.zeros(4, dtype), state)
    np.testing.assert_allclose(w.astype(float), before.astype(float), rtol=1e-2)


def test_what_was_set_is_checked_at_the_next_step() -> None:
    w = np.ones(2)
    state = fm.init(w, lr=0.1, upper=1.0)
    state.lower = 2.0
    before = snapshot(state, w)
    with pytest.raises(ValueError, match=r"^lower must be at most upper, 1\.0 for params, not 2\.0$"):
        fm.step(w, np.ones(2), state)
    assert snapshot(state, w) == before


# ---- the user's own proximal map ----


def soft(threshold: float) -> Callable[[Any], None]:
    def prox(candidate: Any) -> None:
        for array in leaves(candidate):
            if array is not None:
                array[...] = np.copysign(np.maximum(np.abs(array) - array.dtype.type(threshold), 0), array)

    return prox


@pytest.mark.parametrize("restart", [None, "gradient"])
@pytest.mark.parametrize("dtype", [*DTYPES, *HALVES], ids=str)
def test_a_map_that_is_ours_too_gives_the_same_bits(
    dtype: Any, restart: Any, rng: np.random.Generator
) -> None:
    params = model(rng, dtype)
    params["b"][1] = LAYOUTS["permuted"](random_like((3, 4, 50), dtype, rng))
    theirs, expected = copied(params), copied(params)
    ours = fm.accelerated(params, lr=0.3, l1=0.05, restart=restart)
    state, other = (
        p.accelerated(x, lr=0.3, restart=restart) for p, x in ((fm, theirs), (reference, expected))
    )
    for t in range(8):
        grads = _containers.mapped(
            lambda p: (np.linspace(0.1, 2, p.size).reshape(p.shape) * p).astype(p.dtype), params
        )
        if t == 2:
            grads["b"][0] = None
        fm.step(params, grads, ours)
        fm.step(theirs, grads, state, prox=soft(0.3 * 0.05))
        reference.step(expected, grads, other, prox=soft(0.3 * 0.05))
        assert_bits(theirs, params)
        assert_bits(expected, params)
        assert_bits(state.iterate, ours.iterate)
        assert_bits(state.iterate, other.iterate)


def test_complex_candidates(rng: np.random.Generator) -> None:
    values = rng.normal(size=(6, 5)) + 1j * rng.normal(size=(6, 5))

    def prox(candidate: Any) -> None:
        assert candidate.dtype == complex
        assert candidate.shape == (6, 5)
        candidate /= np.maximum(np.abs(candidate), 1)

    for y in (values.copy(), values.copy("F"), values.repeat(2, axis=1)[:, ::2]):
        state, expected = fm.accelerated(y, lr=0.5), y.copy()
        other = reference.accelerated(expected, lr=0.5)
        for _ in range(4):
            fm.step(y, y - 2j, state, prox=prox)
            reference.step(expected, expected - 2j, other, prox=prox)
            np.testing.assert_array_equal(y, expected)
        assert (np.abs(state.iterate) <= 1 + 1e-15).all()


class OddError(Exception):
    pass


def raises(_candidate: Any) -> None:
    raise OddError


def replaces(candidate: Any) -> None:
    candidate["w"] = np.zeros_like(candidate["w"])


def removes(candidate: Any) -> None:
    del candidate["b"]


def reshapes(candidate: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to set it is deprecated
        candidate["w"].shape = (80, 7)


def resizes(candidate: Any) -> None:
    candidate["w"].resize((3,), refcheck=False)


def casts(candidate: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        candidate["w"].dtype = np.int64


def is_not_finite(candidate: Any) -> None:
    candidate["b"][1][7] = np.nan


# fmt: off
BROKEN: list[tuple[Any, type[Exception], str]] = [
    (raises, OddError, ""),
    (replaces, ValueError, "candidate['w'] must be the array that prox was handed, changed in place, not another object; let it do candidate['w'][...] = ..."),
    (removes, ValueError, "candidate must have the same keys as in params, not lack 'b'"),
    (reshapes, ValueError, "candidate['w'] must keep its shape, dtype and memory in prox, not have others; copy the values with candidate['w'][...] = ..."),
    (resizes, ValueError, "candidate['w'] must keep its shape, dtype and memory in prox, not have others; copy the values with candidate['w'][...] = ..."),
    (casts, ValueError, "candidate['w'] must keep its shape, dtype and memory in prox, not have others; copy the values with candidate['w'][...] = ..."),
    (lambda candidate: candidate, TypeError, "prox must change its argument in place and return None, not return what is dict; let it end with candidate[...] = ..."),
    (is_not_finite, fm.NonFiniteGradientError, "candidate['b'][1] must be finite, not nan at (7,); 1 nan and 0 inf in 1 of 3 arrays; lower lr or the loss scale, or set nonfinite"),
    (1, TypeError, "prox must be a function or None, not int"),
]
# fmt: on


@pytest.mark.parametrize(("prox", "error", "message"), BROKEN, ids=range(len(BROKEN)))
def test_what_it_breaks_loses_nothing(
    prox: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    params = model(rng)
    state = fm.accelerated(params, lr=0.1, nonfinite="raise", clip_norm=100.0, restart="gradient")
    fm.step(params, copied(params), state, prox=soft(0.1))
    grads = copied(params)
    before = snapshot(state, params, grads)
    with pytest.raises(error) as raised:
        fm.step(params, grads, state, prox=prox)
    assert str(raised.value) == message
    assert snapshot(state, params, grads) == before
    fm.step(params, grads, state, prox=soft(0.1))


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_master_copies_are_what_they_were(nonfinite: str, half: Any) -> None:
    """They follow a parameter that was changed, in the step that is made, and not in one that is not."""
    params = {"w": np.ones(2, half), "b": [np.ones(1), np.ones(700, half)]}
    state = fm.accelerated(params, lr=1e-4, nonfinite=nonfinite, restart="gradient")
    for _ in range(3):
        fm.step(params, copied(params), state)
    params["w"][:] = 5
    params["b"][1][:] = 2
    before = state.state_dict()["master"]
    for prox in (raises, is_not_finite):
        with contextlib.suppress(OddError, fm.NonFiniteGradientError):
            fm.step(params, copied(params), state, prox=prox)
        assert_bits(state.state_dict()["master"], before)
    fm.step(params, copied(params), state)
    assert (state.state_dict()["master"]["['w']"] > 4).all()


def test_a_candidate_that_is_not_finite_is_skipped(rng: np.random.Generator) -> None:
    params = model(rng)
    state = fm.accelerated(params, lr=0.1, nonfinite="skip")
    before = copied(params)
    fm.step(params, copied(params), state, prox=is_not_finite)
    assert_bits(params, before)
    assert (state.step_count, state.skipped_steps) == (0, 1)
    state.nonfinite = "propagate"
    fm.step(params, copied(params), state, prox=is_not_finite)
    assert np.isnan(state.iterate["b"][1][7])


def test_where_it_is_refused() -> None:
    w = np.ones(2)
    for state, message in [
        (fm.init(w, lr=0.1), "prox must be None in the rule momentum, not <built-in function print>; only accelerated has it"),
        (fm.accelerated(w, lr=0.1, l1=0.5), "prox must be None where l1 is set, not <built-in function print>; let it do what l1 does"),
        (fm.accelerated(w, lr=0.1, lower=0.0), "prox must be None where lower is set, not <built-in function print>; let it do what lower does"),
    ]:  # fmt: skip
        before = snapshot(state, w)
        with pytest.raises(ValueError, match=re.escape(message)):
            fm.step(w, np.ones(2), state, prox=print)
        assert snapshot(state, w) == before
        fm.step(w, np.ones(2), state, prox=None)
    state = fm.accelerated([w], lr=0.1, l1=[0.0], lower=[None])  # which are none
    fm.step([w], [np.ones(2)], state, prox=soft(0.1))


def changes(params: Any, grads: Any) -> dict[str, Callable[[], object]]:
    """What a map may do to what is not its own."""
    return {
        "params are replaced": lambda: params.__setitem__("w", np.ones((7, 80), np.float32)),
        "params are resized": lambda: params["w"].resize((3,), refcheck=False),
        "params are read-only": lambda: params["w"].setflags(write=False),
        "a gradient is gone": lambda: grads["b"].__setitem__(1, None),
        "a gradient is there": lambda: grads["b"].__setitem__(0, np.ones(())),
        "grads are cleared": grads.clear,
        "a key is added": lambda: params.__setitem__("x", np.ones(1)),
    }


@pytest.mark.parametrize("what", changes({}, {"b": []}))
def test_what_else_it_changes_is_seen(what: str, rng: np.random.Generator) -> None:
    params, grads = model(rng), model(rng)
    grads["b"][0] = None
    state = fm.accelerated(params, lr=0.1)
    before = snapshot(state)
    with pytest.raises((TypeError, ValueError), match=" must "):
        fm.step(params, grads, state, prox=lambda _: changes(params, grads)[what]())
    assert snapshot(state) == before


def test_what_it_calls() -> None:
    """The state is in use; settings count from the next step; garbage is collected."""
    y = np.ones(3)
    state = fm.accelerated(y, lr=0.5, nonfinite="skip")

    def prox(candidate: Array) -> None:
        with pytest.raises(fm.ConcurrentStepError):
            fm.step(y, np.ones(3), state)
        state.lr = 0.25
        gc.collect()
        candidate[...] = 7

    fm.step(y, np.ones(3), state, prox=prox)
    assert (y == 7).all()
    assert state.lr == 0.25


def test_large_ones_without_the_gil(rng: np.random.Generator) -> None:
    y = random_like((300_000,), np.float32, rng)
    expected = y.copy()
    state, other = fm.accelerated(y, lr=0.1), reference.accelerated(expected, lr=0.1)
    with threads_in_use(2):
        for _ in range(3):
            fm.step(y, y.copy(), state, prox=soft(0.01))
            reference.step(expected, expected.copy(), other, prox=soft(0.01))
    assert_bits(y, expected)


@settings(max_examples=100)
@given(data=st.data())
def test_any_options(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dtype = data.draw(st.sampled_from([*DTYPES, *HALVES]))
    params = [random_like((n,), dtype, rng) for n in data.draw(st.lists(st.integers(0, 600), max_size=3))]
    expected = copied(params)
    options = {
        "lr": data.draw(st.sampled_from([0.0, 0.01, 0.5])),
        "sequence": data.draw(st.sampled_from(SEQUENCES)),
        "restart": data.draw(st.sampled_from([None, "gradient"])),
        "l1": data.draw(st.sampled_from([0.0, 0.1])),
        "lower": data.draw(st.sampled_from([None, -0.5, -math.inf])),
        "weight_decay": data.draw(st.sampled_from([0.0, 0.1])),
        "decoupled_weight_decay": data.draw(st.booleans()),
        "maximize": data.draw(st.booleans()),
        "clip_value": data.draw(st.sampled_from([None, 0.7])),
    }
    state, other = fm.accelerated(params, **options), reference.accelerated(expected, **options)
    for _ in range(4):
        grads = [None if rng.random() < 0.2 else random_like(p.shape, p.dtype, rng) for p in params]
        scale = float(rng.choice([1.0, 0.3]))
        fm.step(params, grads, state, grad_scale=scale)
        reference.step(expected, grads, other, grad_scale=scale)
        assert_bits(params, expected)
        assert_bits(state.iterate, other.iterate)
        state = pickle.loads(pickle.dumps(state))


def test_lookahead_and_forms_are_refused() -> None:
    y = np.ones(2)
    state = fm.accelerated(y, lr=0.1)
    with pytest.raises(ValueError, match="which the rule accelerated has not"):
        fm.lookahead(y, state)
    assert "velocity" not in next(row["keeps"] for row in _core.rules if row["rule"] == "accelerated")


def test_it_has_no_average() -> None:
    w = np.ones(2)
    state = fm.accelerated(w, lr=0.1)
    fm.step(w, np.ones(2), state)
    with pytest.raises(ValueError, match="^state must have an average, which the rule accelerated has not$"):
        state.swap_average(w)
    saved = state.state_dict()
    saved["average"] = {"": np.ones(2)}
    with pytest.raises(
        ValueError,
        match=r"^state_dict\['average'\] must be empty in the rule accelerated, which has none, not hold",
    ):
        state.load_state_dict(saved)


def test_positions_of_a_sequence_that_no_steps_reach_are_refused() -> None:
    w = np.ones(2)
    state = fm.accelerated(w, lr=0.1)
    saved = state.state_dict()
    for position in (0.5, 2.0**63, 1e200, math.inf, math.nan):
        saved["sequence_positions"] = {"": position}
        with pytest.raises(ValueError, match=re.escape("must be in [1, 2**62], not ")):
            state.load_state_dict(saved)
    saved["sequence_positions"] = {"": 2.0**62}
    state.load_state_dict(saved)
    fm.step(w, np.ones(2), state)
    assert np.isfinite(w).all()
