"""`bigbox plan`: what painting a box will take, and whether it fits."""

from __future__ import annotations

import argparse
import math
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.cli.paint import add_colouring, add_latent_memory, add_painter, add_region
from bigbox.cli.values import add_value, in_bytes, in_time, number, whole
from bigbox.diffusion.overlap import tiling_for
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_STEPS
from bigbox.painters.registry import method_of, painting_grid_of

if TYPE_CHECKING:
    from bigbox.bench.record import Speed
    from bigbox.painters.models import Choice, Facts
    from bigbox.plan import HaloPlan, Plan, RegionPlan

_PLANNED = ("ranks", "batch", "painter", "sampler", "steps", "overlap_method", "colouring",
            "halo_stride")  # fmt: skip
_ESTIMATE = "an estimate; bigbox bench measures it, or use --seconds-per-{}"

TEXT = """\
Tells what painting a box will take: stages, batches, time, memory of a rank, disk and files; for a
box that exists, or for one that is only thought of (--shape and --box-size). Writes nothing.

What cannot fit is refused with exit status 2, after the plan is shown: ranks that need more memory
than a node has, or more disk than is free. The limits are those of this machine, with all ranks on
it; to plan for another one, tell its nodes with --ranks-per-node, --memory and --disk.

Times are those that bigbox bench measured, where it was run, and rough estimates where it was not.

example:  bigbox plan box.zarr --ranks 4
example:  bigbox plan --shape 10240 --box-size 1000 --ranks 64 \\
              --ranks-per-node 4 --memory 512 --disk 20000
next:     mpirun -n 4 bigbox paint box.zarr
"""

SUMMARY = "what painting a box will take, and whether it fits"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("box", metavar="BOX", type=Path, nargs="?", help="the box")
    shape = "voxels on a side, or on three sides, instead of BOX"
    parser.add_argument("--shape", type=whole(1), nargs="+", metavar="N", help=shape)
    above = number(0, above=True)
    add_value(parser, "--box-size", "L", above, "side of that box on x, comoving Mpc/h")
    group = parser.add_argument_group("how it would be painted, as for bigbox paint")
    value = partial(add_value, group)
    value("--ranks", "N", whole(1), "MPI ranks (1)", 1)
    cores = (
        "CPU threads of a rank (default: its share of the cores, were the nodes like this one; "
        "with --shape and no --ranks-per-node, as many as bigbox bench measured)"
    )
    value("--threads", "N", whole(1), cores)
    value("--batch", "K", whole(1), "tiles at once, for the memory (16)", 16)
    add_painter(group)
    add_region(group)
    add_colouring(group)
    add_latent_memory(group)
    measured = "as measured where it will run (default: of bigbox bench, else of a core of an EPYC)"
    value("--seconds-per-tile", "X", above, measured)
    bench = "numbers of bigbox bench --out, of another machine (default: the last of this user)"
    value("--bench", "FILE", Path, bench)
    value("--seconds-per-window", "X", above, "the same for a window of haloes")
    value = partial(add_value, parser.add_argument_group("limits, when not those of this machine"))
    value("--ranks-per-node", "N", whole(1), "ranks that share a node's memory")
    value("--memory", "GB", above, "memory of a node")
    value("--disk", "GB", above, "free disk")


