"""Flower's `FedAvgM`, with the server's update made by `fast_momentum.step`.

Flower has two strategies of that name, and here is one for each: `ServerAppFedAvgM` for `flwr.serverapp.strategy`,
`ServerFedAvgM` for `flwr.server.strategy`. Sampling, averaging and metrics are Flower's. They rely on attributes that
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
    _message = "fast_momentum.adapters.flower must have flwr; pip install 'fast-momentum[flower]'"
    raise ImportError(_message) from error

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TESTED", "ServerAppFedAvgM", "ServerFedAvgM"]

TESTED = ("1.41.0", "1.42.0")
"""The versions of Flower with which the tests have run."""


class _ServerMomentum:
    """The update of the server, the same for both."""

    _relies_on: tuple[str, ...]
    server_learning_rate: float
    server_momentum: float

    def __init__(self, *args: Any, server_nesterov: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in self._relies_on:
            if not hasattr(self, name):
                msg = (
                    f"{type(self).__name__} must have the attribute {name} of Flower's FedAvgM, as in {TESTED[-1]}, "
                    f"not as in {version('flwr')}; install a version that was tested"
                )
                raise AttributeError(msg)
        self.server_nesterov = server_nesterov
        self.state: fm.State | None = None
        self._init([])  # so that a bad option is refused now

    def _init(self, params: list[NDArray[Any]]) -> fm.State:
        return fm.init(
            params,
            lr=self.server_learning_rate,
            momentum=self.server_momentum,
            nesterov=self.server_nesterov,
        )

    def _updated(self, params: list[NDArray[Any]], averages: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The parameters after a step along what they are above the average of the clients."""
        # Averages of integers are floats, and so is what comes of them.
        params = [np.asarray(p, np.result_type(p, a)) for p, a in zip(params, averages, strict=True)]
        for p, a in zip(params, averages, strict=True):
            np.subtract(p, a, out=a)
        if self.state is None:
            self.state = self._init(params)
        self.state.lr, self.state.momentum = self.server_learning_rate, self.server_momentum
        fm.step(params, averages, self.state)
        return params

    def state_dict(self) -> dict[str, Any] | None:
        """Return `fast_momentum.State.state_dict`, to be saved with the parameters; None before the first update."""
        return None if self.state is None else self.state.state_dict()

    def load_state_dict(self, saved: dict[str, Any] | None) -> None:
        """Go on with a saved momentum, in place of starting from zero.

        The learning rate and the momentum remain those of this strategy.

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
        state.nesterov = self.server_nesterov
        self.state = state


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
        self.initial_parameters = ndarrays_to_parameters(self._updated(current, averages))
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
        if self.current_arrays is None:
            msg = f"{type(self).__name__} must have configured a round before it aggregates one"
            raise ValueError(msg)
        names = list(arrays)
        averages = arrays.to_numpy_ndarrays()
        arrays.clear()  # large, and not needed twice
        updated = self._updated(self.current_arrays.to_numpy_ndarrays(), averages)
        self.current_arrays = ArrayRecord(dict(zip(names, map(Array, updated), strict=True)))
        return self.current_arrays, metrics
