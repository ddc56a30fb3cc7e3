"""What several test files need: bit comparison, cases, layouts, and proof that nothing was changed.

Without pytest, which tests/record.py has not everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import itertools
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

import fast_momentum as fm
from fast_momentum import _containers, _core, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Array = np.ndarray[Any, np.dtype[Any]]

try:
    from ml_dtypes import bfloat16
except ImportError:
    bfloat16 = None

# The dtypes of 16 bits that there are here. The fixture `half` skips a test visibly where there is no bfloat16.
HALVES = [np.dtype(name) for name in ("float16", bfloat16) if name is not None]

FORMS: tuple[str, ...] = tuple(row["form"] for row in _core.rules if row["rule"] == "momentum")
ALL_DTYPES = [np.dtype(name) for name in _core.config()["dtypes"]]
DTYPES = [dtype for dtype in ALL_DTYPES if dtype.kind == "f"]
COMPLEX = [dtype for dtype in ALL_DTYPES if dtype.kind == "c"]
FORMAT: int = fm.init(np.zeros(1), lr=0.1).state_dict()["format"]  # of checkpoints
ISAS = [name for name, found in _core.config()["instruction sets"].items() if found]


DECAYS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01},
    {"weight_decay": 0.02, "decoupled_weight_decay": True},
]


def _options_of_momentum() -> list[dict[str, Any]]:
    """Every form with every combination of options that `init` accepts."""
    options = []
    for form, decay, maximize in itertools.product(FORMS, DECAYS, [False, True]):
        variants: list[dict[str, Any]] = [{}, {"nesterov": True}]
        if form == "lr_outside":
            variants.append({"dampening": 0.3})
        for variant in variants:
            options.append({"form": form, "maximize": maximize, "lr": 0.05, **decay, **variant})
    return options


def _kinds() -> list[dict[str, Any]]:
    """Every other rule and form, with each of its own options for itself and with all of them, for `make`."""
    kinds: list[dict[str, Any]] = []
    for row in _core.rules:
        if row["rule"] == "momentum":
            continue
        kind = {"rule": row["rule"]} | ({"form": row["form"]} if row["form"] else {})
        own: list[dict[str, Any]] = [
            {name: True}
            for name in row["takes"]
            if _core.settings[name]["kind"] == "flag" and not _core.settings[name]["of_every_rule"]
        ]
        if row["defaults"].get("momentum") == 0:
            own.append({"momentum": 0.9})
        if "momentum_decay" in row["takes"]:
            own.append({"nesterov": True, "momentum_decay": 0.004})
        if "l1" in row["takes"]:
            own += [{"sequence": 0.75}, {"sequence": "nesterov"}, {"restart": "gradient"}, {"l1": 0.5}]
        together = dict(itertools.chain(*(options.items() for options in own)))
        kinds += [kind | options for options in [{}, *own, *([together] if len(own) > 1 else [])]]
    return kinds


KINDS = _kinds()
OPTIONS_OF_MOMENTUM = _options_of_momentum()
OPTIONS = OPTIONS_OF_MOMENTUM + [
    {**kind, "lr": 0.05, **options}
    for kind, options in itertools.product(KINDS, [*DECAYS[:2], {**DECAYS[2], "maximize": True}])
]


def make(package: Any, params: Any, *, rule: str = "momentum", **options: Any) -> Any:
    """A state of the rule, by `fm` or by `reference`; without what most rules have and this one has not."""
    rows = [row for row in _core.rules if row["rule"] == rule]
    lacks = {name for name, row in _core.settings.items() if row["of_every_rule"]} - {*rows[0]["takes"]}
    return getattr(package, rows[0]["made_by"])(
        params, **{name: value for name, value in options.items() if name not in lacks}
    )


def model_of(state: Any) -> Any:
    """The arrays of the first slot of its rule."""
    return getattr(state, next(row["keeps"][0] for row in _core.rules if row["rule"] == state.rule))


def storable(options: dict[str, Any]) -> dict[str, Any]:
    """Second moments cannot be stored in int8, which these options may have."""
    kept = {slot for row in _core.rules if row["rule"] == options.get("rule") for slot in row["keeps"]}
    if options.get("velocity_dtype") == "int8" and "second_moment" in kept:
        return {**options, "velocity_dtype": "bfloat16"}
    return options


def kind_of(state: Any) -> dict[str, Any]:
    """What `make` has to be told for another state like this one."""
    fixed = [
        name for name, setting in _core.settings.items() if setting["fixed"] and not setting["of_every_rule"]
    ]
    return {"rule": state.rule} | {
        name: value for name in fixed if (value := getattr(state, name, None)) is not None
    }


def other_state(params: Any, state: fm.State) -> fm.State:
    """A state of the same kind, with all that may be another one."""
    return make(
        fm,
        params,
        lr=7.0,
        velocity_dtype=getattr(state, "velocity_dtype", None),
        compensated=getattr(state, "compensated", False),
        **kind_of(state),
    )


def option_id(options: dict[str, Any]) -> str:
    shown = ("rule", "form", "sequence")
    return "-".join(str(v) if k in shown else k for k, v in options.items() if v and k != "lr")


def leaves(tree: Any) -> list[Any]:
    return [leaf for _, leaf in _containers.leaves(tree)]


def reals(array: Array) -> Array:
    """The same memory, with the two parts of each complex number as the last dimension."""
    return array[..., None].view(array.real.dtype) if array.dtype.kind == "c" else array


def bits(array: Any) -> Array:
    """The bits of `array`, those of any NaN alike: payload and sign of NaNs are not promised."""
    array = reals(np.asarray(array))
    canonical = np.where(np.isnan(array), array.dtype.type(np.nan), array)
    return canonical.view(f"u{array.dtype.itemsize}")


def assert_bits(actual: Any, expected: Any) -> None:
    assert len(leaves(actual)) == len(leaves(expected))
    for (keys, a), (_, e) in zip(_containers.leaves(actual), _containers.leaves(expected), strict=True):
        if a is None or e is None:
            assert a is e, keys
            continue
        a, e = np.asarray(a), np.asarray(e)
        assert a.dtype == e.dtype, keys
        assert a.shape == e.shape, keys
        if a.tobytes() != e.tobytes():  # which is quicker, but knows one NaN from another
            np.testing.assert_array_equal(bits(a), bits(e), err_msg=f"at {keys}")


def copied(tree: Any) -> Any:
    """The containers of `tree` with C-ordered copies of its arrays; None and scalars as they are."""
    return _containers.mapped(lambda leaf: np.array(leaf) if isinstance(leaf, np.ndarray) else leaf, tree)


def base_of(array: Array) -> Array:
    """The array that owns the memory of `array`."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _digest(tree: Any) -> list[Any]:
    found: list[Any] = []
    for keys, leaf in _containers.leaves(tree):
        if isinstance(leaf, np.ndarray) and not leaf.dtype.hasobject:
            base = base_of(leaf)
            memory = base.tobytes() if base.size < 10**7 else leaf.tobytes()
            found.append((keys, leaf.shape, leaf.strides, hashlib.sha256(memory).digest()))
        else:
            found.append((keys, id(leaf)))
    return found


