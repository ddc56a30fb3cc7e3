"""State.to_form and State.set_lr: the same steps in another form, and velocities that follow lr."""

from __future__ import annotations

import re
import threading
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from fast_momentum import _containers, theory
from helpers import FORMS, OPTIONS_OF_MOMENTUM, assert_bits, copied, leaves, option_id

PER_ARRAY = {
    "lr": {"w": [0.1, 0.02], "b": 0.3},
    "momentum": {"w": 0.9, "b": 0.5},
    "weight_decay": {"w": [0.1, 0.0], "b": 0.0},
}


def new_params(rng: np.random.Generator, dtype: Any = np.float64) -> dict[str, Any]:
    return {
        "w": [
            rng.standard_normal((3, 4)).astype(dtype),
            np.asfortranarray(rng.standard_normal((2, 5)), dtype),
        ],
        "b": rng.standard_normal(3).astype(dtype),
    }


def steps(params: Any, state: fm.State, n: int, rng: np.random.Generator) -> None:
    for _ in range(n):
        grads = _containers.mapped(lambda p: p + rng.standard_normal(p.shape).astype(p.dtype), params)
        fm.step(params, grads, state)


def assert_close(actual: Any, expected: Any, roundings: int) -> None:
    for a, e in zip(leaves(actual), leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=roundings * np.finfo(e.dtype).eps * abs(e).max())


@pytest.mark.parametrize("to_form", FORMS)
@pytest.mark.parametrize("options", OPTIONS_OF_MOMENTUM, ids=option_id)
def test_next_steps_agree(
    options: dict[str, Any], to_form: str, dtype: Any, rng: np.random.Generator
) -> None:
    params = new_params(rng, dtype)
    state = fm.init(params, **options)
    steps(params, state, 5, rng)
    before = state.state_dict()
    other_params, other = copied(params), state.to_form(to_form)
    assert_bits(state.state_dict()["velocity"], before["velocity"])
    assert (other.form, other.step_count, other.maximize) == (to_form, 5, state.maximize)
    assert [v.flags.f_contiguous for v in leaves(other.velocity)] == [
        v.flags.f_contiguous for v in leaves(state.velocity)
    ]
    seed = rng.integers(2**32)
    steps(params, state, 10, np.random.default_rng(seed))
    steps(other_params, other, 10, np.random.default_rng(seed))
    assert_close(other_params, params, 100)
    back = other.to_form(
        options["form"]
    )  # without dampening: with that much less lr, more velocity, more decay
    damped = 1 if to_form == state.form else 1 - state.dampening
    assert_close(_containers.mapped(lambda v: v * v.dtype.type(damped), back.velocity), state.velocity, 1000)
    assert back.lr == pytest.approx(state.lr * damped, rel=1e-12)
    more = damped if state.decoupled_weight_decay else 1
    assert back.weight_decay == pytest.approx(state.weight_decay / more, rel=1e-12)
    assert (back.momentum, back.nesterov) == (state.momentum, state.nesterov)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("to_form", FORMS)
@pytest.mark.parametrize("decoupled", [False, True])
def test_numbers_per_array(form: str, to_form: str, decoupled: bool, rng: np.random.Generator) -> None:
    params = new_params(rng)
    state = fm.init(params, **PER_ARRAY, decoupled_weight_decay=decoupled, form=form)
    grads = _containers.mapped(np.ones_like, params)
    grads["b"] = None  # this one has made no step
    fm.step(params, grads, state)
    other_params, other = copied(params), state.to_form(to_form)
    assert other.state_dict()["steps"] == state.state_dict()["steps"]
    seed = rng.integers(2**32)
    steps(params, state, 10, np.random.default_rng(seed))
    steps(other_params, other, 10, np.random.default_rng(seed))
    assert_close(other_params, params, 100)
    mine = theory.convert(to_form, lr=0.02, momentum=0.9, form=form)
    assert other.lr["w"][1] == pytest.approx(mine["lr"]) if to_form != form else other.lr["w"][1] == 0.02


