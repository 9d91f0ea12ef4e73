"""The shards of tb and the tiles that fill them: arithmetic on one axis at a time.

Every voxel of tb comes from the tile that owns it.  A shard takes the owned cuboids of a block of
tiles, cut at its faces::

    tb shards   |        0        |        1        |  2 |   the last one may be small
    owners      0 0 0 0 0 1 1 1 2 2 2 2 2 3 3 3 4 4 4 4 0    (periodic: tile 0 owns the end too)
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import product

import numpy as np
import numpy.typing as npt

from bigbox.scheduler.tiling import Tiling

Ints = npt.NDArray[np.int64]
Slices = tuple[slice, slice, slice]
# On one axis: a tile's index, its own voxels as a slice of the tile, and as a slice of the shard.
Run = tuple[int, slice, slice]


def default_edges(longest: int) -> tuple[int, int]:
    """(shard, inner chunk) of tb, voxels, for a box whose longest axis has `longest` voxels."""
    if longest <= 256:
        return 64, 32
    if longest <= 1024:
        return 128, 32
    return 256, 64


class TbShards:
    """The shards of tb, named by a linear index, C order over `counts`."""

    def __init__(self, tiling: Tiling, shard: int, chunk: int) -> None:
        self.tiling = tiling
        self.shard = shard
        self.chunk = chunk
        x, y, z = (-(-n // shard) for n in tiling.shape)
        self.counts = (x, y, z)
        self.size = x * y * z
        self._runs = lru_cache(maxsize=256)(self._make_runs)

    def coords(self, i: int) -> tuple[int, int, int]:
        """Index of a shard on x, y, z."""
        x, y, z = (int(c) for c in np.unravel_index(i, self.counts))
        return x, y, z

    def slices(self, i: int) -> Slices:
        """The voxels of a shard, cut at the end of the box."""
        x, y, z = (
            slice(s * self.shard, min((s + 1) * self.shard, n))
            for s, n in zip(self.coords(i), self.tiling.shape, strict=True)
        )
        return x, y, z

    @cached_property
    def _owners(self) -> tuple[Ints, Ints, Ints]:
        """Per axis, int64[N]: index on that axis of the tile that owns a voxel."""

        def one(axis: int) -> Ints:
            voxels = np.zeros((self.tiling.shape[axis], 3), np.int64)
            voxels[:, axis] = np.arange(len(voxels))
            return self.tiling.coords(self.tiling.owner(voxels))[:, axis].copy()

        return one(0), one(1), one(2)

    def _make_runs(self, axis: int, s: int) -> list[Run]:
        n = self.tiling.shape[axis]
        low = s * self.shard
        owner = self._owners[axis][low : low + self.shard]
        cuts = np.flatnonzero(np.diff(owner)) + 1
        runs = []
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(owner)], strict=True):
            index = int(owner[a])
            local = (low + a - int(self.tiling.origins(axis)[index])) % n
            runs.append((index, slice(local, local + b - a), slice(a, b)))
        return runs

    def pieces(self, i: int) -> Iterator[tuple[int, list[tuple[Slices, Slices]]]]:
        """Tiles of a shard, in order, each with (its voxels, where they go in the shard)."""
        per_axis: list[dict[int, list[Run]]] = []
        for axis, s in enumerate(self.coords(i)):
            found: dict[int, list[Run]] = {}
            for run in self._runs(axis, s):
                found.setdefault(run[0], []).append(run)
            per_axis.append(found)
        _, ny, nz = self.tiling.counts
        for x, y, z in product(*(sorted(f) for f in per_axis)):
            parts = product(per_axis[0][x], per_axis[1][y], per_axis[2][z])
            yield (
                (x * ny + y) * nz + z,
                [((a[1], b[1], c[1]), (a[2], b[2], c[2])) for a, b, c in parts],
            )

    def tiles(self, i: int) -> Ints:
        """The tiles whose owned voxels meet a shard, int64, ascending."""
        x, y, z = (
            np.array(sorted({run[0] for run in self._runs(axis, s)}), np.int64)
            for axis, s in enumerate(self.coords(i))
        )
        _, ny, nz = self.tiling.counts
        return ((x[:, None, None] * ny + y[:, None]) * nz + z).ravel()

    @cached_property
    def _of_axis(self) -> tuple[Ints, Ints, Ints]:
        """Per axis, (n, W): shards on that axis that a tile's own voxels meet, -1 padded."""

        def one(axis: int) -> Ints:
            owner = self._owners[axis]
            count = self.counts[axis]
            pairs = np.unique(owner * count + np.arange(len(owner)) // self.shard)
            tile, shard = np.divmod(pairs, count)
            first = np.searchsorted(tile, tile)
            column = np.arange(len(tile)) - first
            table = np.full((self.tiling.counts[axis], int(column.max()) + 1), -1, np.int64)
            table[tile, column] = shard
            return table

        return one(0), one(1), one(2)

    def of_tiles(self, tiles: npt.ArrayLike) -> Ints:
        """The shards that each tile's own voxels meet: (M,) -> int64 (M, W), -1 padded.

        W is 8 at most when shards are larger than tiles, but for a ring whose last shard is
        smaller than a tile (27 then).
        """
        at = self.tiling.coords(np.atleast_1d(np.asarray(tiles, np.int64)))
        x, y, z = (self._of_axis[a][at[:, a]] for a in range(3))
        x, y, z = x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]
        _, sy, sz = self.counts
        found = np.where((x < 0) | (y < 0) | (z < 0), -1, (x * sy + y) * sz + z)
        return found.reshape(len(at), -1)
