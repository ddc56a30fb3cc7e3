"""Flower's `FedAvgM` and `FedAdam`, with the server's update made by `fast_momentum.step`.

Flower has two strategies of each name, and here is one for each: `ServerAppFedAvgM` and `ServerAppFedAdam` for
`flwr.serverapp.strategy`, `ServerFedAvgM` and `ServerFedAdam` for `flwr.server.strategy`. Sampling, averaging and metrics are Flower's. They rely on attributes that
Flower does not document, and refuse to be made where one is missing. Needs Flower.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

import fast_momentum as fm

try:
    from flwr.app import Array, ArrayRecord
    from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server import strategy as server
    from flwr.serverapp import strategy as serverapp
except ImportError as error:
    _message = "fast_momentum.adapters.flower must have flwr; pip install flwr"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["TESTED", "ServerAppFedAdam", "ServerAppFedAvgM", "ServerFedAdam", "ServerFedAvgM"]

TESTED = ("1.41.0", "1.42.0")
"""The versions of Flower with which the tests have run."""


class _Server:
    """The update of the server, the same for all."""

    _name: str  # of Flower's class
    _relies_on: tuple[str, ...]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self._relies_on:
            if not hasattr(self, name):
                msg = (
                    f"{type(self).__name__} must have the attribute {name} of Flower's {self._name}, as in {TESTED[-1]}, "
                    f"not as in {version('flwr')}; install a version that was tested"
                )
                raise AttributeError(msg)
        self.state: fm.State | None = None
        self._init([])  # so that a bad option is refused now

    def _init(self, params: list[NDArray[Any]]) -> fm.State:
        raise NotImplementedError

    def _set(self, state: fm.State, server_round: int) -> None:
        """Hand over what may have been set since the last round."""
        raise NotImplementedError

    def _updated(
        self, server_round: int, params: list[NDArray[Any]], averages: list[NDArray[Any]]
    ) -> list[NDArray[Any]]:
        """The parameters after a step along what they are above the average of the clients."""
        # Of integers come floats, whether their averages were or not.
        params = [np.asarray(p, np.result_type(p, a, 0.0)) for p, a in zip(params, averages, strict=True)]
        grads = [_difference(p, a) for p, a in zip(params, averages, strict=True)]
        if self.state is None:
            self.state = self._init(params)
        self._set(self.state, server_round)
        fm.step(params, grads, self.state)
        return params

    def state_dict(self) -> dict[str, Any] | None:
        """Return `fast_momentum.State.state_dict`, to be saved with the parameters; None before the first update."""
        return None if self.state is None else self.state.state_dict()

    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        """Go on with a saved state, in place of starting from zero.

        The hyperparameters remain those of this strategy.

        Parameters
        ----------
        saved : dict or None
            From `state_dict`.

        Raises
        ------
        TypeError, ValueError
            As `fast_momentum.State.load_state_dict`.
        """
        if saved is None:
            self.state = None
            return
        state = self._init(list(saved["velocity"].values()))
        state.load_state_dict(saved)
        self.state = state


class _ServerMomentum(_Server):
    _name = "FedAvgM"
    server_learning_rate: float
    server_momentum: float

    def __init__(self, *args: Any, server_nesterov: bool = False, **kwargs: Any) -> None:
        self.server_nesterov = server_nesterov
        super().__init__(*args, **kwargs)

    def _init(self, params: list[NDArray[Any]]) -> fm.State:
        return fm.init(
            params,
            lr=self.server_learning_rate,
            momentum=self.server_momentum,
            nesterov=self.server_nesterov,
        )

    def _set(self, state: fm.State, server_round: int) -> None:  # noqa: ARG002 - momentum does not age
        state.lr, state.momentum = self.server_learning_rate, self.server_momentum
        state.nesterov = self.server_nesterov


class _ServerAdam(_Server):
    _name = "FedAdam"
    eta: float
    beta_1: float
    beta_2: float
    tau: float

    def _init(self, params: list[NDArray[Any]]) -> fm.State:
        return fm.adam(
            params, lr=self.eta, beta1=self.beta_1, beta2=self.beta_2, eps=self.tau, form="uncorrected"
        )

    def _set(self, state: fm.State, server_round: int) -> None:
        state.beta1, state.beta2, state.eps = self.beta_1, self.beta_2, self.tau
        # After a restart the rounds begin anew, but the moments do not.
        n = max(server_round, state.step_count + 1) + 1.0
        # By NumPy's power, which may differ from Python's in the last place.
        state.lr = float(self.eta * np.sqrt(1 - np.power(self.beta_2, n)) / (1 - np.power(self.beta_1, n)))


def _difference(param: NDArray[Any], average: NDArray[Any]) -> NDArray[Any]:
    """In the memory of `average`, if it is of the same dtype."""
    if param.shape != average.shape:
        msg = f"replies must have arrays of the shapes that the server's have, {param.shape}, not {average.shape}"
        raise ValueError(msg)
    out = average if average.dtype == param.dtype else None
    difference: NDArray[Any] = np.subtract(param, average, out=out)
    return difference


def _configured(strategy: ServerAppFedAvgM | ServerAppFedAdam) -> Any:
    if strategy.current_arrays is None:
        msg = f"{type(strategy).__name__} must have configured a round before it aggregates one"
        raise ValueError(msg)
    return strategy.current_arrays


def _record(names: Iterable[str], arrays: Iterable[NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord(dict(zip(names, map(Array, arrays), strict=True)))


class ServerFedAvgM(_ServerMomentum, server.FedAvgM):  # type: ignore[misc]  # Flower's types are not read
    """`flwr.server.strategy.FedAvgM`: the form ``lr_outside``.

    With `w` the server's parameters and `average` those of the clients, each round computes::

        v = server_momentum*v + (w - average)
        w = w - server_learning_rate*v

    Parameters
    ----------
    server_learning_rate : float, default 1.0
        At least 0. May be set between rounds.
    server_momentum : float, default 0.0
        In [0, 1). May be set between rounds.
    server_nesterov : bool, default False
        Step along ``(w - average) + server_momentum*v``, with the new `v`. Flower has no such option.
    **kwargs
        Those of Flower's class.

    Attributes
    ----------
    state : fast_momentum.State or None
        The velocities; None before the first update, and with a learning rate of 1 and no momentum, where Flower
        takes the average as it is.

    Raises
    ------
    AttributeError
        If Flower's class lacks an attribute that this one relies on.
    TypeError, ValueError
        As `fast_momentum.init`; from a round, as `fast_momentum.step`.

    Notes
    -----
    In float32 and float64 the results are Flower's, bit for bit. Flower forgets its momentum in round 1, which is the
    first one after each start of a server; this class keeps it.

    References
    ----------
    T. H. Hsu, H. Qi and M. Brown, Measuring the effects of non-identical data distribution for federated visual
    classification, 2019, https://arxiv.org/abs/1909.06335.

    Examples
    --------
    >>> import numpy as np
    >>> from flwr.common import ndarrays_to_parameters
    >>> from fast_momentum.adapters.flower import ServerFedAvgM
    >>> parameters = ndarrays_to_parameters([np.zeros((3, 2), np.float32), np.zeros(2, np.float32)])
    >>> strategy = ServerFedAvgM(initial_parameters=parameters, server_momentum=0.9, server_nesterov=True)
    >>> strategy
    FedAvgM(accept_failures=True)
    """

    initial_parameters: Any
    _relies_on = ("initial_parameters", "inplace", "server_opt")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.inplace = False  # FedAvgM averages in another order than FedAvg does by default

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Average what the clients send, and step the server's parameters by it."""
        parameters, metrics = server.FedAvg.aggregate_fit(self, server_round, results, failures)
        if parameters is None or not self.server_opt:
            return parameters, metrics
        if self.initial_parameters is None:
            msg = f"{type(self).__name__} must have initial_parameters, not None"
            raise ValueError(msg)
        current, averages = map(parameters_to_ndarrays, (self.initial_parameters, parameters))
        self.initial_parameters = ndarrays_to_parameters(self._updated(server_round, current, averages))
        return self.initial_parameters, metrics


