"""pass.cpp, stages.hpp and storage.hpp: the whole update in one pass, against the reference, bit for bit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_momentum as fm
from fast_momentum import reference
from fuzz_inputs import SEEDS, strided
from helpers import (
    DECAYS,
    HALVES,
    ISAS,
    LAYOUTS,
    NAN_PATTERNS,
    NARROW_CASES,
    OPTIONS,
    Array,
    assert_bits,
    assert_guards,
    assert_states_agree,
    assert_steps_agree,
    both_states,
    copied,
    guarded,
    isa_in_use,
    leaves,
    make,
    random_like,
    storable,
    threads_in_use,
)

# Options beside those of helpers.OPTIONS; grad_scale and zero_grads are for step().
ALONE: list[dict[str, Any]] = [
    {"clip_norm": 1.0},
    {"clip_norm": math.inf},
    {"clip_value": 0.7},
    {"nonfinite": "skip"},
    {"nonfinite": "raise"},
    {"average_decay": 0.9},
    {"grad_scale": 0.3},
    {"zero_grads": True},
    {"compensated": True},
    {"velocity_dtype": "float32"},
    {"velocity_dtype": "float16"},
    {"velocity_dtype": "bfloat16"},
    {"velocity_dtype": "int8"},
]
TOGETHER: list[dict[str, Any]] = [
    {"clip_norm": 2.0, "grad_scale": 1 / 3, "average_decay": 0.99, "zero_grads": True},
    {"clip_norm": 3.0, "average_decay": 0.9, "zero_grads": True, "velocity_dtype": "bfloat16"},
    {"clip_value": 0.5, "grad_scale": 2.5, "compensated": True, "velocity_dtype": "int8", "nonfinite": "skip"},
    {"grad_scale": 0.7, "compensated": True, "velocity_dtype": "float16", "zero_grads": True},
    {"clip_norm": 2.0, "nonfinite": "skip", "grad_scale": 0.1, "average_decay": 0.5, "velocity_dtype": "int8"},
    {"clip_norm": 1.0, "compensated": True, "average_decay": 0.8, "velocity_dtype": "int8", "zero_grads": True},
    {"clip_value": 0.6, "velocity_dtype": "bfloat16"},
]  # fmt: skip
EXTRAS = ALONE + TOGETHER

# The dtypes of parameters and gradients.
KINDS = [
    ("float32", "float32"), ("float64", "float64"), ("float32", "float16"), ("float32", "bfloat16"),
    ("float16", "float16"), ("float16", "float32"), ("float16", "bfloat16"), ("bfloat16", "bfloat16"),
    ("bfloat16", "float32"),
]  # fmt: skip


def id_of(value: Any) -> str:
    if isinstance(value, dict):
        return "-".join(f"{k}={v:.2g}" if isinstance(v, float) else f"{k}={v}" for k, v in value.items())
    return " ".join(value)


def pairs(kinds: list[tuple[str, str]], extras: list[dict[str, Any]]) -> Any:
    """Each of `kinds` with each of `extras` that init() does not refuse for it."""

    def goes_together(kind: tuple[str, str], extra: dict[str, Any]) -> bool:
        if kind[0] == "float64":
            return "velocity_dtype" not in extra
        return kind[0] == "float32" or not (extra.get("compensated") and "average_decay" in extra)

    found = [(kind, extra) for kind in kinds for extra in extras if goes_together(kind, extra)]
    return pytest.mark.parametrize(("kind", "extra"), found, ids=id_of)


def dtypes(kind: tuple[str, str]) -> tuple[Any, Any]:
    here = {dtype.name: dtype for dtype in [np.dtype("float32"), np.dtype("float64"), *HALVES]}
    if "bfloat16" in kind and "bfloat16" not in here:
        pytest.skip("ml_dtypes, which has bfloat16, is not installed")
    return here[kind[0]], here[kind[1]]


def for_init_and_step(extra: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    call = {key: value for key, value in extra.items() if key in ("grad_scale", "zero_grads")}
    return {key: value for key, value in extra.items() if key not in call}, call


# ---- options, lengths, layouts ----


@pairs(KINDS[:2], EXTRAS)
def test_every_form_with_every_option(
    kind: tuple[str, str], extra: dict[str, Any], isa: str, rng: np.random.Generator
) -> None:
    dtype, _ = dtypes(kind)

    def model() -> dict[str, Any]:
        return {"b": random_like((), dtype, rng), "w": [random_like((n,), dtype, rng) for n in (1, 37, 0)]}

    for options in OPTIONS:
        assert_steps_agree(model(), [model() for _ in range(3)], **storable({**options, **extra}))


# Around vectors, blocks of 256, 512 and 4096, and several of each.
LENGTHS = [*range(4), 7, 8, 9, 15, 16, 17, 31, 33, 255, 256, 257, 511, 512, 513, 769, 1025, 1543,
           4095, 4096, 4097]  # fmt: skip


@pairs(KINDS, EXTRAS)
def test_lengths_and_offsets(
    kind: tuple[str, str], extra: dict[str, Any], isa: str, rng: np.random.Generator
) -> None:
    """Arrays that begin at each place in a vector, each operand at another one; nothing outside them is touched."""
    param_dtype, grad_dtype = dtypes(kind)

    def arrays(shift: int, dtype: Any) -> list[Array]:
        return [guarded(random_like((n,), dtype, rng), (k + shift) % 8) for k, n in enumerate(LENGTHS)]

    params = arrays(0, param_dtype)
    grads = [arrays(shift, grad_dtype) for shift in (2, 5)]
    options = OPTIONS[(KINDS.index(kind) + 5 * EXTRAS.index(extra)) % len(OPTIONS)]
    assert_steps_agree(params, grads, **storable({**options, **extra}))
    for array in [*params, *grads[0], *grads[1]]:
        assert_guards(array)


SHAPE = (5, 7, 9)


@pairs([("float32", "float32"), ("float64", "float64"), ("float16", "float32")], TOGETHER)
def test_layouts(kind: tuple[str, str], extra: dict[str, Any], rng: np.random.Generator) -> None:
    """Each operand in its own layout: parameters, gradients, and the array given to init, whose order the state has."""
    param_dtype, grad_dtype = dtypes(kind)
    options, call = for_init_and_step(extra)
    names = list(LAYOUTS)
    for k, (param_layout, grad_layout) in enumerate((a, b) for a in names for b in names):
        init_layout = names[k % 7]
        params = LAYOUTS[param_layout](random_like(SHAPE, param_dtype, rng))
        expected = params.copy()
        state, expected_state = both_states(LAYOUTS[init_layout](params), lr=0.1, nesterov=True, **options)
        for _ in range(2):
            grads = LAYOUTS[grad_layout](random_like(SHAPE, grad_dtype, rng))
            reference.step(expected, grads, expected_state, grad_scale=call.get("grad_scale", 1.0))
            fm.step(params, grads, state, **call)
            assert_bits(params, expected)
            assert_states_agree(state, expected_state)
            assert not call.get("zero_grads") or not grads.any()
        for array, layout in [(params, param_layout), (grads, grad_layout)]:
            if "sliced" in layout or "second" in layout:
                assert_guards(array)


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_the_other_memory_order(threads: int, rng: np.random.Generator) -> None:
    """They are turned, several rows and columns at a time; what is left over is at each edge, and at seams of threads."""
    shapes = [(37, 300), (5, 3), (2, 19, 517), (33, 4099)]
    kinds: list[dict[str, Any]] = [
        {}, {"average_decay": 0.9, "grad_scale": 0.3, "zero_grads": True}, {"rule": "adam"},
        {"compensated": True}, {"velocity_dtype": "int8"},
    ]  # fmt: skip
    for shape, kind, dtype in itertools.product(shapes, kinds, (np.float32, np.float64)):
        if "velocity_dtype" in kind and dtype is np.float64:
            continue
        grads = [random_like((*shape[:-2], *shape[:-3:-1]), dtype, rng).swapaxes(-1, -2) for _ in range(2)]
        params = random_like(shape, dtype, rng)
        with threads_in_use(threads):
            assert_steps_agree(params, [grad.copy("K") for grad in grads], lr=0.1, **kind)
            assert_steps_agree(np.asfortranarray(params), [grad.copy() for grad in grads], lr=0.1, **kind)


def test_strided_blocks_and_seams(dtype: Any, rng: np.random.Generator) -> None:
    """Views longer than the blocks in which a pass works, with rows on both sides of a seam."""
    for shape in [(3, 511), (2, 512), (513, 3), (7, 1025), (1700, 1), (1, 1700), (40, 41), (3, 4097)]:
        base, grad_base = (random_like((shape[0] * 2, shape[1] * 3), dtype, rng) for _ in range(2))
        around, grad_around = base.copy(), grad_base.copy()
        params, grads = base[::2, ::3], grad_base[1::2, ::-3]
        assert_steps_agree(
            params, [grads], lr=0.1, clip_norm=1.0, average_decay=0.9, zero_grads=True, compensated=True
        )
        around[::2, ::3] = params
        grad_around[1::2, ::-3] = 0
        assert_bits(base, around)
        assert_bits(grad_base, grad_around)


def test_broadcast_gradients(rng: np.random.Generator) -> None:
    params = random_like((6, 500), np.float32, rng)
    row, column = random_like((500,), np.float32, rng), random_like((6, 1), np.float32, rng)
    grads = [np.broadcast_to(g, (6, 500)) for g in (row, column, row[:1])]
    for half in HALVES:
        grads.append(np.broadcast_to(row.astype(half), (6, 500)))
    assert_steps_agree(
        params, grads, lr=0.1, clip_norm=1.0, grad_scale=0.5, average_decay=0.5, velocity_dtype="int8"
    )


def test_scalars_as_gradients_of_0d_arrays(rng: np.random.Generator) -> None:
    for dtype in [np.dtype("float32"), *HALVES]:
        params, expected = ([np.array(1.5, np.float32), np.ones(3, np.float32)] for _ in range(2))
        state, expected_state = both_states(params, lr=0.1, clip_norm=1.0, velocity_dtype="bfloat16")
        grads = [dtype.type(0.75), random_like((3,), dtype, rng)]
        fm.step(params, grads, state, grad_scale=3.0)
        reference.step(expected, grads, expected_state, grad_scale=3.0)
        assert_bits(params, expected)
        assert_states_agree(state, expected_state)


def test_arrays_of_all_dtypes_in_one_call(rng: np.random.Generator) -> None:
    """Clipped by one norm, in whatever order the keys of the gradients come."""
    here = {"float32", "float64", *(half.name for half in HALVES)}
    kinds = [kind for kind in KINDS if {*kind} <= here]
    params = {kind: random_like((300,), dtypes(kind)[0], rng) for kind in kinds}
    expected = copied(params)
    state, expected_state = both_states(params, lr=0.1, clip_norm=2.0, average_decay=0.9, nonfinite="skip")
    for _ in range(3):
        grads = {kind: random_like((300,), dtypes(kind)[1], rng) for kind in reversed(kinds)}
        fm.step(params, grads, state, grad_scale=0.7)
        reference.step(expected, grads, expected_state, grad_scale=0.7)
        assert_bits(params, expected)
        assert_states_agree(state, expected_state)


# ---- any model, any options ----


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any) -> Any:
    """Random numbers with any order of axes and any steps, guarded by 77."""
    return strided(draw, random_like(shape, dtype, np.random.default_rng(draw(SEEDS))))


@st.composite
def models(draw: st.DrawFn) -> tuple[list[Any], list[list[Any]]]:
    """Parameters, and gradients for three steps, each array with strides of its own."""
    narrow = [np.dtype("float32"), *HALVES]
    shapes = draw(st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9), max_size=4))
    params, grads = [], [[], [], []]
    for shape in shapes:
        dtype = draw(st.sampled_from([*narrow, np.dtype("float64")]))
        params.append(draw(arrays(shape, dtype)))
        for step_grads in grads:
            grad_dtype = dtype if dtype == np.float64 else draw(st.sampled_from(narrow))
            step_grads.append(draw(st.none() | arrays(shape, grad_dtype)))
    return params, grads


@st.composite
def settings_for(draw: st.DrawFn, params: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keywords for init() and for step() that go together with `params`."""
    options: dict[str, Any] = {
        "nonfinite": draw(st.sampled_from(["propagate", "raise", "skip"])),
        "compensated": draw(st.booleans()),
        draw(st.sampled_from(["clip_norm", "clip_value"])): draw(st.none() | st.floats(0.01, 100)),
    }
    if not options["compensated"] or all(p.dtype.itemsize > 2 for p in params):
        options["average_decay"] = draw(st.none() | st.just(0.0) | st.floats(1e-6, 0.9999))
    if all(p.dtype != np.float64 for p in params):
        options["velocity_dtype"] = draw(st.sampled_from([None, "float16", "bfloat16", "int8"]))
    call = {"grad_scale": draw(st.floats(1e-3, 1e3)), "zero_grads": draw(st.booleans())}
    return options, call


