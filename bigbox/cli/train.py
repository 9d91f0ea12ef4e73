"""Define `bigbox train`, whose work is in bigbox.training."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from bigbox.cli.values import add_choice, add_value, number, whole

TEXT = """\
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

SUMMARY = "train HALOgen or LODI on boxes with the truth"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("kind", choices=("halogen", "lodi"), help="which network")
    parser.add_argument("boxes", metavar="BOX", type=Path, nargs="+", help="boxes with the truth")
    parser.add_argument(
        "--out", metavar="MODEL", type=Path, required=True, help="folder of the model"
    )
    preset = (
        "sizes and recipe: mini (default) paints 128³ in about a minute on two CPU cores, "
        "paper has the published widths and length of training and needs a GPU"
    )
    add_choice(parser, "--preset", ("mini", "paper"), preset)
    value, above_0 = partial(add_value, parser), number(0.0, above=True)
    held_out = "how many of the last boxes validate (default a quarter)"
    value("--held-out", "N", whole(1, 10_000), held_out)
    value("--steps", "N", whole(1, 10**8), "of the optimiser")
    value("--batch", "N", whole(1, 4096), "sub-volumes a step")
    value("--rate", "R", above_0, "learning rate")
    predicts = "what LODI predicts: v (mini), noise (paper)"
    parser.add_argument("--parametrisation", choices=("v", "noise"), help=predicts)
    value("--further", "MODEL", Path, "train the weights of this model further")
    haloes = (
        "lodi: part of the samples has the haloes that this model predicts, as painting from "
        "dark matter alone will have"
    )
    value("--halogen", "MODEL", Path, haloes)
    value("--halogen-share", "P", number(0.0), "that part, 0 to 1 (default 0.5)", 0.5)
    value("--seed", "S", whole(0, 2**31), "default 0", 0)
    hours = "stop after this time with status 75; the same command goes on"
    value("--hours", "H", above_0, hours)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    value("--threads", "N", whole(1, 4096), "of the CPU")
    float32 = "store weights in full; by default in bfloat16, the precision that painting uses"
    parser.add_argument("--float32-weights", action="store_true", help=float32)


def run(options: argparse.Namespace) -> None:
    """Train."""
    from bigbox.training.train import TrainOptions, train

    train(TrainOptions(**{k: v for k, v in vars(options).items() if k != "run"}))
