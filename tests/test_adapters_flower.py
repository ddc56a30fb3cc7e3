"""Flower's FedAvgM and ours, handed the same replies. No server and no simulation is started."""

from __future__ import annotations

import doctest
import json
from typing import Any
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
SHAPES: list[tuple[int, ...]] = [(17, 5), (5,), (2, 3, 4), ()]


class ServerRounds:
    """Rounds of a strategy of flwr.server."""

    ours, theirs = adapter.ServerFedAvgM, server.FedAvgM

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

    @classmethod
    def begin(cls, kind: Any, arrays: list[Any], **options: Any) -> ServerRounds:
        strategy = kind(fraction_train=0.0, **options)
        grid = MagicMock()
        grid.get_node_ids.return_value = [1, 2]
        strategy.configure_train(1, cls.record(arrays), ConfigRecord(), grid)
        return cls(strategy)

    @staticmethod
    def record(arrays: list[Any]) -> ArrayRecord:
        return ArrayRecord({f"layer.{k}": adapter.Array(np.asarray(array)) for k, array in enumerate(arrays)})

    def aggregate(self, server_round: int, replies: list[tuple[list[Any], int]]) -> list[Any]:
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
        return list(record.to_numpy_ndarrays())

    def empty(self) -> Any:
        return self.strategy.aggregate_train(1, [])


KINDS = [ServerRounds, ServerAppRounds]


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


@pytest.mark.parametrize("kind", KINDS)
def test_integers_become_floats_as_they_do_there(kind: Any, rng: np.random.Generator) -> None:
    """A counter of batches, as PyTorch's normalisation has one, is averaged as well."""
    arrays: list[Any] = [np.ones(3, np.float32), np.array(4)]
    pair = [kind.begin(each, arrays, server_momentum=0.9) for each in (kind.ours, kind.theirs)]
    for server_round in range(1, 4):
        sent = [([np.full(3, n, np.float32), np.array(4 + n)], n) for n in (1, 2)]
        results = [rounds.aggregate(server_round, sent) for rounds in pair]
        assert_bits(*results)
        assert results[0][1].dtype == np.float64


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_keeps_the_momentum(kind: Any, nesterov: bool, rng: np.random.Generator) -> None:
    options = {"server_momentum": 0.9, "server_learning_rate": 0.5}
    extra = {"server_nesterov": True} if nesterov else {}
    rounds = kind.begin(kind.ours, start(rng, np.float32), **options, **extra)
    assert rounds.strategy.state_dict() is None
    arrays = start(rng, np.float32)
    for server_round in range(1, 4):
        arrays = rounds.aggregate(server_round, replies(arrays, rng))
    saved = rounds.strategy.state_dict()
    velocity = {path: (v.tolist(), v.shape) for path, v in saved["velocity"].items()}
    again = json.loads(json.dumps({**saved, "velocity": velocity}))
    again["velocity"] = {p: np.array(v, np.float32).reshape(s) for p, (v, s) in again["velocity"].items()}
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


@pytest.mark.parametrize("kind", KINDS)
def test_every_update_is_ours_and_nothing_comes_of_nothing(
    kind: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    calls = []
    monkeypatch.setattr(fm, "step", lambda *arguments, step=fm.step: (calls.append(1), step(*arguments)))
    arrays = start(rng, np.float32)
    rounds = kind.begin(kind.ours, arrays, server_momentum=0.9)
    assert isinstance(rounds.strategy, kind.theirs)
    assert rounds.empty()[0] is None
    assert rounds.strategy.state is None
    for server_round in (1, 2):
        rounds.aggregate(server_round, replies(arrays, rng))
    assert len(calls) == 2


def test_the_bytes_of_the_average_are_freed(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    kept: list[ArrayRecord] = []
    original = serverapp.FedAvg.aggregate_train

    def aggregate_train(*args: Any) -> Any:
        record, metrics = original(*args)
        kept.append(record)
        return record, metrics

    monkeypatch.setattr(serverapp.FedAvg, "aggregate_train", aggregate_train)
    arrays = start(rng, np.float32)
    rounds = ServerAppRounds.begin(adapter.ServerAppFedAvgM, arrays, server_momentum=0.9)
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
    rounds = kind.begin(kind.ours, [np.ones(3, np.complex64)], server_momentum=0.9)
    with pytest.raises(TypeError, match="complex64"):
        rounds.aggregate(1, [([np.zeros(3, np.float16)], 1)])


@pytest.mark.parametrize("kind", KINDS)
def test_an_interface_that_has_moved(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    original = kind.theirs.__init__

    def without(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        del self.server_opt

    monkeypatch.setattr(kind.theirs, "__init__", without)
    with pytest.raises(AttributeError) as info:
        kind.ours(server_momentum=0.9)
    assert "must have the attribute server_opt of Flower's FedAvgM, as in 1." in str(info.value)


def test_without_flower() -> None:
    printed = run_python("""
        import sys
        sys.modules["flwr"] = None
        try:
            from fast_momentum.adapters import flower
        except ImportError as error:
            print(error)
    """)
    assert (
        printed.strip() == "fast_momentum.adapters.flower must have flwr; pip install 'fast-momentum[flower]'"
    )


def test_docstrings() -> None:
    results = doctest.testmod(adapter)
    assert results.failed == 0
    assert results.attempted > 0
