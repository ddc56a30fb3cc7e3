r"""
A path graph is coloured one node per step
==========================================

The nodes :math:`1 \dots n` of a path start with the colour 0. The first is pulled towards 1, and every node
towards its neighbours:

.. math:: f(x) = \tfrac12 (x_1 - 1)^2 + \tfrac12 \sum_{i=1}^{n-1} (x_i - x_{i+1})^2

The gradient at a node depends on its neighbours only, so that a step moves the colour on by one node. After
:math:`k` steps every node beyond the first :math:`k` is still exactly zero, whatever the constants, of each method that
starts at zero and moves within the span of the gradients: none colours the last node before step :math:`n`. The best value that is possible
with :math:`k` coloured nodes is :math:`f = 1/(2(k + 1))`, a straight ramp, and the heavy ball attains it for
:math:`k < n` if step :math:`k` has :math:`\text{lr} = k/(k+1)` and momentum :math:`(k-1)/(k+1)`, in the form
``lr_inside``. Its iterates are those of the conjugate gradient method.

With constants that are the best in the long run, gradient descent needs about :math:`2 n^2` steps until every
node is within 0.1, the heavy ball about :math:`2.7 n`: the condition number of the path tends to
:math:`(4n/\pi)^2`, and momentum pays for its root only. Nesterov's method, with its best constants for
quadratics, needs about :math:`4.6 n` steps.

The graph is from G. Goh, `Why Momentum Really Works <https://distill.pub/2017/momentum/>`_, Distill, 2017,
and the function, up to a factor, from Y. Nesterov, *Introductory Lectures on Convex Optimization*, Springer,
2004, section 2.1.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import fast_momentum as fm
from fast_momentum import plot, theory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

METHODS = {
    "gradient_descent": "gradient descent",
    "heavy_ball": "heavy ball",
    "nesterov_quadratic": "Nesterov",
}
SHOWN = 40
NODES = [10, 20, 40, 80]
NEAR = 0.1


class Found(NamedTuple):
    colours: dict[str, Array]  # step by node, for the path with SHOWN nodes
    best: Array  # the same for the heavy ball that is the best possible at each step
    steps: dict[str, list[int]]  # until every node is within NEAR, for each of NODES
    condition: list[float]  # number, for each of NODES


def value(x: Array) -> Array:
    """f of each row."""
    residuals = np.diff(x, axis=-1, prepend=1.0)
    return np.asarray(np.sum(residuals**2, axis=-1) / 2)


def gradient(x: Array) -> Array:
    differences = np.diff(x, prepend=1.0)
    grads = differences.copy()
    grads[:-1] -= differences[1:]
    return grads


def curvatures(nodes: int) -> Array:
    """The eigenvalues of the Hessian, from the smallest to the largest."""
    odd = 2 * np.arange(1, nodes + 1) - 1
    return np.asarray(4 * np.sin(np.pi * odd / (4 * nodes + 2)) ** 2)


def tuned(x: Array, method: str) -> fm.State:
    """A state with the constants that have the best rate on a path of this length."""
    curvature = curvatures(x.size)
    best = theory.optimal(curvature[0], curvature[-1], method=method)
    return fm.init(x, lr=best.lr, momentum=best.momentum, nesterov=best.nesterov)


def colouring(method: str, nodes: int, steps: int) -> Array:
    x = np.zeros(nodes)
    state = tuned(x, method)
    rows = [x.copy()]
    for _ in range(steps):
        fm.step(x, gradient(x), state)
        rows.append(x.copy())
    return np.array(rows)


def steps_needed(method: str, nodes: int) -> int:
    x = np.zeros(nodes)
    state = tuned(x, method)
    while np.abs(x - 1).max() > NEAR:
        fm.step(x, gradient(x), state)
    return state.step_count


def best_colouring(nodes: int) -> Array:
    """One step less than there are nodes: the last one would need a momentum of n - 1."""
    x = np.zeros(nodes)
    state = fm.init(x, lr=0.5, momentum=0.0, form="lr_inside")
    rows = [x.copy()]
    for k in range(1, nodes):
        state.lr, state.momentum = k / (k + 1), (k - 1) / (k + 1)
        fm.step(x, gradient(x), state)
        rows.append(x.copy())
    return np.array(rows)


def experiment() -> Found:
    limits = [curvatures(nodes)[[0, -1]] for nodes in NODES]
    return Found(
        colours={method: colouring(method, SHOWN, 4 * SHOWN) for method in METHODS},
        best=best_colouring(SHOWN),
        steps={method: [steps_needed(method, nodes) for nodes in NODES] for method in METHODS},
        condition=[float(largest / smallest) for smallest, largest in limits],
    )


def draw_colours(axes: Any, colours: Array) -> Any:
    size = (0.5, SHOWN + 0.5, 0, len(colours))
    image = axes.imshow(colours, origin="lower", aspect="auto", cmap="cividis", vmin=0, vmax=1, extent=size)
    axes.plot([0.5, SHOWN + 0.5], [0.5, SHOWN + 0.5], "w--")
    axes.set(xlabel="node", xticks=range(20, SHOWN + 1, 20))
    return image


def draw(found: Found) -> Figure:
    layout: list[Any] = [list(METHODS), ["loss"] * 3, ["steps"] * 3]
    figure = plt.figure(figsize=(plot.WIDTH, 10), layout="constrained")
    axes = figure.subplot_mosaic(layout)
    for method, name in METHODS.items():
        image = draw_colours(axes[method], found.colours[method])
        axes[method].set_title(name, fontsize="small")
    axes["gradient_descent"].set_ylabel("step")
    axes["gradient_descent"].text(39, 48, "one node\nper step", ha="right", color="white", fontsize="small")
    figure.colorbar(image, ax=axes["nesterov_quadratic"], label="colour")

    curves = {name: value(found.colours[method]) for method, name in METHODS.items()}
    plot.loss_curves(axes["loss"], curves | {"least possible": value(found.best)}, ylabel="$f$")
    axes["loss"].set_ylim(1e-4, 1)

    needed = {name: (NODES, found.steps[method]) for method, name in METHODS.items()}
    plot.loss_curves(
        axes["steps"],
        needed | {"$n$, the least possible": (NODES, NODES)},
        xlabel="nodes $n$",
        ylabel=f"steps until all are within {NEAR}",
    )
    axes["steps"].set_xscale("log", base=2)
    axes["steps"].set_xticks(NODES, map(str, NODES))
    for name in ("loss", "steps"):
        plot.direct_labels(axes[name])
    return figure


def main() -> None:
    found = experiment()
    for method, name in METHODS.items():
        last = found.colours[method][:, -1]
        print(
            f"{name}: the last of {SHOWN} nodes is 0 up to step {np.flatnonzero(last)[0] - 1}; steps for "
            + ", ".join(f"n = {n}: {steps}" for n, steps in zip(NODES, found.steps[method], strict=True))
        )
    print("condition number: " + ", ".join(f"{number:.0f}" for number in found.condition))
    print(
        f"least possible after {SHOWN - 1} steps, reached by the heavy ball: f = {value(found.best)[-1]:.4f}"
    )
    draw(found).savefig("path_colouring.png", dpi=150)
    print("Picture: path_colouring.png")


if __name__ == "__main__":
    main()
