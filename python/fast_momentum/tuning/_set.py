"""How a tuner writes what it found into the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..theory import convert

if TYPE_CHECKING:
    from .._core import State

# Its velocity remembers ten thousand gradients. In float32, momenta much closer to 1 become 1.
MOMENTUM_LIMIT = 0.9999


def set_heavy_ball(state: State, lr: float, momentum: float) -> None:
    """Set lr and momentum, given for lr_outside, in the form of `state`."""
    momentum = min(momentum, MOMENTUM_LIMIT)
    if state.form == "ema":
        lr = convert("ema", lr=lr, momentum=momentum)["lr"]
    state.momentum = momentum
    state.lr = lr
