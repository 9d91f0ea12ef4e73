"""What painting a box will take, before it begins: stages, time, memory, disk, files.

Everything is arithmetic on the tiling, so a box of 10 240^3 voxels (49 million tiles) is planned in
seconds and without torch. The memory model is one pure function, `memory_per_rank`; what a plan
cannot fit is refused by `refuse`, which names the projection and the limit.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from bigbox.errors import BadInput
from bigbox.names import DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.planhaloes import (
    HALO_PAINTERS,
    SECONDS_PER_WINDOW,
    HaloLimits,
    HaloPlan,
    plan_haloes,
)
from bigbox.scheduler import Assignment, Bricks, Tiling, default_edge
from bigbox.scheduler.bricks import default_shard
from bigbox.scheduler.stages import stage_counts
from bigbox.store.box import Box
from bigbox.store.footprint import Footprint, footprint
from bigbox.store.layouts import haloes_of, painting_of

MB = 1_000_000

TRIVIAL_TILE = 0.006
SECONDS_PER_CALL = {"gaussian": 0.0016, "lodi": 0.02}
"""Seconds that one core takes for a tile of 32^3: the trivial painters, and a call of the others.

Measured on one core of an AMD EPYC (batch 16, torch 2.13; lodi with networks of preset mini). Other
machines differ, and a GPU much: `bigbox bench` measures, or `--seconds-per-tile` tells.
"""


@dataclass(frozen=True)
class PainterShape:
    """What a painter asks of memory, without importing it.

    libraries  bytes of a process that has imported what it needs and painted one tile, and of what
               the allocator holds on to between batches (about 30 MB), as measured on CPUs
    channels   arrays of input, each (tile + 2 margin)^3 float32 a tile
    work       bytes of temporaries while painting, for each voxel of the tiles painted together
    together   tiles that go through it at once (on a CPU), whatever the engine's batch
    """

    libraries: int
    channels: int
    margin: int
    work: int
    together: int


PAINTERS = {
    "gaussian": PainterShape(310 * MB, 1, 6, 120, 1),
    "trivial": PainterShape(150 * MB, 1, 1, 120, 1),
    "trivial-halo": PainterShape(150 * MB, 4, 0, 160, 1),
    "lodi": PainterShape(380 * MB, 4, 0, 1000, 1),
}


@dataclass(frozen=True)
class EngineShape:
    """The engine's limits that decide its memory; `bigbox.engine` holds their values."""

    overlap_bytes: int
    block_cache_bytes: int
    commits_waiting: int
    haloes: HaloLimits = HaloLimits(256 << 20, 64 << 20, 2)


def engine_shape() -> EngineShape:
    """The limits that this bigbox runs with."""
    from bigbox.engine.limits import Limits
    from bigbox.engine.task import Task

    own, waiting = Limits(), Task.stores_waiting
    limits = HaloLimits(own.sum_bytes, own.window_cache_bytes, waiting)
    return EngineShape(own.overlap_bytes, own.block_cache_bytes, waiting, limits)


