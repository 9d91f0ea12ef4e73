"""Cover a box by overlapping windows, whose predictions are averaged in blocks.

A network that sees windows of `window` voxels is slid over the periodic box at a stride. What it
predicts of a voxel is averaged over all windows that cover it (Mishra, Trotta & Viel 2025 (LODI),
section 2.1: 64^3 at a stride of 16). The sums are kept in blocks, cubes of `block` voxels, in which
the result is stored and read too::

    windows   |--------0--------|                    on one axis, window 18, stride 6
                    |--------1--------|
                          |--------2--------|
    blocks    |===0===|===1===|===2===|===3===|==    block 8: the box's end may cut the last

A block is *final* when every window that touches it has been added. Nothing is ever added to it
again, so it can be stored, and the tiles above it can be painted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bigbox.scheduler.grid import Cover, Grid, Ints, Triple, triple
from bigbox.scheduler.meeting import Meeting
from bigbox.scheduler.tiling import AXES, TilingError


def fitting_window(shape: Sequence[int], window: int, step: int) -> int:
    """Return the edge of windows in a box: `window`, or the largest multiple of `step` that fits.

    Where not even `step` fits, `window`, which `Windows` refuses.
    """
    least = min(shape)
    return window if least >= window or least < step else least // step * step


def usual_stride(window: int, most: int) -> int:
    """Return the voxels between windows where none are asked for: 3/4 of one, `most` at most."""
    return min(most, window * 3 // 4)


@dataclass(frozen=True)
class Windows(Grid):
    """Windows over a periodic box, named by a linear index, int64, C order over `counts`.

    Parameters
    ----------
    shape : voxels of the box on x, y, z.
    window : voxels of a window on each axis.
    stride : the most voxels between the origins of neighbouring windows. They are spread evenly, so
        that strides differ by one voxel at most and close the box.
    block : voxels of a block on each axis. The box's end cuts the last blocks.

    Raises
    ------
    TilingError
        A box smaller than a window, a stride below 1 or above the window.
    """

    shape: Triple
    window: int = 64
    stride: int = 16
    block: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.window:
            raise TilingError(
                f"windows of {self.window} voxels at a stride of {self.stride}: a stride must be"
                f" 1 to {self.window}, or voxels are left out"
            )
        if self.block < 1:
            raise TilingError(f"block is {self.block} voxels: at least 1 is needed")
        for axis, n in enumerate(self.shape):
            if n < self.window:
                raise TilingError(
                    f"box is {n} voxels on axis {AXES[axis]}, less than a window of {self.window}:"
                    f" haloes are predicted in windows of {self.window}^3 voxels; ingest the box"
                    f" with --grid {self.window} or more"
                )
        counts = [-(-n // self.stride) for n in self.shape]
        firsts = [
            np.arange(count) * n // count for n, count in zip(self.shape, counts, strict=True)
        ]
        covers = triple(map(Cover.equal, self.shape, firsts, [self.window] * 3))
        object.__setattr__(self, "axes", covers)

    @cached_property
    def blocks(self) -> Grid:
        """The blocks as a grid."""
        return Grid.regular(self.shape, self.block)

    @cached_property
    def meeting(self) -> Meeting:
        """The blocks that each window adds to."""
        return Meeting(self, self.blocks)

    @property
    def most_per_block(self) -> int:
        """Windows that can touch one block; `meeting.places` counts below it."""
        return int(np.prod(self.meeting.most))

    def left(self, final: NDArray[np.bool_]) -> int:
        """Return the number of windows that touch a block that is not final; final: (blocks,)."""
        found = ~final.reshape(self.blocks.counts)
        for axis, meeting in enumerate(self.meeting.axes):  # a window touches a cuboid of blocks
            moved = np.moveaxis(found, axis, 0)
            below = moved[meeting.table] & (meeting.table >= 0).reshape(*meeting.table.shape, 1, 1)
            found = np.moveaxis(np.logical_or.reduce(below, axis=1), 0, axis)
        return int(np.count_nonzero(found))

    def coverage(self, axis: int, weights: ArrayLike) -> Ints:
        """Return the sum of weights with which windows cover each voxel of one axis: int64 (N,).

        weights: int64 (window,). The weight of a voxel of the box is the product over the axes.
        """
        total = np.zeros(self.shape[axis], np.int64)
        reach = np.arange(self.window)
        for origin in self.axes[axis].first.tolist():
            np.add.at(total, (origin + reach) % self.shape[axis], np.asarray(weights, np.int64))
        return total

    def describe(self) -> str:
        """Describe the windows in one line for a person."""
        return (
            f"{' x '.join(map(str, self.counts))} = {self.size:,} windows of {self.window}^3 "
            f"voxels at a stride of {self.stride}, blocks of {self.block}^3"
        )
