"""`bigbox plot`: a picture of input and output side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_box, beside, number, open_box
from bigbox.names import GRIDS

TEXT = """\
Writes a PNG of one slab of the box: the density (1 + delta, logarithmic), the halo channels where
there are any, and the brightness temperature (mK), averaged over the slab. Only the slab is read.
Voxels that are not painted yet are grey, so it can be used while painting.

example:  bigbox plot box.zarr --axis z --at 6.25 --thickness 0.5 --out slab.png
          bigbox plot box.zarr --array tb --log --mark-tiles
"""

SUMMARY = "a picture of a slab of input and output"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser)
    add: Any = parser.add_argument
    add("--axis", choices=("x", "y", "z"), default="z", help="across which the slab is cut (z)")
    at = "where the slab's middle is, Mpc/h (default: the middle of the box)"
    add("--at", type=number(0), metavar="D", help=at)
    thick = "of the slab, Mpc/h (default: one voxel)"
    add("--thickness", type=number(0, above=True), metavar="D", help=thick)
    out = "the picture (default: BOX with .png at its end)"
    add("--out", type=Path, metavar="PNG", help=out)
    arrays = "arrays of the box to show (default: dm, halo and tb, those that are there)"
    add("--array", dest="arrays", nargs="+", metavar="NAME", help=arrays)
    log = "logarithmic colours (default: for dm and halo; T_b is linear in its bulk)"
    add("--log", action="store_true", help=log)
    grid = "dm (default): interpolated where a painting grid is coarser; painted: as it is stored"
    add("--grid", choices=GRIDS, default="dm", help=grid)
    add("--mark-tiles", action="store_true", help="crosses at the corners of the painted tiles")


def run(options: argparse.Namespace) -> int:
    """Write the picture and say where it is."""
    box = open_box(options)
    if options.arrays is None:
        box.require_input()
    from bigbox.analysis.maps.picture import plot

    out = options.out or beside(box, ".png")
    chosen = ("axis", "at", "thickness", "arrays", "log", "mark_tiles", "grid")
    names = plot(box, out, **{name: getattr(options, name) for name in chosen})
    print(f"{out}: {', '.join(names)}")
    return 0
