"""The momentum step in plain NumPy: the executable specification.

`update` is the definition, and the kernels equal it bit for bit. The rest walks containers and keeps state.
This module imports NumPy alone, shares no code with the kernels, and takes good input for granted: it is
`fast_momentum.init` and `fast_momentum.step` that refuse what is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["State", "init", "lookahead", "step", "update"]

HYPERPARAMETERS = (
    "lr",
    "momentum",
    "dampening",
    "nesterov",
    "weight_decay",
    "decoupled_weight_decay",
    "maximize",
)


def update(
    param: NDArray[Any],
    grad: NDArray[Any],
    velocity: NDArray[Any],
    *,
    first: bool,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    decoupled_weight_decay: bool,
    maximize: bool,
    form: str,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the new `(param, velocity)` of one array; nothing is modified.

    With ``d`` the gradient, negated if `maximize`, plus ``weight_decay*param`` if the decay is coupled::

        lr_outside   v = momentum*v + (1-dampening)*d     u = d + momentum*v               p = p - lr*u
        lr_inside    v = momentum*v + lr*d                u = lr*d + momentum*v            p = p - u
        ema          v = momentum*v + (1-momentum)*d      u = (1-momentum)*d + momentum*v  p = p - lr*u

    ``u`` is ``v`` unless `nesterov`. The first step of an array in lr_outside is ``v = 0*v + d``. Decoupled
    decay makes the last line ``p = p - (lr*u + lr*weight_decay*p)``. Each operation rounds once to the dtype
    of `param`; constants are formed in double and rounded once.

    Parameters
    ----------
    param, grad, velocity : ndarray
        Of one shape and one dtype, float32 or float64.
    first : bool
        Whether this is the first step of this array.
    lr, momentum, dampening, nesterov, weight_decay, decoupled_weight_decay, maximize, form
        As in `fast_momentum.init`, a number or flag for this array.

    Returns
    -------
    param, velocity : ndarray
        New arrays (scalars where `param` is 0-d).

    Examples
    --------
    The worked example J = theta**2 of many texts: theta goes from 5 to 4, the velocity from 0 to 1.

    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> theta = np.array([5.0])
    >>> theta, v = reference.update(theta, 2 * theta, np.zeros(1), first=True, lr=0.1, momentum=0.9,
    ...     dampening=0, nesterov=False, weight_decay=0, decoupled_weight_decay=False, maximize=False,
    ...     form="lr_inside")
    >>> print(theta, v)
    [4.] [1.]
    """
    rounded = param.dtype.type
    m = rounded(momentum)
    with np.errstate(all="ignore"):
        d = -grad if maximize else grad
        if weight_decay != 0 and not decoupled_weight_decay:
            d = d + rounded(weight_decay) * param

        if form == "lr_outside":
            v = rounded(0) * velocity + d if first else m * velocity + rounded(1 - dampening) * d
            u = d + m * v if nesterov else v
            displacement = rounded(lr) * u
        elif form == "lr_inside":
            v = m * velocity + rounded(lr) * d
            displacement = rounded(lr) * d + m * v if nesterov else v
        else:
            v = m * velocity + rounded(1 - momentum) * d
            u = rounded(1 - momentum) * d + m * v if nesterov else v
            displacement = rounded(lr) * u

        if weight_decay != 0 and decoupled_weight_decay:
            displacement = displacement + rounded(lr * weight_decay) * param
        return param - displacement, v


