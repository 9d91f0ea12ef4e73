"""`bigbox plot`: a picture of input and output side by side, or a film through the box."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_box, add_value, beside, finite, number, open_box, whole
from bigbox.names import GRIDS

TEXT = """\
Draws one slab of the box, averaged over its thickness: the density (1 + delta, logarithmic) and the
brightness temperature (mK) side by side, or what --array names: halo is a panel for each mass bin,
all in one colour scale. Only the slab is read. Voxels that are not painted yet are grey, so it can
be used while painting. The ending of --out is the format: .png, or .pdf and .svg for a paper.

--frames N draws a film of N slabs from one end of the axis to the other: .gif, or .mp4 where the
program ffmpeg is there.

example:  bigbox plot box.zarr --at 6.25 --thickness 0.5 --out slab.pdf
          bigbox plot box.zarr --array dm halo tb --window 2:8,2:8
          bigbox plot box.zarr --array tb --thickness 1 --frames 48
"""

SUMMARY = "a picture of a slab of input and output, or a film"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser)
    add: Any = parser.add_argument
    add("--axis", choices=("x", "y", "z"), default="z", help="across which the slab is cut (z)")
    at = "where the slab's middle is, Mpc/h (default: the middle of the box)"
    add("--at", type=number(0), metavar="D", help=at)
    thick = "of the slab, Mpc/h (default: one voxel)"
    add("--thickness", type=number(0, above=True), metavar="D", help=thick)
    window = "show this part of the slab: Mpc/h on the two other axes"
    add("--window", type=_window, metavar="A0:A1,B0:B1", help=window)
    out = "the picture: .png, .pdf or .svg; of a film .gif or .mp4 (default: BOX.png, BOX.gif)"
    add("--out", type=Path, metavar="FILE", help=out)
    arrays = "arrays of the box to show (default: dm and tb, those that are there)"
    add("--array", dest="arrays", nargs="+", metavar="NAME", help=arrays)
    frames = "a film of so many slabs through the box"
    add("--frames", type=whole(2, 10_000), metavar="N", help=frames)
    grid = "dm (default): interpolated where a painting grid is coarser; painted: as it is stored"
    add("--grid", choices=GRIDS, default="dm", help=grid)
    group = parser.add_argument_group("how it looks")
    log = "logarithmic colours (default: for dm and halo; T_b is linear in its bulk)"
    group.add_argument("--log", action="store_true", help=log)
    add_value(group, "--cmap", "NAME", str, "colour map of matplotlib, for all panels")
    add_value(group, "--vmin", "V", finite, "least value of the colours, for all panels")
    add_value(group, "--vmax", "V", finite, "largest value of the colours, for all panels")
    add_value(group, "--dpi", "N", whole(10, 2000), "dots an inch (110)", 110)
    tiles = "lines where the tiles of tb meet"
    group.add_argument("--mark-tiles", action="store_true", help=tiles)


def run(options: argparse.Namespace) -> int:
    """Write the picture and say where it is."""
    box = open_box(options)
    if options.arrays is None:
        box.require_input()
    from bigbox.analysis.maps.picture import Look, plot

    out = options.out or beside(box, ".png" if options.frames is None else ".gif")
    look = ("log", "mark_tiles", "grid", "cmap", "vmin", "vmax", "dpi")
    chosen = ("axis", "at", "thickness", "window", "arrays", "frames")
    told = {name: getattr(options, name) for name in chosen}
    names = plot(box, out, look=Look(**{name: getattr(options, name) for name in look}), **told)
    print(f"{out}: {', '.join(names)}")
    return 0


def _window(text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Read A0:A1,B0:B1, Mpc/h."""
    try:
        (a, b), (c, d) = (map(finite, part.split(":")) for part in text.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not A0:A1,B0:B1, as in 0:5,2.5:7.5"
        ) from None
    return (a, b), (c, d)
