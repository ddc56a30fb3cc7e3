"""Parameters and gradients in containers as one vector, which is what tuners measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _messages
from .._containers import leaves, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

Vector = NDArray[np.floating[Any]]
Point = tuple[Vector, Vector, NDArray[np.bool_] | None]


class Flat:
    """Makes vectors of params and grads, which have to be built as in the first call."""

    def __init__(self) -> None:
        self._kinds: dict[Any, tuple[Any, Any]] = {}

    def __call__(self, params: Any, grads: Any) -> Point:
        """Copies of `params` and `grads` as vectors, and where gradients were given (None: everywhere).

        float32 if every array is, else float64. A gradient that is None is a zero there.
        """
        arrays, gradients = dict(leaves(params)), dict(leaves(grads))
        kinds = self._kinds or {keys: _kind(f"params{path_of(keys)}", a) for keys, a in arrays.items()}
        _require_keys("params", arrays, kinds, "in the call before")
        _require_keys("grads", gradients, kinds, "params")
        for keys, kind in kinds.items():
            at = path_of(keys)
            _require_kind(f"params{at}", arrays[keys], kind, "in the call before")
            if gradients[keys] is not None:
                _require_kind(f"grads{at}", gradients[keys], kind, f"params{at}")
        self._kinds = kinds
        return _vectors([(arrays[keys], gradients[keys]) for keys in kinds])


def _kind(name: str, array: Any) -> tuple[Any, Any]:
    """Shape and dtype. A scalar is an array without dimensions, such as the sum of a gradient is."""
    if type(array) is not np.ndarray and not isinstance(array, np.generic):
        msg = f"{name} must be a numpy.ndarray, not {type(array).__name__}{_messages.of_type(array, name, False)}"
        raise TypeError(msg)
    if array.dtype not in (np.float32, np.float64):
        msg = f"{name} must have dtype float32 or float64, not {array.dtype}"
        raise TypeError(msg)
    return array.shape, array.dtype


def _require_keys(name: str, found: Mapping[Any, Any], wanted: Mapping[Any, Any], model: str) -> None:
    for verb, some, others in (("lack", wanted, found), ("have", found, wanted)):
        for keys in some:
            if keys not in others:
                msg = f"{name} must have the same structure as {model}, not {verb} {path_of(keys) or 'a single array'}"
                raise ValueError(msg)


def _require_kind(name: str, array: Any, wanted: tuple[Any, Any], model: str) -> None:
    found = _kind(name, array)
    for what, is_, should_be in zip(("shape", "dtype"), found, wanted, strict=True):
        if is_ != should_be:
            msg = f"{name} must have {what} {should_be}, as {model}, not {is_}"
            raise ValueError(msg) if what == "shape" else TypeError(msg)


def _vectors(pairs: list[tuple[Any, Any]]) -> Point:
    dtype = np.result_type(np.float32, *(param.dtype for param, _ in pairs))
    size = sum(param.size for param, _ in pairs)
    p, g = np.empty(size, dtype), np.zeros(size, dtype)
    given = np.ones(size, bool)
    begin = 0
    for param, grad in pairs:
        end = begin + param.size
        p[begin:end] = param.reshape(-1)
        if grad is None:
            given[begin:end] = False
        else:
            g[begin:end] = grad.reshape(-1)
        begin = end
    return p, g, None if given.all() else given


def norm(vector: Vector) -> float:
    """The Euclidean norm; infinite or NaN where `vector` is, without a warning."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.vdot(vector, vector)))
