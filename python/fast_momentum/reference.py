"""The momentum step in plain NumPy: the executable specification.

`update` is the definition of the step, `prepare` of what happens to a gradient before it, `round_to` of what a
narrower dtype stores, and `global_norm` of the norm; the kernels equal them bit for bit. The rest walks containers
and keeps state. Arrays are worked on in float64 where params are float64, in float32 where they are narrower, and as
pairs of these where they are complex.
This module needs NumPy alone, shares no code with the kernels, and takes good input for granted: it is
`fast_momentum.init` and `fast_momentum.step` that refuse what is wrong.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ._containers import Keys, as_dict, at, leaves, made, mapped, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Slots = dict[str, Array]  # what is kept of an array, by name

__all__ = [
    "State",
    "accelerated",
    "adam",
    "dither",
    "global_norm",
    "init",
    "lion",
    "lookahead",
    "prepare",
    "qhm",
    "rmsprop",
    "round_to",
    "signum",
    "step",
    "update",
]

# What is fixed when a state is made; all else of its settings is among the hyperparameters of a checkpoint.
FIXED = ("form", "sequence", "amsgrad", "centered", "velocity_dtype", "compensated")

# Significant bits, the least exponent of a normal number, and the one from which numbers are infinite.
NARROW = {"float16": (11, -14, 16), "bfloat16": (8, -126, 128)}

NORM_BLOCK, RESTART_BLOCK, LANES = 4096, 512, 16
INT8_BLOCK, INT8_MOST = 256, 127
SMALLEST_NORMAL = np.float32(2**-126)


def update(
    param: Array,
    grad: Array,
    velocity: Array,
    *,
    first: bool,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    decoupled_weight_decay: bool,
    maximize: bool,
    form: str,
) -> tuple[Array, Array]:
    """Return the new `(param, velocity)` of one array; nothing is modified.

    With ``d`` the gradient, negated if `maximize`, plus ``weight_decay*param`` if the decay is coupled::

        lr_outside   v = momentum*v + (1-dampening)*d     u = d + momentum*v               p = p - lr*u
        lr_inside    v = momentum*v + lr*d                u = lr*d + momentum*v            p = p - u
        ema          v = momentum*v + (1-momentum)*d      u = (1-momentum)*d + momentum*v  p = p - lr*u

    ``u`` is ``v`` unless `nesterov`. The first step of an array in lr_outside is ``v = 0*v + d``. Decoupled
    decay makes the last line ``p = p - (lr*u + lr*weight_decay*p)``. Each operation rounds once to the dtype
    of `param`; constants are formed in double and rounded once.

    Parameters
    ----------
    param, grad, velocity : ndarray
        Of one shape and one dtype, float32 or float64.
    first : bool
        Whether this is the first step of this array.
    lr, momentum, dampening, nesterov, weight_decay, decoupled_weight_decay, maximize, form
        As in `fast_momentum.init`, a number or flag for this array.

    Returns
    -------
    param, velocity : ndarray
        New arrays (scalars where `param` is 0-d).

    Examples
    --------
    The worked example J = theta**2 of many texts: theta goes from 5 to 4, the velocity from 0 to 1.

    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> theta = np.array([5.0])
    >>> theta, v = reference.update(theta, 2 * theta, np.zeros(1), first=True, lr=0.1, momentum=0.9,
    ...     dampening=0, nesterov=False, weight_decay=0, decoupled_weight_decay=False, maximize=False,
    ...     form="lr_inside")
    >>> print(theta, v)
    [4.] [1.]
    """
    h = locals()  # the hyperparameters are in it
    age = Age(0 if first else 1)
    displacement, slots = _displacement("momentum", form, param, grad, {"velocity": velocity}, age, h)
    with np.errstate(all="ignore"):
        return param - displacement, slots["velocity"]


class Age(NamedTuple):
    """What an array has behind it: its steps, and what they have made of 1.

    In Adam that is the product of the beta1 of each of them; in `accelerated`, where it is in its sequence.
    """

    steps: int = 0
    history: float = 1.0


def _displacement(
    rule: str, form: str | None, param: Array, grad: Array, slots: Slots, age: Age, h: dict[str, Any]
) -> tuple[Array, Slots]:
    """What a step subtracts from `param`, and what the array then keeps."""
    rounded = param.dtype.type
    with np.errstate(all="ignore"):
        d = -grad if h["maximize"] else grad
        if h["weight_decay"] != 0 and not h["decoupled_weight_decay"]:
            d = d + rounded(h["weight_decay"]) * param
        displacement, slots = RULES[rule][0](d, slots, age, form, h)
        if h["weight_decay"] != 0 and h["decoupled_weight_decay"]:
            displacement = displacement + rounded(h["lr"] * h["weight_decay"]) * param
        return displacement, slots


def _momentum(d: Array, slots: Slots, age: Age, form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    velocity, rounded = slots["velocity"], d.dtype.type
    m, lr = rounded(h["momentum"]), rounded(h["lr"])
    if form == "lr_outside":
        v = m * velocity + rounded(1 - h["dampening"]) * d if age.steps else rounded(0) * velocity + d
        displacement = lr * (d + m * v if h["nesterov"] else v)
    elif form == "lr_inside":
        v = m * velocity + lr * d
        displacement = lr * d + m * v if h["nesterov"] else v
    else:
        v = m * velocity + rounded(1 - h["momentum"]) * d
        displacement = lr * (rounded(1 - h["momentum"]) * d + m * v if h["nesterov"] else v)
    return displacement, {"velocity": v}


def _qhm(d: Array, slots: Slots, _age: Age, _form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    rounded = d.dtype.type
    v = rounded(h["momentum"]) * slots["velocity"] + rounded(1 - h["momentum"]) * d
    return rounded(h["lr"]) * (rounded(1 - h["nu"]) * d + rounded(h["nu"]) * v), {"velocity": v}


def _adam(d: Array, slots: Slots, age: Age, form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    rounded, t = d.dtype.type, age.steps + 1
    beta1, beta2, size = h["beta1"], h["beta2"], h["lr"]
    v = rounded(beta1) * slots["velocity"] + rounded(1 - beta1) * d
    s = rounded(beta2) * slots["second_moment"] + rounded(1 - beta2) * (d * d)
    new = {"velocity": v, "second_moment": s}
    u, q, correction = v, s, 1.0
    if h["amsgrad"]:
        q = new["second_moment_maximum"] = np.maximum(slots["second_moment_maximum"], s)
    if form == "corrected":
        correction = 1 / math.sqrt(1 - beta2**t)
    elif form != "uncorrected":
        size = size * math.sqrt(1 - beta2**t)
    if h["nesterov"]:
        if h["momentum_decay"] is None:
            direct, carried = (1 - beta1) / (1 - beta1**t), beta1 / (1 - beta1 ** (t + 1))
        else:
            mu, following = _momentum_of(h, t), _momentum_of(h, t + 1)
            product = age.history * mu
            direct, carried = (1 - mu) / (1 - product), following / (1 - product * following)
        u = rounded(direct) * d + rounded(carried) * v
    elif form != "uncorrected":
        size = size / (1 - beta1**t)
    if form == "folded_float64":
        return np.float64(size) * u / (np.sqrt(q) * rounded(correction) + rounded(h["eps"])), new
    return rounded(size) * u / (np.sqrt(q) * rounded(correction) + rounded(h["eps"])), new


def _momentum_of(h: dict[str, Any], t: int) -> float:
    """The beta1 of step t."""
    found: float = h["beta1"] * (1 - 0.5 * 0.96 ** (t * h["momentum_decay"]))
    return found


def _lion(d: Array, slots: Slots, _age: Age, _form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    rounded, velocity = d.dtype.type, slots["velocity"]
    u = np.sign(rounded(h["beta1"]) * velocity + rounded(1 - h["beta1"]) * d)
    return rounded(h["lr"]) * u, {"velocity": rounded(h["beta2"]) * velocity + rounded(1 - h["beta2"]) * d}


def _signum(d: Array, slots: Slots, _age: Age, _form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    rounded = d.dtype.type
    v = rounded(h["momentum"]) * slots["velocity"] + rounded(1 - h["momentum"]) * d
    return rounded(h["lr"]) * np.sign(v), {"velocity": v}


def _rmsprop(d: Array, slots: Slots, _age: Age, form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    rounded = d.dtype.type
    rho, rest, eps, lr = (rounded(x) for x in (h["rho"], 1 - h["rho"], h["eps"], h["lr"]))
    q = s = rho * slots["second_moment"] + rest * (d * d)
    new = {"second_moment": s}
    if h["centered"]:
        a = new["mean"] = rho * slots["mean"] + rest * d
        q = s - a * a
    v = lr * d / np.sqrt(q + eps) if form == "lr_inside" else d / (np.sqrt(q) + eps)
    if h["momentum"] != 0:
        v = new["velocity"] = rounded(h["momentum"]) * slots["velocity"] + v
    return v if form == "lr_inside" else lr * v, new


def _descent(d: Array, _slots: Slots, _age: Age, _form: str | None, h: dict[str, Any]) -> tuple[Array, Slots]:
    return d.dtype.type(h["lr"]) * d, {}


# Each with what it keeps, which begins with zeros, but for an iterate: that begins as a copy of the parameters.
RULES: dict[str, tuple[Callable[..., tuple[NDArray[Any], Slots]], tuple[str, ...]]] = {
    "momentum": (_momentum, ("velocity",)),
    "qhm": (_qhm, ("velocity",)),
    "adam": (_adam, ("velocity", "second_moment", "second_moment_maximum")),
    "lion": (_lion, ("velocity",)),
    "signum": (_signum, ("velocity",)),
    "rmsprop": (_rmsprop, ("velocity", "second_moment", "mean")),
    "accelerated": (_descent, ("iterate",)),
}
HISTORIES = {"adam": "momentum_products", "accelerated": "sequence_positions"}
# What is kept with one option alone, and what is dithered before it is rounded.
ONLY_WITH = {"second_moment_maximum": "amsgrad", "mean": "centered"}
DITHERED = ("second_moment",)


def prepare(
    grad: Array,
    dtype: Any,
    *,
    grad_scale: float = 1.0,
    coefficient: float = 1.0,
    clip_value: float | None = None,
) -> Array:
    """Return the gradient that `update` takes; nothing is modified.

    In `dtype`, with `grad_scale` and the other numbers rounded to it once, and each product rounded::

        g = coefficient * (grad_scale * grad)       g = min(max(g, -clip_value), clip_value)

    Parameters
    ----------
    grad : ndarray
        Of any dtype that `dtype` can hold exactly.
    dtype : dtype
        float32 or float64: that in which the array is worked on.
    grad_scale : float
        As in `fast_momentum.step`.
    coefficient : float
        Of clipping by the norm: 1, or less where the norm is above `clip_norm`.
    clip_value : float, optional
        As in `fast_momentum.init`. NaN stays NaN.

    Returns
    -------
    ndarray
        A new array of `dtype` (a scalar where `grad` is 0-d).

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> reference.prepare(np.array([3.0, -8.0], np.float16), np.float32, grad_scale=0.5, clip_value=2.0)
    array([ 1.5, -2. ], dtype=float32)
    """
    rounded = np.dtype(dtype).type
    with np.errstate(all="ignore"):
        g: Array = rounded(coefficient) * (rounded(grad_scale) * grad.astype(rounded))
        if clip_value is not None:
            g = np.minimum(np.maximum(g, -rounded(clip_value)), rounded(clip_value))
        return g


def round_to(values: Array, dtype_name: str) -> Array:
    """Return what is read back of `values` once they were stored in a narrower dtype; nothing is modified.

    float16 and bfloat16 round to nearest, ties to even; what is too large becomes infinite. int8 takes blocks of 256
    elements (the last may be shorter) in the order of memory, each with a scale of 16 significant bits::

        a = max |v|      s = a/127, up to 16 bits      q = rint(v * (1/s))      read back: q*s

    A block has s = 0 where a/127 is below 2**-126, and reads back as NaN where it holds a NaN or an infinity. What was
    read back rounds to itself.

    Parameters
    ----------
    values : ndarray
        Of float32 if `dtype_name` is one of the narrower dtypes.
    dtype_name : {'float16', 'bfloat16', 'int8', 'float32', 'float64'}
        The last two return `values`.

    Returns
    -------
    ndarray
        Of the dtype, shape and layout of `values`.

    References
    ----------
    .. [1] Dettmers, T., Lewis, M., Shleifer, S., Zettlemoyer, L., "8-bit optimizers via block-wise quantization",
       ICLR 2022: a scale for each block of an optimizer's state.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> reference.round_to(np.array([0.1, 1.0], np.float32), "bfloat16")
    array([0.10009766, 1.        ], dtype=float32)
    >>> reference.round_to(np.array([254.0, 9.0, -3.0], np.float32), "int8")
    array([254.,   8.,  -4.], dtype=float32)
    """
    if dtype_name in NARROW:
        return _round_to_float(values, *NARROW[dtype_name])
    if dtype_name != "int8":
        return values
    out = np.empty_like(values)
    stored = _outermost_first(out, out)
    stored[...] = _round_to_int8(_outermost_first(values, out).ravel()).reshape(stored.shape)
    return out


def _outermost_first(values: Array, model: Array) -> Array:
    """`values` with their axes in the order that those of `model` have in memory."""
    return values.transpose(sorted(range(model.ndim), key=lambda axis: -model.strides[axis]))


def dither(values: Array, dtype_name: str, steps: int) -> Array:
    """Return second moments as the number below or above that `dtype_name` has; nothing is modified.

    Which one depends on the step, so that over many steps what rounding adds is what it takes. With beta2 = 0.999 a
    step changes a second moment by less than a half of the way between two numbers: rounded to the nearest, it would
    stand still, or never come down::

        part = (40503*steps mod 65536)/65536         above, if (v - below)/(above - below) >= 1 - part, else below

    `steps` are those that the array has made. What is above 0 stays at least the smallest number of `dtype_name`, as
    steps are divided by its root.

    Parameters
    ----------
    values : ndarray
        Of float32, none below 0.
    dtype_name : {'float16', 'bfloat16'}
        As what they are going to be stored.
    steps : int
        That the array has made before this one.

    Returns
    -------
    ndarray
        Of float32; above the largest number of float16 what `round_to` makes infinite.

    Examples
    --------
    Of 1.002, a quarter of the way from 1 to the next bfloat16, a quarter is rounded up.

    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> v = np.full(1, 1 + 2**-9, np.float32)
    >>> stored = [reference.dither(v, "bfloat16", t) for t in range(65536)]
    >>> print(np.mean(stored, dtype=np.float64), 1 + 2**-9)
    1.001953125 1.001953125
    """
    bits, least, _ = NARROW[dtype_name]
    part = (40503 * steps % 65536) / 65536
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64)
        _, exponents = np.frexp(wide)  # of numbers from 1/2 to 1
        unit = np.ldexp(1.0, np.maximum(exponents - 1, least) + 1 - bits)
        below = np.floor(wide / unit)
        moved = (below + (wide / unit - below >= 1 - part)) * unit
        smallest = 2.0 ** (least + 1 - bits)
        return np.where((values > 0) & (moved < smallest), smallest, moved).astype(np.float32)


def _round_to_float(values: Array, bits: int, least: int, most: int) -> Array:
    """In double, in which each of these operations is exact but `rint`."""
    with np.errstate(all="ignore"):
        wide = np.asarray(values, np.float64)
        exponent = np.maximum(np.frexp(wide)[1] - 1, least)
        unit = np.ldexp(1.0, exponent + 1 - bits)
        nearest = np.rint(wide / unit) * unit
        nearest = np.where(np.abs(nearest) >= 2.0**most, np.copysign(np.inf, wide), nearest)
        return nearest.astype(np.float32)


def _round_to_int8(flat: Array) -> Array:
    zero = np.float32(0)
    with np.errstate(all="ignore"):
        blocks = _blocks(flat, INT8_BLOCK)
        a = np.abs(blocks).max(axis=1, keepdims=True)
        s = a / np.float32(INT8_MOST)
        s = np.where(s < SMALLEST_NORMAL, zero, s)
        s = ((s.view(np.uint32) + np.uint32(0xFF)) & ~np.uint32(0xFF)).view(np.float32)
        s = s + (a - a)  # NaN where a is infinite or NaN; only now, as the last line can make 0 of a NaN
        q = np.rint(blocks * np.where(s == 0, zero, 1 / s)) + zero  # + 0: an integer has no -0
        read_back: Array = q * s
    return read_back.ravel()[: flat.size]


def global_norm(containers: Any) -> float:
    """Return the Euclidean norm of all elements of all arrays: the square root of the sum of their squares.

    In double, and in this order: of an array, read in C order (in Fortran order if it is laid out so), 4096 elements
    make a block, the last one filled up with zeros. In a block, lane ``i % 16`` sums the squares of its 256 elements
    one by one, and the lanes are folded in halves. The sums of the blocks of all arrays are added in pairs until one
    is left. Where that has left the range in which no square overflows or underflows, all is done again with the
    elements multiplied by a power of two.

    Parameters
    ----------
    containers : ndarray, or list, tuple or dict of them, nested
        Arrays of float64, float32, float16 or bfloat16, of any shape and strides; None is skipped. Not modified.

    Returns
    -------
    float
        NaN or infinite where an element is; 0.0 if there is none.

    References
    ----------
    .. [1] Blue, J. L., "A portable Fortran program to find the Euclidean norm of a vector", ACM Transactions on
       Mathematical Software 4(1), 1978: why to scale.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> reference.global_norm({"w": np.array([3.0, 0.0]), "b": [np.array([4.0]), None]})
    5.0
    """
    return _norm([_flat(leaf) for _, leaf in leaves(containers) if leaf is not None])


def _norm(arrays: list[Array]) -> float:
    """The norm of one-dimensional arrays."""
    total = _sum_of_squares(arrays, 1.0)
    if 2.0**-960 <= total <= 2.0**960:
        return math.sqrt(total)
    scale = 2.0**600 if total < 2.0**-960 else 2.0**-600
    return math.sqrt(_sum_of_squares(arrays, scale)) / scale


def _sum_of_squares(arrays: list[Array], scale: float) -> float:
    with np.errstate(all="ignore"):
        scaled = [x.astype(np.float64) * scale for x in arrays]
        return _sum([x * x for x in scaled], NORM_BLOCK)


def _sum(arrays: list[Array], block: int) -> float:
    """Of one-dimensional arrays of float64, in the order of which `global_norm` speaks."""
    with np.errstate(all="ignore"):
        sums = np.concatenate([np.zeros(0), *(_block_sums(x, block) for x in arrays)])
        while len(sums) > 1:
            odd_one = sums[len(sums) // 2 * 2 :]
            sums = np.concatenate([sums[:-1:2] + sums[1::2], odd_one])
    return float(sums.sum())


def _block_sums(x: Array, block: int) -> Array:
    blocks = _blocks(x, block).reshape(-1, block // LANES, LANES)
    lanes = np.add.accumulate(blocks, axis=1)[:, -1]  # which adds one by one, as `sum` does not
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def _blocks(flat: Array, length: int) -> Array:
    """`flat` cut into rows of `length` elements, the last one filled up with zeros."""
    return np.pad(flat, (0, -flat.size % length)).reshape(-1, length)


class State:
    """Hyperparameters, velocities and counters, with the attributes of `fast_momentum.State`.

    Formula, shapes and meaning are those of `init`; here the arrays are writable, and a velocity of a narrower dtype
    is held as what is read back of it.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> state = reference.init([np.zeros(2)], lr=0.1)
    >>> state.lr, state.step_count, state.velocity
    (0.1, 0, [array([0., 0.])])
    """

    if TYPE_CHECKING:  # the settings that its rule takes

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def __init__(self, rule: str, params: Any, **settings: Any) -> None:
        self.rule = rule
        for name, value in settings.items():
            setattr(self, name, value)
        self.hyperparameters = [name for name in settings if name not in FIXED]
        self.fixed = [name for name in FIXED if name in settings]
        self.velocity_dtype = _dtype_name(settings.get("velocity_dtype"))
        self.compensated = settings.get("compensated", False)
        self.step_count = self.skipped_steps = 0
        self.grad_norm: Any = None
        self.swapped = False
        self.steps = {keys: 0 for keys, _ in leaves(params)}  # that each array has made
        self.histories = dict.fromkeys(self.steps, 1.0)  # of Age
        without = [name for name, option in ONLY_WITH.items() if not settings.get(option)]
        self.keeps = tuple(name for name in RULES[rule][1] if name not in without)
        for name in without:
            setattr(self, name, None)
        for name in self.keeps:
            begin = _widened if name == "iterate" else lambda param: np.zeros_like(_widened(param))
            setattr(self, name, mapped(begin, params))
        self.average = None if settings.get("average_decay") is None else mapped(_widened, params)
        # Of the arrays that have one.
        narrow = {keys: param for keys, param in leaves(params) if param.dtype.itemsize == 2}
        self.master = {} if self.compensated else {keys: _widened(param) for keys, param in narrow.items()}
        self.compensation = {keys: np.zeros_like(param) for keys, param in leaves(params) if self.compensated}

    def swap_average(self, params: Any) -> None:
        """Exchange the values of `params` and `average`, for an evaluation and back; `step` must wait until then.

        Examples
        --------
        >>> import numpy as np
        >>> from fast_momentum import reference
        >>> w = np.ones(1)
        >>> state = reference.init(w, lr=0.5, average_decay=0.75)
        >>> reference.step(w, np.ones(1), state)
        >>> state.swap_average(w)
        >>> w, state.average
        (array([0.875]), array([0.5]))
        """
        for keys, param in _each(params):
            average = _reals(at(self.average, keys))
            before = self._worked_on(keys, param).copy()
            self._write(keys, param, average)
            average[...] = before
        self.swapped = not self.swapped

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of everything, in the layout of `fast_momentum.State.state_dict`.

        Examples
        --------
        >>> import numpy as np
        >>> from fast_momentum import reference
        >>> reference.init({"w": np.zeros(2)}, lr=0.1).state_dict()["velocity"]
        {"['w']": array([0., 0.])}
        """
        counters = ("step_count", "skipped_steps", "grad_norm", "swapped")
        return {
            "format": 5,
            **{name: getattr(self, name) for name in ("rule", *self.fixed, *counters)},
            "hyperparameters": {name: mapped(_plain, getattr(self, name)) for name in self.hyperparameters},
            **{
                name: {path_of(keys): v.copy() for keys, v in leaves(getattr(self, name)) if v is not None}
                for name in RULES[self.rule][1]
            },
            **self._of_each_array(),
            "average": {
                path_of(keys): average.copy() for keys, average in leaves(self.average) if average is not None
            },
            "compensation": {path_of(keys): _widened(c) for keys, c in self.compensation.items()},
            "master": {path_of(keys): master.copy() for keys, master in self.master.items()},
        }

    def _of_each_array(self) -> dict[str, Any]:
        of_rule: dict[str, dict[Keys, Any]] = {"steps": self.steps}
        if self.rule in HISTORIES:
            of_rule[HISTORIES[self.rule]] = self.histories
        return {name: {path_of(keys): n for keys, n in of.items()} for name, of in of_rule.items()}

    def _worked_on(self, keys: Keys, param: Array, rows: Any = ...) -> Array:
        """What a step takes for `param`: the master copy, which first takes up what the user has changed."""
        if keys not in self.master:
            return _widened(param)
        master = self.master[keys]
        with np.errstate(all="ignore"):
            stored = round_to(master, param.dtype.name).astype(param.dtype)
        changed = stored.view(np.uint16) != param.view(np.uint16)
        master[rows] = np.where(changed, _widened(param), master)[rows]
        return master

    def _write(self, keys: Keys, param: Array, values: Array, rows: Any = ...) -> None:
        param[rows] = round_to(values, param.dtype.name)[rows]
        if keys in self.master:
            self.master[keys][rows] = values[rows]