@settings(max_examples=200)
@given(data=st.data(), isa=st.sampled_from(ISAS), threads=st.sampled_from([1, 2]))
def test_equals_the_reference(data: st.DataObject, isa: str, threads: int) -> None:
    params, grads = data.draw(models())
    options, call = data.draw(settings_for(params))
    options = storable({**options, **data.draw(st.sampled_from(OPTIONS))})
    expected = copied(params)
    state, expected_state = both_states(params, **options)
    with isa_in_use(isa), threads_in_use(threads):
        for g in grads:
            reference.step(expected, g, expected_state, grad_scale=call["grad_scale"])
            fm.step(params, g, state, **call)
            assert_bits(params, expected)
            assert_states_agree(state, expected_state)
            assert not call["zero_grads"] or not any(x is not None and x.any() for x in g)
    for array in [*params, *(x for g in grads for x in g if x is not None)]:
        assert_guards(array)


# ---- what is special ----


@pytest.mark.parametrize("name", NARROW_CASES)
def test_stored_velocities(name: str, isa: str) -> None:
    """Every value of the dtype, ties, their neighbours, NaN, infinities and subnormals, at each place in a vector. The
    first velocity is the gradient, and the parameter sees it as it was before it was stored."""
    cases = NARROW_CASES[name]()
    for shift in (0, 1, 3, 6):
        check_stored(cases[shift:], name)


