"""The adapter of Keras against its optimizers, on the backend of KERAS_BACKEND."""

from __future__ import annotations

import doctest
import importlib.util
import os
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from helpers import assert_bits, random_like, run_python

os.environ.setdefault("KERAS_BACKEND", "jax" if importlib.util.find_spec("jax") else "numpy")
theirs = pytest.importorskip("keras")

import fast_momentum.adapters.keras

adapter = fast_momentum.adapters.keras

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # Keras, on PyTorch

SHAPES: list[tuple[int, ...]] = [(64, 33), (33,), ()]
# torch fuses products and sums.
TOLERANCE = 1e-5 if theirs.backend.backend() == "torch" else None
DECAYED = 1e-5  # Keras rounds the decayed parameter before it steps, and we subtract both together


def new_variables(rng: np.random.Generator) -> list[Any]:
    return [theirs.Variable(random_like(shape, np.float32, rng)) for shape in SHAPES]


def arrays(variables: list[Any]) -> list[Any]:
    return [np.array(theirs.ops.convert_to_numpy(v.value)) for v in variables]


def both_steps(
    optimizer: Any, variables: list[Any], params: Any, state: fm.State | None, rng: np.random.Generator,
    steps: int = 10, lr: Any = None,
) -> None:  # fmt: skip
    for _ in range(steps):
        grads = [random_like(shape, np.float32, rng) for shape in SHAPES]
        if state is not None:
            if lr is not None:
                state.lr = lr(state)
            fm.step(params, grads, state)
        optimizer.apply([theirs.ops.convert_to_tensor(g.copy()) for g in grads], variables)


def assert_agree(params: Any, variables: list[Any], tolerance: float | None = TOLERANCE) -> None:
    for p, v in zip(params, arrays(variables), strict=True):
        if tolerance is None:
            assert_bits(p, v)
        else:
            np.testing.assert_allclose(p, v, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "weight_decay": 0.01}, {}],
    ids=str,
)
def test_a_run_moves_there_and_back(options: dict[str, Any], rng: np.random.Generator) -> None:
    tolerance = DECAYED if "weight_decay" in options else TOLERANCE
    variables = new_variables(rng)
    optimizer = theirs.optimizers.SGD(learning_rate=0.05, **options)
    both_steps(optimizer, variables, None, None, rng, steps=5)

    params = arrays(variables)
    state = adapter.import_state(params, optimizer)
    assert state.form == "lr_inside"
    assert state.step_count == 5
    both_steps(optimizer, variables, params, state, rng)
    assert_agree(params, variables, tolerance)

    variables = [theirs.Variable(p.copy()) for p in params]
    resumed = theirs.optimizers.SGD(learning_rate=1.0, **options)
    resumed.build(variables)
    state.lr = 0.025
    adapter.export_state(state, resumed)
    assert int(resumed.iterations) == 15
    both_steps(resumed, variables, params, state, rng)
    assert_agree(params, variables, tolerance)


OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("Adam", {"beta_1": 0.75, "beta_2": 0.99, "epsilon": 1e-3, "amsgrad": True}),
    ("Adam", {"weight_decay": 0.01}),
    ("AdamW", {}),
    ("Nadam", {}),
    ("Nadam", {"beta_1": 0.75, "beta_2": 0.99, "epsilon": 1e-3, "weight_decay": 0.01}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "rho": 0.75, "epsilon": 1e-3}),
    ("RMSprop", {"centered": True, "weight_decay": 0.01}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Lion", {}),
    ("Lion", {"beta_1": 0.75, "beta_2": 0.5, "weight_decay": 0.01}),
]
ROUNDED = 1e-5  # Keras forms a moment of Adam as m + (1-beta1)*(g-m), and its powers in float32


