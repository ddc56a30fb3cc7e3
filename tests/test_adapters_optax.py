"""The adapter of optax against its optimizers, and chains of their parts."""

from __future__ import annotations

import doctest
from typing import Any, NamedTuple

import numpy as np
import pytest

import fast_momentum as fm
from helpers import assert_bits, random_like, run_python

theirs = pytest.importorskip("optax")
import jax
import jax.numpy as jnp
from optax._src.base import StatefulSchedule

import fast_momentum.adapters.optax

adapter = fast_momentum.adapters.optax

SHAPES = {"w": (64, 33), "b": (33,), "nested": [(7, 3, 5), ()]}
DECOUPLED = 1e-5  # optax adds the decay before it scales by lr, and we multiply lr*weight_decay first


def new_tree(rng: np.random.Generator) -> Any:
    return jax.tree.map(
        lambda shape: random_like(shape, np.float32, rng), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def to_jax(tree: Any) -> Any:
    return jax.tree.map(lambda p: jnp.asarray(p.copy()), tree)


def optax_step(optimizer: Any, tree: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
    updates, opt_state = optimizer.update(to_jax(grads), opt_state, tree)
    return theirs.apply_updates(tree, updates), opt_state


def both_steps(
    optimizer: Any, tree: Any, opt_state: Any, params: Any, state: Any, rng: np.random.Generator,
    steps: int = 10, lr: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    for _ in range(steps):
        grads = new_tree(rng)
        tree, opt_state = optax_step(optimizer, tree, opt_state, grads)
        if state is not None:
            if lr is not None:
                state.lr = float(lr(jnp.int32(state.step_count)))
            fm.step(params, grads, state)
    return tree, opt_state


def assert_agree(params: Any, tree: Any, tolerance: float | None = None) -> None:
    assert jax.tree.structure(params) == jax.tree.structure(tree)
    for p, q in zip(jax.tree.leaves(params), jax.tree.leaves(tree), strict=True):
        if tolerance is None:
            assert_bits(p, np.asarray(q))
        else:
            np.testing.assert_allclose(p, q, rtol=tolerance, atol=tolerance)


def scaled(lr: float, **flip: bool) -> Any:
    return theirs.scale_by_learning_rate(lr, **flip)


decayed = theirs.add_decayed_weights
mask = {"w": True, "b": False, "nested": [False, False]}
masked = {"w": 0.01, "b": 0.0, "nested": 0.0}

# An optimizer, and what it is called here.
CHAINS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (theirs.sgd(0.05, momentum=0.9), {}),
    "nesterov": (theirs.sgd(0.05, momentum=0.9, nesterov=True), {"nesterov": True}),
    "clip": (theirs.chain(theirs.clip_by_global_norm(1e9), theirs.sgd(0.05, momentum=0.9)), {}),
    "coupled": (theirs.chain(decayed(0.01), theirs.trace(0.9), scaled(0.05)), {"weight_decay": 0.01}),
    "masked": (theirs.chain(decayed(0.01, mask), theirs.trace(0.9), scaled(0.05)), {"weight_decay": masked}),
    "decoupled": (theirs.chain(theirs.trace(0.9), decayed(0.01), scaled(0.05)), {"weight_decay": 0.01, "decoupled_weight_decay": True}),
    "inside": (theirs.chain(scaled(0.05), theirs.trace(0.9)), {"form": "lr_inside"}),
    "inside, nesterov": (theirs.chain(scaled(0.05), theirs.trace(0.9, nesterov=True)), {"form": "lr_inside", "nesterov": True}),
    "maximize": (theirs.chain(theirs.trace(0.9), scaled(0.05, flip_sign=False)), {"maximize": True}),
    "inside, maximize": (theirs.chain(scaled(0.05, flip_sign=False), theirs.trace(0.9)), {"form": "lr_inside", "maximize": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_a_run_moves_there_and_back(case: str, rng: np.random.Generator) -> None:
    optimizer, options = CHAINS[case]
    tolerance = DECOUPLED if "decoupled_weight_decay" in options else None
    tree = to_jax(new_tree(rng))
    tree, opt_state = both_steps(optimizer, tree, optimizer.init(tree), None, None, rng, steps=5)

    params = jax.tree.map(np.array, tree)
    state = adapter.import_state(params, opt_state, lr=0.05, momentum=0.9, **options)
    assert state.step_count == 0, "there is no count without a schedule"
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng)
    assert_agree(params, tree, tolerance)

    tree = to_jax(params)
    opt_state = adapter.export_state(state, optimizer.init(tree))
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng)
    assert_agree(params, tree, tolerance)


decay = {"weight_decay": 0.01, "decoupled_weight_decay": True}
rms = {"rho": 0.9, "form": "lr_inside"}

# Of another rule; those of `EXACT` have our bits without a decay.
OTHERS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "adam": (theirs.adam(0.05), "adam", {}),
    "adam, options": (theirs.adam(0.05, b1=0.75, b2=0.99, eps=1e-3), "adam", {"beta1": 0.75, "beta2": 0.99, "eps": 1e-3}),
    "adam, coupled": (theirs.chain(decayed(0.01), theirs.adam(0.05)), "adam", {"weight_decay": 0.01}),
    "adam, maximize": (theirs.chain(theirs.scale_by_adam(), scaled(0.05, flip_sign=False)), "adam", {"maximize": True}),
    "adamw": (theirs.adamw(0.05, weight_decay=0.01), "adam", decay),
    "adamw, masked": (theirs.adamw(0.05, weight_decay=0.01, mask=mask), "adam", {**decay, "weight_decay": masked}),
    "nadam": (theirs.nadam(0.05), "adam", {"nesterov": True}),
    "nadamw": (theirs.nadamw(0.05, weight_decay=0.01), "adam", {"nesterov": True, **decay}),
    "amsgrad": (theirs.amsgrad(0.05, bias_correction_mu=False, bias_correction_nu=False), "adam", {"form": "uncorrected"}),
    "lion": (theirs.lion(0.05, weight_decay=0.0), "lion", {}),
    "lion, decay": (theirs.lion(0.05, b1=0.75, b2=0.5, weight_decay=0.01), "lion", {"beta1": 0.75, "beta2": 0.5, **decay}),
    "lion, maximize": (theirs.chain(theirs.scale_by_lion(), scaled(0.05, flip_sign=False)), "lion", {"maximize": True}),
    "rmsprop": (theirs.rmsprop(0.05), "rmsprop", rms),
    "rmsprop, eps outside": (theirs.rmsprop(0.05, decay=0.75, eps=1e-3, eps_in_sqrt=False), "rmsprop", {"rho": 0.75, "eps": 1e-3, "form": "lr_outside"}),
    "rmsprop, momentum": (theirs.rmsprop(0.05, momentum=0.5), "rmsprop", {**rms, "momentum": 0.5}),
    "rmsprop, centered": (theirs.rmsprop(0.05, centered=True, initial_scale=0.5), "rmsprop", {**rms, "centered": True}),
    "rmsprop, centered, momentum": (theirs.rmsprop(0.05, centered=True, momentum=0.5), "rmsprop", {**rms, "momentum": 0.5}),
    "rmsprop, maximize": (theirs.chain(theirs.scale_by_stddev(0.9), scaled(0.05, flip_sign=False), theirs.trace(0.5)), "rmsprop",
        {**rms, "momentum": 0.5, "maximize": True}),
    "rmsprop, lr outside": (theirs.chain(theirs.scale_by_rms(0.9, eps_in_sqrt=False), theirs.trace(0.5), scaled(0.05)), "rmsprop",
        {"rho": 0.9, "momentum": 0.5, "form": "lr_outside"}),
    "signum": (theirs.signum(0.05), "signum", {"rule": "signum"}),
}  # fmt: skip
EXACT = ("lion", "signum")
ROUNDED = 1e-5


@pytest.mark.parametrize("case", OTHERS)
def test_a_run_of_another_rule_moves_there_and_back(case: str, rng: np.random.Generator) -> None:
    optimizer, rule, options = OTHERS[case]
    tolerance = None if rule in EXACT and "weight_decay" not in options else ROUNDED
    tree = to_jax(new_tree(rng))
    tree, opt_state = both_steps(optimizer, tree, optimizer.init(tree), None, None, rng, steps=5)

    params = jax.tree.map(np.array, tree)
    state = adapter.import_state(params, opt_state, lr=0.05, **options)
    assert state.rule == rule
    if rule != "rmsprop":
        assert state.step_count == 5
        assert {*state.state_dict()["steps"].values()} == {5}
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng)
    assert_agree(params, tree, tolerance)

    tree = to_jax(params)
    opt_state = adapter.export_state(state, optimizer.init(tree))
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng)
    assert_agree(params, tree, tolerance)


