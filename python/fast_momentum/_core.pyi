# The compiled module, typed; `mypy.stubtest` holds it against the real one.

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias, TypeVar, final

import numpy as np
from _typeshed import DataclassInstance
from numpy.typing import NDArray

_Arrays: TypeAlias = NDArray[np.inexact[Any]] | Sequence[_Arrays] | Mapping[Any, _Arrays] | DataclassInstance
_Grads: TypeAlias = (
    NDArray[np.inexact[Any]]
    | np.inexact[Any]
    | Rows
    | Sequence[_Grads]
    | Mapping[Any, _Grads]
    | DataclassInstance
    | None
)
_Prefix: TypeAlias = (
    float | np.number[Any] | NDArray[Any] | Sequence[_Prefix] | Mapping[Any, _Prefix] | DataclassInstance
)
_Bound: TypeAlias = (
    float | np.number[Any] | NDArray[Any] | Sequence[_Bound] | Mapping[Any, _Bound] | DataclassInstance | None
)
_Sequence: TypeAlias = Literal["fista", "nesterov"]
_Restart: TypeAlias = Literal["gradient"]
_Form: TypeAlias = Literal["lr_outside", "lr_inside", "ema"]
_AdamForm: TypeAlias = Literal["corrected", "folded", "folded_float64", "uncorrected"]
_RmspropForm: TypeAlias = Literal["lr_outside", "lr_inside"]
_Nonfinite: TypeAlias = Literal["propagate", "raise", "skip"]
_Number: TypeAlias = float | np.number[Any]
_Params = TypeVar("_Params", bound=_Arrays)
_T = TypeVar("_T")

__all__ = [
    "ConcurrentStepError",
    "NonFiniteGradientError",
    "Rows",
    "State",
    "__version__",
    "accelerated",
    "adam",
    "get_num_threads",
    "global_norm",
    "init",
    "lion",
    "lookahead",
    "qhm",
    "rmsprop",
    "set_num_threads",
    "signum",
    "step",
]

__version__: str

class ConcurrentStepError(RuntimeError): ...
class NonFiniteGradientError(FloatingPointError): ...

@final
class Rows:
    def __new__(cls, indices: NDArray[np.integer[Any]], values: NDArray[np.floating[Any]]) -> Self: ...
    @property
    def indices(self) -> NDArray[np.integer[Any]]: ...
    @property
    def values(self) -> NDArray[np.floating[Any]]: ...
    def __reduce__(self) -> tuple[Any, tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]]: ...

