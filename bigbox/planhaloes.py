"""What painting the haloes of a box will take: windows, time, memory, disk. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbox.scheduler import Assignment, Bricks
from bigbox.scheduler.window_order import WindowRow, WindowsDone
from bigbox.scheduler.windows import Windows
from bigbox.store.layouts import BLOCK, HaloLayout
from bigbox.store.ledger import RECORD
from bigbox.store.shards import CRC_BYTES, index_bytes

MB = 1_000_000

SECONDS_PER_WINDOW = {"lodi": 0.11, "trivial-halo": 0.03}
"""Seconds that one core takes for a window of 64^3, the networks of preset mini for lodi.

Measured on one core of an AMD EPYC. A GPU differs much: measure, and use `--seconds-per-window`.
"""


@dataclass(frozen=True)
class HaloShape:
    """What a painter of haloes asks of memory, without importing it.

    margin, window, stride: voxels; channels: of haloes; batch: windows at once; work: bytes of
    temporaries for each voxel of a window that is predicted.
    """

    margin: int
    work: int
    channels: int = 4
    window: int = 64
    stride: int = 16
    batch: int = 4


HALO_PAINTERS = {
    "lodi": HaloShape(margin=9, work=250, stride=32),
    "trivial-halo": HaloShape(margin=1, work=40),
}


@dataclass(frozen=True)
class HaloLimits:
    """The engine's limits that decide the memory of haloes; `bigbox.engine` holds their values."""

    sum_bytes: int
    window_cache_bytes: int
    adds_waiting: int


@dataclass(frozen=True)
class HaloPlan:
    """What `plan_haloes` found; times in seconds, sizes in bytes."""

    windows: Windows
    most_windows: int  # of the fullest rank
    seconds_per_window: float
    seconds: float
    memory: dict[str, int]  # of one rank, to be added to that of the tiles
    array_bytes: int  # halo, gaps left by older indices included
    files: int
    ledger_bytes: int
    scratch_bytes: int  # sums of blocks that are not final, over all ranks, while it is painted
    shard_bytes: int  # one shard: each rank may need as much again while it resumes

    @property
    def bytes(self) -> int:
        """What stands on the disk when the haloes are painted."""
        return self.array_bytes + self.ledger_bytes


def plan_haloes(
    assignment: Assignment,
    painter: HaloShape,
    limits: HaloLimits,
    seconds_per_window: float,
    stride: int | None = None,
) -> HaloPlan:
    """Plan the painting of haloes by the ranks that paint the tiles.

    Raises TilingError as `bigbox.scheduler.windows.Windows` does.

    Memory, with B = batch, w = window, m = margin, C = channels, b = block:

        windows     2 batches of dm, B (w + 2m)^3 float32; predictions of (waiting + 2) batches,
                    B C w^3 float32; work bytes a voxel for one window
        sums        the limit, one block beyond it, and C w^3 in float64 and int64
        dm blocks   the input cache's limit
        halo order  40 bytes for each block that the rank's windows touch, 1 for each of the box
    """
    shape = assignment.tiling.shape
    windows = Windows(shape, painter.window, stride or painter.stride, BLOCK)
    layout = HaloLayout.new(windows, painter.channels)
    most = -(-windows.size // assignment.n_ranks)
    # Ranks differ little in the blocks that their windows touch.
    nothing = WindowsDone(windows, np.zeros(windows.blocks.size, bool))
    row = WindowRow(windows, assignment, assignment.n_ranks // 2, nothing)
    touched = min(int(1.1 * len(row.contributions()[0])), windows.blocks.size)
    voxels, cells = painter.window**3, painter.channels * BLOCK**3
    sums = 8 * cells
    # Blocks that are open at a time, as measured for boxes of 256^3 to 1024^3 on 1 to 64 ranks: at
    # most 9 n^(2/3) of the n that a rank touches.
    front = min(touched, int(9 * touched ** (2 / 3)))
    blocks, bricks = windows.blocks.size, Bricks(windows.blocks, layout.edge)
    chunk = 4 * cells + CRC_BYTES
    memory = {
        "windows": 4 * 2 * painter.batch * (painter.window + 2 * painter.margin) ** 3
        + 4 * (limits.adds_waiting + 2) * painter.batch * painter.channels * voxels
        + painter.work * voxels,
        "sums": min(limits.sum_bytes, front * sums) + sums + 16 * painter.channels * voxels,
        "dm blocks": limits.window_cache_bytes,
        "halo order": 40 * touched + blocks,
    }
    return HaloPlan(
        windows=windows,
        most_windows=most,
        seconds_per_window=seconds_per_window,
        seconds=seconds_per_window * most,
        memory=memory,
        # An index for every block is the worst; blocks of a batch share one.
        array_bytes=blocks * (chunk + index_bytes(bricks.slots)),
        files=bricks.size,
        # A record when a batch of windows is begun, another when a block is done.
        ledger_bytes=(-(-windows.size // painter.batch) + blocks) * RECORD.itemsize,
        # Sums are saved beside what stands there, so twice at most.
        scratch_bytes=assignment.n_ranks * 2 * front * sums,
        shard_bytes=bricks.slots * (chunk + index_bytes(bricks.slots)),
    )
