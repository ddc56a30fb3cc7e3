"""Times contenders in turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Call: TypeAlias = "Callable[[], object]"

TURN = 0.002  # seconds that a turn lasts at least
LEAST_ROUNDS, MOST_ROUNDS = 5, 200


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Times:
    """Seconds of one call, for each contender and round."""

    seconds: Mapping[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, slower: str, faster: str) -> Ratio:
        """How many times as long one takes as the other, round by round."""
        ratios = [a / b for a, b in zip(self.seconds[slower], self.seconds[faster], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        return Ratio(median, low, high)


def timed(call: Call, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls


def calls_a_turn(call: Call) -> int:
    call()
    return max(1, round(TURN / max(timed(call, 3), 1e-9)))


def interleaved(contenders: Mapping[str, Call], budget: float) -> Times:
    """Time the contenders for `budget` seconds or a little more.

    Each turn begins with a call that is not counted: it brings the data back into the caches. Each round has an
    order of its own, so that none always follows the same other one.
    """
    calls = {name: calls_a_turn(call) for name, call in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    shuffle = random.Random(0).shuffle
    collects = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + budget
        for done in range(MOST_ROUNDS):
            if done >= LEAST_ROUNDS and time.perf_counter() >= end:
                break
            shuffle(order)
            for name in order:
                contenders[name]()
                seconds[name].append(timed(contenders[name], calls[name]))
    finally:
        if collects:
            gc.enable()
    return Times(seconds)
