"""step.cpp: whole steps. Properties that hold for any model, the two forms of Nesterov's method, and porting."""

from __future__ import annotations

import gc
import inspect
import sys
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import fast_momentum as fm
from fast_momentum import _core, reference
from helpers import (
    FORMS,
    ISAS,
    OPTIONS,
    assert_bits,
    assert_steps_agree,
    copied,
    isa_in_use,
    kind_of,
    make,
    random_like,
    threads_in_use,
)


@st.composite
def strided(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of random numbers with any strides, and the base it is a view of."""
    axes = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -2, 3])) for _ in shape]
    sizes = [shape[a] * abs(steps[a]) + draw(st.integers(0, 2)) for a in axes]
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    base = random_like(tuple(sizes), dtype, rng)
    view = base.transpose(np.argsort(axes)) if shape else base
    for d, step in enumerate(steps):
        index = [slice(None)] * len(shape)
        index[d] = slice(None, None, step)
        view = view[(*index, ...)]
        index[d] = slice(0, shape[d])
        view = view[(*index, ...)]
    return view


@st.composite
def models(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    """A list of parameters and gradients for three steps, each array with strides of its own."""
    shapes = draw(st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=7), max_size=4))
    dtypes = [draw(st.sampled_from([np.float32, np.float64])) for _ in shapes]
    kinds = list(zip(shapes, dtypes, strict=True))
    params = [draw(strided(*kind)) for kind in kinds]
    grads = [[draw(st.none() | strided(*kind)) for kind in kinds] for _ in range(3)]
    return params, grads


@settings(max_examples=400)
@given(
    model=models(),
    options=st.sampled_from(OPTIONS),
    isa=st.sampled_from(ISAS),
    threads=st.sampled_from([1, 2]),
)
def test_equals_the_reference(model: Any, options: dict[str, Any], isa: str, threads: int) -> None:
    params, grads = model
    expected = copied(params)
    outside = [copied(p if p.base is None else p.base) for p in params]
    state, other = make(fm, params, **options), make(reference, expected, **options)
    with isa_in_use(isa), threads_in_use(threads):
        for g in grads:
            fm.step(params, g, state)
            reference.step(expected, g, other)
    assert_bits(params, expected)
    for name in other.keeps:
        assert_bits(getattr(state, name), getattr(other, name))
    for p, before in zip(
        params, outside, strict=True
    ):  # the elements of the base that the view does not show
        if p.base is not None:
            after = p.base.copy()
            shown = np.zeros(p.base.shape, bool)
            mask = np.lib.stride_tricks.as_strided(
                shown.reshape(-1)[(p.__array_interface__["data"][0] - p.base.__array_interface__["data"][0])
                                  // p.itemsize :],
                p.shape, [s // p.itemsize for s in p.strides], writeable=True,
            ) if p.size else shown[:0]  # fmt: skip
            mask[...] = True
            np.testing.assert_array_equal(after[~shown], before[~shown])


# A restart is decided by a sum over all elements.
ELEMENTWISE = [options for options in OPTIONS if not options.get("restart")]


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 200),
    cut=st.integers(0, 200),
    options=st.sampled_from(ELEMENTWISE),
)
def test_splitting_an_array_changes_no_bit(seed: int, n: int, cut: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    whole = random_like((n,), np.float32, rng)
    parts = copied([whole[:cut], whole[cut:]])
    state, states = make(fm, whole, **options), make(fm, parts, **options)
    for _ in range(3):
        g = random_like((n,), np.float32, rng)
        fm.step(whole, g, state)
        fm.step(parts, [g[:cut], g[cut:]], states)
    assert_bits(whole, np.concatenate(parts))


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 200), options=st.sampled_from(ELEMENTWISE))
def test_permuting_elements_changes_no_bit(seed: int, n: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    a = random_like((n,), np.float64, rng)
    order = rng.permutation(n)
    b = a[order]
    state_a, state_b = make(fm, a, **options), make(fm, b, **options)
    for _ in range(3):
        g = random_like((n,), np.float64, rng)
        fm.step(a, g, state_a)
        fm.step(b, g[order], state_b)
    assert_bits(a[order], b)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), options=st.sampled_from(ELEMENTWISE))
def test_grouping_into_calls_changes_no_bit(seed: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    together = [random_like((int(n),), np.float32, rng) for n in rng.integers(0, 50, 6)]
    alone = copied(together)
    state = make(fm, together, **options)
    states = [make(fm, p, **options) for p in alone]
    for _ in range(3):
        grads = [random_like(p.shape, p.dtype, rng) for p in together]
        fm.step(together, grads, state)
        for p, g, s in zip(alone, grads, states, strict=True):
            fm.step(p, g, s)
    assert_bits(together, alone)


# Those of each rule; a dampening would have to go together with nesterov.
NUMBERS = [name for name, row in _core.settings.items() if row["kind"] == "number" and name != "dampening"]


class Training(RuleBasedStateMachine):
    """Anything a training loop may do, in any order, against the reference."""

    @initialize(options=st.sampled_from(OPTIONS), seed=st.integers(0, 2**32))
    def start(self, options: dict[str, Any], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.params = [random_like((n,), np.float32, self.rng) for n in (3, 17)]
        self.expected = copied(self.params)
        self.state = make(fm, self.params, **options)
        self.other = make(reference, self.expected, **options)

    @rule(skip=st.sampled_from([None, 0, 1]))
    def step(self, skip: int | None) -> None:
        grads: list[Any] = [random_like(p.shape, p.dtype, self.rng) for p in self.params]
        if skip is not None:
            grads[skip] = None
        fm.step(self.params, grads, self.state)
        reference.step(self.expected, grads, self.other)

    @rule(
        name=st.sampled_from(NUMBERS),
        value=st.sampled_from([0, 0.01, 0.5, (0.1, 0.9)]),
    )
    def change(self, name: str, value: Any) -> None:
        if name not in self.other.hyperparameters:
            return
        setattr(self.state, name, value)
        setattr(self.other, name, value)

    @rule()
    def save_and_load(self) -> None:
        fresh = make(fm, self.params, lr=1.0, **kind_of(self.state))
        fresh.load_state_dict(self.state.state_dict())
        self.state = fresh

    @rule(what=st.sampled_from(["copy", "pickle"]))
    def copy(self, what: str) -> None:
        import copy
        import pickle

        self.state = copy.deepcopy(self.state) if what == "copy" else pickle.loads(pickle.dumps(self.state))

    @rule()
    def reset(self) -> None:
        self.state.reset("[0]")
        for name in self.other.keeps:
            if name != "iterate":  # which is what it was, until the next step
                getattr(self.other, name)[0][...] = 0
        self.other.steps[0,] = 0
        self.other.histories[0,] = 1.0

    @rule()
    def fail(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            fm.step(self.params, [np.ones(3, np.float32), np.ones(3, np.float32)], self.state)

    @invariant()
    def equal(self) -> None:
        if hasattr(self, "state"):
            assert_bits(self.params, self.expected)
            for name in self.other.keeps:
                assert_bits(getattr(self.state, name), getattr(self.other, name))
            assert self.state.step_count == self.other.step_count


TestTraining = Training.TestCase
TestTraining.settings = settings(max_examples=60, stateful_step_count=25)


def test_the_same_arrays_are_updated_in_place() -> None:
    params = {"w": np.ones((3, 3)), "b": [np.zeros(2)]}
    w, b = params["w"], params["b"][0]
    address = w.__array_interface__["data"]
    assert fm.step(params, {"w": np.ones((3, 3)), "b": [np.ones(2)]}, fm.init(params, lr=0.1)) is None
    assert params["w"] is w
    assert params["b"][0] is b
    assert w.__array_interface__["data"] == address
    np.testing.assert_array_equal(w, 0.9)


def test_the_gradient_of_a_0d_array_may_be_a_scalar(dtype: Any, rng: np.random.Generator) -> None:
    """Operations on 0-d arrays return NumPy scalars."""
    params = [random_like((), dtype, rng) for _ in range(3)]
    grads = [[random_like((), dtype, rng)[()] for _ in params] for _ in range(2)]
    assert all(type(g) is dtype.type for gs in grads for g in gs)
    assert_steps_agree(params, grads, lr=0.1)


def test_peak_memory_grows_by_the_velocities_alone() -> None:
    import tracemalloc

    params, grads = np.ones(1_000_000), np.ones(1_000_000)
    fm.step(params, grads, fm.init(params, lr=0.1))
    state = fm.init(params, lr=0.1)
    tracemalloc.start()
    try:
        fm.step(params, grads, state)
        fm.step(params[::-1], grads, state)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_many_steps_leak_nothing() -> None:
    resource = pytest.importorskip("resource")
    params, grads = [np.ones(3) for _ in range(20)], [np.ones(3) for _ in range(20)]
    state = fm.init(params, lr=0.1)

    def work(n: int) -> None:
        for _ in range(n):
            fm.step(params, grads, state)
            state.lr = [0.1] * 20
            state.velocity  # noqa: B018
            state.state_dict()
            with pytest.raises(ValueError, match="items"):
                fm.step(params, grads[1:], state)

    work(500)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = [sys.getrefcount(o) for o in (*params, *grads, state)]
    work(3000)
    assert [sys.getrefcount(o) for o in (*params, *grads, state)] == counts
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB


def test_floating_point_mode_is_left_alone() -> None:
    tiny = np.float64(5e-324)
    params = np.full(50, tiny)
    with np.errstate(all="raise"):
        fm.step(params, np.full(50, np.inf), fm.init(params, lr=0.1))
        assert tiny * np.float64(1) == tiny


# ---- semantics.md, section 2: each line is a test ----


def run(form: str, lrs: list[float], grad: float = 1.0, **options: Any) -> list[float]:
    p = np.zeros(1)
    state = fm.init(p, lr=lrs[0], form=form, **options)
    path = []
    for lr in lrs:
        state.lr = lr
        fm.step(p, np.full(1, grad), state)
        path.append(float(p[0]))
    return path


def test_outside_and_inside_part_when_lr_changes() -> None:
    np.testing.assert_allclose(run("lr_outside", [0.1, 0.1]), run("lr_inside", [0.1, 0.1]))
    np.testing.assert_allclose(run("lr_outside", [0.1, 0.01]), [-0.1, -0.119])
    np.testing.assert_allclose(run("lr_inside", [0.1, 0.01]), [-0.1, -0.2])


def test_average_is_a_scaled_sum(rng: np.random.Generator) -> None:
    m, lr = 0.9, 0.1
    a, b = np.zeros(3), np.zeros(3)
    outside, ema = fm.init(a, lr=lr, momentum=m), fm.init(b, lr=lr / (1 - m), momentum=m, form="ema")
    for _ in range(10):
        g = rng.normal(size=3)
        fm.step(a, g, outside)
        fm.step(b, g, ema)
        np.testing.assert_allclose(ema.velocity, (1 - m) * outside.velocity)
        np.testing.assert_allclose(b, a)


def test_dampening_is_no_average(rng: np.random.Generator) -> None:
    """With dampening = momentum the velocity differs from the average by m**t * g_1."""
    m = 0.9
    p, q = np.zeros(3), np.zeros(3)
    damped, ema = fm.init(p, lr=0.1, momentum=m, dampening=m), fm.init(q, lr=0.1, momentum=m, form="ema")
    grads = rng.normal(size=(6, 3))
    for t, g in enumerate(grads, start=1):
        fm.step(p, g, damped)
        fm.step(q, g, ema)
        np.testing.assert_allclose(damped.velocity, ema.velocity + m**t * grads[0])


@pytest.mark.parametrize("form", FORMS)
def test_nesterov_twice(form: str) -> None:
    """The original form, gradient at the look-ahead point and a plain step, and nesterov=True trace one path: the
    parameters of the second are the look-ahead points of the first. They part when lr and momentum change."""
    curvature = np.array([1.0, 10.0, 50.0])
    x, y = np.array([1.0, -2.0, 0.5]), np.array([1.0, -2.0, 0.5])
    original, shifted = fm.init(x, lr=0.01, form=form), fm.init(y, lr=0.01, form=form, nesterov=True)
    for _ in range(40):
        point = fm.lookahead(x, original)
        np.testing.assert_allclose(point, y, rtol=1e-9, atol=1e-12)
        fm.step(x, curvature * point, original)
        fm.step(y, curvature * y, shifted)
    original.lr = shifted.lr = 0.001
    original.momentum = shifted.momentum = 0.5
    for _ in range(3):
        point = fm.lookahead(x, original)
        fm.step(x, curvature * point, original)
        fm.step(y, curvature * y, shifted)
    assert np.abs(fm.lookahead(x, original) - y).max() > 1e-4


def test_coupled_decay_is_in_the_velocity_and_decoupled_is_not() -> None:
    for decoupled, velocity in [(False, 0.5), (True, 0.0)]:
        p = np.ones(1)
        state = fm.init(p, lr=0.1, weight_decay=0.5, decoupled_weight_decay=decoupled)
        fm.step(p, np.zeros(1), state)
        assert state.velocity[0] == velocity
        np.testing.assert_allclose(p, 0.95)


def test_decay_shrinks_while_maximizing() -> None:
    for decoupled in (False, True):
        p = np.ones(1)
        state = fm.init(p, lr=0.1, weight_decay=0.5, maximize=True, decoupled_weight_decay=decoupled)
        fm.step(p, np.full(1, 0.1), state)
        np.testing.assert_allclose(p, 1 + 0.1 * 0.1 - 0.1 * 0.5)


def test_first_steps_are_per_array() -> None:
    """An array that is thawed later makes its own undamped first step (a peer keeps one flag for a group)."""
    params = [np.zeros(2), np.zeros(2)]
    state = fm.init(params, lr=1.0, dampening=0.5)
    fm.step(params, [np.ones(2), None], state)
    fm.step(params, [np.ones(2), np.ones(2)], state)
    np.testing.assert_allclose(state.velocity, [[1.4, 1.4], [1.0, 1.0]])


def test_decay_is_per_array_and_once() -> None:
    """Not once per dtype, not once per call, and not for the arrays without it (a peer's bug)."""
    params = [np.ones(2, np.float32), np.ones(2), np.ones(2, np.float32)]
    state = fm.init(params, lr=0.5, weight_decay=[0.5, 0.5, 0.0], decoupled_weight_decay=True)
    fm.step(params, [np.zeros(2, np.float32), np.zeros(2), np.zeros(2, np.float32)], state)
    assert [p.tolist() for p in params] == [[0.75] * 2, [0.75] * 2, [1.0] * 2]


def test_arguments_by_position_and_by_keyword() -> None:
    """Three positional arguments take a shorter way than all other calls."""
    p = np.zeros(3)
    state = fm.init(p, lr=1.0, momentum=0.0)
    fm.step(p, np.ones(3), state)
    fm.step(p, np.ones(3), state=state)
    fm.step(state=state, grads=np.ones(3), params=p)
    assert p.tolist() == [-3, -3, -3]
    assert state.step_count == 3
    expected = "(params, grads, state, *, grad_scale=1.0, zero_grads=False, prox=None)"
    assert str(inspect.signature(fm.step)) == expected
    for arguments, keywords, message in [
        ((p,), {}, "must be given grads and state, not params alone$"),
        ((p, p, state, 1), {}, "must have at most 3 arguments by place, not 4; pass the rest by name, such as grad_scale=...$"),
        ((p, np.ones(3), state), {"lr": 1}, "must not have the keyword lr; it has grads, state, grad_scale, "),
        ((p, p), {"p": p}, "must not have the keyword p; "),
        ((p, p, state), {"params": p}, "must be given params once, not by its place and by its name$"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=rf"^step\(\) {message}"):
            fm.step(*arguments, **keywords)
    assert state.step_count == 3
