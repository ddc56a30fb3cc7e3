"""One step on a quadratic is a 2x2 matrix: its rate, its regime, and where it leads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from .._keywords import explained
from ._inputs import COUNT, DAMPENING, NOT_NEGATIVE, ROUNDING, flag, numbers, plain, require
from ._rule import Hyperparameters, Settings, check_dampening, form_name, rule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from ._rule import Array, Rule

REGIMES = ("overdamped", "critical", "underdamped", "alternating", "divergent")


class Iteration(NamedTuple):
    """``(p, v) -> (a*p + b*v, c*p + d*v)``, and its characteristic polynomial ``z^2 - trace*z + determinant``.

    The determinant, and the polynomial at 1 and at -1, are formed without the cancellation that they would have
    if they were computed from the four elements. `bent` is the curvature with its sign and the coupled decay; `fall`
    is what the polynomial at -1 has lost since lr was 0, in proportion to lr.
    """

    bent: Array
    a: Array
    b: Array
    c: Array
    d: Array
    determinant: Array
    at_one: Array
    fall: Array

    @property
    def mean(self) -> Array:
        """Of the two roots."""
        return (self.a + self.d) / 2

    @property
    def at_minus_one(self) -> Array:
        return 2 * (1 + self.d) - self.fall

    @property
    def square(self) -> Array:
        """Of half the distance between the roots."""
        return ((self.a - self.d) / 2) ** 2 + self.b * self.c

    @property
    def discriminant(self) -> Array:
        """`square`, but 0 where it vanishes but for rounding."""
        half, product = abs(self.a - self.d) / 2, abs(self.b * self.c)
        noise = ROUNDING * (half * (abs(self.a) + abs(self.d)) + product)
        return np.where(abs(self.square) <= noise, 0.0, self.square)

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Whether both roots are within the unit circle (Jury's conditions)."""
        return (self.at_one > 0) & (self.at_minus_one > 0) & (self.determinant < 1)

    @property
    def radius(self) -> Array:
        square = self.square
        real = abs(self.mean) + np.sqrt(np.maximum(square, 0))
        return np.where(square < 0, np.sqrt(abs(self.determinant)), real)


def iteration(curvature: Array, made: Rule) -> Iteration:
    bent = made.sign * curvature + made.weight_decay
    now, later = kicks(made)
    parts = np.broadcast_arrays(
        bent,
        1 - now * bent - made.decay,
        -made.scale * made.carried * made.keep,
        made.gain * bent,
        made.keep,
        made.keep * (1 - made.decay) - later * bent,
        (now - later) * bent + made.decay * (1 - made.keep),
        (now + later) * bent + made.decay * (1 + made.keep),
    )
    return Iteration(*parts)


def kicks(made: Rule) -> tuple[Array, Array]:
    """What a unit of d takes off the param at once, and what of that the next step gives back."""
    return made.scale * (made.direct + made.carried * made.gain), made.keep * made.scale * made.direct


def _iteration(curvature: ArrayLike, hyperparameters: Hyperparameters) -> Iteration:
    return iteration(numbers("curvature", curvature), rule(**hyperparameters))