@pytest.mark.parametrize(("name", "options"), OTHERS, ids=str)
def test_a_run_of_another_rule_moves_there_and_back(
    name: str, options: dict[str, Any], rng: np.random.Generator
) -> None:
    exact = name in ("RMSprop", "Lion") and "weight_decay" not in options
    tolerance = TOLERANCE if exact else ROUNDED
    cls = getattr(theirs.optimizers, name)
    variables = new_variables(rng)
    optimizer = cls(learning_rate=0.01, **options)
    both_steps(optimizer, variables, None, None, rng, steps=5)

    params = arrays(variables)
    state = adapter.import_state(params, optimizer)
    assert state.step_count == 5
    assert {*state.state_dict()["steps"].values()} == {5}
    both_steps(optimizer, variables, params, state, rng)
    assert_agree(params, variables, tolerance)

    variables = [theirs.Variable(p.copy()) for p in params]
    resumed = cls(learning_rate=1.0, **options)
    resumed.build(variables)
    state.lr = 0.005
    adapter.export_state(state, resumed)
    assert int(resumed.iterations) == 15
    both_steps(resumed, variables, params, state, rng)
    assert_agree(params, variables, tolerance)


@pytest.mark.parametrize("name", ["Adam", "Nadam", "RMSprop", "Lion"])
def test_from_the_first_step(name: str, rng: np.random.Generator) -> None:
    """The first step of Keras has the index 1, and so has ours."""
    variables = new_variables(rng)
    optimizer = getattr(theirs.optimizers, name)(learning_rate=0.01)
    optimizer.build(variables)
    params = arrays(variables)
    state = adapter.import_state(params, optimizer)
    assert state.step_count == 0
    both_steps(optimizer, variables, params, state, rng, steps=1)
    assert_agree(params, variables, 1e-6)


def test_a_product_of_nadam_is_carried_over(rng: np.random.Generator) -> None:
    variables = new_variables(rng)
    optimizer = theirs.optimizers.Nadam(learning_rate=0.01)
    both_steps(optimizer, variables, None, None, rng, steps=3)
    product = float(arrays([optimizer._u_product])[0])
    state = adapter.import_state(arrays(variables), optimizer)
    assert {*state.state_dict()["momentum_products"].values()} == {product}
    np.testing.assert_allclose(product, np.prod([0.9 * (1 - 0.5 * 0.96**t) for t in (1, 2, 3)]), rtol=1e-6)
    resumed = theirs.optimizers.Nadam()
    resumed.build(variables)
    adapter.export_state(state, resumed)
    assert float(arrays([resumed._u_product])[0]) == product


