"""options.cpp, and what state.cpp, step.cpp and checkpoint.cpp do about the options of a whole update: bad values,
skipped and refused steps, the average, and checkpoints."""

from __future__ import annotations

import decimal
import inspect
import io
import json
import math
import pickle
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _containers, reference
from helpers import (
    COPIES,
    FORMAT,
    HALVES,
    LAYOUTS,
    assert_bits,
    assert_states_agree,
    both_states,
    copied,
    edit,
    guarded,
    leaves,
    random_like,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

T, V = TypeError, ValueError


def model(rng: np.random.Generator, *, half: Any = np.float32, double: Any = np.float64) -> dict[str, Any]:
    return {
        "w": np.asfortranarray(random_like((4, 300), np.float32, rng)),
        "enc": [random_like((5,), double, rng), (random_like((), half, rng),)],
    }


# What a call needs to work, for every option at once; float64 has no narrow velocities.
ALL: dict[str, dict[str, Any]] = {
    "clipped": {"clip_norm": 1.0, "average_decay": 0.9, "nonfinite": "skip"},
    "compensated": {"clip_value": 0.5, "compensated": True, "nonfinite": "raise"},
    "int8": {"velocity_dtype": "int8", "average_decay": 0.5, "clip_norm": math.inf},
    "float16": {"velocity_dtype": "float16", "compensated": True, "average_decay": 0.9},
    "bfloat16": {"velocity_dtype": "bfloat16", "nonfinite": "skip"},
    "masters": {"average_decay": 0.9, "clip_norm": 2.0},
    "compensated halves": {"compensated": True, "velocity_dtype": "int8"},
}


def kinds(name: str) -> dict[str, Any]:
    """Dtypes for `model` that go with these options."""
    found = {}
    if name in ("masters", "compensated halves"):
        found["half"] = np.float16
    if "velocity_dtype" in ALL[name]:
        found["double"] = np.float32
    return found


def stepped(
    name: str, rng: np.random.Generator, steps: int = 3, **options: Any
) -> tuple[dict[str, Any], fm.State, dict[str, Any]]:
    """Parameters, their state after some steps, the first of which skips an array, and dtypes for `model`."""
    dtypes = kinds(name)
    params = model(rng, **dtypes)
    state = fm.init(params, **{"lr": 0.1, **ALL[name], **options})
    for k in range(steps):
        grads = model(rng, **dtypes)
        if k == 0:
            grads["enc"][0] = None
        fm.step(params, grads, state)
    return params, state, dtypes


def refused(error: type[Exception], message: str) -> Any:
    return pytest.raises(error, match=f"^{re.escape(message)}$")


# ---- bad values ----

SMALL = "; use a float64 array or another value"
WORKED = "in which params['w'] is worked on"
NORM, VALUE = "be above 0, or None for no clipping", "be finite and above 0, or None for no clipping"
DECAY, SCALE = "be in [0, 1), or None for no average", "be finite and above 0"

# Option, value, class and message: refused by init(), when it is set, and when it is loaded.
NUMBERS: list[tuple[str, Any, type[Exception], str]] = [
    *[("clip_norm", x, V, f"clip_norm must {NORM}, not {float(x)!r}")
      for x in (0, -1, -0.0, math.nan, -math.inf, np.float32(-2), np.array(0))],
    *[("clip_value", x, V, f"clip_value must {VALUE}, not {float(x)!r}")
      for x in (0, -1, math.nan, math.inf, -math.inf, np.float64(0))],
    *[("average_decay", x, V, f"average_decay must {DECAY}, not {float(x)!r}")
      for x in (1, -0.1, 1.5, math.nan, math.inf, np.float32(1))],
    ("clip_value", 1e-46, V, f"clip_value must stay above 0 when rounded to float32, {WORKED}, not be 1e-46{SMALL}"),
    ("clip_value", 1e39, V, f"clip_value must stay finite when rounded to float32, {WORKED}, not be 1e+39{SMALL}"),
    ("average_decay", 1 - 1e-8, V,
     f"average_decay must stay below 1 when rounded to float32, {WORKED}, not be 0.99999999{SMALL}"),
    ("average_decay", 1e-60, V,
     f"average_decay must stay above 0 when rounded to float32, {WORKED}, not be 1e-60{SMALL}"),
]  # fmt: skip
KINDS_OF_NUMBERS: list[tuple[Any, str]] = [
    (True, "bool"), (np.True_, "numpy.bool"), ("0.1", "str"), (0.1 + 0j, "complex"), (b"1", "bytes"),
    (decimal.Decimal("0.1"), "decimal.Decimal"), ([0.1], "list"), ((0.1, 0.2), "tuple"), ({"w": 0.1}, "dict"),
    (np.array([0.1]), "numpy.ndarray of shape (1,)"), (np.array(1j), "numpy.ndarray of dtype complex128"),
    (np.timedelta64(1, "s"), "numpy.timedelta64"),
]  # fmt: skip
HUGE = "must be a number that a float can hold, not one so large"
for _name in ("clip_norm", "clip_value", "average_decay"):
    NUMBERS += [(_name, x, T, f"{_name} must be a real number, not {kind}") for x, kind in KINDS_OF_NUMBERS]
    NUMBERS += [(_name, 10**400, V, f"{_name} {HUGE}")]

CHOICES = "nonfinite must be one of 'propagate', 'raise', 'skip', not "
NUMBERS += [
    ("nonfinite", "ignore", V, CHOICES + "'ignore'"), ("nonfinite", "", V, CHOICES + "''"),
    ("nonfinite", "Skip", V, CHOICES + "'Skip'"), ("nonfinite", "\ud800", V, CHOICES + "'\\ud800'"),
    ("nonfinite", None, T, "nonfinite must be a string, not None"),
    ("nonfinite", True, T, "nonfinite must be a string, not bool"),
    ("nonfinite", b"skip", T, "nonfinite must be a string, not bytes"),
]  # fmt: skip


def table(rows: list[tuple[str, Any, type[Exception], str]]) -> Any:
    return pytest.mark.parametrize(
        ("name", "value", "error", "message"), rows, ids=[f"{row[0]} {row[1]!r}" for row in rows]
    )


@table(NUMBERS)
def test_options_are_refused(
    name: str, value: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    params = model(rng)
    with refused(error, message):
        fm.init(params, lr=0.1, **{name: value})
    state = fm.init(params, lr=0.1)
    fm.step(params, model(rng), state)
    before = snapshot(state, params)
    with refused(error, message):
        setattr(state, name, value)
    bad = state.state_dict()
    bad["hyperparameters"][name] = value
    with refused(error, message):
        state.load_state_dict(bad)
    assert snapshot(state, params) == before


ALLOWED = "velocity_dtype must be None or one of 'float32', 'float16', 'bfloat16', 'int8', not "
FIXED: list[tuple[str, Any, type[Exception], str]] = [
    *[("velocity_dtype", x, V, ALLOWED + repr(x)) for x in ("float8", "", "float64", "uint8", "\ud800", 8, True)],
    ("velocity_dtype", np.dtype("float64"), V, ALLOWED + "dtype('float64')"),
    ("velocity_dtype", np.int16, V, ALLOWED + "<class 'numpy.int16'>"),
    ("velocity_dtype", float, V, ALLOWED + "<class 'float'>"),
    *[("compensated", x, T, f"compensated must be True or False, not {kind}")
      for x, kind in [(1, "int"), (None, "None"), ("yes", "str"), (np.int8(1), "numpy.int8"), (1.0, "float")]],
]  # fmt: skip


@table(FIXED)
def test_options_of_init_are_refused(name: str, value: Any, error: type[Exception], message: str) -> None:
    with refused(error, message):
        fm.init(np.ones(3, np.float32), lr=0.1, **{name: value})


def test_options_that_do_not_go_together(half: Any) -> None:
    single, double = np.ones(3, np.float32), np.ones(3)
    both = "clip_norm must be None where clip_value is set, not 1.0; set one of them to None"
    with refused(V, both):
        fm.init(single, lr=0.1, clip_norm=1, clip_value=2)
    for given in ("int8", "float16", "bfloat16", "float32", np.int8, np.dtype("float16")):
        name = given if isinstance(given, str) else np.dtype(given).name
        message = (
            "velocity_dtype must be None where an array is float64, as params['b'][0] is, not "
            f"'{name}'; use float32 arrays"
        )
        with refused(V, message):
            fm.init({"a": single, "b": [double]}, lr=0.1, velocity_dtype=given)
    averaged = (
        "average_decay must be None for float16 or bfloat16 params with compensated=True, not 0.5; their master "
        "copies, with compensated=False, have an average"
    )
    with refused(V, averaged):
        fm.init([single, single.astype(half)], lr=0.1, compensated=True, average_decay=0.5)
    fm.init([single, double], lr=0.1, compensated=True, average_decay=0.5)

    # A value is checked when it is set, combinations at the next step.
    for params, options, name, message in [
        (single, {"clip_norm": 1.0}, "clip_value", both),
        (single, {"clip_value": 2.0}, "clip_norm", both),
        (single.astype(half), {"compensated": True}, "average_decay", averaged),
    ]:
        p, g = params.copy(), params.copy()
        state = fm.init(p, lr=0.1, **options)
        setattr(state, name, 0.5 if name == "average_decay" else 1.0)
        before = snapshot(state, p, g)
        with refused(V, message):
            fm.step(p, g, state, zero_grads=True)
        assert snapshot(state, p, g) == before
        setattr(state, name, None)
        fm.step(p, g, state)


def test_attributes(rng: np.random.Generator) -> None:
    state = fm.init(model(rng), lr=0.1)
    assert (state.clip_norm, state.clip_value, state.average_decay) == (None, None, None)
    assert (state.nonfinite, state.velocity_dtype, state.compensated) == ("propagate", None, False)
    assert (state.skipped_steps, state.grad_norm, state.average) == (0, None, None)
    for name in ("clip_norm", "clip_value", "average_decay"):
        for value in (
            (1, np.float32(0.5), np.array(0.25), None) if name != "average_decay" else (0, 0.5, None)
        ):
            setattr(state, name, value)
            found = getattr(state, name)
            assert found == value
            assert type(found) in (float, type(None))
    state.clip_norm = math.inf
    assert state.clip_norm == math.inf
    for choice in ("raise", "skip", "propagate"):
        state.nonfinite = choice
        assert state.nonfinite == choice
    for name in ("velocity_dtype", "compensated", "skipped_steps", "grad_norm", "average"):
        with pytest.raises(AttributeError):
            setattr(state, name, getattr(state, name))
    with pytest.raises(AttributeError):
        del state.clip_norm


@pytest.mark.parametrize(
    ("given", "name"),
    [(None, None), ("int8", "int8"), (np.int8, "int8"), (np.dtype(np.int8), "int8"), (np.float16, "float16"),
     (np.dtype("float16"), "float16"), ("bfloat16", "bfloat16"), ("float32", "float32"), (np.float32, "float32")],
    ids=repr,
)  # fmt: skip
def test_velocity_dtype_reads_back(given: Any, name: str | None) -> None:
    assert fm.init(np.ones(3, np.float32), lr=0.1, velocity_dtype=given).velocity_dtype == name


def test_velocity_dtype_may_be_a_half(half: Any) -> None:
    for given in (half, half.type, half.name):
        assert fm.init(np.ones(3, np.float32), lr=0.1, velocity_dtype=given).velocity_dtype == half.name


def test_signatures() -> None:
    assert inspect.signature(fm.init) == inspect.signature(reference.init).replace(
        parameters=[
            p.replace(annotation=inspect.Parameter.empty)
            for p in inspect.signature(reference.init).parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    expected = "(params, grads, state, *, grad_scale=1.0, zero_grads=False, prox=None)"
    assert str(inspect.signature(fm.step)) == expected
    assert issubclass(fm.NonFiniteGradientError, FloatingPointError)
    assert fm.NonFiniteGradientError.__module__ == "fast_momentum"


# ---- keywords of step() ----

CALLS: list[tuple[str, Any, type[Exception], str]] = [
    *[("grad_scale", x, V, f"grad_scale must {SCALE}, not {float(x)!r}")
      for x in (0, -1, math.nan, math.inf, -math.inf, np.float32(0))],
    ("grad_scale", 1e-46, V, f"grad_scale must stay above 0 when rounded to float32, {WORKED}, not be 1e-46{SMALL}"),
    ("grad_scale", 1e39, V, f"grad_scale must stay finite when rounded to float32, {WORKED}, not be 1e+39{SMALL}"),
    ("grad_scale", 10**400, V, f"grad_scale {HUGE}"),
    ("grad_scale", None, T, "grad_scale must be a real number, not None"),
    *[("grad_scale", x, T, f"grad_scale must be a real number, not {kind}") for x, kind in KINDS_OF_NUMBERS],
    *[("zero_grads", x, T, f"zero_grads must be True or False, not {kind}")
      for x, kind in [(1, "int"), (0, "int"), (None, "None"), ("yes", "str"), (np.int8(1), "numpy.int8")]],
]  # fmt: skip


@table(CALLS)
def test_keywords_of_step_are_refused(
    name: str, value: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    params, grads = model(rng), model(rng)
    state = fm.init(params, lr=0.1, clip_norm=1.0, average_decay=0.5)
    fm.step(params, grads, state)
    before = snapshot(state, params, grads)
    with refused(error, message):
        fm.step(params, grads, state, **{name: value})
    assert snapshot(state, params, grads) == before


def test_keywords_of_step(rng: np.random.Generator) -> None:
    params, grads = model(rng), model(rng)
    state = fm.init(params, lr=0.1)
    fm.step(params, grads, state, grad_scale=1, zero_grads=np.False_)
    fm.step(params, grads=grads, state=state, grad_scale=np.array(2.0), zero_grads=False)
    assert np.asarray(grads["w"]).all()
    fm.step(params, grads, state, zero_grads=np.True_)
    assert not any(g.any() for g in leaves(grads))
    before = snapshot(state, params)
    for arguments, keywords in [
        ((params, grads, state, 2.0), {}),
        ((params, grads, state), {"lr": 1}),
        ((params,), {"grad_scale": 1}),
    ]:
        with pytest.raises(
            T, match=r"^step\(\) must (be given grads and state|have at most 3 |not have the keyword lr; )"
        ):
            fm.step(*arguments, **keywords)
    assert snapshot(state, params) == before
    double = fm.init(np.ones(2), lr=0.1)
    fm.step(np.ones(2), np.ones(2), double, grad_scale=1e-300)  # fine in float64


# ---- gradients that are zeroed are written ----


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


def same_twice(grads: dict[str, Any]) -> None:
    base = np.ones(1205, np.float32)
    grads["w"], grads["enc"][1] = base[:1200].reshape(4, 300), (base[3:4].reshape(()),)


COPY = "; keep a copy in its place, made by .copy()"
ZEROED: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], Any], type[Exception], str]] = [
    ("read-only", lambda _, g: g.update(w=read_only(g["w"])), V, "grads['w'] must be writable, not read-only" + COPY),
    ("broadcast", lambda _, g: g.update(w=np.broadcast_to(np.float32(1), (4, 300))), V,
     "grads['w'] must be writable, not read-only" + COPY),
    ("own elements overlap", lambda _, g: g.update(w=np.lib.stride_tricks.as_strided(np.ones(400, np.float32), (4, 300), (4, 4))), V,
     "grads['w'] must have elements that share no memory, not overlapping ones" + COPY),
    ("a scalar", lambda _, g: g["enc"].__setitem__(1, (np.float32(1),)), T,
     "grads['enc'][1][0] must be a numpy.ndarray, not numpy.float32; it cannot be updated in place, use a 0-d array"),
    ("given twice", lambda _, g: same_twice(g), V,
     "grads['enc'][1][0] must share no memory with grads['w'], not overlap it; pass a copy of the gradient"),
    ("the param", lambda p, g: g.update(w=p["w"]), V,
     "grads['w'] must share no memory with params['w'], not begin at the same element; pass a copy of the gradient"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "error", "message"), [c[1:] for c in ZEROED], ids=[c[0] for c in ZEROED])
def test_gradients_to_zero_are_refused(
    spoil: Callable[[Any, Any], Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    params, grads = model(rng), model(rng)
    state = fm.init(params, lr=0.1)
    spoil(params, grads)
    before = snapshot(state, params, grads)
    with refused(error, message):
        fm.step(params, grads, state, zero_grads=True)
    assert snapshot(state, params, grads) == before


def test_gradients_that_are_not_zeroed_may_be_anything(rng: np.random.Generator) -> None:
    params, grads = model(rng), model(rng)
    same_twice(grads)
    grads["w"] = read_only(grads["w"])
    state = fm.init(params, lr=0.1, clip_norm=1.0, nonfinite="raise", average_decay=0.5)
    fm.step(params, grads, state, grad_scale=0.5)
    assert state.step_count == 1


# ---- dtypes ----


def test_dtypes_of_gradients(half: Any, rng: np.random.Generator) -> None:
    """16 bits go with params that are worked on in float32, and float64 with itself alone."""
    others = "float32, float16 or bfloat16"
    for params, grads, message in [
        (np.ones(3, half), np.ones(3), f"grads must have dtype {others}, not float64; pass a copy, made by .astype('float32'), which rounds"),
        (np.ones(3, half), np.ones(3, ">f2"), f"grads must have dtype {others}, not >f2; pass a copy, made by .astype('float32')"),
        (np.ones(3), np.ones(3, half), f"grads must have dtype float64, as params has, not {half.name}; pass a copy, made by .astype('float64')"),
        (np.ones(3, np.float32), np.ones(3, np.int8), "grads must have dtype float32, as params has, not int8; pass a copy, made by .astype('float32')"),
    ]:  # fmt: skip
        state = fm.init(params, lr=0.1)
        before = snapshot(state, params, grads)
        with refused(T, message):
            fm.step(params, grads, state)
        assert snapshot(state, params, grads) == before


def test_dtypes_of_params_stay(half: Any) -> None:
    state = fm.init([np.ones(3, half)], lr=0.1)
    for dtype in ("f4", "f8"):
        message = f"params[0] must have dtype {half.name}, as in init(), not {np.dtype(dtype)}; keep a copy in its place, made by .astype('{half.name}'), which rounds"
        with refused(T, message):
            fm.step([np.ones(3, dtype)], [np.ones(3, half)], state)
    with pytest.raises(T, match=rf"^params\[0\] must have dtype float32, as in init\(\), not {half.name}"):
        fm.step([np.ones(3, half)], [np.ones(3, half)], fm.init([np.ones(3, np.float32)], lr=0.1))


# ---- not finite ----

WAY_OUT = "; lower lr or the loss scale, or set nonfinite"
NONFINITE: list[tuple[str, list[tuple[str, Any, float]], dict[str, Any], str]] = [
    ("one nan", [("w", (3, 1), math.nan)], {}, "grads['w'] must be finite, not nan at (3, 1); 1 nan and 0 inf in 1 of 3 arrays"),
    ("several", [("w", (3, 1), math.nan), ("w", (3, 7), math.inf), ("enc", 2, math.nan)], {},
     "grads['w'] must be finite, not nan at (3, 1); 2 nan and 1 inf in 2 of 3 arrays"),
    ("first in C order", [("w", (0, 299), -math.inf), ("w", (1, 0), math.nan)], {},
     "grads['w'] must be finite, not -inf at (0, 299); 1 nan and 1 inf in 1 of 3 arrays"),
    ("0-d", [("b", (), math.inf)], {}, "grads['enc'][1][0] must be finite, not inf; 0 nan and 1 inf in 1 of 3 arrays"),
    ("scaled", [("w", (2, 2), 3e38)], {"grad_scale": 2.0},
     "grads['w'] must be finite, not inf at (2, 2); 0 nan and 1 inf in 1 of 3 arrays, after multiplication with grad_scale 2.0"),
]  # fmt: skip


def spoilt(grads: dict[str, Any], places: list[tuple[str, Any, float]]) -> dict[str, Any]:
    targets = {"w": grads["w"], "enc": grads["enc"][0], "b": grads["enc"][1][0]}
    for key, place, value in places:
        targets[key][place] = value
    return grads


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0}, {"clip_value": 1.0}], ids=repr)
@pytest.mark.parametrize(
    ("places", "call", "message"), [c[1:] for c in NONFINITE], ids=[c[0] for c in NONFINITE]
)
def test_nonfinite_raises(
    places: Any, call: dict[str, Any], message: str, clip: dict[str, Any], isa: str, rng: np.random.Generator
) -> None:
    """And changes nothing at all: neither the gradients nor the last norm."""
    params, options = model(rng), {"nonfinite": "raise", "average_decay": 0.9, **clip}
    state = fm.init(params, lr=0.1, **options)
    fm.step(params, model(rng), state)
    grads = spoilt(model(rng), places)
    before = snapshot(state, params, grads)
    with pytest.raises(fm.NonFiniteGradientError) as raised:
        fm.step(params, grads, state, zero_grads=True, **call)
    assert str(raised.value) == message + WAY_OUT
    assert snapshot(state, params, grads) == before
    fm.step(params, model(rng), state)
    assert (state.step_count, state.skipped_steps) == (2, 0)