@final
class State:
    # A number per array is read back as nested tuples and read-only mappings.
    @property
    def lr(self) -> Any: ...
    @lr.setter
    def lr(self, value: _Prefix) -> None: ...
    @property
    def momentum(self) -> Any: ...
    @momentum.setter
    def momentum(self, value: _Prefix) -> None: ...
    @property
    def dampening(self) -> Any: ...
    @dampening.setter
    def dampening(self, value: _Prefix) -> None: ...
    @property
    def nu(self) -> Any: ...
    @nu.setter
    def nu(self, value: _Prefix) -> None: ...
    @property
    def beta1(self) -> Any: ...
    @beta1.setter
    def beta1(self, value: _Prefix) -> None: ...
    @property
    def beta2(self) -> Any: ...
    @beta2.setter
    def beta2(self, value: _Prefix) -> None: ...
    @property
    def rho(self) -> Any: ...
    @rho.setter
    def rho(self, value: _Prefix) -> None: ...
    @property
    def eps(self) -> Any: ...
    @eps.setter
    def eps(self, value: _Prefix) -> None: ...
    @property
    def momentum_decay(self) -> float | None: ...
    @momentum_decay.setter
    def momentum_decay(self, value: _Number | None) -> None: ...
    @property
    def amsgrad(self) -> bool: ...
    @property
    def centered(self) -> bool: ...
    @property
    def weight_decay(self) -> Any: ...
    @weight_decay.setter
    def weight_decay(self, value: _Prefix) -> None: ...
    @property
    def nesterov(self) -> bool: ...
    @nesterov.setter
    def nesterov(self, value: bool | np.bool_) -> None: ...
    @property
    def decoupled_weight_decay(self) -> bool: ...
    @decoupled_weight_decay.setter
    def decoupled_weight_decay(self, value: bool | np.bool_) -> None: ...
    @property
    def maximize(self) -> bool: ...
    @maximize.setter
    def maximize(self, value: bool | np.bool_) -> None: ...
    @property
    def lower(self) -> Any: ...
    @lower.setter
    def lower(self, value: _Bound) -> None: ...
    @property
    def upper(self) -> Any: ...
    @upper.setter
    def upper(self, value: _Bound) -> None: ...
    @property
    def sequence(self) -> str | float: ...
    @property
    def restart(self) -> str | None: ...
    @restart.setter
    def restart(self, value: _Restart | None) -> None: ...
    @property
    def l1(self) -> Any: ...
    @l1.setter
    def l1(self, value: _Prefix) -> None: ...
    @property
    def clip_norm(self) -> float | None: ...
    @clip_norm.setter
    def clip_norm(self, value: _Number | None) -> None: ...
    @property
    def clip_value(self) -> float | None: ...
    @clip_value.setter
    def clip_value(self, value: _Number | None) -> None: ...
    @property
    def nonfinite(self) -> _Nonfinite: ...
    @nonfinite.setter
    def nonfinite(self, value: _Nonfinite) -> None: ...
    @property
    def average_decay(self) -> float | None: ...
    @average_decay.setter
    def average_decay(self, value: _Number | None) -> None: ...
    @property
    def rule(self) -> str: ...
    @property
    def form(self) -> Any: ...  # None where the rule has but one
    @property
    def velocity_dtype(self) -> str | None: ...
    @property
    def compensated(self) -> bool: ...
    @property
    def step_count(self) -> int: ...
    @property
    def skipped_steps(self) -> int: ...
    @property
    def grad_norm(self) -> float | None: ...
    @property
    def velocity(self) -> Any: ...
    @property
    def second_moment(self) -> Any: ...
    @property
    def second_moment_maximum(self) -> Any: ...
    @property
    def mean(self) -> Any: ...
    @property
    def iterate(self) -> Any: ...
    @property
    def average(self) -> Any: ...
    def swap_average(self, params: _Arrays) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], strict: bool = True) -> None: ...
    def reset(self, path: str | None = None) -> None: ...
    def to_form(self, form: _Form | _AdamForm) -> State: ...
    def set_lr(self, lr: _Prefix, rescale_velocity: bool | np.bool_ = True) -> None: ...
    def _lend(self, params: _Arrays, use: Callable[[dict[str, Any], list[Any], list[Any]], _T]) -> _T: ...
    def _fill(
        self,
        params: _Arrays,
        description: dict[str, Any],
        use: Callable[[list[Any], list[Any]], object],
    ) -> None: ...
    def _scale_velocities(self, factors: Sequence[float]) -> None: ...
    def __copy__(self) -> State: ...
    def __deepcopy__(self, memo: Any) -> State: ...
    def __reduce__(self) -> tuple[Any, tuple[Any, dict[str, Any]]]: ...

