"""Where the C header is."""

from pathlib import Path


def get_include() -> str:
    """Return the directory of ``fast_momentum.h``, for the include path of a C or C++ compiler.

    Cython needs it only for the C header; `cimport` finds ``cython_momentum.pxd`` by itself.

    Returns
    -------
    str
        An absolute path.

    Examples
    --------
    >>> import os
    >>> import fast_momentum as fm
    >>> os.listdir(fm.get_include())
    ['fast_momentum.h']
    """
    return str(Path(__file__).resolve().parent / "include")
