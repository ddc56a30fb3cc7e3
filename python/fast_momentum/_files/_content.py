"""What a file holds, whatever its format: arrays with names, and a header that says what they are, which is JSON.

The header of a file of this version::

    {"fast_momentum": 1,                        the format of the header
     "version": "0.1.0",                        which has written it
     "structure": {"dict": [["w", 0], ...]},    the containers of params, with the numbers of their arrays
     "orders": [[0, 1], ...],                   the axes of each, from the slowest in memory to the fastest
     "state": {...},                            what State.state_dict() says, with a value per array in a list
     "arrays": {"params['w']": {"dtype": "float32", "shape": [3, 2], "order": "C"}, ...},
     "extra": ...}
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._containers import leaves
from ._structure import decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

FORMAT = 1
MOST_HEADER_BYTES = 100_000_000  # as safetensors has it
PER_ARRAY = (
    "paths",
    "steps",
    "started",
    "momentum_products",
    "sequence_positions",
)  # what the state has one of for each array


class DamagedFileError(ValueError):
    """What `load` and `restore` raise about a file that is not as `save` has written it.

    It may be cut off, or have changed on the disk; or another program has written it. A file that is whole, but does
    not fit `params` and `state`, is a plain `ValueError`.
    """

    __module__ = "fast_momentum"


class Kept(NamedTuple):
    """An array that a State keeps, as State._lend shows it."""

    slot: str
    number: int
    stored: str | None
    items: NDArray[Any]
    scales: NDArray[np.float32] | None
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """An array of a file; `memory` is None where it has not been read."""

    dtype: str
    shape: tuple[int, ...]
    order: str  # "C" or "F"
    memory: NDArray[Any] | None = None
    low: float = -math.inf
    high: float = math.inf
    may_change: bool = False  # while it is written, as nothing holds other threads back
    source: Callable[[Part], Iterator[memoryview]] | None = (
        None  # of its bytes, where they are not in memory here
    )

    @property
    def array(self) -> NDArray[Any]:
        assert self.memory is not None
        return self.memory

    @property
    def item_type(self) -> np.dtype[Any]:
        """As NumPy has it: bfloat16 as the unsigned integers of its bits."""
        return np.dtype(np.uint16 if self.dtype == "bfloat16" else self.dtype).newbyteorder("<")

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.item_type.itemsize


DTYPES = ("float32", "float64", "complex64", "complex128", "float16", "bfloat16", "int8")


def part_of(array: NDArray[Any], dtype: str, low: float = -math.inf, high: float = math.inf) -> Part:
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return Part(dtype, array.shape, order, array, low, high)


def parts_of(paths: Iterable[str], leaves: Iterable[NDArray[Any]], memory: Iterable[Any]) -> dict[str, Part]:
    """By their names in the file."""
    paths = list(paths)
    parts = {}
    for path, leaf in zip(paths, leaves, strict=True):
        dtype = leaf.dtype.name
        param = part_of(leaf.view(np.uint16) if dtype == "bfloat16" else leaf, dtype)
        parts[f"params{path}"] = replace(param, may_change=True)
    for kept in map(Kept._make, memory):
        path = paths[kept.number]
        dtype = kept.stored or kept.items.dtype.name
        parts[kept.slot + path] = part_of(kept.items, dtype, kept.low, kept.high)
        if kept.scales is not None:
            parts[f"{kept.slot}_scales{path}"] = part_of(kept.scales, "float32", 0.0, kept.high)
    return parts


def axes_of(array: NDArray[Any]) -> list[int]:
    """From the slowest in memory to the fastest."""
    return sorted(range(array.ndim), key=lambda axis: -array.strides[axis])


def orders_of(leaves: list[NDArray[Any]], memory: Iterable[Any]) -> list[list[int]]:
    """Those of what the state keeps, which are dense: the parameters may be views of others."""
    orders = [axes_of(leaf) for leaf in leaves]
    for kept in map(Kept._make, memory):
        n_axes = len(orders[kept.number])  # without that of the parts of complex numbers
        orders[kept.number] = [axis for axis in axes_of(kept.items) if axis < n_axes]
    return orders


@dataclass(frozen=True)
class Content:
    structure: Any
    orders: list[list[int]]
    state: dict[str, Any]
    arrays: dict[str, Part]
    extra: Any

    @property
    def paths(self) -> tuple[str, ...]:
        found: tuple[str, ...] = self.state["paths"]
        return found

    def description(self) -> dict[str, Any]:
        """As State._fill takes it."""
        return {key: value for key, value in self.state.items() if key != "paths"}

    def in_order_of(self, places: list[int]) -> Content:
        """With the arrays in another order: places[i] is where number i stands now."""
        moved = {
            key: tuple(self.state[key][place] for place in places) for key in PER_ARRAY if key in self.state
        }
        return replace(self, orders=[self.orders[place] for place in places], state={**self.state, **moved})


def header_of(content: Content, version: str) -> bytes:
    state = {
        key: list(value) if key in PER_ARRAY else encoded(value, f"state.{key}")
        for key, value in content.state.items()
        if key != "hyperparameters"
    }
    hyperparameters = {
        key: encoded(value, f"state.{key}") for key, value in content.state["hyperparameters"].items()
    }
    header = {
        "fast_momentum": FORMAT,
        "version": version,
        "structure": content.structure,
        "orders": content.orders,
        "state": {**state, "hyperparameters": hyperparameters},
        "arrays": {
            name: {"dtype": part.dtype, "shape": part.shape, "order": part.order}
            for name, part in content.arrays.items()
        },
        "extra": content.extra,
    }
    text = json.dumps(header).encode()
    check_length(text)
    return text


def check_length(header: bytes) -> None:
    if len(header) > MOST_HEADER_BYTES:
        msg = f"extra and the names of all arrays must take at most {MOST_HEADER_BYTES} bytes of JSON, not {len(header)}"
        raise ValueError(msg)


def content_of(header: bytes) -> Content:
    """Raises DamagedFileError where it is none that header_of() has made."""
    try:
        found = json.loads(header)
        later = _later_version(found)
        if not later:
            return _content_of(found)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RecursionError,
        OverflowError,
    ) as error:
        msg = f"its header must say what it holds, and does not: {type(error).__name__}: {error}"
        raise DamagedFileError(msg) from None
    raise ValueError(later)


def _later_version(found: dict[str, Any]) -> str | None:
    """What to say about a file of a format that is not known yet."""
    given = found["fast_momentum"]
    if type(given) is not int or given < 1:
        msg = f"its format must be a number from 1 on, not {given!r}"
        raise ValueError(msg)
    if given <= FORMAT:
        return None
    version = str(found.get("version"))[:20]
    return f"its format must be at most {FORMAT}, not {given}; version {version!r} of fast_momentum has written it"


def _content_of(found: dict[str, Any]) -> Content:
    state = found["state"]
    state = {
        **{key: tuple(value) if key in PER_ARRAY else decoded(value) for key, value in state.items() if key != "hyperparameters"},
        "hyperparameters": {key: decoded(value) for key, value in state["hyperparameters"].items()},
    }  # fmt: skip
    arrays = {name: _part_of(**part) for name, part in found["arrays"].items()}
    orders = [[int(axis) for axis in axes] for axes in found["orders"]]
    content = Content(found["structure"], orders, state, arrays, found["extra"])
    n = len(content.paths)
    if [number for _, number in leaves(decoded(content.structure))] != list(range(n)):
        msg = "the containers must have a place for each array"
        raise ValueError(msg)
    if (
        len(set(content.paths)) != n
        or len(orders) != n
        or any(len(state[key]) != n for key in PER_ARRAY if key in state)
    ):
        msg = "must have one value for each array"
        raise ValueError(msg)
    for path, axes in zip(content.paths, orders, strict=True):
        if sorted(axes) != list(range(len(arrays[f"params{path}"].shape))):
            msg = f"the axes of params{path} must be each of them once"
            raise ValueError(msg)
    return content


def _part_of(dtype: str, shape: list[int], order: str) -> Part:
    if dtype not in DTYPES or order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in shape):
        msg = f"an array must have a dtype, a shape and an order, not {dtype!r}, {shape!r} and {order!r}"
        raise ValueError(msg)
    return Part(dtype, tuple(shape), order)


# ---- files and what they are to fill ----


def check_fits(content: Content, wanted: dict[str, Part]) -> None:
    """Whether the file holds the arrays that are wanted, and no others."""
    check_names("", content.arrays, wanted)
    for name, part in wanted.items():
        saved = content.arrays[name]
        for what in ("shape", "dtype"):
            here, there = getattr(part, what), getattr(saved, what)
            if here != there:
                msg = f"{name} must have the {what} that was saved, {there}, not {here}; load() makes such arrays"
                raise ValueError(msg)


def check_names(prefix: str, saved: Iterable[str], wanted: Iterable[str]) -> None:
    """Both must have the same."""
    saved, wanted = set(saved), set(wanted)
    if saved == wanted:
        return
    lacking, besides = (
        [prefix + name for name in sorted(names)] for names in (wanted - saved, saved - wanted)
    )
    parts = [f"lack {_listed(lacking)}"] if lacking else []
    parts += [f"have {_listed(besides)} besides"] if besides else []
    msg = (
        f"the file must have the same arrays as params, not {' and '.join(parts)}; for a model that has grown, "
        "load() it and use load_state_dict(..., strict=False)"
    )
    raise ValueError(msg)


def _listed(names: list[str]) -> str:
    shown = 3
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def as_in(content: Content, wanted: dict[str, Part]) -> dict[str, Part]:
    """In the order in which the file has them."""
    return {name: replace(part, order=content.arrays[name].order) for name, part in wanted.items()}


def check_scales(content: Content, memory: Iterable[Any]) -> None:
    """An int8 has a scale for so many neighbours in memory, which another order would give others."""
    for kept in map(Kept._make, memory):
        saved = [axis for axis in content.orders[kept.number] if kept.items.shape[axis] > 1]
        if kept.scales is not None and sorted(saved, key=lambda axis: -kept.items.strides[axis]) != saved:
            msg = (
                f"params{content.paths[kept.number]} must have its axes in memory in the order {saved}, as it was saved, as its int8 "
                "velocity has a scale for neighbours; load() makes such arrays"
            )
            raise ValueError(msg)
