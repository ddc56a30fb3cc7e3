"""Keras 3: the state of `keras.optimizers.SGD` taken over and handed back.

For what Keras does not publish - the variables that an optimizer was built with, which of them decay, and whether the
learning rate is a schedule - its private ``_trainable_variables``, ``_use_weight_decay`` and ``_learning_rate`` are read,
as in the version `TESTED`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._containers import leaves, path_of
from ._moving import checked_form, checked_like, imported, keys_of, kind, numbers_of, one_number, prefix

try:
    import keras
except ImportError as error:
    _message = "fast_momentum.adapters.keras must have keras; pip install 'fast-momentum[keras]'"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from .. import _core

__all__ = ["export_state", "import_state"]

TESTED = "3.15.1"

# Options of the optimizer that do more to gradients or parameters than a step does.
REFUSED = (
    "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "loss_scale_factor", "gradient_accumulation_steps",
)  # fmt: skip


def import_state(params: Any, optimizer: keras.optimizers.SGD) -> _core.State:
    """Take over the state of a ``keras.optimizers.SGD``, for `params` in NumPy.

    ::

        velocity = -momentum        step_count = iterations        lr = learning_rate, now

    Of a schedule, ``lr`` is the present value; set ``state.lr = float(schedule(state.step_count))`` before each step.

    Parameters
    ----------
    params : ndarray, or nested list, tuple or dict of them
        As for `fast_momentum.init`, in the order of the variables that the optimizer was built with, which is that of
        ``model.trainable_variables``. Their values are yours to copy.
    optimizer : keras.optimizers.SGD
        One that has been built, as the first step does.

    Returns
    -------
    State
        Of the form ``lr_inside``. Variables that are excluded from the decay have 0 for it.

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
    https://keras.io/api/optimizers/sgd/

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
    ([array([0.5, 0.5], dtype=float32)], 0.75, 1)
    """
    variables = _variables(optimizer)
    paired = _paired(params, variables, "params")
    velocities = {}
    for keys, (_, momentum) in paired.items():
        if momentum is not None:
            velocities[keys] = -keras.ops.convert_to_numpy(momentum.value)
    decay = float(optimizer.weight_decay or 0)
    decays = {keys: decay if _decays(optimizer, variable) else 0.0 for keys, (variable, _) in paired.items()}
    return imported(
        params,
        velocities,
        "the momentum",
        int(optimizer.iterations),
        lr=float(optimizer.learning_rate),
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov and optimizer.momentum != 0,
        weight_decay=prefix(params, decays),
        decoupled_weight_decay=decay != 0,
        form="lr_inside",
    )


def export_state(state: _core.State, optimizer: keras.optimizers.SGD) -> None:
    """Write `state` into the variables of a ``keras.optimizers.SGD``, so that it goes on from there.

    ::

        momentum = -velocity        iterations = step_count        learning_rate = lr

    An optimizer with a schedule keeps it, and goes on where ``step_count`` says.

    Parameters
    ----------
    state : State
        Of the form ``lr_inside``.
    optimizer : keras.optimizers.SGD
        One that has been built: ``optimizer.build(model.trainable_variables)``. Its ``momentum``, ``nesterov`` and
        ``weight_decay`` have to be those of `state`: Keras compiles them into a training step as constants.

    Raises
    ------
    RuntimeError
        As in `import_state`.
    TypeError
        `optimizer` is something else, or dtypes differ.
    ValueError
        The form is another, or the two do not agree in structure, shapes or constants. Nothing is written then.

    See Also
    --------
    import_state : The other way.

    References
    ----------
    https://keras.io/api/optimizers/sgd/

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
    checked_form(state, "lr_inside", "keras.optimizers.SGD")
    paired = _paired(state.velocity, _variables(optimizer), "state.velocity")
    lr = one_number(state, "lr", list(paired), "all arrays", "Keras has one learning rate")
    momentum = one_number(state, "momentum", list(paired), "all arrays", "Keras has one momentum")
    decays = numbers_of(state, "weight_decay", list(paired))
    _checked_constants(state, optimizer, momentum, decays)
    for (variable, _), decay in zip(paired.values(), decays, strict=True):
        theirs = float(optimizer.weight_decay or 0) if _decays(optimizer, variable) else 0.0
        _checked_equal(f"optimizer.weight_decay for {variable.path}", theirs, decay)
    constant = isinstance(_private(optimizer, "_learning_rate"), keras.Variable)
    for velocity, (_, theirs) in zip(state.state_dict()["velocity"].values(), paired.values(), strict=True):
        if theirs is not None:
            theirs.assign(-velocity)
    optimizer.iterations.assign(state.step_count)
    if constant:
        optimizer.learning_rate = lr


def _variables(optimizer: Any) -> list[tuple[Any, Any]]:
    """Each variable of the model with its velocity, which is None where momentum is 0."""
    if not isinstance(optimizer, keras.optimizers.SGD):
        msg = f"optimizer must be a keras.optimizers.SGD, not {kind(optimizer)}"
        raise TypeError(msg)
    for name in REFUSED:
        value = _private(optimizer, name)
        if value:
            msg = f"optimizer.{name} must be unset, not {value!r}, which a State has not"
            raise ValueError(msg)
    if not optimizer.built:
        msg = "optimizer must be built, not new; call optimizer.build(model.trainable_variables)"
        raise ValueError(msg)
    variables = _private(optimizer, "_trainable_variables")
    momentums = _private(optimizer, "momentums") or [None] * len(variables)
    return list(zip(variables, momentums, strict=True))


def _private(optimizer: Any, name: str) -> Any:
    try:
        return getattr(optimizer, name)
    except AttributeError:
        msg = f"optimizer must have {name}, as SGD of Keras {TESTED} has, but that of {keras.__version__} has not"
        raise RuntimeError(msg) from None


def _decays(optimizer: Any, variable: Any) -> bool:
    return bool(_private(optimizer, "_use_weight_decay")(variable))


def _paired(containers: Any, variables: list[tuple[Any, Any]], where: str) -> dict[Any, tuple[Any, Any]]:
    """What leads to each array, with the variable in its place."""
    arrays = keys_of(containers)
    if len(arrays) != len(variables):
        msg = f"{where} must have {len(variables)} arrays, one for each variable of optimizer, not {len(arrays)}"
        raise ValueError(msg)
    for (keys, array), (variable, _) in zip(leaves(containers), variables, strict=True):
        like = f"the variable {variable.path}"
        if isinstance(array, np.ndarray):
            checked_like(f"{where}{path_of(keys)}", array, like, variable.shape, variable.dtype)
        if variable.constraint is not None:
            msg = f"{like} must have no constraint, not {kind(variable.constraint)}; apply it after each step"
            raise ValueError(msg)
    return dict(zip(arrays, variables, strict=True))


def _checked_constants(state: _core.State, optimizer: Any, momentum: float, decays: list[float]) -> None:
    if state.maximize:
        msg = "state.maximize must be False, as Keras minimises, not True"
        raise ValueError(msg)
    if any(decays) and not state.decoupled_weight_decay:
        msg = "state.decoupled_weight_decay must be True, as in Keras, not False"
        raise ValueError(msg)
    _checked_equal("optimizer.momentum", optimizer.momentum, momentum)
    _checked_equal("optimizer.nesterov", optimizer.nesterov and optimizer.momentum != 0, state.nesterov)


def _checked_equal(where: str, theirs: float, ours: float) -> None:
    if theirs != ours:
        msg = f"{where} must be {ours!r}, as in state, not {theirs!r}; make the optimizer with it"
        raise ValueError(msg)
