r"""
Logistic regression, to scikit-learn's solution
===============================================

The loss is smooth and, with a ridge, strongly convex, so its largest and smallest curvatures are known before the first
step: :math:`\lambda` from below, and :math:`|X|^2/(4 n) + \lambda` from above. `theory.optimal` makes lr and momentum of
them. Malignant and benign tumours of scikit-learn's data set are told apart, and the weights held against those of
`LogisticRegression`.

What is found: with the constants for Nesterov's method, which hold for losses that are not quadratic as well, the weights
agree with scikit-learn's to six digits after 1000 steps; gradient descent at its best lr is still 15 % away. At first it
is ahead: after 100 steps it is nearer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

RIDGE, STEPS = 1e-3, 1000
METHODS = {"gradient descent": "gradient_descent", "Nesterov": "nesterov"}


class Found(NamedTuple):
    kappa: float
    distances: dict[str, Array]  # from scikit-learn's weights, in units of their size


def train(x: Array, y: Array, tuned: theory.Tuning) -> Array:
    w = np.zeros(x.shape[1])
    state = fm.init(w, lr=tuned.lr, momentum=tuned.momentum, nesterov=tuned.nesterov)
    path = []
    for _ in range(STEPS):
        path.append(w.copy())
        probability = 1 / (1 + np.exp(-(x @ w)))
        fm.step(w, x.T @ (probability - y) / len(x) + RIDGE * w, state)
    return np.array(path)


def experiment() -> Found:
    x, y = load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    steepest = float(np.linalg.norm(x, 2)) ** 2 / (4 * len(x)) + RIDGE
    fitted = LogisticRegression(C=1 / (RIDGE * len(x)), fit_intercept=False, tol=1e-12, max_iter=10_000).fit(
        x, y
    )
    solution = fitted.coef_[0]
    distances = {}
    for name, method in METHODS.items():
        path = train(x, y, theory.optimal(RIDGE, steepest, method=method))
        distances[name] = np.linalg.norm(path - solution, axis=1) / np.linalg.norm(solution)
    return Found(steepest / RIDGE, distances)


def draw(found: Found) -> Figure:
    figure, axes = plt.subplots(figsize=(plot.WIDTH, 4), layout="constrained")
    plot.loss_curves(axes, found.distances, ylabel="relative distance from scikit-learn's weights")
    plot.direct_labels(axes)
    return figure


def main() -> None:
    found = experiment()
    print(f"condition number, at the most: {found.kappa:,.0f}")
    for name, distance in found.distances.items():
        print(
            f"{name}: relative distance {distance[100]:.1g} after 100 steps, {distance[-1]:.1g} after {STEPS}"
        )
    draw(found).savefig("logistic_regression.png", dpi=150)
    print("Picture: logistic_regression.png")


if __name__ == "__main__":
    main()
