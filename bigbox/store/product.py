"""Say what is stored where, and in which order it is made durable: products of ranks.

    latents/painted   one chunk a tile    appended to one file a brick    product 0 of its ledger
    halo              one chunk a block   appended to one file a brick    product 0 of its ledger
    tb, and others    one chunk a shard   written whole, one file each    products 1, 2, ...

A chunk is done when its record stands in the ledger, and never before its data is durable::

    append   chunk + index behind the file's end -> fsync -> (name -> fsync of the directory)
    whole    shard without a name -> fsync -> rename -> fsync of the directory
             -> record -> fsync                       only now is the chunk done

Who writes is in `bigbox.store.writer`, how a run begins in `bigbox.store.run`.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.bricks import Bricks
from bigbox.scheduler.grid import Grid, Ints
from bigbox.store.fields import Field
from bigbox.store.ledger import Ledger
from bigbox.store.metadata import array_metadata
from bigbox.store.shards import CRC_BYTES, EMPTY, DamagedChunk, Float, Index, read_chunk, read_index

# Files held open at a time.
OPEN_FILES = 64
# Bricks whose index is remembered as the records have it: 8 kB each.
RECORDED = 64
# An index that is being replaced at this very moment is whole again within microseconds; on a
# network file system a little later.  Seconds to wait before each further look.
WAITS = (0.0, 0.0, 0.005, 0.05, 0.2)


@dataclass(frozen=True)
class Product(ABC):
    """An array that ranks fill chunk by chunk."""

    field: Field
    place: Path  # the group that it stands in
    noun: str  # what a chunk is called in messages
    many: str

    @property
    def name(self) -> str:
        """Return the name of the array."""
        return self.field.name

    @property
    def path(self) -> Path:
        """Return the array's directory."""
        return self.place / self.field.name

    @property
    @abstractmethod
    def grid(self) -> Any:
        """Return the chunks as cells of a grid."""

    @property
    def size(self) -> int:
        """Return the number of chunks."""
        return int(self.grid.size)

    @property
    def files(self) -> int:
        """Return the number of files."""
        return self.size

    def file_of(self, chunks: Ints) -> Ints:
        """Return the file of each chunk: (M,) -> int64 (M,)."""
        return chunks

    @abstractmethod
    def file(self, number: int) -> Path:
        """Return a file by its number."""

    def coords(self, chunk: int) -> tuple[int, ...]:
        """Return where a chunk is on x, y, z."""
        return tuple(int(i) for i in np.unravel_index(chunk, self.grid.counts))


@dataclass(frozen=True)
class Appended(Product):
    """One chunk a tile (or block), one append-only file a brick of them."""

    bricks: Bricks[Any]
    shape: tuple[int, ...]  # float32 values of a chunk
    key: str  # name of a brick's file, to be given its x, y, z

    @property
    def grid(self) -> Any:
        """Return the tiles or blocks."""
        return self.bricks.grid

    @property
    def files(self) -> int:
        """Return the number of bricks."""
        return self.bricks.size

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of a chunk on disk."""
        return 4 * int(np.prod(self.shape)) + CRC_BYTES

    def file_of(self, chunks: Ints) -> Ints:
        """Return the brick of each chunk: (M,) -> int64 (M,)."""
        return self.bricks.of_tile(chunks)

    def file(self, number: int) -> Path:
        """Return the file of a brick."""
        return self.path / self.key.format(*np.unravel_index(number, self.bricks.counts))

    def recorded_index(self, ledger: Ledger, brick: int) -> Index:
        """Return the index of a brick's file as the records have it: when its own is lost."""
        return ledger.file_index(self.bricks.cell, brick, self.bricks.slots, self.chunk_bytes)


