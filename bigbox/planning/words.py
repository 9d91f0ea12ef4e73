"""Write a plan for people."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bigbox.amounts import in_bytes, in_time
from bigbox.planning.painting import HaloPlan, Plan, RegionPlan

if TYPE_CHECKING:
    from bigbox.bench.record import Speed


def plan_words(plan: Plan, tile_source: str, window_source: str, every: Plan | None) -> str:
    """Write a plan for people; every: of all voxels of dm, where fewer are painted."""
    tiling = plan.tiling
    sides = " x ".join(f"{side:g}" for side in plan.box_size)
    voxel = plan.box_size[0] / (plan.grid * tiling.shape[0])
    least = f"{plan.least_tiles:,} to " if plan.least_tiles != plan.most_tiles else ""
    lines = [
        ("box", f"{sides} Mpc/h, voxel {voxel:.4g} Mpc/h"),
        *([("grid", _saved(plan, every))] if plan.grid > 1 else []),
        ("tiles", tiling.describe()),
        ("stages", f"{len(plan.stages)} steps of all tiles together" if tiling.halved else
                   f"{len(plan.stages)}: {', '.join(f'{n:,}' for n in plan.stages)} tiles"),
        *([("haloes", _haloes(plan.haloes, window_source))] if plan.haloes else []),
        ("ranks", f"{plan.ranks:,}, each {least}{plan.most_tiles:,} tiles in about "
                  f"{plan.batches:,} batches of {plan.batch}; bricks of {plan.edge}^3 tiles"),
        ("time", in_time(plan.seconds)
                 + (", haloes included; tb" if plan.haloes else "")
                 + f" at {plan.seconds_per_tile:.3g} s a tile ({tile_source})"),
        ("memory", f"{in_bytes(plan.memory_per_rank)} a rank: "
                   + ", ".join(f"{term} {in_bytes(n)}" for term, n in plan.memory.items())
                   + (f"; on a GPU {in_bytes(plan.kept_bytes)} of its memory for inputs"
                      if plan.kept_bytes else "")),
        ("disk", _disk(plan)),
    ]  # fmt: skip
    return "\n".join(f"{name:8}{text}" for name, text in lines)


def _saved(plan: Plan, every: Plan | None) -> str:
    """Say what the painting grid saves."""
    text = (
        f"one voxel painted for {plan.grid} of dm on each axis, of "
        f"{plan.box_size[0] / plan.tiling.shape[0]:.4g} Mpc/h; the rest is interpolated"
    )
    if every is None:
        return text
    return (
        f"{text}. To paint all: {math.prod(every.tiling.shape):,} voxels instead of "
        f"{math.prod(plan.tiling.shape):,}, {every.tiling.size:,} tiles instead of "
        f"{plan.tiling.size:,}, {in_time(every.seconds)} instead of {in_time(plan.seconds)}, "
        f"{in_bytes(every.memory_per_rank)} a rank instead of {in_bytes(plan.memory_per_rank)}, "
        f"{in_bytes(_stored(every))} of disk instead of {in_bytes(_stored(plan))}"
    )


def region_words(found: RegionPlan, plan: Plan) -> str:
    """Say what painting a region takes."""
    calls = found.calls / found.finished
    return (
        f"region  {found.finished:,} of {plan.tiling.size:,} tiles; {found.taking_part:,} take "
        f"part, {found.over:.3g} times the region's voxels, with {calls:.3g} times the calls of "
        f"those alone; {in_time(found.seconds)} for tb, {in_bytes(found.bytes)}"
    )


def _haloes(haloes: HaloPlan, source: str) -> str:
    return (
        f"{haloes.windows.describe()}; {haloes.most_windows:,} windows a rank, "
        f"{in_time(haloes.seconds)} at {haloes.seconds_per_window:.3g} s a window ({source})"
    )


def _stored(plan: Plan) -> int:
    """Return the bytes on the disk in the end."""
    return plan.dm_bytes + plan.disk.bytes + (plan.haloes.bytes if plan.haloes else 0)


def _disk(plan: Plan) -> str:
    disk, haloes, total = plan.disk, plan.haloes, _stored(plan)
    halo = f"halo {in_bytes(haloes.bytes)} in {haloes.files:,} files, " if haloes else ""
    text = (
        f"{in_bytes(total)}: dm {in_bytes(plan.dm_bytes)}, {halo}painted tiles "
        f"{in_bytes(disk.painted_bytes)}, tb {in_bytes(disk.tb_bytes)}, "
        f"ledger {in_bytes(disk.ledger_bytes)}; {disk.files:,} files"
    )
    if disk.steps_bytes:
        text += (
            f"; per-step latents up to {in_bytes(disk.steps_bytes)} more, "
            "dropped as soon as no tile needs them"
        )
    if disk.field_bytes:
        text += f"; the noisy field up to {in_bytes(disk.field_bytes)} more while tb is painted"
    if haloes and haloes.scratch_bytes:
        text += f"; sums of haloes up to {in_bytes(haloes.scratch_bytes)} more while they are made"
    return text + f"; a resume up to {in_bytes(plan.resume_bytes)} more for a while"


def cost_words(plan: Plan, speed: Speed | None, threads: int) -> str:
    """Return GPU hours or core hours; of a rank's threads unless a GPU was measured."""
    hours = plan.ranks * plan.seconds / 3600
    if speed is not None and speed.on_gpu:
        return f"{hours:,.1f} GPU hours on {plan.ranks} GPUs like the one measured"
    return f"{hours * threads:,.1f} core hours on {plan.ranks} ranks of {threads} threads"
