"""LODI's denoising network: T_b from haloes and known voxels (paper section 2.2, fig. 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks.layers import (
    Attention,
    Conv,
    ResidualBlock,
    conv,
    fold,
    join,
    level_features,
    norm,
    run_blocks,
    run_outlet,
    silence,
    unfold,
    upsample,
)
from bigbox.networks.presets import LodiSize

TILE = 32  # voxels on an edge of a tile (section 2.2)
# What the network is told beside the noisy tile: four halo channels, and two that the paper has
# not, the known voxels and their mask. With an empty mask it is the paper's network.
CONDITIONS = 4 + 2


class Lodi(nn.Module):
    """3-D U-Net on 32³ (section 2.2.1): residual blocks, attention at the bottleneck.

    Zeros beyond the edges: circular padding (Ono et al. 2024) would join opposite sides of a tile
    that is no box of its own. At most three halvings: 32³ to 4³.
    """

    def __init__(self, size: LodiSize):
        super().__init__()
        self.size = size
        widths, embedding = size.widths, size.embedding

        def blocks(channels: int, out: int) -> nn.ModuleList:
            ends = [channels] + [out] * size.blocks
            return nn.ModuleList(
                ResidualBlock(a, b, size.convs, embedding=embedding)
                for a, b in zip(ends[:-1], ends[1:], strict=True)
            )

        # One convolution over noisy tile and conditions, written as two: the second is the same at
        # every step, and is computed once.
        self.inlet = conv(size.patch**3, widths[0])
        self.condition_inlet = conv(CONDITIONS * size.patch**3, widths[0])
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        self.down = nn.ModuleList(blocks(width, width) for width in widths[:-1])
        self.coarsen = nn.ModuleList(
            Conv(a, b, 2, stride=2) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.bottom = blocks(widths[-1], widths[-1])
        self.attention = Attention(widths[-1], size.heads)
        self.bottom_out = blocks(widths[-1], widths[-1])
        self.narrow = nn.ModuleList(
            conv(b, a, edge=1) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.up = nn.ModuleList(blocks(2 * width, width) for width in widths[:-1])
        self.outlet = nn.Sequential(norm(widths[0]), nn.SiLU(), conv(widths[0], size.patch**3))
        silence(self.outlet[-1])

    def prepare(self, condition: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """What does not change from step to step: (B, widths[0], ...).

        condition: (B, 4, t, t, t) normalised log halo density; known: (B, t, t, t) normalised T_b,
        0 where unknown; mask: (B, t, t, t), 1 where known.
        """
        told = torch.cat([condition, known[:, None], mask[:, None]], dim=1)
        return self.condition_inlet(fold(told, self.size.patch))

    def forward(self, z: Tensor, level: Tensor, prepared: Tensor) -> Tensor:
        """z: (B, t, t, t) noisy tile; level: (B,) noise level in 0 .. 1, or (1,) where all tiles
        have the same; prepared: from `prepare`.

        Returns (B, t, t, t): v or the noise, whichever the network was trained to predict.
        """
        features = level_features(level, self.size.embedding)
        e = self.embed(features.to(next(self.embed.parameters()).dtype))
        h = self.inlet(fold(z[:, None], self.size.patch)) + prepared
        skips = []
        for stage, coarsen in zip(self.down, self.coarsen, strict=True):
            h = run_blocks(stage, h, e)
            skips.append(h)
            h = coarsen(h)
        h = self.attention(run_blocks(self.bottom, h, e))
        h = run_blocks(self.bottom_out, h, e)
        for stage, narrow, skip in zip(
            reversed(self.up), reversed(self.narrow), reversed(skips), strict=True
        ):
            fine = upsample(narrow(h))
            h = run_blocks(stage, join(fine, skip.to(fine.dtype)), e)
        return unfold(run_outlet(self.outlet, h), self.size.patch)[:, 0]


def clean_estimate(
    parametrisation: str, z: Tensor, output: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """x0 from the network's output: alpha z - sigma v, or (z - sigma eps) / alpha.

    alpha, sigma: broadcast against z; z = alpha x0 + sigma eps, v = alpha eps - sigma x0
    (Salimans & Ho 2022, eq. 11; with unit variance this is the preconditioning of Karras et al.
    2022).
    """
    if parametrisation == "v":
        return alpha * z - sigma * output
    return (z - sigma * output) / alpha


def target(parametrisation: str, x0: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network should have said: v, or the noise."""
    return alpha * noise - sigma * x0 if parametrisation == "v" else noise


def weighted_mse(output: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean squared error with a weight for each voxel (B, t, t, t), 0 where known, per tile: (B,).

    Over the number of voxels that count at all, so that a heavier voxel makes a heavier tile.
    """
    error = functional.mse_loss(output.float(), wanted, reduction="none") * weight
    return error.flatten(1).sum(1) / (weight > 0).flatten(1).sum(1)


def coherent_mse(output: Tensor, wanted: Tensor, weight: Tensor, block: int) -> Tensor:
    """As weighted_mse, of errors summed over blocks of block³ voxels: (B,).

    As large for errors that are independent from voxel to voxel; block³ times as large for an error
    that is the same in all of a block.
    """
    error = (output.float() - wanted) * weight.sqrt()
    sums = functional.avg_pool3d(error[:, None], block) * block**3
    return sums.square().flatten(1).sum(1) / (weight > 0).flatten(1).sum(1)
