"""Cut slabs from painted tiles, and keep them until their one use by a neighbour.

Across a face whose neighbour has the higher colour, a painted tile owes that neighbour the slab
that both share, full cross-section (edges and corners come with it, because a tile has the voxels
of earlier tiles pasted in):

        tile, painted            neighbour across (axis 0, side 1), waiting
      ┌──────────────┬───┐
      │              │ s │┬──────────────┐      s: cut as (tile, 0, 1),
      │              │ l ││              │         used by the neighbour at (0, 0)
      │              │ a ││              │
      └──────────────┴───┘┴──────────────┘

Each slab is used once, by one tile. Slabs are held in memory up to a limit; beyond it the oldest
durable ones are dropped and read back from the store when their turn comes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bigbox.engine.transport import Parcel
from bigbox.scheduler.stages import awaited_across_faces
from bigbox.scheduler.stages import known as known_widths
from bigbox.scheduler.tiling import Tiling

Name = tuple[int, int, int]  # tile, axis, side


@dataclass(frozen=True)
class Slab:
    """The part of a painted tile that a face neighbour shares: float32 (fields, ., ., .)."""

    tile: int
    axis: int
    side: int
    data: np.ndarray


def packed(slabs: Sequence[Slab]) -> Parcel:
    """Return slabs as they travel: (tile, axis, side) of each, and their voxels."""
    names = np.array([(s.tile, s.axis, s.side) for s in slabs], np.int64).reshape(-1)
    voxels = [np.ascontiguousarray(s.data, np.float32).reshape(-1) for s in slabs]
    return Parcel(names, np.concatenate(voxels) if voxels else np.empty(0, np.float32))


def local_slab(tile: int, axis: int, side: int, width: int) -> tuple[slice, ...]:
    """Return the slab of `width` voxels at a face, as slices of (fields, tile, tile, tile)."""
    cut = [slice(None)] * 4
    cut[1 + axis] = slice(0, width) if side == 0 else slice(tile - width, tile)
    return tuple(cut)


class Overlaps:
    """Slabs in hand, at most `limit_bytes` of those that the store holds too."""

    def __init__(
        self,
        tiling: Tiling,
        fields: int,
        limit_bytes: int,
        read_tile: Callable[[int], np.ndarray],
    ):
        self._tiling = tiling
        self._fields = fields
        self._limit = limit_bytes
        self._read_tile = read_tile
        self._pinned: dict[Name, np.ndarray] = {}
        self._durable: OrderedDict[Name, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._widths = [[w.tolist() for w in tiling.widths(axis)] for axis in range(3)]
        self._strides = tiling.strides

    def width(self, tile: int, axis: int, side: int) -> int:
        """Return the voxels that `tile` shares with its neighbour across a face."""
        at = tile // self._strides[axis] % self._tiling.counts[axis]
        return int(self._widths[axis][side][at])

    def slab_shape(self, tile: int, axis: int, side: int) -> tuple[int, ...]:
        """(fields, ., ., .) of a slab."""
        shape = [self._fields] + [self._tiling.tile] * 3
        shape[1 + axis] = self.width(tile, axis, side)
        return tuple(shape)

    def unpacked(self, parcel: Parcel) -> list[Slab]:
        """Return the slabs of a parcel.

        They are copies: as views, the last slab in use would keep the whole message in memory.
        """
        voxels, at, slabs = parcel.data.view(np.float32), 0, []
        for tile, axis, side in parcel.numbers.reshape(-1, 3).tolist():
            shape = self.slab_shape(tile, axis, side)
            count = int(np.prod(shape))
            slabs.append(Slab(tile, axis, side, voxels[at : at + count].reshape(shape).copy()))
            at += count
        return slabs

    def cut(self, tiles: np.ndarray, fields: np.ndarray) -> tuple[np.ndarray, list[Slab]]:
        """Every slab that newly painted tiles owe, and the neighbour that waits for each, int64.

        fields: float32 (M, F, t, t, t).
        """
        waiting = awaited_across_faces(self._tiling, tiles)
        slabs = []
        for row, axis, side in np.argwhere(waiting >= 0).tolist():
            tile = int(tiles[row])
            where = local_slab(self._tiling.tile, axis, side, self.width(tile, axis, side))
            slabs.append(Slab(tile, axis, side, fields[row][where].copy()))
        return waiting[waiting >= 0], slabs

    def keep(self, slabs: Iterable[Slab], durable: bool) -> None:
        """Take slabs in hand; those of tiles not yet durable are never dropped."""
        with self._lock:
            for slab in slabs:
                name = (slab.tile, slab.axis, slab.side)
                if durable:
                    self._hold(name, slab.data)
                else:
                    self._pinned[name] = slab.data
            self._trim()

    def now_durable(self, tiles: np.ndarray) -> None:
        """Note that the store holds these tiles: their slabs may be dropped for want of memory."""
        with self._lock:
            for tile in tiles.tolist():
                for axis in range(3):
                    for side in range(2):
                        data = self._pinned.pop((tile, axis, side), None)
                        if data is not None:
                            self._hold((tile, axis, side), data)
            self._trim()

    def _hold(self, name: Name, data: np.ndarray) -> None:
        self._durable[name] = data
        self._bytes += data.nbytes

    def _trim(self) -> None:
        while self._bytes > self._limit:
            _, data = self._durable.popitem(last=False)
            self._bytes -= data.nbytes

    def _take(self, name: Name) -> np.ndarray | None:
        with self._lock:
            if name in self._pinned:
                return self._pinned.pop(name)
            data = self._durable.pop(name, None)
            if data is not None:
                self._bytes -= data.nbytes
            return data

    def known(self, tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the voxels of `tiles` that earlier tiles painted, and how wide their slabs are.

        Returns float32 (M, F, t, t, t), zero where unknown, and int64 (M, 3, 2). Takes the slabs
        out of hand. Raises DamagedTile when one has to be read back and its bytes are wrong.
        """
        t = self._tiling.tile
        width = known_widths(self._tiling, tiles)
        neighbours = self._tiling.neighbours(tiles)
        known = np.zeros((len(tiles), self._fields, t, t, t), dtype=np.float32)
        for row, axis, side in np.argwhere(width).tolist():
            here = local_slab(t, axis, side, int(width[row, axis, side]))
            tile = int(neighbours[row, axis, side])
            data = self._take((tile, axis, 1 - side))
            if data is None:
                there = local_slab(t, axis, 1 - side, int(width[row, axis, side]))
                data = self._read_tile(tile)[there]
            known[row][here] = data
        return known, width