@pytest.mark.parametrize("to_form", FORMS)
def test_every_container(to_form: str) -> None:
    for params in (np.ones(2), [np.ones(2)], (np.ones(1), {"a": [np.ones(3)]}), [], {}):
        state = fm.init(params, lr=0.1)
        other = state.to_form(to_form)
        assert other.form == to_form
        assert type(other.velocity) is type(state.velocity)
        assert [keys for keys, _ in _containers.leaves(other.velocity)] == [
            keys for keys, _ in _containers.leaves(params)
        ]


def test_own_form_is_a_copy(rng: np.random.Generator) -> None:
    params = new_params(rng)
    state = fm.init(params, lr=0.1, dampening=0.5)
    other = state.to_form("lr_outside")
    assert (other.dampening, other.lr) == (0.5, 0.1)
    steps(params, other, 1, rng)
    assert not any(v.any() for v in leaves(state.velocity))


def test_dampening_that_has_not_begun() -> None:
    params = {"w": np.ones(2), "b": np.ones(1)}
    state = fm.init(params, lr=0.1, dampening=0.5)
    fm.step(params, {"w": np.ones(2), "b": None}, state)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        state.to_form("ema")
    assert str(caught.value) == (
        "state.dampening must be 0 for params['b'], which has made no step, not 0.5; the first step of the form "
        "lr_outside is not damped, so make it first"
    )
    fm.step(params, {"w": None, "b": np.ones(1)}, state)
    assert state.to_form("ema").dampening == 0


def test_lr_zero() -> None:
    params = {"w": np.ones(2), "b": np.ones(1)}
    state = fm.init(params, lr={"w": 0.1, "b": 0.0}, form="lr_inside")
    with pytest.raises(
        ValueError, match=r"^lr must be above 0, and not too small, to convert .* lr_outside, not 0.0"
    ) as caught:
        state.to_form("lr_outside")
    assert caught.value.__notes__ == ["for params['b']"]
    assert state.lr["b"] == 0


@pytest.mark.parametrize("form", ["keras", 3])
def test_unknown_form(form: Any) -> None:
    with pytest.raises(ValueError, match=r"^form must be one of 'lr_outside', 'lr_inside', 'ema', not "):
        fm.init(np.ones(1), lr=0.1).to_form(form)


def test_factors_out_of_the_range_of_float32() -> None:
    w = np.ones(1, np.float32)
    state = fm.init(w, lr=1e-40)
    fm.step(w, np.ones(1, np.float32), state)
    there = state.to_form("lr_inside")
    assert there.velocity[0] == np.float32(1e-40)
    assert there.to_form("lr_outside").velocity[0] == pytest.approx(1, rel=1e-4)  # a subnormal has few digits
    state = fm.init(w, lr=1e-30, form="lr_inside")
    fm.step(w, np.ones(1, np.float32), state)
    state.set_lr(1e10)
    assert state.velocity[0] == pytest.approx(1e10, rel=1e-6)
    assert fm.init(w, lr=1e-44, form="lr_inside").to_form("ema").velocity[0] == 0


def test_velocity_that_would_overflow() -> None:
    w = np.ones(1, np.float32)
    state = fm.init({"w": w}, lr=1e-20, form="lr_inside")
    fm.step({"w": w}, {"w": np.full(1, 1e38, np.float32)}, state)
    with pytest.raises(ValueError, match="the velocity must stay finite in float32") as caught:
        state.set_lr(1e10)
    assert caught.value.__notes__ == ["for params['w']"]
    assert state.lr == 1e-20
    assert state.velocity["w"][0] == pytest.approx(1e18)


def test_numbers_that_the_dtype_cannot_hold() -> None:
    state = fm.init(np.ones(1, np.float32), lr=1e38, momentum=0.999)
    with pytest.raises(ValueError, match="lr must stay finite when rounded to float32"):
        state.to_form("ema")


# ---- set_lr ----