def check_stored(g: Array, name: str) -> None:
    p = np.zeros(g.size, np.float32)
    state = fm.init(p, lr=1.0, velocity_dtype=name)
    fm.step(p, g, state)
    with np.errstate(all="ignore"):
        v = np.float32(0) + g  # which is not -0
        assert_bits(p, np.float32(0) - v)
        stored = reference.round_to(v, name)
        assert_bits(state.velocity, stored)
        fm.step(p, np.zeros_like(g), state)  # reads it
        assert_bits(state.velocity, reference.round_to(np.float32(0.9) * stored + np.float32(0), name))


def test_stored_parameters(half: Any, isa: str) -> None:
    """The same, for parameters: from zero, a step of -1 times the gradient."""
    cases = NARROW_CASES[half.name]()
    for compensated in (False, True):
        for shift in (0, 1, 3, 6):
            g = cases[shift:]
            p, expected = np.zeros(g.size, half), np.zeros(g.size, half)
            state, expected_state = both_states(p, lr=1.0, maximize=True, compensated=compensated)
            for _ in range(2):
                fm.step(p, g, state)
                reference.step(expected, g, expected_state)
                assert_bits(p, expected)
                assert_states_agree(state, expected_state)


def test_every_value_as_a_gradient(half: Any, isa: str) -> None:
    every = np.arange(2**16, dtype=np.uint16).view(half)
    for shift in (0, 1, 5):
        g = every[shift:]
        for scale in (1.0, 0.75):
            p, expected = np.zeros(g.size, np.float32), np.zeros(g.size, np.float32)
            state, expected_state = both_states(p, lr=1.0)
            fm.step(p, g, state, grad_scale=scale)
            with np.errstate(invalid="ignore"):  # from NaNs that signal
                reference.step(expected, g, expected_state, grad_scale=scale)
            assert_bits(p, expected)
            assert_states_agree(state, expected_state)


