"""optax: the states of sgd, adam, adamw, nadam, lion, rmsprop and signum taken over and handed back.

Or those of chains with the same parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _core
from .._containers import Keys, path_of
from ._moving import (
    checked_like,
    checked_rule,
    checked_settings,
    checked_steps,
    imported,
    keys_of,
    kind,
    numbers_of,
    one_number,
    steps_made,
)

try:
    import jax
    import optax
except ImportError as error:
    _message = "fast_momentum.adapters.optax must have optax; pip install optax jax"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Callable


__all__ = ["export_state", "import_state"]


class Part(NamedTuple):
    """What a transformation with a state is here, and its names for what is kept and for what can be injected."""

    rule: str
    forms: tuple[str | None, ...]
    keeps: dict[str, str]
    injected: dict[str, str]
    fixed: dict[str, Any]  # settings that it has no name for
    required: tuple[str, ...] = ()  # what has another default there, or cannot be seen
    why: str = ""  # not another form


_moments = {"mu": "velocity", "nu": "second_moment"}
_betas = {"b1": "beta1", "b2": "beta2"}
_adam = {**_betas, "eps": "eps"}
_momentum = {"momentum": "momentum", "decay": "momentum"}
_rmsprop = {"momentum": "momentum", "decay": "rho", "eps": "eps"}
_both = ("lr_outside", "lr_inside")
PARTS: dict[Any, Part] = {
    optax.TraceState: Part("momentum", _both, {"trace": "velocity"}, _momentum, {"dampening": 0.0}, ("momentum",)),
    optax.ScaleByAdamState: Part("adam", ("corrected",), _moments, _adam, {"momentum_decay": None, "amsgrad": False}),
    optax.ScaleByAmsgradState: Part("adam", ("uncorrected",), {**_moments, "nu_max": "second_moment_maximum"}, _adam,
        {"nesterov": False, "amsgrad": True}, (),
        "; with a bias_correction_mu or bias_correction_nu, as by default, optax takes the maximum of something else"),
    optax.ScaleByLionState: Part("lion", (None,), {"mu": "velocity"}, _betas, {}),
    optax.ScaleByRmsState: Part(
        "rmsprop", _both, {"nu": "second_moment"}, _rmsprop, {"centered": False}, ("rho", "form")),
    optax.ScaleByRStdDevState: Part(
        "rmsprop", _both, {"mu": "mean", "nu": "second_moment"}, _rmsprop, {"centered": True}, ("rho", "form")),
    optax.EmaState: Part("signum", (None,), {"ema": "velocity"}, {"beta": "momentum"}, {}, ("rule",)),
}  # fmt: skip
INJECTED = {"learning_rate": "lr", "weight_decay": "weight_decay"}  # of every rule


def import_state(
    params: Any, opt_state: Any, *, lr: Any = None, rule: str | None = None, **settings: Any
) -> _core.State:
    """Take over a state of sgd, adam, adamw, nadam, lion, rmsprop or signum of optax, for `params` in NumPy.

    ::

        sgd                 velocity = trace            in the form lr_inside -trace
        adam, adamw, nadam  velocity = mu               second_moment = nu
        lion                velocity = mu
        rmsprop             second_moment = nu          mean = mu       velocity = trace, in the form lr_inside -trace
        signum              velocity = ema
        all                 step_count = count, and the steps of all arrays     0, if there is none

    With ``maximize`` velocity and mean are the negatives of these. Hyperparameters are in the functions of optax, not in
    its state, unless ``optax.inject_hyperparams`` puts them there. So they are given here, but for those that were
    injected. Of a schedule, the value of the last update is taken; set
    ``state.lr = float(schedule(jax.numpy.int32(state.step_count)))`` before each step.

    Parameters
    ----------
    params : ndarray, or nested list, tuple or dict of them
        As for `fast_momentum.init`, in the structure of what `opt_state` keeps. Their values are yours to copy.
    opt_state : pytree
        What ``optimizer.init`` or ``optimizer.update`` returned, of one of these optimizers or of a chain with the same
        part.
    lr : float or prefix, optional
        As for `fast_momentum.init`; left out if it was injected.
    rule : str, optional
        The rule that `opt_state` must be of. It has to be ``'signum'`` for that of ``optax.signum``, since any chain with
        an ``optax.ema`` has such a state.
    **settings
        As for `fast_momentum.init`, `adam`, `lion`, `rmsprop` or `signum`; those that were injected left out.
        What is not given has the default there, but for `momentum` after ``sgd``, and `rho` and `form` after
        ``rmsprop``, whose defaults are others in optax. ``form='lr_inside'`` is for ``rmsprop`` with ``eps_in_sqrt``, and
        for a chain that scales by lr before the trace. `decoupled_weight_decay` is for decay before the scaling by lr,
        as in ``adamw`` and ``lion``; `maximize` for ``scale_by_learning_rate(lr, flip_sign=False)``.

    Returns
    -------
    State
        In which all arrays have made the same steps.

    Raises
    ------
    TypeError
        `lr` or another number with no default is neither given nor injected, or dtypes differ.
    ValueError
        `opt_state` has not one such part, or more than a `State` can hold, such as the gradients of ``MultiSteps``; a
        hyperparameter is both given and injected, or what the part does not compute; or `params` do not fit. What has
        no state, such as clipping or an ``eps_root`` that was not injected, cannot be seen, and is yours to know.

    See Also
    --------
    export_state : The other way.

    References
    ----------
    https://optax.readthedocs.io/en/latest/api/optimizers.html

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

    >>> optimizer = optax.adamw(0.5, b1=0.75, weight_decay=0.1)
    >>> updates, opt_state = optimizer.update({"w": jax.numpy.ones(2)}, optimizer.init(theirs), theirs)
    >>> decay = {"weight_decay": 0.1, "decoupled_weight_decay": True}
    >>> state = fm.adapters.optax.import_state(params, opt_state, lr=0.5, beta1=0.75, **decay)
    >>> state.velocity["w"].tolist(), state.step_count
    ([0.25, 0.25], 1)
    """
    parts = _parts(opt_state)
    found = _keeping(parts)
    part = PARTS[type(found[0])]
    if rule != part.rule and (rule is not None or "rule" in part.required):
        msg = f"rule must be {part.rule!r} where opt_state has {_name(found[0])}, not {rule!r}"
        raise ValueError(msg)
    given = {name: value for name, value in {"lr": lr, **settings}.items() if value is not None}
    given |= _taken_from(parts, given)
    _checked_given(given, found)
    counts = {int(of.count) for of in parts if "count" in of._fields}
    if len(counts) > 1:
        msg = f"opt_state must have one count, not {sorted(counts)}"
        raise ValueError(msg)
    step_count = max(counts, default=0)
    signs = _signs(given.get("form"), given.get("maximize", False), given.get("weight_decay", 0) != 0)
    arrays, steps = keys_of(params), steps_made(part.rule, step_count)
    kept: dict[str, tuple[str, dict[Keys, Any]]] = {"count": ("steps", dict.fromkeys(arrays, steps))}
    for of in found:
        for name, ours in PARTS[type(of)].keeps.items():
            leaves = _leaves_of(getattr(of, name))
            _checked_structure("params", arrays, leaves, name)
            sign = signs.get(ours, 1) if steps else 1  # before the first step, all is 0.0
            kept[name] = (ours, {keys: sign * np.asarray(leaf) for keys, leaf in leaves.items()})
    return imported(params, part.rule, kept, step_count, **{**part.fixed, **given})


def export_state(state: _core.State, opt_state: Any) -> Any:
    """Return a state of optax that goes on from `state`.

    What it keeps is as in `import_state`. Hyperparameters that ``optax.inject_hyperparams`` put there are set, but for
    schedules, which go on at ``count``. The others are in the functions of the optimizer, which therefore has to be made
    with those of `state`.

    Parameters
    ----------
    state : State
        One that `import_state` could have made from such a state.
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
        The rule or the form is another, there is dampening or a `momentum_decay`, an array of Adam has made fewer steps
        than the others, or what was injected differs between arrays; or `opt_state` does not fit, as in `import_state`.

    See Also
    --------
    import_state : The other way.

    References
    ----------
    https://optax.readthedocs.io/en/latest/api/optimizers.html

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
    found = _keeping(_parts(opt_state))
    part, library = PARTS[type(found[0])], f"an optimizer with {_name(found[0])}"
    checked_rule(state, part.rule, library)
    checked_settings(state, part.fixed, library)
    _checked_form(state.form, found[0], "state.")
    arrays = keys_of(state.velocity)
    if part.rule == "rmsprop" and len(found) == 1 and any(numbers_of(state, "momentum", arrays)):
        msg = f"state.momentum must be 0 where opt_state has no trace, not {state.momentum!r}; optax.rmsprop has it if momentum is given"
        raise ValueError(msg)
    saved = state.state_dict()
    checked_steps(saved, "optax")
    signs = _signs(state.form, state.maximize, any(numbers_of(state, "weight_decay", arrays)), "state.")
    for of in found:
        for name, ours in PARTS[type(of)].keeps.items():
            theirs = _leaves_of(getattr(of, name))
            _checked_structure("state.velocity", arrays, theirs, name)
            for keys, leaf in theirs.items():
                path = path_of(keys)
                checked_like(f"state.{ours}{path}", saved[ours][path], f"the {name}", leaf.shape, leaf.dtype)

    def like(tree: Any, ours: str) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: jax.numpy.asarray(signs.get(ours, 1) * saved[ours][path_of(_keys(path))]), tree
        )

    def number(name: str, ours: str) -> float:
        return one_number(state, ours, arrays, f"an injected {name}", "optax injects one number")

    def exported(part: Any) -> Any:
        if type(part) in PARTS:
            keeps = PARTS[type(part)].keeps
            part = part._replace(**{name: like(getattr(part, name), ours) for name, ours in keeps.items()})
        if isinstance(part, optax.InjectStatefulHyperparamsState):
            part = part._replace(
                hyperparams=part.hyperparams
                | {
                    name: _like(part.hyperparams[name], number(name, ours))
                    for name, ours in _injected(part).items()
                    if name not in part.hyperparams_states
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
    if isinstance(part, (*PARTS, optax.EmptyState, optax.ScaleByScheduleState, optax.AddDecayedWeightsState)):
        return function(part)
    msg = (
        f"opt_state must be that of optax.sgd, adam, adamw, nadam, lion, rmsprop or signum, or of a chain with their parts, "
        f"without {kind(part)}, which a State has not"
    )
    raise ValueError(msg)


def _parts(opt_state: Any) -> list[Any]:
    found = []

    def seen(part: Any) -> Any:
        found.append(part)
        return part

    _mapped(seen, opt_state)
    return found


def _name(part: Any) -> str:
    return type(part).__name__


def _keeping(parts: list[Any]) -> list[Any]:
    """The part that says the rule, and after that of rmsprop perhaps a trace."""
    found = sorted(
        (part for part in parts if type(part) in PARTS), key=lambda part: isinstance(part, optax.TraceState)
    )
    rules = [PARTS[type(part)].rule for part in found]
    if len(found) != 1 and rules != ["rmsprop", "momentum"]:
        listed = ", ".join(map(_name, found)) or "none"
        names = ", ".join(cls.__name__ for cls in PARTS)
        msg = f"opt_state must have one of {names}, not {listed}; that of optax.sgd has a trace if momentum is given"
        raise ValueError(msg)
    return found


def _injected(part: Any) -> dict[str, str]:
    """Our names of the hyperparameters that were injected there, but for those that a step here has not."""
    inside = [PARTS[type(of)].injected for of in _parts(part.inner_state) if type(of) in PARTS]
    called = {**INJECTED, **(inside[0] if inside else {})}
    for name, value in part.hyperparams.items():
        if name not in (*called, "eps_root", "initial_scale"):
            msg = f"opt_state must have no injected hyperparameter but {', '.join(called)}, not {name}"
            raise ValueError(msg)
        if name == "eps_root" and value != 0:
            msg = f"opt_state must have an injected eps_root of 0, not {float(value)}; eps is outside of the root here"
            raise ValueError(msg)
    return {name: called[name] for name in part.hyperparams if name in called}


def _taken_from(parts: list[Any], given: dict[str, Any]) -> dict[str, float]:
    """The values of what was injected, none of which may be given."""
    taken: dict[str, float] = {}
    for part in parts:
        if isinstance(part, optax.InjectStatefulHyperparamsState):
            for name, ours in _injected(part).items():
                if ours in given | taken:
                    msg = f"{ours} must be left out, as opt_state has it as injected {name}, not {(given | taken)[ours]!r}"
                    raise ValueError(msg)
                taken[ours] = float(part.hyperparams[name])
    return taken


def _checked_given(given: dict[str, Any], found: list[Any]) -> None:
    part = PARTS[type(found[0])]
    required = [name for name in part.required if name != "rule"] + ["momentum"] * (len(found) - 1)
    for name in ("lr", *required):
        if name not in given:
            msg = f"{name} must be given, as opt_state does not have it injected"
            raise TypeError(msg)
    default = next(row["defaults"] for row in _core.rules if row["rule"] == part.rule).get("form")
    _checked_form(given.get("form", default), found[0])
    fixed = part.fixed | ({"momentum": 0} if part.rule == "rmsprop" and len(found) == 1 else {})
    for name, value in fixed.items():
        if given.get(name, value) != value:
            msg = f"{name} must be {value!r} where opt_state has {_name(found[0])} alone, not {given[name]!r}"
            raise ValueError(msg)


def _checked_form(form: Any, found: Any, whose: str = "") -> None:
    part = PARTS[type(found)]
    if form not in part.forms:
        forms = " or ".join(map(repr, part.forms))
        msg = f"{whose}form must be {forms} where opt_state has {_name(found)}, not {form!r}{part.why}"
        raise ValueError(msg)


def _signs(form: str | None, maximize: bool, decays: bool, whose: str = "") -> dict[str, int]:
    """Of what is kept, as a multiple of what optax keeps."""
    if maximize and decays:
        msg = (
            f"{whose}weight_decay must be 0 where optax maximizes, as it would let the parameters grow there"
        )
        raise ValueError(msg)
    return {"velocity": -1 if maximize or form == "lr_inside" else 1, "mean": -1 if maximize else 1}


def _keys(path: Any) -> Keys:
    """A path of JAX in the keys and indices that lead to an array."""
    return tuple(getattr(entry, "idx", getattr(entry, "key", getattr(entry, "name", None))) for entry in path)


def _leaves_of(tree: Any) -> dict[Keys, Any]:
    return {_keys(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _checked_structure(where: str, arrays: list[Keys], theirs: dict[Keys, Any], name: str) -> None:
    alone = [path_of(keys) for keys in {*arrays} ^ theirs.keys()]
    if alone:
        msg = f"{where} must have the structure of the {name} of opt_state, not arrays on one side only: {', '.join(sorted(alone))}"
        raise ValueError(msg)


def _like(array: Any, number: float) -> Any:
    return jax.numpy.asarray(number, dtype=array.dtype)


def _counted(part: Any, step_count: int) -> Any:
    if "count" not in getattr(part, "_fields", ()):
        msg = f"opt_state must have schedules that count, not {kind(part)}"
        raise ValueError(msg)
    return part._replace(count=_like(part.count, step_count))
