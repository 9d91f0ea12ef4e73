"""`bigbox paint`: the options of a painting; the work is bigbox.engine's."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_choice, add_value, number, numbers_of, whole
from bigbox.diffusion.overlap import overlap_help, overlap_methods
from bigbox.names import (
    COLOURINGS,
    COMPILE,
    DEFAULT_MARGIN,
    DEFAULT_OVERLAP,
    DEFAULT_OVERLAP_METHOD,
    DEFAULT_STEPS,
    HALO_WEIGHTINGS,
    SAMPLERS,
)
from bigbox.painters.registry import painter_help, painter_names

TEXT = """\
Paints the 21 cm brightness temperature tb (mK) onto the dark matter of a box, tile by tile, on any
number of ranks, with memory that does not grow with the box.

The same command resumes: after a stop, a kill or a crash it goes on from the last tile that is
safe on the disk, on any number of ranks, and gives the same bytes. A box that is painted in part
with another seed, painter or tiling is refused; --discard throws that painting away.

To stop cleanly: SIGTERM, SIGUSR1 or SIGUSR2 to the ranks, or touch BOX/STOP. The batch in work is
finished, everything is safe, and the exit status is 75: start the same command again.

Realizations may be painted side by side. One that needs haloes which another run is painting waits
for them. Where another run paints the same realization, the exit status is 75 too.

