"""Define `bigbox train`, whose work is in bigbox.training."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path

from bigbox.cli.values import add_choice, add_value, number, whole

TEXT = """\
Trains one of the two networks on boxes that have the truth: halogen learns halo from dm, lodi
learns tb from halo. All boxes must have the same voxel size (Mpc/h), redshift and smoothing; they
are held in memory, 4 bytes a voxel and channel while they are read, then 2, on the GPU if there is
one (halogen: 5 channels; lodi: 4, one for each draw of tb, and 4 with --halogen).

Presets: mini (the default) works on the painting grid, every second voxel of the boxes on an axis:
what is smoothed over two voxels has nothing between. HALOgen sees windows of 64 voxels of that grid
(128 of the box; in smaller boxes what fits, a multiple of 32 of the box, at least 32), LODI tiles
of 32 (64 of the box). paper has the published networks on every voxel and their length of training;
it needs a GPU for days. Batch, steps and rate of mini are smaller on a CPU.

Data: several simulations are split by simulation (the last quarter validates), a single one by slab
with a gap of 2 Mpc/h, so that nothing leaks. Boxes with the same haloes are draws of one simulation
and count as one (bigbox simulate --hi-draws makes them); LODI sees a draw at random. A model knows
no heavier halo and no denser voxel than it has seen, so give it volume: the shipped networks saw 18
boxes of 18.75 Mpc/h. LODI needs boxes of 64 voxels on an edge at least, HALOgen of 32.

--within fits the schedule to the time: the learning rate falls to zero as it ends. --hours is the
time limit of a job: training stops before it, and the same command goes on, as after a kill. OUT
holds a checkpoint beside the model. Several GPUs:
torchrun --nproc-per-node 4 -m bigbox train lodi ...

OUT gets KIND.safetensors (weights), KIND.json (the model card: data, splits, seeds, resolution,
normalisation, errors), KIND.csv and KIND.png (the curve: loss, validation, and the errors of
HALOgen by channel, of LODI by noise level). Judge LODI by the latter, at low levels.

example:  bigbox simulate sims --seeds 1-8 --boxes
          bigbox train halogen sims/*.zarr --out model --within 2
          bigbox train lodi sims/*.zarr --out model --halogen model --within 4
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
    add_choice(parser, "--preset", ("mini", "paper"), "network, grid and recipe; see above")
    value, above_0 = partial(add_value, parser), number(0.0, above=True)
    held_out = "how many of the last simulations validate (default a quarter)"
    value("--held-out", "N", whole(1, 10_000), held_out)
    length = parser.add_argument_group("length and recipe (defaults are the preset's)")
    recipe = partial(add_value, length)
    recipe("--within", "H", above_0, "end within so many hours, all starts together")
    hours = "stop after this time with status 75; the same command goes on"
    recipe("--hours", "H", above_0, hours)
    recipe("--steps", "N", whole(1, 10**8), "of the optimiser; with --within at most so many")
    recipe("--batch", "N", whole(1, 4096), "sub-volumes a step, over all GPUs")
    recipe("--rate", "R", above_0, "highest learning rate")
    value("--seed", "S", whole(0, 2**31), "default 0", 0)
    further = "train the weights of this model further; its validation comes first"
    value("--further", "MODEL", Path, further)
    halogen = parser.add_argument_group("halogen")
    loss = (
        "mean (mini): its best network is the mean density given dm, and loses no mass; paper: "
        "eqs. 2-7, of the logarithm"
    )
    halogen.add_argument("--loss", choices=("mean", "paper"), help=loss)
    lodi = parser.add_argument_group("lodi")
    predicts = "what LODI predicts: v (mini), noise (paper)"
    lodi.add_argument("--parametrisation", choices=("v", "noise"), help=predicts)
    haloes = (
        "part of the samples has the haloes that this model predicts, as painting from "
        "dark matter alone will have; the boxes need dm"
    )
    add_value(lodi, "--halogen", "MODEL", Path, haloes)
    share = "that part, 0 to 1 (default 0.5)"
    add_value(lodi, "--halogen-share", "P", number(0.0, 1.0), share)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    value("--threads", "N", whole(1, 4096), "of the CPU")
    compiled = "the network by torch.compile, a minute at first: auto is on for a GPU"
    add_choice(parser, "--compile", ("auto", "on", "off"), compiled)
    float32 = "store weights in full; by default in bfloat16, the precision that painting uses"
    parser.add_argument("--float32-weights", action="store_true", help=float32)


def run(options: argparse.Namespace) -> None:
    """Train, and say how well it went."""
    import bigbox

    made = bigbox.train(**{k: v for k, v in vars(options).items() if k != "run"})
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun starts several; one of them speaks
    measured = ", ".join(f"{name} {value}" for name, value in made.measured.items())
    print(f"{options.out / options.kind}.json: {measured}")
