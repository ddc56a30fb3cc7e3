"""PennyLane's `MomentumOptimizer` and `NesterovMomentumOptimizer`, with the steps made by `fast_momentum.step`.

The two classes here are PennyLane's with another ``apply_grad``, its public method that turns gradients into new
arguments; what comes before, evaluating the objective and its gradient, is PennyLane's. Needs PennyLane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm

try:
    import pennylane
    from pennylane.numpy import tensor
except ImportError as error:
    _message = "fast_momentum.adapters.pennylane must have PennyLane; pip install 'fast-momentum[pennylane]'"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["MomentumOptimizer", "NesterovMomentumOptimizer"]


class _Stepping:
    """In the place of PennyLane's accumulation: a state for each trainable argument, None for the others."""

    stepsize: float
    momentum: float
    _states: list[fm.State | None] | None

    @property
    def accumulation(self) -> list[NDArray[Any] | float] | None:
        """Copies of the velocities, 0.0 for an argument that has none; None before the first step. May be set."""
        if self._states is None:
            return None
        return [0.0 if state is None else np.array(state.velocity) for state in self._states]

    @accumulation.setter
    def accumulation(self, accumulation: Sequence[Any] | None) -> None:
        if accumulation is None:
            self._states = None
        else:
            self._states = [
                self._state(np.asarray(a)) if np.ndim(a) or np.any(a) else None for a in accumulation
            ]

    def _state(self, velocity: NDArray[Any]) -> fm.State:
        state = fm.init(velocity, lr=self.stepsize, momentum=self.momentum, form="lr_inside")
        if velocity.any():
            state.load_state_dict({**state.state_dict(), "velocity": {"": velocity}, "steps": {"": 1}})
        return state

    def apply_grad(self, grad: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        """Step the trainable arguments.

        Parameters
        ----------
        grad : sequence of array_like
            The gradient for each trainable argument.
        args : sequence
            The arguments; those with ``requires_grad`` are trainable. Not changed.

        Returns
        -------
        list
            The new arguments.
        """
        if self._states is None:
            self._states = [None] * len(args)
        new = list(args)
        trainable = [index for index, arg in enumerate(args) if getattr(arg, "requires_grad", False)]
        for index, g in zip(trainable, grad, strict=False):  # a grad_fn may return more
            new[index] = self._stepped(self._states, index, args[index], np.asarray(g))
        return new

    def _stepped(self, states: list[fm.State | None], index: int, arg: Any, g: NDArray[Any]) -> Any:
        param = np.array(arg, dtype=np.result_type(arg.dtype, g.dtype, 0.0))  # a copy, and no subclass
        state = states[index]
        if state is None:
            state = states[index] = self._state(np.zeros_like(param))
        state.lr, state.momentum = self.stepsize, self.momentum
        fm.step(param, g.astype(param.dtype, copy=False), state)
        return tensor(param, requires_grad=True)


class MomentumOptimizer(_Stepping, pennylane.MomentumOptimizer):  # type: ignore[misc]  # PennyLane has no types
    """`pennylane.MomentumOptimizer`: the form ``lr_inside``.

    Each step computes, for every trainable argument::

        a = momentum*a + stepsize*g
        x = x - a

    Parameters
    ----------
    stepsize : float, default 0.01
        At least 0. May be set between steps.
    momentum : float, default 0.9
        In [0, 1). May be set between steps.

    Raises
    ------
    TypeError, ValueError
        From a step, as `fast_momentum.step`.

    Notes
    -----
    The results are PennyLane's, bit for bit, where `stepsize` and `momentum` are Python's numbers.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> from fast_momentum.adapters.pennylane import MomentumOptimizer
    >>> opt = MomentumOptimizer(stepsize=0.1)
    >>> x = np.array([1.0, 2.0], requires_grad=True)
    >>> for _ in range(2):
    ...     x = opt.step(lambda x: np.sum(x**2), x)
    >>> x
    tensor([0.46, 0.92], requires_grad=True)
    """


class NesterovMomentumOptimizer(_Stepping, pennylane.NesterovMomentumOptimizer):  # type: ignore[misc]
    """`pennylane.NesterovMomentumOptimizer`: the gradient is taken at ``x - momentum*a``, Nesterov's original form.

    What `MomentumOptimizer` says holds here, too.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> from fast_momentum.adapters.pennylane import NesterovMomentumOptimizer
    >>> opt = NesterovMomentumOptimizer(stepsize=0.1)
    >>> x = np.array([1.0, 2.0], requires_grad=True)
    >>> for _ in range(2):
    ...     x = opt.step(lambda x: np.sum(x**2), x)
    >>> x
    tensor([0.496, 0.992], requires_grad=True)
    """
