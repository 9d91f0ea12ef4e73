"""What painting the haloes of a box will take: windows, time, memory, disk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bigbox.engine.limits import Limits
from bigbox.engine.task import Task
from bigbox.painters.registry import PainterRow
from bigbox.scheduler import Assignment, Bricks
from bigbox.scheduler.window_order import WindowRow, WindowsDone
from bigbox.scheduler.windows import Windows
from bigbox.store.layouts import BLOCK, HaloLayout
from bigbox.store.records import RECORD
from bigbox.store.shards import CRC_BYTES, index_bytes


@dataclass(frozen=True)
class HaloPlan:
    """What `plan_haloes` found; times in seconds, sizes in bytes."""

    windows: Windows
    most_windows: int  # of the fullest rank
    seconds_per_window: float
    memory: dict[str, int]  # of one rank, to be added to that of the tiles
    bytes: int  # on the disk when they are painted, gaps left by older indices included
    files: int
    scratch_bytes: int  # sums of blocks that are not final, over all ranks, while it is painted
    shard_bytes: int  # one shard: each rank may need as much again while it resumes

    @property
    def seconds(self) -> float:
        """Time of the fullest rank."""
        return self.seconds_per_window * self.most_windows


def plan_haloes(
    assignment: Assignment,
    row: PainterRow,
    limits: Limits,
    seconds_per_window: float | None = None,
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
    shape, painter = assignment.tiling.shape, row.halo_memory
    windows = Windows(shape, painter.window, stride or painter.stride, BLOCK)
    layout = HaloLayout.new(windows, painter.channels)
    # Ranks differ little in the blocks that their windows touch.
    nothing = WindowsDone(windows, np.zeros(windows.blocks.size, bool))
    order = WindowRow(windows, assignment, assignment.n_ranks // 2, nothing)
    touched = min(int(1.1 * len(order.contributions()[0])), windows.blocks.size)
    voxels, cells = painter.window**3, painter.channels * BLOCK**3
    sums = 8 * cells
    # Blocks that are open at a time, as measured for boxes of 256^3 to 1024^3 on 1 to 64 ranks: at
    # most 9 n^(2/3) of the n that a rank touches.
    front = min(touched, int(9 * touched ** (2 / 3)))
    blocks, bricks = windows.blocks.size, Bricks(windows.blocks, layout.edge)
    # An index for every block is the worst; blocks of a batch share one.
    stored = 4 * cells + CRC_BYTES + index_bytes(bricks.slots)
    memory = {
        "windows": 4 * 2 * painter.batch * (painter.window + 2 * painter.margin) ** 3
        + 4 * (Task.stores_waiting + 2) * painter.batch * painter.channels * voxels
        + painter.work * voxels,
        "sums": min(limits.sum_bytes, front * sums) + sums + 16 * painter.channels * voxels,
        "dm blocks": limits.window_cache_bytes,
        "halo order": 40 * touched + blocks,
    }
    return HaloPlan(
        windows=windows,
        most_windows=-(-windows.size // assignment.n_ranks),
        seconds_per_window=seconds_per_window or row.seconds_per_window,
        memory=memory,
        # A record when a batch of windows is begun, another when a block is done.
        bytes=blocks * stored + (-(-windows.size // painter.batch) + blocks) * RECORD.itemsize,
        files=bricks.size,
        # Sums are saved beside what stands there, so twice at most.
        scratch_bytes=assignment.n_ranks * 2 * front * sums,
        shard_bytes=bricks.slots * stored,
    )
