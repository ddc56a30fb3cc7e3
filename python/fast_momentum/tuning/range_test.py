"""The learning rate range test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _core
from .._containers import mapped
from ._checks import POSITIVE, function, one, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# A test is over when the smoothed loss has risen by this many times what it had fallen, or its noise. Neither changes
# with a constant that is added to the loss, as a ratio of losses would.
EXPLODED = 3
SMOOTHING = 0.9
ROUNDING = float(np.finfo(np.float32).eps)  # of a loss, relative to it: many are computed in float32


class RangeTest(NamedTuple):
    """What `range_test` found: the learning rates, the loss met at each, and the suggested lr."""

    lrs: NDArray[np.float64]
    losses: NDArray[np.float64]
    suggestion: float


def range_test(
    loss_and_grads: Callable[[Any], tuple[float, Any]],
    params: Any,
    *,
    lr_min: float = 1e-6,
    lr_max: float = 10.0,
    steps: int = 100,
    **hyperparameters: Any,
) -> RangeTest:
    """Train a copy of `params` with an lr that grows from step to step, and return the losses met.

    ``lr_k = lr_min * (lr_max/lr_min)**(k/(steps-1))``, k = 0 to steps - 1. The loss at k is that before the step with
    ``lr_k``, and so shows what the rates up to k - 1 have done. It ends early when the loss is not finite, or
    smoothed over about 10 steps has risen from its lowest by 3 times what it had fallen, and by 3 times its noise. The
    noise is what three quarters of the changes from step to step do not exceed.

    The suggestion is a tenth of the lr at which the smoothed loss is lowest; look at the curve before using it. If it
    is lowest at lr_min, no lr has lowered it; at lr_max, a larger one might lower it more. The suggestion is NaN then.

    Parameters
    ----------
    loss_and_grads : callable
        Called with a copy of `params`, which it must not keep; returns the loss and gradients as `fast_momentum.step`
        takes them. With mini-batches, each call takes the next one.
    params : array or nested list, tuple, dict or dataclass of arrays
        The start. They are copied and not modified.
    lr_min, lr_max : float
        ``0 < lr_min < lr_max``.
    steps : int
        At least 2.
    **hyperparameters
        The other keywords of `fast_momentum.init`, such as momentum. The lr found holds for these.

    Returns
    -------
    RangeTest
        ``lrs`` and ``losses``, of the same length, at most `steps`, and ``suggestion``.

    Raises
    ------
    TypeError, ValueError
        A value is of another kind or out of its range, or the first loss is not finite; lr is given; what `init` and
        `step` raise.

    References
    ----------
    L. N. Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017, section 3.3, with a linear growth;
    the geometric growth, the smoothing and the tenth are the practice of fastai, which stops at 4 times the lowest
    loss.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import tuning
    >>> curvature = np.array([1.0, 100.0])
    >>> def loss_and_grads(params):
    ...     return float(curvature @ params**2 / 2), curvature * params
    >>> found = tuning.range_test(loss_and_grads, np.ones(2), momentum=0.0)
    >>> len(found.lrs) < 100, bool(0.1 / 100 < found.suggestion < 2 / 100)
    (True, True)
    """
    function("loss_and_grads", loss_and_grads)
    lr_min, lr_max = one("lr_min", lr_min, POSITIVE), one("lr_max", lr_max, POSITIVE)
    if lr_max <= lr_min:
        msg = f"lr_max must be above lr_min, {lr_min!r}, not {lr_max!r}"
        raise ValueError(msg)
    if "lr" in hyperparameters:
        msg = f"lr must be left to range_test, not {hyperparameters['lr']!r}; give lr_min and lr_max"
        raise TypeError(msg)
    schedule = np.geomspace(lr_min, lr_max, whole("steps", steps, least=2))
    state = _core.init(params, lr=lr_min, **hyperparameters)
    params = mapped(np.array, params)
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    for lr in schedule.tolist():
        found: Any = loss_and_grads(params)
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            msg = f"loss_and_grads must return (loss, grads), not {type(found).__name__}"
            raise TypeError(msg)
        loss, grads = found
        losses.append(float(loss))
        if not math.isfinite(losses[-1]):
            break
        average = SMOOTHING * average + (1 - SMOOTHING) * losses[-1]
        smoothed.append(average / (1 - SMOOTHING ** len(losses)))
        if _exploded(losses, smoothed):
            break
        state.lr = lr
        _core.step(params, grads, state)
    if not smoothed:
        msg = f"loss_and_grads must return a finite loss at params, not {losses[0]!r}"
        raise ValueError(msg)
    best = int(np.argmin(smoothed))
    suggestion = float(schedule[best]) / 10 if 0 < best < len(schedule) - 1 else math.nan
    return RangeTest(schedule[: len(losses)], np.array(losses), suggestion)


def _exploded(losses: list[float], smoothed: list[float]) -> bool:
    best = min(smoothed)
    noise = np.quantile(np.abs(np.diff(losses)), 0.75) if len(losses) > 1 else 0.0
    return bool(smoothed[-1] - best > EXPLODED * max(smoothed[0] - best, noise, ROUNDING * abs(losses[0])))