def init(
    params: Any,
    *,
    lr: Any,
    momentum: Any = 0.9,
    dampening: Any = 0.0,
    nesterov: bool = False,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    form: str = "lr_outside",
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
    average_decay: float | None = None,
    velocity_dtype: Any = None,
    compensated: bool = False,
) -> State:
    """Return a `State` with one zero velocity per array of `params`; see `fast_momentum.init`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> reference.init(np.ones(3), lr=0.1, form="ema").velocity
    array([0., 0., 0.])
    """
    return State("momentum", **locals())


def qhm(
    params: Any,
    *,
    lr: Any,
    momentum: Any = 0.999,
    nu: Any = 0.7,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
    average_decay: float | None = None,
    velocity_dtype: Any = None,
    compensated: bool = False,
) -> State:
    """Return a `State` that steps by ``v = momentum*v + (1-momentum)*d`` and ``p = p - lr*((1-nu)*d + nu*v)``; see
    `fast_momentum.qhm`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> reference.step(w, np.ones(2), reference.qhm(w, lr=0.5, momentum=0.5, nu=0.5))
    >>> w
    array([0.625, 0.625])
    """
    return State("qhm", form=None, **locals())


def adam(
    params: Any,
    *,
    lr: Any,
    beta1: Any = 0.9,
    beta2: Any = 0.999,
    eps: Any = 1e-8,
    nesterov: bool = False,
    momentum_decay: float | None = None,
    amsgrad: bool = False,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    form: str = "corrected",
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
    average_decay: float | None = None,
    velocity_dtype: Any = None,
    compensated: bool = False,
) -> State:
    """Return a `State` that steps by Adam, AdamW, NAdam or AMSGrad; see `fast_momentum.adam`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> reference.step(w, np.array([1e-3, -5.0]), reference.adam(w, lr=0.25, eps=0.0))
    >>> w
    array([0.75, 1.25])
    """
    return State("adam", **locals())


