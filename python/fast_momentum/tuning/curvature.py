"""The range of curvature, estimated from the parameters and gradients of successive steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._keywords import explained
from ._checks import whole
from ._flat import Flat, norm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._flat import Point, Vector


@explained
def ritz_values(displacements: Any, differences: Any) -> NDArray[np.float64]:
    """Return the Ritz values of the Hessian on the span of `displacements`, ascending.

    With S the displacements and Y the gradient differences as columns, each divided by the norm of its
    displacement, they are the eigenvalues theta of ``(S'Y + Y'S)/2 u = theta S'S u``. For a quadratic, Y = H S, they
    lie within the range of the eigenvalues of H, and the extreme ones are near its ends where S has enough of them.

    Directions of S in which ``S'S`` is below the root of the precision, relative to its largest eigenvalue, are left
    out: there are as many Ritz values as S has directions that can be told apart.

    Parameters
    ----------
    displacements, differences : array_like, shape (k, n)
        Row i has a displacement of the parameters, and the gradient after it less the gradient before it.

    Returns
    -------
    ndarray of float64, shape (at most k,)
        In units of gradient per displacement; empty if every displacement is zero.

    Raises
    ------
    ValueError
        The two are not of one shape (k, n).

    References
    ----------
    Y. Saad, Numerical Methods for Large Eigenvalue Problems, 2nd edition, 2011, section 4.3 (Rayleigh-Ritz).

    Examples
    --------
    The curvatures 1, 10 and 100 from three steps; two steps see a part of the range.

    >>> import numpy as np
    >>> from fast_momentum import tuning
    >>> steps = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
    >>> tuning.ritz_values(steps, steps * [1, 10, 100]).round(6).tolist()
    [1.0, 10.0, 100.0]
    >>> tuning.ritz_values(steps[:2], steps[:2] * [1, 10, 100]).round(2).tolist()
    [2.77, 84.73]
    """
    s, y = np.asarray(displacements), np.asarray(differences)
    if s.ndim != 2 or s.shape != y.shape:
        msg = f"displacements and differences must have one shape (k, n), not {s.shape} and {y.shape}"
        raise ValueError(msg)
    return _ritz(s @ s.T, s @ y.T, np.result_type(s, y, np.float32))[0]


def _ritz(ss: NDArray[Any], sy: NDArray[Any], dtype: Any) -> tuple[NDArray[np.float64], float]:
    """The same from the products S'S and S'Y of vectors of `dtype`, and the norm of what is not symmetric."""
    length = np.sqrt(np.diag(ss).astype(float))
    moved = length > 0
    scale = np.outer(length[moved], length[moved])
    weights, directions = np.linalg.eigh(ss[np.ix_(moved, moved)] / scale)
    kept = weights > np.sqrt(np.finfo(dtype).eps) * weights.max(initial=0)
    basis = directions[:, kept] / np.sqrt(weights[kept])
    hessian = basis.T @ (sy[np.ix_(moved, moved)] / scale) @ basis
    asymmetric = (hessian - hessian.T) / 2
    error = float(np.linalg.norm(asymmetric, 2)) if hessian.size else 0.0
    return np.asarray(np.linalg.eigvalsh((hessian + hessian.T) / 2), np.float64), error


class CurvatureRange(NamedTuple):
    """The range of curvature that a `CurvatureWindow` shows.

    ``l_min`` is the lowest Ritz value, negative where the function curves down; ``l_max`` is the largest in magnitude;
    ``error`` is the spectral norm of the asymmetric part of the Hessian on the window, 0 for a quadratic, as no
    Hessian has one. All are in units of gradient per displacement.
    """

    l_min: float
    l_max: float
    error: float


class CurvatureWindow:
    """The last displacements and gradient differences of a run, and the range of curvature on their span.

    Call ``window.add(params, grads)`` with the gradients of each step. See `ritz_values` for what is computed: the
    Ritz values see each end of the range as soon as the displacements have a part there, and the heavy ball sees to
    that, as what it does not damp is what remains.

    The gradients have to be those of one function. Gradients of different mini-batches differ also where the
    parameters stand still: with noise alone, l_max is about ``2*(1 + momentum)/lr`` and the error ``(1 - momentum)/lr``
    whatever the curvature is, so that small steps look like sharp curvature. If a batch can be used twice, give
    `add_pair` its gradients at two points: the values are then those of the Hessian of the batches.

    Parameters
    ----------
    size : int, default 10
        Pairs that are kept, at least 1.

    Raises
    ------
    TypeError, ValueError
        `size` is not an integer, or below 1.

    Notes
    -----
    For n parameters: 2*(size + 1) vectors of n elements, float32 if every parameter is, else float64. An `add` makes
    a few vectors more and computes 3*size dot products.

    An array counts in a pair only where both its gradients were given. A pair without a displacement, or with
    an infinite or NaN element, is left out.

    Examples
    --------
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> from fast_momentum import tuning
    >>> curvature = np.array([1.0, 3.0, 10.0, 100.0])
    >>> params = {"w": np.ones(4)}
    >>> state = fm.init(params, lr=0.01, momentum=0.5)
    >>> window = tuning.CurvatureWindow()
    >>> for _ in range(8):
    ...     grads = {"w": curvature * params["w"]}
    ...     window.add(params, grads)
    ...     fm.step(params, grads, state)
    >>> found = window.range()
    >>> round(found.l_min, 3), round(found.l_max, 3), bool(found.error < 1e-6)
    (1.0, 100.0, True)
    """

    @explained
    def __init__(self, size: int = 10) -> None:
        self._size = whole("size", size)
        self._ss = np.zeros((self._size, self._size))
        self._sy = np.zeros((self._size, self._size))
        self._count = 0
        self._flat = Flat()
        self._last: Point | None = None
        self._s: Any = None
        self._y: Any = None

    def add(self, params: Any, grads: Any) -> None:
        """Take the point and its gradients; with those of the call before, they are a pair.

        Parameters
        ----------
        params, grads : array or nested list, tuple, dict or dataclass of arrays
            As `fast_momentum.step` takes them, None for a gradient that is left out. They are copied.

        Raises
        ------
        TypeError, ValueError
            Something is not an array of float32 or float64, or the structures, shapes or dtypes of the two differ, or
            are not those of the call before.

        Examples
        --------
        >>> import numpy as np
        >>> from fast_momentum import tuning
        >>> window = tuning.CurvatureWindow()
        >>> window.add(np.array([1.0]), np.array([4.0]))
        >>> window.add(np.array([0.5]), np.array([2.0]))
        >>> window.range()
        CurvatureRange(l_min=4.0, l_max=4.0, error=0.0)
        """
        self._add_flat(self._flat(params, grads))

    def _add_flat(self, point: Point) -> None:
        """`add` for what `Flat` makes of params and grads; the vectors are kept."""
        last, self._last = self._last, point
        if last is not None:
            self._pair(last, point)

    def add_pair(self, params: Any, grads: Any, other_params: Any, other_grads: Any) -> None:
        """Take two points with their gradients of the same function, such as the loss of one batch.

        Parameters
        ----------
        params, grads, other_params, other_grads : array or nested list, tuple, dict or dataclass of arrays
            As in `add`. The order of the two points has no effect.

        Raises
        ------
        TypeError, ValueError
            As for `add`.

        Examples
        --------
        >>> import numpy as np
        >>> from fast_momentum import tuning
        >>> window = tuning.CurvatureWindow()
        >>> window.add_pair(np.array([1.0]), np.array([4.0]), np.array([0.5]), np.array([2.0]))
        >>> window.range()
        CurvatureRange(l_min=4.0, l_max=4.0, error=0.0)
        """
        self._pair(self._flat(params, grads), self._flat(other_params, other_grads))

    def range(self) -> CurvatureRange | None:
        """Return the range of the Ritz values of the window; see `ritz_values`.

        Returns
        -------
        CurvatureRange or None
            None as long as there is no pair.

        Examples
        --------
        >>> from fast_momentum import tuning
        >>> tuning.CurvatureWindow().range() is None
        True
        """
        if self._s is None:
            return None
        filled = slice(min(self._count, self._size))
        values, error = _ritz(self._ss[filled, filled], self._sy[filled, filled], self._s.dtype)
        return CurvatureRange(float(values[0]), float(np.abs(values).max()), error)

    def _last_length(self) -> float:
        """The length of the last displacement, infinite if there is none."""
        return math.inf if self._s is None else norm(self._s[(self._count - 1) % self._size])

    def _pair(self, before: Point, after: Point) -> None:
        with np.errstate(all="ignore"):
            s, y = after[0] - before[0], after[1] - before[1]
        for given in (before[2], after[2]):
            if given is not None:
                s[~given] = 0
                y[~given] = 0
        if norm(s) > 0 and np.isfinite(norm(s)) and np.isfinite(norm(y)):
            self._keep(s, y)

    def _keep(self, s: Vector, y: Vector) -> None:
        if self._s is None:
            self._s = np.zeros((self._size, s.size), s.dtype)
            self._y = np.zeros_like(self._s)
        row = self._count % self._size
        self._s[row], self._y[row] = s, y
        self._ss[row] = self._ss[:, row] = self._s @ s
        self._sy[row], self._sy[:, row] = self._y @ s, self._s @ y
        self._count += 1
