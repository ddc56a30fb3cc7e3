"""The same steps in another form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from .._keywords import explained
from ._inputs import plain, require
from ._rule import Hyperparameters, defaults, form_name, momentum_alone, rule

if TYPE_CHECKING:
    from ._rule import Array

DEFAULTS: dict[str, Any] = defaults()


class Conversion(NamedTuple):
    """The factors by which numbers change."""

    lr: Array
    velocity: Array


def conversion(to_form: str, hyperparameters: Hyperparameters) -> Conversion:
    """What makes ``scale*gain``, the displacement by a new gradient, and ``scale*velocity`` stay the same."""
    momentum_alone(hyperparameters, "to be converted")
    old = rule(**hyperparameters)
    given: dict[str, Any] = {**DEFAULTS, **hyperparameters}
    if given["form"] == form_name(to_form, "to_form"):
        return Conversion(np.ones_like(old.scale), np.ones_like(old.scale))
    unit, old_unit = rule(lr=1.0, momentum=given["momentum"], form=to_form), rule(**{**given, "lr": 1.0})
    dampening = np.asarray(given["dampening"], np.float64)
    require("dampening", dampening, f"be below 1 to convert to the form {to_form}", dampening < 1)
    factor = (old_unit.scale * old_unit.gain) / (unit.scale * unit.gain)
    lr = np.asarray(given["lr"], np.float64)
    new = rule(lr=lr * factor, momentum=given["momentum"], form=to_form)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # As scale*gain is the same in both, so is what a velocity does.
        velocity = new.gain / old.gain
    lr, velocity = np.broadcast_arrays(lr, velocity)
    words = f"be above 0, and not too small, to convert a velocity to the form {to_form}"
    require("lr", lr, words, np.isfinite(velocity))
    return Conversion(factor, velocity)


@explained
def convert(to_form: str, **hyperparameters: Unpack[Hyperparameters]) -> dict[str, Any]:
    """Return the keywords of `fast_momentum.init` that make the same steps in another form::

        from lr_outside to    lr                   velocity    decoupled weight_decay w
        lr_inside             (1-t)*lr             lr*v        w/(1-t)
        ema                   (1-t)/(1-m)*lr       (1-m)/(1-t)*v    (1-m)/(1-t)*w

    with ``m = momentum`` and ``t = dampening``, which becomes 0; the other directions are the inverse ones with ``t = 0``.
    Momentum, coupled weight decay and the flags stay.

    Parameters
    ----------
    to_form : {'lr_outside', 'lr_inside', 'ema'}
        The form to have.
    **hyperparameters
        The keywords of `fast_momentum.init`, with the same defaults. The numbers may be arrays, which broadcast.

    Returns
    -------
    dict
        All keywords of `fast_momentum.init`. Equal up to rounding while lr and momentum stay; from the first step on
        where dampening was 0, else from the second step on, as the first one of the form lr_outside is not damped.

    Raises
    ------
    TypeError, ValueError
        As in `iteration_matrix`; or lr is 0, or dampening 1, and the velocity of the new form would have no finite value.

    See Also
    --------
    velocity_factor : what to multiply the velocity with.
    fast_momentum.State.to_form : the same for a state.

    References
    ----------
    .. [1] Sutskever, I., Martens, J., Dahl, G., Hinton, G., "On the importance of initialization and momentum in deep
       learning", ICML 2013.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> found = theory.convert("ema", lr=0.5, momentum=0.75, weight_decay=0.01, decoupled_weight_decay=True)
    >>> found["lr"], found["momentum"], found["weight_decay"], found["form"]
    (2.0, 0.75, 0.0025, 'ema')
    """
    factors = conversion(to_form, hyperparameters)
    found: dict[str, Any] = {**DEFAULTS, **hyperparameters}
    if to_form == found["form"]:
        return found
    found |= {"form": to_form, "dampening": 0.0, "lr": plain(np.asarray(found["lr"]) * factors.lr)}
    if found["decoupled_weight_decay"]:
        found["weight_decay"] = plain(np.asarray(found["weight_decay"]) / factors.lr)
    return found


@explained
def velocity_factor(to_form: str, **hyperparameters: Unpack[Hyperparameters]) -> Any:
    """Return what a velocity has to be multiplied with to be that of another form; `convert` has the table.

    Parameters
    ----------
    to_form : {'lr_outside', 'lr_inside', 'ema'}
        The form to have.
    **hyperparameters
        Those of the form that it is in; see `convert`.

    Returns
    -------
    float or ndarray
        The factor.

    Raises
    ------
    TypeError, ValueError
        As in `convert`.

    References
    ----------
    .. [1] Sutskever, I., Martens, J., Dahl, G., Hinton, G., "On the importance of initialization and momentum in deep
       learning", ICML 2013.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.velocity_factor("lr_inside", lr=0.1)
    0.1
    """
    return plain(conversion(to_form, hyperparameters).velocity)