example:  mpirun -n 4 bigbox paint box.zarr --seed 1
next:     bigbox status box.zarr;  bigbox verify box.zarr;  bigbox plot box.zarr
"""


def add_painter(group: Any) -> None:
    """Add the options that decide both the bytes and the plan of a painting to a group."""
    value, choice = partial(add_value, group), partial(add_choice, group)
    choice("--painter", painter_names(), painter_help())
    text = f"how tiles come to agree with their neighbours (default: {DEFAULT_OVERLAP_METHOD}). "
    choices, text = overlap_methods(), text + overlap_help()
    group.add_argument("--overlap-method", choices=choices, help=text)
    text = (
        "dpmpp-sde (default): SDE-DPM-Solver++(2M), best with trained networks. dpmpp: "
        "the same without fresh noise. ancestral: the paper's, needs more steps. euler, heun: "
        "those of flow matching, on the straight path from noise to field"
    )
    choice("--sampler", SAMPLERS, text)
    defaults = ", ".join(f"{steps} for {name}" for name, steps in DEFAULT_STEPS.items())
    steps = f"denoising steps (calls of the denoiser) per tile; default: {defaults}"
    value("--steps", "T", whole(1, 4095), steps)
    value("--tile", "N", whole(4), "voxels on a tile's side (32)", 32)
    text = (
        "joint only: voxels at each face of a tile that are its neighbour's, at least "
        f"({DEFAULT_MARGIN}); more cost more, fewer leave seams"
    )
    value("--margin", "N", whole(0), text)
    text = f"other methods: voxels that neighbouring tiles share, at least ({DEFAULT_OVERLAP})"
    value("--overlap", "N", whole(0), text)
    text = (
        "voxels between the windows of 64^3 in which haloes are predicted, where the box has "
        "none (32; the paper's 16 takes eight times as long and is no better)"
    )
    value("--halo-stride", "N", whole(1), text)
    text = (
        "trained networks: a folder as bigbox train makes it, or a name of bigbox models (default: "
        "the known model that is for the box)"
    )
    value("--model", "MODEL", Path, text)
    text = (
        "paint at a resolution, redshift, smoothing or cosmology that the networks do not know; "
        "the box, its pictures and reports say so"
    )
    group.add_argument("--force", action="store_true", help=text)
    text = (
        "voxels of dm on an axis for one that is painted (default: as the model says; 1 for "
        "painters without one). The rest is interpolated where the box is opened"
    )
    value("--painting-grid", "N", whole(1), text)


def add_region(group: Any) -> None:
    """Add the region that is painted to a group of options."""
    text = (
        "paint this part of the box only, and what it depends on: voxels, or Mpc/h as in "
        "0:10,0:10,0:5Mpc/h. tb is NaN beyond it. The rest can follow in any order"
    )
    add_value(group, "--region", "X0:X1,Y0:Y1,Z0:Z1", str, text)


def add_latent_memory(group: Any) -> None:
    """Add the memory for the noisy field to a group of options."""
    text = (
        "joint only: memory of a rank for the noisy field, before it goes to the disk (0.5). More "
        "is faster where a rank has more than some thousand tiles"
    )
    add_value(group, "--latent-memory", "GB", number(0), text)


def add_colouring(group: Any) -> None:
    """Add the order of the tiles to a group of options."""
    text = "order of the tiles: levels (default, 4 stages; 7 for odd counts) or the paper's 8"
    add_choice(group, "--colouring", COLOURINGS, text)


SUMMARY = "paint tb onto a box; the same command resumes"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("box", metavar="BOX", type=Path, help="the box, as bigbox ingest makes it")
    what = parser.add_argument_group("what is painted (decides the bytes)")
    add_painter(what)
    value = partial(add_value, what)
    value("--seed", "S", whole(0, 2**64 - 1), "of the noise (default 0)", 0)
    several = (
        "one of 65536 independent fields for the same seed and density (default 0), or several one "
        "after the other, as 0-9"
    )
    flags = ("--realization", "--realizations")
    what.add_argument(*flags, metavar="R", type=_realizations, default=0, help=several)
    text = (
        "make this field from the painted tiles too, as an installed package adds it; may be "
        "given several times"
    )
    what.add_argument("--field", action="append", metavar="NAME", default=[], help=text)
    text = (
        "of a window in the average: tent (default) trusts its middle more than its edges, "
        "flat is the paper's"
    )
    what.add_argument("--halo-weighting", choices=HALO_WEIGHTINGS, help=text)
    text = (
        "the networks, by torch: auto (default) is off. On a CPU it saves a tenth of the time, "
        "needs a C++ compiler and takes a minute at the start of every rank; a GPU has kernels "
        "of its own (BIGBOX_KERNELS=auto, own, cudnn or torch)"
    )
    add_choice(what, "--compile", COMPILE, text)
    how = parser.add_argument_group("how it is run (does not change the bytes)")
    value = partial(add_value, how)
    add_region(how)
    text = (
        "paint the haloes and stop there, in the region if one is given: a job of its own, before "
        "several realizations are painted side by side"
    )
    how.add_argument("--haloes-only", action="store_true", help=text)
    batch = "tiles of a batch (4 on a CPU, a batch on each thread; up to 32 on a GPU)"
    value("--batch", "K", whole(1), batch)
    add_colouring(how)
    add_latent_memory(how)
    text = (
        "auto (default): a GPU by local rank where there is one, else cpu; cuda: a GPU by "
        "local rank; cuda:1: that one for every rank; cpu"
    )
    value("--device", "D", str, text, "auto")
    threads = "CPU threads per rank (default: the machine's cores shared out among its ranks)"
    value("--threads", "N", whole(1), threads)
    least = "take at least this long for each"
    value("--seconds-per-tile", "X", number(0), f"trivial painters only: {least} tile", 0.0)
    window = f"trivial-halo painter only: {least} window of haloes"
    value("--seconds-per-window", "X", number(0), window, 0.0)
    text = (
        "paint regions side by side on the workers of this dask scheduler, which may join, leave "
        "and die at any time; a region that fails three times is set aside"
    )
    value("--workers", "ADDRESS", str, text)
    text = "with --workers: tiles on an axis of a region (64 with joint, else 16)"
    value("--worker-tiles", "N", whole(1), text)
    text = "append what the run says to this file, a JSON object a line; other ranks: FILE.r00001"
    value("--log", "FILE", Path, text)
    how.add_argument("--quiet", action="store_true", help="no progress on the terminal")
    kept = parser.add_argument_group("what is kept")
    flag = partial(kept.add_argument, action="store_true")
    text = "throw away the tb that is painted in this box and begin anew; haloes stay"
    flag("--discard", help=text)
    text = "throw away the haloes that bigbox painted, and the tb painted from them"
    flag("--discard-halo", help=text)
    text = "remove the painted tiles once tb is whole: halves the disk, ends repair of tb"
    flag("--drop-latents", help=text)


def run(options: argparse.Namespace) -> int:
    """Hand the options to the engine."""
    import bigbox

    told = {name: v for name, v in vars(options).items() if name != "run"}
    asked = told.pop("realization")
    for realization in (asked,) if isinstance(asked, int) else asked:
        bigbox.paint(**told, realization=realization)
    return 0


def _realizations(text: str) -> int | list[int]:
    """Read one realization's number, or a range of them."""
    numbers = numbers_of(text)
    if not numbers:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number nor a range of them, as 0-9"
        )
    if numbers[-1] >= 2**16:
        raise argparse.ArgumentTypeError(f"{text} is out of range: 0 to {2**16 - 1}")
    return numbers[0] if len(numbers) == 1 else numbers
