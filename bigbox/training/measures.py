"""Measure a trained network on validation data, for its card."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bigbox.training.losses import LodiTask

Batches = Callable[[int, int], dict[str, Tensor]]  # of index and sub-volumes
BATCHES, SHARE = 16, 8
# The levels of the table in a card.
GAMMAS = (-6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 9.0)


@torch.no_grad()
def rms_by_channel(network: Any, batches: Batches) -> dict[str, Any]:
    """Return the rms error of HALOgen's logarithm, channel by channel."""
    errors = []
    for index in range(BATCHES):
        batch = batches(index, 1)
        error = network(batch["dm"]).float() - batch["halo"]
        errors.append(error.square().mean(dim=(0, 2, 3, 4)).cpu())
    rms = torch.stack(errors).mean(0).sqrt()
    return {"rms error of each channel, network units": [round(float(e), 4) for e in rms]}


@torch.no_grad()
def errors_by_level(task: LodiTask, batches: Batches) -> dict[str, Any]:
    """Return LODI's mean squared error of v at the noise levels GAMMAS, all voxels alike."""
    if task.parametrisation != "v":
        return {}
    totals = torch.zeros(len(GAMMAS))
    for index in range(BATCHES):
        batch = batches(index, SHARE)
        everywhere = torch.ones_like(batch["tb"])
        for row, gamma in enumerate(GAMMAS):
            level = torch.full_like(batch["uniform"], gamma)
            error = task.error(
                batch["tb"], batch["halo"], batch["known"], everywhere, level, batch["noise"]
            )
            totals[row] += error.mean().cpu()
    means = (totals / BATCHES).tolist()
    return {
        "error of v by gamma": {f"{g:g}": round(e, 4) for g, e in zip(GAMMAS, means, strict=True)}
    }
