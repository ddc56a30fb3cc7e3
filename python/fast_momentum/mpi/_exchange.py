"""What travels: gradients to the ranks that step them, parameters to all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mpi4py import MPI

from . import _layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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
        self._sums = [
            np.empty(high - low, bucket.worked_in)
            for bucket, (low, high) in zip(layout.buckets, self._bounds, strict=True)
        ]

    def pieces(self, buckets: Sequence[Array]) -> list[Array]:
        """Those of this rank, of buckets that have all elements, or those of this rank alone."""
        found = []
        for piece in self.mine:
            low, high = self._bounds[piece.bucket]
            values = buckets[piece.bucket]
            begin = piece.place - (low if len(values) == high - low else 0)
            found.append(values[begin : begin + piece.size])
        return found

    # ---- gradients ----

    def buckets_of(self, grads: Sequence[Array | None]) -> list[Array | None]:
        """What is to be sent of each bucket; None where no array of it has a gradient."""
        found: list[Array | None] = []
        for bucket in self.layout.buckets:
            if all(grads[number] is None for number in bucket.arrays):
                found.append(None)
                continue
            values = _layout.view_of(self.layout, bucket, grads, bucket.worked_in)
            if values is None:
                values = np.empty(bucket.size, bucket.worked_in)
                _layout.pack(self.layout, bucket, grads, values, 0, bucket.size)
            found.append(values)
        return found

    def summed(self, buckets: list[Array | None]) -> list[Array]:
        """The sums over all ranks, of the share of this rank, for each bucket; in memory that the next call reuses."""
        for bucket, values, out in zip(self.layout.buckets, buckets, self._sums, strict=True):
            if values is not None:
                self._sum(bucket, values, out)
        return self._sums

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

    def params_of(self, params: Sequence[Array]) -> list[Array]:
        """Each bucket of parameters: a view, or a copy in which there is the share of this rank."""
        found = []
        for bucket, (low, high) in zip(self.layout.buckets, self._bounds, strict=True):
            values = _layout.view_of(self.layout, bucket, params, bucket.dtype)
            if values is None:
                values = np.empty(bucket.size, bucket.dtype)
                _layout.pack(self.layout, bucket, params, values, low, high)
            found.append(values)
        return found

    def spread(self, buckets: list[Array], params: Sequence[Array], given: Sequence[bool]) -> None:
        """Let all ranks have what each has in its share, of the buckets in which an array is `given`."""
        for bucket, values in zip(self.layout.buckets, buckets, strict=True):
            if not any(given[number] for number in bucket.arrays):
                continue
            if self.layout.sharded:
                sent: Any = values if values.dtype.itemsize > 2 else values.view(np.uint16)
                self.comm.Allgatherv(
                    MPI.IN_PLACE, [sent, bucket.counts, bucket.cuts[:-1], MPI._typedict[sent.dtype.char]]
                )
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


def _add_up(every: Array, out: Array) -> None:
    """In the order of ranks."""
    with np.errstate(all="ignore"):
        np.add(every[0], every[1], out=out)
        for values in every[2:]:
            np.add(out, values, out=out)
