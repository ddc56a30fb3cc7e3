"""What the adapters that move a state from and to another library have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._containers import Keys, at, leaves, mapped, path_of
from ..theory._rule import checked_momentum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


def kind(thing: object) -> str:
    """The name of its type, as messages have it."""
    module, name = type(thing).__module__, type(thing).__qualname__
    return name if module == "builtins" else f"{module}.{name}"


def keys_of(containers: Any) -> list[Keys]:
    """What leads to each array."""
    return [keys for keys, _ in leaves(containers)]


def prefix(params: Any, numbers: Mapping[Keys, float]) -> Any:
    """One number if all arrays have the same, else containers like `params` with the number of each."""
    if len(set(numbers.values())) == 1:
        return next(iter(numbers.values()))
    following = iter(keys_of(params))
    return mapped(lambda _: numbers[next(following)], params)


def numbers_of(state: _core.State, name: str, arrays: Sequence[Keys]) -> list[float]:
    """The number of each array."""
    return [at(getattr(state, name), keys) for keys in arrays]


def one_number(state: _core.State, name: str, arrays: Sequence[Keys], where: str, way_out: str) -> float:
    """The number that these arrays share."""
    numbers = sorted(set(numbers_of(state, name, arrays)))
    if len(numbers) != 1:
        msg = f"state.{name} must be one number for {where}, not {numbers}; {way_out}"
        raise ValueError(msg)
    return numbers[0]


def checked_form(state: _core.State, form: str, library: str) -> None:
    checked_momentum(state, f"for {library}")
    if state.form != form:
        msg = f"state.form must be {form!r}, which {library} computes, not {state.form!r}; call state.to_form({form!r})"
        raise ValueError(msg)


def checked_like(where: str, array: Any, like: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse an array that has not this shape and dtype, those of what `like` names."""
    if tuple(array.shape) != tuple(shape):
        msg = f"{where} must have the shape of {like}, {tuple(shape)}, not {tuple(array.shape)}"
        raise ValueError(msg)
    if str(array.dtype) != str(dtype):
        msg = f"{where} must have dtype {dtype}, as {like} has, not {array.dtype}"
        raise TypeError(msg)


def imported(
    params: Any, velocities: Mapping[Keys, NDArray[Any]], where: str, step_count: int, **hyperparameters: Any
) -> _core.State:
    """A State for `params`, in which the arrays with a velocity have started."""
    state = _core.init(params, **hyperparameters)
    saved = {**state.state_dict(), "step_count": step_count}
    for keys, param in leaves(params):
        if keys in velocities:
            path = path_of(keys)
            velocity = np.asarray(velocities[keys])  # arithmetic with a 0-d array returns a scalar
            checked_like(where, velocity, f"params{path}", param.shape, param.dtype)
            saved["velocity"][path], saved["steps"][path] = velocity, max(step_count, 1)
    state.load_state_dict(saved)
    return state
