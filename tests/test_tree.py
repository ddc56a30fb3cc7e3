"""tree.cpp: containers, how they match, and what comes back."""

from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import pickle
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _containers, reference
from helpers import assert_bits, assert_steps_agree, both_states, copied, leaves, random_like, snapshot


class Layer(NamedTuple):
    w: Any
    b: Any


@dataclasses.dataclass
class Linear:
    w: Any
    b: Any
    kind: dataclasses.InitVar[str] = "linear"


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    layers: list[Linear]
    scale: Any = None

    def __post_init__(self) -> None:
        assert isinstance(self.layers, list), "a constructor ran"


@dataclasses.dataclass
class Broken(BaseException):
    w: Any


class LoudList(list[Any]):
    def _refuse(self, *_: Any) -> Any:
        pytest.fail("an overridden method ran")

    __iter__ = __len__ = __getitem__ = _refuse


class LoudTuple(tuple[Any, ...]):
    def _refuse(self, *_: Any) -> Any:
        pytest.fail("an overridden method ran")

    __iter__ = __len__ = __getitem__ = __contains__ = _refuse


class LoudDict(dict[Any, Any]):
    def _refuse(self, *_: Any) -> Any:
        pytest.fail("an overridden method ran")

    __iter__ = __len__ = __getitem__ = __contains__ = keys = items = values = get = _refuse


def trees(rng: np.random.Generator, dtype: Any = np.float32) -> dict[str, Any]:
    def a(*shape: int) -> Any:
        return random_like(shape, dtype, rng)

    return {
        "array": a(3, 4),
        "0-d array": a(),
        "empty array": a(0, 3),
        "list": [a(3), a(2, 2), a()],
        "tuple": (a(3), a(2, 2)),
        "dict": {"w": a(3, 2), "b": a(2)},
        "nested": {"encoder": [a(3), (a(2), {"x": a(4)})], "decoder": {"w": [a(1)], 7: a(2)}},
        "empty list": [],
        "empty dict": {},
        "empty branches": [[], {}, (), [[], a(2)]],
        "keys": {1: a(2), "1": a(3), None: a(1), ("t", 2): a(4), 2.5: a(2)},
        "namedtuple": Layer(a(3, 2), [a(2)]),
        "ordered": collections.OrderedDict(b=a(2), a=a(3)),
        "defaultdict": collections.defaultdict(list, w=a(2)),
        "deep": nested(100, a(2)),
    }


def nested(depth: int, leaf: Any) -> Any:
    for level in range(depth):
        leaf = [leaf] if level % 2 else {"k": leaf}
    return leaf


NAMES = list(trees(np.random.default_rng(0)))


@pytest.mark.parametrize("name", NAMES)
def test_steps(name: str, dtype: Any, rng: np.random.Generator) -> None:
    params, grads = trees(rng, dtype)[name], trees(rng, dtype)[name]
    objects = [id(leaf) for leaf in leaves(params)]
    assert_steps_agree(params, [grads, grads], lr=0.1)
    assert [id(leaf) for leaf in leaves(params)] == objects


def read_only_like(tree: Any) -> Any:
    """The containers in which numbers and arrays of a State are read."""
    if isinstance(tree, dict):
        return MappingProxyType({key: read_only_like(dict.__getitem__(tree, key)) for key in dict.keys(tree)})
    if isinstance(tree, list):
        return tuple(map(read_only_like, list.__iter__(tree)))
    if isinstance(tree, tuple):
        return tuple.__new__(type(tree), map(read_only_like, tuple.__iter__(tree)))
    return tree


def same_types(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, (dict, MappingProxyType)):
        return list(a) == list(b) and all(same_types(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_types, a, b))
    return True


@pytest.mark.parametrize("name", NAMES)
def test_containers_come_back(name: str, rng: np.random.Generator) -> None:
    params = trees(rng)[name]
    state = fm.init(params, lr=0.1)
    assert same_types(state.velocity, read_only_like(params))
    assert same_types(fm.lookahead(params, state), params)
    assert state.velocity is not state.velocity or isinstance(params, np.ndarray) or len(params) == 0