def memory_per_rank(
    *,
    painter: PainterShape,
    engine: EngineShape,
    tile: int,
    overlap: int,
    batch: int,
    fields: int,
    own_tiles: int,
    tiles: int,
    bricks: int,
    tb_shard_voxels: int,
) -> dict[str, int]:
    """Projected peak bytes of one rank, term by term; the sum is the projection.

    Args:
        painter, engine: their shapes.
        tile, overlap: voxels; overlap the widest that occurs.
        batch: tiles that a rank paints at once.
        fields: float32 values kept for a voxel of a tile: 1, or 1 + step latents.
        own_tiles: tiles of the fullest rank.
        tiles: tiles of the whole box.
        bricks: bricks of the whole box.
        tb_shard_voxels: voxels of one shard of tb.

    With B = batch, t = tile, m = margin, F = fields:

        libraries   Python, numpy, zarr, mpi4py (and torch)
        inputs      2 batches (one loading, one painting) of B (C (t+2m)^3 + F t^3) float32
        painter     work bytes for each voxel of the tiles that go through it together, and their
                    step latents, one by one and joined
        write queue (waiting + 2) batches of B F t^3 float32: painted, waiting, being encoded
        overlaps    the slab cache's limit, and the slabs of batches that are not durable yet
        blocks      the input cache's limit, and one block being decoded
        tb shard    one shard as an array and once more encoded, and the tile read into it
        order       48 bytes for each own tile (10 once painting), 2 for each tile of the box while
                    the ledger is read, 24 for each brick
    """
    voxels = tile**3
    slab = 3 * fields * tile * tile * overlap * 4
    return {
        "libraries": painter.libraries,
        "inputs": 2
        * batch
        * 4
        * (painter.channels * (tile + 2 * painter.margin) ** 3 + fields * voxels),
        "painter": (painter.work + 8 * (fields - 1)) * voxels * min(batch, painter.together),
        "write queue": (engine.commits_waiting + 2) * batch * fields * voxels * 4,
        "overlaps": engine.overlap_bytes + (engine.commits_waiting + 1) * batch * slab,
        "blocks": engine.block_cache_bytes + 64**3 * 4,
        "tb shard": 2 * tb_shard_voxels * 4 + 2 * fields * voxels * 4,
        "order": 48 * own_tiles + 2 * tiles + 24 * bricks,
    }


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
    seconds: float
    memory: Mapping[str, int]  # of one rank
    disk: Footprint  # of the painting, dm left out
    edge: int  # tiles along a brick
    haloes: HaloPlan | None = None  # where they are painted first

    @property
    def batches(self) -> int:
        """Batches of the fullest rank, all of them full."""
        return -(-self.most_tiles // self.batch)

    @property
    def dm_bytes(self) -> int:
        """The density on disk."""
        return 4 * math.prod(self.tiling.shape)

    @property
    def resume_bytes(self) -> int:
        """What a resume may need for a while: every rank writes one of its bricks, or shards of
        haloes, anew."""
        shard = self.haloes.shard_bytes if self.haloes else 0
        return self.ranks * max(self.disk.brick_bytes, shard)

    @property
    def disk_bytes(self) -> int:
        """All that may stand on the disk at one time: density, haloes with their scratch, painting,
        latents, a resume."""
        haloes = self.haloes.bytes + self.haloes.scratch_bytes if self.haloes else 0
        painting = self.disk.bytes + self.disk.steps_bytes
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
    overlap_method: str = "conditioned",
    colouring: str = "levels",
    seconds_per_tile: float | None = None,
    engine: EngineShape | None = None,
    bricks: Bricks[Tiling] | None = None,
    haloes: bool = True,
    halo_stride: int | None = None,
    seconds_per_window: float | None = None,
) -> Plan:
    """Plan a painting; bricks: those it has begun with, by default those that paint would choose;
    haloes: whether they are painted first, where the painter takes them.

    Raises BadInput when some ranks would have nothing to do.
    """
    bricks = bricks or Bricks(tiling, default_edge(tiling, ranks))
    edge = bricks.edge
    if ranks > bricks.size:
        raise BadInput(
            f"{ranks} ranks but the box has only {bricks.size} bricks of {edge}^3 tiles, and a "
            f"brick has one rank: at most {bricks.size} ranks have something to paint"
        )
    assignment = Assignment(bricks, ranks)
    counts = assignment.counts()
    stages = tuple(int(n) for n in stage_counts(tiling, colouring))
    steps = steps or DEFAULT_STEPS[sampler]
    fields = steps if overlap_method == "latents" else 1
    if seconds_per_tile is None:
        calls = SECONDS_PER_CALL.get(painter)
        seconds_per_tile = TRIVIAL_TILE if calls is None else calls * steps
        seconds_per_tile *= (tiling.tile / 32) ** 3
    engine = engine or engine_shape()
    halo_plan = None
    if haloes and painter in HALO_PAINTERS:
        speed = seconds_per_window or SECONDS_PER_WINDOW[painter]
        shape = HALO_PAINTERS[painter]
        halo_plan = plan_haloes(assignment, shape, engine.haloes, speed, halo_stride)
    disk = footprint(tiling, edge, n_steps=fields - 1)
    memory = memory_per_rank(
        painter=PAINTERS[painter],
        engine=engine,
        tile=tiling.tile,
        overlap=max(int(width.max()) for a in range(3) for width in tiling.widths(a)),
        batch=batch,
        fields=fields,
        own_tiles=int(counts.max()),
        tiles=tiling.size,
        bricks=bricks.size,
        tb_shard_voxels=default_shard(max(tiling.shape))[0] ** 3,
    )
    return Plan(
        tiling=tiling,
        box_size=box_size,
        stages=stages,
        ranks=ranks,
        batch=batch,
        most_tiles=int(counts.max()),
        least_tiles=int(counts.min()),
        seconds_per_tile=seconds_per_tile,
        seconds=seconds_per_tile * least_rounds(stages, ranks, int(counts.max()))
        + (halo_plan.seconds if halo_plan else 0.0),
        memory=memory | (halo_plan.memory if halo_plan else {}),
        disk=disk,
        edge=edge,
        haloes=halo_plan,
    )


