"""The time of a step, beside that of the reference in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from models import MODELS

import fast_momentum as fm
from fast_momentum import reference
from fast_momentum._bench.problems import many_arrays, one_array

PACKAGES = {"fast_momentum": fm, "reference": reference}

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "lr_inside": {"form": "lr_inside"},
    "ema": {"form": "ema"},
    "nesterov": {"nesterov": True},
    "dampening": {"dampening": 0.1},
    "weight_decay": {"weight_decay": 1e-4},
    "decoupled_weight_decay": {"weight_decay": 1e-4, "decoupled_weight_decay": True},
    "maximize": {"maximize": True},
    "nesterov, weight_decay": {"nesterov": True, "weight_decay": 1e-4},
}


class Step:
    """What the classes below share: a step of `self.params` by `self.package`."""

    def prepare(self, package: str, params: Any, grads: Any, **options: Any) -> None:
        self.package, self.params, self.grads = PACKAGES[package], params, grads
        self.state = self.package.init(params, lr=1e-3, momentum=0.9, **options)
        self.package.step(params, grads, self.state)

    def step(self) -> None:
        self.package.step(self.params, self.grads, self.state)


class Sizes(Step):
    """One array."""

    param_names = ["elements", "dtype", "package"]
    params = [
        [1, 100, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000], ["float32", "float64"], [*PACKAGES],
    ]  # fmt: skip

    def setup(self, elements: int, dtype: str, package: str) -> None:
        self.prepare(package, np.ones(elements, dtype), np.full(elements, 1e-3, dtype))

    def time_step(self, *_: Any) -> None:
        self.step()


class Options(Step):
    """Every form and option, ten million elements."""

    param_names = ["options", "package"]
    params = [[*OPTIONS], [*PACKAGES]]

    def setup(self, options: str, package: str) -> None:
        n = 10_000_000
        self.prepare(package, np.ones(n, "f4"), np.full(n, 1e-3, "f4"), **OPTIONS[options])

    def time_step(self, *_: Any) -> None:
        self.step()


class Containers(Step):
    """Many arrays of 32, in a list or dict."""

    param_names = ["kind", "arrays", "package"]
    params = [["list", "dict"], [1, 10, 100, 1000, 10_000], [*PACKAGES]]

    def setup(self, kind: str, arrays: int, package: str) -> None:
        given = many_arrays([(32,)] * arrays, kind)
        self.prepare(package, given.params, given.grads)

    def time_step(self, *_: Any) -> None:
        self.step()


class Models(Step):
    """The shapes of known models."""

    param_names = ["model", "package"]
    params = [[*MODELS], [*PACKAGES]]

    def setup(self, model: str, package: str) -> None:
        given = many_arrays(MODELS[model])
        self.prepare(package, given.params, given.grads)

    def time_step(self, *_: Any) -> None:
        self.step()


def laid_out(layout: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Parameters and gradients of 1500 x 1500, or 250 x 1000 kernels of 3 x 3, which is as much."""
    n = 1500
    c, f, wide = np.ones((n, n), "f4"), np.ones((n, n), "f4", order="F"), np.ones((2 * n, 2 * n), "f4")
    grads_c, grads_f = np.full_like(c, 1e-3), np.full_like(f, 1e-3)
    return {
        "C": (c, grads_c),
        "Fortran": (f, grads_f),
        "transposed": (c.T, grads_c.T),
        "C, Fortran gradients": (c, grads_f),
        "Fortran, C gradients": (f, grads_c),
        "every second row": (wide[::2, :n], grads_c),
        "every second column": (wide[:n, ::2], grads_c),
        "a slice of columns": (wide[:n, :n], grads_c),
        "reversed": (c[::-1, ::-1], grads_c),
        "broadcast gradient": (c, np.broadcast_to(grads_c[0], (n, n))),
        "3 x 3 out of 4 x 4": (
            np.ones((250, 1000, 4, 4), "f4")[:, :, :3, :3],
            grads_c.reshape(250, 1000, 3, 3),
        ),
        "3 x 3, Fortran gradients": (
            c.reshape(250, 1000, 3, 3),
            np.full((250, 1000, 3, 3), 1e-3, "f4", order="F"),
        ),
    }[layout]


LAYOUTS = [
    "C", "Fortran", "transposed", "C, Fortran gradients", "Fortran, C gradients", "every second row",
    "every second column", "a slice of columns", "reversed", "broadcast gradient", "3 x 3 out of 4 x 4",
    "3 x 3, Fortran gradients",
]  # fmt: skip


class Layouts(Step):
    """Memory that is not in one piece, or not in one order."""

    param_names = ["layout", "package"]
    params = [LAYOUTS, [*PACKAGES]]

    def setup(self, layout: str, package: str) -> None:
        self.prepare(package, *laid_out(layout))

    def time_step(self, *_: Any) -> None:
        self.step()


class Threads(Step):
    """One thread and two, away from BLAS."""

    param_names = ["elements", "threads"]
    params = [[10_000, 100_000, 1_000_000, 10_000_000], [1, 2]]

    def setup(self, elements: int, threads: int) -> None:
        fm.set_num_threads(threads)
        given = one_array(elements)
        self.prepare("fast_momentum", given.params, given.grads)

    def time_step(self, *_: Any) -> None:
        self.step()


class FirstStep:
    """The pages of the velocities are touched for the first time."""

    number = 1
    param_names = ["elements"]
    params = [[1_000_000, 10_000_000]]

    def setup(self, elements: int) -> None:
        self.p, self.g = np.ones(elements, "f4"), np.full(elements, 1e-3, "f4")

    def time_init_and_first_step(self, *_: Any) -> None:
        fm.step(self.p, self.g, fm.init(self.p, lr=1e-3))


def timeraw_import() -> tuple[str, str]:
    """What the import adds to NumPy's own."""
    return "import fast_momentum", "import numpy"
