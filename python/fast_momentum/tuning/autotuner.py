"""A tuner that is told neither the curvature nor a learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ._checks import number, tunable, whole
from ._flat import Vector, flatten, norm
from ._set import set_heavy_ball
from .curvature import CurvatureWindow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .._core import State

PROBES = 3
LARGEST_KAPPA = 1e8


class AutoTuner:
    def __init__(self, state: State, *, window: int = 10) -> None:
        self._state = tunable(state)
        self._momentum = number("state.momentum", state.momentum, least=0, below=1)
        self._window = CurvatureWindow(whole("window", window, least=2))
        self._calls = 0
        self.noisy = None

    def __call__(self, params: Any, grads: Any) -> None:
        p, g, given = flatten(params, grads)
        size = norm(g)
        if size == 0 or not math.isfinite(size):
            return
        self._calls += 1
        if self._calls == 1:
            self._start = p
            self._reach = math.sqrt(np.finfo(p.dtype).eps) * (norm(p) or 1.0)
            self._squares = 0.0
            self._seen = []
        self._squares += size * size
        if self._calls <= PROBES:
            self._seen.append(g)
            self._window.add_flat(p, g, given)
            if self._calls < PROBES:
                self._set(self._reach / size, 0.0)
                return
            a,b,c=self._seen
            y0,y1=b-a,c-b
            self.noisy = bool(norm(y1-y0) > 0.1*norm(y0) or norm(y0)>0.01*norm(a))
            self.diag=(norm(y1-y0)/norm(y0),norm(y0)/norm(a))
        elif not self.noisy:
            self._window.add_flat(p, g, given)
        if self.noisy:
            self._reach = max(self._reach, norm(p - self._start))
            set_heavy_ball(self._state,(1 - self._momentum) * self._reach / math.sqrt(self._squares), self._momentum)
        else:
            th = self._window.ritz_values()
            hi = np.abs(th).max(); lo=max(th[0],hi/LARGEST_KAPPA)
            self.range=lo,hi
            sa,sb=math.sqrt(lo),math.sqrt(hi)
            if self._state.nesterov:
                k=hi/lo; q=math.sqrt(3*k+1); set_heavy_ball(self._state,4/(3*hi+lo),(q-2)/(q+2))
            else:
                set_heavy_ball(self._state,(2/(sa+sb))**2, ((sb-sa)/(sb+sa))**2)
    def _set(self, lr, momentum): set_heavy_ball(self._state, lr, momentum)