def init(
    params: _Arrays,
    *,
    lr: _Prefix,
    momentum: _Prefix = 0.9,
    dampening: _Prefix = 0.0,
    nesterov: bool | np.bool_ = False,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    form: _Form = "lr_outside",
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
    average_decay: _Number | None = None,
    velocity_dtype: Any = None,  # a name, or what numpy.dtype() takes
    compensated: bool | np.bool_ = False,
) -> State: ...
def qhm(
    params: _Arrays,
    *,
    lr: _Prefix,
    momentum: _Prefix = 0.999,
    nu: _Prefix = 0.7,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
    average_decay: _Number | None = None,
    velocity_dtype: Any = None,
    compensated: bool | np.bool_ = False,
) -> State: ...
def adam(
    params: _Arrays,
    *,
    lr: _Prefix,
    beta1: _Prefix = 0.9,
    beta2: _Prefix = 0.999,
    eps: _Prefix = 1e-08,
    nesterov: bool | np.bool_ = False,
    momentum_decay: _Number | None = None,
    amsgrad: bool | np.bool_ = False,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    form: _AdamForm = "corrected",
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
    average_decay: _Number | None = None,
    velocity_dtype: Any = None,
    compensated: bool | np.bool_ = False,
) -> State: ...
def lion(
    params: _Arrays,
    *,
    lr: _Prefix,
    beta1: _Prefix = 0.9,
    beta2: _Prefix = 0.99,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
    average_decay: _Number | None = None,
    velocity_dtype: Any = None,
    compensated: bool | np.bool_ = False,
) -> State: ...
def signum(
    params: _Arrays,
    *,
    lr: _Prefix,
    momentum: _Prefix = 0.9,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
    average_decay: _Number | None = None,
    velocity_dtype: Any = None,
    compensated: bool | np.bool_ = False,
) -> State: ...
def rmsprop(
    params: _Arrays,
    *,
    lr: _Prefix,
    momentum: _Prefix = 0.0,
    rho: _Prefix = 0.99,
    eps: _Prefix = 1e-08,
    centered: bool | np.bool_ = False,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    form: _RmspropForm = "lr_outside",
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
    average_decay: _Number | None = None,
    velocity_dtype: Any = None,
    compensated: bool | np.bool_ = False,
) -> State: ...
def accelerated(
    params: _Arrays,
    *,
    lr: _Prefix,
    sequence: _Sequence | _Number = "fista",
    restart: _Restart | None = None,
    l1: _Prefix = 0.0,
    weight_decay: _Prefix = 0.0,
    decoupled_weight_decay: bool | np.bool_ = False,
    maximize: bool | np.bool_ = False,
    lower: _Bound = None,
    upper: _Bound = None,
    clip_norm: _Number | None = None,
    clip_value: _Number | None = None,
    nonfinite: _Nonfinite = "propagate",
) -> State: ...
def step(
    params: _Arrays,
    grads: _Grads,
    state: State,
    *,
    grad_scale: _Number = 1.0,
    zero_grads: bool | np.bool_ = False,
    prox: Callable[[Any], None] | None = None,
) -> None: ...
def global_norm(grads: _Grads) -> float: ...
def lookahead(params: _Params, state: State, out: _Params | None = None) -> _Params: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...

# Not public.
settings: dict[str, dict[str, Any]]  # the tables of src/plain
rules: list[dict[str, Any]]
_C_API: object  # capsules
_C_API_2: object
_pyx_capi: dict[str, object]

def unpickled(containers: Any, rest: dict[str, Any]) -> State: ...
def kept_elsewhere(rule: str, params: _Arrays, **settings: Any) -> State: ...
def step_elsewhere(
    params: _Arrays,
    grads: _Grads,
    state: State,
    grad_scale: _Number,
    zero_grads: bool | np.bool_,
    use: Callable[[list[Any], list[Any]], tuple[bool, float | None]],
) -> None: ...
def clipped_step(
    params: _Arrays, grads: _Grads, state: State, grad_scale: float, clip_coefficient: float
) -> None: ...
def sums_of_squares(grads: _Grads, scale: float, factor: float) -> NDArray[np.float64]: ...
def norm_of_blocks(
    blocks: Callable[[float], NDArray[np.float64]], has_float64: bool
) -> tuple[float, bool]: ...
def all_finite(grads: _Grads, scale: float) -> bool: ...
def coefficients(rule: str, form: str | None, steps: int, **settings: float) -> dict[str, float]: ...
def config() -> dict[str, Any]: ...
def disable_isas(names: str) -> list[str]: ...
def use_isa(name: str) -> bool: ...
def usable_threads() -> int: ...
def cgroup_cpus(root: str) -> int: ...
