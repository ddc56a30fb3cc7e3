"""One file for all ranks, of the same kind as one machine's: rank 0 writes it, and is sent a piece at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from mpi4py import MPI

from .._files._bytes import PIECE, bytes_of, look_at, memory_of, read_into
from .._files._content import PER_ARRAY, Kept, Part, as_in, check_fits, check_names, parts_of
from .._files._run import check_kind, checked_name, fill_parts, opened, paths_and_places, verify_parts, write
from .._files._structure import check_extra
from ..reference import INT8_BLOCK
from ._agreement import Meeting
from ._layout import in_memory_order
from ._state import checked_state, lent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .._files._content import Content
    from .._files._run import Path, Reader
    from ._layout import Model, Piece
    from ._state import State

    Array = NDArray[Any]

END = None  # what rank 0 asks for last


class Asked(NamedTuple):
    """An array that is spread over the ranks."""

    slot: str
    number: int
    is_scales: bool


def save(path: Path, params: Any, state: State, extra: Any = None) -> None:
    """Write parameters and the state of all ranks to one file, as `fast_momentum.save` does. Collective.

    Rank 0 writes the file, which is whole or not there whatever ends whichever process when. The others send it their
    shares, a piece of at most a MiB at a time. `restore` reads it on any number of ranks, `fast_momentum.load` on one
    machine.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        As in `fast_momentum.save`; that of rank 0 counts.
    params : array, or nested list, tuple, dict or dataclass of arrays
        Those of `state`. Neither is modified.
    state : State
        Of `fast_momentum.mpi`.
    extra : optional
        What else belongs to the run; that of rank 0 counts.

    Raises
    ------
    ValueError, TypeError, OSError, ConcurrentStepError
        As `fast_momentum.save`, on all ranks.

    See Also
    --------
    restore

    Notes
    -----
    An array whose order in memory is not that of the file (neither C nor Fortran order, or Fortran order in
    ``.safetensors``) is put together in the memory of rank 0.

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> import fast_momentum as fm
    >>> from mpi4py import MPI
    >>> from fast_momentum import mpi
    >>> params = [np.ones(3)]
    >>> state = mpi.adam(params, MPI.COMM_WORLD, lr=0.1)
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> mpi.save(path, params, state, {"epoch": 1})
    >>> fm.load(path)[2]
    {'epoch': 1}
    """
    checked_state(state)
    with state._turn as meeting:
        name, form = checked_name(path)
        check_extra(extra)
        description, arrays = lent(state, params)
        paths, _ = paths_and_places(params, arrays)
        kept = _kept_here(state, arrays)
        state._meet(meeting)
        with Meeting(state.comm) as writing:
            parts = _spread_parts(state, paths, kept)
            if state.comm.rank != 0:
                _serve(state, kept)
            else:
                try:
                    every = {**parts_of(paths, arrays, []), **parts}
                    orders = [list(model.axes) for model in state._exchange.layout.models]
                    write(name, form, params, arrays, description, every, orders, extra)
                finally:
                    state.comm.bcast(END, root=0)
            writing.hold()


def restore(path: Path, params: Any, state: State) -> Any:
    """Fill `params` and `state` with what a file holds, and return its extra, as `fast_momentum.restore` does. Collective.

    Each rank reads the file, which `save` here or `fast_momentum.save` has written, on however many ranks.

    Parameters
    ----------
    path : str, bytes or os.PathLike
        The file, which every rank must be able to read.
    params : array, or nested list, tuple, dict or dataclass of arrays
        **Modified.**
    state : State
        **Modified**, its hyperparameters, too.

    Returns
    -------
    extra
        As it was given.

    Raises
    ------
    DamagedFileError, ValueError, TypeError, OSError, ConcurrentStepError
        As `fast_momentum.restore`, on all ranks; `params` and `state` are as they were on all of them.

    See Also
    --------
    save

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from fast_momentum import mpi
    >>> params = np.ones(2)
    >>> state = mpi.init(params, MPI.COMM_WORLD, lr=0.5)
    >>> path = os.path.join(tempfile.mkdtemp(), "run.npz")
    >>> mpi.save(path, params, state, "before the first step")
    >>> mpi.step(params, np.ones(2), state)
    >>> print(mpi.restore(path, params, state), params, state.step_count)
    before the first step [1. 1.] 0
    """
    checked_state(state)
    with state._turn as meeting:
        mine, arrays = lent(state, params)
        paths, _ = paths_and_places(params, arrays)
        try:
            with opened(path) as (reader, content):
                reader.check(content)
                check_kind(content.state, mine)
                check_names("params", content.paths, paths)
                places = {of_one: place for place, of_one in enumerate(content.paths)}
                content = content.in_order_of([places[of_one] for of_one in paths])

                def use(arrays: list[Array], _: object) -> None:
                    _fill_all(state, arrays, content, reader, meeting)

                state._book._fill(params, content.description(), use)
        except _RefusedElsewhereError as refusal:
            raise refusal.args[0] from None
    state._changed.update(state._known)  # the share gets its settings with the next call
    return content.extra


class _RefusedElsewhereError(Exception):
    """Another rank has refused the file, and has said so in full."""


# ---- out ----


def _kept_here(state: State, arrays: list[Array]) -> dict[Asked, list[_Stored]]:
    """The pieces of each array that this rank has, in their order."""
    exchange = state._exchange
    pieces, _ = exchange.lent(arrays)
    found: dict[Asked, list[_Stored]] = {}
    for kept in map(Kept._make, state._share._lend(pieces, lambda _, __, memory: memory)):
        number = exchange.mine[kept.number].array
        found.setdefault(Asked(kept.slot, number, False), []).append(_Stored(kept.items, kept.stored))
        if kept.scales is not None:
            found.setdefault(Asked(kept.slot, number, True), []).append(_Stored(kept.scales, None))
    return found


class _Stored(NamedTuple):
    items: Array
    stored: str | None

    @property
    def dtype(self) -> str:
        return self.stored or self.items.dtype.name


def _spread_parts(state: State, paths: tuple[str, ...], kept: dict[Asked, list[_Stored]]) -> dict[str, Part]:
    """On rank 0, a part of the file for each array of the state."""
    kinds = {asked: pieces[0].dtype for asked, pieces in kept.items()}
    every = state.comm.gather(kinds, root=0) if state.sharded else [kinds]
    if state.comm.rank != 0:
        return {}
    merged: dict[Asked, str] = {}
    for of_rank in every:
        merged.update(of_rank)
    slots = list(dict.fromkeys(asked.slot for of_rank in every for asked in of_rank))
    parts = {}
    for asked in sorted(merged, key=lambda asked: (slots.index(asked.slot), asked.number, asked.is_scales)):
        model = state._exchange.layout.models[asked.number]
        shape = (-(-model.size // INT8_BLOCK),) if asked.is_scales else model.shape
        order = "C" if asked.is_scales else _order_of(model)
        parts[_name_of(asked, paths)] = Part(
            merged[asked], shape, order, source=_Source(state, asked, kept, order)
        )
    return parts


def _name_of(asked: Asked, paths: tuple[str, ...]) -> str:
    return f"{asked.slot}{'_scales' if asked.is_scales else ''}{paths[asked.number]}"


def _order_of(model: Model) -> str:
    """As a file has an array that lies in memory so."""
    return "F" if _ordered(model, reverse=True) and not _ordered(model, reverse=False) else "C"


def _ordered(model: Model, *, reverse: bool) -> bool:
    axes = [axis for axis in model.axes if model.shape[axis] != 1]
    return model.size == 0 or axes == sorted(axes, reverse=reverse)


class _Source:
    """The bytes of an array, from all ranks, in the order of the file."""

    def __init__(self, state: State, asked: Asked, kept: dict[Asked, list[_Stored]], order: str) -> None:
        self._state = state
        self._asked = asked
        self._kept = kept
        self._order = order  # of its memory, if it is not `_is_other`
        model = state._exchange.layout.models[asked.number]
        self._is_other = not asked.is_scales and not _ordered(model, reverse=order == "F")

    def __call__(self, part: Part) -> Iterator[memoryview]:
        if part.order == self._order and not self._is_other:
            return self._pieces(part)
        model = self._state._exchange.layout.models[self._asked.number]
        ordered = np.empty([model.shape[axis] for axis in model.axes], part.item_type)
        place, memory = 0, memory_of(ordered.reshape(-1))
        for piece in self._pieces(part):
            memory[place : place + len(piece)] = piece
            place += len(piece)
        array = ordered.transpose(np.argsort(model.axes))
        return bytes_of(replace(part, memory=array, source=None))

    def _pieces(self, part: Part) -> Iterator[memoryview]:
        """In the order of memory."""
        comm, layout = self._state.comm, self._state._exchange.layout
        if layout.sharded:
            comm.bcast(self._asked, root=0)
        mine = iter(self._kept.get(self._asked, ()))
        for rank, n_items in _holders(self._state, self._asked):
            if rank == comm.rank:
                memory = memory_of(next(mine).items)
                yield from (memory[begin : begin + PIECE] for begin in range(0, len(memory), PIECE))
                continue
            n_bytes = n_items * part.item_type.itemsize
            buffer = memoryview(bytearray(min(PIECE, n_bytes)))
            for begin in range(0, n_bytes, PIECE):
                piece = buffer[: n_bytes - begin]
                comm.Recv([piece, MPI.BYTE], source=rank)
                yield piece


def _holders(state: State, asked: Asked) -> list[tuple[int, int]]:
    """Who has which number of items of an array, in their order."""
    layout = state._exchange.layout
    if not layout.sharded:
        ranks: list[int] = [state.comm.rank]
    else:
        ranks = list(range(layout.n_ranks))
    found = [
        (piece.begin, rank, piece.size)
        for rank in ranks
        for piece in layout.share(rank)
        if piece.array == asked.number
    ]
    per_item = INT8_BLOCK if asked.is_scales else 1
    return [(rank, -(-size // per_item)) for _, rank, size in sorted(found)]


def _serve(state: State, kept: dict[Asked, list[_Stored]]) -> None:
    """Send rank 0 what it asks for, until it has all."""
    while (asked := state.comm.bcast(END, root=0)) is not END:
        for stored in kept.get(asked, ()):
            memory = memory_of(stored.items)
            for begin in range(0, len(memory), PIECE):
                state.comm.Send([memory[begin : begin + PIECE], MPI.BYTE], dest=0)


# ---- in ----


def _fill_all(state: State, arrays: list[Array], content: Content, reader: Reader, meeting: Meeting) -> None:
    """Check and read the parameters and the share of this rank, once all ranks have found the file to be good."""
    exchange, paths = state._exchange, content.paths
    pieces, _ = exchange.lent(arrays)
    description: dict[str, Any] = state._share._lend(pieces, lambda description, _, __: description)
    saved = content.description()
    for key in PER_ARRAY:
        if key in saved:
            saved[key] = tuple(saved[key][piece.array] for piece in exchange.mine)
    saved["hyperparameters"] = description["hyperparameters"]

    def use(_: object, memory: list[Any]) -> None:
        mine: dict[str, list[tuple[Piece, Array]]] = {}
        wanted = parts_of(paths, arrays, [])
        params = list(wanted)
        for kept in map(Kept._make, memory):
            piece = exchange.mine[kept.number]
            model = exchange.layout.models[piece.array]
            of_items = (
                Asked(kept.slot, piece.array, False),
                kept.items,
                kept.stored or kept.items.dtype.name,
                model.shape,
                kept.low,
            )
            n_scales = -(-model.size // INT8_BLOCK)
            of_scales = (
                [(Asked(kept.slot, piece.array, True), kept.scales, "float32", (n_scales,), 0.0)]
                if kept.scales is not None
                else []
            )
            for asked, values, dtype, shape, low in [of_items, *of_scales]:
                name = _name_of(asked, paths)
                wanted[name] = Part(dtype, shape, "C", low=low, high=kept.high)
                mine.setdefault(name, []).append((piece, values))
            if kept.scales is not None:
                _check_axes(content, piece.array, model)
        here = {piece.array for piece in exchange.mine}
        others = {path for number, path in enumerate(paths) if number not in here}
        for name, part in content.arrays.items():  # what only other ranks can compare
            if any(name.endswith(path) for path in others):
                wanted.setdefault(name, part)
        check_fits(content, wanted)
        wanted = as_in(content, wanted)
        verify_parts(reader, wanted)
        try:
            meeting.hold()
        except Exception as error:  # noqa: BLE001 - what the other one was refused for
            raise _RefusedElsewhereError(error) from None
        fill_parts(reader, {name: wanted[name] for name in params})
        for name, places in mine.items():
            with reader.opened(name, wanted[name]) as read:
                _read_pieces(name, wanted[name], read, exchange.layout.models[places[0][0].array], places)

    state._share._fill(pieces, saved, use)


def _check_axes(content: Content, number: int, model: Model) -> None:
    """An int8 has a scale for so many neighbours in memory, which another order would give others."""
    saved, mine = (
        [axis for axis in axes if model.shape[axis] > 1] for axes in (content.orders[number], model.axes)
    )
    if saved != mine:
        msg = (
            f"params{content.paths[number]} must have had its axes in memory in the order {saved} in mpi.init(), as it was "
            f"saved, not {mine}, as its int8 velocity has a scale for neighbours; make the state with such arrays"
        )
        raise ValueError(msg)


def _read_pieces(name: str, part: Part, read: Any, model: Model, places: list[tuple[Piece, Array]]) -> None:
    """Of an array, the pieces of this rank."""
    is_scales = part.shape != model.shape
    size = part.item_type.itemsize
    memories = [
        ((-(-piece.begin // INT8_BLOCK) if is_scales else piece.begin) * size, memory_of(values))
        for piece, values in places
    ]

    def take(begin: int, memory: memoryview) -> None:
        for first, mine in memories:
            low, high = max(begin, first), min(begin + len(memory), first + len(mine))
            if low < high:
                mine[low - first : high - first] = memory[low - begin : high - begin]

    if is_scales or _ordered(model, reverse=part.order == "F"):
        look_at(name, part, read, take)
        return
    whole = np.empty(part.shape, part.item_type)
    read_into(name, replace(part, memory=whole), read)
    take(0, memory_of(np.ascontiguousarray(in_memory_order(model, whole)).reshape(-1)))
