"""scikit-learn's perceptrons with our step, against scikit-learn's own: the same bits after whole fits."""

from __future__ import annotations

import doctest
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

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

pytestmark = pytest.mark.python_alone

NAMES = ["MLPClassifier", "MLPRegressor"]
SHORT = {
    "solver": "sgd",
    "hidden_layer_sizes": (9, 5),
    "max_iter": 12,
    "random_state": 3,
    "learning_rate_init": 0.05,
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"nesterovs_momentum": False},
    {"momentum": 0.0},
    {"momentum": 0.0, "nesterovs_momentum": False},
    {"momentum": 0.5, "alpha": 0.1, "batch_size": 7},
    {"alpha": 0.0, "shuffle": False, "batch_size": 1, "max_iter": 2},
    {"learning_rate": "invscaling", "power_t": 0.3},
    {"learning_rate": "invscaling", "power_t": 0.0, "nesterovs_momentum": False},
    {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1, "max_iter": 60},
    {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 2, "max_iter": 60},
    {"early_stopping": True, "learning_rate": "adaptive", "n_iter_no_change": 1, "max_iter": 60},
    {"tol": 0.5, "n_iter_no_change": 2},
    {"activation": "tanh", "hidden_layer_sizes": 4, "batch_size": 1000},
    {"activation": "logistic", "hidden_layer_sizes": ()},
    {"activation": "identity"},
    {"solver": "adam"},
    {"solver": "lbfgs"},
]  # fmt: skip


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
    if ours.solver == "sgd":
        assert ours._optimizer.learning_rate == theirs._optimizer.learning_rate
        # A sum of zeros is a positive zero, whichever sign the velocity has.
        assert_bits([0 - v for v in ours.state_.velocity], [0 + v for v in theirs._optimizer.velocities])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_fit(name: str, options: dict[str, Any], dtype: Any) -> None:
    x, y = data(name, dtype)
    ours, theirs = pair(name, **options)
    for _ in range(2):  # a second fit begins anew
        assert_same(ours.fit(x, y), theirs.fit(x, y))
    if ours.solver == "sgd":
        assert ours.coefs_[0].dtype == dtype
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_ours(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(fm, "step", lambda *arguments, step=fm.step: (calls.append(1), step(*arguments)))
    ours, _ = pair(name, batch_size=20)
    x, y = data(name)
    ours.fit(x, y)
    assert len(calls) == ours.state_.step_count == 3 * ours.n_iter_ > 3


def test_schedules_and_stopping_took_place() -> None:
    """The options of `OPTIONS` do what they are there for."""
    x, y = data("MLPClassifier")
    adaptive = pair("MLPClassifier", **OPTIONS[8])[0].fit(x, y)
    assert adaptive._optimizer.learning_rate < 0.02
    assert pair("MLPClassifier", **OPTIONS[6])[0].fit(x, y).state_.lr < 0.02
    assert pair("MLPClassifier", **OPTIONS[9])[0].fit(x, y).n_iter_ < 60
    assert pair("MLPClassifier", **OPTIONS[11])[0].fit(x, y).n_iter_ < 12


@pytest.mark.parametrize("options", [{}, {"learning_rate": "adaptive"}, {"solver": "adam"}], ids=str)
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
    for solver in ("sgd", "sgd", "adam", "sgd", "lbfgs", "sgd"):
        for mlp in (ours, theirs):
            mlp.set_params(solver=solver).fit(x, y)
        assert_same(ours, theirs)


def test_lbfgs_has_no_partial_fit() -> None:
    ours, theirs = pair("MLPClassifier", solver="lbfgs")
    assert not hasattr(ours, "partial_fit")
    assert not hasattr(theirs, "partial_fit")


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_kinds_of_targets(kind: str) -> None:
    x, y = data("MLPClassifier")
    y = y > 0 if kind == "binary" else np.stack([y > 0, y > 1, y == 0], axis=1)
    ours, theirs = pair("MLPClassifier")
    assert_same(ours.fit(x, y), theirs.fit(x, y))


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_matrix", "csr_array", "two outputs", "Fortran"])
def test_kinds_of_input(kind: str, dtype: Any) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    x, y = data("MLPRegressor", dtype)
    if kind == "two outputs":
        y = np.stack([y, y**2], axis=1)
    else:
        x = np.asfortranarray(x) if kind == "Fortran" else getattr(sparse, kind)(x)
    ours, theirs = pair("MLPRegressor")
    assert_same(ours.fit(x, y), theirs.fit(x, y))


def test_sample_weights_and_loss() -> None:
    if "loss" not in neural_network.MLPRegressor().get_params():
        pytest.skip("came with scikit-learn 1.7")
    x, y = data("MLPRegressor")
    ours, theirs = pair("MLPRegressor", loss="poisson")
    weights = np.linspace(0.1, 2, 60)
    assert_same(ours.fit(x, y, sample_weight=weights), theirs.fit(x, y, sample_weight=weights))


def test_a_generator_as_random_state() -> None:
    ours, theirs = (mlp.set_params(random_state=np.random.RandomState(7)) for mlp in pair("MLPRegressor"))
    assert_same(ours.fit(*data("MLPRegressor")), theirs.fit(*data("MLPRegressor")))


@pytest.mark.parametrize("options", [{}, {"momentum": np.float64(0.9)}], ids=str)
def test_float32_data_where_sklearn_has_float64_velocities(options: dict[str, Any]) -> None:
    x, y = data("MLPRegressor", np.float32)
    y = y.astype(np.float32 if options else np.float64)
    ours, theirs = pair("MLPRegressor", **options)
    ours.fit(x, y)
    theirs.fit(x, y)
    assert theirs._optimizer.velocities[0].dtype == np.float64
    assert ours.state_.velocity[0].dtype == np.float32
    for a, b in zip(ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "estimator", [adapter.MLPClassifier(solver="sgd"), adapter.MLPRegressor(solver="sgd")]
)
def test_scikit_learns_own_checks(estimator: Any) -> None:
    check_estimator(estimator)


@pytest.mark.parametrize("name", NAMES)
def test_clone_and_names(name: str) -> None:
    ours, theirs = pair(name)
    assert ours.get_params() == theirs.get_params()
    assert repr(ours) == repr(theirs)
    assert isinstance(ours, type(theirs))
    fitted = ours.fit(*data(name))
    again = base.clone(fitted)
    assert type(again) is type(ours)
    assert not hasattr(again, "state_")
    assert_same(again.fit(*data(name)), theirs.fit(*data(name)))


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", NAMES)
def test_pickle_goes_on(name: str, solver: str) -> None:
    x, y = data(name)
    ours, theirs = pair(name, solver=solver)
    for mlp in (ours, theirs):
        mlp.fit(x, y)
    loaded = pickle.loads(pickle.dumps(ours))
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


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", NAMES)
def test_conversion_goes_on(name: str, solver: str) -> None:
    x, y = data(name)
    mine, theirs = pair(name, solver=solver)
    theirs.fit(x, y)
    ours = adapter.from_sklearn(theirs)
    back = adapter.to_sklearn(ours)
    assert type(ours) is type(mine)
    assert type(back) is type(theirs)
    assert type(back._optimizer) is type(theirs._optimizer)
    assert vars(back._optimizer).keys() == vars(theirs._optimizer).keys()
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
    ours, _ = pair("MLPRegressor", momentum=1.0)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\)"):
        ours.fit(*data("MLPRegressor"))
    ours, _ = pair("MLPRegressor", learning_rate="invscaling", power_t=20.0)
    with pytest.raises(ValueError, match=r"lr must"):
        ours.fit(*data("MLPRegressor", np.float32))


MOVES = {
    "sys.modules['sklearn'] = None": "must have scikit-learn; pip install 'fast-momentum[sklearn]'",
    "del optimizers.SGDOptimizer": "SGDOptimizer cannot be imported",
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
