"""What a pickled State names, so that it can be found again."""

from __future__ import annotations

from typing import Any

from . import _core


def restore(containers: Any, checkpoint: dict[str, Any]) -> _core.State:
    """Return the State that was pickled as these two."""
    return _core.unpickled(containers, checkpoint)
