"""Build encoder and velocity network from these, for maps and for boxes alike.

Tensors are (B, C, x, y) or (B, C, x, y, z); `ndim` is 2 or 3. Wherever a layer reaches beyond the
edge there is the opposite edge if it is `periodic`, else zeros. The published code pads its pooling
and up-convolutions with zeros in a periodic field; here a layer shifts with its input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks.layers import NORM_CHANNELS, zero_weights

_CONV: Any = {2: nn.Conv2d, 3: nn.Conv3d}
_LAST = {2: (0, 2, 3, 1), 3: (0, 2, 3, 4, 1)}  # channels last
_FIRST = {2: (0, 3, 1, 2), 3: (0, 4, 1, 2, 3)}


class Conv(nn.Module):
    """Convolve; an edge of 3 reaches one voxel to each side, an edge of 1 none."""

    def __init__(
        self, ndim: int, channels: int, out: int, *, edge: int = 3, stride: int = 1, periodic: bool
    ):
        super().__init__()
        pad = 0 if edge == 1 or periodic else edge // 2
        self.reach = edge // 2 if periodic and edge > 1 else 0
        self.ndim = ndim
        self.conv = _CONV[ndim](channels, out, edge, stride=stride, padding=pad)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, ...), each axis a stride-th as long."""
        if self.reach:
            x = wrap(x, self.reach)
        made: Tensor = self.conv(x)
        return made


def wrap(x: Tensor, width: int) -> Tensor:
    """Continue a periodic field by `width` voxels on each side of all its axes."""
    for axis in range(2, x.dim()):
        n = x.shape[axis]
        if n >= width:
            ends = x.narrow(axis, n - width, width), x.narrow(axis, 0, width)
            x = torch.cat((ends[0], x, ends[1]), dim=axis)
        else:  # more than once around, as at the bottom of a network for a small map
            x = x.index_select(axis, torch.arange(-width, n + width, device=x.device) % n)
    return x


def pool(x: Tensor) -> Tensor:
    """Take the largest of each 2^ndim voxels: windows do not overlap, so nothing is padded."""
    return functional.max_pool2d(x, 2) if x.dim() == 4 else functional.max_pool3d(x, 2)


def unpool(x: Tensor, factor: int) -> Tensor:
    """Give each voxel's value to factor^ndim voxels."""
    if factor == 1:
        return x
    return functional.interpolate(x, scale_factor=factor, mode="nearest")


def patchify(x: Tensor, patch: int) -> Tensor:
    """Make patches of patch^ndim voxels channels: (B, C, n, ..) to (B, C patch^ndim, n/patch, ..).

    Channel (c, i, j, ..) is voxel (i, j, ..) of a patch.
    """
    if patch == 1:
        return x
    b, c, *space = x.shape
    ndim = len(space)
    x = x.reshape(b, c, *(one for n in space for one in (n // patch, patch)))
    x = x.permute(0, 1, *range(3, 3 + 2 * ndim, 2), *range(2, 2 + 2 * ndim, 2))
    return x.reshape(b, c * patch**ndim, *(n // patch for n in space))


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """Invert `patchify`."""
    if patch == 1:
        return x
    b, c, *space = x.shape
    ndim = len(space)
    x = x.reshape(b, c // patch**ndim, *(patch,) * ndim, *space)
    x = x.permute(0, 1, *(axis for i in range(ndim) for axis in (2 + ndim + i, 2 + i)))
    return x.reshape(b, c // patch**ndim, *(n * patch for n in space))


class VoxelNorm(nn.Module):
    """Normalise the channels of each voxel by themselves: nothing beyond the voxel is looked at.

    In the place of the paper's BatchNorm, which makes a map depend on those beside it, and of
    GroupNorm, which makes a voxel depend on the whole map.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, ...), in float32, with mean 0 and variance 1 over C, then affine."""
        ndim = x.dim() - 2
        last = x.float().permute(_LAST[ndim])
        made = functional.layer_norm(last, (x.shape[1],), self.weight, self.bias)
        return made.permute(_FIRST[ndim])


def norm(kind: str, channels: int) -> nn.Module:
    """Make a norm: "voxel", or "group" of channels over the whole map or tile."""
    if kind == "voxel":
        return VoxelNorm(channels)
    return nn.GroupNorm(max(1, channels // NORM_CHANNELS), channels)


class EncoderBlock(nn.Module):
    """Convolve and normalise twice, around a skip connection (appendix A.1.1)."""

    def __init__(self, ndim: int, channels: int, out: int, stride: int, periodic: bool):
        super().__init__()
        self.first = Conv(ndim, channels, out, stride=stride, periodic=periodic)
        self.second = Conv(ndim, out, out, periodic=periodic)
        self.norms = nn.ModuleList((VoxelNorm(out), VoxelNorm(out)))
        same = channels == out and stride == 1
        one = Conv(ndim, channels, out, edge=1, stride=stride, periodic=periodic)
        self.skip = nn.Identity() if same else one

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, ...), each axis a stride-th as long."""
        h = functional.gelu(self.norms[0](self.first(x)))
        h = self.norms[1](self.second(h))
        skipped: Tensor = self.skip(x)
        return functional.gelu(skipped + h)


class FlowBlock(nn.Module):
    """Apply norm, GELU and convolution twice around a skip connection; the time scales and shifts.

    Adaptive group norm: the embedding (B, embedding) of time and summary scales and shifts what
    comes out of both norms (appendix A.1.2).
    """

    def __init__(
        self, ndim: int, channels: int, out: int, embedding: int, kind: str, periodic: bool
    ):
        super().__init__()
        self.norms = nn.ModuleList((norm(kind, channels), norm(kind, out)))
        self.convs = nn.ModuleList(Conv(ndim, a, out, periodic=periodic) for a in (channels, out))
        zero_weights(self.convs[1])  # a block starts as its skip connection
        self.levels = nn.ModuleList(nn.Linear(embedding, 2 * a) for a in (channels, out))
        one = Conv(ndim, channels, out, edge=1, periodic=periodic)
        self.skip = nn.Identity() if channels == out else one

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return (B, out, ...) from x (B, channels, ...)."""
        h = x
        for layer, convolve, level in zip(self.norms, self.convs, self.levels, strict=True):
            scale, shift = level(embedding)[(..., *(None,) * (x.dim() - 2))].chunk(2, dim=1)
            h = convolve(functional.gelu(torch.addcmul(shift, layer(h), 1 + scale)))
        skipped: Tensor = self.skip(x)
        return skipped + h


class Attention(nn.Module):
    """Let all voxels of a map attend to each other, one head (appendix A.1.2), beside a skip.

    It needs the whole map at once: a network that paints tiles has none.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        zero_weights(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended (B, C, ...)."""
        rows = x.flatten(2).transpose(1, 2)
        query, key, value = self.project(self.norm(rows)).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed).transpose(1, 2).reshape(x.shape)
