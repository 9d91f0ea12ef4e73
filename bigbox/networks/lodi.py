"""Denoise a tile of T_b, given haloes and known voxels (paper section 2.2, fig. 4)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks import layers
from bigbox.networks.presets import LodiSize

TILE = 32  # voxels on an edge of a tile (section 2.2)
HALOES = 4  # channels of the condition
KNOWN = 2  # and of a masked network, which the paper has not: the known voxels and their mask
BYPASS_EDGE = 5  # voxels on an edge of the linear filters


class Lodi(nn.Module):
    """Predict v, or the noise, of a noisy 32³ tile by a 3-D U-Net (section 2.2.1).

    Residual blocks, and attention at the bottleneck. Zeros beyond the edges: circular padding (Ono
    et al. 2024) would join opposite sides of a tile that is no box of its own. At most three
    halvings: 32³ to 4³. Around it goes a linear path, filters of z with gains that know the noise
    level: at low levels most of v is a high-pass of z.
    """

    def __init__(self, size: LodiSize):
        super().__init__()
        self.size = size
        widths, embedding = size.widths, size.embedding
        blocks = partial(
            layers.ResidualBlocks, count=size.blocks, convs=size.convs, embedding=embedding
        )
        # One convolution over noisy tile and conditions, written as two: the second is the same at
        # every step, and is computed once.
        self.inlet = layers.conv(size.patch**3, widths[0])
        conditions = HALOES + KNOWN * size.masked
        self.condition_inlet = layers.conv(conditions * size.patch**3, widths[0])
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.down = nn.ModuleList(blocks(width, width) for width in widths[:-1])
        self.coarsen = nn.ModuleList(layers.Conv(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.bottom = blocks(widths[-1], widths[-1])
        self.attention = layers.Attention(widths[-1], size.heads)
        self.bottom_out = blocks(widths[-1], widths[-1])
        self.narrow = nn.ModuleList(layers.conv(b, a, edge=1) for a, b in pairwise(widths))
        met = 2 if size.skips == "join" else 1
        self.up = nn.ModuleList(blocks(met * width, width) for width in widths[:-1])
        self.outlet = layers.Outlet(widths[0], size.patch**3)
        layers.zero_weights(self.outlet[-1])
        if size.bypass:
            self.filters = layers.conv(1, size.bypass, edge=BYPASS_EDGE)
            self.gains = nn.Linear(embedding, size.bypass)

    def prepare(self, condition: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """Return what is the same at every step, (B, widths[0], ...), for `forward`.

        `condition` is the normalised log halo density, (B, 4, t, t, t). `known` is the normalised
        T_b, 0 where unknown, and `mask` 1 where known, else 0, (B, t, t, t); only a masked network
        looks at them.
        """
        channels = condition
        if self.size.masked:
            channels = torch.cat([condition, known[:, None], mask[:, None]], dim=1)
        prepared: Tensor = self.condition_inlet(layers.patchify(channels, self.size.patch))
        return prepared

    def forward(self, z: Tensor, level: Tensor, prepared: Tensor) -> Tensor:
        """Return v, or the noise if `size` says so, of noisy tiles z: (B, t, t, t).

        `level` is the noise level in 0 .. 1, (B,), or (1,) where all tiles have the same.
        """
        features = layers.level_features(level, self.size.embedding)
        e = self.embed(features.to(next(self.embed.parameters()).dtype))
        h = self.inlet(layers.patchify(z[:, None], self.size.patch)) + prepared
        skips = []
        for stage, coarsen in zip(self.down, self.coarsen, strict=True):
            h = stage(h, e)
            skips.append(h)
            h = coarsen(h)
        h = self.bottom_out(self.attention(self.bottom(h, e)), e)
        for stage, narrow in zip(reversed(self.up), reversed(self.narrow), strict=True):
            fine = layers.upsample(narrow(h))
            h = stage(layers.meet(self.size.skips, fine, skips.pop().to(fine.dtype)), e)
        output: Tensor = layers.unpatchify(self.outlet(h), self.size.patch)[:, 0]
        if self.size.bypass:
            gains = self.gains(e)[:, :, None, None, None]
            output = output + (self.filters(z[:, None]) * gains).sum(1)
        return output


def clean_estimate(
    parametrisation: str, z: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """Return x0 from the network's output: alpha z - sigma v, or (z - sigma eps) / alpha.

    alpha and sigma broadcast against z = alpha x0 + sigma eps, and v = alpha eps - sigma x0
    (Salimans & Ho 2022, eq. 11). With unit variance this is the preconditioning of Karras et al.
    2022.
    """
    if parametrisation == "v":
        return alpha * z - sigma * output
    return (z - sigma * output) / alpha


def target(parametrisation: str, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return what the network should predict of z = alpha x0 + sigma noise: v, or the noise."""
    return alpha * noise - sigma * x0 if parametrisation == "v" else noise


def weighted_mse(output: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error of each tile, (B,), each voxel with its weight (B, t, t, t).

    The mean is over the voxels whose weight is not 0, so that a heavier voxel makes a heavier tile.
    """
    error = functional.mse_loss(output.float(), wanted, reduction="none") * weight
    return error.flatten(1).sum(1) / (weight > 0).flatten(1).sum(1)
