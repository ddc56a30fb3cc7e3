"""Not run: what a typed program may write. `nox -s types` checks it; most other tests hand over what is wrong."""

import numpy as np
from numpy.typing import NDArray

import fast_momentum as fm


def nested(w: NDArray[np.float32], b: NDArray[np.float64]) -> None:
    params: dict[str, list[NDArray[np.float32]]] = {"w": [w]}
    grads = {"w": (w * 2, None)}
    state: fm.State = fm.init(params, lr=0.1, weight_decay={"w": [1e-4]}, nesterov=True, form="ema")
    fm.step(params, grads, state)
    state.lr = np.float32(0.01)
    state.lr = {"w": (0.1,)}
    state.lr = state.lr
    point: dict[str, list[NDArray[np.float32]]] = fm.lookahead(params, state)
    fm.step(b, np.float64(1), fm.init(b, lr=1))
    state.load_state_dict(state.state_dict(), strict=False)
    count: int = state.step_count + len(point)
    fm.set_num_threads(count)
    result: fm.OptimizeResult = fm.minimize(
        lambda p: (0.0, p), params, rule=fm.adam, lr=0.1, bounds=(0, None)
    )
    print(result.x, result["fun"])


def refused_by_the_checker(w: NDArray[np.int64], x: NDArray[np.float64]) -> None:
    fm.init(w, lr=0.1)  # type: ignore[arg-type]
    fm.init(x)  # type: ignore[call-arg]
    fm.init(x, lr=0.1, form="adam")  # type: ignore[arg-type]
    fm.init(x, lr=0.1).learning_rate = 1  # type: ignore[attr-defined]
