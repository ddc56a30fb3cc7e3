"""The momentum step for NumPy, in place, in one pass over memory, bit for bit what the formula says.

`init` makes a `State`, `step` updates parameters and state; `reference` is the same in plain NumPy.
"""

try:
    from ._core import (
        ConcurrentStepError,
        State,
        __version__,
        get_num_threads,
        init,
        lookahead,
        set_num_threads,
        step,
    )
except ImportError as _error:
    _error.add_note(
        "fast_momentum needs its compiled module, fast_momentum._core, and has no slow substitute. Reinstall it "
        "with `python -m pip install --force-reinstall fast-momentum`; to work on its source, run "
        "`python -m pip install .` there and start Python in another directory."
    )
    raise

from . import reference
from ._config import apply_environment, show_config

__all__ = [
    "ConcurrentStepError",
    "State",
    "__version__",
    "get_num_threads",
    "init",
    "lookahead",
    "reference",
    "set_num_threads",
    "show_config",
    "step",
]

apply_environment()
del apply_environment
