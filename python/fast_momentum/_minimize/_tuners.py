"""What sets the lr before each step of `minimize`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._containers import leaves, mapped, path_of
from ..tuning import AutoTuner, CurvatureWindow
from ..tuning._flat import Flat, norm
from ..tuning._probes import short
from ..tuning.autotuner import HIGH_FALL, _upper_end
from ._function import NotFiniteError, reals

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import State

    Tuner = Callable[[Any, Any], None]

# Pairs of the window from which `accelerated` gets its lr. With 2 to 10 of them it took as many steps.
WINDOW = 3


class InverseCurvature:
    """``state.lr = 1/l_max``, as far as the last steps show it; the first step is a short one.

    As long as none has shown a curvature, the lr doubles at each step.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._flat = Flat()
        self._window = CurvatureWindow(WINDOW)
        self._high = 0.0

    def __call__(self, params: Any, grads: Any) -> None:
        point = p, g, _ = self._flat(params, grads)
        self._window._add_flat(point)
        seen = self._window.range()
        if seen is None:
            length = norm(g)
            if math.isinf(length):
                what = f"the norm of the gradient was {length!r} in {g.dtype} (scale fun, or give lr)"
                raise NotFiniteError(what)
            lr = short(p) / (length or 1.0)
        else:
            self._high = max(_upper_end(seen), HIGH_FALL * self._high)
            lr = 1 / self._high if self._high else 2 * float(self._state.lr)
        if np.finfo(p.dtype).tiny <= lr <= np.finfo(p.dtype).max:
            self._state.lr = lr


def tuner_of(state: State, lr: Any, params: Any) -> Tuner | None:
    """None where lr is a number, or one for each array."""
    if callable(lr):
        return lambda _, __: setattr(state, "lr", lr(state.step_count))
    if lr is not None:
        return None
    for keys, param in leaves(params):
        if param.real.dtype not in (np.float32, np.float64):
            msg = f"x0{path_of(keys)} must be of float32, float64 or their complex ones where lr is None, not {param.dtype}; give lr"
            raise TypeError(msg)
    tuner: Tuner = InverseCurvature(state) if state.rule == "accelerated" else AutoTuner(state)
    return lambda params, grads: tuner(mapped(reals, params), mapped(reals, grads))
