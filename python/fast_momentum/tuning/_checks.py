"""What the tuners and schedules refuse, and how it is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import State
from ..theory._inputs import MOMENTUM, NOT_NEGATIVE, POSITIVE, numbers, one
from ..theory._rule import checked_momentum

if TYPE_CHECKING:
    from ..theory._inputs import Requirement

__all__ = [
    "MOMENTUM",
    "NOT_NEGATIVE",
    "POSITIVE",
    "function",
    "one",
    "one_momentum",
    "pair",
    "tunable",
    "whole",
]


def pair(name: str, value: Any, requirement: Requirement) -> tuple[float, float]:
    """`value` as two floats that meet the requirement."""
    found = numbers(name, value, requirement)
    if found.shape != (2,):
        msg = f"{name} must be a pair of numbers, not {value!r}"
        raise TypeError(msg)
    return float(found[0]), float(found[1])


def whole(name: str, value: Any, least: int = 1) -> int:
    """`value` as an int of at least `least`."""
    words = f"be an integer >= {least}"
    return int(one(name, value, (words, lambda x: np.isfinite(x) & (x >= least) & (x == np.floor(x)))))


def function(name: str, value: Any) -> None:
    if not callable(value):
        msg = f"{name} must be a function, not {type(value).__name__}"
        raise TypeError(msg)


def tunable(state: Any) -> State:
    """`state`, if a tuner can set its lr and momentum."""
    if not isinstance(state, State):
        msg = f"state must be a State, as init() returns it, not {type(state).__name__}"
        raise TypeError(msg)
    checked_momentum(state, "to be tuned")
    if state.maximize:
        msg = "state must minimise to be tuned, not maximize; negate the loss and its gradients"
        raise ValueError(msg)
    if _any(state.dampening):
        msg = f"state must have dampening 0 to be tuned, not {state.dampening}"
        raise ValueError(msg)
    return state


def _any(numbers: Any) -> bool:
    """Whether a number is not 0, or one of those per array, as a state returns them."""
    if isinstance(numbers, Mapping):
        numbers = tuple(numbers.values())
    return any(map(_any, numbers)) if isinstance(numbers, tuple) else numbers != 0


def one_momentum(state: State) -> float:
    if not isinstance(state.momentum, float):
        msg = "state must have one momentum for all arrays to be tuned, not one for each"
        raise TypeError(msg)
    return state.momentum
