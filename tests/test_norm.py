"""norm.cpp: one norm for any layout, number of threads and instruction set, bit for bit that of the reference."""

from __future__ import annotations

import math
import re
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_momentum as fm
from fast_momentum import _containers, _core, reference
from helpers import (
    HALVES,
    ISAS,
    LAYOUTS,
    NARROW_CASES,
    Array,
    guarded,
    isa_in_use,
    random_like,
    snapshot,
    threads_in_use,
)

# Around vectors, rows of sixteen lanes, and blocks.
LENGTHS = [0, 1, 2, 7, 15, 16, 17, 31, 33, 255, 256, 257, 4095, 4096, 4097, 8191, 8192, 12_289]


def dtypes() -> list[np.dtype[Any]]:
    return [np.dtype("float32"), np.dtype("float64"), *HALVES]


def assert_norms_agree(containers: Any) -> None:
    """By repr(), which tells any two doubles apart and takes all NaNs alike."""
    found = fm.global_norm(containers)
    assert type(found) is float
    assert repr(found) == repr(reference.global_norm(containers))


def step_with(grads: Any, params: Any = None, **call: Any) -> fm.State:
    """A state that has just stepped with `grads`, its clip_norm infinite."""
    params = _containers.mapped(np.zeros_like, grads) if params is None else params
    state = fm.init(params, lr=0.1, clip_norm=math.inf)
    fm.step(params, grads, state, **call)
    return state


def test_lengths(isa: str, dtype: Any, rng: np.random.Generator) -> None:
    """Several times, as two orders may happen to round alike."""
    for n in LENGTHS:
        for offset in range(4):
            x = guarded(random_like((n,), dtype, rng), offset)
            assert_norms_agree(x)
            assert repr(step_with(x).grad_norm) == repr(reference.global_norm(x))


def test_halves(half: Any, isa: str, rng: np.random.Generator) -> None:
    for n in LENGTHS:
        x = guarded(random_like((n,), half, rng), n % 5)
        assert_norms_agree(x)
        assert repr(step_with(x).grad_norm) == repr(reference.global_norm(x))
        assert repr(step_with(x, np.zeros(n, np.float32)).grad_norm) == repr(reference.global_norm(x))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, isa: str, rng: np.random.Generator) -> None:
    for dtype in dtypes():
        for shape in [(5, 7, 9), (17, 18, 19), (1, 70, 70), (2, 3, 4097), (3, 0, 4), (1, 1, 1)]:
            x = LAYOUTS[layout](random_like(shape, dtype, rng))
            assert_norms_agree(x)
            assert repr(step_with(x, np.zeros(shape, dtype)).grad_norm) == repr(reference.global_norm(x))


def test_any_order_of_axes(dtype: Any, rng: np.random.Generator) -> None:
    """Fortran order is read as it lies only if nothing lies between its elements."""
    base = random_like((30, 31, 32), dtype, rng)
    for x in [
        base.T,
        base.T[::2],
        base.transpose(0, 2, 1),
        base[:, :, 3].T,
        base[0].T[1:],
        np.broadcast_to(base[0], (9, 31, 32)),
    ]:
        assert_norms_agree(x)
        assert repr(step_with(x, np.zeros(x.shape, dtype)).grad_norm) == repr(reference.global_norm(x))


def test_containers(isa: str, rng: np.random.Generator) -> None:
    grads = {
        "a": [random_like((n,), dtype, rng) for n in LENGTHS for dtype in dtypes()],
        "b": (None, np.array(3, np.float32), {"c": [], "d": random_like((), np.float64, rng)}),
        1: np.zeros((3, 0)),
    }
    assert_norms_agree(grads)
    assert_norms_agree(list(reversed(grads["a"])))
    for nothing in ([], {}, [None, None], np.zeros(0), [np.zeros((0, 3), np.float16), None]):
        assert fm.global_norm(nothing) == 0.0
    assert fm.global_norm({"w": np.array([3.0]), "b": np.array([4], np.float16)}) == 5


