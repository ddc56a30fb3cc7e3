"""adapters/scipy_sparse.py: what steps of sparse arrays are, what is refused, and that nothing is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fast_momentum as fm
from helpers import assert_bits

sparse = pytest.importorskip("scipy.sparse")

from fast_momentum.adapters import scipy_sparse


@pytest.mark.parametrize("make", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_is_that_of_its_rows(make: Any, dtype: str) -> None:
    rng = np.random.default_rng(1)
    dense = np.zeros((6, 3), dtype)
    dense[[4, 1]] = rng.uniform(1, 2, (2, 3))
    grad = make(dense)
    rows = scipy_sparse.rows(grad)
    assert rows.indices.tolist() == [1, 4]
    assert np.shares_memory(rows.values, grad.data)
    params = rng.uniform(1, 2, (6, 3)).astype(dtype)
    expected = params.copy()
    fm.step(params, rows, fm.init(params, lr=0.1))
    fm.step(expected, dense, fm.init(expected, lr=0.1))
    assert_bits(params, expected)


def test_no_rows() -> None:
    rows = scipy_sparse.rows(sparse.csr_array((4, 3)))
    assert rows.indices.shape == (0,)
    assert rows.values.shape == (0, 3)


def test_what_is_refused() -> None:
    whole = sparse.csr_array(np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0]]))
    with pytest.raises(TypeError, match=r"csr_array of two dimensions, not .*; its \.tocsr\(\) is one"):
        scipy_sparse.rows(whole.tocoo())
    with pytest.raises(TypeError, match="grad must be a scipy"):
        scipy_sparse.rows(whole.toarray())
    torn = sparse.csr_array(np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 0.0]]))
    with pytest.raises(ValueError, match="grad must have whole rows, not 1 of the 2 elements of row 2; "):
        scipy_sparse.rows(torn)
    whole.indices[2:] = [1, 0]
    with pytest.raises(ValueError, match="grad must have its elements in order, not others in row 2; "):
        scipy_sparse.rows(whole)
    twice = sparse.csr_array((np.ones(2), np.zeros(2, int), [0, 2]), shape=(1, 2))
    with pytest.raises(ValueError, match="not others in row 0; "):
        scipy_sparse.rows(twice)
