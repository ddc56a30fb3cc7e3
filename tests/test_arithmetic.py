"""arithmetic.hpp: the bits do not depend on what a thread's arithmetic was set to by another library."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import platform
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import KINDS, bits, leaves, make, model_of, option_id, threads_in_use

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

if sys.platform == "win32":
    pytest.skip("sets the arithmetic by the C library of Unix", allow_module_level=True)

LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
MACHINE = platform.machine()

# Of fegetround() and fesetround().
ROUNDING = {"x86_64": {"down": 0x400, "up": 0x800, "to zero": 0xC00},
            "aarch64": {"up": 0x400000, "down": 0x800000, "to zero": 0xC00000}}  # fmt: skip
# The word of fenv_t that is the control register, the bits in it that make 0 of subnormal numbers, and all that
# are no flags.
FLUSH = {"x86_64": (7, 0x8040, 0xFFC0), "aarch64": (0, 1 << 24, ~0)}
SETTINGS = [*ROUNDING.get(MACHINE, []), *(["flush"] if MACHINE in FLUSH else [])]


@contextlib.contextmanager
def arithmetic(setting: str) -> Iterator[None]:
    """Rounding or subnormal numbers in another way, in this thread; what is done meanwhile leaves it so."""
    before, changed, after = ((ctypes.c_uint32 * 16)() for _ in range(3))
    word, flushing, control = FLUSH[MACHINE]
    LIBM.fegetenv(before)
    try:
        if setting == "flush":
            changed[:] = before
            changed[word] |= flushing
            LIBM.fesetenv(changed)
        else:
            assert LIBM.fesetround(ROUNDING[MACHINE][setting]) == 0
            LIBM.fegetenv(changed)
        yield
        LIBM.fegetenv(after)
        assert after[word] & control == changed[word] & control != before[word] & control
    finally:
        LIBM.fesetenv(before)


def run(data: list[NDArray[Any]], **kind: Any) -> list[NDArray[Any]]:
    """Three steps and all else that computes, from data that was made before."""
    params, *grads = [values.copy() for values in data]
    state = make(fm, params, lr=0.1, average_decay=0.9, **kind)
    found = []
    for g in grads:
        fm.step(params, g, state, grad_scale=0.3)
        found.append(params.copy())
    fm.step(params, grads[0], state, zero_grads=True)
    if state.rule == "momentum" and not state.nesterov:
        found.append(fm.lookahead(params, state))
    state.set_lr(0.07)
    found += [np.array(fm.global_norm(grads[1])), *leaves(model_of(state)), params]
    again = make(fm, params, lr=0.1, average_decay=0.9, **kind)
    again.load_state_dict(state.state_dict())
    return [*found, *leaves(model_of(again)), *([] if again.average is None else leaves(again.average))]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", [{}, {"form": "ema"}, *KINDS], ids=option_id)
def test_bits_do_not_depend_on_it(kind: dict[str, Any], setting: str, threads: int, dtype: Any,
                                  rng: np.random.Generator) -> None:  # fmt: skip
    n = 70_000 if threads > 1 else 1000
    tiny = np.finfo(dtype).tiny * 30
    data = [(rng.normal(size=n) * scale).astype(dtype) for scale in (1, 1, tiny, 1, 1)]
    for values in data:
        values[::2] *= np.asarray(tiny, dtype)
    with threads_in_use(threads):
        expected = run(data, **kind)
        with arithmetic(setting):
            found = run(data, **kind)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bits(f), bits(e))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("stored", ["float16", "bfloat16", "int8"])
def test_bits_of_low_precision(stored: str, setting: str, rng: np.random.Generator) -> None:
    data = [(rng.normal(size=1000) * 10.0 ** rng.integers(-9, 2, 1000)).astype(np.float32) for _ in range(4)]
    expected = run(data, velocity_dtype=stored)
    with arithmetic(setting):
        found = run(data, velocity_dtype=stored)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bits(f), bits(e))


@pytest.mark.parametrize("setting", SETTINGS)
def test_bits_of_the_c_interface(setting: str, rng: np.random.Generator) -> None:
    capsule = _core._pyx_capi["step_float32"]  # type: ignore[attr-defined]
    name, pointer = ctypes.pythonapi.PyCapsule_GetName, ctypes.pythonapi.PyCapsule_GetPointer
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    floats = ctypes.POINTER(ctypes.c_float)
    step = ctypes.CFUNCTYPE(ctypes.c_int, floats, floats, floats, ctypes.c_int64, ctypes.c_int, ctypes.c_int,
                            *[ctypes.c_double] * 4)(pointer(capsule, name(capsule)))  # fmt: skip
    data = [(rng.normal(size=1000) * 1e-37).astype(np.float32) for _ in range(3)]

    def after() -> list[NDArray[Any]]:
        arrays = [values.copy() for values in data]
        pointers = [values.ctypes.data_as(floats) for values in arrays]
        assert step(*pointers, 1000, 0, 0, 0.1, 0.9, 0.0, 0.3) == 0
        return arrays

    expected = after()
    with arithmetic(setting):
        found = after()
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bits(f), bits(e))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
@pytest.mark.parametrize("value", [1e-40, 1e-46, 1 - 2**-26, 3.4028235677973366e38, 3.4028235e38])
def test_what_is_refused_does_not_depend_on_it(name: str, value: float, setting: str) -> None:
    """By init, setters, and what loads, which round numbers to float32."""
    params = np.ones(2, np.float32)

    def outcomes() -> list[str]:
        state = fm.init(params, lr=0.5)
        saved = state.state_dict()
        saved["hyperparameters"][name] = value
        found = []
        for call in (lambda: fm.init(params, **{"lr": 0.5, name: value}), lambda: setattr(state, name, value),
                     lambda: state.load_state_dict(saved), lambda: fm.step(params.copy(), params, state)):  # fmt: skip
            try:
                call()
                found.append("taken")
            except ValueError as error:
                found.append(str(error))
        return found

    expected = outcomes()
    with arithmetic(setting):
        found = outcomes()
    assert found == expected


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_settings_are_what_they_are_said_to_be(setting: str) -> None:
    """That the tests above would notice."""
    one, third, tiny = np.float32(1), np.float32(3), np.float32(1e-38)
    nearest, subnormal = (one / third, -one / third), tiny / np.float32(16)
    with arithmetic(setting):
        flushed, rounded = tiny / np.float32(16), (one / third, -one / third)
    assert flushed == 0 != subnormal if setting == "flush" else rounded != nearest


def test_in_threads_that_openmp_has_already(rng: np.random.Generator) -> None:
    """Another library that uses them, too, may have set their arithmetic."""
    threadpoolctl = pytest.importorskip("threadpoolctl")
    paths = [info["filepath"] for info in threadpoolctl.threadpool_info() if "libgomp" in info["filepath"]]
    if len(paths) != 1 or "up" not in SETTINGS:
        pytest.skip("needs the one OpenMP of gcc that the module uses")
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    parallel = ctypes.CDLL(paths[0]).GOMP_parallel
    parallel.argtypes = [body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]

    def set_all(value: int) -> None:
        parallel(body(lambda _: LIBM.fesetround(value)), None, 2, 0)

    data = [rng.normal(size=300_000).astype(np.float32) for _ in range(4)]
    with threads_in_use(2):
        expected = run(data)
        set_all(ROUNDING[MACHINE]["up"])
        try:
            found = run(data)
        finally:
            set_all(0)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(bits(f), bits(e))
