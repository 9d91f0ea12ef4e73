"""Read cut-outs of a large array through a cache of whole chunks."""

from __future__ import annotations

import math
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tensorstore
import zarr

from bigbox.errors import BadInput, of_system
from bigbox.scheduler.grid import Cover, Piece, Slices
from bigbox.store.shards import Float


class CutoutReader:
    """Cut-outs of (X, Y, Z) or (channels, X, Y, Z) arrays, wrapped around periodic axes.

        chunks    |----|----|----|      read(origin 10, shape 4) on 12 periodic voxels
        voxels    0    4    8   12  ->  10 11 0 1: two chunks, kept for the next cut-out

    Beyond an open edge the voxel at the edge is repeated.  Thread safe, one cut-out after the
    other; holds at most `cache_bytes` of chunks, one at least, besides the cut-outs being made.

    step: only every so many voxels on each axis are of interest, from the first one on: these are
    what shape, origins and cut-outs count, and what is kept of a chunk.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        periodic: Sequence[bool] = (True, True, True),
        cache_bytes: int = 256 << 20,
        step: int = 1,
    ) -> None:
        if array.ndim not in (3, 4):
            raise BadInput(f"{array.path or array.store}: {array.ndim} dimensions, must be 3 or 4")
        whole = tuple(int(n) for n in array.shape[-3:])
        self.chunk = tuple(int(n) for n in array.chunks[-3:])
        if min(self.chunk) < step:
            raise BadInput(f"{array.store_path}: chunks of {self.chunk} voxels are below {step}")
        self.shape = tuple(-(-n // step) for n in whole)
        self.cache_bytes = cache_bytes
        self._chunks = [_sampled(n, c, step) for n, c in zip(whole, self.chunk, strict=True)]
        self._whole, self._step = whole, step
        self._array = array
        self._source = _source(array, self)
        self._lead = tuple(int(n) for n in array.shape[:-3])
        self._periodic = tuple(bool(p) for p in periodic)
        longest = (int(axis.length.max()) for axis in self._chunks)
        self._longest = (*self._lead, *longest)
        chunks = math.prod(len(axis.length) for axis in self._chunks)
        most = max(1, min(cache_bytes // (4 * math.prod(self._longest)), chunks))
        # One array for all chunks, used as far as it is needed: one each, that come and go between
        # the arrays of batches, would leave half as much again in pieces.
        self._places = np.empty((most, *self._longest), np.float32)
        self._free = list(range(most))[::-1]
        self._open: OrderedDict[tuple[int, ...], tuple[int, Float]] = OrderedDict()
        self._lock = Lock()

    @property
    def channels(self) -> int:
        """Return the channels of the array, 1 where it has no such axis."""
        return math.prod(self._lead)

    def read(self, origin: Sequence[int], shape: Sequence[int], out: Float | None = None) -> Float:
        """Return the cut-out at voxel `origin` (any integer) of `shape` voxels, float32, C order.

        out: float32, C order, of that many voxels and channels: where it is put.

        Raises BadInput naming the array and the chunk where a chunk's checksum is wrong, or where
        it holds a value that is not finite: so zarr reads what was never written, or is lost.
        """
        piece = lambda key, at: self._block(key)[(..., *at)]  # noqa: E731
        if out is not None:
            out = out.reshape(*self._lead, *shape)
        with self._lock:
            return read_cutout(piece, self._chunks, self._periodic, origin, shape, self._lead, out)

    def _block(self, key: tuple[int, ...]) -> Float:
        """Return a chunk, good until the next call."""
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key][1]
        fetched = self._fetch(key)
        place = self._free.pop() if self._free else self._open.popitem(last=False)[1][0]
        block: Float = self._places[place][tuple(slice(n) for n in fetched.shape)]
        block[...] = fetched
        self._open[key] = place, block
        return block

    def _fetch(self, key: tuple[int, ...]) -> Float:
        x, y, z = (
            slice(k * c, min((k + 1) * c, n))
            for k, c, n in zip(key, self.chunk, self._whole, strict=True)
        )
        cause: Exception | None = None
        try:
            read = self._source[..., x, y, z].read().result()
            every = (slice(-cut.start % self._step, None, self._step) for cut in (x, y, z))
            block = np.ascontiguousarray(read[(..., *every)], dtype=np.float32)
            if np.isfinite(block).all():
                return block
            why = f"{int((~np.isfinite(block)).sum())} of its {block.size} values are not finite"
        except (ValueError, OSError, RuntimeError) as error:
            if (fault := of_system(error)) is not None:
                raise fault from error
            why, cause = str(error), error
        raise BadInput(
            f"{self._array.store_path}: chunk {key} (voxels from {(x.start, y.start, z.start)}) is"
            f" damaged or missing: {why}; ingest the array again, or restore the file"
        ) from cause


def _sampled(n: int, chunk: int, step: int) -> Cover:
    """Return the chunks of an axis in every `step`-th of its n voxels, those in each chunk."""
    ends = -(-np.append(np.arange(0, n, chunk, dtype=np.int64), n) // step)
    holds = np.diff(ends) > 0  # the last may be cut before its first
    return Cover(int(ends[-1]), ends[:-1][holds], np.diff(ends)[holds])


def read_cutout(
    piece: Callable[[tuple[int, ...], Slices], Float],
    chunks: Sequence[Cover],
    periodic: Sequence[bool],
    origin: Sequence[int],
    shape: Sequence[int],
    lead: tuple[int, ...] = (),
    into: Float | None = None,
) -> Float:
    """Put a cut-out together, wrapped or with the voxels at open edges repeated.

    piece: returns voxels of a chunk, given as slices of it; lead: the axes before the voxels';
    into: float32 of the cut-out's shape that it is put into.
    """
    wanted = [(int(low), int(low) + int(n)) for low, n in zip(origin, shape, strict=True)]
    inside = [
        (low, high) if wraps else (min(max(low, 0), axis.n - 1), min(max(high, 1), axis.n))
        for (low, high), wraps, axis in zip(wanted, periodic, chunks, strict=True)
    ]
    whole = inside == wanted
    out = into if into is not None and whole else None
    if out is None:
        out = np.empty(lead + tuple(b - a for a, b in inside), np.float32)
    axes = (_pieces(axis, *ends) for axis, ends in zip(chunks, inside, strict=True))
    for (i, xt, xs), (j, yt, ys), (k, zt, zs) in product(*axes):
        out[..., xt, yt, zt] = piece((i, j, k), (xs, ys, zs))
    if whole:
        return out
    for axis, (ends, (low, high)) in enumerate(zip(wanted, inside, strict=True), start=-3):
        if ends != (low, high):
            out = out.take(np.clip(np.arange(*ends), low, high - 1) - low, axis)
    if into is None:
        return out
    into[...] = out
    return into


@lru_cache(maxsize=1 << 12)
def _pieces(axis: Cover, low: int, high: int) -> list[Piece]:
    """Return how voxels [low, high) of an axis lie in its chunks; neighbours ask for the same."""
    return Cover.equal(axis.n, low, high - low).pieces(0, axis)


def _source(array: zarr.Array[Any], reader: CutoutReader) -> Any:
    """Return the same array on disk, by tensorstore: chunks in a third of zarr-python's time.

    It keeps no chunks itself, and does with one thread what one reader asks for.
    """
    store: Any = array.store
    path = Path(store.root) / array.path
    try:
        str(path).encode()
    except UnicodeEncodeError:  # a Latin-1 name, say: tensorstore takes UTF-8 alone
        folder = os.open(path, os.O_PATH | os.O_DIRECTORY)
        weakref.finalize(reader, os.close, folder)
        path = Path(f"/proc/self/fd/{folder}")
    return tensorstore.open(
        {
            "driver": "zarr3",
            "kvstore": {"driver": "file", "path": f"{path}/"},
            "context": {
                "cache_pool": {"total_bytes_limit": 0},
                "data_copy_concurrency": {"limit": 1},
                "file_io_concurrency": {"limit": 1},
            },
        },
        open=True,
        read=True,
    ).result()
