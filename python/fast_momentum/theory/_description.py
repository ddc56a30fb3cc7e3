"""A state and a range of curvatures, in one short table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .._keywords import explained
from ._conversion import DEFAULTS
from ._inputs import POSITIVE, curvature_range, one
from ._iteration import rate, regime, stability_limit
from ._memory import effective_lr, half_life
from ._optimal import optimal
from ._rule import checked_momentum

if TYPE_CHECKING:
    from .. import State
    from ._optimal import Tuning


@dataclass(frozen=True)
class Description:
    """What `describe` has found; it prints as a table."""

    curvature: tuple[float, float]
    lr: float
    momentum: float
    regime: tuple[str, str]
    rate: float
    half_life: float
    memory: float
    effective_lr: float
    stability_limit: float
    optimal: Tuning

    @property
    def distance_to_limit(self) -> float:
        """The factor by which lr may grow before it diverges."""
        return self.stability_limit / self.lr if self.lr else np.inf

    def __repr__(self) -> str:
        low, high = self.curvature
        name = "Nesterov" if self.optimal.nesterov else "the heavy ball"
        factor = self.distance_to_limit
        place = f"{factor:.3g} times below" if factor >= 1 else f"{1 / factor:.3g} times above"
        if f"{factor:.3g}" == "1":
            place = "at"
        rows = {
            "curvature": f"{low:.4g} to {high:.4g}, kappa {high / low:.4g}",
            "regime": f"{self.regime[0]} at {low:.4g}, {self.regime[1]} at {high:.4g}",
            "rate": f"{self.rate:.6g} per step",
            "half-life of the error": f"{self.half_life:.3g} steps",
            "half-life of a gradient": f"{self.memory:.3g} steps",
            "effective lr": f"{self.effective_lr:.4g}",
            "lr": f"{self.lr:.4g}, {place} the limit {self.stability_limit:.4g}",
            f"best of {name}": f"lr {self.optimal.lr:.4g}, momentum {self.optimal.momentum:.4g}, "
            f"rate {self.optimal.rate:.6g}, half-life {half_life(self.optimal.rate):.3g} steps",
        }
        width = max(map(len, rows))
        return "\n".join(f"{row:{width}}  {text}" for row, text in rows.items())


@explained
def describe(state: State, curvature: tuple[float, float]) -> Description:
    """Return what the hyperparameters of a state do on a quadratic with a range of curvatures.

    The formulas are those of `rate`, `regime`, `half_life`, `effective_lr`, `stability_limit` and `optimal`.

    Parameters
    ----------
    state : fast_momentum.State
        With one number for lr, momentum, dampening and weight decay each. Not modified.
    curvature : tuple of two floats
        ``(l_min, l_max)``, with ``0 < l_min <= l_max``: smallest and largest second derivative of the loss.

    Returns
    -------
    Description
        Printed, a table. Its attributes are curvature, lr, momentum, regime (at l_min and at l_max), rate (the larger of
        both), half_life (of the error, in steps), memory (half-life of a gradient in the velocity, in steps),
        effective_lr, stability_limit, distance_to_limit (the factor by which lr may grow) and optimal, a `Tuning` for
        the form and the dampening of the state: that of ``nesterov_quadratic`` where nesterov is True, else that of
        ``heavy_ball``. A coupled weight decay adds to the curvature; a decoupled one is left out of optimal. Options of the
        whole update, such as clip_norm, are left out of all: where they act, steps are others.

    Raises
    ------
    TypeError, ValueError
        The curvature is not such a range, or a hyperparameter has a number per array.

    References
    ----------
    .. [1] Goh, G., "Why momentum really works", Distill, 2017, https://doi.org/10.23915/distill.00006

    Examples
    --------
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> fm.theory.describe(fm.init(np.zeros(2), lr=0.01, momentum=0.9), curvature=(1, 100))
    curvature                1 to 100, kappa 100
    regime                   underdamped at 1, underdamped at 100
    rate                     0.948683 per step
    half-life of the error   13.2 steps
    half-life of a gradient  6.58 steps
    effective lr             0.1
    lr                       0.01, 3.8 times below the limit 0.038
    best of the heavy ball   lr 0.03306, momentum 0.6694, rate 0.818182, half-life 3.45 steps
    """
    try:
        l_min, l_max = curvature
    except (TypeError, ValueError):
        msg = f"curvature must be a pair (l_min, l_max), not {curvature!r}"
        raise TypeError(msg) from None
    low, high = one("l_min", l_min, POSITIVE), one("l_max", l_max, POSITIVE)
    curvature_range(low, high)
    options = _hyperparameters(state)
    settings = {name: value for name, value in options.items() if name != "lr"}
    bent = np.array([-low, -high] if state.maximize else [low, high])
    found = rate(bent, **options)
    return Description(
        curvature=(low, high),
        lr=state.lr,
        momentum=state.momentum,
        regime=(regime(bent[0], **options), regime(bent[1], **options)),
        rate=float(found.max()),
        half_life=float(half_life(found.max())),
        memory=float(half_life(state.momentum)),
        effective_lr=float(effective_lr(**options)),
        stability_limit=float(stability_limit(bent[1], **settings)),
        optimal=_optimal(state, low, high),
    )


def _optimal(state: State, low: float, high: float) -> Tuning:
    decay = 0.0 if state.decoupled_weight_decay else state.weight_decay
    method = "nesterov_quadratic" if state.nesterov else "heavy_ball"
    best = optimal(low + decay, high + decay, method=method, form=state.form)
    return best._replace(lr=best.lr / (1 - state.dampening) if state.dampening < 1 else np.inf)


def _hyperparameters(state: State) -> Any:
    try:
        checked_momentum(state, "to be described")
        found = {name: getattr(state, name) for name in ("lr", *DEFAULTS)}
    except AttributeError:
        msg = f"state must be a State, not {type(state).__name__}"
        raise TypeError(msg) from None
    for name, value in found.items():
        if not isinstance(value, (float, bool, str)):
            msg = f"state.{name} must be one number, not one per array; call theory.rate with the numbers of an array"
            raise TypeError(msg)
    return found