def int8_cases(rng: np.random.Generator) -> Array:
    """Blocks that are zero, tiny, huge, full of ties, and with a NaN or an infinity at each place in a vector."""
    ties = np.append(np.arange(-126.5, 127), [127, 0]).astype(np.float32)
    blocks = [np.zeros(256), -np.zeros(256), ties]
    blocks += [np.ldexp(ties, power) for power in (-126, -127, -133, -60, 120)]
    blocks += [
        np.full(256, value) for value in (126 * 2.0**-126, 127 * 2.0**-126, -1e-45, 3.4e38, -3.4028235e38)
    ]
    blocks += [rng.normal(size=256) * 10.0 ** rng.integers(-44, 38) for _ in range(20)]
    for k in range(40):
        block = rng.normal(size=256).astype(np.float32)
        block.view(np.uint32)[(k * 13) % 256] = [*NAN_PATTERNS, 0x7F800000, 0xFF800000][k % 7]
        blocks.append(block)
    with np.errstate(over="ignore"):
        return np.concatenate([block.astype(np.float32) for block in blocks])


@pytest.mark.parametrize("last", [0, 1, 3, 8, 31, 255])
def test_int8_velocities(last: int, isa: str, rng: np.random.Generator) -> None:
    g = int8_cases(rng)
    check_stored(np.concatenate([g, g[256 * 2 : 256 * 2 + last]]), "int8")


