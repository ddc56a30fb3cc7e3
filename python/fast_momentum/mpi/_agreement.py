"""All ranks go on, or all raise the same."""

from __future__ import annotations

import builtins
import sys
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from mpi4py import MPI

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_PACKAGE = "fast_momentum"  # has errors of its own
Exchanged = Callable[[int, int], tuple[int, int, int]]
Named = tuple[str, str]  # what must be alike, and as what it is here


class Meeting:
    """A call of all ranks, which hold the meeting when nothing is left to be refused, and fail it if they are before.

    It is one allreduce, and more of them where a rank is refused.
    `exchanged(failed, checksum)` sends the numbers of this rank, and returns the least failed, and the least and the most
    checksum of all: by a message of their own, or with others that travel in any case.
    """

    def __init__(self, comm: Any, exchanged: Exchanged | None = None) -> None:
        self._comm = comm
        self._exchanged = exchanged or self._alone
        self.held = False  # of this call

    def __enter__(self) -> Self:
        self.held = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self.held:
            self.fail(error)

    def hold(self, alike: Callable[[], Sequence[Named]] = tuple, checksum: int = 0) -> None:
        """Return where every rank has come here with the same, of which `checksum` is made."""
        self.held = True
        failed, least, most = self._exchanged(self._comm.size, checksum)
        if failed < self._comm.size:
            raise self._told(failed, None)
        if least != most:
            self._refuse_different(alike())

    def fail(self, error: BaseException) -> NoReturn:
        """Let all ranks raise: this error, or that of a lower rank."""
        self.held = True
        failed, _, _ = self._exchanged(self._comm.rank, 0)
        found = self._told(failed, error)
        if not isinstance(error, Exception):
            raise error
        raise found from (error if failed == self._comm.rank else None)

    def _alone(self, failed: int, checksum: int) -> tuple[int, int, int]:
        numbers = np.array([failed, checksum, -checksum], np.int64)
        self._comm.Allreduce(MPI.IN_PLACE, numbers, MPI.MIN)
        return int(numbers[0]), int(numbers[1]), -int(numbers[2])

    def _told(self, rank: int, error: BaseException | None) -> Exception:
        mine = None
        if rank == self._comm.rank:
            mine = (type(error).__name__, str(error) or type(error).__name__)
        name, text = self._comm.bcast(mine, root=rank)
        kind = getattr(sys.modules[_PACKAGE], name, None) or getattr(builtins, name, None)
        message = f"rank {rank}: {text}"
        if isinstance(kind, type) and issubclass(kind, Exception):
            try:
                return kind(message)
            except TypeError:  # one that takes more than a message
                pass
        return RuntimeError(message)

    def _refuse_different(self, alike: Sequence[Named]) -> NoReturn:
        first = self._comm.bcast(list(alike), root=0)
        error = None
        for (name, there), (_, here) in zip(first, alike, strict=False):
            if here != there:
                error = ValueError(f"{name} must be the same on all ranks, {there} as on rank 0, not {here}")
                break
        else:
            if len(first) != len(alike):
                error = ValueError(
                    f"params must have the same arrays on all ranks, {len(first)} values as on rank 0, not {len(alike)}"
                )
        if error:
            self.fail(error)
        self.hold()
        msg = "all ranks must call the same function in the same order"
        raise ValueError(msg)


def checksum_of(alike: Sequence[Named]) -> int:
    return zlib.crc32(repr(alike).encode())
