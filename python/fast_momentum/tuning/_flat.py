"""Parameters and gradients in containers as one vector, which is what tuners measure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..reference import _at, _leaves, _path

Vector = NDArray[np.floating[Any]]


def flatten(params: Any, grads: Any) -> tuple[Vector, Vector, NDArray[np.bool_] | None]:
    """Copies of `params` and `grads` as vectors, and where gradients were given (None: everywhere).

    float32 if every array is, else float64. A gradient that is None is a zero there.
    """
    pairs = [(keys, np.asarray(param), _gradient(grads, keys)) for keys, param in _leaves(params)]
    for keys, param, grad in pairs:
        if grad is not None and grad.shape != param.shape:
            at = _path(keys)
            msg = f"grads{at} must have the shape of params{at}, {param.shape}, not {grad.shape}"
            raise ValueError(msg)
    dtype = np.result_type(np.float32, *(param.dtype for _, param, _ in pairs))
    size = sum(param.size for _, param, _ in pairs)
    p, g = np.empty(size, dtype), np.zeros(size, dtype)
    given = np.ones(size, bool)
    begin = 0
    for _, param, grad in pairs:
        end = begin + param.size
        p[begin:end] = param.reshape(-1)
        if grad is None:
            given[begin:end] = False
        else:
            g[begin:end] = grad.reshape(-1)
        begin = end
    return p, g, None if given.all() else given


def _gradient(grads: Any, keys: tuple[Any, ...]) -> NDArray[Any] | None:
    try:
        grad = _at(grads, keys)
    except (KeyError, IndexError):
        at = _path(keys)
        msg = f"grads must have the structure of params, but it has no {at}"
        raise ValueError(msg) from None
    return None if grad is None else np.asarray(grad)


def norm(vector: Vector) -> float:
    """The Euclidean norm; infinite or NaN where `vector` is, without a warning."""
    with np.errstate(all="ignore"):
        return float(np.sqrt(np.vdot(vector, vector)))