@pytest.mark.parametrize("position", [0, 5, 16, 31, 255, 256, 511, 519])
@pytest.mark.parametrize("pattern", NAN_PATTERNS, ids=hex)
def test_int8_keeps_nan(pattern: int, position: int, isa: str) -> None:
    """Whatever its payload: in the scale of a block it must not become a number."""
    g = np.ones(520, np.float32)
    g.view(np.uint32)[position] = pattern
    p = np.zeros(520, np.float32)
    state = fm.init(p, lr=1.0, velocity_dtype="int8")
    fm.step(p, g, state)
    np.testing.assert_array_equal(np.isnan(state.velocity), np.arange(520) // 256 == position // 256)


@pairs(
    [("float32", "float32"), ("float64", "float64"), ("bfloat16", "bfloat16")],
    [extra for extra in EXTRAS if extra.get("nonfinite") != "raise"],
)
def test_special_values(kind: tuple[str, str], extra: dict[str, Any], isa: str) -> None:
    """NaN, infinities, zeros with sign, subnormals and the largest, each with each, in body and tail."""
    param_dtype, grad_dtype = dtypes(kind)
    options, call = for_init_and_step(extra)
    with np.errstate(over="ignore"):
        special = np.array(
            [math.nan, math.inf, -math.inf, 0, -0.0, 1, -1, 3, 1e-45, -1e-39, 1e-38, 3.3e38, 5e-324, 1e308]
        )
        special = special.astype(param_dtype)
    p, g = (a.ravel().copy() for a in np.meshgrid(special, special))
    g = g.astype(grad_dtype)
    finite = np.where(np.isfinite(g), g, 1).astype(grad_dtype)
    for decay, nesterov in itertools.product(DECAYS, [False, True]):
        params, expected = p.copy(), p.copy()
        state, expected_state = both_states(params, lr=0.1, nesterov=nesterov, **decay, **options)
        for step_grads in (finite, g, -finite, g[::-1]):
            reference.step(expected, step_grads, expected_state, grad_scale=call.get("grad_scale", 1.0))
            fm.step(params, step_grads.copy(), state, **call)
            assert_bits(params, expected)
            assert_states_agree(state, expected_state)


def test_halves_move(half: Any, isa: str) -> None:
    """Many steps, each below half a unit in the last place of the parameters, move them all the same."""
    for compensated in (False, True):
        p = np.ones(37, half)
        state = fm.init(p, lr=2.0**-14, momentum=0.0, compensated=compensated)
        for _ in range(2**12):
            fm.step(p, np.ones(37, half), state)
        assert p.astype(float).tolist() == [0.75] * 37


def test_compensation_loses_nothing(isa: str) -> None:
    """200 000 updates of a sixteenth of a unit in the last place: a plain step loses all, this none, exactly."""
    steps, tiny = 200_000, 2.0**-28
    p, plain, g = np.ones(3, np.float32), np.ones(3, np.float32), np.array([tiny, -tiny, 0], np.float32)
    state = fm.init(p, lr=1.0, momentum=0.0, compensated=True)
    without = fm.init(plain, lr=1.0, momentum=0.0)
    for _ in range(steps):
        fm.step(p, g, state)
        fm.step(plain, g, without)
    assert plain.tolist() == [1, 1, 1]
    c = state.state_dict()["compensation"][""]
    assert (p.astype(float) - c).tolist() == [1 - steps * tiny, 1 + steps * tiny, 1]
    assert np.abs(p - np.array([1 - steps * tiny, 1 + steps * tiny, 1])).max() <= 2.0**-23


# ---- calls ----


def test_what_is_switched_between_steps(rng: np.random.Generator) -> None:
    params = [random_like((9,), np.float32, rng), random_like((600,), np.float64, rng)]
    expected = copied(params)
    state, other = both_states(params, lr=0.1)
    schedule: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}), ({"clip_norm": 1}, {}), ({"clip_norm": np.float32(0.3)}, {"grad_scale": np.float32(0.1)}),
        ({"clip_norm": math.inf}, {}), ({"clip_norm": None, "clip_value": 0.5}, {"grad_scale": 2}),
        ({"average_decay": 0.9}, {}), ({"nonfinite": "skip", "lr": (0.1, 0.3)}, {"grad_scale": np.float64(1)}),
        ({"average_decay": None}, {}), ({"momentum": 0.5, "clip_value": None}, {}), ({"average_decay": 0.0}, {}),
        ({"average_decay": np.float32(0.7), "clip_norm": 3.0}, {"grad_scale": 0.25}), ({"clip_norm": None}, {}),
    ]  # fmt: skip
    for changes, call in schedule:
        for name, value in changes.items():
            setattr(state, name, value)
            setattr(other, name, value)
        grads = [random_like(p.shape, p.dtype, rng) for p in params]
        fm.step(params, grads, state, **call)
        reference.step(expected, grads, other, **call)
        assert_bits(params, expected)
        assert_states_agree(state, other)


