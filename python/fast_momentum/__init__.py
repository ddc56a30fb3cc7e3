"""The momentum step for NumPy, in place, in one pass over memory, bit for bit what the formula says.

`init` makes a `State`, `step` updates parameters and state; `reference` is the same in plain NumPy. `theory` has
closed forms, `tuning` finds lr and momentum, and `plot` draws; they are imported when they are first used, and so is what
`save`, `load` and `minimize` need.
"""

import importlib
from typing import TYPE_CHECKING, Any

try:
    from ._core import *  # the compiled names, of which it says which
except ImportError as _error:
    _error.add_note(
        "fast_momentum needs its compiled module, fast_momentum._core, and has no slow substitute. Reinstall it "
        "with `python -m pip install --force-reinstall fast-momentum`; to work on its source, run "
        "`python -m pip install .` there and start Python in another directory."
    )
    raise

from . import _core, reference
from ._config import apply_environment, show_config
from ._include import get_include

if TYPE_CHECKING:
    from . import plot as plot
    from . import theory, tuning
    from ._files import Checkpoints, DamagedFileError, load, restore, save
    from ._minimize import OptimizeResult, minimize

__all__ = [
    "Checkpoints",
    "DamagedFileError",
    "OptimizeResult",
    "get_include",
    "load",
    "minimize",
    "reference",
    "restore",
    "save",
    "show_config",
    "theory",
    "tuning",
]
__all__ += _core.__all__

_LAZY = ("plot", "theory", "tuning")  # plot is not in __all__, as it needs matplotlib
_FROM = {  # what needs half of Python's library
    "Checkpoints": "._files",
    "DamagedFileError": "._files",
    "OptimizeResult": "._minimize",
    "load": "._files",
    "minimize": "._minimize",
    "restore": "._files",
    "save": "._files",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name], __name__), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY})


apply_environment()
del apply_environment