def test_nothing_is_negative_before_the_first_step() -> None:
    """optax minimizes the negative loss with velocities of the other sign."""
    params = [np.zeros(3, np.float32)]
    state = adapter.import_state(params, theirs.adam(0.05).init(to_jax(params)), lr=0.05, maximize=True)
    assert not np.signbit(state.velocity[0]).any()
    fm.step(params, [np.ones(3, np.float32)], state)
    assert params[0].tolist() == pytest.approx([0.05] * 3)


@pytest.mark.parametrize("name", ["adam", "nadam", "lion"])
def test_from_the_first_step(name: str, rng: np.random.Generator) -> None:
    optimizer = getattr(theirs, name)(0.05)
    params = new_tree(rng)
    tree = to_jax(params)
    options = {"nesterov": True} if name == "nadam" else {}
    decays = {"weight_decay": 1e-3, "decoupled_weight_decay": True} if name == "lion" else {}
    state = adapter.import_state(params, optimizer.init(tree), lr=0.05, **options, **decays)
    assert state.step_count == 0
    tree, _ = both_steps(optimizer, tree, optimizer.init(tree), params, state, rng, steps=1)
    assert_agree(params, tree, 1e-6)


def test_injected_hyperparameters_of_another_rule(rng: np.random.Generator) -> None:
    schedule = theirs.exponential_decay(0.05, 10, 0.5)
    for make, given, names in [
        (theirs.inject_hyperparams(theirs.adamw)(schedule, b1=0.75, weight_decay=0.25), {"decoupled_weight_decay": True},
            {"b1": "beta1", "b2": "beta2", "eps": "eps", "weight_decay": "weight_decay"}),
        (theirs.inject_hyperparams(theirs.rmsprop)(schedule, decay=0.75, momentum=0.5, centered=True), {"form": "lr_inside"},
            {"decay": "rho", "eps": "eps", "momentum": "momentum"}),
        (theirs.inject_hyperparams(theirs.lion)(schedule, b2=0.5, weight_decay=0.25), {"decoupled_weight_decay": True},
            {"b1": "beta1", "b2": "beta2", "weight_decay": "weight_decay"}),
        (theirs.inject_hyperparams(theirs.signum)(schedule, beta=0.75), {"rule": "signum"}, {"beta": "momentum"}),
    ]:  # fmt: skip
        tree = to_jax(new_tree(rng))
        tree, opt_state = both_steps(make, tree, make.init(tree), None, None, rng, steps=5)
        params = jax.tree.map(np.array, tree)
        state = adapter.import_state(params, opt_state, **given)
        assert {name: getattr(state, ours) for name, ours in names.items()} == {
            name: float(opt_state.hyperparams[name]) for name in names
        }
        tree, _ = both_steps(make, tree, opt_state, params, state, rng, lr=schedule)
        assert_agree(params, tree, ROUNDED)
        for ours in names.values():
            setattr(state, ours, 0.5)
        opt_state = adapter.export_state(state, make.init(tree))
        assert {name: float(opt_state.hyperparams[name]) for name in names} == dict.fromkeys(names, 0.5)
        assert int(opt_state.count) == 15
        tree, _ = both_steps(make, tree, opt_state, params, state, rng, lr=schedule)
        assert_agree(params, tree, ROUNDED)


