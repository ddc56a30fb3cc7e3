"""save(), load() and restore()."""

from __future__ import annotations

import itertools
import os
import pathlib
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._containers import leaves, mapped, path_of
from .._keywords import explained
from . import _npz, _safetensors
from ._bytes import look_at, read_into
from ._content import (
    Content,
    DamagedFileError,
    Part,
    as_in,
    check_fits,
    check_names,
    check_scales,
    content_of,
    header_of,
    orders_of,
    parts_of,
)
from ._replacing import replacing
from ._structure import check_extra, decoded, encoded, plain_keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    Reader = _npz.Reader | _safetensors.Reader

FORMATS = {".npz": _npz, ".safetensors": _safetensors}


# ---- out ----


@explained
def save(path: Path, params: Any, state: _core.State, extra: Any = None) -> None:
    """Write parameters and state to one file, from which `load` and `restore` go on bit for bit.

    The file is written beside, flushed to the disk, and renamed, and the folder is flushed: whatever ends the process
    when, the file of that name is the old one or the new one, whole. It has no pickle in it.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        Its suffix says the format. ``.npz`` is NumPy's own: `numpy.load` reads the arrays by names such as
        ``"params['w']"`` and ``"velocity['w']"``. ``.safetensors`` needs that library; arrays that are not in C order
        are copied for it. A file that is there is replaced, with its mode and owner; a link is followed.
    params : array, or nested list, tuple, dict or dataclass of arrays
        Those of `state`, which may be read-only. The keys of dicts must be strings, numbers, bytes, None, or tuples
        of them.
    state : State
        Of any rule. Neither it nor `params` is modified.
    extra : optional
        What else belongs to the run, as JSON can hold it: dicts with strings as keys, lists, strings, numbers,
        booleans and None, such as ``rng.bit_generator.state`` of `numpy.random.default_rng`. Of subclasses of these the
        plain kind comes back; all else is refused.

    Raises
    ------
    ValueError
        If the suffix is another one, or `params` have other keys or shapes than those of `state`.
    TypeError
        If `extra` or a key cannot be held, or `params` have other dtypes.
    OSError
        If the file cannot be written. Then the old one is there, or the new one, whole.
    ConcurrentStepError
        If another thread makes a step with `state`, or changes `params` while they are written.

    See Also
    --------
    load, restore, Checkpoints

    Notes
    -----
    Arrays are streamed: in ``.npz`` less than 64 MiB of memory are needed, however large the state is. bfloat16 lies
    in ``.npz`` as the unsigned integers of its bits, since NumPy has no name for it.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> params = {"w": np.ones(3)}
    >>> state = fm.adam(params, lr=0.1)
    >>> fm.step(params, {"w": np.ones(3)}, state)
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> fm.save(path, params, state, {"epoch": 1})
    >>> params, state, extra = fm.load(path)
    >>> print(params["w"], state.step_count, extra)
    [0.9 0.9 0.9] 1 {'epoch': 1}
    """
    name, form = checked_name(path)
    check_state(state)
    check_extra(extra)

    def use(description: dict[str, Any], arrays: list[NDArray[Any]], memory: list[Any]) -> None:
        paths, _ = paths_and_places(params, arrays)
        write(
            name,
            form,
            params,
            arrays,
            description,
            parts_of(paths, arrays, memory),
            orders_of(arrays, memory),
            extra,
        )

    state._lend(params, use)


def write(
    name: str,
    form: Any,
    params: Any,
    arrays: list[NDArray[Any]],
    description: dict[str, Any],
    parts: dict[str, Part],
    orders: list[list[int]],
    extra: Any,
) -> None:
    """One file, of what has been checked; `arrays` are those of `params` in the order of the state."""
    description["paths"], places = paths_and_places(params, arrays)
    count = itertools.count()
    structure = encoded(mapped(lambda _: next(count), params), "params")
    parts = form.prepared(parts)
    content = Content(structure, orders, description, parts, extra)
    header = header_of(content.in_order_of(places), _core.__version__)
    try:
        with replacing(name) as beside:
            form.write(beside, header, parts)
    except OSError as error:
        error.add_note(f"while saving {name!r}")
        raise


