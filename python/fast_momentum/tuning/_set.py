"""How a tuner writes what it found into the state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .._core import State

# Above it a velocity remembers more than ten thousand gradients, and in float32 1 - momentum has few digits left.
MOMENTUM_LIMIT = 0.9999


def set_heavy_ball(state: State, lr: float, momentum: float) -> None:
    """Set lr and momentum, given for lr_outside, in the form of `state`."""
    momentum = min(momentum, MOMENTUM_LIMIT)
    state.momentum = momentum
    state.lr = lr / (1 - momentum) if state.form == "ema" else lr


class Tuning(NamedTuple):  # temporary, until theory is there
    lr: float
    momentum: float


def optimal(l_min: float, l_max: float, *, method: str) -> Tuning:
    if method == "heavy_ball":
        a, b = math.sqrt(l_min), math.sqrt(l_max)
        return Tuning((2 / (a + b)) ** 2, ((b - a) / (b + a)) ** 2)
    q = math.sqrt(3 * l_max / l_min + 1)
    return Tuning(4 / (3 * l_max + l_min), (q - 2) / (q + 2))