def test_ordered_dict_works_afterwards(rng: np.random.Generator) -> None:
    params = collections.OrderedDict(b=np.ones(2), a=np.ones(3))
    ahead = fm.lookahead(params, fm.init(params, lr=0.1))
    ahead.move_to_end("b")
    assert list(ahead) == ["a", "b"]
    assert ahead.popitem()[0] == "b"


@pytest.mark.parametrize("kind", [LoudList, LoudTuple])
def test_subclasses_are_read_through_the_base(kind: Any) -> None:
    params = [np.ones(2), np.ones(3)]
    state = fm.init(kind(params), lr=0.1)
    fm.step(kind(params), kind([np.ones(2), np.ones(3)]), state)
    np.testing.assert_array_equal(params[0], 0.9)
    assert type(fm.lookahead(kind(params), state)) is kind
    state.lr = kind([0.1, 0.2])
    assert state.lr == (0.1, 0.2)


def test_dict_subclass_is_read_through_the_base() -> None:
    params = {"w": np.ones(2)}
    state = fm.init(LoudDict(params), lr=LoudDict(w=0.1))
    fm.step(LoudDict(params), LoudDict(w=np.ones(2)), state)
    np.testing.assert_array_equal(params["w"], 0.9)
    assert type(fm.lookahead(LoudDict(params), state)) is LoudDict


def test_lists_and_tuples_match() -> None:
    params = [np.ones(2), (np.ones(3), [np.ones(1)])]
    state = fm.init(params, lr=0.1)
    fm.step(params, (np.ones(2), [np.ones(3), (np.ones(1),)]), state)
    fm.step((params[0], list(params[1])), [np.ones(2), (np.ones(3), [np.ones(1)])], state)
    assert state.step_count == 2


def test_dicts_match_by_key(rng: np.random.Generator) -> None:
    names = list("abcdef")
    params = {k: random_like((3,), np.float64, rng) for k in names}
    expected = copied(params)
    grads = {k: random_like((3,), np.float64, rng) for k in names}
    state, other = fm.init(params, lr=0.1), fm.init(expected, lr=0.1)
    fm.step(params, grads, state)
    shuffled = [names[i] for i in (3, 0, 5, 1, 4, 2)]
    fm.step({k: expected[k] for k in shuffled}, {k: grads[k] for k in reversed(names)}, other)
    assert_bits(params, expected)


@pytest.mark.parametrize("role", ["params", "grads", "out"])
def test_dicts_that_agree_in_their_first_keys(role: str, rng: np.random.Generator) -> None:
    """What was taken in order, up to where the order differs, is not taken twice."""
    params = {k: random_like((3,), np.float64, rng) for k in "abcd"}
    grads = {k: random_like((3,), np.float64, rng) for k in "abcd"}
    for keys in itertools.permutations("abcd"):
        given = {"params": copied(params), "grads": grads, "out": copied(params)}
        expected = copied(params)
        state, expected_state = both_states(given["params"], lr=0.1)
        reference.step(expected, grads, expected_state)
        given[role] = {k: given[role][k] for k in keys}
        fm.step(given["params"], given["grads"], state)
        assert_bits({k: given["params"][k] for k in params}, expected)
        ahead = fm.lookahead(given["params"], state, out=given["out"])
        assert_bits({k: ahead[k] for k in params}, reference.lookahead(expected, expected_state))


def test_equal_keys_that_are_other_objects() -> None:
    params = {str(b"key", "ascii"): np.ones(2), 10**20: np.ones(1)}
    state = fm.init(params, lr=0.1)
    fm.step(params, {str(b"key", "ascii"): np.ones(2), int("1" + "0" * 20): np.ones(1)}, state)
    assert state.step_count == 1


def test_none_skips_an_array(rng: np.random.Generator) -> None:
    """Seven steps in which layers are frozen and thawed, against the reference, first steps included."""
    params = {
        "a": random_like((9,), np.float32, rng),
        "b": [random_like((4,), np.float32, rng) for _ in range(2)],
    }
    grads = []
    for t in range(7):
        g: Any = copied(params)
        if t == 2:
            g = {"a": None, "b": [None, None]}
        if t in (0, 3, 4):
            g["b"][0] = None
        grads.append(g)
    state = assert_steps_agree(params, grads, lr=0.1, dampening=0.4)
    assert state.step_count == 7


