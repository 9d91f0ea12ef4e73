"""`bigbox plan`: what painting a box will take, and whether it fits."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bigbox.cli.paint import add_colouring, add_latent_memory, add_painter, add_region
from bigbox.cli.values import add_value, number, whole
from bigbox.errors import BadInput

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
    import bigbox

    plan = bigbox.plan(**{name: v for name, v in vars(options).items() if name != "run"})
    print(plan)
    if plan.refusal:
        raise BadInput(plan.refusal)
    if options.box is not None:
        launcher = f"mpirun -n {options.ranks} " if options.ranks > 1 else ""
        print(f"next: {launcher}bigbox paint {options.box}")
    return 0