def lion(
    params: Any,
    *,
    lr: Any,
    beta1: Any = 0.9,
    beta2: Any = 0.99,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
    average_decay: float | None = None,
    velocity_dtype: Any = None,
    compensated: bool = False,
) -> State:
    """Return a `State` that steps by Lion; see `fast_momentum.lion`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> reference.step(w, np.array([1e-3, -5.0]), reference.lion(w, lr=0.25))
    >>> w
    array([0.75, 1.25])
    """
    return State("lion", form=None, **locals())


def signum(
    params: Any,
    *,
    lr: Any,
    momentum: Any = 0.9,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
    average_decay: float | None = None,
    velocity_dtype: Any = None,
    compensated: bool = False,
) -> State:
    """Return a `State` that steps by the sign of a moving average of gradients; see `fast_momentum.signum`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> reference.step(w, np.array([1e-3, -5.0]), reference.signum(w, lr=0.25))
    >>> w
    array([0.75, 1.25])
    """
    return State("signum", form=None, **locals())


def rmsprop(
    params: Any,
    *,
    lr: Any,
    momentum: Any = 0.0,
    rho: Any = 0.99,
    eps: Any = 1e-8,
    centered: bool = False,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    form: str = "lr_outside",
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
    average_decay: float | None = None,
    velocity_dtype: Any = None,
    compensated: bool = False,
) -> State:
    """Return a `State` that steps by RMSprop; see `fast_momentum.rmsprop`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> reference.step(w, np.array([1e-3, -5.0]), reference.rmsprop(w, lr=0.25, rho=0.75, eps=0.0))
    >>> w
    array([0.5, 1.5])
    """
    return State("rmsprop", **locals())