@pytest.mark.parametrize(
    ("make", "optimizer", "message"),
    [
        (lambda: fm.adam(TWO, lr=0.5, form="folded"), theirs.adam(0.5), "state.form must be 'corrected' where opt_state has ScaleByAdamState, not 'folded'"),
        (lambda: fm.adam(TWO, lr=0.5, nesterov=True, momentum_decay=1.0), theirs.nadam(0.5),
            "state.momentum_decay must be None, as in an optimizer with ScaleByAdamState, not 1.0; make the state with momentum_decay=None"),
        (lambda: fm.adam(TWO, lr=0.5, amsgrad=True), theirs.amsgrad(0.5), "state.form must be 'uncorrected' where opt_state has ScaleByAmsgradState, not 'corrected'; with"),
        (lambda: fm.rmsprop(TWO, lr=0.5, centered=True), theirs.rmsprop(0.5), "state.centered must be False, as in an optimizer with ScaleByRmsState, not True"),
        (lambda: fm.rmsprop(TWO, lr=0.5, momentum=0.5), theirs.rmsprop(0.5), "state.momentum must be 0 where opt_state has no trace, not 0.5; optax.rmsprop has it if momentum is given"),
        (lambda: fm.lion(TWO, lr=0.5, weight_decay=0.5, maximize=True), theirs.lion(0.5), "state.weight_decay must be 0 where optax maximizes"),
    ],
)  # fmt: skip
def test_refused_exports_of_another_rule(make: Any, optimizer: Any, message: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        adapter.export_state(make(), of(optimizer, TWO))
    assert message in str(caught.value)


def test_optax_counts_for_all_arrays_together() -> None:
    params = {name: p.copy() for name, p in TWO.items()}
    state = fm.adam(params, lr=0.5)
    fm.step(params, {"w": np.ones(2, np.float32), "b": None}, state)
    with pytest.raises(
        ValueError,
        match=r"state_dict\(\)\['steps'\]\[\"\['b'\]\"\] must be state.step_count, 1, as optax counts",
    ):
        adapter.export_state(state, of(theirs.adam(0.5), TWO))


def test_a_schedule_goes_on(rng: np.random.Generator) -> None:
    schedule = theirs.exponential_decay(0.05, 10, 0.5)
    optimizer = theirs.sgd(schedule, momentum=0.9)
    tree = to_jax(new_tree(rng))
    tree, opt_state = both_steps(optimizer, tree, optimizer.init(tree), None, None, rng, steps=5)
    params = jax.tree.map(np.array, tree)
    state = adapter.import_state(params, opt_state, lr=0.05, momentum=0.9)
    assert state.step_count == 5
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng, lr=schedule)
    assert_agree(params, tree)
    opt_state = adapter.export_state(state, optimizer.init(tree))
    assert int(opt_state[1].count) == 15
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng, lr=schedule)
    assert_agree(params, tree)