def test_none_leaves_everything(rng: np.random.Generator) -> None:
    params = [np.ones(3), np.ones(2)]
    state = fm.init(params, lr=0.1, weight_decay=0.5)
    fm.step(params, [np.ones(3), np.ones(2)], state)
    before = copied([params[1], state.velocity[1]])
    fm.step(params, [np.ones(3), None], state)
    assert_bits([params[1], state.velocity[1]], before)
    fm.step(params, [None, None], state)
    assert state.step_count == 3
    assert fm.init(np.ones(2), lr=0.1).step_count == 0


def test_none_for_a_single_array() -> None:
    params = np.ones(2)
    state = fm.init(params, lr=0.1)
    fm.step(params, None, state)
    assert state.step_count == 1
    assert state.state_dict()["steps"] == {"": 0}


def test_too_deep() -> None:
    fm.init(nested(100, np.ones(1)), lr=0.1)
    with pytest.raises(ValueError, match=r"^params\['k'\].* must be at most 100 levels deep, not deeper$"):
        fm.init(nested(101, np.ones(1)), lr=0.1)


def test_containing_itself() -> None:
    loop: list[Any] = [np.ones(1)]
    loop.append({"again": loop})
    with pytest.raises(
        ValueError, match=r"^params\[1\]\['again'\] must hold arrays, not params, the container"
    ):
        fm.init(loop, lr=0.1)
    params = [np.ones(1)]
    inner: list[Any] = []
    inner.append(inner)
    with pytest.raises(
        TypeError, match=r"^grads\[0\] must be a numpy.ndarray, not list; pass numpy.array\(\) of it$"
    ):
        fm.step(params, inner, fm.init(params, lr=0.1))


def test_shared_containers_do_not_explode() -> None:
    shared: Any = [np.ones(1)]
    for _ in range(60):
        shared = [shared, shared]
    with pytest.raises(ValueError, match="must not be a container that stands elsewhere in params too"):
        fm.init(shared, lr=0.1)


class EvilKey:
    """Equal to every other; runs `action` when it is compared."""

    action: Any = None

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        if EvilKey.action:
            EvilKey.action()
        return True

    def __repr__(self) -> str:
        return "key"


@pytest.mark.parametrize("act", ["clear", "step", "replace"])
def test_keys_that_run_code(act: str) -> None:
    params = {"outer": [{EvilKey(): np.ones(2)}]}
    state = fm.init(params, lr=0.1)
    grads: dict[str, Any] = {"outer": [{EvilKey(): np.ones(2)}]}
    before = snapshot(state, params)

    def action() -> None:
        EvilKey.action = None
        if act == "clear":
            grads["outer"].clear()
            grads.clear()
        elif act == "replace":
            grads["outer"][0] = None
        else:
            fm.step(params, grads, state)

    EvilKey.action = action
    try:
        if act == "step":
            with pytest.raises(fm.ConcurrentStepError):
                fm.step({"outer": [{EvilKey(): params["outer"][0].popitem()[1]}]}, grads, state)
        else:
            fm.step(params, grads, state)
            assert state.step_count == 1
    finally:
        EvilKey.action = None
    if act == "step":
        assert snapshot(state)[0] == before[-1]


def test_references_are_given_back(rng: np.random.Generator) -> None:
    import sys

    params, grads = trees(rng)["nested"], trees(rng)["nested"]
    state = fm.init(params, lr=0.1)
    objects = [*leaves(params), *leaves(grads), params, grads, state]
    counts = [sys.getrefcount(o) for o in objects]
    for _ in range(100):
        fm.step(params, grads, state)
        fm.lookahead(params, state)
        with pytest.raises(ValueError, match="keys"):
            fm.step(params, {}, state)
    assert [sys.getrefcount(o) for o in objects] == counts


def test_prefix_from_another_state() -> None:
    params = {"w": [np.ones(2), np.ones(1)], "b": np.ones(3)}
    state = fm.init(params, lr={"w": [0.1, 0.2], "b": 0.3})
    assert isinstance(state.lr, MappingProxyType)
    again = fm.init(params, lr=state.lr)
    assert again.lr == state.lr == {"w": (0.1, 0.2), "b": 0.3}


