"""Which chunks of a zarr array are on the disk: those that are not read as its fill value.

zarr    a file for each chunk or shard, and in a shard's index an entry for each chunk
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigbox.errors import BadInput
from bigbox.store.box import Box

_NONE = 2**64 - 1  # in a shard's index, where there is no chunk


def absent_chunks(array: Any, region: Sequence[slice] | None = None) -> Iterator[tuple[int, ...]]:
    """Yield the chunks that a zarr array on a disk lacks; only in shards that a region touches."""
    root = getattr(array.store, "root", None)
    if root is None or 0 in array.shape or not array.shape:
        return
    place, edges = Path(root) / array.path, array.shards or array.chunks
    cuts = region or [slice(0, n) for n in array.shape]
    ends = [cut.indices(n)[:2] for cut, n in zip(cuts, array.shape, strict=True)]
    touched = (range(a // e, -(-b // e)) for (a, b), e in zip(ends, edges, strict=True))
    for shard in itertools.product(*touched):
        path = place / array.metadata.encode_chunk_key(shard)
        if not path.is_file():
            yield from _within(shard, array)
        elif array.shards:
            yield from _absent_of_shard(path, shard, array)


def _within(shard: Sequence[int], array: Any) -> Iterator[tuple[int, ...]]:
    """Yield the chunks of a shard that lie in the array, as places in the whole."""
    many = [s // c for s, c in zip(array.shards or array.chunks, array.chunks, strict=True)]
    ends = [-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True)]
    axes = zip(shard, many, ends, strict=True)
    yield from itertools.product(*(range(s * m, min((s + 1) * m, end)) for s, m, end in axes))


def _absent_of_shard(path: Path, shard: Sequence[int], array: Any) -> Iterator[tuple[int, ...]]:
    codec: Any = array.metadata.codecs[0]
    many = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
    checked = any(type(c).__name__ == "Crc32cCodec" for c in codec.index_codecs)
    size = 16 * math.prod(many) + 4 * checked
    with open(path, "rb") as file:
        if getattr(codec.index_location, "value", codec.index_location) == "end":
            file.seek(max(path.stat().st_size - size, 0))
        raw = file.read(size)
    if len(raw) < size:
        raise BadInput(f"{path}: is cut: too short for its index; copy it again")
    index = np.frombuffer(raw, "<u8", 2 * math.prod(many)).reshape(*many, 2)
    for at in _within(shard, array):
        if index[tuple(i % m for i, m in zip(at, many, strict=True))][0] == _NONE:
            yield at


class Whole:
    """An array of a box that was ingested, which reads no voxel that is not there."""

    def __init__(self, box: Box, name: str, array: Any) -> None:
        self._box, self._name, self._array = box, name, array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, region: Any) -> Any:
        values = self._array[region]
        if not np.isfinite(values).all():
            require_there(self._box, self._name)
        return values


def require_there(box: Box, name: str, region: Sequence[slice] | None = None) -> None:
    """Raise BadInput where chunks of a box's array, that was made to its end, are not there."""
    array = box.array(name)
    lacking = next(absent_chunks(array, region), None)
    if lacking is not None:
        way = "paint" if "painting" in array.attrs else "ingest"
        raise BadInput(
            f"{box.place_of(name)}: chunk {lacking} is not there: lost after it was made; restore "
            f"the files of {name}, or {way} the box again"
        )
