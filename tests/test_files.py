"""_files and files.cpp: what is saved comes back bit for bit, whatever happens to the process, the disk or the file."""

from __future__ import annotations

import collections
import concurrent.futures
import errno
import itertools
import json
import os
import re
import stat
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core
from fast_momentum._files import _content, _replacing, _run
from helpers import (
    HALVES,
    KINDS,
    LAYOUTS,
    assert_bits,
    copied,
    leaves,
    make,
    model_of,
    option_id,
    other_state,
    random_like,
    snapshot,
    storable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY_KIND = [{}, {"form": "ema"}, *KINDS]
SHAPES = [(2, 3, 4), (7,), (), (0, 3), (300,)]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def new_params(rng: np.random.Generator, dtype: Any = np.float32) -> dict[str, Any]:
    return {"layers": [random_like(shape, dtype, rng) for shape in SHAPES[:3]], "rest": tuple(
        random_like(shape, dtype, rng) for shape in SHAPES[3:]
    )}  # fmt: skip


def grads_like(params: Any, rng: np.random.Generator) -> Any:
    return fm._containers.mapped(lambda p: random_like(p.shape, p.dtype, rng), params)


def run(params: Any, state: Any, seed: int, steps: int = 3) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        fm.step(params, grads_like(params, rng), state)


def state_dict(state: fm.State) -> dict[str, Any]:
    """With the bits of arrays, to be compared."""
    return fm._containers.mapped(
        lambda leaf: (
            (leaf.dtype.name, leaf.shape, leaf.tobytes()) if isinstance(leaf, np.ndarray) else repr(leaf)
        ),
        state.state_dict(),
    )


def assert_same_run(params: Any, state: fm.State, expected: Any, expected_state: fm.State) -> None:
    assert_bits(params, expected)
    assert state_dict(state) == state_dict(expected_state)
    run(params, state, 9)
    run(expected, expected_state, 9)
    assert_bits(params, expected)
    assert state_dict(state) == state_dict(expected_state)


def check_both_ways(path: Path, params: Any, state: fm.State) -> None:
    """load() and restore() give what was saved, and go on with its bits."""
    before = snapshot(state, params)
    fm.save(path, params, state, {"epoch": 3})
    assert snapshot(state, params) == before
    assert names_in(path.parent) == [path.name]
    loaded, loaded_state, extra = fm.load(path)
    assert extra == {"epoch": 3}
    assert [a.strides for a in leaves(loaded) if a.size > 1] == [
        v.strides if v.dtype == p.dtype else tuple(s * p.itemsize // v.itemsize for s in v.strides)
        for v, p in zip(leaves(model_of(state)), leaves(params), strict=True)
        if p.size > 1
    ]
    restored = fm._containers.mapped(np.zeros_like, params)
    restored_state = other_state(restored, state)
    run(restored, restored_state, 5, 1)
    assert fm.restore(path, restored, restored_state) == {"epoch": 3}
    expected, again = copied(params), fm.load(path)
    assert_same_run(restored, restored_state, *again[:2])
    assert_same_run(loaded, loaded_state, expected, _copy_for(state, expected))


def _copy_for(state: fm.State, params: Any) -> fm.State:
    import copy

    return copy.copy(state)


# ---- what comes back ----


@pytest.mark.parametrize("kind", EVERY_KIND, ids=option_id)
def test_every_rule(path: Path, kind: dict[str, Any], rng: np.random.Generator) -> None:
    params = new_params(rng)
    state = make(fm, params, lr={"layers": [0.1, 0.2, 0.3], "rest": 0.05}, weight_decay=0.01, **kind)
    run(params, state, 1)
    check_both_ways(path, params, state)


WHOLE_UPDATES: list[dict[str, Any]] = [
    {"average_decay": 0.9},
    {"compensated": True},
    {"clip_norm": np.inf, "nonfinite": "skip"},
    *({"velocity_dtype": name} for name in ("float16", "bfloat16", "int8")),
    {
        "velocity_dtype": "int8",
        "compensated": True,
        "average_decay": 0.5,
        "clip_value": 1.0,
        "maximize": True,
    },
]


@pytest.mark.parametrize("options", WHOLE_UPDATES, ids=str)
@pytest.mark.parametrize("kind", [{}, {"rule": "adam", "amsgrad": True, "nesterov": True}], ids=option_id)
def test_every_option(
    path: Path, kind: dict[str, Any], options: dict[str, Any], rng: np.random.Generator
) -> None:
    params = new_params(rng)
    state = make(fm, params, **storable({"lr": 0.1, **kind, **options}))
    check_both_ways(path, params, state)  # before the first step
    run(params, state, 1)
    check_both_ways(path, params, state)


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), *HALVES], ids=str)
@pytest.mark.parametrize("compensated", [False, True])
def test_every_dtype(path: Path, dtype: Any, compensated: bool, rng: np.random.Generator) -> None:
    params = new_params(rng, dtype)
    state = fm.adam(params, lr=0.1, compensated=compensated)
    run(params, state, 1)
    check_both_ways(path, params, state)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("velocity_dtype", [None, "int8", "bfloat16"])
def test_every_order_of_memory(
    path: Path, layout: str, velocity_dtype: str | None, rng: np.random.Generator
) -> None:
    """Channels last among them: more than one block of an int8 velocity, which has its scale by the order of memory."""
    params = [LAYOUTS[layout](random_like((8, 9, 10), np.float32, rng))]
    state = fm.init(params, lr=0.1, velocity_dtype=velocity_dtype)
    run(params, state, 1)
    check_both_ways(path, params, state)


def test_another_order_of_memory_and_of_keys(path: Path, rng: np.random.Generator) -> None:
    params = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=2)}
    state = fm.init(params, lr={"a": 0.1, "b": 0.2})
    fm.step(params, {"a": None, "b": np.ones(2)}, state)
    run(params, state, 1)
    fm.save(path, params, state)
    other = {"b": np.zeros(2), "a": np.zeros((4, 3)).T[::-1]}
    other_state = fm.init(other, lr=1.0)
    fm.restore(path, other, other_state)
    assert other_state.state_dict()["steps"] == {"['a']": 3, "['b']": 4}
    run({"a": other["a"], "b": other["b"]}, other_state, 2)
    run(params, state, 2)
    assert_bits({"a": other["a"], "b": other["b"]}, params)


