"""The user's gradient, compared with the arrays that it belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core
from .._containers import leaves, path_of
from ..tuning._flat import _require_keys


def like(params: Any, grads: Any) -> Any:
    """`grads`, if built like `params`; for one array, what an array can be made of, as in SciPy.

    A gradient may be None in containers, where an array has none.
    """
    if isinstance(params, np.ndarray):
        grads = _array(params, grads)
    arrays, gradients = dict(leaves(params)), dict(leaves(grads))
    _require_keys("the gradient", gradients, arrays, "x0")
    for keys, param in arrays.items():
        if gradients[keys] is not None or not keys:
            _require_like(path_of(keys), param, gradients[keys])
    return grads


def _array(param: Any, grad: Any) -> Any:
    if grad is None or isinstance(grad, (dict, _core.Rows)):
        return grad
    try:
        array = np.asarray(grad)
    except ValueError:
        msg = f"the gradient must have the shape of x0, {param.shape}, not be {len(grad)} items of several shapes"
        raise ValueError(msg) from None
    if array.dtype == param.dtype or not np.can_cast(array.dtype, param.dtype, "same_kind"):
        return array
    return array.astype(param.dtype)


def _require_like(path: str, param: Any, grad: Any) -> None:
    name = f"the gradient{path}"
    if isinstance(grad, _core.Rows):
        msg = f"{name} must be a whole array, not Rows; add them up in an array of zeros, with numpy.add.at()"
        raise TypeError(msg)
    if not isinstance(grad, (np.ndarray, np.generic)):
        msg = f"{name} must be an array, as x0{path} is, not {type(grad).__name__}"
        raise TypeError(msg)
    if grad.shape != param.shape:
        msg = f"{name} must have the shape of x0{path}, {param.shape}, not {grad.shape}"
        raise ValueError(msg)
    if _kind(grad) != _kind(param):
        msg = f"{name} must be {_kind(param)}, as x0{path} is, not {grad.dtype}"
        raise TypeError(msg)


def _kind(array: Any) -> str:
    """Numbers of one kind are left to `step`, which knows what widths go together. V is that of bfloat16."""
    return {"f": "of real floats", "V": "of real floats", "c": "complex"}.get(
        array.dtype.kind, str(array.dtype)
    )