def test_nonfinite_counts_arrays_with_a_gradient() -> None:
    params = [np.ones(2), np.ones(3), np.ones(4)]
    state = fm.init(params, lr=0.1, nonfinite="raise")
    with pytest.raises(
        fm.NonFiniteGradientError,
        match=r"^grads\[1\] must be finite, not nan at \(2,\); 1 nan and 0 inf in 1 of 2 arrays",
    ):
        fm.step(params, [None, np.array([1, 2, math.nan]), np.ones(4)], state)


def test_nonfinite_raises_for_halves(half: Any) -> None:
    """What float16 holds need not fit after scaling, and what is scaled in float32 may."""
    params = np.ones(40, np.float32)
    state = fm.init(params, lr=0.1, nonfinite="raise")
    grads = np.full(40, 60000, half)
    fm.step(params, grads, state, grad_scale=1000.0)
    grads[33] = math.nan
    with pytest.raises(fm.NonFiniteGradientError, match=r"^grads must be finite, not nan at \(33,\)"):
        fm.step(params, grads, state)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("places", "call"), [c[1:3] for c in NONFINITE], ids=[c[0] for c in NONFINITE])
def test_nonfinite_skips(
    places: Any, call: dict[str, Any], name: str, isa: str, rng: np.random.Generator
) -> None:
    params, state, dtypes = stepped(name, rng, nonfinite="skip")
    before, grads = snapshot(None, params), spoilt(model(rng, **dtypes), places)
    kept = state.state_dict()
    with np.errstate(over="ignore"):
        norm = reference.global_norm(
            _containers.mapped(lambda g: g.dtype.type(call.get("grad_scale", 1)) * g, grads)
        )
    g_before = copied(grads)
    fm.step(params, grads, state, **call)
    assert_bits(grads, g_before)
    assert state.skipped_steps == 1
    assert repr(state.grad_norm) == repr(norm if state.clip_norm else None)
    fm.step(params, grads, state, zero_grads=True, **call)
    assert_bits(grads, _containers.mapped(np.zeros_like, grads))
    assert snapshot(None, params) == before
    found = state.state_dict()
    assert (found.pop("skipped_steps"), kept.pop("skipped_steps")) == (2, 0)
    found.pop("grad_norm"), kept.pop("grad_norm")
    for key in ("velocity", "average", "compensation", "master"):
        assert_bits(found.pop(key), kept.pop(key))
    assert found == kept
    fm.step(params, model(rng, **dtypes), state)
    assert (state.step_count, state.skipped_steps) == (4, 2)


