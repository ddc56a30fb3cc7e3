"""PennyLane's optimizers and ours on the same objectives."""

from __future__ import annotations

import doctest
import pickle
from typing import Any

import numpy  # noqa: ICN001 - np is PennyLane's
import pytest

from helpers import assert_bits, run_python

qml = pytest.importorskip("pennylane")

from pennylane import numpy as np

from fast_momentum.adapters import pennylane as adapter

NAMES = ["MomentumOptimizer", "NesterovMomentumOptimizer", "RMSPropOptimizer", "AdamOptimizer"]
# PennyLane divides by the root before it multiplies.
TO_ROUNDING = ["RMSPropOptimizer"]

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    *(
        (name, options)
        for name in NAMES[:2]
        for options in ({"stepsize": 0.3, "momentum": 0.5}, {"momentum": 0.0})
    ),
    ("RMSPropOptimizer", {"stepsize": 0.1, "decay": 0.5, "eps": 0.01}),
    ("AdamOptimizer", {"stepsize": 0.1, "beta1": 0.5, "beta2": 0.75, "eps": 0.01}),
]


SET: dict[str, dict[str, float]] = {
    **{name: {"stepsize": 0.002, "momentum": 0.7} for name in NAMES[:2]},
    "RMSPropOptimizer": {"stepsize": 0.002, "decay": 0.7, "eps": 0.01},
    "AdamOptimizer": {"stepsize": 0.002, "beta1": 0.7, "beta2": 0.8, "eps": 0.01},
}


def pair(name: str, *args: Any, **options: Any) -> list[Any]:
    return [getattr(module, name)(*args, **options) for module in (adapter, qml)]


def circuit() -> Any:
    device = qml.device("default.qubit", wires=2)

    @qml.qnode(device)
    def cost(angles: Any, shift: Any, data: Any = 0.3) -> Any:
        qml.RX(angles[0, 0], wires=0)
        qml.RY(angles[0, 1] * data, wires=1)
        qml.CNOT(wires=[0, 1])
        qml.RZ(angles[1, 0] + shift, wires=1)
        qml.RX(angles[1, 1], wires=1)
        return qml.expval(qml.PauliZ(1))

    return cost


def quartic(x: Any, y: Any = 0.5) -> Any:
    return np.sum((x - 1.5) ** 4) + np.sum(np.sin(x * y))