def test_int8_in_another_order_is_refused(path: Path, rng: np.random.Generator) -> None:
    params = [random_like((30, 20), np.float32, rng)]
    state = fm.init(params, lr=0.1, velocity_dtype="int8")
    run(params, state, 1)
    fm.save(path, params, state)
    other = [np.zeros((20, 30), np.float32).T]
    other_state = fm.init(other, lr=0.1, velocity_dtype="int8")
    before = snapshot(other_state, other)
    with pytest.raises(ValueError, match=r"params\[0\] must have its axes in memory in the order \[0, 1\]"):
        fm.restore(path, other, other_state)
    assert snapshot(other_state, other) == before


class Pair(NamedTuple):
    first: Any
    second: Any


KEYS = ["a", "", "π", "a/b", "..", "\x00", "\ud800", 3, -1, 2**70, 0.5, True, None, b"\xff", ("a", (1, None))]


@pytest.mark.parametrize(
    "params",
    [
        np.ones(2),
        [],
        {},
        [np.ones(2)],
        (np.ones(2), [np.zeros(1), {}]),
        {key: np.full(2, float(number)) for number, key in enumerate(KEYS)},
        {"a": {"b": [{"c": (np.ones(1),)}]}},
    ],
    ids=["array", "no list", "no dict", "list", "tuple", "keys", "nested"],
)
def test_containers(path: Path, params: Any) -> None:
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    loaded, loaded_state, extra = fm.load(path)
    assert extra is None

    def same(a: Any, b: Any) -> None:
        assert type(a) is type(b)
        if isinstance(a, dict):
            assert [(type(k), k) for k in a] == [(type(k), k) for k in b]
            a, b = list(a.values()), list(b.values())
        if isinstance(a, (list, tuple)):
            for x, y in zip(a, b, strict=True):
                same(x, y)

    same(loaded, params)
    assert_bits(loaded, params)
    assert state_dict(loaded_state) == state_dict(state)


def test_a_subclass_comes_back_as_its_plain_kind_and_is_filled(path: Path) -> None:
    params = Pair(np.ones(2), collections.OrderedDict({np.int64(3): np.ones(1)}))
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    loaded = fm.load(path)[0]
    assert type(loaded) is tuple
    assert type(loaded[1]) is dict
    assert type(next(iter(loaded[1]))) is int
    params.first[:] = 0
    for filled in (params, loaded):
        fm.restore(path, filled, fm.init(filled, lr=0.1))
        assert filled[0].tolist() == [1, 1]


def test_an_order_of_keys_that_has_changed_since_init(path: Path) -> None:
    arrays = {"a": np.ones(1), "b": np.zeros(2)}
    state = fm.init(arrays, lr=0.1)
    fm.step(arrays, {"a": np.ones(1), "b": None}, state)
    fm.save(path, {"b": arrays["b"], "a": arrays["a"]}, state)
    loaded, loaded_state, _ = fm.load(path)
    assert list(loaded) == ["b", "a"]
    assert loaded_state.state_dict()["steps"] == {"['b']": 0, "['a']": 1}
    assert_bits(loaded_state.velocity["a"], state.velocity["a"])


def test_numpy_reads_it(tmp_path: Path) -> None:
    params = {
        "w": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "k": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    }
    state = fm.adam(params, lr=0.1)
    fm.save(tmp_path / "run.npz", params, state)
    with np.load(tmp_path / "run.npz") as found:
        for name, array in params.items():
            assert_bits(found[f"params['{name}']"], array)
            assert_bits(found[f"second_moment['{name}']"], state.second_moment[name])
        header = json.loads(found["checkpoint.json"])
    assert header["state"]["rule"] == "adam"


def test_safetensors_reads_it(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    params = {"w": np.asfortranarray(np.arange(6.0).reshape(2, 3))}
    fm.save(tmp_path / "run.safetensors", params, fm.init(params, lr=0.1))
    assert_bits(library.load_file(tmp_path / "run.safetensors")["params['w']"], params["w"])


def test_the_same_run_has_the_same_bytes(path: Path, rng: np.random.Generator) -> None:
    params = new_params(rng)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    first = path.read_bytes()
    fm.save(path, params, state)
    assert path.read_bytes() == first


EXTRAS = [
    None, 0, -0.0, "", "\ud800", [], {}, True, 2**100, 1e-320, {"a": [1, {"b": None}]}, [[[]]],
    np.random.default_rng(0).bit_generator.state, np.float64(0.1),
]  # fmt: skip


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_extra(path: Path, extra: Any) -> None:
    params = np.ones(1)
    fm.save(path, params, fm.init(params, lr=0.1), extra)
    found = fm.load(path)[2]
    assert repr(found) == repr(extra if not isinstance(extra, np.generic) else extra.item())


@pytest.mark.parametrize("extra", [np.inf, -np.inf, np.nan])
def test_a_loss_that_is_not_finite(path: Path, extra: float) -> None:
    params = np.ones(1)
    fm.save(path, params, fm.init(params, lr=0.1), {"best": extra})
    assert repr(fm.load(path)[2]) == repr({"best": extra})


# ---- what is refused ----


class Text(str):
    __slots__ = ()


def deep(levels: int) -> Any:
    found: Any = 0
    for _ in range(levels):
        found = [found]
    return found


REFUSED_EXTRAS = {
    "tuple": ((1, 2), r"extra must be what JSON can hold, not tuple; save list\(\) of it"),
    "array": (
        {"a": [np.ones(2)]},
        r"extra\['a'\]\[0\] must be what JSON can hold, not ndarray; save its tolist\(\)",
    ),
    "scalar": (np.float32(1), r"extra must be what JSON can hold, not float32; save its item\(\)"),
    "object": (object(), r"extra must be what JSON can hold, not object"),
    "bytes": (b"", "extra must be what JSON can hold, not bytes"),
    "key": ({1: 2}, r"extra must have strings as keys, as it is kept as JSON, not 1; use str\(key\)"),
    "deep": (deep(101), "must be at most 100 levels deep"),
    "digits": (10**5000, "extra must have as many digits as Python reads"),
}


@pytest.mark.parametrize("case", REFUSED_EXTRAS)
def test_extra_that_would_not_come_back(path: Path, case: str) -> None:
    extra, message = REFUSED_EXTRAS[case]
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state, "old")
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError), match=f"^{message}" if case != "deep" else message):
        fm.save(path, params, state, extra)
    assert path.read_bytes() == before


