"""`bigbox ingest`: a density grid becomes a box."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_command, number, whole

_TEXT = """\
Reads a dark-matter density grid into a new box: a zarr store with the array dm, the density over
its mean (1 + delta), float32, checksummed.

SOURCE is one of
  grid.npy                a numpy array of shape (nx, ny, nz)
  file.hdf5:/path/to/dm   an HDF5 data set; without :/path the only one of rank 3 or 4
  grid.zarr               a zarr array, or group.zarr:/dm
  Grids_Mcdm_...npy       a CAMELS multifield file of shape (n, N, N, N), with --index
  quickstart              the small real box that bigbox brings (12.5 Mpc/h, 128^3)
in any positive unit (CAMELS: (M_sun/h)/(Mpc/h)^3): the grid is divided by its mean.

The grid may be far larger than memory: it is read twice in blocks of 256^3 voxels, and the blocks
in work take at most 1 GiB together. NaN, infinite and negative densities are refused with the first
voxel that has one. On any error, and on SIGTERM (exit status 75), nothing is left behind; what a
killed ingest has left in the folder of BOX the next one removes.


example:  bigbox ingest Grids_Mcdm_IllustrisTNG_CV_256_z=0.0.npy cv0.zarr --index 0 --box-size 25
next:     bigbox plan cv0.zarr --ranks 4
"""


def add(commands: Any) -> None:
    """Adds the command to the command line."""
    parser = add_command(commands, "ingest", summary="a density grid becomes a box", text=_TEXT)
    parser.add_argument("source", metavar="SOURCE", help="the density grid; see above")
    parser.add_argument("box", metavar="BOX", type=Path, help="the box to make, e.g. box.zarr")
    parser.add_argument(
        "--box-size",
        type=number(0, above=True),
        nargs="+",
        metavar="L",
        help="side of the box in comoving Mpc/h, or three sides; required unless SOURCE tells it "
        "(its attribute box_size, with box_size_units Mpc/h)",
    )
    parser.add_argument("--redshift", type=number(0), metavar="Z", help="redshift (default 0)")
    parser.add_argument(
        "--index", type=whole(0), metavar="I", help="which grid of a source that holds several"
    )
    cosmology = parser.add_argument_group("cosmology, kept with the box")
    for flag, text in (
        ("--omega-m", "matter density over critical, today"),
        ("--omega-b", "baryon density over critical, today"),
        ("--h", "H0 / (100 km/s/Mpc)"),
        ("--sigma8", "amplitude of the linear power spectrum at 8 Mpc/h"),
        ("--n-s", "slope of the primordial power spectrum"),
    ):
        cosmology.add_argument(flag, type=number(0, above=True), metavar="X", help=text)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Does it, and says what was made and what comes next."""
    from bigbox.ingest.density import COSMOLOGY, ingest

    told = {name: getattr(options, name) for name in COSMOLOGY}
    done = ingest(
        options.source,
        options.box,
        box_size=None if options.box_size is None else tuple(options.box_size),
        redshift=options.redshift,
        cosmology={name: value for name, value in told.items() if value is not None},
        index=options.index,
    )
    for note in done.notes:
        print(f"bigbox: note: {note}", file=sys.stderr)
    for warning in done.warnings:
        print(f"bigbox: warning: {warning}", file=sys.stderr)
    print(
        f"{options.box}: {' x '.join(map(str, done.shape))} voxels, "
        f"{' x '.join(f'{side:g}' for side in done.box_size)} Mpc/h, z = {done.redshift:g}, "
        f"voxel {done.box_size[0] / done.shape[0]:.4g} Mpc/h"
    )
    print(
        f"1 + delta from {done.least / done.mean:.3g} to {done.largest / done.mean:.3g} "
        f"(mean of the source {done.mean:.6g})"
    )
    print(f"next: bigbox plan {options.box}")
    return 0
