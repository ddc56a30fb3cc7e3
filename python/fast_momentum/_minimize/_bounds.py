"""Bounds, in each of the ways that they may be given, as a pair of limits for each array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._containers import at, leaves, mapped, path_of
from ._function import size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._containers import Keys

    Limits = tuple[NDArray[Any], NDArray[Any]]

FORMS = "SciPy's Bounds, a pair (lower, upper), or a pair for each element of a vector"


class Box:
    """The limits of each array that has some: without dimensions where one number serves all of its elements."""

    def __init__(self, bounds: Any, params: Any) -> None:
        lower, upper = _two(bounds, params)
        _require_known(lower, "lower", params)
        _require_known(upper, "upper", params)
        self._limits: dict[Keys, Limits] = {}
        for keys, param in leaves(params):
            low, high = _limit(lower, "lower", keys, param), _limit(upper, "upper", keys, param)
            if (low > -np.inf).any() or (high < np.inf).any():
                _check(path_of(keys), param, low, high)
                self._limits[keys] = low, high

    @property
    def is_plain(self) -> bool:
        """Whether each array has one lower and one upper limit, as the settings of a state are."""
        return all(limit.ndim == 0 for limits in self._limits.values() for limit in limits)

    def settings(self, params: Any) -> dict[str, Any]:
        """The keywords `lower` and `upper` of a rule, if they are plain."""
        pairs = [self._limits.get(keys, (-np.inf, np.inf)) for keys, _ in leaves(params)]
        lows, highs = (iter([_finite(pair[k]) for pair in pairs]) for k in (0, 1))
        return {"lower": mapped(lambda _: next(lows), params), "upper": mapped(lambda _: next(highs), params)}

    def project(self, params: Any) -> None:
        """Into the box, in place. An array may be None, as those without a gradient are in a proximal map."""
        for keys, param in leaves(params):
            if keys in self._limits and param is not None:
                np.clip(param, *self._limits[keys], out=param)

    def residual(self, params: Any, grads: Any) -> float:
        """The largest element of what a step along the gradient, into the box, would change."""
        gradients = dict(leaves(grads))
        changes = []
        for keys, param in leaves(params):
            change = gradients[keys]
            if change is not None and keys in self._limits:
                change = param - np.clip(param - change, *self._limits[keys])
            changes.append(change)
        return size(changes)


def _finite(limit: Any) -> float | None:
    return float(limit) if np.isfinite(limit) else None


def _two(bounds: Any, params: Any) -> tuple[Any, Any]:
    """The lower and the upper limits, each of which may be a prefix of `params`."""
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return bounds.lb, bounds.ub
    items = list(bounds) if isinstance(bounds, (list, tuple, np.ndarray)) else []
    is_vector = isinstance(params, np.ndarray) and params.ndim == 1
    if is_vector and len(items) == params.size and all(np.shape(_none(i)) == (2,) for i in items):
        if len(items) == 2 and not all(isinstance(item, (list, tuple)) for item in items):
            return _two_arrays(bounds)
        pairs = [_none(item) for item in items]
        return [low for low, _ in pairs], [high for _, high in pairs]
    if len(items) == 2:
        return items[0], items[1]
    given = f"{len(items)} items" if items else type(bounds).__name__
    msg = f"bounds must be {FORMS}, not {given}"
    raise ValueError(msg)


def _two_arrays(bounds: Any) -> tuple[Any, Any]:
    """The limits of two elements, which are pairs, too, unless both are arrays."""
    if isinstance(bounds, np.ndarray) or not all(isinstance(limit, np.ndarray) for limit in bounds):
        kinds = "one array" if isinstance(bounds, np.ndarray) else "an array and a list or tuple"
        msg = (
            f"bounds of two elements must be two arrays, lower and upper, or two lists or tuples, a pair for each "
            f"element, not {kinds}; scipy.optimize.Bounds(lower, upper) says which"
        )
        raise ValueError(msg)
    return bounds[0], bounds[1]


def _none(item: Any) -> Any:
    """A pair with infinities in the place of None, so that it has a shape."""
    if isinstance(item, (list, tuple)) and len(item) == 2:
        return [end if low is None else low for low, end in zip(item, (-np.inf, np.inf), strict=True)]
    return item


def _require_known(limits: Any, name: str, params: Any) -> None:
    """No limits of what `params` does not have."""
    if isinstance(params, np.ndarray):
        return
    for keys, _ in leaves(limits):
        try:
            at(params, keys)
        except (KeyError, IndexError, TypeError):
            msg = (
                f"bounds: {name}{path_of(keys)} must be left out, as x0 has nothing there; {name} is a number for all "
                f"arrays or has the structure of x0"
            )
            raise ValueError(msg) from None


def _limit(limits: Any, name: str, keys: Keys, param: Any) -> NDArray[Any]:
    path = f"bounds: {name}{path_of(keys)}"
    try:
        limit = limits if isinstance(param, np.ndarray) and not keys else at(limits, keys)
    except (KeyError, IndexError):
        msg = (
            f"{path} must be given, or be None; {name} is a number for all arrays or has the structure of x0"
        )
        raise ValueError(msg) from None
    if limit is None:
        limit = -np.inf if name == "lower" else np.inf
    array = np.asarray(limit)
    if array.dtype.kind not in "iuf":
        msg = f"{path} must be a real number or an array of them, not {limit!r}"
        raise TypeError(msg)
    if param.dtype.kind == "c" and (np.abs(array) < np.inf).any():
        msg = f"{path} must be None for an array of {param.dtype}, which has no order; bound its modulus by prox"
        raise TypeError(msg)
    if array.size != 1 and array.shape != param.shape:
        msg = f"{path} must be a number or have shape {param.shape}, not {array.shape}"
        raise ValueError(msg)
    with np.errstate(over="ignore"):  # what is beyond all numbers of the dtype is no limit to them
        array = array.astype(param.real.dtype)
    if np.isnan(array).any():
        msg = f"{path} must not be nan; None is no limit"
        raise ValueError(msg)
    return array.reshape(-1)[:1].reshape(()) if array.size and (array == array.flat[0]).all() else array


def _check(path: str, param: Any, low: NDArray[Any], high: NDArray[Any]) -> None:
    if (low > high).any():
        msg = f"bounds: lower{path} must not be above upper{path}"
        raise ValueError(msg)
    outside = (param < low) | (param > high)
    if outside.any():
        place = tuple(int(i) for i in np.argwhere(outside)[0])
        msg = f"x0{path} must be within bounds, not {float(param[place])!r} at {place}; np.clip(x0, lower, upper) is"
        raise ValueError(msg)
