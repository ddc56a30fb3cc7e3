"""YellowFin: lr and momentum from the norms and the variance of the gradients."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from ..theory import optimal
from ._checks import MOMENTUM, NOT_NEGATIVE, POSITIVE, number, tunable, whole
from ._flat import Vector, flatten, norm
from ._set import set_heavy_ball

if TYPE_CHECKING:
    from .._core import State


def single_step(distance: float, variance: float, h_min: float, h_max: float) -> tuple[float, float]:
    """Return the lr and momentum of YellowFin's single-step rule.

    With x the root in (0, 1) of ``x**3 - 3*x**2 + (3 + distance**2 * h_min**2 / (2*variance)) * x - 1 = 0`` and
    ``kappa = h_max / h_min``::

        momentum = max(x**2, ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))**2)
        lr = (1 - sqrt(momentum))**2 / h_min

    The first bound of momentum minimises the expected squared distance after one step, the second is the least
    momentum for which the heavy ball contracts by its root over the whole range of curvature.

    Parameters
    ----------
    distance : float
        Distance to the minimum, above 0.
    variance : float
        Variance of the gradient, summed over its elements, at least 0 (x = 0).
    h_min, h_max : float
        The range of curvature, ``0 < h_min <= h_max``.

    Returns
    -------
    lr, momentum : float
        For lr_outside and lr_inside; in ema lr is to be divided by 1 - momentum.

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
    >>> lr, momentum = tuning.single_step(distance=2.0, variance=0.5, h_min=1.0, h_max=10.0)
    >>> round(lr, 6), round(momentum, 6)
    (0.230886, 0.269874)
    """
    distance, variance = number("distance", distance, POSITIVE), number("variance", variance, NOT_NEGATIVE)
    h_min, h_max = number("h_min", h_min, POSITIVE), number("h_max", h_max, POSITIVE)
    if h_max < h_min:
        msg = f"h_max must be at least h_min, {h_min!r}, not {h_max!r}"
        raise ValueError(msg)
    root = _root(distance**2 * h_min**2 / (2 * variance)) if variance > 0 else 0.0
    root = max(root, optimal(h_min, h_max).rate)
    return (1 - root) ** 2 / h_min, root**2


def _root(q: float) -> float:
    """The root in (0, 1) of (x-1)**3 + q*x, by the hyperbolic form of Cardano's formula."""
    return 1 - 2 * math.sqrt(q / 3) * math.sinh(math.asinh(1.5 * math.sqrt(3 / q)) / 3)


class YellowFin:
    """YellowFin, which sets ``state.lr`` and ``state.momentum`` from the gradients alone, as published.

    Call ``tuner(params, grads)`` before each `fast_momentum.step`. With moving averages of rate `decay`, freed of
    their start from zero: ``h_max`` and ``h_min`` are the averages (of the logarithm) of the largest and smallest
    squared gradient norm among the last `window`; the variance is ``mean(|g|**2) - |mean(g)|**2``; the distance is
    the average of ``mean(|g|) / mean(|g|**2)``. `single_step` makes lr and momentum of them, and lr is reduced over
    the first ``10*window`` steps (slow start). The first step is made with the state's own lr and momentum.

    Squared gradient norms are curvatures for the negative logarithm of a likelihood only. On a quadratic they have
    another unit, so that the result depends on the scale of the loss; docs/howto/tuning.md has measurements.
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
    None counts as 0. Where the norm of all is 0, infinite or NaN, the call leaves lr and momentum as they are. All
    arrays get the same lr and momentum.

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

    def __init__(self, state: State, *, decay: float = 0.999, window: int = 20) -> None:
        self._state = tunable(state)
        self._decay = number("decay", decay, MOMENTUM)
        self._window = whole("window", window)
        self._squares: deque[float] = deque(maxlen=self._window)
        self._count = 0
        self._mean = np.zeros(4)  # log of the smallest and largest square, norm, square
        self._mean_distance = 0.0
        self._mean_grad: Vector | None = None

    def __call__(self, params: Any, grads: Any) -> None:
        """Measure `grads` and set lr and momentum; `params` and `grads` are not modified."""
        _, g, _ = flatten(params, grads)
        size = norm(g)
        if size == 0 or not math.isfinite(size * size):
            return
        self._measure(g, size)
        if self._count > 1:
            self._set()

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

    def _set(self) -> None:
        started = 1 - self._decay**self._count
        low, high, _, square = (self._mean / started).tolist()
        assert self._mean_grad is not None
        variance = max(square - (norm(self._mean_grad) / started) ** 2, 0.0)
        lr, momentum = single_step(self._mean_distance / started, variance, math.exp(low), math.exp(high))
        set_heavy_ball(self._state, lr * min(1.0, self._count / (10 * self._window)), momentum)
