"""The whole of `bigbox bench`: ceilings, networks, and a real painting through the engine."""

from __future__ import annotations

import os
import platform
import socket
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bigbox import __version__
from bigbox.bench.ceilings import convolution_rate, copy_rate, matrix_product_rate, store_rates
from bigbox.bench.networks import halogen_speed, lodi_speed, tile_seconds
from bigbox.bench.record import Speed
from bigbox.data import default_model
from bigbox.devices import device_name, find_device
from bigbox.engine.options import PaintOptions
from bigbox.engine.run import paint
from bigbox.names import DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.networks.model import load_model
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.lodi import LodiPainter
from bigbox.scheduler.tiling import Tiling
from bigbox.store.box import Box

SIDES = (4, 20)  # fewest and most tiles on a side of the box that is painted, an even number


def bench(
    *,
    model: Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    compile: str = "auto",
    seconds: float = 60.0,
    scratch: Path | None = None,
) -> Speed:
    """Measure this machine's device. Raises BadInput.

    seconds: of painting, half of it by the engine, about; the rest as for `bigbox paint`.
    """
    where = find_device(device)
    device, cpu = str(where), where.type == "cpu"
    threads = (threads or len(os.sched_getaffinity(0))) if cpu else 1
    torch.set_num_threads(1)
    folder = model or default_model()
    steps = steps or DEFAULT_STEPS[DEFAULT_SAMPLER]
    common: dict[str, Any] = {"device": device, "threads": threads, "compile": compile}
    lodi = LodiPainter(
        seed=0, box_shape=(256,) * 3, steps=steps, model=load_model(folder, "lodi"), **common
    )
    halogen = HalogenPainter(load_model(folder, "halogen"), **common)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="bigbox-bench-") as place:
        written, read = store_rates(Path(place))
        box = Path(place) / "bench.zarr"
        # Others on the machine come and go: ceilings and networks are measured twice and the better
        # counts, the sampler before and after the engine and the mean counts.
        rates = [_rates(lodi, halogen, threads)]
        tile_seconds(lodi, 1)  # the first call is slow
        tiles = _box(box, tile_seconds(lodi, 1), seconds / 2, lodi)
        sampler = [tile_seconds(lodi, tiles // 2)]
        job = PaintOptions(box, model=folder, steps=steps, batch=batch, quiet=True, **common)
        report = paint(job)
        sampler.append(tile_seconds(lodi, tiles // 2))
        rates.append(_rates(lodi, halogen, threads))
    best = {name: max(one[name] for one in rates) for name in rates[0]}
    return Speed(
        bigbox=__version__,
        torch=torch.__version__,
        host=socket.gethostname(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        device=_processor() if cpu else device_name(device),
        kind=where.type,
        threads=threads,
        dtype=str(lodi.dtype).removeprefix("torch."),
        model=lodi.model.sha256,
        steps=steps,
        together=lodi.tiles_per_call,
        compiled=lodi.compiled_network.compiled,
        written=written,
        read=read,
        lodi_call=1 / best.pop("lodi"),
        halogen_window=1 / best.pop("halogen"),
        **best,
        tile=statistics.mean(sampler),
        engine_tile=report["span"] / report["tiles"],
        busy=report["busy"],
        tiles=report["tiles"],
    )


def _rates(lodi: LodiPainter, halogen: HalogenPainter, threads: int) -> dict[str, float]:
    """Return what ceilings and networks do a second, and operations of a tile and a window."""
    device, dtype = lodi.device, lodi.dtype
    lodi_operations, tiles = lodi_speed(lodi)
    halogen_operations, windows = halogen_speed(halogen)
    return {
        "matrix_product": matrix_product_rate(device, dtype, threads),
        "convolution": convolution_rate(device, dtype, threads, lodi.tiles_per_call),
        "copied": copy_rate(device, threads),
        "lodi": tiles,
        "lodi_operations": lodi_operations,
        "halogen": windows,
        "halogen_operations": halogen_operations,
    }


def _box(path: Path, tile: float, seconds: float, painter: LodiPainter) -> int:
    """Make a box of so many tiles as take `seconds`, and return how many.

    Its haloes are 0 everywhere: what is in it does not matter for speed.
    """
    low, high = SIDES
    side = min(high, max(low, 2 * round((seconds / tile) ** (1 / 3) / 2)))
    tiling = Tiling((28 * side,) * 3, painter.tile)
    card = painter.model.card
    box = Box.create(path, tiling.shape, card["voxel_size"] * tiling.shape[0], card["redshift"])
    for name, value, channels in (("dm", 1.0, None), ("halo", 0.0, 4)):
        array = box.create_array(name, channels=channels)
        edge = (array.shards or array.chunks)[-1]
        for corner in np.ndindex(*(-(-n // edge) for n in tiling.shape)):
            x, y, z = (slice(c * edge, (c + 1) * edge) for c in corner)
            array[..., x, y, z] = value
    return tiling.size


def _processor() -> str:
    """Return the processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
