"""Numbers in, checked, as arrays of float64; numbers out, as what they came in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Requirement = tuple[str, Callable[[NDArray[Any]], NDArray[np.bool_]]]

ROUNDING = 16 * np.finfo(np.float64).eps  # what a few operations may be off by, relatively

FINITE: Requirement = ("be finite", np.isfinite)
POSITIVE: Requirement = ("be finite and > 0", lambda x: np.isfinite(x) & (x > 0))
COUNT: Requirement = ("be an integer >= 0", lambda x: np.isfinite(x) & (x >= 0) & (x == np.floor(x)))
STEP: Requirement = ("be an integer >= 1", lambda x: COUNT[1](x) & (x >= 1))
COUNT_OR_INFINITE: Requirement = ("be an integer >= 0, or inf", lambda x: COUNT[1](x) | (x == np.inf))


def range_of(name: str) -> Requirement:
    """What the setting of that name must be."""
    row = _core.settings[name]

    def holds(x: NDArray[Any]) -> Any:
        above = np.greater_equal if row["has_low"] else np.greater
        below = np.less_equal if row["has_high"] else np.less
        return np.logical_and(above(x, row["low"]), below(x, row["high"]))

    return row["requirement"], holds


NOT_NEGATIVE, MOMENTUM, DAMPENING = range_of("lr"), range_of("momentum"), range_of("dampening")


def numbers(name: str, value: ArrayLike, requirement: Requirement = FINITE) -> NDArray[np.float64]:
    """`value` as float64, each element of which meets the requirement."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        given = type(value).__name__ if array.ndim == 0 else f"an array of {array.dtype}"
        msg = f"{name} must be a real number or an array of them, not {given}"
        raise TypeError(msg)
    array = array.astype(np.float64)
    words, holds = requirement
    require(name, array, words, holds(array))
    return array


def one(name: str, value: ArrayLike, requirement: Requirement = FINITE) -> float:
    """`value` as a float that meets the requirement."""
    number = numbers(name, value, requirement)
    if number.ndim:
        msg = f"{name} must be one number, not an array of {number.size}"
        raise TypeError(msg)
    return float(number)


def require(
    name: str, array: NDArray[np.float64], words: str, holds: NDArray[np.bool_], way_out: str = ""
) -> None:
    """Raise an error about the first element of `array` at which `holds` is False."""
    if holds.all():
        return
    array, holds = np.broadcast_arrays(array, holds)
    index = tuple(int(i) for i in np.argwhere(~holds)[0])
    where = f"[{', '.join(map(str, index))}]" if index else ""
    msg = f"{name}{where} must {words}, not {float(array[index])!r}{way_out}"
    raise ValueError(msg)


def curvature_range(l_min: ArrayLike, l_max: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = numbers("l_min", l_min), numbers("l_max", l_max, POSITIVE)
    way_out = "; no lr is best where the loss curves down, take the curvature nearer to a minimum"
    require("l_min", low, POSITIVE[0], POSITIVE[1](low), way_out if (low < 0).any() else "")
    low, high = np.broadcast_arrays(low, high)
    require("l_max", high, "be at least l_min", high >= low)
    require("l_max", high, "be at most 1e30 times l_min", high / 1e30 <= low)  # momentum would be 1 beyond
    return low, high


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} must be True or False, not {type(value).__name__}"
        raise TypeError(msg)
    return bool(value)


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choices:
        msg = f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}"
        raise ValueError(msg)
    return value


def plain(value: ArrayLike) -> Any:
    """A scalar where there are no dimensions, else an array."""
    array = np.asarray(value)
    return array if array.ndim else array.item()