def run(options: argparse.Namespace) -> int:
    """Show the plan, then refuse what does not fit."""
    from bigbox.bench.record import PAINTER, load_speed
    from bigbox.engine.limits import limits_of
    from bigbox.physics.interpolation import REACH
    from bigbox.plan import begun_bricks, lacks_haloes, make_plan, plan_region, refuse
    from bigbox.plan.machine import available_disk, available_memory, written_bytes
    from bigbox.scheduler.region import Region
    from bigbox.scheduler.tiling import TilingError
    from bigbox.store.painting_grid import PaintingGrid

    shape, box_size, place, facts = _geometry(options)
    if choice := chosen(options, facts):
        options.model = choice.folder
    options.overlap_method = method_of(options.painter, options.overlap_method)
    grid = painting_grid_of(options.painter, options.model, options.painting_grid)
    on = PaintingGrid.of(shape, box_size[0] / shape[0], grid)
    how = (options.tile, options.overlap, options.margin)
    tiling = tiling_for(options.overlap_method, on.shape, *how)
    tile_time, tile_source = options.seconds_per_tile, "as given"
    window_time, window_source = options.seconds_per_window, "as given"
    speed = load_speed(options.bench) if options.painter == PAINTER else None
    threads = _threads(options, speed) if speed else 1  # estimates are of a core
    if tile_time is None:
        tile_source = _ESTIMATE.format("tile")
        if speed and options.tile == 32:
            steps = options.steps or DEFAULT_STEPS[options.sampler]
            tile_time, tile_source = speed.seconds_per_tile(steps, threads), speed.where()
    if window_time is None:
        window_source = _ESTIMATE.format("window")
        if speed:
            window_time, window_source = speed.seconds_per_window(threads), speed.where()
    common: dict[str, Any] = {
        **{name: getattr(options, name) for name in _PLANNED},
        "seconds_per_tile": tile_time,
        "seconds_per_window": window_time,
        "haloes": options.box is None or lacks_haloes(options.box),
        "limits": limits_of(options.latent_memory),
    }
    bricks = begun_bricks(options.box, tiling) if options.box else None
    made, every = make_plan(tiling, box_size, grid=grid, bricks=bricks, **common), None
    if grid > 1:
        with suppress(TilingError):  # of what cannot be cut into tiles, nothing is saved
            every = make_plan(tiling_for(options.overlap_method, shape, *how), box_size, **common)
    print(_text(made, tile_source, window_source, every))
    print(f"cost    {_cost(made, speed, threads)}")
    for line in choice.words() if choice and options.box else ():
        print(f"note: {line}")
    if options.region is not None:
        steps = options.steps or DEFAULT_STEPS[options.sampler]
        reach = REACH if grid > 1 else 0
        region = Region.read(options.region, tiling, box_size[0] / shape[0], grid, reach)
        print(_region(plan_region(made, region, steps), made))
    free_memory, free_disk = available_memory(), available_disk(place)
    refuse(
        made,
        memory=free_memory if options.memory is None else options.memory * 1e9,
        disk=free_disk if options.disk is None else options.disk * 1e9,
        written=written_bytes(options.box) if options.box else 0,
        ranks_per_node=options.ranks_per_node,
    )
    if choice is not None and options.box is None and choice.differences and not options.force:
        raise BadInput(choice.refusal)
    if options.box is not None:
        launcher = f"mpirun -n {options.ranks} " if options.ranks > 1 else ""
        print(f"next: {launcher}bigbox paint {options.box}")
    return 0


def _threads(options: argparse.Namespace, speed: Speed) -> int:
    """Return the CPU threads of a rank: as given, or those that paint would give it here.

    A rank of a box that is only thought of is a device like the one that was measured, as bench
    has it, unless it is told how many share a node.
    """
    if options.threads is not None:
        return int(options.threads)
    if options.box is None and options.ranks_per_node is None:
        return speed.threads
    here = min(options.ranks, options.ranks_per_node or options.ranks)
    return max(1, len(os.sched_getaffinity(0)) // here)


def _cost(plan: Plan, speed: Speed | None, threads: int) -> str:
    """Return GPU hours or core hours; of a rank's threads unless a GPU was measured."""
    hours = plan.ranks * plan.seconds / 3600
    if speed is not None and speed.on_gpu:
        return f"{hours:,.1f} GPU hours on {plan.ranks} GPUs like the one measured"
    return f"{hours * threads:,.1f} core hours on {plan.ranks} ranks of {threads} threads"


def chosen(options: argparse.Namespace, facts: Facts) -> Choice | None:
    """Return the model that would paint the box; None for painters without.

    For a box that is only thought of, the nearest: `run` refuses it once the plan is shown. Raises
    BadInput.
    """
    from bigbox.engine.options import PaintOptions, choose_networks
    from bigbox.painters.models import choose_model
    from bigbox.painters.registry import painter_row

    row = painter_row(options.painter)
    if options.box is not None:
        names = ("box", "painter", "model", "force")
        asked = PaintOptions(**{name: getattr(options, name) for name in names})
        return choose_networks(asked, asked.open())
    if not row.model:
        return None
    return choose_model(facts, (row.model, row.halo_model), options.model, force=True)


def _geometry(
    options: argparse.Namespace,
) -> tuple[tuple[int, int, int], tuple[float, float, float], Path, Facts]:
    """Voxels, Mpc/h, where the box is or would be, and what a model must know of it."""
    from bigbox.painters.models import Facts

    if (options.box is None) == (options.shape is None):
        raise BadInput("plan takes a BOX, or --shape N with --box-size L, and not both")
    if options.box is not None:
        if options.box_size is not None:
            raise BadInput(f"{options.box} tells its own size; leave out --box-size")
        from bigbox.store.box import Box

        box = Box.open(options.box)
        box.require_input()
        return box.shape, box.box_size, options.box, Facts.of(box)
    if len(options.shape) not in (1, 3):
        raise BadInput(f"--shape takes one number or three, not {len(options.shape)}")
    if options.box_size is None:
        raise BadInput("--shape needs --box-size, the side of the box on x in Mpc/h")
    x, y, z = options.shape * 3 if len(options.shape) == 1 else options.shape
    voxel = options.box_size / x
    facts = Facts(f"a box of {options.shape[0]} voxels", {"voxel_size": voxel})
    return (x, y, z), (x * voxel, y * voxel, z * voxel), Path.cwd(), facts


def _text(plan: Plan, tile_source: str, window_source: str, every: Plan | None) -> str:
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


def _region(found: RegionPlan, plan: Plan) -> str:
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
