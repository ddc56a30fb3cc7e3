"""overlap.cpp against NumPy's exact answer, and its cost."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import fast_momentum as fm
from helpers import Array, copied, snapshot


def refused(params: Any, grads: Any) -> bool:
    """Whether step() finds an overlap; the state comes from copies."""
    state = fm.init(copied(params), lr=0.1)
    before = snapshot(state, params, grads)
    try:
        fm.step(params, grads, state)
    except ValueError as error:
        assert "memory" in str(error)  # noqa: PT017
        assert snapshot(state, params, grads) == before
        return True
    return False


@st.composite
def views(draw: st.DrawFn, base: Array) -> Array:
    """A view of a three-dimensional base: slices, negative steps, permuted, reshaped away dimensions."""
    index: list[Any] = []
    for n in base.shape:
        if draw(st.integers(0, 5)) == 0:
            index.append(draw(st.integers(0, n - 1)))
            continue
        start, stop = sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n))))
        step = draw(st.sampled_from([1, 1, 1, 2, 3]))
        view_slice = slice(start, stop, step)
        index.append(view_slice)
    view = base[(*index, ...)]
    flips = tuple(slice(None, None, draw(st.sampled_from([1, -1]))) for _ in range(view.ndim))
    view = view[(*flips, ...)]
    return view.transpose(draw(st.permutations(range(view.ndim))))


def exact(a: Array, b: Array) -> bool:
    return np.shares_memory(a, b)


@settings(max_examples=1500)
@given(data=st.data())
def test_views_of_one_array(data: st.DataObject) -> None:
    base = np.ones((4, 6, 8), data.draw(st.sampled_from([np.float32, np.float64])))
    params = data.draw(st.lists(views(base), min_size=1, max_size=5))
    expected = any(exact(a, b) for a, b in itertools.combinations(params, 2))
    assert refused(params, [np.ones(p.shape, p.dtype) for p in params]) == expected


@settings(max_examples=1000)
@given(data=st.data())
def test_parameters_and_gradients(data: st.DataObject) -> None:
    base = np.ones((4, 6, 8))
    param = data.draw(views(base))
    grad = data.draw(views(base).filter(lambda g: g.ndim == param.ndim))
    shape = tuple(min(a, b) for a, b in zip(param.shape, grad.shape, strict=True))
    corner = (*(slice(0, n) for n in shape), ...)
    param, grad = param[corner], grad[corner]
    assert refused(param, grad) == exact(param, grad)


@settings(max_examples=1000)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
)
def test_elements_of_one_array(shape: list[int], data: st.DataObject) -> None:
    """Any strides: refused exactly where two elements are one."""
    strides = [data.draw(st.integers(-12, 12)) for _ in shape]
    base = np.zeros(1000)
    view = as_strided(base[500:], shape, [8 * s for s in strides])
    offsets = [sum(i * s for i, s in zip(index, strides, strict=True)) for index in np.ndindex(*shape)]
    assert refused(view, np.ones(shape)) == (len(set(offsets)) < len(offsets))


@settings(max_examples=300)
@given(st.data())
def test_lookahead_out(data: st.DataObject) -> None:
    base = np.ones((4, 6, 8))
    param = data.draw(views(base))
    out = data.draw(views(base).filter(lambda g: g.ndim == param.ndim))
    shape = tuple(min(a, b) for a, b in zip(param.shape, out.shape, strict=True))
    corner = (*(slice(0, n) for n in shape), ...)
    param, out = param[corner], out[corner]
    state = fm.init(param, lr=0.1)
    before = base.copy()
    if exact(param, out):
        with pytest.raises(ValueError, match="must share no memory with"):
            fm.lookahead(param, state, out=out)
        np.testing.assert_array_equal(base, before)
    else:
        fm.lookahead(param, state, out=out)


def test_two_dtypes_on_one_memory() -> None:
    base = np.zeros(8)
    halves = base.view(np.float32)
    assert refused([base[:4], halves[6:]], [np.ones(4), np.ones(10, np.float32)])
    assert not refused([base[:4], halves[8:]], [np.ones(4), np.ones(8, np.float32)])
    assert refused([base[::2], halves[::4]], [np.ones(4), np.ones(4, np.float32)])
    assert not refused([base[::2], halves[2::4]], [np.ones(4), np.ones(4, np.float32)])


def blocks(matrix: Array, rows: int, columns: int) -> list[Array]:
    return [
        matrix[i : i + rows, j : j + columns]
        for i in range(0, matrix.shape[0], rows)
        for j in range(0, matrix.shape[1], columns)
    ]


INTERLEAVED = {
    "columns": lambda m: [m[:, j] for j in range(m.shape[1])],
    "rows": list,
    "tiles": lambda m: blocks(m, 10, 10),
    "odd tiles": lambda m: blocks(m[1:-1, 3:-5], 7, 13),
    "even and odd": lambda m: [m[:, ::2], m[:, 1::2]],
    "four phases": lambda m: [m[i::2, j::2] for i in range(2) for j in range(2)],
    "reversed columns": lambda m: [m[::-1, j] for j in range(m.shape[1])],
    "transposed": lambda m: [m.T[j] for j in range(m.shape[1])],
}


@pytest.mark.parametrize("name", INTERLEAVED)
def test_interleaved_views_are_accepted(name: str) -> None:
    params = INTERLEAVED[name](np.ones((100, 100)))
    grads = INTERLEAVED[name](np.ones((100, 100)))
    assert not refused(params, grads)
    assert refused([*params, params[-1][:1]], [*grads, grads[-1][:1]])
    assert refused(params, [*grads[:-1], params[-1]])


def test_columns_that_wrap_around() -> None:
    """Views one row of which ends where the next begins, at any phase of the row length."""
    base = np.ones(1000)
    for shift in range(0, 99, 7):
        params = [as_strided(base[shift + j :], (5, 10), (800, 8)) for j in range(0, 100, 10)]
        assert not refused(params, [np.ones((5, 10)) for _ in params])
        params[3] = as_strided(base[shift + 29 :], (5, 10), (800, 8))
        assert refused(params, [np.ones((5, 10)) for _ in params])


def test_views_told_apart_by_what_divides_their_steps() -> None:
    """Steps of 6 and 10: neither divides the other, and pair by pair they are too many to be looked at."""
    base, count = np.ones(9000), 367
    sixes = [base[24 * k + j : 24 * k + 24 : 6] for k in range(count) for j in (0, 2, 4)]
    tens = [
        base[40 * k + j : 40 * k + 40 + j : 10] for k in range(count * 3 // 5) for j in (13, 15, 17, 19, 21)
    ]
    params = [*sixes, *tens]
    grads = [np.ones(p.shape) for p in params]
    assert not refused(params, grads)
    assert refused([*params, base[1 + 40 * 7 : 40 * 8 : 10]], [*grads, np.ones(4)])


def test_a_hundred_thousand_arrays_and_a_thousand_columns() -> None:
    """That this ends is the test: were anything in it quadratic, it would take minutes."""
    matrix = np.ones((50, 1000))
    columns = [matrix[:, j] for j in range(1000)]
    for params in (list(np.ones((100_000, 2))), columns):
        state = fm.init(params, lr=0.1)
        fm.step(params, [np.ones(p.shape) for p in params], state)
        assert state.step_count == 1


def test_the_more_arrays_the_more_is_looked_at() -> None:
    """Arrays whose bounds do not meet are apart, however many there are, and so are the columns of a matrix."""
    count = 700_000
    params = list(np.ones((count, 1), np.float32))
    columns = list(np.ones((2, 4), np.float32).T)
    wide = list(np.ones((2, count), np.float32).T)
    grads = {1: np.ones(1, np.float32), 2: np.ones(2, np.float32)}
    for arrays in ([*params, *columns], wide):
        state = fm.init(arrays, lr=0.1)
        fm.step(arrays, [grads[p.size] for p in arrays], state)
        assert state.step_count == 1
    twice = [*params[:-1], params[7]]
    message = rf"^params\[{count - 1}\] must share no memory with params\[7\], not begin at the same element"
    with pytest.raises(ValueError, match=message):
        fm.step(twice, [grads[1]] * count, fm.init(twice, lr=0.1))


def hard_strides(rng: np.random.Generator, smallest: list[int]) -> list[int]:
    """Strides each of which steps over what the others reach, but for `smallest` all divisible by three."""
    strides = [3]
    while len(strides) < 21:
        strides.append(sum(strides) + 1 + int(rng.integers(0, len(strides))))
    return [8 * s for s in smallest + [3 * s for s in strides]]


def test_work_is_bounded() -> None:
    """Two views that share nothing (one is two elements off, modulo three), for millions of near misses: what
    cannot be proved soon is refused, and nothing is written."""
    verdicts = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        strides_a, strides_b = hard_strides(rng, [1]), hard_strides(rng, [])
        base = np.zeros((sum(strides_a) + sum(strides_b)) // 8 + 3)
        a = as_strided(base, (2,) * len(strides_a), strides_a)
        b = as_strided(base[2:], (2,) * len(strides_b), strides_b)
        state = fm.init([np.empty(a.shape), np.empty(b.shape)], lr=0.1)
        try:
            fm.step([a, b], [None, None], state)
            verdicts.append("accepted")
        except ValueError as error:
            verdicts.append("refused")
            assert str(error).startswith("cannot prove that params[0] and params[1] are disjoint: ")  # noqa: PT017
    assert set(verdicts) == {"accepted", "refused"}


def test_velocities_are_out_of_reach(rng: np.random.Generator) -> None:
    params = [np.ones(4), np.ones(4)]
    state = fm.init(params, lr=0.1)
    before = snapshot(state, params)
    with pytest.raises(ValueError, match=r"^velocity\[1\] must share no memory with grads\[0\]"):
        fm.step(params, [state.velocity[1], np.ones(4)], state)
    with pytest.raises(ValueError, match=r"^params\[0\] must be writable, not read-only"):
        fm.step([state.velocity[0], params[1]], [np.ones(4), np.ones(4)], state)
    assert snapshot(state, params) == before
    other = fm.init(params, lr=0.1)
    fm.step(params, other.velocity, state)  # those of another state are arrays like any other


@pytest.mark.parametrize("count", [2, 400])
def test_arrays_of_the_step_before_are_no_excuse(count: int) -> None:
    """The bounds of the last step are remembered: nothing that meets may pass for them."""
    memory = np.zeros((2 * count, 8))
    params = list(memory[:count])
    grads = list(memory[count:])
    state = fm.init(params, lr=0.1)
    for _ in range(2):
        fm.step(params, grads, state)
        for k, shifted in ((count - 1, memory[:count].reshape(-1)[1:9]), (0, memory[1])):
            bad = [*params[:k], shifted, *params[k + 1 :]]
            before = snapshot(state, bad, grads)
            for _ in range(2):
                with pytest.raises(ValueError, match="must share no memory with"):
                    fm.step(bad, grads, state)
            assert snapshot(state, bad, grads) == before
        fm.step(grads, params, state)  # the same bounds, and as much of them is written
        with pytest.raises(ValueError, match="must share no memory with"):
            fm.step(params, params, state)
