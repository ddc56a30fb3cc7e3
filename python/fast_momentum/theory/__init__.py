"""What momentum does on a quadratic, in closed form: rates, limits, the best hyperparameters, noise, and conversions;
and how long a step of Adam is.

Everything that takes hyperparameters is computed from the constants with which `fast_momentum.step` works, for all forms
and the options of the rule; the options of the whole update (clip_norm, clip_value, average_decay and so on) have no part in
it. The numbers may be arrays, which broadcast against each other; where all are scalars, a scalar is returned.
"""

from ._adaptive import (
    adam_as_momentum,
    adam_bound,
    adam_edge,
    adam_eps,
    adam_spike,
    adam_step,
)
from ._conversion import convert, velocity_factor
from ._description import Description, describe
from ._iteration import (
    critical_momentum,
    envelope,
    iteration_matrix,
    period,
    rate,
    regime,
    stability_limit,
    trajectory,
)
from ._memory import (
    cutoff_frequency,
    displacement_weights,
    effective_gradients,
    effective_lr,
    frequency_response,
    half_life,
    time_constant,
    variance_reduction,
    velocity_weights,
)
from ._noise import heavy_ball_variance, nesterov_threshold, stationary_covariance
from ._optimal import Tuning, optimal
from ._physics import Physics, continuous_trajectory, from_physics, to_physics

__all__ = [
    "Description",
    "Physics",
    "Tuning",
    "adam_as_momentum",
    "adam_bound",
    "adam_edge",
    "adam_eps",
    "adam_spike",
    "adam_step",
    "continuous_trajectory",
    "convert",
    "critical_momentum",
    "cutoff_frequency",
    "describe",
    "displacement_weights",
    "effective_gradients",
    "effective_lr",
    "envelope",
    "frequency_response",
    "from_physics",
    "half_life",
    "heavy_ball_variance",
    "iteration_matrix",
    "nesterov_threshold",
    "optimal",
    "period",
    "rate",
    "regime",
    "stability_limit",
    "stationary_covariance",
    "time_constant",
    "to_physics",
    "trajectory",
    "variance_reduction",
    "velocity_factor",
    "velocity_weights",
]
