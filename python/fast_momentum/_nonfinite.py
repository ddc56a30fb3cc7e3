"""What `NonFiniteGradientError` says."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._core import Rows


def message(paths: list[str], grads: list[Any], grad_scale: float) -> str:
    """Where the first NaN or infinity is, and how many there are, after the gradients were scaled."""
    first, n_nan, n_inf, n_arrays = "", 0, 0, 0
    for path, grad in zip(paths, grads, strict=True):
        part, values = _values(grad, grad_scale)
        bad = np.argwhere(~np.isfinite(values))
        if not len(bad):
            continue
        place = tuple(int(i) for i in bad[0])
        if not n_arrays:
            first = f"{path}{part} must be finite, not {values[place]}" + (f" at {place}" if place else "")
        n_nan += int(np.isnan(values).sum())
        n_inf += int(np.isinf(values).sum())
        n_arrays += 1
    scaled = f", after multiplication with grad_scale {grad_scale!r}" if grad_scale != 1 else ""
    counts = f"{n_nan} nan and {n_inf} inf in {n_arrays} of {len(grads)} arrays"
    return f"{first}; {counts}{scaled}; lower lr or the loss scale, or set nonfinite"


def _values(grad: Any, grad_scale: float) -> tuple[str, Any]:
    """What is not finite, and which part of the leaf it is."""
    if not isinstance(grad, Rows):
        return "", _scaled(grad, grad_scale)
    values = _scaled(grad.values, grad_scale)
    if not np.isfinite(values).all():
        return ".values", values
    rows, place = np.unique(grad.indices, return_inverse=True)
    sums = np.zeros((len(rows), *values.shape[1:]), values.dtype)
    with np.errstate(all="ignore"):
        np.add.at(sums, place, _scaled(grad.values, 1.0))
    return ".values, once equal rows are added up,", _scaled(sums, grad_scale)


def _scaled(grad: Any, grad_scale: float) -> Any:
    values = np.array(grad)
    if values.dtype.itemsize == np.float16().itemsize:
        values = values.astype(np.float32)
    parts = values[..., None].view(values.real.dtype)  # of complex numbers
    with np.errstate(all="ignore"):
        parts *= parts.dtype.type(grad_scale)
    return values
