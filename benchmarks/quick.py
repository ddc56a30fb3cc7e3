"""The three figures that a change must not lose, in half a minute: the cost of a call, of an array, of an element.

    python benchmarks/quick.py

Everything is timed interleaved in one run, on the same data; medians and ratios. The bare loop has the same
traffic, compiled here with the flags of the kernels.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import fast_momentum as fm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

BARE_LOOP = """
#include <stddef.h>
void bare(float *restrict p, const float *restrict g, float *restrict v, size_t n, float m, float lr) {
    for (size_t i = 0; i < n; ++i) {
        v[i] = m * v[i] + g[i];
        p[i] = p[i] - lr * v[i];
    }
}
"""


def compiled_bare_loop(folder: str) -> Callable[..., None] | None:
    compiler = shutil.which("cc")
    if not compiler:
        return None
    source, library = Path(folder) / "bare.c", Path(folder) / "bare.so"
    source.write_text(BARE_LOOP)
    isa = ["-mavx2"] if fm.show_config("dicts")["in use"] == "avx2" else []
    flags = ["-O3", "-ffp-contract=off", "-shared", "-fPIC", *isa]
    subprocess.run([compiler, *flags, "-o", library, source], check=True)
    function = ctypes.CDLL(str(library)).bare
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t] + [ctypes.c_float] * 2
    return function


def interleaved(contenders: dict[str, Callable[[], None]], calls: int, rounds: int = 15) -> dict[str, float]:
    """Median seconds a call; each round gives each contender its turn, after a call that brings its data back into
    the caches."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            contender()
            begin = time.perf_counter()
            for _ in range(calls):
                contender()
            times[name].append((time.perf_counter() - begin) / calls)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def same_memory(velocity: Array) -> Array:
    """A writable view of a velocity: every contender works on the same memory, or caches would favour some."""
    memory = (ctypes.c_float * velocity.size).from_address(velocity.ctypes.data)
    return np.frombuffer(memoryview(memory), np.float32)


def in_numpy(p: Array, g: Array, v: Array, scratch: Array) -> None:
    """What one writes who avoids temporaries."""
    np.multiply(v, np.float32(0.9), out=v)
    np.add(v, g, out=v)
    np.multiply(v, np.float32(1e-3), out=scratch)
    np.subtract(p, scratch, out=p)


def one_array(n: int, calls: int, bare: Callable[..., None] | None) -> None:
    p, g, scratch = np.ones(n, "f4"), np.full(n, 1e-3, "f4"), np.empty(n, "f4")
    state = fm.init(p, lr=1e-3)
    v = same_memory(state.velocity)
    contenders: dict[str, Callable[[], None]] = {
        "fast_momentum": lambda: fm.step(p, g, state),
        "NumPy in place": lambda: in_numpy(p, g, v, scratch),
    }
    if bare:
        addresses = [a.ctypes.data for a in (p, g, v)]
        contenders["bare loop"] = lambda: bare(*addresses, n, 0.9, 1e-3)
    show(f"one array of {n:,}", interleaved(contenders, calls), 1)


def many_arrays(count: int, n: int, kind: str) -> None:
    params, grads = ([np.ones(n, "f4") for _ in range(count)] for _ in range(2))
    scratch = np.empty(n, "f4")
    names = [f"layer{k}" for k in range(count)]
    given = (dict(zip(names, a, strict=True)) if kind == "dict" else a for a in (params, grads))
    ps, gs = given
    state = fm.init(ps, lr=1e-3)
    velocities = [same_memory(v) for v in (state.velocity.values() if kind == "dict" else state.velocity)]

    def numpy_steps() -> None:
        for p, g, v in zip(params, grads, velocities, strict=True):
            in_numpy(p, g, v, scratch)

    contenders = {"fast_momentum": lambda: fm.step(ps, gs, state), "NumPy in place": numpy_steps}
    show(f"{kind} of {count:,} arrays of {n}, per array", interleaved(contenders, 30, rounds=7), count)


def show(case: str, seconds: dict[str, float], per: int) -> None:
    ours = seconds["fast_momentum"]
    others = ", ".join(f"{s / ours:.2f} x {name}" for name, s in seconds.items() if name != "fast_momentum")
    print(f"{case}: {ours / per * 1e9:,.0f} ns; {others}")


def main() -> None:
    print(f"{platform.machine()}, {platform.system()}, numpy {np.__version__}, {fm.show_config('dicts')}")
    with tempfile.TemporaryDirectory() as folder:
        bare = compiled_bare_loop(folder)
        one_array(100, 20_000, bare)
        many_arrays(10_000, 32, "list")
        many_arrays(10_000, 32, "dict")
        one_array(100_000, 100, bare)
        one_array(10_000_000, 2, bare)


if __name__ == "__main__":
    main()