def snapshot(state: Any, *trees: Any) -> list[Any]:
    """Everything that a refused call must leave as it was, down to the memory around each view."""
    found = [_digest(tree) for tree in trees]
    if isinstance(state, fm.State):
        found.append([repr(state)])
        for keys, leaf in _containers.leaves(state.state_dict()):
            found[-1].append((keys, leaf.tobytes() if isinstance(leaf, np.ndarray) else repr(leaf)))
    return found


@contextlib.contextmanager
def isa_in_use(name: str) -> Iterator[None]:
    before = _core.config()["in use"]
    assert _core.use_isa(name)
    assert _core.config()["in use"] == name
    try:
        yield
    finally:
        assert _core.use_isa(before)


@contextlib.contextmanager
def threads_in_use(threads: int) -> Iterator[None]:
    before = fm.get_num_threads()
    fm.set_num_threads(threads)
    try:
        yield
    finally:
        fm.set_num_threads(before)


def guarded(values: Array, before: int, after: int = 5) -> Array:
    """A copy of one-dimensional `values` inside a larger array, whose other elements are 77."""
    base = np.full(before + values.size + after, 77, values.dtype)
    view = base[before : before + values.size]
    view[...] = values
    return view


def assert_guards(*views: Array) -> None:
    """Elements of the base that none of the views shows are still 77."""
    base = base_of(views[0])
    touched = np.zeros(base.shape, bool)
    itemsize = base.itemsize
    flat = touched.reshape(-1)
    for view in views:
        offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // itemsize
        as_strided(
            flat[offset:] if offset < flat.size else flat[:0],
            view.shape,
            [s // itemsize for s in view.strides],
            writeable=True,
        )[...] = True
    assert (base[~touched] == 77).all()


def _strided(values: Array, steps: list[int]) -> Array:
    base = np.full([n * abs(k) + 3 for n, k in zip(values.shape, steps, strict=True)], 77, values.dtype)
    index = tuple(
        slice(1, 1 + n * k, k) if k > 0 else slice(n * -k, None if n * -k + n * k < 1 else 0, k)
        for n, k in zip(values.shape, steps, strict=True)
    )
    view = base[index]
    view = view[tuple(slice(0, n) for n in values.shape)]
    view[...] = values
    return view


def _permuted(values: Array, axes: list[int]) -> Array:
    return values.transpose(axes).copy().transpose(np.argsort(axes))


# Each puts the same values of a three-dimensional array into memory in another way.
LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: x.copy(order="C"),
    "F": lambda x: x.copy(order="F"),
    "permuted": lambda x: _permuted(x, [1, 2, 0]),
    "every second": lambda x: _strided(x, [1, 1, 2]),
    "sliced": lambda x: _strided(x, [2, 1, 1]),
    "all sliced": lambda x: _strided(x, [2, 3, 2]),
    "reversed": lambda x: x[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "partly reversed": lambda x: _strided(x, [1, -1, 1]),
    "strided and reversed": lambda x: _strided(x, [1, 2, -3]),
}


def edit(path: list[Any], value: Any) -> Callable[[dict[str, Any]], Any]:
    def change(d: dict[str, Any]) -> Any:
        if not path:
            return value
        *above, last = path
        target = d
        for key in above:
            target = target[key]
        if value is KeyError:
            del target[last]
        else:
            target[last] = value(target[last]) if callable(value) else value
        return d

    return change


def random_like(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> Array:
    """Values away from zero, so that each element moves in each step."""
    return np.asarray(rng.uniform(0.5, 2, shape) * rng.choice([-1, 1], shape), dtype)


NAN_PATTERNS = [0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001]  # the last one signals


def as_float32(patterns: Any) -> Array:
    return np.asarray(patterns, np.uint32).view(np.float32)


def float16_cases() -> Array:
    """As float32: all values of float16, the midpoints that follow them, the neighbours of both, and NaNs."""
    halves = np.arange(0x7C01, dtype=np.uint16).view(np.float16).astype(np.float32)  # from 0 to infinity
    finite = halves[:-1]
    centres = np.concatenate([finite, (finite + np.append(finite[1:], np.float32(65536))) / 2])
    near = [np.nextafter(centres, np.float32(way)) for way in (-np.inf, np.inf)]
    positive = np.concatenate([centres, *near, halves[-1:], as_float32([0x7F7FFFFF, 0x47800000])])
    return np.concatenate([positive, -positive, as_float32(NAN_PATTERNS)])


def bfloat16_cases() -> Array:
    """As float32: all values of bfloat16, the midpoints that follow them, and the neighbours of both."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    return np.concatenate([as_float32(upper | low) for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])


NARROW_CASES: dict[str, Callable[[], Array]] = {"float16": float16_cases, "bfloat16": bfloat16_cases}


COPIES: dict[str, Callable[[fm.State], fm.State]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda s, protocol=protocol: pickle.loads(pickle.dumps(s, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
}


def both_states(params: Any, **options: Any) -> tuple[fm.State, reference.State]:
    return make(fm, params, **options), make(reference, params, **options)


def assert_states_agree(state: fm.State, expected: reference.State) -> None:
    """Arrays bit for bit, and all counters."""
    for name in (*expected.keeps, "average"):
        assert_bits(getattr(state, name), getattr(expected, name))
    ours, theirs = state.state_dict(), expected.state_dict()
    for name in (*expected.keeps, "average", "compensation", "master"):
        assert list(ours[name]) == list(theirs[name])
        assert_bits(ours.pop(name), theirs.pop(name))
    for name in set(ours) - {"hyperparameters"}:  # in which lists become tuples
        assert repr(ours[name]) == repr(theirs[name]), (
            name
        )  # by repr(), as there is a NaN that equals no other


def assert_steps_agree(
    params: Any, grads: list[Any], *, grad_scale: float = 1.0, zero_grads: bool = False, **options: Any
) -> fm.State:
    """Step `params` and a copy with the reference, and compare bits after each step."""
    expected = copied(params)
    state, expected_state = both_states(params, **options)
    call: dict[str, Any] = {}  # what is not given takes a shorter way
    if grad_scale != 1:
        call["grad_scale"] = grad_scale
    if zero_grads:
        call["zero_grads"] = True
    for t, g in enumerate(grads):
        before, g_before = copied(params), copied(g)
        reference.step(expected, g, expected_state, grad_scale=grad_scale)
        fm.step(params, g, state, **call)
        assert_bits(params, expected)
        assert_states_agree(state, expected_state)
        # Later, a velocity may happen to be too small for some element; clipped or in 16 bits, this one.
        if t == 0 and "clip_norm" not in options and "clip_value" not in options:
            for old, new, gradient in zip(leaves(before), leaves(params), leaves(g), strict=True):
                moves = gradient is not None and np.asarray(old).itemsize > 2
                assert not moves or (np.asarray(old) != np.asarray(new)).all(), "an element stood still"
        for a, b in zip(leaves(g), leaves(g_before), strict=True):
            if a is not None:
                assert_bits(a, np.zeros_like(b) if zero_grads else b)
    assert state.step_count == expected_state.step_count == len(grads)
    return state


def misaligned(array: Array) -> Array:
    """A copy that begins one byte past where it should."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    view = memory[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


def run_python(code: str, timeout: float = 120, **environment: str) -> str:
    """What `code` prints in a fresh interpreter; a hang or a crash fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def least_squares(rng: np.random.Generator, n: int = 5) -> tuple[Array, Array, Array]:
    """Complex `matrix`, `data` and what is nearest to solving ``matrix @ z = data``, for the gradients of libraries."""
    parts = rng.normal(size=(2, 2 * n, n + 1))
    both = parts[0] + 1j * parts[1]
    matrix, data = both[:, :n], both[:, n]
    return matrix, data, np.linalg.lstsq(matrix, data)[0]


def numerical_gradient(function: Callable[[Array], float], z: Array, h: float = 1e-6) -> Array:
    """df/dx + i df/dy of a real function of complex numbers, by central differences."""
    gradient = np.zeros_like(z)
    for k in range(z.size):
        for direction in (1, 1j):
            shift = np.zeros_like(z)
            shift[k] = h * direction
            gradient[k] += direction * (function(z + shift) - function(z - shift)) / (2 * h)
    return gradient


def digits_example() -> tuple[Any, Any]:
    """examples/train_digits.py as a module, and its data: for training, for the test, and the labels of both."""
    path = Path(__file__).parents[1] / "examples" / "train_digits.py"
    spec = importlib.util.spec_from_file_location("train_digits", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # where its dataclass looks for names
    spec.loader.exec_module(example)
    digits = example.load_digits()
    split = example.train_test_split(
        (digits.data / 16).astype(np.float32),
        digits.target,
        test_size=0.25,
        random_state=0,
        stratify=digits.target,
    )
    return example, split
