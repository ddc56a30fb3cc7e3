"""Short steps that tell gradients of one smooth function from noisy ones."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ._flat import norm

if TYPE_CHECKING:
    from ._flat import Point, Vector

# Two differences are those of one smooth function if, per displacement, they agree to this share, and if they are
# this small beside the gradient.
SAME, SMALL = 0.1, 0.01

# A difference of fewer roundings than this, relative to the gradient, may be nothing else. The steps are made this
# much longer then, this many times: the gradient has shown that it hardly changes on the way.
ROUNDINGS, LONGER, TIMES = 100, 10.0, 3

# Calls after which gradients that could not be compared, such as those of other arrays each time, pass for noisy.
PATIENCE = 20


class Probes:
    """The first points of a run, `length` apart; `first` says that nothing is known about the function yet."""

    def __init__(self, p: Vector, *, first: bool) -> None:
        self.length = short(p)
        self.points: list[Point] = []
        self._first = first
        self._longest = self.length * LONGER ** (TIMES - 0.5)
        self._calls = 0

    def noisy(self, point: Point) -> bool | None:
        """Take the next point. Whether the gradients are noisy, None as long as that is open."""
        self._calls += 1
        if self._calls > PATIENCE:
            return True
        self.points.append(point)
        displacements, differences, gradient = self._compared()
        if displacements and min(map(norm, displacements)) == 0:
            self.points = [point]
            return None
        change = norm(differences[0]) if differences else math.inf
        straight = change <= ROUNDINGS * float(np.finfo(gradient.dtype).eps) * norm(gradient)
        if straight and self.length < self._longest:
            self.length *= LONGER
            self.points = [point]
            return None
        if len(differences) < 2:
            return None
        one, two = (y / norm(s) for s, y in zip(displacements, differences, strict=True))
        same = norm(two - one) <= SAME * norm(one)
        return not same or (self._first and (straight or change > SMALL * norm(gradient)))

    def _compared(self) -> tuple[list[Vector], list[Vector], Vector]:
        """Displacements and differences, and the last gradient, where gradients were given at all points."""
        masks = [given for _, _, given in self.points if given is not None]
        where: Any = np.logical_and.reduce(masks) if masks else slice(None)
        p, g = [p[where] for p, _, _ in self.points], [g[where] for _, g, _ in self.points]
        return [b - a for a, b in pairwise(p)], [b - a for a, b in pairwise(g)], g[-1]


def short(p: Vector) -> float:
    """A length beside which that of `p` is exact: too short to do harm, and long enough to be measured."""
    return math.sqrt(np.finfo(p.dtype).eps) * (norm(p) or 1.0)