def test_containers_of_which_no_other_can_be_made() -> None:
    """A struct sequence has more fields than items."""
    import os

    struct = os.stat_result([np.ones(1)] * 10)
    with pytest.raises(
        TypeError, match=r"^params\[0\] must be a list, tuple or dict, not os.stat_result, of which no"
    ):
        fm.init([struct], lr=0.1)
    params = tuple(struct[:3])
    state = fm.init(params, lr=0.1)
    assert type(state.velocity) is tuple


class NoCopy(dict[str, Any]):
    copy = property(lambda _: pytest.fail("an overridden method ran"))


def test_mappings_behind_a_proxy() -> None:
    params = {"w": np.ones(1)}
    state = fm.init(params, lr=MappingProxyType(NoCopy(w=0.5)))
    assert state.lr == {"w": 0.5}
    with pytest.raises(ValueError, match="^lr must have the same keys"):
        state.lr = MappingProxyType(MappingProxyType({"v": 0.5}))
    with pytest.raises(TypeError, match=r"^lr\['w'\] must be a number: there is one array here"):
        state.lr = {"w": MappingProxyType({})}


class Interrupting:
    def __hash__(self) -> int:
        return hash("w")

    def __eq__(self, other: object) -> bool:
        raise KeyboardInterrupt


def test_what_a_key_raises_comes_through() -> None:
    params = {"w": np.ones(1)}
    state = fm.init(params, lr=0.1)
    with pytest.raises(KeyboardInterrupt):
        state.lr = {Interrupting(): 0.1}
    with pytest.raises(KeyboardInterrupt):
        fm.step(params, {Interrupting(): np.ones(1)}, state)
    assert state.step_count == 0


def test_many_nested_containers() -> None:
    """That this ends is the test: with a path for each array, searched among its siblings, it took a minute."""

    def pairs() -> Any:
        return [[np.ones(1, np.float32), np.ones(1)] for _ in range(50_000)]

    params, grads = pairs(), pairs()
    state = fm.init(params, lr=0.1, weight_decay=0.1, decoupled_weight_decay=True)
    for t in range(10):
        state.lr = 0.1 / (1 + t)
        fm.step(params, grads, state)
    state.load_state_dict(state.state_dict())
    assert state.step_count == 10


def test_hyperparameters_set_while_a_look_ahead_compares_keys() -> None:
    """The constants are those of one moment: not a table for all arrays, read as one per array."""
    params = [{EvilKey(): np.ones(2)} for _ in range(50)]
    state = fm.init(params, lr=0.1)
    fm.step(params, [{EvilKey(): np.ones(2)} for _ in range(50)], state)

    def action() -> None:
        EvilKey.action = None
        state.lr = [0.5] * 50

    EvilKey.action = action
    try:
        points = fm.lookahead([{EvilKey(): next(iter(p.values()))} for p in params], state)
    finally:
        EvilKey.action = None
    for point, p in zip(points, params, strict=True):
        np.testing.assert_allclose(next(iter(point.values())), next(iter(p.values())) - 0.5 * 0.9)


# ---- dataclasses ----


def network(rng: np.random.Generator, dtype: Any = np.float64) -> Network:
    def a(*shape: int) -> Any:
        return random_like(shape, dtype, rng)

    return Network([Linear(a(3, 2), a(2)), Linear(a(2, 1), a(1))], a())


def _as_dict(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_as_dict(item) for item in tree]
    fields = _containers.as_dict(tree)
    return tree if fields is None else {name: _as_dict(item) for name, item in fields.items()}


def test_dataclasses_step_as_dicts(dtype: Any, rng: np.random.Generator) -> None:
    params, grads = network(rng, dtype), network(rng, dtype)
    expected = copied(_as_dict(params))
    state, other = fm.init(params, lr=0.1, clip_norm=1.0), fm.init(expected, lr=0.1, clip_norm=1.0)
    for given in (grads, _as_dict(grads), Network(grads.layers[:], grads.scale)):
        fm.step(params, given, state)
        fm.step(expected, _as_dict(grads), other)
    assert_bits(_as_dict(params), expected)
    assert state.state_dict()["velocity"].keys() == other.state_dict()["velocity"].keys()
    assert fm.global_norm(grads) == fm.global_norm(_as_dict(grads))
    assert_steps_agree(params, [grads, grads], lr=0.1)


