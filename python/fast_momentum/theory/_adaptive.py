"""How long a step of Adam is, and when it is a step of momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Required, TypedDict, Unpack

import numpy as np

from .. import _core
from .._keywords import explained
from ._inputs import COUNT, NOT_NEGATIVE, POSITIVE, STEP, choice, flag, numbers, plain, range_of, require
from ._iteration import stability_limit

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from ._rule import Array

ROWS = {row["form"]: row for row in _core.rules if row["rule"] == "adam"}

NUMBERS = ("lr", "beta1", "beta2", "eps")


class AdamHyperparameters(TypedDict, total=False):
    """The keywords of `fast_momentum.adam` on which the length of a step depends; numbers may be arrays."""

    lr: Required[ArrayLike]
    beta1: ArrayLike
    beta2: ArrayLike
    eps: ArrayLike
    nesterov: bool
    form: str


class Constants(NamedTuple):
    """A step of Adam, elementwise, of arrays of one shape; without Nesterov, direct is 0 and carried 1::

    v = keep*v + gain*d
    s = second_keep*s + second_gain*d*d
    param = param - scale*(direct*d + carried*v)/(sqrt(s)*correction + eps)
    """

    keep: Array
    gain: Array
    direct: Array
    carried: Array
    scale: Array
    second_keep: Array
    second_gain: Array
    correction: Array
    eps: Array

    def displacement(self, gradient: Array, velocity: Array, second_moment: Array) -> Any:
        """What the step adds to a parameter, with the moments that it has made."""
        along = self.scale * (self.direct * gradient + self.carried * velocity)
        with np.errstate(divide="ignore", invalid="ignore"):
            return plain(-along / (np.sqrt(second_moment) * self.correction + self.eps))


def settings(given: Any) -> tuple[dict[str, Array], bool, str]:
    """The numbers, whether it is Nesterov's step, and the form; checked, with the defaults of `fast_momentum.adam`."""
    known = AdamHyperparameters.__annotations__
    unknown = given.keys() - known.keys()
    if unknown:
        msg = f"adam must have keywords among {', '.join(known)} here, not {min(unknown)!r}"
        raise TypeError(msg)
    if "lr" not in given:
        msg = "adam must have the keyword lr"
        raise TypeError(msg)
    values = {**ROWS["corrected"]["defaults"], **given}
    form, nesterov = choice("form", values["form"], tuple(ROWS)), flag("nesterov", values["nesterov"])
    if nesterov and "nesterov" not in ROWS[form]["takes"]:
        msg = f"nesterov must be False in the form {form}, not True; only corrected has nesterov"
        raise ValueError(msg)
    return {name: numbers(name, values[name], range_of(name)) for name in NUMBERS}, nesterov, form


def constants(step: Array, given: AdamHyperparameters) -> Constants:
    """The constants of that step of an array, which come from the function that makes them for every step."""
    values, nesterov, form = settings(given)
    count, *arrays = np.broadcast_arrays(step, *values.values())
    each = [
        _core.coefficients("adam", form, int(t) - 1, nesterov=nesterov, **dict(zip(values, of, strict=True)))
        for t, *of in zip(*(array.ravel().tolist() for array in (count, *arrays)), strict=True)
    ]
    made = Constants(
        *(np.array([of[name] for of in each]).reshape(count.shape) for name in Constants._fields)
    )
    return made if nesterov else made._replace(carried=np.ones(count.shape))


@explained
def adam_step(
    step: ArrayLike,
    gradient: ArrayLike,
    noise: ArrayLike = 0.0,
    **hyperparameters: Unpack[AdamHyperparameters],
) -> Any:
    """Return the displacement in step t by gradients of one mean and one standard deviation, from a fresh state::

        corrected      -lr*g/(sqrt(g^2 + noise^2) + eps)
        folded         -lr*g/(sqrt(g^2 + noise^2) + eps/sqrt(1 - beta2^t))
        uncorrected    -lr*(1 - beta1^t)*g/(sqrt(1 - beta2^t)*sqrt(g^2 + noise^2) + eps)

    with g = `gradient`. Exact for a gradient that stays, without noise: then it is ``-lr*sign(g)`` in the first two
    forms, from the first step on, wherever ``|g|`` is far above eps. With noise it is the mean displacement once the
    second moment is the mean of many squares (`effective_gradients`); the first step is ``-lr*sign`` of whatever comes.

    Parameters
    ----------
    step : array_like of int
        t, from 1 on.
    gradient : array_like of float
        Of any sign.
    noise : array_like of float, default 0.0
        The standard deviation of the gradient, >= 0.
    **hyperparameters
        lr, beta1, beta2, eps, nesterov and form, as in `fast_momentum.adam`. All numbers broadcast.

    Returns
    -------
    float or ndarray
        What is added to the parameter; NaN where gradient, noise and eps are 0, as in the step.

    Raises
    ------
    TypeError, ValueError
        A number is not real, or not in its range, a name is unknown, or lr is missing.

    References
    ----------
    .. [1] Kingma, D. P., Ba, J., "Adam: a method for stochastic optimization", ICLR 2015, section 2.1.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.adam_step(1, [1e-3, -1.0, 1e3], lr=0.1).round(6)
    array([-0.099999,  0.1     , -0.1     ])
    >>> round(theory.adam_step(10_000, 1.0, noise=3.0, lr=0.1), 4)
    -0.0316
    >>> theory.adam_step([1, 10, 10_000], 1.0, lr=0.1, form="uncorrected").round(4)
    array([-0.3162, -0.6528, -0.1   ])
    """
    t, g, sigma = (
        numbers("step", step, STEP),
        numbers("gradient", gradient),
        numbers("noise", noise, NOT_NEGATIVE),
    )
    c = constants(t, hyperparameters)
    return c.displacement(g, (1 - c.keep**t) * g, (1 - c.second_keep**t) * (g * g + sigma * sigma))


