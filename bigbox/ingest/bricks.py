"""How points are sorted by brick: a pass over them in bounded chunks, into one file per brick.

A brick is one shard of the array that the points become. Its window is what its voxels need: the
brick, the reach m of the smoothing, and one voxel more, as a particle's cloud spreads over two.

     lo-m-1   lo                    hi   hi+m
       | . : . |                     | . : . |        a point goes to every brick whose window
       | . : . |       brick         | . : . |        holds the lower voxel of its cloud, periodic
       | . : . |                     | . : . |        images included: most to one, few to eight

A record is three uint32, the place in the window (see `bigbox.ingest.cic`), and a float32 weight
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
from bigbox.ingest.cic import CHUNK, PLACE, PLACE_BITS, deposit_fixed, fixed_exponent

MOST_VOXELS = 1 << (32 - PLACE_BITS)
"""Voxels on a side of a window that a record can address."""

UNIT = 149
"""Every float32 is a whole multiple of 2^-149."""

Brick = tuple[int, int, int]


class Axis:
    """One axis of n voxels cut into bricks: which windows hold which voxel."""

    def __init__(self, n: int, edge: int, margin: int) -> None:
        self.n = n
        self.edge = edge
        self.margin = margin
        self.bricks = -(-n // edge)
        self.window = min(edge, n) + 2 * margin + 2
        if self.window > MOST_VOXELS:
            most = (MOST_VOXELS - 2 - min(edge, n)) // 2
            raise BadInput(
                f"smoothing reaches {margin} voxels, at most {most} are possible: choose a smaller "
                "--smoothing or a coarser --grid"
            )
        entries: list[list[tuple[int, int]]] = [[] for _ in range(n)]
        for b in range(self.bricks):
            first = b * edge - margin - 1
            for local in range(min((b + 1) * edge, n) - b * edge + 2 * margin + 1):
                entries[(first + local) % n].append((b, local))
        self.images = max(map(len, entries))
        # (images, n): brick and place in its window of the k-th window that holds a voxel, or -1.
        self.brick = np.full((self.images, n), -1, np.int64)
        self.local = np.zeros((self.images, n), np.int64)
        for voxel, held in enumerate(entries):
            for k, (b, local) in enumerate(held):
                self.brick[k, voxel], self.local[k, voxel] = b, local

    def extent(self, b: int) -> slice:
        """The voxels of a brick."""
        return slice(b * self.edge, min((b + 1) * self.edge, self.n))


class Bricks:
    """Points of one field on disk, one file per brick; threads may add at the same time."""

    def __init__(
        self, folder: Path, shape: tuple[int, int, int], edges: tuple[int, ...], margin: int
    ) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.shape = shape
        self.margin = margin
        self.axes = [Axis(n, edge, margin) for n, edge in zip(shape, edges, strict=True)]
        self._many = tuple(axis.bricks for axis in self.axes)
        self._lock = threading.Lock()
        self._count: dict[int, int] = {}
        self._heaviest: dict[int, float] = {}
        self.weighted: bool | None = None
        self.points = 0  # each counted once
        self._total = 0  # their weights' sum, exactly, in units of 2^-UNIT

    def all(self) -> Iterator[Brick]:
        """Every brick of the box, whether it has points or not."""
        return itertools.product(*(range(n) for n in self._many))  # type: ignore[return-value]

    def region(self, brick: Brick) -> tuple[slice, slice, slice]:
        """The voxels of a brick in the box."""
        x, y, z = (axis.extent(b) for axis, b in zip(self.axes, brick, strict=True))
        return x, y, z

    def add(self, place: NDArray[np.float64], weights: NDArray[np.float32] | None) -> None:
        """Sort points into the bricks' files.

        place: float64 (M, 3) in voxels from the box's corner, any image; weights: (M,), >= 0.
        """
        total = len(place) << UNIT if weights is None else exact_sum(weights)
        with self._lock:
            self.points += len(place)
            self._total += total
        steps = np.rint((place - 0.5) * PLACE).astype(np.int64)
        steps %= np.array(self.shape, np.int64) << PLACE_BITS
        low, fraction = steps >> PLACE_BITS, steps & (PLACE - 1)
        for images in itertools.product(*(range(axis.images) for axis in self.axes)):
            of_axis = [
                axis.brick[k][low[:, a]]
                for a, (axis, k) in enumerate(zip(self.axes, images, strict=True))
            ]
            inside = (of_axis[0] >= 0) & (of_axis[1] >= 0) & (of_axis[2] >= 0)
            which = np.flatnonzero(inside)
            if not which.size:
                continue
            record = np.empty((which.size, 3 if weights is None else 4), np.uint32)
            for a, (axis, k) in enumerate(zip(self.axes, images, strict=True)):
                record[:, a] = (axis.local[k][low[which, a]] << PLACE_BITS) | fraction[which, a]
            if weights is not None:
                record[:, 3] = np.ascontiguousarray(weights[which], np.float32).view(np.uint32)
            number = np.ravel_multi_index([b[which] for b in of_axis], self._many)
            self._append(number, record)

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
        """The sum of all weights, rounded once: it depends on no order and no chunks."""
        return math.ldexp(self._total, -UNIT)

    def read(self, brick: Brick) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.float32] | None]]:
        """The points of a brick in bounded chunks: places uint32 (M, 3), weights float32 (M,)."""
        number = self._number(brick)
        if not self._count.get(number):
            return
        columns = 4 if self.weighted else 3
        with open(self.folder / str(number), "rb") as file:
            while raw := file.read(4 * columns * CHUNK):
                record = np.frombuffer(raw, np.uint32).reshape(-1, columns)
                yield (
                    record[:, :3],
                    np.ascontiguousarray(record[:, 3]).view(np.float32) if columns == 4 else None,
                )

    def deposit(self, brick: Brick, factor: float) -> NDArray[np.float32]:
        """The brick's field, CIC, with a margin on each side: float32 (nx + 2m, ny + 2m, nz + 2m).

        factor: what a weight of 1 in a voxel of its own gives.
        """
        number = self._number(brick)
        region = self.region(brick)
        shape = [cut.stop - cut.start + 2 * self.margin + 2 for cut in region]
        inner = tuple(n - 2 for n in shape)
        if not self._count.get(number):
            return np.zeros(inner, np.float32)
        exponent = fixed_exponent(self._count[number], self._heaviest[number])
        grid = np.zeros(shape, np.int64)
        for places, weights in self.read(brick):
            deposit_fixed(grid, places, weights, exponent)
        out = np.empty(inner, np.float32)
        for i in range(inner[0]):  # plane by plane: float64 of a plane only
            np.multiply(grid[i + 1, 1:-1, 1:-1], factor * 2.0**-exponent, out=out[i])
        return out

    def _number(self, brick: Brick) -> int:
        return int(np.ravel_multi_index(brick, self._many))


def sorted_bytes(points: int, edges: tuple[int, ...], margin: int, *, weighted: bool) -> float:
    """Bytes on disk of points sorted by brick, those in several windows counted as often."""
    times = math.prod(1 + (2 * margin + 1) / edge for edge in edges)
    return (16 if weighted else 12) * points * times


def exact_sum(values: NDArray[np.float32]) -> int:
    """The sum of float32 values in units of 2^-149, exactly."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    whole = (mantissa * 2.0**24).astype(np.int64)
    return sum(
        int(whole[exponent == e].sum()) << int(e) + UNIT - 24
        for e in np.unique(exponent[whole != 0])
    )
