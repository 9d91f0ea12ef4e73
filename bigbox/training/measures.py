"""Measure a network on validation data, for the curve of its training and for its card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bigbox.training.losses import LodiTask

Batches = Callable[[int, int], dict[str, Tensor]]  # of index and sub-volumes
TILES, CURVE_TILES = 8, 4  # in a batch, for the card and for the curve
# The levels of the table in a card.
GAMMAS = (-6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 9.0)


def errors(task: Any, batches: Batches) -> dict[str, float]:
    """Return what the curve has of a task, on one batch, by name; {} for noise prediction."""
    if isinstance(task, LodiTask):
        levels = errors_by_level(task, batches, 1, CURVE_TILES)
        return {f"v at gamma {gamma:g}": error for gamma, error in levels.items()}
    rms = rms_by_channel(task.network, batches, 1)
    return {f"rms of channel {i + 1}": error for i, error in enumerate(rms)}


@torch.no_grad()
def rms_by_channel(network: Any, batches: Batches, count: int) -> list[float]:
    """Return the rms error of HALOgen's logarithm in network units, channel by channel."""
    squares = []
    for index in range(count):
        batch = batches(index, 1)
        error = network(batch["dm"]).float() - batch["halo"]
        squares.append(error.square().mean(dim=(0, 2, 3, 4)))
    rms: list[float] = torch.stack(squares).mean(0).sqrt().tolist()
    return rms


@torch.no_grad()
def errors_by_level(task: LodiTask, batches: Batches, count: int, tiles: int) -> dict[float, float]:
    """Return LODI's mean squared error of v at the noise levels GAMMAS, all voxels alike."""
    if task.parametrisation != "v":
        return {}
    totals = []
    for index in range(count):
        batch = batches(index, tiles)
        everywhere = torch.ones_like(batch["tb"])
        found = [
            task.error(
                batch["tb"],
                batch["halo"],
                batch["known"],
                everywhere,
                torch.full_like(batch["uniform"], gamma),
                batch["noise"],
            ).mean()
            for gamma in GAMMAS
        ]
        totals.append(torch.stack(found))
    return dict(zip(GAMMAS, torch.stack(totals).mean(0).tolist(), strict=True))
