"""JAX: gradients seen as NumPy arrays."""

from __future__ import annotations

from typing import Any

try:
    import jax
except ImportError as error:
    _message = "fast_momentum.adapters.jax must have jax; pip install jax"
    raise ImportError(_message) from error

import numpy as np

__all__ = ["grads"]


def grads(tree: Any) -> Any:
    """Wait for gradients of JAX and return read-only NumPy arrays over their memory, without a copy.

    JAX arrays never change, so the parameters that a step updates have to be arrays of NumPy. Give JAX copies of them
    that nobody writes, ``jax.tree.map(np.copy, params)``: it may read its arguments after the call has returned.

    Of complex parameters ``jax.grad`` returns ``df/dx - i df/dy``, and `fast_momentum.step` takes its conjugate: give this
    function ``jax.tree.map(jnp.conj, gradient)``, which under ``jax.jit`` costs no pass of its own.

    Parameters
    ----------
    tree : jax.Array, or a pytree of them
        As ``jax.grad`` returns it.

    Returns
    -------
    ndarray, or a pytree of them
        The same containers, of which `fast_momentum.step` takes lists, tuples and dicts.

    Raises
    ------
    TypeError
        Something is no array of JAX, or is not on one CPU device, from which alone nothing has to be copied.

    References
    ----------
    https://docs.jax.dev/en/latest/pytrees.html

    Examples
    --------
    >>> import numpy as np
    >>> import jax
    >>> import fast_momentum as fm
    >>> import fast_momentum.adapters.jax
    >>> params = {"w": np.zeros(3, np.float32)}
    >>> state = fm.init(params, lr=0.5)
    >>> gradient = jax.grad(lambda p: p["w"].sum())(jax.tree.map(np.copy, params))
    >>> fm.step(params, fm.adapters.jax.grads(gradient), state)
    >>> params["w"].tolist()
    [-0.5, -0.5, -0.5]
    """
    return jax.tree_util.tree_map_with_path(_view, tree)


def _view(path: Any, array: Any) -> Any:
    if not isinstance(array, jax.Array):
        given = type(array)
        msg = f"grads{jax.tree_util.keystr(path)} must be a jax.Array, not {given.__module__}.{given.__qualname__}"
        raise TypeError(msg)
    devices = array.devices()
    if len(devices) != 1 or any(device.platform != "cpu" for device in devices):
        names = ", ".join(sorted(f"{device.platform}:{device.id}" for device in devices))
        msg = f"grads{jax.tree_util.keystr(path)} must be on one CPU device, not {names}; jax.device_get() makes a copy"
        raise TypeError(msg)
    return np.asarray(array)
