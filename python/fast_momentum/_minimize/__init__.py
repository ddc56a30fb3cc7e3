"""`minimize`, in the manner of `scipy.optimize.minimize`."""

from __future__ import annotations

import inspect
import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._containers import as_dict, leaves
from .._keywords import refused
from ..theory._inputs import flag, one
from ..tuning._checks import NOT_NEGATIVE, function, whole
from ._bounds import Box
from ._function import Function
from ._result import CONVERGED, MAXITER, OptimizeResult
from ._run import NoisyRun, ProximalRun, Run, average_decay_of, copied, driven
from ._tuners import tuner_of
from ._watch import bar, caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .._core import State

__all__ = ["OptimizeResult", "minimize"]

# SciPy's gtol, and as many steps as no impatient user waits for.
TOL, STEPS = 1e-5, 10_000

# What the loop has to know, and what would be at odds with it.
LEFT_OUT = {
    "lower": "give bounds",
    "upper": "give bounds",
    "maximize": "negate fun and its gradient",
    "nonfinite": "what is not finite ends the run, and the best point before is returned",
    "weight_decay": "add it to fun and its gradient",
}


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    *,
    args: Any = (),
    jac: Any = True,
    bounds: Any = None,
    tol: float | None = None,
    callback: Callable[..., object] | None = None,
    options: Mapping[str, Any] | None = None,
    rule: Callable[..., State] | None = None,
    lr: Any = None,
    maxiter: int | None = None,
    noisy: bool = False,
    prox: Callable[[Any], object] | None = None,
    disp: bool = False,
    hess: Any = None,
    hessp: Any = None,
    constraints: Any = (),
    **hyperparameters: Any,
) -> OptimizeResult:
    """Minimise a function of arrays, and return what `scipy.optimize.minimize` would; or be a method of that.

    params = x0;  repeat: value, grads = fun(params);  step(params, grads, state)

    It is for functions that are large, or smooth with a proximal part, or noisy, and whose gradient costs no more than
    a few values. On small smooth problems, L-BFGS takes fewer evaluations and less time; docs/howto/minimize.md has
    measurements.

    Parameters
    ----------
    fun : callable
        ``fun(params, *args)`` returns the value, a real number, and the gradient, arrays like `params`. It must neither
        keep nor change `params`, which the next step changes in place.
    x0 : array_like, or nested list, tuple, dict or dataclass of arrays
        The start, within `bounds`. It is copied and not modified; `fun` gets the containers that it comes in.
        Where it is no array, numbers are made an array of float64.
    args : tuple
        More arguments for `fun` and `jac`. One that is no tuple is one argument.
    jac : True, callable, None or '2-point', default True
        True: `fun` returns the gradient, too. A function: ``jac(params, *args)`` does. None, False or '2-point': forward
        differences, one more value for each real number at each step, for small problems alone.
    bounds : optional
        SciPy's ``Bounds``; a pair (lower, upper) of numbers, arrays of the shape of x0, or prefixes of its containers,
        None for no limit; or, for a vector, a pair for each element. Of a vector of two elements, two lists or tuples of
        two are pairs, and two arrays are lower and upper. `fun` is called within the bounds alone, but for
        differences. Limits that differ within an array need the rule `accelerated`.
    tol : float, default 1e-5
        It ends when no element of the gradient is larger in modulus: ``max|g|``, which SciPy calls gtol. With bounds it is
        ``max|p - clip(p - g)|``, as in L-BFGS-B, and with `prox` or l1 ``max|p - iterate|/lr``. There is no test of the
        value: with momentum it may rise and fall again. In float32, rounding may leave more than this of the gradient.
    callback : callable, optional
        Called after each step, ``callback(intermediate_result)`` with x, fun and nit if its parameter has that name, else
        ``callback(x)``; x is a copy. StopIteration ends the run. With `prox` or l1, this costs one more evaluation each.
    options : dict, optional
        More of these keywords, as SciPy hands them over.
    rule : callable, optional
        ``rule(params, lr=..., **hyperparameters)`` makes a `State`: `init`, `accelerated`, `adam` and so on. None is
        `accelerated` with sequence 'nesterov' and restart 'gradient', and `init` if `noisy`.
    lr : float, prefix or callable, optional
        A callable is a schedule, ``lr(step_count)``. None: for `accelerated` 1/l_max, where l_max is the largest curvature
        of a `tuning.CurvatureWindow` of 3 steps, or twice the lr of the last step as long as that is 0; for `init` what
        `tuning.AutoTuner` sets. Other rules need one, and so do float16 and bfloat16.
    maxiter : int, default 10000
        Steps at most.
    noisy : bool, default False
        Whether `fun` draws samples. Then the answer is the last point, or with `average_decay` the average, and all of
        maxiter steps are made. Otherwise it is the point with the lowest value that was met, or, with `prox` or l1, the
        iterate of the step with the least ``max|p - iterate|/lr``.
    prox : callable, optional
        The proximal map of ``lr`` times the part of the objective that is not in `fun`, in place; see `step`. With lr=None,
        lr changes at each step: then the map must not depend on it, as a projection does not. For any other, give lr.
    disp : bool, default False
        Print the message at the end, and show a bar on standard error if rich is installed (extra ``progress``).
    hess, hessp, constraints : None, None, ()
        Which SciPy hands over; nothing else is accepted.
    **hyperparameters
        The other keywords of the rule, such as ``momentum`` or ``l1``.

    Returns
    -------
    OptimizeResult
        A dict with attributes, of SciPy's names: ``x``, in the containers of x0; ``fun`` and ``jac``, value and gradient
        there, without what `prox` and l1 add; ``nit`` steps, ``nfev`` values and ``njev`` gradients; ``success``, ``status``
        and ``message``. The status is 0 where tol is reached, 1 after maxiter steps, 2 where something was not
        finite, 99 after StopIteration and 130 after KeyboardInterrupt. In all cases x is the best point so far;
        if `fun` is not finite at x0, it is x0.

    Raises
    ------
    TypeError, ValueError
        Before `fun` is called: an argument is of another kind or out of its range, x0 is not within bounds, two do not go
        together; what `rule` raises. After that: what `fun` returns is no real number, or no gradient like x0.

    Notes
    -----
    Memory, beside what `fun` needs: copies of x0 for the current point and the best two, the gradient there, and what the
    state keeps. With lr=None also 8 copies for `accelerated` and 23 for `init`.

    References
    ----------
    A. Beck and M. Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems, 2009.
    B. O'Donoghue and E. Candes, Adaptive Restart for Accelerated Gradient Schemes, 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> def fun(params):
    ...     error = {"w": params["w"] - 1, "b": 10 * (params["b"] + 2)}
    ...     return sum(float(e @ e) for e in error.values()) / 2, {"w": error["w"], "b": 10 * error["b"]}
    >>> result = fm.minimize(fun, {"w": np.zeros(3), "b": np.zeros(2)})
    >>> result.success, result.x["w"].round(4).tolist(), result.x["b"].round(4).tolist()
    (True, [1.0, 1.0, 1.0], [-2.0, -2.0])
    """
    if options:
        return minimize(fun, x0, **_merged(locals()))
    _check_unused(hess, hessp, constraints)
    called = Function(fun, jac, args)
    params = _start(x0)
    box = None if bounds is None else Box(bounds, params)
    limit = _limit(tol, flag("noisy", noisy))
    steps = STEPS if maxiter is None else whole("maxiter", maxiter, 0)
    tell = caller(callback)
    state = _made(rule, lr, params, box, noisy, hyperparameters)
    is_proximal = _check_prox(state, prox, box, noisy)
    if box and not box.is_plain:
        prox = box.project
    kind = NoisyRun if noisy else ProximalRun if is_proximal else Run
    run = kind(called, params, state, tuner_of(state, lr, params), box, prox, limit)
    with bar(steps, flag("disp", disp)) as show:
        status, message = driven(run, steps, lambda run: (show(run), tell(run)))
    best = run.best()
    result = OptimizeResult(
        message=message,
        success=status == CONVERGED or (noisy and status == MAXITER),
        status=status,
        fun=best.value,
        x=best.params,
        nit=run.nit,
        jac=best.grads,
        nfev=called.nfev,
        njev=called.njev,
    )
    if disp:
        print(f"{message}\n{result.nit} steps, {result.nfev} values, fun {result.fun!r}")
    return result


