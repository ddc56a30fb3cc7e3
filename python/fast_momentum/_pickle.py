"""What a pickled State names, so that it can be found again."""

from __future__ import annotations

from typing import Any

from . import _core


def restore(containers: Any, rest: dict[str, Any]) -> _core.State:
    """Return the State of which these are the velocities and all the rest."""
    return _core.unpickled(containers, rest)