@explained
def iteration_matrix(curvature: ArrayLike, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the matrix R of a step on the quadratic ``curvature*p**2/2``::

        (p, v) after the step = R @ (p, v) before it

    It is made of the constants with which `step` works, so it holds for every form and option. The first step of an
    array in the form lr_outside is another one where dampening is not 0; see `trajectory`.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss; of any sign. Its unit is that of gradient per param.
    **hyperparameters
        The keywords of `fast_momentum.init`, with the same defaults: lr, momentum, dampening, nesterov, weight_decay,
        decoupled_weight_decay, maximize and form. The numbers may be arrays. All broadcast against `curvature`.

    Returns
    -------
    ndarray of shape (..., 2, 2)
        It acts on the distance to the minimum and the velocity.

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in the range that `fast_momentum.init` asks for.

    References
    ----------
    .. [1] Goh, G., "Why momentum really works", Distill, 2017, https://doi.org/10.23915/distill.00006

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.iteration_matrix(2.0, lr=0.25, momentum=0.5)
    array([[ 0.5  , -0.125],
           [ 2.   ,  0.5  ]])
    """
    r = _iteration(curvature, hyperparameters)
    return np.stack([np.stack([r.a, r.b], -1), np.stack([r.c, r.d], -1)], -2)


@explained
def rate(curvature: ArrayLike, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the factor per step to which the error shrinks in the long run::

        max(abs(eigenvalues of iteration_matrix(curvature, ...)))

    In single steps the error may grow, as the matrix is not normal: at the heavy ball's best constants for a condition
    number of k, up to 0.37*sqrt(k) times the start [2]_. Over a range of curvatures, the rate of the whole is the larger one
    of its two ends.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss; of any sign. Its unit is that of gradient per param.
    **hyperparameters
        As in `iteration_matrix`.

    Returns
    -------
    float or ndarray
        Below 1 it converges; above 1 it diverges. Where both roots are nearly the same, it moves as the root of a rounding
        error does, by some 1e-8.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`. A point outside of the stable region is no error.

    References
    ----------
    .. [1] Polyak, B. T., "Some methods of speeding up the convergence of iteration methods", 1964.
    .. [2] Danilova, M., Kulakova, A., Polyak, B., "Non-monotone behavior of the heavy ball method", 2020.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.rate([1, 100], lr=2 / 101, momentum=0).round(3)  # gradient descent at its best
    array([0.98, 0.98])
    >>> theory.rate([1, 100], lr=4 / 121, momentum=(9 / 11) ** 2).round(3)  # the heavy ball at its best
    array([0.818, 0.818])
    """
    return plain(_iteration(curvature, hyperparameters).radius)


@explained
def regime(curvature: ArrayLike, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return how the iterates approach the minimum, in the long run::

        overdamped    the larger root is real and positive: they creep towards it
        critical      both roots are the same
        underdamped   the roots are complex: they swing around it
        alternating   the larger root is real and negative: they change sides at each step
        divergent     the rate is above 1: they leave, as they do wherever the curvature is negative

    A loss with many curvatures has a regime for each.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss; of any sign. Its unit is that of gradient per param.
    **hyperparameters
        As in `iteration_matrix`.

    Returns
    -------
    str or ndarray of str
        What is so but for rounding errors, as ``critical``, is taken as so.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`.

    References
    ----------
    .. [1] Goh, G., "Why momentum really works", Distill, 2017, https://doi.org/10.23915/distill.00006

    Examples
    --------
    >>> from fast_momentum import theory
    >>> print(theory.regime(1.0, lr=[0.001, 0.5, 3.799, 3.9], momentum=0.9))
    ['overdamped' 'underdamped' 'alternating' 'divergent']
    """
    r = _iteration(curvature, hyperparameters)
    conditions = [r.radius > 1 + ROUNDING, r.discriminant == 0, r.discriminant < 0, r.mean <= 0]
    names = [REGIMES[4], REGIMES[1], REGIMES[2], REGIMES[3]]
    return plain(np.select(conditions, names, REGIMES[0]))


@explained
def period(curvature: ArrayLike, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return the steps of one oscillation::

        2*pi / angle of the complex roots        2 where the larger root is negative        inf where nothing swings

    Divergent runs swing or alternate, too.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss; of any sign. Its unit is that of gradient per param.
    **hyperparameters
        As in `iteration_matrix`.

    Returns
    -------
    float or ndarray
        In steps.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`.

    References
    ----------
    .. [1] O'Donoghue, B., Candes, E., "Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 15, 2015.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.period(1.0, lr=0.01, momentum=0.9), 1)
    71.3
    """
    r = _iteration(curvature, hyperparameters)
    angle = np.arctan2(np.sqrt(np.maximum(-r.discriminant, 0)), r.mean)
    with np.errstate(divide="ignore"):
        swinging = np.where(r.discriminant < 0, 2 * np.pi / angle, np.inf)
    return plain(np.where((r.discriminant >= 0) & (r.mean < 0), 2.0, swinging))


@explained
def trajectory(
    curvature: ArrayLike,
    steps: ArrayLike,
    *,
    start: ArrayLike = 1.0,
    **hyperparameters: Unpack[Hyperparameters],
) -> tuple[Any, Any]:
    """Return where a run from a fresh state is after so many steps, in closed form::

        R^(steps-1) @ (p, v) after the first step        R = iteration_matrix(curvature, ...)
        R^n = U(n)*R - det(R)*U(n-1)*I                   U(n) = (root1^n - root2^n) / (root1 - root2)

    At a double root ``U(n) = n*root^(n-1)``.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss ``curvature*p**2/2``; of any sign.
    steps : array_like of int
        0 or more.
    start : array_like of float, default 1.0
        The param before the first step.
    **hyperparameters
        As in `iteration_matrix`. All broadcast against each other.

    Returns
    -------
    param, velocity : float or ndarray
        In double precision; a run in float32 rounds at each step. Infinite or NaN where a divergent run has left the
        range of numbers.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or `steps` is not a count.

    References
    ----------
    .. [1] Williams, K. S., "The nth power of a 2x2 matrix", Mathematics Magazine 65, 1992.

    Examples
    --------
    The worked example theta**2 of many texts:

    >>> from fast_momentum import theory
    >>> param, velocity = theory.trajectory(2.0, [0, 1, 2, 3], start=5.0, lr=0.1, momentum=0.9, form="lr_inside")
    >>> print(param.round(9), velocity.round(9))
    [5.   4.   2.3  0.31] [0.   1.   1.7  1.99]
    """
    n = numbers("steps", steps, COUNT)
    p = numbers("start", start)
    bent = numbers("curvature", curvature)
    r = iteration(bent, rule(**hyperparameters))
    first = iteration(bent, rule(True, **hyperparameters))
    with np.errstate(over="ignore", invalid="ignore"):
        p1, v1 = first.a * p, first.c * p
        now, before = _powers(r, np.maximum(n - 1, 0)), _powers(r, np.maximum(n - 2, 0))
        rest = np.where(n >= 2, r.determinant * before, 0.0)
        param = now * (r.a * p1 + r.b * v1) - rest * p1
        velocity = now * (r.c * p1 + r.d * v1) - rest * v1
    beginning = [n == 0, n == 1]
    return (
        plain(np.select(beginning, np.broadcast_arrays(p, p1), param)),
        plain(np.select(beginning, np.broadcast_arrays(0.0, v1), velocity)),
    )


def _powers(r: Iteration, n: Array) -> Array:
    """``(root1^n - root2^n) / (root1 - root2)`` without cancellation."""
    square, mean = r.discriminant, r.mean
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        angle = np.arctan2(np.sqrt(np.maximum(-square, 0)), mean)
        swinging = np.sqrt(abs(r.determinant)) ** (n - 1) * np.sin(n * angle) / np.sin(angle)
        half = np.sqrt(np.maximum(square, 0))
        large = mean + np.copysign(half, mean)
        gap = np.where(large == 0, 1.0, 2 * half / abs(large))  # 1 - small/large, from 0 to 2
        close = -np.expm1(n * np.log1p(-np.minimum(gap, 0.5))) / gap
        apart = (1 - (1 - gap) ** n) / gap
        ratio = np.select([gap == 0, gap < 0.5], [n, close], apart)
        creeping = np.where(n == 0, 0.0, large ** np.maximum(n - 1, 0)) * ratio
    return np.where(square < 0, swinging, creeping)


@explained
def envelope(
    curvature: ArrayLike,
    steps: ArrayLike,
    *,
    start: ArrayLike = 1.0,
    **hyperparameters: Unpack[Hyperparameters],
) -> Any:
    """Return the curve that the swinging param of an underdamped run touches::

        amplitude * rate^steps

    with the amplitude and phase that fit the first two steps.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss ``curvature*p**2/2``; of any sign.
    steps : array_like of int
        0 or more. With dampening, the curve holds from step 1 on.
    start : array_like of float, default 1.0
        The param before the first step.
    **hyperparameters
        As in `iteration_matrix`. All broadcast against each other.

    Returns
    -------
    float or ndarray
        In the unit of `start`; NaN where the regime is not underdamped and nothing swings.

    Raises
    ------
    TypeError, ValueError
        As in `trajectory`.

    References
    ----------
    .. [1] Goh, G., "Why momentum really works", Distill, 2017, https://doi.org/10.23915/distill.00006

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.envelope(1.0, [0, 10, 20], lr=0.1, momentum=0.81).round(3)
    array([1.013, 0.353, 0.123])
    """
    n = numbers("steps", steps, COUNT)
    r = _iteration(curvature, hyperparameters)
    p1, _ = trajectory(curvature, 1, start=start, **hyperparameters)
    p2, _ = trajectory(curvature, 2, start=start, **hyperparameters)
    with np.errstate(divide="ignore", invalid="ignore"):
        swing = np.sqrt(np.where(r.discriminant < 0, -r.discriminant, np.nan))
        amplitude = np.hypot(p1, (p2 - r.mean * p1) / swing)
        return plain(amplitude * r.radius ** (n - 1))


@explained
def stability_limit(curvature: ArrayLike, **hyperparameters: Unpack[Settings]) -> Any:
    """Return the lr from which on the iteration does not converge::

        heavy ball            2*(1 + m) / l            Nesterov            2*(1 + m) / ((1 + 2*m)*l)
        heavy ball, ema       2*(1 + m) / ((1 - m)*l)  Nesterov, ema       2*(1 + m) / ((1 - m)*(1 + 2*m)*l)
        dampening t           2*(1 + m) / ((1 - t)*l)

    without decay, with m = momentum and l = `curvature`; the forms lr_outside and lr_inside have the same. It is
    found from the constants of the rule: there a root is -1.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss, 0 or above; the largest one decides. With maximize, 0 or below.
    **hyperparameters
        As in `iteration_matrix`, but lr.

    Returns
    -------
    float or ndarray
        The learning rate at the limit; inf where there is none.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or the curvature is that of a maximum, at which no lr converges.

    References
    ----------
    .. [1] Polyak, B. T., "Introduction to Optimization", 1987, chapter 3, for the heavy ball.
    .. [2] Lessard, L., Recht, B., Packard, A., "Analysis and design of optimization algorithms via integral quadratic
       constraints", SIAM J. Optim. 26, 2016, for the matrix of Nesterov's method.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.stability_limit(1.0, momentum=0.9), 3)
    3.8
    >>> round(theory.stability_limit(1.0, momentum=0.9, nesterov=True), 3)
    1.357
    """
    if "lr" in hyperparameters:
        msg = "stability_limit() must be called without lr, which it returns"
        raise TypeError(msg)
    bent = numbers("curvature", curvature)
    r = iteration(bent, rule(lr=1.0, **hyperparameters))
    words = "be <= 0 where maximize is True" if hyperparameters.get("maximize", False) else "be >= 0"
    words += ", if no decay outweighs it, as no lr converges otherwise"
    require("curvature", bent, words, r.at_one >= 0)
    with np.errstate(divide="ignore"):
        return plain(2 * (1 + r.d) / r.fall)


@explained
def critical_momentum(
    curvature: ArrayLike,
    *,
    lr: ArrayLike,
    dampening: ArrayLike = 0.0,
    nesterov: bool = False,
    form: str = "lr_outside",
) -> Any:
    """Return the momentum at which both roots are the same, and the rate is the smallest that this lr allows::

        heavy ball        (1 - sqrt(s))^2                       for s < 4
        Nesterov          (1 - sqrt(s)) / (1 + sqrt(s))         for s <= 1
        heavy ball, ema   ((1 - a) / (1 + a))^2
        Nesterov, ema     2*(1 - a) / (1 + 2*a + sqrt(1 + 8*a))   for a <= 1

    with ``s = lr*(1-dampening)*curvature`` and ``a = lr*curvature``; in ema, s has a factor ``1 - momentum``. Above it
    the iterates swing; below it they creep, or, where s (in ema a) is above 1, alternate or diverge (`stability_limit`).

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss, >= 0. Its unit is that of gradient per param.
    lr, dampening : array_like of float
        As in `fast_momentum.init`, without decay. All broadcast.
    nesterov, form
        As in `fast_momentum.init`.

    Returns
    -------
    float or ndarray
        NaN where no momentum is critical.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`, or the curvature is negative.

    References
    ----------
    .. [1] Goh, G., "Why momentum really works", Distill, 2017, https://doi.org/10.23915/distill.00006

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.critical_momentum(1.0, lr=[0.01, 0.25]).round(9)
    array([0.81, 0.25])
    """
    t = numbers("dampening", dampening, DAMPENING)
    check_dampening(t, flag("nesterov", nesterov), form_name(form))
    s = numbers("lr", lr, NOT_NEGATIVE) * (1 - t) * numbers("curvature", curvature, NOT_NEGATIVE)
    root = np.sqrt(s)
    if form == "ema":
        found = 2 * (1 - s) / (1 + 2 * s + np.sqrt(1 + 8 * s)) if nesterov else ((1 - s) / (1 + s)) ** 2
    else:
        found = (1 - root) / (1 + root) if nesterov else (1 - root) ** 2
    exists = s <= 1 if nesterov else (s < 4) | (form == "ema")
    return plain(np.where(exists, found, np.nan))
