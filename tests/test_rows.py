"""rows.cpp and row_steps.cpp: gradients of some rows, against the reference, bit for bit, and what is refused."""

from __future__ import annotations

import copy
import pickle
import re
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_momentum as fm
from fast_momentum import reference
from fuzz_inputs import SEEDS
from helpers import (
    DTYPES,
    HALVES,
    ISAS,
    LAYOUTS,
    OPTIONS,
    Array,
    assert_bits,
    assert_states_agree,
    both_states,
    copied,
    isa_in_use,
    make,
    misaligned,
    option_id,
    random_like,
    read_only,
    run_python,
    snapshot,
    threads_in_use,
)

# What a call with rows may have beside the options of a rule; grad_scale and zero_grads are for step().
EXTRAS: list[dict[str, Any]] = [
    {},
    {"clip_norm": 1.0},
    {"clip_value": 0.7, "grad_scale": 0.3, "zero_grads": True},
    {"clip_norm": 2.0, "nonfinite": "skip", "grad_scale": 1 / 3, "zero_grads": True},
    {"nonfinite": "raise"},
    {"lower": -1.0, "upper": 1.0},
    {"velocity_dtype": "float16"},
    {"velocity_dtype": "bfloat16", "clip_norm": 0.5},
]
RULES = [options for options in OPTIONS if options.get("rule") != "accelerated"]
OF_STEP = ("grad_scale", "zero_grads")
INTEGERS = [np.dtype(c) for c in np.typecodes["AllInteger"]]


def some_rows(n: int, k: int, rng: np.random.Generator, dtype: Any = np.int64) -> Array:
    return rng.integers(0, n, k).astype(dtype)


def steps_agree(
    params: Any, grads: list[Any], options: dict[str, Any], extras: dict[str, Any]
) -> tuple[fm.State, reference.State]:
    """Makes the steps with both, in copies for the reference, whose gradients are Rows of copies."""
    of_step = {name: extras[name] for name in OF_STEP if name in extras}
    made = {name: value for name, value in extras.items() if name not in OF_STEP}
    expected = copied(params)
    state, theirs = both_states(params, **options, **made)
    for grad in grads:
        same = {name: duplicate(g) for name, g in grad.items()}
        fm.step(params, grad, state, **of_step)
        reference.step(expected, same, theirs, **of_step)
        for name, g in grad.items():
            assert_bits(getattr(g, "values", g), getattr(same[name], "values", same[name]))
    assert_bits(params, expected)
    assert_states_agree(state, theirs)
    return state, theirs


def duplicate(grad: Any) -> Any:
    return fm.Rows(grad.indices.copy(), np.array(grad.values)) if isinstance(grad, fm.Rows) else copied(grad)


@pytest.mark.parametrize("extras", EXTRAS, ids=option_id)
@pytest.mark.parametrize("options", RULES, ids=option_id)
def test_steps_equal_the_reference(options: dict[str, Any], extras: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    params = {"rows": random_like((40, 3, 2), np.float32, rng), "dense": random_like((5,), np.float32, rng)}
    grads = [
        {
            "rows": fm.Rows(some_rows(40, k, rng), random_like((k, 3, 2), np.float32, rng)),
            "dense": random_like((5,), np.float32, rng),
        }
        for k in (100, 3, 1, 0)
    ]
    steps_agree(params, grads, options, extras)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), seed=SEEDS)
