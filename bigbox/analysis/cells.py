"""How a tiled box is cut for reading: layers, cells, and blocks of whole cells.

The owner of a voxel is decided axis by axis (see `bigbox.scheduler.tiling`), so on each axis the
box falls into layers, each owned by one row of tiles. The voxels that a tile owns are a cuboid, a
cell::

    x       0              32       56             88       112
            |      0       |   1    |      2       |   3    |        layers of the x axis
            ^ seam         ^ seam   ^ seam         ^ seam            first plane of a layer

    cells   +--------------+--------+   of y, z: the face of a cell is what one tile
            |              |        |   contributes to a plane
            +--------------+--------+
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import numpy.typing as npt

from bigbox.errors import BadInput
from bigbox.scheduler.tiling import Tiling

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Bytes of a block in work for each voxel: itself as read and as float32, and three differences.
_BYTES = 28


@dataclass(frozen=True)
class Layers:
    """The layers of one axis. starts: first plane of each; sign: +1, or -1 for odd colours.

    seams: planes whose predecessor has another owner; on a periodic axis 0 is one of them.
    """

    starts: Ints
    length: int
    sign: Float
    seams: Ints

    @classmethod
    def of(cls, tiling: Tiling, axis: int) -> Layers:
        """The layers of one axis of a tiling."""
        n = tiling.shape[axis]
        line = np.zeros((n, 3), np.int64)
        line[:, axis] = np.arange(n)
        owner = tiling.coords(tiling.owner(line))[:, axis]
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        colour = tiling.colours(axis)[owner[starts]]
        periodic = tiling.periodic[axis] and len(starts) > 1
        return cls(starts, n, np.where(colour % 2, -1.0, 1.0), starts if periodic else starts[1:])

    @property
    def widths(self) -> Ints:
        """Planes of each layer."""
        return np.diff(self.starts, append=self.length)

    def groups(self, longest: int) -> list[tuple[int, int]]:
        """Runs of whole layers, (first, past the last), of at most `longest` planes, or of one."""
        found, first = [], 0
        ends = np.append(self.starts[1:], self.length)
        for i in range(len(self.starts)):
            if i > first and ends[i] - self.starts[first] > longest:
                found.append((first, i))
                first = i
        return [*found, (first, len(self.starts))]


def all_layers(tiling: Tiling) -> tuple[Layers, Layers, Layers]:
    """The layers of the three axes."""
    return Layers.of(tiling, 0), Layers.of(tiling, 1), Layers.of(tiling, 2)


def each(work: Any, blocks: Sequence[Block], workers: int) -> Iterator[tuple[Block, Any]]:
    """Work on each block on dask's threads, a few at a time; results come in order."""
    at_once = 8 * workers
    scheduler = "synchronous" if workers == 1 else "threads"
    for first in range(0, len(blocks), at_once):
        part = blocks[first : first + at_once]
        tasks = [dask.delayed(work, pure=False)(block) for block in part]
        done = dask.compute(*tasks, scheduler=scheduler, num_workers=workers)
        yield from zip(part, done, strict=True)


@dataclass(frozen=True)
class Block:
    """Whole cells of the box, [first, last) on each axis, and `margin` voxels around them."""

    cells: tuple[tuple[int, int], ...]
    bounds: tuple[tuple[int, int], ...]
    margin: int
    shape: tuple[int, int, int]
    periodic: tuple[bool, bool, bool]

    def read(self, array: Any) -> npt.NDArray[np.float32]:
        """The block with its margin: wrapped round periodic axes, repeated at open ends."""
        pieces: list[list[slice]] = []
        pad = []
        for (low, high), n, wraps in zip(self.bounds, self.shape, self.periodic, strict=True):
            first, last = low - self.margin, high + self.margin
            before, after = (0, 0) if wraps else (max(0, -first), max(0, last - n))
            pad.append((before, after))
            pieces.append(list(_runs(first + before, last - after, n)))
        parts = [
            [[np.asarray(array[x, y, z], np.float32) for z in pieces[2]] for y in pieces[1]]
            for x in pieces[0]
        ]
        block = _joined(parts)
        return np.pad(block, pad, mode="edge") if any(p != (0, 0) for p in pad) else block


def _joined(parts: list[list[list[npt.NDArray[np.float32]]]]) -> npt.NDArray[np.float32]:
    if len(parts) == len(parts[0]) == len(parts[0][0]) == 1:
        return parts[0][0][0]
    return np.block(parts)


def _runs(first: int, last: int, n: int) -> Iterator[slice]:
    """[first, last) cut at multiples of n, each piece moved into [0, n)."""
    while first < last:
        at = first % n
        take = min(n - at, last - first)
        yield slice(at, at + take)
        first += take


class Blocks:
    """How the box is cut into blocks of whole cells."""

    @staticmethod
    def choose(
        tiling: Tiling, layers: Sequence[Layers], margin: int, memory: int, workers: int
    ) -> Iterator[Block]:
        """The largest blocks that fit; raises BadInput where not even single cells do."""
        edge = int((memory / workers / _BYTES) ** (1 / 3)) - 2 * margin
        least = max(int(one.widths.max()) for one in layers)
        if edge < least:
            need = workers * _BYTES * (least + 2 * margin) ** 3
            raise BadInput(
                f"{memory / 2**20:.0f} MiB for {workers} workers is too little to look for seams,"
                f" it needs {need / 2**20:.0f} MiB"
            )
        for cells in itertools.product(*(one.groups(edge) for one in layers)):
            bounds = tuple(
                (
                    int(one.starts[low]),
                    int(one.starts[high]) if high < len(one.starts) else one.length,
                )
                for (low, high), one in zip(cells, layers, strict=True)
            )
            yield Block(cells, bounds, margin, tiling.shape, tiling.periodic)


def check_shape(array: Any, tiling: Tiling, name: str) -> None:
    """Raises BadInput where an array is not of the tiling's shape."""
    shape = tuple(int(n) for n in array.shape)
    if shape != tiling.shape:
        raise BadInput(f"{name}: has shape {shape}, the tiling is of a box of {tiling.shape}")


def refuse(array: Any, block: Block) -> None:
    """Raise BadInput that names the first voxel of a block that is not finite."""
    values = np.asarray(array[tuple(slice(*b) for b in block.bounds)])
    bad = np.argwhere(~np.isfinite(values))
    where = bad[0] + [b[0] for b in block.bounds] if len(bad) else [b[0] for b in block.bounds]
    raise BadInput(
        f"field: voxel {tuple(int(i) for i in where)} is not finite; paint or repair it first"
    )
