"""The State of many ranks, and what is done with it."""

from __future__ import annotations

import struct
import threading
import zlib
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from mpi4py import MPI

from .. import _core
from .._containers import at, leaves
from .._nonfinite import message
from ._agreement import Meeting, checksum_of
from ._exchange import Exchange
from ._layout import SMALL, Layout, described, models_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from ._agreement import Exchanged, Named

    Array = NDArray[Any]

PACKED = struct.Struct("<dqqq").pack
LOOKED_AT = ("clip_norm", "nonfinite")  # by all ranks together, and not by the State of a share


class _Turn(Meeting):
    """One call after the other has the communicator; one that comes meanwhile is refused, on all ranks."""

    def __init__(self, comm: Any, exchanged: Exchanged | None) -> None:
        super().__init__(comm, exchanged)
        self.busy = threading.Lock()

    def __enter__(self) -> Self:
        if not self.busy.acquire(blocking=False):
            with self.busy:
                msg = "state must not be in use by another thread, and was; let one thread at a time use it"
                self.fail(_core.ConcurrentStepError(msg))
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self.busy.release()


class State:
    """What all ranks keep together for one model, as `fast_momentum.mpi.init` and its like make it.

    It has the settings of `fast_momentum.State` as attributes, which are set alike on all ranks, and `rule`, `form`,
    `step_count`, `skipped_steps` and `grad_norm`. The arrays are spread over the ranks: `share` has those of this one.
    """

    __module__ = "fast_momentum.mpi"
    __slots__ = (
        "_book",
        "_changed",
        "_checksum",
        "_exchange",
        "_known",
        "_looks",
        "_n_averaged",
        "_share",
        "_turn",
    )

    # _book is a State of all arrays that holds none of them: it checks, counts, and knows the settings.
    # _share is one of this rank's pieces of arrays, with memory.

    _book: _core.State
    _share: _core.State
    _exchange: Exchange
    _n_averaged: int  # by which sums are divided
    _turn: _Turn
    _known: dict[str, str]  # the settings that the share has, as ranks compare them
    _checksum: int  # of these
    _looks: bool  # whether gradients are looked at before a step
    _changed: set[str]  # those that it is to be given

    def __init__(self, book: _core.State, share: _core.State, exchange: Exchange, *, averages: bool) -> None:
        names = [name for name in _row_of(book.rule)["takes"] if not _core.settings[name]["fixed"]]
        for name, value in [
            ("_book", book),
            ("_share", share),
            ("_exchange", exchange),
            ("_n_averaged", exchange.comm.size if averages else 1),
            ("_turn", _Turn(exchange.comm, exchange.exchanged)),
            ("_known", dict.fromkeys(names, "")),
            ("_changed", set(names)),
        ]:
            object.__setattr__(self, name, value)

    @property
    def comm(self) -> Any:
        """The communicator."""
        return self._exchange.comm

    @property
    def share(self) -> _core.State:
        """The State of what this rank keeps: a list of pieces of arrays, each in one dimension. To look at."""
        return self._share

    @property
    def sharded(self) -> bool:
        """Whether each rank keeps a part; a small model is kept whole by all."""
        return self._exchange.layout.sharded

    def __getattr__(self, name: str) -> Any:
        if name in (
            *_row_of(self._book.rule)["takes"],
            "rule",
            "form",
            "step_count",
            "skipped_steps",
            "grad_norm",
        ):
            return getattr(self._book, name)
        msg = f"a State of fast_momentum.mpi has no attribute {name!r}; share has the arrays of this rank"
        raise AttributeError(msg)

    def __setattr__(self, name: str, value: Any) -> None:
        with self._turn.busy:  # it counts from the next step
            setattr(self._book, name, value)
            self._changed.add(name)

    def __repr__(self) -> str:
        return f"{repr(self._book)[:-1]}, rank {self.comm.rank} of {self.comm.size}>"

    def swap_average(self, params: Any) -> None:
        """Exchange `params` and their average, as `fast_momentum.State.swap_average` does; a second call undoes it.

        Collective. `params` are **modified**, and the same on all ranks afterwards.
        """
        with self._turn as meeting:
            _, arrays = lent(self, params)
            pieces, lent_all = self._exchange.lent(arrays)
            self._book.swap_average(params)
            self._meet(meeting)
            self._share.swap_average(pieces)
            self._exchange.spread(lent_all, arrays, [True] * len(arrays))

    # ---- a call ----

    def _step(
        self, meeting: Meeting, arrays: list[Array], grads: list[Any], scale: float
    ) -> tuple[bool, float | None]:
        """The step of all ranks, once all is checked here. Whether it was made, and the norm."""
        exchange = self._exchange
        given = [grad is not None for grad in grads]
        to_send, (pieces, lent_all) = exchange.to_send(grads), exchange.lent(arrays)
        self._meet(meeting, given, scale)
        exchange.send(to_send)
        n_averaged = self._n_averaged
        # Multiplying by a power of two rounds as little as dividing does, and the step can do it.
        in_step = scale == 1 and not self._looks and n_averaged & (n_averaged - 1) == 0
        if in_step:
            scale = 1 / n_averaged
        else:
            _divide(exchange.sums, n_averaged)
        means: list[Array | None] = [*exchange.means]
        if not all(given):
            means = [
                mean if given[piece.array] else None for piece, mean in zip(exchange.mine, means, strict=True)
            ]
        coefficient, norm = 1.0, None
        if self._looks:
            norm, finite = self._look(means, given, scale)
            if not finite and self._book.nonfinite == "raise":
                self._raise_nonfinite(grads, scale)
            if not finite and self._book.nonfinite == "skip":
                return False, norm
            most = self._book.clip_norm
            if most is not None and norm is not None and not norm <= most:
                coefficient = most / norm
        _core.clipped_step(pieces, means, self._share, scale, coefficient)
        exchange.spread(lent_all, arrays, given)
        return True, norm

    def _meet(self, meeting: Meeting, given: list[bool] | None = None, scale: float = 1.0) -> None:
        """With the settings in force, which the share then has, too."""
        if self._changed:
            self._take_settings()
        counts = (self._book.step_count, self._book.skipped_steps)

        def alike() -> list[Named]:
            names = ("grad_scale", "state.step_count", "state.skipped_steps", "where grads are None")
            return [*self._settings(), *zip(names, map(repr, (scale, *counts, given)), strict=True)]

        call = PACKED(scale, *counts, -1 if given is None else len(given)) + bytes(given or ())
        meeting.hold(alike, zlib.crc32(call, self._checksum))

    def _settings(self) -> list[Named]:
        return [(f"state.{name}", value) for name, value in self._known.items()]

    def _take_settings(self) -> None:
        """Give the share those that have been changed, and make the checksum of all."""
        for name in self._known:
            if name not in self._changed:
                continue
            value = getattr(self._book, name)
            if name == "restart" and value is not None:
                msg = (
                    f"state.restart must be None in fast_momentum.mpi, not {value!r}: a rank sees its share alone; "
                    "set it to None"
                )
                raise ValueError(msg)
            if name not in LOOKED_AT:
                setattr(self._share, name, self._of_pieces(value))
            self._known[name] = repr(self._of_arrays(value))
        self._changed.clear()
        looks = self._book.clip_norm is not None or self._book.nonfinite != "propagate"
        object.__setattr__(self, "_looks", looks)
        object.__setattr__(self, "_checksum", checksum_of(self._settings()))

    def _of_arrays(self, value: Any) -> Any:
        """A number for each array, where there is not one for all."""
        if value is None or isinstance(value, (float, int, str)):
            return value
        return [at(value, model.keys) for model in self._exchange.layout.models]

    def _of_pieces(self, value: Any) -> Any:
        numbers = self._of_arrays(value)
        return (
            [numbers[piece.array] for piece in self._exchange.mine] if isinstance(numbers, list) else numbers
        )

    def _look(self, means: list[Array | None], given: list[bool], scale: float) -> tuple[float | None, bool]:
        """The norm of the gradients where it is asked for, and whether they are finite: the same on all ranks."""
        if self._book.clip_norm is not None:
            return _norm_of(self._exchange, means, given, scale)
        finite = _core.all_finite(means, scale)
        return None, self.comm.allreduce(finite, MPI.LAND) if self.sharded else finite

    def _raise_nonfinite(self, grads: list[Array | None], scale: float) -> NoReturn:
        mine = [
            (f"grads{model.path}", grad)
            for model, grad in zip(self._exchange.layout.models, grads, strict=True)
            if grad is not None
        ]
        with Meeting(self.comm) as meeting:
            if not _core.all_finite([grad for _, grad in mine], scale):
                raise _core.NonFiniteGradientError(
                    message([path for path, _ in mine], [grad for _, grad in mine], scale)
                )
            meeting.hold()
        msg = "the sum of grads over all ranks must be finite, not overflow; lower lr or the loss scale, or set nonfinite"
        raise _core.NonFiniteGradientError(msg)


