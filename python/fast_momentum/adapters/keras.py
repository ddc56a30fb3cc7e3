"""Keras 3: the states of SGD, Adam, AdamW, Nadam, RMSprop and Lion taken over and handed back.

For what Keras does not publish - the variables that an optimizer was built with, what it keeps of them, which of them
decay, and whether the learning rate is a schedule - its private names are read, as in the version `TESTED`:
``_trainable_variables``, those of `OPTIMIZERS`, ``_u_product``, ``_use_weight_decay`` and ``_learning_rate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._containers import Keys, leaves, path_of
from ._moving import (
    checked_like,
    checked_rule,
    checked_settings,
    checked_steps,
    imported,
    is_number,
    keys_of,
    kind,
    numbers_of,
    one_number,
    prefix,
    steps_made,
)

try:
    import keras
except ImportError as error:
    _message = "fast_momentum.adapters.keras must have keras; pip install keras"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .. import _core

__all__ = ["export_state", "import_state"]

TESTED = "3.15.1"

# Options of the optimizer that do more to gradients or parameters than a step does.
REFUSED = (
    "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "loss_scale_factor", "gradient_accumulation_steps",
)  # fmt: skip


class Optimizer(NamedTuple):
    """What an optimizer is here, and its names for our settings and for what is kept of each array."""

    rule: str
    fixed: dict[str, Any]  # settings that it has no name for
    settings: dict[str, str]
    keeps: dict[str, str]
    sign: int = 1  # of the velocity there


_every = {"maximize": False, "decoupled_weight_decay": True}
_betas = {"beta_1": "beta1", "beta_2": "beta2"}
_adam = {**_betas, "epsilon": "eps"}
_moments = {"_momentums": "velocity", "_velocities": "second_moment"}
OPTIMIZERS: dict[Any, Optimizer] = {
    keras.optimizers.SGD: Optimizer("momentum", {"form": "lr_inside"},
        {"momentum": "momentum", "nesterov": "nesterov"}, {"momentums": "velocity"}, sign=-1),
    keras.optimizers.Adam: Optimizer("adam", {"form": "folded", "nesterov": False},
        {**_adam, "amsgrad": "amsgrad"}, {**_moments, "_velocity_hats": "second_moment_maximum"}),
    keras.optimizers.Nadam: Optimizer(
        "adam", {"form": "corrected", "nesterov": True, "momentum_decay": 1.0, "amsgrad": False}, _adam, _moments),
    keras.optimizers.RMSprop: Optimizer("rmsprop", {"form": "lr_inside"},
        {"rho": "rho", "momentum": "momentum", "epsilon": "eps", "centered": "centered"},
        {**_moments, "_average_gradients": "mean"}),
    keras.optimizers.Lion: Optimizer("lion", {}, _betas, {"_momentums": "velocity"}),
}  # fmt: skip
ONLY_WITH = {"_velocity_hats": "amsgrad"}


def import_state(params: Any, optimizer: keras.optimizers.Optimizer) -> _core.State:
    """Take over the state of an SGD, Adam, AdamW, Nadam, RMSprop or Lion of Keras, for `params` in NumPy.

    ::

        SGD      velocity = -momentum
        others   velocity = momentum        second_moment = velocity        second_moment_maximum = velocity_hat
                 mean = average_gradient    momentum_product of all arrays = _u_product
        all      step_count = iterations, and the steps of all arrays       lr = learning_rate, now

    Of a schedule, ``lr`` is the present value; set ``state.lr = float(schedule(state.step_count))`` before each step.

    Parameters
    ----------
    params : ndarray, or nested list, tuple or dict of them
        As for `fast_momentum.init`, in the order of the variables that the optimizer was built with, which is that of
        ``model.trainable_variables``. Their values are yours to copy.
    optimizer : keras.optimizers.SGD, Adam, AdamW, Nadam, RMSprop or Lion
        One that has been built, as the first step does.

    Returns
    -------
    State
        As `fast_momentum.init` makes it, of the form ``lr_inside``; as `fast_momentum.adam`, of the form ``folded``, of
        Nadam ``corrected`` with a `momentum_decay` of 1; as `fast_momentum.rmsprop`, of the form ``lr_inside``; or as
        `fast_momentum.lion`. Variables that are excluded from the decay have 0 for it.

    Raises
    ------
    RuntimeError
        This version of Keras lacks what the adapter reads.
    TypeError
        `optimizer` is something else, or dtypes differ.
    ValueError
        The optimizer has not been built, or has an option that a `State` lacks; or `params` do not fit it.

    See Also
    --------
    export_state : The other way.

    References
    ----------
    https://keras.io/api/optimizers/

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> import fast_momentum.adapters.keras
    >>> weight = keras.Variable(np.zeros(2, np.float32))
    >>> optimizer = keras.optimizers.SGD(learning_rate=0.5, momentum=0.75)
    >>> optimizer.apply([keras.ops.ones(2)], [weight])
    >>> params = [np.array(keras.ops.convert_to_numpy(weight.value))]
    >>> state = fm.adapters.keras.import_state(params, optimizer)
    >>> state.velocity, state.momentum, state.step_count
    ((array([0.5, 0.5], dtype=float32),), 0.75, 1)

    >>> optimizer = keras.optimizers.RMSprop(learning_rate=0.5, rho=0.75)
    >>> optimizer.apply([keras.ops.ones(2)], [weight])
    >>> fm.adapters.keras.import_state(params, optimizer).second_moment
    (array([0.25, 0.25], dtype=float32),)
    """
    theirs = OPTIMIZERS[_class_of(optimizer)]
    variables = _paired(params, _variables(optimizer), "params")
    _check_nothing_is_left(optimizer, theirs)
    step_count = int(optimizer.iterations)
    kept: dict[str, tuple[str, dict[Keys, Any]]] = {
        "iterations": ("steps", dict.fromkeys(variables, steps_made(theirs.rule, step_count)))
    }
    for name, ours, sign, values in _kept(optimizer, theirs):
        arrays = [sign * keras.ops.convert_to_numpy(value.value) for value in values]
        kept[name.strip("_")] = (ours, dict(zip(variables, arrays, strict=True)))
    if theirs.fixed.get("momentum_decay"):
        product = float(keras.ops.convert_to_numpy(_private(optimizer, "_u_product").value))
        kept["_u_product"] = ("momentum_products", dict.fromkeys(variables, product))
    decays = {keys: _decay(optimizer, variable) for keys, variable in variables.items()}
    settings = {ours: _setting(optimizer, name) for name, ours in theirs.settings.items()}
    return imported(
        params,
        theirs.rule,
        kept,
        step_count,
        lr=float(optimizer.learning_rate),
        weight_decay=prefix(params, decays),
        decoupled_weight_decay=bool(optimizer.weight_decay),
        **theirs.fixed,
        **settings,
    )


def export_state(state: _core.State, optimizer: keras.optimizers.Optimizer) -> None:
    """Write `state` into the variables of an optimizer of Keras, so that it goes on from there.

    What is written is as in `import_state`. An optimizer with a schedule keeps it, and goes on where ``step_count`` says.

    Parameters
    ----------
    state : State
        One that `import_state` could have made from such an optimizer.
    optimizer : keras.optimizers.SGD, Adam, AdamW, Nadam, RMSprop or Lion
        One that has been built: ``optimizer.build(model.trainable_variables)``. Its ``momentum``, ``beta_1``, ``epsilon``,
        ``weight_decay`` and so on have to be those of `state`: Keras compiles them into a training step as constants.

    Raises
    ------
    RuntimeError
        As in `import_state`.
    TypeError
        `optimizer` is something else, or dtypes differ.
    ValueError
        The rule or the form is another, the two do not agree in structure, shapes or constants, or, of Adam, an array
        has made fewer steps than the others. Nothing is written then.

    See Also
    --------
    import_state : The other way.

    References
    ----------
    https://keras.io/api/optimizers/

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> import fast_momentum.adapters.keras
    >>> params = np.zeros(2, np.float32)
    >>> state = fm.init(params, lr=0.5, momentum=0.75, form="lr_inside")
    >>> fm.step(params, np.ones(2, np.float32), state)
    >>> optimizer = keras.optimizers.SGD(momentum=0.75)
    >>> optimizer.build([keras.Variable(params.copy())])
    >>> fm.adapters.keras.export_state(state, optimizer)
    >>> keras.ops.convert_to_numpy(optimizer.variables[-1].value).tolist()
    [-0.5, -0.5]
    """
    cls = _class_of(optimizer)
    library, theirs = f"keras.optimizers.{cls.__name__}", OPTIMIZERS[cls]
    checked_rule(state, theirs.rule, library)
    checked_settings(state, {**_every, **theirs.fixed}, library)
    variables = _paired(state.velocity, _variables(optimizer), "state.velocity")
    arrays = list(variables)
    lr = one_number(state, "lr", arrays, "all arrays", "Keras has one learning rate")
    for name, ours in theirs.settings.items():
        mine = (
            one_number(state, ours, arrays, "all arrays", f"Keras has one {name}")
            if is_number(ours)
            else getattr(state, ours)
        )
        _checked_equal(f"optimizer.{name}", _setting(optimizer, name), mine)
    for variable, mine in zip(variables.values(), numbers_of(state, "weight_decay", arrays), strict=True):
        _checked_equal(f"optimizer.weight_decay for {variable.path}", _decay(optimizer, variable), mine)
    saved = state.state_dict()
    checked_steps(saved, library)
    written: list[tuple[Any, Any]] = [(optimizer.iterations, state.step_count)]
    if isinstance(_private(optimizer, "_learning_rate"), keras.Variable):
        written.append((_private(optimizer, "_learning_rate"), lr))
    if theirs.fixed.get("momentum_decay"):
        written.append((_private(optimizer, "_u_product"), _one_product(saved)))
    for _, ours, sign, values in _kept(optimizer, theirs):
        written += zip(values, (sign * array for array in saved[ours].values()), strict=True)
    for variable, value in written:
        variable.assign(value)


def _class_of(optimizer: Any) -> Any:
    """That of the table which it is, once its options are known to be of a step."""
    cls = next((cls for cls in type(optimizer).__mro__ if cls in OPTIMIZERS), None)
    if cls is None:
        names = ", ".join(f"keras.optimizers.{cls.__name__}" for cls in OPTIMIZERS)
        msg = f"optimizer must be one of {names}, not {kind(optimizer)}"
        raise TypeError(msg)
    for name in REFUSED:
        value = _private(optimizer, name)
        if value:
            msg = f"optimizer.{name} must be unset, not {value!r}, which a State has not"
            raise ValueError(msg)
    return cls


def _variables(optimizer: Any) -> list[Any]:
    """The variables of the model."""
    if not optimizer.built:
        msg = "optimizer must be built, not new; call optimizer.build(model.trainable_variables)"
        raise ValueError(msg)
    return list(_private(optimizer, "_trainable_variables"))


def _check_nothing_is_left(optimizer: Any, theirs: Optimizer) -> None:
    """What a subclass keeps besides would be dropped in silence."""
    known: set[int] = set()
    for name in ("iterations", "_learning_rate", "_u_product", *theirs.keeps):
        found = getattr(optimizer, name, None)
        known |= {id(variable) for variable in (found if isinstance(found, list) else [found])}
    others = [variable.path for variable in optimizer.variables if id(variable) not in known]
    if others:
        msg = f"optimizer must have no variables but those of Keras, not {', '.join(others)}, which a State has not"
        raise ValueError(msg)


def _private(optimizer: Any, name: str) -> Any:
    try:
        return getattr(optimizer, name)
    except AttributeError:
        msg = f"optimizer must have {name}, as in Keras {TESTED}, but it has not in {keras.__version__}"
        raise RuntimeError(msg) from None


def _kept(optimizer: Any, theirs: Optimizer) -> Iterator[tuple[str, str, int, list[Any]]]:
    """What is kept of the arrays: its name there and here, the sign that it has there, and the variables."""
    for name, ours in theirs.keeps.items():
        if name not in ONLY_WITH or _private(optimizer, ONLY_WITH[name]):
            values = list(_private(optimizer, name))
            if values:
                yield name, ours, theirs.sign if ours == "velocity" else 1, values


def _setting(optimizer: Any, name: str) -> Any:
    """Keras ignores nesterov where momentum is 0."""
    value = _private(optimizer, name)
    return value and optimizer.momentum != 0 if name == "nesterov" else value


def _decay(optimizer: Any, variable: Any) -> float:
    return float(optimizer.weight_decay or 0) if _private(optimizer, "_use_weight_decay")(variable) else 0.0


def _one_product(saved: dict[str, Any]) -> float:
    products = sorted(set(saved["momentum_products"].values()))
    if len(products) != 1:
        msg = f"state.state_dict()['momentum_products'] must be one number, as Keras has one for all arrays, not {products}"
        raise ValueError(msg)
    return float(products[0])


def _paired(containers: Any, variables: list[Any], where: str) -> dict[Keys, Any]:
    """What leads to each array, with the variable in its place."""
    arrays = keys_of(containers)
    if len(arrays) != len(variables):
        msg = f"{where} must have {len(variables)} arrays, one for each variable of optimizer, not {len(arrays)}"
        raise ValueError(msg)
    for (keys, array), variable in zip(leaves(containers), variables, strict=True):
        like = f"the variable {variable.path}"
        if isinstance(array, np.ndarray):
            checked_like(f"{where}{path_of(keys)}", array, like, variable.shape, variable.dtype)
        if variable.constraint is not None:
            msg = f"{like} must have no constraint, not {kind(variable.constraint)}; apply it after each step"
            raise ValueError(msg)
    return dict(zip(arrays, variables, strict=True))


def _checked_equal(where: str, theirs: Any, ours: Any) -> None:
    if theirs != ours:
        msg = f"{where} must be {ours!r}, as in state, not {theirs!r}; make the optimizer with it"
        raise ValueError(msg)
