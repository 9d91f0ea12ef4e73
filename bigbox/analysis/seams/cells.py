"""Cut a tiled box for reading: layers, cells, and blocks of whole cells.

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

import numpy as np
import numpy.typing as npt

from bigbox.analysis.spectra.modes import Float
from bigbox.errors import BadInput
from bigbox.scheduler.grid import Grid, Ints
from bigbox.scheduler.tiling import Tiling
from bigbox.store.cutouts import read_cutout

# Bytes of a block in work for each voxel: itself as read and as float32, and three differences.
_BYTES = 28


@dataclass(frozen=True)
class Layers:
    """The layers of one axis. starts: first plane of each; sign: +1, or -1 for odd colours.

    owner: tile on this axis that has each. The one that wraps round the box has two. seams: planes
    whose predecessor has another owner; on a periodic axis 0 may be one of them.
    """

    starts: Ints
    length: int
    sign: Float
    seams: Ints
    owner: Ints

    @classmethod
    def of(cls, tiling: Tiling, axis: int) -> Layers:
        """Return the layers of one axis of a tiling."""
        n = tiling.shape[axis]
        owner = tiling.owned_grid.axes[axis].holding(np.arange(n))
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        colour = tiling.colours(axis)[owner[starts]]
        before = owner[starts - 1]  # of plane 0 the last one
        seams = starts[owner[starts] != before] if tiling.periodic[axis] else starts[1:]
        return cls(starts, n, np.where(colour % 2, -1.0, 1.0), seams, owner[starts])

    @property
    def widths(self) -> Ints:
        """Return the planes of each layer."""
        return np.diff(self.starts, append=self.length)

    def groups(self, longest: int) -> list[tuple[int, int]]:
        """Return runs of layers, (first, past the last), of at most `longest` planes or one."""
        found, first = [], 0
        ends = np.append(self.starts[1:], self.length)
        for i in range(len(self.starts)):
            if i > first and ends[i] - self.starts[first] > longest:
                found.append((first, i))
                first = i
        return [*found, (first, len(self.starts))]


def layers_of(tiling: Tiling) -> list[Layers]:
    """Return the layers of the three axes."""
    return [Layers.of(tiling, axis) for axis in range(3)]


@dataclass(frozen=True)
class Block:
    """Whole cells of the box, [first, last) on each axis, and `margin` voxels around them."""

    cells: tuple[tuple[int, int], ...]
    bounds: tuple[tuple[int, int], ...]
    margin: int
    tiling: Tiling

    def read(self, array: Any) -> npt.NDArray[np.float32]:
        """Return the block with its margin: wrapped round periodic axes, repeated at open ends."""
        tiling = self.tiling
        whole = Grid.regular(tiling.shape, max(tiling.shape))
        origin = [low - self.margin for low, _ in self.bounds]
        shape = [high - low + 2 * self.margin for low, high in self.bounds]
        return read_cutout(lambda _, at: array[at], whole.axes, tiling.periodic, origin, shape)

    def cell_sums(
        self, values: npt.NDArray[Any], layers: Sequence[Layers], axes: Sequence[int]
    ) -> Float:
        """Sum the block's values over its cells along some axes."""
        sums = np.asarray(values, np.float64)
        for a in axes:
            starts = layers[a].starts[slice(*self.cells[a])]
            sums = np.add.reduceat(sums, starts - starts[0], axis=a)
        return sums


def choose_blocks(
    tiling: Tiling, layers: Sequence[Layers], margin: int, memory: int, workers: int
) -> Iterator[Block]:
    """Cut a box into the largest blocks that fit; raise BadInput where no single cell does."""
    edge = int((memory / workers / _BYTES) ** (1 / 3)) - 2 * margin
    least = max(int(one.widths.max()) for one in layers)
    if edge < least:
        need = workers * _BYTES * (least + 2 * margin) ** 3
        raise BadInput(
            f"{memory / 2**20:.0f} MiB for {workers} workers is too little to look for seams,"
            f" it needs {need / 2**20:.0f} MiB"
        )
    for cells in itertools.product(*(one.groups(edge) for one in layers)):
        ends = (np.append(one.starts, one.length) for one in layers)
        bounds = tuple(
            (int(e[low]), int(e[high])) for (low, high), e in zip(cells, ends, strict=True)
        )
        yield Block(cells, bounds, margin, tiling)


def check_shape(array: Any, tiling: Tiling, name: str) -> None:
    """Raise BadInput where an array is not of the tiling's shape."""
    shape = tuple(int(n) for n in array.shape)
    if shape != tiling.shape:
        raise BadInput(f"{name}: has shape {shape}, the tiling is of a box of {tiling.shape}")


def refuse(array: Any, block: Block) -> None:
    """Raise BadInput that names the first voxel of a block that is not finite."""
    values = np.asarray(array[tuple(slice(*b) for b in block.bounds)])
    bad = np.argwhere(~np.isfinite(values))
    where = np.add([b[0] for b in block.bounds], bad[0] if len(bad) else 0)
    raise BadInput(
        f"field: voxel {tuple(int(i) for i in where)} is not finite; paint or repair it first"
    )