def _divide(sums: list[Array], n: int) -> None:
    if n > 1:
        with np.errstate(all="ignore"):
            for values in sums:
                np.divide(values, values.dtype.type(n), out=values)


def _norm_of(
    exchange: Exchange, means: list[Array | None], given: Sequence[bool], scale: float
) -> tuple[float, bool]:
    """The norm, in the order in which one machine adds up, and whether all is finite."""
    has_float64 = any(
        model.worked_in == np.float64 and model.size and is_given
        for model, is_given in zip(exchange.layout.models, given, strict=True)
    )
    return _core.norm_of_blocks(
        lambda factor: exchange.blocks(_core.sums_of_squares(means, scale, factor), given), has_float64
    )


# ---- functions ----


def _row_of(rule: str) -> dict[str, Any]:
    return next(row for row in _core.rules if row["rule"] == rule)


def _checked_comm(comm: Any) -> Any:
    if not isinstance(comm, MPI.Intracomm):
        msg = f"comm must be a communicator of mpi4py, such as MPI.COMM_WORLD, not {type(comm).__name__}"
        raise TypeError(msg)
    return comm


def checked_state(state: Any) -> State:
    if not isinstance(state, State):
        msg = f"state must be a State of fast_momentum.mpi, as its init() returns it, not {type(state).__name__}"
        raise TypeError(msg)
    return state


