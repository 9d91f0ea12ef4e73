"""`bigbox evaluate`: how good models are, on simulations that no training saw."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_choice, add_value, number, whole
from bigbox.errors import BadInput
from bigbox.names import DEFAULT_STEPS, SAMPLERS

TEXT = """\
Paints simulations whose T_b is known with one model or several, on the true haloes and from dark
matter alone, several realizations each, and compares them with draws of the truth: further T_b on
the same haloes, which is what a perfect model would paint. Measured, with errors over draws and
realizations:
  P(k) and r(k) of T_b from 0.6 to 10 h/Mpc, mean T_b, one-point distribution, bispectrum
  seams where tiles meet, by axis; power at the voxels' own frequency in voids
  HALOgen's halo mass, and the rms of log10 of its density, in each mass bin
With --parts seams every realization is painted twice on the true haloes, with the same noise and
its tiles moved by half: planes that are seams in one lie inside tiles in the other. That says what
seams make to a percent, in a small box too.

A TRUTH is a box with dm, halo and tb (bigbox ingest --halos .. --hi-halo, or --gas). Boxes with the
same haloes are draws of one simulation (--hi-draw); with --halos CATALOGUE draws are made. Models
and truths may come in any order; without a model, the one that bigbox ships.

OUT gets index.html (all on one page, models side by side) and numbers.json. With --write-card the
numbers are kept in the models' cards, where bigbox models shows them. The same command goes on
after a stop: what is painted lies in OUT/boxes until all is measured. Draws that are made of a
catalogue are held in memory one at a time, 20 bytes a voxel; all else is read in blocks.

example:  bigbox ingest snapdir_000 truth.zarr --grid 128 --halos groups_000 --hi-halo
          bigbox evaluate model truth.zarr --halos groups_000 --realizations 10 --draws 10
next:     bigbox models model
"""

SUMMARY = "how good models are, on simulations that no training saw"
_HOW = ("seed", "steps", "sampler", "overlap_method", "device", "threads")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from bigbox.diffusion.overlap import overlap_methods

    help = "models (folders or names of bigbox models) and boxes with the truth"
    parser.add_argument("given", metavar="MODEL|TRUTH", type=Path, nargs="+", help=help)
    help = "a model more, by its folder or name; may be given several times"
    parser.add_argument(
        "--model", metavar="MODEL", type=Path, action="append", default=[], help=help
    )
    value = partial(add_value, parser)
    value("--realizations", "N", whole(1, 1000), "paintings of each truth (5)", 5)
    help = "draws of the truth (all that are given; with --halos as many as realizations)"
    value("--draws", "N", whole(1, 1000), help)
    value("--halos", "CATALOGUE", Path, "the truth's catalogue, to make draws of")
    value("--out", "DIR", Path, "folder of the report (evaluation)", Path("evaluation"))
    help = (
        "what is painted: on true haloes, from dark matter alone (default: both); seams: pairs on "
        "true haloes, to see what seams make"
    )
    parts = ("lodi", "pipeline", "seams")
    parser.add_argument("--parts", choices=parts, nargs="+", default=list(parts[:2]), help=help)
    flag = partial(parser.add_argument, action="store_true")
    flag("--write-card", help="keep the numbers in the models' cards")
    flag("--keep-boxes", help="keep what was painted, in OUT/boxes")
    flag("--force", help="also where a model is not for a truth; the page says so")
    group = parser.add_argument_group("how it is painted, as for bigbox paint")
    value = partial(add_value, group)
    value("--seed", "S", whole(0, 2**64 - 1), "of the noise (0)", 0)
    add_choice(group, "--sampler", SAMPLERS, "of the diffusion")
    defaults = ", ".join(f"{steps} for {name}" for name, steps in DEFAULT_STEPS.items())
    value("--steps", "T", whole(1, 4095), f"network calls for a tile; default: {defaults}")
    group.add_argument("--overlap-method", choices=overlap_methods(), help="of tiles")
    value("--device", "D", str, "auto (default), cpu, cuda", "auto")
    value("--threads", "N", whole(1), "of the CPU (all cores)")
    group = parser.add_argument_group("resources")
    help = "memory that the blocks in work may take, GiB (1)"
    add_value(group, "--memory", "GIB", number(0, above=True), help, 1.0)


def run(options: argparse.Namespace) -> int:
    """Evaluate, and say what was found."""
    from bigbox.evaluation.run import EvaluateOptions, evaluate
    from bigbox.painters.models import SHIPPED, named_model
    from bigbox.store.metadata import is_box

    truths = [path for path in options.given if is_box(path)]
    models = [path for path in options.given if not is_box(path)] + options.model
    if not truths:
        given = ", ".join(map(str, options.given))
        raise BadInput(f"{given}: no box with a truth among them; make one with: bigbox ingest")
    how: dict[str, Any] = {name: getattr(options, name) for name in _HOW}
    numbers = evaluate(
        EvaluateOptions(
            models=[named_model(one) for one in models or [Path(SHIPPED)]],
            truths=truths,
            out=options.out,
            realizations=options.realizations,
            draws=options.draws,
            catalogue=options.halos,
            parts=options.parts,
            write_card=options.write_card,
            keep_boxes=options.keep_boxes,
            force=options.force,
            memory=int(options.memory * 2**30),
            how=how,
        )
    )
    for truth in numbers["truths"]:
        for name, rows in truth["models"].items():
            for check in rows["checks"]:
                word = "kept" if check["kept"] else "MISSED"
                found = f"{check['found']} (asked: {check['allowed']})"
                print(f"{word:7}{name} on {truth['name']}: {check['name']}: {found}")
    print(f"report: {options.out / 'index.html'}")
    return 0
