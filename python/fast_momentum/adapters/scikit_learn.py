"""scikit-learn's `MLPClassifier` and `MLPRegressor`, with the steps of Adam and SGD made by `fast_momentum.step`.

The two classes here have the names, the parameters and the results of scikit-learn's, bit for bit. Only the private
optimizer that they hold in ``_optimizer`` is another. That interface may move with any release of scikit-learn, so
importing this module makes two steps with each, and is an ImportError if they are not scikit-learn's. Needs
scikit-learn.
"""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np

import fast_momentum as fm

try:
    import sklearn
    from sklearn import neural_network
except ImportError as error:
    _message = "fast_momentum.adapters.scikit_learn must have scikit-learn; pip install scikit-learn"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TESTED", "MLPClassifier", "MLPRegressor", "from_sklearn", "to_sklearn"]

TESTED = ("1.5.2", "1.6.1", "1.7.2", "1.8.0", "1.9.1")
"""The versions of scikit-learn with which the tests have run."""


def _refuse(what: str) -> NoReturn:
    msg = (
        f"fast_momentum.adapters.scikit_learn must have scikit-learn's private optimizer as it is in "
        f"{TESTED[0]} to {TESTED[-1]}, not as in {sklearn.__version__}, where {what}; install a version that "
        f"was tested, or use sklearn.neural_network"
    )
    raise ImportError(msg)


try:
    from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
except ImportError:
    _refuse("AdamOptimizer and SGDOptimizer cannot be imported")


class _InPlace:
    """Takes the place of an optimizer of scikit-learn. Schedule and stopping are its own; the steps are ours."""

    theirs: ClassVar[type]
    solver: ClassVar[str]
    numbers: ClassVar[
        tuple[str, ...]
    ]  # the attributes whose type decides in which dtype scikit-learn computes
    kept: ClassVar[tuple[str, ...]]  # the attributes that are lists of arrays
    state: fm.State

    def __init__(self, optimizer: Any) -> None:
        self._take(optimizer)

    @classmethod
    def is_exact(cls, optimizer: Any) -> bool:
        """A number of NumPy makes float64 of some of what scikit-learn computes in float32."""
        arrays = [a for name in cls.kept for a in getattr(optimizer, name)]
        exact = {int, float, np.float64} if all(a.dtype == np.float64 for a in arrays) else {int, float}
        return all(type(getattr(optimizer, name)) in exact for name in cls.numbers)

    def as_sklearn(self) -> Any:
        optimizer: Any = object.__new__(self.theirs)
        vars(optimizer).update(vars(self), **self._as_they_keep_it())
        del optimizer.state, optimizer.dtypes
        return optimizer

    def update_params(self, params: list[NDArray[Any]], grads: list[NDArray[Any]]) -> None:
        if all(p.dtype == g.dtype == d for p, g, d in zip(params, grads, self.dtypes, strict=True)):
            fm.step(params, grads, self.state)
        else:
            self._step_wider(params, grads)

    def _step_wider(self, params: list[NDArray[Any]], grads: list[NDArray[Any]]) -> None:
        """Targets or weights in float64 make float64 of gradients, and these of moments, for params in float32."""
        dtypes = [np.promote_types(g.dtype, d) for g, d in zip(grads, self.dtypes, strict=True)]
        if dtypes != self.dtypes:
            optimizer = self.as_sklearn()
            for name in self.kept:
                arrays = getattr(optimizer, name)
                setattr(optimizer, name, [a.astype(d) for a, d in zip(arrays, dtypes, strict=True)])
            self._take(optimizer)
        wide = [p.astype(d) for p, d in zip(params, dtypes, strict=True)]
        fm.step(wide, [g.astype(d, copy=False) for g, d in zip(grads, dtypes, strict=True)], self.state)
        for p, w in zip(params, wide, strict=True):
            np.copyto(p, w, casting="same_kind")

    def _take(self, optimizer: Any) -> None:
        vars(self).update(vars(optimizer))
        for name in self.kept:
            del vars(self)[name]
        self.state = self._state_of(optimizer)
        self.dtypes = [v.dtype for v in self.state.velocity]

    def _state_of(self, optimizer: Any) -> fm.State:
        raise NotImplementedError

    def _as_they_keep_it(self) -> dict[str, Any]:
        raise NotImplementedError


class _InPlaceSGD(_InPlace, SGDOptimizer):  # type: ignore[misc]  # scikit-learn has no types
    """Its velocities are the negatives of ours."""

    theirs, solver = SGDOptimizer, "sgd"
    numbers = ("momentum", "power_t", "learning_rate")
    kept = ("velocities",)

    def _state_of(self, optimizer: Any) -> fm.State:
        velocities = optimizer.velocities
        # Without momentum Nesterov's step is the plain one, and `init` refuses to be asked for it.
        nesterov = bool(self.nesterov and self.momentum)
        state = fm.init(
            velocities, lr=self.learning_rate, momentum=self.momentum, nesterov=nesterov, form="lr_inside"
        )
        if any(v.any() for v in velocities):
            _load(state, 1, velocity=[-v for v in velocities])
        return state

    def _as_they_keep_it(self) -> dict[str, Any]:
        return {"velocities": [-v for v in self.state.velocity]}

    def update_params(self, params: list[NDArray[Any]], grads: list[NDArray[Any]]) -> None:
        self.state.lr = self.learning_rate
        super().update_params(params, grads)


