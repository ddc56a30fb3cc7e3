"""scikit-learn's perceptrons with our step, against scikit-learn's own: the same bits after whole fits."""

from __future__ import annotations

import doctest
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_momentum as fm
from helpers import assert_bits, run_python

pytest.importorskip("sklearn")

from sklearn import base, neural_network
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fast_momentum.adapters import scikit_learn as adapter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.python_alone

NAMES = ["MLPClassifier", "MLPRegressor"]
SOLVERS = ["adam", "sgd"]
SHORT = {"hidden_layer_sizes": (9, 5), "max_iter": 12, "random_state": 3, "learning_rate_init": 0.05}
OF_SGD: list[dict[str, Any]] = [
    {},
    {"nesterovs_momentum": False},
    {"momentum": 0.0},
    {"momentum": 0.0, "nesterovs_momentum": False},
    {"momentum": 0.5, "alpha": 0.1, "batch_size": 7},
    {"learning_rate": "invscaling", "power_t": 0.3},
    {"learning_rate": "invscaling", "power_t": 0.0, "nesterovs_momentum": False},
    {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1, "max_iter": 60},
    {"early_stopping": True, "learning_rate": "adaptive", "n_iter_no_change": 1, "max_iter": 60},
]  # fmt: skip
OF_ADAM: list[dict[str, Any]] = [
    {},
    {"beta_1": 0.0},
    {"beta_1": 0, "beta_2": 0},
    {"beta_1": 0.99, "beta_2": 0.9, "epsilon": 0.1},
    {"beta_2": 0.9999, "epsilon": 1e-30},
    {"learning_rate_init": 1},
    {"learning_rate_init": np.float64(1e-4), "alpha": 0.1, "batch_size": 7},
    {"learning_rate": "adaptive", "n_iter_no_change": 1, "power_t": 0.3, "momentum": 0.5},
    {"max_iter": 200, "batch_size": 10},
]  # fmt: skip
OF_BOTH: list[dict[str, Any]] = [
    {"alpha": 0.0, "shuffle": False, "batch_size": 1, "max_iter": 2},
    {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_iter": 60},
    {"tol": 0.5, "n_iter_no_change": 2},
    {"activation": "tanh", "hidden_layer_sizes": 4, "batch_size": 1000},
    {"activation": "logistic", "hidden_layer_sizes": ()},
    {"activation": "identity"},
]  # fmt: skip
OPTIONS = [
    *({"solver": "adam", **options} for options in OF_ADAM + OF_BOTH),
    *({"solver": "sgd", **options} for options in OF_SGD + OF_BOTH),
    {"solver": "lbfgs"},
]


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that so few iterations have not converged, that a batch is too large
        yield


def data(name: str, dtype: Any = np.float64) -> tuple[Any, Any]:
    x, y = load_digits(return_X_y=True)
    x = (x[:60] / 16).astype(dtype)
    return x, (y[:60] % 3 if name == "MLPClassifier" else np.asarray(y[:60] / 9, dtype))


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    options = {**SHORT, **options}
    return getattr(adapter, name)(**options), getattr(neural_network, name)(**options)


def assert_same(ours: Any, theirs: Any) -> None:
    assert_bits(ours.coefs_, theirs.coefs_)
    assert_bits(ours.intercepts_, theirs.intercepts_)
    for name in ("n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_"):
        assert getattr(ours, name, None) == getattr(theirs, name, None), name
    if ours.solver == "lbfgs":
        return
    assert ours._optimizer.learning_rate == theirs._optimizer.learning_rate
    if ours.solver == "sgd":
        # A sum of zeros is a positive zero, whichever sign the velocity has.
        assert_bits([0 - v for v in ours.state_.velocity], [0 + v for v in theirs._optimizer.velocities])
    else:
        assert ours._optimizer.t == ours.state_.step_count == theirs._optimizer.t
        assert_bits(ours.state_.velocity, theirs._optimizer.ms)
        assert_bits(ours.state_.second_moment, theirs._optimizer.vs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_fit(name: str, options: dict[str, Any], dtype: Any) -> None:
    x, y = data(name, dtype)
    ours, theirs = pair(name, **options)
    for _ in range(2):  # a second fit begins anew
        assert_same(ours.fit(x, y), theirs.fit(x, y))
    if ours.solver != "lbfgs":
        assert ours.coefs_[0].dtype == dtype
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


@given(
    options=st.fixed_dictionaries({
        "solver": st.sampled_from(SOLVERS),
        "hidden_layer_sizes": st.lists(st.integers(1, 20), max_size=2),
        "batch_size": st.integers(5, 60),
        "alpha": st.floats(0, 1),
        "learning_rate_init": st.floats(1e-6, 0.5),
        "beta_1": st.just(0) | st.floats(0.001, 0.999),
        "beta_2": st.just(0) | st.floats(0.001, 0.9999),
        "epsilon": st.floats(1e-12, 1),
        "momentum": st.just(0) | st.floats(0.001, 0.99),
        "nesterovs_momentum": st.booleans(),
        "early_stopping": st.booleans(),
        "shuffle": st.booleans(),
        "warm_start": st.booleans(),
        "n_iter_no_change": st.integers(1, 4),
        "max_iter": st.integers(1, 5),
    }),
    name=st.sampled_from(NAMES),
    dtype=st.sampled_from([np.float32, np.float64]),
)  # fmt: skip
@settings(max_examples=40)
def test_fit_with_any_parameters(options: dict[str, Any], name: str, dtype: Any) -> None:
    x, y = data(name, dtype)
    ours, theirs = pair(name, **options)
    for _ in range(2):
        assert_same(ours.fit(x, y), theirs.fit(x, y))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_ours(name: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(fm, "step", lambda *arguments, step=fm.step: (calls.append(1), step(*arguments)))
    ours, _ = pair(name, solver=solver, batch_size=20)
    x, y = data(name)
    ours.fit(x, y)
    assert len(calls) == ours.state_.step_count == 3 * ours.n_iter_ > 3


def test_schedules_and_stopping_took_place() -> None:
    """The options of `OPTIONS` do what they are there for."""
    x, y = data("MLPClassifier")
    adaptive, invscaling = (pair("MLPClassifier", solver="sgd", **OF_SGD[k])[0].fit(x, y) for k in (7, 5))
    assert adaptive._optimizer.learning_rate < 0.02
    assert invscaling.state_.lr < 0.02
    for solver, most in (("sgd", 12), ("adam", 12)):
        early, tolerant = (pair("MLPClassifier", solver=solver, **OF_BOTH[k])[0].fit(x, y) for k in (1, 2))
        assert early.n_iter_ < 60
        assert tolerant.n_iter_ < most


@pytest.mark.parametrize(
    "options", [{}, {"solver": "sgd"}, {"solver": "sgd", "learning_rate": "adaptive"}], ids=str
)
@pytest.mark.parametrize("name", NAMES)
def test_partial_fit(name: str, options: dict[str, Any], dtype: Any) -> None:
    x, y = data(name, dtype)
    ours, theirs = pair(name, **options)
    first = {"classes": [0, 1, 2]} if name == "MLPClassifier" else {}
    for k in range(8):
        for mlp in (ours, theirs):
            mlp.partial_fit(x[k::2], y[k::2], **(first if k == 0 else {}))
        assert_same(ours, theirs)
    assert_same(ours.fit(x, y), theirs.fit(x, y))
    assert_same(ours.partial_fit(x, y), theirs.partial_fit(x, y))


@pytest.mark.parametrize("name", NAMES)
def test_warm_start_and_another_solver(name: str) -> None:
    x, y = data(name)
    ours, theirs = pair(name, warm_start=True)
    for solver in ("adam", "adam", "sgd", "sgd", "adam", "lbfgs", "sgd", "lbfgs", "adam"):
        for mlp in (ours, theirs):
            mlp.set_params(solver=solver).fit(x, y)
        assert_same(ours, theirs)


def test_lbfgs_has_no_partial_fit() -> None:
    ours, theirs = pair("MLPClassifier", solver="lbfgs")
    assert not hasattr(ours, "partial_fit")
    assert not hasattr(theirs, "partial_fit")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_kinds_of_targets(kind: str, solver: str) -> None:
    x, y = data("MLPClassifier")
    y = y > 0 if kind == "binary" else np.stack([y > 0, y > 1, y == 0], axis=1)
    ours, theirs = pair("MLPClassifier", solver=solver)
    assert_same(ours.fit(x, y), theirs.fit(x, y))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "csr_array", "two outputs", "Fortran"])
def test_kinds_of_input(kind: str, solver: str, dtype: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x, y = data("MLPRegressor", dtype)
    if kind == "two outputs":
        y = np.stack([y, y**2], axis=1)
    else:
        x = np.asfortranarray(x) if kind == "Fortran" else getattr(sparse, kind)(x)
    ours, theirs = pair("MLPRegressor", solver=solver)
    assert_same(ours.fit(x, y), theirs.fit(x, y))


@pytest.mark.parametrize("solver", SOLVERS)
def test_sample_weights_and_loss(solver: str, dtype: Any) -> None:
    if "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("came with scikit-learn 1.7")
    x, y = data("MLPRegressor", dtype)
    ours, theirs = pair("MLPRegressor", loss="poisson", solver=solver)
    weights = np.linspace(0.1, 2, 60)
    assert_same(ours.fit(x, y, sample_weight=weights), theirs.fit(x, y, sample_weight=weights))


def test_a_generator_as_random_state() -> None:
    ours, theirs = (mlp.set_params(random_state=np.random.RandomState(7)) for mlp in pair("MLPRegressor"))
    assert_same(ours.fit(*data("MLPRegressor")), theirs.fit(*data("MLPRegressor")))


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_data_with_float64_targets(solver: str) -> None:
    """scikit-learn's moments become float64. Where that happens between two steps, results agree to rounding."""
    x, y = data("MLPRegressor", np.float32)
    for first in (np.float64, np.float32):
        ours, theirs = pair("MLPRegressor", solver=solver)
        for dtype in (first, np.float64, np.float64, np.float32):
            for mlp in (ours, theirs):
                mlp.partial_fit(x, y.astype(dtype))
            assert ours.coefs_[0].dtype == np.float32
            if first == dtype == np.float64:
                assert_same(ours, theirs)
        assert ours.state_.velocity[0].dtype == np.float64
        for a, b in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_1": np.float64(0.9)},
        {"beta_2": np.float32(0.999)},
        {"epsilon": np.float64(1e-3)},
        {"beta_2": 1e-60},
        {"beta_1": 1 - 1e-12},
        {"solver": "sgd", "momentum": np.float64(0.9)},
        {"solver": "sgd", "momentum": 1},
        {"solver": "sgd", "learning_rate": "invscaling", "power_t": np.float64(0.3)},
    ],
    ids=str,
)
def test_scikit_learn_makes_the_steps_that_are_not_ours(options: dict[str, Any]) -> None:
    x, y = data("MLPRegressor", np.float32)
    ours, theirs = pair("MLPRegressor", **options)
    ours.fit(x, y)
    theirs.fit(x, y)
    assert_bits(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_)
    assert type(ours._optimizer) is type(theirs._optimizer)
    with pytest.raises(
        AttributeError,
        match=r"^MLPRegressor has no state: scikit-learn makes the steps of solver='(adam|sgd)' with",
    ):
        ours.state_  # noqa: B018  # which raises


