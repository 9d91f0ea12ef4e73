"""Build both networks from these: residual blocks, attention, changes of resolution.

Tensors are (B, C, x, y, z). `groups` keeps that many shares of the channels apart all through a
network, so that HALOgen's four output channels never see each other (paper section 2.1.1).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigbox.networks import fused

NORM_CHANNELS = 8  # channels that one group of a GroupNorm averages over, where there are as many


def norm(channels: int, groups: int = 1) -> nn.GroupNorm:
    """Make a GroupNorm whose groups never cross the borders of `groups`."""
    share = channels // groups
    return nn.GroupNorm(groups * max(1, share // NORM_CHANNELS), channels)


class Conv(nn.Conv3d):
    """Convolve in the precision of the weights, whatever the input has.

    Under autocast, as in training, autocast chooses the precision. Where the network only paints,
    on a GPU, `fast` does it.
    """

    fast: fused.Convolution | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, ...) from (B, channels, ...)."""
        if self.fast is not None:
            return self.fast(x)
        chosen = torch.is_autocast_enabled(x.device.type)
        return super().forward(x if chosen else x.to(self.weight.dtype))


class PairConv(Conv):
    """Convolve as `whole` does, as two groups of outputs that both see all of the input.

    On one thread and for one window torch keeps to loops of its own, four times as slow in float32.
    It leaves groups to oneDNN.
    """

    def __init__(self, whole: Conv):
        edge, out = whole.kernel_size[0], whole.out_channels
        super().__init__(2 * whole.in_channels, out, edge, padding=edge // 2, groups=2)
        self.load_state_dict(whole.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, ...) from (B, channels, ...)."""
        return super().forward(torch.cat([x, x], dim=1))


def conv(channels: int, out: int, groups: int = 1, edge: int = 3) -> Conv:
    """Make a convolution that keeps the shape, with zeros beyond the edge: no tile is periodic."""
    return Conv(channels, out, edge, padding=edge // 2, groups=groups)


def zero_weights(layer: nn.Module) -> None:
    """Set weights and biases to zero: the layer adds nothing until it has learned to."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def modulated_norm(layer: nn.Module, x: Tensor, modulation: Tensor | None = None) -> Tensor:
    """Normalise x (B, C, ...) in the norm's own precision, then scale and shift its channels.

    `modulation` is scale - 1 and shift by the noise level, (B, 2 C), or (1, 2 C) where all of a
    batch are at one level, as when painting: then they become the norm's own, at no cost. It is
    float32 where the network is bfloat16: rounded here, every voxel of a tile would be wrong in the
    same way, 1 % of the power of T_b.
    """
    assert isinstance(layer, nn.GroupNorm)
    x = x.to(layer.weight.dtype)
    if modulation is None:
        return functional.group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)
    scale, shift = 1 + modulation[:, : x.shape[1]], modulation[:, x.shape[1] :]
    if len(modulation) == 1 and layer.weight.dtype == modulation.dtype:
        weight = layer.weight * scale[0]
        bias = torch.addcmul(shift[0], layer.bias, scale[0])
        return functional.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    h = layer(x).to(shift.dtype)
    voxels = (..., *(None,) * (x.dim() - 2))
    return torch.addcmul(shift[voxels], h, scale[voxels])


class ResidualBlock(nn.Module):
    """Apply norm, SiLU and convolution `convs` times, around a skip connection.

    The embedding of the noise level, of length `embedding`, scales and shifts what comes out of the
    first convolution. With length 0 there is none.
    """

    def __init__(
        self, channels: int, out: int, convs: int = 2, groups: int = 1, embedding: int = 0
    ):
        super().__init__()
        widths = [channels] + [out] * convs
        self.norms = nn.ModuleList(norm(width, groups) for width in widths[:-1])
        self.convs = nn.ModuleList(conv(a, b, groups) for a, b in pairwise(widths))
        zero_weights(self.convs[-1])  # a block starts as its skip connection
        self.skip = conv(channels, out, groups, edge=1) if channels != out else nn.Identity()
        self.level = nn.Linear(embedding, 2 * out) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return (B, out, ...) from x (B, channels, ...) and the embedding (B, embedding)."""
        h = x
        first: Any = self.convs[0]
        if first.fast is not None:
            return self._fast(x, embedding)
        for index, (layer, convolve) in enumerate(zip(self.norms, self.convs, strict=True)):
            modulation = self.level(embedding) if index == 1 and self.level is not None else None
            h = modulated_norm(layer, h, modulation)
            h = convolve(functional.silu(h, inplace=not torch.is_grad_enabled()))
        skipped: Tensor = self.skip(x)
        return skipped + h

    def _fast(self, x: Tensor, embedding: Tensor | None) -> Tensor:
        """Do the same on a GPU; a bias is added where the result is read next."""
        skipped: Tensor = self.skip(x)
        h, bias, last = x, None, len(self.convs) - 1
        layer: Any
        convolve: Any
        for index, (layer, convolve) in enumerate(zip(self.norms, self.convs, strict=True)):
            modulation = self.level(embedding) if index == 1 and self.level is not None else None
            h = fused.normalise(layer, h, convolve.fast.dtype, bias, modulation)
            h, bias = convolve.fast.pending(h, skipped if index == last else None)
        return h


class ResidualBlocks(nn.Sequential):
    """Pass through `count` residual blocks of one resolution, one after the other."""

    def __init__(
        self, channels: int, out: int, count: int, convs: int, groups: int = 1, embedding: int = 0
    ):
        ends = [channels] + [out] * count
        super().__init__(
            *(ResidualBlock(a, b, convs, groups, embedding) for a, b in pairwise(ends))
        )

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return (B, out, ...) from x (B, channels, ...) and the embedding (B, embedding)."""
        for block in self:
            x = block(x, embedding)
        return x