def test_the_largest_numbers_are_finite(dtype: Any, isa: str) -> None:
    """Their norm need not be: whether a gradient is finite is said of its elements."""
    for nonfinite in ("raise", "skip"):
        for clip in ({}, {"clip_norm": 1.0}, {"clip_norm": math.inf}):
            params, expected = np.zeros(37, dtype), np.zeros(37, dtype)
            grads = np.finfo(dtype).max * np.resize(np.array([1, -1], dtype), 37)
            state, other = both_states(params, lr=0.1, nonfinite=nonfinite, **clip)
            fm.step(params, grads, state)
            reference.step(expected, grads, other)
            assert_bits(params, expected)
            assert_states_agree(state, other)
            assert (state.step_count, state.skipped_steps) == (1, 0)
            assert not clip or math.isinf(state.grad_norm) == (dtype == np.float64)


def test_nonfinite_propagates(isa: str) -> None:
    params = np.ones(40, np.float32)
    state = fm.init(params, lr=0.1)
    grads = np.ones(40, np.float32)
    grads[35] = math.nan
    fm.step(params, grads, state)
    assert np.isnan(params).sum() == 1
    assert (state.step_count, state.skipped_steps, state.grad_norm) == (1, 0, None)


def test_grad_norm_is_of_the_last_step() -> None:
    params = np.zeros(2)
    state = fm.init(params, lr=0.1, clip_norm=10)
    fm.step(params, np.array([3.0, 4.0]), state)
    assert state.grad_norm == 5
    fm.step(params, np.array([3.0, 4.0]), state, grad_scale=0.5)
    assert state.grad_norm == 2.5
    state.clip_norm = None
    assert state.grad_norm == 2.5
    fm.step(params, np.array([3.0, 4.0]), state)
    assert state.grad_norm is None


