"""checks.cpp and hyperparameters.cpp: one table of bad calls. Each asserts the class, the whole message, and that
nothing was changed: parameters, gradients, out, the memory around them, and the state."""

from __future__ import annotations

import collections
import decimal
import fractions
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import fast_momentum as fm
from fast_momentum import _core, reference
from helpers import (
    FORMS,
    HALVES,
    assert_bits,
    copied,
    misaligned,
    random_like,
    read_only,
    run_python,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Call(NamedTuple):
    """What is handed over: good, until `spoil` has changed it."""

    params: dict[str, Any]
    grads: dict[str, Any]


# What a copy in float32 does to such elements: whether it rounds, or is not advised as it would lose them.
EXACT, LOST = ("float16", "int8", "uint8", "bool"), ("object", "S4", "U2", "M8[s]", "m8[s]", "V4")


def float32_way_out(advice: str, dtype: str) -> str:
    if dtype == "object":
        return "; if it holds arrays, pass list() of it"
    if dtype in LOST:
        return ""
    if dtype.startswith("complex"):
        return "; its imaginary parts would be lost, so give init() complex params"
    return f"; {advice}, made by .astype('float32')" + ("" if dtype in EXACT else ", which rounds")


class Bad(NamedTuple):
    id: str
    error: type[Exception]
    message: str
    spoil: Callable[[Call], Any]


def good() -> Call:
    rng = np.random.default_rng(0)
    trees = [
        {
            "w": random_like((3, 4), np.float32, rng),
            "enc": [random_like((5,), np.float64, rng), (random_like((), np.float32, rng),)],
        }
        for _ in range(2)
    ]
    return Call(*trees)


class Matrixlike(np.ndarray):
    pass


def put(tree: str, key: str | None, value: Any) -> Callable[[Call], Any]:
    """Replace one item of params or grads; a callable is applied to what was there."""

    def spoil(call: Call) -> None:
        target = getattr(call, tree)
        if key == "enc[0]":
            target["enc"][0] = value(target["enc"][0]) if callable(value) else value
        elif key is not None:
            target[key] = value(target[key]) if callable(value) else value

    return spoil


def overlapping(call: Call, a: str, b: str) -> None:
    base = np.ones(24, np.float32)
    getattr(call, a)["w"] = base[:12].reshape(3, 4)
    getattr(call, b)["w"] = base[11:23].reshape(3, 4)


def share_params(call: Call) -> None:
    base = np.ones(20, np.float32)
    call.params["w"] = base[:12].reshape(3, 4)
    call.params["enc"][1] = (base[11:12].reshape(()),)


def half_of_a_double(call: Call) -> None:
    base = np.ones(5)
    call.params["enc"][0] = base
    call.params["enc"][1] = (base.view(np.float32)[4:5].reshape(()),)


T, V = TypeError, ValueError
STEP = [
    # -- type
    Bad("params is a list", T, "params must be a dict, as in init(), not list", lambda c: c._replace(params=[1])),
    Bad("params is an array", T, "params must be a dict, as in init(), not numpy.ndarray",
        lambda c: c._replace(params=np.ones(2))),
    Bad("params is None", T, "params must be a dict, as in init(), not None; None stands for the gradient of a single "
        "array", lambda c: c._replace(params=None)),
    Bad("params is a string", T, "params must be a dict, as in init(), not str", lambda c: c._replace(params="w")),
    Bad("grads is a generator", T, "grads must be a dict, as in params, not generator; it can be read once, make a list by list() and keep that",
        lambda c: c._replace(grads=(g for g in ()))),
    Bad("grads is None", T, "grads must be a dict, as in params, not None; None stands for the gradient of a single "
        "array", lambda c: c._replace(grads=None)),
    Bad("branch is None", T, "grads['enc'] must be a list or tuple, as in params, not None; None stands for the "
        "gradient of a single array", put("grads", "enc", None)),
    Bad("branch is a dict", T, "grads['enc'] must be a list or tuple, as in params, not dict",
        put("grads", "enc", {})),
    Bad("branch is an array", T, "params['enc'] must be a list or tuple, as in init(), not numpy.ndarray",
        put("params", "enc", np.ones(2))),
    Bad("branch is a set", T, "grads['enc'] must be a list or tuple, as in params, not set; a set has no order, pass a list of its arrays",
        put("grads", "enc", set())),
    Bad("branch is a deque", T, "grads['enc'] must be a list or tuple, as in params, not collections.deque; pass list() of it",
        put("grads", "enc", collections.deque())),
    Bad("param is a list", T, "params['w'] must be a numpy.ndarray, not list; keep numpy.array() of it in its place", put("params", "w", [1.0])),
    Bad("param is a nested list", T, "params['enc'][0] must be a numpy.ndarray, not list; keep numpy.array() of it in its place",
        put("params", "enc[0]", [[1.0]])),
    Bad("param is None", T, "params['w'] must be a numpy.ndarray, not None; None stands for gradients alone, leave it out where the state is made", put("params", "w", None)),
    Bad("param is a float", T, "params['w'] must be a numpy.ndarray, not float; make it a 0-d array, as numpy.array(1.0) is", put("params", "w", 1.0)),
    Bad("param is a string", T, "params['w'] must be a numpy.ndarray, not str", put("params", "w", "abc")),
    Bad("param is a memoryview", T, "params['w'] must be a numpy.ndarray, not memoryview; pass numpy.asarray() of it, which shares its memory", put("params", "w", memoryview)),
    Bad("param is a NumPy scalar", T, "params['enc'][1][0] must be a numpy.ndarray, not numpy.float32; it cannot be "
        "updated in place, use a 0-d array", lambda c: c.params["enc"].__setitem__(1, (np.float32(1),))),
    Bad("param is masked", T, "params['w'] must be a numpy.ndarray, not numpy.ma.MaskedArray; its mask would be "
        "ignored, pass its .data or .filled()", put("params", "w", np.ma.masked_array)),
    Bad("param is a matrix", T, "params['w'] must be a numpy.ndarray, not numpy.matrix; pass numpy.asarray() of it, "
        "which shares its memory", put("params", "w", lambda a: a.view(np.matrix))),
    Bad("param is a recarray", T, "params['w'] must be a numpy.ndarray, not numpy.rec.recarray; pass numpy.asarray() "
        "of it, which shares its memory", put("params", "w", lambda a: a.view(np.recarray))),
    Bad("param is a subclass", T, f"params['w'] must be a numpy.ndarray, not {__name__}.Matrixlike; pass "
        "numpy.asarray() of it, which shares its memory", put("params", "w", lambda a: a.view(Matrixlike))),
    Bad("grad is a list", T, "grads['w'] must be a numpy.ndarray, not list; pass numpy.array() of it", put("grads", "w", [[1.0]])),
    Bad("grad is a float", T, "grads['w'] must be a numpy.ndarray, not float; make it a 0-d array, as numpy.array(1.0) is", put("grads", "w", 0.5)),
    Bad("grad is an int", T, "grads['enc'][0] must be a numpy.ndarray, not int; make numbers an array, by numpy.array() of the list, or each a 0-d array, by numpy.array(1.0)", put("grads", "enc[0]", 0)),
    Bad("grad is masked", T, "grads['w'] must be a numpy.ndarray, not numpy.ma.MaskedArray; its mask would be ignored, "
        "pass its .data or .filled()", put("grads", "w", np.ma.masked_array)),
    Bad("grad is a scalar where it may not", T, "grads['w'] must be a numpy.ndarray, not numpy.float32; only the "
        "gradient of a 0-d array may be a scalar, and sum(keepdims=True) gives an array", put("grads", "w", np.float32(1))),
    Bad("grad of a 0-d array is a Python float", T, "grads['enc'][1][0] must be a numpy.ndarray, not float; make numbers an array, by numpy.array() of the list, or each a 0-d array, by numpy.array(1.0)",
        lambda c: c.grads["enc"].__setitem__(1, (0.5,))),
    Bad("grad of a 0-d array is another scalar", T, "grads['enc'][1][0] must be a numpy.float32 or a 0-d array of "
        "that, as params['enc'][1][0] is, not numpy.float64", lambda c: c.grads["enc"].__setitem__(1, (np.float64(0.5),))),
    Bad("grad is a subclass", T, f"grads['w'] must be a numpy.ndarray, not {__name__}.Matrixlike; pass numpy.asarray() "
        "of it, which shares its memory", put("grads", "w", lambda a: a.view(Matrixlike))),
    # -- dtype
    *[
        Bad(f"param is {dtype}", T, f"params['w'] must have dtype float32, as in init(), not {np.dtype(dtype)}{float32_way_out('keep a copy in its place', dtype)}", put("params", "w", lambda a, dtype=dtype: np.zeros(a.shape, dtype)))
        for dtype in ["float16", "float64", "longdouble", "int8", "int32", "int64", "uint8", "bool", "complex64",
                      "complex128", "object", "S4", "U2", "M8[s]", "m8[s]"]
    ],
    *[
        Bad(f"grad is {dtype}", T, f"grads['w'] must have dtype float32, as params['w'] has, not {np.dtype(dtype)}{float32_way_out('pass a copy', dtype)}", put("grads", "w", lambda a, dtype=dtype: np.zeros(a.shape, dtype)))
        for dtype in ["float64", "longdouble", "int8", "int32", "int64", "uint8", "bool", "complex64",
                      "complex128", "object", "S4", "U2", "M8[s]", "m8[s]", "V4"]
    ],
    Bad("grad is float16 for float64", T, "grads['enc'][0] must have dtype float64, as params['enc'][0] has, not float16; pass a copy, made by .astype('float64')", put("grads", "enc[0]", lambda a: a.astype("f2"))),
    Bad("grad is big-endian float16", T, "grads['w'] must have dtype float32, as params['w'] has, not >f2; pass a copy, made by .astype('float32')", put("grads", "w", lambda a: a.astype(">f2"))),
    Bad("param is structured", T, "params['w'] must have dtype float32, as in init(), not [('x', '<f4')]; pass a dict of its fields, such as {'x': array['x']}", put("params", "w", lambda a: np.zeros(a.shape, [("x", "f4")]))),
    Bad("param is big-endian", T, "params['w'] must be in native byte order, not >f4; keep a copy in its place, made by .astype('float32')", put("params", "w", lambda a: a.astype(">f4"))),
    Bad("grad is big-endian", T, "grads['enc'][0] must be in native byte order, not >f8; pass a copy, made by .astype('float64')", put("grads", "enc[0]", lambda a: a.astype(">f8"))),
    Bad("double became single", T, "params['enc'][0] must have dtype float64, as in init(), not float32; keep a copy in its place, made by .astype('float64')", put("params", "enc[0]", lambda a: a.astype("f4"))),
    # -- structure
    Bad("no keys", V, "grads must have the same keys as in params, not lack 'w', 'enc'", lambda c: c.grads.clear()),
    Bad("missing key", V, "grads must have the same keys as in params, not lack 'w'", lambda c: c.grads.pop("w")),
    Bad("missing key of params", V, "params must have the same keys as in init(), not lack 'w'",
        lambda c: c.params.pop("w")),
    Bad("key too many", V, "grads must have the same keys as in params, not have 'x' besides",
        lambda c: c.grads.update(x=np.ones(1))),
    Bad("other key", V, "grads must have the same keys as in params, not lack 'w' and have 'W' besides",
        lambda c: c.grads.update(W=c.grads.pop("w"))),
    Bad("too few items", V, "grads['enc'] must have 2 items, as in params, not 1", lambda c: c.grads["enc"].pop()),
    Bad("too many items", V, "grads['enc'] must have 2 items, as in params, not 3",
        lambda c: c.grads["enc"].append(np.ones(1))),
    Bad("too many items in a tuple", V, "params['enc'][1] must have 1 item, as in init(), not 2",
        lambda c: c.params["enc"].__setitem__(1, (np.float32(1), np.float32(1)))),
    Bad("params lost an item", V, "params['enc'] must have 2 items, as in init(), not 1",
        lambda c: c.params["enc"].pop()),
    # -- shape
    Bad("transposed gradient", V, "grads['w'] must have the shape of params['w'], (3, 4), not (4, 3); pass grads['w'].T, which shares its memory",
        put("grads", "w", lambda a: a.T)),
    Bad("gradient to broadcast", V, "grads['w'] must have the shape of params['w'], (3, 4), not (4,)",
        put("grads", "w", lambda a: a[0])),
    Bad("column to broadcast", V, "grads['w'] must have the shape of params['w'], (3, 4), not (3, 1)",
        put("grads", "w", lambda a: a[:, :1])),
    Bad("0-d gradient", V, "grads['enc'][0] must have the shape of params['enc'][0], (5,), not ()",
        put("grads", "enc[0]", np.array(1.0))),
    Bad("gradient of a 0-d array is 1-d", V, "grads['enc'][1][0] must have the shape of params['enc'][1][0], (), not (1,); pass grads['enc'][1][0].reshape(()), which shares its memory",
        lambda c: c.grads["enc"].__setitem__(1, (np.ones(1, np.float32),))),
    Bad("empty gradient", V, "grads['w'] must have the shape of params['w'], (3, 4), not (0, 4)",
        put("grads", "w", lambda a: a[:0])),
    Bad("one element less", V, "grads['enc'][0] must have the shape of params['enc'][0], (5,), not (4,)",
        put("grads", "enc[0]", lambda a: a[:4])),
    Bad("param of another shape", V, "params['enc'][0] must have the shape it had in init(), (5,), not (6,)",
        put("params", "enc[0]", np.ones(6))),
    Bad("param reshaped", V, "params['w'] must have the shape it had in init(), (3, 4), not (12,)",
        put("params", "w", lambda a: a.ravel())),
    Bad("both of another shape", V, "params['w'] must have the shape it had in init(), (3, 4), not (4, 3); pass params['w'].T, which shares its memory",
        lambda c: (put("params", "w", lambda a: a.T)(c), put("grads", "w", lambda a: a.T)(c))),
    # -- memory
    Bad("param is misaligned", V, "params['w'] must be aligned in memory, not at addresses that are no multiple of 4; keep a copy in its place, made by .copy()", put("params", "w", misaligned)),
    Bad("grad is misaligned", V, "grads['enc'][0] must be aligned in memory, not at addresses that are no multiple of "
        "8; pass a copy, made by .copy()", put("grads", "enc[0]", misaligned)),
    Bad("packed field", V, "grads['enc'][0] must be aligned in memory, not at addresses that are no multiple of 8; pass a copy, made by .copy()", put("grads", "enc[0]", lambda a: np.zeros(5, "u1,f8")["f1"])),
    Bad("param is read-only", V, "params['w'] must be writable, not read-only; keep a copy in its place, made by .copy()",
        put("params", "w", read_only)),
    Bad("last param is read-only", V, "params['enc'][1][0] must be writable, not read-only; keep a copy in its place, made by .copy()", lambda c: c.params["enc"].__setitem__(1, (read_only(c.params["enc"][1][0]),))),
    Bad("param from bytes", V, "params['enc'][0] must be writable, not read-only; keep a copy in its place, made by .copy()",
        put("params", "enc[0]", lambda a: np.frombuffer(a.tobytes()))),
    Bad("param is broadcast", V, "params['w'] must be writable, not read-only; keep a copy in its place, made by .copy()",
        put("params", "w", lambda a: np.broadcast_to(a[0], (3, 4)))),
    Bad("stride 0", V, "params['w'] must have elements that share no memory, not overlapping ones; keep a copy in its place, made by .copy()", put("params", "w", lambda a: as_strided(a, (3, 4), (0, 4)))),
    Bad("sliding window", V, "params['w'] must have elements that share no memory, not overlapping ones; keep a copy in its place, made by .copy()", put("params", "w", lambda _: sliding_window_view(
            np.ones(6, np.float32), 4, writeable=True))),
    Bad("steps that meet", V, "params['w'] must have elements that share no memory, not overlapping ones; keep a copy in its place, made by .copy()", put("params", "w", lambda _: as_strided(np.ones(40, np.float32), (3, 4), (12, 8)))),
    Bad("steps that meet, backwards", V, "params['w'] must have elements that share no memory, not overlapping ones; keep a copy in its place, made by .copy()", put("params", "w", lambda _: as_strided(
            np.ones(40, np.float32)[30:], (3, 4), (-4, -4)))),
    # -- overlap
    Bad("params overlap", V, "params['enc'][1][0] must share no memory with params['w'], not overlap it; give each array once", share_params),
    Bad("half of a double", V, "params['enc'][1][0] must share no memory with params['enc'][0], not overlap it; give each array once", half_of_a_double),
    Bad("grad is the param", V, "grads['w'] must share no memory with params['w'], not begin at the same element; pass a copy of the gradient", lambda c: c.grads.update(w=c.params["w"])),
    Bad("grad is a view of the param", V, "grads['enc'][0] must share no memory with params['enc'][0], not overlap it; pass a copy of the gradient", lambda c: c.grads["enc"].__setitem__(0, c.params["enc"][0][::-1])),
    Bad("grad overlaps the param", V, "grads['w'] must share no memory with params['w'], not overlap it; pass a copy of the gradient", lambda c: overlapping(c, "params", "grads")),
    Bad("param overlaps the grad", V, "grads['w'] must share no memory with params['w'], not overlap it; pass a copy of the gradient", lambda c: overlapping(c, "grads", "params")),
]  # fmt: skip


def run(bad: Bad, call: Call, after: Callable[[Call], Any]) -> None:
    spoilt = bad.spoil(call)
    if isinstance(spoilt, Call):
        call = spoilt
    before = snapshot(None, call.params, call.grads)
    with pytest.raises(bad.error) as raised:
        after(call)
    assert type(raised.value) is bad.error
    assert str(raised.value) == bad.message
    assert snapshot(None, call.params, call.grads) == before


@pytest.mark.parametrize("bad", STEP, ids=lambda bad: bad.id)
def test_step_refuses(bad: Bad) -> None:
    call = good()
    state = fm.init(call.params, lr=0.1)
    fm.step(call.params, call.grads, state)
    before = snapshot(state)
    run(bad, call, lambda c: fm.step(c.params, c.grads, state))
    assert snapshot(state) == before


ANY = "; for a number per array, pass a list or dict like params"
SMALL = "; use a float64 array or another value"
NAMES = ["lr", "momentum", "dampening", "weight_decay"]


def number_cases() -> list[tuple[str, str, Any, type[Exception], str]]:
    """id, hyperparameter, value, class, message: what is refused at init() and when it is set."""
    finite = "be finite and >= 0"
    cases: list[tuple[str, str, Any, type[Exception], str]] = []
    for name, value, required in [
        ("lr", -0.1, finite), ("lr", math.nan, finite), ("lr", math.inf, finite), ("lr", -math.inf, finite),
        ("lr", np.float32(-1), finite), ("lr", -1, finite), ("lr", np.array(-1.0), finite),
        ("momentum", 1, "be in [0, 1)"), ("momentum", 1.5, "be in [0, 1)"), ("momentum", -0.1, "be in [0, 1)"),
        ("momentum", math.nan, "be in [0, 1)"), ("momentum", np.float64(1), "be in [0, 1)"),
        ("dampening", 1.1, "be in [0, 1]"), ("dampening", -0.1, "be in [0, 1]"), ("dampening", math.nan, "be in [0, 1]"),
        ("weight_decay", -1e-4, finite), ("weight_decay", math.inf, finite), ("weight_decay", math.nan, finite),
    ]:  # fmt: skip
        cases.append((f"{name}={value!r}", name, value, V, f"{name} must {required}, not {float(value)!r}"))
    for name in NAMES:
        for value, kind in [
            (True, "bool"), (np.True_, "numpy.bool"), ("0.1", "str"), (None, "None"), (0.1 + 0j, "complex"),
            (np.complex64(1), "numpy.complex64"), (decimal.Decimal("0.1"), "decimal.Decimal"),
            (fractions.Fraction(1, 10), "fractions.Fraction"), (b"1", "bytes"), ({0.1}, "set"),
            (np.array([0.1]), "numpy.ndarray of shape (1,)" + ANY), (np.array(True), "numpy.ndarray of dtype bool"),
            (np.array(1j), "numpy.ndarray of dtype complex128"), (np.ma.array(0.1), "numpy.ma.MaskedArray"), (np.timedelta64(1, "s"), "numpy.timedelta64"),
            (lambda: 0.1, "function"),
        ]:  # fmt: skip
            message = f"{name} must be a real number, not {kind}"
            cases.append((f"{name} is {kind}", name, value, T, message))
    huge = "must be a number that a float can hold, not one so large"
    cases += [
        ("huge", "lr", 10**400, V, f"lr {huge}"),
        ("lr vanishes", "lr", 1e-46, V,
         f"lr must stay above 0 when rounded to float32, the dtype of params['w'], not be 1e-46{SMALL}"),
        ("lr overflows", "lr", 1e39, V,
         f"lr must stay finite when rounded to float32, the dtype of params['w'], not be 1e+39{SMALL}"),
        ("momentum becomes 1", "momentum", 1 - 1e-8, V,
         f"momentum must stay below 1 when rounded to float32, the dtype of params['w'], not be 0.99999999{SMALL}"),
        ("momentum vanishes", "momentum", 1e-50, V,
         f"momentum must stay above 0 when rounded to float32, the dtype of params['w'], not be 1e-50{SMALL}"),
        ("decay vanishes", "weight_decay", 1e-60, V,
         f"weight_decay must stay above 0 when rounded to float32, the dtype of params['w'], not be 1e-60{SMALL}"),
        ("dampening vanishes", "dampening", 1e-60, V,
         f"dampening must stay above 0 when rounded to float32, the dtype of params['w'], not be 1e-60{SMALL}"),
        # prefixes
        ("a list for a dict", "lr", [0.1, 0.2], T, "lr must be a number or dict, as in params, not list"),
        ("a dict for a list", "lr", {"w": 0.1, "enc": {}}, T,
         "lr['enc'] must be a number, list or tuple, as in params, not dict"),
        ("a list for an array", "lr", {"w": [0.1], "enc": 0.1}, T,
         "lr['w'] must be a number: there is one array here, as in params, not list"),
        ("a key is missing", "weight_decay", {"w": 0.1}, V,
         "weight_decay must have the same keys as in params, not lack 'enc'"),
        ("a key too many", "momentum", {"w": 0.1, "enc": 0.2, 3: 0.1}, V,
         "momentum must have the same keys as in params, not have 3 besides"),
        ("items too few", "lr", {"w": 0.1, "enc": [0.1]}, V, "lr['enc'] must have 2 items, as in params, not 1"),
        ("bad leaf", "lr", {"w": 0.1, "enc": [0.1, (-3,)]}, V,
         "lr['enc'][1][0] must be finite and >= 0, not -3.0"),
        ("bad type of a leaf", "lr", {"w": 0.1, "enc": [0.1, (None,)]}, T,
         "lr['enc'][1][0] must be a real number, not None"),
        ("rounds to 1 in one array", "momentum", {"w": 0.1, "enc": [1 - 1e-8, 1 - 1e-8]}, V,
         "momentum['enc'][1] must stay below 1 when rounded to float32, the dtype of params['enc'][1][0], not be "
         f"0.99999999{SMALL}"),
    ]  # fmt: skip
    return cases


@pytest.mark.parametrize(("name", "value", "error", "message"), [c[1:] for c in number_cases()],
                         ids=[c[0] for c in number_cases()])  # fmt: skip
def test_hyperparameters(name: str, value: Any, error: type[Exception], message: str) -> None:
    call = good()
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        fm.init(call.params, **{"lr": 0.1, name: value})
    state = fm.init(call.params, lr=0.1)
    fm.step(call.params, call.grads, state)
    before = snapshot(state, call.params)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        setattr(state, name, value)
    assert snapshot(state, call.params) == before


@pytest.mark.parametrize("name", ["nesterov", "decoupled_weight_decay", "maximize"])
@pytest.mark.parametrize("value", [1, 0, None, "yes", np.ones(1, bool), 1.0, np.int8(1)], ids=repr)
def test_flags(name: str, value: Any) -> None:
    params = np.ones(2)
    given = type(value).__name__ if type(value).__module__ == "builtins" else f"numpy.{type(value).__name__}"
    message = f"{name} must be True or False, not {'None' if value is None else given}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fm.init(params, lr=0.1, **{name: value})
    state = fm.init(params, lr=0.1)
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        setattr(state, name, value)
    setattr(state, name, np.True_)
    assert getattr(state, name) is True


DTYPE_NAMES = ", ".join(_core.config()["dtypes"]) + ", float16 or bfloat16"
UNKNOWN_FORM = f"form must be one of {str(FORMS)[1:-1]}, not "
INIT: list[tuple[str, Any, dict[str, Any], type[Exception], str]] = [
    ("form unknown", np.ones(2), {"form": "torch"}, V, UNKNOWN_FORM + "'torch'"),
    ("form empty", np.ones(2), {"form": ""}, V, UNKNOWN_FORM + "''"),
    ("form None", np.ones(2), {"form": None}, T, "form must be a string, not None"),
    ("form with a NUL", np.ones(2), {"form": "ema\0 x"}, V, UNKNOWN_FORM + "'ema\\x00 x'"),
    ("form surrogate", np.ones(2), {"form": "\ud800"}, V, UNKNOWN_FORM + "'\\ud800'"),
    ("form long", np.ones(2), {"form": "x" * 10**6}, V, UNKNOWN_FORM + "'" + "x" * 79 + "..."),
    ("form bytes", np.ones(2), {"form": b"ema"}, T, "form must be a string, not bytes"),
    ("nesterov without momentum", np.ones(2), {"momentum": 0, "nesterov": True}, V,
     "momentum must be above 0 where nesterov is True, not 0.0"),
    ("dampening without momentum", np.ones(2), {"momentum": 0, "dampening": 0.5}, V,
     "momentum must be above 0 where dampening is not 0, not 0.0"),
    ("nesterov with dampening", np.ones(2), {"dampening": 0.5, "nesterov": True}, V,
     "nesterov must be False where dampening is not 0, not True; set dampening to 0"),
    ("dampening inside", np.ones(2), {"dampening": 0.5, "form": "lr_inside"}, V,
     "dampening must be 0 in the form lr_inside, not 0.5; only lr_outside has dampening"),
    ("dampening in an average", [np.ones(2)], {"dampening": [0.5], "form": "ema"}, V,
     "dampening[0] must be 0 in the form ema, not 0.5; only lr_outside has dampening"),
    ("nesterov without momentum anywhere", [np.ones(2)], {"momentum": [0], "nesterov": True}, V,
     "momentum must be above 0 where nesterov is True, not 0.0"),
    ("decay vanishes", np.ones(2, np.float32),
     {"lr": 1e-30, "weight_decay": 1e-30, "decoupled_weight_decay": True}, V,
     "lr * weight_decay must stay above 0 when rounded to float32, the dtype of params, not be 1e-30 * 1e-30; use a "
     "float64 array or other values"),
    ("decay vanishes in double", np.ones(2),
     {"lr": 1e-200, "weight_decay": 1e-200, "decoupled_weight_decay": True}, V,
     "lr * weight_decay must stay above 0 when rounded to float64, the dtype of params, not be 1e-200 * 1e-200; use a "
     "float64 array or other values"),
    ("lr vanishes in float16 params", {"a": np.ones(2, np.float16)}, {"lr": 1e-50}, V,
     "lr must stay above 0 when rounded to float32, in which params['a'], of float16, is worked on, not be 1e-50; use a "
     "float64 array or another value"),
    ("decay overflows in one array", [np.ones(2), np.ones(2, np.float32)],
     {"lr": 1e30, "weight_decay": [1e30, 1e30], "decoupled_weight_decay": True}, V,
     "lr * weight_decay must stay finite when rounded to float32, the dtype of params[1], not be 1e+30 * 1e+30; use a "
     "float64 array or other values"),
    ("a number", 1.0, {}, T, "params must be a numpy.ndarray, not float; make it a 0-d array, as numpy.array(1.0) is"),
    ("None", None, {}, T, "params must be a numpy.ndarray, not None; None stands for gradients alone, leave it out where the state is made"),
    ("a string", ["w"], {}, T, "params[0] must be a numpy.ndarray, not str"),
    ("a set", {1}, {}, T, "params must be a numpy.ndarray, not set; a set has no order, pass a list of its arrays"),
    ("integers", [np.ones(2, int)], {}, T,
     f"params[0] must have dtype {DTYPE_NAMES}, not int64; keep a copy in its place, made by .astype('float64'), which rounds above 2**53"),
    ("short integers", [np.ones(2, "u2")], {}, T,
     f"params[0] must have dtype {DTYPE_NAMES}, not uint16; keep a copy in its place, made by .astype('float32')"),
    ("integers of 32 bits", [np.ones(2, "i4")], {}, T,
     f"params[0] must have dtype {DTYPE_NAMES}, not int32; keep a copy in its place, made by .astype('float64')"),
    ("long complex numbers", np.ones(2, np.clongdouble), {}, T,
     f"params must have dtype {DTYPE_NAMES}, not {np.dtype(np.clongdouble)}; keep a copy in its place, made by .astype('complex128'), which rounds"),
    ("long doubles", {"a": np.ones(2, np.longdouble)}, {}, T,
     f"params['a'] must have dtype {DTYPE_NAMES}, not {np.dtype(np.longdouble)}; keep a copy in its place, made by .astype('float64'), which rounds"),
    ("objects", np.ones(2, object), {}, T,
     f"params must have dtype {DTYPE_NAMES}, not object; if it holds arrays, pass list() of it"),
    ("big-endian", np.ones(2, ">f8"), {}, T,
     "params must be in native byte order, not >f8; keep a copy in its place, made by .astype('float64')"),
    ("a scalar", np.float64(1), {}, T,
     "params must be a numpy.ndarray, not numpy.float64; it cannot be updated in place, use a 0-d array"),
    ("masked", np.ma.ones(2), {}, T,
     "params must be a numpy.ndarray, not numpy.ma.MaskedArray; its mask would be ignored, pass its .data or .filled()"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "options", "error", "message"), [c[1:] for c in INIT], ids=[c[0] for c in INIT]
)
def test_init_refuses(params: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        fm.init(params, **{"lr": 0.1, **options})


def test_lr_has_no_default() -> None:
    with pytest.raises(
        TypeError, match=r"^init\(\) must be given lr, not params alone; add lr=0\.01, or find "
    ):
        fm.init(np.ones(100))
    with pytest.raises(TypeError, match=r"^init\(\) must not have the keyword beta; use momentum$"):
        fm.init(np.ones(100), lr=0.1, beta=0.9)
    with pytest.raises(
        TypeError, match=r"^step\(\) must be given state, not params and grads alone; init\(\) makes it"
    ):
        fm.step(np.ones(100), np.ones(100))


@pytest.mark.parametrize("state", [None, {}, "state", 1])
def test_not_a_state(state: Any) -> None:
    for call in (lambda: fm.step(np.ones(2), np.ones(2), state), lambda: fm.lookahead(np.ones(2), state)):
        with pytest.raises(TypeError, match=r"^state must be a State, as init\(\) returns it, not "):
            call()


def test_combinations_at_the_next_step() -> None:
    """Values are checked when they are set, what they do together at the next step; and setting them right helps."""
    params, grads = np.ones(3, np.float32), np.ones(3, np.float32)
    state = fm.init(params, lr=0.1)
    state.nesterov = True
    state.dampening = 0.5
    before = snapshot(state, params)
    for call in (lambda: fm.step(params, grads, state),) * 2:
        with pytest.raises(ValueError, match="^nesterov must be False where dampening is not 0, not True; "):
            call()
        assert snapshot(state, params) == before
    state.dampening = 0
    fm.step(params, grads, state)
    state.lr, state.weight_decay, state.decoupled_weight_decay = 1e-30, 1e-30, True
    with pytest.raises(ValueError, match=r"^lr \* weight_decay must stay above 0"):
        fm.step(params, grads, state)
    state.lr = 0  # warm-up: no decay, but nothing that was lost
    fm.step(params, grads, state)
    assert state.step_count == 2


def test_dampening_cannot_be_set_in_another_form() -> None:
    state = fm.init(np.ones(2), lr=0.1, form="ema")
    with pytest.raises(
        ValueError, match="^dampening must be 0 in the form ema, not 0.5; only lr_outside has"
    ):
        state.dampening = 0.5


def test_a_schedule_may_end_at_momentum_zero() -> None:
    for form in FORMS:
        params = [np.ones(3), np.ones(3)]
        fm.init(params, lr=0.1, momentum=[0.9, 0.0], nesterov=True, form=form)
        state = fm.init(params, lr=0.1, nesterov=True, form=form)
        state.momentum = 0
        fm.step(params, [np.ones(3), np.ones(3)], state)


LOOKAHEAD: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
    ("out is a param", lambda p: [p[0], p[1].copy()], V, "out[0] must share no memory with params[0], not begin at the same element; pass other arrays as out"),
    ("out twice", lambda p: [p[0].copy()] * 2, V, "out[1] must share no memory with out[0], not begin at the same "
     "element; pass other arrays as out"),
    ("out of another shape", lambda _: [np.ones(3), np.ones(2)], V,
     "out[0] must have the shape of params[0], (2,), not (3,)"),
    ("out of another dtype", lambda _: [np.ones(2), np.ones(2, "f4")], T,
     "out[1] must have dtype float64, as params[1] has, not float32; keep a copy in its place, made by .astype('float64')"),
    ("out is read-only", lambda _: [np.ones(2), read_only(np.ones(2))], V,
     "out[1] must be writable, not read-only; keep a copy in its place, made by .copy()"),
    ("out overlaps itself", lambda _: [np.ones(2), as_strided(np.ones(2), (2,), (0,))], V,
     "out[1] must have elements that share no memory, not overlapping ones; keep a copy in its place, made by .copy()"),
    ("out is misaligned", lambda _: [np.ones(2), misaligned(np.ones(2))], V,
     "out[1] must be aligned in memory, not at addresses that are no multiple of 8; keep a copy in its place, made by .copy()"),
    ("out is too short", lambda _: [np.ones(2)], V, "out must have 2 items, as in params, not 1"),
    ("out is a dict", lambda _: {}, T, "out must be a list or tuple, as in params, not dict"),
    ("out has None", lambda _: [None, np.ones(2)], T, "out[0] must be a numpy.ndarray, not None"),
    ("out has a list", lambda _: [[1, 2], np.ones(2)], T,
     "out[0] must be a numpy.ndarray, not list; keep numpy.array() of it in its place"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("out", "error", "message"), [c[1:] for c in LOOKAHEAD], ids=[c[0] for c in LOOKAHEAD]
)
def test_lookahead_refuses(out: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    params = [np.ones(2), np.ones(2)]
    state = fm.init(params, lr=0.1)
    fm.step(params, [np.ones(2), np.ones(2)], state)
    given = out(params)
    before = snapshot(state, params, given)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        fm.lookahead(params, state, out=given)
    assert snapshot(state, params, given) == before


def test_lookahead_needs_plain_momentum() -> None:
    params = np.ones(2, np.float32)
    state = fm.init(params, lr=0.1, nesterov=True)
    with pytest.raises(ValueError, match=r"^state\.nesterov must be False in lookahead\(\), not True: "):
        fm.lookahead(params, state)
    state.nesterov = False
    state.lr, state.momentum = 1e-30, 1e-30
    with pytest.raises(
        ValueError, match=r"^lr \* momentum must stay above 0 when rounded to float32, the dtype of params"
    ):
        fm.lookahead(params, state)
    out = np.ones(2, np.float32)
    fm.step(params, np.ones(2, np.float32), state)
    assert fm.lookahead(params, fm.init(params, lr=1e-30, momentum=1e-30, form="lr_inside"), out) is out


@pytest.mark.parametrize("bad", [0, 1, 2])
@pytest.mark.parametrize("per_array", ["lr", "other", "both"])
@pytest.mark.parametrize("other", ["weight_decay", "momentum"])
def test_products_of_each_array(other: str, per_array: str, bad: int) -> None:
    """Wherever it is in a list of either factor, the product that cannot be rounded is found."""
    small, large = 1e-30, 0.5
    numbers = [small if i == bad else large for i in range(3)]
    options: dict[str, Any] = {"lr": numbers, other: numbers}
    if per_array != "both":
        options["lr" if per_array == "other" else other] = small
    params, grads = ([np.ones(2, np.float32) for _ in range(3)] for _ in range(2))
    message = (
        rf"^lr \* {other} must stay above 0 when rounded to float32, the dtype of params\[{bad}\], not be"
    )
    if other == "momentum":
        with pytest.raises(ValueError, match=message):
            fm.lookahead(params, fm.init(params, **options))
        return
    with pytest.raises(ValueError, match=message):
        fm.step(params, grads, fm.init(params, decoupled_weight_decay=True, **options))
    assert all((p == 1).all() for p in params)


def test_lookahead_reads_read_only_parameters() -> None:
    params = np.broadcast_to(np.float64(2), (3,))
    assert fm.lookahead(params, fm.init(params, lr=0.1)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("mode", ["r+", "w+", "c", "r"])
def test_memmap(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "params"
    np.ones(100, np.float32).tofile(file)
    params = np.memmap(file, np.float32, mode=mode, shape=(100,))
    if mode == "w+":
        params[...] = 1
    state = fm.init(params, lr=0.1)
    if mode == "r":
        with pytest.raises(ValueError, match="^params must be writable, not read-only; "):
            fm.step(params, np.ones(100, np.float32), state)
        fm.step(np.ones(100, np.float32), params, state)
        return
    fm.step(params, np.ones(100, np.float32), state)
    np.testing.assert_array_equal(params, np.float32(0.9))
    params.flush()
    np.testing.assert_array_equal(np.fromfile(file, np.float32), 1 if mode == "c" else np.float32(0.9))


def test_what_is_accepted() -> None:
    """What a step accepts, where no other test has it."""
    params = np.ones(3, np.dtype("f4", metadata={"unit": "m"}))
    fm.step(params, np.ones(3, "f4"), fm.init(params, lr=0.1))
    for lr in (0, 1, 0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.longdouble(0.5), np.int8(1),
               np.uint64(1), np.array(0.5), np.array(1), np.array(0.5, np.float16)):  # fmt: skip
        state = fm.init(np.ones(2), lr=lr)
        assert type(state.lr) is float
        assert state.lr == float(lr)
    grad = np.ones(2)
    params_twice = [np.ones(2), np.ones(2)]
    fm.step(params_twice, [grad, grad], fm.init(params_twice, lr=0.1))
    fm.step(params_twice, [read_only(grad), grad[::-1]], fm.init(params_twice, lr=0.1))
    fm.init([np.ones(3), np.ones(2, np.float32)], lr=np.float64(0.1), nesterov=np.True_)


# ---- what objects say of themselves ----


def hostile(base: Any, said: Any = None) -> Any:
    """A subclass whose methods and properties are not to be asked."""

    def asked(self: Any, *_: Any) -> Any:
        if said is None:
            pytest.fail("a method of a subclass ran")
        return said

    names = ("dtype", "ndim", "kind", "itemsize", "real")
    methods = dict.fromkeys(("__float__", "__index__", "__array__", "item"), asked)
    return type("Hostile", (base,), {**methods, **dict.fromkeys(names, property(asked))})


SCALARS = [np.float32, np.float64, *(dtype.type for dtype in HALVES)]


@pytest.mark.parametrize("said", [None, object(), -1, np.dtype(np.float64)], ids=str)
@pytest.mark.parametrize("scalar", SCALARS, ids=lambda scalar: scalar.__name__)
def test_a_scalar_is_what_its_type_is(scalar: Any, said: Any) -> None:
    dtype = np.float64 if scalar is np.float64 else np.float32
    params = [np.ones((), dtype), np.ones(3, dtype)]
    expected = copied(params)
    state, other = fm.init(params, lr=0.1), reference.init(expected, lr=0.1)
    for value in (-1.0, 0.75, -0.0, math.inf, math.nan):
        fm.step(params, [hostile(scalar, said)(value), np.ones(3, dtype)], state)
        reference.step(expected, [dtype(value), np.ones(3, dtype)], other)
        assert_bits(params, expected)
        assert_bits(state.velocity, other.velocity)


@pytest.mark.parametrize("number", [np.float32, np.float16, np.float64, np.longdouble, np.int8, np.uint64])
def test_a_number_is_what_its_type_is(number: Any) -> None:
    value = hostile(number)(1)
    state = fm.init([np.zeros(2)], lr=value, weight_decay=[value], clip_norm=value)
    fm.step([np.zeros(2)], [np.zeros(2)], state, grad_scale=value)
    assert (state.lr, state.weight_decay, state.clip_norm) == (1, (1,), 1)


class Liar:
    """Says that it is a scalar of NumPy."""

    dtype, ndim, kind = np.dtype(np.float64), 0, "f"
    __class__: Any = np.float64

    def __float__(self) -> float:
        return 0.5


LIARS = [Liar(), mock.MagicMock(spec=np.float64), mock.MagicMock(spec=np.float64(0.5))]


@pytest.mark.parametrize("liar", LIARS, ids=["class", "mock of the type", "mock of a number"])
def test_what_an_object_says_of_itself_does_not_count(liar: Any) -> None:
    params = [np.zeros(()), np.zeros(3)]
    grads = [np.ones(()), np.ones(3)]
    state = fm.adam(params, lr=0.1)
    name = f"{type(liar).__module__}.{type(liar).__qualname__}"
    before = snapshot(state, params, grads)

    def is_refused(path: str, requirement: str, call: Callable[[], Any]) -> None:
        with pytest.raises(
            TypeError, match=rf"^{re.escape(path)} must be a {requirement}, not {re.escape(name)}"
        ):
            call()
        assert snapshot(state, params, grads) == before

    is_refused("grads[0]", r"numpy\.ndarray", lambda: fm.step(params, [liar, grads[1]], state))
    is_refused("grads[1]", r"numpy\.ndarray", lambda: fm.step(params, [grads[0], liar], state))
    is_refused("params[0]", r"numpy\.ndarray", lambda: fm.step([liar, params[1]], grads, state))
    is_refused("grads", r"numpy\.ndarray", lambda: fm.global_norm(liar))
    is_refused("grad_scale", "real number", lambda: fm.step(params, grads, state, grad_scale=liar))
    for setting in (
        "lr",
        "beta1",
        "beta2",
        "eps",
        "weight_decay",
        "clip_norm",
        "clip_value",
        "average_decay",
    ):
        is_refused(setting, "real number", lambda setting=setting: setattr(state, setting, liar))
        is_refused(
            setting, "real number", lambda setting=setting: fm.adam(params, **{"lr": 0.1, setting: liar})
        )
    is_refused("lr[1]", "real number", lambda: setattr(state, "lr", [0.1, liar]))


def test_no_python_code_runs_between_a_check_and_the_first_byte() -> None:
    """It could free the memory that was checked. In a process of its own, in which nothing has been met before."""
    printed = run_python(
        """
        import sys
        import numpy as np
        import fast_momentum as fm
        try:
            from ml_dtypes import bfloat16
        except ImportError:
            bfloat16 = np.float16

        def params():
            return [np.ones((), np.float32), np.ones((3, 50), np.float32), np.ones((50, 3), np.float32).T,
                    np.ones((), np.float32), np.ones(5)[::-1], np.ones(())]

        def grads():
            return [bfloat16(1), np.ones((3, 50), np.float32), np.ones((3, 50), bfloat16),
                    np.float16(1), np.ones(5), np.float64(2)]

        ran = []
        def note(frame, event, _):
            if event == "call":
                ran.append(frame.f_code.co_name)

        for options in ({}, {"clip_norm": 1.0, "average_decay": 0.9}, {"compensated": True, "nonfinite": "skip"}):
            p, g = params(), grads()
            for state in (fm.init(p, lr=0.1, **options), fm.adam(p, lr=0.1, **options)):
                sys.setprofile(note)
                fm.step(p, g, state)
                state.average_decay = 0.9
                fm.step(p, g, state, grad_scale=0.5)
                sys.setprofile(None)
        print(ran)
        """
    )
    assert printed == "[]\n"


def test_memory_is_not_freed_by_a_gradient_that_is_read() -> None:
    """One that would, as soon as it was asked for its dtype, after the memory of the first array was checked."""
    big = np.ones(1 << 20, np.float32)

    class Resizes(np.float32):
        @property
        def dtype(self) -> Any:
            big.resize(0, refcheck=False)
            return np.dtype(np.float32)

        def __float__(self) -> float:
            big.resize(0, refcheck=False)
            return 1.0

    params = [big, np.ones((), np.float32)]
    state = fm.init(params, lr=0.5)
    fm.step(params, [np.ones(1 << 20, np.float32), Resizes(1)], state)
    assert big.shape == (1 << 20,)
    assert (big == 0.5).all()


def test_there_are_enough_bad_calls() -> None:
    assert len(STEP) >= 100
    ids = [bad.id for bad in STEP]
    assert len(ids) == len(set(ids))


FAULTS: dict[str, Callable[[list[Any], list[Any], int], Any]] = {
    "shape": lambda _, g, i: g.__setitem__(i, np.ones(99, g[i].dtype)),
    "dtype": lambda _, g, i: g.__setitem__(i, g[i].astype(np.int32)),
    "read-only": lambda p, _, i: p.__setitem__(i, read_only(p[i])),
    "type": lambda p, _, i: p.__setitem__(i, p[i].tolist()),
    "overlap": lambda p, g, i: g.__setitem__(i, p[i]),
    "misaligned": lambda p, _, i: p.__setitem__(i, misaligned(p[i])),
}


@settings(max_examples=200)
@given(n=st.integers(1, 12), fault=st.sampled_from(sorted(FAULTS)), data=st.data())
def test_a_fault_at_any_index_changes_nothing(n: int, fault: str, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, n - 1))
    rng = np.random.default_rng(n)
    params = [random_like((k + 2,), np.float32, rng) for k in range(n)]
    grads = [random_like((k + 2,), np.float32, rng) for k in range(n)]
    state = fm.init(params, lr=0.1)
    fm.step(params, grads, state)
    FAULTS[fault](params, grads, index)
    before = snapshot(state, params, grads)
    with pytest.raises((TypeError, ValueError), match=rf"^(params|grads)\[{index}\] must "):
        fm.step(params, grads, state)
    assert snapshot(state, params, grads) == before


class Named:
    """A key that shows itself as what would end a message."""

    def __repr__(self) -> str:
        return "<a\0key>"


def test_messages_go_on_after_a_nul() -> None:
    shown = r"<a\x00key>"
    key = Named()
    state = fm.init({key: np.ones(2)}, lr=0.1)
    for call in (
        lambda: fm.init({key: 1.0}, lr=0.1),
        lambda: fm.init({key: np.ones(2)}, lr={key: -1.0}),
        lambda: fm.step({key: np.ones(2)}, {key: np.ones(3)}, state),
        lambda: fm.global_norm({key: ["w"]}),
    ):
        with pytest.raises((TypeError, ValueError)) as info:
            call()
        assert shown in str(info.value)
        assert " must " in str(info.value)
    with pytest.raises(TypeError, match=r"keyword mo\\x00m"):
        fm.init(np.ones(2), lr=0.1, **{"mo\0m": 1})
    with pytest.raises(TypeError, match=r"keyword|z\\x00"):
        state.reset(**{"z\0": 1})