def test_order_of_arrays(rng: np.random.Generator) -> None:
    """That of the structure given to init, in whatever order the keys of the gradients come."""
    keys = [f"{k}" for k in range(40)]
    params = {key: np.zeros(100) for key in keys}
    different = 0
    for _ in range(10):
        grads = {key: random_like((100,), np.float64, rng) for key in keys}
        shuffled = {key: grads[key] for key in rng.permutation(keys).tolist()}
        norm = step_with(shuffled, params).grad_norm
        assert norm == reference.global_norm(grads) == fm.global_norm(grads)
        different += norm != fm.global_norm(shuffled)
    assert different


@pytest.mark.parametrize("scale", [0.1, 2.0**-20, 1e30, 65536.0])
def test_of_scaled_gradients(scale: float, isa: str, rng: np.random.Generator) -> None:
    """Each is rounded to the dtype that it is worked on in, and may become infinite there."""
    for dtype in dtypes():
        x = random_like((5000,), dtype, rng)
        working = np.float64 if dtype == np.float64 else np.float32
        with np.errstate(over="ignore"):
            scaled = working(scale) * x.astype(working)
        assert repr(step_with(x, np.zeros(5000, working), grad_scale=scale).grad_norm) == repr(
            reference.global_norm(scaled)
        )
    huge = np.array([1e10, 1], np.float32)
    assert step_with(huge, grad_scale=1e30).grad_norm == math.inf
    assert fm.global_norm(huge) == pytest.approx(1e10)


@pytest.mark.parametrize(
    "exponent", [-1074, -1060, -1000, -530, -510, -481, -479, 0, 479, 481, 510, 1000, 1015]
)
def test_neither_overflow_nor_underflow(exponent: int, isa: str, rng: np.random.Generator) -> None:
    for n in (1, 17, 10_000):
        x = np.ldexp(rng.uniform(0.5, 1, n), exponent)
        assert_norms_agree(x)
        assert fm.global_norm(x) == pytest.approx(math.hypot(*x), rel=300 * 2**-53, abs=5e-324)
        assert repr(step_with(x).grad_norm) == repr(reference.global_norm(x))
        assert_norms_agree([x, np.ones(5, np.float32), np.full(3, 1e-300)])


def test_every_narrow_value(isa: str) -> None:
    """NaN and infinities among them; and without them, subnormals and the largest."""
    for half in HALVES:
        every = np.arange(2**16, dtype=np.uint16).view(half)
        with np.errstate(invalid="ignore"):  # from NaNs that signal
            assert math.isnan(fm.global_norm(every))
            finite = every[np.isfinite(every)]
        assert_norms_agree(finite)
        assert_norms_agree(finite[::-3])
        for value in finite[::97]:
            assert_norms_agree(np.full(3, value))
    for cases in NARROW_CASES.values():
        values = cases()
        assert_norms_agree(values[np.isfinite(values)])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("n", [1, 16, 17, 37, 4096, 4100])