@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_gradients_that_are_none(nonfinite: str, rng: np.random.Generator) -> None:
    """They count for nothing in the norm; the average goes on; a call with nothing but None is a step."""
    params = [random_like((n,), dtype, rng) for n, dtype in [(5, "f4"), (300, "f4"), (7, "f8"), (9, "f2")]]
    expected = copied(params)
    options = {"clip_norm": 1.0, "average_decay": 0.9, "nonfinite": nonfinite, "dampening": 0.5}
    state, other = both_states(params, lr=0.1, **options)
    for there in [(1, 0, 1, 0), (0, 1, 0, 1), (0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 0)]:
        grads = [
            random_like(p.shape, p.dtype, rng) if k else None for k, p in zip(there, params, strict=True)
        ]
        fm.step(params, grads, state)
        reference.step(expected, grads, other)
        assert_bits(params, expected)
        assert_states_agree(state, other)
    assert state.step_count == 5


def test_frozen_arrays_stay_as_they_are(half: Any, rng: np.random.Generator) -> None:
    """Without an average, an array without a gradient is not touched, nor is its master copy."""
    params = [random_like((9,), half, rng), random_like((9,), half, rng)]
    state, other = both_states(params, lr=0.1)
    expected = copied(params)
    for k in range(4):
        grads = [random_like((9,), half, rng), random_like((9,), half, rng) if k % 2 else None]
        fm.step(params, grads, state)
        reference.step(expected, grads, other)
        params[1][k] = expected[1][k] = 0.5
        assert_bits(params, expected)
        assert_states_agree(state, other)


