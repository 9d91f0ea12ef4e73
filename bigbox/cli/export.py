"""`bigbox export`: arrays of a box as numpy, HDF5, FITS or OME-Zarr files."""

from __future__ import annotations

import argparse
from pathlib import Path
from textwrap import indent
from typing import Any

from bigbox.cli.values import add_box, in_bytes, number, open_box
from bigbox.names import GRIDS

# Three lines each for those who read the files.
EXAMPLES = {
    "npy": """\
import numpy as np
tb = np.load("box_tb.npy", mmap_mode="r")  # mK, (X, Y, Z)
print(tb.shape, tb[0].mean())
""",
    "hdf5": """\
import h5py
with h5py.File("box.hdf5") as f:  # then Pk_library.Pk(tb, size, 0, "None") of Pylians
    tb, size = f["tb"][:], float(f["Header"].attrs["BoxSize"])  # mK, Mpc/h
""",
    "fits": """\
from astropy.io import fits
tb = fits.getdata("box_tb.fits")  # mK, (X, Y, Z); its header has the axes in Mpc/h
print(tb.shape, tb.mean())
""",
    "ome-zarr": """\
from ome_zarr.io import parse_url  # or: napari box_tb.ome.zarr
from ome_zarr.reader import Reader
levels = list(Reader(parse_url("box_tb.ome.zarr"))())[0].data  # dask arrays, finest first
""",
}

_TEXT = """\
Writes arrays of a box in a format that other programs read. The box may be far larger than memory.

  npy        one C-ordered float32 array a file: BOX_tb.npy
  hdf5       all chosen arrays in one file, with x, y, z in Mpc/h and a Header (BoxSize in Mpc/h,
             Redshift, cosmology): BOX.hdf5
  fits       one image a file, big-endian float32: BOX_tb.fits (astropy, ds9)
  ome-zarr   one image pyramid a folder, of means over 2^3, 4^3, ... voxels, with lengths in Mpc/h:
             BOX_tb.ome.zarr

{examples}
The store itself needs no export for xarray:

    import bigbox
    box = bigbox.open("box.zarr")  # xarray.Dataset on dask
    print(box.tb.sel(z=1.2, method="nearest").mean().compute())

What was painted on a painting grid (see bigbox paint --painting-grid) is interpolated to the grid
of dm there and here; --grid painted, and bigbox.open(.., grid="painted"), give it as it is stored.

example:  bigbox export box.zarr --to hdf5 --array dm tb
"""

_SHOWN = (f"{to} is read with\n\n{indent(code, '    ')}" for to, code in EXAMPLES.items())
TEXT = _TEXT.format(examples="\n".join(_SHOWN))
SUMMARY = "arrays as numpy, HDF5, FITS or OME-Zarr files"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser)
    add: Any = parser.add_argument
    add("--to", required=True, choices=("npy", "hdf5", "fits", "ome-zarr"), help="format")
    arrays = "arrays of the box (default: tb where there is one, else dm)"
    add("--array", nargs="+", metavar="NAME", help=arrays)
    out = "the file (default: beside the box, see above)"
    add("--out", type=Path, metavar="FILE", help=out)
    partial = "also a tb that is not painted to its end; NaN where it is not"
    add("--partial", action="store_true", help=partial)
    grid = (
        "dm (default): all arrays on the grid of dm, interpolated where they are on a painting "
        "grid; painted: as they are stored"
    )
    add("--grid", choices=GRIDS, default="dm", help=grid)
    omega = (
        "rescale tb to the mean T_b of this Omega_HI (observed at z = 0: about 4e-4); the file's "
        "attributes say so, but those of a .npy, which has none"
    )
    add("--omega-hi", type=number(0, above=True), metavar="X", help=omega)
    version = "of OME-Zarr: 0.5 is zarr v3 and sharded, 0.4 is zarr v2 for older readers (0.5)"
    add("--ome-version", choices=("0.5", "0.4"), default="0.5", help=version)
    memory = "memory that the blocks in work may take, GiB (1)"
    add("--memory", type=number(0, above=True), default=1.0, metavar="GIB", help=memory)


def run(options: argparse.Namespace) -> int:
    """Write the files and say where they are."""
    from bigbox.export import export

    done = export(
        open_box(options),
        options.to,
        options.array,
        options.out,
        partial=options.partial,
        grid=options.grid,
        ome_version=options.ome_version,
        omega_hi=options.omega_hi,
        memory=int(options.memory * 2**30),
    )
    for file in done:
        print(f"{file.path}: {', '.join(file.arrays)}, {in_bytes(file.bytes)}")
    return 0
