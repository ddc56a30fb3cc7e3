"""What the random programs of fuzz_programs.py are made of: models, gradients, settings, and bad input."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from fast_momentum import Rows, _containers, _core
from helpers import DTYPES, HALVES, Array, misaligned, read_only, storable

if TYPE_CHECKING:
    from collections.abc import Callable

NARROW = [np.dtype("float32"), *HALVES]  # what is worked on in float32
# Within a vector, around blocks of 256 and 512, and enough for several threads.
LENGTHS = [257, 513, 1030, 60_000]
# All that files can hold.
KEYS = ["w", "b", 0, -1, 2.5, None, b"k", ("enc", 1), "a']['b", "ü"]
MOST_INDICES = 3000  # of Rows
SEEDS = st.integers(0, 2**32 - 1)


class Pair(NamedTuple):
    """A container of a type of its own."""

    first: Any
    second: Any


# ---- arrays ----


def strided(draw: st.DrawFn, values: Array) -> Array:
    """`values` with any order of axes, any steps, and guards of 77 around them."""
    axes = draw(st.permutations(range(values.ndim)))
    steps = [draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in axes]
    base = np.full([values.shape[a] * abs(steps[a]) + 2 for a in axes], 77, values.dtype)
    inner = base[*(slice(1, -1),) * values.ndim, ...]
    view = inner.transpose(np.argsort(axes)) if axes else inner
    view = view[(*(slice(None, None, step) for step in steps), ...)]
    view[...] = values
    return view


def laid_out(draw: st.DrawFn, values: Array) -> Array:
    order = draw(st.sampled_from(["C", "F", "strided"]))
    return strided(draw, values) if order == "strided" else values.copy(order=order)


def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    if draw(st.integers(0, 5)) == 0:
        return (draw(st.sampled_from(LENGTHS)),)
    return tuple(draw(st.lists(st.integers(0, 9), max_size=3)))


SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-38, 3e38, 65504, 6e-8])
KINDS_OF_VALUES = ["ordinary", "ordinary", "ordinary", "zero", "tiny", "huge", "special"]


def values_of(shape: tuple[int, ...], dtype: Any, kind: str, rng: np.random.Generator) -> Array:
    values = np.asarray(rng.standard_normal(shape)) * {"zero": 0.0, "tiny": 1e-39, "huge": 1e30}.get(
        kind, 1.0
    )
    if kind == "special":
        values = np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), values)
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(dtype)


# ---- models ----


def tree_of(draw: st.DrawFn, leaf: Callable[[], Any], depth: int = 2) -> Any:
    """Nested containers, with leaf() in them."""
    kind = draw(st.sampled_from(["leaf", "list", "tuple", "dict", "pair", "twins"])) if depth else "leaf"
    if kind == "leaf":
        return leaf()
    if kind == "twins":
        return twins(leaf())
    if kind == "pair":
        return Pair(tree_of(draw, leaf, depth - 1), leaf())
    if kind == "dict":
        keys = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=3))
        return {key: tree_of(draw, leaf, depth - 1) for key in keys}
    items = [tree_of(draw, leaf, depth - 1) for _ in range(draw(st.integers(0, 3)))]
    return items if kind == "list" else tuple(items)


def twins(array: Array) -> list[Array]:
    """Two arrays that interleave in one memory, and share no element."""
    base = np.stack([array, array], axis=-1)
    return [base[..., 0], base[..., 1]]


def drawn_params(draw: st.DrawFn) -> Any:
    dtypes = draw(st.sampled_from([[dtype] for dtype in DTYPES] + [NARROW, [*NARROW, np.dtype("float64")]]))
    rng = np.random.default_rng(draw(SEEDS))

    def leaf() -> Array:
        values = values_of(shapes(draw), draw(st.sampled_from(dtypes)), "ordinary", rng)
        return laid_out(draw, values)

    return tree_of(draw, leaf)


def drawn_grads(draw: st.DrawFn, params: Any, *, are_written: bool, some_rows: float = 0.0) -> Any:
    """In other containers that match, with None here and there; scalars and broadcast arrays where they may be.

    That share of them is Rows, as far as parameters have rows.
    """
    rng = np.random.default_rng(draw(SEEDS))
    kind = draw(st.sampled_from(KINDS_OF_VALUES))
    mixed, layout = draw(st.booleans()), draw(st.sampled_from(["C", "F", "strided", "broadcast"]))
    absent = draw(st.sampled_from([0.0, 0.0, 0.3]))

    def grad(param: Array) -> Any:
        if rng.random() < absent:
            return None
        if param.ndim and rng.random() < some_rows:
            indices = rng.integers(
                0, max(1, len(param)), rng.integers(0, min(2 * len(param), MOST_INDICES) + 1)
            )
            return Rows(indices, values_like(param, (len(indices), *param.shape[1:])))
        return values_like(param, param.shape)

    def values_like(param: Array, shape: tuple[int, ...]) -> Any:
        narrow = NARROW[rng.integers(len(NARROW))] if mixed else param.dtype
        values = values_of(shape, param.dtype if param.dtype == np.float64 else narrow, kind, rng)
        if layout == "strided":
            return strided(draw, values)
        if layout == "broadcast" and not are_written:
            return np.broadcast_to(values[:1], values.shape) if values.ndim else values[()]
        return values.copy(order="F" if layout == "F" else "C")

    return turned(_containers.mapped(grad, params))


def turned(tree: Any) -> Any:
    """What matches `tree`: lists for tuples and the other way round, dicts in another order."""
    if isinstance(tree, dict):
        return {key: turned(tree[key]) for key in reversed(tree)}
    if isinstance(tree, list):
        return tuple(map(turned, tree))
    return list(map(turned, tree)) if isinstance(tree, tuple) else tree


# ---- settings, from the tables of the package ----


def number(name: str) -> st.SearchStrategy[float]:
    """Within the range, and far enough from its ends to survive rounding, or on them."""
    row = _core.settings[name]
    ends = [row[end] for end in ("low", "high") if row[f"has_{end}"]]
    inside = st.floats(1e-3, 0.999 if row["high"] == 1 else 4.0)
    return inside | st.sampled_from([*ends, 1e-8, 0.1])


def drawn_number(draw: st.DrawFn, name: str) -> Any:
    found = draw(number(name))
    return draw(st.sampled_from([float, float, np.float64, np.array]))(found)


def drawn_prefix(draw: st.DrawFn, tree: Any, name: str) -> Any:
    """A number, or containers like the first ones of `tree` with numbers in them."""
    if not isinstance(tree, (dict, list, tuple)) or draw(st.booleans()):
        return drawn_number(draw, name)
    if isinstance(tree, dict):
        return {key: drawn_prefix(draw, branch, name) for key, branch in tree.items()}
    return [drawn_prefix(draw, branch, name) for branch in _containers.items_of(tree)]


def drawn_setting(draw: st.DrawFn, name: str, params: Any) -> Any:
    row = _core.settings[name]
    if row["kind"] == "number":
        return drawn_prefix(draw, params, name)
    if row["kind"] == "bound":
        sign = -1 if name == "lower" else 1  # no lower one is above an upper one
        return _containers.mapped(lambda x: None if x > 2 else sign * x, drawn_prefix(draw, params, "l1"))
    if row["kind"] == "flag":
        return draw(st.booleans())
    if row["kind"] == "choice_or_none":
        return draw(st.sampled_from([None, *row["choices"]]))
    if row["kind"] == "choice_or_number":
        return draw(st.sampled_from(row["choices"]) | number(name))
    if row["kind"] == "option":
        return drawn_number(draw, name) if draw(st.booleans()) else None
    return draw(st.sampled_from([row_["form"] for row_ in _core.rules] if name == "form" else row["choices"]))


def drawn_options(draw: st.DrawFn, params: Any) -> dict[str, Any]:
    """For `make`: a rule, and settings that go together."""
    row = draw(st.sampled_from(_core.rules))
    every = [name for name in row["takes"] if name != "form"]
    # Of one rule, or never to be set later.
    rare = [n for n in every if _core.settings[n]["fixed"] or not _core.settings[n]["of_every_rule"]]
    names = draw(st.lists(st.sampled_from([*every, *rare, *rare]), max_size=6))
    options = {name: drawn_setting(draw, name, params) for name in dict.fromkeys(["lr", *names])}
    options |= {"rule": row["rule"]} | ({"form": row["form"]} if row["form"] else {})
    return together(options, row, [leaf.dtype for _, leaf in _containers.leaves(params)])


def together(options: dict[str, Any], row: dict[str, Any], dtypes: list[Any]) -> dict[str, Any]:
    """Without what is refused together with something else."""
    options = storable(options)
    lacks = {name for name, value in options.items() if value is None or value is False}
    for name in ("momentum", "beta1"):  # 0 is for later: what needs one is refused without
        if any(float(value) == 0 for _, value in _containers.leaves(options.get(name, 1.0))):
            options[name] = 0.5
    if "momentum_decay" in options and "momentum_decay" not in lacks:
        options["nesterov"] = True
    elif options.get("nesterov"):
        options.pop("dampening", None)
    if "clip_norm" in options and "clip_norm" not in lacks:
        options.pop("clip_value", None)
    if options.get("compensated") and any(dtype in HALVES for dtype in dtypes):
        options.pop("average_decay", None)
    if "float64" in dtypes:
        options.pop("velocity_dtype", None)
    return options


# ---- bad input ----


class Subclass(np.ndarray):
    pass


# What is refused as a parameter, and as a gradient.
BAD_ARRAYS: dict[str, Callable[[Array], Any]] = {
    "another shape": lambda a: a[None],
    "longer": lambda a: np.zeros((*a.shape[:-1], a.shape[-1] + 1) if a.ndim else (2,), a.dtype),
    "big-endian": lambda a: np.zeros(a.shape, ">f4"),
    "integers": lambda a: np.zeros(a.shape, np.int64),
    "complex": lambda a: np.zeros(a.shape, np.complex64),
    "objects": lambda a: np.full(a.shape, None),
    "long double": lambda a: np.zeros(a.shape, np.longdouble),
    "another float": lambda a: np.zeros(a.shape, np.float32 if a.dtype == np.float64 else np.float64),
    "masked": np.ma.masked_array,
    "a subclass": lambda a: a.view(Subclass),
    "a number": lambda _: 0.5,
    "a string": lambda _: "w",
    "a list": lambda a: [a, a],
    "a dict": lambda a: {"w": a},
}
# As what is written alone; with elements, and with several.
BAD_TARGETS: dict[str, Callable[[Array], Any]] = {"read-only": read_only, "None": lambda _: None}
BAD_MEMORY: dict[str, Callable[[Array], Any]] = {"misaligned": misaligned}
BAD_STRIDES: dict[str, Callable[[Array], Any]] = {
    "one element for all": lambda a: as_strided(a, a.shape, (0,) * a.ndim, writeable=True)
}


def bad_array(draw: st.DrawFn, array: Array, *, is_written: bool) -> Any:
    ways = {**BAD_ARRAYS, **(BAD_MEMORY if array.size else {})}
    if is_written:
        ways |= {**BAD_TARGETS, **(BAD_STRIDES if array.size > 1 else {})}
    return ways[draw(st.sampled_from(sorted(ways)))](array)


# What matches no containers that are drawn here.
OTHER_CONTAINERS: list[Any] = [None, 1.0, "w", {1.0}, {"x": 1}, [1] * 9, {}.items()]
BAD_OPTIONS: dict[str, list[Any]] = {
    "grad_scale": [0, -1.0, float("nan"), float("inf"), "1", None, True, [1.0], np.ones(1), 1j],
    "zero_grads": [1, 0, None, "yes", np.int8(1), 0.5, []],
}
JUNK: list[Any] = [
    None, True, -1, 0, 2**70, 1.5, -0.5, float("nan"), float("inf"), 10**400, "", "x", "\ud800", "a\0b", b"", b"x", (), [],
    {}, {"w": 1}, {1: 2}, (1, 2), 1j, object, np.float32(-1), np.zeros(0), np.ones(3), np.full(2, None), np.zeros(2, ">f4"),
    np.int8(3), np.array("x"), -(2**63), 2**63 - 1, 2**62,
]  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """What leads to each item in dicts and tuples."""
    if isinstance(tree, dict):
        below = tree.items()
    elif isinstance(tree, (tuple, list)):
        below = enumerate(tree)
    else:
        return [path]
    return [path, *(place for key, item in below for place in places(item, (*path, key)))]


def replaced(tree: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    """A copy of the containers with another item at `path`."""
    if not path:
        return change(tree)
    key, *rest = path
    if isinstance(tree, dict):
        return {k: replaced(item, tuple(rest), change) if k == key else item for k, item in tree.items()}
    items = [replaced(item, tuple(rest), change) if k == key else item for k, item in enumerate(tree)]
    return items if isinstance(tree, list) else tuple.__new__(type(tree), items)


def altered(draw: st.DrawFn, item: Any) -> Any:
    """Something else, often of the same kind."""
    if isinstance(item, dict) and item and draw(st.booleans()):
        item = dict(item)
        value = item.pop(draw(st.sampled_from(list(item))))
        return item if draw(st.booleans()) else {**item, draw(st.sampled_from(["x", 1, "a\0b"])): value}
    if isinstance(item, tuple) and item and draw(st.booleans()):
        return item[1:] if draw(st.booleans()) else (*item, item[0])
    if isinstance(item, np.ndarray) and item.dtype.kind == "f" and draw(st.booleans()):
        bad = draw(st.sampled_from([*BAD_ARRAYS.values(), lambda a: a * -1, lambda a: a * np.float32("nan")]))
        with np.errstate(all="ignore"):
            return bad(item)
    if isinstance(item, (int, float)) and draw(st.booleans()):
        return draw(st.sampled_from([item + 1, -item, item * 2, str(item), item != 0]))
    return copy.copy(draw(st.sampled_from(JUNK)))


def spoilt(draw: st.DrawFn, tree: Any) -> Any:
    """A copy of nested dicts and tuples in which one to three items are others."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(tree)))
        tree = replaced(tree, path, lambda item: altered(draw, item))
    return tree


def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes of a file, cut off, or with some of them changed, doubled or gone."""
    begin = draw(st.integers(0, len(data) - 1))
    end = min(len(data), begin + draw(st.sampled_from([1, 1, 2, 4, 30, 1000])))
    way = draw(st.sampled_from(["cut off", "gone", "doubled", "zero", "one bit", "others"]))
    middle = {
        "gone": b"",
        "doubled": data[begin:end] * 2,
        "zero": bytes(end - begin),
        "one bit": bytes([data[begin] ^ 1 << draw(st.integers(0, 7))]) + data[begin + 1 : end],
        "others": draw(st.binary(min_size=1, max_size=8)),
    }
    return data[:begin] + (b"" if way == "cut off" else middle[way] + data[end:])
