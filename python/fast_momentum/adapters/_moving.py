"""What the adapters that move a state from and to another library have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._containers import Keys, at, leaves, mapped, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Saved = dict[str, Any]  # a checkpoint


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


def is_number(setting: str) -> bool:
    """Whether arrays may differ in it."""
    return bool(_core.settings[setting]["kind"] == "number")


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


def checked_rule(state: _core.State, rule: str, library: str) -> None:
    """Refuse a state of another rule."""
    if state.rule != rule:
        msg = f"state must be of the rule {rule}, as {library} is, not {state.rule}; {maker(rule)}() makes such a state"
        raise ValueError(msg)


def checked_settings(state: _core.State, settings: Mapping[str, Any], library: str) -> None:
    """Refuse a state in which these are others; how it decays does not matter where it does not decay."""
    decays = any(numbers_of(state, "weight_decay", keys_of(state.velocity)))
    for name, value in settings.items():
        given = getattr(state, name)
        if given != value and (decays or name != "decoupled_weight_decay"):
            converts = name == "form" and state.rule == "momentum"
            way_out = (
                f"call state.to_form({value!r})" if converts else f"make the state with {name}={value!r}"
            )
            msg = f"state.{name} must be {value!r}, as in {library}, not {given!r}; {way_out}"
            raise ValueError(msg)


def checked_steps(saved: Saved, library: str) -> None:
    """Refuse arrays that have made fewer steps than the state, where their number enters the formula."""
    for path, steps in saved["steps"].items():
        if saved["rule"] == "adam" and steps != saved["step_count"]:
            msg = (
                f"state.state_dict()['steps'][{path!r}] must be state.step_count, {saved['step_count']}, as {library} "
                f"counts for all arrays together, not {steps}"
            )
            raise ValueError(msg)


def checked_like(where: str, array: Any, like: str, shape: tuple[int, ...], dtype: Any) -> None:
    """Refuse an array that has not this shape and dtype, those of what `like` names."""
    if tuple(array.shape) != tuple(shape):
        msg = f"{where} must have the shape of {like}, {tuple(shape)}, not {tuple(array.shape)}"
        raise ValueError(msg)
    if str(array.dtype) != str(dtype):
        msg = f"{where} must have dtype {dtype}, as {like} has, not {array.dtype}"
        raise TypeError(msg)


def maker(rule: str) -> str:
    """The name of the function that makes a State of a rule."""
    return next(str(row["made_by"]) for row in _core.rules if row["rule"] == rule)


def steps_made(rule: str, step_count: int) -> int:
    """By each array, where another library counts for all together or, if the rule does not need it, not at all."""
    return step_count if rule == "adam" else max(step_count, 1)


def imported(
    params: Any,
    rule: str,
    kept: Mapping[str, tuple[str, Mapping[Keys, Any]]],
    step_count: int,
    **settings: Any,
) -> _core.State:
    """A State for `params`, with what there is of the arrays that have started.

    Under each of their names `kept` has ours, that of a checkpoint, and the value of each such array. What a state with
    these settings does not keep is left out.
    """
    state: _core.State = getattr(_core, maker(rule))(params, **settings)
    saved: Saved = {**state.state_dict(), "step_count": step_count}
    arrays = dict(leaves(params))
    for theirs, (ours, values) in kept.items():
        for keys, given in values.items():
            path = path_of(keys)
            if isinstance(saved[ours].get(path), np.ndarray):
                array = np.asarray(given)  # arithmetic with a 0-d array returns a scalar
                checked_like(f"the {theirs}", array, f"params{path}", arrays[keys].shape, arrays[keys].dtype)
                saved[ours][path] = array
            elif path in saved[ours]:
                saved[ours][path] = given
    state.load_state_dict(saved)
    return state
