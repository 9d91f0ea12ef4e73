"""Reading painted tiles, or blocks of haloes, back while this and other ranks write them."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.bricks import Bricks
from bigbox.store.ledger import Ledger
from bigbox.store.shards import (
    CRC_BYTES,
    EMPTY,
    DamagedBlock,
    DamagedTile,
    Float,
    Index,
    decode_chunk,
    pread_all,
    read_index,
)

# Files held open at a time.
OPEN_FILES = 64
# Bricks whose index is remembered as the records have it: 8 kB each.
RECORDED = 64
# An index that is being replaced at this very moment is whole again within microseconds; on a
# network file system a little later.  Seconds to wait before each further look.
WAITS = (0.0, 0.0, 0.005, 0.05, 0.2)


@dataclass(frozen=True)
class ChunkArray:
    """An array in append-only shards: one shard a brick, one chunk a tile (or block) of it.

    name: of the array in its box; place: its directory; shape: float32 values of a chunk; key: name
    of a brick's file; damaged: the error for a chunk that cannot be had.
    """

    name: str
    place: Path
    bricks: Bricks
    shape: tuple[int, ...]
    key: str
    damaged: type[DamagedTile]

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk on disk."""
        return 4 * int(np.prod(self.shape)) + CRC_BYTES

    def path(self, brick: int) -> Path:
        """The shard that holds a brick."""
        x, y, z = np.unravel_index(brick, self.bricks.counts)
        return self.place / self.key.format(x, y, z)


def painted_tiles(place: Path, bricks: Bricks) -> ChunkArray:
    """latents/painted of the painting at `place`: T_b of a tile, (t, t, t) mK."""
    name, t = "latents/painted", bricks.tiling.tile
    return ChunkArray(name, place / name, bricks, (t, t, t), "c.{}.{}.{}.0.0.0", DamagedTile)


def halo_blocks(box_path: Path, bricks: Bricks, channels: int) -> ChunkArray:
    """halo of a box: (channels, b, b, b) (M_sun/h) / (Mpc/h)^3, NaN beyond the box's end."""
    b = bricks.tiling.tile
    return ChunkArray(
        "halo", box_path / "halo", bricks, (channels, b, b, b), "c.0.{}.{}.{}", DamagedBlock
    )


def brick_path(place: Path, bricks: Bricks, brick: int) -> Path:
    """The shard of latents/painted that holds a brick."""
    return painted_tiles(place, bricks).path(brick)


class TileReader:
    """Chunks of an array by index, thread safe; keeps a bounded number of files open.

    `ends`: (bricks,) committed end of every brick's file when the run began; the owner of the
    array keeps its own bricks' up to date.
    """

    def __init__(self, array: ChunkArray, ends: npt.NDArray[np.uint64], ledger: Ledger) -> None:
        self._array = array
        self._bricks = array.bricks
        self._ends = ends
        self._ledger = ledger
        self._bytes = array.chunk_bytes
        self._open: OrderedDict[int, tuple[int, Index | None]] = OrderedDict()
        self._recorded: OrderedDict[int, Index] = OrderedDict()
        self._lock = Lock()

    def read(self, tile: int) -> Float:
        """A tile or block, float32 of the array's chunk shape, read-only; only what is known to be
        done. Raises the array's error (DamagedTile, DamagedBlock) if it cannot be had.
        """
        cell = int(self._bricks.cell(tile))
        brick, slot = divmod(cell, self._bricks.slots)
        for attempt, wait in enumerate(WAITS):
            if wait:
                time.sleep(wait)
            with self._lock:
                values, _ = self._try(brick, slot, again=attempt > 0)
            if values is not None:
                return values
        # The file's own index may be what is damaged, or lag behind: the records know the places
        # too.  All of them are read, which takes a while: without the lock.
        index = self._ledger.brick_index(self._bricks, brick, self._bytes)
        with self._lock:
            self._recorded[brick] = index
            self._recorded.move_to_end(brick)
            while len(self._recorded) > RECORDED:
                self._recorded.popitem(last=False)
            values, why = self._try(brick, slot, again=False)
        if values is None:
            path = self._array.path(brick)
            raise self._array.damaged(self._array.name, tile, str(path), why)
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
        if index[slot, 0] == EMPTY:
            return None, "the file does not have it"
        if int(index[slot, 1]) != self._bytes:
            return None, f"{int(index[slot, 1])} bytes, {self._bytes} expected"
        raw = pread_all(fd, self._bytes, int(index[slot, 0]))
        if len(raw) != self._bytes:
            return None, f"file cut inside it, at byte {int(index[slot, 0]) + len(raw)}"
        values = decode_chunk(raw)
        if values is None:
            return None, f"checksum wrong at byte {int(index[slot, 0])}"
        return values.reshape(self._array.shape), ""

    def _entry(self, brick: int, again: bool) -> tuple[int, Index | None]:
        entry = self._open.get(brick)
        if entry is not None and not again:
            self._open.move_to_end(brick)
            return entry
        if entry is not None:
            os.close(self._open.pop(brick)[0])
        try:
            fd = os.open(self._array.path(brick), os.O_RDONLY | os.O_CLOEXEC)
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