@explained
def adam_spike(
    age: ArrayLike,
    silence: ArrayLike,
    gradient: ArrayLike = 1.0,
    **hyperparameters: Unpack[AdamHyperparameters],
) -> Any:
    """Return the displacement `age` steps after a single gradient, before and after which all gradients are 0::

        -lr * (1 - beta1)/sqrt(1 - beta2) * (beta1/sqrt(beta2))^age

    after a long silence, far above eps: 3.2 times lr at first with the usual betas, and 32 times lr in all. In general
    ``t = silence + 1 + age`` and ``v = (1-beta1)*beta1^age*gradient``, ``s = (1-beta2)*beta2^age*gradient^2``.

    Parameters
    ----------
    age : array_like of int
        Steps since the gradient, 0 or more.
    silence : array_like of int
        The steps with a gradient of 0 before it, 0 or more.
    gradient : array_like of float, default 1.0
        Of any sign.
    **hyperparameters
        As in `adam_step`.

    Returns
    -------
    float or ndarray
        What is added to the parameter in that step.

    Raises
    ------
    TypeError, ValueError
        As in `adam_step`.

    See Also
    --------
    adam_bound : what other gradients can do.

    References
    ----------
    .. [1] Kingma, D. P., Ba, J., "Adam: a method for stochastic optimization", ICLR 2015, section 2.1.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import theory
    >>> theory.adam_spike([0, 1, 2, 50], 100_000, lr=0.1).round(4)
    array([-0.3162, -0.2847, -0.2564, -0.0017])
    >>> theory.adam_spike(np.arange(1000), 100_000, lr=0.1).sum().round(3).item()
    -3.177
    """
    j, before = numbers("age", age, COUNT), numbers("silence", silence, COUNT)
    g = numbers("gradient", gradient)
    c = constants(before + 1 + j, hyperparameters)
    return c.displacement(
        np.where(j == 0, g, 0.0), c.gain * c.keep**j * g, c.second_gain * c.second_keep**j * (g * g)
    )


@explained
def adam_bound(step: ArrayLike, **hyperparameters: Unpack[AdamHyperparameters]) -> Any:
    """Return the length that step t cannot exceed, whatever the gradients, by the inequality of Cauchy and Schwarz::

        lr * (1 - beta1)/sqrt(1 - beta2) * sqrt(1 + r + r^2 + ...)       r = beta1^2/beta2

    after many steps; in general the sum has t terms, and the corrections of the form. With eps = 0 it is reached, by
    gradients that grow by ``beta2/beta1`` at each step. Where r is 1 or more, as with beta2 below beta1^2, there is no
    bound for all steps.

    Parameters
    ----------
    step : array_like of int
        t, from 1 on.
    **hyperparameters
        As in `adam_step`; eps has no part in it.

    Returns
    -------
    float or ndarray
        In the unit of the parameters. inf where beta2 is 0 and beta1 is not, from the second step on.

    Raises
    ------
    TypeError, ValueError
        As in `adam_step`.

    References
    ----------
    .. [1] Kingma, D. P., Ba, J., "Adam: a method for stochastic optimization", ICLR 2015, whose section 2.1 has the
       first factor alone, which is the step after a long silence (`adam_spike`).

    Examples
    --------
    >>> from fast_momentum import theory
    >>> theory.adam_bound([1, 2, 10, 10_000], lr=1.0).round(3)
    array([1.   , 1.001, 1.043, 7.27 ])
    """
    t = numbers("step", step, STEP)
    c = constants(t, hyperparameters)
    t, *_ = np.broadcast_arrays(t, c.keep)
    old = c.carried * c.gain
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        r = np.where(c.keep == 0, 0.0, c.keep**2 / c.second_keep)
        older = np.where(r == 1, t - 1, r * (1 - r ** (t - 1)) / (1 - r))  # r + ... + r^(t-1)
    older = np.where(t == 1, 0.0, np.where(np.isinf(r), np.inf, older))
    squares = (c.direct + old) ** 2 + np.where(old == 0, 0.0, old**2 * older)
    return plain(c.scale / c.correction * np.sqrt(squares / c.second_gain))


