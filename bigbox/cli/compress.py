"""`bigbox compress`: the dm of a box in a fraction of a bit for each voxel."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from bigbox.cli.values import add_value, in_time, number, whole

TEXT = """\
Compresses the dark matter of a box with a trained encoder (CosmoFlow, in 3-D): of every 4^3 voxels
it keeps the mean density and a few learned numbers, rounded and entropy-coded. OUT is a folder, a
zarr group with the numbers and all that bigbox decompress needs beside the model.

What is kept: the mean density of each cell of 4^3 voxels, to 1 or 2 %; so power spectrum and phases
on scales above a cell. What is finer is made up when it is decompressed, as the model has learned
it from simulations: a draw of the field, not the field. Keep the box where every voxel counts.

The encoder sees 16 voxels beyond a cell and no more, and works through the box in cubes of fixed
size: memory does not grow with the box, and the bytes depend on box, model and --step alone. The
same command goes on after a kill.

example:  bigbox compress box.zarr small
next:     bigbox decompress small again.zarr
"""

SUMMARY = "the dm of a box in a fraction of a bit for each voxel"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    value = partial(add_value, parser)
    parser.add_argument("box", metavar="BOX", type=Path, help="the box, as bigbox ingest makes it")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    value("--model", "MODEL", Path, "a folder with a 3-D model (default: the one that comes along)")
    value("--field", "NAME", str, "the array to compress; a model knows one (dm)", "dm")
    text = (
        "what the learned numbers are rounded to (default: as the model was trained); the mean "
        "density is rounded to a tenth of it, in dex. Larger: fewer bits"
    )
    value("--step", "S", number(0, above=True), text)
    text = "compress at a voxel, redshift or cosmology that the model does not know; OUT says so"
    parser.add_argument("--force", action="store_true", help=text)
    value("--workers", "W", whole(1, 1024), "threads (default: the cores, as memory suffices)")


def run(options: argparse.Namespace) -> int:
    """Compress, and say what it has come to."""
    import time

    import numpy as np

    from bigbox.cosmoflow.encode import CompressOptions, compress

    began = time.monotonic()
    given = {name: value for name, value in vars(options).items() if name != "run"}
    made = compress(CompressOptions(**given))
    about, voxels = made.attributes, float(np.prod(made.shape))
    if about.get("forced"):
        sys.stderr.write(f"compressed with --force: {about['forced']}\n")
    print(
        f"{options.out}: {about['bits_per_voxel']:.3f} bits per voxel,"
        f" {about['bytes'] / 1e6:.2f} MB of {voxels * 4 / 1e6:.0f} MB"
        f" ({voxels * 4 / about['bytes']:.0f} times smaller), in"
        f" {in_time(time.monotonic() - began)}"
    )
    print(f"next: bigbox decompress {options.out} again.zarr")
    return 0
