"""The loop of `minimize`: points are evaluated and stepped, and the best one is kept."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _core
from .._containers import at, leaves, mapped
from ._function import NotFiniteError, size
from ._result import CONVERGED, INTERRUPTED, MAXITER, NOT_FINITE, STOPPED

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core import State
    from ._bounds import Box
    from ._function import Function
    from ._tuners import Tuner


class Point(NamedTuple):
    params: Any
    value: float
    grads: Any


def copied(params: Any) -> Any:
    """A copy in the same containers, whose arrays are dense and in C order."""
    arrays = {id(a): np.array(a, order="C") for _, a in leaves(params) if isinstance(a, np.ndarray)}
    return copy.deepcopy(params, arrays)


def average_decay_of(state: State) -> float | None:
    """None, too, in a rule that has no average."""
    return getattr(state, "average_decay", None)


def copy_into(target: Any, source: Any) -> None:
    for (_, to), (_, of) in zip(leaves(target), leaves(source), strict=True):
        np.copyto(to, of)


class Kept:
    """The point of the lowest rank so far. Whatever interrupts a copy, there is a whole one."""

    def __init__(self, params: Any) -> None:
        self.point = Point(copied(params), math.nan, None)
        self._rank = math.inf
        self._spare = copied(params)

    def offer(self, rank: float, params: Any, value: float = math.nan, grads: Any = None) -> None:
        if not (
            rank < self._rank or rank == self._rank == math.inf
        ):  # the last of those of which nothing is known
            return
        copy_into(self._spare, params)
        last, self.point = self.point, Point(self._spare, value, mapped(_copied, grads))
        self._spare, self._rank = last.params, rank


def _copied(grad: Any) -> Any:
    return None if grad is None else np.array(grad)


class Run:
    """A minimisation. Its answer is where the gradient is small enough, else the lowest of the points so far."""

    residual = math.inf  # what is compared with tol

    def __init__(
        self,
        function: Function,
        params: Any,
        state: State,
        tuner: Tuner | None,
        box: Box | None,
        prox: Any,
        tol: float,
    ) -> None:
        self.function, self.params, self.state, self.tuner, self.box = function, params, state, tuner, box
        self.options = {"prox": prox} if prox else {}
        self.tol = tol
        self.nit = 0
        self.kept = Kept(params)

    def begin(self) -> None:
        try:
            self._evaluate()
        except NotFiniteError as error:
            self.kept.point = self.kept.point._replace(value=error.value)
            raise

    def advance(self) -> None:
        self._step()
        self.nit += 1
        self._evaluate()

    def current(self) -> Point:
        """The last one, for a callback: copies."""
        return Point(copied(self.params), self.value, None)

    def best(self) -> Point:
        return self.kept.point

    def _evaluate(self) -> None:
        self.value, self.grads = self.function(self.params)
        self.residual = self.box.residual(self.params, self.grads) if self.box else size(self.grads)
        self._keep()

    def _keep(self) -> None:
        rank = -math.inf if self.residual <= self.tol else self.value
        self.kept.offer(rank, self.params, self.value, self.grads)

    def _step(self) -> None:
        if self.tuner:
            self.tuner(self.params, self.grads)
        _core.step(self.params, self.grads, self.state, **self.options)
        if self.box and self.state.rule == "accelerated":
            self.box.project(self.params)  # the extrapolated point: fun is called within the bounds alone


class NoisyRun(Run):
    """The answer is the last point, or the average of all."""

    def _evaluate(self) -> None:
        super()._evaluate()
        self.residual = math.inf

    def _keep(self) -> None:
        if average_decay_of(self.state) is None:
            self.kept.offer(-self.nit, self.params, self.value, self.grads)
        else:
            self.kept.offer(-self.nit, self.state.average)

    def best(self) -> Point:
        return (
            self.kept.point if average_decay_of(self.state) is None else evaluated(self.function, self.kept)
        )


class ProximalRun(Run):
    """The answer is an iterate, where `fun` is not evaluated: that of the step which changed the least."""

    def begin(self) -> None:
        self._before = copied(self.params)

    def advance(self) -> None:
        self.value, self.grads = self.function(self.params)
        copy_into(self._before, self.params)
        self._step()
        self.nit += 1
        self.residual = self._change()
        self.kept.offer(self.residual, self.state.iterate)

    def _change(self) -> float:
        """The largest one divided by lr. An lr of 0 says nothing of its array; where all are 0, it is infinite."""
        iterates = dict(leaves(self.state.iterate))
        quotients = []
        for keys, point in leaves(self._before):
            change, lr = float(np.abs(point - iterates[keys]).max(initial=0.0)), at(self.state.lr, keys)
            if not math.isfinite(change):
                what = f"a step changed an element by {change!r}"
                raise NotFiniteError(what)
            if lr:
                quotients.append(change / lr)
        return max(quotients, default=math.inf)

    def current(self) -> Point:
        iterate = copied(self.params)
        copy_into(iterate, self.state.iterate)
        return Point(iterate, self.function(iterate)[0], None)

    def best(self) -> Point:
        return evaluated(self.function, self.kept)


def evaluated(function: Function, kept: Kept) -> Point:
    """With value and gradient, which are NaN and None where there are none, as after an interrupt."""
    point = kept.point
    try:
        return Point(point.params, *function(point.params))
    except NotFiniteError as error:
        return point._replace(value=error.value)
    except KeyboardInterrupt:
        return point


def driven(run: Run, maxiter: int, watch: Callable[[Run], object]) -> tuple[int, str]:
    """Make the steps; return the status and the message."""
    try:
        run.begin()
        while not run.residual <= run.tol and run.nit < maxiter:
            run.advance()
            if _stops(watch, run):
                return STOPPED, "`callback` raised `StopIteration`."
    except NotFiniteError as error:
        return NOT_FINITE, f"{error} after {run.nit} steps; x is the best point before. A lower lr may help."
    except KeyboardInterrupt:
        return (
            INTERRUPTED,
            f"Interrupted (KeyboardInterrupt) after {run.nit} steps; x is the best point so far.",
        )
    if run.residual <= run.tol:
        return CONVERGED, f"{run.residual:.3g} is left of the gradient, at most tol, {run.tol:.3g}."
    left = f"; {run.residual:.3g} is left of the gradient" if math.isfinite(run.residual) else ""
    return MAXITER, f"maxiter, {maxiter}, steps were made{left}."


def _stops(watch: Callable[[Run], object], run: Run) -> bool:
    try:
        watch(run)
    except StopIteration:
        return True
    return False
