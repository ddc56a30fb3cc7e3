"""How this copy was built and what it uses, and the environment variables that choose it."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any, Literal, overload

from . import _core

logger = logging.getLogger("fast_momentum")
logger.addHandler(logging.NullHandler())


@overload
def show_config(mode: Literal["stdout"] = ...) -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> dict[str, Any]: ...
def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print, or return, how fast_momentum was built and what it uses here.

    Parameters
    ----------
    mode : {'stdout', 'dicts'}, default 'stdout'
        Whether to print it, or to return it as a dict.

    Returns
    -------
    dict or None
        With the version, compiler, the dtypes in which it computes, and those in which what is computed in float32 can be
        stored, the instruction sets built (and whether this CPU may use each), the one in use and the flags that its kernels were compiled with, the threading layer, the number of threads asked for, and how many of them a step can use at most, by the limits of OpenMP, the
        process and its cgroup.

    Raises
    ------
    ValueError
        `mode` is neither.

    Examples
    --------
    >>> import fast_momentum as fm
    >>> fm.show_config("dicts")["dtypes"]
    ['float32', 'float64', 'complex64', 'complex128']
    >>> fm.show_config("dicts")["float32 stored as"]
    ['float16', 'bfloat16', 'int8']
    """
    if mode not in ("stdout", "dicts"):
        msg = f"mode must be 'stdout' or 'dicts', not {mode!r}"
        raise ValueError(msg)
    config = _core.config() | {"usable threads": _core.usable_threads()}
    if mode == "dicts":
        return config
    for name, value in config.items():
        print(f"{name}: {value}")
    return None


def apply_environment() -> None:
    """Read the variables of the environment; what they must not say is a warning, as an import must not fail."""
    threads = os.environ.get("FAST_MOMENTUM_NUM_THREADS", "").strip()
    if threads:
        try:
            _core.set_num_threads(int(threads))
        except ValueError:
            _warn(
                f"FAST_MOMENTUM_NUM_THREADS must be an integer of at least 1, not {threads!r}; using one thread"
            )
    disabled = os.environ.get("FAST_MOMENTUM_DISABLE_CPU_FEATURES", "")
    unknown = _core.disable_isas(disabled.encode("ascii", "backslashreplace").decode())
    if unknown:
        names = [name for name in _core.config()["instruction sets"] if name != "baseline"]
        _warn(
            f"FAST_MOMENTUM_DISABLE_CPU_FEATURES must name instruction sets that this build can do without "
            f"({', '.join(names) or 'it has none'}), not {', '.join(unknown)}; ignored"
        )

    logger.debug("instruction set %(in use)s, threading layer %(threading layer)s", _core.config())


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
