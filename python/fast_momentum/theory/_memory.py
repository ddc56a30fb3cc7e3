"""What a velocity remembers of past gradients, and what of them it lets through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from .._keywords import explained
from ._inputs import COUNT, COUNT_OR_INFINITE, MOMENTUM, NOT_NEGATIVE, flag, numbers, one, plain
from ._rule import Hyperparameters, rule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ._rule import Array


@explained
def half_life(rate: ArrayLike) -> Any:
    """Return the steps in which something that shrinks by `rate` at each step is halved::

        log(1/2) / log(rate)

    Of `fast_momentum.theory.rate` it is the half-life of the error; of momentum, that of a gradient in the velocity.

    Parameters
    ----------
    rate : array_like of float
        The factor per step, >= 0.

    Returns
    -------
    float or ndarray
        In steps; 0 for a rate of 0, inf from a rate of 1 on.

    Raises
    ------
    TypeError, ValueError
        `rate` is not a number >= 0.

    References
    ----------
    .. [1] Brown, R. G., "Smoothing, Forecasting and Prediction of Discrete Time Series", 1963, on exponential smoothing.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.half_life(0.9), 2)
    6.58
    """
    factor = numbers("rate", rate, NOT_NEGATIVE)
    with np.errstate(divide="ignore"):
        return plain(np.where(factor < 1, np.log(0.5) / np.log(np.minimum(factor, 1 - 2**-53)), np.inf))


@explained
def time_constant(rate: ArrayLike) -> Any:
    """Return the steps in which something that shrinks by `rate` at each step falls to 1/e of what it was::

        -1 / log(rate)

    Of a beta it is the memory of that moment: ``1/(1 - beta)``, but for half a step.

    Parameters
    ----------
    rate : array_like of float
        The factor per step, >= 0.

    Returns
    -------
    float or ndarray
        In steps; 0 for a rate of 0, inf from a rate of 1 on.

    Raises
    ------
    TypeError, ValueError
        `rate` is not a number >= 0.

    See Also
    --------
    half_life : the same, until a half is left.

    References
    ----------
    .. [1] Brown, R. G., "Smoothing, Forecasting and Prediction of Discrete Time Series", 1963, on exponential smoothing.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.time_constant([0.9, 0.999]).round(2)
    array([  9.49, 999.5 ])
    """
    return plain(np.asarray(half_life(rate)) / np.log(2))


@explained
def effective_gradients(beta: ArrayLike, steps: ArrayLike = np.inf) -> Any:
    """Return how many independent gradients a moving average is worth, by its variance, after so many steps::

        (1 + beta)/(1 - beta) * (1 - beta^steps)/(1 + beta^steps)

    The plain mean of so many has the variance of the moving average with its bias corrected. After many steps it is the
    inverse of `variance_reduction`.

    Parameters
    ----------
    beta : array_like of float
        In [0, 1): a momentum in the form ema, beta1 or beta2.
    steps : array_like of float, default inf
        How many steps have been made, 0 or more. They broadcast.

    Returns
    -------
    float or ndarray
        At most `steps`.

    Raises
    ------
    TypeError, ValueError
        `beta` is not a number in [0, 1), or `steps` neither a count nor inf.

    References
    ----------
    .. [1] Brown, R. G., "Smoothing, Forecasting and Prediction of Discrete Time Series", 1963, on exponential smoothing.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.effective_gradients([0.9, 0.999]).round(6)
    array([  19., 1999.])
    >>> theory.effective_gradients(0.999, [1, 10, 1000]).round(2)
    array([  1.  ,  10.  , 924.17])
    """
    b, count = numbers("beta", beta, MOMENTUM), numbers("steps", steps, COUNT_OR_INFINITE)
    left = b**count
    return plain((1 + b) / (1 - b) * (1 - left) / (1 + left))


@explained
def effective_lr(**hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the displacement per gradient, and step, by a gradient that stays::

        lr_outside   lr*(1 - dampening)/(1 - momentum)      lr_inside   lr/(1 - momentum)      ema   lr

    Where momentum changes and this is kept, slow progress stays as fast as it was, as long as lr stays below
    `stability_limit`, which falls with momentum.

    Parameters
    ----------
    **hyperparameters
        As in `iteration_matrix`; weight decay has no part in it.

    Returns
    -------
    float or ndarray
        In the unit of lr.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`.

    References
    ----------
    .. [1] Sutskever, I., Martens, J., Dahl, G., Hinton, G., "On the importance of initialization and momentum in deep
       learning", ICML 2013.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.effective_lr(lr=0.1, momentum=0.9), 9), theory.effective_lr(lr=0.1, momentum=0.9, form="ema")
    (1.0, 0.1)
    """
    r = rule(**hyperparameters)
    return plain(r.scale * (r.direct + r.carried * r.gain / (1 - r.keep)))


def _ages_and_gains(steps: int, hyperparameters: Hyperparameters) -> tuple[Any, Array, Array]:
    """The rule, how many steps ago each of the gradients was, and the gain with which it came in."""
    count = int(one("steps", steps, COUNT))
    r = rule(**hyperparameters)
    gains = np.repeat(r.gain[..., None], count, -1)
    gains[..., :1] = rule(True, **hyperparameters).gain[..., None]
    return r, np.arange(count - 1, -1, -1.0), gains


