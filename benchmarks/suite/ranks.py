"""Steps of many ranks, of the time of an allreduce and a full step of each."""

from __future__ import annotations

import math

from measure import of_ranks


class Ranks:
    """Two ranks, and four; not a number where mpi4py or MPI is missing."""

    unit = "times"
    param_names = ["ranks", "rule", "elements", "way"]
    params = [[2, 4], ["init", "adam"], [1000, 1_000_000, 10_000_000], ["spread", "in order", "whole"]]

    def track_ratio(self, n_ranks: int, rule: str, elements: int, way: str) -> float:
        times = of_ranks(n_ranks, rule, elements)
        return times.ratio(way, "allreduce").median if times else math.nan
