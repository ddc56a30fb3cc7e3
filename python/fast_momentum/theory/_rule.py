"""The constants of a step, as arrays: they come from the function that makes them for every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict, Unpack

import numpy as np

from .. import _core
from .._keywords import Unnamed, message
from ._inputs import choice, flag, numbers, range_of, require

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


class Settings(TypedDict, total=False):
    """The keywords of `fast_momentum.init` and of the functions of other rules but lr; numbers may be arrays."""

    rule: str
    momentum: ArrayLike
    dampening: ArrayLike
    nu: ArrayLike
    nesterov: bool
    weight_decay: ArrayLike
    decoupled_weight_decay: bool
    maximize: bool
    form: str


class Hyperparameters(Settings, total=False):
    """The keywords of `fast_momentum.init` and of the functions of other rules."""

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


def rows(rule: str = "momentum") -> list[dict[str, Any]]:
    """What each form of a rule takes, which must be a linear one."""
    linear = [row for row in _core.rules if row["linear"]]
    choice("rule", rule, tuple(dict.fromkeys(row["rule"] for row in linear)))
    return [row for row in linear if row["rule"] == rule]


def forms(rule: str = "momentum") -> tuple[str, ...]:
    return tuple(row["form"] for row in rows(rule) if row["form"])


def form_name(value: Any, name: str = "form") -> str:
    return choice(name, value, forms())


def defaults(rule: str = "momentum") -> dict[str, Any]:
    """The keywords of a rule that are about its constants, but lr, with their defaults."""
    return {
        name: value
        for name, value in {k: v for row in rows(rule) for k, v in row["defaults"].items()}.items()
        if name == "form"
        or (_core.settings[name]["kind"] in ("number", "flag") and not _core.settings[name]["fixed"])
    }


def rule(first: bool = False, /, **given: Unpack[Hyperparameters]) -> Rule:
    """The constants of these hyperparameters, in the shape that they broadcast to; `first`: of an array's first step."""
    settings: dict[str, Any] = {**given}
    name = settings.pop("rule", "momentum")
    allowed = defaults(name)
    unknown = settings.keys() - allowed.keys() - {"lr"}
    if unknown or "lr" not in settings:
        names = ("lr", *allowed)
        raise Unnamed(message("", given, 0, names, ("lr",), 0))
    settings = {"lr": settings["lr"]} | allowed | settings
    form = choice("form", settings.pop("form"), forms(name)) if forms(name) else None
    flags = {
        key: flag(key, value) for key, value in settings.items() if _core.settings[key]["kind"] == "flag"
    }
    arrays = {key: numbers(key, value, range_of(key)) for key, value in settings.items() if key not in flags}
    if "dampening" in arrays:
        check_dampening(arrays["dampening"], flags["nesterov"], form)
    each = [
        _core.coefficients(name, form, 0 if first else 1, **dict(zip(arrays, values, strict=True)), **flags)
        for values in zip(*(a.ravel().tolist() for a in np.broadcast_arrays(*arrays.values())), strict=True)
    ]
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    made = Rule(*(np.array([of[field] for of in each]).reshape(shape) for field in Rule._fields))
    if all(of["nesterov"] for of in each):
        return made
    return made._replace(direct=np.zeros_like(made.direct), carried=np.ones_like(made.carried))


def checked_momentum(state: Any, to_what: str) -> None:
    """Refuse a state of another rule, whose formulas are others."""
    if state.rule != "momentum":
        msg = f"state must be of the rule momentum {to_what}, not {state.rule}; init() makes such a state"
        raise ValueError(msg)


def momentum_alone(hyperparameters: Any, to_what: str) -> None:
    """Refuse the hyperparameters of another rule."""
    given = hyperparameters.get("rule", "momentum")
    if given != "momentum":
        msg = f"rule must be 'momentum' {to_what}, not {given!r}"
        raise ValueError(msg)


def check_dampening(dampening: Array, nesterov: bool, form: str | None) -> None:
    """What `init` and `step` refuse."""
    if form != "lr_outside":
        require("dampening", dampening, f"be 0 in the form {form}", dampening == 0)
    if nesterov:
        require("dampening", dampening, "be 0 where nesterov is True", dampening == 0)
