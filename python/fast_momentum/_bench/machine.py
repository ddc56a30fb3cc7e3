"""What a figure was measured on: figures of two machines do not compare."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import fast_momentum as fm

PEERS = (
    "numpy", "torch", "numba", "numexpr", "jax", "optax", "scikit-learn", "cython", "autograd", "pennylane", "flwr",
)  # fmt: skip


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpus() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def system() -> str:
    return f"{platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def described() -> dict[str, object]:
    """The machine, the versions and the build."""
    return {
        "processor": processor(),
        "cpus": cpus(),
        "system": system(),
        "versions": versions(),
        "fast_momentum": fm.show_config("dicts"),
    }