@pytest.mark.parametrize("scheduled", [False, True])
def test_injected_hyperparameters(scheduled: bool, rng: np.random.Generator) -> None:
    schedule = theirs.exponential_decay(0.05, 10, 0.5)
    make = theirs.inject_hyperparams(theirs.sgd)
    optimizer = make(learning_rate=schedule if scheduled else 0.05, momentum=0.9, nesterov=True)
    lr = schedule if scheduled else None
    tree = to_jax(new_tree(rng))
    tree, opt_state = both_steps(optimizer, tree, optimizer.init(tree), None, None, rng, steps=5)
    params = jax.tree.map(np.array, tree)
    state = adapter.import_state(params, opt_state, nesterov=True)
    assert state.step_count == 5
    assert state.momentum == float(np.float32(0.9))
    assert state.lr == float(opt_state.hyperparams["learning_rate"])
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng, lr=lr)
    assert_agree(params, tree)

    state.momentum = 0.75
    if not scheduled:
        state.lr = 0.025
    opt_state = adapter.export_state(state, optimizer.init(tree))
    assert int(opt_state.count) == 15
    assert float(opt_state.hyperparams["momentum"]) == 0.75
    tree, _ = both_steps(optimizer, tree, opt_state, params, state, rng, lr=lr)
    assert_agree(params, tree)