def test_dataclasses_come_back_in_their_own_type(rng: np.random.Generator) -> None:
    params = network(rng)
    state = fm.init(params, lr=0.1)
    fm.step(params, network(rng), state)
    for made in (fm.lookahead(params, state), reference.lookahead(params, reference.init(params, lr=0.1))):
        assert type(made) is Network
        assert type(made.layers[0]) is Linear
    assert_bits(
        _as_dict(fm.lookahead(params, state, out=copy.deepcopy(params))),
        _as_dict(fm.lookahead(params, state)),
    )
    velocity = state.velocity
    assert isinstance(velocity, Network)
    assert isinstance(velocity.layers[1], Linear)
    for holder, name in ((velocity, "scale"), (velocity.layers[1], "w")):
        with pytest.raises(AttributeError):
            setattr(holder, name, np.ones(1))
        with pytest.raises(AttributeError):
            delattr(holder, name)


def test_numbers_for_dataclasses(rng: np.random.Generator) -> None:
    params = network(rng)
    for number in (
        {"layers": [0.1, Linear(0.2, 0.3)], "scale": 0.4},
        Network([0.1, {"w": 0.2, "b": 0.3}], 0.4),
    ):  # type: ignore[list-item]  # a list of a number and a dataclass, which mypy has no type for
        state = fm.init(params, lr=number)
        assert state.lr["layers"][1]["w"] == 0.2
        assert (state.lr["layers"][0], state.lr["scale"]) == (0.1, 0.4)


def test_dataclasses_in_checkpoints(tmp_path: Any, rng: np.random.Generator) -> None:
    params = network(rng)
    state = fm.init(params, lr=0.1)
    fm.step(params, network(rng), state)
    for other in (pickle.loads(pickle.dumps(state)), copy.copy(state)):
        assert_bits(_as_dict(other.velocity), _as_dict(state.velocity))
        assert isinstance(other.velocity, Network)
    fm.save(tmp_path / "run.npz", params, state)
    loaded, resumed, _ = fm.load(tmp_path / "run.npz")
    assert_bits(loaded, _as_dict(params))  # dicts, as a file holds no types
    target = network(rng)
    fm.restore(tmp_path / "run.npz", target, fm.init(target, lr=0.5))
    assert_bits(_as_dict(target), _as_dict(params))
    resumed.load_state_dict(state.state_dict())


def test_minimize_takes_dataclasses() -> None:
    found = fm.minimize(
        lambda p: (float((p.w - 1) @ (p.w - 1)), Linear(2 * (p.w - 1), 0 * p.b)),
        Linear(np.zeros(3), np.zeros(1)),
    )
    assert found.success
    np.testing.assert_allclose(found.x.w, 1, atol=1e-4)


def test_what_does_not_fit_a_dataclass(rng: np.random.Generator) -> None:
    params = network(rng)
    state = fm.init(params, lr=0.1)
    before = snapshot(state, _as_dict(params))
    for grads, message in [
        ([np.ones(2)], r"^grads must be a dict, as in params, not list$"),
        (
            Linear(1, 2),
            r"^grads must have the same keys as in params, not lack 'layers', 'scale' and have 'w', 'b' besides$",
        ),
        (Network([], None), r"^grads\['layers'\] must have 2 items, as in params, not 0$"),
    ]:
        with pytest.raises((TypeError, ValueError), match=message):
            fm.step(params, grads, state)
    assert snapshot(state, _as_dict(params)) == before
    with pytest.raises(TypeError, match="of which no other can be made; pass a dict of its fields$"):
        fm.init(Broken(np.ones(2)), lr=0.1)


@pytest.mark.parametrize("role", ["params", "grads"])
def test_read_only_views_of_dicts(role: str) -> None:
    given: dict[str, Any] = {"params": {"w": np.ones(2)}, "grads": {"w": np.ones(2)}}
    given[role] = MappingProxyType(given[role])
    state = fm.init(given["params"], lr=0.1)
    fm.step(given["params"], given["grads"], state)
    fm.step(given["params"], state.velocity, fm.init(given["params"], lr=0.1))
    assert given["params"]["w"].tolist() == [0.8, 0.8]