class _InPlaceAdam(_InPlace, AdamOptimizer):  # type: ignore[misc]  # as above
    """Its learning rate is a numpy.float64, so that displacements of float32 are computed in float64."""

    theirs, solver = AdamOptimizer, "adam"
    numbers = ("beta_1", "beta_2", "epsilon")
    kept = ("ms", "vs")

    def _state_of(self, optimizer: Any) -> fm.State:
        state = fm.adam(
            optimizer.ms,
            lr=float(self.learning_rate_init),
            beta1=self.beta_1,
            beta2=self.beta_2,
            eps=self.epsilon,
            form="folded_float64",
        )
        if optimizer.t:
            _load(state, optimizer.t, optimizer.t, velocity=optimizer.ms, second_moment=optimizer.vs)
        return state

    def _as_they_keep_it(self) -> dict[str, Any]:
        state = self.state
        return {
            "ms": state.velocity,
            "vs": state.second_moment,
            "t": self.t,
            "learning_rate": self.learning_rate,
        }

    @property
    def t(self) -> int:
        return self.state.step_count

    @property
    def learning_rate(self) -> float:
        if self.t == 0:
            return float(self.learning_rate_init)
        size: float = self.learning_rate_init * np.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)
        return size


def _load(state: fm.State, steps: int, step_count: int = 0, **slots: list[NDArray[Any]]) -> None:
    saved = state.state_dict()
    for name, arrays in slots.items():
        saved[name] = dict(zip(saved[name], arrays, strict=True))
    saved["steps"] = dict.fromkeys(saved["steps"], steps)
    saved["step_count"] = step_count
    state.load_state_dict(saved)


_IN_PLACE: dict[type, type[_InPlace]] = {ours.theirs: ours for ours in (_InPlaceSGD, _InPlaceAdam)}


def _replaced(optimizer: Any) -> Any:
    """Return what makes the steps of `optimizer` in place, or `optimizer`, where that would give other bits."""
    ours = _IN_PLACE.get(type(optimizer))
    if ours is None or not ours.is_exact(optimizer):
        return optimizer
    try:
        return ours(optimizer)
    except ValueError:  # momentum 1, or a number that is 0 or 1 once it is rounded to float32
        return optimizer


class _Perceptron:
    """Puts `_InPlace` into the place of the optimizer that scikit-learn makes when a fit begins."""

    @property
    def _optimizer(self) -> Any:
        try:
            return vars(self)["_optimizer"]
        except KeyError:
            msg = f"{type(self).__name__} has no optimizer before it is fitted"
            raise AttributeError(msg) from None

    @_optimizer.setter
    def _optimizer(self, optimizer: Any) -> None:
        vars(self)["_optimizer"] = _replaced(optimizer)

    @property
    def state_(self) -> fm.State:
        """The state that steps ``coefs_ + intercepts_``, after a fit with ``solver="adam"`` or ``"sgd"``."""
        optimizer = vars(self).get("_optimizer")
        if optimizer is None:
            msg = (
                f"{type(self).__name__} has a state after a fit with solver='adam' or 'sgd', and none before"
            )
            raise AttributeError(msg)
        if isinstance(optimizer, _InPlace):
            return optimizer.state
        msg = f"{type(self).__name__} has no state: scikit-learn makes the steps of solver={vars(self)['solver']!r} with these parameters"
        raise AttributeError(msg)


class MLPClassifier(_Perceptron, neural_network.MLPClassifier):  # type: ignore[misc]
    """`sklearn.neural_network.MLPClassifier`, trained faster.

    With ``solver="adam"``, the default, each step is that of scikit-learn, in one pass over memory::

        m = beta_1*m + (1-beta_1)*g
        v = beta_2*v + (1-beta_2)*g*g
        p = p - learning_rate_init*sqrt(1-beta_2**t)/(1-beta_1**t)*m / (sqrt(v) + epsilon)

    and with ``solver="sgd"``::

        v = momentum*v + learning_rate*g
        p = p - v                                      (nesterovs_momentum: p = p - (momentum*v + learning_rate*g))

    Parameters, methods and attributes are those of scikit-learn's class, and so are the results, bit for bit. With
    ``solver="lbfgs"`` nothing is different from it.

    Attributes
    ----------
    state_ : fast_momentum.State
        The state that steps ``coefs_ + intercepts_``, after a fit with ``solver="adam"`` or ``"sgd"``.

    Raises
    ------
    ValueError
        From a fit with ``solver="sgd"`` and ``learning_rate="invscaling"``, if the learning rate becomes 0 in float32.

    Notes
    -----
    scikit-learn makes the steps where ours would have other bits, and there is no ``state_``: where ``X`` is float32
    and ``beta_1``, ``beta_2``, ``epsilon``, ``momentum`` or ``power_t`` is a scalar of NumPy, with ``momentum=1``, and
    where one of these numbers is 0 or 1 once it is rounded to float32. Where targets or weights are float64 and ``X``
    is float32, moments are float64, as in scikit-learn; if their dtype changes between calls of ``partial_fit``, the
    results agree to rounding.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from fast_momentum.adapters.scikit_learn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> mlp = MLPClassifier(learning_rate_init=0.01, random_state=0).fit(X, y)
    >>> mlp.score(X, y) > 0.95, mlp.state_.step_count == mlp.n_iter_
    (True, True)
    """


