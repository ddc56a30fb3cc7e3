"""An evolution strategy whose workers average their estimates and share one Adam.

    mpiexec -n 4 python examples/mpi/evolution.py

The gradient of a smoothed objective is estimated from values alone: in random directions e and their opposites,
(f(x + s e) - f(x - s e)) / (2 s) times e. Each rank draws directions of its own; `mpi.step` averages the estimates, and each
rank keeps a part of Adam's moments. After Salimans and others, https://arxiv.org/abs/1703.03864.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mpi4py import MPI

from fast_momentum import mpi

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_PARAMS, PAIRS, SIGMA, STEPS = 100, 16, 0.02, 300
COMM = MPI.COMM_WORLD


def objective(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A bowl with ripples, whose least value, 0, is at 1."""
    away = points - 1
    values: NDArray[np.float64] = (away**2 + 0.1 * (1 - np.cos(8 * away))).mean(axis=-1)
    return values


def main() -> None:
    params = np.zeros(N_PARAMS)
    state = mpi.adam(params, COMM, lr=0.03, deterministic=True, sharded=True)
    rng = np.random.default_rng(COMM.rank)
    before = objective(params)
    for t in range(STEPS):
        directions = rng.standard_normal((PAIRS, N_PARAMS))
        slopes = (objective(params + SIGMA * directions) - objective(params - SIGMA * directions)) / (
            2 * SIGMA
        )
        state.lr = 0.03 * (1 - t / STEPS)
        mpi.step(params, slopes @ directions / PAIRS, state)
    if COMM.rank == 0:
        print(f"{COMM.size} ranks: from {before:.4f} to {objective(params):.6f}")


if __name__ == "__main__":
    main()