def test_any_rows_equal_the_reference(data: st.DataObject, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dtype = data.draw(st.sampled_from([*DTYPES, *HALVES]))
    grad_dtype = data.draw(st.sampled_from([np.dtype(np.float32), *HALVES]))
    if dtype != np.float32 and dtype not in HALVES:
        grad_dtype = dtype
    options = data.draw(st.sampled_from(RULES))
    extras = data.draw(st.sampled_from(EXTRAS))
    if dtype != np.float32 and {"velocity_dtype", "clip_value", "lower"} & extras.keys():
        extras = {}
    shape = data.draw(st.tuples(st.integers(1, 90), st.sampled_from([1, 2, 5, 16, 300]), st.integers(1, 5)))
    put = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))]
    put_values = LAYOUTS[data.draw(st.sampled_from(list(LAYOUTS)))]
    params = {"rows": put(random_like(shape, dtype, rng))}
    sizes = data.draw(st.lists(st.integers(0, 150), min_size=1, max_size=3))
    grads = []
    for k in sizes:
        indices = some_rows(min(shape[0], 127), k, rng, data.draw(st.sampled_from(INTEGERS)))
        if data.draw(st.booleans()):
            indices = np.sort(indices)[::-1]
        values = random_like((k, *shape[1:]), grad_dtype, rng)
        if np.iscomplexobj(values):
            values.imag = random_like(values.shape, values.real.dtype, rng)
        grads.append({"rows": fm.Rows(indices, put_values(values) if k else values)})
    with isa_in_use(data.draw(st.sampled_from(ISAS))):
        steps_agree(params, grads, options, extras)


@pytest.mark.parametrize(
    "shape", [(50,), (50, 1), (7, 1030), (9, 4, 3), (6, 2, 3, 2), (4, 0), (0, 3)], ids=str
)
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    for order in "CF":
        params = {"w": np.array(random_like(shape, np.float64, rng), order=order)}
        k = 60 if shape[0] else 0
        grads = [
            {"w": fm.Rows(some_rows(shape[0] or 1, k, rng), random_like((k, *shape[1:]), np.float64, rng))}
        ]
        steps_agree(params, grads, {"rule": "adam", "lr": 0.1}, {"clip_norm": 1.0})


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_changed_parameter_changes_its_master_copy_once_its_row_is_stepped(dtype: Any) -> None:
    rng = np.random.default_rng(7)
    params = random_like((6, 3), dtype, rng)
    expected = params.copy()
    state, theirs = both_states(params, lr=1e-4)
    for rows in ([0, 3], [3, 5, 3]):
        params[[0, 3, 4]] = expected[[0, 3, 4]] = 2
        grad = fm.Rows(np.array(rows), random_like((len(rows), 3), dtype, rng))
        fm.step(params, grad, state)
        reference.step(expected, grad, theirs)
        assert_bits(params, expected)
        assert_bits(state.state_dict()["master"], theirs.state_dict()["master"])


def test_other_rows_are_neither_read_nor_written() -> None:
    params = np.full((5, 2), np.nan)
    params[1] = 1.0
    state = fm.adam(params, lr=0.1, weight_decay=0.1)
    before = params.copy()
    fm.step(params, fm.Rows(np.array([1]), np.ones((1, 2))), state)
    assert np.isfinite(params[1]).all()
    assert_bits(np.delete(params, 1, axis=0), np.delete(before, 1, axis=0))
    for kept in (state.velocity, state.second_moment):
        assert not np.delete(kept, 1, axis=0).any()


def test_sums_are_those_of_numpy() -> None:
    """One rounding an addition, in the order of the gradients: 1 + 2**-24 + 2**-24 is 1, and not 1 + 2**-23."""
    values = np.array([1, 2**-24, 2**-24, 3], np.float32)[:, None]
    sums = np.zeros((3, 1), np.float32)
    np.add.at(sums, [2, 2, 2, 0], values)
    assert sums[2] == 1
    params = np.zeros((3, 1), np.float32)
    fm.step(params, fm.Rows(np.array([2, 2, 2, 0]), values), fm.init(params, lr=1.0))
    assert_bits(params, 0 - sums)


def test_rows_that_are_all_different_make_a_dense_step() -> None:
    rng = np.random.default_rng(11)
    params = random_like((30, 4), np.float32, rng)
    dense, grad, order = params.copy(), random_like((30, 4), np.float32, rng), rng.permutation(30)
    state, other = fm.init(params, lr=0.1, clip_norm=1.0), fm.init(dense, lr=0.1, clip_norm=1.0)
    for _ in range(3):
        fm.step(params, fm.Rows(order, grad[order]), state)
        fm.step(dense, grad, other)
    assert_bits([params, state.velocity], [dense, other.velocity])
    assert state.grad_norm == other.grad_norm


