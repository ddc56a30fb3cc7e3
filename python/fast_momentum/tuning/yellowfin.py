"""YellowFin: lr and momentum from the norms and the variance of the gradients."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from .._keywords import explained
from ..theory._inputs import require
from ._checks import MOMENTUM, NOT_NEGATIVE, POSITIVE, one, tunable, whole
from ._flat import Flat, norm
from ._set import set_heavy_ball

if TYPE_CHECKING:
    from .._core import State
    from ._flat import Vector

# Squared norms, in units of the gradient squared, that keep their precision and have a logarithm that comes back.
SQUARES = 1e-300, 1e300


@explained
def single_step(distance: float, variance: float, l_min: float, l_max: float) -> tuple[float, float]:
    """Return the lr and momentum of YellowFin's single-step rule.

    With x the root in (0, 1) of ``x**3 - 3*x**2 + (3 + distance**2 * l_min**2 / (2*variance)) * x - 1 = 0`` and
    ``kappa = l_max / l_min``::

        momentum = max(x**2, ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))**2)
        lr = (1 - sqrt(momentum))**2 / l_min

    The first bound of momentum minimises ``momentum*distance**2 + lr**2*variance``, which takes the place of the expected
    squared distance after one step; the second is the least momentum for which the heavy ball contracts by its root, in the
    long run, over the whole range of curvature.

    Parameters
    ----------
    distance : float
        Distance to the minimum, above 0.
    variance : float
        Variance of the gradient, summed over its elements, at least 0 (x = 0).
    l_min, l_max : float
        The range of curvature, ``0 < l_min <= l_max``.

    Returns
    -------
    lr, momentum : float
        For lr_outside and lr_inside; in ema lr is to be divided by 1 - momentum. 0 and 1 are the limits of a distance
        or a curvature that vanishes beside the noise.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range.

    References
    ----------
    J. Zhang and I. Mitliagkas, YellowFin and the Art of Momentum Tuning, 2017 (MLSys 2019), SingleStep.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> lr, momentum = tuning.single_step(distance=2.0, variance=0.5, l_min=1.0, l_max=10.0)
    >>> round(lr, 6), round(momentum, 6)
    (0.230886, 0.269874)
    """
    distance, variance = one("distance", distance, POSITIVE), one("variance", variance, NOT_NEGATIVE)
    l_min, l_max = one("l_min", l_min, POSITIVE), one("l_max", l_max, POSITIVE)
    require("l_max", np.array(l_max), "be at least l_min", np.array(l_max >= l_min))
    share = math.sqrt(l_min / l_max)
    gap = 2 * share / (1 + share)
    if variance > 0:
        log_q = 2 * math.log(distance) + 2 * math.log(l_min) - math.log(2) - math.log(variance)
        gap = min(gap, _gap(log_q))
    return gap * (gap / l_min), (1 - gap) ** 2


def _gap(log_q: float) -> float:
    """The root in (0, 1) of y**3 = q*(1 - y), by the hyperbolic form of Cardano's formula."""
    if (
        abs(log_q) > 200
    ):  # out here the limits, q**(1/3) and 1, are exact to rounding, and exp() comes to its own
        return math.exp(min(log_q, 0.0) / 3)
    root = math.exp((log_q - math.log(3)) / 2)
    return 2 * root * math.sinh(math.asinh(1.5 / root) / 3)


class YellowFin:
    """YellowFin, which sets ``state.lr`` and ``state.momentum`` from the gradients alone, as published.

    Call ``tuner(params, grads)`` before each `fast_momentum.step`. With moving averages of rate `decay`, freed of
    their start from zero: ``l_max`` and ``l_min`` are the averages (of the logarithm) of the largest and smallest
    squared gradient norm among the last `window`; the variance is ``mean(|g|**2) - |mean(g)|**2``; the distance is
    the average of ``mean(|g|) / mean(|g|**2)``. `single_step` makes lr and momentum of them, and lr is reduced over
    the first ``10*window`` steps (slow start). The first step is made with the state's own lr and momentum.

    Squared gradient norms are curvatures for the negative logarithm of a likelihood only: there, near the minimum, their mean
    is the trace of the Hessian, the sum of all curvatures and not the largest or the smallest. On a quadratic they have another
    unit, so that the result depends on the scale of the loss; docs/howto/tuning.md has measurements.
    The published program clips gradients besides, which is left to you.

    Parameters
    ----------
    state : State
        It is kept and written. dampening must be 0, and maximize False.
    decay : float, default 0.999
        In [0, 1).
    window : int, default 20
        At least 1.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range, or the state is one that cannot be tuned.

    Notes
    -----
    Memory: one average of the gradient, and copies of params and grads during a call. A gradient that is
    None counts as 0. Where the squared norm of all is not within 1e-300 and 1e300, or the lr would vanish or be
    infinite in the dtype of params, the call leaves lr and momentum as they are. All arrays get the same lr and
    momentum.

    References
    ----------
    J. Zhang and I. Mitliagkas, YellowFin and the Art of Momentum Tuning, 2017 (MLSys 2019), algorithms 1 to 4.

    Examples
    --------
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> from fast_momentum import tuning
    >>> params = {"w": np.full(3, 5.0)}
    >>> state = fm.init(params, lr=1e-3)
    >>> tuner = tuning.YellowFin(state)
    >>> for _ in range(300):
    ...     grads = {"w": params["w"] - 1}
    ...     tuner(params, grads)
    ...     fm.step(params, grads, state)
    >>> bool(np.linalg.norm(params["w"] - 1) < 0.1)
    True
    """

    @explained
    def __init__(self, state: State, *, decay: float = 0.999, window: int = 20) -> None:
        self._state = tunable(state)
        self._flat = Flat()
        self._decay = one("decay", decay, MOMENTUM)
        self._window = whole("window", window)
        self._squares: deque[float] = deque(maxlen=self._window)
        self._count = 0
        self._mean = np.zeros(4)  # log of the smallest and largest square, norm, square
        self._mean_distance = 0.0
        self._mean_grad: Vector | None = None

    def __call__(self, params: Any, grads: Any) -> None:
        """Measure `grads` and set lr and momentum; `params` and `grads` are not modified."""
        tunable(self._state)
        _, g, _ = self._flat(params, grads)
        size = norm(g)
        if not SQUARES[0] < size * size < SQUARES[1]:
            return
        self._measure(g, size)
        if self._count > 1:
            self._set(g.dtype)

    def _measure(self, g: Vector, size: float) -> None:
        self._count += 1
        self._squares.append(size * size)
        now = [math.log(min(self._squares)), math.log(max(self._squares)), size, size * size]
        keep = self._decay
        self._mean = keep * self._mean + (1 - keep) * np.array(now)
        self._mean_distance = keep * self._mean_distance + (1 - keep) * self._mean[2] / self._mean[3]
        if self._mean_grad is None:
            self._mean_grad = np.zeros_like(g)
        self._mean_grad += (1 - keep) * (g - self._mean_grad)

    def _set(self, dtype: np.dtype[Any]) -> None:
        started = 1 - self._decay**self._count
        low, high, _, square = (self._mean / started).tolist()
        assert self._mean_grad is not None
        variance = max(square - (norm(self._mean_grad) / started) ** 2, 0.0)
        lr, momentum = single_step(self._mean_distance / started, variance, math.exp(low), math.exp(high))
        slow_start = min(1.0, self._count / (10 * self._window))
        set_heavy_ball(self._state, lr * slow_start, momentum, dtype)