class MLPRegressor(_Perceptron, neural_network.MLPRegressor):  # type: ignore[misc]
    """`sklearn.neural_network.MLPRegressor`, trained faster.

    What `MLPClassifier` says holds here, too.

    Examples
    --------
    >>> import numpy as np
    >>> from fast_momentum.adapters.scikit_learn import MLPRegressor
    >>> X = np.linspace(-1, 1, 40)[:, None]
    >>> mlp = MLPRegressor(learning_rate_init=0.01, random_state=0)
    >>> for _ in range(200):
    ...     mlp = mlp.partial_fit(X, X[:, 0] ** 2)
    >>> mlp.score(X, X[:, 0] ** 2) > 0.99
    True
    """


_CLASSES: dict[type, type] = {
    neural_network.MLPClassifier: MLPClassifier,
    neural_network.MLPRegressor: MLPRegressor,
}


def from_sklearn(estimator: Any) -> Any:
    """Copy a perceptron of scikit-learn, fitted or not, into one that is trained here.

    Its optimizer comes along, so ``partial_fit`` goes on as it would have.

    Parameters
    ----------
    estimator : sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        Not changed.

    Returns
    -------
    MLPClassifier or MLPRegressor
        It shares no memory with `estimator`.

    Raises
    ------
    TypeError
        If `estimator` is neither.

    Examples
    --------
    >>> from sklearn.neural_network import MLPRegressor
    >>> from fast_momentum.adapters import scikit_learn
    >>> mlp = MLPRegressor(random_state=0).partial_fit([[0.0], [1.0]], [0.0, 1.0])
    >>> scikit_learn.from_sklearn(mlp).partial_fit([[0.0], [1.0]], [0.0, 1.0]).state_.step_count
    2
    """
    return _copied(estimator, _CLASSES, "sklearn.neural_network")


def to_sklearn(estimator: Any) -> Any:
    """Copy a perceptron of this module into one of scikit-learn, which can be loaded without `fast_momentum`.

    Its optimizer comes along, as with `from_sklearn`.

    Parameters
    ----------
    estimator : MLPClassifier or MLPRegressor
        Not changed.

    Returns
    -------
    sklearn.neural_network.MLPClassifier or sklearn.neural_network.MLPRegressor
        It shares no memory with `estimator`.

    Raises
    ------
    TypeError
        If `estimator` is neither.

    Examples
    --------
    >>> from fast_momentum.adapters import scikit_learn
    >>> mlp = scikit_learn.MLPRegressor(random_state=0).partial_fit([[0.0], [1.0]], [0.0, 1.0])
    >>> type(scikit_learn.to_sklearn(mlp)).__module__
    'sklearn.neural_network._multilayer_perceptron'
    """
    return _copied(estimator, {ours: theirs for theirs, ours in _CLASSES.items()}, __name__)


def _copied(estimator: Any, classes: dict[type, type], module: str) -> Any:
    if type(estimator) not in classes:
        given = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
        msg = f"estimator must be an MLPClassifier or MLPRegressor of {module}, not {given}"
        raise TypeError(msg)
    new: Any = object.__new__(classes[type(estimator)])
    attributes = copy.deepcopy(vars(estimator))
    optimizer = attributes.pop("_optimizer", None)
    vars(new).update(attributes)
    if optimizer is not None:
        new._optimizer = optimizer.as_sklearn() if isinstance(optimizer, _InPlace) else optimizer
    return new


def _check_interface(solver: str, dtype: str) -> None:
    """Two steps here and there, with a schedule: an interface that has moved shows before anyone trains for hours."""
    options = {"hidden_layer_sizes": (), "solver": solver, "learning_rate": "invscaling", "random_state": 0}
    options["learning_rate_init"] = 0.5  # steps as large as the coefficients show how they are rounded
    ours, theirs = MLPRegressor(**options), neural_network.MLPRegressor(**options)
    x, y = np.linspace(-1, 1, 26, dtype=dtype).reshape(2, 13), np.array([1, 2], dtype)
    try:
        for mlp in (ours, theirs):
            for _ in range(2):
                mlp.partial_fit(x, y)
        names = ours._optimizer.kept
        found, expected = (
            [*mlp.coefs_, *mlp.intercepts_, *(a for name in names for a in getattr(mlp._optimizer, name))]
            for mlp in (to_sklearn(ours), theirs)
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, they have moved
        _refuse(f"two steps end in {type(error).__name__}: {error}")
    if not all(map(np.array_equal, found, expected)):
        _refuse("two steps give other coefficients")


for _case in itertools.product([ours.solver for ours in _IN_PLACE.values()], ["float32", "float64"]):
    _check_interface(*_case)
