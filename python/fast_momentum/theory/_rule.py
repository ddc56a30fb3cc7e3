"""The constants of a step, as arrays: they come from the function that makes them for every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict

import numpy as np

from .. import _core
from ._inputs import DAMPENING, MOMENTUM, NOT_NEGATIVE, flag, form_name, numbers, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


class Settings(TypedDict, total=False):
    """The keywords of `fast_momentum.init` but lr; numbers may be arrays."""

    momentum: ArrayLike
    dampening: ArrayLike
    nesterov: bool
    weight_decay: ArrayLike
    decoupled_weight_decay: bool
    maximize: bool
    form: str


class Hyperparameters(Settings, total=False):
    """The keywords of `fast_momentum.init`."""

    lr: Required[ArrayLike]


class Rule(NamedTuple):
    """One step, elementwise, of arrays of one shape; without Nesterov, direct is 0 and carried 1::

    d = sign*grad + weight_decay*param
    v = keep*v + gain*d
    param = param - scale*(direct*d + carried*v) - decay*param
    """

    sign: Array
    weight_decay: Array
    keep: Array
    gain: Array
    direct: Array
    carried: Array
    scale: Array
    decay: Array


def rule(
    first: bool = False,
    /,
    *,
    lr: ArrayLike,
    momentum: ArrayLike = 0.9,
    dampening: ArrayLike = 0.0,
    nesterov: bool = False,
    weight_decay: ArrayLike = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    form: str = "lr_outside",
) -> Rule:
    """The rule of these hyperparameters, in the shape that they broadcast to; `first`: of an array's first step."""
    given = {
        "lr": numbers("lr", lr, NOT_NEGATIVE),
        "momentum": numbers("momentum", momentum, MOMENTUM),
        "dampening": numbers("dampening", dampening, DAMPENING),
        "weight_decay": numbers("weight_decay", weight_decay, NOT_NEGATIVE),
    }
    nesterov = flag("nesterov", nesterov)
    options = {
        "nesterov": nesterov,
        "decoupled_weight_decay": flag("decoupled_weight_decay", decoupled_weight_decay),
        "maximize": flag("maximize", maximize),
        "first": first,
    }
    check_dampening(given["dampening"], nesterov, form_name(form))
    arrays = np.broadcast_arrays(*given.values())
    columns: Any = [array.ravel().tolist() for array in arrays]
    each = [
        _core.coefficients(form, **dict(zip(given, values, strict=True)), **options)
        for values in zip(*columns, strict=True)
    ]
    made = Rule(*(np.array([of[name] for of in each]).reshape(arrays[0].shape) for name in Rule._fields))
    if nesterov:
        return made
    return made._replace(direct=np.zeros_like(made.direct), carried=np.ones_like(made.carried))


def check_dampening(dampening: Array, nesterov: bool, form: str) -> None:
    """What `init` and `step` refuse."""
    if form != "lr_outside":
        require("dampening", dampening, f"be 0 in the form {form}", dampening == 0)
    if nesterov:
        require("dampening", dampening, "be 0 where nesterov is True", dampening == 0)
