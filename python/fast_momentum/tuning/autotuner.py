"""A tuner that is told neither the curvature nor a learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import optimal
from ._checks import MOMENTUM, number, tunable, whole
from ._flat import Vector, flatten, norm
from ._set import set_heavy_ball
from .curvature import CurvatureRange, CurvatureWindow

if TYPE_CHECKING:
    from .._core import State

# Factors per step by which the two ends in use may move towards what the window shows. The upper end follows
# upwards at once: an lr that is too large costs more than one that is too small.
HIGH_FALL = 0.98
LOW_FALL, LOW_RISE = 0.8, 1.1

# On a quadratic the window is exact and its error 0; elsewhere the Hessian is another one at each step.
ERRORS_OF_MARGIN = 2.0

# Two differences are those of one smooth function if, per displacement, they agree to this share, and if they are
# this small beside the gradient.
SAME, SMALL = 0.1, 0.01

# Noise that comes later looks like a curvature that grows without end. What has grown this much is probed again.
SUSPICIOUS = 10.0


class AutoTuner:
    """A tuner that needs no lr, for gradients of one function and for gradients of mini-batches.

    Call ``tuner(params, grads)`` before each `fast_momentum.step`; it sets ``state.lr`` and ``state.momentum``, which
    are read at no time but the momentum when the tuner is made.

    Two **probes** come first: steps without momentum, ``sqrt(eps) * |params|`` long (``sqrt(eps)`` if params are 0).
    They are too short to change the gradients of a smooth function by much, or to do harm. If the two gradient
    differences are nearly equal, and small but not 0, it is one smooth function, else the gradients are taken for
    noisy, for good; ``tuner.noisy`` has the answer. A smooth function is probed again when its l_max has grown to ten
    times that of the last probes, as that is how noise looks that begins later.

    **One smooth function**: the heavy ball's best constants for the range of curvature, ::

        lr = (2 / (sqrt(l_min) + sqrt(l_max)))**2
        momentum = ((sqrt(l_max) - sqrt(l_min)) / (sqrt(l_max) + sqrt(l_min)))**2

    (the best of Nesterov's method for quadratics, if ``state.nesterov``) where l_min and l_max follow
    `CurvatureWindow.range`: l_max upwards at once, with twice the error of the window as a margin, and downwards by
    at most 2 % a step; l_min by at most -20 % or 10 %, and not where the window shows negative curvature. An end of
    the range that is not seen yet is amplified, or left over, by the very constants that neglect it, and is seen then.

    **Noisy gradients**: the distance over gradients, with the momentum that the state had at the start, ::

        lr = (1 - momentum) * max_{i<=t} |params_i - params_0| / sqrt(sum_{i<=t} |grads_i|**2)

    where 3.5e-4 ``|params_0|`` (3.5e-4 if that is 0) stands for the distance until it is exceeded. In ema, lr is
    divided by 1 - momentum.

    Parameters
    ----------
    state : State
        It is kept and written. dampening must be 0, maximize False, and momentum one number for all arrays.
    window : int, default 10
        Pairs of the curvature window, at least 2.

    Attributes
    ----------
    noisy : bool or None
        Whether gradients are taken for noisy; None while the tuner probes, as in the first two calls.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range, or the state is one that cannot be tuned.

    Notes
    -----
    Memory: a copy of params, that of the `CurvatureWindow` unless gradients are noisy, and copies of params and grads
    during a call. A gradient that is None counts as 0. Where the norm of all is 0, infinite or NaN, the call
    leaves lr and momentum as they are. Weight decay is not seen; it should be small beside the curvature.
    docs/howto/tuning.md has measurements, and where it fails.

    References
    ----------
    B. T. Polyak, Some methods of speeding up the convergence of iteration methods, 1964 (the constants).
    M. Ivgi, O. Hinder and Y. Carmon, DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size Schedule, ICML 2023
    (the distance over gradients; there without momentum, and with averaged iterates).

    Examples
    --------
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> from fast_momentum import tuning
    >>> curvature = np.array([0.5, 3.0, 50.0])
    >>> params = {"w": np.ones(3)}
    >>> state = fm.init(params, lr=1e-5)
    >>> tuner = tuning.AutoTuner(state)
    >>> for _ in range(150):
    ...     grads = {"w": curvature * params["w"]}
    ...     tuner(params, grads)
    ...     fm.step(params, grads, state)
    >>> bool(np.linalg.norm(params["w"]) < 1e-6), tuner.noisy
    (True, False)
    """

    noisy: bool | None

    def __init__(self, state: State, *, window: int = 10) -> None:
        self._state = tunable(state)
        self._momentum = number("state.momentum", state.momentum, MOMENTUM)
        self._size = whole("window", window, 2)
        self._window: CurvatureWindow | None = CurvatureWindow(self._size)
        self._probed = 0.0
        self._range: tuple[float, float] | None = None
        self._start: Vector | None = None
        self._length = 0.0
        self._reach = 0.0
        self._squares = 0.0
        self.noisy = None

    def __call__(self, params: Any, grads: Any) -> None:
        """Measure and set lr and momentum; `params` and `grads` are not modified."""
        p, g, given = flatten(params, grads)
        size = norm(g)
        if size == 0 or not math.isfinite(size) or not math.isfinite(norm(p)):
            return
        if self._start is None:
            self._start, self._length = p, _short(p)
        self._squares += size * size
        seen = None
        if self._window is not None:
            self._window.add_flat(p, g, given)
            seen = self._window.range()
            if self.noisy is None:
                self._decide(self._window, seen, size)
            elif self._suspicious(self._window, seen, p):
                self._probed, self._length = _upper_end(seen), _short(p)
                self.noisy, self._window = None, CurvatureWindow(self._size)
                self._window.add_flat(p, g, given)

        if self.noisy is None:
            set_heavy_ball(self._state, self._length / size, 0.0)
        elif self.noisy:
            self._go_by_distance(p, self._start)
        else:
            self._go_by_curvature(seen)

    def _decide(self, window: CurvatureWindow, seen: CurvatureRange | None, size: float) -> None:
        displacements, differences = window.pairs()
        if len(differences) < 2:
            return
        change = norm(differences[0])
        first, second = (y / norm(s) for s, y in zip(displacements, differences, strict=True))
        same = norm(second - first) <= SAME * norm(first)
        straight = change <= 100 * np.finfo(differences.dtype).eps * size  # no curvature but that of rounding
        at_first = self._range is None
        self.noisy = bool(not same or (at_first and (straight or change > SMALL * size)))
        if self.noisy:
            self._window = None
            return
        self._probed = max(self._probed, _upper_end(seen))
        if self._range is not None:
            self._range = self._range[0], self._probed

    def _suspicious(self, window: CurvatureWindow, seen: CurvatureRange | None, p: Vector) -> bool:
        """Whether the curvature has grown much since it was probed, and displacements are not just rounding."""
        return _upper_end(seen) > SUSPICIOUS * self._probed and window.last_length() > _short(p)

    def _go_by_distance(self, p: Vector, start: Vector) -> None:
        self._reach = max(self._reach, norm(p - start), _short(start.astype(np.float32)))
        lr = (1 - self._momentum) * self._reach / math.sqrt(self._squares)
        set_heavy_ball(self._state, lr, self._momentum)

    def _go_by_curvature(self, seen: CurvatureRange | None) -> None:
        assert seen is not None
        high = _upper_end(seen)
        low = seen.l_min if seen.l_min > 0 else high
        if self._range is not None:
            last_low, last_high = self._range
            high = max(high, HIGH_FALL * last_high)
            low = last_low if seen.l_min <= 0 else min(max(low, LOW_FALL * last_low), LOW_RISE * last_low)
        self._range = min(low, high), high
        method = "nesterov_quadratic" if self._state.nesterov else "heavy_ball"
        best = optimal(*self._range, method=method)
        set_heavy_ball(self._state, best.lr, best.momentum)


def _upper_end(seen: CurvatureRange | None) -> float:
    return 0.0 if seen is None else seen.l_max + ERRORS_OF_MARGIN * seen.error


def _short(p: Vector) -> float:
    """A length beside which that of `p` is exact: too short to do harm, and long enough to be measured."""
    return math.sqrt(np.finfo(p.dtype).eps) * (norm(p) or 1.0)