def test_set_lr_is_momentum_correction() -> None:
    """g = 1, momentum 0.9, lr 0.1 then 0.01: -0.1, -0.119 against -0.1, -0.2."""
    ends = {}
    for form, rescale in [("lr_outside", True), ("lr_inside", True), ("lr_inside", False)]:
        w = np.zeros(1)
        state = fm.init(w, lr=0.1, form=form)
        fm.step(w, np.ones(1), state)
        state.set_lr(0.01, rescale_velocity=rescale)
        assert state.lr == 0.01
        fm.step(w, np.ones(1), state)
        ends[form, rescale] = w[0]
    assert ends["lr_outside", True] == pytest.approx(-0.119)
    assert ends["lr_inside", True] == pytest.approx(-0.119)
    assert ends["lr_inside", False] == pytest.approx(-0.2)


@pytest.mark.parametrize("nesterov", [False, True])
def test_lr_inside_follows_lr_outside_along_a_schedule(
    nesterov: bool, dtype: Any, rng: np.random.Generator
) -> None:
    runs = []
    params = new_params(rng, dtype)
    seed = rng.integers(2**32)
    for form in ("lr_outside", "lr_inside"):
        mine, noise = copied(params), np.random.default_rng(seed)
        state = fm.init(mine, lr=PER_ARRAY["lr"], nesterov=nesterov, form=form)
        for t in range(20):
            factor = 0.5 + 0.5 * np.cos(t)
            state.set_lr({"w": [0.1 * factor, 0.02], "b": 0.3 / (1 + t)})
            steps(mine, state, 1, noise)
        runs.append(mine)
    assert_close(runs[1], runs[0], 1000)


@pytest.mark.parametrize("form", ["lr_outside", "ema"])
def test_velocities_free_of_lr_stay(form: str, rng: np.random.Generator) -> None:
    params = new_params(rng)
    state = fm.init(params, lr=0.1, form=form)
    steps(params, state, 3, rng)
    before = copied(state.velocity)
    state.set_lr(0.01)
    assert_bits(state.velocity, before)
    assert (state.lr, state.step_count) == (0.01, 3)


def test_from_lr_zero() -> None:
    w = np.ones(2)
    state = fm.init(w, lr=0.0, form="lr_inside")
    fm.step(w, np.ones(2), state)
    state.set_lr(0.1)  # its velocity is zero
    fm.step(w, np.ones(2), state)
    state.lr = 0.0
    with pytest.raises(
        ValueError, match=r"^state.lr must be above 0 before it changes, .*not 0.0; call reset"
    ):
        state.set_lr(0.1)
    assert state.lr == 0
    assert state.velocity.tolist() == [0.1, 0.1]
    state.set_lr(0.1, rescale_velocity=False)
    assert state.lr == 0.1


@pytest.mark.parametrize("lr", [-0.1, np.nan, "0.1", None, [0.1, 0.2, 0.3]], ids=repr)
def test_bad_lr_changes_nothing(lr: Any, rng: np.random.Generator) -> None:
    params = [np.ones(2), np.ones(3)]
    state = fm.init(params, lr=0.1, form="lr_inside")
    steps(params, state, 2, rng)
    before = state.state_dict()
    with pytest.raises((TypeError, ValueError), match="^lr"):
        state.set_lr(lr)
    assert state.lr == 0.1
    assert_bits(state.state_dict()["velocity"], before["velocity"])


def test_rescale_velocity_is_a_flag() -> None:
    state = fm.init(np.ones(1), lr=0.1)
    with pytest.raises(TypeError, match="^rescale_velocity must be True or False, not int$"):
        state.set_lr(0.2, rescale_velocity=1)
    assert state.lr == 0.1


class Key:
    """Calls `hook` whenever a dict looks for it, as another thread might."""

    hook: Any = staticmethod(lambda: None)

    def __hash__(self) -> int:
        Key.hook()
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key)

    def __repr__(self) -> str:
        return "Key()"


