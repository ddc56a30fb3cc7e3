"""One model on many machines: each rank keeps and steps a share, by mpi4py (extra ``mpi``).

`init`, `adam` and the other functions that make a `State` take a communicator; `step` averages the gradients of all
ranks, each rank steps its share, and all get all of the parameters. Every call is collective: all ranks make it.
"""

from ._files import restore, save
from ._state import State, accelerated, adam, global_norm, init, lion, lookahead, qhm, rmsprop, signum, step

__all__ = [
    "State",
    "accelerated",
    "adam",
    "global_norm",
    "init",
    "lion",
    "lookahead",
    "qhm",
    "restore",
    "rmsprop",
    "save",
    "signum",
    "step",
]
