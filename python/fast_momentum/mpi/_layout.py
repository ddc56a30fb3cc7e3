"""Which elements belong to which rank, and in which buckets they travel.

A large array is a bucket; smaller ones of one dtype share one, into which they are copied. Each bucket is cut for all
ranks, so that all send and receive as much. Elements are numbered in the order of memory that arrays had at first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._containers import Keys, path_of
from .._files._bytes import memory_of
from .._files._content import axes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]

# Arrays are cut at multiples of what the norm adds up first (fast_momentum.reference.NORM_BLOCK), so that it is the same
# wherever a share begins. int8 has a scale for each 256, which divide it.
BLOCK = 4096
BLOCKS_OF_A_RANK = 64  # of a bucket: cutting at a block leaves shares within a percent of one another
# Elements that arrays share a message up to, where each rank keeps all.
MESSAGE = 1 << 16
# Elements of all arrays below which every rank keeps all, as messages cost more there than steps (docs/decisions.md).
SMALL = 300_000


class Model(NamedTuple):
    """What there is to know of an array."""

    keys: Keys
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    size: int
    axes: tuple[int, ...]  # from the slowest in memory to the fastest

    @property
    def path(self) -> str:
        return path_of(self.keys)

    @property
    def worked_in(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.dtype == np.float64 else np.float32)


class Piece(NamedTuple):
    """Consecutive elements of an array, from `place` on in a bucket."""

    array: int
    begin: int
    end: int
    bucket: int
    place: int

    @property
    def size(self) -> int:
        return self.end - self.begin


@dataclass
class Bucket:
    dtype: np.dtype[Any]
    worked_in: np.dtype[Any]
    arrays: list[int] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)  # of each array
    size: int = 0
    cuts: list[int] = field(default_factory=list)  # where the share of each rank begins, and the end

    def add(self, array: int, size: int) -> None:
        self.arrays.append(array)
        self.begins.append(self.size)
        self.size += size

    @property
    def counts(self) -> list[int]:
        return [end - begin for begin, end in zip(self.cuts, self.cuts[1:], strict=False)]


def models_of(keys: Sequence[Keys], arrays: Sequence[Array], what: str = "params") -> list[Model]:
    for of_one, array in zip(keys, arrays, strict=True):
        if array.dtype.kind == "c":
            msg = (
                f"{what}{path_of(of_one)} must be real in fast_momentum.mpi, not {array.dtype}; "
                f"pass views of its pairs of reals, .view(numpy.{array.real.dtype})"
            )
            raise TypeError(msg)
    return [
        Model(of_one, array.dtype, array.shape, array.size, tuple(axes_of(array)))
        for of_one, array in zip(keys, arrays, strict=True)
    ]


def described(model: Model, array: Array) -> list[tuple[str, Any]]:
    """What ranks must agree about, and as what it is here."""
    values = in_one_piece(model, array)
    return [
        ("dtype", str(model.dtype)),
        ("shape", model.shape),
        ("order of axes in memory", model.axes),
        ("checksum of values", zlib.crc32(memory_of(values))),
    ]


class Layout:
    """Where everything is. `sharded=False`: each rank has all of it, and a small bucket `joins` a meeting."""

    def __init__(
        self, models: list[Model], n_ranks: int, *, sharded: bool | None = None, joins: bool = True
    ) -> None:
        self.models = models
        self.n_ranks = n_ranks
        total = sum(model.size for model in models)
        self.sharded = n_ranks > 1 and (total >= SMALL if sharded is None else sharded)
        self.joined: Bucket | None = None  # one so small that what ranks must agree about goes with it
        if self.sharded:
            self.buckets = _buckets(models, n_ranks * BLOCKS_OF_A_RANK * BLOCK, by="dtype")
            _cut(self.buckets, models, n_ranks)
        else:
            self.buckets = _buckets(models, MESSAGE, by="worked_in")
            if joins and n_ranks > 1 and self.buckets and self.buckets[0].size <= MESSAGE:
                self.joined = self.buckets[0]
        self.shares = [self._share(rank) for rank in range(n_ranks if self.sharded else 1)]

    def share(self, rank: int) -> list[Piece]:
        """The pieces of a rank."""
        return self.shares[rank if self.sharded else 0]

    def bounds(self, bucket: Bucket, rank: int) -> tuple[int, int]:
        return (bucket.cuts[rank], bucket.cuts[rank + 1]) if self.sharded else (0, bucket.size)

    def _share(self, rank: int) -> list[Piece]:
        pieces = []
        for number, bucket in enumerate(self.buckets):
            low, high = self.bounds(bucket, rank)
            for array, place in zip(bucket.arrays, bucket.begins, strict=True):
                size = self.models[array].size
                begin, end = max(low, place), min(high, place + size)
                if size == 0 and rank == 0:  # so that somebody has it
                    pieces.append(Piece(array, 0, 0, number, place))
                elif begin < end:
                    pieces.append(Piece(array, begin - place, end - place, number, begin))
        return pieces


def _buckets(models: list[Model], most: int, by: str) -> list[Bucket]:
    """Of arrays that are alike in the attribute `by`."""
    buckets: list[Bucket] = []
    filling: dict[np.dtype[Any], Bucket] = {}
    for number, model in enumerate(models):
        kind = getattr(model, by)
        bucket = filling.get(kind)
        if model.size >= most or bucket is None or bucket.size + model.size > most:
            bucket = Bucket(model.dtype, model.worked_in)
            buckets.append(bucket)
            if model.size < most:
                filling[kind] = bucket
        bucket.add(number, model.size)
    return buckets


def _cut(buckets: list[Bucket], models: list[Model], n_ranks: int) -> None:
    """So that what each rank has in all buckets so far is as near to its part as blocks allow."""
    total, cut_so_far = 0, [0] * n_ranks
    for bucket in buckets:
        total += bucket.size
        bucket.cuts = [0]
        for rank in range(1, n_ranks):
            wanted = total * rank // n_ranks - cut_so_far[rank]
            cut = max(bucket.cuts[-1], _nearest(bucket, models, wanted))
            bucket.cuts.append(cut)
            cut_so_far[rank] += cut
        bucket.cuts.append(bucket.size)


def _nearest(bucket: Bucket, models: list[Model], wanted: int) -> int:
    """The place where a bucket may be cut that is the nearest to the one wanted."""
    if wanted >= bucket.size:
        return bucket.size
    which = int(np.searchsorted(bucket.begins, wanted, side="right")) - 1
    if which < 0:
        return 0
    begin, size = bucket.begins[which], models[bucket.arrays[which]].size
    return begin + min(size, (wanted - begin + BLOCK // 2) // BLOCK * BLOCK)


# ---- arrays and buckets ----


def in_memory_order(model: Model, array: Array) -> Array:
    return array.transpose(model.axes)


def flat(model: Model, array: Array) -> Array | None:
    """All elements, as a view; None where there is no such one."""
    if array.ndim == 1 and array.flags.c_contiguous:
        return array
    ordered = in_memory_order(model, array)
    return ordered.reshape(-1) if ordered.flags.c_contiguous else None


def in_one_piece(model: Model, array: Array) -> Array:
    """All elements, as a view where there is one, else as a copy."""
    values = flat(model, array)
    return np.ascontiguousarray(in_memory_order(model, array)).reshape(-1) if values is None else values


def view_of(
    layout: Layout, bucket: Bucket, arrays: Sequence[Array | None], dtype: np.dtype[Any]
) -> Array | None:
    """The bucket, where it lies in memory as it is to be."""
    if len(bucket.arrays) > 1 or bucket is layout.joined:
        return None
    (number,) = bucket.arrays
    array = arrays[number]
    if array is None or array.dtype != dtype:
        return None
    return flat(layout.models[number], array)


def pack(
    layout: Layout, bucket: Bucket, arrays: Sequence[Array | None], into: Array, low: int, high: int
) -> None:
    """Copy what lies from `low` to `high` in the bucket; where there is no array, zeros."""
    for number, begin in zip(bucket.arrays, bucket.begins, strict=True):
        model, array = layout.models[number], arrays[number]
        end = begin + model.size
        if begin >= high or end <= low:
            continue
        if array is None or (low <= begin and end <= high):
            put(model, array, into[begin:end])
        else:
            first, last = max(begin, low), min(end, high)
            into[first:last] = in_one_piece(model, array)[first - begin : last - begin]


def put(model: Model, array: Array | None, into: Array) -> None:
    """All elements, in the order of memory; where there is no array, zeros."""
    if array is None:
        into.fill(0)
    elif (values := flat(model, array)) is not None:
        into[...] = values
    else:
        ordered = in_memory_order(model, array)
        into.reshape(ordered.shape)[...] = ordered


def unpack(layout: Layout, bucket: Bucket, arrays: Sequence[Array | None], values: Array) -> None:
    for number, begin in zip(bucket.arrays, bucket.begins, strict=True):
        model, array = layout.models[number], arrays[number]
        if array is not None:
            take(model, array, values[begin : begin + model.size])


def take(model: Model, array: Array, values: Array) -> None:
    """The reverse of `put`."""
    ordered = in_memory_order(model, array)
    ordered[...] = values.reshape(ordered.shape)
