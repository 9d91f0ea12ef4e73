"""How points are sorted by brick: a pass over them in bounded chunks, into one file per brick.

A brick is one shard of the array that the points become. Its window is what its voxels need: the
brick, the reach m of the smoothing, and one voxel more, as a particle's cloud spreads over two.

     lo-m-1   lo                    hi   hi+m
       | . : . |                     | . : . |        a point goes to every brick whose window
       | . : . |       brick         | . : . |        holds the lower voxel of its cloud, periodic
       | . : . |                     | . : . |        images included: most to one, few to eight

A record is three uint32, the place in the window (see `bigbox.ingestion.cic`), and a float32 weight
where the points have one: 12 or 16 bytes.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bigbox.errors import BadInput
from bigbox.ingestion.cic import CHUNK, PLACE, PLACE_BITS, deposit_fixed, fixed_exponent
from bigbox.scheduler.grid import Cover, Grid, Ints
from bigbox.scheduler.meeting import AxisMeeting

MOST_VOXELS = 1 << (32 - PLACE_BITS)  # voxels on a side of a window that a record can address
UNIT = 149  # every float32 is a whole multiple of 2^-149


def _images(bricks: Cover, margin: int) -> tuple[Ints, Ints]:
    """Brick, and place in its window, of the k-th window that holds a voxel: (images, n), or -1."""
    edge = int(bricks.length.max())
    if edge + 2 * margin + 2 > MOST_VOXELS:
        raise BadInput(
            f"smoothing reaches {margin} voxels, at most {(MOST_VOXELS - 2 - edge) // 2} are "
            "possible: choose a smaller --smoothing or a coarser --grid"
        )
    windows = Cover(bricks.n, bricks.first - margin - 1, bricks.length + 2 * margin + 1)
    voxels = Cover.regular(bricks.n, 1)
    pieces = [windows.pieces(brick, voxels) for brick in range(windows.count)]
    held = AxisMeeting(pieces, bricks.n).inverse.rows
    table = np.full((2, max(map(len, held)), bricks.n), -1, np.int64)
    for voxel, found in enumerate(held):
        table[:, : len(found), voxel] = np.transpose([(brick, at.start) for brick, _, at in found])
    return table[0], table[1]


class SortedPoints:
    """Points of one field on disk, in a new folder, one file for each brick of a partition.

    A brick's field reaches `margin` voxels beyond it. Threads may add at the same time.
    """

    def __init__(self, folder: Path, bricks: Grid, margin: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.bricks = bricks
        self.margin = margin
        self._axes = [_images(axis, margin) for axis in bricks.axes]
        self._lock = threading.Lock()
        self._count: dict[int, int] = {}
        self._heaviest: dict[int, float] = {}
        self.weighted: bool | None = None
        self.points = 0  # each counted once
        self._total = 0  # their weights' sum, exactly, in units of 2^-UNIT

    def add(self, place: NDArray[np.float64], weights: NDArray[np.float32] | None) -> None:
        """Sort points into the bricks' files.

        Places, (M, 3), are voxels from the box's corner, in any image. Weights, (M,), are >= 0;
        None is 1 each.
        """
        total = len(place) << UNIT if weights is None else exact_sum(weights)
        with self._lock:
            self.points += len(place)
            self._total += total
        steps = np.rint((place - 0.5) * PLACE).astype(np.int64)
        steps %= np.array(self.bricks.shape, np.int64) << PLACE_BITS
        low, fraction = steps >> PLACE_BITS, steps & (PLACE - 1)
        for images in itertools.product(*(range(len(brick)) for brick, _ in self._axes)):
            at = np.stack([self._axes[a][0][k][low[:, a]] for a, k in enumerate(images)], axis=-1)
            which = np.flatnonzero((at >= 0).all(axis=1))
            if not which.size:
                continue
            record = np.empty((which.size, 3 if weights is None else 4), np.uint32)
            for a, k in enumerate(images):
                local = self._axes[a][1][k][low[which, a]]
                record[:, a] = (local << PLACE_BITS) | fraction[which, a]
            if weights is not None:
                record[:, 3] = np.ascontiguousarray(weights[which], np.float32).view(np.uint32)
            self._append(self.bricks.index(at[which]), record)

    def _append(self, number: NDArray[np.int64], record: NDArray[np.uint32]) -> None:
        order = np.argsort(number, kind="stable")
        number, record = number[order], record[order]
        cuts = np.flatnonzero(np.diff(number)) + 1
        for part in np.split(np.arange(len(number)), cuts) if len(cuts) else [slice(None)]:
            brick, points = int(number[part][0]), record[part]
            heaviest = 1.0 if record.shape[1] == 3 else float(points[:, 3].view(np.float32).max())
            with self._lock:
                self.weighted = record.shape[1] == 4
                self._count[brick] = self._count.get(brick, 0) + len(points)
                self._heaviest[brick] = max(self._heaviest.get(brick, 0.0), heaviest)
                with open(self.folder / str(brick), "ab") as file:
                    file.write(points.tobytes())

    @property
    def total(self) -> float:
        """Sum of all weights, rounded once: it depends on no order and no chunks."""
        return math.ldexp(self._total, -UNIT)

    @property
    def heaviest(self) -> float:
        """Largest of all weights, 0 where there is no point."""
        return max(self._heaviest.values(), default=0.0)

    def read(self, brick: int) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.float32] | None]]:
        """Yield the points of a brick in bounded chunks: places uint32 (M, 3), weights (M,)."""
        if not self._count.get(brick):
            return
        columns = 4 if self.weighted else 3
        with open(self.folder / str(brick), "rb") as file:
            while raw := file.read(4 * columns * CHUNK):
                record = np.frombuffer(raw, np.uint32).reshape(-1, columns)
                weights = np.ascontiguousarray(record[:, 3:]).view(np.float32).ravel()
                yield record[:, :3], weights if self.weighted else None

    def deposit(self, brick: int, factor: float) -> NDArray[np.float32]:
        """Return the brick's field, CIC, with a margin m on each side: float32 (nx + 2m, ...).

        A weight of 1 in a voxel of its own gives `factor`.
        """
        shape = [edge + 2 * self.margin + 2 for edge in self.bricks.extent(brick)]
        out = np.zeros([n - 2 for n in shape], np.float32)
        if not self._count.get(brick):
            return out
        exponent = fixed_exponent(self._count[brick], self._heaviest[brick])
        grid = np.zeros(shape, np.int64)
        for places, weights in self.read(brick):
            deposit_fixed(grid, places, weights, exponent)
        for i, plane in enumerate(out):  # plane by plane: float64 of a plane only
            np.multiply(grid[i + 1, 1:-1, 1:-1], factor * 2.0**-exponent, out=plane)
        return out


def sorted_bytes(points: int, bricks: Grid, margin: int, *, weighted: bool) -> float:
    """Return the bytes on disk of points sorted by brick, those in several windows as often."""
    reach = 2 * margin + 1
    times = math.prod(1 + reach / int(axis.length.max()) for axis in bricks.axes)
    return (16 if weighted else 12) * points * times


def exact_sum(values: NDArray[np.float32]) -> int:
    """Return the sum of float32 values in units of 2^-149, exactly."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    whole = (mantissa * 2.0**24).astype(np.int64)
    return sum(
        int(whole[exponent == e].sum()) << int(e) + UNIT - 24
        for e in np.unique(exponent[whole != 0])
    )
