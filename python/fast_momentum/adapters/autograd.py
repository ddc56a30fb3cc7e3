"""The call of `autograd.misc.optimizers.sgd`, and a step that is handed the gradient function.

Nothing of autograd is imported: the gradient function is the caller's, made by `autograd.grad` or by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum._containers import mapped

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["sgd", "step"]


def sgd(
    grad: Callable[[Any, int], Any],
    x0: Any,
    callback: Callable[[Any, int, Any], object] | None = None,
    num_iters: int = 200,
    step_size: float = 0.1,
    mass: float = 0.9,
    *,
    lookahead: bool = False,
) -> Any:
    """Minimise as `autograd.misc.optimizers.sgd` does, without flattening: the form ``ema``.

    Each iteration computes::

        v = mass*v + (1 - mass)*g
        x = x - step_size*v

    Parameters
    ----------
    grad : callable
        ``grad(x, i)``: the gradient at `x`, with its structure, in iteration ``i`` from 0. It is handed the arrays
        that are stepped in place, so it must not keep, return or write them.
    x0 : array_like, number, or list, tuple or dict of them, nested
        Where to begin; not changed. Integers become float64, and numbers arrays without dimensions.
    callback : callable, optional
        ``callback(x, i, g)``, before each step. Its `x` is a copy, to keep.
    num_iters : int, default 200
        Number of iterations.
    step_size : float, default 0.1
        At least 0.
    mass : float, default 0.9
        The momentum, in [0, 1).
    lookahead : bool, default False
        Take the gradient where Nesterov's original form does, as `step` does.

    Returns
    -------
    array, or list, tuple or dict
        The structure of `x0`, with new arrays.

    Raises
    ------
    TypeError, ValueError
        As `fast_momentum.init` and `fast_momentum.step`; or if `x0` is being differentiated.

    Notes
    -----
    In float64 the result is that of autograd, bit for bit. Float32 arrays are stepped in float32, where autograd steps
    in float64.

    References
    ----------
    D. Maclaurin, D. Duvenaud and R. P. Adams, Autograd: effortless gradients in NumPy, 2015.

    Examples
    --------
    >>> from fast_momentum.adapters import autograd
    >>> autograd.sgd(lambda x, i: {"w": 2 * x["w"] - 6}, {"w": 0.0}, num_iters=100)["w"].round(2)
    np.float64(2.99)
    """
    params = mapped(_parameter, x0)
    state = fm.init(params, lr=step_size, momentum=mass, form="ema")
    point = fm.lookahead(params, state) if lookahead else params
    for i in range(num_iters):
        if lookahead:
            fm.lookahead(params, state, out=point)
        g = _gradients(grad(point, i))
        if callback:
            callback(mapped(np.copy, params), i, g)
        fm.step(params, g, state)
    return params


def step(gradient: Callable[..., Any], params: Any, state: fm.State, *args: Any) -> Any:
    """Make one step of Nesterov's original form: the gradient is taken ahead of the parameters.

    With `c` as in `fast_momentum.lookahead`::

        g = gradient(params - c*velocity, *args)
        fast_momentum.step(params, g, state)

    Parameters
    ----------
    gradient : callable
        ``gradient(point, *args)``: the gradient at `point`, with the structure of `params`.
    params : array, or list, tuple or dict of them, nested
        Updated in place.
    state : fast_momentum.State
        From `fast_momentum.init`, with ``nesterov=False``, in any form. Updated in place.
    *args
        Handed on: a batch, the number of the iteration.

    Returns
    -------
    array, or list, tuple or dict
        The gradient.

    Raises
    ------
    TypeError, ValueError
        As `fast_momentum.lookahead` and `fast_momentum.step`.

    References
    ----------
    Y. Nesterov, A method for solving the convex programming problem with convergence rate O(1/k^2), 1983.

    Examples
    --------
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> from fast_momentum.adapters import autograd
    >>> x = np.array([1.0])
    >>> state = fm.init(x, lr=0.25, momentum=0.5)
    >>> for _ in range(3):
    ...     g = autograd.step(lambda x: 2 * x, x, state)
    >>> x, g
    (array([-0.03125]), array([-0.125]))
    """
    g = _gradients(gradient(fm.lookahead(params, state), *args))
    fm.step(params, g, state)
    return g


def _parameter(leaf: Any) -> Any:
    array = np.array(leaf)
    if array.dtype == object:
        msg = (
            f"x0 must have numbers, not {type(leaf).__name__}; autograd.misc.optimizers.sgd can be differentiated, "
            "a step in place cannot"
        )
        raise TypeError(msg)
    return array.astype(np.float64) if array.dtype.kind in "biu" else array


def _gradients(tree: Any) -> Any:
    """The gradient of an array without dimensions may be a float."""
    return mapped(lambda leaf: np.asarray(leaf) if isinstance(leaf, float) else leaf, tree)
