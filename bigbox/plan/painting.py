"""The plan of a painting: one pure memory model, time, disk, and the refusal of what cannot fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bigbox.engine.latents import assignment_of, latent_bytes
from bigbox.engine.limits import Limits
from bigbox.engine.task import Task
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_OVERLAP_METHOD, DEFAULT_SAMPLER
from bigbox.painters.registry import PainterRow, TileMemory, painter_row
from bigbox.painters.settings import PainterSettings
from bigbox.scheduler import Assignment, Bricks, Tiling, default_edge
from bigbox.scheduler.bricks import default_shard
from bigbox.scheduler.region import Region
from bigbox.scheduler.stages import stage_counts
from bigbox.scheduler.together import alive_tiles, together_of
from bigbox.scheduler.window_order import WindowRow, WindowsDone
from bigbox.scheduler.windows import Windows, fitting_window, usual_stride
from bigbox.store.box import Box
from bigbox.store.footprint import Footprint, footprint
from bigbox.store.layouts import BLOCK, HaloLayout
from bigbox.store.recorded import haloes_of, has_given_haloes, painting_of
from bigbox.store.records import RECORD
from bigbox.store.shards import CRC_BYTES, index_bytes

# Copies of the noisy field on the disk: as it is, and in the two newest saves.
FIELD_COPIES = 3


def rank_memory(
    painter: TileMemory, limits: Limits, assignment: Assignment, batch: int, how: PainterSettings
) -> dict[str, int]:
    """Return the projected peak bytes of one rank, term by term; the sum is the projection.

    With B = batch, t = tile, m = margin, F = fields (T_b and step latents):

        libraries   Python, numpy, zarr, mpi4py (and torch)
        inputs      2 batches (one loading, one painting) of B (C (t+2m)^3 + F t^3) float32
        painter     work bytes for each voxel of the tiles of one call, and their step latents, one
                    by one and joined
        write queue (waiting + 2) batches of B F t^3 float32: painted, waiting, being encoded
        overlaps    the slab cache's limit, and the slabs of batches that are not durable yet
        blocks      the input cache's limit, and one block being decoded
        tb shard    one shard as an array and once more encoded, and the tile read into it
        order       48 bytes for each own tile (10 once painting), 2 for each tile of the box while
                    the ledger is read, 24 for each brick; of the fullest rank

    Where tiles go together (joint), F is 1 of what is stored and 3 in the inputs and the queue (z,
    x0, T_b), there are no slabs, and

        freed       64 MB of freed memory that waits in pieces to be used again, as measured
        latents     3 c^3 float32 of each tile whose field is alive (`alive_tiles`), c the core's
                    edge, at most the limit; and one more
        order       60 bytes for each cell of the cuboid round the tiles, 4 for each tile of the box
    """
    tiling, bricks = assignment.tiling, assignment.bricks
    fields = 3 if tiling.halved else how.fields
    voxels, edge = tiling.tile**3, tiling.tile + 2 * painter.margin
    overlap = max(int(width.max()) for axis in range(3) for width in tiling.widths(axis))
    slab = 3 * fields * tiling.tile**2 * overlap * 4
    waiting, shard = Task.stores_waiting, default_shard(max(tiling.shape))[0]
    if tiling.halved:
        alive, each = alive_tiles(assignment, how.calls), latent_bytes(tiling)
        order = 60 * 2 * alive_tiles(replace(assignment, columns=False), how.calls)
        held = {
            "freed": 64_000_000,
            "latents": min(limits.latent_bytes, alive * each) + each,
            "order": order + 4 * tiling.size + 24 * bricks.size,
        }
    else:
        held = {
            "overlaps": limits.overlap_bytes + (waiting + 1) * batch * slab,
            "order": 48 * int(assignment.counts().max()) + 2 * tiling.size + 24 * bricks.size,
        }
    return {
        "libraries": painter.libraries,
        "inputs": 2 * batch * 4 * (painter.channels * edge**3 + fields * voxels),
        "painter": (painter.work + 8 * (fields - 1)) * voxels * min(batch, painter.tiles_per_call),
        "write queue": (waiting + 2) * batch * fields * voxels * 4,
        "blocks": limits.block_cache_bytes + 64**3 * 4,
        "tb shard": 2 * shard**3 * 4 + 2 * fields * voxels * 4,
        **held,
    }


def kept_bytes(painter: TileMemory, tiling: Tiling, tiles: int) -> int:
    """Return what the inputs take that stay on a GPU from step to step, of a rank's tiles.

    Never more than an eighth of what is free on it.
    """
    if not tiling.halved:
        return 0
    edge = tiling.tile + 2 * painter.margin
    return min(painter.kept, 4 * painter.channels * edge**3 * tiles)


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
    grid: int = 1,
) -> HaloPlan:
    """Plan the painting of haloes by the ranks that paint the tiles.

    grid: voxels of dm on an axis for one that is painted, g.

    Raises TilingError as `bigbox.scheduler.windows.Windows` does.

    Memory, with B = batch, w = window, m = margin, C = channels, b = block:

        windows     2 batches of dm, B (g w + 2m)^3 float32; predictions of (waiting + 2) batches,
                    B C w^3 float32; work bytes a voxel for one window, and where g > 1 twice its dm
        sums        the limit, one block beyond it, and C w^3 in float64 and int64
        dm blocks   the input cache's limit, g times
        halo order  40 bytes for each block that the rank's windows touch, 1 for each of the box
    """
    shape, painter = assignment.tiling.shape, row.halo_memory
    window = fitting_window(shape, painter.window, painter.step)
    windows = Windows(shape, window, stride or usual_stride(window, painter.stride), BLOCK)
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
    dm = 4 * (grid * painter.window + 2 * painter.margin) ** 3
    memory = {
        "windows": dm * (2 * painter.batch + (2 if grid > 1 else 0))
        + 4 * (Task.stores_waiting + 2) * painter.batch * painter.channels * voxels
        + painter.work * voxels,
        "sums": min(limits.sum_bytes, front * sums) + sums + 16 * painter.channels * voxels,
        "dm blocks": limits.window_cache_bytes * grid,
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


@dataclass(frozen=True)
class Plan:
    """What `plan` found; times in seconds, sizes in bytes."""

    tiling: Tiling
    box_size: tuple[float, float, float]  # Mpc/h
    stages: tuple[int, ...]  # tiles in each
    ranks: int
    batch: int
    most_tiles: int  # on the fullest rank
    least_tiles: int
    seconds_per_tile: float
    memory: Mapping[str, int]  # of one rank
    disk: Footprint  # of the painting, dm left out
    edge: int  # tiles along a brick
    kept_bytes: int = 0  # inputs of a rank's tiles that stay on a GPU, where it has one
    haloes: HaloPlan | None = None  # where they are painted first
    grid: int = 1  # voxels of dm on an axis for one that is painted

    @property
    def seconds(self) -> float:
        """Time of the whole painting, haloes included."""
        rounds = self.most_tiles
        if not self.tiling.halved:  # else a stage is a step, of all tiles
            rounds = least_rounds(self.stages, self.ranks, self.most_tiles)
        haloes = self.haloes.seconds if self.haloes else 0.0
        return self.seconds_per_tile * rounds + haloes

    @property
    def batches(self) -> int:
        """Batches of the fullest rank, all of them full."""
        return -(-self.most_tiles // self.batch)

    @property
    def dm_bytes(self) -> int:
        """The density on disk."""
        return 4 * math.prod(self.tiling.shape) * self.grid**3

    @property
    def resume_bytes(self) -> int:
        """What a resume may need for a while: each rank writes a brick, or a halo shard, anew."""
        shard = self.haloes.shard_bytes if self.haloes else 0
        return self.ranks * max(self.disk.brick_bytes, shard)

    @property
    def disk_bytes(self) -> int:
        """All that may stand on the disk at one time, scratch, latents and a resume included."""
        haloes = self.haloes.bytes + self.haloes.scratch_bytes if self.haloes else 0
        painting = self.disk.bytes + self.disk.steps_bytes + self.disk.field_bytes
        return self.dm_bytes + haloes + painting + self.resume_bytes

    @property
    def memory_per_rank(self) -> int:
        """Projected peak bytes of one rank."""
        return sum(self.memory.values())


def make_plan(
    tiling: Tiling,
    box_size: tuple[float, float, float],
    *,
    ranks: int = 1,
    batch: int = 16,
    painter: str = "gaussian",
    sampler: str = DEFAULT_SAMPLER,
    steps: int | None = None,
    overlap_method: str = DEFAULT_OVERLAP_METHOD,
    colouring: str = "levels",
    seconds_per_tile: float | None = None,
    limits: Limits | None = None,
    bricks: Bricks[Tiling] | None = None,
    haloes: bool = True,
    halo_stride: int | None = None,
    seconds_per_window: float | None = None,
    grid: int = 1,
) -> Plan:
    """Plan a painting. Raises BadInput when some ranks would have nothing to do.

    seconds_per_tile, seconds_per_window: as measured, by default those of the painter's row;
    bricks: those that the painting has begun with, by default those that paint would choose;
    haloes: whether they are painted first, where the painter takes them; grid: voxels of dm on an
    axis for one of the tiling's.
    """
    bricks = bricks or Bricks(tiling, default_edge(tiling, ranks))
    if ranks > bricks.size:
        raise BadInput(
            f"{ranks} ranks but the box has only {bricks.size} bricks of {bricks.edge}^3 tiles, "
            f"and a brick has one rank: at most {bricks.size} ranks have something to paint"
        )
    row, limits = painter_row(painter), limits or Limits()
    how = PainterSettings(0, tiling.shape, 0, overlap_method, sampler, steps)
    assignment, field = assignment_of(bricks, ranks, how.calls, limits.latent_bytes), 0
    if tiling.halved:
        field = FIELD_COPIES * latent_bytes(tiling) * ranks * alive_tiles(assignment, how.calls)
    counts = assignment.counts()
    if seconds_per_tile is None:
        seconds = row.seconds_per_tile + row.seconds_per_call * how.calls
        seconds_per_tile = seconds * (tiling.tile / 32) ** 3
    memory = rank_memory(row.memory, limits, assignment, batch, how)
    halo_plan = None
    if haloes and row.halo_painter:
        halo_plan = plan_haloes(assignment, row, limits, seconds_per_window, halo_stride, grid)
        memory |= halo_plan.memory
    return Plan(
        tiling=tiling,
        box_size=box_size,
        stages=stages_of(tiling, colouring, how.calls),
        ranks=ranks,
        batch=batch,
        most_tiles=int(counts.max()),
        least_tiles=int(counts.min()),
        seconds_per_tile=seconds_per_tile,
        memory=memory,
        disk=footprint(tiling, bricks.edge, n_steps=how.fields - 1, field_bytes=field),
        edge=bricks.edge,
        kept_bytes=kept_bytes(row.memory, tiling, int(counts.max())),
        haloes=halo_plan,
        grid=grid,
    )


def stages_of(tiling: Tiling, colouring: str, steps: int) -> tuple[int, ...]:
    """Return how many tiles each stage has: a colour, or a step where tiles go together."""
    if tiling.halved:
        return (tiling.size,) * steps
    return tuple(int(n) for n in stage_counts(tiling, colouring))


@dataclass(frozen=True)
class RegionPlan:
    """What it takes to paint a region of a box by itself, were nothing of it done."""

    finished: int  # tiles
    taking_part: int  # tiles whose haloes it takes
    calls: float  # network calls, in those of a tile
    over: float  # voxels of the tiles that take part, over those of the region
    seconds: float
    bytes: int  # painted tiles and tb


def plan_region(plan: Plan, region: Region, steps: int) -> RegionPlan:
    """Plan the painting of a region; steps: of a tile."""
    tiling = plan.tiling
    wanted = region.tiles(tiling)
    count = part = int(wanted.sum())
    calls = float(count)
    if tiling.halved:
        goals = together_of(tiling).goals(wanted, steps)
        assert goals is not None  # nothing is begun
        part, calls = int(np.count_nonzero(goals)), float(goals.sum(dtype=np.int64)) / steps
    share = count / tiling.size
    return RegionPlan(
        finished=count,
        taking_part=part,
        calls=calls,
        over=part / tiling.size * math.prod(tiling.shape) / region.voxels,
        seconds=plan.seconds_per_tile * calls / plan.ranks,
        bytes=int(share * (plan.disk.painted_bytes + plan.disk.tb_bytes)),
    )


def begun_bricks(box: Path, tiling: Tiling) -> Bricks[Tiling] | None:
    """Return the bricks of the painting that a box holds; None where paint will choose."""
    found = painting_of(Box.open(box))
    return found.layout.bricks if found and found.layout.tiling == tiling else None


def lacks_haloes(box: Path) -> bool:
    """Return whether a painter that takes haloes would paint them first, or go on with them."""
    opened = Box.open(box)
    found = haloes_of(opened)
    return not has_given_haloes(opened) if found is None else not found.complete


def least_rounds(stages: tuple[int, ...], ranks: int, most_tiles: int) -> int:
    """Return how many tiles some rank must paint one after the other, at least.

    The fullest rank paints all of its own. And a stage waits for the one before it, which matters
    for boxes of few tiles.
    """
    return max(most_tiles, sum(-(-n // ranks) for n in stages))


def refuse(
    plan: Plan,
    *,
    memory: float | None,
    disk: float | None,
    written: int = 0,
    ranks_per_node: int | None = None,
) -> None:
    """Raise BadInput when the plan does not fit into a node's memory or the free disk.

    memory, disk: limits in bytes, None: none; written: bytes of dm and painting that stand already.
    """
    here = min(plan.ranks, ranks_per_node or plan.ranks)
    need = here * plan.memory_per_rank
    if memory is not None and need > memory:
        worst = max(plan.memory, key=lambda term: plan.memory[term])
        fit = int(memory // plan.memory_per_rank)
        raise BadInput(
            f"memory: {here} ranks on one node need {need / 1e9:.1f} GB "
            f"({plan.memory_per_rank / 1e9:.2f} GB each, most of it {worst}), the limit is "
            f"{memory / 1e9:.1f} GB: "
            + (f"at most {fit} ranks a node (--ranks-per-node)" if fit else "a smaller --batch")
            + ", or tell the node's memory with --memory"
        )
    more = plan.disk_bytes - written
    if disk is not None and more > disk:
        parts = f"{plan.resume_bytes / 1e9:.1f} GB of it while a resume tidies up"
        if plan.disk.steps_bytes:
            parts = f"up to {plan.disk.steps_bytes / 1e9:.1f} GB of it per-step latents, {parts}"
        if plan.disk.field_bytes:
            parts = f"up to {plan.disk.field_bytes / 1e9:.1f} GB of it the noisy field, {parts}"
        raise BadInput(
            f"disk: {more / 1e9:.1f} GB are still to be written ({parts}), "
            f"{disk / 1e9:.1f} GB are free: make room, or tell the space with --disk"
        )
