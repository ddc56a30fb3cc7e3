"""A State whose arrays are kept elsewhere, and steps of which a part is decided elsewhere: what fast_momentum.mpi rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _core, reference
from helpers import assert_bits

OPTIONS: dict[str, Any] = {"lr": 0.1, "average_decay": 0.9, "weight_decay": [0.1, 0.2]}


def params() -> list[Any]:
    return [np.linspace(-1, 1, 5000, dtype=np.float32), np.ones((3, 4)).T]


@pytest.mark.parametrize("row", _core.rules, ids=lambda row: f"{row['rule']}-{row['form']}")
def test_it_counts_and_has_no_arrays(row: dict[str, Any]) -> None:
    of_rule = {"form": row["form"]} if row["form"] else {}
    given, grads = params(), [np.ones(5000, np.float32), None]
    state = _core.kept_elsewhere(row["rule"], given, lr=0.1, **of_rule)
    seen: list[Any] = []

    def use(*arrays: Any) -> tuple[bool, float]:
        seen.append(arrays)
        return True, 2.5

    _core.step_elsewhere(given, grads, state, 1.0, False, use)
    ((of_params, of_grads),) = seen
    assert all(a is b for a, b in zip([*of_params, *of_grads], [*given, *grads], strict=True))
    assert_bits(given, params())
    assert (state.step_count, state.grad_norm) == (1, 2.5)
    saved = state.state_dict()
    assert saved["steps"] == {"[0]": 1, "[1]": 0}
    assert not any(saved[name] for name in row["keeps"])
    _core.step_elsewhere(given, grads, state, 1.0, False, lambda *_: (False, None))
    assert (state.step_count, state.skipped_steps) == (1, 1)


def test_it_checks_before_the_step_is_made() -> None:
    given = params()
    state = _core.kept_elsewhere("momentum", given, **OPTIONS)

    def use(*_: Any) -> tuple[bool, None]:
        msg = "refused"
        raise ZeroDivisionError(msg)

    with pytest.raises(ValueError, match="must have the shape of params"):
        _core.step_elsewhere(given, [given[0][:9], given[1]], state, 1.0, False, use)
    with pytest.raises(ZeroDivisionError):
        _core.step_elsewhere(given, [a.copy() for a in given], state, 1.0, False, use)
    assert state.step_count == 0
    out = fm.lookahead(given, state)
    assert [a.shape for a in out] == [a.shape for a in given]


@pytest.mark.parametrize("clip_norm", [0.5, 1e9])
def test_a_clipped_step(clip_norm: float) -> None:
    grads = [np.linspace(0, 3, 5000, dtype=np.float32), np.full((4, 3), 2.0)]
    one, other = params(), params()
    clipping, plain = fm.adam(one, lr=0.1, clip_norm=clip_norm), fm.adam(other, lr=0.1)
    fm.step(one, grads, clipping)
    norm = fm.global_norm(grads)
    _core.clipped_step(other, grads, plain, 1.0, 1.0 if norm <= clip_norm else clip_norm / norm)
    assert_bits(one, other)
    assert_bits(clipping.velocity, plain.velocity)


def test_sums_of_squares_and_finite() -> None:
    grads = [np.linspace(0, 3, 10_000, dtype=np.float32), None, np.full((4, 3), 2.0)]
    sums = _core.sums_of_squares(grads, 1.0, 1.0)
    blocks = [grads[0][:4096], grads[0][4096:8192], grads[0][8192:], grads[2]]
    assert_bits(np.sqrt(sums), np.array([reference.global_norm(block) for block in blocks]))
    assert _core.all_finite(grads, 1.0)
    assert not _core.all_finite(grads, 1e300)