def begun_bricks(box: Path, tiling: Tiling) -> Bricks[Tiling] | None:
    """The bricks of the painting that a box holds, which it keeps; None where paint will choose."""
    found = painting_of(Box.open(box))
    return found.layout.bricks if found and found.layout.tiling == tiling else None


def lacks_haloes(box: Path) -> bool:
    """Whether a painter that takes haloes would have to paint them first, or go on with them."""
    found = haloes_of(Box.open(box))
    return not Box.open(box).has("halo") if found is None else not found.complete


def least_rounds(stages: tuple[int, ...], ranks: int, most_tiles: int) -> int:
    """Tiles that some rank must paint one after the other, at least.

    The fullest rank paints all of its own; and a stage can begin to be painted by all ranks only
    where the stage before it is done, which matters for boxes of few tiles.
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
        raise BadInput(
            f"disk: {more / 1e9:.1f} GB are still to be written ({parts}), "
            f"{disk / 1e9:.1f} GB are free: make room, or tell the space with --disk"
        )


def available_memory() -> int:
    """Bytes this process and its children could still take here, container limits included."""
    free = int(psutil.virtual_memory().available)
    for limit, used in _control_groups():
        free = min(free, max(0, limit - used))
    return free


def _control_groups(root: Path = Path("/sys/fs/cgroup")) -> list[tuple[int, int]]:
    """(limit, used) bytes of the memory control groups that hold this process, v2 and v1."""
    places = [root, root / "memory"]
    try:
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            top = root / "memory" if controllers == "memory" else root
            if controllers in ("", "memory"):
                inside = top / name.strip("/")
                places += [p for p in (inside, *inside.parents) if p.is_relative_to(top)]
    except OSError:
        pass
    found = []
    for place in dict.fromkeys(places):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                most = (place / limit).read_text().strip()
                now = int((place / used).read_text())
                # Cached file pages are given back when memory is asked for.
                stat = dict(line.split() for line in (place / "memory.stat").read_text().split("\n")
                            if line)  # fmt: skip
            except (OSError, ValueError):
                continue
            if most.isdigit():
                found.append((int(most), max(0, now - int(stat.get("inactive_file", 0)))))
    return found


def written_bytes(box: Path) -> int:
    """Bytes that the files of a box take on the disk."""
    return sum(512 * p.stat().st_blocks for p in box.rglob("*") if p.is_file())


def available_disk(place: Path) -> int:
    """Free bytes where ``place`` is or will be."""
    while not place.exists():
        place = place.absolute().parent
    return shutil.disk_usage(place).free
