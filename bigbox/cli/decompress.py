"""`bigbox decompress`: a box of what `bigbox compress` has kept."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bigbox.cli.values import add_choice, add_value, whole

TEXT = """\
Makes a box of what bigbox compress has kept, tile by tile on any number of ranks, as bigbox paint
does: without seams, in memory that does not grow with the box, the same bytes for any number of
ranks. The same command resumes after a stop or a kill. SIGTERM, SIGUSR2 or a file BOX/STOP stop it
cleanly (exit status 75).

dm is a draw of the field given what was kept (a posterior sample), not the field: the mean density
of each cell of 4^3 voxels is that of the original, what is finer is made up, and each --seed makes
up something else. With --region a part of the box is made, with the bytes that the whole would have
there; dm is NaN beyond it, and the rest can follow in any order.

example:  bigbox decompress small again.zarr
          mpirun -n 4 bigbox decompress small again.zarr --region 0:64,0:64,0:64
next:     bigbox plot again.zarr;  bigbox paint again.zarr
"""

SUMMARY = "a box of what compress has kept; the same command resumes"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from bigbox.cli.paint import add_latent_memory
    from bigbox.names import DEFAULT_MARGIN, DEFAULT_STEPS, SAMPLERS

    parser.add_argument("source", metavar="OUT", type=Path, help="what bigbox compress has made")
    parser.add_argument("box", metavar="BOX", type=Path, help="the box to make")
    what = parser.add_argument_group("what is made up (decides the bytes)")
    value = partial(add_value, what)
    value("--model", "MODEL", Path, "the folder of the model (default: the one OUT names)")
    value("--seed", "S", whole(0, 2**64 - 1), "of the noise (default 0)", 0)
    add_choice(what, "--sampler", SAMPLERS, "as of bigbox paint; heun and euler are the paper's")
    rest = (f"{steps} for {name}" for name, steps in DEFAULT_STEPS.items())
    defaults = ", ".join(("6", *list(rest)[1:]))
    value("--steps", "T", whole(1, 4095), f"calls of the network per tile; default: {defaults}")
    text = f"voxels at each face of a tile that are its neighbour's, at least ({DEFAULT_MARGIN})"
    value("--margin", "N", whole(0), text)
    how = parser.add_argument_group("how it is run (does not change the bytes)")
    value = partial(add_value, how)
    text = "make this part of the box only: voxels, or Mpc/h as in 0:10,0:10,0:5Mpc/h"
    value("--region", "X0:X1,Y0:Y1,Z0:Z1", str, text)
    value("--batch", "K", whole(1), "tiles of a batch")
    add_latent_memory(how)
    value(
        "--device", "D", str, "auto (default): a GPU by local rank, else cpu; cuda:1; cpu", "auto"
    )
    value("--threads", "N", whole(1), "CPU threads per rank (default: the cores, shared out)")
    how.add_argument("--quiet", action="store_true", help="no progress on the terminal")


def run(options: argparse.Namespace) -> int:
    """Hand the options to the engine."""
    from bigbox.cosmoflow.decode import DecompressOptions, decompress

    decompress(DecompressOptions(**{n: v for n, v in vars(options).items() if n != "run"}))
    return 0