@dataclass(frozen=True)
class Sharded(Product):
    """One chunk a shard of an array over the box, which one rank writes whole."""

    shards: Grid
    edges: tuple[int, int]  # (shard, inner chunk), voxels

    @property
    def grid(self) -> Grid:
        """Return the shards."""
        return self.shards

    def file(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.path / "c.{}.{}.{}".format(*self.coords(number))

    def metadata(self, about: Mapping[str, Any]) -> bytes:
        """Return zarr.json, with attributes `about` the array: NaN where not made yet."""
        shard, chunk = self.edges
        return array_metadata(
            self.shards.shape,
            (chunk,) * 3,
            shard=(shard,) * 3,
            names=self.field.dims,
            attributes={**self.field.attributes(), **about},
            separator=".",
        )


class ChunkReader:
    """Chunks of an appended product by index, while ranks write it. Thread safe.

    ends: uint64 (bricks,), the committed end of every brick's file when the run began. The owner of
    a brick keeps its own up to date.
    """

    def __init__(self, product: Appended, ends: npt.NDArray[np.uint64], ledger: Ledger) -> None:
        self.product = product
        self._bricks = product.bricks
        self._ends = ends
        self._ledger = ledger
        self._bytes = product.chunk_bytes
        self._open: OrderedDict[int, tuple[int, Index | None]] = OrderedDict()
        self._recorded: OrderedDict[int, Index] = OrderedDict()
        self._lock = Lock()

    def read(self, chunk: int) -> Float:
        """Return a chunk that is known to be done, float32, read-only. Raises DamagedChunk."""
        brick, slot = divmod(int(self._bricks.cell(chunk)), self._bricks.slots)
        for attempt, wait in enumerate(WAITS):
            if wait:
                time.sleep(wait)
            with self._lock:
                values, _ = self._try(brick, slot, again=attempt > 0)
            if values is not None:
                return values
        # The file's own index may be what is damaged, or lag behind: the records know the places
        # too.  All of them are read, which takes a while: without the lock.
        index = self.product.recorded_index(self._ledger, brick)
        with self._lock:
            self._recorded[brick] = index
            self._recorded.move_to_end(brick)
            while len(self._recorded) > RECORDED:
                self._recorded.popitem(last=False)
            values, why = self._try(brick, slot, again=False)
        if values is None:
            file = str(self.product.file(brick))
            raise DamagedChunk(self.product.name, self.product.noun, chunk, file, why)
        return values

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1][0])

    def _try(self, brick: int, slot: int, *, again: bool) -> tuple[Float | None, str]:
        fd, index = self._entry(brick, again)
        if fd < 0:
            return None, "file missing"
        values, why = self._chunk(fd, index, slot)
        recorded = self._recorded.get(brick)
        if values is None and recorded is not None:
            values, _ = self._chunk(fd, recorded, slot)
        return values, why

    def _chunk(self, fd: int, index: Index | None, slot: int) -> tuple[Float | None, str]:
        if index is None:
            return None, "the index of the file is damaged"
        offset, size = (int(word) for word in index[slot])
        if index[slot, 0] == EMPTY:
            return None, "the file does not have it"
        if size != self._bytes:
            return None, f"{size} bytes, {self._bytes} expected"
        values, why = read_chunk(fd, offset, size)
        return None if values is None else values.reshape(self.product.shape), why

    def _entry(self, brick: int, again: bool) -> tuple[int, Index | None]:
        entry = self._open.get(brick)
        if entry is not None and not again:
            self._open.move_to_end(brick)
            return entry
        if entry is not None:
            os.close(self._open.pop(brick)[0])
        try:
            fd = os.open(self.product.file(brick), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1, None
        slots = self._bricks.slots
        # The newest index stands at the end of the file, unless that is torn or being written.
        index = read_index(fd, os.fstat(fd).st_size, slots)
        if index is None:
            index = read_index(fd, int(self._ends[brick]), slots)
        self._open[brick] = (fd, index)
        while len(self._open) > OPEN_FILES:
            os.close(self._open.popitem(last=False)[1][0])
        return fd, index
