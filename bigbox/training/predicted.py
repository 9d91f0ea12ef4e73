"""Predict the haloes of whole boxes in memory on the device that trains, for LODI to train on."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from bigbox.networks.halogen import CHANNELS
from bigbox.painters.halogen import CUT, window_weights

WINDOWS_AT_ONCE = 8


@torch.no_grad()
def predict_haloes(
    network: nn.Module, dm: Tensor, dex: float, mean: float, window: int, stride: int, grid: int
) -> Tensor:
    """Return rho_h of a periodic box, float32 (4, N, N, N), (M_sun/h) / (Mpc/h)^3.

    As `bigbox.painters.halogen.paint_haloes` does, on each of the grid³ painting grids that lie
    between one another.

    Parameters
    ----------
    dm : (N, N, N), normalised log density, smoothed, N a multiple of `grid`.
    dex, mean : of the network's output: log10 rho_h = dex x + mean.
    window, stride : voxels of the painting grid; windows overlap, weighted by a tent.
    """
    n = len(dm)
    rho = torch.empty((CHANNELS, n, n, n), device=dm.device)
    for first in product(range(grid), repeat=3):
        cut = tuple(slice(at, None, grid) for at in first)
        logs = _predicted(network, dm[cut], window, stride) * dex + mean
        rho[:, *cut] = torch.where(logs >= CUT, 10**logs, 0.0)
    return rho


def _predicted(network: nn.Module, dm: Tensor, window: int, stride: int) -> Tensor:
    """Return the network's output, averaged over windows, float32 (4, n, n, n)."""
    n, count = len(dm), -(-len(dm) // stride)
    line = torch.from_numpy(window_weights(window, "tent")).to(dm.device).float()
    one = line[:, None, None] * line[:, None] * line
    total = torch.zeros((CHANNELS, n**3), device=dm.device)
    weight = torch.zeros(n**3, device=dm.device)
    run, flat = torch.arange(window, device=dm.device), dm.reshape(-1)
    corners = torch.tensor([*product(range(count), repeat=3)], device=dm.device) * n // count
    for some in corners.split(WINDOWS_AT_ONCE):
        x, y, z = ((some[:, axis, None] + run) % n for axis in range(3))
        places = (x[:, :, None, None] * n + y[:, None, :, None]) * n + z[:, None, None, :]
        for place, logs in zip(places, network(flat[places][:, None]).float(), strict=True):
            total.index_add_(1, place.view(-1), (logs * one).view(CHANNELS, -1))
            weight.index_add_(0, place.view(-1), one.view(-1))
    return (total / weight).view(CHANNELS, n, n, n)