def test_a_key_that_no_file_can_hold(path: Path) -> None:
    params = {"a": {frozenset(): np.ones(1)}}
    state = fm.init(params, lr=0.1)
    with pytest.raises(TypeError, match="^params must have keys that a file can hold"):
        fm.save(path, params, state)
    assert not path.exists()


@pytest.mark.parametrize("name", ["run", "run.npy", "run.NPZ", "run.npz.bak", ""])
def test_a_name_without_a_known_suffix(tmp_path: Path, name: str) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    for call in (lambda p: fm.save(p, params, state), fm.load, lambda p: fm.restore(p, params, state)):
        with pytest.raises(
            ValueError, match=r"^path must end in \.npz or \.safetensors, which says the format, not "
        ):
            call(f"{tmp_path}/{name}")


@pytest.mark.parametrize("bad", [None, 3, 1.5, ["run.npz"]])
def test_a_path_that_is_none(bad: Any) -> None:
    with pytest.raises(TypeError, match="path must be str, bytes or os.PathLike"):
        fm.load(bad)


def test_bytes_and_pathlike(tmp_path: Path) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    name = os.fsencode(tmp_path) + b"/r\xff\xfen.npz"
    fm.save(name, params, state)
    assert_bits(fm.load(os.fsdecode(name))[0], params)
    assert_bits(fm.load(Path(os.fsdecode(name)))[0], params)


def test_not_the_params_of_the_state(path: Path) -> None:
    params = {"w": np.ones((2, 3))}
    state = fm.init(params, lr=0.1)
    for bad, error, message in [
        ([np.ones((2, 3))], TypeError, "params must be a dict, as in init"),
        ({"v": np.ones((2, 3))}, ValueError, "params must have the same keys"),
        ({"w": np.ones((3, 2))}, ValueError, r"params\['w'\] must have the shape it had in init"),
        ({"w": np.ones((2, 3), np.float32)}, TypeError, r"params\['w'\] must have "),
    ]:
        with pytest.raises(error, match=message):
            fm.save(path, bad, state)
    with pytest.raises(TypeError, match="^state must be a State, as init"):
        fm.save(path, params, params)  # type: ignore[arg-type]
    assert not path.exists()


def test_read_only_params_can_be_saved_and_not_restored(path: Path) -> None:
    params = np.ones(2)
    state = fm.init(params, lr=0.1)
    params.flags.writeable = False
    fm.save(path, params, state)
    with pytest.raises(ValueError, match="params must be writable"):
        fm.restore(path, params, state)


def fits(path: Path) -> tuple[Any, fm.State]:
    params = {"w": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}
    state = fm.adam(params, lr=0.1)
    run(params, state, 1)
    fm.save(path, params, state)
    return params, state


