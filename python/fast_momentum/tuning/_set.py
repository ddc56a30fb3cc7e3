"""How a tuner writes what it found into the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .._core import State

# Above it a velocity remembers more than ten thousand gradients, and in float32 1 - momentum has few digits left.
MOMENTUM_LIMIT = 0.9999


def set_heavy_ball(state: State, lr: float, momentum: float) -> None:
    """Set lr and momentum, given for lr_outside, in the form of `state`."""
    momentum = min(momentum, MOMENTUM_LIMIT)
    state.momentum = momentum
    state.lr = lr / (1 - momentum) if state.form == "ema" else lr
