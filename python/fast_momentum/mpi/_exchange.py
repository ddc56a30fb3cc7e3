"""What travels: gradients to the ranks that step them, parameters to all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

from . import _layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ._agreement import Exchanged
    from ._layout import Bucket, Layout

    Array = NDArray[Any]

CHUNK = 1 << 16  # elements that each rank sends to each at a time, where they are added up here


class Exchange:
    """Between the ranks of a communicator, in a layout; with the memory that it takes, which is kept."""

    def __init__(self, comm: Any, layout: Layout, *, deterministic: bool) -> None:
        self.comm = comm
        self.layout = layout
        self.mine = layout.share(comm.rank)
        self._bounds = [layout.bounds(bucket, comm.rank) for bucket in layout.buckets]
        self._deterministic = deterministic
        self.sums = [
            np.empty(high - low, bucket.worked_in)
            for bucket, (low, high) in zip(layout.buckets, self._bounds, strict=True)
        ]
        self.exchanged: Exchanged | None = None  # see Meeting
        if layout.joined is not None:
            self._message = np.zeros(layout.joined.size + 2 * comm.size, layout.joined.worked_in)
            self.sums[0], self._numbers = np.split(self._message, [layout.joined.size])
            self._places = np.split(self.sums[0], layout.joined.begins[1:])
            self.exchanged = self._join
        self.means = self._pieces(self.sums)  # what they are once they have been divided

    def _pieces(self, buckets: Sequence[Array]) -> list[Array]:
        """Those of this rank, of buckets that have all elements, or those of this rank alone."""
        found = []
        for piece in self.mine:
            low, high = self._bounds[piece.bucket]
            values = buckets[piece.bucket]
            begin = piece.place - (low if len(values) == high - low else 0)
            found.append(values[begin : begin + piece.size])
        return found

    # ---- gradients ----

    def to_send(self, grads: Sequence[Array | None]) -> list[tuple[Bucket, Array, Array]]:
        """Each bucket of which an array has a gradient, what is to be sent of it, and where its sums are to be."""
        found = []
        for bucket, sums in zip(self.layout.buckets, self.sums, strict=True):
            if bucket is self.layout.joined:  # it is sent when ranks meet
                for number, place in zip(bucket.arrays, self._places, strict=True):
                    _layout.put(self.layout.models[number], grads[number], place)
                continue
            if all(grads[number] is None for number in bucket.arrays):
                continue
            values = _layout.view_of(self.layout, bucket, grads, bucket.worked_in)
            if values is None:
                values = np.empty(bucket.size, bucket.worked_in)
                _layout.pack(self.layout, bucket, grads, values, 0, bucket.size)
            found.append((bucket, values, sums))
        return found

    def send(self, buckets: list[tuple[Bucket, Array, Array]]) -> None:
        """Form `sums` of all ranks, of the share of this rank; the next call overwrites them."""
        for bucket, values, sums in buckets:
            self._sum(bucket, values, sums)

    def _join(self, failed: int, checksum: int) -> tuple[int, int, int]:
        """Add up the joined bucket, with two numbers of each rank, where the other ranks have zeros."""
        n_ranks, rank = self.comm.size, self.comm.rank
        low, high = (checksum & 0xFFFF, checksum >> 16) if failed == n_ranks else (-1, 0)  # exact in float32
        self._numbers.fill(0)
        self._numbers[2 * rank], self._numbers[2 * rank + 1] = low, high
        if self._deterministic:
            every = np.empty((n_ranks, len(self._message)), self._message.dtype)
            self.comm.Allgather(self._message, every)
            _add_up(every, self._message)
        else:
            self.comm.Allreduce(MPI.IN_PLACE, self._message)
        found = self._numbers.tolist()
        if found == [low, high] * n_ranks:
            return failed, checksum, checksum
        lows, highs = found[0::2], found[1::2]
        checksums = [int(low) + (int(high) << 16) for low, high in zip(lows, highs, strict=True)]
        return lows.index(-1) if -1 in lows else n_ranks, min(checksums), max(checksums)

    def _sum(self, bucket: Bucket, values: Array, out: Array) -> None:
        if self.comm.size == 1:
            out[...] = values
        elif self._deterministic:
            self._sum_in_order(bucket, values, out)
        elif self.layout.sharded:
            self.comm.Reduce_scatter(values, out, bucket.counts)
        else:
            self.comm.Allreduce(values, out)

    def _sum_in_order(self, bucket: Bucket, values: Array, out: Array) -> None:
        n_ranks = self.comm.size
        if not self.layout.sharded:
            every = np.empty((n_ranks, bucket.size), values.dtype)
            self.comm.Allgather(values, every)
            _add_up(every, out)
            return
        counts, cuts, mine = bucket.counts, bucket.cuts, len(out)
        every = np.empty((n_ranks, min(CHUNK, mine)), values.dtype)
        kind = MPI._typedict[values.dtype.char]
        for begin in range(0, max(counts), CHUNK):
            sent = [min(CHUNK, max(0, count - begin)) for count in counts]
            got = sent[self.comm.rank]
            self.comm.Alltoallv(
                [
                    values,
                    sent,
                    [cut + min(begin, count) for cut, count in zip(cuts, counts, strict=False)],
                    kind,
                ],
                [every, [got] * n_ranks, [rank * every.shape[1] for rank in range(n_ranks)], kind],
            )
            _add_up(every[:, :got], out[begin : begin + got])

    # ---- parameters ----

    def lent(self, params: Sequence[Array]) -> tuple[list[Array], list[tuple[int, Array]]]:
        """The pieces of this rank; and for `spread`, which buckets have them, or copies of which arrays."""
        if not self.layout.sharded:
            pieces, copies = [], []
            for piece in self.mine:
                model, array = self.layout.models[piece.array], params[piece.array]
                values = _layout.flat(model, array)
                if values is None:
                    values = _layout.in_one_piece(model, array)
                    copies.append((piece.array, values))
                pieces.append(values)
            return pieces, copies
        buckets = self._buckets_of_params(params)
        return self._pieces(buckets), [*enumerate(buckets)]

    def _buckets_of_params(self, params: Sequence[Array]) -> list[Array]:
        """Each a view, or a copy in which there is the share of this rank."""
        found = []
        for bucket, (low, high) in zip(self.layout.buckets, self._bounds, strict=True):
            values = _layout.view_of(self.layout, bucket, params, bucket.dtype)
            if values is None:
                values = np.empty(bucket.size, bucket.dtype)
                _layout.pack(self.layout, bucket, params, values, low, high)
            found.append(values)
        return found

    def spread(self, lent: list[tuple[int, Array]], params: Sequence[Array], given: Sequence[bool]) -> None:
        """Let all ranks have what each has in its pieces, of the buckets in which an array is `given`."""
        if not self.layout.sharded:
            for number, values in lent:
                if given[number]:
                    _layout.take(self.layout.models[number], params[number], values)
            return
        for number, values in lent:
            bucket = self.layout.buckets[number]
            if not any(given[array] for array in bucket.arrays):
                continue
            whole = values if values.dtype.itemsize > 2 else values.view(np.uint16)
            gather(self.comm, np.split(whole, bucket.cuts[1:-1]))
            if _layout.view_of(self.layout, bucket, params, bucket.dtype) is None:
                arrays = [array if found else None for array, found in zip(params, given, strict=True)]
                _layout.unpack(self.layout, bucket, arrays, values)

    # ---- numbers ----

    def blocks(self, mine: Array, given: Sequence[bool]) -> Array:
        """From a number for each block of the pieces of this rank, one for each block of the arrays that are `given`."""
        layout = self.layout
        places = [_block_places(layout, rank, given) for rank in range(len(layout.shares))]
        if not layout.sharded:
            found = mine
        else:
            found = np.empty(sum(map(len, places)))
            self.comm.Allgatherv(mine, [found, [len(of_rank) for of_rank in places]])
        ordered = np.empty_like(found)
        ordered[np.concatenate([np.empty(0, int), *places])] = found
        return ordered


def _block_places(layout: Layout, rank: int, given: Sequence[bool]) -> Array:
    """Where the blocks of the pieces of a rank stand among those of all arrays."""
    n_blocks = [
        -(-model.size // _layout.BLOCK) if found else 0
        for model, found in zip(layout.models, given, strict=True)
    ]
    firsts = np.cumsum([0, *n_blocks])
    places = [
        firsts[piece.array] + np.arange(piece.begin // _layout.BLOCK, -(-piece.end // _layout.BLOCK))
        for piece in layout.share(rank)
        if given[piece.array]
    ]
    return np.concatenate([np.empty(0, int), *places])


def gather(comm: Any, shares: Sequence[Array]) -> None:
    """Give the share of each rank to all, in a ring: a third of the time of MPICH's Allgatherv (docs/decisions.md)."""
    n_ranks, rank = comm.size, comm.rank
    for i in range(n_ranks - 1):
        comm.Sendrecv(
            shares[(rank - i) % n_ranks],
            (rank + 1) % n_ranks,
            recvbuf=shares[(rank - i - 1) % n_ranks],
            source=(rank - 1) % n_ranks,
        )


def _add_up(every: Array, out: Array) -> None:
    """In the order of ranks."""
    with np.errstate(all="ignore"):
        np.add(every[0], every[1], out=out)
        for values in every[2:]:
            np.add(out, values, out=out)