def accelerated(
    params: Any,
    *,
    lr: Any,
    sequence: str | float = "fista",
    restart: str | None = None,
    l1: Any = 0.0,
    weight_decay: Any = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
    lower: Any = None,
    upper: Any = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nonfinite: str = "propagate",
) -> State:
    """Return a `State` of Nesterov's accelerated method; see `fast_momentum.accelerated`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> y = np.zeros(2)
    >>> state = reference.accelerated(y, lr=0.5, l1=1.0)
    >>> for _ in range(60):
    ...     reference.step(y, y - [3.0, 0.5], state)
    >>> state.iterate.round(6)
    array([2., 0.])
    """
    return State("accelerated", form=None, **locals())


def step(
    params: Any,
    grads: Any,
    state: State,
    *,
    grad_scale: float = 1.0,
    zero_grads: bool = False,
    prox: Callable[[Any], None] | None = None,
) -> None:
    """Update `params` and `state` in place by one step of `update` per array; see `fast_momentum.step`.

    In this order: gradients are scaled, measured, checked and clipped, as `prepare` says; `update` makes the step,
    with the velocity as it is before `round_to` stores it; then come the box, the average of all arrays, and zeroes in
    the gradients::

        coefficient = 1 if norm <= clip_norm else clip_norm/norm
        average = average_decay*average + (1-average_decay)*p

    A gradient may be `fast_momentum.Rows`: the sum of what is given for each row, in the order of rows, takes the place of
    the gradient above; what the step makes of other rows is left out.

    Parameters of 16 bits are rounded copies of float32 ones that the state holds, and that follow where a parameter
    was changed since. `compensated` ones have instead, with ``D`` what `update` subtracts, and Kahan's ``c`` zero at
    first, rounded to the dtype of `params` as ``p`` is::

        y = D + c         p_new = p - y         c = (p_new - p) + y

    Raises
    ------
    FloatingPointError
        An element is not finite, and `nonfinite` is "raise". Nothing has been changed.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(3)
    >>> reference.step(w, np.ones(3), reference.init(w, lr=0.1))
    >>> w
    array([0.9, 0.9, 0.9])
    """
    leaf = {keys: at(grads, keys) for keys in state.steps if at(grads, keys) is not None}
    rows = {keys: np.unique(grad.indices) for keys, grad in leaf.items() if hasattr(grad, "indices")}
    whole = {keys: _summed(grad) if keys in rows else np.asarray(grad) for keys, grad in leaf.items()}
    dtypes = {keys: _working(param) for keys, param in leaves(params)}
    scaled = [prepare(_flat(grad), dtypes[keys], grad_scale=grad_scale) for keys, grad in whole.items()]
    given = {keys: _reals(grad) for keys, grad in whole.items()}
    finite = all(np.isfinite(g).all() for g in scaled)
    if state.nonfinite == "raise" and not finite:
        message = "grads must be finite"
        raise FloatingPointError(message)
    state.grad_norm = None if state.clip_norm is None else _norm(scaled)
    if state.nonfinite == "skip" and not finite:
        state.skipped_steps += 1
    else:
        _step_all(params, given, rows, state, grad_scale, prox)
        state.step_count += 1
    if zero_grads:
        for keys, grad in leaf.items():
            (grad.values if keys in rows else grad)[...] = 0


