"""The user's function: its value and gradient, checked and counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._containers import leaves, mapped
from ..tuning._checks import function
from ._gradient import like

if TYPE_CHECKING:
    from collections.abc import Callable


class NotFiniteError(Exception):
    """The function has left the finite numbers; not for users, who get a result. `value` is what `fun` was, if known."""

    def __init__(self, what: str, value: float = math.nan) -> None:
        super().__init__(what)
        self.value = value


class Function:
    """`fun` and `jac` as one function of params."""

    def __init__(self, fun: Callable[..., Any], jac: Any, args: Any) -> None:
        function("fun", fun)
        jac = bool(jac) if isinstance(jac, np.bool_) else jac
        if not (
            callable(jac)
            or jac is None
            or isinstance(jac, bool)
            or (isinstance(jac, str) and jac == "2-point")
        ):
            msg = f"jac must be True, a function, None or '2-point', not {jac!r}; a function may form other differences"
            raise ValueError(msg)
        self._fun, self._jac = fun, jac
        self._args = args if isinstance(args, tuple) else (args,)
        self.nfev = self.njev = 0

    def __call__(self, params: Any) -> tuple[float, Any]:
        """Return value and gradients, all of them finite."""
        if self._jac is True:
            found = self._fun(params, *self._args)
            self.nfev += 1
            if not isinstance(found, (tuple, list)) or len(found) != 2:
                msg = (
                    f"fun must return its value and its gradient, as jac is True, not {_given(found)}; "
                    f"give the function of the gradient as jac"
                )
                raise TypeError(msg)
            value, grads = _number(found[0]), found[1]
        else:
            value = self._value(params)
            grads = (
                self._jac(params, *self._args) if callable(self._jac) else self._differences(params, value)
            )
        self.njev += 1
        grads = like(params, grads)
        largest = size(grads)
        if not math.isfinite(value) or not math.isfinite(largest):
            what = (
                f"fun was {value!r}"
                if not math.isfinite(value)
                else f"the gradient had an element of {largest!r}"
            )
            raise NotFiniteError(what, value)
        return value, grads

    def _value(self, params: Any) -> float:
        self.nfev += 1
        return _number(self._fun(params, *self._args))

    def _differences(self, params: Any, value: float) -> Any:
        """Forward differences: one value for each real number."""
        if not math.isfinite(value):
            what = f"fun was {value!r}"
            raise NotFiniteError(what, value)
        return mapped(lambda array: self._differences_of(params, array, value), params)

    def _differences_of(self, params: Any, array: Any, value: float) -> Any:
        grad = np.empty_like(array)
        numbers, found = reals(array).reshape(-1), reals(grad).reshape(-1)
        root = math.sqrt(np.finfo(numbers.dtype).eps)
        for i, x in enumerate(numbers.copy()):
            numbers[i] = x + root * max(1.0, abs(x))
            length = float(numbers[i]) - float(x)
            try:
                found[i] = (self._value(params) - value) / length
            finally:
                numbers[i] = x
        return grad


def reals(array: Any) -> Any:
    """The numbers of an array in C order, complex ones as pairs; a view where that is possible. None stays."""
    if array is None:
        return None
    array = np.ascontiguousarray(array)
    return array.view(array.real.dtype) if array.dtype.kind == "c" else array


def size(grads: Any) -> float:
    """The largest modulus; NaN or infinity where there is one."""
    found = [_largest(grad) for _, grad in leaves(grads) if grad is not None]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


def _largest(grad: Any) -> float:
    array = np.asarray(grad)
    if array.size == 0:
        return 0.0
    if array.dtype.kind != "f":
        return float(np.abs(array).max())
    highest, lowest = float(array.max()), float(array.min())  # NaN, both, where there is one
    return math.nan if math.isnan(highest) else max(highest, -lowest)


def _number(value: Any) -> float:
    array = np.asarray(None if isinstance(value, (tuple, list)) else value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        msg = f"fun must return a real number, not {_given(value)}"
        raise TypeError(msg)
    return float(array.reshape(()))


def _given(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and {value.dtype}"
    return f"{len(value)} items" if isinstance(value, (tuple, list)) else type(value).__name__
