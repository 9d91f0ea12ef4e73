"""`bigbox bench`: how fast this machine paints, and what a box would cost on many like it."""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bigbox.cli.values import add_choice, add_value, in_bytes, in_time, number, whole
from bigbox.errors import BadInput
from bigbox.names import COMPILE

if TYPE_CHECKING:
    from bigbox.bench.record import Speed

TEXT = """\
Measures one device of this machine, a GPU or the threads of its processor: what it can do at most
(matrix products, convolutions, copies, the disk), how fast the networks are and which share of that
they reach, and what the engine adds to the bare sampler in a real painting (in a temporary folder).
Takes two minutes: nearly all is measured twice, for others on the machine come and go. Prints one
table, and what a box would cost on many such devices.

The numbers are kept in the user's cache folder, where bigbox plan finds them.

example:  bigbox bench
example:  bigbox bench --shape 10240 --box-size 1000 --devices 64
next:     bigbox plan box.zarr --ranks 4
"""

SUMMARY = "how fast this machine paints"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    value = partial(add_value, parser)
    value("--model", "DIR", Path, "networks (default: the shipped)")
    value("--device", "D", str, "cpu, cuda, cuda:1 (default: a GPU if any)", "auto")
    value("--threads", "N", whole(1), "CPU threads (default: all that there are)")
    value("--steps", "T", whole(1, 4095), "network calls per tile")
    value("--batch", "K", whole(1), "tiles painted at once")
    add_choice(parser, "--compile", COMPILE, "as for bigbox paint")
    value("--seconds", "S", number(1), "that painting takes, about (60)", 60.0)
    value("--scratch", "DIR", Path, "where it paints (default: temporary files)")
    value("--out", "FILE", Path, "JSON (default: for bigbox plan)")
    value = partial(add_value, parser.add_argument_group("a box to tell the cost of"))
    value("--shape", "N", whole(1), "voxels (10240)", 10_240)
    value("--box-size", "L", number(0, above=True), "Mpc/h (1000)", 1000.0)
    value("--devices", "N", whole(1), "devices like this one (64)", 64)


def run(options: argparse.Namespace) -> int:
    """Measure, keep the numbers, and print the table."""
    from bigbox.bench.painting import bench
    from bigbox.bench.record import default_path, save_speed

    if options.scratch and not options.scratch.is_dir():
        raise BadInput(f"--scratch {options.scratch}: no such folder")
    asked = ("model", "device", "threads", "steps", "batch", "compile", "seconds", "scratch")
    began = time.monotonic()

    def say(what: str) -> None:
        took = in_time(time.monotonic() - began)
        print(f"bigbox: bench: after {took}: measuring {what} ...", file=sys.stderr, flush=True)

    speed = bench(**{name: getattr(options, name) for name in asked}, say=say)
    out = options.out or default_path()
    save_speed(speed, out)
    print(table(speed))
    print(cost(speed, options.shape, options.box_size, options.devices))
    print(f"kept in {out}; next: bigbox plan, which uses these numbers")
    return 0


def table(speed: Speed) -> str:
    """Return the numbers for people."""
    threads = f", {speed.threads} threads" if speed.threads > 1 else ""

    def network(operations: float, seconds: float, unit: str) -> str:
        rate = operations / seconds
        return (
            f"{1e3 * seconds:.3g} ms a {unit}, {operations / 1e9:.3g} GFLOP: {_rate(rate)}, "
            f"{100 * rate / speed.convolution:.0f} % of the convolution ceiling, "
            f"{100 * rate / speed.matrix_product:.0f} % of the matrix product's"
        )

    rows = [
        ("device", f"{speed.device}{threads}, {speed.dtype}, "
                   f"{'compiled' if speed.compiled else 'not compiled'}, torch {speed.torch}"),
        ("matrix product", _rate(speed.matrix_product)),
        ("convolution 3³", f"{_rate(speed.convolution)}, the best of several shapes"),
        ("copy", f"{in_bytes(speed.copied)}/s read and written"),
        ("disk", f"{in_bytes(speed.written)}/s written with fsync, "
                 f"{in_bytes(speed.read)}/s read (cache)"),
        ("LODI", network(speed.lodi_operations, speed.lodi_call, "tile and call")),
        ("HALOgen", network(speed.halogen_operations, speed.halogen_window, "window")),
        ("sampler", f"{1e3 * speed.tile:.4g} ms a tile at {speed.steps} calls, the network "
                    f"{100 * speed.steps * speed.lodi_call / speed.tile:.1f} % of it"),
        ("engine", f"{1e3 * speed.engine_tile:.4g} ms a tile over {speed.tiles} tiles, "
                   f"{100 * (speed.engine_tile / speed.tile - 1):+.1f} % on the sampler; painter "
                   f"busy {100 * speed.busy:.1f} %"),
        ("start", f"{speed.start:.1f} s until the painters are ready"
                  f"{', kernels: ' + speed.kernels if speed.on_gpu else ''}"),
        ("copies", f"{100 * speed.copies:.1f} % of a call of LODI"),
    ]  # fmt: skip
    for kind in ("lodi", "halogen"):
        parts = {k.split()[1]: v for k, v in speed.layers.items() if k.startswith(f"{kind} ")}
        total = sum(seconds for seconds, _ in parts.values())
        for name, (seconds, operations) in parts.items():
            if seconds:
                text = f"{name:16}{1e3 * seconds:9.4f} ms{100 * seconds / total:6.1f} %  "
                rows.append((f"  {kind}", text + _rate(operations / seconds)))
    return "\n".join(f"{name:16}{text}" for name, text in rows)


def cost(speed: Speed, voxels: int, box_size: float, devices: int) -> str:
    """Return what a box would take on so many devices like this one, haloes included."""
    from bigbox.bench.record import PAINTER
    from bigbox.diffusion.overlap import tiling_for
    from bigbox.names import DEFAULT_OVERLAP_METHOD
    from bigbox.plan import make_plan
    from bigbox.store.painting_grid import PaintingGrid

    threads = speed.threads
    painted = PaintingGrid.of((voxels,) * 3, box_size / voxels, speed.grid)
    plan = make_plan(
        tiling_for(DEFAULT_OVERLAP_METHOD, painted.shape),
        (box_size,) * 3,
        grid=speed.grid,
        ranks=devices,
        painter=PAINTER,
        seconds_per_tile=speed.seconds_per_tile(speed.steps, threads),
        seconds_per_window=speed.seconds_per_window(threads),
    )
    hours, unit = plan.seconds * devices / 3600, "GPU" if speed.on_gpu else "device"
    return (
        f"{'cost':16}{voxels:,}³ voxels of {box_size:g} Mpc/h, {plan.tiling.size:,} tiles: "
        f"{in_time(plan.seconds)} on {devices} such devices, {hours:,.1f} {unit} hours"
    )


def _rate(operations: float) -> str:
    """Operations a second for people."""
    big = operations >= 1e12
    return f"{operations / (1e12 if big else 1e9):.3g} {'TFLOP/s' if big else 'GFLOP/s'}"