def paths_and_places(params: Any, arrays: list[NDArray[Any]]) -> tuple[tuple[str, ...], list[int]]:
    """The path of each array, with its keys as they come back; and the numbers of the arrays in the order of params."""
    numbers = {id(array): number for number, array in enumerate(arrays)}
    found = {numbers[id(array)]: path_of(plain_keys(keys, "params")) for keys, array in leaves(params)}
    if len(found) < len(arrays) or len(set(found.values())) < len(arrays):
        msg = "params must hold each array once, under a path of its own, not one of them twice; copy it, or rename it"
        raise ValueError(msg)
    return tuple(found[number] for number in range(len(arrays))), list(found)


# ---- in ----


@explained
def load(path: Path) -> tuple[Any, _core.State, Any]:
    """Return the parameters, the state and the extra of a file that `save` has written.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        Files from strangers may be loaded: nothing in them is run, and the memory that is taken goes with their length.

    Returns
    -------
    params : array, or nested list, tuple, dict or dataclass of arrays
        New ones, with the dtypes, shapes and memory order that they had. Of subclasses, such as a namedtuple, the plain
        kind; `restore` fills one's own.
    state : State
        Of the rule, with the options and the step counts, that it had.
    extra
        As it was given.

    Raises
    ------
    DamagedFileError
        If the file is not as it was written, which its checksums tell. The message names the file and the array.
    ValueError
        If a later version has written it.
    OSError
        If the file cannot be read.

    See Also
    --------
    save, restore

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> params = [np.zeros(2, np.float32)]
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> fm.save(path, params, fm.init(params, lr=0.5, average_decay=0.9))
    >>> fm.load(path)[1].average
    (array([0., 0.], dtype=float32),)
    """
    with opened(path) as (reader, content):
        reader.check(content)
        arrays = [
            _new_array(content.arrays[f"params{path}"], axes)
            for path, axes in zip(content.paths, content.orders, strict=True)
        ]
        params = mapped(lambda number: arrays[number], decoded(content.structure))
        state = _new_state(content, params)

        def use(params: list[NDArray[Any]], memory: list[Any]) -> None:
            wanted = parts_of(content.paths, params, memory)
            check_fits(content, wanted)
            fill_parts(reader, as_in(content, wanted))

        state._fill(params, content.description(), use)
    return params, state, content.extra


@explained
def restore(path: Path, params: Any, state: _core.State) -> Any:
    """Fill `params` and `state` with what a file holds, in place, and return its extra.

    All that the file holds is checked, and its checksums are compared, before anything is written.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        What `save` has written.
    params : array, or nested list, tuple, dict or dataclass of arrays
        **Modified.** They must have the keys, shapes and dtypes that were saved; the order of keys and the layout of
        the arrays may differ.
    state : State
        **Modified**: arrays, step counts, and hyperparameters, which become those that were saved: a new `lr` is to
        be set afterwards. Its rule, its form and the options that are fixed must
        be those of the file.

    Returns
    -------
    extra
        As it was given to `save`.

    Raises
    ------
    DamagedFileError
        If the file is not as it was written. Now and below, `params` and `state` are as they were.
    ValueError, TypeError
        If it does not fit.
    OSError
        If the file cannot be read. If somebody changes it, or the disk fails, in the short time between the check and
        the reading, `params` and `state` hold parts of both, as after Ctrl-C in that time: restore again.
    ConcurrentStepError
        If another thread uses `state`.

    See Also
    --------
    save, load

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> params = np.ones(2)
    >>> state = fm.init(params, lr=0.5)
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> fm.save(path, params, state, "before the first step")
    >>> fm.step(params, np.ones(2), state)
    >>> print(fm.restore(path, params, state), params, state.step_count)
    before the first step [1. 1.] 0
    """
    check_state(state)
    mine, paths = state._lend(
        params, lambda description, arrays, _: (description, paths_and_places(params, arrays)[0])
    )
    with opened(path) as (reader, content):
        reader.check(content)
        check_kind(content.state, mine)
        check_names("params", content.paths, paths)
        places = {path: place for place, path in enumerate(content.paths)}
        content = content.in_order_of([places[path] for path in paths])

        def use(arrays: list[NDArray[Any]], memory: list[Any]) -> None:
            wanted = parts_of(paths, arrays, memory)
            check_fits(content, wanted)
            check_scales(content, memory)
            wanted = as_in(content, wanted)
            verify_parts(reader, wanted)
            try:
                fill_parts(reader, wanted)
            except (ValueError, OSError) as error:
                msg = f"{os.fsdecode(path)!r} has changed while it was read: params and state hold parts of both; restore another one"
                raise OSError(msg) from error

        state._fill(params, content.description(), use)
    return content.extra