W = np.ones((2, 3), np.float32)
MISFITS: dict[str, tuple[Callable[[], tuple[Any, fm.State]], str]] = {
    "rule": (lambda: ((p := {"w": W.copy(), "b": W[0].copy()}), fm.init(p, lr=0.1)), r"state must have the rule 'adam', which was saved, not 'momentum'; make it with fast_momentum.adam\(\)"),
    "form": (
        lambda: ((p := {"w": W.copy(), "b": W[0].copy()}), fm.adam(p, lr=0.1, form="folded")),
        r"state must have form='corrected', which was saved, not 'folded'; make it so",
    ),
    "option": (
        lambda: ((p := {"w": W.copy(), "b": W[0].copy()}), fm.adam(p, lr=0.1, amsgrad=True)),
        r"state must have amsgrad=False, which was saved, not True",
    ),
    "missing": (lambda: ((p := {"w": W.copy()}), fm.adam(p, lr=0.1)), r"the file must have the same arrays as params, not have params\['b'\] besides; for a model that has"),
    "another": (
        lambda: ((p := {"w": W.copy(), "b": W[0].copy(), "c": W.copy()}), fm.adam(p, lr=0.1)),
        r"the file must have the same arrays as params, not lack params\['c'\]; for a model that has grown",
    ),
    "shape": (
        lambda: ((p := {"w": W.T.copy(), "b": W[0].copy()}), fm.adam(p, lr=0.1)),
        r"params\['w'\] must have the shape that was saved, \(2, 3\), not \(3, 2\); load\(\) makes such arrays",
    ),
    "dtype": (
        lambda: ((p := {"w": W.copy(), "b": W[0].astype(float)}), fm.adam(p, lr=0.1)),
        r"params\['b'\] must have the dtype that was saved, float32, not float64",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_changes_nothing(path: Path, case: str) -> None:
    fits(path)
    made, message = MISFITS[case]
    params, state = made()
    before = snapshot(state, params)
    with pytest.raises(
        ValueError, match=f"^{re.escape(repr(str(path)))} must fit params and state: {message}"
    ):
        fm.restore(path, params, state)
    assert snapshot(state, params) == before


def test_a_state_that_another_thread_steps(path: Path) -> None:
    """While a file is written, and while one is read."""
    params = np.ones(2)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    with pytest.raises(fm.ConcurrentStepError):
        state._lend(params, lambda *_: fm.step(params, np.ones(2), state))
    with pytest.raises(fm.ConcurrentStepError):
        state._lend(params, lambda *_: fm.restore(path, params, state))
    description = state._lend(params, lambda description, *_: description)
    description = {key: value for key, value in description.items() if key != "paths"}
    with pytest.raises(fm.ConcurrentStepError):
        state._fill(params, description, lambda *_: fm.save(path, params, state))
    fm.step(params, np.ones(2), state)


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The .npz with another header, and its checksum: as somebody would write it by hand."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(members["checkpoint.json"])
    header = change(header) or header
    members["checkpoint.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def setting(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = to

    return change


def without(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for key in keys[:-1]:
            header = header[key]
        del header[keys[-1]]

    return change


HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no dict": lambda header: [1],
    "a number": lambda header: 3,
    **{
        f"no {key}": without(key)
        for key in ("fast_momentum", "structure", "orders", "state", "arrays", "extra")
    },
    "format": setting("fast_momentum", to=0),
    "format as text": setting("fast_momentum", to="1"),
    "a huge shape": setting("arrays", "params['w']", "shape", to=[2**62, 2**62]),
    "an empty shape that is huge": setting("arrays", "params['w']", "shape", to=[0, 2**62]),
    "a negative shape": setting("arrays", "params['w']", "shape", to=[-1, 3]),
    "another shape": setting("arrays", "params['w']", "shape", to=[3, 2]),
    "another order": setting("arrays", "params['w']", "order", to="F"),
    "no order": setting("arrays", "params['w']", "order", to="K"),
    "an object": setting("arrays", "params['w']", "dtype", to="object"),
    "another dtype": setting("arrays", "params['w']", "dtype", to="float64"),
    "one array fewer": without("arrays", "params['w']"),
    "axes": setting("orders", 0, to=[0, 0]),
    "no axes": setting("orders", to=[]),
    "places": setting("structure", to={"dict": [["w", 0], ["b", 0]]}),
    "a place too many": setting("structure", to={"dict": [["w", 0], ["b", 2]]}),
    "no places": setting("structure", to={"dict": []}),
    "a structure of another kind": setting("structure", to={"set": [0, 1]}),
    "a key of another kind": setting("structure", to={"dict": [[{"set": []}, 0], ["b", 1]]}),
    "a deep structure": setting("structure", to=json.loads("[" * 500 + "]" * 500)),
    "steps": setting("state", "steps", to=[3]),
    "steps below 0": setting("state", "steps", to=[3, -1]),
    "steps of 0": setting("state", "steps", to=[0, 3]),
    "paths": setting("state", "paths", to=["['w']", "['w']"]),
    "rule": setting("state", "rule", to="sgd"),
    "rule of another type": setting("state", "rule", to=[1]),
    "form": setting("state", "form", to="new"),
    "lr": setting("state", "hyperparameters", "lr", to=-1),
    "lr per array": setting("state", "hyperparameters", "lr", to={"dict": [["w", 1]]}),
    "no lr": without("state", "hyperparameters", "lr"),
    "a new hyperparameter": setting("state", "hyperparameters", "new", to=1),
    "state of a later format": setting("state", "format", to=99),
    "an average": setting("state", "average", to=True),
    "no velocity": setting("state", "velocity", to=False),
    "a velocity that is no flag": setting("state", "velocity", to="yes"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_header_that_lies(tmp_path: Path, case: str) -> None:
    """Its checksum is right. Nothing but a ValueError that names the file, or a TypeError where that is its type."""
    path = tmp_path / "run.npz"
    params, state = fits(path)
    rewritten(path, HOSTILE[case])
    before = snapshot(state, params)
    for call in (lambda: fm.load(path), lambda: fm.restore(path, params, state)):
        with pytest.raises((ValueError, TypeError), match=f"^{re.escape(repr(str(path)))} must "):
            call()
    assert snapshot(state, params) == before


def test_a_later_version(tmp_path: Path) -> None:
    path = tmp_path / "run.npz"
    fits(path)
    rewritten(path, lambda header: header.update(fast_momentum=2, version="3.1"))
    with pytest.raises(
        ValueError,
        match=r"must fit params and state: its format must be at most 1, not 2; version '3.1' of fast_momentum has",
    ):
        fm.load(path)


def test_a_second_moment_below_zero(path: Path) -> None:
    params, state = fits(path)
    state._lend(params, lambda _, __, memory: next(m for m in memory if m[0] == "second_moment")[3].fill(-1))
    fm.save(path, params, state)
    other = {"w": W.copy(), "b": W[0].copy()}
    other_state = fm.adam(other, lr=0.1)
    before = snapshot(other_state, other)
    message = r"second_moment\['w'\] must be >= 0 in each element, not hold others"
    with pytest.raises(fm.DamagedFileError, match=message):
        fm.restore(path, other, other_state)
    assert snapshot(other_state, other) == before
    with pytest.raises(fm.DamagedFileError, match=message):
        fm.load(path)


@pytest.mark.parametrize("place", [3, 4], ids=["items", "scales"])
@pytest.mark.parametrize("bad", [-0.0, np.nan])
def test_what_is_kept_of_an_array_that_has_made_no_step(path: Path, place: int, bad: float) -> None:
    params = np.zeros(300, np.float32)
    state = fm.init(params, lr=0.1, velocity_dtype="int8" if place == 4 else None)
    state._lend(params, lambda _, __, memory: memory[0][place].fill(bad))
    fm.save(path, params, state)
    before = snapshot(state, params)
    for load in (lambda: fm.load(path), lambda: fm.restore(path, params, state)):
        with pytest.raises(
            fm.DamagedFileError, match="must be zero where its array has made no step, not hold other values"
        ):
            load()
    assert snapshot(state, params) == before


def test_states_of_earlier_formats(tmp_path: Path) -> None:
    """A file that says its state is one of format 1 or 2, which had less."""
    path = tmp_path / "run.npz"
    params = [np.ones(3), np.ones(2)]
    state = fm.init(params, lr=0.1)
    fm.step(params, [np.ones(3), None], state)
    fm.save(path, params, state)
    later = (
        "skipped_steps",
        "grad_norm",
        "swapped",
        "average",
        "compensation",
        "master",
        "velocity_dtype",
        "compensated",
    )
    later_numbers = [
        name for name in state.state_dict()["hyperparameters"] if _core.settings[name]["since"] > 1
    ]

    def to_format(number: int) -> Callable[[dict[str, Any]], None]:
        def change(header: dict[str, Any]) -> None:
            saved = header["state"]
            saved["format"] = number
            saved["started"] = [steps > 0 for steps in saved.pop("steps")]
            del saved["rule"]
            for name in later if number == 1 else ():
                saved.pop(name, None)
            for name in later_numbers if number == 1 else ():
                del saved["hyperparameters"][name]

        return change

    for number in (2, 1):
        fm.save(path, params, state)
        rewritten(path, to_format(number))
        loaded, loaded_state, _ = fm.load(path)
        assert loaded_state.state_dict()["steps"] == {"[0]": 1, "[1]": 0}
        assert_bits(loaded, params)
        assert_bits(loaded_state.velocity, state.velocity)
        fm.restore(path, loaded, loaded_state)


@pytest.mark.parametrize(
    "what", ["pickle", "text", "empty", "a plain npz", "plain safetensors", "compressed", "twice"]
)
def test_other_files(tmp_path: Path, what: str) -> None:
    path = tmp_path / "run.npz"
    if what == "plain safetensors":
        path = tmp_path / "run.safetensors"
        pytest.importorskip("safetensors.numpy").save_file({"a": np.ones(2)}, path)
    elif what == "a plain npz":
        np.savez(path, a=np.ones(2))
    elif what in ("compressed", "twice"):
        fits(path)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        kind = zipfile.ZIP_DEFLATED if what == "compressed" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
            if what == "twice":
                with pytest.warns(UserWarning, match="Duplicate name"):
                    archive.writestr("params['w'].npy", members["params['w'].npy"])
    else:
        path.write_bytes({"pickle": b"\x80\x04N.", "text": b"hello", "empty": b""}[what])
    with pytest.raises(
        ValueError, match=f"^{re.escape(repr(str(path)))} must be as save\\(\\) has written it: "
    ):
        fm.load(path)


NPY = {
    "a dtype that NumPy cannot read": "{'descr': 'M8[s/0]', 'fortran_order': False, 'shape': (2, 3), }",
    "no dict": "(",
    "deep": "-" * 9000 + "1",
    "code": "if 1:\n\t1\n  2",
    "no dtype": "{'descr': (), 'fortran_order': False, 'shape': (2, 3), }",
}


@pytest.mark.parametrize("text", NPY.values(), ids=NPY)
def test_an_array_whose_header_is_something_else(tmp_path: Path, text: str) -> None:
    """One of these ended the process within NumPy."""
    path = tmp_path / "run.npz"
    params, state = fits(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    filled = text + " " * (-(len(text) + 11) % 64) + "\n"
    members["params['w'].npy"] = (
        b"\x93NUMPY\1\0" + struct.pack("<H", len(filled)) + filled.encode() + bytes(24)
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    before = snapshot(state, params)
    for call in (lambda: fm.load(path), lambda: fm.restore(path, params, state)):
        with pytest.raises(
            fm.DamagedFileError, match=r"must be as save\(\) has written it: params\['w'\] must "
        ):
            call()
    assert snapshot(state, params) == before


@pytest.mark.parametrize("checksums", ["[]", "1", "null", "NaN", "[" * 100_000, "{}"])
def test_checksums_that_are_none(tmp_path: Path, checksums: str) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "run.safetensors"
    fits(path)
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    header["__metadata__"]["crc32"] = checksums
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n :])
    with pytest.raises(fm.DamagedFileError, match=f"^{re.escape(repr(str(path)))} must be as save"):
        fm.load(path)


@pytest.mark.parametrize("text", ["\ud83d\ude00", "a\ud83d\ude00b"])
def test_text_that_json_changes(path: Path, text: str) -> None:
    params = {text: np.ones(1)}
    with pytest.raises(ValueError, match="params must have no halves of characters"):
        fm.save(path, params, fm.init(params, lr=0.1))
    plain = np.ones(1)
    state = fm.init(plain, lr=0.1)
    for extra in (text, [text], {text: 1}):
        with pytest.raises(ValueError, match="must have no halves of characters"):
            fm.save(path, plain, state, extra)
    assert not path.exists()


class Odd(dict[Any, Any]):
    def items(self) -> Any:
        return []


class OddList(list[Any]):
    def __iter__(self) -> Any:
        return iter([])


def test_containers_with_a_mind_of_their_own(path: Path) -> None:
    """They are read as the compiled part reads them."""
    params = Odd(a=OddList([np.ones(2)]))
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    assert_bits(fm.load(path)[0], {"a": [np.ones(2)]})
    params["a"][0][:] = 3
    fm.restore(path, params, state)
    assert params["a"][0].tolist() == [1, 1]


@pytest.mark.parametrize("shape", [(), (1,), (0,), (1, 1), (2, 1), (1, 300), (0, 3)])
def test_int8_of_every_small_shape(path: Path, shape: tuple[int, ...]) -> None:
    params = [np.ones(shape, np.float32)]
    state = fm.init(params, lr=0.1, velocity_dtype="int8")
    fm.step(params, [np.ones(shape, np.float32)], state)
    fm.save(path, params, state)
    fm.restore(path, params, state)
    fm.restore(path, *fm.load(path)[:2])


def test_a_path_that_is_too_long_for_an_archive(tmp_path: Path) -> None:
    params = {"k" * 70_000: np.ones(1)}
    state = fm.init(params, lr=0.1)
    with pytest.raises(ValueError, match="must have a path of at most 65000 bytes"):
        fm.save(tmp_path / "run.npz", params, state)
    assert names_in(tmp_path) == []


def test_a_file_that_changes_while_it_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params, state = fits(path)
    original = _run.look_at

    def look_at(name: str, part: Any, read: Any) -> None:
        original(name, part, read)
        if name == "params['w']":
            data = bytearray(path.read_bytes())
            data[-104 if path.suffix == ".safetensors" else data.index(b"NUMPY") + 130] ^= 1
            with path.open("r+b") as file:
                file.write(data)

    monkeypatch.setattr(_run, "look_at", look_at)
    with pytest.raises((OSError, fm.DamagedFileError), match="has changed while it was read|must be as save"):
        fm.restore(path, params, state)


def test_no_thread_for_checksums(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of the interpreter."""
    params = [np.ones(300_000)]
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)

    def refuse(*_: Any) -> None:
        msg = "cannot schedule new futures after interpreter shutdown"
        raise RuntimeError(msg)

    monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", refuse)
    fm.restore(path, params, state)
    assert_bits(fm.load(path)[0], params)


# ---- damage ----


def small_run(path: Path) -> tuple[Any, fm.State]:
    params = {"w": np.ones((2, 2), np.float32)}
    state = fm.init(params, lr=0.1, velocity_dtype="float16")
    run(params, state, 1)
    fm.save(path, params, state, {"note": "x"})
    return params, state


@pytest.mark.python_alone
def test_every_byte_matters_or_means_nothing(path: Path) -> None:
    """Three kinds of damage to each byte: found, or what is loaded is the same."""
    params, state = small_run(path)
    whole, expected = path.read_bytes(), state_dict(state)
    without_meaning = 0
    for place, flip in itertools.product(range(len(whole)), (0x01, 0x80, 0xFF)):
        damaged = bytearray(whole)
        damaged[place] ^= flip
        path.write_bytes(damaged)
        try:
            loaded, loaded_state, extra = fm.load(path)
        except fm.DamagedFileError as error:
            assert str(error).startswith(repr(str(path)))  # noqa: PT017 - it need not be raised
        else:
            without_meaning += 1
            assert_bits(loaded, params)
            assert state_dict(loaded_state) == expected
            assert extra == {"note": "x"}
    assert without_meaning < len(whole)  # of three times as many


@pytest.mark.python_alone
def test_every_length(path: Path) -> None:
    params, state = small_run(path)
    whole = path.read_bytes()
    before = snapshot(state, params)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="must be as save"):
            fm.load(path)
        with pytest.raises(ValueError, match="must be as save"):
            fm.restore(path, params, state)
    assert snapshot(state, params) == before


def test_damage_to_what_has_a_range_is_damage(path: Path) -> None:
    """Whatever is wrong about the values, which are looked at before the checksum is known."""
    params = [np.zeros(3, np.float32), np.ones(3, np.float32)]
    state = fm.adam(params, lr=0.1)
    fm.step(params, [None, params[1].copy()], state)
    fm.save(path, params, state)
    whole = path.read_bytes()
    for zeros in re.finditer(bytes(12), whole):
        for flip in (0x01, 0x80):
            path.write_bytes(whole[: zeros.start()] + bytes([flip] * 12) + whole[zeros.end() :])
            with pytest.raises(fm.DamagedFileError):
                fm.load(path)
            with pytest.raises(fm.DamagedFileError):
                fm.restore(path, params, state)


def test_damage_far_in_a_large_array_changes_nothing(path: Path, rng: np.random.Generator) -> None:
    params = [rng.normal(size=1000), rng.normal(size=300_000)]
    state = fm.init(params, lr=0.1)
    run(params, state, 1)
    fm.save(path, params, state)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    run(params, state, 2)
    before = snapshot(state, params)
    with pytest.raises(ValueError, match=r"must be as save\(\) has written it: (params|velocity)\[1\] must "):
        fm.restore(path, params, state)
    assert snapshot(state, params) == before


# ---- how a file comes to be ----


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_those_of_open(path: Path, umask: int) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    before = os.umask(umask)
    try:
        fm.save(path, params, state)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask
        path.chmod(0o640)
        fm.save(path, params, state)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_what_is_private_stays_so_while_it_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    path.chmod(0o600)
    modes = []
    monkeypatch.setattr(
        _replacing, "_take_over", lambda beside, _: modes.append(beside.stat().st_mode & 0o777)
    )
    fm.save(path, params, state)
    assert modes == [0o600]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_is_followed(tmp_path: Path) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "real.npz", tmp_path / "run.npz"
    link.symlink_to(target)
    for _ in range(2):
        fm.save(link, params, state)
        assert link.is_symlink()
        assert_bits(fm.load(target)[0], params)
    assert names_in(tmp_path / "there") == ["real.npz"]


def test_a_folder_and_what_is_not_there(path: Path) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    with pytest.raises(FileNotFoundError, match="path must be in a folder that there is"):
        fm.save(path.parent / "none" / path.name, params, state)
    with pytest.raises(FileNotFoundError):
        fm.load(path)
    path.mkdir()
    with pytest.raises(
        IsADirectoryError, match="path must be the name of a file, or a new one, not that of a folder"
    ):
        fm.save(path, params, state)
    assert names_in(path) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe(path: Path) -> None:
    os.mkfifo(path)
    params = np.ones(1)
    with pytest.raises(
        ValueError, match="path must be the name of a file, or a new one, not that of a device or pipe"
    ):
        fm.save(path, params, fm.init(params, lr=0.1))
    assert stat.S_ISFIFO(path.stat().st_mode)


@pytest.mark.skipif(
    os.name == "nt" or os.geteuid() == 0, reason="root may write everything, and Windows has no modes"
)
def test_a_file_that_may_not_be_written(path: Path) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        fm.save(path, params, state)
    assert_bits(fm.load(path)[0], params)


def test_a_long_name(path: Path) -> None:
    params = np.ones(1)
    long = path.with_name("n" * (255 - len(path.suffix)) + path.suffix)
    fm.save(long, params, fm.init(params, lr=0.1))
    assert_bits(fm.load(long)[0], params)


def test_what_a_killed_process_has_left_is_swept(path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    left = [path.with_name(f"{_replacing.PREFIX}{number}") for number in range(3)]
    for file in left:
        file.write_bytes(b"begun")
    with left[2].open("rb") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        fm.save(path, params, state)
        assert [file.exists() for file in left] == [False, False, True]
    fm.save(path, params, state)
    assert names_in(path.parent) == [path.name]


@pytest.mark.python_alone
def test_threads_that_save_to_one_name(path: Path) -> None:
    """Each leaves a whole file; none sweeps what another one is at."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        params = np.full(2000, float(number))
        state = fm.init(params, lr=0.1)
        try:
            for _ in range(25):
                fm.save(path, params, state, number)
                loaded, _, extra = fm.load(path)
                assert (loaded == extra).all()
        except BaseException as error:  # noqa: BLE001 - whatever it is
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert names_in(path.parent) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no folders to be flushed")
def test_the_order_that_survives_a_power_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else shows it: what is written and not flushed outlives a process, and not the machine."""
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def recorded_fsync(descriptor: int) -> None:
        kind = (
            "folder"
            if stat.S_ISDIR(os.fstat(descriptor).st_mode)
            else f"file of {os.fstat(descriptor).st_size}"
        )
        done.append(kind)
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    fm.save(path, params, state)
    assert done == [f"file of {path.stat().st_size}", "rename", "folder"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="/proc is of Linux")
def test_no_file_is_open_while_it_is_renamed_on_windows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which refuses that, as it does the removal of one after an error."""
    opened: list[str] = []
    replace, unlink = Path.replace, Path.unlink

    def look(self: Path) -> None:
        opened.extend(str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists())
        assert str(self) not in opened

    def looking_replace(self: Path, target: Path) -> Path:
        look(self)
        return replace(self, target)

    def looking_unlink(self: Path, missing_ok: bool = False) -> None:
        look(self)
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(_replacing, "fcntl", None)
    monkeypatch.setattr(Path, "replace", looking_replace)
    monkeypatch.setattr(Path, "unlink", looking_unlink)
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state)
    assert opened
    monkeypatch.setattr(_run.FORMATS[path.suffix], "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fm.save(path, params, state)
    assert names_in(path.parent) == [path.name]


def test_params_that_another_thread_changes(path: Path) -> None:
    """The state cannot be stepped meanwhile; a copy of it beside the parameters themselves can."""
    params = {"a": np.ones(1000), "b": np.ones(1000)}
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state, "old")
    form = _run.FORMATS[path.suffix]
    original = form.bytes_of

    def bytes_of(part: Any) -> Any:
        for memory in original(part):
            yield memory
            if part.may_change:
                params["a"][3] += 1  # as soon as the first bytes were taken

    form.bytes_of = bytes_of
    try:
        with pytest.raises(
            fm.ConcurrentStepError, match=r"params\['a'\] must stay as they are while they are saved"
        ):
            fm.save(path, params, state, "new")
    finally:
        form.bytes_of = original
    assert fm.load(path)[2] == "old"
    assert names_in(path.parent) == [path.name]


def test_no_rename_keeps_the_new_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    fm.save(path, params, state, "old")

    def refuse(*_: Any) -> None:
        raise OSError(errno.EXDEV, "no rename here")

    with monkeypatch.context() as context:
        context.setattr(Path, "replace", refuse)
        with pytest.raises(OSError, match="no rename here") as info:
            fm.save(path, params, state, "new")
    assert fm.load(path)[2] == "old"
    note = next(note for note in info.value.__notes__ if "rename it" in note)
    kept = Path(re.search(r"'(.*)'", note)[1])  # type: ignore[index]
    kept.rename(path)
    assert fm.load(path)[2] == "new"


PEAK = """
import resource, sys
import numpy as np
import fast_momentum as fm
if sys.argv[1].endswith(".safetensors"):
    import safetensors

params = [np.ones((4000, 3000), np.float32, order) for order in "CF"] + [np.ones((6000, 4000), np.float32)[::2]]
state = fm.adam(params, lr=0.1)
one = np.ones((), np.float32)  # and no more gradients, whose memory would hide what files take
fm.step(params, [np.broadcast_to(one, p.shape) for p in params], state)
small = np.ones(3)
small_state = fm.init(small, lr=0.1)
fm.save(sys.argv[1], small, small_state)  # so that what is imported does not count
fm.restore(sys.argv[1], small, small_state)
peaks = []
for call in (fm.save, fm.restore):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(sys.argv[1], params, state)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(*peaks)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.skipif("FAST_MOMENTUM_SANITIZED" in os.environ, reason="a sanitizer takes memory of its own")
def test_memory_that_files_take(path: Path) -> None:
    """Nearly half a gigabyte, in three layouts."""
    done = subprocess.run([sys.executable, "-c", PEAK, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(int(peak) < 64 * 1024 for peak in done.stdout.split())


# ---- a folder of checkpoints ----


def test_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    checkpoints = fm.Checkpoints(folder, keep=2)
    params = np.zeros(2)
    state = fm.init(params, lr=0.1)
    assert checkpoints.paths == []
    assert checkpoints.unreadable == {}
    assert checkpoints.restore(params, state) is None
    saved = []
    for step in range(4):
        saved.append(checkpoints.save(params, state, {"step": step}))
        fm.step(params, np.ones(2), state)
    assert [Path(path).name for path in saved] == [f"checkpoint-{n:09d}.npz" for n in range(4)]
    assert checkpoints.paths == saved[:1:-1]
    assert names_in(folder) == [Path(path).name for path in saved[2:]]
    assert checkpoints.restore(params, state) == {"step": 3}
    assert state.step_count == 3


def test_the_newest_that_is_whole(tmp_path: Path) -> None:
    checkpoints = fm.Checkpoints(os.fsencode(tmp_path), keep=5)
    params = np.zeros(2)
    state = fm.init(params, lr=0.1)
    saved = []
    for _ in range(4):
        fm.step(params, np.ones(2), state)
        saved.append(checkpoints.save(params, state, state.step_count))
    Path(saved[3]).write_bytes(b"")
    data = bytearray(Path(saved[2]).read_bytes())
    data[data.index(b"NUMPY") + 130] ^= 1
    Path(saved[2]).write_bytes(data)
    assert checkpoints.paths == saved[1::-1]
    assert sorted(checkpoints.unreadable) == saved[2:]
    assert all("must be as save" in reason for reason in checkpoints.unreadable.values())
    assert checkpoints.restore(params, state) == 2
    assert state.step_count == 2
    for path in saved[:2]:
        Path(path).write_bytes(b"")
    before = snapshot(state, params)
    with pytest.raises(fm.DamagedFileError, match="must hold a checkpoint that is whole, not 4 that are not"):
        checkpoints.restore(params, state)
    assert snapshot(state, params) == before


def test_only_what_was_written_is_deleted(tmp_path: Path) -> None:
    """Files of the same name that are something else, and those that are damaged, stay."""
    np.savez(tmp_path / "checkpoint-000000001.npz", a=np.ones(1))
    (tmp_path / "checkpoint-2.npz").write_bytes(b"damaged")
    (tmp_path / "notes.txt").write_text("mine")
    params = np.zeros(2)
    state = fm.init(params, lr=0.1)
    fm.save(tmp_path / "mine.npz", params, state)
    checkpoints = fm.Checkpoints(tmp_path, keep=1)
    for _ in range(4):
        fm.step(params, np.ones(2), state)
    for _ in range(3):
        fm.step(params, np.ones(2), state)
        checkpoints.save(params, state)
    assert names_in(tmp_path) == [
        "checkpoint-000000001.npz", "checkpoint-000000007.npz", "checkpoint-2.npz", "mine.npz", "notes.txt",
    ]  # fmt: skip


def test_a_run_that_begins_anew_in_the_folder_of_another_is_refused(tmp_path: Path) -> None:
    checkpoints = fm.Checkpoints(tmp_path, keep=1)
    params = np.zeros(2)
    state = fm.init(params, lr=0.1)
    fm.step(params, np.ones(2), state)
    saved = checkpoints.save(params, state)
    with pytest.raises(
        ValueError, match="state must have made 1 steps, as in the newest checkpoint in .*, or more, not 0"
    ):
        checkpoints.save(params, fm.init(params, lr=0.1))
    assert checkpoints.paths == [saved]
    assert checkpoints.save(params, state) == saved


def test_a_damaged_one_counts_neither_as_kept_nor_as_newest(tmp_path: Path) -> None:
    checkpoints = fm.Checkpoints(tmp_path, keep=2)
    params = np.zeros(2)
    state = fm.init(params, lr=0.1)
    saved = []
    for _ in range(3):
        fm.step(params, np.ones(2), state)
        saved.append(Path(checkpoints.save(params, state)))
    data = bytearray(saved[2].read_bytes())
    data[data.index(b"NUMPY") + 130] ^= 1
    saved[2].write_bytes(data)
    checkpoints = fm.Checkpoints(tmp_path, keep=2)
    checkpoints.restore(params, state)
    assert state.step_count == 2
    checkpoints.save(params, state)
    assert checkpoints.paths == [str(saved[1])]
    for _ in range(2):
        fm.step(params, np.ones(2), state)
    newest = checkpoints.save(params, state)
    assert checkpoints.paths == [newest, str(saved[1])]
    assert list(checkpoints.unreadable) == [str(saved[2])]


def test_a_damaged_value_out_of_its_range_is_passed_over(tmp_path: Path) -> None:
    checkpoints = fm.Checkpoints(tmp_path)
    params = np.zeros(2, np.float32)
    state = fm.adam(params, lr=0.1)
    for _ in range(2):
        fm.step(params, np.ones(2, np.float32), state)
        newest = Path(checkpoints.save(params, state))
    values = state.second_moment.tobytes()
    newest.write_bytes(newest.read_bytes().replace(values, (-state.second_moment).tobytes()))
    checkpoints.restore(params, state)
    assert state.step_count == 1


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.npz").touch()
    with pytest.raises(NotADirectoryError, match="folder must be a folder, or a new one, not the file"):
        fm.Checkpoints(tmp_path / "run.npz")
    assert repr(fm.Checkpoints(tmp_path, keep=2)) == f"Checkpoints({str(tmp_path)!r}, keep=2)"


def test_names_that_only_look_like_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000000005.npz").mkdir()
    (tmp_path / "checkpoint-\N{ARABIC-INDIC DIGIT SEVEN}.npz").touch()
    params = np.zeros(2)
    checkpoints = fm.Checkpoints(tmp_path)
    assert checkpoints.restore(params, fm.init(params, lr=0.1)) is None
    assert checkpoints.unreadable == {}


def test_what_a_folder_refuses(tmp_path: Path) -> None:
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    with pytest.raises(TypeError, match="state must be a State"):
        fm.Checkpoints(tmp_path / "a").save(state, params)  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()
    with pytest.raises(TypeError, match="folder must be a path"):
        fm.Checkpoints(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path must have no NUL"):
        fm.load("a\0b.npz")


def test_a_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = np.ones(1)
    state = fm.init(params, lr=0.1)
    checkpoints = fm.Checkpoints("runs")
    saved = checkpoints.save(params, state, "there")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert checkpoints.paths == [saved]
    assert checkpoints.restore(params, state) == "there"


@pytest.mark.parametrize(
    ("keep", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("3", TypeError)]
)
def test_keep(tmp_path: Path, keep: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="keep (must be |a whole )"):
        fm.Checkpoints(tmp_path, keep=keep)


def test_what_is_not_used_is_not_imported() -> None:
    """Half of Python's library, for who only makes steps."""
    code = "import sys, fast_momentum; sys.exit('fast_momentum._files' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_format_of_files_is_documented() -> None:
    assert _content.FORMAT == 1
    assert set(_run.FORMATS) == {".npz", ".safetensors"}
