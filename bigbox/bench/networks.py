"""The speed of the networks alone, and of the sampler loop around LODI without the engine."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bigbox.bench.ceilings import rate
from bigbox.networks.model import Model
from bigbox.painters.base import TileBatch
from bigbox.painters.halogen import HalogenPainter
from bigbox.painters.lodi import LodiPainter

CALLS = 4  # of LODI's, one after the other on each thread: they seldom wait for one another


@torch.inference_mode()
def lodi_speed(painter: LodiPainter) -> tuple[float, float]:
    """Operations of one call for one tile, and its seconds on the whole device."""
    count, tile = painter.together, painter.tile
    shape = (count, tile, tile, tile)
    x = torch.randn(shape, device=painter.device)
    halo = torch.zeros(count, painter.channels, *shape[1:], device=painter.device)
    unknown = torch.zeros(shape, dtype=torch.bool, device=painter.device)
    prepared = painter.network.prepare(halo, x, unknown)
    level = torch.full((1,), 0.5, device=painter.device)
    call = lambda: painter.call(x, level, prepared)  # noqa: E731
    return _operations(painter.model, x, level, prepared), 1 / (
        count * rate(call, painter.device, painter.threads)
    )


@torch.inference_mode()
def halogen_speed(painter: HalogenPainter) -> tuple[float, float]:
    """Operations of one window, and its seconds on the whole device."""
    count, window = painter.together, painter.window
    x = torch.randn(count, 1, *(window,) * 3, device=painter.device)
    call = lambda: painter.call(x)  # noqa: E731
    return _operations(painter.model, x), 1 / (count * rate(call, painter.device, painter.threads))


def tile_seconds(painter: LodiPainter, count: int) -> float:
    """Seconds of one of about `count` tiles in the sampler loop, the engine left out."""
    rng = np.random.default_rng(0)
    tile, batch = painter.tile, CALLS * painter.together * painter.parallel
    tiles = TileBatch(
        tiles=np.arange(batch),
        origin=rng.integers(0, min(painter.box_shape), (batch, 3)),
        inputs=np.zeros((batch, painter.channels, *(tile,) * 3), np.float32),
        known=np.zeros((batch, painter.fields, *(tile,) * 3), np.float32),
        width=np.tile(np.array([[4, 0]] * 3), (batch, 1, 1)),
    )
    rounds = max(1, round(count / batch))
    began = time.perf_counter()
    for _ in range(rounds):
        painter.paint(tiles)
    return (time.perf_counter() - began) / (rounds * batch)


def _operations(model: Model | None, *inputs: Tensor) -> float:
    """Floating point operations of the network for one tile or window, as torch counts them: those
    of the network as it is, so that what a precision adds does not count as work done."""
    assert model is not None
    with FlopCounterMode(display=False) as counter:
        model.network(*(tensor[:1].float().cpu() for tensor in inputs))
    return float(counter.get_total_flops())