def _checked_flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} must be True or False, not {value!r}"
        raise TypeError(msg)
    return bool(value)


def lent(state: State, params: Any) -> tuple[dict[str, Any], list[Array]]:
    """What the state says of itself, and the arrays of `params`, which have been checked."""
    found: tuple[dict[str, Any], list[Array]] = state._book._lend(
        params, lambda description, arrays, _: (description, arrays)
    )
    return found


def make(
    rule: str,
    params: Any,
    comm: Any,
    average: Any,
    deterministic: Any,
    sharded: Any,
    settings: dict[str, Any],
) -> State:
    """What init() and the other functions do."""
    with Meeting(_checked_comm(comm)) as meeting:
        flags = {"average": average, "deterministic": deterministic} | (
            {} if sharded is None else {"sharded": sharded}
        )
        flags = {name: _checked_flag(name, value) for name, value in flags.items()}
        book = _core.kept_elsewhere(rule, params, **settings)
        arrays = book._lend(params, lambda _, arrays, __: arrays)
        models = models_of([keys for keys, _ in leaves(params)], arrays)
        exchange = Exchange(
            comm,
            Layout(models, comm.size, sharded=flags.get("sharded")),
            deterministic=flags["deterministic"],
        )
        state = State(book, _share_of(book, exchange, arrays), exchange, averages=flags["average"])
        alike = [
            ("rule", rule),
            *((name, repr(value)) for name, value in flags.items()),
            ("the arrays of params", repr([model.path for model in models])),
        ]
        alike += [
            (f"the {what} of params{model.path}", repr(value))
            for model, array in zip(models, arrays, strict=True)
            for what, value in described(model, array)
        ]
        alike += [
            (name, repr(getattr(book, name)))
            for name in _row_of(rule)["takes"]
            if _core.settings[name]["fixed"]
        ]
        state._take_settings()
        alike += state._settings()
        meeting.hold(lambda: alike, checksum_of(alike))
    return state