@explained
def adam_eps(step: ArrayLike, **hyperparameters: Unpack[AdamHyperparameters]) -> Any:
    """Return what eps is as a gradient in step t, the size at which it halves the step of `adam_step`::

        corrected    eps            folded, uncorrected    eps/sqrt(1 - beta2^t)

    Far above it a step has the length lr, whatever the gradient; far below it a step is in proportion to the gradient:
    that of `adam_as_momentum` with a second moment of 0. In the form folded it falls, for the usual beta2 by 32.

    Parameters
    ----------
    step : array_like of int
        t, from 1 on.
    **hyperparameters
        As in `adam_step`.

    Returns
    -------
    float or ndarray
        In the unit of the gradients.

    Raises
    ------
    TypeError, ValueError
        As in `adam_step`.

    References
    ----------
    .. [1] Kingma, D. P., Ba, J., "Adam: a method for stochastic optimization", ICLR 2015; its Algorithm 1 is the form
       corrected, its section 2 has folded, as another eps.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> for form in ("corrected", "folded"):
    ...     theory.adam_eps([1, 100, 10_000], lr=0.1, form=form).round(10)
    array([1.e-08, 1.e-08, 1.e-08])
    array([3.162e-07, 3.240e-08, 1.000e-08])
    """
    t = numbers("step", step, STEP)
    c = constants(t, hyperparameters)
    return plain(c.eps / (c.correction * np.sqrt(1 - c.second_keep**t)))


@explained
def adam_as_momentum(
    second_moment: ArrayLike, **hyperparameters: Unpack[AdamHyperparameters]
) -> dict[str, Any]:
    """Return the keywords of `fast_momentum.init` with which momentum makes the steps of Adam while its second moment stays::

        lr = lr/(sqrt(second_moment) + eps)        momentum = beta1        form = "ema"

    after so many steps that nothing is left to correct. With them all of `fast_momentum.theory` holds for that
    parameter: its `rate` on a quadratic, say. With a second moment of 0 it is the limit of gradients far below eps, in
    which Adam's lr is eps times that of momentum.

    Parameters
    ----------
    second_moment : array_like of float
        The mean square of the gradient, >= 0.
    **hyperparameters
        As in `adam_step`; beta2 has no part in it.

    Returns
    -------
    dict
        lr, momentum, nesterov and form.

    Raises
    ------
    TypeError, ValueError
        As in `adam_step`; or `second_moment` and eps are 0, and lr would not be finite.

    References
    ----------
    .. [1] Cohen, J. M., Ghorbani, B., et al., "Adaptive gradient methods at the edge of stability", 2022.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> found = theory.adam_as_momentum(0.25, lr=0.1, eps=0.0)
    >>> found
    {'lr': 0.2, 'momentum': 0.9, 'nesterov': False, 'form': 'ema'}
    >>> round(theory.rate(1.0, **found), 4)
    0.9487
    """
    values, nesterov, _ = settings(hyperparameters)
    mean_square = numbers("second_moment", second_moment, NOT_NEGATIVE)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        lr = values["lr"] / (np.sqrt(mean_square) + values["eps"])
    require("second_moment", mean_square, "be above 0, or eps, so that lr is finite", np.isfinite(lr))
    return {"lr": plain(lr), "momentum": plain(values["beta1"]), "nesterov": nesterov, "form": "ema"}


@explained
def adam_edge(curvature: ArrayLike, **hyperparameters: Unpack[AdamHyperparameters]) -> Any:
    """Return the root of the second moment below which Adam diverges from a minimum of that curvature::

        lr*curvature*(1 - beta1)/(2*(1 + beta1)) - eps        and 0 if that is below 0

    without Nesterov: where the lr of `adam_as_momentum` is at `stability_limit`. As Adam comes near a minimum, its second
    moment forgets the gradients on the way there, and falls to that; then the smallest disturbance grows, gradients with
    it, and it rises again. So at constant lr it stays near the edge, and the root mean square of the gradient with it:
    with the usual betas a parameter keeps a distance of lr/38 or so, whatever the curvature. Where the edge is 0, it
    comes to rest.

    Parameters
    ----------
    curvature : array_like of float
        Second derivative of the loss, > 0.
    **hyperparameters
        As in `adam_step`; beta2 has no part in it.

    Returns
    -------
    float or ndarray
        In the unit of the gradients.

    Raises
    ------
    TypeError, ValueError
        As in `adam_step`, or `curvature` is not above 0.

    References
    ----------
    .. [1] Cohen, J. M., Ghorbani, B., et al., "Adaptive gradient methods at the edge of stability", 2022.

    Examples
    --------
    >>> from fast_momentum import theory
    >>> round(theory.adam_edge(1.0, lr=0.38), 6)
    0.01
    >>> theory.adam_edge(1.0, lr=0.38, eps=0.02)
    0.0
    """
    values, nesterov, _ = settings(hyperparameters)
    bent = numbers("curvature", curvature, POSITIVE)
    limit = stability_limit(bent, momentum=values["beta1"], nesterov=nesterov, form="ema")
    return plain(np.maximum(values["lr"] / limit - values["eps"], 0.0))
