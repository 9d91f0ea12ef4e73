"""The speed of the networks alone, and of the sampler loop around LODI without the engine."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bigbox.bench.ceilings import rate
from bigbox.painters.base import TileBatch
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.lodi import LodiPainter

CALLS = 4  # of LODI's, one after the other on each thread: they seldom wait for one another


@torch.inference_mode()
def lodi_speed(painter: LodiPainter) -> tuple[float, float]:
    """Return operations of one call for one tile, and tiles a second of such calls."""
    x = torch.randn((painter.tiles_per_call, *(painter.tile,) * 3), device=painter.device)
    halo = x.new_zeros(len(x), painter.channels, *x.shape[1:])
    prepared = painter.network.prepare(halo, x, torch.zeros_like(x, dtype=torch.bool))
    return _speed(painter, x, x.new_full((1,), 0.5), prepared)


@torch.inference_mode()
def halogen_speed(painter: HalogenPainter) -> tuple[float, float]:
    """Return operations of one window, and windows a second."""
    shape = (painter.tiles_per_call, 1, *(painter.window,) * 3)
    return _speed(painter, torch.randn(shape, device=painter.device))


def tile_seconds(painter: LodiPainter, count: int) -> float:
    """Return seconds of one of about `count` tiles in the sampler loop, the engine left out."""
    rng = np.random.default_rng(0)
    edges, batch = (painter.tile,) * 3, CALLS * painter.tiles_per_call * painter.full_speed_streams
    tiles = TileBatch(
        tiles=np.arange(batch),
        origin=rng.integers(0, min(painter.box_shape), (batch, 3)),
        inputs=np.zeros((batch, painter.channels, *edges), np.float32),
        known=np.zeros((batch, painter.fields, *edges), np.float32),
        width=np.tile(np.array([[4, 0]] * 3), (batch, 1, 1)),
    )
    rounds = max(1, round(count / batch))
    began = time.perf_counter()
    for _ in range(rounds):
        painter.paint(tiles)
    return (time.perf_counter() - began) / (rounds * batch)


def _speed(painter: LodiPainter | HalogenPainter, *inputs: Tensor) -> tuple[float, float]:
    """Return operations for one tile or window, and how many a second the whole device does.

    Operations as torch counts them, of the network as it is, so that what a precision adds does not
    count as work done.
    """
    with FlopCounterMode(display=False) as counter:
        painter.model.network(*(tensor[:1].float().cpu() for tensor in inputs))
    calls = rate(lambda: painter.compiled_network(*inputs), painter.device, painter.threads)
    return float(counter.get_total_flops()), painter.tiles_per_call * calls