def test_to_rounding_inside_jit(rng: np.random.Generator) -> None:
    """Where XLA fuses products and sums."""
    optimizer = theirs.sgd(0.05, momentum=0.9, nesterov=True)
    step = jax.jit(lambda tree, opt_state, grads: optax_step(optimizer, tree, opt_state, grads))
    params = new_tree(rng)
    tree = to_jax(params)
    state = fm.init(params, lr=0.05, momentum=0.9, nesterov=True)
    fm.step(params, jax.tree.map(np.ones_like, params), state)
    tree, opt_state = to_jax(params), adapter.export_state(state, optimizer.init(tree))
    for _ in range(10):
        grads = new_tree(rng)
        tree, opt_state = step(tree, opt_state, to_jax(grads))
        fm.step(params, grads, state)
    assert_agree(params, tree, 1e-5)


def test_what_is_exported_is_a_copy() -> None:
    params = np.zeros(1000, np.float32)
    state = fm.init(params, lr=0.5)
    fm.step(params, np.ones(1000, np.float32), state)
    opt_state = theirs.sgd(0.5, momentum=0.9).init(jnp.zeros(1000))
    exported = adapter.export_state(state, opt_state)
    for _ in range(3):
        fm.step(params, np.ones(1000, np.float32), state)
    assert (np.asarray(exported[0].trace) == 1).all()
    assert (np.asarray(opt_state[0].trace) == 0).all()


class Weights(NamedTuple):
    w: Any


def test_the_fields_of_a_named_tuple_are_keys() -> None:
    optimizer = theirs.sgd(0.5, momentum=0.75)
    tree = Weights(jnp.zeros(2))
    _, opt_state = optimizer.update(Weights(jnp.ones(2)), optimizer.init(tree))
    state = adapter.import_state({"w": np.zeros(2, np.float32)}, opt_state, lr=0.5, momentum=0.75)
    assert state.velocity["w"].tolist() == [1, 1]
    exported = adapter.export_state(state, optimizer.init(tree))[0].trace
    assert isinstance(exported, Weights)
    assert exported.w.tolist() == [1, 1]


# ---- refusals ----

ONE = {"w": np.zeros(2, np.float32)}
SGD = theirs.sgd(0.5, momentum=0.75)


def of(optimizer: Any, tree: Any = None) -> Any:
    return optimizer.init(to_jax(ONE if tree is None else tree))


def counted(*counts: int) -> Any:
    found = of(theirs.chain(theirs.trace(0.5), *(theirs.scale_by_schedule(lambda _: 1.0) for _ in counts)))
    return (found[0], *(part._replace(count=k) for part, k in zip(found[1:], counts, strict=True)))