def test_nan_and_infinity(n: int, bad: float, isa: str) -> None:
    for dtype in dtypes():
        for place in {0, n // 2, n - 1, n & -16 if n > 16 else 0}:
            x = np.ones(n, dtype)
            x[place % n] = bad
            assert repr(fm.global_norm(x)) == repr(abs(bad))
            assert repr(fm.global_norm([np.ones(9), x, None])) == repr(abs(bad))
            assert repr(step_with(x).grad_norm) == repr(abs(bad))
    both = np.array([math.inf, math.nan], np.float32)
    assert math.isnan(fm.global_norm(both))


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads(threads: int, rng: np.random.Generator) -> None:
    shapes: list[tuple[int, ...]] = [(1,), (400_003,), (0,), (333, 777), (17,), (100_000,), (5, 5)]
    grads = [
        random_like(shape, dtype, rng) for shape, dtype in zip(shapes, [*dtypes(), *dtypes()], strict=False)
    ]
    grads[3] = np.asfortranarray(grads[3])
    grads.append(random_like((700, 600), np.float32, rng)[::2, ::3])
    expected = reference.global_norm(grads)
    for isa in ISAS:
        with threads_in_use(threads), isa_in_use(isa):
            assert fm.global_norm(grads) == expected
            assert step_with(grads).grad_norm == expected


@st.composite
def gradients(draw: st.DrawFn) -> Array:
    """An array of any dtype and strides, of one magnitude or of all."""
    dtype = draw(st.sampled_from(dtypes()))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = 300 if dtype == np.float64 else 37
    lowest, highest = sorted(draw(st.tuples(st.integers(-most, most), st.integers(-most, most))))
    with np.errstate(over="ignore", under="ignore"):
        x = np.asarray(rng.normal(size=shape) * 10.0 ** rng.uniform(lowest, highest, shape)).astype(dtype)
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    return x[(*(slice(None, None, draw(st.sampled_from([1, 1, 2, -1]))) for _ in shape), ...)]


@settings(max_examples=200)
@given(
    grads=st.lists(gradients() | st.none(), max_size=4),
    isa=st.sampled_from(ISAS),
    threads=st.sampled_from([1, 2]),
)
def test_equals_the_reference(grads: list[Any], isa: str, threads: int) -> None:
    with isa_in_use(isa), threads_in_use(threads):
        assert_norms_agree(grads)
        params = [np.zeros(0 if g is None else g.shape, np.float32 if g is None else g.dtype) for g in grads]
        assert repr(step_with(grads, params).grad_norm) == repr(reference.global_norm(grads))


def test_order_is_no_matter_of_grouping(rng: np.random.Generator) -> None:
    """Whole blocks may lie in one array or in several."""
    x = random_like((3 * 4096 + 50,), np.float64, rng)
    whole = fm.global_norm(x)
    assert whole == fm.global_norm([x[k : k + 4096] for k in range(0, x.size, 4096)])
    assert whole == fm.global_norm([x[:8192], np.zeros(0), None, x[8192:]])
    assert whole == fm.global_norm(np.append(x, np.zeros(4096 - 50)))


def test_nothing_is_written(rng: np.random.Generator) -> None:
    grads = [guarded(random_like((n,), dtype, rng), 3) for n in (1, 700, 4099) for dtype in dtypes()]
    for array in grads:
        array.flags.writeable = False
    before = snapshot(None, grads)
    fm.global_norm(grads)
    assert snapshot(None, grads) == before


def unaligned(dtype: str) -> Array:
    return np.zeros(33, np.uint8)[1:].view(dtype)


DTYPES = ", ".join(_core.config()["dtypes"]) + ", float16 or bfloat16"
BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("a float", 1.0, TypeError, "grads must be a numpy.ndarray, not float; make it a 0-d array, as numpy.array(1.0) is"),
    ("a string", {"w": "x"}, TypeError, "grads['w'] must be a numpy.ndarray, not str"),
    ("a list of floats", [[1.0]], TypeError, "grads[0][0] must be a numpy.ndarray, not float; "
     "make numbers an array, by numpy.array() of the list, or each a 0-d array, by numpy.array(1.0)"),
    ("integers", [np.ones(3, int)], TypeError,
     f"grads[0] must have dtype {DTYPES}, not int64; pass a copy, made by .astype('float64'), which rounds above 2**53"),
    ("big-endian", {"a": {"b": np.ones(3, ">f8")}}, TypeError,
     "grads['a']['b'] must be in native byte order, not >f8; pass a copy, made by .astype('float64')"),
    ("big-endian halves", np.ones(3, ">f2"), TypeError,
     "grads must be in native byte order, not >f2; pass a copy, made by .astype('float16')"),
    ("objects", np.ones(3, object), TypeError, f"grads must have dtype {DTYPES}, not object; if it holds arrays, pass list() of it"),
    ("masked", [np.ma.ones(3)], TypeError,
     "grads[0] must be a numpy.ndarray, not numpy.ma.MaskedArray; its mask would be ignored, pass its .data or .filled()"),
    ("misaligned", [unaligned("f8")], ValueError,
     "grads[0] must be aligned in memory, not at addresses that are no multiple of 8; pass a copy, made by .copy()"),
    ("misaligned halves", unaligned("f2"), ValueError,
     "grads must be aligned in memory, not at addresses that are no multiple of 2; pass a copy, made by .copy()"),
]  # fmt: skip


@pytest.mark.parametrize(("grads", "error", "message"), [c[1:] for c in BAD], ids=[c[0] for c in BAD])
def test_refuses(grads: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$") as raised:
        fm.global_norm(grads)
    assert type(raised.value) is error


def test_refuses_what_has_no_end() -> None:
    loop: list[Any] = [np.ones(2)]
    loop.append(loop)
    with pytest.raises(ValueError, match=r"^grads"):
        fm.global_norm(loop)