class ServerAppFedAvgM(_ServerMomentum, serverapp.FedAvgM):  # type: ignore[misc]  # Flower's types are not read
    """`flwr.serverapp.strategy.FedAvgM`: the form ``lr_outside``.

    What `ServerFedAvgM` says holds here, too.

    Examples
    --------
    >>> from fast_momentum.adapters.flower import ServerAppFedAvgM
    >>> strategy = ServerAppFedAvgM(server_learning_rate=0.5, server_momentum=0.9)
    >>> strategy.state is None
    True
    """

    current_arrays: Any
    _relies_on = ("current_arrays", "server_opt")

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """Average what the nodes send, and step the server's arrays by it."""
        arrays, metrics = serverapp.FedAvg.aggregate_train(self, server_round, replies)
        if arrays is None or not self.server_opt:
            return arrays, metrics
        current = _configured(self)
        names = list(arrays)
        averages = arrays.to_numpy_ndarrays()
        arrays.clear()  # large, and not needed twice
        self.current_arrays = _record(
            names, self._updated(server_round, current.to_numpy_ndarrays(), averages)
        )
        return self.current_arrays, metrics


class ServerFedAdam(_ServerAdam, server.FedAdam):  # type: ignore[misc]  # Flower's types are not read
    """`flwr.server.strategy.FedAdam`: Adam, in a form of Flower's own.

    With `w` the server's parameters and `average` those of the clients, round ``r``, from 1, computes::

        d = w - average
        m = beta_1*m + (1 - beta_1)*d
        s = beta_2*s + (1 - beta_2)*d*d
        w = w - eta*sqrt(1 - beta_2**(r + 1))/(1 - beta_1**(r + 1))*m / (sqrt(s) + tau)

    It is the form ``folded``, but for the exponents, which are those of the round to come.

    Parameters
    ----------
    eta : float, default 0.1
        At least 0. May be set between rounds, as the following ones.
    beta_1, beta_2 : float, default 0.9 and 0.99
        In [0, 1).
    tau : float, default 1e-9
        At least 0.
    **kwargs
        Those of Flower's class.

    Attributes
    ----------
    state : fast_momentum.State or None
        Both moments, in the form ``uncorrected``, with the size of the last step as `lr`; None before the first update.

    Raises
    ------
    AttributeError
        If Flower's class lacks an attribute that this one relies on.
    TypeError, ValueError
        As `fast_momentum.adam`; from a round, as `fast_momentum.step`.

    Notes
    -----
    In float64 the results are Flower's, bit for bit, but for the sign of a zero. Flower makes float64 of parameters in
    float32; here they stay float32.

    References
    ----------
    S. J. Reddi et al., Adaptive federated optimization, ICLR 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from flwr.common import ndarrays_to_parameters
    >>> from fast_momentum.adapters.flower import ServerFedAdam
    >>> parameters = ndarrays_to_parameters([np.zeros((3, 2), np.float32), np.zeros(2, np.float32)])
    >>> strategy = ServerFedAdam(initial_parameters=parameters, eta=0.01)
    >>> strategy
    FedAdam(accept_failures=True)
    """

    current_weights: list[NDArray[Any]]
    _relies_on = ("current_weights", "eta", "beta_1", "beta_2", "tau")

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Average what the clients send, and step the server's parameters by it."""
        parameters, metrics = server.FedAvg.aggregate_fit(self, server_round, results, failures)
        if parameters is None:
            return parameters, metrics
        averages = parameters_to_ndarrays(parameters)
        self.current_weights = self._updated(server_round, self.current_weights, averages)
        return ndarrays_to_parameters(self.current_weights), metrics


class ServerAppFedAdam(_ServerAdam, serverapp.FedAdam):  # type: ignore[misc]  # Flower's types are not read
    """`flwr.serverapp.strategy.FedAdam`: Adam, in a form of Flower's own, with a default for `tau` of 1e-3.

    What `ServerFedAdam` says holds here, too.

    Examples
    --------
    >>> from fast_momentum.adapters.flower import ServerAppFedAdam
    >>> strategy = ServerAppFedAdam(eta=0.01)
    >>> strategy.state is None
    True
    """

    current_arrays: dict[str, NDArray[Any]] | None
    _relies_on = ("current_arrays", "eta", "beta_1", "beta_2", "tau")

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """Average what the nodes send, and step the server's arrays by it."""
        arrays, metrics = serverapp.FedAvg.aggregate_train(self, server_round, replies)
        if arrays is None:
            return arrays, metrics
        current = _configured(self)
        if arrays.keys() != current.keys():
            msg = f"replies must have the arrays of the round, {list(current)}, not {list(arrays)}"
            raise ValueError(msg)
        averages = [arrays[name].numpy() for name in current]
        arrays.clear()  # large, and not needed twice
        return _record(current, self._updated(server_round, list(current.values()), averages)), metrics
