"""What the tuners refuse, and how it is said."""

from __future__ import annotations

import math
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

if TYPE_CHECKING:
    from .._core import State


def refuse(name: str, requirement: str, given: Any) -> NoReturn:
    msg = f"{name} must {requirement}, not {given!r}"
    raise ValueError(msg)


def number(name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf) -> float:
    """`value` as a float that is finite and in the range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        msg = f"{name} must be a number, not {type(value).__name__}"
        raise TypeError(msg)
    found = float(value)
    if not (math.isfinite(found) and above < found < below and found >= least):
        limits = [f"> {above:g}"] * (above > -math.inf) + [f">= {least:g}"] * (least > -math.inf)
        limits += [f"< {below:g}"] * (below < math.inf)
        refuse(name, " and ".join(["be finite", *limits]), value)
    return found


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """`value` as an int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        msg = f"{name} must be an integer, not {type(value).__name__}"
        raise TypeError(msg)
    found = value.__index__()
    if found < least:
        refuse(name, f"be at least {least}", value)
    return found


def tunable(state: State) -> State:
    """`state`, if a tuner can set its lr and momentum."""
    if state.maximize:
        msg = "state must minimise to be tuned, not maximize; negate the loss and the gradients"
        raise ValueError(msg)
    if any(dampening != 0 for dampening in _numbers(state.dampening)):
        msg = f"state must have dampening 0 to be tuned, not {state.dampening!r}"
        raise ValueError(msg)
    return state


def _numbers(prefix: Any) -> list[float]:
    if isinstance(prefix, float):
        return [prefix]
    branches = prefix.values() if hasattr(prefix, "values") else prefix
    return [number for branch in branches for number in _numbers(branch)]
