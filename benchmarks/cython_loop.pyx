# cython: language_level=3, boundscheck=False, wraparound=False
"""The loop that one writes in Cython when NumPy is too slow."""

from cython cimport floating


def step(floating[::1] p, const floating[::1] g, floating[::1] v, floating m, floating lr):
    cdef Py_ssize_t i
    with nogil:
        for i in range(p.shape[0]):
            v[i] = m * v[i] + g[i]
            p[i] = p[i] - lr * v[i]
