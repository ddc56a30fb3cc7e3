"""What gradient noise leaves when the error is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from .._keywords import explained
from ._inputs import MOMENTUM, NOT_NEGATIVE, POSITIVE, numbers, plain
from ._iteration import iteration, kicks
from ._rule import Hyperparameters, rule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@explained
def stationary_covariance(
    curvature: ArrayLike, noise: ArrayLike, **hyperparameters: Unpack[Hyperparameters]
) -> Any:
    """Return the covariance of param and velocity in the long run, S, where noise is added to gradients::

        S = R @ S @ R.T + noise * outer(b, b)         R = iteration_matrix(curvature, ...)

    a discrete Lyapunov equation, with b what a unit of gradient changes (param, velocity) by in one step. The noise has mean
    0, is independent from step to step, and has the same variance everywhere. That of mini-batches changes with the
    parameters; near a minimum that does not fit all examples it is nearly so.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss; of any sign.
    noise : array_like of float
        Variance of each gradient, >= 0; its unit is that of a gradient, squared.
    **hyperparameters
        As in `iteration_matrix`. All broadcast.

    Returns
    -------
    ndarray of shape (..., 2, 2)
        The first diagonal element is the variance of the param, the second one that of the velocity. All elements are
        inf where the rate is not below 1.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or `noise` is negative.

    References
    ----------
    .. [1] Gitman, I., Lang, H., Zhang, P., Xiao, L., "Understanding the role of momentum in stochastic gradient methods",
       NeurIPS 2019, on stationary distributions.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.stationary_covariance(1.0, 1.0, lr=0.1, momentum=0.9).diagonal().round(3)
    array([0.514, 5.405])
    """
    made = rule(**hyperparameters)
    variance = numbers("noise", noise, NOT_NEGATIVE)
    r = iteration(numbers("curvature", curvature), made)
    now, later = kicks(made)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Solved by hand, as sums in which nothing cancels: a linear solver loses digits near the limit and at small lr.
        sums = [
            (now - later) ** 2 * (1 + r.determinant) + 2 * now * later * r.at_one,
            made.gain
            * (made.decay * (later * (1 + r.determinant) - 2 * now * r.mean) - (now + later) * r.at_one),
            made.gain**2 * (made.decay**2 * (1 + r.determinant) + 2 * (1 - made.decay) * r.at_one),
        ]
        drawn_back = (1 - made.keep + made.keep * made.decay + later * r.bent) * r.at_one * r.at_minus_one
        found = [np.where(r.stable, variance * one / drawn_back, np.inf) for one in sums]
    covariance = np.stack([found[0], found[1], found[1], found[2]], -1)
    return covariance.reshape(*covariance.shape[:-1], 2, 2)


@explained
def heavy_ball_variance(
    curvature: ArrayLike, noise: ArrayLike, *, lr: ArrayLike, momentum: ArrayLike = 0.9
) -> tuple[Any, Any]:
    """Return the variances of param and velocity in the long run, where noise is added to gradients::

        param      lr*noise*(1 + m) / (l*(1 - m)*(2*(1 + m) - lr*l))
        velocity   2*noise / ((1 - m)*(2*(1 + m) - lr*l))

    with l = `curvature` and m = `momentum`, in the form lr_outside without options; `stationary_covariance` is the same
    for all of them, and says of which noise.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss, > 0.
    noise : array_like of float
        Variance of each gradient, >= 0; its unit is that of a gradient, squared.
    lr, momentum : array_like of float
        As in `fast_momentum.init`. All broadcast.

    Returns
    -------
    param, velocity : float or ndarray
        inf from `stability_limit` on.

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in its range.

    References
    ----------
    .. [1] Gitman, I., Lang, H., Zhang, P., Xiao, L., "Understanding the role of momentum in stochastic gradient methods",
       NeurIPS 2019, on stationary distributions.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> param, velocity = theory.heavy_ball_variance(1.0, 1.0, lr=0.1, momentum=0.9)
    >>> round(param, 3), round(velocity, 3)
    (0.514, 5.405)
    """
    bent, variance = numbers("curvature", curvature, POSITIVE), numbers("noise", noise, NOT_NEGATIVE)
    eta, m = numbers("lr", lr, NOT_NEGATIVE), numbers("momentum", momentum, MOMENTUM)
    margin = 2 * (1 + m) - eta * bent
    with np.errstate(divide="ignore"):
        velocity = np.where(margin > 0, 2 * variance / ((1 - m) * np.maximum(margin, 0)), np.inf)
    return plain(velocity * eta * (1 + m) / (2 * bent)), plain(velocity)


@explained
def nesterov_threshold(curvature: ArrayLike, momentum: ArrayLike) -> Any:
    """Return the lr below which Nesterov's method carries less of the first gradient's noise than the heavy ball::

        2*(1 + m) / (curvature*(2 + m))        where   |(1 + m)*(1 - lr*curvature)| = |1 + m - lr*curvature|

    with m = `momentum`: these are the weights, per lr, of that noise in the param after two steps. Nesterov's method is
    the original one here, a gradient taken at `fast_momentum.lookahead` and a plain step; of the params of
    ``nesterov=True`` it is not true.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss, > 0.
    momentum : array_like of float
        In [0, 1). They broadcast.

    Returns
    -------
    float or ndarray
        A learning rate, in the form lr_outside.

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in its range.

    References
    ----------
    .. [1] Nesterov, Y., "A method of solving a convex programming problem with convergence rate O(1/k^2)", Soviet Math.
       Dokl. 27, 1983, for the method; the comparison is computed here.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.nesterov_threshold(1.0, 0.9), 4)
    1.3103
    """
    bent, m = numbers("curvature", curvature, POSITIVE), numbers("momentum", momentum, MOMENTUM)
    return plain(2 * (1 + m) / (bent * (2 + m)))