def _step_all(
    params: Any,
    given: dict[Keys, Any],
    rows: dict[Keys, Array],
    state: State,
    grad_scale: float,
    prox: Callable[[Any], None] | None,
) -> None:
    clip_norm, clip_value = _plain(state.clip_norm), _plain(state.clip_value)
    coefficient = 1.0 if clip_norm is None or state.grad_norm <= clip_norm else clip_norm / state.grad_norm
    limits = {"coefficient": coefficient, "clip_value": clip_value}
    prepared = {
        keys: prepare(given[keys], _working(param), grad_scale=grad_scale, **limits)
        for keys, param in leaves(params)
        if keys in given
    }
    if state.rule == "accelerated":
        _accelerate(params, prepared, state, prox)
        return
    decay = _plain(state.average_decay)
    if decay is not None and state.average is None:
        state.average = mapped(_widened, params)
    for keys, param in _each(params):
        working = _working(param)
        if keys in rows:
            _step_one(keys, param, _spread(prepared[keys], rows[keys], param), state, rows[keys])
        elif keys in prepared:
            _step_one(keys, param, prepared[keys], state)
        if decay is not None:
            average = _reals(at(state.average, keys))
            with np.errstate(all="ignore"):
                new = working(1 - decay) * state._worked_on(keys, param)
                average[...] = working(decay) * average + new


