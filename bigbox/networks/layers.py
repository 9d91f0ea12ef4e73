"""The pieces that both networks are built from: blocks, attention, changes of resolution.

Tensors are (B, C, x, y, z). `groups` keeps that many shares of the channels apart all through a
network: HALOgen's four output channels never see each other (paper section 2.1.1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_CHANNELS = 8  # channels that one group of a GroupNorm averages over, where there are as many


def norm(channels: int, groups: int = 1) -> nn.GroupNorm:
    """GroupNorm whose groups never cross the borders of `groups`."""
    share = channels // groups
    return nn.GroupNorm(groups * max(1, share // NORM_CHANNELS), channels)


class Conv(nn.Conv3d):
    """A convolution that works in the precision of its weights, whatever its input has.

    Unless autocast chooses the precision, as in training.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, ...) to (B, out, ...)."""
        chosen = torch.is_autocast_enabled(x.device.type)
        return super().forward(x if chosen else x.to(self.weight.dtype))


class PairConv(Conv):
    """The same convolution as two groups of outputs, which both see all of the input.

    On one thread and for one window torch keeps to loops of its own, four times as slow in float32;
    groups it leaves to oneDNN.
    """

    def __init__(self, whole: Conv):
        edge, out = whole.kernel_size[0], whole.out_channels
        super().__init__(2 * whole.in_channels, out, edge, padding=edge // 2, groups=2)
        self.load_state_dict(whole.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, ...) to (B, out, ...)."""
        return super().forward(torch.cat([x, x], dim=1))


def conv(channels: int, out: int, groups: int = 1, edge: int = 3) -> Conv:
    """Convolution that keeps the shape; zeros beyond the edge, for a tile is not periodic."""
    return Conv(channels, out, edge, padding=edge // 2, groups=groups)


def silence(layer: nn.Module) -> None:
    """Weights and biases of a layer to zero: it adds nothing until it has learned to."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def normalised(layer: nn.Module, x: Tensor, told: Tensor | None = None) -> Tensor:
    """A norm of x (B, C, ...) in its own precision, scaled and shifted by the noise level.

    told: (B, 2 C), or (1, 2 C) where all of a batch are at one level, as when painting: then scale
    and shift become the norm's own, at no cost. In float32 where the network is in bfloat16:
    rounded here, every voxel of a tile would be wrong in the same way, 1 % of the power of T_b.
    """
    assert isinstance(layer, nn.GroupNorm)
    x = x.to(layer.weight.dtype)
    if told is None:
        return layer(x)
    scale, shift = (1 + told[:, : x.shape[1]]), told[:, x.shape[1] :]
    if len(told) == 1 and layer.weight.dtype == told.dtype:
        weight = layer.weight * scale[0]
        bias = torch.addcmul(shift[0], layer.bias, scale[0])
        return functional.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    h = layer(x)
    spread = (..., *(None,) * (x.dim() - 2))
    return torch.addcmul(shift[spread], h.to(shift.dtype), scale[spread])


class ResidualBlock(nn.Module):
    """`convs` times norm, SiLU, convolution, around a skip connection; told the noise level.

    embedding: length of the noise level's embedding, 0 for none; it scales and shifts what comes
    out of the first convolution.
    """

    def __init__(
        self, channels: int, out: int, convs: int = 2, groups: int = 1, embedding: int = 0
    ):
        super().__init__()
        widths = [channels] + [out] * convs
        self.norms = nn.ModuleList(norm(width, groups) for width in widths[:-1])
        self.convs = nn.ModuleList(
            conv(a, b, groups) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        silence(self.convs[-1])  # a block starts as its skip connection
        self.skip = conv(channels, out, groups, edge=1) if channels != out else nn.Identity()
        self.level = nn.Linear(embedding, 2 * out) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """x: (B, channels, ...), embedding: (B, embedding); returns (B, out, ...)."""
        h = x
        for place, (normalise, convolve) in enumerate(zip(self.norms, self.convs, strict=True)):
            told = self.level(embedding) if place == 1 and self.level is not None else None
            h = normalised(normalise, h, told)
            h = convolve(functional.silu(h, inplace=not torch.is_grad_enabled()))
        return self.skip(x) + h


def run_blocks(blocks: nn.Module, x: Tensor, embedding: Tensor | None = None) -> Tensor:
    """Through the residual blocks of one resolution, a ModuleList, one after the other."""
    for block in blocks.children():
        x = block(x, embedding)
    return x


def run_outlet(outlet: nn.Module, x: Tensor) -> Tensor:
    """Through the last norm, activation and convolution, in their own precision."""
    return outlet(x.to(next(outlet.parameters()).dtype))


class Attention(nn.Module):
    """Self-attention between all voxels of the bottleneck; one head for each group of channels."""

    def __init__(self, channels: int, heads: int, groups: int = 1):
        super().__init__()
        self.heads = heads
        self.norm = norm(channels, groups)
        # The projections of a group see that group only: queries, keys and values lie side by side
        # within each group.
        self.project = conv(channels, 3 * channels, groups, edge=1)
        self.out = conv(channels, channels, groups, edge=1)
        silence(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, x, y, z) to the same; heads must be a multiple of the groups."""
        batch, channels, *space = x.shape
        projected = self.project(self.norm(x)).reshape(
            batch, self.heads, 3, channels // self.heads, math.prod(space)
        )
        query, key, value = projected.transpose(-1, -2).unbind(2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(-1, -2).reshape(batch, channels, *space))


def upsample(x: Tensor) -> Tensor:
    """Twice as fine on every axis, trilinear: torch's interpolate(scale_factor=2), much faster on a
    CPU, and channels last. A fine voxel is 3/4 of the coarse one that it lies in and 1/4 of the
    nearer neighbour.
    """
    x = x.permute(0, 2, 3, 4, 1)
    for axis in (1, 2, 3):
        n = x.shape[axis]
        below = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], dim=axis)
        above = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], dim=axis)
        pair = torch.stack([torch.lerp(x, below, 0.25), torch.lerp(x, above, 0.25)], dim=axis + 1)
        x = pair.flatten(axis, axis + 1)
    return x.permute(0, 4, 1, 2, 3)


def fold(x: Tensor, patch: int) -> Tensor:
    """Patches of patch³ voxels become channels: (B, C, n, n, n) to (B, C patch³, n/patch, ...)."""
    if patch == 1:
        return x
    b, c, n, *_ = x.shape
    m = n // patch
    x = x.reshape(b, c, m, patch, m, patch, m, patch)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * patch**3, m, m, m)


def unfold(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold`: (B, C patch³, m, m, m) to (B, C, m patch, ...)."""
    if patch == 1:
        return x
    b, c, m, *_ = x.shape
    x = x.reshape(b, c // patch**3, patch, patch, patch, m, m, m)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // patch**3, *(m * patch,) * 3)


def join(first: Tensor, second: Tensor, groups: int = 1) -> Tensor:
    """The channels of both, group by group: (B, C1, ...) and (B, C2, ...) to (B, C1 + C2, ...)."""
    if groups == 1:
        return torch.cat([first, second], dim=1)
    parts = [t.permute(0, 2, 3, 4, 1).unflatten(-1, (groups, -1)) for t in (first, second)]
    return torch.cat(parts, dim=-1).flatten(-2).permute(0, 4, 1, 2, 3)


def level_features(level: Tensor, count: int) -> Tensor:
    """Sines and cosines of a noise level in 0 .. 1: (B,) to (B, count), count even."""
    rates = torch.exp(torch.linspace(0.0, math.log(1000.0), count // 2, device=level.device))
    angles = level.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
