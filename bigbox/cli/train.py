"""Define `bigbox train`, whose work is in bigbox.training."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bigbox.cli.values import add_command, number, whole

_TEXT = """\
Trains one of the two networks on boxes that have the truth: halogen learns halo from dm, lodi
learns tb from halo. All boxes must have the same voxel size (Mpc/h), redshift and smoothing; they
are held in memory. Several boxes are split by simulation (the last quarter validates), a single
one by slab with a gap of 2 Mpc/h, so that nothing leaks.

The same command goes on after a kill: OUT holds a checkpoint beside the model. Several GPUs:
torchrun --nproc-per-node 4 -m bigbox train lodi ...

OUT gets KIND.safetensors (weights), KIND.json (the model card: data, splits, seeds, resolution,
normalisation, errors), KIND.csv and KIND.png (curves).

example:  bigbox ingest snapdir_000 a.zarr --grid 256 --halos groups_000 --hi-halo
          bigbox train halogen a.zarr b.zarr --out model
          bigbox train lodi a.zarr b.zarr --out model
next:     bigbox paint c.zarr --model model
"""


def add(commands: Any) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands, "train", summary="train HALOgen or LODI on boxes with the truth", text=_TEXT
    )
    parser.add_argument("kind", choices=("halogen", "lodi"), help="which network")
    parser.add_argument("boxes", metavar="BOX", type=Path, nargs="+", help="boxes with the truth")
    parser.add_argument(
        "--out", metavar="MODEL", type=Path, required=True, help="folder of the model"
    )
    parser.add_argument(
        "--preset",
        choices=("mini", "paper"),
        default="mini",
        help="sizes and recipe: mini (default) paints 128³ in about a minute on two CPU cores, "
        "paper has the published widths and length of training and needs a GPU",
    )
    parser.add_argument(
        "--held-out",
        type=whole(1, 10_000),
        metavar="N",
        help="how many of the last boxes validate (default a quarter)",
    )
    parser.add_argument("--steps", type=whole(1, 10**8), metavar="N", help="of the optimiser")
    parser.add_argument("--batch", type=whole(1, 4096), metavar="N", help="sub-volumes a step")
    parser.add_argument("--rate", type=number(0.0, above=True), metavar="R", help="learning rate")
    parser.add_argument(
        "--parametrisation",
        choices=("v", "noise"),
        help="what LODI predicts: v (mini), noise (paper)",
    )
    parser.add_argument(
        "--further",
        metavar="MODEL",
        type=Path,
        dest="start",
        help="train the weights of this model further",
    )
    parser.add_argument(
        "--halogen",
        metavar="MODEL",
        type=Path,
        help="lodi: part of the samples has the haloes that this model predicts, as painting from "
        "dark matter alone will have",
    )
    parser.add_argument(
        "--halogen-share",
        type=number(0.0),
        default=0.5,
        metavar="P",
        help="that part, 0 to 1 (default 0.5)",
    )
    parser.add_argument("--seed", type=whole(0, 2**31), default=0, metavar="S", help="default 0")
    parser.add_argument(
        "--hours",
        type=number(0.0, above=True),
        metavar="H",
        help="stop after this time with status 75; the same command goes on",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--threads", type=whole(1, 4096), metavar="N", help="of the CPU")
    parser.add_argument(
        "--float32-weights",
        action="store_true",
        help="store weights in full; by default in bfloat16, the precision that painting uses",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from bigbox.training.train import TrainOptions, train

    train(TrainOptions(**{k: v for k, v in vars(options).items() if k != "run"}))
