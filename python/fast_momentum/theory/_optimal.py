"""The best hyperparameters for a range of curvatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._keywords import explained
from ._conversion import convert
from ._inputs import choice, curvature_range, plain
from ._rule import form_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from ._rule import Array


class Tuning(NamedTuple):
    """Hyperparameters, and the rate that they reach on a quadratic; from `optimal`."""

    lr: Any
    momentum: Any
    nesterov: bool
    rate: Any


def _gradient_descent(low: Array, high: Array) -> tuple[Array, Array, Array]:
    return 2 / (low + high), np.zeros_like(low), (high - low) / (high + low)


def _heavy_ball(low: Array, high: Array) -> tuple[Array, Array, Array]:
    root = (np.sqrt(high) - np.sqrt(low)) / (np.sqrt(high) + np.sqrt(low))
    return (2 / (np.sqrt(low) + np.sqrt(high))) ** 2, root**2, root


def _nesterov(low: Array, high: Array) -> tuple[Array, Array, Array]:
    root = np.sqrt(low / high)
    return 1 / high, (1 - root) / (1 + root), 1 - root


def _nesterov_quadratic(low: Array, high: Array) -> tuple[Array, Array, Array]:
    root = np.sqrt(3 * (high / low) + 1)
    return 4 / (3 * high + low), (root - 2) / (root + 2), 1 - 2 / root


METHODS: dict[str, Callable[[Array, Array], tuple[Array, Array, Array]]] = {
    "gradient_descent": _gradient_descent,
    "heavy_ball": _heavy_ball,
    "nesterov": _nesterov,
    "nesterov_quadratic": _nesterov_quadratic,
}


@explained
def optimal(
    l_min: ArrayLike, l_max: ArrayLike, *, method: str = "heavy_ball", form: str = "lr_outside"
) -> Tuning:
    """Return hyperparameters for curvatures from `l_min` to `l_max`, and their rate on quadratics::

        method               lr                                   momentum                           rate
        gradient_descent     2/(l_min + l_max)                    0                                  (k - 1)/(k + 1)
        heavy_ball           (2/(sqrt(l_min) + sqrt(l_max)))^2    rate^2              (sqrt(k) - 1)/(sqrt(k) + 1)
        nesterov             1/l_max                              (sqrt(k) - 1)/(sqrt(k) + 1)        1 - 1/sqrt(k)
        nesterov_quadratic   4/(3*l_max + l_min)                  (sqrt(3k+1) - 2)/(sqrt(3k+1) + 2)  1 - 2/sqrt(3k+1)

    with ``k = l_max/l_min``. These are rates in the long run, and the smallest of their method but for those of ``nesterov``:
    its constants are made for all smooth, strongly convex functions, where the distance is guaranteed to shrink to
    ``sqrt(1 - 1/sqrt(k))`` per step [3]_, up to a constant factor. Gradient descent has the same rate there as on quadratics;
    the heavy ball can fail to converge [2]_, and whatever its constants it is not faster than gradient descent by more than a
    constant factor on all of these functions [4]_.

    Parameters
    ----------
    l_min, l_max : array_like of float
        Smallest and largest curvature of the loss, ``0 < l_min <= l_max``. They broadcast.
    method : {'heavy_ball', 'gradient_descent', 'nesterov', 'nesterov_quadratic'}, default 'heavy_ball'
        The Nesterov methods want ``nesterov=True``.
    form : {'lr_outside', 'lr_inside', 'ema'}, default 'lr_outside'
        For which lr is given.

    Returns
    -------
    Tuning
        A named tuple (lr, momentum, nesterov, rate). Where ``l_min = l_max``, momentum is 0 and nesterov False.

    Raises
    ------
    TypeError, ValueError
        A curvature is not a positive number, `l_max` is below `l_min` or more than 1e30 times it, or a name is unknown.

    References
    ----------
    .. [1] Polyak, B. T., "Some methods of speeding up the convergence of iteration methods", 1964.
    .. [2] Lessard, L., Recht, B., Packard, A., "Analysis and design of optimization algorithms via integral quadratic
       constraints", SIAM J. Optim. 26, 2016; its Proposition 1 has the two Nesterov methods.
    .. [3] Nesterov, Y., "Introductory Lectures on Convex Optimization", 2004, section 2.2.
    .. [4] Goujaud, B., Taylor, A., Dieuleveut, A., "Provable non-accelerations of the heavy-ball method", 2023.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> best = theory.optimal(1, 100)
    >>> round(best.lr, 4), round(best.momentum, 4), round(best.rate, 4)
    (0.0331, 0.6694, 0.8182)
    >>> round(theory.optimal(1, 100, method="gradient_descent").rate, 4)
    0.9802
    """
    low, high = curvature_range(l_min, l_max)
    lr, momentum, rate = METHODS[choice("method", method, tuple(METHODS))](low, high)
    lr = convert(form_name(form), lr=lr, momentum=momentum)["lr"]
    nesterov = method.startswith("nesterov") and bool((momentum > 0).any())
    return Tuning(plain(lr), plain(momentum), nesterov, plain(rate))
