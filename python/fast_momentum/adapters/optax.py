"""optax: the state of `optax.sgd`, or of any chain with one `optax.trace`, taken over and handed back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._containers import Keys, path_of
from ..theory._rule import checked_momentum
from ._moving import checked_like, imported, keys_of, kind, numbers_of, one_number

try:
    import jax
    import optax
except ImportError as error:
    _message = "fast_momentum.adapters.optax must have optax; pip install 'fast-momentum[optax]'"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import _core


__all__ = ["export_state", "import_state"]

INJECTED = {
    "learning_rate": "lr",
    "momentum": "momentum",
    "decay": "momentum",
    "weight_decay": "weight_decay",
}


def import_state(
    params: Any,
    opt_state: Any,
    *,
    lr: Any = None,
    momentum: Any = None,
    nesterov: bool = False,
    weight_decay: Any = None,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    form: str = "lr_outside",
) -> _core.State:
    """Take over a state of ``optax.sgd``, or of a chain with one ``optax.trace``, for `params` in NumPy.

    ::

        velocity = trace            in the form lr_inside, or with maximize, -trace
        step_count = count          0, if there is none

    Hyperparameters are in the functions of optax, not in its state, unless ``optax.inject_hyperparams`` puts them
    there. So they are given here, but for those that were injected. Of a schedule, the value of the last update is
    taken; set ``state.lr = float(schedule(jax.numpy.int32(state.step_count)))`` before each step.

    Parameters
    ----------
    params : ndarray, or nested list, tuple or dict of them
        As for `fast_momentum.init`, in the structure of the trace. Their values are yours to copy.
    opt_state : pytree
        What ``optimizer.init`` or ``optimizer.update`` returned.
    lr, momentum, weight_decay : float or prefix, optional
        As for `fast_momentum.init`; left out if they were injected. `weight_decay` is 0 otherwise.
    nesterov, decoupled_weight_decay, maximize : bool, default False
        As for `fast_momentum.init`. `decoupled_weight_decay` is for decay between the trace and the scaling by lr;
        `maximize` for ``scale_by_learning_rate(lr, flip_sign=False)``.
    form : {'lr_outside', 'lr_inside'}, default 'lr_outside'
        ``lr_inside`` is for a chain that scales by lr before the trace.

    Returns
    -------
    State
        In which all arrays have started.

    Raises
    ------
    TypeError
        `lr` or `momentum` is neither given nor injected, or dtypes differ.
    ValueError
        `opt_state` has not one trace, or more than a `State` can hold, such as the gradients of ``MultiSteps``; a
        hyperparameter is both given and injected; or `params` do not fit. What has no state, such as clipping, cannot
        be seen, and is yours to do.

    See Also
    --------
    export_state : The other way.

    References
    ----------
    https://optax.readthedocs.io/en/latest/api/transformations.html#optax.trace

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import optax
    >>> import fast_momentum as fm
    >>> import fast_momentum.adapters.optax
    >>> theirs = {"w": jax.numpy.zeros(2)}
    >>> optimizer = optax.sgd(0.5, momentum=0.75)
    >>> updates, opt_state = optimizer.update({"w": jax.numpy.ones(2)}, optimizer.init(theirs))
    >>> params = jax.tree.map(np.array, optax.apply_updates(theirs, updates))
    >>> state = fm.adapters.optax.import_state(params, opt_state, lr=0.5, momentum=0.75)
    >>> state.velocity["w"].tolist()
    [1.0, 1.0]
    """
    parts = _parts(opt_state)
    given = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    for name, value in _injected(parts):
        ours = INJECTED[name]
        if given[ours] is not None:
            msg = f"{ours} must be left out, as opt_state has it as injected {name}, not {given[ours]!r}"
            raise ValueError(msg)
        given[ours] = float(value)
    for name in ("lr", "momentum"):
        if given[name] is None:
            msg = f"{name} must be given, as opt_state does not have it injected"
            raise TypeError(msg)
    counts = {int(part.count) for part in parts if "count" in part._fields}
    if len(counts) > 1:
        msg = f"opt_state must have one count, not {sorted(counts)}"
        raise ValueError(msg)
    sign = _sign(form, maximize, given["weight_decay"] is not None and given["weight_decay"] != 0)
    velocities = {keys: sign * np.asarray(leaf) for keys, leaf in _leaves_of(_trace(parts)).items()}
    _checked_structure("params", keys_of(params), velocities)
    return imported(
        params,
        velocities,
        "the trace",
        max(counts, default=0),
        lr=given["lr"],
        momentum=given["momentum"],
        nesterov=nesterov,
        weight_decay=given["weight_decay"] or 0.0,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
        form=form,
    )


def export_state(state: _core.State, opt_state: Any) -> Any:
    """Return a state of optax that goes on from `state`.

    ::

        trace = velocity            in the form lr_inside, or with maximize, -velocity
        count = step_count

    Hyperparameters that ``optax.inject_hyperparams`` put there are set, but for schedules, which go on at ``count``.
    The others are in the functions of the optimizer, which therefore has to be made with those of `state`.

    Parameters
    ----------
    state : State
        Of the form ``lr_outside``, or ``lr_inside`` for a chain that scales by lr before the trace.
    opt_state : pytree
        What ``optimizer.init(params)`` of the receiving optimizer returned. It is not changed.

    Returns
    -------
    pytree
        Like `opt_state`, of JAX arrays that share no memory with `state`.

    Raises
    ------
    TypeError
        Dtypes differ.
    ValueError
        The form is ``ema``, there is dampening, or what was injected differs between arrays; or `opt_state` does not
        fit, as in `import_state`.

    See Also
    --------
    import_state : The other way.

    References
    ----------
    https://optax.readthedocs.io/en/latest/api/transformations.html#optax.trace

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import optax
    >>> import fast_momentum as fm
    >>> import fast_momentum.adapters.optax
    >>> params = {"w": np.zeros(2, np.float32)}
    >>> state = fm.init(params, lr=0.5, momentum=0.75)
    >>> fm.step(params, {"w": np.ones(2, np.float32)}, state)
    >>> theirs = jax.tree.map(lambda p: jax.numpy.asarray(p.copy()), params)
    >>> optimizer = optax.sgd(0.5, momentum=0.75)
    >>> fm.adapters.optax.export_state(state, optimizer.init(theirs))[0].trace
    {'w': Array([1., 1.], dtype=float32)}
    """
    checked_momentum(state, "for optax")
    parts = _parts(opt_state)
    arrays = keys_of(state.velocity)
    if one_number(state, "dampening", arrays, "all arrays", "optax has no dampening"):
        msg = f"state.dampening must be 0, as optax has none, not {state.dampening!r}"
        raise ValueError(msg)
    decays = any(numbers_of(state, "weight_decay", arrays))
    sign = _sign(state.form, state.maximize, decays, "state.")
    theirs = _leaves_of(_trace(parts))
    _checked_structure("state.velocity", arrays, theirs)
    saved = state.state_dict()["velocity"]
    for keys, leaf in theirs.items():
        path = path_of(keys)
        checked_like(f"state.velocity{path}", saved[path], "the trace", leaf.shape, leaf.dtype)
    numbers = {
        name: one_number(state, INJECTED[name], arrays, f"an injected {name}", "optax injects one number")
        for name, _ in _injected(parts)
    }

    def exported(part: Any) -> Any:
        if isinstance(part, optax.TraceState):
            return part._replace(
                trace=jax.tree_util.tree_map_with_path(
                    lambda path, _: jax.numpy.asarray(sign * saved[path_of(_keys(path))]), part.trace
                )
            )
        if isinstance(part, optax.InjectStatefulHyperparamsState):
            part = part._replace(
                hyperparams={
                    name: value if name in part.hyperparams_states else _like(value, numbers[name])
                    for name, value in part.hyperparams.items()
                },
                hyperparams_states={
                    name: _counted(schedule, state.step_count)
                    for name, schedule in part.hyperparams_states.items()
                },
            )
        return _counted(part, state.step_count) if "count" in part._fields else part

    return _mapped(exported, opt_state)


def _mapped(function: Callable[[Any], Any], part: Any) -> Any:
    """The same state with `function` applied to what each transformation has in it."""
    if isinstance(part, optax.InjectStatefulHyperparamsState):
        return function(part)._replace(inner_state=_mapped(function, part.inner_state))
    if isinstance(part, optax.MaskedState):
        return part._replace(inner_state=_mapped(function, part.inner_state))
    if type(part) is tuple:
        return tuple(_mapped(function, inner) for inner in part)
    if isinstance(
        part, (optax.TraceState, optax.EmptyState, optax.ScaleByScheduleState, optax.AddDecayedWeightsState)
    ):
        return function(part)
    msg = f"opt_state must be that of optax.sgd, or of a chain with a trace, without {kind(part)}; see optax.chain"
    raise ValueError(msg)


def _parts(opt_state: Any) -> list[Any]:
    found = []

    def seen(part: Any) -> Any:
        found.append(part)
        return part

    _mapped(seen, opt_state)
    return found


def _trace(parts: list[Any]) -> Any:
    traces = [part.trace for part in parts if isinstance(part, optax.TraceState)]
    if len(traces) != 1:
        msg = f"opt_state must have one trace, not {len(traces)}; optax.sgd has it if momentum is given"
        raise ValueError(msg)
    return traces[0]


def _injected(parts: list[Any]) -> list[tuple[str, Any]]:
    found = [
        item
        for part in parts
        if isinstance(part, optax.InjectStatefulHyperparamsState)
        for item in part.hyperparams.items()
    ]
    for name, _ in found:
        if name not in INJECTED:
            msg = f"opt_state must have no injected hyperparameter but {', '.join(INJECTED)}, not {name}"
            raise ValueError(msg)
    return found


def _sign(form: str, maximize: bool, decays: bool, whose: str = "") -> int:
    """Of the velocity, as a multiple of the trace."""
    if form not in ("lr_outside", "lr_inside"):
        msg = f"{whose}form must be 'lr_outside' or 'lr_inside', which have a trace in optax, not {form!r}"
        raise ValueError(msg)
    if maximize and decays:
        msg = (
            f"{whose}weight_decay must be 0 where optax maximizes, as it would let the parameters grow there"
        )
        raise ValueError(msg)
    return -1 if maximize or form == "lr_inside" else 1


def _keys(path: Any) -> Keys:
    """A path of JAX in the keys and indices that lead to an array."""
    return tuple(getattr(entry, "idx", getattr(entry, "key", getattr(entry, "name", None))) for entry in path)


def _leaves_of(trace: Any) -> dict[Keys, Any]:
    return {_keys(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(trace)[0]}


def _checked_structure(where: str, arrays: list[Keys], trace: dict[Keys, Any]) -> None:
    alone = [path_of(keys) for keys in {*arrays} ^ trace.keys()]
    if alone:
        msg = f"{where} must have the structure of the trace of opt_state, not arrays on one side only: {', '.join(sorted(alone))}"
        raise ValueError(msg)


def _like(array: Any, number: float) -> Any:
    return jax.numpy.asarray(number, dtype=array.dtype)


def _counted(part: Any, step_count: int) -> Any:
    if "count" not in getattr(part, "_fields", ()):
        msg = f"opt_state must have schedules that count, not {kind(part)}"
        raise ValueError(msg)
    return part._replace(count=_like(part.count, step_count))