REFUSED_OTHERS = {
    "rule": ("Adam", lambda p: fm.lion(p, lr=0.5), "state must be of the rule adam, as keras.optimizers.Adam is, not lion; adam() makes such a state"),
    "corrected": ("Adam", lambda p: fm.adam(p, lr=0.5, eps=1e-7), "state.form must be 'folded', as in keras.optimizers.Adam, not 'corrected'; make the state with form='folded'"),
    "nesterov": ("Nadam", lambda p: fm.adam(p, lr=0.5, eps=1e-7), "state.nesterov must be True, as in keras.optimizers.Nadam, not False"),
    "decay": ("Nadam", lambda p: fm.adam(p, lr=0.5, eps=1e-7, nesterov=True, momentum_decay=0.004), "state.momentum_decay must be 1.0, as in keras.optimizers.Nadam, not 0.004"),
    "amsgrad": ("Nadam", lambda p: fm.adam(p, lr=0.5, eps=1e-7, nesterov=True, momentum_decay=1, amsgrad=True), "state.amsgrad must be False, as in keras.optimizers.Nadam, not True"),
    "outside": ("RMSprop", lambda p: fm.rmsprop(p, lr=0.5), "state.form must be 'lr_inside', as in keras.optimizers.RMSprop, not 'lr_outside'"),
    "eps": ("Adam", lambda p: fm.adam(p, lr=0.5, form="folded"), "optimizer.epsilon must be 1e-08, as in state, not 1e-07; make the optimizer with it"),
    "maximum": ("Adam", lambda p: fm.adam(p, lr=0.5, form="folded", eps=1e-7, amsgrad=True), "optimizer.amsgrad must be True, as in state, not False"),
    "coupled": ("Lion", lambda p: fm.lion(p, lr=0.5, weight_decay=0.1), "state.decoupled_weight_decay must be True, as in keras.optimizers.Lion, not False"),
    "beta": ("Lion", lambda p: fm.lion(p, lr=0.5, beta1=[0.5, 0.75]), "state.beta1 must be one number for all arrays, not [0.5, 0.75]; Keras has one beta_1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_OTHERS)
def test_refused_exports_of_another_rule(case: str) -> None:
    name, make, message = REFUSED_OTHERS[case]
    optimizer = getattr(theirs.optimizers, name)()
    optimizer.build([theirs.Variable(np.zeros(2, np.float32)) for _ in range(2)])
    with pytest.raises(ValueError, match="must") as caught:
        adapter.export_state(make([np.zeros(2, np.float32), np.zeros(2, np.float32)]), optimizer)
    assert message in str(caught.value)


def test_keras_counts_for_all_arrays_together() -> None:
    params = [np.zeros(2, np.float32), np.zeros(2, np.float32)]
    gradient = np.ones(2, np.float32)
    state = fm.adam(params, lr=0.5, eps=1e-7, nesterov=True, momentum_decay=1.0)
    optimizer = theirs.optimizers.Nadam()
    optimizer.build([theirs.Variable(p.copy()) for p in params])
    fm.step(params, [gradient, None], state)
    before = arrays(optimizer.variables)
    with pytest.raises(
        ValueError,
        match=r"state_dict\(\)\['steps'\]\['\[1\]'\] must be state.step_count, 1, as keras.optimizers.Nadam counts",
    ):
        adapter.export_state(state, optimizer)
    saved = state.state_dict()
    saved["steps"]["[1]"] = 1
    state.load_state_dict(saved)
    with pytest.raises(
        ValueError,
        match=r"\['momentum_products'\] must be one number, as Keras has one for all arrays, not \[",
    ):
        adapter.export_state(state, optimizer)
    for after, array in zip(arrays(optimizer.variables), before, strict=True):
        np.testing.assert_array_equal(after, array)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Nadam", "RMSprop", "Lion"])
def test_a_subclass_that_keeps_more_is_refused(name: str) -> None:
    class Averaged(getattr(theirs.optimizers, name)):  # type: ignore[misc]
        def build(self, variables: Any) -> None:
            super().build(variables)
            self.averages = [
                self.add_variable_from_reference(v, name="average") for v in variables if self.keeps
            ]

    params = [np.zeros(2, np.float32)]
    for keeps in (False, True):
        optimizer = Averaged(learning_rate=0.5)
        optimizer.keeps = keeps
        optimizer.build([theirs.Variable(params[0])])
        if not keeps:
            adapter.import_state(params, optimizer)
            continue
        with pytest.raises(
            ValueError,
            match=r"^optimizer must have no variables but those of Keras, not .*average.*, which a State",
        ):
            adapter.import_state(params, optimizer)


def test_a_schedule_goes_on(rng: np.random.Generator) -> None:
    variables = new_variables(rng)
    schedule = theirs.optimizers.schedules.ExponentialDecay(0.05, 10, 0.5)
    optimizer = theirs.optimizers.SGD(learning_rate=schedule, momentum=0.9)
    both_steps(optimizer, variables, None, None, rng, steps=5)
    params = arrays(variables)
    state = adapter.import_state(params, optimizer)
    assert state.lr == float(schedule(5)) < 0.05
    both_steps(optimizer, variables, params, state, rng, lr=lambda state: float(schedule(state.step_count)))
    assert_agree(params, variables)

    variables = [theirs.Variable(p.copy()) for p in params]
    resumed = theirs.optimizers.SGD(learning_rate=schedule, momentum=0.9)
    resumed.build(variables)
    adapter.export_state(state, resumed)
    assert float(resumed.learning_rate) == float(schedule(15))
    both_steps(resumed, variables, params, state, rng, lr=lambda state: float(schedule(state.step_count)))
    assert_agree(params, variables)


def test_excluded_variables(rng: np.random.Generator) -> None:
    variables = new_variables(rng)
    optimizer = theirs.optimizers.SGD(learning_rate=0.05, momentum=0.9, weight_decay=0.25)
    optimizer.exclude_from_weight_decay(var_list=variables[1:2])
    both_steps(optimizer, variables, None, None, rng, steps=2)
    params = dict(zip("abc", arrays(variables), strict=True))
    state = adapter.import_state(params, optimizer)
    assert state.weight_decay == {"a": 0.25, "b": 0.0, "c": 0.25}
    for _ in range(10):
        grads = [random_like(shape, np.float32, rng) for shape in SHAPES]
        fm.step(params, dict(zip("abc", grads, strict=True)), state)
        optimizer.apply([theirs.ops.convert_to_tensor(g) for g in grads], variables)
    assert_agree(list(params.values()), variables, DECAYED)
    adapter.export_state(state, optimizer)
    state.weight_decay = 0.25
    with pytest.raises(ValueError, match=r"optimizer.weight_decay for .* must be 0.25, as in state, not 0.0"):
        adapter.export_state(state, optimizer)


@pytest.mark.skipif(theirs.backend.backend() == "jax", reason="JAX has float64 only when told")
def test_float64(rng: np.random.Generator) -> None:
    tolerance = (
        1e-5 if theirs.backend.backend() == "numpy" else 1e-14
    )  # that backend computes in float32 in part
    variables = [theirs.Variable(np.zeros(3), dtype="float64")]
    optimizer = theirs.optimizers.SGD(learning_rate=0.05, momentum=0.9)
    params = arrays(variables)
    state = None
    for _ in range(10):
        gradient = rng.normal(size=3)
        if state is not None:
            fm.step(params, [gradient], state)
        optimizer.apply([theirs.ops.convert_to_tensor(gradient, dtype="float64")], variables)
        if state is None:
            params = arrays(variables)
            state = adapter.import_state(params, optimizer)
    np.testing.assert_allclose(params[0], arrays(variables)[0], rtol=tolerance)
    with pytest.raises(
        TypeError, match=r"params\[0\] must have dtype float64, as the variable .* has, not float32"
    ):
        adapter.import_state([np.zeros(3, np.float32)], optimizer)


def built(variables: list[Any] | None = None, **options: Any) -> Any:
    optimizer = theirs.optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, **options})
    optimizer.build([theirs.Variable(np.zeros(2, np.float32))] if variables is None else variables)
    return optimizer