# ---- the average ----


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_function_of_numpy_copies_into_a_state(
    layout: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run between the checks of a step and the first byte written, and give up the GIL meanwhile."""
    dtypes = [np.dtype("f4"), np.dtype("f8"), *HALVES]
    shapes = [(7, 30, 5), (1, 700, 1), (3, 0, 2)]
    params = [LAYOUTS[layout](random_like(shape, dtype, rng)) for dtype in dtypes for shape in shapes]
    params += [random_like((), dtype, rng) for dtype in dtypes]
    expected = copied(params)
    grads = [random_like(p.shape, p.dtype, rng) for p in params]
    monkeypatch.setattr(np, "copyto", None)
    states = fm.init(params, lr=0.1), fm.init(params, lr=0.1, average_decay=0.9)
    monkeypatch.undo()
    both = reference.init(expected, lr=0.1), reference.init(expected, lr=0.1, average_decay=0.9)
    for state, other in zip(states, both, strict=True):
        assert_states_agree(state, other)
        state.average_decay = other.average_decay = 0.9  # which starts one of the first
        saved = state.state_dict()
        monkeypatch.setattr(np, "copyto", None)
        fm.step(params, grads, state)
        state.load_state_dict(state.state_dict())
        fm.init(params, lr=0.2).load_state_dict(saved | {"average": {}})
        monkeypatch.undo()
        reference.step(expected, grads, other)
        assert_bits(params, expected)
        assert_bits(state.average, other.average)
        assert_bits(state.velocity, other.velocity)
    assert_bits(pickle.loads(pickle.dumps(state)).average, other.average)


def test_no_step_while_swapped(rng: np.random.Generator) -> None:
    params, grads = model(rng), model(rng)
    state = fm.init(params, lr=0.1, average_decay=0.9)
    fm.step(params, grads, state)
    state.swap_average(params)
    before = snapshot(state, params, grads)
    message = "params must be the parameters, not their average; call state.swap_average(params) first"
    for call in (
        lambda: fm.step(params, grads, state),
        lambda: fm.step(params, grads, state, zero_grads=True),
        lambda: fm.lookahead(params, state),
        lambda: fm.lookahead(params, state, out=grads),
    ):
        with refused(V, message):
            call()
        assert snapshot(state, params, grads) == before
    for how in COPIES.values():
        with refused(V, message):
            fm.step(params, grads, how(state))
    state.average_decay = None
    state.swap_average(params)
    fm.step(params, grads, state)
    assert state.step_count == 2


def test_swap_average_is_refused(rng: np.random.Generator) -> None:
    params = model(rng)
    state = fm.init(params, lr=0.1)
    none = "state must have an average, not none; set average_decay, which starts one at the next step"
    with refused(V, none):
        state.swap_average(params)
    state.average_decay = 0.5
    with refused(V, none):
        state.swap_average(params)
    fm.step(params, model(rng), state)
    bad: list[tuple[Any, type[Exception], str]] = [
        ([1], T, "params must be a dict, as in init(), not list"),
        ({"w": params["w"]}, V, "params must have the same keys as in init(), not lack 'enc'"),
        ({**params, "w": params["w"].astype("f8")}, T,
         "params['w'] must have dtype float32, as in init(), not float64; keep a copy in its place, made by .astype('float32'), which rounds"),
        ({**params, "w": params["w"].T}, V, "params['w'] must have the shape it had in init(), (4, 300), not (300, 4); pass params['w'].T, which shares its memory"),
        ({**params, "w": read_only(params["w"])}, V, "params['w'] must be writable, not read-only" + COPY),
        ({**params, "enc": [params["enc"][0], (np.float32(1),)]}, T,
         "params['enc'][1][0] must be a numpy.ndarray, not numpy.float32; it cannot be updated in place, use a 0-d array"),
        ({**params, "enc": [params["enc"][0], (params["w"][0, 0:1].reshape(()),)]}, V,
         "params['enc'][1][0] must share no memory with params['w'], not begin at the same element; give each array once"),
    ]  # fmt: skip
    for given, error, message in bad:
        before = snapshot(state, params, given)
        with refused(error, message):
            state.swap_average(given)
        assert snapshot(state, params, given) == before
    with pytest.raises(T):
        state.swap_average()


def test_params_may_not_share_memory_with_the_average(rng: np.random.Generator) -> None:
    """As they may not with velocities. Its views are read-only, so that only a gradient can."""
    params, grads = model(rng), model(rng)
    state = fm.init(params, lr=0.1, average_decay=0.9)
    fm.step(params, grads, state)
    grads["w"] = state.average["w"]
    before = snapshot(state, params)
    with pytest.raises(V, match=r"must share no memory with "):
        fm.step(params, grads, state)
    assert snapshot(state, params) == before


def test_average_outlives_its_state(rng: np.random.Generator) -> None:
    params, state, _ = stepped("clipped", rng)
    average = state.average["w"]
    expected = average.copy()
    del state
    junk = [np.full((4, 300), 7, np.float32) for _ in range(100)]
    assert_bits(average, expected)
    del junk, params


# ---- copies and checkpoints ----


def assert_they_go_on_alike(
    params: Any, state: fm.State, twin: fm.State, dtypes: dict[str, Any], rng: np.random.Generator
) -> None:
    twin_params = copied(params)
    assert repr(twin) == repr(state)
    for _ in range(2):
        assert snapshot(twin) == snapshot(state)
        grads = model(rng, **dtypes)
        fm.step(params, grads, state)
        fm.step(twin_params, grads, twin)
        assert_bits(twin_params, params)
    assert snapshot(twin) == snapshot(state)
    if state.average is not None:
        state.swap_average(params)
        twin.swap_average(twin_params)
        assert_bits(twin_params, params)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", ALL)
def test_copies_go_on_alike(name: str, how: str, rng: np.random.Generator) -> None:
    params, state, dtypes = stepped(name, rng, nonfinite="skip")
    fm.step(params, spoilt(model(rng, **dtypes), [("w", (0, 0), math.nan)]), state)
    assert state.skipped_steps == 1
    assert_they_go_on_alike(params, state, COPIES[how](state), dtypes, rng)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", ALL)
def test_copies_are_independent(name: str, how: str, rng: np.random.Generator) -> None:
    params, state, dtypes = stepped(name, rng)
    twin = COPIES[how](state)
    before = snapshot(twin)
    fm.step(params, model(rng, **dtypes), state)
    assert snapshot(twin) == before


def test_copies_of_halves(half: Any, rng: np.random.Generator) -> None:
    dtypes = {"half": half}
    for options in ({}, {"compensated": True}, {"average_decay": 0.5}):
        for how in COPIES.values():
            params = model(rng, **dtypes)
            state = fm.init(params, lr=1e-3, **options)
            fm.step(params, model(rng, **dtypes), state)
            assert_they_go_on_alike(params, state, how(state), dtypes, rng)


KEYS = ["format", "rule", "form", "velocity_dtype", "compensated", "step_count", "skipped_steps", "grad_norm", "swapped",
        "hyperparameters", "velocity", "steps", "average", "compensation", "master"]  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_state_dict_is_that_of_the_reference(name: str, rng: np.random.Generator) -> None:
    dtypes = kinds(name)
    params = model(rng, **dtypes)
    expected = copied(params)
    state, other = both_states(params, lr={"w": 0.1, "enc": 0.2}, **ALL[name])
    for _ in range(2):
        grads = model(rng, **dtypes)
        fm.step(params, grads, state)
        reference.step(expected, grads, other)
    assert_states_agree(state, other)
    ours, theirs = state.state_dict(), other.state_dict()
    assert set(ours) == set(theirs) == set(KEYS)
    assert ours["hyperparameters"] == theirs["hyperparameters"]
    assert ours["format"] == FORMAT
    for key in ("velocity", "average", "compensation", "master"):
        assert all(array.flags.owndata and array.flags.writeable for array in ours[key].values())
    json.dumps(
        {
            key: value
            for key, value in ours.items()
            if key not in ("velocity", "average", "compensation", "master")
        }
    )
    pickle.loads(pickle.dumps(ours))


def test_compensations_need_no_other_package(half: Any, rng: np.random.Generator) -> None:
    params = random_like((5,), half, rng)
    state = fm.init(params, lr=1e-3, compensated=True)
    fm.step(params, params.copy(), state)
    found = state.state_dict()["compensation"][""]
    assert found.dtype == np.float32
    assert found.any()


@pytest.mark.parametrize("name", ALL)
def test_loading_goes_on_alike(name: str, rng: np.random.Generator) -> None:
    params, state, dtypes = stepped(name, rng)
    fixed = {key: value for key, value in ALL[name].items() if key in ("velocity_dtype", "compensated")}
    other = fm.init(params, lr=7.0, **fixed)  # all else is loaded, an average that it lacks too
    other.load_state_dict(state.state_dict())
    assert_they_go_on_alike(params, state, other, dtypes, rng)


def test_loading_through_npz_and_json(half: Any, rng: np.random.Generator) -> None:
    for options in (
        {"average_decay": 0.9},
        {"compensated": True},
        {"velocity_dtype": "int8", "clip_norm": 1.0},
    ):
        dtypes = {"half": half, "double": np.float32}
        params = model(rng, **dtypes)
        state = fm.init(params, lr=1e-2, **options)
        fm.step(params, model(rng, **dtypes), state)
        found = state.state_dict()
        arrays = ("velocity", "average", "compensation", "master")
        text = json.dumps({key: value for key, value in found.items() if key not in arrays})
        loaded = json.loads(text)
        for key in arrays:
            file = io.BytesIO()
            np.savez(file, **found[key])
            file.seek(0)
            with np.load(file) as read:
                loaded[key] = dict(read)
        other = fm.init(
            params, lr=1.0, **{k: v for k, v in options.items() if k not in ("average_decay", "clip_norm")}
        )
        other.load_state_dict(loaded)
        assert_they_go_on_alike(params, state, other, dtypes, rng)


def test_loading_while_swapped(rng: np.random.Generator) -> None:
    params, state, dtypes = stepped("masters", rng)
    state.swap_average(params)
    found = state.state_dict()
    assert found["swapped"]
    other = fm.init(params, lr=7.0)
    other.load_state_dict(found)
    with pytest.raises(V, match="swap_average"):
        fm.step(params, model(rng, **dtypes), other)
    other.swap_average(params)
    fm.step(params, model(rng, **dtypes), other)


def test_loading_ends_what_the_checkpoint_does_not_have(rng: np.random.Generator) -> None:
    """An average and a swap are not left over from before."""
    params, state, _ = stepped("clipped", rng)
    state.swap_average(params)
    plain = fm.init(params, lr=0.1)
    state.load_state_dict(plain.state_dict())
    assert snapshot(state) == snapshot(plain)
    assert state.average is None
    assert (state.clip_norm, state.nonfinite, state.grad_norm, state.skipped_steps) == (
        None,
        "propagate",
        None,
        0,
    )


COUNT = "must be at least 0 and below 2**62, not"
LOADS: list[tuple[str, list[Any], Any, type[Exception], str]] = [
    *[(f"no {key}", [key], KeyError, V, f"state_dict must have the key '{key}', not lack it") for key in KEYS],
    ("a newer format", ["format"], FORMAT + 1, V,
     f"state_dict['format'] must be at most {FORMAT}, not {FORMAT + 1}; a newer version of fast_momentum has written it"),
    ("format 0", ["format"], 0, V, "state_dict['format'] must be at least 1 and below 2**62, not 0"),
    ("no clip_norm", ["hyperparameters", "clip_norm"], KeyError, V,
     "state_dict['hyperparameters'] must have the key 'clip_norm', not lack it"),
    ("velocity_dtype", ["velocity_dtype"], "int8", V, "state_dict['velocity_dtype'] must be None, as in init(), not 'int8'"),
    ("velocity_dtype float32", ["velocity_dtype"], "float32", V,
     "state_dict['velocity_dtype'] must be None, as in init(), not 'float32'"),
    ("compensated", ["compensated"], True, V, "state_dict['compensated'] must be False, as in init(), not True"),
    ("skipped_steps", ["skipped_steps"], -1, V, f"state_dict['skipped_steps'] {COUNT} -1"),
    ("skipped_steps bool", ["skipped_steps"], True, T, "state_dict['skipped_steps'] must be an integer, not bool"),
    ("grad_norm", ["grad_norm"], "1", T, "state_dict['grad_norm'] must be a real number, not str"),
    ("swapped", ["swapped"], 1, T, "state_dict['swapped'] must be True or False, not int"),
    ("average list", ["average"], [], T, "state_dict['average'] must be a dict, not list"),
    ("average missing", ["average", "['w']"], KeyError, V,
     "state_dict['average'] must have the key \"['w']\", not lack it"),
    ("average of another", ["average", "x"], np.ones(3), V, "state_dict['average'] must not have the key 'x'"),
    ("average shape", ["average", "['w']"], lambda a: a.T, V,
     "state_dict['average'][\"['w']\"] must have the shape of params['w'], (4, 300), not (300, 4); pass state_dict['average'][\"['w']\"].T, which shares its memory"),
    ("average dtype", ["average", "['w']"], lambda a: a.astype("f8"), T,
     "state_dict['average'][\"['w']\"] must have dtype float32, in which params['w'] is worked on, not float64; pass a "
     "copy, made by .astype('float32'), which rounds"),
    ("average None", ["average", "['w']"], None, T, "state_dict['average'][\"['w']\"] must be a numpy.ndarray, not None"),
    ("compensation unasked", ["compensation", "['w']"], np.ones((4, 300), np.float32), V,
     "state_dict['compensation'] must not have the key \"['w']\""),
    ("master missing", ["master", "['enc'][1][0]"], KeyError, V,
     "state_dict['master'] must have the key \"['enc'][1][0]\", not lack it"),
    ("master of half", ["master", "['enc'][1][0]"], lambda a: a.astype("f2"), T,
     "state_dict['master'][\"['enc'][1][0]\"] must have dtype float32, in which params['enc'][1][0] is worked on, not "
     "float16; pass a copy, made by .astype('float32')"),
    ("velocity of half", ["velocity", "['enc'][1][0]"], lambda a: a.astype("f2"), T,
     "state_dict['velocity'][\"['enc'][1][0]\"] must have dtype float32, in which params['enc'][1][0] is worked on, not "
     "float16; pass a copy, made by .astype('float32')"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "error", "message"), [c[1:] for c in LOADS], ids=[c[0] for c in LOADS]
)
def test_load_refuses(
    path: list[Any], value: Any, error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    params, source, _ = stepped("masters", rng, 2)
    _, state, _ = stepped("masters", rng)
    bad = edit(path, value)(source.state_dict())
    before = snapshot(state, params)
    with refused(error, message):
        state.load_state_dict(bad)
    assert snapshot(state, params) == before


def test_layers_can_be_added(rng: np.random.Generator) -> None:
    """strict=False leaves the average, master and compensation of the arrays that are new."""
    for options in ({"average_decay": 0.5}, {"compensated": True}, {"velocity_dtype": "int8"}):
        old = {"a": random_like((300,), np.float16, rng)}
        new = {"a": old["a"].copy(), "b": random_like((3,), np.float16, rng)}
        state, grown = fm.init(old, lr=0.1, **options), fm.init(new, lr=0.1, **options)
        fm.step(old, {"a": old["a"].copy()}, state)
        fm.step(new, copied(new), grown)
        before, source = grown.state_dict(), state.state_dict()
        grown.load_state_dict(source, strict=False)
        found = grown.state_dict()
        for key in ("velocity", "average", "compensation", "master"):
            for path in found[key]:
                assert_bits(found[key][path], (source if path == "['a']" else before)[key][path])


def test_loaded_velocities_are_stored_as_the_dtype_says(rng: np.random.Generator) -> None:
    """What state_dict() gave comes back exactly, anything else rounded."""
    params = random_like((600,), np.float32, rng)
    for name in ("float16", "bfloat16", "int8"):
        state = fm.init(params, lr=0.1, velocity_dtype=name)
        fm.step(params, random_like((600,), np.float32, rng), state)
        found = state.state_dict()
        values = random_like((600,), np.float32, rng)
        found["velocity"][""] = values
        state.load_state_dict(found)
        assert_bits(state.velocity, reference.round_to(values, name))


# ---- reset ----


@pytest.mark.parametrize("name", ALL)
def test_reset(name: str, rng: np.random.Generator) -> None:
    """Velocities, first steps and compensations; what is else stays."""
    params, state, dtypes = stepped(name, rng)
    before = state.state_dict()
    state.reset("['w']")
    found = state.state_dict()
    assert not found["velocity"]["['w']"].any()
    assert not found["steps"]["['w']"]
    assert found["steps"]["['enc'][0]"]
    assert_bits(found["velocity"]["['enc'][0]"], before["velocity"]["['enc'][0]"])
    state.reset()
    found = state.state_dict()
    assert not any(array.any() for key in ("velocity", "compensation") for array in found[key].values())
    for key in ("average", "master"):
        assert_bits(found[key], before[key])
    for key in ("step_count", "skipped_steps", "grad_norm", "swapped", "hyperparameters"):
        assert found[key] == before[key]
    fm.step(params, model(rng, **dtypes), state)


# ---- what is kept beside the velocities ----


def test_guards_of_everything_kept(rng: np.random.Generator) -> None:
    """Arrays of one element each, with all that is kept beside them, do not run into each other."""
    for name, options in ALL.items():
        half = np.float16 if "half" in kinds(name) else np.float32
        params = [guarded(random_like((n,), half, rng), n % 3) for n in (1, 2, 3, 0, 1, 257, 1)]
        expected = copied(params)
        state, other = both_states(params, lr=0.01, **options)
        for _ in range(3):
            grads = [random_like(p.shape, half, rng) for p in params]
            fm.step(params, grads, state)
            reference.step(expected, grads, other)
        assert_bits(params, expected)
        assert_states_agree(state, other)


def test_an_average_that_starts_late(rng: np.random.Generator) -> None:
    """There was no room for it before."""
    params = model(rng)
    expected = copied(params)
    state, other = both_states(params, lr=0.1)
    for k in range(4):
        if k == 2:
            state.average_decay = other.average_decay = 0.5
        grads = model(rng)
        fm.step(params, grads, state)
        reference.step(expected, grads, other)
        assert_bits(params, expected)
        assert_states_agree(state, other)


def test_a_late_average_of_halves_starts_from_the_parameters(half: Any, rng: np.random.Generator) -> None:
    params = random_like((300,), half, rng)
    expected = params.copy()
    state, other = both_states(params, lr=1e-3)
    for k in range(4):
        if k == 2:
            state.average_decay = other.average_decay = 0.75
        g = random_like((300,), half, rng)
        fm.step(params, g, state)
        reference.step(expected, g, other)
        assert_bits(params, expected)
        assert_states_agree(state, other)


def test_a_skipped_step_starts_no_average() -> None:
    params = np.ones(2)
    state = fm.init(params, lr=0.1, nonfinite="skip")
    state.average_decay = 0.5
    fm.step(params, np.array([1, math.nan]), state)
    assert state.average is None
    params[...] = 3
    fm.step(params, np.zeros(2), state)
    assert state.average.tolist() == [3, 3]


def test_repr(rng: np.random.Generator) -> None:
    """Short, and with what was asked for."""
    for name, options in ALL.items():
        _, state, _ = stepped(name, rng)
        text = repr(state)
        assert len(text) < 300
        for key, value in options.items():
            assert (
                f"{key}={value}" in text or (value is True and key in text) or f"{key}={float(value)}" in text
            )


# ---- found by readers ----


def test_bfloat16_of_another_byte_order_is_refused() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    swapped = np.array([1, 2, 3], ml_dtypes.bfloat16).view(np.dtype(ml_dtypes.bfloat16).newbyteorder(">"))
    w = np.ones(3, np.float32)
    state = fm.init(w, lr=0.1)
    for call in (
        lambda: fm.global_norm(swapped),
        lambda: fm.init(swapped, lr=0.1),
        lambda: fm.step(w, swapped, state),
    ):
        with pytest.raises(TypeError, match="must have dtype float32"):
            call()
    assert w.tolist() == [1, 1, 1]


def test_what_is_said_about_another_byte_order(half: Any) -> None:
    """Of the dtype that is wanted, the order is wrong; of another one, the dtype."""
    w = np.ones(3, half)
    state = fm.init(w, lr=0.1)
    swapped = np.ones(3, ">f2")
    wanted = "be in native byte order" if half == np.float16 else "have dtype bfloat16, as in init()"
    rounds = "" if half == np.float16 else ", which rounds"
    message = (
        f"params must {wanted}, not >f2; keep a copy in its place, made by .astype('{half.name}'){rounds}"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fm.step(swapped, w, state)
    assert (swapped == 1).all()


@pytest.mark.parametrize("loaded", ["swapped", "without average"])
def test_a_part_of_the_arrays_cannot_swap_or_drop_the_average(loaded: str) -> None:
    params = {"a": np.ones(3), "b": np.ones(3)}
    part = {"a": np.ones(3)}
    other = fm.init(part, lr=0.1, average_decay=None if loaded == "without average" else 0.5)
    if loaded == "swapped":
        other.swap_average(part)
    state = fm.init(params, lr=0.1, average_decay=0.5)
    before = snapshot(state, params)
    with pytest.raises(
        ValueError, match=r"^state_dict must have every array where it differs from state in "
    ):
        state.load_state_dict(other.state_dict(), strict=False)
    assert snapshot(state, params) == before


def test_a_state_of_no_arrays_keeps_its_average() -> None:
    state = fm.init([], lr=0.1, average_decay=0.5)
    state.load_state_dict(state.state_dict())
    assert state.average == ()


def test_an_average_that_rests_can_be_a_gradient() -> None:
    w = np.ones(3)
    state = fm.init(w, lr=0.1, average_decay=0.5)
    with pytest.raises(ValueError, match="share no memory"):
        fm.step(w, state.average, state)
    state.average_decay = None
    fm.step(w, state.average, state)
    assert w.tolist() == [0.9, 0.9, 0.9]


def test_set_lr_must_keep_a_narrow_velocity_finite() -> None:
    w = np.ones(3, np.float32)
    state = fm.init(w, lr=0.1, form="lr_inside", velocity_dtype="float16")
    fm.step(w, np.full(3, 5e5, np.float32), state)
    before = snapshot(state, w)
    with pytest.raises(ValueError, match="the velocity must stay finite in float16"):
        state.set_lr(10.0)
    assert snapshot(state, w) == before
