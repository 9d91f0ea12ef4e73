"""The whole of `bigbox bench`: the networks alone, the sampler, and a real painting."""

from __future__ import annotations

import os
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bigbox import __version__
from bigbox.bench import ceilings
from bigbox.bench.layers import copies_share, part_times
from bigbox.bench.record import Speed
from bigbox.data import default_model
from bigbox.devices import device_name, find_device, on_gpu
from bigbox.diffusion.overlap import tiling_for
from bigbox.engine.options import PaintOptions
from bigbox.engine.run import paint
from bigbox.names import DEFAULT_MARGIN, DEFAULT_SAMPLER, DEFAULT_STEPS
from bigbox.networks.model import load_model
from bigbox.painters.base import StepBatch
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.lodi import LodiPainter
from bigbox.store.box import Box

CALLS = 4  # of LODI's, one after the other on each thread: they seldom wait for one another
SIDES = (2, 20)  # fewest and most tiles on a side of the box that is painted, an even number


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
    say: Callable[[str], None] = lambda _: None,
) -> Speed:
    """Measure this machine's device. Raises BadInput.

    seconds: of painting, half of it by the engine, about; say: is told what is measured next; the
    rest as for `bigbox paint`.
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
        say("the disk")
        written, read = ceilings.store_rates(Path(place))
        box = Path(place) / "bench.zarr"
        # Others on the machine come and go: ceilings and networks are measured twice and the better
        # counts, the sampler before and after the engine and the mean counts.
        say("the networks' start")
        began = time.perf_counter()
        lodi.compiled_network, halogen.compiled_network  # noqa: B018  kernels, compilers
        start = time.perf_counter() - began
        say("products, convolutions, copies, networks")
        rates = [_rates(lodi, halogen)]
        say(f"a painting, about {seconds:.0f} s")
        tile_seconds(lodi, 1)  # the first call is slow
        tiles = _box(box, tile_seconds(lodi, 1), seconds / 2, lodi)
        sampler = [tile_seconds(lodi, tiles // 2)]
        job = PaintOptions(box, model=folder, steps=steps, batch=batch, quiet=True, **common)
        report = paint(job)
        sampler.append(tile_seconds(lodi, tiles // 2))
        say("products, convolutions, copies, networks again")
        rates.append(_rates(lodi, halogen))
    say("the networks' parts")
    layers, copies = _layers(lodi, halogen)
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
        grid=lodi.grid,
        start=start,
        copies=copies,
        kernels=lodi.kernels[0],
        layers=layers,
    )


@torch.inference_mode()
def lodi_speed(painter: LodiPainter) -> tuple[float, float]:
    """Return operations of one call for one tile, and tiles a second of such calls."""
    x = torch.randn((painter.tiles_per_call, *(painter.tile,) * 3), device=painter.device)
    halo = x.new_zeros(len(x), painter.channels, *x.shape[1:])
    prepared = painter.network.prepare(halo, x, torch.zeros_like(x, dtype=torch.bool))
    return _speed(painter, x, x.new_full((len(x),), 0.5), prepared)


@torch.inference_mode()
def halogen_speed(painter: HalogenPainter) -> tuple[float, float]:
    """Return operations of one window, and windows a second."""
    shape = (painter.tiles_per_call, 1, *(painter.window,) * 3)
    return _speed(painter, torch.randn(shape, device=painter.device))


def tile_seconds(painter: LodiPainter, count: int) -> float:
    """Return seconds of one of about `count` tiles step by step, the engine left out."""
    rng = np.random.default_rng(0)
    edges, batch = (painter.tile,) * 3, CALLS * painter.tiles_per_call * painter.full_speed_streams
    nodes = StepBatch(
        tiles=np.arange(batch),
        origin=rng.integers(0, min(painter.box_shape), (batch, 3)),
        inputs=np.zeros((batch, painter.channels, *edges), np.float32),
        z=rng.standard_normal((batch, *edges)).astype(np.float32),
        previous=np.zeros((batch, *edges), np.float32),
        step=rng.integers(1, painter.steps + 1, batch),
    )
    rounds = max(1, round(count * painter.steps / batch))
    began = time.perf_counter()
    for _ in range(rounds):
        painter.advance(nodes)
    return painter.steps * (time.perf_counter() - began) / (rounds * batch)


def _speed(painter: LodiPainter | HalogenPainter, *inputs: Tensor) -> tuple[float, float]:
    """Return operations for one tile or window, and how many a second the whole device does.

    Operations as torch counts them, of the network as it is, so that what a precision adds does not
    count as work done.
    """
    with FlopCounterMode(display=False) as counter:
        painter.model.network(*(tensor[:1].float().cpu() for tensor in inputs))
    calls = ceilings.rate(
        lambda: painter.compiled_network(*inputs), painter.device, painter.threads
    )
    return float(counter.get_total_flops()), painter.tiles_per_call * calls


@torch.inference_mode()
def _layers(lodi: LodiPainter, halogen: HalogenPainter) -> tuple[dict[str, list[float]], float]:
    """Return seconds and operations of the networks' parts for a tile or window, and LODI's copies.

    Of the layers as they are, not of compiled code.
    """
    found, copies = {}, 0.0
    for painter in (lodi, halogen):
        example, network = painter._example(random=True), painter.network
        one = tuple(x[-1:].float().cpu() for x in example)
        call = partial(network, *example)
        for name, (seconds, operations) in part_times(
            call, network, painter.model.network, one
        ).items():
            each = seconds / painter.tiles_per_call / painter.threads
            found[f"{painter.name} {name}"] = [each, operations]
        if painter is lodi:
            copies = copies_share(call, on_gpu(painter.device))
    return found, copies


def _rates(lodi: LodiPainter, halogen: HalogenPainter) -> dict[str, float]:
    """Return what ceilings and networks do a second, and operations of a tile and a window."""
    lodi_operations, tiles = lodi_speed(lodi)
    halogen_operations, windows = halogen_speed(halogen)
    place, batch = (lodi.device, lodi.dtype, lodi.threads), lodi.tiles_per_call
    return {
        "matrix_product": ceilings.matrix_product_rate(*place),
        "convolution": ceilings.convolution_rate(*place, batch),
        "copied": ceilings.copy_rate(lodi.device, lodi.threads),
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
    core = painter.tile - 2 * DEFAULT_MARGIN
    tiling = tiling_for(painter.overlap_method, (core * side,) * 3, painter.tile)
    card = painter.model.card
    shape, grid = [painter.grid * n for n in tiling.shape], painter.grid
    box = Box.create(path, shape, card["voxel_size"] * shape[0], card["redshift"])
    for name, value, channels in (("dm", 1.0, None), ("halo", 0.0, 4)):
        array = box.create_array(name, channels=channels, grid=grid if channels else 1)
        edge = (array.shards or array.chunks)[-1]
        for corner in np.ndindex(*(-(-n // edge) for n in array.shape[-3:])):
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