def constrained() -> list[Any]:
    variable = theirs.Variable(np.zeros(2, np.float32))
    variable.constraint = theirs.constraints.NonNeg()
    return [variable]


REFUSED = {
    "adamax": (lambda: theirs.optimizers.Adamax(), TypeError, "optimizer must be one of keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.Nadam, keras.optimizers.RMSprop, keras.optimizers.Lion, not keras."),
    "new": (lambda: theirs.optimizers.SGD(), ValueError, "optimizer must be built, not new; call optimizer.build(model.trainable_variables)"),
    "clipnorm": (lambda: built(clipnorm=1.0), ValueError, "optimizer.clipnorm must be unset, not 1.0, which a State has not"),
    "clipvalue": (lambda: built(clipvalue=1.0), ValueError, "optimizer.clipvalue must be unset"),
    "global_clipnorm": (lambda: built(global_clipnorm=1.0), ValueError, "optimizer.global_clipnorm must be unset"),
    "use_ema": (lambda: built(use_ema=True), ValueError, "optimizer.use_ema must be unset"),
    "loss_scale_factor": (lambda: built(loss_scale_factor=2.0), ValueError, "optimizer.loss_scale_factor must be unset"),
    "accumulation": (lambda: built(gradient_accumulation_steps=2), ValueError, "optimizer.gradient_accumulation_steps must be unset"),
    "constraint": (lambda: built(constrained()), ValueError, "must have no constraint, not keras.src.constraints"),
    "shape": (lambda: built([theirs.Variable(np.zeros(3, np.float32))]), ValueError, "must have the shape of the variable"),
    "number": (lambda: built([]), ValueError, "must have 0 arrays, one for each variable of optimizer, not 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    make, error, message = REFUSED[case]
    params = [np.zeros(2, np.float32)]
    state = fm.init(params, lr=0.05, form="lr_inside")
    for call in (lambda: adapter.import_state(params, make()), lambda: adapter.export_state(state, make())):
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)


REFUSED_EXPORTS = {
    "form": ({"form": "lr_outside"}, "state.form must be 'lr_inside', as in keras.optimizers.SGD, not 'lr_outside'"),
    "maximize": ({"maximize": True}, "state.maximize must be False, as in keras.optimizers.SGD, not True"),
    "coupled": ({"weight_decay": 0.1}, "state.decoupled_weight_decay must be True, as in keras.optimizers.SGD, not False"),
    "decay": ({"weight_decay": 0.1, "decoupled_weight_decay": True}, "must be 0.1, as in state, not 0.0; make the optimizer with it"),
    "momentum": ({"momentum": 0.5}, "optimizer.momentum must be 0.5, as in state, not 0.9; make the optimizer with it"),
    "nesterov": ({"nesterov": True}, "optimizer.nesterov must be True, as in state, not False"),
    "per array": ({"lr": [0.1, 0.2]}, "state.lr must be one number for all arrays, not [0.1, 0.2]; Keras has one learning rate"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_EXPORTS)
def test_refused_exports_write_nothing(case: str) -> None:
    options, message = REFUSED_EXPORTS[case]
    params = [np.zeros(2, np.float32), np.zeros(2, np.float32)]
    state = fm.init(params, **{"lr": 0.5, "form": "lr_inside", **options})
    fm.step(params, [np.ones(2, np.float32)] * 2, state)
    optimizer = built([theirs.Variable(np.zeros(2, np.float32)) for _ in range(2)])
    before = arrays(optimizer.variables)
    with pytest.raises(ValueError, match="must") as caught:
        adapter.export_state(state, optimizer)
    assert message in str(caught.value)
    for after, array in zip(arrays(optimizer.variables), before, strict=True):
        np.testing.assert_array_equal(after, array)


@pytest.mark.parametrize(
    "name", ["_trainable_variables", "momentums", "_use_weight_decay", "_learning_rate", "clipnorm"]
)
def test_a_private_name_that_has_moved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [np.zeros(2, np.float32)]
    optimizer = built()
    state = adapter.import_state(params, optimizer)
    fm.step(params, [np.ones(2, np.float32)], state)
    momentum = optimizer.momentums[0]
    if name in vars(optimizer):
        monkeypatch.delitem(vars(optimizer), name)
    else:
        for owner in type(optimizer).__mro__:
            if name in vars(owner):
                monkeypatch.delattr(owner, name)
    with pytest.raises(
        RuntimeError, match=f"optimizer must have {name}, as in Keras {adapter.TESTED}, but it has not in"
    ):
        adapter.export_state(state, optimizer)
    assert arrays([momentum])[0].tolist() == [0, 0]


def test_the_layout_of_a_model(rng: np.random.Generator) -> None:
    """model.trainable_variables is the order of the optimizer of a compiled model."""
    model = theirs.Sequential([theirs.Input((3,)), theirs.layers.Dense(3), theirs.layers.Dense(2)])
    optimizer = theirs.optimizers.SGD(learning_rate=0.05, momentum=0.9)
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    grads = [random_like(tuple(v.shape), np.float32, rng) for v in model.trainable_variables]
    optimizer.apply([theirs.ops.convert_to_tensor(g) for g in grads])
    state = adapter.import_state(arrays(model.trainable_variables), optimizer)
    for velocity, grad in zip(state.velocity, grads, strict=True):
        np.testing.assert_allclose(velocity, 0.05 * grad, rtol=1e-6)


def test_a_model_on_pytorch_is_stepped_where_it_lies() -> None:
    pytest.importorskip("torch")
    printed = run_python(
        """
        import warnings
        warnings.simplefilter("ignore")  # the first call of a Keras model converts with numpy.asarray
        import keras, numpy as np, torch
        import fast_momentum as fm
        from fast_momentum.adapters import pytorch
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
        weights = [v.value for v in model.trainable_variables]
        params = pytorch.arrays(weights)
        state = fm.init(params, lr=0.25)
        model(np.ones((1, 3), np.float32)).sum().backward()
        fm.step(params, pytorch.grads(weights), state)
        print(model(np.ones((1, 3), np.float32)).item())
        """,
        KERAS_BACKEND="torch",
    )
    assert float(printed) == 3 * 0.75 - 0.25


# ---- the module ----


def test_examples() -> None:
    found = doctest.testmod(adapter)
    assert found.attempted > 0
    assert found.failed == 0


def test_without_keras() -> None:
    printed = run_python(
        """
        import sys
        sys.modules["keras"] = None
        try:
            import fast_momentum.adapters.keras
        except ImportError as error:
            print(error)
        """
    )
    assert printed == "fast_momentum.adapters.keras must have keras; pip install keras\n"