def _share_of(book: _core.State, exchange: Exchange, arrays: list[Array]) -> _core.State:
    """A State of the pieces of this rank. Its settings come with the first call."""
    row = _row_of(book.rule)
    settings = {
        name: getattr(book, name)
        for name in row["takes"]
        if _core.settings[name]["fixed"] or name == "average_decay"
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    share: _core.State = getattr(_core, row["made_by"])(exchange.lent(arrays)[0], lr=0.0, **settings)
    return share


def step(params: Any, grads: Any, state: State, *, grad_scale: Any = 1.0, zero_grads: Any = False) -> None:
    """Make one step of all ranks, with the mean of their gradients. Collective.

    With N ranks, each of which steps its share of the elements::

        d = (grads of rank 0 + ... + grads of rank N-1) / N        then as fast_momentum.step does with d

    Parameters
    ----------
    params : array, or nested list, tuple, dict or dataclass of arrays
        **Modified.** The same on all ranks before, and to the bit afterwards.
    grads : array, or nested list, tuple, dict or dataclass of arrays, or None
        Those of this rank, as in `fast_momentum.step`. Where a gradient is None, it must be so on all ranks.
    state : State
        **Modified.**
    grad_scale : float, optional
        The mean is multiplied by it; the same on all ranks.
    zero_grads : bool, optional
        Whether to set `grads` to zero afterwards.

    Raises
    ------
    TypeError, ValueError, ConcurrentStepError, NonFiniteGradientError
        As `fast_momentum.step`, on all ranks, if any of them is refused; the message begins with its rank. Nothing is
        changed on any rank then.

    Examples
    --------
    On one rank, or on many with ``mpiexec -n 4 python program.py``:

    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from fast_momentum import mpi
    >>> params = {"w": np.ones(3)}
    >>> state = mpi.adam(params, MPI.COMM_WORLD, lr=0.1)
    >>> mpi.step(params, {"w": np.ones(3)}, state)
    >>> print(params["w"].round(6))
    [0.9 0.9 0.9]
    """
    checked_state(state)

    def use(arrays: list[Array], grads: list[Any]) -> tuple[bool, float | None]:
        found = state._step(meeting, arrays, grads, float(grad_scale))
        if zero_grads:
            for grad in grads:
                if grad is not None:
                    grad[...] = 0
        return found

    with state._turn as meeting:
        _core.step_elsewhere(params, grads, state._book, grad_scale, zero_grads, use)


def lookahead(params: Any, state: State, out: Any = None) -> Any:
    """Return the point at which Nesterov's method takes the gradient, as `fast_momentum.lookahead` does. Collective.

    Parameters
    ----------
    params : array, or nested list, tuple, dict or dataclass of arrays
        The same on all ranks; not modified.
    state : State
        Of a rule that has a look-ahead; not modified.
    out : optional
        Arrays like `params`, to be written.

    Returns
    -------
    out
        The same on all ranks.

    Raises
    ------
    TypeError, ValueError, ConcurrentStepError
        On all ranks, if any of them is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from fast_momentum import mpi
    >>> params = np.ones(2)
    >>> state = mpi.init(params, MPI.COMM_WORLD, lr=0.5, momentum=0.5)
    >>> mpi.step(params, np.ones(2), state)
    >>> print(params, mpi.lookahead(params, state))
    [0.5 0.5] [0.25 0.25]
    """
    exchange = checked_state(state)._exchange
    with state._turn as meeting:
        _, arrays = lent(state, params)
        out = _core.lookahead(params, state._book, out)
        _, points = lent(state, out)
        (pieces, _), (results, lent_all) = exchange.lent(arrays), exchange.lent(points)
        state._meet(meeting)
        _core.lookahead(pieces, state._share, results)
        exchange.spread(lent_all, points, [True] * len(points))
    return out


def global_norm(grads: Any, comm: Any, *, average: bool = True, deterministic: bool = False) -> float:
    """Return the norm of the mean of all ranks' gradients, or of their sum. Collective.

    Parameters
    ----------
    grads : array, or nested list, tuple, dict or dataclass of arrays, or None
        Those of this rank; not modified.
    comm : mpi4py.MPI.Intracomm
        The communicator.
    average, deterministic : bool, optional
        As in `fast_momentum.mpi.init`.

    Returns
    -------
    float
        The same on all ranks, as `fast_momentum.global_norm` forms it.

    Raises
    ------
    TypeError, ValueError
        On all ranks, if any of them is refused.

    Examples
    --------
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from fast_momentum import mpi
    >>> mpi.global_norm([np.array([3.0, 4.0])], MPI.COMM_WORLD)
    5.0
    """
    with Meeting(_checked_comm(comm)) as meeting:
        _core.all_finite(grads, 1.0)  # refuses what is none
        found = [(keys, np.asarray(grad)) for keys, grad in leaves(grads) if grad is not None]
        models = models_of([keys for keys, _ in found], [grad for _, grad in found], "grads")
        exchange = Exchange(
            comm,
            Layout(models, comm.size, joins=False),
            deterministic=_checked_flag("deterministic", deterministic),
        )
        n_averaged = comm.size if _checked_flag("average", average) else 1
        to_send = exchange.to_send([grad for _, grad in found])
        alike = [
            (f"the shape of grads{model.path}", repr((model.shape, model.worked_in.name))) for model in models
        ]
        alike.append(("average and deterministic", repr((average, deterministic))))
        meeting.hold(lambda: alike, checksum_of(alike))
        exchange.send(to_send)
        _divide(exchange.sums, n_averaged)
        return _norm_of(exchange, [*exchange.means], [True] * len(models), 1.0)[0]


# ---- the functions that make a State ----

_MAKER_DOC = """Return a `State` of all ranks for `params`, of which each rank keeps a share. Collective.

    The rule is that of `fast_momentum.{name}`, whose settings follow as keywords.

    Parameters
    ----------
    params : array, or nested list, tuple, dict or dataclass of arrays
        The same on all ranks, to the bit. Not modified.
    comm : mpi4py.MPI.Intracomm
        The communicator, which is used by each call with this state.
    average : bool, optional
        Whether to step with the mean of the gradients, or with their sum.
    deterministic : bool, optional
        Whether to form the sum in the order of ranks, so that it depends neither on MPI nor on where shares begin.
    sharded : bool, optional
        Whether each rank keeps a share alone. None: where there are at least {small} elements; below that a message is
        mostly latency, and each rank keeps and steps everything.
    **settings
        As in `fast_momentum.{name}`, the same on all ranks.

    Returns
    -------
    State
        Of `fast_momentum.mpi`.

    Raises
    ------
    TypeError, ValueError
        On all ranks, if any of them is refused, or another one has other arrays, values or settings.

    Examples
    --------
    >>> import numpy as np
    >>> from mpi4py import MPI
    >>> from fast_momentum import mpi
    >>> state = mpi.{name}(np.zeros(3), MPI.COMM_WORLD, lr=0.1)
    >>> state.rule, state.step_count
    ({rule!r}, 0)
    """


def _maker(rule: str) -> Callable[..., State]:
    name = str(_row_of(rule)["made_by"])

    def maker(
        params: Any,
        comm: Any,
        *,
        average: bool = True,
        deterministic: bool = False,
        sharded: bool | None = None,
        **settings: Any,
    ) -> State:
        return make(rule, params, comm, average, deterministic, sharded, settings)

    maker.__name__ = maker.__qualname__ = name
    maker.__module__ = "fast_momentum.mpi"
    maker.__doc__ = _MAKER_DOC.format(name=name, rule=rule, small=SMALL)
    return maker


init, qhm, adam = _maker("momentum"), _maker("qhm"), _maker("adam")
lion, signum, rmsprop = _maker("lion"), _maker("signum"), _maker("rmsprop")
accelerated = _maker("accelerated")
