"""SciPy: gradients in sparse arrays, of which whole rows are there, as `fast_momentum.Rows`, without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import Rows
from ._moving import kind

try:
    from scipy import sparse
except ImportError as error:
    _message = "fast_momentum.adapters.scipy_sparse must have scipy; pip install scipy"
    raise ImportError(_message) from error

__all__ = ["rows"]


def rows(grad: Any) -> Rows:
    """Return the rows that a sparse array has, as the gradient of these rows alone.

    ::

        indices = the rows with elements        values[i] = grad[indices[i]]

    Such an array comes of a product with a one-hot or bag-of-words matrix whose other factor is dense, or is made with
    the three arrays of its format. A row of which some elements are missing is refused: the dense step would take zeros
    for them, and a step of a row takes all of it.

    Parameters
    ----------
    grad : scipy.sparse.csr_array or csr_matrix
        Of float32 or float64. Each row has all of its elements, in order, or none. Not modified.

    Returns
    -------
    Rows
        Its values share the memory of ``grad.data``.

    Raises
    ------
    TypeError
        `grad` is something else.
    ValueError
        A row has some of its elements, or has them in another order.

    References
    ----------
    https://docs.scipy.org/doc/scipy/reference/generated/scipy.sparse.csr_array.html

    Examples
    --------
    >>> import numpy as np
    >>> import scipy.sparse
    >>> from fast_momentum.adapters import scipy_sparse
    >>> grad = scipy.sparse.csr_array(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]]))
    >>> scipy_sparse.rows(grad)
    Rows(indices=array([1]), values=array([[3., 4.]]))
    """
    if not (sparse.issparse(grad) and grad.format == "csr" and grad.ndim == 2):
        msg = (
            f"grad must be a scipy.sparse.csr_array of two dimensions, not {kind(grad)}; its .tocsr() is one"
        )
        raise TypeError(msg)
    width = grad.shape[1]
    lengths = np.diff(grad.indptr)
    torn = np.flatnonzero((lengths != 0) & (lengths != width))
    if len(torn):
        msg = (
            f"grad must have whole rows, not {lengths[torn[0]]} of the {width} elements of row {torn[0]}; add the missing "
            "ones as explicit zeros, or pass its .toarray()"
        )
        raise ValueError(msg)
    found = np.flatnonzero(lengths)
    begin, end = grad.indptr[0], grad.indptr[-1]
    columns = grad.indices[begin:end].reshape(len(found), width)
    mixed = np.flatnonzero((columns != np.arange(width)).any(axis=1))
    if len(mixed):
        msg = f"grad must have its elements in order, not others in row {found[mixed[0]]}; call its .sort_indices()"
        raise ValueError(msg)
    return Rows(found, grad.data[begin:end].reshape(len(found), width))
