"""Complex arrays: each function does to the bit what it does to their parts, as reals with one dimension more."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _containers, _core, reference
from helpers import (
    COMPLEX,
    LAYOUTS,
    OPTIONS,
    Array,
    assert_bits,
    copied,
    leaves,
    make,
    option_id,
    reals,
    snapshot,
    storable,
    threads_in_use,
)

SHAPE = (5, 4, 6)

WHOLE: list[dict[str, Any]] = [
    {"clip_norm": 0.7},
    {"nonfinite": "raise", "average_decay": 0.75},
    {"compensated": True},
]
NARROW = [{"velocity_dtype": name} for name in ("float16", "bfloat16", "int8")]


def values(dtype: Any, rng: np.random.Generator, shape: tuple[int, ...] = SHAPE) -> Array:
    return np.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape), dtype)


def in_reals(tree: Any) -> Any:
    return _containers.mapped(lambda leaf: leaf if leaf is None else reals(np.asarray(leaf)), tree)


def slots(state: Any) -> dict[str, Any]:
    kept = next(row["keeps"] for row in _core.rules if row["rule"] == state.rule)
    return {name: found for name in (*kept, "average") if (found := getattr(state, name)) is not None}


def assert_same_path(params: Any, options: dict[str, Any], rng: np.random.Generator, **of_step: Any) -> None:
    """Three steps of complex arrays, of their parts, and of the reference."""
    expected, parts = copied(params), in_reals(copied(params))
    state, by_reference = make(fm, params, **options), make(reference, expected, **options)
    of_parts = make(fm, parts, **options)
    for _ in range(3):
        grads = _containers.mapped(lambda leaf: values(leaf.dtype, rng, leaf.shape), params)
        fm.step(params, grads, state, **of_step)
        fm.step(parts, in_reals(copied(grads)), of_parts, **of_step)
        reference.step(expected, copied(grads), by_reference, **of_step)
        assert_bits(params, expected)
        assert_bits(in_reals(params), parts)
        for name, found in slots(state).items():
            assert all(leaf.dtype.kind == "c" for leaf in leaves(found))
            assert_bits(found, getattr(by_reference, name))
        assert state.grad_norm == of_parts.grad_norm == by_reference.grad_norm


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
@pytest.mark.parametrize("options", [options for options in OPTIONS if "l1" not in options], ids=option_id)
def test_each_rule(options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> None:
    params = [values(dtype, rng), values(dtype, rng, (3,)), values(dtype, rng, ())]
    assert_same_path(params, options, rng)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
@pytest.mark.parametrize("kind", [{}, *WHOLE, {"rule": "adam"}], ids=str)
def test_any_layout(kind: dict[str, Any], dtype: Any, layout: str, rng: np.random.Generator) -> None:
    for of_grad in (layout, "C", "F"):
        param, grad = LAYOUTS[layout](values(dtype, rng)), LAYOUTS[of_grad](values(dtype, rng))
        expected, state = param.copy(), make(fm, param, lr=0.1, **kind)
        by_reference = make(reference, param, lr=0.1, **kind)
        for _ in range(2):
            fm.step(param, grad, state, grad_scale=0.5)
            reference.step(expected, grad, by_reference, grad_scale=0.5)
        assert_bits(param, expected)
        for name, found in slots(state).items():
            assert_bits(found, getattr(by_reference, name))


@pytest.mark.parametrize("options", NARROW, ids=str)
@pytest.mark.parametrize("kind", [{}, {"rule": "adam"}], ids=str)
def test_narrow_velocities(kind: dict[str, Any], options: dict[str, Any], rng: np.random.Generator) -> None:
    options = storable({**kind, **options})
    assert_same_path([values("c8", rng, (40, 9)), values("c8", rng, (3,))], {"lr": 0.1, **options}, rng)


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_large_ones_with_threads(dtype: Any, rng: np.random.Generator) -> None:
    for shape, layout in [((300_000,), None), ((60, 70, 80), "every second"), ((60, 70, 80), "F")]:
        param = values(dtype, rng, shape)
        param = param if layout is None else LAYOUTS[layout](param)
        grads = values(dtype, rng, shape)
        found = []
        for threads in (1, 2):
            mine = param.copy()
            state = fm.init(mine, lr=0.1, clip_norm=3.0, average_decay=0.5)
            with threads_in_use(threads):
                fm.step(mine, grads, state)
            found.append([mine, state.velocity, state.average, np.float64(state.grad_norm)])
        assert_bits(found[0], found[1])


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_is_that_of_moduli(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    arrays = [LAYOUTS[layout](values(dtype, rng, (17, 9, 33))), values(dtype, rng, ()), None]
    found = fm.global_norm(arrays)
    assert found == reference.global_norm(arrays)
    every = np.concatenate([np.abs(a.astype("c16")).ravel() for a in arrays if a is not None])
    assert found == pytest.approx(np.linalg.norm(every), rel=1e-6)
    contiguous = np.ascontiguousarray(arrays[0])
    assert fm.global_norm(contiguous) == fm.global_norm(contiguous.view(contiguous.real.dtype))


def test_clip_norm_keeps_the_angle() -> None:
    w = np.zeros(1, complex)
    state = fm.init(w, lr=1.0, clip_norm=1.0)
    fm.step(w, np.array([3 + 4j]), state)
    assert state.grad_norm == 5
    assert_bits(w, np.array([-1 * (0.2 * 3) - 1j * (0.2 * 4)]))


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_lookahead_and_average(dtype: Any, rng: np.random.Generator) -> None:
    for layout in LAYOUTS.values():
        param = layout(values(dtype, rng))
        expected = param.copy()
        state, by_reference = (
            p.init(x, lr=0.1, average_decay=0.5) for p, x in ((fm, param), (reference, expected))
        )
        grad = values(dtype, rng)
        fm.step(param, grad, state)
        reference.step(expected, grad, by_reference)
        assert_bits(fm.lookahead(param, state), reference.lookahead(expected, by_reference))
        out = layout(values(dtype, rng))
        assert fm.lookahead(param, state, out=out) is out
        assert_bits(out, reference.lookahead(expected, by_reference))
        state.swap_average(param)
        by_reference.swap_average(expected)
        assert_bits([param, state.average], [expected, by_reference.average])


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_zero_grads_and_scalars(dtype: Any) -> None:
    w, g = np.ones((4, 6), dtype)[:, ::2], np.full((4, 6), 1 + 2j, dtype)[:, ::2]
    fm.step(w, g, fm.init(w, lr=0.5), zero_grads=True)
    assert (w == 0.5 - 1j).all()
    assert not g.any()
    w = np.ones((), dtype)
    fm.step(w, dtype.type(1 + 2j), fm.init(w, lr=0.5))
    assert w == 0.5 - 1j


def all_kept(dtype: Any, rng: np.random.Generator) -> tuple[list[Array], list[fm.State]]:
    params = [values(dtype, rng).transpose(2, 0, 1), values(dtype, rng, (3,))]
    kinds: list[dict[str, Any]] = [{}, {"rule": "adam", "amsgrad": True}, {"compensated": True}]
    if dtype == np.complex64:
        kinds += NARROW
    states = [make(fm, params, lr=0.1, average_decay=0.5, **kind) for kind in kinds]
    for state in states:
        fm.step(copied(params), [values(dtype, rng, p.shape) for p in params], state)
    return params, states


def assert_goes_on_alike(params: list[Array], state: fm.State, other: fm.State) -> None:
    assert_bits(state.state_dict()["velocity"], other.state_dict()["velocity"])
    found = [[p.copy("K") for p in params] for _ in range(2)]
    for mine, of in zip(found, (state, copy.copy(other)), strict=True):
        fm.step(mine, [np.ones_like(p) for p in mine], of)
    assert_bits(found[0], found[1])


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_copies_pickles_and_dicts(dtype: Any, rng: np.random.Generator) -> None:
    params, states = all_kept(dtype, rng)
    for state in states:
        other = pickle.loads(pickle.dumps(state))
        assert_goes_on_alike(params, copy.copy(state), other)
        loaded = pickle.loads(pickle.dumps(state))
        loaded.reset()
        loaded.load_state_dict(state.state_dict())
        assert_goes_on_alike(params, copy.deepcopy(state), loaded)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
def test_files(dtype: Any, suffix: str, rng: np.random.Generator, tmp_path: Any) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    params, states = all_kept(dtype, rng)
    for state in states:
        path = tmp_path / f"run{suffix}"
        fm.save(path, params, state)
        loaded, other, _ = fm.load(path)
        assert_bits(loaded, params)
        assert_goes_on_alike(params, copy.copy(state), other)
        restored, filled = copied(params), pickle.loads(pickle.dumps(state))
        filled.reset()
        fm.restore(path, restored, filled)
        assert_bits(restored, params)
        assert_goes_on_alike(params, copy.copy(state), filled)


def test_not_finite_parts_are_seen() -> None:
    w = np.ones(3, complex)
    before = w.copy()
    state = fm.init(w, lr=0.1, nonfinite="raise")
    bad = np.array([1, complex(2, np.inf), 3])
    with pytest.raises(fm.NonFiniteGradientError, match=r"grads must be finite, not \(2\+infj\) at \(1,\)"):
        fm.step(w, bad, state)
    assert_bits(w, before)
    state.nonfinite = "skip"
    fm.step(w, bad, state)
    assert_bits(w, before)
    assert state.skipped_steps == 1


def test_infinities_and_zeros_are_those_of_the_parts() -> None:
    """A product of complex numbers would make NaN of them: (lr + 0j)*(inf + 1j) has a part 0*inf."""
    w = np.array([0j, complex(-0.0, -0.0)])
    fm.step(w, np.array([complex(np.inf, 1), complex(0.0, 0.0)]), fm.init(w, lr=0.5))
    assert_bits(w, np.array([complex(-np.inf, -0.5), complex(-0.0, -0.0)]))


# fmt: off
REFUSED: list[tuple[Any, Any, str]] = [
    (np.ones(3, "c8"), np.ones(3, "f4"), "grads must have dtype complex64, as params has, not float32; pass a copy, made by .astype('complex64')"),
    (np.ones(3, "c8"), np.ones(3, "c16"), "grads must have dtype complex64, as params has, not complex128; pass a copy, made by .astype('complex64'), which rounds"),
    (np.ones(3, "c8"), np.ones((3, 2), "f4"), "grads must have dtype complex64, as params has, not float32; pass a copy, made by .astype('complex64')"),
    (np.ones(3, "c16"), np.ones(3, ">c16"), "grads must be in native byte order, not >c16; pass a copy, made by .astype('complex128')"),
    (np.ones(3, "f4"), np.ones(3, "c8"), "grads must have dtype float32, as params has, not complex64; its imaginary parts would be lost, so give init() complex params"),
    (np.ones(3, "f8"), np.ones(3, "c16"), "grads must have dtype float64, as params has, not complex128; its imaginary parts would be lost, so give init() complex params"),
    (np.ones((), "f8"), np.complex128(1j), "grads must be a numpy.float64 or a 0-d array of that, as params is, not numpy.complex128"),
    (np.ones((), "c8"), np.complex128(1j), "grads must be a numpy.complex64 or a 0-d array of that, as params is, not numpy.complex128"),
    (np.ones((), "c16"), np.float64(1), "grads must be a numpy.complex128 or a 0-d array of that, as params is, not numpy.float64"),
    (np.ones((3, 2), "c8"), np.ones((2, 3), "c8"), "grads must have the shape of params, (3, 2), not (2, 3); pass grads.T, which shares its memory"),
]
# fmt: on


@pytest.mark.parametrize(("param", "grad", "message"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_refused(param: Array, grad: Any, message: str) -> None:
    state = fm.init(param, lr=0.1)
    before = snapshot(state, param, grad)
    with pytest.raises((TypeError, ValueError)) as error:
        fm.step(param, grad, state)
    assert str(error.value) == message
    assert snapshot(state, param, grad) == before


def test_what_compares_elements_is_refused() -> None:
    message = (
        "clip_value must be None where an array is complex64, as params['c'] is, not 1.0; complex numbers have no "
        "order, use clip_norm"
    )
    params = {"r": np.ones(2), "c": np.ones(2, "c8")}
    with pytest.raises(ValueError, match=re.escape(message)):
        fm.init(params, lr=0.1, clip_value=1.0)
    state = fm.init(params, lr=0.1)
    with pytest.raises(ValueError, match=re.escape(message)):
        state.clip_value = 1.0
    assert state.clip_value is None


def test_params_of_another_kind_are_refused() -> None:
    for made, given in (("c8", "f4"), ("f4", "c8"), ("c16", "c8")):
        state = fm.init(np.ones(3, made), lr=0.1)
        with pytest.raises(TypeError, match="params must have dtype"):
            fm.step(np.ones(3, given), np.ones(3, made), state)
        with pytest.raises(TypeError, match="params must have dtype"):
            fm.lookahead(np.ones(3, given), state)


def test_parts_that_overlap_are_refused() -> None:
    base = np.ones(8, complex)
    state = fm.init(base[:4], lr=0.1)
    with pytest.raises(ValueError, match="must share no memory with"):
        fm.step(base[:4], base[3:7], state)
    fm.step(base[:4], base[4:], state)
    with pytest.raises(ValueError, match="share no memory"):
        fm.step(np.lib.stride_tricks.as_strided(base, (4,), (8,), writeable=True), np.ones(4, complex), state)
    fm.step(base[::2], base[1::2], state)