@pytest.mark.parametrize("option", [{"beta_1": 0.85}, {"beta_2": 0.99}, {"epsilon": 1e-3}], ids=str)
def test_scalars_of_numpy_with_float64(option: dict[str, Any]) -> None:
    x, y = data("MLPClassifier")
    ours, theirs = pair("MLPClassifier", **{name: np.float64(value) for name, value in option.items()})
    assert_same(ours.fit(x, y), theirs.fit(x, y))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_scikit_learns_own_checks(name: str, solver: str) -> None:
    check_estimator(getattr(adapter, name)(solver=solver))


def test_scikit_learns_own_tests(tmp_path: Path) -> None:
    """Its module of tests for the perceptron, with our classes under the names of its own."""
    code = f"""
    import os, pytest
    from sklearn import neural_network
    import fast_momentum as fm
    from fast_momentum.adapters import scikit_learn as adapter
    os.chdir({str(tmp_path)!r})
    steps, step = [], fm.step
    fm.step = lambda *arguments: (steps.append(1), step(*arguments))
    neural_network.MLPClassifier, neural_network.MLPRegressor = adapter.MLPClassifier, adapter.MLPRegressor
    options = ["-q", "-p", "no:cacheprovider", "--pyargs", "sklearn.neural_network.tests.test_mlp"]
    assert pytest.main(options) == 0
    assert len(steps) > 1000
    """
    run_python(code, timeout=1800)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_clone_and_names(name: str, solver: str) -> None:
    ours, theirs = pair(name, solver=solver)
    assert ours.get_params() == theirs.get_params()
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, type(theirs))
    fitted = ours.fit(*data(name))
    again = base.clone(fitted)
    assert type(again) is type(ours)
    assert not hasattr(again, "state_")
    assert_same(again.fit(*data(name)), theirs.fit(*data(name)))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_pickle_goes_on(name: str, solver: str, dtype: Any) -> None:
    x, y = data(name, dtype)
    ours, theirs = pair(name, solver=solver)
    for mlp in (ours, theirs):
        mlp.fit(x, y)
    loaded = pickle.loads(pickle.dumps(ours))
    for _ in range(3):
        assert_same(loaded.partial_fit(x, y), theirs.partial_fit(x, y))
    assert not np.array_equal(loaded.coefs_[0], ours.coefs_[0]), "they share memory"