class State:
    """Hyperparameters, velocities and counters, with the attributes of `fast_momentum.State`.

    Formula, shapes and meaning are those of `init`; here the velocities are writable.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> state = reference.init([np.zeros(2)], lr=0.1)
    >>> state.lr, state.step_count, state.velocity
    (0.1, 0, [array([0., 0.])])
    """

    lr: Any
    momentum: Any
    dampening: Any
    nesterov: bool
    weight_decay: Any
    decoupled_weight_decay: bool
    maximize: bool

    def __init__(self, velocity: Any, form: str, **hyperparameters: Any) -> None:
        self.velocity = velocity
        self.form = form
        self.step_count = 0
        self.started = {keys: False for keys, _ in _leaves(velocity)}
        for name in HYPERPARAMETERS:
            setattr(self, name, hyperparameters[name])

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything, in the layout of `fast_momentum.State.state_dict`.

        Examples
        --------
        >>> import numpy as np
        >>> from fast_momentum import reference
        >>> reference.init({"w": np.zeros(2)}, lr=0.1).state_dict()["velocity"]
        {"['w']": array([0., 0.])}
        """
        return {
            "format": 1,
            "form": self.form,
            "step_count": self.step_count,
            "hyperparameters": {name: _map(_plain, getattr(self, name)) for name in HYPERPARAMETERS},
            "velocity": {_path(keys): v.copy() for keys, v in _leaves(self.velocity)},
            "started": {_path(keys): started for keys, started in self.started.items()},
        }


def init(
    params: Any,
    *,
    lr: Any,
    momentum: Any = 0.9,
    dampening: Any = 0.0,
    nesterov: bool = False,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    form: str = "lr_outside",
) -> State:
    """Return a `State` with one zero velocity per array of `params`; see `fast_momentum.init`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> reference.init(np.ones(3), lr=0.1, form="ema").velocity
    array([0., 0., 0.])
    """
    return State(
        _map(np.zeros_like, params),
        form,
        lr=lr,
        momentum=momentum,
        dampening=dampening,
        nesterov=nesterov,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
    )


def step(params: Any, grads: Any, state: State) -> None:
    """Update `params` and `state` in place by one step of `update` per array; see `fast_momentum.step`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(3)
    >>> reference.step(w, np.ones(3), reference.init(w, lr=0.1))
    >>> w
    array([0.9, 0.9, 0.9])
    """
    for keys, param in _leaves(params):
        grad = _at(grads, keys)
        if grad is None:
            continue
        velocity = _at(state.velocity, keys)
        hyperparameters = {name: _plain(_at(getattr(state, name), keys)) for name in HYPERPARAMETERS}
        new = update(param, grad, velocity, first=not state.started[keys], form=state.form, **hyperparameters)
        param[...], velocity[...] = new
        state.started[keys] = True
    state.step_count += 1


def lookahead(params: Any, state: State, out: Any = None) -> Any:
    """Return ``p - c*v``, c = lr*momentum (momentum in lr_inside); see `fast_momentum.lookahead`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> state = reference.init(w, lr=0.5, momentum=0.5)
    >>> reference.step(w, np.ones(2), state)
    >>> reference.lookahead(w, state)
    array([0.25, 0.25])
    """
    out = _map(np.empty_like, params) if out is None else out
    for keys, param in _leaves(params):
        c = float(_at(state.momentum, keys))
        if state.form != "lr_inside":
            c *= float(_at(state.lr, keys))
        with np.errstate(all="ignore"):
            _at(out, keys)[...] = param - param.dtype.type(c) * _at(state.velocity, keys)
    return out


def _plain(value: Any) -> Any:
    """A flag as bool, a number through `float()`: NumPy's own scalars would widen the arithmetic."""
    return bool(value) if isinstance(value, (bool, np.bool_)) else float(value)


def _leaves(tree: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """The arrays of `tree`, each with the keys and indices that lead to it."""
    if isinstance(tree, dict):
        for key, branch in tree.items():
            yield from _leaves(branch, (*keys, key))
    elif isinstance(tree, (list, tuple)):
        for index, branch in enumerate(tree):
            yield from _leaves(branch, (*keys, index))
    else:
        yield keys, tree


def _at(tree: Any, keys: tuple[Any, ...]) -> Any:
    """The item of `tree` at `keys`; in a prefix, a number stands for everything below it."""
    for key in keys:
        if not isinstance(tree, (dict, list, tuple)):
            return tree
        tree = tree[key]
    return tree


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same containers with `function` applied to each leaf."""
    if isinstance(tree, dict):
        return {key: _map(function, branch) for key, branch in tree.items()}
    if isinstance(tree, (list, tuple)):
        branches = [_map(function, branch) for branch in tree]
        return branches if isinstance(tree, list) else tuple(branches)
    return function(tree)


def _path(keys: tuple[Any, ...]) -> str:
    return "".join(f"[{key!r}]" for key in keys)