@pytest.mark.parametrize(("form", "lr"), [("lr_inside", 0.0), ("ema", 0.1)])
def test_set_lr_touches_no_other_setting(form: str, lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set while it runs stays, be it that set_lr fails, and does not scale velocities."""
    key = Key()
    params, grads = {key: np.ones(2)}, {key: np.ones(2)}
    state = fm.init(params, lr=0.1, form=form)
    fm.step(params, grads, state)
    before = state.velocity[key].copy()
    state.lr = lr
    given = {key: 0.2}
    monkeypatch.setattr(Key, "hook", staticmethod(lambda: setattr(state, "momentum", 0.5)))
    if lr:
        state.set_lr(given)
    else:
        with pytest.raises(ValueError, match=r"^state\.lr must be above 0 before it changes"):
            state.set_lr(given)
        assert state.lr == 0
    assert state.momentum == 0.5
    assert_bits(state.velocity[key], before)


@pytest.mark.parametrize(("form", "rescale"), [("lr_outside", True), ("ema", True), ("lr_inside", False)])
def test_set_lr_waits_for_nobody_where_velocities_stay(form: str, rescale: bool) -> None:
    params = np.ones(3_000_000, np.float32)
    state = fm.init(params, lr=1e-3, form=form)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            fm.step(params, params.copy(), state)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for i in range(300):
            state.set_lr(1e-3 + 1e-6 * i, rescale)
    finally:
        done.set()
        thread.join()
    assert state.lr == 1e-3 + 1e-6 * 299


def test_factors_for_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="^factors must have one for each array, not be 2$"):
        fm.init(np.ones(2), lr=0.1)._scale_velocities([2.0, 2.0])


# ---- Adam ----


@pytest.mark.parametrize(
    ("form", "to_form", "eps"),
    [
        ("folded", "folded_float64", 1e-3),
        ("folded_float64", "folded", 1e-3),
        ("corrected", "folded", 0.0),
        ("folded", "corrected", 0.0),
        ("corrected", "folded_float64", 0.0),
    ],
)
@pytest.mark.parametrize("started", [0, 1, 5])
def test_forms_of_adam_agree(
    form: str, to_form: str, eps: float, started: int, dtype: Any, rng: np.random.Generator
) -> None:
    params = new_params(rng, dtype)
    state = fm.adam(params, lr={"w": 0.1, "b": 0.2}, eps=eps, form=form, weight_decay=0.01)
    steps(params, state, started, rng)
    other_params, other = copied(params), state.to_form(to_form)
    assert (other.form, other.step_count) == (to_form, started)
    assert_bits(other.second_moment, state.second_moment)
    seed = rng.integers(2**32)
    steps(params, state, 5, np.random.default_rng(seed))
    steps(other_params, other, 5, np.random.default_rng(seed))
    assert_close(other_params, params, 100)
    assert state.form == form


@pytest.mark.parametrize("form", ["corrected", "folded", "folded_float64", "uncorrected"])
def test_a_form_of_adam_becomes_itself(form: str) -> None:
    w = np.ones(3)
    state = fm.adam(w, lr=0.1, form=form)
    fm.step(w, np.ones(3), state)
    assert repr(state.to_form(form)) == repr(state)


@pytest.mark.parametrize(
    ("options", "to_form", "message"),
    [
        ({"form": "corrected"}, "ema", "form must be one of 'corrected', 'folded', 'folded_float64', 'uncorrected', not 'ema'"),
        ({"form": "corrected"}, "folded", "state.eps must be 0 for the form folded, not 1e-08; the forms corrected and folded give it another weight in each step"),
        ({"form": "corrected", "eps": 0.0}, "uncorrected", "form must be one with the steps of 'corrected', not 'uncorrected'; uncorrected ones are not corrected for t"),
        ({"form": "uncorrected", "eps": 0.0}, "folded", "form must be one with the steps of 'uncorrected', not 'folded'; uncorrected ones are not corrected for t"),
        ({"nesterov": True, "eps": 0.0}, "folded", "nesterov must be False in the form folded, not True; only corrected has nesterov"),
        ({"amsgrad": True, "eps": 0.0}, "folded_float64", "amsgrad must be False in the form folded_float64, not True; only corrected, folded, uncorrected have amsgrad"),
    ],
)  # fmt: skip
def test_a_form_of_adam_with_other_steps_is_refused(
    options: dict[str, Any], to_form: str, message: str
) -> None:
    state = fm.adam(np.ones(3), lr=0.1, **options)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        state.to_form(to_form)  # type: ignore[arg-type]  # some are of no rule