def test_master_copies_take_up_changes(half: Any, isa: str, rng: np.random.Generator) -> None:
    """What the user writes into parameters counts from the next step: at any place, and NaN and -0 too."""
    for average in ({}, {"average_decay": 0.5}):
        p = random_like((600,), half, rng)
        expected = p.copy()
        state, other = both_states(p, lr=1e-3, **average)
        for k in range(12):
            g = random_like((600,), half, rng)
            fm.step(p, g, state)
            reference.step(expected, g, other)
            assert_bits(p, expected)
            assert_states_agree(state, other)
            value = [3.5, -0.0, 0.0, math.nan, math.inf, 1e-6][k % 6]
            for place in rng.integers(0, 600, k):
                p[place] = expected[place] = value
        fresh = random_like((600,), half, rng)
        p[...] = expected[...] = fresh  # as loading a checkpoint of the model does
        fm.step(p, fresh, state)
        reference.step(expected, fresh, other)
        assert_bits(p, expected)


@pytest.mark.parametrize("kind", KINDS, ids=id_of)
def test_lookahead(kind: tuple[str, str], isa: str, rng: np.random.Generator) -> None:
    param_dtype, grad_dtype = dtypes(kind)
    for name in [None] if kind[0] == "float64" else [None, "float32", "float16", "bfloat16", "int8"]:
        for layout in ("C", "F", "every second", "reversed"):
            params = [
                LAYOUTS[layout](random_like(SHAPE, param_dtype, rng)),
                random_like((1030,), param_dtype, rng),
            ]
            grads = [
                LAYOUTS["permuted"](random_like(SHAPE, grad_dtype, rng)),
                random_like((1030,), grad_dtype, rng),
            ]
            state, expected_state = both_states(params, lr=0.3, momentum=0.7, velocity_dtype=name)
            expected = copied(params)
            fm.step(params, grads, state)
            reference.step(expected, grads, expected_state)
            points = fm.lookahead(params, state)
            assert_bits(points, reference.lookahead(expected, expected_state))
            out = [LAYOUTS["sliced"](np.zeros(SHAPE, param_dtype)), np.zeros(1030, param_dtype)]
            assert fm.lookahead(params, state, out=out) is out
            assert_bits(out, points)
            assert_guards(out[0])
            assert_bits(params, expected)
            assert_states_agree(state, expected_state)


@pytest.mark.parametrize("kind", [k for k in KINDS if k[0] == k[1]], ids=id_of)
def test_swap_average(kind: tuple[str, str], isa: str, rng: np.random.Generator) -> None:
    """Exchanged in place, in any layout; twice gives the old bits."""
    dtype, _ = dtypes(kind)
    for init_layout in ("C", "F", "sliced"):
        for layout in LAYOUTS:
            params = {
                "w": LAYOUTS[layout](random_like(SHAPE, dtype, rng)),
                "b": random_like((1500,), dtype, rng),
            }
            start = {"w": LAYOUTS[init_layout](params["w"]), "b": params["b"]}
            expected = copied(params)
            state, other = both_states(start, lr=0.1, average_decay=0.75)
            for _ in range(2):
                grads = {"w": random_like(SHAPE, dtype, rng), "b": random_like((1500,), dtype, rng)}
                fm.step(params, grads, state)
                reference.step(expected, grads, other)
            before, average = copied(params), copied(state.average)
            live = state.average
            for _ in range(2):
                assert state.swap_average(params) is None
                other.swap_average(expected)
                assert_bits(params, expected)
                assert_states_agree(state, other)
                assert_bits(live, other.average)
                if layout in ("sliced", "all sliced", "every second"):
                    assert_guards(params["w"])
            assert_bits(params, before)
            assert_bits(state.average, average)
            fm.step(params, grads, state)
            reference.step(expected, grads, other)
            assert_bits(params, expected)
            assert_states_agree(state, other)


# ---- threads and grouping ----