def _settings(keys: Keys, state: State) -> dict[str, Any]:
    h = {name: _plain(at(getattr(state, name), keys)) for name in state.hyperparameters}
    h.update({name: getattr(state, name) for name in state.fixed})
    return h


def _summed(grad: Any) -> Array:
    """The sum for each row that there is, in the order of rows."""
    _, first, place = np.unique(grad.indices, return_index=True, return_inverse=True)
    values = np.ascontiguousarray(_widened(grad.values))  # the norm reads sums in C order
    sums, later = values[first], np.ones(len(place), bool)
    later[first] = False
    with np.errstate(all="ignore"):
        np.add.at(sums, place[later], values[later])  # one by one, in their order
    return sums


def _spread(grad: Array, rows: Array, param: Array) -> Array:
    """A gradient of the whole array, with zeros in other rows, in which nothing of the step is kept."""
    whole = np.zeros(param.shape, grad.dtype)
    whole[rows] = grad
    return whole


def _step_one(keys: Keys, param: Array, grad: Array, state: State, rows: Any = ...) -> None:
    compensation = _reals(state.compensation[keys]) if state.compensated else None
    h, age = _settings(keys, state), Age(state.steps[keys], state.histories[keys])
    before = state._worked_on(keys, param, rows)
    slots = {name: _reals(at(getattr(state, name), keys)) for name in state.keeps}
    displacement, new = _displacement(state.rule, state.form, before, grad, slots, age, h)
    with np.errstate(all="ignore"):
        if compensation is None:
            after = (before - displacement).astype(before.dtype)
            state._write(keys, param, _boxed(after, h["lower"], h["upper"]), rows)
        else:  # what rounding had taken off too much is put back, and the other way round
            displacement = displacement.astype(before.dtype) + _widened(compensation)
            state._write(keys, param, before - displacement)
            lost = (_widened(param) - before) + displacement
            compensation[...] = round_to(lost, compensation.dtype.name)
            after = _widened(param)
            held = _boxed(after, h["lower"], h["upper"])
            compensation[(held != after) & ~np.isnan(after)] = 0  # of what was put onto a bound
            state._write(keys, param, held)
    for name, values in new.items():
        dtype_name = state.velocity_dtype or before.dtype.name
        if name in DITHERED and dtype_name in NARROW:
            values = dither(values, dtype_name, age.steps)
        laid_out = np.empty_like(slots[name], values.dtype)  # int8 has a scale for neighbours in memory
        laid_out[...] = values
        slots[name][rows] = round_to(laid_out, dtype_name)[rows]
    state.steps[keys] += 1
    if state.rule == "adam":
        decays = h["nesterov"] and h["momentum_decay"] is not None
        state.histories[keys] *= _momentum_of(h, state.steps[keys]) if decays else h["beta1"]


