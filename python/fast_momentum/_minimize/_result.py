"""What `minimize` returns, and how it can end."""

from __future__ import annotations

from typing import Any


class OptimizeResult(dict[str, Any]):
    """What `minimize` returns: a dict whose items are attributes, like SciPy's class of that name, which it does not need.

    Examples
    --------
    >>> import fast_momentum as fm
    >>> result = fm.OptimizeResult(x=[1.0], success=True)
    >>> result.success, result["x"]
    (True, [1.0])
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            msg = f"the result has no {name}, but {', '.join(self)}"
            raise AttributeError(msg) from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        try:
            del self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __dir__(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        width = max(map(len, self), default=0)
        lines = [
            f"{name:>{width}}: {value!r}".replace("\n", "\n" + " " * (width + 2))
            for name, value in self.items()
        ]
        return "\n".join(lines) or "OptimizeResult()"


# The statuses; 99 is SciPy's, 130 that of a shell.
CONVERGED, MAXITER, NOT_FINITE, STOPPED, INTERRUPTED = 0, 1, 2, 99, 130
