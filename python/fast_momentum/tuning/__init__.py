"""Learning rates and momenta: schedules, the curvature estimated while training, and tuners that set both."""

from .autotuner import AutoTuner
from .curvature import CurvatureRange, CurvatureWindow, ritz_values
from .range_test import RangeTest, range_test
from .schedules import (
    OneCycle,
    constant,
    cosine,
    demon,
    inverse_square_root,
    one_cycle,
    step_decay,
    warmup,
)
from .yellowfin import YellowFin, single_step

__all__ = [
    "AutoTuner",
    "CurvatureRange",
    "CurvatureWindow",
    "OneCycle",
    "RangeTest",
    "YellowFin",
    "constant",
    "cosine",
    "demon",
    "inverse_square_root",
    "one_cycle",
    "range_test",
    "ritz_values",
    "single_step",
    "step_decay",
    "warmup",
]