def _boxed(values: Array, lower: float | None, upper: float | None) -> Array:
    """NaN stays."""
    if lower is not None:
        values = np.where(values < values.dtype.type(lower), values.dtype.type(lower), values)
    if upper is not None:
        values = np.where(values > values.dtype.type(upper), values.dtype.type(upper), values)
    return values


def _accelerate(
    params: Any, grads: dict[Keys, Array], state: State, prox: Callable[[Any], None] | None
) -> None:
    """A step of `accelerated`, of the arrays that have a gradient."""
    points = {keys: state._worked_on(keys, param) for keys, param in _each(params) if keys in grads}
    iterates = {keys: _reals(at(state.iterate, keys)) for keys in points}
    before = {keys: iterates[keys] if state.steps[keys] else point for keys, point in points.items()}
    settings = {keys: _settings(keys, state) for keys in points}
    found = {}
    with np.errstate(all="ignore"):
        for keys, point in points.items():
            displacement, _ = _displacement(state.rule, None, point, grads[keys], {}, Age(), settings[keys])
            found[keys] = point - displacement
        if prox:
            made = {keys: np.empty_like(at(state.iterate, keys)) for keys in points}
            for keys, candidate in made.items():
                _reals(candidate)[...] = found[keys]
            prox(_placed(params, made))
            found = {keys: _reals(candidate) for keys, candidate in made.items()}
        else:
            found = {keys: _proximal(z, settings[keys]) for keys, z in found.items()}
        against = [
            _outermost_first(y - found[keys], iterates[keys]).ravel().astype(np.float64)
            * _outermost_first(found[keys] - before[keys], iterates[keys]).ravel().astype(np.float64)
            for keys, y in points.items()
        ]
        restarts = state.restart == "gradient" and _sum(against, RESTART_BLOCK) > 0
        for keys, param in _each(params):
            if keys not in points:
                continue
            b, state.histories[keys] = _sequence(state.sequence, state.histories[keys])
            rounded, x = found[keys].dtype.type, found[keys]
            moves = rounded(b) != 0 and not restarts
            state._write(keys, param, x + rounded(b) * (x - before[keys]) if moves else x)
            iterates[keys][...] = x
            state.steps[keys] += 1
    if restarts:
        state.histories = dict.fromkeys(state.histories, 1.0)


