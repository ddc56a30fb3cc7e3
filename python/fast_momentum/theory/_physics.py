"""A ball of some mass with some drag, and the differential equation that steps follow as they get small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._keywords import explained
from ._inputs import MOMENTUM, NOT_NEGATIVE, POSITIVE, ROUNDING, numbers, plain, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class Physics(NamedTuple):
    """The ball of `to_physics`."""

    mass: Any
    drag: Any
    time_step: Any


@explained
def to_physics(lr: ArrayLike, momentum: ArrayLike, mass: ArrayLike = 1.0) -> Physics:
    """Return the ball that steps with these hyperparameters simulate::

        time_step = sqrt(lr*mass)          drag = (1 - momentum)*mass/time_step

    It obeys ``mass*x'' = -drag*x' - gradient``, with the difference to the last position for x'. With that to the next one
    [1]_ it would be another ball, ``lr = time_step^2/(mass + drag*time_step)``, ``momentum = mass/(mass + drag*time_step)``: one
    for every drag, and without mass where momentum is 0. Both are the same in the limit of small time steps. The velocity of
    the form lr_inside is the displacement in one time step, with the other sign; lr_outside has the same path at constant lr.

    Parameters
    ----------
    lr : array_like of float
        > 0, of the form lr_outside or lr_inside; for ema see `convert`.
    momentum : array_like of float
        In [0, 1).
    mass : array_like of float, default 1.0
        > 0; free to choose. All broadcast.

    Returns
    -------
    Physics
        A named tuple (mass, drag, time_step).

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in its range.

    References
    ----------
    .. [1] Qian, N., "On the momentum term in gradient descent learning algorithms", Neural Networks 12, 1999.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.to_physics(0.25, 0.75)
    Physics(mass=1.0, drag=0.5, time_step=0.5)
    """
    m, heavy = numbers("momentum", momentum, MOMENTUM), numbers("mass", mass, POSITIVE)
    time_step = np.sqrt(numbers("lr", lr, POSITIVE) * heavy)
    return Physics(plain(heavy), plain((1 - m) * heavy / time_step), plain(time_step))


@explained
def from_physics(mass: ArrayLike, drag: ArrayLike, time_step: ArrayLike) -> tuple[Any, Any]:
    """Return the (lr, momentum) that simulate a ball::

        lr = time_step^2/mass             momentum = 1 - drag*time_step/mass

    in these time steps, with the difference to the last position for the drag; `to_physics` is the inverse.

    Parameters
    ----------
    mass, drag, time_step : array_like of float
        > 0, with ``drag*time_step <= mass``. All broadcast.

    Returns
    -------
    lr, momentum : float or ndarray
        For the forms lr_outside and lr_inside.

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in its range, or momentum would not be in [0, 1).

    References
    ----------
    .. [1] Qian, N., "On the momentum term in gradient descent learning algorithms", Neural Networks 12, 1999.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.from_physics(1.0, 0.5, 0.5)
    (0.25, 0.75)
    """
    heavy, friction = numbers("mass", mass, POSITIVE), numbers("drag", drag, POSITIVE)
    dt = numbers("time_step", time_step, POSITIVE)
    momentum = 1 - friction * dt / heavy
    momentum = np.where(abs(momentum) <= ROUNDING, 0.0, momentum)
    holds = (momentum >= 0) & (momentum < 1)
    require("momentum = 1 - drag*time_step/mass", momentum, "be in [0, 1)", holds)
    return plain(dt * dt / heavy), plain(momentum)


@explained
def continuous_trajectory(
    curvature: ArrayLike,
    time: ArrayLike,
    *,
    drag: ArrayLike,
    start: ArrayLike = 1.0,
    velocity: ArrayLike = 0.0,
) -> Any:
    """Return where a damped oscillator is at a time: x(time), the solution of::

        x'' + drag*x' + curvature*x = 0         x(0) = start,  x'(0) = velocity

    Steps tend to it as lr goes to 0, at ``time = steps*sqrt(lr)`` and ``drag = (1 - momentum)/sqrt(lr)``, which is kept. Where
    momentum is kept, they tend to gradient flow instead, ``start*exp(-curvature*steps*lr/(1 - momentum))`` [2]_.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss; of any sign.
    time, drag : array_like of float
        >= 0.
    start, velocity : array_like of float, default 1.0 and 0.0
        Of any sign. All broadcast.

    Returns
    -------
    float or ndarray
        The position.

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in its range.

    References
    ----------
    .. [1] Su, W., Boyd, S., Candes, E. J., "A differential equation for modeling Nesterov's accelerated gradient method",
       JMLR 17, 2016, on the scaling of time.
    .. [2] Kovachki, N. B., Stuart, A. M., "Continuous time analysis of momentum methods", JMLR 22, 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import theory
    >>> theory.continuous_trajectory(1.0, [0, np.pi, 2 * np.pi], drag=0.0).round(9)
    array([ 1., -1.,  1.])
    """
    bent, t = numbers("curvature", curvature), numbers("time", time, NOT_NEGATIVE)
    c, x = numbers("drag", drag, NOT_NEGATIVE), numbers("start", start)
    slope = numbers("velocity", velocity) + c / 2 * x
    square = c * c / 4 - bent
    w = np.sqrt(abs(square))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        swinging = np.exp(-c / 2 * t) * (x * np.cos(w * t) + slope * np.sin(w * t) / w)
        slow = -bent / (w + c / 2)  # w - c/2 without cancellation
        creeping = np.exp(slow * t) * (
            x * (1 + np.exp(-2 * w * t)) / 2 - slope * np.expm1(-2 * w * t) / (2 * w)
        )
        critical = np.exp(-c / 2 * t) * (x + slope * t)
    return plain(np.select([square < 0, square > 0], [swinging, creeping], critical))
