"""Flower's FedAvgM and FedAdam and ours, handed the same replies. No server and no simulation is started."""

from __future__ import annotations

import doctest
import json
from typing import Any, ClassVar
from unittest.mock import MagicMock

import numpy as np
import pytest

import fast_momentum as fm
from helpers import assert_bits, random_like, run_python

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import strategy as server
from flwr.serverapp import strategy as serverapp

from fast_momentum.adapters import flower as adapter

OPTIONS: list[dict[str, Any]] = [
    {"server_momentum": 0.9},
    {"server_momentum": 0.5, "server_learning_rate": 0.3},
    {"server_learning_rate": 0.3},
    {},
]
ADAMS_OPTIONS: list[dict[str, Any]] = [
    {},
    {"eta": 0.01, "beta_1": 0.5, "beta_2": 0.75, "tau": 0.125},
    {"eta": 0.3, "beta_1": 0.0, "beta_2": 0.999},
]
SHAPES: list[tuple[int, ...]] = [(17, 5), (5,), (2, 3, 4), ()]


class ServerRounds:
    """Rounds of a strategy of flwr.server."""

    ours, theirs = adapter.ServerFedAvgM, server.FedAvgM
    options: ClassVar[dict[str, Any]] = {"server_momentum": 0.9, "server_learning_rate": 0.5}
    relied_on = "server_opt"

    def __init__(self, strategy: Any) -> None:
        self.strategy = strategy

    @classmethod
    def begin(cls, kind: Any, arrays: list[Any], **options: Any) -> ServerRounds:
        return cls(kind(initial_parameters=ndarrays_to_parameters(arrays), **options))

    def aggregate(self, server_round: int, replies: list[tuple[list[Any], int]]) -> list[Any]:
        results = [
            (MagicMock(), FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), n, {}))
            for arrays, n in replies
        ]
        parameters, metrics = self.strategy.aggregate_fit(server_round, results, [])
        assert metrics == {}
        return parameters_to_ndarrays(parameters)

    def empty(self) -> Any:
        return self.strategy.aggregate_fit(1, [], [])


class ServerAppRounds(ServerRounds):
    """Rounds of a strategy of flwr.serverapp."""

    ours, theirs = adapter.ServerAppFedAvgM, serverapp.FedAvgM
    arrays: list[Any] | None = None  # of the server

    @classmethod
    def begin(cls, kind: Any, arrays: list[Any], **options: Any) -> ServerRounds:
        rounds = cls(kind(fraction_train=0.0, **options))
        rounds.arrays = arrays
        return rounds

    def configure(self, server_round: int) -> None:
        grid = MagicMock()
        grid.get_node_ids.return_value = [1, 2]
        self.strategy.configure_train(server_round, self.record(self.arrays), ConfigRecord(), grid)

    @staticmethod
    def record(arrays: Any) -> ArrayRecord:
        return ArrayRecord({f"layer.{k}": adapter.Array(np.asarray(array)) for k, array in enumerate(arrays)})

    def aggregate(self, server_round: int, replies: list[tuple[list[Any], int]]) -> list[Any]:
        if self.arrays is not None:
            self.configure(server_round)
        messages = []
        for arrays, n in replies:
            content = RecordDict(
                {"arrays": self.record(arrays), "metrics": MetricRecord({"num-examples": n, "loss": 2.0})}
            )
            message = MagicMock(spec=Message)
            message.has_error.return_value, message.has_content.return_value = False, True
            message.content = content
            messages.append(message)
        record, metrics = self.strategy.aggregate_train(server_round, messages)
        assert metrics["loss"] == pytest.approx(2.0)
        assert list(record) == [f"layer.{k}" for k in range(len(record))]
        self.arrays = list(record.to_numpy_ndarrays())
        return self.arrays

    def empty(self) -> Any:
        return self.strategy.aggregate_train(1, [])


class _Adam:
    options: ClassVar[dict[str, Any]] = {"eta": 0.05, "beta_2": 0.9}
    relied_on = "tau"


class ServerAdamRounds(_Adam, ServerRounds):
    """Rounds of Adam in flwr.server."""

    ours, theirs = adapter.ServerFedAdam, server.FedAdam


class ServerAppAdamRounds(_Adam, ServerAppRounds):
    """Rounds of Adam in flwr.serverapp."""

    ours, theirs = adapter.ServerAppFedAdam, serverapp.FedAdam


