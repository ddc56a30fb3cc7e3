"""Threads that use one State, or change what a call is reading, at the same time: an error or a whole call, never damage.

Without a GIL these are races of instructions; with one, of what happens between two bytecodes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import itertools
import os
import pickle
import sys
import sysconfig
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import run_python

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
# How often each thread calls. More finds more: ThreadSanitizer and `nox -s free-threaded` set it.
CALLS = int(os.environ.get("FAST_MOMENTUM_RACES", "200"))
MANY = 20 * CALLS  # where a call takes a microsecond or two


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Any:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def race(
    *works: Callable[[int], Any], allowed: Any = fm.ConcurrentStepError, calls: int = CALLS
) -> list[int]:
    """Call work(0), work(1) and so on of each in a thread of its own, all at once; how many calls of each were no error."""
    barrier = threading.Barrier(len(works))
    done = [0] * len(works)
    faults: list[BaseException] = []

    def run(k: int) -> None:
        barrier.wait()
        try:
            for i in range(calls):
                with contextlib.suppress(allowed):
                    works[k](i)
                    done[k] += 1
        except BaseException as fault:  # noqa: BLE001 - raised below
            faults.append(fault)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]
    return done


# ---- the interpreter ----


@pytest.mark.skipif(not FREE_THREADED, reason="about builds of Python without a GIL")
def test_the_import_does_not_bring_the_gil_back() -> None:
    code = """
        import sys, warnings
        warnings.simplefilter("error")
        import numpy
        before = sys._is_gil_enabled()
        import fast_momentum, fast_momentum.theory, fast_momentum.tuning
        fast_momentum.save
        assert sys._is_gil_enabled() == before == False
    """
    run_python(code, PYTHON_GIL="")  # as it is where nobody asks for anything


def test_first_uses_at_once() -> None:
    """What is made when it is first needed is made once, and nobody waits for ever."""
    run_python("""
        import threading
        import numpy as np
        import fast_momentum as fm

        barrier = threading.Barrier(8)
        failed = []
        def use():
            try:
                barrier.wait()
                p = {"a": np.ones(3, np.float32)}
                s = fm.adam(p, lr=0.1, eps=0.0)
                fm.step(p, p | {"a": np.ones(3, np.float32)}, s)
                fm.theory, fm.tuning, fm.Checkpoints, fm.global_norm(p), repr(s)
                s.to_form("folded")
                try:
                    fm.init(p)
                except TypeError:
                    return
                failed.append("init(p)")
            except BaseException as error:
                failed.append(error)
        threads = [threading.Thread(target=use) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert not failed, failed
    """)


# ---- one state ----

MAKERS: dict[str, Callable[[Any], fm.State]] = {
    "momentum": lambda p: fm.init(p, lr=2**-4, momentum=0.5),
    "per array": lambda p: fm.init(p, lr=[2**-4, 2**-5], weight_decay=[0.0, 0.25]),
    "adam": lambda p: fm.adam(p, lr=2**-4),
    "clipped": lambda p: fm.init(p, lr=2**-4, clip_norm=1.0),
    "averaged": lambda p: fm.init(p, lr=2**-4, average_decay=0.5),
    "int8": lambda p: fm.init(p, lr=2**-4, velocity_dtype="int8"),
}


def arrays(size: int = 100) -> list[Any]:
    return [np.ones(size, np.float32), np.full((size // 10, 10), 2, np.float32)]


@pytest.mark.parametrize("make", MAKERS)
def test_steps_of_eight_threads_are_serial_steps(make: str) -> None:
    params, grads = arrays(), arrays()
    state = MAKERS[make](params)
    made = race(*[lambda _: fm.step(params, grads, state)] * 8, calls=MANY)
    assert state.step_count == sum(made) > 0
    expected = arrays()
    other = MAKERS[make](expected)
    for _ in range(sum(made)):
        fm.step(expected, grads, other)
    for mine, its in zip([*params, *state.velocity], [*expected, *other.velocity], strict=True):
        np.testing.assert_array_equal(mine, its)


def attributes(state: fm.State) -> list[Any]:
    names = [name for name in dir(state) if not name.startswith("_")]
    values = []
    for name in names:
        with contextlib.suppress(AttributeError):  # of other rules
            values.append(getattr(state, name))
    return values


def uses(params: Any, grads: Any, state: fm.State, saved: Any, path: Path) -> dict[str, Callable[[int], Any]]:
    def set_all(i: int) -> None:
        state.lr = [0.25, 0.5][i % 2]
        state.weight_decay = [[0.0, 0.25], 0.125][i % 2]
        state.momentum = 0.5 + i % 2 / 4
        state.average_decay = [None, 0.5, 0.75][i % 3]
        state.clip_norm = [None, 1.0][i % 2]
        state.maximize = bool(i % 2)

    return {
        "step": lambda _: fm.step(params, grads, state, grad_scale=0.5),
        "set": set_all,
        "read": lambda _: attributes(state),
        "repr": lambda _: repr(state),
        "lookahead": lambda _: fm.lookahead(params, state),
        "state_dict": lambda _: state.state_dict(),
        "load_state_dict": lambda _: state.load_state_dict(saved),
        "copy": lambda _: fm.step(arrays(), grads, copy.copy(state)),
        "deepcopy": lambda _: repr(copy.deepcopy(state)),
        "pickle": lambda _: pickle.loads(pickle.dumps(state)),
        "reset": lambda i: state.reset("[0]" if i % 2 else None),
        "set_lr": lambda i: state.set_lr([0.25, 0.5][i % 2]),
        "to_form": lambda _: state.to_form("ema"),
        "swap_average": lambda _: state.swap_average(params),
        "save": lambda i: i % 20 or fm.save(path, params, state, i),
        "restore": lambda i: i % 20 or fm.restore(path, params, state),
    }


USES = tuple(uses(None, None, None, None, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["lr_outside", "lr_inside"])
@pytest.mark.parametrize("use", [*USES, "all at once"])
def test_one_state_used_in_every_way(use: str, form: str, tmp_path: Path) -> None:
    """Each beside steps and beside itself. Where an average comes, goes or is swapped, others may be refused."""
    params, grads = arrays(), arrays()
    state = fm.init(params, lr=0.5, form=form, average_decay=0.5)
    fm.save(tmp_path / "run.npz", params, state)
    works = uses(params, grads, state, state.state_dict(), tmp_path / "run.npz")
    chosen = (
        list(works.values())
        if use == "all at once"
        else [works[use], works[use], works["step"], works["set"]]
    )
    assert sum(race(*chosen, allowed=(fm.ConcurrentStepError, ValueError))) > 0
    assert all(np.isfinite(p).all() for p in params)
    state.load_state_dict(fm.init(params, lr=0.25, form=form).state_dict())
    before = [p.copy() for p in params]
    fm.step(params, grads, state)
    for p, was, g in zip(params, before, grads, strict=True):
        np.testing.assert_array_equal(p, was - np.float32(0.25) * g)


def test_settings_are_read_as_they_were_set() -> None:
    """Numbers for each array are those of one assignment, in attributes, checkpoints, copies and steps."""
    params = [np.zeros(50), np.zeros(50)]
    grads = [np.ones(50), np.ones(50)]
    state = fm.init(params, lr=[1.0, 1.0], momentum=0)

    def set_lr(i: int) -> None:
        state.lr = [1.0 + i % 3, 1.0 + i % 3]

    def alike(numbers: Any) -> None:
        assert numbers[0] == numbers[1] in (1.0, 2.0, 3.0)

    def step(_: int) -> None:
        fm.step(params, grads, state)
        assert params[0][0] == params[1][-1]

    done = race(
        set_lr,
        set_lr,
        step,
        lambda _: alike(state.lr),
        lambda _: alike(state.state_dict()["hyperparameters"]["lr"]),
        lambda _: alike(copy.copy(state).lr),
        calls=MANY,
    )
    assert done[0] == done[1] == MANY


def test_no_setting_is_lost_to_another_one() -> None:
    params = arrays()
    state = fm.init(params, lr=0.1)
    names = ["lr", "momentum", "weight_decay", "clip_norm", "average_decay"]

    def set_one(name: str, i: int) -> None:
        setattr(state, name, (i + 1) / (MANY + 1))
        assert getattr(state, name) == (i + 1) / (MANY + 1)

    def step(_: int) -> None:
        fm.step(params, arrays(), state)

    race(step, *(functools.partial(set_one, name) for name in names), calls=MANY)
    assert [getattr(state, name) for name in names] == [MANY / (MANY + 1)] * len(names)


def test_velocities_follow_lr() -> None:
    """By powers of two, which is exact: whoever has set it last, velocity and lr go together."""
    params = arrays()
    state = fm.init(params, lr=1.0, momentum=0.5, form="lr_inside")
    fm.step(params, arrays(), state)
    done = race(*[lambda i: state.set_lr(2.0 ** (i % 5 - 2))] * 4, calls=MANY)
    assert sum(done) > 0
    for v, g in zip(state.velocity, arrays(), strict=True):
        np.testing.assert_array_equal(v, np.float32(state.lr) * g)


def test_counts_only_grow() -> None:
    params, grads = arrays(), arrays()
    state = fm.init(params, lr=0.0, nonfinite="skip")
    last = threading.local()
    bad = [np.full_like(g, np.nan) for g in grads]

    def look(_: int) -> None:
        now = state.step_count, state.skipped_steps
        before = getattr(last, "seen", (0, 0))
        assert now[0] >= before[0]
        assert now[1] >= before[1]
        last.seen = now

    def step(grads: Any, _: int) -> None:
        fm.step(params, grads, state)

    made = race(functools.partial(step, grads), functools.partial(step, bad), look, look, calls=MANY)
    assert (state.step_count, state.skipped_steps) == tuple(made[:2])


def test_an_average_appears() -> None:
    """Its arrays are made while others ask for them."""
    for _ in range(max(CALLS // 20, 3)):
        params = arrays()
        state = fm.init(params, lr=0.0)

        def step(i: int, state: fm.State = state, params: Any = params) -> None:
            if i == 1:
                state.average_decay = 0.5
            fm.step(params, arrays(), state)

        def look(_: int, state: fm.State = state) -> None:
            found = state.average
            for average, model in zip(found or [], arrays() if found else [], strict=True):
                np.testing.assert_array_equal(average, model)

        race(step, look, look, calls=5)
        assert state.average is not None


def test_views_outlive_their_state() -> None:
    states = [fm.init(arrays(), lr=0.1) for _ in range(CALLS)]

    def drop(i: int) -> None:
        states[i] = None  # type: ignore[call-overload]

    def look(i: int) -> None:
        if (state := states[i]) is not None:
            views = state.velocity
            del state
            assert not views[0].any()

    race(drop, look, look)


# ---- containers that change ----


def changed(container: Any, key: Any, make: Callable[[], Any]) -> Callable[[int], None]:
    """Takes an item away, and puts another one into its place."""

    def change(i: int) -> None:
        if isinstance(container, dict):
            if i % 2:
                container.pop(key, None)
            container[key] = make()
        elif i % 3 == 0:
            container[key] = make()
        elif i % 3 == 1:
            container.append(container.pop(key))
        else:
            container[key : key + 2] = [make()]
            container.insert(key, make())

    return change


def leaf() -> Any:
    return np.ones(20, np.float32)


CONTAINERS: dict[str, Callable[[], tuple[Any, Callable[[int], None]]]] = {}


def container(make: Any) -> Any:
    CONTAINERS[make.__name__] = make
    return make


@container
def flat_list() -> tuple[Any, Callable[[int], None]]:
    items = [leaf() for _ in range(30)]
    return items, changed(items, 7, leaf)


@container
def flat_dict() -> tuple[Any, Callable[[int], None]]:
    items = {f"{i}": leaf() for i in range(30)}
    return items, changed(items, "7", leaf)


@container
def dict_in_list() -> tuple[Any, Callable[[int], None]]:
    items = [{"a": leaf()} for _ in range(10)]
    return items, changed(items, 3, lambda: {"a": leaf()})


@container
def list_in_dict() -> tuple[Any, Callable[[int], None]]:
    items = {f"{i}": [leaf(), (leaf(),)] for i in range(10)}
    return items, changed(items, "3", lambda: [leaf(), (leaf(),)])


REFUSALS = (ValueError, TypeError, KeyError, IndexError, RuntimeError)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("changing", ["params", "grads"])
def test_containers_that_change_beside_a_step(kind: str, changing: str) -> None:
    """Arrays that are taken out are freed at once where nobody holds them."""
    (params, change_params), (grads, change_grads) = CONTAINERS[kind](), CONTAINERS[kind]()
    states = [fm.init(params, lr=0.1) for _ in range(2)]
    change = change_params if changing == "params" else change_grads
    done = race(
        change,
        lambda _: fm.step(params, grads, states[0]),
        lambda _: fm.lookahead(grads, states[1]),  # which nobody writes
        lambda _: fm.global_norm(grads),
        allowed=REFUSALS,
    )
    assert sum(done[1:]) > 0
    params, grads = CONTAINERS[kind]()[0], CONTAINERS[kind]()[0]
    for state in states:
        fm.step(params, grads, state)
        assert state.step_count > 0


@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers_that_change_beside_init(kind: str) -> None:
    params, change = CONTAINERS[kind]()

    def make(_: int) -> None:
        state = fm.init(params, lr=0.1)
        assert repr(state.velocity)

    assert race(change, make, make, allowed=REFUSALS)[0] > 0


def test_settings_that_change_while_they_are_read() -> None:
    params = {"a": leaf(), "b": [leaf(), leaf()]}
    state = fm.init(params, lr=0.1)
    numbers: dict[str, Any] = {"a": 0.5, "b": [0.25, 0.125]}

    def change(i: int) -> None:
        numbers["b"] = [i / 1000, i / 2000]
        numbers["b"][i % 2 :] = []
        numbers.pop("a")
        numbers["a"] = 0.5 + i

    def use(_: int) -> None:
        state.lr = numbers

    race(change, use, use, lambda _: fm.init(params, lr=numbers), allowed=REFUSALS, calls=MANY)
    assert state.lr == 0.1 or state.lr["a"] >= 0.5


def test_checkpoints_that_change_while_they_are_loaded() -> None:
    params = arrays()
    state = fm.init(params, lr=0.1)
    saved = state.state_dict()

    def change(i: int) -> None:
        for of in (saved, saved["velocity"], saved["hyperparameters"]):
            key = list(of)[i % len(of)]
            of[key] = copy.copy(of.pop(key))

    race(change, *[lambda _: state.load_state_dict(saved)] * 2, allowed=REFUSALS)
    fm.step(params, arrays(), state)


# ---- files ----


@pytest.mark.parametrize("name", ["run.npz", "run.safetensors"])
def test_one_file_from_many_threads(name: str, tmp_path: Path) -> None:
    """Whoever was last: the file is whole at any time, and nothing is left beside it."""
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    path = tmp_path / name

    def save(k: int, i: int) -> None:
        params = [np.full(50, k), np.full(50, i)]
        fm.save(
            path, [p.astype(np.float64) for p in params], fm.init([p * 1.0 for p in params], lr=0.1), [k, i]
        )

    def load(_: int) -> None:
        params, _, extra = fm.load(path)
        assert [p[0] for p in params] == extra

    save(0, 0)
    race(*(functools.partial(save, k) for k in range(3)), load, calls=max(CALLS // 10, 5))
    load(0)
    assert [p.name for p in tmp_path.iterdir()] == [name]


# ---- what all share ----


def test_what_belongs_to_the_process() -> None:
    """The number of threads and the instruction set may be set while others step."""
    names = [name for name, found in _core.config()["instruction sets"].items() if found]
    in_use = _core.config()["in use"]
    made = itertools.count()

    def step(_: int) -> None:
        params = np.ones(100_000, np.float32)
        state = fm.init(params, lr=0.5)
        fm.step(params, params * 2, state)
        assert not params.any()
        next(made)

    try:
        race(
            lambda i: fm.set_num_threads(1 + i % 2),
            lambda i: _core.use_isa(names[i % len(names)]),
            lambda _: fm.show_config("dicts"),
            step,
            step,
            calls=max(CALLS // 4, 20),
        )
    finally:
        fm.set_num_threads(1)
        _core.use_isa(in_use)
    assert next(made) == 2 * max(CALLS // 4, 20)
