"""Arrays to step. All contenders work on the same memory: where arrays lie decides how fast they are."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm
from fast_momentum import _containers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LR, MOMENTUM = 1e-3, 0.9


def writable(velocity: NDArray[Any]) -> NDArray[Any]:
    """A view of the memory of a state's velocity that NumPy may write to."""
    low, high = np.lib.array_utils.byte_bounds(velocity)
    memory = (ctypes.c_char * (high - low)).from_address(low)
    memory.owner = velocity  # type: ignore[attr-defined]  # which keeps the memory from being freed
    offset = velocity.ctypes.data - low
    return np.ndarray(velocity.shape, velocity.dtype, memoryview(memory), offset, velocity.strides)


@dataclass
class Problem:
    """A step: the containers that `fast_momentum` takes, and the arrays in them."""

    params: Any
    grads: Any
    state: fm.State
    threads: int = 1

    def __post_init__(self) -> None:
        def leaves(tree: Any) -> list[NDArray[Any]]:
            return [leaf for _, leaf in _containers.leaves(tree)]

        self.arrays, self.gradients = leaves(self.params), leaves(self.grads)
        self.velocities = [writable(velocity) for velocity in leaves(self.state.velocity)]
        self.elements = sum(array.size for array in self.arrays)
        self.moved_bytes = 5 * sum(array.nbytes for array in self.arrays)  # reads p, g, v; writes v, p
        self.dtype = self.arrays[0].dtype.type


def problem(params: Any, grads: Any, threads: int = 1, **hyperparameters: Any) -> Problem:
    return Problem(params, grads, fm.init(params, lr=LR, momentum=MOMENTUM, **hyperparameters), threads)


def one_array(n: int, dtype: str = "float32", threads: int = 1, **hyperparameters: Any) -> Problem:
    return problem(np.ones(n, dtype), np.full(n, 1e-3, dtype), threads, **hyperparameters)


def many_arrays(
    shapes: Sequence[tuple[int, ...]],
    kind: str = "list",
    dtype: str = "float32",
    threads: int = 1,
    **hyperparameters: Any,
) -> Problem:
    """A list of arrays, or a dict."""
    params: Any = [np.ones(shape, dtype) for shape in shapes]
    grads: Any = [np.full(shape, 1e-3, dtype) for shape in shapes]
    if kind == "dict":
        names = [f"layer{k}" for k in range(len(shapes))]
        params, grads = dict(zip(names, params, strict=True)), dict(zip(names, grads, strict=True))
    return problem(params, grads, threads, **hyperparameters)
