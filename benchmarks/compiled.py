"""The contenders that the suite compiles: a bare loop, which is the roofline, and a loop in Cython."""

from __future__ import annotations

import ctypes
import importlib.util
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fast_momentum as fm
from fast_momentum._bench.contenders import CONTENDERS, serial_loop
from fast_momentum._bench.problems import LR, MOMENTUM

if TYPE_CHECKING:
    from fast_momentum._bench.problems import Problem
    from fast_momentum._bench.timing import Call

HERE = Path(__file__).parent
BARE, CYTHON = "bare loop", "Cython"


@cache
def build_folder() -> Path:
    """Removed when Python ends."""
    folder = tempfile.TemporaryDirectory(prefix="fast_momentum_benchmarks_")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def shared_library(source: Path, flags: str) -> Path:
    compiler = shutil.which("cc")
    if not compiler:
        msg = "the suite must have a C compiler as `cc` to measure the roofline; install gcc or clang"
        raise ImportError(msg)
    library = build_folder() / f"{source.stem}.so"
    command = [compiler, *shlex.split(flags), "-shared", "-fPIC", "-o", str(library), str(source)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        msg = f"the suite must have a compiler that takes {flags}, which {compiler} does not: {done.stderr}"
        raise ImportError(msg)
    return library


@cache
def bare_library() -> ctypes.CDLL:
    """Compiled with the flags of the kernels in use."""
    return ctypes.CDLL(
        str(shared_library(HERE / "bare.c", f"{fm.show_config('dicts').get('flags', '-O3')} -fopenmp"))
    )


def bare_loop(problem: Problem) -> Call:
    name = problem.arrays[0].dtype.name
    function = getattr(bare_library(), f"bare_{name}")
    number = {"float32": ctypes.c_float, "float64": ctypes.c_double}[name]
    calls = [
        (p.ctypes.data_as(ctypes.c_void_p), g.ctypes.data_as(ctypes.c_void_p), v.ctypes.data_as(ctypes.c_void_p),
         ctypes.c_ssize_t(p.size), number(MOMENTUM), number(LR), ctypes.c_int(problem.threads))
        for p, g, v in zip(problem.arrays, problem.gradients, problem.velocities, strict=True)
    ]  # fmt: skip

    def call() -> None:
        for arguments in calls:
            function(*arguments)

    return call


@cache
def cython_module() -> Any:
    """Compiled as setuptools would, with the flags that this Python was compiled with."""
    if not importlib.util.find_spec("Cython"):
        raise ImportError(name="Cython")
    source = build_folder() / "cython_loop.c"
    subprocess.run(
        [sys.executable, "-m", "cython", "-o", str(source), str(HERE / "cython_loop.pyx")], check=True
    )
    flags = f"-w {sysconfig.get_config_var('CFLAGS') or '-O3'} -I{sysconfig.get_path('include')}"
    spec = importlib.util.spec_from_file_location("cython_loop", shared_library(source, flags))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cython_loop(problem: Problem) -> Call:
    return serial_loop(problem, cython_module().step)


ALL_CONTENDERS = {**CONTENDERS, CYTHON: cython_loop, BARE: bare_loop}