def assert_tensors(ours: Any, theirs: Any, name: str = "") -> None:
    """Of the optimizer `name`, whose results may agree to rounding alone."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, (list, tuple)):
        for a, b in zip(ours, theirs, strict=True):
            assert_tensors(a, b, name)
    elif isinstance(theirs, numpy.ndarray):
        assert getattr(ours, "requires_grad", None) == getattr(theirs, "requires_grad", None)
        assert_arrays(numpy.asarray(ours), numpy.asarray(theirs), name)
    else:
        assert ours == pytest.approx(theirs, rel=1e-12) if name in TO_ROUNDING else ours == theirs


def assert_arrays(ours: Any, theirs: Any, name: str) -> None:
    if name in TO_ROUNDING:
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)
    else:
        assert_bits(ours, theirs)


def assert_accumulations(ours: Any, theirs: Any, name: str) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        assert ours["t"] == theirs["t"]
        ours, theirs = ([*each["fm"], *each["sm"]] for each in (ours, theirs))
    for a, b in zip(ours, theirs, strict=True):
        assert_arrays(numpy.asarray(a, float), numpy.asarray(b, float), name)


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_a_quantum_circuit(name: str, options: dict[str, Any]) -> None:
    cost = circuit()
    angles = np.array([[0.1, 0.7], [1.3, -0.4]], requires_grad=True)
    arguments = [(angles, np.array(0.2, requires_grad=True))] * 2
    optimizers = pair(name, **options)
    for _ in range(15):
        results = [
            opt.step_and_cost(cost, *args, data=0.7) for opt, args in zip(optimizers, arguments, strict=True)
        ]
        assert_tensors(*results, name)
        arguments = [new for new, _ in results]
    assert not numpy.array_equal(arguments[0][0], angles)


@pytest.mark.parametrize("stepsize", [0.01, 0.002])
@pytest.mark.parametrize("x0", [0.4, [1.0, -2.0, 0.0], numpy.arange(6.0).reshape(2, 3).T], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_one_argument(name: str, x0: Any, stepsize: float) -> None:
    x: list[Any] = [np.array(x0, requires_grad=True)] * 2
    optimizers = pair(name, stepsize)
    for t in range(12):
        x = [opt.step(quartic, p, y=0.7) for opt, p in zip(optimizers, x, strict=True)]
        assert_tensors(*x, name)
        assert_accumulations(*(opt.accumulation for opt in optimizers), name)
        if t == 5:
            for opt in optimizers:
                for hyperparameter, value in SET[name].items():
                    setattr(opt, hyperparameter, value)


@pytest.mark.parametrize("name", NAMES)
def test_the_old_arguments_stay(name: str) -> None:
    x = np.array([1.0, 2.0], requires_grad=True)
    opt = getattr(adapter, name)()
    history = [x]
    for _ in range(3):
        history.append(opt.step(quartic, history[-1]))
    assert x.tolist() == [1.0, 2.0]
    assert len({tuple(p.tolist()) for p in history}) == 4


@pytest.mark.parametrize("name", NAMES)
def test_what_is_trainable_may_change(name: str) -> None:
    def cost(a: Any, data: Any, b: Any) -> Any:
        return quartic(a) + quartic(b) * np.sum(data)

    optimizers = pair(name)
    arguments: list[Any] = [[np.array([0.1, 0.2], requires_grad=True), numpy.ones(3), np.array(1.0)]] * 2
    for t in range(9):
        results = []
        for opt, (a, _, b) in zip(optimizers, arguments, strict=True):
            a, b = np.array(a, requires_grad=t % 3 != 1), np.array(b, requires_grad=t % 3 != 2)
            results.append(opt.step(cost, a, np.ones(t + 1, requires_grad=False), b))
        assert_tensors(*results, name)
        assert_accumulations(*(opt.accumulation for opt in optimizers), name)
        arguments = results


@pytest.mark.parametrize("name", NAMES)
def test_grad_fn(name: str) -> None:
    def gradient(x: Any, y: Any) -> Any:
        return 2 * x, 3 * y, "more than needed"

    arguments: list[Any] = [[np.array([1, 2], requires_grad=True), np.array(1.0, requires_grad=True)]] * 2
    optimizers = pair(name)
    for _ in range(4):  # the integers become floats
        results = [
            opt.step_and_cost(lambda x, y: np.sum(x) + y, *args, grad_fn=gradient)
            for opt, args in zip(optimizers, arguments, strict=True)
        ]
        assert_tensors(*results, name)
        arguments = [new for new, _ in results]


@pytest.mark.parametrize("grad_dtype", [numpy.float32, numpy.float64])
def test_float32(grad_dtype: Any) -> None:
    x: list[Any] = [np.array([1.0, -2.5], dtype=numpy.float32, requires_grad=True)] * 2
    optimizers = pair("MomentumOptimizer", 0.03)
    for _ in range(5):
        x = [
            opt.step(None, p, grad_fn=lambda x: (x**3).astype(grad_dtype))
            for opt, p in zip(optimizers, x, strict=True)
        ]
        assert_tensors(*x)
        assert x[0].dtype == grad_dtype


@pytest.mark.parametrize("name", ["RMSPropOptimizer", "AdamOptimizer"])
def test_float32_stays_float32(name: str) -> None:
    x = np.array([1.0, -2.5], dtype=numpy.float32, requires_grad=True)
    ours, theirs = (opt.step(None, x, grad_fn=lambda x: x**3) for opt in pair(name))
    assert ours.dtype == numpy.float32
    assert theirs.dtype == (numpy.float64 if name == "AdamOptimizer" else numpy.float32)
    numpy.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_reset_pickle_and_moving_the_accumulation(name: str) -> None:
    ours, theirs = pair(name)
    assert ours.accumulation is None
    x = [np.array([0.5, 3.0], requires_grad=True), np.array(0.25, requires_grad=True)]
    for _ in range(4):
        x, other = ours.step(quartic, *x), theirs.step(quartic, *x)
        assert_tensors(x, other, name)
    loaded = pickle.loads(pickle.dumps(ours))
    into_ours, into_theirs = pair(name)
    into_ours.accumulation = theirs.accumulation
    into_theirs.accumulation = ours.accumulation
    expected = theirs.step(quartic, *x)
    for opt in (ours, loaded, into_ours, into_theirs):
        assert_tensors(opt.step(quartic, *x), expected, name)
    for opt in (ours, theirs):
        opt.reset()
        assert opt.accumulation is None
    assert_tensors(ours.step(quartic, *x), theirs.step(quartic, *x), name)


def test_every_step_is_ours_and_an_optimizer_of_pennylane(monkeypatch: pytest.MonkeyPatch) -> None:
    import fast_momentum as fm

    calls = []
    monkeypatch.setattr(fm, "step", lambda *arguments, step=fm.step: (calls.append(1), step(*arguments)))
    for name in NAMES:
        opt = getattr(adapter, name)()
        assert isinstance(opt, getattr(qml, name))
        opt.step(quartic, np.array(1.0, requires_grad=True), np.array([2.0], requires_grad=True))
    assert len(calls) == 2 * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_step_is_not_counted(name: str) -> None:
    x = np.array([0.5, -1.0], requires_grad=True)
    ours, expected = getattr(adapter, name)(), getattr(adapter, name)()
    x = y = ours.step(quartic, x)
    expected.accumulation = ours.accumulation
    for _ in range(3):
        with pytest.raises(ValueError, match="shape"):
            ours.step(None, x, grad_fn=lambda x: np.ones(3))
    for _ in range(2):
        x, y = ours.step(quartic, x), expected.step(quartic, y)
        assert_tensors(x, y)


def test_adams_moments_have_names() -> None:
    optimizers = pair("AdamOptimizer")
    assert [(opt.t, opt.fm, opt.sm) for opt in optimizers] == [(None, None, None)] * 2
    for opt in optimizers:
        opt.step(quartic, np.array([0.5, -1.0], requires_grad=True), np.array(2.0, requires_grad=False))
    ours, theirs = optimizers
    assert ours.t == theirs.t == 1
    assert_accumulations([*ours.fm, *ours.sm], [*theirs.fm, *theirs.sm], "AdamOptimizer")


def test_a_published_case() -> None:
    """From PennyLane's own tests."""
    opt = adapter.MomentumOptimizer(0.1, momentum=0.5)
    x = np.array([0.0, 30.0, 6.0, -7.0, 800.0], requires_grad=True)
    for gradient, expected in [
        ([40.0, -4.0, 12.0, -17.0, 400.0], [-4.0, 30.4, 4.8, -5.3, 760.0]),
        ([40.0, 26.0, 18.0, -24.0, 1200.0], [-10.0, 28.0, 2.4, -2.05, 620.0]),
    ]:
        (x,) = opt.apply_grad((np.array(gradient),), (x,))
        numpy.testing.assert_allclose(x, expected, atol=1e-5)


