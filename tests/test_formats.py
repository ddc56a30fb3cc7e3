"""checkpoint.cpp: states that earlier versions have saved, in tests/data, are read, and go on with the bits of the
version that saved them (make_formats.py)."""

from __future__ import annotations

import pickle
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from helpers import assert_bits, make, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

FORMATS: dict[int, dict[str, bytes]] = {
    int(path.stem.removeprefix("format_")): pickle.loads(path.read_bytes())
    for path in sorted((Path(__file__).parent / "data").glob("format_*.pickle"))
}
SLOTS = ("velocity", "second_moment", "second_moment_maximum", "mean", "iterate", "average")
CASES = [(number, name) for number, cases in FORMATS.items() for name in cases]


@pytest.fixture(params=CASES, ids=lambda param: f"format {param[0]}, {param[1]}")
def case(request: pytest.FixtureRequest) -> dict[str, Any]:
    number, name = request.param
    try:
        found = pickle.loads(zlib.decompress(FORMATS[number][name]))
    except ModuleNotFoundError as missing:
        if missing.name != "ml_dtypes":
            raise
        pytest.skip("ml_dtypes, which has bfloat16, is not installed")
    assert found["state_dict"]["format"] == number
    return found


def loaded(case: dict[str, Any]) -> fm.State:
    """By a state in which all else that a checkpoint changes is another one."""
    options = case["options"]
    fixed = {k: v for k, v in options.items() if k == "rule" or _core.settings[k]["fixed"]}
    taken = {
        name for row in _core.rules if row["rule"] == options.get("rule", "momentum") for name in row["takes"]
    }
    decays = {name: 0.1 for name in ("beta1", "momentum", "l1") if name in taken}
    state = make(fm, case["params"], lr=7.0, clip_value=0.1, nonfinite="raise", **decays, **fixed)
    state.load_state_dict(case["state_dict"])
    return state


def unpickled(case: dict[str, Any]) -> fm.State:
    return pickle.loads(case["pickle"])


# Also as it is once it was written in the format of today.
WAYS: dict[str, Callable[[dict[str, Any]], fm.State]] = {
    "loaded": loaded,
    "loaded twice": lambda case: loaded({**case, "state_dict": loaded(case).state_dict()}),
    "unpickled": unpickled,
    "unpickled twice": lambda case: pickle.loads(pickle.dumps(unpickled(case))),
    "loaded and unpickled": lambda case: pickle.loads(pickle.dumps(loaded(case))),
    "unpickled and loaded": lambda case: loaded({**case, "state_dict": unpickled(case).state_dict()}),
}


def assert_has_what_it_had(state: fm.State, old: dict[str, Any]) -> None:
    """But for what formats have said in different ways: which arrays have been stepped."""
    found = state.state_dict()
    for name in old.keys() - {"format", "started"}:
        if name in (*SLOTS, "compensation", "master"):
            assert list(found[name]) == list(old[name])
            assert_bits(found[name], old[name])
        elif name == "hyperparameters":
            assert found[name] == {**found[name], **old[name]}
        else:
            assert repr(found[name]) == repr(old[name]), name  # by repr(), as a norm may be NaN


@pytest.mark.parametrize("way", WAYS)
def test_goes_on_as_it_did(case: dict[str, Any], way: str) -> None:
    params, after = case["params"], case["after"]
    state = WAYS[way](case)
    assert_has_what_it_had(state, case["state_dict"])
    if case["state_dict"].get("swapped"):
        with pytest.raises(ValueError, match="swap_average"):
            fm.step(params, case["grads"][0], state)
        state.swap_average(params)
    for grads in case["grads"]:
        fm.step(params, grads, state)
    assert_bits(params, after.pop("params"))
    for name in after.keys() & set(SLOTS):
        assert_bits(getattr(state, name), after.pop(name))
    for name, value in after.items():
        assert repr(getattr(state, name)) == repr(value), name


def test_every_format_has_cases() -> None:
    """Whoever makes a new format adds its cases, which make_formats.py writes."""
    newest = fm.init(np.ones(1), lr=0.1).state_dict()["format"]
    assert set(FORMATS) == set(range(1, newest + 1))


def test_a_newer_format_is_refused(rng: np.random.Generator) -> None:
    params = rng.normal(size=3)
    state = fm.init(params, lr=0.1)
    fm.step(params, rng.normal(size=3), state)
    found = state.state_dict()
    newest = found["format"]
    changes = {"format": newest + 1, "new": 1}
    message = re.escape(
        f"state_dict['format'] must be at most {newest}, not {newest + 1}; a newer version of fast_momentum has "
        "written it"
    )
    before = snapshot(state)
    with pytest.raises(ValueError, match=f"^{message}$"):
        state.load_state_dict({**found, **changes})
    assert snapshot(state) == before
    restore, (containers, rest) = state.__reduce__()
    with pytest.raises(ValueError, match=f"^{message}$"):
        restore(containers, {**rest, **changes})


def test_a_rule_in_a_format_that_had_none_is_refused() -> None:
    params = np.ones(3)
    state = fm.init(params, lr=0.1)
    found = state.state_dict()
    old = {**found, "format": 2, "started": {"": False}}
    del old["steps"]
    with pytest.raises(ValueError, match="^state_dict must not have the key 'rule'$"):
        state.load_state_dict(old)
    del old["rule"]
    state.load_state_dict(old)


def test_a_flag_of_another_type_will_do_where_it_equals() -> None:
    state = fm.init(np.ones(3), lr=0.1, compensated=True)
    state.load_state_dict({**state.state_dict(), "compensated": 1})
    assert state.compensated is True
