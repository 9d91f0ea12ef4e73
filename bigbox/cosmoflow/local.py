"""Networks of the 3-D model: an encoder of finite reach, and a velocity field for tiles.

    dm  n^3  ──LocalEncoder──►  latents  C x (n/4 - 4)^3        two cells of halo on every side
    latents ──upsampled, masked──►  LocalVelocity(x_t, t)  ──►  v of a 32^3 tile

The networks of `bigbox.cosmoflow.networks` take a field and its latent cell by cell. Tiles of a box
begin anywhere in a cell, so that the velocity here is given latents by voxel. It is told no
summary, which would couple all tiles, and its norms are those of a tile. The encoder has no norm
over space: a latent is a function of the voxels within its reach and of nothing else.

Around both goes a path that is right before any training. A latent begins as the logarithm of its
cell's mean density; the velocity begins as that of white noise of unit variance (Karras et al.
2022, for the path x_t = t x_1 + (1 - t) x_0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.cosmoflow.masks import masked
from bigbox.networks import layers
from bigbox.networks.transforms import LogTransform

CELL = 4  # voxels of a latent on each axis
HALO = 2  # cells beyond a latent's own that it sees, on every side
PATCH = 2  # voxels on an axis that the velocity's first convolution takes as one
BYPASS_EDGE = 5  # voxels of the linear filters


@dataclass(frozen=True)
class LocalSize:
    """Size both networks."""

    channels: int = 4  # of the latents
    encoder: int = 32  # channels of the encoder's convolutions
    widths: tuple[int, int] = (32, 48)  # of the velocity, at 2 and 4 voxels
    embedding: int = 64  # length of the time's embedding
    bypass: int = 4  # linear filters of x_t and latents around the velocity network


class LocalEncoder(nn.Module):
    """Encode 1 + delta: (B, 1, n, n, n) to latents (B, C, n / 4 - 4, ...); n a multiple of 4.

    No padding: the halo is part of the input. Channel 0 begins as the cell's mean density, channel
    1 as the mean of its logarithm.
    """

    def __init__(self, size: LocalSize, transform: LogTransform):
        super().__init__()
        self.size, self.transform = size, transform
        width = size.encoder
        self.inlet = layers.conv(CELL**3 + 1, width, edge=1)
        self.convs = nn.ModuleList(nn.Conv3d(width, width, 3) for _ in range(HALO))
        self.outlet = nn.Conv3d(width, size.channels, 1)
        layers.zero_weights(self.outlet)
        self.plain = nn.Conv3d(2, size.channels, 1)
        layers.zero_weights(self.plain)
        with torch.no_grad():
            for channel in range(min(2, size.channels)):
                self.plain.weight[channel, channel] = 1.0

    def forward(self, density: Tensor) -> Tensor:
        """Return the latents, unquantised."""
        x = self.transform.forward(density)
        whole = self.transform.forward(functional.avg_pool3d(density, CELL))
        cells = layers.patchify(x, CELL)
        h = self.inlet(torch.cat([cells, whole], dim=1))
        for convolve in self.convs:
            h = h[..., 1:-1, 1:-1, 1:-1] + convolve(functional.silu(h))
        inside = (..., *(slice(HALO, -HALO),) * 3)
        means = torch.cat([whole, cells.mean(dim=1, keepdim=True)], dim=1)[inside]
        latents: Tensor = self.plain(means) + self.outlet(functional.silu(h))
        return latents


class LocalVelocity(nn.Module):
    """Predict the velocity of a noisy tile x_t, (B, t, t, t), told time and latents."""

    def __init__(self, size: LocalSize):
        super().__init__()
        self.size = size
        (fine, coarse), embedding = size.widths, size.embedding
        self.inlet = layers.conv(PATCH**3, fine)
        self.condition = layers.conv(size.channels * PATCH**3, fine, edge=1)
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.down = layers.ResidualBlock(fine, fine, embedding=embedding)
        self.coarsen = layers.Conv(fine, coarse, 2, stride=2)
        self.bottom = layers.ResidualBlocks(coarse, coarse, 2, 2, embedding=embedding)
        self.narrow = layers.conv(coarse, fine, edge=1)
        self.up = layers.ResidualBlock(fine, fine, embedding=embedding)
        self.outlet = layers.Outlet(fine, PATCH**3)
        layers.zero_weights(self.outlet[-1])
        self.filters = layers.conv(1 + size.channels, size.bypass, edge=BYPASS_EDGE)
        self.gains = nn.Linear(embedding, size.bypass)

    def forward(self, x: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        """Return v, (B, t, t, t).

        time: (B,), 0 is noise and 1 the field. latents: (B, C, t, t, t), upsampled to voxels; of
        these it sees what `masks.mask` leaves at that time.
        """
        latents = masked(latents, time)
        scale = (time**2 + (1 - time) ** 2).rsqrt()[:, None, None, None]
        skip = (2 * time - 1)[:, None, None, None] * scale**2
        unit = (x * scale)[:, None]
        e = self.embed(layers.level_features(time, self.size.embedding))
        h = self.inlet(layers.patchify(unit, PATCH))
        h = h + self.condition(layers.patchify(latents, PATCH))
        h = self.down(h, e)
        below = self.bottom(self.coarsen(h), e)
        h = self.up(layers.upsample(self.narrow(below)) + h, e)
        out = layers.unpatchify(self.outlet(h), PATCH)
        gains = self.gains(e)[:, :, None, None, None]
        straight = self.filters(torch.cat([unit, latents], dim=1))
        out = out[:, 0] + (straight * gains).sum(1)
        result: Tensor = skip * x + scale * out
        return result


class LocalFlow(nn.Module):
    """Hold both networks, which are trained together and stored as one model."""

    def __init__(self, size: LocalSize, transform: LogTransform):
        super().__init__()
        self.size = size
        self.encoder, self.velocity = LocalEncoder(size, transform), LocalVelocity(size)


def spread(latents: Tensor, offset: Any, edge: int) -> Tensor:
    """Return latents by voxel, (B, C, edge, ...), from the voxel `offset` of their first cell."""
    for axis in range(3):
        at = (torch.arange(edge, device=latents.device) + int(offset[axis])) // CELL
        latents = latents.index_select(axis + 2, at)
    return latents
