"""Compare `fast_momentum.minimize` with SciPy's L-BFGS-B on five problems, and write the table of docs/howto/minimize.md.

    python benchmarks/minimizers.py

A minute, by one thread. All minimise the same function in turns, each until the objective is as near to its minimum as the problem
asks for; what the clock shows then and how often the function was evaluated is in the table.
"""

from __future__ import annotations

import datetime as dt
import functools
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import optimize
from scipy.special import expit
from threadpoolctl import threadpool_limits

import fast_momentum as fm
from fast_momentum import tuning
from fast_momentum._bench.machine import cpus, processor, system, versions

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).resolve().parents[1] / "docs" / "howto" / "minimize.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
ROUNDS = 3
LBFGS = "L-BFGS-B"


class ReachedError(Exception):
    """The objective is low enough."""


@dataclass
class Clock:
    """A function that counts its calls and ends the run at `target`; what `objective` takes is not counted."""

    fun: Callable[[Any], tuple[float, Any]]
    target: float
    objective: Callable[[Any, float], float] = lambda x, value: value  # noqa: ARG005 - others need x
    every: int = 1
    cost: float = 1.0  # of a call, in evaluations of all of the data
    calls: int = 0
    paused: float = 0.0
    begin: float = field(default_factory=time.perf_counter)

    def __call__(self, x: Any) -> tuple[float, Any]:
        found = self.fun(x)
        self.calls += 1
        if self.calls % self.every == 0:
            pause = time.perf_counter()
            reached = self.objective(x, found[0]) <= self.target
            self.paused += time.perf_counter() - pause
            if reached:
                raise ReachedError
        return found


@dataclass
class Problem:
    """Contenders are called with a function to minimise, of which they must not reach the end."""

    name: str
    variables: int
    fun: Callable[[Any], tuple[float, Any]]
    start: Any
    gap: float  # what may be left of the first excess over the minimum
    contenders: dict[str, Callable[[Callable[..., Clock]], object]]
    minimum: float | None = None  # where it is not to be looked for by L-BFGS-B


def lbfgs(start: Any, **more: Any) -> Callable[[Callable[..., Clock]], object]:
    """It goes on until it can do no more."""
    options = {"ftol": 0.0, "gtol": 0.0, "maxiter": 10**6, "maxfun": 10**6}
    return lambda clock: optimize.minimize(clock(), start, jac=True, method=LBFGS, options=options, **more)


def ours(start: Any, **more: Any) -> Callable[[Callable[..., Clock]], object]:
    if not more.get("noisy"):
        more = {"tol": 0.0, "maxiter": 10**6, **more}
    return lambda clock: fm.minimize(clock(), start, **more)


def rosenbrock() -> Problem:
    start = np.full(100, 1.3)
    both: dict[str, Any] = {"default": ours(start), LBFGS: lbfgs(start)}
    return Problem(
        "Rosenbrock's function",
        100,
        lambda x: (optimize.rosen(x), optimize.rosen_der(x)),
        start,
        1e-8,
        both,
        0.0,
    )


def logistic(n: int = 2000, d: int = 200) -> Problem:
    """With columns of different scale, so that the curvatures are far apart."""
    rng = np.random.default_rng(0)
    scale = np.geomspace(1, 10, d)
    data = rng.normal(size=(n, d)) * scale
    labels = np.sign(data @ (rng.normal(size=d) / scale / 3) + rng.normal(size=n))

    def fun(x: Any) -> tuple[float, Any]:
        margins = labels * (data @ x)
        value = np.logaddexp(0, -margins).mean() + 5e-4 * (x @ x)
        return float(value), -(data.T @ (labels * expit(-margins))) / n + 1e-3 * x

    start = np.zeros(d)
    return Problem("logistic regression", d, fun, start, 1e-8, {"default": ours(start), LBFGS: lbfgs(start)})