def verify(path: Path) -> None:
    """Raise where load() would for what is in the file."""
    with opened(path) as (reader, content):
        reader.check(content)
        verify_parts(reader, content.arrays)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Reader, Content]]:
    """Whatever is refused names the file."""
    name, form = checked_name(path)
    if stat.S_ISFIFO(pathlib.Path(name).stat().st_mode):
        msg = f"path must be the name of a file, not that of a pipe, {name!r}"
        raise ValueError(msg)
    with pathlib.Path(name).open("rb", buffering=0) as file:
        try:
            reader = form.Reader(file)
            yield reader, content_of(reader.header())
        except DamagedFileError as error:
            msg = f"{name!r} must be as save() has written it: {error}"
            raise DamagedFileError(msg) from None
        except MemoryError as error:
            error.add_note(f"while reading {name!r}")
            raise
        except (ValueError, TypeError) as error:
            msg = f"{name!r} must fit params and state: {error}"
            raise type(error)(msg) from None


def verify_parts(reader: Reader, parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        with reader.opened(name, part) as read:
            look_at(name, part, read)


def fill_parts(reader: Reader, parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        with reader.opened(name, part) as read:
            read_into(name, part, read)


def _new_array(part: Part, axes: list[int]) -> NDArray[Any]:
    dtype = np.dtype(part.dtype) if part.dtype != "bfloat16" else _bfloat16()
    return np.empty([part.shape[axis] for axis in axes], dtype).transpose(np.argsort(axes))


def _bfloat16() -> np.dtype[Any]:
    try:
        import ml_dtypes
    except ImportError as error:
        error.add_note("params are bfloat16, which NumPy has from there: python -m pip install ml_dtypes")
        raise
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def _new_state(content: Content, params: Any) -> _core.State:
    rule = content.state.get("rule", _core.rules[0]["rule"])  # of which the first formats knew no other
    for row in _core.rules:
        if row["rule"] == rule and row["form"] in (None, content.state.get("form")):
            fixed = {
                name: content.state[name]
                for name in row["takes"]
                if _core.settings[name]["fixed"] and content.state.get(name) is not None
            }
            state: _core.State = getattr(_core, row["made_by"])(params, lr=0.0, **fixed)
            return state
    msg = f"rule and form must be known, not {rule!r} and {content.state.get('form')!r}; a newer version may know them"
    raise ValueError(msg)


# ---- what is given ----


def checked_name(path: Path) -> tuple[str, Any]:
    try:
        name = os.fsdecode(path)
    except TypeError:
        msg = f"path must be str, bytes or os.PathLike, not {type(path).__name__}"
        raise TypeError(msg) from None
    if "\0" in name:
        msg = f"path must have no NUL, not {name!r}"
        raise ValueError(msg)
    for suffix, form in FORMATS.items():
        if name.endswith(suffix):
            return name, form
    msg = f"path must end in {' or '.join(FORMATS)}, which says the format, not {pathlib.Path(name).name!r}"
    raise ValueError(msg)


def check_kind(saved: dict[str, Any], mine: dict[str, Any]) -> None:
    """What is fixed when a State is made; here, as a message is to say how it is made."""
    row = next((row for row in _core.rules if row["rule"] == saved.get("rule")), None)
    if row and saved["rule"] != mine["rule"]:
        msg = (
            f"state must have the rule {saved['rule']!r}, which was saved, not {mine['rule']!r}; "
            f"make it with fast_momentum.{row['made_by']}()"
        )
        raise ValueError(msg)
    for name, setting in _core.settings.items():
        if setting["fixed"] and name in mine and saved.get(name, mine[name]) != mine[name]:
            msg = f"state must have {name}={saved[name]!r}, which was saved, not {mine[name]!r}; make it so, or load() the file"
            raise ValueError(msg)


def check_state(state: object) -> None:
    if not isinstance(state, _core.State):
        msg = f"state must be a State, as init() returns it, not {type(state).__name__}"
        raise TypeError(msg)