def test_grid_search() -> None:
    x, y = data("MLPClassifier")
    grid = {"mlpclassifier__momentum": [0.5, 0.9], "mlpclassifier__solver": ["sgd", "adam"]}
    ours, theirs = (
        GridSearchCV(make_pipeline(StandardScaler(), mlp), grid, cv=2).fit(x, y)
        for mlp in pair("MLPClassifier")
    )
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(ours.cv_results_[key], theirs.cv_results_[key])
    assert_same(ours.best_estimator_[-1], theirs.best_estimator_[-1])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", NAMES)
def test_conversion_goes_on(name: str, solver: str, dtype: Any) -> None:
    x, y = data(name, dtype)
    mine, theirs = pair(name, solver=solver)
    theirs.fit(x, y)
    ours = adapter.from_sklearn(theirs)
    back = adapter.to_sklearn(ours)
    assert type(ours) is type(mine)
    assert type(back) is type(theirs)
    assert type(back._optimizer) is type(theirs._optimizer)
    assert vars(back._optimizer).keys() == vars(theirs._optimizer).keys()
    assert back._optimizer.learning_rate == theirs._optimizer.learning_rate
    for _ in range(3):
        for mlp in (ours, theirs, back):
            mlp.partial_fit(x, y)
        assert_same(ours, theirs)
        assert_bits(back.coefs_, theirs.coefs_)
    assert b"fast_momentum" not in pickle.dumps(back)


