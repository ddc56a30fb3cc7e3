"""Schedules: functions of the step count t = 0, 1, ... that return a number, for ``state.lr = schedule(state.step_count)``.

Each is a plain function without a state. A schedule over `steps` steps starts at t = 0, has its last value at
t = steps, and keeps it from there on; a run of exactly `steps` steps, t = 0 to steps - 1, ends one step before it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from .._keywords import explained
from ._checks import MOMENTUM, NOT_NEGATIVE, POSITIVE, function, one, pair, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    Schedule = Callable[[int], float]


@explained
def constant(value: float) -> Schedule:
    """Return the schedule that is `value` at each step.

    Parameters
    ----------
    value : float
        At least 0.

    Returns
    -------
    callable
        ``schedule(t)``, for any t.

    Raises
    ------
    TypeError, ValueError
        `value` is not a number, is negative or not finite.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> tuning.constant(0.1)(1000)
    0.1
    """
    value = one("value", value, NOT_NEGATIVE)
    return lambda t: value  # noqa: ARG005 - every schedule takes the step count


@explained
def step_decay(start: float, factor: float, every: int) -> Schedule:
    """Return the schedule ``start * factor**(t // every)``.

    It has no last step: it falls on. In float32 an lr that becomes 0 by rounding is refused by the step.

    Parameters
    ----------
    start : float
        The value of the first `every` steps, at least 0.
    factor : float
        Above 0 and at most 1.
    every : int
        Steps from one fall to the next.

    Returns
    -------
    callable
        ``schedule(t)``, for t >= 0.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> schedule = tuning.step_decay(0.1, 0.5, every=30)
    >>> [schedule(t) for t in (0, 29, 30, 60)]
    [0.1, 0.1, 0.05, 0.025]
    """
    start, every = one("start", start, NOT_NEGATIVE), whole("every", every)
    factor = one("factor", factor, ("be in (0, 1]", lambda x: (x > 0) & (x <= 1)))
    return lambda t: float(start * factor ** (t // every))


@explained
def cosine(start: float, steps: int, end: float = 0.0) -> Schedule:
    """Return the schedule ``end + (start - end) * (1 + cos(pi*t/steps)) / 2``, and `end` from t = steps on.

    Parameters
    ----------
    start, end : float
        The values at t = 0 and t = steps, at least 0.
    steps : int
        At least 1.

    Returns
    -------
    callable
        ``schedule(t)``, for t >= 0.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range.

    References
    ----------
    I. Loshchilov and F. Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, equation 5; here
    without the restarts.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> schedule = tuning.cosine(0.1, steps=100)
    >>> [round(schedule(t), 4) for t in (0, 25, 50, 75, 100, 1000)]
    [0.1, 0.0854, 0.05, 0.0146, 0.0, 0.0]
    """
    start, end, steps = (
        one("start", start, NOT_NEGATIVE),
        one("end", end, NOT_NEGATIVE),
        whole("steps", steps),
    )
    return lambda t: end + (start - end) * (1 + math.cos(math.pi * min(t / steps, 1))) / 2


@explained
def warmup(schedule: Schedule, steps: int) -> Schedule:
    """Return a schedule that rises to ``schedule(0)`` in `steps` steps and goes on with `schedule` from there.

    It is ``schedule(0) * (t+1) / steps`` for t < steps and ``schedule(t - steps)`` from then on: `schedule` starts
    late and so ends late by `steps`. The first step has t + 1, as it would be lost at lr = 0. Beyond its last
    step it is what `schedule` is.

    Parameters
    ----------
    schedule : callable
        A function of the step count.
    steps : int
        At least 1.

    Returns
    -------
    callable
        ``schedule(t)``, for t >= 0.

    Raises
    ------
    TypeError, ValueError
        `schedule` is not callable, `steps` is not an integer or below 1.

    References
    ----------
    P. Goyal et al., Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour, 2017, section 2.2.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> schedule = tuning.warmup(tuning.cosine(0.1, steps=100), steps=4)
    >>> [round(schedule(t), 4) for t in (0, 1, 2, 3, 4, 54, 104)]
    [0.025, 0.05, 0.075, 0.1, 0.1, 0.05, 0.0]
    """
    function("schedule", schedule)
    steps = whole("steps", steps)
    return lambda t: schedule(0) * (t + 1) / steps if t < steps else schedule(t - steps)


@explained
def inverse_square_root(peak: float, warmup: int = 1) -> Schedule:
    """Return the schedule ``peak * min((t+1) / warmup, sqrt(warmup / (t+1)))``.

    A linear rise to `peak` at t = warmup - 1, then a fall with the root of the steps. Without a warm-up, which is
    ``warmup=1``, it is ``peak / sqrt(t+1)``. With ``peak = (d_model*warmup)**-0.5`` it is the schedule of the
    Transformer, whose steps count from 1. It has no last step: it falls on.

    Parameters
    ----------
    peak : float
        The largest value, at least 0.
    warmup : int
        Steps to the peak, at least 1.

    Returns
    -------
    callable
        ``schedule(t)``, for t >= 0.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range.

    References
    ----------
    A. Vaswani et al., Attention Is All You Need, NIPS 2017, equation 3.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> schedule = tuning.inverse_square_root(0.1, warmup=4)
    >>> [schedule(t) for t in (0, 1, 3, 15, 63)]
    [0.025, 0.05, 0.1, 0.05, 0.025]
    """
    peak, warmup = one("peak", peak, NOT_NEGATIVE), whole("warmup", warmup)
    return lambda t: peak * min((t + 1) / warmup, math.sqrt(warmup / (t + 1)))


class OneCycle(NamedTuple):
    """The two schedules of `one_cycle`, for ``state.lr`` and ``state.momentum``."""

    lr: Schedule
    momentum: Schedule


@explained
def one_cycle(
    peak: float,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    momentum: tuple[float, float] = (0.95, 0.85),
) -> OneCycle:
    """Return the one-cycle policy: lr rises, falls, and dies away, while momentum falls and rises.

    Straight lines between these points, and the last value from t = steps on:

    ==========  ========  ============  =============  =========
    t           0         0.45*steps    0.9*steps      steps
    lr          start     peak          start          end
    momentum    high      low           high           high
    ==========  ========  ============  =============  =========

    Parameters
    ----------
    peak : float
        The largest lr, above 0; `range_test` helps to find it.
    steps : int
        At least 1.
    start, end : float, optional
        lr at both ends of the cycle, and at the end of all, at most `peak`; ``peak/10`` and ``peak/1000`` by default.
    momentum : (high, low), default (0.95, 0.85)
        In [0, 1), low at most high.

    Returns
    -------
    OneCycle
        A pair of schedules, ``lr`` and ``momentum``.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range.

    References
    ----------
    L. N. Smith, A Disciplined Approach to Neural Network Hyper-parameters: Part 1, 2018, sections 4.1 and 4.3: one
    cycle shorter than the run, the rest several orders of magnitude below, momentum against lr. Where the cycle
    ends is left open there; 0.9 is the choice made here. PyTorch and fastai have the two-phase variant with cosines.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> lr, momentum = tuning.one_cycle(1.0, steps=100)
    >>> [round(lr(t), 3) for t in (0, 45, 90, 95, 100, 200)]
    [0.1, 1.0, 0.1, 0.051, 0.001, 0.001]
    >>> [round(momentum(t), 3) for t in (0, 45, 90, 95, 100, 200)]
    [0.95, 0.85, 0.95, 0.95, 0.95, 0.95]
    """
    peak, steps = one("peak", peak, POSITIVE), whole("steps", steps)
    start = peak / 10 if start is None else one("start", start, NOT_NEGATIVE)
    end = peak / 1000 if end is None else one("end", end, NOT_NEGATIVE)
    for name, value in (("start", start), ("end", end)):
        if value > peak:
            msg = f"{name} must be at most peak, {peak!r}, not {value!r}"
            raise ValueError(msg)
    high, low = pair("momentum", momentum, MOMENTUM)
    if low > high:
        msg = f"momentum must be (high, low), not {(high, low)!r}"
        raise ValueError(msg)
    return OneCycle(_lines(steps, start, peak, start, end), _lines(steps, high, low, high, high))


def _lines(steps: int, first: float, middle: float, last: float, end: float) -> Schedule:
    def schedule(t: int) -> float:
        x = t / steps
        if x < 0.45:
            return first + (middle - first) * x / 0.45
        if x < 0.9:
            return middle + (last - middle) * (x - 0.45) / 0.45
        return last + (end - last) * (x - 0.9) / 0.1 if x < 1 else end

    return schedule


@explained
def demon(start: float, steps: int) -> Schedule:
    """Return the decaying momentum ``start*(1 - t/steps) / ((1 - start) + start*(1 - t/steps))``, 0 from t = steps on.

    The sum of a gradient's weights in all later velocities, momentum/(1 - momentum), falls linearly to 0.

    Parameters
    ----------
    start : float
        The momentum at t = 0, in [0, 1).
    steps : int
        At least 1.

    Returns
    -------
    callable
        ``schedule(t)``, for t >= 0 and for ``state.momentum``.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range.

    References
    ----------
    J. Chen, C. Wolfe, Z. Li and A. Kyrillidis, Demon: Improved Neural Network Training with Momentum Decay, ICASSP
    2022.

    Examples
    --------
    >>> from fast_momentum import tuning
    >>> schedule = tuning.demon(0.9, steps=100)
    >>> [round(schedule(t), 4) for t in (0, 50, 90, 100, 200)]
    [0.9, 0.8182, 0.4737, 0.0, 0.0]
    """
    start, steps = one("start", start, MOMENTUM), whole("steps", steps)

    def schedule(t: int) -> float:
        left = start * (1 - min(t / steps, 1))
        return left / ((1 - start) + left)

    return schedule