def denoising(n: int = 512) -> Problem:
    """An image and its total variation, made smooth; the largest curvature is known, 1 + 8*weight/rounding."""
    rng = np.random.default_rng(0)
    image = np.zeros((n, n))
    image[n // 4 : n // 2, n // 8 : n // 2] = 1
    image[n // 3 : 3 * n // 4, n // 2 : 2 * n // 3] += 0.5
    noisy = image + 0.1 * rng.normal(size=image.shape)
    weight, rounding = 0.1, 0.05

    def fun(x: Any) -> tuple[float, Any]:
        x = x.reshape(n, n)
        down, right = np.diff(x, axis=0, append=x[-1:]), np.diff(x, axis=1, append=x[:, -1:])
        slope = np.sqrt(down * down + right * right + rounding * rounding)
        error = x - noisy
        value = (error * error).sum() / 2 + weight * slope.sum()
        down *= weight / slope
        right *= weight / slope
        grad = error
        grad[:-1] -= down[:-1]
        grad[1:] += down[:-1]
        grad[:, :-1] -= right[:, :-1]
        grad[:, 1:] += right[:, :-1]
        return float(value), grad.ravel()

    start = noisy.ravel()
    told = {"lr": 1 / (1 + 8 * weight / rounding)}
    return Problem(
        "denoising an image", n * n, fun, start, 1e-6,
        {"default": ours(start), "lr told": ours(start, **told), LBFGS: lbfgs(start)},
    )  # fmt: skip


def sparse(n: int = 500, d: int = 5000) -> Problem:
    """The Lasso. L-BFGS-B has no proximal map: its variables are the positive and the negative parts."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(n, d)) / np.sqrt(n)
    data = matrix @ (rng.normal(size=d) * (rng.random(d) < 0.01)) + 0.05 * rng.normal(size=n)
    l1 = 0.1 * float(np.abs(matrix.T @ data).max())

    def smooth(x: Any) -> tuple[float, Any]:
        error = matrix @ x - data
        return float(error @ error) / 2, matrix.T @ error

    def split(parts: Any) -> tuple[float, Any]:
        value, grad = smooth(parts[:d] - parts[d:])
        return value + l1 * float(parts.sum()), np.concatenate([grad + l1, l1 - grad])

    def objective(x: Any, value: float) -> float:
        return value + l1 * float(np.abs(x).sum())

    parts, bounds = np.zeros(2 * d), optimize.Bounds(0, np.inf)
    solved = optimize.minimize(
        split, parts, jac=True, bounds=bounds, method=LBFGS,
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 10**5, "maxfun": 10**5},
    )  # fmt: skip
    return Problem(
        "sparse regression, l1", d, split, parts, 1e-6,
        {
            "default": lambda clock: ours(np.zeros(d), l1=l1)(functools.partial(clock, smooth, objective)),
            LBFGS: lbfgs(parts, bounds=bounds),
        },
        float(solved.fun),
    )  # fmt: skip


def batches(n: int = 100_000, d: int = 50, batch: int = 200) -> Problem:
    """Logistic regression again, where a part of the data says nearly as much as all of it."""
    rng = np.random.default_rng(0)
    data = rng.normal(size=(n, d))
    labels = np.sign(data @ rng.normal(size=d) / 4 + rng.logistic(size=n))

    def part(x: Any, of: Any) -> tuple[float, Any]:
        margins = labels[of] * (data[of] @ x)
        value = np.logaddexp(0, -margins).mean()
        return float(value), -(data[of].T @ (labels[of] * expit(-margins))) / len(margins)

    def fun(x: Any) -> tuple[float, Any]:
        return part(x, slice(None))

    def stochastic(x: Any) -> tuple[float, Any]:
        begin = batch * int(rng.integers(n // batch))
        return part(x, slice(begin, begin + batch))

    start = np.zeros(d)
    sampled: dict[str, Any] = {"every": 10, "cost": batch / n}
    steps = 500
    noisy = ours(start, noisy=True, lr=tuning.cosine(0.2, steps), maxiter=steps, momentum=0.9)
    return Problem(
        "large data, batches", d, fun, start, 1e-2,
        {
            "noisy=True": lambda clock: noisy(
                functools.partial(clock, stochastic, lambda x, _: fun(x)[0], **sampled)
            ),
            LBFGS: lbfgs(start),
        },
    )  # fmt: skip


PROBLEMS = [rosenbrock, logistic, denoising, sparse, batches]


def minimum(problem: Problem) -> float:
    if problem.minimum is not None:
        return problem.minimum
    found = optimize.minimize(
        problem.fun, problem.start, jac=True, method=LBFGS,
        options={"ftol": 0.0, "gtol": 1e-10, "maxiter": 2000, "maxfun": 4000},
    )  # fmt: skip
    return float(found.fun)


def raced(problem: Problem, rounds: int) -> dict[str, tuple[float, float]]:
    """For each contender the seconds and the evaluations that it took, medians over the rounds."""
    lowest = minimum(problem)
    target = lowest + problem.gap * (problem.fun(problem.start)[0] - lowest)
    seconds: dict[str, list[float]] = {name: [] for name in problem.contenders}
    evaluations: dict[str, list[float]] = {name: [] for name in problem.contenders}
    order = list(problem.contenders)
    shuffle = random.Random(0).shuffle
    for k in range(rounds + 1):  # the first is not counted
        shuffle(order)
        for name in order:
            clock: Clock | None = None

            def started(fun: Any = problem.fun, objective: Any = None, **more: Any) -> Clock:
                nonlocal clock
                more |= {} if objective is None else {"objective": objective}
                clock = Clock(fun, target, **more)
                return clock

            try:
                problem.contenders[name](started)
            except ReachedError:
                assert clock is not None
                if k:
                    seconds[name].append(time.perf_counter() - clock.begin - clock.paused)
                    evaluations[name].append(clock.calls * clock.cost)
            else:
                msg = f"{name} must reach the minimum of {problem.name}"
                raise RuntimeError(msg)
    return {
        name: (statistics.median(seconds[name]), statistics.median(evaluations[name])) for name in seconds
    }


def table(found: dict[str, tuple[Problem, dict[str, tuple[float, float]]]]) -> str:
    lines = [
        "| problem | variables | left of the excess | who | evaluations | seconds | time of L-BFGS-B |",
        "|---|---|---|---|---|---|---|",
    ]
    for problem, times in found.values():
        for name, (seconds, evaluations) in times.items():
            who = name if name == LBFGS else f"`minimize`, {name}"
            lines.append(
                f"| {problem.name} | {problem.variables:,} | {problem.gap:g} | {who} | {evaluations:.3g} | "
                f"{seconds:.2g} | {seconds / times[LBFGS][0]:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    found = {}
    for make in PROBLEMS:
        problem = make()
        with threadpool_limits(1, user_api="blas"):
            found[problem.name] = problem, raced(problem, ROUNDS)
        print(problem.name, found[problem.name][1], flush=True)
    software = ", ".join(f"{k} {v}" for k, v in versions().items() if k in ("python", "numpy"))
    where = f"{processor()}, {cpus()} CPUs, {system()}, {software}, on {dt.date.today():%Y-%m-%d}."
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(found)}\n\n{where}\n\n{END}{after}")


if __name__ == "__main__":
    main()