def test_conversion_of_the_unfitted_and_of_others() -> None:
    ours, theirs = pair("MLPRegressor")
    assert_same(adapter.from_sklearn(theirs).fit(*data("MLPRegressor")), theirs.fit(*data("MLPRegressor")))
    assert not hasattr(adapter.to_sklearn(ours), "_optimizer")
    with pytest.raises(TypeError) as info:
        adapter.from_sklearn(ours)
    assert str(info.value) == (
        "estimator must be an MLPClassifier or MLPRegressor of sklearn.neural_network, not "
        "fast_momentum.adapters.scikit_learn.MLPRegressor"
    )
    with pytest.raises(TypeError, match=r"of fast_momentum\.adapters\.scikit_learn, not sklearn"):
        adapter.to_sklearn(theirs)


def test_what_step_refuses() -> None:
    ours, _ = pair("MLPRegressor", solver="sgd", learning_rate="invscaling", power_t=20.0)
    with pytest.raises(ValueError, match=r"lr must"):
        ours.fit(*data("MLPRegressor", np.float32))


MOVES = {
    "sys.modules['sklearn'] = None": "must have scikit-learn; pip install scikit-learn",
    "del optimizers.SGDOptimizer": "AdamOptimizer and SGDOptimizer cannot be imported",
    "del optimizers.AdamOptimizer": "AdamOptimizer and SGDOptimizer cannot be imported",
    "optimizers.SGDOptimizer.update_params = lambda self, params, grads: None\n"
    "del Base._fit_stochastic": "two steps end in AttributeError",
    "Base.__setattr__ = lambda self, name, value: "
    "object.__setattr__(self, '_solver' if name == '_optimizer' else name, value)\n"
    "Base._optimizer = property(lambda self: self._solver)": "two steps end in AttributeError",
    "fit = Base._fit_stochastic\n"
    "def unused(self, *args):\n"
    "    fit(self, *args)\n"
    "    self._optimizer.state.reset() if hasattr(self._optimizer, 'state') else None\n"
    "Base._fit_stochastic = unused": "two steps give other coefficients",
    "multilayer.SGDOptimizer = type('SGDOptimizer', (optimizers.SGDOptimizer,), {})": "two steps end in AttributeError",
    "multilayer.AdamOptimizer = type('AdamOptimizer', (optimizers.AdamOptimizer,), {})": "two steps end in Attrib",
    "updates = optimizers.AdamOptimizer._get_updates\n"
    "optimizers.AdamOptimizer._get_updates = lambda self, grads: "
    "[u.astype(g.dtype) for u, g in zip(updates(self, grads), grads)]": "two steps give other coefficients",
    "optimizers.SGDOptimizer.iteration_ends = lambda self, t: setattr(self, 'momentum', 0.5)": "two steps give other",
}


@pytest.mark.parametrize("move", MOVES)
def test_an_interface_that_has_moved_is_said_at_the_import(move: str) -> None:
    code = f"""
import sys, warnings
warnings.simplefilter("error")
from sklearn.neural_network import _multilayer_perceptron as multilayer, _stochastic_optimizers as optimizers
Base = multilayer.BaseMultilayerPerceptron
{move}
try:
    from fast_momentum.adapters import scikit_learn
except ImportError as error:
    print(error)
"""
    printed = run_python(code)
    assert printed.startswith("fast_momentum.adapters.scikit_learn must have scikit-learn")
    assert MOVES[move] in printed
    if "private" in printed:
        assert adapter.TESTED[-1] in printed
        assert "or use sklearn.neural_network" in printed


def test_docstrings() -> None:
    results = doctest.testmod(adapter)
    assert results.failed == 0
    assert results.attempted > 0
