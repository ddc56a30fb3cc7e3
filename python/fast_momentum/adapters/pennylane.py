"""PennyLane's optimizers with momentum, RMSprop and Adam, with the steps made by `fast_momentum.step`.

The classes here are PennyLane's with another ``apply_grad``, its public method that turns gradients into new
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
    _message = "fast_momentum.adapters.pennylane must have PennyLane; pip install pennylane"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["AdamOptimizer", "MomentumOptimizer", "NesterovMomentumOptimizer", "RMSPropOptimizer"]


class _Stepping:
    """In the place of PennyLane's accumulation: a state for each trainable argument, None for the others."""

    stepsize: float
    _keeps: tuple[str, ...]  # the names of what PennyLane accumulates
    _states: list[fm.State | None] | None
    _t: int  # steps made, whichever arguments were trainable

    def _init(self, params: NDArray[Any]) -> fm.State:
        raise NotImplementedError

    def _set(self, state: fm.State) -> None:
        """Hand over what may have been set since the last step."""
        raise NotImplementedError

    def _kept(self, name: str) -> list[NDArray[Any] | float]:
        return [0.0 if state is None else np.array(getattr(state, name)) for state in self._states or ()]

    def _go_on(self, t: int, kept: Sequence[Sequence[Any]] | None) -> None:
        """After `t` steps, from `kept`: for each name a list of what there is of each argument."""
        self._t = t
        self._states = None
        if kept is not None:
            self._states = [
                self._state(t, *map(np.asarray, values))
                if any(np.ndim(value) or np.any(value) for value in values)
                else None
                for values in zip(*kept, strict=True)
            ]

    def _state(self, steps: int, *values: NDArray[Any]) -> fm.State:
        state = self._init(values[0])
        kept = {name: {"": value} for name, value in zip(self._keeps, values, strict=True)}
        state.load_state_dict({**state.state_dict(), **kept, "step_count": steps, "steps": {"": steps}})
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

        Raises
        ------
        TypeError, ValueError
            As `fast_momentum.step`; and for complex arguments, whose gradients PennyLane has as the conjugates of
            what leads uphill.
        """
        if self._states is None:
            self._states = [None] * len(args)
        new = list(args)
        trainable = [index for index, arg in enumerate(args) if getattr(arg, "requires_grad", False)]
        for index, g in zip(trainable, grad, strict=False):  # a grad_fn may return more
            new[index] = self._stepped(self._states, index, args[index], np.asarray(g))
        self._t += 1
        return new

    def _stepped(self, states: list[fm.State | None], index: int, arg: Any, g: NDArray[Any]) -> Any:
        param = np.array(arg, dtype=np.result_type(arg.dtype, g.dtype, 0.0))  # a copy, and no subclass
        if np.iscomplexobj(param):
            msg = f"args[{index}] must be real, not {param.dtype}; give its real and its imaginary part as two arguments"
            raise TypeError(msg)
        state = states[index]
        if state is None or state.step_count != self._t:
            state = states[index] = self._of_now(state, param)
        self._set(state)
        fm.step(param, g.astype(param.dtype, copy=False), state)
        return tensor(param, requires_grad=True)

    def _of_now(self, state: fm.State | None, param: NDArray[Any]) -> fm.State:
        """A state that has made all steps, as PennyLane counts those without the argument as well."""
        if state is None:
            return self._state(self._t, *(np.zeros_like(param) for _ in self._keeps))
        return self._state(self._t, *(getattr(state, name) for name in self._keeps))


class _OneList(_Stepping):
    """Where PennyLane accumulates one thing of each argument."""

    @property
    def accumulation(self) -> list[NDArray[Any] | float] | None:
        """Copies of what is kept, 0.0 for an argument that has nothing; None before the first step. May be set."""
        return None if self._states is None else self._kept(*self._keeps)

    @accumulation.setter
    def accumulation(self, accumulation: Sequence[Any] | None) -> None:
        self._go_on(*((0, None) if accumulation is None else (1, [accumulation])))


class _Momentum(_OneList):
    momentum: float
    _keeps = ("velocity",)

    def _init(self, params: NDArray[Any]) -> fm.State:
        return fm.init(params, lr=self.stepsize, momentum=self.momentum, form="lr_inside")

    def _set(self, state: fm.State) -> None:
        state.lr, state.momentum = self.stepsize, self.momentum


class MomentumOptimizer(_Momentum, pennylane.MomentumOptimizer):  # type: ignore[misc]  # PennyLane has no types
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


class NesterovMomentumOptimizer(_Momentum, pennylane.NesterovMomentumOptimizer):  # type: ignore[misc]  # as above
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


class RMSPropOptimizer(_OneList, pennylane.RMSPropOptimizer):  # type: ignore[misc]  # as above
    """`pennylane.RMSPropOptimizer`: the form ``lr_inside``, with `eps` under the root.

    Each step computes, for every trainable argument::

        a = decay*a + (1 - decay)*g*g
        x = x - stepsize*g/sqrt(a + eps)

    Parameters
    ----------
    stepsize : float, default 0.01
        At least 0. May be set between steps, as all of them.
    decay : float, default 0.9
        rho, in [0, 1).
    eps : float, default 1e-8
        At least 0.

    Raises
    ------
    TypeError, ValueError
        From a step, as `fast_momentum.step`.

    Notes
    -----
    PennyLane divides `stepsize` by the root and then multiplies, so `x` agrees to rounding, and not bit for bit.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> from fast_momentum.adapters.pennylane import RMSPropOptimizer
    >>> opt = RMSPropOptimizer(stepsize=0.1)
    >>> x = np.array([1.0, 2.0], requires_grad=True)
    >>> for _ in range(2):
    ...     x = opt.step(lambda x: np.sum(x**2), x)
    >>> x.round(3)
    tensor([0.499, 1.474], requires_grad=True)
    """

    decay: float
    eps: float
    _keeps = ("second_moment",)

    def _init(self, params: NDArray[Any]) -> fm.State:
        return fm.rmsprop(params, lr=self.stepsize, rho=self.decay, eps=self.eps, form="lr_inside")

    def _set(self, state: fm.State) -> None:
        state.lr, state.rho, state.eps = self.stepsize, self.decay, self.eps


class AdamOptimizer(_Stepping, pennylane.AdamOptimizer):  # type: ignore[misc]  # as above
    """`pennylane.AdamOptimizer`: the form ``folded``.

    Step ``t``, from 1, computes, for every trainable argument::

        a = beta1*a + (1 - beta1)*g
        b = beta2*b + (1 - beta2)*g*g
        x = x - stepsize*sqrt(1 - beta2**t)/(1 - beta1**t)*a / (sqrt(b) + eps)

    Parameters
    ----------
    stepsize : float, default 0.01
        At least 0. May be set between steps, as all of them.
    beta1, beta2 : float, default 0.9 and 0.99
        In [0, 1).
    eps : float, default 1e-8
        At least 0.

    Raises
    ------
    TypeError, ValueError
        From a step, as `fast_momentum.step`.

    Notes
    -----
    In float64 the results are PennyLane's, bit for bit. PennyLane makes float64 of an argument in float32; here it stays
    float32.

    Examples
    --------
    >>> from pennylane import numpy as np
    >>> from fast_momentum.adapters.pennylane import AdamOptimizer
    >>> opt = AdamOptimizer(stepsize=0.1)
    >>> x = np.array([1.0, 2.0], requires_grad=True)
    >>> for _ in range(2):
    ...     x = opt.step(lambda x: np.sum(x**2), x)
    >>> x.round(3)
    tensor([0.8, 1.8], requires_grad=True)
    >>> opt.t, [a.round(2) for a in opt.fm]
    (2, [array([0.36, 0.74])])
    """

    beta1: float
    beta2: float
    eps: float
    _keeps = ("velocity", "second_moment")

    def _init(self, params: NDArray[Any]) -> fm.State:
        return fm.adam(
            params, lr=self.stepsize, beta1=self.beta1, beta2=self.beta2, eps=self.eps, form="folded"
        )

    def _set(self, state: fm.State) -> None:
        state.lr, state.beta1, state.beta2, state.eps = self.stepsize, self.beta1, self.beta2, self.eps

    @property
    def accumulation(self) -> dict[str, Any] | None:
        """Copies of the moments of each argument, ``fm`` and ``sm``, and the steps ``t``; None before the first one."""
        if self._states is None:
            return None
        first, second = map(self._kept, self._keeps)
        return {"fm": first, "sm": second, "t": self._t}

    @accumulation.setter
    def accumulation(self, saved: dict[str, Any] | None) -> None:
        self._go_on(*((0, None) if saved is None else (saved["t"], [saved["fm"], saved["sm"]])))
