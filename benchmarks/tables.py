"""Steps of some rows of a large table, and what others do in their place, for the suite and the report.

The contenders of a case step the same parameters and velocities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS
from fast_momentum._bench.problems import LR, MOMENTUM, writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fast_momentum._bench.timing import Call

SORTED, ADAM, NUMPY_ON_ROWS, DENSE = "sorted indices", "adam", "NumPy on the rows", "dense step"


class Case(NamedTuple):
    """A table, and how many indices there are, drawn so that some rows are there twice."""

    rows: int
    width: int
    indices: int

    def __str__(self) -> str:
        return f"{self.indices:,} of {self.rows:,} x {self.width}"


FEW, TEN, MANY = Case(200_000, 64, 1000), Case(200_000, 64, 10), Case(10_000_000, 16, 1_000_000)


class Problem:
    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        self.table = np.ones((case.rows, case.width), np.float32)
        self.indices = rng.integers(0, case.rows, case.indices)
        self.values = rng.normal(0, 1e-3, (case.indices, case.width)).astype(np.float32)
        self.state = fm.init(self.table, lr=LR, momentum=MOMENTUM)


def stepping(params: Any, grads: Any, state: fm.State) -> Call:
    return lambda: fm.step(params, grads, state)


def ours(problem: Problem) -> Call:
    return stepping(problem.table, fm.Rows(problem.indices, problem.values), problem.state)


def sorted_indices(problem: Problem) -> Call:
    """The same rows and values, without the sort."""
    order = np.argsort(problem.indices, kind="stable")
    return stepping(problem.table, fm.Rows(problem.indices[order], problem.values[order]), problem.state)


def adam(problem: Problem) -> Call:
    state = fm.adam(problem.table, lr=LR)
    return stepping(problem.table, fm.Rows(problem.indices, problem.values), state)


def numpy_on_rows(problem: Problem) -> Call:
    """What one writes by hand."""
    table, indices, values, velocity = (
        problem.table, problem.indices, problem.values, writable(problem.state.velocity),
    )  # fmt: skip

    def call() -> None:
        rows, places = np.unique(indices, return_inverse=True)
        sums = np.zeros((len(rows), table.shape[1]), table.dtype)
        np.add.at(sums, places, values)
        new = MOMENTUM * velocity[rows] + sums
        velocity[rows] = new
        table[rows] -= LR * new

    return call


def dense(problem: Problem) -> Call:
    """With a gradient that is there already."""
    grads = np.zeros_like(problem.table)
    np.add.at(grads, problem.indices, problem.values)
    return stepping(problem.table, grads, problem.state)


CONTENDERS: dict[str, Callable[[Problem], Call]] = {
    OURS: ours,
    SORTED: sorted_indices,
    ADAM: adam,
    NUMPY_ON_ROWS: numpy_on_rows,
    DENSE: dense,
}


def calls_of(case: Case, *names: str) -> dict[str, Call]:
    problem = Problem(case)
    return {name: CONTENDERS[name](problem) for name in names}
