"""Who watches the steps of `minimize`: the user's callback, and a bar."""

from __future__ import annotations

import importlib.util
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..tuning._checks import function
from ._result import OptimizeResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._run import Run


def caller(callback: Callable[..., object] | None) -> Callable[[Run], object]:
    """What calls `callback` in that of SciPy's two ways which its signature asks for."""
    if callback is None:
        return lambda _: None
    function("callback", callback)
    if _parameters(callback) == {"intermediate_result"}:
        return lambda run: callback(intermediate_result=_intermediate(run))
    return lambda run: callback(run.current().params)


def _parameters(callback: Callable[..., object]) -> set[str]:
    try:
        return set(inspect.signature(callback).parameters)
    except ValueError:  # of some builtin functions, none is known
        return set()


def _intermediate(run: Run) -> OptimizeResult:
    point = run.current()
    return OptimizeResult(x=point.params, fun=point.value, nit=run.nit)


@contextmanager
def bar(maxiter: int, shown: bool) -> Iterator[Callable[[Run], object]]:
    """What moves a bar on standard error, if it is to be shown and rich is installed."""
    if not shown or importlib.util.find_spec("rich") is None:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=maxiter)
        yield lambda run: progress.update(
            task, completed=run.nit, description=f"fun {run.value:.6g}, gradient {run.residual:.2g}"
        )