given = {"lr": 0.5, "momentum": 0.75}
REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no trace": (lambda: of(theirs.sgd(0.5)), given, ValueError, "ScaleByRStdDevState, EmaState, not none; that of optax.sgd has a trace if momentum is given"),
    "two traces": (lambda: of(theirs.chain(SGD, theirs.trace(0.5))), given, ValueError, "opt_state must have one of TraceState, ScaleByAdamState, ScaleByAmsgradState, ScaleByLionState, ScaleByRmsState, ScaleByRStdDevState, EmaState, not TraceState, TraceState;"),
    "adam": (lambda: of(theirs.adam(0.5)), given, TypeError, "momentum"),
    "adafactor": (lambda: of(theirs.adafactor(0.5)), given, ValueError, "FactoredState, which a State has not"),
    "bias_correction": (lambda: of(theirs.rmsprop(0.5, bias_correction=True)), given, ValueError, "without optax._src.transform.ScaleByRmsWithCountState, which a State has not"),
    "sign": (lambda: of(theirs.sign_sgd(0.5)), {"lr": 0.5}, ValueError, "not none"),
    "amsgrad": (lambda: of(theirs.amsgrad(0.5)), {"lr": 0.5}, ValueError,
        "form must be 'uncorrected' where opt_state has ScaleByAmsgradState, not 'corrected'; with a bias_correction_mu or bias_correction_nu, as by default, optax takes"),
    "folded": (lambda: of(theirs.adam(0.5)), {"lr": 0.5, "form": "folded"}, ValueError, "form must be 'corrected' where opt_state has ScaleByAdamState, not 'folded'"),
    "momentum_decay": (lambda: of(theirs.nadam(0.5)), {"lr": 0.5, "nesterov": True, "momentum_decay": 0.004}, ValueError, "momentum_decay must be None where opt_state has ScaleByAdamState alone, not 0.004"),
    "amsgrad of adam": (lambda: of(theirs.adam(0.5)), {"lr": 0.5, "amsgrad": True}, ValueError, "amsgrad must be False where opt_state has ScaleByAdamState alone, not True"),
    "rmsprop, rho": (lambda: of(theirs.rmsprop(0.5)), {"lr": 0.5, "form": "lr_inside"}, TypeError, "rho must be given, as opt_state does not have it injected"),
    "rmsprop, form": (lambda: of(theirs.rmsprop(0.5)), {"lr": 0.5, "rho": 0.9}, TypeError, "form must be given, as opt_state does not have it injected"),
    "rmsprop, momentum": (lambda: of(theirs.rmsprop(0.5, momentum=0.5)), {"lr": 0.5, "rho": 0.9, "form": "lr_inside"}, TypeError, "momentum must be given"),
    "rmsprop, no trace": (lambda: of(theirs.rmsprop(0.5)), {"lr": 0.5, "rho": 0.9, "form": "lr_inside", "momentum": 0.5}, ValueError, "momentum must be 0 where opt_state has ScaleByRmsState alone, not 0.5"),
    "rmsprop, nesterov": (lambda: of(theirs.rmsprop(0.5, momentum=0.5, nesterov=True)), {"lr": 0.5, "rho": 0.9, "form": "lr_inside", "momentum": 0.5, "nesterov": True}, TypeError, "nesterov"),
    "adam and a trace": (lambda: of(theirs.chain(theirs.scale_by_adam(), theirs.trace(0.5))), {"lr": 0.5}, ValueError, "not ScaleByAdamState, TraceState"),
    "signum": (lambda: of(theirs.signum(0.5)), {"lr": 0.5}, ValueError, "rule must be 'signum' where opt_state has EmaState, not None"),
    "rule": (lambda: of(theirs.lion(0.5)), {"lr": 0.5, "rule": "adam"}, ValueError, "rule must be 'lion' where opt_state has ScaleByLionState, not 'adam'"),
    "eps_root": (lambda: of(theirs.inject_hyperparams(theirs.adam)(0.5, eps_root=0.25)), {}, ValueError,
        "opt_state must have an injected eps_root of 0, not 0.25; eps is outside of the root here"),
    "mu_dtype": (lambda: of(theirs.adam(0.5, mu_dtype="bfloat16")), {"lr": 0.5}, TypeError, "the mu must have dtype float32, as params['w'] has, not bfloat16"),
    "multi steps": (lambda: of(theirs.MultiSteps(SGD, 2)), given, ValueError, "without optax.transforms._accumulation.MultiStepsState"),
    "partition": (lambda: of(theirs.partition({"a": SGD}, {"w": "a"})), given, ValueError, "PartitionState"),
    "ema": (lambda: of(theirs.chain(theirs.ema(0.5), SGD)), given, ValueError, "EmaState"),
    "not a state": (lambda: {"w": 1}, given, ValueError, "opt_state must be that of optax.sgd, adam, adamw, nadam, lion, rmsprop or signum, or of a chain with their parts, without dict, which a State has not"),
    "no lr": (lambda: of(SGD), {"momentum": 0.75}, TypeError, "lr must be given, as opt_state does not have it injected"),
    "no momentum": (lambda: of(SGD), {"lr": 0.5}, TypeError, "momentum must be given, as opt_state does not have it injected"),
    "twice": (lambda: of(theirs.inject_hyperparams(theirs.sgd)(0.5, 0.75)), {"lr": 0.5}, ValueError,
        "lr must be left out, as opt_state has it as injected learning_rate, not 0.5"),
    "counts": (lambda: counted(2, 3), given, ValueError, "opt_state must have one count, not [2, 3]"),
    "form": (lambda: of(SGD), {**given, "form": "ema"}, ValueError, "form must be 'lr_outside' or 'lr_inside' where opt_state has TraceState, not 'ema'"),
    "maximize": (lambda: of(SGD), {**given, "maximize": True, "weight_decay": 0.1}, ValueError, "weight_decay must be 0 where optax maximizes"),
    "keys": (lambda: of(SGD, {"w": np.zeros(2), "c": np.zeros(2)}), given, ValueError,
        "params must have the structure of the trace of opt_state, not arrays on one side only: ['c']"),
    "masked": (lambda: of(theirs.masked(SGD, {"w": False})), given, ValueError, "arrays on one side only: ['w']"),
    "shape": (lambda: of(SGD, {"w": np.zeros(3, np.float32)}), given, ValueError, "the trace must have the shape of params['w'], (2,), not (3,)"),
    "dtype": (lambda: of(theirs.sgd(0.5, 0.75, accumulator_dtype="bfloat16")), given, TypeError,
        "the trace must have dtype float32, as params['w'] has, not bfloat16"),
    "injected": (lambda: of(theirs.chain(theirs.trace(0.5), theirs.inject_hyperparams(theirs.scale)(0.5))), given, ValueError,
        "opt_state must have no injected hyperparameter but learning_rate, weight_decay, not step_size"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_imports(case: str) -> None:
    make, options, error, message = REFUSED[case]
    with pytest.raises(error) as caught:
        adapter.import_state(ONE, make(), **options)
    assert message in str(caught.value)


REFUSED_EXPORTS = {
    "form": ({"form": "ema"}, lambda: of(SGD), "state.form must be 'lr_outside' or 'lr_inside'"),
    "dampening": ({"dampening": 0.5}, lambda: of(SGD), "state.dampening must be 0.0, as in an optimizer with TraceState, not 0.5; make the state with dampening=0.0"),
    "maximize": ({"maximize": True, "weight_decay": 0.5}, lambda: of(SGD), "state.weight_decay must be 0 where optax maximizes"),
    "keys": ({}, lambda: of(SGD, {"c": np.zeros(2)}), "state.velocity must have the structure of the trace of opt_state"),
    "shape": ({}, lambda: of(SGD, {"w": np.zeros(3, np.float32), "b": np.zeros(2)}), "state.velocity['w'] must have the shape of the trace, (3,), not (2,)"),
    "per array": ({"lr": {"w": 0.5, "b": 0.25}}, lambda: of(theirs.inject_hyperparams(theirs.sgd)(0.5, 0.75), TWO),
        "state.lr must be one number for an injected learning_rate, not [0.25, 0.5]; optax injects one number"),
    "no trace": ({}, lambda: of(theirs.sgd(0.5)), "opt_state must have one of TraceState, "),
    "rule": ({}, lambda: of(theirs.adam(0.5)), "state must be of the rule adam, as an optimizer with ScaleByAdamState is, not momentum; adam() makes such a state"),
}  # fmt: skip
TWO = {"w": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)}