@explained
def velocity_weights(steps: int, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the weights of the gradients of all steps in the velocity after the last one::

        gain*momentum^(steps - j)   for j = 1 ... steps     gain: 1 - dampening (1 for j = 1), lr, or 1 - momentum

    in lr_outside, lr_inside and ema.

    Parameters
    ----------
    steps : int
        How many steps have been made, from a fresh state; 0 or more.
    **hyperparameters
        As in `iteration_matrix`; weight decay has no part in it, and maximize is left out.

    Returns
    -------
    ndarray of shape (..., steps)
        The oldest gradient first.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or `steps` is not a count.

    References
    ----------
    .. [1] Polyak, B. T., "Some methods of speeding up the convergence of iteration methods", 1964.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.velocity_weights(3, lr=0.1, momentum=0.5)
    array([0.25, 0.5 , 1.  ])
    """
    r, ages, gains = _ages_and_gains(steps, hyperparameters)
    return gains * r.keep[..., None] ** ages


@explained
def displacement_weights(steps: int, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the weights of the gradients of all steps in the displacement, ``start - param``, that they have made::

        lr*(1 - momentum^(steps - j + 1))/(1 - momentum)   for j = 1 ... steps

    in lr_outside and lr_inside without options, and ``1 - momentum`` times as much in ema. With nesterov the power is
    ``steps - j + 2``.

    Parameters
    ----------
    steps : int
        How many steps have been made, from a fresh state; 0 or more.
    **hyperparameters
        As in `iteration_matrix`; weight decay has no part in it, and maximize is left out.

    Returns
    -------
    ndarray of shape (..., steps)
        The oldest gradient first.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or `steps` is not a count.

    References
    ----------
    .. [1] Goh, G., "Why momentum really works", Distill, 2017, https://doi.org/10.23915/distill.00006

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.displacement_weights(3, lr=0.5, momentum=0.5)
    array([0.875, 0.75 , 0.5  ])
    """
    r, ages, gains = _ages_and_gains(steps, hyperparameters)
    keep = r.keep[..., None]
    sums = (1 - keep ** (ages + 1)) / (1 - keep)
    return r.scale[..., None] * (r.direct[..., None] + r.carried[..., None] * gains * sums)


@explained
def variance_reduction(momentum: ArrayLike, *, nesterov: bool = False) -> Any:
    """Return the variance of the direction of a step, per variance of independent gradients, at equal mean::

        (1 - m)/(1 + m)       with nesterov       (1 - m)/(1 + m) * ((1 - m)*(1 + m)^3 + m^4)

    with m = `momentum`. It takes the noise as given, and leaves out that steps change later gradients, for which there
    is `stationary_covariance`.

    Parameters
    ----------
    momentum : array_like of float
        In [0, 1).
    nesterov : bool, default False
        As in `fast_momentum.init`.

    Returns
    -------
    float or ndarray
        At most 1. The same in all forms.

    Raises
    ------
    TypeError, ValueError
        `momentum` is not a number in [0, 1), or `nesterov` not a bool.

    References
    ----------
    .. [1] Brown, R. G., "Smoothing, Forecasting and Prediction of Discrete Time Series", 1963, on exponential smoothing.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.variance_reduction(0.9), 4), round(theory.variance_reduction(0.9, nesterov=True), 4)
    (0.0526, 0.0706)
    """
    m = numbers("momentum", momentum, MOMENTUM)
    reduction = (1 - m) / (1 + m)
    if flag("nesterov", nesterov):
        reduction = reduction * ((1 - m) * (1 + m) ** 3 + m**4)
    return plain(reduction)


@explained
def frequency_response(frequency: ArrayLike, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the response of the velocity to an oscillating gradient::

        H(w) = gain / (1 - momentum*exp(-1j*w))      gain: 1 - dampening, lr, or 1 - momentum

    in lr_outside, lr_inside and ema, and the negative with maximize. A gradient ``exp(1j*w*t)`` makes, in the long run,
    the velocity ``H(w)*exp(1j*w*t)``. The velocity is a low-pass filter: fast oscillations are damped most.

    Parameters
    ----------
    frequency : array_like of float
        w, in radians per step; pi is a change of sign at each step.
    **hyperparameters
        As in `iteration_matrix`; weight decay and nesterov have no part in it.

    Returns
    -------
    complex or ndarray of complex
        Its absolute value is the gain, its angle the phase.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or `frequency` is not finite.

    References
    ----------
    .. [1] Oppenheim, A. V., Schafer, R. W., "Discrete-Time Signal Processing", 2009, section 5.3, first-order systems.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import theory
    >>> abs(theory.frequency_response([0, np.pi], lr=0.1, momentum=0.9)).round(3)
    array([10.   ,  0.526])
    """
    w = numbers("frequency", frequency)
    r = rule(**hyperparameters)
    return plain(r.sign * r.gain / (1 - r.keep * np.exp(-1j * w)))


@explained
def cutoff_frequency(momentum: ArrayLike) -> Any:
    """Return the frequency above which the velocity passes on less than half of the power that it does at 0::

        arccos((4*m - 1 - m^2) / (2*m))

    with m = `momentum`, in all forms.

    Parameters
    ----------
    momentum : array_like of float
        In [0, 1).

    Returns
    -------
    float or ndarray
        In radians per step; NaN below ``3 - sqrt(8) = 0.172``, where more than half of the power passes at any
        frequency.

    Raises
    ------
    TypeError, ValueError
        `momentum` is not a number in [0, 1).

    References
    ----------
    .. [1] Oppenheim, A. V., Schafer, R. W., "Discrete-Time Signal Processing", 2009, section 5.3, first-order systems.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.cutoff_frequency(0.9), 4)
    0.1055
    """
    m = numbers("momentum", momentum, MOMENTUM)
    with np.errstate(divide="ignore", invalid="ignore"):
        # 1 - cos is small where m is near 1: sin(w/2)^2 = (1-m)^2/(4*m)
        return plain(2 * np.arcsin((1 - m) / (2 * np.sqrt(m))))
