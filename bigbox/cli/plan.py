"""`bigbox plan`: what painting a box will take, and whether it fits."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigbox.cli.values import add_command, in_bytes, in_time, number, whole
from bigbox.errors import BadInput
from bigbox.names import (
    COLOURINGS,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    OVERLAP_METHODS,
    PAINTERS,
    SAMPLERS,
)

if TYPE_CHECKING:
    from bigbox.plan import Plan

_ESTIMATE = "an estimate; bigbox bench measures it, or use --seconds-per-{}"

_TEXT = """\
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


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands, "plan", summary="what painting a box will take, and whether it fits", text=_TEXT
    )
    parser.add_argument("box", metavar="BOX", type=Path, nargs="?", help="the box")
    parser.add_argument(
        "--shape",
        type=whole(1),
        nargs="+",
        metavar="N",
        help="voxels on a side, or on three sides, instead of BOX",
    )
    parser.add_argument(
        "--box-size",
        type=number(0, above=True),
        metavar="L",
        help="side of that box on x, comoving Mpc/h",
    )
    run_with = parser.add_argument_group("how it would be painted, as for bigbox paint")
    run_with.add_argument("--ranks", type=whole(1), default=1, metavar="N", help="MPI ranks (1)")
    run_with.add_argument(
        "--batch",
        type=whole(1),
        default=16,
        metavar="K",
        help="tiles at once, for the memory (16)",
    )
    run_with.add_argument("--painter", choices=PAINTERS, default="lodi")
    run_with.add_argument("--sampler", choices=SAMPLERS, default=DEFAULT_SAMPLER)
    run_with.add_argument("--steps", type=whole(1, 4095), metavar="T")
    run_with.add_argument("--overlap-method", choices=OVERLAP_METHODS, default="conditioned")
    run_with.add_argument("--colouring", choices=COLOURINGS, default="levels")
    run_with.add_argument("--tile", type=whole(4), default=32, metavar="N")
    run_with.add_argument("--overlap", type=whole(0), default=4, metavar="N")
    run_with.add_argument(
        "--seconds-per-tile",
        type=number(0, above=True),
        metavar="X",
        help="as measured where it will run (default: of bigbox bench, else of a core of an EPYC)",
    )
    run_with.add_argument(
        "--bench",
        type=Path,
        metavar="FILE",
        help="numbers of bigbox bench --out, of another machine (default: the last of this user)",
    )
    run_with.add_argument(
        "--halo-stride",
        type=whole(1),
        metavar="N",
        help="voxels between the windows in which haloes are predicted, where there are none (32)",
    )
    run_with.add_argument(
        "--seconds-per-window",
        type=number(0, above=True),
        metavar="X",
        help="the same for a window of haloes",
    )
    limits = parser.add_argument_group("limits, when not those of this machine")
    limits.add_argument(
        "--ranks-per-node", type=whole(1), metavar="N", help="ranks that share a node's memory"
    )
    limits.add_argument(
        "--memory", type=number(0, above=True), metavar="GB", help="memory of a node"
    )
    limits.add_argument("--disk", type=number(0, above=True), metavar="GB", help="free disk")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Shows the plan, then refuses what does not fit."""
    from bigbox import plan as planning
    from bigbox.bench.record import load_speed
    from bigbox.scheduler.tiling import Tiling

    shape, box_size, place = _geometry(options)
    tiling = Tiling(shape, options.tile, options.overlap)
    tile_time, tile_source = options.seconds_per_tile, "as given"
    window_time, window_source = options.seconds_per_window, "as given"
    speed = load_speed(options.bench) if options.painter == "lodi" else None
    if tile_time is None:
        tile_source = _ESTIMATE.format("tile")
        if speed and options.tile == 32:
            steps = options.steps or DEFAULT_STEPS[options.sampler]
            tile_time, tile_source = speed.seconds_per_tile(steps), speed.where()
    if window_time is None:
        window_source = _ESTIMATE.format("window")
        if speed:
            window_time, window_source = speed.seconds_per_window, speed.where()
    made = planning.make_plan(
        tiling,
        box_size,
        ranks=options.ranks,
        batch=options.batch,
        painter=options.painter,
        sampler=options.sampler,
        steps=options.steps,
        overlap_method=options.overlap_method,
        colouring=options.colouring,
        seconds_per_tile=tile_time,
        bricks=planning.begun_bricks(options.box, tiling) if options.box else None,
        haloes=options.box is None or planning.lacks_haloes(options.box),
        halo_stride=options.halo_stride,
        seconds_per_window=window_time,
    )
    print(_text(made, tile_source, window_source))
    free_memory, free_disk = planning.available_memory(), planning.available_disk(place)
    planning.refuse(
        made,
        memory=free_memory if options.memory is None else options.memory * 1e9,
        disk=free_disk if options.disk is None else options.disk * 1e9,
        written=planning.written_bytes(options.box) if options.box else 0,
        ranks_per_node=options.ranks_per_node,
    )
    if options.box is not None:
        launcher = f"mpirun -n {options.ranks} " if options.ranks > 1 else ""
        print(f"next: {launcher}bigbox paint {options.box}")
    return 0


def _geometry(
    options: argparse.Namespace,
) -> tuple[tuple[int, int, int], tuple[float, float, float], Path]:
    """Voxels, Mpc/h, and where the box is or would be."""
    if (options.box is None) == (options.shape is None):
        raise BadInput("plan takes a BOX, or --shape N with --box-size L, and not both")
    if options.box is not None:
        if options.box_size is not None:
            raise BadInput(f"{options.box} tells its own size; leave out --box-size")
        from bigbox.store.box import Box

        box = Box.open(options.box)
        box.require("dm")
        return box.shape, box.box_size, options.box
    if len(options.shape) not in (1, 3):
        raise BadInput(f"--shape takes one number or three, not {len(options.shape)}")
    if options.box_size is None:
        raise BadInput("--shape needs --box-size, the side of the box on x in Mpc/h")
    x, y, z = options.shape * 3 if len(options.shape) == 1 else options.shape
    voxel = options.box_size / x
    return (x, y, z), (x * voxel, y * voxel, z * voxel), Path.cwd()


def _text(plan: Plan, tile_source: str, window_source: str) -> str:
    tiling = plan.tiling
    sides = " x ".join(f"{side:g}" for side in plan.box_size)
    voxel = plan.box_size[0] / tiling.shape[0]
    own = f"{plan.most_tiles:,}"
    if plan.least_tiles != plan.most_tiles:
        own = f"{plan.least_tiles:,} to {own}"
    lines = [
        ("box", f"{sides} Mpc/h, voxel {voxel:.4g} Mpc/h"),
        ("tiles", tiling.describe()),
        ("stages", f"{len(plan.stages)}: {', '.join(f'{n:,}' for n in plan.stages)} tiles"),
        *_haloes(plan, window_source),
        ("ranks", f"{plan.ranks:,}, each {own} tiles in about {plan.batches:,} batches of "
                  f"{plan.batch}; bricks of {plan.edge}^3 tiles"),
        ("time", in_time(plan.seconds)
                 + (", haloes included; tb" if plan.haloes else "")
                 + f" at {plan.seconds_per_tile:.3g} s a tile ({tile_source})"),
        ("memory", f"{in_bytes(plan.memory_per_rank)} a rank: "
                   + ", ".join(f"{term} {in_bytes(n)}" for term, n in plan.memory.items())),
        ("disk", _disk(plan)),
    ]  # fmt: skip
    return "\n".join(f"{name:8}{text}" for name, text in lines)


def _haloes(plan: Plan, source: str) -> list[tuple[str, str]]:
    """A line about haloes, where they are painted first."""
    haloes = plan.haloes
    if haloes is None:
        return []
    return [
        (
            "haloes",
            f"{haloes.windows.describe()}; {haloes.most_windows:,} windows a rank, "
            f"{in_time(haloes.seconds)} at {haloes.seconds_per_window:.3g} s a window ({source})",
        )
    ]


def _disk(plan: Plan) -> str:
    disk, haloes = plan.disk, plan.haloes
    text = (
        f"{in_bytes(plan.dm_bytes + disk.bytes + (haloes.bytes if haloes else 0))}: "
        f"dm {in_bytes(plan.dm_bytes)}, "
        + (f"halo {in_bytes(haloes.bytes)} in {haloes.files:,} files, " if haloes else "")
        + f"painted tiles {in_bytes(disk.painted_bytes)}, tb {in_bytes(disk.tb_bytes)}, "
        f"ledger {in_bytes(disk.ledger_bytes)}; {disk.files:,} files"
    )
    if disk.steps_bytes:
        text += (
            f"; per-step latents up to {in_bytes(disk.steps_bytes)} more, "
            "dropped as soon as no tile needs them"
        )
    if haloes and haloes.scratch_bytes:
        text += f"; sums of haloes up to {in_bytes(haloes.scratch_bytes)} more while they are made"
    return text + f"; a resume up to {in_bytes(plan.resume_bytes)} more for a while"