def _proximal(z: Array, h: dict[str, Any]) -> Array:
    """The soft threshold, and then the box."""
    rounded = z.dtype.type
    rest = np.abs(z) - rounded(h["lr"] * h["l1"])
    return _boxed(np.copysign(np.where(rest <= 0, rounded(0), rest), z), h["lower"], h["upper"])


def _sequence(sequence: str | float, position: float) -> tuple[float, float]:
    """``b``, and where the sequence is after it."""
    if sequence == "fista":
        following = (1 + math.sqrt(1 + 4 * position * position)) / 2
        return (position - 1) / following, following
    if sequence == "nesterov":
        return (position - 1) / (position + 2), position + 1
    return float(sequence), 1.0


def _placed(containers: Any, arrays: dict[Keys, Array], keys: Keys = ()) -> Any:
    """`containers` with those arrays at their places, and None at others."""
    if (items := as_dict(containers)) is not None:
        found = {key: _placed(branch, arrays, (*keys, key)) for key, branch in items.items()}
        return found if isinstance(containers, (dict, MappingProxyType)) else made(type(containers), found)
    if isinstance(containers, (list, tuple)):
        branches = [_placed(branch, arrays, (*keys, i)) for i, branch in enumerate(containers)]
        return branches if isinstance(containers, list) else tuple(branches)
    return arrays.get(keys)


def lookahead(params: Any, state: State, out: Any = None) -> Any:
    """Return ``p - c*v``, c = lr*momentum (momentum in lr_inside); see `fast_momentum.lookahead`.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum import reference
    >>> w = np.ones(2)
    >>> state = reference.init(w, lr=0.5, momentum=0.5)
    >>> reference.step(w, np.ones(2), state)
    >>> reference.lookahead(w, state)
    array([0.25, 0.25])
    """
    out = mapped(np.empty_like, params) if out is None else out
    for keys, param in _each(params):
        c = float(at(state.momentum, keys))
        if state.form != "lr_inside":
            c *= float(at(state.lr, keys))
        velocity = _reals(at(state.velocity, keys))
        with np.errstate(all="ignore"):
            point = _widened(param) - velocity.dtype.type(c) * velocity
            _reals(at(out, keys))[...] = round_to(point, param.dtype.name)
    return out


def _working(param: Array) -> type[Any]:
    """The dtype in which an array is worked on: of the reals of a complex one."""
    return np.float64 if param.dtype in (np.float64, np.complex128) else np.float32


def _widened(array: Array) -> Array:
    return array.copy() if np.iscomplexobj(array) else array.astype(_working(array))


def _reals(array: Array) -> Array:
    """The same memory, with the two parts of a complex number as its last dimension."""
    return array[..., None].view(_working(array)) if np.iscomplexobj(array) else array


def _flat(array: Array) -> Array:
    return _reals(array.ravel("A")).ravel()


def _each(params: Any) -> Iterator[tuple[Keys, Array]]:
    return ((keys, _reals(param)) for keys, param in leaves(params))


def _dtype_name(given: Any) -> str | None:
    return given if given is None or isinstance(given, str) else np.dtype(given).name


def _plain(value: Any) -> Any:
    """A flag as bool, a number through `float()`: NumPy's own scalars would widen the arithmetic."""
    if value is None or isinstance(value, str):
        return value
    return bool(value) if isinstance(value, (bool, np.bool_)) else float(value)