@pytest.mark.parametrize("threads", [2, 3])
@pairs(KINDS[:2] + KINDS[3:5], EXTRAS)
def test_threads(
    kind: tuple[str, str], extra: dict[str, Any], threads: int, rng: np.random.Generator
) -> None:
    """Seams inside arrays, between them, and into strided ones; above the size from which threads are used."""
    param_dtype, grad_dtype = dtypes(kind)
    shapes: list[tuple[int, ...]] = [(1,), (100_003,), (0,), (123, 457), (17,), (70_000,), (5, 5)]
    params = [random_like(shape, param_dtype, rng) for shape in shapes]
    params[3] = np.asfortranarray(params[3])
    grads = [random_like(shape, grad_dtype, rng) for shape in shapes]
    with threads_in_use(threads):
        assert_steps_agree(params, [grads], lr=0.1, weight_decay=0.01, **extra)


@pytest.mark.parametrize("extra", EXTRAS, ids=id_of)
def test_grouping(extra: dict[str, Any], isa: str, rng: np.random.Generator) -> None:
    """Many arrays make the same step as one of all their elements, where they end at the ends of its blocks."""
    n, piece = 5 * 4096 + 1000, 4096
    options, call = for_init_and_step(extra)
    whole = random_like((n,), np.float32, rng)
    pieces = [whole[k : k + piece].copy() for k in range(0, n, piece)]
    one, many = make(fm, whole, **{"lr": 0.1, **options}), make(fm, pieces, **{"lr": 0.1, **options})
    for _ in range(3):
        g = random_like((n,), np.float32, rng)
        parts = [g[k : k + piece].copy() for k in range(0, n, piece)]
        fm.step(whole, g, one, **call)
        fm.step(pieces, parts, many, **call)
        assert_bits(np.concatenate(pieces), whole)
        assert_bits(np.concatenate(many.velocity), one.velocity)
        assert many.grad_norm == one.grad_norm
        if one.average is not None:
            assert_bits(np.concatenate(many.average), one.average)


def test_memory_of_narrow_velocities(rng: np.random.Generator) -> None:
    """state.velocity is a copy of what is stored then: it neither lives nor can be written."""
    p = random_like((100,), np.float32, rng)
    for name in ("float16", "bfloat16", "int8"):
        state = fm.init(p, lr=0.1, velocity_dtype=name)
        fm.step(p, random_like((100,), np.float32, rng), state)
        velocity = state.velocity
        before = velocity.copy()
        assert velocity.dtype == np.float32
        fm.step(p, random_like((100,), np.float32, rng), state)
        assert_bits(velocity, before)
        assert not np.array_equal(velocity, state.velocity)
        with pytest.raises(ValueError, match="read-only"):
            velocity[0] = 1
    live = fm.init(p, lr=0.1, velocity_dtype="float32")
    velocity = live.velocity
    fm.step(p, np.ones(100, np.float32), live)
    assert_bits(velocity, np.ones(100, np.float32))


def test_average_is_live_and_read_only(rng: np.random.Generator) -> None:
    params = {
        "w": np.asfortranarray(random_like((4, 3), np.float32, rng)),
        "b": [random_like((), np.float16, rng)],
    }
    state = fm.init(params, lr=0.1, average_decay=0.5)
    average = state.average
    assert average["w"].strides == params["w"].strides
    assert (average["w"].dtype, average["b"][0].dtype) == (np.float32, np.float32)
    assert_bits(average["w"], params["w"])
    before = copied(average)
    fm.step(params, copied(params), state)
    assert_bits(average, state.average)
    assert not np.array_equal(before["w"], average["w"])
    for array in leaves(average):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
            array.flags.writeable = True
    assert fm.init(params, lr=0.1).average is None


def test_int8_with_gradients_in_another_order(rng: np.random.Generator) -> None:
    """A scale is for neighbours in the memory of the state, whose order is that of the parameter."""
    for kind in ({}, {"form": "lr_inside", "nesterov": True}, {"rule": "lion"}):
        for layout, of_grad in itertools.product(LAYOUTS.values(), LAYOUTS.values()):
            params = layout(random_like((7, 30, 9), np.float32, rng))
            expected = params.copy("K")
            options = {"lr": 0.1, "velocity_dtype": "int8", **kind}
            state, other = make(fm, params, **options), make(reference, expected, **options)
            for _ in range(2):
                grad = of_grad(random_like((7, 30, 9), np.float32, rng))
                fm.step(params, grad, state)
                reference.step(expected, grad, other)
            assert_bits(params, expected)
