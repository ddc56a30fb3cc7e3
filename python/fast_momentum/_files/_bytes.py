"""The bytes of arrays, a piece at a time: out of memory, and from a file into it, with their checksum."""

from __future__ import annotations

import itertools
import math
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import ConcurrentStepError
from ._content import DamagedFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO

    from numpy.typing import NDArray

    from ._content import Part

PIECE = 1 << 20  # bytes that are read, looked at and written before the next ones: they stay in the cache


def blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views that are `array` one after the other in C order, each of at most a piece."""
    if array.nbytes <= PIECE:
        yield array
        return
    n_rows = PIECE * len(array) // array.nbytes
    if n_rows == 0:
        for row in array:
            yield from blocks(row)
    else:
        for begin in range(0, len(array), n_rows):
            yield array[begin : begin + n_rows]


def _blocks_of(part: Part) -> Iterator[NDArray[Any]]:
    return blocks(part.array.T if part.order == "F" else part.array)


def memory_of(array: NDArray[Any]) -> memoryview:
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # a buffer before Python 3.12, too


def bytes_of(part: Part) -> Iterator[memoryview]:
    """All bytes of the array, in the order of the file."""
    if part.source:
        return part.source(part)
    return (memory_of(np.ascontiguousarray(block)) for block in _blocks_of(part))


def checksum_of(part: Part, checksum: int = 0) -> int:
    for memory in bytes_of(part):
        checksum = zlib.crc32(memory, checksum)
    return checksum


def check_unchanged(name: str, part: Part, written: int, checksum: int = 0) -> None:
    """Whether what was written is still what is there: another thread may have changed parameters meanwhile."""
    if checksum_of(part, checksum) != written:
        msg = f"{name} must stay as they are while they are saved, and were changed; save a copy, copy.deepcopy(params)"
        raise ConcurrentStepError(msg)


def read_into(name: str, part: Part, read: Callable[[memoryview], None]) -> None:
    """Fill the memory of `part` with the bytes of its array, which read() gives, in the order of the file."""
    for block in _blocks_of(part):
        made = block if block.flags.c_contiguous else np.empty(block.shape, block.dtype)
        memory = memory_of(made)
        read(memory)
        check_values(name, part, memory)
        if made is not block:
            block[...] = made


def look_at(
    name: str,
    part: Part,
    read: Callable[[memoryview], None],
    use: Callable[[int, memoryview], None] = lambda _begin, _memory: None,
) -> None:
    """At all those bytes, and at what they say; use(begin, memory) may take over some, which begin there."""
    memories = itertools.cycle([memoryview(bytearray(min(PIECE, part.n_bytes))) for _ in range(2)])
    for begin in range(0, part.n_bytes, PIECE):
        memory = next(memories)[: part.n_bytes - begin]
        read(memory)
        check_values(name, part, memory)
        use(begin, memory)


class Reading:
    """Reads memory after memory from a file, while another thread makes the checksum of the last one."""

    def __init__(self, file: FileIO, begin: int, checksum: int = 0) -> None:
        file.seek(begin)
        self._file = file
        self._checksum = checksum
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[int] | None = None

    def __call__(self, memory: memoryview) -> None:
        """Two memories may be used in turns, and not one alone."""
        done = 0
        while done < len(memory):
            n = self._file.readinto(memory[done:])
            if not n:
                msg = "it must not end within an array"
                raise DamagedFileError(msg)
            done += n
        checksum = self.checksum()
        if len(memory) == PIECE:
            with suppress(RuntimeError):  # no thread can be made, or the interpreter is at its end
                self._last = self._thread.submit(zlib.crc32, memory, checksum)
                return
        self._checksum = zlib.crc32(memory, checksum)

    def checksum(self) -> int:
        if self._last:
            self._checksum, self._last = self._last.result(), None
        return self._checksum

    def close(self) -> None:
        self._thread.shutdown()


def check_values(name: str, part: Part, memory: memoryview) -> None:
    """Some bytes of the array: the range that load_state_dict() asks for, and save() has kept. They are looked at before
    the checksum is known."""
    if part.low == -math.inf and part.high == math.inf:
        return
    values = np.frombuffer(memory, part.item_type)
    if values.dtype.kind == "c":
        values = values.view(values.real.dtype)
    if part.dtype == "bfloat16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if part.low == part.high and np.frombuffer(memory, np.uint8).any():  # a -0.0 is none
        msg = f"{name} must be zero where its array has made no step, not hold other values"
        raise DamagedFileError(msg)
    if (values < part.low).any():
        msg = f"{name} must be >= 0 in each element, not hold others"
        raise DamagedFileError(msg)
