"""The calls of `autograd.misc.optimizers`, and a step that is handed the gradient function.

Nothing of autograd is imported: the gradient function is the caller's, made by `autograd.grad` or by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum._containers import mapped

if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[Any, int, Any], object]

__all__ = ["adam", "rmsprop", "sgd", "step"]


def sgd(
    grad: Callable[[Any, int], Any],
    x0: Any,
    callback: Callback | None = None,
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
        that are stepped in place, so it must not keep, return or write them. Of complex arrays it has to return
        ``df/dx + i df/dy``, the conjugate of what ``autograd.grad`` makes.
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
    return _minimised(grad, params, state, callback, num_iters, lookahead=lookahead)


def adam(
    grad: Callable[[Any, int], Any],
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Any:
    """Minimise as `autograd.misc.optimizers.adam` does, without flattening: the form ``corrected``.

    Iteration ``t``, from 1, computes::

        m = b1*m + (1 - b1)*g
        s = b2*s + (1 - b2)*g*g
        x = x - step_size/(1 - b1**t)*m / (sqrt(s)/sqrt(1 - b2**t) + eps)

    Parameters
    ----------
    grad, x0, callback
        As for `sgd`.
    num_iters : int, default 100
        Number of iterations.
    step_size : float, default 0.001
        At least 0.
    b1, b2 : float, default 0.9 and 0.999
        beta1 and beta2, in [0, 1).
    eps : float, default 1e-8
        At least 0.

    Returns
    -------
    array, or list, tuple or dict
        The structure of `x0`, with new arrays.

    Raises
    ------
    TypeError, ValueError
        As `fast_momentum.adam` and `fast_momentum.step`; or if `x0` is being differentiated.

    Notes
    -----
    autograd divides both moments by their corrections, element by element. Here they are in the constants, so each step
    agrees to a few roundings of what it takes from the parameters, and not bit for bit. Complex arrays are stepped as
    pairs of reals; autograd has complex squares of complex gradients, and divides by their root.

    References
    ----------
    D. P. Kingma and J. Ba, Adam: a method for stochastic optimization, ICLR 2015.

    Examples
    --------
    >>> from fast_momentum.adapters import autograd
    >>> autograd.adam(lambda x, i: {"w": 2 * x["w"] - 6}, {"w": 0.0}, step_size=0.1)["w"].round(2)
    np.float64(2.98)
    """
    params = mapped(_parameter, x0)
    state = fm.adam(params, lr=step_size, beta1=b1, beta2=b2, eps=eps)
    return _minimised(grad, params, state, callback, num_iters)


def rmsprop(
    grad: Callable[[Any, int], Any],
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.1,
    gamma: float = 0.9,
    eps: float = 1e-8,
) -> Any:
    """Minimise as `autograd.misc.optimizers.rmsprop` does, without flattening: the form ``lr_outside``.

    With ``s`` that begins with ones, each iteration computes::

        s = gamma*s + (1 - gamma)*g*g
        x = x - step_size*(g / (sqrt(s) + eps))

    Parameters
    ----------
    grad, x0, callback
        As for `sgd`.
    num_iters : int, default 100
        Number of iterations.
    step_size : float, default 0.1
        At least 0.
    gamma : float, default 0.9
        rho, in [0, 1).
    eps : float, default 1e-8
        At least 0.

    Returns
    -------
    array, or list, tuple or dict
        The structure of `x0`, with new arrays.

    Raises
    ------
    TypeError, ValueError
        As `fast_momentum.rmsprop` and `fast_momentum.step`; or if `x0` is being differentiated.

    Notes
    -----
    autograd multiplies by `step_size` before it divides, so each step agrees to the rounding of what it takes from the
    parameters, and not bit for bit. Complex arrays as in `adam`.

    References
    ----------
    T. Tieleman and G. Hinton, RMSProp: divide the gradient by a running average of its recent magnitude, lecture 6.5,
    2012.

    Examples
    --------
    >>> from fast_momentum.adapters import autograd
    >>> autograd.rmsprop(lambda x, i: {"w": 2 * x["w"] - 6}, {"w": 0.0}, num_iters=50)["w"].round(2)
    np.float64(3.0)
    """
    params = mapped(_parameter, x0)
    state = fm.rmsprop(params, lr=step_size, rho=gamma, eps=eps)
    saved = state.state_dict()
    for path, second_moment in saved["second_moment"].items():
        second_moment[...], saved["steps"][path] = 1 + 1j if np.iscomplexobj(second_moment) else 1, 1
    state.load_state_dict(saved)
    return _minimised(grad, params, state, callback, num_iters)


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


def _minimised(
    grad: Callable[[Any, int], Any],
    params: Any,
    state: fm.State,
    callback: Callback | None,
    num_iters: int,
    *,
    lookahead: bool = False,
) -> Any:
    point = fm.lookahead(params, state) if lookahead else params
    for i in range(num_iters):
        if lookahead:
            fm.lookahead(params, state, out=point)
        g = _gradients(grad(point, i))
        if callback:
            callback(mapped(np.copy, params), i, g)
        fm.step(params, g, state)
    return params


def _parameter(leaf: Any) -> Any:
    array = np.array(leaf)
    if array.dtype == object:
        msg = (
            f"x0 must have numbers, not {type(leaf).__name__}; autograd.misc.optimizers can be differentiated, "
            "a step in place cannot"
        )
        raise TypeError(msg)
    return array.astype(np.float64) if array.dtype.kind in "biu" else array


def _gradients(tree: Any) -> Any:
    """The gradient of an array without dimensions may be a number of Python."""
    return mapped(lambda leaf: np.asarray(leaf) if isinstance(leaf, (float, complex)) else leaf, tree)
