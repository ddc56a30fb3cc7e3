"""A tuner that is told neither the curvature nor a learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .._config import logger
from .._keywords import explained
from ..theory import optimal
from ._checks import one_momentum, tunable, whole
from ._flat import Flat, norm
from ._probes import Probes, short
from ._set import set_heavy_ball
from .curvature import CurvatureRange, CurvatureWindow

if TYPE_CHECKING:
    from .._core import State
    from ._flat import Point, Vector

# Factors per step by which the two ends in use may move towards what the window shows. The upper end follows
# upwards at once: an lr that is too large costs more than one that is too small.
HIGH_FALL = 0.98
LOW_FALL, LOW_RISE = 0.8, 1.1

# On a quadratic the window is exact and its error 0; elsewhere the Hessian is another one at each step.
ERRORS_OF_MARGIN = 2.0

# Noise that comes later looks like a curvature that grows without end. What has grown this much is probed again.
SUSPICIOUS = 10.0


NOISY = (
    "AutoTuner takes the gradients for noisy, as those of mini-batches are: lr follows the distance from the start, and "
    "momentum stays. If they are those of one function, form them exactly or by central differences, of parameters that "
    "are all about 1"
)


class AutoTuner:
    """A tuner that needs no lr, for gradients of one function and for gradients of mini-batches.

    Call ``tuner(params, grads)`` before each `fast_momentum.step`; it sets ``state.lr`` and ``state.momentum``, which
    are read at no time but the momentum when the tuner is made.

    Two **probes** come first: steps without momentum, ``sqrt(eps) * |params|`` long (``sqrt(eps)`` if params are 0).
    They are too short to change the gradients of a smooth function by much, or to do harm. If the two gradient
    differences are nearly equal, and small but not 0, it is one smooth function, else the gradients are taken for
    noisy, for good; ``tuner.noisy`` has the answer, and one line is logged. A difference that may be nothing but rounding, as it is far from
    the minimum, makes the steps ten times as long, up to three times. A smooth function is probed again when its
    l_max has grown to ten times that of the last probes, as that is how noise looks that begins later.

    **One smooth function**: the heavy ball's best constants on quadratics for the range of curvature, ::

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
    during a call. A gradient that is None adds nothing to the norm, and its array counts only where gradients were
    given: at all points of the probes that are compared, and as in `CurvatureWindow`. Gradients that cannot be
    compared in 20 calls, as they are those of other arrays each time, are taken for noisy. Where the norm of all is
    0, infinite or NaN, or the lr would vanish or be infinite in the dtype of params, the call leaves lr and momentum
    as they are. Weight decay is not seen; it should be small beside the curvature.
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

    @explained
    def __init__(self, state: State, *, window: int = 10) -> None:
        self._state = tunable(state)
        self._momentum = one_momentum(state)
        self._size = whole("window", window, 2)
        self._flat = Flat()
        self._probes: Probes | None = None
        self._window: CurvatureWindow | None = None
        self._probed = 0.0
        self._range: tuple[float, float] | None = None
        self._start: Vector | None = None
        self._reach = 0.0
        self._squares = 0.0
        self.noisy = None

    def __call__(self, params: Any, grads: Any) -> None:
        """Measure and set lr and momentum; `params` and `grads` are not modified."""
        tunable(self._state)
        point = p, g, _ = self._flat(params, grads)
        size = norm(g)
        if size == 0 or not math.isfinite(size) or not math.isfinite(norm(p)):
            return
        if self._start is None:
            self._start, self._probes = p, Probes(p, first=True)
        self._squares += size * size
        seen = self._look(point)
        if self._probes is not None:
            set_heavy_ball(self._state, self._probes.length / size, 0.0, p.dtype)
        elif seen is None:
            self._go_by_distance(p, self._start)
        else:
            self._go_by_curvature(seen, p.dtype)

    def _look(self, point: Point) -> CurvatureRange | None:
        """Take the point. What the window shows, None while the tuner probes and if gradients are noisy."""
        if self._window is not None:
            self._window._add_flat(point)
            seen = self._window.range()
            if not self._suspicious(self._window, seen, point[0]):
                return seen
            self._probed = _upper_end(seen)
            self.noisy, self._window, self._probes = None, None, Probes(point[0], first=False)
        if self._probes is None:
            return None
        self.noisy = self._probes.noisy(point)
        if self.noisy is None:
            return None
        probes, self._probes = self._probes, None
        if self.noisy:
            logger.warning(NOISY)
            return None
        self._window = CurvatureWindow(self._size)
        for probed in probes.points:
            self._window._add_flat(probed)
        seen = self._window.range()
        self._probed = max(self._probed, _upper_end(seen))
        if self._range is not None:
            self._range = self._range[0], self._probed
        return seen

    def _suspicious(self, window: CurvatureWindow, seen: CurvatureRange | None, p: Vector) -> bool:
        """Whether the curvature has grown much since it was probed, and displacements are not just rounding."""
        return _upper_end(seen) > SUSPICIOUS * self._probed and window._last_length() > short(p)

    def _go_by_distance(self, p: Vector, start: Vector) -> None:
        self._reach = max(self._reach, norm(p - start), short(start.astype(np.float32)))
        lr = (1 - self._momentum) * self._reach / math.sqrt(self._squares)
        set_heavy_ball(self._state, lr, self._momentum, p.dtype)

    def _go_by_curvature(self, seen: CurvatureRange, dtype: np.dtype[Any]) -> None:
        high = _upper_end(seen)
        low = seen.l_min if seen.l_min > 0 else high
        if self._range is not None:
            last_low, last_high = self._range
            high = max(high, HIGH_FALL * last_high)
            low = last_low if seen.l_min <= 0 else min(max(low, LOW_FALL * last_low), LOW_RISE * last_low)
        self._range = min(low, high), high
        method = "nesterov_quadratic" if self._state.nesterov else "heavy_ball"
        best = optimal(*self._range, method=method)
        set_heavy_ball(self._state, best.lr, best.momentum, dtype)


def _upper_end(seen: CurvatureRange | None) -> float:
    return 0.0 if seen is None else seen.l_max + ERRORS_OF_MARGIN * seen.error
