"""state.cpp, velocities.cpp and checkpoint.cpp: attributes, copies, checkpoints, and use by two threads."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import io
import itertools
import json
import pickle
import sys
import threading
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import reference
from helpers import (
    COPIES,
    FORMAT,
    FORMS,
    KINDS,
    OPTIONS,
    assert_bits,
    copied,
    edit,
    kind_of,
    leaves,
    make,
    model_of,
    option_id,
    random_like,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def model(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "w": np.asfortranarray(random_like((4, 3), np.float32, rng)),
        "enc": [random_like((5,), np.float64, rng), (random_like((), np.float32, rng),)],
    }


def stepped(rng: np.random.Generator, steps: int = 2, **options: Any) -> tuple[dict[str, Any], fm.State]:
    params = model(rng)
    state = make(fm, params, **{"lr": 0.1, **options})
    for _ in range(steps):
        fm.step(params, model(rng), state)
    return params, state


# ---- attributes ----


def test_attributes(rng: np.random.Generator) -> None:
    params, state = stepped(rng, weight_decay=0.01, form="ema")
    assert (state.lr, state.momentum, state.dampening, state.weight_decay) == (0.1, 0.9, 0.0, 0.01)
    assert (state.nesterov, state.decoupled_weight_decay, state.maximize) == (False, False, False)
    assert (state.form, state.step_count) == ("ema", 2)
    for name in ("form", "step_count", "velocity"):
        with pytest.raises(AttributeError):
            setattr(state, name, getattr(state, name))
    for name in ("learning_rate", "beta", "LR"):
        with pytest.raises(AttributeError):
            setattr(state, name, 0.1)
        with pytest.raises(AttributeError):
            getattr(state, name)
    with pytest.raises(AttributeError):
        del state.lr
    del params


def test_a_state_comes_from_init() -> None:
    """An instance that no State was put into would be read wherever it is used."""
    base = fm.State.__base__
    for create in (fm.State, lambda: fm.State(1, lr=2), lambda: fm.State.__new__(fm.State),
                   lambda: fm.State.__new__(base), lambda: copyreg.__newobj__(fm.State)):  # fmt: skip
        with pytest.raises(TypeError, match=r"^a State must come from init\(\), not from its class$"):
            create()
    for create in (
        lambda: base.__new__(fm.State),
        lambda: base.__new__(fm.State, 1),
        lambda: object.__new__(fm.State),
        lambda: copyreg._reconstructor(fm.State, base, None),
        lambda: copyreg._reconstructor(fm.State, object, None),
        lambda: copyreg.__newobj_ex__(fm.State, (), {}),
        lambda: pickle.loads(b"\x80\x02cfast_momentum\nState\n)\x81."),
        lambda: type("Sub", (fm.State,), {}),
        lambda: super(fm.State, fm.init(np.ones(1), lr=0.1)).__new__(fm.State),
    ):
        with pytest.raises(TypeError):
            create()


def test_hyperparameters_count_from_the_next_step(rng: np.random.Generator) -> None:
    """A schedule of everything, against the reference: a stale lr would show."""
    params = [random_like((9,), np.float32, rng), random_like((5,), np.float64, rng)]
    expected = copied(params)
    state, other = fm.init(params, lr=0.1), reference.init(params, lr=0.1)
    for changes in [
        {}, {"lr": 0.01}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"decoupled_weight_decay": True},
        {"lr": (0.1, 0.3)}, {"maximize": True}, {"nesterov": True}, {"nesterov": False, "dampening": 0.5},
        {"dampening": [0.1, 0.2]}, {"lr": 0.5, "dampening": 0.0}, {"momentum": 0}, {"weight_decay": 0},
        {"lr": 0}, {"lr": np.float32(0.1)},
    ]:  # fmt: skip
        for name, value in changes.items():
            setattr(state, name, value)
            setattr(other, name, value)
        grads = [random_like(p.shape, p.dtype, rng) for p in params]
        fm.step(params, grads, state)
        reference.step(expected, grads, other)
        assert_bits(params, expected)
        assert_bits(model_of(state), model_of(other))


def test_prefixes(rng: np.random.Generator) -> None:
    prefixes: list[dict[str, Any]] = [
        {"weight_decay": {"w": 0.1, "enc": 0.0}},
        {"lr": {"w": 0.1, "enc": [0.2, 0.3]}},
        {"lr": {"w": 0.1, "enc": (0.2, [0.3])}, "momentum": {"w": 0.5, "enc": 0.6}},
        {"momentum": {"w": 0.0, "enc": [0.9, 0.8]}, "nesterov": True},
        {"dampening": {"w": 0.5, "enc": [0.0, 0.1]}},
        {"weight_decay": {"w": 0.1, "enc": 0.0}, "decoupled_weight_decay": True},
    ]
    for options in prefixes:
        params = model(rng)
        expected = copied(params)
        state = make(fm, params, **{"lr": 0.1, **options})
        other = make(reference, params, **{"lr": 0.1, **options})
        for _ in range(3):
            grads = model(rng)
            fm.step(params, grads, state)
            reference.step(expected, grads, other)
            assert_bits(params, expected)


def test_prefixes_are_copied_and_read_only(rng: np.random.Generator) -> None:
    lr = {"w": 0.1, "enc": [0.2, [0.3]]}
    state = fm.init(model(rng), lr=lr)
    lr["w"] = 9
    lr["enc"][1][0] = 9
    assert state.lr == MappingProxyType({"w": 0.1, "enc": (0.2, (0.3,))})
    for assign in (
        lambda: state.lr.__setitem__("w", 1),
        lambda: state.lr["enc"].__setitem__(0, 1),
    ):
        with pytest.raises(AttributeError):
            assign()
    with pytest.raises(TypeError):
        state.lr["w"] = 1
    state.lr = 0.5
    assert state.lr == 0.5


def test_repr_is_short_and_without_data(rng: np.random.Generator) -> None:
    assert repr(stepped(rng, lr={"w": 0.1, "enc": 0.2}, nesterov=True)[1]) == (
        "<State lr_outside, lr=per array, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov, 3 arrays, "
        "18 elements, 2 steps>"
    )
    assert repr(fm.init([], lr=1)) == (
        "<State lr_outside, lr=1.0, momentum=0.9, dampening=0.0, weight_decay=0.0, 0 arrays, 0 elements, 0 steps>"
    )


# ---- velocities ----


def test_velocity_is_live_and_read_only(rng: np.random.Generator) -> None:
    params, state = stepped(rng)
    velocity = state.velocity
    assert velocity is not state.velocity
    assert velocity["enc"] is not state.velocity["enc"]
    before = copied(velocity)
    fm.step(params, model(rng), state)
    assert_bits(velocity, state.velocity)
    assert not np.array_equal(before["w"], velocity["w"])
    for assign in (lambda: velocity.__setitem__("w", 1), lambda: velocity["enc"].__setitem__(0, 1)):
        with pytest.raises((TypeError, AttributeError)):  # by operator, "does not support item assignment"
            assign()
    for v in leaves(state.velocity):
        with pytest.raises(ValueError, match="read-only"):
            v[...] = 0
        for view in (v, v.view(), v.T, v[...], v.ravel(order="K")):
            with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
                view.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            np.multiply(v, 2, out=v)
        assert not v.flags.owndata
        assert memoryview(np.ascontiguousarray(v)).readonly or v.ndim == 0 or not v.flags.c_contiguous


def test_velocity_outlives_its_state(rng: np.random.Generator) -> None:
    _, state = stepped(rng)
    velocity = state.velocity["w"]
    expected = velocity.copy()
    del state
    junk = [np.full((4, 3), 7, np.float32) for _ in range(100)]
    assert_bits(velocity, expected)
    del junk


def test_velocities_are_aligned_and_disjoint(rng: np.random.Generator) -> None:
    arrays = [np.ones(n, dtype) for n in (1, 3, 16, 17, 0, 5) for dtype in (np.float32, np.float64)]
    found = fm.init(arrays, lr=0.1).velocity
    assert all(v.__array_interface__["data"][0] % 64 == 0 for v in found)
    bounds = sorted((v.__array_interface__["data"][0], v.nbytes) for v in found if v.size)
    assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(bounds))


def test_memory_errors_are_memory_errors() -> None:
    huge = np.broadcast_to(np.float32(1), (2**40, 2**20))
    wrapping = np.broadcast_to(np.float32(0), (2**61 - 33,))  # twice this and a few make 2**64 bytes
    for params in (huge, [np.ones(1), huge], [huge] * 50, [wrapping, wrapping, np.zeros(64, np.float32)]):
        with pytest.raises(MemoryError):
            fm.init(params, lr=0.1)


# ---- copies ----


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("options", OPTIONS[::5], ids=option_id)
def test_copies_go_on_alike_and_alone(how: str, options: dict[str, Any], rng: np.random.Generator) -> None:
    params, state = stepped(rng, **{**options, "lr": {"w": 0.1, "enc": [0.2, (0.3,)]}})
    twin, twin_params = COPIES[how](state), copied(params)
    assert repr(twin) == repr(state)
    assert twin.lr == state.lr
    assert type(twin) is fm.State
    grads = model(rng)
    fm.step(params, grads, state)
    kept = [name for name in ("velocity", "second_moment", "iterate") if hasattr(twin, name)]
    untouched = copied(getattr(twin, kept[-1]))
    fm.step(twin_params, grads, twin)
    assert_bits(twin_params, params)
    for name in kept:
        assert_bits(getattr(twin, name), getattr(state, name))
    assert not np.array_equal(untouched["w"], getattr(twin, kept[-1])["w"])
    state.lr = 9
    assert twin.lr != 9
    for a, b in zip(leaves(model_of(twin)), leaves(model_of(state)), strict=True):
        assert not np.shares_memory(a, b)
        assert a.strides == b.strides


def memory_of(params: Any, state: fm.State) -> list[Any]:
    """All bits that the state keeps, in the order of memory."""
    found: list[Any] = []
    state._lend(params, lambda _description, _arrays, memory: found.extend(memory))
    return [
        (
            slot,
            number,
            stored,
            items.strides,
            items.ravel(order="K").tobytes(),
            scales is None or scales.tobytes(),
        )
        for slot, number, stored, items, scales, *_ in found
    ]


KEPT: list[tuple[Any, dict[str, Any]]] = [
    (np.float32, {"velocity_dtype": "int8", "compensated": True, "average_decay": 0.9}),
    (np.float16, {"velocity_dtype": "int8", "average_decay": 0.9}),
    (np.float16, {"velocity_dtype": "bfloat16", "compensated": True}),
    (np.float64, {"rule": "adam", "amsgrad": True}),
    (np.float32, {"rule": "rmsprop", "centered": True, "momentum": 0.9, "velocity_dtype": "float16"}),
]


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize(("dtype", "options"), KEPT, ids=[option_id(options) for _, options in KEPT])
def test_copies_keep_all_bits_in_any_order_of_memory(
    how: str, dtype: Any, options: dict[str, Any], rng: np.random.Generator
) -> None:
    """The blocks of an int8 velocity, each with its scale, are neighbours in memory."""
    params = [
        random_like((), dtype, rng),
        random_like((3, 0, 2), dtype, rng),
        random_like((16, 1, 600), dtype, rng).T,
    ]
    for shape in [(300, 3), (5, 7, 19), (8, 1, 6, 13), (3, 4, 2, 5, 3)]:
        for axes in itertools.permutations(range(len(shape))):
            gap = tuple(slice(None, None, step) for step in rng.choice([1, 1, 2, -1, -2], len(shape)))
            params.append(random_like(tuple(2 * n for n in shape), dtype, rng)[gap].transpose(axes))
    state = make(fm, params, lr=0.1, **options)
    for _ in range(2):
        fm.step(params, [random_like(p.shape, dtype, rng) for p in params], state)
    kept = memory_of(params, state)
    twin = COPIES[how](state)
    assert memory_of(params, twin) == kept
    again = COPIES[how](twin)
    twin_params, grads = copied(params), [random_like(p.shape, dtype, rng) for p in params]
    fm.step(params, grads, state)
    fm.step(twin_params, grads, again)
    assert_bits(twin_params, params)
    assert memory_of(twin_params, again) == memory_of(params, state) != kept


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_keeps_first_steps(how: str) -> None:
    params = [np.ones(2), np.ones(2)]
    state = fm.init(params, lr=0.1, dampening=0.5)
    fm.step(params, [np.ones(2), None], state)
    twin = COPIES[how](state)
    fm.step(params, [np.ones(2), np.ones(2)], twin)
    np.testing.assert_array_equal(twin.velocity, [[1.4] * 2, [1.0] * 2])


def test_pickle_holds_each_velocity_once() -> None:
    state = fm.init(np.ones(100_000), lr=0.1)
    assert 800_000 < len(pickle.dumps(state)) < 802_000


def test_tampered_pickles_are_refused(rng: np.random.Generator) -> None:
    _, state = stepped(rng)
    restore, (containers, rest) = state.__reduce__()
    wide = {**containers, "w": containers["w"].astype(int)}

    def tampered(**changes: Any) -> tuple[Any, dict[str, Any]]:
        return containers, {**rest, **changes}

    bad: list[Any] = [
        (None, None), (containers, None), (containers, [rest]), (None, rest), ([1.0], rest), (containers, {}),
        ({"w": containers["w"]}, rest), (wide, rest),
        tampered(format=FORMAT + 1), tampered(form="adam"), tampered(form="\ud800"), tampered(step_count=-1),
        tampered(step_count=1.5), tampered(step_count=2**63 - 1), tampered(steps=None), tampered(steps=(1,)), tampered(rule="sgd"), tampered(rule=3),
        tampered(steps=(True, True, True)), tampered(steps=(0, 0, 0)), tampered(steps=(2, -1, 2)), tampered(hyperparameters={}),
        tampered(hyperparameters={**rest["hyperparameters"], "momentum": 2.0}),
        tampered(hyperparameters={**rest["hyperparameters"], "lr": "high"}), tampered(epoch=1),
        tampered(axes=None), tampered(axes=((), (0,))), tampered(axes=rest["axes"][::-1]), tampered(axes=((1, 1), (0,), ())),
        tampered(axes=((0, 2**32 + 1), (0,), ())), tampered(axes=([0, 1], (0,), ())), tampered(axes=((0, -1), (0,), ())),
    ]  # fmt: skip
    for pair in bad:
        with pytest.raises((TypeError, ValueError)):
            restore(*pair)
    assert repr(restore(containers, rest)) == repr(state)


class Layer:
    """A key whose repr() is another one in each process."""


def test_pickle_does_not_depend_on_the_repr_of_keys() -> None:
    params = {Layer(): np.ones(2), Layer(): np.ones(3)}
    state = fm.init(params, lr=dict.fromkeys(params, 0.1))
    fm.step(params, {key: np.ones(p.shape) for key, p in params.items()}, state)
    twin = pickle.loads(pickle.dumps(state))
    assert_bits(list(twin.velocity.values()), list(state.velocity.values()))
    assert not set(twin.velocity) & set(state.velocity)


# ---- checkpoints ----


def test_state_dict(rng: np.random.Generator) -> None:
    params, state = stepped(rng, lr={"w": 0.1, "enc": (0.2, 0.3)}, nesterov=True)
    d = state.state_dict()
    assert list(d) == [
        "format", "rule", "form", "velocity_dtype", "compensated", "step_count", "skipped_steps", "grad_norm", "swapped",
        "hyperparameters", "velocity", "steps", "average", "compensation", "master",
    ]  # fmt: skip
    assert (d["format"], d["form"], d["step_count"]) == (FORMAT, "lr_outside", 2)
    assert [d["velocity_dtype"], d["compensated"], d["skipped_steps"], d["grad_norm"], d["swapped"]] == [
        None, False, 0, None, False,
    ]  # fmt: skip
    assert d["average"] == d["compensation"] == d["master"] == {}
    assert d["hyperparameters"] == {
        "lr": {"w": 0.1, "enc": (0.2, 0.3)}, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0,
        "nesterov": True, "decoupled_weight_decay": False, "maximize": False, "lower": None, "upper": None, "clip_norm": None,
        "clip_value": None, "nonfinite": "propagate", "average_decay": None,
    }  # fmt: skip
    assert list(d["velocity"]) == list(d["steps"]) == ["['w']", "['enc'][0]", "['enc'][1][0]"]
    assert d["steps"] == dict.fromkeys(d["velocity"], 2)
    assert_bits(list(d["velocity"].values()), leaves(state.velocity))
    before = copied(d["velocity"])
    fm.step(params, model(rng), state)
    assert_bits(d["velocity"], before)
    assert all(v.flags.owndata and v.flags.writeable for v in d["velocity"].values())
    pickle.loads(pickle.dumps(d))
    json.dumps({k: v for k, v in d.items() if k != "velocity"})


def test_state_dict_equals_that_of_the_reference(rng: np.random.Generator) -> None:
    params = model(rng)
    options = {"lr": {"w": 0.1, "enc": [0.2, 0.3]}, "nesterov": np.True_, "weight_decay": 1}
    state, other = make(fm, params, **options), make(reference, params, **options)
    grads = model(rng)
    grads["w"] = None
    expected = copied(params)
    fm.step(params, grads, state)
    reference.step(expected, grads, other)
    ours, theirs = state.state_dict(), other.state_dict()
    assert_bits(ours.pop("velocity"), theirs.pop("velocity"))
    theirs["hyperparameters"]["lr"]["enc"] = tuple(theirs["hyperparameters"]["lr"]["enc"])
    assert {k: v for k, v in ours.items() if k != "velocity"} == theirs


def test_a_single_array_has_the_empty_path() -> None:
    assert list(fm.init(np.ones(2), lr=0.1).state_dict()["velocity"]) == [""]


@pytest.mark.parametrize("options", OPTIONS[::4], ids=option_id)
def test_load_state_dict_resumes(options: dict[str, Any], rng: np.random.Generator) -> None:
    params, state = stepped(rng, 3, **options)
    resumed_params = copied(params)
    resumed = make(fm, params, lr=7.0, **kind_of(state))
    live = model_of(resumed)
    resumed.load_state_dict(state.state_dict())
    assert_bits(live, model_of(state))  # copied into the buffers that there were
    assert repr(resumed) == repr(state)
    grads = model(rng)
    fm.step(params, grads, state)
    fm.step(resumed_params, grads, resumed)
    assert_bits(resumed_params, params)


def test_load_through_npz_and_json(rng: np.random.Generator) -> None:
    params, state = stepped(rng)
    d = state.state_dict()
    file = io.BytesIO()
    np.savez(file, **d["velocity"])
    text = json.dumps({k: v for k, v in d.items() if k != "velocity"})
    file.seek(0)
    with np.load(file) as arrays:
        loaded = {**json.loads(text), "velocity": dict(arrays)}
    other = fm.init(params, lr=1.0)
    other.load_state_dict(loaded)
    assert_bits(other.velocity, state.velocity)


def test_load_the_own_velocities_in_another_order() -> None:
    params = [np.ones(3), np.ones(3)]
    state = fm.init(params, lr=0.1)
    fm.step(params, [np.full(3, 1.0), np.full(3, 2.0)], state)
    d = state.state_dict()
    d["velocity"] = {"[0]": state.velocity[1], "[1]": state.velocity[0][::-1]}
    state.load_state_dict(d)
    np.testing.assert_array_equal(state.velocity, [[2] * 3, [1] * 3])


def test_load_any_layout() -> None:
    params = np.ones((3, 4))
    state = fm.init(params, lr=0.1)
    d = state.state_dict()
    d["steps"][""] = 1
    d["velocity"][""] = np.arange(48.0).reshape(4, 12)[:, ::4].T
    state.load_state_dict(d)
    np.testing.assert_array_equal(state.velocity, d["velocity"][""])


def test_layers_can_be_added() -> None:
    old = {"a": np.ones(2)}
    state = fm.init(old, lr=0.1, dampening=0.5)
    fm.step(old, {"a": np.ones(2)}, state)
    new = {"a": np.ones(2), "b": np.ones(3)}
    grown = fm.init(new, lr=9.0)
    fm.step(new, {"a": np.ones(2), "b": np.full(3, 5.0)}, grown)
    with pytest.raises(
        ValueError, match=r'^state_dict\[\'velocity\'\] must have the key "\[\'b\'\]", not lack it'
    ):
        grown.load_state_dict(state.state_dict())
    assert grown.lr == 9
    grown.load_state_dict(state.state_dict(), strict=False)
    assert grown.lr == 0.1
    np.testing.assert_array_equal(grown.velocity["a"], 1)
    np.testing.assert_array_equal(grown.velocity["b"], 5)
    assert grown.state_dict()["steps"] == {"['a']": 1, "['b']": 1}
    with pytest.raises(ValueError, match="must not have the key"):
        state.load_state_dict(grown.state_dict(), strict=False)
    with pytest.raises(TypeError, match="^strict must be True or False, not int"):
        state.load_state_dict(state.state_dict(), strict=0)


LOADS: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
    ("a list", edit([], []), TypeError, "state_dict must be a dict, not list"),
    ("None", edit([], None), TypeError, "state_dict must be a dict, not None"),
    ("empty", edit([], {}), ValueError, "state_dict must have the key 'format', not lack it"),
    ("no format", edit(["format"], KeyError), ValueError, "state_dict must have the key 'format', not lack it"),
    ("extra key", edit(["epoch"], 3), ValueError, "state_dict must not have the key 'epoch'"),
    ("a later format", edit(["format"], FORMAT + 1), ValueError,
     f"state_dict['format'] must be at most {FORMAT}, not {FORMAT + 1}; a newer version of fast_momentum has written it"),
    ("format text", edit(["format"], "1"), TypeError, "state_dict['format'] must be an integer, not str"),
    ("form differs", edit(["form"], "ema"), ValueError, "state_dict['form'] must be 'lr_outside', as in init(), not 'ema'"),
    ("form unknown", edit(["form"], "sgd"), ValueError,
     f"form must be one of {str(FORMS)[1:-1]}, not 'sgd'"),
    ("count negative", edit(["step_count"], -1), ValueError, "state_dict['step_count'] must be at least 0 and below 2**62, not -1"),
    ("count at the end", edit(["step_count"], 2**63 - 1), ValueError,
     "state_dict['step_count'] must be at least 0 and below 2**62, not 9223372036854775807"),
    ("keys of another type", edit(["velocity", 3], 1), ValueError,
     "state_dict['velocity'] must have strings as keys, not 3"),
    ("a surrogate", edit(["\ud800"], 1), ValueError, "state_dict must not have the key '\\\\ud800'"),
    ("count boolean", edit(["step_count"], True), TypeError, "state_dict['step_count'] must be an integer, not bool"),
    ("lr missing", edit(["hyperparameters", "lr"], KeyError), ValueError,
     "state_dict['hyperparameters'] must have the key 'lr', not lack it"),
    ("lr negative", edit(["hyperparameters", "lr"], -1), ValueError, "lr must be finite and >= 0, not -1.0"),
    ("lr prefix of others", edit(["hyperparameters", "lr"], {"v": 1}), ValueError,
     "lr must have the same keys as in params, not lack 'w', 'enc' and have 'v' besides"),
    ("momentum 1", edit(["hyperparameters", "momentum"], 1.0), ValueError, "momentum must be in [0, 1), not 1.0"),
    ("flag text", edit(["hyperparameters", "nesterov"], "no"), TypeError, "nesterov must be True or False, not str"),
    ("unknown hyperparameter", edit(["hyperparameters", "beta"], 1), ValueError,
     "state_dict['hyperparameters'] must not have the key 'beta'"),
    ("hyperparameters list", edit(["hyperparameters"], []), TypeError, "state_dict['hyperparameters'] must be a dict, not list"),
    ("velocity list", edit(["velocity"], []), TypeError, "state_dict['velocity'] must be a dict, not list"),
    ("velocity missing", edit(["velocity", "['w']"], KeyError), ValueError,
     "state_dict['velocity'] must have the key \"['w']\", not lack it"),
    ("velocity of another", edit(["velocity", "['x']"], np.ones(2)), ValueError,
     'state_dict[\'velocity\'] must not have the key "[\'x\']"'),
    ("velocity shape", edit(["velocity", "['w']"], lambda v: v.T), ValueError,
     "state_dict['velocity'][\"['w']\"] must have the shape of params['w'], (4, 3), not (3, 4); pass state_dict['velocity'][\"['w']\"].T, which shares its memory"),
    ("velocity dtype", edit(["velocity", "['w']"], lambda v: v.astype("f8")), TypeError,
     "state_dict['velocity'][\"['w']\"] must have dtype float32, in which params['w'] is worked on, not float64; pass a copy, made by .astype('float32'), which rounds"),
    ("velocity list of floats", edit(["velocity", "['enc'][0]"], lambda v: v.tolist()), TypeError,
     "state_dict['velocity'][\"['enc'][0]\"] must be a numpy.ndarray, not list; pass numpy.array() of it"),
    ("last velocity big-endian", edit(["velocity", "['enc'][1][0]"], lambda v: v.astype(">f4")), TypeError,
     "state_dict['velocity'][\"['enc'][1][0]\"] must be in native byte order, not >f4; pass a copy, made by .astype('float32')"),
    ("another rule", edit(["rule"], "sgd"), ValueError,
     "state_dict['rule'] must be the name of a rule, not 'sgd'; a newer version of fast_momentum may know it"),
    ("steps missing", edit(["steps", "['w']"], KeyError), ValueError,
     "state_dict['steps'] must have the key \"['w']\", not lack it"),
    ("steps a flag", edit(["steps", "['w']"], True), TypeError, "state_dict['steps'][\"['w']\"] must be an integer, not bool"),
    ("steps negative", edit(["steps", "['w']"], -1), ValueError,
     "state_dict['steps'][\"['w']\"] must be at least 0 and below 2**62, not -1"),
    ("moves but has not started", edit(["steps", "['enc'][0]"], 0), ValueError,
     "state_dict['velocity'][\"['enc'][0]\"] must be zero where state_dict['steps'][\"['enc'][0]\"] is 0, not hold other values"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), [c[1:] for c in LOADS], ids=[c[0] for c in LOADS])
def test_load_refuses(
    change: Callable[[Any], Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    _, source = stepped(rng, 1, lr=0.5)
    params, state = stepped(rng, 2)
    before = snapshot(state, params)
    with pytest.raises(error) as raised:
        state.load_state_dict(change(source.state_dict()))
    assert str(raised.value) == message
    assert type(raised.value) is error
    assert snapshot(state, params) == before


class Lazy(dict[str, Any]):
    """Hands out something else each time; its own methods must not be asked."""

    def __getitem__(self, key: str) -> Any:
        pytest.fail("an overridden method ran")

    __iter__ = __contains__ = keys = items = get = __getitem__


def test_load_reads_dicts_through_the_base(rng: np.random.Generator) -> None:
    params, state = stepped(rng)
    other = fm.init(params, lr=1.0)
    d = state.state_dict()
    d = {k: Lazy(v) if isinstance(v, dict) else v for k, v in d.items()}
    other.load_state_dict(Lazy(d))
    other.load_state_dict(Lazy(d), strict=False)
    assert_bits(other.velocity, state.velocity)


def test_keys_with_one_repr_cannot_be_saved() -> None:
    class Key:
        def __repr__(self) -> str:
            return "key"

    params = {Key(): np.ones(1), Key(): np.ones(1)}
    state = fm.init(params, lr=0.1)
    fm.step(params, {k: np.ones(1) for k in params}, state)
    with pytest.raises(
        ValueError, match=r"^the keys of params must differ in their repr\(\), not name two arrays"
    ):
        state.state_dict()


# ---- what no step takes is not loaded ----

SINGLE, SMALL = np.float32, {"decoupled_weight_decay": True, "weight_decay": 1e-30}
TOGETHER: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    ("two ways to clip", SINGLE, {"clip_norm": 1.0}, {"clip_value": 1.0}),
    ("dampening and nesterov", SINGLE, {"dampening": 0.5}, {"nesterov": True}),
    ("nesterov and dampening", SINGLE, {"nesterov": True}, {"dampening": [0.0, 0.5]}),
    ("an average of compensated params", np.float16, {"compensated": True}, {"average_decay": 0.5}),
    ("a momentum that rises without nesterov", SINGLE, {"rule": "adam", "nesterov": True, "momentum_decay": 0.1},
     {"nesterov": False}),
    ("decoupled decay that vanishes", SINGLE, SMALL, {"lr": 1e-30}),
    ("decoupled decay of one array that vanishes", SINGLE, SMALL, {"lr": [0.1, 1e-30]}),
    ("a first step that overflows", SINGLE, {"rule": "adam"}, {"lr": 1e38}),
]  # fmt: skip


def ways_to_load(
    source: fm.State, params: Any, target: fm.State, folder: Path
) -> list[tuple[str, Callable[[], Any]]]:
    state_dict, pickled = source.state_dict(), pickle.dumps(source)
    path = folder / "run.npz"
    fm.save(path, params, source)
    return [
        ("", lambda: target.load_state_dict(state_dict)),
        ("", lambda: target.load_state_dict(state_dict, strict=False)),
        ("", lambda: pickle.loads(pickled)),
        (f"{str(path)!r} must fit params and state: ", lambda: fm.load(path)),
        (f"{str(path)!r} must fit params and state: ", lambda: fm.restore(path, copied(params), target)),
    ]


@pytest.mark.parametrize(
    ("dtype", "options", "change"), [c[1:] for c in TOGETHER], ids=[c[0] for c in TOGETHER]
)
def test_settings_that_do_not_go_together(
    dtype: Any, options: dict[str, Any], change: dict[str, Any], tmp_path: Path
) -> None:
    """They may be passed through between two steps; a step, and each way of loading, refuses them."""
    params = [np.ones(3, dtype), np.ones(2, dtype)]
    state, target = (make(fm, params, **{"lr": 0.1, **options}) for _ in range(2))
    for each in (state, target):
        fm.step(params, params_like(params), each)
    for name, value in change.items():
        setattr(state, name, value)
    with pytest.raises(ValueError, match=" must ") as refused:
        fm.step(params, params_like(params), state)
    before = snapshot(target, params)
    for where, load in ways_to_load(state, params, target, tmp_path):
        with pytest.raises(ValueError, match=" must ") as raised:
            load()
        assert str(raised.value) == where + str(refused.value)
        assert snapshot(target, params) == before
    assert repr(copy.copy(state)) == repr(copy.deepcopy(state)) == repr(state)


def params_like(params: list[Any]) -> list[Any]:
    return [np.ones_like(p) for p in params]


def test_a_schedule_that_has_ended_at_momentum_zero_is_loaded(tmp_path: Path) -> None:
    params = [np.ones(3)]
    state, target = fm.init(params, lr=0.1, nesterov=True), fm.init(params, lr=0.1)
    state.momentum = 0
    for _, load in ways_to_load(state, params, target, tmp_path):
        load()
    assert target.nesterov
    fm.step(params, params_like(params), target)


def test_an_average_where_there_can_be_none(half: Any) -> None:
    params = [np.ones(3, half), np.ones(2, np.float32)]
    state, target = (fm.init(params, lr=0.1, compensated=True) for _ in range(2))
    average = [p.astype(np.float32) for p in params]
    restore, (containers, rest) = state.__reduce__()
    descriptions: list[Any] = []
    state._lend(params, lambda *given: descriptions.append(given[0]))
    filled = {key: value for key, value in descriptions[0].items() if key != "paths"} | {"average": True}
    before = snapshot(target, params)
    for load in (
        lambda: target.load_state_dict(
            {**state.state_dict(), "average": {f"[{i}]": a for i, a in enumerate(average)}}
        ),
        lambda: restore(containers, {**rest, "average": tuple(average)}),
        lambda: target._fill(params, filled, lambda *_: pytest.fail("memory was lent")),
    ):
        with pytest.raises(ValueError, match=" must ") as raised:
            load()
        assert str(raised.value) == (
            "state_dict['average'] must be empty for float16 or bfloat16 params with compensated=True, not hold arrays; "
            "their master copies, with compensated=False, have an average"
        )
        assert snapshot(target, params) == before


@pytest.mark.parametrize("name", ["step_count", "skipped_steps", "steps"])
@pytest.mark.parametrize("rule", ["momentum", "adam"])
def test_the_largest_count_can_be_saved_after_a_step(name: str, rule: str, tmp_path: Path) -> None:
    most = 2**62 - 1
    params = [np.ones(3), np.ones(2)]
    state, target = (make(fm, params, rule=rule, lr=0.1, nonfinite="skip") for _ in range(2))
    saved = state.state_dict()
    target.load_state_dict({**saved, name: dict.fromkeys(saved["steps"], most) if name == "steps" else most})
    for grads in (params_like(params), [np.full(3, np.nan), None], params_like(params)):
        fm.step(params, grads, target)
    for _, load in ways_to_load(target, params, state, tmp_path):
        load()
        assert repr(state) == repr(target)
    for twin in (target, state, *(how(target) for how in COPIES.values())):
        found = twin.state_dict()
        assert (set(found["steps"].values()) if name == "steps" else {found[name], getattr(twin, name)}) == {
            most
        }


@pytest.mark.parametrize("options", [{}, *KINDS], ids=option_id)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_what_is_kept_begins_with_zero_and_not_with_its_negative(options: dict[str, Any], dtype: Any) -> None:
    params = [np.ones(3, dtype), np.ones((2, 2), dtype)]
    state = make(fm, params, lr=0.1, **options)
    saved = state.state_dict()
    restore, (containers, rest) = state.__reduce__()
    before = snapshot(state, params)
    message = r"must be zero where state_dict\['steps'\]\[.*\] is 0, not hold other values"
    for name in [
        row for row in ("velocity", "second_moment", "second_moment_maximum", "mean") if saved.get(row)
    ]:
        values = [a.copy() for a in saved[name].values()]
        values[1][1, 1] = -0.0
        pickled = (values, rest) if name == "velocity" else (containers, {**rest, name: tuple(values)})
        with pytest.raises(ValueError, match=message):
            state.load_state_dict({**saved, name: dict(zip(saved[name], values, strict=True))})
        with pytest.raises(ValueError, match=message):
            restore(*pickled)
        assert snapshot(state, params) == before


# ---- reset ----


def test_reset(rng: np.random.Generator) -> None:
    params, state = stepped(rng, dampening=0.5)
    state.reset("['enc'][0]")
    assert state.state_dict()["steps"] == {"['w']": 2, "['enc'][0]": 0, "['enc'][1][0]": 2}
    np.testing.assert_array_equal(state.velocity["enc"][0], 0)
    assert np.asarray(state.velocity["w"]).all()
    grads = model(rng)
    fm.step(params, grads, state)
    assert_bits(state.velocity["enc"][0], grads["enc"][0])  # its first step again, undamped
    state.reset()
    assert not any(np.asarray(v).any() for v in leaves(state.velocity))
    assert set(state.state_dict()["steps"].values()) == {0}
    assert state.step_count == 3
    before = snapshot(state, params)
    with pytest.raises(
        ValueError, match=r"^path must be that of an array, as in state_dict\(\)\['velocity'\], not 'w'$"
    ):
        state.reset("w")
    with pytest.raises(TypeError, match="^path must be a string or None, not int$"):
        state.reset(0)
    assert snapshot(state, params) == before


# ---- two threads ----


def while_stepping(use: Callable[[Any, Any, fm.State], Any]) -> list[Any]:
    """Results of `use(params, grads, state)`, called again and again while another thread steps the state."""
    n = 4_000_000
    params, grads = np.ones(n, np.float32), np.ones(n, np.float32)
    state = fm.init(params, lr=1e-3, form="lr_inside")
    results: list[Any] = []
    done = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work() -> None:
        while not done.is_set():
            with contextlib.suppress(fm.ConcurrentStepError):  # where it met a step of the other thread
                fm.step(params, grads, state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(3000):
            try:
                use(params, grads, state)
                results.append(None)
            except fm.ConcurrentStepError as error:
                results.append(error)
            if sum(r is not None for r in results) > 5:
                break
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join()
    return results


USES: dict[str, Callable[[Any, Any, fm.State], Any]] = {
    "step": fm.step,
    "lookahead": lambda p, _, s: fm.lookahead(p, s),
    "state_dict": lambda _p, _g, s: s.state_dict(),
    "load_state_dict": lambda p, _, s: s.load_state_dict(fm.init(p, lr=1e-3, form="lr_inside").state_dict()),
    "copy": lambda _p, _g, s: copy.copy(s),
    "deepcopy": lambda _p, _g, s: copy.deepcopy(s),
    "pickle": lambda _p, _g, s: pickle.dumps(s),
    "reset": lambda _p, _g, s: s.reset(),
    "to_form": lambda _p, _g, s: s.to_form("ema"),
    "set_lr": lambda _p, _g, s: s.set_lr(3e-3 - s.lr),
}


@pytest.mark.parametrize("use", USES)
def test_one_state_in_two_threads(use: str) -> None:
    errors = [e for e in while_stepping(USES[use]) if e is not None]
    assert errors
    assert str(errors[0]).startswith(
        "state must be used by one call at a time, not while another one is at work on it; "
    )


def test_concurrent_step_error() -> None:
    assert issubclass(fm.ConcurrentStepError, RuntimeError)
    assert fm.ConcurrentStepError.__module__ == "fast_momentum"


def test_options_that_are_set_while_a_step_runs_count_from_the_next_one() -> None:
    """All elements are alike, and stay so where a step takes the same options for all of them."""
    params, grads = np.zeros(2_000_000, np.float32), np.full(2_000_000, 5, np.float32)
    state = fm.init(params, lr=1e-3, clip_value=1.0, average_decay=0.5)
    done = threading.Event()

    def change() -> None:
        for clip_value, decay in itertools.cycle([(0.5, 0.9), (2.0, None), (1.0, 0.25)]):
            state.clip_value, state.average_decay = clip_value, decay
            if done.is_set():
                return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(40):
            fm.step(params, grads, state)
            assert params.min() == params.max()
            assert state.average.min() == state.average.max()
    finally:
        done.set()
        thread.join()


def test_what_may_be_done_while_a_step_runs() -> None:
    def use(_p: Any, _g: Any, s: fm.State) -> None:
        s.lr = 1e-3
        s.momentum = 0.9
        assert s.velocity.shape == (4_000_000,)
        assert s.step_count >= 0
        assert repr(s)

    assert not any(while_stepping(use))


def test_successful_steps_of_two_threads_are_serial_steps() -> None:
    """Each call either makes a whole step or raises: the end is that of as many serial steps."""
    n = 300_000
    params, grads = np.ones(n, np.float32), np.full(n, 0.5, np.float32)
    state = fm.init(params, lr=1e-3)
    made = [0, 0]

    def work(k: int) -> None:
        for _ in range(300):
            with contextlib.suppress(fm.ConcurrentStepError):
                fm.step(params, grads, state)
                made[k] += 1

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.step_count == sum(made) > 0
    expected = np.ones(3, np.float32)
    other = reference.init(expected, lr=1e-3)
    for _ in range(sum(made)):
        reference.step(expected, grads[:3], other)
    np.testing.assert_array_equal(params, expected[0])
    np.testing.assert_array_equal(state.velocity, other.velocity[0])


def test_two_states_in_two_threads() -> None:
    def work(k: int) -> None:
        for _ in range(100):
            fm.step(params[k], grads[k], states[k])

    params = [np.ones(200_000, np.float32) for _ in range(2)]
    grads = [np.full(200_000, 0.1, np.float32) for _ in range(2)]
    states = [fm.init(p, lr=0.1) for p in params]
    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [s.step_count for s in states] == [100, 100]
    assert_bits(params[0], params[1])


def test_two_look_aheads_at_once() -> None:
    """They only read: neither is refused."""
    params = np.ones(2_000_000, np.float32)
    state = fm.init(params, lr=0.1)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(30):
                fm.lookahead(params, state)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