class Outlet(nn.Sequential):
    """Apply the last norm, activation and convolution, in their own precision."""

    def __init__(self, channels: int, out: int, groups: int = 1):
        super().__init__(norm(channels, groups), nn.SiLU(), conv(channels, out, groups))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out, ...) from (B, channels, ...)."""
        first: Any = self[0]
        fast: Any = self[-1].fast
        if fast is not None:
            made: Tensor = fast(fused.normalise(first, x, fast.dtype))
            return made
        x = x.to(next(self.parameters()).dtype)
        for layer in self:
            x = layer(x)
        return x


class Attention(nn.Module):
    """Let all voxels of the bottleneck attend to each other, one head for each group of channels.

    `heads` must be a multiple of `groups`.
    """

    def __init__(self, channels: int, heads: int, groups: int = 1):
        super().__init__()
        self.heads = heads
        self.norm = norm(channels, groups)
        # The projections of a group see that group only: queries, keys and values lie side by side
        # within each group.
        self.project = conv(channels, 3 * channels, groups, edge=1)
        self.out = conv(channels, channels, groups, edge=1)
        zero_weights(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended (B, C, x, y, z), of the input's shape."""
        batch, channels, *space = x.shape
        if self.project.fast is not None:
            return self._fast(x)
        projected: Tensor = self.project(self.norm(x)).reshape(
            batch, self.heads, 3, channels // self.heads, math.prod(space)
        )
        query, key, value = projected.transpose(-1, -2).unbind(2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        added: Tensor = self.out(mixed.transpose(-1, -2).reshape(batch, channels, *space))
        return x + added

    def _fast(self, x: Tensor) -> Tensor:
        """Do the same on a GPU, channels last: queries, keys and values are views."""
        project, out = self.project.fast, self.out.fast
        assert project is not None and out is not None
        h = fused.normalise(self.norm, x, project.dtype, silu=False)
        projected = fused.rows(project(h)).flatten(1, 3)
        parts = projected.unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts.unbind(0))
        mixed = mixed.transpose(1, 2).flatten(2).unflatten(1, x.shape[2:])
        return out.pending(fused.columns(mixed), x)[0]


def upsample(x: Tensor) -> Tensor:
    """Interpolate to twice the resolution on every axis, trilinearly.

    A fine voxel is 3/4 of the coarse one that it lies in and 1/4 of the nearer neighbour. The same
    as torch's interpolate(scale_factor=2), but channels last and much faster on a CPU.
    """
    if fused.painting(x):
        return fused.upsample(x)
    x = x.permute(0, 2, 3, 4, 1)
    for axis in (1, 2, 3):
        n = x.shape[axis]
        below = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], dim=axis)
        above = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], dim=axis)
        pair = torch.stack([torch.lerp(x, below, 0.25), torch.lerp(x, above, 0.25)], dim=axis + 1)
        x = pair.flatten(axis, axis + 1)
    return x.permute(0, 4, 1, 2, 3)


def pool(x: Tensor) -> Tensor:
    """Return the largest of each 2³ voxels."""
    return fused.pool(x) if fused.painting(x) else functional.max_pool3d(x, 2)


def patchify(x: Tensor, patch: int) -> Tensor:
    """Make patches of patch³ voxels channels: (B, C, n, n, n) to (B, C patch³, n/patch, ...)."""
    if patch == 1:
        return x
    if fused.painting(x):
        return fused.patchify(x, patch)
    b, c, n, *_ = x.shape
    m = n // patch
    x = x.reshape(b, c, m, patch, m, patch, m, patch)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(b, c * patch**3, m, m, m)


def unpatchify(x: Tensor, patch: int) -> Tensor:
    """Invert `patchify`: (B, C patch³, m, m, m) to (B, C, m patch, ...)."""
    if patch == 1:
        return x
    b, c, m, *_ = x.shape
    x = x.reshape(b, c // patch**3, patch, patch, patch, m, m, m)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(b, c // patch**3, *(m * patch,) * 3)


def join(first: Tensor, second: Tensor, groups: int = 1) -> Tensor:
    """Join channels group by group: (B, C1, ...) and (B, C2, ...) to (B, C1 + C2, ...)."""
    if fused.painting(first):
        return fused.join(first, second, groups)
    if groups == 1:
        return torch.cat([first, second], dim=1)
    parts = [x.permute(0, 2, 3, 4, 1).unflatten(-1, (groups, -1)) for x in (first, second)]
    return torch.cat(parts, dim=-1).flatten(-2).permute(0, 4, 1, 2, 3)


def meet(how: str, first: Tensor, second: Tensor, groups: int = 1) -> Tensor:
    """Let what comes from below meet its level's own: joined channels, or their sum ("add")."""
    return join(first, second, groups) if how == "join" else first + second


def level_features(level: Tensor, count: int) -> Tensor:
    """Return sines and cosines of noise levels in 0 .. 1: (B,) to (B, count), count even."""
    rates = torch.exp(torch.linspace(0.0, math.log(1000.0), count // 2, device=level.device))
    angles = level.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
