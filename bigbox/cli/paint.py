"""`bigbox paint`: the options of a painting; the work is bigbox.engine's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_command, number, whole
from bigbox.names import (
    COLOURINGS,
    COMPILE,
    DEFAULT_SAMPLER,
    DEFAULT_STEPS,
    HALO_WEIGHTINGS,
    OVERLAP_METHODS,
    PAINTERS,
    SAMPLERS,
)

_TEXT = """\
Paints the 21 cm brightness temperature tb (mK) onto the dark matter of a box, tile by tile, on any
number of ranks, with memory that does not grow with the box.

The same command resumes: after a stop, a kill or a crash it goes on from the last tile that is
safe on the disk, on any number of ranks, and gives the same bytes. A box that is painted in part
with another seed, painter or tiling is refused; --discard throws that painting away.

To stop cleanly: SIGTERM or SIGUSR2 to the ranks, or touch BOX/STOP. The batch in work is finished,
everything is safe, and the exit status is 75: start the same command again.

example:  mpirun -n 4 bigbox paint box.zarr --seed 1
next:     bigbox status box.zarr;  bigbox verify box.zarr;  bigbox plot box.zarr
"""


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands, "paint", summary="paint tb onto a box; the same command resumes", text=_TEXT
    )
    parser.add_argument("box", metavar="BOX", type=Path, help="the box, as bigbox ingest makes it")

    what = parser.add_argument_group("what is painted (decides the bytes)")
    what.add_argument(
        "--painter",
        choices=PAINTERS,
        default="lodi",
        help="lodi (default): trained networks, haloes from dm where the box has none (HALOgen), "
        "tb from haloes (LODI). gaussian: a Gaussian field of known power spectrum around a filter "
        "of the density, denoised exactly; a reference for tests, not a model of the sky. "
        "trivial: the density plus noise, for tests of scale; trivial-halo: the same from haloes, "
        "which it paints first where the box has none",
    )
    what.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="trained networks, as bigbox train makes them (default: those that bigbox ships, for "
        "voxels of 0.098 Mpc/h at z = 0)",
    )
    what.add_argument(
        "--force",
        action="store_true",
        help="paint at a resolution, redshift or smoothing that the networks were not trained at",
    )
    what.add_argument(
        "--seed", type=whole(0, 2**64 - 1), default=0, metavar="S", help="of the noise (default 0)"
    )
    what.add_argument(
        "--realization",
        type=whole(0, 2**16 - 1),
        default=0,
        metavar="R",
        help="one of 65536 independent fields for the same seed and density (default 0)",
    )
    what.add_argument(
        "--overlap-method",
        choices=OVERLAP_METHODS,
        default="conditioned",
        help="how a tile takes over what its neighbours have painted. conditioned (default): the "
        "denoiser is given the known voxels, no seam. overwrite: the LODI paper's Algorithm 1, "
        "known voxels noised again at every step. latents: the paper's other reading, with the "
        "neighbours' own noisy steps kept in the store (disk: --steps + 1 times tb)",
    )
    what.add_argument(
        "--sampler",
        choices=SAMPLERS,
        default=DEFAULT_SAMPLER,
        help="dpmpp-sde (default): SDE-DPM-Solver++(2M), best with trained networks. dpmpp: "
        "the same without fresh noise. ancestral: the paper's, needs more steps",
    )
    what.add_argument(
        "--steps",
        type=whole(1, 4095),
        metavar="T",
        help="denoising steps (calls of the denoiser) per tile; default: "
        + ", ".join(f"{steps} for {name}" for name, steps in DEFAULT_STEPS.items()),
    )
    what.add_argument(
        "--tile", type=whole(4), default=32, metavar="N", help="voxels on a tile's side (32)"
    )
    what.add_argument(
        "--overlap",
        type=whole(0),
        default=4,
        metavar="N",
        help="voxels that neighbouring tiles share, at least (4)",
    )
    what.add_argument(
        "--halo-stride",
        type=whole(1),
        metavar="N",
        help="voxels between the windows of 64^3 in which haloes are predicted, where the box has "
        "none (32; the paper's 16 takes eight times as long and is no better)",
    )
    what.add_argument(
        "--halo-weighting",
        choices=HALO_WEIGHTINGS,
        help="of a window in the average: tent (default) trusts its middle more than its edges, "
        "flat is the paper's",
    )

    what.add_argument(
        "--compile",
        choices=COMPILE,
        default="auto",
        help="the networks, by torch: auto (default) on a GPU only. On a CPU it saves a tenth of "
        "the time, needs a C++ compiler and takes a minute at the start of every rank",
    )

    how = parser.add_argument_group("how it is run (does not change the bytes)")
    how.add_argument(
        "--batch",
        type=whole(1),
        metavar="K",
        help="tiles of a batch (4 on a CPU, a batch on each thread; up to 32 on a GPU)",
    )
    how.add_argument(
        "--colouring",
        choices=COLOURINGS,
        default="levels",
        help="order of the tiles: levels (default, 4 stages; 7 for odd counts) or the paper's 8",
    )
    how.add_argument(
        "--device",
        default="auto",
        metavar="D",
        help="auto (default): a GPU by local rank where there is one, else cpu; cuda: a GPU by "
        "local rank; cuda:1: that one for every rank; cpu",
    )
    how.add_argument(
        "--threads",
        type=whole(1),
        metavar="N",
        help="CPU threads per rank (default: the machine's cores shared out among its ranks)",
    )
    how.add_argument(
        "--seconds-per-tile",
        type=number(0),
        default=0.0,
        metavar="X",
        help="trivial painters only: take at least this long for each tile",
    )
    how.add_argument(
        "--seconds-per-window",
        type=number(0),
        default=0.0,
        metavar="X",
        help="trivial-halo painter only: take at least this long for each window of haloes",
    )
    how.add_argument("--quiet", action="store_true", help="no progress on the terminal")

    care = parser.add_argument_group("what is kept")
    care.add_argument(
        "--discard",
        action="store_true",
        help="throw away the tb that is painted in this box and begin anew; haloes stay",
    )
    care.add_argument(
        "--discard-halo",
        action="store_true",
        help="throw away the haloes that bigbox painted, and the tb painted from them",
    )
    care.add_argument(
        "--drop-latents",
        action="store_true",
        help="remove the painted tiles once tb is whole: halves the disk, ends repair of tb",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Hands the options to the engine."""
    from bigbox.engine.run import PaintOptions, paint

    paint(PaintOptions(**{name: v for name, v in vars(options).items() if name != "run"}))
    return 0