def test_what_is_refused() -> None:
    x = np.array([1.0, 2.0], requires_grad=True)
    for name, options, message in [
        ("MomentumOptimizer", {"stepsize": -0.1}, "lr must"),
        ("MomentumOptimizer", {"momentum": 1.0}, "momentum must"),
        ("RMSPropOptimizer", {"decay": 1.0}, "rho must"),
        ("AdamOptimizer", {"beta2": 1.0}, "beta2 must"),
        ("AdamOptimizer", {"eps": -1.0}, "eps must"),
    ]:
        with pytest.raises(ValueError, match=message):
            getattr(adapter, name)(**options).step(quartic, x)
    with pytest.raises(TypeError, match=r"args\[0\] must be real, not complex128; give"):
        adapter.MomentumOptimizer().step(None, x + 1j, grad_fn=lambda x: x)


def test_without_pennylane() -> None:
    printed = run_python("""
        import sys
        sys.modules["pennylane"] = None
        try:
            from fast_momentum.adapters import pennylane
        except ImportError as error:
            print(error)
    """)
    assert printed.strip() == ("fast_momentum.adapters.pennylane must have PennyLane; pip install pennylane")


def test_docstrings() -> None:
    results = doctest.testmod(adapter)
    assert results.failed == 0
    assert results.attempted > 0
