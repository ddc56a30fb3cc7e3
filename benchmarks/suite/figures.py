"""Figures that a reader wants, each from contenders that take turns in one run."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from compiled import ALL_CONTENDERS, BARE
from family import ADAM, NESTEROV, RULES, adam_problem, rule_calls
from measure import growth_of_memory, seconds_of_import
from training import BATCHES, IN_PLACE, PERCEPTRONS, SOLVERS, WIDTHS, perceptron, sklearn_fits

import fast_momentum as fm
from fast_momentum._bench.contenders import OURS, prepared
from fast_momentum._bench.problems import many_arrays, one_array
from fast_momentum._bench.timing import interleaved

BUDGET = float(os.environ.get("FAST_MOMENTUM_BENCHMARK_SECONDS", "1"))  # for one figure


class Arrays:
    """Nanoseconds for each array of many."""

    unit = "ns"
    param_names = ["kind", "arrays"]
    params = [["list", "dict"], [1, 1000, 10_000]]

    def track_time_an_array(self, kind: str, arrays: int) -> float:
        calls = prepared(many_arrays([(32,)] * arrays, kind), [OURS])
        return interleaved(calls, BUDGET).median(OURS) / arrays * 1e9


class Bandwidth:
    """Of one array: bytes moved, and the share of what a bare loop moves."""

    param_names = ["elements", "dtype", "threads"]
    params = [[100_000, 1_000_000, 10_000_000, 50_000_000], ["float32", "float64"], [1, 2]]

    def setup(self, elements: int, dtype: str, threads: int) -> None:
        self.problem = one_array(elements, dtype, threads)

    def track_bandwidth(self, *_: Any) -> float:
        calls = prepared(self.problem, [OURS])
        return self.problem.moved_bytes / interleaved(calls, BUDGET).median(OURS) / 1e9

    def track_share_of_roofline(self, *_: Any) -> float:
        calls = prepared(self.problem, [OURS, BARE], ALL_CONTENDERS)
        return interleaved(calls, BUDGET).ratio(BARE, OURS).median


# asv reads attributes of functions, which have none for mypy.
Bandwidth.track_bandwidth.unit = "GB/s"  # type: ignore[attr-defined]
Bandwidth.track_share_of_roofline.unit = "of a bare loop"  # type: ignore[attr-defined]


class Peers:
    """Times as long as `fast_momentum` takes."""

    unit = "times"
    param_names = ["peer", "elements"]
    params = [[name for name in ALL_CONTENDERS if name != OURS], [100, 10_000, 100_000, 10_000_000]]

    def setup(self, peer: str, elements: int) -> None:
        self.calls = prepared(one_array(elements), [OURS, peer], ALL_CONTENDERS)
        if peer not in self.calls:
            raise NotImplementedError  # asv's word for a combination that is left out: it is not installed

    def track_ratio(self, peer: str, _: int) -> float:
        return interleaved(self.calls, BUDGET).ratio(peer, OURS).median


class Adam:
    """Times as long as `fast_momentum` takes."""

    unit = "times"
    param_names = ["peer", "elements"]
    params = [[name for name in ADAM if name != OURS], [100, 10_000, 100_000, 1_000_000, 10_000_000]]

    def setup(self, peer: str, elements: int) -> None:
        self.calls = prepared(adam_problem(elements), [OURS, peer], ADAM)
        if peer not in self.calls:
            raise NotImplementedError  # it is not installed

    def track_ratio(self, peer: str, _: int) -> float:
        return interleaved(self.calls, BUDGET).ratio(peer, OURS).median


class Rules:
    """A step of each rule, of that of momentum with Nesterov; ten million elements."""

    unit = "times"
    param_names = ["rule"]
    params = [[name for name in RULES if name != NESTEROV]]

    def track_ratio(self, rule: str) -> float:
        calls = rule_calls(10_000_000)
        return (
            interleaved({name: calls[name] for name in (rule, NESTEROV)}, BUDGET).ratio(rule, NESTEROV).median
        )


class Loops:
    """A whole iteration of training, and the step in it: NumPy in place as a multiple of `fast_momentum`."""

    unit = "times"
    param_names = ["perceptron"]
    params = [[*PERCEPTRONS]]

    def track_iteration(self, name: str) -> float:
        return perceptron(name, 5 * BUDGET)[0].ratio(IN_PLACE, OURS).median

    def track_step(self, name: str) -> float:
        return perceptron(name, 5 * BUDGET)[1].ratio(IN_PLACE, OURS).median


class ScikitLearn:
    """The fit of an MLPClassifier, as a multiple of the same fit with the class of our adapter."""

    unit = "times"
    param_names = ["solver", "width", "batch"]
    params = [[" ".join(solver) for solver in SOLVERS], WIDTHS, BATCHES]

    def track_fit(self, solver: str, width: int, batch: int) -> float:
        name, dtype = solver.split()
        return sklearn_fits(name, dtype, width, batch, 3).ratio("scikit-learn", OURS).median


class Memory:
    """What stays in memory after a first step."""

    param_names = ["elements"]
    params = [[10_000_000]]

    def peakmem_step(self, elements: int) -> None:
        p, g = np.ones(elements, "f4"), np.full(elements, 1e-3, "f4")
        fm.step(p, g, fm.init(p, lr=1e-3))

    def track_growth(self, elements: int) -> float:
        return growth_of_memory(elements)


Memory.track_growth.unit = "of the velocities"  # type: ignore[attr-defined]


def track_import() -> float:
    """Milliseconds that the import takes when NumPy has been imported."""
    return seconds_of_import() * 1e3


track_import.unit = "ms"  # type: ignore[attr-defined]