KINDS = [ServerRounds, ServerAppRounds]
ADAMS = [ServerAdamRounds, ServerAppAdamRounds]


def replies(arrays: list[Any], rng: np.random.Generator) -> list[tuple[list[Any], int]]:
    """Three clients, with other numbers of examples, that have moved away from `arrays`."""
    return [
        ([np.asarray(a + 0.1 * random_like(np.shape(a), np.float64, rng), a.dtype) for a in arrays], n)
        for n in (10, 7, 32)
    ]


def start(rng: np.random.Generator, dtype: Any) -> list[Any]:
    return [random_like(shape, dtype, rng) for shape in SHAPES]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_rounds(kind: Any, options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> None:
    arrays = start(rng, dtype)
    pair = [kind.begin(each, arrays, **options) for each in (kind.ours, kind.theirs)]
    for server_round in range(1, 7):
        sent = replies(arrays, rng)
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        assert_bits(*results)
        assert results[0][0].dtype == dtype
        arrays = results[0]
    state = pair[0].strategy.state
    assert (state.step_count if state else 0) == (6 if options else 0)
    if "server_momentum" in options:
        assert_bits(list(state.velocity), [np.asarray(v) for v in pair[1].strategy.momentum_vector])


@pytest.mark.parametrize("options", ADAMS_OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ADAMS)
def test_rounds_of_adam(kind: Any, options: dict[str, Any], rng: np.random.Generator) -> None:
    arrays = start(rng, np.float64)
    pair = [kind.begin(each, arrays, **options) for each in (kind.ours, kind.theirs)]
    for server_round in range(1, 9):
        if server_round % 3 == 0:  # nobody replies
            for rounds in pair:
                assert rounds.empty()[0] is None
            continue
        if server_round == 7:
            for rounds in pair:
                rounds.strategy.eta = 0.02
        sent = replies(arrays, rng)
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        assert_bits(*results)
        arrays = results[0]
    (state, theirs) = pair[0].strategy.state, pair[1].strategy
    assert state.step_count == 6
    for moment, there in [
        ([-v for v in state.velocity], theirs.m_t),
        (list(state.second_moment), theirs.v_t),
    ]:
        assert_bits(moment, list(map(np.asarray, there.values() if isinstance(there, dict) else there)))


@pytest.mark.parametrize("kind", ADAMS)
def test_adam_keeps_float32(kind: Any, rng: np.random.Generator) -> None:
    arrays = start(rng, np.float32)
    pair = [kind.begin(each, arrays, eta=0.01) for each in (kind.ours, kind.theirs)]
    for server_round in range(1, 4):
        sent = replies(arrays, rng)
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
            assert (ours.dtype, theirs.dtype) == (np.float32, np.float64)
        arrays = results[0]


def test_nodes_that_send_other_arrays(rng: np.random.Generator) -> None:
    rounds = ServerAppAdamRounds.begin(adapter.ServerAppFedAdam, start(rng, np.float32))
    with pytest.raises(
        ValueError, match=r"replies must have the arrays of the round, \['layer.0', 'layer.1', .*, not"
    ):
        rounds.aggregate(1, [([np.zeros(3, np.float32)], 1)])
    rounds = ServerAppAdamRounds.begin(adapter.ServerAppFedAdam, [np.zeros((3, 1))])
    with pytest.raises(ValueError, match=r"the shapes that the server's have, \(3, 1\), not \(1, 3\)"):
        rounds.aggregate(1, [([np.zeros((1, 3))], 1)])


@pytest.mark.parametrize("kind", [*KINDS, *ADAMS])
def test_a_difference_is_of_the_wider_dtype(kind: Any, rng: np.random.Generator) -> None:
    """A server in float64, as Flower's Adam makes it, and clients in float32."""
    arrays = [random_like((50,), np.float64, rng)]
    pair = [kind.begin(each, arrays, **kind.options) for each in (kind.ours, kind.theirs)]
    for server_round in range(1, 4):
        sent = [([arrays[0].astype(np.float32) + np.float32(0.5)], 3)]
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        assert_bits(*results)


@pytest.mark.parametrize("kind", [*KINDS, *ADAMS])
def test_integers_become_floats_as_they_do_there(kind: Any, rng: np.random.Generator) -> None:
    """A counter of batches, as PyTorch's normalisation has one, is averaged as well."""
    arrays: list[Any] = [np.ones(3), np.array(4)]
    pair = [kind.begin(each, arrays, **kind.options) for each in (kind.ours, kind.theirs)]
    for server_round in range(1, 4):
        sent = [([np.full(3, n, float), np.array(4 + n)], n) for n in (1, 2)]
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        assert_bits(*results)
        assert results[0][1].dtype == np.float64


@pytest.mark.parametrize(
    ("kind", "extra"),
    [(kind, extra) for kind in KINDS for extra in ({}, {"server_nesterov": True})]
    + [(kind, {}) for kind in ADAMS],
)
def test_a_restart_keeps_the_momentum(kind: Any, extra: dict[str, Any], rng: np.random.Generator) -> None:
    options = kind.options
    rounds = kind.begin(kind.ours, start(rng, np.float32), **options, **extra)
    assert rounds.strategy.state_dict() is None
    arrays = start(rng, np.float32)
    for server_round in range(1, 4):
        arrays = rounds.aggregate(server_round, replies(arrays, rng))
    saved = rounds.strategy.state_dict()
    again = json.loads(json.dumps(saved, default=lambda v: [v.tolist(), v.shape]))
    for name in {"velocity", "second_moment"} & again.keys():
        again[name] = {p: np.array(v, np.float32).reshape(shape) for p, (v, shape) in again[name].items()}
    restarted = kind.begin(kind.ours, arrays, **options, **extra)
    restarted.strategy.load_state_dict(again)
    forgetful = kind.begin(kind.ours, arrays, **options, **extra)
    forgetful.strategy.load_state_dict(None)
    for server_round in range(1, 4):
        sent = replies(arrays, rng)
        arrays = rounds.aggregate(server_round + 3, sent)
        assert_bits(restarted.aggregate(server_round, sent), arrays)
        assert not np.array_equal(forgetful.aggregate(server_round, sent)[0], arrays[0])
    assert restarted.strategy.state.step_count == 6


def test_a_restart_with_other_hyperparameters(rng: np.random.Generator) -> None:
    arrays = start(rng, np.float32)
    first = ServerRounds.begin(adapter.ServerFedAvgM, arrays, server_momentum=0.9)
    first.aggregate(1, replies(arrays, rng))
    second = ServerRounds.begin(
        adapter.ServerFedAvgM, arrays, server_momentum=0.5, server_learning_rate=0.1, server_nesterov=True
    )
    second.strategy.load_state_dict(first.strategy.state_dict())
    second.aggregate(1, replies(arrays, rng))
    state = second.strategy.state
    assert (state.lr, state.momentum, state.nesterov, state.step_count) == (0.1, 0.5, True, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_nesterov_and_a_schedule(kind: Any, rng: np.random.Generator) -> None:
    w = random_like((5, 4), np.float64, rng)
    rounds = kind.begin(kind.ours, [w], server_momentum=0.9, server_nesterov=True)
    v = np.zeros_like(w)
    for server_round in range(1, 5):
        lr = rounds.strategy.server_learning_rate = 1 / server_round
        average = random_like(w.shape, np.float64, rng)
        (result,) = rounds.aggregate(server_round, [([average], 8)])
        d = w - average
        v = 0.9 * v + d
        w = w - lr * (d + 0.9 * v)
        np.testing.assert_array_equal(result, w)


@pytest.mark.parametrize("kind", [*KINDS, *ADAMS])
def test_every_update_is_ours_and_nothing_comes_of_nothing(
    kind: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    calls = []
    monkeypatch.setattr(fm, "step", lambda *arguments, step=fm.step: (calls.append(1), step(*arguments)))
    arrays = start(rng, np.float32)
    rounds = kind.begin(kind.ours, arrays, **kind.options)
    assert isinstance(rounds.strategy, kind.theirs)
    assert rounds.empty()[0] is None
    assert rounds.strategy.state is None
    for server_round in (1, 2):
        rounds.aggregate(server_round, replies(arrays, rng))
    assert len(calls) == 2


@pytest.mark.parametrize("kind", [ServerAppRounds, ServerAppAdamRounds])
def test_the_bytes_of_the_average_are_freed(
    kind: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    kept: list[ArrayRecord] = []
    original = serverapp.FedAvg.aggregate_train

    def aggregate_train(*args: Any) -> Any:
        record, metrics = original(*args)
        kept.append(record)
        return record, metrics

    monkeypatch.setattr(serverapp.FedAvg, "aggregate_train", aggregate_train)
    arrays = start(rng, np.float32)
    rounds = kind.begin(kind.ours, arrays, **kind.options)
    rounds.aggregate(1, replies(arrays, rng))
    assert [len(record) for record in kept] == [0]


def test_failures_that_are_not_accepted() -> None:
    strategy = adapter.ServerFedAvgM(
        initial_parameters=ndarrays_to_parameters([np.ones(2)]), server_momentum=0.9, accept_failures=False
    )
    fit = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([np.zeros(2)]), 1, {})
    assert strategy.aggregate_fit(1, [(MagicMock(), fit)], [RuntimeError()]) == (None, {})
    assert strategy.state is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_refused(kind: Any, rng: np.random.Generator) -> None:
    for options, message in [
        ({"server_momentum": 1.0}, "momentum must"),
        ({"server_learning_rate": -1.0}, "lr must"),
        ({"server_nesterov": True}, "nesterov"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind.ours(**options)
    with pytest.raises(ValueError, match="must have (initial_parameters|configured)"):
        kind(kind.ours(server_momentum=0.9)).aggregate(1, replies(start(rng, np.float32), rng))
    rounds = kind.begin(kind.ours, [np.ones(3, np.longdouble)], server_momentum=0.9)
    with pytest.raises(TypeError, match=str(np.dtype(np.longdouble))):
        rounds.aggregate(1, [([np.zeros(3, np.float16)], 1)])


@pytest.mark.parametrize("kind", KINDS)
def test_complex_arrays_and_those_of_16_bits(kind: Any, rng: np.random.Generator) -> None:
    z = [(random_like(5, np.float64, rng) + 1j * random_like(5, np.float64, rng)).astype(np.complex64)]
    pair = [kind.begin(each, z, server_momentum=0.9) for each in (kind.ours, kind.theirs)]
    for server_round in (1, 2, 3):
        sent = [([a * np.complex64(0.9 - 0.1j) for a in z], n) for n in (10, 7)]
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        assert_bits(*results)
        z = results[0]
    half = [np.ones(3, np.float16)]
    rounds = kind.begin(kind.ours, half, server_momentum=0.9)
    assert_bits(rounds.aggregate(1, [([a / 2 for a in half], 1)]), [a / 2 for a in half])


@pytest.mark.parametrize("kind", ADAMS)
def test_what_adam_refuses(kind: Any) -> None:
    for options, message in [
        ({"eta": -1.0}, "lr must"),
        ({"beta_1": 1.0}, "beta1 must"),
        ({"beta_2": -0.1}, "beta2 must"),
        ({"tau": -1.0}, "eps must"),
    ]:
        with pytest.raises(ValueError, match=message):
            kind.begin(kind.ours, [np.ones(3)], **options)


def test_adam_has_to_be_configured() -> None:
    with pytest.raises(ValueError, match="ServerAppFedAdam must have configured"):
        ServerAppAdamRounds(adapter.ServerAppFedAdam()).aggregate(1, [([np.ones(3)], 1)])


@pytest.mark.parametrize("kind", [*KINDS, *ADAMS])
def test_an_interface_that_has_moved(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = kind.theirs.__init__

    def without(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        delattr(self, kind.relied_on)

    monkeypatch.setattr(kind.theirs, "__init__", without)
    with pytest.raises(AttributeError) as info:
        kind.begin(kind.ours, [np.ones(3)], **kind.options)
    expected = f"must have the attribute {kind.relied_on} of Flower's {kind.theirs.__name__}, as in 1."
    assert expected in str(info.value)


def test_without_flower() -> None:
    printed = run_python("""
        import sys
        sys.modules["flwr"] = None
        try:
            from fast_momentum.adapters import flower
        except ImportError as error:
            print(error)
    """)
    assert printed.strip() == "fast_momentum.adapters.flower must have flwr; pip install flwr"


def test_docstrings() -> None:
    results = doctest.testmod(adapter)
    assert results.failed == 0
    assert results.attempted > 0
