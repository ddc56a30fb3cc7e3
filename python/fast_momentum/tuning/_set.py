"""How a tuner writes what it found into the state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..theory import convert

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from .._core import State

# Its velocity remembers ten thousand gradients. In float32, momenta much closer to 1 become 1.
MOMENTUM_LIMIT = 0.9999


def set_heavy_ball(state: State, lr: float, momentum: float, dtype: DTypeLike) -> None:
    """Set lr and momentum, given for lr_outside, in the form of `state`, if lr is a normal number of `dtype`."""
    momentum = min(momentum, MOMENTUM_LIMIT)
    limits = np.finfo(dtype)
    if not float(limits.tiny) <= lr <= (1 - momentum) * float(limits.max):
        return
    lr = convert(state.form, lr=lr, momentum=momentum)["lr"]
    state.momentum = momentum
    state.lr = lr