def _merged(keywords: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a call with its options among them."""
    del keywords["fun"], keywords["x0"]
    options, more = keywords.pop("options"), keywords.pop("hyperparameters")
    for name in options:
        if name in more or keywords.get(name) is not _DEFAULTS.get(name):
            msg = f"{name} must be given once, not as a keyword and in options"
            raise TypeError(msg)
    return {**keywords, **more, **options}


def _check_unused(hess: Any, hessp: Any, constraints: Any) -> None:
    """What SciPy hands to every method."""
    for name, value in (("hess", hess), ("hessp", hessp)):
        if value is not None:
            msg = (
                f"{name} must be None, as no Hessian is used; method='trust-krylov' of scipy.optimize uses it"
            )
            raise ValueError(msg)
    if not isinstance(constraints, (tuple, list)) or len(constraints):
        msg = (
            "constraints must be (), as there are bounds and prox alone; project by prox, or take method='SLSQP' or "
            "'trust-constr' of scipy.optimize"
        )
        raise ValueError(msg)


def _start(x0: Any) -> Any:
    """A copy of `x0`, which may be numbers where it is to be one array."""
    found = list(leaves(x0))
    if as_dict(x0) is not None or any(keys and isinstance(leaf, np.ndarray) for keys, leaf in found):
        return copied(x0)
    array = np.array(x0, order="C")
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def _limit(tol: Any, noisy: bool) -> float:
    if not noisy:
        return TOL if tol is None else one("tol", tol, NOT_NEGATIVE)
    if tol is not None:
        msg = f"tol must be None with noisy, not {tol!r}, as the gradient of a sample does not vanish; give maxiter"
        raise ValueError(msg)
    return -math.inf


def _made(
    rule: Any, lr: Any, params: Any, box: Box | None, noisy: bool, hyperparameters: dict[str, Any]
) -> State:
    """The state, of the rule that fits where none is given."""
    for name, way_out in LEFT_OUT.items():
        if name in hyperparameters:
            msg = f"{name} must not be given to minimize; {way_out}"
            raise TypeError(msg)
    _check_names(rule or (_core.init if noisy else _core.accelerated), hyperparameters)
    if rule is None:
        rule = _core.init if noisy else partial(_core.accelerated, sequence="nesterov", restart="gradient")
    function("rule", rule)
    limits = box.settings(params) if box and box.is_plain else {}
    state = rule(params, lr=0.0 if lr is None or callable(lr) else lr, **limits, **hyperparameters)
    if not isinstance(state, _core.State):
        msg = f"rule must make a State, as fast_momentum.adam does, not {type(state).__name__}"
        raise TypeError(msg)
    if lr is None and state.rule not in ("momentum", "accelerated"):
        msg = f"lr must be a number or a schedule with {state.rule}, not None; init and accelerated are tuned"
        raise TypeError(msg)
    average_decay = average_decay_of(state)
    if average_decay is not None and not noisy:
        msg = f"average_decay must be None, not {average_decay!r}; with noisy=True the average is the answer"
        raise ValueError(msg)
    return state


def _check_names(rule: Any, hyperparameters: dict[str, Any]) -> None:
    """Say of what neither this function nor the rule has what it is called here."""
    made_by = getattr(rule, "__name__", "")
    defaults = [name for row in _core.rules if row["made_by"] == made_by for name in row["defaults"]]
    if not defaults:  # a function of the user's
        return
    names = [*_DEFAULTS, *defaults]
    if unknown := [name for name in hyperparameters if name not in names]:
        raise TypeError(refused("minimize", unknown, names))


def _check_prox(state: State, prox: Any, box: Box | None, noisy: bool) -> bool:
    """Whether there is a proximal map other than bounds."""
    if prox is not None:
        function("prox", prox)
    has_l1 = state.rule == "accelerated" and state.l1 != 0
    is_elementwise = box is not None and not box.is_plain
    if state.rule != "accelerated" and (prox is not None or is_elementwise):
        what = "prox" if prox is not None else "bounds that differ within an array"
        msg = f"{what} must come with rule accelerated, not {state.rule}, as it is its proximal map"
        raise ValueError(msg)
    if prox is not None and (has_l1 or box is not None):
        msg = "prox must be the whole proximal map, not come with l1 or bounds; let prox do these"
        raise ValueError(msg)
    if has_l1 and is_elementwise:
        msg = "bounds must be one pair for each array with l1, not differ within an array; let prox do both"
        raise ValueError(msg)
    if noisy and (prox is not None or has_l1):
        msg = (
            "noisy must be False with a proximal map, as accelerated amplifies noise; use init, and l1 in fun"
        )
        raise ValueError(msg)
    return prox is not None or has_l1


_DEFAULTS = {name: p.default for name, p in inspect.signature(minimize).parameters.items()}
