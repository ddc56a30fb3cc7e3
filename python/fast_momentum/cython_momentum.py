"""The kernels for Cython: `cimport` them from here. `cython_momentum.pxd` declares what this module hands over."""

from . import _core

__pyx_capi__ = _core._pyx_capi
