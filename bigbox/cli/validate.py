"""`bigbox validate`: judge a painted box, and look for seams."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_box, beside, number, open_box, realizations_of, whole
from bigbox.errors import BadInput

FAILED = 3

TEXT = """\
Measures a painted box and judges it: power spectra, one-point distribution, seams at the tiles'
edges, and, with a truth, how far the box is from it. Writes a folder with

  index.html      all of it on one page that needs no other file: start here
  numbers.json    every number         *.png    every figure

and prints one line: pass, or fail and why. The box may be far larger than memory.

What is judged:
  seams           the ratio of squared differences across tile edges to those inside, and tests of
                  steps, profiles and harmonics of the tile period with a stated false-alarm rate:
                  in the field, in its arcsinh (where bright voxels hide nothing), and in the field
                  less the truth or less another realization
  with a truth    P(k) / P_truth(k) in every bin up to --k-max, and the ratio of the means; where
                  both have halo maps, the halo mass in every bin
  with a truth by the HI-halo relation (bigbox ingest --hi-halo)
                  P(k), r(k), mean, geometric mean and seams beside --draws of the truth: the HI of
                  the same haloes drawn anew, which is what a perfect model would paint
  --against-card  the same about the errors that the model's own card tells, instead of about none
A box fails where a value is beyond its limit, and not by chance: by more than two of its errors, or
by more than draws of the truth scatter. What may be chance is called "not significant". The report
says where each limit comes from. Error bars are the scatter of --realizations where there are any,
else a jackknife over sub-volumes.

exit status: 0 pass; 3 fail, the report is written all the same; 2 bad input, nothing written

example:  bigbox validate box.zarr --truth hydro.zarr --realizations box1.zarr box2.zarr
"""

SUMMARY = "spectra, seams, distributions; pass or fail"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_box(parser, "the painted box")
    add: Any = parser.add_argument
    truth = (
        "what the box should be: a box, or an array (.npy, HDF5 file:/name, zarr) of the same grid,"
        " in the same unit"
    )
    add("--truth", metavar="BOX|ARRAY", help=truth)
    others = (
        "other paintings of the same matter, for the error bars: boxes, or realizations of BOX by "
        "their numbers, as in 0-9"
    )
    add("--realizations", nargs="+", default=[], metavar="BOX|R", help=others)
    add("--array", default="tb", metavar="NAME", help="array of the box (tb)")
    out = "folder of the report (BOX_validate beside BOX)"
    add("--out", type=Path, metavar="DIR", help=out)
    draws = "draws of the truth that the box is judged beside; 0: none"
    add("--draws", type=whole(0, 10_000), default=24, metavar="N", help=f"{draws} (24)")
    halos = "their halo catalogue (where the truth was ingested from)"
    add("--halos", nargs="+", type=Path, default=[], metavar="CATALOGUE", help=halos)
    card = "judge by the errors that the card of the model tells which painted the box"
    add("--against-card", action="store_true", help=card)
    model = "that model, by folder or name, where bigbox models does not know it"
    add("--model", type=Path, metavar="MODEL", help=model)

    add = parser.add_argument_group("limits").add_argument
    for flag, default, text in (
        ("--max-seam-ratio", 1.25, "largest seam ratio of an axis; 1 is no seam"),
        ("--min-seam-ratio", 0.75, "least seam ratio of an axis: less is too smooth at the edges"),
        ("--false-alarm-rate", 0.001, "chance at which a seam counts as found; 0: never fails"),
        ("--draw-rate", 0.005, "chance at which a draw of the truth fails a check beside draws"),
        (
            "--max-power-error",
            0.10,
            "largest |P / P_truth - 1|, as in the paper; beside draws half",
        ),
        ("--max-mean-error", 0.05, "largest |mean / mean of the truth - 1|; beside draws half"),
        ("--max-halo-error", 0.10, "largest |halo mass / true halo mass - 1| of a mass bin"),
    ):
        add(flag, type=number(0), default=default, metavar="X", help=f"{text} ({default:g})")
    least = "least r(k) with the truth (judged beside draws alone: realizations differ)"
    add("--min-correlation", type=number(-1), metavar="X", help=least)
    most = "largest k that is judged, h/Mpc (10, or half of Nyquist where that is less)"
    add("--k-max", type=number(0, above=True), metavar="K", help=most)

    add = parser.add_argument_group("maps").add_argument
    add("--axis", choices=("x", "y", "z"), default="z", help="across which the slab is cut (z)")
    add("--at", type=number(0), metavar="D", help="its middle, Mpc/h (the box's)")
    above = number(0, above=True)
    add("--thickness", type=above, metavar="D", help="of the slab, Mpc/h (0.9)")
    add("--mark-tiles", action="store_true", help="lines on the map where tiles meet")

    add = parser.add_argument_group("resources").add_argument
    memory = "memory that the blocks in work may take, GiB (1)"
    add("--memory", type=above, default=1.0, metavar="GIB", help=memory)
    scratch = "folder for 4 bytes a voxel and field, removed afterwards (the system's)"
    add("--scratch", type=Path, metavar="DIR", help=scratch)


def run(options: argparse.Namespace) -> int:
    """Write the report; say pass or fail."""
    from bigbox.analysis.report.judge import Limits
    from bigbox.analysis.report.page import View
    from bigbox.analysis.report.validate import Beside, validate
    from bigbox.signals import stoppable

    if options.truth is None and options.halos:
        raise BadInput("--halos is the catalogue of the truth: give --truth")
    box = open_box(options)
    out = options.out or beside(box, "_validate")
    with stoppable(out, "the scratch is removed, start the same command again"):
        found = validate(
            box.place,
            truth=options.truth,
            realizations=realizations_of(box, options.realizations),
            array=options.array,
            out=out,
            limits=Limits(**{one.name: getattr(options, one.name) for one in fields(Limits)}),
            beside=Beside(options.draws, tuple(options.halos), options.against_card, options.model),
            view=View(options.axis, options.at, options.thickness, options.mark_tiles),
            memory=int(options.memory * 2**30),
            scratch=options.scratch,
        )
    word = "pass" if found["pass"] else "fail"
    for note in found["notes"]:
        print(f"note: {note}")
    print(f"{options.box}: {word}: {found['verdict']}")
    print(f"report: {out / 'index.html'}")
    return 0 if found["pass"] else FAILED
