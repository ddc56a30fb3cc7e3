"""The ways out that messages about arrays, containers and attributes name; only where something is refused.

Each begins with a semicolon, as it ends a message, or is empty where nothing is known that would help. None of them
loses what the object holds.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from numbers import Number
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._keywords import FOREIGN

if TYPE_CHECKING:
    from collections.abc import Callable

# What is not set by its name, and what is done in its place.
NOT_SET = {
    "rule": "make a state of another rule by the function of its name",
    "form": "state.to_form() is a state that goes on in another form",
    "velocity": "state.load_state_dict() changes it, state.reset() makes it zero",
    "step_count": "state.load_state_dict() changes it",
    "grad_norm": "each step with clip_norm measures it",
    "skipped_steps": "steps count it, with nonfinite='skip'",
    "average": "state.swap_average() exchanges it with params",
}
BUFFERS = 3  # names of arrays that are listed


def of_type(thing: Any, path: str, is_written: bool) -> str:
    """For what is no array, and has to be one or a container."""
    try:
        way_out = next((text for found in KINDS if (text := found(thing, path, is_written))), "")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever the object makes of a question about it
        return ""
    return f"; {way_out}" if way_out else ""


def of_container(thing: Any, path: str) -> str:
    """For what is another container than it has to be, or none."""
    return "" if isinstance(thing, (list, tuple, dict, np.ndarray)) else of_type(thing, path, False)


def of_dtype(dtype: np.dtype[Any], wanted: str, is_written: bool) -> str:
    """For an array of `dtype`, where one of `wanted` is."""
    if dtype.kind == "O":
        return "; if it holds arrays, pass list() of it"
    if dtype.names:
        return f"; pass a dict of its fields, such as {{{dtype.names[0]!r}: array[{dtype.names[0]!r}]}}"
    made = "keep a copy in its place" if is_written else "pass a copy"
    copy = f"; {made}, made by .astype('{wanted}')"
    if wanted == "bfloat16":
        return f"{copy}, which rounds"
    if np.can_cast(dtype, wanted, "safe"):
        return copy + (", which rounds above 2**53" if dtype.kind in "iu" and dtype.itemsize > 4 else "")
    if np.can_cast(dtype, wanted, "same_kind"):
        return f"{copy}, which rounds"
    if dtype.kind == "c":
        return "; its imaginary parts would be lost, so give init() complex params"
    return ""


def of_shape(given: tuple[int, ...], wanted: tuple[int, ...], path: str) -> str:
    """For an array that has all elements, but a dimension of length 1 too many or too few, or is transposed."""
    if [n for n in given if n != 1] == [n for n in wanted if n != 1]:
        return f"; pass {path}.reshape({wanted}), which shares its memory"
    return f"; pass {path}.T, which shares its memory" if given == wanted[::-1] else ""


def of_attribute(name: str, said: Exception) -> str:
    """What is said where an attribute of a State cannot be set, or has refused it and `said` why."""
    if not _core.settings.get(name, {"fixed": True})["fixed"]:
        return str(said)
    if name in vars(_core.State):
        way_out = NOT_SET.get(name, "make a state with it" if name in _core.settings else "steps change it")
        return f"state.{name} must stay as it is, not be set; {way_out}"
    names = [setting for setting, row in _core.settings.items() if not row["fixed"]]
    foreign = [known for known in FOREIGN.get(name, ()) if known in names]
    near = foreign[:1] or difflib.get_close_matches(name, names, n=1)
    return f"state must have an attribute to set it, not {name}" + (f"; use state.{near[0]}" if near else "")


# ---- kinds of objects, each a function that knows what helps, or says nothing ----


def _none(thing: Any, path: str, _is_written: bool) -> str:
    if thing is not None or not path.startswith("params"):
        return ""
    return "None stands for gradients alone, leave it out where the state is made"


def _ndarray(thing: Any, _path: str, _is_written: bool) -> str:
    if isinstance(thing, np.ma.MaskedArray):
        return "its mask would be ignored, pass its .data or .filled()"
    return "pass numpy.asarray() of it, which shares its memory" if isinstance(thing, np.ndarray) else ""


def _number(thing: Any, path: str, is_written: bool) -> str:
    if isinstance(thing, np.generic):
        if is_written:
            return "it cannot be updated in place, use a 0-d array"
        return "only the gradient of a 0-d array may be a scalar, and sum(keepdims=True) gives an array"
    if not isinstance(thing, Number):
        return ""
    if path.endswith("]") and not path.endswith("']"):
        return "make numbers an array, by numpy.array() of the list, or each a 0-d array, by numpy.array(1.0)"
    return "make it a 0-d array, as numpy.array(1.0) is"


def _of_library(thing: Any, path: str, is_written: bool) -> str:
    roots = {base.__module__.partition(".")[0] for base in type(thing).__mro__}
    what = "the model" if "state_dict" in dir(type(thing)) else "it, or of the model"
    if "torch" in roots:
        name = "arrays" if is_written or path.startswith("params") else "grads"
        if isinstance(thing, Iterator):
            return "pass fast_momentum.adapters.pytorch.arrays() of the model"
        return f"pass fast_momentum.adapters.pytorch.{name}() of {what}, which shares memory"
    if roots & {"jax", "jaxlib"}:
        if is_written:
            return "keep a copy in its place, made by numpy.array(), as arrays of JAX never change"
        return "pass numpy.asarray() of it, which shares its memory"
    if "scipy" in roots and hasattr(thing, "toarray"):
        if is_written:
            return "keep an array in its place, made by .toarray()"
        return "pass fast_momentum.adapters.scipy_sparse.rows() of it, or .toarray()"
    if hasattr(type(thing), "to_numpy"):  # pandas, polars, xarray
        made = "to_numpy(copy=True)" if "pandas" in roots else "to_numpy()"
        return f"keep an array in its place, made by .{made}" if is_written else "pass .to_numpy() of it"
    if hasattr(thing, "__dlpack__"):
        return "pass an array that shares its memory, such as numpy.from_dlpack() gives"
    return ""


def _file(thing: Any, _path: str, _is_written: bool) -> str:
    is_name = isinstance(thing, os.PathLike) or str(thing).endswith((".npy", ".npz", ".safetensors"))
    if isinstance(thing, (str, os.PathLike)) and is_name:
        return "pass what fast_momentum.load() or numpy.load() reads from it"
    return ""


def _container(thing: Any, path: str, is_written: bool) -> str:
    if isinstance(thing, (str, bytes)):
        return ""
    if isinstance(thing, (list, tuple)):
        return "keep numpy.array() of it in its place" if is_written else "pass numpy.array() of it"
    if isinstance(thing, Iterator):
        return "it can be read once, make a list by list() and keep that"
    if isinstance(thing, dict):
        return "pass its array"
    if isinstance(thing, Mapping):
        return "pass dict() of it"
    if isinstance(thing, AbstractSet) and not hasattr(thing, "mapping"):  # a view of a dict has an order
        return "a set has no order, pass a list of its arrays"
    # a memoryview is a Sequence, too, but has memory of its own
    if not _buffer(thing, path, False) and (isinstance(thing, Sequence) or hasattr(type(thing), "__iter__")):
        return "pass list() of it"
    return ""


def _buffer(thing: Any, _path: str, _is_written: bool) -> str:
    if isinstance(thing, (bytes, bytearray)):
        return ""
    try:
        memoryview(thing).release()
    except (TypeError, BufferError):
        return ""
    return "pass numpy.asarray() of it, which shares its memory"


def _attributes(thing: Any, path: str, _is_written: bool) -> str:
    if isinstance(thing, type) or (callable(thing) and not hasattr(thing, "__dict__")):
        return ""
    if isinstance(thing, SimpleNamespace):
        return "pass vars() of it, a dict of its arrays"
    names = [name for name, value in vars(thing).items() if isinstance(value, np.ndarray)]
    if path.startswith("params"):  # gradients beside them are called so
        names = [name for name in names if not _is_gradient(name, names)]
    if not names:
        return ""
    called = type(thing).__name__.lower() if path.count("[") == 0 else "layer"
    items = ", ".join(f"{name!r}: {called}.{name}" for name in names[:BUFFERS])
    rest = "" if len(names) <= BUFFERS else " and so on"
    return f"pass a dict of its arrays, {{{items}}}{rest}"


def _is_gradient(name: str, names: list[str]) -> bool:
    return any(
        name == form.format(other) for other in names for form in ("d{}", "d_{}", "grad_{}", "{}_grad")
    )


KINDS: tuple[Callable[[Any, str, bool], str], ...] = (
    _none,
    _ndarray,
    _number,
    _of_library,
    _file,
    _container,
    _buffer,
    _attributes,
)