@pytest.mark.parametrize("case", REFUSED_EXPORTS)
def test_refused_exports(case: str) -> None:
    options, make, message = REFUSED_EXPORTS[case]
    with pytest.raises(ValueError, match="must") as caught:
        adapter.export_state(fm.init(TWO, **{"lr": 0.5, **options}), make())
    assert message in str(caught.value)


class Stateful(StatefulSchedule):
    def init(self) -> Any:
        return jnp.zeros(())

    def update(self, state: Any, **_: Any) -> Any:
        return state

    def __call__(self, *_: Any, **__: Any) -> Any:
        return 0.5


def test_a_schedule_that_does_not_count() -> None:
    opt_state = of(theirs.inject_hyperparams(theirs.sgd)(Stateful(), 0.75))
    state = adapter.import_state(ONE, opt_state)
    with pytest.raises(ValueError, match="opt_state must have schedules that count, not jaxlib"):
        adapter.export_state(state, opt_state)


# ---- the module ----


def test_examples() -> None:
    found = doctest.testmod(adapter)
    assert found.attempted > 0
    assert found.failed == 0


def test_without_optax() -> None:
    printed = run_python(
        """
        import sys
        sys.modules["optax"] = None
        try:
            import fast_momentum.adapters.optax
        except ImportError as error:
            print(error)
        """
    )
    assert printed == "fast_momentum.adapters.optax must have optax; pip install optax jax\n"
