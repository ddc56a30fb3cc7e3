"""Gradients of JAX as arrays, without a copy."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from helpers import least_squares, numerical_gradient, run_python

jax = pytest.importorskip("jax")
import jax.numpy as jnp

import fast_momentum.adapters.jax

adapter = fast_momentum.adapters.jax


def test_gradients_share_memory_and_keep_their_containers() -> None:
    tree = {"a": [jnp.ones((2, 3)), (jnp.zeros(()), None)], "b": jnp.arange(4.0)}
    arrays = adapter.grads(tree)
    assert isinstance(arrays["a"][1], tuple)
    assert arrays["a"][1][1] is None
    assert arrays["a"][1][0].shape == ()
    for array, theirs in [(arrays["a"][0], tree["a"][0]), (arrays["b"], tree["b"])]:
        assert array.ctypes.data == theirs.unsafe_buffer_pointer()
        assert not array.flags.writeable


def test_a_training_loop() -> None:
    """The parameters are NumPy's; None in the place of a gradient skips its array."""
    gradient = jax.jit(jax.grad(lambda p: ((p["w"] - 3) ** 2).sum() + p["frozen"].sum()))
    params = {"w": np.zeros(1000, np.float32), "frozen": np.ones(2, np.float32)}
    state = fm.init(params, lr=0.05, momentum=0.5)
    for _ in range(100):
        grads: dict[str, Any] = adapter.grads(gradient(jax.tree.map(np.copy, params)))
        fm.step(params, {**grads, "frozen": None}, state)
    np.testing.assert_allclose(params["w"], 3, rtol=1e-3)
    assert params["frozen"].tolist() == [1, 1]


def test_the_gradient_of_a_complex_array_is_the_conjugate_of_what_a_step_takes(
    rng: np.random.Generator,
) -> None:
    """df/dx - i df/dy, as docs/howto/images.md says: with it as it is, the steps leave the minimum."""
    with jax.enable_x64(True):
        matrix, data, solution = least_squares(rng)
        gradient = jax.jit(jax.grad(lambda z: (jnp.abs(matrix @ z - data) ** 2).sum()))
        z = np.zeros(5, complex)
        expected = numerical_gradient(lambda z: np.sum(abs(matrix @ z - data) ** 2), z)
        np.testing.assert_allclose(np.conj(adapter.grads(gradient(z))), expected, rtol=1e-5, atol=1e-6)
        for function, ends_there in [(np.conj, True), (np.asarray, False)]:
            z = np.zeros(5, complex)
            state = fm.init(z, lr=0.5 / np.linalg.norm(matrix, 2) ** 2, momentum=0.5)
            for _ in range(1000):
                fm.step(z, function(adapter.grads(gradient(z.copy()))), state)
            assert np.allclose(z, solution, rtol=1e-9) == ends_there


def test_parameters_have_to_be_numpys() -> None:
    array = jnp.ones(3)
    with pytest.raises(TypeError, match=r"params must be a numpy.ndarray, not jaxlib._jax.ArrayImpl"):
        fm.init(array, lr=0.5)
    for view in (np.asarray(array), np.from_dlpack(array), adapter.grads(array)):
        with pytest.raises(
            ValueError, match="params must be writable, not read-only; keep a copy in its place"
        ):
            fm.step(view, np.ones(3, np.float32), fm.init(view, lr=0.5))
    own = np.array(array)
    fm.step(own, adapter.grads(array), fm.init(own, lr=0.5))
    assert own.tolist() == [0.5] * 3
    assert array.tolist() == [1] * 3


def test_refused() -> None:
    with pytest.raises(TypeError, match=r"grads\['a'\]\[1\] must be a jax.Array, not numpy.ndarray"):
        adapter.grads({"a": [jnp.ones(2), np.ones(2)]})
    grads = adapter.grads(jnp.ones(3, jnp.int32))
    params = np.zeros(3, np.float32)
    with pytest.raises(TypeError, match="grads must have dtype float32, as params has, not int32"):
        fm.step(params, grads, fm.init(params, lr=0.5))


def test_other_devices() -> None:
    """Several devices of the CPU stand for an accelerator: what is spread over them cannot be seen as one array."""
    printed = run_python(
        """
        import jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec
        import fast_momentum.adapters.jax as adapter
        mesh = jax.make_mesh((2,), ("x",))
        whole = jax.numpy.arange(4.0)
        print(adapter.grads(whole).tolist())
        try:
            adapter.grads([jax.device_put(whole, NamedSharding(mesh, PartitionSpec("x")))])
        except TypeError as error:
            print(error)
        """,
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
    )
    assert printed.splitlines() == [
        "[0.0, 1.0, 2.0, 3.0]",
        "grads[0] must be on one CPU device, not cpu:0, cpu:1; jax.device_get() makes a copy",
    ]


def test_examples() -> None:
    found = doctest.testmod(adapter)
    assert found.attempted > 0
    assert found.failed == 0


def test_without_jax() -> None:
    printed = run_python(
        """
        import sys
        sys.modules["jax"] = None
        try:
            import fast_momentum.adapters.jax
        except ImportError as error:
            print(error)
        """
    )
    assert printed == "fast_momentum.adapters.jax must have jax; pip install jax\n"