def test_a_step_of_nothing_counts() -> None:
    params = np.ones((3, 2))
    state = fm.init(params, lr=0.1, weight_decay=0.5)
    fm.step(params, fm.Rows(np.zeros(0, np.int8), np.zeros((0, 2))), state)
    assert (params == 1).all()
    assert state.step_count == 1
    assert state.state_dict()["steps"] == {"": 1}


def test_indices_may_be_given_twice_and_be_read_only() -> None:
    indices = read_only(np.array([1, 0, 1]))
    params = [np.ones((2, 1)), np.ones((3, 1))]
    grads = [
        fm.Rows(indices, read_only(np.ones((3, 1)))),
        fm.Rows(indices[::-1], np.broadcast_to(1.0, (3, 1))),
    ]
    fm.step(params, grads, fm.init(params, lr=1.0))
    assert_bits(params, [np.array([[0.0], [-1.0]]), np.array([[0.0], [-1.0], [1.0]])])


@pytest.mark.parametrize("options", [{}, {"clip_norm": 1.0}, {"rule": "adam"}], ids=str)
@pytest.mark.parametrize("shape", [(30_000, 16), (70, 5000), (300_000,)], ids=str)
def test_threads_do_not_change_the_bits(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(13)
    params = random_like(shape, np.float32, rng)
    k = 2 * shape[0]
    grad = fm.Rows(some_rows(shape[0], k, rng), random_like((k, *shape[1:]), np.float32, rng))
    expected, (state, _) = params.copy(), both_states(params, lr=0.1, **options)
    other, _ = both_states(expected, lr=0.1, **options)
    with threads_in_use(2):
        fm.step(params, grad, state)
    fm.step(expected, grad, other)
    assert_bits([params, state.velocity], [expected, other.velocity])


# ---- the object ----


def test_the_object() -> None:
    indices, values = np.array([1]), np.ones((1, 2))
    rows = fm.Rows(indices, values=values)
    assert rows.indices is indices
    assert rows.values is values
    assert repr(rows) == "Rows(indices=array([1]), values=array([[1., 1.]]))"
    pickled = [pickle.loads(pickle.dumps(rows, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for other in (copy.copy(rows), copy.deepcopy(rows), *pickled):
        assert type(other) is fm.Rows
        assert_bits([other.values], [values])
        assert (other.indices == indices).all()
    with pytest.raises(AttributeError):
        rows.indices = values  # type: ignore[misc]  # read-only, as it says
    with pytest.raises(TypeError):
        type("Sub", (fm.Rows,), {})
    with pytest.raises(TypeError):
        fm.Rows(indices)  # type: ignore[call-arg]  # which is the fault


# ---- what is refused ----

GOOD = {"indices": np.array([0, 2]), "values": np.ones((2, 3))}
SELF_OVERLAPPING = np.lib.stride_tricks.as_strided(np.ones(8), (2, 3), (8, 8))
READ_ONLY = read_only(np.ones((2, 3)))

# Other indices or values, what step() is called with, what the message begins with, and how it goes on.
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "negative": ({"indices": np.array([0, -1])}, {}, ValueError,
        "grads['w'].indices must be below 4, the number of rows of params['w'], and not negative, not -1 at "
        "position 1; add that number to count from the end"),
    "too large": ({"indices": np.array([4, 9], np.uint8)}, {}, ValueError,
        "grads['w'].indices must be below 4, the number of rows of params['w'], and not negative, not 4 at "
        "position 0"),
    "far too large": ({"indices": np.array([1, 2**64 - 1], np.uint64)}, {}, ValueError,
        "grads['w'].indices must be below 4, the number of rows of params['w'], and not negative, not "
        "18446744073709551615 at position 1"),
    "the least": ({"indices": np.array([-128, 0], np.int8)}, {}, ValueError, "not -128 at position 0"),
    "float": ({"indices": np.array([0.0, 1.0])}, {}, TypeError,
        "grads['w'].indices must have an integer dtype, not float64"),
    "boolean": ({"indices": np.array([True, False])}, {}, TypeError,
        "grads['w'].indices must have an integer dtype, not bool; numpy.flatnonzero() gives the rows of a mask"),
    "objects": ({"indices": np.array([0, 1], object)}, {}, TypeError, "must have an integer dtype, not object"),
    "byte order": ({"indices": np.array([0, 1], ">i8")}, {}, TypeError,
        "grads['w'].indices must be in native byte order, not >i8; pass a copy, made by .astype('int64')"),
    "a list": ({"indices": [0, 1]}, {}, TypeError, "grads['w'].indices must be a numpy.ndarray, not list"),
    "a matrix": ({"indices": np.zeros((2, 1), int)}, {}, ValueError,
        "grads['w'].indices must have one dimension, not 2; pass .ravel(), with values of as many rows"),
    "misaligned indices": ({"indices": misaligned(np.zeros(2, np.int64))}, {}, ValueError,
        "grads['w'].indices must be aligned in memory, not at addresses that are no multiple of 8"),
    "fewer indices": ({"indices": np.array([1])}, {}, ValueError,
        "grads['w'].values must have the shape of the rows of params['w'] at .indices, (1, 3), not (2, 3)"),
    "shape": ({"values": np.ones((2, 4))}, {}, ValueError, "at .indices, (2, 3), not (2, 4)"),
    "dimensions": ({"values": np.ones(2)}, {}, ValueError, "at .indices, (2, 3), not (2,)"),
    "no array": ({"values": [[1.0]]}, {}, TypeError, "grads['w'].values must be a numpy.ndarray, not list"),
    "rows in rows": ({"values": fm.Rows(1, 2)}, {}, TypeError,  # type: ignore[arg-type]  # which is the fault
        "grads['w'].values must be a numpy.ndarray, not fast_momentum.Rows"),
    "dtype": ({"values": np.ones((2, 3), np.float32)}, {}, TypeError,
        "grads['w'].values must have dtype float64, as params['w'] has, not float32; pass a copy, made by "
        ".astype('float64')"),
    "misaligned": ({"values": misaligned(np.ones((2, 3)))}, {}, ValueError,
        "grads['w'].values must be aligned in memory"),
    "read-only": ({"values": READ_ONLY}, {"zero_grads": True}, ValueError,
        "grads['w'].values must be writable, not read-only; keep a copy in its place, made by .copy()"),
    "overlapping itself": ({"values": SELF_OVERLAPPING}, {"zero_grads": True}, ValueError,
        "grads['w'].values must have elements that share no memory, not overlapping ones"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    other, of_step, error, message = REFUSED[name]
    params = {"v": np.ones(2), "w": np.ones((4, 3))}
    grads = {"v": np.ones(2), "w": fm.Rows(**(GOOD | other))}
    state = fm.adam(params, lr=0.1)
    before = snapshot(state, params)
    with pytest.raises(error, match=re.escape(message)):
        fm.step(params, grads, state, **of_step)
    assert snapshot(state, params) == before


WITH_OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "average": ({"average_decay": 0.9},
        "must be an array while average_decay is set, as the average of each row moves at each step, not Rows; "
        "add them up in an array of zeros, with numpy.add.at()"),
    "compensated": ({"compensated": True},
        "must be an array with compensated=True, as what rounding took from a row would wait for its next "
        "gradient, not Rows"),
    "accelerated": ({"rule": "accelerated"},
        "must be an array for the rule accelerated, whose parameters all move at each step, not Rows"),
    "int8": ({"velocity_dtype": "int8"},
        "must be an array where velocities are stored as int8, as elements of several rows share a scale, not "
        "Rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_OTHERS)
def test_what_does_not_go_together(name: str) -> None:
    options, message = WITH_OTHERS[name]
    params = [np.ones((4, 3), np.float32)]
    state = make(fm, params, lr=0.1, **options)
    before = snapshot(state, params)
    with pytest.raises(ValueError, match=re.escape(f"grads[0] {message}")):
        fm.step(params, [fm.Rows(np.array([1]), np.ones((1, 3), np.float32))], state)
    assert snapshot(state, params) == before


def test_a_parameter_without_rows() -> None:
    params = np.ones(())
    with pytest.raises(
        ValueError, match=r"grads must be an array or a scalar for a parameter without dimensions"
    ):
        fm.step(params, fm.Rows(np.array([0]), np.ones(1)), fm.init(params, lr=0.1))


def test_values_that_share_memory_with_a_parameter() -> None:
    params = np.ones((4, 3))
    state = fm.init(params, lr=0.1)
    with pytest.raises(ValueError, match=r"grads\.values must share no memory with params"):
        fm.step(params, fm.Rows(np.array([0, 1]), params[2:]), state)
    values = np.ones((2, 3))
    rows = fm.Rows(np.array([0, 1]), values)
    both, two = [np.ones((4, 3)), np.ones((4, 3))], [rows, rows]
    fm.step(both, two, fm.init(both, lr=0.1))
    with pytest.raises(ValueError, match=r"grads\[1\]\.values must share no memory with grads\[0\]\.values"):
        fm.step(both, two, fm.init(both, lr=0.1), zero_grads=True)


def test_rows_are_no_parameters() -> None:
    rows: Any = fm.Rows(np.array([0]), np.ones((1, 2)))
    with pytest.raises(TypeError, match=r"params must be a numpy\.ndarray, not fast_momentum\.Rows"):
        fm.init(rows, lr=0.1)
    with pytest.raises(TypeError, match=r"grads must be a numpy\.ndarray, not fast_momentum\.Rows"):
        fm.global_norm(rows)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_that_are_not_finite(bad: float) -> None:
    params = [np.ones((4, 2), np.float32)]
    values = np.array([[1, 2], [3, bad]], np.float32)
    grads = [fm.Rows(np.array([3, 1]), values)]
    state = fm.init(params, lr=0.1, nonfinite="raise")
    before = snapshot(state, params)
    message = rf"grads\[0\]\.values must be finite, not {bad} at \(1, 1\); "
    with pytest.raises(fm.NonFiniteGradientError, match=message):
        fm.step(params, grads, state)
    assert snapshot(state, params) == before
    state.nonfinite = "skip"
    fm.step(params, grads, state, zero_grads=True)
    assert state.skipped_steps == 1
    assert not values.any()
    assert (params[0] == 1).all()


def test_a_sum_that_is_not_finite() -> None:
    params = [np.ones((4, 2), np.float32)]
    values = np.full((2, 2), 3e38, np.float32)
    state = fm.init(params, lr=0.1, nonfinite="raise")
    with pytest.raises(
        fm.NonFiniteGradientError,
        match=r"grads\[0\]\.values, once equal rows are added up, must be finite, not inf at \(0, 0\); ",
    ):
        fm.step(params, [fm.Rows(np.array([3, 3]), values)], state)


# ---- another thread ----


def test_indices_that_another_thread_changes() -> None:
    """Either all that was copied was good, or the step is refused."""
    params = np.zeros((64, 4))
    indices = np.zeros(20_000, np.int64)
    grad = fm.Rows(indices, np.ones((len(indices), 4)))
    state = fm.init(params, lr=0.1)
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            indices[::7] = -(2**40)
            indices[::7] = 63

    thread = threading.Thread(target=change)
    thread.start()
    refused = []
    try:
        for _ in range(200):
            try:
                fm.step(params, grad, state)
            except ValueError as error:
                refused.append(str(error))
    finally:
        stop.set()
        thread.join()
    assert state.step_count == 200 - len(refused)
    for message in refused:
        assert re.search(r"not -1099511627776 at position \d+;", message)


@pytest.mark.parametrize("name", ["indices", "values"])
def test_garbage_is_collected(name: str) -> None:
    """A cycle that goes through one of the two attributes alone."""
    assert (
        run_python(f"""
        import gc, weakref
        import numpy as np
        import fast_momentum as fm
        class Array(np.ndarray): pass
        array = np.ones(2).view(Array)
        array.rows = fm.Rows(**{{"indices": None, "values": None, "{name}": array}})
        ref = weakref.ref(array)
        del array
        gc.collect()
        print(ref() is None)
    """)
        == "True\n"
    )


def test_rows_in_rows_are_freed() -> None:
    """However deep: one would free the next in its own frame."""
    nested = None
    for _ in range(300_000):
        nested = fm.Rows(nested, None)
    del nested
