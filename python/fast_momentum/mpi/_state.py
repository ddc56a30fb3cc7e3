"""The State of many ranks, and what is done with it."""

from __future__ import annotations

import contextlib
import math
import threading
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from mpi4py import MPI

from .. import _core
from .._containers import at, leaves
from .._nonfinite import message
from ._agreement import checksum_of, together
from ._exchange import Exchange
from ._layout import SMALL, Layout, described, models_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ._agreement import Meeting, Named
    from ._layout import Piece

    Array = NDArray[Any]

LOOKED_AT = ("clip_norm", "nonfinite")  # by all ranks together, and not by the State of a share
# Between these a sum of squares in float64 is right; else it is formed anew with one of the factors.
SMALLEST_SUM, LARGEST_SUM = 2.0**-960, 2.0**960
UPWARDS, DOWNWARDS = 2.0**600, 2.0**-600


class State:
    """What all ranks keep together for one model, as `fast_momentum.mpi.init` and its like make it.

    It has the settings of `fast_momentum.State` as attributes, which are set alike on all ranks, and `rule`, `form`,
    `step_count`, `skipped_steps` and `grad_norm`. The arrays are spread over the ranks: `share` has those of this one.
    """

    __module__ = "fast_momentum.mpi"
    __slots__ = ("_averages", "_book", "_busy", "_exchange", "_known", "_share")

    # _book is a State of all arrays that holds none of them: it checks, counts, and knows the settings.
    # _share is one of this rank's pieces of arrays, with memory.

    _book: _core.State
    _share: _core.State
    _exchange: Exchange
    _averages: bool
    _busy: threading.Lock
    _known: tuple[list[tuple[str, Any]], list[Named], int] | None

    def __init__(self, book: _core.State, share: _core.State, exchange: Exchange, *, averages: bool) -> None:
        for name, value in [
            ("_book", book),
            ("_share", share),
            ("_exchange", exchange),
            ("_averages", averages),
        ]:
            object.__setattr__(self, name, value)
        object.__setattr__(self, "_busy", threading.Lock())
        object.__setattr__(self, "_known", None)  # the settings that the share has, and their checksum

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
        with self._busy:  # it counts from the next step
            setattr(self._book, name, value)

    def __repr__(self) -> str:
        return f"{repr(self._book)[:-1]}, rank {self.comm.rank} of {self.comm.size}>"

    def swap_average(self, params: Any) -> None:
        """Exchange `params` and their average, as `fast_momentum.State.swap_average` does; a second call undoes it.

        Collective. `params` are **modified**, and the same on all ranks afterwards.
        """
        with self._turn() as meeting:
            _, arrays = lent(self, params)
            buckets = self._exchange.params_of(arrays)
            self._book.swap_average(params)
            self._meet(meeting)
            self._share.swap_average(self._exchange.pieces(buckets))
            self._exchange.spread(buckets, arrays, [True] * len(arrays))

    # ---- a call ----

    @contextlib.contextmanager
    def _turn(self) -> Iterator[Meeting]:
        """One call after the other has the communicator; one that comes meanwhile is refused, on all ranks."""
        is_free = self._busy.acquire(blocking=False)
        if not is_free:
            self._busy.acquire()
        try:
            with together(self.comm) as meeting:
                if not is_free:
                    msg = (
                        "state must not be in use by another thread, and was; let one thread at a time use it"
                    )
                    raise _core.ConcurrentStepError(msg)
                yield meeting
        finally:
            self._busy.release()

    def _step(
        self, meeting: Meeting, arrays: list[Array], grads: list[Any], scale: float
    ) -> tuple[bool, float | None]:
        """The step of all ranks, once all is checked here. Whether it was made, and the norm."""
        exchange = self._exchange
        given = [grad is not None for grad in grads]
        grads = [None if grad is None else np.asarray(grad) for grad in grads]
        sent, buckets = exchange.buckets_of(grads), exchange.params_of(arrays)
        self._meet(meeting, given, scale)
        sums = exchange.summed(sent)
        n_averaged = self.comm.size if self._averages else 1
        looks = self._book.clip_norm is not None or self._book.nonfinite != "propagate"
        # Multiplying by a power of two rounds as little as dividing does, and the step can do it.
        in_step = scale == 1 and not looks and n_averaged & (n_averaged - 1) == 0
        if in_step:
            scale = 1 / n_averaged
        else:
            _divide(sums, n_averaged)
        means = [
            mean if given[piece.array] else None
            for piece, mean in zip(self._mine, exchange.pieces(sums), strict=True)
        ]
        coefficient, norm = 1.0, None
        if looks:
            finite, norm = self._look(means, given, scale)
            if not finite and self._book.nonfinite == "raise":
                self._raise_nonfinite(grads, scale)
            if not finite and self._book.nonfinite == "skip":
                return False, norm
            most = self._book.clip_norm
            if most is not None and norm is not None and not norm <= most:
                coefficient = most / norm
        _core.clipped_step(exchange.pieces(buckets), means, self._share, scale, coefficient)
        exchange.spread(buckets, arrays, given)
        return True, norm

    def _meet(self, meeting: Meeting, given: list[bool] | None = None, scale: float = 1.0) -> None:
        """With the settings in force, which the share then has, too."""
        settings, checksum = self._take_settings()
        call = (scale, self._book.step_count, self._book.skipped_steps, given)

        def alike() -> list[Named]:
            names = ("grad_scale", "state.step_count", "state.skipped_steps", "where grads are None")
            return [*settings, *zip(names, map(repr, call), strict=True)]

        meeting.hold(alike, zlib.crc32(repr(call).encode(), checksum))

    def _take_settings(self) -> tuple[list[Named], int]:
        """What is to be the same on all ranks, and its checksum."""
        row = _row_of(self._book.rule)
        settings = [
            (name, getattr(self._book, name)) for name in row["takes"] if not _core.settings[name]["fixed"]
        ]
        if dict(settings).get("restart") is not None:
            msg = (
                f"state.restart must be None in fast_momentum.mpi, not {dict(settings)['restart']!r}: a rank sees its share "
                "alone; set it to None"
            )
            raise ValueError(msg)
        if self._known is None or self._known[0] != settings:
            for name, value in settings:
                if name not in LOOKED_AT:
                    setattr(self._share, name, self._of_pieces(value))
            alike = [(f"state.{name}", repr(self._of_arrays(value))) for name, value in settings]
            object.__setattr__(self, "_known", (settings, alike, checksum_of(alike)))
        assert self._known is not None
        return self._known[1:]

    def _of_arrays(self, value: Any) -> Any:
        """A number for each array, where there is not one for all."""
        if value is None or isinstance(value, (float, int, str)):
            return value
        return [at(value, model.keys) for model in self._exchange.layout.models]

    def _of_pieces(self, value: Any) -> Any:
        numbers = self._of_arrays(value)
        return [numbers[piece.array] for piece in self._mine] if isinstance(numbers, list) else numbers

    @property
    def _mine(self) -> list[Piece]:
        return self._exchange.mine

    def _look(self, means: list[Array | None], given: list[bool], scale: float) -> tuple[bool, float | None]:
        """Whether the gradients are finite, and their norm where it is asked for: the same on all ranks."""
        if self._book.clip_norm is not None:
            return _norm_of(self._exchange, means, given, scale)
        finite = np.array([_core.all_finite(means, scale)], np.int64)
        self.comm.Allreduce(MPI.IN_PLACE, finite, MPI.MIN)
        return bool(finite[0]), None

    def _raise_nonfinite(self, grads: list[Array | None], scale: float) -> NoReturn:
        mine = [
            (f"grads{model.path}", grad)
            for model, grad in zip(self._exchange.layout.models, grads, strict=True)
            if grad is not None
        ]
        with together(self.comm) as meeting:
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
) -> tuple[bool, float]:
    """Whether all is finite, and the norm, in the order in which one machine adds up."""

    def total(factor: float) -> float:
        blocks = exchange.blocks(_core.sums_of_squares(means, scale, factor), given)
        while len(blocks) > 1:  # neighbours in pairs; the last one of an odd number goes on as it is
            pairs = blocks[0::2].copy()
            pairs[: len(blocks) // 2] += blocks[1::2]
            blocks = pairs
        return float(blocks[0]) if len(blocks) else 0.0

    with np.errstate(all="ignore"):
        found, factor = total(1.0), 1.0
        wide = any(
            model.worked_in == np.float64 and model.size and is_given
            for model, is_given in zip(exchange.layout.models, given, strict=True)
        )
        if wide and not SMALLEST_SUM <= found <= LARGEST_SUM:
            factor = UPWARDS if found < SMALLEST_SUM else DOWNWARDS
            found = total(factor)
    return math.isfinite(found), math.sqrt(found) * (1 / factor)


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
    with together(_checked_comm(comm)) as meeting:
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
        alike += state._take_settings()[0]
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
    share: _core.State = getattr(_core, row["made_by"])(
        exchange.pieces(exchange.params_of(arrays)), lr=0.0, **settings
    )
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
    given: list[Any] = []

    def use(arrays: list[Array], grads: list[Any]) -> tuple[bool, float | None]:
        given.extend(grads)
        return state._step(meeting, arrays, grads, float(grad_scale))

    with state._turn() as meeting:
        _core.step_elsewhere(params, grads, state._book, grad_scale, zero_grads, use)
        if zero_grads:
            for grad in given:
                if grad is not None:
                    grad[...] = 0


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
    with state._turn() as meeting:
        _, arrays = lent(state, params)
        out = _core.lookahead(params, state._book, out)
        _, points = lent(state, out)
        buckets, results = exchange.params_of(arrays), exchange.params_of(points)
        state._meet(meeting)
        _core.lookahead(exchange.pieces(buckets), state._share, exchange.pieces(results))
        exchange.spread(results, points, [True] * len(points))
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
    with together(_checked_comm(comm)) as meeting:
        _core.all_finite(grads, 1.0)  # refuses what is none
        found = [(keys, np.asarray(grad)) for keys, grad in leaves(grads) if grad is not None]
        models = models_of([keys for keys, _ in found], [grad for _, grad in found], "grads")
        exchange = Exchange(
            comm, Layout(models, comm.size), deterministic=_checked_flag("deterministic", deterministic)
        )
        n_averaged = comm.size if _checked_flag("average", average) else 1
        sent = exchange.buckets_of([grad for _, grad in found])
        alike = [
            (f"the shape of grads{model.path}", repr((model.shape, model.worked_in.name))) for model in models
        ]
        alike.append(("average and deterministic", repr((average, deterministic))))
        meeting.hold(lambda: alike, checksum_of(alike))
        sums = exchange.summed(sent)
        _divide(sums, n_averaged)
        return _norm_of(exchange, list(exchange.pieces(sums)), [True] * len(models), 1.0)[1]


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
