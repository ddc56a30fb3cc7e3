"""Cycles through a State are freed; and a garbage collection that runs Python code in the midst of a call does no harm."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pickle
import sys
import sysconfig
import weakref
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from helpers import run_python


class Key:
    """Of a dict; may refer to what it is a key of."""


class Params(dict[Any, Any]):
    """Whose class may refer to a State."""


def through_a_key(n: int = 3) -> Any:
    key = Key()
    key.state = fm.init({key: np.ones(n)}, lr=0.1)
    return key.state


def through_a_key_below(n: int = 3) -> Any:
    key = Key()
    key.state = fm.adam([np.ones(n), {"a": {key: np.ones(n)}}], lr=0.1)
    return key.state


def through_a_prefix(n: int = 3) -> Any:
    key = Key()
    key.state = fm.init({key: np.ones(n)}, lr=0.1)
    key.state.momentum = {key: 0.5}
    fm.step({key: np.ones(n)}, {key: np.ones(n)}, key.state)
    return key.state


def through_a_type(n: int = 3) -> Any:
    cls = type("Local", (Params,), {})
    cls.state = fm.init(cls(a=np.ones(n)), lr=0.1)
    return cls.state


def through_a_copy(n: int = 3) -> Any:
    state = through_a_key(n)
    key = next(iter(state.velocity))
    key.state = pickle.loads(pickle.dumps(fm.init({"a": np.ones(n)}, lr=0.1)))
    key.other = state.__copy__()
    return key.other


def is_alive(ref: weakref.ref[Any]) -> bool:
    return ref() is not None


CYCLES = [through_a_key, through_a_key_below, through_a_prefix, through_a_type, through_a_copy]


@pytest.mark.parametrize("cycle", CYCLES)
def test_a_cycle_is_freed(cycle: Any) -> None:
    state = cycle()
    kept = [
        one
        for one in gc.get_referents(state)
        if isinstance(one, Key) or (isinstance(one, type) and issubclass(one, Params))
    ]
    assert kept
    gone = [weakref.ref(one) for one in kept]
    del kept
    gc.collect()
    assert all(is_alive(ref) for ref in gone)
    assert len(repr(state)) > 0
    del state
    gc.collect()
    assert not any(is_alive(ref) for ref in gone)


@pytest.mark.skipif(
    "FAST_MOMENTUM_SANITIZED" in os.environ, reason="the address sanitizer keeps what is freed"
)
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")  # noqa: PTH112
def test_ten_thousand_cycles_take_no_memory() -> None:
    code = """
        import gc
        from pathlib import Path
        import numpy as np
        import fast_momentum as fm

        class Key:
            pass

        def resident():
            gc.collect()
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

        def cycles(n):
            for k in range(n):
                if k % 100 == 0:
                    gc.collect()
                key = Key()
                params = {key: np.ones(10_000)}
                key.state = fm.init(params, lr=0.1)
                fm.step(params, {key: np.ones(10_000)}, key.state)

        cycles(1000)
        before = resident()
        cycles(10_000)
        print(resident() - before)
    """
    assert int(run_python(code)) < 2**24  # of 1.6 GB


@pytest.mark.skipif(
    sys.maxsize < 2**32 or bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="the place of tp_clear is another",
)
def test_a_state_that_was_cleared_can_be_called() -> None:
    """As whatever is freed after it may do."""
    key = Key()
    state = fm.init({key: [np.ones(3), (np.ones(2),)]}, lr={key: 0.5})
    words = (ctypes.c_void_p * 25).from_address(id(type(state)))
    tp_clear = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(words[24])  # its place in a PyTypeObject
    assert tp_clear(state) == 0

    def whole() -> list[Any]:
        return [np.ones(3), (np.ones(2),)]

    gc.collect()
    for call in (
        lambda: fm.step({key: whole()}, {key: whole()}, state),
        lambda: fm.step({None: whole()}, {None: whole()}, state),
        lambda: fm.lookahead({None: whole()}, state),
        lambda: state.velocity,
        lambda: state.state_dict(),
        lambda: pickle.dumps(state),
        lambda: repr(state),
        lambda: state.lr,
        lambda: state.set_lr(0.1),
        lambda: state.__copy__(),
    ):
        with contextlib.suppress(ValueError, TypeError):
            call()


class Garbage:
    """That, when it is collected, clears what a call is reading."""

    def __init__(self, containers: list[Any]) -> None:
        self.containers, self.itself = containers, self

    def __del__(self) -> None:
        for container in self.containers:
            container.clear()


class List(list[Any]):
    pass


@pytest.mark.parametrize("name", ["init", "adam", "global_norm", "step", "grads", "load", "unpickled"])
def test_a_collection_that_clears_what_is_read(name: str) -> None:
    """At each allocation of an object: an error or a result, but no crash, and nothing changed by an error."""
    threshold = gc.get_threshold()
    for after in range(1, 60):
        params: Any = List([np.ones(3), Params(a=np.ones(2), b=List([np.ones(1), np.ones((2, 2))]))])
        grads: Any = List([np.ones(3), Params(a=np.ones(2), b=List([np.ones(1), np.ones((2, 2))]))])
        state = fm.init(params, lr=0.1)
        saved = state.state_dict()
        pickled = state.__reduce__()
        cleared = {"grads": [grads, grads[1], grads[1]["b"]], "load": [saved, saved["velocity"]]}.get(
            name, [params, params[1], params[1]["b"]]
        )
        leaves = [params[0], params[1]["a"]]
        calls: dict[str, Any] = {
            "init": lambda p=params: fm.init(p, lr=0.1),
            "adam": lambda p=params: fm.adam(p, lr=0.1, beta1=p),
            "global_norm": lambda p=params: fm.global_norm(p),
            "step": lambda p=params, g=grads, s=state: fm.step(p, g, s),
            "grads": lambda p=params, g=grads, s=state: fm.step(p, g, s),
            "load": lambda d=saved, s=state: s.load_state_dict(d),
            "unpickled": lambda r=pickled: r[0](*r[1]),
        }
        call = calls[name]
        gc.disable()
        gc.collect()
        Garbage(cleared)
        gc.set_threshold(after, 1, 1)
        gc.enable()
        try:
            with contextlib.suppress(ValueError, TypeError, KeyError):
                call()
        finally:
            gc.set_threshold(*threshold)
        if name not in ("step", "grads") or state.step_count == 0:
            assert (leaves[0] == 1).all()
            assert (leaves[1] == 1).all()
